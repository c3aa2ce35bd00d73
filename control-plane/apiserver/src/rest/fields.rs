//! Selectable fields of stored objects: straight from the JSON where a field is a plain value at its path, else by the
//! type's rules.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use keelson_api::json::{self, FieldValidation};
use keelson_api::schema::{Kind, TypeId};
use keelson_api::structural::custom::Custom;
use keelson_api::structural::selectable::SelectableField;
use keelson_api::table::Resource;
use keelson_api::types::{self, Strategy};
use smallvec::SmallVec;

use crate::cache::Fields;
use crate::scan;

/// How one field is read.
enum Source {
    /// The members on the way, and what an absent value counts as.
    Path(Vec<&'static str>, &'static str),
    /// By the type's rules on the decoded object.
    Rules,
}

/// The selectable fields of a row's resource; `hub` is the row of its storage version.
pub fn of(row: &Resource, hub: impl FnOnce() -> Arc<Resource>) -> Arc<dyn Fields> {
    match &row.custom {
        Some(custom) => Arc::new(CustomFields::of(custom)),
        None => Arc::new(TypeFields::of(&hub())),
    }
}

/// The fields that any version of a custom resource selects by.
struct CustomFields {
    labels: Vec<Box<str>>,
    fields: Vec<SelectableField>,
}

impl CustomFields {
    fn of(custom: &Custom) -> CustomFields {
        let fields = custom.all_selectable.clone();
        CustomFields { labels: fields.iter().map(|field| field.label.as_str().into()).collect(), fields }
    }
}

impl Fields for CustomFields {
    fn labels(&self) -> &[Box<str>] {
        &self.labels
    }

    fn values(&self, bytes: &[u8], put: &mut dyn FnMut(&str)) {
        for field in &self.fields {
            put(&custom_text(bytes, field));
        }
    }
}

/// A custom resource's field as it is read: with the schema's defaults.
fn custom_text<'b>(bytes: &'b [u8], field: &'b SelectableField) -> Cow<'b, str> {
    let mut at = 0..bytes.len();
    for step in &field.steps {
        match scan::member(bytes, at.start, &step.name) {
            Some(found) if bytes.get(found.clone()) == Some(b"null") => {
                return if step.nullable { "".into() } else { step.absent.as_str().into() };
            }
            Some(found) => at = found,
            None => return step.absent.as_str().into(),
        }
    }
    scalar(bytes, at).unwrap_or_default()
}

/// The selectable fields of one type.
pub struct TypeFields {
    labels: Vec<Box<str>>,
    sources: Vec<Source>,
    ty: Option<TypeId>,
    strategy: &'static Strategy,
}

impl TypeFields {
    /// Of the storage version of a resource.
    pub fn of(hub: &Resource) -> TypeFields {
        let strategy = types::strategy(hub.ty);
        let labels: Vec<Box<str>> = strategy.selectable.iter().map(|label| (*label).into()).collect();
        let sources = strategy.selectable.iter().map(|label| source(hub.ty, label)).collect();
        TypeFields { labels, sources, ty: hub.ty, strategy }
    }

    /// Where the values at the paths lie: found in one walk, as every write of an object comes by here.
    fn find(&self, bytes: &[u8]) -> SmallVec<[Option<Range<usize>>; 12]> {
        let mut found = SmallVec::from_elem(None, self.sources.len());
        let mut left = self.sources.iter().filter(|source| matches!(source, Source::Path(..))).count();
        for (name, at) in scan::members(bytes, 0) {
            if left == 0 {
                break;
            }
            left -= self.find_in(bytes, name, at, &mut found);
        }
        found
    }

    /// Looks into one member of the object; how many paths begin with it.
    fn find_in(
        &self,
        bytes: &[u8],
        name: &[u8],
        at: Range<usize>,
        found: &mut [Option<Range<usize>>],
    ) -> usize {
        let paths = || {
            self.sources.iter().enumerate().filter_map(|(index, source)| match source {
                Source::Path(path, _) if path.first().is_some_and(|first| first.as_bytes() == name) => {
                    Some((index, &path[1..]))
                }
                _ => None,
            })
        };
        let count = paths().count();
        if count == 0 {
            return 0;
        }
        for (index, rest) in paths() {
            match rest {
                [] => found[index] = Some(at.clone()),
                [_] => {}
                _ => found[index] = below(bytes, at.clone(), rest),
            }
        }
        for (name, at) in scan::members(bytes, at.start) {
            let here = paths().filter(|(_, rest)| matches!(rest, [last] if last.as_bytes() == name));
            here.for_each(|(index, _)| found[index] = Some(at.clone()));
        }
        count
    }
}

fn below(bytes: &[u8], object: Range<usize>, path: &[&str]) -> Option<Range<usize>> {
    path.iter().try_fold(object, |at, name| scan::member(bytes, at.start, name))
}

fn source(ty: Option<TypeId>, label: &'static str) -> Source {
    let path: Vec<&'static str> = label.split('.').collect();
    let Some(mut at) = ty else { return Source::Rules };
    for (depth, member) in path.iter().enumerate() {
        let Some(field) = at.def().field(member) else { return Source::Rules };
        match (field.kind, depth + 1 == path.len()) {
            (Kind::Struct(below), false) => at = below,
            (Kind::Str, true) => return Source::Path(path, ""),
            (Kind::Bool, true) => return Source::Path(path, "false"),
            (Kind::Int32 | Kind::Int64, true) => return Source::Path(path, "0"),
            _ => return Source::Rules,
        }
    }
    Source::Rules
}

impl Fields for TypeFields {
    fn labels(&self) -> &[Box<str>] {
        &self.labels
    }

    fn values(&self, bytes: &[u8], put: &mut dyn FnMut(&str)) {
        let mut by_rules = None;
        let found = self.find(bytes);
        for ((label, source), at) in self.labels.iter().zip(&self.sources).zip(found) {
            match source {
                Source::Path(_, absent) => match at.and_then(|at| scalar(bytes, at)) {
                    Some(value) => put(&value),
                    None => put(absent),
                },
                Source::Rules => {
                    let fields = by_rules.get_or_insert_with(|| {
                        json::decode_any(self.ty, bytes, FieldValidation::Ignore)
                            .map(|(doc, _)| (self.strategy.selectable_fields)(&doc))
                            .unwrap_or_default()
                    });
                    put(fields
                        .iter()
                        .find(|(name, _)| *name == &**label)
                        .map_or("", |(_, value)| value.as_str()));
                }
            }
        }
    }
}

/// The text of a string, else the value as it stands.
fn scalar(bytes: &[u8], at: std::ops::Range<usize>) -> Option<Cow<'_, str>> {
    let value = bytes.get(at)?;
    if value.first() == Some(&b'"') {
        if value.contains(&b'\\') {
            return serde_json::from_slice::<String>(value).ok().map(Into::into);
        }
        return std::str::from_utf8(&value[1..value.len() - 1]).ok().map(Into::into);
    }
    std::str::from_utf8(value).ok().map(Into::into)
}
