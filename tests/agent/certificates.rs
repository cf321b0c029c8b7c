//! Who gets in, and what the others are told.

use std::net::UdpSocket;

use mvm::agent::client::ClientError;
use mvm::agent::limits::Limits;
use mvm::agent::pki::{self, Role};
use mvm::agent::request::Request;
use mvm::agent::response::{FaultCode, Response};
use mvm::fleet::desired::DesiredState;
use quinn::{Connection, ConnectionError};

use crate::place::{Cluster, Place, Raw, connect, name, refused, release, soon};

fn reconcile() -> Request {
    let desired = DesiredState {
        schema_version: 1,
        node_id: "dev".into(),
        tenants: Vec::new(),
        prune_unknown_tenants: false,
        prune_unknown_pools: false,
    };
    Request::Reconcile { desired: Box::new(desired), dry_run: true }
}

/// The TLS alert with which the agent ends a connection: a client of TLS 1.3 believes for a moment
/// to be let in.
async fn alert(connection: Result<Connection, ConnectionError>) -> u64 {
    let error = match connection {
        Ok(connection) => soon(connection.closed()).await,
        Err(error) => error,
    };
    match error {
        ConnectionError::ConnectionClosed(frame) => u64::from(frame.error_code) - 0x100,
        other => panic!("{other:?} is no alert of the agent"),
    }
}

/// What is said ends with what to do.
fn says(error: &ClientError, words: &str) {
    let text = error.to_string();
    assert!(text.contains(words) && text.contains("\nhelp: "), "{text}");
}

#[tokio::test]
async fn clients_may_ask_everything_and_coordinators_all_but_reconcile() {
    let place = Place::open_answering(Limits::default());
    let client = place.client(Role::Client, "ann").await.unwrap();
    let Response::Hello { node, role, .. } = client.ask(Request::Hello).await.unwrap() else { panic!() };
    assert_eq!((node, role), (name("dev"), Role::Client));
    assert_eq!(client.ask(reconcile()).await.unwrap(), Response::Renewed);
    let coordinator = place.client(Role::Coordinator, "front").await.unwrap();
    assert_eq!(coordinator.ask(release()).await.unwrap(), Response::Released);
    let fault = refused(coordinator.ask(reconcile()).await);
    assert_eq!(fault.code, FaultCode::Forbidden);
    assert_eq!(
        fault.message,
        "the coordinator `front` may not ask for `reconcile`\nhelp: use the certificate of a client"
    );
}

#[tokio::test]
async fn a_node_may_ask_nothing_and_is_told_so_in_words() {
    let place = Place::open_answering(Limits::default());
    let error = place.client(Role::Node, "other").await.unwrap_err();
    says(&error, "the node `other` may not ask for `hello`");
    // By hand, past the greeting.
    let identity = Some(place.cluster.file(Role::Node, "other"));
    let connection = place.raw(Raw { identity, ..Raw::default() }).await.unwrap();
    let frame = mvm::agent::wire::encode(&release()).unwrap();
    let fault = crate::place::fault(crate::place::exchange(&connection, &frame, true).await);
    assert_eq!(fault.code, FaultCode::Forbidden);
}

#[tokio::test]
async fn the_owner_is_told_who_asks() {
    let (place, mut requests) = Place::open(Limits::default());
    let client = place.client(Role::Coordinator, "front").await.unwrap();
    let asking = tokio::spawn(async move { client.ask(release()).await });
    let incoming = soon(requests.recv()).await.unwrap();
    assert_eq!((&incoming.peer.name, incoming.peer.role), (&name("front"), Role::Coordinator));
    assert!(incoming.peer.address.ip().is_loopback());
    incoming.reply.send(Response::Released).unwrap();
    assert_eq!(soon(asking).await.unwrap().unwrap(), Response::Released);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_on_both_sides() {
    let place = Place::open_answering(Limits::default());
    let other = Cluster::found();
    let stranger = other.identity(Role::Client, "operator");
    says(&place.connect(&stranger).await.unwrap_err(), "does not know the authority of our certificate");
    let error = connect(place.address, "dev", &stranger, &other).await.unwrap_err();
    assert!(matches!(error, ClientError::TheirsUnknown { .. }), "{error:?}");
    says(&error, "is of another cluster");
}

#[tokio::test]
async fn a_certificate_that_is_over_is_refused_here_and_by_the_agent() {
    let place = Place::open_answering(Limits::default());
    let path = place.cluster.expired();
    let identity = pki::Identity::load(&path).unwrap();
    says(
        &place.connect(&identity).await.unwrap_err(),
        "our certificate, of the client `late`, is valid from",
    );
    let raw = place.raw(Raw { identity: Some(path), ..Raw::default() }).await;
    assert_eq!(alert(raw).await, 45);
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let place = Place::open_answering(Limits::default());
    assert_eq!(alert(place.raw(Raw::default()).await).await, 116);
}

#[tokio::test]
async fn another_protocol_or_none_is_refused() {
    let place = Place::open_answering(Limits::default());
    let identity = Some(place.cluster.file(Role::Client, "operator"));
    for alpn in [vec![b"mvm/2".to_vec()], vec![b"h3".to_vec()], vec![]] {
        let raw = Raw { identity: identity.clone(), alpn, ..Raw::default() };
        assert_eq!(alert(place.raw(raw).await).await, 120);
    }
}

#[tokio::test]
async fn a_certificate_without_a_role_is_refused_in_words() {
    let place = Place::open_answering(Limits::default());
    let read = |file: &str| std::fs::read_to_string(place.cluster.dir().join(file)).unwrap();
    let authority = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), authority).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["dev.mvm".to_string()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let path = place.cluster.dir().join("odd");
    std::fs::write(&path, certificate.pem() + &key.serialize_pem()).unwrap();
    let connection = place.raw(Raw { identity: Some(path), ..Raw::default() }).await.unwrap();
    let ConnectionError::ApplicationClosed(frame) = soon(connection.closed()).await else { panic!() };
    assert!(String::from_utf8_lossy(&frame.reason).contains("it says no role"), "{frame}");
}

#[tokio::test]
async fn only_the_node_that_was_meant_is_believed() {
    let cluster = Cluster::found();
    let identity = cluster.identity(Role::Coordinator, "dev");
    let (place, _requests) = Place::open_as(cluster, &identity, Limits::default());
    let operator = place.cluster.identity(Role::Client, "operator");
    says(&place.connect(&operator).await.unwrap_err(), "is not the node that was to be there");
    let place = Place::open_answering(Limits::default());
    let operator = place.cluster.identity(Role::Client, "operator");
    let other = connect(place.address, "prod", &operator, &place.cluster).await;
    says(&other.unwrap_err(), "is not the node that was to be there");
}

#[tokio::test]
async fn where_nobody_answers_the_address_is_named() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let cluster = Cluster::found();
    let operator = cluster.identity(Role::Client, "operator");
    let client = connect(address, "dev", &operator, &cluster).await;
    says(&client.unwrap_err(), &format!("no agent answers at {address}"));
}

#[tokio::test]
async fn new_certificates_are_shown_to_new_peers_and_old_connections_go_on() {
    let place = Place::open_answering(Limits::default());
    let before = place.operator().await;
    pki::rotate(place.cluster.dir()).unwrap();
    place.server.use_identity(&place.cluster.identity(Role::Node, "dev")).unwrap();
    let after = place.operator().await;
    assert_eq!(before.ask(release()).await.unwrap(), Response::Released);
    assert_eq!(after.ask(release()).await.unwrap(), Response::Released);
}
