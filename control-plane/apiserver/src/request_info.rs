//! What a request asks for, read from its method, path and query alone (upstream: endpoints/request/requestinfo.go).

use std::borrow::Cow;

use http::Method;

use crate::query::{Query, percent_decode};

/// The parts of a request that routing, authorization and metrics need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// True for `/api/<version>/<resource>…` and `/apis/<group>/<version>/<resource>…`.
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for other paths
    /// the method in lower case.
    pub verb: &'static str,
    /// `api` or `apis`.
    pub prefix: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource, with its leading slash (`/pods/x/proxy/a/b` → `/a/b`).
    pub rest: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The path named a special verb without saying on what.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingKind;

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads method, raw path and query. A special verb without a resource is an error, which upstream answers with 500.
    pub fn parse(method: &Method, raw_path: &str, query: &Query<'_>) -> Result<RequestInfo, MissingKind> {
        let path = percent_decode(raw_path);
        let mut info = RequestInfo { verb: lower_method(method), ..RequestInfo::default() };
        let outcome = info.fill(method, &path, query);
        info.path = path.into_owned();
        outcome.map(|()| info)
    }

    fn fill(&mut self, method: &Method, path: &Cow<'_, str>, query: &Query<'_>) -> Result<(), MissingKind> {
        let trimmed = path.trim_matches('/');
        let mut parts = trimmed.split('/');
        let count = if trimmed.is_empty() { 0 } else { trimmed.bytes().filter(|b| *b == b'/').count() + 1 };
        if count < 3 {
            return Ok(());
        }
        let groupless = match parts.next() {
            Some("api") => true,
            Some("apis") if count >= 4 => false,
            _ => return Ok(()),
        };
        self.prefix = if groupless { "api" } else { "apis" };
        if !groupless {
            self.group = parts.next().unwrap_or_default().to_owned();
        }
        self.version = parts.next().unwrap_or_default().to_owned();
        self.is_resource = true;
        let rest: smallvec::SmallVec<[&str; 8]> = parts.collect();
        let mut rest: &[&str] = &rest;
        let mut by_path = false;
        match rest.first().copied() {
            Some(special @ ("proxy" | "watch")) => {
                if rest.len() < 2 {
                    return Err(MissingKind);
                }
                self.verb = if special == "proxy" { "proxy" } else { "watch" };
                rest = &rest[1..];
                by_path = true;
            }
            _ => self.verb = verb_of(method),
        }
        if rest.first() == Some(&"namespaces") && rest.len() > 1 {
            self.namespace = rest[1].to_owned();
            if rest.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&rest[2]) {
                rest = &rest[2..];
            }
        }
        self.resource = rest.first().copied().unwrap_or_default().to_owned();
        self.name = rest.get(1).copied().unwrap_or_default().to_owned();
        if self.verb != "proxy" {
            self.subresource = rest.get(2).copied().unwrap_or_default().to_owned();
        }
        if rest.len() > 3 {
            self.rest = rest[3..].iter().fold(String::new(), |mut all, part| {
                all.push('/');
                all.push_str(part);
                all
            });
            if path.ends_with('/') {
                self.rest.push('/');
            }
        } else if rest.len() == 3 && path.ends_with('/') {
            self.rest.push('/');
        }
        self.refine(by_path, query);
        Ok(())
    }

    fn refine(&mut self, by_path: bool, query: &Query<'_>) {
        if self.name.is_empty() && self.verb == "get" {
            self.verb = if query.flag("watch") { "watch" } else { "list" };
            if let Some(selector) = query.first("fieldSelector")
                && let Some(name) = exact_name(selector)
            {
                self.name = name.to_owned();
            }
        } else if self.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection";
        }
        if !by_path && matches!(self.verb, "list" | "watch" | "deletecollection") {
            self.field_selector = query.first("fieldSelector").unwrap_or_default().to_owned();
            self.label_selector = query.first("labelSelector").unwrap_or_default().to_owned();
        }
    }

    /// `namespace`, `cluster` or `resource`, as upstream's metrics name the scope.
    pub fn scope(&self) -> &'static str {
        if !self.name.is_empty() || self.verb == "create" {
            "resource"
        } else if !self.namespace.is_empty() {
            "namespace"
        } else if self.is_resource {
            "cluster"
        } else {
            ""
        }
    }

    /// Requests that may run without end: they are exempt from the in-flight limits and the request timeout.
    pub fn long_running(&self, query: &Query<'_>) -> bool {
        if !self.is_resource {
            return false;
        }
        matches!(self.verb, "watch" | "proxy")
            || matches!(self.subresource.as_str(), "proxy" | "exec" | "attach" | "portforward")
            || (self.subresource == "log" && query.flag("follow"))
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn lower_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        Method::CONNECT => "connect",
        Method::TRACE => "trace",
        _ => "",
    }
}

