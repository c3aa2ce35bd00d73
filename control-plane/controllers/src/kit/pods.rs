//! Pods from templates, many writes in slow-start batches, and the order in which pods are given up.

use std::cmp::Ordering;
use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keelson_client::projections::{Meta, PodPhase, PodView};
use kube::api::{DeleteParams, Preconditions};

/// The most pods a controller creates or deletes in one go (`BurstReplicas`).
pub const BURST: usize = 500;

/// A pod of the template, owned by its controller; the server completes the name.
pub fn from_template(template: &PodTemplateSpec, api_version: &str, kind: &str, owner: &Meta) -> Pod {
    let template_meta = template.metadata.clone().unwrap_or_default();
    let prefix = format!("{}-", owner.name);
    // A name that is no valid prefix loses its dash, as upstream's ValidatePodName check does.
    let prefix = if prefix.len() > 253 { owner.name.to_string() } else { prefix };
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix),
            namespace: Some(owner.namespace.to_string()),
            labels: template_meta.labels,
            annotations: template_meta.annotations,
            finalizers: template_meta.finalizers,
            owner_references: Some(vec![OwnerReference {
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
                name: owner.name.to_string(),
                uid: owner.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Runs `count` writes in batches of 1, 2, 4, …; stops after the first batch with a failure, so that a template that
/// the server refuses costs one request. Returns how many succeeded, how many were never tried, and the first error.
pub async fn slow_start<F, Fut, T>(count: usize, write: F) -> (usize, usize, Option<kube::Error>)
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<T, kube::Error>>,
{
    let mut succeeded = 0;
    let mut tried = 0;
    let mut batch = 1;
    while tried < count {
        let size = batch.min(count - tried);
        let results = join_all((tried..tried + size).map(&write)).await;
        tried += size;
        let mut first = None;
        for result in results {
            match result {
                Ok(_) => succeeded += 1,
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        if first.is_some() {
            return (succeeded, count - tried, first);
        }
        batch *= 2;
    }
    (succeeded, 0, None)
}

/// Deletion of just this pod, not of a later one of the same name.
pub fn delete_exactly(uid: &str) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
        ..DeleteParams::default()
    }
}

fn deletion_cost(pod: &PodView) -> i32 {
    pod.annotations
        .get("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0)
}

/// Rank by the logarithm of the age: pods of about the same age are equal, so that the choice among them is spread.
fn age_rank(since: Timestamp, now: Timestamp) -> i64 {
    let nanos = now.as_nanosecond() - since.as_nanosecond();
    if nanos > 0 { (nanos as f64).log2() as i64 } else { -1 }
}

fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp, tie: Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if a != b => age_rank(a, now).cmp(&age_rank(b, now)).then(tie),
        (Some(_), Some(_)) | (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
    }
}

/// Which of two pods is given up first (`ActivePodsWithRanks`); `rank` is how many related pods share its node.
fn expendable_first(a: (&PodView, usize), b: (&PodView, usize), now: Timestamp) -> Ordering {
    let ((a, rank_a), (b, rank_b)) = (a, b);
    let phase = |p: &PodView| match p.phase {
        PodPhase::Pending => 0,
        PodPhase::Unknown => 1,
        _ => 2,
    };
    let by_uid = a.meta.uid.cmp(&b.meta.uid);
    a.node
        .is_some()
        .cmp(&b.node.is_some())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| a.ready.cmp(&b.ready))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| {
            if a.ready && b.ready {
                younger_first(a.ready_changed, b.ready_changed, now, by_uid)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| b.restarts.cmp(&a.restarts))
        .then_with(|| younger_first(Some(a.meta.created), Some(b.meta.created), now, by_uid))
}

/// The `count` pods to give up; `related` are the active pods of all sets of the same owner, for spreading over nodes.
pub fn to_delete(
    pods: &[Arc<PodView>],
    related: &[Arc<PodView>],
    count: usize,
    now: Timestamp,
) -> Vec<Arc<PodView>> {
    if count >= pods.len() {
        return pods.to_vec();
    }
    let rank = |pod: &PodView| related.iter().filter(|r| r.node.is_some() && r.node == pod.node).count();
    let mut ranked: Vec<(&Arc<PodView>, usize)> = pods.iter().map(|p| (p, rank(p))).collect();
    ranked.sort_by(|a, b| expendable_first((a.0, a.1), (b.0, b.1), now));
    ranked.into_iter().take(count).map(|(pod, _)| pod.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: Option<&str>, phase: &str, ready: Option<&str>, created: &str) -> Arc<PodView> {
        let conditions =
            ready.map(|at| json!([{"type": "Ready", "status": "True", "lastTransitionTime": at}]));
        Arc::new(PodView::new(
            &serde_json::from_value(json!({
                "metadata": {"name": name, "uid": name, "creationTimestamp": created},
                "spec": {"containers": [], "nodeName": node},
                "status": {"phase": phase, "conditions": conditions}}))
            .unwrap(),
        ))
    }

    // Facts: pkg/controller/controller_utils_test.go, TestSortingActivePodsWithRanks.
    #[test]
    fn the_least_useful_goes_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let old = "2026-01-01T00:00:00Z";
        let new = "2026-01-01T23:59:00Z";
        let pods = vec![
            pod("ready-old", Some("n"), "Running", Some(old), old),
            pod("ready-new", Some("n"), "Running", Some(new), old),
            pod("running", Some("n"), "Running", None, old),
            pod("pending", Some("n"), "Pending", None, old),
            pod("unassigned", None, "Pending", None, old),
        ];
        let names: Vec<String> =
            to_delete(&pods, &[], 4, now).iter().map(|p| p.meta.name.to_string()).collect();
        assert_eq!(names, ["unassigned", "pending", "running", "ready-new"]);
    }

    #[test]
    fn doubled_up_nodes_give_first() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let old = "2026-01-01T00:00:00Z";
        let pods = vec![
            pod("alone", Some("a"), "Running", Some(old), old),
            pod("double", Some("b"), "Running", Some(old), old),
        ];
        let mut related = pods.clone();
        related.push(pod("third", Some("b"), "Running", Some(old), old));
        assert_eq!(&*to_delete(&pods, &related, 1, now)[0].meta.name, "double");
    }

    #[tokio::test]
    async fn a_refused_template_costs_one_request() {
        let refused = || kube::Error::LinesCodecMaxLineLengthExceeded;
        let (succeeded, skipped, error) = slow_start(10, |_| async { Err::<(), _>(refused()) }).await;
        assert_eq!((succeeded, skipped, error.is_some()), (0, 9, true));
        let (succeeded, skipped, error) = slow_start(10, |i| async move {
            if i == 4 { Err(kube::Error::LinesCodecMaxLineLengthExceeded) } else { Ok(()) }
        })
        .await;
        assert_eq!((succeeded, skipped, error.is_some()), (6, 3, true));
    }
}
