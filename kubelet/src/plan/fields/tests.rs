use super::tables::{ALL, CONTAINER, Care};
use super::*;
use k8s_openapi::api::core::v1::Volume;
use keelson_api::schema::TypeId;
use std::collections::BTreeSet;
use std::path::Path;

/// The tables stand for the API: each field of the schema's struct has a row, and each row a field.
#[test]
fn every_field_of_the_schema_has_a_row() {
    for (name, rows) in ALL {
        let id = TypeId::by_name(&format!("io.k8s.api.core.v1.{name}")).unwrap_or_else(|| panic!("{name}"));
        let fields: BTreeSet<&str> = id.def().fields.iter().map(|field| field.json).collect();
        let mut listed: BTreeSet<&str> = rows.iter().map(|(row, _)| *row).collect();
        assert_eq!(listed.len(), rows.len(), "{name}: a row stands twice");
        if *name == "EphemeralContainer" {
            listed.extend(CONTAINER.iter().map(|(row, _)| *row));
        }
        assert_eq!(fields, listed, "{name}");
    }
}

/// The text of a function in a source file, from its name to the next line that begins with a closing brace at the
/// same depth; `None`: there is none.
fn function<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = text.find(&format!("fn {name}("))?;
    let line = text[..begin].rfind('\n').map_or(0, |at| at + 1);
    let depth = text[line..].len() - text[line..].trim_start().len();
    let end = format!("\n{}}}\n", " ".repeat(depth));
    let length = text[begin..].find(&end).map_or(text.len() - begin, |at| at + end.len());
    Some(&text[begin..begin + length])
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A row may only say "honoured" with a test that is there, that runs, and that names the field.
#[test]
fn every_honoured_field_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut findings = Vec::new();
    for (table, rows) in ALL {
        for (field, care) in *rows {
            let Care::Honoured(test) = care else { continue };
            let (file, name) = test.rsplit_once("::").unwrap_or(("", test));
            let path = if file.starts_with("src/") {
                root.join(file)
            } else {
                root.join(format!("tests/{file}.rs"))
            };
            let Ok(text) = std::fs::read_to_string(&path) else {
                findings.push(format!("{table}.{field}: there is no {}", path.display()));
                continue;
            };
            let Some(body) = function(&text, name) else {
                findings.push(format!("{table}.{field}: {file} has no function {name}"));
                continue;
            };
            let runs = text.matches(&format!("{name}(")).count() > 1
                || text
                    .split(&format!("fn {name}("))
                    .next()
                    .is_some_and(|before| before.rfind("test").is_some_and(|at| !before[at..].contains('}')));
            if !runs {
                findings.push(format!("{table}.{field}: nothing calls {test}"));
            }
            if !body.contains(field) && !body.contains(&snake(field)) {
                findings.push(format!("{table}.{field}: {test} does not name the field"));
            }
        }
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// Each refused row refuses: a pod with that field set and nothing else.
#[test]
fn every_refused_field_is_refused() {
    let cases: &[(&str, &[&str])] = &[
        ("PodSpec", &["spec"]),
        ("Container", &["spec", "containers", "0"]),
        ("PodSecurityContext", &["spec", "securityContext"]),
        ("SecurityContext", &["spec", "containers", "0", "securityContext"]),
        ("ResourceRequirements", &["spec", "containers", "0", "resources"]),
        ("Lifecycle", &["spec", "containers", "0", "lifecycle"]),
        ("VolumeMount", &["spec", "containers", "0", "volumeMounts", "0"]),
        ("EnvVarSource", &["spec", "containers", "0", "env", "0", "valueFrom"]),
        ("Volume", &["spec", "volumes", "0"]),
        ("EmptyDirVolumeSource", &["spec", "volumes", "0", "emptyDir"]),
        ("VolumeProjection", &["spec", "volumes", "0", "projected", "sources", "0"]),
    ];
    let mut refused = 0;
    for (table, rows) in ALL {
        for (field, care) in *rows {
            let value = match care {
                Care::Refused(_) => serde_json::json!({"any": "thing"}),
                Care::RefusedIf(..) if *field == "hostUsers" => false.into(),
                Care::RefusedIf(..) if *field == "medium" => "HugePages".into(),
                Care::RefusedIf(..) => "Enabled".into(),
                _ => continue,
            };
            let (_, path) = cases.iter().find(|(name, _)| name == table).unwrap_or_else(|| panic!("{table}"));
            let mut spec = serde_json::json!({*field: value});
            for step in path[1..].iter().rev() {
                spec =
                    if *step == "0" { serde_json::json!([spec]) } else { serde_json::json!({*step: spec}) };
            }
            let error = Walk { path: "spec".into() }.pod(&spec).expect_err(field);
            assert!(error.contains(&format!(".{field}: ")), "{error}");
            refused += 1;
        }
    }
    assert!(refused > 30, "{refused}");
}

#[test]
fn a_container_that_comes_later_is_checked_too() {
    let container = |value: serde_json::Value| serde_json::from_value::<Container>(value).unwrap();
    let file = serde_json::json!({"fileKeyRef": {"volumeName": "v", "path": "p", "key": "k"}});
    let refused = container(serde_json::json!({"name": "d", "env": [{"name": "A", "valueFrom": file}]}));
    let message = check_container(&refused).unwrap_err().message;
    assert!(message.starts_with("container d.env[0].valueFrom.fileKeyRef: "), "{message}");
    assert_eq!(check_container(&container(serde_json::json!({"name": "d", "tty": true}))), Ok(()));
}

#[test]
fn what_the_node_lacks_is_refused_as_upstream_does() {
    let pod = |spec: serde_json::Value| -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap()
    };
    let none = Support { app_armor: false, strict_groups: false };
    let all = Support { app_armor: true, strict_groups: true };
    let strict =
        pod(serde_json::json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}, "containers": []}));
    assert_eq!(check_support(&strict, none).unwrap_err().reason, "SupplementalGroupsPolicyNotSupported");
    assert_eq!(check_support(&strict, all), Ok(()));
    let armour = |kind: &str| {
        pod(
            serde_json::json!({"containers": [{"name": "a", "securityContext": {"appArmorProfile": {"type": kind}}}]}),
        )
    };
    let refused = check_support(&armour("RuntimeDefault"), none).unwrap_err();
    assert_eq!(refused.message, "Cannot enforce AppArmor: AppArmor is not enabled on the host");
    assert_eq!(check_support(&armour("Unconfined"), none), Ok(()));
    assert_eq!(check_support(&armour("RuntimeDefault"), all), Ok(()));
    for (spec, message) in [
        (
            serde_json::json!({"hostNetwork": true}),
            "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled",
        ),
        (serde_json::json!({}), ""),
    ] {
        let mut spec = spec;
        spec["containers"] = serde_json::json!([]);
        spec["securityContext"] =
            serde_json::json!({"sysctls": [{"name": "net/ipv4/tcp_rmem", "value": "1"}]});
        let seen = check(&pod(spec)).map_or_else(|refused| refused.message, |()| String::new());
        assert_eq!(seen, message);
    }
}

