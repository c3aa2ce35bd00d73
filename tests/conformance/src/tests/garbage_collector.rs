//! test/e2e/apimachinery/garbage_collector.go

use crate::api::{DEPLOYMENTS, Kind, NODES, PODS, Patch, REPLICA_SETS, REPLICATION_CONTROLLERS, name, uid};
use crate::cases;
use crate::env::{Env, NGINX, found, random};
use crate::suite::Group;
use crate::tests::architecture::schedulable;
use crate::tests::discovery::items;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] Garbage collector",
        base: "gc",
        level: "baseline",
        cases: cases![
            "should delete pods created by rc when not orphaning" => pods_of_rc,
            "should orphan pods created by rc if delete options say so [Serial]" => orphan_pods,
            "should delete RS created by deployment when not orphaning" => sets_of_deployment,
            "should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan" => orphan_sets,
            "should keep the rc around until all its pods are deleted if the deleteOptions says so [Serial]" => foreground,
            "should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Serial]" => two_owners,
            "should not be blocked by dependency circle" => circle,
        ],
    }]
}

/// Upstream's `gcInformerResyncRetryTimeout`, added to waits.
const RESYNC: Duration = Duration::from_secs(60);
const HALF: Duration = Duration::from_millis(500);
const FIVE: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);

fn template(labels: &Value) -> Value {
    json!({
        "metadata": { "labels": labels },
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "nginx", "image": NGINX }],
        },
    })
}

/// A label of which no other test's controller has one.
fn labels(what: &str) -> Value {
    json!({ format!("gctest-{}", random(5)): what })
}

fn controller(name: &str, replicas: usize, what: &str) -> Value {
    let labels = labels(what);
    json!({
        "metadata": { "name": name },
        "spec": { "replicas": replicas, "selector": labels, "template": template(&labels) },
    })
}

fn deployment(what: &str) -> Value {
    let labels = labels(what);
    json!({
        "metadata": { "name": "simpletest.deployment", "labels": labels },
        "spec": {
            "replicas": 2,
            "selector": { "matchLabels": labels },
            "strategy": { "type": "RollingUpdate" },
            "template": template(&labels),
        },
    })
}

/// Delete options with a policy, and the uid as a precondition.
fn options(policy: &str, object: &Value) -> Result<Value> {
    Ok(json!({ "propagationPolicy": policy, "preconditions": { "uid": uid(object)? } }))
}

async fn count(env: &Env, kind: &Kind) -> Result<usize> {
    Ok(env.of(kind).list(&[]).await?.items.len())
}

/// `estimateMaximumPods`: half of what the nodes have room for, between 10 and 100.
async fn pods_that_fit(env: &Env) -> Result<usize> {
    const RESERVED: i64 = 10;
    let nodes = env.api().of(&NODES).list(&[]).await?.items;
    let room = |node: &Value| {
        let allocatable = node["status"]["allocatable"]["pods"].as_str().and_then(|text| text.parse().ok());
        allocatable.map_or(10, |pods: i64| (pods - RESERVED).max(0))
    };
    let all: i64 = nodes.iter().filter(|node| schedulable(node)).map(room).sum();
    Ok(usize::try_from(all / 2)?.clamp(10, 100))
}

/// Creates a controller and waits until its status says that all pods are there (`waitForReplicas`).
async fn create_full(env: &Env, object: &Value, replicas: usize) -> Result<Value> {
    let controllers = env.of(&REPLICATION_CONTROLLERS);
    let created = controllers.create(object).await?;
    env.wait("the rc to have all its pods", HALF, Duration::from_secs(120), async || {
        let rc = controllers.get(name(object)).await?;
        Ok((rc["status"]["replicas"] == replicas).then_some(()))
    })
    .await?;
    Ok(created)
}

/// Deletes pods at once; what fails is the namespace's deletion to mend.
async fn delete_pods(env: &Env, pods: &[Value]) {
    let resource = env.of(&PODS);
    for pod in pods {
        if let Err(error) = resource.delete(name(pod), &json!({ "gracePeriodSeconds": 0 })).await {
            env.step(format!("WARNING: failed to delete pods: {error:#}"));
        }
    }
}

