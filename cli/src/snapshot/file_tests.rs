use super::*;

fn header() -> Header {
    Header {
        keelson_snapshot: FORMAT,
        version: crate::version::OWN.to_owned(),
        cluster: "sha256:00".to_owned(),
        taken: "2026-03-01T12:00:00Z".parse().unwrap(),
        node: "n1".to_owned(),
        revision: 7,
        mode: "units".to_owned(),
        configuration: "apiVersion: keelson/v1\n".to_owned(),
        keys: BTreeMap::from([("ca.key".to_owned(), "secret".to_owned())]),
    }
}

const OBJECTS: [(&str, &str); 5] = [
    ("/registry/pods/a/b", r#"{"metadata":{"name":"b"},"x":"ä\n","n":1.50}"#),
    ("/registry/pods/a/c", "{}"),
    ("/keelson/spaced", "{ \"a\" : 1 }\n"),
    ("/keelson/text", "no json"),
    ("/keelson/number", "6443"),
];

fn written(path: &Path, header: &Header) {
    let mut writer = Writer::create(path, header).unwrap();
    for (key, value) in OBJECTS {
        writer.put(key, value.as_bytes()).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), 5);
}

fn read(path: &Path) -> Result<(Header, u64), SnapshotError> {
    Reader::open(path).and_then(Reader::verify)
}

#[test]
fn values_come_back_byte_for_byte() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.snapshot");
    written(&path, &header());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut reader = Reader::open(&path).unwrap();
    assert_eq!((reader.header.revision, reader.header.keys["ca.key"].as_str()), (7, "secret"));
    for (key, value) in OBJECTS {
        assert_eq!(reader.object().unwrap(), Some((key.to_owned(), value.as_bytes().to_vec())));
    }
    assert_eq!(reader.object().unwrap(), None);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.snapshot");
    written(&path, &header());
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(read(&path), Err(SnapshotError::Cut { .. })), "cut at {length}: {:?}", read(&path));
    }
}

#[test]
fn a_file_that_is_altered_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.snapshot");
    written(&path, &header());
    let whole = fs::read(&path).unwrap();
    let content = |path: &Path| -> Result<(String, Vec<(String, Vec<u8>)>), SnapshotError> {
        let mut reader = Reader::open(path)?;
        let mut objects = Vec::new();
        while let Some(object) = reader.object()? {
            objects.push(object);
        }
        Ok((serde_json::to_string(&reader.header).unwrap(), objects))
    };
    let good = content(&path).unwrap();
    let mut silent = 0;
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x10;
        fs::write(&path, &altered).unwrap();
        // Gzip's head has a time, and its last byte before the sums some bits that mean nothing.
        if let Ok(read) = content(&path) {
            assert_eq!(read, good, "altered at {at}");
            silent += 1;
        }
    }
    assert!(silent <= 8, "{silent} bytes can be altered unnoticed");
    let mut longer = whole.clone();
    longer.extend(&whole);
    fs::write(&path, &longer).unwrap();
    // A second stream behind the first is not looked at by gzip's reader, and changes nothing.
    assert_eq!(read(&path).unwrap().1, 5);
    // A line more, with gzip's own sums right: our sum is not.
    let mut writer = Writer::create(&path, &header()).unwrap();
    writer.put("/a", b"{}").unwrap();
    if let Some(out) = &mut writer.out {
        out.inner.write_all(b"{\"key\":\"/b\",\"value\":{}}\n").unwrap();
    }
    writer.finish().unwrap();
    assert!(matches!(read(&path), Err(SnapshotError::Altered { .. })));
}

#[test]
fn what_is_newer_or_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.snapshot");
    for newer in [
        Header { keelson_snapshot: FORMAT + 1, ..header() },
        Header { version: "999.0.0".to_owned(), ..header() },
    ] {
        written(&path, &newer);
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("was written by keelson") && error.contains("install that version"),
            "{error}"
        );
    }
    written(&path, &Header { version: "0.0.9".to_owned(), ..header() });
    read(&path).unwrap();
    fs::write(&path, "apiVersion: v1\nkind: Config\n").unwrap();
    assert!(matches!(read(&path), Err(SnapshotError::NotOne { .. })));
    assert!(matches!(read(&folder.path().join("missing")), Err(SnapshotError::Read { .. })));
}

#[test]
fn a_file_that_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.snapshot");
    drop(Writer::create(&path, &header()).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("missing/a.snapshot");
    assert!(matches!(Writer::create(&nowhere, &header()), Err(SnapshotError::Write { .. })));
}
