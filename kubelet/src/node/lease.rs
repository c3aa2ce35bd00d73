//! The node's lease: renewed every ten seconds, whatever else happens.
use crate::kubelet::Shared;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use std::time::Duration;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// Renews until dropped.
pub async fn keep(kubelet: Shared, client: kube::Client) {
    let name = kubelet.config.node_name.clone();
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let mut exists = false;
    let mut failures: u32 = 0;
    loop {
        let result = if exists { renew(&api, &name).await } else { create(&api, &client, &name).await };
        let wait = match result {
            Ok(()) => {
                exists = true;
                failures = 0;
                RENEW
            }
            Err(error) => {
                // Gone, or never there: made anew next time.
                exists &= !is_not_found(&error);
                failures = failures.saturating_add(1);
                tracing::debug!(error = %error, failures, "node lease was not renewed");
                RETRY.saturating_mul(1 << failures.min(4)).min(RENEW / 2)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Now, in the microseconds that the API keeps.
fn now() -> MicroTime {
    let now = Timestamp::now();
    MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}

async fn renew(api: &Api<Lease>, name: &str) -> Result<(), kube::Error> {
    let patch = serde_json::json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now()}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

async fn create(api: &Api<Lease>, client: &kube::Client, name: &str) -> Result<(), kube::Error> {
    // Owned by the node, so that it goes when the node does.
    let node = Api::<Node>::all(client.clone()).get_opt(name).await?;
    let owner = node.and_then(|node| node.metadata.uid).map(|uid| {
        vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.to_owned(),
            uid,
            ..OwnerReference::default()
        }]
    });
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(NAMESPACE.into()),
            owner_references: owner,
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(now()),
            ..LeaseSpec::default()
        }),
    };
    match api.create(&PostParams::default(), &lease).await {
        Ok(_) => Ok(()),
        Err(error) if is_conflict(&error) => renew(api, name).await,
        Err(error) => Err(error),
    }
}
