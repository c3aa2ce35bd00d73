use super::harness::*;
use super::*;
use serde_json::{Value, json};

#[test]
fn plugins_stand_in_upstreams_order() {
    let all = ChainOptions { owner_references: true, extended_resource_toleration: true };
    assert_eq!(
        world_with(&[], all).chain.names(),
        [
            "NamespaceLifecycle",
            "LimitRanger",
            "ServiceAccount",
            "NodeRestriction",
            "TaintNodesByCondition",
            "PodSecurity",
            "Priority",
            "DefaultTolerationSeconds",
            "ExtendedResourceToleration",
            "DefaultStorageClass",
            "StorageObjectInUseProtection",
            "OwnerReferencesPermissionEnforcement",
            "PersistentVolumeClaimResize",
            "RuntimeClass",
            "CertificateApproval",
            "CertificateSigning",
            "CertificateSubjectRestriction",
            "DefaultIngressClass",
            "PodTopologyLabels",
        ]
    );
}

#[test]
fn a_plain_pod_gets_what_upstream_gives_it() {
    let world = world();
    let made = world.create_pod(minimal()).unwrap();
    let volume = made["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
    assert!(
        volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5,
        "{volume}"
    );
    assert_eq!(
        made["spec"],
        json!({
            "volumes": [{ "name": volume, "projected": { "sources": [
                { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
            ], "defaultMode": 420 } }],
            "containers": [{ "name": "c", "image": "i", "resources": {}, "volumeMounts": [
                { "name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }] }],
            "serviceAccountName": "default", "serviceAccount": "default",
            "tolerations": [
                { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
                { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 },
            ],
            "priority": 0, "preemptionPolicy": "PreemptLowerPriority",
        })
    );
}

#[test]
fn service_accounts() {
    let world = world();
    let account = |object| world.objects.set("", "serviceaccounts", "ns", "app", object);
    let with = |spec: Value| {
        let mut object = minimal();
        object["spec"]["serviceAccountName"] = json!("app");
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        world.create_pod(object)
    };
    assert_eq!(
        with(json!({})).unwrap_err().message,
        "pods \"p\" is forbidden: error looking up service account ns/app: serviceaccount \"app\" not found"
    );
    account(json!({ "imagePullSecrets": [{ "name": "pull" }], "automountServiceAccountToken": false }));
    let made = with(json!({})).unwrap();
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{ "name": "pull" }]));
    assert!(made["spec"].get("volumes").is_none(), "the account does not want its token mounted");
    let made = with(json!({ "automountServiceAccountToken": true, "imagePullSecrets": [{ "name": "own" }] }))
        .unwrap();
    assert!(made["spec"]["volumes"].is_array(), "the pod's wish wins");
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{ "name": "own" }]));
    // A container that mounts something there itself keeps it.
    let mount = json!([{ "name": "mine", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" }]);
    let made =
        with(json!({ "automountServiceAccountToken": true, "volumes": [{ "name": "mine", "emptyDir": {} }],
        "containers": [{ "name": "c", "image": "i", "volumeMounts": mount }] }))
        .unwrap();
    assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 1);
    // Only listed secrets, where the account says so.
    account(json!({ "metadata": { "annotations": { "kubernetes.io/enforce-mountable-secrets": "true" } },
        "secrets": [{ "name": "listed" }], "automountServiceAccountToken": false }));
    with(json!({ "volumes": [{ "name": "v", "secret": { "secretName": "listed" } }] })).unwrap();
    let why = with(json!({ "volumes": [{ "name": "v", "secret": { "secretName": "other" } }] }))
        .unwrap_err()
        .message;
    assert_eq!(
        why,
        "pods \"p\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service account app does not reference that secret"
    );
    let env = json!([{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "other", "key": "k" } } }]);
    let why = with(json!({ "containers": [{ "name": "c", "image": "i", "env": env }] })).unwrap_err().message;
    assert!(
        why.contains("container c with envVar A referencing secret.secretName=\"other\" is not allowed"),
        "{why}"
    );
    let from = json!([{ "secretRef": { "name": "other" } }]);
    let why = with(json!({ "initContainers": [{ "name": "i", "image": "i", "envFrom": from }] }))
        .unwrap_err()
        .message;
    assert!(why.contains("init container i with envFrom referencing secret.secretName=\"other\""), "{why}");
    // Ephemeral containers do not get round it.
    let mut old = minimal();
    old["spec"]["serviceAccountName"] = json!("app");
    let mut new = old.clone();
    new["spec"]["ephemeralContainers"] = json!([{ "name": "e", "image": "i", "envFrom": from }]);
    let why =
        world.refusal(&jane(), "UPDATE core/pods/ephemeralcontainers ns/p", Some(pod(new)), Some(pod(old)));
    assert!(why.contains("ephemeral container e with envFrom"), "{why}");
}

#[test]
fn a_pod_may_wait_for_its_namespaces_default_account() {
    let world = world();
    let user = jane();
    let a = attributes("CREATE core/pods fresh/-", &user);
    assert_eq!(world.chain.awaits_default_account(&pod(minimal()), &a), Some("fresh"));
    let mut named = minimal();
    named["spec"]["serviceAccountName"] = json!("app");
    assert_eq!(world.chain.awaits_default_account(&pod(named), &a), None);
    let there = attributes("CREATE core/pods ns/-", &user);
    assert_eq!(world.chain.awaits_default_account(&pod(minimal()), &there), None);
}

#[test]
fn namespaces_must_be_there_and_alive() {
    let world = world();
    let map = || Some(doc("v1", "ConfigMap", json!({ "metadata": { "name": "m" } })));
    let why = world.run(&jane(), "CREATE core/configmaps gone/-", map(), None).unwrap_err();
    assert_eq!((why.code, why.message.as_str()), (404, "namespaces \"gone\" not found"));
    world.run(&jane(), "CREATE core/configmaps ns/-", map(), None).unwrap();
    world.objects.set("", "namespaces", "", "going", json!({ "status": { "phase": "Terminating" } }));
    let why = world.run(&jane(), "CREATE core/configmaps going/-", map(), None).unwrap_err();
    assert_eq!(
        why.message,
        "configmaps \"m\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    let cause = &why.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_ref(), cause.field.as_str()), ("NamespaceTerminating", "metadata.namespace"));
    world.run(&jane(), "UPDATE core/configmaps going/m", map(), map()).unwrap();
    world.run(&jane(), "DELETE core/configmaps gone/m", None, map()).unwrap();
    for name in ["default", "kube-system", "kube-public"] {
        let why = world.refusal(&jane(), &format!("DELETE core/namespaces -/{name}"), None, None);
        assert_eq!(why, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
    world.run(&jane(), "DELETE core/namespaces -/ns", None, None).unwrap();
    // What an access review would otherwise tell of namespaces is not told.
    let review = doc("authorization.k8s.io/v1", "LocalSubjectAccessReview", json!({ "spec": {} }));
    world
        .run(&jane(), "CREATE authorization.k8s.io/localsubjectaccessreviews gone/-", Some(review), None)
        .unwrap();
}

#[test]
fn priorities_come_from_classes() {
    let world = world();
    world.objects.set(
        "scheduling.k8s.io",
        "priorityclasses",
        "",
        "high",
        json!({ "value": 1000, "preemptionPolicy": "Never" }),
    );
    let with = |spec: Value| {
        let mut object = minimal();
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        world.create_pod(object)
    };
    let made = with(json!({ "priorityClassName": "high" })).unwrap();
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
    assert_eq!(
        with(json!({ "priorityClassName": "none" })).unwrap_err().message,
        "pods \"p\" is forbidden: no PriorityClass with name none was found"
    );
    assert_eq!(
        with(json!({ "priority": 5 })).unwrap_err().message,
        "pods \"p\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name"
    );
    assert!(
        with(json!({ "priorityClassName": "high", "preemptionPolicy": "PreemptLowerPriority" }))
            .unwrap_err()
            .message
            .contains("the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided")
    );
    with(json!({ "priorityClassName": "high", "priority": 1000 })).unwrap();
    world.objects.set(
        "scheduling.k8s.io",
        "priorityclasses",
        "",
        "usual",
        json!({ "value": 7, "globalDefault": true }),
    );
    let made = with(json!({})).unwrap();
    assert_eq!((&made["spec"]["priority"], &made["spec"]["priorityClassName"]), (&json!(7), &json!("usual")));
    let class = |name: &str| {
        doc(
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({ "metadata": { "name": name }, "value": 1, "globalDefault": true }),
        )
    };
    assert!(
        world
            .refusal(&jane(), "CREATE scheduling.k8s.io/priorityclasses -/-", Some(class("second")), None)
            .ends_with("PriorityClass usual is already marked as default. Only one default can exist")
    );
    world
        .run(
            &jane(),
            "UPDATE scheduling.k8s.io/priorityclasses -/usual",
            Some(class("usual")),
            Some(class("usual")),
        )
        .unwrap();
    // An update by an older client does not lose them.
    let old = pod({
        let mut o = minimal();
        o["spec"]["priority"] = json!(7);
        o["spec"]["preemptionPolicy"] = json!("Never");
        o
    });
    let made = world.run(&jane(), "UPDATE core/pods ns/p", Some(pod(minimal())), Some(old)).unwrap();
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
}

#[test]
fn tolerations_that_are_there_stay_alone() {
    let options = ChainOptions { extended_resource_toleration: true, ..ChainOptions::default() };
    let world = world_with(&[], options);
    let mut object = minimal();
    object["spec"]["tolerations"] = json!([{ "operator": "Exists", "effect": "NoExecute" }]);
    object["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": "1", "example.com/gpu": "1", "hugepages-2Mi": "2Mi" } });
    let made = world.create_pod(object).unwrap();
    assert_eq!(
        made["spec"]["tolerations"],
        json!([{ "operator": "Exists", "effect": "NoExecute" },
        { "key": "example.com/gpu", "operator": "Exists", "effect": "NoSchedule" }])
    );
}

#[test]
fn runtime_classes() {
    let world = world();
    let with = |spec: Value| {
        let mut object = minimal();
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        world.create_pod(object)
    };
    assert_eq!(
        with(json!({ "runtimeClassName": "none" })).unwrap_err().message,
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    assert!(
        with(json!({ "overhead": { "cpu": "1" } }))
            .unwrap_err()
            .message
            .contains("Pod Overhead set without corresponding RuntimeClass")
    );
    world.objects.set("node.k8s.io", "runtimeclasses", "", "vm", json!({ "handler": "vm", "overhead": { "podFixed": { "cpu": "250m" } },
        "scheduling": { "nodeSelector": { "vm": "yes" }, "tolerations": [{ "key": "vm", "operator": "Exists" }] } }));
    let made = with(json!({ "runtimeClassName": "vm", "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "vm", "operator": "Exists", "effect": "NoSchedule" }] })).unwrap();
    assert_eq!(made["spec"]["overhead"], json!({ "cpu": "250m" }));
    assert_eq!(made["spec"]["nodeSelector"], json!({ "a": "b", "vm": "yes" }));
    let tolerations = made["spec"]["tolerations"].as_array().unwrap();
    assert!(tolerations.contains(&json!({ "key": "vm", "operator": "Exists" })));
    assert!(
        !tolerations.contains(&json!({ "key": "vm", "operator": "Exists", "effect": "NoSchedule" })),
        "the class' covers it"
    );
    assert!(
        with(json!({ "runtimeClassName": "vm", "nodeSelector": { "vm": "no" } }))
            .unwrap_err()
            .message
            .contains(
                "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no"
            )
    );
    assert!(
        with(json!({ "runtimeClassName": "vm", "overhead": { "cpu": "1" } }))
            .unwrap_err()
            .message
            .contains("doesn't match RuntimeClass's defined Overhead")
    );
    with(json!({ "runtimeClassName": "vm", "overhead": { "cpu": "0.25" } })).unwrap();
}

#[test]
fn limit_ranges_complete_and_bound() {
    let world = world();
    let range = |limits: Value| {
        world.objects.set("", "limitranges", "ns", "r", json!({ "spec": { "limits": limits } }))
    };
    let with = |resources: Value| {
        let mut object = minimal();
        object["spec"]["containers"][0]["resources"] = resources;
        world.create_pod(object)
    };
    range(
        json!([{ "type": "Container", "default": { "cpu": "500m", "memory": "64Mi" }, "defaultRequest": { "cpu": "100m" } }]),
    );
    let made = with(json!({ "limits": { "cpu": "1" } })).unwrap();
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({ "limits": { "cpu": "1", "memory": "64Mi" }, "requests": { "cpu": "100m" } })
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; memory limit for container c"
    );
    range(
        json!([{ "type": "Container", "min": { "cpu": "100m" }, "max": { "cpu": "2" }, "maxLimitRequestRatio": { "cpu": "4" } }]),
    );
    with(json!({ "requests": { "cpu": "500m" }, "limits": { "cpu": "2" } })).unwrap();
    for (resources, expected) in [
        (
            json!({}),
            "[minimum cpu usage per Container is 100m.  No request is specified, maximum cpu usage per Container is 2.  No limit is specified, cpu max limit to request ratio per Container is 4, but no request is specified or request is 0]",
        ),
        (
            json!({ "requests": { "cpu": "50m" }, "limits": { "cpu": "100m" } }),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "3" } }),
            "maximum cpu usage per Container is 2, but limit is 3",
        ),
        (
            json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "500m" } }),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000",
        ),
    ] {
        let why = with(resources).unwrap_err().message;
        assert_eq!(why, format!("pods \"p\" is forbidden: {expected}"));
    }
    range(json!([{ "type": "Pod", "max": { "memory": "1Gi" } }]));
    let two = |memory: &str, init: Value| {
        let limits = json!({ "limits": { "memory": memory }, "requests": { "memory": memory } });
        let mut object = minimal();
        object["spec"]["containers"] = json!([{ "name": "a", "image": "i", "resources": limits }, { "name": "b", "image": "i", "resources": limits }]);
        object["spec"]["initContainers"] = init;
        world.create_pod(object)
    };
    two("512Mi", json!([])).unwrap();
    assert!(
        two("513Mi", json!([]))
            .unwrap_err()
            .message
            .contains("maximum memory usage per Pod is 1Gi, but limit is 1026Mi")
    );
    let init = |policy: Value| json!([{ "name": "s", "image": "i", "restartPolicy": policy, "resources": { "limits": { "memory": "100Mi" }, "requests": { "memory": "100Mi" } } }]);
    two("500Mi", init(Value::Null)).unwrap();
    assert!(two("500Mi", init(json!("Always"))).is_err(), "a sidecar runs beside the containers");
    range(
        json!([{ "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" } }]),
    );
    let claim = |size: &str| {
        doc(
            "v1",
            "PersistentVolumeClaim",
            json!({ "metadata": { "name": "c" }, "spec": { "resources": { "requests": { "storage": size } } } }),
        )
    };
    let text = "CREATE core/persistentvolumeclaims ns/-";
    world.run(&jane(), text, Some(claim("1Gi")), None).unwrap();
    assert!(
        world
            .refusal(&jane(), text, Some(claim("3Gi")), None)
            .contains("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi")
    );
    assert!(
        world
            .refusal(&jane(), text, Some(claim("500Mi")), None)
            .contains("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi")
    );
}

