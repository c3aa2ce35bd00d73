use super::*;
use crate::authn::UserInfo;
use crate::authz::{Attributes, Decision};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keelson_api::doc::{Gvk, from_json_value, to_json_value};
use keelson_api::schema::TypeId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Default)]
struct Objects(Mutex<BTreeMap<(String, String, String, String), Value>>);

impl Objects {
    fn set(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Value) {
        let mut object = object;
        object["metadata"]["name"] = json!(name);
        self.0.lock().insert((group.into(), resource.into(), namespace.into(), name.into()), object);
    }
}

impl ClusterReads for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let key = (group.to_owned(), resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).map(|v| Bytes::from(v.to_string()))
    }
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Bytes> {
        let objects = self.0.lock();
        let wanted = objects.iter().filter(|((g, r, n, _), _)| {
            g == group && r == resource && (namespace.is_empty() || n == namespace)
        });
        wanted.map(|(_, v)| Bytes::from(v.to_string())).collect()
    }
}

/// Allows what stands in its list, as `verb resource[/subresource] name`.
struct Only(&'static [&'static str]);

impl Authorizer for Only {
    fn authorize(&self, a: &Attributes) -> Decision {
        let sub = if a.subresource.is_empty() { String::new() } else { format!("/{}", a.subresource) };
        let text = format!("{} {}{sub} {}", a.verb, a.resource, a.name);
        if self.0.contains(&text.as_str()) { Decision::Allow } else { Decision::NoOpinion("no".into()) }
    }
}

struct World {
    objects: Arc<Objects>,
    chain: Chain,
}

fn world_with(allowed: &'static [&'static str], options: ChainOptions) -> World {
    let objects = Arc::new(Objects::default());
    objects.set("", "namespaces", "", "ns", json!({ "status": { "phase": "Active" } }));
    objects.set("", "serviceaccounts", "ns", "default", json!({}));
    let kinds: KindMapper = Arc::new(|group, _, kind| match (group, kind) {
        ("apps", "ReplicaSet") => vec![MappedResource {
            group: "apps".into(),
            version: "v1".into(),
            resource: "replicasets".into(),
            namespaced: true,
        }],
        _ => Vec::new(),
    });
    let chain = Chain::new(objects.clone(), Arc::new(Only(allowed)), kinds, options);
    World { objects, chain }
}

fn world() -> World {
    world_with(&[], ChainOptions::default())
}

pub(super) fn doc(api_version: &str, kind: &str, object: Value) -> Doc {
    let gvk = Gvk::from_api_version(api_version, kind);
    let ty = TypeId::by_gvk(&gvk.group, &gvk.version, kind).unwrap();
    from_json_value(Some(ty), &gvk, &object).unwrap()
}

fn pod(object: Value) -> Doc {
    doc("v1", "Pod", object)
}

/// `CREATE group/resource[/subresource] [namespace/]name`, `-` for nothing.
fn attributes<'a>(text: &'a str, user: &'a Arc<UserInfo>) -> AdmissionAttributes<'a> {
    let words: Vec<&str> = text.split(' ').collect();
    let operation = match words[0] {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        _ => Operation::Connect,
    };
    let mut parts = words[1].split('/');
    let group = parts.next().unwrap();
    let (namespace, name) = words[2].split_once('/').unwrap();
    let unless = |w: &'a str| if w == "-" { "" } else { w };
    AdmissionAttributes {
        operation,
        group: if group == "core" { "" } else { group },
        version: "v1",
        resource: parts.next().unwrap(),
        subresource: parts.next().unwrap_or_default(),
        namespace: unless(namespace),
        name: unless(name),
        user,
        dry_run: false,
        now: "2026-03-01T12:00:00Z".parse().unwrap(),
    }
}

impl World {
    fn run(
        &self,
        user: &Arc<UserInfo>,
        text: &str,
        object: Option<Doc>,
        old: Option<Doc>,
    ) -> Result<Value, Status> {
        let a = attributes(text, user);
        let Some(mut object) = object else {
            return self.chain.validate(None, old.as_ref(), &a).map(|()| Value::Null);
        };
        self.chain.mutate(&mut object, old.as_ref(), &a)?;
        self.chain.validate(Some(&object), old.as_ref(), &a)?;
        Ok(to_json_value(&object))
    }
    fn create_pod(&self, object: Value) -> Result<Value, Status> {
        self.run(&jane(), "CREATE core/pods ns/-", Some(pod(object)), None)
    }
    fn refusal(&self, user: &Arc<UserInfo>, text: &str, object: Option<Doc>, old: Option<Doc>) -> String {
        match self.run(user, text, object, old) {
            Ok(value) => panic!("{text} was let through: {value}"),
            Err(status) => status.message,
        }
    }
}

