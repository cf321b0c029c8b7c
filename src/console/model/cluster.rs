//! The cluster as it stands.

use crate::event::cluster::{ClusterInfo, NodeInfo, RouteInfo};

use super::fleet::Fleet;

/// What the paths of nodes, and of all that is theirs, begin with: no tenant has such a name.
pub const NODES: &str = "@";

/// A cluster and its routes, and the fleet of this state.
#[derive(Debug, Default)]
pub struct ClusterModel {
    /// The coordinator and its nodes; absent when there is no cluster.
    pub info: Option<ClusterInfo>,
    /// The fleet of each node, as the coordinator tells.
    pub nodes: Vec<Fleet>,
    /// The fleet of this state.
    pub fleet: Fleet,
    /// Its routes, sorted by where they listen.
    pub routes: Vec<RouteInfo>,
}

impl ClusterModel {
    /// Whether there is nothing to show but routes.
    pub fn is_empty(&self) -> bool {
        self.info.is_none() && self.fleet.tenants().is_empty()
    }

    /// The path of the node that is this machine, to which the fleet of this state belongs.
    pub fn home(&self) -> Option<String> {
        let here = self.info.as_ref()?.nodes.iter().find(|node| node.here)?;
        Some(format!("{NODES}/{}", here.name))
    }

    /// The route that listens there.
    pub fn route(&self, listen: &str) -> Option<&RouteInfo> {
        self.place(listen).ok().map(|at| &self.routes[at])
    }

    fn place(&self, listen: &str) -> Result<usize, usize> {
        self.routes.binary_search_by(|route| route.listen.as_str().cmp(listen))
    }

    /// Takes the tree in.
    pub(super) fn see(&mut self, info: &ClusterInfo) -> bool {
        if self.info.as_ref() == Some(info) {
            return false;
        }
        let fleet = |node: &NodeInfo| Fleet::of(&node.tenants, format!("{NODES}/{}/", node.name));
        self.nodes = info.nodes.iter().map(fleet).collect();
        self.info = Some(info.clone());
        true
    }

    /// Takes in that there is none any more.
    pub(super) fn lose(&mut self) -> bool {
        let was = self.info.is_some() || !self.routes.is_empty();
        (self.info, self.nodes, self.routes) = (None, Vec::new(), Vec::new());
        was
    }

    /// Takes a route in.
    pub(super) fn see_route(&mut self, route: &RouteInfo) -> bool {
        match self.place(&route.listen) {
            Ok(at) if self.routes[at] == *route => return false,
            Ok(at) => self.routes[at] = route.clone(),
            Err(at) => self.routes.insert(at, route.clone()),
        }
        true
    }

    /// Takes in that a route is no more.
    pub(super) fn lose_route(&mut self, listen: &str) -> bool {
        self.place(listen).map(|at| self.routes.remove(at)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::model::Model;
    use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};

    fn apply(model: &mut Model, kind: Kind) -> bool {
        let time = jiff::Timestamp::UNIX_EPOCH;
        model.apply(&Event { v: SCHEMA_VERSION, time, task: TaskId::machine(), kind })
    }

    fn route(listen: &str, connections: u64) -> Kind {
        let route = RouteInfo { listen: listen.into(), connections, ..RouteInfo::default() };
        Kind::RouteSeen { route: Box::new(route) }
    }

    #[test]
    fn a_route_is_known_by_where_it_listens_and_shows_only_when_it_changed() {
        let mut model = Model::default();
        assert!(apply(&mut model, route("b", 1)));
        assert!(apply(&mut model, route("a", 1)));
        assert!(!apply(&mut model, route("b", 1)));
        assert!(apply(&mut model, route("b", 2)));
        assert_eq!(model.cluster.routes.len(), 2);
        assert_eq!(model.cluster.route("b").map(|route| route.connections), Some(2));
        assert!(apply(&mut model, Kind::RouteGone { listen: "a".into() }));
        assert!(!apply(&mut model, Kind::RouteGone { listen: "a".into() }));
    }

    #[test]
    fn with_the_cluster_its_routes_are_gone() {
        let mut model = Model::default();
        let cluster = Kind::ClusterSeen { cluster: Box::default() };
        assert!(apply(&mut model, cluster.clone()));
        assert!(!apply(&mut model, cluster));
        apply(&mut model, route("a", 0));
        assert!(apply(&mut model, Kind::ClusterGone));
        assert!(!apply(&mut model, Kind::ClusterGone));
        assert!(model.cluster.info.is_none() && model.cluster.routes.is_empty());
    }
}
