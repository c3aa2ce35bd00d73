use super::super::ChainOptions;
use super::super::harness::*;
use keelson_api::doc::{Doc, to_json_value};
use serde_json::{Value, json};

fn node(labels: Value, more: Value) -> Doc {
    let mut object = json!({ "metadata": { "name": "n1", "labels": labels } });
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    doc("v1", "Node", object)
}

#[test]
fn a_kubelet_may_write_its_own_node_and_its_own_labels() {
    let world = world();
    let me = kubelet("n1");
    let made = world
        .run(
            &me,
            "CREATE core/nodes -/-",
            Some(node(json!({ "kubernetes.io/hostname": "n1" }), json!({}))),
            None,
        )
        .unwrap();
    assert_eq!(
        made["spec"]["taints"],
        json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }])
    );
    let why = world.refusal(&kubelet("n2"), "CREATE core/nodes -/-", Some(node(json!({}), json!({}))), None);
    assert_eq!(why, "nodes \"n1\" is forbidden: node \"n2\" is not allowed to modify node \"n1\"");
    for own in [
        "kubernetes.io/os",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/x",
        "a.kubelet.kubernetes.io/x",
        "example.com/x",
        "plain",
    ] {
        world
            .run(&me, "CREATE core/nodes -/-", Some(node(json!({ own: "v" }), json!({}))), None)
            .unwrap_or_else(|e| panic!("{own}: {e:?}"));
    }
    for foreign in [
        "kubernetes.io/x",
        "foo.kubernetes.io/x",
        "k8s.io/x",
        "x.k8s.io/y",
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "node-role.kubernetes.io/control-plane",
    ] {
        let why =
            world.refusal(&me, "CREATE core/nodes -/-", Some(node(json!({ foreign: "v" }), json!({}))), None);
        assert_eq!(
            why,
            format!(
                "nodes \"n1\" is forbidden: node \"n1\" is not allowed to set the following labels: {foreign}"
            )
        );
        // Neither added, nor changed, nor taken away.
        for (new, old) in [
            (json!({ foreign: "v" }), json!({})),
            (json!({ foreign: "v" }), json!({ foreign: "w" })),
            (json!({}), json!({ foreign: "v" })),
        ] {
            let why = world.refusal(
                &me,
                "UPDATE core/nodes -/n1",
                Some(node(new, json!({}))),
                Some(node(old, json!({}))),
            );
            assert_eq!(why, format!("nodes \"n1\" is forbidden: is not allowed to modify labels: {foreign}"));
        }
        // One that an administrator set may stay.
        let same = || node(json!({ foreign: "v" }), json!({}));
        world.run(&me, "UPDATE core/nodes -/n1", Some(same()), Some(same())).unwrap();
    }
    let taint =
        |effect: &str| node(json!({}), json!({ "spec": { "taints": [{ "key": "k", "effect": effect }] } }));
    for sub in ["", "/status"] {
        let text = format!("UPDATE core/nodes{sub} -/n1");
        let why = world.refusal(&me, &text, Some(taint("NoSchedule")), Some(taint("NoExecute")));
        assert!(why.ends_with("node \"n1\" is not allowed to modify taints"), "{why}");
        world.run(&me, &text, Some(taint("NoExecute")), Some(taint("NoExecute"))).unwrap();
    }
    let owned = || {
        let mut object = to_json_value(&node(json!({}), json!({})));
        object["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" }]);
        doc("v1", "Node", object)
    };
    let why = world.refusal(&me, "UPDATE core/nodes -/n1", Some(owned()), Some(node(json!({}), json!({}))));
    assert!(why.ends_with("node \"n1\" is not allowed to modify ownerReferences"), "{why}");
    let source = || {
        node(
            json!({}),
            json!({ "spec": { "configSource": { "configMap": { "name": "m", "namespace": "n", "kubeletConfigKey": "k" } } } }),
        )
    };
    assert!(
        world.refusal(&me, "CREATE core/nodes -/-", Some(source()), None).contains("non-nil configSource")
    );
    assert!(
        world
            .refusal(&me, "UPDATE core/nodes -/n1", Some(source()), Some(node(json!({}), json!({}))))
            .contains("configSource")
    );
    assert!(
        world
            .refusal(&me, "DELETE core/nodes -/n2", None, None)
            .contains("not allowed to modify node \"n2\"")
    );
    // Who is no kubelet is not confined; who is one but says not which, is.
    world.run(&jane(), "UPDATE core/nodes -/n1", Some(taint("a")), Some(taint("b"))).unwrap();
    let unnamed = kubelet("");
    assert!(
        world
            .refusal(&unnamed, "CREATE core/nodes -/-", Some(node(json!({}), json!({}))), None)
            .contains("could not determine node")
    );
}