#[test]
fn claims_get_a_class_and_a_finalizer_and_grow_only_where_they_can() {
    let world = world();
    let class = |name: &str, created: &str, default: bool, grows: bool| {
        world.objects.set("storage.k8s.io", "storageclasses", "", name, json!({ "allowVolumeExpansion": grows,
            "metadata": { "creationTimestamp": created, "annotations": { "storageclass.kubernetes.io/is-default-class": default.to_string() } } }));
    };
    let claim = |spec: Value, status: &str| {
        doc(
            "v1",
            "PersistentVolumeClaim",
            json!({ "metadata": { "name": "c" }, "spec": spec, "status": { "phase": status } }),
        )
    };
    let text = "CREATE core/persistentvolumeclaims ns/-";
    let made = world.run(&jane(), text, Some(claim(json!({}), "")), None).unwrap();
    assert!(made["spec"].get("storageClassName").is_none());
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    class("older", "2026-01-01T00:00:00Z", true, false);
    class("newer", "2026-02-01T00:00:00Z", true, true);
    class("newest", "2026-03-01T00:00:00Z", false, true);
    let made = world.run(&jane(), text, Some(claim(json!({}), "")), None).unwrap();
    assert_eq!(made["spec"]["storageClassName"], "newer");
    let made = world.run(&jane(), text, Some(claim(json!({ "storageClassName": "" }), "")), None).unwrap();
    assert_eq!(made["spec"]["storageClassName"], "", "no class is a choice");
    let sized = |size: &str, class: &str, status: &str| {
        claim(json!({ "storageClassName": class, "resources": { "requests": { "storage": size } } }), status)
    };
    let text = "UPDATE core/persistentvolumeclaims ns/c";
    world
        .run(&jane(), text, Some(sized("2Gi", "newer", "Bound")), Some(sized("1Gi", "newer", "Bound")))
        .unwrap();
    world
        .run(&jane(), text, Some(sized("1Gi", "older", "Bound")), Some(sized("1024Mi", "older", "Bound")))
        .unwrap();
    assert!(
        world
            .refusal(
                &jane(),
                text,
                Some(sized("2Gi", "newer", "Pending")),
                Some(sized("1Gi", "newer", "Pending"))
            )
            .contains("Only bound persistent volume claims can be expanded")
    );
    assert!(
        world
            .refusal(
                &jane(),
                text,
                Some(sized("2Gi", "older", "Bound")),
                Some(sized("1Gi", "older", "Bound"))
            )
            .contains("the storageclass that provisions the pvc must support resize")
    );
    let volume = doc("v1", "PersistentVolume", json!({ "metadata": { "name": "v" }, "spec": {} }));
    let made = world.run(&jane(), "CREATE core/persistentvolumes -/-", Some(volume), None).unwrap();
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pv-protection"]));
}

