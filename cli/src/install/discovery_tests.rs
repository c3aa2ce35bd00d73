use super::*;
use keelson_pki::Profile;
use serde_json::json;
use std::time::Instant;

fn authority() -> (String, String) {
    let now = jiff::Timestamp::now();
    let (pem, _) = keelson_pki::self_signed(&Profile::client("kubernetes", &[]), now, LIMIT).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let hash = keelson_pki::public_key_hash(&der).unwrap();
    (pem, hash)
}

fn data(ca_pem: &str, token: &BootstrapToken) -> Value {
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: \"\"\n  cluster:\n    server: https://192.0.2.1:6443\n    \
         certificate-authority-data: {}\n",
        STANDARD.encode(ca_pem)
    );
    let signature = keelson_pki::detached_signature(&kubeconfig, token.id(), token.secret()).unwrap();
    json!({"kubeconfig": kubeconfig, format!("jws-kubeconfig-{}", token.id()): signature})
}

#[test]
fn only_the_right_token_and_the_right_hash_are_believed() {
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    let (ca_pem, hash) = authority();
    let data = data(&ca_pem, &token);
    let ask = |token: &str, hashes: &[String], data: &Value| {
        check(data, &Pins { token: &token.parse().unwrap(), hashes })
    };
    let good = "abcdef.0123456789abcdef";
    let found = ask(good, std::slice::from_ref(&hash), &data).unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), ("https://192.0.2.1:6443", ca_pem.as_str()));
    ask(good, &[hash.to_uppercase().replace("SHA256", "sha256")], &data).unwrap();
    ask(good, &[], &data).unwrap();

    let refused = |token: &str, hashes: &[String], data: &Value, words: &str| {
        let error = ask(token, hashes, data).unwrap_err();
        assert!(error.contains(words) && error.contains("keelson token"), "{error}");
    };
    let (_, other) = authority();
    refused(good, &[other], &data, &format!("has the hash {hash}"));
    refused("ghijkl.0123456789abcdef", std::slice::from_ref(&hash), &data, "not known there or has expired");
    refused(
        "abcdef.0123456789abcdee",
        std::slice::from_ref(&hash),
        &data,
        "not signed with the token abcdef",
    );
    // Somebody puts an authority of their own into the document.
    let (forged, forged_hash) = authority();
    let mut changed = data.clone();
    changed["kubeconfig"] = data["kubeconfig"]
        .as_str()
        .unwrap()
        .replace(&STANDARD.encode(&ca_pem), &STANDARD.encode(forged))
        .into();
    refused(good, &[forged_hash], &changed, "not signed with the token");
}

#[test]
fn clocks_that_are_apart_are_told() {
    let at = |seconds: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        http::HeaderValue::from_str(&time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).unwrap()
    };
    compare_clocks("https://x", Some(&at(60))).unwrap();
    compare_clocks("https://x", None).unwrap();
    for seconds in [7200, -90_000] {
        let error = compare_clocks("https://x", Some(&at(seconds))).unwrap_err().to_string();
        assert!(error.contains("timedatectl set-time"), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_within_five_seconds() {
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    let pins = Pins { token: &token, hashes: &[] };
    // A port on which nobody listens, and one on which somebody listens and says nothing.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for (address, words) in [(free, "cannot be reached"), (silent.local_addr().unwrap(), "keelson status")] {
        let begun = Instant::now();
        let error = by_token(&address.to_string(), &pins).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_file_is_believed_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cluster.conf");
    let token: BootstrapToken = "abcdef.0123456789abcdef".parse().unwrap();
    let (ca_pem, _) = authority();
    std::fs::write(&file, data(&ca_pem, &token)["kubeconfig"].as_str().unwrap()).unwrap();
    let found = in_file(&file).unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem), ("https://192.0.2.1:6443", ca_pem));
    let refused = |text: &str, words: &str| {
        std::fs::write(&file, text).unwrap();
        let error = in_file(&file).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("cluster.conf"), "{error}");
    };
    refused("a: [", "is no kubeconfig");
    refused("clusters: []", "names no server");
    refused("clusters: [{cluster: {server: 'https://x'}}]", "holds no authority");
    refused("clusters: [{cluster: {server: 'http://x', certificate-authority-data: eA==}}]", "is not https");
    refused("current-context: a", "current context a leads to no cluster");
    refused(
        "clusters: [{cluster: {server: 'https://x', certificate-authority: none.crt}}]",
        "none.crt cannot be read",
    );
    // As administrators have them: several clusters, an authority beside the file.
    std::fs::write(folder.path().join("b.crt"), "its authority").unwrap();
    let several = "current-context: use-b\nclusters:\n- {name: a, cluster: {server: 'https://a'}}\n- {name: b, cluster: \
                   {server: 'https://b', certificate-authority: b.crt}}\ncontexts:\n- {name: use-a, context: {cluster: \
                   a}}\n- {name: use-b, context: {cluster: b}}\n";
    std::fs::write(&file, several).unwrap();
    let found = in_file(&file).unwrap();
    assert_eq!((found.server.as_str(), found.ca_pem.as_str()), ("https://b", "its authority"));
    assert!(in_file(Path::new("https://x/y")).unwrap_err().to_string().contains("takes no address"));
    assert!(in_file(&folder.path().join("none")).unwrap_err().to_string().contains("cannot be read"));
}
