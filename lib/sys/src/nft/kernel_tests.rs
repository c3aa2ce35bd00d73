//! What is sent is what nft(8) reads back.
use std::net::IpAddr;
use std::time::Instant;

use super::expr::{CmpOp, Header, MetaKey, Reg};
use super::*;
use crate::testns::{isolated, tool};

const T: &str = "keelson-test";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn services() -> SetSpec {
    SetSpec::new("service-ips4", &[Field::Ipv4, Field::Proto, Field::Port], SetData::Verdict)
}

fn send(batch: Batch) {
    let mut socket = batch::open().expect("socket");
    if let Err(e) = batch.send(&mut socket, None) {
        panic!("{e}: {:?}", e.errno());
    }
}

fn base() -> Batch {
    let mut b = Batch::new();
    b.add_table(T, &[]);
    b
}

/// One rule in a fresh table, as nft(8) prints it.
fn printed(prepare: impl FnOnce(&mut Batch) + Send, rule: Rule, hook: Option<Chain>) -> String {
    isolated(move || {
        let mut b = base();
        let chain = hook.unwrap_or_else(|| Chain::regular("c"));
        b.add_chain(T, &chain);
        prepare(&mut b);
        b.add_rule(T, &chain.name, &rule);
        send(b);
        let text = tool("nft", &["-n", "list", "chain", "inet", T, &chain.name]);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.ends_with('{') && *l != "}" && !l.starts_with("type "))
            .collect();
        lines.join(" ")
    })
}

fn nat(hook: Hook) -> Option<Chain> {
    Some(Chain::base("c", ChainKind::Nat, hook, -100))
}

fn check(rule: Rule, expected: &str) {
    assert_eq!(printed(|_| {}, rule, None), expected);
}

#[test]
fn rules_read_back_as_written() {
    check(Rule::new().ct_new().reject(), "ct state 0x8 reject");
    check(Rule::new().ct_dnat().counter().accept(), "ct status 0x20 counter packets 0 bytes 0 accept");
    check(Rule::new().iifname("kl*", true).drop(), "iifname != \"kl*\" drop");
    check(Rule::new().iifname("lo", false).accept(), "iifname \"lo\" accept");
    check(Rule::new().l4proto(17).dport(53).notrack(), "udp dport 53 notrack");
    check(Rule::new().fib_local(true, true).drop(), "fib saddr type != 2 drop");
    check(Rule::new().reverse_path_missing().drop(), "fib saddr . iif oif 0 drop");
    check(
        Rule::new().saddr_net(ip("10.244.0.0"), 16, true).set_mark(0x4000),
        "ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000",
    );
    check(Rule::new().daddr_net(ip("fd00::"), 64, false).drop(), "ip6 daddr fd00::/64 drop");
    check(
        Rule::new().marked(0x4000).clear_mark(0x4000),
        "meta mark & 0x00004000 != 0x00000000 meta mark set meta mark & 0xffffbfff",
    );
    check(Rule::new().l4proto(6).reject_tcp_reset(), "meta l4proto 6 reject with tcp reset");
    check(Rule::new().expr(Expr::Log { prefix: "x ".into(), level: 4 }, "log"), "log prefix \"x \"");
    check(
        Rule::new().expr(Expr::Limit { rate: 10, unit_seconds: 1, burst: 5, over: false }, "limit").accept(),
        "limit rate 10/second accept",
    );
    check(
        Rule::new()
            .l4proto(6)
            .expr(Expr::Payload { base: Header::Transport, offset: 2, len: 2, dreg: Reg(0) }, "")
            .expr(Expr::Range { negate: false, sreg: Reg(0), from: vec![0, 80], to: vec![0, 90] }, ""),
        "tcp dport 80-90",
    );
    check(
        Rule::new()
            .expr(Expr::Meta { key: MetaKey::Mark, dreg: Reg(0) }, "")
            .expr(Expr::Byteorder { sreg: Reg(0), dreg: Reg(0), to_host: false, len: 4, size: 4 }, "")
            .expr(Expr::Cmp { op: CmpOp::Gt, sreg: Reg(0), data: vec![0, 0, 0, 9] }, "")
            .accept(),
        "meta mark > 0x00000009 accept",
    );
}

