//! As much of an API server as a kubelet needs: objects as JSON, lists, watches, patches, tokens. It is a stand-in
//! for tests of this crate alone; the real one is tested with everything else.
#![allow(dead_code)]
use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Body = BoxBody<Bytes, std::io::Error>;

#[derive(Default)]
struct State {
    /// By path, as `/api/v1/namespaces/default/pods/p`.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// `METHOD path` of every request but reads.
    writes: Vec<String>,
    /// `path?query` of every read, list and watch.
    reads: Vec<String>,
}

#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(String, &'static str, Value)>,
    /// One count for each watch that is open.
    open: Arc<()>,
}

/// What a list or watch is about: all objects of a resource, or those of one namespace and name.
struct Wanted {
    path: String,
    name: Option<String>,
}

impl Wanted {
    fn of(path: &str, query: &str) -> Wanted {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=metadata.name%3D"));
        Wanted { path: path.to_owned(), name: name.map(str::to_owned) }
    }

    fn has(&self, object: &str) -> bool {
        match &self.name {
            Some(name) => object == format!("{}/{name}", self.path),
            None => resource(object).as_deref() == Some(self.path.as_str()),
        }
    }
}

/// Collection path without its namespace, for lists over all namespaces: `/api/v1/pods`.
fn resource(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let base = if parts[0] == "api" { 2 } else { 3 };
    let rest = &parts[base..];
    let plural = if rest.first() == Some(&"namespaces") && rest.len() > 2 { rest[2] } else { rest.first()? };
    Some(format!("/{}/{plural}", parts[..base].join("/")))
}

impl FakeApi {
    pub fn new() -> FakeApi {
        FakeApi { state: Arc::default(), changes: broadcast::channel(4096).0, open: Arc::new(()) }
    }

    pub fn client(&self) -> kube::Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        keelson_client::in_process(service, "default")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// All objects whose paths begin so.
    pub fn below(&self, prefix: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.objects.iter().filter(|(path, _)| path.starts_with(prefix)).map(|(_, o)| o.clone()).collect()
    }

    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    pub fn reads(&self) -> Vec<String> {
        self.state.lock().unwrap().reads.clone()
    }

