//! Continue tokens: where the next page of a list begins (apiserver `pkg/storage/continue.go`).
//!
//! URL-safe base64 without padding over `{"v":"meta.k8s.io/v1","rv":…,"start":…}`. Clients must not read them, and send
//! back what they like: nothing in one is believed. A start never leaves the prefix it is joined to.

use base64::engine::general_purpose::{NO_PAD, URL_SAFE_NO_PAD};
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use base64::{DecodeError, Engine as _, alphabet};

use crate::doc::Value;
use crate::json;
use crate::status::Status;

const VERSION: &str = "meta.k8s.io/v1";

/// Go's reader does not look at the bits that are left over.
const READER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    NO_PAD.with_decode_allow_trailing_bits(true).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

#[derive(serde::Serialize)]
struct Token<'t> {
    v: &'t str,
    rv: i64,
    start: &'t str,
}

/// A token for the page after key `last`, at a revision; without one at the newest.
pub fn encode(revision: Option<u64>, last: &str) -> String {
    let rv = revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(-1);
    let token = Token { v: VERSION, rv, start: &format!("{last}\0") };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The revision (none: the newest) and the key after which the next page starts, relative to the path's scope. What is no
/// token is a 400 in upstream's words.
pub fn decode(text: &str) -> Result<(Option<u64>, String), Status> {
    let bad =
        |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
    let raw = READER.decode(text).map_err(|error| bad(&base64_text(text, &error)))?;
    let value = json::decode_untyped(&raw).map_err(|error| bad(&error.to_string()))?;
    let token = Token::read(&value).map_err(|error| bad(&error))?;
    if token.v != VERSION {
        return Err(bad(&format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    if token.start.is_empty() {
        return Err(bad("encoded start key empty (version meta.k8s.io/v1)"));
    }
    // Only a clean path stays below the prefix that it is joined to.
    let path = token.start.strip_prefix('/').unwrap_or(token.start);
    let start = path.strip_suffix('\0').unwrap_or(path);
    let last = start.rsplit('/').next();
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) || matches!(last, Some("." | "..")) {
        return Err(bad(token.start));
    }
    Ok((u64::try_from(token.rv).ok(), start.to_owned()))
}

/// Go's text.
fn base64_text(text: &str, error: &DecodeError) -> String {
    let at = match *error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
        DecodeError::InvalidLength(length) => length.saturating_sub(1),
        DecodeError::InvalidPadding => text.find('=').unwrap_or(text.len()),
    };
    format!("illegal base64 data at input byte {at}")
}

impl<'t> Token<'t> {
    /// What is missing is empty, as in Go.
    fn read(value: &'t Value) -> Result<Token<'t>, String> {
        let map = match value {
            Value::Map(map) => map,
            Value::Null => return Ok(Token { v: "", rv: 0, start: "" }),
            other => {
                let what = crate::patch::type_word(&crate::doc::value_to_json(other));
                return Err(format!(
                    "json: cannot unmarshal {what} into Go value of type storage.continueToken"
                ));
            }
        };
        let wrong = |value: &Value, field: &str, ty: &str| {
            let what = crate::patch::type_word(&crate::doc::value_to_json(value));
            format!("json: cannot unmarshal {what} into Go struct field continueToken.{field} of type {ty}")
        };
        let text = |field: &str| match map.get(field) {
            None | Some(Value::Null) => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| wrong(value, field, "string")),
        };
        let rv = match map.get("rv") {
            None | Some(Value::Null) => 0,
            Some(value) => value.as_int().ok_or_else(|| wrong(value, "rv", "int64"))?,
        };
        Ok(Token { v: text("v")?, rv, start: text("start")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_token_is_told_as_go_tells_it() {
        for (text, why) in [
            ("!", "illegal base64 data at input byte 0"),
            ("ab!d", "illegal base64 data at input byte 2"),
            ("abcde", "illegal base64 data at input byte 4"),
            ("YQ==", "illegal base64 data at input byte 2"),
            ("", "unexpected end of JSON input"),
            ("W10", "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (
                "eyJydiI6IngifQ",
                "json: cannot unmarshal string into Go struct field continueToken.rv of type int64",
            ),
        ] {
            let message = decode(text).unwrap_err().message;
            assert_eq!(
                message,
                format!("invalid continue token: continue key is not valid: {why}"),
                "{text}"
            );
        }
    }

    #[test]
    fn tokens_hold_revision_and_key() {
        assert_eq!(decode(&encode(Some(17), "default/a")).unwrap(), (Some(17), "default/a".to_owned()));
        assert_eq!(decode(&encode(None, "a")).unwrap(), (None, "a".to_owned()));
        let traversal = URL_SAFE_NO_PAD.encode(br#"{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/x"}"#);
        for bad in ["", "!", "e30", &traversal] {
            assert_eq!(decode(bad).unwrap_err().code, 400, "{bad}");
        }
        for (token, why) in [
            (r#"{"v":"v0","rv":1,"start":"a"}"#, "server does not recognize this encoded version v0"),
            (
                r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#,
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#,
                "encoded start key empty (version meta.k8s.io/v1)",
            ),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"/a//b"}"#, "/a//b"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/./b"}"#, "a/./b"),
            (r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/..\u0000"}"#, "a/..\0"),
        ] {
            let message = decode(&URL_SAFE_NO_PAD.encode(token)).unwrap_err().message;
            assert_eq!(message, format!("invalid continue token: continue key is not valid: {why}"));
        }
    }
}