#[test]
fn translation_reads_back_as_written() {
    let pre = || nat(Hook::Prerouting);
    let two = [(ip("10.0.0.1"), 80), (ip("10.0.0.2"), 8080)];
    assert_eq!(
        printed(|_| {}, Rule::new().dnat_random(Ip::V4, &two), pre()),
        "meta nfproto 2 dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 8080 }"
    );
    assert_eq!(
        printed(|_| {}, Rule::new().dnat_random(Ip::V4, &two[..1]), pre()),
        "meta nfproto 2 dnat ip to 10.0.0.1:80"
    );
    let six = [(ip("fd00::1"), 80), (ip("fd00::2"), 81)];
    assert_eq!(
        printed(|_| {}, Rule::new().dnat_random(Ip::V6, &six), pre()),
        "meta nfproto 10 dnat ip6 to numgen random mod 2 map { 0 : fd00::1 . 80, 1 : fd00::2 . 81 }"
    );
    let key = [Field::Ipv4, Field::Proto, Field::Port, Field::Mark];
    let endpoints = SetSpec::new("eps", &key, SetData::Value(vec![Field::Ipv4, Field::Port]));
    let element = Element::value(
        Key::new().ip(ip("10.96.0.1")).proto(6).port(80).number(1).bytes(),
        Key::new().ip(ip("10.0.0.2")).port(8080).bytes(),
    );
    assert_eq!(
        printed(
            |b| {
                b.add_set(T, &endpoints);
                b.add_elements(T, &endpoints, &[element]);
                let list = tool("nft", &["list", "ruleset"]);
                assert_eq!(list, "");
            },
            Rule::new().dnat_pick(Ip::V4, "eps", true, 3),
            pre()
        ),
        "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @eps"
    );
    isolated(|| {
        let mut b = base();
        let key = [Field::Ipv6, Field::Proto, Field::Port, Field::Mark];
        let spec = SetSpec::new("eps6", &key, SetData::Value(vec![Field::Ipv6, Field::Port]));
        b.add_set(T, &spec);
        let element = Element::value(
            Key::new().ip(ip("fd00::1")).proto(6).port(80).number(1).bytes(),
            Key::new().ip(ip("fd00::2")).port(8080).bytes(),
        );
        b.add_elements(T, &spec, &[element]);
        b.add_chain(T, &Chain::base("c", ChainKind::Nat, Hook::Output, -100));
        b.add_rule(T, "c", &Rule::new().dnat_pick(Ip::V6, "eps6", true, 3));
        send(b);
        let text = tool("nft", &["list", "ruleset"]);
        assert!(text.contains("fd00::1 . tcp . 80 . 0x00000001 : fd00::2 . 8080"), "{text}");
        assert!(text.contains("numgen random mod 3 map @eps6"), "{text}");
    });
    let affinity = || SetSpec::new("aff", &[Field::Ipv4], SetData::None).dynamic(10_800_000, 65_536);
    assert_eq!(
        printed(|b| b.add_set(T, &affinity()), Rule::new().update_saddr(Ip::V4, "aff"), pre()),
        "update @aff { ip saddr }"
    );
    let chains = ["e1".to_owned(), "e2".to_owned()];
    assert_eq!(
        printed(
            |b| chains.iter().for_each(|c| b.add_chain(T, &Chain::regular(c))),
            Rule::new().goto_random(&chains),
            None
        ),
        "numgen random mod 2 vmap { 0 : goto e1, 1 : goto e2 }"
    );
    assert_eq!(printed(|_| {}, Rule::new().masquerade(), nat(Hook::Postrouting)), "masquerade fully-random");
    assert_eq!(
        printed(
            |b| b.add_set(T, &services()),
            Rule::new().vmap_daddr_proto_port(Ip::V4, "service-ips4"),
            pre()
        ),
        "ip daddr . meta l4proto . th dport vmap @service-ips4"
    );
    let hostports =
        SetSpec::new("hp", &[Field::Proto, Field::Port], SetData::Value(vec![Field::Ipv4, Field::Port]));
    assert_eq!(
        printed(|b| b.add_set(T, &hostports), Rule::new().dnat_by_proto_port(Ip::V4, "hp"), pre()),
        "meta nfproto 2 dnat ip to meta l4proto . th dport map @hp"
    );
}

fn element(n: u32) -> Element {
    let addr = IpAddr::from((0x0a60_0000 + n).to_be_bytes());
    Element::verdict(Key::new().ip(addr).proto(6).port(80).bytes(), Verdict::Goto("svc".into()))
}

