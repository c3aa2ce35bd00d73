//! What the pipeline asks of authentication and authorization.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use keelson_api::fields_selector::FieldSelector;
use keelson_api::selectors::LabelSelector;
use keelson_api::status::Status;

use crate::authn::{self, Authenticator, Credentials, OpenIdDocuments, PeerChain, TokenIssuer, UserInfo};
use crate::authz::{self, Attributes, Authorizer, Decision, PolicyStore, UnionAuthorizer};
use crate::request_info::RequestInfo;

/// Who asks, and may they.
pub struct Access {
    pub authenticator: Authenticator,
    pub authorizer: Arc<UnionAuthorizer>,
    pub policy: Arc<PolicyStore>,
    pub issuer: TokenIssuer,
    pub openid: Option<OpenIdDocuments>,
}

impl Access {
    /// Who sends a request over a connection; 401 when a credential is wrong or missing.
    pub fn authenticate(
        &self,
        peer: Option<&PeerChain>,
        headers: &HeaderMap,
        path: &str,
        now: Timestamp,
    ) -> Result<Arc<UserInfo>, Status> {
        let websocket = headers
            .get("sec-websocket-protocol")
            .and_then(|value| value.to_str().ok())
            .and_then(authn::websocket_token);
        let given = Credentials {
            peer,
            authorization: headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()),
            websocket_token: websocket.as_ref().map(|(token, _)| token.as_str()),
            path,
        };
        self.authenticator.authenticate(given, now).map_err(|error| {
            tracing::debug!(%error, path, "authentication");
            Status::unauthorized("Unauthorized")
        })
    }

    /// Whether the user may; else 403 in upstream's words.
    pub fn authorize(&self, attributes: &Attributes) -> Result<(), Status> {
        match self.authorizer.authorize(attributes) {
            Decision::Allow => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                Err(authz::forbidden(attributes, &reason))
            }
        }
    }

    /// The user a request acts as, when its headers name one and each part of that is allowed.
    pub fn impersonate(&self, headers: &HeaderMap, user: Arc<UserInfo>) -> Result<Arc<UserInfo>, Status> {
        let wanted =
            authn::impersonation(headers, &user).map_err(|error| Status::bad_request(error.to_string()))?;
        let Some(wanted) = wanted else { return Ok(user) };
        for check in &wanted.checks {
            self.authorize(check)?;
        }
        Ok(Arc::new(wanted.user))
    }
}

/// The attributes of a request.
pub fn attributes(user: &Arc<UserInfo>, verb: &str, info: &RequestInfo) -> Attributes {
    Attributes {
        user: user.clone(),
        verb: verb.to_owned(),
        api_group: info.group.clone(),
        api_version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        namespace: info.namespace.clone(),
        name: info.name.clone(),
        path: info.path.clone(),
        is_resource: info.is_resource,
        // What cannot be read restricts nothing.
        field_selector: FieldSelector::parse(&info.field_selector)
            .map(|selector| selector.terms().to_vec())
            .unwrap_or_default(),
        label_selector: LabelSelector::parse(&info.label_selector)
            .map(|selector| selector.requirements().to_vec())
            .unwrap_or_default(),
    }
}
