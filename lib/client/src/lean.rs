//! Objects read without their managed fields, which hold a third of what a watch brings and which nothing here reads: as a
//! tree of maps they would cost as much as the rest of the object.

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use std::borrow::Cow;
use std::fmt;

/// An object whose `metadata.managedFields` were skipped while it was read.
#[derive(Clone, Debug)]
pub struct Lean<K>(pub K);

/// A reader's type is a resource as the object in it is.
macro_rules! resource_of {
    ($reading:ty, $object:ty $(, $parameter:ident)?) => {
        impl$(<$parameter: kube::Resource>)? kube::Resource for $reading {
            type DynamicType = <$object as kube::Resource>::DynamicType;
            type Scope = <$object as kube::Resource>::Scope;

            fn kind(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$object>::kind(of)
            }

            fn group(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$object>::group(of)
            }

            fn version(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$object>::version(of)
            }

            fn api_version(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$object>::api_version(of)
            }

            fn plural(of: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                <$object>::plural(of)
            }

            fn metadata_api() -> bool {
                <$object as kube::Resource>::metadata_api()
            }

            fn url_path(of: &Self::DynamicType, namespace: Option<&str>) -> String {
                <$object>::url_path(of, namespace)
            }

            fn meta(&self) -> &kube::core::ObjectMeta {
                self.0.meta()
            }

            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                self.0.meta_mut()
            }
        }
    };
}

pub(crate) use resource_of;

resource_of!(Lean<K>, K, K);

impl<'de, K: Deserialize<'de>> Deserialize<'de> for Lean<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::deserialize(Part { deserializer, place: Place::Object }).map(Lean)
    }
}

/// Where in the object a map lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
}

/// A map in which one member is met on the way: the metadata of an object, the managed fields of that.
struct Part<D> {
    deserializer: D,
    place: Place,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Part<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_any(Within { visitor, place: self.place })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_option(Within { visitor, place: self.place })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_map(Within { visitor, place: self.place })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserializer.deserialize_struct(name, fields, Within { visitor, place: self.place })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct
        seq tuple tuple_struct enum identifier ignored_any
    }
}

struct Within<V> {
    visitor: V,
    place: Place,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Within<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Members { map, place: self.place, metadata: false })
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Part { deserializer, place: self.place })
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }
}

struct Members<A> {
    map: A,
    place: Place,
    /// The member that comes next is the object's metadata.
    metadata: bool,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        loop {
            let Some(Key(key)) = self.map.next_key()? else { return Ok(None) };
            if self.place == Place::Metadata && key == "managedFields" {
                self.map.next_value::<IgnoredAny>()?;
                continue;
            }
            self.metadata = self.place == Place::Object && key == "metadata";
            return seed.deserialize(CowStrDeserializer::new(key)).map(Some);
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        if self.metadata {
            self.map.next_value_seed(InMetadata(seed))
        } else {
            self.map.next_value_seed(seed)
        }
    }
}

struct InMetadata<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for InMetadata<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Part { deserializer, place: Place::Metadata })
    }
}

/// A member's name, borrowed where the text allows it.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use kube::Resource;
    use kube::api::{DynamicObject, PartialObjectMeta};
    use kube::core::WatchEvent;
    use serde_json::json;

    fn pod() -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "n", "resourceVersion": "7",
                "managedFields": [{ "manager": "m", "fieldsV1": { "f:spec": { "f:\"": {} } } }],
                "annotations": { "managedFields": "stays", "q\"uoted": "too" },
            },
            "spec": { "containers": [{ "name": "c", "env": [{ "name": "metadata", "value": "managedFields" }] }] },
        })
    }

    fn without_managers(mut object: serde_json::Value) -> serde_json::Value {
        object["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        object
    }

    #[test]
    fn all_but_the_managed_fields_is_read() {
        let text = pod().to_string();
        let lean: Lean<Pod> = serde_json::from_str(&text).expect("a pod");
        let whole: Pod = serde_json::from_str(&without_managers(pod()).to_string()).expect("a pod");
        assert_eq!(lean.0, whole);
        assert_eq!(lean.meta().annotations.as_ref().map(|all| all.len()), Some(2));
        // What is no text in memory is read too.
        let lean: Lean<Pod> = serde_json::from_value(pod()).expect("a pod");
        assert_eq!(lean.0, whole);
    }

    #[test]
    fn events_lists_and_partial_objects_are_read() {
        let event = json!({ "type": "MODIFIED", "object": pod() }).to_string();
        let WatchEvent::Modified(lean) =
            serde_json::from_str::<WatchEvent<Lean<Pod>>>(&event).expect("an event")
        else {
            panic!("another event");
        };
        assert_eq!(
            (lean.meta().resource_version.as_deref(), &lean.meta().managed_fields),
            (Some("7"), &None)
        );
        let list = json!({ "metadata": { "resourceVersion": "9" }, "items": [pod(), pod()] }).to_string();
        let list: kube::core::ObjectList<Lean<Pod>> = serde_json::from_str(&list).expect("a list");
        assert!(list.items.len() == 2 && list.items.iter().all(|pod| pod.meta().managed_fields.is_none()));
        let partial: Lean<PartialObjectMeta<DynamicObject>> =
            serde_json::from_str(&pod().to_string()).expect("a partial object");
        assert_eq!((partial.meta().name.as_deref(), &partial.meta().managed_fields), (Some("a"), &None));
        assert_eq!(partial.0.types.map(|types| types.kind).as_deref(), Some("Pod"));
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for text in [
            r#"{"metadata":3}"#,
            r#"{"metadata":{"managedFields":[}}"#,
            r#"[]"#,
            r#"{"metadata":{"name":4}}"#,
        ] {
            assert!(serde_json::from_str::<Lean<Pod>>(text).is_err(), "{text}");
        }
        assert!(
            serde_json::from_str::<Lean<Pod>>(r#"{"metadata":null,"spec":null}"#).is_err()
                == serde_json::from_str::<Pod>(r#"{"metadata":null,"spec":null}"#).is_err()
        );
    }
}
