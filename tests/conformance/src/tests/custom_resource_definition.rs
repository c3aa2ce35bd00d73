//! test/e2e/apimachinery/custom_resource_definition.go

use crate::api::{CRDS, Patch, name, version};
use crate::cases;
use crate::env::{Env, suffix};
use crate::suite::Group;
use crate::tests::crd::{Definition, allow_all};
use crate::tests::discovery::{FOREVER, items};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin]",
        base: "custom-resource-definition",
        level: "privileged",
        cases: cases![
            "Simple CustomResourceDefinition creating/deleting custom resource definition objects works" => create_delete,
            "Simple CustomResourceDefinition listing custom resource definition objects works" => list,
            "Simple CustomResourceDefinition getting/updating/patching custom resource definition status sub-resource works" => status,
            "should include custom resource definition resources in discovery documents" => discovery,
            "custom resource defaulting for requests and from storage works" => defaulting,
        ],
    }]
}

// custom_resource_definition.go: "creating/deleting custom resource definition objects works"
async fn create_delete(env: Env) -> Result<()> {
    let crd = Definition::random(allow_all());
    crd.create(&env).await?;
    // Deleted here and not only afterwards: the deletion is what the test is about.
    env.api().of(&CRDS).delete(crd.name(), &json!({})).await?;
    crd.wait_gone(&env).await
}

// custom_resource_definition.go: "listing custom resource definition objects works"
async fn list(env: Env) -> Result<()> {
    let (label, value) = ("e2e-list-test-uuid", format!("{}-{}", suffix(), suffix()));
    let mut labelled = Vec::new();
    for _ in 0..10 {
        let mut crd = Definition::random(allow_all());
        crd.object["metadata"]["labels"] = json!({ label: value });
        let created = crd.create(&env).await?;
        labelled.push((crd, created));
    }
    let other = Definition::random(allow_all());
    other.create(&env).await?;

    let definitions = env.api().of(&CRDS);
    let selector = format!("{label}={value}");
    let query = [("labelSelector", selector.as_str())];
    let listed = definitions.list(&query).await?.items;
    ensure!(listed.len() == labelled.len(), "{} definitions are listed", listed.len());
    for found in &listed {
        let (_, created) =
            labelled.iter().find(|(crd, _)| crd.name() == name(found)).context("an unknown definition")?;
        ensure!(found["spec"] == created["spec"], "the spec in the list differs: {found}");
    }
    definitions.delete_all(&query, &json!({})).await?;
    for (crd, _) in &labelled {
        crd.wait_gone(&env).await?;
    }
    definitions.get(other.name()).await.context("the definition without the label")?;
    Ok(())
}

fn has_condition(object: &Value, message: &str) -> bool {
    items(&object["status"]["conditions"]).iter().any(|condition| {
        let text = |field: &str| condition[field].as_str().unwrap_or_default();
        text("message") == message
            && [text("type"), text("status"), text("reason")].iter().all(|text| text.is_empty())
    })
}

// custom_resource_definition.go: "getting/updating/patching custom resource definition status sub-resource works"
async fn status(env: Env) -> Result<()> {
    let crd = Definition::random(allow_all());
    let created = crd.create(&env).await?;
    let definitions = env.api().of(&CRDS);
    let path = format!("{}/status", crd.name());
    let mut attempt = 0;
    let updated = loop {
        let mut object = definitions.get(&path).await?;
        ensure!(object["spec"] == created["spec"], "the spec in the status subresource differs: {object}");
        let conditions = object["status"]["conditions"].as_array_mut().context("no conditions")?;
        conditions.push(json!({ "type": "", "status": "", "message": "updated" }));
        match definitions.replace(&path, &object).await {
            Err(error) if crate::api::conflict(&error) && attempt < 4 => attempt += 1,
            outcome => break outcome?,
        }
    };
    ensure!(has_condition(&updated, "updated"), "{}", updated["status"]);
    let patch = json!([{ "op": "add", "path": "/status/conditions", "value": [{ "message": "patched" }] }]);
    let patched = definitions.patch(&path, Patch::Json, &patch).await?;
    ensure!(has_condition(&patched, "patched"), "{}", patched["status"]);
    Ok(())
}

