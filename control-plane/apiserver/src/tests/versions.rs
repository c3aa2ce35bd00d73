//! What resourceVersion, resourceVersionMatch, limit, continue and sendInitialEvents mean together, as the table in
//! upstream's documentation says ("Resource versions" in "Kubernetes API Concepts") and as `storage.ValidateListOptions`
//! and the storage tests (`apiserver/pkg/storage/testing/store_tests.go`) have it.

use serde_json::{Value, json};

use super::harness::*;

/// Three config maps: `{a}`, `{b}` and `{c}` in queries are the revisions at which each was created, `{next}` is the
/// token of a list of one at `{b}`.
struct Made {
    lab: Lab,
    a: u64,
    b: u64,
    c: u64,
    next: String,
}

impl Made {
    async fn start() -> Made {
        let lab = Lab::start().await;
        let mut revisions = Vec::new();
        for name in ["a", "b", "c"] {
            let made = lab.post(CONFIG_MAPS, &config_map(name, json!({}))).await.expect(201);
            revisions.push(made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap());
        }
        let (a, b, c) = (revisions[0], revisions[1], revisions[2]);
        let path = format!("{CONFIG_MAPS}?resourceVersion={b}&resourceVersionMatch=Exact&limit=1");
        let page = lab.get(&path).await.expect(200);
        let next = page["metadata"]["continue"].as_str().unwrap().to_owned();
        Made { lab, a, b, c, next }
    }

    fn path(&self, query: &str) -> String {
        let query = query
            .replace("{a}", &self.a.to_string())
            .replace("{b}", &self.b.to_string())
            .replace("{c}", &self.c.to_string())
            .replace("{next}", &self.next)
            .replace("{future}", "99999999");
        format!("{CONFIG_MAPS}?{query}")
    }

    /// Names and the list's version: that of one of the three, or `now`.
    async fn list(&self, query: &str) -> Result<(String, &'static str), u16> {
        let answer = self.lab.get(&self.path(query)).await;
        if answer.code != 200 {
            return Err(answer.code);
        }
        let list = answer.json();
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        let version: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let at = match version {
            version if version == self.a => "a",
            version if version == self.b => "b",
            version if version >= self.c => "now",
            _ => "?",
        };
        Ok((names.concat(), at))
    }
}

const ANY: &str = "resourceVersion=0";

