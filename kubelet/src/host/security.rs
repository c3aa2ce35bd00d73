//! Security contexts as the runtime takes them. What cannot be kept is an error: nothing runs with less than it asks for.
use crate::cri::api::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy, security_profile::ProfileType,
};
use crate::plan::pod;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};
use std::path::{Component, Path};

/// Folders of the kernel that containers do not see (the runtime-spec's and upstream's list).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Folders of the kernel that containers may only read.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub username: String,
}

/// A security setting that cannot be kept.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageIsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    NonNumericUser { user: String, pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    UserIsRoot { pod: String, container: String },
    #[error("seccomp profile {0:?} is not a path below the node's seccomp folder")]
    SeccompPath(String),
    #[error("seccomp profile {0} is not on this node")]
    SeccompMissing(String),
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    SeccompUnset,
    #[error("seccomp profile type {0:?} is not known")]
    SeccompType(String),
    #[error("AppArmor is not enabled on this node, and the pod asks for profile {0}")]
    NoAppArmor(String),
    #[error("SupplementalGroupsPolicy=Strict is not supported in this node")]
    StrictGroups,
    #[error("unsupported supplementalGroupsPolicy: {0}")]
    GroupsPolicy(String),
}

/// What the node offers to confine containers with.
#[derive(Clone, Debug)]
pub struct NodeSecurity {
    pub seccomp_root: std::path::PathBuf,
    pub app_armor: bool,
    /// The runtime keeps `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

/// Pod-wide and container-wide settings as one; the container's win.
pub fn effective(pod: Option<&PodSecurityContext>, container: Option<&SecurityContext>) -> SecurityContext {
    let mut effective = container.cloned().unwrap_or_default();
    if let Some(pod) = pod {
        effective.run_as_user = effective.run_as_user.or(pod.run_as_user);
        effective.run_as_group = effective.run_as_group.or(pod.run_as_group);
        effective.run_as_non_root = effective.run_as_non_root.or(pod.run_as_non_root);
        effective.se_linux_options = effective.se_linux_options.or_else(|| pod.se_linux_options.clone());
        effective.seccomp_profile = effective.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
        effective.app_armor_profile = effective.app_armor_profile.or_else(|| pod.app_armor_profile.clone());
    }
    effective
}

/// A container's security context.
pub fn container(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    target: Option<&str>,
    node: &NodeSecurity,
) -> Result<LinuxContainerSecurityContext, SecurityError> {
    let pod_security = pod::spec(pod).security_context.as_ref();
    let security = effective(pod_security, container.security_context.as_ref());
    verify_non_root(pod, container, &security, user)?;
    let privileged = security.privileged.unwrap_or(false);
    let unmasked = security.proc_mount.as_deref() == Some("Unmasked");
    let list =
        |paths: &[&str]| if unmasked { vec![] } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    let (run_as_user, run_as_username) = match security.run_as_user {
        Some(uid) => (Some(uid), String::new()),
        None => (user.uid, user.username.clone()),
    };
    // The runtime takes a group only together with a user.
    let run_as_user =
        run_as_user.or_else(|| security.run_as_group.filter(|_| run_as_username.is_empty()).map(|_| 0));
    let policy = pod_security.and_then(|s| s.supplemental_groups_policy.as_deref());
    Ok(LinuxContainerSecurityContext {
        capabilities: security.capabilities.as_ref().map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Capability::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: security.se_linux_options.as_ref().map(selinux),
        run_as_user: run_as_user.map(|value| Int64Value { value }),
        run_as_group: security.run_as_group.map(|value| Int64Value { value }),
        run_as_username,
        readonly_rootfs: security.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: groups(pod_security),
        supplemental_groups_policy: groups_policy(policy, node)?,
        no_new_privs: security.allow_privilege_escalation == Some(false),
        masked_paths: list(MASKED),
        readonly_paths: list(READ_ONLY),
        seccomp: Some(seccomp(security.seccomp_profile.as_ref(), node)?),
        apparmor: app_armor(security.app_armor_profile.as_ref(), privileged, node)?,
        ..LinuxContainerSecurityContext::default()
    })
}

/// The sandbox's security context: what the pod's namespaces and its pause process run with.
pub fn sandbox(pod: &Pod, node: &NodeSecurity) -> Result<LinuxSandboxSecurityContext, SecurityError> {
    let security = pod::spec(pod).security_context.as_ref();
    let any_privileged = pod::containers(pod)
        .iter()
        .chain(pod::init_containers(pod))
        .any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    let policy = security.and_then(|s| s.supplemental_groups_policy.as_deref());
    let app_armor_profile = security.and_then(|s| s.app_armor_profile.as_ref());
    Ok(LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        selinux_options: security.and_then(|s| s.se_linux_options.as_ref()).map(selinux),
        run_as_user: security.and_then(|s| s.run_as_user).map(|value| Int64Value { value }),
        run_as_group: security
            .filter(|s| s.run_as_user.is_some())
            .and_then(|s| s.run_as_group)
            .map(|value| Int64Value { value }),
        readonly_rootfs: false,
        supplemental_groups: groups(security),
        supplemental_groups_policy: groups_policy(policy, node)?,
        privileged: any_privileged,
        // The pause process needs nothing: it always runs under the runtime's filter.
        seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
        apparmor: app_armor(app_armor_profile, any_privileged, node)?,
        ..LinuxSandboxSecurityContext::default()
    })
}

