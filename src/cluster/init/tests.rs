use super::*;
use crate::cluster::plan::Plan;
use crate::fleet::desired::Tenant;

struct Place {
    _dir: tempfile::TempDir,
    paths: Paths,
    store: Store,
}

impl Place {
    fn named(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join(name), dir.path().join("r")).unwrap();
        let store = Store::open(Path::new(":memory:")).unwrap().store;
        Self { _dir: dir, paths, store }
    }

    fn init(&self, options: &Options) -> Init {
        init(options, &self.paths, &self.store).unwrap()
    }
}

fn addresses(plan: &Plan) -> Vec<String> {
    plan.config.routes.iter().map(|route| route.listen.to_string()).collect()
}

#[test]
fn the_templates_are_what_agent_and_coordinator_read() {
    let place = Place::named("a \"quoted\" state");
    place.init(&Options::default());
    let plan = Plan::read(&place.paths).unwrap();
    assert_eq!(plan.agent, AGENT);
    assert_eq!(addresses(&plan), ["127.0.0.1:8443", "127.0.0.1:8444"]);
    let (route, pool) = plan.front().unwrap();
    assert_eq!((route.target().to_string().as_str(), pool.desired_counts.sleeping), ("dev/gateways", 1));
    // By path: of a state inside a git work tree Nix would see nothing but what is tracked.
    let flake = flakes(&place.paths).join("gateway");
    assert_eq!(pool.flake_ref, format!("path:{}", flake.display()));
    assert!(flake.join("www/index.html").exists());
    let certificate = plan.config.coordinator.tls_identity.unwrap();
    assert!(certificate.exists(), "{certificate:?}");
}

#[test]
fn a_second_time_changes_nothing_and_what_was_edited_is_kept() {
    let place = Place::named("s");
    let first = place.init(&Options::default());
    assert!(first.iter().all(|(_, written)| *written == Written::New), "{first:?}");
    let second = place.init(&Options::default());
    assert!(second.iter().all(|(_, written)| *written == Written::Same), "{second:?}");
    let page = flakes(&place.paths).join("gateway/www/index.html");
    std::fs::write(&page, "mine").unwrap();
    std::fs::write(config_file(&place.paths), "# mine").unwrap();
    std::fs::remove_file(desired_file(&place.paths)).unwrap();
    let third = place.init(&Options { agent: "127.0.0.1:5000".parse().unwrap(), ..Options::default() });
    let became =
        |path: PathBuf| third.iter().find(|(one, _)| *one == path).map(|(_, written)| written.clone());
    assert_eq!(became(config_file(&place.paths)), Some(Written::Kept));
    assert_eq!(became(flakes(&place.paths).join("gateway")), Some(Written::Kept));
    assert_eq!(became(desired_file(&place.paths)), Some(Written::New));
    assert_eq!(std::fs::read_to_string(&page).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(config_file(&place.paths)).unwrap(), "# mine");
}

#[test]
fn what_is_written_anew_is_saved_first() {
    let place = Place::named("s");
    place.init(&Options::default());
    let file = config_file(&place.paths);
    std::fs::write(&file, "# mine").unwrap();
    let options =
        Options { gateways: "127.0.0.1:9000".parse().unwrap(), recreate: true, ..Options::default() };
    let done = place.init(&options);
    let Some((_, Written::Replaced(saved))) = done.iter().find(|(path, _)| *path == file) else {
        panic!("{done:?}")
    };
    assert_eq!(std::fs::read_to_string(saved).unwrap(), "# mine");
    assert_eq!(addresses(&Plan::read(&place.paths).unwrap()), ["127.0.0.1:9000", "127.0.0.1:9001"]);
    assert!(done.iter().all(|(path, written)| *path == file || *written == Written::Same), "{done:?}");
}

#[test]
fn addresses_that_others_could_reach_or_nobody_could_know_are_refused() {
    let place = Place::named("s");
    let default = Options::default();
    for options in [
        Options { agent: "0.0.0.0:4433".parse().unwrap(), ..default },
        Options { gateways: "192.0.2.1:80".parse().unwrap(), ..default },
        Options { gateways: "127.0.0.1:0".parse().unwrap(), ..default },
        Options { workers: Some(GATEWAYS), ..default },
    ] {
        let refused = init(&options, &place.paths, &place.store).unwrap_err();
        assert!(matches!(refused, ClusterError::Address { .. }), "{refused}");
    }
    assert!(!place.paths.cluster().exists());
    let last = Options { gateways: "127.0.0.1:65535".parse().unwrap(), ..default };
    assert_eq!(check(&last).unwrap().port(), 65534);
}

#[test]
fn the_tenant_gets_a_network_that_no_other_has() {
    let mut place = Place::named("s");
    let network =
        TenantNetwork { tenant_net_id: 1, ipv4_subnet: "10.240.1.0/24".to_string().try_into().unwrap() };
    let tenant = |id: &str, network| Tenant {
        tenant_id: id.parse().unwrap(),
        network,
        quotas: Default::default(),
        pools: Vec::new(),
    };
    record::put_tenant(&mut place.store, &tenant("acme", network)).unwrap();
    place.init(&Options::default());
    assert_eq!(Plan::read(&place.paths).unwrap().desired.tenants[0].network.tenant_net_id, 2);
    // One that has instances keeps its network.
    let own =
        TenantNetwork { tenant_net_id: 7, ipv4_subnet: "10.240.7.0/24".to_string().try_into().unwrap() };
    record::put_tenant(&mut place.store, &tenant(NAME, own)).unwrap();
    place.init(&Options { recreate: true, ..Options::default() });
    assert_eq!(Plan::read(&place.paths).unwrap().desired.tenants[0].network, own);
}
