//! The cluster's tree: what is folded, what is selected, and which rows there are.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::page::step;
use crate::console::model::Model;
use crate::console::model::cluster::NODES;
use crate::console::model::fleet::{Fleet, Instance, Item, Pool, Tenant};
use crate::event::cluster::{ClusterInfo, NodeInfo};

/// Most lines the detail can be scrolled by; the view stops at its end.
const MOST_SCROLL: usize = 200;

/// Parts of the cluster page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The tree.
    #[default]
    Tree,
    /// All about what is selected.
    Detail,
    /// The console of the selected instance.
    Console,
}

impl Part {
    /// All parts, in the order in which Tab goes through them.
    pub const ALL: [Self; 3] = [Self::Tree, Self::Detail, Self::Console];
}

/// The cluster page.
#[derive(Debug, Default)]
pub struct ClusterUi {
    /// The part that has the keys.
    pub part: Part,
    /// First line shown of the detail.
    pub top: usize,
    /// Paths of rows whose lower rows are hidden.
    folded: HashSet<String>,
    /// Path of the selected row.
    selected: Option<String>,
}

/// What a row shows.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// The coordinator.
    Coordinator(&'a ClusterInfo),
    /// A node.
    Node(&'a NodeInfo),
    /// A tenant.
    Tenant(&'a Tenant),
    /// A pool.
    Pool(&'a Pool),
    /// An instance and its pool.
    Instance(&'a Pool, &'a Instance),
}

impl<'a> From<Item<'a>> for What<'a> {
    fn from(item: Item<'a>) -> Self {
        match item {
            Item::Tenant(tenant) => Self::Tenant(tenant),
            Item::Pool(pool) => Self::Pool(pool),
            Item::Instance(pool, instance) => Self::Instance(pool, instance),
        }
    }
}

/// A row of the tree.
#[derive(Debug)]
pub struct Row<'a> {
    /// Names from the root to the row.
    pub path: Cow<'a, str>,
    /// What it shows.
    pub what: What<'a>,
    /// Whether rows below it are hidden.
    pub folded: bool,
    /// Its branches.
    pub trunk: Trunk,
}

/// The branches before a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trunk {
    /// How many levels are above it.
    pub depth: u8,
    /// A bit for each level, that of the row itself the lowest: whether it is the last of its siblings.
    lasts: u8,
}

impl Trunk {
    fn below(self, last: bool) -> Self {
        Self { depth: self.depth + 1, lasts: self.lasts << 1 | u8::from(last) }
    }

    /// Whether the row, or what is `up` levels above it, is the last of its siblings.
    pub fn is_last(self, up: u8) -> bool {
        self.lasts >> up & 1 == 1
    }
}

/// The rows that are not hidden. Instances of a pool are one block, so that making it takes no longer
/// with more of them.
#[derive(Debug, Default)]
pub struct Tree<'a> {
    blocks: Vec<Block<'a>>,
    len: usize,
    /// The path of the node that is this machine.
    home: Option<String>,
}

#[derive(Debug)]
struct Block<'a> {
    first: usize,
    trunk: Trunk,
    rows: Rows<'a>,
}

#[derive(Debug)]
enum Rows<'a> {
    One { path: Cow<'a, str>, what: What<'a>, folded: bool },
    Instances(&'a Pool),
}

