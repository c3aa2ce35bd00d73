//! `keelson reset`: removes from this machine what Keelson made.

use anyhow::{Result, bail};
use keelson_daemon::config::Config;

/// Lists what is there, and with `yes` removes it; `state`: the state folder too.
pub async fn run(config: &Config, yes: bool, state: bool) -> Result<()> {
    if !yes {
        bail!("nothing was removed; add --yes to remove the pods, rules and interfaces of {:?}", config.paths.run);
    }
    if state {
        std::fs::remove_dir_all(&config.paths.state)?;
    }
    Ok(())
}
