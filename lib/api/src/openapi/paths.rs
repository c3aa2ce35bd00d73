//! Paths and operations of the table's rows, and of what names no resource.

use std::collections::BTreeSet;

use super::schemas;
use crate::schema::Verbs;
use crate::table::{Resource, Subresource, Table};

/// One path with its operations.
pub(super) struct PathItem {
    pub(super) path: String,
    pub(super) params: Vec<Param>,
    pub(super) ops: Vec<Op>,
}

pub(super) struct Op {
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) action: &'static str,
    pub(super) description: String,
    pub(super) params: &'static [Param],
    pub(super) body: Option<Body>,
    /// The definition of the answer; `None`: a string.
    pub(super) response: Option<String>,
    /// Codes beside 200 that are answered with the same.
    pub(super) also: &'static [u16],
    pub(super) consumes: &'static [&'static str],
    pub(super) produces: &'static [&'static str],
    pub(super) tag: String,
    /// Group, version, kind.
    pub(super) gvk: Option<(String, String, String)>,
}

const ANY: &[&str] = &["*/*"];
const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOGS: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const CUSTOM: &[&str] = &["application/json", "application/yaml"];

pub(super) enum Body {
    Object(String),
    Patch { strategic: bool },
    Options,
}

#[derive(Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) place: &'static str,
    pub(super) ty: &'static str,
    pub(super) description: &'static str,
    pub(super) required: bool,
}

const fn query(name: &'static str, ty: &'static str, description: &'static str) -> Param {
    Param { name, place: "query", ty, description, required: false }
}

const fn in_path(name: &'static str, description: &'static str) -> Param {
    Param { name, place: "path", ty: "string", description, required: true }
}

const DRY_RUN: Param = query("dryRun", "string", "All: every stage runs and nothing is persisted.");
const FIELD_MANAGER: Param =
    query("fieldManager", "string", "The actor that makes the change; required for apply.");
const FIELD_VALIDATION: Param = query(
    "fieldValidation",
    "string",
    "What happens on unknown or duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: Param = query("force", "boolean", "Take over conflicting fields; for apply only.");

const READ: &[Param] = &[];
const WRITE: &[Param] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Param] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
const LIST: &[Param] = &[
    query("allowWatchBookmarks", "boolean", "Ask for bookmarks in a watch."),
    query("continue", "string", "The token of the next page."),
    query("fieldSelector", "string", "Restrict by fields."),
    query("labelSelector", "string", "Restrict by labels."),
    query("limit", "integer", "At most so many objects in one answer."),
    query("resourceVersion", "string", "The revision the answer is based on."),
    query("resourceVersionMatch", "string", "How resourceVersion is applied."),
    query("sendInitialEvents", "boolean", "Start the watch with events for what is there."),
    query("timeoutSeconds", "integer", "How long the call may take."),
    query("watch", "boolean", "Send changes as they happen."),
];
const GRACE: Param =
    query("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0: at once.");
const IGNORE_READ_ERROR: Param = query(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Delete an object that cannot be read from the store.",
);
const ORPHAN: Param = query("orphanDependents", "boolean", "Deprecated: use propagationPolicy.");
const PROPAGATION: Param = query("propagationPolicy", "string", "Orphan, Background or Foreground.");
const DELETE: &[Param] = &[DRY_RUN, GRACE, IGNORE_READ_ERROR, ORPHAN, PROPAGATION];
/// What a list takes, but no watch.
const DELETE_COLLECTION: &[Param] = &[
    LIST[1],
    DRY_RUN,
    LIST[2],
    GRACE,
    IGNORE_READ_ERROR,
    LIST[3],
    LIST[4],
    ORPHAN,
    PROPAGATION,
    LIST[5],
    LIST[6],
    LIST[7],
    LIST[8],
];
const LOG: &[Param] = &[
    query("container", "string", "The container; may be left out where there is one."),
    query("follow", "boolean", "Send lines as they come."),
    query("insecureSkipTLSVerifyBackend", "boolean", "Do not verify the kubelet's certificate."),
    query("limitBytes", "integer", "At most so many bytes."),
    query("previous", "boolean", "The container before its last restart."),
    query("sinceSeconds", "integer", "Only lines younger than this."),
    query("stream", "string", "All, Stdout or Stderr."),
    query("tailLines", "integer", "Only so many lines from the end."),
    query("timestamps", "boolean", "Each line with its time."),
];
const ATTACH: &[Param] = &[
    query("container", "string", "The container; may be left out where there is one."),
    query("stderr", "boolean", "Carry standard error."),
    query("stdin", "boolean", "Carry standard input."),
    query("stdout", "boolean", "Carry standard output."),
    query("tty", "boolean", "Allocate a terminal."),
];
const EXEC: &[Param] = &[
    query("command", "string", "The command, an argument each."),
    ATTACH[0],
    ATTACH[1],
    ATTACH[2],
    ATTACH[3],
    ATTACH[4],
];
const PORTS: &[Param] = &[query("ports", "integer", "The ports to forward.")];
const PROXY: &[Param] = &[query("path", "string", "The path behind the proxy.")];
const PRETTY: Param = query("pretty", "string", "If 'true', the answer is indented.");
const NAME: Param = in_path("name", "name of the object");
const PATH: Param = in_path("path", "path to the resource");
const NAMESPACE: Param = in_path("namespace", "object name and auth scope, such as for teams and projects");