#[test]
fn ingresses_get_the_default_class() {
    let world = world();
    world.objects.set(
        "networking.k8s.io",
        "ingressclasses",
        "",
        "nginx",
        json!({ "metadata": { "annotations": { "ingressclass.kubernetes.io/is-default-class": "true" } } }),
    );
    let ingress = |meta: Value, spec: Value| {
        let mut object = json!({ "metadata": meta, "spec": spec });
        object["metadata"]["name"] = json!("i");
        world
            .run(
                &jane(),
                "CREATE networking.k8s.io/ingresses ns/-",
                Some(doc("networking.k8s.io/v1", "Ingress", object)),
                None,
            )
            .unwrap()
    };
    assert_eq!(ingress(json!({}), json!({}))["spec"]["ingressClassName"], "nginx");
    assert_eq!(ingress(json!({}), json!({ "ingressClassName": "x" }))["spec"]["ingressClassName"], "x");
    assert!(
        ingress(json!({ "annotations": { "kubernetes.io/ingress.class": "y" } }), json!({}))["spec"]
            .get("ingressClassName")
            .is_none()
    );
}

#[test]
fn owners_are_set_by_who_may() {
    let options = ChainOptions { owner_references: true, ..ChainOptions::default() };
    let map =
        |refs: Value| doc("v1", "ConfigMap", json!({ "metadata": { "name": "m", "ownerReferences": refs } }));
    let owner = |block: bool| json!([{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "blockOwnerDeletion": block }]);
    let update = "UPDATE core/configmaps ns/m";
    let world = world_with(&[], options);
    world.run(&jane(), "CREATE core/configmaps ns/-", Some(map(owner(false))), None).unwrap();
    world.run(&jane(), update, Some(map(owner(true))), Some(map(owner(true)))).unwrap();
    assert!(
        world
            .refusal(&jane(), update, Some(map(owner(false))), Some(map(json!([]))))
            .contains("cannot set an ownerRef on a resource you can't delete: no")
    );
    assert!(world.refusal(&jane(), "CREATE core/configmaps ns/-", Some(map(owner(true))), None)
        .contains("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: no"));
    let unknown =
        json!([{ "apiVersion": "x/v1", "kind": "Y", "name": "r", "uid": "u", "blockOwnerDeletion": true }]);
    assert!(
        world
            .refusal(&jane(), "CREATE core/configmaps ns/-", Some(map(unknown)), None)
            .contains("cannot find RESTMapping for APIVersion x/v1 Kind Y")
    );
    let world = world_with(&["delete configmaps m", "update replicasets/finalizers r"], options);
    world.run(&jane(), update, Some(map(owner(true))), Some(map(json!([])))).unwrap();
}

#[test]
fn pods_learn_their_nodes_zone() {
    let world = world();
    let labels =
        json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x" });
    world.objects.set("", "nodes", "", "n1", json!({ "metadata": { "labels": labels } }));
    let binding = |kind: &str| {
        let target = json!({ "kind": kind, "name": "n1" });
        let object = json!({ "metadata": { "name": "p", "labels": { "topology.kubernetes.io/zone": "lie" } }, "target": target });
        let made =
            world.run(&jane(), "CREATE core/pods/binding ns/p", Some(doc("v1", "Binding", object)), None);
        made.unwrap()["metadata"]["labels"].clone()
    };
    assert_eq!(
        binding("Node"),
        json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r" })
    );
    assert_eq!(binding("Other"), json!({ "topology.kubernetes.io/zone": "lie" }));
    let mut bound = minimal();
    bound["spec"]["nodeName"] = json!("n1");
    let made = world.create_pod(bound).unwrap();
    assert_eq!(made["metadata"]["labels"]["topology.kubernetes.io/region"], "r");
    assert!(world.create_pod(minimal()).unwrap()["metadata"].get("labels").is_none());
}
