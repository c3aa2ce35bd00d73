//! What `kubectl get` shows; the rows are upstream's (`printers/internalversion/printers_test.go`).

use serde_json::{Value, json};

use keelson_api::types::columns::{Cell, human_duration};

use crate::support::{Kind, now};

/// The cells of an object as it was decoded, wide ones too.
fn cells(api_version: &str, kind: &str, object: &Value) -> Vec<Value> {
    let kind = Kind::of(api_version, kind);
    let doc = kind.decode(object);
    let columns = kind.strategy.columns;
    let cells = (columns.cells)(&doc, now());
    assert_eq!(cells.len(), columns.definitions.len(), "{object}");
    cells
        .into_iter()
        .map(|cell| match cell {
            Cell::Str(text) => json!(text),
            Cell::Int(number) => json!(number),
            Cell::Float(number) => json!(number),
            Cell::Bool(value) => json!(value),
            Cell::Null => Value::Null,
        })
        .collect()
}

/// Checks the first cells of an object.
fn row(api_version: &str, kind: &str, object: Value, expected: Value) {
    let cells = cells(api_version, kind, &object);
    let expected = expected.as_array().unwrap();
    assert_eq!(&cells[..expected.len()], &expected[..], "{object}");
}

/// Checks the cells of a pod `p`, after its name and before its age.
fn pod(spec: Value, status: Value, expected: [&str; 3]) {
    let object = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
    row("v1", "Pod", object, json!(["p", expected[0], expected[1], expected[2], "<unknown>"]));
}

fn containers(init: usize, main: usize) -> Value {
    json!({"initContainers": vec![json!({"name": ""}); init], "containers": vec![json!({"name": ""}); main]})
}

/// A container's status without its name.
fn status(ready: bool, restarts: i64, state: Value, ended: &str) -> Value {
    let last = if ended.is_empty() {
        json!({})
    } else {
        json!({"terminated": {"exitCode": 1, "finishedAt": ended}})
    };
    json!({"name": "", "image": "", "imageID": "", "ready": ready, "restartCount": restarts, "state": state, "lastState": last})
}

fn running() -> Value {
    json!({"running": {}})
}

fn waiting(reason: &str) -> Value {
    json!({"waiting": {"reason": reason}})
}

fn ended(reason: &str, code: i64) -> Value {
    json!({"terminated": {"reason": reason, "exitCode": code}})
}

const SEC_10: &str = "2025-12-31T23:59:50Z";
const SEC_20: &str = "2025-12-31T23:59:40Z";
const MIN_2: &str = "2025-12-31T23:58:00Z";
const MIN_5: &str = "2025-12-31T23:55:00Z";
const DAYS_2: &str = "2025-12-30T00:00:00Z";
const DAYS_3: &str = "2025-12-29T00:00:00Z";
const DAYS_5: &str = "2025-12-27T00:00:00Z";
const DAYS_20: &str = "2025-12-12T00:00:00Z";

