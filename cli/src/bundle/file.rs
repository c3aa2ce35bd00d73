//! The file of a bundle: a tar with `bundle.json` first, its signature second, and then the files that it lists, in its
//! order, each with its SHA-256. What is read is checked while it is read: nothing unlisted, nothing missing, nothing altered.

use crate::hashed::Hashed;
use anyhow::{Context as _, Result, bail};
use keelson_pki::signing::{self, SigningKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

/// The form that this code writes and reads.
pub const FORMAT: u32 = 1;
const LIST: &str = "bundle.json";
const SIGNATURE: &str = "bundle.sig";
/// No list is longer.
const LONGEST: u64 = 16 << 20;

/// What a file of a bundle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Package,
    Image,
    Manifest,
}

impl Kind {
    /// The folder of the bundle that holds them.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Package => "packages",
            Kind::Image => "images",
            Kind::Manifest => "manifests",
        }
    }
}

/// A file of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    pub kind: Kind,
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    /// Of a package its name and version, of an archive its images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
}

impl Part {
    /// Its path in the bundle.
    pub fn path(&self) -> String {
        format!("{}/{}", self.kind.folder(), self.name)
    }
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    pub keelson_bundle: u32,
    /// The keelson in it.
    pub version: String,
    /// The images that a cluster of it needs: its own and those that the manifests name.
    pub images: Vec<String>,
    pub parts: Vec<Part>,
}

/// A file that is to be in a bundle, and what it is called there.
pub struct Source {
    pub path: PathBuf,
    pub part: Part,
}

impl Source {
    /// Reads the file for its length and hash.
    pub fn read(kind: Kind, path: &Path, holds: Vec<String>) -> Result<Source> {
        let name = path.file_name().context("it has no name")?.to_string_lossy().into_owned();
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut hashed = Hashed { inner: io::sink(), hash: Sha256::new() };
        let bytes = io::copy(&mut BufReader::with_capacity(1 << 20, file), &mut hashed)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let part = Part { kind, name, bytes, sha256: hex(hashed.hash), holds };
        Ok(Source { path: path.to_owned(), part })
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a bundle; what has its name is whole. The same parts and key give the same file.
pub fn write(path: &Path, list: &List, sources: &[Source], key: &SigningKey) -> Result<()> {
    let temporary = path.with_extension("part");
    let made = (|| -> Result<()> {
        let file = File::create(&temporary)?;
        let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, file));
        let text = serde_json::to_vec_pretty(list)?;
        append(&mut tar, LIST, text.len() as u64, text.as_slice())?;
        let signature = key.sign(&text);
        append(&mut tar, SIGNATURE, signature.len() as u64, signature.as_slice())?;
        for source in sources {
            let content =
                File::open(&source.path).with_context(|| format!("cannot read {}", source.path.display()))?;
            // A file that changed since it was hashed would make a bundle that nobody can use.
            append(&mut tar, &source.part.path(), source.part.bytes, content.take(source.part.bytes))?;
        }
        let file = tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        Ok(())
    })();
    if made.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    made.with_context(|| format!("cannot write {}", path.display()))
}

fn append(tar: &mut tar::Builder<impl Write>, name: &str, bytes: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content)
}

/// Reads a bundle to its end: signature, list, every file. With a folder its files are put there, and are there only when the
/// whole bundle was good.
pub fn read(path: &Path, public_key: &[u8], into: Option<&Path>) -> Result<List> {
    let what = || format!("the bundle {} is not used", path.display());
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let outcome = walk(file, public_key, into);
    if let (Err(_), Some(folder)) = (&outcome, into) {
        let _ = std::fs::remove_dir_all(folder);
    }
    outcome.with_context(what)
}

