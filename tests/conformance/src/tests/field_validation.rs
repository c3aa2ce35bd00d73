//! test/e2e/apimachinery/field_validation.go

use crate::api::Answer;
use crate::cases;
use crate::env::Env;
use crate::suite::Group;
use crate::tests::crd::{Definition, allow_all};
use anyhow::{Result, ensure};
use http::Method;
use serde_json::{Value, json};

pub fn groups() -> Vec<Group> {
    vec![Group {
        prefix: "[sig-api-machinery] FieldValidation",
        base: "field-validation",
        level: "baseline",
        cases: cases![
            "should detect unknown and duplicate fields of a typed object" => typed,
            "should detect unknown metadata fields of a typed object" => typed_metadata,
            "should create/apply a valid CR for CRD with validation schema" => valid,
            "should create/apply a CR with unknown fields for CRD with no validation schema" => no_schema,
            "should create/apply an invalid CR with extra properties for CRD with validation schema" => extra,
            "should detect unknown metadata fields in both the root and embedded object of a CR" => metadata,
            "should detect duplicates in a CR when preserving unknown fields" => duplicates,
        ],
    }]
}

const QUERY: &str = "fieldManager=field_validation_mgr&fieldValidation=Strict";

/// The deployment's text with something put into its metadata and its spec; text, because it holds a key twice.
async fn create_deployment(env: &Env, metadata: &str, spec: &str) -> Result<Answer> {
    let text = format!(
        r#"{{
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {{ "name": "my-dep", {metadata} "labels": {{"app": "nginx"}} }},
        "spec": {{ {spec}
            "selector": {{ "matchLabels": {{ "app": "nginx" }} }},
            "template": {{
                "metadata": {{ "labels": {{ "app": "nginx" }} }},
                "spec": {{ "containers": [{{ "name": "nginx", "image": "nginx:latest" }}] }}
            }}
        }} }}"#
    );
    let path = format!("/apis/apps/v1/namespaces/{}/deployments?{QUERY}", env.ns());
    env.api().send(Method::POST, &path, &[("Content-Type", "application/json")], text).await
}

/// The answer is an error whose message holds the text.
fn refused(answer: &Answer, text: &str) -> Result<()> {
    let message = answer.json()?["message"].as_str().unwrap_or_default().to_owned();
    ensure!(
        !answer.code.is_success() && message.contains(text),
        "expected an error with {text:?}, got {}: {}",
        answer.code,
        answer.text()
    );
    Ok(())
}

// field_validation.go: "should detect unknown and duplicate fields of a typed object"
async fn typed(env: Env) -> Result<()> {
    let spec = r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#;
    let answer = create_deployment(&env, "", spec).await?;
    let text = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    refused(&answer, text)
}

// field_validation.go: "should detect unknown metadata fields of a typed object"
async fn typed_metadata(env: Env) -> Result<()> {
    let answer = create_deployment(&env, r#""unknownMeta": "foo","#, "").await?;
    refused(&answer, r#"strict decoding error: unknown field "metadata.unknownMeta""#)
}

/// The schema of upstream's definitions; `spec` gets these further keys.
fn schema(more: &Value, properties: &Value) -> Value {
    let port = json!({
        "properties": {
            "containerPort": { "format": "int32", "type": "integer" },
            "hostIP": { "type": "string" },
            "hostPort": { "format": "int32", "type": "integer" },
            "name": { "type": "string" },
            "protocol": { "type": "string" },
        },
        "required": ["containerPort", "protocol"],
        "type": "object",
    });
    let mut spec = json!({
        "type": "object",
        "properties": {
            "foo": { "type": "string" },
            "cronSpec": {
                "type": "string",
                "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$",
            },
            "ports": {
                "type": "array",
                "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
                "x-kubernetes-list-type": "map",
                "items": port,
            },
        },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    for (key, value) in properties.as_object().into_iter().flatten() {
        spec["properties"][key] = value.clone();
    }
    json!({ "type": "object", "properties": { "spec": spec } })
}

/// Makes the definition and applies an object in its first version; the texts go below the name, at the root and below
/// `spec`.
async fn apply(env: &Env, schema: &Value, metadata: &str, root: &str, spec: &str) -> Result<Answer> {
    let crd = Definition::two_versions(schema);
    crd.create_primed(env).await?;
    let (group, version) = (crd.group(), "v1beta1");
    let body = format!(
        "\napiVersion: {group}/{version}\nkind: {}\nmetadata:\n  name: mytest\n{metadata}{root}spec:\n{spec}  \
         cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP",
        crd.kind()
    );
    let path = format!("/apis/{group}/{version}/{}/mytest?{QUERY}", crd.plural());
    env.api().send(Method::PATCH, &path, &[("Content-Type", "application/apply-patch+yaml")], body).await
}

/// The answer is the object with the field below `spec`.
fn applied(answer: Answer, field: &str, value: &str) -> Result<()> {
    let object = answer.accepted()?.json()?;
    ensure!(object["metadata"]["uid"].is_string() && object["spec"][field] == value, "{object}");
    Ok(())
}

// field_validation.go: "should create/apply a valid CR for CRD with validation schema"
async fn valid(env: Env) -> Result<()> {
    let answer = apply(&env, &schema(&Value::Null, &Value::Null), "", "", "  foo: foo1\n").await?;
    applied(answer, "foo", "foo1")
}

// field_validation.go: "should create/apply a CR with unknown fields for CRD with no validation schema"
async fn no_schema(env: Env) -> Result<()> {
    let answer = apply(&env, &allow_all(), "", "", "  unknown: uk1\n").await?;
    applied(answer, "unknown", "uk1")
}

// field_validation.go: "should create/apply an invalid CR with extra properties for CRD with validation schema"
async fn extra(env: Env) -> Result<()> {
    let schema = schema(&Value::Null, &Value::Null);
    let answer = apply(&env, &schema, "", "unknownField: unknown\n", "  foo: foo1\n").await?;
    refused(&answer, ".unknownField: field not declared in schema")
}

// field_validation.go: "should detect unknown metadata fields in both the root and embedded object of a CR"
async fn metadata(env: Env) -> Result<()> {
    let template = json!({
        "type": "object",
        "x-kubernetes-embedded-resource": true,
        "properties": {
            "metadata": { "type": "object", "properties": { "name": { "type": "string" } } },
            "spec": { "type": "object" },
        },
    });
    let preserve = json!({ "x-kubernetes-preserve-unknown-fields": true });
    let spec = format!(
        "  template:\n    apiversion: foo/v1\n    kind: Sub\n    metadata:\n        unknownSubMeta: unknown\n        \
         name: subobject\n        namespace: {}\n  foo: foo1\n",
        env.ns()
    );
    let schema = schema(&preserve, &json!({ "template": template }));
    let answer = apply(&env, &schema, "  unknownMeta: unknown\n", "", &spec).await?;
    let either = [
        ".spec.template.metadata.unknownSubMeta: field not declared in schema",
        ".metadata.unknownMeta: field not declared in schema",
    ];
    refused(&answer, either[0]).or_else(|_| refused(&answer, either[1]))
}

// field_validation.go: "should detect duplicates in a CR when preserving unknown fields"
async fn duplicates(env: Env) -> Result<()> {
    let schema = schema(&json!({ "x-kubernetes-preserve-unknown-fields": true }), &Value::Null);
    let answer = apply(&env, &schema, "", "", "  unknown: uk1\n  foo: foo1\n  foo: foo2\n").await?;
    refused(&answer, r#"line 9: key "foo" already set in map"#)
}
