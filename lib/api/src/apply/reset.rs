//! The fields a resource's strategies put back, which a write therefore cannot own (upstream: `GetResetFields` and
//! `GetResetFieldsFilter` of the registries' strategies).

use std::sync::LazyLock;

use super::element::PathElement;
use super::set::{Filter, Matcher, Set};

/// Kinds whose status writes leave metadata alone.
const STATUS_KEEPS_METADATA: [(&str, &str); 11] = [
    ("networking.k8s.io", "ServiceCIDR"),
    ("storagemigration.k8s.io", "StorageVersionMigration"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "DeviceTaintRule"),
    ("internal.apiserver.k8s.io", "StorageVersion"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("apiregistration.k8s.io", "APIService"),
    ("scheduling.k8s.io", "PodGroup"),
];

/// Whether a write of this kind's status leaves metadata as it was.
pub fn status_keeps_metadata(group: &str, kind: &str) -> bool {
    STATUS_KEEPS_METADATA.contains(&(group, kind))
}

fn exclude(paths: &[&[&str]]) -> Filter {
    let path = |names: &&[&str]| names.iter().map(|name| PathElement::field(name)).collect();
    Filter::Exclude(Set::of(paths.iter().map(path)))
}

static STATUS: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["status"]]));
static SPEC: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["spec"]]));
static SPEC_AND_METADATA: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["spec"], &["metadata"]]));
static POD_STATUS: LazyLock<Filter> = LazyLock::new(|| {
    exclude(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
});
static DEPLOYMENT_STATUS: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["spec"], &["metadata", "labels"]]));
static REQUEST: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["spec"], &["status"]]));
static REQUEST_STATUS: LazyLock<Filter> = LazyLock::new(|| exclude(&[&["spec"], &["status", "conditions"]]));
static REQUEST_APPROVAL: LazyLock<Filter> =
    LazyLock::new(|| exclude(&[&["spec"], &["status", "certificate"]]));
static EPHEMERAL: LazyLock<Filter> =
    LazyLock::new(|| Filter::Include(prefix(&["spec", "ephemeralContainers"])));
static RESIZE: LazyLock<Filter> = LazyLock::new(|| {
    let all = ["containers", "initContainers"].into_iter().flat_map(|list| {
        ["resources", "resizePolicy"].into_iter().map(move |field| prefix(&["spec", list, "*", field]))
    });
    Filter::Include(all.reduce(Matcher::merge).unwrap_or(Matcher::All))
});

/// `*` stands for any element.
fn prefix(path: &[&str]) -> Matcher {
    Matcher::prefix(path.iter().map(|name| (*name != "*").then(|| PathElement::field(name))).collect())
}

/// What a write of this resource or subresource may own; `None`: everything.
pub fn filter(
    group: &str,
    kind: &str,
    custom: bool,
    has_status: bool,
    subresource: &str,
) -> Option<&'static Filter> {
    match (group, kind, subresource) {
        ("", "Pod", "status") => Some(&POD_STATUS),
        ("", "Pod", "ephemeralcontainers") => Some(&EPHEMERAL),
        ("", "Pod", "resize") => Some(&RESIZE),
        ("apps", "Deployment", "status") => Some(&DEPLOYMENT_STATUS),
        ("certificates.k8s.io", "CertificateSigningRequest", "") => Some(&REQUEST),
        ("certificates.k8s.io", "CertificateSigningRequest", "status") => Some(&REQUEST_STATUS),
        ("certificates.k8s.io", "CertificateSigningRequest", "approval") => Some(&REQUEST_APPROVAL),
        // A status that is written like any field.
        ("", "Event", _) | ("policy", "Eviction", _) => None,
        ("", "Namespace", "finalize") => Some(&STATUS),
        (_, _, "") if has_status => Some(&STATUS),
        (_, _, "status") if custom || status_keeps_metadata(group, kind) => Some(&SPEC_AND_METADATA),
        (_, _, "status") => Some(&SPEC),
        _ => None,
    }
}
