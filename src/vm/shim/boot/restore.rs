//! From a snapshot to a guest that goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::booted::{Booted, wake};
use super::super::volumes::Volumes;
use super::super::{ShimError, save};
use super::{Start, fit};
use crate::vm::hypervisor::Launch;
use crate::vm::snapshot::Snapshot;
use crate::vm::snapshot::fit::Fit;

/// How long going on from a snapshot may take before the guest is booted in its place.
const RESTORE_DEADLINE: Duration = Duration::from_secs(20);

impl Start<'_> {
    /// Goes on from a ready snapshot. What is left of a failure is not in the way of a boot.
    pub(super) async fn restore(
        &mut self,
        snapshot: &Snapshot,
        volumes: &mut Volumes,
    ) -> Result<Booted, ShimError> {
        let restored = self.try_restore(snapshot, volumes).await;
        if restored.is_err() {
            self.forget_upper();
            self.lap = Instant::now();
        }
        restored
    }

    async fn try_restore(&mut self, snapshot: &Snapshot, volumes: &mut Volumes) -> Result<Booted, ShimError> {
        self.copy_disks(snapshot).await?;
        let mut booted = self.load(snapshot, volumes, RESTORE_DEADLINE).await?;
        let personalised = async {
            self.personalise(volumes, &mut booted).await?;
            self.ready(&mut booted).await
        };
        let personalised = personalised.await;
        if personalised.is_err() {
            // It may have ended by itself.
            drop(booted.hypervisor.child().kill().await);
        }
        personalised.map(|()| booted)
    }

    /// Goes on from the snapshot of a VM.
    pub(super) async fn go_on_from(&mut self, dir: &Path) -> Result<Booted, ShimError> {
        let snapshot = Snapshot::open(dir)?;
        let fit = fit(self.paths, self.prepared, &[]).await?;
        // The volumes come with it, or are a user's own: their files are looked at one by one.
        snapshot.check(&Fit { volumes: snapshot.manifest.fit.volumes.clone(), ..fit })?;
        self.copy_disks(&snapshot).await?;
        save::take_known_hosts(dir, self.prepared)?;
        let mut volumes = Volumes::make(self.paths, self.prepared).await?;
        let mut booted = self.load(&snapshot, &mut volumes, self.limit).await?;
        // It goes on as it was: it need not have been ready when it was saved.
        let late = self.late("did not wake");
        self.ask(&mut booted, late, async |agent| agent.request(wake()).await.map(drop)).await?;
        self.lap("wake").await;
        Ok(booted)
    }

    /// Gives the VM the disks of a snapshot. They may be large: the leash is minded meanwhile.
    async fn copy_disks(&mut self, snapshot: &Snapshot) -> Result<(), ShimError> {
        let (snapshot, to) = (snapshot.clone(), self.prepared.dir.clone());
        let copied = tokio::task::spawn_blocking(move || snapshot.copy_disks(&to));
        Ok(self.unless_abandoned(copied).await???)
    }

    /// Has a hypervisor go on from what was saved, until the agent is met.
    async fn load(
        &mut self,
        snapshot: &Snapshot,
        volumes: &mut Volumes,
        limit: Duration,
    ) -> Result<Booted, ShimError> {
        let how = Launch::Restore(&snapshot.dir);
        let mut booted = self.launch(volumes, how).await?;
        self.lap("spawn").await;
        let loaded = self.within(limit, async |start| {
            let late = start.late("did not load its snapshot");
            let loaded = async {
                booted.hypervisor.load(&snapshot.dir).await?;
                Ok(booted.hypervisor.resume().await?)
            };
            tokio::select! {
                loaded = loaded => loaded,
                _ = start.leash.detached() => Err(ShimError::Abandoned),
                () = tokio::time::sleep_until(start.deadline.into()) => Err(late),
            }?;
            start.meet_agent(&mut booted).await
        });
        if let Err(error) = loaded.await {
            // It may have ended by itself. What it had open, others can open then.
            drop(booted.hypervisor.child().kill().await);
            return Err(error);
        }
        self.lap("load").await;
        booted.restored = true;
        Ok(booted)
    }
}
