//! What the decoder says of bad input, in upstream's words, and what canonical JSON looks like.

use super::*;
use crate::t;

fn encoded(doc: &Doc, options: EncodeOptions) -> String {
    let mut out = Vec::new();
    encode_canonical(doc, options, &mut out);
    String::from_utf8(out).expect("UTF-8")
}

fn error(ty: TypeId, input: &str) -> String {
    match decode(ty, input.as_bytes(), FieldValidation::Strict) {
        Ok((doc, _)) => panic!("{input} decoded to {}", encoded(&doc, EncodeOptions::FULL)),
        Err(e) => e.to_string(),
    }
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let input = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","nope":1},"spec":{"replicas":1,"foo":{"x":[1]},"replicas":2,
        "template":{"spec":{"containers":[{"name":"a"},{"name":"b","imag":"x","env":[{"name":"e","Value":"v"}]}]}}}}"#;
    let expected = concat!(
        r#"strict decoding error: unknown field "metadata.nope", unknown field "spec.foo", duplicate field "spec.replicas", "#,
        r#"unknown field "spec.template.spec.containers[1].imag", unknown field "spec.template.spec.containers[1].env[0].Value""#
    );
    assert_eq!(error(t::apps_v1::DEPLOYMENT, input), expected);
    let (doc, warnings) =
        decode(t::apps_v1::DEPLOYMENT, input.as_bytes(), FieldValidation::Warn).expect("decodes");
    assert_eq!(warnings.len(), 5);
    assert_eq!(
        doc.int(&[crate::f::apps_v1::deployment::SPEC, crate::f::apps_v1::deployment_spec::REPLICAS]),
        Some(2)
    );
    assert_eq!(
        decode(t::apps_v1::DEPLOYMENT, input.as_bytes(), FieldValidation::Ignore).expect("decodes").1.len(),
        0
    );
}

