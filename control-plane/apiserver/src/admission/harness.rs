//! A cluster for the plugins' tests: objects in memory, an authorizer with a list, documents from JSON.

use super::*;
use crate::authn::UserInfo;
use crate::authz::{Attributes, Decision};
use bytes::Bytes;
use keelson_api::doc::{Gvk, from_json_value, to_json_value};
use keelson_api::schema::TypeId;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Objects(Mutex<BTreeMap<(String, String, String, String), Value>>);

impl Objects {
    pub(super) fn set(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Value) {
        let mut object = object;
        object["metadata"]["name"] = json!(name);
        self.0.lock().insert((group.into(), resource.into(), namespace.into(), name.into()), object);
    }
}

impl ClusterReads for Objects {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let key = (group.to_owned(), resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).map(|v| Bytes::from(v.to_string()))
    }
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Bytes> {
        let objects = self.0.lock();
        let wanted = objects.iter().filter(|((g, r, n, _), _)| {
            g == group && r == resource && (namespace.is_empty() || n == namespace)
        });
        wanted.map(|(_, v)| Bytes::from(v.to_string())).collect()
    }
}

/// Allows what stands in its list, as `verb resource[/subresource] name`.
pub(super) struct Only(&'static [&'static str]);

impl Authorizer for Only {
    fn authorize(&self, a: &Attributes) -> Decision {
        let sub = if a.subresource.is_empty() { String::new() } else { format!("/{}", a.subresource) };
        let text = format!("{} {}{sub} {}", a.verb, a.resource, a.name);
        if self.0.contains(&text.as_str()) { Decision::Allow } else { Decision::NoOpinion("no".into()) }
    }
}

pub(super) struct World {
    pub(super) objects: Arc<Objects>,
    pub(super) chain: Chain,
}

pub(super) fn world_with(allowed: &'static [&'static str], options: ChainOptions) -> World {
    let objects = Arc::new(Objects::default());
    objects.set("", "namespaces", "", "ns", json!({ "status": { "phase": "Active" } }));
    objects.set("", "serviceaccounts", "ns", "default", json!({}));
    let kinds: KindMapper = Arc::new(|group, _, kind| match (group, kind) {
        ("apps", "ReplicaSet") => vec![MappedResource {
            group: "apps".into(),
            version: "v1".into(),
            resource: "replicasets".into(),
            namespaced: true,
        }],
        _ => Vec::new(),
    });
    let chain = Chain::new(objects.clone(), Arc::new(Only(allowed)), kinds, options);
    World { objects, chain }
}

pub(super) fn world() -> World {
    world_with(&[], ChainOptions::default())
}

pub(super) fn doc(api_version: &str, kind: &str, object: Value) -> Doc {
    let gvk = Gvk::from_api_version(api_version, kind);
    let ty = TypeId::by_gvk(&gvk.group, &gvk.version, kind).unwrap();
    from_json_value(Some(ty), &gvk, &object).unwrap()
}

pub(super) fn pod(object: Value) -> Doc {
    doc("v1", "Pod", object)
}

/// `CREATE group/resource[/subresource] [namespace/]name`, `-` for nothing.
pub(super) fn attributes<'a>(text: &'a str, user: &'a Arc<UserInfo>) -> AdmissionAttributes<'a> {
    let words: Vec<&str> = text.split(' ').collect();
    let operation = match words[0] {
        "CREATE" => Operation::Create,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        _ => Operation::Connect,
    };
    let mut parts = words[1].split('/');
    let group = parts.next().unwrap();
    let (namespace, name) = words[2].split_once('/').unwrap();
    let unless = |w: &'a str| if w == "-" { "" } else { w };
    AdmissionAttributes {
        operation,
        group: if group == "core" { "" } else { group },
        version: "v1",
        resource: parts.next().unwrap(),
        subresource: parts.next().unwrap_or_default(),
        namespace: unless(namespace),
        name: unless(name),
        user,
        dry_run: false,
        now: "2026-03-01T12:00:00Z".parse().unwrap(),
    }
}

impl World {
    pub(super) fn run(
        &self,
        user: &Arc<UserInfo>,
        text: &str,
        object: Option<Doc>,
        old: Option<Doc>,
    ) -> Result<Value, Status> {
        let a = attributes(text, user);
        let Some(mut object) = object else {
            return self.chain.validate(None, old.as_ref(), &a).map(|()| Value::Null);
        };
        self.chain.mutate(&mut object, old.as_ref(), &a)?;
        self.chain.validate(Some(&object), old.as_ref(), &a)?;
        Ok(to_json_value(&object))
    }
    pub(super) fn create_pod(&self, object: Value) -> Result<Value, Status> {
        self.run(&jane(), "CREATE core/pods ns/-", Some(pod(object)), None)
    }
    pub(super) fn refusal(
        &self,
        user: &Arc<UserInfo>,
        text: &str,
        object: Option<Doc>,
        old: Option<Doc>,
    ) -> String {
        match self.run(user, text, object, old) {
            Ok(value) => panic!("{text} was let through: {value}"),
            Err(status) => status.message,
        }
    }
}

pub(super) fn jane() -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated("jane", &[]))
}

pub(super) fn kubelet(node: &str) -> Arc<UserInfo> {
    Arc::new(UserInfo::authenticated(format!("system:node:{node}"), &["system:nodes"]))
}

pub(super) fn minimal() -> Value {
    json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } })
}
