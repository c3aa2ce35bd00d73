//! The folder of manifests: what lies there is in the cluster, by server-side apply, and goes with its file. Each control
//! plane keeps its own folder, and notes what came from it in a ConfigMap before it is made, so that nothing is forgotten
//! and nothing of anybody else's is ever removed.

use super::{Notices, Stamp, back_off, files};
use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::ConfigMap;
use keelson_daemon::Context;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiResource, Scope, pinned_kind};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Manifests end so.
pub const ENDS: [&str; 3] = [".yaml", ".yml", ".json"];
/// The owner of the fields that are set.
const MANAGER: &str = "keelson-manifests";
const NAMESPACE: &str = "kube-system";
/// What somebody changed meanwhile is set right again after this. Where nothing differs nothing is written.
const IDLE: Duration = Duration::from_secs(600);
/// No manifest file is longer.
const LONGEST: u64 = 8 << 20;

/// An object, by what finds it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_version: String,
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
}

/// What came from each file, by its name.
type Inventory = BTreeMap<String, BTreeSet<Reference>>;

/// Objects of the inventory that no file holds any more; of a file that cannot be read everything stays.
fn superfluous(inventory: &Inventory, wanted: &Inventory, unreadable: &BTreeSet<String>) -> Vec<Reference> {
    let still: BTreeSet<&Reference> = wanted.values().flatten().collect();
    let of_unreadable: BTreeSet<&Reference> =
        inventory.iter().filter(|(file, _)| unreadable.contains(*file)).flat_map(|(_, held)| held).collect();
    let mut gone: Vec<Reference> = inventory
        .values()
        .flatten()
        .filter(|one| !still.contains(one) && !of_unreadable.contains(one))
        .cloned()
        .collect();
    gone.sort();
    gone.dedup();
    gone
}

/// The objects of a file: YAML documents or JSON, lists taken apart.
pub fn objects(path: &Path) -> Result<Vec<Value>> {
    let meta = std::fs::metadata(path)?;
    anyhow::ensure!(meta.len() <= LONGEST, "it is longer than {} MiB", LONGEST >> 20);
    parse(&std::fs::read_to_string(path)?)
}

/// A file's name is a key of the inventory.
fn named(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    anyhow::ensure!(name.bytes().all(plain), "its name may hold letters, digits, '-', '_' and '.' alone");
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("it is no YAML: {error}"))?;
    let mut found = Vec::new();
    for mut document in documents.into_iter().filter(|document| !document.is_null()) {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if kind.ends_with("List") => found.extend(items),
            Some(items) => {
                document["items"] = items;
                found.push(document);
            }
            None => found.push(document),
        }
    }
    for object in &found {
        reference(object, "")?;
    }
    Ok(found)
}

/// What finds an object again; `namespace` where it names none.
fn reference(object: &Value, namespace: &str) -> Result<Reference> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
        bail!("an object has no apiVersion or no kind");
    };
    let Some(name) = text("/metadata/name") else { bail!("a {kind} has no metadata.name") };
    Ok(Reference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: text("/metadata/namespace").unwrap_or(namespace).to_owned(),
        name: name.to_owned(),
    })
}

/// Keeps the cluster in step until the drain.
pub async fn keep(client: kube::Client, folder: PathBuf, node: String, context: Context) -> Result<()> {
    let folders = vec![folder];
    let mut notices = Notices::of(folders.clone());
    let mut seen: Option<BTreeMap<PathBuf, Stamp>> = None;
    let mut failures = 0;
    loop {
        let found = files(&folders, &ENDS);
        // A cluster without the folder's use is asked nothing.
        let used = !found.is_empty() || seen.as_ref().is_none_or(|before| !before.is_empty());
        let failed = match used {
            false => Vec::new(),
            true => match context.drain.until(step(&client, &node, &found)).await {
                None => return Ok(()),
                Some(Ok(failed)) => failed,
                Some(Err(error)) => vec![format!("{error:#}")],
            },
        };
        for error in &failed {
            tracing::warn!(error, "the folder of manifests and the cluster are not in step; trying again");
        }
        failures = if failed.is_empty() { 0 } else { failures + 1 };
        if failed.is_empty() {
            seen = Some(found);
        }
        let limit = if failures == 0 { IDLE } else { back_off(failures - 1) };
        if notices.wait(limit, &context.drain).await.is_none() {
            return Ok(());
        }
    }
}

