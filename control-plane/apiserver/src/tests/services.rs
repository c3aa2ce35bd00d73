//! Addresses and node ports of Services.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::harness::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, kind: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": kind, "selector": {"app": name}, "ports": [{"port": 80}]}})
}

#[tokio::test]
async fn parallel_services_never_share() {
    let lab = Arc::new(Lab::start().await);
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let lab = lab.clone();
            tokio::spawn(async move {
                lab.post(SERVICES, &service(&format!("s{n}"), "NodePort")).await.expect(201)
            })
        })
        .collect();
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let made = task.await.unwrap();
        assert!(addresses.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(ports.insert(made["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    }
    let claimed = lab.get(ADDRESSES).await.expect(200);
    assert_eq!(claimed["items"].as_array().unwrap().len(), 33, "one each, and the kubernetes service's");
}

/// Two servers allocate from one small range at once: nothing is given twice, nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_never_share() {
    let small = |config: &mut crate::ApiServerConfig| {
        config.service_cidr = "10.96.0.0/26".to_owned();
        config.node_ports = (30000, 30047);
    };
    let one = Arc::new(Lab::with(small).await);
    let other = Arc::new(one.beside_with(small).await);
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let lab = if n % 2 == 0 { one.clone() } else { other.clone() };
            tokio::spawn(async move {
                let path = format!("{SERVICES}/s{n}");
                for round in 0..3 {
                    let made = lab.post(SERVICES, &service(&format!("s{n}"), "NodePort")).await.expect(201);
                    if round == 2 {
                        return made;
                    }
                    lab.delete(&path).await.expect(200);
                }
                unreachable!("the last round returns")
            })
        })
        .collect();
    let (mut addresses, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let made = task.await.unwrap();
        assert!(addresses.insert(made["spec"]["clusterIP"].as_str().unwrap().to_owned()));
        assert!(ports.insert(made["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
    }
    let claimed = other.get(ADDRESSES).await.expect(200);
    assert_eq!(claimed["items"].as_array().unwrap().len(), 41, "one each, and the kubernetes service's");
    let (record, _) = one.store.get(crate::services::NODE_PORTS_KEY).await.unwrap();
    let record: std::collections::BTreeMap<i64, String> =
        serde_json::from_slice(&record.unwrap().value).unwrap();
    assert_eq!(record.into_keys().collect::<BTreeSet<_>>(), ports);
}

#[tokio::test]
async fn what_a_service_had_is_given_back() {
    let lab = Lab::start().await;
    let made = lab.post(SERVICES, &service("a", "NodePort")).await.expect(201);
    let (address, port) =
        (made["spec"]["clusterIP"].as_str().unwrap(), made["spec"]["ports"][0]["nodePort"].as_i64().unwrap());
    let owner = lab.get(&format!("{ADDRESSES}/{address}")).await.expect(200);
    assert_eq!(
        owner["spec"]["parentRef"],
        json!({"resource": "services", "namespace": "default", "name": "a"})
    );
    // Taken: by address and by port.
    let mut same = service("b", "ClusterIP");
    same["spec"]["clusterIP"] = address.into();
    let status = lab.post(SERVICES, &same).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "spec.clusterIPs");
    let mut same = service("b", "NodePort");
    same["spec"]["ports"][0]["nodePort"] = port.into();
    let status = lab.post(SERVICES, &same).await.expect(422);
    assert_eq!(status["details"]["causes"][0]["field"], "spec.ports[0].nodePort");
    assert_eq!(
        lab.get(ADDRESSES).await.expect(200)["items"].as_array().unwrap().len(),
        2,
        "the refused claims are given back"
    );
    // An update that says nothing of them keeps them; another type gives the port back.
    let kept = lab.put(&format!("{SERVICES}/a"), &service("a", "NodePort")).await.expect(200);
    assert_eq!(
        (kept["spec"]["clusterIP"].as_str(), kept["spec"]["ports"][0]["nodePort"].as_i64()),
        (Some(address), Some(port))
    );
    let inner = lab.put(&format!("{SERVICES}/a"), &service("a", "ClusterIP")).await.expect(200);
    assert!(inner["spec"]["ports"][0]["nodePort"].is_null(), "{inner}");
    lab.post(SERVICES, &same).await.expect(201);
    lab.delete(&format!("{SERVICES}/a")).await.expect(200);
    lab.get(&format!("{ADDRESSES}/{address}")).await.expect(404);
    let mut again = service("c", "ClusterIP");
    again["spec"]["clusterIP"] = address.into();
    lab.post(SERVICES, &again).await.expect(201);
}

#[tokio::test]
async fn headless_external_and_out_of_range() {
    let lab = Lab::start().await;
    let mut headless = service("h", "ClusterIP");
    headless["spec"]["clusterIP"] = "None".into();
    let made = lab.post(SERVICES, &headless).await.expect(201);
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    let made = lab.post(SERVICES, &external).await.expect(201);
    assert!(made["spec"]["clusterIP"].is_null());
    let mut far = service("f", "ClusterIP");
    far["spec"]["clusterIP"] = "192.0.2.1".into();
    let status = lab.post(SERVICES, &far).await.expect(422);
    assert!(status["message"].as_str().unwrap().contains("not in the valid range"), "{status}");
    let mut low = service("l", "NodePort");
    low["spec"]["ports"][0]["nodePort"] = 80.into();
    lab.post(SERVICES, &low).await.expect(422);
    assert_eq!(
        lab.get(&format!("{SERVICES}/kubernetes")).await.expect(200)["spec"]["clusterIP"],
        "10.96.0.1"
    );
}

#[tokio::test]
async fn orphans_are_found() {
    let lab = Lab::start().await;
    // As a crash between the claim and the service leaves it.
    let orphan = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "10.96.7.7"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "gone"}},
    });
    lab.post(ADDRESSES, &orphan).await.expect(201);
    // The wait between the two looks passes at once.
    tokio::time::pause();
    crate::services::repair::once(lab.api.core()).await.unwrap();
    lab.get(&format!("{ADDRESSES}/10.96.7.7")).await.expect(404);
    lab.get(&format!("{ADDRESSES}/10.96.0.1")).await.expect(200);
}

