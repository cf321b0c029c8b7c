use super::*;

fn instance(name: &str, state: &str, created: i64) -> InstanceInfo {
    let created = Timestamp::from_second(created).ok();
    InstanceInfo { name: name.into(), state: state.into(), created, cpus: 2, ..InstanceInfo::default() }
}

fn names(fleet: &Fleet) -> Vec<&str> {
    let pools = fleet.tenants().iter().flat_map(|tenant| &tenant.pools);
    pools.flat_map(|pool| &pool.instances).map(|one| one.path.as_str()).collect()
}

#[test]
fn what_is_below_comes_first_or_last_and_stays_in_order() {
    let mut fleet = Fleet::default();
    assert!(fleet.see_instance("b", "web", &instance("i-2", "running", 2)));
    assert!(fleet.see_instance("a", "web", &instance("i-9", "warm", 2)));
    assert!(fleet.see_instance("b", "web", &instance("i-3", "running", 1)));
    assert!(!fleet.see_instance("b", "web", &instance("i-3", "running", 1)));
    assert!(fleet.see_instance("b", "web", &instance("i-3", "failed", 1)));
    assert_eq!(names(&fleet), ["a/web/i-9", "b/web/i-3", "b/web/i-2"]);
    let info = TenantInfo { name: "b".into(), network: Some("net".into()), ..TenantInfo::default() };
    assert!(fleet.see_tenant(&info));
    assert!(!fleet.see_tenant(&info));
    let info = PoolInfo { name: "web".into(), desired: 2, ..PoolInfo::default() };
    assert!(fleet.see_pool("b", &info));
    assert!(!fleet.see_pool("b", &info));
    assert_eq!(names(&fleet).len(), 3);
}

#[test]
fn an_instance_is_known_by_its_name_whatever_is_said_of_its_age() {
    let mut fleet = Fleet::default();
    fleet.see_instance("a", "web", &instance("i-1", "running", 1));
    fleet.see_instance("a", "web", &instance("i-2", "running", 2));
    fleet.see_instance("a", "web", &instance("i-1", "warm", 3));
    assert_eq!(names(&fleet), ["a/web/i-2", "a/web/i-1"]);
    assert_eq!(fleet.tenants()[0].sum().all, 2);
}

#[test]
fn sums_follow_every_change() {
    let mut fleet = Fleet::default();
    fleet.see_instance("a", "web", &instance("i-1", "running", 1));
    fleet.see_instance("a", "api", &instance("i-2", "warm", 1));
    let sum = |fleet: &Fleet| fleet.tenants()[0].sum();
    assert_eq!((sum(&fleet).is.running, sum(&fleet).is.warm, sum(&fleet).cpus), (1, 1, 4));
    fleet.see_instance("a", "web", &instance("i-1", "failed", 1));
    assert_eq!((sum(&fleet).is.running, sum(&fleet).failed, sum(&fleet).cpus), (0, 1, 2));
    assert!(fleet.lose("a/api/i-2"));
    assert!(!fleet.lose("a/api/i-2"));
    assert_eq!((sum(&fleet).all, sum(&fleet).cpus), (1, 0));
}

#[test]
fn what_is_gone_takes_all_below_with_it() {
    let mut fleet = Fleet::default();
    fleet.see_instance("a", "web", &instance("i-1", "running", 1));
    fleet.see_instance("a", "api", &instance("i-2", "running", 1));
    assert!(matches!(fleet.find("a/web/i-1"), Some(Item::Instance(..))));
    assert!(fleet.lose("a/web"));
    assert!(fleet.find("a/web/i-1").is_none() && fleet.find("a/web").is_none());
    assert!(matches!(fleet.find("a/api"), Some(Item::Pool(_))));
    assert!(fleet.lose("a"));
    assert!(!fleet.lose("a/api"));
    assert!(fleet.find("a").is_none() && fleet.tenants().is_empty());
}
