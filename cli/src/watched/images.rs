//! The folder of image archives: what lies there is in the runtime, pinned. The package's own folder is one too, so that what
//! the runtime lost is there again after a start.

use super::{Notices, Stamp, archive, back_off, files};
use crate::install::containerd::{self, Import};
use crate::install::ledger::{Entry, Ledger};
use crate::install::run;
use anyhow::{Context as _, Result};
use futures::{StreamExt as _, stream};
use keelson_daemon::Context;
use keelson_daemon::config::Config;
use keelson_kubelet::cri::Cri;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where packages put archives.
const PACKAGED: &str = "/usr/share/keelson/images";
/// How notes of imports under way are told from init's.
const BY: &str = "images";
/// How many archives are imported at a time: the runtime reads, hashes and unpacks each on little more than one core.
const AT_ONCE: usize = 2;
const ENDS: [&str; 3] = [".tar", ".tar.gz", ".tgz"];
/// Without a notice nothing is looked at but once a day.
const IDLE: Duration = Duration::from_secs(86_400);

/// What was taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    archives: BTreeMap<PathBuf, Archive>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Archive {
    stamp: Stamp,
    images: Vec<String>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    import: Vec<(PathBuf, Stamp)>,
    /// Images that no archive brings any more.
    remove: Vec<String>,
    forget: Vec<PathBuf>,
}

/// Compares the folders with what was taken in and with the names that the runtime knows.
fn plan(found: &BTreeMap<PathBuf, Stamp>, taken: &Taken, known: &BTreeSet<String>) -> Plan {
    let mut plan = Plan::default();
    for (path, stamp) in found {
        let there = taken.archives.get(path).is_some_and(|archive| {
            archive.stamp == *stamp && archive.images.iter().all(|image| known.contains(image))
        });
        if !there {
            plan.import.push((path.clone(), *stamp));
        }
    }
    let gone = |path: &PathBuf| !found.contains_key(path);
    let kept: BTreeSet<&String> = taken
        .archives
        .iter()
        .filter(|(path, _)| !gone(path))
        .flat_map(|(_, archive)| &archive.images)
        .collect();
    for (path, archive) in taken.archives.iter().filter(|(path, _)| gone(path)) {
        plan.forget.push(path.clone());
        plan.remove.extend(archive.images.iter().filter(|image| !kept.contains(image)).cloned());
    }
    plan.remove.sort();
    plan.remove.dedup();
    plan
}

/// Keeps the runtime in step until the drain.
pub async fn keep(config: Config, context: Context) -> Result<()> {
    let own = config.kubelet.image_archives.clone();
    keelson_pki::ensure_dir(&own, 0o755)?;
    let folders = vec![own, PathBuf::from(PACKAGED)];
    let mut notices = Notices::of(folders.clone());
    let mut failures = 0;
    loop {
        let failed = match context.drain.until(step(&config, &folders)).await {
            None => return Ok(()),
            Some(Ok(failed)) => failed,
            Some(Err(error)) => vec![format!("{error:#}")],
        };
        for error in &failed {
            tracing::warn!(error, "the folders of images and the runtime are not in step; trying again");
        }
        failures = if failed.is_empty() { 0 } else { failures + 1 };
        let limit = if failures == 0 { IDLE } else { back_off(failures - 1) };
        if notices.wait(limit, &context.drain).await.is_none() {
            return Ok(());
        }
    }
}

