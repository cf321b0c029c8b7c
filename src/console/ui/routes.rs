//! What is selected among routes.

use super::page::step;
use crate::console::model::Model;
use crate::event::cluster::RouteInfo;

/// The routes page.
#[derive(Debug, Default)]
pub struct RoutesUi {
    selected: Option<String>,
}

impl RoutesUi {
    /// The place of the selected route: the first while none was chosen.
    pub fn place(&self, routes: &[RouteInfo]) -> usize {
        let chosen = self.selected.as_ref();
        chosen.and_then(|listen| routes.iter().position(|route| route.listen == *listen)).unwrap_or(0)
    }

    /// The selected route.
    pub fn route<'a>(&self, model: &'a Model) -> Option<&'a RouteInfo> {
        let routes = &model.cluster.routes;
        routes.get(self.place(routes))
    }

    /// Selects a route, by where it listens.
    pub fn select(&mut self, listen: &str) {
        self.selected = Some(listen.into());
    }

    /// Moves the selection.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let routes = &model.cluster.routes;
        let at = step(Some(self.place(routes)), by, routes.len());
        self.selected = at.map(|at| routes[at].listen.clone());
    }
}
