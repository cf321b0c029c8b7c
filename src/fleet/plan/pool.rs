//! The actions of one pool.

use super::action::{Action, Blocked, Plan, ReplaceOrder, Why, Wish};
use super::actual::{ActualInstance, ActualPool};
use super::lot::Lot;
use super::room::{Room, Short};
use super::{Kept, changes};
use crate::fleet::desired::Pool;
use crate::fleet::ids::{InstancePath, PoolPath};
use crate::fleet::policy::{self, Bucket, Demotion, Facts};
use crate::fleet::state::InstanceState;

/// Planning of one pool.
pub(super) struct PoolPlanner<'p, 'a> {
    pub(super) path: &'p PoolPath,
    pub(super) pool: &'p Pool,
    pub(super) actual: &'a ActualPool,
    pub(super) room: &'p mut Room,
    pub(super) kept: &'p mut Kept,
    pub(super) max_instances: u64,
    pub(super) plan: &'p mut Plan,
}

impl<'a> PoolPlanner<'_, 'a> {
    /// Adds the pool's actions to the plan. The order of the tenant's pools decides who gets what is
    /// left of a quota.
    pub(super) fn run(mut self) {
        let now_ms = self.plan.now_ms;
        if let Some(until_ms) = self.actual.held_until_ms.filter(|until| now_ms < *until) {
            return self.blocked(Why::Held { until_ms });
        }
        if self.actual.pool != *self.pool {
            let changes = changes::between("", &self.actual.pool, self.pool);
            let pool = Box::new(self.pool.clone());
            self.plan.actions.push(Action::UpdatePool { path: self.path.clone(), pool, changes });
        }
        // What is to be built is not known to differ: instances are told apart after the build.
        let current = self.actual.build.as_ref().filter(|build| build.source.is_of(self.pool));
        let builds = current.is_none() && self.build();
        let resources = self.pool.instance_resources;
        let is_old = |instance: &ActualInstance| {
            current.is_some_and(|current| instance.build != current.id || instance.resources != resources)
        };
        let mut lot = Lot::sort(self.actual, self.pool, is_old, now_ms);
        let (actions, blocked) = (self.plan.actions.len(), self.plan.blocked.len());
        let can_create = builds || self.actual.build.is_some();
        self.run_missing(&mut lot, can_create);
        let to_warm = self.warm_missing(&mut lot, can_create);
        let to_sleep = self.sleep_missing(&mut lot, can_create);
        let mut destroys = self.clear(&mut lot);
        self.stop_surplus(&mut lot, is_old, &mut destroys);
        self.rest(&mut lot, to_warm, to_sleep);
        let is_settled = actions == self.plan.actions.len() && blocked == self.plan.blocked.len();
        let is_settled = is_settled && destroys.is_empty();
        self.plan.actions.append(&mut destroys);
        if is_settled && current.is_some() {
            self.replace_one(&lot, is_old);
        }
    }

    /// Whether a build is among the actions now.
    fn build(&mut self) -> bool {
        match self.actual.build_retry_at_ms.filter(|retry| self.plan.now_ms < *retry) {
            Some(until_ms) => {
                self.blocked(Why::BuildFailed { until_ms });
                false
            }
            None => {
                self.plan.actions.push(Action::BuildPool { path: self.path.clone() });
                true
            }
        }
    }

    fn run_missing(&mut self, lot: &mut Lot<'a>, can_create: bool) {
        let to = Bucket::Running;
        lot.keep_returning(to);
        let mut wakes = Vec::new();
        let mut resumes = Vec::new();
        let mut short = None;
        // Those that are too many first, then those that are wanted where they are: others are made
        // in their place, but that takes longer.
        for whole in [false, true] {
            for from in [Bucket::Sleeping, Bucket::Warm] {
                while let Some(instance) = lot.promotable(from, whole).filter(|_| lot.lacks(to) > 0) {
                    if let Err(why) = self.room.shift(Some(from), to, &instance.resources) {
                        short = Some(why);
                        break;
                    }
                    lot.promote(from, to);
                    match from {
                        Bucket::Sleeping => wakes.push(Action::Wake { path: self.of(instance), to }),
                        _ => resumes.push(Action::Resume { path: self.of(instance) }),
                    }
                }
            }
        }
        while lot.lacks(to) > 0 && short.is_none() {
            let Some(instance) = lot.returning(Bucket::Warm) else { break };
            lot.fill(to);
            match self.room.shift(Some(Bucket::Warm), to, &instance.resources) {
                Ok(()) => resumes.push(Action::Resume { path: self.of(instance) }),
                Err(why) => self.short(why, Wish::Run, 1),
            }
        }
        self.plan.actions.append(&mut wakes);
        self.plan.actions.append(&mut resumes);
        // Another one may be smaller.
        let blocked = self.plan.blocked.len();
        self.start_or_create(lot, to, can_create);
        if let Some(short) = short.filter(|_| lot.lacks(to) > 0 && blocked == self.plan.blocked.len()) {
            self.short(short, Wish::Run, lot.lacks(to));
        }
    }

    /// Those that are to be halted, in the end.
    fn warm_missing(&mut self, lot: &mut Lot<'a>, can_create: bool) -> Vec<&'a ActualInstance> {
        let to = Bucket::Warm;
        lot.keep_returning(to);
        let to_warm = take_surplus(lot, Bucket::Running, to);
        let from = Bucket::Sleeping;
        while let Some(instance) = lot.promotable(from, false).filter(|_| lot.lacks(to) > 0) {
            if self.room.shift(Some(from), to, &instance.resources).is_err() {
                break;
            }
            lot.promote(from, to);
            self.plan.actions.push(Action::Wake { path: self.of(instance), to });
        }
        self.start_or_create(lot, to, can_create);
        to_warm
    }

    /// Those that are to be saved, in the end.
    fn sleep_missing(&mut self, lot: &mut Lot<'a>, can_create: bool) -> Vec<&'a ActualInstance> {
        let to = Bucket::Sleeping;
        let mut to_sleep = take_surplus(lot, Bucket::Warm, to);
        to_sleep.extend(take_surplus(lot, Bucket::Running, to));
        self.start_or_create(lot, to, can_create);
        to_sleep
    }

    /// Fills what a bucket still lacks: with those at rest, with those that are to be started later,
    /// with new ones.
    fn start_or_create(&mut self, lot: &mut Lot<'a>, to: Bucket, can_create: bool) {
        while lot.lacks(to) > 0 {
            let Some(instance) = lot.spare.front().copied() else { break };
            if let Err(short) = self.room.shift(None, to, &instance.resources) {
                return self.short(short, Wish::of(to), lot.lacks(to));
            }
            lot.spare.pop_front();
            lot.fill(to);
            self.plan.actions.push(Action::Start { path: self.of(instance), to });
        }
        while lot.lacks(to) > 0 {
            // Another one in its place would most likely fail as well, and be too many in the end.
            let Some(instance) = lot.waiting.pop_front() else { break };
            lot.fill(to);
            let until_ms = instance.retry_at_ms.unwrap_or(self.plan.now_ms);
            self.instance_blocked(instance, Why::Failed { until_ms });
        }
        if lot.lacks(to) == 0 || !can_create {
            return;
        }
        if let Some(until_ms) = self.actual.retry_at_ms.filter(|retry| self.plan.now_ms < *retry) {
            return self.blocked(Why::CreateFailed { until_ms });
        }
        while lot.lacks(to) > 0 {
            let room = if lot.total < self.max_instances {
                self.room.create(to, &self.pool.instance_resources)
            } else {
                Err(Short::count("max_instances_per_pool", lot.total, self.max_instances))
            };
            if let Err(short) = room {
                return self.short(short, Wish::of(to), lot.lacks(to));
            }
            lot.total += 1;
            lot.fill(to);
            self.plan.actions.push(Action::Create { path: self.path.clone(), to });
        }
    }

    /// Stops what is too many. What would not be started again goes at once.
    fn stop_surplus(
        &mut self,
        lot: &mut Lot<'a>,
        is_old: impl Fn(&ActualInstance) -> bool,
        destroys: &mut Vec<Action>,
    ) {
        for bucket in Bucket::ALL {
            while let Some(instance) = lot.surplus(bucket) {
                if !self.may_leave(instance) {
                    continue;
                }
                if is_old(instance) || lot.total > self.max_instances {
                    lot.total -= 1;
                    destroys.push(Action::Destroy { path: self.of(instance) });
                } else {
                    self.plan.actions.push(Action::Stop { path: self.of(instance) });
                }
            }
        }
    }

    /// Warms and puts to sleep: those that are too many where they are, and those whose lease lapsed
    /// and that have nothing to do.
    fn rest(
        &mut self,
        lot: &mut Lot<'a>,
        to_warm: Vec<&'a ActualInstance>,
        to_sleep: Vec<&'a ActualInstance>,
    ) {
        let to_warm = to_warm.into_iter().map(|instance| (instance, Bucket::Warm));
        let to_sleep = to_sleep.into_iter().map(|instance| (instance, Bucket::Sleeping));
        let surplus: Vec<_> =
            to_warm.chain(to_sleep).filter(|(instance, _)| self.may_leave(instance)).collect();
        let mut steps: Vec<_> = surplus.into_iter().map(|(instance, to)| (instance, to, to)).collect();
        for (instance, home) in lot.all_returning() {
            let facts = Facts {
                state: instance.state,
                since_ms: instance.since_ms,
                home,
                pinned: self.pool.pinned,
                kept_until_ms: instance.held_until_ms,
                activity: instance.activity,
            };
            let step = policy::decide(&facts, &self.pool.runtime_policy, self.plan.now_ms);
            steps.extend(step.map(|step| match step {
                Demotion::Warm => (instance, Bucket::Warm, home),
                Demotion::Sleep => (instance, Bucket::Sleeping, home),
            }));
        }
        // Quotas are counted in the order of the actions.
        steps.sort_by_key(|(_, to, _)| *to);
        let mut sleeps = Vec::new();
        for (instance, to, home) in steps {
            self.go_down(instance, to, home, &mut sleeps);
        }
        self.plan.actions.append(&mut sleeps);
    }

    /// A step down to `to`; where too many are warm, further to `home`.
    fn go_down(&mut self, instance: &ActualInstance, to: Bucket, home: Bucket, sleeps: &mut Vec<Action>) {
        let from = Bucket::of(instance.state);
        let mut step = |to| self.room.shift(from, to, &instance.resources).map(|()| to);
        let went = step(to).or_else(|short| if home > to { step(home) } else { Err(short) });
        match went {
            Ok(Bucket::Sleeping) => sleeps.push(Action::Sleep { path: self.of(instance) }),
            Ok(_) => self.plan.actions.push(Action::Warm { path: self.of(instance) }),
            Err(short) => {
                let why = short.why(Wish::of(to), 1);
                self.instance_blocked(instance, why);
            }
        }
    }

    /// Whether it has been long enough in its state; says so if not.
    fn may_leave(&mut self, instance: &ActualInstance) -> bool {
        let until_ms = policy::rests_from(instance.state, instance.since_ms, &self.pool.runtime_policy);
        let may = until_ms <= self.plan.now_ms;
        if !may {
            self.instance_blocked(instance, Why::Young { until_ms });
        }
        may
    }

    /// Destroys what is neither wanted nor worth keeping. A stopped instance keeps its disk and is the
    /// first to be started; what failed or never ran has nothing to keep.
    fn clear(&mut self, lot: &mut Lot<'a>) -> Vec<Action> {
        let mut destroys = Vec::new();
        for instance in lot.over.drain(..) {
            lot.total -= 1;
            destroys.push(Action::Destroy { path: self.of(instance) });
        }
        for instance in lot.spare.drain(..).rev().chain(lot.waiting.drain(..)) {
            if instance.state != InstanceState::Stopped || lot.total > self.max_instances {
                lot.total -= 1;
                destroys.push(Action::Destroy { path: self.of(instance) });
            } else {
                self.kept.stopped.push((instance.since_ms, self.of(instance)));
            }
        }
        destroys
    }

    /// One at a time, and only where nothing else is to be done: a new revision that does not come up
    /// takes no second instance with it.
    fn replace_one(&mut self, lot: &Lot<'a>, is_old: impl Fn(&ActualInstance) -> bool) {
        let new = &self.pool.instance_resources;
        for to in Bucket::ALL {
            // The least missed first.
            let Some(instance) = lot.free(to).rev().find(|instance| is_old(instance)) else { continue };
            let both = (&instance.resources, new);
            let beside = if lot.total < self.max_instances {
                self.room.replace(to, both, true)
            } else {
                Err(Short::count("max_instances_per_pool", lot.total, self.max_instances))
            };
            let done = match beside {
                Ok(()) => Ok(ReplaceOrder::NewFirst),
                Err(short) if to == Bucket::Running => Err(short),
                Err(_) => self.room.replace(to, both, false).map(|()| ReplaceOrder::OldFirst),
            };
            match done {
                Ok(order) => {
                    return self.plan.actions.push(Action::Replace { path: self.of(instance), to, order });
                }
                Err(_) if lot.total >= self.max_instances && self.pop_kept() => return,
                Err(short) => {
                    self.kept.missing += u32::from(short.is_of_kept());
                    let why = short.why(Wish::Replace, 1);
                    self.instance_blocked(instance, why);
                }
            }
        }
    }

    /// Destroys a stopped instance of the pool that is only kept, to make way.
    fn pop_kept(&mut self) -> bool {
        let kept = self.kept.stopped.pop_if(|(_, path)| path.pool == *self.path);
        let found = kept.map(|(_, path)| self.plan.actions.push(Action::Destroy { path }));
        found.is_some()
    }

    fn of(&self, instance: &ActualInstance) -> InstancePath {
        self.path.instance(instance.id.clone())
    }

    fn short(&mut self, short: Short, wish: Wish, times: u32) {
        if short.is_of_kept() {
            self.kept.missing += times;
        }
        self.blocked(short.why(wish, times));
    }

    fn blocked(&mut self, why: Why) {
        self.plan.blocked.push(Blocked { path: self.path.to_string(), why });
    }

    fn instance_blocked(&mut self, instance: &ActualInstance, why: Why) {
        self.plan.blocked.push(Blocked { path: self.of(instance).to_string(), why });
    }
}

/// Takes what one bucket has too many of to fill another that lacks.
fn take_surplus<'a>(lot: &mut Lot<'a>, from: Bucket, to: Bucket) -> Vec<&'a ActualInstance> {
    let mut taken = Vec::new();
    while lot.lacks(to) > 0 {
        let Some(instance) = lot.surplus(from) else { break };
        lot.fill(to);
        taken.push(instance);
    }
    taken
}
