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

use crate::cache::Fields;
use crate::scan;
use crate::text::Outline;

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

    fn values(&self, bytes: &[u8], _: &Outline<'_>, put: &mut dyn FnMut(&str)) {
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
    /// The first names of the paths, each once.
    wanted: Vec<Box<str>>,
    ty: Option<TypeId>,
    strategy: &'static Strategy,
}

impl TypeFields {
    /// Of the storage version of a resource.
    pub fn of(hub: &Resource) -> TypeFields {
        let strategy = types::strategy(hub.ty);
        let labels: Vec<Box<str>> = strategy.selectable.iter().map(|label| (*label).into()).collect();
        let sources: Vec<Source> = strategy.selectable.iter().map(|label| source(hub.ty, label)).collect();
        let mut wanted: Vec<Box<str>> = Vec::new();
        for source in &sources {
            if let Source::Path(path, _) = source
                && let Some(first) = path.first()
                && !wanted.iter().any(|known| **known == **first)
            {
                wanted.push((*first).into());
            }
        }
        TypeFields { labels, sources, wanted, ty: hub.ty, strategy }
    }

    /// Where the value of a path lies.
    fn find(bytes: &[u8], outline: &Outline<'_>, path: &[&str]) -> Option<Range<usize>> {
        let (first, rest) = path.split_first()?;
        let Some((second, below)) = rest.split_first() else { return outline.member(first) };
        let found = outline.within(first).find(|member| member.name == second.as_bytes())?;
        below.iter().try_fold(found.value.clone(), |at, name| scan::member(bytes, at.start, name))
    }
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

    fn wanted(&self) -> &[Box<str>] {
        &self.wanted
    }

    fn values(&self, bytes: &[u8], outline: &Outline<'_>, put: &mut dyn FnMut(&str)) {
        let mut by_rules = None;
        for (label, source) in self.labels.iter().zip(&self.sources) {
            match source {
                Source::Path(path, absent) => {
                    match TypeFields::find(bytes, outline, path).and_then(|at| scalar(bytes, at)) {
                        Some(value) => put(&value),
                        None => put(absent),
                    }
                }
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
