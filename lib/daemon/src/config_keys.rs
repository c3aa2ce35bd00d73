//! The schema of the configuration file: every key with its default and what it does.
//!
//! The table documents the file (`keelson config`), and names the nearest key when an unknown one is refused. A test
//! holds it against the structs of [`crate::config`].

/// One key: its path, the default as YAML text, and what it does.
pub struct Key {
    pub path: &'static str,
    pub default: &'static str,
    pub doc: &'static str,
}

const fn key(path: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { path, default, doc }
}

/// Every key, in the order the file prints them.
#[rustfmt::skip]
pub static KEYS: &[Key] = &[
    key("apiVersion", "keelson/v1", "Version of this file's schema."),
    key("kind", "Configuration", "Always Configuration."),
    key("node.name", "", "Name of the Node object. Default: the host name in lower case."),
    key("node.address", "", "Address of this machine in the cluster. Default: the address towards the default route; required where that is ambiguous."),
    key("node.labels", "{}", "Labels the node registers with."),
    key("node.taints", "[]", "Taints the node registers with, each as key=value:Effect."),
    key("node.firewall", "open", "What `keelson init` and `keelson join` do with a firewalld or ufw that is on: open lets through what the cluster needs, leave changes nothing."),
    key("paths.state", "/var/lib/keelson", "Database, keys, kubelet state. Everything that must survive."),
    key("paths.pki", "", "Keys and certificates. Several control planes share its ca, front-proxy-ca and sa files. Default: pki below paths.state."),
    key("paths.podLogs", "/var/log/pods", "Container logs."),
    key("apiServer.bind", "0.0.0.0:6443", "Address and port the API is served on."),
    key("apiServer.extraSans", "[]", "More names and addresses for the API server's certificate."),
    key("apiServer.featureGates", "{}", "Kubernetes feature gates to turn on or off, by name."),
    key("apiServer.historyRetention", "5m", "How long old revisions are kept for watches and paged lists."),
    key("apiServer.manifests", "", "Folder of manifests that a control plane applies, and keeps the cluster in step with. Default: addons below paths.state."),
    key("etcd.endpoints", "[]", "Client addresses of all etcd members, https://host:2379, for several control planes. Default: none; the database is an SQLite file."),
    key("etcd.caFile", "", "The authority (PEM) of the etcd members' certificates."),
    key("etcd.certFile", "", "The certificate (PEM) that etcd knows this control plane by; its role must be allowed all keys."),
    key("etcd.keyFile", "", "The key (PEM) of etcd.certFile."),
    key("snapshots.folder", "", "Where `keelson snapshot` and the schedule put snapshots. Default: snapshots below paths.state."),
    key("snapshots.every", "24h", "How often a control plane takes a snapshot by itself; 0: never."),
    key("snapshots.keep", "7", "How many of those it keeps, and how many of those taken before upgrades; the oldest go."),
    key("certificates.life", "8760h", "How long certificates live that this control plane issues, its own and nodes'; each is renewed from a third of it. Those that are there are made anew by `keelson certs renew`."),
    key("registries.mirrors", "{}", "Where images come from in place of the registries they name: docker.io: [https://mirror:5000]; *: for all that have none of their own. containerd is told by `keelson init` and `keelson join`."),
    key("registries.caFile", "", "The authority (PEM) of the mirrors' certificates. Default: those that the machine believes."),
    key("network.podCidr", "10.244.0.0/16", "Addresses of pods; each node gets a /24 of it."),
    key("network.serviceCidr", "10.96.0.0/12", "Addresses of Services."),
    key("network.clusterDomain", "cluster.local", "Domain of cluster DNS."),
    key("network.dnsAddress", "", "Address of cluster DNS, in serviceCidr. Default: its tenth address."),
    key("network.nodePorts", "30000-32767", "Range of node ports."),
    key("network.tunnel", "auto", "Reach other nodes' pods by VXLAN (UDP 8472): auto where nodes share no link, always, or never."),
    key("kubelet.criSocket", "/run/containerd/containerd.sock", "Socket of the container runtime (CRI v1)."),
    key("kubelet.cgroupDriver", "auto", "cgroupfs, or systemd where the runtime is set to it too; auto: cgroupfs."),
    key("kubelet.cgroupRoot", "/", "Cgroup below which kubepods is made."),
    key("kubelet.bind", "0.0.0.0:10250", "Address and port of the kubelet's server (TLS, client certificates)."),
    key("kubelet.maxPods", "110", "How many pods the node takes."),
    key("kubelet.staticPods", "", "Folder of static pod manifests. Default: manifests below paths.state."),
    key("kubelet.imageArchives", "", "Folder of image archives (.tar, .tar.gz) that are imported and pinned, and go with their files. Default: images below paths.state."),
    key("kubelet.imageGcHighPercent", "85", "Disk use above which unused images are removed."),
    key("kubelet.imageGcLowPercent", "80", "Disk use down to which they are removed."),
    key("proxy.cniConfDir", "/etc/cni/net.d", "Where the CNI configuration is written."),
    key("proxy.cniBinDir", "/opt/cni/bin", "Where the runtime looks for CNI plugins."),
    key("dns.upstreams", "[]", "Resolvers for names outside the cluster. Default: the node's resolv.conf."),
    key("log.filter", "info", "Log filter, for example info,keelson_kubelet=debug."),
    key("log.format", "text", "text or json."),
];

/// The known key nearest to an unknown one: same section first, then by edit distance.
pub fn nearest(path: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (distance(path, key.path), key.path))
        .chain(KEYS.iter().filter_map(|key| {
            // A section that was left out, or a wrong one, with the right last part.
            let (_, wanted) = path.rsplit_once('.').unwrap_or(("", path));
            let (_, known) = key.path.rsplit_once('.')?;
            Some((distance(wanted, known) + 2, key.path))
        }))
        .min()
        .filter(|(distance, _)| *distance <= path.len().max(3) / 2 + 2)
        .map(|(_, path)| path)
}

/// Whether `path` is a key, or the section above some keys.
pub fn known(path: &str) -> bool {
    KEYS.iter()
        .any(|key| key.path == path || key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Levenshtein distance without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
