//! A packet simulator: runs the planned expressions on packets, as the kernel would, and says what becomes of them.
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use keelson_sys::nft::expr::{
    CT_STATUS_DNAT, CmpOp, CtKey, FibResult, Header, MetaKey, SetRef, ct_state, fib,
};
use keelson_sys::nft::{Data, Element, Expr, Hook, Ip, Key, SetData, Verdict};

use super::TableSpec;

/// A packet that opens a flow.
#[derive(Debug, Clone)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub dport: u16,
    /// None: sent by the node itself.
    pub iif: Option<&'static str>,
    mark: u32,
    translated: bool,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Drop,
    Reject,
    /// Where it goes in the end, and whether its source is replaced.
    Delivered {
        to: SocketAddr,
        masquerade: bool,
    },
}

/// The node on which the packet is seen.
pub struct Node<'a> {
    pub tables: Vec<&'a TableSpec>,
    pub local: Vec<IpAddr>,
    /// Ranges that are reached through an interface; others through eth0.
    pub pods: keelson_base::cidr::Cidr,
}

enum Outcome {
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
}

/// Values of `numgen` to try: one run for each.
struct Run<'a> {
    node: &'a Node<'a>,
    table: &'a TableSpec,
    choice: u32,
    modulus: &'a mut u32,
    packet: &'a mut Packet,
    hook: Hook,
    masquerade: &'a mut bool,
}

impl Packet {
    pub fn new(src: &str, dst: &str, proto: u8, dport: u16) -> Packet {
        let (src, dst) = (src.parse().expect("ip"), dst.parse().expect("ip"));
        Packet { src, dst, proto, dport, iif: Some("eth0"), mark: 0, translated: false }
    }
}

impl Node<'_> {
    /// All fates that random choice allows.
    pub fn fates(&self, packet: &Packet) -> BTreeSet<Fate> {
        let mut fates = BTreeSet::new();
        let (mut choice, mut modulus) = (0, 1);
        while choice < modulus {
            fates.insert(self.run(packet.clone(), choice, &mut modulus));
            choice += 1;
        }
        fates
    }

    fn run(&self, mut packet: Packet, choice: u32, modulus: &mut u32) -> Fate {
        let mut masquerade = false;
        let first: &[Hook] = if packet.iif.is_some() { &[Hook::Prerouting] } else { &[Hook::Output] };
        for hook in first {
            if let Some(fate) = self.hook(*hook, &mut packet, choice, modulus, &mut masquerade) {
                return fate;
            }
        }
        let local = self.local.contains(&packet.dst);
        let rest: &[Hook] = match (packet.iif.is_some(), local) {
            (true, true) => &[Hook::Input],
            (true, false) => &[Hook::Forward, Hook::Postrouting],
            (false, true) => &[Hook::Postrouting, Hook::Input],
            (false, false) => &[Hook::Postrouting],
        };
        for hook in rest {
            if let Some(fate) = self.hook(*hook, &mut packet, choice, modulus, &mut masquerade) {
                return fate;
            }
        }
        Fate::Delivered { to: SocketAddr::new(packet.dst, packet.dport), masquerade }
    }

    fn hook(
        &self,
        hook: Hook,
        packet: &mut Packet,
        choice: u32,
        modulus: &mut u32,
        masquerade: &mut bool,
    ) -> Option<Fate> {
        let mut chains: Vec<(i32, &TableSpec, &str)> = Vec::new();
        for table in &self.tables {
            for (name, chain) in &table.chains {
                if let Some(base) = chain.base.filter(|b| b.hook == hook) {
                    chains.push((base.priority, table, name));
                }
            }
        }
        chains.sort_by_key(|c| c.0);
        for (_, table, name) in chains {
            let mut run = Run { node: self, table, choice, modulus, packet, hook, masquerade };
            match run.chain(name) {
                Outcome::Drop => return Some(Fate::Drop),
                Outcome::Reject => return Some(Fate::Reject),
                _ => {}
            }
        }
        None
    }
}

