//! What upstream's scheme says of an object that is not of the kind it must be.

use crate::doc::Gvk;
use crate::schema::TypeId;

/// How a body's kind differs from the one it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// It does not decode; upstream's text.
    Decode(String),
    /// It is another version of the same.
    Version,
}

/// Compares a body's kind with what it must be; `None`: it is that.
pub fn mismatch(given: &Gvk, expected: &Gvk) -> Option<Mismatch> {
    if given == expected {
        return None;
    }
    if TypeId::by_gvk(&given.group, &given.version, &given.kind).is_none() {
        return Some(Mismatch::Decode(format!(
            "no kind {:?} is registered for version {:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            &*given.kind,
            given.api_version(),
        )));
    }
    let (from, to) = (internal_package(&given.group), internal_package(&expected.group));
    if given.kind == expected.kind && from == to {
        return Some(Mismatch::Version);
    }
    Some(Mismatch::Decode(format!(
        "converting ({}.{}) to ({to}.{}): unknown conversion",
        given.version, given.kind, expected.kind
    )))
}

/// Kinds of versions that are not served, field by field the same as the served ones, which upstream still takes where it
/// takes those: clients of old evict with them (`EvictionREST.AcceptsGroupVersion`).
const STILL_TAKEN: [(&str, &str, &str); 1] = [("policy", "v1beta1", "Eviction")];

/// Whether a body of this kind is read as one of the expected.
pub fn taken_as(given: &Gvk, expected: &Gvk) -> bool {
    given.group == expected.group
        && given.kind == expected.kind
        && STILL_TAKEN.contains(&(&*given.group, &*given.version, &*given.kind))
}

/// The Go type of a group's kind inside upstream's server, as its texts name it; a custom resource has none of its own.
pub fn internal_type(group: &str, kind: &str, custom: bool) -> String {
    if custom {
        let list = if kind.ends_with("List") { "List" } else { "" };
        return format!("*unstructured.Unstructured{list}");
    }
    format!("*{}.{kind}", internal_package(group))
}

/// The Go package of a group's internal types.
fn internal_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        other => other.split('.').next().unwrap_or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_upstreams_scheme() {
        let deployment = Gvk::new("apps", "v1", "Deployment");
        let check = |group: &str, version: &str, kind: &str, expected: Option<Mismatch>| {
            assert_eq!(mismatch(&Gvk::new(group, version, kind), &deployment), expected);
        };
        check("apps", "v1", "Deployment", None);
        check("apps", "v1beta1", "Deployment", Some(Mismatch::Version));
        let decode = |text: &str| Some(Mismatch::Decode(text.to_owned()));
        check("", "v1", "Pod", decode("converting (v1.Pod) to (apps.Deployment): unknown conversion"));
        check(
            "apps",
            "v9",
            "Deployment",
            decode(
                r#"no kind "Deployment" is registered for version "apps/v9" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            ),
        );
        let event = |group| Gvk::new(group, "v1", "Event");
        assert_eq!(mismatch(&event("events.k8s.io"), &event("")), Some(Mismatch::Version));
    }
}
