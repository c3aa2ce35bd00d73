//! The kubelet's HTTPS server on a real containerd: who gets in, logs, exec through an upgrade, statistics.
mod common;

use bytes::Bytes;
use common::*;
use futures::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use keelson_kubelet::config::ServerConfig;
use keelson_kubelet::server::{self, auth::*};
use keelson_streams::{Role, Session};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// `admin` may all, `reader` only get, others nothing.
struct TestAccess;

impl Access for TestAccess {
    fn authenticate<'a>(
        &'a self,
        peer: Option<Identity>,
        _: &'a HeaderMap,
    ) -> Judgement<'a, Option<Identity>> {
        Box::pin(async move { Ok(peer) })
    }

    fn authorize<'a>(&'a self, who: &'a Identity, what: &'a Attributes, _: &'a str) -> Judgement<'a, bool> {
        Box::pin(async move { Ok(who.user == "admin" || (who.user == "reader" && what.verb == "get")) })
    }
}

struct Pki {
    ca: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    fn new() -> Pki {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = parameters.self_signed(&key).unwrap();
        Pki { ca, issuer: rcgen::Issuer::new(parameters, key) }
    }

    fn issue(&self, name: &str, sans: Vec<String>) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(sans).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn client(&self, user: Option<&str>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match user {
            None => builder.with_no_client_auth(),
            Some(user) => {
                let (certificate, key) = self.issue(user, vec![]);
                let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
                    .unwrap()
            }
        })
    }
}

struct Client {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

impl Client {
    async fn stream(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let io = TokioIo::new(self.stream().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get(path).header("host", "x").body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// A session of port-forward over SPDY.
    async fn forward(&self, path: &str) -> Session {
        let io = TokioIo::new(self.stream().await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let request = http::Request::post(path)
            .header("host", "localhost")
            .header("connection", "Upgrade")
            .header("upgrade", "SPDY/3.1")
            .header("x-stream-protocol-version", "portforward.k8s.io")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let mut answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["x-stream-protocol-version"], "portforward.k8s.io");
        let upgraded = hyper::upgrade::on(&mut answer).await.unwrap();
        Session::start(TokioIo::new(upgraded), Role::Client).0
    }

    /// A WebSocket of v4 channels.
    async fn socket(&self, path: &str) -> WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut request = format!("wss://localhost{path}").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "v4.channel.k8s.io".parse().unwrap());
        let (socket, answer) = tokio_tungstenite::client_async(request, self.stream().await).await.unwrap();
        assert_eq!(answer.status(), 101);
        socket
    }

    /// Runs a command by WebSocket; answers stdout and the status that came on channel 3.
    async fn exec(&self, path: &str, stdin: Option<&[u8]>) -> (Vec<u8>, Value) {
        let mut socket = self.socket(path).await;
        if let Some(data) = stdin {
            let mut frame = vec![0u8];
            frame.extend_from_slice(data);
            socket.send(Message::Binary(frame.into())).await.unwrap();
        }
        let (mut out, mut status) = (Vec::new(), Value::Null);
        while let Some(Ok(message)) = socket.next().await {
            let Message::Binary(data) = message else { continue };
            match data.split_first() {
                Some((1, rest)) => out.extend_from_slice(rest),
                Some((3, rest)) => {
                    status = serde_json::from_slice(rest).unwrap();
                    break;
                }
                _ => {}
            }
        }
        (out, status)
    }
}

/// A server that answers only at the end of its input: the client's half-close reaches it, and the answer the client.
async fn forwarded_connections(lab: &Lab, admin: &Client) {
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 7000}, "periodSeconds": 1}});
    let script = "(while :; do nc -l -p 7002 -e true; done) & while :; do nc -l -p 7000 -e wc -c; done";
    let pod = lab.run(
        "forwarded",
        json!({"terminationGracePeriodSeconds": 1, "containers": [with(shell("c", script), probe)]}),
    );
    pod.running().await;
    let session = admin.forward("/portForward/default/forwarded").await;
    let open = async |port: &str, id: &str| {
        let headers = |kind: &str| {
            [("streamtype", kind), ("port", port), ("requestid", id)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        };
        let error = session.open(headers("error")).await.unwrap();
        (error.split(), session.open(headers("data")).await.unwrap().split())
    };
    for (id, size) in [0usize, 1, 300_000].into_iter().enumerate() {
        // The server may just be between two connections (a probe's, or the last one).
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        let counted = loop {
            let ((mut error, _), (mut from, to)) = open("7000", &format!("{id}")).await;
            let exchange = async {
                let _ = to.send(vec![b'y'; size].into()).await;
                let _ = to.finish().await;
                from.collect(100).await
            };
            let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer");
            let why = error.collect(1000).await.unwrap_or_default();
            match answer {
                Ok(counted) if why.is_empty() && !counted.is_empty() => break counted,
                other => assert!(
                    std::time::Instant::now() < limit,
                    "{size} bytes: {other:?}, {}",
                    String::from_utf8_lossy(&why)
                ),
            }
        };
        assert_eq!(String::from_utf8_lossy(&counted).trim(), size.to_string());
    }
    // One that ends with input unread, which resets the connection: the client sees the end of it.
    let ((mut error, _), (mut from, to)) = open("7002", "reset").await;
    let ends = async {
        let _ = to.send(vec![b'y'; 300_000].into()).await;
        let _ = from.collect(100).await;
        let _ = error.collect(1000).await;
    };
    tokio::time::timeout(Duration::from_secs(20), ends)
        .await
        .expect("the end of a connection that broke off");
    let ((mut error, _), (mut from, _to)) = open("7001", "none").await;
    let none = tokio::time::timeout(Duration::from_secs(20), from.collect(100)).await;
    assert!(none.expect("the end of data that cannot come").unwrap().is_empty());
    let why = String::from_utf8(error.collect(1000).await.unwrap()).unwrap();
    assert!(
        why.starts_with("error forwarding port 7001 to pod forwarded, uid : dial tcp4 127.0.0.1:7001"),
        "{why}"
    );
    pod.delete(1).await;
}

