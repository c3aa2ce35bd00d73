//! Tests of the cache over the memory store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_store::{Expect, MemoryStore, Revision, Store, Transaction, Write};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const PODS: &str = "/registry/pods/";

struct Fixture {
    store: MemoryStore,
    cache: WatchCache,
}

fn fixture() -> Fixture {
    let store = MemoryStore::new();
    let fields = Arc::new(JsonPaths::from_labels(["spec.nodeName"]));
    let settings = Settings { prefix: PODS.to_owned(), namespaced: true, fields };
    Fixture { cache: WatchCache::new(Arc::new(store.clone()), settings), store }
}

fn pod(key: &str, node: &str, label: &str) -> Bytes {
    let (namespace, name) = key.split_once('/').unwrap();
    Bytes::from(format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"u","labels":{{"l":"{label}"}}}},"spec":{{"nodeName":"{node}"}}}}"#
    ))
}

impl Fixture {
    async fn write(&self, write: Write) -> Revision {
        let transaction = Transaction { guards: Vec::new(), writes: vec![write] };
        self.store.commit(transaction).await.unwrap().revision
    }

    async fn put(&self, key: &str, node: &str, label: &str) -> Revision {
        self.write(Write::Put { key: format!("{PODS}{key}"), value: pod(key, node, label) }).await
    }

    async fn delete(&self, key: &str) -> Revision {
        self.write(Write::Delete { key: format!("{PODS}{key}") }).await
    }

    /// A write of another resource: the revision moves on, pods do not.
    async fn elsewhere(&self) -> Revision {
        self.write(Write::Put { key: "/registry/leases/x/y".to_owned(), value: Bytes::from_static(b"{}") })
            .await
    }

    async fn names(&self, query: ListQuery) -> Vec<String> {
        self.cache.list(query).await.unwrap().objects.iter().map(|object| object.key().to_owned()).collect()
    }
}

fn all() -> ListQuery {
    ListQuery { scope: Scope::All, filter: None, limit: 0, after: None, at: ReadAt::Newest }
}

fn watch_all(start: Start) -> WatchQuery {
    WatchQuery { scope: Scope::All, filter: None, start, bookmarks: false }
}

fn labelled(value: &'static str) -> Option<Filter> {
    Some(Arc::new(move |object: &Object| object.label("l").as_deref() == Some(value)))
}

async fn next(watch: &mut WatchStream) -> WatchItem {
    tokio::time::timeout(Duration::from_secs(10), watch.next()).await.expect("an item").unwrap().unwrap()
}

/// The next event as text: `Added ns/name @ revision`.
async fn event(watch: &mut WatchStream) -> String {
    match next(watch).await {
        WatchItem::Event(delivery) => format!("{delivery:?}"),
        other => panic!("an event, not {other:?}"),
    }
}

async fn nothing(watch: &mut WatchStream) {
    tokio::select! {
        biased;
        item = watch.next() => panic!("nothing, not {item:?}"),
        () = settled() => {}
    }
}

/// Lets all other tasks run until they wait.
async fn settled() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn reads_its_own_writes() {
    let fixture = fixture();
    for n in 0..200 {
        let key = format!("a/p{}", n % 7);
        let revision = fixture.put(&key, "k", "x").await;
        let (object, at) = fixture.cache.get(&key, ReadAt::Newest).await.unwrap();
        assert_eq!((object.unwrap().revision(), at), (revision, revision));
        let elsewhere = fixture.elsewhere().await;
        assert_eq!(fixture.cache.list(all()).await.unwrap().revision, elsewhere);
        let gone = fixture.delete(&key).await;
        let (object, at) = fixture.cache.get(&key, ReadAt::Newest).await.unwrap();
        assert_eq!((object.is_none(), at), (true, gone));
    }
}

/// The feed's task cannot run in between: what is seen was taken in here.
#[tokio::test]
async fn whoever_pulls_sees_what_is_written_and_watchers_are_told() {
    let fixture = fixture();
    fixture.put("a/p", "k", "x").await;
    let mut watch = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    nothing(&mut watch).await;
    let revision = fixture.put("a/p", "k", "y").await;
    let seen = |fixture: &Fixture| fixture.cache.peek("a/p").unwrap().revision();
    assert!(seen(&fixture) < revision);
    fixture.cache.pull();
    assert_eq!(seen(&fixture), revision);
    assert_eq!(event(&mut watch).await, format!("Modified a/p @ {revision}"));
    // The task goes on where whoever pulled left off.
    let revision = fixture.put("a/q", "k", "x").await;
    assert_eq!(event(&mut watch).await, format!("Added a/q @ {revision}"));
    nothing(&mut watch).await;
}

