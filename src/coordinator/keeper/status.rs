//! What a keeper says of its route.

use std::sync::atomic::Ordering;

use super::Keeper;
use crate::agent::response::InstanceSummary;
use crate::coordinator::node::Link;
use crate::coordinator::status::{InstanceStatus, RouteState, RouteStatus};
use crate::fleet::state::InstanceState;

/// Whether an instance runs without having been woken.
fn runs_anyway(one: &InstanceSummary) -> bool {
    one.state == InstanceState::Running && one.at_home
}

impl Keeper {
    /// How things stand.
    pub(super) fn status(&self) -> RouteStatus {
        let rules = self.rules.borrow();
        let (route, counts) = (&self.route, &self.route.counts);
        let link = match rules.node.link() {
            Link::Up(_) | Link::Connecting => None,
            Link::Down(why) | Link::Refused(why) => Some(why),
        };
        let open = counts.open.load(Ordering::Relaxed);
        let queued = self.desk.waiting() as u64;
        let used = self.kept.iter().any(|kept| kept.member.taken() > 0);
        let state = match () {
            () if self.draining => RouteState::Draining,
            () if self.desk.waking().is_some() && !used => RouteState::Waking,
            () if used => RouteState::Running,
            () if !self.kept.is_empty() || self.listing.iter().any(runs_anyway) => RouteState::Idle,
            () if link.is_some() => RouteState::Unreachable,
            () if self.listing.is_empty() && self.listed_once => RouteState::Empty,
            () => RouteState::Sleeping,
        };
        let left = |kept: &super::Kept| Some(rules.idle.saturating_sub(kept.member.idle()?).as_secs());
        let idle_secs = match state {
            RouteState::Idle => self.kept.iter().filter_map(left).max(),
            _ => None,
        };
        let instances = self.listing.iter().map(|one| {
            let kept = self.instance(&one.path);
            InstanceStatus {
                path: one.path.clone(),
                state: one.state.as_str().into(),
                endpoint: kept.map(|kept| kept.member.endpoint).or(one.endpoint),
                connections: kept.map_or(0, |kept| kept.member.taken().into()),
                leased: kept.is_some(),
                healthy: kept.filter(|_| rules.health_path.is_some()).map(|kept| kept.member.is_well()),
            }
        });
        RouteStatus {
            listen: route.listen,
            tenant: route.target.tenant.clone(),
            pool: route.target.pool.clone(),
            node: rules.node.name.clone(),
            state,
            connections: open.into(),
            queued,
            accepted: counts.accepted.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            rx_bytes: counts.rx.load(Ordering::Relaxed),
            tx_bytes: counts.tx.load(Ordering::Relaxed),
            wakes: self.wakes,
            failed_wakes: self.failed_wakes,
            last_wake: self.last_wake.clone(),
            idle_secs,
            instances: instances.collect(),
            error: link.or_else(|| self.trouble.clone()),
        }
    }
}
