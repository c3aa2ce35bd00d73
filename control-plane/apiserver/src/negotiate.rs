//! What a client accepts and what it sent: media types, and the shape it wants (as stored, Table, metadata only).

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

/// The encodings an answer may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// The shape of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// The object or list itself.
    Whole,
    /// `meta.k8s.io` Table of this version.
    Table(&'static str),
    /// PartialObjectMetadata (or its list) of this version.
    Metadata(&'static str),
}

/// Which of the two metadata shapes was asked for; the answer must be of that form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    Object,
    List,
}

/// What an answer is to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub encoding: Encoding,
    pub shape: Shape,
    /// With [`Shape::Metadata`]: which one.
    pub partial: Partial,
    /// The Accept header asked for indented output (`;pretty=1`).
    pub pretty: bool,
}

impl Output {
    /// What clients get that ask for nothing.
    pub const JSON: Output =
        Output { encoding: Encoding::Json, shape: Shape::Whole, partial: Partial::Object, pretty: false };
}

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What objects can be answered as, in the order upstream names them in a 406.
pub const OBJECT_TYPES: [&str; 3] = [JSON, YAML, PROTOBUF];
/// What watches can be answered as.
pub const STREAM_TYPES: [&str; 3] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", JSON];

/// What a resource can be answered as.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Built-in types have protobuf messages; custom resources do not.
    pub protobuf: bool,
    /// Table and metadata shapes are offered.
    pub shapes: bool,
    /// The answer is a stream of watch events.
    pub stream: bool,
}

struct Clause<'a> {
    kind: &'a str,
    params: &'a str,
    quality: u16,
}

/// Picks the first acceptable clause, by quality and then by order; `None` is a 406.
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Option<Output> {
    let mut values = headers.get_all(ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return Some(Output::JSON);
    }
    let mut clauses: smallvec::SmallVec<[Clause<'_>; 4]> = smallvec::SmallVec::new();
    for value in values {
        let Ok(text) = value.to_str() else { continue };
        clauses.extend(text.split(',').filter(|clause| !clause.trim().is_empty()).take(32).map(clause_of));
    }
    if clauses.is_empty() {
        return Some(Output::JSON);
    }
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
    clauses.iter().filter(|clause| clause.quality > 0).find_map(|clause| accept(clause, offer))
}

/// The form of a Status, whatever was asked for: no shapes, and a stream's media type counts without the stream.
pub fn status_output(headers: &HeaderMap) -> Option<Output> {
    negotiate(headers, Offer { protobuf: true, shapes: false, stream: false })
}

/// The types of an Accept header with their parameters, by quality and then by order; none of quality 0.
pub fn clauses(accept: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut clauses: Vec<Clause<'_>> =
        accept.split(',').filter(|clause| !clause.trim().is_empty()).take(32).map(clause_of).collect();
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
    let wanted = clauses.into_iter().filter(|clause| clause.quality > 0);
    wanted.map(|clause| (clause.kind, clause.params))
}

fn clause_of(text: &str) -> Clause<'_> {
    let (kind, params) = text.trim().split_once(';').unwrap_or((text.trim(), ""));
    let quality = param(params, "q")
        .and_then(|q| q.parse::<f32>().ok())
        .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16);
    Clause { kind: kind.trim(), params, quality }
}

fn param<'a>(params: &'a str, name: &str) -> Option<&'a str> {
    params
        .split(';')
        .filter_map(|param| param.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn accept(clause: &Clause<'_>, offer: Offer) -> Option<Output> {
    let encoding = match clause.kind {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" if !offer.stream => Encoding::Yaml,
        "application/vnd.kubernetes.protobuf" if offer.protobuf => Encoding::Protobuf,
        _ => return None,
    };
    // As upstream, whoever can read a watch's events is given the plain answer where there are none.
    if param(clause.params, "stream").is_some_and(|stream| stream != "watch" || encoding == Encoding::Yaml) {
        return None;
    }
    let version = || match (param(clause.params, "g"), param(clause.params, "v")) {
        (Some("meta.k8s.io"), Some("v1")) => Some("v1"),
        (Some("meta.k8s.io"), Some("v1beta1")) => Some("v1beta1"),
        _ => None,
    };
    let shape = match param(clause.params, "as") {
        None => Shape::Whole,
        Some(_) if !offer.shapes => return None,
        // Rows carry JSON; the next clause serves who asks for them in protobuf.
        Some("Table") if encoding == Encoding::Protobuf => return None,
        Some("Table") => Shape::Table(version()?),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Shape::Metadata(version()?),
        Some(_) => return None,
    };
    let pretty = param(clause.params, "pretty").is_some_and(|value| value == "1" || value == "true");
    let partial = if param(clause.params, "as") == Some("PartialObjectMetadataList") {
        Partial::List
    } else {
        Partial::Object
    };
    Some(Output { encoding, shape, partial, pretty })
}

/// The media type of a request's body, without parameters; JSON where none is given.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or(JSON);
    let kind = value.split(';').next().unwrap_or(value).trim();
    if kind.is_empty() { JSON } else { kind }
}

