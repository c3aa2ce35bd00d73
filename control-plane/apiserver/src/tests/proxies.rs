//! pods/proxy and services/proxy: what reaches the pod, what comes back, and where no request is ever sent.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::harness::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// An address of this machine that is not loopback: which one packets to elsewhere would leave from. None is sent.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

/// What runs in the pod: tells what it was asked, or answers as its path says.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |text: &'static str| Full::new(Bytes::from_static(text.as_bytes()));
    let page = "<a href=\"/rewriteme\">x</a>";
    let response = Response::builder();
    let response = match head.uri.path() {
        "/moved" => response.status(302).header("location", "/there?a=b").body(text("")),
        "/away" => response.status(302).header("location", "http://elsewhere.example/x").body(text("")),
        "/page" => response.header("content-type", "text/html; charset=utf-8").body(text(page)),
        "/zipped" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut out, page.as_bytes()).unwrap();
            let body = Full::new(Bytes::from(out.finish().unwrap()));
            response.header("content-type", "text/html").header("content-encoding", "gzip").body(body)
        }
        "/cors" => response
            .status(StatusCode::IM_A_TEAPOT)
            .header("access-control-allow-origin", "*")
            .header("x-own", "kept")
            .header("set-cookie", "a=b")
            .body(text("short and stout")),
        _ => {
            let body = body.collect().await.unwrap().to_bytes();
            let headers: serde_json::Map<String, Value> = head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            let told = json!({"method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers,
                "body": String::from_utf8_lossy(&body)});
            response.header("content-type", "application/json").body(Full::new(told.to_string().into()))
        }
    };
    Ok(response.unwrap())
}

async fn serve(address: IpAddr, tls: Option<TlsAcceptor>) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(answer);
                let builder = hyper::server::conn::http1::Builder::new();
                if let Some(tls) = tls {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                } else {
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                }
            });
        }
    });
    port
}

/// A pod that says it has this address, and its first port.
async fn pod_at(lab: &Lab, name: &str, address: &str, port: u16) {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    lab.post(PODS, &pod).await.expect(201);
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    lab.patch(&format!("{PODS}/{name}/status"), "merge-patch+json", &status).await.expect(200);
}

/// A Service with a named port 80 and a slice of it with one endpoint.
async fn service_at(lab: &Lab, name: &str, address: &str, port: u16, target: Value) {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"a": "b"}, "ports": [{"name": "web", "port": 80, "targetPort": port}]}});
    lab.post(SERVICES, &service).await.expect(201);
    let mut endpoint = json!({"addresses": [address], "conditions": {"ready": true}});
    if !target.is_null() {
        endpoint["targetRef"] = target;
    }
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": port, "protocol": "TCP"}], "endpoints": [endpoint]});
    lab.post(SLICES, &slice).await.expect(201);
}

fn to_pod(name: &str) -> Value {
    json!({"kind": "Pod", "name": name, "namespace": "default"})
}

