//! What a request does to `metadata.managedFields` (apimachinery `managedfields/internal`): the chain of rules from the
//! manager's name to the entries written.

use std::borrow::Cow;

use compact_str::CompactString;

use super::compare::compare;
use super::field_set::field_set;
use super::managers::{self, ManagerId, Managers, Operation};
use super::set::{Filter, Set, path_text};
use super::shape::Shape;
use super::update::{Conflict, Typed, UpdateError, Updater, Versions};
use super::validate::validate;
use super::view::View;
use crate::doc::{Doc, Gvk, Map, Value};
use crate::f::meta_v1::object_meta as om;
use crate::json::{self, FieldValidation};
use crate::types::meta::ANNOTATIONS_LIMIT;

/// The annotation client-side apply keeps its configuration in.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// More updaters than these are merged, the oldest first.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const CURRENT: &str = "current-operation";
/// The manager whose client-side annotation is honoured and kept in step.
const KUBECTL: &str = "kubectl";

/// Whose write it is, and of what.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    /// The field manager's name.
    pub manager: &'r str,
    /// The version the request speaks.
    pub gvk: &'r Gvk,
    /// The shape of the object in that version.
    pub shape: Shape<'r>,
    pub subresource: &'r str,
    /// Now, RFC 3339 in whole seconds.
    pub now: &'r str,
    pub versions: &'r dyn Versions,
    /// What this resource or subresource may own.
    pub filter: Option<&'r Filter>,
}

/// Why an apply is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 400.
    #[error("{0}")]
    BadRequest(String),
    /// 409, with a cause per conflict.
    #[error("{}", conflict_text(.0))]
    Conflicts(Vec<Conflict>),
    /// 500, upstream's text.
    #[error("{0}")]
    Failed(String),
}

/// What an apply makes of the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// In the request's version, without defaults.
    pub object: Doc,
    /// Whether the configuration changed anything but ownership.
    pub changed: bool,
}

fn strip_set() -> &'static Set {
    static SET: std::sync::LazyLock<Set> = std::sync::LazyLock::new(|| {
        let mut set = Set::new();
        for path in ["apiVersion", "kind", "metadata"] {
            set = set.union(Set::field_path(&[path]));
        }
        for name in [
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        ] {
            set = set.union(Set::field_path(&["metadata", name]));
        }
        set
    });
    &SET
}

/// Sets the managers of an object that was created, updated or patched: `new` is what the client wants (after defaults,
/// before the strategy and admission), `live` what was there.
///
/// As upstream: an object whose managers are not known (because an administrator removed them) stays so until the first
/// apply; managers the client sends count, `[{}]` and `[]` remove all; what cannot be read counts as not sent. Where
/// ownership cannot be told, no managers are written rather than wrong ones.
pub fn update(request: &Request<'_>, live: Option<&Doc>, new: &mut Doc) {
    let managers = sent_or_live(request, live, new);
    managers::put_entries(new, Vec::new());
    let created = live.is_none_or(|live| live.meta().uid().is_empty());
    if managers.is_empty() && !created {
        return;
    }
    let version = request.gvk.api_version();
    let nothing = empty(request);
    let live = live.map_or(&nothing, |live| &live.root);
    let old = Typed::new(live, request.shape, &version);
    let now = Typed::new(&new.root, request.shape, &version);
    if let Ok(managers) = request.updated(&old, &now, managers, request.manager) {
        managers::put(new, &managers);
    }
}

fn empty(request: &Request<'_>) -> Value {
    match request.shape {
        Shape::Struct(ty) => Value::Struct(crate::doc::Struct::new(ty)),
        _ => Value::Map(Map::new()),
    }
}

fn sent_or_live(request: &Request<'_>, live: Option<&Doc>, new: &Doc) -> Managers {
    let of_live = || live.and_then(|live| managers::decode(live.meta().managed_fields()).ok());
    if !request.subresource.is_empty() {
        return of_live().unwrap_or_default();
    }
    if resets(new) {
        return Managers::new();
    }
    match managers::decode(new.meta().managed_fields()) {
        Ok(sent) if !sent.is_empty() => sent,
        _ => of_live().unwrap_or_default(),
    }
}

/// `managedFields: []` and `managedFields: [{}]` ask for all managers to go.
fn resets(doc: &Doc) -> bool {
    let Some(Value::List(entries)) = doc.meta().as_struct().and_then(|meta| meta.get(om::MANAGED_FIELDS))
    else {
        return false;
    };
    match entries.as_slice() {
        [] => true,
        [Value::Struct(entry)] => entry.is_empty(),
        _ => false,
    }
}

