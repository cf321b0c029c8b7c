//! The way to a node's agent: one connection, made again whenever it is lost.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::config;
use super::status::{NodeState, NodeStatus};
use crate::agent::client::{Client, ClientError};
use crate::agent::pki::{Authority, Identity, PeerName};
use crate::event::text::in_a_line;

/// Pause before a lost connection is made again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The coordinator's, with its key.
    pub identity: PathBuf,
    /// The cluster's authority.
    pub authority: PathBuf,
}

/// How the way stands.
#[derive(Debug, Clone)]
pub enum Link {
    /// It is tried.
    Connecting,
    /// It is there.
    Up(Client),
    /// It is not there, and tried again.
    Down(String),
    /// It will not be there before certificates, names or addresses change; it is tried all the same.
    Refused(String),
}

/// A node, for those who ask its agent.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: PeerName,
    /// Where its agent listens.
    pub address: SocketAddr,
    link: watch::Receiver<Link>,
}

impl Node {
    /// A node, and what keeps the way to it until the node is dropped by all.
    pub fn new(node: &config::Node, credentials: Credentials) -> (Self, impl Future<Output = ()> + use<>) {
        let (told, link) = watch::channel(Link::Connecting);
        let config::Node { name, address } = node.clone();
        let kept = keep(name.clone(), address, credentials, told);
        (Self { name, address, link }, kept)
    }

    /// The way as it stands.
    pub fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    /// Waits until the agent answers. One that refuses is not waited for.
    pub async fn client(&self) -> Result<Client, String> {
        let mut link = self.link.clone();
        let settled = link.wait_for(|link| matches!(link, Link::Up(_) | Link::Refused(_))).await;
        match settled.as_deref() {
            Ok(Link::Up(client)) => Ok(client.clone()),
            Ok(Link::Refused(why)) => Err(why.clone()),
            Ok(_) | Err(_) => Err(format!("the node `{}` is no longer in the configuration", self.name)),
        }
    }

    /// As told in the status.
    pub fn status(&self) -> NodeStatus {
        let (state, error) = match self.link() {
            Link::Connecting => (NodeState::Connecting, None),
            Link::Up(_) => (NodeState::Connected, None),
            Link::Down(why) => (NodeState::Down, Some(why)),
            Link::Refused(why) => (NodeState::Refused, Some(why)),
        };
        NodeStatus { name: self.name.clone(), address: self.address, state, error }
    }
}

async fn keep(name: PeerName, address: SocketAddr, credentials: Credentials, told: watch::Sender<Link>) {
    let work = async {
        let mut pause = FIRST_PAUSE;
        let mut last = String::new();
        loop {
            let why = match connect(&name, address, &credentials).await {
                Ok(client) => {
                    tracing::info!(node = %name, %address, "the agent answers");
                    pause = FIRST_PAUSE;
                    last.clear();
                    told.send_replace(Link::Up(client.clone()));
                    let why = client.closed().await;
                    // Told first: nobody is to ask it meanwhile.
                    told.send_replace(Link::Down(why.to_string()));
                    client.close().await;
                    Link::Down(why.to_string())
                }
                Err(Trouble::Passing(why)) => Link::Down(why),
                Err(Trouble::Lasting(why)) => Link::Refused(why),
            };
            if let Link::Down(text) | Link::Refused(text) = &why
                && *text != last
            {
                tracing::warn!(node = %name, %address, error = in_a_line(text), "the agent does not answer");
                last.clone_from(text);
            }
            told.send_replace(why);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    tokio::select! {
        () = work => {}
        () = told.closed() => {}
    }
}

enum Trouble {
    Passing(String),
    Lasting(String),
}

/// Connects with the certificates as they are now: new ones are used without a restart.
async fn connect(name: &PeerName, address: SocketAddr, credentials: &Credentials) -> Result<Client, Trouble> {
    let lasting = |error: &dyn std::fmt::Display| Trouble::Lasting(error.to_string());
    let identity = Identity::load(&credentials.identity).map_err(|error| lasting(&error))?;
    let authority = Authority::load(&credentials.authority).map_err(|error| lasting(&error))?;
    Client::connect(address, name, &identity, &authority).await.map_err(|error| match error {
        ClientError::TheirsUnknown { .. }
        | ClientError::TheirsOver { .. }
        | ClientError::OtherNode { .. }
        | ClientError::OursUnknown { .. }
        | ClientError::OursRefused { .. }
        | ClientError::OursOver { .. }
        | ClientError::OursOdd { .. }
        | ClientError::OtherProtocol { .. }
        | ClientError::Tls(_) => lasting(&error),
        _ => Trouble::Passing(error.to_string()),
    })
}
