//! The parts of a CustomResourceDefinition's spec that each version has: schema, subresources, columns, selectable fields; and its
//! conversion (apiextensions `validation.go`).
//!
//! As upstream converts v1 before it validates, a part that is the same in every version is told of once, as the spec's own.

use crate::doc::{Doc, Struct, Value};
use crate::f::apiextensions_v1 as x;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::structural::keywords::{self, Strictness};
use crate::structural::{Schema, defaults, formats, rules, selectable};
use crate::types::walk::{json_text, present, strs, structs};
use x::custom_resource_definition_version as v;
use x::json_schema_props as j;

pub(super) const SPEC: FieldPath<'static> = FieldPath::new("spec");
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// Keywords at the root of a schema whose status is validated apart.
const AT_ROOT: [(&str, Field); 22] = [
    ("Description", j::DESCRIPTION),
    ("Type", j::TYPE),
    ("Format", j::FORMAT),
    ("Title", j::TITLE),
    ("Maximum", j::MAXIMUM),
    ("ExclusiveMaximum", j::EXCLUSIVE_MAXIMUM),
    ("Minimum", j::MINIMUM),
    ("ExclusiveMinimum", j::EXCLUSIVE_MINIMUM),
    ("MaxLength", j::MAX_LENGTH),
    ("MinLength", j::MIN_LENGTH),
    ("Pattern", j::PATTERN),
    ("MaxItems", j::MAX_ITEMS),
    ("MinItems", j::MIN_ITEMS),
    ("UniqueItems", j::UNIQUE_ITEMS),
    ("MultipleOf", j::MULTIPLE_OF),
    ("Required", j::REQUIRED),
    ("Items", j::ITEMS),
    ("Properties", j::PROPERTIES),
    ("ExternalDocs", j::EXTERNAL_DOCS),
    ("Example", j::EXAMPLE),
    ("XPreserveUnknownFields", j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS),
    ("XValidations", j::X_KUBERNETES_VALIDATIONS),
];

/// The spec of a definition.
pub(super) fn spec_of(doc: &Doc) -> Option<&Struct> {
    doc.root().and_then(|root| root.child(x::custom_resource_definition::SPEC))
}

/// The versions of a spec, with their places.
pub(super) fn versions(spec: &Struct) -> impl Iterator<Item = (usize, &Struct)> {
    structs(spec, x::custom_resource_definition_spec::VERSIONS)
}

/// A version's schema as it was written.
pub fn schema_of(version: &Struct) -> Option<&Struct> {
    version.child(v::SCHEMA)?.child(x::custom_resource_validation::OPEN_APIV3_SCHEMA)
}

fn schemas(spec: &Struct) -> impl Iterator<Item = &Struct> {
    versions(spec).filter_map(|(_, version)| schema_of(version))
}

/// What an update must hold, by what the stored definition held.
fn strictness(spec: &Struct, old: Option<&Struct>) -> Strictness {
    let Some(old) = old else { return Strictness::FULL };
    let preserves = spec.bool(x::custom_resource_definition_spec::PRESERVE_UNKNOWN_FIELDS) == Some(true);
    let extended = |node: &Struct| {
        node.has(j::DEFAULT)
            || [
                j::X_KUBERNETES_EMBEDDED_RESOURCE,
                j::X_KUBERNETES_PRESERVE_UNKNOWN_FIELDS,
                j::X_KUBERNETES_INT_OR_STRING,
                j::X_KUBERNETES_LIST_MAP_KEYS,
                j::X_KUBERNETES_LIST_TYPE,
                j::X_KUBERNETES_VALIDATIONS,
            ]
            .into_iter()
            .any(|field| node.has(field))
    };
    let is_structural = |schema: &Struct| {
        let mut errors = ErrorList::new();
        rules::structural(schema, &SPEC, &mut errors);
        Schema::parse(schema).is_ok() && errors.is_empty()
    };
    let without =
        |broken: &dyn Fn(&Struct) -> bool| !schemas(old).any(|schema| keywords::any(schema, broken));
    let unpruned =
        |schema: &Struct| Schema::parse(schema).is_ok_and(|schema| defaults::has_unpruned(&schema));
    Strictness {
        types: without(&keywords::has_unknown_type),
        atomic_sets: without(&keywords::has_open_set),
        map_keys: without(&keywords::has_loose_keys),
        pruned_defaults: !schemas(old).any(unpruned),
        // Only objects that keep everything can do without, and only as long as nothing else asks for it.
        structural: !preserves
            || schemas(old).all(is_structural)
            || schemas(spec).any(|schema| keywords::any(schema, &extended)),
    }
}

