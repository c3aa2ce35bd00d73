//! Namespace deletion: pods first, then everything else, then the namespace's finalizer.

mod content;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_client::ObjectKey;
use keelson_client::projections::SharedInformers;
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::discovery::{ApiResource, Discovery, Scope, verbs};
use serde_json::json;

use crate::kit::patch::diff_of;
use crate::kit::start::Base;
use crate::kit::worker::{Reconcile, chain};
use crate::kit::{ReconcileError, gone_is_fine, is_not_found};
use content::{Objects, Pages};

const FINALIZER: &str = "kubernetes";
/// How soon a namespace that still holds something is looked at again; a vanishing pod wakes it at once.
const AGAIN: Duration = Duration::from_secs(3);

struct Controller(Base);

/// The namespace controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "namespace-controller", shared, ctx);
    let queue = base.queue.clone();
    shared.namespaces.on_change(move |change| {
        if change.new.as_ref().is_some_and(|n| n.meta.deleted.is_some()) {
            queue.add(change.key.clone());
        }
    });
    let (queue, namespaces) = (base.queue.clone(), shared.namespaces.clone());
    shared.pods.on_change(move |change| {
        let key = ObjectKey::cluster(change.key.namespace.clone());
        if change.new.is_none() && namespaces.get(&key).is_some_and(|n| n.meta.deleted.is_some()) {
            queue.add(key);
        }
    });
    let controller = Arc::new(Controller(base.clone()));
    async move {
        let namespaces = base.shared.namespaces.clone();
        base.run(controller, 4, async move { namespaces.synced().await }).await;
    }
}

/// What a round of deletion found.
#[derive(Debug, Default)]
struct Findings {
    discovery_errors: Vec<String>,
    delete_errors: Vec<String>,
    /// Objects left by `resource.group`.
    remaining: BTreeMap<String, usize>,
    /// Objects left by finalizer.
    finalizers: BTreeMap<String, usize>,
}

/// A condition that is False while all is well: (reason, message) of a failure, and of its absence.
type Row = (&'static str, Option<(&'static str, String)>, (&'static str, &'static str));

