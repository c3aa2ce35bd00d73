//! One object as the cache keeps it: its canonical JSON once, and a handful of offsets into it.
//!
//! What always holds: the bytes are never changed; `resourceVersion`, `apiVersion` and `kind` are not in them and are
//! written in on the way out, with the revision the caller names (the object's own, or that of its deletion).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use keelson_store::Revision;

use super::json::{self, Escaped, Extents};
use crate::text::Outline;

/// An object beside which nothing else is kept: about 190 bytes above its JSON, key and fields included.
pub struct Object {
    /// `namespace/name` or `name`, then the selectable fields' values, each after a NUL.
    head: Box<str>,
    bytes: Box<[u8]>,
    extents: Extents,
    namespace_len: u16,
    key_len: u16,
    /// Names the schema that the bytes are known to fit (custom resources); 0: none.
    stamp: AtomicU32,
    /// The length of its protobuf message in the storage version; 0: not known yet.
    proto_len: AtomicU32,
    mod_revision: Revision,
}

/// Which part of an object goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole object.
    Whole,
    /// `metadata` alone (PartialObjectMetadata).
    Metadata,
}

/// How an object is written: the members put right after its opening brace, and the part of it that follows.
#[derive(Clone, Debug)]
pub struct Form {
    /// For example `"kind":"Pod","apiVersion":"v1",` — with the comma at its end; empty for the items of a list.
    pub head: Bytes,
    pub part: Part,
}

/// The stored bytes are not what the API server writes.
#[derive(Debug, thiserror::Error)]
#[error("the record {key} is not a canonical object: {reason}")]
pub struct ObjectError {
    pub key: String,
    pub reason: &'static str,
}

/// Computes the selectable fields of a resource from an object's canonical JSON.
pub trait Fields: Send + Sync + 'static {
    /// The fields' labels (`spec.nodeName`), in the order of their values; `metadata.name` and `metadata.namespace`
    /// are always there and not among them.
    fn labels(&self) -> &[Box<str>];

    /// The members of the object that the values lie in, so far as one walk through it can tell them.
    fn wanted(&self) -> &[Box<str>] {
        &[]
    }

    /// Calls `put` once per label, in order, with its value; `""` where the object has none. `outline` has what is wanted.
    fn values(&self, json: &[u8], outline: &Outline<'_>, put: &mut dyn FnMut(&str));
}

/// The usual [`Fields`]: strings, numbers and booleans at fixed paths.
#[derive(Default)]
pub struct JsonPaths {
    labels: Vec<Box<str>>,
    paths: Vec<Vec<Box<str>>>,
}

impl JsonPaths {
    /// A resource with the two metadata fields only.
    pub fn none() -> JsonPaths {
        JsonPaths::default()
    }

    /// Each label is its path too: `spec.nodeName` is the member `nodeName` of `spec`. Names with dots cannot be told.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a str>) -> JsonPaths {
        let mut paths = JsonPaths::default();
        for label in labels {
            paths.labels.push(label.into());
            paths.paths.push(label.split('.').map(Box::from).collect());
        }
        paths
    }
}

impl Fields for JsonPaths {
    fn labels(&self) -> &[Box<str>] {
        &self.labels
    }

    fn values(&self, json: &[u8], _: &Outline<'_>, put: &mut dyn FnMut(&str)) {
        for path in &self.paths {
            let value = json::member_at(json, path).and_then(json::scalar);
            put(value.as_deref().unwrap_or(""));
        }
    }
}

impl Object {
    /// Takes an object in. `key` is the store's key without the resource's prefix: `namespace/name` or `name`.
    pub fn new(
        key: &str,
        json: &[u8],
        mod_revision: Revision,
        namespaced: bool,
        fields: &dyn Fields,
    ) -> Result<Object, ObjectError> {
        let fail = |reason| ObjectError { key: key.to_owned(), reason };
        let wanted = fields.wanted().iter().map(|name| &**name);
        let outline = Outline::of(json, wanted.chain([json::METADATA_NAME]));
        let extents = json::extents(json, &outline).map_err(fail)?;
        let namespace_len =
            if namespaced { key.find('/').ok_or_else(|| fail("its key has no namespace"))? } else { 0 };
        let key_len = u16::try_from(key.len()).map_err(|_| fail("its key is too long"))?;
        let mut head = String::with_capacity(key.len() + 16 * fields.labels().len());
        head.push_str(key);
        fields.values(json, &outline, &mut |value| {
            head.push('\0');
            head.extend(value.chars().filter(|c| *c != '\0'));
        });
        Ok(Object {
            head: head.into_boxed_str(),
            bytes: json.into(),
            extents,
            namespace_len: namespace_len as u16,
            key_len,
            stamp: AtomicU32::new(0),
            proto_len: AtomicU32::new(0),
            mod_revision,
        })
    }

