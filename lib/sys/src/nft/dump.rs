//! Reading back a table: what a process that starts again finds in force, and what tests check.
use std::collections::BTreeMap;

use super::abi::*;
use super::model::{Base, ChainKind, Data, Element, Hook, SetData, SetSpec, Verdict, key_len, type_id};
use crate::nl::{self, Attrs, Buf, NlError, Socket, be32, be64, string};

/// So many elements certainly fit one piece of a dump.
const ONE_PIECE: usize = 16;
/// Readings of a set until two agree.
const READS: usize = 16;

/// A chain as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainState {
    pub base: Option<Base>,
    /// Per rule, in order: its handle and our content hash (None for a rule that is not ours).
    pub rules: Vec<(u64, Option<u64>)>,
    /// A base chain that this crate would never make (policy drop, another type or hook).
    pub foreign: bool,
}

/// A named set or map as the kernel has it, without its elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetState {
    flags: u32,
    key_type: u32,
    key_len: u32,
    data_type: u32,
    data_len: u32,
    timeout_ms: u64,
    size: u32,
}

impl SetState {
    /// Whether it was made from this specification.
    pub fn matches(&self, spec: &SetSpec) -> bool {
        let (data_type, data_len) = match &spec.data {
            SetData::None => (0, 0),
            SetData::Verdict => (DATA_VERDICT, self.data_len),
            SetData::Value(fields) => (type_id(fields), key_len(fields) as u32),
        };
        let flag = |bit: u32, on: bool| (self.flags & bit != 0) == on;
        self.key_type == type_id(&spec.key)
            && self.key_len == key_len(&spec.key) as u32
            && self.data_type == data_type
            && self.data_len == data_len
            && self.timeout_ms == spec.timeout_ms.unwrap_or(0)
            && spec.size.is_none_or(|size| size == self.size)
            && flag(SET_INTERVAL, spec.interval)
            && flag(SET_EVAL, spec.dynamic)
            && flag(SET_MAP, spec.data != SetData::None)
    }
}

/// A table as the kernel has it, without elements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableState {
    pub handle: u64,
    pub userdata: Vec<u8>,
    pub chains: BTreeMap<String, ChainState>,
    pub sets: BTreeMap<String, SetState>,
}

fn request(buf: &mut Buf, kind: u16, seq: u32, table: &str, set: Option<&str>) {
    let mark = buf.message(SUBSYS | kind, nl::F_REQUEST | nl::F_DUMP, seq);
    buf.raw(&[NFPROTO_INET, 0, 0, 0]);
    buf.str(1, table);
    if let Some(set) = set {
        buf.str(2, set);
    }
    buf.end_message(mark);
}

