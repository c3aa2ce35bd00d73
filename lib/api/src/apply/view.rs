//! Values as their JSON shows them: what Go writes of a struct's absent fields is there, what it leaves out is not.

use std::cmp::Ordering;

use compact_str::CompactString;

use super::element::PathElement;
use super::shape::{Atom, Fields, List, Map, Scalar, Shape};
use crate::doc::{Struct, Value};
use crate::json::{self, Absent};
use crate::schema::{FieldDef, StructDef, TypeId};

/// A value, or a struct by value that is absent.
#[derive(Clone, Copy)]
pub enum View<'v> {
    Value(&'v Value),
    Empty(TypeId),
}

/// A member's name.
#[derive(Clone, Copy)]
pub enum Name<'v> {
    Static(&'static str),
    Key(&'v str),
}

impl<'v> Name<'v> {
    pub fn as_str(self) -> &'v str {
        match self {
            Name::Static(name) => name,
            Name::Key(name) => name,
        }
    }
    pub fn element(self) -> PathElement {
        match self {
            Name::Static(name) => PathElement::Field(CompactString::const_new(name)),
            Name::Key(name) => PathElement::Field(name.into()),
        }
    }
}

/// One member of a map or struct, with what the schema says of it.
pub struct Member<'v, 's> {
    pub name: Name<'v>,
    pub view: View<'v>,
    /// `None`: undeclared where nothing undeclared may be.
    pub shape: Option<Shape<'s>>,
    pub declared: bool,
}

/// How a value is walked.
#[derive(Clone, Copy)]
pub enum Case<'s> {
    Map(Map<'s>),
    List(List<'s>),
    Scalar(Scalar),
    /// The schema allows nothing.
    None,
}

static NULL: Value = Value::Null;
static FALSE: Value = Value::Bool(false);
static ZERO: Value = Value::Int(0);
static EMPTY: Value = Value::Str(CompactString::const_new(""));
static NOTHING: Value = Value::Str(CompactString::const_new("0"));

/// What JSON shows of a field that is not set.
fn absent(field: &'static FieldDef) -> Option<View<'static>> {
    Some(match json::absent(field)? {
        Absent::Struct(ty) => View::Empty(ty),
        Absent::Null => View::Value(&NULL),
        Absent::Quantity => View::Value(&NOTHING),
        Absent::Zero => View::Value(&ZERO),
        Absent::False => View::Value(&FALSE),
        Absent::Text => View::Value(&EMPTY),
    })
}

fn shown<'v>(field: &'static FieldDef, value: Option<&'v Value>) -> Option<View<'v>> {
    match value {
        Some(value) if json::is_omitted(field, value) => None,
        Some(value) => Some(View::Value(value)),
        None => absent(field),
    }
}

impl<'v> View<'v> {
    pub fn is_null(self) -> bool {
        matches!(self, View::Value(Value::Null))
    }
    pub fn is_scalar(self) -> bool {
        matches!(self, View::Value(Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_)))
    }
    pub fn as_list(self) -> Option<&'v [Value]> {
        match self {
            View::Value(Value::List(items)) => Some(items),
            _ => None,
        }
    }
    pub fn is_map(self) -> bool {
        matches!(self, View::Empty(_) | View::Value(Value::Struct(_) | Value::Map(_)))
    }
    /// The text of opaque JSON, which is parsed before it is walked.
    pub fn as_raw(self) -> Option<&'v str> {
        match self {
            View::Value(Value::Raw(text)) => Some(text),
            _ => None,
        }
    }

    /// A member by name.
    pub fn member(self, name: &str) -> Option<View<'v>> {
        let of = |def: &'static crate::schema::StructDef, present: Option<&'v Struct>| {
            let index = def.field_index(name)?;
            shown(&def.fields[index as usize], present.and_then(|of| of.get_index(index)))
        };
        match self {
            View::Value(Value::Map(map)) => map.get(name).map(View::Value),
            View::Value(Value::Struct(inner)) => of(inner.ty().def(), Some(inner)),
            View::Empty(ty) => of(ty.def(), None),
            View::Value(_) => None,
        }
    }

    /// Whether there is no member.
    pub fn is_empty_map(self) -> bool {
        match self {
            View::Value(Value::Map(map)) => map.is_empty(),
            View::Value(Value::Struct(_)) | View::Empty(_) => self
                .members(&Map { atomic: false, fields: Fields::None, element: None, deduced: false })
                .next()
                .is_none(),
            View::Value(_) => false,
        }
    }

    /// The members, sorted by name.
    pub fn members<'s>(self, map: &Map<'s>) -> Members<'v, 's> {
        let source = match self {
            View::Value(Value::Map(map)) => Source::Map(map.entries().iter()),
            View::Value(Value::Struct(inner)) => Source::Struct(StructFields::of(inner.ty(), Some(inner))),
            View::Empty(ty) => Source::Struct(StructFields::of(ty, None)),
            View::Value(_) => Source::None,
        };
        Members { source, map: *map }
    }

    /// The value as a tree of maps.
    pub fn to_untyped(self) -> Value {
        match self {
            View::Value(Value::Struct(_)) | View::Empty(_) => {
                let any = Map { atomic: false, fields: Fields::None, element: None, deduced: false };
                let pairs = self.members(&any).map(|member| (member.name.as_str(), member.view.to_untyped()));
                Value::Map(pairs.collect())
            }
            View::Value(Value::Map(map)) => {
                let pairs = map.iter().map(|(key, value)| (key, View::Value(value).to_untyped()));
                Value::Map(pairs.collect())
            }
            View::Value(Value::List(items)) => {
                Value::List(items.iter().map(|item| View::Value(item).to_untyped()).collect())
            }
            View::Value(Value::Raw(text)) => parsed(text),
            View::Value(value) => value.clone(),
        }
    }

    /// Which of the things the place allows this value is.
    pub fn case<'s>(self, atom: &Atom<'s>) -> Case<'s> {
        let known = match self {
            _ if self.is_scalar() => atom.scalar.map(Case::Scalar),
            View::Value(Value::List(_)) => atom.list.map(Case::List),
            _ if self.is_map() => atom.map.map(Case::Map),
            _ => None,
        };
        known.unwrap_or_else(|| first_case(atom))
    }

    /// Whether only one thing is left that the value can be.
    pub fn decides(self, atom: &Atom<'_>) -> bool {
        let only = usize::from(atom.scalar.is_some())
            + usize::from(atom.list.is_some())
            + usize::from(atom.map.is_some())
            <= 1;
        only || (self.is_scalar() && atom.scalar.is_some())
            || (self.as_list().is_some() && atom.list.is_some())
            || (self.is_map() && atom.map.is_some())
    }
}

