//! Whether stored JSON is already what its schema makes of it, told from the bytes without a tree: nothing to prune, nothing to
//! default. What reads objects asks it of each one once; only those that do not fit are decoded and written anew.

use super::{Additional, Schema};
use crate::json::DecodeError;
use crate::json::scan::Scanner;

/// What an object's root has besides its schema's properties.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Whether pruning and defaulting would leave the stored object (canonical: sorted keys) as it is. `false` where in doubt.
pub fn fits(schema: &Schema, stored: &[u8]) -> bool {
    let mut scan = Scanner::new(stored);
    if scan.peek() != Some(b'{') {
        return false;
    }
    matches!(object(schema, &mut scan, true, schema.preserve_unknown(), 0), Ok(true)) && scan.end().is_ok()
}

type Fits = Result<bool, DecodeError>;

/// The scanner stands on the opening brace. `keep`: unknown fields stay.
fn object(schema: &Schema, scan: &mut Scanner<'_>, embedded: bool, keep: bool, depth: u32) -> Fits {
    scan.bump();
    let mut properties = schema.properties().peekable();
    let mut first = true;
    let mut last = String::new();
    while let Some(key) = scan.key(first)? {
        if !first && *key <= *last {
            return Ok(false);
        }
        // Both are sorted: what is passed over is absent.
        while let Some((_, absent)) = properties.next_if(|(name, _)| *name < &*key) {
            if absent.default().is_some() {
                return Ok(false);
            }
        }
        let known = properties.next_if(|(name, _)| *name == &*key).map(|(_, property)| property);
        let fits = if embedded && META.contains(&&*key) {
            scan.skip(depth + 1)?;
            true
        } else {
            match (known, schema.additional_properties()) {
                (Some(property), _) => property_fits(property, scan, depth)?,
                (None, Some(Additional::Schema(additional))) => property_fits(additional, scan, depth)?,
                (None, Some(Additional::Allowed(_))) => without_members(scan, depth + 1)?,
                (None, None) if keep => {
                    scan.skip(depth + 1)?;
                    true
                }
                (None, None) => false,
            }
        };
        if !fits {
            return Ok(false);
        }
        last.clear();
        last.push_str(&key);
        if !scan.another_member()? {
            break;
        }
        first = false;
    }
    Ok(properties.all(|(_, absent)| absent.default().is_none()))
}

fn property_fits(schema: &Schema, scan: &mut Scanner<'_>, depth: u32) -> Fits {
    if scan.peek() == Some(b'n') {
        scan.literal("null")?;
        return Ok(schema.nullable());
    }
    value(schema, scan, schema.preserve_unknown(), depth + 1)
}

fn value(schema: &Schema, scan: &mut Scanner<'_>, keep: bool, depth: u32) -> Fits {
    match scan.peek() {
        Some(b'{') => object(schema, scan, schema.embedded(), keep || schema.preserve_unknown(), depth),
        Some(b'[') => {
            scan.bump();
            let mut more = scan.first_element();
            while more {
                let fits = match (schema.items(), scan.peek()) {
                    (Some(items), Some(b'n')) => {
                        scan.literal("null")?;
                        items.nullable() || items.default().is_none()
                    }
                    (Some(items), _) => value(items, scan, keep, depth + 1)?,
                    (None, _) if keep => {
                        scan.skip(depth + 1)?;
                        true
                    }
                    (None, _) => without_members(scan, depth + 1)?,
                };
                if !fits {
                    return Ok(false);
                }
                more = scan.another_element()?;
            }
            Ok(true)
        }
        _ => {
            scan.skip(depth)?;
            Ok(true)
        }
    }
}

/// Where the schema says nothing, objects lose all their members.
fn without_members(scan: &mut Scanner<'_>, depth: u32) -> Fits {
    match scan.peek() {
        Some(b'{') => {
            scan.bump();
            Ok(scan.key(true)?.is_none())
        }
        Some(b'[') => {
            scan.bump();
            let mut more = scan.first_element();
            while more {
                if !without_members(scan, depth + 1)? {
                    return Ok(false);
                }
                more = scan.another_element()?;
            }
            Ok(true)
        }
        _ => {
            scan.skip(depth)?;
            Ok(true)
        }
    }
}
