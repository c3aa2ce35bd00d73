//! Mistakes in every other type, each with the path and text that upstream answers with.

use serde_json::{Value, json};

use crate::support::Kind;

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}})
}

fn object(api_version: &str, kind: &str, rest: Value) -> Value {
    let mut out = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
    for (key, value) in rest.as_object().unwrap() {
        out[key] = value.clone();
    }
    out
}

/// `base` with the parts of `change` laid over it, at any depth; null removes.
fn with(base: &Value, change: Value) -> Value {
    let mut out = base.clone();
    fn lay(at: &mut Value, change: &Value) {
        match (at, change) {
            (Value::Object(at), Value::Object(change)) => {
                for (key, value) in change {
                    if value.is_null() {
                        at.remove(key);
                    } else if value.is_object() && at.get(key).is_some_and(Value::is_object) {
                        lay(at.get_mut(key).unwrap(), value);
                    } else {
                        at.insert(key.clone(), value.clone());
                    }
                }
            }
            (at, change) => *at = change.clone(),
        }
    }
    lay(&mut out, &change);
    out
}

fn kind_of(object: &Value) -> Kind {
    Kind::of(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
}

#[track_caller]
fn check(object: &Value, expected: &[&str]) {
    let (_, errors) = kind_of(object).create(object);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected, "{object}");
}

#[track_caller]
fn check_update(old: &Value, new: &Value, expected: &[&str]) {
    let (_, errors) = kind_of(old).update(old, new, "");
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, expected, "{new}");
}

#[test]
fn deployments() {
    let good = object(
        "apps/v1",
        "Deployment",
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}}),
    );
    check(&good, &[]);
    check(
        &with(&good, json!({"spec": {"replicas": -1}})),
        &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        &with(&good, json!({"spec": {"selector": {"matchLabels": {"a": "other"}}}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &with(&good, json!({"spec": {"selector": {"matchLabels": null}}})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        &with(&good, json!({"spec": {"selector": null}})),
        &[
            "spec.selector: Required value",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &with(&good, json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}})),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    check(
        &with(&good, json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}})),
        &[
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
        ],
    );
    check(
        &with(&good, json!({"spec": {"template": {"spec": {"containers": []}}}})),
        &["spec.template.spec.containers: Required value"],
    );
    check(
        &with(&good, json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": {}}}})),
        &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
    );
    check(
        &with(&good, json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}})),
        &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
    );
    check(
        &with(&good, json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": "101%"}}}})),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ],
    );
    check(
        &with(&good, json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": "x"}}}})),
        &[
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must be a numeric string followed \
         by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ],
    );
    check(
        &with(&good, json!({"spec": {"minReadySeconds": 600}})),
        &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
    );
    let mut other = with(&good, json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}}));
    other["spec"]["template"]["metadata"]["labels"]["a"] = json!("c");
    check_update(
        &good,
        &other,
        &["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"],
    );
    check_update(
        &good,
        &with(&good, json!({"metadata": {"resourceVersion": "7", "name": "y"}})),
        &["metadata.name: Invalid value: \"y\": field is immutable"],
    );
}

#[test]
fn generation_follows_the_spec() {
    let good = object(
        "apps/v1",
        "Deployment",
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}}),
    );
    let kind = kind_of(&good);
    let generation = |new: &Value, subresource: &str| {
        let (doc, errors) = kind.update(&good, new, subresource);
        assert!(errors.is_empty(), "{errors}");
        doc.meta().generation()
    };
    assert_eq!(generation(&good, ""), 1);
    assert_eq!(generation(&with(&good, json!({"metadata": {"labels": {"x": "y"}}})), ""), 1);
    assert_eq!(generation(&with(&good, json!({"metadata": {"generation": 9}})), ""), 1);
    assert_eq!(generation(&with(&good, json!({"metadata": {"annotations": {"x": "y"}}})), ""), 2);
    assert_eq!(generation(&with(&good, json!({"spec": {"replicas": 3}})), ""), 2);
    assert_eq!(
        generation(&with(&good, json!({"spec": {"replicas": 3}, "status": {"replicas": 2}})), "status"),
        1
    );
}

