//! All keys and certificates of a control plane in one folder, with kubeadm's file names.

use crate::authority::{Authority, CertError, Profile, still_good};
use crate::files::{DirLock, FileError, ensure_dir, read_optional, sync_dir, write_renamed};
use crate::keys::{KeyError, ServiceAccountKeys, private_key};
use crate::kubeconfig::{Kubeconfig, KubeconfigAuth};
use jiff::Timestamp;
use keelson_base::consts::identity;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the certificates must say.
#[derive(Clone, Debug)]
pub struct PkiParams {
    pub node_name: String,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// The first address of the Service range, which the Service `default/kubernetes` has.
    pub service_address: IpAddr,
    /// The machine's own addresses; the first is the one advertised.
    pub node_addresses: Vec<IpAddr>,
    /// Further names and addresses that clients use to reach the API server.
    pub extra_names: Vec<String>,
    /// How long what is issued lives; [`LEAF_LIFE`](crate::LEAF_LIFE) where nobody has chosen.
    pub life: Duration,
    pub now: Timestamp,
}

/// Why the PKI could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate {name} cannot be made")]
    Certificate { name: &'static str, source: CertError },
    #[error(
        "{path} is missing while its certificate exists; restore it from a backup, or remove the whole PKI folder to \
         make a new cluster identity (every node must then join again)"
    )]
    AuthorityKeyMissing { path: PathBuf },
    #[error("the service-account key cannot be used")]
    ServiceAccount(#[from] KeyError),
}

/// A certificate with its key, as text for files and as DER for TLS.
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
    pub cert_path: PathBuf,
    pub key_path: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The chain, the end-entity certificate first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The private key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// The complete PKI of a control plane.
pub struct ClusterPki {
    pub dir: PathBuf,
    /// What the certificates were made for.
    pub params: PkiParams,
    /// Signs everything but the front proxy; shared with whoever signs requests.
    pub ca: Arc<Authority>,
    pub front_proxy_ca: Authority,
    pub front_proxy_client: Identity,
    /// The API server's serving certificate.
    pub apiserver: Identity,
    /// The API server towards kubelets.
    pub kubelet_client: Identity,
    pub scheduler: Identity,
    pub controller_manager: Identity,
    pub proxy: Identity,
    /// `system:node:<name>` of this machine.
    pub node: Identity,
    /// This machine's kubelet server.
    pub node_serving: Identity,
    /// The administrator, through the group that cluster-admin is bound to.
    pub admin: Identity,
    pub service_account: ServiceAccountKeys,
}

/// When a certificate is made, and how long it lives.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub now: Timestamp,
    pub life: Duration,
}

pub(crate) struct Leaf {
    pub name: &'static str,
    pub profile: Profile,
}

/// How often to look whether certificates of this life are to be renewed: often enough in the two thirds of it that are then
/// left, and at least every `at_most`.
pub fn look_every(life: Duration, at_most: Duration) -> Duration {
    (life / 24).clamp(Duration::from_secs(1), at_most)
}

