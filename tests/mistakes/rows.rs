//! The data files, read.

use crate::NS;
use crate::curl::Answer;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A type with a valid object.
#[derive(Debug)]
pub struct Type {
    pub name: String,
    path: String,
    object: Value,
}

impl Type {
    pub fn namespaced(&self) -> bool {
        self.path.contains("/NS/")
    }

    pub fn collection(&self, query: &str) -> String {
        format!("{}?{query}", with_namespace(&self.path))
    }

    pub fn item(&self, name: &str) -> String {
        format!("{}/{name}", with_namespace(&self.path))
    }

    /// The name of the object that updates are tried on.
    pub fn object_name(&self) -> String {
        format!("m-{}", self.name.to_lowercase())
    }

    /// The valid object under a name.
    pub fn named(&self, name: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"] = serde_json::json!({ "name": name });
        object
    }
}

fn with_namespace(path: &str) -> String {
    let path = path.replace("/OBJ", "/NS/configmaps/present");
    path.replace("/NS", &format!("/namespaces/{NS}"))
}

/// What a row does.
pub enum Row {
    Create { wanted: Arc<Type>, changes: String },
    Update { wanted: Arc<Type>, changes: String },
    Body { wanted: Arc<Type>, text: String },
    Request { method: String, path: String, body: String, headers: Vec<String> },
}

/// One request and its answer.
pub struct Case {
    /// The row as written, with the one type it is about.
    pub line: String,
    /// The row's part that names the mistake, whatever the type.
    pub mistake: String,
    pub row: Row,
    pub expected: Refusal,
}

/// Code, reason, and the causes as field=kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    code: u16,
    reason: String,
    causes: BTreeSet<String>,
}

impl Refusal {
    fn parse(text: &str) -> Refusal {
        let (code, rest) = text.split_once(' ').expect("code and reason");
        let (reason, causes) = rest.split_once(' ').unwrap_or((rest, ""));
        // A key of a map may hold a space, so causes end where "=Kind" does.
        let mut fields = BTreeSet::new();
        let mut field = String::new();
        for word in causes.split(' ').filter(|word| !word.is_empty()) {
            field.push_str(word);
            match word.rsplit_once('=') {
                Some(_) => drop(fields.insert(std::mem::take(&mut field))),
                None => field.push(' '),
            }
        }
        Refusal {
            code: code.parse().expect("a code"),
            reason: reason.trim_matches('-').to_owned(),
            causes: fields,
        }
    }

    /// What an answer says; causes are compared only where some are expected or the answer is Invalid.
    pub fn of(&self, answer: &Answer) -> Refusal {
        let status = answer.status();
        let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = causes
            .iter()
            .filter(|_| !self.causes.is_empty())
            .map(|cause| {
                format!(
                    "{}={}",
                    text(&cause["field"]),
                    text(&cause["reason"]).trim_start_matches("FieldValue")
                )
            })
            .collect();
        Refusal { code: answer.code, reason: text(&status["reason"]), causes }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)?;
        self.causes.iter().try_for_each(|cause| write!(f, " {cause}"))
    }
}

fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// All of types.txt.
pub fn types() -> Vec<Type> {
    lines(include_str!("types.txt"))
        .map(|line| {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [name, path, object] = parts[..] else { panic!("three parts: {line}") };
            let object = serde_json::from_str(object).unwrap_or_else(|error| panic!("{name}: {error}"));
            Type { name: name.to_owned(), path: path.to_owned(), object }
        })
        .collect()
}

/// All of cases.txt, each row once for every type it names.
pub fn cases(types: &[Type]) -> Vec<Case> {
    let types: Vec<Arc<Type>> = types
        .iter()
        .map(|t| Arc::new(Type { name: t.name.clone(), path: t.path.clone(), object: t.object.clone() }))
        .collect();
    lines(include_str!("cases.txt")).flat_map(|line| row(line, &types)).collect()
}

fn row(line: &'static str, types: &[Arc<Type>]) -> Vec<Case> {
    let parts: Vec<&str> = line.split(" |").map(str::trim).collect();
    let (verb, rest) = parts[0].split_once(' ').expect("a verb");
    if !["create", "update", "body"].contains(&verb) {
        let [_, body, headers, expected] = parts[..] else { panic!("four parts: {line}") };
        let headers = headers.split("; ").filter(|header| !header.is_empty()).map(str::to_owned).collect();
        let row = Row::Request {
            method: verb.to_owned(),
            path: with_namespace(&repeated(rest)),
            body: repeated(body),
            headers,
        };
        return vec![Case {
            line: line.to_owned(),
            mistake: parts[0].to_owned() + body,
            row,
            expected: Refusal::parse(expected),
        }];
    }
    let [_, what, expected] = parts[..] else { panic!("three parts: {line}") };
    let wanted: Vec<&Arc<Type>> = match rest {
        "*" => types.iter().collect(),
        names => names
            .split(',')
            .map(|name| types.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no type {name}")))
            .collect(),
    };
    let one = |wanted: &Arc<Type>| {
        let wanted = wanted.clone();
        let line = format!("{verb} {} | {what} | {expected}", wanted.name);
        let row = match verb {
            "create" => Row::Create { wanted, changes: what.to_owned() },
            "update" => Row::Update { wanted, changes: what.to_owned() },
            _ => Row::Body { wanted, text: repeated(what) },
        };
        Case { line, mistake: what.to_owned(), row, expected: Refusal::parse(expected) }
    };
    wanted.into_iter().map(one).collect()
}

/// `3^ab` is `ababab`; within a text only the last word of the kind `=3^ab` is meant.
fn repeated(text: &str) -> String {
    let Some((before, unit)) = text.split_once('^') else { return text.to_owned() };
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (kept, count) = before.split_at(before.len() - digits);
    match count.parse() {
        Ok(count) => format!("{kept}{}", unit.repeat(count)),
        Err(_) => text.to_owned(),
    }
}

#[test]
fn the_data_is_read_as_written() {
    assert_eq!(repeated("?a=3^xy"), "?a=xyxyxy");
    assert_eq!(repeated("plain"), "plain");
    let refusal = Refusal::parse("422 Invalid data[bad key]=Invalid spec=Required");
    assert_eq!(
        refusal.causes.iter().map(String::as_str).collect::<Vec<_>>(),
        ["data[bad key]=Invalid", "spec=Required"]
    );
    let all = cases(&types());
    assert!(all.iter().any(|case| case.line.starts_with("create RuntimeClass | metadata.name=")));
}