#[test]
fn pods_in_every_state() {
    let list = |phase: &str, list: &[Value]| json!({"phase": phase, "containerStatuses": list});
    let up = || status(true, 3, running(), "");
    pod(
        containers(0, 2),
        list("podPhase", &[up(), status(false, 3, json!({}), "")]),
        ["1/2", "podPhase", "6"],
    );
    let wait = status(false, 3, waiting("ContainerWaitingReason"), "");
    pod(containers(0, 2), list("podPhase", &[up(), wait.clone()]), ["1/2", "ContainerWaitingReason", "6"]);
    let end = status(false, 3, ended("ContainerTerminatedReason", 0), "");
    pod(containers(0, 2), list("podPhase", &[wait, end]), ["0/2", "ContainerWaitingReason", "6"]);
    pod(
        containers(0, 2),
        list("podPhase", &[up(), status(true, 3, json!({}), "")]),
        ["1/2", "podPhase", "6"],
    );
    let mut with_reason = list("podPhase", &[up(), status(true, 3, json!({}), "")]);
    with_reason["reason"] = json!("podReason");
    pod(containers(0, 2), with_reason, ["1/2", "podReason", "6"]);
    let mut half = list("Running", &[status(true, 3, ended("Completed", 0), ""), up()]);
    pod(containers(0, 2), half.clone(), ["1/2", "NotReady", "6"]);
    half["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    pod(containers(0, 2), half, ["1/2", "Running", "6"]);
    let restarted = |n, at| status(true, n, running(), at);
    pod(containers(0, 1), list("Running", &[restarted(3, DAYS_5)]), ["1/1", "Running", "3 (5d ago)"]);
    let two = [restarted(6, DAYS_5), restarted(3, DAYS_20)];
    pod(containers(0, 2), list("Running", &two), ["2/2", "Running", "9 (5d ago)"]);
    let gated = json!({"phase": "podPhase", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]});
    pod(containers(0, 2), gated, ["0/2", "SchedulingGated", "0"]);
    let done = status(false, 0, ended("Completed", 0), "");
    pod(containers(0, 1), list("Succeeded", &[done]), ["0/1", "Completed", "0"]);
    let failed = status(false, 0, ended("Error", 1), "");
    pod(containers(0, 1), list("Failed", &[failed]), ["0/1", "Error", "0"]);
    pod(containers(0, 1), list("Failed", &[status(false, 0, ended("", 7), "")]), ["0/1", "ExitCode:7", "0"]);
    let crash = || status(false, 0, ended("podCrash", 1), "");
    pod(containers(0, 2), list("Failed", &[crash(), restarted(0, "")]), ["1/2", "podCrash", "0"]);
    pod(containers(0, 2), list("Failed", &[restarted(0, ""), crash()]), ["1/2", "podCrash", "0"]);
}

#[test]
fn pods_with_init_containers() {
    let both = |init: &[Value], main: &[Value]| json!({"phase": "podPhase", "initContainerStatuses": init, "containerStatuses": main});
    let not_yet = || status(false, 0, waiting(""), "");
    let restarting = || status(false, 3, running(), SEC_10);
    let complete = |restarts, at| status(false, restarts, ended("", 0), at);
    pod(containers(1, 1), both(&[restarting()], &[not_yet()]), ["0/1", "Init:0/1", "3 (10s ago)"]);
    pod(containers(2, 1), both(&[restarting(), not_yet()], &[not_yet()]), ["0/1", "Init:0/2", "3 (10s ago)"]);
    pod(
        containers(2, 1),
        both(&[complete(0, ""), restarting()], &[not_yet()]),
        ["0/1", "Init:1/2", "3 (10s ago)"],
    );
    pod(
        containers(2, 1),
        both(&[complete(2, MIN_2), restarting()], &[not_yet()]),
        ["0/1", "Init:1/2", "5 (10s ago)"],
    );
    let mut later = both(&[complete(2, MIN_2)], &[status(false, 4, running(), SEC_20)]);
    later["phase"] = json!("Running");
    pod(containers(1, 1), later, ["0/1", "Running", "4 (20s ago)"]);
    pod(containers(1, 1), both(&[status(false, 0, ended("Error", 2), "")], &[]), ["0/1", "Init:Error", "0"]);
    pod(containers(1, 1), both(&[status(false, 0, ended("", 2), "")], &[]), ["0/1", "Init:ExitCode:2", "0"]);
    let backoff = status(false, 0, waiting("CrashLoopBackOff"), "");
    pod(containers(1, 1), both(&[backoff], &[]), ["0/1", "Init:CrashLoopBackOff", "0"]);
}

