//! Tables of command lines and what they must say, as text:
//!
//! ```text
//! # a comment
//! $ kubectl get pod web            a row: run by bash; the folder is a copy of the table's files
//! NAME   READY   STATUS    RESTARTS   AGE
//! web    1/1     Running   0          <age>
//! ! a line of standard error
//! ? 1                              the exit code, 0 when left out
//! known: why                       keelson is known to answer otherwise: told, and a failure once it no longer does
//! ~$ kubectl get pod web           repeated until it says what is expected, for half a minute at most
//! uid=$ kubectl get ...            what it prints is {uid} in later rows
//! 135$ kubectl ...                 only with that client; `135| ` before a line of output says the same
//! \$ text                          a line of output that begins like one of the above
//! ```
//!
//! `{name}` stands for a value that the run knows; braces around anything else are left alone.

use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// One command line and what it must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub line: usize,
    pub command: String,
    pub out: Vec<String>,
    pub err: Vec<String>,
    pub code: i32,
    /// Repeat until it fits.
    pub eventually: bool,
    /// Why keelson does not say this yet.
    pub known: Option<String>,
    /// Keep what it prints under this name.
    pub capture: Option<String>,
}

/// Reads a table; `tag` names the client, rows and lines for another are left out.
pub fn parse(text: &str, tag: &str) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut mine = true;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if let Some((only, row)) = start(line) {
            mine = only.is_none_or(|only| only == tag);
            if mine {
                rows.push(Row { line: number + 1, ..row });
            }
            continue;
        }
        if !mine {
            continue;
        }
        let Some(row) = rows.last_mut() else {
            if line.trim().is_empty() {
                continue;
            }
            bail!("line {}: output before the first command", number + 1);
        };
        add(row, line, tag, number + 1)?;
    }
    rows.iter_mut().for_each(trim);
    Ok(rows)
}

fn add(row: &mut Row, line: &str, tag: &str, number: usize) -> Result<()> {
    let line = match line.split_once("| ").or_else(|| line.strip_suffix('|').map(|tag| (tag, ""))) {
        Some((only, rest)) if is_tag(only) => {
            if only != tag {
                return Ok(());
            }
            rest
        }
        _ => line,
    };
    if let Some(code) = line.strip_prefix("? ") {
        row.code =
            code.trim().parse().map_err(|_| anyhow::anyhow!("line {number}: not an exit code: {code}"))?;
    } else if let Some(why) = line.strip_prefix("known: ") {
        row.known = Some(why.to_owned());
    } else if let Some(text) = line.strip_prefix("! ") {
        row.err.push(text.to_owned());
    } else if line == "!" {
        row.err.push(String::new());
    } else {
        row.out.push(line.strip_prefix('\\').unwrap_or(line).to_owned());
    }
    Ok(())
}

fn is_tag(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The beginning of a row, and the client it is for.
fn start(line: &str) -> Option<(Option<&str>, Row)> {
    let (before, command) = line.split_once("$ ")?;
    let (before, eventually) = match before.strip_suffix('~') {
        Some(before) => (before, true),
        None => (before, false),
    };
    let mut row = Row { command: command.to_owned(), eventually, ..Row::default() };
    if let Some(name) = before.strip_suffix('=') {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        row.capture = Some(name.to_owned());
        return Some((None, row));
    }
    (before.is_empty() || is_tag(before)).then_some(((!before.is_empty()).then_some(before), row))
}

fn trim(row: &mut Row) {
    for lines in [&mut row.out, &mut row.err] {
        while lines.last().is_some_and(|line| line.trim().is_empty()) {
            lines.pop();
        }
    }
}

/// Replaces every `{name}` that is known.
pub fn fill(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = rest.find('}').and_then(|end| Some((end, values.get(&rest[1..end])?)));
        match known {
            Some((end, value)) => {
                out.push_str(value);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

/// What is told of one kind for the rows that every kind is tried with: `[name]`, then lines up to the next one.
pub fn blocks(text: &str) -> BTreeMap<String, String> {
    let mut blocks: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(new) if new.bytes().all(|byte| byte.is_ascii_lowercase()) => name = new.to_owned(),
            _ => {
                let block = blocks.entry(name.clone()).or_default();
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks.values_mut().for_each(|block| block.truncate(block.trim_end().len()));
    blocks
}

/// The values of one kind: its blocks, and what follows from its names.
pub fn kind(text: &str) -> BTreeMap<String, String> {
    let mut values = blocks(text);
    let of = |values: &BTreeMap<String, String>, name: &str| values.get(name).cloned().unwrap_or_default();
    let (kind, api, plural) = (of(&values, "kind"), of(&values, "api"), of(&values, "plural"));
    let arg = kind.to_lowercase();
    let (group, version) = api.split_once('/').unwrap_or(("", &api));
    let dotted = |name: &str| if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") };
    let head = if group.is_empty() { String::new() } else { format!("GROUP:      {group}\n") };
    let derived = [
        ("res", dotted(&arg)),
        ("long", dotted(&plural)),
        ("file", format!("{arg}.yaml")),
        ("explain", format!("{head}KIND:       {kind}\nVERSION:    {version}")),
        ("apigroup", group.to_owned()),
        ("version", version.to_owned()),
        ("cut", String::new()),
        ("warning", String::new()),
        ("reapplied", format!("{}/web unchanged", dotted(&arg))),
        (
            "exists",
            format!(
                "! Error from server (AlreadyExists): error when creating \"{arg}.yaml\": {} \"web\" already exists",
                dotted(&plural)
            ),
        ),
        (
            "absent",
            format!(
                "! Error from server (NotFound): error when replacing \"STDIN\": {} \"none\" not found\n? 1",
                dotted(&plural)
            ),
        ),
        ("replace", String::new()),
        ("replaced", format!("{}/web replaced", dotted(&arg))),
        ("arg", arg),
    ];
    for (name, value) in derived {
        values.entry(name.to_owned()).or_insert(value);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows() {
        let text = "# c\n$ a {.x}\nout\n\n135| new\n132| old\n! bad\n? 1\n\nuid=$ b\n132$ c\n\\$ d\n~$ e\n";
        let rows = parse(text, "135").expect("a table");
        let words: Vec<&str> = rows.iter().map(|row| row.command.as_str()).collect();
        assert_eq!(words, ["a {.x}", "b", "e"]);
        assert_eq!(rows[0].out, ["out", "", "new"]);
        assert_eq!((rows[0].err.as_slice(), rows[0].code), (["bad".to_owned()].as_slice(), 1));
        assert_eq!(rows[1].capture.as_deref(), Some("uid"));
        assert!(rows[2].eventually && !rows[0].eventually);
        assert_eq!(parse("$ a\nknown: later\n", "1").expect("a table")[0].known.as_deref(), Some("later"));
        let rows = parse(text, "132").expect("a table");
        assert_eq!(rows[2].out, ["$ d"]);
        assert!(parse("x\n$ a\n", "1").is_err());
    }

    #[test]
    fn fills_what_is_known() {
        let values = BTreeMap::from([("ns".to_owned(), "a".to_owned())]);
        assert_eq!(fill("{ns} {.ns} {{ns}} {b} {", &values), "a {.ns} {a} {b} {");
    }

    #[test]
    fn reads_blocks() {
        let blocks = blocks("[a]\n1\n2\n\n# c\n[b]\n3\n");
        assert_eq!(blocks["a"], "1\n2");
        assert_eq!(blocks["b"], "3");
    }
}
