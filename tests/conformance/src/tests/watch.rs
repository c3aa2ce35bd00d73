//! test/e2e/apimachinery/watch.go

use crate::api::{CONFIG_MAPS, Event, Resource, Watch, name};
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch as signal;

const LABEL: &str = "watch-this-configmap";
const FOUND: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(10);

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] Watchers",
        base: "watch",
        level: "privileged",
        cases: cases![
            "should observe add, update, and delete watch notifications on configmaps" => several,
            "should be able to start watching from a specific resource version" => from_version,
            "should be able to restart watching from the last resource version observed by the previous watch" => restarted,
            "should observe an object deletion if it stops meeting the requirements of the selector" => label_changed,
            "should receive events on concurrent watches in same order" => same_order,
        ],
    }]
}

async fn watch(env: &Env, version: &str, labels: &[&str]) -> Result<Watch> {
    let selector = format!("{LABEL} in ({})", labels.join(","));
    let mut query = vec![("labelSelector", selector.as_str())];
    if !version.is_empty() {
        query.push(("resourceVersion", version));
    }
    env.of(&CONFIG_MAPS).watch(&query).await.with_context(|| format!("watching {labels:?}"))
}

/// Waits for an event of the type (and with the object, where one is given), passing over others.
async fn wait_for(
    env: &Env,
    watch: &mut Watch,
    kind: &str,
    object: Option<&Value>,
    time: Duration,
) -> Result<Option<Event>> {
    let search = async {
        loop {
            let Some(event) = watch.next().await? else { bail!("the watch was closed unexpectedly") };
            if event.kind == kind && object.is_none_or(|object| *object == event.object) {
                return Ok(event);
            }
        }
    };
    // Only the time running out means that there was none.
    let mut failed = None;
    let outcome = env
        .within("an event", time, async {
            match search.await {
                Ok(event) => Ok(Some(event)),
                Err(error) => {
                    failed = Some(error);
                    Ok(None)
                }
            }
        })
        .await;
    match (outcome, failed) {
        (_, Some(error)) => Err(error),
        (outcome, None) => Ok(outcome.ok().flatten()),
    }
}

pub async fn expect(env: &Env, watch: &mut Watch, kind: &str, object: Option<&Value>) -> Result<Event> {
    wait_for(env, watch, kind, object, FOUND)
        .await?
        .with_context(|| format!("no {kind} event of {}", object.map_or("any object", name)))
}

pub async fn expect_none(env: &Env, watch: &mut Watch, kind: &str, object: Option<&Value>) -> Result<()> {
    match wait_for(env, watch, kind, object, QUIET).await? {
        Some(event) => bail!("unexpected {kind} event of {}", event.object),
        None => Ok(()),
    }
}

async fn create(maps: &Resource, name: &str, label: &str) -> Result<Value> {
    maps.create(&json!({ "metadata": { "name": name, "labels": { LABEL: label } } })).await
}

async fn mutate(maps: &Resource, name: &str, value: &str) -> Result<Value> {
    maps.change(name, |map| map["data"]["mutation"] = json!(value)).await
}

// watch.go: "should observe add, update, and delete watch notifications on configmaps"
async fn several(env: Env) -> Result<()> {
    const A: &str = "multiple-watchers-A";
    const B: &str = "multiple-watchers-B";
    let (name_a, name_b) = ("e2e-watch-test-configmap-a", "e2e-watch-test-configmap-b");
    let maps = env.of(&CONFIG_MAPS);
    env.step("creating watches on configmaps with label A, label B, and either");
    let (mut a, mut b) = (watch(&env, "", &[A]).await?, watch(&env, "", &[B]).await?);
    let mut ab = watch(&env, "", &[A, B]).await?;

    env.step("creating a configmap with label A and ensuring the correct watchers observe the notification");
    let map = create(&maps, name_a, A).await?;
    expect(&env, &mut a, "ADDED", Some(&map)).await?;
    expect(&env, &mut ab, "ADDED", Some(&map)).await?;
    for value in ["1", "2"] {
        env.step(format!("modifying configmap A for the time {value}"));
        let map = mutate(&maps, name_a, value).await?;
        expect(&env, &mut a, "MODIFIED", Some(&map)).await?;
        expect(&env, &mut ab, "MODIFIED", Some(&map)).await?;
    }
    env.step("deleting configmap A and ensuring the correct watchers observe the notification");
    maps.delete(name_a, &json!({})).await?;
    expect(&env, &mut a, "DELETED", None).await?;
    expect(&env, &mut ab, "DELETED", None).await?;

    env.step("creating a configmap with label B and ensuring the correct watchers observe the notification");
    let map = create(&maps, name_b, B).await?;
    expect(&env, &mut b, "ADDED", Some(&map)).await?;
    expect(&env, &mut ab, "ADDED", Some(&map)).await?;
    expect_none(&env, &mut a, "ADDED", Some(&map)).await?;

    env.step("deleting configmap B and ensuring the correct watchers observe the notification");
    maps.delete(name_b, &json!({})).await?;
    expect(&env, &mut b, "DELETED", None).await?;
    expect(&env, &mut ab, "DELETED", None).await?;
    expect_none(&env, &mut a, "DELETED", None).await
}

