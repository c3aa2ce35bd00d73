//! API server, scheduler and controllers of one process: the whole of `keelson control-plane`, and a part of
//! `keelson all-in-one`.
//!
//! Components reach the API server in process, each as its own user; a component that fails or panics is restarted
//! alone. The drain stops components first, then the API server, then the store.

use crate::install;
use crate::node::{self, NodeIdentity};
use crate::service::{self, Components, DRAIN, Signals};
use crate::{publish, settings, snapshot, store, watched};
use anyhow::{Context as _, Result};
use keelson_apiserver::authn::UserInfo;
use keelson_apiserver::{ApiServer, component_status};
use keelson_base::consts::{self, identity};
use keelson_client::leader::{self, Election};
use keelson_client::projections::SharedInformers;
use keelson_controllers::ControllersConfig;
use keelson_controllers::certificates::Signing;
use keelson_daemon::config::Config;
use keelson_daemon::drain::{self, DrainTrigger};
use keelson_daemon::{Clock, Context, DrainWatcher, Health, Readiness};
use keelson_pki::{ClusterPki, PkiParams};
use keelson_scheduler::SchedulerConfig;
use keelson_store::Store;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest time between two looks whether the administrator's kubeconfig holds the certificate that is renewed.
const LOOK_AT_ADMIN: Duration = Duration::from_secs(3600);

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::take()?;
    let node = node::identify(&config.node)?;
    let clock = Clock::system();
    let readiness = Readiness::default();
    let health = Health::default();
    let control_plane = ControlPlane::start(&config, &node, &clock, &readiness, &health).await?;
    let mut components = Components::told(clock, readiness, health);
    control_plane.start_components(&mut components, &config);
    control_plane.report(&mut components);
    tracing::info!(address = %control_plane.server.address(), "serving");
    signals.wait().await;
    service::stopping();
    components.stop().await;
    control_plane.stop().await
}

/// The store and the API server on it.
pub struct ControlPlane {
    pub pki: Arc<ClusterPki>,
    pub server: Arc<ApiServer>,
    store: Arc<dyn Store>,
    server_drain: DrainTrigger,
    /// The machine's name, which the candidates for a Lease carry.
    node: String,
}

impl ControlPlane {
    /// Opens the store, serves the API, and makes what a cluster has from its first start.
    pub async fn start(
        config: &Config,
        node: &NodeIdentity,
        clock: &Clock,
        readiness: &Readiness,
        health: &Health,
    ) -> Result<ControlPlane> {
        let pki = Arc::new(make_pki(config, node, clock)?);
        let store = store::open(config).await?;
        let (server_drain, drain) = drain::channel();
        let context = Context { clock: clock.clone(), drain: drain.clone(), readiness: readiness.clone() };
        let mut settings = settings::api_server(config, node, &pki);
        settings.components = health.clone();
        let server = ApiServer::start(settings, store.clone(), context)
            .await
            .context("the API server cannot start")?;
        let server = Arc::new(server);
        write_admin(config, &pki)?;
        tokio::spawn(keep_admin(config.clone(), pki.clone(), drain.clone()));
        let control_plane = ControlPlane { pki, server, store, server_drain, node: node.name.clone() };
        let installer = control_plane.client("system:keelson:installer", &[identity::CLUSTER_ADMINS]);
        keelson_proxy::dns::service::ensure(&installer, config.network.dns_address).await?;
        let ca = control_plane.pki.ca.certificate_pem().to_owned();
        let ready = readiness.register("what joining machines read");
        tokio::spawn(publish::keep(installer, config.clone(), node.address, ca, ready, drain));
        Ok(control_plane)
    }

