//! Who owns which field: managed fields on every write, and server-side apply (upstream: `handlers/{create,update,patch}.go`,
//! `handlers/fieldmanager`). The rules are `keelson_api::apply`; here is what a request brings to them.

use keelson_api::apply::manage::{self, ApplyError, Request};
use keelson_api::apply::shape::Shape;
use keelson_api::apply::versions::KindVersions;
use keelson_api::apply::{managers, reset};
use keelson_api::doc::{Doc, Gvk, Value, value_to_json};
use keelson_api::f::meta_v1::object_meta as om;
use keelson_api::json::FieldValidation;
use keelson_api::status::{Cause, Reason, Status};
use keelson_api::table::Resource;
use keelson_api::{patch, types, yaml};

use super::{Op, gvk};
use crate::options::WriteOptions;

/// The shape of a row's objects.
pub fn shape_of(row: &Resource) -> Shape<'_> {
    match (&row.custom, row.ty) {
        (Some(custom), _) => custom.shape(),
        (None, Some(ty)) => Shape::Struct(ty),
        (None, None) => Shape::Custom(None),
    }
}

impl Op<'_> {
    /// Runs a rule with what it may know of this request.
    pub fn with_fields<R>(
        &self,
        subresource: &str,
        manager: &str,
        rule: impl FnOnce(&Request<'_>) -> R,
    ) -> R {
        let table = self.core.table.load();
        let shape = |wanted: &Gvk| {
            table.by_kind(&wanted.group, &wanted.version, &wanted.kind).map(|row| shape_of(row))
        };
        let gvk = gvk(&self.row);
        let now = types::time_text(self.now);
        rule(&Request {
            manager,
            gvk: &gvk,
            shape: shape_of(&self.row),
            subresource,
            now: &now,
            versions: &KindVersions { kind: &self.row.kind, shape: &shape },
            filter: reset::filter(
                &self.row.group,
                &self.row.kind,
                self.row.ty.is_none(),
                self.row.has_status(),
                subresource,
            ),
        })
    }

    /// Sets the managers of a new object of the request's version, as the client sent it and with its defaults.
    pub fn manage_new(&self, doc: &mut Doc, options: &WriteOptions) {
        self.with_fields("", &options.manager, |request| manage::update(request, None, doc));
    }

    /// Sets the managers of a changed object of the storage version; `old` is of the request's version.
    pub fn manage_changed(
        &self,
        old: &Doc,
        new: Doc,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Doc, Status> {
        let mut new = new;
        let rule = |doc: &mut Doc| {
            self.with_fields(subresource, &options.manager, |request| {
                manage::update(request, Some(old), doc)
            });
        };
        if self.stored_as_requested() {
            rule(&mut new);
            return Ok(new);
        }
        let mut requested = self.to_requested(new.clone())?;
        rule(&mut requested);
        managers::put_entries(&mut new, requested.meta().managed_fields().to_vec());
        Ok(new)
    }
}

/// An apply's configuration.
pub struct Configuration {
    value: Value,
    /// A key that stands twice.
    strict: Option<String>,
    validation: FieldValidation,
}

impl Configuration {
    /// Reads a body of `application/apply-patch+yaml`.
    pub fn read(body: &[u8], validation: FieldValidation) -> Result<Configuration, Status> {
        let (value, strict) = super::decode::aside(body.len(), || yaml::decode_untyped(body))
            .map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
        match &value {
            Value::Map(_) | Value::Null => Ok(Configuration { value, strict, validation }),
            other => Err(Status::bad_request(format!(
                "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                patch::type_word(&value_to_json(other))
            ))),
        }
    }

    /// The live object with the configuration applied; without one, a new object.
    pub fn apply(
        &self,
        op: &Op<'_>,
        live: Option<&Doc>,
        subresource: &str,
        options: &WriteOptions,
    ) -> Result<Doc, Status> {
        let nothing = match op.row.ty {
            Some(ty) => Doc { gvk: gvk(&op.row), ..Doc::new(ty) },
            None => Doc::new_custom(gvk(&op.row)),
        };
        let base = live.unwrap_or(&nothing);
        let object = op.with_fields(subresource, &options.manager, |request| {
            self.apply_to(request, base, options.force)
        })?;
        let (object, _) = op
            .admit((object, Vec::new()), FieldValidation::Ignore)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        if let Some(text) = (op.strategy.unreadable)(&object) {
            let text = format!(
                "failed to convert to unversioned (/; {}, Kind={}): {text}",
                op.row.api_version(),
                op.row.kind
            );
            return Err(Status::other(500, Reason::Unknown, text));
        }
        let uid = object.meta().uid();
        if live.is_none() && !uid.is_empty() {
            let text = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(Status::conflict(&op.gr(), &op.info().name, text));
        }
        Ok(object)
    }

    /// As [`Configuration::apply`], on an object that is there, for a request of any kind.
    pub fn apply_to(&self, request: &Request<'_>, live: &Doc, force: bool) -> Result<Doc, Status> {
        let applied = manage::apply(request, live, &self.value, force).map_err(refusal)?;
        match (&self.strict, self.validation) {
            (Some(text), FieldValidation::Strict) => {
                Err(Status::bad_request(format!("error strict decoding YAML: {text}")))
            }
            _ => Ok(applied.object),
        }
    }

    /// What to warn of.
    pub fn warning(&self) -> Option<String> {
        self.strict.clone().filter(|_| self.validation == FieldValidation::Warn)
    }
}

fn refusal(error: ApplyError) -> Status {
    match error {
        ApplyError::BadRequest(text) => Status::bad_request(text),
        ApplyError::Failed(text) => Status::other(500, Reason::Unknown, text),
        ApplyError::Conflicts(conflicts) => {
            let message = manage::conflict_text(&conflicts);
            let causes = conflicts
                .iter()
                .map(|conflict| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {}", conflict.manager.text()),
                    field: keelson_api::apply::set::path_text(&conflict.path),
                })
                .collect();
            Status::apply_conflict(causes, message)
        }
    }
}

/// After mutating admission: managers that cannot be read are as before it, with a warning.
pub fn check_admitted(op: &Op<'_>, before: Vec<Value>, doc: &mut Doc) {
    let after = doc.meta().managed_fields();
    if after == before.as_slice() {
        return;
    }
    if let Err(error) = managers::decode(after) {
        managers::put_entries(doc, before);
        op.call.warnings.add(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission controller; please fix your requests: {error}"
        ));
    }
}

/// Where nothing but the managers' times changed, the times are as they were: such a write is none.
pub fn keep_times(op: &Op<'_>, new: &mut Doc, old: &Doc, old_json: &[u8]) {
    let (entries, known) = (new.meta().managed_fields(), old.meta().managed_fields());
    if entries.is_empty() || entries == known || !managers::same_but_times(entries, known) {
        return;
    }
    let entries = entries.to_vec();
    let known = known.to_vec();
    managers::put_entries(new, known);
    if op.stored_form(new) != old_json {
        managers::put_entries(new, entries);
    }
}

/// Takes the managers away: an object too large with them is stored without.
pub fn without_managers(doc: &Doc) -> Option<Doc> {
    if doc.meta().managed_fields().is_empty() {
        return None;
    }
    let mut doc = doc.clone();
    doc.meta_mut().as_struct().remove(om::MANAGED_FIELDS);
    Some(doc)
}
