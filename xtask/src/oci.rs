//! Writes an image as an OCI layout in a tar file, as `ctr images import` reads it.
//!
//! Follows the OCI image specification, `image-layout.md`, `manifest.md` and `config.md`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// How the image is run when the pod does not say.
#[derive(Default)]
pub struct ImageConfig {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub user: String,
    pub exposed_ports: Vec<String>,
}

/// Writes `archive` with one layer, the uncompressed tar `layer`, under the names.
pub fn write_archive(archive: &Path, names: &[&str], layer: &Path, config: &ImageConfig) -> Result<()> {
    let temporary = archive.with_extension("tmp");
    let file = File::create(&temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
    let mut out = tar::Builder::new(file);
    // No times and owners of this machine: the same content gives the same archive.
    out.mode(tar::HeaderMode::Deterministic);
    let (layer_digest, layer_size) = digest_of(layer)?;
    let config = serde_json::to_vec(&image_config(config, &layer_digest))?;
    let config_digest = digest(&config);
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config.len() as u64),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer_size)],
    }))?;
    let manifest_digest = digest(&manifest);
    let manifests: Vec<Value> = names
        .iter()
        .map(|name| {
            let mut entry = descriptor(
                "application/vnd.oci.image.manifest.v1+json",
                &manifest_digest,
                manifest.len() as u64,
            );
            entry["platform"] = json!({ "architecture": "amd64", "os": "linux" });
            entry["annotations"] = json!({
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
            });
            entry
        })
        .collect();
    let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": manifests }))?;
    append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    append(&mut out, "index.json", &index)?;
    append(&mut out, &blob(&manifest_digest), &manifest)?;
    append(&mut out, &blob(&config_digest), &config)?;
    let mut layer = File::open(layer)?;
    out.append_file(blob(&layer_digest), &mut layer)?;
    out.into_inner()?.sync_all()?;
    std::fs::rename(&temporary, archive)?;
    Ok(())
}

fn image_config(config: &ImageConfig, layer: &str) -> Value {
    let ports: serde_json::Map<String, Value> =
        config.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": config.entrypoint,
            "Cmd": config.cmd,
            "User": config.user,
            "ExposedPorts": ports,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    })
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"))
}

fn digest(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn digest_of(path: &Path) -> Result<(String, u64)> {
    let mut file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0u8; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(hash.finalize().as_slice()), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// `sha256:` and the hash in hexadecimal digits.
fn hex(hash: &[u8]) -> String {
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn append(out: &mut tar::Builder<impl Write>, path: &str, content: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    out.append_data(&mut header, path, content)?;
    Ok(())
}

/// A layer of single files: path in the image, source, mode.
pub fn write_layer(layer: &Path, files: &[(&str, &Path, u32)]) -> Result<()> {
    let mut out = tar::Builder::new(File::create(layer)?);
    for (path, source, mode) in files {
        let content = std::fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        out.append_data(&mut header, path, content.as_slice())?;
    }
    out.into_inner()?.sync_all()?;
    Ok(())
}
