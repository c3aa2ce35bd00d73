//! One API server per test, and a client that sees everything: codes, headers, bodies, watch frames.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use keelson_daemon::{Context, DrainTrigger};
use keelson_pki::{ClusterPki, PkiParams};
use keelson_store::{MemoryStore, Store};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service as _;

use crate::body::Body;
use crate::{ApiServer, ApiServerConfig, UserInfo};

/// Everything a test waits for comes within this time or never.
pub const SOON: Duration = Duration::from_secs(20);

/// A client's connection.
pub type Connection = tokio_rustls::client::TlsStream<TcpStream>;

/// A server and who talks to it.
pub struct Lab {
    pub api: ApiServer,
    pub store: Arc<dyn Store>,
    pub pki: Arc<ClusterPki>,
    _trigger: DrainTrigger,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.bytes)))
    }

    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// The JSON body of an answer that must have this code.
    #[track_caller]
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.bytes));
        self.json()
    }
}

/// Keys are made once for all tests.
fn pki() -> Arc<ClusterPki> {
    static PKI: OnceLock<(tempfile::TempDir, Arc<ClusterPki>)> = OnceLock::new();
    PKI.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let params = PkiParams {
            node_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_address: "10.96.0.1".parse().unwrap(),
            node_addresses: vec!["127.0.0.1".parse().unwrap()],
            extra_names: vec!["localhost".into()],
            life: keelson_pki::LEAF_LIFE,
            now: jiff::Timestamp::now(),
        };
        let path: PathBuf = folder.path().join("pki");
        let pki = Arc::new(ClusterPki::ensure(&path, &params).unwrap());
        (folder, pki)
    })
    .1
    .clone()
}

pub fn admin() -> UserInfo {
    UserInfo::authenticated("admin", &["system:masters"])
}

impl Lab {
    pub async fn start() -> Lab {
        Lab::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ApiServerConfig)) -> Lab {
        let (trigger, ctx) = Context::for_tests();
        Lab::in_context(trigger, ctx, change).await
    }

    pub async fn in_context(
        trigger: DrainTrigger,
        ctx: Context,
        change: impl FnOnce(&mut ApiServerConfig),
    ) -> Lab {
        Lab::over(Arc::new(MemoryStore::new()), trigger, ctx, change).await
    }

    /// A server over a store that the test made.
    pub async fn over(
        store: Arc<dyn Store>,
        trigger: DrainTrigger,
        ctx: Context,
        change: impl FnOnce(&mut ApiServerConfig),
    ) -> Lab {
        let pki = pki();
        let mut config =
            ApiServerConfig::new(pki.clone(), "127.0.0.1:0".parse().unwrap(), "192.0.2.7".parse().unwrap());
        change(&mut config);
        let api = ApiServer::start(config, store.clone(), ctx).await.unwrap();
        let lab = Lab { api, store, pki, _trigger: trigger };
        // What the controllers would make.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        lab.post("/api/v1/namespaces/default/serviceaccounts", &account).await.expect(201);
        lab
    }

    /// A second server over the same store.
    pub async fn beside_with(&self, change: impl FnOnce(&mut ApiServerConfig)) -> Lab {
        let (trigger, ctx) = Context::for_tests();
        let mut config = ApiServerConfig::new(
            self.pki.clone(),
            "127.0.0.1:0".parse().unwrap(),
            "192.0.2.8".parse().unwrap(),
        );
        change(&mut config);
        let api = ApiServer::start(config, self.store.clone(), ctx).await.unwrap();
        Lab { api, store: self.store.clone(), pki: self.pki.clone(), _trigger: trigger }
    }

    /// Another server on the same store, after this one has stopped.
    pub async fn restart(self) -> Lab {
        let (trigger, ctx) = Context::for_tests();
        let config = ApiServerConfig::new(
            self.pki.clone(),
            "127.0.0.1:0".parse().unwrap(),
            "192.0.2.7".parse().unwrap(),
        );
        let (store, pki) = (self.store.clone(), self.pki.clone());
        drop(self);
        let api = ApiServer::start(config, store.clone(), ctx).await.unwrap();
        Lab { api, store, pki, _trigger: trigger }
    }

    pub async fn raw(&self, user: UserInfo, request: Request<Full<Bytes>>) -> Response<Body> {
        let answer = self.api.service(user).call(request);
        tokio::time::timeout(SOON, answer).await.expect("an answer in time").unwrap()
    }

    pub async fn send_as(
        &self,
        user: UserInfo,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(user, request.body(Full::new(body.into())).unwrap()).await;
        let (head, body) = response.into_parts();
        let bytes =
            tokio::time::timeout(SOON, body.collect()).await.expect("a body in time").unwrap().to_bytes();
        Answer { code: head.status.as_u16(), headers: head.headers, bytes }
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send_as(admin(), method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, object: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, &[("content-type", &format!("application/{kind}"))], patch.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    /// Opens a watch; the head must come at once.
    pub async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Frames {
        let mut request = Request::builder().method("GET").uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(admin(), request.body(Full::new(Bytes::new())).unwrap()).await;
        assert_eq!(response.status(), 200);
        Frames { body: response.into_body(), buffer: Vec::new() }
    }

    /// A connection of the administrator's that speaks HTTP/1.1.
    pub async fn connect(&self) -> Connection {
        let mut config = keelson_pki::client_config(
            &[self.pki.ca.certificate().clone()],
            Some((self.pki.admin.chain(), self.pki.admin.key())),
        )
        .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.api.address()).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    pub async fn revision(&self) -> u64 {
        self.store.revision().await.unwrap()
    }
}

/// A watch's body, frame by frame.
pub struct Frames {
    body: Body,
    buffer: Vec<u8>,
}

impl Frames {
    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(SOON, self.body.frame()).await.expect("a frame in time");
        match frame {
            Some(frame) => {
                self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap());
                true
            }
            None => false,
        }
    }

    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn short(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or("-")
        )
    }

    /// The next frame of a protobuf watch.
    pub async fn binary(&mut self) -> Vec<u8> {
        loop {
            if self.buffer.len() >= 4 {
                let length = u32::from_be_bytes(self.buffer[..4].try_into().unwrap()) as usize;
                if self.buffer.len() >= 4 + length {
                    let frame: Vec<u8> = self.buffer.drain(..4 + length).collect();
                    return frame[4..].to_vec();
                }
            }
            assert!(self.more().await, "the watch ended");
        }
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";

pub fn config_map(name: &str, labels: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": "v"}})
}

pub fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}},
        },
    })
}
