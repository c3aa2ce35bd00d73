//! Which versions may run beside each other: upstream's version skew policy
//! (<https://kubernetes.io/releases/version-skew-policy/>). Pure.

use std::fmt;

/// A minor version of Kubernetes, such as 1.35.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor(pub u32, pub u32);

impl Minor {
    /// From `v1.35.0`, `1.35.2+more` or `1.35`.
    pub fn parse(text: &str) -> Option<Minor> {
        let mut numbers = text.trim().trim_start_matches('v').split(['.', '+', '-']);
        Some(Minor(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    }

    /// How many minors this one is above another; negative below it.
    fn above(self, other: Minor) -> i64 {
        (i64::from(self.0) - i64::from(other.0)) * 1000 + i64::from(self.1) - i64::from(other.1)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A kubelet may be so many minors older than an API server, and never newer.
const KUBELET_BEHIND: i64 = 3;

/// What runs in the cluster beside this machine, and on it.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The version of this machine's API server, or of the one that answers it.
    pub server: Option<Minor>,
    /// The other machines: name, version, and whether an API server runs there.
    pub others: Vec<(String, Minor, bool)>,
}

/// Why this machine may not go to `target`; each with what to do first.
pub fn problems(target: Minor, control_plane: bool, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(server) = seen.server {
        let step = target.above(server);
        if control_plane && step.abs() > 1 {
            let next = if step > 0 { server.1 + 1 } else { server.1.saturating_sub(1) };
            found.push(format!(
                "Kubernetes {server} runs here: a control plane moves by one minor version at a time. Take the package of {}.{next} \
                 first",
                server.0
            ));
        }
        if !control_plane && step > 0 {
            found.push(format!(
                "the API server is Kubernetes {server}: a node may not be newer. Upgrade the control planes to {target} first"
            ));
        }
        if !control_plane && -step > KUBELET_BEHIND {
            found.push(format!(
                "the API server is Kubernetes {server}: a node may be {KUBELET_BEHIND} minor versions older at most"
            ));
        }
    }
    for (name, version, serves) in seen.others.iter().filter(|_| control_plane) {
        let ahead = version.above(target);
        if *serves && ahead.abs() > 1 {
            found.push(format!(
                "the control plane on {name} is Kubernetes {version}: control planes may be one minor version apart. Bring \
                 {name} nearer to {target} first"
            ));
        } else if !serves && ahead > 0 {
            found.push(format!(
                "node {name} is Kubernetes {version}, newer than {target}. Run `keelson upgrade back` there first"
            ));
        } else if !serves && -ahead > KUBELET_BEHIND {
            found.push(format!(
                "node {name} is Kubernetes {version}, more than {KUBELET_BEHIND} minor versions older than {target}. Upgrade \
                 that node first"
            ));
        }
    }
    found
}

/// Why a machine of version `own` may not join a cluster whose API server is of version `server`.
pub fn join_problem(own: Minor, control_plane: bool, server: Minor) -> Option<String> {
    let above = own.above(server);
    let why = match control_plane {
        true if above.abs() > 1 => "control planes may be one minor version apart".to_owned(),
        false if above > 0 => "a node may not be newer".to_owned(),
        false if -above > KUBELET_BEHIND => {
            format!("a node may be {KUBELET_BEHIND} minor versions older at most")
        }
        _ => return None,
    };
    Some(format!(
        "this machine has Kubernetes {own}, the cluster's API server is {server}: {why}. Install the package of {server} here \
         first"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_written() {
        for (text, expected) in [
            ("v1.35.0", Some(Minor(1, 35))),
            ("v1.34.2+keelson.0.1.0", Some(Minor(1, 34))),
            ("1.36", Some(Minor(1, 36))),
            ("1.36-rc.1", Some(Minor(1, 36))),
            ("", None),
            ("v1", None),
            ("latest", None),
        ] {
            assert_eq!(Minor::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_skew_policy_holds() {
        // Target, control plane or worker, own server, others; words of each problem.
        let check =
            |target: u32, control_plane: bool, server: u32, others: &[(&str, u32, bool)], words: &[&str]| {
                let others = others
                    .iter()
                    .map(|(name, minor, serves)| ((*name).to_owned(), Minor(1, *minor), *serves));
                let seen = Seen { server: Some(Minor(1, server)), others: others.collect() };
                let found = problems(Minor(1, target), control_plane, &seen);
                assert_eq!(found.len(), words.len(), "{target} {server} {found:?}");
                for (problem, word) in found.iter().zip(words) {
                    assert!(problem.contains(word), "{problem}");
                }
            };
        check(35, true, 35, &[("w", 35, false), ("p", 35, true)], &[]);
        check(36, true, 35, &[("w", 33, false), ("p", 35, true), ("q", 36, true)], &[]);
        check(37, true, 35, &[], &["package of 1.36 first"]);
        check(33, true, 35, &[], &["package of 1.34 first"]);
        check(36, true, 35, &[("w", 32, false)], &["Upgrade that node first"]);
        check(34, true, 35, &[("w", 35, false)], &["node w is Kubernetes 1.35, newer than 1.34"]);
        check(36, true, 36, &[("p", 34, true)], &["Bring p nearer to 1.36"]);
        check(36, false, 35, &[], &["Upgrade the control planes to 1.36 first"]);
        check(35, false, 36, &[], &[]);
        check(32, false, 36, &[], &["3 minor versions older at most"]);
    }

    #[test]
    fn too_old_and_too_new_machines_do_not_join() {
        let check = |own: u32, control_plane: bool, server: u32, words: Option<&str>| {
            let found = join_problem(Minor(1, own), control_plane, Minor(1, server));
            match (&found, words) {
                (None, None) => {}
                (Some(found), Some(words)) => {
                    assert!(found.contains(words) && found.contains("Install the package"), "{found}");
                }
                _ => panic!("{own} {control_plane} {server}: {found:?}"),
            }
        };
        check(35, false, 35, None);
        check(35, false, 38, None);
        check(35, false, 39, Some("3 minor versions older at most"));
        check(35, false, 34, Some("a node may not be newer"));
        check(35, true, 36, None);
        check(35, true, 34, None);
        check(35, true, 37, Some("one minor version apart"));
    }
}
