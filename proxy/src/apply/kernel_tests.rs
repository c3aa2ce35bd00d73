//! The planned table in a real kernel: accepted, adopted, changed step by step, and carrying packets.
use std::time::Instant;

use keelson_sys::netns::unshare_net;

use super::*;
use crate::plan::{Fragment, NodeFacts, Ruleset, ServiceName, base, masquerade_table, plan, plan_service};
use crate::views::{Endpoint, Protocol, ServicePort, ServiceView, SliceView};

/// Runs a test in a fresh network namespace.
pub(crate) fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_net().expect("kernel tests need root");
            test()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn facts() -> NodeFacts {
    NodeFacts {
        name: "here".into(),
        node_ips: vec!["192.0.2.1".parse().expect("ip")],
        pod_cidrs: vec!["10.244.0.0/16".parse().expect("cidr")],
        service_cidrs: vec!["10.96.0.0/12".parse().expect("cidr")],
        dns_ips: vec!["10.96.0.10".parse().expect("ip")],
        ..NodeFacts::default()
    }
}

fn service(n: u32) -> ServiceView {
    ServiceView {
        namespace: "ns".into(),
        name: format!("s{n}"),
        cluster_ips: vec![std::net::Ipv4Addr::from(0x0a61_0000 + n).into()],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: (n < 2000).then_some(30_000 + n as u16),
        }],
        affinity_seconds: n.is_multiple_of(7).then_some(600),
        external_local: n.is_multiple_of(5),
        ..ServiceView::default()
    }
}

fn slice(n: u32, count: u8) -> SliceView {
    let endpoint = |i: u8| Endpoint {
        ip: [10, 244, (n % 250) as u8, i + 1].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(if i == 0 { "here" } else { "there" }.into()),
        hostname: None,
        zones: vec![],
        nodes: vec![],
    };
    SliceView {
        namespace: "ns".into(),
        service: format!("s{n}"),
        ports: vec![("http".into(), Protocol::Tcp, 8080)],
        endpoints: (0..count).map(endpoint).collect(),
    }
}

fn ruleset(services: u32, endpoints: u8) -> Ruleset {
    let views: Vec<ServiceView> = (0..services).map(service).collect();
    let slices: Vec<SliceView> = (0..services).map(|n| slice(n, endpoints)).collect();
    plan(&views, &slices, &facts())
}

fn change(ruleset: &mut Ruleset, n: u32, endpoints: u8) {
    let slice = slice(n, endpoints);
    ruleset.set(ServiceName::new("ns", format!("s{n}")), plan_service(&service(n), &[&slice], &facts()));
}

/// What the kernel has, as chain names with rule hashes, and sets with element counts.
fn in_force(table: &TableSpec) -> (BTreeMap<String, Vec<u64>>, BTreeMap<String, usize>) {
    let mut applier = Applier::open().expect("open");
    applier.adopt(table).expect("adopted");
    let mirror = &applier.mirrors[&table.name];
    assert!(!mirror.replace);
    let chains = mirror.chains.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    (chains, mirror.sets.iter().map(|(k, v)| (k.clone(), v.elements.len())).collect())
}

fn wanted(table: &TableSpec) -> (BTreeMap<String, Vec<u64>>, BTreeMap<String, usize>) {
    let hashes = |c: &crate::plan::ChainSpec| c.rules.iter().map(|r| r.content_hash()).collect();
    (
        table.chains.iter().map(|(k, c)| (k.clone(), hashes(c))).collect(),
        table.sets.iter().map(|(k, s)| (k.clone(), s.elements.len())).collect(),
    )
}

#[test]
fn the_kernel_takes_the_plan_and_every_change() {
    isolated(|| {
        let mut rules = ruleset(60, 3);
        let mut applier = Applier::open().expect("open");
        rules.take_dirty();
        applier.apply(rules.table(), &Dirty::default(), false).expect("cold start");
        applier.apply(&masquerade_table(&facts()), &Dirty::default(), false).expect("masquerade");
        assert_eq!(in_force(rules.table()), wanted(rules.table()));
        // Endpoints come and go, services vanish and return.
        for round in 0..6u8 {
            for n in 0..60 {
                match (n + u32::from(round)) % 4 {
                    0 => change(&mut rules, n, 0),
                    1 => change(&mut rules, n, round + 1),
                    2 => drop(rules.set(ServiceName::new("ns", format!("s{n}")), Fragment::default())),
                    _ => {}
                }
            }
            let dirty = rules.take_dirty();
            let done = applier.apply(rules.table(), &dirty, false).expect("changed");
            assert!(done.messages > 0);
            applier.apply(rules.table(), &Dirty::default(), true).expect("swept");
            assert_eq!(applier.unused(), 0);
            assert_eq!(in_force(rules.table()), wanted(rules.table()), "round {round}");
        }
        let again = applier.apply(rules.table(), &Dirty::default(), true).expect("nothing");
        assert_eq!(again, Applied::default());
    });
}

#[test]
fn a_new_process_adopts_without_a_change() {
    isolated(|| {
        let rules = ruleset(40, 2);
        Applier::open().expect("open").apply(rules.table(), &Dirty::default(), false).expect("first");
        let before = generation(&mut batch::open().expect("socket")).expect("generation");
        let mut second = Applier::open().expect("open");
        assert_eq!(
            second.apply(rules.table(), &Dirty::default(), false).expect("second"),
            Applied::default()
        );
        assert_eq!(generation(&mut batch::open().expect("socket")).expect("generation"), before);
        assert!(!second.disturbed().expect("asked"));
        // What changed while no process ran is put right in one batch, the rest is left alone.
        let later = ruleset(39, 3);
        let mut third = Applier::open().expect("open");
        third.apply(later.table(), &Dirty::default(), false).expect("third");
        third.apply(later.table(), &Dirty::default(), true).expect("swept");
        assert_eq!(in_force(later.table()), wanted(later.table()));
    });
}

