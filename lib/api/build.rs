//! Takes the API's descriptions (what `kubectl explain` prints) out of the doc comments of the `k8s-openapi` crate this crate
//! depends on, into one text: records `definition FS field FS description RS`, sorted.
//!
//! Without the crate's source the text is empty: documents then have no descriptions, and everything else works.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const FOLDER: &str = "src/v1_35";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut found = BTreeMap::new();
    match source_folder() {
        Some(folder) => walk(&folder.join(FOLDER), &mut found),
        None => println!(
            "cargo::warning=the source of k8s-openapi was not found: OpenAPI documents will have no descriptions"
        ),
    }
    let mut text = String::new();
    for ((definition, field), description) in &found {
        text.push_str(&format!("{definition}\x1f{field}\x1f{description}\x1e"));
    }
    let out =
        PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("descriptions.txt");
    std::fs::write(out, text).expect("writing descriptions.txt");
}

/// Where the crate's source lies: in cargo's folder of unpacked crates, or wherever cargo says (vendored, a path).
fn source_folder() -> Option<PathBuf> {
    unpacked().or_else(as_cargo_knows)
}

fn is_source(folder: &Path) -> bool {
    folder.join(FOLDER).join("api/core/v1/pod_spec.rs").exists()
}

fn manifest_folder() -> Option<PathBuf> {
    std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from)
}

/// `cargo metadata` would want every crate of the workspace on disk, other platforms' too; this needs only the one.
fn unpacked() -> Option<PathBuf> {
    let lock = manifest_folder()?.ancestors().map(|at| at.join("Cargo.lock")).find(|path| path.exists())?;
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(lock).ok()?;
    let version = text.split("name = \"k8s-openapi\"\nversion = \"").nth(1)?.split('"').next()?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    registries
        .filter_map(Result::ok)
        .map(|registry| registry.path().join(format!("k8s-openapi-{version}")))
        .find(|folder| is_source(folder))
}

fn as_cargo_knows() -> Option<PathBuf> {
    let manifest = manifest_folder()?.join("Cargo.toml");
    let output = Command::new(std::env::var_os("CARGO")?)
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform"])
        .arg(std::env::var_os("TARGET")?)
        .arg("--manifest-path")
        .arg(manifest)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter_map(|path| Path::new(path).parent().map(Path::to_owned))
        .find(|folder| is_source(folder))
}

type Found = BTreeMap<(String, String), String>;

fn walk(folder: &Path, found: &mut Found) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            file(&text, found);
        }
    }
}

/// One generated file: `// Generated from definition …`, then the documented struct, then its codecs with the JSON names.
fn file(text: &str, found: &mut Found) {
    let Some(definition) =
        text.lines().next().and_then(|line| line.strip_prefix("// Generated from definition "))
    else {
        return;
    };
    let json: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix(','))
        .filter_map(|line| line.split_once("\" => Field::Key_"))
        .map(|(json, rust)| (rust, json))
        .collect();
    let mut doc = String::new();
    let mut inside = false;
    for line in text.lines().skip(1) {
        let line = line.trim();
        if let Some(part) = line.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push('\n');
            }
            doc.push_str(part.strip_prefix(' ').unwrap_or(part));
        } else if line.starts_with("pub struct ") || line.starts_with("pub enum ") {
            record(definition, "", &mut doc, found);
            inside = true;
        } else if inside && line == "}" {
            return;
        } else if let Some(rest) = line.strip_prefix("pub ").filter(|_| inside) {
            let rust = rest.split(':').next().unwrap_or("");
            if let Some(json) = json.get(rust) {
                record(definition, json, &mut doc, found);
            }
            doc.clear();
        } else if !line.starts_with("#[") && !line.is_empty() {
            doc.clear();
        }
    }
}

fn record(definition: &str, field: &str, doc: &mut String, found: &mut Found) {
    let text = unescape(doc.trim());
    doc.clear();
    if !text.is_empty() {
        found.insert((definition.to_owned(), field.to_owned()), text);
    }
}

/// Doc comments have Markdown's special characters escaped.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(next) if c == '\\' && next.is_ascii_punctuation() => out.extend(chars.next()),
            _ => out.push(c),
        }
    }
    out
}
