//! What a bundle must hold: the images that its manifests name and the cluster itself needs, and the packages that its
//! packages need. Pure.

use crate::watched::archive::whole;
use serde_json::Value;
use std::collections::BTreeSet;

/// The images that an object's containers name, by their whole names.
pub fn images(object: &Value, into: &mut BTreeSet<String>) {
    const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];
    match object {
        Value::Object(fields) => {
            for (name, value) in fields {
                if CONTAINERS.contains(&name.as_str()) {
                    let named =
                        value.as_array().into_iter().flatten().filter_map(|one| one.get("image")?.as_str());
                    into.extend(named.filter(|image| !image.is_empty()).map(whole));
                }
                // Volumes of images.
                if name == "image"
                    && let Some(reference) = value.get("reference").and_then(Value::as_str)
                {
                    into.insert(whole(reference));
                }
                images(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| images(item, into)),
        _ => {}
    }
}

/// What a package file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// Depends and Pre-Depends, as Debian writes them.
    pub depends: String,
    pub provides: String,
}

/// Dependencies that none of the packages meets: each as `package needs this`. `base` says whether a machine has a package
/// of a name in any case; `holds` whether one version stands in a relation to another.
pub fn unmet(
    packages: &[Package],
    base: impl Fn(&str) -> bool,
    holds: impl Fn(&str, &str, &str) -> bool,
) -> Vec<String> {
    let meets = |wanted: &str| {
        let (name, relation) = split(wanted);
        if base(name) {
            return true;
        }
        packages.iter().any(|package| {
            let own = package.name == name
                && relation.is_none_or(|(how, version)| holds(&package.version, how, version));
            own || package.provides.split(',').any(|one| {
                let (provided, version) = split(one);
                provided == name
                    && relation
                        .is_none_or(|(how, wanted)| version.is_some_and(|(_, has)| holds(has, how, wanted)))
            })
        })
    };
    let mut found = Vec::new();
    for package in packages {
        for wanted in package.depends.split(',').map(str::trim).filter(|wanted| !wanted.is_empty()) {
            if !wanted.split('|').any(|one| meets(one.trim())) {
                found.push(format!("{} needs {wanted}", package.name));
            }
        }
    }
    found
}

/// `name:any (>= 1.2)` as name, relation and version.
fn split(text: &str) -> (&str, Option<(&str, &str)>) {
    let text = text.trim();
    let (name, rest) = text.split_once('(').map_or((text, None), |(name, rest)| (name, Some(rest)));
    let name = name.trim().split(':').next().unwrap_or_default();
    let relation = rest.and_then(|rest| rest.trim_end_matches(')').trim().split_once(' '));
    (name, relation.map(|(how, version)| (how, version.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_container_of_every_kind_is_seen() {
        let objects = json!([
            {"kind": "Pod", "spec": {"containers": [{"image": "a"}], "initContainers": [{"image": "b.c/d:1"}],
                "volumes": [{"image": {"reference": "files:1"}}]}},
            {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "e:2"}, {"name": "x"}]}}}}}},
            {"kind": "ConfigMap", "data": {"image": "not/one"}},
        ]);
        let mut found = BTreeSet::new();
        images(&objects, &mut found);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(
            found,
            ["b.c/d:1", "docker.io/library/a:latest", "docker.io/library/e:2", "docker.io/library/files:1"]
        );
    }

    #[test]
    fn dependencies_are_met_by_packages_provisions_or_the_machine() {
        let package = |name: &str, version: &str, depends: &str, provides: &str| Package {
            name: name.into(),
            version: version.into(),
            depends: depends.into(),
            provides: provides.into(),
        };
        let base = |name: &str| name == "libc6";
        let holds = |has: &str, how: &str, wanted: &str| how == ">=" && has >= wanted;
        let mut packages = vec![
            package("keelson", "1", "libc6 (>= 9), containerd (>= 1.6) | containerd.io (>= 1.6), kmod", ""),
            package("containerd", "1.7", "runc:any (>= 1.1), tool", ""),
            package("kmod", "1", "", "tool (= 3), odd"),
        ];
        assert_eq!(unmet(&packages, base, holds), ["containerd needs runc:any (>= 1.1)"]);
        packages.push(package("runc", "1.0", "odd (>= 2)", ""));
        assert_eq!(
            unmet(&packages, base, holds),
            ["containerd needs runc:any (>= 1.1)", "runc needs odd (>= 2)"]
        );
        packages[3] = package("runc", "1.1", "odd", "");
        assert_eq!(unmet(&packages, base, holds), Vec::<String>::new());
    }
}
