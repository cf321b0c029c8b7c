use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::world::*;
use crate::fleet::desired::{Counts, DesiredState, Quotas, Resources};
use crate::fleet::ids::{InstancePath, PoolPath};
use crate::fleet::plan::action::Action;
use crate::fleet::plan::actual::{Actual, ActualInstance, Lease};
use crate::fleet::plan::plan;
use crate::fleet::policy::{Activity, Bucket};
use crate::fleet::state::InstanceState;

/// Longer than any time that a state lasts or a lease or a pause takes here, ms.
const LATER: i64 = 3_600_000;

fn times() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(NOW)), 1 => Just(Some(NOW + 1)), 1 => Just(Some(NOW + 60_000))]
}

prop_compose! {
    fn some_instance()(
        state in select(&InstanceState::ALL[..]), since in 0i64..60_000, build in select(vec!["r0", "r1", "r1"]),
        mem_mib in select(vec![256u32, 256, 512]), retry_at_ms in times(), until in times(),
        from in select(&Bucket::ALL[..]), held_until_ms in times(), connections in 0u32..2,
    ) -> ActualInstance {
        ActualInstance {
            since_ms: NOW - since,
            build: build.into(),
            resources: Resources { mem_mib, ..Resources::default() },
            retry_at_ms,
            lease: until.map(|until_ms| Lease { until_ms, from }),
            held_until_ms,
            activity: Some(Activity { connections, cpu_permille: 0, last_work_ms: 0 }),
            ..instance(0, state)
        }
    }
}

prop_compose! {
    fn some_quotas()(
        max_vcpus in 1u32..16, max_mem_mib in 256u64..4096, max_running in 0u32..8, max_warm in 0u32..4,
        max_instances_per_pool in 1u32..8, max_disk_gib in 1u64..16, max_pools in 1u32..4,
    ) -> Quotas {
        Quotas { max_vcpus, max_mem_mib, max_running, max_warm, max_pools, max_instances_per_pool, max_disk_gib }
    }
}

fn ample() -> impl Strategy<Value = Quotas> {
    let quotas = Quotas::default();
    Just(Quotas {
        max_vcpus: 1000,
        max_mem_mib: 1 << 20,
        max_running: 100,
        max_instances_per_pool: 100,
        ..quotas
    })
}

prop_compose! {
    fn some_pool()(
        running in 0u32..4, warm in 0u32..3, sleeping in 0u32..3, pinned: bool, critical: bool,
        instances in prop::collection::vec(some_instance(), 0..7), is_known in prop::bool::weighted(0.9),
        build in prop_oneof![4 => Just(Some("f")), 1 => Just(None), 1 => Just(Some("before"))],
        retries in (times(), times()), held in prop_oneof![5 => Just(None), 1 => Just(Some(NOW + 1))],
    ) -> (Counts, bool, bool, Vec<ActualInstance>, bool, Option<&'static str>, (Option<i64>, Option<i64>), Option<i64>) {
        (Counts { running, warm, sleeping }, pinned, critical, instances, is_known, build, retries, held)
    }
}

/// Facts of any kind: a tenant with some pools, one that is not wanted, one that is not known.
fn anything(quotas: impl Strategy<Value = Quotas>) -> impl Strategy<Value = (DesiredState, Actual)> {
    (prop::collection::vec(some_pool(), 1..4), quotas, any::<(bool, bool)>(), 0usize..2).prop_map(
        |(pools, quotas, (prune_tenants, prune_pools), unwanted)| {
            let mut state = web(0, 0, 0);
            (state.prune_unknown_tenants, state.prune_unknown_pools) = (prune_tenants, prune_pools);
            let mut actual = Actual { tenants: vec![recorded(&state.tenants[0])] };
            let template = state.tenants[0].pools.pop().unwrap();
            let mut known = actual.tenants[0].pools.pop().unwrap();
            let mut number = 0;
            for (index, pool) in pools.into_iter().enumerate() {
                let (counts, pinned, critical, mut instances, is_known, build, retries, held) = pool;
                let mut wanted = template.clone();
                wanted.pool_id = format!("p{index}").parse().unwrap();
                (wanted.desired_counts, wanted.pinned, wanted.critical) = (counts, pinned, critical);
                for instance in &mut instances {
                    number += 1;
                    instance.id = id(number);
                }
                known.pool = wanted.clone();
                known.build = build.and_then(|flake| {
                    let mut revision = built(&wanted, "r1")?;
                    revision.source.flake_ref = flake.into();
                    Some(revision)
                });
                (known.build_retry_at_ms, known.retry_at_ms) = retries;
                known.held_until_ms = held;
                known.instances = instances;
                if is_known {
                    actual.tenants[0].pools.push(known.clone());
                }
                if index >= unwanted || !is_known {
                    state.tenants[0].pools.push(wanted);
                }
            }
            state.tenants[0].quotas = quotas;
            (state, actual)
        },
    )
}

