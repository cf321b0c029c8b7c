//! Jobs on the cluster of this machine, as its commands do them.

use super::task::recorded;
use super::{Bench, ClusterWish};
use crate::cluster::{down, init, status, up};
use crate::event::{EventSink, TaskKind};
use crate::run::task::Failure;
use crate::store::Store;

/// Does the work of a wish, as a task.
pub async fn perform(bench: &Bench, wish: ClusterWish) -> Result<(), Failure> {
    let title = match wish {
        ClusterWish::Up => "start the cluster",
        ClusterWish::Down => "end the cluster",
    };
    let _ = recorded(bench, TaskKind::Cluster, title.into(), async |sink| match wish {
        ClusterWish::Up => start(bench, sink).await,
        ClusterWish::Down => end(bench, sink).await,
    })
    // The task's last event tells how it went.
    .await;
    Ok(())
}

async fn start(bench: &Bench, sink: &EventSink) -> Result<(), Failure> {
    let (paths, cancel) = (&bench.paths, &bench.cancel);
    let mut store = Store::open(&paths.database())?.store;
    if !status::is_there(paths) {
        init::init(&init::Options::default(), paths, &store)?;
        sink.info(format!("its files are written, in {}", paths.cluster().display()));
    }
    let up = up::up(up::TIMEOUT, paths, &mut store, sink, cancel).await?;
    if up.started.is_empty() {
        sink.info("the cluster runs already");
    }
    Ok(())
}

async fn end(bench: &Bench, sink: &EventSink) -> Result<(), Failure> {
    let (paths, cancel) = (&bench.paths, &bench.cancel);
    let mut store = Store::open(&paths.database())?.store;
    let down = down::down(false, paths, &mut store, sink, cancel).await?;
    sink.info(match down == down::Down::default() {
        true => "nothing of the cluster runs".into(),
        false => format!("removed {} instances of {} pools", down.instances, down.pools.len()),
    });
    Ok(())
}
