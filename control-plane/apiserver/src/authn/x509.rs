//! Client certificates: common name is the user, organizations are the groups.

use super::{UserInfo, extra};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use keelson_pki::ClientVerifier;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The attribute that carries a user's UID in a certificate (1.3.6.1.4.1.57683.2, upstream's
/// AllowParsingUserUIDFromCertAuth).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// Why a client certificate is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate chain is not valid")]
    Chain(#[source] rustls::Error),
    #[error("the certificate cannot be parsed")]
    Parse,
    #[error("the certificate's subject holds text that is no UTF-8")]
    Subject,
    #[error("the certificate's subject holds more than one UID")]
    SeveralUids,
}

/// A connection's client certificate chain, and what was found about it last.
pub struct PeerChain {
    chain: Vec<CertificateDer<'static>>,
    verdict: Mutex<Option<Verdict>>,
}

#[derive(Clone)]
struct Verdict {
    generation: u64,
    /// First and last second at which the whole chain is in time.
    valid: (i64, i64),
    user: Option<Arc<UserInfo>>,
}

impl PeerChain {
    /// From the certificates of a handshake, the client's own first; `None` when there are none.
    pub fn new(certificates: &[CertificateDer<'_>]) -> Option<PeerChain> {
        let chain: Vec<_> = certificates.iter().map(|c| c.clone().into_owned()).collect();
        (!chain.is_empty()).then(|| PeerChain { chain, verdict: Mutex::new(None) })
    }
}

struct Trust {
    generation: u64,
    verifier: ClientVerifier,
}

/// Believes certificates of the client authorities, which can be replaced while connections are open.
pub struct CertificateAuthenticator {
    trust: ArcSwap<Trust>,
    next: AtomicU64,
}

impl CertificateAuthenticator {
    /// Believes what `verifier` does.
    pub fn new(verifier: ClientVerifier) -> CertificateAuthenticator {
        CertificateAuthenticator {
            trust: ArcSwap::from_pointee(Trust { generation: 0, verifier }),
            next: AtomicU64::new(1),
        }
    }

    /// Replaces the authorities; every connection's certificate is verified again at its next request.
    pub fn replace(&self, verifier: ClientVerifier) {
        let generation = self.next.fetch_add(1, Ordering::Relaxed);
        self.trust.store(Arc::new(Trust { generation, verifier }));
    }

    /// Who the certificate says the client is; `None` when it names no user.
    pub fn authenticate(
        &self,
        peer: &PeerChain,
        now: Timestamp,
    ) -> Result<Option<Arc<UserInfo>>, CertificateError> {
        let trust = self.trust.load();
        let seconds = now.as_second();
        if let Some(known) = peer.verdict.lock().as_ref()
            && known.generation == trust.generation
            && (known.valid.0..=known.valid.1).contains(&seconds)
        {
            return Ok(known.user.clone());
        }
        let unsigned = u64::try_from(seconds).unwrap_or(0);
        trust.verifier.verify(&peer.chain, unsigned).map_err(CertificateError::Chain)?;
        let user = user_of(&peer.chain[0])?.map(Arc::new);
        let verdict =
            Verdict { generation: trust.generation, valid: in_time(&peer.chain)?, user: user.clone() };
        *peer.verdict.lock() = Some(verdict);
        Ok(user)
    }
}

fn in_time(chain: &[CertificateDer<'_>]) -> Result<(i64, i64), CertificateError> {
    let mut valid = (i64::MIN, i64::MAX);
    for der in chain {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_| CertificateError::Parse)?;
        valid.0 = valid.0.max(cert.validity().not_before.timestamp());
        valid.1 = valid.1.min(cert.validity().not_after.timestamp());
    }
    Ok(valid)
}

fn user_of(der: &CertificateDer<'_>) -> Result<Option<UserInfo>, CertificateError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|_| CertificateError::Parse)?;
    let mut user = UserInfo::default();
    let mut uids = Vec::new();
    for attribute in cert.subject().iter_attributes() {
        let text = || attribute.as_str().map(str::to_owned).map_err(|_| CertificateError::Subject);
        if *attribute.attr_type() == x509_parser::oid_registry::OID_X509_COMMON_NAME {
            // Upstream takes the last of several, as Go's pkix.Name does.
            user.name = text()?;
        } else if *attribute.attr_type() == x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME {
            user.groups.push(text()?);
        } else if attribute.attr_type().to_id_string() == UID_OID {
            uids.push(text()?);
        }
    }
    if user.name.is_empty() {
        return Ok(None);
    }
    if uids.len() > 1 {
        return Err(CertificateError::SeveralUids);
    }
    user.uid = uids.pop().unwrap_or_default();
    let hash: String = Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert(extra::CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={hash}")]);
    user.add_authenticated();
    Ok(Some(user))
}
