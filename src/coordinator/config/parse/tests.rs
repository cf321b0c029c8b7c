use std::time::Duration;

use super::super::Config;

const WHOLE: &str = r#"
[coordinator]
idle_timeout_secs = 10
max_connections_per_tenant = 500
metrics = "127.0.0.1:9434"

[[nodes]]
name = "dev"
address = "127.0.0.1:4433"

[[routes]]
tenant_id = "dev"
pool_id = "gateways"
listen = "127.0.0.1:8443"
node = "dev"
max_connections_per_instance = 100
"#;

fn wrong(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from));
    Config::parse(&WHOLE.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = Config::parse(WHOLE).unwrap();
    assert_eq!(config.coordinator.idle_timeout, Duration::from_secs(10));
    assert_eq!(config.coordinator.wake_timeout, Duration::from_secs(60));
    assert_eq!(config.routes[0].target().to_string(), "dev/gateways");
    assert_eq!(config.routes[0].idle_timeout, None);
}

#[test]
fn one_fault_is_told_with_its_place_and_what_to_do() {
    insta::assert_snapshot!(
        [
            wrong("idle_timeout_secs", "idle_timeout_sec"),
            wrong("\"127.0.0.1:8443\"", "\"localhost\""),
            wrong("\"127.0.0.1:8443\"", "\"127.0.0.1:0\""),
            wrong("= 10", "= -1"),
            wrong("= 10", "= 0"),
            wrong("pool_id = \"gateways\"", "pool_id = \"../x\""),
            wrong("pool_id = \"gateways\"\n", ""),
            wrong("node = \"dev\"", "node = \"other\""),
            wrong("127.0.0.1:9434", "0.0.0.0:9434"),
            wrong("127.0.0.1:9434", "127.0.0.1:8443"),
            wrong("= 100", "= 0"),
            wrong("[[nodes]]", "[[nodes]"),
            wrong("[[nodes]]", "[[knots]]"),
        ]
        .join("\n\n")
    );
}

#[test]
fn what_contradicts_itself_is_told_all_at_once() {
    let twice = WHOLE.replace("= 100", "= 0") + &WHOLE[WHOLE.find("[[nodes]]").unwrap()..];
    insta::assert_snapshot!(Config::parse(&twice).unwrap_err().to_string());
}