/// The handle and user data of a table, None where there is none. One small exchange.
pub fn read_header(socket: &mut Socket, table: &str) -> Result<Option<(u64, Vec<u8>)>, NlError> {
    let seq = socket.next_seq();
    let mut buf = Buf::new();
    let mark = buf.message(SUBSYS | GETTABLE, nl::F_REQUEST, seq);
    buf.raw(&[NFPROTO_INET, 0, 0, 0]);
    buf.str(1, table);
    buf.end_message(mark);
    let found = socket.get(&buf, |_, body| {
        let attrs = Attrs(body.get(4..).unwrap_or(&[]));
        (attrs.find(4).map_or(0, be64), attrs.find(6).unwrap_or(&[]).to_vec())
    });
    match found {
        Ok(header) => Ok(Some(header)),
        Err(e) if e.errno() == Some(nix::errno::Errno::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads a table's chains, rules and named sets. None where there is no such table.
pub fn read_table(socket: &mut Socket, table: &str) -> Result<Option<TableState>, NlError> {
    let Some((handle, userdata)) = read_header(socket, table)? else { return Ok(None) };
    let mut state = TableState { handle, userdata, ..TableState::default() };
    socket.dump(
        &mut state,
        |buf, seq| request(buf, GETCHAIN, seq, table, None),
        |state| state.chains.clear(),
        |state, _, body| read_chain(state, table, body),
    )?;
    socket.dump(
        &mut state,
        |buf, seq| request(buf, GETRULE, seq, table, None),
        |state| state.chains.values_mut().for_each(|c| c.rules.clear()),
        |state, _, body| read_rule(state, table, body),
    )?;
    socket.dump(
        &mut state,
        |buf, seq| request(buf, GETSET, seq, table, None),
        |state| state.sets.clear(),
        |state, _, body| read_set(state, table, body),
    )?;
    Ok(Some(state))
}

fn read_chain(state: &mut TableState, table: &str, body: &[u8]) {
    let attrs = Attrs(body.get(4..).unwrap_or(&[]));
    // Chains of every table of the family are dumped.
    if attrs.find(1).map(string).as_deref() != Some(table) {
        return;
    }
    let Some(name) = attrs.find(3).map(string) else { return };
    let mut chain = ChainState::default();
    if let Some(hook) = attrs.find(4) {
        let number = Attrs(hook).find(1).map_or(u32::MAX, be32);
        let priority = Attrs(hook).find(2).map_or(0, be32) as i32;
        let hook = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting]
            .into_iter()
            .find(|h| *h as u32 == number);
        let kind = match attrs.find(7).map(string).as_deref() {
            Some("filter") => Some(ChainKind::Filter),
            Some("nat") => Some(ChainKind::Nat),
            _ => None,
        };
        let accepts = attrs.find(5).map_or(1, be32) == 1;
        match (kind, hook, accepts) {
            (Some(kind), Some(hook), true) => chain.base = Some(Base { kind, hook, priority }),
            _ => chain.foreign = true,
        }
    }
    state.chains.insert(name, chain);
}

fn read_rule(state: &mut TableState, table: &str, body: &[u8]) {
    let attrs = Attrs(body.get(4..).unwrap_or(&[]));
    if attrs.find(1).map(string).as_deref() != Some(table) {
        return;
    }
    let Some(chain) = attrs.find(2).map(string).and_then(|name| state.chains.get_mut(&name)) else { return };
    let hash = attrs.find(7).and_then(|userdata| {
        let mut rest = userdata;
        while let [kind, len, tail @ ..] = rest {
            let value = tail.get(..usize::from(*len))?;
            if *kind == UDATA_HASH {
                return value.first_chunk::<8>().map(|b| u64::from_be_bytes(*b));
            }
            rest = &tail[usize::from(*len)..];
        }
        None
    });
    chain.rules.push((attrs.find(3).map_or(0, be64), hash));
}

fn read_set(state: &mut TableState, table: &str, body: &[u8]) {
    let attrs = Attrs(body.get(4..).unwrap_or(&[]));
    let flags = attrs.find(3).map_or(0, be32);
    if attrs.find(1).map(string).as_deref() != Some(table) || flags & SET_ANONYMOUS != 0 {
        return;
    }
    let number = |kind| attrs.find(kind).map_or(0, be32);
    let set = SetState {
        flags,
        key_type: number(4),
        key_len: number(5),
        data_type: number(6),
        data_len: number(7),
        timeout_ms: attrs.find(11).map_or(0, be64),
        size: attrs.find(9).and_then(|desc| Attrs(desc).find(1)).map_or(0, be32),
    };
    if let Some(name) = attrs.find(2).map(string) {
        state.sets.insert(name, set);
    }
}

/// Reads a set's elements. Ranges of single-field sets come back as [`Element::key_end`].
///
/// The kernel's hash tables grow in the background, and a dump that meets this tells some elements twice and others
/// not at all, without marking it as interrupted. So a set that takes more than one piece is read until two readings
/// agree.
pub fn read_elements(socket: &mut Socket, table: &str, spec: &SetSpec) -> Result<Vec<Element>, NlError> {
    let mut raw = read_once(socket, table, spec)?;
    let mut tries = 0;
    while raw.len() > ONE_PIECE {
        let again = read_once(socket, table, spec)?;
        if again == raw {
            break;
        }
        raw = again;
        tries += 1;
        if tries == READS {
            return Err(NlError::Unstable);
        }
    }
    if !spec.interval || spec.key.len() > 1 {
        return Ok(raw.into_iter().map(|(e, _)| e).collect());
    }
    let mut elements: Vec<Element> = Vec::new();
    let mut open = false;
    for (element, end) in raw {
        if !end {
            elements.push(Element { key_end: Some(vec![0xff; element.key.len()]), ..element });
            open = true;
        } else if let (true, Some(last)) = (open, elements.last_mut()) {
            last.key_end = Some(predecessor(&element.key));
            open = false;
        }
    }
    Ok(elements)
}

/// One dump, by key, ends of ranges before starts, without repetitions.
fn read_once(socket: &mut Socket, table: &str, spec: &SetSpec) -> Result<Vec<(Element, bool)>, NlError> {
    let mut raw: Vec<(Element, bool)> = Vec::new();
    socket.dump(
        &mut raw,
        |buf, seq| request(buf, GETSETELEM, seq, table, Some(&spec.name)),
        |raw| raw.clear(),
        |raw, _, body| {
            let Some(list) = Attrs(body.get(4..).unwrap_or(&[])).find(3) else { return };
            raw.extend(Attrs(list).filter_map(|(_, elem)| read_element(elem)));
        },
    )?;
    raw.sort_by(|a, b| a.0.key.cmp(&b.0.key).then(b.1.cmp(&a.1)));
    raw.dedup();
    Ok(raw)
}

fn predecessor(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (value, borrow) = byte.overflowing_sub(1);
        *byte = value;
        if !borrow {
            break;
        }
    }
    key
}

fn read_element(elem: &[u8]) -> Option<(Element, bool)> {
    let attrs = Attrs(elem);
    let key = Attrs(attrs.find(1)?).find(1)?.to_vec();
    let key_end = attrs.find(10).and_then(|k| Attrs(k).find(1)).map(<[u8]>::to_vec);
    let data = match attrs.find(2) {
        None => Data::None,
        Some(data) => match (Attrs(data).find(1), Attrs(data).find(2)) {
            (Some(value), _) => Data::Value(value.to_vec()),
            (None, Some(verdict)) => {
                let code = Attrs(verdict).find(1).map_or(0, be32) as i32;
                Data::Verdict(Verdict::from_parts(code, Attrs(verdict).find(2).map(string))?)
            }
            (None, None) => Data::None,
        },
    };
    let end = attrs.find(3).map_or(0, be32) & ELEM_INTERVAL_END != 0;
    Some((Element { key, key_end, data }, end))
}
