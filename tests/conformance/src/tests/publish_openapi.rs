//! test/e2e/apimachinery/crd_publish_openapi.go

use crate::api::{CRDS, Patch, version};
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use crate::tests::crd::{Definition, allow_all};
use anyhow::{Result, bail, ensure};
use http::{Method, StatusCode};
use regex_lite::Regex;
use serde_json::{Value, json};
use std::time::Duration;

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] CustomResourcePublishOpenAPI [Privileged:ClusterAdmin]",
        base: "crd-publish-openapi",
        level: "privileged",
        cases: cases![
            "works for CRD with validation schema" => with_schema,
            "works for CRD without validation schema" => without_schema,
            "works for CRD preserving unknown fields at the schema root" => preserving_root,
            "works for CRD preserving unknown fields in an embedded object" => preserving_nested,
            "works for multiple CRDs of different groups" => different_groups,
            "works for multiple CRDs of same group but different versions" => different_versions,
            "works for multiple CRDs of same group and version but different kinds" => different_kinds,
            "updates the published spec when one version gets renamed" => renamed,
            "removes definition from spec when one version gets changed to not be served" => not_served,
        ],
    }]
}

fn bars(described: &str, properties: &Value, required: &Value) -> Value {
    let mut item = json!({ "type": "object" });
    if !properties.is_null() {
        item["properties"] = properties.clone();
    }
    if !required.is_null() {
        item["required"] = required.clone();
    }
    json!({ "description": described, "type": "array", "items": item })
}

/// `schemaFoo`.
fn foo() -> Value {
    let spec = json!({
        "name": { "description": "Name of Bar.", "type": "string" },
        "age": { "description": "Age of Bar.", "type": "string" },
        "feeling": {
            "description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"],
        },
        "bazs": { "description": "List of Bazs.", "items": { "type": "string" }, "type": "array" },
    });
    let status = json!({
        "name": { "description": "Name of Bar.", "type": "string" },
        "available": { "description": "Whether the Bar is installed.", "type": "boolean" },
        "quxType": {
            "description": "Indicates to external qux type.",
            "pattern": "in-tree|out-of-tree",
            "type": "string",
        },
    });
    json!({
        "description": "Foo CRD for Testing",
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "description": "Specification of Foo",
                "properties": { "bars": bars("List of Bars and their specs.", &spec, &json!(["name"])) },
            },
            "status": {
                "description": "Status of Foo",
                "type": "object",
                "properties": { "bars": bars("List of Bars and their statuses.", &status, &Value::Null) },
            },
        },
    })
}

/// `schemaWaldo`; the other two have the same properties.
fn waldo() -> Value {
    json!({
        "description": "Waldo CRD for Testing",
        "type": "object",
        "properties": {
            "spec": {
                "description": "Specification of Waldo",
                "type": "object",
                "properties": { "dummy": { "description": "Dummy property.", "type": "object" } },
            },
            "status": {
                "description": "Status of Waldo",
                "type": "object",
                "properties": { "bars": bars("List of Bars and their statuses.", &Value::Null, &Value::Null) },
            },
        },
    })
}

