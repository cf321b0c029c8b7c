use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::ClientError;
use super::*;
use crate::coordinator::status::sample;

/// A server whose orders the test answers.
struct Place {
    socket: PathBuf,
    status: watch::Sender<Status>,
    orders: Receiver<String>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    _dir: TempDir,
}

impl Place {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let (status, now) = watch::channel(sample::status());
        let (asked, mut incoming) = mpsc::channel(8);
        let (told, orders) = channel();
        tokio::spawn(async move {
            while let Some(order) = incoming.recv().await {
                match order {
                    Order::Status(reply) => drop(reply.send(now.borrow().clone())),
                    Order::Route { listen, op, reply } => {
                        told.send(format!("{} {listen}", op.as_str())).unwrap();
                        let busy = || "3 connections are open\nhelp: drain it first".to_owned();
                        let _ = reply.send(if op == RouteOp::Sleep { Err(busy()) } else { Ok(()) });
                    }
                    Order::Reload(reply) => {
                        told.send("reload".into()).unwrap();
                        let _ = reply.send(Ok(()));
                    }
                }
            }
        });
        let (listener, stop) = (listen(&socket).unwrap(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, asked, Metrics::default(), stop.clone()));
        Self { socket, status, orders, stop, server, _dir: dir }
    }

    async fn end(self) {
        self.stop.cancel();
        self.server.await.unwrap();
    }

    /// What is answered to these bytes.
    async fn raw(&self, text: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_client_gets_the_status_as_it_is() {
    let place = Place::open();
    assert_eq!(client::status(&place.socket).await.unwrap(), sample::status());
    place.end().await;
}

#[tokio::test]
async fn orders_reach_the_coordinator_and_a_refusal_comes_back_in_its_words() {
    let place = Place::open();
    let listen = "127.0.0.1:8443".parse().unwrap();
    client::route(&place.socket, listen, RouteOp::Wake).await.unwrap();
    client::route(&place.socket, "[::1]:80".parse().unwrap(), RouteOp::Drain).await.unwrap();
    let refused = client::route(&place.socket, listen, RouteOp::Sleep).await.unwrap_err();
    assert_eq!(refused.to_string(), "3 connections are open\nhelp: drain it first");
    client::reload(&place.socket).await.unwrap();
    let orders: Vec<String> = place.orders.try_iter().collect();
    assert_eq!(orders, ["wake 127.0.0.1:8443", "drain [::1]:80", "sleep 127.0.0.1:8443", "reload"]);
    place.end().await;
}

#[tokio::test]
async fn who_watches_is_told_at_once_and_then_of_every_change_until_the_end() {
    let place = Place::open();
    let mut watch = client::watch(&place.socket).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), sample::status());
    place.status.send_modify(|status| status.connections = 7);
    assert_eq!(watch.next().await.unwrap().unwrap().connections, 7);
    place.status.send_modify(|status| status.draining = true);
    assert!(watch.next().await.unwrap().unwrap().draining);
    place.end().await;
    assert!(watch.next().await.unwrap().is_none());
}

#[tokio::test]
async fn metrics_are_told_from_the_status() {
    let place = Place::open();
    let page = place.raw("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.contains("application/openmetrics-text"), "{page}");
    assert!(page.contains("mvm_coordinator_node_up{node=\"one\"} 1\n"), "{page}");
    place.end().await;
}

#[tokio::test]
async fn what_there_is_not_is_said() {
    let place = Place::open();
    for (request, answer) in [
        ("POST /status", " 405 "),
        ("GET /reload", " 405 "),
        ("GET /", " 404 "),
        ("POST /routes/127.0.0.1:1/burn", " 404 "),
        ("POST /routes/nowhere/wake", " 404 "),
        ("\x16\x03\x01 what", " 400 "),
    ] {
        let text = place.raw(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(text.lines().next().unwrap().contains(answer), "{request}: {text}");
    }
    assert!(place.orders.try_iter().next().is_none());
    place.end().await;
}

#[tokio::test]
async fn without_a_coordinator_it_is_said_what_starts_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    let never = client::status(&socket).await.unwrap_err();
    assert!(matches!(never, ClientError::Absent(_)));
    drop(listen(&socket).unwrap());
    let dead = client::watch(&socket).await.unwrap_err().to_string();
    assert!(dead.starts_with("no coordinator runs on this state"), "{dead}");
    assert!(dead.contains("\nhelp: `mvm dev cluster up` starts one"), "{dead}");
}

#[tokio::test]
async fn the_socket_is_this_users_alone_and_takes_the_place_of_a_dead_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    drop(listen(&socket).unwrap());
    let _again = listen(&socket).unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let nowhere = listen(&dir.path().join("none/c.sock")).unwrap_err().to_string();
    assert!(nowhere.contains("cannot listen on the coordinator's socket"), "{nowhere}");
}

#[tokio::test]
async fn a_coordinator_that_ends_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("c.sock");
    let (orders, _) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let serving = serve(listen(&socket).unwrap(), orders.clone(), Metrics::default(), stop.clone());
    let server = tokio::spawn(serving);
    let error = client::status(&socket).await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(text) if text == "the coordinator is ending"), "{error}");
    assert!(client::watch(&socket).await.unwrap().next().await.unwrap().is_none());
    assert_eq!(metrics_text(orders, Metrics::default())().await, "# EOF\n");
    stop.cancel();
    server.await.unwrap();
}
