//! Who is asking: client certificates, service-account tokens, bootstrap tokens, impersonation.
//!
//! What always holds here:
//! - a credential that is given and wrong is an error (401), never a way to become anonymous;
//! - a decision is never kept per connection: a certificate's time and its authority's generation are looked at
//!   for every request, a token's verdict is kept by hash for at most ten seconds;
//! - time is an argument; objects are read through [`ClusterReads`], nothing here knows the store or HTTP.

mod impersonation;
mod oidc;
pub mod reads;
mod secret_tokens;
pub mod service_account;
mod token_cache;
mod token_request;
mod token_review;
mod tokens;
mod x509;

pub use impersonation::{Impersonation, ImpersonationError, impersonation};
pub use oidc::{JWKS_PATH, OPENID_CONFIG_PATH, OpenIdDocuments};
pub use reads::{ClusterReads, ObjectHead};
pub use secret_tokens::SecretUse;
pub use token_request::{TokenIssuer, TokenRequestError};
pub use token_review::review;
pub use tokens::{TokenAuthenticator, TokenError, TokenIdentity};
pub use x509::{CertificateAuthenticator, CertificateError, PeerChain};

use jiff::Timestamp;
use keelson_base::consts::identity;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A user as upstream's `user.Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups; `system:authenticated` is added if it is not there.
    pub fn authenticated(name: impl Into<String>, groups: &[&str]) -> UserInfo {
        let mut user = UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        };
        user.add_authenticated();
        user
    }

    /// The user without credentials.
    pub fn anonymous() -> UserInfo {
        UserInfo {
            name: identity::ANONYMOUS.to_owned(),
            groups: vec![identity::UNAUTHENTICATED.to_owned()],
            ..UserInfo::default()
        }
    }

    /// A service account, without a token's extra information.
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> UserInfo {
        let mut user = UserInfo {
            name: service_account::user_name(namespace, name),
            uid: uid.to_owned(),
            groups: service_account::groups(namespace),
            ..UserInfo::default()
        };
        user.add_authenticated();
        user
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    pub(crate) fn add_authenticated(&mut self) {
        let known = [identity::AUTHENTICATED, identity::UNAUTHENTICATED];
        if self.name != identity::ANONYMOUS && !self.groups.iter().any(|g| known.contains(&g.as_str())) {
            self.groups.push(identity::AUTHENTICATED.to_owned());
        }
    }
}

/// Keys of [`UserInfo::extra`] that upstream defines.
pub mod extra {
    pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
    pub const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
    pub const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
    pub const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
    pub const NODE_UID: &str = "authentication.kubernetes.io/node-uid";
}

/// Who may come without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Only to `/healthz`, `/livez`, `/readyz` (and their checks), `/version`, and, while a bootstrap token lives that it is
    /// signed with, the discovery document that a machine reads before it has an identity (a role bound to the anonymous
    /// user says who may read it, as kubeadm's).
    HealthAndVersion,
    /// Everywhere; authorization decides. Upstream's default.
    Everywhere,
}

/// The discovery document.
const DISCOVERY: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";

impl Anonymous {
    fn admits(&self, path: &str, discovery: impl FnOnce() -> bool) -> bool {
        if *self == Anonymous::Everywhere {
            return true;
        }
        let below =
            |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        ["/healthz", "/livez", "/readyz", "/version"].into_iter().any(below)
            || (path == DISCOVERY && discovery())
    }
}

/// Why a request is answered with 401. The text is for the log: the client reads "Unauthorized".
#[derive(Debug, thiserror::Error)]
pub enum AuthnError {
    #[error("the client certificate is not accepted")]
    Certificate(#[source] CertificateError),
    #[error("the bearer token is not accepted")]
    Token(#[source] TokenError),
    #[error("the Authorization header is not a bearer token")]
    Scheme,
    #[error("no credentials were given")]
    Missing,
}

/// What a request brings to be recognised by.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The connection's client certificate, if one was shown.
    pub peer: Option<&'a PeerChain>,
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// A token from a WebSocket's subprotocol (see [`websocket_token`]).
    pub websocket_token: Option<&'a str>,
    /// The request's path, for anonymous access.
    pub path: &'a str,
}

/// All ways of recognising a user, in upstream's order: certificate, token, anonymous.
pub struct Authenticator {
    pub certificates: CertificateAuthenticator,
    pub tokens: TokenAuthenticator,
    pub anonymous: Anonymous,
}

impl Authenticator {
    /// Who sends this request, at `now`.
    pub fn authenticate(&self, given: Credentials<'_>, now: Timestamp) -> Result<Arc<UserInfo>, AuthnError> {
        let mut failed = None;
        if let Some(peer) = given.peer {
            match self.certificates.authenticate(peer, now) {
                Ok(Some(user)) => return Ok(user),
                Ok(None) => {}
                Err(e) => failed = Some(AuthnError::Certificate(e)),
            }
        }
        match given.authorization {
            Some(header) => match bearer(header) {
                Some(token) => match self.tokens.authenticate(token, None, now) {
                    Ok(found) => return Ok(found.user.clone()),
                    Err(e) => failed = Some(AuthnError::Token(e)),
                },
                None if header.trim().is_empty() => {}
                None => failed = Some(AuthnError::Scheme),
            },
            None => {
                if let Some(token) = given.websocket_token {
                    match self.tokens.authenticate(token, None, now) {
                        Ok(found) => return Ok(found.user.clone()),
                        Err(e) => failed = Some(AuthnError::Token(e)),
                    }
                }
            }
        }
        match failed {
            Some(e) => Err(e),
            None if self.anonymous.admits(given.path, || self.tokens.discovery_is_signed()) => {
                Ok(Arc::new(UserInfo::anonymous()))
            }
            None => Err(AuthnError::Missing),
        }
    }
}

/// The token of an `Authorization: Bearer` header.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    let token = rest.trim_start().split(' ').next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Takes the token out of a WebSocket's `Sec-WebSocket-Protocol` value
/// (`base64url.bearer.authorization.k8s.io.<token>`); the second part is the value without it. Upstream refuses a
/// token that is the only protocol offered, because a browser needs one that the server can choose.
pub fn websocket_token(protocols: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
    let mut token = None;
    let mut others = Vec::new();
    for protocol in protocols.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match protocol.strip_prefix(PREFIX) {
            Some(_) if token.is_some() => return None,
            Some(encoded) => {
                let bytes = URL_SAFE_NO_PAD.decode(encoded).ok()?;
                token = Some(String::from_utf8(bytes).ok().filter(|t| !t.is_empty())?);
            }
            None => others.push(protocol),
        }
    }
    let token = token?;
    (!others.is_empty()).then(|| (token, others.join(",")))
}

#[cfg(test)]
#[path = "authn_tests.rs"]
mod tests;
