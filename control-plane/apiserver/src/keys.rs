//! Where objects lie in the store: `/registry/<prefix>/[<namespace>/]<name>`, with upstream's prefixes.

use keelson_api::table::Resource;

/// The first segment of all served keys.
pub const ROOT: &str = "/registry/";

/// The prefix of a resource's keys, with a trailing slash. Served versions of one resource share it, as do the two
/// groups that serve events.
pub fn prefix(group: &str, plural: &str, custom: bool) -> String {
    let rest = match (group, plural) {
        ("", "replicationcontrollers") => "controllers",
        ("", "endpoints") => "services/endpoints",
        ("", "services") => "services/specs",
        ("", "nodes") => "minions",
        ("networking.k8s.io", "ingresses") => "ingress",
        ("apiregistration.k8s.io" | "apiextensions.k8s.io", _) => return format!("{ROOT}{group}/{plural}/"),
        _ if custom => return format!("{ROOT}{group}/{plural}/"),
        _ => plural,
    };
    format!("{ROOT}{rest}/")
}

/// The prefix of a row.
pub fn row_prefix(row: &Resource) -> String {
    prefix(&row.group, &row.plural, row.ty.is_none())
}

/// The prefix of what a list or watch covers: all, or one namespace.
pub fn scope(row: &Resource, namespace: &str) -> String {
    let mut key = row_prefix(row);
    if row.namespaced && !namespace.is_empty() {
        key.push_str(namespace);
        key.push('/');
    }
    key
}

/// The key of one object.
pub fn object(row: &Resource, namespace: &str, name: &str) -> String {
    let mut key = scope(row, namespace);
    key.push_str(name);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_prefixes() {
        for (group, plural, custom, expected) in [
            ("", "pods", false, "/registry/pods/"),
            ("apps", "deployments", false, "/registry/deployments/"),
            ("", "services", false, "/registry/services/specs/"),
            ("", "endpoints", false, "/registry/services/endpoints/"),
            ("", "nodes", false, "/registry/minions/"),
            ("events.k8s.io", "events", false, "/registry/events/"),
            (
                "apiextensions.k8s.io",
                "customresourcedefinitions",
                false,
                "/registry/apiextensions.k8s.io/customresourcedefinitions/",
            ),
            ("example.com", "pods", true, "/registry/example.com/pods/"),
        ] {
            assert_eq!(prefix(group, plural, custom), expected);
        }
    }
}
