//! `metadata.managedFields` as sets: read from an object and written back.

use std::collections::BTreeMap;

use compact_str::CompactString;

use super::codec;
use super::set::Set;
use crate::doc::{Doc, Struct, Value};
use crate::f::meta_v1::managed_fields_entry as f;
use crate::f::meta_v1::object_meta as om;
use crate::t;

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    #[default]
    Update,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Which entry a write belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagerId {
    pub manager: CompactString,
    pub operation: Operation,
    /// Of updates; an applier is one whatever version it applies.
    pub api_version: CompactString,
    pub subresource: CompactString,
}

impl ManagerId {
    /// The id of a request; a manager without a name is `unknown`.
    pub fn of(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> ManagerId {
        ManagerId {
            manager: if manager.is_empty() { "unknown".into() } else { manager.into() },
            operation,
            api_version: if operation == Operation::Apply { "".into() } else { api_version.into() },
            subresource: subresource.into(),
        }
    }

    /// As conflicts name it: `"kubectl" with subresource "scale" using apps/v1`.
    pub fn text(&self) -> String {
        let mut text = crate::field_errors::quoted(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", crate::field_errors::quoted(&self.subresource)));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    pub set: Set,
    /// The version the set's paths are of.
    pub api_version: CompactString,
    pub applied: bool,
    /// RFC 3339 in whole seconds.
    pub time: Option<CompactString>,
}

/// All managers of an object.
pub type Managers = BTreeMap<ManagerId, Owned>;

/// Why managed fields cannot be read. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagersError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoFieldsType(usize),
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    #[error(
        "error decoding versioned set from the entry of manager {manager:?}: error decoding set: {source}"
    )]
    Fields { manager: String, source: codec::FieldsError },
}

/// Reads the entries of `metadata.managedFields`.
pub fn decode(entries: &[Value]) -> Result<Managers, ManagersError> {
    let mut managers = Managers::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(entry) = entry.as_struct() else { return Err(ManagersError::Operation) };
        let operation = match entry.str(f::OPERATION) {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err(ManagersError::Operation),
        };
        let api_version = entry.str(f::API_VERSION);
        if api_version.is_empty() {
            return Err(ManagersError::ApiVersion);
        }
        match entry.str(f::FIELDS_TYPE) {
            "FieldsV1" => {}
            "" => return Err(ManagersError::NoFieldsType(at)),
            other => return Err(ManagersError::FieldsType(other.to_owned(), at)),
        }
        let manager = entry.str(f::MANAGER);
        let set = match entry.get(f::FIELDS_V1) {
            Some(Value::Raw(text)) => codec::parse(text.as_bytes())
                .map_err(|source| ManagersError::Fields { manager: manager.to_owned(), source })?,
            _ => Set::new(),
        };
        let id = ManagerId {
            manager: manager.into(),
            operation,
            api_version: if operation == Operation::Apply { "".into() } else { api_version.into() },
            subresource: entry.str(f::SUBRESOURCE).into(),
        };
        let owned = Owned {
            set,
            api_version: api_version.into(),
            applied: operation == Operation::Apply,
            time: entry.get(f::TIME).and_then(Value::as_str).map(CompactString::from),
        };
        managers.insert(id, owned);
    }
    Ok(managers)
}

/// The entries in upstream's order: appliers first, then by time, name, version and subresource.
pub fn encode(managers: &Managers) -> Vec<Value> {
    let mut all: Vec<(&ManagerId, &Owned)> = managers.iter().collect();
    let operation = |id: &ManagerId, owned: &Owned| {
        if owned.applied { Operation::Apply } else { id.operation }
    };
    all.sort_by(|(a, x), (b, y)| {
        let time = |owned: &Owned| owned.time.clone().unwrap_or_else(|| "1970-01-01T00:00:00Z".into());
        operation(a, x)
            .cmp(&operation(b, y))
            .then_with(|| time(x).cmp(&time(y)))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| x.api_version.cmp(&y.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    all.into_iter()
        .map(|(id, owned)| {
            let mut entry = Struct::new(t::meta_v1::MANAGED_FIELDS_ENTRY);
            let texts = [
                (f::MANAGER, id.manager.clone()),
                (f::OPERATION, operation(id, owned).as_str().into()),
                (f::API_VERSION, owned.api_version.clone()),
                (f::FIELDS_TYPE, "FieldsV1".into()),
                (f::SUBRESOURCE, id.subresource.clone()),
            ];
            for (field, text) in texts {
                if !text.is_empty() {
                    entry.set(field, text);
                }
            }
            if let Some(time) = &owned.time {
                entry.set(f::TIME, time.clone());
            }
            entry.set(f::FIELDS_V1, Value::Raw(codec::to_json(&owned.set)));
            Value::Struct(entry)
        })
        .collect()
}

/// Writes an object's managers; none removes the field.
pub fn put(doc: &mut Doc, managers: &Managers) {
    put_entries(doc, encode(managers));
}

/// Writes the entries as they are.
pub fn put_entries(doc: &mut Doc, entries: Vec<Value>) {
    let mut meta = doc.meta_mut();
    if entries.is_empty() {
        meta.as_struct().remove(om::MANAGED_FIELDS);
    } else {
        meta.as_struct().set(om::MANAGED_FIELDS, entries);
    }
}

/// Whether two lists of entries say the same, times aside.
pub fn same_but_times(a: &[Value], b: &[Value]) -> bool {
    let without = |entry: &Value| {
        let mut entry = entry.clone();
        if let Some(inner) = entry.as_struct_mut() {
            inner.remove(f::TIME);
        }
        entry
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || without(a) == without(b))
}
