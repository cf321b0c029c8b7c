//! The cluster's tree: what is folded, what is selected.

use std::collections::HashSet;

use super::page::step;
use crate::console::model::Model;
use crate::event::cluster::{ClusterInfo, InstanceInfo, NodeInfo, PoolInfo, TenantInfo};

/// The cluster page.
#[derive(Debug, Default)]
pub struct ClusterUi {
    /// Paths of rows whose lower rows are hidden.
    folded: HashSet<String>,
    /// Path of the selected row.
    selected: Option<String>,
}

/// A row of the tree.
#[derive(Debug)]
pub struct Row<'a> {
    /// Names from the root to the row, each behind a `/`.
    pub path: String,
    /// What it shows.
    pub what: What<'a>,
    /// For each level above and the row itself: whether it is the last of its siblings.
    pub last: Vec<bool>,
    /// Whether rows below it are hidden.
    pub folded: bool,
}

/// What a row shows.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The coordinator.
    Coordinator(&'a ClusterInfo),
    /// A node.
    Node(&'a NodeInfo),
    /// A tenant on a node.
    Tenant(&'a TenantInfo),
    /// A pool of a tenant.
    Pool(&'a PoolInfo),
    /// An instance of a pool.
    Instance(&'a InstanceInfo),
}

impl<'a> What<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Coordinator(_) => "",
            Self::Node(node) => &node.name,
            Self::Tenant(tenant) => &tenant.name,
            Self::Pool(pool) => &pool.name,
            Self::Instance(instance) => &instance.name,
        }
    }

    fn below(self) -> Vec<What<'a>> {
        match self {
            Self::Coordinator(cluster) => cluster.nodes.iter().map(What::Node).collect(),
            Self::Node(node) => node.tenants.iter().map(What::Tenant).collect(),
            Self::Tenant(tenant) => tenant.pools.iter().map(What::Pool).collect(),
            Self::Pool(pool) => pool.instances.iter().map(What::Instance).collect(),
            Self::Instance(_) => Vec::new(),
        }
    }
}

impl ClusterUi {
    /// The rows that are not hidden, the coordinator first.
    pub fn rows<'a>(&self, model: &'a Model) -> Vec<Row<'a>> {
        let mut rows = Vec::new();
        if let Some(cluster) = &model.cluster.info {
            self.add(What::Coordinator(cluster), "", Vec::new(), &mut rows);
        }
        rows
    }

    fn add<'a>(&self, what: What<'a>, above: &str, last: Vec<bool>, rows: &mut Vec<Row<'a>>) {
        let path = format!("{above}/{}", what.name());
        let below = what.below();
        let folded = !below.is_empty() && self.folded.contains(&path);
        rows.push(Row { path: path.clone(), what, last: last.clone(), folded });
        if folded {
            return;
        }
        let count = below.len();
        for (index, child) in below.into_iter().enumerate() {
            let last = last.iter().copied().chain([index + 1 == count]).collect();
            self.add(child, &path, last, rows);
        }
    }

    /// The place of the selected row: the first while none was chosen. A row that was hidden or is
    /// gone gives its place to the nearest one above it.
    pub fn place(&self, rows: &[Row<'_>]) -> usize {
        let mut path = self.selected.as_deref().unwrap_or_default();
        loop {
            if let Some(at) = rows.iter().position(|row| row.path == path) {
                return at;
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return 0,
            }
        }
    }

    /// Moves the selection.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let rows = self.rows(model);
        let at = step(Some(self.place(&rows)), by, rows.len());
        self.selected = at.map(|at| rows[at].path.clone());
    }

    /// Hides or shows what is below the selected row.
    pub fn fold(&mut self, model: &Model) {
        let rows = self.rows(model);
        let Some(row) = rows.get(self.place(&rows)) else { return };
        if !self.folded.remove(&row.path) {
            self.folded.insert(row.path.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(instances: &[&str]) -> Model {
        let named = |name: &&str| InstanceInfo { name: (*name).into(), state: "running".into() };
        let instances = instances.iter().map(named).collect();
        let pool = PoolInfo { name: "web".into(), instances, ..PoolInfo::default() };
        let tenant = TenantInfo { name: "dev".into(), pools: vec![pool] };
        let node = NodeInfo { name: "one".into(), tenants: vec![tenant], ..NodeInfo::default() };
        let mut model = Model::default();
        model.cluster.info = Some(ClusterInfo { nodes: vec![node], ..ClusterInfo::default() });
        model
    }

    #[test]
    fn a_folded_row_hides_what_is_below_and_keeps_the_selection() {
        let model = model(&["a", "b"]);
        let mut ui = ClusterUi::default();
        assert_eq!(ui.rows(&model).len(), 6);
        ui.move_by(&model, 3);
        ui.fold(&model);
        let rows = ui.rows(&model);
        assert_eq!(rows.len(), 4);
        assert!(matches!(rows[ui.place(&rows)].what, What::Pool(_)) && rows[3].folded);
        ui.fold(&model);
        assert_eq!(ui.rows(&model).len(), 6);
    }

    #[test]
    fn the_selection_goes_up_when_its_row_is_gone() {
        let mut ui = ClusterUi::default();
        ui.move_by(&model(&["a", "b"]), 5);
        let less = model(&["a"]);
        let rows = ui.rows(&less);
        assert!(matches!(rows[ui.place(&rows)].what, What::Pool(_)));
        ui.move_by(&Model::default(), 1);
        assert!(ui.rows(&Model::default()).is_empty());
    }
}
