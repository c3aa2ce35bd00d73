//! What an update of an object or of its subresources changes, keeps and refuses.

use serde_json::{Value, json};

use crate::support::{Kind, json as encoded};

fn pod() -> Value {
    json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{
        "name": "c", "image": "nginx", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}]}})
}

fn deployment(replicas: i64) -> Value {
    json!({"metadata": {"name": "d", "labels": {"a": "b"}}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

#[test]
fn a_resize_changes_resources_only() {
    let kind = Kind::of("v1", "Pod");
    let (old, errors) = kind.create(&pod());
    assert!(errors.is_empty(), "{errors}");
    let resized = |resources: Value, image: &str| {
        let mut new = pod();
        new["spec"]["containers"][0]["resources"] = resources;
        new["spec"]["containers"][0]["image"] = json!(image);
        let (new, errors) = kind.update_doc(&old, kind.decode(&new), "resize");
        (encoded(&new), errors.to_string())
    };
    let wanted = json!({"requests": {"cpu": "150m"}, "limits": {"cpu": "300m"}});
    let (new, errors) = resized(wanted.clone(), "other");
    assert_eq!(errors, "");
    assert_eq!(
        new["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "300m"}, "requests": {"cpu": "150m"}})
    );
    assert_eq!(new["spec"]["containers"][0]["image"], "nginx");
    assert_eq!(new["metadata"]["generation"], 2);
    let (_, errors) = resized(json!({"requests": {"cpu": "150m"}}), "nginx");
    assert_eq!(errors, "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed");
    let (_, errors) = resized(json!({"limits": {"cpu": "200m", "memory": "1Gi"}}), "nginx");
    assert_eq!(
        errors,
        "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"
    );
    let storage = json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}, "limits": {"cpu": "200m"}});
    let (_, errors) = resized(storage, "nginx");
    assert_eq!(errors, "spec: Forbidden: only cpu and memory resources are mutable");
    let mut renamed = pod();
    renamed["spec"]["containers"][0]["name"] = json!("other");
    let (_, errors) = kind.update_doc(&old, kind.decode(&renamed), "resize");
    let text = "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize";
    assert_eq!(errors.to_string(), text);
}

#[test]
fn approvals_and_certificates() {
    let kind = Kind::of("certificates.k8s.io/v1", "CertificateSigningRequest");
    let request = {
        use base64::Engine as _;
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";
        base64::engine::general_purpose::STANDARD.encode(pem)
    };
    let object = |status: Value| {
        json!({"metadata": {"name": "r"}, "spec": {"request": request, "signerName": "example.com/x", "usages": ["client auth"],
            "username": "somebody else"}, "status": status})
    };
    let certificate = |body: &str| {
        use base64::Engine as _;
        let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        base64::engine::general_purpose::STANDARD.encode(pem)
    };
    let approved = json!({"type": "Approved", "status": "True", "reason": "R"});
    let (old, errors) = kind.create(&object(json!({"conditions": [approved]})));
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&old)["spec"]["username"], "tester");
    assert_eq!(encoded(&old)["status"], json!({}));

    let wanted = object(json!({"conditions": [approved], "certificate": certificate("MAA=")}));
    let (done, errors) = kind.update_doc(&old, kind.decode(&wanted), "approval");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(
        encoded(&done)["status"],
        json!({"conditions": [{"type": "Approved", "status": "True", "reason": "R",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    );

    let (kept, errors) = kind.update_doc(&old, kind.decode(&wanted), "");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&kept)["status"], json!({}));
    let (_, errors) = kind.update_doc(&old, kind.decode(&wanted), "status");
    let text = "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"";
    assert_eq!(errors.to_string(), text);

    let issued = object(json!({"conditions": [approved], "certificate": certificate("MAA=")}));
    let (issued, errors) = kind.update_doc(&done, kind.decode(&issued), "status");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&issued)["status"]["certificate"], certificate("MAA="));
    assert_eq!(encoded(&issued)["status"]["conditions"][0]["lastUpdateTime"], "2026-01-01T00:00:00Z");
    let other = object(json!({"conditions": [approved], "certificate": certificate("MAE=")}));
    let (_, errors) = kind.update_doc(&issued, kind.decode(&other), "status");
    let text = "status.certificate: Forbidden: updates may not modify existing certificate content";
    assert_eq!(errors.to_string(), text);
    let both = object(json!({"conditions": [approved, {"type": "Denied", "status": "True"}]}));
    let (_, errors) = kind.update_doc(&done, kind.decode(&both), "approval");
    let text =
        "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive";
    assert_eq!(errors.to_string(), text);
}

