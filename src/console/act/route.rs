//! What is done with routes.

use super::Effect;
use crate::console::command::RouteAct;
use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::tabs::Program;
use crate::console::work::Job;
use crate::coordinator::control::RouteOp;

/// Does a command.
pub fn act(act: RouteAct, model: &Model, ui: &Ui) -> Option<Effect> {
    let route = ui.routes.route(model)?;
    // A recording may name its routes as it likes.
    let listen = route.listen.parse().ok()?;
    let job = |op| Some(Effect::Work(Job::Route { listen, op }));
    match act {
        RouteAct::Wake => job(RouteOp::Wake),
        RouteAct::Sleep => job(RouteOp::Sleep),
        RouteAct::Drain if route.state == "draining" => job(RouteOp::Resume),
        RouteAct::Drain => job(RouteOp::Drain),
        RouteAct::Dial => Some(Effect::Open(Program::Dial(listen))),
        RouteAct::Logs => Some(Effect::Open(Program::ClusterLogs)),
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use jiff::Timestamp;

    use super::*;
    use crate::console::app::pressed;
    use crate::console::keymap::Keymap;
    use crate::console::ui::page::Page;
    use crate::event::cluster::RouteInfo;
    use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};

    fn model(state: &str, connections: u64) -> Model {
        let (listen, state) = ("127.0.0.1:8443".into(), state.into());
        let route = Box::new(RouteInfo { listen, state, connections, ..RouteInfo::default() });
        let mut model = Model::default();
        let (time, task) = (Timestamp::UNIX_EPOCH, TaskId::machine());
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind: Kind::RouteSeen { route } });
        model
    }

    /// What a key does, or the word that is said instead.
    fn press(key: char, model: &Model) -> Result<Effect, String> {
        let mut ui = Ui { page: Page::Routes, ..Ui::default() };
        let event = KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE);
        pressed(event, &Keymap::default(), model, &mut ui).ok_or_else(|| ui.word.unwrap_or_default())
    }

    #[test]
    fn each_key_steers_the_route_where_its_state_allows_it() {
        for (key, state, connections, op) in [
            ('w', "sleeping", 0, RouteOp::Wake),
            ('w', "unreachable", 0, RouteOp::Wake),
            ('s', "idle", 0, RouteOp::Sleep),
            ('d', "running", 1, RouteOp::Drain),
            ('d', "draining", 1, RouteOp::Resume),
        ] {
            match press(key, &model(state, connections)) {
                Ok(Effect::Work(Job::Route { listen, op: done })) => {
                    assert_eq!((listen.to_string().as_str(), done), ("127.0.0.1:8443", op), "{key} {state}");
                }
                other => panic!("{key} {state}: {other:?}"),
            }
        }
        for (key, state, connections, why) in [
            ('w', "running", 1, "wake-route: an instance runs"),
            ('w', "waking", 1, "wake-route: an instance is being woken"),
            ('s', "sleeping", 0, "let-sleep: its instances sleep"),
            ('s', "running", 1, "let-sleep: somebody is connected"),
            ('o', "draining", 0, "dial: the route takes nothing new"),
        ] {
            assert_eq!(press(key, &model(state, connections)).unwrap_err(), why);
        }
        for key in ['w', 's', 'd', 'o', 'l'] {
            assert!(press(key, &Model::default()).unwrap_err().ends_with(": there is no route"), "{key}");
        }
    }

    #[test]
    fn a_connection_and_the_logs_open_in_tabs() {
        let model = model("sleeping", 0);
        let listen = "127.0.0.1:8443".parse().unwrap();
        assert!(matches!(press('o', &model), Ok(Effect::Open(Program::Dial(to))) if to == listen));
        assert!(matches!(press('l', &model), Ok(Effect::Open(Program::ClusterLogs))));
    }
}
