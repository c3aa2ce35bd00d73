//! The scale subresource: autoscaling/v1 Scale over an object's replicas.

use http::{Response, StatusCode};
use keelson_api::apply::element::PathElement;
use keelson_api::apply::manage::{self, Request};
use keelson_api::apply::managers;
use keelson_api::apply::scale::{to_parent, to_scale};
use keelson_api::apply::shape::Shape;
use keelson_api::apply::versions::KindVersions;
use keelson_api::doc::{Doc, Gvk, Value};
use keelson_api::f::{apps_v1 as apps, autoscaling_v1 as f, core_v1 as core};
use keelson_api::schema::Field;
use keelson_api::status::{GroupResource, Status};
use keelson_api::structural::custom::{ScalePaths, set_at, value_at};
use keelson_api::table::Subresource;
use keelson_api::{t, types};

use super::apply::Configuration;
use super::update::{self, Manner, Ownership, PatchKind};
use super::{Op, read_body};
use crate::body::{Body, RequestBody};
use crate::options::WriteOptions;

/// Where a scalable type keeps what a Scale shows.
struct Paths {
    replicas: [Field; 2],
    current: [Field; 2],
    selector: [Field; 2],
}

fn paths(doc: &Doc) -> Option<Paths> {
    use apps::{
        deployment, deployment_spec, deployment_status, replica_set, replica_set_spec, replica_set_status,
    };
    use apps::{stateful_set, stateful_set_spec, stateful_set_status};
    use core::{replication_controller, replication_controller_spec, replication_controller_status};
    let ty = doc.ty()?;
    Some(match ty {
        t::apps_v1::DEPLOYMENT => Paths {
            replicas: [deployment::SPEC, deployment_spec::REPLICAS],
            current: [deployment::STATUS, deployment_status::REPLICAS],
            selector: [deployment::SPEC, deployment_spec::SELECTOR],
        },
        t::apps_v1::REPLICA_SET => Paths {
            replicas: [replica_set::SPEC, replica_set_spec::REPLICAS],
            current: [replica_set::STATUS, replica_set_status::REPLICAS],
            selector: [replica_set::SPEC, replica_set_spec::SELECTOR],
        },
        t::apps_v1::STATEFUL_SET => Paths {
            replicas: [stateful_set::SPEC, stateful_set_spec::REPLICAS],
            current: [stateful_set::STATUS, stateful_set_status::REPLICAS],
            selector: [stateful_set::SPEC, stateful_set_spec::SELECTOR],
        },
        t::core_v1::REPLICATION_CONTROLLER => Paths {
            replicas: [replication_controller::SPEC, replication_controller_spec::REPLICAS],
            current: [replication_controller::STATUS, replication_controller_status::REPLICAS],
            selector: [replication_controller::SPEC, replication_controller_spec::SELECTOR],
        },
        _ => return None,
    })
}

fn scale_of(op: &Op<'_>, doc: &Doc) -> Result<Doc, Status> {
    if let Some(scale) = op.row.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        return custom_scale(op, scale, doc);
    }
    let paths = paths(doc).ok_or_else(|| Status::not_implemented("scale of this type is not served yet"))?;
    let mut scale = scale_with_meta(doc);
    scale.set(&[f::scale::SPEC, f::scale_spec::REPLICAS], doc.int(&paths.replicas).unwrap_or(0));
    scale.set(&[f::scale::STATUS, f::scale_status::REPLICAS], doc.int(&paths.current).unwrap_or(0));
    scale.set(&[f::scale::STATUS, f::scale_status::SELECTOR], selector_text(doc.get(&paths.selector)));
    Ok(scale)
}

/// What replicas that are not set read as while they are changed; upstream's.
const UNSET: i64 = i32::MIN as i64;

