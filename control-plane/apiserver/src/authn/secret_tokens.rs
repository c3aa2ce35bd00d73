//! Tokens that live in a Secret: believed while the Secret holds them (upstream's legacy tokens).

use std::sync::Arc;

use jiff::Timestamp;
use keelson_pki::SecretTokenClaims;

use super::reads::{HeadMeta, ObjectHead, read};
use super::tokens::{TokenAuthenticator, TokenError, TokenIdentity, TokenSecret, common, same};
use super::{UserInfo, service_account};

/// The day (UTC) on which a Secret's token was last used.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// An administrator's mark that a Secret's token does not count any more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// A token that was used and whose Secret does not say so yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// `2026-03-01`.
    pub day: String,
}

impl SecretUse {
    /// The Secret's path, and the merge patch that makes it say so.
    pub fn patch(&self) -> (String, serde_json::Value) {
        let path = format!("/api/v1/namespaces/{}/secrets/{}", self.namespace, self.name);
        (path, serde_json::json!({"metadata": {"uid": self.uid, "labels": {LAST_USED: self.day}}}))
    }
}

impl TokenAuthenticator {
    /// Whom a token with these claims stands for; its signature has been verified.
    pub(super) fn secret_token(
        &self,
        token: &str,
        claims: &SecretTokenClaims,
        wanted: &[String],
        now: Timestamp,
    ) -> Result<TokenIdentity, TokenError> {
        // It says nothing of audiences: it is for the API server alone.
        let audiences = common(self.audiences(), wanted)?;
        let (namespace, account) = (claims.namespace.as_str(), claims.account.as_str());
        let named = [
            ("sub claim is missing", &claims.sub),
            ("namespace claim is missing", &claims.namespace),
            ("secretName claim is missing", &claims.secret),
            ("serviceAccountName claim is missing", &claims.account),
            ("serviceAccountUID claim is missing", &claims.uid),
        ];
        if let Some((missing, _)) = named.iter().find(|(_, claim)| claim.is_empty()) {
            return Err(TokenError::Claim(missing));
        }
        if claims.sub != service_account::user_name(namespace, account) {
            return Err(TokenError::Claim("sub claim is invalid"));
        }
        let reads = self.reads();
        let secret: TokenSecret =
            read(reads, "", "secrets", namespace, &claims.secret).ok_or(TokenError::SecretGone)?;
        if secret.metadata.deletion_timestamp.is_some() {
            return Err(TokenError::SecretGone);
        }
        if !same(&secret.value("token"), token.as_bytes()) {
            return Err(TokenError::NotTheSecrets);
        }
        let head: ObjectHead = read(reads, "", "serviceaccounts", namespace, account)
            .ok_or_else(|| TokenError::NoServiceAccount(account.to_owned()))?;
        if head.metadata.deletion_timestamp.is_some() {
            return Err(TokenError::AccountDeleted(format!("{namespace}/{account}")));
        }
        if head.metadata.uid != claims.uid {
            return Err(TokenError::AccountUid { found: head.metadata.uid, claimed: claims.uid.clone() });
        }
        self.tell_of_use(namespace, &secret.metadata, now);
        if secret.metadata.labels.get(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
            return Err(TokenError::MarkedInvalid {
                secret: format!("{namespace}/{}", claims.secret),
                account: format!("{namespace}/{account}"),
            });
        }
        let user = UserInfo::service_account(namespace, account, &claims.uid);
        Ok(TokenIdentity { user: Arc::new(user), audiences, stale: false, expires: i64::MAX })
    }

    fn tell_of_use(&self, namespace: &str, secret: &HeadMeta, now: Timestamp) {
        let today = |now: Timestamp| now.strftime("%Y-%m-%d").to_string();
        let day = today(now);
        let said = secret.labels.get(LAST_USED);
        // Another server's day may have begun already.
        let tomorrow = now.checked_add(jiff::SignedDuration::from_hours(24)).map(today).unwrap_or_default();
        if said.is_none_or(|said| *said != day && *said != tomorrow) {
            let (name, uid) = (secret.name.clone(), secret.uid.clone());
            self.used(SecretUse { namespace: namespace.to_owned(), name, uid, day });
        }
    }
}
