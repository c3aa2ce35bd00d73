//! Patches against upstream's own tables and against what clients do.

use serde_json::{Value, json};

use super::*;
use crate::schema::PatchStrategy;
use crate::t;

/// The schema of upstream's strategic merge tables: field, strategy, merge key, and whether it leads to the same or the
/// `retainKeys` struct.
const MERGE_ITEM: &[(&str, PatchStrategy, &str)] = &[
    ("mergingList", PatchStrategy::MERGE, "name"),
    ("nonMergingList", PatchStrategy::NONE, ""),
    ("mergingIntList", PatchStrategy::MERGE, ""),
    ("nonMergingIntList", PatchStrategy::NONE, ""),
    ("mergeItemPtr", PatchStrategy::MERGE, "name"),
    ("simpleMap", PatchStrategy::NONE, ""),
    ("replacingItem", PatchStrategy::REPLACE, ""),
    ("jsonItem", PatchStrategy::NONE, ""),
    ("retainKeysMap", PatchStrategy::RETAIN_KEYS, ""),
    ("retainKeysMergingList", PatchStrategy(PatchStrategy::MERGE.0 | PatchStrategy::RETAIN_KEYS.0), "name"),
];

pub(super) fn fixture_lookup(key: &str) -> Option<(PatchStrategy, &'static str)> {
    MERGE_ITEM.iter().find(|(name, ..)| *name == key).map(|(_, strategy, merge_key)| (*strategy, *merge_key))
}

/// Sorts merging lists by name and primitive merging lists, as upstream's tables are compared.
fn sorted(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| sorted(value, key)),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| sorted(item, ""));
            if fixture_lookup(key).is_some_and(|(strategy, _)| strategy.has(PatchStrategy::MERGE)) {
                items.sort_by_key(|item| match item.get("name").unwrap_or(item) {
                    Value::Number(n) => format!("{n:>8}"),
                    other => other.to_string(),
                });
            }
        }
        _ => {}
    }
}

#[test]
fn strategic_merge_as_upstreams_tables_say() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("strategic_cases.json")).expect("the cases");
    assert!(cases.len() > 150);
    let mut wrong = Vec::new();
    for case in &cases {
        let object = |name: &str| case[name].as_object().cloned().unwrap_or_default();
        let got = strategic::merge_fixture(object("original"), object("patch"));
        let mut want = case["result"].clone();
        let got = got.map(|got| {
            let mut got = Value::Object(got);
            if case["sorted"] == true {
                sorted(&mut got, "");
                sorted(&mut want, "");
            }
            got
        });
        if got.as_ref() != Ok(&want) {
            wrong.push(format!(
                "{}\n  original {}\n  patch    {}\n  got      {got:?}\n  want     {want}",
                case["name"], case["original"], case["patch"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn deployment() -> Doc {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "1", "y": "2"}, "finalizers": ["b", "c"]},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {}, "spec": {"containers": [
            {"name": "one", "image": "i:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
             "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            {"name": "two", "image": "i:2"}],
            "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "k"}]}}}});
    let bytes = serde_json::to_vec(&object).expect("JSON");
    crate::json::decode(t::apps_v1::DEPLOYMENT, &bytes, FieldValidation::Strict).expect("decodes").0
}

fn spec_of(patched: Result<Patched, PatchError>) -> Value {
    crate::doc::to_json_value(&patched.expect("patches").0)["spec"]["template"]["spec"].take()
}

fn strategic(patch: Value) -> Result<Patched, PatchError> {
    strategic_merge(&deployment(), patch.to_string().as_bytes(), FieldValidation::Strict)
}

#[test]
fn strategic_merge_of_a_deployment() {
    let spec = spec_of(strategic(json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "two"}, {"name": "three"}, {"name": "one"}],
        "containers": [
            {"name": "three", "image": "i:3"},
            {"name": "one", "$setElementOrder/env": [{"name": "C"}, {"name": "A"}], "env": [{"name": "B", "$patch": "delete"}, {"name": "A", "value": "9"}]}],
        "volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}],
        "tolerations": [{"key": "other"}]}}}})));
    assert_eq!(
        spec["containers"].as_array().map(|c| c.iter().map(|c| c["name"].clone()).collect::<Vec<_>>()),
        Some(vec![json!("two"), json!("three"), json!("one")])
    );
    assert_eq!(
        spec["containers"][2]["env"],
        json!([{"name": "C", "value": "3"}, {"name": "A", "value": "9"}])
    );
    assert_eq!(spec["containers"][2]["image"], "i:1");
    assert_eq!(spec["volumes"], json!([{"name": "v", "configMap": {"name": "c"}}]));
    assert_eq!(spec["tolerations"], json!([{"key": "other"}]), "a list without a merge strategy is replaced");
}

