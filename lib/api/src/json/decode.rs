//! JSON into documents, by schema.
//!
//! A value of the wrong type is noted and skipped, as Go does; the first note is the error, unless the syntax is broken
//! further on. Unknown and duplicate fields are counted up to 100. What Go could not tell from absent (a zero scalar by
//! value, an empty struct by value, an empty omitted list) is not kept, so equal objects make equal trees.

use std::borrow::Cow;

use compact_str::CompactString;

use super::scan::{MAX_DEPTH, Scanner, compact, syntax};
use super::{DecodeError, FieldValidation, Warning};
use crate::canonical;
use crate::doc::{Doc, Gvk, Map, MapBuilder, Struct, Value, empty_value};
use crate::field_errors::quoted;
use crate::schema::{FieldDef, Flags, Kind, StructDef, TypeId};
use crate::t;

const MAX_STRICT_ERRORS: usize = 100;

pub(super) fn document(
    ty: Option<TypeId>,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<(Doc, Vec<Warning>), DecodeError> {
    let mut decoder = Decoder::new(bytes, validation != FieldValidation::Ignore);
    let mut gvk = (CompactString::default(), CompactString::default());
    let root = match ty {
        Some(ty) => decoder.root_struct(ty, &mut gvk)?,
        None => decoder.root_custom(&mut gvk)?,
    };
    decoder.scan.end()?;
    let strict = decoder.finish()?;
    if validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(DecodeError::Strict(strict));
    }
    Ok((Doc { root, gvk: Gvk::from_api_version(&gvk.0, &gvk.1) }, strict))
}

pub(super) fn value(kind: Kind, bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut decoder = Decoder::new(bytes, false);
    let value = decoder.value(kind, "", 0)?;
    decoder.scan.end()?;
    decoder.finish()?;
    Ok(value.unwrap_or(Value::Null))
}

pub(super) fn untyped(bytes: &[u8]) -> Result<(Value, Vec<Warning>), DecodeError> {
    let mut decoder = Decoder::new(bytes, true);
    let value = decoder.any(0)?;
    decoder.scan.end()?;
    Ok((value, decoder.finish()?))
}

/// One step from the root to where the decoder stands.
enum Step<'a> {
    Field(&'static FieldDef, &'static StructDef),
    Index(usize),
    Key(Cow<'a, str>),
}

struct Decoder<'a> {
    scan: Scanner<'a>,
    steps: Vec<Step<'a>>,
    strict: Option<Vec<String>>,
    /// The first value of another type; Go notes it and goes on.
    type_error: Option<String>,
    /// The first text a type's own reader refused; Go stops there, so it counts before the type errors noted.
    fatal: Option<String>,
}

/// Why a value has no place in the tree: it is null, or was noted as of the wrong type.
type Absent = Option<Value>;

