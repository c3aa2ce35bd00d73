//! Bearer tokens: service-account JWTs of our own (those in Secrets: `secret_tokens`), and bootstrap tokens.

use super::reads::{ClusterReads, read};
use super::secret_tokens::SecretUse;
use super::token_cache::{TokenCache, key};
use super::{ObjectHead, UserInfo, extra, service_account};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use keelson_pki::{BootstrapToken, SECRET_TOKEN_ISSUER, SecretTokenClaims, VerificationKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// No token of ours is longer.
const MAX_TOKEN: usize = 16 * 1024;
/// Difference of clocks allowed for, and how long a deleted object's tokens still count (upstream's leeway).
const LEEWAY: i64 = 60;

/// Keys of the discovery document's signatures begin so; a token's id follows.
const SIGNATURE: &str = "jws-kubeconfig-";

/// Why a token is not accepted. Texts a TokenReview shows are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("invalid bearer token")]
    Unknown,
    #[error("invalid signature, no keys found")]
    NoKey,
    #[error("invalid bearer token: its signature or form is wrong")]
    Signature(#[source] jsonwebtoken::errors::Error),
    #[error("token issuer {0:?} is invalid")]
    Issuer(String),
    #[error("token audiences {token} is invalid for the target audiences {wanted}")]
    Audience { token: String, wanted: String },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("service account token is issued in the future")]
    FromTheFuture,
    #[error("serviceaccounts \"{0}\" not found")]
    NoServiceAccount(String),
    #[error("{object} UID ({found}) does not match {what} ({claimed})")]
    Uid { object: &'static str, what: &'static str, found: String, claimed: String },
    #[error("service account {0} has been deleted")]
    ServiceAccountDeleted(String),
    #[error("service account token has been invalidated")]
    Invalidated,
    /// Of tokens that live in Secrets: upstream has other words for them.
    #[error("{0}")]
    Claim(&'static str),
    #[error("Token has been invalidated")]
    SecretGone,
    #[error("Token does not match server's copy")]
    NotTheSecrets,
    #[error("ServiceAccount {0} has been deleted")]
    AccountDeleted(String),
    #[error("ServiceAccount UID ({found}) does not match claim ({claimed})")]
    AccountUid { found: String, claimed: String },
    #[error(
        "the token in secret {secret} for service account {account} has been marked invalid. Use tokens from the TokenRequest API \
         or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret \
         to temporarily allow use of this token"
    )]
    MarkedInvalid { secret: String, account: String },
}

/// `kubernetes.io` in a token: what it is bound to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Bound {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    #[serde(default)]
    pub serviceaccount: Ref,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Name and UID of an object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ref {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// `aud`, one text or several.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Audience::Many(Vec::new())
    }
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }
}

/// A service-account token's content, in the order it is written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub aud: Audience,
    #[serde(default)]
    pub exp: Option<i64>,
    #[serde(default)]
    pub iat: Option<i64>,
    #[serde(default)]
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: Bound,
    #[serde(default)]
    pub nbf: Option<i64>,
    #[serde(default)]
    pub sub: String,
}

/// Whom a token stands for.
#[derive(Clone, Debug)]
pub struct TokenIdentity {
    pub user: Arc<UserInfo>,
    /// Those of the wanted audiences that the token is for.
    pub audiences: Vec<String>,
    /// The token is past the time its pod should have renewed it (a client that reads it only once).
    pub stale: bool,
    pub(super) expires: i64,
}

/// Decides about bearer tokens.
pub struct TokenAuthenticator {
    /// The first signs new tokens.
    issuers: Vec<String>,
    audiences: Vec<String>,
    keys: Vec<VerificationKey>,
    reads: Arc<dyn ClusterReads>,
    cache: TokenCache,
    uses: OnceLock<mpsc::Sender<SecretUse>>,
}

impl TokenAuthenticator {
    /// Believes tokens of `issuers` that one of `keys` signed, for `audiences` (the API server's own).
    pub fn new(
        issuers: Vec<String>,
        audiences: Vec<String>,
        keys: Vec<VerificationKey>,
        reads: Arc<dyn ClusterReads>,
    ) -> TokenAuthenticator {
        TokenAuthenticator {
            issuers,
            audiences,
            keys,
            reads,
            cache: TokenCache::default(),
            uses: OnceLock::new(),
        }
    }

    /// Of which Secrets tokens are used that do not say so for the day. Told to the first who asks; what is not fetched in time is
    /// told again at the next use.
    pub fn secret_uses(&self) -> mpsc::Receiver<SecretUse> {
        let (sender, receiver) = mpsc::channel(64);
        let _ = self.uses.set(sender);
        receiver
    }

    pub(super) fn used(&self, secret: SecretUse) {
        if let Some(uses) = self.uses.get() {
            let _ = uses.try_send(secret);
        }
    }