#[tokio::test]
async fn requests_reach_the_pod_and_its_answers_come_back() {
    let Some(address) = own_address() else {
        println!("SKIPPED: this machine has no address but loopback, which is never proxied");
        return;
    };
    let lab = Lab::start().await;
    let port = serve(address, None).await;
    pod_at(&lab, "p", &address.to_string(), port).await;
    let proxy = format!("{PODS}/p/proxy");
    let headers = [
        ("host", "api.example:6443"),
        ("authorization", "Bearer secret"),
        ("impersonate-user", "someone"),
        ("impersonate-group", "system:masters"),
        ("impersonate-extra-x", "y"),
        ("x-remote-user", "me"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("cookie", "c=d"),
        ("x-mine", "kept"),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let told = lab.send(method, &format!("{proxy}/a%20b/c/?q=%2F1"), &headers, "body").await.expect(200);
        assert_eq!((&told["method"], &told["body"]), (&json!(method), &json!("body")));
        assert_eq!(told["uri"], "/a%20b/c/?q=%2F1");
        let seen = &told["headers"];
        assert_eq!(seen["host"], "api.example:6443", "as the client named it");
        assert_eq!((&seen["x-mine"], &seen["cookie"]), (&json!("kept"), &json!("c=d")));
        assert_eq!(seen["x-forwarded-uri"], format!("{proxy}/a%20b/c/"));
        for gone in ["authorization", "impersonate-user", "impersonate-extra-x", "x-remote-user", "x-hop"] {
            assert!(seen.get(gone).is_none(), "{gone}");
        }
    }
    // Without a slash at the end a page's relative links would go wrong.
    let answer = lab.get(&format!("{proxy}?x=y")).await;
    assert_eq!(
        (answer.code, &answer.headers["location"]),
        (301, &http::HeaderValue::from_str(&format!("{proxy}/?x=y")).unwrap())
    );
    assert_eq!(lab.get(&format!("{proxy}/")).await.expect(200)["uri"], "/");
    assert_eq!(lab.post(&proxy, &json!({})).await.expect(200)["uri"], "/");
    // Redirects are not followed, but lead through the proxy.
    let answer = lab.get(&format!("{proxy}/moved")).await;
    assert_eq!(
        (answer.code, answer.headers["location"].to_str().unwrap()),
        (302, &*format!("{proxy}/there?a=b"))
    );
    assert_eq!(lab.get(&format!("{proxy}/away")).await.headers["location"], "http://elsewhere.example/x");
    for path in ["page", "zipped"] {
        let answer = lab.send("GET", &format!("{proxy}/{path}"), &[("accept-encoding", "gzip")], "").await;
        assert_eq!(String::from_utf8_lossy(&answer.bytes), format!("<a href=\"{proxy}/rewriteme\">x</a>"));
        assert!(answer.headers.get("content-encoding").is_none());
    }
    let answer = lab.get(&format!("{proxy}/cors")).await;
    assert_eq!((answer.code, &answer.bytes[..]), (418, &b"short and stout"[..]));
    assert_eq!(
        (answer.headers["x-own"].as_bytes(), answer.headers["set-cookie"].as_bytes()),
        (&b"kept"[..], &b"a=b"[..])
    );
    assert!(answer.headers.get("access-control-allow-origin").is_none());
    // By port, by scheme.
    let by_port = format!("{PODS}/http:p:{port}/proxy/x");
    assert_eq!(lab.get(&by_port).await.expect(200)["uri"], "/x");
    lab.get(&format!("{PODS}/p:1/proxy/")).await.expect(503);
    lab.get(&format!("{PODS}/p:many/proxy/")).await.expect(400);
    lab.get(&format!("{PODS}/ftp:p:1/proxy/")).await.expect(400);
    lab.get(&format!("{PODS}/none/proxy/")).await.expect(404);
    // TLS to the pod; the certificate is anyone's.
    let config =
        keelson_pki::server_config(lab.pki.node_serving.chain(), lab.pki.node_serving.key(), &[]).unwrap();
    let mut config = config;
    config.alpn_protocols = vec![];
    let secure = serve(address, Some(TlsAcceptor::from(Arc::new(config)))).await;
    assert_eq!(lab.get(&format!("{PODS}/https:p:{secure}/proxy/s")).await.expect(200)["uri"], "/s");
}

#[tokio::test]
async fn a_service_leads_to_its_pods_and_to_nothing_else() {
    let Some(address) = own_address() else {
        println!("SKIPPED: this machine has no address but loopback, which is never proxied");
        return;
    };
    let lab = Lab::start().await;
    let port = serve(address, None).await;
    let text = address.to_string();
    pod_at(&lab, "p", &text, port).await;
    service_at(&lab, "web", &text, port, to_pod("p")).await;
    for name in ["web:80", "web:web", "http:web:80"] {
        assert_eq!(lab.get(&format!("{SERVICES}/{name}/proxy/x")).await.expect(200)["uri"], "/x", "{name}");
    }
    let refused = async |name: &str| {
        let status = lab.get(&format!("{SERVICES}/{name}/proxy/x")).await.expect(503);
        status["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused("web:81").await, "no service port 81 found for service \"web\"");
    assert_eq!(refused("web:other").await, "no endpoints available for service \"web:other\"");
    // An endpoint that names no pod, another's address, or a pod that is not there is not asked.
    service_at(&lab, "bare", &text, port, Value::Null).await;
    service_at(&lab, "gone", &text, port, to_pod("none")).await;
    pod_at(&lab, "other", "10.255.255.1", port).await;
    service_at(&lab, "foreign", &text, port, to_pod("other")).await;
    for name in ["bare", "gone", "foreign"] {
        assert_eq!(
            refused(&format!("{name}:80")).await,
            format!("no endpoints available for service \"{name}:80\"")
        );
    }
}

#[tokio::test]
async fn no_address_of_the_machine_itself_is_asked() {
    let lab = Lab::start().await;
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    let port = serve(loopback, None).await;
    for (name, address) in [
        ("loop", "127.0.0.1"),
        ("loop6", "::1"),
        ("mapped", "::ffff:127.0.0.1"),
        ("meta", "169.254.169.254"),
        ("any", "0.0.0.0"),
        ("local6", "fe80::1"),
    ] {
        pod_at(&lab, name, address, port).await;
        let status = lab.get(&format!("{PODS}/{name}/proxy/")).await.expect(400);
        assert_eq!(status["message"], "address not allowed", "{address}");
    }
    service_at(&lab, "web", "10.1.2.3", port, to_pod("loop")).await;
    lab.get(&format!("{SERVICES}/web:80/proxy/")).await.expect(503);
    lab.post(PODS, &pod("young")).await.expect(201);
    lab.get(&format!("{PODS}/young/proxy/")).await.expect(400);
}

/// A server of WebSockets that answers in capitals, and refuses whoever offers no protocol.
async fn echo(address: IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                use tokio_tungstenite::tungstenite::handshake::server as handshake;
                let check = |request: &handshake::Request, mut response: handshake::Response| {
                    assert_eq!(request.uri().to_string(), "/ws?a=b");
                    assert!(request.headers().get("authorization").is_none());
                    assert!(request.headers().contains_key("x-forwarded-for"));
                    match request.headers().get("sec-websocket-protocol") {
                        Some(protocol) => {
                            response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
                            Ok(response)
                        }
                        None => {
                            Err(http::Response::builder().status(418).body(Some("no".to_owned())).unwrap())
                        }
                    }
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
                while let Some(Ok(Message::Text(text))) = socket.next().await {
                    socket.send(Message::text(text.to_uppercase())).await.unwrap();
                }
            });
        }
    });
    port
}

