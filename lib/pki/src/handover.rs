//! A cluster's keys on their way to another control plane: sealed with a key that only the join command carries
//! (AES-256-GCM, the nonce before the text; the key has the form of kubeadm's `--certificate-key`).

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use std::fmt;
use std::str::FromStr;

const KEY: usize = 32;
const NONCE: usize = 12;

/// The key: 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey([u8; KEY]);

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("a certificate key is 64 hexadecimal digits")]
    Form,
    #[error("the certificate key does not open it: it is another's, or what it seals was altered")]
    Wrong,
    #[error("the keys cannot be sealed")]
    Seal,
}

impl CertificateKey {
    /// A random one.
    pub fn generate() -> CertificateKey {
        CertificateKey(rand::random())
    }

    /// Seals a text.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(|_| SealError::Seal)?;
        let mut text = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut text).map_err(|_| SealError::Seal)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Ok(sealed)
    }

    /// Opens what [`CertificateKey::seal`] made.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, text) = sealed.split_at_checked(NONCE).ok_or(SealError::Wrong)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Wrong)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.0).map_err(|_| SealError::Wrong)?;
        let mut text = text.to_vec();
        let length = key.open_in_place(nonce, Aad::empty(), &mut text).map_err(|_| SealError::Wrong)?.len();
        text.truncate(length);
        Ok(text)
    }
}

impl fmt::Display for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey")
    }
}

impl FromStr for CertificateKey {
    type Err = SealError;

    fn from_str(text: &str) -> Result<CertificateKey, SealError> {
        let mut key = [0u8; KEY];
        if text.len() != 2 * KEY || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SealError::Form);
        }
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(|_| SealError::Form)?;
        }
        Ok(CertificateKey(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_opens_and_only_what_it_sealed() {
        let key = CertificateKey::generate();
        let again: CertificateKey = key.to_string().parse().unwrap();
        assert!(again == key && format!("{key:?}") == "CertificateKey");
        let sealed = key.seal(b"secret").unwrap();
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_ne!(sealed, key.seal(b"secret").unwrap(), "no nonce twice");
        assert_eq!(again.open(&sealed).unwrap(), b"secret");
        assert_eq!(CertificateKey::generate().open(&sealed), Err(SealError::Wrong));
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(key.open(&altered), Err(SealError::Wrong), "{at}");
            assert_eq!(key.open(&sealed[..at]), Err(SealError::Wrong), "{at}");
        }
        for bad in ["", "00", &"0".repeat(63), &"g".repeat(64), &"ä".repeat(32)] {
            assert_eq!(bad.parse::<CertificateKey>(), Err(SealError::Form), "{bad}");
        }
    }
}
