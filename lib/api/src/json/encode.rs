//! Documents as canonical JSON: schema order, Go's rules on empty values, sorted map keys, no white space.

use super::EncodeOptions;
use super::scan::plain_end;
use crate::canonical::push_float;
use crate::doc::{Doc, Map, Struct, Value};
use crate::schema::{FieldDef, Flags, Kind, StructDef, TypeId};
use crate::{f, t};

pub(super) fn document(doc: &Doc, options: EncodeOptions, out: &mut Vec<u8>) {
    match &doc.root {
        Value::Struct(root) => {
            out.push(b'{');
            let mut first = true;
            let def = root.ty().def();
            if options.type_meta {
                type_meta(doc, out, &mut first, true);
            }
            fields(def, Some(root), out, &mut first, options.resource_version);
            out.push(b'}');
        }
        Value::Map(root) => custom(doc, root, options, out),
        other => value(other, out),
    }
}

fn type_meta(doc: &Doc, out: &mut Vec<u8>, first: &mut bool, kind_first: bool) {
    let api_version = doc.gvk.api_version();
    let pairs = if kind_first {
        [("kind", doc.gvk.kind.as_str()), ("apiVersion", api_version.as_str())]
    } else {
        [("apiVersion", api_version.as_str()), ("kind", doc.gvk.kind.as_str())]
    };
    for (name, text) in pairs {
        if !text.is_empty() {
            key(name, out, first);
            string(text, out);
        }
    }
}

/// A custom resource: sorted keys, which puts `apiVersion` and `kind` among the others.
fn custom(doc: &Doc, root: &Map, options: EncodeOptions, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    let api_version = doc.gvk.api_version();
    let mut own =
        [("apiVersion", api_version.as_str()), ("kind", doc.gvk.kind.as_str())].into_iter().peekable();
    let mut rest = root.iter().peekable();
    loop {
        let own_next =
            own.peek().is_some_and(|(name, _)| rest.peek().is_none_or(|(other, _)| *name < *other));
        if own_next {
            if let Some((name, text)) = own.next().filter(|(_, text)| options.type_meta && !text.is_empty()) {
                key(name, out, &mut first);
                string(text, out);
            }
            continue;
        }
        let Some((name, inner)) = rest.next() else { break };
        key(name, out, &mut first);
        match inner {
            Value::Struct(meta) if name == "metadata" && meta.ty() == t::meta_v1::OBJECT_META => {
                object_meta(Some(meta), out, options.resource_version)
            }
            other => value(other, out),
        }
    }
    out.push(b'}');
}

pub(super) fn value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(n) => out.extend_from_slice(itoa::Buffer::new().format(*n).as_bytes()),
        Value::Float(n) => push_float(*n, out),
        Value::Str(text) => string(text, out),
        Value::Raw(text) => out.extend_from_slice(if text.is_empty() { b"null" } else { text.as_bytes() }),
        Value::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                self::value(item, out);
            }
            out.push(b']');
        }
        Value::Map(map) => {
            out.push(b'{');
            let mut first = true;
            for (name, inner) in map.iter() {
                key(name, out, &mut first);
                self::value(inner, out);
            }
            out.push(b'}');
        }
        Value::Struct(inner) => structure(inner.ty().def(), Some(inner), out),
    }
}

/// A struct; an absent one by value is written as its zero value is.
fn structure(def: &'static StructDef, present: Option<&Struct>, out: &mut Vec<u8>) {
    out.push(b'{');
    fields(def, present, out, &mut true, true);
    out.push(b'}');
}

fn object_meta(meta: Option<&Struct>, out: &mut Vec<u8>, resource_version: bool) {
    let def = t::meta_v1::OBJECT_META.def();
    out.push(b'{');
    let mut first = true;
    if let Some(meta) = meta {
        for (index, inner) in meta.iter() {
            let field = &def.fields[index as usize];
            if index == f::meta_v1::object_meta::RESOURCE_VERSION.index && !resource_version {
                continue;
            }
            if !is_omitted(field, inner) {
                field_key(field, out, &mut first);
                value(inner, out);
            }
        }
    }
    out.push(b'}');
}

fn fields(
    def: &'static StructDef,
    present: Option<&Struct>,
    out: &mut Vec<u8>,
    first: &mut bool,
    resource_version: bool,
) {
    let mut values = present.map(Struct::iter).into_iter().flatten().peekable();
    for (index, field) in def.fields.iter().enumerate() {
        let here = values.next_if(|(at, _)| *at as usize == index).map(|(_, inner)| inner);
        match here {
            Some(inner) if is_omitted(field, inner) => {}
            Some(Value::Struct(meta))
                if !resource_version && meta.ty() == t::meta_v1::OBJECT_META && field.json == "metadata" =>
            {
                field_key(field, out, first);
                object_meta(Some(meta), out, false);
            }
            // From upstream's store an empty list comes back as none, here as there.
            Some(Value::List(items)) if items.is_empty() => write_absent(field, out, first),
            Some(Value::Map(map)) if map.is_empty() => write_absent(field, out, first),
            Some(inner) => {
                field_key(field, out, first);
                value(inner, out);
            }
            None => write_absent(field, out, first),
        }
    }
}

