//! Facts from upstream's `naming_controller_test.go`, `nonstructuralschema_controller_test.go` and `apiapproval_controller_test.go`.

use keelson_api::json::{self, FieldValidation};
use serde_json::{Value as Json, json};

use super::*;

fn definition(change: impl FnOnce(&mut Json)) -> Doc {
    let names = json!({"plural": "alfa", "singular": "delta-singular", "kind": "echo-kind", "listKind": "foxtrot-listkind"});
    let mut value = json!({
        "metadata": {"name": "alfa.bravo.com", "uid": "u"},
        "spec": {"group": "bravo.com", "scope": "Namespaced", "names": names, "versions": [{
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
        }]},
        "status": {"storedVersions": ["v1"], "acceptedNames": {"plural": "", "kind": ""}, "conditions": []},
    });
    change(&mut value);
    let ty = t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION;
    json::decode(ty, value.to_string().as_bytes(), FieldValidation::Strict).expect("a definition").0
}

fn other(accepted: Json) -> Doc {
    definition(|value| {
        value["metadata"]["name"] = "other.bravo.com".into();
        value["status"]["acceptedNames"] = accepted;
    })
}

fn planned(doc: &Doc, others: &[Doc]) -> Doc {
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    let claims: Vec<Claim> = others.iter().map(Claim::of).collect();
    let planned = plan(doc, claims.iter(), now).unwrap_or_else(|| doc.clone());
    assert!(plan(&planned, claims.iter(), now).is_none(), "a plan that was carried out plans nothing more");
    planned
}

fn text(doc: &Doc, kind: &str) -> String {
    find(doc, kind).map_or_else(String::new, |one| {
        format!("{} {}: {}", one.str(c::STATUS), one.str(c::REASON), one.str(c::MESSAGE))
    })
}

fn accepted(doc: &Doc) -> Vec<&str> {
    let names = [n::PLURAL, n::SINGULAR, n::KIND, n::LIST_KIND];
    names.into_iter().map(|name| doc.str(&[d::STATUS, st::ACCEPTED_NAMES, name])).collect()
}

#[test]
fn names_are_accepted_where_nobody_has_them() {
    let doc = planned(&definition(|_| {}), &[]);
    assert_eq!(text(&doc, "NamesAccepted"), "True NoConflicts: no conflicts found");
    assert_eq!(text(&doc, "Established"), "True InitialNamesAccepted: the initial names have been accepted");
    assert_eq!(accepted(&doc), ["alfa", "delta-singular", "echo-kind", "foxtrot-listkind"]);
    assert_eq!(text(&doc, "NonStructuralSchema"), "");
}

#[test]
fn conflicts_name_what_is_taken() {
    let taken = |field: &str, name: &str| other(json!({"plural": "x", "kind": "y", field: name}));
    for (other, condition, names) in [
        (
            taken("plural", "alfa"),
            "False PluralConflict: \"alfa\" is already in use",
            ["", "delta-singular", "echo-kind", "foxtrot-listkind"],
        ),
        (
            taken("singular", "delta-singular"),
            "False SingularConflict: \"delta-singular\" is already in use",
            ["alfa", "", "echo-kind", "foxtrot-listkind"],
        ),
        (
            taken("kind", "echo-kind"),
            "False KindConflict: \"echo-kind\" is already in use",
            ["alfa", "delta-singular", "", "foxtrot-listkind"],
        ),
        (
            taken("listKind", "foxtrot-listkind"),
            "False ListKindConflict: \"foxtrot-listkind\" is already in use",
            ["alfa", "delta-singular", "echo-kind", ""],
        ),
        // A kind of another's list counts too.
        (
            taken("kind", "foxtrot-listkind"),
            "False ListKindConflict: \"foxtrot-listkind\" is already in use",
            ["alfa", "delta-singular", "echo-kind", ""],
        ),
    ] {
        let doc = planned(&definition(|_| {}), &[other]);
        assert_eq!(text(&doc, "NamesAccepted"), condition);
        assert_eq!(text(&doc, "Established"), "False NotAccepted: not all names are accepted");
        assert_eq!(accepted(&doc), names, "{condition}");
    }
}