impl PathItem {
    /// The definitions its operations name.
    pub(super) fn definitions(&self, used: &mut BTreeSet<String>) {
        for op in &self.ops {
            used.extend(op.response.clone());
            match &op.body {
                Some(Body::Object(name)) => drop(used.insert(name.clone())),
                Some(Body::Patch { .. }) => drop(used.insert(schemas::PATCH.to_owned())),
                Some(Body::Options) => drop(used.insert(schemas::DELETE_OPTIONS.to_owned())),
                None => {}
            }
        }
    }
}

const USE_WATCH: &str = "deprecated: use the 'watch' parameter with a list operation instead";

/// Whether a deletion is answered with the object (upstream's `ReturnDeletedObject`).
fn returns_deleted(row: &Resource) -> bool {
    matches!(
        (row.group.as_str(), row.plural.as_str()),
        (
            "",
            "persistentvolumeclaims"
                | "persistentvolumes"
                | "pods"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        ) | ("resource.k8s.io" | "storage.k8s.io", _)
    ) && !(row.plural == "csistoragecapacities")
}

/// `apps`, `rbac.authorization.k8s.io` → `Apps`, `RbacAuthorization`.
fn group_word(group: &str) -> String {
    if group.is_empty() {
        return "Core".into();
    }
    group.strip_suffix(".k8s.io").unwrap_or(group).split(['.', '-']).map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// The paths of one group version.
pub(super) fn group_version(table: &Table, group: &str, version: &str) -> Vec<PathItem> {
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let words = format!("{}{}", group_word(group), capital(version));
    let tag = format!("{}_{version}", group_tag(group));
    let mut items = Vec::new();
    // Groups of custom resources have no documents about their discovery.
    if is_builtin(table, group) {
        let id = format!("get{words}APIResources");
        let op = information(id, "get available resources", &tag, Some(schemas::API_RESOURCE_LIST), OBJECTS);
        items.push(PathItem { path: format!("{base}/"), params: Vec::new(), ops: vec![op] });
    }
    for row in table.rows_of(group, version) {
        Paths { base: &base, words: &words, tag: &tag, row }.add(&mut items);
    }
    items
}

/// What stands before a noun; plurals have nothing.
fn article(noun: &str) -> &'static str {
    match noun.chars().next() {
        _ if noun.ends_with('s') && !noun.ends_with("ss") => "",
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an ",
        _ => "a ",
    }
}

fn is_builtin(table: &Table, group: &str) -> bool {
    table.rows().iter().any(|row| row.group == group && row.ty.is_some())
}

