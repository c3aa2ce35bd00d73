//! `keelson kubelet`: the kubelet as a process of its own, with its own identity.

use crate::install::alone;
use crate::node;
use crate::node_certs::{self, NodeFiles};
use crate::service::{self, Components, Signals};
use crate::settings::{self, ServingFiles};
use crate::watched;
use anyhow::Result;
use keelson_daemon::config::Config;
use keelson_daemon::{Clock, Readiness};

/// Runs until SIGTERM or SIGINT. Containers go on running.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::take()?;
    let node = node::identify(&config.node)?;
    alone::ensure(node.address)?;
    let clock = Clock::system();
    tokio::select! {
        made = node_certs::first_identity(&config, &node, &clock) => made?,
        () = signals.wait() => return Ok(()),
    }
    node_certs::ensure_serving(&config, &node, &clock)?;
    let files = NodeFiles::of(&config);
    let mut components = Components::new(clock.clone(), Readiness::default());
    let drain = components.context.drain.clone();
    let client =
        keelson_client::named(keelson_client::following(&files.kubelet, drain.clone()).await?, "kubelet");

    let serving =
        ServingFiles { cert: files.serving_cert(), key: files.serving_key(), client_ca: files.authority() };
    let settings = settings::kubelet(&config, &node, serving);
    let own = client.clone();
    components
        .start("kubelet", move |context| keelson_kubelet::run(Some(own.clone()), settings.clone(), context));
    let of_images = config.clone();
    components.start("images", move |context| watched::images::keep(of_images.clone(), context));
    components.start("certificates", move |context| {
        let (client, config, node) = (client.clone(), config.clone(), node.clone());
        let kept = node_certs::keep(client, config, node, context.clock, context.drain);
        async move { kept.await.map_err(|error| format!("{error:#}")) }
    });
    components.spawn(service::report(components.context.readiness.clone(), drain, || async { true }));
    signals.wait().await;
    service::stopping();
    components.stop().await;
    Ok(())
}
