//! Which store the configuration names.

use crate::{snapshot, upgrade};
use anyhow::{Context as _, Result};
use keelson_daemon::config::{Config, EtcdSection};
use keelson_store::{EtcdOptions, EtcdStore, EtcdTls, OpenError, ReopeningStore, SqliteOptions, Store};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often it is looked whether the certificates towards etcd have changed.
const LOOK_AT_IDENTITY: Duration = Duration::from_secs(30);

/// Opens etcd where its endpoints are named, else the SQLite file in the state folder.
pub async fn open(config: &Config) -> Result<Arc<dyn Store>> {
    let retention = config.api_server.history_retention;
    if let Some(section) = &config.etcd {
        let mut options = etcd_options(section)?;
        options.compact_every = Some(retention);
        let store = EtcdStore::open(options).await.context("the database in etcd cannot be opened")?;
        let store = Arc::new(store);
        tokio::spawn(follow_identity(Arc::downgrade(&store), section.clone()));
        return Ok(store);
    }
    let mut options = SqliteOptions::new(config.paths.database());
    options.retention = retention;
    options.check = true;
    // Boxed: with etcd a snapshot opens a store, which this compiler cannot tell never comes here.
    Box::pin(upgrade::before_opening(config)).await;
    match ReopeningStore::open(options.clone(), end_damaged) {
        Err(OpenError::Format { .. }) if upgrade::back::finish(config)? => {
            tracing::info!(
                "the newer program has taken the database to the format of this one, on the way back"
            );
        }
        Err(error) if error.is_damage() => {
            let note = snapshot::rescue::from_snapshot(config, &error.to_string()).await?;
            tracing::error!(note, "the database was damaged; a snapshot is in its place");
        }
        opened => return Ok(Arc::new(opened.context("the database cannot be opened")?)),
    }
    let again = ReopeningStore::open(options, end_damaged);
    Ok(Arc::new(again.context("the database that was put in order cannot be opened")?))
}

/// A database that broke while it was served is the next start's to mend, which has everything that this takes.
fn end_damaged(error: &keelson_store::OpenError) {
    tracing::error!(
        %error,
        "the database broke while it was served: this process ends; when keelson is started again it puts the newest \
         snapshot in its place and keeps the broken file aside"
    );
    std::process::exit(1);
}

/// Hands the store the certificates towards etcd when their file has changed, while there is a store.
async fn follow_identity(store: Weak<EtcdStore>, section: EtcdSection) {
    let changed_at = || std::fs::metadata(&section.cert_file).and_then(|meta| meta.modified()).ok();
    let mut seen = changed_at();
    loop {
        tokio::time::sleep(LOOK_AT_IDENTITY).await;
        let Some(store) = store.upgrade() else { return };
        let now = changed_at();
        if now.is_none() || now == seen {
            continue;
        }
        let taken = async {
            let options = etcd_options(&section)?;
            store.renew(options.tls.as_ref().context("no certificates")?).await.context("not usable")
        };
        match taken.await {
            Ok(()) => {
                seen = now;
                tracing::info!("the certificates towards etcd are read again");
            }
            // The key may be about to be written too.
            Err(error) => {
                tracing::warn!(error = %format!("{error:#}"), "the new certificates towards etcd are not used");
            }
        }
    }
}

pub fn etcd_options(section: &EtcdSection) -> Result<EtcdOptions> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let tls = EtcdTls {
        ca: read(&section.ca_file)?,
        identity: Some((read(&section.cert_file)?, read(&section.key_file)?)),
    };
    Ok(EtcdOptions::new(section.endpoints.clone(), Some(tls)))
}