#[test]
fn pods_with_sidecars() {
    let spec = || {
        let init = |name: &str| json!({"name": name, "restartPolicy": "Always"});
        json!({"initContainers": [init("one"), init("two")], "containers": [{"name": ""}]})
    };
    let sidecar = |name: &str, started: bool, restarts: i64, state: Value, at: &str| {
        let mut s = status(false, restarts, state, at);
        s["name"] = json!(name);
        s["started"] = json!(started);
        s
    };
    let full = |phase: &str, initialized: &str, init: [Value; 2], main: Value| {
        json!({"phase": phase, "initContainerStatuses": init, "containerStatuses": [main],
               "conditions": [{"type": "Initialized", "status": initialized}]})
    };
    let not_yet = || status(false, 0, waiting(""), "");
    let first = |started| sidecar("one", started, 3, running(), SEC_10);
    let starting = [first(false), sidecar("two", false, 0, waiting(""), "")];
    pod(spec(), full("Pending", "False", starting, not_yet()), ["0/3", "Init:0/2", "3 (10s ago)"]);
    let second = [first(true), sidecar("two", false, 0, running(), "")];
    pod(spec(), full("Pending", "False", second, not_yet()), ["0/3", "Init:1/2", "3 (10s ago)"]);
    let all = [first(true), sidecar("two", true, 0, running(), "")];
    let main = status(true, 4, running(), SEC_20);
    pod(spec(), full("Running", "True", all, main), ["1/3", "Running", "7 (10s ago)"]);
    let over = [
        sidecar("one", false, 3, ended("Error", 137), SEC_10),
        sidecar("two", false, 0, ended("Error", 137), ""),
    ];
    let main = status(false, 4, ended("Completed", 0), SEC_20);
    pod(spec(), full("Succeeded", "True", over, main), ["0/3", "Completed", "7 (10s ago)"]);
}

#[test]
fn pods_being_deleted_and_wide_cells() {
    let deleted = |phase: &str, reason: &str| {
        json!({"metadata": {"name": "p", "deletionTimestamp": SEC_10, "creationTimestamp": MIN_5},
               "spec": containers(0, 1), "status": {"phase": phase, "reason": reason}})
    };
    row("v1", "Pod", deleted("Running", ""), json!(["p", "0/1", "Terminating", "0", "5m"]));
    row("v1", "Pod", deleted("Pending", ""), json!(["p", "0/1", "Terminating", "0", "5m"]));
    row("v1", "Pod", deleted("Succeeded", ""), json!(["p", "0/1", "Succeeded", "0", "5m"]));
    row("v1", "Pod", deleted("Running", "NodeLost"), json!(["p", "0/1", "Unknown", "0", "5m"]));
    let gates = ["condition1", "condition2", "condition3"].map(|c| json!({"conditionType": c}));
    let wide = json!({"metadata": {"name": "p"},
        "spec": {"containers": [{"name": ""}], "nodeName": "node1", "readinessGates": gates},
        "status": {"phase": "Running", "podIPs": [{"ip": "1.1.1.1"}], "nominatedNodeName": "other",
                   "conditions": [{"type": "condition1", "status": "False"}, {"type": "condition2", "status": "True"}]}});
    let expected = ["p", "0/1", "Running", "0", "<unknown>", "1.1.1.1", "node1", "other", "1/3"];
    row("v1", "Pod", wide, json!(expected));
    let none = json!({"metadata": {"name": "p"}, "spec": {"containers": []}});
    row("v1", "Pod", none, json!(["p", "0/0", "", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"]));
}

#[test]
fn services() {
    let service = |spec: Value, ingress: Value| json!({"metadata": {"name": "s"}, "spec": spec, "status": {"loadBalancer": {"ingress": ingress}}});
    let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 8090, "protocol": "UDP"}, {"port": 8000, "protocol": "TCP"}]);
    let shown = "80/TCP,8090/UDP,8000/TCP";
    let balanced = |addresses: Value| {
        service(
            json!({"clusterIPs": ["1.2.3.4"], "clusterIP": "1.2.3.4", "type": "LoadBalancer", "ports": ports}),
            addresses,
        )
    };
    let expect =
        |external: &str| json!(["s", "LoadBalancer", "1.2.3.4", external, shown, "<unknown>", "<none>"]);
    row("v1", "Service", balanced(json!([])), expect("<pending>"));
    row("v1", "Service", balanced(json!([{"ip": "2.3.4.5"}])), expect("2.3.4.5"));
    let three = json!([{"ip": "2.3.4.5"}, {"ip": "3.4.5.6"}, {"ip": "5.6.7.8", "hostname": "host5678"}]);
    row("v1", "Service", balanced(three), expect("2.3.4.5,3.4.5.6,5.6.7.8"));
    let node = service(
        json!({"clusterIPs": ["1.2.3.4"], "type": "NodePort", "ports": [{"port": 8080, "nodePort": 9999, "protocol": "TCP"}],
               "selector": {"foo": "bar", "a": "b"}}),
        json!([]),
    );
    row(
        "v1",
        "Service",
        node,
        json!(["s", "NodePort", "1.2.3.4", "<none>", "8080:9999/TCP", "<unknown>", "a=b,foo=bar"]),
    );
    let name = service(json!({"type": "ExternalName", "externalName": "my.example"}), json!([]));
    row("v1", "Service", name, json!(["s", "ExternalName", "<none>", "my.example", "<none>", "<unknown>"]));
    let external = service(
        json!({"clusterIPs": ["None"], "type": "ClusterIP", "externalIPs": ["9.9.9.9", "8.8.8.8"]}),
        json!([]),
    );
    row(
        "v1",
        "Service",
        external,
        json!(["s", "ClusterIP", "None", "9.9.9.9,8.8.8.8", "<none>", "<unknown>"]),
    );
}