fn mirror(change: impl FnOnce(&mut Value)) -> Doc {
    let mut object = json!({
        "metadata": { "name": "m", "namespace": "ns", "annotations": { "kubernetes.io/config.mirror": "h" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "node-uid", "controller": true }] },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "i" }] } });
    change(&mut object);
    pod(object)
}

#[test]
fn a_kubelet_makes_mirror_pods_that_refer_to_nothing() {
    let world = world();
    world.objects.set("", "nodes", "", "n1", json!({ "metadata": { "uid": "node-uid" } }));
    let me = kubelet("n1");
    let text = "CREATE core/pods ns/-";
    let made = world.run(&me, text, Some(mirror(|_| {})), None).unwrap();
    assert!(made["spec"].get("serviceAccountName").is_none() && made["spec"].get("volumes").is_none());
    type Change = fn(&mut Value);
    let table: &[(Change, &str)] = &[
        (
            |o| {
                o["metadata"].as_object_mut().unwrap().remove("annotations");
            },
            "pod does not have \"kubernetes.io/config.mirror\" annotation",
        ),
        (|o| o["spec"]["nodeName"] = json!("n2"), "can only create pods with spec.nodeName set to itself"),
        (
            |o| {
                o["spec"].as_object_mut().unwrap().remove("nodeName");
            },
            "can only create pods with spec.nodeName set to itself",
        ),
        (
            |o| {
                o["metadata"].as_object_mut().unwrap().remove("ownerReferences");
            },
            "can only create pods with an owner reference set to itself",
        ),
        (
            |o| {
                let first = o["metadata"]["ownerReferences"][0].clone();
                o["metadata"]["ownerReferences"].as_array_mut().unwrap().push(first);
            },
            "with a single owner reference set to itself",
        ),
        (
            |o| o["metadata"]["ownerReferences"][0]["name"] = json!("n2"),
            "with an owner reference set to itself",
        ),
        (
            |o| o["metadata"]["ownerReferences"][0]["kind"] = json!("Pod"),
            "with an owner reference set to itself",
        ),
        (
            |o| o["metadata"]["ownerReferences"][0]["controller"] = json!(false),
            "with a controller owner reference set to itself",
        ),
        (
            |o| o["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(true),
            "must not set blockOwnerDeletion",
        ),
        (|o| o["metadata"]["ownerReferences"][0]["uid"] = json!("x"), "node n1 UID mismatch"),
        (
            |o| o["spec"]["serviceAccountName"] = json!("app"),
            "a mirror pod may not reference service accounts",
        ),
        (
            |o| o["spec"]["imagePullSecrets"] = json!([{ "name": "s" }]),
            "a mirror pod may not reference secrets",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "s" } }]),
            "a mirror pod may not reference secrets",
        ),
        (
            |o| {
                o["spec"]["initContainers"] =
                    json!([{ "name": "x", "image": "i", "envFrom": [{ "secretRef": { "name": "s" } }] }])
            },
            "a mirror pod may not reference secrets",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }] } }]),
            "may not use ServiceAccountToken volume projections",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "m" } }]),
            "can not create pods that reference configmaps",
        ),
        (
            |o| o["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "m" } }]),
            "can not create pods that reference configmaps",
        ),
        (
            |o| {
                o["spec"]["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }])
            },
            "can not create pods that reference persistentvolumeclaims",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "ephemeral": {} }]),
            "persistentvolumeclaims (via ephemeral volumes)",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "csi": { "driver": "d" } }]),
            "csidrivers (via CSI volumes)",
        ),
        (
            |o| o["spec"]["volumes"] = json!([{ "name": "v", "projected": { "sources": [{ "clusterTrustBundle": { "path": "t" } }] } }]),
            "can not create pods that reference clustertrustbundles",
        ),
        (
            |o| o["spec"]["resourceClaims"] = json!([{ "name": "r" }]),
            "can not create pods that reference resourceclaims",
        ),
        (|o| o["spec"]["volumes"] = json!([{ "name": "v" }]), "an unknown type of volume"),
    ];
    for (change, expected) in table {
        let why = world.refusal(&me, text, Some(mirror(change)), None);
        assert!(why.contains(expected), "{why}\nexpected: {expected}");
    }
    world.run(&me, text, Some(mirror(|o| o["spec"]["volumes"] = json!([{ "name": "v", "hostPath": { "path": "/" } }, { "name": "e", "emptyDir": {} },
        { "name": "d", "projected": { "sources": [{ "downwardAPI": {} }] } }]))), None).unwrap();
}

