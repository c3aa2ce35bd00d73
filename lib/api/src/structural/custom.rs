//! A CustomResourceDefinition as rows of the resource table, one per served version.

use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, OnceLock};

use compact_str::CompactString;
use jiff::Timestamp;

use super::jsonpath::JsonPath;
use super::selectable::SelectableField;
use super::{ParseError, Schema};
use crate::doc::{Doc, Struct, Value};
use crate::f::apiextensions_v1 as x;
use crate::schema::Verbs;
use crate::table::{Resource, Subresource};
use crate::types::columns::{self, Cell};
use crate::types::others::definition::schema_of;
use crate::types::walk::{strs, structs};
use x::custom_resource_definition as d;
use x::custom_resource_definition_names as n;
use x::custom_resource_definition_spec as s;
use x::custom_resource_definition_version as v;

/// What a custom resource's row has beyond a built-in one's.
pub struct Custom {
    /// The definition's uid: a new definition of the same name is another resource.
    pub uid: CompactString,
    pub schema: Arc<Schema>,
    /// The schema of the version objects are stored in.
    pub storage_schema: Arc<Schema>,
    /// The schema as it was written, as JSON, for publishing.
    pub written: Option<Box<[u8]>>,
    /// Names the schema of this version; 0 never.
    pub stamp: u32,
    /// Names the schema of the storage version.
    pub storage_stamp: u32,
    pub columns: Vec<CustomColumn>,
    /// The fields this version selects by: label and path.
    pub selectable: Vec<(CompactString, Vec<String>)>,
    /// Those of all versions, which the cache keeps with each object.
    pub all_selectable: Vec<SelectableField>,
    pub scale: Option<ScalePaths>,
    /// Told with every answer of a deprecated version.
    pub deprecation: Option<String>,
    /// Its definition is being deleted.
    pub terminating: bool,
    /// The schema as field ownership reads it, made when first asked for.
    pub(crate) fields: OnceLock<(crate::apply::shape::Schema, crate::apply::shape::NodeId)>,
}

impl std::fmt::Debug for Custom {
    /// Short, and different whenever what is served differs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Custom({} {:08x} {} columns", self.uid, self.stamp, self.columns.len())?;
        write!(f, " {:08x} {:?}", self.storage_stamp, self.scale)?;
        write!(f, " {:?} {:?} {:?})", self.selectable, self.all_selectable, self.deprecation)
    }
}

/// A printer column as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomColumn {
    pub name: String,
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i32,
    path: JsonPath,
}

/// Where a Scale's values stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub label_selector: Option<Vec<String>>,
    /// As they were written, for errors.
    pub spec_text: String,
    pub status_text: String,
    pub selector_text: String,
}

fn members(path: &str) -> Vec<String> {
    path.trim_start_matches('.').split('.').map(str::to_owned).collect()
}

/// The value at a path of members.
pub fn value_at<'d>(doc: &'d Doc, path: &[String]) -> Option<&'d Value> {
    path.iter().try_fold(&doc.root, |at, name| at.as_map()?.get(name))
}

/// Sets the value at a path of members, objects made on the way. What stands in the way stays, and the change is lost.
pub fn set_at(doc: &mut Doc, path: &[String], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = &mut doc.root;
    for name in parents {
        let Value::Map(map) = at else { return };
        if map.get(name).is_none_or(|value| *value == Value::Null) {
            map.insert(name.as_str(), Value::Map(Default::default()));
        }
        let Some(below) = map.get_mut(name) else { return };
        at = below;
    }
    if let Value::Map(map) = at {
        map.insert(last.as_str(), value);
    }
}