/// Whether every version says the same of a part, so that it counts as the spec's own.
fn hoisted(spec: &Struct, field: Field) -> bool {
    let mut all = versions(spec).map(|(_, version)| version.get(field));
    let Some(first) = all.next() else { return false };
    all.all(|other| crate::types::walk::same(first, other))
}

fn has_status(version: &Struct) -> bool {
    version
        .child(v::SUBRESOURCES)
        .is_some_and(|subresources| subresources.has(x::custom_resource_subresources::STATUS))
}

/// The mistakes of what each version says for itself, and of the list of versions.
pub(super) fn validate_versions(spec: &Struct, old: Option<&Struct>, errors: &mut ErrorList) {
    let list = SPEC.child("versions");
    let preserves = spec.bool(x::custom_resource_definition_spec::PRESERVE_UNKNOWN_FIELDS) == Some(true);
    let has_schema = |version: &Struct| schema_of(version).is_some();
    if old.is_none_or(|old| versions(old).all(|(_, version)| has_schema(version))) {
        for (i, _) in versions(spec).filter(|(_, version)| !has_schema(version)) {
            errors.required(&list.index(i).child("schema").child("openAPIV3Schema"), "");
        }
    } else if !preserves {
        let served = |version: &Struct| version.bool(v::SERVED) == Some(true);
        for (i, _) in versions(spec).filter(|(_, version)| !has_schema(version) && served(version)) {
            let at = list.index(i);
            errors.required(
                &at.child("schema").child("openAPIV3Schema"),
                "because otherwise all fields are pruned",
            );
        }
    }
    let defaults = |schema: &Struct| keywords::any(schema, &|node| node.has(j::DEFAULT));
    if preserves && schemas(spec).any(defaults) {
        let text = "must be false in order to use defaults in the schema";
        errors.invalid(&SPEC.child("preserveUnknownFields"), true, text);
    }
    let strict = strictness(spec, old);
    let parts = Parts::of(spec);
    let (mut seen, mut unique, mut storage) = (Vec::new(), true, 0);
    for (i, version) in versions(spec) {
        let (at, name) = (list.index(i), version.str(v::NAME));
        storage += i32::from(version.bool(v::STORAGE) == Some(true));
        unique &= !seen.contains(&name);
        seen.push(name);
        let wrong = names::dns1035_label(name);
        if !wrong.is_empty() {
            errors.invalid(&at.child("name"), name, wrong.join(","));
        }
        deprecation(version, &at.child("deprecationWarning"), errors);
        parts.validate(false, version, has_status(version), old, strict, &at, errors);
    }
    let value = || json_text(spec.get(x::custom_resource_definition_spec::VERSIONS));
    if !unique {
        errors.invalid(&list, value(), "must contain unique version names");
    }
    if storage != 1 {
        errors.invalid(&list, value(), "must have exactly one version marked as storage version");
    }
    // The first version is the spec's own to upstream.
    if let Some((_, first)) = versions(spec).next() {
        let name = first.str(v::NAME);
        let wrong = names::dns1035_label(name);
        if !name.is_empty() && !wrong.is_empty() {
            errors.invalid(&SPEC.child("version"), name, wrong.join(","));
        }
    }
}

/// The mistakes of what all versions say alike.
pub(super) fn validate_common(spec: &Struct, old: Option<&Struct>, errors: &mut ErrorList) {
    let Some((_, first)) = versions(spec).next() else { return };
    let any_status = versions(spec).any(|(_, version)| has_status(version));
    Parts::of(spec).validate(true, first, any_status, old, strictness(spec, old), &SPEC, errors);
}

/// Which parts are the spec's own.
struct Parts {
    schema: bool,
    subresources: bool,
    columns: bool,
    selectable: bool,
}

