//! Signatures of files that are carried by hand: Ed25519 (RFC 8032), keys as PEM (RFC 8410), as `openssl genpkey -algorithm
//! ed25519` and `openssl pkey -pubout` write them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// What stands before the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why a key or a signature is refused.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("it is no Ed25519 private key in PEM (PKCS #8)")]
    PrivateKey,
    #[error("it is no Ed25519 public key in PEM")]
    PublicKey,
    #[error("no key can be made")]
    Generate,
    #[error("the signature is not this key's, or what it signs was altered")]
    Signature,
}

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new one, and its PEM.
    pub fn generate() -> Result<(SigningKey, String), SigningError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| SigningError::Generate)?;
        let key = Ed25519KeyPair::from_pkcs8(document.as_ref()).map_err(|_| SigningError::Generate)?;
        Ok((SigningKey(key), pem("PRIVATE KEY", document.as_ref())))
    }

    pub fn from_pem(pem: &[u8]) -> Result<SigningKey, SigningError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| SigningError::PrivateKey)?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        key.map(SigningKey).map_err(|_| SigningError::PrivateKey)
    }

    pub fn sign(&self, content: &[u8]) -> Vec<u8> {
        self.0.sign(content).as_ref().to_vec()
    }

    /// The PEM of its public half.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&PREFIX, self.0.public_key().as_ref()].concat())
    }
}

/// Whether a signature is the public key's.
pub fn verify(public_pem: &[u8], content: &[u8], signature: &[u8]) -> Result<(), SigningError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(public_pem).map_err(|_| SigningError::PublicKey)?;
    let key =
        der.as_ref().strip_prefix(&PREFIX).filter(|key| key.len() == 32).ok_or(SigningError::PublicKey)?;
    UnparsedPublicKey::new(&ED25519, key).verify(content, signature).map_err(|_| SigningError::Signature)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_own_signature_of_the_same_content_is_taken() {
        let (key, private) = SigningKey::generate().unwrap();
        let (other, _) = SigningKey::generate().unwrap();
        let signature = SigningKey::from_pem(private.as_bytes()).unwrap().sign(b"content");
        verify(key.public_pem().as_bytes(), b"content", &signature).unwrap();
        let check = |public: &str, content: &[u8], signature: &[u8], words: &str| {
            let error = verify(public.as_bytes(), content, signature).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(&key.public_pem(), b"Content", &signature, "not this key's");
        check(&key.public_pem(), b"content", &signature[1..], "not this key's");
        check(&other.public_pem(), b"content", &signature, "not this key's");
        check(&private, b"content", &signature, "no Ed25519 public key");
        assert!(SigningKey::from_pem(key.public_pem().as_bytes()).is_err());
    }

    /// Made by `openssl genpkey -algorithm ed25519`, `openssl pkey -pubout` and `openssl pkeyutl -sign -rawin` of "keelson".
    #[test]
    fn openssls_keys_are_read() {
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGysbQ3OH2fitr+67bjT2WTVJd4UK5UDv1j9dktGC71t\n-----END PRIVATE KEY-----\n";
        let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAnfGiNRt8TBYajfg4DG+ePbF9+O2ycc5AgCRzveraFac=\n-----END PUBLIC KEY-----\n";
        let signature = STANDARD
            .decode(
                "f/v+5x/zTA0jGGBpLJ/HBeYia7Lfj4km8hnBJhEVeiAkLpc2rCUhJCU4sF0JgROJCqlfqmpCloFO7vJN1+SsDw==",
            )
            .unwrap();
        let key = SigningKey::from_pem(private.as_bytes()).unwrap();
        assert_eq!((key.public_pem().as_str(), key.sign(b"keelson")), (public, signature.clone()));
        verify(public.as_bytes(), b"keelson", &signature).unwrap();
    }
}
