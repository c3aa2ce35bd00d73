//! Atomic batches: all of it is applied or none, and packets see either the old or the new rules.
use nix::errno::Errno;

use super::abi::*;
use super::expr::{Expr, SetRef};
use super::model::{self, Chain, Data, Element, Field, SetData, SetSpec, key_len};
use super::rule::Rule;
use crate::nl::{self, Attrs, Buf, Family, Mark, NlError, Socket};

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// An attribute is at most 64 KiB; element lists are cut before that.
const ELEMENT_LIST_LIMIT: usize = 48 << 10;
/// Offset of the generation number in every batch: header, nfgenmsg, attribute header.
const GENERATION_AT: usize = 24;

/// Why a batch was not applied. Nothing of it is in force.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// Somebody changed the rules since the generation that the batch was made for.
    #[error("the rules changed since generation {0}")]
    GenerationMoved(u32),
    /// The kernel refused a message.
    #[error("nftables: {message}: refused ({refused} of {of} messages)")]
    Refused { message: String, refused: usize, of: usize, source: Errno },
    #[error("nftables")]
    Netlink(#[from] NlError),
}

impl NftError {
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NftError::Refused { source, .. } => Some(*source),
            NftError::Netlink(e) => e.errno(),
            NftError::GenerationMoved(_) => None,
        }
    }
    /// [`NftError::errno`] as a number.
    pub fn raw_errno(&self) -> Option<i32> {
        self.errno().map(|e| e as i32)
    }
}

/// The ruleset's generation: it moves with every commit by anyone.
pub fn generation(socket: &mut Socket) -> Result<u32, NlError> {
    let seq = socket.next_seq();
    let mut buf = Buf::new();
    let mark = buf.message(SUBSYS | GETGEN, nl::F_REQUEST, seq);
    buf.raw(&[0, 0, 0, 0]);
    buf.end_message(mark);
    socket.get(&buf, |_, body| body.get(4..).and_then(|a| Attrs(a).find(1)).map_or(0, nl::be32))
}

/// Opens a socket for batches and dumps in the calling thread's network namespace.
pub fn open() -> Result<Socket, NlError> {
    Socket::open(Family::Netfilter)
}

/// A batch under construction. Messages are executed in the order in which they were added.
pub struct Batch {
    buf: Buf,
    messages: u32,
    anon: u32,
    last: Option<Mark>,
}

impl Default for Batch {
    fn default() -> Batch {
        Batch::new()
    }
}

