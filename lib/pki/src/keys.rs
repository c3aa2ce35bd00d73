//! The service-account key pair: RSA, because RS256 is what every consumer of these tokens understands.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use serde::Serialize;
use sha2::{Digest, Sha256};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Why a service-account key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the service-account key cannot be generated")]
    Generate(#[source] rcgen::Error),
    #[error("the service-account private key is not an RSA key in PEM")]
    Private(#[source] rcgen::Error),
    #[error("the service-account private key cannot sign tokens")]
    Signer(#[source] jsonwebtoken::errors::Error),
    #[error("a service-account public key is not an RSA key in PEM")]
    Public,
    #[error("a service-account public key is shorter than 2048 bits")]
    TooShort,
}

/// A public key that may have signed a token.
#[derive(Clone)]
pub struct VerificationKey {
    /// base64url(sha256(SubjectPublicKeyInfo)), the `kid` header upstream derives too.
    pub kid: String,
    /// RSA modulus, base64url as a JWK holds it.
    pub n: String,
    /// RSA public exponent, base64url.
    pub e: String,
    /// Ready for `jsonwebtoken`.
    pub decoding: DecodingKey,
}

impl VerificationKey {
    /// From a `PUBLIC KEY` PEM text.
    pub fn from_pem(pem: &str) -> Result<VerificationKey, KeyError> {
        let spki = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Public)?;
        Self::from_spki(&spki)
    }

    fn from_spki(der: &[u8]) -> Result<VerificationKey, KeyError> {
        let (_, spki) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::Public)?;
        let Ok(PublicKey::RSA(rsa)) = spki.parsed() else { return Err(KeyError::Public) };
        let n = strip_zeros(rsa.modulus);
        let e = strip_zeros(rsa.exponent);
        if n.len() < 256 {
            return Err(KeyError::TooShort);
        }
        Ok(VerificationKey {
            kid: URL_SAFE_NO_PAD.encode(Sha256::digest(der)),
            n: URL_SAFE_NO_PAD.encode(n),
            e: URL_SAFE_NO_PAD.encode(e),
            decoding: DecodingKey::from_rsa_raw_components(n, e),
        })
    }
}

fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
    &bytes[start..]
}

/// The key that signs new tokens, and all keys that are believed.
#[derive(Clone)]
pub struct ServiceAccountKeys {
    pub signing: EncodingKey,
    /// `kid` of [`Self::signing`].
    pub kid: String,
    /// The signing key's public half first, then older ones.
    pub verification: Vec<VerificationKey>,
}

impl ServiceAccountKeys {
    /// From the private key's PEM and further public keys that stay valid (`PUBLIC KEY` PEM).
    pub fn from_pem(private_pem: &str, older_public: &[&str]) -> Result<ServiceAccountKeys, KeyError> {
        let pair = rcgen::KeyPair::from_pem_and_sign_algo(private_pem, &rcgen::PKCS_RSA_SHA256)
            .map_err(KeyError::Private)?;
        let own = VerificationKey::from_pem(&pair.public_key_pem())?;
        let signing = EncodingKey::from_rsa_pem(private_pem.as_bytes()).map_err(KeyError::Signer)?;
        let mut verification = vec![own];
        for pem in older_public {
            let key = VerificationKey::from_pem(pem)?;
            if verification.iter().all(|k| k.kid != key.kid) {
                verification.push(key);
            }
        }
        Ok(ServiceAccountKeys { signing, kid: verification[0].kid.clone(), verification })
    }

    /// A token of these claims (RS256, with [`Self::kid`] in its header and no `typ`, as upstream's).
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::RS256);
        header.typ = None;
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.signing)
    }

    /// A new RSA-2048 pair: private (PKCS#8) and public PEM.
    pub fn generate() -> Result<(String, String), KeyError> {
        let pair = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
            .map_err(KeyError::Generate)?;
        Ok((pair.serialize_pem(), pair.public_key_pem()))
    }

    /// The public half of a private key's PEM.
    pub(crate) fn public_pem(private_pem: &str) -> Result<String, KeyError> {
        rcgen::KeyPair::from_pem_and_sign_algo(private_pem, &rcgen::PKCS_RSA_SHA256)
            .map(|pair| pair.public_key_pem())
            .map_err(KeyError::Private)
    }
}

/// A private key's PEM as rustls wants it.
pub(crate) fn private_key(pem: &str) -> Option<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()
}