#[test]
fn a_kubelet_touches_only_its_own_pods() {
    let world = world();
    for (name, node) in [("mine", "n1"), ("yours", "n2")] {
        world.objects.set(
            "",
            "pods",
            "ns",
            name,
            json!({ "metadata": { "uid": "u" }, "spec": { "nodeName": node } }),
        );
    }
    let me = kubelet("n1");
    let stored = |name: &str, node: &str| {
        pod(
            json!({ "metadata": { "name": name, "labels": { "a": "b" } }, "spec": { "nodeName": node, "containers": [] } }),
        )
    };
    world.run(&me, "DELETE core/pods ns/mine", None, Some(stored("mine", "n1"))).unwrap();
    assert!(
        world
            .refusal(&me, "DELETE core/pods ns/yours", None, Some(stored("yours", "n2")))
            .contains("can only delete pods with spec.nodeName set to itself")
    );
    assert_eq!(world.refusal(&me, "DELETE core/pods ns/none", None, None), "pods \"none\" not found");
    // deletecollection names each object only by itself
    assert!(
        world
            .refusal(&me, "DELETE core/pods ns/-", None, Some(stored("yours", "n2")))
            .contains("can only delete pods")
    );
    let mine = || stored("mine", "n1");
    world.run(&me, "UPDATE core/pods/status ns/mine", Some(mine()), Some(mine())).unwrap();
    assert!(
        world
            .refusal(
                &me,
                "UPDATE core/pods/status ns/yours",
                Some(stored("yours", "n1")),
                Some(stored("yours", "n2"))
            )
            .contains("can only update pod status for pods with spec.nodeName set to itself")
    );
    let mut relabelled = mine();
    relabelled.meta_mut().set_label("a", "c");
    assert!(
        world
            .refusal(&me, "UPDATE core/pods/status ns/mine", Some(relabelled), Some(mine()))
            .contains("cannot update labels through pod status")
    );
    let claims = pod(
        json!({ "metadata": { "name": "mine", "labels": { "a": "b" } }, "spec": { "nodeName": "n1", "containers": [] },
        "status": { "resourceClaimStatuses": [{ "name": "r", "resourceClaimName": "x" }] } }),
    );
    assert!(
        world
            .refusal(&me, "UPDATE core/pods/status ns/mine", Some(claims), Some(mine()))
            .contains("cannot update resource claim statues")
    );
    let extended = pod(
        json!({ "metadata": { "name": "mine", "labels": { "a": "b" } }, "spec": { "nodeName": "n1", "containers": [] },
        "status": { "extendedResourceClaimStatus": { "resourceClaimName": "x", "requestMappings": [] } } }),
    );
    assert!(
        world
            .refusal(&me, "UPDATE core/pods/status ns/mine", Some(extended), Some(mine()))
            .contains("cannot update extended resource claim status")
    );
    for (text, expected) in [
        ("UPDATE core/pods ns/mine", "can only create and delete mirror pods"),
        ("CREATE core/pods/binding ns/mine", "unexpected pod subresource \"binding\""),
        ("CONNECT core/pods/exec ns/mine", "unexpected pod subresource \"exec\""),
        (
            "UPDATE core/pods/ephemeralcontainers ns/mine",
            "unexpected pod subresource \"ephemeralcontainers\"",
        ),
        ("UPDATE core/pods/resize ns/mine", "unexpected pod subresource \"resize\""),
    ] {
        let old = (!text.starts_with("CREATE")).then(mine);
        let why = world.refusal(&me, text, Some(mine()), old);
        assert!(why.contains(expected), "{why}");
    }
    let eviction = |name: &str| doc("policy/v1", "Eviction", json!({ "metadata": { "name": name } }));
    world.run(&me, "CREATE core/pods/eviction ns/mine", Some(eviction("mine")), None).unwrap();
    assert!(
        world
            .refusal(&me, "CREATE core/pods/eviction ns/yours", Some(eviction("yours")), None)
            .contains("can only evict pods with spec.nodeName set to itself")
    );
    // The name in the URL counts, not that in the body.
    assert!(
        world
            .refusal(&me, "CREATE core/pods/eviction ns/yours", Some(eviction("mine")), None)
            .contains("can only evict")
    );
}