#[test]
fn endpoints_and_slices() {
    let meta = json!({"name": "e", "creationTimestamp": MIN_5});
    let endpoints = |subsets: Value| json!({"metadata": meta, "subsets": subsets});
    row("v1", "Endpoints", endpoints(json!([])), json!(["e", "<none>", "5m"]));
    let two = json!([{"ip": "1.2.3.4"}, {"ip": "5.6.7.8"}]);
    row("v1", "Endpoints", endpoints(json!([{"addresses": two}])), json!(["e", "1.2.3.4,5.6.7.8", "5m"]));
    let ported = json!([{"addresses": two, "ports": [{"port": 8001}]}]);
    row("v1", "Endpoints", endpoints(ported), json!(["e", "1.2.3.4:8001,5.6.7.8:8001", "5m"]));
    let four = json!([{"addresses": two, "ports": [{"port": 1}, {"port": 2, "name": "b"}]}]);
    row("v1", "Endpoints", endpoints(four), json!(["e", "1.2.3.4:1,5.6.7.8:1,1.2.3.4:2 + 1 more...", "5m"]));

    let slice = |ports: &[i64], addresses: &[&[&str]]| {
        let ports: Vec<Value> = ports.iter().map(|p| json!({"port": p, "name": format!("p{p}")})).collect();
        let list: Vec<Value> = addresses.iter().map(|a| json!({"addresses": a})).collect();
        json!({"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": list})
    };
    let slices = "discovery.k8s.io/v1";
    row(
        slices,
        "EndpointSlice",
        slice(&[80], &[&["10.1.2.3", "2001:db8::1"]]),
        json!(["e", "IPv4", "80", "10.1.2.3,2001:db8::1", "5m"]),
    );
    let many = slice(&[80, 443, 3000, 3001], &[&["10.1.2.3", "10.1.2.4"], &["10.2.3.4", "10.2.3.5"]]);
    row(
        slices,
        "EndpointSlice",
        many,
        json!(["e", "IPv4", "80,443,3000 + 1 more...", "10.1.2.3,10.1.2.4,10.2.3.4 + 1 more...", "5m"]),
    );
    row(slices, "EndpointSlice", slice(&[], &[]), json!(["e", "IPv4", "<unset>", "<unset>", "5m"]));
}

#[test]
fn nodes() {
    let node = |unschedulable: bool, conditions: Value| json!({"metadata": {"name": "n"}, "spec": {"unschedulable": unschedulable}, "status": {"conditions": conditions}});
    let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
    for (object, text) in [
        (node(false, ready("True")), "Ready"),
        (node(true, ready("True")), "Ready,SchedulingDisabled"),
        (node(false, ready("False")), "NotReady"),
        (node(true, ready("False")), "NotReady,SchedulingDisabled"),
        (node(false, json!([{"type": "InvalidValue", "status": "True"}])), "Unknown"),
        (node(true, json!([])), "Unknown,SchedulingDisabled"),
        (node(false, ready("Unknown")), "NotReady"),
    ] {
        let tail = ["<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"];
        let mut expected = vec!["n", text, "<none>", "<unknown>", ""];
        expected.extend(tail);
        row("v1", "Node", object, json!(expected));
    }
    let full = json!({
        "metadata": {"name": "n", "labels": {
            "kubernetes.io/role": "node", "node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/proxy": ""}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "1.1.1.1"}],
            "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6.1", "osImage": "Debian",
                "containerRuntimeVersion": "keelson://1", "kubeletVersion": "v1.34.0", "kubeProxyVersion": "",
                "operatingSystem": "linux", "architecture": "amd64"}}});
    let expected = [
        "n",
        "Unknown",
        "control-plane,node,proxy",
        "<unknown>",
        "v1.34.0",
        "10.0.0.1",
        "1.1.1.1",
        "Debian",
        "6.1 (amd64)",
        "keelson://1",
    ];
    row("v1", "Node", full, json!(expected));
}

