//! Paths and operations of the table's rows.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Dialect, schemas};
use crate::schema::Verbs;
use crate::table::{Resource, Subresource, Table};

/// One path with its operations.
pub(super) struct PathItem {
    pub(super) path: String,
    params: Vec<Param>,
    ops: Vec<Op>,
}

struct Op {
    method: &'static str,
    id: String,
    action: &'static str,
    description: String,
    params: &'static [Param],
    body: Option<Body>,
    /// The definition of the answer; `None`: a string.
    response: Option<String>,
    created: bool,
    tag: String,
    /// Group, version, kind.
    gvk: Option<(String, String, String)>,
}

enum Body {
    Object(String),
    Patch { strategic: bool },
    Options,
}

#[derive(Clone, Copy)]
struct Param {
    name: &'static str,
    place: &'static str,
    ty: &'static str,
    description: &'static str,
    required: bool,
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
const DELETE: &[Param] = &[
    DRY_RUN,
    query("gracePeriodSeconds", "integer", "Seconds before the object is deleted; 0: at once."),
    query(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read from the store.",
    ),
    query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    query("propagationPolicy", "string", "Orphan, Background or Foreground."),
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
const EXEC: &[Param] = &[
    query("command", "string", "The command, an argument each."),
    query("container", "string", "The container; may be left out where there is one."),
    query("stderr", "boolean", "Carry standard error."),
    query("stdin", "boolean", "Carry standard input."),
    query("stdout", "boolean", "Carry standard output."),
    query("tty", "boolean", "Allocate a terminal."),
];
const PORTS: &[Param] = &[query("ports", "integer", "The ports to forward.")];
const PROXY: &[Param] = &[query("path", "string", "The path behind the proxy.")];
const PRETTY: Param = query("pretty", "string", "If 'true', the answer is indented.");
const NAME: Param = in_path("name", "name of the object");
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
    let tag = format!(
        "{}_{version}",
        group_word(group)
            .chars()
            .enumerate()
            .map(|(i, c)| if i == 0 { c.to_ascii_lowercase() } else { c })
            .collect::<String>()
    );
    let mut items = vec![PathItem {
        path: format!("{base}/"),
        params: Vec::new(),
        ops: vec![Op {
            method: "get",
            id: format!("get{words}APIResources"),
            action: "",
            description: "get available resources".into(),
            params: READ,
            body: None,
            response: Some(schemas::API_RESOURCE_LIST.into()),
            created: false,
            tag: tag.clone(),
            gvk: None,
        }],
    }];
    for row in table.rows_of(group, version) {
        Paths { base: &base, words: &words, tag: &tag, row }.add(&mut items);
    }
    items
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
                ops: self.sub_ops(scope, sub),
            });
        }
        items.retain(|item| !item.ops.is_empty());
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
        let description = match action {
            "list" => format!("list or watch objects of kind {kind}"),
            "post" => format!("create a {kind}"),
            "get" => format!("read the specified {kind}"),
            "put" => format!("replace the specified {kind}"),
            "patch" => format!("partially update the specified {kind}"),
            "delete" => format!("delete a {kind}"),
            "deletecollection" => format!("delete collection of {kind}"),
            _ => format!("{action} {kind}"),
        };
        let gvk = (self.row.group.to_string(), self.row.version.to_string(), kind.to_owned());
        Op {
            method,
            id,
            action,
            description,
            params,
            created: action == "post",
            body,
            response: Some(response),
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
                DELETE,
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
                own,
            ));
        }
        if row.verbs.has(Verbs::DELETE) {
            ops.push(self.op(
                "delete",
                "delete",
                id("delete"),
                DELETE,
                Some(Body::Options),
                schemas::STATUS.into(),
            ));
        }
        ops
    }

    fn sub_ops(&self, scope: &str, sub: &Subresource) -> Vec<Op> {
        let (row, words) = (self.row, self.words);
        let own = if sub.kind == row.kind {
            schemas::row_definition(row)
        } else {
            schemas::kind_definition(&sub.group, &sub.version, &sub.kind)
        };
        let id = |verb: &str| format!("{verb}{words}{scope}{}{}", row.kind, capital(&sub.name));
        let connect: Option<&'static [Param]> = match sub.name.as_str() {
            "exec" | "attach" => Some(EXEC),
            "portforward" => Some(PORTS),
            "proxy" => Some(PROXY),
            _ => None,
        };
        let mut ops = Vec::new();
        let mut add = |mut op: Op| {
            op.gvk = Some((sub.group.to_string(), sub.version.to_string(), sub.kind.to_string()));
            ops.push(op);
        };
        let methods = [
            (Verbs::GET, "get"),
            (Verbs::UPDATE, "put"),
            (Verbs::PATCH, "patch"),
            (Verbs::CREATE, "post"),
            (Verbs::DELETE, "delete"),
        ];
        for (_, method) in methods.into_iter().filter(|(verb, _)| sub.verbs.has(*verb)) {
            if let Some(params) = connect {
                let mut op = self.op(
                    method,
                    "connect",
                    id(&format!("connect{}", capital(method))),
                    params,
                    None,
                    String::new(),
                );
                op.response = None;
                add(op);
                continue;
            }
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
            }
            add(op);
        }
        ops
    }
}

