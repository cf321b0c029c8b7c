//! What can be done with the selected route, and else why not.

use super::{Model, Ui};
use crate::event::cluster::RouteInfo;

type Answer = Result<(), &'static str>;

/// There is a route.
pub fn is_there(model: &Model, ui: &Ui) -> Answer {
    selected(model, ui).map(|_| ())
}

/// It takes connections, as far as is known.
pub fn listens(model: &Model, ui: &Ui) -> Answer {
    match selected(model, ui)?.state.as_str() {
        "closed" => Err("its address could not be had"),
        "draining" => Err("the route takes nothing new"),
        _ => Ok(()),
    }
}

/// An instance of it can be woken.
pub fn wake(model: &Model, ui: &Ui) -> Answer {
    match selected(model, ui)?.state.as_str() {
        "running" | "idle" => Err("an instance runs"),
        "waking" => Err("an instance is being woken"),
        "empty" => Err("its pool has no instances"),
        _ => Ok(()),
    }
}

/// Its instances can be let go to sleep.
pub fn sleep(model: &Model, ui: &Ui) -> Answer {
    let route = selected(model, ui)?;
    match route.state.as_str() {
        "sleeping" => Err("its instances sleep"),
        "waking" => Err("an instance is being woken"),
        "empty" => Err("its pool has no instances"),
        _ if route.connections > 0 => Err("somebody is connected"),
        _ => Ok(()),
    }
}

fn selected<'a>(model: &'a Model, ui: &Ui) -> Result<&'a RouteInfo, &'static str> {
    ui.routes.route(model).ok_or("there is no route")
}
