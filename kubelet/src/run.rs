//! Putting the kubelet together, and its end.
use crate::config::KubeletConfig;
use crate::cri::{Cri, CriError};
use crate::events::Events;
use crate::gc::Collector;
use crate::host::cgroups::{self, CgroupError, Limits};
use crate::host::config::{NodeView, oom_floor};
use crate::host::dns::DnsSettings;
use crate::host::security::NodeSecurity;
use crate::host::volumes::Volumes;
use crate::images::Images;
use crate::kubelet::{Kubelet, Shared};
use crate::node::info;
use crate::objects::Objects;
use crate::pleg::Pleg;
use crate::server::auth::{Access, ApiAccess, NoAccess};
use crate::server::{self, ServerError};
use crate::sources::Sources;
use crate::status_manager::StatusManager;
use crate::unflushed::Unflushed;
use crate::worker::Workers;
use keelson_client::{Informer, Selector};
use keelson_daemon::Context;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Why the kubelet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Cri(#[from] CriError),
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("cannot make {}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
}

/// A kubelet that runs; tests look into it.
pub struct Running {
    pub kubelet: Shared,
    pub workers: Workers,
    pub sources_ready: Arc<AtomicBool>,
    tasks: tokio::task::JoinSet<()>,
}

/// Runs the kubelet until the drain begins. Containers go on running.
pub async fn run(client: Option<kube::Client>, config: KubeletConfig, ctx: Context) -> Result<(), RunError> {
    let guard = ctx.readiness.register("kubelet");
    let Some(started) = ctx.drain.until(start(client, config, ctx.clone())).await else { return Ok(()) };
    let running = started?;
    drop(guard);
    ctx.drain.drained().await;
    running.stop().await;
    Ok(())
}

/// Waits for the runtime and starts all tasks.
pub async fn start(
    client: Option<kube::Client>,
    config: KubeletConfig,
    ctx: Context,
) -> Result<Running, RunError> {
    for path in [&config.root, &config.pod_logs] {
        std::fs::create_dir_all(path).map_err(|source| RunError::Folder { path: path.clone(), source })?;
    }
    // All that can fail comes before the first worker.
    let port = match &config.server {
        Some(config) => Some(server::bind(config).await?),
        None => None,
    };
    let mut tasks = tokio::task::JoinSet::new();
    let kubelet = assemble(client, config, &ctx, &mut tasks).await?;
    let workers = Workers::new(kubelet.clone());
    let sources_ready = Arc::new(AtomicBool::new(false));
    let pleg = Arc::new(Pleg::new(kubelet.clone(), workers.clone(), sources_ready.clone()));
    let initial = loop {
        match pleg.initial().await {
            Ok(initial) => break initial,
            Err(error) => {
                tracing::warn!(error = %error, "the runtime was not listed, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let ready = sources_ready.clone();
    let sources = Sources::new(kubelet.clone(), workers.clone(), ready, initial, ctx.drain.clone());
    tasks.spawn(sources.run());
    tasks.spawn(async move { pleg.run().await });
    tasks.spawn({
        let statuses = kubelet.statuses.clone();
        async move { statuses.run().await }
    });
    tasks.spawn(crate::eviction::keep(kubelet.clone(), workers.clone()));
    tasks.spawn(Collector::new(kubelet.clone(), workers.clone(), sources_ready.clone()).run());
    if let Some((listener, tls)) = port {
        let access: Arc<dyn Access> = match kubelet.client.clone() {
            Some(client) => Arc::new(ApiAccess::new(client)),
            None => Arc::new(NoAccess),
        };
        tasks.spawn(server::serve(kubelet.clone(), workers.clone(), listener, tls, access));
    }
    if let Some(client) = kubelet.client.clone() {
        tasks.spawn(crate::node::keep_status(kubelet.clone(), client.clone()));
        tasks.spawn(crate::node::keep_lease(kubelet.clone(), client));
    }
    Ok(Running { kubelet, workers, sources_ready, tasks })
}

/// Makes the parts that all share.
async fn assemble(
    client: Option<kube::Client>,
    config: KubeletConfig,
    ctx: &Context,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Result<Shared, RunError> {
    let cri = Cri::new(&config.cri_socket)?;
    let version = wait_for_runtime(&cri).await;
    tracing::info!(
        runtime = version.runtime_name,
        version = version.runtime_version,
        "container runtime found"
    );
    let cgroups = cgroups::open(&config.cgroup_mount, &config.cgroup_root, config.cgroup_driver)?;
    cgroups.ensure_classes(Limits::default())?;
    let unflushed = Arc::new(Unflushed::new(&config.root));
    if let Err(error) = unflushed.begin_anew(&cri).await {
        tracing::warn!(%error, "images whose pull was cut off may be broken; the next start tries again to remove them");
    }
    let events = match client.clone() {
        Some(client) => {
            let (events, writer) = Events::start(client, &config.node_name);
            tasks.spawn(writer);
            events
        }
        None => Events::log_only(),
    };
    let objects = Objects::new(client.clone(), config.resync.mul_f64(0.9));
    let services = client
        .clone()
        .map(|client| Informer::start(kube::Api::all(client), Selector::default(), ctx.drain.clone()));
    let strict_groups = cri.features().await.is_ok_and(|features| features.supplemental_groups_policy);
    Ok(Arc::new(Kubelet {
        node: node_view(&config, strict_groups),
        host_ips: config.node_addresses.iter().map(ToString::to_string).collect(),
        capacity: info::capacity(config.max_pods),
        runtime: version.runtime_name,
        volumes: Volumes { root: config.root.clone(), objects: objects.clone() },
        images: Images::new(
            cri.clone(),
            objects.clone(),
            events.clone(),
            config.max_parallel_pulls,
            unflushed,
        ),
        statuses: StatusManager::new(client.clone()),
        starts: Arc::new(tokio::sync::Semaphore::new(config.max_parallel_starts.max(1))),
        started_at: i64::try_from(ctx.clock.now().as_nanosecond()).unwrap_or(i64::MAX),
        runtime_up: AtomicBool::new(true),
        clock: ctx.clock.clone(),
        cri,
        client,
        objects,
        cgroups,
        events,
        services,
        config,
    }))
}

/// A kubelet that is dropped without being stopped (its task was aborted) leaves no worker behind.
impl Drop for Running {
    fn drop(&mut self) {
        self.workers.cancel();
        self.kubelet.statuses.close();
    }
}

impl Running {
    /// Ends all tasks; containers go on running.
    pub async fn stop(mut self) {
        self.workers.shut_down().await;
        self.kubelet.statuses.close();
        self.tasks.shutdown().await;
    }
}

async fn wait_for_runtime(cri: &Cri) -> crate::cri::api::VersionResponse {
    let mut told = false;
    loop {
        match cri.version().await {
            Ok(version) => return version,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %error, "waiting for the container runtime");
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

fn node_view(config: &KubeletConfig, strict_groups: bool) -> NodeView {
    NodeView {
        node_name: config.node_name.clone(),
        hostname: info::hostname(),
        dns: DnsSettings {
            cluster: config.cluster_dns.iter().map(ToString::to_string).collect(),
            domain: config.cluster_domain.clone(),
            resolv_conf: config.resolv_conf.clone(),
        },
        security: NodeSecurity {
            seccomp_root: config.seccomp_root.clone(),
            app_armor: info::app_armor(),
            strict_groups,
        },
        pod_logs: config.pod_logs.clone(),
        memory: info::memory_total(),
        oom_floor: oom_floor(),
    }
}