impl Run<'_> {
    fn chain(&mut self, name: &str) -> Outcome {
        let chain = self.table.chains.get(name).unwrap_or_else(|| panic!("no chain {name}"));
        for rule in &chain.rules {
            match self.rule(&rule.exprs) {
                Outcome::Continue => {}
                outcome => return outcome,
            }
        }
        Outcome::Return
    }

    /// Continue: the rule did not match or had no verdict.
    fn rule(&mut self, exprs: &[Expr]) -> Outcome {
        let mut regs = [0u8; 64];
        let at = |reg: keelson_sys::nft::expr::Reg| usize::from(reg.0) * 4;
        for expr in exprs {
            match expr {
                Expr::Meta { key, dreg } => {
                    let value = self.meta(*key);
                    store(&mut regs, at(*dreg), &value);
                }
                Expr::MetaSet { key: MetaKey::Mark, sreg } => {
                    self.packet.mark =
                        u32::from_ne_bytes(regs[at(*sreg)..at(*sreg) + 4].try_into().expect("4"));
                }
                Expr::Payload { base, offset, len, dreg } => match self.payload(*base, *offset, *len) {
                    Some(value) => store(&mut regs, at(*dreg), &value),
                    None => return Outcome::Continue,
                },
                Expr::Cmp { op, sreg, data } => {
                    let value = &regs[at(*sreg)..at(*sreg) + data.len()];
                    let holds = match op {
                        CmpOp::Eq => value == data.as_slice(),
                        CmpOp::Neq => value != data.as_slice(),
                        _ => panic!("comparison {op:?} is not simulated"),
                    };
                    if !holds {
                        return Outcome::Continue;
                    }
                }
                Expr::Bitwise { sreg, dreg, mask, xor } => {
                    for i in 0..mask.len() {
                        regs[at(*dreg) + i] = (regs[at(*sreg) + i] & mask[i]) ^ xor[i];
                    }
                }
                Expr::Lookup { set, sreg, dreg, verdict, negate } => {
                    let found = self.lookup(set, &regs[at(*sreg)..]);
                    match found {
                        None if *negate => {}
                        None => return Outcome::Continue,
                        Some(_) if *negate => return Outcome::Continue,
                        Some(Data::Verdict(v)) if *verdict => return self.verdict(&v),
                        Some(Data::Value(value)) => {
                            let dreg = dreg.expect("maps have a target");
                            store(&mut regs, at(dreg), &value);
                        }
                        Some(_) => {}
                    }
                }
                Expr::Immediate { dreg, data } => store(&mut regs, at(*dreg), data),
                Expr::Verdict(v) => return self.verdict(v),
                Expr::Ct { key, dreg } => {
                    let value = match key {
                        CtKey::State => ct_state::NEW,
                        CtKey::Status if self.packet.translated => CT_STATUS_DNAT,
                        _ => 0,
                    };
                    store(&mut regs, at(*dreg), &value.to_ne_bytes());
                }
                Expr::Fib { flags, result, dreg } => {
                    let value = self.fib(*flags, *result);
                    store(&mut regs, at(*dreg), &value.to_ne_bytes());
                }
                Expr::Nat { dnat: true, addr: Some(addr), port: Some(port), ipv6 } => {
                    assert!(matches!(self.hook, Hook::Prerouting | Hook::Output), "dnat at {:?}", self.hook);
                    let at_addr = at(*addr);
                    self.packet.dst = if *ipv6 {
                        IpAddr::from(<[u8; 16]>::try_from(&regs[at_addr..at_addr + 16]).expect("16"))
                    } else {
                        IpAddr::from(<[u8; 4]>::try_from(&regs[at_addr..at_addr + 4]).expect("4"))
                    };
                    self.packet.dport = u16::from_be_bytes([regs[at(*port)], regs[at(*port) + 1]]);
                    self.packet.translated = true;
                    return Outcome::Accept;
                }
                Expr::Masquerade { .. } => {
                    assert_eq!(self.hook, Hook::Postrouting);
                    *self.masquerade = true;
                    return Outcome::Accept;
                }
                Expr::Numgen { modulus, dreg, .. } => {
                    *self.modulus = (*self.modulus).max(*modulus);
                    store(&mut regs, at(*dreg), &(self.choice % modulus).to_ne_bytes());
                }
                Expr::Reject(_) => return Outcome::Reject,
                Expr::Dynset { .. } | Expr::Counter | Expr::Log { .. } => {}
                other => panic!("{other:?} is not simulated"),
            }
        }
        Outcome::Continue
    }

    fn verdict(&mut self, verdict: &Verdict) -> Outcome {
        match verdict {
            Verdict::Accept => Outcome::Accept,
            Verdict::Drop => Outcome::Drop,
            Verdict::Return => Outcome::Return,
            Verdict::Continue => Outcome::Continue,
            Verdict::Goto(chain) => self.chain(chain),
            Verdict::Jump(chain) => match self.chain(chain) {
                Outcome::Return => Outcome::Continue,
                outcome => outcome,
            },
        }
    }

    fn meta(&self, key: MetaKey) -> Vec<u8> {
        match key {
            MetaKey::NfProto => vec![if self.packet.src.is_ipv4() { 2 } else { 10 }],
            MetaKey::L4Proto => vec![self.packet.proto],
            MetaKey::Mark => self.packet.mark.to_ne_bytes().to_vec(),
            MetaKey::IifName => Key::new().ifname(self.packet.iif.unwrap_or("")).bytes(),
            other => panic!("meta {other:?} is not simulated"),
        }
    }

    fn payload(&self, base: Header, offset: u32, len: u32) -> Option<Vec<u8>> {
        let (src, dst) = (Key::new().ip(self.packet.src).bytes(), Key::new().ip(self.packet.dst).bytes());
        let value = match (base, offset, Ip::of(self.packet.src)) {
            (Header::Network, 12, Ip::V4) | (Header::Network, 8, Ip::V6) => src,
            (Header::Network, 16, Ip::V4) | (Header::Network, 24, Ip::V6) => dst,
            (Header::Transport, 2, _) => self.packet.dport.to_be_bytes().to_vec(),
            _ => return None,
        };
        assert_eq!(value.len(), len as usize);
        Some(value)
    }

    fn fib(&self, flags: u32, result: FibResult) -> u32 {
        let ip = if flags & fib::SADDR != 0 { self.packet.src } else { self.packet.dst };
        let local = self.node.local.contains(&ip) || ip.is_loopback();
        match result {
            FibResult::AddrType => {
                if local {
                    fib::RTN_LOCAL
                } else {
                    1
                }
            }
            FibResult::Oif => {
                let oif = if local {
                    "lo"
                } else if self.node.pods.contains(ip) {
                    "kl0"
                } else {
                    "eth0"
                };
                u32::from(self.packet.iif == Some(oif))
            }
        }
    }

    fn lookup(&self, set: &SetRef, key: &[u8]) -> Option<Data> {
        let find = |elements: Vec<&Element>| {
            elements
                .into_iter()
                .find(|e| {
                    let key = key.get(..e.key.len()).unwrap_or(&[]);
                    match &e.key_end {
                        None => key == e.key.as_slice(),
                        Some(end) => key >= e.key.as_slice() && key <= end.as_slice(),
                    }
                })
                .map(|e| e.data.clone())
        };
        match set {
            SetRef::Named(name) => {
                let set = self.table.sets.get(name).unwrap_or_else(|| panic!("no set {name}"));
                assert!(set.spec.data != SetData::Verdict || !set.spec.dynamic);
                find(set.elements.values().collect())
            }
            SetRef::Anon(set) => find(set.elements.iter().collect()),
        }
    }
}

fn store(regs: &mut [u8; 64], at: usize, value: &[u8]) {
    let end = at + value.len().next_multiple_of(4);
    regs[at..end].fill(0);
    regs[at..at + value.len()].copy_from_slice(value);
}
