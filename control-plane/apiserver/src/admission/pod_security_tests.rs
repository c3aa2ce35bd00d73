use super::super::harness::doc;
use super::*;
use crate::authn::UserInfo;
use bytes::Bytes;
use serde_json::{Value as Json, json};

struct Namespace(Json, Vec<Json>);

impl ClusterReads for Namespace {
    fn get(&self, _: &str, resource: &str, _: &str, _: &str) -> Option<Bytes> {
        (resource == "namespaces")
            .then(|| Bytes::from(json!({ "metadata": { "labels": self.0 } }).to_string()))
    }
    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Bytes> {
        self.1.iter().map(|p| Bytes::from(p.to_string())).collect()
    }
}

fn labels(list: &[(&str, &str)]) -> Json {
    list.iter().map(|(k, v)| (format!("{PREFIX}{k}"), json!(v))).collect::<serde_json::Map<_, _>>().into()
}

fn attributes<'a>(
    user: &'a Arc<UserInfo>,
    operation: Operation,
    group: &'a str,
    resource: &'a str,
) -> AdmissionAttributes<'a> {
    let namespace = if resource == "namespaces" { "" } else { "ns" };
    AdmissionAttributes {
        operation,
        group,
        version: "v1",
        resource,
        subresource: "",
        namespace,
        name: "",
        user,
        dry_run: false,
        now: "2026-03-01T12:00:00Z".parse().unwrap(),
    }
}

fn violations_of(level: Level, minor: Option<u32>, spec: Json) -> Vec<String> {
    let version = minor.map_or(Version::LATEST, Version);
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c", "image": "i" }]);
    }
    let view = PodView { annotations: Labels::new(), spec: serde_json::from_value(spec).unwrap() };
    violations(&view, Standard { level, version })
        .into_iter()
        .map(|v| format!("{} ({})", v.reason, v.detail))
        .collect()
}

fn container(security: Json) -> Json {
    json!({ "containers": [{ "name": "c", "image": "i", "securityContext": security }] })
}

/// A pod that the restricted standard accepts.
fn good() -> Json {
    json!({
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "containers": [{ "name": "c", "image": "i",
            "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } } }],
        "volumes": [{ "name": "v", "configMap": { "name": "m" } }],
    })
}

#[test]
fn baseline_refuses_what_reaches_the_host() {
    let table = [
        (
            json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true }),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "hostPath": { "path": "/" } }] }),
            "hostPath volumes (volumes \"v\", \"w\")",
        ),
        (
            json!({ "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 1, "hostPort": 80 }] }] }),
            "hostPort (container \"c\" uses hostPort 80)",
        ),
        (
            container(json!({ "privileged": true })),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({ "capabilities": { "add": ["NET_ADMIN", "CHOWN"] } })),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            container(json!({ "procMount": "Unmasked" })),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            container(json!({ "seccompProfile": { "type": "Unconfined" } })),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            container(json!({ "appArmorProfile": { "type": "Unconfined" } })),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({ "securityContext": { "seLinuxOptions": { "type": "spc_t", "user": "u" } } }),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
        (
            json!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }, { "name": "net.ipv4.tcp_syncookies", "value": "1" }] } }),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } }),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({ "containers": [{ "name": "c", "image": "i", "livenessProbe": { "httpGet": { "port": 1, "host": "10.0.0.1" } } }] }),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(violations_of(Level::Baseline, None, spec.clone()), [expected]);
        assert!(violations_of(Level::Privileged, None, spec).is_empty());
    }
    assert!(violations_of(Level::Baseline, None, json!({})).is_empty());
    // All three lists of containers count.
    let privileged = json!([{ "name": "x", "image": "i", "securityContext": { "privileged": true } }]);
    for list in ["initContainers", "ephemeralContainers"] {
        assert_eq!(violations_of(Level::Baseline, None, json!({ list: privileged })).len(), 1, "{list}");
    }
}

#[test]
fn restricted_wants_it_said() {
    assert_eq!(
        violations_of(Level::Restricted, None, json!({})),
        [
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"])",
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ]
    );
    assert!(violations_of(Level::Restricted, None, good()).is_empty());
    let with = |change: fn(&mut Json)| {
        let mut spec = good();
        change(&mut spec);
        violations_of(Level::Restricted, None, spec)
    };
    assert_eq!(
        with(|s| s["containers"][0]["securityContext"]["runAsUser"] = json!(0)),
        ["runAsUser=0 (container \"c\" must not set runAsUser=0)"]
    );
    assert_eq!(
        with(|s| s["containers"][0]["securityContext"]["runAsNonRoot"] = json!(false)),
        ["runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)"]
    );
    assert_eq!(
        with(|s| s["containers"][0]["securityContext"]["capabilities"]["add"] =
            json!(["SYS_TIME", "NET_BIND_SERVICE"])),
        [
            "unrestricted capabilities (container \"c\" must not include \"SYS_TIME\" in securityContext.capabilities.add)"
        ]
    );
    assert_eq!(
        with(|s| s["volumes"] = json!([{ "name": "v", "nfs": { "path": "/", "server": "s" } }])),
        ["restricted volume types (volume \"v\" uses restricted volume type \"nfs\")"]
    );
    // In a user namespace root is nobody, from 1.35 on.
    let userns = |minor| {
        let mut spec = good();
        spec["hostUsers"] = json!(false);
        spec["securityContext"] = json!({ "runAsUser": 0, "seccompProfile": { "type": "RuntimeDefault" } });
        violations_of(Level::Restricted, minor, spec).len()
    };
    assert_eq!((userns(None), userns(Some(35)), userns(Some(34))), (0, 0, 2));
}

