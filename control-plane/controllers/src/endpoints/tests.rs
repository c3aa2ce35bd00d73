//! Endpoints and slices as tables; facts from upstream's endpointslice `reconciler_test.go` and `utils_test.go` and
//! `endpoints_controller_test.go`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::projections::PodView;
use serde_json::{Value, json};

use super::slices::{Ownership, SlicePlan, plan};
use super::{desired, legacy, mirror};

fn service(spec: Value) -> Service {
    let mut json = json!({"metadata": {"namespace": "ns", "name": "svc", "uid": "s", "labels": {"a": "b"}},
        "spec": {"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}});
    for (key, value) in spec.as_object().unwrap() {
        json["spec"][key] = value.clone();
    }
    serde_json::from_value(json).unwrap()
}

fn pod(name: &str, ready: bool, change: Value) -> Arc<PodView> {
    let mut json = json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.244.0.{}", name.len())}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
    for (key, value) in change.as_object().unwrap() {
        for (k, v) in value.as_object().unwrap() {
            json[key][k] = v.clone();
        }
    }
    Arc::new(PodView::new(&serde_json::from_value(json).unwrap()))
}

fn ownership(service: &Service, most: usize) -> Ownership {
    Ownership {
        namespace: "ns".to_owned(),
        name: "svc".to_owned(),
        owner: OwnerReference { uid: "s".to_owned(), ..OwnerReference::default() },
        labels: desired::slice_labels(service, "endpointslice-controller.k8s.io"),
        annotations: Default::default(),
        most,
    }
}

fn slices(service: &Service, pods: &[Arc<PodView>], existing: Vec<EndpointSlice>, most: usize) -> SlicePlan {
    plan(&ownership(service, most), desired::of_service(service, pods, |_| Some("z1".to_owned())), existing)
}

/// As the server would return it.
fn stored(mut slice: EndpointSlice, name: &str) -> EndpointSlice {
    slice.metadata.name = Some(name.to_owned());
    slice.metadata.resource_version = Some("1".to_owned());
    slice
}

#[test]
fn a_slice_shows_pods_with_their_conditions() {
    let service = service(json!({}));
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pods = [
        pod("a", true, json!({})),
        pod("bb", false, json!({"spec": {"hostname": "h", "subdomain": "svc"}})),
        pod("ccc", true, deleted),
        pod("dddd", true, json!({"status": {"phase": "Succeeded"}})),
        pod("eeeee", true, json!({"status": {"podIPs": []}})),
    ];
    let plan = slices(&service, &pods, vec![], 100);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (1, 0, 0));
    let json = serde_json::to_value(&plan.create[0]).unwrap();
    assert_eq!(json["addressType"], "IPv4");
    assert_eq!(json["metadata"]["generateName"], "svc-");
    assert_eq!(
        json["metadata"]["labels"],
        json!({"a": "b", "kubernetes.io/service-name": "svc", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(json["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    let conditions: Vec<&Value> =
        json["endpoints"].as_array().unwrap().iter().map(|e| &e["conditions"]).collect();
    assert_eq!(
        conditions,
        [
            &json!({"ready": true, "serving": true, "terminating": false}),
            &json!({"ready": false, "serving": false, "terminating": false}),
            &json!({"ready": false, "serving": true, "terminating": true}),
        ]
    );
    let first = &json["endpoints"][0];
    assert_eq!(
        (&first["nodeName"], &first["zone"], &first["targetRef"]["kind"]),
        (&json!("n"), &json!("z1"), &json!("Pod"))
    );
    assert_eq!(json["endpoints"][1]["hostname"], "h");
}

#[test]
fn what_stands_stays() {
    let service = service(json!({}));
    let pods = [pod("a", true, json!({})), pod("bb", true, json!({}))];
    let first = slices(&service, &pods, vec![], 100);
    let standing = stored(first.create[0].clone(), "svc-1");
    let again = slices(&service, &pods, vec![standing.clone()], 100);
    assert_eq!((again.create.len(), again.update.len(), again.delete.len()), (0, 0, 0));
    // One leaves, one comes: the same slice.
    let pods = [pod("bb", true, json!({})), pod("ccc", true, json!({}))];
    let changed = slices(&service, &pods, vec![standing.clone()], 100);
    assert_eq!((changed.create.len(), changed.update.len(), changed.delete.len()), (0, 1, 0));
    assert_eq!(changed.update[0].metadata.name.as_deref(), Some("svc-1"));
    assert_eq!(changed.update[0].endpoints.len(), 2);
    // None is left: an empty slice says so, the one with ports goes.
    let none = slices(&service, &[], vec![standing], 100);
    assert_eq!((none.create.len(), none.update.len(), none.delete.len()), (1, 0, 1));
    let empty = stored(none.create[0].clone(), "svc-2");
    let still = slices(&service, &[], vec![empty.clone()], 100);
    assert_eq!((still.create.len(), still.update.len(), still.delete.len()), (0, 0, 0));
    let back = slices(&service, &pods, vec![empty], 100);
    assert_eq!((back.create.len(), back.update.len(), back.delete.len()), (1, 0, 1));
}

#[test]
fn slices_are_filled_and_split() {
    let service = service(json!({}));
    let name = |n: usize| "x".repeat(n);
    let pods: Vec<_> = (1..=5).map(|n| pod(&name(n), true, json!({}))).collect();
    let plan = slices(&service, &pods, vec![], 2);
    let sizes: Vec<usize> = plan.create.iter().map(|s| s.endpoints.len()).collect();
    assert_eq!(sizes, [2, 2, 1]);
    let standing: Vec<_> =
        plan.create.into_iter().enumerate().map(|(i, s)| stored(s, &format!("svc-{i}"))).collect();
    let more: Vec<_> = (1..=6).map(|n| pod(&name(n), true, json!({}))).collect();
    let filled = slices(&service, &more, standing, 2);
    assert_eq!((filled.create.len(), filled.update.len(), filled.delete.len()), (0, 1, 0));
    assert_eq!(filled.update[0].metadata.name.as_deref(), Some("svc-2"));
}

#[test]
fn named_ports_that_differ_make_groups() {
    let service = service(json!({}));
    let other = json!({"spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9090}]}]}});
    let plan = slices(&service, &[pod("a", true, json!({})), pod("bb", true, other)], vec![], 100);
    let ports: Vec<i32> = plan.create.iter().map(|s| s.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn unready_addresses_can_be_published_and_headless_is_labelled() {
    let service = service(json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
    let plan = slices(&service, &[pod("a", false, json!({}))], vec![], 100);
    let json = serde_json::to_value(&plan.create[0]).unwrap();
    assert_eq!(
        json["endpoints"][0]["conditions"],
        json!({"ready": true, "serving": false, "terminating": false})
    );
    assert_eq!(json["metadata"]["labels"]["service.kubernetes.io/headless"], "");
}

#[test]
fn endpoints_are_packed_by_port() {
    let service = service(json!({"ports": [
        {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"},
        {"name": "metrics", "port": 81, "targetPort": 9000, "protocol": "TCP"}]}));
    let nameless = json!({"spec": {"nodeName": "n", "containers": [{"name": "c"}]}});
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pods = [
        pod("a", true, json!({})),
        pod("bb", false, json!({})),
        pod("ccc", true, nameless),
        pod("dddd", true, deleted),
    ];
    let json = serde_json::to_value(legacy::of_service(&service, &pods)).unwrap();
    let brief: Vec<Value> = json["subsets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            let ips = |key: &str| {
                s[key]
                    .as_array()
                    .map(|a| a.iter().map(|a| a["ip"].clone()).collect::<Vec<_>>())
                    .unwrap_or_default()
            };
            let ports: Vec<&Value> = s["ports"].as_array().unwrap().iter().map(|p| &p["port"]).collect();
            json!([ips("addresses"), ips("notReadyAddresses"), ports])
        })
        .collect();
    assert_eq!(
        brief,
        [
            json!([["10.244.0.1"], ["10.244.0.2"], [8080]]),
            json!([["10.244.0.1", "10.244.0.3"], ["10.244.0.2"], [9000]]),
        ]
    );
    assert_eq!(
        json["metadata"]["labels"],
        json!({"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );
    let same = legacy::of_service(&service, &pods);
    assert!(legacy::is_current(&serde_json::from_value(json).unwrap(), &same));
    assert!(!legacy::is_current(&same, &legacy::of_service(&service, &pods[1..])));
}

#[test]
fn hand_made_endpoints_are_mirrored() {
    let endpoints: k8s_openapi::api::core::v1::Endpoints = serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "svc", "uid": "e", "labels": {"x": "y"},
            "annotations": {"note": "1", "endpoints.kubernetes.io/last-change-trigger-time": "t"}},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"name": "p", "port": 443, "protocol": "TCP"}]}]}))
    .unwrap();
    assert!(!mirror::is_mirrored(&endpoints, &service(json!({}))), "has a selector");
    assert!(mirror::is_mirrored(&endpoints, &service(json!({"selector": null}))));
    let ownership = Ownership {
        labels: mirror::labels(&endpoints),
        annotations: mirror::annotations(&endpoints),
        ..ownership(&service(json!({})), 1000)
    };
    let plan = plan(&ownership, mirror::desired(&endpoints), vec![]);
    let json = serde_json::to_value(&plan.create).unwrap();
    assert_eq!(json[0]["addressType"], "IPv4");
    assert_eq!(json[0]["endpoints"].as_array().unwrap().len(), 2);
    assert_eq!(json[1]["addressType"], "IPv6");
    assert_eq!(json[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"], mirror::MANAGED_BY);
    assert_eq!(json[0]["metadata"]["annotations"], json!({"note": "1"}));
}
