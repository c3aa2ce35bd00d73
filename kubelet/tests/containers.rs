//! What a container sees from inside, on a real containerd: security context, volumes, environment, limits, probes.
mod common;

use common::*;
use keelson_testkit::containerd;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_containers_see() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    users_and_groups(&lab).await;
    confinement(&lab).await;
    non_root(&lab).await;
    seccomp(&lab).await;
    namespaces(&lab).await;
    volumes(&lab).await;
    sub_paths(&lab).await;
    environment(&lab).await;
    limits(&lab).await;
    oom(&lab).await;
    lab.finish().await;
}

fn secure(name: &str, security: Value) -> Value {
    with(shell(name, STAY), json!({"securityContext": security}))
}

async fn users_and_groups(lab: &Lab) {
    let pod = lab.run(
        "users",
        json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000, "supplementalGroups": [4000],
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [with(secure("a", json!({})), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
                secure("b", json!({"runAsUser": 1001})),
                with(secure("c", json!({})), json!({"image": containerd::BUSYBOX_USER}))]}),
    );
    pod.running().await;
    let id = pod.exec("a", "id -u; id -g; id -G").await;
    let lines: Vec<&str> = id.lines().collect();
    assert_eq!((lines[0], lines[1]), ("1000", "3000"));
    for group in ["2000", "3000", "4000"] {
        assert!(lines[2].split(' ').any(|g| g == group), "{id}");
    }
    assert_eq!(pod.exec("b", "id -u").await, "1001");
    assert_eq!(pod.exec("c", "id -u").await, "1000", "the pod's user comes before the image's");
    assert_eq!(pod.exec("a", "touch /v/f; stat -c '%u %g %a' /v /v/f").await, "0 2000 2777\n1000 2000 644");
    assert_eq!(pod.exec("a", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await, "0");
    pod.delete(1).await;
    let image = lab.run(
        "imageuser",
        json!({"containers": [with(shell("c", STAY), json!({"image": containerd::BUSYBOX_USER}))]}),
    );
    image.running().await;
    assert_eq!(image.exec("c", "id -u").await, "1234");
    image.delete(1).await;
}

async fn confinement(lab: &Lab) {
    let pod = lab.run(
        "confined",
        json!({"containers": [
            secure("plain", json!({})),
            secure("tight", json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})),
            secure("unmasked", json!({"procMount": "Unmasked"})),
            secure("privileged", json!({"privileged": true}))]}),
    );
    pod.running().await;
    let field = async |container: &str, name: &str| {
        let line = pod.exec(container, &format!("grep {name}: /proc/1/status")).await;
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(field("tight", "NoNewPrivs").await, "1");
    assert_eq!(field("plain", "NoNewPrivs").await, "0");
    assert_eq!(u64::from_str_radix(&field("tight", "CapEff").await, 16).unwrap(), 1 << 10);
    let privileged = u64::from_str_radix(&field("privileged", "CapEff").await, 16).unwrap();
    let plain = u64::from_str_radix(&field("plain", "CapEff").await, 16).unwrap();
    assert!(privileged > plain && plain & (1 << 21) == 0, "no CAP_SYS_ADMIN without privilege");
    assert_ne!(pod.try_exec("tight", "touch /x").await.0, 0);
    assert_eq!(pod.try_exec("plain", "touch /x").await.0, 0);
    // Masked and read-only kernel folders.
    assert_eq!(pod.exec("plain", "ls /sys/firmware | wc -l").await, "0");
    assert!(std::fs::read_dir("/sys/firmware").unwrap().next().is_some(), "there is something to mask");
    assert_ne!(pod.try_exec("plain", "echo 1 > /proc/sys/kernel/panic").await.0, 0);
    // With procMount Unmasked nothing lies over /proc.
    let over_proc =
        async |container: &str| pod.exec(container, "grep -c ' /proc/' /proc/mounts || true").await;
    assert_ne!(over_proc("plain").await, "0");
    assert_eq!(over_proc("unmasked").await, "0");
    pod.delete(1).await;
}

async fn non_root(lab: &Lab) {
    let pod = lab
        .run("nonroot", json!({"securityContext": {"runAsNonRoot": true}, "containers": [shell("c", STAY)]}));
    let view = pod.until("refused", |v| waiting(v, "c") == "CreateContainerConfigError").await;
    let message = status(&view, "c").state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.contains("runAsNonRoot and image will run as root"), "{message}");
    pod.delete(1).await;
}

