//! The annotations that carry revisions and sizes; `kubectl rollout` reads and writes them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MAX_HISTORY: usize = 2000;

type Annotations = BTreeMap<String, String>;

fn is_copied(key: &str) -> bool {
    ![LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO].contains(&key)
}

/// A number in a ReplicaSet's annotation.
pub fn number(rs: &ReplicaSet, key: &str) -> Option<i32> {
    rs.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// A ReplicaSet's revision, 0 when it has none.
pub fn revision(rs: &ReplicaSet) -> i64 {
    rs.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Sizes as the sets of a rollout carry them.
pub fn set_sizes(annotations: &mut Annotations, desired: i32, max: i32) {
    annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
}

/// What the new set's annotations should be: the Deployment's, the next revision, the revisions it had before
/// (`SetNewReplicaSetAnnotations`).
pub fn for_new_set(d: &Deployment, current: &Annotations, new_revision: i64) -> Annotations {
    let mut result = current.clone();
    for (key, value) in d.metadata.annotations.iter().flatten().filter(|(key, _)| is_copied(key)) {
        result.insert(key.clone(), value.clone());
    }
    let old = current.get(REVISION);
    let old_number = old.and_then(|r| r.parse::<i64>().ok()).unwrap_or(0);
    if old_number < new_revision {
        result.insert(REVISION.to_owned(), new_revision.to_string());
        if let Some(old) = old.filter(|r| !r.is_empty()) {
            let history = current.get(REVISION_HISTORY).map_or("", String::as_str);
            let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
            revisions.push(old);
            while revisions.len() > 1 && revisions.iter().map(|r| r.len() + 1).sum::<usize>() > MAX_HISTORY {
                revisions.remove(0);
            }
            result.insert(REVISION_HISTORY.to_owned(), revisions.join(","));
        }
    }
    result
}