// garbage_collector.go: "should delete pods created by rc when not orphaning"
async fn pods_of_rc(env: Env) -> Result<()> {
    let controllers = env.of(&REPLICATION_CONTROLLERS);
    env.step("create the rc");
    let rc = controllers.create(&controller("simpletest.rc", 2, "delete_pods")).await?;
    env.wait("the rc to create some pods", HALF, Duration::from_secs(30), async || {
        Ok((count(&env, &PODS).await? > 0).then_some(()))
    })
    .await?;
    env.step("delete the rc");
    controllers.delete("simpletest.rc", &options("Background", &rc)?).await?;
    env.step("wait for all pods to be garbage collected");
    env.wait("no rc and no pods", FIVE, MINUTE + RESYNC, async || {
        let left = count(&env, &REPLICATION_CONTROLLERS).await? + count(&env, &PODS).await?;
        Ok((left == 0).then_some(()))
    })
    .await
}

// garbage_collector.go: "should orphan pods created by rc if delete options say so"
async fn orphan_pods(env: Env) -> Result<()> {
    let replicas = pods_that_fit(&env).await?;
    env.step(format!("create the rc with {replicas} pods"));
    let rc = create_full(&env, &controller("simpletest.rc", replicas, "orphan_pods"), replicas).await?;
    env.step("delete the rc");
    env.of(&REPLICATION_CONTROLLERS).delete("simpletest.rc", &options("Orphan", &rc)?).await?;
    env.step("wait for the rc to be deleted");
    env.wait("the rc to be deleted", FIVE, MINUTE * 2 + RESYNC, async || {
        Ok((count(&env, &REPLICATION_CONTROLLERS).await? == 0).then_some(()))
    })
    .await?;
    env.step("wait for 30 seconds to see if the garbage collector mistakenly deletes the pods");
    env.pass(Duration::from_secs(30)).await;
    let pods = env.of(&PODS).list(&[]).await?.items;
    ensure!(pods.len() == replicas, "expect {replicas} pods, got {}", pods.len());
    delete_pods(&env, &pods).await;
    Ok(())
}

/// Creates the deployment and waits for its replica set.
async fn create_deployment(env: &Env, what: &str) -> Result<(Value, Value)> {
    env.step("create the deployment");
    let created = env.of(&DEPLOYMENTS).create(&deployment(what)).await?;
    env.step("Wait for the Deployment to create new ReplicaSet");
    let sets = env.of(&REPLICA_SETS);
    let set = env
        .wait("a replica set", HALF, MINUTE, async || Ok(sets.list(&[]).await?.items.into_iter().next()))
        .await?;
    Ok((created, set))
}

// garbage_collector.go: "should delete RS created by deployment when not orphaning"
async fn sets_of_deployment(env: Env) -> Result<()> {
    let (created, _) = create_deployment(&env, "delete_rs").await?;
    env.step("delete the deployment");
    env.of(&DEPLOYMENTS).delete(name(&created), &options("Background", &created)?).await?;
    env.step("wait for all rs to be garbage collected");
    env.wait("no deployment, replica set and pod", HALF, MINUTE + RESYNC, async || {
        let left =
            count(&env, &DEPLOYMENTS).await? + count(&env, &REPLICA_SETS).await? + count(&env, &PODS).await?;
        Ok((left == 0).then_some(()))
    })
    .await
}

// garbage_collector.go: "should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan"
async fn orphan_sets(env: Env) -> Result<()> {
    let (created, set) = create_deployment(&env, "orphan_rs").await?;
    let sets = env.of(&REPLICA_SETS);
    env.wait("the replica set's status", Duration::from_millis(100), MINUTE, async || {
        let now = sets.get(name(&set)).await?;
        let seen = now["status"]["observedGeneration"].as_i64() >= set["metadata"]["generation"].as_i64();
        Ok((seen && now["status"]["replicas"] == set["spec"]["replicas"]).then_some(()))
    })
    .await?;
    env.step("delete the deployment");
    env.of(&DEPLOYMENTS).delete(name(&created), &options("Orphan", &created)?).await?;
    env.step("wait for deployment deletion to see if the garbage collector mistakenly deletes the rs");
    env.wait("the deployment to be deleted", HALF, MINUTE + RESYNC, async || {
        Ok((count(&env, &DEPLOYMENTS).await? == 0).then_some(()))
    })
    .await?;
    let (left, pods) = (sets.list(&[]).await?.items, count(&env, &PODS).await?);
    ensure!(left.len() == 1 && pods == 2, "{} replica sets and {pods} pods remain", left.len());
    let controlled = |set: &Value| {
        items(&set["metadata"]["ownerReferences"]).iter().any(|owner| owner["controller"] == true)
    };
    ensure!(!left.iter().any(controlled), "found a ReplicaSet with a controller: {left:?}");
    Ok(())
}