#[test]
fn sets_split_lists_and_read_back() {
    isolated(|| {
        let spec = services();
        let nets = SetSpec::new("nets", &[Field::Ipv4], SetData::None).intervals();
        let wide = SetSpec::new("wide", &[Field::Ipv4, Field::Port], SetData::None).intervals();
        let all: Vec<Element> = (0..5000).map(element).collect();
        let mut b = base();
        b.add_chain(T, &Chain::regular("svc"));
        b.add_set(T, &spec);
        b.add_set(T, &nets);
        b.add_set(T, &wide);
        b.add_elements(T, &spec, &all);
        b.add_elements(
            T,
            &nets,
            &[
                Element::prefix(ip("10.1.2.3"), 16),
                Element::prefix(ip("255.255.0.0"), 16),
                Element::key(Key::new().ip(ip("1.2.3.4")).bytes()),
            ],
        );
        let key = |a: &str, p| Key::new().ip(ip(a)).port(p).bytes();
        let range = Element { key_end: Some(key("10.0.0.9", 90)), ..Element::key(key("10.0.0.1", 80)) };
        b.add_elements(T, &wide, std::slice::from_ref(&range));
        send(b);

        let mut socket = batch::open().expect("socket");
        let state = read_table(&mut socket, T).expect("dump").expect("exists");
        assert!(state.sets["service-ips4"].matches(&spec));
        assert!(state.sets["nets"].matches(&nets) && !state.sets["nets"].matches(&spec));
        let mut read = read_elements(&mut socket, T, &spec).expect("dump");
        read.sort_by(|a, b| a.key.cmp(&b.key));
        assert!(read == all, "5,000 elements come back as they went");
        let read = read_elements(&mut socket, T, &nets).expect("dump");
        assert_eq!(
            read,
            [
                Element { key_end: Some(vec![1, 2, 3, 4]), ..Element::key(vec![1, 2, 3, 4]) },
                Element::prefix(ip("10.1.0.0"), 16),
                Element::prefix(ip("255.255.0.0"), 16),
            ]
        );
        assert_eq!(read_elements(&mut socket, T, &wide).expect("dump"), [range]);
        let json = tool("nft", &["-j", "list", "set", "inet", T, "nets"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let elem = &json["nftables"][1]["set"]["elem"];
        assert_eq!(elem[1]["prefix"]["addr"], "10.1.0.0", "{json}");
        let json = tool("nft", &["-j", "list", "map", "inet", T, "service-ips4"]);
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(json["nftables"][1]["map"]["elem"].as_array().map(Vec::len), Some(5000));
        assert_eq!(
            json["nftables"][1]["map"]["type"],
            serde_json::json!(["ipv4_addr", "inet_proto", "inet_service"])
        );
    });
}

#[test]
fn a_refused_batch_names_its_message_and_changes_nothing() {
    isolated(|| {
        let mut b = base();
        b.add_chain(T, &Chain::regular("a"));
        b.add_rule(T, "missing", &Rule::new().accept());
        let mut socket = batch::open().expect("socket");
        let error = b.send(&mut socket, None).expect_err("no such chain");
        assert!(error.to_string().contains("add rule to keelson-test missing"), "{error}");
        assert_eq!(error.errno(), Some(nix::errno::Errno::ENOENT));
        assert_eq!(read_table(&mut socket, T).expect("dump"), None);
    });
}

#[test]
fn a_moved_generation_refuses_the_batch() {
    isolated(|| {
        let mut socket = batch::open().expect("socket");
        let old = generation(&mut socket).expect("generation");
        send(base());
        let mut b = base();
        b.add_chain(T, &Chain::regular("a"));
        assert!(matches!(b.send(&mut socket, Some(old)), Err(NftError::GenerationMoved(g)) if g == old));
        let now = generation(&mut socket).expect("generation");
        let mut b = base();
        b.add_chain(T, &Chain::regular("a"));
        b.send(&mut socket, Some(now)).expect("current");
        assert!(read_table(&mut socket, T).expect("dump").expect("there").chains.contains_key("a"));
    });
}

#[test]
fn chains_and_rule_hashes_come_back() {
    isolated(|| {
        let rule = Rule::new().ct_new().reject();
        let chain = Chain::base("in", ChainKind::Filter, Hook::Input, 0);
        let mut b = Batch::new();
        b.add_table(T, &[9, 1, 7]);
        b.add_chain(T, &chain);
        b.add_rule(T, "in", &rule);
        b.add_rule(T, "in", &Rule::new().accept());
        send(b);
        tool("nft", &["add", "rule", "inet", T, "in", "counter"]);
        let mut socket = batch::open().expect("socket");
        let state = read_table(&mut socket, T).expect("dump").expect("there");
        assert_eq!(state.userdata, [9, 1, 7]);
        let read = &state.chains["in"];
        assert_eq!(read.base, chain.base);
        let hashes: Vec<_> = read.rules.iter().map(|(_, h)| *h).collect();
        assert_eq!(hashes, [Some(rule.content_hash()), Some(Rule::new().accept().content_hash()), None]);
    });
}

/// Prints figures; run with `--ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn bench_one_element() {
    isolated(|| {
        let spec = services();
        let mut b = base();
        b.add_chain(T, &Chain::regular("svc"));
        b.add_set(T, &spec);
        let all: Vec<Element> = (0..5000).map(element).collect();
        b.add_elements(T, &spec, &all);
        send(b);
        let mut socket = batch::open().expect("socket");
        let start = Instant::now();
        const N: u32 = 500;
        for n in 0..N {
            let mut b = Batch::new();
            b.add_elements(T, &spec, &[element(10_000 + n)]);
            b.send(&mut socket, None).expect("add");
        }
        println!("one element into a map of 5,000: {:?}", start.elapsed() / N);
        let start = Instant::now();
        for n in 0..10 {
            let addr = format!("add element inet {T} service-ips4 {{ 10.99.0.{n} . tcp . 80 : goto svc }}");
            tool("nft", &[&addr]);
        }
        println!("the same by running nft: {:?}", start.elapsed() / 10);
    });
}