#[test]
fn other_workloads() {
    let rs = object(
        "apps/v1",
        "ReplicaSet",
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}}),
    );
    check(&rs, &[]);
    check(
        &with(&rs, json!({"spec": {"minReadySeconds": -1}})),
        &["spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"],
    );
    let ds = with(&rs, json!({"kind": "DaemonSet"}));
    check(&ds, &[]);
    check(
        &with(
            &ds,
            json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 1}}}}),
        ),
        &[
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ],
    );
    check(
        &with(&ds, json!({"spec": {"updateStrategy": {"type": "Sometimes"}}})),
        &[
            "spec.updateStrategy: Unsupported value: {\"type\":\"Sometimes\"}: supported values: \"RollingUpdate\", \"OnDelete\"",
        ],
    );
    let sts = with(&rs, json!({"kind": "StatefulSet", "spec": {"serviceName": "s"}}));
    check(&sts, &[]);
    check(
        &with(&sts, json!({"spec": {"podManagementPolicy": "Other"}})),
        &["spec.podManagementPolicy: Invalid value: \"Other\": must be 'OrderedReady' or 'Parallel'"],
    );
    check(
        &with(&sts, json!({"spec": {"serviceName": "a.b"}})),
        &["spec.serviceName: Invalid value: \"a.b\": must not contain dots"],
    );
    check_update(
        &sts,
        &with(&sts, json!({"spec": {"serviceName": "t"}})),
        &[
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ],
    );
    let mut claims = with(
        &sts,
        json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}}),
    );
    claims["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}]);
    check(&claims, &[]);
    let rc = object(
        "v1",
        "ReplicationController",
        json!({"spec": {"selector": {"a": "b"}, "template": template()}}),
    );
    check(&rc, &[]);
    check(
        &with(&rc, json!({"spec": {"selector": {"a": "c"}}})),
        &[
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ],
    );
    check(&with(&rc, json!({"spec": {"template": null}})), &["spec.template: Required value"]);
}