/// What the findings mean, in upstream's words.
fn rows(findings: &Findings) -> [Row; 5] {
    let counted = |counts: &BTreeMap<String, usize>, of: &str| {
        counts
            .iter()
            .map(|(what, n)| format!("{what}{of}{n} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let failed = |errors: &[String], reason: &'static str, text: &dyn Fn(usize, String) -> String| {
        (!errors.is_empty()).then(|| (reason, text(errors.len(), errors.join(", "))))
    };
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            failed(&findings.discovery_errors, "DiscoveryFailed", &|n, text| {
                format!("Discovery failed for some groups, {n} failing: {text}")
            }),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            failed(&findings.delete_errors, "ContentDeletionFailed", &|n, text| {
                format!("Failed to delete all resource types, {n} remaining: {text}")
            }),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            (!findings.remaining.is_empty()).then(|| {
                let left = counted(&findings.remaining, " has ");
                ("SomeResourcesRemain", format!("Some resources are remaining: {left}"))
            }),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            (!findings.finalizers.is_empty()).then(|| {
                let left = counted(&findings.finalizers, " in ");
                (
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {left}"),
                )
            }),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ]
}

/// The conditions of a namespace that is going away; times move only with the status.
fn conditions(findings: &Findings, before: &[NamespaceCondition], now: Timestamp) -> Vec<NamespaceCondition> {
    let rows = rows(findings);
    let mut result: Vec<NamespaceCondition> =
        before.iter().filter(|c| !rows.iter().any(|row| row.0 == c.type_)).cloned().collect();
    for (kind, failure, fine) in rows {
        let (status, reason, message) = match failure {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine.0, fine.1.to_owned()),
        };
        let transition = before
            .iter()
            .find(|c| c.type_ == kind && c.status == status)
            .and_then(|c| c.last_transition_time.clone())
            .unwrap_or(Time(now));
        result.push(NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(transition),
        });
    }
    result
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let api: Api<Namespace> = Api::all(self.0.client.clone());
        // Deleting everything is not decided on a cache.
        let namespace = match api.get(&key.name).await {
            Ok(namespace) => namespace,
            Err(error) if is_not_found(&error) => return Ok(None),
            Err(error) => return Err(ReconcileError::api("read the namespace")(error)),
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(None);
        }
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(None);
        }
        let findings = self.delete_content(&key.name).await;
        let mut status = namespace.status.clone().unwrap_or_default();
        status.phase = Some("Terminating".to_owned());
        let before = status.conditions.take().unwrap_or_default();
        status.conditions = Some(conditions(&findings, &before, self.0.ctx.clock.now()));
        if let Some(patch) = diff_of(&namespace.status.clone().unwrap_or_default(), &status)? {
            let body = json!({"metadata": {"uid": namespace.metadata.uid}, "status": patch});
            gone_is_fine(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(body)).await)
                .map_err(ReconcileError::api("write the namespace's conditions"))?;
        }
        if !findings.remaining.is_empty() {
            return Ok(Some(AGAIN));
        }
        if !findings.delete_errors.is_empty() || !findings.discovery_errors.is_empty() {
            let text = findings
                .discovery_errors
                .into_iter()
                .chain(findings.delete_errors)
                .collect::<Vec<_>>()
                .join(", ");
            return Err(ReconcileError::Invalid(format!("content could not be deleted: {text}")));
        }
        self.finalize(&api, key, namespace, finalizers).await
    }

    async fn finalize(
        &self,
        api: &Api<Namespace>,
        key: &ObjectKey,
        namespace: Namespace,
        finalizers: Vec<String>,
    ) -> Result<Option<Duration>, ReconcileError> {
        let left: Vec<String> = finalizers.into_iter().filter(|f| f != FINALIZER).collect();
        // `finalize` takes a whole Namespace; the server keeps everything but the finalizers.
        let body = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": key.name, "uid": namespace.metadata.uid},
            "spec": {"finalizers": left},
        });
        let result = api
            .replace_subresource::<serde_json::Value>("finalize", &key.name, &PostParams::default(), &body)
            .await;
        gone_is_fine(result).map_err(ReconcileError::api("remove the namespace's finalizer"))?;
        Ok(None)
    }

    async fn delete_content(&self, namespace: &str) -> Findings {
        let mut findings = Findings::default();
        let discovery = match Discovery::new(self.0.client.clone()).run_aggregated().await {
            Ok(discovery) => discovery,
            Err(error) => {
                findings.discovery_errors.push(chain(&error));
                return findings;
            }
        };
        let mut resources = Vec::new();
        for group in discovery.groups() {
            for (resource, capabilities) in group.resources_by_stability() {
                let deletable = capabilities.supports_operation(verbs::DELETE)
                    && capabilities.supports_operation(verbs::LIST);
                if capabilities.scope == Scope::Namespaced && deletable {
                    resources.push((resource, capabilities.supports_operation(verbs::DELETE_COLLECTION)));
                }
            }
        }
        let is_pods = |resource: &ApiResource| resource.group.is_empty() && resource.plural == "pods";
        let (pods, others): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|(resource, _)| is_pods(resource));
        for (resource, collection) in pods {
            self.delete_all(namespace, &resource, collection, &mut findings).await;
        }
        // What pods use outlives them.
        if !findings.remaining.is_empty() || !findings.delete_errors.is_empty() {
            return findings;
        }
        for (resource, collection) in others {
            self.delete_all(namespace, &resource, collection, &mut findings).await;
        }
        findings
    }

    async fn delete_all(
        &self,
        namespace: &str,
        resource: &ApiResource,
        collection: bool,
        findings: &mut Findings,
    ) {
        let objects = Objects::new(self.0.client.clone(), namespace, resource);
        let name = if resource.group.is_empty() {
            format!("{}.", resource.plural)
        } else {
            format!("{}.{}", resource.plural, resource.group)
        };
        let result = async {
            let here = match objects.page(1, None).await {
                Ok(page) => page.items,
                // Not served (any more): nothing to delete.
                Err(error) if is_not_found(&error) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 405 => return Ok(()),
                Err(error) => return Err(error),
            };
            if here.is_empty() {
                return Ok(());
            }
            if collection {
                objects.delete_collection().await?;
            } else {
                let mut pages = Pages::Begin;
                while let Some(page) = objects.next(&mut pages).await? {
                    for object in &page {
                        objects.delete(object).await?;
                    }
                }
            }
            let mut pages = Pages::Begin;
            while let Some(page) = objects.next(&mut pages).await? {
                if !page.is_empty() {
                    *findings.remaining.entry(name.clone()).or_default() += page.len();
                }
                for finalizer in page.into_iter().flat_map(|object| object.0.metadata.finalizers).flatten() {
                    *findings.finalizers.entry(finalizer).or_default() += 1;
                }
            }
            Ok(())
        };
        if let Err(error) = result.await {
            findings.delete_errors.push(format!("{name}: {error}"));
        }
    }
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        self.sync(key).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_left() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let findings = Findings {
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("example.com/f".to_owned(), 1)].into(),
            ..Findings::default()
        };
        let all = conditions(&findings, &[], now);
        let text: Vec<String> = all
            .iter()
            .map(|c| {
                format!("{} {} {}", c.status, c.reason.as_deref().unwrap(), c.message.as_deref().unwrap())
            })
            .collect();
        assert_eq!(
            text,
            [
                "False ResourcesDiscovered All resources successfully discovered",
                "False ParsedGroupVersions All legacy kube types successfully parsed",
                "False ContentDeleted All content successfully deleted, may be waiting on finalization",
                "True SomeResourcesRemain Some resources are remaining: pods. has 2 resource instances",
                "True SomeFinalizersRemain Some content in the namespace has finalizers remaining: example.com/f in 1 resource instances",
            ]
        );
        let later = conditions(&findings, &all, "2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(later, all, "times move only with the status");
    }
}
