//! What two control planes share besides objects: addresses, ports, and who leads.

use crate::control_planes::{Lab, SOON};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use keelson_testkit::etcd::missing;
use kube::Api;
use kube::api::PostParams;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

async fn holder(client: &kube::Client, name: &str) -> Option<String> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let spec = api.get_opt(name).await.ok().flatten()?.spec?;
    spec.holder_identity.filter(|holder| !holder.is_empty())
}

async fn led_by(client: &kube::Client, name: &str, start: &str) {
    let until = Instant::now() + SOON;
    loop {
        let found = holder(client, name).await;
        if found.as_ref().is_some_and(|holder| holder.starts_with(start)) {
            return;
        }
        assert!(Instant::now() < until, "{name} is held by {found:?}, not by {start}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The addresses of the `kubernetes` Service.
async fn served_at(client: &kube::Client) -> String {
    let api: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let subsets = api.get("kubernetes").await.expect("endpoints").subsets.unwrap_or_default();
    let addresses = subsets.into_iter().flat_map(|subset| subset.addresses.unwrap_or_default());
    addresses.map(|address| address.ip).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_share_addresses_and_pass_the_lead_on() {
    if let Some(reason) = missing() {
        println!("SKIPPED: two control planes on one etcd: {reason}");
        return;
    }
    let mut lab = Lab::start().await;
    let clients = [lab.planes[0].client().await, lab.planes[1].client().await];
    let mut tasks = JoinSet::new();
    for n in 0..24usize {
        let api: Api<Service> = Api::namespaced(clients[n % 2].clone(), "default");
        tasks.spawn(async move {
            let service = serde_json::json!({
                "metadata": {"name": format!("s{n}")},
                "spec": {"type": "NodePort", "selector": {"app": "x"}, "ports": [{"port": 80}]},
            });
            let service: Service = serde_json::from_value(service).expect("a service");
            api.create(&PostParams::default(), &service).await
        });
    }
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    while let Some(made) = tasks.join_next().await {
        let spec = made.expect("no panic").expect("created").spec.expect("a spec");
        assert!(addresses.insert(spec.cluster_ip.expect("an address")));
        assert!(ports.insert(spec.ports.expect("ports")[0].node_port.expect("a node port")));
    }
    // The first leads; when it ends the second does.
    for name in ["kube-scheduler", "kube-controller-manager"] {
        led_by(&clients[1], name, "a_").await;
    }
    assert!(["192.0.2.1", "192.0.2.2"].contains(&served_at(&clients[1]).await.as_str()));
    assert_eq!(lab.planes[0].stop().await, Some(0), "{}", lab.planes[0].log());
    for name in ["kube-scheduler", "kube-controller-manager"] {
        led_by(&clients[1], name, "b_").await;
    }
    // The Service of the API leads to the one that is left.
    let until = Instant::now() + SOON;
    while served_at(&clients[1]).await != "192.0.2.2" {
        assert!(Instant::now() < until, "{}", served_at(&clients[1]).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