fn namespaces(pod: &Pod, target: Option<&str>) -> NamespaceOption {
    let spec = pod::spec(pod);
    let mode = |host: Option<bool>| match host {
        Some(true) => NamespaceMode::Node,
        _ => NamespaceMode::Pod,
    };
    let pid = match (spec.host_pid, spec.share_process_namespace, target) {
        (Some(true), _, _) => NamespaceMode::Node,
        (_, Some(true), _) => NamespaceMode::Pod,
        (_, _, Some(_)) => NamespaceMode::Target,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: mode(spec.host_network) as i32,
        pid: pid as i32,
        ipc: mode(spec.host_ipc) as i32,
        target_id: target.filter(|_| pid == NamespaceMode::Target).unwrap_or("").to_owned(),
        userns_options: None,
    }
}

fn groups(security: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(security) = security else { return vec![] };
    security.fs_group.into_iter().chain(security.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(policy: Option<&str>, node: &NodeSecurity) -> Result<i32, SecurityError> {
    match policy {
        None | Some("Merge") => Ok(SupplementalGroupsPolicy::Merge as i32),
        Some("Strict") if !node.strict_groups => Err(SecurityError::StrictGroups),
        Some("Strict") => Ok(SupplementalGroupsPolicy::Strict as i32),
        Some(other) => Err(SecurityError::GroupsPolicy(other.to_owned())),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: ProfileType, reference: &str) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref: reference.to_owned() }
}

fn seccomp(wanted: Option<&SeccompProfile>, node: &NodeSecurity) -> Result<SecurityProfile, SecurityError> {
    let Some(wanted) = wanted else { return Ok(profile(ProfileType::Unconfined, "")) };
    match wanted.type_.as_str() {
        "Unconfined" => Ok(profile(ProfileType::Unconfined, "")),
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, "")),
        "Localhost" => {
            let name = wanted.localhost_profile.as_deref().filter(|n| !n.is_empty());
            let name = name.ok_or(SecurityError::SeccompUnset)?;
            if !Path::new(name).components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(SecurityError::SeccompPath(name.to_owned()));
            }
            let path = node.seccomp_root.join(name);
            if !path.is_file() {
                return Err(SecurityError::SeccompMissing(path.display().to_string()));
            }
            Ok(profile(ProfileType::Localhost, &path.display().to_string()))
        }
        other => Err(SecurityError::SeccompType(other.to_owned())),
    }
}

