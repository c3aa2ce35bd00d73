//! The table as the sources and facts make it, and the checks that they agree.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde_json::Value;

use super::facts::{DefaultFact, Facts, GroupFact, MessageFact};
use super::sources::{Label, Message, ProtoField, Sources};

pub struct Model<'a> {
    pub packages: Vec<Package>,
    pub groups: &'a [GroupFact],
}

pub struct Package {
    pub group: String,
    pub version: String,
    pub module: String,
    pub served: bool,
    pub structs: Vec<Struct>,
}

pub struct Struct {
    pub message: String,
    pub definition: String,
    pub fields: Vec<Field>,
    pub embeds: Vec<(Vec<u32>, String)>,
    pub gvk: bool,
    pub atomic: bool,
    pub unions: String,
}

impl Struct {
    pub fn name(&self) -> &str {
        self.message.rsplit('.').next().unwrap_or("")
    }
}

#[derive(Clone)]
pub struct Field {
    pub json: String,
    pub kind: Kind,
    pub proto: u32,
    pub embed: usize,
    pub omit_empty: bool,
    pub pointer: bool,
    pub required: bool,
    pub omit_zero: bool,
    pub empty_tells: bool,
    pub type_meta: bool,
    pub atomic: bool,
    pub pointer_elements: bool,
    pub list: String,
    pub map_keys: Vec<String>,
    pub merge_key: String,
    pub strategy: Vec<String>,
    pub default: Option<DefaultFact>,
    pub go_type: String,
    pub enums: Vec<String>,
    pub gates: String,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Kind {
    /// `Bool`, `Str`, `Time`…: a variant without content.
    Plain(&'static str),
    /// A variant holding a struct: `Struct`, `SchemaOrArray`…
    Of(&'static str, String),
    List(Box<Kind>),
    Map(Box<Kind>),
    WrappedList(Box<Kind>),
}

/// `io.k8s.api.core.v1.Pod` of message `api.core.v1.Pod`.
pub fn definition_name(message: &str) -> String {
    format!("io.k8s.{}", message.replace('_', "-"))
}

pub fn build<'a>(sources: &Sources, facts: &'a Facts) -> anyhow::Result<Model<'a>> {
    let builder = Builder { sources, facts };
    builder.check_facts_are_used()?;
    let mut packages = Vec::new();
    for package in &facts.packages {
        let prefix = format!("{}.", package.proto);
        let mut structs = Vec::new();
        for (name, message) in &sources.messages {
            let inside = name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('.'));
            if !inside || facts.codecs.contains_key(name) || facts.skips.contains_key(name) {
                continue;
            }
            structs.push(builder.build_struct(name, message, &package.group).with_context(|| name.clone())?);
        }
        if structs.is_empty() {
            bail!("package {} has no messages", package.proto);
        }
        packages.push(Package {
            group: package.group.clone(),
            version: package.version().to_owned(),
            module: package.module.clone(),
            served: package.served,
            structs,
        });
    }
    packages.sort_by_key(|p| !p.served);
    let model = Model { packages, groups: &facts.groups };
    builder.check_references(&model)?;
    builder.check_definitions(&model)?;
    builder.check_resources(&model)?;
    builder.check_defaults(&model)?;
    Ok(model)
}

struct Builder<'a> {
    sources: &'a Sources,
    facts: &'a Facts,
}

