//! What authentication, authorization and admission read of the cluster.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;

/// Objects by key. The API server backs this with its watch cache and answers no older than the last write it
/// acknowledged: a pod that has just been created must be found when its token is asked for.
pub trait ClusterReads: Send + Sync {
    /// An object's canonical JSON in its storage version (without apiVersion, kind and resourceVersion).
    /// `namespace` is empty for cluster-scoped objects.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes>;

    /// All objects of a resource in a namespace (all namespaces where it is empty), ordered by key.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Bytes>;
}

/// The little of an object that most checks need.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ObjectHead {
    pub metadata: HeadMeta,
}

/// See [`ObjectHead`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HeadMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub deletion_timestamp: Option<Timestamp>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Reads an object as `T`; what does not parse counts as not there, for nothing can be concluded from it.
pub fn read<T: serde::de::DeserializeOwned>(
    reads: &dyn ClusterReads,
    group: &str,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<T> {
    parse(&reads.get(group, resource, namespace, name)?, resource, namespace, name)
}

/// As [`read`], of the text that was read.
pub fn parse<T: serde::de::DeserializeOwned>(
    text: &[u8],
    resource: &str,
    namespace: &str,
    name: &str,
) -> Option<T> {
    match serde_json::from_slice(text) {
        Ok(object) => Some(object),
        Err(error) => {
            tracing::error!(resource, namespace, name, %error, "a stored object cannot be read");
            None
        }
    }
}

/// So many objects (or lists) are kept.
const KEPT: usize = 32;
/// Longer texts are read anew each time.
const KEPT_BYTES: usize = 16 << 10;

/// What the texts of objects say. Most writes are judged by the same few objects, which hardly ever change: what one says is
/// kept with its text, and told without parsing while the text that is read is the same.
pub struct Parsed<T> {
    /// The last one told first.
    known: Mutex<Vec<Known<T>>>,
}

struct Known<T> {
    namespace: Box<str>,
    name: Box<str>,
    texts: Box<[Bytes]>,
    says: Arc<T>,
}

impl<T> Default for Parsed<T> {
    fn default() -> Parsed<T> {
        Parsed { known: Mutex::new(Vec::new()) }
    }
}

impl<T> Parsed<T> {
    /// What these texts say, which were read under this name; what `parse` cannot tell is asked again the next time.
    pub fn of(
        &self,
        (namespace, name): (&str, &str),
        texts: &[Bytes],
        parse: impl FnOnce(&[Bytes]) -> Option<T>,
    ) -> Option<Arc<T>> {
        let here = |known: &Known<T>| *known.namespace == *namespace && *known.name == *name;
        {
            let mut known = self.known.lock();
            if let Some(at) = known.iter().position(here)
                && *known[at].texts == *texts
            {
                known[..=at].rotate_right(1);
                return Some(known[0].says.clone());
            }
        }
        let says = Arc::new(parse(texts)?);
        let mut known = self.known.lock();
        known.retain(|other| !here(other));
        if texts.iter().map(Bytes::len).sum::<usize>() <= KEPT_BYTES {
            known.truncate(KEPT - 1);
            let (namespace, name) = (namespace.into(), name.into());
            known.insert(0, Known { namespace, name, texts: texts.into(), says: says.clone() });
        }
        Some(says)
    }
}

impl<T: serde::de::DeserializeOwned> Parsed<T> {
    /// As [`read`].
    pub fn read(
        &self,
        reads: &dyn ClusterReads,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<T>> {
        let text = reads.get(group, resource, namespace, name)?;
        self.of((namespace, name), std::slice::from_ref(&text), |_| parse(&text, resource, namespace, name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_text_is_parsed_once_and_its_change_is_seen() {
        let parsed = Parsed::<String>::default();
        let count = Cell::new(0);
        let says = |namespace: &str, name: &str, text: &str| {
            let told = parsed.of((namespace, name), &[Bytes::from(text.to_owned())], |texts| {
                count.set(count.get() + 1);
                String::from_utf8(texts[0].to_vec()).ok().filter(|text| text != "broken")
            });
            (told.map(|told| told.as_ref().clone()), count.get())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(says("a", "x", "1"), (some("1"), 1));
        assert_eq!(says("a", "x", "1"), (some("1"), 1));
        assert_eq!(says("b", "x", "1"), (some("1"), 2), "another object with the same text is another");
        assert_eq!(says("a", "x", "2"), (some("2"), 3));
        assert_eq!(says("a", "x", "1"), (some("1"), 4), "only the last text is kept");
        assert_eq!(says("a", "x", "broken"), (None, 5));
        assert_eq!(says("a", "x", "broken"), (None, 6));
        for other in 0..KEPT {
            says("other", &other.to_string(), "0");
        }
        assert_eq!(parsed.known.lock().len(), KEPT);
        let before = count.get();
        assert_eq!(says("a", "x", "1"), (some("1"), before + 1), "the oldest has made room");
        let long = "y".repeat(KEPT_BYTES + 1);
        assert_eq!(says("a", "x", &long).1, before + 2);
        assert_eq!(says("a", "x", &long).1, before + 3, "what is long is not kept");
    }
}
