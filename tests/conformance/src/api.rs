//! Requests as the tests make them: any path, any body, and the answer with its code and headers.

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer (upstream's single-call timeout is 5 minutes; nothing here takes that long).
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// An error answer: its code and the Status object.
#[derive(Debug)]
pub struct Refusal {
    pub code: StatusCode,
    pub status: Value,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |field: &str| self.status[field].as_str().unwrap_or_default();
        write!(f, "{} {}: {}", self.code.as_u16(), text("reason"), text("message"))
    }
}

impl std::error::Error for Refusal {}

/// Whether the error is the server's answer with that reason and the code that belongs to it.
pub fn refused_as(error: &anyhow::Error, code: StatusCode, reason: &str) -> bool {
    error
        .downcast_ref::<Refusal>()
        .is_some_and(|refusal| refusal.code == code && refusal.status["reason"] == reason)
}

pub fn not_found(error: &anyhow::Error) -> bool {
    refused_as(error, StatusCode::NOT_FOUND, "NotFound")
}

pub fn conflict(error: &anyhow::Error) -> bool {
    refused_as(error, StatusCode::CONFLICT, "Conflict")
}

/// One answer.
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {}", self.text()))
    }

    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The answer if its code says success, else a [`Refusal`].
    pub fn accepted(self) -> Result<Answer> {
        if self.code.is_success() {
            return Ok(self);
        }
        // A text instead of a Status (a group that is not served) is read by its code, as client-go reads it.
        let reason = if self.code == StatusCode::NOT_FOUND { "NotFound" } else { "" };
        let text = || json!({ "message": self.text(), "reason": reason });
        let status = self.json().unwrap_or_else(|_| text());
        Err(Refusal { code: self.code, status }.into())
    }
}

/// A client of one server.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
}

impl Api {
    pub async fn connect(kubeconfig: &Path) -> Result<Api> {
        let file = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Api { client: kube::Client::try_from(config)? })
    }

    /// Sends a request; headers are pairs of name and value.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let what = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.into())).with_context(|| what.clone())?;
        let exchange = async {
            let response = self.client.send(request).await?;
            let (head, body) = response.into_parts();
            anyhow::Ok(Answer {
                code: head.status,
                headers: head.headers,
                body: body.collect().await?.to_bytes(),
            })
        };
        match tokio::time::timeout(ANSWER_WITHIN, exchange).await {
            Ok(answer) => answer.with_context(|| what),
            Err(_) => bail!("{what}: no answer within {} s", ANSWER_WITHIN.as_secs()),
        }
    }

    /// GET of a path, as JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let answer = self.send(Method::GET, path, &[("Accept", "application/json")], Bytes::new()).await?;
        answer.accepted().and_then(|answer| answer.json()).with_context(|| format!("GET {path}"))
    }

    /// The objects of one kind.
    pub fn of(&self, kind: &Kind) -> Resource {
        Resource { api: self.clone(), kind: kind.clone(), namespace: String::new() }
    }
}

/// A kind of object and where it is served.
#[derive(Clone, Debug)]
pub struct Kind {
    pub api_version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub kind: Cow<'static, str>,
    pub list: Cow<'static, str>,
}

