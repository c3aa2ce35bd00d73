//! The facts' schemas and how cases are read.

use std::collections::HashMap;
use std::sync::OnceLock;

use keelson_api::apply::codec;
use keelson_api::apply::element::PathElement;
use keelson_api::apply::set::{Filter, Matcher, Set};
use keelson_api::apply::shape::{
    FieldNode, ListNode, MapNode, Node, NodeId, Relation, Scalar, Schema, Shape,
};
use keelson_api::doc::Value;
use keelson_api::json;
use serde_json::Value as Json;

/// The lines of a fact file.
pub fn cases(name: &str) -> Vec<Json> {
    let path = format!("{}/tests/apply/facts/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// Runs a check on every case and reports all that fail.
pub fn check(name: &str, at_least: usize, one: impl Fn(&Json) -> Result<(), String>) {
    let all = cases(name);
    assert!(all.len() >= at_least, "{name}: {} cases", all.len());
    let failed: Vec<String> = all
        .iter()
        .filter_map(|case| one(case).err().map(|why| format!("{}\n    {why}", case["from"])))
        .collect();
    assert!(failed.is_empty(), "{} of {} {name} cases fail:\n{}", failed.len(), all.len(), failed.join("\n"));
}

pub fn value(json: &Json) -> Value {
    json::decode_untyped(json.to_string().as_bytes()).unwrap()
}

pub fn set(json: &Json) -> Set {
    codec::parse(json.to_string().as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

pub fn path(json: &Json) -> Vec<PathElement> {
    let parts = json.as_array().unwrap().iter();
    parts.map(|part| PathElement::parse(part.as_str().unwrap()).unwrap().unwrap()).collect()
}

pub fn filter(json: &Json) -> Filter {
    match json.get("exclude") {
        Some(text) => Filter::Exclude(codec::parse(text.as_str().unwrap().as_bytes()).unwrap()),
        None => Filter::Include(matcher(&json["include"])),
    }
}

fn matcher(json: &Json) -> Matcher {
    let Some(members) = json.as_array() else { return Matcher::All };
    Matcher::Some(
        members
            .iter()
            .map(|member| {
                let element = match member[0].as_str().unwrap() {
                    "*" => None,
                    text => Some(PathElement::parse(text).unwrap().unwrap()),
                };
                (element, matcher(&member[1]))
            })
            .collect(),
    )
}

/// A schema of the facts with its types' nodes.
pub struct Types {
    pub schema: Schema,
    names: HashMap<String, NodeId>,
    read: serde_json::Map<String, Json>,
}

pub fn schema(name: &str) -> &'static Types {
    static ALL: OnceLock<HashMap<String, Types>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let path = format!("{}/tests/apply/facts/schemas.json", env!("CARGO_MANIFEST_DIR"));
        let json: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        json.as_object().unwrap().iter().map(|(name, types)| (name.clone(), Types::read(types))).collect()
    });
    all.get(name).unwrap_or_else(|| panic!("no schema {name}"))
}

/// The shape a case names: `type` of `schema`.
pub fn shape(case: &Json) -> Shape<'static> {
    shape_of(case["schema"].as_str(), &case["type"])
}

pub fn shape_of(of: Option<&str>, ty: &Json) -> Shape<'static> {
    match (ty.as_str(), of) {
        (Some("@deduced"), _) => Shape::Deduced,
        (Some("@whole"), _) => Shape::Whole,
        (Some(name), Some(of)) => {
            let types = schema(of);
            let node = types.names.get(name.trim_start_matches('@'));
            Shape::Node(&types.schema, *node.unwrap_or_else(|| panic!("{of} has no type {name}")))
        }
        _ => panic!("a type is named: {ty}"),
    }
}

impl Types {
    fn read(json: &Json) -> Types {
        let all = json.as_object().unwrap();
        let mut types = Types { schema: Schema::new(), names: HashMap::new(), read: all.clone() };
        for name in all.keys() {
            let node = types.schema.add(Node::Deduced);
            types.names.insert(name.clone(), node);
        }
        for (name, ty) in all {
            let node = types.node(ty);
            types.schema.set(types.names[name], node);
        }
        types
    }

    fn id(&mut self, ty: &Json) -> NodeId {
        if let Some(name) = ty.as_str().and_then(|text| text.strip_prefix('@'))
            && !matches!(name, "deduced" | "whole")
        {
            return self.names[name];
        }
        let node = self.node(ty);
        self.schema.add(node)
    }

    fn node(&mut self, ty: &Json) -> Node {
        let scalar = |name: &str| match name {
            "number" => Some(Scalar::Numeric),
            "string" => Some(Scalar::String),
            "bool" => Some(Scalar::Boolean),
            "scalar" => Some(Scalar::Untyped),
            _ => None,
        };
        match ty {
            Json::String(name) if name == "@deduced" => Node::Deduced,
            Json::String(name) if name == "@whole" => Node::Whole,
            Json::String(name) => match scalar(name) {
                Some(_) => Node::Atom { scalar: scalar(name), list: None, map: None },
                // A copy, for a reference with another relation.
                None => {
                    let named = self.read[name.trim_start_matches('@')].clone();
                    self.node(&named)
                }
            },
            Json::Object(all) if all.contains_key("ref") => {
                let mut node = self.node(&all["ref"]);
                let atomic = all["as"] == "atomic";
                if let Node::Atom { list, map, .. } = &mut node {
                    if let Some(list) = list {
                        list.relation = if atomic { Relation::Atomic } else { Relation::Associative };
                    }
                    if let Some(map) = map {
                        map.atomic = atomic;
                    }
                }
                node
            }
            Json::Object(all) => {
                let list = all.get("list").map(|list| ListNode {
                    relation: if list["keys"].is_null() { Relation::Atomic } else { Relation::Associative },
                    keys: list["keys"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|key| key.as_str().unwrap().into())
                        .collect(),
                    element: self.id(&list["of"]),
                });
                let map = all.get("map").map(|map| self.map(map));
                let scalar = all.get("scalar").and_then(Json::as_str).and_then(scalar);
                Node::Atom { scalar, list, map }
            }
            Json::Null => Node::Atom { scalar: None, list: None, map: None },
            other => panic!("no type: {other}"),
        }
    }

    fn map(&mut self, json: &Json) -> MapNode {
        let fields = json["fields"].as_object().into_iter().flatten().map(|(name, ty)| {
            let (ty, default) = match ty.get("is") {
                Some(inner) => (inner, Some(value(&ty["default"]))),
                None => (ty, None),
            };
            FieldNode { name: name.as_str().into(), node: self.id(ty), default }
        });
        let fields = fields.collect();
        let element = json.get("of").map(|of| self.id(of));
        MapNode::new(fields, element, json["atomic"] == true)
    }
}