/// A custom resource's scale, read where its definition says.
fn custom_scale(op: &Op<'_>, paths: &ScalePaths, doc: &Doc) -> Result<Doc, Status> {
    let number = |path: &[String]| match value_at(doc, path) {
        Some(Value::Int(n)) => Some(*n),
        _ => None,
    };
    // A client that changes a scale may be the first to set it.
    let replicas = match number(&paths.spec_replicas) {
        None if op.info().verb == "get" => {
            let text = format!("the spec replicas field {:?} does not exist", paths.spec_text);
            return Err(Status::internal(text));
        }
        found => found.unwrap_or(UNSET),
    };
    let mut scale = scale_with_meta(doc);
    scale.set(&[f::scale::SPEC, f::scale_spec::REPLICAS], replicas);
    let current = number(&paths.status_replicas).unwrap_or(0);
    scale.set(&[f::scale::STATUS, f::scale_status::REPLICAS], current);
    let selector = paths.label_selector.as_deref().and_then(|path| value_at(doc, path)?.as_str());
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        scale.set(&[f::scale::STATUS, f::scale_status::SELECTOR], selector);
    }
    Ok(scale)
}

fn scale_with_meta(doc: &Doc) -> Doc {
    let mut scale = Doc::new(t::autoscaling_v1::SCALE);
    scale.gvk = Gvk::new("autoscaling", "v1", "Scale");
    let from = doc.meta();
    let mut meta = scale.meta_mut();
    meta.set_name(from.name());
    meta.set_namespace(from.namespace());
    meta.set_uid(from.uid());
    meta.set_resource_version(from.resource_version());
    meta.set_creation_timestamp(from.creation_timestamp());
    scale
}

/// A selector as upstream prints it; what cannot be read selects nothing.
fn selector_text(selector: Option<&Value>) -> String {
    match selector {
        None => String::new(),
        Some(Value::Map(pairs)) => {
            pairs.str_pairs().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
        }
        Some(value) => {
            let typed: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector> =
                keelson_api::doc::value_to_typed(value).ok();
            typed.as_ref().and_then(crate::rest::scale::spec_text).unwrap_or_default()
        }
    }
}

/// The string form of a LabelSelector.
pub fn spec_text(selector: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector) -> Option<String> {
    let mut terms: Vec<(String, String)> = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        terms.push((key.clone(), format!("{key}={value}")));
    }
    for term in selector.match_expressions.iter().flatten() {
        let mut values = term.values.clone().unwrap_or_default();
        values.sort();
        let key = &term.key;
        let text = match term.operator.as_str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        terms.push((key.clone(), text));
    }
    terms.sort();
    Some(terms.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(","))
}

/// Serves GET, PUT and PATCH of a scale.
pub async fn serve(
    op: &Op<'_>,
    subresource: &Subresource,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let name = op.info().name.clone();
    if op.info().verb == "get" {
        let Some(loaded) = op.load(&name, false).await? else {
            return Err(Status::not_found(&op.gr(), &name));
        };
        return op.answer_shaped(StatusCode::OK, &scale_of(op, &loaded.doc)?, output);
    }
    let put = op.info().verb == "update";
    let kind = if put { None } else { Some(PatchKind::of(op)?) };
    let options_kind = if put { "UpdateOptions" } else { "PatchOptions" };
    let applies = kind == Some(PatchKind::Apply);
    let options = WriteOptions::parse(op.call.query, op.call.headers, options_kind, applies)?;
    let body = read_body(body).await?;
    let given = match kind {
        None => Given::Whole(op.decode_sub(subresource, &body, &options)?),
        Some(PatchKind::Apply) => {
            let configuration = Configuration::read(&body, options.validation)?;
            op.call.warnings.extend(configuration.warning());
            Given::Configuration(configuration)
        }
        Some(kind) => Given::Patch(kind, &body),
    };
    let make = |old: &Doc| scaled(op, old, &given, &options);
    let manner = Manner { subresource: "", ownership: Ownership::Carried };
    let written = update::update(op, &name, manner, &options, &make, None).await?;
    let doc = op.decode_stored(&written.json, written.revision)?;
    op.answer_shaped(StatusCode::OK, &scale_of(op, &doc)?, output)
}

/// What the client sent.
enum Given<'b> {
    Whole(Doc),
    Patch(PatchKind, &'b [u8]),
    Configuration(Configuration),
}

