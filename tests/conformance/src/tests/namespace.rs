//! test/e2e/apimachinery/namespace.go

use crate::api::{CONFIG_MAPS, NAMESPACES, PODS, Patch, SERVICES, not_found, version};
use crate::cases;
use crate::env::{Env, NAMESPACE_DELETION, PAUSE, POD_START, found, random, suffix};
use crate::suite::Group;
use crate::tests::discovery::items;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            prefix: "[sig-api-machinery] Namespaces [Serial]",
            base: "namespaces",
            level: "baseline",
            cases: cases![
                "should ensure that all pods are removed when a namespace is deleted" => pods_removed,
                "should ensure that all services are removed when a namespace is deleted" => services_removed,
                "should patch a Namespace" => patch,
                "should apply changes to a namespace status" => status,
                "should apply an update to a Namespace" => update,
                "should apply a finalizer to a Namespace" => finalizer,
            ],
        },
        Group {
            prefix: "[sig-api-machinery] OrderedNamespaceDeletion",
            base: "namespacedeletion",
            level: "baseline",
            cases: cases!["namespace deletion should delete pod first" => ordered],
        },
    ]
}

const SECOND: Duration = Duration::from_secs(1);
const TWO: Duration = Duration::from_secs(2);

fn test_pod() -> Value {
    json!({
        "metadata": { "name": "test-pod" },
        "spec": { "containers": [{ "name": "nginx", "image": PAUSE }] },
    })
}

async fn run_pod(env: &Env, namespace: &str, pod: &Value) -> Result<Value> {
    let pods = env.api().of(&PODS).within(namespace);
    env.step("Creating a pod in the namespace");
    let created = pods.create(pod).await?;
    env.step("Waiting for the pod to have running status");
    env.wait("the pod to run", TWO, POD_START, async || {
        let pod = pods.get("test-pod").await?;
        Ok((pod["status"]["phase"] == "Running").then_some(()))
    })
    .await?;
    Ok(created)
}

async fn test_namespace(env: &Env) -> Result<String> {
    env.step("Creating a test namespace");
    let name = format!("nsdeletetest-{}", random(4));
    env.create_namespace(&name).await?;
    env.step("Waiting for a default service account to be provisioned in namespace");
    env.wait_for_service_account(&name).await?;
    Ok(name)
}

async fn wait_removed(env: &Env, name: &str, within: Duration) -> Result<()> {
    env.step("Waiting for the namespace to be removed.");
    let namespaces = env.api().of(&NAMESPACES);
    env.wait("the namespace to be removed", SECOND, within, async || {
        Ok(found(namespaces.get(name).await)?.is_none().then_some(()))
    })
    .await
}

// namespace.go: "should ensure that all pods are removed when a namespace is deleted"
async fn pods_removed(env: Env) -> Result<()> {
    let name = test_namespace(&env).await?;
    let pod = run_pod(&env, &name, &test_pod()).await?;
    env.step("Deleting the namespace");
    env.api().of(&NAMESPACES).delete(&name, &json!({})).await?;
    let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().context("no grace period")?;
    wait_removed(&env, &name, Duration::from_secs(60 + grace)).await?;
    env.step("Recreating the namespace");
    env.create_namespace(&name).await?;
    env.step("Verifying there are no pods in the namespace");
    match env.api().of(&PODS).within(&name).get("test-pod").await {
        Err(error) if not_found(&error) => Ok(()),
        outcome => bail!("the pod: {outcome:?}"),
    }
}

