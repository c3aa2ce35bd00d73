//! What a schema says of a value: the one thing the walks know of built-in types, custom schemas and untyped data.
//!
//! A [`Shape`] names a place of a schema; [`Shape::atom`] says what may stand there. Built-in types are read from the
//! generated table as they are; every other schema is a [`Schema`], a table of nodes that may refer to one another.

use compact_str::CompactString;

use crate::doc::Value;
use crate::f::core_v1 as core;
use crate::schema::{DefaultValue, FieldDef, Flags, Kind, ListType, StructDef, TypeId};

/// A place of a schema.
#[derive(Clone, Copy)]
pub enum Shape<'s> {
    /// A field of a built-in struct, with its list type and keys.
    Field(&'static FieldDef),
    /// A built-in kind without a list type: elements of lists and maps.
    Kind(&'static Kind),
    Struct(TypeId),
    /// A custom resource's root: ObjectMeta below `metadata`, the node (or untyped data) beside it.
    Custom(Option<(&'s Schema, NodeId)>),
    Node(&'s Schema, NodeId),
    /// Untyped: maps by their keys, lists as a whole.
    Deduced,
    /// Untyped and owned as a whole.
    Whole,
}

/// A node of a [`Schema`].
pub type NodeId = u32;

/// What a scalar must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    String,
    Boolean,
    /// Any scalar.
    Untyped,
}

/// What may stand at a place; several where only the value decides.
#[derive(Clone, Copy, Default)]
pub struct Atom<'s> {
    pub scalar: Option<Scalar>,
    pub list: Option<List<'s>>,
    pub map: Option<Map<'s>>,
}

/// How a list's elements belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Owned as a whole.
    Atomic,
    /// By the elements' values, or by their keys where there are any.
    Associative,
}

#[derive(Clone, Copy)]
pub struct List<'s> {
    pub relation: Relation,
    pub keys: Keys<'s>,
    pub element: Shape<'s>,
}

/// The names of a list's keys.
#[derive(Clone, Copy)]
pub enum Keys<'s> {
    Static(&'static [&'static str]),
    Owned(&'s [CompactString]),
}

impl<'s> Keys<'s> {
    pub fn is_empty(self) -> bool {
        match self {
            Keys::Static(names) => names.is_empty(),
            Keys::Owned(names) => names.is_empty(),
        }
    }
    pub fn len(self) -> usize {
        match self {
            Keys::Static(names) => names.len(),
            Keys::Owned(names) => names.len(),
        }
    }
    /// The name at this place, free to keep where it is static.
    pub fn name(self, at: usize) -> CompactString {
        match self {
            Keys::Static(names) => CompactString::const_new(names[at]),
            Keys::Owned(names) => names[at].clone(),
        }
    }
}

#[derive(Clone, Copy)]
pub struct Map<'s> {
    pub atomic: bool,
    pub fields: Fields<'s>,
    /// What undeclared members are; `None`: there may be none.
    pub element: Option<Shape<'s>>,
    /// Nothing is declared and anything goes.
    pub deduced: bool,
}

/// Declared members.
#[derive(Clone, Copy)]
pub enum Fields<'s> {
    None,
    Struct(&'static StructDef),
    Custom(Option<(&'s Schema, NodeId)>),
    Node(&'s Schema, &'s MapNode),
}

impl<'s> Map<'s> {
    /// A declared member.
    pub fn field(&self, name: &str) -> Option<Shape<'s>> {
        match self.fields {
            Fields::None => None,
            Fields::Struct(def) => def.field(name).map(Shape::Field),
            Fields::Custom(node) => match name {
                "metadata" => Some(Shape::Struct(crate::t::meta_v1::OBJECT_META)),
                "apiVersion" | "kind" => Some(Shape::Kind(&Kind::Str)),
                _ => node.and_then(|(schema, node)| Shape::Node(schema, node).atom().map?.field(name)),
            },
            Fields::Node(schema, node) => node.field(name).map(|field| Shape::Node(schema, field.node)),
        }
    }

    /// A member: as declared, else as the others.
    pub fn member(&self, name: &str) -> Option<Shape<'s>> {
        self.field(name).or(self.element)
    }

    /// The value of an absent key of a list's element.
    pub fn default_of(&self, name: &str) -> Option<Value> {
        match self.fields {
            Fields::Struct(def) => def.field(name).and_then(builtin_default),
            Fields::Node(_, node) => node.field(name).and_then(|field| field.default.clone()),
            Fields::None | Fields::Custom(_) => None,
        }
    }
}

