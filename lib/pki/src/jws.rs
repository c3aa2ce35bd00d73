//! Detached signatures of the discovery document with a bootstrap token's secret (RFC 7515, appendix F; HS256), byte for
//! byte as upstream's signer makes them: a joining machine compares texts.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};

/// The signature `header..mac` of `content` by the token `id` with `secret`.
pub fn detached_signature(
    content: &str,
    id: &str,
    secret: &str,
) -> Result<String, jsonwebtoken::errors::Error> {
    let id = serde_json::Value::from(id);
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":{id}}}"#));
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let mac = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256)?;
    Ok(format!("{header}..{mac}"))
}

#[cfg(test)]
mod tests {
    /// Contents, secret and expected texts are those of upstream's own test.
    #[test]
    fn signatures_are_upstreams() {
        let check = |content: &str, secret: &str, mac: &str| {
            let signed = super::detached_signature(content, "joshua", secret).unwrap();
            assert_eq!(signed, format!("eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..{mac}"));
        };
        let content = "Hello from the other side. I must have called a thousand times.";
        check(content, "my voice is my passcode", "VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8");
        check("", "my voice is my passcode", "7Ui1ALizW4jXphVUB7xUqC9vLYLL9RZeOFfVLoB7Tgk");
    }
}
