//! Classes of characters that have names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

/// Sorted ranges.
pub(super) type Table = Arc<[ClassUnicodeRange]>;

/// The tables that were asked for, by name and whether in any case: up to 5 KB each, the same for all expressions.
static TABLES: Mutex<BTreeMap<(String, bool), Table>> = Mutex::new(BTreeMap::new());

/// A category, script or property of Unicode; `None` where there is none of that name. Names are compared without regard to case,
/// spaces, `_` and `-`, as Go 1.25 does.
pub(super) fn table(name: &str, fold: bool) -> Option<Table> {
    let name: String =
        name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).map(|c| c.to_ascii_lowercase()).collect();
    let key = (name, fold);
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = tables.get(&key) {
        return Some(table.clone());
    }
    let mut class = read(&key.0)?;
    if fold {
        class.case_fold_simple();
    }
    let table: Table = class.ranges().into();
    tables.insert(key, table.clone());
    Some(table)
}

fn read(name: &str) -> Option<ClassUnicode> {
    match regex_syntax::parse(&format!("\\p{{{name}}}")).ok()?.into_kind() {
        HirKind::Class(Class::Unicode(class)) => Some(class),
        // A class of one character.
        HirKind::Literal(literal) => {
            let c = std::str::from_utf8(&literal.0).ok()?.chars().next()?;
            Some(ClassUnicode::new([ClassUnicodeRange::new(c, c)]))
        }
        _ => None,
    }
}

pub(super) type Ranges = &'static [(char, char)];

pub(super) const POSIX: [(&str, Ranges); 14] = [
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\x7F')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\x1F'), ('\x7F', '\x7F')]),
    ("digit", &[('0', '9')]),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// Perl's classes are ASCII in Go; of a negated one, what is not in it.
pub(super) fn perl_class(c: char) -> Ranges {
    match c {
        'd' | 'D' => &[('0', '9')],
        's' | 'S' => &[('\t', '\n'), ('\x0C', '\r'), (' ', ' ')],
        _ => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
    }
}
