//! Aggregated ClusterRoles: the rules of all roles their selectors pick.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use keelson_client::ObjectKey;
use keelson_client::projections::{Selector, SharedInformers};
use keelson_daemon::Context;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::kit::start::Base;
use crate::kit::worker::Reconcile;
use crate::kit::{ReconcileError, gone_is_fine};

struct Controller(Base);

/// The aggregation controller; the future ends with the drain.
pub fn start(
    client: kube::Client,
    shared: &SharedInformers,
    ctx: &Context,
) -> impl Future<Output = ()> + use<> {
    let base = Base::new(client, "clusterrole-aggregation-controller", shared, ctx);
    let (queue, roles) = (base.queue.clone(), shared.cluster_roles.clone());
    shared.cluster_roles.on_change(move |_| {
        roles.for_each(|key, role| {
            // Reading the whole role is what a rare change costs.
            if role.unpack().is_ok_and(|r| r.aggregation_rule.is_some()) {
                queue.add(key.clone());
            }
        });
    });
    base.work(Controller, 1, |shared| async move { shared.cluster_roles.synced().await })
}

/// The rules of an aggregated role, in the order of the roles' names; `None` when they are as they should be.
fn aggregate(role: &ClusterRole, all: &[ClusterRole]) -> Result<Option<Vec<PolicyRule>>, ReconcileError> {
    let Some(rule) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        let selector = Selector::from_label_selector(Some(selector))
            .map_err(|e| ReconcileError::Invalid(e.to_string()))?;
        for other in all {
            let selected = other.metadata.labels.as_ref().is_some_and(|labels| selector.matches(labels));
            if !selected || other.metadata.name == role.metadata.name {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Ok((role.rules.clone().unwrap_or_default() != rules).then_some(rules))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Option<Duration>, ReconcileError> {
        let Some(packed) = self.0.shared.cluster_roles.get(key) else { return Ok(None) };
        let role = packed.unpack()?;
        let all: Result<Vec<ClusterRole>, _> =
            self.0.shared.cluster_roles.list().iter().map(|r| r.unpack()).collect();
        let Some(rules) = aggregate(&role, &all?)? else { return Ok(None) };
        let api: Api<ClusterRole> = Api::all(self.0.client.clone());
        let patch = json!({"metadata": {"uid": role.metadata.uid}, "rules": rules});
        gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)
            .map_err(ReconcileError::api("write the aggregated rules"))?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_joined_once_in_name_order() {
        let role = |name: &str, label: Option<&str>, verb: &str| -> ClusterRole {
            serde_json::from_value(
                json!({"metadata": {"name": name, "labels": label.map(|l| json!({l: "true"}))},
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]}),
            )
            .unwrap()
        };
        let all = [
            role("a", Some("to-admin"), "get"),
            role("b", Some("to-admin"), "list"),
            role("c", Some("to-admin"), "get"),
            role("d", None, "delete"),
        ];
        let mut admin: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "admin"},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-admin": "true"}}]}}))
        .unwrap();
        let rules = aggregate(&admin, &all).unwrap().unwrap();
        let verbs: Vec<_> = rules.iter().map(|r| r.verbs[0].clone()).collect();
        assert_eq!(verbs, ["get", "list"]);
        admin.rules = Some(rules);
        assert_eq!(aggregate(&admin, &all).unwrap(), None);
    }
}
