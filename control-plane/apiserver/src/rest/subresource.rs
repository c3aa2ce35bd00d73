//! Subresources, and resources of which nothing is stored.

use http::{Response, StatusCode};
use keelson_api::doc::Doc;
use keelson_api::f::core_v1 as f;
use keelson_api::status::Status;
use keelson_api::table::Subresource;

use super::decode::{Expected, decode};
use super::modify::{Condition, modify, set_pod_condition};
use super::{Op, component_status, evict, read, read_body, review, scale, update};
use crate::admission::Operation;
use crate::body::{Body, RequestBody};
use crate::options::WriteOptions;
use crate::streaming;

/// Serves a request for a subresource.
pub async fn serve(
    op: &Op<'_>,
    parts: &http::request::Parts,
    body: RequestBody,
) -> Result<Response<Body>, Status> {
    let info = op.info();
    let row = op.row.clone();
    let Some(subresource) = row.subresource(&info.subresource) else {
        if row.custom.is_some() {
            return Err(Status::not_found(&op.gr(), &info.name));
        }
        return Err(Status::resource_not_found());
    };
    let name = info.subresource.as_str();
    if matches!(name, "exec" | "attach" | "portforward" | "proxy" | "log") {
        return streaming::serve(op, name, parts, body).await;
    }
    op.allow(subresource.verbs, info.verb)?;
    match (info.verb, name) {
        (_, "scale") => scale::serve(op, subresource, body).await,
        ("create", "binding") => bind(op, subresource, body, &info.name).await,
        ("create", "eviction") => evict::serve(op, subresource, body).await,
        ("create", "token") => review::token_request(op, subresource, body).await,
        ("get", _) => read::get(op).await,
        ("update", _) => update::put(op, name, body).await,
        ("patch", _) => update::patch(op, name, body).await,
        _ => Err(op.method_not_allowed()),
    }
}

/// Serves a request for a resource of which nothing is stored.
pub async fn virtual_resource(op: &Op<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let info = op.info();
    op.allow(op.row.verbs, info.verb)?;
    match (info.verb, op.row.group.as_str(), op.row.plural.as_str()) {
        ("create", "authentication.k8s.io" | "authorization.k8s.io", _) => review::create(op, body).await,
        ("create", "", "bindings") => {
            let pods = op
                .core
                .table
                .load()
                .lookup("", "v1", "pods")
                .cloned()
                .ok_or_else(Status::resource_not_found)?;
            let pods_op = op.on(pods);
            let sub = pods_op.row.subresource("binding").cloned().ok_or_else(Status::resource_not_found)?;
            bind(&pods_op, &sub, body, "").await
        }
        ("get" | "list", "", "componentstatuses") => component_status::serve(op).await,
        _ => Err(Status::not_implemented(format!("{} are not served yet", op.gr()))),
    }
}

impl Op<'_> {
    /// Reads a body as the subresource's kind.
    pub fn decode_sub(
        &self,
        subresource: &Subresource,
        body: &[u8],
        options: &WriteOptions,
    ) -> Result<Doc, Status> {
        let expected = Expected {
            ty: subresource.ty,
            group: &subresource.group,
            version: &subresource.version,
            kind: &subresource.kind,
            custom: if subresource.ty.is_none() { self.row.custom.as_deref() } else { None },
        };
        let (doc, warnings) = decode(self.call.headers, body, &expected, options.validation)?;
        self.call.warnings.extend(warnings);
        Ok(doc)
    }

    /// The same request on another row.
    pub fn on(&self, row: std::sync::Arc<keelson_api::table::Resource>) -> Op<'_> {
        let hub = self.core.hub(&row);
        Op {
            call: self.call,
            core: self.core,
            strategy: keelson_api::types::strategy(hub.ty),
            cache: self.core.cache(&row),
            hub,
            row,
            now: self.now,
        }
    }
}