#[test]
fn a_status_update_of_a_deployment() {
    let kind = Kind::of("apps/v1", "Deployment");
    let (old, _) = kind.create(&deployment(1));
    let mut new = deployment(9);
    new["metadata"]["labels"] = json!({"a": "changed"});
    new["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "1"});
    new["status"] = json!({"observedGeneration": 1, "replicas": 1, "unavailableReplicas": 1});
    let (done, errors) = kind.update_doc(&old, kind.decode(&new), "status");
    assert!(errors.is_empty(), "{errors}");
    let done = encoded(&done);
    assert_eq!(done["spec"]["replicas"], 1);
    assert_eq!(done["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(done["metadata"]["generation"], 1);
    assert_eq!(done["status"]["replicas"], 1);
    // And the main resource leaves the status alone.
    let (done, errors) = kind.update_doc(&old, kind.decode(&new), "");
    assert!(errors.is_empty(), "{errors}");
    let done = encoded(&done);
    assert_eq!(done["spec"]["replicas"], 9);
    assert_eq!(done["metadata"]["generation"], 2);
    assert_eq!(done["status"], encoded(&old)["status"]);
    new["status"] = json!({"replicas": 1, "readyReplicas": 2});
    let (_, errors) = kind.update_doc(&old, kind.decode(&new), "status");
    let text = "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas";
    assert_eq!(errors.to_string(), text);
}

#[test]
fn namespaces_and_their_finalizers() {
    let kind = Kind::of("v1", "Namespace");
    let object = json!({"metadata": {"name": "n"}});
    let (old, errors) = kind.create(&object);
    assert!(errors.is_empty(), "{errors}");
    let shown = encoded(&old);
    assert_eq!(shown["spec"], json!({"finalizers": ["kubernetes"]}));
    assert_eq!(shown["status"], json!({"phase": "Active"}));
    assert_eq!(shown["metadata"]["labels"], json!({"kubernetes.io/metadata.name": "n"}));
    let (same, errors) = kind.update_doc(&old, kind.decode(&object), "");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&same)["spec"], json!({"finalizers": ["kubernetes"]}));
    let none =
        json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}, "status": {"phase": "Terminating"}});
    let (done, errors) = kind.update_doc(&old, kind.decode(&none), "finalize");
    assert!(errors.is_empty(), "{errors}");
    assert!(encoded(&done)["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(encoded(&done)["status"], json!({"phase": "Active"}));
    let (_, errors) = kind.update_doc(&old, kind.decode(&none), "status");
    let text =
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
    assert_eq!(errors.to_string(), text);
}

#[test]
fn defaults_of_workloads() {
    let (doc, errors) = Kind::of("apps/v1", "Deployment").create(&deployment(1));
    assert!(errors.is_empty(), "{errors}");
    let spec = &encoded(&doc)["spec"];
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}});
    assert_eq!(spec["strategy"], rolling);
    assert_eq!((&spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]), (&json!(10), &json!(600)));
    assert_eq!(spec["template"]["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");

    let template =
        json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "serviceName": "x",
        "template": template, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}});
    let (doc, errors) = Kind::of("apps/v1", "StatefulSet").create(&set);
    assert!(errors.is_empty(), "{errors}");
    let spec = &encoded(&doc)["spec"];
    assert_eq!(spec["replicas"], 1);
    assert_eq!(spec["podManagementPolicy"], "OrderedReady");
    assert_eq!(
        spec["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
    );
    assert_eq!(
        spec["persistentVolumeClaimRetentionPolicy"],
        json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
    );
    let claim = &spec["volumeClaimTemplates"][0];
    assert_eq!((&claim["kind"], &claim["apiVersion"]), (&json!("PersistentVolumeClaim"), &json!("v1")));
    assert_eq!(claim["status"], json!({"phase": "Pending"}));
    assert_eq!(claim["spec"]["volumeMode"], "Filesystem");

    let daemon = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template}});
    let (doc, errors) = Kind::of("apps/v1", "DaemonSet").create(&daemon);
    assert!(errors.is_empty(), "{errors}");
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
    assert_eq!(encoded(&doc)["spec"]["updateStrategy"], strategy);
}

