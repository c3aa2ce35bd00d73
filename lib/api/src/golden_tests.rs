//! Every fully populated upstream object through the codecs (see the folder's README).
//!
//! The `.after_roundtrip.` pairs beside some objects are what the next minor makes of them (it dropped `workloadRef` and added
//! `stubPKCS10Request`); at v1.35 these objects come back as they are, so the pairs are not used.

use std::path::PathBuf;

use keelson_base::gates::Gates;

use crate::doc::{Doc, Gvk};
use crate::json::{self, EncodeOptions, FieldValidation};
use crate::proto;
use crate::schema::TypeId;
use crate::t;
use crate::table::Table;
use crate::types::convert::convert;

/// Where the golden objects lie: `$KEELSON_GOLDEN`, or `shared/golden` beside the repository.
fn golden_folder() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let beside = root.ancestors().skip(2).take(4).map(|at| at.join("shared/golden"));
    std::env::var_os("KEELSON_GOLDEN").map(PathBuf::from).into_iter().chain(beside).find(|path| path.is_dir())
}

struct Golden {
    name: String,
    ty: TypeId,
    json: Vec<u8>,
    proto: Vec<u8>,
}

fn golden() -> Vec<Golden> {
    let Some(folder) = golden_folder() else {
        println!(
            "SKIPPED: no golden objects: set KEELSON_GOLDEN to the folder or put it at ../shared/golden"
        );
        return Vec::new();
    };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the golden folder") {
        let path = entry.expect("an entry").path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".json").filter(|name| !name.ends_with(".after_roundtrip")) else {
            continue;
        };
        let (rest, kind) = name.rsplit_once('.').expect("group.version.kind");
        let (group, version) = rest.rsplit_once('.').expect("group.version");
        let group = if group == "core" { "" } else { group };
        let ty = TypeId::by_gvk(group, version, kind).unwrap_or_else(|| panic!("no type for {name}"));
        let read = |suffix: &str| std::fs::read(folder.join(format!("{name}{suffix}"))).ok();
        let json = read(".json").expect("the JSON");
        let proto = read(".pb").expect("the protobuf");
        all.push(Golden { name: name.to_owned(), ty, json, proto });
    }
    assert!(all.len() > 150, "only {} golden objects", all.len());
    all
}

/// Fails with every difference at once.
fn report(wrong: Vec<String>, total: usize) {
    assert!(wrong.is_empty(), "{} of {total} objects differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn first_difference(a: &[u8], b: &[u8]) -> String {
    let at = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let window = |bytes: &[u8]| {
        String::from_utf8_lossy(&bytes[at.saturating_sub(60).min(bytes.len())..(at + 60).min(bytes.len())])
            .into_owned()
    };
    format!("at {at}:\n    got  {:?}\n    want {:?}", window(a), window(b))
}

/// The expected JSON in our form: no white space, not HTML-escaped.
fn normal(json: &[u8]) -> Vec<u8> {
    let value: Ordered = serde_json::from_slice(json).expect("golden JSON");
    serde_json::to_vec(&value).expect("JSON")
}

/// JSON that keeps the order of keys.
enum Ordered {
    Leaf(serde_json::Value),
    List(Vec<Ordered>),
    Map(Vec<(String, Ordered)>),
}

impl<'de> serde::Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Ordered, D::Error> {
        struct V;
        impl<'de> serde::de::Visitor<'de> for V {
            type Value = Ordered;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(v.into()))
            }
            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Leaf(serde_json::Value::Null))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Ordered, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Ordered::List(items))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered::Map(entries))
            }
        }
        d.deserialize_any(V)
    }
}

impl serde::Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Ordered::Leaf(leaf) => leaf.serialize(s),
            Ordered::List(items) => s.collect_seq(items),
            Ordered::Map(entries) => s.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

#[test]
fn json_comes_back_as_it_went_in() {
    let all = golden();
    let mut wrong = Vec::new();
    for one in &all {
        match json::decode(one.ty, &one.json, FieldValidation::Strict) {
            Err(e) => wrong.push(format!("{}: {e}", one.name)),
            Ok((doc, _)) => {
                let mut out = Vec::new();
                json::encode_canonical(&doc, EncodeOptions::FULL, &mut out);
                let want = normal(&one.json);
                if out != want {
                    wrong.push(format!("{} {}", one.name, first_difference(&out, &want)));
                }
            }
        }
    }
    report(wrong, all.len());
}