/// So many fields after the last one are looked at before the name is searched for.
const AHEAD: usize = 6;

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8], strict: bool) -> Decoder<'a> {
        Decoder {
            scan: Scanner::new(bytes),
            steps: Vec::with_capacity(16),
            strict: strict.then(Vec::new),
            type_error: None,
            fatal: None,
        }
    }

    fn finish(self) -> Result<Vec<String>, DecodeError> {
        match self.fatal.or(self.type_error) {
            Some(text) => Err(DecodeError::Type(text)),
            None => Ok(self.strict.unwrap_or_default()),
        }
    }

    fn note_strict(&mut self, what: &str, name: &str) {
        let Some(seen) = &mut self.strict else { return };
        if seen.len() >= MAX_STRICT_ERRORS {
            return;
        }
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Index(i) => path.push_str(&format!("[{i}]")),
                Step::Field(field, _) => push_dotted(&mut path, field.json),
                Step::Key(key) => push_dotted(&mut path, key),
            }
        }
        push_dotted(&mut path, name);
        let text = format!("{what} {}", quoted(&path));
        if !seen.contains(&text) {
            seen.push(text);
        }
    }

    /// Go's error for a value of another type than the field's.
    #[cold]
    fn type_text(&self, found: &str, go_type: &str) -> String {
        let mut path = String::new();
        let mut of = None;
        for step in &self.steps {
            if let Step::Field(field, within) = step {
                if field.embed != 0 {
                    push_dotted(&mut path, within.embeds[field.embed as usize - 1].go);
                } else if field.flags.has(Flags::TYPE_META) {
                    push_dotted(&mut path, "TypeMeta");
                }
                push_dotted(&mut path, field.json);
                of = Some(*within);
            }
        }
        match of {
            Some(of) => format!(
                "json: cannot unmarshal {found} into Go struct field {}.{path} of type {go_type}",
                of.go_name()
            ),
            None => format!("json: cannot unmarshal {found} into Go value of type {go_type}"),
        }
    }

    #[cold]
    fn note_type(&mut self, found: &str, go_type: &str) {
        if self.type_error.is_none() {
            self.type_error = Some(self.type_text(found, go_type));
        }
    }

    /// What kind of value comes next, in Go's words.
    fn next_word(&mut self) -> &'static str {
        match self.scan.peek() {
            Some(b'{') => "object",
            Some(b'[') => "array",
            Some(b'"') => "string",
            Some(b't' | b'f') => "bool",
            _ => "number",
        }
    }

    /// Skips a value a type's own reader does not take.
    #[cold]
    fn refuse(&mut self, go_type: &str, depth: u32) -> Result<Absent, DecodeError> {
        let found = self.next_word();
        self.scan.skip(depth)?;
        let text = self.type_text(found, go_type);
        self.fail(text);
        Ok(None)
    }

    /// Skips a value that does not fit and notes it.
    #[cold]
    fn mismatch(&mut self, go_type: &str, depth: u32) -> Result<Absent, DecodeError> {
        let found = self.next_word();
        self.scan.skip(depth)?;
        self.note_type(found, go_type);
        Ok(None)
    }

    fn root_struct(
        &mut self,
        ty: TypeId,
        gvk: &mut (CompactString, CompactString),
    ) -> Result<Value, DecodeError> {
        let empty = Value::Struct(Struct::new(ty));
        match self.scan.peek() {
            Some(b'{') => {}
            Some(b'n') => {
                self.scan.literal("null")?;
                return Ok(empty);
            }
            _ => {
                self.mismatch(ty.def().go_qualified(), 0)?;
                return Ok(empty);
            }
        }
        let mut root = match self.structure(ty, 0)? {
            Value::Struct(root) => root,
            _ => return Ok(empty),
        };
        root.retain(|index, value| {
            let field = &ty.def().fields[index as usize];
            if !field.flags.has(Flags::TYPE_META) {
                return true;
            }
            if let Value::Str(text) = value {
                let slot = if field.json == "kind" { &mut gvk.1 } else { &mut gvk.0 };
                *slot = std::mem::take(text);
            }
            false
        });
        Ok(Value::Struct(root))
    }

    fn root_custom(&mut self, gvk: &mut (CompactString, CompactString)) -> Result<Value, DecodeError> {
        if self.scan.peek() != Some(b'{') {
            self.mismatch("map[string]interface {}", 0)?;
            return Ok(Value::Map(Map::new()));
        }
        self.scan.bump();
        let mut root = MapBuilder::default();
        let mut first = true;
        while let Some(key) = self.scan.key(first)? {
            if root.contains(&key) {
                self.note_strict("duplicate field", &key);
            }
            let is_metadata = key == "metadata";
            self.steps.push(Step::Key(key));
            let value = if is_metadata {
                self.value(Kind::Struct(t::meta_v1::OBJECT_META), "", 1)?
            } else {
                Some(self.any(1)?)
            };
            if let (Some(Step::Key(key)), Some(value)) = (self.steps.pop(), value) {
                root.push(to_compact(key), value);
            }
            if !self.scan.another_member()? {
                break;
            }
            first = false;
        }
        let mut root = root.finish();
        for (key, slot) in [("apiVersion", &mut gvk.0), ("kind", &mut gvk.1)] {
            match root.remove(key) {
                Some(Value::Str(text)) => *slot = text,
                None | Some(Value::Null) => {}
                Some(_) => self.note_type("value", "string"),
            }
        }
        Ok(Value::Map(root))
    }

    /// The scanner stands on the opening brace.
    fn structure(&mut self, ty: TypeId, depth: u32) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return syntax("exceeded max depth");
        }
        self.scan.bump();
        let def = ty.def();
        let mut out = Struct::new(ty);
        let mut expected = 0;
        let mut seen = Seen::default();
        let mut first = true;
        while let Some(key) = self.scan.key(first)? {
            // Objects mostly come in schema order, with a few fields left out.
            let ahead = def.fields.get(expected..).unwrap_or_default().iter().take(AHEAD);
            let index = match ahead.map(|field| field.json).position(|name| name == key) {
                Some(at) => Some((expected + at) as u16),
                None => def.field_index(&key),
            };
            match index {
                Some(index) => {
                    let field = &def.fields[index as usize];
                    expected = index as usize + 1;
                    if seen.twice(index) {
                        self.note_strict("duplicate field", field.json);
                    }
                    self.steps.push(Step::Field(field, def));
                    let value = self.value(field.kind, field.ext.go_type, depth + 1)?;
                    self.steps.pop();
                    match value {
                        Some(value) if is_kept(field, &value) => out.push(index, value),
                        // Null leaves what an earlier duplicate set only where Go does: in scalars by value.
                        Some(_) => drop(out.remove_index(index)),
                        None => {}
                    }
                }
                None => {
                    self.note_strict("unknown field", &key);
                    self.scan.skip(depth + 1)?;
                }
            }
            if !self.scan.another_member()? {
                break;
            }
            first = false;
        }
        Ok(Value::Struct(out))
    }

    fn value(&mut self, kind: Kind, go_type: &str, depth: u32) -> Result<Absent, DecodeError> {
        if depth > MAX_DEPTH {
            return syntax("exceeded max depth");
        }
        let Some(next) = self.scan.peek() else { return syntax("unexpected end of JSON input") };
        if next == b'n' {
            self.scan.literal("null")?;
            return Ok(None);
        }
        match kind {
            Kind::Str => match next {
                b'"' => Ok(Some(Value::Str(to_compact(self.scan.string()?)))),
                _ => self.mismatch(if go_type.is_empty() { "string" } else { go_type }, depth),
            },
            Kind::Bool => match next {
                b't' => self.scan.literal("true").map(|()| Some(Value::Bool(true))),
                b'f' => self.scan.literal("false").map(|()| Some(Value::Bool(false))),
                _ => self.mismatch("bool", depth),
            },
            Kind::Int32 | Kind::Int64 | Kind::Float64 => self.numeric(kind, next, depth),
            Kind::Struct(ty) => match next {
                b'{' => self.structure(ty, depth).map(Some),
                _ => self.mismatch(ty.def().go_qualified(), depth),
            },
            Kind::List(of) | Kind::WrappedList(of) => match next {
                b'[' => self.list(of, go_type, depth).map(Some),
                _ if !go_type.is_empty() => self.mismatch(go_type, depth),
                _ => self.mismatch(&go_type_name(kind), depth),
            },
            Kind::Map(of) => match next {
                b'{' => self.map(of, depth).map(Some),
                _ if !go_type.is_empty() => self.mismatch(go_type, depth),
                _ => self.mismatch(&go_type_name(kind), depth),
            },
            _ => self.special(kind, next, depth),
        }
    }

    fn numeric(&mut self, kind: Kind, next: u8, depth: u32) -> Result<Absent, DecodeError> {
        let go = match kind {
            Kind::Int32 => "int32",
            Kind::Int64 => "int64",
            _ => "float64",
        };
        if !matches!(next, b'-' | b'0'..=b'9') {
            return self.mismatch(go, depth);
        }
        let text = self.scan.number()?;
        let value = match kind {
            Kind::Int32 => text.parse::<i32>().ok().map(Value::from),
            Kind::Int64 => text.parse::<i64>().ok().map(Value::Int),
            _ => text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::Float),
        };
        if value.is_none() {
            self.note_type(&format!("number {text}"), go);
        }
        Ok(value)
    }

    fn list(&mut self, of: &Kind, go_type: &str, depth: u32) -> Result<Value, DecodeError> {
        self.scan.bump();
        let go_type = go_type.strip_prefix("[]").unwrap_or("");
        let mut items = Vec::new();
        let mut more = self.scan.first_element();
        while more {
            self.steps.push(Step::Index(items.len()));
            let item = self.value(*of, go_type, depth + 1)?;
            self.steps.pop();
            items.push(item.unwrap_or_else(|| empty_value(*of)));
            more = self.scan.another_element()?;
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, of: &Kind, depth: u32) -> Result<Value, DecodeError> {
        self.scan.bump();
        let mut map = MapBuilder::default();
        let mut first = true;
        while let Some(key) = self.scan.key(first)? {
            if map.contains(&key) {
                self.note_strict("duplicate field", &key);
            }
            self.steps.push(Step::Key(key));
            let value = self.value(*of, "", depth + 1)?;
            if let Some(Step::Key(key)) = self.steps.pop() {
                map.push(to_compact(key), value.unwrap_or_else(|| empty_value(*of)));
            }
            if !self.scan.another_member()? {
                break;
            }
            first = false;
        }
        Ok(Value::Map(map.finish()))
    }

    /// Kinds whose JSON form is a scalar text or opaque.
    fn special(&mut self, kind: Kind, next: u8, depth: u32) -> Result<Absent, DecodeError> {
        match kind {
            Kind::Bytes if next != b'"' => self.mismatch("[]uint8", depth),
            Kind::Bytes => {
                let text = self.scan.string()?;
                match canonical::base64(&text) {
                    Ok(text) => Ok(Some(Value::Str(text))),
                    Err(why) => {
                        self.type_error.get_or_insert(why);
                        Ok(None)
                    }
                }
            }
            Kind::Time | Kind::MicroTime | Kind::Duration if next != b'"' => self.refuse("string", depth),
            Kind::Time | Kind::MicroTime | Kind::Duration => {
                let text = self.scan.string()?;
                let canonical = match kind {
                    Kind::Time => canonical::time(&text),
                    Kind::MicroTime => canonical::micro_time(&text),
                    _ => Ok(text.as_ref().into()),
                };
                Ok(self.canonical(canonical))
            }
            Kind::Quantity => {
                let start = self.scan.pos();
                let text: Cow<'_, str> = if next == b'"' {
                    self.scan.string()?
                } else {
                    self.scan.skip(depth)?;
                    String::from_utf8_lossy(self.scan.slice(start))
                };
                let canonical = canonical::quantity(&text);
                Ok(self.canonical(canonical))
            }
            Kind::IntOrString => match next {
                b'"' => Ok(Some(Value::Str(to_compact(self.scan.string()?)))),
                b'-' | b'0'..=b'9' => {
                    let text = self.scan.number()?;
                    if let Ok(n) = text.parse::<i32>() {
                        return Ok(Some(Value::from(n)));
                    }
                    let why = self.type_text(&format!("number {text}"), "int32");
                    self.fail(why);
                    Ok(None)
                }
                _ => self.refuse("int32", depth),
            },
            Kind::SchemaOrArray(ty) => match next {
                b'[' => self.list(&Kind::Struct(ty), "", depth).map(Some),
                _ => self.value(Kind::Struct(ty), "", depth),
            },
            Kind::SchemaOrBool(ty) => match next {
                b't' | b'f' => self.value(Kind::Bool, "", depth),
                b'{' => self.structure(ty, depth).map(Some),
                _ => {
                    self.scan.skip(depth)?;
                    self.fail("boolean or JSON schema expected".into());
                    Ok(None)
                }
            },
            Kind::SchemaOrStrings(ty) => match next {
                b'[' => self.list(&Kind::Str, "", depth).map(Some),
                _ => self.value(Kind::Struct(ty), "", depth),
            },
            Kind::FieldsV1 | Kind::RawExtension | Kind::Json => {
                let start = self.scan.pos();
                self.scan.skip(depth)?;
                Ok(Some(Value::Raw(compact(self.scan.slice(start)).into())))
            }
            _ => syntax("a kind without a codec"),
        }
    }

    fn canonical(&mut self, text: Result<CompactString, String>) -> Absent {
        match text {
            Ok(text) => Some(Value::Str(text)),
            Err(why) => {
                self.fail(why);
                None
            }
        }
    }

    #[cold]
    fn fail(&mut self, why: String) {
        self.fatal.get_or_insert(why);
    }

    /// A value without a schema: object keys sorted, integers kept exact.
    fn any(&mut self, depth: u32) -> Result<Value, DecodeError> {
        if depth > MAX_DEPTH {
            return syntax("exceeded max depth");
        }
        match self.scan.peek() {
            Some(b'{') => {
                self.scan.bump();
                let mut map = MapBuilder::default();
                let mut first = true;
                while let Some(key) = self.scan.key(first)? {
                    if map.contains(&key) {
                        self.note_strict("duplicate field", &key);
                    }
                    self.steps.push(Step::Key(key));
                    let value = self.any(depth + 1)?;
                    if let Some(Step::Key(key)) = self.steps.pop() {
                        map.push(to_compact(key), value);
                    }
                    if !self.scan.another_member()? {
                        break;
                    }
                    first = false;
                }
                Ok(Value::Map(map.finish()))
            }
            Some(b'[') => {
                self.scan.bump();
                let mut items = Vec::new();
                let mut more = self.scan.first_element();
                while more {
                    self.steps.push(Step::Index(items.len()));
                    items.push(self.any(depth + 1)?);
                    self.steps.pop();
                    more = self.scan.another_element()?;
                }
                Ok(Value::List(items))
            }
            Some(b'"') => Ok(Value::Str(to_compact(self.scan.string()?))),
            Some(b't') => self.scan.literal("true").map(|()| Value::Bool(true)),
            Some(b'f') => self.scan.literal("false").map(|()| Value::Bool(false)),
            Some(b'n') => self.scan.literal("null").map(|()| Value::Null),
            Some(b'-' | b'0'..=b'9') => {
                let text = self.scan.number()?;
                if let Ok(n) = text.parse::<i64>() {
                    return Ok(Value::Int(n));
                }
                match text.parse::<f64>() {
                    Ok(n) if n.is_finite() => Ok(Value::Float(n)),
                    _ => {
                        self.note_type(&format!("number {text}"), "float64");
                        Ok(Value::Null)
                    }
                }
            }
            _ => self.scan.unexpected("looking for beginning of value"),
        }
    }
}

