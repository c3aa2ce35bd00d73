//! Acting as somebody else: `Impersonate-*` headers, each part of which needs its own permission.

use super::{UserInfo, service_account};
use crate::authz::Attributes;
use http::HeaderMap;
use keelson_base::consts::identity;
use std::sync::Arc;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// No request needs to name more.
const MAX_PARTS: usize = 256;

/// Why the headers cannot be followed (400).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImpersonationError {
    #[error("requested {0} without impersonating a user")]
    NoUser(String),
    #[error("impersonation headers must be valid UTF-8")]
    Encoding,
    #[error("too many impersonation headers")]
    TooMany,
}

/// Whom a request wants to act as.
#[derive(Debug)]
pub struct Impersonation {
    /// All of these must be allowed to the requesting user before anything else happens.
    pub checks: Vec<Attributes>,
    /// The user from then on.
    pub user: UserInfo,
}

/// Reads the headers; `None` when there are none. They are to be removed before the request goes on.
pub fn impersonation(
    headers: &HeaderMap,
    requester: &Arc<UserInfo>,
) -> Result<Option<Impersonation>, ImpersonationError> {
    let text = |v: &http::HeaderValue| {
        std::str::from_utf8(v.as_bytes()).map(str::to_owned).map_err(|_| ImpersonationError::Encoding)
    };
    let one = |name: &str| headers.get(name).map(text).transpose().map(Option::unwrap_or_default);
    let user = one(USER)?;
    let uid = one(UID)?;
    let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, _>>()?;
    let mut extras: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extras.push((unescape(key), text(value)?));
        }
    }
    if user.is_empty() && uid.is_empty() && groups.is_empty() && extras.is_empty() {
        return Ok(None);
    }
    if user.is_empty() {
        return Err(ImpersonationError::NoUser(described(&groups, &extras, &uid)));
    }
    if groups.len() + extras.len() > MAX_PARTS {
        return Err(ImpersonationError::TooMany);
    }
    Ok(Some(build(requester, user, uid, groups, extras)))
}

fn build(
    requester: &Arc<UserInfo>,
    name: String,
    uid: String,
    groups: Vec<String>,
    extras: Vec<(String, String)>,
) -> Impersonation {
    const AUTHENTICATION: (&str, &str) = ("authentication.k8s.io", "v1");
    let check =
        |(group, version): (&str, &str), resource: &str, subresource: &str, namespace: &str, name: &str| {
            Attributes {
                user: requester.clone(),
                verb: "impersonate".to_owned(),
                api_group: group.to_owned(),
                api_version: version.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                is_resource: true,
                ..Attributes::default()
            }
        };
    let mut user = UserInfo { name, uid, groups, ..UserInfo::default() };
    let mut checks = Vec::new();
    match service_account::split(&user.name) {
        Some((namespace, account)) => {
            checks.push(check(("", ""), "serviceaccounts", "", namespace, account));
            if user.groups.is_empty() {
                user.groups = service_account::groups(namespace);
            } else {
                checks.extend(user.groups.iter().map(|g| check(("", ""), "groups", "", "", g)));
            }
        }
        None => {
            checks.push(check(("", ""), "users", "", "", &user.name));
            checks.extend(user.groups.iter().map(|g| check(("", ""), "groups", "", "", g)));
        }
    }
    for (key, value) in extras {
        checks.push(check(AUTHENTICATION, "userextras", &key, "", &value));
        user.extra.entry(key).or_default().push(value);
    }
    if !user.uid.is_empty() {
        checks.push(check(AUTHENTICATION, "uids", "", "", &user.uid));
    }
    if user.name == identity::ANONYMOUS {
        if !user.in_group(identity::UNAUTHENTICATED) {
            user.groups.push(identity::UNAUTHENTICATED.to_owned());
        }
    } else {
        user.add_authenticated();
    }
    Impersonation { checks, user }
}

fn described(groups: &[String], extras: &[(String, String)], uid: &str) -> String {
    let mut parts: Vec<String> = groups.iter().map(|g| format!("group {g:?}")).collect();
    parts.extend(extras.iter().map(|(k, v)| format!("extra {k:?}={v:?}")));
    if !uid.is_empty() {
        parts.push(format!("uid {uid:?}"));
    }
    parts.join(", ")
}

/// Percent-decoding; a key that is not well encoded is taken as it stands.
fn unescape(key: &str) -> String {
    let bytes = key.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
            match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                Some(byte) => out.push(byte),
                None => return key.to_owned(),
            }
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| key.to_owned())
}