#[test]
fn defaults_of_jobs() {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": template}});
    let (doc, errors) = Kind::of("batch/v1", "Job").create(&job);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    let uid = crate::support::UID;
    assert_eq!(out["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    let labels = json!({"batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "j",
        "controller-uid": uid, "job-name": "j"});
    assert_eq!(out["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(out["metadata"]["labels"], labels);
    for (name, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("manualSelector", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(out["spec"][name], value, "{name}");
    }
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}});
    let (doc, errors) = Kind::of("batch/v1", "CronJob").create(&cron);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(out["spec"]["concurrencyPolicy"], "Allow");
    assert_eq!(out["spec"]["suspend"], false);
    assert_eq!(out["spec"]["successfulJobsHistoryLimit"], 3);
    assert_eq!(out["spec"]["failedJobsHistoryLimit"], 1);
    assert_eq!(out["spec"]["jobTemplate"]["spec"].get("completions"), None);
}

#[test]
fn defaults_of_services_and_others() {
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "type": "LoadBalancer",
        "externalTrafficPolicy": "Local"}});
    let (doc, _) = Kind::of("v1", "Service").create(&service);
    let spec = &encoded(&doc)["spec"];
    assert_eq!(spec["ports"], json!([{"port": 80, "protocol": "TCP", "targetPort": 80}]));
    assert_eq!(spec["sessionAffinity"], "None");
    assert_eq!(spec["internalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    let sticky =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "sessionAffinity": "ClientIP"}});
    let (doc, _) = Kind::of("v1", "Service").create(&sticky);
    let spec = &encoded(&doc)["spec"];
    assert_eq!(spec["type"], "ClusterIP");
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}, "data": {"c": "ZA=="}});
    let (doc, errors) = Kind::of("v1", "Secret").create(&secret);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(out["type"], "Opaque");
    assert_eq!(out["data"], json!({"a": "Yg==", "c": "ZA=="}));
    assert_eq!(out.get("stringData"), None);

    let policy = json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}, "egress": [{}], "ingress": [{"ports": [{"port": 1}]}]}});
    let (doc, errors) = Kind::of("networking.k8s.io/v1", "NetworkPolicy").create(&policy);
    assert!(errors.is_empty(), "{errors}");
    let spec = &encoded(&doc)["spec"];
    assert_eq!(spec["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(spec["ingress"][0]["ports"][0]["protocol"], "TCP");

    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "n"}]});
    let (doc, errors) = Kind::of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding").create(&binding);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(out["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(out["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(out["subjects"][1].get("apiGroup"), None);
    let mut changed = binding.clone();
    changed["roleRef"]["name"] = json!("view");
    let (_, errors) =
        Kind::of("rbac.authorization.k8s.io/v1", "ClusterRoleBinding").update(&binding, &changed, "");
    assert!(errors.to_string().ends_with("cannot change roleRef"), "{errors}");
}

#[test]
fn statuses_of_nodes_and_jobs() {
    let kind = Kind::of("v1", "Node");
    let node =
        json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}});
    let (old, errors) = kind.create(&node);
    assert!(errors.is_empty(), "{errors}");
    let report = json!({"metadata": {"name": "n"}, "spec": {"unschedulable": true}, "status": {"capacity": {"cpu": "4"},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    let (done, errors) = kind.update_doc(&old, kind.decode(&report), "status");
    assert!(errors.is_empty(), "{errors}");
    let shown = encoded(&done);
    assert_eq!(shown["spec"], json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}));
    assert_eq!(shown["status"]["capacity"], json!({"cpu": "4"}));
    let cordoned = json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"], "unschedulable": true}});
    let (changed, errors) = kind.update_doc(&done, kind.decode(&cordoned), "");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&changed)["status"]["capacity"], json!({"cpu": "4"}));

    let kind = Kind::of("batch/v1", "Job");
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job =
        |status: Value| json!({"metadata": {"name": "j"}, "spec": {"template": template}, "status": status});
    let (old, errors) = kind.create(&job(json!({"active": 3})));
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&old)["status"], json!({}));
    let (done, errors) = kind.update_doc(
        &old,
        kind.decode(&job(json!({"active": 1, "startTime": "2026-01-01T00:00:00Z"}))),
        "status",
    );
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&done)["status"]["active"], 1);
    assert_eq!(encoded(&done)["spec"], encoded(&old)["spec"]);
}