async fn seccomp(lab: &Lab) {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    std::fs::write(lab.config.seccomp_root.join("no-mkdir.json"), profile.to_string()).unwrap();
    let kind = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let pod = lab.run(
        "seccomp",
        json!({"containers": [
            secure("default", kind("RuntimeDefault")),
            secure("unconfined", kind("Unconfined")),
            secure("local", json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "no-mkdir.json"}}))]}),
    );
    pod.running().await;
    let mode = async |container: &str| pod.exec(container, "grep Seccomp: /proc/1/status").await;
    assert!(mode("default").await.ends_with('2'));
    assert!(mode("unconfined").await.ends_with('0'));
    assert!(mode("local").await.ends_with('2'));
    assert_ne!(pod.try_exec("local", "mkdir /tmp/d").await.0, 0);
    assert_eq!(pod.try_exec("default", "mkdir /tmp/d").await.0, 0);
    pod.delete(1).await;
    let missing = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "none.json"}});
    let open = lab.run("openseccomp", json!({"containers": [secure("c", missing)]}));
    open.until("refused", |v| waiting(v, "c") == "CreateContainerConfigError").await;
    open.delete(1).await;
}

async fn namespaces(lab: &Lab) {
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let pod = lab.run(
        "hostns",
        json!({"hostNetwork": true, "hostPID": true, "hostIPC": true, "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["alias"]}],
            "containers": [shell("c", STAY)]}),
    );
    let view = pod.running().await;
    assert_eq!(view.status.pod_ip.as_deref(), Some("192.0.2.7"));
    assert_eq!(pod.exec("c", "readlink /proc/self/ns/net").await, host.to_str().unwrap());
    let ipc = std::fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_eq!(pod.exec("c", "readlink /proc/self/ns/ipc").await, ipc.to_str().unwrap());
    let pid = std::fs::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(pod.exec("c", "readlink /proc/self/ns/pid").await, pid.to_str().unwrap());
    assert!(pod.exec("c", "cat /etc/hosts").await.contains("1.2.3.4\talias"));
    pod.delete(1).await;
    let shared = lab.run(
        "sharedpid",
        json!({"shareProcessNamespace": true, "containers": [shell("a", STAY), shell("b", &format!("echo marker >/dev/null; {STAY}"))]}),
    );
    shared.running().await;
    assert!(shared.exec("a", "ps").await.contains("marker"));
    shared.delete(1).await;
}

async fn volumes(lab: &Lab) {
    let host = lab.containerd.folder().join("host-folder");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("f"), "from the host").unwrap();
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut read_only = mount("h", "/ro");
    read_only["readOnly"] = json!(true);
    let mounts = json!({"volumeMounts": [mount("e", "/e"), mount("m", "/m"), mount("d", "/d"), mount("h", "/h"), read_only]});
    let mut pod = lab.run(
        "volumes",
        json!({"volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
                {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "cpu", "resourceFieldRef": {"containerName": "a", "resource": "limits.cpu", "divisor": "1m"}}]}},
                {"name": "h", "hostPath": {"path": host.display().to_string(), "type": "Directory"}}],
            "containers": [with(with(shell("a", STAY), mounts.clone()), json!({"resources": {"limits": {"cpu": "250m"}}})),
                with(shell("b", STAY), mounts)]}),
    );
    pod.running().await;
    assert_eq!(pod.exec("a", "stat -c %a /e; echo shared > /e/x").await, "777");
    assert_eq!(pod.exec("b", "cat /e/x").await, "shared", "one directory for all containers");
    assert!(pod.exec("a", "grep ' /m ' /proc/mounts").await.starts_with("tmpfs /m tmpfs"));
    assert_ne!(
        pod.try_exec("a", "dd if=/dev/zero of=/m/big bs=1M count=9").await.0,
        0,
        "the size limit holds"
    );
    assert_eq!(pod.exec("a", "cat /d/labels /d/cpu").await, "app=\"volumes\"250");
    assert_eq!(pod.exec("a", "cat /h/f; echo back > /h/g").await, "from the host");
    assert_eq!(std::fs::read_to_string(host.join("g")).unwrap(), "back\n");
    assert_ne!(pod.try_exec("a", "touch /ro/x").await.0, 0);
    let inode = pod.exec("a", "readlink /d/..data").await;
    pod.update(|pod| {
        pod.metadata.labels.as_mut().unwrap().insert("new".into(), "label".into());
    });
    wait("the label to arrive", 10, || {
        let path = lab.config.root.join("pods/uid-volumes/volumes/kubernetes.io~downward-api/d/labels");
        std::fs::read_to_string(path).ok().filter(|text| text.contains("new=\"label\""))
    })
    .await;
    assert!(pod.exec("a", "cat /d/labels").await.contains("new=\"label\""));
    assert_ne!(pod.exec("a", "readlink /d/..data").await, inode, "the link was swapped");
    pod.delete(1).await;
    let wrong = lab.run(
        "wrongpath",
        json!({"volumes": [{"name": "h", "hostPath": {"path": host.join("f").display().to_string(), "type": "Directory"}}],
            "containers": [with(shell("c", STAY), json!({"volumeMounts": [mount("h", "/h")]}))]}),
    );
    wrong
        .until("created and waiting", |v| {
            !v.observed.sandboxes.is_empty() && waiting(v, "c") == "ContainerCreating"
        })
        .await;
    wrong.delete(1).await;
}