fn walk(file: File, public_key: &[u8], into: Option<&Path>) -> Result<List> {
    let cut = "it is cut short; copy it again";
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    let mut entries = archive.entries().context("it is no bundle")?;
    let mut small = |name: &str| -> Result<Vec<u8>> {
        let entry = entries.next().context(cut)?.context("it is no bundle, or is damaged")?;
        anyhow::ensure!(
            entry.path_bytes().as_ref() == name.as_bytes(),
            "it is no bundle: {name} is not where it should be"
        );
        let (size, mut content) = (entry.size(), Vec::new());
        anyhow::ensure!(size <= LONGEST, "its {name} is too long");
        entry.take(LONGEST).read_to_end(&mut content).context(cut)?;
        anyhow::ensure!(content.len() as u64 == size, cut);
        Ok(content)
    };
    let (text, signature) = (small(LIST)?, small(SIGNATURE)?);
    signing::verify(public_key, &text, &signature)
        .context("its list cannot be believed; use the public key of whoever made it, or another copy")?;
    let list: List =
        serde_json::from_slice(&text).context("its list cannot be read; it may be of a newer keelson")?;
    if list.keelson_bundle != FORMAT {
        bail!(
            "it has form {}, this keelson knows form {FORMAT}; use the keelson that made it",
            list.keelson_bundle
        );
    }
    for part in &list.parts {
        anyhow::ensure!(plain(&part.name), "its list names a file {:?}", part.name);
        let entry = entries.next().context(cut)?.context(cut)?;
        let path = part.path();
        anyhow::ensure!(
            entry.path_bytes().as_ref() == path.as_bytes(),
            "{path} is not where it should be: it was altered"
        );
        let out: Box<dyn Write> = match into {
            None => Box::new(io::sink()),
            Some(folder) => {
                let place = folder.join(&path);
                std::fs::create_dir_all(place.parent().unwrap_or(folder))
                    .with_context(|| format!("cannot make {}", folder.display()))?;
                let file =
                    File::create(&place).with_context(|| format!("cannot write {}", place.display()))?;
                Box::new(BufWriter::with_capacity(1 << 20, file))
            }
        };
        let mut out = Hashed { inner: out, hash: Sha256::new() };
        let bytes = io::copy(&mut entry.take(part.bytes + 1), &mut out)
            .and_then(|bytes| out.flush().map(|()| bytes))
            .with_context(|| format!("{path} cannot be taken out"))?;
        anyhow::ensure!(bytes >= part.bytes, cut);
        anyhow::ensure!(
            bytes == part.bytes && hex(out.hash) == part.sha256,
            "{path} was altered or damaged; copy it again"
        );
    }
    match entries.next() {
        None => Ok(list),
        Some(_) => bail!("it holds more than its list says: it was altered"),
    }
}

/// A name without a way out of its folder.
fn plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        folder: tempfile::TempDir,
        list: List,
        public: String,
    }

    impl Made {
        fn new() -> Made {
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str, text: &str| {
                let path = folder.path().join(name);
                std::fs::write(&path, text).unwrap();
                path
            };
            let sources = vec![
                Source::read(Kind::Package, &file("a.deb", "a package"), vec!["a 1".into()]).unwrap(),
                Source::read(Kind::Manifest, &file("m.yaml", &"x".repeat(2000)), vec![]).unwrap(),
            ];
            let parts = sources.iter().map(|source| source.part.clone()).collect();
            let list = List { keelson_bundle: FORMAT, version: "1".into(), images: vec![], parts };
            let (key, _) = SigningKey::generate().unwrap();
            write(&folder.path().join("b"), &list, &sources, &key).unwrap();
            Made { public: key.public_pem(), folder, list }
        }

        fn refused(&self, bytes: &[u8], words: &str) {
            let (path, out) = (self.folder.path().join("bad"), self.folder.path().join("out"));
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path, self.public.as_bytes(), Some(&out)).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{error:#}");
            assert!(!out.exists(), "nothing stays of it");
        }
    }

    #[test]
    fn what_was_put_in_comes_out_and_nothing_else() {
        let made = Made::new();
        let (path, out) = (made.folder.path().join("b"), made.folder.path().join("out"));
        assert_eq!(read(&path, made.public.as_bytes(), Some(&out)).unwrap(), made.list);
        assert_eq!(std::fs::read_to_string(out.join("packages/a.deb")).unwrap(), "a package");
        std::fs::remove_dir_all(&out).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let find = |text: &str| whole.windows(text.len()).position(|at| at == text.as_bytes()).unwrap();
        let changed = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        made.refused(&changed(find("a package")), "packages/a.deb was altered");
        made.refused(&changed(find("\"version\"") + 3), "cannot be believed");
        for cut in [600, find("a package") + 3, find("xxxx") + 1000] {
            made.refused(&whole[..cut], "cut short");
        }
        made.refused(b"something else", "no bundle");
        let other = SigningKey::generate().unwrap().0.public_pem();
        let error = read(&path, other.as_bytes(), None).unwrap_err();
        assert!(format!("{error:#}").contains("public key of whoever made it"), "{error:#}");
    }

    #[test]
    fn names_lead_nowhere_else() {
        for (name, good) in [
            ("a.deb", true),
            ("", false),
            ("..", false),
            ("../a", false),
            ("/a", false),
            ("a/b", false),
            (".a", false),
        ] {
            assert_eq!(plain(name), good, "{name}");
        }
    }
}