/// The object with the replicas that its new scale asks for, and the owners of them.
fn scaled(op: &Op<'_>, old: &Doc, given: &Given<'_>, options: &WriteOptions) -> Result<Doc, Status> {
    let parent = managers::decode(old.meta().managed_fields())
        .map_err(|error| Status::other(500, keelson_api::status::Reason::Unknown, error.to_string()))?;
    let mapping = |version: &str| replicas_in(op, version);
    let mut current = scale_of(op, old)?;
    managers::put(&mut current, &to_scale(&parent, &mapping));
    let scale = with_scale(op, options, |request| match given {
        Given::Configuration(configuration) => configuration.apply_to(request, &current, options.force),
        Given::Whole(given) => {
            let mut scale = given.clone();
            manage::update(request, Some(&current), &mut scale);
            Ok(scale)
        }
        Given::Patch(kind, body) => {
            let (mut scale, warnings) = kind.apply(op, &current, body, options.validation)?;
            op.call.warnings.extend(warnings);
            manage::update(request, Some(&current), &mut scale);
            Ok(scale)
        }
    })?;
    let mut scale = scale;
    super::create::place(op, &mut scale)?;
    update::check_name(op, &scale)?;
    let replicas = scale.int(&[f::scale::SPEC, f::scale_spec::REPLICAS]).unwrap_or(0);
    let own = op.row.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    if let Some(scale) = own
        && replicas == UNSET
    {
        let text = format!("the spec replicas field {:?} cannot be empty", scale.spec_text);
        return Err(Status::bad_request(text));
    }
    if replicas < 0 {
        let mut errors = keelson_api::field_errors::ErrorList::new();
        let spec = keelson_api::field_errors::FieldPath::new("spec");
        errors.invalid(&spec.child("replicas"), replicas, "must be greater than or equal to 0");
        let gk = GroupResource::new("autoscaling", "Scale");
        return Err(Status::invalid(&gk, old.meta().name(), &errors));
    }
    let mut new = old.clone();
    if let Some(scale) = own {
        set_at(&mut new, &scale.spec_replicas, Value::Int(replicas));
    } else if let Some(paths) = paths(old) {
        new.set(&paths.replicas, replicas);
    }
    let version = scale.meta().resource_version();
    if op.strategy.allow_unconditional_update || !version.is_empty() {
        new.meta_mut().set_resource_version(version);
    }
    new.meta_mut().set_uid(scale.meta().uid());
    let owners = managers::decode(scale.meta().managed_fields()).unwrap_or_default();
    managers::put(&mut new, &to_parent(&parent, &owners, &op.row.api_version(), &mapping));
    Ok(new)
}

/// Where a version of the object keeps its replicas; `None`: it is not served.
fn replicas_in(op: &Op<'_>, version: &str) -> Option<Option<Vec<PathElement>>> {
    let gvk = Gvk::from_api_version(version, &op.row.kind);
    let table = op.core.table.load();
    let row = table.by_kind(&gvk.group, &gvk.version, &gvk.kind)?;
    match &row.custom {
        None => Some(Some(vec![PathElement::field("spec"), PathElement::field("replicas")])),
        Some(custom) => Some(
            custom
                .scale
                .as_ref()
                .map(|scale| scale.spec_replicas.iter().map(|name| PathElement::field(name)).collect()),
        ),
    }
}

/// Runs a rule on fields of a Scale.
fn with_scale<R>(op: &Op<'_>, options: &WriteOptions, rule: impl FnOnce(&Request<'_>) -> R) -> R {
    let gvk = Gvk::new("autoscaling", "v1", "Scale");
    let shape = |wanted: &Gvk| (*wanted == gvk).then_some(Shape::Struct(t::autoscaling_v1::SCALE));
    let now = types::time_text(op.now);
    rule(&Request {
        manager: &options.manager,
        gvk: &gvk,
        shape: Shape::Struct(t::autoscaling_v1::SCALE),
        subresource: "scale",
        now: &now,
        versions: &KindVersions { kind: "Scale", shape: &shape },
        filter: None,
    })
}