#[test]
fn a_pod_that_does_not_fit_is_refused() {
    let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": {"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Ki"}}}]}}))
    .unwrap();
    let room = Room { cpu: (1500, 2000), memory: (0, 1024), pods: (1, 2) };
    assert_eq!(check_room(&pod, &room), Ok(()));
    let refused = |room: Room| check_room(&pod, &room).unwrap_err();
    let cpu = refused(Room { cpu: (1501, 2000), ..room });
    assert_eq!(cpu.reason, "OutOfcpu");
    assert_eq!(
        cpu.message,
        "Node didn't have enough resource: cpu, requested: 500, used: 1501, capacity: 2000"
    );
    assert_eq!(refused(Room { memory: (1, 1024), ..room }).reason, "OutOfmemory");
    assert_eq!(refused(Room { pods: (2, 2), ..room }).reason, "OutOfpods");
}

#[test]
fn what_is_not_there_yet_is_refused_with_its_path() {
    let cases = [
        (serde_json::json!({"hostUsers": false}), "spec.hostUsers"),
        (serde_json::json!({"runtimeClassName": "kata"}), "spec.runtimeClassName"),
        (
            serde_json::json!({"volumes": [{"name": "v", "nfs": {"path": "/", "server": "s"}}]}),
            "spec.volumes[0].",
        ),
        (
            serde_json::json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            "spec.volumes[0].",
        ),
        (
            serde_json::json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
            "sysctl",
        ),
        (
            serde_json::json!({"containers": [{"name": "a", "volumeDevices": [{"name": "v", "devicePath": "/d"}]}]}),
            "volumeDevices",
        ),
    ];
    for (spec, expected) in cases {
        let mut spec = spec;
        if spec.get("containers").is_none() {
            spec["containers"] = serde_json::json!([{"name": "a"}]);
        }
        let pod: Pod = serde_json::from_value(serde_json::json!({"metadata": {}, "spec": spec})).unwrap();
        let refused = check(&pod).unwrap_err();
        assert!(refused.message.contains(expected), "{refused}");
    }
    let fine = Pod {
        spec: Some(k8s_openapi::api::core::v1::PodSpec {
            containers: vec![Container { name: "a".into(), ..Default::default() }],
            volumes: Some(vec![Volume { name: "v".into(), ..Default::default() }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(check(&fine), Ok(()));
}
