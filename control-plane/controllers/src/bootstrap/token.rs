//! What a token's Secret says (the keys are upstream's).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

const PREFIX: &str = "bootstrap-token-";

/// A value of the Secret; empty when it is not there or no text.
pub(super) fn value<'a>(secret: &'a Secret, key: &str) -> &'a str {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok()).unwrap_or_default()
}

/// When the token expires: `None` never. A time that cannot be read counts as long past.
pub(super) fn expiration(secret: &Secret) -> Option<Timestamp> {
    match value(secret, "expiration") {
        "" => None,
        text => Some(text.parse().unwrap_or(Timestamp::MIN)),
    }
}

/// Id and secret, when the token may sign at `now`.
pub(super) fn for_signing(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let named = secret.metadata.name.as_deref()?.strip_prefix(PREFIX)?;
    let (id, text) = (value(secret, "token-id"), value(secret, "token-secret"));
    let signs = value(secret, "usage-bootstrap-signing") == "true";
    let lives = expiration(secret).is_none_or(|end| end > now);
    (id == named && !text.is_empty() && signs && lives).then(|| (id.to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_whole_token_signs() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let check = |name: &str, data: &[(&str, &str)], expected: bool| {
            let mut all = vec![
                ("token-id", "abcdef"),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-signing", "true"),
            ];
            all.retain(|(key, _)| !data.iter().any(|(other, _)| key == other));
            all.extend(data);
            let mut secret: Secret =
                serde_json::from_value(json!({"metadata": {"name": name}, "stringData": {}})).unwrap();
            let bytes =
                |(k, v): &(&str, &str)| ((*k).to_owned(), k8s_openapi::ByteString(v.as_bytes().to_vec()));
            secret.data = Some(all.iter().map(bytes).collect());
            assert_eq!(for_signing(&secret, now).is_some(), expected, "{name} {data:?}");
        };
        check("bootstrap-token-abcdef", &[], true);
        check("bootstrap-token-abcdef", &[("expiration", "2026-03-01T12:00:01Z")], true);
        check("bootstrap-token-abcdef", &[("expiration", "2026-03-01T12:00:00Z")], false);
        check("bootstrap-token-abcdef", &[("expiration", "soon")], false);
        check("bootstrap-token-abcdef", &[("usage-bootstrap-signing", "false")], false);
        check("bootstrap-token-abcdef", &[("token-secret", "")], false);
        check("bootstrap-token-abcdee", &[], false);
        check("abcdef", &[], false);
    }
}
