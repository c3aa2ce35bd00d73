//! The reviewed facts files: fields.facts, defaults.facts and resources.facts under lib/api/schema. Their headers explain them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, bail};
use keelson_base::gates::GATES;

#[derive(Default)]
pub struct Facts {
    pub packages: Vec<PackageFact>,
    /// Message to codec.
    pub codecs: BTreeMap<String, String>,
    pub skips: BTreeMap<String, String>,
    pub messages: BTreeMap<String, MessageFact>,
    pub defaults: BTreeMap<(String, String), DefaultFact>,
    pub groups: Vec<GroupFact>,
}

pub struct PackageFact {
    pub proto: String,
    pub group: String,
    pub module: String,
    pub served: bool,
}

impl PackageFact {
    pub fn version(&self) -> &str {
        self.proto.rsplit('.').next().unwrap_or("")
    }
}

#[derive(Default, Clone)]
pub struct MessageFact {
    pub top: bool,
    /// Protobuf name to JSON name.
    pub json: BTreeMap<String, String>,
    pub inline: BTreeSet<String>,
    pub pointer: BTreeSet<String>,
    pub by_value: BTreeSet<String>,
    pub omit: BTreeSet<String>,
    pub keep: BTreeSet<String>,
    pub omit_zero: BTreeSet<String>,
    pub pointer_elements: BTreeSet<String>,
    pub empty: BTreeSet<String>,
    pub list: BTreeMap<String, (String, Vec<String>)>,
    pub patch: BTreeMap<String, String>,
    pub merge_key: BTreeMap<String, String>,
    pub map: BTreeMap<String, String>,
    pub go: BTreeMap<String, String>,
    pub enums: BTreeMap<String, Vec<String>>,
    pub gates: BTreeMap<String, String>,
}

impl MessageFact {
    /// Every field name a fact speaks of, by JSON name (protobuf name for `json` and `inline`).
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.pointer
            .iter()
            .chain(&self.by_value)
            .chain(&self.omit)
            .chain(&self.keep)
            .chain(&self.omit_zero)
            .chain(&self.empty)
            .chain(&self.pointer_elements)
            .chain(self.list.keys())
            .chain(self.patch.keys())
            .chain(self.merge_key.keys())
            .chain(self.map.keys())
            .chain(self.go.keys())
            .chain(self.enums.keys())
            .chain(self.gates.keys())
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum DefaultFact {
    Str(String),
    Int(i64),
    Bool(bool),
    Empty,
}

pub struct GroupFact {
    pub name: String,
    pub versions: Vec<VersionFact>,
}

pub struct VersionFact {
    pub version: String,
    pub gate: String,
    pub rows: Vec<RowFact>,
}

pub struct RowFact {
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Option<Vec<String>>,
    pub singular: Option<String>,
    pub hub: Option<String>,
    pub gate: String,
    pub acted: String,
    pub subs: Vec<SubFact>,
}

pub struct SubFact {
    pub name: String,
    pub verbs: Option<Vec<String>>,
    /// Group, version, kind; empty group and version mean the row's own.
    pub kind: Option<(String, String, String)>,
}

pub fn load(dir: &Path) -> anyhow::Result<Facts> {
    let mut facts = Facts::default();
    each_line(&dir.join("fields.facts"), |line| field_line(&mut facts, line))?;
    each_line(&dir.join("defaults.facts"), |line| default_line(&mut facts, line))?;
    each_line(&dir.join("resources.facts"), |line| resource_line(&mut facts, line))?;
    Ok(facts)
}

fn each_line(path: &Path, mut each: impl FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            each(line).with_context(|| format!("{} line {}", path.display(), number + 1))?;
        }
    }
    Ok(())
}

fn unquote(word: &str) -> String {
    word.trim_matches('"').to_owned()
}

fn field_line(facts: &mut Facts, line: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["package", proto, group, module, rest @ ..] => {
            let served = match rest {
                [] => true,
                ["unserved"] => false,
                other => bail!("unknown words {other:?}"),
            };
            facts.packages.push(PackageFact {
                proto: proto.to_string(),
                group: unquote(group),
                module: module.to_string(),
                served,
            });
        }
        ["codec", message, kind] => {
            facts.codecs.insert(message.to_string(), kind.to_string());
        }
        ["skip", name, reason @ ..] if !reason.is_empty() => {
            facts.skips.insert(name.to_string(), reason.join(" "));
        }
        [message, items @ ..] if message.contains('.') => {
            let mut fact = MessageFact::default();
            for item in items {
                message_item(&mut fact, item).with_context(|| format!("item {item}"))?;
            }
            if facts.messages.insert(message.to_string(), fact).is_some() {
                bail!("{message} has two lines");
            }
        }
        _ => bail!("not understood: {line}"),
    }
    Ok(())
}