// namespace.go: "should ensure that all services are removed when a namespace is deleted"
async fn services_removed(env: Env) -> Result<()> {
    let name = test_namespace(&env).await?;
    env.step("Creating a service in the namespace");
    let services = env.api().of(&SERVICES).within(&name);
    let spec = json!({
        "selector": { "foo": "bar", "baz": "blah" },
        "ports": [{ "port": 80, "targetPort": 80 }],
    });
    services.create(&json!({ "metadata": { "name": "test-service" }, "spec": spec })).await?;
    env.step("Deleting the namespace");
    env.api().of(&NAMESPACES).delete(&name, &json!({})).await?;
    wait_removed(&env, &name, Duration::from_secs(60)).await?;
    env.step("Recreating the namespace");
    env.create_namespace(&name).await?;
    env.step("Verifying there is no service in the namespace");
    match services.get("test-service").await {
        Err(error) if not_found(&error) => Ok(()),
        outcome => bail!("the service: {outcome:?}"),
    }
}

// namespace.go: "should patch a Namespace"
async fn patch(env: Env) -> Result<()> {
    let name = format!("nspatchtest-{}-{}", suffix(), random(4));
    env.step("creating a Namespace");
    let created = env.create_namespace(&name).await?;
    let before = version(&created)?;
    env.step("patching the Namespace");
    let namespaces = env.api().of(&NAMESPACES);
    let patch = json!({ "metadata": { "labels": { "testLabel": "testValue" } } });
    let patched = namespaces.patch(&name, Patch::Strategic, &patch).await?;
    ensure!(version(&patched)? > before, "patched object should have a larger resource version");
    env.step("get the Namespace and ensuring it has the label");
    let got = namespaces.get(&name).await?;
    ensure!(got["metadata"]["labels"]["testLabel"] == "testValue", "namespace not patched: {got}");
    Ok(())
}

// namespace.go: "should apply changes to a namespace status"
async fn status(env: Env) -> Result<()> {
    let (name, path) = (env.ns().to_owned(), format!("{}/status", env.ns()));
    let namespaces = env.api().of(&NAMESPACES);
    let last = |object: &Value| items(&object["status"]["conditions"]).last().cloned().unwrap_or_default();
    env.step("Read namespace status");
    let read = namespaces.get(&path).await?;
    ensure!(read["status"]["phase"] == "Active", "the phase is {}", read["status"]["phase"]);
    env.step("Patch namespace status");
    let condition = json!({
        "type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by an e2e test",
    });
    let patch = json!({
        "metadata": { "annotations": { "e2e-patched-ns-status": name } },
        "status": { "conditions": [condition] },
    });
    let patched = namespaces.patch(&path, Patch::Merge, &patch).await?;
    ensure!(patched["metadata"]["annotations"]["e2e-patched-ns-status"] == name, "{}", patched["metadata"]);
    ensure!(
        last(&patched)["reason"] == "E2E" && last(&patched)["message"] == "Patched by an e2e test",
        "{}",
        patched["status"]
    );
    ensure!(patched["status"]["phase"] == "Active", "{}", patched["status"]);
    env.step("Update namespace status");
    let updated = namespaces
        .change_at(&path, &path, |object| {
            let condition = json!({
                "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Updated by an e2e test",
            });
            let conditions = &mut object["status"]["conditions"];
            let mut all = conditions.as_array().cloned().unwrap_or_default();
            all.push(condition);
            *conditions = all.into();
        })
        .await?;
    ensure!(
        last(&updated)["type"] == "StatusUpdate" && last(&updated)["message"] == "Updated by an e2e test",
        "{}",
        updated["status"]
    );
    ensure!(items(&updated["status"]["conditions"]).len() == 2, "{}", updated["status"]);
    Ok(())
}

// namespace.go: "should apply an update to a Namespace"
async fn update(env: Env) -> Result<()> {
    let namespaces = env.api().of(&NAMESPACES);
    env.step(format!("Updating Namespace {}", env.ns()));
    let before = version(&namespaces.get(env.ns()).await?)?;
    let updated = namespaces
        .change(env.ns(), |object| object["metadata"]["labels"][env.ns()] = json!("updated"))
        .await?;
    ensure!(updated["metadata"]["labels"][env.ns()] == "updated", "{}", updated["metadata"]);
    ensure!(version(&updated)? > before, "the update has no new version");
    Ok(())
}

