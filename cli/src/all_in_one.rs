//! `keelson all-in-one`: every component as a task of one process on one SQLite file.

use crate::control_plane::ControlPlane;
use crate::install::alone;
use crate::node;
use crate::service::{self, Components, Signals};
use crate::settings::{self, ServingFiles};
use crate::watched;
use anyhow::Result;
use keelson_base::consts::identity;
use keelson_daemon::config::Config;
use keelson_daemon::{Clock, Health, Readiness};

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::take()?;
    let node = node::identify(&config.node)?;
    alone::ensure(node.address)?;
    let clock = Clock::system();
    let readiness = Readiness::default();
    let health = Health::default();
    let control_plane = ControlPlane::start(&config, &node, &clock, &readiness, &health).await?;
    let mut components = Components::told(clock, readiness, health);
    control_plane.start_components(&mut components, &config);

    let user = format!("{}{}", identity::NODE_USER_PREFIX, node.name);
    let kubelet = control_plane.client(&user, &[identity::NODES_GROUP]);
    let pki = &control_plane.pki;
    let serving = ServingFiles {
        cert: pki.node_serving.cert_path.clone(),
        key: pki.node_serving.key_path.clone(),
        client_ca: pki.dir.join("ca.crt"),
    };
    let settings = settings::kubelet(&config, &node, serving);
    components.start("kubelet", move |context| {
        keelson_kubelet::run(Some(kubelet.clone()), settings.clone(), context)
    });
    let proxy = control_plane.client(identity::PROXY, &[]);
    let settings = settings::proxy(&config, &node);
    components.start("proxy", move |context| keelson_proxy::run(proxy.clone(), settings.clone(), context));
    components.start("images", move |context| watched::images::keep(config.clone(), context));
    control_plane.report(&mut components);
    tracing::info!(node = %node.name, address = %node.address, "serving");

    signals.wait().await;
    tracing::info!("draining");
    service::stopping();
    components.stop().await;
    control_plane.stop().await
}
