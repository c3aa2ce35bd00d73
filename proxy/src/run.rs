//! The loop: informers mark services, the loop plans what is marked and applies it.
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use keelson_base::cidr::Cidr;
use keelson_client::{Informer, Selector};
use keelson_daemon::readiness::ReadinessGuard;
use keelson_daemon::{Context, DrainWatcher};
use kube::Api;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::apply::{Applier, ApplyError, remove_table};
use crate::dns::forward::Resolvers;
use crate::dns::zone::Zone;
use crate::dns::{DnsConfig, interface};
use crate::flows::Stale;
use crate::forwarding::{self, ForwardingError};
use crate::health::HealthPorts;
use crate::index::Index;
use crate::plan::{
    Dirty, Fragment, NodeFacts, Ruleset, ServiceName, TableSpec, base, masquerade_table, plan_service,
};
use crate::tunnel::{Tunnel, TunnelPlan};
use crate::views::{NodeView, ServiceView, SliceView};
use crate::{cniconf, routes, tunnel};

/// Changes that come within this time are applied together.
const GATHER: Duration = Duration::from_millis(5);
/// Emptied chains are deleted so long after they lost their last user.
const SWEEP: Duration = Duration::from_secs(5);
/// So often it is checked whether others changed rules: one exchange with the kernel.
const VERIFY: Duration = Duration::from_secs(60);
/// First and last wait after a failure.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Cluster DNS on this node.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// The address of Service kube-system/kube-dns, one per family.
    pub addresses: Vec<IpAddr>,
    pub cluster_domain: String,
    /// For names outside the cluster; empty: the node's /etc/resolv.conf.
    pub upstreams: Vec<SocketAddr>,
}

/// What the proxy is told.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    pub node_name: String,
    /// The cluster's pod ranges.
    pub pod_cidrs: Vec<Cidr>,
    /// The cluster's service ranges.
    pub service_cidrs: Vec<Cidr>,
    /// None: this node answers no DNS.
    pub dns: Option<DnsSettings>,
    pub tunnel: Tunnel,
    /// Where the runtime looks for network configurations.
    pub cni_conf_dir: PathBuf,
    /// Where the CNI plugin keeps its leases; best on a file system in memory.
    pub cni_state_dir: PathBuf,
}

/// Why the proxy ended.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("cluster domain {domain:?} is no DNS name")]
    Domain { domain: String },
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    #[error("the proxy's worker panicked")]
    Worker(#[source] tokio::task::JoinError),
}

/// Runs until the drain begins. Rules stay in force: the next process adopts them.
pub async fn run(client: kube::Client, config: ProxyConfig, ctx: Context) -> Result<(), ProxyError> {
    let all = Selector::default;
    let sources = Sources {
        services: Informer::start(Api::all(client.clone()), all(), ctx.drain.clone()),
        slices: Informer::start(Api::all(client.clone()), all(), ctx.drain.clone()),
        nodes: Informer::start(Api::all(client), all(), ctx.drain.clone()),
    };
    serve(sources, config, ctx).await
}

/// Where the proxy learns what must be.
#[derive(Clone)]
struct Sources {
    services: Informer<ServiceView>,
    slices: Informer<SliceView>,
    nodes: Informer<NodeView>,
}

