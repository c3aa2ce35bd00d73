//! Aggregated ClusterRoles: their rules are those of the roles that their selectors choose.

use super::rule::PolicyRule;
use keelson_api::selectors::{LabelSelector, Operator, Requirement};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What of a ClusterRole matters here; deserializes from its JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AggregationInput {
    pub metadata: AggregationMeta,
    #[serde(deserialize_with = "super::rule::nullable")]
    pub rules: Vec<PolicyRule>,
    pub aggregation_rule: Option<AggregationRule>,
}

/// See [`AggregationInput`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AggregationMeta {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// See [`AggregationInput`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AggregationRule {
    pub cluster_role_selectors: Vec<Selector>,
}

/// A `metav1.LabelSelector`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Selector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<Expression>,
}

/// See [`Selector`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Expression {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

impl Selector {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |e: &Expression| {
            let operator = match e.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                // A selector that cannot be understood chooses nothing.
                _ => return false,
            };
            Requirement::new(&e.key, operator, e.values.clone()).is_ok_and(|r| r.matches(labels))
        };
        LabelSelector::from_set(self.match_labels.clone()).matches(labels)
            && self.match_expressions.iter().all(expression)
    }
}

/// The rules that each aggregated role should have, where they differ from those it has.
pub fn aggregate(roles: &[AggregationInput]) -> Vec<(String, Vec<PolicyRule>)> {
    let mut sorted: Vec<&AggregationInput> = roles.iter().collect();
    sorted.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut changed = Vec::new();
    for role in &sorted {
        let Some(aggregation) = &role.aggregation_rule else { continue };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in &aggregation.cluster_role_selectors {
            let chosen = sorted.iter().filter(|r| r.metadata.name != role.metadata.name);
            for rule in chosen.filter(|r| selector.matches(&r.metadata.labels)).flat_map(|r| &r.rules) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if rules != role.rules {
            changed.push((role.metadata.name.clone(), rules));
        }
    }
    changed
}
