//! What a cluster has from its first start: namespaces, roles and bindings, priority classes, the Service range, and
//! the `kubernetes` Service with its endpoints. Repeated at every start; what is there and right is left alone.

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use keelson_api::status::{Reason, Status};
use serde_json::{Value, json};
use std::net::IpAddr;
use tower::Service as _;

use crate::apiserver::{ApiServer, LocalService, StartError};
use crate::authz::{self, Reconciled};
use crate::config::ApiServerConfig;

/// The steps, as readiness names them.
pub const STEPS: [&str; 4] = [
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/bootstrap-controller",
];

const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

/// How often a step begins anew that met another server's writes.
const ATTEMPTS: usize = 5;

/// Makes everything.
pub async fn run(api: &ApiServer, config: &ApiServerConfig) -> Result<(), StartError> {
    for _ in 1..ATTEMPTS {
        match once(api, config).await {
            Err(StartError::Bootstrap { status, .. }) if status.reason == Reason::Conflict => {}
            outcome => return outcome,
        }
    }
    once(api, config).await
}

async fn once(api: &ApiServer, config: &ApiServerConfig) -> Result<(), StartError> {
    let mut client = Client::new(api.own_service());
    let steps = [
        namespaces(&mut client).await,
        roles(&mut client).await,
        priority_classes(&mut client).await,
        kubernetes_service(&mut client, api, config).await,
    ];
    for (step, outcome) in STEPS.into_iter().zip(steps) {
        outcome.map_err(|status| StartError::Bootstrap { step, status })?;
        api.core().health.done(step);
    }
    Ok(())
}

/// The server's own requests, through all stages.
pub(crate) struct Client(LocalService);

impl Client {
    pub(crate) fn new(service: LocalService) -> Client {
        Client(service)
    }

    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Status> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("accept", "application/json")
            .header("user-agent", "kube-apiserver")
            .body(Full::new(bytes::Bytes::from(bytes)))
            .map_err(Status::internal)?;
        let answer = self.0.call(request).await.map_err(Status::internal)?;
        let code = answer.status();
        let body = answer.into_body().collect().await.map_err(Status::internal)?.to_bytes();
        let value: Value = serde_json::from_slice(&body).map_err(Status::internal)?;
        if code.is_success() {
            return Ok(value);
        }
        let text = value["message"].as_str().unwrap_or_default().to_owned();
        let reason = match value["reason"].as_str() {
            Some("NotFound") => Reason::NotFound,
            Some("AlreadyExists") => Reason::AlreadyExists,
            Some("Conflict") => Reason::Conflict,
            _ => Reason::Unknown,
        };
        Err(Status::other(code.as_u16(), reason, text))
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<Value>, Status> {
        match self.send(Method::GET, path, None).await {
            Ok(value) => Ok(Some(value)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Makes an object; one that is there already is fine.
    async fn ensure(&mut self, collection: &str, object: &Value) -> Result<(), Status> {
        match self.send(Method::POST, collection, Some(object)).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == Reason::AlreadyExists => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Makes an object or puts right what of it differs.
    async fn apply(&mut self, collection: &str, object: &Value, parts: &[&str]) -> Result<(), Status> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!("{collection}/{name}");
        let Some(mut found) = self.get(&path).await? else { return self.ensure(collection, object).await };
        let mut changed = false;
        for part in parts {
            if found[*part] != object[*part] {
                found[*part] = object[*part].clone();
                changed = true;
            }
        }
        if !changed {
            return Ok(());
        }
        self.send(Method::PUT, &path, Some(&found)).await.map(|_| ())
    }
}

async fn namespaces(client: &mut Client) -> Result<(), Status> {
    for name in NAMESPACES {
        if client.get(&format!("/api/v1/namespaces/{name}")).await?.is_none() {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            client.ensure("/api/v1/namespaces", &object).await?;
        }
    }
    Ok(())
}

async fn roles(client: &mut Client) -> Result<(), Status> {
    const ROOT: &str = "/apis/rbac.authorization.k8s.io/v1";
    for wanted in authz::bootstrap::objects() {
        let resource = wanted.kind.resource();
        let collection = if wanted.namespace.is_empty() {
            format!("{ROOT}/{resource}")
        } else {
            format!("{ROOT}/namespaces/{}/{resource}", wanted.namespace)
        };
        let path = format!("{collection}/{}", wanted.name);
        let found = client.get(&path).await?;
        match authz::reconcile(found.as_ref(), &wanted) {
            Reconciled::Nothing => {}
            Reconciled::Create(object) => client.ensure(&collection, &object).await?,
            Reconciled::Update(object) => drop(client.send(Method::PUT, &path, Some(&object)).await?),
            Reconciled::Recreate(object) => {
                client.send(Method::DELETE, &path, None).await?;
                client.ensure(&collection, &object).await?;
            }
        }
    }
    Ok(())
}

async fn priority_classes(client: &mut Client) -> Result<(), Status> {
    const COLLECTION: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for (name, value, description) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        if client.get(&format!("{COLLECTION}/{name}")).await?.is_some() {
            continue;
        }
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        });
        client.ensure(COLLECTION, &object).await?;
    }
    Ok(())
}

/// The ServiceCIDR, and the `kubernetes` Service with this server as its endpoint.
async fn kubernetes_service(
    client: &mut Client,
    api: &ApiServer,
    config: &ApiServerConfig,
) -> Result<(), Status> {
    let range = api.core().service_range;
    let cidrs = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [range.to_string()]},
    });
    client.ensure("/apis/networking.k8s.io/v1/servicecidrs", &cidrs).await?;
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let target = api.address().port();
    const SERVICES: &str = "/api/v1/namespaces/default/services";
    if client.get(&format!("{SERVICES}/kubernetes")).await?.is_none() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {
                "clusterIP": range.at(1).to_string(), "type": "ClusterIP", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target}],
            },
        });
        client.ensure(SERVICES, &service).await?;
    }
    if config.several {
        // Its endpoints are kept by all servers together.
        return Ok(());
    }
    endpoints(client, &[config.advertise], target).await
}

/// Endpoints and EndpointSlice show the servers' advertised addresses, in order, of one family, at least one.
pub(crate) async fn endpoints(client: &mut Client, all: &[IpAddr], port: u16) -> Result<(), Status> {
    let is_ipv4 = all.first().is_some_and(IpAddr::is_ipv4);
    let all: Vec<String> = all.iter().filter(|one| one.is_ipv4() == is_ipv4).map(IpAddr::to_string).collect();
    let addresses: Vec<Value> = all.iter().map(|ip| json!({"ip": ip})).collect();
    let ready: Vec<Value> =
        all.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    client.apply("/api/v1/namespaces/default/endpoints", &endpoints, &["subsets"]).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": ready,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    client
        .apply("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice, &["endpoints", "ports"])
        .await
}
