//! The kubelet as a client of the API: node, lease, pods with what they refer to, deletion, mirror pods.
mod common;
#[path = "common/fake_api.rs"]
mod fake_api;

use common::{STAY, possible, shell, wait, with};
use fake_api::FakeApi;
use keelson_daemon::Context;
use keelson_kubelet::config::KubeletConfig;
use keelson_kubelet::{Running, start};
use keelson_testkit::containerd::Containerd;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NODE: &str = "/api/v1/nodes/n1";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

fn pods(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

fn put_pod(api: &FakeApi, name: &str, spec: Value) {
    let spec = with(spec, json!({"nodeName": "n1", "serviceAccountName": "default"}));
    api.put(
        &pods(name),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "generation": 1},
            "spec": spec, "status": {"phase": "Pending"}}),
    );
}

fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array();
    all.into_iter().flatten().find(|c| c["type"] == type_).unwrap_or(&Value::Null)
}

async fn until(api: &FakeApi, path: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
    wait(&format!("{path} to become {what}"), 40, || api.get(path).filter(|object| check(object))).await
}

async fn ready(api: &FakeApi, name: &str) -> Value {
    until(api, &pods(name), "ready", |pod| condition(pod, "Ready")["status"] == "True").await
}

async fn gone(api: &FakeApi, path: &str) {
    wait(&format!("{path} to go"), 40, || api.get(path).is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_the_api() {
    if !possible() {
        return;
    }
    let containerd = Containerd::start().unwrap();
    let api = FakeApi::new();
    let mut config = KubeletConfig::new("n1", containerd.folder().join("kubelet"));
    config.cri_socket = containerd.socket();
    config.pod_logs = containerd.folder().join("pod-logs");
    config.cgroup_root = containerd.cgroup_root.clone();
    config.node_addresses = vec!["192.0.2.7".parse().unwrap()];
    config.static_pods = Some(containerd.folder().join("static"));
    // Longer than the test: what changes must come by watches.
    config.resync = Duration::from_secs(600);
    std::fs::create_dir_all(config.static_pods.as_ref().unwrap()).unwrap();
    let (_trigger, context) = Context::for_tests();
    let running = start(Some(api.client()), config.clone(), context.clone()).await.unwrap();

    node_is_registered(&api).await;
    references(&api, &config, &running).await;
    deletion(&api, &running).await;
    force_deletion(&api, &running).await;
    a_job(&api).await;
    others_conditions_stay(&api).await;
    mirrors(&api, &config).await;
    running.stop().await;
    nothing_is_written_while_nothing_happens(&api, &config, &context).await;
}

async fn node_is_registered(api: &FakeApi) {
    let node = until(api, NODE, "ready", |node| condition(node, "Ready")["status"] == "True").await;
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    let status = &node["status"];
    assert_eq!(status["addresses"][0], json!({"type": "InternalIP", "address": "192.0.2.7"}));
    assert_eq!(condition(&node, "Ready")["reason"], "KubeletReady");
    assert_eq!(condition(&node, "MemoryPressure")["status"], "False");
    assert_eq!(status["capacity"]["pods"], "110");
    assert!(status["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap().starts_with("containerd://"));
    assert!(!status["nodeInfo"]["kernelVersion"].as_str().unwrap().is_empty());
    assert!(status["images"].as_array().unwrap().len() >= 2);
    let lease = until(api, LEASE, "there", |_| true).await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    let renewed =
        until(api, LEASE, "renewed", |l| l["spec"]["renewTime"] != lease["spec"]["renewTime"]).await;
    assert!(renewed["spec"]["renewTime"].as_str().unwrap().contains('.'), "microseconds");
}

async fn references(api: &FakeApi, config: &KubeletConfig, running: &Running) {
    let namespaced = |kind: &str, name: &str| format!("/api/v1/namespaces/default/{kind}/{name}");
    let config_map =
        |value: &str| json!({"metadata": {"name": "cm", "namespace": "default"}, "data": {"page": value}});
    api.put(
        "/api/v1/namespaces/default/services/web",
        json!({"metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.50", "ports": [{"port": 80, "protocol": "TCP"}]}}),
    );
    put_pod(
        api,
        "refs",
        json!({"enableServiceLinks": true, "volumes": [
                {"name": "cm", "configMap": {"name": "cm"}},
                {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "cm", "items": [{"key": "page", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}],
            "containers": [with(shell("c", STAY), json!({
                "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "CM_"}, {"secretRef": {"name": "none", "optional": true}}],
                "env": [{"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "password"}}},
                    {"name": "PAGE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "page"}}}],
                "volumeMounts": [{"name": "cm", "mountPath": "/cm"}, {"name": "token", "mountPath": "/token"},
                    {"name": "cm", "mountPath": "/sub/page", "subPath": "page"}]}))]}),
    );
    // Waits for what it refers to, and says so.
    until(api, &pods("refs"), "creating", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "ContainerCreating"
    })
    .await;
    wait("the event", 20, || {
        let found = api.writes().iter().any(|w| w == "POST /api/v1/namespaces/default/events");
        found.then_some(())
    })
    .await;
    api.put(&namespaced("configmaps", "cm"), config_map("old"));
    api.put(
        &namespaced("secrets", "sec"),
        json!({"metadata": {"name": "sec", "namespace": "default"}, "data": {"password": "cGFzcw=="}}),
    );
    let pod = ready(api, "refs").await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["hostIP"], "192.0.2.7");
    assert_eq!(pod["status"]["observedGeneration"], 1);
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let volume = |plugin: &str, name: &str| {
        config.root.join(format!("pods/{uid}/volumes/kubernetes.io~{plugin}/{name}"))
    };
    let read =
        |path: std::path::PathBuf| std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert_eq!(read(volume("secret", "sec").join("password")), "pass");
    assert!(read(volume("projected", "token").join("token")).starts_with("token-"));
    assert_eq!(read(volume("projected", "token").join("ca.crt")), "old");
    assert_eq!(read(volume("projected", "token").join("namespace")), "default");
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    assert!(id.starts_with("containerd://"));
    // An update arrives in the volume, and nothing restarts for it.
    api.put(&namespaced("configmaps", "cm"), config_map("new"));
    wait("the new page", 20, || (read(volume("configmap", "cm").join("page")) == "new").then_some(())).await;
    let pod = api.get(&pods("refs")).unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["containerID"], id.as_str());
    // What was mounted by subPath and what is in the environment stay as they were.
    let script = "cat /cm/page /sub/page; tr '\\0' '\\n' < /proc/1/environ | grep -E '^(PAGE|PASS|CM_page|WEB_SERVICE_HOST)=' | sort";
    let command = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let runtime_id = id.strip_prefix("containerd://").unwrap();
    let seen = running.kubelet.cri.exec_sync(runtime_id, command, Duration::from_secs(10)).await.unwrap();
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "newoldCM_page=old\nPAGE=old\nPASS=pass\nWEB_SERVICE_HOST=10.96.0.50\n"
    );
    assert_eq!(running.kubelet.objects.watches(), 2, "one for each object in volumes");
    let asked = "POST /api/v1/namespaces/default/serviceaccounts/default/token".to_owned();
    assert!(api.writes().contains(&asked), "the token is that of spec.serviceAccountName");
    let tokens = api.writes().iter().filter(|w| w.ends_with("/token")).count();
    assert_eq!(tokens, 1, "one token serves until it nears its end");
}

async fn deletion(api: &FakeApi, running: &Running) {
    let uid = api.get(&pods("refs")).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let client: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(api.client(), "default");
    client
        .delete("refs", &kube::api::DeleteParams { grace_period_seconds: Some(5), ..Default::default() })
        .await
        .unwrap();
    assert!(api.get(&pods("refs")).is_some(), "only the kubelet removes it");
    gone(api, &pods("refs")).await;
    let containers = running.kubelet.cri.list_containers(Some(&uid)).await.unwrap();
    assert!(containers.iter().all(|c| c.state != 1), "gone from the API only after its containers");
    wait("the worker to end", 20, || (!running.workers.contains(&uid)).then_some(())).await;
    assert!(running.kubelet.cri.list_sandboxes(Some(&uid)).await.unwrap().is_empty());
    assert_eq!(running.kubelet.objects.watches(), 0, "no pod refers to anything any more");
}

async fn force_deletion(api: &FakeApi, running: &Running) {
    put_pod(api, "forced", json!({"terminationGracePeriodSeconds": 2, "containers": [shell("c", STAY)]}));
    let uid = ready(api, "forced").await["metadata"]["uid"].as_str().unwrap().to_owned();
    api.remove(&pods("forced"));
    wait("the worker to end", 20, || (!running.workers.contains(&uid)).then_some(())).await;
    assert!(running.kubelet.cri.list_containers(Some(&uid)).await.unwrap().is_empty());
}

async fn a_job(api: &FakeApi) {
    put_pod(api, "job", json!({"restartPolicy": "Never", "containers": [shell("c", "exit 0")]}));
    let pod = until(api, &pods("job"), "done", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready")["reason"], "PodCompleted");
    let client: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::namespaced(api.client(), "default");
    client.delete("job", &Default::default()).await.unwrap();
    gone(api, &pods("job")).await;
}

async fn others_conditions_stay(api: &FakeApi) {
    put_pod(
        api,
        "gated",
        json!({"readinessGates": [{"conditionType": "example.org/gate"}], "containers": [shell("c", STAY)]}),
    );
    let pod = until(api, &pods("gated"), "held by its gate", |pod| {
        condition(pod, "Ready")["reason"] == "ReadinessGatesNotReady"
            && condition(pod, "ContainersReady")["status"] == "True"
    })
    .await;
    let mut opened = pod.clone();
    opened["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "example.org/gate", "status": "True"}));
    api.put(&pods("gated"), opened);
    let pod = ready(api, "gated").await;
    assert_eq!(condition(&pod, "example.org/gate")["status"], "True");
}

async fn mirrors(api: &FakeApi, config: &KubeletConfig) {
    let file = config.static_pods.as_ref().unwrap().join("web.json");
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [shell("c", STAY)]}});
    std::fs::write(&file, manifest.to_string()).unwrap();
    let mirror = ready(api, "web-n1").await;
    let annotations = &mirror["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["kind"], "Node");
    let id = mirror["status"]["containerStatuses"][0]["containerID"].clone();
    // Deleting the copy deletes nothing: it comes back, with the same container.
    api.remove(&pods("web-n1"));
    let again = ready(api, "web-n1").await;
    assert_ne!(again["metadata"]["uid"], mirror["metadata"]["uid"]);
    assert_eq!(again["status"]["containerStatuses"][0]["containerID"], id);
    std::fs::remove_file(&file).unwrap();
    gone(api, &pods("web-n1")).await;
}

/// Also a restart of the kubelet, which changes nothing.
async fn nothing_is_written_while_nothing_happens(api: &FakeApi, config: &KubeletConfig, context: &Context) {
    let before = api.get(&pods("gated")).unwrap();
    let running = start(Some(api.client()), config.clone(), context.clone()).await.unwrap();
    wait("the pod to be seen", 20, || {
        let views = running.workers.views();
        // What an earlier part left is ended first, and told.
        (views.len() == 1 && views[0].observed.running().next().is_some()).then_some(())
    })
    .await;
    let mut last = (api.writes().len(), Instant::now());
    wait("the writes about what was before", 60, || {
        if api.writes().len() != last.0 {
            last = (api.writes().len(), Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
    let (settled, asked) = (api.writes().len(), api.reads().len());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let reads = &api.reads()[asked..];
    assert!(reads.iter().all(|read| !read.contains("configmaps") && !read.contains("secrets")), "{reads:?}");
    let writes: Vec<String> =
        api.writes()[settled..].iter().filter(|w| !w.contains("/leases/")).cloned().collect();
    let unexpected: Vec<&String> =
        writes.iter().filter(|w| w.contains("/pods/") || w.contains("/events")).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}\n{:#?}", api.below("/api/v1/namespaces/default/events/"));
    assert!(writes.iter().filter(|w| w.contains("/nodes/")).count() <= 1, "{writes:?}");
    let after = api.get(&pods("gated")).unwrap();
    assert_eq!(before["status"]["containerStatuses"], after["status"]["containerStatuses"]);
    api.remove(&pods("gated"));
    wait("the last worker to end", 30, || running.workers.is_empty().then_some(())).await;
    running.stop().await;
}