    pub(super) fn reads(&self) -> &dyn ClusterReads {
        self.reads.as_ref()
    }

    /// The API server's own audiences.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Whom `token` stands for, for the given audiences (the API server's own where `None`).
    pub fn authenticate(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        now: Timestamp,
    ) -> Result<Arc<TokenIdentity>, TokenError> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(TokenError::Unknown);
        }
        let key = key(token, audiences);
        if let Some(found) = self.cache.get(&key, now) {
            return Ok(found);
        }
        let wanted = audiences.unwrap_or(&self.audiences);
        let found = match token.parse::<BootstrapToken>() {
            Ok(bootstrap) => self.bootstrap(&bootstrap, wanted, now)?,
            Err(_) => self.service_account(token, wanted, now)?,
        };
        let found = Arc::new(found);
        self.cache.put(key, found.clone(), now);
        Ok(found)
    }

    /// Whether a bootstrap token lives that machines may find the cluster with: the signer keeps a signature by each in
    /// the discovery document, and none else.
    pub fn discovery_is_signed(&self) -> bool {
        let document: Option<Discovery> =
            read(self.reads.as_ref(), "", "configmaps", "kube-public", "cluster-info");
        document.is_some_and(|document| document.data.keys().any(|key| key.starts_with(SIGNATURE)))
    }

    fn service_account(
        &self,
        token: &str,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<TokenIdentity, TokenError> {
        let claims = match self.verified(token)? {
            Verified::Bound(claims) => claims,
            Verified::InSecret(claims) => return self.secret_token(token, &claims, wanted, now),
        };
        let audiences = common(claims.aud.all(), wanted)?;
        let expires = in_time(&claims, now)?;
        let user = self.bound_user(&claims, now)?;
        let stale = claims.kubernetes.warnafter.is_some_and(|at| at != 0 && now.as_second() > at);
        Ok(TokenIdentity { user: Arc::new(user), audiences, stale, expires })
    }

    /// The claims of a token that one of our keys signed with RS256 for one of our issuers.
    fn verified(&self, token: &str) -> Result<Verified, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Unknown)?;
        if header.alg != Algorithm::RS256 {
            return Err(TokenError::Unknown);
        }
        let mut validation = Validation::new(Algorithm::RS256);
        validation.required_spec_claims.clear();
        // Times and audiences are judged below, against the time given and with upstream's leeway.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        let candidates: Vec<&VerificationKey> = match header.kid.as_deref().filter(|k| !k.is_empty()) {
            Some(kid) => self.keys.iter().filter(|k| k.kid == kid).collect(),
            None => self.keys.iter().collect(),
        };
        let mut failed = TokenError::NoKey;
        for key in candidates {
            match jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                Ok(data) if self.issuers.contains(&data.claims.iss) => {
                    return Ok(Verified::Bound(Box::new(data.claims)));
                }
                Ok(data) if data.claims.iss == SECRET_TOKEN_ISSUER => {
                    let claims = jsonwebtoken::decode::<SecretTokenClaims>(token, &key.decoding, &validation);
                    return claims.map(|data| Verified::InSecret(data.claims)).map_err(TokenError::Signature);
                }
                Ok(data) => return Err(TokenError::Issuer(data.claims.iss)),
                Err(e) => failed = TokenError::Signature(e),
            }
        }
        Err(failed)
    }

    fn bound_user(&self, claims: &Claims, now: Timestamp) -> Result<UserInfo, TokenError> {
        let bound = &claims.kubernetes;
        let namespace = bound.namespace.as_str();
        let account = &bound.serviceaccount;
        let full = || format!("{namespace}/{}", account.name);
        if claims.sub != service_account::user_name(namespace, &account.name) {
            return Err(TokenError::Unknown);
        }
        let head = self
            .head("serviceaccounts", namespace, &account.name)
            .ok_or_else(|| TokenError::NoServiceAccount(account.name.clone()))?;
        if head.metadata.uid != account.uid {
            return Err(TokenError::Uid {
                object: "service account",
                what: "claim",
                found: head.metadata.uid,
                claimed: account.uid.clone(),
            });
        }
        if gone(&head, now) {
            return Err(TokenError::ServiceAccountDeleted(full()));
        }
        if let Some(secret) = &bound.secret {
            self.check("secrets", "secret", "service account secret ref claim", namespace, secret, now)?;
        }
        let mut user = UserInfo::service_account(namespace, &account.name, &account.uid);
        let mut set = |key: &str, value: &str| {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        };
        if let Some(pod) = &bound.pod {
            self.check("pods", "pod", "service account pod ref claim", namespace, pod, now)?;
            set(extra::POD_NAME, &pod.name);
            set(extra::POD_UID, &pod.uid);
        }
        if let Some(node) = &bound.node {
            if bound.pod.is_none() {
                self.check("nodes", "node", "service account node ref claim", "", node, now)?;
            }
            set(extra::NODE_NAME, &node.name);
            if !node.uid.is_empty() {
                set(extra::NODE_UID, &node.uid);
            }
        }
        if !claims.jti.is_empty() {
            set(extra::CREDENTIAL_ID, &format!("JTI={}", claims.jti));
        }
        Ok(user)
    }

    fn head(&self, resource: &str, namespace: &str, name: &str) -> Option<ObjectHead> {
        read(self.reads.as_ref(), "", resource, namespace, name)
    }

    fn check(
        &self,
        resource: &str,
        object: &'static str,
        what: &'static str,
        namespace: &str,
        reference: &Ref,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let head = self.head(resource, namespace, &reference.name).ok_or(TokenError::Invalidated)?;
        if head.metadata.uid != reference.uid {
            let claimed = reference.uid.clone();
            return Err(TokenError::Uid { object, what, found: head.metadata.uid, claimed });
        }
        if gone(&head, now) { Err(TokenError::Invalidated) } else { Ok(()) }
    }

    /// A bootstrap token is a Secret in kube-system; it may authenticate, must be in time, and names its groups.
    fn bootstrap(
        &self,
        token: &BootstrapToken,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<TokenIdentity, TokenError> {
        let secret: TokenSecret =
            read(self.reads.as_ref(), "", "secrets", "kube-system", &token.secret_name())
                .ok_or(TokenError::Unknown)?;
        let field = |name: &str| String::from_utf8(secret.value(name)).unwrap_or_default();
        let usable = secret.r#type == "bootstrap.kubernetes.io/token"
            && secret.metadata.deletion_timestamp.is_none()
            && field("token-id") == token.id()
            && same(field("token-secret").as_bytes(), token.secret().as_bytes())
            && field("usage-bootstrap-authentication") == "true";
        if !usable {
            return Err(TokenError::Unknown);
        }
        let expiration = field("expiration");
        let expires = match expiration.parse::<Timestamp>() {
            Ok(at) => at.as_second(),
            Err(_) if expiration.is_empty() => i64::MAX,
            Err(_) => return Err(TokenError::Unknown),
        };
        if now.as_second() >= expires {
            return Err(TokenError::Unknown);
        }
        let mut user = UserInfo {
            name: format!("system:bootstrap:{}", token.id()),
            groups: vec!["system:bootstrappers".to_owned()],
            ..UserInfo::default()
        };
        for group in field("auth-extra-groups").split(',').map(str::trim).filter(|g| !g.is_empty()) {
            if !group.starts_with("system:bootstrappers:") {
                return Err(TokenError::Unknown);
            }
            user.groups.push(group.to_owned());
        }
        user.add_authenticated();
        Ok(TokenIdentity { user: Arc::new(user), audiences: wanted.to_vec(), stale: false, expires })
    }
}