    /// A client of the API server in this process, as `user`.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        client(&self.server, user, groups)
    }

    /// Starts scheduler and controllers. Where several control planes share a store, one of each works at a time.
    pub fn start_components(&self, components: &mut Components, config: &Config) {
        let context = &components.context;
        let (clock, drain) = (context.clock.clone(), context.drain.clone());
        components.spawn(snapshot::keep(self.store.clone(), config.clone(), clock, drain));
        let installer = self.client("system:keelson:installer", &[identity::CLUSTER_ADMINS]);
        let (folder, node) = (config.api_server.manifests.clone(), self.node.clone());
        components.start("manifests", move |context| {
            watched::manifests::keep(installer.clone(), folder.clone(), node.clone(), context)
        });
        let manager = self.client(identity::CONTROLLER_MANAGER, &[]);
        // Started by the first that is elected: a control plane that stands by holds no second copy of the cluster.
        let informers = Arc::new(OnceLock::new());
        let start = (manager.clone(), components.context.drain.clone());
        let shared = move || informers.get_or_init(|| SharedInformers::start(&start.0, &start.1)).clone();
        let (scheduler, informers) = (self.client(identity::SCHEDULER, &[]), shared.clone());
        let election = self.election(config, "kube-scheduler");
        components.start(component_status::SCHEDULER, move |context| {
            let (client, informers) = (scheduler.clone(), informers.clone());
            let work = move |context| {
                keelson_scheduler::run(client, SchedulerConfig::default(), informers(), context)
            };
            elected(scheduler.clone(), election.clone(), context, work)
        });
        let pod_cidrs = vec![(config.network.pod_cidr, consts::NODE_POD_CIDR_PREFIX)];
        let mut settings = ControllersConfig::new(pod_cidrs, self.pki.ca.certificate_pem().to_owned());
        settings.signing = Some(Signing { authority: self.pki.ca.clone(), life: config.certificates.life });
        settings.tokens = Some(self.pki.service_account.clone());
        let server = self.server.clone();
        let election = self.election(config, "kube-controller-manager");
        components.start(component_status::CONTROLLERS, move |context| {
            let server = server.clone();
            let client_of = move |account: &str| {
                let user = format!("system:serviceaccount:kube-system:{account}");
                client(&server, &user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
            };
            let (settings, informers) = (settings.clone(), shared.clone());
            let work = move |context| keelson_controllers::run(client_of, settings, informers(), context);
            elected(manager.clone(), election.clone(), context, work)
        });
    }

    /// How the one that works is chosen; `None` where this is the only control plane.
    fn election(&self, config: &Config, lease: &str) -> Option<Election> {
        let identity = || format!("{}_{}", self.node, uuid::Uuid::new_v4());
        config.etcd.is_some().then(|| Election::new(lease, &identity()))
    }

    /// Tells the service manager when all of `components` are ready, and feeds its watchdog while the API server answers.
    pub fn report(&self, components: &mut Components) {
        let probe = self.client("system:keelson:watchdog", &[]);
        let (readiness, drain) = (components.context.readiness.clone(), components.context.drain.clone());
        components.spawn(service::report(readiness, drain, move || {
            let probe = probe.clone();
            async move { probe.apiserver_version().await.is_ok() }
        }));
    }

    /// Stops the API server, then closes the store.
    pub async fn stop(self) -> Result<()> {
        drop(self.server);
        let ended = self.server_drain.drain(DRAIN).await;
        tracing::info!(?ended, "API server stopped");
        self.store
            .close()
            .await
            .context("the store could not be closed cleanly; it recovers at the next start")
    }
}

/// Does the work, once elected where there is an election.
async fn elected<F, Fut, E>(
    client: kube::Client,
    election: Option<Election>,
    context: Context,
    work: F,
) -> Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    match election {
        Some(election) => Ok(leader::lead(client, election, context, work).await?),
        None => Ok(work(context).await?),
    }
}

fn client(server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    let service = server.service(UserInfo::authenticated(user, groups));
    keelson_client::named(keelson_client::in_process(service, "default"), component(user))
}

/// The component behind a user, under upstream's name: it is what owns the fields it writes.
fn component(user: &str) -> &'static str {
    match user {
        identity::SCHEDULER => "kube-scheduler",
        identity::PROXY => "kube-proxy",
        _ if user.starts_with(identity::NODE_USER_PREFIX) => "kubelet",
        // The controllers' service accounts.
        _ if user == identity::CONTROLLER_MANAGER || user.starts_with("system:serviceaccount:") => {
            "kube-controller-manager"
        }
        _ => "keelson",
    }
}

