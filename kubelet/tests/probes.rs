//! Probes and hooks against servers on loopback: the node's address is loopback, so a pod on the host's network has it.
mod common;

use bytes::Bytes;
use common::*;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Answers HTTP and gRPC health checks, and notes what was asked.
#[derive(Clone, Default)]
struct Server {
    healthy: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn healthy() -> Server {
        let server = Server::default();
        server.healthy.store(true, Ordering::SeqCst);
        server
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let text =
            |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        let line = format!(
            "{} {} host={} x={}",
            request.method(),
            request.uri().path(),
            text("host"),
            text("x-probe")
        );
        self.seen.lock().unwrap().push(line);
        let healthy = self.healthy.load(Ordering::SeqCst);
        if request.uri().path() == "/grpc.health.v1.Health/Check" {
            let asked = request.into_body().collect().await.unwrap().to_bytes();
            self.seen
                .lock()
                .unwrap()
                .push(format!("service={}", String::from_utf8_lossy(asked.get(7..).unwrap_or(b""))));
            // Five bytes before the message; field 1 is SERVING or NOT_SERVING.
            let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, if healthy { 1 } else { 2 }]);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(frames))));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            return Ok(response);
        }
        let mut response = Response::new(BodyExt::boxed(Full::new(Bytes::from_static(b"body"))));
        *response.status_mut() =
            if healthy { http::StatusCode::OK } else { http::StatusCode::SERVICE_UNAVAILABLE };
        Ok(response)
    }

    /// Serves on a free port of loopback, over TLS with a certificate that nobody signed where that is asked for.
    async fn serve(&self, tls: bool) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let signed = rcgen::generate_simple_self_signed(vec!["elsewhere.example".into()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, acceptor) = (server.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| server.clone().answer(request));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    if tls {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    } else {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        port
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_hooks() {
    if !possible() {
        return;
    }
    let lab = Lab::start_with(|config| config.node_addresses = vec!["127.0.0.1".parse().unwrap()]).await;
    grpc_and_https(&lab).await;
    hooks(&lab).await;
    timing(&lab).await;
    lab.finish().await;
}

fn quick(probe: Value) -> Value {
    json!({"readinessProbe": with(probe, json!({"periodSeconds": 1, "failureThreshold": 1}))})
}

async fn grpc_and_https(lab: &Lab) {
    let (grpc, https, tcp) = (Server::healthy(), Server::healthy(), Server::healthy());
    let (grpc_port, https_port, tcp_port) =
        (grpc.serve(false).await, https.serve(true).await, tcp.serve(false).await);
    let headers = json!([{"name": "Host", "value": "web.example"}, {"name": "X-Probe", "value": "yes"}]);
    let pod = lab.run(
        "grpc",
        json!({"hostNetwork": true, "terminationGracePeriodSeconds": 1, "containers": [
            with(shell("g", STAY), quick(json!({"grpc": {"port": grpc_port, "service": "db"}}))),
            with(shell("h", STAY), quick(json!({"httpGet": {"port": https_port, "path": "/ok", "scheme": "HTTPS", "httpHeaders": headers}}))),
            // The host of a probe may be another than the pod's.
            with(shell("t", STAY), quick(json!({"tcpSocket": {"port": tcp_port, "host": "localhost"}})))]}),
    );
    pod.running().await;
    assert!(grpc.seen().contains(&"service=db".to_owned()), "{:?}", grpc.seen());
    let asked = "GET /ok host=web.example x=yes".to_owned();
    assert!(https.seen().contains(&asked), "{:?}", https.seen());
    grpc.healthy.store(false, Ordering::SeqCst);
    https.healthy.store(false, Ordering::SeqCst);
    let view = pod.until("unready", |v| !status(v, "g").ready && !status(v, "h").ready).await;
    assert!(status(&view, "t").ready, "a port that is open is enough for tcpSocket");
    grpc.healthy.store(true, Ordering::SeqCst);
    https.healthy.store(true, Ordering::SeqCst);
    pod.running().await;
    pod.delete(1).await;
}

async fn hooks(lab: &Lab) {
    let server = Server::healthy();
    let port = server.serve(false).await;
    let get = |path: &str| json!({"httpGet": {"port": port, "path": path}});
    let pod = lab.run(
        "hooks",
        json!({"hostNetwork": true, "containers": [
            with(shell("web", STAY), json!({"lifecycle": {"postStart": get("/started"), "preStop": get("/stopping")}})),
            with(shell("naps", STAY), json!({"lifecycle": {"preStop": {"sleep": {"seconds": 3}}}}))]}),
    );
    pod.running().await;
    let paths =
        || server.seen().iter().filter_map(|l| l.split(' ').nth(1).map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(paths(), ["/started"], "the hook was asked before the container counts as running");
    let took = pod.delete(30).await;
    assert_eq!(paths(), ["/started", "/stopping"]);
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(15), "the nap counts: {took:?}");
}

async fn timing(lab: &Lab) {
    // A command that outlives timeoutSeconds has failed.
    let slow = json!({"exec": {"command": ["/bin/sh", "-c", "sleep 30"]}, "timeoutSeconds": 1, "periodSeconds": 1, "failureThreshold": 1});
    let ready = lab.run(
        "slow",
        json!({"containers": [with(shell("c", STAY), json!({"readinessProbe": slow.clone()}))]}),
    );
    ready.until("running", |v| status(v, "c").started == Some(true)).await;
    // The probe's own grace comes before the pod's, which is far longer than this test waits.
    let own = with(slow, json!({"terminationGracePeriodSeconds": 1}));
    let begun = Instant::now();
    let killed = lab.run(
        "stubborn",
        json!({"terminationGracePeriodSeconds": 600, "containers": [
            with(shell("c", "trap '' TERM; while :; do sleep 0.1; done"), json!({"livenessProbe": own}))]}),
    );
    let view = killed.until("restarted", |v| status(v, "c").restart_count > 0).await;
    assert_eq!(ended(status(&view, "c").last_state.as_ref()).unwrap().0, 137);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    killed.delete(1).await;
    assert!(!status(&ready.view().unwrap(), "c").ready);
    ready.delete(1).await;
    // Nothing is asked before initialDelaySeconds have passed.
    let script = "test -e /tmp/first || date +%s > /tmp/first";
    let probe =
        json!({"exec": {"command": ["/bin/sh", "-c", script]}, "initialDelaySeconds": 3, "periodSeconds": 1});
    let late = lab.run("late", json!({"containers": [with(shell("c", &format!("date +%s > /tmp/begin; {STAY}")), json!({"readinessProbe": probe}))]}));
    late.running().await;
    let times = late.exec("c", "cat /tmp/begin /tmp/first").await;
    let times: Vec<i64> = times.lines().map(|line| line.parse().unwrap()).collect();
    assert!((2..=8).contains(&(times[1] - times[0])), "{times:?}");
    late.delete(1).await;
}
