//! The way back to an older version.
//!
//! The older package is put in place while the newer program still serves; then the control plane is stopped, this program,
//! the newer one, takes the database to the older format, and the older program is started. Should the machine stop in the
//! middle, the older program meets a database that it does not know: it calls the newer one, which lies in the state folder
//! from before the package was replaced until all is done.

use super::{Plan, comes_up, folder, in_etcd, missing_is_fine, restart_outdated};
use crate::install::progress::Progress;
use crate::install::{run, units};
use anyhow::{Context as _, Result};
use keelson_daemon::config::Config;
use keelson_store::sqlite;
use std::fs;
use std::path::{Path, PathBuf};

/// The newer program.
fn kept(config: &Config) -> PathBuf {
    folder(config).join("keelson")
}

/// The format that the older one reads.
fn wanted(config: &Config) -> PathBuf {
    folder(config).join("format")
}

pub(super) async fn apply(plan: &Plan, config: &Config, progress: Progress) -> Result<()> {
    let format = plan.target.format;
    anyhow::ensure!(
        format <= sqlite::FORMAT,
        "the database of {} has format {format}, which this program does not know: run the newer one's `keelson upgrade back`",
        plan.target.version
    );
    let converts = plan.control_plane && !in_etcd(config);
    // One that goes on after an interruption may be the older program already.
    let knows = plan.format.is_none_or(|found| found <= sqlite::FORMAT);
    if knows {
        plan.snapshot(config, progress).await?;
    }
    if converts && knows {
        progress.step("keeping the newer program until all is done", || keep(config, format))?;
    }
    plan.install(progress)?;
    if converts {
        convert_stopped(config, format, knows, progress).await?;
        forget(config)?;
    }
    restart_outdated(config, plan.control_plane, progress).await
}

/// Takes the database to the older format while the control plane is stopped, and starts that again.
async fn convert_stopped(config: &Config, format: i32, knows: bool, progress: Progress) -> Result<()> {
    let unit = [units::ALL_IN_ONE, units::CONTROL_PLANE].into_iter().find(|unit| units::started(unit));
    if let Some(unit) = unit {
        progress.step(&format!("stopping {unit}"), || run("systemctl", &["stop", unit]).map(drop))?;
    }
    let converted = progress.step("taking the database to the older format", || {
        if knows {
            return Ok(sqlite::convert(&config.paths.database(), format).map(drop)?);
        }
        anyhow::ensure!(
            finish(config)?,
            "the program that knows this database was not kept; install its package again"
        );
        Ok(())
    });
    if let Some(unit) = unit {
        run("systemctl", &["start", "--no-block", unit])?;
    }
    converted.context("the database stays as it is")?;
    match unit {
        Some(unit) => comes_up(config, unit, progress).await,
        None => Ok(()),
    }
}

/// Keeps the program that knows the database as it is now, and then notes the format that is wanted.
fn keep(config: &Config, format: i32) -> Result<()> {
    let (program, wanted) = (kept(config), wanted(config));
    keelson_pki::ensure_dir(&folder(config), 0o755)?;
    let own = std::env::current_exe().context("cannot tell which program this is")?;
    let temporary = program.with_extension("new");
    missing_is_fine(fs::remove_file(&temporary), &temporary)?;
    fs::hard_link(&own, &temporary)
        .or_else(|_| fs::copy(&own, &temporary).map(drop))
        .and_then(|()| fs::File::open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, &program))
        .with_context(|| format!("cannot keep {} as {}", own.display(), program.display()))?;
    keelson_pki::write_atomic(&wanted, format.to_string().as_bytes(), 0o644)
        .with_context(|| format!("cannot write {}", wanted.display()))
}

fn forget(config: &Config) -> Result<()> {
    for path in [wanted(config), kept(config)] {
        missing_is_fine(fs::remove_file(&path), &path)?;
    }
    missing_is_fine(fs::remove_dir(folder(config)), &folder(config))
}

/// For a program that meets a database of a newer format: on the way back the newer program, which was kept, takes it to the
/// format that this one knows. `false` where no way back was begun.
pub fn finish(config: &Config) -> Result<bool> {
    let program = kept(config);
    let wanted: Option<i32> =
        fs::read_to_string(wanted(config)).ok().and_then(|text| text.trim().parse().ok());
    if wanted.is_none_or(|format| format != sqlite::FORMAT) || !program.exists() {
        return Ok(false);
    }
    convert(&program, &config.paths.database())?;
    Ok(true)
}

fn convert(program: &Path, database: &Path) -> Result<()> {
    let (program, database) = (program.to_string_lossy(), database.to_string_lossy());
    let format = sqlite::FORMAT.to_string();
    run(&program, &["upgrade", "convert", &database, &format]).map(drop)
}
