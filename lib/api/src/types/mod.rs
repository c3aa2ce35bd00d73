//! The rules of each type: defaults, what is prepared on create and update, validation, columns.
//!
//! A [`Strategy`] is data and plain functions; [`strategy`] finds the one of a type, [`GENERIC`] serves every type
//! without its own rules, [`custom::CUSTOM`] custom resources. Rules read and change a [`Doc`] only; what must read the cluster is
//! admission. The API server drives them in this order:
//!
//! * create: decode, default, [`Strategy::before_create`], (uid, creationTimestamp, generated name), mutating
//!   admission, default again, [`Strategy::check_create`], [`Strategy::warnings`];
//! * update and patch: default, [`Strategy::before_update`], mutating admission, [`Strategy::check_update`], warnings.
//!
//! `Ctx::subresource` picks the rules of `status` and the other subresources.

use std::collections::BTreeMap;

use compact_str::CompactString;
use jiff::Timestamp;
use keelson_base::gates::Gates;
use smallvec::SmallVec;

use crate::doc::{Doc, Value};
use crate::field_errors::ErrorList;
use crate::names::{self, NameRule};
use crate::schema::TypeId;

pub mod apps;
pub mod batch;
pub mod columns;
pub mod convert;
mod convert_autoscaling;
mod convert_resource;
pub mod core;
mod cron;
pub mod custom;
pub mod deprecated;
pub mod meta;
pub mod others;
pub mod walk;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct User<'a> {
    pub name: &'a str,
    pub uid: &'a str,
    pub groups: &'a [String],
    pub extra: Option<&'a BTreeMap<String, Vec<String>>>,
}

/// What a rule may know of the request.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    pub now: Timestamp,
    pub gates: &'a Gates,
    /// The API group the request names; not the object's own where it is converted.
    pub group: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Whether the resource is namespaced.
    pub namespaced: bool,
    /// Whether the resource has a status subresource.
    pub has_status: bool,
    pub user: User<'a>,
    /// What a custom resource's definition says of it.
    pub custom: Option<&'a crate::structural::custom::Custom>,
}

impl Ctx<'_> {
    /// Now, as metadata writes it: RFC 3339, UTC, whole seconds.
    pub fn now_text(&self) -> CompactString {
        time_text(self.now)
    }
}

