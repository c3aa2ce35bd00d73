//! Rules, built statement by statement: every step adds expressions and the text by which a reader knows it.
use std::net::IpAddr;

use super::expr::{
    AnonSet, CmpOp, CtKey, Expr, FibResult, Header, MetaKey, Reg, Reject, SetRef, ct_state, fib,
};
use super::model::{Element, Field, SetData, Verdict};

/// Address family of a rule inside an `inet` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ip {
    V4,
    V6,
}

impl Ip {
    pub fn of(ip: IpAddr) -> Ip {
        if ip.is_ipv4() { Ip::V4 } else { Ip::V6 }
    }
    /// The set field for an address.
    pub fn field(self) -> Field {
        match self {
            Ip::V4 => Field::Ipv4,
            Ip::V6 => Field::Ipv6,
        }
    }
    /// `4` or `6`, as our chain and set names end.
    pub fn digit(self) -> char {
        match self {
            Ip::V4 => '4',
            Ip::V6 => '6',
        }
    }
    fn len(self) -> u32 {
        match self {
            Ip::V4 => 4,
            Ip::V6 => 16,
        }
    }
    fn word(self) -> &'static str {
        match self {
            Ip::V4 => "ip",
            Ip::V6 => "ip6",
        }
    }
    fn nfproto(self) -> u8 {
        match self {
            Ip::V4 => 2,
            Ip::V6 => 10,
        }
    }
    fn saddr(self, dreg: Reg) -> Expr {
        let offset = if self == Ip::V4 { 12 } else { 8 };
        Expr::Payload { base: Header::Network, offset, len: self.len(), dreg }
    }
    fn daddr(self, dreg: Reg) -> Expr {
        let offset = if self == Ip::V4 { 16 } else { 24 };
        Expr::Payload { base: Header::Network, offset, len: self.len(), dreg }
    }
    /// Registers that an address takes.
    fn words(self) -> u8 {
        (self.len() / 4) as u8
    }
}

/// A rule. Equality and hash are those of its expressions; the text is for people and goldens.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    pub exprs: Vec<Expr>,
    pub text: String,
    family: Option<Ip>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.exprs == other.exprs
    }
}
impl Eq for Rule {}

const R0: Reg = Reg(0);

impl Rule {
    pub fn new() -> Rule {
        Rule::default()
    }

    /// Identity of the rule's content, kept in its user data in the kernel.
    pub fn content_hash(&self) -> u64 {
        crate::hash::stable(&self.exprs)
    }

    fn say(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(text);
    }

    fn family(&mut self, ip: Ip) {
        if self.family != Some(ip) {
            self.family = Some(ip);
            self.exprs.push(Expr::Meta { key: MetaKey::NfProto, dreg: R0 });
            self.exprs.push(Expr::Cmp { op: CmpOp::Eq, sreg: R0, data: vec![ip.nfproto()] });
        }
    }

    /// Only packets of this family.
    pub fn nfproto(mut self, ip: Ip) -> Rule {
        self.family(ip);
        self.say(&format!("meta nfproto ipv{}", ip.digit()));
        self
    }

    /// Loads address . protocol . destination port into registers 0…; `source` takes the source address.
    fn load_tuple(&mut self, ip: Ip) {
        self.family(ip);
        self.exprs.push(ip.daddr(R0));
        self.exprs.push(Expr::Meta { key: MetaKey::L4Proto, dreg: Reg(ip.words()) });
        self.exprs.push(Expr::Payload {
            base: Header::Transport,
            offset: 2,
            len: 2,
            dreg: Reg(ip.words() + 1),
        });
    }

    /// `ip daddr . meta l4proto . th dport vmap @map`
    pub fn vmap_daddr_proto_port(mut self, ip: Ip, map: &str) -> Rule {
        self.load_tuple(ip);
        self.exprs.push(lookup_vmap(map));
        self.say(&format!("{} daddr . meta l4proto . th dport vmap @{map}", ip.word()));
        self
    }

    /// `meta l4proto . th dport vmap @map`
    pub fn vmap_proto_port(mut self, map: &str) -> Rule {
        self.load_proto_port();
        self.exprs.push(lookup_vmap(map));
        self.say(&format!("meta l4proto . th dport vmap @{map}"));
        self
    }