/// What the cluster's certificates must say on this machine.
pub fn pki_params(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<PkiParams> {
    let service_address =
        config.network.service_cidr.nth(1).context("network.serviceCidr has no usable address")?;
    Ok(PkiParams {
        node_name: node.name.clone(),
        cluster_domain: config.network.cluster_domain.clone(),
        service_address,
        node_addresses: vec![node.address],
        extra_names: config.api_server.extra_sans.clone(),
        life: config.certificates.life,
        now: clock.now(),
    })
}

fn make_pki(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<ClusterPki> {
    std::fs::create_dir_all(&config.paths.state)
        .with_context(|| format!("cannot make the state folder {}", config.paths.state.display()))?;
    ClusterPki::ensure(&config.paths.pki(), &pki_params(config, node, clock)?)
        .context("the cluster's certificates cannot be made")
}

/// Where this machine reaches the API server: the bound address, or loopback where that is any address.
pub fn local_endpoint(config: &Config) -> String {
    let bind = config.api_server.bind;
    let address = match bind.ip() {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    format!("https://{}", SocketAddr::new(address, bind.port()))
}

/// The administrator's kubeconfig lies with the keys, so that a control plane with a user of its own can renew it;
/// `admin.conf` in the state folder leads there.
pub fn admin_file(config: &Config) -> PathBuf {
    config.paths.pki().join("admin.conf")
}

fn write_admin(config: &Config, pki: &ClusterPki) -> Result<()> {
    let path = admin_file(config);
    pki.write_kubeconfig(&path, &local_endpoint(config), "keelson-admin", &pki.admin)
        .with_context(|| format!("cannot write {}", path.display()))?;
    // As a unit it cannot make the link, which is root's; that is nothing to stop for, and doctor tells of it.
    if let Err(error) = link_admin(config) {
        tracing::warn!(error = %format!("{error:#}"), "admin.conf does not lead to the administrator's kubeconfig");
    }
    Ok(())
}

/// Makes `admin.conf` in the state folder lead to the file with the keys.
pub fn link_admin(config: &Config) -> Result<()> {
    let link = config.paths.kubeconfig("admin");
    // Relative where it can be, so that the state folder can be moved.
    let file = admin_file(config);
    let target = file.strip_prefix(&config.paths.state).map(PathBuf::from).unwrap_or(file.clone());
    // Whichever way it leads there.
    let leads = std::fs::canonicalize(&link).ok().zip(std::fs::canonicalize(&file).ok());
    if leads.is_some_and(|(now, wanted)| now == wanted) {
        return Ok(());
    }
    let temporary = link.with_extension("link");
    let made = std::fs::remove_file(&temporary)
        .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
        .and_then(|()| std::os::unix::fs::symlink(&target, &temporary))
        .and_then(|()| std::fs::rename(&temporary, &link));
    made.with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

/// Follows the administrator's certificate, which the API server's renewal writes.
async fn keep_admin(config: Config, mut pki: Arc<ClusterPki>, drain: DrainWatcher) {
    let every = keelson_pki::look_every(config.certificates.life, LOOK_AT_ADMIN);
    while drain.until(tokio::time::sleep(every)).await.is_some() {
        let now = Clock::system().now();
        let (config, known) = (config.clone(), pki.clone());
        let renewed = tokio::task::spawn_blocking(move || renew_on_disk(&config, &known, now));
        match renewed.await {
            Ok(Ok(Some(renewed))) => pki = Arc::new(renewed),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %format!("{error:#}"), "the administrator's kubeconfig was not renewed");
            }
        }
    }
}

/// Renews what is due of the files that nobody holds in memory: etcd's certificates and the administrator's kubeconfig.
fn renew_on_disk(config: &Config, pki: &ClusterPki, now: jiff::Timestamp) -> Result<Option<ClusterPki>> {
    let params = &pki.params;
    if install::etcd::present(config)
        && let Some(address) = params.node_addresses.first()
    {
        keelson_pki::ensure_etcd(&pki.dir, &params.node_name, *address, now, params.life)?;
    }
    let renewed = pki.renew(now)?;
    if let Some(renewed) = &renewed {
        write_admin(config, renewed)?;
    }
    Ok(renewed)
}
