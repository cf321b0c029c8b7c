//! Build, then boot, as one task.

pub mod app;
pub mod boot;
pub mod builder;
pub mod dev;
pub mod follow;
pub mod gc;
pub mod machine;
pub mod past;
pub mod record;
pub mod replace;
pub mod request;
pub mod restart;
pub mod snapshot;
pub mod task;
pub mod watch;
pub mod wish;

use tokio_util::sync::CancellationToken;

use crate::event::EventSink;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::image::hold::InHand;
use crate::store::Store;
pub use crate::vm::shim::protocol::STOP_DEADLINE;
use crate::vm::spec::{VmName, VmSpec};
pub use boot::{RunError, Running, boot};
use boot::{machine_for, refuse_taken, spec};
pub use request::RunRequest;

/// Builds the flake and boots the result until the guest is ready.
pub async fn run(
    request: &RunRequest,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    if let Some(name) = &request.name {
        refuse_taken(store, name)?;
    }
    let (spec, notes, _held) = built(request, paths, store, sink, cancel).await?;
    notes.into_iter().for_each(|note| sink.info(note));
    boot(paths, store, spec, request.name.is_some(), sink, cancel).await
}

/// Builds the flake; gives what is to be booted, and what the user may want to know of the machine, and what
/// keeps the build until the VM is recorded.
async fn built(
    request: &RunRequest,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(VmSpec, Vec<String>, Lock), RunError> {
    let machine = machine_for(&request.config, paths).await?;
    let InHand { artifacts, held } =
        builder::build(&request.build, request.builder, paths, store, sink, cancel).await?;
    let name = request.name.clone().unwrap_or_else(|| VmName::near(&request.build.flake.short_name()));
    let spec = VmSpec {
        role: request.build.role.clone(),
        remove: request.remove,
        cold: request.cold,
        started_by: request.started_by,
        ..spec(&request.config, name, &artifacts, &machine)?
    };
    Ok((spec, machine.notes, held))
}
