//! The soak: 32 writers and four watchers on two servers while a member of etcd is killed every ten seconds.

use crate::control_planes::{Lab, SOON};
use crate::log::{Ops, Seen, check_against, check_order};
use crate::writer::{Counts, NAMESPACE, Writer, serial_of};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use keelson_testkit::etcd::{Etcd, missing};
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WRITERS: u64 = 32;
const KILL_EVERY: Duration = Duration::from_secs(10);

fn seconds() -> u64 {
    match std::env::var("KEELSON_SOAK_SECONDS") {
        Ok(text) => text.parse().expect("KEELSON_SOAK_SECONDS is a number"),
        Err(_) => 35,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_a_failing_etcd_lose_no_write_and_no_event() {
    if let Some(reason) = missing() {
        println!("SKIPPED: two API servers on a failing etcd: {reason}");
        return;
    }
    let mut lab = Lab::start().await;
    let clients = [lab.planes[0].client().await, lab.planes[1].client().await];
    let namespace = Namespace {
        metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() },
        ..Namespace::default()
    };
    Api::all(clients[0].clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");

    let start = newest(&clients[0]).await;
    let (stop, stopped) = tokio::sync::watch::channel(None::<u64>);
    let mut watchers = JoinSet::new();
    for index in 0..4 {
        watchers.spawn(watch(clients[index % 2].clone(), start, stopped.clone()));
    }
    let until = Instant::now() + Duration::from_secs(seconds());
    let mut writers = JoinSet::new();
    for id in 0..WRITERS {
        let (at, other) = (clients[id as usize % 2].clone(), clients[(id as usize + 1) % 2].clone());
        writers.spawn(Writer::new(id, at, other).run_while(move || Instant::now() < until));
    }
    let restarts = fail_members(&mut lab.etcd, until).await;

    let (mut ops, mut counts) = (Ops::new(), Counts::default());
    while let Some(writer) = writers.join_next().await {
        let writer = writer.expect("no panic").unwrap_or_else(|what| {
            panic!("{what}\n{}\n{}", lab.planes[0].log(), lab.planes[1].log());
        });
        counts.add(writer.counts);
        ops.extend(writer.ops);
    }
    let last = newest(&clients[0]).await;
    stop.send_replace(Some(last));
    let mut streams = Vec::new();
    while let Some(events) = watchers.join_next().await {
        streams.push(events.expect("no panic").expect("a watch"));
    }
    for (index, events) in streams.iter().enumerate() {
        check_order(events).unwrap_or_else(|what| panic!("watcher {index}: {what}"));
        check_against(&ops, events).unwrap_or_else(|what| panic!("watcher {index}: {what}"));
        assert!(events == &streams[0], "watchers {index} and 0 differ");
    }
    println!(
        "soak: {} s, {restarts} members killed, {counts:?}, {} events at each of {} watchers",
        seconds(),
        streams[0].len(),
        streams.len()
    );
    assert!(lab.planes.iter_mut().all(|plane| plane.is_running()));
    assert!(restarts >= seconds() / 10 - 1 && counts.lists > 0 && counts.writes > WRITERS * seconds());
}

/// Kills a member every ten seconds; the next one only when the last serves again.
async fn fail_members(etcd: &mut Etcd, until: Instant) -> u64 {
    let mut restarts = 0;
    let mut kills = tokio::time::interval(KILL_EVERY);
    kills.tick().await;
    loop {
        tokio::select! {
            _ = kills.tick() => {}
            () = tokio::time::sleep_until(until.into()) => return restarts,
        }
        let index = restarts as usize % etcd.size();
        etcd.kill(index).expect("a member ends");
        etcd.launch(index).expect("a member starts");
        tokio::task::block_in_place(|| etcd.wait(index)).expect("a member comes back");
        restarts += 1;
    }
}

async fn newest(client: &kube::Client) -> u64 {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let until = Instant::now() + SOON;
    loop {
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                return list.metadata.resource_version.unwrap_or_default().parse().expect("a revision");
            }
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Watches from a revision, resuming where a watch ended, until the revision it is told.
async fn watch(
    client: kube::Client,
    start: u64,
    mut stopped: tokio::sync::watch::Receiver<Option<u64>>,
) -> Result<Vec<Seen>, String> {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let mut version = start.to_string();
    let mut events: Vec<Seen> = Vec::new();
    // Until the last write there is nothing to compare the place with.
    let mut last: Option<u64> = None;
    let mut deadline = None;
    loop {
        let params = WatchParams::default();
        let mut stream = match api.watch(&params, &version).await {
            Ok(stream) => stream.boxed(),
            Err(error) => return Err(format!("no watch from {version}: {error}")),
        };
        loop {
            if last.is_some_and(|last| version.parse().is_ok_and(|place: u64| place >= last)) {
                return Ok(events);
            }
            let item = tokio::select! {
                item = stream.next() => item,
                _ = stopped.changed(), if last.is_none() => {
                    last = *stopped.borrow();
                    deadline = Some(Instant::now() + SOON);
                    continue;
                }
                () = tokio::time::sleep(SOON), if last.is_some() => return Err(format!("stuck at {version}")),
            };
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Err(format!("did not come further than {version} of {last:?}"));
            }
            let (kind, object) = match item {
                Some(Ok(WatchEvent::Added(object))) => ("ADDED", object),
                Some(Ok(WatchEvent::Modified(object))) => ("MODIFIED", object),
                Some(Ok(WatchEvent::Deleted(object))) => ("DELETED", object),
                Some(Ok(WatchEvent::Bookmark(mark))) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                Some(Ok(WatchEvent::Error(status))) => return Err(format!("cut at {version}: {status:?}")),
                Some(Err(_)) | None => break,
            };
            let name = object.metadata.name.clone().unwrap_or_default();
            version = object.metadata.resource_version.clone().unwrap_or_default();
            let revision = version.parse().map_err(|_| format!("no revision: {version:?}"))?;
            if name != "kube-root-ca.crt" {
                events.push(Seen { revision, kind, name, serial: serial_of(&object) });
            }
        }
    }
}
