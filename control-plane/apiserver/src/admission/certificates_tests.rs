use super::super::ChainOptions;
use super::super::harness::*;
use super::*;
use keelson_api::doc::to_json_value;
use serde_json::json;

fn csr(signer: &str, groups: &[&str], name: &str) -> Doc {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CountryName, "XX");
    for group in groups {
        params.distinguished_name.push(rcgen::DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    doc(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        json!({ "metadata": { "name": "c" },
        "spec": { "signerName": signer, "request": STANDARD.encode(pem), "usages": ["client auth"] } }),
    )
}

#[test]
fn certificate_requests() {
    let text = "CREATE certificates.k8s.io/certificatesigningrequests -/-";
    let world = world_with(
        &["approve signers example.com/*", "sign signers example.com/one"],
        ChainOptions::default(),
    );
    let client = "kubernetes.io/kube-apiserver-client";
    world.run(&jane(), text, Some(csr(client, &["team"], "x")), None).unwrap();
    assert!(world.refusal(&jane(), text, Some(csr(client, &["system:masters"], "x")), None).ends_with(
        "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
    ));
    let me = kubelet("n1");
    for signer in ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"] {
        world.run(&me, text, Some(csr(signer, &["system:nodes"], "system:node:n1")), None).unwrap();
        assert!(
            world
                .refusal(&me, text, Some(csr(signer, &["system:nodes"], "system:node:n2")), None)
                .ends_with("can only create a node CSR with CN=system:node:n1")
        );
    }
    let one = || csr("example.com/one", &[], "x");
    let two = || csr("example.com/two", &[], "x");
    world
        .run(
            &jane(),
            "UPDATE certificates.k8s.io/certificatesigningrequests/approval -/c",
            Some(two()),
            Some(two()),
        )
        .unwrap();
    let foreign = || csr("other.org/one", &[], "x");
    assert!(
        world
            .refusal(
                &jane(),
                "UPDATE certificates.k8s.io/certificatesigningrequests/approval -/c",
                Some(one()),
                Some(foreign())
            )
            .ends_with("user not permitted to approve requests with signerName \"other.org/one\"")
    );
    let signed = |base: Doc| {
        let mut object = to_json_value(&base);
        object["status"] = json!({ "certificate": STANDARD.encode("cert") });
        doc("certificates.k8s.io/v1", "CertificateSigningRequest", object)
    };
    let status = "UPDATE certificates.k8s.io/certificatesigningrequests/status -/c";
    let old = one();
    world.run(&jane(), status, Some(signed(old.clone())), Some(old)).unwrap();
    let old = two();
    assert!(
        world
            .refusal(&jane(), status, Some(signed(old.clone())), Some(old.clone()))
            .ends_with("user not permitted to sign requests with signerName \"example.com/two\"")
    );
    world.run(&jane(), status, Some(old.clone()), Some(old)).unwrap();
}
