//! `keelson control-plane` as a plain user from a folder of its own, what it tells a service manager, and the commands that
//! talk to it.

mod common;

use common::{LIMIT, Running};
use std::time::Instant;

#[test]
fn a_plain_user_runs_a_control_plane_and_hands_out_tokens() {
    let mut running = Running::start();
    running.told("READY=1");
    // Ready is true: the first request is answered.
    assert!(running.good(&["token", "list"]).starts_with("ID "));
    running.told("WATCHDOG=1");

    let command = running.good(&["token", "create", "--print-join-command"]);
    let words: Vec<&str> = command.split_whitespace().collect();
    let endpoint = format!("127.0.0.1:{}", running.port);
    let ["keelson", "join", at, "--token", token, "--discovery-token-ca-cert-hash", hash] = words[..] else {
        panic!("{command}");
    };
    assert_eq!(at, format!("192.0.2.1:{}", running.port), "the address that others know it by");
    assert!(hash.starts_with("sha256:"));
    let listed = running.good(&["token", "list", "--output", "json"]);
    assert!(listed.contains(&token[..6]) && !listed.contains(&token[7..]), "the secret half is not listed");

    let says = |error: String, words: &str| assert!(error.contains(words), "{error}");
    let pinned =
        |token: &str| running.join(&[&endpoint, "--token", token, "--discovery-token-ca-cert-hash", hash]);
    // Signatures come a moment after their token.
    let begun = Instant::now();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let with_wrong_hash =
        || running.join(&[&endpoint, "--token", token, "--discovery-token-ca-cert-hash", &wrong]);
    while with_wrong_hash().contains("not known") {
        assert!(begun.elapsed() < LIMIT, "cluster-info was never signed");
    }
    says(with_wrong_hash(), &format!("has the hash {hash}"));
    says(pinned("aaaaaa.0123456789abcdef"), "not known there or has expired");
    says(pinned(&format!("{}.0123456789abcdef", &token[..6])), "not signed with the token");
    says(running.join(&[&endpoint, "--token", token]), "no --discovery-token-ca-cert-hash is given");
    says(running.join(&[]), "which cluster?");
    says(running.join(&[&endpoint, "--control-plane"]), "--certificate-key");
    let more = running.fails(&["token", "create", "--control-plane", "--print-join-command"]);
    says(more, "`keelson migrate-store etcd` moves it to etcd first");
    // For signing alone: discovery works, the login does not.
    let signing = running.good(&["token", "create", "--usages", "signing"]);
    let begun = Instant::now();
    while pinned(signing.trim()).contains("not known") {
        assert!(begun.elapsed() < LIMIT, "cluster-info was never signed");
    }
    says(pinned(signing.trim()), "does not take the token");

    assert!(running.good(&["token", "delete", token]).contains("deleted"));
    let begun = Instant::now();
    while !pinned(token).contains("not known there or has expired") {
        assert!(begun.elapsed() < LIMIT, "the deleted token is still good");
    }
    let missing = running.run(&["token", "delete", "zzzzzz"]);
    says(String::from_utf8(missing.stderr).unwrap(), "there is no token zzzzzz");

    let certificates = running.good(&["certs", "list"]);
    let authority = certificates.lines().find(|line| line.ends_with("/ca.crt")).expect("the authority");
    assert!(certificates.contains("admin.conf") && authority.contains(" never "), "{certificates}");

    // The end: told, clean, and in time.
    running.end();
    running.told("STOPPING=1");
}