#[test]
fn jobs() {
    let mut pod = template();
    pod["spec"]["restartPolicy"] = json!("Never");
    let job = object("batch/v1", "Job", json!({"spec": {"template": pod.clone()}}));
    check(&job, &[]);
    check(
        &object("batch/v1", "Job", json!({"spec": {"template": template()}})),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check(
        &with(&job, json!({"spec": {"parallelism": -1}})),
        &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
    );
    check(
        &with(&job, json!({"spec": {"completionMode": "Indexed", "parallelism": 2}})),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    check(
        &with(&job, json!({"spec": {"selector": {"matchLabels": {"x": "y"}}}})),
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\
         \"11111111-2222-3333-4444-555555555555\",\"x\":\"y\"}}: `selector` not auto-generated",
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\",\"batch.kubernetes.io/controller-uid\":\
         \"11111111-2222-3333-4444-555555555555\",\"batch.kubernetes.io/job-name\":\"x\",\"controller-uid\":\
         \"11111111-2222-3333-4444-555555555555\",\"job-name\":\"x\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        &with(
            &job,
            json!({"spec": {"podFailurePolicy": {"rules": [{"action": "Explode", "onExitCodes": {"operator": "In", "values": [1]}}]}}}),
        ),
        &[
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Explode\": supported values: \"Count\", \"FailIndex\", \
         \"FailJob\", \"Ignore\"",
        ],
    );
    check(
        &with(&job, json!({"spec": {"managedBy": "x"}})),
        &["spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check_update(
        &job,
        &with(
            &job,
            json!({"spec": {"completions": 5, "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": crate::support::UID}},
        "template": {"metadata": {"labels": {"a": "b", "batch.kubernetes.io/controller-uid": crate::support::UID,
            "batch.kubernetes.io/job-name": "x", "controller-uid": crate::support::UID, "job-name": "x"}}}}}),
        ),
        &["spec.completions: Invalid value: 5: field is immutable"],
    );
    let cron = object(
        "batch/v1",
        "CronJob",
        json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod}}}}),
    );
    check(&cron, &[]);
    check(
        &with(&cron, json!({"spec": {"schedule": "error"}})),
        &["spec.schedule: Invalid value: \"error\": expected exactly 5 fields, found 1: [error]"],
    );
    check(
        &with(&cron, json!({"spec": {"schedule": "TZ=UTC 0 * * * *"}})),
        &[
            "spec.schedule: Invalid value: \"TZ=UTC 0 * * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        ],
    );
    check(
        &with(&cron, json!({"spec": {"concurrencyPolicy": "Maybe"}})),
        &[
            "spec.concurrencyPolicy: Unsupported value: \"Maybe\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        ],
    );
    check(
        &with(&cron, json!({"metadata": {"name": "a".repeat(53)}})),
        &[&format!(
            "metadata.name: Invalid value: \"{}\": must be no more than 52 characters",
            "a".repeat(53)
        )],
    );
}

#[test]
fn services_and_endpoints() {
    let service = object("v1", "Service", json!({"spec": {"ports": [{"port": 80}]}}));
    check(&service, &[]);
    check(&with(&service, json!({"spec": {"ports": []}})), &["spec.ports: Required value"]);
    check(
        &with(&service, json!({"metadata": {"name": "1x"}})),
        &[
            "metadata.name: Invalid value: \"1x\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
         start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex \
         used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        &with(&service, json!({"spec": {"type": "Other"}})),
        &[
            "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \
         \"NodePort\"",
        ],
    );
    check(
        &with(&service, json!({"spec": {"ports": [{"port": 0}]}})),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        &with(&service, json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}})),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        &with(&service, json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}})),
        &["spec.ports[1].name: Duplicate value: \"a\""],
    );
    check(
        &with(&service, json!({"spec": {"ports": [{"port": 80, "nodePort": 30000}]}})),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        &with(&service, json!({"spec": {"clusterIP": "1.2.3"}})),
        &[
            "spec.clusterIPs[0]: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        &with(&service, json!({"spec": {"sessionAffinity": "Maybe"}})),
        &["spec.sessionAffinity: Unsupported value: \"Maybe\": supported values: \"ClientIP\", \"None\""],
    );
    check(&with(&service, json!({"spec": {"type": "ExternalName"}})), &["spec.externalName: Required value"]);
    check(
        &with(&service, json!({"spec": {"type": "NodePort", "clusterIP": "None"}})),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check(
        &with(&service, json!({"spec": {"externalTrafficPolicy": "Local"}})),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ],
    );
    check(
        &with(&service, json!({"spec": {"externalIPs": ["127.0.0.1"]}})),
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ],
    );
    let placed = with(&service, json!({"spec": {"clusterIP": "10.96.0.9"}}));
    check_update(
        &placed,
        &with(&placed, json!({"spec": {"clusterIP": "10.96.0.8"}})),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
    );
    check_update(&placed, &service, &[]);
    let endpoints = object(
        "v1",
        "Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]}),
    );
    check(&endpoints, &[]);
    check(
        &with(&endpoints, json!({"subsets": [{"ports": [{"port": 1}]}]})),
        &["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"],
    );
    check(
        &with(
            &endpoints,
            json!({"subsets": [{"addresses": [{"ip": "169.254.1.1"}], "ports": [{"port": 1}]}]}),
        ),
        &[
            "subsets[0].addresses[0].ip: Invalid value: \"169.254.1.1\": may not be in the link-local range (169.254.0.0/16, \
         fe80::/10)",
        ],
    );
    let slice = object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
    );
    check(&slice, &[]);
    check(
        &with(&slice, json!({"addressType": "Other"})),
        &["addressType: Unsupported value: \"Other\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
    );
    check(
        &with(&slice, json!({"endpoints": [{"addresses": []}]})),
        &["endpoints[0].addresses: Required value: must contain at least 1 address"],
    );
    check_update(
        &slice,
        &with(&slice, json!({"addressType": "FQDN", "endpoints": []})),
        &["addressType: Invalid value: \"FQDN\": field is immutable"],
    );
}

