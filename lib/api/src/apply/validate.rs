//! Whether a configuration fits its schema. The texts are upstream's.

use std::fmt;

use super::element::PathElement;
use super::list::item_element;
use super::shape::{List, Map, Relation, Scalar, Shape};
use super::view::{Case, View, parsed};
use crate::canonical::push_float;
use crate::doc::Value;

/// All mistakes found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// One mistake and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub path: String,
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.path, self.text) }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [one] = self.0.as_slice() {
            return one.fmt(f);
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// Checks a value; `twice`: list items with equal keys may stand more than once.
pub fn validate(view: View<'_>, shape: Shape<'_>, twice: bool) -> Result<(), Mistakes> {
    let mut walker = Walker { twice, path: Vec::new(), found: Vec::new() };
    walker.node(view, shape);
    if walker.found.is_empty() { Ok(()) } else { Err(Mistakes(walker.found)) }
}

struct Walker {
    twice: bool,
    path: Vec<PathElement>,
    found: Vec<Mistake>,
}

impl Walker {
    fn note(&mut self, text: impl Into<String>) {
        let path = super::set::path_text(&self.path);
        self.found.push(Mistake { path, text: text.into() });
    }

    fn node(&mut self, view: View<'_>, shape: Shape<'_>) {
        if let Some(text) = view.as_raw() {
            return self.node(View::Value(&parsed(text)), shape);
        }
        match view.case(&shape.atom()) {
            Case::Scalar(scalar) => self.scalar(view, scalar),
            Case::List(list) => match view.as_list() {
                Some(items) => self.items(items, &list),
                None if view.is_null() => {}
                None => self.note(format!("expected list, got {}", reference(view))),
            },
            Case::Map(map) => {
                if view.is_map() {
                    self.members(view, &map);
                } else if !view.is_null() {
                    self.note(format!("expected map, got {}", reference(view)));
                }
            }
            Case::None => self.note("schema error: invalid atom: inlined"),
        }
    }

    fn scalar(&mut self, view: View<'_>, scalar: Scalar) {
        let View::Value(value) = view else {
            return self.note(format!("expected any scalar, got {}", reference(view)));
        };
        let fits = match (scalar, value) {
            (_, Value::Null) => true,
            (Scalar::Numeric, Value::Int(_) | Value::Float(_)) => true,
            (Scalar::String, Value::Str(_)) => true,
            (Scalar::Boolean, Value::Bool(_)) => true,
            (Scalar::Untyped, _) => view.is_scalar(),
            _ => false,
        };
        if fits {
            return;
        }
        let text = match scalar {
            Scalar::Numeric => format!("expected numeric (int or float), got {}", type_name(value)),
            Scalar::String => {
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value))
            }
            Scalar::Boolean => format!("expected boolean, got {}", reference(view)),
            Scalar::Untyped => format!("expected any scalar, got {}", reference(view)),
        };
        self.note(text);
    }

    fn items(&mut self, items: &[Value], list: &List<'_>) {
        let mut seen = std::collections::BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let element = if list.relation == Relation::Associative {
                match item_element(list, View::Value(item)) {
                    Ok(element) => element,
                    Err(error) => return self.note(format!("element {at}: {error}")),
                }
            } else {
                PathElement::Index(at as i64)
            };
            if list.relation == Relation::Associative && !self.twice && !seen.insert(element.clone()) {
                self.note(format!("duplicate entries for key {element}"));
            }
            self.path.push(element);
            self.node(View::Value(item), list.element);
            self.path.pop();
        }
    }

    fn members(&mut self, view: View<'_>, map: &Map<'_>) {
        for member in view.members(map) {
            self.path.push(member.name.element());
            match member.shape {
                Some(shape) => self.node(member.view, shape),
                None => self.note("field not declared in schema"),
            }
            self.path.pop();
            if member.shape.is_none() {
                // Upstream looks no further in this map.
                return;
            }
        }
    }
}

/// Go's name of an untyped value's type.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null | Value::Raw(_) => "<nil>",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Str(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Map(_) | Value::Struct(_) => "map[string]interface {}",
    }
}

fn number(n: f64) -> String {
    let mut out = Vec::new();
    push_float(n, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null | Value::Raw(_) => "interface {}(nil)".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(n) => number(*n),
        Value::Str(text) => crate::field_errors::quoted(text),
        Value::List(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Struct(_) => go_syntax(&View::Value(value).to_untyped()),
        Value::Map(map) => {
            let pairs: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{}:{}", crate::field_errors::quoted(key), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
    }
}

/// A value as Go's `%v` prints it.
fn go_plain(value: &Value) -> String {
    match value {
        Value::Null | Value::Raw(_) => "<nil>".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Float(n) => number(*n),
        Value::Str(text) => text.to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(go_plain).collect::<Vec<_>>().join(" "))
        }
        Value::Struct(_) => go_plain(&View::Value(value).to_untyped()),
        Value::Map(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", go_plain(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// Upstream prints its wrapper of the value, not the value.
fn reference(view: View<'_>) -> String {
    format!("&{{{}}}", go_plain(&view.to_untyped()))
}
