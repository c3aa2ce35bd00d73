//! POST pods/<name>/eviction: a deletion that respects disruption budgets (upstream: pod/storage/eviction.go).

use http::Response;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use keelson_api::doc::Doc;
use keelson_api::f::{core_v1 as f, policy_v1 as pf};
use keelson_api::selectors::LabelSelector;
use keelson_api::status::{Cause, GroupResource, Reason, Status};
use keelson_api::table::Subresource;
use keelson_api::types;

use super::modify::{Condition, modify, set_pod_condition};
use super::{MAX_ATTEMPTS, Op, cache_status, delete, read_body, subresource};
use crate::admission::Operation;
use crate::body::{Body, RequestBody};
use crate::cache::{ListQuery, ReadAt, Scope};
use crate::options::{DeleteOptions, WriteOptions};

/// More evictions than these wait for the budget's controller at once.
const MAX_DISRUPTED: usize = 2000;
const CAUSE: &str = "DisruptionBudget";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Serves an eviction.
pub async fn serve(op: &Op<'_>, sub: &Subresource, body: RequestBody) -> Result<Response<Body>, Status> {
    let write = WriteOptions::parse(op.call.query, op.call.headers, "CreateOptions", false)?;
    let body = read_body(body).await?;
    let eviction = op.decode_sub(sub, &body, &write)?;
    let name = op.info().name.clone();
    if eviction.meta().name() != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut options = match eviction.get(&[pf::eviction::DELETE_OPTIONS]) {
        None => DeleteOptions::default(),
        Some(value) => {
            let mut json = Vec::new();
            keelson_api::json::encode_value(value, &mut json);
            DeleteOptions::from_json(&json)?
        }
    };
    options.dry_run |= write.dry_run;
    let attributes = op.admission(Operation::Create, &name, "eviction", options.dry_run);
    op.core.admission.validate(Some(&eviction), None, &attributes)?;
    for attempt in 1.. {
        match evict(op, &name, &options, attempt > 1).await? {
            Evicted::Done => break,
            Evicted::Changed(conflict) if attempt == MAX_ATTEMPTS => return Err(conflict),
            Evicted::Changed(_) => {}
        }
    }
    let mut status = Status::success(None);
    status.code = 201;
    Ok(subresource::created(op, &status))
}

/// How one attempt ended.
enum Evicted {
    Done,
    /// The pod changed after it was looked at; the request does not say that it must not.
    Changed(Status),
}

async fn evict(op: &Op<'_>, name: &str, options: &DeleteOptions, newest: bool) -> Result<Evicted, Status> {
    let Some(pod) = op.load(name, newest).await? else { return Err(Status::not_found(&op.gr(), name)) };
    let phase = pod.doc.str(&[f::pod::STATUS, f::pod_status::PHASE]).to_owned();
    let over = matches!(phase.as_str(), "Succeeded" | "Failed") || pod.doc.meta().is_being_deleted();
    let pending = !over && phase == "Pending";
    let budget = match over || pending {
        true => None,
        false => consult_budget(op, &pod.doc, options.dry_run).await?,
    };
    let mut pinned = options.clone();
    // A pending pod, or one that is not ready, may become healthy meanwhile.
    let by_us = (pending || budget.is_some()) && options.resource_version.is_none();
    if by_us {
        pinned.resource_version = Some(pod.doc.meta().resource_version().to_owned());
    }
    match (remove(op, name, pinned).await, budget) {
        (Ok(()), _) => Ok(Evicted::Done),
        (Err(status), Some(budget)) if by_us && status.code == 409 => Err(still_processed(&budget)),
        (Err(status), None) if by_us && status.code == 409 => Ok(Evicted::Changed(status)),
        (Err(status), _) => Err(status),
    }
}

/// Marks the pod as disrupted, then deletes it.
async fn remove(op: &Op<'_>, name: &str, mut options: DeleteOptions) -> Result<(), Status> {
    if !options.dry_run {
        let expected = options.resource_version.clone();
        let uid = options.uid.clone();
        let written = modify(op, name, false, |pod| {
            delete::same_object(&op.gk(), name, uid.as_deref(), expected.as_deref(), pod)?;
            let condition = Condition {
                kind: "DisruptionTarget",
                status: "True",
                reason: "EvictionByEvictionAPI",
                message: "Eviction API: evicting",
            };
            set_pod_condition(pod, &condition, op.now);
            Ok(())
        })
        .await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(written.revision.to_string());
        }
    }
    delete::delete_one(op, name, &options).await.map(|_| ())
}

