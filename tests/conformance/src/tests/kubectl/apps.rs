//! Tests with controllers, services and more than one pod.

use crate::api::{ENDPOINT_SLICES, NODES, PODS, SERVICES, encode, name};
use crate::env::{AGENT, Env, NAUTILUS, POD_START, found};
use crate::tests::discovery::items;
use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const TWO: Duration = Duration::from_secs(2);
const FIVE: Duration = Duration::from_secs(5);

/// `cleanupKubectlInputs` after the test: deletes at once with kubectl, then nothing with the labels may be left.
pub fn clean_up(env: &Env, input: &str, selectors: &[&str]) {
    let (env, input) = (env.clone(), input.to_owned());
    let selectors: Vec<String> = selectors.iter().map(|selector| (*selector).to_owned()).collect();
    env.clone().afterwards(async move {
        let (kubectl, ns) = (env.kubectl(), env.ns());
        kubectl.input(ns, &["delete", "--grace-period=0", "--force", "-f", "-"], &input).await?;
        for selector in &selectors {
            env.wait("what was deleted to be gone", Duration::from_millis(500), Duration::from_secs(60), async || {
                let left = kubectl.ok(ns, &["get", "rc,svc", "-l", selector, "--no-headers"]).await?;
                const ALIVE: &str = "go-template={{ range .items }}{{ if not .metadata.deletionTimestamp }}{{ .metadata.name }}{{ \"\\n\" }}{{ end }}{{ end }}";
                let pods = kubectl.ok(ns, &["get", "pods", "-l", selector, "-o", ALIVE]).await?;
                Ok((left.is_empty() && pods.is_empty()).then_some(()))
            })
            .await?;
        }
        Ok(())
    });
}

/// `LookForStringInLog`.
pub async fn look_in_log(env: &Env, pod: &str, container: &str, text: &str) -> Result<()> {
    env.wait(&format!("{text:?} in the log of {pod}"), TWO, POD_START, async || {
        let said = env.kubectl().ok(env.ns(), &["logs", pod, container]).await?;
        Ok(said.contains(text).then_some(()))
    })
    .await
}