    /// Watches that are open now.
    pub fn open_watches(&self) -> usize {
        Arc::strong_count(&self.open) - Arc::strong_count(&self.state)
    }

    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let fallback = format!("uid-{}", state.version);
        let existed = state.objects.get(path).map(|o| o["metadata"]["uid"].clone());
        let meta = object["metadata"].as_object_mut().unwrap();
        let uid = existed.clone().unwrap_or(json!(fallback));
        meta.entry("uid").or_insert(uid);
        meta.insert("resourceVersion".into(), json!(state.version.to_string()));
        state.objects.insert(path.to_owned(), object.clone());
        let event = if existed.is_some() { "MODIFIED" } else { "ADDED" };
        let _ = self.changes.send((path.to_owned(), event, object));
    }

    pub fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        if let Some(mut object) = state.objects.remove(path) {
            object["metadata"]["resourceVersion"] = json!(version);
            let _ = self.changes.send((path.to_owned(), "DELETED", object));
        }
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().trim_end_matches('/').to_owned();
        let query = parts.uri.query().unwrap_or("").to_owned();
        let data = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&data).unwrap_or(Value::Null);
        if parts.method != Method::GET {
            self.state.lock().unwrap().writes.push(format!("{} {path}", parts.method));
        } else {
            self.state.lock().unwrap().reads.push(format!("{path}?{query}"));
        }
        match parts.method {
            Method::GET if query.contains("watch=") => self.watch(&path, &query),
            Method::GET => self.read(&path),
            Method::POST => self.create(&path, body),
            Method::PATCH => self.patch(&path, body),
            Method::DELETE => self.delete(&path, &body),
            _ => status(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn read(&self, path: &str) -> Response<Body> {
        let state = self.state.lock().unwrap();
        if let Some(object) = state.objects.get(path) {
            return answer(StatusCode::OK, object);
        }
        let is_list =
            resource(path).is_some_and(|r| r == path) || path.split('/').next_back() == Some("pods");
        if !is_list {
            return status(StatusCode::NOT_FOUND, "NotFound");
        }
        let items: Vec<&Value> = state
            .objects
            .iter()
            .filter(|(p, _)| resource(p).as_deref() == Some(path))
            .map(|(_, object)| object)
            .collect();
        answer(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.version.to_string()}, "items": items}),
        )
    }

    fn watch(&self, path: &str, query: &str) -> Response<Body> {
        let from: u64 = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse().ok())
            .unwrap_or(0);
        let initial = query.contains("sendInitialEvents=true");
        let wanted = Wanted::of(path, query);
        let (missed, receiver) = {
            let state = self.state.lock().unwrap();
            let version =
                |o: &Value| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
            let newer = state.objects.iter().filter(|(p, o)| wanted.has(p) && (initial || version(o) > from));
            let kind = if initial { "ADDED" } else { "MODIFIED" };
            let mut missed: Vec<Value> = newer.map(|(_, o)| json!({"type": kind, "object": o})).collect();
            if initial {
                missed.push(json!({"type": "BOOKMARK", "object": {"kind": "Any", "apiVersion": "v1", "metadata": {
                    "resourceVersion": state.version.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}));
            }
            (missed, self.changes.subscribe())
        };
        let open = self.open.clone();
        let live = BroadcastStream::new(receiver).filter_map(move |change| {
            let _held = &open;
            let (path, kind, object) = change.unwrap();
            futures::future::ready(wanted.has(&path).then(|| json!({"type": kind, "object": object})))
        });
        let frames = futures::stream::iter(missed)
            .chain(live)
            .map(|event| Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("{event}\n")))));
        Response::new(BodyExt::boxed(StreamBody::new(frames)))
    }

    fn create(&self, path: &str, mut body: Value) -> Response<Body> {
        if path.ends_with("/token") {
            let token = format!("token-{}", self.state.lock().unwrap().writes.len());
            body["status"] = json!({"token": token, "expirationTimestamp": jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600)});
            return answer(StatusCode::CREATED, &body);
        }
        let name = body["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let full = format!("{path}/{name}");
        if self.get(&full).is_some() {
            return status(StatusCode::CONFLICT, "AlreadyExists");
        }
        if body["metadata"].get("creationTimestamp").is_none() {
            body["metadata"]["creationTimestamp"] = json!(jiff::Timestamp::now());
        }
        self.put(&full, body);
        answer(StatusCode::CREATED, &self.get(&full).unwrap())
    }

    fn patch(&self, path: &str, body: Value) -> Response<Body> {
        let target = path.trim_end_matches("/status");
        let Some(mut object) = self.get(target) else { return status(StatusCode::NOT_FOUND, "NotFound") };
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(StatusCode::CONFLICT, "metadata.uid: Invalid value");
        }
        merge(&mut object, &body);
        self.put(target, object.clone());
        answer(StatusCode::OK, &object)
    }

    fn delete(&self, path: &str, body: &Value) -> Response<Body> {
        let Some(mut object) = self.get(path) else { return status(StatusCode::NOT_FOUND, "NotFound") };
        let uid = &body["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return status(StatusCode::CONFLICT, "Conflict");
        }
        if path.contains("/pods/") && body["gracePeriodSeconds"] != json!(0) {
            object["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now());
            object["metadata"]["deletionGracePeriodSeconds"] =
                body.get("gracePeriodSeconds").cloned().unwrap_or(json!(30));
            self.put(path, object.clone());
        } else {
            self.remove(path);
        }
        answer(StatusCode::OK, &object)
    }
}

/// Merges as a strategic merge patch does where the kubelet uses it: conditions by type, `$patch: replace`, null.
fn merge(target: &mut Value, patch: &Value) {
    let (Some(object), Some(changes)) = (target.as_object_mut(), patch.as_object()) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in changes {
        match value {
            Value::Null => {
                object.remove(key);
            }
            Value::Object(_) => merge(object.entry(key).or_insert(Value::Object(Map::new())), value),
            Value::Array(list) if key == "conditions" => {
                let all = object.entry(key).or_insert(json!([])).as_array_mut().unwrap();
                for change in list {
                    match all.iter_mut().find(|c| c["type"] == change["type"]) {
                        Some(found) => merge(found, change),
                        None => all.push(change.clone()),
                    }
                }
            }
            Value::Array(list) if list.first().is_some_and(|v| v.get("$patch").is_some()) => {
                object.insert(key.clone(), Value::Array(list[1..].to_vec()));
            }
            _ => {
                object.insert(key.clone(), value.clone());
            }
        }
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let mut response = Response::new(BodyExt::boxed(body));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn status(code: StatusCode, reason: &str) -> Response<Body> {
    answer(
        code,
        &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code.as_u16()}),
    )
}
