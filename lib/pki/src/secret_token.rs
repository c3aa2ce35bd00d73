//! Tokens that live in a Secret of type `kubernetes.io/service-account-token`: what is written in them.
//!
//! Upstream's legacy tokens: they have no end and no audience, and are believed while their Secret holds them. The tokens controller
//! signs them, authentication reads them.

use serde::{Deserialize, Serialize};

/// `iss` of such a token.
pub const SECRET_TOKEN_ISSUER: &str = "kubernetes/serviceaccount";

/// The claims, in the order they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretTokenClaims {
    pub iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    /// The service account's user name.
    pub sub: String,
}

impl SecretTokenClaims {
    /// For the service account `namespace`/`account` with this UID, in the Secret `secret`.
    pub fn new(namespace: &str, account: &str, uid: &str, secret: &str) -> SecretTokenClaims {
        SecretTokenClaims {
            iss: SECRET_TOKEN_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }
}
