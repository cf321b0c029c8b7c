//! A route as its workers see it: whom they may carry connections to, and what they count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::descriptors::Taken;
use super::desk::Refusal;
use super::member::{Member, Place};
use crate::fleet::ids::PoolPath;

/// A route, shared by its keeper and all workers.
#[derive(Debug)]
pub struct Route {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The pool that it leads to.
    pub target: PoolPath,
    /// What is counted.
    pub counts: Counts,
    /// What its keeper says now.
    pub view: watch::Receiver<Arc<View>>,
    /// Takes what workers ask of the keeper.
    pub asks: mpsc::Sender<Ask>,
    /// Tells the keeper that a place was left while somebody waits for one.
    pub freed: Notify,
}

/// What a keeper tells its workers.
#[derive(Debug)]
pub struct View {
    /// Instances that may be used.
    pub members: Vec<Arc<Member>>,
    /// Connections of one instance at most.
    pub limit: u32,
    /// How long a connection may be silent; none for ever.
    pub silence: Option<Duration>,
    /// Whether nothing new is taken.
    pub draining: bool,
    /// The tenant, and its limit.
    pub tenant: Arc<Tenant>,
}

/// What a worker asks of a keeper.
#[derive(Debug)]
pub enum Ask {
    /// A place for a connection that came at `since`.
    Place {
        /// When it came.
        since: Instant,
        /// Takes the place.
        reply: oneshot::Sender<Result<Place, Refusal>>,
    },
    /// A connection was sent away: that is for the log.
    Refused {
        /// Why.
        why: String,
        /// How long it had waited.
        waited: Duration,
    },
    /// Nobody answers there.
    Dead {
        /// The instance.
        member: Arc<Member>,
        /// What the system said.
        why: String,
    },
}

/// What is counted of a route.
#[derive(Debug, Default)]
pub struct Counts {
    /// Listeners that may still let somebody in.
    pub listening: AtomicU32,
    /// Open connections.
    pub open: AtomicU32,
    /// Of these, those that wait for a place.
    pub waiting: AtomicU32,
    /// Connections so far.
    pub accepted: AtomicU64,
    /// Of these, closed without having been carried.
    pub refused: AtomicU64,
    /// Bytes that came from clients.
    pub rx: AtomicU64,
    /// Bytes that went to clients.
    pub tx: AtomicU64,
}

/// The connections of a tenant, through all its routes.
#[derive(Debug, Default)]
pub struct Tenant {
    /// Open connections.
    pub open: AtomicU32,
    /// So many at most.
    pub limit: AtomicU32,
}

impl Route {
    /// Takes a place at an awake instance, if there is one.
    pub fn place(self: &Arc<Self>, view: &View) -> Option<Place> {
        // Who waits goes first.
        if self.counts.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        Place::take(&view.members, view.limit, self)
    }

    /// Whether nobody is connected, nor can be any more.
    pub fn is_over(&self) -> bool {
        // In this order: who is let in by the last listener is counted before that is gone.
        self.counts.listening.load(Ordering::Acquire) == 0 && self.counts.open.load(Ordering::Acquire) == 0
    }

    /// A place was left.
    pub fn left(&self) {
        if self.counts.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_one();
        }
    }
}

/// A listener of a route, counted with its descriptor until it is dropped.
#[derive(Debug)]
pub struct Listening {
    route: Arc<Route>,
    _descriptor: Taken,
}

impl Listening {
    /// Counts one more.
    pub fn new(route: &Arc<Route>, descriptor: Taken) -> Self {
        route.counts.listening.fetch_add(1, Ordering::AcqRel);
        Self { route: Arc::clone(route), _descriptor: descriptor }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.route.counts.listening.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An open connection of a route and its tenant, counted until it is dropped.
#[derive(Debug)]
pub struct Open {
    route: Arc<Route>,
    tenant: Arc<Tenant>,
}

impl Open {
    /// Counts one more, if its tenant may have it.
    pub fn one_more(route: &Arc<Route>, tenant: &Arc<Tenant>) -> Option<Self> {
        let limit = tenant.limit.load(Ordering::Relaxed);
        let more = |open| (open < limit).then_some(open + 1);
        tenant.open.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok()?;
        route.counts.open.fetch_add(1, Ordering::AcqRel);
        Some(Self { route: Arc::clone(route), tenant: Arc::clone(tenant) })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.route.counts.open.fetch_sub(1, Ordering::AcqRel);
        self.tenant.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A route without a keeper.
    pub fn route() -> Arc<Route> {
        let tenant = Arc::new(Tenant { limit: AtomicU32::new(2), ..Tenant::default() });
        let view = View { members: Vec::new(), limit: u32::MAX, silence: None, draining: false, tenant };
        Arc::new(Route {
            listen: "127.0.0.1:1".parse().unwrap(),
            target: "dev/web".parse().unwrap(),
            counts: Counts::default(),
            view: watch::channel(Arc::new(view)).1,
            asks: mpsc::channel(1).0,
            freed: Notify::new(),
        })
    }

    #[test]
    fn a_tenant_has_no_more_connections_than_it_may() {
        let route = route();
        let tenant = Arc::clone(&route.view.borrow().tenant);
        let open: Vec<_> = (0..3).map(|_| Open::one_more(&route, &tenant)).collect();
        assert_eq!(open.iter().flatten().count(), 2);
        drop(open);
        assert_eq!(tenant.open.load(Ordering::Relaxed), 0);
        assert_eq!(route.counts.open.load(Ordering::Relaxed), 0);
    }
}