impl Parts {
    fn of(spec: &Struct) -> Parts {
        Parts {
            schema: hoisted(spec, v::SCHEMA),
            subresources: hoisted(spec, v::SUBRESOURCES),
            columns: hoisted(spec, v::ADDITIONAL_PRINTER_COLUMNS),
            selectable: hoisted(spec, v::SELECTABLE_FIELDS),
        }
    }

    /// `common`: the spec's own parts, else those of one version.
    #[allow(clippy::too_many_arguments, reason = "where the parts stand and what they must hold")]
    fn validate(
        &self,
        common: bool,
        version: &Struct,
        status: bool,
        old: Option<&Struct>,
        strict: Strictness,
        at: &FieldPath<'_>,
        errors: &mut ErrorList,
    ) {
        if self.schema == common
            && let Some(schema) = schema_of(version)
        {
            let path = at.child(if common { "validation" } else { "schema" });
            validate_schema(schema, status, strict, &path, errors);
        }
        if self.subresources == common
            && let Some(subresources) = version.child(v::SUBRESOURCES)
        {
            scale(subresources, &at.child("subresources"), errors);
        }
        if self.columns == common {
            let path = at.child("additionalPrinterColumns");
            for (i, column) in structs(version, v::ADDITIONAL_PRINTER_COLUMNS) {
                printer_column(column, &path.index(i), errors);
            }
        }
        if self.selectable == common && !version.list(v::SELECTABLE_FIELDS).is_empty() {
            // The spec's own fields are those of a schema that is the spec's own too.
            let schema = schema_of(version).filter(|_| self.schema || !common);
            selectable_fields(version, schema, common, old, at, errors);
        }
    }
}

fn validate_schema(
    schema: &Struct,
    status: bool,
    strict: Strictness,
    at: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let here = at.child("openAPIV3Schema");
    let before = errors.len();
    if status {
        root_keywords(schema, &here, errors);
    }
    if schema.bool(j::NULLABLE) == Some(true) {
        errors.forbidden(&here.child("nullable"), "nullable cannot be true at the root");
    }
    let mut unreadable = None;
    match Schema::parse(schema) {
        _ if !strict.structural => {}
        Err(error) => unreadable = Some(error.to_string()),
        Ok(parsed) => {
            let structural = errors.len();
            rules::structural(schema, &here, errors);
            if errors.len() == structural {
                defaults::check(&parsed, &here, strict.pruned_defaults, errors);
            }
        }
    }
    keywords::validate(schema, &here, strict, errors);
    if let Some(text) = unreadable.filter(|_| errors.len() == before) {
        errors.invalid(&here, "", text);
    }
}

fn root_keywords(schema: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    for (index, value) in schema.iter() {
        let field = Field::new(schema.ty(), index);
        if value.is_go_empty() {
            continue;
        }
        if field == j::TYPE {
            let ty = schema.str(j::TYPE);
            if ty != "object" {
                let text = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.invalid(&at.child("type"), ty, text);
                return;
            }
        } else if !AT_ROOT.iter().any(|(_, allowed)| *allowed == field) {
            let all: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
            let text = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                all.join(" ")
            );
            errors.invalid(at, json_text(Some(&Value::Struct(schema.clone()))), text);
            return;
        }
    }
}

fn selectable_fields(
    version: &Struct,
    schema: Option<&Struct>,
    common: bool,
    old: Option<&Struct>,
    at: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    let path = at.child("selectableFields");
    let Some(schema) = schema else {
        let text = if common {
            "may only be set when validations.schema is included"
        } else {
            "may only be set when `version.schema.openAPIV3Schema` is not included"
        };
        return errors.invalid(&path, "", text);
    };
    let schema = match Schema::parse(schema) {
        Ok(schema) => schema,
        Err(error) => {
            return errors.invalid(&at.child("schema").child("openAPIV3Schema"), "", error.to_string());
        }
    };
    let name = version.str(v::NAME);
    let same = |(_, old): (usize, &Struct)| {
        (common || old.str(v::NAME) == name)
            && old.list(v::SELECTABLE_FIELDS).len() > selectable::MAX_FIELDS
            && old.get(v::SELECTABLE_FIELDS) == version.get(v::SELECTABLE_FIELDS)
    };
    let excess = old.is_some_and(|old| versions(old).any(same));
    selectable::validate(structs(version, v::SELECTABLE_FIELDS), &schema, &path, excess, errors);
}

