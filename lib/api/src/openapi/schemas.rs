//! Definitions, from the field schema.

use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::{Dialect, Source, custom, enums};
use crate::schema::{DefaultValue, FieldDef, Flags, Kind, ListType, PatchStrategy, StructDef, TypeId};
use crate::table::Resource;

pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const API_RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const API_VERSIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIVersions";
pub(super) const API_GROUP: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroup";
pub(super) const API_GROUP_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIGroupList";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
pub(super) const VERSION: &str = "io.k8s.apimachinery.pkg.version.Info";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const PERSISTENT_VOLUME_SPEC: &str = "io.k8s.api.core.v1.PersistentVolumeSpec";
const CLAIM_STATUS: &str = "io.k8s.api.core.v1.PersistentVolumeClaimStatus";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const DURATION: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Duration";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const SCHEMA_OR_ARRAY: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray";
const SCHEMA_OR_BOOL: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool";
const SCHEMA_OR_STRINGS: &str =
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray";

/// The fields whose defaults upstream's types declare, so that its OpenAPI shows them. All other defaults are its code's.
const DECLARED: &[(&str, &str)] = &[
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "cachingMode"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "fsType"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "kind"),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "readOnly"),
    ("io.k8s.api.core.v1.ConfigMapEnvSource", "name"),
    ("io.k8s.api.core.v1.ConfigMapKeySelector", "name"),
    ("io.k8s.api.core.v1.ConfigMapProjection", "name"),
    ("io.k8s.api.core.v1.ConfigMapVolumeSource", "name"),
    ("io.k8s.api.core.v1.ContainerPort", "protocol"),
    ("io.k8s.api.core.v1.FileKeySelector", "optional"),
    ("io.k8s.api.core.v1.GRPCAction", "service"),
    ("io.k8s.api.core.v1.ISCSIPersistentVolumeSource", "iscsiInterface"),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", "iscsiInterface"),
    ("io.k8s.api.core.v1.LocalObjectReference", "name"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "keyring"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "pool"),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "user"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "keyring"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "pool"),
    ("io.k8s.api.core.v1.RBDVolumeSource", "user"),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "minReadySeconds"),
    ("io.k8s.api.core.v1.ReplicationControllerSpec", "replicas"),
    ("io.k8s.api.core.v1.ScaleIOPersistentVolumeSource", "fsType"),
    ("io.k8s.api.core.v1.ScaleIOPersistentVolumeSource", "storageMode"),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", "fsType"),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", "storageMode"),
    ("io.k8s.api.core.v1.SecretEnvSource", "name"),
    ("io.k8s.api.core.v1.SecretKeySelector", "name"),
    ("io.k8s.api.core.v1.SecretProjection", "name"),
    ("io.k8s.api.core.v1.ServicePort", "protocol"),
    ("io.k8s.api.autoscaling.v1.ScaleSpec", "replicas"),
    ("io.k8s.api.resource.v1.DeviceToleration", "operator"),
];

/// The definition of a row's kind: a custom resource's is named by its reversed group.
pub(super) fn row_definition(row: &Resource) -> String {
    match row.ty {
        Some(ty) => ty.def().name.to_owned(),
        None => custom_name(&row.group, &row.version, &row.kind),
    }
}

/// The definition of a row's list.
pub(super) fn list_definition(row: &Resource) -> String {
    match (row.ty, row.list_ty) {
        (Some(_), Some(list)) => list.def().name.to_owned(),
        _ => custom_name(&row.group, &row.version, &row.list_kind),
    }
}

/// The definition of a built-in kind.
pub(super) fn kind_definition(group: &str, version: &str, kind: &str) -> String {
    TypeId::by_gvk(group, version, kind).map_or_else(|| STATUS.to_owned(), |ty| ty.def().name.to_owned())
}

fn custom_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn by_name(definition: &str) -> Option<TypeId> {
    static INDEX: OnceLock<HashMap<&'static str, TypeId>> = OnceLock::new();
    INDEX.get_or_init(|| TypeId::all().map(|ty| (ty.def().name, ty)).collect()).get(definition).copied()
}

