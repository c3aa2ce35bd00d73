//! Registers the node and keeps its status: looked at every ten seconds, written when it changed or every five minutes.
use super::pressure::{self, Pressure};
use super::{info, labels};
use crate::cri::api;
use crate::host::mounts::fs_usage;
use crate::kubelet::Shared;
use crate::plan::status::seconds;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_base::consts;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

const CHECK: Duration = Duration::from_secs(10);
/// While the node is not ready it is looked at this often: readiness shall not wait.
const HURRY: Duration = Duration::from_millis(200);
const REPORT: Duration = Duration::from_secs(300);
const MAX_IMAGES: usize = 50;
/// Pressure that ended is told only after this long.
const PRESSURE_HOLD: Duration = Duration::from_secs(300);

/// Keeps the node until dropped.
pub async fn keep(kubelet: Shared, client: kube::Client) {
    let api: Api<Node> = Api::all(client);
    let mut keeper = Keeper { kubelet, api, sent: None, reported: None, held: [None; 3] };
    loop {
        let wait = keeper.step().await;
        tokio::time::sleep(wait).await;
    }
}

struct Keeper {
    kubelet: Shared,
    api: Api<Node>,
    /// What the API was last told.
    sent: Option<NodeStatus>,
    reported: Option<Instant>,
    /// Until when each pressure is still told.
    held: [Option<Instant>; 3],
}

impl Keeper {
    async fn step(&mut self) -> Duration {
        if self.sent.is_none() {
            match self.register().await {
                Ok(status) => self.sent = Some(status),
                Err(error) => {
                    tracing::warn!(error = %error, "node was not registered, trying again");
                    return Duration::from_secs(1);
                }
            }
        }
        let due = self.reported.is_none_or(|at| at.elapsed() >= REPORT);
        let status = self.observe(due).await;
        let ready = is_ready(Some(&status));
        if due || !same(self.sent.as_ref(), &status) {
            match self.write(status).await {
                Ok(()) => {}
                Err(kube::Error::Api(error)) if error.code == 404 => {
                    tracing::warn!("the node object is gone, registering again");
                    self.sent = None;
                    return HURRY;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "node status was not written, trying again");
                    return Duration::from_secs(1);
                }
            }
        }
        if ready { CHECK } else { HURRY }
    }

    /// Makes the node object, or brings its labels up to date; answers the status the API has.
    async fn register(&self) -> Result<NodeStatus, kube::Error> {
        let config = &self.kubelet.config;
        let wanted = labels(config);
        if let Some(node) = self.api.get_opt(&config.node_name).await? {
            let now = node.metadata.labels.unwrap_or_default();
            if wanted.iter().any(|(key, value)| now.get(key) != Some(value)) {
                let patch = json!({"metadata": {"labels": wanted}});
                self.api.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            return Ok(node.status.unwrap_or_default());
        }
        let node = Node {
            metadata: ObjectMeta {
                name: Some(config.node_name.clone()),
                labels: Some(wanted),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
                ..NodeSpec::default()
            }),
            status: None,
        };
        tracing::info!(node = config.node_name, "registering the node");
        let made = self.api.create(&PostParams::default(), &node).await?;
        Ok(made.status.unwrap_or_default())
    }

    /// `whole`: what rarely changes (images, versions) is asked for too.
    async fn observe(&mut self, whole: bool) -> NodeStatus {
        let kubelet = self.kubelet.clone();
        let config = &kubelet.config;
        let runtime = kubelet.cri.status().await;
        kubelet.set_runtime_up(runtime.is_ok());
        let (seen, pressure) = {
            let seen = pressure::observe(&config.root);
            let found = pressure::judge(&seen, &config.eviction);
            (seen, self.hold(found))
        };
        let capacity = capacity(&self.kubelet, &seen);
        let mut addresses: Vec<NodeAddress> = config
            .node_addresses
            .iter()
            .map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() })
            .collect();
        addresses.push(NodeAddress { type_: "Hostname".into(), address: config.node_name.clone() });
        let port = config.server.as_ref().map(|server| i32::from(server.bind.port()));
        let known = self.sent.as_ref().filter(|_| !whole);
        let (images, node_info) = match known.map(|s| (s.images.clone(), s.node_info.clone())) {
            Some((Some(images), Some(info))) => (Some(images), Some(info)),
            _ => (images(&kubelet).await, Some(self.system_info().await)),
        };
        NodeStatus {
            addresses: Some(addresses),
            allocatable: Some(allocatable(&capacity, config.eviction.memory_available)),
            capacity: Some(capacity),
            conditions: Some(self.conditions(pressure, runtime.as_ref().ok())),
            daemon_endpoints: port
                .map(|port| NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port }) }),
            images: images.or_else(|| self.sent.as_ref().and_then(|s| s.images.clone())),
            node_info,
            ..NodeStatus::default()
        }
    }

    fn hold(&mut self, found: Pressure) -> Pressure {
        let now = Instant::now();
        let mut told = [found.memory, found.disk, found.pids];
        for (held, told) in self.held.iter_mut().zip(&mut told) {
            if *told {
                *held = Some(now + PRESSURE_HOLD);
            }
            *told = held.is_some_and(|until| until > now);
        }
        Pressure { memory: told[0], disk: told[1], pids: told[2] }
    }

    fn conditions(&self, pressure: Pressure, runtime: Option<&api::RuntimeStatus>) -> Vec<NodeCondition> {
        let now = Time(seconds(Timestamp::now()));
        let ready = readiness(runtime);
        let pressures = [
            (
                "MemoryPressure",
                pressure.memory,
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ),
            (
                "DiskPressure",
                pressure.disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ),
            (
                "PIDPressure",
                pressure.pids,
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ),
        ];
        let mut all: Vec<(&str, bool, String, String)> = pressures
            .into_iter()
            .map(|(type_, under, bad, good)| {
                let (reason, message) = if under { bad } else { good };
                (type_, under, reason.to_owned(), message.to_owned())
            })
            .collect();
        all.push(match ready {
            Ok(()) => ("Ready", true, "KubeletReady".into(), "kubelet is posting ready status".into()),
            Err(why) => ("Ready", false, "KubeletNotReady".into(), why),
        });
        let old = self.sent.as_ref().and_then(|s| s.conditions.as_ref());
        let conditions = all.into_iter().map(|(type_, status, reason, message)| {
            let status = if status { "True" } else { "False" };
            let before = old.into_iter().flatten().find(|c| c.type_ == type_ && c.status == status);
            NodeCondition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: Some(reason),
                message: Some(message),
                last_heartbeat_time: Some(now.clone()),
                last_transition_time: before
                    .and_then(|c| c.last_transition_time.clone())
                    .or(Some(now.clone())),
            }
        });
        conditions.collect()
    }

    async fn system_info(&self) -> NodeSystemInfo {
        let known = self.sent.as_ref().and_then(|s| s.node_info.as_ref());
        let runtime = match self.kubelet.cri.version().await {
            Ok(version) => format!("{}://{}", version.runtime_name, version.runtime_version),
            Err(_) => known.map_or(String::new(), |i| i.container_runtime_version.clone()),
        };
        NodeSystemInfo {
            machine_id: info::line("/etc/machine-id"),
            system_uuid: info::line("/sys/class/dmi/id/product_uuid"),
            boot_id: info::line("/proc/sys/kernel/random/boot_id"),
            kernel_version: info::line("/proc/sys/kernel/osrelease"),
            os_image: info::os_image(),
            container_runtime_version: runtime,
            kubelet_version: consts::KUBERNETES_VERSION.into(),
            operating_system: "linux".into(),
            architecture: info::go_arch().into(),
            ..NodeSystemInfo::default()
        }
    }

    async fn write(&mut self, status: NodeStatus) -> Result<(), kube::Error> {
        let patch = patch(self.sent.as_ref(), &status);
        let name = &self.kubelet.config.node_name;
        let body = json!({"status": patch});
        let node = self.api.patch_status(name, &PatchParams::default(), &Patch::Strategic(body)).await?;
        let was_ready = is_ready(self.sent.as_ref());
        if is_ready(Some(&status)) != was_ready {
            let (reason, text) =
                if was_ready { ("NodeNotReady", "NotReady") } else { ("NodeReady", "Ready") };
            let message = format!("Node {name} status is now: Node{text}");
            self.kubelet.events.node(&node, crate::events::Severity::Normal, reason, message);
        }
        self.sent = Some(status);
        self.reported = Some(Instant::now());
        Ok(())
    }
}

