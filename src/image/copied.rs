//! A build's directory with copies of what was built elsewhere. Its id is a digest of them: whoever built
//! cannot choose it.

use std::path::Path;

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::collect::{self, Beside, FILES, IMAGE_HELP, MAX_INFO};
use super::drvlog::is_store_path;
use super::elsewhere::Elsewhere;
use super::error::BuildError;
use crate::artifacts::{Artifacts, Manifest};

/// Copies the image in `manifest.store_path`; gives the build, and whether it was there already.
pub async fn copy(
    place: &dyn Elsewhere,
    mut manifest: Manifest,
    builds: &Path,
    cancel: &CancellationToken,
) -> Result<(Artifacts, bool), BuildError> {
    let out = manifest.store_path.clone();
    let wrong = |what: String| BuildError::Output { what, help: IMAGE_HELP };
    if !out.to_str().is_some_and(is_store_path) {
        return Err(wrong(format!("{} is no path in the Nix store", out.display())));
    }
    let beside = Beside::new(builds).map_err(BuildError::file("make", builds))?;
    let (info, kept) = (out.join("mvm.json"), beside.0.join("mvm.json"));
    let take = async |(name, required)| {
        let file = beside.0.join(name);
        if place.copy(&out.join(name), &file, collect::LARGEST).await? {
            return collect::describe(name, &file, cancel).await.map(Some);
        }
        let absent = wrong(format!("the output {} has no {name}", out.display()));
        if required { Err(absent) } else { Ok(None) }
    };
    let (files, _) =
        tokio::try_join!(try_join_all(FILES.into_iter().map(take)), place.copy(&info, &kept, MAX_INFO))?;
    manifest.files = files.into_iter().flatten().collect();
    let kernel = beside.0.join(FILES[0].0);
    if !collect::is_kernel(&kernel).map_err(BuildError::file("read", &kernel))? {
        return Err(wrong(format!(
            "{}/vmlinux is no kernel: neither ELF, bzImage nor arm64 Image",
            out.display()
        )));
    }
    manifest.image = collect::image_info(&beside.0)?;
    manifest.build = collect::id_of(&manifest.files, &manifest.image);
    let target = builds.join(&manifest.build);
    if let Some(artifacts) = collect::sound(&target) {
        return Ok((artifacts, true));
    }
    collect::publish(beside, &manifest, builds)?;
    Ok((Artifacts::open(&target).map_err(BuildError::file("read", target))?, false))
}
