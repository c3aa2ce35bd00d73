//! Printer columns: what `kubectl get` shows of a type (upstream `printers/internalversion`).

use std::collections::HashMap;
use std::sync::OnceLock;

use jiff::Timestamp;

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::f::meta_v1 as m;
use crate::schema::Field;
use crate::types::walk::{strs, structs};

pub mod apps;
pub mod batch;
pub mod core;
pub mod discovery;
pub mod others;
pub mod storage;

/// A column's definition as a Table carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: &'static str,
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// The API's field whose documentation describes the column, where `description` is empty.
    pub of: Option<Field>,
}

impl Column {
    /// The column of what this field says.
    pub const fn of(mut self, field: Field) -> Column {
        self.of = Some(field);
        self
    }

    /// What the column shows, in the words of the API's documentation.
    pub fn description(&self) -> &'static str {
        match self.of {
            Some(field) if self.description.is_empty() => described(field),
            _ => self.description,
        }
    }
}

/// The documentation of a field. All that columns are of are looked up once; the index over the documentation is not kept.
fn described(field: Field) -> &'static str {
    static TEXTS: OnceLock<HashMap<(u16, u16), &'static str>> = OnceLock::new();
    let texts = TEXTS.get_or_init(|| {
        let all = crate::openapi::Descriptions::new();
        let columns =
            crate::schema::TypeId::all().flat_map(|ty| crate::types::strategy(Some(ty)).columns.definitions);
        columns
            .filter_map(|column| column.of)
            .map(|field| ((field.ty.0, field.index), all.get(field.ty.def().name, field.def().json)))
            .collect()
    });
    texts.get(&(field.ty.0, field.index)).copied().unwrap_or_default()
}

/// A cell's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Null,
}

impl From<&str> for Cell {
    fn from(value: &str) -> Cell {
        Cell::Str(value.to_owned())
    }
}