macro_rules! kinds {
    ($($name:ident: $version:literal $plural:literal $kind:literal;)*) => {
        $(pub const $name: Kind = Kind {
            api_version: Cow::Borrowed($version),
            plural: Cow::Borrowed($plural),
            kind: Cow::Borrowed($kind),
            list: Cow::Borrowed(concat!($kind, "List")),
        };)*

        /// All of them.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    CONFIG_MAPS: "v1" "configmaps" "ConfigMap";
    CORE_EVENTS: "v1" "events" "Event";
    EVENTS: "events.k8s.io/v1" "events" "Event";
    DEPLOYMENTS: "apps/v1" "deployments" "Deployment";
    REPLICA_SETS: "apps/v1" "replicasets" "ReplicaSet";
    REPLICATION_CONTROLLERS: "v1" "replicationcontrollers" "ReplicationController";
    NAMESPACES: "v1" "namespaces" "Namespace";
    NODES: "v1" "nodes" "Node";
    PODS: "v1" "pods" "Pod";
    POD_TEMPLATES: "v1" "podtemplates" "PodTemplate";
    SERVICES: "v1" "services" "Service";
    SERVICE_ACCOUNTS: "v1" "serviceaccounts" "ServiceAccount";
    ENDPOINT_SLICES: "discovery.k8s.io/v1" "endpointslices" "EndpointSlice";
    CRDS: "apiextensions.k8s.io/v1" "customresourcedefinitions" "CustomResourceDefinition";
}

/// The body's form in a PATCH.
#[derive(Clone, Copy)]
pub enum Patch {
    Json,
    Merge,
    Strategic,
}

impl Patch {
    fn media_type(self) -> &'static str {
        match self {
            Patch::Json => "application/json-patch+json",
            Patch::Merge => "application/merge-patch+json",
            Patch::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// A list as its client needs it.
pub struct Listed {
    pub items: Vec<Value>,
    pub resource_version: String,
    pub next: String,
    pub remaining: Option<i64>,
}

/// The objects of a kind, in a namespace or everywhere. As a typed client would, it refuses answers of another kind.
#[derive(Clone)]
pub struct Resource {
    api: Api,
    kind: Kind,
    namespace: String,
}

impl Resource {
    pub fn within(mut self, namespace: &str) -> Resource {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The path of the collection, of an object (with a name) or of a subresource (`name/status`).
    pub fn path(&self, name: &str) -> String {
        let root = if self.kind.api_version.contains('/') { "apis" } else { "api" };
        let mut path = format!("/{root}/{}", self.kind.api_version);
        if !self.namespace.is_empty() {
            path.push_str(&format!("/namespaces/{}", self.namespace));
        }
        path.push_str(&format!("/{}", self.kind.plural));
        if !name.is_empty() {
            path.push_str(&format!("/{name}"));
        }
        path
    }

    async fn call(&self, method: Method, path: &str, media_type: &str, body: String) -> Result<Value> {
        let what = format!("{method} {path}");
        let headers = [("Accept", "application/json"), ("Content-Type", media_type)];
        let answer = self.api.send(method, path, &headers, body).await?;
        answer.accepted().and_then(|answer| answer.json()).with_context(|| what)
    }

    fn object(&self, value: Value) -> Result<Value> {
        ensure!(
            value["kind"] == *self.kind.kind && value["apiVersion"] == *self.kind.api_version,
            "expected a {} of {}, got {} of {}",
            self.kind.kind,
            self.kind.api_version,
            value["kind"],
            value["apiVersion"]
        );
        Ok(value)
    }

    pub async fn create(&self, object: &Value) -> Result<Value> {
        self.object(
            self.call(Method::POST, &self.path(""), "application/json", self.typed(object).to_string())
                .await?,
        )
    }

    /// The object with apiVersion and kind.
    fn typed(&self, object: &Value) -> Value {
        let mut object = object.clone();
        object["apiVersion"] = json!(self.kind.api_version);
        object["kind"] = json!(self.kind.kind);
        object
    }

    /// `name`, or `name/subresource`.
    pub async fn get(&self, name: &str) -> Result<Value> {
        self.object(self.call(Method::GET, &self.path(name), "application/json", String::new()).await?)
    }

    /// PUT to `name` or `name/subresource`.
    pub async fn replace(&self, name: &str, object: &Value) -> Result<Value> {
        self.object(
            self.call(Method::PUT, &self.path(name), "application/json", self.typed(object).to_string())
                .await?,
        )
    }

    /// Reads, changes and replaces, again after a conflict (client-go's default retry: five times).
    pub async fn change(&self, name: &str, change: impl Fn(&mut Value)) -> Result<Value> {
        self.change_at(name, name, change).await
    }

    /// As [`Resource::change`], written to another path, such as `name/finalize`.
    pub async fn change_at(&self, name: &str, to: &str, change: impl Fn(&mut Value)) -> Result<Value> {
        let mut attempt = 0;
        loop {
            let mut object = self.get(name).await?;
            change(&mut object);
            match self.replace(to, &object).await {
                Err(error) if conflict(&error) && attempt < 4 => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    pub async fn patch(&self, name: &str, form: Patch, patch: &Value) -> Result<Value> {
        self.object(self.call(Method::PATCH, &self.path(name), form.media_type(), patch.to_string()).await?)
    }

    /// DELETE with options; the answer is the object, or a Status.
    pub async fn delete(&self, name: &str, options: &Value) -> Result<Value> {
        let mut body = options.clone();
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("DeleteOptions");
        self.call(Method::DELETE, &self.path(name), "application/json", body.to_string()).await
    }

    /// DELETE of what the query selects.
    pub async fn delete_all(&self, query: &[(&str, &str)], options: &Value) -> Result<Value> {
        let mut body = options.clone();
        body["apiVersion"] = json!("v1");
        body["kind"] = json!("DeleteOptions");
        let path = format!("{}{}", self.path(""), encode(query));
        self.call(Method::DELETE, &path, "application/json", body.to_string()).await
    }

    pub async fn list(&self, query: &[(&str, &str)]) -> Result<Listed> {
        let path = format!("{}{}", self.path(""), encode(query));
        let mut list = self.call(Method::GET, &path, "application/json", String::new()).await?;
        ensure!(
            list["kind"] == *self.kind.list,
            "expected a {}, got a {} from {path}",
            self.kind.list,
            list["kind"]
        );
        let Value::Array(items) = list["items"].take() else { bail!("{path}: the list has no items") };
        let metadata = &list["metadata"];
        let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
        Ok(Listed {
            items,
            resource_version: text("resourceVersion"),
            next: text("continue"),
            remaining: metadata["remainingItemCount"].as_i64(),
        })
    }

    /// Opens a watch.
    pub async fn watch(&self, query: &[(&str, &str)]) -> Result<Watch> {
        let mut query = query.to_vec();
        query.push(("watch", "true"));
        let path = format!("{}{}", self.path(""), encode(&query));
        let request = Request::get(&path).header("Accept", "application/json").body(Body::empty())?;
        let opened = tokio::time::timeout(ANSWER_WITHIN, self.api.client.send(request)).await;
        let response = opened.map_err(|_| anyhow!("GET {path}: no answer"))??;
        let code = response.status();
        if !code.is_success() {
            let body = response.into_body().collect().await?.to_bytes();
            let status = serde_json::from_slice(&body).unwrap_or(Value::Null);
            return Err(Refusal { code, status }.into());
        }
        Ok(Watch { body: response.into_body(), read: BytesMut::new(), path })
    }
}

/// A query string with its question mark, values escaped; nothing when there are no pairs.
pub fn encode(query: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in query {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    out
}

/// One watch event.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: String,
    pub object: Value,
}

/// An open watch.
pub struct Watch {
    body: Body,
    read: BytesMut,
    path: String,
}

impl Watch {
    /// The next event, `None` when the server ended the watch.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                let mut event: Value = serde_json::from_slice(&line)
                    .with_context(|| format!("{}: {}", self.path, String::from_utf8_lossy(&line)))?;
                let kind = event["type"].as_str().context("an event without a type")?.to_owned();
                return Ok(Some(Event { kind, object: event["object"].take() }));
            }
            match self.body.frame().await {
                Some(frame) => {
                    if let Ok(data) = frame.with_context(|| self.path.clone())?.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}

/// The object's name.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The object's UID, which a server always sets.
pub fn uid(object: &Value) -> Result<&str> {
    object["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty()).context("the object has no uid")
}

/// The object's resourceVersion, which a server always sets: a positive number.
pub fn version(object: &Value) -> Result<u64> {
    let text = object["metadata"]["resourceVersion"].as_str().context("the object has no resourceVersion")?;
    let number: u64 = text.parse().with_context(|| format!("resourceVersion {text:?}"))?;
    ensure!(number > 0 && text == number.to_string(), "resourceVersion {text:?}");
    Ok(number)
}

/// The object without resourceVersion and managedFields, for comparing.
pub fn bare(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    object
}
