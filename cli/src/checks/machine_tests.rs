use super::*;

#[test]
fn ranges_with_the_machines_address_are_refused() {
    let config = keelson_daemon::config::load(None).unwrap();
    let at =
        |address: &str| [machine::Address { interface: "eth0".into(), address: address.parse().unwrap() }];
    assert!(matches!(clashes(&config, &at("192.0.2.1"), false), Found::Good(_)));
    let Found::Wrong { what, mend } = clashes(&config, &at("10.244.3.4"), false) else { panic!("accepted") };
    assert_eq!(what, "network.podCidr 10.244.0.0/16 holds this machine's address 10.244.3.4 (eth0)");
    assert!(mend.contains("--pod-network-cidr"));
    assert!(matches!(clashes(&config, &at("10.100.0.1"), false), Found::Wrong { .. }));
}

#[test]
fn a_taken_port_is_found() {
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    assert!(matches!(port_free("x", port), Found::Wrong { .. }));
    drop(taken);
    assert!(matches!(port_free("x", port), Found::Good(_)));
}