async fn serve(sources: Sources, config: ProxyConfig, ctx: Context) -> Result<(), ProxyError> {
    let ready = ctx.readiness.register("proxy");
    let family = |v4: bool| config.pod_cidrs.iter().any(|cidr| cidr.network().is_ipv4() == v4);
    forwarding::enable(family(true), family(false), &config.cni_state_dir)?;
    let index = Arc::new(Index::default());
    let drain = ctx.drain.clone();
    let Sources { services, slices, nodes } = sources;
    let nodes_changed = feed(&index, &services, &slices, &nodes);
    let synced = async { tokio::join!(services.synced(), slices.synced(), nodes.synced()) };
    if drain.until(synced).await.is_none() {
        return Ok(());
    }
    if let Some(dns) = &config.dns {
        // Before the first routes are set: the service ranges' one leads to this interface, and ready means routed.
        if let Err(error) = interface::ensure(&dns.addresses) {
            tracing::debug!(error = %chain(&error), "the interface of cluster DNS is tried again beside the server");
        }
        let zone = Zone {
            domain: domain(&dns.cluster_domain)?,
            dns_ips: dns.addresses.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            service_cidrs: config.service_cidrs.clone(),
        };
        let resolvers = match dns.upstreams.as_slice() {
            [] => Resolvers::File("/etc/resolv.conf".into()),
            some => Resolvers::Fixed(some.to_vec()),
        };
        let dns = DnsConfig { zone, port: keelson_base::consts::DNS_PORT, resolvers };
        let guard = ctx.readiness.register("cluster DNS");
        tokio::spawn(start_dns(dns, index.clone(), drain.clone(), guard, nodes_changed.clone()));
    }
    let worker = Worker::new(config, index.clone(), nodes)?;
    let mut state = Loop { worker: Some(worker), health: HealthPorts::default(), ready: Some(ready) };
    drain.until(state.run(&index, &nodes_changed)).await.unwrap_or(Ok(()))
}

/// The zone's name, with its last dot.
fn domain(text: &str) -> Result<Name, ProxyError> {
    Name::from_ascii(format!("{}.", text.trim_end_matches('.')))
        .map_err(|_| ProxyError::Domain { domain: text.to_owned() })
}

/// Connects the informers with the index. The result is notified when nodes change.
fn feed(
    index: &Arc<Index>,
    services: &Informer<ServiceView>,
    slices: &Informer<SliceView>,
    nodes: &Informer<NodeView>,
) -> Arc<Notify> {
    let to = index.clone();
    services.on_change(move |change| {
        to.service(ServiceName::new(&*change.key.namespace, &*change.key.name), change.new.clone());
    });
    let to = index.clone();
    slices.on_change(move |change| {
        // Names are unique in a namespace; two namespaces never share a service.
        to.slice(&change.key.name, change.old.as_ref(), change.new.as_ref());
    });
    let changed = Arc::new(Notify::new());
    let to = changed.clone();
    nodes.on_change(move |change| {
        // Heartbeats touch nothing of what is kept.
        if change.old != change.new {
            to.notify_one();
        }
    });
    changed
}

