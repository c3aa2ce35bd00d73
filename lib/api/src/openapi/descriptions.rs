//! The API's descriptions, taken at build time out of a dependency's doc comments (see `build.rs`).

use std::collections::HashMap;

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

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
            None => self.of_every_object(field),
        }
    }

    /// The fields that objects have in common: where the dependency's types do not have them as fields, its delete options
    /// do, with the texts of all types.
    fn of_every_object(&self, field: &str) -> &'static str {
        match field {
            "apiVersion" | "kind" => self.index.get(&(DELETE_OPTIONS, field)).copied().unwrap_or_default(),
            "metadata" => "Standard object's metadata.",
            _ => "",
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
