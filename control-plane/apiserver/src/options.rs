//! The options of requests: lists and watches, writes, deletions; read and checked as upstream does it.

use http::HeaderMap;
use keelson_api::field_errors::{BadValue, ErrorList, FieldPath, quoted};
use keelson_api::fields_selector::FieldSelector;
use keelson_api::json::{self, DecodeError, FieldValidation};
use keelson_api::selectors::LabelSelector;
use keelson_api::status::{GroupResource, Reason, Status};

use crate::query::Query;

const META: &str = "meta.k8s.io";

fn checked(kind: &'static str, errors: &ErrorList) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(&GroupResource::new(META, kind), "", errors)) }
}

fn integer(query: &Query<'_>, key: &str) -> Result<Option<i64>, Status> {
    query.integer(key).map_err(Status::bad_request)
}

/// How a list or watch relates to its resourceVersion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Exact,
    NotOlderThan,
}

/// The resourceVersion of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// None given: the newest.
    Newest,
    /// `0`: whatever is at hand.
    Any,
    At(u64),
}

impl Version {
    /// Reads the parameter.
    pub fn parse(text: &str) -> Result<Version, Status> {
        match text {
            "" => Ok(Version::Newest),
            "0" => Ok(Version::Any),
            other => match other.parse() {
                Ok(revision) => Ok(Version::At(revision)),
                Err(_) => {
                    Err(Status::bad_request(format!("invalid resource version: {}", no_version(other))))
                }
            },
        }
    }

    /// As [`Version::parse`], with what upstream says of it on a get and a watch.
    pub fn parse_alone(text: &str) -> Result<Version, Status> {
        Version::parse(text).map_err(|_| Status::other(500, Reason::Unknown, no_version(text)))
    }
}

fn no_version(text: &str) -> String {
    let text = quoted(text);
    format!("resourceVersion: Invalid value: {text}: strconv.ParseUint: parsing {text}: invalid syntax")
}

/// Options of list, watch and deletecollection.
#[derive(Clone, Debug)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub version: Version,
    pub version_match: Option<Match>,
    pub limit: usize,
    pub token: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks them.
    pub fn parse(query: &Query<'_>, watch: bool) -> Result<ListOptions, Status> {
        let labels = LabelSelector::parse(query.first("labelSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(query.first("fieldSelector").unwrap_or_default())
            .map_err(|error| Status::bad_request(error.to_string()))?;
        let version_match = Self::check_match(query, watch)?;
        let limit = integer(query, "limit")?.unwrap_or(0);
        let timeout = integer(query, "timeoutSeconds")?;
        let parse_version = if watch { Version::parse_alone } else { Version::parse };
        Ok(ListOptions {
            labels,
            fields,
            version: parse_version(query.first("resourceVersion").unwrap_or_default())?,
            version_match,
            limit: usize::try_from(limit).unwrap_or(0),
            token: query.text("continue").map(str::to_owned),
            timeout_seconds: timeout
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
        })
    }

    fn check_match(query: &Query<'_>, watch: bool) -> Result<Option<Match>, Status> {
        const FIELD: &str = "resourceVersionMatch";
        let path = FieldPath::new(FIELD);
        let mut errors = ErrorList::new();
        let text = query.first(FIELD).unwrap_or_default();
        let version = query.first("resourceVersion").unwrap_or_default();
        let continued = query.text("continue").is_some();
        let initial = query.optional_flag("sendInitialEvents");
        if watch {
            if initial.is_some() && text != "NotOlderThan" {
                errors.forbidden(
                    &path,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                );
            }
            if !text.is_empty() {
                if initial.is_none() {
                    errors.forbidden(
                        &path,
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    );
                }
                if text != "NotOlderThan" {
                    errors.not_supported(&path, text, &["NotOlderThan"]);
                }
            }
        } else {
            if !text.is_empty() {
                if version.is_empty() {
                    errors.forbidden(
                        &path,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    );
                }
                if !matches!(text, "Exact" | "NotOlderThan") {
                    errors.not_supported(&path, text, &["Exact", "NotOlderThan", ""]);
                }
                if text == "Exact" && version == "0" {
                    errors.forbidden(
                        &path,
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    );
                }
            }
            if initial.is_some() {
                errors.forbidden(
                    &FieldPath::new("sendInitialEvents"),
                    "sendInitialEvents is forbidden for list",
                );
            }
        }
        // A watch that says nothing of where it begins is taken as one that asks for what there is.
        let implied = watch && initial.is_none() && matches!(version, "" | "0");
        if (!text.is_empty() || implied) && continued {
            errors.forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
        }
        checked("ListOptions", &errors)?;
        Ok(match text {
            "Exact" => Some(Match::Exact),
            "NotOlderThan" => Some(Match::NotOlderThan),
            _ => None,
        })
    }
}

/// Options of create, update and patch.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub validation: FieldValidation,
    /// The given manager, or the user agent's first word.
    pub manager: String,
    /// Server-side apply: take fields over from others.
    pub force: bool,
}

