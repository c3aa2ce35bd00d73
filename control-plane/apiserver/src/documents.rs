//! Discovery and OpenAPI documents: made when first asked for, kept compressed as long as somebody asks, and made anew
//! when the resource table changes.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use flate2::Compression;
use keelson_api::doc::Doc;
use keelson_api::json::{self, EncodeOptions};
use keelson_api::openapi::{self, Descriptions};
use keelson_api::status::Status;
use keelson_api::table::Table;
use keelson_api::{discovery, proto, yaml};
use sha2::Digest as _;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::negotiate::{self, JSON, OBJECT_TYPES, PROTOBUF, YAML};

/// A document as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// gzip.
    packed: Bytes,
    pub media_type: &'static str,
    pub etag: String,
    /// The path names the content by its hash.
    pub immutable: bool,
    /// The path names another content than there is now: where the present one is.
    pub moved_to: Option<String>,
}

impl Document {
    fn new(body: &[u8], media_type: &'static str) -> Document {
        let mut encoder =
            flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::fast());
        // Writing to memory cannot fail.
        let packed = encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default();
        // Upstream's ETags are SHA-512 in upper-case hexadecimal.
        let hash: String = sha2::Sha512::digest(body).iter().map(|byte| format!("{byte:02X}")).collect();
        Document {
            packed: packed.into(),
            media_type,
            etag: format!("\"{hash}\""),
            immutable: false,
            moved_to: None,
        }
    }

    /// The body as gzip.
    pub fn packed(&self) -> Bytes {
        self.packed.clone()
    }

    /// The body.
    pub fn unpacked(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.packed.len() * 8);
        // What was packed above unpacks.
        let _ = flate2::read::GzDecoder::new(&self.packed[..]).read_to_end(&mut body);
        body.into()
    }
}

struct Kept {
    document: Document,
    used: Instant,
}

/// What was made, by path and form, for one table.
pub struct Cache {
    /// `host:port` under which the server is reached.
    pub server_address: String,
    made: parking_lot::Mutex<Option<(Arc<Table>, HashMap<String, Kept>)>>,
    /// How many [`Held`] there are.
    held: watch::Sender<usize>,
}

/// As long as it lives, nobody is told what the table holds (see [`Cache::hold`]).
pub struct Held<'c>(&'c watch::Sender<usize>);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|held| *held -= 1);
    }
}

/// Longer than this no question waits for what is held.
const WAIT: Duration = Duration::from_secs(2);
/// What nobody asked for in this time is dropped.
const KEEP: Duration = Duration::from_secs(600);
/// Documents kept per table; paths are bounded by the table's groups, so this only guards against mistakes.
const MAX_KEPT: usize = 512;
const V2_PROTO: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3_PROTO: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// The names that clients ask by first; they are no media types that their parsers read, so they are not answered with.
const V2_PROTO_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V3_PROTO_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

impl Cache {
    pub fn new(server_address: String) -> Cache {
        Cache { server_address, made: parking_lot::Mutex::new(None), held: watch::Sender::new(0) }
    }

