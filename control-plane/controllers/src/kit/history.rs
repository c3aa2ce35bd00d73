//! ControllerRevisions: the templates a DaemonSet or StatefulSet had.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use keelson_client::projections::Meta;
use serde_json::{Value, json};

use super::hash::{canonical_template, template_hash};

/// Label of revisions and pods.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// The template a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    // As text: a decoder from trees would be a second one for all that a pod has.
    serde_json::from_str(&template.to_string()).ok()
}

/// Whether a revision holds this template, whatever defaults either shows.
pub fn holds(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    let canonical = |t: &PodTemplateSpec| canonical_template(t, REVISION_LABEL);
    template_of(revision).is_some_and(|held| canonical(&held) == canonical(template))
}

/// A new revision of `owner` with this template; its name tells the template's hash.
pub fn new_revision(
    owner: &Meta,
    kind: &str,
    template: &PodTemplateSpec,
    number: i64,
    collisions: Option<i32>,
) -> Result<ControllerRevision, serde_json::Error> {
    let hash = template_hash(template, REVISION_LABEL, collisions);
    let mut data: Value = serde_json::to_value(template)?;
    data["$patch"] = json!("replace");
    let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(REVISION_LABEL.to_owned(), hash.clone());
    let prefix: String = owner.name.chars().take(223).collect();
    Ok(ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{prefix}-{hash}")),
            namespace: Some(owner.namespace.to_string()),
            labels: Some(labels),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: kind.to_owned(),
                name: owner.name.to_string(),
                uid: owner.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({"spec": {"template": data}}))),
        revision: number,
    })
}

/// A revision's name.
pub fn name(revision: &ControllerRevision) -> &str {
    revision.metadata.name.as_deref().unwrap_or_default()
}

/// The hash in a revision's labels.
pub fn hash(revision: &ControllerRevision) -> &str {
    revision.metadata.labels.as_ref().and_then(|l| l.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// What has to happen so that the newest revision holds the template.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// The newest holds it.
    Current(Box<ControllerRevision>),
    /// An older one holds it and becomes the newest (a rollback).
    Renumber(Box<ControllerRevision>, i64),
    Create(Box<ControllerRevision>),
}

/// Compares revisions (any order) with the template.
pub fn update(
    owner: &Meta,
    kind: &str,
    template: &PodTemplateSpec,
    revisions: &[ControllerRevision],
    collisions: Option<i32>,
) -> Result<Update, serde_json::Error> {
    let newest = revisions.iter().map(|r| r.revision).max().unwrap_or(0);
    let mut same: Vec<&ControllerRevision> = revisions.iter().filter(|r| holds(r, template)).collect();
    same.sort_by_key(|r| r.revision);
    match same.last() {
        Some(revision) if revision.revision == newest => Ok(Update::Current(Box::new((*revision).clone()))),
        Some(revision) => Ok(Update::Renumber(Box::new((*revision).clone()), newest + 1)),
        None => Ok(Update::Create(Box::new(new_revision(owner, kind, template, newest + 1, collisions)?))),
    }
}

/// Revisions beyond the limit that nothing uses, the oldest first.
pub fn surplus(
    revisions: &[ControllerRevision],
    in_use: impl Fn(&ControllerRevision) -> bool,
    limit: Option<i32>,
) -> Vec<&ControllerRevision> {
    let mut unused: Vec<&ControllerRevision> = revisions.iter().filter(|r| !in_use(r)).collect();
    unused.sort_by_key(|r| r.revision);
    let keep = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let surplus = unused.len().saturating_sub(keep);
    unused.truncate(surplus);
    unused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_follow_the_template() {
        let owner = Meta { namespace: "ns".into(), name: "d".into(), uid: "u".into(), ..Meta::default() };
        let template = |image: &str| -> PodTemplateSpec {
            serde_json::from_value(json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}})).unwrap()
        };
        let Update::Create(one) = update(&owner, "DaemonSet", &template("a"), &[], None).unwrap() else {
            panic!()
        };
        assert_eq!(name(&one), format!("d-{}", hash(&one)));
        let Update::Create(two) =
            update(&owner, "DaemonSet", &template("b"), std::slice::from_ref(&one), None).unwrap()
        else {
            panic!()
        };
        assert_eq!(two.revision, 2);
        let all = [*one.clone(), *two.clone()];
        assert_eq!(update(&owner, "DaemonSet", &template("b"), &all, None).unwrap(), Update::Current(two));
        assert_eq!(
            update(&owner, "DaemonSet", &template("a"), &all, None).unwrap(),
            Update::Renumber(one, 3)
        );
        assert_eq!(surplus(&all, |r| r.revision == 2, Some(0)).len(), 1);
    }
}