#[derive(Default)]
struct Observed(parking_lot::Mutex<Vec<String>>);

impl Observer for Observed {
    fn change(&self, key: &str, object: Option<&Object>) {
        self.0.lock().push(format!("{key} {}", object.map_or(0, Object::revision)));
    }
}

impl Observed {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

#[tokio::test]
async fn observers_see_what_is_held_and_then_every_change_in_order() {
    let fixture = fixture();
    let first = fixture.put("a/p", "k", "x").await;
    let kept = fixture.put("b/p", "k", "x").await;
    fixture.names(all()).await;
    let observed = Arc::new(Observed::default());
    fixture.cache.observe(observed.clone());
    assert_eq!(observed.take(), [format!("a/p {first}"), format!("b/p {kept}")]);
    let second = fixture.put("a/p", "k", "y").await;
    fixture.elsewhere().await;
    fixture.delete("a/p").await;
    let third = fixture.put("a/p", "k", "z").await;
    fixture.cache.pull();
    assert_eq!(observed.take(), [format!("a/p {second}"), "a/p 0".to_owned(), format!("a/p {third}")]);
    // Filled anew: what went meanwhile is told of too.
    fixture.delete("a/p").await;
    fixture.cache.inner.load().await.unwrap();
    let seen = observed.take();
    assert_eq!(seen.iter().filter(|seen| *seen == "a/p 0").count(), 1, "{seen:?}");
    assert_eq!(seen.last(), Some(&format!("b/p {kept}")));
    assert_eq!(fixture.names(all()).await, ["b/p"]);
}

#[tokio::test]
async fn lists_scopes_filters_and_pages() {
    let fixture = fixture();
    for (key, node, label) in [
        ("a/p1", "k1", "x"),
        ("a/p2", "k2", "y"),
        ("a-b/p1", "k1", "x"),
        ("b/p1", "k1", "y"),
        ("b/p2", "k1", "x"),
        ("b/p3", "k1", "x"),
    ] {
        fixture.put(key, node, label).await;
    }
    let scoped = |scope| ListQuery { scope, ..all() };
    assert_eq!(fixture.names(all()).await, ["a-b/p1", "a/p1", "a/p2", "b/p1", "b/p2", "b/p3"]);
    assert_eq!(fixture.names(scoped(Scope::Namespace("a".into()))).await, ["a/p1", "a/p2"]);
    assert_eq!(fixture.names(scoped(Scope::Namespace("c".into()))).await, [""; 0]);
    assert_eq!(fixture.names(scoped(Scope::Key("b/p2".into()))).await, ["b/p2"]);
    assert_eq!(fixture.names(ListQuery { filter: labelled("y"), ..all() }).await, ["a/p2", "b/p1"]);
    let node = fixture.cache.field_index("spec.nodeName").unwrap();
    let on_k2: Filter = Arc::new(move |object: &Object| object.field(node) == "k2");
    assert_eq!(fixture.names(ListQuery { filter: Some(on_k2), ..all() }).await, ["a/p2"]);
    assert!(fixture.cache.field_index("spec.other").is_none());

    // (filter, limit) -> the pages with what remains
    let mut seen = Vec::new();
    for (filter, limit) in [(None, 4), (labelled("x"), 2), (None, 6)] {
        let mut query = ListQuery { filter, limit, ..all() };
        loop {
            let list = fixture.cache.list(query.clone()).await.unwrap();
            seen.push((list.objects.len(), list.remaining, list.continue_after.clone()));
            match list.continue_after {
                Some(after) => {
                    query = ListQuery { after: Some(after), at: ReadAt::Exact(list.revision), ..query }
                }
                None => break,
            }
        }
    }
    let key = |key: &str| Some(key.to_owned());
    let expected = [
        (4, Some(2), key("b/p1")),
        (2, None, None),
        (2, None, key("a/p1")),
        (2, None, None),
        (6, None, None),
    ];
    assert_eq!(seen, expected);
    let in_b = ListQuery { scope: Scope::Namespace("b".into()), limit: 1, ..all() };
    assert_eq!(fixture.cache.list(in_b).await.unwrap().remaining, Some(2));
}

#[tokio::test(start_paused = true)]
async fn serves_old_revisions_while_they_last() {
    let fixture = fixture();
    let first = fixture.put("a/p1", "k", "x").await;
    let second = fixture.put("a/p2", "k", "y").await;
    fixture.delete("a/p1").await;
    fixture.put("a/p3", "k", "x").await;
    let exact = |revision| ListQuery { at: ReadAt::Exact(revision), ..all() };
    assert_eq!(fixture.names(exact(first)).await, ["a/p1"]);
    assert_eq!(fixture.names(exact(second)).await, ["a/p1", "a/p2"]);
    assert_eq!(fixture.names(ListQuery { filter: labelled("y"), ..exact(second) }).await, ["a/p2"]);
    let page = fixture.cache.list(ListQuery { limit: 1, ..exact(second) }).await.unwrap();
    assert_eq!((page.continue_after.as_deref(), page.remaining), (Some("a/p1"), Some(1)));
    let key = fixture.cache.get("a/p1", ReadAt::Exact(second)).await.unwrap();
    assert_eq!(key.0.unwrap().revision(), first);
    // Unchanged since: from the cache, at the revision asked for.
    let elsewhere = fixture.elsewhere().await;
    fixture.elsewhere().await;
    let list = fixture.cache.list(exact(elsewhere)).await.unwrap();
    assert_eq!((list.objects.len(), list.revision), (2, elsewhere));
    // Until it is compacted, which tokens of old learn although nothing has changed.
    fixture.store.compact(elsewhere + 1).await.unwrap();
    tokio::time::advance(std::time::Duration::from_secs(300)).await;
    let error = fixture.cache.list(exact(elsewhere)).await.unwrap_err();
    assert!(matches!(error, CacheError::Expired { requested, .. } if requested == elsewhere), "{error}");
    let error = fixture.cache.get("a/p2", ReadAt::Exact(elsewhere)).await.unwrap_err();
    assert!(matches!(error, CacheError::Expired { .. }), "{error}");

    fixture.store.compact(second + 1).await.unwrap();
    let error = fixture.cache.list(exact(second)).await.unwrap_err();
    assert!(matches!(error, CacheError::Expired { requested, .. } if requested == second), "{error}");
}

#[tokio::test(start_paused = true)]
async fn waits_for_the_future_and_then_gives_up() {
    let fixture = fixture();
    let revision = fixture.put("a/p1", "k", "x").await;
    let at = |revision| ListQuery { at: ReadAt::NotOlderThan(revision), ..all() };
    assert_eq!(fixture.cache.list(at(revision)).await.unwrap().revision, revision);
    let error = fixture.cache.list(at(revision + 1)).await.unwrap_err();
    assert!(
        matches!(error, CacheError::TooLarge { requested, current } if (requested, current) == (revision + 1, revision))
    );
    let error = fixture.cache.get("a/p1", ReadAt::Exact(revision + 9)).await.unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { .. }), "{error}");
    let (list, written) = tokio::join!(fixture.cache.list(at(revision + 1)), fixture.elsewhere());
    assert_eq!(list.unwrap().revision, written);
    assert_eq!(fixture.cache.list(ListQuery { at: ReadAt::Any, ..all() }).await.unwrap().objects.len(), 1);
}