/// The rows of a definition's served versions. Names are those its status says are accepted.
pub fn rows(definition: &Doc) -> Result<Vec<Resource>, ParseError> {
    let Some(root) = definition.root() else { return Ok(Vec::new()) };
    let (Some(spec), Some(status)) = (root.child(d::SPEC), root.child(d::STATUS)) else {
        return Ok(Vec::new());
    };
    let Some(names) = status.child(x::custom_resource_definition_status::ACCEPTED_NAMES) else {
        return Ok(Vec::new());
    };
    let storage = structs(spec, s::VERSIONS).find(|(_, one)| one.bool(v::STORAGE) == Some(true));
    let Some((_, storage)) = storage else { return Ok(Vec::new()) };
    let parse = |version: &Struct| schema_of(version).map_or_else(|| Ok(Schema::any()), Schema::parse);
    let storage_schema = Arc::new(parse(storage)?);
    let mut all_selectable: Vec<SelectableField> = Vec::new();
    for (_, version) in structs(spec, s::VERSIONS) {
        let fields = selectable_of(version);
        if fields.is_empty() {
            continue;
        }
        let schema = parse(version)?;
        for (label, path) in fields {
            if !all_selectable.iter().any(|known| known.label == label) {
                all_selectable.push(SelectableField::new(label, path, &schema));
            }
        }
    }
    let terminating = is_true(status, "Terminating");
    let mut rows = Vec::new();
    for (_, version) in structs(spec, s::VERSIONS).filter(|(_, one)| one.bool(v::SERVED) == Some(true)) {
        let schema = if version.str(v::NAME) == storage.str(v::NAME) {
            storage_schema.clone()
        } else {
            Arc::new(parse(version)?)
        };
        let custom = Custom {
            uid: definition.meta().uid().into(),
            stamp: stamp(definition.meta().uid(), version),
            storage_stamp: stamp(definition.meta().uid(), storage),
            written: schema_of(version).map(written),
            schema,
            storage_schema: storage_schema.clone(),
            columns: columns_of(version),
            selectable: selectable_of(version),
            all_selectable: all_selectable.clone(),
            scale: scale_of(version),
            deprecation: deprecation_of(spec, names, version),
            terminating,
            fields: OnceLock::new(),
        };
        rows.push(row(spec, names, storage.str(v::NAME), version, custom));
    }
    Ok(rows)
}

/// Whether the definition's condition of this type is true.
pub fn is_true(status: &Struct, condition: &str) -> bool {
    use x::custom_resource_definition_condition as c;
    structs(status, x::custom_resource_definition_status::CONDITIONS)
        .any(|(_, one)| one.str(c::TYPE) == condition && one.str(c::STATUS) == "True")
}

fn written(schema: &Struct) -> Box<[u8]> {
    let mut out = Vec::new();
    crate::json::encode_value(&Value::Struct(schema.clone()), &mut out);
    out.into()
}

fn stamp(uid: &str, version: &Struct) -> u32 {
    let mut text = Vec::new();
    if let Some(schema) = version.get(v::SCHEMA) {
        crate::json::encode_value(schema, &mut text);
    }
    let mut hasher = std::hash::DefaultHasher::new();
    (uid, text).hash(&mut hasher);
    (hasher.finish() as u32).max(1)
}

fn row(spec: &Struct, names: &Struct, storage_version: &str, version: &Struct, custom: Custom) -> Resource {
    let texts = |field| strs(names, field).map(|(_, text)| CompactString::from(text)).collect();
    let (group, kind) = (spec.str(s::GROUP), names.str(n::KIND));
    let own = |name: &'static str| Subresource {
        name: CompactString::const_new(name),
        verbs: Verbs(Verbs::GET.0 | Verbs::PATCH.0 | Verbs::UPDATE.0),
        group: group.into(),
        version: version.str(v::NAME).into(),
        kind: kind.into(),
        ty: None,
    };
    let mut subresources = Vec::new();
    if let Some(given) = version.child(v::SUBRESOURCES) {
        if given.has(x::custom_resource_subresources::STATUS) {
            subresources.push(own("status"));
        }
        if custom.scale.is_some() {
            subresources.push(Subresource {
                group: "autoscaling".into(),
                version: "v1".into(),
                kind: "Scale".into(),
                ty: Some(crate::t::autoscaling_v1::SCALE),
                ..own("scale")
            });
        }
    }
    let verbs = if custom.terminating {
        Verbs(Verbs::ALL.0 & !(Verbs::CREATE.0 | Verbs::UPDATE.0 | Verbs::PATCH.0))
    } else {
        Verbs::ALL
    };
    Resource {
        group: group.into(),
        version: version.str(v::NAME).into(),
        storage_group: group.into(),
        storage_version: storage_version.into(),
        kind: kind.into(),
        list_kind: names.str(n::LIST_KIND).into(),
        plural: names.str(n::PLURAL).into(),
        singular: names.str(n::SINGULAR).into(),
        short_names: texts(n::SHORT_NAMES),
        categories: texts(n::CATEGORIES),
        namespaced: spec.str(s::SCOPE) == "Namespaced",
        verbs,
        subresources,
        acted_on_by: Some(CompactString::const_new("whoever defined it")),
        stored: true,
        ty: None,
        list_ty: None,
        custom: Some(Arc::new(custom)),
    }
}

