//! Rules of what extends the API: CustomResourceDefinition and APIService.

use super::definition::{self, SPEC};
use crate::doc::{Doc, Struct, Value};
use crate::f::apiextensions_v1 as x;
use crate::f::apiregistration_v1 as a;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::core::container::string_list;
use crate::types::meta::immutable;
use crate::types::walk::{default_int, default_str, strs, structs};
use crate::types::{GenerationRule, Strategy, columns};

const APPROVAL: &str = "api-approved.kubernetes.io";

fn child(doc: &Doc, field: Field) -> Option<&Struct> {
    doc.root().and_then(|root| root.child(field))
}

pub static CUSTOM_RESOURCE_DEFINITION: Strategy = Strategy {
    defaults: definition_defaults,
    generation: GenerationRule::Spec,
    prepare_create: |doc, _| store_version(doc),
    prepare_update: |new, _, _| store_version(new),
    validate_create: |doc, _, errors| {
        let plural = doc.str(&[
            x::custom_resource_definition::SPEC,
            SPEC_NAMES,
            x::custom_resource_definition_names::PLURAL,
        ]);
        let group =
            doc.str(&[x::custom_resource_definition::SPEC, x::custom_resource_definition_spec::GROUP]);
        let name = doc.meta().name();
        if !name.is_empty() && name != format!("{plural}.{group}") {
            let metadata = FieldPath::new("metadata");
            errors.invalid(&metadata.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        definition(doc, None, errors);
        approval(doc, None, errors);
    },
    validate_update: |new, old, _, errors| {
        definition(new, Some(old), errors);
        fixed_parts(new, old, errors);
        approval(new, Some(old), errors);
    },
    validate_status_update: |new, _, _, errors| accepted_names(new, errors),
    warnings: |new, old, ctx| match ctx.subresource {
        "" => definition::format_warnings(new, old),
        _ => Vec::new(),
    },
    allow_unconditional_update: false,
    ..Strategy::BASE
};

const SPEC_NAMES: Field = x::custom_resource_definition_spec::NAMES;

fn definition_defaults(doc: &mut Doc) {
    use x::custom_resource_definition_names as n;
    let spec = doc.root_mut().and_then(|root| root.child_mut(x::custom_resource_definition::SPEC));
    let Some(spec) = spec else { return };
    if let Some(names) = spec.child_mut(SPEC_NAMES) {
        let kind = names.str(n::KIND).to_owned();
        default_str(names, n::SINGULAR, &kind.to_ascii_lowercase());
        if !kind.is_empty() {
            default_str(names, n::LIST_KIND, &format!("{kind}List"));
        }
    }
    webhook_port(doc);
    if doc
        .list(&[x::custom_resource_definition::STATUS, x::custom_resource_definition_status::STORED_VERSIONS])
        .is_empty()
    {
        store_version(doc);
    }
}

fn webhook_port(doc: &mut Doc) {
    let path = [
        x::custom_resource_definition::SPEC,
        x::custom_resource_definition_spec::CONVERSION,
        x::custom_resource_conversion::WEBHOOK,
        x::webhook_conversion::CLIENT_CONFIG,
        x::webhook_client_config::SERVICE,
    ];
    if let Some(service) = doc.get_mut(&path).and_then(Value::as_struct_mut) {
        if !service.has(x::service_reference::PORT) {
            service.set(x::service_reference::PORT, 443i64);
        }
    }
}

/// The version in use is one that may be found stored.
fn store_version(doc: &mut Doc) {
    use x::custom_resource_definition_version as v;
    let path = [x::custom_resource_definition::STATUS, x::custom_resource_definition_status::STORED_VERSIONS];
    let stored = child(doc, x::custom_resource_definition::SPEC).and_then(|spec| {
        structs(spec, x::custom_resource_definition_spec::VERSIONS)
            .find(|(_, one)| one.bool(v::STORAGE) == Some(true))
            .map(|(_, one)| one.str(v::NAME).to_owned())
    });
    let Some(stored) = stored else { return };
    if let Some(list) = doc.entry(&path).and_then(Value::as_list_mut)
        && !list.iter().any(|one| one.as_str() == Some(&stored))
    {
        list.push(Value::from(stored.as_str()));
    }
}

fn definition(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    use x::custom_resource_definition_names as n;
    use x::custom_resource_definition_spec as s;
    let empty = Struct::new(crate::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION_SPEC);
    let spec = definition::spec_of(doc).unwrap_or(&empty);
    let old_doc = old;
    let old = old.map(|old| definition::spec_of(old).unwrap_or(&empty));
    let group = spec.str(s::GROUP);
    let at = SPEC.child("group");
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.required(&at, "");
    } else if !wrong.is_empty() {
        errors.invalid(&at, group, wrong.join(","));
    } else if !group.contains('.') {
        errors.invalid(&at, group, "should be a domain with at least one dot");
    }
    let at = SPEC.child("scope");
    match spec.str(s::SCOPE) {
        "" => errors.required(&at, ""),
        "Cluster" | "Namespaced" => {}
        other => {
            errors.not_supported(&at, other, &["Cluster", "Namespaced"]);
        }
    }
    definition::validate_versions(spec, old, errors);
    let at = SPEC.child("names");
    let none = Struct::new(crate::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION_NAMES);
    let kinds = spec.child(s::NAMES).unwrap_or(&none);
    for field in [n::PLURAL, n::SINGULAR, n::KIND, n::LIST_KIND] {
        if kinds.str(field).is_empty() {
            errors.required(&at.child(field.def().json), "");
        }
    }
    resource_names(kinds, &at, errors);
    definition::validate_common(spec, old, errors);
    let established = old_doc.is_some_and(is_established);
    definition::validate_conversion(spec, old, established, errors);
    let before = old.is_some_and(|old| old.bool(s::PRESERVE_UNKNOWN_FIELDS) == Some(true));
    if spec.bool(s::PRESERVE_UNKNOWN_FIELDS) == Some(true) && !before {
        let text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&SPEC.child("preserveUnknownFields"), true, text);
    }
    accepted_names(doc, errors);
    stored_versions(doc, spec, errors);
}