#[tokio::test]
async fn watches_live_with_kinds_from_the_previous_state() {
    let fixture = fixture();
    fixture.put("a/p1", "k", "x").await;
    let mut watch = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    nothing(&mut watch).await;
    let r = fixture.put("a/p1", "k", "y").await;
    fixture.put("a/p2", "k", "y").await;
    fixture.delete("a/p1").await;
    assert_eq!(event(&mut watch).await, format!("Modified a/p1 @ {r}"));
    assert_eq!(event(&mut watch).await, format!("Added a/p2 @ {}", r + 1));
    assert_eq!(event(&mut watch).await, format!("Deleted a/p1 @ {}", r + 2));
    nothing(&mut watch).await;
}

#[tokio::test]
async fn a_selector_watch_makes_added_and_deleted() {
    let fixture = fixture();
    fixture.put("a/p1", "k", "x").await;
    let query = WatchQuery { filter: labelled("y"), ..watch_all(Start::Now) };
    let mut watch = fixture.cache.watch(query).await.unwrap();
    let r = fixture.put("a/p1", "k", "y").await;
    fixture.put("a/p1", "k2", "y").await;
    let out = fixture.put("a/p1", "k2", "x").await;
    fixture.put("a/p1", "k3", "x").await;
    fixture.delete("a/p1").await;
    assert_eq!(event(&mut watch).await, format!("Added a/p1 @ {r}"));
    assert_eq!(event(&mut watch).await, format!("Modified a/p1 @ {}", r + 1));
    let WatchItem::Event(last) = next(&mut watch).await else { panic!("an event") };
    assert_eq!((last.kind(), last.revision()), (EventKind::Deleted, out));
    // The last state that matched, under the new revision.
    assert_eq!((last.object().label("l").as_deref(), last.object().revision()), (Some("y"), r + 1));
    nothing(&mut watch).await;
}

