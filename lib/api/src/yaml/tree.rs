//! A document between its YAML and its JSON, small: what it holds is at most some fifty times its text.
//!
//! `serde_json::Value` takes 600 bytes for a map of one member, and three characters of YAML are one.

use compact_str::CompactString;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The key whose value's members become those of its map, as far as the map has none of their names
/// (<https://yaml.org/type/merge.html>).
const MERGE: &str = "<<";

/// A value of the document. Maps are sorted, each key stands in one once.
#[derive(Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(CompactString),
    List(Box<[Node]>),
    Map(Box<[(CompactString, Node)]>),
}

impl Node {
    /// Merges what stands under merge keys, innermost first; of several maps the earlier ones count. As deep as the document.
    pub(super) fn merge(&mut self) -> Result<(), &'static str> {
        let members = match self {
            Node::List(items) => return items.iter_mut().try_for_each(Node::merge),
            Node::Map(members) => members,
            _ => return Ok(()),
        };
        members.iter_mut().try_for_each(|(_, member)| member.merge())?;
        let Ok(at) = members.binary_search_by(|(key, _)| key.as_str().cmp(MERGE)) else { return Ok(()) };
        let mut all = std::mem::take(members).into_vec();
        let sources = match all.remove(at).1 {
            Node::List(sources) => sources.into_vec(),
            source => vec![source],
        };
        let more = sources.iter().map(|source| if let Node::Map(source) = source { source.len() } else { 0 });
        all.reserve_exact(more.sum());
        for source in sources {
            let Node::Map(source) = source else {
                return Err("map merge requires map or sequence of maps as the value");
            };
            all.extend(source);
        }
        // Stable, so the first of equal keys is the one to keep.
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.dedup_by(|later, first| later.0 == first.0);
        *members = all.into_boxed_slice();
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any valid JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Int(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::Uint(value), Node::Int))
    }
    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        let unsigned = || u64::try_from(value).map(Node::Uint);
        let fits = i64::try_from(value).map(Node::Int).or_else(|_| unsigned());
        fits.map_err(|_| E::custom("JSON number out of range"))
    }
    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        u64::try_from(value)
            .map_err(|_| E::custom("JSON number out of range"))
            .and_then(|n| self.visit_u64(n))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(if value.is_finite() { Node::Float(value) } else { Node::Null })
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Str(value.into()))
    }
    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items.into_boxed_slice()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members: Vec<(CompactString, Node)> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value()?));
        }
        // Stable, so the last of equal keys is the one to keep: it takes the place of the first.
        members.sort_by(|a, b| a.0.cmp(&b.0));
        members.dedup_by(|later, kept| {
            let equal = later.0 == kept.0;
            if equal {
                std::mem::swap(later, kept);
            }
            equal
        });
        Ok(Node::Map(members.into_boxed_slice()))
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = CompactString;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<CompactString, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = CompactString;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a string key")
    }
    fn visit_str<E>(self, value: &str) -> Result<CompactString, E> {
        Ok(value.into())
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Int(value) => serializer.serialize_i64(*value),
            Node::Uint(value) => serializer.serialize_u64(*value),
            Node::Float(value) => serializer.serialize_f64(*value),
            Node::Str(value) => serializer.serialize_str(value),
            Node::List(items) => serializer.collect_seq(items),
            Node::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, member) in members {
                    map.serialize_entry(key.as_str(), member)?;
                }
                map.end()
            }
        }
    }
}