impl Batch {
    pub fn new() -> Batch {
        let mut buf = Buf::new();
        let mark = buf.message(BATCH_BEGIN, nl::F_REQUEST, 0);
        buf.raw(&[0, 0]);
        buf.raw(&(SUBSYS >> 8).to_be_bytes());
        buf.be32(1, 0);
        buf.end_message(mark);
        Batch { buf, messages: 0, anon: 0, last: None }
    }
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }
    /// Messages so far.
    pub fn len(&self) -> usize {
        self.messages as usize
    }
    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    fn begin(&mut self, kind: u16, flags: u16) -> Mark {
        self.messages += 1;
        let mark = self.buf.message(SUBSYS | kind, nl::F_REQUEST | flags, self.messages);
        self.buf.raw(&[NFPROTO_INET, 0, 0, 0]);
        self.last = Some(mark);
        mark
    }

    /// Adds the table where it is missing.
    pub fn add_table(&mut self, table: &str, userdata: &[u8]) {
        let mark = self.begin(NEWTABLE, nl::F_CREATE);
        self.buf.str(1, table);
        if !userdata.is_empty() {
            self.buf.attr(6, userdata);
        }
        self.buf.end_message(mark);
    }
    /// Deletes the table with all in it; it must exist.
    pub fn delete_table(&mut self, table: &str) {
        let mark = self.begin(DELTABLE, 0);
        self.buf.str(1, table);
        self.buf.end_message(mark);
    }
    /// Adds a chain where it is missing.
    pub fn add_chain(&mut self, table: &str, chain: &Chain) {
        let mark = self.begin(NEWCHAIN, nl::F_CREATE);
        self.buf.str(1, table);
        self.buf.str(3, &chain.name);
        if let Some(base) = &chain.base {
            let hook = self.buf.nest(4);
            self.buf.be32(1, base.hook as u32);
            self.buf.be32(2, base.priority as u32);
            self.buf.end(hook);
            self.buf.be32(5, 1);
            self.buf.str(7, base.kind.name());
        }
        self.buf.end_message(mark);
    }
    pub fn delete_chain(&mut self, table: &str, chain: &str) {
        let mark = self.begin(DELCHAIN, 0);
        self.buf.str(1, table);
        self.buf.str(3, chain);
        self.buf.end_message(mark);
    }
    /// Removes a chain's rules.
    pub fn flush_chain(&mut self, table: &str, chain: &str) {
        let mark = self.begin(DELRULE, 0);
        self.buf.str(1, table);
        self.buf.str(2, chain);
        self.buf.end_message(mark);
    }

    /// Appends a rule, making its anonymous sets first.
    pub fn add_rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        let mut names: Vec<Option<(&'static str, u32)>> = Vec::with_capacity(rule.exprs.len());
        for expr in &rule.exprs {
            names.push(match expr {
                Expr::Lookup { set: SetRef::Anon(set), .. } => {
                    self.anon += 1;
                    let name = if set.data == SetData::None { "__set%d" } else { "__map%d" };
                    let spec = SetSpec {
                        interval: set.interval,
                        size: Some(set.elements.len() as u32),
                        ..SetSpec::new(name, &set.key, set.data.clone())
                    };
                    let id = self.anon;
                    self.write_set(table, &spec, Some(id));
                    self.write_elements(NEWSETELEM, table, &spec, &set.elements, Some(id));
                    Some((name, id))
                }
                _ => None,
            });
        }
        let mark = self.begin(NEWRULE, nl::F_CREATE | nl::F_APPEND);
        self.buf.str(1, table);
        self.buf.str(2, chain);
        let list = self.buf.nest(4);
        for (expr, name) in rule.exprs.iter().zip(names) {
            expr.encode(&mut self.buf, name);
        }
        self.buf.end(list);
        let mut userdata = vec![UDATA_HASH, 8];
        userdata.extend_from_slice(&rule.content_hash().to_be_bytes());
        self.buf.attr(7, &userdata);
        self.buf.end_message(mark);
    }

    /// Adds a named set or map where it is missing.
    pub fn add_set(&mut self, table: &str, spec: &SetSpec) {
        self.anon += 1;
        self.write_set(table, spec, None);
    }

    fn write_set(&mut self, table: &str, spec: &SetSpec, anon: Option<u32>) {
        let mark = self.begin(NEWSET, nl::F_CREATE);
        let mut flags = if anon.is_some() { SET_ANONYMOUS | SET_CONSTANT } else { 0 };
        flags |= if spec.interval { SET_INTERVAL } else { 0 };
        flags |= if spec.interval && spec.key.len() > 1 { SET_CONCAT } else { 0 };
        flags |= if spec.timeout_ms.is_some() { SET_TIMEOUT } else { 0 };
        flags |= if spec.dynamic { SET_EVAL } else { 0 };
        flags |= if spec.data == SetData::None { 0 } else { SET_MAP };
        self.buf.str(1, table);
        self.buf.str(2, &spec.name);
        self.buf.be32(3, flags);
        self.buf.be32(4, model::type_id(&spec.key));
        self.buf.be32(5, key_len(&spec.key) as u32);
        match &spec.data {
            SetData::None => {}
            SetData::Verdict => {
                self.buf.be32(6, DATA_VERDICT);
                self.buf.be32(7, 0);
            }
            SetData::Value(fields) => {
                self.buf.be32(6, model::type_id(fields));
                self.buf.be32(7, key_len(fields) as u32);
            }
        }
        // The kernel wants an id on every new set; named ones are looked up by name all the same.
        self.buf.be32(10, self.anon);
        if spec.size.is_some() || (spec.interval && spec.key.len() > 1) {
            let desc = self.buf.nest(9);
            if let Some(size) = spec.size {
                self.buf.be32(1, size);
            }
            if spec.interval && spec.key.len() > 1 {
                let concat = self.buf.nest(2);
                for field in &spec.key {
                    let elem = self.buf.nest(1);
                    self.buf.be32(1, field.width() as u32);
                    self.buf.end(elem);
                }
                self.buf.end(concat);
            }
            self.buf.end(desc);
        }
        if let Some(timeout) = spec.timeout_ms {
            self.buf.be64(11, timeout);
        }
        self.buf.attr(13, &set_userdata(spec));
        self.buf.end_message(mark);
    }

    pub fn delete_set(&mut self, table: &str, set: &str) {
        let mark = self.begin(DELSET, 0);
        self.buf.str(1, table);
        self.buf.str(2, set);
        self.buf.end_message(mark);
    }

    /// Adds elements; one that exists with the same datum is left as it is, with another one it is an error.
    pub fn add_elements(&mut self, table: &str, spec: &SetSpec, elements: &[Element]) {
        self.write_elements(NEWSETELEM, table, spec, elements, None);
    }
    /// Deletes elements; they must exist.
    pub fn delete_elements(&mut self, table: &str, spec: &SetSpec, elements: &[Element]) {
        self.write_elements(DELSETELEM, table, spec, elements, None);
    }
    /// Deletes all elements.
    pub fn flush_set(&mut self, table: &str, set: &str) {
        let mark = self.begin(DELSETELEM, 0);
        self.buf.str(1, table);
        self.buf.str(2, set);
        self.buf.end_message(mark);
    }

    fn write_elements(
        &mut self,
        kind: u16,
        table: &str,
        spec: &SetSpec,
        elements: &[Element],
        anon: Option<u32>,
    ) {
        let mut rest = elements;
        while !rest.is_empty() {
            let mark = self.begin(kind, if kind == NEWSETELEM { nl::F_CREATE } else { 0 });
            self.buf.str(1, table);
            self.buf.str(2, &spec.name);
            if let Some(id) = anon {
                self.buf.be32(4, id);
            }
            let list = self.buf.nest(3);
            let start = self.buf.len();
            let mut done = 0;
            for element in rest {
                self.write_element(spec, element);
                done += 1;
                if self.buf.len() - start > ELEMENT_LIST_LIMIT {
                    break;
                }
            }
            self.buf.end(list);
            self.buf.end_message(mark);
            rest = &rest[done..];
        }
    }

    fn write_element(&mut self, spec: &SetSpec, element: &Element) {
        let elem = self.buf.nest(1);
        self.key(1, &element.key);
        if spec.interval && spec.key.len() > 1 {
            self.key(10, element.key_end.as_deref().unwrap_or(&element.key));
        }
        match &element.data {
            Data::None => {}
            Data::Verdict(verdict) => super::expr::verdict(&mut self.buf, 2, verdict),
            Data::Value(value) => self.key(2, value),
        }
        self.buf.end(elem);
        if spec.interval && spec.key.len() == 1 {
            // A range is two elements: its start, and the first key after it.
            let end = element.key_end.as_deref().unwrap_or(&element.key);
            if let Some(after) = successor(end) {
                let elem = self.buf.nest(1);
                self.key(1, &after);
                self.buf.be32(3, ELEM_INTERVAL_END);
                self.buf.end(elem);
            }
        }
    }

    fn key(&mut self, kind: u16, value: &[u8]) {
        let nest = self.buf.nest(kind);
        self.buf.attr(1, value);
        self.buf.end(nest);
    }

    /// Sends the batch. With `expected`, it is refused ([`NftError::GenerationMoved`]) when the rules changed since.
    pub fn send(mut self, socket: &mut Socket, expected: Option<u32>) -> Result<(), NftError> {
        let Some(last) = self.last else { return Ok(()) };
        self.buf.add_flags(last, nl::F_ACK);
        let mark = self.buf.message(BATCH_END, nl::F_REQUEST, self.messages + 1);
        self.buf.raw(&[0, 0]);
        self.buf.raw(&(SUBSYS >> 8).to_be_bytes());
        self.buf.end_message(mark);
        let mut bytes = std::mem::take(&mut self.buf);
        let sent = match expected {
            Some(generation) => {
                bytes.patch(GENERATION_AT, &generation.to_be_bytes());
                bytes.bytes()
            }
            // The attribute's absence, not a zero, means "whatever the generation is".
            None => {
                bytes.retype_attr(GENERATION_AT - 4, 0);
                bytes.bytes()
            }
        };
        socket.want_receive_buffer(1 << 20);
        while socket.receive(false)?.is_some() {}
        socket.send(sent)?;
        self.outcome(socket, sent, expected)
    }

    /// The kernel has executed the batch when send returns: its answers are queued.
    fn outcome(&self, socket: &mut Socket, sent: &[u8], expected: Option<u32>) -> Result<(), NftError> {
        let mut refused: Vec<(u32, Errno, Option<String>)> = Vec::new();
        let mut count = 0usize;
        let mut next = socket.receive(true)?;
        while let Some(n) = next {
            for message in nl::messages(socket.received(n)).filter(|m| m.kind == 2) {
                if let Err(NlError::Refused { seq, source, message }) = nl::ack(&message) {
                    count += 1;
                    if refused.len() < 4 {
                        refused.push((seq, source, message));
                    }
                }
            }
            next = socket.receive(false)?;
        }
        let Some((seq, source, text)) = refused.into_iter().next() else { return Ok(()) };
        if let (0, Errno::ERESTART, Some(generation)) = (seq, source, expected) {
            return Err(NftError::GenerationMoved(generation));
        }
        let mut message = describe(sent, seq);
        if let Some(text) = text {
            message = format!("{message}: {text}");
        }
        Err(NftError::Refused { message, refused: count, of: self.messages as usize, source })
    }
}