fn preserve_root() -> Value {
    let mut schema = waldo();
    schema["description"] = json!("preserve-unknown-properties at root for Testing");
    schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

fn preserve_nested() -> Value {
    let mut schema = waldo();
    schema["description"] = json!("preserve-unknown-properties in nested field for Testing");
    schema["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = json!(true);
    schema
}

/// `setupCRD`: a definition in the group of the suffix, whose versions are then published with the expected schema (or
/// at all, without one).
async fn set_up(
    env: &Env,
    schema: &Value,
    expected: Option<&Value>,
    suffix: &str,
    versions: &[&str],
) -> Result<Definition> {
    let group = format!("{}-test-{suffix}.example.com", env.base());
    let versions: Vec<(&str, Value)> = versions.iter().map(|version| (*version, schema.clone())).collect();
    let crd = Definition::for_test(env, &group, &versions);
    crd.create(env).await?;
    for (version, _) in versions {
        wait_published(env, &crd, version, expected).await?;
    }
    Ok(crd)
}

/// `cleanupCRD`: deletes it and waits until the versions are not published any more.
async fn tear_down(env: &Env, crd: &Definition, versions: &[&str]) -> Result<()> {
    crd.delete(env).await?;
    for version in versions {
        wait_unpublished(env, crd, version).await?;
    }
    Ok(())
}

/// The name under which a version is in the document's definitions.
fn definition_name(crd: &Definition, version: &str) -> String {
    let mut group: Vec<&str> = crd.group().split('.').collect();
    group.reverse();
    format!("{}.{version}.{}", group.join("."), crd.kind())
}

/// Reads OpenAPI v2 as often as upstream does, with ETags, until the document is as wanted ten times in a row.
async fn wait_document(
    env: &Env,
    what: &str,
    wanted: impl Fn(&Value) -> std::result::Result<(), String>,
) -> Result<()> {
    const TIMES: usize = 10;
    let (mut etag, mut document) = (String::new(), Value::Null);
    let mut last = String::new();
    let waited = env
        .wait(what, Duration::from_millis(500), Duration::from_secs(60), async || {
            for _ in 0..TIMES {
                let mut headers = vec![("Accept", "application/json")];
                if !etag.is_empty() {
                    headers.push(("If-None-Match", &etag));
                }
                let answer = env.api().send(Method::GET, "/openapi/v2", &headers, "").await?;
                match answer.code {
                    StatusCode::NOT_MODIFIED => {}
                    StatusCode::OK => {
                        document = answer.json()?;
                        let given = answer.headers.get("etag").and_then(|tag| tag.to_str().ok());
                        given.unwrap_or_default().clone_into(&mut etag);
                    }
                    other => bail!("unexpected response: {other}"),
                }
                if let Err(why) = wanted(&document) {
                    last = why;
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await;
    waited.map_err(|error| if last.is_empty() { error } else { error.context(last) })
}

async fn wait_published(env: &Env, crd: &Definition, version: &str, expected: Option<&Value>) -> Result<()> {
    let name = definition_name(crd, version);
    wait_document(env, &format!("{name} to be published"), |document| {
        let Some(definition) = document["definitions"].get(&name) else {
            return Err(format!("definition {name} not found"));
        };
        let Some(expected) = expected else { return Ok(()) };
        let found = without_additions(definition);
        if found == *expected {
            return Ok(());
        }
        Err(format!("definition {name} does not match; expect: {expected}, actual: {found}"))
    })
    .await
}

async fn wait_unpublished(env: &Env, crd: &Definition, version: &str) -> Result<()> {
    let name = definition_name(crd, version);
    wait_document(env, &format!("{name} to be removed"), |document| {
        let definitions = document["definitions"].as_object();
        match definitions {
            Some(all) if !all.is_empty() && !all.contains_key(&name) => Ok(()),
            _ => Err(format!("definition {name} still exists")),
        }
    })
    .await
}

/// `dropDefaults`: what the server adds to a schema.
fn without_additions(definition: &Value) -> Value {
    let mut schema = definition.clone();
    if let Some(object) = schema.as_object_mut() {
        object.remove("x-kubernetes-group-version-kind");
        object.remove("x-kubernetes-selectable-fields");
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            for name in ["metadata", "apiVersion", "kind"] {
                properties.remove(name);
            }
            if properties.is_empty() {
                object.remove("properties");
            }
        }
    }
    schema
}

async fn explain(env: &Env, name: &str, pattern: &str) -> Result<()> {
    let said = env.kubectl().ok(env.ns(), &["explain", name]).await?;
    ensure!(
        Regex::new(pattern)?.is_match(&said),
        "kubectl explain {name}: {said:?} does not match {pattern:?}"
    );
    Ok(())
}

/// An object of the definition with these further fields, as JSON text.
fn instance(crd: &Definition, version: &str, name: &str, fields: &Value) -> String {
    let mut object = json!({
        "kind": crd.kind(),
        "apiVersion": format!("{}/{version}", crd.group()),
        "metadata": { "name": name },
    });
    for (key, value) in fields.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object.to_string()
}

/// Creates and deletes it, applies and deletes it, all with kubectl.
async fn create_and_apply(env: &Env, crd: &Definition, object: &str, name: &str) -> Result<()> {
    for verb in ["create", "apply"] {
        env.kubectl().input(env.ns(), &[verb, "-f", "-"], object).await?;
        env.kubectl().ok(env.ns(), &["delete", crd.plural(), name]).await?;
    }
    Ok(())
}

// crd_publish_openapi.go: "works for CRD with validation schema"
async fn with_schema(env: Env) -> Result<()> {
    let crd = set_up(&env, &foo(), Some(&foo()), "foo", &["v1"]).await?;
    let object = |spec: Value| instance(&crd, "v1", "test-foo", &json!({ "spec": spec }));
    let (kubectl, ns) = (env.kubectl(), env.ns());
    env.step(
        "kubectl validation (kubectl create and apply) allows request with known and required properties",
    );
    create_and_apply(&env, &crd, &object(json!({ "bars": [{ "name": "test-bar" }] })), "test-foo").await?;

    env.step("kubectl validation rejects request with value outside defined enum values");
    let bad = object(json!({ "bars": [{ "name": "test-bar", "feeling": "NonExistentValue" }] }));
    let text = "Unsupported value: \"NonExistentValue\"";
    kubectl.refused(ns, &["create", "-f", "-"], Some(&bad), &[text]).await?;

    env.step("kubectl validation rejects request with unknown properties when disallowed by the schema");
    let unknown = object(json!({ "foo": true }));
    let texts = ["unknown field \"foo\"", "unknown field \"spec.foo\""];
    kubectl.refused(ns, &["create", "-f", "-"], Some(&unknown), &texts).await?;
    kubectl.refused(ns, &["apply", "-f", "-"], Some(&unknown), &texts).await?;

    env.step("kubectl validation rejects request without required properties");
    let without = object(json!({ "bars": [{ "age": "10" }] }));
    let texts = ["missing required field \"name\"", "spec.bars[0].name: Required value"];
    kubectl.refused(ns, &["create", "-f", "-"], Some(&without), &texts).await?;
    kubectl.refused(ns, &["apply", "-f", "-"], Some(&without), &texts).await?;

    let plural = crd.plural();
    env.step("kubectl explain works to explain CR properties");
    explain(&env, plural, r"(?s)DESCRIPTION:.*Foo CRD for Testing.*FIELDS:.*apiVersion.*<string>.*APIVersion defines.*spec.*<Object>.*Specification of Foo").await?;
    env.step("kubectl explain works to explain CR properties recursively");
    explain(&env, &format!("{plural}.metadata"), r"(?s)DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*CreationTimestamp is a timestamp").await?;
    explain(
        &env,
        &format!("{plural}.spec"),
        r"(?s)DESCRIPTION:.*Specification of Foo.*FIELDS:.*bars.*<\[\]Object>.*List of Bars and their specs",
    )
    .await?;
    explain(&env, &format!("{plural}.spec.bars"), r"(?s)(FIELD|RESOURCE):.*bars.*<\[\]Object>.*DESCRIPTION:.*List of Bars and their specs.*FIELDS:.*bazs.*<\[\]string>.*List of Bazs.*name.*<string>.*Name of Bar").await?;
    env.step("kubectl explain works to return error when explain is called on property that doesn't exist");
    let missing = format!("{plural}.spec.bars2");
    kubectl.refused(ns, &["explain", &missing], None, &["field \"bars2\" does not exist"]).await?;
    tear_down(&env, &crd, &["v1"]).await
}

/// A definition that takes every field; kubectl takes them too, and explain matches the pattern.
async fn takes_all(
    env: &Env,
    schema: &Value,
    expected: Option<&Value>,
    suffix: &str,
    fields: &Value,
    pattern: impl Fn(&Definition) -> String,
) -> Result<()> {
    let crd = set_up(env, schema, expected, suffix, &["v1"]).await?;
    env.step("kubectl validation (kubectl create and apply) allows request with any unknown properties");
    create_and_apply(env, &crd, &instance(&crd, "v1", "test-cr", fields), "test-cr").await?;
    env.step("kubectl explain works to explain CR");
    explain(env, crd.plural(), &pattern(&crd)).await?;
    tear_down(env, &crd, &["v1"]).await
}

// crd_publish_openapi.go: "works for CRD without validation schema"
async fn without_schema(env: Env) -> Result<()> {
    let fields = json!({ "a": { "b": [{ "c": "d" }] } });
    let expected = json!({ "type": "object" });
    takes_all(&env, &allow_all(), Some(&expected), "empty", &fields, |_| "(?s)DESCRIPTION:.*<empty>".into())
        .await
}

// crd_publish_openapi.go: "works for CRD preserving unknown fields at the schema root"
async fn preserving_root(env: Env) -> Result<()> {
    let fields = json!({ "a": { "b": [{ "c": "d" }] } });
    takes_all(&env, &preserve_root(), None, "unknown-at-root", &fields, |crd| {
        format!("(?s)KIND:.*{}", crd.kind())
    })
    .await
}

// crd_publish_openapi.go: "works for CRD preserving unknown fields in an embedded object"
async fn preserving_nested(env: Env) -> Result<()> {
    let fields = json!({ "spec": { "a": null, "b": [{ "c": "d" }] } });
    takes_all(&env, &preserve_nested(), None, "unknown-in-nested", &fields, |_| {
        "(?s)DESCRIPTION:.*preserve-unknown-properties in nested field for Testing".into()
    })
    .await
}

/// Two definitions, each published; then both go.
async fn two(env: &Env, first: (&str, &str), second: (&str, &str)) -> Result<()> {
    let a = set_up(env, &foo(), Some(&foo()), first.0, &[first.1]).await?;
    let b = set_up(env, &waldo(), Some(&waldo()), second.0, &[second.1]).await?;
    ensure!((a.group() == b.group()) == (first.0 == second.0), "groups {} and {}", a.group(), b.group());
    wait_published(env, &b, second.1, Some(&waldo())).await?;
    wait_published(env, &a, first.1, Some(&foo())).await?;
    tear_down(env, &a, &[first.1]).await?;
    tear_down(env, &b, &[second.1]).await
}

// crd_publish_openapi.go: "works for multiple CRDs of different groups"
async fn different_groups(env: Env) -> Result<()> {
    env.step("CRs in different groups (two CRDs) show up in OpenAPI documentation");
    two(&env, ("foo", "v1"), ("waldo", "v1beta1")).await
}

// crd_publish_openapi.go: "works for multiple CRDs of same group but different versions"
async fn different_versions(env: Env) -> Result<()> {
    env.step("CRs in the same group but different versions (one multiversion CRD) show up in OpenAPI documentation");
    let crd = set_up(&env, &foo(), Some(&foo()), "multi-ver", &["v2", "v3"]).await?;
    tear_down(&env, &crd, &["v2", "v3"]).await?;
    env.step("CRs in the same group but different versions (two CRDs) show up in OpenAPI documentation");
    two(&env, ("common-group", "v4"), ("common-group", "v5")).await
}

// crd_publish_openapi.go: "works for multiple CRDs of same group and version but different kinds"
async fn different_kinds(env: Env) -> Result<()> {
    env.step(
        "CRs in the same group and version but different kinds (two CRDs) show up in OpenAPI documentation",
    );
    two(&env, ("common-group", "v6"), ("common-group", "v6")).await
}

// crd_publish_openapi.go: "updates the published spec when one version gets renamed"
async fn renamed(env: Env) -> Result<()> {
    env.step("set up a multi version CRD");
    let crd = set_up(&env, &foo(), Some(&foo()), "multi-ver", &["v2", "v3"]).await?;
    env.step("rename a version");
    let patch = json!([
        { "op": "test", "path": "/spec/versions/1/name", "value": "v3" },
        { "op": "replace", "path": "/spec/versions/1/name", "value": "v4" },
    ]);
    env.api().of(&CRDS).patch(crd.name(), Patch::Json, &patch).await?;
    env.step("check the new version name is served");
    wait_published(&env, &crd, "v4", Some(&foo())).await?;
    env.step("check the old version name is removed");
    wait_unpublished(&env, &crd, "v3").await?;
    env.step("check the other version is not changed");
    wait_published(&env, &crd, "v2", Some(&foo())).await?;
    tear_down(&env, &crd, &["v2", "v4"]).await
}

// crd_publish_openapi.go: "removes definition from spec when one version gets changed to not be served"
async fn not_served(env: Env) -> Result<()> {
    env.step("set up a multi version CRD");
    let crd = set_up(&env, &foo(), Some(&foo()), "multi-to-single-ver", &["v5", "v6alpha1"]).await?;
    env.step("mark a version not served");
    let definitions = env.api().of(&CRDS);
    let mut object = definitions.get(crd.name()).await?;
    let before = version(&object)?;
    object["spec"]["versions"][1]["served"] = json!(false);
    let updated = definitions.replace(crd.name(), &object).await?;
    ensure!(version(&updated)? > before, "updated object should have a larger resource version");
    env.step("check the unserved version gets removed");
    wait_unpublished(&env, &crd, "v6alpha1").await?;
    env.step("check the other version is not changed");
    wait_published(&env, &crd, "v5", Some(&foo())).await?;
    tear_down(&env, &crd, &["v5", "v6alpha1"]).await
}
