//! Laws that hold whatever the objects: set algebra, codec, and that ownership agrees with the object.

use proptest::prelude::*;

use keelson_api::apply::codec;
use keelson_api::apply::element::PathElement;
use keelson_api::apply::set::Set;
use keelson_api::doc::Value;

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
