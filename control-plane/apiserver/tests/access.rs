//! Who may do what, asked over TLS as clients ask it: the whole pipeline of an API server on a memory store.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use keelson_apiserver::{ApiServer, ApiServerConfig};
use keelson_daemon::{Clock, Context, DrainTrigger, Readiness};
use keelson_pki::{ClusterPki, PkiParams, Profile};
use keelson_store::MemoryStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

struct Cluster {
    api: ApiServer,
    pki: Arc<ClusterPki>,
    clock: Clock,
    trigger: DrainTrigger,
    _dir: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        // TLS takes the real time, the server's decisions the clock it is given.
        let clock = Clock::manual(Timestamp::now());
        let (trigger, drain) = keelson_daemon::drain::channel();
        let ctx = Context { clock: clock.clone(), drain, readiness: Readiness::default() };
        let params = PkiParams {
            node_name: "n0".into(),
            cluster_domain: "cluster.local".into(),
            service_address: [10, 96, 0, 1].into(),
            node_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            extra_names: vec![],
            life: keelson_pki::LEAF_LIFE,
            now: clock.now(),
        };
        let pki = Arc::new(ClusterPki::ensure(dir.path(), &params).unwrap());
        let bind = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        let config = ApiServerConfig::new(pki.clone(), bind, Ipv4Addr::new(192, 0, 2, 1).into());
        let api = ApiServer::start(config, Arc::new(MemoryStore::new()), ctx).await.unwrap();
        Cluster { api, pki, clock, trigger, _dir: dir }
    }

    /// A client with a certificate for this user and group.
    async fn client(&self, user: &str, groups: &[&str]) -> Client {
        let (cert, key) = self.pki.ca.issue(&Profile::client(user, groups), self.clock.now(), YEAR).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        self.connect(Some((chain, key)), None).await
    }

    async fn admin(&self) -> Client {
        self.connect(Some((self.pki.admin.chain(), self.pki.admin.key())), None).await
    }

    async fn kubelet(&self, node: &str) -> Client {
        self.client(&format!("system:node:{node}"), &["system:nodes"]).await
    }

    async fn bearer(&self, token: &str) -> Client {
        self.connect(None, Some(token.to_owned())).await
    }

    async fn connect(
        &self,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        token: Option<String>,
    ) -> Client {
        let mut tls = keelson_pki::client_config(&[self.pki.ca.certificate().clone()], identity).unwrap();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let tcp = tokio::net::TcpStream::connect(self.api.address()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Client { sender, token, headers: Vec::new() }
    }

    async fn stop(self) {
        self.trigger.drain(Duration::from_secs(5)).await;
    }
}

struct Client {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    token: Option<String>,
    headers: Vec<(&'static str, String)>,
}

impl Client {
    fn acting_as(mut self, header: &'static str, value: &str) -> Client {
        self.headers.push((header, value.to_owned()));
        self
    }

    async fn send(&mut self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "127.0.0.1")
            .header("content-type", kind);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        self.sender.ready().await.unwrap();
        let answer = self.sender.send_request(request.body(Full::from(body)).unwrap()).await.unwrap();
        let code = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes))))
    }

    async fn ok(&mut self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (code, value) = self.send(method, path, body).await;
        assert!(code.is_success(), "{method} {path}: {code} {value}");
        value
    }

    /// The refusal's code and message.
    async fn refused(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let (code, value) = self.send(method, path, body).await;
        assert!(!code.is_success(), "{method} {path} was let through: {value}");
        (code.as_u16(), value["message"].as_str().unwrap_or_default().to_owned())
    }

    async fn forbidden(&mut self, method: &str, path: &str, body: Option<Value>) -> String {
        let (code, message) = self.refused(method, path, body).await;
        assert_eq!(code, 403, "{method} {path}: {message}");
        message
    }

    async fn whoami(&mut self) -> Value {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        self.ok("POST", path, Some(body)).await["status"]["userInfo"].clone()
    }
}

fn namespace(name: &str) -> Option<Value> {
    Some(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
}

fn account(name: &str) -> Option<Value> {
    Some(json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } }))
}

fn node(name: &str, labels: Value) -> Option<Value> {
    Some(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } }))
}

fn secret(name: &str) -> Option<Value> {
    Some(
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "k": "v" } }),
    )
}

