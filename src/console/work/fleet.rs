//! Jobs on the fleet, as its commands do them.

use super::task::recorded;
use super::{Bench, FleetWish};
use crate::console::action::Turn;
use crate::event::{EventSink, TaskKind};
use crate::fleet::by_hand;
use crate::fleet::error::FleetError;
use crate::fleet::execute::Outcome;
use crate::fleet::ids::InstancePath;
use crate::fleet::record;
use crate::fleet::work::{AskedBy, Work};
use crate::run::task::Failure;
use crate::store::Store;

/// Does the work of a wish, as a task.
pub async fn perform(bench: &Bench, wish: FleetWish) -> Result<(), Failure> {
    let title = match &wish {
        FleetWish::Scale { path, .. } => format!("scale {path}"),
        FleetWish::Build(path) => format!("build the pool {path}"),
        FleetWish::Turn { path, turn } => format!("{} {path}", turn.as_str()),
        FleetWish::Destroy(path) => format!("destroy {path}"),
    };
    let _ = recorded(bench, TaskKind::Fleet, title, async |sink| {
        let mut store = Store::open(&bench.paths.database())?.store;
        let (paths, cancel) = (&bench.paths, &bench.cancel);
        let work = &mut Work { paths, store: &mut store, sink, cancel, asked_by: AskedBy::Person };
        match wish {
            FleetWish::Scale { path, counts } => {
                by_hand::set_counts(work.store, &path, counts)?;
                told(sink, &work.reach(&path).await?)
            }
            FleetWish::Build(path) => {
                let built = work.build_pool(&path, false, None).await?;
                sink.info(match built.changed {
                    true => format!("{} is the current revision now", built.build),
                    false => format!("{} was the current revision already", built.build),
                });
                Ok(())
            }
            FleetWish::Turn { path, turn } => Ok(turned(work, &path, turn).await?),
            FleetWish::Destroy(path) => {
                by_hand::hold_instance(work.store, &path)?;
                Ok(work.destroy(&path).await?)
            }
        }
    })
    // The task's last event tells how it went.
    .await;
    Ok(())
}

async fn turned(work: &mut Work<'_>, path: &InstancePath, turn: Turn) -> Result<(), FleetError> {
    by_hand::hold_instance(work.store, path)?;
    let turned = operate(work, path, turn).await;
    by_hand::hold_instance(work.store, path)?;
    turned
}

async fn operate(work: &mut Work<'_>, path: &InstancePath, turn: Turn) -> Result<(), FleetError> {
    let (tenant, pool) = record::find_pool(work.store, &path.pool)?;
    match turn {
        Turn::Wake => {
            let endpoint = work.wake(&tenant, &pool, path).await?;
            let there = endpoint.map(|endpoint| format!(" and answers at {endpoint}")).unwrap_or_default();
            work.sink.info(format!("{path} runs{there}"));
            Ok(())
        }
        Turn::Sleep => work.sleep(&pool.pool, path).await,
        Turn::Warm => work.warm(path).await,
        Turn::Start => work.start(&tenant, &pool, path).await,
        Turn::Stop => work.stop(&pool.pool, path).await,
    }
}

/// Tells what was planned and done; what failed is the task's failure.
fn told(sink: &EventSink, outcome: &Outcome) -> Result<(), Failure> {
    for plan in &outcome.plans {
        plan.to_string().lines().for_each(|line| sink.info(line));
    }
    match outcome.failed.as_slice() {
        [] => Ok(()),
        failed => Err(Failure { error: failed.join("\n"), tail: Vec::new(), cancelled: false, late: false }),
    }
}