/// `initIPFamilyFields` on a cluster of one family.
#[tokio::test]
async fn families_of_services() {
    let lab = Lab::start().await;
    let made = |spec: Value| {
        let object =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"generateName": "s"}, "spec": spec});
        let lab = &lab;
        async move { lab.post(SERVICES, &object).await }
    };
    let families = |answer: &Value| json!([answer["spec"]["ipFamilyPolicy"], answer["spec"]["ipFamilies"]]);
    let foreign = made(json!({"clusterIP": "None"})).await.expect(201);
    assert_eq!(families(&foreign), json!(["RequireDualStack", ["IPv4", "IPv6"]]));
    let own = made(json!({"clusterIP": "None", "selector": {"a": "b"}})).await.expect(201);
    assert_eq!(families(&own), json!(["SingleStack", ["IPv4"]]));
    // Back to one family, by the policy alone.
    let path = format!("{SERVICES}/{}", foreign["metadata"]["name"].as_str().unwrap());
    let kept =
        lab.patch(&path, "merge-patch+json", &json!({"spec": {"ipFamilies": ["IPv4"]}})).await.expect(422);
    assert!(
        kept["message"]
            .as_str()
            .unwrap()
            .ends_with("must be 'SingleStack' to release the secondary IP family")
    );
    let single = json!({"spec": {"ipFamilyPolicy": "SingleStack"}});
    let single = lab.patch(&path, "merge-patch+json", &single).await.expect(200);
    assert_eq!(families(&single), json!(["SingleStack", ["IPv4"]]));

    let ports = json!([{"port": 80}]);
    let refused = |mut spec: Value| {
        spec["ports"] = ports.clone();
        let answer = made(spec);
        async move {
            answer.await.expect(422)["message"]
                .as_str()
                .unwrap()
                .split_once("is invalid: ")
                .unwrap()
                .1
                .to_owned()
        }
    };
    assert_eq!(
        refused(json!({"clusterIPs": ["10.96.88.1"]})).await,
        "spec.clusterIPs: Invalid value: [\"10.96.88.1\"]: must be empty when `clusterIP` is not specified"
    );
    assert_eq!(
        refused(json!({"clusterIP": "10.96.88.1", "clusterIPs": ["10.96.88.1", "10.96.88.2"]})).await,
        "spec.clusterIPs: Invalid value: [\"10.96.88.1\",\"10.96.88.2\"]: may specify no more than one IP for each IP \
         family"
    );
    assert_eq!(
        refused(json!({"clusterIP": "10.96.88.1", "clusterIPs": ["10.96.88.2"]})).await,
        "spec.clusterIPs: Invalid value: [\"10.96.88.2\"]: first value must match `clusterIP`"
    );
    assert_eq!(
        refused(json!({"ipFamilies": ["IPv4", "IPv6"]})).await,
        "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
         multiple IP families are specified"
    );
    assert_eq!(
        refused(json!({"ipFamilies": ["IPv6"]})).await,
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        refused(json!({"clusterIP": "fd00::1"})).await,
        "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster"
    );
    assert_eq!(
        refused(json!({"clusterIP": "None", "selector": {"a": "b"}, "ipFamilyPolicy": "RequireDualStack"}))
            .await,
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
}