#[test]
fn versions_bring_their_checks() {
    let sysctl = |minor| {
        violations_of(
            Level::Baseline,
            Some(minor),
            json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem", "value": "1" }] } }),
        )
        .len()
    };
    assert_eq!((sysctl(31), sysctl(32)), (1, 0));
    let probe = |minor| {
        violations_of(Level::Baseline, Some(minor), json!({ "containers": [{ "name": "c", "image": "i", "lifecycle": { "preStop": { "tcpSocket": { "port": 1, "host": "h" } } } }] })).len()
    };
    assert_eq!((probe(33), probe(34)), (0, 1));
}

#[test]
fn a_namespaces_labels_decide() {
    let user = Arc::new(UserInfo::authenticated("jane", &[]));
    let bad = || {
        doc(
            "v1",
            "Pod",
            json!({ "metadata": { "name": "p" }, "spec": { "hostNetwork": true, "containers": [{ "name": "c", "image": "i" }] } }),
        )
    };
    let ask = |labels: Json, operation, old: Option<&Doc>| {
        let plugin = PodSecurity::new(Arc::new(Namespace(labels, Vec::new())));
        let a = attributes(&user, operation, "", "pods");
        let pod = bad();
        (plugin.validate(Some(&pod), old, &a).map_err(|s| s.message), plugin.warnings(&pod, old, &a))
    };
    assert_eq!(ask(json!({}), Operation::Create, None), (Ok(()), vec![]));
    assert_eq!(ask(labels(&[("enforce", "baseline")]), Operation::Create, None).0,
        Err("pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)".to_owned()));
    assert!(ask(labels(&[("enforce", "restricted"), ("enforce-version", "v1.30")]), Operation::Create, None).0.unwrap_err()
        .contains("violates PodSecurity \"restricted:v1.30\": host namespaces (hostNetwork=true), allowPrivilegeEscalation != false"));
    assert_eq!(
        ask(labels(&[("warn", "baseline")]), Operation::Create, None),
        (
            Ok(()),
            vec![
                "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
                    .to_owned()
            ]
        )
    );
    // Labels that cannot be understood are enforced as the strictest.
    assert!(
        ask(labels(&[("enforce", "none")]), Operation::Create, None)
            .0
            .unwrap_err()
            .contains("violates PodSecurity \"restricted:latest\"")
    );
    // An update that changes nothing of concern may pass, one that changes an image may not.
    let same = bad();
    assert!(ask(labels(&[("enforce", "baseline")]), Operation::Update, Some(&same)).0.is_ok());
    let other = doc(
        "v1",
        "Pod",
        json!({ "metadata": { "name": "p" }, "spec": { "hostNetwork": true, "containers": [{ "name": "c", "image": "j" }] } }),
    );
    assert!(ask(labels(&[("enforce", "baseline")]), Operation::Update, Some(&other)).0.is_err());
}

#[test]
fn controllers_are_warned_of_but_not_refused() {
    let user = Arc::new(UserInfo::authenticated("jane", &[]));
    let plugin = PodSecurity::new(Arc::new(Namespace(labels(&[("enforce", "baseline")]), Vec::new())));
    let a = attributes(&user, Operation::Create, "apps", "deployments");
    let object = doc(
        "apps/v1",
        "Deployment",
        json!({ "metadata": { "name": "d" }, "spec": { "template": { "spec": { "hostPID": true, "containers": [{ "name": "c", "image": "i" }] } } } }),
    );
    assert!(plugin.validate(Some(&object), None, &a).is_ok());
    assert_eq!(
        plugin.warnings(&object, None, &a),
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]
    );
}

#[test]
fn namespaces_need_good_labels_and_tell_of_the_pods_they_have() {
    let user = Arc::new(UserInfo::authenticated("jane", &[]));
    let namespace = |list: &[(&str, &str)]| {
        doc("v1", "Namespace", json!({ "metadata": { "name": "ns", "labels": labels(list) } }))
    };
    let pods = ["b", "a", "good"].map(|name| json!({ "metadata": { "name": name }, "spec": { "hostIPC": name != "good", "containers": [] } }));
    let plugin = PodSecurity::new(Arc::new(Namespace(json!({}), pods.to_vec())));
    let create = attributes(&user, Operation::Create, "", "namespaces");
    let update = attributes(&user, Operation::Update, "", "namespaces");
    let wrong = namespace(&[("enforce", "none"), ("warn-version", "1.30")]);
    let why = plugin.validate(Some(&wrong), None, &create).unwrap_err();
    assert_eq!(why.code, 422);
    let causes: Vec<&str> = why.details.as_ref().unwrap().causes.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(
        causes,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]",
            "metadata.labels[pod-security.kubernetes.io/warn-version]"
        ]
    );
    assert!(why.message.contains("must be one of privileged, baseline, restricted"), "{}", why.message);
    // What was wrong before may stay wrong.
    plugin.validate(Some(&wrong), Some(&wrong), &update).unwrap();
    let (open, strict) = (namespace(&[]), namespace(&[("enforce", "baseline")]));
    plugin.validate(Some(&strict), Some(&open), &update).unwrap();
    assert_eq!(
        plugin.warnings(&strict, Some(&open), &update),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
        ]
    );
    assert!(plugin.warnings(&open, Some(&strict), &update).is_empty());
}
