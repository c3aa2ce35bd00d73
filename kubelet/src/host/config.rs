//! A pod and its containers as the runtime is asked for them.
use super::dns::{self, DnsSettings};
use super::env::{self, EnvError, Facts, Refs};
use super::security::{self, ImageUser, NodeSecurity, SecurityError};
use super::subpath::{self, SubPathError};
use super::volumes::VolumePaths;
use super::{files, hosts};
use crate::cri::{self, api, container_annotations};
use crate::plan::pod::{self, ContainerRef};
use crate::plan::qos;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// What is the same for all pods of this node.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub node_name: String,
    pub hostname: String,
    pub dns: DnsSettings,
    pub security: NodeSecurity,
    pub pod_logs: PathBuf,
    /// Bytes of memory of the machine, for OOM scores.
    pub memory: i64,
    /// The OOM score below which the kernel lets this process set none (0 where it may set all).
    pub oom_floor: i64,
}

/// A container that cannot be configured: it waits with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}: {source}")]
    SubPath { mount: String, container: String, source: SubPathError },
    #[error("volume {0:?} is mounted and not in the pod")]
    NoVolume(String),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Folder of a pod's logs.
pub fn log_folder(root: &Path, pod: &Pod) -> PathBuf {
    root.join(format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod)))
}

/// The sandbox's configuration.
pub fn sandbox(
    pod: &Pod,
    attempt: u32,
    cgroup_parent: &str,
    node: &NodeView,
) -> Result<api::PodSandboxConfig, ConfigError> {
    let (_, _, hostname) = hosts::names(pod, &node.dns.domain, &node.hostname);
    let node_file = std::fs::read_to_string(&node.dns.resolv_conf).unwrap_or_default();
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().into_iter().flatten().collect();
    labels.extend(pod_labels(pod));
    let sysctls = pod::spec(pod).security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    let resources = qos::pod_resources(pod);
    Ok(api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata {
            name: pod::name(pod).to_owned(),
            uid: pod::uid(pod).to_owned(),
            namespace: pod::namespace(pod).to_owned(),
            attempt,
        }),
        hostname: if pod::host_network(pod) { String::new() } else { hostname },
        log_directory: log_folder(&node.pod_logs, pod).display().to_string(),
        dns_config: Some(dns::config(pod, &node.dns, &node_file)),
        port_mappings: port_mappings(pod),
        labels,
        annotations: pod.metadata.annotations.clone().into_iter().flatten().collect(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(security::sandbox(pod, &node.security)?),
            sysctls: sysctls.map(|s| (s.name.replace('/', "."), s.value.clone())).collect(),
            overhead: None,
            resources: Some(api::LinuxContainerResources {
                cpu_period: qos::QUOTA_PERIOD,
                cpu_quota: resources.cpu_limit.map_or(0, qos::quota),
                cpu_shares: qos::shares(resources.cpu_request) as i64,
                memory_limit_in_bytes: resources.memory_limit.unwrap_or(0),
                ..api::LinuxContainerResources::default()
            }),
        }),
        windows: None,
    })
}

fn pod_labels(pod: &Pod) -> [(String, String); 3] {
    [
        (cri::POD_NAME.to_owned(), pod::name(pod).to_owned()),
        (cri::POD_NAMESPACE.to_owned(), pod::namespace(pod).to_owned()),
        (cri::POD_UID.to_owned(), pod::uid(pod).to_owned()),
    ]
}

/// Host ports, which the runtime hands to the CNI plugins as their `portMappings`.
fn port_mappings(pod: &Pod) -> Vec<api::PortMapping> {
    if pod::host_network(pod) {
        return vec![];
    }
    let sidecars = pod::init_containers(pod).iter().filter(|c| pod::is_sidecar(c));
    let ports = pod::containers(pod).iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.is_some_and(|p| p > 0))
        .map(|port| api::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => api::Protocol::Udp,
                Some("SCTP") => api::Protocol::Sctp,
                _ => api::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// All that goes into one container.
pub struct ContainerInput<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub reference: ContainerRef,
    pub attempt: u32,
    /// What the runtime resolved the image to.
    pub image_ref: &'a str,
    pub user: &'a ImageUser,
    pub refs: &'a Refs,
    pub facts: &'a Facts<'a>,
    pub volumes: &'a VolumePaths,
    pub node: &'a NodeView,
    /// The pod's folder below the kubelet's.
    pub pod_folder: &'a Path,
    /// Id of the container whose process namespace an ephemeral one joins.
    pub target: Option<&'a str>,
}

/// A container's configuration; makes the files that are mounted into it.
pub fn container(input: &ContainerInput<'_>) -> Result<api::ContainerConfig, ConfigError> {
    let ContainerInput { pod, container, node, .. } = *input;
    let envs = env::environment(pod, container, input.refs, input.facts)?;
    let by_name: HashMap<&str, &str> = envs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |words: Option<&Vec<String>>| -> Vec<String> {
        let lookup = |name: &str| by_name.get(name).map(|v| (*v).to_owned());
        words.into_iter().flatten().map(|word| env::expand(word, lookup)).collect()
    };
    let security = security::container(pod, container, input.user, input.target, &node.security)?;
    let image = container.image.clone().unwrap_or_default();
    let mut labels: HashMap<String, String> = pod_labels(pod).into();
    labels.insert(cri::CONTAINER_NAME.to_owned(), container.name.clone());
    let log_path = format!("{}/{}.log", container.name, input.attempt);
    let mounts = mounts(input, &by_name)?;
    let log_folder = log_folder(&node.pod_logs, pod).join(&container.name);
    files::folder(&log_folder, 0o755).map_err(io_error("make", &log_folder))?;
    Ok(api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: container.name.clone(), attempt: input.attempt }),
        image: Some(api::ImageSpec {
            image: input.image_ref.to_owned(),
            user_specified_image: image,
            ..api::ImageSpec::default()
        }),
        command: expand(container.command.as_ref()),
        args: expand(container.args.as_ref()),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels,
        annotations: container_annotations(pod, container, input.attempt),
        log_path,
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(api::LinuxContainerConfig {
            resources: Some(resources(pod, container, node)),
            security_context: Some(security),
        }),
        envs: envs
            .iter()
            .map(|(key, value)| api::KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        ..api::ContainerConfig::default()
    })
}

