use super::*;

fn node() -> CsrInfo {
    CsrInfo {
        common_name: "system:node:n1".into(),
        organizations: vec!["system:nodes".into()],
        dns_names: vec![],
        addresses: vec![],
        other_names: 0,
        other_subject: 0,
        public_key: vec![],
    }
}

fn usages(list: &str) -> Vec<String> {
    list.split(',').filter(|usage| !usage.is_empty()).map(str::to_owned).collect()
}

const CLIENT_USAGES: &str = "key encipherment,digital signature,client auth";
const SERVER_USAGES: &str = "key encipherment,digital signature,server auth";

fn ways(signer: &str, username: &str, list: &str, change: impl FnOnce(&mut CsrInfo)) -> Vec<Recognized> {
    let mut csr = node();
    change(&mut csr);
    recognize(Request { signer, username, usages: &usages(list), csr: &csr })
}

/// The good and bad cases of upstream's approver test.
#[test]
fn kubelet_client_certificates_are_recognised() {
    use Recognized::{NodeClient, SelfNodeClient};
    let node_user = "system:node:n1";
    let check = |username: &str, list: &str, change: fn(&mut CsrInfo), expected: &[Recognized]| {
        assert_eq!(ways(KUBELET_CLIENT, username, list, change), expected, "{username} {list}");
    };
    check(node_user, CLIENT_USAGES, |_| {}, &[SelfNodeClient, NodeClient]);
    check(node_user, "digital signature,client auth", |_| {}, &[SelfNodeClient, NodeClient]);
    check("system:bootstrap:abcdef", CLIENT_USAGES, |_| {}, &[NodeClient]);
    check(node_user, CLIENT_USAGES, |csr| csr.common_name = "mike".into(), &[]);
    check(node_user, CLIENT_USAGES, |csr| csr.organizations.clear(), &[]);
    check(node_user, CLIENT_USAGES, |csr| csr.organizations.push("system:masters".into()), &[]);
    check(node_user, CLIENT_USAGES, |csr| csr.dns_names.push("n1".into()), &[]);
    check(node_user, CLIENT_USAGES, |csr| csr.addresses.push([10, 0, 0, 1].into()), &[]);
    check(node_user, CLIENT_USAGES, |csr| csr.other_names = 1, &[]);
    check(node_user, "client auth", |_| {}, &[]);
    check(node_user, SERVER_USAGES, |_| {}, &[]);
    check(node_user, "key encipherment,digital signature,client auth,server auth", |_| {}, &[]);
    assert_eq!(ways("example.com/client", node_user, CLIENT_USAGES, |_| {}), []);
}

#[test]
fn serving_certificates_only_for_oneself_and_ones_own_names() {
    let named = |csr: &mut CsrInfo| csr.dns_names.push("n1".into());
    let own = ways(KUBELET_SERVING, "system:node:n1", SERVER_USAGES, named);
    assert_eq!(own, [Recognized::NodeServing]);
    for other in ["system:node:n2", "system:bootstrap:abcdef", "admin"] {
        assert_eq!(ways(KUBELET_SERVING, other, SERVER_USAGES, named), []);
    }
    let mut csr = node();
    let registered = ["n1.example".to_owned(), "192.0.2.7".to_owned(), "2001:db8::7".to_owned()];
    csr.dns_names = vec!["n1".into(), "n1.example".into()];
    csr.addresses = vec![[192, 0, 2, 7].into(), "2001:0db8:0:0::7".parse().unwrap()];
    assert!(names_are_of(&csr, "n1", &registered));
    csr.addresses.push([192, 0, 2, 8].into());
    assert!(!names_are_of(&csr, "n1", &registered), "an address of another machine");
    csr.addresses.pop();
    csr.dns_names.push("kubernetes.default.svc".into());
    assert!(!names_are_of(&csr, "n1", &registered));
    csr.dns_names.pop();
    assert!(!names_are_of(&csr, "n2", &registered), "another node");
}

#[test]
fn a_node_may_ask_for_its_proxy_and_for_nothing_else_of_that_signer() {
    let proxy = |csr: &mut CsrInfo| {
        csr.common_name = "system:kube-proxy".into();
        csr.organizations.clear();
    };
    assert_eq!(ways(CLIENT, "system:node:n1", CLIENT_USAGES, proxy), [Recognized::NodeProxy]);
    assert_eq!(ways(CLIENT, "jane", CLIENT_USAGES, proxy), []);
    assert_eq!(ways(CLIENT, "system:node:n1", CLIENT_USAGES, |_| {}), []);
    let grouped = |csr: &mut CsrInfo| {
        csr.common_name = "system:kube-proxy".into();
        csr.organizations = vec!["system:masters".into()];
    };
    assert_eq!(ways(CLIENT, "system:node:n1", CLIENT_USAGES, grouped), []);
}

#[test]
fn signers_say_why_not() {
    let check =
        |signer: &str, list: &str, change: fn(&mut CsrInfo), expected: Option<Result<usize, &str>>| {
            let mut csr = node();
            change(&mut csr);
            let taken = signer_takes(Request { signer, username: "", usages: &usages(list), csr: &csr });
            let taken = taken.map(|result| result.map(|usages| usages.len()));
            assert_eq!(taken.as_ref().map(|r| r.as_ref().map(|n| *n).map_err(String::as_str)), expected);
        };
    check(CLIENT, "client auth", |_| {}, Some(Ok(1)));
    check(CLIENT, CLIENT_USAGES, |_| {}, Some(Ok(3)));
    check(
        CLIENT,
        "digital signature",
        |_| {},
        Some(Err("missing required usage for client certificate: client auth")),
    );
    check(
        CLIENT,
        "client auth,server auth",
        |_| {},
        Some(Err("invalid usage for client certificate: server auth")),
    );
    check(KUBELET_SERVING, SERVER_USAGES, |_| {}, Some(Err("DNS or IP subjectAltName is required")));
    check(KUBELET_SERVING, SERVER_USAGES, |csr| csr.dns_names.push("x".into()), Some(Ok(3)));
    let not_nodes = |csr: &mut CsrInfo| csr.organizations = vec!["x".into()];
    check(KUBELET_CLIENT, CLIENT_USAGES, not_nodes, Some(Err("subject organization is not system:nodes")));
    check(
        KUBELET_CLIENT,
        "client auth",
        |_| {},
        Some(Err("usages did not match [client auth digital signature key encipherment]")),
    );
    check("example.com/mine", CLIENT_USAGES, |_| {}, None);
}