/// One pass. What could not be done.
async fn step(client: &kube::Client, node: &str, found: &BTreeMap<PathBuf, Stamp>) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    let (mut read, mut unreadable) = (Vec::new(), BTreeSet::new());
    for path in found.keys() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match named(&name).and_then(|()| objects(path)) {
            Ok(objects) => read.push((name, objects)),
            Err(error) => {
                failed.push(format!("{}: {error:#}", path.display()));
                unreadable.insert(name);
            }
        }
    }
    let inventory = inventory(client, node).await?;
    if read.is_empty() && inventory.is_empty() {
        return Ok(failed);
    }
    let mut kinds = Kinds { client, known: BTreeMap::new() };
    let mut wanted = Inventory::new();
    let mut applying = Vec::new();
    for (file, objects) in read {
        let held = wanted.entry(file.clone()).or_default();
        for object in objects {
            match kinds.find(&object).await {
                Ok((resource, namespaced)) => {
                    let one = reference(&object, if namespaced { "default" } else { "" })?;
                    held.insert(one.clone());
                    applying.push((file.clone(), one, resource, object));
                }
                // Its definition may be in this folder too, and come to be served in a moment.
                Err(error) => {
                    failed.push(format!("{file}: {error:#}"));
                    held.extend(inventory.get(&file).into_iter().flatten().cloned());
                }
            }
        }
    }
    let mut both = inventory.clone();
    for (file, held) in &wanted {
        both.entry(file.clone()).or_default().extend(held.iter().cloned());
    }
    note(client, node, &inventory, &both).await?;
    for (file, one, resource, object) in applying {
        if let Err(error) = apply(client, &one, &resource, &object).await {
            failed.push(format!("{file}: {} {}: {error}", one.kind, one.name));
        }
    }
    let mut left = BTreeSet::new();
    for one in superfluous(&inventory, &wanted, &unreadable) {
        if let Err(error) = remove(&mut kinds, &one).await {
            failed.push(format!("{} {} cannot be removed: {error:#}", one.kind, one.name));
            left.insert(one);
        }
    }
    for (file, held) in &inventory {
        let kept = held.iter().filter(|one| left.contains(one) || unreadable.contains(file)).cloned();
        wanted.entry(file.clone()).or_default().extend(kept);
    }
    wanted.retain(|_, held| !held.is_empty());
    note(client, node, &both, &wanted).await?;
    Ok(failed)
}

/// Which resources kinds are, asked once a pass.
struct Kinds<'a> {
    client: &'a kube::Client,
    known: BTreeMap<(String, String), (ApiResource, bool)>,
}

impl Kinds<'_> {
    async fn find(&mut self, object: &Value) -> Result<(ApiResource, bool)> {
        let one = reference(object, "")?;
        self.of(&one.api_version, &one.kind).await
    }

    /// The resource, and whether its objects lie in namespaces.
    async fn of(&mut self, api_version: &str, kind: &str) -> Result<(ApiResource, bool)> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(found) = self.known.get(&key) {
            return Ok(found.clone());
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let asked = pinned_kind(self.client, &GroupVersionKind::gvk(group, version, kind)).await;
        let (resource, capabilities) =
            asked.with_context(|| format!("kind {kind} of {api_version} is not served"))?;
        let found = (resource, capabilities.scope == Scope::Namespaced);
        self.known.insert(key, found.clone());
        Ok(found)
    }
}