/// RFC 3339, UTC, whole seconds.
pub fn time_text(at: Timestamp) -> CompactString {
    compact_str::format_compact!("{}", at.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

/// RFC 3339, UTC, six digits (MicroTime).
pub fn micro_time_text(at: Timestamp) -> CompactString {
    compact_str::format_compact!("{}", at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ"))
}

/// When `metadata.generation` rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationRule {
    /// Never set.
    None,
    /// 1 at creation, never raised by an update.
    CreateOnly,
    /// 1 at creation, raised when `spec` changes.
    Spec,
    /// As `Spec`, and when annotations change.
    SpecOrAnnotations,
    /// 1 at creation, raised when anything but metadata and status changes.
    Everything,
}

/// What a write of the whole object does with `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusRule {
    /// Dropped on create, kept from the old object on update, where the resource has a status subresource.
    Subresource,
    /// Written like any field.
    Plain,
}

/// Selectable fields of an object besides `metadata.name` and `metadata.namespace`.
pub type SelectableFields = SmallVec<[(&'static str, CompactString); 4]>;

/// The rules of one type.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// What `metadata.name` (and generateName) must look like.
    pub name_rule: NameRule,
    /// The type's own defaults, after the table's static ones.
    pub defaults: fn(&mut Doc),
    pub prepare_create: fn(&mut Doc, &Ctx<'_>),
    pub prepare_update: fn(&mut Doc, &Doc, &Ctx<'_>),
    /// After spec and status have been put right by [`StatusRule`].
    pub prepare_status_update: fn(&mut Doc, &Doc, &Ctx<'_>),
    pub validate_create: fn(&Doc, &Ctx<'_>, &mut ErrorList),
    /// New, old.
    pub validate_update: fn(&Doc, &Doc, &Ctx<'_>, &mut ErrorList),
    /// New, old.
    pub validate_status_update: fn(&Doc, &Doc, &Ctx<'_>, &mut ErrorList),
    /// Texts of Warning headers; the old object on update.
    pub warnings: fn(&Doc, Option<&Doc>, &Ctx<'_>) -> Vec<String>,
    pub status: StatusRule,
    pub generation: GenerationRule,
    /// PUT on a missing object creates it.
    pub allow_create_on_update: bool,
    /// An update without resourceVersion overwrites.
    pub allow_unconditional_update: bool,
    /// Seconds of grace a deletion gets, from the object and the request's gracePeriodSeconds; `None`: deleted at once.
    pub grace: fn(&Doc, Option<i64>) -> Option<i64>,
    /// What Go does not take for such an object although its JSON is one, in the words of upstream's conversion.
    pub unreadable: fn(&Doc) -> Option<String>,
    /// Names of [`Strategy::selectable_fields`].
    pub selectable: &'static [&'static str],
    pub selectable_fields: fn(&Doc) -> SelectableFields,
    /// What is said of a field that is not selectable, by a type that has fields of its own.
    pub unselectable: fn(&str) -> String,
    /// Orphan rather than delete dependents where the request does not say.
    pub default_orphan: bool,
    /// The warning on a deletion that leaves it to [`Strategy::default_orphan`]; empty for none.
    pub orphan_warning: &'static str,
    pub columns: &'static columns::Columns,
}

fn no_defaults(_: &mut Doc) {}
fn no_prepare(_: &mut Doc, _: &Ctx<'_>) {}
fn no_prepare_update(_: &mut Doc, _: &Doc, _: &Ctx<'_>) {}
fn no_validate(_: &Doc, _: &Ctx<'_>, _: &mut ErrorList) {}
fn no_validate_update(_: &Doc, _: &Doc, _: &Ctx<'_>, _: &mut ErrorList) {}
fn no_warnings(_: &Doc, _: Option<&Doc>, _: &Ctx<'_>) -> Vec<String> {
    Vec::new()
}
fn no_grace(_: &Doc, _: Option<i64>) -> Option<i64> {
    None
}
fn no_fields(_: &Doc) -> SelectableFields {
    SelectableFields::new()
}

/// ObjectMeta's rules and nothing else: built-in types without their own strategy.
pub static GENERIC: Strategy = Strategy::BASE;

impl Strategy {
    /// What typed strategies start from.
    pub const BASE: Strategy = Strategy {
        name_rule: names::name_is_subdomain,
        defaults: no_defaults,
        prepare_create: no_prepare,
        prepare_update: no_prepare_update,
        prepare_status_update: no_prepare_update,
        validate_create: no_validate,
        validate_update: no_validate_update,
        validate_status_update: no_validate_update,
        warnings: no_warnings,
        unreadable: |_| None,
        status: StatusRule::Subresource,
        generation: GenerationRule::None,
        allow_create_on_update: false,
        allow_unconditional_update: true,
        grace: no_grace,
        selectable: &[],
        selectable_fields: no_fields,
        unselectable: |field| format!("field label not supported: {field}"),
        default_orphan: false,
        orphan_warning: "",
        columns: &columns::DEFAULT,
    };

    fn generation_rule(&self, doc: &Doc) -> GenerationRule {
        if doc.ty().is_none() { GenerationRule::Everything } else { self.generation }
    }

    /// Puts right what a client may not set at creation, and what the type prepares.
    pub fn before_create(&self, doc: &mut Doc, ctx: &Ctx<'_>) {
        crate::gated::drop_disabled(doc, None, ctx.gates);
        let mut meta = doc.meta_mut();
        meta.set_deletion_timestamp(None);
        meta.set_deletion_grace_period_seconds(None);
        meta.set_resource_version("");
        if self.status == StatusRule::Subresource && ctx.has_status {
            remove_part(doc, "status");
        }
        if self.generation_rule(doc) != GenerationRule::None {
            doc.meta_mut().set_generation(1);
        }
        (self.prepare_create)(doc, ctx);
    }

    /// All mistakes of a new object; uid, creationTimestamp and name are set by now.
    pub fn check_create(&self, doc: &Doc, ctx: &Ctx<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        meta::validate(doc, self.name_rule, ctx.namespaced, &mut errors);
        meta::validate_bare_finalizers(doc, &mut errors);
        (self.validate_create)(doc, ctx, &mut errors);
        errors
    }

    /// Puts right what a client may not change, and what the type prepares, for the main resource or `status`.
    pub fn before_update(&self, new: &mut Doc, old: &Doc, ctx: &Ctx<'_>) {
        crate::gated::drop_disabled(new, Some(old), ctx.gates);
        let generation = old.meta().generation();
        new.meta_mut().set_generation(generation);
        let status = ctx.subresource == "status";
        if self.status == StatusRule::Subresource && (ctx.has_status || status) {
            if status {
                keep_all_but_status(new, old);
                if crate::apply::reset::status_keeps_metadata(&new.gvk.group, &new.gvk.kind) {
                    meta::keep(new, old);
                }
            } else if ctx.subresource != "approval" {
                keep_part(new, old, "status");
            }
        }
        if status {
            (self.prepare_status_update)(new, old, ctx);
        } else {
            (self.prepare_update)(new, old, ctx);
            if self.raises_generation(new, old) {
                new.meta_mut().set_generation(generation + 1);
            }
        }
        meta::keep_system_fields(new, old);
    }

    fn raises_generation(&self, new: &Doc, old: &Doc) -> bool {
        match self.generation_rule(new) {
            GenerationRule::None | GenerationRule::CreateOnly => false,
            GenerationRule::Spec => part(new, "spec") != part(old, "spec"),
            GenerationRule::SpecOrAnnotations => {
                part(new, "spec") != part(old, "spec") || new.meta().annotations() != old.meta().annotations()
            }
            GenerationRule::Everything => differs_beyond_status(new, old),
        }
    }

    /// All mistakes of an update; `ctx.subresource` picks main resource or status.
    pub fn check_update(&self, new: &Doc, old: &Doc, ctx: &Ctx<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        meta::validate_update(new, old, ctx.namespaced, &mut errors);
        meta::validate_bare_finalizers(new, &mut errors);
        if ctx.subresource == "status" {
            (self.validate_status_update)(new, old, ctx, &mut errors);
        } else {
            (self.validate_update)(new, old, ctx, &mut errors);
        }
        errors
    }
}

fn part_index(doc: &Doc, name: &str) -> Option<u16> {
    doc.ty()?.def().field_index(name)
}

/// A part of the root by its JSON name, in built-in objects and custom resources.
pub fn part<'a>(doc: &'a Doc, name: &str) -> Option<&'a Value> {
    match &doc.root {
        Value::Struct(root) => root.get_index(part_index(doc, name)?),
        Value::Map(root) => root.get(name),
        _ => None,
    }
}

fn remove_part(doc: &mut Doc, name: &str) {
    let index = part_index(doc, name);
    match &mut doc.root {
        Value::Struct(root) => {
            if let Some(index) = index {
                root.remove_index(index);
            }
        }
        Value::Map(root) => {
            root.remove(name);
        }
        _ => {}
    }
}

fn keep_part(new: &mut Doc, old: &Doc, name: &str) {
    match part(old, name) {
        Some(kept) => {
            let kept = kept.clone();
            let index = part_index(new, name);
            match &mut new.root {
                Value::Struct(root) => {
                    if let Some(index) = index {
                        root.set_index(index, kept);
                    }
                }
                Value::Map(root) => {
                    root.insert(name, kept);
                }
                _ => {}
            }
        }
        None => remove_part(new, name),
    }
}

/// Everything of the old object except `status` and metadata.
fn keep_all_but_status(new: &mut Doc, old: &Doc) {
    match (&mut new.root, &old.root) {
        (Value::Struct(root), Value::Struct(kept)) => {
            let def = root.ty().def();
            let stays = |index: u16| matches!(def.fields[index as usize].json, "status" | "metadata");
            root.retain(|index, _| stays(index));
            for (index, value) in kept.iter().filter(|(index, _)| !stays(*index)) {
                root.set_index(index, value.clone());
            }
        }
        (Value::Map(root), Value::Map(kept)) => {
            root.retain(|key, _| key == "status" || key == "metadata");
            for (key, value) in kept.iter().filter(|(key, _)| *key != "status" && *key != "metadata") {
                root.insert(key, value.clone());
            }
        }
        _ => {}
    }
}

fn differs_beyond_status(new: &Doc, old: &Doc) -> bool {
    match (&new.root, &old.root) {
        (Value::Struct(a), Value::Struct(b)) => {
            let def = a.ty().def();
            let counts = |index: &u16| !matches!(def.fields[*index as usize].json, "status" | "metadata");
            !a.iter().filter(|(i, _)| counts(i)).eq(b.iter().filter(|(i, _)| counts(i)))
        }
        (Value::Map(a), Value::Map(b)) => {
            // With a status subresource the status of both is the old one's.
            let counts = |key: &str| key != "metadata";
            !a.iter().filter(|(k, _)| counts(k)).eq(b.iter().filter(|(k, _)| counts(k)))
        }
        _ => true,
    }
}

/// The rules of a type; [`GENERIC`] where it has none of its own, [`custom::CUSTOM`] for custom resources (`None`).
pub fn strategy(ty: Option<TypeId>) -> &'static Strategy {
    use crate::t::{apps_v1, batch_v1, core_v1, discovery_v1};
    let Some(ty) = ty else { return &custom::CUSTOM };
    match ty {
        core_v1::POD => &core::pod::STRATEGY,
        core_v1::POD_TEMPLATE => &core::replication::POD_TEMPLATE,
        core_v1::REPLICATION_CONTROLLER => &core::replication::CONTROLLER,
        core_v1::SERVICE => &core::service::STRATEGY,
        core_v1::ENDPOINTS => &core::endpoints::ENDPOINTS,
        core_v1::CONFIG_MAP => &core::config::CONFIG_MAP,
        core_v1::SECRET => &core::config::SECRET,
        core_v1::COMPONENT_STATUS => &core::config::COMPONENT_STATUS,
        core_v1::SERVICE_ACCOUNT => &core::config::SERVICE_ACCOUNT,
        core_v1::NAMESPACE => &core::namespace::STRATEGY,
        core_v1::NODE => &core::node::STRATEGY,
        core_v1::EVENT => &core::event::STRATEGY,
        core_v1::LIMIT_RANGE => &core::quota::LIMIT_RANGE,
        core_v1::RESOURCE_QUOTA => &core::quota::RESOURCE_QUOTA,
        apps_v1::DEPLOYMENT => &apps::DEPLOYMENT,
        apps_v1::REPLICA_SET => &apps::REPLICA_SET,
        apps_v1::DAEMON_SET => &apps::DAEMON_SET,
        apps_v1::STATEFUL_SET => &apps::STATEFUL_SET,
        apps_v1::CONTROLLER_REVISION => &apps::CONTROLLER_REVISION,
        batch_v1::JOB => &batch::JOB,
        batch_v1::CRON_JOB => &batch::CRON_JOB,
        discovery_v1::ENDPOINT_SLICE => &core::endpoints::SLICE,
        other => others::strategy(other),
    }
}

/// The type's own defaults (after the table's static ones). Applying them twice changes nothing more.
pub fn apply_defaults(doc: &mut Doc) {
    (strategy(doc.ty()).defaults)(doc);
}
