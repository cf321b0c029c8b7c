//! Leases: an instance is kept awake while it is used and for a time after that, and let go then. Only
//! the agent puts it to sleep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Done, Keeper};
use crate::agent::client::{Client, ClientError};
use crate::agent::request::{InstanceFilter, LeaseId, Request, Target, Ttl};
use crate::agent::response::{FaultCode, InstanceSummary, Response, Woken};
use crate::coordinator::health;
use crate::coordinator::member::Member;
use crate::coordinator::node::Link;
use crate::event::text::in_a_line;
use crate::fleet::ids::InstancePath;
use crate::fleet::state::InstanceState;

/// A coordinator that is gone keeps nothing awake for longer.
pub(super) const TTL: Ttl = Ttl::seconds(20);
/// Pause between two renewals.
const RENEW: Duration = Duration::from_secs(5);
/// Pause after a renewal that did not work.
const AGAIN: Duration = Duration::from_secs(1);
/// How long giving leases back may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long an application has to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// An instance that is kept awake.
pub(super) struct Kept {
    pub(super) member: Arc<Member>,
    pub(super) lease: LeaseId,
    since: Instant,
    /// When it is to be renewed.
    due: Instant,
    renewing: bool,
}

impl Kept {
    pub(super) fn new(member: Arc<Member>, lease: LeaseId) -> Self {
        let now = Instant::now();
        Self { member, lease, since: now, due: now + RENEW, renewing: false }
    }

    pub(super) fn lease_anew(&mut self, lease: LeaseId) {
        self.lease = lease;
        self.renew_in(RENEW);
    }

    fn renew_in(&mut self, time: Duration) {
        (self.due, self.renewing) = (Instant::now() + time, false);
    }
}

/// What came of asking for a lease.
pub(super) enum Leased {
    Yes(Woken),
    No(String),
    NotNow,
}

/// What came of renewing a lease.
pub(super) enum Renewed {
    Yes,
    Lost,
    NotNow,
}