fn deprecation(version: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    if !present(version, v::DEPRECATION_WARNING) {
        return;
    }
    let text = version.str(v::DEPRECATION_WARNING);
    if version.bool(v::DEPRECATED) != Some(true) {
        errors.invalid(at, text, "can only be set for deprecated versions");
        return;
    }
    if text.len() > 256 {
        errors.invalid(at, text, "must be <= 256 characters long");
    }
    if text.is_empty() {
        errors.invalid(at, text, "must not be an empty string");
    }
    if let Some((i, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let what = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {i}"
        );
        errors.invalid(at, text, what);
    }
}

/// A path such as `.spec.replicas`.
fn simple_path(path: &str, at: &FieldPath<'_>, errors: &mut ErrorList) -> bool {
    let fine = path.starts_with('.');
    if !fine {
        errors.invalid(at, path, "must be a simple json path starting with .");
    }
    fine
}

fn scale(subresources: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    use x::custom_resource_subresource_scale as s;
    let Some(scale) = subresources.child(x::custom_resource_subresources::SCALE) else { return };
    let here = at.child("scale");
    for (field, under, required) in [
        (s::SPEC_REPLICAS_PATH, &[".spec."][..], true),
        (s::STATUS_REPLICAS_PATH, &[".status."], true),
        (s::LABEL_SELECTOR_PATH, &[".spec.", ".status."], false),
    ] {
        let (path, at) = (scale.str(field), here.child(field.def().json));
        if path.is_empty() {
            if required {
                errors.required(&at, "");
            }
        } else if simple_path(path, &at, errors) && !under.iter().any(|start| path.starts_with(start)) {
            let text = match under {
                [start] => format!("should be a json path under {}", start.trim_end_matches('.')),
                _ => "should be a json path under either .spec or .status".to_owned(),
            };
            errors.invalid(&at, path, text);
        }
    }
}

fn printer_column(column: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    use x::custom_resource_column_definition as c;
    if column.str(c::NAME).is_empty() {
        errors.required(&at.child("name"), "");
    }
    let kind = column.str(c::TYPE);
    let kinds = || format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.required(&at.child("type"), kinds());
    } else if !COLUMN_TYPES.contains(&kind) {
        errors.invalid(&at.child("type"), kind, kinds());
    }
    let format = column.str(c::FORMAT);
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&at.child("format"), format, format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    let path = column.str(c::JSON_PATH);
    if path.is_empty() {
        errors.required(&at.child("JSONPath"), "");
    } else {
        simple_path(path, &at.child("JSONPath"), errors);
    }
}

/// The mistakes of `spec.conversion`. Paths are those of upstream's internal type.
pub(super) fn validate_conversion(
    spec: &Struct,
    old: Option<&Struct>,
    established: bool,
    errors: &mut ErrorList,
) {
    use x::custom_resource_conversion as c;
    use x::webhook_conversion as w;
    let Some(conversion) = spec.child(x::custom_resource_definition_spec::CONVERSION) else { return };
    let at = SPEC.child("conversion");
    let strategy = conversion.str(c::STRATEGY);
    let path = at.child("strategy");
    match strategy {
        "" => errors.required(&path, ""),
        "None" | "Webhook" => {}
        other => errors.not_supported(&path, other, &["None", "Webhook"]),
    }
    let webhook = conversion.child(c::WEBHOOK);
    let client = webhook.and_then(|webhook| webhook.child(w::CLIENT_CONFIG));
    let reviews = |webhook: Option<&Struct>| -> Vec<String> {
        webhook
            .into_iter()
            .flat_map(|webhook| strs(webhook, w::CONVERSION_REVIEW_VERSIONS))
            .map(|(_, version)| version.to_owned())
            .collect()
    };
    let (client_at, reviews_at) = (at.child("webhookClientConfig"), at.child("conversionReviewVersions"));
    let given = reviews(webhook);
    if strategy != "Webhook" {
        let text = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.forbidden(&client_at, text);
        }
        if !given.is_empty() {
            errors.forbidden(&reviews_at, text);
        }
        return;
    }
    match client {
        None => errors.required(&client_at, "required when strategy is set to Webhook"),
        Some(client) => webhook_client(client, &client_at, errors),
    }
    let before = || {
        old?.child(x::custom_resource_definition_spec::CONVERSION)?.child(c::WEBHOOK)?.child(w::CLIENT_CONFIG)
    };
    let bundle = client.map_or("", |client| client.str(x::webhook_client_config::CA_BUNDLE));
    let bad_before = || before().is_some_and(|old| !is_pem(old.str(x::webhook_client_config::CA_BUNDLE)));
    if established && !is_pem(bundle) && !bad_before() {
        let text = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.invalid(&client_at.child("caBundle"), bundle, text);
    }
    let known = |all: &[String]| all.iter().any(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let before = old
        .and_then(|old| old.child(x::custom_resource_definition_spec::CONVERSION))
        .map(|old| reviews(old.child(c::WEBHOOK)));
    if given.is_empty() {
        return errors.required(&reviews_at, "");
    }
    for (i, version) in given.iter().enumerate() {
        if given[..i].contains(version) {
            errors.invalid(&reviews_at.index(i), version, "duplicate version");
            continue;
        }
        errors.invalid_each(&reviews_at.index(i), version, names::dns1035_label(version));
    }
    if !known(&given) && before.is_none_or(|before| before.is_empty() || known(&before)) {
        let value = BadValue::json(&given);
        errors.invalid(&reviews_at, value, "must include at least one of v1, v1beta1");
    }
}

