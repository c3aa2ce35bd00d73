//! What all parts of one kubelet share, made once by [`crate::run`].
use crate::config::KubeletConfig;
use crate::cri::Cri;
use crate::events::Events;
use crate::host::cgroups::Cgroups;
use crate::host::config::NodeView;
use crate::host::env::{Facts, ServiceView};
use crate::host::volumes::Volumes;
use crate::images::Images;
use crate::objects::Objects;
use crate::plan::pod;
use crate::probe::ProbeTools;
use crate::status_manager::StatusManager;
use k8s_openapi::api::core::v1::{Pod, Service};
use keelson_client::{Informer, Projection};
use keelson_daemon::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;

/// The machine's size and what of it pods may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub milli_cpu: i64,
    pub memory: i64,
    pub pods: i64,
    pub pids: i64,
}

/// The parts.
pub struct Kubelet {
    pub config: KubeletConfig,
    pub node: NodeView,
    pub host_ips: Vec<String>,
    pub capacity: Capacity,
    pub cri: Cri,
    /// Name of the runtime, the prefix of container ids.
    pub runtime: String,
    pub client: Option<kube::Client>,
    pub objects: Objects,
    pub volumes: Volumes,
    pub cgroups: Box<dyn Cgroups>,
    pub images: Images,
    pub statuses: StatusManager,
    pub events: Events,
    pub services: Option<Informer<ServiceView>>,
    pub clock: Clock,
    /// Sandboxes that may be started at the same time.
    pub starts: Arc<Semaphore>,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// Whether the runtime answered the last relist.
    pub runtime_up: AtomicBool,
}

impl Projection for ServiceView {
    type Object = Service;

    fn project(object: Service) -> Self {
        let spec = object.spec.unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        ServiceView {
            namespace: object.metadata.namespace.unwrap_or_default(),
            name: object.metadata.name.unwrap_or_default(),
            cluster_ip: spec.cluster_ip.unwrap_or_default(),
            ports: ports
                .into_iter()
                .map(|p| (p.name.unwrap_or_default(), p.port, p.protocol.unwrap_or_else(|| "TCP".into())))
                .collect(),
        }
    }
}

impl Kubelet {
    pub fn now_nanos(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    pub fn probe_tools(&self) -> ProbeTools {
        ProbeTools {
            cri: self.cri.clone(),
            events: self.events.clone(),
            kubelet_start: self.started_at / 1_000_000_000,
        }
    }

    /// The services a pod's variables may name; `None` while they have not been read once.
    pub fn services_for(&self, pod: &Pod) -> Option<Vec<ServiceView>> {
        let Some(informer) = &self.services else { return Some(vec![]) };
        if !informer.is_synced() && !pod::is_static(pod) {
            return None;
        }
        let own = informer.list_namespace(pod::namespace(pod)).into_iter().map(|(_, s)| (*s).clone());
        let mut found: Vec<ServiceView> = own.collect();
        let master = keelson_client::ObjectKey::new("default", "kubernetes");
        if pod::namespace(pod) != "default"
            && let Some(service) = informer.get(&master)
        {
            found.push((*service).clone());
        }
        Some(found)
    }

    pub fn facts<'a>(&'a self, pod_ips: &'a [String], services: &'a [ServiceView]) -> Facts<'a> {
        Facts {
            node_name: &self.config.node_name,
            host_ips: &self.host_ips,
            pod_ips,
            services,
            allocatable_cpu: self.capacity.milli_cpu,
            allocatable_memory: self.capacity.memory - self.config.eviction.memory_available as i64,
        }
    }

    pub fn set_runtime_up(&self, up: bool) {
        if self.runtime_up.swap(up, Ordering::Relaxed) != up {
            if up {
                tracing::info!("the container runtime answers again");
            } else {
                tracing::warn!("the container runtime does not answer");
            }
        }
    }
}

/// Handle shared by all tasks of the kubelet.
pub type Shared = Arc<Kubelet>;