#[test]
fn events() {
    let event = |times: Value| {
        let mut object = json!({"metadata": {"name": "event2", "namespace": "default"}, "reason": "Event Reason",
            "source": {"component": "kubelet", "host": "Node1"}, "message": "Message Data\n", "type": "Warning",
            "involvedObject": {"kind": "Deployment", "name": "Deployment Name", "fieldPath": "spec.containers{foo}"}});
        for (name, value) in times.as_object().unwrap() {
            object[name] = value.clone();
        }
        object
    };
    let expect = |last: &str, first: &str, count: i64| {
        json!([
            last,
            "Warning",
            "Event Reason",
            "deployment/Deployment Name",
            "spec.containers{foo}",
            "kubelet, Node1",
            "Message Data",
            first,
            count,
            "event2"
        ])
    };
    let both = json!({"firstTimestamp": DAYS_3, "lastTimestamp": DAYS_2, "count": 6});
    row("v1", "Event", event(both), expect("2d", "3d", 6));
    let micro = "2025-12-29T00:00:00.000000Z";
    row(
        "v1",
        "Event",
        event(json!({"eventTime": micro, "lastTimestamp": DAYS_3, "count": 1})),
        expect("3d", "3d", 1),
    );
    row(
        "v1",
        "Event",
        event(json!({"eventTime": micro, "firstTimestamp": DAYS_3, "count": 1})),
        expect("3d", "3d", 1),
    );
    row("v1", "Event", event(json!({"eventTime": micro, "count": 1})), expect("3d", "3d", 1));
    let series = json!({"eventTime": micro, "series": {"count": 2, "lastObservedTime": "2025-12-30T00:00:00.000000Z"}});
    row("v1", "Event", event(series), expect("2d", "3d", 2));
    row("v1", "Event", event(json!({"eventTime": micro})), expect("3d", "3d", 1));
}

#[test]
fn workloads() {
    let pods = json!({"metadata": {}, "spec": {"containers": [{"name": "c1", "image": "i1"}, {"name": "c2", "image": "i2"}]}});
    let meta = json!({"name": "w", "creationTimestamp": MIN_5});
    let selector = json!({"matchLabels": {"foo": "bar"}});
    let deployment = json!({"metadata": meta, "spec": {"replicas": 5, "template": pods, "selector": selector},
        "status": {"replicas": 10, "updatedReplicas": 2, "availableReplicas": 1, "unavailableReplicas": 4}});
    row("apps/v1", "Deployment", deployment, json!(["w", "0/5", 2, 1, "5m", "c1,c2", "i1,i2", "foo=bar"]));
    let set = json!({"metadata": meta, "spec": {"replicas": 5, "template": pods, "selector": selector},
        "status": {"replicas": 5, "readyReplicas": 2}});
    row("apps/v1", "ReplicaSet", set, json!(["w", 5, 5, 2, "5m", "c1,c2", "i1,i2", "foo=bar"]));
    let stateful = json!({"metadata": meta, "spec": {"replicas": 5, "template": pods, "selector": selector, "serviceName": ""},
        "status": {"replicas": 3, "readyReplicas": 2}});
    row("apps/v1", "StatefulSet", stateful, json!(["w", "2/5", "5m", "c1,c2", "i1,i2"]));
    let daemon = json!({"metadata": meta, "spec": {"template": pods, "selector": selector},
        "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 1, "numberReady": 1, "updatedNumberScheduled": 2,
                   "numberAvailable": 0, "numberMisscheduled": 0}});
    row(
        "apps/v1",
        "DaemonSet",
        daemon,
        json!(["w", 2, 1, 1, 2, 0, "<none>", "5m", "c1,c2", "i1,i2", "foo=bar"]),
    );
    let controller = json!({"metadata": meta, "spec": {"replicas": 5, "template": pods, "selector": {"a": "b"}},
        "status": {"replicas": 3, "readyReplicas": 1}});
    row("v1", "ReplicationController", controller, json!(["w", 5, 3, 1, "5m", "c1,c2", "i1,i2", "a=b"]));
}

