//! What a node may not do with its certificate, and what nobody gets without one.

use crate::sockets::{self, Listener};
use keelson_tests::{Cluster, Said, run};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

const NS: &str = "two-tier";

/// Objects of a node that is not this one: a pod bound to it, with a secret, a config map and a service account.
const ELSEWHERE: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: elsewhere}
spec: {unschedulable: true}
---
apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: v1
kind: Secret
metadata: {name: theirs, namespace: elsewhere}
stringData: {key: value}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: theirs, namespace: elsewhere}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: theirs, namespace: elsewhere}
---
apiVersion: v1
kind: Pod
metadata: {name: theirs, namespace: elsewhere}
spec:
  nodeName: elsewhere
  serviceAccountName: theirs
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: keelson.dev/pause:1
    env: [{name: A, valueFrom: {secretKeyRef: {name: theirs, key: key}}}]
    envFrom: [{configMapRef: {name: theirs}}]
"#;

/// Removes them however the test ends.
struct Elsewhere<'a>(&'a Cluster);

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        for what in [
            &["pod", "theirs", "-n", "elsewhere", "--force"][..],
            &["node", "elsewhere"],
            &["ns", "elsewhere"],
        ] {
            self.0.kubectl(&[&["delete", "--ignore-not-found", "--timeout=60s"], what].concat());
        }
    }
}

/// kubectl as this machine's kubelet.
struct Node<'a> {
    cluster: &'a Cluster,
    identity: Vec<String>,
}

impl Node<'_> {
    fn kubectl(&self, line: &[&str], input: &str) -> Said {
        let mut all: Vec<&str> = self.identity.iter().map(String::as_str).collect();
        all.extend(line);
        self.cluster.kubectl_with_input(&all, input.as_bytes())
    }

    #[track_caller]
    fn refused(&self, line: &[&str], input: &str) {
        let said = self.kubectl(line, input);
        let forbidden = said.err.contains("(Forbidden)") || said.err.contains(" is forbidden: ");
        assert!(said.code != 0 && forbidden, "kubectl {line:?}: {said:?}");
    }
}

#[test]
fn a_kubelets_certificate_opens_nothing_of_another_node() {
    let Some(cluster) = Cluster::find("node isolation") else { return };
    let pki = cluster.places.data.join("state/pki");
    // The node's own client certificate instead of the administrator's.
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let file = |name: &str| pki.join(name).to_string_lossy().into_owned();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority: {}}}}}]\n\
         users: [{{name: u, user: {{client-certificate: {}, client-key: {}}}}}]\n",
        file("ca.crt"),
        file("kubelet-client.crt"),
        file("kubelet-client.key"),
    );
    std::fs::write(kubeconfig.path(), text).unwrap();
    let identity = vec!["--kubeconfig".to_owned(), kubeconfig.path().to_string_lossy().into_owned()];
    let node = Node { cluster: &cluster, identity };
    let who = node.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "").ok();
    let own = who.strip_prefix("system:node:").expect("the node's own user").to_owned();
    let elsewhere = Elsewhere(&cluster);
    cluster.apply(ELSEWHERE);

    // What is its own works, so that a refusal below means what it says.
    node.kubectl(&["get", "node", &own], "").ok();
    node.kubectl(&["get", "pods", "-A", &format!("--field-selector=spec.nodeName={own}")], "").ok();
    node.kubectl(&["-n", NS, "get", "secret", "redis"], "").ok();

    let theirs = |line: &[&str]| node.refused(&[&["-n", "elsewhere"], line].concat(), "");
    theirs(&["get", "secret", "theirs"]);
    theirs(&["get", "secrets"]);
    theirs(&["get", "configmap", "theirs"]);
    theirs(&["get", "serviceaccount", "theirs"]);
    theirs(&["create", "token", "theirs"]);
    theirs(&["get", "pod", "theirs"]);
    theirs(&["delete", "pod", "theirs", "--wait=false"]);
    theirs(&["label", "pod", "theirs", "a=b"]);
    theirs(&["patch", "pod", "theirs", "--subresource=status", "-p", r#"{"status":{"phase":"Failed"}}"#]);
    node.refused(&["get", "secrets", "-A"], "");
    node.refused(&["get", "pods", "-A", "--field-selector=spec.nodeName=elsewhere"], "");
    for line in [
        &["get", "node", "elsewhere"][..],
        &["label", "node", "elsewhere", "a=b"],
        &["patch", "node", "elsewhere", "--subresource=status", "-p", r#"{"status":{"conditions":[]}}"#],
        &["delete", "node", "elsewhere"],
        &["delete", "node", &own],
        &["label", "node", &own, "node-restriction.kubernetes.io/a=b"],
        &["-n", "kube-node-lease", "get", "lease", "elsewhere"],
        &["create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--user=x"],
        &["-n", NS, "create", "configmap", "mine"],
    ] {
        node.refused(line, "");
    }
    let pod = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: mine, namespace: elsewhere}}\nspec:\n  nodeName: {name}\n  containers: [{{name: c, image: x}}]\n"
        )
    };
    node.refused(&["create", "-f", "-"], &pod("elsewhere"));
    // Not even on itself: only what stands for a static pod is a node's to create.
    node.refused(&["create", "-f", "-"], &pod(&own));
    let eviction = r#"{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"theirs","namespace":"elsewhere"}}"#;
    node.refused(
        &["create", "--raw", "/api/v1/namespaces/elsewhere/pods/theirs/eviction", "-f", "-"],
        eviction,
    );
    drop(elsewhere);
}