#[test]
fn storage_objects_that_do_not_change() {
    let driver = |required: Value| json!({"metadata": {"name": "d.example.com"}, "spec": {"attachRequired": required}});
    let kind = Kind::of("storage.k8s.io/v1", "CSIDriver");
    let (doc, errors) = kind.create(&driver(json!(true)));
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&doc)["metadata"]["generation"], Value::Null);
    let (_, errors) = kind.update(&driver(json!(true)), &driver(json!(false)), "");
    assert_eq!(errors.to_string(), "spec.attachedRequired: Invalid value: false: field is immutable");

    let attachment = |node: &str| {
        json!({"metadata": {"name": "a"}, "spec": {"attacher": "d.example.com", "nodeName": node,
            "source": {"persistentVolumeName": "pv"}}})
    };
    let kind = Kind::of("storage.k8s.io/v1", "VolumeAttachment");
    let (_, errors) = kind.update(&attachment("n1"), &attachment("n1"), "");
    assert!(errors.is_empty(), "{errors}");
    let (_, errors) = kind.update(&attachment("n1"), &attachment("n2"), "");
    assert!(errors.to_string().ends_with("field is immutable"), "{errors}");
    let (_, errors) = kind.create(
        &json!({"metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {}}}),
    );
    let text =
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    assert_eq!(errors.to_string(), text);

    let node = |id: &str, count: i64| {
        json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "d.example.com", "nodeID": id,
            "topologyKeys": ["zone"], "allocatable": {"count": count}}]}})
    };
    let kind = Kind::of("storage.k8s.io/v1", "CSINode");
    let (_, errors) = kind.update(&node("a", 1), &node("a", 2), "");
    assert!(errors.is_empty(), "{errors}");
    let (_, errors) = kind.update(&node("a", 1), &node("b", 1), "");
    assert!(errors.to_string().starts_with("spec.drivers: Invalid value:"), "{errors}");
    let (_, errors) = kind.create(&node("a", -1));
    let text = "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(errors.to_string(), text);

    let claim = |count: i64| {
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [{"name": "r", "exactly": {
            "deviceClassName": "x", "count": count}}]}}})
    };
    let kind = Kind::of("resource.k8s.io/v1", "ResourceClaim");
    let (_, errors) = kind.update(&claim(1), &claim(1), "");
    assert!(errors.is_empty(), "{errors}");
    let (_, errors) = kind.update(&claim(1), &claim(2), "");
    assert!(errors.to_string().ends_with("field is immutable"), "{errors}");
}

