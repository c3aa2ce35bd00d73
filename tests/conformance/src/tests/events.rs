//! test/e2e/instrumentation/core_events.go and events.go

use crate::api::{CORE_EVENTS, EVENTS, Patch, Resource, bare, name, version};
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![
        Group {
            prefix: "[sig-instrumentation] Events",
            base: "events",
            level: "privileged",
            cases: cases![
                "should manage the lifecycle of an event" => core_lifecycle,
                "should delete a collection of events" => core_collection,
            ],
        },
        Group {
            prefix: "[sig-instrumentation] Events API",
            base: "events",
            level: "privileged",
            cases: cases![
                "should ensure that an event can be fetched, patched, deleted, and listed" => lifecycle,
                "should delete a collection of events" => collection,
            ],
        },
    ]
}

fn core_event(namespace: &str, name: &str, label: &str, message: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { label: "true" } },
        "message": message,
        "reason": "Test",
        "type": "Normal",
        "count": 1,
        "involvedObject": { "namespace": namespace },
    })
}

/// Unix time 1505828956, as both files use it.
const SOME_TIME: &str = "2017-09-19T13:49:16.000000Z";

fn event(namespace: &str, name: &str, label: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { label: "true" } },
        "regarding": { "namespace": namespace },
        "eventTime": SOME_TIME,
        "note": format!("This is {name}"),
        "action": "Do",
        "reason": "Test",
        "type": "Normal",
        "reportingController": "test-controller",
        "reportingInstance": "test-node",
    })
}

async fn listed(events: &Resource, env: &Env, wanted: &str) -> Result<bool> {
    let list = events.list(&[("labelSelector", "testevent-constant=true")]).await?;
    Ok(list.items.iter().any(|item| name(item) == wanted && item["metadata"]["namespace"] == env.ns()))
}

// core_events.go: "should manage the lifecycle of an event"
async fn core_lifecycle(env: Env) -> Result<()> {
    const NAME: &str = "event-test";
    let (events, everywhere) = (env.of(&CORE_EVENTS), env.api().of(&CORE_EVENTS));
    env.step("creating a test event");
    events.create(&core_event(env.ns(), NAME, "testevent-constant", "This is a test event")).await?;
    env.step("listing all events in all namespaces");
    ensure!(listed(&everywhere, &env, NAME).await?, "unable to find the test event");
    env.step("patching the test event");
    let message = "This is a test event - patched";
    events.patch(NAME, Patch::Strategic, &json!({ "message": message })).await?;
    env.step("fetching the test event");
    let fetched = events.get(NAME).await?;
    ensure!(fetched["message"] == message, "the message is {}", fetched["message"]);
    env.step("updating the test event");
    let mut changed = bare(&events.get(NAME).await?);
    changed["series"] = json!({ "count": 100, "lastObservedTime": SOME_TIME });
    events.replace(NAME, &changed).await?;
    env.step("getting the test event");
    let fetched = bare(&events.get(NAME).await?);
    ensure!(fetched == changed, "not as updated: {fetched}, wanted {changed}");
    env.step("deleting the test event");
    events.delete(NAME, &json!({})).await?;
    env.step("listing all events in all namespaces");
    ensure!(!listed(&everywhere, &env, NAME).await?, "the test event is still there");
    Ok(())
}

// core_events.go: "should delete a collection of events"
async fn core_collection(env: Env) -> Result<()> {
    let events = env.of(&CORE_EVENTS);
    env.step("Create set of events");
    for number in 1..=3 {
        let name = format!("test-event-{number}");
        events.create(&core_event(env.ns(), &name, "testevent-set", &format!("This is {name}"))).await?;
    }
    remove_set(&env, &events).await
}

async fn remove_set(env: &Env, events: &Resource) -> Result<()> {
    let selector = [("labelSelector", "testevent-set=true")];
    env.step("get a list of Events with a label in the current namespace");
    let count = events.list(&selector).await?.items.len();
    ensure!(count == 3, "{count} events");
    env.step("delete collection of events");
    events.delete_all(&selector, &json!({})).await?;
    env.step("check that the list of events matches the requested quantity");
    env.wait("the events to be gone", Duration::from_secs(1), Duration::from_secs(60), async || {
        Ok(events.list(&selector).await?.items.is_empty().then_some(()))
    })
    .await
}

// events.go: "should ensure that an event can be fetched, patched, deleted, and listed"
async fn lifecycle(env: Env) -> Result<()> {
    const NAME: &str = "event-test";
    let (events, everywhere, core) = (env.of(&EVENTS), env.api().of(&EVENTS), env.of(&CORE_EVENTS));
    env.step("creating a test event");
    let created = events.create(&event(env.ns(), NAME, "testevent-constant")).await?;
    let first = version(&created)?;
    env.step("listing events in all namespaces and in the test namespace");
    ensure!(listed(&everywhere, &env, NAME).await?, "not in the list of all namespaces");
    ensure!(listed(&events, &env, NAME).await?, "not in the list of its namespace");
    env.step("listing events with field selection filtering on source");
    let by_source = core.list(&[("fieldSelector", "source=test-controller")]).await?.items;
    ensure!(by_source.len() == 1 && name(&by_source[0]) == NAME, "expected the one event, got {by_source:?}");
    env.step("listing events with field selection filtering on reportingController");
    let by_controller = events.list(&[("fieldSelector", "reportingController=test-controller")]).await?.items;
    ensure!(
        by_controller.len() == 1 && name(&by_controller[0]) == NAME,
        "expected the one event, got {by_controller:?}"
    );
    env.step("getting the test event");
    let mut wanted = events.get(NAME).await?;
    env.step("patching the test event");
    let series = json!({ "count": 2, "lastObservedTime": "2017-09-19T13:49:11.000000Z" });
    events.patch(NAME, Patch::Strategic, &json!({ "series": series })).await?;
    env.step("getting the test event");
    let patched = events.get(NAME).await?;
    ensure!(version(&patched)? > first, "patched object should have a larger resource version");
    wanted["series"] = series;
    ensure!(bare(&patched) == bare(&wanted), "not as patched: {patched}, wanted {wanted}");
    env.step("updating the test event");
    wanted = bare(&wanted);
    wanted["series"] = json!({ "count": 100, "lastObservedTime": SOME_TIME });
    events.replace(NAME, &wanted).await?;
    env.step("getting the test event");
    let updated = bare(&events.get(NAME).await?);
    ensure!(updated == wanted, "not as updated: {updated}, wanted {wanted}");
    env.step("deleting the test event");
    events.delete(NAME, &json!({})).await?;
    env.step("listing events in all namespaces and in the test namespace");
    ensure!(!listed(&everywhere, &env, NAME).await?, "still in the list of all namespaces");
    ensure!(!listed(&events, &env, NAME).await?, "still in the list of its namespace");
    Ok(())
}

// events.go: "should delete a collection of events"
async fn collection(env: Env) -> Result<()> {
    let events = env.of(&EVENTS);
    env.step("Create set of events");
    for number in 1..=3 {
        events.create(&event(env.ns(), &format!("test-event-{number}"), "testevent-set")).await?;
    }
    remove_set(&env, &events).await
}
