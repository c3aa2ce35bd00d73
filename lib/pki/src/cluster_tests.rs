use super::*;
use crate::{ClientVerifier, LEAF_LIFE, client_config, parse_csr, server_config};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

fn params() -> PkiParams {
    PkiParams {
        node_name: "node-1".into(),
        cluster_domain: "cluster.local".into(),
        service_address: [10, 96, 0, 1].into(),
        node_addresses: vec![[192, 0, 2, 7].into()],
        extra_names: vec!["api.example.org".into(), "192.0.2.99".into()],
        life: LEAF_LIFE,
        now: "2026-03-01T12:00:00Z".parse().unwrap(),
    }
}

fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
        .collect()
}

#[test]
fn a_second_run_changes_nothing_and_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pki");
    let started = std::time::Instant::now();
    let pki = ClusterPki::ensure(&path, &params()).unwrap();
    println!("first ensure took {:?}", started.elapsed());
    let before = contents(&path);
    let again = ClusterPki::ensure(&path, &params()).unwrap();
    assert_eq!(contents(&path), before);
    assert_eq!(pki.ca.hash().unwrap(), again.ca.hash().unwrap());
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.file_name().to_string_lossy().ends_with(".key") {
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
    }
}

#[test]
fn what_a_crash_left_out_is_completed_and_authorities_are_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let first = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let hash = first.ca.hash().unwrap();
    let kid = first.service_account.kid.clone();
    let all = contents(dir.path());
    for name in all.keys().filter(|n| n.as_str() != ".lock") {
        let path = dir.path().join(name);
        std::fs::remove_file(&path).unwrap();
        match ClusterPki::ensure(dir.path(), &params()) {
            Ok(pki) => {
                assert!(path.exists(), "{name}");
                if name == "ca.crt" {
                    assert_eq!(pki.ca.hash().unwrap(), hash, "the key stays, so the hash does");
                }
                if name == "sa.pub" {
                    assert_eq!(pki.service_account.kid, kid);
                }
            }
            Err(EnsureError::AuthorityKeyMissing { path: missing }) => {
                assert!(name == "ca.key" || name == "front-proxy-ca.key", "{name}");
                assert_eq!(missing, path);
            }
            Err(e) => panic!("{name}: {e:?}"),
        }
        for (file, content) in &all {
            std::fs::write(dir.path().join(file), content).unwrap();
        }
    }
}

#[test]
fn certificates_are_renewed_after_a_third_of_their_life_or_when_names_change() {
    let dir = tempfile::tempdir().unwrap();
    let first = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let mut later = params();
    later.now = "2026-06-01T12:00:00Z".parse().unwrap();
    let same = ClusterPki::ensure(dir.path(), &later).unwrap();
    assert_eq!(same.admin.cert_pem, first.admin.cert_pem);
    later.now = "2026-08-01T12:00:00Z".parse().unwrap();
    let renewed = ClusterPki::ensure(dir.path(), &later).unwrap();
    assert_ne!(renewed.admin.cert_pem, first.admin.cert_pem);
    assert_eq!(renewed.ca.certificate_pem(), first.ca.certificate_pem());
    later.node_addresses.push([192, 0, 2, 8].into());
    let moved = ClusterPki::ensure(dir.path(), &later).unwrap();
    assert_ne!(moved.apiserver.cert_pem, renewed.apiserver.cert_pem);
    assert_eq!(moved.scheduler.cert_pem, renewed.scheduler.cert_pem);
}

#[test]
fn certificates_that_live_minutes_are_renewed_after_one() {
    let dir = tempfile::tempdir().unwrap();
    let short = |seconds: i64| PkiParams {
        life: Duration::from_secs(180),
        now: params().now + jiff::SignedDuration::from_secs(seconds),
        ..params()
    };
    let first = ClusterPki::ensure(dir.path(), &short(0)).unwrap();
    let (_, end) = crate::validity(&first.admin.cert_pem).unwrap();
    assert_eq!(end, short(180).now);
    assert!(first.renew(short(30).now).unwrap().is_none(), "not while two thirds are left");
    let renewed = first.renew(short(70).now).unwrap().unwrap();
    assert_ne!(renewed.admin.cert_pem, first.admin.cert_pem);
    let verifier = ClientVerifier::new(&[first.ca.certificate().clone()]).unwrap();
    let at = |seconds: i64| short(seconds).now.as_second() as u64;
    verifier.verify(&first.admin.chain(), at(170)).unwrap();
    assert!(verifier.verify(&first.admin.chain(), at(190)).is_err());
    verifier.verify(&renewed.admin.chain(), at(240)).unwrap();
}

