//! Keeps the rules of aggregated ClusterRoles those of the roles that their selectors choose, as upstream's
//! clusterrole-aggregation-controller and under its name. It stands here because it needs nothing but the roles, which
//! the authorizer follows anyway.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use keelson_api::status::Status;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tower::Service as _;

use crate::apiserver::LocalService;
use crate::authn::ClusterReads as _;
use crate::authz::{AggregationInput, PolicyRule, aggregate};
use crate::core::Core;
use crate::keys;
use crate::reads::CachedReads;

const GROUP: &str = "rbac.authorization.k8s.io";
const ROLES: &str = "clusterroles";
/// After a failed write; the next change of any role tries again too.
const RETRY: Duration = Duration::from_secs(10);

/// Runs until the server stops; wakes when a ClusterRole changes.
pub(crate) async fn run(core: Arc<Core>, mut service: LocalService) {
    let Some(mut changes) = core.followers.changes(&keys::prefix(GROUP, ROLES, false)) else { return };
    loop {
        changes.mark_unchanged();
        let mut failed = false;
        for (name, rules) in wanted(&core) {
            if let Err(status) = write(&mut service, &name, &rules).await {
                tracing::warn!(role = name, error = %status, "writing an aggregated role");
                failed = true;
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY), if failed => {}
        }
    }
}

fn wanted(core: &Core) -> Vec<(String, Vec<PolicyRule>)> {
    let reads = CachedReads { caches: core.caches.clone() };
    let roles: Vec<AggregationInput> = reads
        .list(GROUP, ROLES, "")
        .iter()
        .filter_map(|bytes| serde_json::from_slice(bytes).ok())
        .collect();
    aggregate(&roles)
}

async fn write(service: &mut LocalService, name: &str, rules: &[PolicyRule]) -> Result<(), Status> {
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(format!("/apis/{GROUP}/v1/{ROLES}/{name}"))
        .header("content-type", "application/merge-patch+json")
        .header("accept", "application/json")
        .body(Full::new(Bytes::from(json!({ "rules": rules }).to_string())))
        .map_err(Status::internal)?;
    let answer = service.call(request).await.map_err(Status::internal)?;
    let code = answer.status();
    // A role that went meanwhile needs no rules.
    if code.is_success() || code.as_u16() == 404 {
        return Ok(());
    }
    let body = answer.into_body().collect().await.map_err(Status::internal)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(Status::internal(body["message"].as_str().unwrap_or_default()))
}