impl From<String> for Cell {
    fn from(value: String) -> Cell {
        Cell::Str(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Cell {
        Cell::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Cell {
        Cell::Int(value)
    }
}

/// The columns of a type and how an object fills them.
pub struct Columns {
    pub definitions: &'static [Column],
    pub cells: fn(&Doc, Timestamp) -> Vec<Cell>,
}

/// A column of priority 0.
pub const fn column(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
) -> Column {
    Column { name, kind, format, description, priority: 0, of: None }
}

/// A column shown with `-o wide` only.
pub const fn wide(
    name: &'static str,
    kind: &'static str,
    format: &'static str,
    description: &'static str,
) -> Column {
    Column { name, kind, format, description, priority: 1, of: None }
}

/// The Name column, first everywhere.
pub const NAME: Column = column(
    "Name",
    "string",
    "name",
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a \
     client to request the generation of an appropriate name automatically. Name is primarily intended for creation \
     idempotence and configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);

/// The Age column.
pub const AGE: Column = column("Age", "string", "", CREATED);

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
     not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
     represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
     https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Name and creation time, for types without columns of their own.
pub static DEFAULT: Columns =
    Columns { definitions: &[NAME, column("Created At", "date", "", CREATED)], cells: default_cells };

fn default_cells(doc: &Doc, _: Timestamp) -> Vec<Cell> {
    let meta = doc.meta();
    vec![meta.name().into(), meta.creation_timestamp().unwrap_or_default().into()]
}

/// The time between an RFC 3339 text and now as kubectl prints ages; `<unknown>` where there is none.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.filter(|text| !text.is_empty()).and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(at) => human_duration(now.as_second() - at.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A number of seconds with two or three significant figures, as upstream's `HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 0 {
        return "0s".to_owned();
    }
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let minutes = seconds / 60;
    if minutes < 10 {
        return two(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    match hours {
        0..8 => two(hours, "h", minutes % 60, "m"),
        8..48 => format!("{hours}h"),
        48..192 => two(hours / 24, "d", hours % 24, "h"),
        192..17520 => format!("{}d", hours / 24),
        17520..70080 => two(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The age cell of an object.
pub fn age_cell(doc: &Doc, now: Timestamp) -> Cell {
    age(doc.meta().creation_timestamp(), now).into()
}

/// A text, `<none>` where it is empty.
pub fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

/// Whether a value says anything.
pub fn said(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !value.is_go_empty())
}

/// A plain string column.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    column(name, "string", "", description)
}

/// A whole-number column.
pub const fn number(name: &'static str, description: &'static str) -> Column {
    column(name, "integer", "", description)
}

/// A string column shown with `-o wide` only.
pub const fn wide_text(name: &'static str, description: &'static str) -> Column {
    wide(name, "string", "", description)
}

/// Names of containers, with `-o wide`.
pub const CONTAINERS: Column = wide_text("Containers", "Names of each container in the template.");
/// Images of containers, with `-o wide`.
pub const IMAGES: Column = wide_text("Images", "Images referenced by each container in the template.");

/// The object's name.
pub fn name_cell(doc: &Doc) -> Cell {
    doc.meta().name().into()
}

/// Name and age, for types that show nothing else.
pub fn name_and_age(doc: &Doc, now: Timestamp) -> Vec<Cell> {
    vec![name_cell(doc), age_cell(doc, now)]
}

/// Names and images of a pod spec's containers, joined by commas.
pub fn container_cells(spec: Option<&Struct>) -> [Cell; 2] {
    let join = |field: Field| {
        let all: Vec<&str> = spec
            .map(|spec| structs(spec, c::pod_spec::CONTAINERS).map(|(_, one)| one.str(field)).collect())
            .unwrap_or_default();
        Cell::Str(all.join(","))
    };
    [join(c::container::NAME), join(c::container::IMAGE)]
}

/// `k=v,k2=v2`, `<none>` for no labels.
pub fn labels_text(labels: Option<&Map>) -> String {
    let all: Vec<String> =
        labels.into_iter().flat_map(Map::str_pairs).map(|(k, v)| format!("{k}={v}")).collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

/// A spec's label selector as text; empty for an empty one.
pub fn selector_text(selector: Option<&Struct>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.map(m::label_selector::MATCH_LABELS).into_iter().flat_map(Map::str_pairs) {
        terms.push((key.to_owned(), format!("{key}={value}")));
    }
    for (_, expression) in structs(selector, m::label_selector::MATCH_EXPRESSIONS) {
        let key = expression.str(m::label_selector_requirement::KEY);
        let mut values: Vec<&str> =
            strs(expression, m::label_selector_requirement::VALUES).map(|(_, value)| value).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match expression.str(m::label_selector_requirement::OPERATOR) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => "<error>".to_owned(),
        };
        terms.push((key.to_owned(), text));
    }
    terms.sort_by(|a, b| a.0.cmp(&b.0));
    terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}

/// As [`selector_text`], `<none>` for an empty one.
pub fn selector_cell(selector: Option<&Struct>) -> Cell {
    let text = selector_text(selector);
    Cell::Str(if text.is_empty() { "<none>".to_owned() } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_upstreams() {
        const M: i64 = 60;
        const H: i64 = 60 * M;
        const D: i64 = 24 * H;
        const Y: i64 = 365 * D;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (10 * M, "10m"),
            (10 * M + 5, "10m"),
            (3 * H - 1, "179m"),
            (3 * H, "3h"),
            (3 * H + 10 * M, "3h10m"),
            (8 * H, "8h"),
            (47 * H + 59 * M, "47h"),
            (2 * D, "2d"),
            (2 * D + H, "2d1h"),
            (8 * D, "8d"),
            (8 * D + H, "8d"),
            (2 * Y - 1, "729d"),
            (2 * Y, "2y"),
            (2 * Y + 5 * D, "2y5d"),
            (8 * Y, "8y"),
            (9 * Y + 10 * D, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(age(Some("2026-01-01T00:00:00Z"), now), "60s");
        assert_eq!(age(None, now), "<unknown>");
    }
}
