use super::*;
use serde_json::{Value, json};

fn policy(objects: &[Value]) -> PolicyStore {
    let store = PolicyStore::new();
    for object in objects {
        let kind = match object["kind"].as_str().unwrap() {
            "ClusterRole" => PolicyKind::ClusterRole,
            "ClusterRoleBinding" => PolicyKind::ClusterRoleBinding,
            "Role" => PolicyKind::Role,
            _ => PolicyKind::RoleBinding,
        };
        let meta = &object["metadata"];
        let namespace = meta["namespace"].as_str().unwrap_or_default();
        let bytes = serde_json::to_vec(object).unwrap();
        store.apply(kind, namespace, meta["name"].as_str().unwrap(), Some(&bytes)).unwrap();
    }
    store
}

fn bootstrapped() -> PolicyStore {
    let objects: Vec<Value> = bootstrap::objects().into_iter().map(|o| o.object).collect();
    policy(&objects)
}

fn user(name: &str, groups: &[&str]) -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated(name, groups))
}

/// `verb group/resource[/subresource] [namespace/]name` or `verb /path`; `-` is an empty namespace or name.
fn request(user: &Arc<UserInfo>, text: &str) -> Attributes {
    let words: Vec<&str> = text.split(' ').collect();
    let mut made = Attributes { user: user.clone(), verb: words[0].to_owned(), ..Attributes::default() };
    if words[1].starts_with('/') {
        made.path = words[1].to_owned();
        return made;
    }
    let mut parts = words[1].split('/');
    let group = parts.next().unwrap();
    made.is_resource = true;
    made.api_group = if group == "core" { String::new() } else { group.to_owned() };
    made.resource = parts.next().unwrap().to_owned();
    made.subresource = parts.next().unwrap_or_default().to_owned();
    let (namespace, name) = words.get(2).and_then(|w| w.split_once('/')).unwrap_or(("-", "-"));
    let unless = |w: &str| if w == "-" { String::new() } else { w.to_owned() };
    made.namespace = unless(namespace);
    made.name = unless(name);
    for term in words.get(3).into_iter().flat_map(|w| w.split(',')) {
        let (field, value) = term.split_once('=').unwrap();
        let (field, equal) = field.strip_suffix('!').map_or((field, true), |f| (f, false));
        made.field_selector.push(FieldTerm { field: field.to_owned(), value: value.to_owned(), equal });
    }
    made
}

