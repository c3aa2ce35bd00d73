//! Bootstrap tokens: `<id>.<secret>`, six and sixteen of `[a-z0-9]`, as kubeadm and upstream's authenticator use
//! them. They live in Secrets `kube-system/bootstrap-token-<id>` of type `bootstrap.kubernetes.io/token`.

use rand::Rng;
use std::fmt;
use std::str::FromStr;

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A bootstrap token. `Debug` does not show the secret; `Display` does, it is how the token is handed over.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

/// Why a text is no bootstrap token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a bootstrap token has the form abcdef.0123456789abcdef (six and sixteen of a-z, 0-9)")]
    Form,
}

impl BootstrapToken {
    /// A new random token.
    pub fn generate() -> BootstrapToken {
        let mut rng = rand::rng();
        let mut pick = |n: usize| -> String {
            (0..n).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
        };
        BootstrapToken { id: pick(ID_LEN), secret: pick(SECRET_LEN) }
    }

    /// The public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret half.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Name of the Secret in kube-system that holds the token.
    pub fn secret_name(&self) -> String {
        format!("bootstrap-token-{}", self.id)
    }
}

fn valid(part: &str, len: usize) -> bool {
    part.len() == len && part.bytes().all(|b| ALPHABET.contains(&b))
}

impl FromStr for BootstrapToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.split_once('.').ok_or(TokenError::Form)?;
        if !valid(id, ID_LEN) || !valid(secret, SECRET_LEN) {
            return Err(TokenError::Form);
        }
        Ok(BootstrapToken { id: id.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootstrapToken({}.<hidden>)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_form_is_taken() {
        let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!(token.secret_name(), "bootstrap-token-abcdef");
        assert_eq!(token.to_string(), "abcdef.0123456789abcdef");
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
        for bad in [
            "",
            "abcdef",
            "abcdef.",
            "ABCDEF.0123456789abcdef",
            "abcde.0123456789abcdef",
            "abcdef.0123456789abcdeg_",
            "abcdef.0123456789abcdef.x",
            "abcdef.0123456789abcde\u{e9}",
        ] {
            assert_eq!(bad.parse::<BootstrapToken>(), Err(TokenError::Form), "{bad}");
        }
        let made = BootstrapToken::generate();
        assert_eq!(made.to_string().parse::<BootstrapToken>(), Ok(made));
    }
}
