//! The expressions of nftables' virtual machine and their netlink form.
//!
//! Registers are the sixteen 32-bit ones, named by [`Reg`] 0–15; a value wider than four bytes takes the following
//! ones too.
use super::model::{Element, Field, SetData, Verdict};
use crate::nl::Buf;

/// A 32-bit register, 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

impl Reg {
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// Values of packet metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetaKey {
    Mark = 3,
    Iif = 4,
    Oif = 5,
    IifName = 6,
    OifName = 7,
    NfProto = 15,
    L4Proto = 16,
}

/// Which header a payload offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CmpOp {
    Eq = 0,
    Neq = 1,
    Lt = 2,
    Lte = 3,
    Gt = 4,
    Gte = 5,
}

/// Values of the connection tracking entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CtKey {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
}

/// `ct state` bits as the kernel numbers them.
pub mod ct_state {
    pub const INVALID: u32 = 1;
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    pub const UNTRACKED: u32 = 64;
}
/// `ct status`: a destination NAT was applied.
pub const CT_STATUS_DNAT: u32 = 0x20;

/// What a routing lookup returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FibResult {
    Oif = 1,
    AddrType = 3,
}
/// What a routing lookup uses (bits).
pub mod fib {
    pub const SADDR: u32 = 1;
    pub const DADDR: u32 = 2;
    pub const MARK: u32 = 4;
    pub const IIF: u32 = 8;
    /// The result is 1 where a route exists, else 0.
    pub const PRESENT: u32 = 32;
    /// The address type of an address of this machine.
    pub const RTN_LOCAL: u32 = 2;
}

/// Kinds of rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// ICMP or ICMPv6 port unreachable, by the packet's family.
    PortUnreachable,
    TcpReset,
}

/// A set made for one rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnonSet {
    pub key: Vec<Field>,
    pub data: SetData,
    pub interval: bool,
    pub elements: Vec<Element>,
}

/// Which set a lookup reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SetRef {
    Named(String),
    Anon(AnonSet),
}