impl Request<'_> {
    fn updater<'u>(&'u self, filter: &'u dyn Fn(&str) -> Option<&'u Filter>) -> Updater<'u> {
        Updater { versions: self.versions, filter }
    }

    /// The managers after an update by `name`.
    fn updated(
        &self,
        live: &Typed<'_>,
        new: &Typed<'_>,
        managers: Managers,
        name: &str,
    ) -> Result<Managers, UpdateError> {
        let version = self.gvk.api_version();
        let id = ManagerId::of(name, Operation::Update, &version, self.subresource);
        // Under a name of its own first: what this write changes is told from what its manager owns already.
        let current = ManagerId { manager: CURRENT.into(), ..ManagerId::default() };
        let filter = |_: &str| self.filter;
        let mut managers = self.updater(&filter).update(live, new, managers, &current)?;
        strip(&mut managers, &current);
        if let Some(mut owned) = managers.remove(&current) {
            if let Some(known) = managers.remove(&id) {
                owned.set = owned.set.union(known.set);
            }
            owned.time = Some(self.now.into());
            managers.insert(id, owned);
        }
        cap_updaters(&mut managers, MAX_UPDATERS);
        Ok(managers)
    }
}

fn strip(managers: &mut Managers, id: &ManagerId) {
    if let Some(owned) = managers.get_mut(id) {
        owned.set = std::mem::take(&mut owned.set).without(strip_set());
        if owned.set.is_empty() {
            managers.remove(id);
        }
    }
}

/// Merges the oldest updaters, by version, until there are no more than `most`.
pub fn cap_updaters(managers: &mut Managers, most: usize) {
    let updaters = managers.iter().filter(|(_, owned)| !owned.applied);
    let mut updaters: Vec<(CompactString, ManagerId)> = updaters
        .map(|(id, owned)| {
            let time = owned.time.clone().unwrap_or_else(|| "1970-01-01T00:00:00Z".into());
            (time, id.clone())
        })
        .collect();
    let mut count = updaters.len();
    if count <= most {
        return;
    }
    updaters.sort();
    let mut firsts: Vec<(CompactString, ManagerId)> = Vec::new();
    for (_, id) in updaters {
        if count <= most {
            return;
        }
        let Some(version) = managers.get(&id).map(|owned| owned.api_version.clone()) else { continue };
        let bucket = ManagerId {
            manager: ANCIENT.into(),
            operation: Operation::Update,
            api_version: version.clone(),
            subresource: CompactString::default(),
        };
        let Some((_, first)) = firsts.iter().find(|(known, _)| *known == version) else {
            firsts.push((version, id));
            continue;
        };
        if !managers.contains_key(&bucket)
            && let Some(owned) = managers.remove(first)
        {
            managers.insert(bucket.clone(), owned);
        }
        if let Some(owned) = managers.remove(&id)
            && let Some(kept) = managers.get_mut(&bucket)
        {
            kept.set = std::mem::take(&mut kept.set).union(owned.set);
            kept.time = owned.time;
            count -= 1;
        }
    }
}

/// Applies a configuration (untyped, as the client sent it) to the live object; `live` is an empty object where there is
/// none yet. Both are of the request's version.
pub fn apply(request: &Request<'_>, live: &Doc, config: &Value, force: bool) -> Result<Applied, ApplyError> {
    check_type(request, config)?;
    let names = names(request, config);
    let version = request.gvk.api_version();
    let mut managers = managers::decode(live.meta().managed_fields())
        .map_err(|error| ApplyError::Failed(format!("failed to decode managed fields: {error}")))?;
    // The entries are written anew below; the walks need not carry them along.
    let mut bare = live.clone();
    managers::put_entries(&mut bare, Vec::new());
    let old = Typed::new(&bare.root, request.shape, &version);
    if managers.is_empty() {
        let nothing = empty(request);
        let nothing = Typed::new(&nothing, request.shape, &version);
        managers = request.updated(&nothing, &old, managers, BEFORE_FIRST_APPLY).map_err(|error| {
            ApplyError::Failed(format!("failed to create manager for existing fields: {error}"))
        })?;
    }
    let body = without_type(config);
    if body.get("metadata").and_then(Value::as_map).is_some_and(|meta| meta.contains_key("managedFields")) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let body = Value::Map(body);
    validate(View::Value(&body), request.shape, false).map_err(|error| {
        ApplyError::Failed(format!("failed to create typed patch object ({names}): {error}"))
    })?;
    let wanted = Typed::new(&body, request.shape, &version);
    let filter = |_: &str| request.filter;
    let updater = request.updater(&filter);
    let id = ManagerId::of(request.manager, Operation::Apply, &version, request.subresource);
    let mut result = updater.apply(&old, &wanted, managers.clone(), &id, force);
    if let Err(UpdateError::Conflicts(conflicts)) = &result
        && request.manager == KUBECTL
        && let Some(allowed) = last_applied_set(request, live)
    {
        let left: Vec<Conflict> =
            conflicts.iter().filter(|conflict| !allowed.has(&conflict.path)).cloned().collect();
        result = if left.is_empty() {
            updater.apply(&old, &wanted, managers, &id, true)
        } else {
            Err(UpdateError::Conflicts(left))
        };
    }
    let (value, mut managers) = result.map_err(|error| match error {
        UpdateError::Conflicts(conflicts) => ApplyError::Conflicts(conflicts),
        other => ApplyError::Failed(other.to_string()),
    })?;
    // Large ones need not be held beside the object that is read below.
    drop(body);
    strip(&mut managers, &id);
    let changed = value.is_some();
    let mut object = match value {
        None => bare,
        Some(value) => {
            drop(bare);
            if let Some(owned) = managers.get_mut(&id) {
                owned.time = Some(request.now.into());
            }
            typed(request, value, &names)?
        }
    };
    if request.manager == KUBECTL
        && object.meta().annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty())
    {
        set_last_applied(&mut object, config);
    }
    managers::put(&mut object, &managers);
    Ok(Applied { object, changed })
}

