//! An awake instance of a pool, and the places that connections take at it.
//!
//! Workers take and leave places without asking anybody: all there is to agree on is one number, the
//! places taken, with a bit that says whether there are any to be had. Who closes an instance that
//! nobody is connected to does both in one step, so that no connection is let in behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::route::Route;
use crate::fleet::ids::InstancePath;

/// Set in the number of places while none can be taken.
const CLOSED: u32 = 1 << 31;

/// After a quiet time an instance is given so many connections at once, one more for every two that it has
/// answered and after each [`STEP`], up to its limit, and after [`WHOLE`] whatever its limit allows. What
/// sleeps has cold caches and many a server a short queue: what does not fit there is tried again by TCP
/// only seconds later.
const FIRST: u32 = 8;
const STEP: Duration = Duration::from_millis(16);
const WHOLE: Duration = Duration::from_secs(4);
/// So long is a quiet time.
const QUIET: Duration = Duration::from_millis(50);

/// An awake instance.
#[derive(Debug)]
pub struct Member {
    /// Which.
    pub instance: InstancePath,
    /// Where it answers.
    pub endpoint: SocketAddr,
    taken: AtomicU32,
    /// Whether its application answers; one that does not is taken last.
    well: AtomicBool,
    /// When it came to be awake, and how long after that it was last left, ms.
    since: Instant,
    left_ms: AtomicU64,
    /// When the first connection after a quiet time came, ms, and how many were answered since.
    busy_ms: AtomicU64,
    answered: AtomicU32,
}

impl Member {
    /// One that has just woken.
    pub fn new(instance: InstancePath, endpoint: SocketAddr) -> Self {
        Self {
            instance,
            endpoint,
            taken: AtomicU32::new(0),
            well: AtomicBool::new(true),
            since: Instant::now(),
            left_ms: AtomicU64::new(0),
            busy_ms: AtomicU64::new(0),
            answered: AtomicU32::new(0),
        }
    }

    /// How many places are taken.
    pub fn taken(&self) -> u32 {
        self.taken.load(Ordering::Relaxed) & !CLOSED
    }

    /// Whether its application answers.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }

    /// Takes note of how its application answers; whether that is news.
    pub fn set_well(&self, well: bool) -> bool {
        self.well.swap(well, Ordering::Relaxed) != well
    }