#[test]
fn type_mismatches_read_as_gos() {
    let cases = [
        (
            t::apps_v1::DEPLOYMENT,
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            t::apps_v1::DEPLOYMENT,
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            t::apps_v1::DEPLOYMENT,
            r#"{"spec":{"replicas":4294967296}}"#,
            "json: cannot unmarshal number 4294967296 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            t::core_v1::POD,
            r#"{"spec":{"containers":{"name":"a"}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            t::core_v1::POD,
            r#"{"spec":{"containers":[{"env":[{"name":"a","value":1}]}]}}"#,
            "json: cannot unmarshal number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            t::core_v1::POD,
            r#"{"spec":{"restartPolicy":false}}"#,
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            t::core_v1::POD,
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            t::core_v1::POD,
            r#"{"metadata":"x"}"#,
            "json: cannot unmarshal string into Go struct field Pod.metadata of type v1.ObjectMeta",
        ),
        (t::core_v1::POD, r#"["x"]"#, "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            t::core_v1::POD,
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"one"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (t::core_v1::SECRET, r#"{"data":{"a":"x*y="}}"#, "illegal base64 data at input byte 1"),
        (
            t::core_v1::POD,
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
    ];
    for (ty, input, expected) in cases {
        assert_eq!(error(ty, input), expected, "{input}");
    }
}

#[test]
fn syntax_errors_read_as_gos() {
    let cases = [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"kind\":\"Pod\" \"x\"}", "invalid character '\"' after object key:value pair"),
        ("{\"spec\":{\"containers\":[{} {}]}}", "invalid character '{' after array element"),
        ("{,}", "invalid character ',' looking for beginning of object key string"),
        ("{\"kind\":\"Pod\",}", "invalid character '}' looking for beginning of object key string"),
        ("{\"kind\":tru}", "invalid character '}' in literal true (expecting 'e')"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("{\"kind\":\"a\nb\"}", "invalid character '\\n' in string literal"),
        ("{\"kind\":\"\\x\"}", "invalid character 'x' in string escape code"),
    ];
    for (input, expected) in cases {
        assert_eq!(error(t::core_v1::POD, input), expected, "{input}");
    }
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{{\"spec\":{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(error(t::core_v1::POD, &deep), "exceeded max depth");
    let custom = format!("{{\"spec\":{}{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert!(decode_any(None, custom.as_bytes(), FieldValidation::Warn).is_err());
}

#[test]
fn a_large_map_in_falling_order() {
    // With work growing by the square this takes minutes, and so would a request.
    let keys: Vec<String> = (0..100_000).rev().map(|i| format!("\"{i:06}\":\"v\"")).collect();
    let input = format!("{{\"data\":{{{}}}}}", keys.join(","));
    let (doc, _) =
        decode(t::core_v1::CONFIG_MAP, input.as_bytes(), FieldValidation::Strict).expect("decodes");
    let mut proto = Vec::new();
    crate::proto::encode_raw(&doc, &mut proto).expect("protobuf");
    assert_eq!(crate::proto::decode_raw(t::core_v1::CONFIG_MAP, &proto).expect("decodes").root, doc.root);
    let map = doc.map(&[crate::f::core_v1::config_map::DATA]).expect("data");
    assert!(map.len() == 100_000 && map.iter().is_sorted_by(|a, b| a.0 < b.0));
}

#[test]
fn of_equal_keys_the_last_counts() {
    let input = br#"{"data":{"b":"1","a":"2","b":"3"}}"#;
    let (doc, warnings) = decode(t::core_v1::CONFIG_MAP, input, FieldValidation::Warn).expect("decodes");
    assert_eq!(warnings, ["duplicate field \"data.b\""]);
    let pairs: Vec<_> = doc.map(&[crate::f::core_v1::config_map::DATA]).expect("data").str_pairs().collect();
    assert_eq!(pairs, [("a", "2"), ("b", "3")]);
}

#[test]
fn canonical_forms() {
    let input = r#"{"kind":"Pod","apiVersion":"v1","status":{},"metadata":{"resourceVersion":"7","creationTimestamp":"2024-02-03T04:05:06.789+02:00","name":"a","labels":{"z":"1","a":"2"}},
        "spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"0.5","memory":"1024Mi"}},"command":[],"stdin":false}],"nodeName":"","nodeSelector":{}}}"#;
    let (doc, _) = decode(t::core_v1::POD, input.as_bytes(), FieldValidation::Strict).expect("decodes");
    assert_eq!(
        encoded(&doc, EncodeOptions::STORED),
        concat!(
            r#"{"metadata":{"name":"a","creationTimestamp":"2024-02-03T02:05:06Z","labels":{"a":"2","z":"1"}},"#,
            r#""spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"1Gi"}}}]},"status":{}}"#
        )
    );
    assert!(
        encoded(&doc, EncodeOptions::FULL)
            .starts_with(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"7","#)
    );
}

#[test]
fn custom_resources_keep_their_shape() {
    let input = r#"{"kind":"Foo","apiVersion":"example.com/v1","metadata":{"name":"a","resourceVersion":"7","generation":0},"spec":{"b":[1,2.5,null,"x"],"a":{}},"zeta":1e3,"alpha":9007199254740993}"#;
    let (doc, _) = decode_any(None, input.as_bytes(), FieldValidation::Strict).expect("decodes");
    assert_eq!(doc.meta().name(), "a");
    assert_eq!(
        encoded(&doc, EncodeOptions::FULL),
        r#"{"alpha":9007199254740993,"apiVersion":"example.com/v1","kind":"Foo","metadata":{"name":"a","resourceVersion":"7"},"spec":{"a":{},"b":[1,2.5,null,"x"]},"zeta":1000}"#
    );
    assert_eq!(
        encoded(&doc, EncodeOptions::STORED),
        r#"{"alpha":9007199254740993,"metadata":{"name":"a"},"spec":{"a":{},"b":[1,2.5,null,"x"]},"zeta":1000}"#
    );
}

#[test]
fn strings_are_escaped_and_broken_utf8_replaced() {
    let (doc, _) = decode(
        t::core_v1::CONFIG_MAP,
        b"{\"data\":{\"a\":\"\\u00e9\\ud83d\\ude00\\ud800 \\n\\\"\\u0001<\xff>\"}}",
        FieldValidation::Strict,
    )
    .expect("decodes");
    assert_eq!(
        encoded(&doc, EncodeOptions::STORED),
        "{\"metadata\":{},\"data\":{\"a\":\"é😀\u{fffd} \\n\\\"\\u0001<\u{fffd}>\"}}"
    );
    // One for each byte, as Go does it: two of a character of three bytes, and one that would be a surrogate.
    let (doc, _) = decode(
        t::core_v1::CONFIG_MAP,
        b"{\"data\":{\"a\":\"\xe2\x82.\xed\xa0\x80\",\"b\":\"\\n\xe2\x82\"}}",
        FieldValidation::Strict,
    )
    .expect("decodes");
    assert_eq!(
        encoded(&doc, EncodeOptions::STORED),
        "{\"metadata\":{},\"data\":{\"a\":\"\u{fffd}\u{fffd}.\u{fffd}\u{fffd}\u{fffd}\",\"b\":\"\\n\u{fffd}\u{fffd}\"}}"
    );
}

#[test]
fn type_meta_is_peeked() {
    assert_eq!(
        peek_type_meta(br#"{"spec":{"kind":"x"},"kind":"Pod","apiVersion":"v1"}"#).expect("peeks"),
        ("v1".into(), "Pod".into())
    );
    let broken = peek_type_meta(b"{\"kind\":}").expect_err("broken").to_string();
    assert_eq!(
        broken,
        "couldn't get version/kind; json parse error: invalid character '}' looking for beginning of value"
    );
}

#[test]
fn typed_views_and_back() {
    use k8s_openapi::api::core::v1::Pod;
    let input = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","creationTimestamp":"2024-02-03T02:05:06Z","managedFields":[{"manager":"m","fieldsV1":{"f:spec":{}}}]},
        "spec":{"containers":[{"name":"c","ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"http"}},"resources":{"limits":{"cpu":"1"}}}]}}"#;
    let (mut doc, _) = decode(t::core_v1::POD, input.as_bytes(), FieldValidation::Strict).expect("decodes");
    let before = doc.clone();
    let mut pod: Pod = doc.to_typed().expect("typed");
    let spec = pod.spec.as_mut().expect("spec");
    assert_eq!(spec.containers[0].ports.as_ref().map(|p| p[0].container_port), Some(80));
    let path = [crate::f::core_v1::pod::SPEC];
    doc.set_from_typed(&path, &spec).expect("written back");
    assert_eq!(doc, before);
    spec.node_name = Some("n".into());
    doc.set_from_typed(&path, &spec).expect("written back");
    assert_eq!(doc.str(&[crate::f::core_v1::pod::SPEC, crate::f::core_v1::pod_spec::NODE_NAME]), "n");
}

mod random {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that look like JSON of a pod, cut and mixed.
    fn broken_json() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"{".to_vec()),
            Just(b"}".to_vec()),
            Just(b"[".to_vec()),
            Just(b"]".to_vec()),
            Just(b",".to_vec()),
            Just(b":".to_vec()),
            Just(b"\"metadata\":".to_vec()),
            Just(b"\"spec\":{\"containers\":[".to_vec()),
            Just(b"\"resources\":{\"limits\":{\"cpu\":".to_vec()),
            Just(b"\"creationTimestamp\":\"2024-13-03T02:05:06Z\"".to_vec()),
            Just(b"\"data\":{\"a\":\"\\u".to_vec()),
            Just(b"null".to_vec()),
            Just(b"-0.5e+".to_vec()),
            Just(b"99999999999999999999".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in broken_json()) {
            for ty in [Some(t::core_v1::POD), Some(t::core_v1::SECRET), Some(t::apiextensions_v1::CUSTOM_RESOURCE_DEFINITION), None] {
                let _ = decode_any(ty, &bytes, FieldValidation::Strict);
            }
            let _ = peek_type_meta(&bytes);
            let _ = crate::proto::decode(t::core_v1::POD, &bytes);
        }

        #[test]
        fn what_decodes_encodes_to_a_fixed_point(name in "[a-z\\PC]{0,12}", key in "\\PC{0,8}", n in any::<i32>(), cpu in "[0-9]{1,9}[.]?[0-9]{0,4}(m|k|Ki|Mi|e3|)") {
            let input = serde_json::json!({"metadata": {"name": name, "annotations": {key.clone(): name}},
                "spec": {"priority": n, "containers": [{"name": key, "resources": {"limits": {"cpu": cpu}}}]}});
            let bytes = serde_json::to_vec(&input).expect("JSON");
            if let Ok((doc, _)) = decode(t::core_v1::POD, &bytes, FieldValidation::Strict) {
                let once = encoded(&doc, EncodeOptions::FULL);
                let (again, _) = decode(t::core_v1::POD, once.as_bytes(), FieldValidation::Strict).expect("its own output");
                prop_assert_eq!(&again.root, &doc.root);
                prop_assert_eq!(encoded(&again, EncodeOptions::FULL), once);
                let mut proto = Vec::new();
                crate::proto::encode_raw(&doc, &mut proto).expect("protobuf");
                prop_assert_eq!(&crate::proto::decode_raw(t::core_v1::POD, &proto).expect("its own output").root, &doc.root);
            }
        }

        #[test]
        fn damaged_protobuf_never_panics(at in 0usize..400, value in any::<u8>(), cut in 0usize..400) {
            let input = r#"{"metadata":{"name":"a","labels":{"x":"y"},"creationTimestamp":"2024-02-03T02:05:06Z"},"spec":{"containers":[{"name":"c",
                "ports":[{"containerPort":80}],"livenessProbe":{"httpGet":{"port":"http"}},"resources":{"limits":{"cpu":"1"}}}]}}"#;
            let (doc, _) = decode(t::core_v1::POD, input.as_bytes(), FieldValidation::Strict).expect("decodes");
            let mut bytes = Vec::new();
            crate::proto::encode(&doc, &mut bytes).expect("protobuf");
            let len = bytes.len();
            bytes[4 + at % (len - 4)] = value;
            bytes.truncate(len - cut % len);
            if let Ok(doc) = crate::proto::decode(t::core_v1::POD, &bytes) {
                let _ = encoded(&doc, EncodeOptions::FULL);
            }
        }
    }
}
