//! A pool's instances, told apart by what may be done with them.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::actual::{ActualInstance, ActualPool};
use crate::fleet::desired::{Counts, Pool};
use crate::fleet::policy::Bucket;
use crate::fleet::state::InstanceState;

/// The instances of one pool. Every instance that counts is counted in one bucket; those of `free`,
/// `returning` and the lists below may be touched, the others not.
pub(super) struct Lot<'a> {
    counted: [u32; 3],
    wished: [u32; 3],
    /// In their bucket; the ones best kept first.
    free: [VecDeque<&'a ActualInstance>; 3],
    /// Woken, with a lease that lapsed, and not yet back in the bucket they count in.
    returning: [Vec<(&'a ActualInstance, Bucket)>; 3],
    /// Neither running, warm nor asleep, and fit to be started; the ones best started first.
    pub(super) spare: VecDeque<&'a ActualInstance>,
    /// Failed, to be started again later.
    pub(super) waiting: VecDeque<&'a ActualInstance>,
    /// Never to be started again.
    pub(super) over: Vec<&'a ActualInstance>,
    /// How many there are of any kind.
    pub(super) total: u64,
}

impl<'a> Lot<'a> {
    /// Sorts a pool's instances. `is_old` tells those of an earlier revision or other resources.
    pub(super) fn sort(
        actual: &'a ActualPool,
        pool: &Pool,
        is_old: impl Fn(&ActualInstance) -> bool,
        now_ms: i64,
    ) -> Self {
        let mut lot = Self::empty(&pool.desired_counts);
        lot.total = actual.instances.len() as u64;
        let mut held = [0; 3];
        let mut held_at_rest = 0;
        for instance in &actual.instances {
            let bucket = Bucket::of(instance.state);
            // A lapsed lease that led upwards: the instance belongs where it came from.
            let lapsed = instance.lease.map(|lease| lease.from);
            let home = lapsed.filter(|from| bucket.is_some_and(|bucket| bucket < *from));
            if instance.state == InstanceState::Destroyed {
                lot.over.push(instance);
            } else if let Some(lease) = instance.leased(now_ms) {
                lot.counted[lease.from as usize] += 1;
            } else if instance.held(now_ms).is_some() {
                match bucket {
                    Some(bucket) => held[bucket as usize] += 1,
                    None => held_at_rest += 1,
                }
            } else if let Some(home) = home {
                lot.counted[home as usize] += 1;
                bucket.into_iter().for_each(|bucket| lot.returning[bucket as usize].push((instance, home)));
            } else if let Some(bucket) = bucket {
                lot.counted[bucket as usize] += 1;
                lot.free[bucket as usize].push_back(instance);
            } else if is_old(instance) {
                lot.over.push(instance);
            } else if instance.retry_at_ms.is_some_and(|retry| now_ms < retry) {
                lot.waiting.push_back(instance);
            } else {
                lot.spare.push_back(instance);
            }
        }
        lot.count_held(held, held_at_rest);
        for free in &mut lot.free {
            free.make_contiguous().sort_by_cached_key(|instance| {
                let busy =
                    instance.activity.map(|activity| (activity.connections > 0, activity.last_work_ms));
                (is_old(instance), Reverse(busy), instance.since_ms, &instance.id)
            });
        }
        // Those with the most recent work first; what never ran last.
        lot.spare.make_contiguous().sort_by_cached_key(|i| (rank(i.state), Reverse(i.since_ms), &i.id));
        lot
    }

    fn empty(counts: &Counts) -> Self {
        Self {
            counted: [0; 3],
            wished: Bucket::ALL.map(|bucket| bucket.wished(counts)),
            free: Default::default(),
            returning: Default::default(),
            spare: VecDeque::new(),
            waiting: VecDeque::new(),
            over: Vec::new(),
            total: 0,
        }
    }

    /// A held instance that is not wanted where a person's command left it stands in for one that is
    /// wanted elsewhere: what the person did is not undone by a replacement.
    fn count_held(&mut self, held: [u32; 3], at_rest: u32) {
        let mut stand_ins = at_rest;
        for (i, held) in held.into_iter().enumerate() {
            self.counted[i] += held;
            let surplus = self.counted[i].saturating_sub(self.wished[i]).min(held);
            self.counted[i] -= surplus;
            stand_ins += surplus;
        }
        for i in 0..3 {
            let filled = self.wished[i].saturating_sub(self.counted[i]).min(stand_ins);
            self.counted[i] += filled;
            stand_ins -= filled;
        }
    }

    /// How many a bucket lacks.
    pub(super) fn lacks(&self, bucket: Bucket) -> u32 {
        self.wished[bucket as usize].saturating_sub(self.counted[bucket as usize])
    }

    /// Whether a bucket has a free one too many.
    fn has_surplus(&self, bucket: Bucket) -> bool {
        let i = bucket as usize;
        self.counted[i] > self.wished[i] && !self.free[i].is_empty()
    }

    /// Counts one more in a bucket.
    pub(super) fn fill(&mut self, bucket: Bucket) {
        self.counted[bucket as usize] += 1;
    }

    /// The free one of a bucket that is best used elsewhere, if there is one; `whole` takes it even
    /// where it is wanted.
    pub(super) fn promotable(&self, bucket: Bucket, whole: bool) -> Option<&'a ActualInstance> {
        let free = &self.free[bucket as usize];
        free.front().filter(|_| whole || self.has_surplus(bucket)).copied()
    }

    /// Takes away what [`promotable`](Self::promotable) found.
    pub(super) fn promote(&mut self, from: Bucket, to: Bucket) {
        self.free[from as usize].pop_front();
        self.counted[from as usize] -= 1;
        self.fill(to);
    }

    /// Takes the surplus one of a bucket that is missed least.
    pub(super) fn surplus(&mut self, bucket: Bucket) -> Option<&'a ActualInstance> {
        let found = self.has_surplus(bucket).then(|| self.free[bucket as usize].pop_back()).flatten();
        self.counted[bucket as usize] -= u32::from(found.is_some());
        found
    }

    /// Takes one that is on its way back to rest and is now in a bucket.
    pub(super) fn returning(&mut self, bucket: Bucket) -> Option<&'a ActualInstance> {
        let (instance, home) = self.returning[bucket as usize].pop()?;
        self.counted[home as usize] -= 1;
        Some(instance)
    }

    /// Lets those that are on their way back to rest stay, as far as they are wanted where they are.
    pub(super) fn keep_returning(&mut self, bucket: Bucket) {
        while self.lacks(bucket) > 0 {
            let Some(instance) = self.returning(bucket) else { break };
            self.fill(bucket);
            self.free[bucket as usize].push_back(instance);
        }
    }

    /// Those that are on their way back to rest, with the bucket they belong to.
    pub(super) fn all_returning(&mut self) -> Vec<(&'a ActualInstance, Bucket)> {
        std::mem::take(&mut self.returning).concat()
    }

    /// The free ones of a bucket.
    pub(super) fn free(&self, bucket: Bucket) -> impl DoubleEndedIterator<Item = &'a ActualInstance> + '_ {
        self.free[bucket as usize].iter().copied()
    }
}

fn rank(state: InstanceState) -> u8 {
    match state {
        InstanceState::Stopped => 0,
        InstanceState::Failed => 1,
        _ => 2,
    }
}
