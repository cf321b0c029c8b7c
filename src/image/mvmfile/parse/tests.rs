use super::*;
use proptest::prelude::*;

/// What is said of an Mvmfile beside a file `here`.
fn said(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("here"), "").unwrap();
    match Mvmfile::parse(text, dir.path()) {
        Ok(_) => "fine".into(),
        Err(faults) => faults.to_string().trim().into(),
    }
}

#[test]
fn the_template_is_a_whole_mvmfile() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/templates/debian");
    let project = Project::read(&dir).unwrap();
    assert_eq!((project.name.as_str(), project.file.base.to_string().as_str()), ("web", "debian:bookworm"));
    assert_eq!(project.file.ports[0].guest, 80);
    assert_eq!(project.file.services.len(), 2);
}

#[test]
fn the_mvmfiles_of_readme_and_help_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["site", "site.conf"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let (_, from) = readme.split_once("# Mvmfile.toml;").unwrap();
    let (text, _) = from.split_once("```").unwrap();
    Mvmfile::parse(&format!("#{text}"), dir.path()).unwrap();
    let help = std::fs::read_to_string(root.join("src/cli/build.rs")).unwrap();
    let (_, from) = help.split_once("one with comments):").unwrap();
    let (text, _) = from.split_once("\n\nRole and").unwrap();
    // As it is in a string of Rust's.
    let text = text.replace("\\\"", "\"").replace("\\\\", "\\");
    Mvmfile::parse(&text, dir.path()).unwrap();
}

#[test]
fn an_empty_mvmfile_is_the_least_debian_by_its_directorys_name() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("My App");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join(FILE), "").unwrap();
    let project = Project::read(&dir).unwrap();
    assert_eq!((project.name.as_str(), project.file.base.suite.as_str()), ("my-app", "bookworm"));
}

#[test]
fn a_directory_without_one_is_told_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let error = || Project::read(dir.path()).unwrap_err().to_string();
    assert!(error().contains("has no Mvmfile.toml\nhelp: `mvm init --template debian`"), "{}", error());
    std::fs::write(dir.path().join("flake.nix"), "").unwrap();
    assert!(error().contains("it has a flake: `mvm build --flake"), "{}", error());
}

#[test]
fn what_is_not_of_the_schema_is_told_with_its_place_and_what_is_meant() {
    insta::assert_snapshot!(said("name = 'a'\npakages = ['x']"), @"
    pakages: unknown key `pakages`, line 2
    help: did you mean `packages`?
    ");
    insta::assert_snapshot!(said("[services.web]\nrun = 'x'\nusr = 'y'"), @"
    services.web.usr: unknown key `usr`, line 3
    help: did you mean `user`?
    ");
    insta::assert_snapshot!(said("[services.web]\nuser = 'y'"), @"
    services.web: missing field `run`, line 1
    help: add it; it has no default
    ");
    insta::assert_snapshot!(said("packages = ['nginx', '--help']"), @"
    packages[1]: the package `--help` cannot be used, line 1
    help: write a name as apt knows it, e.g. `nginx-light`
    ");
    insta::assert_snapshot!(said("[files]\n'etc/x' = 'here'"), @"
    files.etc/x: the path `etc/x` cannot be used, line 2
    help: write an absolute path below `/`, without `..`
    ");
    insta::assert_snapshot!(said("[files]\n'/etc/x' = { text = 'a', source = 'here' }"), @"
    files./etc/x: it takes one of `text` and `source`, line 2
    help: write `text = \"…\"`, or `source = \"FILE\"`
    ");
    insta::assert_snapshot!(said("ports = [[]]"), @"
    ports[0]: data did not match any variant of untagged enum PortWord, line 1
    help: write the guest's port, `80`, or HOST:GUEST, `\"8080:80\"`
    ");
    insta::assert_snapshot!(said("a = "), @"
    the file: string values must be quoted, expected literal string, line 1
    help: `mvm build --help` shows a whole Mvmfile, `mvm init --template debian` writes one
    ");
}

#[test]
fn what_cannot_be_is_told_all_at_once() {
    let text = "
        sources = ['ftp://x']
        run = ['', 'true']
        [files]
        '/proc/x' = 'here'
        '/etc/a' = '../out'
        '/etc/b' = 'gone'
        '/etc/c' = { text = 'x', owner = 'A B' }
        [users.root]
        [services.sshd]
        run = ''
        env = { 'A B' = 'c' }
    ";
    insta::assert_snapshot!(said(text), @r#"
    in 10 places
    files."/etc/a": the source `../out` leads out of the Mvmfile's directory
    help: name a file or directory beside or below it
    files."/etc/b": the source `gone` cannot be read: No such file or directory (os error 2)
    help: it is relative to the Mvmfile; a text goes into `text = "…"`
    files."/etc/c": the owner `A B` cannot be used
    help: write USER or USER:GROUP
    files."/proc/x": /proc of a guest is mvm's, or not part of its image
    help: put the file elsewhere, and have a service or a command use it there
    run[0]: an empty command
    help: write a shell command, or take it out
    users.root: every guest has the user `root`
    help: take it out; services and files can be that user's
    services.sshd: every guest has this service
    help: give it another name
    services.sshd.run: it is no script
    help: write what starts it, e.g. `exec python3 app.py`
    services.sshd.env: `A B` cannot be a variable
    help: use letters, digits and `_`
    sources[0]: `ftp://x` is no source
    help: write its address, e.g. `https://HOST/debian`, or a line for apt: `deb https://HOST/debian bookworm main`
    "#);
}

#[test]
fn more_commands_than_layers_can_be_are_refused() {
    let commands = vec!["'true'"; MOST_COMMANDS + 1].join(",");
    assert!(said(&format!("run = [{commands}]")).contains("are the most\nhelp: join some"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String) {
        said(&text);
    }
}