/// The encoding of a request's body; `None` is a 415.
pub fn body_encoding(headers: &HeaderMap) -> Option<Encoding> {
    match content_type(headers) {
        "application/json" | "*/*" => Some(Encoding::Json),
        "application/yaml" => Some(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
        _ => None,
    }
}

/// Whether the client takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .any(|clause| {
            let (name, params) = clause.trim().split_once(';').unwrap_or((clause.trim(), ""));
            name.trim() == "gzip"
                && param(params, "q").is_none_or(|q| q.parse::<f32>().is_ok_and(|q| q > 0.0))
        })
}

/// Whether to indent JSON: `?pretty` with a value wins; without it browsers, curl and wget get indented output, as upstream
/// gives it.
pub fn pretty(headers: &HeaderMap, query: &crate::query::Query<'_>, output: Output) -> bool {
    if let Some(value) = query.text("pretty") {
        // Go's `strconv.ParseBool`.
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    if output.pretty {
        return true;
    }
    let agent =
        headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    agent.starts_with("curl") || agent.starts_with("Wget") || agent.starts_with("Mozilla/5.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: Offer = Offer { protobuf: true, shapes: true, stream: false };

    fn check(accept: &str, offer: Offer, expected: Option<(Encoding, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        let got = negotiate(&headers, offer).map(|output| (output.encoding, output.shape));
        assert_eq!(got, expected, "{accept}");
    }

    #[test]
    fn accept_headers_of_real_clients() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(kubectl, OFFER, Some((Encoding::Json, Shape::Table("v1"))));
        check(kubectl, Offer { shapes: false, ..OFFER }, Some((Encoding::Json, Shape::Whole)));
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            OFFER,
            Some((Encoding::Protobuf, Shape::Whole)),
        );
        check(
            "application/vnd.kubernetes.protobuf,application/json",
            Offer { protobuf: false, ..OFFER },
            Some((Encoding::Json, Shape::Whole)),
        );
        check("application/vnd.kubernetes.protobuf", Offer { protobuf: false, ..OFFER }, None);
        check("*/*", OFFER, Some((Encoding::Json, Shape::Whole)));
        check("text/html", OFFER, None);
        check("application/json;q=0.1,application/yaml", OFFER, Some((Encoding::Yaml, Shape::Whole)));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        check(metadata, OFFER, Some((Encoding::Protobuf, Shape::Metadata("v1"))));
        check(metadata, Offer { protobuf: false, ..OFFER }, Some((Encoding::Json, Shape::Metadata("v1"))));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        check(table, OFFER, Some((Encoding::Json, Shape::Whole)));
        check("application/json;as=Unknown;v=v1;g=meta.k8s.io", OFFER, None);
        let stream = Offer { stream: true, ..OFFER };
        check(
            "application/vnd.kubernetes.protobuf;stream=watch",
            stream,
            Some((Encoding::Protobuf, Shape::Whole)),
        );
        check("application/json;stream=watch", OFFER, Some((Encoding::Json, Shape::Whole)));
        check("application/json;stream=other", OFFER, None);
        check("application/yaml;stream=watch", OFFER, None);
    }

    #[test]
    fn gzip_is_offered_only_when_taken() {
        let mut headers = HeaderMap::new();
        assert!(!accepts_gzip(&headers));
        headers.insert(ACCEPT_ENCODING, "deflate, gzip;q=0.5".parse().unwrap());
        assert!(accepts_gzip(&headers));
        headers.insert(ACCEPT_ENCODING, "gzip;q=0".parse().unwrap());
        assert!(!accepts_gzip(&headers));
    }
}
