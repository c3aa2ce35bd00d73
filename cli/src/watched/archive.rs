//! The names of the images in an archive: OCI's layout or `docker save`'s, plain or in gzip.

use anyhow::{Context as _, Result, bail};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;

/// No list of names is longer.
const LONGEST: u64 = 8 << 20;
/// The image's whole name, as containerd writes and reads it.
const NAME: &str = "io.containerd.image.name";

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Manifest>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "RepoTags", default)]
    names: Option<Vec<String>>,
}

/// The images' names as the runtime will know them, in order.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let read = || -> Result<Vec<String>> {
        let mut file = File::open(path)?;
        let mut magic = [0u8; 4];
        let length = file.read(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        match magic.get(..length) {
            Some([0x1f, 0x8b, ..]) => {
                let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
                of(archive.entries()?, u64::MAX)
            }
            Some([0x28, 0xb5, 0x2f, 0xfd]) => bail!("zstd is not read here; give it as .tar or .tar.gz"),
            // Layers are passed over, not read: archives are large.
            _ => {
                let length = file.metadata()?.len();
                of(tar::Archive::new(BufReader::new(file)).entries_with_seek()?, length)
            }
        }
    };
    let mut found = read().with_context(|| format!("{} is no archive of images", path.display()))?;
    found.sort();
    found.dedup();
    anyhow::ensure!(!found.is_empty(), "the archive {} names no image", path.display());
    Ok(found)
}

/// Files in an archive are filled up to a multiple of this, in bytes.
const BLOCK: u64 = 512;

/// Names in the entries of an archive that is `length` bytes long, where that is known.
fn of(entries: tar::Entries<'_, impl Read>, length: u64) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let end = entry.raw_file_position().saturating_add(entry.size()).checked_next_multiple_of(BLOCK);
        anyhow::ensure!(end.is_some_and(|end| end <= length), "it is cut short");
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if path != "index.json" && path != "manifest.json" {
            continue;
        }
        let mut text = Vec::new();
        entry.take(LONGEST).read_to_end(&mut text)?;
        if path == "index.json" {
            let index: Index = serde_json::from_slice(&text).context("its index.json is damaged")?;
            found.extend(index.manifests.into_iter().filter_map(|mut one| one.annotations.remove(NAME)));
        } else {
            let saved: Vec<Saved> = serde_json::from_slice(&text).context("its manifest.json is damaged")?;
            found.extend(
                saved.into_iter().flat_map(|one| one.names.unwrap_or_default()).map(|name| whole(&name)),
            );
        }
    }
    Ok(found)
}

/// A short name as the runtime writes it: `busybox:1` is `docker.io/library/busybox:1`.
pub fn whole(name: &str) -> String {
    let tagged = match name.rsplit_once('/').map_or(name, |(_, last)| last).contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    };
    match tagged.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => tagged,
        Some(_) => format!("docker.io/{tagged}"),
        None => format!("docker.io/library/{tagged}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn names_are_read_from_either_layout_and_from_gzip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let check = |bytes: &[u8], expected: Result<&[&str], &str>| {
            std::fs::write(&path, bytes).unwrap();
            match (names(&path), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(words)) => assert!(format!("{error:#}").contains(words), "{error:#}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
        let oci = archive(&[
            ("oci-layout", "{}"),
            (
                "./index.json",
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"a.b/c:1"}},{"digest":"x"}]}"#,
            ),
        ]);
        check(&oci, Ok(&["a.b/c:1"]));
        let saved = archive(&[(
            "manifest.json",
            r#"[{"Config":"x","RepoTags":["busybox:1","me/tool"]},{"RepoTags":null}]"#,
        )]);
        let both = ["docker.io/library/busybox:1", "docker.io/me/tool:latest"];
        check(&saved, Ok(&both));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&saved).unwrap();
        check(&gzip.finish().unwrap(), Ok(&both));
        check(&archive(&[("other", "x")]), Err("names no image"));
        check(&archive(&[("index.json", "{")]), Err("its index.json is damaged"));
        check(b"(\xb5/\xfd....", Err("zstd is not read"));
        check(&saved[..700], Err("is no archive"));
        let layered = archive(&[
            ("index.json", r#"{"manifests":[{"annotations":{"io.containerd.image.name":"a.b/c:1"}}]}"#),
            ("blobs/x", &"x".repeat(5000)),
        ]);
        check(&layered, Ok(&["a.b/c:1"]));
        check(&layered[..4000], Err("cut short"));
    }

    #[test]
    fn short_names_are_made_whole() {
        for (name, expected) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("me/tool:2", "docker.io/me/tool:2"),
            ("localhost/x", "localhost/x:latest"),
            ("host:5000/x", "host:5000/x:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("a.b/c@sha256:00", "a.b/c@sha256:00"),
        ] {
            assert_eq!(whole(name), expected);
        }
    }
}