/// As upstream's schema has it: the declared default, else the zero of what is always there.
fn builtin_default(field: &'static FieldDef) -> Option<Value> {
    match field.default() {
        Some(DefaultValue::Bool(b)) => return Some(Value::Bool(b)),
        Some(DefaultValue::Int(n)) => return Some(Value::Int(n)),
        Some(DefaultValue::Str(text)) => return Some(Value::Str(CompactString::const_new(text))),
        Some(DefaultValue::EmptyStruct) | None => {}
    }
    // `+default=""` upstream, which no other source of ours says.
    let named = std::ptr::eq(field, core::local_object_reference::NAME.def());
    if field.flags.has(Flags::POINTER) || (field.flags.has(Flags::OMIT_EMPTY) && !named) {
        return None;
    }
    match field.kind {
        Kind::Str => Some(Value::Str(CompactString::const_new(""))),
        Kind::Bool => Some(Value::Bool(false)),
        Kind::Int32 | Kind::Int64 => Some(Value::Int(0)),
        _ => None,
    }
}

impl<'s> Shape<'s> {
    /// What may stand here.
    pub fn atom(self) -> Atom<'s> {
        match self {
            Shape::Struct(ty) => Atom::map(Map {
                atomic: ty.def().atomic,
                fields: Fields::Struct(ty.def()),
                element: None,
                deduced: false,
            }),
            Shape::Field(field) => field_atom(field),
            Shape::Kind(kind) => kind_atom(kind),
            Shape::Custom(node) => {
                let inner = node.and_then(|(schema, node)| Shape::Node(schema, node).atom().map);
                let element = match &inner {
                    Some(map) => map.element,
                    None => Some(Shape::Deduced),
                };
                Atom::map(Map { atomic: false, fields: Fields::Custom(node), element, deduced: false })
            }
            Shape::Node(schema, node) => schema.atom(node),
            Shape::Deduced => untyped(Relation::Atomic, false),
            Shape::Whole => untyped(Relation::Atomic, true),
        }
    }
}

/// Anything: `whole` says that maps are owned as lists are.
fn untyped<'s>(relation: Relation, whole: bool) -> Atom<'s> {
    Atom {
        scalar: Some(Scalar::Untyped),
        list: Some(List { relation, keys: Keys::Static(&[]), element: Shape::Whole }),
        map: Some(Map {
            atomic: whole,
            fields: Fields::None,
            element: Some(if whole { Shape::Whole } else { Shape::Deduced }),
            deduced: !whole,
        }),
    }
}

impl<'s> Atom<'s> {
    fn map(map: Map<'s>) -> Atom<'s> {
        Atom { map: Some(map), ..Atom::default() }
    }
    fn list(list: List<'s>) -> Atom<'s> {
        Atom { list: Some(list), ..Atom::default() }
    }
    fn scalar(scalar: Scalar) -> Atom<'s> {
        Atom { scalar: Some(scalar), ..Atom::default() }
    }
}

fn field_atom<'s>(field: &'static FieldDef) -> Atom<'s> {
    let mut atom = kind_atom(&field.kind);
    if let Some(list) = &mut atom.list
        && matches!(field.kind, Kind::List(_) | Kind::WrappedList(_))
    {
        match field.list {
            ListType::Set => list.relation = Relation::Associative,
            ListType::Map => {
                list.relation = Relation::Associative;
                list.keys = Keys::Static(field.map_keys());
            }
            ListType::Atomic | ListType::Unset => {}
        }
    }
    if let Some(map) = &mut atom.map {
        map.atomic |= field.flags.has(Flags::ATOMIC) || field.list == ListType::Atomic;
        // The one field upstream marks as granular though its type is atomic.
        map.atomic &= !std::ptr::eq(field, core::persistent_volume_spec::CLAIM_REF.def());
    }
    atom
}

