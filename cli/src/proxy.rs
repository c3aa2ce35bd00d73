//! `keelson proxy`: Services, cluster DNS and routes of this node as a process of its own, with its own identity.

use crate::node_certs::NodeFiles;
use crate::service::{self, Components, Signals};
use crate::{balancer, node, settings};
use anyhow::Result;
use keelson_daemon::config::Config;
use keelson_daemon::{Clock, Readiness};
use std::path::Path;
use std::time::Duration;

/// How often it is looked whether the identity is there.
const LOOK: Duration = Duration::from_millis(250);

/// Runs until SIGTERM or SIGINT. Rules stay in force.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::take()?;
    let node = node::identify(&config.node)?;
    let identity = NodeFiles::of(&config).proxy;
    // Before there is an identity: the kubelet gets this node's through it.
    let servers = balancer::start(&config, &node).await?;
    tokio::select! {
        () = there(&identity) => {}
        () = signals.wait() => return Ok(()),
    }
    let mut components = Components::new(Clock::system(), Readiness::default());
    let drain = components.context.drain.clone();
    let client =
        keelson_client::named(keelson_client::following(&identity, drain.clone()).await?, "kube-proxy");
    if let Some(servers) = servers {
        let (client, file) = (client.clone(), balancer::file(&config));
        components.spawn(balancer::follow(client, file, servers, drain.clone()));
    }
    let settings = settings::proxy(&config, &node);
    components.start("proxy", move |context| keelson_proxy::run(client.clone(), settings.clone(), context));
    components.spawn(service::report(components.context.readiness.clone(), drain, || async { true }));
    signals.wait().await;
    service::stopping();
    components.stop().await;
    Ok(())
}

/// The kubelet asks for the proxy's certificate and writes it.
async fn there(identity: &Path) {
    let mut told = false;
    while !identity.exists() {
        if !std::mem::replace(&mut told, true) {
            tracing::info!(path = %identity.display(), "waiting until the kubelet has got the proxy's certificate");
        }
        tokio::time::sleep(LOOK).await;
    }
}
