//! `keelson all-in-one`: every component as a task of one process; `keelson control-plane`: those that need no node.
//!
//! Components reach the API server in process, each as its own user; a component that fails or panics is restarted
//! alone. The drain stops components first, then the API server, then the store.

use crate::node::{self, NodeIdentity};
use crate::store;
use anyhow::{Context as _, Result};
use keelson_apiserver::authn::UserInfo;
use keelson_apiserver::{ApiServer, ApiServerConfig};
use keelson_base::consts::{self, identity};
use keelson_client::leader::{self, Election};
use keelson_client::projections::SharedInformers;
use keelson_controllers::ControllersConfig;
use keelson_daemon::config::{CgroupDriver, Config};
use keelson_daemon::drain::{self, DrainTrigger};
use keelson_daemon::supervise::supervise;
use keelson_daemon::{Clock, Context, Readiness};
use keelson_kubelet::config::{KubeletConfig, ServerConfig};
use keelson_kubelet::host::cgroups::Driver;
use keelson_pki::{ClusterPki, PkiParams};
use keelson_proxy::{DnsSettings, ProxyConfig};
use keelson_scheduler::SchedulerConfig;
use keelson_store::Store;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// How long each part of the drain may take.
const DRAIN: Duration = Duration::from_secs(20);

/// What a process runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    All,
    /// API server, scheduler, controllers.
    ControlPlane,
}

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(config: Config, parts: Parts) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let process = Process::start(config, parts).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    process.stop().await
}

/// What runs, and how it is stopped.
struct Process {
    store: Arc<dyn Store>,
    server: Arc<ApiServer>,
    server_drain: DrainTrigger,
    components_drain: DrainTrigger,
    components: JoinSet<()>,
}

impl Process {
    async fn start(config: Config, parts: Parts) -> Result<Process> {
        let node = node::identify(&config.node)?;
        let clock = Clock::system();
        let pki = Arc::new(make_pki(&config, &node, &clock)?);
        let store = store::open(&config).await?;
        let (server_drain, watcher) = drain::channel();
        let context = Context { clock: clock.clone(), drain: watcher, readiness: Readiness::default() };
        let server = ApiServer::start(api_server_config(&config, &node, &pki), store.clone(), context)
            .await
            .context("the API server cannot start")?;
        let server = Arc::new(server);
        write_kubeconfig(&config, &pki)?;
        let installer = client(&server, "system:keelson:installer", &[identity::CLUSTER_ADMINS]);
        keelson_proxy::dns::service::ensure(&installer, config.network.dns_address).await?;
        let (components_drain, watcher) = drain::channel();
        let context = Context { clock, drain: watcher, readiness: Readiness::default() };
        let mut components = JoinSet::new();
        start_control(&mut components, &config, &node, &pki, &server, context.clone());
        if parts == Parts::All {
            start_node(&mut components, &config, &node, &pki, &server, context);
        }
        tracing::info!(node = %node.name, address = %node.address, "serving");
        Ok(Process { store, server, server_drain, components_drain, components })
    }

    async fn stop(mut self) -> Result<()> {
        let ended = self.components_drain.drain(DRAIN).await;
        tracing::info!(?ended, "components stopped");
        self.components.shutdown().await;
        drop(self.server);
        let ended = self.server_drain.drain(DRAIN).await;
        tracing::info!(?ended, "API server stopped");
        self.store
            .close()
            .await
            .context("the store could not be closed cleanly; it recovers at the next start")
    }
}

fn make_pki(config: &Config, node: &NodeIdentity, clock: &Clock) -> Result<ClusterPki> {
    std::fs::create_dir_all(&config.paths.state)
        .with_context(|| format!("cannot make the state folder {}", config.paths.state.display()))?;
    let service_address =
        config.network.service_cidr.nth(1).context("network.serviceCidr has no usable address")?;
    let params = PkiParams {
        node_name: node.name.clone(),
        cluster_domain: config.network.cluster_domain.clone(),
        service_address,
        node_addresses: vec![node.address],
        extra_names: config.api_server.extra_sans.clone(),
        now: clock.now(),
    };
    ClusterPki::ensure(&config.paths.pki(), &params).context("the cluster's certificates cannot be made")
}

fn api_server_config(config: &Config, node: &NodeIdentity, pki: &Arc<ClusterPki>) -> ApiServerConfig {
    ApiServerConfig {
        issuer: format!("https://kubernetes.default.svc.{}", config.network.cluster_domain),
        service_cidr: config.network.service_cidr.to_string(),
        node_ports: config.network.node_ports,
        gates: config.api_server.gates.clone(),
        several: config.etcd.is_some(),
        ..ApiServerConfig::new(pki.clone(), config.api_server.bind, node.address)
    }
}

