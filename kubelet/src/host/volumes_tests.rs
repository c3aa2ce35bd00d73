use super::*;

fn pod(spec: serde_json::Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = serde_json::json!([{"name": "c"}]);
    }
    serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n", "uid": "u",
        "labels": {"k": "v"}}, "spec": spec}))
    .unwrap()
}

fn volumes(root: &Path) -> Volumes {
    Volumes { root: root.to_path_buf(), objects: Objects::without_api() }
}

fn root_only() -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: mounting needs root");
        return false;
    }
    true
}

#[tokio::test]
async fn an_empty_dir_is_for_everyone_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = volumes(dir.path());
    let p = pod(serde_json::json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w"}]}));
    let paths = volumes.mount(&p, &Facts::default(), true).await.unwrap();
    let path = &paths["v"];
    assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o7777, 0o777);
    std::fs::write(path.join("f"), "x").unwrap();
    volumes.mount(&p, &Facts::default(), false).await.unwrap();
    assert!(path.join("f").exists());
    volumes.remove("u").unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_memory_volume_is_a_tmpfs_of_its_size() {
    if !root_only() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let volumes = volumes(dir.path());
    let p = pod(serde_json::json!({"securityContext": {"fsGroup": 77},
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}));
    let facts = Facts { allocatable_memory: 1 << 30, ..Facts::default() };
    let paths = volumes.mount(&p, &facts, true).await.unwrap();
    let usage = mounts::fs_usage(&paths["v"]).unwrap();
    assert_eq!(usage.capacity, 1 << 20);
    let meta = std::fs::metadata(&paths["v"]).unwrap();
    assert_eq!((meta.gid(), meta.mode() & 0o7777), (77, 0o2777));
    volumes.remove("u").unwrap();
}

#[tokio::test]
async fn the_downward_api_follows_the_pod() {
    if !root_only() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let volumes = volumes(dir.path());
    let mut p =
        pod(serde_json::json!({"volumes": [{"name": "v", "downwardAPI": {"defaultMode": 0o600, "items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "sub/name", "mode": 0o444, "fieldRef": {"fieldPath": "metadata.name"}}]}}]}));
    let paths = volumes.mount(&p, &Facts::default(), true).await.unwrap();
    let read = |name: &str| std::fs::read_to_string(paths["v"].join(name)).unwrap();
    assert_eq!(read("labels"), "k=\"v\"");
    assert_eq!(read("sub/name"), "p");
    assert_eq!(std::fs::metadata(paths["v"].join("sub/name")).unwrap().mode() & 0o777, 0o444);
    p.metadata.labels.as_mut().unwrap().insert("x".into(), "y".into());
    volumes.mount(&p, &Facts::default(), false).await.unwrap();
    assert_eq!(read("labels"), "k=\"v\"\nx=\"y\"");
    volumes.remove("u").unwrap();
}

#[tokio::test]
async fn without_an_api_server_its_objects_are_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = volumes(dir.path());
    let p = pod(serde_json::json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}]}));
    let error = volumes.mount(&p, &Facts::default(), true).await.unwrap_err().to_string();
    assert!(error.starts_with("MountVolume.SetUp failed for volume \"v\" : "), "{error}");
    assert!(error.contains("no API server"), "{error}");
}

#[test]
fn keys_are_selected_and_missing_ones_named() {
    let map: ConfigMap = serde_json::from_value(
        serde_json::json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}),
    )
    .unwrap();
    let all = config_map_payload(&map, None, 0o644, false).unwrap();
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(all["c"].data, [0, 1]);
    let item = |key: &str| KeyToPath { key: key.into(), path: "p/q".into(), mode: Some(0o400) };
    let one = config_map_payload(&map, Some(&[item("b")]), 0o644, false).unwrap();
    assert_eq!((one["p/q"].data.as_slice(), one["p/q"].mode), (b"2".as_slice(), 0o400));
    let error = config_map_payload(&map, Some(&[item("z")]), 0o644, false).unwrap_err().to_string();
    assert_eq!(error, "configmap references non-existent config key: z");
    assert!(config_map_payload(&map, Some(&[item("z")]), 0o644, true).unwrap().is_empty());
}

#[test]
fn host_paths_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, kind: &str| {
        let path = dir.path().join(name).display().to_string();
        host_path(&HostPathVolumeSource { path, type_: Some(kind.into()) })
            .map(drop)
            .map_err(|e| e.to_string())
    };
    std::fs::write(dir.path().join("f"), "").unwrap();
    assert!(check("f", "File").is_ok());
    assert!(check("f", "Directory").unwrap_err().contains("is not a directory"));
    assert!(check("none", "File").unwrap_err().contains("is not a file"));
    assert!(check("none", "").is_ok());
    assert!(check("made", "DirectoryOrCreate").is_ok() && dir.path().join("made").is_dir());
    assert!(check("made-file", "FileOrCreate").is_ok() && dir.path().join("made-file").is_file());
    assert!(check("f", "Socket").unwrap_err().contains("socket"));
}