/// One expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Expr {
    Meta {
        key: MetaKey,
        dreg: Reg,
    },
    MetaSet {
        key: MetaKey,
        sreg: Reg,
    },
    Payload {
        base: Header,
        offset: u32,
        len: u32,
        dreg: Reg,
    },
    Cmp {
        op: CmpOp,
        sreg: Reg,
        data: Vec<u8>,
    },
    Range {
        negate: bool,
        sreg: Reg,
        from: Vec<u8>,
        to: Vec<u8>,
    },
    /// `dreg = (sreg & mask) ^ xor`
    Bitwise {
        sreg: Reg,
        dreg: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// Without `dreg`: a set, or a verdict map (`verdict`).
    Lookup {
        set: SetRef,
        sreg: Reg,
        dreg: Option<Reg>,
        verdict: bool,
        negate: bool,
    },
    Immediate {
        dreg: Reg,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Ct {
        key: CtKey,
        dreg: Reg,
    },
    NoTrack,
    Fib {
        flags: u32,
        result: FibResult,
        dreg: Reg,
    },
    Nat {
        dnat: bool,
        ipv6: bool,
        addr: Option<Reg>,
        port: Option<Reg>,
    },
    Masquerade {
        fully_random: bool,
    },
    Redirect {
        port: Reg,
    },
    Numgen {
        random: bool,
        modulus: u32,
        offset: u32,
        dreg: Reg,
    },
    Dynset {
        set: String,
        update: bool,
        key: Reg,
        data: Option<Reg>,
        timeout_ms: Option<u64>,
    },
    Reject(Reject),
    Counter,
    Log {
        prefix: String,
        level: u32,
    },
    Limit {
        rate: u64,
        unit_seconds: u64,
        burst: u32,
        over: bool,
    },
    Byteorder {
        sreg: Reg,
        dreg: Reg,
        to_host: bool,
        len: u32,
        size: u32,
    },
}

fn data(buf: &mut Buf, kind: u16, value: &[u8]) {
    let nest = buf.nest(kind);
    buf.attr(1, value);
    buf.end(nest);
}

pub(crate) fn verdict(buf: &mut Buf, kind: u16, verdict: &Verdict) {
    let nest = buf.nest(kind);
    let inner = buf.nest(2);
    buf.be32(1, verdict.code() as u32);
    if let Some(chain) = verdict.chain() {
        buf.str(2, chain);
    }
    buf.end(inner);
    buf.end(nest);
}

impl Expr {
    fn name(&self) -> &'static str {
        match self {
            Expr::Meta { .. } | Expr::MetaSet { .. } => "meta",
            Expr::Payload { .. } => "payload",
            Expr::Cmp { .. } => "cmp",
            Expr::Range { .. } => "range",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Lookup { .. } => "lookup",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Ct { .. } => "ct",
            Expr::NoTrack => "notrack",
            Expr::Fib { .. } => "fib",
            Expr::Nat { .. } => "nat",
            Expr::Masquerade { .. } => "masq",
            Expr::Redirect { .. } => "redir",
            Expr::Numgen { .. } => "numgen",
            Expr::Dynset { .. } => "dynset",
            Expr::Reject(_) => "reject",
            Expr::Counter => "counter",
            Expr::Log { .. } => "log",
            Expr::Limit { .. } => "limit",
            Expr::Byteorder { .. } => "byteorder",
        }
    }

    /// Writes the expression as one list element. `anon` is the (name, id) of the set that was made for it.
    pub(crate) fn encode(&self, buf: &mut Buf, anon: Option<(&str, u32)>) {
        let elem = buf.nest(1);
        buf.str(1, self.name());
        let body = buf.nest(2);
        self.encode_body(buf, anon);
        buf.end(body);
        buf.end(elem);
    }

    fn encode_body(&self, buf: &mut Buf, anon: Option<(&str, u32)>) {
        match self {
            Expr::Meta { key, dreg } => {
                buf.be32(2, *key as u32);
                buf.be32(1, dreg.number());
            }
            Expr::MetaSet { key, sreg } => {
                buf.be32(2, *key as u32);
                buf.be32(3, sreg.number());
            }
            Expr::Payload { base, offset, len, dreg } => {
                buf.be32(1, dreg.number());
                buf.be32(2, *base as u32);
                buf.be32(3, *offset);
                buf.be32(4, *len);
            }
            Expr::Cmp { op, sreg, data: value } => {
                buf.be32(1, sreg.number());
                buf.be32(2, *op as u32);
                data(buf, 3, value);
            }
            Expr::Range { negate, sreg, from, to } => {
                buf.be32(1, sreg.number());
                buf.be32(2, u32::from(*negate));
                data(buf, 3, from);
                data(buf, 4, to);
            }
            Expr::Bitwise { sreg, dreg, mask, xor } => {
                buf.be32(1, sreg.number());
                buf.be32(2, dreg.number());
                buf.be32(3, mask.len() as u32);
                data(buf, 4, mask);
                data(buf, 5, xor);
            }
            Expr::Lookup { set, sreg, dreg, verdict, negate } => {
                match (set, anon) {
                    (SetRef::Named(name), _) => buf.str(1, name),
                    (SetRef::Anon(_), Some((name, id))) => {
                        buf.str(1, name);
                        buf.be32(4, id);
                    }
                    (SetRef::Anon(_), None) => unreachable!("the batch makes a rule's sets before the rule"),
                }
                buf.be32(2, sreg.number());
                if *verdict {
                    buf.be32(3, 0);
                } else if let Some(dreg) = dreg {
                    buf.be32(3, dreg.number());
                }
                if *negate {
                    buf.be32(5, 1);
                }
            }
            Expr::Immediate { dreg, data: value } => {
                buf.be32(1, dreg.number());
                data(buf, 2, value);
            }
            Expr::Verdict(v) => {
                buf.be32(1, 0);
                verdict(buf, 2, v);
            }
            other => other.encode_stateful(buf),
        }
    }

    fn encode_stateful(&self, buf: &mut Buf) {
        match self {
            Expr::Ct { key, dreg } => {
                buf.be32(2, *key as u32);
                buf.be32(1, dreg.number());
            }
            Expr::Fib { flags, result, dreg } => {
                buf.be32(1, dreg.number());
                buf.be32(2, *result as u32);
                buf.be32(3, *flags);
            }
            Expr::Nat { dnat, ipv6, addr, port } => {
                buf.be32(1, u32::from(*dnat));
                buf.be32(2, if *ipv6 { 10 } else { 2 });
                if let Some(addr) = addr {
                    buf.be32(3, addr.number());
                }
                if let Some(port) = port {
                    buf.be32(5, port.number());
                }
            }
            Expr::Masquerade { fully_random: true } => buf.be32(1, 1 << 4),
            Expr::Redirect { port } => buf.be32(1, port.number()),
            Expr::Numgen { random, modulus, offset, dreg } => {
                buf.be32(1, dreg.number());
                buf.be32(2, *modulus);
                buf.be32(3, u32::from(*random));
                buf.be32(4, *offset);
            }
            Expr::Dynset { set, update, key, data, timeout_ms } => {
                buf.str(1, set);
                buf.be32(3, u32::from(*update));
                buf.be32(4, key.number());
                if let Some(data) = data {
                    buf.be32(5, data.number());
                }
                if let Some(timeout) = timeout_ms {
                    buf.be64(6, *timeout);
                }
            }
            Expr::Reject(Reject::PortUnreachable) => {
                buf.be32(1, 2);
                buf.u8(2, 1);
            }
            Expr::Reject(Reject::TcpReset) => buf.be32(1, 1),
            Expr::Counter => {
                buf.be64(1, 0);
                buf.be64(2, 0);
            }
            Expr::Log { prefix, level } => {
                buf.str(2, prefix);
                buf.be32(5, *level);
            }
            Expr::Limit { rate, unit_seconds, burst, over } => {
                buf.be64(1, *rate);
                buf.be64(2, *unit_seconds);
                buf.be32(3, *burst);
                buf.be32(4, 0);
                buf.be32(5, u32::from(*over));
            }
            Expr::Byteorder { sreg, dreg, to_host, len, size } => {
                buf.be32(1, sreg.number());
                buf.be32(2, dreg.number());
                buf.be32(3, u32::from(!*to_host));
                buf.be32(4, *len);
                buf.be32(5, *size);
            }
            _ => {}
        }
    }
}