fn gvk_value(op: &Op, into: &mut Map<String, Value>) {
    if !op.action.is_empty() {
        into.insert("x-kubernetes-action".into(), op.action.into());
    }
    if let Some((group, version, kind)) = &op.gvk {
        into.insert(
            "x-kubernetes-group-version-kind".into(),
            json!({"group": group, "version": version, "kind": kind}),
        );
    }
}

fn patch_types(strategic: bool) -> Vec<&'static str> {
    let mut types =
        vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
    if strategic {
        types.push("application/strategic-merge-patch+json");
    }
    types
}

const ANSWERS: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

pub(super) fn v3(item: &PathItem) -> Value {
    let mut out = Map::new();
    for op in &item.ops {
        let mut value = Map::new();
        value.insert("description".into(), op.description.as_str().into());
        value.insert("operationId".into(), op.id.as_str().into());
        value.insert("tags".into(), json!([op.tag]));
        if !op.params.is_empty() {
            value.insert("parameters".into(), op.params.iter().map(v3_param).collect());
        }
        let reference = |name: &str| json!({"schema": {"$ref": Dialect::V3.reference(name)}});
        match &op.body {
            Some(Body::Object(name)) => drop(value.insert(
                "requestBody".into(),
                json!({"content": {"*/*": reference(name)}, "required": true}),
            )),
            Some(Body::Options) => drop(value.insert(
                "requestBody".into(),
                json!({"content": {"*/*": reference(schemas::DELETE_OPTIONS)}}),
            )),
            Some(Body::Patch { strategic }) => {
                let content: Map<String, Value> = patch_types(*strategic)
                    .into_iter()
                    .map(|ty| (ty.to_owned(), reference(schemas::PATCH)))
                    .collect();
                value.insert("requestBody".into(), json!({"content": content, "required": true}));
            }
            None => {}
        }
        let content: Map<String, Value> = match &op.response {
            Some(name) => ANSWERS.iter().map(|ty| ((*ty).to_owned(), reference(name))).collect(),
            None => Map::from_iter([("text/plain".to_owned(), json!({"schema": {"type": "string"}}))]),
        };
        let mut responses =
            json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}});
        if op.created {
            responses["201"] = json!({"description": "Created", "content": content});
        }
        value.insert("responses".into(), responses);
        gvk_value(op, &mut value);
        out.insert(op.method.to_owned(), Value::Object(value));
    }
    if !item.params.is_empty() {
        out.insert("parameters".into(), item.params.iter().map(v3_param).collect());
    }
    Value::Object(out)
}

fn v3_param(param: &Param) -> Value {
    let mut value = json!({"name": param.name, "in": param.place, "description": param.description, "schema": {"type": param.ty, "uniqueItems": true}});
    if param.required {
        value["required"] = true.into();
    }
    value
}

fn v2_param(param: &Param) -> Value {
    let mut value = json!({"name": param.name, "in": param.place, "description": param.description, "type": param.ty, "uniqueItems": true});
    if param.required {
        value["required"] = true.into();
    }
    value
}

pub(super) fn v2(item: &PathItem) -> Value {
    let mut out = Map::new();
    for op in &item.ops {
        let mut value = Map::new();
        value.insert("description".into(), op.description.as_str().into());
        value.insert("operationId".into(), op.id.as_str().into());
        value.insert("tags".into(), json!([op.tag]));
        value.insert("schemes".into(), json!(["https"]));
        let mut params: Vec<Value> = op.params.iter().map(v2_param).collect();
        let reference = |name: &str| json!({"$ref": Dialect::V2.reference(name)});
        let body = |name: &str, required: bool| {
            let mut value = json!({"name": "body", "in": "body", "schema": reference(name)});
            if required {
                value["required"] = true.into();
            }
            value
        };
        let mut consumes = vec!["*/*"];
        match &op.body {
            Some(Body::Object(name)) => params.insert(0, body(name, true)),
            Some(Body::Options) => params.insert(0, body(schemas::DELETE_OPTIONS, false)),
            Some(Body::Patch { strategic }) => {
                params.insert(0, body(schemas::PATCH, true));
                consumes = patch_types(*strategic);
            }
            None => {}
        }
        if !params.is_empty() {
            value.insert("parameters".into(), params.into());
        }
        value.insert("consumes".into(), json!(consumes));
        value.insert("produces".into(), json!(ANSWERS));
        let schema = op.response.as_deref().map_or_else(|| json!({"type": "string"}), reference);
        let mut responses =
            json!({"200": {"description": "OK", "schema": schema}, "401": {"description": "Unauthorized"}});
        if op.created {
            responses["201"] = json!({"description": "Created", "schema": schema});
        }
        value.insert("responses".into(), responses);
        gvk_value(op, &mut value);
        out.insert(op.method.to_owned(), Value::Object(value));
    }
    if !item.params.is_empty() {
        out.insert("parameters".into(), item.params.iter().map(v2_param).collect());
    }
    Value::Object(out)
}
