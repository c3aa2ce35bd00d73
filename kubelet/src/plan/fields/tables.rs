//! The tables: each field of each struct, and what becomes of it. `tests.rs` holds them to the API's schema (a field
//! that v1.35 has and a table has not fails) and every honoured field to a test that names it and exists.
use serde_json::Value;

/// What happens with a field.
#[derive(Clone, Copy, Debug)]
pub enum Care {
    /// Acted on here; the test that shows it: `file::function`, in `tests` or, with a path, in `src`.
    Honoured(&'static str),
    /// Acted on by another component; the kubelet has nothing to do.
    Elsewhere(&'static str),
    /// Not acted on, and without effect on what a pod may do or gets.
    Harmless(&'static str),
    /// Not acted on, and refused.
    Refused(&'static str),
    /// Not acted on: these values are refused, the others are what is done anyway.
    RefusedIf(fn(&Value) -> bool, &'static str),
}

/// One row: the field, and what happens.
pub type Row = (&'static str, Care);

use Care::{Elsewhere, Harmless, Honoured, Refused, RefusedIf};

const NO_DRA: &str = "dynamic resource allocation is not there yet";
const NOT_LINUX: &str = "this is a Linux node";
const NO_VOLUME: &str = "volumes of this type are not there yet";

/// Fields of `spec`.
#[rustfmt::skip]
pub static POD: &[Row] = &[
    ("activeDeadlineSeconds", Honoured("lifecycle::deadline")),
    ("affinity", Elsewhere("scheduler")),
    ("automountServiceAccountToken", Elsewhere("admission")),
    ("containers", Honoured("lifecycle::runs_and_is_deleted")),
    ("dnsConfig", Honoured("spec::names_and_dns")),
    ("dnsPolicy", Honoured("spec::names_and_dns")),
    ("enableServiceLinks", Honoured("api::references")),
    ("ephemeralContainers", Honoured("lifecycle::ephemeral_container")),
    ("hostAliases", Honoured("spec::names_and_dns")),
    ("hostIPC", Honoured("containers::namespaces")),
    ("hostNetwork", Honoured("containers::namespaces")),
    ("hostPID", Honoured("containers::namespaces")),
    ("hostUsers", RefusedIf(|v| *v == Value::Bool(false), "user namespaces are not there yet: hostUsers may not be false")),
    ("hostname", Honoured("spec::names_and_dns")),
    ("hostnameOverride", Honoured("spec::names_and_dns")),
    ("imagePullSecrets", Honoured("registry::images_are_pulled_with_the_pods_credentials")),
    ("initContainers", Honoured("lifecycle::init_containers_and_sidecars")),
    ("nodeName", Elsewhere("scheduler")),
    ("nodeSelector", Honoured("spec::what_the_node_cannot_give")),
    ("os", Honoured("spec::what_the_node_cannot_give")),
    ("overhead", Honoured("src/plan/qos.rs::a_pod_needs_the_peak_of_its_init_containers_or_the_sum_of_the_rest")),
    ("preemptionPolicy", Elsewhere("scheduler")),
    ("priority", Honoured("src/plan/qos.rs::critical_pods_are_killed_last")),
    ("priorityClassName", Elsewhere("admission")),
    ("readinessGates", Honoured("api::others_conditions_stay")),
    ("resourceClaims", Refused(NO_DRA)),
    ("resources", Honoured("spec::pod_resources")),
    ("restartPolicy", Honoured("lifecycle::completes_and_fails")),
    ("runtimeClassName", Refused("runtime classes are not there yet")),
    ("schedulerName", Elsewhere("scheduler")),
    ("schedulingGates", Elsewhere("scheduler")),
    ("securityContext", Honoured("containers::users_and_groups")),
    ("serviceAccount", Elsewhere("admission")),
    ("serviceAccountName", Honoured("api::references")),
    ("setHostnameAsFQDN", Honoured("spec::names_and_dns")),
    ("shareProcessNamespace", Honoured("containers::namespaces")),
    ("subdomain", Honoured("spec::names_and_dns")),
    ("terminationGracePeriodSeconds", Honoured("lifecycle::messages_hooks_and_grace")),
    ("tolerations", Elsewhere("scheduler")),
    ("topologySpreadConstraints", Elsewhere("scheduler")),
    ("volumes", Honoured("containers::volumes")),
    ("workloadRef", Elsewhere("scheduler")),
];

/// Fields of a container (init and ephemeral ones too).
#[rustfmt::skip]
pub static CONTAINER: &[Row] = &[
    ("args", Honoured("containers::environment")),
    ("command", Honoured("spec::restart_rules")),
    ("env", Honoured("containers::environment")),
    ("envFrom", Honoured("api::references")),
    ("image", Honoured("containers::users_and_groups")),
    ("imagePullPolicy", Honoured("lifecycle::missing_image_and_pull_never")),
    ("lifecycle", Honoured("lifecycle::messages_hooks_and_grace")),
    ("livenessProbe", Honoured("containers::probes_decide")),
    ("name", Honoured("spec::restart_rules")),
    ("ports", Honoured("containers::probes_decide")),
    ("readinessProbe", Honoured("containers::probes_decide")),
    ("resizePolicy", Harmless("in-place resize is not there yet; a changed request is not acted on")),
    ("resources", Honoured("containers::limits")),
    ("restartPolicy", Honoured("lifecycle::init_containers_and_sidecars")),
    ("restartPolicyRules", Honoured("spec::restart_rules")),
    ("securityContext", Honoured("containers::users_and_groups")),
    ("startupProbe", Honoured("containers::probes_decide")),
    ("stdin", Honoured("server::attach_and_terminals")),
    ("stdinOnce", Honoured("server::attach_and_terminals")),
    ("terminationMessagePath", Honoured("spec::restart_rules")),
    ("terminationMessagePolicy", Honoured("lifecycle::messages_hooks_and_grace")),
    ("tty", Honoured("server::attach_and_terminals")),
    ("volumeDevices", Refused("raw block volumes are not there yet")),
    ("volumeMounts", Honoured("containers::volumes")),
    ("workingDir", Honoured("containers::environment")),
];

/// What an ephemeral container has beside a container's fields.
pub static EPHEMERAL: &[Row] = &[("targetContainerName", Honoured("lifecycle::ephemeral_container"))];

/// Fields of a pod's security context.
#[rustfmt::skip]
pub static POD_SECURITY: &[Row] = &[
    ("appArmorProfile", Honoured("spec::what_the_node_cannot_give")),
    ("fsGroup", Honoured("containers::users_and_groups")),
    ("fsGroupChangePolicy", Harmless("as upstream, without effect on the volume types that are there")),
    ("runAsGroup", Honoured("containers::users_and_groups")),
    ("runAsNonRoot", Honoured("containers::non_root")),
    ("runAsUser", Honoured("containers::users_and_groups")),
    ("seLinuxChangePolicy", Harmless("no volume is relabelled")),
    ("seLinuxOptions", Honoured("src/host/security.rs::selinux_labels_are_handed_over")),
    ("seccompProfile", Honoured("containers::seccomp")),
    ("supplementalGroups", Honoured("containers::users_and_groups")),
    ("supplementalGroupsPolicy", Honoured("spec::supplemental_groups_policy")),
    ("sysctls", Honoured("containers::users_and_groups")),
    ("windowsOptions", Refused(NOT_LINUX)),
];

/// Fields of a container's security context.
#[rustfmt::skip]
pub static CONTAINER_SECURITY: &[Row] = &[
    ("allowPrivilegeEscalation", Honoured("containers::confinement")),
    ("appArmorProfile", Honoured("spec::what_the_node_cannot_give")),
    ("capabilities", Honoured("containers::confinement")),
    ("privileged", Honoured("containers::confinement")),
    ("procMount", Honoured("containers::confinement")),
    ("readOnlyRootFilesystem", Honoured("containers::confinement")),
    ("runAsGroup", Honoured("containers::users_and_groups")),
    ("runAsNonRoot", Honoured("containers::non_root")),
    ("runAsUser", Honoured("containers::users_and_groups")),
    ("seLinuxOptions", Honoured("src/host/security.rs::selinux_labels_are_handed_over")),
    ("seccompProfile", Honoured("containers::seccomp")),
    ("windowsOptions", Refused(NOT_LINUX)),
];

/// Fields of a container's resources, and of a pod's.
#[rustfmt::skip]
pub static RESOURCES: &[Row] = &[
    ("claims", Refused(NO_DRA)),
    ("limits", Honoured("containers::limits")),
    ("requests", Honoured("containers::limits")),
];

/// Fields of a container's lifecycle.
#[rustfmt::skip]
pub static LIFECYCLE: &[Row] = &[
    ("postStart", Honoured("lifecycle::messages_hooks_and_grace")),
    ("preStop", Honoured("lifecycle::messages_hooks_and_grace")),
    ("stopSignal", Refused("stop signals (gate ContainerStopSignals) are not there yet")),
];

/// Kinds of hook.
#[rustfmt::skip]
pub static HOOK: &[Row] = &[
    ("exec", Honoured("lifecycle::messages_hooks_and_grace")),
    ("httpGet", Honoured("probes::hooks")),
    ("sleep", Honoured("probes::hooks")),
    ("tcpSocket", Harmless("upstream has kept the field and never acts on it; validation refuses it")),
];

/// Fields of a probe.
#[rustfmt::skip]
pub static PROBE: &[Row] = &[
    ("exec", Honoured("containers::probes_decide")),
    ("failureThreshold", Honoured("containers::probes_decide")),
    ("grpc", Honoured("probes::grpc_and_https")),
    ("httpGet", Honoured("containers::probes_decide")),
    ("initialDelaySeconds", Honoured("probes::timing")),
    ("periodSeconds", Honoured("containers::probes_decide")),
    ("successThreshold", Honoured("src/probe/mod.rs::thresholds_need_results_in_a_row")),
    ("tcpSocket", Honoured("containers::probes_decide")),
    ("terminationGracePeriodSeconds", Honoured("probes::timing")),
    ("timeoutSeconds", Honoured("probes::timing")),
];

/// Fields of a mount of a volume.
#[rustfmt::skip]
pub static MOUNT: &[Row] = &[
    ("mountPath", Honoured("containers::volumes")),
    ("mountPropagation", Honoured("spec::mounts")),
    ("name", Honoured("containers::volumes")),
    ("readOnly", Honoured("containers::volumes")),
    ("recursiveReadOnly", RefusedIf(|v| v == "Enabled", "recursive read-only mounts are not there yet")),
    ("subPath", Honoured("containers::sub_paths")),
    ("subPathExpr", Honoured("containers::sub_paths")),
];

/// Sources of a variable.
#[rustfmt::skip]
pub static VARIABLE: &[Row] = &[
    ("configMapKeyRef", Honoured("api::references")),
    ("fieldRef", Honoured("containers::environment")),
    ("fileKeyRef", Refused("variables from files (gate EnvFiles) are not there yet")),
    ("resourceFieldRef", Honoured("src/host/env_tests.rs::every_kind_of_source")),
    ("secretKeyRef", Honoured("api::references")),
];

/// Kinds of volume. All that are not honoured mount something, so all are refused.
#[rustfmt::skip]
pub static VOLUME: &[Row] = &[
    ("awsElasticBlockStore", Refused(NO_VOLUME)),
    ("azureDisk", Refused(NO_VOLUME)),
    ("azureFile", Refused(NO_VOLUME)),
    ("cephfs", Refused(NO_VOLUME)),
    ("cinder", Refused(NO_VOLUME)),
    ("configMap", Honoured("api::references")),
    ("csi", Refused(NO_VOLUME)),
    ("downwardAPI", Honoured("containers::volumes")),
    ("emptyDir", Honoured("containers::volumes")),
    ("ephemeral", Refused(NO_VOLUME)),
    ("fc", Refused(NO_VOLUME)),
    ("flexVolume", Refused(NO_VOLUME)),
    ("flocker", Refused(NO_VOLUME)),
    ("gcePersistentDisk", Refused(NO_VOLUME)),
    ("gitRepo", Refused(NO_VOLUME)),
    ("glusterfs", Refused(NO_VOLUME)),
    ("hostPath", Honoured("containers::volumes")),
    ("image", Refused(NO_VOLUME)),
    ("iscsi", Refused(NO_VOLUME)),
    ("name", Honoured("containers::volumes")),
    ("nfs", Refused(NO_VOLUME)),
    ("persistentVolumeClaim", Refused(NO_VOLUME)),
    ("photonPersistentDisk", Refused(NO_VOLUME)),
    ("portworxVolume", Refused(NO_VOLUME)),
    ("projected", Honoured("api::references")),
    ("quobyte", Refused(NO_VOLUME)),
    ("rbd", Refused(NO_VOLUME)),
    ("scaleIO", Refused(NO_VOLUME)),
    ("secret", Honoured("api::references")),
    ("storageos", Refused(NO_VOLUME)),
    ("vsphereVolume", Refused(NO_VOLUME)),
];

/// Fields of an emptyDir.
#[rustfmt::skip]
pub static EMPTY_DIR: &[Row] = &[
    ("medium", RefusedIf(|v| v != "Memory", "huge pages are not there yet")),
    ("sizeLimit", Honoured("lifecycle::storage_limit")),
];

/// Sources of a projected volume.
#[rustfmt::skip]
pub static PROJECTION: &[Row] = &[
    ("clusterTrustBundle", Refused("projected trust bundles are not there yet")),
    ("configMap", Honoured("api::references")),
    ("downwardAPI", Honoured("api::references")),
    ("podCertificate", Refused("pod certificates are not there yet")),
    ("secret", Honoured("api::references")),
    ("serviceAccountToken", Honoured("api::references")),
];

/// Every table with the schema's name of its struct.
pub static ALL: &[(&str, &[Row])] = &[
    ("PodSpec", POD),
    ("Container", CONTAINER),
    ("EphemeralContainer", EPHEMERAL),
    ("PodSecurityContext", POD_SECURITY),
    ("SecurityContext", CONTAINER_SECURITY),
    ("ResourceRequirements", RESOURCES),
    ("Lifecycle", LIFECYCLE),
    ("LifecycleHandler", HOOK),
    ("Probe", PROBE),
    ("VolumeMount", MOUNT),
    ("EnvVarSource", VARIABLE),
    ("Volume", VOLUME),
    ("EmptyDirVolumeSource", EMPTY_DIR),
    ("VolumeProjection", PROJECTION),
];
