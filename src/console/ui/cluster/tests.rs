use super::*;
use crate::event::cluster::{InstanceInfo, PoolInfo, TenantInfo};

fn instance(name: &str) -> InstanceInfo {
    InstanceInfo { name: name.into(), state: "running".into(), ..InstanceInfo::default() }
}

/// One node with a pool, and the same pool in this state.
fn model(instances: &[&str]) -> Model {
    let instances: Vec<_> = instances.iter().map(|name| instance(name)).collect();
    let pool = PoolInfo { name: "web".into(), instances, ..PoolInfo::default() };
    let tenant = TenantInfo { name: "dev".into(), pools: vec![pool], ..TenantInfo::default() };
    let node = NodeInfo { name: "one".into(), tenants: vec![tenant.clone()], ..NodeInfo::default() };
    let cluster = ClusterInfo { nodes: vec![node], ..ClusterInfo::default() };
    let mut model = Model::default();
    model.cluster.nodes = vec![Fleet::of(&cluster.nodes[0].tenants, "@/one/".into())];
    model.cluster.info = Some(cluster);
    model.cluster.fleet = Fleet::of(&[tenant], String::new());
    model
}

fn paths(ui: &ClusterUi, model: &Model) -> Vec<String> {
    let tree = ui.tree(model);
    tree.rows(0..tree.len()).into_iter().map(|row| row.path.into_owned()).collect()
}

#[test]
fn a_folded_row_hides_what_is_below_and_keeps_the_selection() {
    let model = model(&["a", "b"]);
    let mut ui = ClusterUi::default();
    let all =
        ["@", "@/one", "@/one/dev", "@/one/dev/web", "@/one/dev/web/a", "@/one/dev/web/b", "dev", "dev/web"];
    assert_eq!(paths(&ui, &model)[..8], all);
    ui.move_by(&model, 3);
    ui.fold(&model);
    assert_eq!(paths(&ui, &model).len(), 8);
    let tree = ui.tree(&model);
    let at = ui.place(&tree);
    assert!(at == 3 && tree.rows(at..at + 1)[0].folded);
    ui.fold(&model);
    assert_eq!(paths(&ui, &model).len(), 10);
}

#[test]
fn any_window_of_the_rows_is_that_part_of_all_rows() {
    let model = model(&["a", "b", "c"]);
    let ui = ClusterUi::default();
    let (tree, all) = (ui.tree(&model), paths(&ui, &model));
    for from in 0..=all.len() {
        for to in from..=all.len() {
            let rows: Vec<String> =
                tree.rows(from..to).into_iter().map(|row| row.path.into_owned()).collect();
            assert_eq!(rows, all[from..to]);
        }
    }
}

#[test]
fn the_selection_goes_up_when_its_row_is_gone() {
    let mut ui = ClusterUi::default();
    ui.select("dev/web/b");
    assert!(matches!(ui.what(&model(&["a", "b"])), Some(What::Instance(..))));
    let less = model(&["a"]);
    assert!(matches!(ui.what(&less), Some(What::Pool(pool)) if pool.path == "dev/web"));
    let tree = ui.tree(&less);
    assert_eq!(tree.rows(ui.place(&tree)..tree.len())[0].path, "dev/web");
    ui.move_by(&Model::default(), 1);
    assert!(ui.tree(&Model::default()).is_empty() && ui.what(&Model::default()).is_none());
}

#[test]
fn what_is_hidden_is_not_selected() {
    let model = model(&["a"]);
    let mut ui = ClusterUi::default();
    ui.select("dev/web/a");
    assert!(ui.instance(&model).is_some());
    ui.fold_all(&model);
    assert!(matches!(ui.what(&model), Some(What::Tenant(tenant)) if tenant.path == "dev"));
    assert!(ui.instance(&model).is_none());
    assert_eq!(paths(&ui, &model), ["@", "@/one", "@/one/dev", "dev"]);
    ui.fold_all(&model);
    assert!(ui.instance(&model).is_some());
}

#[test]
fn what_is_on_a_node_is_looked_at_and_not_acted_on() {
    let model = model(&["a"]);
    let mut ui = ClusterUi::default();
    ui.select("@/one/dev/web/a");
    assert!(matches!(ui.what(&model), Some(What::Instance(..))));
    assert!(ui.instance(&model).is_none() && ui.pool(&model).is_none());
}

#[test]
fn the_fleet_of_this_state_is_below_the_node_that_is_this_machine() {
    let mut model = model(&["a"]);
    let cluster = model.cluster.info.as_mut().unwrap();
    cluster.nodes[0].here = true;
    cluster.nodes.push(NodeInfo { name: "two".into(), ..NodeInfo::default() });
    model.cluster.nodes.push(Fleet::default());
    let mut ui = ClusterUi::default();
    assert_eq!(paths(&ui, &model), ["@", "@/one", "dev", "dev/web", "dev/web/a", "@/two"]);
    ui.select("dev/web/a");
    assert!(ui.instance(&model).is_some());
    for above in ["@/one", "@"] {
        ui.select(above);
        ui.fold(&model);
        ui.select("dev/web/a");
        let tree = ui.tree(&model);
        let at = ui.place(&tree);
        assert_eq!(tree.rows(at..at + 1)[0].path, above);
        assert!(ui.instance(&model).is_none() && ui.what(&model).is_some());
    }
}
