//! Messages to trees.

use base64::{Engine, engine::general_purpose::STANDARD};
use compact_str::CompactString;
use jiff::Timestamp;

use super::plan::{Item, Plan};
use super::wire::{Reader, Wire, text};
use crate::canonical;
use crate::doc::{MapBuilder, Struct, Value, empty_value};
use crate::json::{self, DecodeError};
use crate::schema::{Kind, TypeId};

/// Deeper nesting is refused.
const MAX_DEPTH: u32 = 200;

pub(super) fn message(ty: TypeId, bytes: &[u8]) -> Result<Struct, DecodeError> {
    let mut out = Struct::new(ty);
    level(ty, Plan::of(ty), bytes, &mut out, 0)?;
    drop_defaults(&mut out);
    Ok(out)
}

fn broken<T>(what: impl std::fmt::Display) -> Result<T, DecodeError> {
    Err(DecodeError::Syntax(format!("proto: {what}")))
}

fn level(
    ty: TypeId,
    plan: &'static Plan,
    bytes: &[u8],
    out: &mut Struct,
    depth: u32,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return broken("exceeded max depth");
    }
    let def = ty.def();
    let mut maps: Vec<(u16, MapBuilder)> = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match plan.item(number) {
            None => {}
            Some(Item::Embed(inner)) => match wire {
                Wire::Bytes(bytes) => level(ty, inner, bytes, out, depth + 1)?,
                _ => {
                    return broken(format_args!(
                        "wrong wireType for an embedded member of {}",
                        def.go_name()
                    ));
                }
            },
            Some(Item::Field(index)) => {
                let field = &def.fields[*index as usize];
                match field.kind {
                    Kind::List(of) => {
                        let item = one(*of, wire, depth)?;
                        if let Value::List(items) = out.entry_index(*index) {
                            items.push(item);
                        }
                    }
                    Kind::Map(of) => {
                        let (key, value) = map_entry(*of, wire, depth)?;
                        match maps.iter_mut().find(|(at, _)| at == index) {
                            Some((_, map)) => map.push(key, value),
                            None => {
                                let mut map = MapBuilder::default();
                                map.push(key, value);
                                maps.push((*index, map));
                            }
                        }
                    }
                    // A message field given twice is merged.
                    Kind::Struct(inner) => {
                        let Wire::Bytes(bytes) = wire else {
                            return broken(format_args!(
                                "wrong wireType for {}.{}",
                                def.go_name(),
                                field.json
                            ));
                        };
                        if let Value::Struct(target) = out.entry_index(*index) {
                            level(inner, Plan::of(inner), bytes, target, depth + 1)?;
                            drop_defaults(target);
                        }
                    }
                    kind => {
                        let value = one(kind, wire, depth)?;
                        if value != Value::Null {
                            out.set_index(*index, value);
                        }
                    }
                }
            }
        }
    }
    for (index, map) in maps {
        let map = map.finish();
        match out.get_index_mut(index) {
            // The message came in two parts.
            Some(Value::Map(before)) => {
                map.into_entries().for_each(|(key, value)| drop(before.insert(key, value)))
            }
            _ => drop(out.set_index(index, Value::Map(map))),
        }
    }
    Ok(())
}

/// Removes what Go could not tell from absent: generated code writes zero scalars too.
fn drop_defaults(of: &mut Struct) {
    let def = of.ty().def();
    of.retain(|index, value| {
        let field = &def.fields[index as usize];
        json::is_kept(field, value)
    });
}

fn map_entry(of: Kind, wire: Wire<'_>, depth: u32) -> Result<(CompactString, Value), DecodeError> {
    let Wire::Bytes(bytes) = wire else { return broken("wrong wireType for a map entry") };
    let mut key = CompactString::default();
    let mut value = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?.into(),
            (2, wire) => value = Some(one(of, wire, depth + 1)?),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| empty_value(of))))
}

