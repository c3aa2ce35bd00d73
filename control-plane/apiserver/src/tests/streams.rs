//! Logs and exec through a kubelet that speaks SPDY over TLS.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_streams::{Role, Session};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::harness::*;

/// A kubelet on loopback: `/containerLogs/…` answers a text, `/exec/…` echoes stdin to stdout in capitals and ends with
/// exit code 3.
pub async fn kubelet(lab: &Lab) -> u16 {
    let pki = &lab.pki;
    let mut config = keelson_pki::server_config(
        pki.node_serving.chain(),
        pki.node_serving.key(),
        &[pki.ca.certificate().clone()],
    )
    .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                assert!(
                    stream.get_ref().1.peer_certificates().is_some(),
                    "the API server shows its certificate"
                );
                let service = hyper::service::service_fn(answer);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
                    .await;
            });
        }
    });
    port
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().to_string();
    if path.starts_with("/containerLogs/default/p/c") {
        assert!(request.headers().get("authorization").is_none());
        return Ok(Response::new(Full::new(Bytes::from(format!("log of {path}\n")))));
    }
    if !path.starts_with("/exec/default/p/c?") {
        let mut missing = Response::new(Full::new(Bytes::from_static(b"no such container")));
        *missing.status_mut() = StatusCode::NOT_FOUND;
        return Ok(missing);
    }
    assert!(path.contains("command=tr") && path.contains("input=1") && path.contains("output=1"), "{path}");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (_session, mut streams) = Session::start(TokioIo::new(upgrade.await.unwrap()), Role::Server);
        let (mut error, mut stdin, mut stdout) = (None, None, None);
        while error.is_none() || stdin.is_none() || stdout.is_none() {
            let stream = streams.recv().await.expect("three streams");
            match stream.header("streamtype") {
                Some("error") => error = Some(stream.split().1),
                Some("stdin") => stdin = Some(stream.split().0),
                _ => stdout = Some(stream.split().1),
            }
        }
        let (error, mut stdin, stdout) = (error.unwrap(), stdin.unwrap(), stdout.unwrap());
        while let Some(Ok(chunk)) = stdin.chunk().await {
            stdout.send(Bytes::from(chunk.to_ascii_uppercase())).await.unwrap();
        }
        stdout.finish().await.unwrap();
        let status = json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
        error.send(Bytes::from(status.to_string())).await.unwrap();
        error.finish().await.unwrap();
    });
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("connection", "Upgrade".parse().unwrap());
    headers.insert("upgrade", "SPDY/3.1".parse().unwrap());
    headers.insert("x-stream-protocol-version", "v4.channel.k8s.io".parse().unwrap());
    Ok(response)
}

/// A pod bound to a node whose kubelet listens on loopback.
pub async fn pod_on(lab: &Lab, port: u16) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    lab.post("/api/v1/nodes", &node).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    lab.patch("/api/v1/nodes/n1/status", "merge-patch+json", &status).await.expect(200);
    lab.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    lab.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let lab = Lab::start().await;
    let port = kubelet(&lab).await;
    pod_on(&lab, port).await;
    let answer = lab.get(&format!("{PODS}/p/log?tailLines=5&timestamps=true&nonsense=1")).await;
    assert_eq!(
        (answer.code, &answer.bytes[..]),
        (200, &b"log of /containerLogs/default/p/c?timestamps=true&tailLines=5\n"[..])
    );
    lab.get(&format!("{PODS}/p/log?container=x")).await.expect(400);
    lab.get(&format!("{PODS}/p/log?tailLines=-1")).await.expect(422);
    lab.get(&format!("{PODS}/none/log")).await.expect(404);
    // In process there is no connection to upgrade.
    lab.send("POST", &format!("{PODS}/p/exec?command=tr&stdout=true"), &[], "").await.expect(400);
}

#[tokio::test]
async fn exec_relays_a_websocket_to_spdy() {
    let lab = Lab::start().await;
    let port = kubelet(&lab).await;
    pod_on(&lab, port).await;
    let mut request = format!("wss://127.0.0.1{PODS}/p/exec?command=tr&stdin=true&stdout=true")
        .into_client_request()
        .unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse().unwrap());
    let (mut socket, response) = tokio_tungstenite::client_async(request, lab.connect().await).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "v5.channel.k8s.io");
    socket.send(Message::binary(&b"\x00hello "[..])).await.unwrap();
    socket.send(Message::binary(&b"\x00world"[..])).await.unwrap();
    // v5 half-closes stdin; the command ends because of it.
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    let (mut output, mut status) = (Vec::new(), Vec::new());
    while let Some(message) = tokio::time::timeout(SOON, socket.next()).await.expect("a message in time") {
        match message {
            Ok(Message::Binary(bytes)) if bytes[0] == 1 => output.extend_from_slice(&bytes[1..]),
            Ok(Message::Binary(bytes)) if bytes[0] == 3 => status.extend_from_slice(&bytes[1..]),
            Ok(Message::Close(_)) | Err(_) => break,
            _ => {}
        }
    }
    assert_eq!(output, b"HELLO WORLD");
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}
