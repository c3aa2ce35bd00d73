//! Over TLS: certificates, anonymous access, many streams on one connection, the drain.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::harness::*;

pub(super) async fn connect(lab: &Lab, who: Option<&keelson_pki::Identity>) -> SendRequest<Full<Bytes>> {
    let identity = who.map(|who| (who.chain(), who.key()));
    let mut config = keelson_pki::client_config(&[lab.pki.ca.certificate().clone()], identity).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(lab.api.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn get(sender: &mut SendRequest<Full<Bytes>>, path: &str) -> (u16, String) {
    let request = Request::get(format!("https://127.0.0.1{path}")).body(Full::new(Bytes::new())).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn certificates_say_who_asks() {
    let lab = Lab::start().await;
    let mut admin = connect(&lab, Some(&lab.pki.admin)).await;
    assert_eq!(get(&mut admin, "/api/v1/namespaces/default").await.0, 200);
    let mut nobody = connect(&lab, None).await;
    for (path, code) in [
        ("/version", 200),
        ("/readyz", 200),
        ("/livez?verbose", 200),
        ("/api/v1/pods", 401),
        ("/apis", 401),
        ("/metrics", 401),
    ] {
        assert_eq!(get(&mut nobody, path).await.0, code, "{path}");
    }
    // A kubelet reads its own node (not there yet: 404) and no other's secrets.
    let mut kubelet = connect(&lab, Some(&lab.pki.node)).await;
    assert_eq!(get(&mut kubelet, "/api/v1/nodes/n1").await.0, 404);
    assert_eq!(get(&mut kubelet, "/api/v1/namespaces/default/secrets/x").await.0, 403);
    let mut scheduler = connect(&lab, Some(&lab.pki.scheduler)).await;
    assert_eq!(get(&mut scheduler, "/api/v1/pods").await.0, 200);
    assert_eq!(get(&mut scheduler, "/api/v1/secrets").await.0, 403);
}

#[tokio::test]
async fn one_connection_carries_many_watches() {
    let lab = Lab::start().await;
    let mut admin = connect(&lab, Some(&lab.pki.admin)).await;
    let mut watches = Vec::new();
    for _ in 0..400 {
        let request = Request::get(format!(
            "https://127.0.0.1{CONFIG_MAPS}?watch=true&resourceVersion={}",
            lab.revision().await
        ))
        .body(Full::new(Bytes::new()))
        .unwrap();
        let response =
            tokio::time::timeout(SOON, admin.send_request(request)).await.expect("the head at once").unwrap();
        assert_eq!(response.status(), 200);
        watches.push(response.into_body());
    }
    assert_eq!(get(&mut admin, "/version").await.0, 200, "others are served beside them");
    lab.post(CONFIG_MAPS, &config_map("a", serde_json::json!({}))).await.expect(201);
    for watch in &mut watches {
        let frame = tokio::time::timeout(SOON, watch.frame())
            .await
            .expect("an event")
            .unwrap()
            .unwrap()
            .into_data()
            .unwrap();
        assert!(frame.starts_with(b"{\"type\":\"ADDED\""));
    }
    let open = "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 400\n";
    assert!(get(&mut admin, "/metrics").await.1.contains(open));
}

#[tokio::test]
async fn too_many_requests_are_told_to_wait() {
    let lab = Lab::with(|config| config.max_reads = 0).await;
    lab.get(CONFIG_MAPS).await.expect(200);
    let user = crate::UserInfo::authenticated("operator", &["keelson:cluster-admins"]);
    let answer = lab.send_as(user, "GET", CONFIG_MAPS, &[], "").await;
    assert_eq!((answer.code, answer.headers["retry-after"].to_str().unwrap()), (429, "1"));
}
