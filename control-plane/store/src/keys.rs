//! Limits of the store and the order of keys.

use crate::{StoreError, Transaction, Write};

/// A key's bytes at most.
pub const MAX_KEY: usize = 1024;
/// A value's bytes at most; above what the API server lets through.
pub const MAX_VALUE: usize = 8 << 20;
/// Writes and guards of one transaction at most.
pub const MAX_WRITES: usize = 64;
/// Keys below this are objects that clients are served.
pub const SERVED: &str = "/registry/";

/// The first string above all strings that begin with `prefix`; `None` where there is none.
pub(crate) fn prefix_end(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(other as u32 + 1),
        };
        if let Some(next) = next {
            end.push(next);
            return Some(end);
        }
    }
    None
}

fn check_key(key: &str) -> Result<(), StoreError> {
    let reason = if key.is_empty() {
        "a key is empty"
    } else if key.len() > MAX_KEY {
        "a key is longer than 1024 bytes"
    } else if !key.starts_with('/') {
        "a key does not begin with a slash"
    } else if key.contains('\0') {
        "a key holds a NUL"
    } else {
        return Ok(());
    };
    Err(StoreError::Refused(reason.to_owned()))
}

/// Whether a transaction keeps to the rules of [`Transaction`] and the limits.
pub(crate) fn check(transaction: &Transaction) -> Result<(), StoreError> {
    let refuse = |reason: &str| Err(StoreError::Refused(reason.to_owned()));
    if transaction.writes.len() > MAX_WRITES || transaction.guards.len() > MAX_WRITES {
        return refuse("a transaction has more than 64 writes or guards");
    }
    for (key, _) in &transaction.guards {
        check_key(key)?;
    }
    let mut served = 0;
    for (index, write) in transaction.writes.iter().enumerate() {
        let key = write.key();
        check_key(key)?;
        served += usize::from(key.starts_with(SERVED));
        if transaction.writes[..index].iter().any(|other| other.key() == key) {
            return refuse("a transaction writes a key twice");
        }
        if let Write::Expiring { ttl, .. } = write
            && ttl.as_secs() == 0
        {
            return refuse("a key is to live for less than a second");
        }
        if let Write::Put { value, .. } | Write::Expiring { value, .. } = write {
            if value.len() > MAX_VALUE {
                return refuse("a value is larger than 8 MiB");
            }
            if std::str::from_utf8(value).is_err() {
                return refuse("a value is not UTF-8");
            }
        }
    }
    if served > 1 {
        return refuse("a transaction writes more than one served key");
    }
    Ok(())
}

impl Write {
    /// The key written.
    pub fn key(&self) -> &str {
        match self {
            Write::Put { key, .. } | Write::Expiring { key, .. } | Write::Delete { key } => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn ends_prefixes() {
        assert_eq!(prefix_end("/registry/pods/").as_deref(), Some("/registry/pods0"));
        assert_eq!(prefix_end("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(prefix_end("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(prefix_end(""), None);
    }

    fn put(key: &str, value: &'static [u8]) -> Write {
        Write::Put { key: key.to_owned(), value: Bytes::from_static(value) }
    }

    #[test]
    fn refuses_what_breaks_the_rules() {
        let check = |writes: Vec<Write>| check(&Transaction { guards: vec![], writes });
        assert!(check(vec![put("/registry/a", b"{}"), put("/keelson/b", b"{}")]).is_ok());
        for bad in [
            vec![put("/registry/a", b"{}"), put("/registry/b", b"{}")],
            vec![put("/keelson/a", b"{}"), put("/keelson/a", b"{}")],
            vec![put("", b"{}")],
            vec![put("/a\0", b"{}")],
            vec![put("a", b"{}")],
            vec![Write::Expiring {
                key: "/a".to_owned(),
                value: Bytes::from_static(b"{}"),
                ttl: std::time::Duration::from_millis(999),
            }],
            vec![put("/keelson/a", b"\xff")],
            vec![put(&"/".repeat(1025), b"{}")],
            (0..65).map(|i| put(&format!("/keelson/{i}"), b"{}")).collect(),
        ] {
            assert!(matches!(check(bad.clone()), Err(StoreError::Refused(_))), "{bad:?}");
        }
    }
}