/// Plans, carries out and lets time go by until there is nothing to do; how many plans that took.
fn settle(state: &DesiredState, world: &mut World, most: usize) -> Result<usize, TestCaseError> {
    for round in 0..most {
        let plan = plan(state, &world.actual, world.now_ms);
        if plan.is_empty() {
            return Ok(round);
        }
        plan.actions.iter().for_each(|action| world.apply(action, &mut |_| {}));
        world.now_ms += LATER;
    }
    let last = plan(state, &world.actual, world.now_ms);
    Err(TestCaseError::fail(format!("no end after {most} plans: {last}\n{state:?}\n{:?}", world.actual)))
}

/// The instance that an action touches.
fn touched(action: &Action) -> Option<&InstancePath> {
    match action {
        Action::Wake { path, .. }
        | Action::Resume { path }
        | Action::Start { path, .. }
        | Action::Stop { path }
        | Action::Warm { path }
        | Action::Sleep { path }
        | Action::Replace { path, .. }
        | Action::Destroy { path } => Some(path),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn carrying_plans_out_comes_to_an_end((state, actual) in anything(some_quotas())) {
        settle(&state, &mut World::new(actual), 60)?;
    }

    #[test]
    fn with_room_enough_the_counts_and_revisions_are_what_was_wished((mut state, mut actual) in anything(ample())) {
        // What is in use for ever is never where it is wished to be.
        state.tenants[0].pools.iter_mut().for_each(|pool| pool.pinned = false);
        let instances = actual.tenants[0].pools.iter_mut().flat_map(|pool| &mut pool.instances);
        instances.filter_map(|instance| instance.activity.as_mut()).for_each(|activity| activity.connections = 0);
        let mut world = World::new(actual);
        settle(&state, &mut world, 60)?;
        // Leases, holds and pauses are over.
        world.now_ms += LATER;
        settle(&state, &mut world, 60)?;
        for wished in &state.tenants[0].pools {
            let pools = &world.actual.tenants[0].pools;
            let pool = pools.iter().find(|pool| pool.pool.pool_id == wished.pool_id).unwrap();
            for bucket in Bucket::ALL {
                let count = pool.instances.iter().filter(|instance| instance.state == bucket.state()).count();
                prop_assert_eq!(count as u32, bucket.wished(&wished.desired_counts), "{:?}", pool);
            }
            let build = &pool.build.as_ref().unwrap().id;
            prop_assert!(pool.instances.iter().all(|instance| instance.build == *build), "{:?}", pool);
        }
    }

    #[test]
    fn a_plan_that_was_carried_out_is_followed_by_an_empty_one((mut state, mut actual) in anything(ample())) {
        (state.prune_unknown_tenants, state.prune_unknown_pools) = (false, false);
        // What is old is replaced one after the other, what was woken goes down in two steps.
        for pool in &mut actual.tenants[0].pools {
            pool.build = built(&pool.pool, "r1");
            for instance in &mut pool.instances {
                (instance.build, instance.resources, instance.lease) = ("r1".into(), Resources::default(), None);
            }
        }
        let mut world = World::new(actual);
        // Holds and pauses are over.
        world.now_ms += LATER;
        let first = plan(&state, &world.actual, world.now_ms);
        first.actions.iter().for_each(|action| world.apply(action, &mut |_| {}));
        world.now_ms += LATER;
        let second = plan(&state, &world.actual, world.now_ms);
        prop_assert!(second.is_empty() && second.blocked.is_empty(), "{}\n{}", first, second);
    }

    #[test]
    fn no_quota_is_exceeded_on_the_way((state, actual) in anything(some_quotas())) {
        let mut world = World::new(actual);
        let quotas = state.tenants[0].quotas;
        for _ in 0..4 {
            let plan = plan(&state, &world.actual, world.now_ms);
            for action in &plan.actions {
                let before = used(&world.actual.tenants[0], &quotas);
                let sizes: HashMap<_, _> = world.actual.tenants[0]
                    .pools
                    .iter()
                    .map(|pool| (pool.pool.pool_id.clone(), pool.instances.len()))
                    .collect();
                let mut fault = None;
                world.apply(action, &mut |actual| {
                    let tenant = &actual.tenants[0];
                    for ((name, before, most), (_, after, _)) in before.iter().zip(used(tenant, &quotas)) {
                        if after > *most && after > *before {
                            fault = Some(format!("{name}: {before} → {after} of {most}"));
                        }
                    }
                    for pool in &tenant.pools {
                        let (id, count) = (&pool.pool.pool_id, pool.instances.len());
                        let before = sizes.get(id).copied().unwrap_or(0);
                        if count > before && count > quotas.max_instances_per_pool as usize {
                            fault = Some(format!("{id}: {count} instances"));
                        }
                    }
                });
                prop_assert!(fault.is_none(), "{:?}: {}\n{}", action, fault.unwrap(), plan);
            }
            world.now_ms += 20_000;
        }
    }

    #[test]
    fn what_is_leased_held_or_young_is_not_touched((state, actual) in anything(some_quotas())) {
        let mut world = World::new(actual);
        let plan = plan(&state, &world.actual, NOW);
        let mut seen = HashSet::new();
        for action in &plan.actions {
            let Some(path) = touched(action) else { continue };
            prop_assert!(seen.insert(path.clone()), "touched twice: {}", plan);
            prop_assert!(world.pool(&path.pool).held_until_ms.is_none_or(|until| until <= NOW));
            let policy = world.pool(&path.pool).pool.runtime_policy;
            let pinned = world.pool(&path.pool).pool.pinned;
            let instance = world.instance(path).clone();
            if instance.state != InstanceState::Destroyed {
                prop_assert!(instance.leased(NOW).is_none() && instance.held(NOW).is_none(), "{:?}", action);
            }
            if let Action::Stop { .. } | Action::Warm { .. } | Action::Sleep { .. } | Action::Destroy { .. } = action {
                let least = match instance.state {
                    InstanceState::Running => policy.min_running_seconds,
                    InstanceState::Warm => policy.min_warm_seconds,
                    _ => 0,
                };
                prop_assert!(NOW - instance.since_ms >= least as i64 * 1000, "{:?}", action);
                let woken = instance.lease.is_some_and(|lease| {
                    Bucket::of(instance.state).is_some_and(|bucket| bucket < lease.from)
                });
                prop_assert!(!pinned || !woken, "{:?}", action);
            }
            if let Action::Start { .. } = action {
                prop_assert!(instance.retry_at_ms.is_none_or(|retry| retry <= NOW));
            }
        }
    }

    #[test]
    fn no_action_takes_running_ones_below_what_is_wished((state, actual) in anything(some_quotas())) {
        let mut world = World::new(actual);
        let plan = plan(&state, &world.actual, NOW);
        let running = |actual: &Actual, path: &PoolPath| {
            let pools = &actual.tenants[0].pools;
            let pool = pools.iter().find(|pool| pool.pool.pool_id == path.pool).unwrap();
            // What is in use or held may stand for one that runs.
            let stands = |i: &&ActualInstance| {
                i.leased(NOW).is_some() || i.held(NOW).is_some() && i.state != InstanceState::Destroyed
            };
            pool.instances.iter().filter(|i| i.state == InstanceState::Running || stands(i)).count()
        };
        for action in &plan.actions {
            let pool = touched(action).map(|path| path.pool.clone());
            let before = pool.as_ref().map(|path| running(&world.actual, path));
            let mut least = usize::MAX;
            world.apply(action, &mut |actual| {
                least = least.min(pool.as_ref().map_or(usize::MAX, |path| running(actual, path)));
            });
            if let (Some(path), Some(before)) = (&pool, before) {
                let wanted = state.tenants[0].pools.iter().find(|wanted| wanted.pool_id == path.pool);
                let wished = wanted.map_or(0, |wanted| wanted.desired_counts.running as usize);
                prop_assert!(least >= before.min(wished), "{:?}\n{}", action, plan);
            }
        }
        let mut replaced = HashSet::new();
        for action in &plan.actions {
            if let Action::Replace { path, .. } = action {
                prop_assert!(replaced.insert(&path.pool), "two at a time: {}", plan);
            }
        }
    }
}