    /// Makes questions for documents wait until the value is dropped. A definition's rows are in the table before its status
    /// says Established and in the documents only after: whoever sees one sees the other.
    pub fn hold(&self) -> Held<'_> {
        self.held.send_modify(|held| *held += 1);
        Held(&self.held)
    }

    /// The table of which documents may be shown: the present one, once nothing in it is held.
    pub async fn settled(&self, table: &ArcSwap<Table>) -> Arc<Table> {
        let deadline = Instant::now() + WAIT;
        loop {
            // Read first: what is held is in no table before it is held.
            let now = table.load_full();
            let mut held = self.held.subscribe();
            let wait = held.wait_for(|held| *held == 0);
            if *self.held.borrow() == 0 || tokio::time::timeout_at(deadline, wait).await.is_err() {
                return now;
            }
        }
    }

    /// The document of a path in the form the client accepts; 404 where there is none.
    pub fn find(
        &self,
        table: &Arc<Table>,
        path: &str,
        accept: &str,
        hash: Option<&str>,
    ) -> Result<Document, Status> {
        let types: &[&str] = if path.starts_with("/openapi") { &[] } else { &OBJECT_TYPES };
        let form = Form::of(path, accept).ok_or_else(|| Status::not_acceptable(types))?;
        let key = format!("{path} {form:?}");
        if let Some(found) = self.known(table, &key) {
            return Ok(with_hash(found, hash, table, path));
        }
        let document = self.make(table, path, form)?;
        let mut made = self.made.lock();
        if let Some((of, documents)) = made.as_mut()
            && Arc::ptr_eq(of, table)
            && documents.len() < MAX_KEPT
        {
            documents.insert(key, Kept { document: document.clone(), used: Instant::now() });
        }
        drop(made);
        Ok(with_hash(document, hash, table, path))
    }

    fn known(&self, table: &Arc<Table>, key: &str) -> Option<Document> {
        let mut made = self.made.lock();
        match made.as_mut() {
            Some((of, documents)) if Arc::ptr_eq(of, table) => documents.get_mut(key).map(|kept| {
                kept.used = Instant::now();
                kept.document.clone()
            }),
            _ => {
                *made = Some((table.clone(), HashMap::new()));
                None
            }
        }
    }

    /// Drops what nobody asked for in a while.
    pub fn sweep(&self) {
        let now = Instant::now();
        if let Some((_, documents)) = self.made.lock().as_mut() {
            documents.retain(|_, kept| now.duration_since(kept.used) < KEEP);
            documents.shrink_to_fit();
        }
    }

    fn make(&self, table: &Table, path: &str, form: Form) -> Result<Document, Status> {
        let missing = Status::resource_not_found;
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let doc = match (parts.as_slice(), form) {
            (["openapi", rest @ ..], form) => return open_api(table, rest, form),
            (["api"], Form::Aggregated(version, proto)) => {
                return Ok(aggregated(table, true, version, proto));
            }
            (["apis"], Form::Aggregated(version, proto)) => {
                return Ok(aggregated(table, false, version, proto));
            }
            (["api"], _) => discovery::api_versions(table, &self.server_address),
            (["apis"], _) => discovery::group_list(table),
            (["apis", name], _) => discovery::group(table, name).ok_or_else(missing)?,
            (["api", version], _) => discovery::resource_list(table, "", version).ok_or_else(missing)?,
            (["apis", group, version], _) => {
                discovery::resource_list(table, group, version).ok_or_else(missing)?
            }
            _ => return Err(missing()),
        };
        Ok(match form {
            Form::Protobuf => encoded(&doc, true, PROTOBUF),
            Form::Yaml => Document::new(&yaml::encode(&doc), YAML),
            _ => encoded(&doc, false, JSON),
        })
    }
}

/// Which form of a document a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Yaml,
    Protobuf,
    /// Aggregated discovery of this version; true: as protobuf.
    Aggregated(discovery::Aggregated, bool),
    /// OpenAPI as gnostic's protobuf.
    Gnostic,
}

impl Form {
    /// The first form that the client accepts, by quality and then by order; none is a 406.
    fn of(path: &str, accept: &str) -> Option<Form> {
        // Upstream asks nobody about the form of the index: clients read it whose other requests are for protobuf alone.
        if accept.trim().is_empty() || path.trim_end_matches('/') == "/openapi/v3" {
            return Some(Form::Json);
        }
        let open_api = path.starts_with("/openapi");
        negotiate::clauses(accept).find_map(|(kind, params)| {
            let any = matches!(kind, JSON | "*/*" | "application/*");
            if open_api {
                return match kind {
                    V2_PROTO | V2_PROTO_OLD if path == "/openapi/v2" => Some(Form::Gnostic),
                    V3_PROTO | V3_PROTO_OLD if path.starts_with("/openapi/v3/") => Some(Form::Gnostic),
                    _ => any.then_some(Form::Json),
                };
            }
            let params: Vec<&str> = params.split(';').map(str::trim).collect();
            if !params.iter().any(|param| param.starts_with("as=")) {
                return match kind {
                    PROTOBUF => Some(Form::Protobuf),
                    YAML => Some(Form::Yaml),
                    _ => any.then_some(Form::Json),
                };
            }
            let version = if params.contains(&"v=v2") {
                discovery::Aggregated::V2
            } else if params.contains(&"v=v2beta1") {
                discovery::Aggregated::V2Beta1
            } else {
                return None;
            };
            let asked = ["as=APIGroupDiscoveryList", "g=apidiscovery.k8s.io"];
            let aggregated = asked.iter().all(|param| params.contains(param))
                && matches!(path, "/api" | "/apis")
                && (kind == PROTOBUF || kind == JSON);
            aggregated.then_some(Form::Aggregated(version, kind == PROTOBUF))
        })
    }
}

