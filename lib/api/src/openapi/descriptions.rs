//! The API's descriptions, taken at build time out of a dependency's doc comments (see `build.rs`).

use std::collections::HashMap;

static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/descriptions.txt"));

/// An index over the descriptions. The texts themselves lie in the binary; the index is some 200 KiB, so make one to build
/// documents with and drop it.
pub struct Descriptions {
    index: HashMap<(&'static str, &'static str), &'static str>,
}

impl Descriptions {
    pub fn new() -> Descriptions {
        let records = TEXT.split('\x1e').filter_map(|record| {
            let mut parts = record.splitn(3, '\x1f');
            Some(((parts.next()?, parts.next()?), parts.next()?))
        });
        Descriptions { index: records.collect() }
    }

    /// The text of a definition (`field` empty) or of its field; empty where there is none.
    pub fn get(&self, definition: &str, field: &str) -> &'static str {
        match self.index.get(&(definition, field)) {
            Some(text) => text,
            None => of_every_object(field),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

impl Default for Descriptions {
    fn default() -> Descriptions {
        Descriptions::new()
    }
}

/// Fields that the dependency's types do not have as fields.
fn of_every_object(field: &str) -> &'static str {
    match field {
        "apiVersion" => "APIVersion defines the versioned schema of this representation of an object.",
        "kind" => "Kind is a string value representing the REST resource this object represents.",
        "metadata" => "Standard object's metadata.",
        _ => "",
    }
}