#[test]
fn jobs() {
    let template = json!({"spec": {"containers": [{"name": "c1", "image": "i1"}]}});
    let job = |status: Value| {
        json!({"metadata": {"name": "j", "creationTimestamp": MIN_5}, "status": status,
               "spec": {"completions": 2, "template": template, "selector": {"matchLabels": {"a": "b"}}}})
    };
    let expect =
        |state: &str, done: &str, took: &str| json!(["j", state, done, took, "5m", "c1", "i1", "a=b"]);
    row("batch/v1", "Job", job(json!({"succeeded": 1})), expect("Running", "1/2", ""));
    for (condition, shown) in [
        ("Complete", "Complete"),
        ("Failed", "Failed"),
        ("Suspended", "Suspended"),
        ("FailureTarget", "FailureTarget"),
        ("SuccessCriteriaMet", "SuccessCriteriaMet"),
    ] {
        row(
            "batch/v1",
            "Job",
            job(json!({"conditions": [{"type": condition, "status": "True"}]})),
            expect(shown, "0/2", ""),
        );
    }
    row("batch/v1", "Job", job(json!({"startTime": MIN_2})), expect("Running", "0/2", "2m"));
    let took = json!({"startTime": MIN_5, "completionTime": MIN_2, "succeeded": 2});
    row("batch/v1", "Job", job(took), expect("Running", "2/2", "3m"));
    let parallel = json!({"metadata": {"name": "j", "deletionTimestamp": MIN_2}, "spec": {"parallelism": 3, "template": template}});
    row("batch/v1", "Job", parallel, json!(["j", "Terminating", "0/1 of 3", "", "<unknown>"]));

    let cron = |status: Value, zone: Value| {
        json!({"metadata": {"name": "c", "creationTimestamp": MIN_5}, "status": status,
               "spec": {"schedule": "0/5 * * * ?", "timeZone": zone, "suspend": false, "jobTemplate": {"spec": {
                   "template": template, "selector": {"matchLabels": {"a": "b"}}}}}})
    };
    let recent = json!({"lastScheduleTime": SEC_20});
    row(
        "batch/v1",
        "CronJob",
        cron(recent, Value::Null),
        json!(["c", "0/5 * * * ?", "<none>", "False", 0, "20s", "5m", "c1", "i1", "a=b"]),
    );
    row(
        "batch/v1",
        "CronJob",
        cron(json!({}), json!("UTC")),
        json!(["c", "0/5 * * * ?", "UTC", "False", 0, "<none>", "5m"]),
    );
}