fn jane() -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated("jane", &[]))
}

fn kubelet(node: &str) -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated(format!("system:node:{node}"), &["system:nodes"]))
}

fn minimal() -> Value {
    json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}

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

fn csr(signer: &str, groups: &[&str], name: &str) -> Doc {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CountryName, "XX");
    for group in groups {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    doc(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        json!({ "metadata": { "name": "c" },
        "spec": { "signerName": signer, "request": STANDARD.encode(pem), "usages": ["client auth"] } }),
    )
}

#[test]
fn certificate_requests() {
    let text = "CREATE certificates.k8s.io/certificatesigningrequests -/-";
    let world = world_with(
        &["approve signers example.com/*", "sign signers example.com/one"],
        ChainOptions::default(),
    );
    let client = "kubernetes.io/kube-apiserver-client";
    world.run(&jane(), text, Some(csr(client, &["team"], "x")), None).unwrap();
    assert!(world.refusal(&jane(), text, Some(csr(client, &["system:masters"], "x")), None).ends_with(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    ));
    let me = kubelet("n1");
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        world.run(&me, text, Some(csr(signer, &["system:nodes"], "system:node:n1")), None).unwrap();
        assert!(
            world
                .refusal(&me, text, Some(csr(signer, &["system:nodes"], "system:node:n2")), None)
                .ends_with("can only create a node CSR with CN=system:node:n1")
        );
    }
    let one = || csr("example.com/one", &[], "x");
    let two = || csr("example.com/two", &[], "x");
    world
        .run(
            &jane(),
            "UPDATE certificates.k8s.io/certificatesigningrequests/approval -/c",
            Some(two()),
            Some(two()),
        )
        .unwrap();
    let foreign = || csr("other.org/one", &[], "x");
    assert!(
        world
            .refusal(
                &jane(),
                "UPDATE certificates.k8s.io/certificatesigningrequests/approval -/c",
                Some(one()),
                Some(foreign())
            )
            .ends_with("user not permitted to approve requests with signerName \"other.org/one\"")
    );
    let signed = |base: Doc| {
        let mut object = to_json_value(&base);
        object["status"] = json!({ "certificate": STANDARD.encode("cert") });
        doc("certificates.k8s.io/v1", "CertificateSigningRequest", object)
    };
    let status = "UPDATE certificates.k8s.io/certificatesigningrequests/status -/c";
    let old = one();
    world.run(&jane(), status, Some(signed(old.clone())), Some(old)).unwrap();
    let old = two();
    assert!(
        world
            .refusal(&jane(), status, Some(signed(old.clone())), Some(old.clone()))
            .ends_with("user not permitted to sign requests with signerName \"example.com/two\"")
    );
    world.run(&jane(), status, Some(old.clone()), Some(old)).unwrap();
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

#[test]
fn pods_learn_their_nodes_zone() {
    let world = world();
    let labels = json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x" });
    world.objects.set("", "nodes", "", "n1", json!({ "metadata": { "labels": labels } }));
    let binding = |kind: &str| {
        let target = json!({ "kind": kind, "name": "n1" });
        let object = json!({ "metadata": { "name": "p", "labels": { "topology.kubernetes.io/zone": "lie" } }, "target": target });
        let made = world.run(&jane(), "CREATE core/pods/binding ns/p", Some(doc("v1", "Binding", object)), None);
        made.unwrap()["metadata"]["labels"].clone()
    };
    assert_eq!(binding("Node"), json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r" }));
    assert_eq!(binding("Other"), json!({ "topology.kubernetes.io/zone": "lie" }));
    let mut bound = minimal();
    bound["spec"]["nodeName"] = json!("n1");
    let made = world.create_pod(bound).unwrap();
    assert_eq!(made["metadata"]["labels"]["topology.kubernetes.io/region"], "r");
    assert!(world.create_pod(minimal()).unwrap()["metadata"].get("labels").is_none());
}
