//! An API server on a memory store, honest clients, and raw connections from addresses of their own.

use crate::wire::Raw;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keelson_apiserver::{ApiServer, ApiServerConfig, Limits};
use keelson_daemon::{Context, DrainTrigger};
use keelson_pki::{ClusterPki, PkiParams};
use keelson_store::MemoryStore;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Everything a test waits for comes within this time or never.
pub const SOON: Duration = Duration::from_secs(30);

pub struct Lab {
    api: ApiServer,
    pki: Arc<ClusterPki>,
    _trigger: DrainTrigger,
    _folder: tempfile::TempDir,
}

impl Lab {
    pub async fn start(limits: Limits) -> Lab {
        let folder = tempfile::tempdir().unwrap();
        let (trigger, context) = Context::for_tests();
        let params = PkiParams {
            node_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_address: [10, 96, 0, 1].into(),
            node_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            extra_names: vec![],
            life: keelson_pki::LEAF_LIFE,
            now: jiff::Timestamp::now(),
        };
        let pki = Arc::new(ClusterPki::ensure(&folder.path().join("pki"), &params).unwrap());
        let bind = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = ApiServerConfig::new(pki.clone(), bind, Ipv4Addr::new(192, 0, 2, 1).into());
        config.limits = limits;
        let api = ApiServer::start(config, Arc::new(MemoryStore::new()), context).await.unwrap();
        Lab { api, pki, _trigger: trigger, _folder: folder }
    }

    /// A plain connection from 127.0.0.`last`.
    pub async fn tcp_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
        socket.connect(self.api.address()).await.unwrap()
    }

    fn tls(&self, identified: bool, protocol: &[u8]) -> TlsConnector {
        let identity = identified.then(|| (self.pki.admin.chain(), self.pki.admin.key()));
        let mut config = keelson_pki::client_config(&[self.pki.ca.certificate().clone()], identity).unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    async fn raw(&self, last: u8, protocol: &[u8], identified: bool) -> Option<Raw> {
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // So that what is not read does not vanish in buffers.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        // And what was sent but not read is little.
        socket.set_send_buffer_size(4 * 1024).unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).ok()?;
        let tcp = socket.connect(self.api.address()).await.ok()?;
        let stream = self.tls(identified, protocol).connect(name, tcp).await.ok()?;
        Some(Raw::new(stream))
    }

    /// Without an identity; `None` where the server does not take the connection.
    pub async fn try_raw_from(&self, last: u8, protocol: &[u8]) -> Option<Raw> {
        self.raw(last, protocol, false).await
    }

    pub async fn raw_from(&self, last: u8, protocol: &[u8]) -> Raw {
        self.raw(last, protocol, false).await.expect("a connection")
    }

    /// As the administrator.
    pub async fn identified_from(&self, last: u8, protocol: &[u8]) -> Raw {
        self.raw(last, protocol, true).await.expect("a connection")
    }

    /// An honest client, the administrator.
    pub async fn client(&self) -> Client {
        let tcp = TcpStream::connect(self.api.address()).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = self.tls(true, b"h2").connect(name, tcp).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Client { sender }
    }
}

pub struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn send(&mut self, method: &str, path: &str, body: Bytes) -> (u16, Incoming) {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .unwrap();
        let response = tokio::time::timeout(SOON, self.sender.send_request(request)).await;
        let response = response.expect("an answer in time").expect("an answer");
        (response.status().as_u16(), response.into_body())
    }

    pub async fn get(&mut self, path: &str) -> (u16, Bytes) {
        let (code, body) = self.send("GET", path, Bytes::new()).await;
        (code, body.collect().await.unwrap().to_bytes())
    }

    pub async fn post(&mut self, path: &str, object: &Value) {
        let (code, body) = self.send("POST", path, object.to_string().into()).await;
        let said = body.collect().await.unwrap().to_bytes();
        assert_eq!(code, 201, "{}", String::from_utf8_lossy(&said));
    }

    /// An answer that is read piece by piece.
    pub async fn stream(&mut self, path: &str) -> Pieces {
        let (code, body) = self.send("GET", path, Bytes::new()).await;
        assert_eq!(code, 200);
        Pieces { body }
    }
}

pub struct Pieces {
    body: Incoming,
}

impl Pieces {
    pub async fn next(&mut self) -> Option<Bytes> {
        let frame = tokio::time::timeout(SOON, self.body.frame()).await.expect("a piece in time")?;
        frame.expect("the answer goes on").into_data().ok()
    }
}

/// An object of so many bytes.
pub fn config_map(name: &str, bytes: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x".repeat(bytes)}})
}

/// This process's memory.
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<usize>().ok()).unwrap() * 1024
}
