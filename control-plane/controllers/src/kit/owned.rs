//! What the owners of pods and revisions do alike: claim pods, keep revisions.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use keelson_client::projections::{HasMeta, Meta, PodView, Selector};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::claims::{adoption, owner_reference, plan as plan_claims, release};
use super::history::{self, Update};
use super::pods::delete_exactly;
use super::start::Base;
use super::{ReconcileError, gone_is_fine, is_already_exists, is_namespace_terminating, is_not_found};

/// An owner of type `K`.
pub struct Owner<'a, K> {
    pub base: &'a Base,
    pub meta: &'a Meta,
    kind: PhantomData<fn() -> K>,
}

impl<'a, K> Owner<'a, K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    /// The owner with this metadata.
    pub fn new(base: &'a Base, meta: &'a Meta) -> Self {
        Owner { base, meta, kind: PhantomData }
    }

    fn api(&self) -> Api<K> {
        Api::namespaced(self.base.client.clone(), &self.meta.namespace)
    }

    /// Asks the server, not the cache, whether the owner may still adopt.
    async fn still_lives(&self) -> Result<bool, ReconcileError> {
        match self.api().get_metadata(&self.meta.name).await {
            Ok(fresh) => Ok(fresh.metadata.uid.as_deref() == Some(&self.meta.uid)
                && fresh.metadata.deletion_timestamp.is_none()),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(ReconcileError::api("read the owner before adopting")(error)),
        }
    }

    /// The pods it owns that `candidate` accepts, after adopting and releasing.
    pub async fn claim_pods(
        &self,
        selector: &Selector,
        candidate: impl Fn(&PodView) -> bool,
    ) -> Result<Vec<Arc<PodView>>, ReconcileError> {
        let index = &self.base.shared.pod_index;
        let mut candidates = index.controlled_by(&self.meta.uid);
        candidates.extend(
            index.orphans(&self.meta.namespace, |p| selector.matches(&p.meta.labels) && candidate(p)),
        );
        let claims = plan_claims(&self.meta.uid, self.meta.deleted.is_some(), selector, candidates);
        let mut owned = claims.owned;
        let api: Api<Pod> = Api::namespaced(self.base.client.clone(), &self.meta.namespace);
        if !claims.adopt.is_empty() && self.still_lives().await? {
            let owner = owner_reference(&K::api_version(&()), &K::kind(&()), self.meta);
            for pod in claims.adopt {
                let patch = Patch::Strategic(adoption(&owner, &pod.meta));
                match api.patch(&pod.meta.name, &PatchParams::default(), &patch).await {
                    Ok(_) => owned.push(pod),
                    Err(error) if is_not_found(&error) => {}
                    Err(error) => return Err(ReconcileError::api("adopt a pod")(error)),
                }
            }
        }
        for pod in claims.release {
            let patch = Patch::Strategic(release(&self.meta.uid, &pod.meta));
            gone_is_fine(api.patch(&pod.meta.name, &PatchParams::default(), &patch).await)
                .map_err(ReconcileError::api("release a pod"))?;
        }
        Ok(owned)
    }

    fn revision_api(&self) -> Api<ControllerRevision> {
        Api::namespaced(self.base.client.clone(), &self.meta.namespace)
    }

    /// Its revisions as the cache holds them.
    pub fn revisions(&self) -> Result<Vec<ControllerRevision>, ReconcileError> {
        self.base
            .shared
            .controller_revisions
            .list_namespace(&self.meta.namespace)
            .iter()
            .filter(|(_, r)| r.meta().controller().is_some_and(|o| o.uid == self.meta.uid))
            .map(|(_, r)| r.unpack().map_err(Into::into))
            .collect()
    }

    /// The revision that holds `template`, made or renumbered if need be; `None` when nothing can be made here any more.
    pub async fn newest_revision(
        &self,
        template: &PodTemplateSpec,
        revisions: &[ControllerRevision],
        collisions: Option<i32>,
    ) -> Result<Option<ControllerRevision>, ReconcileError> {
        let api = self.revision_api();
        let revision = match history::update(self.meta, &K::kind(&()), template, revisions, collisions)? {
            Update::Current(revision) => return Ok(Some(*revision)),
            Update::Renumber(mut revision, number) => {
                let body = json!({"metadata": {"uid": revision.metadata.uid}, "revision": number});
                api.patch(history::name(&revision), &PatchParams::default(), &Patch::Merge(body))
                    .await
                    .map_err(ReconcileError::api("renumber a revision"))?;
                revision.revision = number;
                return Ok(Some(*revision));
            }
            Update::Create(revision) => revision,
        };
        match api.create(&PostParams::default(), &revision).await {
            Ok(made) => Ok(Some(made)),
            Err(error) if is_namespace_terminating(&error) => Ok(None),
            Err(error) if is_already_exists(&error) => {
                let there = api.get(history::name(&revision)).await;
                let there = there.map_err(ReconcileError::api("read the revision of the same name"))?;
                if history::holds(&there, template) {
                    return Err(ReconcileError::Stale("the revision exists"));
                }
                let body = json!({"metadata": {"uid": self.meta.uid}, "status": {"collisionCount": collisions.unwrap_or(0) + 1}});
                self.api()
                    .patch_status(&self.meta.name, &PatchParams::default(), &Patch::Merge(body))
                    .await
                    .map_err(ReconcileError::api("count a name collision"))?;
                Err(ReconcileError::Stale("the revision's name is taken"))
            }
            Err(error) => Err(ReconcileError::api("create a revision")(error)),
        }
    }

    /// Deletes unused revisions beyond the limit.
    pub async fn trim_revisions(
        &self,
        revisions: &[ControllerRevision],
        in_use: impl Fn(&ControllerRevision) -> bool,
        limit: Option<i32>,
    ) -> Result<(), ReconcileError> {
        for revision in history::surplus(revisions, in_use, limit) {
            let uid = revision.metadata.uid.as_deref().unwrap_or_default();
            gone_is_fine(self.revision_api().delete(history::name(revision), &delete_exactly(uid)).await)
                .map_err(ReconcileError::api("delete an old revision"))?;
        }
        Ok(())
    }

    /// Writes the status as a patch over the version it was computed from.
    pub async fn patch_status(&self, patch: serde_json::Value) -> Result<(), ReconcileError> {
        let body = json!({
            "metadata": {"uid": self.meta.uid, "resourceVersion": self.meta.resource_version.to_string()},
            "status": patch,
        });
        gone_is_fine(
            self.api().patch_status(&self.meta.name, &PatchParams::default(), &Patch::Merge(body)).await,
        )
        .map_err(ReconcileError::api("write the status"))
    }
}