#[test]
fn storage_and_policy() {
    let claim = |spec: Value| {
        json!({"metadata": {"name": "c"}, "spec": spec, "status": {"phase": "Bound", "accessModes": ["ReadOnlyMany"],
               "capacity": {"storage": "4Gi"}}})
    };
    let bound =
        claim(json!({"volumeName": "my-volume", "volumeMode": "Filesystem", "storageClassName": "scn"}));
    row(
        "v1",
        "PersistentVolumeClaim",
        bound,
        json!(["c", "Bound", "my-volume", "4Gi", "ROX", "scn", "<unset>", "<unknown>", "Filesystem"]),
    );
    row(
        "v1",
        "PersistentVolumeClaim",
        claim(json!({})),
        json!(["c", "Bound", "", "", "", "", "<unset>", "<unknown>", "<unset>"]),
    );
    let volume = json!({"metadata": {"name": "v"}, "status": {"phase": "Bound"}, "spec": {"capacity": {"storage": "4Gi"},
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"], "claimRef": {"namespace": "default", "name": "test"},
        "persistentVolumeReclaimPolicy": "Retain"}});
    let expected =
        ["v", "4Gi", "RWO,RWX", "Retain", "Bound", "default/test", "", "<unset>", "", "<unknown>", "<unset>"];
    row("v1", "PersistentVolume", volume, json!(expected));
    let budget = |spec: Value| {
        json!({"metadata": {"name": "b"}, "spec": spec, "status": {"disruptionsAllowed": 5,
        "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}})
    };
    row(
        "policy/v1",
        "PodDisruptionBudget",
        budget(json!({"minAvailable": 22})),
        json!(["b", "22", "N/A", 5, "<unknown>"]),
    );
    row(
        "policy/v1",
        "PodDisruptionBudget",
        budget(json!({"maxUnavailable": "11%"})),
        json!(["b", "N/A", "11%", 5, "<unknown>"]),
    );
    let quota = json!({"metadata": {"name": "q"}, "status": {
        "used": {"cpu": "1", "memory": "1Gi", "pods": "1", "limits.cpu": "2"},
        "hard": {"cpu": "100", "memory": "4Gi", "pods": "10", "limits.cpu": "200"}}});
    row(
        "v1",
        "ResourceQuota",
        quota,
        json!(["q", "cpu: 1/100, memory: 1Gi/4Gi, pods: 1/10", "limits.cpu: 2/200", "<unknown>"]),
    );
    let scaler = |metrics: Value, current: Value| {
        json!({"metadata": {"name": "h"}, "spec": {"scaleTargetRef": {"kind": "ReplicationController", "name": "rc"},
               "minReplicas": 2, "maxReplicas": 10, "metrics": metrics},
               "status": {"currentReplicas": 4, "desiredReplicas": 5, "currentMetrics": current}})
    };
    let expect = |targets: &str| json!(["h", "ReplicationController/rc", targets, "2", 10, 4, "<unknown>"]);
    let hpa = |metrics: Value, current: Value, targets: &str| {
        row("autoscaling/v2", "HorizontalPodAutoscaler", scaler(metrics, current), expect(targets));
    };
    hpa(json!([]), json!([]), "<none>");
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    hpa(cpu.clone(), json!([]), "cpu: <unknown>/80%");
    let now_50 = json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "40m"}}}]);
    hpa(cpu, now_50, "cpu: 50%/80%");
}