/// The name that a field selector demands exactly, when the selector as a whole can be read.
fn exact_name(selector: &str) -> Option<&str> {
    let mut found = None;
    for term in selector.split(',').filter(|term| !term.is_empty()) {
        let at = term.find('=')?;
        let negated = at > 0 && term.as_bytes()[at - 1] == b'!';
        let (key, value) = (&term[..at], &term[at + 1..]);
        let value = value.strip_prefix('=').unwrap_or(value);
        if !negated && key == "metadata.name" && found.is_none() {
            found = Some(value);
        }
    }
    found.filter(|name| is_path_segment(name))
}

/// Whether a text can stand as one segment of a path (upstream: content.IsPathSegmentName).
pub fn is_path_segment(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        RequestInfo::parse(&method, path, &Query::parse(query)).unwrap()
    }

    #[test]
    fn upstream_resource_table() {
        type Row = (&'static str, &'static str, &'static str, [&'static str; 6]);
        #[rustfmt::skip]
        let rows: &[Row] = &[
            ("GET", "/api/v1/namespaces", "list", ["", "v1", "", "namespaces", "", ""]),
            ("GET", "/api/v1/namespaces/other", "get", ["", "v1", "other", "namespaces", "", "other"]),
            ("GET", "/api/v1/namespaces/other/pods", "list", ["", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get", ["", "v1", "other", "pods", "", "foo"]),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", ["", "v1", "other", "pods", "", "foo"]),
            ("GET", "/api/v1/pods", "list", ["", "v1", "", "pods", "", ""]),
            ("HEAD", "/api/v1/pods", "list", ["", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", ["", "v1", "other", "pods", "", "foo"]),
            ("GET", "/api/v1/proxy/namespaces/other/pods/foo/subpath/not/a/subresource", "proxy", ["", "v1", "other", "pods", "", "foo"]),
            ("GET", "/api/v1/watch/pods", "watch", ["", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch=true", "watch", ["", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/pods?watch=false", "list", ["", "v1", "", "pods", "", ""]),
            ("GET", "/api/v1/watch/namespaces/other/pods", "watch", ["", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods?watch=1", "watch", ["", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods?watch", "watch", ["", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods?watch=0", "list", ["", "v1", "other", "pods", "", ""]),
            ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", ["", "v1", "other", "pods", "status", "foo"]),
            ("GET", "/api/v1/namespaces/other/pods/foo/proxy/subpath", "get", ["", "v1", "other", "pods", "proxy", "foo"]),
            ("PUT", "/api/v1/namespaces/other/finalize", "update", ["", "v1", "other", "namespaces", "finalize", "other"]),
            ("PUT", "/api/v1/namespaces/other/status", "update", ["", "v1", "other", "namespaces", "status", "other"]),
            ("PATCH", "/api/v1/namespaces/other/pods/foo", "patch", ["", "v1", "other", "pods", "", "foo"]),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", ["", "v1", "other", "pods", "", "foo"]),
            ("POST", "/api/v1/namespaces/other/pods", "create", ["", "v1", "other", "pods", "", ""]),
            ("DELETE", "/api/v1/nodes", "deletecollection", ["", "v1", "", "nodes", "", ""]),
            ("DELETE", "/api/v1/namespaces", "deletecollection", ["", "v1", "", "namespaces", "", ""]),
            ("DELETE", "/apis/extensions/v1/namespaces/other/pods", "deletecollection", ["extensions", "v1", "other", "pods", "", ""]),
            ("POST", "/apis/extensions/v1beta3/namespaces/other/pods", "create", ["extensions", "v1beta3", "other", "pods", "", ""]),
        ];
        for (method, url, verb, [group, version, namespace, resource, subresource, name]) in rows {
            let info = parse(method, url);
            assert!(info.is_resource, "{url}");
            assert_eq!(info.verb, *verb, "{url}");
            let got =
                [&info.group, &info.version, &info.namespace, &info.resource, &info.subresource, &info.name];
            assert_eq!(got, [group, version, namespace, resource, subresource, name], "{url}");
        }
    }

    #[test]
    fn paths_that_name_no_resource() {
        for url in [
            "/",
            "",
            "/api",
            "/api/version/",
            "/apis/group/version/",
            "/badprefix/version/resource",
            "/apis/version/resource",
            "/apis/extensions/v1beta1",
            "/not-api/version/resource",
        ] {
            assert!(!parse("GET", url).is_resource, "{url}");
        }
        assert_eq!(parse("POST", "/healthz").verb, "post");
        let refused = RequestInfo::parse(&Method::GET, "/api/v1/watch", &Query::parse(""));
        assert_eq!(refused, Err(MissingKind));
    }

    #[test]
    fn selectors_and_names() {
        let cases = [
            ("?fieldSelector=metadata.name=name1", "list", "name1"),
            ("?watch=true&fieldSelector=metadata.name=name1", "watch", "name1"),
            ("?fieldSelector=foo=bar&labelSelector=baz=qux", "list", ""),
            ("?fieldSelector=metadata.name=name1,foo", "list", ""),
            ("?fieldSelector=metadata.name=name1,foo&watch=true", "watch", ""),
            ("?fieldSelector=metadata.name%3D%3Dname1", "list", "name1"),
            ("?fieldSelector=metadata.name!=name1", "list", ""),
            ("?fieldSelector=metadata.name=a/b", "list", ""),
        ];
        for (query, verb, name) in cases {
            let info = parse("GET", &format!("/apis/group/version/resource{query}"));
            assert_eq!((info.verb, info.name.as_str()), (verb, name), "{query}");
        }
        let info = parse("GET", "/apis/group/version/resource?fieldSelector=foo=bar&labelSelector=baz=qux");
        assert_eq!((info.field_selector.as_str(), info.label_selector.as_str()), ("foo=bar", "baz=qux"));
    }

    #[test]
    fn the_rest_of_a_proxied_path_is_kept() {
        let cases = [
            ("/api/v1/namespaces/n/services/s/proxy", ""),
            ("/api/v1/namespaces/n/services/s/proxy/", "/"),
            ("/api/v1/namespaces/n/services/s/proxy/a/b", "/a/b"),
            ("/api/v1/namespaces/n/services/s/proxy/a/b/", "/a/b/"),
        ];
        for (url, rest) in cases {
            assert_eq!(parse("GET", url).rest, rest, "{url}");
        }
    }

    #[test]
    fn long_running() {
        for (url, expected) in [
            ("/api/v1/pods?watch", true),
            ("/api/v1/pods", false),
            ("/api/v1/namespaces/n/pods/p/log?follow=true", true),
            ("/api/v1/namespaces/n/pods/p/log", false),
            ("/api/v1/namespaces/n/pods/p/exec", true),
        ] {
            let query = Query::parse(url.split_once('?').map_or("", |(_, query)| query));
            assert_eq!(parse("GET", url).long_running(&query), expected, "{url}");
        }
    }
}
