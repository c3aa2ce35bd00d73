//! Laws that hold whatever the objects: set algebra, codec, and that ownership agrees with the object.

use std::borrow::Cow;

use proptest::prelude::*;

use keelson_api::apply::compare::all_fields;
use keelson_api::apply::element::PathElement;
use keelson_api::apply::managers::{ManagerId, Managers, Operation};
use keelson_api::apply::set::Set;
use keelson_api::apply::shape::{
    FieldNode, ListNode, MapNode, Node, NodeId, Relation, Scalar, Schema, Shape,
};
use keelson_api::apply::update::{ConvertError, Typed, Updater, Versions};
use keelson_api::apply::view::View;
use keelson_api::apply::{codec, field_set};
use keelson_api::doc::{Map, Value};

fn element() -> impl Strategy<Value = PathElement> {
    let name = "[a-c\"\\\\<&é]{1,3}";
    prop_oneof![
        name.prop_map(|name| PathElement::field(&name)),
        (0i64..3).prop_map(PathElement::Index),
        name.prop_map(|text| PathElement::Value(Value::from(text))),
        (-2i64..3).prop_map(|n| PathElement::Value(Value::Int(n))),
        (name, 0i64..3).prop_map(|(name, port)| PathElement::key(vec![
            ("port".into(), Value::Int(port)),
            ("name".into(), Value::from(name)),
        ])),
    ]
}

fn any_set() -> impl Strategy<Value = Set> {
    let path = prop::collection::vec(element(), 1..4);
    prop::collection::vec(path, 0..12).prop_map(Set::of)
}

proptest! {
    #[test]
    fn the_codec_keeps_sets(set in any_set()) {
        let text = codec::to_json(&set);
        prop_assert_eq!(codec::parse(text.as_bytes()).unwrap(), set);
    }

    #[test]
    fn union_intersection_and_difference(a in any_set(), b in any_set(), c in any_set()) {
        let union = |a: &Set, b: &Set| a.clone().union(b.clone());
        prop_assert_eq!(union(&a, &b), union(&b, &a));
        prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(union(&a, &a), a.clone());
        prop_assert_eq!(a.intersection(&a), a.clone());
        prop_assert!(a.difference(&a).is_empty());
        prop_assert_eq!(union(&a.difference(&b), &a.intersection(&b)), a.clone());
        prop_assert!(!a.difference(&b).intersects(&b));
        prop_assert_eq!(a.intersects(&b), !a.intersection(&b).is_empty());
        prop_assert_eq!(a.is_subset(&b), a.difference(&b).is_empty());
        prop_assert!(a.intersection(&b).is_subset(&a) && a.is_subset(&union(&a, &b)));
        prop_assert_eq!(a.difference(&union(&b, &c)), a.difference(&b).difference(&c));
        prop_assert_eq!(union(&a, &b).len(), a.len() + b.len() - a.intersection(&b).len());
        // Taking whole subtrees takes at least what taking paths does.
        prop_assert!(a.recursive_difference(&b).difference(&a.difference(&b)).is_empty());
        for path in union(&a, &b).paths() {
            prop_assert!(a.has(&path) || b.has(&path));
            prop_assert_eq!(a.intersection(&b).has(&path), a.has(&path) && b.has(&path));
        }
    }
}

/// A small type with every kind of place: scalars, a set, a list with keys, a granular and an atomic map.
fn small() -> (Schema, NodeId) {
    let mut schema = Schema::new();
    let scalar =
        |schema: &mut Schema, scalar| schema.add(Node::Atom { scalar: Some(scalar), list: None, map: None });
    let text = scalar(&mut schema, Scalar::String);
    let number = scalar(&mut schema, Scalar::Numeric);
    let list = |keys: &[&str], element| {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        let list = ListNode { relation: Relation::Associative, keys, element };
        Node::Atom { scalar: None, list: Some(list), map: None }
    };
    let map = |fields: &[(&str, NodeId)], element, atomic| {
        let fields = fields
            .iter()
            .map(|(name, node)| FieldNode { name: (*name).into(), node: *node, default: None })
            .collect();
        Node::Atom { scalar: None, list: None, map: Some(MapNode::new(fields, element, atomic)) }
    };
    let names = schema.add(list(&[], text));
    let item = schema.add(map(&[("name", text), ("value", number), ("names", names)], None, false));
    let items = schema.add(list(&["name"], item));
    let labels = schema.add(map(&[], Some(text), false));
    let point = schema.add(map(&[("x", number), ("y", number)], None, true));
    let fields = [("n", number), ("names", names), ("items", items), ("labels", labels), ("point", point)];
    let root = schema.add(map(&fields, None, false));
    (schema, root)
}

