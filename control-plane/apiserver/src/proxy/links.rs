//! Links in what a proxied server answers: those that lead to itself are led through the proxy, in `Location` and in
//! HTML, by the rules of upstream's proxy transport (`apimachinery/pkg/util/proxy/transport.go`).

/// Tags and their attributes that hold addresses.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Tags whose content is text, whatever it looks like.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// Where a proxied server is seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Host and port of the server itself.
    pub server: String,
    /// Host as the client named it.
    pub client: String,
    /// Path under which the client finds the server, without a slash at its end.
    pub prefix: String,
}

/// A path without empty, `.` and `..` parts, which never leads above its root; a slash at its end stays.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let end = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

impl Links {
    /// The link as the client must follow it; one that leads elsewhere, or is relative, stays as it is.
    pub fn follow(&self, link: &str) -> String {
        let scheme_end = link.find([':', '/', '?', '#']).filter(|at| link.as_bytes()[*at] == b':');
        let (scheme, rest) = link.split_at(scheme_end.map_or(0, |at| at + 1));
        let (host, rest) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", rest),
        };
        let (path, tail) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let elsewhere = !host.is_empty() && host != self.server && host != self.client;
        if elsewhere || !path.starts_with('/') || (host.is_empty() && !scheme.is_empty()) {
            return link.to_owned();
        }
        let front =
            if !host.is_empty() && host == self.client { format!("{scheme}//{host}") } else { String::new() };
        if path.starts_with(&self.prefix) {
            return format!("{front}{path}{tail}");
        }
        format!("{front}{}{}{tail}", self.prefix, clean(path))
    }

    /// A page with its links led through the proxy; all else stays byte by byte.
    pub fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut at = 0;
        while at < page.len() {
            let Some(tag) = find(page, at, b"<") else { break };
            out.extend_from_slice(&page[at..tag]);
            let end = if page[tag..].starts_with(b"<!--") {
                find(page, tag + 4, b"-->").map_or(page.len(), |end| end + 3)
            } else if page.get(tag + 1).is_some_and(u8::is_ascii_alphabetic) {
                at = self.tag(page, tag, &mut out);
                continue;
            } else if matches!(page.get(tag + 1), Some(b'!' | b'?' | b'/')) {
                find(page, tag, b">").map_or(page.len(), |end| end + 1)
            } else {
                tag + 1
            };
            out.extend_from_slice(&page[tag..end]);
            at = end;
        }
        out.extend_from_slice(&page[at..]);
        out
    }

    /// Writes the start tag at `begin` (and, of some tags, their text); answers where it ends.
    fn tag(&self, page: &[u8], begin: usize, out: &mut Vec<u8>) -> usize {
        let name_end = skip(page, begin + 1, |b| !b.is_ascii_whitespace() && b != b'/' && b != b'>');
        let name = String::from_utf8_lossy(&page[begin + 1..name_end]).to_ascii_lowercase();
        let names = LINKS.iter().find(|(tag, _)| *tag == name).map_or(&[][..], |(_, names)| names);
        let mut written = begin;
        let mut at = name_end;
        loop {
            at = skip(page, at, |b| b.is_ascii_whitespace() || b == b'/');
            match page.get(at) {
                None | Some(b'>') => break,
                Some(_) => {}
            }
            let key = at;
            at = skip(page, at + 1, |b| !b.is_ascii_whitespace() && !matches!(b, b'=' | b'>' | b'/'));
            let key = String::from_utf8_lossy(&page[key..at]).to_ascii_lowercase();
            let equals = skip(page, at, |b| b.is_ascii_whitespace());
            if page.get(equals) != Some(&b'=') {
                continue;
            }
            let value = skip(page, equals + 1, |b| b.is_ascii_whitespace());
            let (from, to, next) = match page.get(value) {
                Some(&quote @ (b'"' | b'\'')) => {
                    let end = find(page, value + 1, &[quote]).unwrap_or(page.len());
                    (value + 1, end, (end + 1).min(page.len()))
                }
                _ => {
                    let end = skip(page, value, |b| !b.is_ascii_whitespace() && b != b'>');
                    (value, end, end)
                }
            };
            if names.contains(&key.as_str())
                && let Ok(link) = std::str::from_utf8(&page[from..to])
            {
                out.extend_from_slice(&page[written..from]);
                out.extend_from_slice(self.follow(link).as_bytes());
                written = to;
            }
            at = next;
        }
        at = (at + 1).min(page.len());
        out.extend_from_slice(&page[written..at]);
        if RAW.contains(&name.as_str()) {
            let close = format!("</{name}");
            let end = (at..page.len()).find(|from| {
                page.get(*from..from + close.len())
                    .is_some_and(|text| text.eq_ignore_ascii_case(close.as_bytes()))
            });
            let end = end.unwrap_or(page.len());
            out.extend_from_slice(&page[at..end]);
            at = end;
        }
        at
    }
}