/// What a signature of ours stands under.
enum Verified {
    Bound(Box<Claims>),
    InSecret(SecretTokenClaims),
}

/// The audiences of a token that are wanted; an error where there is none.
pub(super) fn common(token: &[String], wanted: &[String]) -> Result<Vec<String>, TokenError> {
    let both: Vec<String> = token.iter().filter(|audience| wanted.contains(audience)).cloned().collect();
    if both.is_empty() {
        return Err(TokenError::Audience { token: quoted(token), wanted: quoted(wanted) });
    }
    Ok(both)
}

/// Of the discovery document only the names of its keys.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Discovery {
    data: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenSecret {
    pub metadata: super::reads::HeadMeta,
    r#type: String,
    data: BTreeMap<String, String>,
}

impl TokenSecret {
    /// A value; empty where it is not there.
    pub fn value(&self, key: &str) -> Vec<u8> {
        self.data.get(key).and_then(|value| STANDARD.decode(value).ok()).unwrap_or_default()
    }
}

/// Comparison whose time does not tell how much was right.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

fn gone(head: &ObjectHead, now: Timestamp) -> bool {
    head.metadata.deletion_timestamp.is_some_and(|at| at.as_second() < now.as_second() - LEEWAY)
}

fn in_time(claims: &Claims, now: Timestamp) -> Result<i64, TokenError> {
    let now = now.as_second();
    let expires = claims.exp.ok_or(TokenError::Expired)?.saturating_add(LEEWAY);
    if now > expires {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf) {
        return Err(TokenError::NotYet);
    }
    if claims.iat.is_some_and(|iat| now.saturating_add(LEEWAY) < iat) {
        return Err(TokenError::FromTheFuture);
    }
    Ok(expires)
}

/// A list as Go prints it with `%q`.
fn quoted(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|a| format!("{a:?}")).collect();
    format!("[{}]", items.join(" "))
}
