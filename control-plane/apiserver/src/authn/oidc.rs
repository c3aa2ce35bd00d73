//! OIDC discovery documents, with which others verify our service accounts' tokens.

use keelson_pki::VerificationKey;
use serde_json::{Value, json};

/// Path of the discovery document.
pub const OPENID_CONFIG_PATH: &str = "/.well-known/openid-configuration";
/// Path of the key set.
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// The two documents; both may be cached for an hour (`Cache-Control: public, max-age=3600`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenIdDocuments {
    /// Body of [`OPENID_CONFIG_PATH`], `application/json`.
    pub config: Vec<u8>,
    /// Body of [`JWKS_PATH`], `application/jwk-set+json`.
    pub keys: Vec<u8>,
}

impl OpenIdDocuments {
    /// For an `https` issuer; `external` is the `host:port` under which the key set is reached. `None` where the
    /// issuer is no `https` URL or holds a query or fragment, as the OIDC specification demands.
    pub fn new(issuer: &str, external: &str, keys: &[VerificationKey]) -> Option<OpenIdDocuments> {
        if !issuer.starts_with("https://") || issuer.contains(['?', '#']) {
            return None;
        }
        let config = format!(
            r#"{{"issuer":{},"jwks_uri":{},"response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["RS256"]}}"#,
            Value::from(issuer),
            Value::from(format!("https://{external}{JWKS_PATH}")),
        );
        let keys: Vec<Value> = keys
            .iter()
            .map(|k| json!({"use": "sig", "kty": "RSA", "kid": k.kid, "alg": "RS256", "n": k.n, "e": k.e}))
            .collect();
        Some(OpenIdDocuments {
            config: config.into_bytes(),
            keys: json!({ "keys": keys }).to_string().into_bytes(),
        })
    }
}