/// An object of the small type; what is `None` is left out.
fn small_object() -> impl Strategy<Value = Value> {
    let names = || prop::option::of(prop::collection::btree_set("[a-c]", 0..3));
    let set = |names: std::collections::BTreeSet<String>| -> Value {
        Value::List(names.into_iter().map(Value::from).collect())
    };
    let item = (prop::option::of(0i64..3), names());
    let items = prop::option::of(prop::collection::btree_map("[a-c]", item, 0..3));
    let labels = prop::option::of(prop::collection::btree_map("[a-c]", "[x-z]", 0..3));
    let point = prop::option::of((0i64..2, 0i64..2));
    (prop::option::of(0i64..3), names(), items, labels, point).prop_map(
        move |(n, names, items, labels, point)| {
            let mut out = Map::new();
            n.map(|n| out.insert("n", n));
            names.map(|names| out.insert("names", set(names)));
            items.map(|items| {
                let items = items.into_iter().map(|(name, (value, names))| {
                    let mut item = Map::new();
                    item.insert("name", name);
                    value.map(|value| item.insert("value", value));
                    names.map(|names| item.insert("names", set(names)));
                    Value::Map(item)
                });
                out.insert("items", Value::List(items.collect()))
            });
            labels.map(|labels| out.insert("labels", Value::Map(labels.into_iter().collect())));
            point.map(|(x, y)| out.insert("point", Value::Map([("x", x), ("y", y)].into_iter().collect())));
            Value::Map(out)
        },
    )
}

/// Where a configuration has an empty list or map of which it had members before, structured-merge-diff's `prune` takes the
/// field away with them (`EnsureNamedFieldsAreMembers`) or leaves null. Applying once more puts the empty one there, and whoever
/// else owns it stands in the way. Typed objects do not tell the three apart, untyped ones do. Only for such configurations the
/// first repetition is judged by what is filled.
fn has_empty(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.is_empty() || map.iter().any(|(_, value)| has_empty(value)),
        Value::List(items) => items.is_empty() || items.iter().any(has_empty),
        _ => false,
    }
}

/// The value without nulls and what is empty: what a typed object does not tell apart.
fn filled(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Map(map) => {
            let members = map.iter().filter_map(|(name, value)| Some((name.to_owned(), filled(value)?)));
            let map: Map = members.collect();
            (!map.is_empty()).then_some(Value::Map(map))
        }
        Value::List(items) => {
            let items: Vec<Value> = items.iter().filter_map(filled).collect();
            (!items.is_empty()).then_some(Value::List(items))
        }
        other => Some(other.clone()),
    }
}

struct OneVersion;

impl Versions for OneVersion {
    fn convert<'t>(&'t self, object: &'t Typed<'t>, _: &str) -> Result<Option<Typed<'t>>, ConvertError> {
        Ok(Some(Typed {
            value: Cow::Borrowed(&*object.value),
            shape: object.shape,
            version: object.version.clone(),
        }))
    }
}

proptest! {
    #[test]
    fn applies_are_idempotent_and_owners_agree_with_the_object(
        steps in prop::collection::vec((0usize..3, prop::bool::ANY, small_object()), 1..8),
    ) {
        let (schema, root) = small();
        let shape = Shape::Node(&schema, root);
        let none = |_: &str| None;
        let updater = Updater { versions: &OneVersion, filter: &none };
        let mut live = Value::Map(Map::new());
        let mut managers = Managers::new();
        for (manager, applies, object) in steps {
            let operation = if applies { Operation::Apply } else { Operation::Update };
            let me = ManagerId::of(["a", "b", "c"][manager], operation, "v1", "");
            let old = Typed::new(&live, shape, "v1");
            let new = Typed::new(&object, shape, "v1");
            let next = if applies {
                let (value, owners) = updater.apply(&old, &new, managers, &me, true).unwrap();
                managers = owners;
                value.unwrap_or_else(|| live.clone())
            } else {
                managers = updater.update(&old, &new, managers, &me).unwrap();
                object.clone()
            };
            // Nothing left is null too.
            live = if matches!(next, Value::Null) { Value::Map(Map::new()) } else { next };
            let there = all_fields(View::Value(&live), shape).unwrap();
            for (id, owned) in &managers {
                prop_assert!(!owned.set.is_empty());
                let missing = owned.set.difference(&there);
                prop_assert!(missing.is_empty(), "{} owns {missing} of {live:?}", id.manager);
            }
            if applies {
                let settled = if has_empty(&object) {
                    let now = Typed::new(&live, shape, "v1");
                    let (second, owners) = updater.apply(&now, &new, managers.clone(), &me, true).unwrap();
                    let second = second.unwrap_or_else(|| live.clone());
                    prop_assert_eq!(filled(&second), filled(&live), "a second apply changes {:?}", live);
                    managers = owners;
                    second
                } else {
                    live.clone()
                };
                let now = Typed::new(&settled, shape, "v1");
                let again = updater.apply(&now, &new, managers.clone(), &me, false).unwrap();
                prop_assert_eq!(again.0, None, "another apply changes {:?}", settled);
                prop_assert_eq!(&again.1, &managers);
                live = settled;
                // What was applied is there.
                let named = field_set(View::Value(&object), shape).unwrap();
                prop_assert!(named.difference(&there).is_empty());
            }
        }
    }
}
