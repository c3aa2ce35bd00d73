//! The file of a snapshot: gzip around lines of JSON. The first line is the [`Header`] with the cluster's keys, then one
//! line for each object, the last line holds their number and the SHA-256 of all lines before it.
//!
//! A file is written under another name, synced, and renamed: what has its name is whole.

use crate::hashed::Hashed;
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The form that this code writes; older ones it would read, newer ones it refuses.
pub const FORMAT: u32 = 1;
/// Files end so.
pub const EXTENSION: &str = "snapshot";
/// No line is longer: a value has at most some MiB, and escapes can make six bytes of one.
const MAX_LINE: u64 = 64 << 20;

/// What a snapshot is of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// [`FORMAT`].
    pub keelson_snapshot: u32,
    /// The keelson that wrote it.
    pub version: String,
    /// The hash of the authority's public key, which is what makes a cluster the same.
    pub cluster: String,
    pub taken: Timestamp,
    /// The machine it was taken on.
    pub node: String,
    /// The newest revision in it.
    pub revision: u64,
    /// How the components ran there: `all-in-one` or `units`.
    pub mode: String,
    /// What all machines of the cluster share, as a configuration file.
    pub configuration: String,
    /// The authorities and the service accounts' keys, by file name.
    pub keys: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    key: String,
    /// A value that is JSON, as it is.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    /// A value that is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    objects: u64,
    sha256: String,
}

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot write the snapshot {path}; nothing was left of it")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the snapshot {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is no snapshot of keelson")]
    NotOne { path: PathBuf },
    #[error(
        "the snapshot {path} was written by keelson {version}, this is {own}; install that version or a newer one"
    )]
    Newer { path: PathBuf, version: String, own: &'static str },
    #[error(
        "the snapshot {path} is cut short; use another copy of it (`keelson snapshot list` shows which are whole)"
    )]
    Cut { path: PathBuf },
    #[error(
        "the snapshot {path} was altered or damaged after it was written; use another copy of it (`keelson snapshot list` shows which are whole)"
    )]
    Altered { path: PathBuf },
    #[error("the value of {key} is no text")]
    Value { key: String },
}

/// A snapshot that is being written. Dropped before [`Writer::finish`], nothing is left of it.
pub struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    out: Option<Hashed<GzEncoder<BufWriter<File>>>>,
    objects: u64,
}