impl<'a> Tree<'a> {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of the rows.
    pub fn rows(&self, wanted: Range<usize>) -> Vec<Row<'a>> {
        let from = self.blocks.partition_point(|block| block.first <= wanted.start).saturating_sub(1);
        let mut rows = Vec::with_capacity(wanted.len());
        for block in self.blocks[from..].iter().take_while(|block| block.first < wanted.end) {
            match &block.rows {
                Rows::One { path, what, folded } if block.first >= wanted.start => {
                    rows.push(Row { path: path.clone(), what: *what, folded: *folded, trunk: block.trunk })
                }
                Rows::One { .. } => {}
                Rows::Instances(pool) => {
                    let all = pool.instances.iter().enumerate();
                    let skipped = wanted.start.saturating_sub(block.first);
                    rows.extend(all.skip(skipped).take(wanted.end - block.first.max(wanted.start)).map(
                        |(at, one)| Row {
                            path: one.path.as_str().into(),
                            what: What::Instance(pool, one),
                            folded: false,
                            trunk: block.trunk.below(at + 1 == pool.instances.len()),
                        },
                    ));
                }
            }
        }
        rows
    }

    /// Where the row with this path is.
    fn find(&self, path: &str) -> Option<usize> {
        self.blocks.iter().find_map(|block| match &block.rows {
            Rows::One { path: one, .. } => (one == path).then_some(block.first),
            Rows::Instances(pool) => {
                path.strip_prefix(&pool.path).filter(|rest| rest.starts_with('/'))?;
                let at = pool.instances.iter().position(|one| one.path == path)?;
                Some(block.first + at)
            }
        })
    }

    fn push(&mut self, trunk: Trunk, path: Cow<'a, str>, what: What<'a>, folded: bool) {
        let rows = Rows::One { path, what, folded };
        self.blocks.push(Block { first: self.len, trunk, rows });
        self.len += 1;
    }
}

