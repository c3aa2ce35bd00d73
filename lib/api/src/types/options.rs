//! Options of requests and bodies of subresources that are no objects: their mistakes in upstream's words.

use crate::doc::Doc;
use crate::f::core_v1 as c;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::types::meta::validate_field_manager;

/// `fieldManager`, `dryRun` and `fieldValidation` of a write.
pub fn validate_write(field_manager: &str, dry_run: &[&str], field_validation: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_field_manager(field_manager, &FieldPath::new("fieldManager"), &mut errors);
    validate_dry_run(dry_run, &mut errors);
    if !matches!(field_validation, "" | "Ignore" | "Warn" | "Strict") {
        let at = FieldPath::new("fieldValidation");
        errors.not_supported(&at, field_validation, &["", "Ignore", "Strict", "Warn"]);
    }
    errors
}

fn validate_dry_run(dry_run: &[&str], errors: &mut ErrorList) {
    if dry_run.iter().any(|value| *value != "All") {
        errors.not_supported(&FieldPath::new("dryRun"), BadValue::json(&dry_run), &["All"]);
    }
}

/// `force` and `fieldManager` of a patch, beyond [`validate_write`].
pub fn validate_patch(apply: bool, field_manager: &str, force: Option<bool>) -> ErrorList {
    let mut errors = ErrorList::new();
    if apply {
        if field_manager.is_empty() {
            errors.required(&FieldPath::new("fieldManager"), "is required for apply patch");
        }
    } else if force.is_some() {
        errors.forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch");
    }
    errors
}

/// `propagationPolicy`, `orphanDependents` and `dryRun` of a deletion.
pub fn validate_delete(
    propagation_policy: Option<&str>,
    orphan_dependents: Option<bool>,
    dry_run: &[&str],
) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = FieldPath::new("propagationPolicy");
    if let Some(policy) = propagation_policy {
        if orphan_dependents.is_some() {
            errors.invalid(&at, policy, "orphanDependents and deletionPropagation cannot be both set");
        }
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            errors.not_supported(&at, policy, &["Foreground", "Background", "Orphan", "nil"]);
        }
    }
    validate_dry_run(dry_run, &mut errors);
    errors
}

/// A Binding: its target is a node with a name.
pub fn validate_binding(binding: &Doc) -> ErrorList {
    let mut errors = ErrorList::new();
    let target = FieldPath::new("target");
    let kind = binding.str(&[c::binding::TARGET, c::object_reference::KIND]);
    if !kind.is_empty() && kind != "Node" {
        errors.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
    }
    if binding.str(&[c::binding::TARGET, c::object_reference::NAME]).is_empty() {
        errors.required(&target.child("name"), "");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        assert_eq!(
            validate_write("", &["Some"], "Maybe").aggregate(),
            "[dryRun: Unsupported value: [\"Some\"]: supported values: \"All\", fieldValidation: Unsupported value: \
             \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        assert!(validate_write("kubectl", &["All"], "Strict").is_empty());
        assert_eq!(
            validate_patch(true, "", None).aggregate(),
            "fieldManager: Required value: is required for apply patch"
        );
        assert_eq!(
            validate_delete(Some("Never"), None, &[]).aggregate(),
            "propagationPolicy: Unsupported value: \"Never\": supported values: \"Foreground\", \"Background\", \
             \"Orphan\", \"nil\""
        );
        let mut binding = Doc::new(crate::t::core_v1::BINDING);
        assert_eq!(validate_binding(&binding).aggregate(), "target.name: Required value");
        binding.set(&[c::binding::TARGET, c::object_reference::NAME], "n");
        assert!(validate_binding(&binding).is_empty());
    }
}
