//! Approves what [`super::rules`] recognises and the requester may have.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use keelson_base::consts::identity;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use keelson_pki::CsrInfo;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::rules::{self, Recognized, Request};
use super::{cached, has, is_issued, parsed};
use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine};

struct Controller(Base);

/// The approver; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "csrapproving", shared, ctx);
    base.follow(&shared.certificate_requests);
    base.work(Controller, 1, |shared| async move { shared.certificate_requests.synced().await })
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "csrapproving"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(request) = cached(&self.0.shared, key)? else { return Ok(None) };
        if is_issued(&request) || has(&request, "Approved") || has(&request, "Denied") {
            return Ok(None);
        }
        let csr = parsed(&request)?;
        let usages = request.spec.usages.clone().unwrap_or_default();
        let username = request.spec.username.as_deref().unwrap_or_default();
        let view = Request { signer: &request.spec.signer_name, username, usages: &usages, csr: &csr };
        let ways = rules::recognize(view);
        for way in &ways {
            if *way == Recognized::NodeServing && !self.names_are_the_nodes(&csr).await? {
                let why =
                    "a kubelet asks for a serving certificate with names that its Node does not have (yet)";
                return Err(ReconcileError::Invalid(why.into()));
            }
            if self.allowed(&request, way.subresource()).await? {
                return self.approve(&request, *way).await.map(|()| None);
            }
        }
        if !ways.is_empty() {
            tracing::info!(object = %key, user = username, "certificate request recognised, but its user may not have it");
        }
        Ok(None)
    }
}

impl Controller {
    /// Asks the API server, not a cache: the Node may have been registered a moment ago.
    async fn names_are_the_nodes(&self, csr: &CsrInfo) -> Result<bool, ReconcileError> {
        let Some(name) = csr.common_name.strip_prefix(identity::NODE_USER_PREFIX) else { return Ok(false) };
        let nodes: Api<Node> = Api::all(self.0.client.clone());
        let node = nodes.get_opt(name).await.map_err(ReconcileError::api("read the node"))?;
        let status = node.and_then(|node| node.status).unwrap_or_default();
        let known: Vec<String> = status.addresses.into_iter().flatten().map(|a| a.address).collect();
        Ok(rules::names_are_of(csr, name, &known))
    }

    async fn allowed(
        &self,
        request: &CertificateSigningRequest,
        subresource: &str,
    ) -> Result<bool, ReconcileError> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: request.spec.username.clone(),
                uid: request.spec.uid.clone(),
                groups: request.spec.groups.clone(),
                extra: request.spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    verb: Some("create".into()),
                    subresource: Some(subresource.into()),
                    version: Some("*".into()),
                    ..ResourceAttributes::default()
                }),
                non_resource_attributes: None,
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.0.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(ReconcileError::api("review the requester's access"))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(
        &self,
        request: &CertificateSigningRequest,
        way: Recognized,
    ) -> Result<(), ReconcileError> {
        let mut conditions: Vec<_> =
            request.status.iter().flat_map(|s| s.conditions.iter().flatten()).map(|c| json!(c)).collect();
        conditions.push(json!({
            "type": "Approved", "status": "True", "reason": "AutoApproved", "message": way.message()}));
        // The version read goes along: a denial in between wins.
        let patch = json!({
            "metadata": {"resourceVersion": request.metadata.resource_version},
            "status": {"conditions": conditions}});
        let api: Api<CertificateSigningRequest> = Api::all(self.0.client.clone());
        let name = request.metadata.name.as_deref().unwrap_or_default();
        gone_is_fine(api.patch_approval(name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("approve a certificate request"))
    }
}