fn kind_atom<'s>(kind: &'static Kind) -> Atom<'s> {
    let scalar = match kind {
        Kind::Bool => Scalar::Boolean,
        Kind::Int32 | Kind::Int64 | Kind::Float64 => Scalar::Numeric,
        Kind::Str | Kind::Bytes | Kind::Duration => Scalar::String,
        Kind::Quantity | Kind::IntOrString | Kind::Time | Kind::MicroTime => Scalar::Untyped,
        Kind::Json | Kind::SchemaOrArray(_) | Kind::SchemaOrBool(_) | Kind::SchemaOrStrings(_) => {
            return Shape::Deduced.atom();
        }
        Kind::FieldsV1 | Kind::RawExtension => {
            return Atom::map(Map {
                atomic: false,
                fields: Fields::None,
                element: Some(Shape::Deduced),
                deduced: true,
            });
        }
        Kind::Struct(ty) => return Shape::Struct(*ty).atom(),
        Kind::List(of) | Kind::WrappedList(of) => {
            return Atom::list(List {
                relation: Relation::Atomic,
                keys: Keys::Static(&[]),
                element: Shape::Kind(of),
            });
        }
        Kind::Map(of) => {
            return Atom::map(Map {
                atomic: false,
                fields: Fields::None,
                element: Some(Shape::Kind(of)),
                deduced: false,
            });
        }
    };
    Atom::scalar(scalar)
}

/// A schema as nodes: a custom resource's, or a test's.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    nodes: Vec<Node>,
}

/// What a node allows.
#[derive(Clone, Debug)]
pub enum Node {
    /// What a built-in struct allows.
    Builtin(TypeId),
    /// Anything; see [`Shape::Deduced`].
    Deduced,
    /// Anything, owned as a whole.
    Whole,
    Atom {
        scalar: Option<Scalar>,
        list: Option<ListNode>,
        map: Option<MapNode>,
    },
}

#[derive(Clone, Debug)]
pub struct ListNode {
    pub relation: Relation,
    pub keys: Vec<CompactString>,
    pub element: NodeId,
}

#[derive(Clone, Debug, Default)]
pub struct MapNode {
    pub atomic: bool,
    fields: Vec<FieldNode>,
    pub element: Option<NodeId>,
}

#[derive(Clone, Debug)]
pub struct FieldNode {
    pub name: CompactString,
    pub node: NodeId,
    /// What an absent key of a list's element counts as.
    pub default: Option<Value>,
}

impl MapNode {
    pub fn new(mut fields: Vec<FieldNode>, element: Option<NodeId>, atomic: bool) -> MapNode {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        MapNode { atomic, fields, element }
    }

    fn field(&self, name: &str) -> Option<&FieldNode> {
        self.fields.binary_search_by(|field| field.name.as_str().cmp(name)).ok().map(|at| &self.fields[at])
    }
}

impl Schema {
    pub fn new() -> Schema {
        Schema::default()
    }

    /// Adds a node.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }

    /// Replaces a node: how recursive types are closed.
    pub fn set(&mut self, at: NodeId, node: Node) {
        self.nodes[at as usize] = node;
    }

    pub fn node(&self, at: NodeId) -> &Node {
        &self.nodes[at as usize]
    }

    fn atom(&self, at: NodeId) -> Atom<'_> {
        match &self.nodes[at as usize] {
            Node::Builtin(ty) => Shape::Struct(*ty).atom(),
            Node::Deduced => Shape::Deduced.atom(),
            Node::Whole => Shape::Whole.atom(),
            Node::Atom { scalar, list, map } => Atom {
                scalar: *scalar,
                list: list.as_ref().map(|list| List {
                    relation: list.relation,
                    keys: Keys::Owned(&list.keys),
                    element: Shape::Node(self, list.element),
                }),
                map: map.as_ref().map(|map| Map {
                    atomic: map.atomic,
                    fields: Fields::Node(self, map),
                    element: map.element.map(|element| Shape::Node(self, element)),
                    deduced: map.fields.is_empty()
                        && map.element.is_some_and(|element| self.is_untyped(element)),
                }),
            },
        }
    }

    fn is_untyped(&self, at: NodeId) -> bool {
        match &self.nodes[at as usize] {
            Node::Deduced => true,
            Node::Atom { scalar, .. } => *scalar == Some(Scalar::Untyped),
            Node::Builtin(_) | Node::Whole => false,
        }
    }
}