    /// The store's key without the resource's prefix; objects are ordered by it.
    pub fn key(&self) -> &str {
        &self.head[..self.key_len as usize]
    }

    /// The namespace; `""` for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.head[..self.namespace_len as usize]
    }

    pub fn name(&self) -> &str {
        let start = if self.namespace_len == 0 { 0 } else { self.namespace_len as usize + 1 };
        &self.head[start..self.key_len as usize]
    }

    /// The `resourceVersion` of the object as it stands.
    pub fn revision(&self) -> Revision {
        self.mod_revision
    }

    /// Whether the bytes are known to be what the schema of this stamp makes of them.
    pub fn fits(&self, stamp: u32) -> bool {
        self.stamp.load(Ordering::Relaxed) == stamp
    }

    /// Notes that the bytes are what the schema of this stamp makes of them.
    pub fn set_fits(&self, stamp: u32) {
        self.stamp.store(stamp, Ordering::Relaxed);
    }

    /// The length of the object's protobuf message in the storage version, once somebody noted it.
    pub fn proto_len(&self) -> Option<u32> {
        Some(self.proto_len.load(Ordering::Relaxed)).filter(|len| *len > 0)
    }

    /// Notes that length.
    pub fn set_proto_len(&self, len: u32) {
        self.proto_len.store(len, Ordering::Relaxed);
    }

    /// The canonical JSON, without apiVersion, kind and resourceVersion.
    pub fn json(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of the selectable field with this index in [`Fields::labels`].
    pub fn field(&self, index: usize) -> &str {
        self.head[self.key_len as usize..].split('\0').nth(index + 1).unwrap_or("")
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        self.labels().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// As [`Object::label`] where no text has to be decoded for it, which is nearly always: for selectors, which ask this of
    /// every object.
    pub fn plain_label(&self, key: &str) -> Result<Option<&str>, Escaped> {
        json::plain_string_member(&self.bytes[self.extents.labels_start as usize..], key)
    }

    /// Some of the bytes that selectors look at, so that they are near when a selector asks for them.
    pub(super) fn glance(&self) -> u8 {
        const LINE: usize = 64;
        let at = |place: usize| self.bytes.get(place).copied().unwrap_or_default();
        let labels = self.extents.labels_start as usize;
        self.head.as_bytes().first().copied().unwrap_or_default() ^ at(labels) ^ at(labels + LINE)
    }

    /// All labels, read from the JSON as it is walked.
    pub fn labels(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        json::string_members(&self.bytes[self.extents.labels_start as usize..])
    }

    /// Bytes held in memory for this object, its own bookkeeping included.
    pub fn footprint(&self) -> usize {
        std::mem::size_of::<Object>() + 16 + 8 + self.head.len() + self.bytes.len()
    }

    /// How many bytes [`Object::write`] writes.
    pub fn written_len(&self, revision: Revision, form: &Form) -> usize {
        let spliced = json::RESOURCE_VERSION.len() + digits(revision) + 2;
        match form.part {
            Part::Whole => self.bytes.len() + form.head.len() + spliced,
            Part::Metadata => {
                let meta = (self.extents.meta_end - self.extents.meta_start) as usize;
                1 + form.head.len() + json::METADATA.len() + meta + spliced + 1
            }
        }
    }

    /// Appends the object as `form` says, with `revision` as its resourceVersion.
    pub fn write(&self, revision: Revision, form: &Form, out: &mut Vec<u8>) {
        let splice = self.extents.splice as usize;
        let (from, to) = match form.part {
            // The opening brace is written below.
            Part::Whole => (1, self.bytes.len()),
            Part::Metadata => (self.extents.meta_start as usize, self.extents.meta_end as usize),
        };
        out.push(b'{');
        out.extend_from_slice(&form.head);
        if form.part == Part::Metadata {
            out.extend_from_slice(json::METADATA);
        }
        out.extend_from_slice(&self.bytes[from..splice]);
        if !self.extents.splice_first {
            out.push(b',');
        }
        out.extend_from_slice(json::RESOURCE_VERSION);
        out.extend_from_slice(itoa::Buffer::new().format(revision).as_bytes());
        out.push(b'"');
        if self.extents.splice_first {
            out.push(b',');
        }
        out.extend_from_slice(&self.bytes[splice..to]);
        if form.part == Part::Metadata {
            out.push(b'}');
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Object({} @ {})", self.key(), self.mod_revision)
    }
}

fn digits(revision: Revision) -> usize {
    revision.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = concat!(
        r#"{"metadata":{"name":"a","namespace":"n","uid":"u-1","creationTimestamp":"2026-01-01T00:00:00Z","#,
        r#""labels":{"app":"w\"eb","tier":"x"},"annotations":{"uid":"}"}},"spec":{"nodeName":"k1","hostNetwork":true},"#,
        r#""status":{"phase":"Running"}}"#
    );

    fn pod() -> Object {
        let fields =
            JsonPaths::from_labels(["spec.nodeName", "status.phase", "status.podIP", "spec.hostNetwork"]);
        Object::new("n/a", POD.as_bytes(), 41, true, &fields).unwrap()
    }

    fn written(object: &Object, revision: Revision, form: &Form) -> serde_json::Value {
        let mut out = Vec::new();
        object.write(revision, form, &mut out);
        assert_eq!(out.len(), object.written_len(revision, form), "{}", String::from_utf8_lossy(&out));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn reads_key_labels_and_fields() {
        let pod = pod();
        assert_eq!((pod.namespace(), pod.name(), pod.revision()), ("n", "a", 41));
        assert_eq!(pod.label("app").as_deref(), Some("w\"eb"));
        assert_eq!(pod.label("none"), None);
        assert_eq!(pod.plain_label("app"), Err(Escaped));
        assert_eq!((pod.plain_label("tier"), pod.plain_label("none")), (Ok(Some("x")), Ok(None)));
        assert_eq!(pod.labels().count(), 2);
        let fields: Vec<&str> = (0..5).map(|i| pod.field(i)).collect();
        assert_eq!(fields, ["k1", "Running", "", "true", ""]);
    }

    #[test]
    fn splices_the_revision_after_the_uid() {
        let mut out = Vec::new();
        pod().write(77, &Form { head: Bytes::new(), part: Part::Whole }, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(
                r#"{"metadata":{"name":"a","namespace":"n","uid":"u-1","resourceVersion":"77","cre"#
            ),
            "{text}"
        );
        assert!(text.ends_with(r#""status":{"phase":"Running"}}"#));
    }

    #[test]
    fn writes_whole_and_metadata_with_heads() {
        let head = Bytes::from_static(br#""kind":"Pod","apiVersion":"v1","#);
        for part in [Part::Whole, Part::Metadata] {
            let value = written(&pod(), 9, &Form { head: head.clone(), part });
            assert_eq!(value["metadata"]["resourceVersion"], "9");
            assert_eq!(value["kind"], "Pod");
            assert_eq!(value.get("spec").is_some(), part == Part::Whole);
        }
    }

    #[test]
    fn takes_objects_without_a_uid() {
        for json in
            [r#"{"metadata":{"labels":{}}}"#, r#"{"spec":{"metadata":{"uid":"x"}},"metadata":{"name":"q"}}"#]
        {
            let object = Object::new("q", json.as_bytes(), 3, false, &JsonPaths::none()).unwrap();
            for part in [Part::Whole, Part::Metadata] {
                let form = Form { head: Bytes::new(), part };
                let mut out = Vec::new();
                object.write(3, &form, &mut out);
                let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
                assert_eq!(value["metadata"]["resourceVersion"], "3", "{json}");
                assert_eq!(out.len(), object.written_len(3, &form));
            }
        }
    }

    #[test]
    fn refuses_what_is_not_an_object() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"metadata":3}"#,
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"name":"#,
            r#"{"spec":{}}"#,
        ] {
            assert!(Object::new("q", json.as_bytes(), 3, false, &JsonPaths::none()).is_err(), "{json}");
        }
        assert!(Object::new("q", br#"{"metadata":{"name":"q"}}"#, 3, true, &JsonPaths::none()).is_err());
    }
}