#[tokio::test]
async fn lists() {
    let made = Made::start().await;
    let exact = "resourceVersionMatch=Exact";
    let not_older = "resourceVersionMatch=NotOlderThan";
    for (query, expected) in [
        // Most recent.
        (String::new(), Ok(("abc", "now"))),
        ("limit=2".into(), Ok(("ab", "now"))),
        // Any; a limit says nothing where the watch cache answers.
        (ANY.into(), Ok(("abc", "now"))),
        (format!("{ANY}&limit=2"), Ok(("abc", "now"))),
        (format!("{ANY}&{not_older}"), Ok(("abc", "now"))),
        (format!("{ANY}&{not_older}&limit=2"), Ok(("abc", "now"))),
        // Not older than.
        ("resourceVersion={b}".into(), Ok(("abc", "now"))),
        (format!("resourceVersion={{b}}&{not_older}"), Ok(("abc", "now"))),
        (format!("resourceVersion={{b}}&{not_older}&limit=2"), Ok(("ab", "now"))),
        // Exact; a limit without a match is the old way to ask for it.
        (format!("resourceVersion={{b}}&{exact}"), Ok(("ab", "b"))),
        (format!("resourceVersion={{a}}&{exact}"), Ok(("a", "a"))),
        (format!("resourceVersion={{b}}&{exact}&limit=1"), Ok(("a", "b"))),
        ("resourceVersion={b}&limit=1".into(), Ok(("a", "b"))),
        ("resourceVersion={b}&limit=5".into(), Ok(("ab", "b"))),
        // A token carries its own version.
        ("continue={next}".into(), Ok(("b", "b"))),
        ("continue={next}&limit=1".into(), Ok(("b", "b"))),
        (format!("continue={{next}}&{ANY}"), Ok(("b", "b"))),
        ("continue={next}&resourceVersion={b}".into(), Err(400)),
        (format!("continue={{next}}&{exact}"), Err(422)),
        (format!("continue={{next}}&{exact}&resourceVersion={{b}}"), Err(422)),
        (format!("continue={{next}}&{not_older}"), Err(422)),
        ("continue=nonsense".into(), Err(400)),
        // A match needs a version, and the right one.
        (exact.into(), Err(422)),
        (not_older.into(), Err(422)),
        (format!("{ANY}&{exact}"), Err(422)),
        ("resourceVersion={b}&resourceVersionMatch=Other".into(), Err(422)),
        // What is no version, and what is not there yet.
        ("resourceVersion=x".into(), Err(400)),
        (format!("resourceVersion=x&{exact}"), Err(400)),
        ("resourceVersion=-1".into(), Err(400)),
        ("resourceVersion={future}".into(), Err(504)),
        (format!("resourceVersion={{future}}&{not_older}"), Err(504)),
        (format!("resourceVersion={{future}}&{exact}"), Err(504)),
        ("resourceVersion={future}&limit=1".into(), Err(504)),
        // Options of watches.
        ("sendInitialEvents=true".into(), Err(422)),
    ] {
        let got = made.list(&query).await;
        let got = got.as_ref().map(|(names, at)| (names.as_str(), *at)).map_err(|code| *code);
        assert_eq!(got, expected, "{query}");
    }
}

#[tokio::test]
async fn what_is_compacted() {
    let made = Made::start().await;
    made.lab.store.compact(made.c).await.unwrap();
    made.lab.get(CONFIG_MAPS).await.expect(200);
    let gone = |answer: Answer| {
        let status = answer.expect(410);
        assert_eq!(status["reason"], "Expired");
        (status["message"].as_str().unwrap().to_owned(), status["metadata"]["continue"].clone())
    };
    for query in ["resourceVersion={a}&resourceVersionMatch=Exact", "resourceVersion={a}&limit=1"] {
        let (message, token) = gone(made.lab.get(&made.path(query)).await);
        assert_eq!(message, "The resourceVersion for the provided list is too old.");
        assert!(token.is_null(), "{query}");
    }
    // Not older than: the newest is.
    assert_eq!(made.list("resourceVersion={a}").await, Ok(("abc".into(), "now")));
    let (message, token) = gone(made.lab.get(&made.path("continue={next}&limit=1")).await);
    assert!(
        message
            .starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
    let rest = made.list(&format!("continue={}", token.as_str().unwrap())).await;
    assert_eq!(rest, Ok(("bc".into(), "now")), "goes on after the last key at the newest state");
    // A watch from there says so as its only event.
    let mut watch = made.lab.watch(&made.path("watch=1&resourceVersion={a}"), &[]).await;
    let event = watch.next().await.unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert!(watch.next().await.is_none(), "and ends");
}

#[tokio::test]
async fn remaining_items_are_counted_without_selectors_only() {
    let made = Made::start().await;
    for (query, remaining) in [
        ("limit=1", json!(2)),
        ("limit=2", json!(1)),
        ("limit=3", Value::Null),
        ("limit=1&labelSelector=!x", Value::Null),
        ("limit=1&fieldSelector=metadata.namespace%3Ddefault", Value::Null),
    ] {
        let list = made.lab.get(&made.path(query)).await.expect(200);
        assert_eq!(list["metadata"]["remainingItemCount"], remaining, "{query}");
        assert_eq!(list["metadata"]["continue"].is_null(), query == "limit=3", "{query}");
    }
}

/// The events up to the first bookmark, or the first that is made after the watch began (`d`).
async fn first_events(made: &Made, query: &str) -> Result<String, u16> {
    let path = made.path(&format!("watch=1&{query}"));
    // A refused watch answers as a list does.
    let refused = made.lab.get(&format!("{path}&timeoutSeconds=1")).await.code;
    if refused != 200 {
        return Err(refused);
    }
    let mut frames = made.lab.watch(&path, &[]).await;
    let name = format!("d{}", made.lab.revision().await);
    made.lab.post(CONFIG_MAPS, &config_map(&name, json!({}))).await.expect(201);
    let mut seen = Vec::new();
    loop {
        let event = frames.next().await.expect("an event");
        if event["type"] == "BOOKMARK" {
            let metadata = &event["object"]["metadata"];
            assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true", "{event}");
            assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() >= made.c);
            seen.push("bookmark".to_owned());
            break;
        }
        assert_eq!(event["type"], "ADDED", "{event}");
        let named = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        let last = named == name;
        seen.push(if last { "new".to_owned() } else { named });
        if last {
            break;
        }
    }
    Ok(seen.join(" "))
}