/// One pass. What could not be done.
async fn step(config: &Config, folders: &[PathBuf]) -> Result<Vec<String>> {
    let state = config.paths.state.join("images.json");
    let mut taken: Taken = match std::fs::read(&state) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Taken::default(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", state.display())),
    };
    let before = taken.clone();
    let found = files(folders, &ENDS);
    if found.is_empty() && taken.archives.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = Runtime::of(config);
    runtime.begin_anew(config, &mut taken).await?;
    let plan = plan(&found, &taken, &runtime.known().await?);
    let mut failed = Vec::new();
    for (path, stamp, outcome) in runtime.import(config, plan.import).await? {
        match outcome {
            Ok(images) => {
                tracing::info!(path = %path.display(), ?images, "an archive of images was imported");
                taken.archives.insert(path, Archive { stamp, images });
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    for image in plan.remove {
        match runtime.remove(config, &image).await {
            Ok(()) => tracing::info!(image, "an image went with its archive"),
            Err(error) => failed.push(format!("image {image}: {error:#}")),
        }
    }
    for path in plan.forget {
        taken.archives.remove(&path);
    }
    if taken != before {
        keelson_pki::write_atomic(&state, &serde_json::to_vec_pretty(&taken)?, 0o644)?;
    }
    Ok(failed)
}

/// containerd through its own program, which imports archives; CRI cannot.
struct Runtime {
    socket: String,
}

impl Runtime {
    fn of(config: &Config) -> Runtime {
        Runtime { socket: config.kubelet.cri_socket.to_string_lossy().into_owned() }
    }

    async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let mut all =
            vec!["--address".to_owned(), self.socket.clone(), "--namespace".into(), "k8s.io".into()];
        all.extend(arguments.iter().map(|one| (*one).to_owned()));
        tokio::task::spawn_blocking(move || {
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            run("ctr", &all)
        })
        .await?
    }

    async fn known(&self) -> Result<BTreeSet<String>> {
        Ok(self.digests().await?.into_keys().collect())
    }

    /// Names, each with the digest that it stands for.
    async fn digests(&self) -> Result<BTreeMap<String, String>> {
        Ok(containerd::names(&self.ctr(&["images", "list"]).await?))
    }

    /// Takes a name away, and the image with its last name. CRI takes all names of an image at once, so it is for that only.
    async fn remove(&self, config: &Config, name: &str) -> Result<()> {
        let names = self.digests().await?;
        let Some(digest) = names.get(name) else { return Ok(()) };
        let others =
            names.iter().any(|(other, its)| its == digest && other != name && !other.starts_with("sha256:"));
        if others {
            return self.ctr(&["images", "rm", name]).await.map(drop);
        }
        Ok(Cri::new(&config.kubelet.cri_socket)?.remove_image(name).await?)
    }

    /// Imports archives, some at a time, under one note; what became of each.
    async fn import(
        &self,
        config: &Config,
        archives: Vec<(PathBuf, Stamp)>,
    ) -> Result<Vec<(PathBuf, Stamp, Result<Vec<String>>)>> {
        if archives.is_empty() {
            return Ok(Vec::new());
        }
        let named = tokio::task::spawn_blocking(move || {
            let with_names = |(path, stamp): (PathBuf, Stamp)| {
                let names = archive::names(&path);
                (path, stamp, names)
            };
            archives.into_iter().map(with_names).collect::<Vec<_>>()
        })
        .await?;
        let all: Vec<String> =
            named.iter().filter_map(|(_, _, names)| names.as_ref().ok()).flatten().cloned().collect();
        let state = config.paths.state.clone();
        let ledger = Ledger::of(&state);
        for name in &all {
            ledger.note(Entry::Image { name: name.clone() })?;
        }
        let under_way = Import::begin(&state, BY, &all)?;
        let bring = |(path, stamp, names): (PathBuf, Stamp, Result<Vec<String>>)| async move {
            let brought = match names {
                Ok(names) => self.bring(&path, names).await,
                Err(error) => Err(error),
            };
            (path, stamp, brought)
        };
        let brought = stream::iter(named).map(bring).buffered(AT_ONCE).collect().await;
        // After a failure too: it was no power cut, and what other archives brought by the same names is whole.
        tokio::task::spawn_blocking(move || under_way.end()).await??;
        Ok(brought)
    }

    async fn bring(&self, path: &Path, names: Vec<String>) -> Result<Vec<String>> {
        self.ctr(&["images", "import", &path.to_string_lossy()]).await?;
        for name in &names {
            // Never collected: there may be no registry that it could come back from.
            let pinned = self.ctr(&["images", "label", name, "io.cri-containerd.pinned=pinned"]).await;
            pinned.with_context(|| format!("{} did not bring {name}", path.display()))?;
        }
        Ok(names)
    }

    /// What a power cut fell into comes anew: removed whole, and no longer counted as taken in.
    async fn begin_anew(&self, config: &Config, taken: &mut Taken) -> Result<()> {
        let unfinished = Import::unfinished(&config.paths.state, BY);
        if unfinished.is_empty() {
            return Ok(());
        }
        tracing::warn!(images = ?unfinished, "an import of images was cut short; they are imported anew");
        keelson_kubelet::unflushed::remove(&Cri::new(&config.kubelet.cri_socket)?, &unfinished).await?;
        // Those that CRI does not know, because they are not whole.
        for name in containerd::same(&self.digests().await?, &unfinished) {
            self.ctr(&["images", "remove", "--sync", &name]).await?;
        }
        taken.archives.retain(|_, archive| !archive.images.iter().any(|image| unfinished.contains(image)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_follows_the_folder() {
        let stamp = |bytes| Stamp { bytes, modified: 1 };
        let archive = |bytes, images: &[&str]| Archive {
            stamp: stamp(bytes),
            images: images.iter().map(|image| (*image).to_owned()).collect(),
        };
        let found: BTreeMap<PathBuf, Stamp> = [("same", 1), ("changed", 2), ("new", 3), ("lost", 4)]
            .map(|(name, bytes)| (name.into(), stamp(bytes)))
            .into();
        let taken = Taken {
            archives: [
                ("same", archive(1, &["a", "b"])),
                ("changed", archive(1, &["c"])),
                ("lost", archive(4, &["d"])),
                ("gone", archive(5, &["b", "e"])),
            ]
            .map(|(name, archive)| (name.into(), archive))
            .into(),
        };
        let known = ["a", "b", "c", "e"].map(str::to_owned).into();
        let plan = plan(&found, &taken, &known);
        let import: Vec<&str> = plan.import.iter().filter_map(|(path, _)| path.to_str()).collect();
        assert_eq!(import, ["changed", "lost", "new"]);
        assert_eq!(plan.remove, ["e"], "another archive still brings b");
        assert_eq!(plan.forget, [PathBuf::from("gone")]);
    }
}
