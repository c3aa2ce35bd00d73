//! Bringing bootstrap objects up to date at every start without taking away what administrators added.

use super::bootstrap::BootstrapObject;
use super::rule::{PolicyRule, covers};
use serde_json::{Map, Value, json};

/// What is to be done about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    Nothing,
    Create(Value),
    /// The existing object with what it lacked.
    Update(Value),
    /// The existing binding names another role, which cannot be changed: delete it, then create this.
    Recreate(Value),
}

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Compares what is stored (`None`: nothing) with what should be. Annotation
/// `rbac.authorization.kubernetes.io/autoupdate: "false"` keeps an object as it is; missing labels, annotations, rules,
/// aggregation selectors and subjects are added; nothing else is removed.
pub fn reconcile(existing: Option<&Value>, wanted: &BootstrapObject) -> Reconciled {
    let Some(existing) = existing else { return Reconciled::Create(wanted.object.clone()) };
    if existing["metadata"]["annotations"][AUTO_UPDATE] == "false" {
        return Reconciled::Nothing;
    }
    let is_binding = wanted.object.get("roleRef").is_some();
    if is_binding && !same_role(&existing["roleRef"], &wanted.object["roleRef"]) {
        return Reconciled::Recreate(wanted.object.clone());
    }
    let mut result = existing.clone();
    merge_map(&mut result, &wanted.object, "labels");
    merge_map(&mut result, &wanted.object, "annotations");
    if is_binding {
        add_subjects(&mut result, &wanted.object);
    } else {
        reconcile_role(&mut result, &wanted.object);
    }
    if result == *existing { Reconciled::Nothing } else { Reconciled::Update(result) }
}

fn same_role(a: &Value, b: &Value) -> bool {
    a["kind"] == b["kind"] && a["name"] == b["name"]
}

/// Wanted entries that are missing are added; existing ones win.
fn merge_map(result: &mut Value, wanted: &Value, field: &str) {
    let Some(meta) = result["metadata"].as_object_mut() else { return };
    let Some(entries) = wanted["metadata"][field].as_object() else { return };
    let map = meta.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if let Some(map) = map.as_object_mut() {
        for (key, value) in entries {
            map.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}

fn add_subjects(result: &mut Value, wanted: &Value) {
    let key = |s: &Value| {
        let text = |f: &str| s[f].as_str().unwrap_or_default().to_owned();
        (text("kind"), text("namespace"), text("name"))
    };
    let known: Vec<_> = list(result, "subjects").iter().map(key).collect();
    let missing: Vec<Value> =
        list(wanted, "subjects").iter().filter(|s| !known.contains(&key(s))).cloned().collect();
    append(result, "subjects", missing);
}

fn append(result: &mut Value, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match result[field].as_array_mut() {
        Some(list) => list.extend(items),
        None => result[field] = Value::Array(items),
    }
}

fn rules(object: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(object["rules"].clone()).unwrap_or_default()
}

fn reconcile_role(result: &mut Value, wanted: &Value) {
    let selectors = |object: &Value| list(&object["aggregationRule"], "clusterRoleSelectors").to_vec();
    let wanted_selectors = selectors(wanted);
    if wanted_selectors.is_empty() {
        if let Some(object) = result.as_object_mut() {
            object.remove("aggregationRule");
        }
        let missing = covers(&rules(result), &rules(wanted));
        append(result, "rules", missing.iter().map(|r| json!(r)).collect());
        return;
    }
    // The rules of an aggregated role are the aggregation's business.
    let known = selectors(result);
    let missing: Vec<Value> = wanted_selectors.into_iter().filter(|s| !known.contains(s)).collect();
    if !missing.is_empty() {
        if !result["aggregationRule"].is_object() {
            result["aggregationRule"] = json!({});
        }
        append(&mut result["aggregationRule"], "clusterRoleSelectors", missing);
    }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::objects;
    use super::*;

    fn wanted(name: &str, kind: super::super::PolicyKind) -> BootstrapObject {
        objects().into_iter().find(|o| o.name == name && o.kind == kind).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_and_what_was_added_stays() {
        use super::super::PolicyKind::{ClusterRole, ClusterRoleBinding};
        let role = wanted("system:heapster", ClusterRole);
        assert_eq!(reconcile(None, &role), Reconciled::Create(role.object.clone()));
        assert_eq!(reconcile(Some(&role.object), &role), Reconciled::Nothing);
        let mut changed = role.object.clone();
        changed["metadata"]["labels"] = json!({ "mine": "yes" });
        changed["rules"] = json!([
            { "verbs": ["get"], "apiGroups": [""], "resources": ["events", "pods", "nodes", "namespaces"] },
            { "verbs": ["delete"], "apiGroups": ["x"], "resources": ["y"] }
        ]);
        let Reconciled::Update(result) = reconcile(Some(&changed), &role) else { panic!() };
        assert_eq!(result["metadata"]["labels"]["mine"], "yes");
        assert_eq!(result["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        assert!(covers(&rules(&result), &rules(&role.object)).is_empty());
        assert!(rules(&result).iter().any(|r| r.api_groups == ["x"]));
        assert_eq!(reconcile(Some(&result), &role), Reconciled::Nothing, "a second pass has nothing to do");
        changed["metadata"]["annotations"] = json!({ AUTO_UPDATE: "false" });
        assert_eq!(reconcile(Some(&changed), &role), Reconciled::Nothing);

        let binding = wanted("system:discovery", ClusterRoleBinding);
        let mut other = binding.object.clone();
        other["subjects"] =
            json!([{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane" }]);
        let Reconciled::Update(result) = reconcile(Some(&other), &binding) else { panic!() };
        assert_eq!(list(&result, "subjects").len(), 2);
        other["roleRef"]["name"] = json!("edit");
        assert_eq!(reconcile(Some(&other), &binding), Reconciled::Recreate(binding.object.clone()));
    }

    #[test]
    fn aggregated_roles_keep_their_rules() {
        let admin = wanted("admin", super::super::PolicyKind::ClusterRole);
        let mut existing = admin.object.clone();
        existing["rules"] = json!([]);
        assert_eq!(reconcile(Some(&existing), &admin), Reconciled::Nothing);
        existing.as_object_mut().unwrap().remove("aggregationRule");
        let Reconciled::Update(result) = reconcile(Some(&existing), &admin) else { panic!() };
        assert_eq!(result["aggregationRule"], admin.object["aggregationRule"]);
    }
}