#[test]
fn strategic_merge_of_metadata() {
    let (doc, _) = strategic(json!({"metadata": {"labels": {"x": null, "z": "3"}, "$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"]}})).expect("patches");
    let labels: Vec<_> = doc.meta().labels().expect("labels").str_pairs().collect();
    assert_eq!(labels, [("y", "2"), ("z", "3")]);
    assert_eq!(doc.meta().finalizers().collect::<Vec<_>>(), ["d", "c"]);
    assert_eq!(doc.gvk.kind, "Deployment");
}

#[test]
fn strategic_merge_errors() {
    let cases = [
        (json!(["x"]), "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}),
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            json!({"spec": {"template": {"spec": {"$patch": "nope"}}}}),
            "unknown patch type: nope in map: map[$patch:nope]",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}}}),
            "merging lists cannot yet be specified in the patch",
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveListfinalizers": ["b"]}}),
            "invalid patch format of primitive list",
        ),
        (
            json!({"spec": {"template": {"spec": {"$retainKeys": ["containers"], "volumes": []}}}}),
            "invalid patch format of retainKeys",
        ),
        (json!({"spec": {"replicas": "x"}}), "unrecognized type: int32"),
        (json!({"spec": {"foo": 1}}), "strict decoding error: unknown field \"spec.foo\""),
    ];
    for (patch, expected) in cases {
        assert_eq!(strategic(patch.clone()).expect_err("fails").to_string(), expected, "{patch}");
    }
    // What upstream's server takes for a failure of its own.
    let failed = |patch| matches!(strategic(patch), Err(PatchError::Failed(_)));
    assert!(failed(json!({"spec": {"$patch": "nope"}})));
    assert!(failed(json!({"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}})));
    assert!(!failed(json!({"spec": {"template": {"spec": {"containers": [[]]}}}})));
    let custom = Doc::new_custom(crate::doc::Gvk::new("example.com", "v1", "Foo"));
    let refused = strategic_merge(&custom, b"{}", FieldValidation::Ignore).expect_err("fails");
    assert_eq!(refused, PatchError::BadRequest("strategic merge patch format is not supported".into()));
}

#[test]
fn merge_patch_of_a_deployment() {
    let patch = json!({"metadata": {"labels": {"x": null}}, "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "n"}]}}}});
    let (doc, _) =
        merge_patch(&deployment(), patch.to_string().as_bytes(), FieldValidation::Strict).expect("patches");
    let object = crate::doc::to_json_value(&doc);
    assert_eq!(object["metadata"]["labels"], json!({"y": "2"}));
    assert_eq!(object["spec"]["template"]["spec"]["containers"], json!([{"name": "n", "resources": {}}]));
    assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"app": "a"}}));
    let duplicate =
        merge_patch(&deployment(), br#"{"spec":{"replicas":1,"replicas":2}}"#, FieldValidation::Strict)
            .expect_err("fails");
    assert_eq!(duplicate.to_string(), "strict decoding error: duplicate field \"spec.replicas\"");
    assert_eq!(
        merge_patch(&deployment(), br#"{"spec":{"replicas":1,"replicas":2}}"#, FieldValidation::Warn)
            .expect("patches")
            .1
            .len(),
        1
    );
}

#[test]
fn json_patch_of_a_deployment() {
    let apply = |ops: Value| json_patch(&deployment(), ops.to_string().as_bytes(), FieldValidation::Strict);
    let (doc, _) = apply(json!([{"op": "test", "path": "/metadata/labels/x", "value": "1"}, {"op": "add", "path": "/spec/replicas", "value": 4},
        {"op": "remove", "path": "/metadata/finalizers/0"}, {"op": "add", "path": "/metadata/labels/a~1b", "value": "c"}]))
    .expect("patches");
    assert_eq!(doc.meta().label("a/b"), Some("c"));
    assert_eq!(doc.meta().finalizers().collect::<Vec<_>>(), ["c"]);
    let cases = [
        (
            json!([{"op": "test", "path": "/metadata/name", "value": "b"}]),
            "testing value /metadata/name failed: test failed",
        ),
        (
            json!([{"op": "remove", "path": "/spec/paused"}]),
            "error in remove for path: '/spec/paused': Unable to remove nonexistent key: paused: missing value",
        ),
        (
            json!([{"op": "replace", "path": "/nope/x", "value": true}]),
            "replace operation does not apply: doc is missing path: /nope/x: missing value",
        ),
        (
            json!([{"op": "replace", "path": "/metadata/finalizers/2", "value": "d"}]),
            "replace operation does not apply: doc is missing key: /metadata/finalizers/2: missing value",
        ),
        (
            json!([{"op": "test", "path": "/spec/paused", "value": false}]),
            "testing value /spec/paused failed: test failed",
        ),
        (
            json!([{"op": "remove", "path": "/metadata/finalizers/-3"}]),
            "error in remove for path: '/metadata/finalizers/-3': Unable to access invalid index: -3: invalid index referenced",
        ),
        (
            json!([1]),
            "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp",
        ),
        (
            json!([{"op": 1, "path": "/spec"}]),
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
        ),
        (
            json!([{"op": "add", "path": "/nope/x", "value": 1}]),
            "add operation does not apply: doc is missing path: \"/nope/x\": missing value",
        ),
        (json!([{"op": "nope", "path": "/spec"}]), "Unexpected kind: nope"),
        (
            json!({"op": "add"}),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
        ),
    ];
    for (patch, expected) in cases {
        assert_eq!(apply(patch.clone()).expect_err("fails").to_string(), expected, "{patch}");
    }
    let many = Value::Array(vec![json!({"op": "test", "path": "/kind", "value": "Deployment"}); 10_001]);
    assert_eq!(
        apply(many).expect_err("fails"),
        PatchError::TooLarge(
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
                .into()
        )
    );
}

#[test]
fn json_patch_as_upstreams_library_reads_it() {
    let apply =
        |ops: &str| json_patch(&deployment(), ops.as_bytes(), FieldValidation::Strict).expect("patches").0;
    let finalizers = |doc: &Doc| doc.meta().finalizers().map(str::to_owned).collect::<Vec<_>>();
    // What is not there is set by a replace, and is null for a test.
    let doc = apply(
        r#"[{"op": "test", "path": "/spec/replicas", "value": null}, {"op": "replace", "path": "/spec/replicas", "value": 7},
            {"op": "replace", "path": "/metadata/labels/z", "value": "3"}]"#,
    );
    assert_eq!(crate::doc::to_json_value(&doc)["spec"]["replicas"], 7);
    assert_eq!(doc.meta().label("z"), Some("3"));
    // Indices below zero count from the end; of an addition, from the end of the longer list.
    let add = |at: &str| {
        finalizers(&apply(&format!(
            r#"[{{"op": "add", "path": "/metadata/finalizers/{at}", "value": "n"}}]"#
        )))
    };
    assert_eq!(add("-"), ["b", "c", "n"]);
    assert_eq!(add("-1"), ["b", "c", "n"]);
    assert_eq!(add("-3"), ["n", "b", "c"]);
    assert_eq!(add("2"), ["b", "c", "n"]);
    assert_eq!(finalizers(&apply(r#"[{"op": "remove", "path": "/metadata/finalizers/-1"}]"#)), ["b"]);
    let moved =
        apply(r#"[{"op": "move", "from": "/metadata/finalizers/0", "path": "/metadata/finalizers/-"}]"#);
    assert_eq!(finalizers(&moved), ["c", "b"]);
    // No operations.
    assert_eq!(apply("null"), deployment());
    assert_eq!(apply("[]"), deployment());
    let nothing = strategic_merge(&deployment(), b"null", FieldValidation::Strict).expect("patches").0;
    assert_eq!(nothing, deployment());
}

#[test]
fn a_copy_bomb_is_refused() {
    let doubling: Vec<Value> = (0..60)
        .map(|i| json!({"op": "copy", "from": "/metadata", "path": format!("/metadata/x{i}")}))
        .collect();
    let failed =
        json_patch(&deployment(), Value::Array(doubling).to_string().as_bytes(), FieldValidation::Ignore)
            .expect_err("fails");
    assert!(failed.to_string().starts_with("Unable to complete the copy"), "{failed}");
}

proptest::proptest! {
    #[test]
    fn no_patch_panics(patch in "\\PC{0,60}", key in "(\\$patch|\\$retainKeys|\\$setElementOrder/containers|\\$deleteFromPrimitiveList/finalizers|containers|volumes)", value in "(null|1|\"delete\"|\\[\\]|\\[1\\]|\\[\\[\\]\\]|\\{\\}|\\[\\{\"name\":\"one\",\"\\$patch\":\"delete\"\\}\\]|\\[\\{\\}\\])") {
        let original = deployment();
        let nested = format!("{{\"spec\":{{\"template\":{{\"spec\":{{\"{key}\":{value}}}}}}},\"metadata\":{{\"{key}\":{value}}}}}");
        for bytes in [patch.as_bytes(), nested.as_bytes()] {
            let _ = strategic_merge(&original, bytes, FieldValidation::Strict);
            let _ = merge_patch(&original, bytes, FieldValidation::Strict);
            let _ = json_patch(&original, bytes, FieldValidation::Strict);
        }
    }
}