fn is_ready(status: Option<&NodeStatus>) -> bool {
    let conditions = status.and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Ready when the runtime says that it and its network are.
fn readiness(runtime: Option<&api::RuntimeStatus>) -> Result<(), String> {
    let Some(runtime) = runtime else {
        return Err("container runtime is down".into());
    };
    for wanted in ["RuntimeReady", "NetworkReady"] {
        let found = runtime.conditions.iter().find(|c| c.r#type == wanted);
        match found {
            Some(condition) if condition.status => {}
            Some(condition) => {
                let what =
                    if wanted == "NetworkReady" { "container runtime network" } else { "container runtime" };
                return Err(format!(
                    "{what} not ready: {wanted}=false reason:{} message:{}",
                    condition.reason, condition.message
                ));
            }
            None => return Err(format!("container runtime status does not tell {wanted}")),
        }
    }
    Ok(())
}

fn quantity(text: String) -> Quantity {
    Quantity(text)
}

fn capacity(kubelet: &Shared, seen: &pressure::Observed) -> BTreeMap<String, Quantity> {
    let size = &kubelet.capacity;
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), quantity((size.milli_cpu / 1000).to_string())),
        ("memory".to_owned(), quantity(format!("{}Ki", size.memory / 1024))),
        ("pods".to_owned(), quantity(size.pods.to_string())),
    ]);
    let disk = seen.disk.or_else(|| fs_usage(&kubelet.config.root).ok());
    if let Some(disk) = disk {
        all.insert("ephemeral-storage".to_owned(), quantity(format!("{}Ki", disk.capacity / 1024)));
    }
    for entry in std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kib) =
            name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse::<u64>().ok())
        else {
            continue;
        };
        let count: u64 =
            info::line(&entry.path().join("nr_hugepages").display().to_string()).parse().unwrap_or(0);
        let unit = if kib >= 1 << 20 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
        let total = if count == 0 { "0".to_owned() } else { format!("{}Ki", count * kib) };
        all.insert(format!("hugepages-{unit}"), quantity(total));
    }
    all
}