#[tokio::test]
async fn resumes_from_the_window_and_from_history() {
    let fixture = fixture();
    let first = fixture.put("a/p0", "k", "x").await;
    fixture.put("a/p1", "k", "x").await;
    // The cache begins here: what is older comes from the store.
    assert_eq!(fixture.names(all()).await.len(), 2);
    fixture.put("a/p2", "k", "x").await;
    let last = fixture.delete("a/p1").await;
    for after in first..=last {
        let mut watch = fixture.cache.watch(watch_all(Start::After(after))).await.unwrap();
        let mut seen = Vec::new();
        for _ in after..last {
            seen.push(event(&mut watch).await);
        }
        let every = [
            format!("Added a/p1 @ {}", first + 1),
            format!("Added a/p2 @ {}", first + 2),
            format!("Deleted a/p1 @ {last}"),
        ];
        assert_eq!(seen, every[(after - first) as usize..]);
        nothing(&mut watch).await;
    }
    fixture.store.compact(first + 1).await.unwrap();
    let error = fixture.cache.watch(watch_all(Start::After(first))).await.err().expect("410");
    assert!(matches!(error, CacheError::Expired { .. }), "{error}");
    // A future revision is waited for.
    let mut watch = fixture.cache.watch(watch_all(Start::After(last + 2))).await.unwrap();
    for n in 0..3 {
        fixture.put("a/p9", "k", &format!("{n}")).await;
    }
    assert_eq!(event(&mut watch).await, format!("Modified a/p9 @ {}", last + 3));
}

#[tokio::test]
async fn sends_initial_events_and_their_bookmark() {
    let fixture = fixture();
    for key in ["a/p1", "b/p1", "b/p2", "c/p1"] {
        fixture.put(key, "k", "x").await;
    }
    let revision = fixture.elsewhere().await;
    let start = Start::State { at: ReadAt::Newest, end_bookmark: true };
    let query = WatchQuery { scope: Scope::Namespace("b".into()), ..watch_all(start) };
    let mut watch = fixture.cache.watch(query).await.unwrap();
    let later = fixture.put("b/p3", "k", "x").await;
    fixture.put("a/p9", "k", "x").await;
    assert!(event(&mut watch).await.starts_with("Added b/p1"));
    assert!(event(&mut watch).await.starts_with("Added b/p2"));
    assert!(matches!(next(&mut watch).await, WatchItem::InitialEventsEnd(at) if at == revision));
    assert_eq!(event(&mut watch).await, format!("Added b/p3 @ {later}"));
    nothing(&mut watch).await;
}

