//! Who owns whom. Pure: takes in what watches say, answers with whom to look at.

use ahash::{AHashMap, AHashSet};
use keelson_client::projections::{Meta, Owner};

pub type Uid = Box<str>;

/// `foregroundDeletion`: the object goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// `orphan`: its dependents stay.
pub const ORPHAN: &str = "orphan";

/// Where an object is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `group/version` or `version`.
    pub api_version: Box<str>,
    pub kind: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

/// One object; `observed` is false while only a reference to it was seen.
#[derive(Clone, Debug)]
pub struct Node {
    pub identity: Identity,
    pub observed: bool,
    pub owners: Box<[Owner]>,
    pub dependents: AHashSet<Uid>,
    pub deleting: bool,
    pub deleting_dependents: bool,
    orphaning: bool,
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// Should this object go?
    Delete(Uid),
    /// Its dependents are to be orphaned.
    Orphan(Uid),
}

/// All objects that own or are owned; pods that neither own nor are owned are left out (there are many).
#[derive(Default)]
pub struct Graph {
    nodes: AHashMap<Uid, Node>,
}

impl Graph {
    /// A node.
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// How many objects are held.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// An object as a watch (or a read) shows it.
    pub fn observe(&mut self, api_version: &str, kind: &str, meta: &Meta) -> Vec<Wake> {
        let mut wakes = Vec::new();
        let deleting = meta.deleted.is_some();
        let deleting_dependents = deleting && meta.has_finalizer(FOREGROUND);
        let orphaning = deleting && meta.has_finalizer(ORPHAN);
        let known = self.nodes.contains_key(&meta.uid);
        let lonely_pod = kind == "Pod" && meta.owners.is_empty() && !deleting_dependents && !orphaning;
        if !known && lonely_pod {
            return wakes;
        }
        let identity = Identity {
            api_version: api_version.into(),
            kind: kind.into(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
        };
        let before = match self.nodes.get_mut(&meta.uid) {
            Some(node) => {
                let before = (node.owners.clone(), node.deleting_dependents, node.orphaning);
                node.identity = identity;
                node.observed = true;
                node.owners = meta.owners.clone();
                node.deleting = deleting;
                node.deleting_dependents = deleting_dependents;
                node.orphaning = orphaning;
                before
            }
            None => {
                let node = Node {
                    identity,
                    observed: true,
                    owners: meta.owners.clone(),
                    dependents: AHashSet::new(),
                    deleting,
                    deleting_dependents,
                    orphaning,
                };
                self.nodes.insert(meta.uid.clone(), node);
                (Box::default(), false, false)
            }
        };
        if before.0 != meta.owners {
            self.relink(meta, &before.0, &mut wakes);
        }
        if deleting_dependents && !before.1 {
            wakes.push(Wake::Delete(meta.uid.clone()));
            if let Some(node) = self.nodes.get(&meta.uid) {
                wakes.extend(node.dependents.iter().cloned().map(Wake::Delete));
            }
        }
        if orphaning && !before.2 {
            wakes.push(Wake::Orphan(meta.uid.clone()));
        }
        wakes
    }

    fn relink(&mut self, meta: &Meta, before: &[Owner], wakes: &mut Vec<Wake>) {
        for owner in before {
            let now = meta.owners.iter().find(|o| o.uid == owner.uid);
            let Some(node) = self.nodes.get_mut(&owner.uid) else { continue };
            if now.is_none() {
                node.dependents.remove(&meta.uid);
            }
            // It no longer blocks: its owner may be free to go.
            let unblocked = owner.block_owner_deletion && now.is_none_or(|o| !o.block_owner_deletion);
            if unblocked && node.deleting_dependents {
                wakes.push(Wake::Delete(owner.uid.clone()));
            }
            let unused = !node.observed && node.dependents.is_empty();
            if unused {
                self.nodes.remove(&owner.uid);
            }
        }
        if before.iter().any(|owner| meta.owners.iter().all(|o| o.uid != owner.uid))
            && !meta.owners.is_empty()
        {
            wakes.push(Wake::Delete(meta.uid.clone()));
        }
        for owner in &meta.owners {
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                // Never seen: the server is asked whether it is there.
                wakes.push(Wake::Delete(owner.uid.clone()));
                Node {
                    identity: Identity {
                        api_version: owner.api_version.clone(),
                        kind: owner.kind.clone(),
                        namespace: meta.namespace.clone(),
                        name: owner.name.clone(),
                    },
                    observed: false,
                    owners: Box::default(),
                    dependents: AHashSet::new(),
                    deleting: false,
                    deleting_dependents: false,
                    orphaning: false,
                }
            });
            node.dependents.insert(meta.uid.clone());
            if node.deleting_dependents {
                wakes.push(Wake::Delete(meta.uid.clone()));
            }
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> Vec<Wake> {
        let mut wakes = Vec::new();
        let Some(node) = self.nodes.remove(uid) else { return wakes };
        for owner in &node.owners {
            let Some(above) = self.nodes.get_mut(&owner.uid) else { continue };
            above.dependents.remove(uid);
            if above.deleting_dependents {
                wakes.push(Wake::Delete(owner.uid.clone()));
            }
            if !above.observed && above.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
            }
        }
        wakes.extend(node.dependents.into_iter().map(Wake::Delete));
        wakes.sort();
        wakes
    }

