//! Warnings about files of a volume that lie in each other's way.

use crate::doc::Struct;
use crate::f::core_v1 as c;
use crate::field_errors::quoted;
use crate::schema::Field;
use crate::types::walk::{present, structs};

/// A file's path in a volume and where it comes from.
#[derive(Clone, PartialEq)]
struct Item {
    path: String,
    source: String,
}

impl Item {
    fn text(&self) -> String {
        if self.source.is_empty() {
            quoted(&self.path)
        } else {
            format!("{} ({})", quoted(&self.path), self.source)
        }
    }

    fn collides(&self, other: &Item) -> bool {
        let (a, b) = (format!("{}/", self.path), format!("{}/", other.path));
        !self.path.is_empty() && !other.path.is_empty() && (a.starts_with(&b) || b.starts_with(&a))
    }
}

fn items(of: &Struct, list: Field, path: Field, source: &str) -> Vec<Item> {
    structs(of, list)
        .map(|(_, item)| Item { path: item.str(path).to_owned(), source: source.to_owned() })
        .collect()
}

/// Adds the items to those known, reporting each collision as `A with B`.
fn check(known: &mut Vec<Item>, new: Vec<Item>, mut report: impl FnMut(String)) {
    for mut item in new {
        item.path.truncate(item.path.trim_end_matches('/').len());
        for other in known.iter().filter(|other| item.collides(other)) {
            report(format!("{} with {}", item.text(), other.text()));
        }
        known.push(item);
    }
}

/// Warnings about all volumes of a pod spec.
pub(super) fn overlapping(spec: &Struct, out: &mut Vec<String>) {
    use c::volume as v;
    for (_, volume) in structs(spec, c::pod_spec::VOLUMES) {
        let name = volume.str(v::NAME);
        let mut alone = |what: String, found: Vec<Item>| {
            check(&mut Vec::new(), found, |text| {
                out.push(format!("volume {} ({what}): overlapping paths: {text}", quoted(name)));
            });
        };
        if let Some(source) = volume.child(v::CONFIG_MAP) {
            use c::config_map_volume_source as s;
            alone(
                format!("ConfigMap {}", quoted(source.str(s::NAME))),
                items(source, s::ITEMS, c::key_to_path::PATH, ""),
            );
        }
        if let Some(source) = volume.child(v::SECRET) {
            use c::secret_volume_source as s;
            alone(
                format!("Secret {}", quoted(source.str(s::SECRET_NAME))),
                items(source, s::ITEMS, c::key_to_path::PATH, ""),
            );
        }
        if let Some(source) = volume.child(v::DOWNWARD_API) {
            use c::downward_api_volume_source as s;
            alone("DownwardAPI".to_owned(), items(source, s::ITEMS, c::downward_api_volume_file::PATH, ""));
        }
        if let Some(source) = volume.child(v::PROJECTED) {
            projected(source, name, out);
        }
    }
}

fn projected(source: &Struct, name: &str, out: &mut Vec<String>) {
    let mut known = Vec::new();
    for (_, one) in structs(source, c::projected_volume_source::SOURCES) {
        let Some(found) = sources(one) else {
            out.push(format!("volume {} (Projected) has no sources provided", quoted(name)));
            continue;
        };
        check(&mut known, found, |text| {
            out.push(format!("volume {} (Projected): overlapping paths: {text}", quoted(name)));
        });
    }
}

/// The files of one projected source, `None` where it names none.
fn sources(one: &Struct) -> Option<Vec<Item>> {
    use c::volume_projection as p;
    let file = |path: &str, source: String| vec![Item { path: path.to_owned(), source }];
    if let Some(map) = one.child(p::CONFIG_MAP) {
        use c::config_map_projection as s;
        let source = format!("ConfigMap {}", quoted(map.str(s::NAME)));
        return Some(items(map, s::ITEMS, c::key_to_path::PATH, &source));
    }
    if let Some(secret) = one.child(p::SECRET) {
        use c::secret_projection as s;
        let source = format!("Secret {}", quoted(secret.str(s::NAME)));
        return Some(items(secret, s::ITEMS, c::key_to_path::PATH, &source));
    }
    if let Some(downward) = one.child(p::DOWNWARD_API) {
        let list = c::downward_api_projection::ITEMS;
        return Some(items(downward, list, c::downward_api_volume_file::PATH, "DownwardAPI"));
    }
    if let Some(token) = one.child(p::SERVICE_ACCOUNT_TOKEN) {
        let path = token.str(c::service_account_token_projection::PATH);
        return Some(file(path, "ServiceAccountToken".to_owned()));
    }
    if let Some(bundle) = one.child(p::CLUSTER_TRUST_BUNDLE) {
        use c::cluster_trust_bundle_projection as s;
        let name = if present(bundle, s::NAME) { bundle.str(s::NAME) } else { bundle.str(s::SIGNER_NAME) };
        return Some(file(bundle.str(s::PATH), format!("ClusterTrustBundle {}", quoted(name))));
    }
    if let Some(certificate) = one.child(p::POD_CERTIFICATE) {
        use c::pod_certificate_projection as s;
        let files = [
            (s::CERTIFICATE_CHAIN_PATH, "PodCertificate chain"),
            (s::KEY_PATH, "PodCertificate key"),
            (s::CREDENTIAL_BUNDLE_PATH, "PodCertificate credential bundle"),
        ];
        let given = files.into_iter().filter(|(field, _)| !certificate.str(*field).is_empty());
        return Some(
            given.flat_map(|(field, source)| file(certificate.str(field), source.to_owned())).collect(),
        );
    }
    None
}