fn message_item(fact: &mut MessageFact, item: &str) -> anyhow::Result<()> {
    if item == "top" {
        fact.top = true;
        return Ok(());
    }
    if let Some((word, rest)) = item.split_once('(') {
        let inner = rest.strip_suffix(')').context("no closing bracket")?;
        let pair =
            || inner.split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).context("no = in brackets");
        match word {
            "json" => fact.json.extend([pair()?]),
            "inline" => fact.inline.extend([inner.to_owned()]),
            "omitzero" => fact.omit_zero.extend([inner.to_owned()]),
            "empty" => fact.empty.extend([inner.to_owned()]),
            "ptrelem" => fact.pointer_elements.extend([inner.to_owned()]),
            "list" => {
                let (field, ty) = pair()?;
                let (ty, keys) = ty.split_once(':').unwrap_or((&ty, ""));
                let keys = keys.split(',').filter(|k| !k.is_empty()).map(str::to_owned).collect();
                fact.list.insert(field, (ty.to_owned(), keys));
            }
            "patch" => fact.patch.extend([pair()?]),
            "mergekey" => fact.merge_key.extend([pair()?]),
            "map" => fact.map.extend([pair()?]),
            "gate" => {
                let (field, gates) = pair()?;
                for gate in gates.split('+') {
                    if !GATES.iter().any(|known| known.name == gate) {
                        bail!("no feature gate is named {gate}");
                    }
                }
                fact.gates.insert(field, gates);
            }
            "enum" => {
                let (field, values) = pair()?;
                fact.enums.insert(field, values.split('|').map(|value| value.replace('~', " ")).collect());
            }
            "go" => {
                for one in inner.split(',') {
                    let (field, ty) = one.split_once('=').context("no = in go()")?;
                    fact.go.insert(field.to_owned(), ty.to_owned());
                }
            }
            other => bail!("unknown word {other}"),
        }
        return Ok(());
    }
    let (sigil, name) = item.split_at(1);
    let set = match sigil {
        "*" => &mut fact.pointer,
        "&" => &mut fact.by_value,
        "-" => &mut fact.keep,
        "+" => &mut fact.omit,
        _ => bail!("unknown item"),
    };
    set.insert(name.to_owned());
    Ok(())
}

fn default_line(facts: &mut Facts, line: &str) -> anyhow::Result<()> {
    let (target, value) = line.split_once(" = ").context("no ` = `")?;
    let (message, field) = target.rsplit_once('.').context("no field")?;
    let value = match value {
        "true" => DefaultFact::Bool(true),
        "false" => DefaultFact::Bool(false),
        "{}" => DefaultFact::Empty,
        text if text.starts_with('"') => DefaultFact::Str(unquote(text)),
        number => DefaultFact::Int(number.parse().context("neither a string, a boolean, {} nor an integer")?),
    };
    if facts.defaults.insert((message.to_owned(), field.to_owned()), value).is_some() {
        bail!("{target} has two defaults");
    }
    Ok(())
}

/// Words, with quoted parts kept together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                words.last_mut().expect("never empty").push('"');
            }
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().expect("never empty").push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn resource_line(facts: &mut Facts, line: &str) -> anyhow::Result<()> {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["group", name, _versions @ ..] => {
            facts.groups.push(GroupFact { name: unquote(name), versions: Vec::new() })
        }
        ["version", version, rest @ ..] => {
            let gate = match rest {
                [] => String::new(),
                [gate] => gate.strip_prefix("gate=").context("gate=… expected")?.to_owned(),
                other => bail!("unknown words {other:?}"),
            };
            let group = facts.groups.last_mut().context("a version before any group")?;
            group.versions.push(VersionFact { version: version.to_string(), gate, rows: Vec::new() });
        }
        [plural, kind, scope, rest @ ..] => {
            let row = row(plural, kind, scope, rest)?;
            let version = facts
                .groups
                .last_mut()
                .and_then(|g| g.versions.last_mut())
                .context("a row before any version")?;
            version.rows.push(row);
        }
        _ => bail!("not understood"),
    }
    Ok(())
}