    /// The dependents that hold the object's deletion up.
    pub fn blocking(&self, uid: &str) -> Vec<Uid> {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|n| &n.dependents);
        dependents
            .filter(|dependent| {
                self.nodes
                    .get(*dependent)
                    .is_some_and(|node| node.owners.iter().any(|o| &*o.uid == uid && o.block_owner_deletion))
            })
            .cloned()
            .collect()
    }

    /// The dependents of an object.
    pub fn dependents(&self, uid: &str) -> Vec<Uid> {
        self.nodes.get(uid).map(|n| n.dependents.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(uid: &str, owners: &[(&str, bool)], extra: Value) -> Meta {
        let owners: Vec<Value> = owners
            .iter()
            .map(|(uid, block)| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "blockOwnerDeletion": block}))
            .collect();
        let mut json = json!({"namespace": "ns", "name": uid, "uid": uid, "ownerReferences": owners});
        for (key, value) in extra.as_object().unwrap() {
            json[key] = value.clone();
        }
        Meta::new(&serde_json::from_value(json).unwrap())
    }

    fn text(mut wakes: Vec<Wake>) -> String {
        wakes.sort();
        let short = |w: &Wake| match w {
            Wake::Delete(uid) => uid.to_string(),
            Wake::Orphan(uid) => format!("orphan {uid}"),
        };
        wakes.iter().map(short).collect::<Vec<_>>().join(" ")
    }

    fn deleting(finalizer: &str) -> Value {
        json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [finalizer]})
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        assert_eq!(text(graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], json!({})))), "");
        assert_eq!(text(graph.observe("v1", "Pod", &meta("p1", &[("rs", true)], json!({})))), "");
        assert_eq!(text(graph.observe("v1", "Pod", &meta("p2", &[("rs", true)], json!({})))), "");
        assert_eq!(text(graph.remove("rs")), "p1 p2");
    }

    #[test]
    fn an_owner_never_seen_is_asked_for() {
        let mut graph = Graph::default();
        assert_eq!(text(graph.observe("v1", "Pod", &meta("p", &[("x", true)], json!({})))), "x");
        assert!(!graph.get("x").unwrap().observed);
        assert_eq!(text(graph.remove("x")), "p");
    }

    #[test]
    fn foreground_waits_for_blocking_dependents() {
        let mut graph = Graph::default();
        graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], json!({})));
        graph.observe("v1", "Pod", &meta("p1", &[("rs", true)], json!({})));
        graph.observe("v1", "Pod", &meta("p2", &[("rs", false)], json!({})));
        assert_eq!(
            text(graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], deleting(FOREGROUND)))),
            "p1 p2 rs"
        );
        assert_eq!(graph.blocking("rs"), ["p1".into()]);
        assert_eq!(text(graph.remove("p1")), "rs");
        assert!(graph.blocking("rs").is_empty());
    }

    #[test]
    fn orphaning_is_asked_for_once() {
        let mut graph = Graph::default();
        graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], json!({})));
        assert_eq!(
            text(graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], deleting(ORPHAN)))),
            "orphan rs"
        );
        assert_eq!(text(graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], deleting(ORPHAN)))), "");
    }

    #[test]
    fn lonely_pods_cost_nothing_and_links_are_undone() {
        let mut graph = Graph::default();
        graph.observe("v1", "Pod", &meta("p", &[], json!({})));
        assert_eq!(graph.len(), 0);
        graph.observe("apps/v1", "ReplicaSet", &meta("rs", &[], json!({})));
        graph.observe("v1", "Pod", &meta("p", &[("rs", true)], json!({})));
        graph.observe("v1", "Pod", &meta("p", &[], json!({})));
        assert_eq!(text(graph.remove("rs")), "");
    }
}