#[test]
fn custom_resource_definitions() {
    let kind = Kind::of("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": schema});
    let definition = |name: &str, group: &str, versions: Value| {
        json!({"metadata": {"name": name}, "spec": {"group": group, "scope": "Namespaced", "versions": versions,
            "names": {"plural": "foos", "kind": "Foo"}}})
    };
    let one = json!([version("v1", true)]);
    let good = definition("foos.example.com", "example.com", one.clone());
    let (doc, errors) = kind.create(&good);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(out["spec"]["names"]["singular"], "foo");
    assert_eq!(out["spec"]["names"]["listKind"], "FooList");
    assert_eq!(out["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(out["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(out["metadata"]["generation"], 1);
    let bad = |object: Value| kind.create(&object).1.to_string();
    let text =
        "metadata.name: Invalid value: \"foo.example.com\": must be spec.names.plural+\".\"+spec.group";
    assert_eq!(bad(definition("foo.example.com", "example.com", one.clone())), text);
    let text = "spec.group: Invalid value: \"example\": should be a domain with at least one dot";
    assert_eq!(bad(definition("foos.example", "example", one.clone())), text);
    let text = "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval \
        annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111";
    assert_eq!(bad(definition("foos.x.k8s.io", "x.k8s.io", one)), text);
    let none_stored = definition("foos.example.com", "example.com", json!([version("v1", false)]));
    let errors = bad(none_stored);
    assert!(errors.contains("must have exactly one version marked as storage version"), "{errors}");
    assert!(
        errors.contains("status.storedVersions: Invalid value: null: must have at least one stored version"),
        "{errors}"
    );
    let bare = json!([{"name": "v1", "served": true, "storage": true}]);
    let text = "spec.versions[0].schema.openAPIV3Schema: Required value";
    assert_eq!(bad(definition("foos.example.com", "example.com", bare)), text);

    let two =
        definition("foos.example.com", "example.com", json!([version("v1", false), version("v2", true)]));
    let (doc, errors) = kind.update(&good, &two, "");
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&doc)["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(encoded(&doc)["metadata"]["generation"], 2);
    let gone = definition("foos.example.com", "example.com", json!([version("v2", true)]));
    let (_, errors) = kind.update(&good, &gone, "");
    assert!(
        errors.to_string().starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from"),
        "{errors}"
    );
}

#[test]
fn aggregated_groups() {
    let kind = Kind::of("apiregistration.k8s.io/v1", "APIService");
    let object = |name: &str, priority: i64, service: Value| {
        json!({"metadata": {"name": name}, "spec": {"group": "g.example", "version": "v1", "groupPriorityMinimum": priority,
            "versionPriority": 1, "service": service}})
    };
    let service = json!({"namespace": "n", "name": "s"});
    let (doc, errors) = kind.create(&object("v1.g.example", 10, service.clone()));
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(encoded(&doc)["spec"]["service"]["port"], 443);
    let (_, errors) = kind.create(&object("v2.g.example", 10, service.clone()));
    let text = "metadata.name: Invalid value: \"v2.g.example\": must be `spec.version+\".\"+spec.group`: \"v1.g.example\"";
    assert_eq!(errors.to_string(), text);
    let (_, errors) = kind.create(&object("v1.g.example", 0, service));
    let text = "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000";
    assert_eq!(errors.to_string(), text);
}

/// A field of old clients and the list that came after it say the same (core/v1 `conversion.go`).
#[test]
fn addresses_stand_in_both_fields() {
    let pods = Kind::of("v1", "Pod");
    let node =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": spec});
    let status = |status: Value| {
        let mut new = pod();
        new["status"] = status;
        let (doc, errors) = pods.update(&pod(), &new, "status");
        assert!(errors.is_empty(), "{errors}");
        let out = encoded(&doc);
        json!([out["status"]["podIP"], out["status"]["podIPs"]])
    };
    let both = |ip: &str| json!([ip, [{"ip": ip}]]);
    assert_eq!(status(json!({"podIP": "10.0.0.1"})), both("10.0.0.1"));
    assert_eq!(status(json!({"podIPs": [{"ip": "10.0.0.1"}]})), both("10.0.0.1"));
    let differ = json!({"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
    assert_eq!(status(differ), both("10.0.0.2"));

    let nodes = Kind::of("v1", "Node");
    for given in [
        json!({"podCIDR": "10.0.0.0/24"}),
        json!({"podCIDRs": ["10.0.0.0/24"]}),
        json!({"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.1.0/24"]}),
    ] {
        let (doc, errors) = nodes.create(&node(given));
        assert!(errors.is_empty(), "{errors}");
        let spec = &encoded(&doc)["spec"];
        assert_eq!(json!([spec["podCIDR"], spec["podCIDRs"]]), json!(["10.0.0.0/24", ["10.0.0.0/24"]]));
    }
}

/// Of pods themselves alone (core/v1 `conversion.go`, Convert_v1_Pod_To_core_Pod).
#[test]
fn what_old_clients_say_of_pods() {
    let mut object = pod();
    object["metadata"]["annotations"] = json!({"pod.beta.kubernetes.io/init-containers": "[]", "a": "b"});
    object["spec"]["terminationGracePeriodSeconds"] = json!(-5);
    let (doc, errors) = Kind::of("v1", "Pod").create(&object);
    assert!(errors.is_empty(), "{errors}");
    let out = encoded(&doc);
    assert_eq!(out["metadata"]["annotations"], json!({"a": "b"}));
    assert_eq!(out["spec"]["terminationGracePeriodSeconds"], 1);

    let mut object = deployment(1);
    let old = json!({"pod.alpha.kubernetes.io/init-container-statuses": "[]"});
    object["spec"]["template"]["metadata"]["annotations"] = old;
    object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(-5);
    let (doc, errors) = Kind::of("apps/v1", "Deployment").create(&object);
    assert!(errors.is_empty(), "{errors}");
    let template = &encoded(&doc)["spec"]["template"];
    assert_eq!(template["metadata"]["annotations"], Value::Null);
    assert_eq!(template["spec"]["terminationGracePeriodSeconds"], -5);
}

/// `validateKubeFinalizerName`, of types whose metadata core's rules check.
#[test]
fn finalizers_without_a_domain_are_those_of_kubernetes() {
    let text = "metadata.finalizers[1]: Invalid value: \"bad\": name is neither a standard finalizer name nor is it fully \
                qualified";
    let object = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "finalizers": ["orphan", "bad"]}});
    let maps = Kind::of("v1", "ConfigMap");
    let bad = object("v1", "ConfigMap");
    assert_eq!(maps.create(&bad).1.to_string(), text);
    let old = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    assert_eq!(maps.update(&old, &bad, "").1.to_string(), text);
    let leases = Kind::of("coordination.k8s.io/v1", "Lease");
    assert_eq!(leases.create(&object("coordination.k8s.io/v1", "Lease")).1.to_string(), "");
}

