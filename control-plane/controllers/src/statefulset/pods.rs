//! A StatefulSet's pods and claims. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::projections::{Meta, PodView};

use crate::kit::history::REVISION_LABEL;
use crate::kit::pods::from_template;

/// Label with the pod's own name.
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// Label with the pod's ordinal.
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a pod named `<set>-<ordinal>`.
pub fn ordinal(set: &str, pod: &PodView) -> Option<i32> {
    let digits = pod.meta.name.strip_prefix(set)?.strip_prefix('-')?;
    digits.parse().ok().filter(|_| digits.chars().all(|c| c.is_ascii_digit()))
}

fn claim_name(template: &str, set: &Meta, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", set.name)
}

/// The claims of the pod with this ordinal.
pub fn claims(set: &StatefulSet, meta: &Meta, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let policy = spec.persistent_volume_claim_retention_policy.as_ref();
    let goes_with_the_set = policy.and_then(|p| p.when_deleted.as_deref()) == Some("Delete");
    spec.volume_claim_templates
        .iter()
        .flatten()
        .map(|template| {
            let mut claim = template.clone();
            claim.status = None;
            let name = template.metadata.name.as_deref().unwrap_or_default();
            claim.metadata.name = Some(claim_name(name, meta, ordinal));
            claim.metadata.namespace = Some(meta.namespace.to_string());
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            if goes_with_the_set {
                claim.metadata.owner_references = Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "StatefulSet".to_owned(),
                    name: meta.name.to_string(),
                    uid: meta.uid.to_string(),
                    controller: None,
                    block_owner_deletion: None,
                }]);
            }
            claim
        })
        .collect()
}

/// The pod with this ordinal, of `template`, which is the revision's named.
pub fn pod(set: &StatefulSet, meta: &Meta, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = from_template(template, "apps/v1", "StatefulSet", meta);
    let name = format!("{}-{ordinal}", meta.name);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME_LABEL.to_owned(), name.clone());
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    let Some(set_spec) = &set.spec else { return pod };
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set_spec.service_name.clone().filter(|s| !s.is_empty());
    let names: Vec<String> =
        set_spec.volume_claim_templates.iter().flatten().filter_map(|t| t.metadata.name.clone()).collect();
    if names.is_empty() {
        return pod;
    }
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|v| !names.contains(&v.name));
    volumes.extend(names.into_iter().map(|template| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name(&template, meta, ordinal),
            read_only: Some(false),
        }),
        name: template,
        ..Volume::default()
    }));
    pod
}
