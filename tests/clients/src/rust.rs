//! kube: list, watch, patch, apply, and a lease that two candidates want.

use crate::Tally;
use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use kube::{Client, Config, ResourceExt};
use serde_json::json;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

pub const NAME: &str = "kube-rs";
const NAMESPACE: &str = "kube-rs";
const LIMIT: Duration = Duration::from_secs(30);

/// Tries each thing once.
pub fn run(kubeconfig: &Path) -> Result<Tally> {
    tokio::runtime::Runtime::new()?.block_on(all(kubeconfig))
}

async fn all(kubeconfig: &Path) -> Result<Tally> {
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
    let client = Client::try_from(config)?;
    fresh_namespace(&client).await.context("namespace")?;
    let mut tally = Tally { name: NAME.to_owned(), ..Tally::default() };
    let mut note = |name: &str, outcome: Result<Result<()>, tokio::time::error::Elapsed>| match outcome {
        Ok(Ok(())) => tally.passed += 1,
        Ok(Err(error)) => tally.failures.push(format!("{name}: {error:#}")),
        Err(_) => tally.failures.push(format!("{name}: not within {LIMIT:?}")),
    };
    note("list", tokio::time::timeout(LIMIT, list(&client)).await);
    note("watch", tokio::time::timeout(LIMIT, watch(&client, watcher::Config::default())).await);
    let streaming = watcher::Config::default().streaming_lists();
    note("streaming list", tokio::time::timeout(LIMIT, watch(&client, streaming)).await);
    note("patch", tokio::time::timeout(LIMIT, patch(&client)).await);
    note("apply", tokio::time::timeout(LIMIT, apply(&client)).await);
    note("dynamic", tokio::time::timeout(LIMIT, dynamic(&client)).await);
    note("leader election", tokio::time::timeout(LIMIT, election(&client)).await);
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    println!("{NAME}: {} passed, {} failed", tally.passed, tally.failures.len());
    Ok(tally)
}

async fn fresh_namespace(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces.get_opt(NAMESPACE).await?.is_some() {
        namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
        let gone = kube::runtime::wait::await_condition(
            namespaces.clone(),
            NAMESPACE,
            |object: Option<&Namespace>| object.is_none(),
        );
        tokio::time::timeout(LIMIT, gone).await.context("an earlier run's namespace stays")??;
    }
    let object = Namespace { metadata: named(NAMESPACE), ..Namespace::default() };
    namespaces.create(&PostParams::default(), &object).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let there =
        kube::runtime::wait::await_condition(accounts, "default", |object: Option<&ServiceAccount>| {
            object.is_some()
        });
    tokio::time::timeout(LIMIT, there).await.context("no service account")??;
    Ok(())
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn map(name: &str, group: &str) -> ConfigMap {
    let mut map = ConfigMap { metadata: named(name), ..ConfigMap::default() };
    map.labels_mut().insert("group".to_owned(), group.to_owned());
    map
}

/// Five objects, two at a time.
async fn list(client: &Client) -> Result<()> {
    let maps = maps(client);
    for number in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("list-{number}"), "list")).await?;
    }
    let mut parameters = ListParams::default().labels("group=list").limit(2);
    let mut names = Vec::new();
    let mut pages = 0;
    loop {
        let page = maps.list(&parameters).await?;
        pages += 1;
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    ensure!(names == ["list-0", "list-1", "list-2", "list-3", "list-4"], "{names:?}");
    ensure!(pages == 3, "{pages} pages");
    Ok(())
}

/// An object made, changed and deleted is seen so, and in that order.
async fn watch(client: &Client, config: watcher::Config) -> Result<()> {
    let maps = maps(client);
    let mut events = pin!(watcher(maps.clone(), config.labels("group=watch")));
    loop {
        match events.try_next().await?.context("the watch ended")? {
            watcher::Event::Init => {}
            watcher::Event::InitDone => break,
            event => bail!("{event:?} though nothing is there"),
        }
    }
    maps.create(&PostParams::default(), &map("watch", "watch")).await?;
    let change = json!({"data": {"a": "b"}});
    maps.patch("watch", &PatchParams::default(), &Patch::Merge(&change)).await?;
    maps.delete("watch", &DeleteParams::default()).await?;
    let told: Vec<watcher::Event<ConfigMap>> = events.take(3).try_collect().await?;
    match told.as_slice() {
        [watcher::Event::Apply(first), watcher::Event::Apply(second), watcher::Event::Delete(third)] => {
            ensure!(first.data.is_none() && second.data == third.data && second.data.is_some(), "{told:?}");
            Ok(())
        }
        other => bail!("told {other:?}"),
    }
}