fn group_tag(group: &str) -> String {
    let word = group_word(group);
    let mut chars = word.chars();
    chars.next().map(|c| c.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

/// A GET that is about no resource.
fn information(
    id: String,
    description: &str,
    tag: &str,
    response: Option<&str>,
    types: &'static [&'static str],
) -> Op {
    Op {
        method: "get",
        id,
        action: "",
        description: description.into(),
        params: READ,
        body: None,
        response: response.map(str::to_owned),
        also: &[],
        consumes: types,
        produces: types,
        tag: tag.into(),
        gvk: None,
    }
}

/// The paths that belong to no group version, each with the name of its own v3 document.
pub(super) fn roots(table: &Table) -> Vec<(String, PathItem)> {
    let one = |place: String, op: Op| {
        let path = format!("/{place}/");
        (place, PathItem { path, params: Vec::new(), ops: vec![op] })
    };
    let versions = "get available API versions";
    let mut all = vec![
        one(
            ".well-known/openid-configuration".into(),
            Op {
                consumes: ANY,
                ..information(
                    "getServiceAccountIssuerOpenIDConfiguration".into(),
                    "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
                    "WellKnown",
                    None,
                    &["application/json"],
                )
            },
        ),
        one(
            "api".into(),
            information("getCoreAPIVersions".into(), versions, "core", Some(schemas::API_VERSIONS), OBJECTS),
        ),
        one(
            "apis".into(),
            information("getAPIVersions".into(), versions, "apis", Some(schemas::API_GROUP_LIST), OBJECTS),
        ),
    ];
    for group in table.groups().filter(|group| !group.is_empty() && is_builtin(table, group)) {
        let id = format!("get{}APIGroup", group_word(group));
        let tag = group_tag(group);
        let op = information(id, "get information of a group", &tag, Some(schemas::API_GROUP), OBJECTS);
        all.push(one(format!("apis/{group}"), op));
    }
    all.push(one(
        "openid/v1/jwks".into(),
        Op {
            consumes: ANY,
            ..information(
                "getServiceAccountIssuerOpenIDKeyset".into(),
                "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
                "openid",
                None,
                &["application/jwk-set+json"],
            )
        },
    ));
    let text = "get the version information for this server";
    let op =
        information("getCodeVersion".into(), text, "version", Some(schemas::VERSION), &["application/json"]);
    all.push(one("version".into(), op));
    all
}

struct Paths<'a> {
    base: &'a str,
    words: &'a str,
    tag: &'a str,
    row: &'a Resource,
}