impl Builder<'_> {
    fn fact(&self, message: &str) -> MessageFact {
        self.facts.messages.get(message).cloned().unwrap_or_default()
    }

    fn check_facts_are_used(&self) -> anyhow::Result<()> {
        for (message, fact) in &self.facts.messages {
            let found = self
                .sources
                .message(message)
                .with_context(|| format!("fields.facts speaks of {message}, which no source has"))?;
            for proto in fact.json.keys().chain(&fact.inline) {
                if !found.fields.iter().any(|f| f.name == *proto) {
                    bail!("fields.facts: {message} has no protobuf field {proto}");
                }
            }
            for json in fact.names() {
                if !found.fields.iter().any(|f| fact.json.get(&f.name).unwrap_or(&f.name) == json) {
                    bail!("fields.facts: {message} has no field {json}");
                }
            }
        }
        for name in self.facts.codecs.keys() {
            self.sources
                .message(name)
                .with_context(|| format!("fields.facts: codec of {name}, which no source has"))?;
        }
        for name in self.facts.skips.keys() {
            if self.sources.message(name).is_none() && !self.sources.definitions.contains_key(name) {
                bail!("fields.facts: skip of {name}, which no source has");
            }
        }
        Ok(())
    }

    fn build_struct(&self, name: &str, message: &Message, group: &str) -> anyhow::Result<Struct> {
        let fact = self.fact(name);
        let definition = self.sources.definitions.get(&definition_name(name));
        let mut fields = Vec::new();
        let mut embeds = Vec::new();
        if fact.top {
            for json in ["kind", "apiVersion"] {
                fields.push(Field { type_meta: true, omit_empty: true, ..plain_field(json) });
            }
        }
        self.add_fields(name, message, definition, &[], &mut fields, &mut embeds)?;
        let mut names = BTreeSet::new();
        for field in &fields {
            if !names.insert(&field.json) {
                bail!("two fields are named {}", field.json);
            }
        }
        let gvks =
            definition.and_then(|d| d.get("x-kubernetes-group-version-kind")).and_then(Value::as_array);
        if let Some(gvks) = gvks {
            let version = name.rsplit('.').nth(1).unwrap_or("");
            let short = name.rsplit('.').next().unwrap_or("");
            if !gvks.iter().any(|g| g["group"] == group && g["version"] == version && g["kind"] == short) {
                bail!("the definition's kinds do not hold {group}/{version} {short}");
            }
        }
        Ok(Struct {
            message: name.to_owned(),
            definition: definition_name(name),
            fields,
            embeds,
            gvk: fact.top || gvks.is_some(),
            atomic: definition.and_then(|d| d.get("x-kubernetes-map-type")).is_some_and(|t| t == "atomic"),
            unions: definition
                .and_then(|d| d.get("x-kubernetes-unions"))
                .map(Value::to_string)
                .unwrap_or_default(),
        })
    }

    /// Adds the message's fields, those of inlined members in their place.
    fn add_fields(
        &self,
        name: &str,
        message: &Message,
        definition: Option<&Value>,
        path: &[u32],
        fields: &mut Vec<Field>,
        embeds: &mut Vec<(Vec<u32>, String)>,
    ) -> anyhow::Result<()> {
        let fact = self.fact(name);
        let own_definition = self.sources.definitions.get(&definition_name(name));
        let embed = if path.is_empty() {
            0
        } else {
            embeds.iter().position(|(e, _)| e == path).context("an embed without its path")? + 1
        };
        for field in &message.fields {
            if fact.inline.contains(&field.name) {
                let inner =
                    self.sources.message(&field.ty).with_context(|| format!("the inlined {}", field.ty))?;
                let path: Vec<u32> = path.iter().copied().chain([field.number]).collect();
                let outer = if embed == 0 { String::new() } else { format!("{}.", embeds[embed - 1].1) };
                let go = format!("{outer}{}", field.ty.rsplit('.').next().unwrap_or(""));
                embeds.push((path.clone(), go));
                self.add_fields(&field.ty, inner, definition, &path, fields, embeds)?;
                continue;
            }
            fields.push(self.field(name, field, &fact, (definition, own_definition), embed)?);
        }
        Ok(())
    }

    /// One field, from its message, the definitions (the struct's, its own message's) and the facts.
    fn field(
        &self,
        name: &str,
        field: &ProtoField,
        fact: &MessageFact,
        (definition, own_definition): (Option<&Value>, Option<&Value>),
        embed: usize,
    ) -> anyhow::Result<Field> {
        let json = fact.json.get(&field.name).unwrap_or(&field.name).clone();
        let property = definition
            .and_then(|d| d["properties"].get(&json))
            .or_else(|| own_definition.and_then(|d| d["properties"].get(&json)));
        let kind = self.kind(field.label, &field.ty)?;
        let required = |d: Option<&Value>| {
            d.and_then(|d| d["required"].as_array()).is_some_and(|r| r.iter().any(|n| *n == json))
        };
        let text =
            |key: &str| property.and_then(|p| p.get(key)).and_then(Value::as_str).unwrap_or("").to_owned();
        let scalar = matches!(kind, Kind::Plain("Str" | "Int32" | "Int64" | "Bool" | "Float64"));
        let sequence = matches!(kind, Kind::List(_) | Kind::Map(_) | Kind::Plain("Bytes"));
        let pointer =
            if scalar { fact.pointer.contains(&json) } else { !sequence && !fact.by_value.contains(&json) };
        let omit_empty =
            if required(own_definition) { fact.omit.contains(&json) } else { !fact.keep.contains(&json) };
        let (list, map_keys) = match fact.list.get(&json) {
            Some((ty, keys)) => (ty.clone(), keys.clone()),
            None => (
                text("x-kubernetes-list-type"),
                property
                    .and_then(|p| p["x-kubernetes-list-map-keys"].as_array())
                    .map(|keys| keys.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    .unwrap_or_default(),
            ),
        };
        let strategy = fact
            .patch
            .get(&json)
            .map_or_else(|| text("x-kubernetes-patch-strategy").replace(',', "+"), Clone::clone);
        Ok(Field {
            kind,
            proto: field.number,
            embed,
            omit_empty,
            pointer,
            required: required(definition),
            omit_zero: fact.omit_zero.contains(&json),
            empty_tells: fact.empty.contains(&json),
            atomic: fact.map.get(&json).is_some_and(|t| t == "atomic")
                || text("x-kubernetes-map-type") == "atomic",
            pointer_elements: fact.pointer_elements.contains(&json),
            list,
            map_keys,
            merge_key: fact
                .merge_key
                .get(&json)
                .cloned()
                .unwrap_or_else(|| text("x-kubernetes-patch-merge-key")),
            strategy: strategy.split('+').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            default: self.facts.defaults.get(&(name.to_owned(), json.clone())).cloned(),
            go_type: fact.go.get(&json).cloned().unwrap_or_default(),
            enums: fact.enums.get(&json).cloned().unwrap_or_default(),
            gates: fact.gates.get(&json).cloned().unwrap_or_default(),
            ..plain_field(&json)
        })
    }

    fn kind(&self, label: Label, ty: &str) -> anyhow::Result<Kind> {
        let one = match ty {
            "string" => Kind::Plain("Str"),
            "bool" => Kind::Plain("Bool"),
            "int32" => Kind::Plain("Int32"),
            "int64" => Kind::Plain("Int64"),
            "double" => Kind::Plain("Float64"),
            "bytes" => Kind::Plain("Bytes"),
            message => match self.facts.codecs.get(message).map(String::as_str) {
                None => Kind::Of("Struct", message.to_owned()),
                Some("Time") => Kind::Plain("Time"),
                Some("MicroTime") => Kind::Plain("MicroTime"),
                Some("Duration") => Kind::Plain("Duration"),
                Some("FieldsV1") => Kind::Plain("FieldsV1"),
                Some("Quantity") => Kind::Plain("Quantity"),
                Some("IntOrString") => Kind::Plain("IntOrString"),
                Some("RawExtension") => Kind::Plain("RawExtension"),
                Some("Json") => Kind::Plain("Json"),
                Some("WrappedList") => Kind::WrappedList(Box::new(Kind::Plain("Str"))),
                Some(codec @ ("SchemaOrArray" | "SchemaOrBool" | "SchemaOrStrings")) => {
                    let of = message
                        .rsplit_once('.')
                        .map(|(package, _)| format!("{package}.JSONSchemaProps"))
                        .unwrap_or_default();
                    let variant = match codec {
                        "SchemaOrArray" => "SchemaOrArray",
                        "SchemaOrBool" => "SchemaOrBool",
                        _ => "SchemaOrStrings",
                    };
                    Kind::Of(variant, of)
                }
                Some(other) => bail!("unknown codec {other}"),
            },
        };
        Ok(match label {
            Label::Optional => one,
            Label::Repeated => Kind::List(Box::new(one)),
            Label::Map => Kind::Map(Box::new(one)),
        })
    }

    /// Every struct named is in the table, and no served one leads to an unserved one.
    fn check_references(&self, model: &Model<'_>) -> anyhow::Result<()> {
        let served: BTreeMap<&str, bool> = model
            .packages
            .iter()
            .flat_map(|p| p.structs.iter().map(move |s| (s.message.as_str(), p.served)))
            .collect();
        for package in &model.packages {
            for of in &package.structs {
                for field in &of.fields {
                    let Some(target) = element(&field.kind) else { continue };
                    match served.get(target) {
                        None => bail!(
                            "{}.{} is of {target}, which no package of fields.facts holds",
                            of.message,
                            field.json
                        ),
                        Some(false) if package.served => {
                            bail!("{}.{} is of the unserved {target}", of.message, field.json)
                        }
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Definitions and messages agree on the fields and their types.
    fn check_definitions(&self, model: &Model<'_>) -> anyhow::Result<()> {
        let by_definition: BTreeMap<&str, &Struct> =
            model.packages.iter().flat_map(|p| &p.structs).map(|s| (s.definition.as_str(), s)).collect();
        let codecs: BTreeSet<String> = self.facts.codecs.keys().map(|m| definition_name(m)).collect();
        let mut differences = Vec::new();
        for (name, definition) in &self.sources.definitions {
            if codecs.contains(name) || self.facts.skips.contains_key(name) {
                continue;
            }
            let Some(found) = by_definition.get(name.as_str()) else {
                differences.push(format!("{name}: defined, but there is no such message"));
                continue;
            };
            let empty = serde_json::Map::new();
            let properties = definition["properties"].as_object().unwrap_or(&empty);
            for (json, property) in properties {
                match found.fields.iter().find(|f| f.json == *json) {
                    None => differences.push(format!("{name}.{json}: defined, but not in the message")),
                    Some(field) => {
                        if let Some(why) = type_difference(&field.kind, property) {
                            differences.push(format!("{name}.{json}: {why}"));
                        }
                    }
                }
            }
            for field in &found.fields {
                if !properties.contains_key(&field.json) {
                    differences.push(format!("{name}.{}: in the message, but not defined", field.json));
                }
            }
        }
        if differences.is_empty() {
            Ok(())
        } else {
            bail!("unexplained differences:\n  {}", differences.join("\n  "))
        }
    }

    /// Every row's kinds are in the table.
    fn check_resources(&self, model: &Model<'_>) -> anyhow::Result<()> {
        let known = |group: &str, version: &str, kind: &str| {
            model.packages.iter().any(|p| {
                p.served
                    && p.group == group
                    && p.version == version
                    && p.structs.iter().any(|s| s.gvk && s.name() == kind)
            })
        };
        for group in model.groups {
            for version in &group.versions {
                for row in &version.rows {
                    let mut kinds = vec![(group.name.as_str(), version.version.as_str(), row.kind.as_str())];
                    for sub in &row.subs {
                        if let Some((g, v, k)) = &sub.kind {
                            let own = v.is_empty();
                            kinds.push(if own { (&group.name, &version.version, k) } else { (g, v, k) });
                        }
                    }
                    for (g, v, k) in kinds {
                        if !known(g, v, k) {
                            bail!(
                                "resources.facts: {} is of {g}/{v} {k}, which the sources do not have",
                                row.plural
                            );
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Every default is of a field and of its type.
    fn check_defaults(&self, model: &Model<'_>) -> anyhow::Result<()> {
        for ((message, json), value) in &self.facts.defaults {
            let found = self
                .sources
                .message(message)
                .with_context(|| format!("defaults.facts: no message {message}"))?;
            let fact = self.fact(message);
            let field = found
                .fields
                .iter()
                .find(|f| fact.json.get(&f.name).unwrap_or(&f.name) == json)
                .with_context(|| format!("defaults.facts: {message} has no field {json}"))?;
            let fits = match value {
                DefaultFact::Str(_) => field.ty == "string",
                DefaultFact::Bool(_) => field.ty == "bool",
                DefaultFact::Int(_) => field.ty == "int32" || field.ty == "int64",
                DefaultFact::Empty => {
                    self.sources.message(&field.ty).is_some() && !self.facts.codecs.contains_key(&field.ty)
                }
            };
            if !fits || field.label != Label::Optional {
                bail!("defaults.facts: {message}.{json} is {}, which {value:?} does not fit", field.ty);
            }
        }
        let _ = model;
        Ok(())
    }
}

fn plain_field(json: &str) -> Field {
    Field {
        json: json.to_owned(),
        kind: Kind::Plain("Str"),
        proto: 0,
        embed: 0,
        omit_empty: false,
        pointer: false,
        required: false,
        omit_zero: false,
        empty_tells: false,
        type_meta: false,
        atomic: false,
        pointer_elements: false,
        list: String::new(),
        map_keys: Vec::new(),
        merge_key: String::new(),
        strategy: Vec::new(),
        default: None,
        go_type: String::new(),
        enums: Vec::new(),
        gates: String::new(),
    }
}

fn element(kind: &Kind) -> Option<&str> {
    match kind {
        Kind::Plain(_) => None,
        Kind::Of(_, of) => Some(of),
        Kind::List(of) | Kind::Map(of) | Kind::WrappedList(of) => element(of),
    }
}

/// Why the definition's type is another than the message's, if it is.
fn type_difference(kind: &Kind, property: &Value) -> Option<String> {
    let reference = property.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next());
    let ty = match &property["type"] {
        Value::String(ty) => ty.as_str(),
        Value::Array(types) => types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or(""),
        _ => "",
    };
    let format = property["format"].as_str().unwrap_or("");
    let is = |want: &str, formats: &[&str]| {
        (ty != want || !formats.contains(&format))
            .then(|| format!("defined as {ty}/{format}, the message says {kind:?}"))
    };
    let refers = |to: &str| {
        (reference != Some(to)).then(|| format!("defined as {reference:?} {ty}, the message says {kind:?}"))
    };
    match kind {
        Kind::Plain("Str") => is("string", &[""]),
        Kind::Plain("Bool") => is("boolean", &[""]),
        Kind::Plain("Int32") => is("integer", &["int32"]),
        Kind::Plain("Int64") => is("integer", &["int64"]),
        Kind::Plain("Float64") => is("number", &["double"]),
        Kind::Plain("Bytes") => is("string", &["byte"]),
        Kind::Plain("Time") => refers("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
        Kind::Plain("MicroTime") => refers("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
        Kind::Plain("Duration") => refers("io.k8s.apimachinery.pkg.apis.meta.v1.Duration"),
        Kind::Plain("FieldsV1") => refers("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"),
        Kind::Plain("Quantity") => refers("io.k8s.apimachinery.pkg.api.resource.Quantity"),
        Kind::Plain("IntOrString") => refers("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
        Kind::Plain("RawExtension") => refers("io.k8s.apimachinery.pkg.runtime.RawExtension"),
        Kind::Plain("Json") => refers("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"),
        Kind::Plain(other) => Some(format!("no check for {other}")),
        Kind::Of("Struct", of) => refers(&definition_name(of)),
        Kind::Of(..) => reference.is_none().then(|| "no reference".to_owned()),
        Kind::WrappedList(of) | Kind::List(of) => match ty {
            "array" => type_difference(of, &property["items"]),
            other => Some(format!("defined as {other}, the message says a list")),
        },
        Kind::Map(of) => match ty {
            "object" => type_difference(of, &property["additionalProperties"]),
            other => Some(format!("defined as {other}, the message says a map")),
        },
    }
}