fn token_request(bound: Value, audiences: &[&str]) -> Doc {
    doc(
        "authentication.k8s.io/v1",
        "TokenRequest",
        json!({ "spec": { "audiences": audiences, "boundObjectRef": bound } }),
    )
}

#[test]
fn a_kubelet_asks_for_tokens_of_its_pods_and_their_audiences() {
    let world = world_with(&["request-serviceaccounts-token-audience granted app"], ChainOptions::default());
    let volumes = json!([
        { "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "t" } }, { "serviceAccountToken": { "path": "v", "audience": "vault" } }] } },
        { "name": "c", "csi": { "driver": "driver" } }]);
    world.objects.set(
        "",
        "pods",
        "ns",
        "mine",
        json!({ "metadata": { "uid": "u" }, "spec": { "nodeName": "n1", "volumes": volumes } }),
    );
    world.objects.set(
        "",
        "pods",
        "ns",
        "yours",
        json!({ "metadata": { "uid": "v" }, "spec": { "nodeName": "n2" } }),
    );
    world.objects.set(
        "storage.k8s.io",
        "csidrivers",
        "",
        "driver",
        json!({ "spec": { "tokenRequests": [{ "audience": "csi" }] } }),
    );
    let me = kubelet("n1");
    let text = "CREATE core/serviceaccounts/token ns/app";
    let mine = || json!({ "apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "u" });
    for audiences in [&[][..], &["vault"], &["csi"], &["granted"]] {
        world
            .run(&me, text, Some(token_request(mine(), audiences)), None)
            .unwrap_or_else(|e| panic!("{audiences:?} {e:?}"));
    }
    let refused: &[(Value, &[&str], &str)] = &[
        (Value::Null, &[], "node requested token not bound to a pod"),
        (
            json!({ "apiVersion": "v1", "kind": "Secret", "name": "mine", "uid": "u" }),
            &[],
            "node requested token not bound to a pod",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u" }),
            &[],
            "node requested token not bound to a pod",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "name": "mine" }),
            &[],
            "with a pod binding without a uid",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "name": "mine", "uid": "x" }),
            &[],
            "the UID in the bound object reference (x) does not match",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "name": "yours", "uid": "v" }),
            &[],
            "bound to a pod scheduled on a different node",
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "name": "none", "uid": "v" }),
            &[],
            "pods \"none\" not found",
        ),
        (
            mine(),
            &["other"],
            "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience",
        ),
        (mine(), &["vault", "csi"], "node may only request 0 or 1 audiences"),
    ];
    for (bound, audiences, expected) in refused {
        let why = world.refusal(&me, text, Some(token_request(bound.clone(), audiences)), None);
        assert!(why.contains(expected), "{why}\nexpected: {expected}");
    }
}

