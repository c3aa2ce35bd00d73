use super::*;
use std::collections::BTreeSet;

/// The facts of upstream's own test data for these objects (its 1.36 tree, without what 1.36 and the fork it is read
/// from added), one a line.
const UPSTREAM: &str = include_str!("bootstrap/testdata/upstream_facts.txt");

fn words(value: &Value) -> String {
    let mut list: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    list.sort_unstable();
    list.iter().map(|w| if w.is_empty() { "core" } else { w }).collect::<Vec<_>>().join(" ")
}

fn facts(object: &BootstrapObject) -> Vec<String> {
    let value = &object.object;
    let place = if object.namespace.is_empty() { String::new() } else { format!("{}/", object.namespace) };
    let head = format!("{} {place}{}", object.kind.kind(), object.name);
    assert_eq!(value["metadata"]["annotations"], json!({ AUTO_UPDATE: "true" }), "{head}");
    assert_eq!(value["metadata"]["name"], object.name.as_str());
    let mut facts = vec![head.clone()];
    for (key, label) in value["metadata"]["labels"].as_object().unwrap() {
        if key != "kubernetes.io/bootstrapping" {
            facts.push(format!("{head} label {key}={}", label.as_str().unwrap()));
        }
    }
    if let Some(role) = value.get("roleRef") {
        facts.push(format!(
            "{head} ref {} {}",
            role["kind"].as_str().unwrap(),
            role["name"].as_str().unwrap()
        ));
        for subject in value["subjects"].as_array().into_iter().flatten() {
            let kind = subject["kind"].as_str().unwrap();
            let place = subject["namespace"].as_str().map(|n| format!("{n}/")).unwrap_or_default();
            facts.push(format!("{head} subject {kind}:{place}{}", subject["name"].as_str().unwrap()));
        }
        return facts;
    }
    if let Some(aggregation) = value.get("aggregationRule") {
        for selector in aggregation["clusterRoleSelectors"].as_array().unwrap() {
            for (key, label) in selector["matchLabels"].as_object().unwrap() {
                facts.push(format!("{head} aggregates {key}={}", label.as_str().unwrap()));
            }
        }
        return facts;
    }
    for rule in value["rules"].as_array().unwrap() {
        let verbs = words(&rule["verbs"]);
        if rule.get("nonResourceURLs").is_some() {
            facts.push(format!("{head} rule {verbs} url {}", words(&rule["nonResourceURLs"])));
            continue;
        }
        let mut fact =
            format!("{head} rule {verbs} on {} of {}", words(&rule["resources"]), words(&rule["apiGroups"]));
        if rule.get("resourceNames").is_some() {
            fact.push_str(&format!(" named {}", words(&rule["resourceNames"])));
        }
        facts.push(fact);
    }
    facts
}

/// Ours, or what kubeadm adds to upstream's.
fn own(name: &str) -> bool {
    name.starts_with("keelson:") || name.starts_with("kubeadm:")
}

#[test]
fn the_table_is_upstreams_and_our_own_bindings() {
    let ours: BTreeSet<String> = objects().iter().filter(|o| !own(&o.name)).flat_map(facts).collect();
    let upstream: BTreeSet<String> = UPSTREAM.lines().map(str::to_owned).collect();
    let extra: Vec<_> = ours.difference(&upstream).collect();
    let missing: Vec<_> = upstream.difference(&ours).collect();
    assert!(extra.is_empty() && missing.is_empty(), "not upstream's: {extra:#?}\nmissing: {missing:#?}");
}

#[test]
fn every_binding_names_a_role_that_exists_and_no_name_comes_twice() {
    let all = objects();
    let mut seen = BTreeSet::new();
    for object in &all {
        assert!(seen.insert((object.kind, object.namespace.clone(), object.name.clone())), "{}", object.name);
        let Some(role) = object.object.get("roleRef") else { continue };
        let namespace = if role["kind"] == "Role" { object.namespace.as_str() } else { "" };
        let found = all
            .iter()
            .any(|o| o.object["kind"] == role["kind"] && o.namespace == namespace && o.name == role["name"]);
        assert!(found, "{} refers to {role}", object.name);
    }
    let masters: Vec<_> = all.iter().filter(|o| o.object.to_string().contains("system:masters")).collect();
    assert_eq!(masters.len(), 1, "only cluster-admin's own binding");
}

#[test]
fn aggregated_roles_come_filled() {
    let all = objects();
    let rules = |name: &str| -> Vec<PolicyRule> {
        let found = all.iter().find(|o| o.name == name && o.kind == PolicyKind::ClusterRole).unwrap();
        serde_json::from_value(found.object["rules"].clone()).unwrap()
    };
    let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
    assert!(!view.is_empty() && view.len() < edit.len() && edit.len() < admin.len());
    assert!(super::super::covers(&edit, &view).is_empty());
    assert!(super::super::covers(&admin, &edit).is_empty());
    assert!(!super::super::covers(&view, &edit).is_empty());
}
