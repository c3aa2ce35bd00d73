//! A custom resource's schema as the walks read it (upstream: kube-openapi `schemaconv` over the schema the definition
//! publishes).

use compact_str::CompactString;

use super::shape::{FieldNode, ListNode, MapNode, Node, NodeId, Relation, Scalar, Schema};
use crate::doc::Value;
use crate::schema::ListType;
use crate::structural::{self, Additional, Type};
use crate::t;

/// The nodes of a schema, and its root.
pub fn compile(schema: &structural::Schema) -> (Schema, NodeId) {
    let mut out = Schema::new();
    let root = add(&mut out, schema, false);
    (out, root)
}

/// `open`: what is not declared may be there, because a node above preserves it.
fn add(out: &mut Schema, schema: &structural::Schema, open: bool) -> NodeId {
    let open = open || schema.preserve_unknown();
    let scalar = |scalar| Node::Atom { scalar: Some(scalar), list: None, map: None };
    let node = match schema.ty() {
        Type::String => scalar(Scalar::String),
        Type::Integer | Type::Number => scalar(Scalar::Numeric),
        Type::Boolean => scalar(Scalar::Boolean),
        Type::Array => Node::Atom { scalar: None, list: Some(list(out, schema, open)), map: None },
        Type::Object => Node::Atom { scalar: None, list: None, map: Some(map(out, schema, open)) },
        Type::IntOrString | Type::Any => Node::Atom {
            scalar: Some(Scalar::Untyped),
            list: Some(list(out, schema, open)),
            map: Some(map(out, schema, open)),
        },
    };
    out.add(node)
}

fn list(out: &mut Schema, schema: &structural::Schema, open: bool) -> ListNode {
    let element = match schema.items() {
        Some(items) => add(out, items, open),
        None => out.add(Node::Whole),
    };
    let (relation, keys): (_, &[CompactString]) = match schema.list_type() {
        ListType::Set => (Relation::Associative, &[]),
        ListType::Map => (Relation::Associative, schema.list_map_keys()),
        ListType::Atomic | ListType::Unset => (Relation::Atomic, &[]),
    };
    ListNode { relation, keys: keys.to_vec(), element }
}

fn map(out: &mut Schema, schema: &structural::Schema, open: bool) -> MapNode {
    let mut fields: Vec<FieldNode> = schema
        .properties()
        .filter(|(name, _)| !(schema.embedded() && matches!(*name, "metadata" | "apiVersion" | "kind")))
        .map(|(name, property)| FieldNode {
            name: name.into(),
            node: add(out, property, open),
            default: property.default().filter(|value| !matches!(value, Value::Null)).cloned(),
        })
        .collect();
    if schema.embedded() {
        // What every object has.
        let text = Node::Atom { scalar: Some(Scalar::String), list: None, map: None };
        for (name, node) in [
            ("apiVersion", text.clone()),
            ("kind", text),
            ("metadata", Node::Builtin(t::meta_v1::OBJECT_META)),
        ] {
            fields.push(FieldNode { name: name.into(), node: out.add(node), default: None });
        }
    }
    let element = match schema.additional_properties() {
        Some(Additional::Schema(of)) => Some(add(out, of, open)),
        Some(Additional::Allowed(true)) => Some(out.add(Node::Deduced)),
        Some(Additional::Allowed(false)) => None,
        // An object of which nothing is said may hold anything.
        None if open || fields.is_empty() => Some(out.add(Node::Deduced)),
        None => None,
    };
    MapNode::new(fields, element, schema.map_atomic())
}