async fn connect(lab: &Lab) -> tokio_rustls::client::TlsStream<TcpStream> {
    let identity = Some((lab.pki.admin.chain(), lab.pki.admin.key()));
    let mut config = keelson_pki::client_config(&[lab.pki.ca.certificate().clone()], identity).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let address: SocketAddr = lab.api.address();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn a_websocket_passes_through() {
    let Some(address) = own_address() else {
        println!("SKIPPED: this machine has no address but loopback, which is never proxied");
        return;
    };
    let lab = Lab::start().await;
    let port = echo(address).await;
    pod_at(&lab, "p", &address.to_string(), port).await;
    service_at(&lab, "web", &address.to_string(), port, to_pod("p")).await;
    for place in [format!("{PODS}/p/proxy/ws?a=b"), format!("{SERVICES}/web:80/proxy/ws?a=b")] {
        let request = |protocol: Option<&'static str>| {
            let mut request = format!("wss://127.0.0.1{place}").into_client_request().unwrap();
            if let Some(protocol) = protocol {
                request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
            }
            request
        };
        let asked = tokio_tungstenite::client_async(request(Some("chat")), connect(&lab).await);
        let (mut socket, response) = asked.await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        for word in ["one", "two"] {
            socket.send(Message::text(word)).await.unwrap();
            let message = tokio::time::timeout(SOON, socket.next()).await.expect("an answer in time");
            assert_eq!(message.unwrap().unwrap().into_text().unwrap().as_str(), word.to_uppercase());
        }
        socket.close(None).await.unwrap();
        // A server that does not want to is heard.
        let refused = tokio_tungstenite::client_async(request(None), connect(&lab).await).await;
        let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(response.status(), 418);
    }
}
