//! nix/flake.nix, which needs nixpkgs to build: here it is only parsed, and evaluated with a
//! stand-in for nixpkgs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mvm::host::child::find_program;
use serde_json::json;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn nix_instantiate(args: &[&str], file: &Path) -> Option<Output> {
    let Some(program) = find_program("nix-instantiate") else {
        println!("SKIPPED: nix-instantiate is not installed");
        return None;
    };
    let output = Command::new(program).args(args).arg(file).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", file.display());
    Some(output)
}

#[test]
fn every_nix_file_parses() {
    let files = ["nix", "tests/nix"].into_iter().flat_map(|dir| ignore::Walk::new(root().join(dir)));
    let files: Vec<PathBuf> = files
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "nix"))
        .collect();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        if nix_instantiate(&["--parse"], &file).is_none() {
            return;
        }
    }
}

#[test]
fn the_nixpkgs_flake_evaluates_with_a_stand_in() {
    let args = ["--eval", "--strict", "--json"];
    let Some(output) = nix_instantiate(&args, &root().join("tests/nix/eval.nix")) else { return };
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for system in ["x86_64-linux", "aarch64-linux"] {
        assert_eq!(json["packages"][system]["default"], "mvm-mvm");
        assert_eq!(json["packages"][system]["mvm-guest"], "mvm-guest");
        assert_eq!(json["shells"][system], "shell");
    }
    assert_eq!(json["info"]["contract"], mvm::artifacts::GUEST_CONTRACT);
    assert_eq!(json["info"]["ports"], json!([22, 8080]));
    let guests = json["guests"].as_object().unwrap();
    let names: Vec<&str> = guests.keys().map(String::as_str).collect();
    let wanted = "default dev job job-dev job-minimal minimal small web web-dev web-minimal";
    assert_eq!(names.join(" "), wanted);
    let small = json!({"contract": mvm::artifacts::GUEST_CONTRACT, "ports": [22, 9090],
        "min_mem_mib": 300, "modules": ["module.nix"]});
    assert_eq!(guests["small"], small);
    assert_eq!((&guests["web"]["ports"], &guests["web"]["modules"]), (&json!([22]), &json!([])));
    let joined = json!({"ports": [80, 81], "files": {"/a": "a", "/b": "b"},
        "services": {"x": {"run": "exec true"}}, "minMemMib": 200});
    assert_eq!(json["offline"], joined);
    let config = &json["config"];
    assert_eq!(config["mvm"]["role"], "gateway");
    assert_eq!(config["sshd"]["wantedBy"][0], "mvm.target");
    assert_eq!(config["services"]["openssh"]["settings"]["PasswordAuthentication"], false);
    assert_eq!(config["users"]["users"]["mvm"]["uid"], 1000);
    assert!(config["environment"]["etc"]["mvm/start"]["source"].is_string());
}
