//! TLS configurations: aws-lc-rs, TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1.
//!
//! The server takes any client certificate whose key the client holds, and none; whether the certificate says
//! who the client is gets decided for every request by [`ClientVerifier::verify`], as upstream does it: a client
//! with a foreign or expired certificate receives a 401 it can read, not a broken handshake, and a certificate
//! that expires or whose authority is replaced loses its power on open connections too.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use std::sync::Arc;

/// Why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate and key cannot be used for TLS")]
    Identity(#[source] rustls::Error),
    #[error("the authority's certificate cannot be used")]
    Authority(#[source] rustls::Error),
    #[error("client certificates cannot be verified with this authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(authorities: &[CertificateDer<'_>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        store.add(authority.clone().into_owned()).map_err(TlsError::Authority)?;
    }
    Ok(store)
}

/// Decides whether a client's certificate chain comes from the authorities, is in time and is for clients.
#[derive(Clone, Debug)]
pub struct ClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientVerifier {
    /// A verifier that believes the given authorities.
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<ClientVerifier, TlsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider())
            .build()
            .map_err(TlsError::Verifier)?;
        Ok(ClientVerifier { inner })
    }

    /// Verifies a chain (end entity first) at `now` (seconds since 1970).
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: u64) -> Result<(), rustls::Error> {
        let (end_entity, intermediates) =
            chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        self.inner.verify_client_cert(end_entity, intermediates, now).map(|_| ())
    }
}

/// In the handshake: possession of the key is proved, nothing more.
#[derive(Debug)]
struct Deferred {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Deferred {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A server that asks for a client certificate (hinting at `client_authorities`) and can do without one.
/// Every chain it hands on must go through [`ClientVerifier::verify`] before it is believed.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    client_authorities: &[CertificateDer<'_>],
) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let hints = roots(client_authorities)?.subjects();
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(Arc::new(Deferred { hints, provider }))
        .with_single_cert(chain, key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that believes the given authorities, with or without a certificate of its own.
pub fn client_config(
    authorities: &[CertificateDer<'_>],
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Identity)?
        .with_root_certificates(roots(authorities)?);
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