// custom_resource_definition.go: "should include custom resource definition resources in discovery documents"
async fn discovery(env: Env) -> Result<()> {
    const GROUP: &str = "apiextensions.k8s.io";
    let has_v1 = |group: &Value| items(&group["versions"]).iter().any(|version| version["version"] == "v1");
    env.step("fetching the /apis discovery document");
    let groups = env.api().get("/apis").await?;
    let group = items(&groups["groups"])
        .iter()
        .find(|group| group["name"] == GROUP)
        .context("apiextensions.k8s.io API group not found in /apis discovery document")?;
    ensure!(has_v1(group), "v1 not found in {group}");
    env.step("fetching the /apis/apiextensions.k8s.io discovery document");
    let group = env.api().get(&format!("/apis/{GROUP}")).await?;
    ensure!(group["name"] == GROUP && has_v1(&group), "{group}");
    env.step("fetching the /apis/apiextensions.k8s.io/v1 discovery document");
    let list = env.api().get(&format!("/apis/{GROUP}/v1")).await?;
    ensure!(list["groupVersion"] == format!("{GROUP}/v1"), "{}", list["groupVersion"]);
    ensure!(
        items(&list["resources"]).iter().any(|resource| resource["name"] == "customresourcedefinitions"),
        "customresourcedefinitions not found in {list}"
    );
    Ok(())
}

// custom_resource_definition.go: "custom resource defaulting for requests and from storage works"
async fn defaulting(env: Env) -> Result<()> {
    const OFTEN: Duration = Duration::from_millis(100);
    let mut schema = allow_all();
    schema["properties"] = json!({ "a": { "type": "string" }, "b": { "type": "string" } });
    let crd = Definition::random(schema);
    crd.create(&env).await?;
    let (definitions, resources) = (env.api().of(&CRDS), crd.resources(&env, "v1beta1"));
    let properties = "/spec/versions/0/schema/openAPIV3Schema/properties";

    let first = format!("cr-1{}", suffix());
    let created = resources.create(&json!({ "metadata": { "name": first } })).await?;
    let first_version = version(&created)?;
    ensure!(created.get("a").is_none(), "{created}");
    env.step("setting the default of a to A");
    let patch = json!([{ "op": "add", "path": format!("{properties}/a/default"), "value": "A" }]);
    definitions.patch(crd.name(), Patch::Json, &patch).await?;
    env.wait("the CR to be defaulted on read", OFTEN, FOREVER, async || {
        match &resources.get(&first).await?["a"] {
            Value::Null => Ok(None),
            Value::String(a) if a == "A" => Ok(Some(())),
            other => bail!("expected a:\"A\", but got {other}"),
        }
    })
    .await?;

    let second = format!("cr-2{}", suffix());
    let created = resources.create(&json!({ "metadata": { "name": second } })).await?;
    ensure!(created["a"] == "A", "field `a` should have been defaulted in {created}");
    env.step("removing the default of a, setting that of b to B");
    let patch = json!([
        { "op": "remove", "path": format!("{properties}/a/default") },
        { "op": "add", "path": format!("{properties}/b/default"), "value": "B" },
    ]);
    definitions.patch(crd.name(), Patch::Json, &patch).await?;
    env.wait("the CR to be defaulted on read for b and a staying the same", OFTEN, FOREVER, async || {
        let object = resources.get(&second).await?;
        match &object["b"] {
            Value::Null => return Ok(None),
            Value::String(b) if b == "B" => {}
            other => bail!("expected b:\"B\", but got {other}"),
        }
        ensure!(object["a"] == "A", "expected a:\"A\" to be unchanged, but it is {}", object["a"]);
        Ok(Some(()))
    })
    .await?;
    ensure!(version(&created)? > first_version, "the second object should have a larger resource version");
    Ok(())
}