#[test]
fn short_names_are_told_of_together() {
    let doc = definition(|value| {
        value["spec"]["names"]["shortNames"] = json!(["hotel-shortname-2", "golf-shortname-1"])
    });
    let other =
        other(json!({"plural": "x", "kind": "y", "shortNames": ["hotel-shortname-2", "golf-shortname-1"]}));
    let doc = planned(&doc, &[other]);
    assert_eq!(
        text(&doc, "NamesAccepted"),
        "False ShortNamesConflict: [\"hotel-shortname-2\" is already in use, \"golf-shortname-1\" is already in use]"
    );
}

#[test]
fn names_in_other_groups_do_not_matter_and_own_names_stay() {
    let foreign = definition(|value| {
        value["spec"]["group"] = "other.com".into();
        value["status"]["acceptedNames"] = value["spec"]["names"].clone();
    });
    assert!(is_true(&planned(&definition(|_| {}), &[foreign]), "Established"));
    // Once established, a conflict over a new short name does not end it.
    let mut doc = planned(&definition(|_| {}), &[]);
    doc.set(&[d::SPEC, s::NAMES, n::SHORT_NAMES], vec![Value::from("taken")]);
    let doc = planned(&doc, &[other(json!({"plural": "x", "kind": "y", "shortNames": ["taken"]}))]);
    assert!(!is_true(&doc, "NamesAccepted") && is_true(&doc, "Established"));
}

#[test]
fn what_is_not_supported_is_not_established() {
    let rules = definition(|value| {
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {
            "spec": {"type": "object", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]},
        }});
    });
    let doc = planned(&rules, &[]);
    assert_eq!(
        text(&doc, "Established"),
        "False NotSupported: spec.versions[0].schema.openAPIV3Schema: x-kubernetes-validations (CEL rules) are not supported yet"
    );
    let webhook = definition(|value| value["spec"]["conversion"] = json!({"strategy": "Webhook"}));
    assert!(
        text(&planned(&webhook, &[]), "Established")
            .starts_with("False NotSupported: spec.conversion.strategy")
    );
    // Rules that come later end it; without them it comes back.
    let mut doc = planned(&definition(|_| {}), &[]);
    let schema = rules.get(&[d::SPEC, s::VERSIONS]).cloned().expect("versions");
    let plain = doc.get(&[d::SPEC, s::VERSIONS]).cloned().expect("versions");
    doc.set(&[d::SPEC, s::VERSIONS], schema);
    let mut doc = planned(&doc, &[]);
    assert!(!is_true(&doc, "Established"));
    doc.set(&[d::SPEC, s::VERSIONS], plain);
    assert!(is_true(&planned(&doc, &[]), "Established"));
}

#[test]
fn schemas_that_are_not_structural_are_told_of() {
    let doc = definition(|value| {
        value["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"properties": {"a": {}}});
    });
    assert_eq!(
        text(&planned(&doc, &[]), "NonStructuralSchema"),
        "True Violations: [spec.versions[0].schema.openAPIV3Schema.properties[a].type: Required value: must not be empty for \
         specified object fields, spec.versions[0].schema.openAPIV3Schema.type: Required value: must not be empty at the root]"
    );
}

#[test]
fn groups_of_the_community_need_approval() {
    for (group, annotation, expected) in [
        ("other.io", "", ""),
        (
            "sigs.k8s.io",
            "",
            "False MissingAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
        (
            "sigs.k8s.io",
            "bad value",
            "False InvalidAnnotation: protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
        (
            "sigs.k8s.io",
            "https://www.k8s.io/kubernetes/kubernetes/pull/78458",
            "True ApprovedAnnotation: approved in https://www.k8s.io/kubernetes/kubernetes/pull/78458",
        ),
        (
            "sigs.k8s.io",
            "unapproved, experimental-only",
            "False UnapprovedAnnotation: not approved: \"unapproved, experimental-only\"",
        ),
    ] {
        let doc = definition(|value| {
            value["spec"]["group"] = group.into();
            if !annotation.is_empty() {
                value["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": annotation});
            }
        });
        assert_eq!(text(&planned(&doc, &[]), "KubernetesAPIApprovalPolicyConformant"), expected);
    }
}