#[test]
fn configuration() {
    let meta = json!({"name": "x", "creationTimestamp": MIN_5});
    row(
        "v1",
        "ConfigMap",
        json!({"metadata": meta, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AA=="}}),
        json!(["x", 3, "5m"]),
    );
    row(
        "v1",
        "Secret",
        json!({"metadata": meta, "type": "kubernetes.io/tls", "data": {"a": "AA=="}}),
        json!(["x", "kubernetes.io/tls", 1, "5m"]),
    );
    row("v1", "ServiceAccount", json!({"metadata": meta}), json!(["x", "5m"]));
    row(
        "v1",
        "Namespace",
        json!({"metadata": meta, "status": {"phase": "Active"}}),
        json!(["x", "Active", "5m"]),
    );
    let lease = json!({"metadata": meta, "spec": {"holderIdentity": "holder"}});
    row("coordination.k8s.io/v1", "Lease", lease, json!(["x", "holder", "5m"]));
    let class = json!({"metadata": meta, "value": 100, "globalDefault": true, "preemptionPolicy": "Never"});
    row("scheduling.k8s.io/v1", "PriorityClass", class, json!(["x", 100, true, "5m", "Never"]));
    let ingress = json!({"metadata": meta, "spec": {"ingressClassName": "foo", "defaultBackend": {"service": {"name": "d"}},
        "tls": [{"hosts": ["a"]}], "rules": [{"host": "a.example"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "2.3.4.5"}]}}});
    row(
        "networking.k8s.io/v1",
        "Ingress",
        ingress,
        json!(["x", "foo", "a.example", "2.3.4.5", "80, 443", "5m"]),
    );
    let binding = json!({"metadata": meta, "roleRef": {"apiGroup": "", "kind": "Role", "name": "r"}, "subjects": [
        {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "ServiceAccount", "namespace": "ns", "name": "sa"}]});
    row(
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        binding,
        json!(["x", "Role/r", "5m", "u", "g", "ns/sa"]),
    );
    row(
        "rbac.authorization.k8s.io/v1",
        "Role",
        json!({"metadata": meta}),
        json!(["x", "2025-12-31T23:55:00Z"]),
    );
    let request = json!({"metadata": meta, "spec": {"username": "CSR Requestor", "signerName": "example.com/test-signer",
        "expirationSeconds": 608400, "request": ""}, "status": {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "YQ=="}});
    let expected = ["x", "5m", "example.com/test-signer", "CSR Requestor", "7d1h", "Approved,Issued"];
    row("certificates.k8s.io/v1", "CertificateSigningRequest", request, json!(expected));
}

#[test]
fn durations_read_as_upstreams() {
    let (minute, hour, day) = (60, 3600, 86400);
    for (seconds, text) in [
        (-1, "0s"),
        (-10, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (2 * minute + 1, "2m1s"),
        (10 * minute, "10m"),
        (3 * hour - 1, "179m"),
        (3 * hour, "3h"),
        (3 * hour + 30 * minute, "3h30m"),
        (8 * hour, "8h"),
        (47 * hour, "47h"),
        (2 * day, "2d"),
        (2 * day + 5 * hour, "2d5h"),
        (8 * day, "8d"),
        (729 * day, "729d"),
        (2 * 365 * day, "2y"),
        (2 * 365 * day + 3 * day, "2y3d"),
        (8 * 365 * day, "8y"),
    ] {
        assert_eq!(human_duration(seconds), text, "{seconds}");
    }
}

#[test]
fn drivers_policies_and_flows() {
    let meta = json!({"name": "x", "creationTimestamp": MIN_5});
    let driver = json!({"metadata": meta, "spec": {"podInfoOnMount": true, "tokenRequests": [{"audience": "a"}, {"audience": "b"}],
        "volumeLifecycleModes": ["Persistent", "Ephemeral"]}});
    let expected = json!(["x", true, true, false, "a,b", false, "Persistent,Ephemeral", "5m"]);
    row("storage.k8s.io/v1", "CSIDriver", driver, expected);
    let empty = json!({"metadata": meta, "spec": {"attachRequired": false}});
    row(
        "storage.k8s.io/v1",
        "CSIDriver",
        empty,
        json!(["x", false, false, false, "<unset>", false, "<none>", "5m"]),
    );
    let attachment = json!({"metadata": meta, "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}});
    row("storage.k8s.io/v1", "VolumeAttachment", attachment, json!(["x", "a", "pv", "n", false, "5m"]));
    let claim = |status: Value| json!({"metadata": meta, "spec": {}, "status": status});
    row("resource.k8s.io/v1", "ResourceClaim", claim(json!({})), json!(["x", "pending", "5m"]));
    let reserved = json!({"allocation": {}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]});
    row("resource.k8s.io/v1", "ResourceClaim", claim(reserved), json!(["x", "allocated,reserved", "5m"]));
    let flow = json!({"metadata": meta, "spec": {"priorityLevelConfiguration": {"name": "pl"}, "matchingPrecedence": 9,
        "distinguisherMethod": {"type": "ByUser"}}, "status": {"conditions": [{"type": "Dangling", "status": "False"}]}});
    row(
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
        flow,
        json!(["x", "pl", 9, "ByUser", "5m", "False"]),
    );
    let level = json!({"metadata": meta, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
        "limitResponse": {"type": "Reject"}}}});
    let expected = json!(["x", "Limited", 5, "<none>", "<none>", "<none>", "5m"]);
    row("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", level, expected);
    let policy = json!({"metadata": meta, "spec": {"validations": [{"expression": "true"}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
    row(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        policy,
        json!(["x", 1, "v1/ConfigMap", "5m"]),
    );
    let binding =
        json!({"metadata": meta, "spec": {"policyName": "p", "paramRef": {"name": "c", "namespace": "n"}}});
    row(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        binding,
        json!(["x", "p", "n/c", "5m"]),
    );
}