#[tokio::test(start_paused = true)]
async fn sends_bookmarks_only_when_asked_and_when_they_say_something() {
    let fixture = fixture();
    fixture.put("a/p1", "k", "x").await;
    let query = WatchQuery { bookmarks: true, ..watch_all(Start::Now) };
    let mut with = fixture.cache.watch(query).await.unwrap();
    let mut without = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    // Nothing of pods changes, but the revision goes on.
    let revision = fixture.elsewhere().await;
    assert!(matches!(next_within(&mut with, 61).await, Some(WatchItem::Bookmark(at)) if at == revision));
    assert!(next_within(&mut with, 300).await.is_none());
    let written = fixture.put("a/p2", "k", "x").await;
    assert!(matches!(next_within(&mut with, 1).await, Some(WatchItem::Event(_))));
    assert!(next_within(&mut with, 300).await.is_none());
    assert_eq!(event(&mut without).await, format!("Added a/p2 @ {written}"));
    assert!(next_within(&mut without, 300).await.is_none());
}

async fn next_within(watch: &mut WatchStream, seconds: u64) -> Option<WatchItem> {
    let item = tokio::time::timeout(Duration::from_secs(seconds), watch.next()).await;
    item.ok().map(|item| item.unwrap().unwrap())
}

#[tokio::test]
async fn an_event_is_encoded_once_for_all() {
    let fixture = fixture();
    let mut first = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    let mut second = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    fixture.put("a/p1", "k", "x").await;
    let (WatchItem::Event(one), WatchItem::Event(two)) = (next(&mut first).await, next(&mut second).await)
    else {
        panic!("events")
    };
    let bytes = one.encoded(1, |delivery| Bytes::from(format!("{delivery:?}")));
    assert_eq!(two.encoded(1, |_| panic!("it is encoded already")), bytes);
    assert_eq!(two.encoded(2, |_| Bytes::from_static(b"other")), "other");
}

/// Watchers that are read at random, with and without selectors, against the store's own history.
#[tokio::test]
async fn slow_watchers_miss_nothing_and_see_nothing_twice() {
    let fixture = fixture();
    let mut random = StdRng::seed_from_u64(11);
    let begin = fixture.put("a/p0", "k0", "x").await;
    let filters = [None, labelled("x"), labelled("y")];
    let mut watchers = Vec::new();
    for filter in &filters {
        for _ in 0..3 {
            let query = WatchQuery { filter: filter.clone(), ..watch_all(Start::After(begin)) };
            watchers.push((filter.clone(), fixture.cache.watch(query).await.unwrap(), Vec::new()));
        }
    }
    for _ in 0..12_000 {
        let key = format!("{}/p{}", ["a", "b"][random.random_range(0..2)], random.random_range(0..20));
        if random.random_bool(0.3) {
            fixture.delete(&key).await;
        } else {
            let label = ["x", "y", "z"][random.random_range(0..3)];
            fixture.put(&key, "k", label).await;
        }
        if random.random_bool(0.05) {
            settled().await;
            // The first of each three is read to its end, the last hardly ever.
            for (index, (_, watch, seen)) in watchers.iter_mut().enumerate() {
                let most = [usize::MAX, 3, usize::from(random.random_bool(0.02))][index % 3];
                read_some(watch, seen, most).await;
            }
        }
    }
    settled().await;
    for (filter, watch, seen) in &mut watchers {
        read_some(watch, seen, usize::MAX).await;
        let expected = expected(&fixture, begin, filter.as_ref()).await;
        assert_eq!(seen.len(), expected.len());
        assert_eq!(*seen, expected);
    }
}

async fn read_some(watch: &mut WatchStream, seen: &mut Vec<String>, most: usize) {
    for _ in 0..most {
        tokio::select! {
            biased;
            item = watch.next() => match item.unwrap().unwrap() {
                WatchItem::Event(delivery) => seen.push(format!("{delivery:?}")),
                other => panic!("an event, not {other:?}"),
            },
            () = settled() => return,
        }
    }
}

/// What a watcher must see, by the store's history and the plain rule.
async fn expected(fixture: &Fixture, begin: Revision, filter: Option<&Filter>) -> Vec<String> {
    use futures::StreamExt;
    let mut history = fixture.store.watch(PODS, begin).await.unwrap();
    let matches = |value: Option<&Bytes>| {
        value.is_some_and(|value| {
            let object = Object::new("a/b", value, 1, true, &JsonPaths::none()).unwrap();
            filter.is_none_or(|filter| filter(&object))
        })
    };
    let mut seen = Vec::new();
    while let Some(Ok(keelson_store::WatchItem::Event(event))) = history.next().await {
        let kind = match (matches(event.prev.as_ref().map(|prev| &prev.value)), matches(event.value.as_ref()))
        {
            (false, true) => "Added",
            (true, true) => "Modified",
            (true, false) => "Deleted",
            (false, false) => continue,
        };
        seen.push(format!("{kind} {} @ {}", event.key.strip_prefix(PODS).unwrap(), event.revision));
    }
    seen
}