fn webhook_client(client: &Struct, at: &FieldPath<'_>, errors: &mut ErrorList) {
    use x::service_reference as s;
    use x::webhook_client_config as w;
    match (client.has(w::URL), client.child(w::SERVICE)) {
        (true, Some(_)) | (false, None) => errors.required(at, "exactly one of url or service is required"),
        (true, None) => webhook_url(client.str(w::URL), &at.child("url"), errors),
        (false, Some(service)) => {
            let at = at.child("service");
            if service.str(s::NAME).is_empty() {
                errors.required(&at.child("name"), "service name is required");
            }
            if service.str(s::NAMESPACE).is_empty() {
                errors.required(&at.child("namespace"), "service namespace is required");
            }
            let port = service.int(s::PORT).unwrap_or(443);
            if !(1..=65535).contains(&port) {
                let text = "port is not valid: must be between 1 and 65535, inclusive";
                errors.invalid(&at.child("port"), port, text);
            }
            let path = service.str(s::PATH);
            if service.has(s::PATH) && !path.starts_with('/') {
                errors.invalid(&at.child("path"), path, "must start with a '/'");
            }
        }
    }
}

/// Whether a bundle (base64) holds a PEM block; an empty one asks for nothing.
fn is_pem(bundle: &str) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default();
    bundle.is_empty() || String::from_utf8_lossy(&decoded).contains("-----BEGIN CERTIFICATE-----")
}

fn webhook_url(url: &str, at: &FieldPath<'_>, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        errors.invalid(at, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() || scheme.is_empty() {
        errors.invalid(at, "", format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = authority.rsplit_once('@') {
        errors.invalid(at, user, "user information is not permitted in the URL");
    }
    let (before, fragment) = url.split_once('#').unwrap_or((url, ""));
    if !fragment.is_empty() {
        errors.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = before.split_once('?').filter(|(_, query)| !query.is_empty()) {
        errors.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

/// Formats that nothing checks, new ones where an older definition is known.
pub(super) fn format_warnings(new: &Doc, old: Option<&Doc>) -> Vec<String> {
    let unknown = |doc: &Doc| {
        let found = std::cell::RefCell::new(Vec::<String>::new());
        for schema in spec_of(doc).into_iter().flat_map(schemas) {
            keywords::any(schema, &|node| {
                let format = node.str(j::FORMAT);
                let ty = match node.str(j::TYPE) {
                    "" => crate::structural::Type::Any,
                    _ => Schema::parse(node).map_or(crate::structural::Type::Any, |schema| schema.ty()),
                };
                if !format.is_empty() && !formats::is_known(format, ty) {
                    found.borrow_mut().push(format.to_owned());
                }
                false
            });
        }
        found.into_inner()
    };
    let known = old.map(unknown).unwrap_or_default();
    let mut warnings: Vec<String> = Vec::new();
    for format in unknown(new).into_iter().filter(|format| !known.contains(format)) {
        let text = format!("unrecognized format {}", crate::field_errors::quoted(&format));
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }
    warnings
}
