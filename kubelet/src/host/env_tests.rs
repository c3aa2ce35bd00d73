use super::*;

fn pod(container: serde_json::Value) -> (Pod, Container) {
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b": "x\"y"}},
        "spec": {"serviceAccountName": "sa", "containers": [container]}}))
    .unwrap();
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    (pod, container)
}

fn refs() -> Refs {
    let map: ConfigMap = serde_json::from_value(serde_json::json!({"data": {"k": "v", "l": "w"}})).unwrap();
    let secret: Secret = serde_json::from_value(serde_json::json!({"data": {"s": "aGV5"}})).unwrap();
    Refs {
        config_maps: BTreeMap::from([("cm".into(), Some(map)), ("gone".into(), None)]),
        secrets: BTreeMap::from([("sec".into(), Some(secret))]),
    }
}

fn facts(services: &[ServiceView]) -> Facts<'_> {
    static IPS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    let ips = IPS.get_or_init(|| vec!["10.0.0.1".into(), "fd00::1".into()]);
    Facts {
        node_name: "node",
        host_ips: &ips[..1],
        pod_ips: ips,
        services,
        allocatable_cpu: 2000,
        allocatable_memory: 1 << 30,
    }
}

fn get(env: &[(String, String)], name: &str) -> Option<String> {
    env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
}

#[test]
fn expansion_follows_upstreams_table() {
    let cases = [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NONE)", "$(NONE)"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("a$", "a$"),
        ("$(A)$(A)", "11"),
        ("$()", "$()"),
        ("ü$(A)ß", "ü1ß"),
    ];
    for (text, expected) in cases {
        let got = expand(text, |name| match name {
            "A" => Some("1".into()),
            "B" => Some("2".into()),
            _ => None,
        });
        assert_eq!(got, expected, "{text}");
    }
}

#[test]
fn every_kind_of_source() {
    let (pod, container) = pod(serde_json::json!({"name": "c",
        "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "10Mi"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "PLAIN", "value": "a$(P_k)"},
            {"name": "CM", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "l"}}},
            {"name": "SEC", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "s"}}},
            {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "x", "optional": true}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
            {"name": "LABELS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MILLI", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "REQ", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory"}}},
            {"name": "SVC", "value": "$(WEB_SERVICE_HOST)"}]}));
    let services = [ServiceView {
        namespace: "n".into(),
        name: "web".into(),
        cluster_ip: "10.96.0.9".into(),
        ports: vec![("http".into(), 80, "TCP".into())],
    }];
    let env = environment(&pod, &container, &refs(), &facts(&services)).unwrap();
    let expected = [
        ("P_k", "v"),
        ("PLAIN", "av"),
        ("CM", "w"),
        ("SEC", "hey"),
        ("IPS", "10.0.0.1,fd00::1"),
        ("LABEL", "1"),
        ("LABELS", "a=\"1\"\nb=\"x\\\"y\""),
        ("CPU", "2"),
        ("MILLI", "1500"),
        ("MEM", "1024"),
        ("REQ", "10485760"),
        ("SVC", "10.96.0.9"),
        ("WEB_SERVICE_PORT_HTTP", "80"),
        ("WEB_PORT_80_TCP", "tcp://10.96.0.9:80"),
        ("WEB_PORT", "tcp://10.96.0.9:80"),
    ];
    for (name, value) in expected {
        assert_eq!(get(&env, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(get(&env, "OPT"), None);
}

#[test]
fn what_is_missing_stops_the_container() {
    let error = |env: serde_json::Value| {
        let (pod, container) = pod(serde_json::json!({"name": "c", "env": [env]}));
        environment(&pod, &container, &refs(), &facts(&[])).unwrap_err().to_string()
    };
    let key = |kind: &str, name: &str| serde_json::json!({"name": "X", "valueFrom": {kind: {"name": name, "key": "nokey"}}});
    assert_eq!(error(key("configMapKeyRef", "gone")), "configmap \"gone\" not found");
    assert_eq!(error(key("secretKeyRef", "sec")), "couldn't find key nokey in Secret n/sec");
    assert_eq!(error(key("configMapKeyRef", "cm")), "couldn't find key nokey in ConfigMap n/cm");
}

#[test]
fn services_of_other_namespaces_and_links_switched_off() {
    let service = |namespace: &str, name: &str| ServiceView {
        namespace: namespace.into(),
        name: name.into(),
        cluster_ip: "10.96.0.1".into(),
        ports: vec![(String::new(), 443, "TCP".into())],
    };
    let all = [service("default", "kubernetes"), service("n", "web"), service("other", "db")];
    let (mut pod, container) = pod(serde_json::json!({"name": "c"}));
    let names = |pod: &Pod| {
        let env = environment(pod, &container, &Refs::default(), &facts(&all)).unwrap();
        env.into_iter().map(|(n, _)| n).filter(|n| n.ends_with("_SERVICE_HOST")).collect::<Vec<_>>()
    };
    assert_eq!(names(&pod), ["KUBERNETES_SERVICE_HOST", "WEB_SERVICE_HOST"]);
    pod.spec.as_mut().unwrap().enable_service_links = Some(false);
    assert_eq!(names(&pod), ["KUBERNETES_SERVICE_HOST"]);
}