impl Paths<'_> {
    fn add(&self, items: &mut Vec<PathItem>) {
        let row = self.row;
        let scope = if row.namespaced { "Namespaced" } else { "" };
        let collection = if row.namespaced {
            format!("{}/namespaces/{{namespace}}/{}", self.base, row.plural)
        } else {
            format!("{}/{}", self.base, row.plural)
        };
        let scope_params: Vec<Param> = if row.namespaced { vec![NAMESPACE, PRETTY] } else { vec![PRETTY] };
        if row.namespaced && row.verbs.has(Verbs::LIST) {
            items.push(PathItem {
                path: format!("{}/{}", self.base, row.plural),
                params: vec![PRETTY],
                ops: vec![self.op(
                    "get",
                    "list",
                    format!("list{}{}ForAllNamespaces", self.words, row.kind),
                    LIST,
                    None,
                    schemas::list_definition(row),
                )],
            });
        }
        items.push(PathItem {
            path: collection.clone(),
            params: scope_params.clone(),
            ops: self.collection_ops(scope),
        });
        let with_name: Vec<Param> = [NAME].into_iter().chain(scope_params).collect();
        let item = format!("{collection}/{{name}}");
        items.push(PathItem { path: item.clone(), params: with_name.clone(), ops: self.item_ops(scope) });
        for sub in &row.subresources {
            items.push(PathItem {
                path: format!("{item}/{}", sub.name),
                params: with_name.clone(),
                ops: self.sub_ops(scope, sub, ""),
            });
            if sub.name == "proxy" {
                items.push(PathItem {
                    path: format!("{item}/{}/{{path}}", sub.name),
                    params: with_name.iter().copied().chain([PATH]).collect(),
                    ops: self.sub_ops(scope, sub, "WithPath"),
                });
            }
        }
        for item in items.iter_mut().filter(|item| item.ops.iter().any(|op| op.action == "connect")) {
            item.params.retain(|param| param.name != PRETTY.name);
        }
        if row.verbs.has(Verbs::WATCH) && row.custom.is_none() {
            self.add_watches(items);
        }
        items.retain(|item| !item.ops.is_empty());
    }

    /// The paths of old for watches.
    fn add_watches(&self, items: &mut Vec<PathItem>) {
        let (row, words) = (self.row, self.words);
        let (base, plural, kind) = (format!("{}/watch", self.base), &row.plural, &row.kind);
        let mut add = |path: String, id: String, named: bool, more: &[Param]| {
            let action = if named { "watch" } else { "watchlist" };
            let mut op = self.op("get", action, id, READ, None, schemas::WATCH_EVENT.into());
            op.produces = STREAMS;
            let params = LIST.iter().chain([&PRETTY]).chain(more).copied().collect();
            items.push(PathItem { path, params, ops: vec![op] });
        };
        if row.namespaced {
            let own = format!("{base}/namespaces/{{namespace}}/{plural}");
            let everywhere = format!("watch{words}{kind}ListForAllNamespaces");
            add(format!("{base}/{plural}"), everywhere, false, &[]);
            add(own.clone(), format!("watch{words}Namespaced{kind}List"), false, &[NAMESPACE]);
            add(format!("{own}/{{name}}"), format!("watch{words}Namespaced{kind}"), true, &[NAMESPACE, NAME]);
        } else {
            add(format!("{base}/{plural}"), format!("watch{words}{kind}List"), false, &[]);
            add(format!("{base}/{plural}/{{name}}"), format!("watch{words}{kind}"), true, &[NAME]);
        }
    }

    fn op(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        params: &'static [Param],
        body: Option<Body>,
        response: String,
    ) -> Op {
        let kind = self.row.kind.as_str();
        let custom = self.row.custom.is_some();
        let article = article(kind);
        let description = match action {
            "list" if custom || !self.row.verbs.has(Verbs::WATCH) => format!("list objects of kind {kind}"),
            "list" => format!("list or watch objects of kind {kind}"),
            "watchlist" => format!("watch individual changes to a list of {kind}. {USE_WATCH}."),
            "watch" => format!(
                "watch changes to an object of kind {kind}. {USE_WATCH}, filtered to a single item with the 'fieldSelector' parameter."
            ),
            "post" => format!("create {article}{kind}"),
            "get" => format!("read the specified {kind}"),
            "put" => format!("replace the specified {kind}"),
            "patch" => format!("partially update the specified {kind}"),
            "delete" => format!("delete {article}{kind}"),
            "deletecollection" => format!("delete collection of {kind}"),
            _ => String::new(),
        };
        let also: &[u16] = match action {
            "post" => &[201, 202],
            "put" => &[201],
            "patch" if !custom => &[201],
            "delete" => &[202],
            "deletecollection" if custom => &[202],
            _ => &[],
        };
        let (consumes, produces) = match (custom, action) {
            (true, _) => (CUSTOM, CUSTOM),
            (false, "list") => (ANY, STREAMS),
            (false, "connect") => (ANY, ANY),
            (false, _) => (ANY, OBJECTS),
        };
        let gvk = (self.row.group.to_string(), self.row.version.to_string(), kind.to_owned());
        Op {
            method,
            id,
            action,
            description,
            params,
            body,
            response: Some(response),
            also,
            consumes,
            produces,
            tag: self.tag.into(),
            gvk: Some(gvk),
        }
    }

    fn collection_ops(&self, scope: &str) -> Vec<Op> {
        let (row, words) = (self.row, self.words);
        let own = schemas::row_definition(row);
        let mut ops = Vec::new();
        if row.verbs.has(Verbs::LIST) {
            ops.push(self.op(
                "get",
                "list",
                format!("list{words}{scope}{}", row.kind),
                LIST,
                None,
                schemas::list_definition(row),
            ));
        }
        if row.verbs.has(Verbs::CREATE) {
            ops.push(self.op(
                "post",
                "post",
                format!("create{words}{scope}{}", row.kind),
                WRITE,
                Some(Body::Object(own.clone())),
                own,
            ));
        }
        if row.verbs.has(Verbs::DELETE_COLLECTION) {
            let id = format!("delete{words}Collection{scope}{}", row.kind);
            ops.push(self.op(
                "delete",
                "deletecollection",
                id,
                DELETE_COLLECTION,
                Some(Body::Options),
                schemas::STATUS.into(),
            ));
        }
        ops
    }

    fn item_ops(&self, scope: &str) -> Vec<Op> {
        let (row, words) = (self.row, self.words);
        let own = schemas::row_definition(row);
        let id = |verb: &str| format!("{verb}{words}{scope}{}", row.kind);
        let mut ops = Vec::new();
        if row.verbs.has(Verbs::GET) {
            ops.push(self.op("get", "get", id("read"), READ, None, own.clone()));
        }
        if row.verbs.has(Verbs::UPDATE) {
            ops.push(self.op(
                "put",
                "put",
                id("replace"),
                WRITE,
                Some(Body::Object(own.clone())),
                own.clone(),
            ));
        }
        if row.verbs.has(Verbs::PATCH) {
            ops.push(self.op(
                "patch",
                "patch",
                id("patch"),
                PATCH,
                Some(Body::Patch { strategic: row.ty.is_some() }),
                own.clone(),
            ));
        }
        if row.verbs.has(Verbs::DELETE) {
            ops.push(self.op(
                "delete",
                "delete",
                id("delete"),
                DELETE,
                Some(Body::Options),
                if returns_deleted(row) { own } else { schemas::STATUS.into() },
            ));
        }
        ops
    }

    /// An operation that is passed on to a kubelet or a pod.
    fn connect_op(
        &self,
        method: &'static str,
        scope: &str,
        sub: &Subresource,
        with_path: &str,
        params: &'static [Param],
    ) -> Op {
        let (words, kind, name) = (self.words, &self.row.kind, &sub.name);
        let id = format!("connect{words}{}{scope}{kind}{}{with_path}", capital(method), capital(name));
        let mut op = self.op(method, "connect", id, params, None, String::new());
        op.response = None;
        op.description = format!("connect {} requests to {name} of {kind}", method.to_ascii_uppercase());
        op
    }

    fn sub_text(&self, method: &str, sub: &Subresource) -> String {
        let (kind, name) = (&self.row.kind, &sub.name);
        match method {
            "get" => format!("read {name} of the specified {kind}"),
            "put" => format!("replace {name} of the specified {kind}"),
            "patch" => format!("partially update {name} of the specified {kind}"),
            _ => format!("create {name} of {}{kind}", article(kind)),
        }
    }

    /// `with_path`: of the path behind a proxy, whose operations are named apart.
    fn sub_ops(&self, scope: &str, sub: &Subresource, with_path: &str) -> Vec<Op> {
        let (row, words) = (self.row, self.words);
        let own = if sub.kind == row.kind {
            schemas::row_definition(row)
        } else {
            schemas::kind_definition(&sub.group, &sub.version, &sub.kind)
        };
        let id = |verb: &str| format!("{verb}{words}{scope}{}{}", row.kind, capital(&sub.name));
        let connect: Option<&'static [Param]> = match sub.name.as_str() {
            "exec" => Some(EXEC),
            "attach" => Some(ATTACH),
            "portforward" => Some(PORTS),
            "proxy" => Some(PROXY),
            _ => None,
        };
        let mut ops = Vec::new();
        let mut add = |mut op: Op, description: String| {
            // A custom resource's scale is told to be the resource's own.
            if row.custom.is_none() {
                op.gvk = Some((sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()));
            }
            op.description = description;
            ops.push(op);
        };
        let methods = [
            (Verbs::GET, "get"),
            (Verbs::UPDATE, "put"),
            (Verbs::PATCH, "patch"),
            (Verbs::CREATE, "post"),
            (Verbs::DELETE, "delete"),
            // A proxy passes them on, and they have no verb.
            (Verbs::DELETE, "head"),
            (Verbs::DELETE, "options"),
        ];
        for (_, method) in methods.into_iter().filter(|(verb, _)| sub.verbs.has(*verb)) {
            if let Some(params) = connect {
                let op = self.connect_op(method, scope, sub, with_path, params);
                let text = op.description.clone();
                add(op, text);
                continue;
            }
            let text = self.sub_text(method, sub);
            let mut op = match method {
                "get" if sub.name == "log" => self.op("get", "get", id("read"), LOG, None, String::new()),
                "get" => self.op("get", "get", id("read"), READ, None, own.clone()),
                "put" => {
                    self.op("put", "put", id("replace"), WRITE, Some(Body::Object(own.clone())), own.clone())
                }
                "patch" => self.op(
                    "patch",
                    "patch",
                    id("patch"),
                    PATCH,
                    Some(Body::Patch { strategic: row.ty.is_some() }),
                    own.clone(),
                ),
                "post" => {
                    self.op("post", "post", id("create"), WRITE, Some(Body::Object(own.clone())), own.clone())
                }
                _ => continue,
            };
            if op.response.as_deref() == Some("") {
                op.response = None;
                op.produces = LOGS;
            }
            add(op, text);
        }
        ops
    }
}