fn encoded(doc: &Doc, as_proto: bool, media_type: &'static str) -> Document {
    let mut body = Vec::new();
    if !as_proto || proto::encode(doc, &mut body).is_err() {
        body.clear();
        json::encode_canonical(doc, EncodeOptions::FULL, &mut body);
        let media_type = if as_proto { JSON } else { media_type };
        return Document::new(&body, media_type);
    }
    Document::new(&body, media_type)
}

fn aggregated(table: &Table, core: bool, version: discovery::Aggregated, as_proto: bool) -> Document {
    let media_type = match (version, as_proto) {
        (discovery::Aggregated::V2, false) => {
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
        (discovery::Aggregated::V2, true) => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        }
        (discovery::Aggregated::V2Beta1, false) => {
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
        (discovery::Aggregated::V2Beta1, true) => {
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
        }
    };
    encoded(&discovery::aggregated(table, core, version), as_proto, media_type)
}

/// The version that the documents name and their hashes depend on.
fn build_version() -> String {
    format!("{}+keelson.{}", keelson_base::consts::KUBERNETES_VERSION, env!("CARGO_PKG_VERSION"))
}

fn open_api(table: &Table, rest: &[&str], form: Form) -> Result<Document, Status> {
    let version = build_version();
    let (encoding, media_type) = match form {
        Form::Gnostic => (openapi::Encoding::Proto, V3_PROTO),
        _ => (openapi::Encoding::Json, JSON),
    };
    let v3 = |group: &str, served: &str| {
        openapi::v3(table, group, served, &version, &Descriptions::new(), encoding)
    };
    let document = match (rest, form) {
        (["v2"], Form::Gnostic) => {
            let document = openapi::v2_proto(table, &version, &Descriptions::new());
            return Ok(Document::new(&document, V2_PROTO));
        }
        (["v2"], _) => {
            return Ok(Document::new(&openapi::v2(table, &version, &Descriptions::new()), JSON));
        }
        (["v3"], _) => {
            return Ok(Document::new(openapi::v3_index(table, &version).to_string().as_bytes(), JSON));
        }
        (["v3", "api", served], _) => v3("", served),
        (["v3", "apis", group, served], _) => v3(group, served),
        (["v3", place @ ..], _) => {
            openapi::v3_root(table, &place.join("/"), &version, &Descriptions::new(), encoding)
        }
        _ => None,
    };
    Ok(Document::new(&document.ok_or_else(Status::resource_not_found)?, media_type))
}

/// A v3 path that carries the hash that the index gave for it may be cached for ever; its ETag is that hash.
fn with_hash(mut document: Document, hash: Option<&str>, table: &Table, path: &str) -> Document {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let now = match parts.as_slice() {
        ["openapi", "v3", "api", served] => openapi::v3_hash(table, "", served, &build_version()),
        ["openapi", "v3", "apis", group, served] => openapi::v3_hash(table, group, served, &build_version()),
        ["openapi", "v3", place @ ..] if !place.is_empty() => {
            openapi::v3_root_hash(&place.join("/"), &build_version())
        }
        _ => return document,
    };
    document.immutable = hash == Some(now.as_str());
    if hash.is_some_and(|hash| hash != now) {
        document.moved_to = Some(format!("{path}?hash={now}"));
    }
    document.etag = format!("\"{now}\"");
    document
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_base::gates::Gates;
    use serde_json::Value;

    fn get(path: &str, accept: &str) -> Result<(Value, Document), u16> {
        let table = Arc::new(Table::builtin(&Gates::default()));
        let cache = Cache::new("10.0.0.1:6443".to_owned());
        let document = cache.find(&table, path, accept, None).map_err(|status| status.code)?;
        let again = cache.find(&table, path, accept, None).map_err(|status| status.code)?;
        assert_eq!(document.etag, again.etag);
        Ok((serde_json::from_slice(&document.unpacked()).unwrap_or(Value::Null), document))
    }

    fn group_version(group: &str, version: &str) -> String {
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    #[test]
    fn legacy_and_aggregated_discovery_agree() {
        let (groups, _) = get("/apis", "application/json").unwrap();
        let mut legacy = Vec::new();
        let versions = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["versions"].as_array().unwrap());
        let paths: Vec<String> = versions
            .map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap()))
            .chain(["/api/v1".to_owned()])
            .collect();
        for path in &paths {
            let (list, _) = get(path, "").unwrap();
            for resource in list["resources"].as_array().unwrap() {
                legacy.push(format!(
                    "{} {}",
                    list["groupVersion"].as_str().unwrap(),
                    resource["name"].as_str().unwrap()
                ));
            }
        }
        let mut aggregated = Vec::new();
        for path in ["/api", "/apis"] {
            let (list, document) = get(path, AGGREGATED).unwrap();
            assert_eq!(document.media_type, AGGREGATED.split(',').next().unwrap());
            for group in list["items"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    let gv = group_version(name, version["version"].as_str().unwrap());
                    for resource in version["resources"].as_array().unwrap() {
                        let plural = resource["resource"].as_str().unwrap();
                        aggregated.push(format!("{gv} {plural}"));
                        for sub in resource["subresources"].as_array().into_iter().flatten() {
                            aggregated
                                .push(format!("{gv} {plural}/{}", sub["subresource"].as_str().unwrap()));
                        }
                    }
                }
            }
        }
        // Aggregated discovery leaves out resources that only exist below another one's path.
        legacy.retain(|name| aggregated.contains(name) || !name.contains('/'));
        legacy.sort();
        aggregated.sort();
        assert_eq!(legacy, aggregated);
        assert!(
            legacy.contains(&"apps/v1 deployments/scale".to_owned()) && legacy.len() > 100,
            "{}",
            legacy.len()
        );
    }

    #[test]
    fn forms_are_negotiated() {
        let form = |path: &str, accept: &str| get(path, accept).map(|(_, document)| document.media_type);
        let v3 = "application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList";
        for (path, accept, expected) in [
            ("/apis", "application/yaml", Ok(YAML)),
            ("/apis/apps", "application/json;q=0.1, application/yaml", Ok(YAML)),
            ("/apis/apps/v1", PROTOBUF, Ok(PROTOBUF)),
            ("/apis", "text/html, */*;q=0.8", Ok(JSON)),
            ("/apis", "text/html", Err(406)),
            // A later version than there is: what else the client accepts, or nothing.
            ("/apis", v3, Err(406)),
            ("/apis", &format!("{v3},application/json"), Ok(JSON)),
            ("/apis/apps", AGGREGATED, Ok(JSON)),
            ("/openapi/v2", "text/plain", Err(406)),
            ("/openapi/v2", "application/json;as=anything", Ok(JSON)),
            ("/openapi/v3", PROTOBUF, Ok(JSON)),
            ("/openapi/v3/api/v1", "application/yaml", Err(406)),
            ("/openapi/v3/api/v1", V3_PROTO, Ok(V3_PROTO)),
            ("/openapi/v3/apis/apps", V3_PROTO_OLD, Ok(V3_PROTO)),
            ("/openapi/v3/api/v1", V2_PROTO, Err(406)),
        ] {
            assert_eq!(form(path, accept), expected, "{path} {accept}");
        }
    }

    #[test]
    fn what_is_not_there_is_404() {
        for path in
            ["/apis/none", "/apis/apps/v9", "/api/v2", "/nothing", "/openapi", "/openapi/v3/apis/apps/v9"]
        {
            assert_eq!(get(path, "").unwrap_err(), 404, "{path}");
        }
    }

    #[test]
    fn open_api_documents_are_hashed() {
        let table = Arc::new(Table::builtin(&Gates::default()));
        let cache = Cache::new(String::new());
        let index = cache.find(&table, "/openapi/v3", "", None).unwrap().unpacked();
        let index: Value = serde_json::from_slice(&index).unwrap();
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        let (path, hash) = url.split_once("?hash=").unwrap();
        let document = cache.find(&table, path, "application/json", Some(hash)).unwrap();
        assert!(document.immutable);
        let old = cache.find(&table, path, "application/json", Some("old")).unwrap();
        assert_eq!((old.immutable, old.moved_to.as_deref()), (false, Some(url)));
        let v2 = cache.find(&table, "/openapi/v2", V2_PROTO_OLD, None).unwrap();
        assert_eq!(v2.media_type, V2_PROTO);
    }
}
