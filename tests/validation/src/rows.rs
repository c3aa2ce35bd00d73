//! The row files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

/// One line of a file.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Base { base: String, object: Value },
    From { from: String },
    Row(Box<Row>),
}

/// A mistake: path, reason, value as printed (`None`: not compared), detail.
pub type Say = (String, String, Option<String>, String);

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub on: String,
    #[serde(rename = "do")]
    pub operation: String,
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// What was stored before, as changes of the base.
    #[serde(default)]
    pub old: BTreeMap<String, Value>,
    #[serde(default)]
    pub say: Vec<Say>,
    #[serde(default)]
    pub gives: BTreeMap<String, Value>,
    #[serde(default)]
    pub warn: Vec<String>,
    #[serde(default)]
    pub cells: Vec<Value>,
    /// Name, type, format, priority, description of each column.
    #[serde(default)]
    pub columns: Vec<(String, String, String, i32, String)>,
    /// The line in the file.
    #[serde(skip)]
    pub line: usize,
    /// Upstream's file and test.
    #[serde(skip)]
    pub from: String,
}

/// A file: what it is called, its bases and rows.
pub struct Group {
    pub name: String,
    pub bases: BTreeMap<String, Value>,
    pub rows: Vec<Row>,
}

/// The folder of the row files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rows")
}

/// All row files of a folder, by name.
pub fn load(folder: &Path) -> Result<Vec<Group>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|end| end == "rows"));
    paths.sort();
    paths.iter().map(|path| load_file(path)).collect()
}

fn load_file(path: &Path) -> Result<Group> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut group = Group { name, bases: BTreeMap::new(), rows: Vec::new() };
    let mut source = String::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}", path.display(), at + 1);
        match serde_json::from_str::<Line>(line).with_context(place)? {
            Line::Base { base, object } => {
                if group.bases.insert(base.clone(), object).is_some() {
                    bail!("{}: a second base {base}", place());
                }
            }
            Line::From { from } => source = from,
            Line::Row(row) => {
                if !group.bases.contains_key(&row.on) {
                    bail!("{}: no base {}", place(), row.on);
                }
                group.rows.push(Row { line: at + 1, from: source.clone(), ..*row });
            }
        }
    }
    Ok(group)
}

/// The object with the changes made.
pub fn changed(object: &Value, set: &BTreeMap<String, Value>) -> Result<Value> {
    let mut out = object.clone();
    // Removals go from the last element to the first, so that earlier indices stay what they were.
    let (removals, mut others): (Vec<_>, Vec<_>) = set.iter().partition(|(_, value)| value.is_null());
    others.sort_by_key(|(pointer, _)| order(pointer));
    for (pointer, value) in others {
        *slot(&mut out, pointer).with_context(|| format!("no place {pointer}"))? = value.clone();
    }
    let mut removals: Vec<&String> = removals.into_iter().map(|(pointer, _)| pointer).collect();
    removals.sort_by_key(|pointer| std::cmp::Reverse(order(pointer)));
    for pointer in removals {
        remove(&mut out, pointer).with_context(|| format!("nothing to remove at {pointer}"))?;
    }
    Ok(out)
}

fn order(pointer: &str) -> Vec<(u64, &str)> {
    pointer.split('/').map(|part| (part.parse().unwrap_or(0), part)).collect()
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

fn slot<'a>(root: &'a mut Value, pointer: &str) -> Option<&'a mut Value> {
    let mut at = root;
    for part in pointer.split('/').skip(1) {
        if at.is_null() {
            *at = Value::Object(serde_json::Map::new());
        }
        at = match at {
            Value::Array(items) => {
                let index = part.parse::<usize>().ok()?;
                if index == items.len() {
                    items.push(Value::Null);
                }
                items.get_mut(index)?
            }
            Value::Object(map) => map.entry(unescaped(part)).or_insert(Value::Null),
            _ => return None,
        };
    }
    Some(at)
}

fn remove(root: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, last) = pointer.rsplit_once('/')?;
    match root.pointer_mut(parent)? {
        Value::Array(items) => {
            let at = last.parse::<usize>().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        Value::Object(map) => map.remove(&unescaped(last)),
        _ => None,
    }
}
