//! Finding and reading the published sources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

const PROTO_CRATE: &str = "k8s-rs-pb";
const PROTO_FOLDER: &str = "src/v1_35";
const DEFINITIONS_PACKAGE: &str = "kubernetes-validate==1.35.0";
const DEFINITIONS_MEMBER: &str = "kubernetes_validate/kubernetes-json-schema/v1.35.0-local/_definitions.json";

/// One message: its fields in the order of the file.
pub struct Message {
    pub fields: Vec<ProtoField>,
}

pub struct ProtoField {
    pub name: String,
    pub number: u32,
    pub label: Label,
    /// A scalar's name (`string`, `int32`…) or a message's full name.
    pub ty: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Label {
    Optional,
    Repeated,
    /// A map with string keys; `ty` is the value's.
    Map,
}

pub struct Sources {
    /// In the files' order within a package.
    pub messages: Vec<(String, Message)>,
    pub definitions: BTreeMap<String, Value>,
    pub checksums: Vec<(String, String)>,
}

impl Sources {
    pub fn message(&self, name: &str) -> Option<&Message> {
        self.messages.iter().find(|(n, _)| n == name).map(|(_, m)| m)
    }
}

pub fn load(root: &Path, definitions: Option<&Path>) -> anyhow::Result<Sources> {
    let folder = proto_folder(root)?;
    let (messages, proto_sum) = read_protos(&folder)?;
    let path = match definitions {
        Some(path) => path.to_owned(),
        None => fetch_definitions(root)?,
    };
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let parsed: Value = serde_json::from_slice(&bytes).context("parsing the definitions")?;
    let table = parsed
        .get("$defs")
        .or_else(|| parsed.get("definitions"))
        .and_then(Value::as_object)
        .context("no definitions in the file")?;
    Ok(Sources {
        messages,
        definitions: table.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        checksums: vec![
            (format!("{PROTO_CRATE} {PROTO_FOLDER}/**/*.proto"), proto_sum),
            (format!("{DEFINITIONS_PACKAGE} {DEFINITIONS_MEMBER}"), hex(&Sha256::digest(&bytes))),
        ],
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn proto_folder(root: &Path) -> anyhow::Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .features(cargo_metadata::CargoOpt::AllFeatures)
        .exec()
        .context("running cargo metadata")?;
    let package = metadata
        .packages
        .iter()
        .find(|p| p.name.as_str() == PROTO_CRATE)
        .with_context(|| format!("crate {PROTO_CRATE} is not among xtask's dependencies"))?;
    let folder = package.manifest_path.parent().context("the crate's folder")?.join(PROTO_FOLDER);
    Ok(folder.into_std_path_buf())
}

fn proto_files(folder: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

fn read_protos(folder: &Path) -> anyhow::Result<(Vec<(String, Message)>, String)> {
    let mut files = Vec::new();
    proto_files(folder, &mut files)?;
    files.sort();
    let mut sum = Sha256::new();
    for file in &files {
        let name = file.strip_prefix(folder)?.to_string_lossy().into_owned();
        sum.update(name.as_bytes());
        sum.update(std::fs::read(file)?);
    }
    let set = protox::compile(&files, [folder]).context("compiling the .proto files")?;
    let pool =
        prost_reflect::DescriptorPool::from_file_descriptor_set(set).context("reading the descriptors")?;
    let mut messages = Vec::new();
    for message in pool.all_messages().filter(|m| !m.is_map_entry()) {
        let fields = message.file_descriptor_proto_fields()?;
        messages.push((message.full_name().to_owned(), Message { fields }));
    }
    Ok((messages, hex(&sum.finalize())))
}

trait FileOrder {
    fn file_descriptor_proto_fields(&self) -> anyhow::Result<Vec<ProtoField>>;
}

impl FileOrder for prost_reflect::MessageDescriptor {
    /// The fields in the order they are written, which is Go's declaration order.
    fn file_descriptor_proto_fields(&self) -> anyhow::Result<Vec<ProtoField>> {
        use prost_reflect::Kind;
        let mut fields = Vec::new();
        for raw in &self.descriptor_proto().field {
            let number = raw.number.unwrap_or(0) as u32;
            let field = self.get_field(number).context("a field of the message")?;
            let (label, kind) = if field.is_map() {
                let Kind::Message(entry) = field.kind() else { bail!("a map without an entry") };
                (Label::Map, entry.map_entry_value_field().kind())
            } else if field.is_list() {
                (Label::Repeated, field.kind())
            } else {
                (Label::Optional, field.kind())
            };
            let ty = match kind {
                Kind::String => "string".into(),
                Kind::Bool => "bool".into(),
                Kind::Int32 => "int32".into(),
                Kind::Int64 => "int64".into(),
                Kind::Double => "double".into(),
                Kind::Bytes => "bytes".into(),
                Kind::Message(message) => message.full_name().to_owned(),
                other => {
                    bail!("{}.{}: a field of type {other:?} has no codec", self.full_name(), field.name())
                }
            };
            fields.push(ProtoField { name: field.name().to_owned(), number, label, ty });
        }
        Ok(fields)
    }
}

/// The definitions as pip delivers them, unpacked under target/.
fn fetch_definitions(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join("target/schema-sources");
    let path = folder.join(DEFINITIONS_MEMBER);
    if path.exists() {
        return Ok(path);
    }
    std::fs::create_dir_all(&folder)?;
    let status = Command::new("python3")
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            DEFINITIONS_PACKAGE,
            "--dest",
        ])
        .arg(&folder)
        .status()
        .context("running pip download; or name the file with --definitions")?;
    if !status.success() {
        bail!("pip download {DEFINITIONS_PACKAGE} failed; or name the file with --definitions");
    }
    let wheel = std::fs::read_dir(&folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .context("pip delivered no wheel")?;
    let status = Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&folder)
        .status()
        .context("unpacking the wheel")?;
    if !status.success() || !path.exists() {
        bail!("{} holds no {DEFINITIONS_MEMBER}", wheel.display());
    }
    Ok(path)
}