    fn load_proto_port(&mut self) {
        self.exprs.push(Expr::Meta { key: MetaKey::L4Proto, dreg: R0 });
        self.exprs.push(Expr::Payload { base: Header::Transport, offset: 2, len: 2, dreg: Reg(1) });
    }

    /// `dnat ip addr . port to meta l4proto . th dport map @map`
    pub fn dnat_by_proto_port(mut self, ip: Ip, map: &str) -> Rule {
        self.family(ip);
        self.load_proto_port();
        self.exprs.push(lookup_map(map));
        self.exprs.push(dnat(ip, true));
        self.say(&format!("dnat {} addr . port to meta l4proto . th dport map @{map}", ip.word()));
        self
    }

    /// `dnat ip addr . port to ip daddr . meta l4proto . th dport map @map`
    pub fn dnat_by_daddr_proto_port(mut self, ip: Ip, map: &str) -> Rule {
        self.load_tuple(ip);
        self.exprs.push(lookup_map(map));
        self.exprs.push(dnat(ip, true));
        self.say(&format!(
            "dnat {} addr . port to {} daddr . meta l4proto . th dport map @{map}",
            ip.word(),
            ip.word()
        ));
        self
    }

    /// `dnat ip addr . port to numgen random mod N map { … }`; one endpoint needs no random number.
    pub fn dnat_random(mut self, ip: Ip, endpoints: &[(IpAddr, u16)]) -> Rule {
        self.pick(ip, endpoints);
        self.exprs.push(dnat(ip, true));
        self
    }

    /// `dnat ip addr . port to ip daddr . meta l4proto . th dport . numgen random mod N map @map`, or by protocol and
    /// port alone: one of the N elements with this key. The map's last key field is a [`Field::Mark`].
    pub fn dnat_pick(mut self, ip: Ip, map: &str, by_address: bool, modulus: u32) -> Rule {
        let next = if by_address {
            self.load_tuple(ip);
            ip.words() + 2
        } else {
            self.family(ip);
            self.load_proto_port();
            2
        };
        self.exprs.push(Expr::Numgen { random: true, modulus, offset: 0, dreg: Reg(next) });
        self.exprs.push(lookup_map(map));
        self.exprs.push(dnat(ip, true));
        let word = ip.word();
        let address = if by_address { format!("{word} daddr . ") } else { String::new() };
        self.say(&format!(
            "dnat {word} addr . port to {address}meta l4proto . th dport . numgen random mod {modulus} map @{map}"
        ));
        self
    }

    /// `update @set { ip saddr }`: remembers the source address for the set's timeout.
    pub fn update_saddr(mut self, ip: Ip, set: &str) -> Rule {
        self.family(ip);
        self.exprs.push(ip.saddr(R0));
        self.exprs.push(Expr::Dynset {
            set: set.to_owned(),
            update: true,
            key: R0,
            data: None,
            timeout_ms: None,
        });
        self.say(&format!("update @{set} {{ {} saddr }}", ip.word()));
        self
    }

    /// `numgen random mod N vmap { 0 : goto …, … }`
    pub fn goto_random(mut self, chains: &[String]) -> Rule {
        let modulus = chains.len() as u32;
        self.exprs.push(Expr::Numgen { random: true, modulus, offset: 0, dreg: R0 });
        let elements = chains
            .iter()
            .enumerate()
            .map(|(i, c)| Element::verdict((i as u32).to_ne_bytes().to_vec(), Verdict::Goto(c.clone())))
            .collect();
        let set = AnonSet { key: vec![Field::Integer], data: SetData::Verdict, interval: false, elements };
        self.exprs.push(Expr::Lookup {
            set: SetRef::Anon(set),
            sreg: R0,
            dreg: None,
            verdict: true,
            negate: false,
        });
        let list: Vec<String> = chains.iter().enumerate().map(|(i, c)| format!("{i} : goto {c}")).collect();
        self.say(&format!("numgen random mod {modulus} vmap {{ {} }}", list.join(", ")));
        self
    }