#[test]
fn certificates_made_before_the_clock_was_set_hold_before_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let mut early = params();
    early.now = "1970-01-01T00:01:00Z".parse().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &early).unwrap();
    let verifier = ClientVerifier::new(&[pki.ca.certificate().clone()]).unwrap();
    for now in [60, params().now.as_second() as u64] {
        verifier.verify(&pki.scheduler.chain(), now).unwrap();
    }
}

#[test]
fn the_verifier_refuses_expired_foreign_and_serving_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let verifier = ClientVerifier::new(&[pki.ca.certificate().clone()]).unwrap();
    let now = params().now.as_second() as u64;
    verifier.verify(&pki.node.chain(), now).unwrap();
    assert!(verifier.verify(&pki.node.chain(), now + 366 * 86_400).is_err());
    assert!(verifier.verify(&pki.node.chain(), now - 7200).is_err());
    assert!(verifier.verify(&pki.apiserver.chain(), now).is_err(), "a serving certificate is not a client's");
    assert!(verifier.verify(&pki.front_proxy_client.chain(), now).is_err(), "another authority");
    assert!(verifier.verify(&[], now).is_err());
}

#[test]
fn requests_are_signed_with_the_subject_they_prove() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut request = rcgen::CertificateParams::default();
    request.distinguished_name = rcgen::DistinguishedName::new();
    request.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    request.distinguished_name.push(rcgen::DnType::CommonName, "system:node:worker");
    let pem = request.serialize_request(&key).unwrap().pem().unwrap();
    let info = parse_csr(&pem).unwrap();
    assert_eq!(info.common_name, "system:node:worker");
    assert_eq!(info.organizations, ["system:nodes"]);
    let usages = [crate::Usage::DigitalSignature, crate::Usage::ClientAuth];
    let cert = pki.ca.sign_csr(&info, &usages, params().now, LEAF_LIFE).unwrap();
    let der = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
    let verifier = ClientVerifier::new(&[pki.ca.certificate().clone()]).unwrap();
    verifier.verify(std::slice::from_ref(&der), params().now.as_second() as u64).unwrap();
    assert!(crate::authority::belongs(&der, &key.serialize_pem()).unwrap());
    let mut broken = pem.clone().into_bytes();
    let middle = broken.len() / 2;
    broken[middle] = if broken[middle] == b'A' { b'B' } else { b'A' };
    assert!(parse_csr(std::str::from_utf8(&broken).unwrap()).is_err());
}

/// A handshake in memory; the client's chain as the server saw it.
fn handshake(
    server: rustls::ServerConfig,
    client: rustls::ClientConfig,
    name: &str,
) -> Result<Option<Vec<CertificateDer<'static>>>, rustls::Error> {
    let mut server = rustls::ServerConnection::new(Arc::new(server))?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(client), name)?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    client.writer().write_all(b"x").unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets()?;
    let mut got = [0; 1];
    server.reader().read_exact(&mut got).unwrap();
    Ok(server.peer_certificates().map(|c| c.iter().map(|c| c.clone().into_owned()).collect()))
}

#[test]
fn tls_works_with_and_without_a_client_certificate_for_every_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut now = params();
    // The TLS library takes the real time.
    now.now = Timestamp::now();
    let pki = ClusterPki::ensure(dir.path(), &now).unwrap();
    let ca = pki.ca.certificate().clone();
    let server =
        || server_config(pki.apiserver.chain(), pki.apiserver.key(), std::slice::from_ref(&ca)).unwrap();
    for name in [
        "kubernetes.default.svc.cluster.local",
        "node-1",
        "127.0.0.1",
        "10.96.0.1",
        "api.example.org",
        "192.0.2.7",
        "192.0.2.99",
        "localhost",
        "kubernetes",
    ] {
        let seen =
            handshake(server(), client_config(std::slice::from_ref(&ca), None).unwrap(), name).unwrap();
        assert_eq!(seen, None, "{name}");
    }
    let client =
        client_config(std::slice::from_ref(&ca), Some((pki.admin.chain(), pki.admin.key()))).unwrap();
    let seen = handshake(server(), client, "localhost").unwrap().unwrap();
    assert_eq!(seen, pki.admin.chain());
    // A foreign certificate comes through the handshake and is left to the verifier.
    let client = client_config(
        std::slice::from_ref(&ca),
        Some((pki.front_proxy_client.chain(), pki.front_proxy_client.key())),
    )
    .unwrap();
    let seen = handshake(server(), client, "localhost").unwrap().unwrap();
    let verifier = ClientVerifier::new(std::slice::from_ref(&ca)).unwrap();
    assert!(verifier.verify(&seen, now.now.as_second() as u64).is_err());
    assert!(
        handshake(server(), client_config(std::slice::from_ref(&ca), None).unwrap(), "other.example.org")
            .is_err()
    );
}