fn pod(name: &str, node: &str, spec: Value) -> Option<Value> {
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    Some(pod)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_only_health_and_version_answer() {
    let cluster = Cluster::start().await;
    let mut nobody = cluster.connect(None, None).await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        nobody.ok("GET", path, None).await;
    }
    for path in [
        "/",
        "/api",
        "/apis",
        "/metrics",
        "/openapi/v2",
        "/api/v1/namespaces",
        "/openid/v1/jwks",
        "/.well-known/openid-configuration",
        "/debug/pprof",
        "/api/v1/namespaces/kube-system/secrets",
    ] {
        let (code, message) = nobody.refused("GET", path, None).await;
        assert_eq!((code, message.as_str()), (401, "Unauthorized"), "{path}");
    }
    for path in ["/healthz", "/api/v1/namespaces"] {
        assert_eq!(
            nobody.refused("POST", path, namespace("x")).await.0,
            if path == "/healthz" { 403 } else { 401 }
        );
    }
    let wrong = [
        ("junk", "Bearer junk"),
        ("basic", "Basic YWRtaW46YWRtaW4="),
        ("none", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJzeXN0ZW06YWRtaW4ifQ."),
    ];
    for (what, header) in wrong {
        let mut client = cluster.connect(None, None).await.acting_as("authorization", header);
        assert_eq!(client.refused("GET", "/healthz", None).await.0, 401, "{what}");
    }
    // A certificate of another authority, and a serving certificate.
    for identity in [&cluster.pki.front_proxy_client, &cluster.pki.apiserver] {
        let mut client = cluster.connect(Some((identity.chain(), identity.key())), None).await;
        assert_eq!(client.refused("GET", "/api", None).await, (401, "Unauthorized".to_owned()));
    }
    drop(nobody);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn components_are_who_they_are() {
    let cluster = Cluster::start().await;
    let pki = &cluster.pki;
    let table = [
        (&pki.scheduler, "system:kube-scheduler", "/api/v1/nodes", "/api/v1/secrets"),
        (&pki.controller_manager, "system:kube-controller-manager", "/api/v1/pods", "/metrics"),
        (&pki.proxy, "system:kube-proxy", "/api/v1/services", "/api/v1/pods"),
        (&pki.node, "system:node:n0", "/api/v1/services", "/api/v1/nodes"),
        (&pki.kubelet_client, "system:kube-apiserver-kubelet-client", "/api/v1/nodes", "/api/v1/pods"),
        (&pki.admin, "keelson-admin", "/api/v1/secrets", ""),
    ];
    for (identity, user, may, may_not) in table {
        let mut client = cluster.connect(Some((identity.chain(), identity.key())), None).await;
        let me = client.whoami().await;
        assert_eq!(me["username"], user);
        assert!(!me["groups"].to_string().contains("system:masters"), "{me}");
        client.ok("GET", may, None).await;
        if !may_not.is_empty() {
            let message = client.forbidden("GET", may_not, None).await;
            assert!(message.contains(&format!("User \"{user}\" cannot ")), "{message}");
        }
    }
    let mut scheduler = cluster.connect(Some((pki.scheduler.chain(), pki.scheduler.key())), None).await;
    assert_eq!(
        scheduler.forbidden("GET", "/api/v1/namespaces/default/secrets", None).await,
        "secrets is forbidden: User \"system:kube-scheduler\" cannot list resource \"secrets\" in API group \"\" in the \
         namespace \"default\""
    );
    drop(scheduler);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_loses_its_power_on_an_open_connection() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    admin.ok("GET", "/api/v1/namespaces", None).await;
    cluster.clock.advance(Duration::from_secs(366 * 86_400));
    assert_eq!(admin.refused("GET", "/api/v1/namespaces", None).await.0, 401);
    drop(admin);
    cluster.stop().await;
}

/// Two nodes with a pod and a secret each.
async fn two_nodes(cluster: &Cluster) -> (Client, Client) {
    let mut admin = cluster.admin().await;
    admin.ok("POST", "/api/v1/namespaces", namespace("ns")).await;
    for name in ["default", "app"] {
        admin.ok("POST", "/api/v1/namespaces/ns/serviceaccounts", account(name)).await;
    }
    for (node, name, secret_name) in [("n1", "mine", "s1"), ("n2", "yours", "s2")] {
        let mut kubelet = cluster.kubelet(node).await;
        kubelet
            .ok("POST", "/api/v1/nodes", self::node(node, json!({ "kubernetes.io/hostname": node })))
            .await;
        admin.ok("POST", "/api/v1/namespaces/ns/secrets", secret(secret_name)).await;
        let volumes = json!([{ "name": "s", "secret": { "secretName": secret_name } }]);
        let account = if node == "n1" { "app" } else { "default" };
        let spec = json!({ "volumes": volumes, "serviceAccountName": account });
        admin.ok("POST", "/api/v1/namespaces/ns/pods", pod(name, node, spec)).await;
    }
    (admin, cluster.kubelet("n1").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_confined_to_its_node() {
    let cluster = Cluster::start().await;
    let (mut admin, mut me) = two_nodes(&cluster).await;
    let ns = "/api/v1/namespaces/ns";
    for path in [
        "/api/v1/nodes/n1".to_owned(),
        format!("{ns}/pods/mine"),
        format!("{ns}/secrets/s1"),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds1"),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".to_owned(),
        "/api/v1/services".to_owned(),
    ] {
        me.ok("GET", &path, None).await;
    }
    for path in [
        "/api/v1/nodes/n2".to_owned(),
        "/api/v1/nodes".to_owned(),
        format!("{ns}/pods/yours"),
        format!("{ns}/pods"),
        "/api/v1/pods".to_owned(),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2".to_owned(),
        format!("{ns}/secrets/s2"),
        format!("{ns}/secrets"),
        "/api/v1/secrets".to_owned(),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds2"),
        format!("{ns}/configmaps/any"),
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2".to_owned(),
        "/api/v1/nodes/n2/proxy/pods".to_owned(),
        "/metrics".to_owned(),
    ] {
        me.forbidden("GET", &path, None).await;
    }
    // Its node, not the other's; its labels, not those that steer pods.
    me.ok("PATCH", "/api/v1/nodes/n1", Some(json!({ "metadata": { "labels": { "own": "x" } } }))).await;
    let ready = json!({ "status": { "phase": "Running" } });
    me.ok("PATCH", "/api/v1/nodes/n1/status", Some(ready.clone())).await;
    for (path, body) in [
        ("/api/v1/nodes/n2", json!({ "metadata": { "labels": { "own": "x" } } })),
        ("/api/v1/nodes/n2/status", ready.clone()),
        (
            "/api/v1/nodes/n1",
            json!({ "metadata": { "labels": { "node-restriction.kubernetes.io/x": "y" } } }),
        ),
        ("/api/v1/nodes/n1", json!({ "spec": { "taints": null } })),
        ("/api/v1/nodes/n1/status", json!({ "metadata": { "labels": { "node-role.kubernetes.io/x": "" } } })),
    ] {
        me.forbidden("PATCH", path, Some(body)).await;
    }
    me.forbidden("POST", "/api/v1/nodes", node("n3", json!({}))).await;
    me.forbidden("DELETE", "/api/v1/nodes/n1", None).await;
    me.forbidden("DELETE", "/api/v1/nodes/n2", None).await;
    // Its pods' status and end, not the other's; no pods but mirrors.
    me.ok("PATCH", &format!("{ns}/pods/mine/status"), Some(ready.clone())).await;
    me.forbidden("PATCH", &format!("{ns}/pods/yours/status"), Some(ready)).await;
    me.forbidden("DELETE", &format!("{ns}/pods/yours"), None).await;
    me.forbidden(
        "PATCH",
        &format!("{ns}/pods/mine"),
        Some(json!({ "metadata": { "labels": { "a": "b" } } })),
    )
    .await;
    me.forbidden("POST", &format!("{ns}/pods"), pod("new", "n1", json!({}))).await;
    let eviction = |name: &str| {
        Some(json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } }))
    };
    me.forbidden("POST", &format!("{ns}/pods/yours/eviction"), eviction("yours")).await;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "mine" }, "target": { "kind": "Node", "name": "n1" } });
    me.forbidden("POST", &format!("{ns}/pods/mine/binding"), Some(binding)).await;
    me.forbidden("GET", &format!("{ns}/pods/mine/exec?command=sh"), None).await;
    // Leases by name, in their namespace.
    let lease = |name: &str| {
        Some(json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name } }))
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    me.ok("POST", leases, lease("n1")).await;
    me.forbidden("POST", leases, lease("n2")).await;
    me.forbidden("POST", "/apis/coordination.k8s.io/v1/namespaces/ns/leases", lease("n1")).await;
    // When its pod goes, so does what the pod gave it.
    admin.ok("DELETE", &format!("{ns}/pods/mine?gracePeriodSeconds=0"), None).await;
    me.forbidden("GET", &format!("{ns}/secrets/s1"), None).await;
    drop((admin, me));
    cluster.stop().await;
}

