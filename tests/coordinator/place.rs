//! A coordinator with an agent and guests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mvm::agent::pki::{self, AUTHORITY, Authority, Identity, PeerName, Role, Validity};
use mvm::fleet::state::InstanceState;
use serde_json::Value;

use crate::agent::{Agent, Guests, Manner};
use crate::support::{DEADLINE, Running, World, wait_until};

/// A coordinator that serves one route, to the pool `dev/web`.
pub struct Place {
    pub world: World,
    pub agent: Option<Agent>,
    pub guests: Guests,
    pub coordinator: Option<Running>,
    pub route: SocketAddr,
    agent_address: SocketAddr,
}

/// An address that nobody listens on.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Place {
    /// With guests that sleep; `settings` and `route` are lines of the configuration.
    pub fn new(guests: &[Manner], settings: &str, route: &str) -> Self {
        let mut place = Self::without_agent(guests, settings, route);
        place.start_agent(InstanceState::Sleeping);
        place.start();
        place
    }

    /// Nothing runs yet but the guests.
    pub fn without_agent(guests: &[Manner], settings: &str, route: &str) -> Self {
        let world = World::empty();
        let dir = world.state().join("cluster/pki");
        std::fs::create_dir_all(&dir).unwrap();
        pki::init(&dir).unwrap();
        for role in [Role::Node, Role::Coordinator] {
            pki::issue(&dir, role, &name(), Validity::days(30).unwrap()).unwrap();
        }
        // A UDP port: what is free for TCP is most likely free for it too.
        let place = Self {
            world,
            agent: None,
            guests: Guests::start(guests),
            coordinator: None,
            route: free(),
            agent_address: free(),
        };
        place.configure(settings, route);
        place
    }

    pub fn config(&self) -> PathBuf {
        self.world.state().join("cluster/coordinator.toml")
    }

    /// Writes the configuration.
    pub fn configure(&self, settings: &str, route: &str) {
        let text = format!(
            "[coordinator]\nhealth_interval_secs = 1\n{settings}\n\n[[nodes]]\nname = \"dev\"\naddress = \"{}\"\n\n{}\n{route}\n",
            self.agent_address,
            self.route_words(self.route),
        );
        let aside = self.config().with_extension("new");
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(aside, self.config()).unwrap();
    }

    /// A route, as the configuration has it.
    pub fn route_words(&self, listen: SocketAddr) -> String {
        format!("[[routes]]\ntenant_id = \"dev\"\npool_id = \"web\"\nlisten = \"{listen}\"\nnode = \"dev\"")
    }

    pub fn start_agent(&mut self, state: InstanceState) {
        let dir = self.world.state().join("cluster/pki");
        let identity = Identity::load(&dir.join(pki::file_name(Role::Node, &name()))).unwrap();
        let authority = Authority::load(&dir.join(AUTHORITY)).unwrap();
        self.start_agent_as(identity, authority, state);
    }

    pub fn start_agent_as(&mut self, identity: Identity, authority: Authority, state: InstanceState) {
        let guests = self.guests.endpoints.iter().map(|endpoint| (*endpoint, state)).collect();
        self.agent = Some(Agent::start(self.agent_address, identity, authority, guests));
    }

    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    pub fn start(&mut self) {
        let command = self.world.mvm(["coordinator", "serve", "--log-level", "debug"]);
        let mut coordinator = Running::start(command);
        coordinator.line("coordinator listens on");
        self.coordinator = Some(coordinator);
    }

    pub fn coordinator(&mut self) -> &mut Running {
        self.coordinator.as_mut().unwrap()
    }

    /// A client.
    pub fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.route).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client
    }

    /// The status of the coordinator's only route.
    pub fn status(&self) -> Value {
        let status: Value =
            serde_json::from_str(&self.world.ok(["coordinator", "routes", "--json"])).unwrap();
        status["routes"][0].clone()
    }

    /// Waits for the route to be as it should.
    pub fn until(&self, what: &str, is: impl Fn(&Value) -> bool) {
        wait_until(DEADLINE, what, || is(&self.status()));
    }
}

pub fn name() -> PeerName {
    "dev".parse().unwrap()
}

/// Says a line and hears the answer; empty when the connection is closed instead.
pub fn ask(client: &mut TcpStream, line: &str) -> String {
    client.write_all(line.as_bytes()).unwrap();
    hear(client)
}

/// What comes next; empty at the end.
pub fn hear(client: &mut TcpStream) -> String {
    let mut heard = [0; 4096];
    let length = client.read(&mut heard).unwrap();
    String::from_utf8_lossy(&heard[..length]).into_owned()
}

/// Whether a connection is ended from the other side without a word, and how long that took.
pub fn is_closed(client: &mut TcpStream) -> Option<Duration> {
    let begun = Instant::now();
    match client.read(&mut [0; 16]) {
        Ok(0) => Some(begun.elapsed()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Some(begun.elapsed()),
        _ => None,
    }
}
