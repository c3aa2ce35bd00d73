//! Bad input over TLS: the code, the reason and the whole text, as upstream words it.
//!
//! The texts' sources: `apiserver/pkg/endpoints/handlers/{rest,create,patch,negotiation}.go`, `pkg/storage/continue.go`,
//! `apimachinery/pkg/runtime/serializer/{json,protobuf}`, `pkg/labels`, `pkg/fields`, go-yaml.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use super::harness::*;
use super::tls::connect;

/// A request and what is answered.
struct Case {
    method: &'static str,
    /// Behind the ConfigMaps of a namespace.
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    code: u16,
    reason: &'static str,
    message: String,
}

fn read(path: impl Into<String>, code: u16, reason: &'static str, message: impl Into<String>) -> Case {
    let (path, message) = (path.into(), message.into());
    Case { method: "GET", path, headers: vec![], body: vec![], code, reason, message }
}

/// A creation that is refused with 400.
fn create(kind: &'static str, body: impl Into<Vec<u8>>, message: impl Into<String>) -> Case {
    Case {
        method: "POST",
        path: "?fieldValidation=Strict".into(),
        headers: vec![("content-type", kind)],
        body: body.into(),
        code: 400,
        reason: "BadRequest",
        message: message.into(),
    }
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn unrecognized(why: &str, begin: &str) -> String {
    format!("the object provided is unrecognized (must be of type ConfigMap): {why} ({begin})")
}

fn hexadecimal(body: &[u8]) -> String {
    body.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bodies() -> Vec<Case> {
    let parse = "couldn't get version/kind; json parse error";
    let cannot = |why: &str| format!("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: {why}");
    let deep = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}},"data":{}"#,
        "[".repeat(5000)
    );
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, before) in ('b'..='k').zip('a'..) {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 9].join(",")));
    }
    let named = |rest: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"x"}}{rest}}}"#).into_bytes()
    };
    vec![
        create(JSON, "", unrecognized(&format!("{parse}: unexpected end of JSON input"), "<empty>")),
        create(
            JSON,
            "hello",
            unrecognized(
                &format!("{parse}: invalid character 'h' looking for beginning of value"),
                "68656c6c6f",
            ),
        ),
        create(
            JSON,
            deep,
            unrecognized(
                &format!("{parse}: exceeded max depth"),
                "{\"apiVersion\":\"v1\",\"kind\":\"Con ...",
            ),
        ),
        create(
            JSON,
            named(r#","data":{"a":1}"#),
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        create(
            JSON,
            r#"{"metadata":{"name":"x"},"data":{"a":1}}"#,
            cannot("json: cannot unmarshal number into Go struct field ConfigMap.data of type string"),
        ),
        create(
            JSON,
            named(r#","data":{"a":"b"},"data":{"c":"d"},"foo":{"bar":1}"#),
            cannot("strict decoding error: duplicate field \"data\", unknown field \"foo\""),
        ),
        create(
            JSON,
            r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","foo":1,"name":"y"}}"#,
            cannot(
                "strict decoding error: unknown field \"metadata.foo\", duplicate field \"metadata.name\"",
            ),
        ),
        create(
            YAML,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: b\n  a: c\n",
            cannot("strict decoding error: yaml: unmarshal errors:\n  line 6: key \"a\" already set in map"),
        ),
        create(
            YAML,
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\nfoo: 1\n",
            cannot("strict decoding error: unknown field \"foo\""),
        ),
        create(
            YAML,
            bomb.clone(),
            unrecognized(
                "yaml: document contains excessive aliasing",
                &format!("{} ...", hexadecimal(&bomb.as_bytes()[..30])),
            ),
        ),
        create(
            YAML,
            &b"a: \xff\xfe"[..],
            unrecognized("yaml: invalid leading UTF-8 octet", &hexadecimal(b"a: \xff\xfe")),
        ),
        create(
            PROTOBUF,
            "hello",
            unrecognized(
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
                "68656c6c6f",
            ),
        ),
    ]
}

fn requests() -> Vec<Case> {
    let object = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#.to_vec();
    let token = |why: &str| format!("invalid continue token: continue key is not valid: {why}");
    vec![
        Case {
            code: 413,
            reason: "RequestEntityTooLarge",
            ..create(JSON, vec![b' '; 3 * 1024 * 1024 + 1], "Request entity too large: limit is 3145728")
        },
        Case {
            code: 415,
            reason: "UnsupportedMediaType",
            ..create(
                "text/plain",
                object.clone(),
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )
        },
        Case {
            method: "PATCH",
            path: "/x".into(),
            code: 415,
            reason: "UnsupportedMediaType",
            ..create(JSON, "{}", "415: Unsupported Media Type")
        },
        Case {
            headers: vec![("accept", "application/x-nonsense")],
            ..read(
                "",
                406,
                "NotAcceptable",
                "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            )
        },
        Case {
            path: "?fieldValidation=Maybe".into(),
            code: 422,
            reason: "Invalid",
            ..create(
                JSON,
                object,
                "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
            )
        },
        read(
            "?labelSelector=a%20in%20b",
            400,
            "BadRequest",
            "unable to parse requirement: found 'b' expected: '('",
        ),
        read(
            "?labelSelector=x%3D%3Da%3D%3Db",
            400,
            "BadRequest",
            "found '==', expected: ',' or 'end of string'",
        ),
        read("?fieldSelector=x", 400, "BadRequest", "invalid selector: 'x'; can't understand 'x'"),
        read("?limit=many", 400, "BadRequest", "strconv.ParseInt: parsing \"many\": invalid syntax"),
        read("?continue=%21", 400, "BadRequest", token("illegal base64 data at input byte 0")),
        // {"v":"meta.k8s.io/v1","rv":7,"start":"../../secrets/a"}
        read(
            "?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Nywic3RhcnQiOiIuLi8uLi9zZWNyZXRzL2EifQ",
            400,
            "BadRequest",
            token("../../secrets/a"),
        ),
        // {"v":"meta.k8s.io/v9","rv":7,"start":"a"}
        read(
            "?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjkiLCJydiI6Nywic3RhcnQiOiJhIn0",
            400,
            "BadRequest",
            token("server does not recognize this encoded version meta.k8s.io/v9"),
        ),
        read(
            "?continue=abc&resourceVersion=5",
            400,
            "BadRequest",
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value",
        ),
        read(
            "?watch=1&continue=abc",
            422,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        // Without a reason, and with this code.
        read(
            "/kube?resourceVersion=abc",
            500,
            "",
            "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        read(
            "?watch=1&resourceVersion=abc",
            500,
            "",
            "resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        read(
            "?resourceVersion=abc",
            400,
            "BadRequest",
            "invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax",
        ),
        // The current revision stands behind it.
        read(
            "?resourceVersion=987654321",
            504,
            "Timeout",
            "Timeout: Too large resource version: 987654321, current: ",
        ),
        read(
            "/kube?resourceVersion=987654321",
            504,
            "Timeout",
            "Timeout: Too large resource version: 987654321, current: ",
        ),
    ]
}

#[tokio::test]
async fn every_refusal_is_upstreams_to_the_letter() {
    let lab = Lab::start().await;
    let mut wrong = Vec::new();
    let cases: Vec<Case> = bodies().into_iter().chain(requests()).collect();
    for case in cases {
        let mut admin = connect(&lab, Some(&lab.pki.admin)).await;
        let mut request = Request::builder()
            .method(case.method)
            .uri(format!("https://127.0.0.1{CONFIG_MAPS}{}", case.path));
        for (name, value) in &case.headers {
            request = request.header(*name, *value);
        }
        let response =
            admin.send_request(request.body(Full::new(Bytes::from(case.body))).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        let open = case.message.ends_with(": ");
        let same =
            if open { text("message").starts_with(&case.message) } else { text("message") == case.message };
        if (code, text("reason").as_str(), same) != (case.code, case.reason, true) {
            wrong.push(format!(
                "{} {}\n    answered {code} {}: {}\n    expected {} {}: {}",
                case.method,
                case.path,
                text("reason"),
                text("message"),
                case.code,
                case.reason,
                case.message
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn unknown_and_duplicate_fields_in_the_other_two_modes() {
    let lab = Lab::start().await;
    let body = |name: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","foo":1}},"data":{{"a":"b"}},"data":{{"c":"d"}}}}"#
        )
    };
    let json = [("content-type", JSON)];
    for (query, expected) in [
        ("?fieldValidation=Warn", &["unknown field \"metadata.foo\"", "duplicate field \"data\""][..]),
        ("", &["unknown field \"metadata.foo\"", "duplicate field \"data\""]),
        ("?fieldValidation=Ignore", &[]),
    ] {
        let name = format!("m{}", query.len());
        let answer = lab.send("POST", &format!("{CONFIG_MAPS}{query}"), &json, body(&name)).await;
        let object = answer.expect(201);
        assert_eq!(object["data"], serde_json::json!({"c": "d"}), "the last one counts");
        let expected: Vec<String> =
            expected.iter().map(|text| format!("299 - \"{}\"", text.replace('"', "\\\""))).collect();
        assert_eq!(answer.warnings(), expected, "{query}");
    }
}

/// As Go's decoder reads it.
#[tokio::test]
async fn text_that_is_not_utf8_is_replaced_in_json() {
    let lab = Lab::start().await;
    let body = [
        &br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":""#[..],
        b"\xff\xfeb",
        br#""}}"#,
    ]
    .concat();
    let answer = lab.send("POST", CONFIG_MAPS, &[("content-type", JSON)], body).await;
    assert_eq!(answer.expect(201)["data"]["a"], "\u{fffd}\u{fffd}b");
}