fn token_request(bound: Option<(&str, &str)>, audiences: &[&str]) -> Option<Value> {
    let mut spec = json!({ "audiences": audiences });
    if let Some((name, uid)) = bound {
        spec["boundObjectRef"] = json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid });
    }
    Some(json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_gets_tokens_of_its_pods_and_they_die_with_the_pod() {
    let cluster = Cluster::start().await;
    let (mut admin, mut me) = two_nodes(&cluster).await;
    let ns = "/api/v1/namespaces/ns";
    let uid = |object: Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let mine = uid(admin.ok("GET", &format!("{ns}/pods/mine"), None).await);
    let yours = uid(admin.ok("GET", &format!("{ns}/pods/yours"), None).await);
    let path = format!("{ns}/serviceaccounts/app/token");
    me.forbidden("POST", &path, token_request(None, &[])).await;
    me.forbidden("POST", &path, token_request(Some(("yours", &yours)), &[])).await;
    me.forbidden("POST", &path, token_request(Some(("mine", &yours)), &[])).await;
    me.forbidden("POST", &path, token_request(Some(("mine", &mine)), &["vault"])).await;
    me.forbidden(
        "POST",
        &format!("{ns}/serviceaccounts/default/token"),
        token_request(Some(("yours", &yours)), &[]),
    )
    .await;
    let made = me.ok("POST", &path, token_request(Some(("mine", &mine)), &[])).await;
    let token = made["status"]["token"].as_str().unwrap().to_owned();
    let mut app = cluster.bearer(&token).await;
    let info = app.whoami().await;
    assert_eq!(info["username"], "system:serviceaccount:ns:app");
    assert_eq!(info["extra"]["authentication.kubernetes.io/pod-name"], json!(["mine"]));
    assert_eq!(info["extra"]["authentication.kubernetes.io/node-name"], json!(["n1"]));
    app.forbidden("GET", &format!("{ns}/secrets/s1"), None).await;
    let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": token } });
    let answer = admin.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", Some(review)).await;
    assert_eq!(answer["status"]["authenticated"], true);
    admin.ok("DELETE", &format!("{ns}/pods/mine?gracePeriodSeconds=0"), None).await;
    cluster.clock.advance(Duration::from_secs(11));
    assert_eq!(app.refused("GET", "/api", None).await.0, 401, "the pod is gone");
    drop((admin, me, app));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_others_needs_permission_for_each_part() {
    let cluster = Cluster::start().await;
    let mut admin =
        cluster.admin().await.acting_as("impersonate-user", "jane").acting_as("impersonate-group", "team");
    let me = admin.whoami().await;
    assert_eq!(me["username"], "jane");
    assert_eq!(me["groups"], json!(["team", "system:authenticated"]));
    admin.forbidden("GET", "/api/v1/secrets", None).await;
    let mut nobody = cluster.client("joe", &[]).await.acting_as("impersonate-user", "keelson-admin");
    assert_eq!(
        nobody.forbidden("GET", "/api", None).await,
        "users \"keelson-admin\" is forbidden: User \"joe\" cannot impersonate resource \"users\" in API group \"\" at the \
         cluster scope"
    );
    let mut group = cluster.client("joe", &[]).await.acting_as("impersonate-group", "system:masters");
    assert_eq!(group.refused("GET", "/api", None).await.0, 400);
    let mut kubelet = cluster.kubelet("n1").await.acting_as("impersonate-user", "system:node:n2");
    kubelet.forbidden("GET", "/api", None).await;
    drop((admin, nobody, group, kubelet));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_more_by_writing_roles() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    admin.ok("POST", "/api/v1/namespaces", namespace("ns")).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding = |name: &str, role: &str| {
        let subject = json!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" });
        Some(
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role }, "subjects": [subject] }),
        )
    };
    admin.ok("POST", &format!("{rbac}/namespaces/ns/rolebindings"), binding("jane", "admin")).await;
    let mut jane = cluster.client("jane", &[]).await;
    jane.ok("GET", "/api/v1/namespaces/ns/secrets", None).await;
    jane.ok("POST", &format!("{rbac}/namespaces/ns/rolebindings"), binding("view", "view")).await;
    let message = jane
        .forbidden("POST", &format!("{rbac}/namespaces/ns/rolebindings"), binding("x", "cluster-admin"))
        .await;
    assert!(message.contains("is attempting to grant RBAC permissions not currently held"), "{message}");
    let role = |verb: &str, resource: &str| {
        Some(
            json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "r" },
            "rules": [{ "verbs": [verb], "apiGroups": [""], "resources": [resource] }] }),
        )
    };
    let roles = format!("{rbac}/namespaces/ns/roles");
    jane.forbidden("POST", &roles, role("get", "nodes")).await;
    jane.ok("POST", &roles, role("get", "pods")).await;
    jane.forbidden("PUT", &format!("{roles}/r"), role("*", "*")).await;
    let all = json!({ "rules": [{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }] });
    jane.forbidden("PATCH", &format!("{roles}/r"), Some(all)).await;
    jane.forbidden("GET", "/api/v1/namespaces/kube-system/secrets", None).await;
    drop((admin, jane));
    cluster.stop().await;
}

