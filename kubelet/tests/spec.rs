//! Fields of a pod seen from inside its containers, on a real containerd: names and DNS, rules, resources, mounts.
mod common;

use common::*;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_a_pod() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    names_and_dns(&lab).await;
    what_the_node_cannot_give(&lab).await;
    supplemental_groups_policy(&lab).await;
    restart_rules(&lab).await;
    pod_resources(&lab).await;
    mounts(&lab).await;
    lab.finish().await;
}

async fn names_and_dns(lab: &Lab) {
    let pod = lab.run(
        "names",
        json!({"hostname": "front", "subdomain": "web", "setHostnameAsFQDN": true, "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["192.0.2.53"], "searches": ["example.org"], "options": [{"name": "ndots", "value": "2"}]},
            "hostAliases": [{"ip": "192.0.2.80", "hostnames": ["one", "two"]}],
            "containers": [shell("c", STAY)]}),
    );
    let view = pod.running().await;
    let ip = view.status.pod_ip.clone().unwrap();
    let full = "front.web.default.svc.cluster.local";
    assert_eq!(pod.exec("c", "hostname").await, full);
    let hosts = pod.exec("c", "cat /etc/hosts").await;
    assert!(hosts.contains(&format!("{ip}\t{full}\tfront")), "{hosts}");
    assert!(hosts.contains("192.0.2.80\tone\ttwo"), "{hosts}");
    let resolv = pod.exec("c", "cat /etc/resolv.conf").await;
    let lines: Vec<&str> = resolv.lines().map(str::trim).collect();
    assert_eq!(lines, ["search example.org", "nameserver 192.0.2.53", "options ndots:2"]);
    pod.delete(1).await;
    let other =
        lab.run("override", json!({"hostnameOverride": "any.name", "containers": [shell("c", STAY)]}));
    other.running().await;
    assert_eq!(other.exec("c", "hostname").await, "any.name");
    other.delete(1).await;
}

/// The pod fails with this reason and message, and nothing of it is made.
async fn refused(lab: &Lab, name: &str, spec: Value, reason: &str, message: &str) {
    let pod = lab.run(name, spec);
    let view = pod.phase("Failed").await;
    assert_eq!(view.status.reason.as_deref(), Some(reason));
    let said = view.status.message.unwrap_or_default();
    assert!(said.starts_with("Pod was rejected: ") && said.contains(message), "{said}");
    assert!(view.observed.sandboxes.is_empty());
    pod.delete(1).await;
}

async fn what_the_node_cannot_give(lab: &Lab) {
    let containers = json!([shell("c", STAY)]);
    let selector = json!({"kubernetes.io/hostname": "another-node"});
    let spec = json!({"nodeSelector": selector, "containers": containers});
    refused(lab, "elsewhere", spec, "NodeAffinity", "node affinity/selector").await;
    let spec = json!({"os": {"name": "windows"}, "containers": containers});
    refused(lab, "windows", spec, "PodOSNotSupported", "OS field").await;
    let unsafe_sysctl = json!({"sysctls": [{"name": "kernel.msgmax", "value": "65536"}]});
    let spec = json!({"securityContext": unsafe_sysctl, "containers": containers});
    refused(lab, "sysctl", spec, "SysctlForbidden", "\"kernel.msgmax\" not allowlisted").await;
    let spec = json!({"hostUsers": false, "containers": containers});
    refused(lab, "userns", spec, "UnsupportedPodField", "spec.hostUsers").await;
    if lab.kubelet().kubelet.node.security.app_armor {
        println!("SKIPPED: this kernel has AppArmor, and a pod that asks for it is not refused");
        return;
    }
    let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
    let profile = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
    let spec = json!({"securityContext": profile, "containers": containers});
    refused(lab, "armourpod", spec, "AppArmor", message).await;
    let spec = json!({"containers": [with(shell("c", STAY), json!({"securityContext": profile}))]});
    refused(lab, "armour", spec, "AppArmor", message).await;
}

