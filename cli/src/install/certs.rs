//! `keelson certs list|renew`: this machine's certificates.

use super::etcd;
use super::progress::Output;
use crate::control_plane;
use crate::node;
use crate::node_certs::{self, NodeFiles};
use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keelson_daemon::Clock;
use keelson_daemon::config::Config;
use keelson_pki::ClusterPki;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};

/// The authorities' files, which renewal never touches.
const AUTHORITIES: [&str; 3] = ["ca.crt", "front-proxy-ca.crt", "etcd-ca.crt"];

/// A certificate on this machine.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub path: PathBuf,
    pub expires: Timestamp,
    /// When it is renewed by itself; authorities and the certificates of others are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Timestamp>,
}

/// All certificates of this machine, authorities first.
pub fn list(config: &Config) -> Result<Vec<Listed>> {
    each(config).into_iter().map(|(_, listed)| listed).collect()
}

/// As [`list`], each by itself: one that cannot be read hides no other.
pub fn each(config: &Config) -> Vec<(PathBuf, Result<Listed>)> {
    let entries = std::fs::read_dir(config.paths.pki()).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    let node = NodeFiles::of(config);
    files.push(node.serving_cert());
    files.sort_by_key(|path| (!is_authority(path), path.clone()));
    files.retain(|path| path.exists());
    let mut all: Vec<(PathBuf, Result<Listed>)> = Vec::new();
    for path in files {
        let pem = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()));
        let listed = pem.and_then(|pem| one(path.clone(), &pem));
        all.push((path, listed));
    }
    for path in [control_plane::admin_file(config), node.kubelet, node.proxy] {
        match node_certs::read_identity(&path) {
            Ok(None) => {}
            Ok(Some(identity)) => all.push((path.clone(), one(path, &identity.cert_pem))),
            Err(error) => all.push((path, Err(error))),
        }
    }
    all
}

fn is_authority(path: &Path) -> bool {
    path.file_name().is_some_and(|name| AUTHORITIES.iter().any(|authority| name == *authority))
}

fn one(path: PathBuf, pem: &str) -> Result<Listed> {
    let (_, expires) =
        keelson_pki::validity(pem).with_context(|| format!("{} is no certificate", path.display()))?;
    // Those towards an etcd of somebody else's are his to renew.
    let foreign = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("etcd-"))
        && !path.with_file_name("etcd-ca.key").exists();
    let kept = is_authority(&path) || foreign;
    let renewal = if kept { None } else { Some(node_certs::renewal(&path, pem)?) };
    Ok(Listed { path, expires, renewal })
}

/// Prints the list.
pub fn show(listed: &[Listed], output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(listed)?);
        return Ok(());
    }
    println!("{:<22} {:<22} {}", "EXPIRES", "RENEWED BY ITSELF", "FILE");
    let day = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M UTC").to_string();
    for certificate in listed {
        let renewal = certificate.renewal.map_or("never".to_owned(), day);
        println!("{:<22} {renewal:<22} {}", day(certificate.expires), certificate.path.display());
    }
    Ok(())
}

/// Makes the control plane's certificates anew, keeping authorities and service-account keys.
pub fn renew(config: &Config) -> Result<()> {
    let folder = config.paths.pki();
    if !folder.join("ca.key").exists() {
        bail!(
            "this machine has no authority to renew with; a worker's certificates are renewed by its kubelet, see \
             `journalctl -u keelson-kubelet`"
        );
    }
    let node = node::identify(&config.node)?;
    let params = control_plane::pki_params(config, &node, &Clock::system())?;
    let known = ClusterPki::ensure(&folder, &params)?;
    let owner = std::fs::metadata(&folder)?;
    for path in known.certificate_files() {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let renewed = ClusterPki::ensure(&folder, &params)?;
    if etcd::present(config) {
        etcd::renew(config, &node)?;
    }
    let admin = control_plane::admin_file(config);
    renewed.write_kubeconfig(
        &admin,
        &control_plane::local_endpoint(config),
        "keelson-admin",
        &renewed.admin,
    )?;
    use std::os::unix::fs::MetadataExt as _;
    super::init::give(&folder, owner.uid(), owner.gid())
}

/// The hash of the authority in a kubeconfig (base64 of PEM).
pub fn hash_of(encoded: &str) -> Result<String> {
    let pem = STANDARD.decode(encoded).context("the authority cannot be read")?;
    let der = CertificateDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("the authority is no certificate"))?;
    Ok(keelson_pki::public_key_hash(&der)?)
}