#[tokio::test]
async fn watches() {
    let not_older = "resourceVersionMatch=NotOlderThan";
    let initial = format!("sendInitialEvents=true&{not_older}");
    let none = format!("sendInitialEvents=false&{not_older}");
    for (query, expected) in [
        // The state, then changes.
        (String::new(), Ok("a b c new")),
        (ANY.into(), Ok("a b c new")),
        // Changes after the version.
        ("resourceVersion={a}".into(), Ok("b c new")),
        ("resourceVersion={c}".into(), Ok("new")),
        // The state and where it ends, where bookmarks are taken.
        (format!("{initial}&allowWatchBookmarks=true"), Ok("a b c bookmark")),
        (format!("{initial}&allowWatchBookmarks=true&{ANY}"), Ok("a b c bookmark")),
        (format!("{initial}&allowWatchBookmarks=true&resourceVersion={{a}}"), Ok("a b c bookmark")),
        (format!("{initial}&resourceVersion={{a}}"), Ok("a b c new")),
        // No state.
        (none.clone(), Ok("new")),
        (format!("{none}&{ANY}"), Ok("new")),
        (format!("{none}&resourceVersion={{b}}"), Ok("c new")),
        // Refused.
        ("sendInitialEvents=true".into(), Err(422)),
        ("sendInitialEvents=true&resourceVersionMatch=Exact".into(), Err(422)),
        (not_older.into(), Err(422)),
        ("resourceVersionMatch=Exact".into(), Err(422)),
        (format!("{initial}&continue=x"), Err(422)),
        ("resourceVersion=x".into(), Err(500)),
    ] {
        // A server for each: a watch from the past sees what the one before it wrote.
        let got = first_events(&Made::start().await, &query).await;
        assert_eq!(got.as_deref().map_err(|code| *code), expected, "{query}");
    }
}

#[tokio::test]
async fn single_objects() {
    let made = Made::start().await;
    for (query, code) in [
        ("", 200),
        ("resourceVersion=0", 200),
        ("resourceVersion={a}", 200),
        ("resourceVersion={future}", 504),
        ("resourceVersion=x", 500),
    ] {
        let path = made.path(query).replace('?', "/a?");
        assert_eq!(made.lab.get(&path).await.code, code, "{query}");
    }
}

#[tokio::test]
async fn every_answer_of_a_deprecated_version_says_so() {
    let lab = Lab::start().await;
    const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
    let text = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";
    let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}});
    let made = lab.post(ENDPOINTS, &object).await;
    assert_eq!((made.code, made.warnings()), (201, vec![text.to_owned()]));
    for path in [ENDPOINTS.to_owned(), format!("{ENDPOINTS}/e"), format!("{ENDPOINTS}/none")] {
        assert_eq!(lab.get(&path).await.warnings(), [text], "{path}");
    }
    let slices = lab.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices").await;
    assert_eq!(slices.warnings(), Vec::<String>::new());
}