#[test]
fn config_and_accounts() {
    let map = object("v1", "ConfigMap", json!({"data": {"k": "v"}}));
    check(&map, &[]);
    check(
        &with(&map, json!({"data": {"a/b": "v"}})),
        &[
            "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
         'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check(
        &with(&map, json!({"binaryData": {"k": "AAAA"}})),
        &["data[k]: Invalid value: \"k\": duplicate of key present in binaryData"],
    );
    check(
        &with(&map, json!({"data": {"k": "x".repeat(1_048_577)}})),
        &["[]: Too long: may not be more than 1048576 bytes"],
    );
    let frozen = with(&map, json!({"immutable": true}));
    check_update(
        &frozen,
        &with(&frozen, json!({"data": {"k": "w"}})),
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    check_update(&frozen, &map, &["immutable: Forbidden: field is immutable when `immutable` is set"]);
    let secret = object("v1", "Secret", json!({"stringData": {"k": "v"}}));
    let (doc, errors) = kind_of(&secret).create(&secret);
    assert!(errors.is_empty());
    let out = crate::support::json(&doc);
    assert_eq!((&out["data"], &out["type"]), (&json!({"k": "dg=="}), &json!("Opaque")));
    assert!(out.get("stringData").is_none());
    check(
        &with(&secret, json!({"type": "kubernetes.io/tls"})),
        &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
    );
    check(
        &with(&secret, json!({"type": "kubernetes.io/dockerconfigjson"})),
        &["data[.dockerconfigjson]: Required value"],
    );
    check(
        &with(&secret, json!({"type": "kubernetes.io/basic-auth"})),
        &["data[username]: Required value", "data[password]: Required value"],
    );
    check(
        &with(&secret, json!({"type": "kubernetes.io/service-account-token"})),
        &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
    );
    check_update(
        &secret,
        &with(&secret, json!({"type": "other"})),
        &["type: Invalid value: \"other\": field is immutable"],
    );
}

#[test]
fn cluster_objects() {
    let namespace = object("v1", "Namespace", json!({}));
    let (doc, errors) = kind_of(&namespace).create(&namespace);
    assert!(errors.is_empty());
    let out = crate::support::json(&doc);
    assert_eq!(out["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(out["status"], json!({"phase": "Active"}));
    assert_eq!(out["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "x"}));
    check(
        &with(&namespace, json!({"metadata": {"name": "a.b"}})),
        &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        &with(&namespace, json!({"metadata": {"namespace": "y"}})),
        &["metadata.namespace: Forbidden: not allowed on this type"],
    );
    let node = object("v1", "Node", json!({"status": {"capacity": {"cpu": "1"}}}));
    let (doc, errors) = kind_of(&node).create(&node);
    assert!(errors.is_empty());
    assert_eq!(crate::support::json(&doc)["status"]["allocatable"], json!({"cpu": "1"}));
    check(
        &with(
            &node,
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoSchedule"}]}}),
        ),
        &[
            "metadata.taints[1]: Duplicate value: {\"key\":\"k\",\"effect\":\"NoSchedule\"}: taints must be unique by key and effect pair",
        ],
    );
    check(
        &with(&node, json!({"spec": {"taints": [{"key": "k", "effect": ""}]}})),
        &["metadata.taints[0].effect: Required value"],
    );
    check(
        &with(&node, json!({"spec": {"podCIDRs": ["10.0.0.1"]}})),
        &[
            "spec.podCIDRs[0]: Invalid value: \"10.0.0.1\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    let placed = with(&node, json!({"spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}}));
    check_update(
        &placed,
        &with(&placed, json!({"spec": {"podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24"]}})),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
    );
    // The one of old clients stands where the two differ (core/v1 `conversion.go`).
    check_update(
        &placed,
        &with(&placed, json!({"spec": {"podCIDR": "10.0.1.0/24"}})),
        &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
    );
    check_update(&placed, &with(&placed, json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}})), &[]);
    let lease = object("coordination.k8s.io/v1", "Lease", json!({"spec": {"leaseDurationSeconds": 0}}));
    check(&lease, &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]);
    let event = object("v1", "Event", json!({"involvedObject": {"namespace": "other"}}));
    check(&event, &["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]);
    let class = object("scheduling.k8s.io/v1", "PriorityClass", json!({"value": 2_000_000_000}));
    check(&class, &["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]);
    check(
        &with(&class, json!({"value": 1, "metadata": {"name": "system-x"}})),
        &[
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: \
         system-x is not a known system priority class",
        ],
    );
    check(
        &object("node.k8s.io/v1", "RuntimeClass", json!({"handler": ""})),
        &[
            "handler: Invalid value: \"\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
         and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        &object("storage.k8s.io/v1", "StorageClass", json!({"provisioner": ""})),
        &["provisioner: Required value"],
    );
    let volume = object(
        "v1",
        "PersistentVolume",
        json!({"spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}}),
    );
    check(&volume, &[]);
    check(
        &with(&volume, json!({"spec": {"hostPath": null}})),
        &["spec: Required value: must specify a volume type"],
    );
    check(
        &with(&volume, json!({"spec": {"accessModes": ["Sometimes"]}})),
        &[
            "spec.accessModes: Unsupported value: \"Sometimes\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
         \"ReadWriteOnce\", \"ReadWriteOncePod\"",
        ],
    );
    let claim = object(
        "v1",
        "PersistentVolumeClaim",
        json!({"spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}),
    );
    check(&claim, &[]);
    check(&with(&claim, json!({"spec": {"resources": null}})), &["spec.resources[storage]: Required value"]);
    check_update(
        &claim,
        &with(&claim, json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})),
        &[
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
         claims\n",
        ],
    );
}

#[test]
fn access_and_networks() {
    let role = object(
        "rbac.authorization.k8s.io/v1",
        "Role",
        json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    );
    check(&role, &[]);
    check(&with(&role, json!({"metadata": {"name": "system:a:b"}})), &[]);
    check(
        &with(&role, json!({"metadata": {"name": "a/b"}})),
        &["metadata.name: Invalid value: \"a/b\": may not contain '/'"],
    );
    check(
        &with(&role, json!({"rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]})),
        &["rules[0].verbs: Required value: verbs must contain at least one value"],
    );
    check(
        &with(&role, json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
        &[
            "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
        ],
    );
    let binding = object(
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        json!({
        "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}),
    );
    check(&binding, &[]);
    check(
        &with(&binding, json!({"roleRef": {"kind": "Role"}})),
        &["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
    );
    check(
        &with(&binding, json!({"subjects": [{"kind": "ServiceAccount", "name": "s"}]})),
        &["subjects[0].namespace: Required value"],
    );
    check_update(
        &binding,
        &with(&binding, json!({"roleRef": {"name": "q"}})),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"q\"}: cannot \
         change roleRef",
        ],
    );
    let ingress = object(
        "networking.k8s.io/v1",
        "Ingress",
        json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
    );
    check(&ingress, &[]);
    check(
        &object("networking.k8s.io/v1", "Ingress", json!({"spec": {}})),
        &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        &with(&ingress, json!({"spec": {"rules": [{"host": "1.2.3.4"}]}})),
        &["spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address"],
    );
    check(
        &with(
            &ingress,
            json!({"spec": {"rules": [{"http": {"paths": [{"path": "x", "pathType": "Prefix",
        "backend": {"service": {"name": "s", "port": {"number": 80}}}}]}}]}}),
        ),
        &["spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path"],
    );
    let policy = object("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"podSelector": {}}}));
    check(&policy, &[]);
    check(
        &with(&policy, json!({"spec": {"ingress": [{"from": [{}]}]}})),
        &["spec.ingress[0].from[0]: Required value: must specify a peer"],
    );
    check(
        &with(
            &policy,
            json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}}),
        ),
        &[
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
        ],
    );
    let budget =
        object("policy/v1", "PodDisruptionBudget", json!({"spec": {"minAvailable": 1, "maxUnavailable": 1}}));
    check(
        &budget,
        &[
            "spec: Invalid value: {\"minAvailable\":1,\"maxUnavailable\":1}: minAvailable and maxUnavailable cannot be both set",
        ],
    );
    let scaler = object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        json!({"spec": {"maxReplicas": 3,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}}),
    );
    check(&scaler, &[]);
    check(
        &with(&scaler, json!({"spec": {"minReplicas": 5}})),
        &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
    );
    check(
        &with(&scaler, json!({"spec": {"scaleTargetRef": {"name": ""}}})),
        &["spec.scaleTargetRef.name: Required value"],
    );
    let quota = object("v1", "ResourceQuota", json!({"spec": {"hard": {"cpu": "1", "bogus": "1"}}}));
    check(
        &quota,
        &[
            "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource type or fully qualified",
            "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource for quota",
        ],
    );
    check(
        &object("v1", "ResourceQuota", json!({"spec": {"scopes": ["BestEffort", "NotBestEffort"]}})),
        &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
    );
    check(
        &object(
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}}),
        ),
        &[
            "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
        ],
    );
    check(
        &object("networking.k8s.io/v1", "ServiceCIDR", json!({"spec": {"cidrs": ["10.0.0.1/8"]}})),
        &["spec.cidrs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length"],
    );
    let mut ip = object("networking.k8s.io/v1", "IPAddress", json!({"spec": {}}));
    ip["metadata"]["name"] = json!("10.0.0.01");
    check(
        &ip,
        &[
            "metadata.name: Invalid value: \"10.0.0.01\": must not have leading 0s",
            "spec.parentRef: Required value",
        ],
    );
    check(
        &object(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            json!({"spec": {"request": "eA==", "signerName": "x", "usages": ["eat"]}}),
        ),
        &[
            "spec.request: Invalid value: \"eA==\": PEM block type must be CERTIFICATE REQUEST",
            "spec.usages[0]: Unsupported value: \"eat\": supported values: \"any\", \"cert sign\", \"client auth\", \"code \
         signing\", \"content commitment\", \"crl sign\", \"data encipherment\", \"decipher only\", \"digital signature\", \
         \"email protection\", \"encipher only\", \"ipsec end system\", \"ipsec tunnel\", \"ipsec user\", \"key agreement\", \
         \"key encipherment\", \"microsoft sgc\", \"netscape sgc\", \"ocsp signing\", \"s/mime\", \"server auth\", \
         \"signing\", \"timestamping\"",
            "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ],
    );
}