impl WriteOptions {
    /// Reads and checks them; `kind` is the options' kind (`CreateOptions`…), `apply` says that the patch is an apply.
    pub fn parse(
        query: &Query<'_>,
        headers: &HeaderMap,
        kind: &'static str,
        apply: bool,
    ) -> Result<WriteOptions, Status> {
        let mut errors = ErrorList::new();
        let manager = query.first("fieldManager").unwrap_or_default();
        let manager_path = FieldPath::new("fieldManager");
        let force = query.optional_flag("force");
        if kind == "PatchOptions" {
            if apply && manager.is_empty() {
                errors.required(&manager_path, "is required for apply patch");
            }
            if !apply && force.is_some() {
                errors.forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch");
            }
        }
        if manager.len() > MAX_MANAGER {
            errors.too_long(&manager_path, MAX_MANAGER);
        }
        if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
            errors.invalid(
                &manager_path,
                manager,
                format!("invalid character U+{:04X} (at position {at})", u32::from(c)),
            );
        }
        let dry_run = dry_run(query, &mut errors);
        let validation = match query.first("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                errors.not_supported(
                    &FieldPath::new("fieldValidation"),
                    other,
                    &["", "Ignore", "Strict", "Warn"],
                );
                FieldValidation::Warn
            }
        };
        checked(kind, &errors)?;
        let manager = if manager.is_empty() { agent_manager(headers) } else { manager.to_owned() };
        Ok(WriteOptions { dry_run, validation, manager, force: force.unwrap_or(false) })
    }
}

fn dry_run(query: &Query<'_>, errors: &mut ErrorList) -> bool {
    let values: Vec<&str> = query.all("dryRun").collect();
    checked_dry_run(&values, errors)
}

/// Whether stages are all of the values, of which upstream quotes the list.
fn checked_dry_run(values: &[&str], errors: &mut ErrorList) -> bool {
    if values.iter().any(|value| *value != "All") {
        errors.not_supported(&FieldPath::new("dryRun"), BadValue::json(&values), &["All"]);
        return false;
    }
    !values.is_empty()
}

/// Most bytes of a field manager's name.
const MAX_MANAGER: usize = 128;