impl Keeper {
    /// The instances that are kept.
    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.kept.iter().map(|kept| Arc::clone(&kept.member)).collect()
    }

    /// The one of this path, while it is kept.
    pub(super) fn instance(&self, path: &InstancePath) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.member.instance == *path)
    }

    fn client(&self) -> Option<Client> {
        match self.rules.borrow().node.link() {
            Link::Up(client) => Some(client),
            Link::Connecting | Link::Down(_) | Link::Refused(_) => None,
        }
    }

    /// Asks the agent for the pool's instances, if it is time to.
    pub(super) fn look(&mut self) {
        let due = self.looked.is_none_or(|looked| looked.elapsed() >= self.rules.borrow().health);
        if !due || self.looking {
            return;
        }
        self.looked = Some(Instant::now());
        let Some(client) = self.client() else { return };
        self.looking = true;
        let target = self.route.target.clone();
        let filter =
            InstanceFilter { tenant: Some(target.tenant), pool: Some(target.pool), ..Default::default() };
        self.work.push(Box::pin(async move {
            let asked = Instant::now();
            let listed = client.instances(filter).await.map_err(|error| error.to_string());
            Done::Listed { asked, listed }
        }));
        self.feel();
    }

    /// Takes note of the pool's instances.
    pub(super) fn listed(&mut self, asked: Instant, listed: Result<Vec<InstanceSummary>, String>) {
        self.looking = false;
        match listed {
            Ok(listing) => (self.listing, self.listed_once, self.trouble) = (listing, true, None),
            Err(why) => return self.trouble = Some(why),
        }
        // What was woken since is not in it.
        let known = |kept: &&Kept| kept.since < asked && !self.leasing.contains(&kept.member.instance);
        let over = self.kept.iter().filter(known).filter_map(|kept| {
            let told = self.listing.iter().find(|one| one.path == kept.member.instance);
            let state = told.map_or("gone", |one| one.state.as_str());
            (state != InstanceState::Running.as_str()).then(|| (Arc::clone(&kept.member), state))
        });
        for (member, state) in over.collect::<Vec<_>>() {
            self.lose(&member, &format!("it is {state}"));
        }
        if self.kept.is_empty() {
            return;
        }
        // Those that run anyway carry their share.
        let runs = |one: &&InstanceSummary| one.state == InstanceState::Running && one.at_home;
        let others = self.listing.iter().filter(runs).map(|one| one.path.clone());
        let others = others.filter(|path| self.instance(path).is_none() && !self.leasing.contains(path));
        for path in others.collect::<Vec<_>>() {
            self.lease(path);
        }
    }

    /// Asks the applications how they are.
    fn feel(&mut self) {
        let (path, limit) = {
            let rules = self.rules.borrow();
            let Some(path) = rules.health_path.clone() else { return };
            (path, rules.health.min(ANSWER))
        };
        for kept in &self.kept {
            let (member, path) = (Arc::clone(&kept.member), path.clone());
            self.work.push(Box::pin(async move {
                let well = health::get(member.endpoint, &path, limit).await.is_ok();
                Done::Felt { member, well }
            }));
        }
    }

    /// Renews what is used, and lets go of what nobody has used for long.
    pub(super) fn see_to_leases(&mut self) {
        let idle = self.rules.borrow().idle;
        let is_idle = |kept: &Kept| kept.member.idle().is_some_and(|time| time >= idle);
        // Those that run anyway stay as long as any is used.
        let all_idle = self.kept.iter().all(is_idle);
        let resident = |path: &InstancePath| self.listing.iter().any(|one| one.path == *path && one.at_home);
        let may_go = |kept: &&Kept| is_idle(kept) && (all_idle || !resident(&kept.member.instance));
        let idle: Vec<_> = self.kept.iter().filter(may_go).map(|kept| Arc::clone(&kept.member)).collect();
        for member in idle {
            if member.close_if_empty() {
                tracing::info!(route = %self.route.listen, instance = %member.instance, "idle, let go");
                self.drop_kept(&member);
            }
        }
        let Some(client) = self.client() else { return };
        let now = Instant::now();
        for kept in self.kept.iter_mut().filter(|kept| !kept.renewing && kept.due <= now) {
            kept.renewing = true;
            let (lease, client) = (kept.lease.clone(), client.clone());
            self.work.push(Box::pin(async move {
                let asked = client.ask(Request::Renew { lease: lease.clone(), ttl: TTL }).await;
                let renewed = match asked {
                    Ok(_) => Renewed::Yes,
                    Err(ClientError::Refused(fault)) if fault.code == FaultCode::NotFound => Renewed::Lost,
                    Err(_) => Renewed::NotNow,
                };
                Done::Renewed { lease, renewed }
            }));
        }
    }

    pub(super) fn renewed(&mut self, lease: &LeaseId, renewed: Renewed) {
        let Some(kept) = self.kept.iter_mut().find(|kept| kept.lease == *lease) else { return };
        match renewed {
            Renewed::Yes => kept.renew_in(RENEW),
            // The agent is away, or busy.
            Renewed::NotNow => kept.renew_in(AGAIN),
            Renewed::Lost => {
                kept.renew_in(AGAIN);
                let path = kept.member.instance.clone();
                tracing::warn!(route = %self.route.listen, instance = %path, "its lease has lapsed; asking anew");
                self.lease(path);
            }
        }
    }

    /// Asks for a lease of an instance that is thought to run.
    fn lease(&mut self, instance: InstancePath) {
        let Some(client) = self.client() else { return };
        if self.leasing.contains(&instance) {
            return;
        }
        self.leasing.push(instance.clone());
        self.work.push(Box::pin(async move {
            let request = Request::Wake { target: Target::Instance(instance.clone()), ttl: TTL };
            let leased = match client.ask(request).await {
                Ok(Response::Woken(woken)) => Leased::Yes(woken),
                Err(ClientError::Refused(fault))
                    if matches!(fault.code, FaultCode::NotFound | FaultCode::Conflict) =>
                {
                    Leased::No(fault.message)
                }
                Ok(_) | Err(_) => Leased::NotNow,
            };
            Done::Leased { instance, leased }
        }));
    }

    pub(super) fn leased(&mut self, instance: &InstancePath, leased: Leased) {
        self.leasing.retain(|path| path != instance);
        match leased {
            Leased::Yes(woken) => self.keep(woken),
            // The renewal of what is kept comes back to it.
            Leased::NotNow => {}
            Leased::No(why) => {
                let kept = self.instance(instance).map(|kept| Arc::clone(&kept.member));
                if let Some(member) = kept {
                    self.lose(&member, &why);
                }
            }
        }
    }

    /// Gives an instance up that is not what it was; who is connected to it finds out by itself.
    pub(super) fn lose(&mut self, member: &Arc<Member>, why: &str) {
        if self.kept.iter().any(|kept| Arc::ptr_eq(&kept.member, member)) {
            tracing::warn!(
                route = %self.route.listen, instance = %member.instance, error = in_a_line(why), "the instance is lost"
            );
            member.close();
            self.drop_kept(member);
            self.lost.push(Arc::clone(member));
        }
    }

    /// An instance that was woken. One that was given up and runs after all still has its connections.
    pub(super) fn member(&mut self, woken: &Woken) -> Arc<Member> {
        self.lost.retain(|member| member.taken() > 0);
        let same =
            |member: &Arc<Member>| member.instance == woken.instance && member.endpoint == woken.endpoint;
        match self.lost.iter().position(same) {
            Some(at) => {
                let member = self.lost.swap_remove(at);
                member.reopen();
                member
            }
            None => Arc::new(Member::new(woken.instance.clone(), woken.endpoint)),
        }
    }

    fn drop_kept(&mut self, member: &Arc<Member>) {
        let at = self.kept.iter().position(|kept| Arc::ptr_eq(&kept.member, member));
        if let Some(at) = at {
            let kept = self.kept.remove(at);
            self.publish();
            self.let_go(&kept.lease);
        }
    }

    /// Gives a lease back. One that cannot be given back lapses.
    pub(super) fn let_go(&mut self, lease: &LeaseId) {
        let Some(client) = self.client() else { return };
        let lease = lease.clone();
        self.work.push(Box::pin(async move {
            let _ = client.ask(Request::Release { lease }).await;
            Done::LetGo
        }));
    }

    /// Has the instances sleep now, if nobody is connected.
    pub(super) fn sleep(&mut self, reply: oneshot::Sender<Result<(), String>>) {
        let used: u32 = self.kept.iter().map(|kept| kept.member.taken()).sum();
        let members: Vec<_> = self.kept.iter().map(|kept| Arc::clone(&kept.member)).collect();
        let client = match self.client() {
            _ if self.desk.waiting() > 0 => Err("connections wait for an instance".to_string()),
            None => Err(format!("the node `{}` does not answer", self.rules.borrow().node.name)),
            Some(_) if used > 0 || !members.iter().all(|member| member.close_if_empty()) => {
                members.iter().filter(|member| member.taken() == 0).for_each(|member| member.reopen());
                Err(format!("{used} connections are open\nhelp: `mvm coordinator drain` takes no new ones"))
            }
            Some(client) => Ok(client),
        };
        let client = match client {
            Ok(client) => client,
            Err(why) => return drop(reply.send(Err(why))),
        };
        let leases: Vec<_> = self.kept.drain(..).map(|kept| kept.lease).collect();
        self.publish();
        let awake =
            |one: &&InstanceSummary| matches!(one.state, InstanceState::Running | InstanceState::Warm);
        let listed = self.listing.iter().filter(awake).map(|one| one.path.clone());
        let mut instances: Vec<_> =
            members.iter().map(|member| member.instance.clone()).chain(listed).collect();
        instances.sort();
        instances.dedup();
        self.work.push(Box::pin(async move {
            for lease in leases {
                // One that has lapsed is no hindrance.
                let _ = client.ask(Request::Release { lease }).await;
            }
            let mut slept = Ok(());
            for instance in instances {
                if let Err(error) = client.ask(Request::Sleep { instance }).await {
                    slept = Err(error.to_string());
                }
            }
            let _ = reply.send(slept);
            Done::LetGo
        }));
    }

    /// Gives everything back.
    pub(super) async fn end(&mut self) {
        let leases: Vec<_> = self.kept.drain(..).map(|kept| kept.lease).collect();
        self.publish();
        let Some(client) = self.client() else { return };
        let given = leases.into_iter().map(|lease| client.ask(Request::Release { lease }));
        // What is not given back lapses.
        let _ = timeout(FAREWELL, futures_util::future::join_all(given)).await;
    }
}
