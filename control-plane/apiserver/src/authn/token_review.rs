//! TokenReview: what a webhook or kubelet asks about somebody else's token.

use super::{TokenAuthenticator, TokenError};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus, UserInfo};

/// The status for a review; `None` when the review holds no token (400 "token is required for TokenReview in
/// authentication").
pub fn review(
    spec: &TokenReviewSpec,
    tokens: &TokenAuthenticator,
    now: Timestamp,
) -> Option<TokenReviewStatus> {
    let token = spec.token.as_deref().filter(|t| !t.is_empty())?;
    let audiences = spec.audiences.as_deref().filter(|a| !a.is_empty());
    Some(match tokens.authenticate(token, audiences, now) {
        Ok(found) => TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(found.audiences.clone()),
            user: Some(UserInfo {
                username: Some(found.user.name.clone()),
                uid: Some(found.user.uid.clone()).filter(|u| !u.is_empty()),
                groups: Some(found.user.groups.clone()),
                extra: Some(found.user.extra.clone()).filter(|e| !e.is_empty()),
            }),
            error: None,
        },
        Err(e) => TokenReviewStatus {
            authenticated: None,
            audiences: None,
            error: Some(match e {
                TokenError::Unknown => e.to_string(),
                e => format!("[invalid bearer token, {e}]"),
            }),
            user: Some(UserInfo::default()),
        },
    })
}