fn too_many(message: String, retry: i32) -> Status {
    Status::too_many_requests(REFUSED, retry).with_cause(Cause {
        reason: CAUSE.into(),
        message,
        field: String::new(),
    })
}

fn still_processed(budget: &str) -> Status {
    too_many(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

/// Takes one disruption from the pod's budget; the budget's name when the pod must not change until it is deleted.
async fn consult_budget(op: &Op<'_>, pod: &Doc, dry_run: bool) -> Result<Option<String>, Status> {
    let Some(row) = op.core.table.load().lookup("policy", "v1", "poddisruptionbudgets").cloned() else {
        return Ok(None);
    };
    let budgets = op.on(row);
    let query = ListQuery {
        scope: Scope::Namespace(op.namespace().into()),
        filter: None,
        limit: 0,
        after: None,
        at: ReadAt::Newest,
    };
    let all = budgets.cache.list(query).await.map_err(cache_status)?;
    let mut covering = Vec::new();
    for object in &all.objects {
        let budget: PodDisruptionBudget = match serde_json::from_slice(object.json()) {
            Ok(budget) => budget,
            Err(_) => continue,
        };
        if covers(&budget, pod) {
            covering.push((object.name().to_owned(), budget));
        }
    }
    let (name, budget) = match covering.len() {
        0 => return Ok(None),
        1 => covering.swap_remove(0),
        _ => {
            let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Status::other(500, Reason::Unknown, text));
        }
    };
    if !ready(pod) {
        let spec = budget.spec.as_ref();
        let always =
            spec.and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
        let status = budget.status.as_ref();
        let guarded = status.is_some_and(|status| {
            status.current_healthy >= status.desired_healthy && status.desired_healthy > 0
        });
        if always || guarded {
            return Ok(Some(name));
        }
    }
    let pod_name = pod.meta().name().to_owned();
    let namespace_gr = GroupResource::new("policy", "poddisruptionbudget");
    modify(&budgets, &name, dry_run, |doc| take_one(op, doc, &pod_name, &namespace_gr)).await?;
    Ok(None)
}

fn covers(budget: &PodDisruptionBudget, pod: &Doc) -> bool {
    let Some(selector) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    let Some(text) = super::scale::spec_text(selector) else { return false };
    let labels: Vec<(String, String)> = pod
        .meta()
        .labels()
        .into_iter()
        .flat_map(|labels| labels.str_pairs())
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    LabelSelector::parse(&text).is_ok_and(|selector| selector.matches(&labels))
}

fn ready(pod: &Doc) -> bool {
    use f::pod_condition as c;
    pod.list(&[f::pod::STATUS, f::pod_status::CONDITIONS])
        .iter()
        .filter_map(|condition| condition.as_struct())
        .any(|condition| condition.str(c::TYPE) == "Ready" && condition.str(c::STATUS) == "True")
}

/// Upstream's checkAndDecrement.
fn take_one(op: &Op<'_>, doc: &mut Doc, pod: &str, gr: &GroupResource) -> Result<(), Status> {
    use pf::pod_disruption_budget as b;
    use pf::pod_disruption_budget_status as s;
    let name = doc.meta().name().to_owned();
    if doc.int(&[b::STATUS, s::OBSERVED_GENERATION]).unwrap_or(0) < doc.meta().generation() {
        return Err(still_processed(&name));
    }
    let allowed = doc.int(&[b::STATUS, s::DISRUPTIONS_ALLOWED]).unwrap_or(0);
    if allowed < 0 {
        return Err(Status::forbidden(gr, &name, "pdb disruptions allowed is negative"));
    }
    if doc.map(&[b::STATUS, s::DISRUPTED_PODS]).is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return Err(Status::forbidden(
            gr,
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let desired = doc.int(&[b::STATUS, s::DESIRED_HEALTHY]).unwrap_or(0);
        let current = doc.int(&[b::STATUS, s::CURRENT_HEALTHY]).unwrap_or(0);
        let text = if current <= desired {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        } else {
            format!("The disruption budget {name} does not allow evicting pods currently")
        };
        return Err(too_many(text, 0));
    }
    doc.set(&[b::STATUS, s::DISRUPTIONS_ALLOWED], allowed - 1);
    if let Some(keelson_api::doc::Value::Map(pods)) = doc.entry(&[b::STATUS, s::DISRUPTED_PODS]) {
        pods.insert(pod, types::time_text(op.now));
    }
    Ok(())
}