/// From where a socket is tried.
struct Vantage {
    name: &'static str,
    /// What stands before the command.
    enter: Vec<String>,
    /// The machine's addresses as seen from there.
    addresses: Vec<IpAddr>,
    /// What must end with it.
    holder: Option<Child>,
}

impl Drop for Vantage {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            drop(holder.kill());
            drop(holder.wait());
        }
    }
}

impl Vantage {
    fn run(&self, line: &[&str]) -> Said {
        let all: Vec<&str> = self.enter.iter().map(String::as_str).chain(line.iter().copied()).collect();
        run(all[0], &all[1..])
    }

    fn pod(cluster: &Cluster, node: IpAddr) -> Vantage {
        let uid = cluster
            .kubectl(&["-n", NS, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.uid}"])
            .ok();
        let pid = sockets::processes_of_cgroup(&uid).into_iter().next().expect("a process of the pod");
        let enter = ["nsenter", "-t", &pid.to_string(), "-n"].map(str::to_owned).to_vec();
        Vantage { name: "a pod", enter, addresses: vec![node, [127, 0, 0, 1].into()], holder: None }
    }

    fn user(node: IpAddr) -> Vantage {
        let enter =
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
        Vantage { name: "another user", enter, addresses: vec![node, [127, 0, 0, 1].into()], holder: None }
    }

    /// A namespace beside the machine, on a link of its own, with the machine as its router.
    fn namespace(node: IpAddr) -> Vantage {
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = holder.id().to_string();
        keelson_tests::eventually(std::time::Duration::from_secs(5), "the namespace", || {
            let name = |path: String| std::fs::read_link(path).map_err(|error| error.to_string());
            let (theirs, ours) = (name(format!("/proc/{pid}/ns/net"))?, name("/proc/self/ns/net".into())?);
            if theirs == ours { Err("not yet".into()) } else { Ok(()) }
        });
        let ip =
            |line: &str| assert_eq!(run("ip", &line.split(' ').collect::<Vec<_>>()).code, 0, "ip {line}");
        ip(&format!("link add sweep0 type veth peer name sweep1 netns {pid}"));
        ip("addr add 10.199.0.1/30 dev sweep0");
        ip("link set sweep0 up");
        let enter = ["nsenter", "-t", &pid, "-n"].map(str::to_owned).to_vec();
        let addresses = vec![node, [10, 199, 0, 1].into(), [127, 0, 0, 1].into()];
        let vantage = Vantage { name: "another namespace", enter, addresses, holder: Some(holder) };
        for line in [
            "addr add 10.199.0.2/30 dev sweep1",
            "link set sweep1 up",
            "link set lo up",
            "route add default via 10.199.0.1",
        ] {
            let line: Vec<&str> = ["ip"].into_iter().chain(line.split(' ')).collect();
            assert_eq!(vantage.run(&line).code, 0, "{line:?}");
        }
        vantage
    }
}

/// Health and version, of the API server, the kubelet and the proxy's health ports.
const OPEN: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/healthz/ping"];
const CLOSED: &[&str] = &[
    "/",
    // Open while a machine may join; here no bootstrap token lives.
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
    "/api",
    "/apis",
    "/api/v1/pods",
    "/api/v1/secrets",
    "/apis/apps/v1",
    "/openapi/v2",
    "/openapi/v3",
    "/metrics",
    "/metrics/cadvisor",
    "/pods",
    "/runningpods/",
    "/stats/summary",
    "/configz",
    "/logs/",
    "/spec/",
    "/debug/pprof/",
    "/debug/flags/v",
    "/containerLogs/two-tier/x/web",
    "/exec/two-tier/x/web?command=id",
    "/run/two-tier/x/web",
    "/attach/two-tier/x/web",
    "/portForward/two-tier/x",
    "/checkpoint/two-tier/x/web",
    "/nonsense",
];

/// What a sweep found.
#[derive(Default)]
struct Found {
    /// Addresses that answered health or version.
    open: BTreeSet<String>,
    /// How often a request without credentials was turned down.
    refused: usize,
    dns: usize,
    leaks: Vec<String>,
}

#[test]
fn without_credentials_only_health_version_and_dns_answer() {
    let Some(cluster) = Cluster::find("sweep over our sockets") else { return };
    let listeners = sockets::of_keelson(&cluster);
    let tcp = listeners.iter().filter(|listener| matches!(listener, Listener::Tcp(_))).count();
    assert!(tcp >= 2, "API server and kubelet at least: {listeners:?}");
    let node = cluster
        .kubectl(&[
            "get",
            "nodes",
            "-o",
            "jsonpath={.items[0].status.addresses[?(@.type==\"InternalIP\")].address}",
        ])
        .ok();
    let node: IpAddr = node.parse().expect("the node's address");
    let mut found = Found::default();
    for vantage in [Vantage::pod(&cluster, node), Vantage::user(node), Vantage::namespace(node)] {
        for listener in &listeners {
            match listener {
                Listener::Tcp(address) => {
                    for address in seen_at(address.ip(), &vantage) {
                        http(&vantage, address, listener.port(), &mut found);
                        raw(&vantage, "tcp", address, listener.port(), &mut found);
                    }
                }
                Listener::Udp(address) => {
                    for address in seen_at(address.ip(), &vantage) {
                        raw(&vantage, "udp", address, listener.port(), &mut found);
                    }
                }
                Listener::Unix(path) => unix(&vantage, path, &mut found),
            }
        }
    }
    println!(
        "{} sockets of ours: {listeners:?}; open at {:?}; {} requests turned down; DNS answered {} times",
        listeners.len(),
        found.open,
        found.refused,
        found.dns
    );
    assert!(found.leaks.is_empty(), "answers without credentials:\n  {}", found.leaks.join("\n  "));
    // The sweep reached what it claims to have swept.
    assert!(found.open.iter().any(|where_| where_.ends_with(":6443 /version")), "{:?}", found.open);
    assert!(found.refused > 100, "only {} requests were turned down", found.refused);
    assert!(found.dns > 0, "cluster DNS was not reached");
}

/// Where a bound address is tried from: any address means all that the vantage knows of.
fn seen_at(bound: IpAddr, vantage: &Vantage) -> Vec<IpAddr> {
    if bound.is_unspecified() { vantage.addresses.clone() } else { vec![bound] }
}

/// HTTP over TLS and without, on every path, in two runs of curl.
fn http(vantage: &Vantage, address: IpAddr, port: u16, found: &mut Found) {
    for scheme in ["https", "http"] {
        // What does not speak it is not asked for every path: DNS would wait for more of its question each time.
        let probe = format!("{scheme}://{address}:{port}/version");
        let quiet = [
            "curl",
            "-sk",
            "--max-time",
            "2",
            "--connect-timeout",
            "1",
            "--noproxy",
            "*",
            "-w",
            "%{http_code}\\n",
        ];
        let said = vantage.run(&[&quiet[..], &["-o", "/dev/null", &probe]].concat());
        if said.out.trim() == "000" {
            continue;
        }
        let mut line = quiet.to_vec();
        let urls: Vec<(&str, String)> = OPEN
            .iter()
            .chain(CLOSED)
            .map(|path| (*path, format!("{scheme}://{address}:{port}{path}")))
            .collect();
        for (_, url) in &urls {
            line.extend(["-o", "/dev/null", url]);
        }
        let said = vantage.run(&line);
        let codes: Vec<&str> = said.out.lines().collect();
        assert_eq!(codes.len(), urls.len(), "{}: {said:?}", vantage.name);
        for ((path, url), code) in urls.iter().zip(codes) {
            match (code, OPEN.contains(path)) {
                // Not reached, or not HTTP; TLS is spoken to what speaks plainly; nobody there by that name.
                ("000" | "400" | "404" | "405", _) => {}
                ("401" | "403", _) => found.refused += 1,
                ("200" | "503", true) => drop(found.open.insert(format!("{address}:{port} {path}"))),
                (code, _) => found.leaks.push(format!("{}: {url}: {code}", vantage.name)),
            }
        }
    }
}

/// A DNS question and then garbage, as raw bytes. DNS may answer on its port; TLS may say that this is no TLS.
fn raw(vantage: &Vantage, protocol: &str, address: IpAddr, port: u16, found: &mut Found) {
    // kubernetes.default.svc.cluster.local, type A.
    let query = "\\x12\\x34\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x0akubernetes\\x07default\\x03svc\\x07cluster\\x05local\\x00\\x00\\x01\\x00\\x01";
    let length = if protocol == "tcp" { "\\x00\\x36" } else { "" };
    for text in [format!("{length}{query}"), "GET me\\r\\n\\r\\n\\x00\\xff".to_owned()] {
        let script = format!(
            "exec 3<>/dev/{protocol}/{address}/{port} || exit 9; printf '{text}' >&3; timeout 0.5 head -c 64 <&3 | od -An -tx1 -v"
        );
        let said = vantage.run(&["timeout", "1.5", "bash", "-c", &script]);
        let bytes: Vec<&str> = said.out.split_whitespace().collect();
        let offset = if protocol == "tcp" { 2 } else { 0 };
        let is_dns = port == 53 && (bytes.is_empty() || bytes.len() > offset + 2);
        let is_tls_alert = protocol == "tcp" && bytes.first() == Some(&"15");
        let is_bad_request = protocol == "tcp" && bytes.starts_with(&["48", "54", "54", "50"]);
        if port == 53 && bytes.get(offset..offset + 2) == Some(&["12", "34"]) {
            found.dns += 1;
        }
        if !(bytes.is_empty() || is_dns || is_tls_alert || is_bad_request) {
            found.leaks.push(format!("{}: {protocol} {address}:{port}: {}", vantage.name, bytes.join(" ")));
        }
    }
}

/// A path must not even be connected to.
fn unix(vantage: &Vantage, path: &str, found: &mut Found) {
    if vantage.name != "another user" {
        return;
    }
    let flag = if path.starts_with('@') { "--abstract-unix-socket" } else { "--unix-socket" };
    let said =
        vantage.run(&["curl", "-s", "--max-time", "3", flag, path.trim_start_matches('@'), "http://x/"]);
    // 7: could not connect.
    if said.code == 7 {
        found.refused += 1;
    } else {
        found.leaks.push(format!("{}: {path}: curl says {}", vantage.name, said.code));
    }
}