// namespace.go: "should apply a finalizer to a Namespace"
async fn finalizer(env: Env) -> Result<()> {
    const FAKE: &str = "e2e.example.com/fakeFinalizer";
    let name = format!("e2e-ns-{}", suffix());
    env.step(format!("Creating namespace {name}"));
    let created = env.create_namespace(&name).await?;
    let namespaces = env.api().of(&NAMESPACES);
    let (path, has) = (format!("{name}/finalize"), |object: &Value| {
        items(&object["spec"]["finalizers"]).iter().any(|finalizer| finalizer == FAKE)
    });
    env.step("Adding the fake finalizer");
    let updated = namespaces
        .change_at(&name, &path, |object| {
            let mut all = object["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
            all.push(json!(FAKE));
            object["spec"]["finalizers"] = all.into();
        })
        .await?;
    ensure!(has(&updated), "the finalizer was not found in {}", updated["spec"]);
    env.step("Removing the fake finalizer");
    let updated = namespaces
        .change_at(&name, &path, |object| {
            if let Some(all) = object["spec"]["finalizers"].as_array_mut() {
                all.retain(|finalizer| finalizer != FAKE);
            }
        })
        .await?;
    ensure!(!has(&updated), "the finalizer was found in {}", updated["spec"]);
    ensure!(updated["spec"] == created["spec"], "{} is left of {}", updated["spec"], created["spec"]);
    Ok(())
}

// namespace.go: "namespace deletion should delete pod first"
async fn ordered(env: Env) -> Result<()> {
    let name = test_namespace(&env).await?;
    let mut pod = test_pod();
    pod["metadata"]["finalizers"] = json!(["e2e.example.com/finalizer"]);
    let (pods, maps) = (env.api().of(&PODS).within(&name), env.api().of(&CONFIG_MAPS).within(&name));
    let namespaces = env.api().of(&NAMESPACES);
    let (held, within) = (pods.clone(), name.clone());
    env.afterwards(async move {
        // Should the test end early, the finalizer would keep the namespace for ever.
        match held.patch("test-pod", Patch::Merge, &json!({ "metadata": { "finalizers": null } })).await {
            Err(error) if !not_found(&error) => Err(error.context(within)),
            _ => Ok(()),
        }
    });
    run_pod(&env, &name, &pod).await?;
    env.step("Creating a configmap in the namespace");
    maps.create(&json!({ "metadata": { "name": "test-configmap" }, "data": { "key": "value" } })).await?;
    env.step("Deleting the namespace");
    namespaces.delete(&name, &json!({})).await?;
    env.step("wait until namespace controller had time to process");
    env.wait("the namespace controller", TWO, NAMESPACE_DELETION, async || {
        let namespace = namespaces.get(&name).await?;
        let failed = items(&namespace["status"]["conditions"])
            .iter()
            .any(|condition| condition["type"] == "NamespaceDeletionContentFailure");
        Ok((namespace["status"]["phase"] == "Terminating" && failed).then_some(()))
    })
    .await?;
    env.step("the pod should be deleted before processing deletion for other resources");
    env.wait("the pod to be deleted", TWO, NAMESPACE_DELETION, async || {
        maps.get("test-configmap").await.context("the config map should still exist")?;
        let pod = pods.get("test-pod").await?;
        Ok(pod["metadata"]["deletionTimestamp"].is_string().then_some(()))
    })
    .await?;
    env.step("Removing finalizer from the pod");
    pods.change("test-pod", |pod| pod["metadata"]["finalizers"] = json!([])).await?;
    env.step("Waiting for the pod to not be present in the namespace");
    env.wait("the pod to be gone", TWO, Duration::from_secs(300), async || {
        Ok(found(pods.get("test-pod").await)?.is_none().then_some(()))
    })
    .await?;
    wait_removed(&env, &name, NAMESPACE_DELETION).await
}
