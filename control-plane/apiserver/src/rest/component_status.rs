//! `componentstatuses` (upstream `registry/core/componentstatus`): nothing is stored, each question asks the components.

use std::time::Duration;

use http::{Response, StatusCode};
use keelson_api::doc::{Doc, Gvk, Value};
use keelson_api::json::{self, EncodeOptions};
use keelson_api::status::{GroupResource, Status};
use keelson_api::{f::core_v1 as f, proto, t::core_v1 as t};
use keelson_daemon::health::State;

use super::Op;
use super::table::{Include, Meta, RowContext, push_head};
use crate::body::Body;
use crate::core::Core;
use crate::negotiate::{self, Encoding, Output, Shape};
use crate::options::ListOptions;
use crate::{respond, scan};

/// The names under which the process' supervisor knows the components.
pub const SCHEDULER: &str = "scheduler";
pub const CONTROLLERS: &str = "controllers";

/// Rows in the order they are listed in; upstream's has none.
const NAMES: [&str; 3] = ["controller-manager", "scheduler", "etcd-0"];
/// The store has so long to answer (upstream's probe).
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a GET of one or of all.
pub async fn serve(op: &Op<'_>) -> Result<Response<Body>, Status> {
    let output = op.output()?;
    let name = op.info().name.as_str();
    // A list by name carries one too.
    if op.info().verb == "get" {
        let Some(known) = NAMES.into_iter().find(|known| *known == name) else {
            return Err(Status::not_found(&GroupResource::new("", "componentstatus"), name));
        };
        let doc = document(known, check(op.core, known).await);
        return one(op, &doc, output);
    }
    let options = ListOptions::parse(op.call.query, false)?;
    let offered = options.fields.check(&["metadata.name", "metadata.namespace"], None);
    offered.map_err(|error| Status::bad_request(error.to_string()))?;
    let none: &[(&str, &str)] = &[];
    let chosen = NAMES.into_iter().filter(|name| {
        options.labels.matches(none)
            && options.fields.matches(|field| Some(if field == "metadata.name" { name } else { "" }))
    });
    let mut docs = Vec::new();
    for name in chosen {
        docs.push(document(name, check(op.core, name).await));
    }
    many(op, docs, output)
}

/// How a component is; `Err` says what is wrong with it.
async fn check(core: &Core, name: &str) -> Result<(), String> {
    let component = match name {
        "controller-manager" => CONTROLLERS,
        "scheduler" => SCHEDULER,
        _ => {
            return match tokio::time::timeout(PROBE_TIMEOUT, core.store.revision()).await {
                Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
                Err(_) => Err("the store does not answer".to_owned()),
            };
        }
    };
    match core.components.of(component) {
        Some(State::Running) => Ok(()),
        Some(State::Ended(why)) => Err(why),
        None => Err("it does not run in the API server's process".to_owned()),
    }
}

fn document(name: &str, health: Result<(), String>) -> Doc {
    use f::component_condition as c;
    let mut condition = keelson_api::doc::Struct::new(t::COMPONENT_CONDITION);
    condition.set(c::TYPE, "Healthy");
    condition.set(c::STATUS, if health.is_ok() { "True" } else { "False" });
    match health {
        Ok(()) => condition.set(c::MESSAGE, "ok"),
        Err(why) => condition.set(c::MESSAGE, why.as_str()),
    };
    let mut doc = Doc::new(t::COMPONENT_STATUS);
    doc.gvk = Gvk::new("", "v1", "ComponentStatus");
    doc.meta_mut().set_name(name);
    doc.set(&[f::component_status::CONDITIONS], vec![Value::from(condition)]);
    doc
}

fn one(op: &Op<'_>, doc: &Doc, output: Output) -> Result<Response<Body>, Status> {
    match (output.shape, output.encoding) {
        (Shape::Whole, encoding) => op.answer_doc(StatusCode::OK, doc, encoding, output.pretty),
        (Shape::Metadata(version), Encoding::Protobuf) => {
            let partial = super::output::partial(version, &encoded(doc), 0)?;
            op.answer_doc(StatusCode::OK, &partial, Encoding::Protobuf, false)
        }
        (Shape::Metadata(version), encoding) => {
            let mut out = Vec::new();
            scan::push_metadata(&mut out, version, &encoded(doc), 0);
            op.json_or_yaml(StatusCode::OK, out, encoding, output.pretty)
        }
        (Shape::Table(version), encoding) => {
            table(op, std::slice::from_ref(doc), version, encoding, output.pretty)
        }
    }
}

fn many(op: &Op<'_>, docs: Vec<Doc>, output: Output) -> Result<Response<Body>, Status> {
    let version = match output.shape {
        Shape::Table(version) => return table(op, &docs, version, output.encoding, output.pretty),
        Shape::Metadata(version) => Some(version),
        Shape::Whole => None,
    };
    let (kind, api_version) = match version {
        None => ("ComponentStatusList", "v1".to_owned()),
        Some(version) => ("PartialObjectMetadataList", format!("meta.k8s.io/{version}")),
    };
    let mut items = Vec::with_capacity(docs.len());
    for doc in docs {
        items.push(match version {
            None => doc,
            Some(version) => super::output::partial(version, &encoded(&doc), 0)?,
        });
    }
    if output.encoding == Encoding::Protobuf {
        let mut body = Vec::new();
        for item in &items {
            let mut message = Vec::new();
            proto::encode_raw(item, &mut message).map_err(Status::internal)?;
            proto::put_item(&message, &mut body);
        }
        let mut out = Vec::new();
        proto::begin_list(&api_version, kind, proto::ListMeta::default(), body.len() as u64, &mut out);
        out.extend_from_slice(&body);
        proto::end_list(&mut out);
        return Ok(respond::bytes(StatusCode::OK, negotiate::PROTOBUF, out));
    }
    let mut out = Vec::with_capacity(1024);
    scan::push_type_meta(&mut out, &api_version, kind);
    out.extend_from_slice(b",\"metadata\":{},\"items\":[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        // As in upstream's list, whose items of metadata alone say what they are.
        let options = EncodeOptions { type_meta: version.is_some(), resource_version: true };
        json::encode_canonical(item, options, &mut out);
    }
    out.extend_from_slice(b"]}");
    op.json_or_yaml(StatusCode::OK, out, output.encoding, output.pretty)
}

fn table(
    op: &Op<'_>,
    docs: &[Doc],
    version: &'static str,
    encoding: Encoding,
    pretty: bool,
) -> Result<Response<Body>, Status> {
    let include = Include::parse(op.call.query)?;
    let rows = RowContext::of(op);
    let mut out = Vec::with_capacity(2048);
    push_head(&mut out, version, Meta { revision: 0, token: None, remaining: None }, Some(&rows.columns));
    for (index, doc) in docs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        rows.push(&mut out, doc, &encoded(doc), 0, version, include);
    }
    out.extend_from_slice(b"]}");
    op.json_or_yaml(StatusCode::OK, out, encoding, pretty)
}

fn encoded(doc: &Doc) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    json::encode_canonical(doc, EncodeOptions::STORED, &mut out);
    out
}
