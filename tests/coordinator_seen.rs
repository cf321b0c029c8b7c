//! A coordinator as it is seen from outside: by its commands and by the console. The test itself
//! answers on its socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;

use mvm::coordinator::admin;
use mvm::coordinator::control::{Order, RouteOp};
use mvm::coordinator::metrics::Metrics;
use mvm::coordinator::status::{RouteState, Status};
use mvm::terminal::pty::Exit;
use serde_json::{Value, json};
use support::terminal::Terminal;
use support::{DEADLINE, World};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

fn status() -> Status {
    let route = |listen: &str, pool: &str, state: &str| {
        json!({ "listen": listen, "tenant": "dev", "pool": pool, "node": "one", "state": state,
            "connections": 0, "queued": 0, "accepted": 0, "refused": 0, "rx_bytes": 0, "tx_bytes": 0,
            "wakes": 0, "failed_wakes": 0, "instances": [] })
    };
    let nodes = json!([{ "name": "one", "address": "127.0.0.1:4433", "state": "connected" }]);
    let routes = json!([
        route("127.0.0.1:8443", "gateways", "sleeping"),
        route("127.0.0.1:8080", "workers", "sleeping"),
    ]);
    let time = "2026-11-28T12:00:00Z";
    serde_json::from_value(
        json!({ "v": 1, "version": "0.1.0", "pid": 4242, "started": time, "config": "/c.toml",
            "draining": false, "connections": 0, "nodes": nodes, "routes": routes }),
    )
    .unwrap()
}