impl Writer {
    /// Begins a file that only its owner may read: it holds the cluster's keys.
    pub fn create(path: &Path, header: &Header) -> Result<Writer, SnapshotError> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let failed = |source| SnapshotError::Write { path: path.to_owned(), source };
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary);
        let file = file.map_err(failed)?;
        let encoder = GzEncoder::new(BufWriter::with_capacity(1 << 16, file), Compression::fast());
        let out = Some(Hashed { inner: encoder, hash: Sha256::new() });
        let mut writer = Writer { path: path.to_owned(), temporary, out, objects: 0 };
        writer.line(header)?;
        Ok(writer)
    }

    /// Adds an object.
    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), SnapshotError> {
        let text = std::str::from_utf8(value).map_err(|_| SnapshotError::Value { key: key.to_owned() })?;
        let json: Option<&RawValue> = serde_json::from_str(text)
            .ok()
            .filter(|raw: &&RawValue| raw.get() == text && !text.contains('\n'));
        let text = json.is_none().then(|| text.to_owned());
        self.objects += 1;
        self.line(&Line { key: key.to_owned(), value: json, text })
    }

    /// Ends the file and gives it its name. How many objects it holds.
    pub fn finish(mut self) -> Result<u64, SnapshotError> {
        let failed = |source| SnapshotError::Write { path: self.path.clone(), source };
        let Some(out) = self.out.take() else { return Ok(0) };
        let Hashed { mut inner, hash } = out;
        let end = End { objects: self.objects, sha256: hex(&hash.finalize()) };
        let finished = (|| {
            serde_json::to_writer(&mut inner, &end)?;
            inner.write_all(b"\n")?;
            let file = inner.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            fs::rename(&self.temporary, &self.path)?;
            File::open(self.path.parent().filter(|at| !at.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        })();
        finished.map_err(failed)?;
        Ok(self.objects)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), SnapshotError> {
        let Some(out) = &mut self.out else { return Ok(()) };
        let written = serde_json::to_writer(&mut *out, line)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"));
        written.map_err(|source| SnapshotError::Write { path: self.path.clone(), source })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After a rename there is nothing by this name.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A snapshot that is being read.
pub struct Reader {
    path: PathBuf,
    pub header: Header,
    input: BufReader<GzDecoder<BufReader<File>>>,
    hash: Sha256,
    line: Vec<u8>,
    objects: u64,
}

impl Reader {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> Result<Reader, SnapshotError> {
        let failed = |source| SnapshotError::Read { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0u8; 2];
        let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        if !is_gzip {
            return Err(match file.metadata().map_err(failed)?.len() {
                0 | 1 => SnapshotError::Cut { path: path.to_owned() },
                _ => SnapshotError::NotOne { path: path.to_owned() },
            });
        }
        let file = File::open(path).map_err(failed)?;
        let input = BufReader::with_capacity(1 << 16, GzDecoder::new(BufReader::new(file)));
        let empty = Header {
            keelson_snapshot: 0,
            version: String::new(),
            cluster: String::new(),
            taken: Timestamp::UNIX_EPOCH,
            node: String::new(),
            revision: 0,
            mode: String::new(),
            configuration: String::new(),
            keys: BTreeMap::new(),
        };
        let mut reader = Reader {
            path: path.to_owned(),
            header: empty,
            input,
            hash: Sha256::new(),
            line: Vec::new(),
            objects: 0,
        };
        reader.next_line()?;
        reader.header = reader.read_header()?;
        reader.hash.update(&reader.line);
        Ok(reader)
    }

    fn read_header(&self) -> Result<Header, SnapshotError> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Stated {
            keelson_snapshot: u32,
            version: String,
        }
        let stated: Stated = serde_json::from_slice(&self.line).unwrap_or_default();
        let own = crate::version::OWN;
        match stated.keelson_snapshot {
            0 => return Err(SnapshotError::NotOne { path: self.path.clone() }),
            format if format > FORMAT || numbers(&stated.version) > numbers(own) => {
                return Err(SnapshotError::Newer { path: self.path.clone(), version: stated.version, own });
            }
            _ => {}
        }
        serde_json::from_slice(&self.line).map_err(|_| SnapshotError::Altered { path: self.path.clone() })
    }

    /// The next object; `None` after the last, when the file was whole and unaltered.
    pub fn object(&mut self) -> Result<Option<(String, Vec<u8>)>, SnapshotError> {
        let altered = |reader: &Reader| SnapshotError::Altered { path: reader.path.clone() };
        self.next_line()?;
        if let Ok(end) = serde_json::from_slice::<End>(&self.line) {
            let hash = hex(&std::mem::take(&mut self.hash).finalize());
            let counted = self.objects;
            // The end of the stream is read too: its own checksum and length lie there.
            let more = self.input.fill_buf().map(<[u8]>::len);
            let more = more.map_err(|error| self.broken(error))?;
            if end.sha256 != hash || end.objects != counted || more > 0 {
                return Err(altered(self));
            }
            return Ok(None);
        }
        self.hash.update(&self.line);
        self.objects += 1;
        let line: Line<'_> = serde_json::from_slice(&self.line).map_err(|_| altered(self))?;
        let value = match (line.value, line.text) {
            (Some(raw), None) => raw.get().as_bytes().to_vec(),
            (None, Some(text)) => text.into_bytes(),
            _ => return Err(altered(self)),
        };
        Ok(Some((line.key, value)))
    }

    /// Reads to the end. How many objects there are.
    pub fn verify(mut self) -> Result<(Header, u64), SnapshotError> {
        while self.object()?.is_some() {}
        Ok((self.header, self.objects))
    }

    fn next_line(&mut self) -> Result<(), SnapshotError> {
        self.line.clear();
        let read = (&mut self.input).take(MAX_LINE).read_until(b'\n', &mut self.line);
        match read {
            Ok(_) if self.line.last() == Some(&b'\n') => Ok(()),
            Ok(_) => Err(SnapshotError::Cut { path: self.path.clone() }),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, error: io::Error) -> SnapshotError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::UnexpectedEof => SnapshotError::Cut { path },
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => SnapshotError::Altered { path },
            _ => SnapshotError::Read { path, source: error },
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A version's numbers, for comparing.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