/// Whether Go leaves the present value out.
pub(crate) fn is_omitted(field: &FieldDef, inner: &Value) -> bool {
    if matches!(inner, Value::Null) {
        return field.flags.has(Flags::OMIT_EMPTY) || field.flags.has(Flags::TYPE_META);
    }
    if field.flags.has(Flags::POINTER) || !field.flags.has(Flags::OMIT_EMPTY) {
        return false;
    }
    match field.kind {
        Kind::Quantity | Kind::IntOrString => false,
        _ => inner.is_go_empty(),
    }
}

/// What Go writes of a field that is not set.
#[derive(Clone, Copy)]
pub(crate) enum Absent {
    /// A struct by value.
    Struct(TypeId),
    Null,
    Quantity,
    Zero,
    False,
    Text,
}

/// What Go writes of a field that is not set; `None`: nothing.
#[inline]
pub(crate) fn absent(field: &'static FieldDef) -> Option<Absent> {
    let omit = field.flags.has(Flags::OMIT_EMPTY);
    if field.flags.has(Flags::POINTER) {
        return (!omit).then_some(Absent::Null);
    }
    match field.kind {
        // `omitempty` never leaves out a struct by value.
        Kind::Struct(ty) => Some(Absent::Struct(ty)),
        Kind::Time | Kind::MicroTime | Kind::RawExtension | Kind::FieldsV1 | Kind::Json
            if !field.flags.has(Flags::OMIT_ZERO) =>
        {
            Some(Absent::Null)
        }
        Kind::Quantity => Some(Absent::Quantity),
        Kind::IntOrString => Some(Absent::Zero),
        _ if omit || field.flags.has(Flags::OMIT_ZERO) => None,
        Kind::Str | Kind::Duration => Some(Absent::Text),
        Kind::Bool => Some(Absent::False),
        Kind::Int32 | Kind::Int64 | Kind::Float64 => Some(Absent::Zero),
        _ => Some(Absent::Null),
    }
}

fn write_absent(field: &'static FieldDef, out: &mut Vec<u8>, first: &mut bool) {
    let Some(what) = absent(field) else { return };
    field_key(field, out, first);
    match what {
        Absent::Struct(ty) => structure(ty.def(), None, out),
        Absent::Null => out.extend_from_slice(b"null"),
        Absent::Quantity => out.extend_from_slice(b"\"0\""),
        Absent::Zero => out.push(b'0'),
        Absent::False => out.extend_from_slice(b"false"),
        Absent::Text => out.extend_from_slice(b"\"\""),
    }
}

#[inline]
fn key(name: &str, out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    string(name, out);
    out.push(b':');
}

/// The name of a schema's field, in which nothing has to be escaped.
#[inline]
fn field_key(field: &FieldDef, out: &mut Vec<u8>, first: &mut bool) {
    let name = field.json.as_bytes();
    debug_assert_eq!(plain_end(name, 0), name.len());
    out.reserve(name.len() + 4);
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name);
    out.extend_from_slice(b"\":");
}

/// A JSON string. Only what JSON must escape is escaped.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut start = 0;
    loop {
        let at = plain_end(bytes, start);
        out.extend_from_slice(&bytes[start..at]);
        let Some(byte) = bytes.get(at) else { break };
        escape(*byte, out);
        start = at + 1;
    }
    out.push(b'"');
}

#[cold]
fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let (high, low) = (HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]);
            return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte that may be escaped at every place around the eight that are looked at together.
    #[test]
    fn what_must_be_escaped_is_wherever_it_stands() {
        for length in 0..20 {
            for at in 0..=length {
                for special in
                    (0..=0x24u8).chain([b'[', b'\\', b']', 0x7f]).map(char::from).chain(['ä', '\u{2028}'])
                {
                    let mut text = "x".repeat(length);
                    text.insert(at, special);
                    let mut out = Vec::new();
                    string(&text, &mut out);
                    let read: String = serde_json::from_slice(&out).expect("a string");
                    assert_eq!(read, text);
                    let plain = special >= ' ' && !matches!(special, '"' | '\\');
                    assert_eq!(out.len() == text.len() + 2, plain, "{text:?}");
                }
            }
        }
    }
}