/// POST pods/<name>/binding (and POST bindings): gives a pod its node, once.
async fn bind(
    op: &Op<'_>,
    subresource: &Subresource,
    body: RequestBody,
    name: &str,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(op.call.query, op.call.headers, "CreateOptions", false)?;
    let body = read_body(body).await?;
    let mut binding = op.decode_sub(subresource, &body, &options)?;
    if name.is_empty() {
        // The older way takes no preconditions.
        binding.meta_mut().set_uid("");
        binding.meta_mut().set_resource_version("");
    }
    let given = binding.meta().name().to_owned();
    let name = if name.is_empty() { given.as_str() } else { name };
    if given != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let attributes = op.admission(Operation::Create, name, "binding", options.dry_run);
    // Labels of the node's place come here, and from the binding to the pod.
    op.core.admission.mutate(&mut binding, None, &attributes)?;
    let target = [f::binding::TARGET];
    let kind = binding.get(&target).map_or("", |target| target.str_at(&[f::object_reference::KIND]));
    let node = binding.get(&target).map_or("", |target| target.str_at(&[f::object_reference::NAME]));
    if !matches!(kind, "" | "Node") {
        return Err(Status::bad_request(format!(
            "target.kind: Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""
        )));
    }
    if node.is_empty() {
        return Err(Status::bad_request("target.name: Required value"));
    }
    op.core.admission.validate(Some(&binding), None, &attributes)?;
    let change = |pod: &mut Doc| assign(op, pod, &binding, node);
    modify(op, name, options.dry_run, change).await?;
    let mut status = Status::success(None);
    status.code = 201;
    Ok(op.answer_status(&status))
}

fn assign(op: &Op<'_>, pod: &mut Doc, binding: &Doc, node: &str) -> Result<(), Status> {
    let refuse = |why: String| {
        Err(Status::conflict(
            &keelson_api::status::GroupResource::new("", "pods/binding"),
            binding.meta().name(),
            why,
        ))
    };
    let meta = pod.meta();
    let wanted = binding.meta();
    if !wanted.uid().is_empty() && wanted.uid() != meta.uid() {
        let text = format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            wanted.uid(),
            meta.uid()
        );
        return Err(Status::conflict(&op.gr(), wanted.name(), text));
    }
    if !wanted.resource_version().is_empty() && wanted.resource_version() != meta.resource_version() {
        return Err(Status::modified(&op.gr(), wanted.name()));
    }
    if meta.is_being_deleted() {
        return refuse(format!("pod {} is being deleted, cannot be assigned to a host", meta.name()));
    }
    let path = [f::pod::SPEC, f::pod_spec::NODE_NAME];
    let assigned = pod.str(&path);
    if !assigned.is_empty() {
        return refuse(format!("pod {} is already assigned to node {assigned:?}", meta.name()));
    }
    if !pod.list(&[f::pod::SPEC, f::pod_spec::SCHEDULING_GATES]).is_empty() {
        return refuse(format!("pod {} has non-empty .spec.schedulingGates", meta.name()));
    }
    pod.set(&path, node);
    pod.remove(&[f::pod::STATUS, f::pod_status::NOMINATED_NODE_NAME]);
    for (key, value) in binding.meta().annotations().into_iter().flat_map(|pairs| pairs.str_pairs()) {
        pod.meta_mut().set_annotation(key, value);
    }
    for (key, value) in binding.meta().labels().into_iter().flat_map(|pairs| pairs.str_pairs()) {
        pod.meta_mut().set_label(key, value);
    }
    set_pod_condition(
        pod,
        &Condition { kind: "PodScheduled", status: "True", reason: "", message: "" },
        op.now,
    );
    Ok(())
}

/// The answer of a POST that made nothing to show.
pub fn created(op: &Op<'_>, status: &Status) -> Response<Body> {
    let mut response = op.answer_status(status);
    *response.status_mut() = StatusCode::CREATED;
    response
}
