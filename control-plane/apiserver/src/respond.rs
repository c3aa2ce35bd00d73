//! Answers: Status bodies, byte bodies, warnings.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use keelson_api::status::Status;
use keelson_api::{json, proto, yaml};
use parking_lot::Mutex;

use crate::body::Body;
use crate::negotiate::{self, Encoding, JSON};
use crate::query::Query;
use crate::scan;

/// An answer with a body of this media type.
pub fn bytes(code: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    with_body(code, media_type, Body::full(body))
}

/// An answer with any body.
pub fn with_body(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// Plain text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", text.into());
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    response
}

/// A Status as an answer.
pub fn status(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut body = status.to_json();
    body.push(b'\n');
    let mut response = bytes(code, JSON, body);
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A Status in the form the client accepts, as upstream's `ErrorNegotiated`; indented JSON where it accepts none.
pub fn negotiated(of: &Status, headers: &HeaderMap, query: &Query<'_>) -> Response<Body> {
    let mut response = status(of);
    let json = of.to_json();
    let (encoding, pretty) = match negotiate::status_output(headers) {
        Some(output) => (output.encoding, negotiate::pretty(headers, query, output)),
        None => (Encoding::Json, true),
    };
    let (media_type, body): (_, Vec<u8>) = match encoding {
        Encoding::Json if !pretty => return response,
        Encoding::Json => {
            let mut indented = Vec::with_capacity(json.len() * 2);
            scan::indent(&json, &mut indented);
            (JSON, indented)
        }
        Encoding::Yaml | Encoding::Protobuf => {
            let decoded = json::decode(keelson_api::t::meta_v1::STATUS, &json, json::FieldValidation::Ignore);
            // What was written here is read here.
            let Ok((doc, _)) = decoded else { return response };
            if encoding == Encoding::Yaml {
                (negotiate::YAML, yaml::encode(&doc))
            } else {
                let mut out = Vec::with_capacity(256);
                if proto::encode(&doc, &mut out).is_err() {
                    return response;
                }
                (negotiate::PROTOBUF, out)
            }
        }
    };
    *response.body_mut() = Body::full(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// What upstream sets on every answer of the API.
pub fn finish(response: &mut Response<Body>) {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Gives the request the name that its client chose for it, or a new one (upstream's `WithAuditInit`).
pub fn name_request(response: &mut Response<Body>, request: &HeaderMap) {
    let name = request.get(&AUDIT_ID).filter(|given| !given.is_empty()).cloned().or_else(|| {
        let random = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut text = uuid::Uuid::encode_buffer();
        HeaderValue::from_str(random.hyphenated().encode_lower(&mut text)).ok()
    });
    if let Some(name) = name {
        response.headers_mut().entry(AUDIT_ID).or_insert(name);
    }
}

/// Warnings gathered while a request is served; they leave as `Warning` headers.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

/// Upstream cuts single warnings and their sum.
const MAX_WARNING: usize = 256;
const MAX_WARNINGS: usize = 4096;

impl Warnings {
    /// Adds a text once. What comes when there are more than can be sent is not kept: an object may give cause for any number.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock();
        let full = all.iter().map(String::len).sum::<usize>() > MAX_WARNINGS;
        if !text.is_empty() && !full && !all.contains(&text) {
            all.push(text);
        }
    }

    /// Adds several.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.add(text);
        }
    }

    /// Puts them into the answer's head.
    pub fn write(&self, response: &mut Response<Body>) {
        let all = self.0.lock();
        let mut total = 0;
        for warning in all.iter() {
            let value = warning_header(warning);
            total += value.len();
            if total > MAX_WARNINGS {
                break;
            }
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(http::header::WARNING, value);
            }
        }
    }
}

/// `299 - "text"`, quoted as RFC 7234 wants it, on one line and not too long.
fn warning_header(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 10);
    out.push_str("299 - \"");
    for c in text.chars() {
        if out.len() >= MAX_WARNING {
            break;
        }
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            // A header is ASCII to most clients.
            c if !c.is_ascii() => out.push('?'),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_once_each() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.foo\"");
        warnings.add("unknown field \"spec.foo\"");
        warnings.add("two\nlines");
        let mut response = Response::new(Body::Empty);
        warnings.write(&mut response);
        let got: Vec<_> =
            response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(got, ["299 - \"unknown field \\\"spec.foo\\\"\"", "299 - \"two lines\""]);
    }

    #[test]
    fn no_more_warnings_are_kept_than_can_be_sent() {
        let warnings = Warnings::default();
        warnings.extend((0..100_000).map(|number| format!("warning {number}")));
        assert!(warnings.0.lock().iter().map(String::len).sum::<usize>() < 2 * MAX_WARNINGS);
    }

    #[test]
    fn every_request_has_a_name() {
        let mut request = HeaderMap::new();
        let named = |request: &HeaderMap| {
            let mut response = Response::new(Body::Empty);
            name_request(&mut response, request);
            response.headers()["audit-id"].to_str().unwrap().to_owned()
        };
        let (one, two) = (named(&request), named(&request));
        assert!(one != two && one.len() == 36 && one.as_bytes()[14] == b'4', "{one} {two}");
        request.insert(AUDIT_ID, HeaderValue::from_static("mine"));
        assert_eq!(named(&request), "mine");
    }

    #[test]
    fn a_status_says_when_to_retry() {
        let response = status(&Status::too_many_requests("wait", 3));
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "3");
    }
}