/// Ways round that earlier servers had: the same question asked differently.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_asked_differently_has_the_same_answer() {
    let cluster = Cluster::start().await;
    let (mut admin, mut me) = two_nodes(&cluster).await;
    let ns = "/api/v1/namespaces/ns";
    let secret = |body: &Value| body.to_string().contains("\"s2\"");
    for path in [
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds1&fieldSelector=metadata.name%3Ds2"),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds2&fieldSelector=metadata.name%3Ds1"),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds1,metadata.name%3Ds2"),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds1%2Cmetadata.name%21%3Ds1"),
        format!("{ns}/secrets?fieldSelector=metadata.name%3Ds1\\"),
        format!("{ns}/secrets/s2?watch=true"),
        format!("{ns}/secrets/s2/"),
        format!("{ns}/secrets//s2"),
        format!("/{ns}/secrets/s2"),
        format!("{ns}/secrets/s1/../s2"),
        format!("{ns}/secrets/s1%2F..%2Fs2"),
        format!("{ns}/secrets/%73%32"),
        format!("{ns}/Secrets/s2"),
        "/api/v1/watch/namespaces/ns/secrets/s2".to_owned(),
        "/api/v1/watch/secrets".to_owned(),
        format!("{ns}/pods/mine/../../secrets/s2"),
        "/api/v1/proxy/namespaces/ns/pods/yours".to_owned(),
    ] {
        let (code, body) = me.send("GET", &path, None).await;
        assert!(!secret(&body) || !code.is_success(), "{path}: {code} {body}");
        let told =
            body["items"].as_array().is_some_and(|items| items.iter().any(|i| i["metadata"]["name"] == "s2"));
        assert!(!told && body["data"].is_null(), "{path}: {code} {body}");
    }
    // The body does not decide what is written where.
    for (method, path, body) in [
        ("PUT", "/api/v1/nodes/n1".to_owned(), node("n2", json!({}))),
        (
            "POST",
            "/api/v1/nodes".to_owned(),
            Some(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "generateName": "n1" } })),
        ),
        ("PUT", "/api/v1/nodes/n2".to_owned(), node("n1", json!({}))),
        ("PUT", format!("{ns}/pods/mine/status"), pod("yours", "n2", json!({}))),
        (
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases".to_owned(),
            Some(
                json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "generateName": "n1" } }),
            ),
        ),
    ] {
        let (code, answer) = me.send(method, &path, body).await;
        assert!(matches!(code.as_u16(), 400 | 403 | 422), "{method} {path}: {code} {answer}");
    }
    // A header does not change the verb.
    let mut sly = cluster.kubelet("n1").await.acting_as("x-http-method-override", "DELETE");
    sly.ok("GET", "/api/v1/nodes/n1", None).await;
    admin.ok("GET", "/api/v1/nodes/n1", None).await;
    // Front-proxy headers are not believed from anybody.
    let mut sly = cluster
        .kubelet("n1")
        .await
        .acting_as("x-remote-user", "admin")
        .acting_as("x-remote-group", "system:masters");
    assert_eq!(sly.whoami().await["username"], "system:node:n1");
    // Deleting many is not deleting one.
    me.forbidden("DELETE", &format!("{ns}/pods"), None).await;
    me.forbidden("DELETE", &format!("{ns}/pods?fieldSelector=spec.nodeName%3Dn1"), None).await;
    // Reading is not opening a shell.
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/ns/rolebindings";
    let subject = json!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "viewer" });
    let body = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "v" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" }, "subjects": [subject] });
    admin.ok("POST", rbac, Some(body)).await;
    let mut viewer = cluster.client("viewer", &[]).await;
    viewer.ok("GET", &format!("{ns}/pods/mine"), None).await;
    for path in ["exec?command=sh", "attach", "portforward?ports=80", "proxy/"] {
        for method in ["GET", "POST"] {
            viewer.forbidden(method, &format!("{ns}/pods/mine/{path}"), None).await;
        }
    }
    viewer.forbidden("GET", &format!("{ns}/secrets"), None).await;
    drop((admin, me, sly, viewer));
    cluster.stop().await;
}

