//! Which dependents a controller owns, adopts or lets go (upstream's ControllerRefManager).

use std::sync::Arc;

use keelson_client::projections::{HasMeta, Meta, Selector};
use serde_json::{Value, json};

/// What to do about candidates.
#[derive(Debug)]
pub struct Claims<P> {
    /// Owned and selected.
    pub owned: Vec<Arc<P>>,
    /// Selected orphans to be adopted; they count as owned once adopted.
    pub adopt: Vec<Arc<P>>,
    /// Owned, not selected any more.
    pub release: Vec<Arc<P>>,
}

/// Sorts candidates; `deleting` owners neither adopt nor release.
pub fn plan<P: HasMeta>(
    uid: &str,
    deleting: bool,
    selector: &Selector,
    candidates: Vec<Arc<P>>,
) -> Claims<P> {
    let mut claims = Claims { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for candidate in candidates {
        let meta = candidate.meta();
        let selected = selector.matches(&meta.labels);
        match meta.controller() {
            Some(owner) if &*owner.uid != uid => {}
            Some(_) if selected => claims.owned.push(candidate),
            Some(_) if deleting => {}
            Some(_) => claims.release.push(candidate),
            None if selected && !deleting && meta.deleted.is_none() => claims.adopt.push(candidate),
            None => {}
        }
    }
    claims
}

/// The patch that adopts.
pub fn adoption(owner: &Value, dependent: &Meta) -> Value {
    json!({"metadata": {"uid": dependent.uid, "ownerReferences": [owner]}})
}

/// The patch that releases.
pub fn release(owner_uid: &str, dependent: &Meta) -> Value {
    json!({"metadata": {"uid": dependent.uid, "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]}})
}

/// A controller's owner reference.
pub fn owner_reference(api_version: &str, kind: &str, meta: &Meta) -> Value {
    json!({
        "apiVersion": api_version, "kind": kind, "name": meta.name, "uid": meta.uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_client::projections::PodView;

    fn pod(name: &str, app: &str, owner: Option<&str>, deleted: bool) -> Arc<PodView> {
        let owners: Vec<Value> = owner
            .map(|uid| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true}))
            .into_iter()
            .collect();
        let deleted = deleted.then_some("2026-01-01T00:00:00Z");
        Arc::new(PodView::new(
            &serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": app}, "ownerReferences": owners, "deletionTimestamp": deleted}})).unwrap(),
        ))
    }

    #[test]
    fn claims_follow_upstream() {
        let selector = Selector::from_map(&[("app".to_owned(), "web".to_owned())].into());
        let pods = || {
            vec![
                pod("mine", "web", Some("me"), false),
                pod("other", "web", Some("you"), false),
                pod("orphan", "web", None, false),
                pod("dying", "web", None, true),
                pod("left", "db", Some("me"), false),
            ]
        };
        let names = |pods: &[Arc<PodView>]| {
            pods.iter().map(|p| p.meta.name.to_string()).collect::<Vec<_>>().join(",")
        };
        let claims = plan("me", false, &selector, pods());
        assert_eq!(
            (names(&claims.owned), names(&claims.adopt), names(&claims.release)),
            ("mine".into(), "orphan".into(), "left".into())
        );
        let claims = plan("me", true, &selector, pods());
        assert_eq!(
            (names(&claims.owned), names(&claims.adopt), names(&claims.release)),
            ("mine".into(), "".into(), "".into())
        );
    }
}