/// What the message with this sequence number wanted to do.
fn describe(batch: &[u8], seq: u32) -> String {
    let Some(message) = nl::messages(batch).find(|m| m.seq == seq) else {
        return format!("message {seq}");
    };
    let attrs = Attrs(message.body.get(4..).unwrap_or(&[]));
    let text = |kind| attrs.find(kind).map(nl::string).unwrap_or_default();
    let (table, second, third) = (text(1), text(2), text(3));
    match message.kind & 0xff {
        NEWTABLE if message.kind == BATCH_BEGIN => "begin of the batch".into(),
        NEWTABLE => format!("add table {table}"),
        DELTABLE => format!("delete table {table}"),
        NEWCHAIN => format!("add chain {table} {third}"),
        DELCHAIN => format!("delete chain {table} {third}"),
        NEWRULE => format!("add rule to {table} {second}"),
        DELRULE => format!("flush chain {table} {second}"),
        NEWSET => format!("add set {table} {second}"),
        DELSET => format!("delete set {table} {second}"),
        NEWSETELEM => format!("add elements to {table} {second}"),
        DELSETELEM => format!("delete elements of {table} {second}"),
        BATCH_BEGIN => "begin of the batch".into(),
        other => format!("message of type {other}"),
    }
}

fn set_userdata(spec: &SetSpec) -> Vec<u8> {
    let order = |fields: &[Field]| u32::from(!fields.iter().all(|f| f.host_endian())) + 1;
    let mut userdata = vec![UDATA_KEYBYTEORDER, 4];
    userdata.extend_from_slice(&order(&spec.key).to_ne_bytes());
    if let SetData::Value(fields) = &spec.data {
        userdata.extend_from_slice(&[UDATA_DATABYTEORDER, 4]);
        userdata.extend_from_slice(&order(fields).to_ne_bytes());
    }
    userdata
}

/// The key that follows, in byte order; None after the last.
pub(crate) fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        let (value, carry) = byte.overflowing_add(1);
        *byte = value;
        if !carry {
            return Some(next);
        }
    }
    None
}