/// A scalar, or an element.
fn one(kind: Kind, wire: Wire<'_>, depth: u32) -> Result<Value, DecodeError> {
    Ok(match (kind, wire) {
        (Kind::Bool, Wire::Varint(n)) => Value::Bool(n != 0),
        (Kind::Int32, Wire::Varint(n)) => Value::Int(i64::from(n as i32)),
        (Kind::Int64, Wire::Varint(n)) => Value::Int(n as i64),
        (Kind::Float64, Wire::Fixed64(n)) => Value::Float(f64::from_bits(n)),
        (Kind::Str, Wire::Bytes(bytes)) => Value::Str(text(bytes)?.into()),
        (Kind::Bytes, Wire::Bytes(bytes)) => Value::Str(STANDARD.encode(bytes).into()),
        (Kind::Struct(ty), Wire::Bytes(bytes)) => {
            let mut out = Struct::new(ty);
            level(ty, Plan::of(ty), bytes, &mut out, depth + 1)?;
            drop_defaults(&mut out);
            Value::Struct(out)
        }
        (Kind::WrappedList(of), Wire::Bytes(bytes)) => {
            let mut items = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.field()? {
                if number == 1 {
                    items.push(one(*of, wire, depth + 1)?);
                }
            }
            Value::List(items)
        }
        (kind, Wire::Bytes(bytes)) => special(kind, bytes, depth)?,
        (kind, _) => {
            return broken(format_args!("wrong wireType for a field of type {}", json::go_type_name(kind)));
        }
    })
}

/// The small messages whose JSON form is a scalar or opaque.
fn special(kind: Kind, bytes: &[u8], depth: u32) -> Result<Value, DecodeError> {
    let mut numbers = [0u64; 3];
    let mut bytes_of: [Option<&[u8]>; 4] = [None; 4];
    let mut seen_number = false;
    let mut elements = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match wire {
            Wire::Varint(n) if number < 3 => {
                numbers[number as usize] = n;
                seen_number = true;
            }
            Wire::Bytes(content) if number < 4 => {
                bytes_of[number as usize] = Some(content);
                if number == 2 {
                    elements.push(content);
                }
            }
            _ => {}
        }
    }
    let str_of = |at: usize| bytes_of[at].map_or(Ok(""), text);
    Ok(match kind {
        Kind::Quantity => match canonical::quantity(str_of(1)?) {
            Ok(text) => Value::Str(text),
            Err(why) => return Err(DecodeError::Type(why)),
        },
        Kind::IntOrString if numbers[1] == 1 => Value::Str(str_of(3)?.into()),
        Kind::IntOrString => Value::Int(i64::from(numbers[2] as i32)),
        Kind::Time | Kind::MicroTime => {
            // Upstream reads the empty message as the zero time, which JSON has as null.
            if !seen_number {
                return Ok(Value::Null);
            }
            match Timestamp::new(numbers[1] as i64, (numbers[2] as u32 % 1_000_000_000) as i32) {
                Ok(at) if kind == Kind::Time => Value::Str(canonical::format_time(at)),
                Ok(at) => Value::Str(canonical::format_micro_time(at)),
                Err(_) => return broken("a time out of range"),
            }
        }
        Kind::RawExtension | Kind::FieldsV1 | Kind::Json => match bytes_of[1] {
            None | Some(b"") => Value::Null,
            Some(content) => json::decode_value(kind, content)?,
        },
        Kind::SchemaOrArray(ty) => match bytes_of[1] {
            Some(_) => one(Kind::Struct(ty), Wire::Bytes(bytes_of[1].unwrap_or_default()), depth + 1)?,
            None => {
                let items = elements.into_iter().map(|e| one(Kind::Struct(ty), Wire::Bytes(e), depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
        },
        Kind::SchemaOrBool(ty) => match bytes_of[2] {
            Some(content) => one(Kind::Struct(ty), Wire::Bytes(content), depth + 1)?,
            None => Value::Bool(numbers[1] != 0),
        },
        Kind::SchemaOrStrings(ty) => match bytes_of[1] {
            Some(content) => one(Kind::Struct(ty), Wire::Bytes(content), depth + 1)?,
            None => {
                Value::List(elements.into_iter().map(|e| Ok(Value::Str(text(e)?.into()))).collect::<Result<
                    _,
                    DecodeError,
                >>(
                )?)
            }
        },
        other => return broken(format_args!("no codec for {}", json::go_type_name(other))),
    })
}