impl ClusterPki {
    /// Makes what is missing, renews what must be renewed, and returns everything. Safe to interrupt and repeat.
    pub fn ensure(dir: &Path, params: &PkiParams) -> Result<ClusterPki, EnsureError> {
        ensure_dir(dir, 0o700)?;
        let _lock = DirLock::take(dir)?;
        let ca = Arc::new(authority(dir, "ca", "kubernetes", params.now)?);
        let front_proxy_ca = authority(dir, "front-proxy-ca", "front-proxy-ca", params.now)?;
        let service_account = service_account(dir)?;
        let made = Made { now: params.now, life: params.life };
        let mut written = false;
        let mut leaf =
            |authority: &Authority, leaf: Leaf| ensure_leaf(dir, authority, leaf, made, &mut written);
        let client =
            |name, user: &str, groups: &[&str]| Leaf { name, profile: Profile::client(user, groups) };
        let node_user = format!("{}{}", identity::NODE_USER_PREFIX, params.node_name);
        let pki = ClusterPki {
            dir: dir.to_owned(),
            params: params.clone(),
            front_proxy_client: leaf(
                &front_proxy_ca,
                client("front-proxy-client", "front-proxy-client", &[]),
            )?,
            apiserver: leaf(&ca, Leaf { name: "apiserver", profile: apiserver_profile(params) })?,
            kubelet_client: leaf(&ca, client("apiserver-kubelet-client", identity::KUBELET_CLIENT, &[]))?,
            scheduler: leaf(&ca, client("scheduler", identity::SCHEDULER, &[]))?,
            controller_manager: leaf(&ca, client("controller-manager", identity::CONTROLLER_MANAGER, &[]))?,
            proxy: leaf(&ca, client("proxy", identity::PROXY, &[]))?,
            node: leaf(&ca, client("kubelet-client", &node_user, &[identity::NODES_GROUP]))?,
            node_serving: leaf(
                &ca,
                Leaf { name: "kubelet", profile: node_serving_profile(params, &node_user) },
            )?,
            admin: leaf(&ca, client("admin", "keelson-admin", &[identity::CLUSTER_ADMINS]))?,
            ca,
            front_proxy_ca,
            service_account,
        };
        if written {
            sync_dir(dir)?;
        }
        Ok(pki)
    }

    /// Renews what is past a third of its life, while everything runs; `None` when nothing was. Whoever holds the old
    /// identities must take the new ones over; the authorities stay.
    pub fn renew(&self, now: Timestamp) -> Result<Option<ClusterPki>, EnsureError> {
        let renewed = ClusterPki::ensure(&self.dir, &PkiParams { now, ..self.params.clone() })?;
        let pems = |pki: &ClusterPki| pki.identities().map(|identity| identity.cert_pem.clone());
        Ok((pems(&renewed) != pems(self)).then_some(renewed))
    }

    /// The certificates' files, without the authorities': those that are removed to have all made anew.
    pub fn certificate_files(&self) -> Vec<PathBuf> {
        self.identities().iter().map(|identity| identity.cert_path.clone()).collect()
    }

    fn identities(&self) -> [&Identity; 9] {
        [
            &self.front_proxy_client,
            &self.apiserver,
            &self.kubelet_client,
            &self.scheduler,
            &self.controller_manager,
            &self.proxy,
            &self.node,
            &self.node_serving,
            &self.admin,
        ]
    }

    /// Writes a kubeconfig for one of the identities.
    pub fn write_kubeconfig(
        &self,
        path: &Path,
        server: &str,
        user: &str,
        who: &Identity,
    ) -> Result<(), FileError> {
        Kubeconfig {
            cluster: "keelson",
            server,
            ca_pem: self.ca.certificate_pem(),
            user,
            auth: KubeconfigAuth::ClientCertificate { cert_pem: &who.cert_pem, key_pem: &who.key_pem },
        }
        .write(path)
    }
}

fn apiserver_profile(params: &PkiParams) -> Profile {
    let mut names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).into();
    names.push(format!("kubernetes.default.svc.{}", params.cluster_domain));
    names.push("localhost".to_owned());
    let mut addresses = vec![params.service_address];
    let mut add_name = |name: &str| {
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    };
    add_name(&params.node_name);
    let mut more: Vec<IpAddr> = params.node_addresses.clone();
    more.push(IpAddr::from([127, 0, 0, 1]));
    more.push(std::net::Ipv6Addr::LOCALHOST.into());
    for extra in &params.extra_names {
        match extra.parse::<IpAddr>() {
            Ok(address) => more.push(address),
            Err(_) => add_name(extra),
        }
    }
    for address in more {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Profile::server("kube-apiserver", names, addresses)
}

