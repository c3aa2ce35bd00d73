//! Tables' parts as values: chains, sets and maps, elements, verdicts. Pure; names are the kernel's.
use std::net::IpAddr;

/// A field of a (possibly concatenated) set key or of map data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    Ipv4,
    Ipv6,
    /// Transport protocol number.
    Proto,
    /// Port, network byte order.
    Port,
    /// Packet mark, machine byte order.
    Mark,
    /// A plain number, machine byte order (`numgen`).
    Integer,
    /// Interface name, 16 bytes.
    Ifname,
}

impl Field {
    /// nft's data type number.
    pub fn id(self) -> u32 {
        match self {
            Field::Integer => 4,
            Field::Ipv4 => 7,
            Field::Ipv6 => 8,
            Field::Proto => 12,
            Field::Port => 13,
            Field::Mark => 19,
            Field::Ifname => 41,
        }
    }
    /// Bytes of a value.
    pub fn width(self) -> usize {
        match self {
            Field::Proto => 1,
            Field::Port => 2,
            Field::Ipv4 | Field::Mark | Field::Integer => 4,
            Field::Ipv6 | Field::Ifname => 16,
        }
    }
    /// Length in a register: whole 32-bit words.
    pub fn padded(self) -> usize {
        self.width().next_multiple_of(4)
    }
    pub(crate) fn host_endian(self) -> bool {
        matches!(self, Field::Mark | Field::Integer | Field::Ifname)
    }
}

/// nft's type number of a concatenation: six bits a field.
pub(crate) fn type_id(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |id, f| (id << 6) | f.id())
}
/// Length of a key or datum: a single field is not padded, concatenated ones are.
pub fn key_len(fields: &[Field]) -> usize {
    match fields {
        [one] => one.width(),
        many => many.iter().map(|f| f.padded()).sum(),
    }
}

/// Builds the bytes of a key or datum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Key(pub Vec<u8>);

impl Key {
    pub fn new() -> Key {
        Key::default()
    }
    fn push(mut self, bytes: &[u8]) -> Key {
        while !self.0.len().is_multiple_of(4) {
            self.0.push(0);
        }
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn ip(self, ip: IpAddr) -> Key {
        match ip {
            IpAddr::V4(ip) => self.push(&ip.octets()),
            IpAddr::V6(ip) => self.push(&ip.octets()),
        }
    }
    pub fn proto(self, proto: u8) -> Key {
        self.push(&[proto])
    }
    pub fn port(self, port: u16) -> Key {
        self.push(&port.to_be_bytes())
    }
    pub fn number(self, number: u32) -> Key {
        self.push(&number.to_ne_bytes())
    }
    pub fn ifname(self, name: &str) -> Key {
        let mut bytes = [0u8; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        self.push(&bytes)
    }
    /// The bytes, padded where more than one field was pushed.
    pub fn bytes(mut self) -> Vec<u8> {
        if self.0.len() > 4 {
            while !self.0.len().is_multiple_of(4) {
                self.0.push(0);
            }
        }
        self.0
    }
}

/// What a set's elements carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SetData {
    None,
    Verdict,
    Value(Vec<Field>),
}

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SetSpec {
    pub name: String,
    pub key: Vec<Field>,
    pub data: SetData,
    /// Elements may be ranges ([`Element::key_end`]).
    pub interval: bool,
    /// Default life of an element; such sets are filled by rules (dynset).
    pub timeout_ms: Option<u64>,
    /// Rules may add elements.
    pub dynamic: bool,
    /// Most elements; required for dynamic sets to be bounded.
    pub size: Option<u32>,
}

impl SetSpec {
    pub fn new(name: impl Into<String>, key: &[Field], data: SetData) -> SetSpec {
        SetSpec {
            name: name.into(),
            key: key.to_vec(),
            data,
            interval: false,
            timeout_ms: None,
            dynamic: false,
            size: None,
        }
    }
    pub fn intervals(mut self) -> SetSpec {
        self.interval = true;
        self
    }
    /// Filled by rules; elements live `timeout_ms` after their last use, at most `size` at a time.
    pub fn dynamic(mut self, timeout_ms: u64, size: u32) -> SetSpec {
        self.dynamic = true;
        self.timeout_ms = Some(timeout_ms);
        self.size = Some(size);
        self
    }
}

/// A verdict, in a rule or as a map's datum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Continue,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(crate) fn code(&self) -> i32 {
        match self {
            Verdict::Drop => 0,
            Verdict::Accept => 1,
            Verdict::Continue => -1,
            Verdict::Jump(_) => -3,
            Verdict::Goto(_) => -4,
            Verdict::Return => -5,
        }
    }
    pub(crate) fn chain(&self) -> Option<&str> {
        match self {
            Verdict::Jump(chain) | Verdict::Goto(chain) => Some(chain),
            _ => None,
        }
    }
    pub(crate) fn from_parts(code: i32, chain: Option<String>) -> Option<Verdict> {
        Some(match (code, chain) {
            (0, _) => Verdict::Drop,
            (1, _) => Verdict::Accept,
            (-1, _) => Verdict::Continue,
            (-3, Some(chain)) => Verdict::Jump(chain),
            (-4, Some(chain)) => Verdict::Goto(chain),
            (-5, _) => Verdict::Return,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Accept => f.write_str("accept"),
            Verdict::Drop => f.write_str("drop"),
            Verdict::Return => f.write_str("return"),
            Verdict::Continue => f.write_str("continue"),
            Verdict::Jump(chain) => write!(f, "jump {chain}"),
            Verdict::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

/// A map element's datum.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Data {
    None,
    Verdict(Verdict),
    Value(Vec<u8>),
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Element {
    pub key: Vec<u8>,
    /// Last key of a range, inclusive (sets with [`SetSpec::interval`]).
    pub key_end: Option<Vec<u8>>,
    pub data: Data,
}

impl Element {
    pub fn key(key: Vec<u8>) -> Element {
        Element { key, key_end: None, data: Data::None }
    }
    pub fn verdict(key: Vec<u8>, verdict: Verdict) -> Element {
        Element { key, key_end: None, data: Data::Verdict(verdict) }
    }
    pub fn value(key: Vec<u8>, value: Vec<u8>) -> Element {
        Element { key, key_end: None, data: Data::Value(value) }
    }
    /// All addresses of `net/prefix`.
    pub fn prefix(net: IpAddr, prefix: u8) -> Element {
        let mut first = Key::new().ip(net).bytes();
        let mut last = first.clone();
        for (i, (a, b)) in first.iter_mut().zip(last.iter_mut()).enumerate() {
            let bits = usize::from(prefix).saturating_sub(i * 8).min(8);
            let mask = !(0xffu16 >> bits) as u8;
            *a &= mask;
            *b = *a | !mask;
        }
        Element { key: first, key_end: Some(last), data: Data::None }
    }
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// A base chain's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    Filter,
    Nat,
}

impl ChainKind {
    pub fn name(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        }
    }
}

/// What makes a chain a base chain. The policy is always accept: what we do not own is not ours to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

/// A chain without its rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
}

impl Chain {
    pub fn regular(name: impl Into<String>) -> Chain {
        Chain { name: name.into(), base: None }
    }
    pub fn base(name: impl Into<String>, kind: ChainKind, hook: Hook, priority: i32) -> Chain {
        Chain { name: name.into(), base: Some(Base { kind, hook, priority }) }
    }
}
