//! TLS of the kubelet's server: its certificate (read again when the file changes) and the CA its clients come from.
use crate::config::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A certificate, key or CA that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    #[error("the client CA {} cannot be used: {reason}", path.display())]
    ClientCa { path: PathBuf, reason: String },
    #[error("the serving certificate {} cannot be used: {source}", path.display())]
    Certificate { path: PathBuf, source: rustls::Error },
}

struct Loaded {
    acceptor: tokio_rustls::TlsAcceptor,
    stamp: [Option<SystemTime>; 3],
    looked: Instant,
}

/// How often the files are looked at, when connections come: a new node gets its believed certificate just after its first.
const LOOK: Duration = Duration::from_secs(1);

/// What connections are accepted with.
pub struct Tls {
    config: ServerConfig,
    loaded: Mutex<Loaded>,
}

impl Tls {
    pub fn load(config: &ServerConfig) -> Result<Tls, TlsError> {
        let loaded = Loaded { acceptor: acceptor(config)?, stamp: stamp(config), looked: Instant::now() };
        Ok(Tls { config: config.clone(), loaded: Mutex::new(loaded) })
    }

    /// The acceptor for a new connection; from new files when they changed and are good.
    pub fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if loaded.looked.elapsed() >= LOOK {
            loaded.looked = Instant::now();
            let now = stamp(&self.config);
            if now != loaded.stamp {
                match acceptor(&self.config) {
                    Ok(acceptor) => {
                        loaded.acceptor = acceptor;
                        loaded.stamp = now;
                        tracing::info!("serving certificate read again");
                    }
                    Err(error) => tracing::warn!(error = %error, "new serving certificate not used"),
                }
            }
        }
        loaded.acceptor.clone()
    }
}

fn stamp(config: &ServerConfig) -> [Option<SystemTime>; 3] {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    [modified(&config.cert), modified(&config.key), modified(&config.client_ca)]
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_path_buf(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(read)?.collect();
    let found = found.map_err(read)?;
    if found.is_empty() { Err(TlsError::Empty(path.to_path_buf())) } else { Ok(found) }
}

fn acceptor(config: &ServerConfig) -> Result<tokio_rustls::TlsAcceptor, TlsError> {
    let key = PrivateKeyDer::from_pem_file(&config.key)
        .map_err(|source| TlsError::Read { path: config.key.clone(), source })?;
    let wrong_ca = |reason: String| TlsError::ClientCa { path: config.client_ca.clone(), reason };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&config.client_ca)? {
        roots.add(certificate).map_err(|error| wrong_ca(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    // A client without a certificate may still bring a token; one with a wrong certificate is refused.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| wrong_ca(error.to_string()))?;
    let wrong = |source| TlsError::Certificate { path: config.cert.clone(), source };
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .map_err(wrong)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&config.cert)?, key)
        .map_err(wrong)?;
    // Upgrades (exec, port-forward) are an HTTP/1.1 matter.
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tokio_rustls::TlsAcceptor::from(Arc::new(tls)))
}
