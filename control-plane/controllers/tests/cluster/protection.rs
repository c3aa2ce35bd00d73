//! Claims, volumes and classes stay while they are in use, and no longer.

use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fixture::{Cluster, until};

fn claim(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "resources": {"requests": {"storage": "1Gi"}}}})
}

/// A pod on the node with the claim as its volume; bound already, for nothing binds claims.
fn pod(name: &str, claim: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "a"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
}

async fn gone<K>(api: &Api<K>, name: &str)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    until(&format!("{name} to go"), || async { api.get_opt(name).await.unwrap().is_none().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_goes_with_the_last_pod_that_uses_it() {
    let cluster = Cluster::start().await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let made = cluster.create::<PersistentVolumeClaim>("default", claim("used")).await;
    assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pvc-protection"]);
    cluster.create::<PersistentVolumeClaim>("default", claim("idle")).await;
    let pods = cluster.api::<Pod>("default");
    for name in ["one", "two"] {
        cluster.create::<Pod>("default", pod(name, "used")).await;
    }
    claims.delete("idle", &DeleteParams::default()).await.unwrap();
    gone(&claims, "idle").await;
    claims.delete("used", &DeleteParams::default()).await.unwrap();
    pods.delete("one", &DeleteParams::default()).await.unwrap();
    gone(&pods, "one").await;
    cluster.quiet().await;
    let kept = claims.get("used").await.unwrap().metadata;
    assert!(kept.deletion_timestamp.is_some() && kept.finalizers.is_some(), "the other pod has it still");
    pods.delete("two", &DeleteParams::default()).await.unwrap();
    gone(&claims, "used").await;

    // A claim without the finalizer gets it.
    cluster.create::<PersistentVolumeClaim>("default", claim("old")).await;
    let bare = json!({"metadata": {"finalizers": null}});
    claims.patch("old", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    until("the finalizer of a claim that had none", || async {
        claims.get("old").await.unwrap().metadata.finalizers
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_with_a_claim_in_use_goes() {
    let cluster = Cluster::start().await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "shop"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    until("the namespace's service account", || async {
        let accounts = cluster.api::<k8s_openapi::api::core::v1::ServiceAccount>("shop");
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    cluster.create::<PersistentVolumeClaim>("shop", claim("data")).await;
    cluster.create::<Pod>("shop", pod("web", "data")).await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    gone(&namespaces, "shop").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_goes_when_it_is_not_bound() {
    let cluster = Cluster::start().await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    for name in ["free", "bound"] {
        let volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}});
        let made =
            volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
        assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/pv-protection"]);
    }
    let phase = |phase: &str| Patch::Merge(json!({"status": {"phase": phase}}));
    volumes.patch_status("bound", &PatchParams::default(), &phase("Bound")).await.unwrap();
    for name in ["free", "bound"] {
        volumes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    gone(&volumes, "free").await;
    cluster.quiet().await;
    assert!(volumes.get("bound").await.unwrap().metadata.deletion_timestamp.is_some());
    volumes.patch_status("bound", &PatchParams::default(), &phase("Released")).await.unwrap();
    gone(&volumes, "bound").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_class_of_attributes_goes_when_nothing_names_it() {
    let cluster = Cluster::start().await;
    let classes: Api<VolumeAttributesClass> = Api::all(cluster.client.clone());
    for name in ["free", "of-a-claim", "of-a-volume"] {
        let class =
            json!({"metadata": {"name": name}, "driverName": "d.example.com", "parameters": {"iops": "9"}});
        let class = serde_json::from_value(class).unwrap();
        let made = classes.create(&PostParams::default(), &class).await.unwrap();
        assert_eq!(made.metadata.finalizers.unwrap(), ["kubernetes.io/vac-protection"]);
    }
    let mut with_class = claim("data");
    with_class["spec"]["volumeAttributesClassName"] = "of-a-claim".into();
    cluster.create::<PersistentVolumeClaim>("default", with_class).await;
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "volumeAttributesClassName": "of-a-volume",
        "csi": {"driver": "d.example.com", "volumeHandle": "h"}}});
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    for name in ["free", "of-a-claim", "of-a-volume"] {
        classes.delete(name, &DeleteParams::default()).await.unwrap();
    }
    gone(&classes, "free").await;
    cluster.quiet().await;
    for name in ["of-a-claim", "of-a-volume"] {
        let kept = classes.get(name).await.unwrap().metadata;
        assert!(kept.deletion_timestamp.is_some() && kept.finalizers.is_some(), "{name} is named");
    }
    cluster.api::<PersistentVolumeClaim>("default").delete("data", &DeleteParams::default()).await.unwrap();
    gone(&classes, "of-a-claim").await;
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    gone(&classes, "of-a-volume").await;

    // A class without the finalizer gets it.
    let bare = json!({"metadata": {"name": "old", "finalizers": []}, "driverName": "d.example.com", "parameters": {"iops": "9"}});
    classes.create(&PostParams::default(), &serde_json::from_value(bare).unwrap()).await.unwrap();
    let bare = json!({"metadata": {"finalizers": null}});
    classes.patch("old", &PatchParams::default(), &Patch::Merge(bare)).await.unwrap();
    until("the finalizer of a class that had none", || async {
        classes.get("old").await.unwrap().metadata.finalizers
    })
    .await;
    cluster.stop().await;
}