/// The file agnhost-primary-controller.json.in.
fn primary() -> String {
    let labels = json!({ "app": "agnhost", "role": "primary" });
    let container = json!({
        "name": "agnhost-primary",
        "image": AGENT,
        "ports": [{ "name": "agnhost-server", "containerPort": 6379 }],
    });
    json!({
        "kind": "ReplicationController",
        "apiVersion": "v1",
        "metadata": { "name": "agnhost-primary", "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": labels,
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    })
    .to_string()
}

/// The running pods with the label app=agnhost, at least one (`waitForOrFailWithDebug` and `forEachPod`).
async fn running(env: &Env) -> Result<Vec<Value>> {
    let pods = env.of(&PODS);
    env.wait("a running pod", TWO, POD_START, async || {
        let mut list = pods.list(&[("labelSelector", "app=agnhost")]).await?.items;
        list.retain(|pod| pod["status"]["phase"] == "Running");
        Ok((!list.is_empty()).then_some(list))
    })
    .await
}

/// `checkOutput`: each row's first text stands on a line at or after the last row's; the others on the same line.
fn check_lines(output: &str, rows: &[Vec<&str>]) -> Result<()> {
    let lines: Vec<&str> = output.lines().collect();
    let mut at = 0;
    for row in rows {
        let Some((first, others)) = row.split_first() else { continue };
        let holds = |line: &&str| line.contains(first);
        at += lines[at..]
            .iter()
            .position(holds)
            .with_context(|| format!("failed to find {first:?} in {output}"))?;
        for other in others {
            ensure!(lines[at].contains(other), "failed to find {other:?} in {:?}", lines[at]);
        }
    }
    Ok(())
}

// kubectl.go: "should check if kubectl describe prints relevant information for rc and pods"
pub async fn describe(env: Env) -> Result<()> {
    let (kubectl, ns) = (env.kubectl(), env.ns());
    let service = json!({
        "kind": "Service",
        "apiVersion": "v1",
        "metadata": { "name": "agnhost-primary", "labels": { "app": "agnhost", "role": "primary" } },
        "spec": {
            "ports": [{ "port": 6379, "targetPort": "agnhost-server" }],
            "selector": { "app": "agnhost", "role": "primary" },
        },
    });
    kubectl.input(ns, &["create", "-f", "-"], &primary()).await?;
    kubectl.input(ns, &["create", "-f", "-"], &service.to_string()).await?;
    env.step("Waiting for Agnhost primary to start.");
    for pod in running(&env).await? {
        let said = kubectl.ok(ns, &["describe", "pod", name(&pod)]).await?;
        let rows = [
            vec!["Name:", "agnhost-primary-"],
            vec!["Namespace:", ns],
            vec!["Node:"],
            vec!["Labels:", "app=agnhost"],
            vec!["role=primary"],
            vec!["Annotations:"],
            vec!["Status:", "Running"],
            vec!["IP:"],
            vec!["Controlled By:", "ReplicationController/agnhost-primary"],
            vec!["Image:", AGENT],
            vec!["State:", "Running"],
            vec!["QoS Class:", "BestEffort"],
        ];
        check_lines(&said, &rows)?;
    }
    describe_controller(&env).await?;
    let said = kubectl.ok(ns, &["describe", "service", "agnhost-primary"]).await?;
    let rows = [
        vec!["Name:", "agnhost-primary"],
        vec!["Namespace:", ns],
        vec!["Labels:", "app=agnhost"],
        vec!["role=primary"],
        vec!["Annotations:"],
        vec!["Selector:", "app=agnhost", "role=primary"],
        vec!["Type:", "ClusterIP"],
        vec!["IP:"],
        vec!["Port:", "<unset>", "6379/TCP"],
        vec!["Endpoints:"],
        vec!["Session Affinity:", "None"],
    ];
    check_lines(&said, &rows)?;
    let nodes = env.api().of(&NODES).list(&[("fieldSelector", "spec.unschedulable=false")]).await?.items;
    let node = name(nodes.first().context("no node can be scheduled on")?);
    let said = kubectl.ok(ns, &["describe", "node", node]).await?;
    let rows = [
        vec!["Name:", node],
        vec!["Labels:"],
        vec!["Annotations:"],
        vec!["CreationTimestamp:"],
        vec!["Conditions:"],
        vec!["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"],
        vec!["Addresses:"],
        vec!["Capacity:"],
        vec!["Version:"],
        vec!["Kernel Version:"],
        vec!["OS Image:"],
        vec!["Container Runtime Version:"],
        vec!["Kubelet Version:"],
        vec!["Pods:"],
    ];
    check_lines(&said, &rows)?;
    let said = kubectl.ok(ns, &["describe", "namespace", ns]).await?;
    check_lines(&said, &[vec!["Name:", ns], vec!["Labels:"], vec!["Annotations:"], vec!["Status:", "Active"]])
}

async fn describe_controller(env: &Env) -> Result<()> {
    let ns = env.ns();
    let rows = [
        vec!["Name:", "agnhost-primary"],
        vec!["Namespace:", ns],
        vec!["Selector:", "app=agnhost,role=primary"],
        vec!["Labels:", "app=agnhost"],
        vec!["role=primary"],
        vec!["Annotations:"],
        vec!["Replicas:", "1 current", "1 desired"],
        vec!["Pods Status:", "1 Running", "0 Waiting", "0 Succeeded", "0 Failed"],
        vec!["Pod Template:"],
        vec!["Image:", AGENT],
        vec!["Events:"],
    ];
    let mut last = None;
    let waited = env
        .wait("the description of the rc", Duration::from_secs(1), Duration::from_secs(60), async || {
            let said = env.kubectl().ok(ns, &["describe", "rc", "agnhost-primary"]).await?;
            last = check_lines(&said, &rows).err();
            Ok(last.is_none().then_some(()))
        })
        .await;
    waited.map_err(|error| last.unwrap_or(error))
}

/// `validateService`: one endpoint at the target port, one service port.
async fn check_service(env: &Env, service: &str, port: i64, target: i64) -> Result<()> {
    let services = env.of(&SERVICES);
    env.wait("the service", TWO, Duration::from_secs(180), async || found(services.get(service).await))
        .await?;
    let (slices, selector) = (env.of(&ENDPOINT_SLICES), format!("kubernetes.io/service-name={service}"));
    let ports = env
        .wait("an endpoint", TWO, Duration::from_secs(180), async || {
            let mut ports: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for slice in slices.list(&[("labelSelector", &selector)]).await?.items {
                for endpoint in items(&slice["endpoints"]) {
                    let uid = endpoint["targetRef"]["uid"].as_str().unwrap_or_default().to_owned();
                    let numbers = items(&slice["ports"]).iter().filter_map(|port| port["port"].as_i64());
                    ports.entry(uid).or_default().extend(numbers);
                }
            }
            Ok((!ports.is_empty()).then_some(ports))
        })
        .await?;
    ensure!(ports.len() == 1, "Too many endpoints found: {ports:?}");
    ensure!(ports.values().all(|ports| ports.first() == Some(&target)), "Wrong endpoint port: {ports:?}");
    let found = services.get(service).await?;
    let [only] = items(&found["spec"]["ports"]) else { bail!("1 port is expected: {}", found["spec"]) };
    ensure!(only["port"] == port && only["targetPort"] == target, "Wrong service port: {only}");
    Ok(())
}

// kubectl.go: "should create services for rc"
pub async fn expose(env: Env) -> Result<()> {
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step("creating Agnhost RC");
    kubectl.input(ns, &["create", "-f", "-"], &primary()).await?;
    env.step("Waiting for Agnhost primary to start.");
    for pod in running(&env).await? {
        look_in_log(&env, name(&pod), "agnhost-primary", "Paused").await?;
    }
    env.step("exposing RC");
    let target = "--target-port=6379";
    kubectl.ok(ns, &["expose", "rc", "agnhost-primary", "--name=rm2", "--port=1234", target]).await?;
    check_service(&env, "rm2", 1234, 6379).await?;
    env.step("exposing service");
    kubectl.ok(ns, &["expose", "service", "rm2", "--name=rm3", "--port=2345", target]).await?;
    check_service(&env, "rm3", 2345, 6379).await
}

// kubectl.go: "should add annotations for pods in rc"
pub async fn patch(env: Env) -> Result<()> {
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step("creating Agnhost RC");
    kubectl.input(ns, &["create", "-f", "-"], &primary()).await?;
    env.step("Waiting for Agnhost primary to start, patching all pods");
    for pod in running(&env).await? {
        let patch = r#"{"metadata":{"annotations":{"x":"y"}}}"#;
        kubectl.ok(ns, &["patch", "pod", name(&pod), "-p", patch]).await?;
    }
    env.step("checking annotations");
    for pod in running(&env).await? {
        ensure!(
            pod["metadata"]["annotations"]["x"] == "y",
            "Added annotation not found: {}",
            pod["metadata"]
        );
    }
    Ok(())
}

/// The file nautilus-rc.yaml.in; the agent serves what upstream's image does.
fn nautilus() -> String {
    let labels = json!({ "name": "update-demo", "version": "nautilus" });
    let container = json!({
        "image": NAUTILUS,
        "args": ["serve", "80", "/data.json", "{\n  \"image\": \"nautilus.jpg\"\n}\n"],
        "name": "update-demo",
        "ports": [{ "containerPort": 80, "protocol": "TCP" }],
    });
    json!({
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": { "name": "update-demo-nautilus" },
        "spec": {
            "replicas": 2,
            "selector": labels,
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    })
    .to_string()
}

/// `validateController`: that many pods run the image and serve the picture's name through the API server's proxy.
async fn validate(env: &Env, replicas: usize) -> Result<()> {
    const NAMES: &str = "--template={{range.items}}{{.metadata.name}} {{end}}";
    const STATE: &str = r#"--template={{if (exists . "status" "containerStatuses")}}{{range .status.containerStatuses}}{{if (and (eq .name "update-demo") (exists . "state" "running"))}}true{{end}}{{end}}{{end}}"#;
    const IMAGE: &str = r#"--template={{if (exists . "spec" "containers")}}{{range .spec.containers}}{{if eq .name "update-demo"}}{{.image}}{{end}}{{end}}{{end}}"#;
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step("waiting for all containers in name=update-demo pods to come up.");
    env.wait(&format!("{replicas} pods that serve the picture"), FIVE, POD_START, async || {
        let said =
            kubectl.ok(ns, &["get", "pods", "-o", "template", NAMES, "-l", "name=update-demo"]).await?;
        let pods: Vec<&str> = said.split_whitespace().collect();
        if pods.len() != replicas {
            return Ok(None);
        }
        for pod in pods {
            let get =
                async |template| kubectl.ok(ns, &["get", "pods", pod, "-o", "template", template]).await;
            if get(STATE).await? != "true" || get(IMAGE).await? != NAUTILUS {
                return Ok(None);
            }
            let path = format!("/api/v1/namespaces/{ns}/pods/{pod}/proxy/data.json");
            let answer = env.api().send(Method::GET, &path, &[], "").await?;
            let picture = answer.json().is_ok_and(|data| data["image"] == "nautilus.jpg");
            if !answer.code.is_success() || !picture {
                env.step(format!("{path}: {} {}", answer.code, answer.text()));
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .await
}

// kubectl.go: "should create and stop a replication controller"
pub async fn create_and_stop(env: Env) -> Result<()> {
    clean_up(&env, &nautilus(), &["name=update-demo"]);
    env.step("creating a replication controller");
    env.kubectl().input(env.ns(), &["create", "-f", "-"], &nautilus()).await?;
    validate(&env, 2).await
}

// kubectl.go: "should scale a replication controller"
pub async fn scale(env: Env) -> Result<()> {
    clean_up(&env, &nautilus(), &["name=update-demo"]);
    env.step("creating a replication controller");
    env.kubectl().input(env.ns(), &["create", "-f", "-"], &nautilus()).await?;
    validate(&env, 2).await?;
    for replicas in [1, 2] {
        env.step(format!("scaling the replication controller to {replicas}"));
        let flag = format!("--replicas={replicas}");
        let words = ["scale", "rc", "update-demo-nautilus", &flag, "--timeout=5m"];
        env.kubectl().ok(env.ns(), &words).await?;
        validate(&env, replicas).await?;
    }
    Ok(())
}

/// The six files of testing-manifests/guestbook, in upstream's order.
fn guestbook_parts() -> Vec<String> {
    let service = |name: &str, port: u16, labels: &Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": name, "labels": labels },
            "spec": { "ports": [{ "port": port }], "selector": labels },
        })
    };
    let deployment =
        |name: &str, replicas: u32, labels: &Value, container: &str, args: &[&str], port: u16| {
            let container = json!({
                "name": container,
                "image": AGENT,
                "args": args,
                "resources": { "requests": { "cpu": "100m", "memory": "100Mi" } },
                "ports": [{ "containerPort": port }],
            });
            json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": { "name": name },
                "spec": {
                    "replicas": replicas,
                    "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
                },
            })
        };
    let backend = |role: &str| json!({ "app": "agnhost", "role": role, "tier": "backend" });
    let frontend = json!({ "app": "guestbook", "tier": "frontend" });
    let replica_args = ["guestbook", "--replicaof", "agnhost-primary", "--http-port", "6379"];
    [
        service("agnhost-replica", 6379, &backend("replica")),
        service("agnhost-primary", 6379, &backend("primary")),
        service("frontend", 80, &frontend),
        deployment(
            "frontend",
            3,
            &frontend,
            "guestbook-frontend",
            &["guestbook", "--backend-port", "6379"],
            80,
        ),
        deployment(
            "agnhost-primary",
            1,
            &backend("primary"),
            "primary",
            &["guestbook", "--http-port", "6379"],
            6379,
        ),
        deployment("agnhost-replica", 2, &backend("replica"), "replica", &replica_args, 6379),
    ]
    .iter()
    .map(Value::to_string)
    .collect()
}

/// Asks the guestbook through the API server's proxy of the service until it answers as expected.
async fn ask_guestbook(
    env: &Env,
    command: &str,
    value: &str,
    expected: &str,
    within: Duration,
) -> Result<()> {
    let query = encode(&[("cmd", command), ("key", "messages"), ("value", value)]);
    let path = format!("/api/v1/namespaces/{}/services/frontend/proxy/guestbook{query}", env.ns());
    let mut last = String::new();
    let waited = env
        .wait(&format!("{expected} from the guestbook"), FIVE, within, async || {
            let answer = env.api().send(Method::GET, &path, &[], "").await?;
            last = format!("{}: {}", answer.code, answer.text());
            Ok((answer.code.is_success() && answer.text() == expected).then_some(()))
        })
        .await;
    waited.context(last)
}

// kubectl.go: "should create and stop a working application"
pub async fn guestbook(env: Env) -> Result<()> {
    for part in guestbook_parts() {
        clean_up(&env, &part, &[]);
    }
    env.step("creating all guestbook components");
    for part in guestbook_parts() {
        env.kubectl().input(env.ns(), &["create", "-f", "-"], &part).await?;
    }
    env.step("Waiting for all frontend pods to be Running.");
    let pods = env.of(&PODS);
    env.wait("the frontend's pods", TWO, POD_START, async || {
        let list = pods.list(&[("labelSelector", "tier=frontend,app=guestbook")]).await?.items;
        let running = list.len() == 3 && list.iter().all(|pod| pod["status"]["phase"] == "Running");
        Ok(running.then_some(()))
    })
    .await?;
    env.step("Waiting for frontend to serve content.");
    ask_guestbook(&env, "get", "", r#"{"data":""}"#, Duration::from_secs(600)).await?;
    env.step("Trying to add a new entry to the guestbook.");
    ask_guestbook(&env, "set", "TestEntry", r#"{"message":"Updated"}"#, Duration::from_secs(180)).await?;
    env.step("Verifying that added entry can be retrieved.");
    ask_guestbook(&env, "get", "", r#"{"data":"TestEntry"}"#, Duration::from_secs(180)).await
}