fn columns_of(version: &Struct) -> Vec<CustomColumn> {
    use x::custom_resource_column_definition as c;
    let mut columns = Vec::new();
    for (_, column) in structs(version, v::ADDITIONAL_PRINTER_COLUMNS) {
        let written = column.str(c::JSON_PATH);
        // As upstream, a path that cannot be read ends the columns.
        let Some(path) = JsonPath::parse(written) else { return columns };
        let description = match column.str(c::DESCRIPTION) {
            "" => format!("Custom resource definition column (in JSONPath format): {written}"),
            text => text.to_owned(),
        };
        columns.push(CustomColumn {
            name: column.str(c::NAME).to_owned(),
            kind: column.str(c::TYPE).to_owned(),
            format: column.str(c::FORMAT).to_owned(),
            description,
            priority: column.int(c::PRIORITY).unwrap_or(0) as i32,
            path,
        });
    }
    if version.list(v::ADDITIONAL_PRINTER_COLUMNS).is_empty()
        && let Some(path) = JsonPath::parse(".metadata.creationTimestamp")
    {
        columns.push(CustomColumn {
            name: "Age".to_owned(),
            kind: "date".to_owned(),
            format: String::new(),
            description: columns::AGE.description.to_owned(),
            priority: 0,
            path,
        });
    }
    columns
}

impl Custom {
    /// What field ownership knows of the version's objects.
    pub fn shape(&self) -> crate::apply::shape::Shape<'_> {
        let (schema, root) = self.fields.get_or_init(|| crate::apply::custom::compile(&self.schema));
        crate::apply::shape::Shape::Custom(Some((schema, *root)))
    }

    /// An object's cells: its name, then a cell per column.
    pub fn cells(&self, doc: &Doc, now: Timestamp) -> Vec<Cell> {
        let mut cells = vec![columns::name_cell(doc)];
        cells.extend(self.columns.iter().map(|column| cell(column, doc, now)));
        cells
    }
}

fn cell(column: &CustomColumn, doc: &Doc, now: Timestamp) -> Cell {
    let Some(found) = column.path.first(doc) else { return Cell::Null };
    match (column.kind.as_str(), found.value()) {
        (_, Value::Null) => Cell::Null,
        ("integer", Value::Int(n)) => Cell::Int(*n),
        ("integer", Value::Float(n)) => Cell::Int(*n as i64),
        ("number", Value::Int(n)) => Cell::Int(*n),
        ("number", Value::Float(n)) => Cell::Float(*n),
        ("boolean", Value::Bool(flag)) => Cell::Bool(*flag),
        ("date", Value::Str(text)) => match text.as_str() {
            "" => columns::age(None, now).into(),
            text if text.parse::<Timestamp>().is_ok() => columns::age(Some(text), now).into(),
            _ => "<invalid>".into(),
        },
        ("string", Value::Str(text)) => text.as_str().into(),
        ("string", Value::Float(n)) => super::numbers::go_float(*n).into(),
        ("string", other) => {
            let mut json = Vec::new();
            crate::json::encode_value(other, &mut json);
            String::from_utf8_lossy(&json).into_owned().into()
        }
        _ => Cell::Null,
    }
}

fn selectable_of(version: &Struct) -> Vec<(CompactString, Vec<String>)> {
    let fields = structs(version, v::SELECTABLE_FIELDS);
    fields
        .map(|(_, field)| field.str(x::selectable_field::JSON_PATH))
        .filter(|path| path.starts_with('.'))
        .map(|path| (CompactString::from(path.trim_start_matches('.')), members(path)))
        .collect()
}

fn scale_of(version: &Struct) -> Option<ScalePaths> {
    use x::custom_resource_subresource_scale as c;
    let scale = version.child(v::SUBRESOURCES)?.child(x::custom_resource_subresources::SCALE)?;
    let selector = scale.str(c::LABEL_SELECTOR_PATH);
    Some(ScalePaths {
        spec_replicas: members(scale.str(c::SPEC_REPLICAS_PATH)),
        status_replicas: members(scale.str(c::STATUS_REPLICAS_PATH)),
        label_selector: (!selector.is_empty()).then(|| members(selector)),
        spec_text: scale.str(c::SPEC_REPLICAS_PATH).to_owned(),
        status_text: scale.str(c::STATUS_REPLICAS_PATH).to_owned(),
        selector_text: selector.to_owned(),
    })
}

/// The definition's own warning, or upstream's: what is deprecated and what to use instead.
fn deprecation_of(spec: &Struct, names: &Struct, version: &Struct) -> Option<String> {
    if version.bool(v::DEPRECATED) != Some(true) {
        return None;
    }
    if version.has(v::DEPRECATION_WARNING) {
        return Some(version.str(v::DEPRECATION_WARNING).to_owned());
    }
    let (group, kind, name) = (spec.str(s::GROUP), names.str(n::KIND), version.str(v::NAME));
    let newer = structs(spec, s::VERSIONS)
        .map(|(_, one)| one)
        .filter(|one| one.bool(v::SERVED) == Some(true) && one.bool(v::DEPRECATED) != Some(true))
        .map(|one| one.str(v::NAME))
        .filter(|other| crate::table::compare_versions(name, other).is_lt())
        .max_by(|a, b| crate::table::compare_versions(a, b));
    let hint = newer.map(|newer| format!("; use {group}/{newer} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{hint}"))
}