/// Existing tokens of an account end with it, and with its namespace.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_their_account_and_audience() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    admin.ok("POST", "/api/v1/namespaces", namespace("ns")).await;
    admin.ok("POST", "/api/v1/namespaces/ns/serviceaccounts", account("app")).await;
    let path = "/api/v1/namespaces/ns/serviceaccounts/app/token";
    let token = |made: Value| made["status"]["token"].as_str().unwrap().to_owned();
    let own = token(admin.ok("POST", path, token_request(None, &[])).await);
    let vault = token(admin.ok("POST", path, token_request(None, &["vault"])).await);
    let mut app = cluster.bearer(&own).await;
    app.whoami().await;
    assert_eq!(cluster.bearer(&vault).await.refused("GET", "/api", None).await.0, 401);
    let (_, message) = admin
        .refused(
            "POST",
            path,
            Some(json!({ "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest", "spec": { "audiences": [], "expirationSeconds": 60 } })),
        )
        .await;
    assert!(message.contains("may not specify a duration less than 10 minutes"), "{message}");
    // The same name is not the same account.
    admin.ok("DELETE", "/api/v1/namespaces/ns/serviceaccounts/app", None).await;
    admin.ok("POST", "/api/v1/namespaces/ns/serviceaccounts", account("app")).await;
    cluster.clock.advance(Duration::from_secs(11));
    assert_eq!(app.refused("GET", "/api", None).await.0, 401);
    let mut again = cluster.bearer(&token(admin.ok("POST", path, token_request(None, &[])).await)).await;
    again.whoami().await;
    cluster.clock.advance(Duration::from_secs(3600 + 61));
    assert_eq!(again.refused("GET", "/api", None).await.0, 401, "expired");
    drop((admin, app, again));
    cluster.stop().await;
}