#[test]
fn the_hash_is_what_openssl_and_kubeadm_compute() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let hash = pki.ca.hash().unwrap();
    assert!(hash.starts_with("sha256:") && hash.len() == 7 + 64);
    let script = format!(
        "openssl x509 -pubkey -in {} | openssl pkey -pubin -outform der | openssl dgst -sha256 -r",
        dir.path().join("ca.crt").display()
    );
    match std::process::Command::new("sh").args(["-c", &script]).output() {
        Ok(out) if out.status.success() => {
            let text = String::from_utf8(out.stdout).unwrap();
            assert_eq!(hash["sha256:".len()..], text[..64]);
        }
        _ => println!("SKIPPED: openssl is not installed"),
    }
}

#[test]
fn a_kubeconfig_is_written_once_and_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let path = dir.path().join("admin.conf");
    pki.write_kubeconfig(&path, "https://192.0.2.7:6443", "ad\"min", &pki.admin).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("current-context: \"ad\\\"min@keelson\""), "{text}");
    assert!(text.contains("server: \"https://192.0.2.7:6443\""));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_running_cluster_renews_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let pki = ClusterPki::ensure(dir.path(), &params()).unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    assert!(pki.renew(at("2026-06-01T00:00:00Z")).unwrap().is_none());
    let renewed = pki.renew(at("2026-08-01T00:00:00Z")).unwrap().unwrap();
    assert_ne!(renewed.apiserver.cert_pem, pki.apiserver.cert_pem);
    assert_eq!(renewed.ca.certificate_pem(), pki.ca.certificate_pem());
    assert_eq!(renewed.service_account.kid, pki.service_account.kid);
    assert!(renewed.renew(at("2026-08-02T00:00:00Z")).unwrap().is_none());
    // The old ones are believed as long as they last: both are of the same authority.
    let verifier = ClientVerifier::new(&[renewed.ca.certificate().clone()]).unwrap();
    verifier.verify(&pki.admin.chain(), at("2026-08-02T00:00:00Z").as_second() as u64).unwrap();
}

/// A request comes from anybody who may create one: whatever its bytes, reading it fails or succeeds, and what
/// succeeds is signed by its own key.
#[test]
fn broken_requests_are_only_refused() {
    use base64::Engine as _;
    use rand::{Rng, SeedableRng};
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.example".into(), "10.0.0.1".into()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "x");
    let good = params.serialize_request(&key).unwrap().der().to_vec();
    let pem = |der: &[u8]| {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
        format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            lines.join("\n")
        )
    };
    let known = parse_csr(&pem(&good)).unwrap();
    assert_eq!((known.dns_names.len(), known.addresses.len(), known.other_names), (1, 1, 0));
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..3000 {
        let mut der = good.clone();
        for _ in 0..random.random_range(1..4) {
            match random.random_range(0..3) {
                0 => {
                    let at = random.random_range(0..der.len());
                    der[at] = random.random();
                }
                1 => der.truncate(random.random_range(1..=der.len())),
                _ => {
                    let at = random.random_range(0..der.len());
                    der.insert(at, random.random());
                }
            }
        }
        if let Ok(info) = parse_csr(&pem(&der)) {
            assert_eq!(info, known, "a changed request passes only where the change means nothing");
        }
    }
    for text in ["", "-----BEGIN CERTIFICATE REQUEST-----", "\u{0}\u{1F980}", &"A".repeat(100_000)] {
        assert!(parse_csr(text).is_err());
    }
}