fn skip(page: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    page.iter().skip(from).position(|b| !wanted(*b)).map_or(page.len(), |at| from + at)
}

fn find(page: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(page.get(from..)?, needle).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { server: "10.1.2.3:80".into(), client: "api:6443".into(), prefix: "/p/proxy".into() }
    }

    /// With the inputs of upstream's `transport_test.go`, which see to the same rules.
    #[test]
    fn links_to_the_server_itself_lead_through_the_proxy() {
        for (link, expected) in [
            ("/mm", "/p/proxy/mm"),
            ("/mm/", "/p/proxy/mm/"),
            ("/", "/p/proxy/"),
            ("/a?x=/y#z", "/p/proxy/a?x=/y#z"),
            ("http://10.1.2.3:80/a", "/p/proxy/a"),
            ("//10.1.2.3:80/a", "/p/proxy/a"),
            ("http://api:6443/a", "http://api:6443/p/proxy/a"),
            ("http://10.1.2.3:80", "http://10.1.2.3:80"),
            ("http://elsewhere/a", "http://elsewhere/a"),
            ("//elsewhere/a", "//elsewhere/a"),
            ("page.html", "page.html"),
            ("?q", "?q"),
            ("#here", "#here"),
            ("", ""),
            ("/p/proxy/a", "/p/proxy/a"),
            ("mailto:someone@example.org", "mailto:someone@example.org"),
            ("javascript:/x", "javascript:/x"),
            ("/../../api/v1/secrets", "/p/proxy/api/v1/secrets"),
        ] {
            assert_eq!(links().follow(link), expected, "{link}");
        }
    }

    #[test]
    fn pages_keep_all_but_their_links() {
        for (page, expected) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/proxy/rewriteme">test</a>"#),
            ("<IMG class=x SRC='/i.png' />", "<IMG class=x SRC='/p/proxy/i.png' />"),
            ("<a href=/x>y</a>", "<a href=/p/proxy/x>y</a>"),
            (r#"<a title="/x" href = "/x"  >"#, r#"<a title="/x" href = "/p/proxy/x"  >"#),
            (r#"<!-- <a href="/x"> --><p href="/x">"#, r#"<!-- <a href="/x"> --><p href="/x">"#),
            (
                r#"<script src="/s.js">'<a href="/x">'</SCRIPT><a href="/y">"#,
                r#"<script src="/p/proxy/s.js">'<a href="/x">'</SCRIPT><a href="/p/proxy/y">"#,
            ),
            ("a < b <1> <a", "a < b <1> <a"),
            (r#"<a href="/unclosed"#, r#"<a href="/p/proxy/unclosed"#),
            ("<a href=", "<a href="),
            ("<a href", "<a href"),
            ("<!-- open", "<!-- open"),
            ("<!DOCTYPE html><br/>", "<!DOCTYPE html><br/>"),
        ] {
            let seen = links().page(page.as_bytes());
            assert_eq!(String::from_utf8_lossy(&seen), expected, "{page}");
        }
    }

    #[test]
    fn any_bytes_are_a_page() {
        let mut state = 1u32;
        let alphabet = b"<a href='/x\"!->/= script\xff";
        for _ in 0..2000 {
            let page: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    alphabet[(state >> 16) as usize % alphabet.len()]
                })
                .collect();
            let seen = links().page(&page);
            assert!(seen.len() >= page.len(), "{}", String::from_utf8_lossy(&page));
        }
    }
}