fn row(plural: &str, kind: &str, scope: &str, rest: &[&str]) -> anyhow::Result<RowFact> {
    let mut row = RowFact {
        plural: plural.to_owned(),
        kind: kind.to_owned(),
        namespaced: match scope {
            "N" => true,
            "C" => false,
            other => bail!("scope {other}"),
        },
        short: Vec::new(),
        categories: Vec::new(),
        verbs: None,
        singular: None,
        hub: None,
        gate: String::new(),
        acted: String::new(),
        subs: Vec::new(),
    };
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("short", v)) => row.short = list(v),
            Some(("cat", v)) => row.categories = list(v),
            Some(("verbs", v)) => row.verbs = Some(list(v)),
            Some(("singular", v)) => row.singular = Some(v.to_owned()),
            Some(("hub", v)) => row.hub = Some(v.to_owned()),
            Some(("gate", v)) => row.gate = v.to_owned(),
            Some(("acted", v)) => row.acted = unquote(v),
            None if *word == "sub" => row.subs.push(sub(words.next().context("sub without a name")?)?),
            _ => bail!("unknown word {word}"),
        }
    }
    Ok(row)
}

fn sub(text: &str) -> anyhow::Result<SubFact> {
    let (head, kind) = match text.split_once('=') {
        Some((head, kind)) => (head, Some(kind)),
        None => (text, None),
    };
    let (name, verbs) = match head.split_once(':') {
        Some((name, verbs)) => (name, Some(list(verbs))),
        None => (head, None),
    };
    let kind = match kind.map(|k| k.split('/').collect::<Vec<_>>()).as_deref() {
        None => None,
        Some([kind]) => Some((String::new(), String::new(), kind.to_string())),
        Some([group, version, kind]) => Some((group.to_string(), version.to_string(), kind.to_string())),
        Some(_) => bail!("kind of {text}"),
    };
    Ok(SubFact { name: name.to_owned(), verbs, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_line() {
        let mut facts = Facts::default();
        let line = "a.v1.Foo top *p &s -k +o json(uID=uid) inline(inner) list(l=map:a,b) enum(t=|one~two) go(t=v1.T)";
        field_line(&mut facts, line).expect("reads");
        let fact = &facts.messages["a.v1.Foo"];
        assert!(fact.top && fact.pointer.contains("p") && fact.by_value.contains("s"));
        assert!(fact.keep.contains("k") && fact.omit.contains("o") && fact.inline.contains("inner"));
        assert_eq!(fact.json["uID"], "uid");
        assert_eq!(fact.list["l"], ("map".into(), vec!["a".into(), "b".into()]));
        assert_eq!(fact.enums["t"], ["", "one two"]);
        assert!(field_line(&mut facts, line).is_err(), "a second line of a message");
        assert!(field_line(&mut facts, "a.v1.Bar nope(x)").is_err());
    }

    #[test]
    fn a_resource_line() {
        let mut facts = Facts::default();
        for line in [
            "group apps v1",
            "version v1 gate=off",
            "things Thing N short=t,th hub=v1 acted=\"a, b\" sub scale:get=autoscaling/v1/Scale sub status",
        ] {
            resource_line(&mut facts, line).expect("reads");
        }
        let version = &facts.groups[0].versions[0];
        let row = &version.rows[0];
        assert_eq!((version.gate.as_str(), row.acted.as_str(), row.subs.len()), ("off", "a, b", 2));
        assert_eq!(row.subs[0].kind, Some(("autoscaling".into(), "v1".into(), "Scale".into())));
        assert!(resource_line(&mut facts, "things Thing X").is_err());
    }

    #[test]
    fn a_default_line() {
        let mut facts = Facts::default();
        default_line(&mut facts, "a.v1.Foo.x = \"y\"").expect("reads");
        assert_eq!(facts.defaults[&("a.v1.Foo".into(), "x".into())], DefaultFact::Str("y".into()));
        assert!(default_line(&mut facts, "a.v1.Foo.x = 1").is_err(), "a second default");
        assert!(default_line(&mut facts, "a.v1.Foo.z = nope").is_err());
    }
}
