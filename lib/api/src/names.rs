//! Validators of names and other small strings, with upstream's texts (apimachinery `util/validation`).
//!
//! Each returns the messages of what is wrong, none for a valid value; a valid value costs one pass and no
//! allocation.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field_errors::{ErrorList, FieldPath, quoted};

/// Messages about one value.
pub type Messages = Vec<Cow<'static, str>>;

pub const LABEL_MAX: usize = 63;
pub const SUBDOMAIN_MAX: usize = 253;

const LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character";
const DNS1035_FMT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const DNS1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
     with an alphabetic character, and end with an alphanumeric character";
const KEY_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const KEY_TEXT: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character";
const VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character";

/// `must be no more than N characters`
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The same of label keys and values: `must be no more than N bytes`
pub fn max_bytes_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between A and B, inclusive`
pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// Upstream's text for a value that does not match a regular expression.
pub fn regex_error(text: &str, format: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{format}')");
    }
    let mut out = format!("{text} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            out.push_str(" or ");
        }
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{format}')"));
    out
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn matches_label(value: &[u8]) -> bool {
    match value {
        [] => false,
        [first, .., last] if !lower_alnum(*first) || !lower_alnum(*last) => false,
        [one] => lower_alnum(*one),
        all => all.iter().all(|b| lower_alnum(*b) || *b == b'-'),
    }
}

fn matches_subdomain(value: &str) -> bool {
    value.as_bytes().split(|b| *b == b'.').all(matches_label)
}

fn matches_key(value: &str) -> bool {
    let bytes = value.as_bytes();
    match bytes {
        [] => false,
        [first, .., last] if !first.is_ascii_alphanumeric() || !last.is_ascii_alphanumeric() => false,
        [one] => one.is_ascii_alphanumeric(),
        all => all.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')),
    }
}

/// A DNS label (RFC 1123).
pub fn dns1123_label(value: &str) -> Messages {
    let mut out = Vec::new();
    if value.len() > LABEL_MAX {
        out.push(max_len_error(LABEL_MAX).into());
    }
    if !matches_label(value.as_bytes()) {
        if matches_subdomain(value) {
            out.push("must not contain dots".into());
        } else {
            out.push(regex_error(LABEL_TEXT, LABEL_FMT, &["my-name", "123-abc"]).into());
        }
    }
    out
}

/// A DNS subdomain (RFC 1123).
pub fn dns1123_subdomain(value: &str) -> Messages {
    let mut out = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        out.push(max_len_error(SUBDOMAIN_MAX).into());
    }
    if !matches_subdomain(value) {
        out.push(regex_error(SUBDOMAIN_TEXT, SUBDOMAIN_FMT, &["example.com"]).into());
    }
    out
}

/// A DNS subdomain whose labels may hold underscores (DNS search paths).
pub fn dns1123_subdomain_with_underscore(value: &str) -> Messages {
    fn label(value: &[u8]) -> bool {
        let value = value.strip_prefix(b"_").unwrap_or(value);
        match value {
            [] => false,
            [first, .., last] if !lower_alnum(*first) || !lower_alnum(*last) => false,
            [one] => lower_alnum(*one),
            all => all.iter().all(|b| lower_alnum(*b) || matches!(b, b'-' | b'_')),
        }
    }
    let mut out = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        out.push(max_len_error(SUBDOMAIN_MAX).into());
    }
    if !value.as_bytes().split(|b| *b == b'.').all(label) {
        let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or \
                    '.', and must start and end with an alphanumeric character";
        let format = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        out.push(regex_error(text, format, &["example.com"]).into());
    }
    out
}

/// A DNS label (RFC 1035): starts with a letter.
pub fn dns1035_label(value: &str) -> Messages {
    let mut out = Vec::new();
    if value.len() > LABEL_MAX {
        out.push(max_len_error(LABEL_MAX).into());
    }
    if !matches_label(value.as_bytes()) || !value.as_bytes()[0].is_ascii_lowercase() {
        out.push(regex_error(DNS1035_TEXT, DNS1035_FMT, &["my-name", "abc-123"]).into());
    }
    out
}

/// `*.` and a DNS subdomain.
pub fn wildcard_dns1123_subdomain(value: &str) -> Messages {
    let mut out = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        out.push(max_len_error(SUBDOMAIN_MAX).into());
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        let text = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
                    consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        out.push(regex_error(text, &format!("\\*\\.{SUBDOMAIN_FMT}"), &["*.example.com"]).into());
    }
    out
}

/// A label or annotation key, a finalizer, a resource name: optional DNS subdomain, `/`, name.
pub fn qualified_name(value: &str) -> Messages {
    let mut out: Messages = Vec::new();
    let mut parts = value.splitn(3, '/');
    let first = parts.next().unwrap_or_default();
    let name = match (parts.next(), parts.next()) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else {
                if first.len() > SUBDOMAIN_MAX {
                    out.push(format!("prefix part {}", max_bytes_error(SUBDOMAIN_MAX)).into());
                }
                if !matches_subdomain(first) {
                    let text = regex_error(SUBDOMAIN_TEXT, SUBDOMAIN_FMT, &["example.com"]);
                    out.push(format!("prefix part {text}").into());
                }
            }
            name
        }
        _ => {
            let text = regex_error(KEY_TEXT, KEY_FMT, &["MyName", "my.name", "123-abc"]);
            out.push(
                format!("a valid label key {text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")
                    .into(),
            );
            return out;
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        out.push(format!("name part {}", max_bytes_error(LABEL_MAX)).into());
    }
    if !matches_key(name) {
        out.push(
            format!("name part {}", regex_error(KEY_TEXT, KEY_FMT, &["MyName", "my.name", "123-abc"])).into(),
        );
    }
    out
}

/// A label's value.
pub fn label_value(value: &str) -> Messages {
    let mut out = Vec::new();
    if value.len() > LABEL_MAX {
        out.push(max_bytes_error(LABEL_MAX).into());
    }
    if !value.is_empty() && !matches_key(value) {
        out.push(regex_error(VALUE_TEXT, VALUE_FMT, &["MyValue", "my_value", "12345"]).into());
    }
    out
}

/// A C identifier.
pub fn c_identifier(value: &str) -> Messages {
    let bytes = value.as_bytes();
    let ok = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if ok {
        return Vec::new();
    }
    let text = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                alphanumeric characters or '_'";
    vec![regex_error(text, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"]).into()]
}

/// 1–65535.
pub fn port_number(port: i64) -> Messages {
    in_range(port, 1, 65535)
}

/// `low` to `high`, inclusive.
pub fn in_range(value: i64, low: i64, high: i64) -> Messages {
    if (low..=high).contains(&value) { Vec::new() } else { vec![inclusive_range_error(low, high).into()] }
}

/// A user or group id.
pub fn unix_id(id: i64) -> Messages {
    in_range(id, 0, i64::from(i32::MAX))
}

/// A port's name (RFC 6335, lower case).
pub fn port_name(value: &str) -> Messages {
    let mut out: Messages = Vec::new();
    let bytes = value.as_bytes();
    if bytes.len() > 15 {
        out.push(max_len_error(15).into());
    }
    if bytes.is_empty() || !bytes.iter().all(|b| lower_alnum(*b) || *b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !bytes.iter().any(u8::is_ascii_lowercase) {
        out.push("must contain at least one letter (a-z)".into());
    }
    if value.contains("--") {
        out.push("must not contain consecutive hyphens".into());
    }
    if value.starts_with('-') || value.ends_with('-') {
        out.push("must not begin or end with a hyphen".into());
    }
    out
}

/// `N%`.
pub fn percent(value: &str) -> Messages {
    let ok = value
        .strip_suffix('%')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    if ok {
        return Vec::new();
    }
    let text = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(text, "[0-9]+%", &["1%", "93%"]).into()]
}

/// An HTTP header's name.
pub fn http_header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let text = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(text, "[-A-Za-z0-9]+", &["X-Header-Name"]).into()]
}

/// An environment variable's name (the relaxed rule in force since 1.34).
pub fn env_var_name(value: &str) -> Messages {
    let mut out: Messages = Vec::new();
    if value.is_empty() {
        out.push("environment variable name must be non-empty".into());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        out.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='".into(),
        );
    }
    out
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(value: &str) -> Messages {
    let mut out: Messages = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        out.push(max_len_error(SUBDOMAIN_MAX).into());
    }
    if value.is_empty()
        || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    {
        let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        out.push(regex_error(text, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]).into());
    }
    match value {
        "." => out.push("must not be '.'".into()),
        ".." => out.push("must not be '..'".into()),
        _ if value.starts_with("..") => out.push("must not start with '..'".into()),
        _ => {}
    }
    out
}

/// A name that can be one path segment (RBAC objects, EndpointSlice-like free names).
pub fn path_segment(value: &str) -> Messages {
    let mut out: Messages = Vec::new();
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'").into()];
    }
    for forbidden in ['/', '%'] {
        if value.contains(forbidden) {
            out.push(format!("may not contain '{forbidden}'").into());
        }
    }
    out
}

/// What is wrong with a value; empty where nothing is.
pub type Rule = fn(&str) -> Messages;

/// Who checks a `metadata.name`; `prefix` is true for generateName, where a trailing dash is fine.
pub type NameRule = fn(name: &str, prefix: bool) -> Messages;

fn mask_trailing_dash(name: &str) -> Cow<'_, str> {
    // As upstream does: the last two characters give way to one that is always valid.
    match name.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut masked: String = rest.to_owned();
            masked.pop();
            masked.push('a');
            Cow::Owned(masked)
        }
        _ => Cow::Borrowed(name),
    }
}

/// [`NameRule`]: DNS subdomain.
pub fn name_is_subdomain(name: &str, prefix: bool) -> Messages {
    if prefix { dns1123_subdomain(&mask_trailing_dash(name)) } else { dns1123_subdomain(name) }
}

/// [`NameRule`]: DNS label.
pub fn name_is_label(name: &str, prefix: bool) -> Messages {
    if prefix { dns1123_label(&mask_trailing_dash(name)) } else { dns1123_label(name) }
}

/// [`NameRule`]: RFC 1035 label.
pub fn name_is_dns1035(name: &str, prefix: bool) -> Messages {
    if prefix { dns1035_label(&mask_trailing_dash(name)) } else { dns1035_label(name) }
}

/// [`NameRule`]: any path segment.
pub fn name_is_path_segment(name: &str, prefix: bool) -> Messages {
    if prefix {
        // A prefix may be "." or "..": the generated name is not.
        path_segment(name).into_iter().filter(|m| !m.starts_with("may not be")).collect()
    } else {
        path_segment(name)
    }
}

/// Parses an address as Go's lenient parser does: leading zeros in IPv4 octets are decimal.
pub fn parse_ip_sloppy(value: &str) -> Option<IpAddr> {
    if let Ok(ip) = value.parse::<IpAddr>() {
        return Some(ip);
    }
    let mut octets = [0u8; 4];
    let mut parts = value.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 9 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse::<u32>().ok()?.try_into().ok()?;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Go's text of an address: IPv4-mapped IPv6 prints as IPv4.
pub fn ip_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => v6.to_string(),
        },
        IpAddr::V4(v4) => v4.to_string(),
    }
}

fn is_mapped(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

const IP_TEXT: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// An address in an old field: any spelling that parses.
pub fn validate_ip_legacy(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) -> Option<IpAddr> {
    let ip = parse_ip_sloppy(value);
    if ip.is_none() {
        errors.invalid(path, value, IP_TEXT);
    }
    ip
}

/// An address in a new field: canonical only.
pub fn validate_ip_strict(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) {
    let Some(ip) = parse_ip_sloppy(value) else {
        errors.invalid(path, value, IP_TEXT);
        return;
    };
    let mut bad = false;
    if value.parse::<IpAddr>().is_err() {
        errors.invalid(path, value, "must not have leading 0s");
        bad = true;
    }
    if is_mapped(&ip) {
        errors.invalid(path, value, "must not be an IPv4-mapped IPv6 address");
        bad = true;
    }
    let canonical = ip_text(ip);
    if !bad && canonical != value {
        errors.invalid(path, value, format!("must be in canonical form ({})", quoted(&canonical)));
    }
}

/// An address block: address and prefix length, host bits as they were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Cidr {
    /// The block with its host bits cleared.
    pub fn masked(self) -> Cidr {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
            }
        };
        Cidr { address, prefix: self.prefix }
    }

    /// Whether `ip` is inside.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.address.is_ipv4() == ip.is_ipv4()
            && Cidr { address: ip, prefix: self.prefix }.masked().address == self.masked().address
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Parses `address/prefix`, leniently on leading zeros.
pub fn parse_cidr_sloppy(value: &str) -> Option<Cidr> {
    let (address, prefix) = value.split_once('/')?;
    let address = parse_ip_sloppy(address)?;
    if prefix.is_empty() || prefix.len() > 4 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let prefix: u16 = prefix.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    (prefix <= max).then_some(Cidr { address, prefix: prefix as u8 })
}

const CIDR_TEXT: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A CIDR in an old field.
pub fn validate_cidr_legacy(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) -> Option<Cidr> {
    let cidr = parse_cidr_sloppy(value);
    if cidr.is_none() {
        errors.invalid(path, value, CIDR_TEXT);
    }
    cidr
}

/// A CIDR in a new field: canonical, no host bits.
pub fn validate_cidr_strict(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) -> Option<Cidr> {
    let Some(cidr) = parse_cidr_sloppy(value) else {
        errors.invalid(path, value, CIDR_TEXT);
        return None;
    };
    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
    if address.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0')) {
        errors.invalid(path, value, "must not have leading 0s in IP or prefix length");
    } else if is_mapped(&cidr.address) {
        errors.invalid(path, value, "must not have an IPv4-mapped IPv6 address");
    } else if cidr.masked() != cidr {
        errors.invalid(path, value, "must not have bits set beyond the prefix length");
    } else if cidr.to_string() != value {
        errors.invalid(path, value, format!("must be in canonical form ({})", quoted(&cidr.to_string())));
    }
    Some(cidr)
}

/// A fully qualified name of at least three labels (signer names, controller names).
pub fn validate_fully_qualified_name(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
        return;
    }
    let messages = dns1123_subdomain(value);
    if !messages.is_empty() {
        errors.invalid(path, value, messages.join(","));
    } else if value.split('.').count() < 3 {
        errors.invalid(path, value, "should be a domain with at least three segments separated by dots");
    }
}

/// `acme.io/foo` (job controllers, ingress controllers).
pub fn validate_domain_prefixed_path(path: &FieldPath<'_>, value: &str, errors: &mut ErrorList) {
    if value.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((host, rest)) = value.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
        errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    errors.invalid_each(path, host, dns1123_subdomain(host));
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        errors.invalid(path, rest, regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(rule: fn(&str) -> Messages, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(rule(value), Messages::new(), "{value}");
        }
        for value in bad {
            assert!(!rule(value).is_empty(), "{value}");
        }
    }

    #[test]
    fn rules_accept_and_refuse() {
        let long = "a".repeat(64);
        ok(
            dns1123_label,
            &["a", "ab", "a-1", "0", "a--1--2--b"],
            &["", "A", "a-", "-a", "a_b", "a.b", " a", &long],
        );
        ok(dns1123_subdomain, &["a", "a.b.c", "1.0-1.x"], &["", ".", "a..b", "a.", "a.B", "a_b", "-a.b"]);
        ok(dns1035_label, &["a", "a-1"], &["0a", "", "a-", "a.b", "A"]);
        ok(
            qualified_name,
            &["simple", "now-with-dashes", "1.2.3.4/5678", "Uppercase_Is_OK_123", "a.b/c-D"],
            &["", "a/b/c", "/a", "a/", "NotAllowed/x", "nospaces ", "_a", &long],
        );
        ok(label_value, &["", "a", "A.b_c-1"], &["-a", "a b", ".a", &long]);
        ok(port_name, &["http", "a1", "4xx-a"], &["", "1", "a--b", "-a", "A", "abcdefghijklmnop"]);
        ok(percent, &["0%", "110%"], &["", "%", "5", "-5%", "a%"]);
        ok(env_var_name, &["a", "-_.", "1A", "a b"], &["", "a=b", "ä"]);
        ok(config_map_key, &["a", "_", "a.b", ".hidden"], &["", ".", "..", "..a", "a/b", "a b"]);
        ok(c_identifier, &["a", "_A1"], &["", "1", "a-b"]);
        ok(wildcard_dns1123_subdomain, &["*.a.b"], &["*", "a.b", "*.*.a", "*a.b"]);
    }

    #[test]
    fn texts_are_upstreams() {
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
              start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            label_value("a b"),
            [
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
              validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            ]
        );
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    }

    #[test]
    fn generate_name_may_end_in_a_dash() {
        assert!(name_is_label("web-", true).is_empty());
        assert!(!name_is_label("web-", false).is_empty());
        assert!(!name_is_label("-", true).is_empty());
    }

    #[test]
    fn addresses() {
        assert_eq!(parse_ip_sloppy("010.000.1.1"), Some("10.0.1.1".parse().unwrap()));
        assert_eq!(parse_ip_sloppy("1.2.3"), None);
        assert_eq!(parse_ip_sloppy("1.2.3.256"), None);
        assert_eq!(parse_cidr_sloppy("10.0.0.1/33"), None);
        let mut errors = ErrorList::new();
        let path = FieldPath::new("f");
        validate_cidr_strict(&path, "10.0.0.1/8", &mut errors);
        validate_cidr_strict(&path, "10.0.0.0/08", &mut errors);
        validate_ip_strict(&path, "FE80:0::1", &mut errors);
        validate_ip_legacy(&path, "x", &mut errors);
        let texts: Vec<String> = errors.iter().map(|e| e.body()).collect();
        assert_eq!(
            texts,
            [
                "Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
                "Invalid value: \"10.0.0.0/08\": must not have leading 0s in IP or prefix length",
                "Invalid value: \"FE80:0::1\": must be in canonical form (\"fe80::1\")",
                "Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ]
        );
        assert!(parse_cidr_sloppy("10.96.0.0/12").unwrap().contains("10.111.0.1".parse().unwrap()));
        assert!(!parse_cidr_sloppy("10.96.0.0/12").unwrap().contains("10.112.0.1".parse().unwrap()));
    }
}