fn resource_names(kinds: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    use x::custom_resource_definition_names as n;
    for (field, mixed) in [(n::PLURAL, false), (n::SINGULAR, false), (n::KIND, true), (n::LIST_KIND, true)] {
        let value = kinds.str(field);
        let wrong = match mixed {
            true => names::dns1035_label(&value.to_ascii_lowercase()),
            false => names::dns1035_label(value),
        };
        if !value.is_empty() && !wrong.is_empty() {
            let start = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&at.child(field.def().json), value, format!("{start}{}", wrong.join(",")));
        }
    }
    let label = |field: Field, errors: &mut ErrorList| {
        for (i, value) in strs(kinds, field) {
            let wrong = names::dns1035_label(value);
            if !wrong.is_empty() {
                errors.invalid(&at.child(field.def().json).index(i), value, wrong.join(","));
            }
        }
    };
    label(n::SHORT_NAMES, errors);
    let list_kind = kinds.str(n::LIST_KIND);
    if !list_kind.is_empty() && kinds.str(n::KIND) == list_kind {
        errors.invalid(&at.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
    label(n::CATEGORIES, errors);
}

fn accepted_names(doc: &Doc, errors: &mut ErrorList) {
    let status = FieldPath::new("status");
    let accepted = child(doc, x::custom_resource_definition::STATUS)
        .and_then(|status| status.child(x::custom_resource_definition_status::ACCEPTED_NAMES));
    if let Some(accepted) = accepted {
        resource_names(accepted, &status.child("acceptedNames"), errors);
    }
}

fn stored_versions(doc: &Doc, spec: &Struct, errors: &mut ErrorList) {
    use x::custom_resource_definition_status as s;
    use x::custom_resource_definition_version as v;
    let status = FieldPath::new("status");
    let at = status.child("storedVersions");
    let none = Struct::new(crate::t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION_STATUS);
    let stored = child(doc, x::custom_resource_definition::STATUS).unwrap_or(&none);
    if stored.list(s::STORED_VERSIONS).is_empty() {
        let value = string_list(stored, s::STORED_VERSIONS);
        errors.invalid(&at, value, "must have at least one stored version");
        return;
    }
    for (_, version) in definition::versions(spec).filter(|(_, one)| one.bool(v::STORAGE) == Some(true)) {
        let name = version.str(v::NAME);
        if !strs(stored, s::STORED_VERSIONS).any(|(_, known)| known == name) {
            let value = string_list(stored, s::STORED_VERSIONS);
            errors.invalid(&at, value, format!("must have the storage version {name}"));
        }
    }
    let known = |name: &str| {
        structs(spec, x::custom_resource_definition_spec::VERSIONS).any(|(_, one)| one.str(v::NAME) == name)
    };
    for (i, name) in strs(stored, s::STORED_VERSIONS).filter(|(_, name)| !known(name)) {
        let text = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a \
             storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.invalid(&at.index(i), name, text);
    }
}

fn is_established(doc: &Doc) -> bool {
    child(doc, x::custom_resource_definition::STATUS)
        .is_some_and(|status| crate::structural::custom::is_true(status, "Established"))
}

fn fixed_parts(new: &Doc, old: &Doc, errors: &mut ErrorList) {
    use x::custom_resource_definition_names as n;
    use x::custom_resource_definition_spec as s;
    let root = x::custom_resource_definition::SPEC;
    let established = is_established(old);
    let names = SPEC.child("names");
    if established {
        immutable(new.get(&[root, s::SCOPE]), old.get(&[root, s::SCOPE]), &SPEC.child("scope"), errors);
        let kind = [root, s::NAMES, n::KIND];
        immutable(new.get(&kind), old.get(&kind), &names.child("kind"), errors);
    }
    immutable(new.get(&[root, s::GROUP]), old.get(&[root, s::GROUP]), &SPEC.child("group"), errors);
    let plural = [root, s::NAMES, n::PLURAL];
    immutable(new.get(&plural), old.get(&plural), &names.child("plural"), errors);
}

/// What the annotation says of a group that belongs to the community: nothing, something wrong, or enough.
#[derive(PartialEq, Eq)]
enum Approval {
    Missing,
    Bypassed,
    Approved,
    Invalid,
}

fn approval_state(doc: &Doc) -> Approval {
    let text = doc.meta().annotation(APPROVAL).unwrap_or("");
    let is_url = text
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    match text {
        "" => Approval::Missing,
        text if text.starts_with("unapproved") => Approval::Bypassed,
        _ if is_url => Approval::Approved,
        _ => Approval::Invalid,
    }
}

fn approval(doc: &Doc, old: Option<&Doc>, errors: &mut ErrorList) {
    let group = doc.str(&[x::custom_resource_definition::SPEC, x::custom_resource_definition_spec::GROUP]);
    let protected =
        |domain: &str| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return;
    }
    let state = approval_state(doc);
    if old.is_some_and(|old| approval_state(old) == state) {
        return;
    }
    let metadata = FieldPath::new("metadata");
    let annotations = metadata.child("annotations");
    let at = annotations.key(APPROVAL);
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let text = format!("protected groups must have approval annotation \"{APPROVAL}\"");
    match state {
        Approval::Missing => errors.required(&at, format!("{text}, {SEE}")),
        Approval::Invalid => {
            let value = doc.meta().annotation(APPROVAL).unwrap_or("");
            let text = format!("{text} with either a URL or a reason starting with \"unapproved\", {SEE}");
            errors.invalid(&at, value, text);
        }
        Approval::Bypassed | Approval::Approved => {}
    }
}

