//! Removes requests that have had their time: an hour after they were issued, denied or failed, a day when nothing
//! became of them, and when the certificate has expired (upstream's times).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::{cached, is_issued};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine, is_conflict};

const SETTLED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

struct Controller(Base);

/// The cleaner; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "csrcleaner", shared, ctx);
    base.follow(&shared.certificate_requests);
    base.work(Controller, 1, |shared| async move { shared.certificate_requests.synced().await })
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "csrcleaner"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(request) = cached(&self.0.shared, key)? else { return Ok(None) };
        let deadline = deadline(&request);
        if deadline == i64::MAX {
            return Ok(None);
        }
        let left = deadline.saturating_sub(self.0.ctx.clock.now().as_second());
        if left > 0 {
            return Ok(Some(Duration::from_secs(left.unsigned_abs())));
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: request.metadata.uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<CertificateSigningRequest> = Api::all(self.0.client.clone());
        match gone_is_fine(api.delete(&key.name, &params).await) {
            Err(error) if is_conflict(&error) => Ok(None),
            other => other.map_err(ReconcileError::api("delete an old certificate request")).map(|()| None),
        }
    }
}

/// When the request goes, in seconds since 1970.
fn deadline(request: &CertificateSigningRequest) -> i64 {
    let created = request.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let conditions: Vec<_> =
        request.status.iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    let issued = is_issued(request);
    let mut deadlines: Vec<i64> = conditions
        .iter()
        .filter_map(|condition| {
            let since = condition.last_update_time.as_ref()?.0.as_second();
            match condition.type_.as_str() {
                "Approved" if issued => Some(since + SETTLED),
                "Approved" => Some(since + PENDING),
                "Denied" | "Failed" => Some(since + SETTLED),
                _ => None,
            }
        })
        .collect();
    if conditions.is_empty() {
        deadlines.push(created.as_second() + PENDING);
    }
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    let expiry = certificate.and_then(|pem| keelson_pki::validity(&String::from_utf8_lossy(&pem.0)).ok());
    if conditions.iter().any(|condition| condition.type_ == "Approved") {
        deadlines.extend(expiry.map(|(_, end)| end.as_second()));
    }
    // A request with conditions of other kinds alone stays.
    deadlines.into_iter().min().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn times_are_upstreams() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap().to_string();
        let check = |status: Value, expected: i64| {
            let request = serde_json::from_value(json!({
                "metadata": {"name": "r", "creationTimestamp": at(1000)},
                "spec": {"request": "", "signerName": "a.b/c", "usages": []}, "status": status}))
            .unwrap();
            assert_eq!(deadline(&request), expected);
        };
        let one =
            |kind: &str, time: i64| json!([{"type": kind, "status": "True", "lastUpdateTime": at(time)}]);
        check(json!({}), 1000 + PENDING);
        check(json!({"conditions": one("Denied", 2000)}), 2000 + SETTLED);
        check(json!({"conditions": one("Failed", 2000)}), 2000 + SETTLED);
        check(json!({"conditions": one("Approved", 2000)}), 2000 + PENDING);
        check(json!({"conditions": one("Approved", 2000), "certificate": "eA=="}), 2000 + SETTLED);
        check(json!({"conditions": one("Other", 2000)}), i64::MAX);
    }
}