#[test]
fn json_to_protobuf_byte_for_byte() {
    let all = golden();
    let mut wrong = Vec::new();
    for one in &all {
        let mut out = Vec::new();
        let encoded = json::decode(one.ty, &one.json, FieldValidation::Strict)
            .map_err(|e| e.to_string())
            .and_then(|(doc, _)| proto::encode(&doc, &mut out).map_err(|e| e.to_string()));
        match encoded {
            Err(e) => wrong.push(format!("{}: {e}", one.name)),
            Ok(()) if out != one.proto => {
                wrong.push(format!("{} {}", one.name, first_difference(&out, &one.proto)))
            }
            Ok(()) => {}
        }
    }
    report(wrong, all.len());
}

#[test]
fn protobuf_to_json_and_back() {
    let all = golden();
    let mut wrong = Vec::new();
    for one in &all {
        match proto::decode(one.ty, &one.proto) {
            Err(e) => wrong.push(format!("{}: {e}", one.name)),
            Ok(doc) => {
                let mut out = Vec::new();
                json::encode_canonical(&doc, EncodeOptions::FULL, &mut out);
                let want = normal(&one.json);
                if out != want {
                    wrong.push(format!("{} {}", one.name, first_difference(&out, &want)));
                }
                let mut again = Vec::new();
                if proto::encode(&doc, &mut again).is_err() || again != one.proto {
                    wrong.push(format!(
                        "{} protobuf again {}",
                        one.name,
                        first_difference(&again, &one.proto)
                    ));
                }
            }
        }
    }
    report(wrong, all.len());
}

/// The object in another version, as the API server converts.
fn converted(doc: &Doc, ty: TypeId, gvk: &Gvk) -> Doc {
    let mut out = convert(doc, ty).unwrap_or_else(|| {
        let mut bytes = Vec::new();
        json::encode_canonical(doc, EncodeOptions { type_meta: false, resource_version: true }, &mut bytes);
        json::decode(ty, &bytes, FieldValidation::Ignore).expect("a decoded object").0
    });
    out.gvk = gvk.clone();
    out
}

/// Every version a type is or can be served in, to the version it is stored in and back; and the other way around.
#[test]
fn served_versions_convert_there_and_back() {
    let all = golden();
    let mut gates = Gates::default();
    for gate in ["ClusterTrustBundle", "CoordinatedLeaderElection", "MutatingAdmissionPolicy"] {
        gates.set(gate, true).expect("a gate");
    }
    let table = Table::with_versions(&gates, |_, _| Some(true));
    let (mut wrong, mut pairs) = (Vec::new(), 0);
    for row in table.rows().iter().filter(|row| row.stored && !row.is_hub()) {
        let (Some(ty), Some(hub)) = (row.ty, row.storage_ty()) else { continue };
        for (start, other, other_gvk) in [(ty, hub, row.storage_gvk()), (hub, ty, row.gvk())] {
            // This one's metrics are of no kind that v1 has; those of autoscaling/v2's kinds are in `types::convert`'s tests.
            if start == t::autoscaling_v2::HORIZONTAL_POD_AUTOSCALER {
                continue;
            }
            let Some(one) = all.iter().find(|one| one.ty == start) else { continue };
            pairs += 1;
            let (doc, _) = json::decode(one.ty, &one.json, FieldValidation::Strict).expect("a golden object");
            let there = converted(&doc, other, &other_gvk);
            let mut back = converted(&there, start, &doc.gvk);
            // Upstream keeps the raw metrics of a status there even where v1 has a field for them.
            if start == t::autoscaling_v1::HORIZONTAL_POD_AUTOSCALER {
                back.meta_mut().remove_annotation("autoscaling.alpha.kubernetes.io/current-metrics");
            }
            let text = |doc: &Doc| {
                let mut out = Vec::new();
                json::encode_canonical(doc, EncodeOptions::FULL, &mut out);
                out
            };
            let (got, want) = (text(&back), text(&doc));
            if got != want {
                wrong.push(format!(
                    "{} through {} {}",
                    one.name,
                    row.api_version(),
                    first_difference(&got, &want)
                ));
            }
        }
    }
    assert!(all.is_empty() || pairs > 20, "only {pairs} conversions");
    report(wrong, pairs);
}