fn node_serving_profile(params: &PkiParams, user: &str) -> Profile {
    let mut addresses = Vec::new();
    for address in &params.node_addresses {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    let mut profile = Profile::server(user, vec![params.node_name.clone()], addresses);
    profile.organizations = vec![identity::NODES_GROUP.to_owned()];
    profile
}

pub(crate) fn authority(
    dir: &Path,
    file: &'static str,
    name: &str,
    now: Timestamp,
) -> Result<Authority, EnsureError> {
    let made = |source| EnsureError::Certificate { name: file, source };
    let (cert_path, key_path) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    let cert = read_optional(&cert_path)?.filter(|text| !text.trim().is_empty());
    let key = match (read_optional(&key_path)?, &cert) {
        (Some(key), _) => key,
        (None, Some(_)) => return Err(EnsureError::AuthorityKeyMissing { path: key_path }),
        (None, None) => {
            let key = Authority::generate_key().map_err(made)?;
            // The key must be durable before a certificate for it can be.
            crate::files::write_atomic(&key_path, key.as_bytes(), 0o600)?;
            key
        }
    };
    let cert = match cert {
        Some(cert) => cert,
        None => {
            let cert = Authority::self_sign(name, &key, now).map_err(made)?;
            crate::files::write_atomic(&cert_path, cert.as_bytes(), 0o644)?;
            cert
        }
    };
    Authority::from_pem(&cert, &key).map_err(made)
}

fn service_account(dir: &Path) -> Result<ServiceAccountKeys, EnsureError> {
    let (key_path, pub_path) = (dir.join("sa.key"), dir.join("sa.pub"));
    let private = match read_optional(&key_path)? {
        Some(private) => private,
        None => {
            let (private, _) = ServiceAccountKeys::generate()?;
            crate::files::write_atomic(&key_path, private.as_bytes(), 0o600)?;
            private
        }
    };
    let public = ServiceAccountKeys::public_pem(&private)?;
    // sa.pub may hold older keys after the current one: a rotation leaves them there to be believed.
    let known = read_optional(&pub_path)?.unwrap_or_default();
    let older: Vec<String> = split_pem(&known);
    if !older.iter().any(|pem| pem.trim() == public.trim()) {
        let text = format!("{}\n{}", public.trim_end(), known);
        crate::files::write_atomic(&pub_path, text.as_bytes(), 0o644)?;
    }
    let older: Vec<&str> = older.iter().map(String::as_str).collect();
    Ok(ServiceAccountKeys::from_pem(&private, &older)?)
}

fn split_pem(text: &str) -> Vec<String> {
    const END: &str = "-----END PUBLIC KEY-----";
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(END) {
        let (part, after) = rest.split_at(at + END.len());
        parts.push(part.trim_start().to_owned());
        rest = after;
    }
    parts
}

pub(crate) fn ensure_leaf(
    dir: &Path,
    ca: &Authority,
    leaf: Leaf,
    when: Made,
    written: &mut bool,
) -> Result<Identity, EnsureError> {
    let made = |source| EnsureError::Certificate { name: leaf.name, source };
    let cert_path = dir.join(format!("{}.crt", leaf.name));
    let key_path = dir.join(format!("{}.key", leaf.name));
    let old = match (read_optional(&cert_path)?, read_optional(&key_path)?) {
        (Some(cert), Some(key)) if still_good(&cert, &key, ca, &leaf.profile, when.now) => Some((cert, key)),
        _ => None,
    };
    let (cert_pem, key_pem) = match old {
        Some(pair) => pair,
        None => {
            let (cert, key) = ca.issue(&leaf.profile, when.now, when.life).map_err(made)?;
            // Whichever of the two a crash leaves behind does not fit its partner, and both are made anew.
            write_renamed(&key_path, key.as_bytes(), 0o600)?;
            write_renamed(&cert_path, cert.as_bytes(), 0o644)?;
            *written = true;
            (cert, key)
        }
    };
    let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| made(CertError::Parse))?;
    let key = private_key(&key_pem)
        .ok_or(EnsureError::Certificate { name: leaf.name, source: CertError::Parse })?;
    Ok(Identity { cert_pem, key_pem, cert_path, key_path, chain, key })
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
