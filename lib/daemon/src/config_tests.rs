use super::*;

fn refused(text: &str) -> String {
    let parse = parse(Path::new("c.yaml"), text).and_then(|value| {
        let raw = serde_json::from_value(value).map_err(|error| ConfigError::Shape(error.to_string()))?;
        check(raw)
    });
    parse.expect_err(text).to_string()
}

#[test]
fn defaults_are_complete_and_checked() {
    let config = load(None).unwrap();
    assert_eq!(config.network.dns_address.to_string(), "10.96.0.10");
    assert_eq!(config.api_server.bind.port(), 6443);
    assert_eq!(config.kubelet.static_pods, Path::new("/var/lib/keelson/manifests"));
}

#[test]
fn mistakes_are_refused_with_the_key_and_what_to_write() {
    let with = |rest: &str| refused(&format!("apiVersion: keelson/v1\n{rest}"));
    let check = |rest: &str, wanted: &str| {
        let got = with(rest);
        assert!(got.contains(wanted), "{rest:?} gave {got:?}, wanted {wanted:?}");
    };
    check("node: {nmae: x}", "unknown key \"node.nmae\"; did you mean \"node.name\"?");
    check("apiserver: {bind: x}", "unknown key \"apiserver\"; did you mean");
    check("podCidr: 10.0.0.0/8", "did you mean \"network.podCidr\"?");
    check("node: {name: Upper}", "node.name must be lower-case");
    check("node: {address: localhost}", "node.address must be an IP address, not \"localhost\"");
    check("node: {labels: {a b: c}}", "\"a b\", which is no name of a label");
    check("node: {labels: {Ex.com/a: c}}", "which is no name of a label");
    check("node: {labels: {a: -c}}", "gives a the value \"-c\"");
    check(
        "node: {name: n1, labels: {node-role.kubernetes.io/edge: ''}}",
        "no node may give itself. Leave it out; when the node has joined, `kubectl label node n1 \
         node-role.kubernetes.io/edge=` gives it",
    );
    check("node: {labels: {my.node-restriction.kubernetes.io/a: b}}", "`kubectl label node NAME");
    check("node: {taints: ['a:Never']}", "NoSchedule, PreferNoSchedule or NoExecute");
    check("network: {podCidr: 10.96.0.0/16}", "overlaps network.serviceCidr");
    check("network: {podCidr: 10.244.0.1/16}", "did you mean 10.244.0.0/16?");
    check("network: {dnsAddress: 1.2.3.4}", "is not in serviceCidr");
    check("network: {nodePorts: '32767-30000'}", "must be first-last");
    check("certificates: {life: 1m}", "must be 2m to 87600h");
    check("certificates: {life: year}", "must be a duration");
    check("registries: {mirrors: {docker.io: [mirror]}}", "must be https://host:port each");
    check("registries: {mirrors: {'a/b': [https://m]}}", "must name registries");
    check("registries: {mirrors: {docker.io: []}}", "name no mirror of docker.io");
    check("registries: {caFile: /x}", "is of no use without registries.mirrors");
    check("node: {firewall: closed}", "node.firewall must be open or leave");
    check("network: {tunnel: vxlan}", "auto, always or never");
    check("kubelet: {cgroupDriver: cgroup}", "auto, cgroupfs or systemd");
    check("kubelet: {cgroupRoot: pods}", "kubelet.cgroupRoot must be absolute");
    check("kubelet: {cgroupRoot: /a/../b}", "without . and ..");
    check("kubelet: {maxPods: 0}", "must be 1 to 1000");
    check("kubelet: {imageGcHighPercent: 70}", "must be below imageGcHighPercent 70");
    check("apiServer: {featureGates: {NoSuch: true}}", "no feature gate is named \"NoSuch\"");
    check("apiServer: {historyRetention: 5}", "configuration");
    check("apiServer: {historyRetention: 0s}", "must be longer than nothing");
    check("log: {format: xml}", "log.format must be text or json");
    check("paths: {state: rel}", "paths.state must be absolute");
    check("etcd: {endpoints: ['http://a:2379']}", "must be https://host:port each");
    check("etcd: {endpoints: ['https://a']}", "must be https://host:port each");
    check("etcd: {endpoints: ['https://a:2379'], caFile: /a, keyFile: /c}", "etcd.certFile is needed");
    check("etcd: {caFile: /a}", "of no use without etcd.endpoints");
    check("etcd: {endpoint: x}", "did you mean \"etcd.endpoints\"?");
    check("dns: {upstreams: ['a.b']}", "dns.upstreams must be an IP address");
    assert!(refused("node: {name: a}").contains("apiVersion must be \"keelson/v1\""));
    assert!(refused("apiVersion: [").contains("no valid YAML"));
}