/// The first word of the user agent, as upstream names a manager that does not name itself.
fn agent_manager(headers: &HeaderMap) -> String {
    let agent =
        headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if name.len() + c.len_utf8() > MAX_MANAGER {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What happens to dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Foreground,
    Background,
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub orphan_dependents: Option<bool>,
    pub propagation: Option<Propagation>,
    pub dry_run: bool,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawDeleteOptions {
    kind: String,
    grace_period_seconds: Option<i64>,
    preconditions: Option<RawPreconditions>,
    orphan_dependents: Option<bool>,
    propagation_policy: Option<String>,
    dry_run: Option<Vec<String>>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawPreconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    /// From the query alone (a deletion without a body).
    pub fn from_query(query: &Query<'_>) -> Result<DeleteOptions, Status> {
        let raw = RawDeleteOptions {
            kind: String::new(),
            grace_period_seconds: integer(query, "gracePeriodSeconds")?,
            preconditions: Some(RawPreconditions {
                uid: query.text("uid").map(str::to_owned),
                resource_version: query.text("resourceVersion").map(str::to_owned),
            }),
            orphan_dependents: query.optional_flag("orphanDependents"),
            propagation_policy: query.text("propagationPolicy").map(str::to_owned),
            dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
        };
        raw.check()
    }

    /// From a JSON body.
    pub fn from_json(body: &[u8]) -> Result<DeleteOptions, Status> {
        // What is wrong is said as of any object.
        let bad = |error: DecodeError| Status::bad_request(error.to_string());
        json::peek_type_meta(body).map_err(bad)?;
        let (doc, _) = json::decode(keelson_api::t::meta_v1::DELETE_OPTIONS, body, FieldValidation::Ignore)
            .map_err(bad)?;
        let mut canonical = Vec::new();
        json::encode_canonical(&doc, json::EncodeOptions::FULL, &mut canonical);
        let raw: RawDeleteOptions = serde_json::from_slice(&canonical).map_err(Status::internal)?;
        if !matches!(raw.kind.as_str(), "" | "DeleteOptions") {
            return Err(Status::bad_request("decoded object cannot be converted to DeleteOptions"));
        }
        raw.check()
    }
}

impl RawDeleteOptions {
    fn check(self) -> Result<DeleteOptions, Status> {
        let mut errors = ErrorList::new();
        let path = FieldPath::new("propagationPolicy");
        if self.orphan_dependents.is_some()
            && let Some(policy) = &self.propagation_policy
        {
            errors.invalid(
                &path,
                policy.as_str(),
                "orphanDependents and deletionPropagation cannot be both set",
            );
        }
        let propagation = match self.propagation_policy.as_deref() {
            None => None,
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Background") => Some(Propagation::Background),
            Some("Orphan") => Some(Propagation::Orphan),
            Some(other) => {
                errors.not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]);
                None
            }
        };
        let values: Vec<&str> = self.dry_run.iter().flatten().map(String::as_str).collect();
        let dry_run = checked_dry_run(&values, &mut errors);
        checked("DeleteOptions", &errors)?;
        let preconditions = self.preconditions.unwrap_or_default();
        Ok(DeleteOptions {
            // Upstream treats a negative period as one second.
            grace_period_seconds: self
                .grace_period_seconds
                .map(|seconds| if seconds < 0 { 1 } else { seconds }),
            uid: preconditions.uid,
            resource_version: preconditions.resource_version,
            orphan_dependents: self.orphan_dependents,
            propagation,
            dry_run,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_options_are_checked() {
        let parse = |raw: &str, watch| {
            ListOptions::parse(&Query::parse(raw), watch).map_err(|status| (status.code, status.message))
        };
        let options =
            parse("labelSelector=a%3Db&limit=5&resourceVersion=7&resourceVersionMatch=Exact", false).unwrap();
        assert_eq!(
            (options.limit, options.version, options.version_match),
            (5, Version::At(7), Some(Match::Exact))
        );
        for (raw, watch, code) in [
            ("resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", false, 422),
            ("resourceVersion=1&resourceVersionMatch=Maybe", false, 422),
            ("sendInitialEvents=true", false, 422),
            ("sendInitialEvents=true", true, 422),
            ("resourceVersionMatch=NotOlderThan", true, 422),
            ("limit=x", false, 400),
            ("labelSelector=a%20b%20c", false, 400),
            ("fieldSelector=a", false, 400),
            ("resourceVersion=x", false, 400),
        ] {
            assert_eq!(parse(raw, watch).unwrap_err().0, code, "{raw}");
        }
        assert!(parse("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true).is_ok());
    }

    #[test]
    fn write_options_are_checked() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "kubectl/v1.35.0 (linux)".parse().unwrap());
        let parse = |raw: &str, kind, apply| WriteOptions::parse(&Query::parse(raw), &headers, kind, apply);
        let options = parse("dryRun=All&fieldValidation=Strict", "CreateOptions", false).unwrap();
        assert!(
            options.dry_run && options.validation == FieldValidation::Strict && options.manager == "kubectl"
        );
        assert_eq!(
            parse("dryRun=Some", "CreateOptions", false).unwrap_err().message,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
        assert_eq!(parse("force=true", "PatchOptions", false).unwrap_err().code, 422);
        assert_eq!(parse("", "PatchOptions", true).unwrap_err().code, 422);
        assert_eq!(parse("fieldValidation=x", "UpdateOptions", false).unwrap_err().code, 422);
    }

    #[test]
    fn deletions() {
        let options = DeleteOptions::from_json(
            br#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":-5,"preconditions":{"uid":"u","resourceVersion":"3"},"propagationPolicy":"Foreground","dryRun":["All"]}"#,
        )
        .unwrap();
        assert_eq!(options.grace_period_seconds, Some(1));
        assert_eq!(
            (options.uid.as_deref(), options.propagation, options.dry_run),
            (Some("u"), Some(Propagation::Foreground), true)
        );
        assert_eq!(DeleteOptions::from_json(br#"{"kind":"Pod"}"#).unwrap_err().code, 400);
        assert_eq!(
            DeleteOptions::from_json(br#"{"orphanDependents":true,"propagationPolicy":"Orphan"}"#)
                .unwrap_err()
                .code,
            422
        );
        assert_eq!(DeleteOptions::from_query(&Query::parse("propagationPolicy=No")).unwrap_err().code, 422);
        assert_eq!(
            DeleteOptions::from_query(&Query::parse("gracePeriodSeconds=0")).unwrap().grace_period_seconds,
            Some(0)
        );
    }
}