fn role(name: &str, rules: Value) -> Value {
    json!({ "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules })
}

fn bind(kind: &str, namespace: &str, name: &str, role: (&str, &str), subjects: Value) -> Value {
    json!({ "kind": kind, "metadata": { "name": name, "namespace": namespace },
        "roleRef": { "kind": role.0, "name": role.1 }, "subjects": subjects })
}

#[test]
fn rules_match_as_upstreams() {
    let cases: &[(Value, &[&str], &[&str])] = &[
        (
            json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }),
            &["get core/pods a/b", "delete apps/deployments/scale -/-"],
            &["get /healthz"],
        ),
        (
            json!({ "verbs": ["get"], "apiGroups": ["", "apps"], "resources": ["pods", "pods/log"] }),
            &["get core/pods a/b", "get core/pods/log a/b", "get apps/pods a/b"],
            &["list core/pods a/-", "get core/pods/exec a/b", "get batch/pods a/b", "get core/podsx a/b"],
        ),
        (
            json!({ "verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"] }),
            &["update apps/deployments/scale a/b", "update core/x/scale a/b"],
            &["update apps/deployments a/b", "update apps/deployments/status a/b", "update apps/scale a/b"],
        ),
        (
            json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["pods/*"] }),
            &[],
            &["get core/pods/log a/b", "get core/pods a/b"],
        ),
        (
            json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"] }),
            &["get core/secrets a/one", "list core/secrets a/one"],
            &["get core/secrets a/two", "list core/secrets a/-"],
        ),
        (
            json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/logs/*", "/api*"] }),
            &["get /healthz", "get /logs/x/y", "get /logs/", "get /apis", "get /api"],
            &["get /healthz/x", "get /logs", "post /healthz", "get core/healthz a/b"],
        ),
        (json!({ "verbs": ["get"], "nonResourceURLs": ["*"] }), &["get /anything"], &["get core/pods a/b"]),
    ];
    let jane = user("jane", &[]);
    for (rule, yes, no) in cases {
        let rule: PolicyRule = serde_json::from_value(rule.clone()).unwrap();
        for text in *yes {
            assert!(rule.allows(&request(&jane, text)), "{rule:?} {text}");
        }
        for text in *no {
            assert!(!rule.allows(&request(&jane, text)), "{rule:?} {text}");
        }
    }
}

#[test]
fn bindings_reach_users_groups_and_accounts_where_they_are() {
    let reader = json!([{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }]);
    let store = policy(&[
        role("reader", reader.clone()),
        json!({ "kind": "Role", "metadata": { "name": "local", "namespace": "a" }, "rules": reader }),
        bind(
            "ClusterRoleBinding",
            "",
            "everywhere",
            ("ClusterRole", "reader"),
            json!([
            { "kind": "User", "name": "jane" }, { "kind": "ServiceAccount", "name": "no-namespace" }]),
        ),
        bind(
            "RoleBinding",
            "a",
            "here",
            ("ClusterRole", "reader"),
            json!([
            { "kind": "Group", "name": "team" }, { "kind": "ServiceAccount", "name": "app" },
            { "kind": "ServiceAccount", "name": "far", "namespace": "b" }]),
        ),
        bind("RoleBinding", "a", "local", ("Role", "local"), json!([{ "kind": "User", "name": "joe" }])),
        bind("RoleBinding", "b", "dangling", ("Role", "local"), json!([{ "kind": "User", "name": "joe" }])),
    ]);
    let may = |user: &Arc<UserInfo>, namespace: &str| {
        store.authorize(&request(user, &format!("get core/pods {namespace}/x"))).allowed()
    };
    let account = |namespace, name| Arc::new(UserInfo::service_account(namespace, name, ""));
    let jane = user("jane", &[]);
    assert!(may(&jane, "a") && may(&jane, "b") && may(&jane, "-"));
    let member = user("x", &["team"]);
    assert!(may(&member, "a") && !may(&member, "b") && !may(&member, "-"));
    assert!(may(&account("a", "app"), "a") && !may(&account("b", "app"), "a"));
    assert!(may(&account("b", "far"), "a") && !may(&account("b", "far"), "b"));
    assert!(!may(&account("", "no-namespace"), "a"));
    let joe = user("joe", &[]);
    assert!(may(&joe, "a"));
    assert_eq!(
        store.authorize(&request(&joe, "get core/pods b/x")),
        Decision::NoOpinion("RBAC: role.rbac.authorization.k8s.io \"local\" not found".into())
    );
    // A user who calls himself like a group, and the other way round, gets nothing.
    assert!(!may(&user("team", &[]), "a") && !may(&user("x", &["jane"]), "a"));
    // Changes count at once.
    store.apply(PolicyKind::RoleBinding, "a", "here", None).unwrap();
    assert!(!may(&member, "a"));
    store.apply(PolicyKind::ClusterRole, "", "reader", None).unwrap();
    assert_eq!(
        store.authorize(&request(&jane, "get core/pods a/x")),
        Decision::NoOpinion("RBAC: clusterrole.rbac.authorization.k8s.io \"reader\" not found".into())
    );
    let back = serde_json::to_vec(&role(
        "reader",
        json!([{ "verbs": ["list"], "apiGroups": [""], "resources": ["pods"] }]),
    ))
    .unwrap();
    store.apply(PolicyKind::ClusterRole, "", "reader", Some(&back)).unwrap();
    assert!(!may(&jane, "a"));
    assert!(store.authorize(&request(&jane, "list core/pods a/-")).allowed());
}

#[test]
fn refusals_read_as_upstreams() {
    let x = user("x", &[]);
    let text = |r: &str, reason: &str| forbidden(&request(&x, r), reason).message;
    assert_eq!(
        text("list core/pods default/-", ""),
        "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        text("get apps/deployments/scale default/web", ""),
        "deployments.apps \"web\" is forbidden: User \"x\" cannot get resource \"deployments/scale\" in API group \"apps\" in the namespace \"default\""
    );
    assert_eq!(
        text("get core/nodes -/n1", "why"),
        "nodes \"n1\" is forbidden: User \"x\" cannot get resource \"nodes\" in API group \"\" at the cluster scope: why"
    );
    assert_eq!(text("get /metrics", ""), "forbidden: User \"x\" cannot get path \"/metrics\"");
    let evil = user("<b>&", &[]);
    assert!(forbidden_message(&request(&evil, "get /")).starts_with("User \"&lt;b&gt;&amp;\" cannot"));
}

#[test]
fn components_have_what_they_need_and_no_more() {
    let store = bootstrapped();
    let account = |name| Arc::new(UserInfo::service_account("kube-system", name, ""));
    let component = |name: &str| user(name, &[]);
    let table: &[(Arc<UserInfo>, &[&str], &[&str])] = &[
        (
            component("system:kube-scheduler"),
            &[
                "create core/pods/binding a/b",
                "patch core/pods/status a/b",
                "list core/nodes -/-",
                "delete core/pods a/b",
                "create events.k8s.io/events a/-",
                "update coordination.k8s.io/leases kube-system/kube-scheduler",
            ],
            &[
                "get core/secrets a/b",
                "update core/pods a/b",
                "create core/pods a/-",
                "update coordination.k8s.io/leases a/other",
            ],
        ),
        (
            component("system:kube-controller-manager"),
            &["list core/secrets -/-", "watch acme.io/things -/-", "create core/serviceaccounts/token a/b"],
            &["delete core/pods a/b", "get core/pods a/b", "create core/pods a/-"],
        ),
        (
            component("system:kube-proxy"),
            &["watch core/services -/-", "list discovery.k8s.io/endpointslices -/-", "get core/nodes -/n1"],
            &["list core/pods -/-", "list core/secrets a/-", "update core/services a/b"],
        ),
        (
            component("system:kube-apiserver-kubelet-client"),
            &["create core/nodes/proxy -/n1", "get core/nodes/log -/n1", "get core/nodes/pods -/n1"],
            &["get core/pods a/b", "update core/nodes -/n1"],
        ),
        (
            account("deployment-controller"),
            &["update apps/deployments/status a/b", "create apps/replicasets a/-"],
            &["create core/pods a/-", "get core/secrets a/b", "update apps/statefulsets a/b"],
        ),
        (
            account("namespace-controller"),
            &["deletecollection acme.io/things a/-", "update core/namespaces/finalize -/a"],
            &["create core/pods a/-", "update core/pods a/b"],
        ),
        (
            user("x", &["keelson:cluster-admins"]),
            &["delete core/nodes -/n1", "get /metrics", "impersonate core/users -/y"],
            &[],
        ),
        (
            user("x", &["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"]),
            &[
                "create certificates.k8s.io/certificatesigningrequests -/-",
                "create certificates.k8s.io/certificatesigningrequests/nodeclient -/-",
                // kubeadm's own role: a joining machine asks whether its name is taken.
                "get core/nodes -/n1",
            ],
            &[
                "list core/nodes -/-",
                "get core/secrets kube-system/b",
                "approve certificates.k8s.io/signers -/kubernetes.io/kube-apiserver-client",
            ],
        ),
        (
            user("x", &[]),
            &[
                "get /version",
                "get /api",
                "get /openapi/v3",
                "create authorization.k8s.io/selfsubjectaccessreviews -/-",
            ],
            &["get core/pods a/b", "list core/namespaces -/-", "get /metrics"],
        ),
        (
            Arc::new(UserInfo::anonymous()),
            &["get /healthz", "get /version", "get /livez"],
            &[
                "get /api",
                "get /healthz/etcd",
                "get core/pods a/b",
                "create authorization.k8s.io/selfsubjectaccessreviews -/-",
            ],
        ),
    ];
    for (user, yes, no) in table {
        for text in *yes {
            assert!(store.authorize(&request(user, text)).allowed(), "{} may {text}", user.name);
        }
        for text in *no {
            assert!(!store.authorize(&request(user, text)).allowed(), "{} may not {text}", user.name);
        }
    }
    let reason = store.allowed_by(&request(&user("x", &[]), "get /version"));
    assert_eq!(
        reason,
        "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \"system:discovery\" to Group \"system:authenticated\""
    );
}

fn check<'a>(
    user: &'a Arc<UserInfo>,
    kind: PolicyKind,
    namespace: &'a str,
    new: &'a [u8],
    old: Option<&'a [u8]>,
) -> EscalationCheck<'a> {
    EscalationCheck { user, kind, namespace, request_name: "", new, old }
}

#[test]
fn nobody_grants_what_he_lacks() {
    let mut objects: Vec<Value> = bootstrap::objects().into_iter().map(|o| o.object).collect();
    objects.push(bind(
        "RoleBinding",
        "a",
        "jane-admin",
        ("ClusterRole", "admin"),
        json!([{ "kind": "User", "name": "jane" }]),
    ));
    objects.push(role(
        "binder",
        json!([{ "verbs": ["bind"], "apiGroups": ["rbac.authorization.k8s.io"],
        "resources": ["clusterroles"], "resourceNames": ["cluster-admin"] }]),
    ));
    objects.push(bind(
        "ClusterRoleBinding",
        "",
        "bob-binds",
        ("ClusterRole", "binder"),
        json!([{ "kind": "User", "name": "bob" }]),
    ));
    let store = policy(&objects);
    let try_write = |user: &Arc<UserInfo>, kind, namespace: &str, new: &Value, old: Option<&Value>| {
        let new = serde_json::to_vec(new).unwrap();
        let old = old.map(|o| serde_json::to_vec(o).unwrap());
        check_escalation(&check(user, kind, namespace, &new, old.as_deref()), &store, &store)
            .map_err(|s| s.message)
    };
    let jane = user("jane", &[]);
    let pods = json!({ "metadata": { "name": "r" }, "rules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods"] }] });
    try_write(&jane, PolicyKind::Role, "a", &pods, None).unwrap();
    let refused = try_write(&jane, PolicyKind::Role, "b", &pods, None).unwrap_err();
    assert_eq!(
        refused,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"system:authenticated\"]) is \
        attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\"]}"
    );
    let nodes = json!({ "metadata": { "name": "r" }, "rules": [
        { "verbs": ["delete", "get"], "apiGroups": [""], "resources": ["nodes"] }, { "verbs": ["get"], "nonResourceURLs": ["/metrics"] }] });
    let refused = try_write(&jane, PolicyKind::Role, "a", &nodes, None).unwrap_err();
    assert!(refused.ends_with("{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"delete\" \"get\"]}\n{NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"), "{refused}");
    // An update that changes only what garbage collection needs is let through, a real one is not.
    let mut old = nodes.clone();
    old["metadata"]["finalizers"] = json!(["f"]);
    try_write(&jane, PolicyKind::Role, "a", &nodes, Some(&old)).unwrap();
    assert!(try_write(&jane, PolicyKind::Role, "a", &nodes, Some(&pods)).is_err());

    let to =
        |role: (&str, &str)| bind("RoleBinding", "a", "b", role, json!([{ "kind": "User", "name": "jane" }]));
    try_write(&jane, PolicyKind::RoleBinding, "a", &to(("ClusterRole", "view")), None).unwrap();
    assert!(
        try_write(&jane, PolicyKind::RoleBinding, "a", &to(("ClusterRole", "cluster-admin")), None).is_err()
    );
    assert!(
        try_write(&jane, PolicyKind::ClusterRoleBinding, "", &to(("ClusterRole", "view")), None).is_err()
    );
    assert_eq!(
        try_write(&jane, PolicyKind::RoleBinding, "a", &to(("ClusterRole", "nope")), None).unwrap_err(),
        "clusterroles.rbac.authorization.k8s.io \"nope\" not found"
    );
    // The verb bind suffices, for that role alone.
    let bob = user("bob", &[]);
    try_write(&bob, PolicyKind::ClusterRoleBinding, "", &to(("ClusterRole", "cluster-admin")), None).unwrap();
    assert!(
        try_write(&bob, PolicyKind::ClusterRoleBinding, "", &to(("ClusterRole", "admin")), None).is_err()
    );
    // Aggregation gathers anything: only for those who may do everything.
    let aggregated =
        json!({ "metadata": { "name": "r" }, "aggregationRule": { "clusterRoleSelectors": [{}] } });
    let refused = try_write(&jane, PolicyKind::ClusterRole, "", &aggregated, None).unwrap_err();
    assert!(refused.ends_with("must have cluster-admin privileges to use the aggregationRule"), "{refused}");
    try_write(&user("root", &["keelson:cluster-admins"]), PolicyKind::ClusterRole, "", &aggregated, None)
        .unwrap();
    // The aggregation controller holds `escalate`.
    let controller =
        Arc::new(UserInfo::service_account("kube-system", "clusterrole-aggregation-controller", ""));
    try_write(&controller, PolicyKind::ClusterRole, "", &nodes, None).unwrap();
}

fn pod(node: &str, spec: Value) -> Vec<u8> {
    let mut spec = spec;
    spec["nodeName"] = json!(node);
    serde_json::to_vec(&json!({ "metadata": {}, "spec": spec })).unwrap()
}

struct Nodes {
    graph: Arc<NodeGraph>,
    union: UnionAuthorizer,
}

fn nodes() -> Nodes {
    let graph = Arc::new(NodeGraph::default());
    let union = UnionAuthorizer { node: NodeAuthorizer::new(graph.clone()), rbac: Arc::new(bootstrapped()) };
    Nodes { graph, union }
}

impl Nodes {
    fn check(&self, node: &str, yes: &[&str], no: &[&str]) {
        let user = user(&format!("system:node:{node}"), &["system:nodes"]);
        for text in yes {
            assert_eq!(self.union.authorize(&request(&user, text)), Decision::Allow, "{node} may {text}");
        }
        for text in no {
            assert!(!self.union.authorize(&request(&user, text)).allowed(), "{node} may not {text}");
        }
    }
}

#[test]
fn a_kubelet_reaches_what_its_pods_refer_to() {
    let world = nodes();
    let spec = json!({
        "serviceAccountName": "app",
        "imagePullSecrets": [{ "name": "pull" }],
        "containers": [{ "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "env", "key": "k" } } },
            { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "cm-env", "key": "k" } } }],
            "envFrom": [{ "secretRef": { "name": "from" } }, { "configMapRef": { "name": "cm-from" } }] }],
        "initContainers": [{ "envFrom": [{ "secretRef": { "name": "init" } }] }],
        "ephemeralContainers": [{ "envFrom": [{ "secretRef": { "name": "debug" } }] }],
        "volumes": [
            { "name": "a", "secret": { "secretName": "volume" } }, { "name": "b", "configMap": { "name": "cm-volume" } },
            { "name": "c", "projected": { "sources": [{ "secret": { "name": "projected" } }, { "configMap": { "name": "cm-projected" } },
                { "serviceAccountToken": { "path": "token" } }] } },
            { "name": "d", "persistentVolumeClaim": { "claimName": "claim" } }, { "name": "e", "ephemeral": { "volumeClaimTemplate": {} } },
            { "name": "f", "csi": { "driver": "x", "nodePublishSecretRef": { "name": "csi" } } }],
    });
    world.graph.pod("ns", "web", Some(&pod("n1", spec))).unwrap();
    let pv = json!({ "spec": { "claimRef": { "namespace": "ns", "name": "claim" }, "csi": {
        "nodeStageSecretRef": { "name": "stage", "namespace": "storage" },
        "controllerPublishSecretRef": { "name": "controller", "namespace": "storage" } } } });
    world.graph.persistent_volume("pv1", Some(&serde_json::to_vec(&pv).unwrap())).unwrap();
    let mine = [
        "get core/secrets ns/pull",
        "get core/secrets ns/env",
        "list core/secrets ns/from",
        "watch core/secrets ns/init",
        "get core/secrets ns/debug",
        "get core/secrets ns/volume",
        "get core/secrets ns/projected",
        "get core/secrets ns/csi",
        "get core/configmaps ns/cm-env",
        "get core/configmaps ns/cm-from",
        "get core/configmaps ns/cm-volume",
        "watch core/configmaps ns/cm-projected",
        "get core/persistentvolumeclaims ns/claim",
        "get core/persistentvolumeclaims ns/web-e",
        "patch core/persistentvolumeclaims/status ns/claim",
        "get core/persistentvolumes -/pv1",
        "get core/secrets storage/stage",
        "create core/serviceaccounts/token ns/app",
        "get core/serviceaccounts ns/app",
        "get core/pods ns/web",
    ];
    world.check(
        "n1",
        &mine,
        &[
            "get core/secrets ns/other",
            "get core/secrets other/volume",
            "list core/secrets ns/-",
            "list core/secrets -/-",
            "update core/secrets ns/volume",
            "delete core/secrets ns/volume",
            "get core/secrets storage/controller",
            "get core/persistentvolumes -/pv2",
            "list core/persistentvolumeclaims ns/claim",
            "update core/persistentvolumeclaims ns/claim",
            "create core/serviceaccounts/token ns/default",
            "create core/serviceaccounts/token kube-system/app",
            "create core/serviceaccounts ns/-",
            "update core/serviceaccounts ns/app",
        ],
    );
    world.check("n2", &[], &mine);
    // The pod ends: so does the access.
    world.graph.pod("ns", "web", None).unwrap();
    world.check("n1", &[], &mine);
}

#[test]
fn a_kubelet_has_its_own_objects_only() {
    let world = nodes();
    world.graph.pod("ns", "mine", Some(&pod("n1", json!({})))).unwrap();
    world.graph.pod("ns", "yours", Some(&pod("n2", json!({})))).unwrap();
    world.graph.volume_attachment("va", Some(br#"{"spec":{"nodeName":"n1"}}"#)).unwrap();
    world.graph.resource_slice("slice", Some(br#"{"spec":{"nodeName":"n1"}}"#)).unwrap();
    world.check(
        "n1",
        &[
            "get core/nodes -/n1",
            "watch core/nodes -/n1",
            "create core/nodes -/-",
            "patch core/nodes/status -/n1",
            "get core/pods ns/mine",
            "list core/pods -/- spec.nodeName=n1",
            "watch core/pods -/- spec.nodeName=n1",
            "create core/pods ns/-",
            "patch core/pods/status ns/mine",
            "create core/pods/eviction ns/mine",
            "delete core/pods ns/mine",
            "get coordination.k8s.io/leases kube-node-lease/n1",
            "create coordination.k8s.io/leases kube-node-lease/-",
            "update storage.k8s.io/csinodes -/n1",
            "get storage.k8s.io/volumeattachments -/va",
            "delete resource.k8s.io/resourceslices -/slice",
            "list resource.k8s.io/resourceslices -/- spec.nodeName=n1",
            "list core/services -/-",
            "create events.k8s.io/events ns/-",
            "watch node.k8s.io/runtimeclasses -/-",
            "create authentication.k8s.io/tokenreviews -/-",
            "create authorization.k8s.io/subjectaccessreviews -/-",
            "create certificates.k8s.io/certificatesigningrequests -/-",
            "watch storage.k8s.io/csidrivers -/-",
            "create certificates.k8s.io/certificatesigningrequests/selfnodeclient -/-",
        ],
        &[
            "get core/nodes -/n2",
            "list core/nodes -/-",
            "delete core/nodes -/n1",
            "deletecollection core/nodes -/-",
            "get core/nodes/proxy -/n1",
            "get core/pods ns/yours",
            "list core/pods -/-",
            "list core/pods -/- spec.nodeName=n2",
            "list core/pods -/- spec.nodeName!=n1",
            "list core/pods ns/yours",
            "update core/pods ns/mine",
            "patch core/pods ns/mine",
            "create core/pods/exec ns/mine",
            "get core/pods/log ns/mine",
            "create core/pods/binding ns/mine",
            "deletecollection core/pods ns/-",
            "update core/pods/ephemeralcontainers ns/mine",
            "get coordination.k8s.io/leases kube-node-lease/n2",
            "list coordination.k8s.io/leases kube-node-lease/-",
            "get coordination.k8s.io/leases kube-system/n1",
            "update storage.k8s.io/csinodes -/n2",
            "list storage.k8s.io/csinodes -/-",
            "get storage.k8s.io/volumeattachments -/vb",
            "list resource.k8s.io/resourceslices -/-",
            "get resource.k8s.io/resourceslices -/other",
            "list core/namespaces -/-",
            "create rbac.authorization.k8s.io/clusterrolebindings -/-",
            "impersonate core/users -/x",
            "update certificates.k8s.io/certificatesigningrequests/approval -/x",
            "get /metrics",
        ],
    );
    let reason = |node: &str, text: &str| {
        let user = user(&format!("system:node:{node}"), &["system:nodes"]);
        match world.union.authorize(&request(&user, text)) {
            Decision::NoOpinion(reason) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        reason("n1", "get core/secrets ns/s"),
        "no relationship found between node 'n1' and this object"
    );
    assert_eq!(
        reason("n1", "list core/nodes -/-"),
        "node 'n1' cannot read all nodes, only its own Node object"
    );
    // Outside the nodes' group the name alone is nothing.
    let impostor = user("system:node:n1", &[]);
    assert!(!world.union.authorize(&request(&impostor, "get core/nodes -/n1")).allowed());
    let unnamed = user("system:node:", &["system:nodes"]);
    assert!(!world.union.authorize(&request(&unnamed, "list core/services -/-")).allowed());
}

#[test]
fn a_mirror_pod_gives_its_node_nothing() {
    let world = nodes();
    let mirror = json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "x" } },
        "spec": { "nodeName": "n1", "serviceAccountName": "admin", "volumes": [{ "name": "a", "secret": { "secretName": "s" } }] } });
    world.graph.pod("ns", "m", Some(&serde_json::to_vec(&mirror).unwrap())).unwrap();
    world.check(
        "n1",
        &["get core/pods ns/m"],
        &["get core/secrets ns/s", "create core/serviceaccounts/token ns/admin"],
    );
}

#[test]
fn moving_references_are_counted() {
    let world = nodes();
    let with =
        |secret: &str| pod("n1", json!({ "volumes": [{ "name": "a", "secret": { "secretName": secret } }] }));
    world.graph.pod("ns", "a", Some(&with("s"))).unwrap();
    world.graph.pod("ns", "b", Some(&with("s"))).unwrap();
    world.graph.pod("ns", "a", None).unwrap();
    world.check("n1", &["get core/secrets ns/s"], &[]);
    world.graph.pod("ns", "b", Some(&with("t"))).unwrap();
    world.check("n1", &["get core/secrets ns/t"], &["get core/secrets ns/s"]);
    world.graph.pod("ns", "b", Some(&serde_json::to_vec(&json!({ "spec": {} })).unwrap())).unwrap();
    world.check("n1", &[], &["get core/secrets ns/t"]);
}

#[test]
fn reviews_answer_as_requests_would() {
    use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReviewSpec};
    let world = nodes();
    let spec = |user: &str, groups: &[&str], resource: ResourceAttributes| SubjectAccessReviewSpec {
        user: Some(user.to_owned()).filter(|u| !u.is_empty()),
        groups: Some(groups.iter().map(|g| (*g).to_owned()).collect()),
        resource_attributes: Some(resource),
        ..SubjectAccessReviewSpec::default()
    };
    let pods = |namespace: &str| ResourceAttributes {
        verb: Some("list".into()),
        resource: Some("pods".into()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    let attributes =
        access_review_attributes(&spec("x", &["keelson:cluster-admins"], pods("a")), None).unwrap();
    let status = review_status(&world.union, &attributes);
    assert!(status.allowed);
    assert_eq!(
        status.reason.as_deref(),
        Some(
            "RBAC: allowed by ClusterRoleBinding \"keelson:cluster-admins\" of ClusterRole \
        \"cluster-admin\" to Group \"keelson:cluster-admins\""
        )
    );
    let attributes = access_review_attributes(&spec("x", &[], pods("a")), Some("a")).unwrap();
    assert!(!review_status(&world.union, &attributes).allowed);
    assert_eq!(
        access_review_attributes(&spec("x", &[], pods("b")), Some("a")).unwrap_err().iter().count(),
        1
    );
    let errors = access_review_attributes(&SubjectAccessReviewSpec::default(), None).unwrap_err();
    assert_eq!(errors.iter().count(), 2);

    let rules = rules_review(&world.union.rbac, &user("x", &[]), "default");
    assert!(!rules.incomplete && rules.evaluation_error.is_none());
    assert!(
        rules
            .resource_rules
            .iter()
            .any(|r| r.resources.as_deref() == Some(&["selfsubjectreviews".to_owned()]))
    );
    assert!(
        rules.non_resource_rules.iter().any(|r| r
            .non_resource_urls
            .as_ref()
            .unwrap()
            .contains(&"/apis/*".to_owned()))
    );
    assert!(
        rules_review(&world.union.rbac, &user("system:node:n1", &["system:nodes"]), "default").incomplete
    );
}

#[test]
fn aggregation_follows_labels() {
    let input = |name: &str, labels: Value, rules: Value, selectors: Option<Value>| -> AggregationInput {
        let mut object = json!({ "metadata": { "name": name, "labels": labels }, "rules": rules });
        if let Some(selectors) = selectors {
            object["aggregationRule"] = json!({ "clusterRoleSelectors": selectors });
        }
        serde_json::from_value(object).unwrap()
    };
    let rule = |verb: &str| json!({ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] });
    let mut roles = vec![
        input("z", json!({ "to": "x" }), json!([rule("get"), rule("list")]), None),
        input("b", json!({ "to": "x" }), json!([rule("get")]), None),
        input("other", json!({}), json!([rule("delete")]), None),
        input(
            "sum",
            json!({ "to": "x" }),
            json!([rule("patch")]),
            Some(json!([{ "matchLabels": { "to": "x" } }])),
        ),
        input(
            "expr",
            json!({}),
            json!([]),
            Some(json!([{ "matchExpressions": [{ "key": "to", "operator": "Exists" }] }])),
        ),
    ];
    let changed = aggregate(&roles);
    let verbs = |name: &str| -> Vec<String> {
        changed.iter().find(|(n, _)| n == name).unwrap().1.iter().map(|r| r.verbs.join(" ")).collect()
    };
    assert_eq!(verbs("sum"), ["get", "list"], "by name, without doubles, without itself");
    assert_eq!(verbs("expr"), ["get", "patch", "list"]);
    for (name, rules) in changed {
        roles.iter_mut().find(|r| r.metadata.name == name).unwrap().rules = rules;
    }
    let settled = aggregate(&roles);
    assert_eq!(settled.len(), 1, "what the second collects of the first has changed");
}

/// Not a test of speed, but the figure: an authorization with the bootstrap policy loaded.
#[test]
fn print_cost_of_an_authorization() {
    let world = nodes();
    let cases = [
        (user("x", &["keelson:cluster-admins"]), "list core/pods default/-"),
        (
            Arc::new(UserInfo::service_account("kube-system", "replicaset-controller", "")),
            "create core/pods default/-",
        ),
        (user("system:node:n1", &["system:nodes"]), "patch core/nodes/status -/n1"),
        (user("nobody", &["a", "b", "c"]), "get core/pods default/x"),
    ];
    for (user, text) in cases {
        let request = request(&user, text);
        let start = std::time::Instant::now();
        const N: u32 = 10_000;
        for _ in 0..N {
            std::hint::black_box(world.union.authorize(std::hint::black_box(&request)));
        }
        println!("authorize {text} as {}: {:?} each", user.name, start.elapsed() / N);
    }
}
