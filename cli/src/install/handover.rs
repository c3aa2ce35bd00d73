//! What another control plane needs of this one: the authorities, the service accounts' keys, and how etcd is reached. They
//! lie sealed in a Secret for two hours; the key that opens it is in the join command alone (as kubeadm's upload-certs).

use super::dropin::Chosen;
use super::token::{self, NewToken};
use crate::snapshot::KEYS;
use anyhow::{Context as _, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_daemon::config::{Config, EtcdSection};
use keelson_pki::CertificateKey;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The Secret in kube-system, and its one key.
const SECRET: (&str, &str) = ("keelson-control-plane-keys", "sealed");
/// How long it lies there (kubeadm's).
const LIFE: Duration = Duration::from_secs(2 * 3600);
/// The drop-in that names etcd.
pub const STORE: &str = "20-store.yaml";
/// How this control plane is known to etcd, in the PKI folder.
const ETCD: [&str; 3] = ["etcd-ca.crt", "etcd-client.crt", "etcd-client.key"];
/// Handed over where each control plane has a member of etcd beside it.
const MEMBER: &str = "etcd-ca.key";

/// What is handed over.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// By file name in the PKI folder.
    files: BTreeMap<String, String>,
    endpoints: Vec<String>,
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

impl Bundle {
    async fn of(config: &Config) -> Result<Bundle> {
        let Some(etcd) = &config.etcd else {
            bail!(
                "the cluster's database is one SQLite file, which only this control plane has; `keelson migrate-store etcd` \
                 moves it to etcd first"
            );
        };
        let mut files = BTreeMap::new();
        for name in KEYS {
            files.insert(name.to_owned(), read(&config.paths.pki().join(name))?);
        }
        // Beside a member of its own, another control plane makes its own certificates.
        let pki = config.paths.pki();
        let own = ["etcd-ca.crt", MEMBER].map(|name| (name, pki.join(name)));
        let named = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file].map(PathBuf::clone);
        let etcd_files = match super::etcd::present(config) {
            true => Vec::from(own),
            false => ETCD.into_iter().zip(named).collect(),
        };
        for (name, path) in etcd_files {
            files.insert(name.to_owned(), read(&path)?);
        }
        let endpoints = match super::etcd::present(config) {
            true => super::etcd::endpoints(config).await?,
            false => etcd.endpoints.clone(),
        };
        Ok(Bundle { files, endpoints })
    }

    /// The authority that the keys are of.
    pub fn authority(&self) -> &str {
        self.files.get("ca.crt").map_or("", String::as_str)
    }

    /// Writes the files.
    pub fn place(&self, pki: &Path) -> Result<()> {
        keelson_pki::ensure_dir(pki, 0o700)?;
        let needed: &[&str] = if self.members() { &["etcd-ca.crt", MEMBER] } else { &ETCD };
        for name in KEYS.iter().chain(needed) {
            let text = self.files.get(*name).with_context(|| format!("the keys handed over lack {name}"))?;
            write(&pki.join(name), text)?;
        }
        Ok(())
    }

    /// Whether each control plane has a member of etcd beside it.
    pub fn members(&self) -> bool {
        self.files.contains_key(MEMBER)
    }

    /// Where etcd is reached.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// The drop-in that names etcd: the member beside the control plane, where each has one.
    pub fn store(&self, pki: &Path) -> String {
        match self.members() {
            true => store_text(pki, &[super::etcd::own_endpoint()], "keelson join"),
            false => store_text(pki, &self.endpoints, "keelson join"),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    let mode = if path.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
    keelson_pki::write_atomic(path, text.as_bytes(), mode)?;
    Ok(())
}

pub fn store_text(pki: &Path, endpoints: &[String], written_by: &str) -> String {
    let mut chosen = Chosen::default();
    chosen.set("etcd.endpoints", endpoints.to_vec());
    for (key, name) in ["etcd.caFile", "etcd.certFile", "etcd.keyFile"].into_iter().zip(ETCD) {
        chosen.set(key, pki.join(name).to_string_lossy().into_owned());
    }
    chosen.text(written_by)
}

/// Copies what an administrator names for etcd into the PKI folder, where the control plane's user reads it. The drop-in
/// that names it there.
pub fn adopt(pki: &Path, named: &EtcdSection, written_by: &str) -> Result<String> {
    keelson_pki::ensure_dir(pki, 0o700)?;
    for (name, path) in ETCD.into_iter().zip([&named.ca_file, &named.cert_file, &named.key_file]) {
        if *path != pki.join(name) {
            write(&pki.join(name), &read(path)?)?;
        }
    }
    Ok(store_text(pki, &named.endpoints, written_by))
}

fn secrets(client: &kube::Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "kube-system")
}

/// Seals the keys into the Secret. What opens it.
pub async fn upload(client: &kube::Client, config: &Config) -> Result<CertificateKey> {
    let bundle = serde_json::to_vec(&Bundle::of(config).await?)?;
    let key = CertificateKey::generate();
    let sealed = key.seal(&bundle)?;
    // A token that is good for nothing but its end: with it goes what it owns.
    let end = NewToken {
        ttl: Some(LIFE),
        description: "Ends the life of the keys for further control planes.".to_owned(),
        groups: Vec::new(),
        usages: Vec::new(),
        ..NewToken::default()
    };
    let owner = token::create(client, &end).await?.secret_name();
    let uid = secrets(client).get(&owner).await?.metadata.uid.unwrap_or_default();
    let mut secret = Secret {
        data: Some(BTreeMap::from([(SECRET.1.to_owned(), ByteString(sealed))])),
        ..Secret::default()
    };
    secret.metadata.name = Some(SECRET.0.to_owned());
    secret.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: owner,
        uid,
        ..OwnerReference::default()
    }]);
    match secrets(client).delete(SECRET.0, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        gone => drop(gone.context("the keys from before cannot be removed")?),
    }
    let made = secrets(client).create(&PostParams::default(), &secret).await;
    made.context("the keys for further control planes cannot be kept in the cluster")?;
    Ok(key)
}

/// Reads and opens the Secret, as whoever joins.
pub async fn download(client: &kube::Client, key: &CertificateKey) -> Result<Bundle> {
    let secret = match secrets(client).get(SECRET.0).await {
        Ok(secret) => secret,
        Err(kube::Error::Api(status)) if [403, 404].contains(&status.code) => bail!(
            "the cluster holds no keys for further control planes: they are gone two hours after they were put there. Print \
             the command anew on a control plane with `keelson token create --control-plane --print-join-command`"
        ),
        Err(error) => return Err(error).context("the keys for further control planes cannot be read"),
    };
    let sealed = secret.data.unwrap_or_default().remove(SECRET.1).unwrap_or_default();
    let opened = key.open(&sealed.0).context(
        "print the command anew on a control plane with `keelson token create --control-plane --print-join-command`",
    )?;
    serde_json::from_slice(&opened).context("the keys for further control planes are of another version")
}
