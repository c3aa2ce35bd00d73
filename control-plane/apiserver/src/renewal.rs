//! Renews the server's certificates while it runs, so that a machine that is never restarted never stops answering.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use keelson_pki::{ClusterPki, EnsureError, TlsError};
use rustls::{ClientConfig, ServerConfig};

use crate::core::Core;

/// The longest time between two looks.
const EVERY: Duration = Duration::from_secs(12 * 3600);

/// Why certificates could not be renewed; the next look tries again, and two thirds of their life are left for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("the certificates cannot be renewed")]
    Ensure(#[from] EnsureError),
    #[error("the renewed certificates cannot be used")]
    Tls(#[from] TlsError),
    #[error("the renewal was given up")]
    Stopped,
}

/// The server's side, for clients; they may show certificates of the cluster's authority.
pub fn serving(pki: &ClusterPki) -> Result<ServerConfig, TlsError> {
    keelson_pki::server_config(pki.apiserver.chain(), pki.apiserver.key(), &[pki.ca.certificate().clone()])
}

/// The server's side towards kubelets. Relays speak HTTP/1.1: upgrades need it.
pub fn towards_kubelets(pki: &ClusterPki) -> Result<ClientConfig, TlsError> {
    let identity = (pki.kubelet_client.chain(), pki.kubelet_client.key());
    let mut config = keelson_pki::client_config(&[pki.ca.certificate().clone()], Some(identity))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Runs until the server stops. New connections get the renewed certificate; open ones are not touched.
pub async fn run(core: Arc<Core>, mut pki: Arc<ClusterPki>, tls: Arc<ArcSwap<ServerConfig>>) {
    let every = keelson_pki::look_every(pki.params.life, EVERY);
    loop {
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = core.stop.cancelled() => return,
        }
        match once(&core, &pki, &tls, core.clock.now()).await {
            Ok(Some(renewed)) => pki = renewed,
            Ok(None) => {}
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, source, "renewing certificates");
            }
        }
    }
}

/// One look at `now`.
pub(crate) async fn once(
    core: &Core,
    pki: &Arc<ClusterPki>,
    tls: &ArcSwap<ServerConfig>,
    now: Timestamp,
) -> Result<Option<Arc<ClusterPki>>, RenewError> {
    let known = pki.clone();
    // Keys and files: not on the threads that answer requests.
    let renewed =
        tokio::task::spawn_blocking(move || known.renew(now)).await.map_err(|_| RenewError::Stopped)??;
    let Some(renewed) = renewed else { return Ok(None) };
    tls.store(Arc::new(serving(&renewed)?));
    core.kubelets.tls.store(Arc::new(towards_kubelets(&renewed)?));
    tracing::info!("certificates renewed");
    Ok(Some(Arc::new(renewed)))
}