/// Waits until the controller is gone.
async fn wait_deleted(env: &Env, rc: &Value, interval: Duration, within: Duration) -> Result<()> {
    env.step("wait for the rc to be deleted");
    let controllers = env.of(&REPLICATION_CONTROLLERS);
    env.wait("the rc to be deleted", interval, within, async || {
        Ok(found(controllers.get(name(rc)).await)?.is_none().then_some(()))
    })
    .await
}

// garbage_collector.go: "should keep the rc around until all its pods are deleted if the deleteOptions says so"
async fn foreground(env: Env) -> Result<()> {
    let replicas = pods_that_fit(&env).await?;
    env.step(format!("create the rc with {replicas} pods"));
    let rc =
        create_full(&env, &controller("simpletest.rc", replicas, "delete_pods_foreground"), replicas).await?;
    env.step("delete the rc");
    env.of(&REPLICATION_CONTROLLERS).delete("simpletest.rc", &options("Foreground", &rc)?).await?;
    wait_deleted(&env, &rc, Duration::from_secs(1), Duration::from_secs(30) + RESYNC).await?;
    let pods = count(&env, &PODS).await?;
    ensure!(pods == 0, "expected no pods, got {pods}");
    Ok(())
}

// garbage_collector.go: "should not delete dependents that have both valid owner and owner that's waiting for …"
async fn two_owners(env: Env) -> Result<()> {
    let replicas = pods_that_fit(&env).await?;
    let half = replicas / 2;
    let controllers = env.of(&REPLICATION_CONTROLLERS);
    env.step(format!("create the rc1 with {replicas} pods and the rc2 with none"));
    let stays =
        controllers.create(&controller("simpletest-rc-to-stay", 0, "valid_and_pending_owners_s")).await?;
    let goes = controller("simpletest-rc-to-be-deleted", replicas, "valid_and_pending_owners_d");
    let goes = create_full(&env, &goes, replicas).await?;
    env.step("set half of pods created by the rc1 to have the rc2 as owner as well");
    let pods = env.of(&PODS);
    let owner = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "name": name(&stays), "uid": uid(&stays)?,
    });
    let patch = json!({ "metadata": { "ownerReferences": [owner] } });
    let all = pods.list(&[]).await?.items;
    ensure!(all.len() >= half, "{} pods of {replicas}", all.len());
    for pod in &all[..half] {
        pods.patch(name(pod), Patch::Strategic, &patch).await?;
    }
    env.step("delete the rc1");
    controllers.delete(name(&goes), &options("Foreground", &goes)?).await?;
    wait_deleted(&env, &goes, FIVE, Duration::from_secs(90)).await?;
    let left = pods.list(&[]).await?.items;
    ensure!(left.len() == half, "expected {half} pods, got {}", left.len());
    for pod in &left {
        let metadata = &pod["metadata"];
        ensure!(metadata["deletionTimestamp"].is_null(), "expected no deletion timestamp: {metadata}");
        ensure!(
            items(&metadata["ownerReferences"]).len() == 1,
            "expected pod to only have 1 owner: {metadata}"
        );
    }
    delete_pods(&env, &left).await;
    Ok(())
}

// garbage_collector.go: "should not be blocked by dependency circle"
async fn circle(env: Env) -> Result<()> {
    let pods = env.of(&PODS);
    let mut made = Vec::new();
    for name in ["pod1", "pod2", "pod3"] {
        let spec = template(&Value::Null)["spec"].clone();
        made.push(pods.create(&json!({ "metadata": { "name": name }, "spec": spec })).await?);
    }
    for (owned, owner) in [(0, 2), (1, 0), (2, 1)] {
        let owner = json!({
            "apiVersion": "v1", "kind": "Pod", "name": name(&made[owner]), "uid": uid(&made[owner])?,
            "controller": true, "blockOwnerDeletion": true,
        });
        let patch = json!({ "metadata": { "ownerReferences": [owner] } });
        pods.patch(name(&made[owned]), Patch::Strategic, &patch).await?;
    }
    env.step("delete one pod, should result in the deletion of all pods");
    let before = pods.list(&[]).await?.items;
    ensure!(before.len() == 3, "{} pods before the deletion", before.len());
    pods.delete("pod1", &options("Foreground", &made[0])?).await?;
    env.wait("all pods to be deleted", FIVE, Duration::from_secs(90) + RESYNC, async || {
        Ok((count(&env, &PODS).await? == 0).then_some(()))
    })
    .await
}
