//! RBAC's rules: what they match, and whether some cover others.

use super::{Attributes, quote};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// `rbac.authorization.k8s.io/v1` PolicyRule, fields in the order they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyRule {
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<String>,
}

/// A list that may be `null`, as roles without rules are written.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    Ok(<Option<Vec<T>> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

fn has(set: &[String], wanted: &str) -> bool {
    set.iter().any(|s| s == wanted)
}

fn has_or_all(set: &[String], wanted: &str) -> bool {
    set.iter().any(|s| s == "*" || s == wanted)
}

impl PolicyRule {
    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Attributes) -> bool {
        if !has_or_all(&self.verbs, &request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| url_covers(url, &request.path));
        }
        has_or_all(&self.api_groups, &request.api_group)
            && self.resources.iter().any(|r| resource_matches(r, &request.resource, &request.subresource))
            && (self.resource_names.is_empty() || has(&self.resource_names, &request.name))
    }

    /// As upstream's escalation errors print a rule.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quote_list(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }

    /// The rule as rules of one verb, one resource and one name each.
    fn atoms(&self) -> Vec<PolicyRule> {
        let mut atoms = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom = PolicyRule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..PolicyRule::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                    } else {
                        atoms.extend(
                            self.resource_names.iter().map(|name| PolicyRule {
                                resource_names: vec![name.clone()],
                                ..atom.clone()
                            }),
                        );
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            atoms.extend(self.verbs.iter().map(|verb| PolicyRule {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..PolicyRule::default()
            }));
        }
        atoms
    }

    fn covers_atom(&self, atom: &PolicyRule) -> bool {
        let all = |set: &[String], of: &[String]| has(set, "*") || of.iter().all(|x| has(set, x));
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|n| has(&self.resource_names, n)));
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|r| resource_covers(&self.resources, r))
            && names
            && atom
                .non_resource_urls
                .iter()
                .all(|u| self.non_resource_urls.iter().any(|own| url_covers(own, u)))
    }
}

/// A list as Go's `%q` prints it.
pub(super) fn quote_list(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|i| quote(i)).collect();
    format!("[{}]", items.join(" "))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if subresource.is_empty() {
        return rule == resource;
    }
    match rule.split_once('/') {
        Some((of, sub)) => sub == subresource && (of == "*" || of == resource),
        None => false,
    }
}

fn resource_covers(set: &[String], wanted: &str) -> bool {
    if has(set, "*") || has(set, wanted) {
        return true;
    }
    wanted.split_once('/').is_some_and(|(_, sub)| has(set, &format!("*/{sub}")))
}

fn url_covers(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

/// The parts of `wanted` that `owned` does not cover, as rules of one verb, resource and name.
pub fn covers(owned: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut missing = Vec::new();
    for rule in wanted {
        missing.extend(rule.atoms().into_iter().filter(|atom| !owned.iter().any(|o| o.covers_atom(atom))));
    }
    missing
}

/// Missing rights as upstream lists them: verbs of one resource together, sorted, one a line.
pub(super) fn describe(missing: Vec<PolicyRule>) -> String {
    let mut lines = BTreeSet::new();
    let mut simple: BTreeMap<(String, String, Vec<String>), PolicyRule> = BTreeMap::new();
    for rule in missing {
        let one =
            rule.api_groups.len() == 1 && rule.resources.len() == 1 && rule.non_resource_urls.is_empty();
        if !one {
            lines.insert(rule.compact());
            continue;
        }
        let key = (rule.api_groups[0].clone(), rule.resources[0].clone(), rule.resource_names.clone());
        match simple.get_mut(&key) {
            Some(known) => known.verbs.extend(rule.verbs),
            None => {
                simple.insert(key, rule);
            }
        }
    }
    lines.extend(simple.values().map(PolicyRule::compact));
    lines.into_iter().collect::<Vec<_>>().join("\n")
}