pub static API_SERVICE: Strategy = Strategy {
    name_rule: |name, _| names::path_segment(name),
    defaults: |doc| {
        let spec = doc.root_mut().and_then(|root| root.child_mut(a::api_service::SPEC));
        if let Some(service) = spec.and_then(|spec| spec.child_mut(a::api_service_spec::SERVICE)) {
            default_int(service, a::service_reference::PORT, 443);
        }
    },
    validate_create: |doc, _, errors| api_service(doc, errors),
    validate_update: |new, _, _, errors| api_service(new, errors),
    allow_unconditional_update: false,
    columns: &columns::discovery::API_SERVICE,
    ..Strategy::BASE
};

fn api_service(doc: &Doc, errors: &mut ErrorList) {
    use a::api_service_spec as s;
    let empty = Struct::new(crate::t::apiregistration_v1::API_SERVICE_SPEC);
    let spec = child(doc, a::api_service::SPEC).unwrap_or(&empty);
    let (group, version) = (spec.str(s::GROUP), spec.str(s::VERSION));
    let (name, required) = (doc.meta().name(), format!("{version}.{group}"));
    if !name.is_empty() && name != required {
        let metadata = FieldPath::new("metadata");
        let text = format!("must be `spec.version+\".\"+spec.group`: \"{required}\"");
        errors.invalid(&metadata.child("name"), name, text);
    }
    if group.is_empty() && version != "v1" {
        errors.required(&SPEC.child("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        errors.invalid_each(&SPEC.child("group"), group, names::dns1123_subdomain(group));
    }
    errors.invalid_each(&SPEC.child("version"), version, names::dns1035_label(version));
    for (field, most) in [(s::GROUP_PRIORITY_MINIMUM, 20000), (s::VERSION_PRIORITY, 1000)] {
        let number = spec.int(field).unwrap_or(0);
        if !(1..=most).contains(&number) {
            errors.invalid(
                &SPEC.child(field.def().json),
                number,
                format!("must be positive and less than {most}"),
            );
        }
    }
    let trusts_all = spec.bool(s::INSECURE_SKIP_TLS_VERIFY) == Some(true);
    let bundle = spec.str(s::CA_BUNDLE);
    let Some(service) = spec.child(s::SERVICE) else {
        if !bundle.is_empty() {
            let bytes = bundle.trim_end_matches('=').len() * 3 / 4;
            let text = "local APIServices may not have a caBundle";
            errors.invalid(&SPEC.child("caBundle"), format!("{bytes} bytes"), text);
        }
        if trusts_all {
            let text = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, text);
        }
        return;
    };
    let at = SPEC.child("service");
    for field in [a::service_reference::NAMESPACE, a::service_reference::NAME] {
        if service.str(field).is_empty() {
            errors.required(&at.child(field.def().json), "");
        }
    }
    let port = service.int(a::service_reference::PORT).unwrap_or(0);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        errors.invalid(&at.child("port"), port, format!("port is not valid: {}", wrong.join(", ")));
    }
    if trusts_all && !bundle.is_empty() {
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
}