/// `ResetObjectMetaForStatus`.
#[test]
fn some_statuses_are_written_without_metadata() {
    let check = |api_version: &str, kind: &str, spec: Value, labels: Value| {
        let old = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a": "b"});
        let (doc, errors) = Kind::of(api_version, kind).update(&old, &new, "status");
        assert!(errors.is_empty(), "{errors}");
        assert_eq!(encoded(&doc)["metadata"]["labels"], labels, "{kind}");
    };
    let source = json!({"persistentVolumeName": "p"});
    let attachment = json!({"attacher": "a", "nodeName": "n", "source": source});
    check("storage.k8s.io/v1", "VolumeAttachment", attachment, Value::Null);
    check("networking.k8s.io/v1", "ServiceCIDR", json!({"cidrs": ["10.0.0.0/24"]}), Value::Null);
    let backend = json!({"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}});
    check("networking.k8s.io/v1", "Ingress", backend, json!({"a": "b"}));
}

/// What the old API's template generation was is kept by an annotation; a new DaemonSet may bring one.
#[test]
fn a_daemon_set_keeps_the_template_generation_it_is_made_with() {
    let annotation = "deprecated.daemonset.template.generation";
    let kind = Kind::of("apps/v1", "DaemonSet");
    for (given, kept) in [("5", "5"), ("0", "1"), ("-3", "1")] {
        let mut object = deployment(1);
        object["kind"] = json!("DaemonSet");
        object["spec"].as_object_mut().unwrap().remove("replicas");
        object["metadata"]["annotations"] = json!({annotation: given});
        let (doc, errors) = kind.create(&object);
        assert!(errors.is_empty(), "{errors}");
        assert_eq!(encoded(&doc)["metadata"]["annotations"][annotation], kept);
    }
}

/// Types that do not count generations keep the one they are made with, as a backup brings it.
#[test]
fn a_given_generation_stays_where_none_is_counted() {
    let made = |api_version: &str, kind: &str, generation: i64| {
        let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "generation": generation}});
        let (doc, errors) = Kind::of(api_version, kind).create(&object);
        (encoded(&doc)["metadata"]["generation"].clone(), errors.to_string())
    };
    assert_eq!(made("v1", "ConfigMap", 7), (json!(7), String::new()));
    let text = "metadata.generation: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(made("v1", "ConfigMap", -1).1, text);
}
