//! Drives an object through the rules as the API server does.

use jiff::Timestamp;
use keelson_api::doc::Doc;
use keelson_api::field_errors::ErrorList;
use keelson_api::json::{EncodeOptions, FieldValidation, decode, encode_canonical};
use keelson_api::schema::TypeId;
use keelson_api::types::{Ctx, Strategy, User, strategy};
use keelson_api::{defaults, table::Table};
use keelson_base::gates::Gates;

pub const UID: &str = "11111111-2222-3333-4444-555555555555";

pub fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// What one test knows of its type.
pub struct Kind {
    pub ty: TypeId,
    pub strategy: &'static Strategy,
    pub namespaced: bool,
    pub has_status: bool,
}

impl Kind {
    pub fn of(api_version: &str, kind: &str) -> Kind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let table = Table::builtin(&Gates::default());
        let row =
            table.by_kind(group, version, kind).unwrap_or_else(|| panic!("no row for {api_version} {kind}"));
        let ty = row.ty.unwrap();
        Kind { ty, strategy: strategy(Some(ty)), namespaced: row.namespaced, has_status: row.has_status() }
    }

    pub fn ctx<'a>(&self, gates: &'a Gates, subresource: &'a str) -> Ctx<'a> {
        Ctx {
            now: now(),
            gates,
            group: "",
            subresource,
            namespaced: self.namespaced,
            has_status: self.has_status,
            user: User { name: "tester", ..User::default() },
            custom: None,
        }
    }

    pub fn decode(&self, json: &serde_json::Value) -> Doc {
        let bytes = serde_json::to_vec(json).unwrap();
        let (mut doc, _) =
            decode(self.ty, &bytes, FieldValidation::Strict).unwrap_or_else(|e| panic!("{e}: {json}"));
        if self.namespaced && doc.meta().namespace().is_empty() {
            doc.meta_mut().set_namespace("default");
        }
        doc
    }

    /// The object as it would be stored, and its mistakes.
    pub fn create(&self, json: &serde_json::Value) -> (Doc, ErrorList) {
        let gates = Gates::default();
        let ctx = self.ctx(&gates, "");
        let mut doc = self.decode(json);
        defaults::apply(&mut doc);
        let mut meta = doc.meta_mut();
        meta.set_uid(UID);
        meta.set_creation_timestamp(Some("2025-12-31T23:00:00Z"));
        if meta.view().name().is_empty() && !meta.view().generate_name().is_empty() {
            let name = format!("{}abcde", meta.view().generate_name());
            meta.set_name(&name);
        }
        self.strategy.before_create(&mut doc, &ctx);
        defaults::apply(&mut doc);
        let errors = self.strategy.check_create(&doc, &ctx);
        doc.meta_mut().set_resource_version("7");
        (doc, errors)
    }

    /// The updated object and its mistakes; `old` is created first and must be valid.
    pub fn update(
        &self,
        old: &serde_json::Value,
        new: &serde_json::Value,
        subresource: &str,
    ) -> (Doc, ErrorList) {
        let (old, errors) = self.create(old);
        assert!(errors.is_empty(), "the old object: {errors}");
        self.update_doc(&old, self.decode(new), subresource)
    }

    pub fn update_doc(&self, old: &Doc, mut new: Doc, subresource: &str) -> (Doc, ErrorList) {
        let gates = Gates::default();
        let ctx = self.ctx(&gates, subresource);
        defaults::apply(&mut new);
        if new.meta().resource_version().is_empty() {
            new.meta_mut().set_resource_version("7");
        }
        self.strategy.before_update(&mut new, old, &ctx);
        defaults::apply(&mut new);
        let errors = self.strategy.check_update(&new, old, &ctx);
        (new, errors)
    }
}

pub fn json(doc: &Doc) -> serde_json::Value {
    let mut out = Vec::new();
    encode_canonical(doc, EncodeOptions::FULL, &mut out);
    serde_json::from_slice(&out).unwrap()
}