/// A group that only the image's /etc/group gives is there with Merge and not with Strict.
async fn supplemental_groups_policy(lab: &Lab) {
    let spec = |policy: &str| {
        json!({"securityContext": {"runAsUser": 1234, "runAsGroup": 3000, "supplementalGroups": [4000], "supplementalGroupsPolicy": policy},
            "containers": [shell("c", STAY)]})
    };
    let merge = lab.run("merge", spec("Merge"));
    merge.running().await;
    assert_eq!(merge.exec("c", "id -G").await, "3000 4000 5000");
    merge.delete(1).await;
    if !lab.kubelet().kubelet.node.security.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        refused(lab, "strict", spec("Strict"), "SupplementalGroupsPolicyNotSupported", message).await;
        return;
    }
    let strict = lab.run("strict", spec("Strict"));
    strict.running().await;
    assert_eq!(strict.exec("c", "id -G").await, "3000 4000");
    strict.delete(1).await;
}

/// A container's own rules restart it on the exit codes they name, in a pod that restarts none.
async fn restart_rules(lab: &Lab) {
    let rules = json!({"restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
    let script = "echo -n again > /tmp/why; test -e /v/x && exit 7; touch /v/x; exit 42";
    let more =
        json!({"terminationMessagePath": "/tmp/why", "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let pod = lab.run(
        "rules",
        json!({"restartPolicy": "Never", "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [with(with(json!({"name": "own", "image": keelson_testkit::containerd::BUSYBOX,
                "command": ["/bin/sh", "-c", script]}), rules), more)]}),
    );
    let view = pod.phase("Failed").await;
    let own = status(&view, "own");
    assert_eq!(own.restart_count, 1);
    assert_eq!(ended(own.last_state.as_ref()).unwrap(), (42, "Error".into(), "again".into()));
    assert_eq!(ended(own.state.as_ref()).unwrap().0, 7);
    pod.delete(1).await;
}

/// Resources of the pod as a whole are its cgroup's, whatever its containers ask for.
async fn pod_resources(lab: &Lab) {
    let pod = lab.run(
        "podlevel",
        json!({"resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
            "containers": [shell("a", STAY), shell("b", STAY)]}),
    );
    pod.running().await;
    let limit = pod.cgroup("burstable", None, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(limit, (64 << 20).to_string());
    pod.delete(1).await;
}

/// With mountPropagation HostToContainer a mount made on the host later is seen, without it is not; Bidirectional
/// brings the container's own mounts to the host and goes with the pod.
async fn mounts(lab: &Lab) {
    let folder = lab.containerd.folder().join("shared");
    std::fs::create_dir_all(folder.join("later")).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    let path = folder.display().to_string();
    run("mount", &["--bind", &path, &path]);
    run("mount", &["--make-shared", &path]);
    let mount = |propagation: &str| json!({"volumeMounts": [{"name": "h", "mountPath": "/h", "mountPropagation": propagation}]});
    let privileged = json!({"securityContext": {"privileged": true}});
    let pod = lab.run(
        "mounts",
        json!({"volumes": [{"name": "h", "hostPath": {"path": path}}], "containers": [
            with(shell("down", STAY), mount("HostToContainer")), with(shell("none", STAY), mount("None")),
            with(with(shell("both", STAY), mount("Bidirectional")), privileged)]}),
    );
    pod.running().await;
    let later = folder.join("later").display().to_string();
    run("mount", &["-t", "tmpfs", "none", &later]);
    std::fs::write(folder.join("later/f"), "seen").unwrap();
    assert_eq!(pod.exec("down", "cat /h/later/f").await, "seen");
    assert_ne!(pod.try_exec("none", "cat /h/later/f").await.0, 0);
    run("umount", &[&later]);
    pod.exec("both", "mkdir /h/up; mount -t tmpfs none /h/up; echo here > /h/up/f").await;
    assert_eq!(std::fs::read_to_string(folder.join("up/f")).unwrap(), "here\n");
    pod.exec("both", "umount /h/up").await;
    pod.delete(1).await;
    run("umount", &[&path]);
}