    fn pick(&mut self, ip: Ip, endpoints: &[(IpAddr, u16)]) {
        self.family(ip);
        let value = |(addr, port): &(IpAddr, u16)| super::Key::new().ip(*addr).port(*port).bytes();
        if let [one] = endpoints {
            self.exprs.push(Expr::Immediate { dreg: R0, data: value(one)[..ip.len() as usize].to_vec() });
            self.exprs.push(Expr::Immediate { dreg: Reg(ip.words()), data: one.1.to_be_bytes().to_vec() });
            self.say(&format!("dnat {} to {}", ip.word(), std::net::SocketAddr::new(one.0, one.1)));
            return;
        }
        let modulus = endpoints.len() as u32;
        self.exprs.push(Expr::Numgen { random: true, modulus, offset: 0, dreg: R0 });
        let elements = endpoints
            .iter()
            .enumerate()
            .map(|(i, e)| Element::value((i as u32).to_ne_bytes().to_vec(), value(e)))
            .collect();
        let set = AnonSet {
            key: vec![Field::Integer],
            data: SetData::Value(vec![ip.field(), Field::Port]),
            interval: false,
            elements,
        };
        self.exprs.push(Expr::Lookup {
            set: SetRef::Anon(set),
            sreg: R0,
            dreg: Some(R0),
            verdict: false,
            negate: false,
        });
        let list: Vec<String> =
            endpoints.iter().enumerate().map(|(i, (a, p))| format!("{i} : {a} . {p}")).collect();
        self.say(&format!(
            "dnat {} addr . port to numgen random mod {modulus} map {{ {} }}",
            ip.word(),
            list.join(", ")
        ));
    }

    /// `ip daddr @set`
    pub fn daddr_in(mut self, ip: Ip, set: &str) -> Rule {
        self.family(ip);
        self.exprs.push(ip.daddr(R0));
        self.exprs.push(lookup_set(set, false));
        self.say(&format!("{} daddr @{set}", ip.word()));
        self
    }

    /// `ip saddr @set` or, negated, `ip saddr != @set`
    pub fn saddr_in(mut self, ip: Ip, set: &str, negate: bool) -> Rule {
        self.family(ip);
        self.exprs.push(ip.saddr(R0));
        self.exprs.push(lookup_set(set, negate));
        self.say(&format!("{} saddr {}@{set}", ip.word(), if negate { "!= " } else { "" }));
        self
    }

    /// `ip daddr != @set`
    pub fn daddr_not_in(mut self, ip: Ip, set: &str) -> Rule {
        self.family(ip);
        self.exprs.push(ip.daddr(R0));
        self.exprs.push(lookup_set(set, true));
        self.say(&format!("{} daddr != @{set}", ip.word()));
        self
    }

    /// `ip saddr . ip daddr @set`
    pub fn saddr_daddr_in(mut self, ip: Ip, set: &str) -> Rule {
        self.family(ip);
        self.exprs.push(ip.saddr(R0));
        self.exprs.push(ip.daddr(Reg(ip.words())));
        self.exprs.push(lookup_set(set, false));
        self.say(&format!("{} saddr . {} daddr @{set}", ip.word(), ip.word()));
        self
    }

    /// `ip saddr net/prefix` or its negation
    pub fn saddr_net(self, net: IpAddr, prefix: u8, negate: bool) -> Rule {
        self.net(net, prefix, negate, true)
    }
    /// `ip daddr net/prefix` or its negation
    pub fn daddr_net(self, net: IpAddr, prefix: u8, negate: bool) -> Rule {
        self.net(net, prefix, negate, false)
    }

    fn net(mut self, net: IpAddr, prefix: u8, negate: bool, source: bool) -> Rule {
        let ip = Ip::of(net);
        self.family(ip);
        self.exprs.push(if source { ip.saddr(R0) } else { ip.daddr(R0) });
        let value = Element::prefix(net, prefix).key;
        let all = Element::prefix(if ip == Ip::V4 { [255u8; 4].into() } else { [255u8; 16].into() }, prefix);
        if u32::from(prefix) < ip.len() * 8 {
            let xor = vec![0; value.len()];
            self.exprs.push(Expr::Bitwise { sreg: R0, dreg: R0, mask: all.key, xor });
        }
        let op = if negate { CmpOp::Neq } else { CmpOp::Eq };
        self.exprs.push(Expr::Cmp { op, sreg: R0, data: value });
        self.say(&format!(
            "{} {} {}{net}/{prefix}",
            ip.word(),
            if source { "saddr" } else { "daddr" },
            if negate { "!= " } else { "" }
        ));
        self
    }