/// `namespace/name; group/version, Kind=kind`, as upstream's messages name an object.
fn names(request: &Request<'_>, config: &Value) -> String {
    let meta = config.as_map().and_then(|config| config.get("metadata")).and_then(Value::as_map);
    let text = |name: &str| meta.and_then(|meta| meta.get_str(name)).unwrap_or_default().to_owned();
    let Gvk { group, version, kind } = request.gvk;
    format!("{}/{}; {group}/{version}, Kind={kind}", text("namespace"), text("name"))
}

fn check_type(request: &Request<'_>, config: &Value) -> Result<(), ApplyError> {
    let text = |name: &str| config.as_map().and_then(|config| config.get_str(name)).unwrap_or_default();
    let said = Gvk::from_api_version(text("apiVersion"), text("kind"));
    if said == *request.gvk {
        return Ok(());
    }
    Err(ApplyError::BadRequest(format!(
        "invalid object type: {}/{}, Kind={}",
        said.group, said.version, said.kind
    )))
}

fn without_type(config: &Value) -> Map {
    let mut body = config.as_map().cloned().unwrap_or_default();
    body.remove("apiVersion");
    body.remove("kind");
    body
}

/// A merged object, read by its type.
fn typed(request: &Request<'_>, value: Value, names: &str) -> Result<Doc, ApplyError> {
    let mut bytes = Vec::with_capacity(2048);
    json::encode_value(&value, &mut bytes);
    drop(value);
    let ty = match request.shape {
        Shape::Struct(ty) => Some(ty),
        _ => None,
    };
    let (mut doc, _) = json::decode_any(ty, &bytes, FieldValidation::Ignore).map_err(|error| {
        ApplyError::Failed(format!("failed to convert new object ({names}) to proper version: {error}"))
    })?;
    doc.gvk = request.gvk.clone();
    Ok(doc)
}

/// The fields that client-side apply set and that are as it set them: what `kubectl` may take over without force.
fn last_applied_set(request: &Request<'_>, live: &Doc) -> Option<Set> {
    let text = live.meta().annotation(LAST_APPLIED).filter(|text| !text.is_empty())?;
    let config = json::decode_untyped(text.as_bytes()).ok()?;
    if config.as_map()?.get_str("apiVersion")? != request.gvk.api_version() {
        return None;
    }
    let config = Value::Map(without_type(&config));
    validate(View::Value(&config), request.shape, false).ok()?;
    let fields = field_set(View::Value(&config), request.shape).ok()?;
    let change = compare(View::Value(&config), View::Value(&live.root), request.shape).ok()?;
    Some(fields.without(&change.modified).without(&change.added).without(&change.removed))
}

/// Keeps the client-side annotation in step with what was applied; one that grows too large goes.
fn set_last_applied(object: &mut Doc, config: &Value) {
    let mut config = Cow::Borrowed(config);
    if let Value::Map(map) = config.to_mut()
        && let Some(Value::Map(meta)) = map.get_mut("metadata")
        && let Some(Value::Map(annotations)) = meta.get_mut("annotations")
    {
        annotations.remove(LAST_APPLIED);
    }
    let mut text = Vec::new();
    json::encode_value(&config, &mut text);
    text.push(b'\n');
    let text = String::from_utf8_lossy(&text).into_owned();
    let others: usize = object
        .meta()
        .annotations()
        .into_iter()
        .flat_map(Map::str_pairs)
        .filter(|(key, _)| *key != LAST_APPLIED)
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let mut meta = object.meta_mut();
    if others + LAST_APPLIED.len() + text.len() > ANNOTATIONS_LIMIT {
        meta.remove_annotation(LAST_APPLIED);
    } else {
        meta.set_annotation(LAST_APPLIED, &text);
    }
}

/// The message of a refused apply: one conflict in a line, several by manager.
pub fn conflict_text(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: {one}");
    }
    let mut by_manager: std::collections::BTreeMap<&ManagerId, Vec<String>> = Default::default();
    for conflict in conflicts {
        by_manager.entry(&conflict.manager).or_default().push(format!("- {}", path_text(&conflict.path)));
    }
    let lines: Vec<String> = by_manager
        .into_iter()
        .flat_map(|(manager, paths)| {
            std::iter::once(format!("conflicts with {}:", manager.text())).chain(paths)
        })
        .collect();
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