/// What stands for a place whose value decides nothing.
pub fn first_case<'s>(atom: &Atom<'s>) -> Case<'s> {
    match (atom.map, atom.scalar, atom.list) {
        (Some(map), _, _) => Case::Map(map),
        (None, Some(scalar), _) => Case::Scalar(scalar),
        (None, None, Some(list)) => Case::List(list),
        (None, None, None) => Case::None,
    }
}

/// Opaque JSON as a tree; what cannot be read is null.
pub fn parsed(text: &str) -> Value {
    json::decode_untyped(text.as_bytes()).unwrap_or(Value::Null)
}

enum Source<'v> {
    None,
    Map(std::slice::Iter<'v, (CompactString, Value)>),
    Struct(StructFields<'v>),
}

/// The fields of a struct, by name.
struct StructFields<'v> {
    def: &'static StructDef,
    of: Option<&'v Struct>,
    at: usize,
    /// A bit for each of the first fields that is set: most are not, and need not be looked for.
    set: u64,
}

impl<'v> StructFields<'v> {
    fn of(ty: TypeId, of: Option<&'v Struct>) -> StructFields<'v> {
        let indices = of.into_iter().flat_map(Struct::iter).map(|(index, _)| u32::from(index));
        let set = indices.filter(|index| *index < u64::BITS).fold(0, |set, index| set | 1 << index);
        StructFields { def: ty.def(), of, at: 0, set }
    }

    fn next(&mut self) -> Option<(&'static FieldDef, Option<&'v Value>)> {
        let index = *self.def.by_name.get(self.at)?;
        self.at += 1;
        let may_be_set = u32::from(index) >= u64::BITS || self.set >> index & 1 == 1;
        let value = self.of.filter(|_| may_be_set).and_then(|of| of.get_index(index));
        Some((&self.def.fields[index as usize], value))
    }
}

/// See [`View::members`].
pub struct Members<'v, 's> {
    source: Source<'v>,
    map: Map<'s>,
}

impl<'v, 's> Iterator for Members<'v, 's> {
    type Item = Member<'v, 's>;

    fn next(&mut self) -> Option<Member<'v, 's>> {
        match &mut self.source {
            Source::None => None,
            Source::Map(entries) => {
                let (key, value) = entries.next()?;
                let field = self.map.field(key);
                Some(Member {
                    name: Name::Key(key),
                    view: View::Value(value),
                    shape: field.or(self.map.element),
                    declared: field.is_some(),
                })
            }
            Source::Struct(fields) => loop {
                let (field, value) = fields.next()?;
                if let Some(view) = shown(field, value) {
                    return Some(Member {
                        name: Name::Static(field.json),
                        view,
                        shape: Some(Shape::Field(field)),
                        declared: true,
                    });
                }
            },
        }
    }
}

/// Whether two values read as the same JSON; numbers by their value.
pub fn same(a: View<'_>, b: View<'_>) -> bool {
    match (a, b) {
        (View::Value(Value::Raw(x)), View::Value(Value::Raw(y))) if x == y => true,
        (View::Value(Value::Raw(x)), _) => same(View::Value(&parsed(x)), b),
        (_, View::Value(Value::Raw(y))) => same(a, View::Value(&parsed(y))),
        (View::Value(Value::List(x)), View::Value(Value::List(y))) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(View::Value(x), View::Value(y)))
        }
        _ if a.is_map() && b.is_map() => {
            let any = Map { atomic: false, fields: Fields::None, element: None, deduced: false };
            let (mut x, mut y) = (a.members(&any), b.members(&any));
            loop {
                match (x.next(), y.next()) {
                    (None, None) => return true,
                    (Some(x), Some(y)) if x.name.as_str() == y.name.as_str() && same(x.view, y.view) => {}
                    _ => return false,
                }
            }
        }
        (View::Value(x), View::Value(y)) => super::element::compare_values(x, y) == Ordering::Equal,
        _ => false,
    }
}