impl ClusterUi {
    /// The rows: the coordinator with its nodes first. The fleet of this state is below the node that is
    /// this machine, else last.
    pub fn tree<'a>(&self, model: &'a Model) -> Tree<'a> {
        let mut tree = Tree { home: model.cluster.home(), ..Tree::default() };
        let own = &model.cluster.fleet;
        if let Some(cluster) = &model.cluster.info {
            let folded = self.folded.contains(NODES);
            tree.push(Trunk::default(), NODES.into(), What::Coordinator(cluster), folded);
            let nodes = if folded { &[] } else { cluster.nodes.as_slice() };
            for (index, (node, fleet)) in nodes.iter().zip(&model.cluster.nodes).enumerate() {
                let path = format!("{NODES}/{}", node.name);
                let trunk = Trunk::default().below(index + 1 == nodes.len());
                let folded = self.folded.contains(&path);
                let fleet = if tree.home.as_ref() == Some(&path) { own } else { fleet };
                tree.push(trunk, path.into(), What::Node(node), folded);
                if !folded {
                    self.fleet(fleet, Some(trunk), &mut tree);
                }
            }
        }
        if tree.home.is_none() {
            self.fleet(own, None, &mut tree);
        }
        tree
    }

    fn fleet<'a>(&self, fleet: &'a Fleet, above: Option<Trunk>, tree: &mut Tree<'a>) {
        let tenants = fleet.tenants();
        for (index, tenant) in tenants.iter().enumerate() {
            let trunk = above.map(|above| above.below(index + 1 == tenants.len())).unwrap_or_default();
            let folded = self.folded.contains(&tenant.path);
            tree.push(trunk, tenant.path.as_str().into(), What::Tenant(tenant), folded);
            let pools = if folded { &[] } else { tenant.pools.as_slice() };
            for (index, pool) in pools.iter().enumerate() {
                let trunk = trunk.below(index + 1 == pools.len());
                let folded = self.folded.contains(&pool.path);
                tree.push(trunk, pool.path.as_str().into(), What::Pool(pool), folded);
                if !folded && !pool.instances.is_empty() {
                    tree.blocks.push(Block { first: tree.len, trunk, rows: Rows::Instances(pool) });
                    tree.len += pool.instances.len();
                }
            }
        }
    }

    /// The path of what is selected, or of what it is hidden below.
    fn shown<'a>(&'a self, home: Option<&'a str>) -> Option<&'a str> {
        let path = self.selected.as_deref()?;
        let home = home.filter(|_| is_here(path)).into_iter().flat_map(|home| [NODES, home]);
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        Some(home.chain(above).find(|above| self.folded.contains(*above)).unwrap_or(path))
    }

    /// The place of the selected row: the first while none was chosen. A row that was hidden or is
    /// gone gives its place to the nearest one above it.
    pub fn place(&self, tree: &Tree<'_>) -> usize {
        let mut path = self.shown(tree.home.as_deref()).unwrap_or_default();
        loop {
            if let Some(at) = tree.find(path) {
                return at;
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => return 0,
            }
        }
    }

    /// What is selected.
    pub fn what<'a>(&self, model: &'a Model) -> Option<What<'a>> {
        let home = model.cluster.home();
        let mut path = self.shown(home.as_deref()).unwrap_or_default();
        loop {
            if let Some(what) = find(model, path) {
                return Some(what);
            }
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => break,
            }
        }
        let cluster = &model.cluster;
        let first = || cluster.fleet.tenants().first().map(What::Tenant);
        cluster.info.as_ref().map(What::Coordinator).or_else(first)
    }

    /// The selected pool of this state, or that of the selected instance.
    pub fn pool<'a>(&self, model: &'a Model) -> Option<&'a Pool> {
        let pool = match self.what(model)? {
            What::Pool(pool) | What::Instance(pool, _) => pool,
            _ => return None,
        };
        is_here(&pool.path).then_some(pool)
    }

    /// The selected instance of this state.
    pub fn instance<'a>(&self, model: &'a Model) -> Option<&'a Instance> {
        match self.what(model)? {
            What::Instance(_, instance) => is_here(&instance.path).then_some(instance),
            _ => None,
        }
    }

    /// Selects a row.
    pub fn select(&mut self, path: &str) {
        self.selected = Some(path.into());
        self.top = 0;
    }

    /// Moves the selection.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let tree = self.tree(model);
        let at = step(Some(self.place(&tree)), by, tree.len());
        if let Some(row) = at.and_then(|at| tree.rows(at..at + 1).pop()) {
            self.select(&row.path);
        }
    }

    /// Scrolls the detail.
    pub fn scroll(&mut self, by: isize) {
        self.top = self.top.saturating_add_signed(by).min(MOST_SCROLL);
    }

    /// Hides or shows what is below the selected row; below an instance there is nothing.
    pub fn fold(&mut self, model: &Model) {
        let tree = self.tree(model);
        let at = self.place(&tree);
        let Some(row) = tree.rows(at..at + 1).pop() else { return };
        if !matches!(row.what, What::Instance(..)) && !self.folded.remove(row.path.as_ref()) {
            self.folded.insert(row.path.to_string());
        }
        self.select(&row.path);
    }

    /// Hides the pools of all tenants, or shows everything.
    pub fn fold_all(&mut self, model: &Model) {
        let nodes = model.cluster.nodes.iter().flat_map(Fleet::tenants);
        let all: Vec<&Tenant> = nodes.chain(model.cluster.fleet.tenants()).collect();
        if all.iter().all(|tenant| self.folded.contains(&tenant.path)) {
            self.folded.clear();
        } else {
            self.folded.extend(all.into_iter().map(|tenant| tenant.path.clone()));
        }
    }
}

/// Whether what has this path is of this state, and neither the coordinator nor of some node.
fn is_here(path: &str) -> bool {
    path.strip_prefix(NODES).is_none_or(|rest| !rest.is_empty() && !rest.starts_with('/'))
}

fn find<'a>(model: &'a Model, path: &str) -> Option<What<'a>> {
    let cluster = &model.cluster;
    if path == NODES {
        return cluster.info.as_ref().map(What::Coordinator);
    }
    let Some(rest) = path.strip_prefix(NODES).and_then(|rest| rest.strip_prefix('/')) else {
        return cluster.fleet.find(path).map(What::from);
    };
    let nodes = &cluster.info.as_ref()?.nodes;
    let node = nodes.iter().find(|node| node.name == rest).map(What::Node);
    node.or_else(|| cluster.nodes.iter().find_map(|fleet| fleet.find(path)).map(What::from))
}

#[cfg(test)]
mod tests;