    /// For how long nobody has been connected; none while somebody is.
    pub fn idle(&self) -> Option<Duration> {
        // In this order: whoever has left has said when before.
        if self.taken.load(Ordering::Acquire) & !CLOSED != 0 {
            return None;
        }
        let left = Duration::from_millis(self.left_ms.load(Ordering::Relaxed));
        Some(self.since.elapsed().saturating_sub(left))
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.taken.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Lets nobody in any more, if nobody is there; whether that is so.
    pub fn close_if_empty(&self) -> bool {
        self.taken.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Lets connections in again.
    pub fn reopen(&self) {
        self.taken.fetch_and(!CLOSED, Ordering::AcqRel);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What of its limit holds at this time.
    fn limit(&self, limit: u32, now_ms: u64) -> u32 {
        let busy = now_ms.saturating_sub(self.busy_ms.load(Ordering::Relaxed));
        if busy >= WHOLE.as_millis() as u64 {
            return limit;
        }
        let steps = (busy / STEP.as_millis() as u64) as u32;
        limit.min((FIRST + steps).saturating_add(self.answered.load(Ordering::Relaxed) / 2))
    }

    /// Whether it will take more before long, though nobody leaves.
    pub fn is_starting(&self, limit: u32) -> bool {
        self.limit(limit, self.now_ms()) < limit
    }

    /// Takes a place, if there are fewer than `limit` taken.
    fn enter(&self, limit: u32) -> bool {
        let now_ms = self.now_ms();
        let quiet = now_ms.saturating_sub(self.left_ms.load(Ordering::Relaxed));
        if self.taken.load(Ordering::Relaxed) == 0 && quiet >= QUIET.as_millis() as u64 {
            self.busy_ms.store(now_ms, Ordering::Relaxed);
            self.answered.store(0, Ordering::Relaxed);
        }
        let limit = self.limit(limit, now_ms).min(CLOSED - 1);
        let more = |taken: u32| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    fn leave(&self) {
        self.left_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place at an instance, left when it is dropped.
#[derive(Debug)]
pub struct Place {
    member: Arc<Member>,
    route: Arc<Route>,
}

impl Place {
    /// Takes a place at the member with the fewest connections, those that are not well last.
    pub fn take(members: &[Arc<Member>], limit: u32, route: &Arc<Route>) -> Option<Self> {
        // The first among equals, so that with little to do the others come to rest.
        let burden = |member: &&Arc<Member>| (!member.is_well(), member.taken());
        let first = members.iter().min_by_key(burden)?;
        let member =
            if first.enter(limit) { first } else { members.iter().find(|member| member.enter(limit))? };
        Some(Self { member: Arc::clone(member), route: Arc::clone(route) })
    }

    /// The instance has said something.
    pub fn answered(&self) {
        // More than any limit need not be counted.
        if self.member.answered.load(Ordering::Relaxed) < CLOSED {
            self.member.answered.fetch_add(1, Ordering::Relaxed);
            self.route.left();
        }
    }

    /// The instance.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.member.leave();
        self.route.left();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::route::tests::route;

    fn new(name: &str) -> Member {
        let path = format!("dev/web/i-{name}").parse().unwrap();
        Member::new(path, "127.0.0.1:1".parse().unwrap())
    }

    fn member(name: &str) -> Arc<Member> {
        Arc::new(new(name))
    }

    #[test]
    fn connections_go_where_there_are_fewest() {
        let (route, members) = (route(), [member("00000001"), member("00000002")]);
        let places: Vec<_> = (0..4).map(|_| Place::take(&members, 2, &route).unwrap()).collect();
        assert_eq!(members.each_ref().map(|member| member.taken()), [2, 2]);
        assert!(Place::take(&members, 2, &route).is_none());
        drop(places);
        assert!(members.iter().all(|member| member.taken() == 0));
    }

    #[test]
    fn one_that_was_quiet_is_not_overrun_and_takes_more_as_it_answers() {
        let (route, members) = (route(), [member("00000001")]);
        let mut places: Vec<_> =
            std::iter::from_fn(|| Place::take(&members, 1000, &route)).take(100).collect();
        let first = places.len();
        assert!(first < 100 && members[0].is_starting(1000));
        places.iter().for_each(Place::answered);
        places.extend(std::iter::from_fn(|| Place::take(&members, 1000, &route)).take(first / 2));
        assert!(places.len() >= first + first / 2);
        let busy_for_long = Member { since: Instant::now() - WHOLE, ..new("00000002") };
        busy_for_long.left_ms.store(busy_for_long.now_ms(), Ordering::Relaxed);
        let members = [Arc::new(busy_for_long)];
        let places: Vec<_> = std::iter::from_fn(|| Place::take(&members, 1000, &route)).collect();
        assert!(places.len() == 1000 && !members[0].is_starting(1000));
    }

    #[test]
    fn who_is_not_well_is_taken_last() {
        let (route, members) = (route(), [member("00000001"), member("00000002")]);
        assert!(members[0].set_well(false));
        let first = Place::take(&members, 1, &route).unwrap();
        assert_eq!(first.member().instance, members[1].instance);
        assert_eq!(Place::take(&members, 1, &route).unwrap().member().instance, members[0].instance);
    }

    #[test]
    fn one_that_is_closed_lets_nobody_in_and_one_with_connections_is_not_closed_as_empty() {
        let (route, members) = (route(), [member("00000001")]);
        let place = Place::take(&members, u32::MAX, &route).unwrap();
        assert!(!members[0].close_if_empty() && members[0].idle().is_none());
        drop(place);
        assert!(members[0].idle().is_some() && members[0].close_if_empty());
        assert!(Place::take(&members, u32::MAX, &route).is_none());
    }

    #[test]
    fn of_many_who_come_while_it_closes_none_is_inside_behind_the_door() {
        for _ in 0..200 {
            let (route, members) = (route(), [member("00000001")]);
            std::thread::scope(|scope| {
                let comers: Vec<_> =
                    (0..3).map(|_| scope.spawn(|| Place::take(&members, u32::MAX, &route))).collect();
                let closed = members[0].close_if_empty();
                let inside = comers.into_iter().filter_map(|comer| comer.join().unwrap()).count();
                assert!(!closed || inside == 0);
            });
        }
    }
}