    /// `meta l4proto X`
    pub fn l4proto(mut self, proto: u8) -> Rule {
        self.exprs.push(Expr::Meta { key: MetaKey::L4Proto, dreg: R0 });
        self.exprs.push(Expr::Cmp { op: CmpOp::Eq, sreg: R0, data: vec![proto] });
        self.say(&format!("meta l4proto {proto}"));
        self
    }
    /// `th dport X`
    pub fn dport(mut self, port: u16) -> Rule {
        self.exprs.push(Expr::Payload { base: Header::Transport, offset: 2, len: 2, dreg: R0 });
        self.exprs.push(Expr::Cmp { op: CmpOp::Eq, sreg: R0, data: port.to_be_bytes().to_vec() });
        self.say(&format!("th dport {port}"));
        self
    }
    /// `iifname X` / `iifname != X`; `prefix*` matches by prefix.
    pub fn iifname(self, name: &str, negate: bool) -> Rule {
        self.ifname(MetaKey::IifName, "iifname", name, negate)
    }
    /// See [`Rule::iifname`].
    pub fn oifname(self, name: &str, negate: bool) -> Rule {
        self.ifname(MetaKey::OifName, "oifname", name, negate)
    }
    fn ifname(mut self, key: MetaKey, word: &str, name: &str, negate: bool) -> Rule {
        self.exprs.push(Expr::Meta { key, dreg: R0 });
        let data = match name.strip_suffix('*') {
            Some(prefix) => prefix.as_bytes().to_vec(),
            None => super::Key::new().ifname(name).bytes(),
        };
        self.exprs.push(Expr::Cmp { op: if negate { CmpOp::Neq } else { CmpOp::Eq }, sreg: R0, data });
        self.say(&format!("{word} {}\"{name}\"", if negate { "!= " } else { "" }));
        self
    }

    /// `fib saddr type local` (or daddr); `negate` gives `!= local`.
    pub fn fib_local(mut self, source: bool, negate: bool) -> Rule {
        let flags = if source { fib::SADDR } else { fib::DADDR };
        self.exprs.push(Expr::Fib { flags, result: FibResult::AddrType, dreg: R0 });
        let op = if negate { CmpOp::Neq } else { CmpOp::Eq };
        self.exprs.push(Expr::Cmp { op, sreg: R0, data: fib::RTN_LOCAL.to_ne_bytes().to_vec() });
        self.say(&format!(
            "fib {} type {}local",
            if source { "saddr" } else { "daddr" },
            if negate { "!= " } else { "" }
        ));
        self
    }

    /// `fib saddr . iif oif missing`: the source address is not reached through the interface it came in by.
    pub fn reverse_path_missing(mut self) -> Rule {
        self.exprs.push(Expr::Fib { flags: fib::SADDR | fib::IIF, result: FibResult::Oif, dreg: R0 });
        self.exprs.push(Expr::Cmp { op: CmpOp::Eq, sreg: R0, data: vec![0; 4] });
        self.say("fib saddr . iif oif missing");
        self
    }

    /// `ct state new`
    pub fn ct_new(self) -> Rule {
        self.ct_bits(CtKey::State, ct_state::NEW, "ct state new")
    }
    /// `ct state established,related`
    pub fn ct_established(self) -> Rule {
        self.ct_bits(CtKey::State, ct_state::ESTABLISHED | ct_state::RELATED, "ct state established,related")
    }
    /// `ct status dnat`
    pub fn ct_dnat(self) -> Rule {
        self.ct_bits(CtKey::Status, super::expr::CT_STATUS_DNAT, "ct status dnat")
    }
    fn ct_bits(mut self, key: CtKey, bits: u32, text: &str) -> Rule {
        self.exprs.push(Expr::Ct { key, dreg: R0 });
        self.any_bit(bits);
        self.say(text);
        self
    }
    fn any_bit(&mut self, bits: u32) {
        let mask = bits.to_ne_bytes().to_vec();
        self.exprs.push(Expr::Bitwise { sreg: R0, dreg: R0, mask, xor: vec![0; 4] });
        self.exprs.push(Expr::Cmp { op: CmpOp::Neq, sreg: R0, data: vec![0; 4] });
    }

