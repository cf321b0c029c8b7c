//! `mvm agent certs`, by its words.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use serde_json::Value;
use support::{World, stderr, stdout};

/// Exit code, output and errors, the test's directory written as `[DIR]`.
fn said(world: &World, args: &[&str]) -> String {
    let output = world.mvm(args).output().unwrap();
    let dir = world.path("");
    let shown = |text: String| text.replace(dir.to_str().unwrap().trim_end_matches('/'), "[DIR]");
    format!("exit {}\n{}{}", output.status.code().unwrap(), shown(stdout(&output)), shown(stderr(&output)))
}

fn json(world: &World, args: &[&str]) -> Value {
    let output = world.mvm(args).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_cluster_is_founded_its_peers_get_certificates_and_new_ones() {
    let world = World::empty();
    let certs = |args: &[&str]| said(&world, &[&["agent", "certs", "--dir", "pki"], args].concat());
    assert_snapshot!(certs(&["init"]), @"
    exit 0
    pki/ca.pem
    ");
    assert!(certs(&["init"]).contains("note: there is an authority already, until "));
    assert_snapshot!(certs(&["issue", "node", "dev"]), @"
    exit 0
    pki/node-dev.pem
    ");
    assert_snapshot!(certs(&["issue", "client", "ann", "--days", "30"]), @"
    exit 0
    pki/client-ann.pem
    ");
    assert_snapshot!(certs(&["issue", "client", "ann"]), @"
    exit 1
    error: there is `pki/client-ann.pem` already
    help: `mvm agent certs rotate` gives new certificates to all; or move the file away
    ");
    let before = fs::read(world.path("pki/client-ann.pem")).unwrap();
    let status = json(&world, &["--json", "agent", "certs", "status", "--dir", "pki"]);
    assert_eq!((&status["v"], &status["authority"]["can_issue"]), (&1.into(), &true.into()));
    let ann = &status["certificates"][0];
    assert_eq!(
        (&ann["role"], &ann["name"], &ann["days_left"]),
        (&"client".into(), &"ann".into(), &29.into())
    );
    assert!(certs(&["rotate"]).starts_with("exit 0\npki/client-ann.pem  until "));
    assert_ne!(fs::read(world.path("pki/client-ann.pem")).unwrap(), before);
    fs::write(world.path("pki/client-ann.pem"), "nonsense").unwrap();
    let status = certs(&["status"]);
    assert!(status.starts_with("exit 1\n"), "{status}");
    assert!(status.contains("warning: `pki/client-ann.pem` cannot be used: it has no key"), "{status}");
    for file in fs::read_dir(world.path("pki")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

#[test]
fn what_cannot_be_issued_is_said() {
    let world = World::empty();
    let certs = |args: &[&str]| said(&world, &[&["agent", "certs", "--dir", "pki"], args].concat());
    assert_snapshot!(certs(&["status"]), @"
    exit 1
    error: there is no certificate authority in `pki`
    help: `mvm agent certs init` makes one
    ");
    assert_snapshot!(certs(&["issue", "node", "dev"]), @"
    exit 1
    error: there is no certificate authority in `pki`
    help: `mvm agent certs init` makes one
    ");
    assert_snapshot!(certs(&["issue", "king", "dev"]), @"
    exit 2
    error: invalid value 'king' for '<ROLE>': there is no role `king`
    help: there are node, coordinator and client

    For more information, try '--help'.
    ");
    assert_snapshot!(certs(&["issue", "node", "../x"]), @"
    exit 2
    error: invalid value '../x' for '<NAME>': the name `../x` is not valid
    help: use 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end

    For more information, try '--help'.
    ");
    assert_snapshot!(certs(&["issue", "node", "dev", "--days", "0"]), @"
    exit 2
    error: invalid value '0' for '--days <DAYS>': 0 is not in 1..=36500

    For more information, try '--help'.
    ");
    certs(&["init"]);
    let long = certs(&["issue", "node", "dev", "--days", "36500"]);
    assert!(long.contains("error: the certificate would outlast its authority, which ends "), "{long}");
}