#[test]
fn pods_have_a_cgroup_of_their_own_below_any_root() {
    let with = |root: &str| {
        let mut raw = RawConfig::default();
        raw.kubelet.cgroup_root = Some(root.into());
        check(raw).unwrap().kubelet.pods_cgroup()
    };
    assert_eq!(with("/"), "kubepods");
    assert_eq!(with("/edge/cluster/"), "edge/cluster/kubepods");
    assert_eq!(load(None).unwrap().kubelet.pods_cgroup(), "kubepods");
}

#[test]
fn drop_ins_win_in_name_order() {
    let folder = std::env::temp_dir().join(format!("keelson-config-{}", std::process::id()));
    let file = folder.join("config.yaml");
    std::fs::create_dir_all(folder.join("config.yaml.d")).unwrap();
    std::fs::write(&file, "apiVersion: keelson/v1\nnode: {name: a}\nnetwork: {clusterDomain: x.y}\n")
        .unwrap();
    for (name, node) in [("10-b.yaml", "b"), ("20-c.yaml", "c")] {
        let text = format!("apiVersion: keelson/v1\nnode: {{name: {node}}}\n");
        std::fs::write(folder.join("config.yaml.d").join(name), text).unwrap();
    }
    let config = load(Some(&file)).unwrap();
    // What is to be written takes the place of what has its name, and no other.
    let name = |name, text| load_with(Some(&file), &[(name, text)]).unwrap().node.name;
    let (renamed, empty) = ("apiVersion: keelson/v1\nnode: {name: d}\n", "apiVersion: keelson/v1\n");
    let seen = [("20-c.yaml", renamed), ("20-c.yaml", empty), ("10-b.yaml", renamed), ("15-d.yaml", renamed)];
    let seen = seen.map(|(place, text)| name(place, text));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(seen.map(Option::unwrap), ["d", "b", "c", "c"]);
    assert_eq!(config.node.name.as_deref(), Some("c"));
    assert_eq!(config.network.cluster_domain, "x.y");
}

/// Every field of the raw structs has its documented key and the other way round.
#[test]
fn the_key_table_documents_the_structs() {
    let Value::Object(sections) = serde_json::to_value(RawConfig::default()).unwrap() else { unreachable!() };
    let mut paths = Vec::new();
    for (name, section) in sections {
        match section {
            Value::Object(fields) => paths.extend(fields.keys().map(|field| format!("{name}.{field}"))),
            _ => paths.push(name),
        }
    }
    let mut documented: Vec<String> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    paths.sort();
    documented.sort();
    assert_eq!(paths, documented);
    assert!(KEYS.iter().all(|key| key.doc.ends_with('.')));
}

#[test]
fn kubelets_own_labels_are_taken() {
    let labels = [
        "rank",
        "example.com/a_b.c",
        "topology.kubernetes.io/zone",
        "x.node.kubernetes.io/y",
        "mykubernetes.io/a",
    ];
    for label in labels {
        let text = format!("apiVersion: keelson/v1\nnode: {{labels: {{{label}: z1}}}}\n");
        let config = load_with(None, &[("c.yaml", &text)]).unwrap();
        assert_eq!(config.node.labels[label], "z1");
    }
}
