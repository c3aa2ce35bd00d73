//! Ports, ranges, folders, names. Values that upstream defines are upstream's (kubeadm's defaults).

/// The Kubernetes version whose API is served.
pub const KUBERNETES_VERSION: &str = "v1.35.0";
/// Major and minor as `/version` prints them.
pub const KUBERNETES_MAJOR: &str = "1";
/// See [`KUBERNETES_MAJOR`].
pub const KUBERNETES_MINOR: &str = "35";
/// The `apiVersion` of Keelson's configuration file.
pub const CONFIG_API_VERSION: &str = "keelson/v1";

/// TCP port of the API server.
pub const API_PORT: u16 = 6443;
/// TCP port of the kubelet's server.
pub const KUBELET_PORT: u16 = 10250;
/// Port of cluster DNS inside the cluster.
pub const DNS_PORT: u16 = 53;
/// UDP port of the tunnels between nodes that share no link (flannel's and the Linux kernel's own).
pub const VXLAN_PORT: u16 = 8472;
/// First and last node port (inclusive).
pub const NODE_PORT_RANGE: (u16, u16) = (30000, 32767);

/// Default range of pod addresses.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// Prefix length of a node's share of [`POD_CIDR`].
pub const NODE_POD_CIDR_PREFIX: u8 = 24;
/// Default range of Service addresses.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// Default cluster domain.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Name of the Service in kube-system whose address is cluster DNS.
pub const DNS_SERVICE: &str = "kube-dns";

/// Default state folder: database, PKI, kubelet state.
pub const STATE_DIR: &str = "/var/lib/keelson";
/// Default configuration folder.
pub const CONFIG_DIR: &str = "/etc/keelson";
/// Default CRI socket.
pub const CRI_SOCKET: &str = "/run/containerd/containerd.sock";
/// Pod logs, as upstream lays them out (`<namespace>_<name>_<uid>/<container>/<n>.log`).
pub const POD_LOGS_DIR: &str = "/var/log/pods";
/// CNI network configuration folder.
pub const CNI_CONF_DIR: &str = "/etc/cni/net.d";
/// CNI plugin folder.
pub const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// Name of the CNI plugin binary and its `type`.
pub const CNI_PLUGIN: &str = "keelson-cni";

/// Labels of nodes below kubernetes.io and k8s.io, which are for those who administer a cluster but for these.
pub mod node_labels {
    /// Those that a kubelet may set on its node.
    const KUBELET: [&str; 11] = [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
    ];
    /// Label namespaces that are the kubelet's.
    const KUBELET_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
    /// What the label of a control plane is called, as kubeadm gives it.
    pub const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

    /// Whether a kubelet may set this label on its node (upstream: admission NodeRestriction).
    pub fn is_kubelets(key: &str) -> bool {
        let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
        let within = |outer: &&str| {
            namespace.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !["kubernetes.io", "k8s.io"].iter().any(within)
            || KUBELET.contains(&key)
            || KUBELET_NAMESPACES.iter().any(within)
    }
}

/// nft tables (family `inet`), one per concern; nothing else of the host's rules is ever touched.
pub mod nft {
    /// ClusterIP, NodePort and hostPort translation.
    pub const SERVICES_TABLE: &str = "keelson-services";
    /// Masquerade of pod traffic that leaves the cluster.
    pub const MASQUERADE_TABLE: &str = "keelson-masquerade";
    /// What may come through the tunnels to other nodes.
    pub const TUNNEL_TABLE: &str = "keelson-tunnel";
    /// NetworkPolicy.
    pub const POLICY_TABLE: &str = "keelson-policy";
}

/// Prefix of host-side pod interfaces (`kl` and 11 hex digits of the container's hash).
pub const VETH_PREFIX: &str = "kl";
/// Root of the pods' cgroups below each controller (cgroupfs driver).
pub const CGROUP_ROOT: &str = "kubepods";

/// User and group names; RBAC roles of upstream are bound to these.
pub mod identity {
    /// The scheduler's user.
    pub const SCHEDULER: &str = "system:kube-scheduler";
    /// The controller manager's user; each controller acts as its own service account in kube-system.
    pub const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
    /// The proxy's user.
    pub const PROXY: &str = "system:kube-proxy";
    /// Prefix of a kubelet's user.
    pub const NODE_USER_PREFIX: &str = "system:node:";
    /// Group of all kubelets.
    pub const NODES_GROUP: &str = "system:nodes";
    /// Group of everyone who is authenticated.
    pub const AUTHENTICATED: &str = "system:authenticated";
    /// Group of everyone who is not.
    pub const UNAUTHENTICATED: &str = "system:unauthenticated";
    /// The user without credentials.
    pub const ANONYMOUS: &str = "system:anonymous";
    /// The group that RBAC never refuses. None of our components is in it.
    pub const MASTERS: &str = "system:masters";
    /// The administrator's group that `cluster-admin` is bound to (kubeadm's name).
    pub const CLUSTER_ADMINS: &str = "keelson:cluster-admins";
    /// The API server's own user towards kubelets.
    pub const KUBELET_CLIENT: &str = "system:kube-apiserver-kubelet-client";
}