/// Serves DNS as soon as that is possible; says why while it is not.
async fn start_dns(
    config: DnsConfig,
    index: Arc<Index>,
    drain: DrainWatcher,
    ready: ReadinessGuard,
    made: Arc<Notify>,
) {
    let mut wait = RETRY.0;
    loop {
        let failure = match interface::ensure(&config.zone.dns_ips) {
            Ok(()) => match crate::dns::serve(config.clone(), index.clone(), drain.clone()).await {
                Ok(()) => break,
                Err(e) => chain(&e),
            },
            Err(e) => chain(&e),
        };
        tracing::warn!(error = %failure, "cluster DNS is not served yet");
        if drain.until(sleep(wait)).await.is_none() {
            return;
        }
        wait = (wait * 2).min(RETRY.1);
    }
    // The interface is there now: service ranges can be routed to it.
    made.notify_one();
    drop(ready);
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

struct Loop {
    worker: Option<Worker>,
    health: HealthPorts,
    ready: Option<ReadinessGuard>,
}

impl Loop {
    async fn run(&mut self, index: &Index, nodes_changed: &Notify) -> Result<(), ProxyError> {
        let mut retry = RETRY.0;
        let mut sweep: Option<Instant> = None;
        let mut task = Task { nodes: true, ..Task::default() };
        index.mark_all();
        loop {
            let done = self.work(task).await?;
            task = Task::default();
            if done.ok {
                retry = RETRY.0;
                self.ready = None;
                if done.unused {
                    sweep.get_or_insert_with(|| Instant::now() + SWEEP);
                } else {
                    sweep = None;
                }
            }
            let again = if done.ok { Instant::now() + VERIFY } else { Instant::now() + retry };
            let next_sweep = sweep.unwrap_or_else(|| Instant::now() + VERIFY * 1000);
            tokio::select! {
                () = index.changed() => {}
                () = nodes_changed.notified() => task.nodes = true,
                () = sleep_until(next_sweep) => {
                    task.sweep = true;
                    sweep = None;
                }
                () = sleep_until(again) => {
                    task.verify = true;
                    task.nodes = !done.ok;
                }
            }
            if !done.ok {
                task.nodes = true;
                retry = (retry * 2).min(RETRY.1);
            }
            sleep(GATHER).await;
        }
    }

    /// Netlink calls block: they run beside the runtime.
    async fn work(&mut self, task: Task) -> Result<Done, ProxyError> {
        let Some(mut worker) = self.worker.take() else { return Ok(Done::default()) };
        let (worker, done) = tokio::task::spawn_blocking(move || {
            let done = worker.work(task);
            (worker, done)
        })
        .await
        .map_err(ProxyError::Worker)?;
        let health = worker.ruleset.health_checks().map(|(n, h)| (n.clone(), h.clone())).collect();
        self.worker = Some(worker);
        self.health.sync(health).await;
        Ok(done)
    }
}

/// Beyond the marked services, what to do.
#[derive(Debug, Clone, Copy, Default)]
struct Task {
    nodes: bool,
    sweep: bool,
    verify: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Done {
    ok: bool,
    unused: bool,
}

struct Worker {
    config: ProxyConfig,
    index: Arc<Index>,
    nodes: Informer<NodeView>,
    applier: Applier,
    ruleset: Ruleset,
    facts: NodeFacts,
    stale: Stale,
    unreachable: Vec<String>,
    /// The tunnels' table while there are tunnels.
    guard: Option<TableSpec>,
}

impl Worker {
    fn new(config: ProxyConfig, index: Arc<Index>, nodes: Informer<NodeView>) -> Result<Worker, ProxyError> {
        let facts = NodeFacts {
            name: config.node_name.clone(),
            pod_cidrs: config.pod_cidrs.clone(),
            service_cidrs: config.service_cidrs.clone(),
            dns_ips: config.dns.as_ref().map(|d| d.addresses.clone()).unwrap_or_default(),
            ..NodeFacts::default()
        };
        Ok(Worker {
            applier: Applier::open()?,
            ruleset: Ruleset::new(base(&facts)),
            stale: Stale::default(),
            unreachable: Vec::new(),
            guard: None,
            config,
            index,
            nodes,
            facts,
        })
    }

    fn work(&mut self, task: Task) -> Done {
        let mut ok = true;
        if task.verify && self.applier.disturbed().unwrap_or(true) {
            self.applier.forget();
        }
        if task.nodes {
            ok &= self.sync_node();
        }
        self.replan();
        ok &= self.apply(task.sweep);
        if ok && !self.stale.is_empty() {
            self.clean_flows();
        }
        Done { ok, unused: self.applier.unused() > 0 }
    }

    /// Plans the marked services anew.
    fn replan(&mut self) {
        for name in self.index.take_dirty() {
            let fragment = match self.index.get(&name) {
                Some(view) => {
                    let slices = self.index.slices_of(&name);
                    let slices: Vec<&SliceView> = slices.iter().map(|s| &**s).collect();
                    plan_service(&view, &slices, &self.facts)
                }
                None => Fragment::default(),
            };
            self.stale.note(self.ruleset.fragment(&name), Some(&fragment));
            self.ruleset.set(name, fragment);
        }
    }

    fn apply(&mut self, sweep: bool) -> bool {
        let dirty = self.ruleset.take_dirty();
        let masquerade = masquerade_table(&self.facts);
        let applied = self.applier.apply(self.ruleset.table(), &dirty, sweep).and_then(|services| {
            // These two change elsewhere; here only what others did to them is undone.
            for table in [Some(&masquerade), self.guard.as_ref()].into_iter().flatten() {
                self.applier.apply(table, &Dirty::default(), false)?;
            }
            Ok(services)
        });
        match applied {
            Ok(services) => {
                if services.messages > 0 {
                    tracing::debug!(
                        messages = services.messages,
                        bytes = services.bytes,
                        "service rules changed"
                    );
                }
                true
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "service rules could not be changed, trying again");
                // Compare everything then: what was marked is no longer known.
                self.applier.forget();
                false
            }
        }
    }

    fn clean_flows(&mut self) {
        let local = match routes::observe() {
            Ok((_, addresses)) => addresses.into_iter().map(|a| a.ip).collect(),
            Err(_) => self.facts.node_ips.clone(),
        };
        match std::mem::take(&mut self.stale).clean(&local) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "stale UDP flows deleted"),
            Err(error) => tracing::warn!(error = %chain(&error), "stale UDP flows could not be deleted"),
        }
    }

    /// What depends on nodes: facts, routes, the CNI configuration.
    fn sync_node(&mut self) -> bool {
        let nodes = self.nodes.list();
        let own = nodes.iter().find(|n| n.name == self.config.node_name);
        let mut facts = self.facts.clone();
        if let Some(own) = own {
            facts.node_ips.clone_from(&own.internal_ips);
            facts.zone.clone_from(&own.zone);
        }
        if facts != self.facts {
            self.facts = facts;
            self.ruleset.rebase(base(&self.facts));
            self.index.mark_all();
        }
        let observed = routes::observe();
        let (links, addresses) = match observed {
            Ok(observed) => observed,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "interfaces cannot be read");
                return false;
            }
        };
        let nodes: Vec<&NodeView> = nodes.iter().map(|n| &**n).collect();
        let machine = routes::Machine {
            links: &links,
            addresses: &addresses,
            service_link: links.iter().find(|l| l.name == interface::INTERFACE && l.up).map(|l| l.index),
        };
        let config = &self.config;
        let plan = routes::plan(&nodes, &config.node_name, &machine, config.tunnel, &config.service_cidrs);
        let mut ok = true;
        if let Some(own) = own.filter(|n| !n.pod_cidrs.is_empty()) {
            let uplink = addresses.iter().find(|a| own.internal_ips.contains(&a.ip));
            let mtu = uplink.and_then(|a| links.iter().find(|l| l.index == a.index)).map(|l| l.mtu);
            // Loopback's MTU is no link's. What goes through a tunnel has less room.
            let mtu = mtu.filter(|m| (1280..=9216).contains(m));
            let mtu = mtu.map(|link| plan.tunnel.as_ref().map_or(link, |tunnel| tunnel.mtu.min(link)));
            let text = cniconf::render(&own.pod_cidrs, &self.config.cni_state_dir, mtu);
            match cniconf::ensure(&self.config.cni_conf_dir, &text) {
                Ok(true) => tracing::info!(node = %own.name, "CNI configuration written"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %chain(&error), "CNI configuration cannot be written, pods cannot start");
                    ok = false;
                }
            }
        }
        ok & self.sync_routes(&plan)
    }

    fn sync_routes(&mut self, plan: &routes::RoutePlan) -> bool {
        if plan.unreachable != self.unreachable {
            for node in &plan.unreachable {
                tracing::warn!(%node, "the pods of a node cannot be reached from here");
            }
            self.unreachable.clone_from(&plan.unreachable);
        }
        let device = match self.sync_tunnel(plan.tunnel.as_ref()) {
            Ok(device) => device,
            Err(error) => {
                tracing::error!(error = %error, "the tunnel to other nodes' pods could not be set up");
                return false;
            }
        };
        match routes::apply(plan, device) {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(error = %chain(&error), "routes to other nodes' pods could not be set");
                false
            }
        }
    }

    /// The guard stands before the device does, and goes after it.
    fn sync_tunnel(&mut self, plan: Option<&TunnelPlan>) -> Result<Option<u32>, String> {
        if let Some(plan) = plan {
            let guard = tunnel::guard(plan);
            let dirty = self.guard.as_ref().map(|old| tunnel::changes(old, &guard)).unwrap_or_default();
            // Compared with what stands there when the table was not ours to hold until now.
            if self.guard.as_ref().is_none_or(|old| old.userdata != guard.userdata) {
                self.applier.forget();
            }
            self.applier.apply(&guard, &dirty, false).map_err(|error| chain(&error))?;
            self.guard = Some(guard);
        }
        let device = tunnel::apply(plan).map_err(|error| chain(&error))?;
        if plan.is_none() {
            // Also what another process left.
            remove_table(keelson_base::consts::nft::TUNNEL_TABLE).map_err(|error| chain(&error))?;
            self.guard = None;
        }
        Ok(device)
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