    /// `meta mark & bits != 0`
    pub fn marked(mut self, bits: u32) -> Rule {
        self.exprs.push(Expr::Meta { key: MetaKey::Mark, dreg: R0 });
        self.any_bit(bits);
        self.say(&format!("meta mark & {bits:#x} != 0"));
        self
    }
    /// `meta mark set meta mark | bits`
    pub fn set_mark(self, bits: u32) -> Rule {
        self.change_mark(!bits, bits, format!("meta mark set meta mark | {bits:#x}"))
    }
    /// `meta mark set meta mark & ~bits`
    pub fn clear_mark(self, bits: u32) -> Rule {
        self.change_mark(!bits, 0, format!("meta mark set meta mark & {:#x}", !bits))
    }
    fn change_mark(mut self, mask: u32, xor: u32, text: String) -> Rule {
        self.exprs.push(Expr::Meta { key: MetaKey::Mark, dreg: R0 });
        self.exprs.push(Expr::Bitwise {
            sreg: R0,
            dreg: R0,
            mask: mask.to_ne_bytes().to_vec(),
            xor: xor.to_ne_bytes().to_vec(),
        });
        self.exprs.push(Expr::MetaSet { key: MetaKey::Mark, sreg: R0 });
        self.say(&text);
        self
    }

    /// `masquerade fully-random`
    pub fn masquerade(mut self) -> Rule {
        self.exprs.push(Expr::Masquerade { fully_random: true });
        self.say("masquerade fully-random");
        self
    }
    pub fn notrack(mut self) -> Rule {
        self.exprs.push(Expr::NoTrack);
        self.say("notrack");
        self
    }
    /// `counter`
    pub fn counter(mut self) -> Rule {
        self.exprs.push(Expr::Counter);
        self.say("counter");
        self
    }
    /// `reject` with port unreachable in the packet's family.
    pub fn reject(mut self) -> Rule {
        self.exprs.push(Expr::Reject(Reject::PortUnreachable));
        self.say("reject");
        self
    }
    /// `reject with tcp reset`
    pub fn reject_tcp_reset(mut self) -> Rule {
        self.exprs.push(Expr::Reject(Reject::TcpReset));
        self.say("reject with tcp reset");
        self
    }
    pub fn verdict(mut self, verdict: Verdict) -> Rule {
        self.say(&verdict.to_string());
        self.exprs.push(Expr::Verdict(verdict));
        self
    }
    pub fn accept(self) -> Rule {
        self.verdict(Verdict::Accept)
    }
    pub fn drop(self) -> Rule {
        self.verdict(Verdict::Drop)
    }
    pub fn jump(self, chain: &str) -> Rule {
        self.verdict(Verdict::Jump(chain.to_owned()))
    }
    pub fn goto(self, chain: &str) -> Rule {
        self.verdict(Verdict::Goto(chain.to_owned()))
    }
    /// An expression that has no builder of its own.
    pub fn expr(mut self, expr: Expr, text: &str) -> Rule {
        self.exprs.push(expr);
        self.say(text);
        self
    }
}

fn lookup_vmap(map: &str) -> Expr {
    Expr::Lookup { set: SetRef::Named(map.into()), sreg: R0, dreg: None, verdict: true, negate: false }
}
fn lookup_map(map: &str) -> Expr {
    Expr::Lookup { set: SetRef::Named(map.into()), sreg: R0, dreg: Some(R0), verdict: false, negate: false }
}
fn lookup_set(set: &str, negate: bool) -> Expr {
    Expr::Lookup { set: SetRef::Named(set.into()), sreg: R0, dreg: None, verdict: false, negate }
}
fn dnat(ip: Ip, port: bool) -> Expr {
    Expr::Nat { dnat: true, ipv6: ip == Ip::V6, addr: Some(R0), port: port.then_some(Reg(ip.words())) }
}