async fn sub_paths(lab: &Lab) {
    let sub = |path: &str, sub: &str| json!({"name": "e", "mountPath": path, "subPath": sub});
    let pod = lab.run(
        "subpath",
        json!({"volumes": [{"name": "e", "emptyDir": {}}],
            "initContainers": [with(shell("i", "mkdir -p /e/in; echo deep > /e/in/f; ln -s /etc /e/out; ln -s ../../../.. /e/up"),
                json!({"volumeMounts": [{"name": "e", "mountPath": "/e"}]}))],
            "containers": [with(shell("good", STAY), json!({"env": [{"name": "DIR", "value": "made"}], "volumeMounts": [
                    sub("/s", "in"), sub("/file", "in/f"),
                    {"name": "e", "mountPath": "/x", "subPathExpr": "$(DIR)/by/expression"}]})),
                with(shell("out", STAY), json!({"volumeMounts": [sub("/s", "out")]})),
                with(shell("up", STAY), json!({"volumeMounts": [sub("/s", "up/etc")]}))]}),
    );
    let refused =
        |v: &keelson_kubelet::worker::PodView, c: &str| waiting(v, c) == "CreateContainerConfigError";
    let view = pod
        .until("partly running", |v| status(v, "good").ready && refused(v, "out") && refused(v, "up"))
        .await;
    let message = status(&view, "out").state.unwrap().waiting.unwrap().message.unwrap();
    assert!(message.contains("leads outside the volume"), "{message}");
    assert_eq!(pod.exec("good", "cat /s/f /file; touch /x/y").await, "deep\ndeep");
    pod.delete(1).await;
}