/// What a kind refers to by name, itself or in its elements.
fn reference_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Struct(ty) => ty.def().name,
        Kind::List(of) | Kind::Map(of) | Kind::WrappedList(of) => return reference_of(*of),
        Kind::Quantity => QUANTITY,
        Kind::IntOrString => INT_OR_STRING,
        Kind::Time => TIME,
        Kind::MicroTime => MICRO_TIME,
        Kind::Duration => DURATION,
        Kind::FieldsV1 => FIELDS_V1,
        Kind::RawExtension => RAW_EXTENSION,
        Kind::Json => JSON,
        Kind::SchemaOrArray(_) => SCHEMA_OR_ARRAY,
        Kind::SchemaOrBool(_) => SCHEMA_OR_BOOL,
        Kind::SchemaOrStrings(_) => SCHEMA_OR_STRINGS,
        Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Float64 | Kind::Str | Kind::Bytes => return None,
    })
}

/// Adds what the definitions refer to, and so on.
pub(super) fn closure(used: &mut BTreeSet<String>) {
    let mut open: Vec<String> = used.iter().cloned().collect();
    while let Some(definition) = open.pop() {
        let refers: Vec<&str> = match by_name(&definition) {
            Some(ty) => ty.def().fields.iter().filter_map(|field| reference_of(field.kind)).collect(),
            None if definition.starts_with("io.k8s.") => Vec::new(),
            None => vec![OBJECT_META, LIST_META],
        };
        for name in refers {
            if used.insert(name.to_owned()) {
                open.push(name.to_owned());
            }
        }
    }
}

pub(super) fn definition(name: &str, dialect: Dialect, rows: &[&Resource], source: &dyn Source) -> Value {
    let mut value = match by_name(name) {
        Some(ty) => structure(ty.def(), dialect, source),
        None => special(name, dialect)
            .or_else(|| custom::find(name, rows, dialect, source))
            .unwrap_or_else(|| json!({"type": "object"})),
    };
    let text = source.description(name, "");
    if !text.is_empty() {
        value["description"] = text.into();
    }
    value
}

/// Definitions that are not objects of fields.
fn special(name: &str, dialect: Dialect) -> Option<Value> {
    let v3 = dialect == Dialect::V3;
    Some(match name {
        QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        INT_OR_STRING if v3 => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        INT_OR_STRING => json!({"format": "int-or-string", "type": "string"}),
        QUANTITY | DURATION => json!({"type": "string"}),
        TIME | MICRO_TIME => json!({"format": "date-time", "type": "string"}),
        FIELDS_V1 | RAW_EXTENSION | PATCH => json!({"type": "object"}),
        VERSION => version(dialect),
        JSON | SCHEMA_OR_ARRAY | SCHEMA_OR_BOOL | SCHEMA_OR_STRINGS => json!({}),
        _ => return None,
    })
}

/// What `/version` answers, which is no kind of the API.
fn version(dialect: Dialect) -> Value {
    let required = [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ];
    let more = ["emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor"];
    let text = |name: &str| match required.contains(&name) && dialect == Dialect::V3 {
        true => json!({"type": "string", "default": ""}),
        false => json!({"type": "string"}),
    };
    let properties: Map<String, Value> =
        required.iter().chain(&more).map(|name| ((*name).to_owned(), text(name))).collect();
    json!({"properties": properties, "required": required, "type": "object"})
}

fn structure(def: &'static StructDef, dialect: Dialect, source: &dyn Source) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), "object".into());
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in def.fields {
        properties.insert(field.json.to_owned(), property(def, field, dialect, source));
        if field.flags.has(Flags::REQUIRED) {
            required.push(field.json);
        }
    }
    if !properties.is_empty() {
        out.insert("properties".into(), properties.into());
    }
    if !required.is_empty() {
        required.sort_unstable();
        out.insert("required".into(), json!(required));
    }
    if !def.gvks.is_empty() {
        // What only the API machinery's own group has is of no group for clients.
        let machinery = def.gvks.iter().all(|gvk| matches!(gvk.group, "" | "meta.k8s.io"));
        let mut gvks: Vec<Value> = def
            .gvks
            .iter()
            .map(|gvk| (if machinery { "" } else { gvk.group }, gvk.version, gvk.kind))
            .map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}))
            .collect();
        gvks.dedup();
        out.insert("x-kubernetes-group-version-kind".into(), gvks.into());
    }
    if def.atomic {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if !def.unions.is_empty() {
        out.insert("x-kubernetes-unions".into(), serde_json::from_str(def.unions).unwrap_or_default());
    }
    Value::Object(out)
}