/// Which fields of a struct have been read: a bit each, more than any struct has.
#[derive(Default)]
struct Seen([u64; 2]);

impl Seen {
    fn twice(&mut self, index: u16) -> bool {
        let (word, bit) = ((index as usize / 64).min(1), 1u64 << (index % 64));
        let before = self.0[word] & bit != 0;
        self.0[word] |= bit;
        before
    }
}

fn to_compact(text: Cow<'_, str>) -> CompactString {
    match text {
        Cow::Borrowed(text) => text.into(),
        Cow::Owned(text) => text.into(),
    }
}

fn push_dotted(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Whether the value differs from an absent field in Go.
pub(crate) fn is_kept(field: &FieldDef, value: &Value) -> bool {
    if field.flags.has(Flags::POINTER) {
        return true;
    }
    match value {
        Value::Struct(inner) => !inner.is_empty(),
        Value::List(_) if field.flags.has(Flags::EMPTY_TELLS) => true,
        Value::List(items) => !items.is_empty() || !field.flags.has(Flags::OMIT_EMPTY),
        Value::Map(map) => !map.is_empty() || !field.flags.has(Flags::OMIT_EMPTY),
        Value::Str(text) if field.kind == Kind::Bytes => {
            !text.is_empty() || !field.flags.has(Flags::OMIT_EMPTY)
        }
        // A zero IntOrString by value is the integer 0; "" is another value.
        Value::Str(_) if field.kind == Kind::IntOrString => true,
        Value::Str(_) if field.kind == Kind::Quantity => true,
        scalar => !scalar.is_go_empty(),
    }
}

/// Go's name of a type, for error texts.
pub(crate) fn go_type_name(kind: Kind) -> String {
    match kind {
        Kind::Bool => "bool".into(),
        Kind::Int32 => "int32".into(),
        Kind::Int64 => "int64".into(),
        Kind::Float64 => "float64".into(),
        Kind::Str => "string".into(),
        Kind::Bytes => "[]uint8".into(),
        Kind::Quantity => "resource.Quantity".into(),
        Kind::IntOrString => "intstr.IntOrString".into(),
        Kind::Time => "v1.Time".into(),
        Kind::MicroTime => "v1.MicroTime".into(),
        Kind::Duration => "v1.Duration".into(),
        Kind::FieldsV1 => "v1.FieldsV1".into(),
        Kind::RawExtension => "runtime.RawExtension".into(),
        Kind::Json => "v1.JSON".into(),
        Kind::SchemaOrArray(ty) | Kind::SchemaOrBool(ty) | Kind::SchemaOrStrings(ty) | Kind::Struct(ty) => {
            ty.def().go_qualified().into()
        }
        Kind::List(of) => format!("[]{}", go_type_name(*of)),
        Kind::WrappedList(_) => "v1.ExtraValue".into(),
        Kind::Map(of) => format!("map[string]{}", go_type_name(*of)),
    }
}
