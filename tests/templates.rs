//! What `mvm init` writes, built and booted as its user would.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{World, http_get, published};

fn init(world: &World, template: &str) -> PathBuf {
    world.ok(["init", template, "--template", template]);
    world.path(template)
}

/// Boots a flake of a web service for good; gives the VM of its name.
fn start(world: &World, flake: &Path, more: &[&str]) -> Value {
    let flake = flake.to_str().unwrap();
    let args = ["run", "--network", "user", "--detach", "-p", "0:8080", "--flake", flake];
    world.vm(world.ok([&args, more].concat()).trim())
}

/// Lays out a language; false, and a word about it, where it is not installed.
fn has_language(world: &World, name: &str, program: &str) -> bool {
    if !Path::new(program).exists() {
        println!("SKIPPED: {program} is not installed");
        return false;
    }
    world.ok(["setup", "--yes", "--with", name]);
    true
}

#[test]
fn the_hello_template_boots_with_its_file() {
    let world = World::new();
    let flake = init(&world, "hello");
    let args = ["run", "--network", "user", "--flake", flake.to_str().unwrap(), "--", "cat", "/etc/greeting"];
    assert_eq!(world.ok(args), "Hello from a microVM.\n");
    world.expect_nothing_left();
}

#[test]
fn the_gateway_template_serves_its_page_and_is_listed_as_built() {
    let world = World::new();
    let flake = init(&world, "gateway");
    let vm = start(&world, &flake, &[]);
    assert!(http_get(published(&vm)).contains("Hello from a microVM."));
    assert_eq!(vm["spec"]["memory_mib"], 256);
    let list = world.ok(["build", "--json", "--list", "--flake", flake.to_str().unwrap()]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let attributes = list["attributes"].as_array().unwrap();
    let named = |name: &str| attributes.iter().find(|attribute| attribute["attribute"] == name).unwrap();
    // All three are the same image.
    for name in ["default", "gateway", "gateway-minimal"] {
        assert!(named(name)["build"].is_string(), "{name} in {list}");
    }
    assert!(named("gateway-status")["build"].is_null() && named("worker")["build"].is_null());
    assert_eq!(named("default")["default"], true);
}

#[test]
fn a_profile_of_the_gateway_template_brings_its_module_and_its_memory() {
    let world = World::new();
    let flake = init(&world, "gateway");
    let status = ["--role", "gateway", "--profile", "status"];
    let vm = start(&world, &flake, &status);
    assert_eq!(vm["spec"]["memory_mib"], 192);
    assert_eq!(
        world.ok(["exec", "gateway", "--", "cat", "/srv/www/status.txt", "/etc/mvm/role"]),
        "up\ngateway\n"
    );
    // The page of the role is still there.
    assert!(http_get(published(&vm)).contains("Hello from a microVM."));
    // Flags go over it.
    let vm = start(&world, &flake, &[&status[..], &["--mem", "224"]].concat());
    assert_eq!(vm["spec"]["memory_mib"], 224);
}

#[test]
fn the_python_template_answers_and_says_what_is_missing_before() {
    let world = World::new();
    let flake = init(&world, "python");
    let error = world.fails(["build", "--flake", flake.to_str().unwrap()]);
    assert!(error.ends_with("it is not laid out\nhelp: run `mvm setup --with python`\n"), "{error}");
    if !has_language(&world, "python", "/usr/bin/python3") {
        return;
    }
    let vm = start(&world, &flake, &[]);
    let answer = http_get(published(&vm));
    assert!(answer.contains("Hello from Python 3."), "{answer}");
    let script = "import asyncio, ctypes, json, os, sqlite3, ssl; print(os.path.exists(json.__cached__))";
    assert_eq!(world.ok(["exec", "python", "--", "python3", "-c", script]), "True\n");
}

#[test]
fn the_node_template_answers() {
    let world = World::new();
    let flake = init(&world, "node");
    if !has_language(&world, "node", "/usr/bin/node") {
        return;
    }
    let vm = start(&world, &flake, &[]);
    let answer = http_get(published(&vm));
    assert!(answer.contains("Hello from Node "), "{answer}");
}