fn app_armor(
    wanted: Option<&AppArmorProfile>,
    privileged: bool,
    node: &NodeSecurity,
) -> Result<Option<SecurityProfile>, SecurityError> {
    let Some(wanted) = wanted else {
        // The runtime's own choice where there is AppArmor; nothing where there is none.
        return Ok(None);
    };
    let localhost = wanted.localhost_profile.as_deref().unwrap_or("");
    if !node.app_armor && wanted.type_ != "Unconfined" && !privileged {
        let name = if wanted.type_ == "Localhost" { localhost } else { &wanted.type_ };
        return Err(SecurityError::NoAppArmor(name.to_owned()));
    }
    Ok(node.app_armor.then(|| match wanted.type_.as_str() {
        "Unconfined" => profile(ProfileType::Unconfined, ""),
        "Localhost" => profile(ProfileType::Localhost, localhost),
        _ => profile(ProfileType::RuntimeDefault, ""),
    }))
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    security: &SecurityContext,
    user: &ImageUser,
) -> Result<(), SecurityError> {
    if security.run_as_non_root != Some(true) {
        return Ok(());
    }
    let (pod, container) = (pod::full_name(pod), container.name.clone());
    match (security.run_as_user, user.uid) {
        (Some(0), _) => Err(SecurityError::UserIsRoot { pod, container }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(SecurityError::ImageIsRoot { pod, container }),
        (None, None) if user.username.is_empty() => Err(SecurityError::ImageIsRoot { pod, container }),
        (None, None) => Err(SecurityError::NonNumericUser { user: user.username.clone(), pod, container }),
        (None, Some(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(
        pod_security: serde_json::Value,
        security: serde_json::Value,
        user: ImageUser,
    ) -> Result<LinuxContainerSecurityContext, SecurityError> {
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"securityContext": pod_security, "containers": [{"name": "c", "securityContext": security}]}}))
        .unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("p.json"), "{}").unwrap();
        let node =
            NodeSecurity { seccomp_root: root.path().to_path_buf(), app_armor: false, strict_groups: false };
        container(&pod, &pod.spec.as_ref().unwrap().containers[0], &user, None, &node)
    }

    fn root() -> ImageUser {
        ImageUser { uid: Some(0), username: String::new() }
    }

    #[test]
    fn non_root_is_verified() {
        let non_root = serde_json::json!({"runAsNonRoot": true});
        let none = serde_json::json!({});
        let named = ImageUser { uid: None, username: "web".into() };
        assert!(matches!(
            run(non_root.clone(), none.clone(), root()),
            Err(SecurityError::ImageIsRoot { .. })
        ));
        assert!(matches!(
            run(none.clone(), non_root.clone(), named),
            Err(SecurityError::NonNumericUser { .. })
        ));
        let zero = serde_json::json!({"runAsUser": 0});
        assert!(matches!(run(non_root.clone(), zero, root()), Err(SecurityError::UserIsRoot { .. })));
        let user = serde_json::json!({"runAsUser": 1000, "runAsGroup": 3000});
        let context = run(non_root, user, root()).unwrap();
        assert_eq!((context.run_as_user.unwrap().value, context.run_as_group.unwrap().value), (1000, 3000));
    }

    #[test]
    fn selinux_labels_are_handed_over() {
        let label = |level: &str| serde_json::json!({"seLinuxOptions": {"level": level, "type": "t"}});
        let context = run(label("s0"), serde_json::json!({}), root()).unwrap().selinux_options.unwrap();
        assert_eq!((context.level.as_str(), context.r#type.as_str()), ("s0", "t"));
        let own = run(label("s0"), label("s1"), root()).unwrap().selinux_options.unwrap();
        assert_eq!(own.level, "s1", "the container's own come first");
    }

    #[test]
    fn the_whole_context_is_handed_over() {
        let context = run(
            serde_json::json!({"fsGroup": 2000, "supplementalGroups": [5], "seccompProfile": {"type": "RuntimeDefault"}}),
            serde_json::json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}),
            root(),
        )
        .unwrap();
        assert_eq!(context.supplemental_groups, [2000, 5]);
        assert!(context.no_new_privs && context.readonly_rootfs && !context.privileged);
        assert_eq!(context.capabilities.unwrap().drop_capabilities, ["ALL"]);
        assert_eq!(context.seccomp.unwrap().profile_type, ProfileType::RuntimeDefault as i32);
        assert!(context.masked_paths.iter().any(|p| p == "/proc/kcore"));
        let unmasked =
            run(serde_json::json!({}), serde_json::json!({"procMount": "Unmasked"}), root()).unwrap();
        assert!(unmasked.masked_paths.is_empty() && unmasked.readonly_paths.is_empty());
    }

    #[test]
    fn seccomp_never_fails_open() {
        let local = |name: &str| serde_json::json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
        let of = |name| run(serde_json::json!({}), local(name), root());
        assert!(of("p.json").unwrap().seccomp.unwrap().localhost_ref.ends_with("/p.json"));
        assert!(matches!(of("../etc/passwd"), Err(SecurityError::SeccompPath(_))));
        assert!(matches!(of("/p.json"), Err(SecurityError::SeccompPath(_))));
        assert!(matches!(of("none.json"), Err(SecurityError::SeccompMissing(_))));
        assert!(matches!(of(""), Err(SecurityError::SeccompUnset)));
    }

    #[test]
    fn strict_groups_are_refused_where_the_runtime_would_not_keep_them() {
        let strict = serde_json::json!({"supplementalGroupsPolicy": "Strict"});
        assert_eq!(run(strict, serde_json::json!({}), root()).unwrap_err(), SecurityError::StrictGroups);
        let merge = serde_json::json!({"supplementalGroupsPolicy": "Merge"});
        assert!(run(merge, serde_json::json!({}), root()).is_ok());
    }

    #[test]
    fn app_armor_is_refused_where_there_is_none() {
        let wanted = serde_json::json!({"appArmorProfile": {"type": "RuntimeDefault"}});
        assert!(matches!(run(wanted, serde_json::json!({}), root()), Err(SecurityError::NoAppArmor(_))));
        let unconfined = serde_json::json!({"appArmorProfile": {"type": "Unconfined"}});
        assert!(run(unconfined, serde_json::json!({}), root()).is_ok());
    }
}