#[tokio::test]
async fn a_list_body_is_the_list() {
    let fixture = fixture();
    for n in 0..500 {
        fixture.put(&format!("a/p{n:03}"), "k", &"x".repeat(n)).await;
    }
    for (limit, part) in [(0, Part::Whole), (1, Part::Whole), (3, Part::Metadata)] {
        let list = fixture.cache.list(ListQuery { limit, ..all() }).await.unwrap();
        let head = Bytes::from(format!(
            r#"{{"kind":"PodList","metadata":{{"resourceVersion":"{}"}},"items":["#,
            list.revision
        ));
        let (count, first) = (list.objects.len(), list.objects[0].revision());
        let body = list.into_body(
            head,
            Form { head: Bytes::from_static(b"\"kind\":\"P\","), part },
            Bytes::from_static(b"]}"),
        );
        let length = body.len();
        let chunks: Vec<Bytes> = body.collect();
        assert!(chunks.len() > 1 || limit > 0);
        let text = chunks.concat();
        assert_eq!(text.len() as u64, length);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["items"].as_array().unwrap().len(), count);
        assert_eq!(value["items"][0]["metadata"]["resourceVersion"], first.to_string());
        assert_eq!(value["items"][0].get("spec").is_some(), part == Part::Whole);
    }
    let none = ListQuery { scope: Scope::Namespace("none".into()), ..all() };
    let body = fixture.cache.list(none).await.unwrap().into_body(
        Bytes::from_static(b"["),
        Form { head: Bytes::new(), part: Part::Whole },
        Bytes::from_static(b"]"),
    );
    assert_eq!((body.len(), body.collect::<Vec<_>>().concat()), (2, b"[]".to_vec()));
}

#[tokio::test]
async fn a_closed_store_cuts_watchers_and_fails_reads() {
    let fixture = fixture();
    fixture.put("a/p1", "k", "x").await;
    let mut watch = fixture.cache.watch(watch_all(Start::Now)).await.unwrap();
    fixture.store.close().await.unwrap();
    assert!(matches!(watch.next().await, Some(Err(CacheError::Restarted { .. }))));
    assert!(watch.next().await.is_none());
    let error = fixture.cache.list(all()).await.unwrap_err();
    assert!(matches!(error, CacheError::Store(_)), "{error}");
}

#[tokio::test]
async fn caches_are_made_once_and_forgotten() {
    let store = MemoryStore::new();
    let caches = WatchCaches::new(Arc::new(store.clone()));
    let make = || Settings { prefix: PODS.to_owned(), namespaced: true, fields: Arc::new(JsonPaths::none()) };
    let cache = caches.resource(PODS, make);
    assert!(Arc::ptr_eq(&cache, &caches.resource(PODS, || panic!("it is there"))));
    let mut watch = cache.watch(watch_all(Start::Now)).await.unwrap();
    caches.remove(PODS);
    assert!(matches!(watch.next().await, Some(Err(CacheError::Gone { .. }))));
    assert!(!Arc::ptr_eq(&cache, &caches.resource(PODS, make)));
}

#[tokio::test]
async fn guards_see_what_the_cache_sees() {
    let fixture = fixture();
    let revision = fixture.put("a/p1", "k", "x").await;
    let seen = fixture.cache.get("a/p1", ReadAt::Newest).await.unwrap().0.unwrap();
    let key = format!("{PODS}a/p1");
    let guards = vec![(key.clone(), Expect::Revision(seen.revision()))];
    let writes = vec![Write::Delete { key }];
    assert_eq!(fixture.store.commit(Transaction { guards, writes }).await.unwrap().revision, revision + 1);
    assert!(fixture.cache.get("a/p1", ReadAt::Newest).await.unwrap().0.is_none());
}

#[test]
fn an_object_costs_little_beside_its_bytes() {
    assert!(std::mem::size_of::<Object>() <= 72, "{}", std::mem::size_of::<Object>());
}