#[test]
fn a_kubelets_leases_csinodes_slices_claims_and_requests() {
    let world = world();
    world.objects.set("", "namespaces", "", "kube-node-lease", json!({}));
    let me = kubelet("n1");
    let named = |api: &str, kind: &str, name: &str| doc(api, kind, json!({ "metadata": { "name": name } }));
    let lease = |name: &str| named("coordination.k8s.io/v1", "Lease", name);
    world.run(&me, "CREATE coordination.k8s.io/leases kube-node-lease/-", Some(lease("n1")), None).unwrap();
    world
        .run(
            &me,
            "UPDATE coordination.k8s.io/leases kube-node-lease/n1",
            Some(lease("n1")),
            Some(lease("n1")),
        )
        .unwrap();
    let own = "can only access node lease with the same name as the requesting node";
    assert!(
        world
            .refusal(&me, "CREATE coordination.k8s.io/leases kube-node-lease/-", Some(lease("n2")), None)
            .contains(own)
    );
    assert!(
        world
            .refusal(&me, "DELETE coordination.k8s.io/leases kube-node-lease/n2", None, Some(lease("n2")))
            .contains(own)
    );
    assert!(
        world
            .refusal(&me, "UPDATE coordination.k8s.io/leases ns/n1", Some(lease("n1")), Some(lease("n1")))
            .contains("kube-node-lease")
    );
    let csi = |name: &str| named("storage.k8s.io/v1", "CSINode", name);
    world.run(&me, "CREATE storage.k8s.io/csinodes -/-", Some(csi("n1")), None).unwrap();
    assert!(
        world
            .refusal(&me, "CREATE storage.k8s.io/csinodes -/-", Some(csi("n2")), None)
            .contains("can only access CSINode")
    );
    let slice = |node: &str| {
        doc(
            "resource.k8s.io/v1",
            "ResourceSlice",
            json!({ "metadata": { "name": "s" }, "spec": { "nodeName": node } }),
        )
    };
    world.run(&me, "CREATE resource.k8s.io/resourceslices -/-", Some(slice("n1")), None).unwrap();
    assert!(
        world
            .refusal(&me, "CREATE resource.k8s.io/resourceslices -/-", Some(slice("n2")), None)
            .contains("can only create ResourceSlice")
    );
    assert!(
        world
            .refusal(&me, "DELETE resource.k8s.io/resourceslices -/s", None, Some(slice("n2")))
            .contains("can only delete ResourceSlice")
    );
    let claim = |more: Value| {
        doc(
            "v1",
            "PersistentVolumeClaim",
            json!({ "metadata": { "name": "c", "labels": more["labels"] }, "spec": { "volumeName": more["volume"] }, "status": more["status"] }),
        )
    };
    let base = || claim(json!({ "labels": {}, "volume": "v", "status": { "phase": "Bound" } }));
    let text = "UPDATE core/persistentvolumeclaims/status ns/c";
    world.run(&me, text, Some(claim(json!({ "labels": {}, "volume": "v", "status": { "phase": "Bound", "capacity": { "storage": "2Gi" } } }))), Some(base())).unwrap();
    for other in [
        json!({ "labels": { "a": "b" }, "volume": "v", "status": { "phase": "Bound" } }),
        json!({ "labels": {}, "volume": "v", "status": { "phase": "Lost" } }),
        json!({ "labels": {}, "volume": "w", "status": { "phase": "Bound" } }),
    ] {
        assert!(
            world
                .refusal(&me, text, Some(claim(other)), Some(base()))
                .contains("is not allowed to update fields other than status.quantity and status.conditions")
        );
    }
    assert!(
        world
            .refusal(&me, "UPDATE core/persistentvolumeclaims ns/c", Some(base()), Some(base()))
            .contains("may only update PVC status")
    );
}

/// Some requests have no object of their own to change (evictions, tokens, bindings, connections) and only the second
/// phase: it must refuse by itself whatever the first would.
#[test]
fn the_second_phase_refuses_alone() {
    let world = world();
    world.objects.set(
        "",
        "pods",
        "ns",
        "yours",
        json!({ "metadata": { "uid": "v" }, "spec": { "nodeName": "n2" } }),
    );
    let me = kubelet("n1");
    let alone = |text: &str, object: Option<Doc>| {
        let a = attributes(text, &me);
        world.chain.validate(object.as_ref(), None, &a).unwrap_err().message
    };
    let eviction = doc("policy/v1", "Eviction", json!({ "metadata": { "name": "yours" } }));
    assert!(alone("CREATE core/pods/eviction ns/yours", Some(eviction)).contains("can only evict pods"));
    let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": "yours", "uid": "v" });
    let token = Some(token_request(bound, &[]));
    assert!(alone("CREATE core/serviceaccounts/token ns/app", token).contains("on a different node"));
    assert!(alone("CONNECT core/pods/exec ns/yours", None).contains("unexpected pod subresource \"exec\""));
    let lease = doc("coordination.k8s.io/v1", "Lease", json!({ "metadata": { "name": "n2" } }));
    assert!(alone("CREATE coordination.k8s.io/leases ns/-", Some(lease)).contains("kube-node-lease"));
    let gone = doc("v1", "ConfigMap", json!({ "metadata": { "name": "m" } }));
    assert_eq!(alone("CREATE core/configmaps gone/-", Some(gone)), "namespaces \"gone\" not found");
}