fn resources(pod: &Pod, container: &Container, node: &NodeView) -> api::LinuxContainerResources {
    api::LinuxContainerResources {
        cpu_period: qos::QUOTA_PERIOD,
        cpu_quota: qos::quota(qos::cpu_limit(container)),
        cpu_shares: qos::shares(qos::cpu_request(container)) as i64,
        memory_limit_in_bytes: qos::memory_limit(container),
        // Where the kernel refuses a lower score than our own, asking for it would fail the container.
        oom_score_adj: qos::oom_score_adj(pod, container, node.memory).max(node.oom_floor),
        ..api::LinuxContainerResources::default()
    }
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ConfigError {
    let path = path.to_path_buf();
    move |source| ConfigError::Io { what, path, source }
}

fn mounts(input: &ContainerInput<'_>, vars: &HashMap<&str, &str>) -> Result<Vec<api::Mount>, ConfigError> {
    let container = input.container;
    let mut out = Vec::new();
    let declared = container.volume_mounts.as_deref().unwrap_or(&[]);
    for (index, mount) in declared.iter().enumerate() {
        out.push(volume_mount(input, mount, index, vars)?);
    }
    let taken = |path: &str| declared.iter().any(|m| m.mount_path.trim_end_matches('/') == path);
    if !taken("/etc/hosts") {
        let path = input.pod_folder.join("etc-hosts");
        if path.exists() {
            out.push(plain_mount("/etc/hosts", &path));
        }
    }
    let message = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message.is_empty() && !taken(message) {
        let folder = input.pod_folder.join("containers").join(&container.name);
        std::fs::create_dir_all(&folder).map_err(io_error("make", &folder))?;
        let path = folder.join(format!("{:08x}", rand::random::<u32>()));
        files::replace(&path, b"", 0o666).map_err(io_error("make", &path))?;
        out.push(plain_mount(message, &path));
    }
    Ok(out)
}

fn plain_mount(container_path: &str, host_path: &Path) -> api::Mount {
    api::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..api::Mount::default()
    }
}

fn volume_mount(
    input: &ContainerInput<'_>,
    mount: &VolumeMount,
    index: usize,
    vars: &HashMap<&str, &str>,
) -> Result<api::Mount, ConfigError> {
    let volume = input.volumes.get(&mount.name).ok_or_else(|| ConfigError::NoVolume(mount.name.clone()))?;
    let sub = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expr), _) if !expr.is_empty() => {
            env::expand(expr, |name| vars.get(name).map(|v| (*v).to_owned()))
        }
        (_, Some(path)) => path.to_owned(),
        _ => String::new(),
    };
    let host_path = if sub.is_empty() {
        volume.clone()
    } else {
        let container = &input.container.name;
        let target = input
            .pod_folder
            .join("volume-subpaths")
            .join(&mount.name)
            .join(container)
            .join(index.to_string());
        subpath::bind(volume, &sub, &target).map_err(|source| ConfigError::SubPath {
            mount: mount.name.clone(),
            container: container.clone(),
            source,
        })?;
        target
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => api::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => api::MountPropagation::PropagationBidirectional,
        _ => api::MountPropagation::PropagationPrivate,
    };
    let path = &mount.mount_path;
    let absolute = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
    Ok(api::Mount {
        container_path: absolute,
        host_path: host_path.display().to_string(),
        readonly: mount.read_only.unwrap_or(false),
        propagation: propagation as i32,
        ..api::Mount::default()
    })
}

/// Writes the pod's hosts file; the runtime mounts it into every container that brings none of its own.
pub fn write_hosts(
    pod: &Pod,
    pod_ips: &[String],
    pod_folder: &Path,
    node: &NodeView,
) -> Result<(), ConfigError> {
    let aliases = pod::spec(pod).host_aliases.as_deref().unwrap_or(&[]);
    let text = if pod::host_network(pod) {
        hosts::host_network(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
    } else {
        let (hostname, domain, _) = hosts::names(pod, &node.dns.domain, &node.hostname);
        hosts::managed(pod_ips, &hostname, &domain, aliases)
    };
    let path = pod_folder.join("etc-hosts");
    if std::fs::read(&path).is_ok_and(|now| now == text.as_bytes()) {
        return Ok(());
    }
    std::fs::create_dir_all(pod_folder).map_err(io_error("make", pod_folder))?;
    // Written in place: containers have the file itself mounted, a new one would not reach them.
    std::fs::write(&path, text).map_err(io_error("write", &path))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&path, mode).map_err(io_error("change the mode of", &path))
}

/// The lowest OOM score adjustment this process may give to a child: tried on itself, as there is no other way to know.
pub fn oom_floor() -> i64 {
    let path = "/proc/self/oom_score_adj";
    let Ok(own) = std::fs::read_to_string(path) else { return 0 };
    let own: i64 = own.trim().parse().unwrap_or(0);
    if std::fs::write(path, "-999").is_ok() {
        let _ = std::fs::write(path, own.to_string());
        return -1000;
    }
    own
}