/// The administrator's kubeconfig, for this machine: the bound address, or loopback where that is any address.
fn write_kubeconfig(config: &Config, pki: &ClusterPki) -> Result<()> {
    let bind = config.api_server.bind;
    let address = match bind.ip() {
        address if !address.is_unspecified() => address,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    let server = format!("https://{}", SocketAddr::new(address, bind.port()));
    let path = config.paths.kubeconfig("admin");
    pki.write_kubeconfig(&path, &server, "keelson-admin", &pki.admin)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A client of the API server in this process, as `user`.
fn client(server: &ApiServer, user: &str, groups: &[&str]) -> kube::Client {
    keelson_client::in_process(server.service(UserInfo::authenticated(user, groups)), "default")
}

/// Scheduler and controllers. Where several control planes share a store, one of each works at a time.
fn start_control(
    tasks: &mut JoinSet<()>,
    config: &Config,
    node: &NodeIdentity,
    pki: &ClusterPki,
    server: &Arc<ApiServer>,
    context: Context,
) {
    let drain = context.drain.clone();
    let elects = config.etcd.is_some();
    let identity_of = |name: &str| Election::new(name, &format!("{}_{}", node.name, uuid::Uuid::new_v4()));
    let manager = client(server, identity::CONTROLLER_MANAGER, &[]);
    let informers = SharedInformers::start(&manager, &drain);

    let (scheduler, shared, ctx) =
        (client(server, identity::SCHEDULER, &[]), informers.clone(), context.clone());
    let election = identity_of("kube-scheduler");
    tasks.spawn(supervise("scheduler", drain.clone(), move || {
        let (client, shared) = (scheduler.clone(), shared.clone());
        let work = move |ctx| keelson_scheduler::run(client, SchedulerConfig::default(), shared, ctx);
        elected(elects, scheduler.clone(), election.clone(), ctx.clone(), work)
    }));

    let pod_cidrs = vec![(config.network.pod_cidr, consts::NODE_POD_CIDR_PREFIX)];
    let settings = ControllersConfig::new(pod_cidrs, pki.ca.certificate_pem().to_owned());
    let (owned, ctx) = (server.clone(), context);
    let election = identity_of("kube-controller-manager");
    tasks.spawn(supervise("controllers", drain, move || {
        let server = owned.clone();
        let client_of = move |account: &str| {
            let user = format!("system:serviceaccount:kube-system:{account}");
            client(&server, &user, &["system:serviceaccounts", "system:serviceaccounts:kube-system"])
        };
        let (settings, informers) = (settings.clone(), informers.clone());
        let work = move |ctx| keelson_controllers::run(client_of, settings, informers, ctx);
        elected(elects, manager.clone(), election.clone(), ctx.clone(), work)
    }));
}

/// Does the work, once elected where there is an election.
async fn elected<F, Fut, E>(
    elects: bool,
    client: kube::Client,
    election: Election,
    context: Context,
    work: F,
) -> Result<()>
where
    F: FnOnce(Context) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    if elects {
        return Ok(leader::lead(client, election, context, work).await?);
    }
    Ok(work(context).await?)
}

/// Kubelet and proxy of this machine.
fn start_node(
    tasks: &mut JoinSet<()>,
    config: &Config,
    node: &NodeIdentity,
    pki: &ClusterPki,
    server: &Arc<ApiServer>,
    context: Context,
) {
    let drain = context.drain.clone();
    let user = format!("{}{}", identity::NODE_USER_PREFIX, node.name);
    let kubelet = client(server, &user, &[identity::NODES_GROUP]);
    let (settings, ctx) = (kubelet_config(config, node, pki), context.clone());
    tasks.spawn(supervise("kubelet", drain.clone(), move || {
        keelson_kubelet::run(Some(kubelet.clone()), settings.clone(), ctx.clone())
    }));

    let proxy = client(server, identity::PROXY, &[]);
    let settings = proxy_config(config, node);
    tasks.spawn(supervise("proxy", drain, move || {
        keelson_proxy::run(proxy.clone(), settings.clone(), context.clone())
    }));
}

fn proxy_config(config: &Config, node: &NodeIdentity) -> ProxyConfig {
    ProxyConfig {
        node_name: node.name.clone(),
        pod_cidrs: vec![config.network.pod_cidr],
        service_cidrs: vec![config.network.service_cidr],
        dns: Some(DnsSettings {
            addresses: vec![config.network.dns_address],
            cluster_domain: config.network.cluster_domain.clone(),
            upstreams: config.dns.upstreams.clone(),
        }),
        cni_conf_dir: config.proxy.cni_conf_dir.clone(),
        cni_state_dir: config.paths.cni(),
    }
}

fn kubelet_config(config: &Config, node: &NodeIdentity, pki: &ClusterPki) -> KubeletConfig {
    let section = &config.kubelet;
    let mut settings = KubeletConfig::new(&node.name, config.paths.kubelet());
    settings.node_addresses = vec![node.address];
    settings.labels = config.node.labels.clone();
    settings.taints = config.node.taints.iter().map(taint).collect();
    settings.cri_socket = section.cri_socket.clone();
    settings.pod_logs = config.paths.pod_logs.clone();
    settings.static_pods = Some(section.static_pods.clone());
    settings.cluster_dns = vec![config.network.dns_address];
    settings.cluster_domain = config.network.cluster_domain.clone();
    settings.cgroup_root = section.cgroup_root.clone();
    settings.cgroup_driver = match section.cgroup_driver {
        CgroupDriver::Systemd => Driver::Systemd,
        CgroupDriver::Auto | CgroupDriver::Cgroupfs => Driver::Cgroupfs,
    };
    settings.max_pods = section.max_pods;
    settings.image_gc.high_percent = section.image_gc_high_percent;
    settings.image_gc.low_percent = section.image_gc_low_percent;
    settings.server = Some(ServerConfig {
        bind: section.bind,
        cert: pki.node_serving.cert_path.clone(),
        key: pki.node_serving.key_path.clone(),
        client_ca: pki.dir.join("ca.crt"),
    });
    settings
}

fn taint(taint: &keelson_daemon::config::Taint) -> k8s_openapi::api::core::v1::Taint {
    k8s_openapi::api::core::v1::Taint {
        key: taint.key.clone(),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        time_added: None,
    }
}