// watch.go: "should be able to start watching from a specific resource version"
async fn from_version(env: Env) -> Result<()> {
    const LABELLED: &str = "from-resource-version";
    let (maps, map) = (env.of(&CONFIG_MAPS), "e2e-watch-test-resource-version");
    env.step("creating a configmap, modifying it twice and deleting it");
    create(&maps, map, LABELLED).await?;
    let first = mutate(&maps, map, "1").await?;
    let second = mutate(&maps, map, "2").await?;
    maps.delete(map, &json!({})).await?;
    env.step("creating a watch from the resource version returned by the first update");
    let version = first["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    let mut watch = watch(&env, version, &[LABELLED]).await?;
    env.step("Expecting to observe notifications for all changes to the configmap after the first update");
    expect(&env, &mut watch, "MODIFIED", Some(&second)).await?;
    expect(&env, &mut watch, "DELETED", None).await?;
    Ok(())
}

// watch.go: "should be able to restart watching from the last resource version observed by the previous watch"
async fn restarted(env: Env) -> Result<()> {
    const LABELLED: &str = "watch-closed-and-restarted";
    let (maps, map) = (env.of(&CONFIG_MAPS), "e2e-watch-test-watch-closed");
    env.step("creating a watch on configmaps");
    let mut broken = watch(&env, "", &[LABELLED]).await?;
    env.step("creating a new configmap and modifying it once");
    let created = create(&maps, map, LABELLED).await?;
    mutate(&maps, map, "1").await?;
    env.step("closing the watch once it receives two notifications");
    expect(&env, &mut broken, "ADDED", Some(&created)).await?;
    let last = expect(&env, &mut broken, "MODIFIED", None).await?;
    drop(broken);
    env.step("modifying the configmap a second time, while the watch is closed");
    let second = mutate(&maps, map, "2").await?;
    env.step("creating a new watch from the last resource version observed by the first watch");
    ensure!(last.object["kind"] == "ConfigMap", "the last notification is about {}", last.object);
    let version = last.object["metadata"]["resourceVersion"].as_str().context("no resourceVersion")?;
    let mut again = watch(&env, version, &[LABELLED]).await?;
    env.step("deleting the configmap");
    maps.delete(map, &json!({})).await?;
    env.step("Expecting to observe notifications for all changes since the first watch closed");
    expect(&env, &mut again, "MODIFIED", Some(&second)).await?;
    expect(&env, &mut again, "DELETED", None).await?;
    Ok(())
}

// watch.go: "should observe an object deletion if it stops meeting the requirements of the selector"
async fn label_changed(env: Env) -> Result<()> {
    const LABELLED: &str = "label-changed-and-restored";
    let (maps, map) = (env.of(&CONFIG_MAPS), "e2e-watch-test-label-changed");
    env.step("creating a watch on configmaps with a certain label");
    let mut watch = watch(&env, "", &[LABELLED]).await?;
    env.step("creating a configmap, modifying it once and changing its label's value");
    let created = create(&maps, map, LABELLED).await?;
    let first = mutate(&maps, map, "1").await?;
    maps.change(map, |map| map["metadata"]["labels"][LABEL] = json!("wrong-value")).await?;
    env.step("Expecting to observe a delete notification for the watched object");
    expect(&env, &mut watch, "ADDED", Some(&created)).await?;
    expect(&env, &mut watch, "MODIFIED", Some(&first)).await?;
    expect(&env, &mut watch, "DELETED", None).await?;
    env.step("modifying the configmap a second time: no notification, it does not meet the requirements");
    let second = mutate(&maps, map, "2").await?;
    expect_none(&env, &mut watch, "MODIFIED", Some(&second)).await?;
    env.step("changing the label's value back, modifying the configmap a third time and deleting it");
    let restored = maps.change(map, |map| map["metadata"]["labels"][LABEL] = json!(LABELLED)).await?;
    let third = mutate(&maps, map, "3").await?;
    maps.delete(map, &json!({})).await?;
    env.step("Expecting to observe an add notification when the label's value was restored");
    expect(&env, &mut watch, "ADDED", Some(&restored)).await?;
    expect(&env, &mut watch, "MODIFIED", Some(&third)).await?;
    expect(&env, &mut watch, "DELETED", None).await?;
    Ok(())
}

/// A watch that is opened again where it ended (`watchtools.NewRetryWatcher`).
struct Following {
    maps: Resource,
    version: String,
    watch: Option<Watch>,
}

impl Following {
    async fn next(&mut self, env: &Env) -> Result<String> {
        env.within("a watch event", Duration::from_secs(10), async {
            loop {
                if self.watch.is_none() {
                    let query = [("resourceVersion", self.version.as_str()), ("allowWatchBookmarks", "true")];
                    self.watch = Some(self.maps.watch(&query).await?);
                }
                let Some(watch) = &mut self.watch else { continue };
                let Some(event) = watch.next().await? else {
                    self.watch = None;
                    continue;
                };
                ensure!(event.kind != "ERROR", "the watch ended with {}", event.object);
                let version = event.object["metadata"]["resourceVersion"].as_str().context("no version")?;
                version.clone_into(&mut self.version);
                if event.kind != "BOOKMARK" {
                    ensure!(
                        event.object["kind"] == "ConfigMap",
                        "expected a config map, got {}",
                        event.object
                    );
                    return Ok(self.version.clone());
                }
            }
        })
        .await
    }
}

/// Creates, updates and deletes config maps at random, one every 5 ms, until told to stop.
async fn produce(maps: Resource, stop: signal::Receiver<bool>) -> Result<()> {
    let (mut existing, mut created, mut updates) = (Vec::new(), 0_u32, 0_u32);
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !*stop.borrow() {
        ticks.tick().await;
        let (action, at) = {
            let mut random = rand::rng();
            (random.random_range(0..3), random.random_range(0..existing.len().max(1)))
        };
        match action {
            _ if existing.is_empty() => {
                existing.push(created);
                maps.create(&json!({ "metadata": { "name": format!("cm-{created}") } })).await?;
                created += 1;
            }
            0 => {
                existing.push(created);
                maps.create(&json!({ "metadata": { "name": format!("cm-{created}") } })).await?;
                created += 1;
            }
            1 => {
                let map = format!("cm-{}", existing[at]);
                let labels = json!({ "mutated": updates.to_string() });
                maps.replace(&map, &json!({ "metadata": { "name": map, "labels": labels } })).await?;
                updates += 1;
            }
            _ => {
                let map = format!("cm-{}", existing.swap_remove(at));
                maps.delete(&map, &json!({})).await?;
            }
        }
    }
    Ok(())
}

// watch.go: "should receive events on concurrent watches in same order"
async fn same_order(env: Env) -> Result<()> {
    const ITERATIONS: usize = 100;
    let maps = env.of(&CONFIG_MAPS);
    env.step("getting a starting resourceVersion");
    let mut version = maps.list(&[]).await?.resource_version;
    env.step("starting to produce watch events in the background");
    let (stop, stopped) = signal::channel(false);
    let producer = tokio::spawn(produce(maps.clone(), stopped));
    env.step("creating watches starting from each version of the events and verifying that all receive the same order");
    let mut watches: Vec<Following> = Vec::new();
    for _ in 0..ITERATIONS {
        watches.push(Following { maps: maps.clone(), version, watch: None });
        let (first, others) = watches.split_at_mut(1);
        version = first[0].next(&env).await?;
        for other in others {
            let seen = other.next(&env).await?;
            ensure!(seen == version, "resource version mismatch, expected {version} but got {seen}");
        }
    }
    // The producer only ends by this.
    let _ = stop.send(true);
    producer.await?
}