/// The three kinds of patches, and a lost compare-and-swap.
async fn patch(client: &Client) -> Result<()> {
    let maps = maps(client);
    let made = maps.create(&PostParams::default(), &map("patch", "patch")).await?;
    let parameters = PatchParams::default();
    maps.patch("patch", &parameters, &Patch::Merge(json!({"data": {"a": "1", "b": "1"}}))).await?;
    maps.patch("patch", &parameters, &Patch::Strategic(json!({"data": {"b": null, "c": "1"}}))).await?;
    let operations = serde_json::from_value(json!([{"op": "replace", "path": "/data/a", "value": "2"}]))
        .context("a JSON patch")?;
    let patched = maps.patch("patch", &parameters, &Patch::Json::<()>(operations)).await?;
    let data = patched.data.clone().unwrap_or_default();
    ensure!(data == [("a".into(), "2".into()), ("c".into(), "1".into())].into(), "{data:?}");
    match maps.replace("patch", &PostParams::default(), &made).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => bail!("an old object was not refused: {other:?}"),
    }
}

/// Two managers, a conflict, and force.
async fn apply(client: &Client) -> Result<()> {
    let maps = maps(client);
    let config = |value: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "apply"}, "data": {"a": value},
        }))
    };
    maps.patch("apply", &PatchParams::apply("first"), &config("1")).await?;
    match maps.patch("apply", &PatchParams::apply("second"), &config("2")).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            ensure!(status.message.contains(r#"conflict with "first": .data.a"#), "{}", status.message);
        }
        other => bail!("the second manager was not refused: {other:?}"),
    }
    let taken = maps.patch("apply", &PatchParams::apply("second").force(), &config("2")).await?;
    let managers: Vec<_> =
        taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    ensure!(managers == ["second"], "{managers:?}");
    Ok(())
}

/// An object whose type is known by name only.
async fn dynamic(client: &Client) -> Result<()> {
    let kind = GroupVersionKind::gvk("apps", "v1", "Deployment");
    let (resource, _) = kube::discovery::pinned_kind(client, &kind).await?;
    ensure!(resource.plural == ApiResource::from_gvk(&kind).plural, "{resource:?}");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = DynamicObject::new("dynamic", &resource).data(json!({"spec": {
        "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "nodeSelector": {"nothing": "here"}, "containers": [{"name": "a", "image": "keelson.dev/pause:1"}],
        }},
    }}));
    let made = api.create(&PostParams::default(), &object).await?;
    ensure!(made.data["spec"]["revisionHistoryLimit"] == 10, "{}", made.data);
    let scale = api.get_scale("dynamic").await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(2), "the scale subresource");
    Ok(())
}

/// Two candidates want one lease: by compare-and-swap one has it, and the other when it is given up.
async fn election(client: &Client) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let claim = async |name: &str| -> Result<bool> {
        let now = Timestamp::now();
        let current = leases.get_opt("leader").await?;
        let version = current.as_ref().and_then(ResourceExt::resource_version);
        let spec = current.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if !holder.is_empty() && holder != name {
            return Ok(false);
        }
        let mut lease = Lease { metadata: named("leader"), ..Lease::default() };
        lease.metadata.resource_version = version.clone();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        });
        let outcome = match version {
            None => leases.create(&PostParams::default(), &lease).await,
            Some(_) => leases.replace("leader", &PostParams::default(), &lease).await,
        };
        match outcome {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let (a, b) = tokio::join!(claim("a"), claim("b"));
    let (a, b) = (a?, b?);
    ensure!(a != b, "a leads: {a}, b leads: {b}");
    let (leader, other) = if a { ("a", "b") } else { ("b", "a") };
    ensure!(claim(leader).await?, "{leader} cannot renew");
    ensure!(!claim(other).await?, "{other} leads too");
    let given_up = json!({"spec": {"holderIdentity": ""}});
    leases.patch("leader", &PatchParams::default(), &Patch::Merge(&given_up)).await?;
    ensure!(claim(other).await?, "{other} cannot take over");
    Ok(())
}
