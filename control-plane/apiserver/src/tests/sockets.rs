//! Watches and logs over a client's WebSocket.

use futures::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::harness::*;
use super::streams::{kubelet, pod_on};

type Socket = WebSocketStream<Connection>;
type Answered = http::Response<Option<Vec<u8>>>;

async fn open(lab: &Lab, path: &str, headers: &[(&'static str, &str)]) -> Result<(Socket, Answered), Error> {
    let mut request = format!("wss://127.0.0.1{path}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::client_async(request, lab.connect().await).await
}

async fn next(socket: &mut Socket) -> Message {
    tokio::time::timeout(SOON, socket.next()).await.expect("a message in time").expect("no end").unwrap()
}

const HERE: (&str, &str) = ("origin", "https://127.0.0.1");

#[tokio::test]
async fn a_watch_sends_a_text_per_event() {
    let lab = Lab::start().await;
    let path =
        format!("{CONFIG_MAPS}?watch=true&resourceVersion={}&allowWatchBookmarks=true", lab.revision().await);
    let (mut socket, answer) = open(&lab, &path, &[HERE]).await.unwrap();
    assert!(answer.headers().get("sec-websocket-protocol").is_none());
    let made = lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let Message::Text(text) = next(&mut socket).await else { panic!("JSON comes as text") };
    assert!(text.ends_with("}\n"), "{text}");
    let event: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": made}));
    // What the client says is ignored, a ping is answered.
    socket.send(Message::text("nonsense")).await.unwrap();
    socket.send(Message::Ping(b"7"[..].into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::Pong(b"7"[..].into()));
    lab.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let Message::Text(text) = next(&mut socket).await else { panic!("JSON comes as text") };
    assert!(text.starts_with("{\"type\":\"DELETED\""), "{text}");
    assert_eq!(open_watches(&lab).await, 1);
    // The watch ends with its client.
    socket.close(None).await.unwrap();
    while tokio::time::timeout(SOON, socket.next()).await.expect("an end in time").is_some() {}
    let ended = async {
        while open_watches(&lab).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("the watch ends with its client");
}

/// Watches of config maps that are under way.
async fn open_watches(lab: &Lab) -> u32 {
    let text = lab.get("/metrics").await;
    let text = String::from_utf8_lossy(&text.bytes).into_owned();
    let line = text.lines().find(|line| {
        line.starts_with("apiserver_longrunning_requests")
            && line.contains("resource=\"configmaps\"")
            && line.contains("verb=\"WATCH\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a count of watches")
}

#[tokio::test]
async fn a_watch_in_protobuf_and_one_that_times_out() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{CONFIG_MAPS}?watch=true&timeoutSeconds=1");
    let accept = ("accept", "application/vnd.kubernetes.protobuf");
    let (mut socket, answer) =
        open(&lab, &path, &[HERE, accept, ("sec-websocket-protocol", "any")]).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "any");
    let Message::Binary(event) = next(&mut socket).await else { panic!("protobuf comes as bytes") };
    // Field 1 of a WatchEvent, its type; the envelope of the object follows.
    assert!(event.starts_with(b"\x0a\x05ADDED\x12"), "{event:?}");
    assert!(event.windows(4).any(|part| part == b"k8s\0"));
    assert!(matches!(next(&mut socket).await, Message::Close(_)), "the time is over");
}

#[tokio::test]
async fn refusals_come_before_the_upgrade() {
    let lab = Lab::start().await;
    let refused = async |path: &str, headers: &[(&'static str, &str)]| match open(&lab, path, headers).await {
        Err(Error::Http(answer)) => answer.status(),
        other => panic!("{path}: {:?}", other.map(drop)),
    };
    let path = format!("{CONFIG_MAPS}?watch=true");
    assert_eq!(refused(&path, &[]).await, StatusCode::FORBIDDEN);
    assert_eq!(refused(&path, &[("origin", "null")]).await, StatusCode::FORBIDDEN);
    let two = ("sec-websocket-protocol", "a, b");
    assert_eq!(refused(&path, &[HERE, two]).await, StatusCode::BAD_REQUEST);
    assert_eq!(refused(&path, &[HERE, ("sec-websocket-version", "8")]).await, StatusCode::BAD_REQUEST);
    assert_eq!(refused(&format!("{path}&labelSelector=%21%21"), &[HERE]).await, StatusCode::BAD_REQUEST);
    assert_eq!(refused("/api/v1/nonsense?watch=true", &[HERE]).await, StatusCode::NOT_FOUND);
    // A token among the protocols is no protocol: what is left is echoed. This one is not valid.
    let token = ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.YQ, x");
    let answer = open(&lab, &path, &[HERE, token]).await;
    assert!(answer.is_ok_and(|(_, answer)| answer.headers()["sec-websocket-protocol"] == "x"));
}

#[tokio::test]
async fn a_log_comes_in_bytes_or_base64() {
    let lab = Lab::start().await;
    let port = kubelet(&lab).await;
    pod_on(&lab, port).await;
    let path = format!("{PODS}/p/log");
    let (mut socket, _) = open(&lab, &path, &[]).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(&b""[..]));
    assert_eq!(next(&mut socket).await, Message::binary(&b"log of /containerLogs/default/p/c\n"[..]));
    assert!(matches!(next(&mut socket).await, Message::Close(_)));
    let base64 = ("sec-websocket-protocol", "unknown, base64.binary.k8s.io");
    let (mut socket, answer) = open(&lab, &path, &[base64]).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], "base64.binary.k8s.io");
    assert_eq!(next(&mut socket).await, Message::text(""));
    let expected = "bG9nIG9mIC9jb250YWluZXJMb2dzL2RlZmF1bHQvcC9jCg==";
    assert_eq!(next(&mut socket).await, Message::text(expected));
    let unknown = open(&lab, &path, &[("sec-websocket-protocol", "unknown")]).await;
    assert!(matches!(unknown, Err(Error::Http(answer)) if answer.status() == StatusCode::FORBIDDEN));
}