fn property(def: &StructDef, field: &FieldDef, dialect: Dialect, source: &dyn Source) -> Value {
    let mut value = of_kind(field.kind, dialect);
    let text = enums::described(field, source.description(def.name, field.json));
    let default = default_of(def, field).filter(|_| dialect == Dialect::V3);
    // Beside `$ref`, v3 readers look at nothing else.
    if dialect == Dialect::V3 && value.contains_key("$ref") && (!text.is_empty() || default.is_some()) {
        value = Map::from_iter([("allOf".to_owned(), json!([value]))]);
    }
    if !text.is_empty() {
        value.insert("description".into(), text.into());
    }
    if !field.enum_values().is_empty() {
        let values = json!(field.enum_values());
        match value.get_mut("items") {
            Some(Value::Object(items)) => drop(items.insert("enum".into(), values)),
            _ if matches!(field.kind, Kind::Str) => drop(value.insert("enum".into(), values)),
            _ => {}
        }
    }
    if let Some(default) = default {
        value.insert("default".into(), default);
    }
    let list = match field.list {
        ListType::Atomic => "atomic",
        ListType::Set => "set",
        ListType::Map => "map",
        ListType::Unset => "",
    };
    if !list.is_empty() {
        value.insert("x-kubernetes-list-type".into(), list.into());
    }
    if !field.map_keys().is_empty() {
        value.insert("x-kubernetes-list-map-keys".into(), json!(field.map_keys()));
    }
    if let Some(key) = field.patch_merge_key() {
        value.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    let words = [
        (PatchStrategy::MERGE, "merge"),
        (PatchStrategy::REPLACE, "replace"),
        (PatchStrategy::RETAIN_KEYS, "retainKeys"),
    ];
    let words: Vec<&str> =
        words.into_iter().filter(|(s, _)| field.patch_strategy().has(*s)).map(|(_, word)| word).collect();
    if !words.is_empty() {
        value.insert("x-kubernetes-patch-strategy".into(), words.join(",").into());
    }
    if field.flags.has(Flags::ATOMIC) {
        value.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    // The two fields that upstream marks so.
    if let (PERSISTENT_VOLUME_SPEC, "claimRef") | (CLAIM_STATUS, "allocatedResourceStatuses") =
        (def.name, field.json)
    {
        value.insert("x-kubernetes-map-type".into(), "granular".into());
    }
    Value::Object(value)
}

/// The default that the type declares, or the zero value of what Go always writes.
fn default_of(def: &StructDef, field: &FieldDef) -> Option<Value> {
    let declared = DECLARED.contains(&(def.name, field.json));
    match field.default().filter(|_| declared) {
        Some(DefaultValue::Bool(b)) => return Some(b.into()),
        Some(DefaultValue::Int(n)) => return Some(n.into()),
        Some(DefaultValue::Str(text)) => return Some(text.into()),
        Some(DefaultValue::EmptyStruct) => return Some(json!({})),
        None => {}
    }
    if !declared && (field.flags.has(Flags::POINTER) || field.flags.has(Flags::TYPE_META)) {
        return None;
    }
    let always = declared || !field.flags.has(Flags::OMIT_EMPTY);
    match field.kind {
        Kind::Struct(_) => Some(json!({})),
        Kind::Str if always => Some("".into()),
        Kind::Int32 | Kind::Int64 | Kind::Float64 if always => Some(0.into()),
        Kind::Bool if always => Some(false.into()),
        _ => None,
    }
}

/// What a list or map holds, of which v3 says the zero value too.
fn element(kind: Kind, dialect: Dialect) -> Map<String, Value> {
    let mut value = of_kind(kind, dialect);
    let zero = match kind {
        Kind::Struct(_) => json!({}),
        Kind::Str => "".into(),
        Kind::Int32 | Kind::Int64 => 0.into(),
        _ => return value,
    };
    if dialect == Dialect::V3 {
        if value.contains_key("$ref") {
            value = Map::from_iter([("allOf".to_owned(), json!([value]))]);
        }
        value.insert("default".into(), zero);
    }
    value
}

fn of_kind(kind: Kind, dialect: Dialect) -> Map<String, Value> {
    let value = match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 => json!({"type": "integer", "format": "int64"}),
        Kind::Float64 => json!({"type": "number", "format": "double"}),
        Kind::Str => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::List(of) | Kind::WrappedList(of) => json!({"type": "array", "items": element(*of, dialect)}),
        Kind::Map(of) => json!({"type": "object", "additionalProperties": element(*of, dialect)}),
        named => json!({"$ref": dialect.reference(reference_of(named).unwrap_or(JSON))}),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
