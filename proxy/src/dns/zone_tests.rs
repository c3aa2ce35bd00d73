use super::*;
use crate::views::ServicePort;

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("name")
}
fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn zone() -> Zone {
    Zone {
        domain: name("cluster.local."),
        dns_ips: vec![ip("10.96.0.10")],
        pod_cidrs: vec!["10.244.0.0/16".parse().expect("cidr"), "fd00:10::/48".parse().expect("cidr")],
        service_cidrs: vec!["10.96.0.0/12".parse().expect("cidr")],
    }
}

fn endpoint(address: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint {
        ip: ip(address),
        ready,
        serving: ready,
        terminating: false,
        node: None,
        hostname: hostname.map(str::to_owned),
        zones: vec![],
        nodes: vec![],
    }
}

fn add(index: &Index, view: ServiceView, endpoints: Vec<Endpoint>) {
    let key = ServiceName::new(&view.namespace, &view.name);
    let ports = view.ports.iter().map(|p| (p.name.clone(), p.protocol, p.port + 8000)).collect();
    let slice = SliceView { namespace: view.namespace.clone(), service: view.name.clone(), ports, endpoints };
    let slice_name = format!("{}-x", view.name);
    index.service(key, Some(Arc::new(view)));
    index.slice(&slice_name, None, Some(&Arc::new(slice)));
}

fn index() -> Index {
    let index = Index::default();
    let port = |n: &str, protocol, port| ServicePort { name: n.into(), protocol, port, node_port: None };
    let base = |n: &str| ServiceView { namespace: "shop".into(), name: n.into(), ..ServiceView::default() };
    let web = ServiceView {
        cluster_ips: vec![ip("10.96.7.7"), ip("fd00:172::7")],
        ports: vec![port("http", Protocol::Tcp, 80), port("dns", Protocol::Udp, 53)],
        ..base("web")
    };
    add(&index, web, vec![endpoint("10.244.0.5", None, true)]);
    let db = ServiceView { headless: true, ports: vec![port("redis", Protocol::Tcp, 79)], ..base("db") };
    add(
        &index,
        db,
        vec![
            endpoint("10.244.0.6", Some("db-0"), true),
            endpoint("10.244.1.6", None, true),
            endpoint("10.244.1.7", Some("db-2"), false),
        ],
    );
    let early = ServiceView { headless: true, publish_not_ready: true, ..base("early") };
    add(&index, early, vec![endpoint("10.244.0.8", Some("e-0"), false)]);
    add(&index, ServiceView { headless: true, ..base("nobody") }, vec![]);
    add(&index, ServiceView { external_name: Some("example.com".into()), ..base("out") }, vec![]);
    index
}

fn show(answer: Answer) -> String {
    match answer {
        Answer::Found(records) => {
            let mut texts: Vec<String> =
                records.iter().map(|r| format!("{} {}", r.record_type(), r.data)).collect();
            texts.sort();
            texts.join(", ")
        }
        Answer::NoData => "no data".into(),
        Answer::NoName => "no name".into(),
        Answer::Alias(name) => format!("alias {name}"),
        Answer::Elsewhere => "elsewhere".into(),
    }
}

fn check(asked: &str, kind: RecordType, expected: &str) {
    let index = index();
    assert_eq!(show(zone().answer(&index, &name(asked), kind)), expected, "{asked} {kind}");
}

use RecordType as T;

