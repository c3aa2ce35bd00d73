//! Images from a registry: one on loopback that asks for a password, in fifty lines of its own.
mod common;
#[path = "common/fake_api.rs"]
mod fake_api;

use base64::Engine as _;
use bytes::Bytes;
use common::{STAY, possible, wait};
use fake_api::FakeApi;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_daemon::Context;
use keelson_kubelet::config::KubeletConfig;
use keelson_kubelet::start;
use keelson_testkit::containerd::{self, Containerd, Image, MANIFEST, digest};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Clone)]
struct Registry {
    blobs: Arc<HashMap<String, Vec<u8>>>,
    manifest: Arc<Vec<u8>>,
    authorization: String,
    manifests_served: Arc<AtomicUsize>,
}

impl Registry {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let builder = Response::builder();
        let given = request.headers().get("authorization").and_then(|v| v.to_str().ok());
        if given != Some(self.authorization.as_str()) {
            let challenge =
                builder.status(StatusCode::UNAUTHORIZED).header("www-authenticate", "Basic realm=\"test\"");
            return challenge.body(Full::default()).unwrap();
        }
        let path = request.uri().path();
        let last = path.rsplit('/').next().unwrap_or("");
        let (kind, data) = if path == "/v2/" {
            ("application/json", b"{}".to_vec())
        } else if path.contains("/manifests/") {
            self.manifests_served.fetch_add(1, Ordering::Relaxed);
            (MANIFEST, self.manifest.to_vec())
        } else if let Some(data) = self.blobs.get(last) {
            ("application/octet-stream", data.clone())
        } else {
            return builder.status(StatusCode::NOT_FOUND).body(Full::default()).unwrap();
        };
        let builder = builder
            .header("content-type", kind)
            .header("content-length", data.len())
            .header("docker-content-digest", digest(&data));
        let body = if request.method() == Method::HEAD { Bytes::new() } else { Bytes::from(data) };
        builder.body(Full::new(body)).unwrap()
    }

    async fn serve(self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let registry = self.clone();
                let service = hyper::service::service_fn(move |request| {
                    let answer = registry.answer(&request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        port
    }
}

fn put_pod(api: &FakeApi, name: &str, image: &str, more: Value) {
    let spec = json!({"nodeName": "n1", "terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": image, "imagePullPolicy": "Always", "command": ["/bin/sh", "-c", STAY]}]});
    api.put(
        &format!("/api/v1/namespaces/default/pods/{name}"),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": common::with(spec, more)}),
    );
}

async fn until(api: &FakeApi, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/api/v1/namespaces/default/pods/{name}");
    wait(&format!("{name} to be {what}"), 40, || {
        api.get(&path).map(|pod| pod["status"]["containerStatuses"][0].clone()).filter(|c| check(c))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_with_the_pods_credentials() {
    if !possible() {
        return;
    }
    let busybox = std::fs::read(containerd::busybox().unwrap()).unwrap();
    let [layer, config_blob, manifest] = Image::busybox("registry", &busybox).blobs().unwrap();
    let blobs =
        [layer, config_blob, manifest.clone()].into_iter().map(|data| (digest(&data), data)).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode("user:secret");
    let registry = Registry {
        blobs: Arc::new(blobs),
        manifest: Arc::new(manifest.clone()),
        authorization: format!("Basic {encoded}"),
        manifests_served: Arc::default(),
    };
    let served = registry.manifests_served.clone();
    let port = registry.serve().await;
    let containerd = Containerd::start().unwrap();
    let api = FakeApi::new();
    let config_json = json!({"auths": {format!("127.0.0.1:{port}"): {"auth": encoded}}}).to_string();
    api.put(
        "/api/v1/namespaces/default/secrets/pull",
        json!({"metadata": {"name": "pull", "namespace": "default"}, "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64::engine::general_purpose::STANDARD.encode(config_json)}}),
    );
    let mut config = KubeletConfig::new("n1", containerd.folder().join("kubelet"));
    config.cri_socket = containerd.socket();
    config.pod_logs = containerd.folder().join("pod-logs");
    config.cgroup_root = containerd.cgroup_root.clone();
    let (_trigger, context) = Context::for_tests();
    let running = start(Some(api.client()), config, context).await.unwrap();

    let image = format!("127.0.0.1:{port}/team/app:1");
    put_pod(&api, "without", &image, json!({}));
    let refused =
        until(&api, "without", "refused", |c| c["state"]["waiting"]["reason"] == "ErrImagePull").await;
    let message = refused["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.contains("401") || message.contains("nauthorized") || message.contains("authorization"),
        "{message}"
    );
    let secret = json!({"imagePullSecrets": [{"name": "pull"}]});
    put_pod(&api, "with", &image, secret.clone());
    let status = until(&api, "with", "ready", |c| c["ready"] == true).await;
    assert_eq!(status["image"], image.as_str());
    assert!(status["imageID"].as_str().unwrap().ends_with(&digest(&manifest)), "{status}");
    let before = served.load(Ordering::Relaxed);
    assert!(before >= 1);
    // Always means always: another pod asks the registry again, with credentials of its own.
    put_pod(&api, "again", &image, secret);
    until(&api, "again", "ready", |c| c["ready"] == true).await;
    assert!(served.load(Ordering::Relaxed) > before);
    for name in ["without", "with", "again"] {
        api.remove(&format!("/api/v1/namespaces/default/pods/{name}"));
    }
    wait("the workers to end", 30, || running.workers.is_empty().then_some(())).await;
    running.stop().await;
}