/// A PUT of what is not there makes it, for those who may make it.
#[tokio::test(flavor = "multi_thread")]
async fn changing_is_not_making() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    let grant = |verbs: Value| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "leases" },
            "rules": [{ "verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"] }] })
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let subject = json!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" });
    let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "b" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases" }, "subjects": [subject] });
    admin.ok("POST", &format!("{rbac}/roles"), Some(grant(json!(["get", "update", "patch"])))).await;
    admin.ok("POST", &format!("{rbac}/rolebindings"), Some(binding)).await;
    let mut jane = cluster.client("jane", &[]).await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/mine";
    let lease =
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "mine" } });
    let message = jane.forbidden("PUT", path, Some(lease.clone())).await;
    assert!(message.contains("cannot create resource \"leases\""), "{message}");
    admin.ok("PUT", &format!("{rbac}/roles/leases"), Some(grant(json!(["get", "update", "create"])))).await;
    jane.ok("PUT", path, Some(lease)).await;
    drop((admin, jane));
    cluster.stop().await;
}

/// Admission's changes to a binding reach the pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_learns_its_nodes_zone() {
    let cluster = Cluster::start().await;
    let mut admin = cluster.admin().await;
    admin.ok("POST", "/api/v1/namespaces", namespace("ns")).await;
    admin.ok("POST", "/api/v1/namespaces/ns/serviceaccounts", account("default")).await;
    admin.ok("POST", "/api/v1/nodes", node("n1", json!({ "topology.kubernetes.io/zone": "z" }))).await;
    admin.ok("POST", "/api/v1/namespaces/ns/pods", pod("p", "", json!({}))).await;
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p" },
        "target": { "kind": "Node", "name": "n1" } });
    let path = "/api/v1/namespaces/ns/pods/p";
    let identity = &cluster.pki.scheduler;
    let mut scheduler = cluster.connect(Some((identity.chain(), identity.key())), None).await;
    scheduler.ok("POST", &format!("{path}/binding"), Some(binding)).await;
    let bound = admin.ok("GET", path, None).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["labels"]["topology.kubernetes.io/zone"], "z");
    drop((admin, scheduler));
    cluster.stop().await;
}