/// Capacity less what is kept for the machine: the memory at which eviction would begin, a tenth of the disk.
fn allocatable(capacity: &BTreeMap<String, Quantity>, reserved_memory: u64) -> BTreeMap<String, Quantity> {
    let mut all = capacity.clone();
    if let Some(memory) = all.get_mut("memory") {
        let bytes = crate::plan::quantity::whole(&memory.0).unwrap_or(0) - reserved_memory as i64;
        *memory = quantity(format!("{}Ki", bytes.max(0) / 1024));
    }
    if let Some(disk) = all.get_mut("ephemeral-storage") {
        let bytes = crate::plan::quantity::whole(&disk.0).unwrap_or(0);
        *disk = quantity((i128::from(bytes) * 9 / 10).to_string());
    }
    all
}

async fn images(kubelet: &Shared) -> Option<Vec<ContainerImage>> {
    let mut found = kubelet.cri.list_images().await.ok()?;
    found.sort_by(|a, b| (b.size, &a.id).cmp(&(a.size, &b.id)));
    found.truncate(MAX_IMAGES);
    let images = found.into_iter().map(|image| {
        let mut names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
        names.truncate(5);
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    Some(images.collect())
}

/// Equal but for the heartbeat.
fn same(sent: Option<&NodeStatus>, now: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    sent.is_some_and(|sent| patch_fields(&plain(sent), &plain(now)).is_empty())
}

fn patch(sent: Option<&NodeStatus>, now: &NodeStatus) -> Value {
    Value::Object(patch_fields(sent.unwrap_or(&NodeStatus::default()), now))
}

/// Fields of ours that differ. Conditions merge by type, so those of others stay; addresses are replaced whole.
fn patch_fields(old: &NodeStatus, new: &NodeStatus) -> Map<String, Value> {
    let object = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let mut out = Map::new();
    for (key, value) in new {
        let before = old.get(&key);
        if key == "conditions" {
            let known: Vec<Value> = before.and_then(Value::as_array).cloned().unwrap_or_default();
            let all = value.as_array().cloned().unwrap_or_default();
            let changed: Vec<Value> =
                all.into_iter().filter(|condition| !known.contains(condition)).collect();
            if !changed.is_empty() {
                out.insert(key, Value::Array(changed));
            }
        } else if before != Some(&value) {
            let value = match (key.as_str(), value) {
                ("addresses", Value::Array(list)) if before.is_some() => {
                    let mut whole = vec![json!({"$patch": "replace"})];
                    whole.extend(list);
                    Value::Array(whole)
                }
                (_, value) => value,
            };
            out.insert(key, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_patched_and_heartbeats_alone_are_no_change() {
        let status = |beat: i64, ready: &str, address: &str| -> NodeStatus {
            serde_json::from_value(json!({
                "addresses": [{"type": "InternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": Timestamp::from_second(beat).unwrap()}],
                "nodeInfo": NodeSystemInfo::default()}))
            .unwrap()
        };
        let old = status(1, "True", "10.0.0.1");
        assert!(same(Some(&old), &status(2, "True", "10.0.0.1")));
        assert!(!same(Some(&old), &status(2, "False", "10.0.0.1")));
        assert!(!same(None, &old));
        let patch = patch_fields(&old, &status(1, "True", "10.0.0.2"));
        assert_eq!(
            Value::Object(patch),
            json!({"addresses": [{"$patch": "replace"}, {"type": "InternalIP", "address": "10.0.0.2"}]})
        );
    }

    #[test]
    fn the_runtime_says_why_the_node_is_not_ready() {
        let status = |network: bool| api::RuntimeStatus {
            conditions: ["RuntimeReady", "NetworkReady"]
                .map(|name| api::RuntimeCondition {
                    r#type: name.into(),
                    status: name == "RuntimeReady" || network,
                    reason: "NetworkPluginNotReady".into(),
                    message: "cni config uninitialized".into(),
                })
                .to_vec(),
        };
        assert_eq!(readiness(Some(&status(true))), Ok(()));
        let why = readiness(Some(&status(false))).unwrap_err();
        assert_eq!(
            why,
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni config uninitialized"
        );
        assert!(readiness(None).is_err());
    }

    #[test]
    fn allocatable_is_less_than_capacity() {
        let capacity = BTreeMap::from([
            ("cpu".to_owned(), quantity("2".into())),
            ("memory".to_owned(), quantity("1048576Ki".into())),
            ("ephemeral-storage".to_owned(), quantity("1000Ki".into())),
        ]);
        let all = allocatable(&capacity, 100 << 20);
        assert_eq!((all["cpu"].0.as_str(), all["memory"].0.as_str()), ("2", "946176Ki"));
        assert_eq!(all["ephemeral-storage"].0, "921600");
    }
}
