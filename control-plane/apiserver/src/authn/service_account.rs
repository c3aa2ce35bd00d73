//! Names of service accounts as users and groups.

/// Prefix of a service account's user name.
pub const USER_PREFIX: &str = "system:serviceaccount:";
/// The group of all service accounts.
pub const ALL_GROUP: &str = "system:serviceaccounts";

/// `system:serviceaccount:<namespace>:<name>`.
pub fn user_name(namespace: &str, name: &str) -> String {
    format!("{USER_PREFIX}{namespace}:{name}")
}

/// The two groups of a namespace's service accounts.
pub fn groups(namespace: &str) -> Vec<String> {
    vec![ALL_GROUP.to_owned(), format!("{ALL_GROUP}:{namespace}")]
}

/// Namespace and name of a service account's user name; `None` when it is none that could exist.
pub fn split(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(USER_PREFIX)?.split_once(':')?;
    (label(namespace) && subdomain(name)).then_some((namespace, name))
}

fn label(text: &str) -> bool {
    text.len() <= 63 && dns(text)
}

fn subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(dns)
}

fn dns(part: &str) -> bool {
    let bytes = part.as_bytes();
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    end(bytes.first())
        && end(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}
