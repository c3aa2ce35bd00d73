//! Selecting objects by labels and fields from their bytes.

use std::sync::Arc;

use keelson_api::fields_selector::FieldSelector;
use keelson_api::selectors::{LabelSelector, Labels};

use crate::objects::Stored;
use crate::scan;

/// Looks up selectable fields of a decoded object; asked only for what the bytes and the key do not tell.
pub type FieldReader = Arc<dyn Fn(&Stored) -> Vec<(String, String)> + Send + Sync>;

/// What a list, watch or deletecollection selects.
#[derive(Clone)]
pub struct Filter {
    labels: LabelSelector,
    fields: FieldSelector,
    reader: FieldReader,
    /// All terms of the field selector are on metadata.name and metadata.namespace.
    names_only: bool,
    namespaced: bool,
}

impl Filter {
    pub fn new(labels: LabelSelector, fields: FieldSelector, namespaced: bool, reader: FieldReader) -> Filter {
        let names_only = fields.terms().iter().all(|term| matches!(term.field.as_str(), "metadata.name" | "metadata.namespace"));
        Filter { labels, fields, reader, names_only, namespaced }
    }

    /// Selects everything.
    pub fn everything() -> Filter {
        Filter::new(LabelSelector::everything(), FieldSelector::everything(), true, Arc::new(|_| Vec::new()))
    }

    /// Whether nothing is left out.
    pub fn passes_all(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object is selected.
    pub fn matches(&self, stored: &Stored) -> bool {
        self.matches_fields(stored) && self.matches_labels(&stored.value)
    }

    fn matches_labels(&self, bytes: &[u8]) -> bool {
        self.labels.is_everything() || self.labels.matches(&LabelBytes::of(bytes))
    }

    fn matches_fields(&self, stored: &Stored) -> bool {
        if self.fields.is_everything() {
            return true;
        }
        let mut parts = stored.key.rsplit('/');
        let name = parts.next().unwrap_or_default();
        let namespace = if self.namespaced { parts.next().unwrap_or_default() } else { "" };
        if self.names_only {
            return self.fields.matches(|field| match field {
                "metadata.name" => Some(name),
                "metadata.namespace" => Some(namespace),
                _ => None,
            });
        }
        let read = (self.reader)(stored);
        self.fields.matches(|field| match field {
            "metadata.name" => Some(name),
            "metadata.namespace" => Some(namespace),
            other => read.iter().find(|(key, _)| key == other).map(|(_, value)| value.as_str()),
        })
    }
}

/// The labels of a stored object, read once.
struct LabelBytes {
    pairs: Vec<(String, String)>,
}

impl LabelBytes {
    fn of(bytes: &[u8]) -> LabelBytes {
        let pairs = scan::metadata(bytes)
            .and_then(|meta| scan::member(bytes, meta.start, "labels"))
            .and_then(|labels| serde_json::from_slice::<std::collections::BTreeMap<String, String>>(&bytes[labels]).ok())
            .map(|labels| labels.into_iter().collect())
            .unwrap_or_default();
        LabelBytes { pairs }
    }
}

impl Labels for LabelBytes {
    fn get_label(&self, key: &str) -> Option<&str> {
        self.pairs.as_slice().get_label(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_labels_names_and_fields() {
        let stored = Stored {
            key: "/registry/pods/default/web".into(),
            value: br#"{"metadata":{"name":"web","namespace":"default","labels":{"app":"web","a":"b\"c"}},"status":{"phase":"Running"}}"#.as_slice().into(),
            revision: 3,
        };
        let check = |labels: &str, fields: &str| {
            let reader: FieldReader = Arc::new(|_| vec![("status.phase".to_owned(), "Running".to_owned())]);
            Filter::new(LabelSelector::parse(labels).unwrap(), FieldSelector::parse(fields).unwrap(), true, reader).matches(&stored)
        };
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=web", "", true),
            ("app!=web", "", false),
            ("!gone", "", true),
            ("app in (x,web)", "metadata.name=web", true),
            ("", "metadata.name=other", false),
            ("", "metadata.namespace=default,status.phase=Running", true),
            ("", "status.phase!=Running", false),
        ] {
            assert_eq!(check(labels, fields), expected, "{labels} {fields}");
        }
    }
}