fn api(client: &kube::Client, one: &Reference, resource: &ApiResource) -> Api<DynamicObject> {
    match one.namespace.as_str() {
        "" => Api::all_with(client.clone(), resource),
        namespace => Api::namespaced_with(client.clone(), namespace, resource),
    }
}

async fn apply(
    client: &kube::Client,
    one: &Reference,
    resource: &ApiResource,
    object: &Value,
) -> kube::Result<()> {
    let parameters = PatchParams::apply(MANAGER).force();
    api(client, one, resource).patch(&one.name, &parameters, &Patch::Apply(object)).await.map(drop)
}

async fn remove(kinds: &mut Kinds<'_>, one: &Reference) -> Result<()> {
    let (group, version) = one.api_version.split_once('/').unwrap_or(("", &one.api_version));
    let found = pinned_kind(kinds.client, &GroupVersionKind::gvk(group, version, &one.kind)).await;
    let resource = match found {
        Ok((resource, _)) => resource,
        // Its definition went, and it with that.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(kube::Error::Discovery(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match api(kinds.client, one, &resource).delete(&one.name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => {
            tracing::info!(
                kind = one.kind,
                namespace = one.namespace,
                name = one.name,
                "an object went with its manifest"
            );
            Ok(())
        }
    }
}

fn map_name(node: &str) -> String {
    format!("{MANAGER}-{node}")
}

async fn inventory(client: &kube::Client, node: &str) -> Result<Inventory> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let found = maps.get_opt(&map_name(node)).await.context("the inventory of manifests cannot be read")?;
    let mut inventory = Inventory::new();
    for (file, text) in found.and_then(|map| map.data).unwrap_or_default() {
        let held = serde_json::from_str(&text)
            .with_context(|| format!("the inventory {NAMESPACE}/{} is damaged at {file}", map_name(node)))?;
        inventory.insert(file, held);
    }
    Ok(inventory)
}

async fn note(client: &kube::Client, node: &str, before: &Inventory, now: &Inventory) -> Result<()> {
    if before == now {
        return Ok(());
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let mut data = serde_json::Map::new();
    for (file, held) in now {
        data.insert(file.clone(), serde_json::to_string(held)?.into());
    }
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map_name(node)}, "data": data});
    let written = maps.patch(&map_name(node), &PatchParams::apply(MANAGER).force(), &Patch::Apply(map)).await;
    written.map(drop).context("the inventory of manifests cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_documents_and_lists() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: a}}\n";
        let found = parse(text).unwrap();
        let references: Vec<Reference> = found.iter().map(|one| reference(one, "default").unwrap()).collect();
        let texts: Vec<String> = references
            .iter()
            .map(|one| format!("{} {} {}/{}", one.api_version, one.kind, one.namespace, one.name))
            .collect();
        assert_eq!(texts, ["v1 Namespace default/a", "apps/v1 Deployment a/b"]);
        assert_eq!(
            parse(r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#).unwrap().len(),
            1
        );
        for (bad, words) in [
            ("a: [", "no YAML"),
            ("kind: Pod", "no apiVersion"),
            ("apiVersion: v1\nkind: Pod", "a Pod has no metadata.name"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn what_no_file_holds_goes_unless_a_file_cannot_be_read() {
        let one = |name: &str| Reference {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            namespace: "default".into(),
            name: name.into(),
        };
        let of = |files: &[(&str, &[&str])]| -> Inventory {
            files
                .iter()
                .map(|(file, names)| ((*file).to_owned(), names.iter().map(|name| one(name)).collect()))
                .collect()
        };
        let inventory =
            of(&[("a.yaml", &["kept", "gone", "moved"]), ("b.yaml", &["unread"]), ("c.yaml", &["removed"])]);
        let wanted = of(&[("a.yaml", &["kept", "new"]), ("d.yaml", &["moved"])]);
        let gone = superfluous(&inventory, &wanted, &["b.yaml".to_owned()].into());
        assert_eq!(gone, [one("gone"), one("removed")]);
    }
}