/// What answers on the socket of a world.
struct Coordinator {
    status: watch::Sender<Status>,
    orders: Receiver<String>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Coordinator {
    fn start(world: &World) -> Self {
        let socket = socket(world);
        let (sender, now) = watch::channel(status());
        let (told, orders) = channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (orders, mut asked) = mpsc::channel(8);
                let listener = admin::listen(&socket).unwrap();
                ready.send(()).unwrap();
                let answering = async {
                    while let Some(order) = asked.recv().await {
                        match order {
                            Order::Status(reply) => drop(reply.send(now.borrow().clone())),
                            Order::Route { op: RouteOp::Sleep, reply, .. } => {
                                let _ = reply.send(Err("3 connections are open\nhelp: wait".into()));
                            }
                            Order::Route { listen, op, reply } => {
                                let _ = told.send(format!("{} {listen}", op.as_str()));
                                let _ = reply.send(Ok(()));
                            }
                            Order::Reload(reply) => drop(reply.send(Ok(()))),
                        }
                    }
                };
                let serving = admin::serve(listener, orders, Metrics::default(), stopped);
                tokio::select! {
                    () = serving => {}
                    () = answering => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self { status: sender, orders, stop, thread: Some(thread) }
    }

    fn order(&self) -> String {
        self.orders.recv_timeout(DEADLINE).unwrap()
    }

    fn end(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Where the coordinator of a world listens.
fn socket(world: &World) -> PathBuf {
    world.ok(["status"]);
    let runtime = std::fs::read_dir(world.path("run/mvm")).unwrap().next().unwrap().unwrap();
    runtime.path().join("coordinator.sock")
}

/// `mvm` as on a terminal.
fn on_terminal(world: &World, args: &[&str], size: (u16, u16)) -> Terminal {
    let mut command: Command = world.program(env!("CARGO_BIN_EXE_mvm"));
    command.args(args).env("TERM", "xterm-256color").env_remove("CI");
    Terminal::start(command, size)
}

#[test]
fn without_a_coordinator_every_command_says_what_starts_one() {
    let world = World::empty();
    for args in [
        &["coordinator", "routes"][..],
        &["coordinator", "routes", "--watch"],
        &["coordinator", "wake", "8443"],
        &["coordinator", "reload"],
    ] {
        let error = world.fails(args);
        assert!(error.starts_with("error: no coordinator runs on this state"), "{error}");
        assert!(error.contains("\nhelp: `mvm dev cluster up` starts one"), "{error}");
    }
}

#[test]
fn routes_are_listed_for_people_and_programs() {
    let world = World::empty();
    let _coordinator = Coordinator::start(&world);
    let table = world.ok(["coordinator", "routes"]);
    assert!(
        table.lines().any(|line| line.contains("127.0.0.1:8443") && line.contains("sleeping")),
        "{table}"
    );
    let json: Value = serde_json::from_str(&world.ok(["coordinator", "routes", "--json"])).unwrap();
    assert_eq!((&json["v"], &json["routes"][1]["pool"]), (&1.into(), &"workers".into()));
}

#[test]
fn orders_are_given_by_address_or_port_and_refusals_are_told() {
    let world = World::empty();
    let coordinator = Coordinator::start(&world);
    world.ok(["coordinator", "wake", "8443"]);
    world.ok(["coordinator", "drain", "127.0.0.1:8080"]);
    world.ok(["coordinator", "resume", "8080"]);
    let orders = ["wake 127.0.0.1:8443", "drain 127.0.0.1:8080", "resume 127.0.0.1:8080"];
    assert_eq!([(); 3].map(|()| coordinator.order()), orders);
    world.ok(["coordinator", "reload"]);
    let refused = world.fails(["coordinator", "sleep", "8443"]);
    assert_eq!(refused, "error: 3 connections are open\nhelp: wait\n");
    world.exits(2, ["coordinator", "wake", "web"]);
}

#[test]
fn without_a_terminal_changes_are_lines_until_the_coordinator_ends() {
    let world = World::empty();
    let mut coordinator = Coordinator::start(&world);
    let mut command = world.mvm(["coordinator", "routes", "--watch"]);
    let mut watching = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (told, lines) = channel();
    let out = BufReader::new(watching.stdout.take().unwrap());
    let reading = std::thread::spawn(move || {
        out.lines().map_while(Result::ok).for_each(|line| drop(told.send(line)));
    });
    let next = || {
        let line = lines.recv_timeout(DEADLINE).unwrap();
        line.split_once(' ').unwrap().1.to_owned()
    };
    assert_eq!(next(), "127.0.0.1:8443 dev/gateways sleeping");
    assert_eq!(next(), "127.0.0.1:8080 dev/workers sleeping");
    coordinator.status.send_modify(|status| status.routes[0].state = RouteState::Waking);
    assert_eq!(next(), "127.0.0.1:8443 dev/gateways waking");
    coordinator.end();
    assert_eq!(lines.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    reading.join().unwrap();
    let output = watching.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = support::stderr(&output);
    assert!(error.starts_with("error: the coordinator has ended\nhelp: "), "{error}");
}

#[test]
fn on_a_terminal_the_table_is_drawn_in_its_place_until_it_is_interrupted() {
    let world = World::empty();
    let coordinator = Coordinator::start(&world);
    let mut terminal = on_terminal(&world, &["coordinator", "routes", "--watch"], (100, 12));
    terminal.see("dev/workers");
    coordinator.status.send_modify(|status| status.routes[0].state = RouteState::Running);
    terminal.see("running");
    assert_eq!(terminal.text().matches("dev/gateways").count(), 1, "{}", terminal.text());
    terminal.keys("\x03");
    assert_eq!(terminal.end(), Exit::Code(0));
}

#[test]
fn the_console_shows_routes_as_they_change_and_steers_them() {
    let world = World::empty();
    let mut console = on_terminal(&world, &["tui"], (120, 40));
    console.see("No cluster: `mvm dev cluster up` starts one.");
    let mut coordinator = Coordinator::start(&world);
    console.see("coordinator ● 127.0.0.1");
    console.keys("5");
    console.see("127.0.0.1:8080 to dev/workers on one");
    coordinator.status.send_modify(|status| status.routes[1].state = RouteState::Waking);
    console.see("[waking]");
    console.keys("d");
    assert_eq!(coordinator.order(), "drain 127.0.0.1:8080");
    console.see("127.0.0.1:8080: nothing new is taken");
    console.keys("j");
    console.see("127.0.0.1:8443 to dev/gateways on one");
    console.keys("w");
    assert_eq!(coordinator.order(), "wake 127.0.0.1:8443");
    coordinator.end();
    console.see("No cluster: ");
    console.keys("q");
    console.end();
}

#[test]
fn a_route_is_connected_to_in_a_tab_of_the_console() {
    let world = World::empty();
    let coordinator = Coordinator::start(&world);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    coordinator.status.send_modify(|status| {
        status.routes.truncate(1);
        status.routes[0].listen = address;
    });
    let mut console = on_terminal(&world, &["tui"], (120, 40));
    console.see("coordinator ● 127.0.0.1");
    console.keys("5");
    console.see(&format!("{address} to dev/gateways on one"));
    console.keys("o");
    let (mut client, _) = listener.accept().unwrap();
    console.see(&format!("connected to {address}"));
    console.keys("ping\r");
    let mut said = [0; 5];
    client.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ping\n");
    client.write_all(b"pong\n").unwrap();
    console.see("pong");
    drop(client);
    console.see(&format!("{address} has closed the connection"));
}

#[test]
fn a_configuration_is_checked_without_a_coordinator() {
    let world = World::empty();
    let node = "[[nodes]]\nname = \"one\"\naddress = \"127.0.0.1:4433\"\n";
    let route =
        "[[routes]]\ntenant_id = \"dev\"\npool_id = \"web\"\nlisten = \"127.0.0.1:8443\"\nnode = \"one\"\n";
    std::fs::write(world.path("c.toml"), format!("{node}{route}")).unwrap();
    assert_eq!(world.ok(["coordinator", "check", "--config", "c.toml"]), "1 route, 1 node\n");
    let json: Value =
        serde_json::from_str(&world.ok(["coordinator", "check", "--config", "c.toml", "--json"])).unwrap();
    assert_eq!(json, json!({ "v": 1, "routes": 1, "nodes": 1 }));
    std::fs::write(world.path("c.toml"), route).unwrap();
    let error = world.fails(["coordinator", "check", "--config", "c.toml"]);
    assert!(error.starts_with("error: the coordinator's configuration `c.toml` is not valid"), "{error}");
    let error = world.fails(["coordinator", "check"]);
    assert!(error.contains("cluster/coordinator.toml`: No such file"), "{error}");
}