#[test]
fn others_may_change_rules_and_remove_ours() {
    isolated(|| {
        let mut rules = ruleset(10, 2);
        let mut applier = Applier::open().expect("open");
        applier.apply(rules.table(), &Dirty::default(), false).expect("first");
        rules.take_dirty();
        let nft = |args: &[&str]| {
            let out = std::process::Command::new("nft").args(args).output().expect("nft");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        };
        nft(&["add", "table", "inet", "other"]);
        assert!(applier.disturbed().expect("asked"));
        change(&mut rules, 3, 4);
        let dirty = rules.take_dirty();
        let done = applier.apply(rules.table(), &dirty, false).expect("beside others");
        assert!(done.messages < 20, "only the change is sent: {done:?}");
        // Somebody flushed everything: the next change brings all of it back.
        nft(&["flush", "ruleset"]);
        change(&mut rules, 4, 4);
        let dirty = rules.take_dirty();
        applier.apply(rules.table(), &dirty, false).expect("after a flush");
        applier.apply(rules.table(), &Dirty::default(), true).expect("swept");
        assert_eq!(in_force(rules.table()), wanted(rules.table()));
        // A foreign rule in our chain, and a missing element: a new comparison mends both.
        nft(&["add", "rule", "inet", "keelson-services", "services", "drop"]);
        nft(&["delete", "element", "inet", "keelson-services", "cluster-ips4", "{ 10.97.0.5 }"]);
        applier.forget();
        applier.apply(rules.table(), &Dirty::default(), false).expect("mended");
        assert_eq!(in_force(rules.table()), wanted(rules.table()));
    });
}

#[test]
fn a_table_of_another_layout_is_replaced() {
    isolated(|| {
        let mut old = base(&facts());
        old.userdata = vec![65, 1, 0];
        old.sets.remove("service-ips4");
        old.chains.retain(|_, c| c.base.is_some());
        old.chains.values_mut().for_each(|c| c.rules.clear());
        Applier::open().expect("open").apply(&old, &Dirty::default(), false).expect("old");
        let rules = ruleset(5, 1);
        Applier::open().expect("open").apply(rules.table(), &Dirty::default(), false).expect("new");
        assert_eq!(in_force(rules.table()), wanted(rules.table()));
        assert!(remove_table("keelson-services").expect("removed"));
        assert!(!remove_table("keelson-services").expect("gone"));
    });
}

#[test]
fn nft_prints_the_whole_table() {
    isolated(|| {
        let rules = ruleset(20, 3);
        Applier::open().expect("open").apply(rules.table(), &Dirty::default(), false).expect("applied");
        let out = std::process::Command::new("nft")
            .args(["-j", "list", "table", "inet", "keelson-services"])
            .output()
            .expect("nft");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let json: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let count = |kind: &str| {
            json["nftables"].as_array().expect("list").iter().filter(|o| o.get(kind).is_some()).count()
        };
        assert_eq!(count("chain"), rules.table().chains.len());
        assert_eq!(count("rule"), rules.table().chains.values().map(|c| c.rules.len()).sum::<usize>());
        assert_eq!(count("map") + count("set"), rules.table().sets.len());
    });
}

/// Prints figures; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn bench_five_thousand_services() {
    for sticky in [false, true] {
        println!(
            "5,000 services, {}:",
            if sticky { "every seventh with client affinity" } else { "no affinity" }
        );
        isolated(|| bench(sticky));
    }
}

fn bench(sticky: bool) {
    let plain =
        |n| ServiceView { affinity_seconds: service(n).affinity_seconds.filter(|_| sticky), ..service(n) };
    let start = Instant::now();
    let views: Vec<ServiceView> = (0..5000).map(plain).collect();
    let slices: Vec<SliceView> = (0..5000).map(|n| slice(n, 3)).collect();
    let mut rules = plan(&views, &slices, &facts());
    println!("  plan: {:?}", start.elapsed());
    rules.take_dirty();
    let mut applier = Applier::open().expect("open");
    let start = Instant::now();
    let done = applier.apply(rules.table(), &Dirty::default(), false).expect("cold");
    println!("  cold batch: {:?}, {} messages, {} bytes", start.elapsed(), done.messages, done.bytes);
    let start = Instant::now();
    Applier::open().expect("open").apply(rules.table(), &Dirty::default(), false).expect("adopted");
    println!("  adoption by another process: {:?}", start.elapsed());
    const N: u32 = 200;
    for (what, count) in [("an endpoint more or less", 2), ("an endpoint replaced", 3)] {
        let (mut planning, mut applying) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
        for n in 0..N {
            let start = Instant::now();
            let mut slice = slice(10 + n, count);
            slice.endpoints[1].ip = [10, 244, 251, (n % 250) as u8].into();
            let name = ServiceName::new("ns", format!("s{}", 10 + n));
            rules.set(name, plan_service(&plain(10 + n), &[&slice], &facts()));
            let dirty = rules.take_dirty();
            planning += start.elapsed();
            let start = Instant::now();
            applier.apply(rules.table(), &dirty, false).expect("change");
            applying += start.elapsed();
        }
        println!("  {what}: plan {:?}, apply {:?}", planning / N, applying / N);
    }
}
