//! The planned table as text, compared with files. `UPDATE_GOLDENS=1` rewrites them.
use super::sim_tests::{facts, ip, service, slice};
use super::*;

fn check(name: &str, text: &str) {
    let path = format!("{}/src/plan/goldens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{path} differs; now:\n{text}");
}

#[test]
fn empty() {
    check("empty", &base(&facts()).to_string());
    check("masquerade", &masquerade_table(&facts()).to_string());
}

#[test]
fn full() {
    let mut web = service("web", "172.30.0.41");
    web.ports[0].node_port = Some(30080);
    web.load_balancer_ips = vec![ip("1.2.3.4")];
    web.source_ranges = vec!["203.0.113.0/24".parse().expect("cidr")];
    web.external_local = true;
    web.health_check_port = Some(30000);
    let mut sticky = service("sticky", "172.30.0.42");
    sticky.affinity_seconds = Some(10_800);
    let lonely = service("lonely", "172.30.0.43");
    let mut six = service("six", "fd00:172::44");
    six.external_ips = vec![ip("2001:db8::99")];
    let slices = [
        slice("web", &["10.180.0.1@here", "10.180.2.1@there"]),
        slice("sticky", &["10.180.0.2@here", "10.180.2.2@there"]),
        slice("six", &["fd00:10:1::1@here", "fd00:10:2::1@there"]),
    ];
    let ruleset = plan(&[web, sticky, lonely, six], &slices, &facts());
    check("full", &ruleset.table().to_string());
    let health: Vec<_> =
        ruleset.health_checks().map(|(n, h)| (n.to_string(), h.port, h.local_endpoints)).collect();
    assert_eq!(health, [("ns/web".to_owned(), 30000, 1)]);
}