#[test]
fn cluster_addresses() {
    check("web.shop.svc.cluster.local.", T::A, "A 10.96.7.7");
    check("WEB.Shop.svc.Cluster.local.", T::A, "A 10.96.7.7");
    check("web.shop.svc.cluster.local.", T::AAAA, "AAAA fd00:172::7");
    check("web.shop.svc.cluster.local.", T::MX, "no data");
    check("nothing.shop.svc.cluster.local.", T::A, "no name");
    check("web.other.svc.cluster.local.", T::A, "no name");
    check("10-244-0-5.web.shop.svc.cluster.local.", T::A, "A 10.244.0.5");
    let index = index();
    match zone().answer(&index, &name("wEb.shop.svc.cluster.local."), T::A) {
        Answer::Found(records) => {
            assert_eq!(records[0].name.to_ascii(), "wEb.shop.svc.cluster.local.");
            assert_eq!(records[0].ttl, 5);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_between() {
    check("cluster.local.", T::A, "no data");
    check("svc.cluster.local.", T::A, "no data");
    check("shop.svc.cluster.local.", T::A, "no data");
    check("other.svc.cluster.local.", T::A, "no name");
    check("_tcp.web.shop.svc.cluster.local.", T::SRV, "no data");
    check("_sctp.web.shop.svc.cluster.local.", T::SRV, "no name");
    check("x.cluster.local.", T::A, "no name");
    check("dns-version.cluster.local.", T::TXT, "TXT 1.1.0");
    check("ns.dns.cluster.local.", T::A, "A 10.96.0.10");
    check("cluster.local.", T::NS, "NS ns.dns.cluster.local.");
    check("example.com.", T::A, "elsewhere");
    check("notcluster.local.", T::A, "elsewhere");
}

#[test]
fn headless() {
    check("db.shop.svc.cluster.local.", T::A, "A 10.244.0.6, A 10.244.1.6");
    check("db.shop.svc.cluster.local.", T::AAAA, "no data");
    check("db-0.db.shop.svc.cluster.local.", T::A, "A 10.244.0.6");
    check("10-244-1-6.db.shop.svc.cluster.local.", T::A, "A 10.244.1.6");
    check("db-2.db.shop.svc.cluster.local.", T::A, "no name");
    check("e-0.early.shop.svc.cluster.local.", T::A, "A 10.244.0.8");
    check("early.shop.svc.cluster.local.", T::A, "A 10.244.0.8");
    check("nobody.shop.svc.cluster.local.", T::A, "no data");
}

#[test]
fn services_records() {
    check("_http._tcp.web.shop.svc.cluster.local.", T::SRV, "SRV 0 100 80 web.shop.svc.cluster.local.");
    check("_dns._udp.web.shop.svc.cluster.local.", T::SRV, "SRV 0 100 53 web.shop.svc.cluster.local.");
    check("_dns._tcp.web.shop.svc.cluster.local.", T::SRV, "no name");
    check("_http._tcp.web.shop.svc.cluster.local.", T::A, "no data");
    check(
        "_redis._tcp.db.shop.svc.cluster.local.",
        T::SRV,
        "SRV 0 50 8079 10-244-1-6.db.shop.svc.cluster.local., SRV 0 50 8079 db-0.db.shop.svc.cluster.local.",
    );
}

#[test]
fn pods_externals_and_reverse() {
    check("10-244-3-4.shop.pod.cluster.local.", T::A, "A 10.244.3.4");
    check("10-244-3-4.shop.pod.cluster.local.", T::AAAA, "no data");
    check("fd00-10--5.shop.pod.cluster.local.", T::AAAA, "AAAA fd00:10::5");
    check("8-8-8-8.shop.pod.cluster.local.", T::A, "no name");
    check("pod.shop.pod.cluster.local.", T::A, "no name");
    check("out.shop.svc.cluster.local.", T::A, "alias example.com.");
    check("out.shop.svc.cluster.local.", T::CNAME, "CNAME example.com.");
    check("7.7.96.10.in-addr.arpa.", T::PTR, "PTR web.shop.svc.cluster.local.");
    check("6.0.244.10.in-addr.arpa.", T::PTR, "PTR db-0.db.shop.svc.cluster.local.");
    check("99.0.244.10.in-addr.arpa.", T::PTR, "no name");
    check("8.8.8.8.in-addr.arpa.", T::PTR, "elsewhere");
}

#[test]
fn the_index_follows_changes() {
    let index = index();
    let key = ServiceName::new("shop", "web");
    assert!(index.take_dirty().contains(&key));
    index.service(key.clone(), None);
    assert_eq!(index.take_dirty(), BTreeSet::from([key]));
    assert_eq!(show(zone().answer(&index, &name("web.shop.svc.cluster.local."), T::A)), "no name");
    assert_eq!(show(zone().answer(&index, &name("7.7.96.10.in-addr.arpa."), T::PTR)), "no name");
    let slices = index.slices_of(&ServiceName::new("shop", "db"));
    index.slice("db-x", Some(&slices[0]), None);
    assert_eq!(show(zone().answer(&index, &name("6.0.244.10.in-addr.arpa."), T::PTR)), "no name");
    assert_eq!(show(zone().answer(&index, &name("db.shop.svc.cluster.local."), T::A)), "no data");
}