/// stdin reaches the first process; with stdinOnce it ends with the client that was attached; tty makes a terminal.
async fn attach_and_terminals(lab: &Lab, admin: &Client) {
    let script = "read line; echo got $line; cat > /dev/null; echo ended";
    let pod = lab.run(
        "attached",
        json!({"restartPolicy": "Never", "containers": [
            with(shell("once", script), json!({"stdin": true, "stdinOnce": true})),
            with(shell("term", "test -t 0 && test -t 1 && echo a terminal; cat"), json!({"stdin": true, "tty": true})),
            shell("plain", "test -t 0 || echo no terminal; cat; echo empty")]}),
    );
    pod.until("running", |v| {
        v.observed.running().any(|c| c.name == "once") && v.observed.running().any(|c| c.name == "term")
    })
    .await;
    let mut socket = admin.socket("/attach/default/attached/once?input=1&output=1").await;
    socket.send(Message::Binary(b"\0hello\n".to_vec().into())).await.unwrap();
    let mut out = Vec::new();
    while !out.ends_with(b"got hello\n") {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await.expect("output");
        if let Some(Ok(Message::Binary(data))) = message
            && data.first() == Some(&1)
        {
            out.extend_from_slice(&data[1..]);
        }
    }
    socket.close(None).await.unwrap();
    drop(socket);
    let view = pod.until("ended", |v| ended(status(v, "once").state.as_ref()).is_some()).await;
    assert_eq!(ended(status(&view, "once").state.as_ref()).unwrap().0, 0);
    assert!(pod.log("once").await.ends_with("ended"));
    assert!(pod.log("term").await.contains("a terminal"));
    assert_eq!(pod.log("plain").await, "no terminal\nempty", "without stdin there is nothing to read");
    // Two clients see the same terminal, and its size is the one that was asked for last.
    let path = "/attach/default/attached/term?input=1&output=1&tty=1";
    let mut sockets = [admin.socket(path).await, admin.socket(path).await];
    for which in [0, 1] {
        let limit = std::time::Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        while !seen.windows(5).any(|w| w == b"typed") {
            assert!(std::time::Instant::now() < limit, "client {which} sees no echo");
            // Again and again: an upgrade is answered before the runtime has attached the client.
            sockets[0].send(Message::Binary(b"\0typed\n".to_vec().into())).await.unwrap();
            let message = tokio::time::timeout(Duration::from_millis(500), sockets[which].next()).await;
            if let Ok(Some(Ok(Message::Binary(data)))) = message {
                seen.extend_from_slice(&data[1..]);
            }
        }
    }
    pod.delete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_lets_in_whom_it_knows_and_streams() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    let pki = Pki::new();
    let folder = lab.containerd.folder().join("pki");
    std::fs::create_dir_all(&folder).unwrap();
    let (certificate, key) = pki.issue("node", vec!["localhost".into()]);
    std::fs::write(folder.join("cert"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("ca"), pki.ca.pem()).unwrap();
    let config = ServerConfig {
        bind: "127.0.0.1:0".parse().unwrap(),
        cert: folder.join("cert"),
        key: folder.join("key"),
        client_ca: folder.join("ca"),
    };
    let (listener, tls) = server::bind(&config).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (kubelet, workers) = (lab.kubelet().kubelet.clone(), lab.kubelet().workers.clone());
    let task = tokio::spawn(server::serve(kubelet, workers, listener, tls, Arc::new(TestAccess)));
    let client = |user| Client { address, tls: pki.client(user) };
    let admin = client(Some("admin"));

    let pod = lab.run(
        "served",
        json!({"containers": [shell("c", &format!("echo one; echo two >&2; echo three; {STAY}"))]}),
    );
    pod.running().await;
    wait("three lines", 10, || {
        let log = lab.config.pod_logs.join("default_served_uid-served/c/0.log");
        std::fs::read_to_string(log).ok().filter(|text| text.contains("three"))
    })
    .await;

    // Who gets in.
    assert_eq!(client(None).get("/pods").await.0, 401);
    assert_eq!(client(None).get("/healthz").await.0, 401);
    assert_eq!(client(Some("nobody")).get("/containerLogs/default/served/c").await.0, 403);
    let reader = client(Some("reader"));
    assert_eq!(reader.get("/healthz").await, (200, "ok".into()));
    assert_eq!(
        reader.get("/exec/default/served/c?command=id&output=1").await.0,
        403,
        "a GET that runs is no read"
    );

    // Logs.
    let logs = async |query: &str| admin.get(&format!("/containerLogs/default/served/c{query}")).await;
    let text = logs("").await.1;
    assert_eq!(
        {
            let mut l: Vec<&str> = text.lines().collect();
            l.sort_unstable();
            l
        },
        ["one", "three", "two"]
    );
    assert_eq!(logs("?tailLines=0").await, (200, String::new()));
    assert_eq!(logs("?limitBytes=2").await.1.len(), 2);
    assert!(logs("?timestamps=true&tailLines=1").await.1.starts_with("20"));
    assert_eq!(logs("?previous=true").await.0, 400);
    assert_eq!(logs("?tailLines=-1").await.0, 400);
    assert_eq!(admin.get("/containerLogs/default/served/none").await.0, 404);
    assert_eq!(admin.get("/containerLogs/default/none/c").await.0, 404);

    // Exec: output, exit code, stdin.
    let (out, status) = admin
        .exec("/exec/default/served/c?command=/bin/sh&command=-c&command=echo%20hi&output=1", None)
        .await;
    assert_eq!((out.as_slice(), status["status"].as_str()), (b"hi\n".as_slice(), Some("Success")));
    let (_, status) = admin
        .exec("/exec/default/served/uid-served/c?command=/bin/sh&command=-c&command=exit+3&output=1", None)
        .await;
    assert_eq!(status["details"]["causes"][0]["message"], "3", "{status}");
    let (out, _) = admin
        .exec("/exec/default/served/c?command=head&command=-c&command=5&input=1&output=1", Some(b"12345678"))
        .await;
    assert_eq!(out, b"12345");
    assert_eq!(admin.get("/exec/default/served/c?command=id&output=1").await.0, 400, "no upgrade, no exec");
    assert_eq!(admin.get("/exec/default/served/other?command=id&output=1").await.0, 404);

    attach_and_terminals(&lab, &admin).await;
    forwarded_connections(&lab, &admin).await;

    // What is told of pods.
    let pods: Value = serde_json::from_str(&admin.get("/pods").await.1).unwrap();
    assert_eq!(pods["items"][0]["status"]["phase"], "Running");
    let summary: Value = serde_json::from_str(&admin.get("/stats/summary").await.1).unwrap();
    let stats = &summary["pods"][0];
    assert_eq!(stats["podRef"]["name"], "served");
    assert!(stats["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0, "{summary}");
    assert!(stats["containers"][0]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
    let metrics = admin.get("/metrics").await.1;
    assert!(metrics.contains("kubelet_running_pods 1\n"), "{metrics}");
    assert!(
        admin.get("/metrics/resource").await.1.contains("container_cpu_usage_seconds_total{container=\"c\"")
    );
    assert_eq!(admin.get("/none").await.0, 404);

    // A log that is followed ends when its container does.
    let followed = {
        let client = client(Some("admin"));
        tokio::spawn(
            async move { client.get("/containerLogs/default/served/c?follow=true&tailLines=1").await },
        )
    };
    pod.delete(5).await;
    let (status, text) = tokio::time::timeout(Duration::from_secs(20), followed).await.unwrap().unwrap();
    assert_eq!((status, text.lines().count()), (200, 1));
    task.abort();
    lab.finish().await;
}