async fn environment(lab: &Lab) {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let pod = lab.run(
        "env",
        json!({"containers": [with(shell("c", STAY), json!({"args": ["$(A)"], "workingDir": "/tmp", "env": [
            {"name": "A", "value": "one"}, {"name": "B", "value": "$(A) and $$(A) and $(NONE)"},
            {"name": "IP", "valueFrom": field("status.podIP")}, {"name": "HOST", "valueFrom": field("status.hostIP")},
            {"name": "NODE", "valueFrom": field("spec.nodeName")}, {"name": "UID_", "valueFrom": field("metadata.uid")}]}))]}),
    );
    let view = pod.running().await;
    let env = pod.exec("c", "tr '\\0' '\\n' < /proc/1/environ").await;
    for line in [
        "B=one and $(A) and $(NONE)".to_owned(),
        format!("IP={}", view.status.pod_ip.as_deref().unwrap()),
        "HOST=192.0.2.7".into(),
        "NODE=test-node".into(),
        "UID_=uid-env".into(),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    assert_eq!(pod.exec("c", "readlink /proc/1/cwd").await, "/tmp");
    assert!(pod.exec("c", "tr '\\0' ' ' < /proc/1/cmdline").await.trim().ends_with(" one"));
    pod.delete(1).await;
}

async fn limits(lab: &Lab) {
    let pod = lab.run(
        "limits",
        json!({"containers": [with(shell("c", STAY), json!({"resources": {
            "limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}}))]}),
    );
    let view = pod.running().await;
    assert_eq!(view.status.qos_class.as_deref(), Some("Burstable"));
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let memory = (64 << 20).to_string();
    // On v2, shares of 256 become a weight of 10, and the quota stands before its period.
    let (shares, quota) = if unified { ("10", "50000 100000") } else { ("256", "50000") };
    for container in [None, Some("c")] {
        let read = |v1, v2| pod.cgroup("burstable", container, v1, v2);
        assert_eq!(read(("cpu", "cpu.shares"), "cpu.weight"), shares, "{container:?}");
        assert_eq!(read(("cpu", "cpu.cfs_quota_us"), "cpu.max"), quota, "{container:?}");
        assert_eq!(read(("memory", "memory.limit_in_bytes"), "memory.max"), memory, "{container:?}");
    }
    pod.delete(1).await;
}

async fn oom(lab: &Lab) {
    let pod = lab.run(
        "oom",
        json!({"restartPolicy": "Never", "containers": [with(
            shell("c", "head -c 200000000 /dev/zero | tail | wc -c"),
            json!({"resources": {"limits": {"memory": "16Mi"}}}))]}),
    );
    let view = pod.until("ended", |v| ended(status(v, "c").state.as_ref()).is_some()).await;
    let (code, reason, _) = ended(status(&view, "c").state.as_ref()).unwrap();
    assert!(reason == "OOMKilled" || code != 0, "{code} {reason}");
    pod.delete(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_decide() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    let quick = |probe: Value| with(probe, json!({"periodSeconds": 1, "failureThreshold": 1}));
    let exec = |script: &str| json!({"exec": {"command": ["/bin/sh", "-c", script]}});
    // Readiness by HTTP, TCP and command; liveness by a file.
    let pod = lab.run(
        "probes",
        json!({"terminationGracePeriodSeconds": 1, "containers": [
            with(shell("web", "mkdir /w; echo fine > /w/ok; httpd -p 8080 -h /w; touch /tmp/alive; while :; do sleep 0.1; done"), json!({
                "ports": [{"name": "http", "containerPort": 8080}],
                "readinessProbe": quick(json!({"httpGet": {"path": "/ok", "port": "http"}})),
                "livenessProbe": quick(exec("test -e /tmp/alive"))})),
            with(shell("tcp", "while :; do nc -l -p 9090; done"), json!({
                "readinessProbe": quick(json!({"tcpSocket": {"port": 9090}}))})),
            with(shell("never", STAY), json!({"readinessProbe": quick(exec("exit 1"))}))]}),
    );
    let view = pod.until("partly ready", |v| status(v, "web").ready && status(v, "tcp").ready).await;
    assert!(!status(&view, "never").ready);
    let ready = |view: &keelson_kubelet::worker::PodView| {
        let all = view.status.conditions.clone().unwrap();
        let found = all.iter().find(|c| c.type_ == "Ready").unwrap();
        (found.status.clone(), found.message.clone().unwrap_or_default())
    };
    assert_eq!(ready(&view), ("False".into(), "containers with unready status: [never]".into()));
    pod.exec("web", "rm /w/ok").await;
    pod.until("unready", |v| !status(v, "web").ready).await;
    pod.exec("web", "rm /tmp/alive").await;
    let view = pod
        .until("restarted", |v| status(v, "web").restart_count == 1 && status(v, "web").started == Some(true))
        .await;
    assert_eq!(
        ended(status(&view, "web").last_state.as_ref()).unwrap().0,
        137,
        "it ignores TERM and is killed"
    );
    pod.delete(1).await;
    // A startup probe gates the others, and kills when it fails for good.
    let startup = lab.run(
        "startup",
        json!({"terminationGracePeriodSeconds": 1, "containers": [with(shell("c", STAY), json!({
            "startupProbe": {"exec": {"command": ["/bin/sh", "-c", "test -e /tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1000},
            "livenessProbe": quick(exec("test -e /tmp/live"))}))]}),
    );
    startup.until("running", |v| status(v, "c").state.is_some_and(|s| s.running.is_some())).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let view = startup.view().unwrap();
    assert_eq!((status(&view, "c").started, status(&view, "c").restart_count), (Some(false), 0));
    startup.exec("c", "touch /tmp/live /tmp/up").await;
    startup.until("started", |v| status(v, "c").started == Some(true) && status(v, "c").ready).await;
    startup.delete(1).await;
    lab.finish().await;
}
