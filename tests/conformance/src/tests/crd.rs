//! Custom resource definitions as the tests make them (apiextensions-apiserver's test fixtures and test/utils/crd).

use crate::api::{self, CRDS, Kind, Resource, not_found};
use crate::env::{Env, random, suffix};
use crate::tests::discovery::{FOREVER, items};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

const OFTEN: Duration = Duration::from_millis(500);

/// A schema that takes every object.
pub fn allow_all() -> Value {
    json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// A definition and where its resources are.
#[derive(Clone)]
pub struct Definition {
    pub object: Value,
}

impl Definition {
    /// With a schema for each version, all served; the first is stored.
    pub fn new(group: &str, singular: &str, scope: &str, versions: &[(&str, Value)]) -> Definition {
        let versions: Vec<Value> = versions
            .iter()
            .enumerate()
            .map(|(index, (name, schema))| {
                json!({
                    "name": name,
                    "served": true,
                    "storage": index == 0,
                    "schema": { "openAPIV3Schema": schema },
                })
            })
            .collect();
        let plural = format!("{singular}s");
        Definition {
            object: json!({
                "metadata": { "name": format!("{plural}.{group}") },
                "spec": {
                    "group": group,
                    "scope": scope,
                    "names": {
                        "plural": plural,
                        "singular": singular,
                        "kind": singular,
                        "listKind": format!("{singular}List"),
                    },
                    "versions": versions,
                },
            }),
        }
    }

    /// `NewRandomNameV1CustomResourceDefinition`: cluster-scoped, one version, with the schema.
    pub fn random(schema: Value) -> Definition {
        let name = format!("foo{}a", suffix());
        Definition::new("mygroup.example.com", &name, "Cluster", &[("v1beta1", schema)])
    }

    /// `NewRandomNameMultipleVersionCustomResourceDefinition`: cluster-scoped, v1beta1 and v1 (stored), with status.
    pub fn two_versions(schema: &Value) -> Definition {
        let name = format!("foo{}a", suffix());
        let versions = [("v1beta1", schema.clone()), ("v1", schema.clone())];
        let mut made = Definition::new("mygroup.example.com", &name, "Cluster", &versions);
        for (index, stored) in [(0, false), (1, true)] {
            let version = &mut made.object["spec"]["versions"][index];
            version["storage"] = json!(stored);
            version["subresources"] = json!({ "status": {} });
        }
        made
    }

    /// `genRandomCRD`: namespaced, its name made of the test's and a random number.
    pub fn for_test(env: &Env, group: &str, versions: &[(&str, Value)]) -> Definition {
        let name = format!("e2e-test-{}-{}-crd", env.ns(), random(4));
        Definition::new(group, &name, "Namespaced", versions)
    }

    pub fn name(&self) -> &str {
        api::name(&self.object)
    }

    pub fn text(&self, pointer: &str) -> &str {
        self.object.pointer(&format!("/spec/{pointer}")).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn group(&self) -> &str {
        self.text("group")
    }

    pub fn plural(&self) -> &str {
        self.text("names/plural")
    }

    pub fn kind(&self) -> &str {
        self.text("names/kind")
    }

    /// The names of the served versions.
    pub fn served(&self) -> Vec<String> {
        items(&self.object["spec"]["versions"])
            .iter()
            .filter(|version| version["served"] == true)
            .filter_map(|version| version["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// The resources of one version, everywhere or cluster-wide.
    pub fn resources(&self, env: &Env, version: &str) -> Resource {
        env.api().of(&Kind {
            api_version: format!("{}/{version}", self.group()).into(),
            plural: self.plural().to_owned().into(),
            kind: self.kind().to_owned().into(),
            list: self.text("names/listKind").to_owned().into(),
        })
    }

    async fn in_discovery(&self, env: &Env, version: &str) -> Result<bool> {
        match env.api().get(&format!("/apis/{}/{version}", self.group())).await {
            Ok(list) => Ok(items(&list["resources"]).iter().any(|found| found["name"] == self.plural())),
            Err(error) if not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `CreateNewV1CustomResourceDefinitionWatchUnsafe`: creates it and waits until its versions are in discovery.
    /// Deleted after the test.
    pub async fn create(&self, env: &Env) -> Result<Value> {
        let created = env.api().of(&CRDS).create(&self.object).await?;
        let (crd, environment) = (self.clone(), env.clone());
        env.afterwards(async move { crd.delete(&environment).await });
        for version in self.served() {
            env.wait(&format!("{} {version} in discovery", self.name()), OFTEN, FOREVER, async || {
                Ok(self.in_discovery(env, &version).await?.then_some(()))
            })
            .await?;
        }
        Ok(created)
    }

    /// `CreateNewV1CustomResourceDefinition`: as [`Definition::create`], and a watch of each version works.
    pub async fn create_primed(&self, env: &Env) -> Result<Value> {
        let created = self.create(env).await?;
        env.wait(&format!("watches of {}", self.name()), OFTEN, FOREVER, async || {
            Ok(self.primed(env).await?.then_some(()))
        })
        .await?;
        Ok(created)
    }

    async fn primed(&self, env: &Env) -> Result<bool> {
        let versions = self.served();
        let Some(first) = versions.first() else { return Ok(true) };
        let namespace = if self.text("scope") == "Cluster" { "" } else { "default" };
        let instance = json!({
            "metadata": { "name": "setup-instance" },
            "alpha": "foo_123", "beta": 10, "gamma": "bar", "delta": "hello", "epsilon": "foobar", "spec": {},
        });
        let resources = self.resources(env, first).within(namespace);
        let created = resources.create(&instance).await?;
        resources.delete("setup-instance", &json!({})).await?;
        let from = api::version(&created)?.to_string();
        for version in &versions {
            let watched = self.resources(env, version).within(namespace);
            let mut watch = watched.watch(&[("resourceVersion", &from)]).await?;
            let event = env.within("a watch event", Duration::from_secs(5), watch.next()).await?;
            match event.context("the watch ended")? {
                event if event.kind == "DELETED" => {}
                event if event.kind == "ERROR" => return Ok(false),
                event => bail!("expected DELETED, but got {event:?}"),
            }
        }
        Ok(true)
    }

    /// `DeleteV1CustomResourceDefinition`: deletes it, unless it is gone, and waits until it is not in discovery.
    pub async fn delete(&self, env: &Env) -> Result<()> {
        match env.api().of(&CRDS).delete(self.name(), &json!({})).await {
            Err(error) if not_found(&error) => return Ok(()),
            outcome => outcome?,
        };
        self.wait_gone(env).await
    }

    pub async fn wait_gone(&self, env: &Env) -> Result<()> {
        for version in self.served() {
            env.wait(&format!("{} {version} to leave discovery", self.name()), OFTEN, FOREVER, async || {
                Ok((!self.in_discovery(env, &version).await?).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// An object of the definition, as created; it must have the uid, apiVersion and kind that it should.
pub async fn instantiate(resources: &Resource, object: &Value) -> Result<Value> {
    let created = resources.create(object).await?;
    api::uid(&created)?;
    ensure!(api::name(&created) == api::name(object), "created under the name {}", api::name(&created));
    Ok(created)
}
