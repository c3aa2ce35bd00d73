use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderMap;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReviewSpec,
};
use keelson_pki::{Authority, ClientVerifier, ClusterPki, PkiParams, ServiceAccountKeys};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use std::collections::BTreeMap as Tree;
use std::sync::LazyLock;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// 2026-03-01T12:00:00Z
const NOW: i64 = 1_772_366_400;

fn at(offset: i64) -> Timestamp {
    Timestamp::from_second(NOW + offset).unwrap()
}

/// Generated once: RSA generation dominates the tests' time.
static KEYS: LazyLock<(String, String)> = LazyLock::new(|| ServiceAccountKeys::generate().unwrap());
static OTHER_KEYS: LazyLock<(String, String)> = LazyLock::new(|| ServiceAccountKeys::generate().unwrap());

#[derive(Default)]
struct Objects(Mutex<Tree<(String, String, String), Value>>);

impl Objects {
    fn set(&self, resource: &str, namespace: &str, name: &str, object: Value) {
        self.0.lock().insert((resource.into(), namespace.into(), name.into()), object);
    }
    fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.0.lock().remove(&(resource.into(), namespace.into(), name.into()));
    }
}

impl ClusterReads for Objects {
    fn get(&self, _group: &str, resource: &str, namespace: &str, name: &str) -> Option<Bytes> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.0.lock().get(&key).map(|v| Bytes::from(v.to_string()))
    }
    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Bytes> {
        Vec::new()
    }
}

struct World {
    objects: Arc<Objects>,
    keys: ServiceAccountKeys,
    tokens: TokenAuthenticator,
    issuer: TokenIssuer,
}

fn world() -> World {
    let objects = Arc::new(Objects::default());
    objects.set("serviceaccounts", "ns", "app", json!({ "metadata": { "name": "app", "uid": "sa-1" } }));
    objects.set(
        "pods",
        "ns",
        "web",
        json!({ "metadata": { "name": "web", "uid": "pod-1" }, "spec": { "serviceAccountName": "app", "nodeName": "n1" } }),
    );
    objects.set("nodes", "", "n1", json!({ "metadata": { "name": "n1", "uid": "node-1" } }));
    let keys = ServiceAccountKeys::from_pem(&KEYS.0, &[]).unwrap();
    let audiences = vec![ISSUER.to_owned()];
    let tokens = TokenAuthenticator::new(
        vec![ISSUER.to_owned()],
        audiences.clone(),
        keys.verification.clone(),
        objects.clone(),
    );
    let issuer = TokenIssuer::new(keys.clone(), ISSUER.to_owned(), audiences);
    World { objects, keys, tokens, issuer }
}

impl World {
    fn request(&self, spec: TokenRequestSpec) -> Result<TokenRequest, TokenRequestError> {
        let request = TokenRequest { spec, ..TokenRequest::default() };
        self.issuer.create_token(request, "ns", "app", self.objects.as_ref(), at(0), "jti-1".into())
    }
    fn token(&self, spec: TokenRequestSpec) -> String {
        self.request(spec).unwrap().status.unwrap().token
    }
    fn bound_token(&self) -> String {
        self.token(TokenRequestSpec {
            bound_object_ref: Some(pod_ref("pod-1")),
            ..TokenRequestSpec::default()
        })
    }
    fn refused(&self, token: &str, now: i64) -> String {
        self.tokens.authenticate(token, None, at(now)).unwrap_err().to_string()
    }
}

fn pod_ref(uid: &str) -> BoundObjectReference {
    BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some("web".into()),
        uid: Some(uid.into()),
    }
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A token with the given claims changed, signed as told.
fn forge(world: &World, header: &Header, key: &EncodingKey, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(&world.token(TokenRequestSpec::default()));
    change(&mut claims);
    jsonwebtoken::encode(header, &claims, key).unwrap()
}

fn rs256(world: &World) -> Header {
    Header { kid: Some(world.keys.kid.clone()), ..Header::new(Algorithm::RS256) }
}

#[test]
fn a_pod_bound_token_says_who_and_where() {
    let world = world();
    let token = world.bound_token();
    let found = world.tokens.authenticate(&token, None, at(5)).unwrap();
    assert_eq!(found.user.name, "system:serviceaccount:ns:app");
    assert_eq!(found.user.uid, "sa-1");
    assert_eq!(
        found.user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
    );
    let extra = |key: &str| found.user.extra[key].join(",");
    assert_eq!(extra("authentication.kubernetes.io/pod-name"), "web");
    assert_eq!(extra("authentication.kubernetes.io/pod-uid"), "pod-1");
    assert_eq!(extra("authentication.kubernetes.io/node-name"), "n1");
    assert_eq!(extra("authentication.kubernetes.io/node-uid"), "node-1");
    assert_eq!(extra("authentication.kubernetes.io/credential-id"), "JTI=jti-1");
    assert_eq!(
        claims(&token),
        json!({
            "aud": [ISSUER], "exp": NOW + 3600, "iat": NOW, "nbf": NOW, "iss": ISSUER, "jti": "jti-1",
            "sub": "system:serviceaccount:ns:app",
            "kubernetes.io": {
                "namespace": "ns",
                "node": { "name": "n1", "uid": "node-1" },
                "pod": { "name": "web", "uid": "pod-1" },
                "serviceaccount": { "name": "app", "uid": "sa-1" }
            }
        })
    );
    let header: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!(header, json!({ "alg": "RS256", "kid": world.keys.kid }));
}

#[test]
fn forged_tokens_are_refused() {
    let world = world();
    let own = world.keys.signing.clone();
    let header = rs256(&world);
    let good = forge(&world, &header, &own, |_| {});
    world.tokens.authenticate(&good, None, at(0)).unwrap();

    // alg none, with and without a signature part
    let payload = good.split('.').nth(1).unwrap();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    assert_eq!(world.refused(&format!("{none}.{payload}."), 0), "invalid bearer token");
    assert_eq!(
        world.refused(&format!("{none}.{payload}.{}", good.split('.').nth(2).unwrap()), 0),
        "invalid bearer token"
    );
    // HMAC with the public key as its secret, in every shape the public key has
    for secret in [
        KEYS.1.as_bytes().to_vec(),
        KEYS.1.trim().as_bytes().to_vec(),
        world.keys.verification[0].n.clone().into_bytes(),
    ] {
        let header = Header { kid: Some(world.keys.kid.clone()), ..Header::new(Algorithm::HS256) };
        let token = forge(&world, &header, &EncodingKey::from_secret(&secret), |_| {});
        assert_eq!(world.refused(&token, 0), "invalid bearer token");
    }
    // other RSA algorithms with the right key
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let token =
            forge(&world, &Header { kid: header.kid.clone(), ..Header::new(algorithm) }, &own, |_| {});
        assert_eq!(world.refused(&token, 0), "invalid bearer token");
    }
    // another key: under its own kid, under ours, under none
    let other = ServiceAccountKeys::from_pem(&OTHER_KEYS.0, &[]).unwrap();
    for kid in [Some(other.kid.clone()), Some(world.keys.kid.clone()), None, Some(String::new())] {
        let expected =
            if kid.as_ref() == Some(&other.kid) { "no keys found" } else { "its signature or form is wrong" };
        let token = forge(&world, &Header { kid, ..Header::new(Algorithm::RS256) }, &other.signing, |_| {});
        let text = world.refused(&token, 0);
        assert!(text.contains(expected), "{text}");
    }
    // our key without a kid is fine
    let token = forge(&world, &Header::new(Algorithm::RS256), &own, |_| {});
    world.tokens.authenticate(&token, None, at(0)).unwrap();
    // every character of the token matters
    for at_byte in [5, good.len() / 2, good.len() - 10] {
        let mut bytes = good.clone().into_bytes();
        bytes[at_byte] = if bytes[at_byte] == b'A' { b'B' } else { b'A' };
        assert!(world.tokens.authenticate(std::str::from_utf8(&bytes).unwrap(), None, at(0)).is_err());
    }
    for junk in ["", "x", "a.b.c", "...", &"a".repeat(20_000), "\u{1F980}.\u{1F980}.\u{1F980}"] {
        assert_eq!(world.refused(junk, 0), "invalid bearer token");
    }
}

#[test]
fn claims_are_checked() {
    let world = world();
    let check = |change: &dyn Fn(&mut Value), now: i64, expected: &str| {
        let token = forge(&world, &rs256(&world), &world.keys.signing, |c| change(c));
        assert_eq!(world.refused(&token, now), expected);
    };
    check(
        &|c| c["iss"] = json!("https://evil.example"),
        0,
        "token issuer \"https://evil.example\" is invalid",
    );
    let audience = format!("token audiences [\"vault\"] is invalid for the target audiences [\"{ISSUER}\"]");
    check(&|c| c["aud"] = json!(["vault"]), 0, &audience);
    check(&|c| c["aud"] = json!("vault"), 0, &audience);
    let none = format!("token audiences [] is invalid for the target audiences [\"{ISSUER}\"]");
    check(&|c| c["aud"] = json!([]), 0, &none);
    check(&|_| {}, 3600 + 61, "service account token has expired");
    check(&|c| c["exp"] = Value::Null, 0, "service account token has expired");
    check(&|_| {}, -61, "service account token is not valid yet");
    check(&|c| c["nbf"] = json!(NOW - 500), -61, "service account token is issued in the future");
    check(
        &|c| c["kubernetes.io"]["serviceaccount"]["uid"] = json!("sa-0"),
        0,
        "service account UID (sa-1) does not match claim (sa-0)",
    );
    check(
        &|c| {
            c["kubernetes.io"]["serviceaccount"]["name"] = json!("root");
            c["sub"] = json!("system:serviceaccount:ns:root");
        },
        0,
        "serviceaccounts \"root\" not found",
    );
    // subject and private claims must agree
    check(&|c| c["sub"] = json!("system:serviceaccount:kube-system:admin"), 0, "invalid bearer token");
    check(
        &|c| c["kubernetes.io"]["pod"] = json!({ "name": "web", "uid": "pod-0" }),
        0,
        "pod UID (pod-1) does not match service account pod ref claim (pod-0)",
    );
    check(
        &|c| c["kubernetes.io"]["node"] = json!({ "name": "n2", "uid": "x" }),
        0,
        "service account token has been invalidated",
    );
    check(
        &|c| c["kubernetes.io"]["secret"] = json!({ "name": "s", "uid": "x" }),
        0,
        "service account token has been invalidated",
    );
}

#[test]
fn what_a_token_is_bound_to_must_live_and_the_cache_forgets_within_ten_seconds() {
    let world = world();
    let token = world.bound_token();
    world.tokens.authenticate(&token, None, at(0)).unwrap();
    world.objects.remove("pods", "ns", "web");
    world.tokens.authenticate(&token, None, at(9)).expect("still cached");
    assert_eq!(world.refused(&token, 10), "service account token has been invalidated");
    // The same name with another UID is another pod.
    world.objects.set(
        "pods",
        "ns",
        "web",
        json!({ "metadata": { "uid": "pod-2" }, "spec": { "serviceAccountName": "app" } }),
    );
    assert!(world.refused(&token, 20).starts_with("pod UID (pod-2)"));
    // A pod that is being deleted keeps its tokens for the leeway after its end.
    let ending = json!({ "metadata": { "uid": "pod-1", "deletionTimestamp": at(30).to_string() } });
    world.objects.set("pods", "ns", "web", ending);
    world.tokens.authenticate(&token, None, at(89)).unwrap();
    assert_eq!(world.refused(&token, 100), "service account token has been invalidated");
}

#[test]
fn a_cached_token_does_not_outlive_its_expiry() {
    let world = world();
    let token =
        world.token(TokenRequestSpec { expiration_seconds: Some(600), ..TokenRequestSpec::default() });
    world.tokens.authenticate(&token, None, at(655)).unwrap();
    assert_eq!(world.refused(&token, 661), "service account token has expired");
}

#[test]
fn token_requests_are_checked() {
    let world = world();
    let bound =
        |reference| TokenRequestSpec { bound_object_ref: Some(reference), ..TokenRequestSpec::default() };
    let text = |spec| world.request(spec).unwrap_err().to_string();
    for (seconds, detail) in [
        (599, "may not specify a duration less than 10 minutes"),
        ((1 << 32) + 1, "may not specify a duration larger than 2^32 seconds"),
    ] {
        let spec = TokenRequestSpec { expiration_seconds: Some(seconds), ..TokenRequestSpec::default() };
        assert_eq!(text(spec), format!("spec.expirationSeconds: Invalid value: {seconds}: {detail}"));
    }
    assert!(
        text(bound(pod_ref("pod-9")))
            .contains("the UID in the bound object reference (pod-9) does not match")
    );
    let mut missing = pod_ref("");
    missing.name = Some("nope".into());
    assert_eq!(text(bound(missing)), "pods \"nope\" not found");
    let mut wrong = pod_ref("");
    wrong.kind = Some("ConfigMap".into());
    assert_eq!(text(bound(wrong)), "cannot bind token to object of type /v1, Kind=ConfigMap");
    world.objects.set(
        "pods",
        "ns",
        "other",
        json!({ "metadata": { "uid": "p" }, "spec": { "serviceAccountName": "default" } }),
    );
    let mut others = pod_ref("");
    others.name = Some("other".into());
    assert_eq!(
        text(bound(others)),
        "cannot bind token for serviceaccount \"app\" to pod running with different serviceaccount name."
    );
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let gone = world.issuer.create_token(request, "ns", "gone", world.objects.as_ref(), at(0), String::new());
    assert_eq!(gone.unwrap_err().to_string(), "serviceaccounts \"gone\" not found");
}

#[test]
fn projected_tokens_outlive_their_hour_but_count_as_stale() {
    let world = world();
    let spec = TokenRequestSpec {
        expiration_seconds: Some(3607),
        bound_object_ref: Some(pod_ref("pod-1")),
        ..TokenRequestSpec::default()
    };
    let made = world.request(spec).unwrap();
    let status = made.status.unwrap();
    assert_eq!(status.expiration_timestamp.0, at(3607), "the client is told to renew after the hour");
    assert_eq!(claims(&status.token)["kubernetes.io"]["warnafter"], NOW + 3607);
    assert!(!world.tokens.authenticate(&status.token, None, at(3600)).unwrap().stale);
    assert!(world.tokens.authenticate(&status.token, None, at(86_400)).unwrap().stale);
}

#[test]
fn other_audiences_are_for_others() {
    let world = world();
    let vault = vec!["vault".to_owned()];
    let token = world.token(TokenRequestSpec { audiences: vault.clone(), ..TokenRequestSpec::default() });
    assert!(world.refused(&token, 0).starts_with("token audiences [\"vault\"] is invalid"));
    let found = world.tokens.authenticate(&token, Some(&vault), at(0)).unwrap();
    assert_eq!(found.audiences, ["vault"]);
    // The cache keeps verdicts for different audiences apart.
    assert!(world.tokens.authenticate(&token, None, at(1)).is_err());
    let spec = TokenReviewSpec { token: Some(token), audiences: Some(vault) };
    let status = review(&spec, &world.tokens, at(2)).unwrap();
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.user.unwrap().username.as_deref(), Some("system:serviceaccount:ns:app"));
    let spec = TokenReviewSpec { token: Some("junk".into()), audiences: None };
    let status = review(&spec, &world.tokens, at(2)).unwrap();
    assert_eq!(status.authenticated, None);
    assert_eq!(status.error.as_deref(), Some("invalid bearer token"));
    assert!(review(&TokenReviewSpec::default(), &world.tokens, at(2)).is_none());
}

#[test]
fn a_token_in_a_secret_counts_while_the_secret_holds_it() {
    let world = world();
    let claims = keelson_pki::SecretTokenClaims::new("ns", "app", "sa-1", "robot");
    let token = world.keys.sign(&claims).unwrap();
    let secret = |change: &dyn Fn(&mut Value)| {
        let mut object = json!({"metadata": {"name": "robot", "namespace": "ns", "uid": "secret-1"},
            "data": {"token": STANDARD.encode(&token), "ca.crt": "eA=="}});
        change(&mut object);
        world.objects.set("secrets", "ns", "robot", object);
    };
    // Each is asked at a time of its own: the verdict before it has been forgotten.
    let mut time = 0;
    let mut ask = |token: &str, audiences: Option<&[String]>| {
        time += 60;
        world.tokens.authenticate(token, audiences, at(time)).map_err(|e| e.to_string())
    };
    let gone = || Err("Token has been invalidated".to_owned());
    assert_eq!(ask(&token, None).map(|found| found.user.name.clone()), gone(), "there is no secret");
    let mut uses = world.tokens.secret_uses();
    secret(&|_| ());
    let found = ask(&token, None).unwrap();
    assert_eq!(*found.user, UserInfo::service_account("ns", "app", "sa-1"));
    assert_eq!(found.audiences, [ISSUER]);
    let (path, patch) = uses.try_recv().expect("its use is told").patch();
    assert_eq!(path, "/api/v1/namespaces/ns/secrets/robot");
    let day = json!({"uid": "secret-1", "labels": {"kubernetes.io/legacy-token-last-used": "2026-03-01"}});
    assert_eq!(patch["metadata"], day);
    for said in ["2026-03-01", "2026-03-02"] {
        secret(&|o| o["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-last-used": said}));
        assert!(ask(&token, None).is_ok());
        assert!(uses.try_recv().is_err(), "{said}");
    }
    secret(&|o| o["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-last-used": "2026-02-28"}));
    assert!(ask(&token, None).is_ok());
    assert!(uses.try_recv().is_ok());

    let mut refused = |token: &str, audiences: Option<&[String]>| {
        ask(token, audiences).map(|found| found.user.name.clone()).unwrap_err()
    };
    assert!(refused(&token, Some(&["vault".to_owned()])).starts_with("token audiences"));
    secret(&|o| o["metadata"]["labels"] = json!({"kubernetes.io/legacy-token-invalid-since": "2026-02-28"}));
    assert!(
        refused(&token, None).starts_with("the token in secret ns/robot for service account ns/app has been")
    );
    secret(&|o| o["data"]["token"] = json!(STANDARD.encode("another")));
    assert_eq!(refused(&token, None), "Token does not match server's copy");
    secret(&|o| o["data"] = Value::Null);
    assert!(world.tokens.authenticate(&token, None, at(3000)).is_err());
    secret(&|o| o["metadata"]["deletionTimestamp"] = json!("2026-03-01T12:00:00Z"));
    assert_eq!(refused(&token, None), "Token has been invalidated");
    secret(&|_| ());
    // Of a forged one not even a Secret that holds it helps.
    let other = ServiceAccountKeys::from_pem(&OTHER_KEYS.0, &[]).unwrap().sign(&claims).unwrap();
    secret(&|o| o["data"]["token"] = json!(STANDARD.encode(&other)));
    assert_eq!(refused(&other, None), "invalid signature, no keys found");
    for (change, expected) in [
        (("ns", "app", "sa-2", "robot"), "ServiceAccount UID (sa-1) does not match claim (sa-2)"),
        (("ns", "nobody", "sa-1", "robot"), "serviceaccounts \"nobody\" not found"),
        (("ns", "", "sa-1", "robot"), "serviceAccountName claim is missing"),
    ] {
        let token =
            world.keys.sign(&keelson_pki::SecretTokenClaims::new(change.0, change.1, change.2, change.3));
        let token = token.unwrap();
        secret(&|o| o["data"]["token"] = json!(STANDARD.encode(&token)));
        assert_eq!(refused(&token, None), expected);
    }
    let stolen = keelson_pki::SecretTokenClaims {
        sub: "system:serviceaccount:kube-system:admin".to_owned(),
        ..keelson_pki::SecretTokenClaims::new("ns", "app", "sa-1", "robot")
    };
    let stolen = world.keys.sign(&stolen).unwrap();
    secret(&|o| o["data"]["token"] = json!(STANDARD.encode(&stolen)));
    assert_eq!(refused(&stolen, None), "sub claim is invalid");
    secret(&|_| ());
    world.objects.remove("serviceaccounts", "ns", "app");
    assert_eq!(refused(&token, None), "serviceaccounts \"app\" not found");
}

#[test]
fn bootstrap_tokens() {
    let world = world();
    let secret = |change: &dyn Fn(&mut Value)| {
        let data = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:keelson:nodes", "expiration": at(100).to_string(),
        });
        let mut data = data;
        change(&mut data);
        let encoded: Tree<String, String> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), STANDARD.encode(v.as_str().unwrap())))
            .collect();
        json!({ "metadata": { "name": "bootstrap-token-abcdef" }, "type": "bootstrap.kubernetes.io/token", "data": encoded })
    };
    let set = |object| world.objects.set("secrets", "kube-system", "bootstrap-token-abcdef", object);
    let token = "abcdef.0123456789abcdef";
    assert_eq!(world.refused(token, 0), "invalid bearer token");
    set(secret(&|_| {}));
    assert_eq!(world.refused("abcdef.0123456789abcdee", 0), "invalid bearer token");
    let user = world.tokens.authenticate(token, None, at(0)).unwrap().user.clone();
    assert_eq!(user.name, "system:bootstrap:abcdef");
    assert_eq!(
        user.groups,
        ["system:bootstrappers", "system:bootstrappers:keelson:nodes", "system:authenticated"]
    );
    assert_eq!(world.refused(token, 100), "invalid bearer token", "expired");
    let cases: [&dyn Fn(&mut Value); 4] = [
        &|d| d["usage-bootstrap-authentication"] = json!("false"),
        &|d| d["auth-extra-groups"] = json!("system:masters"),
        &|d| d["expiration"] = json!("soon"),
        &|d| d["token-id"] = json!("fedcba"),
    ];
    for change in cases {
        set(secret(change));
        assert_eq!(world.refused(token, 20), "invalid bearer token");
    }
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    map
}

#[test]
fn impersonation_asks_for_every_part() {
    let admin = Arc::new(UserInfo::authenticated("admin", &[]));
    let act = |list: &[(&str, &str)]| impersonation(&headers(list), &admin);
    assert!(act(&[]).unwrap().is_none());
    assert!(matches!(act(&[("Impersonate-Group", "g")]), Err(ImpersonationError::NoUser(_))));
    assert!(matches!(act(&[("Impersonate-Uid", "g")]), Err(ImpersonationError::NoUser(_))));
    assert!(matches!(act(&[("Impersonate-Extra-Scopes", "g")]), Err(ImpersonationError::NoUser(_))));
    let full = act(&[
        ("Impersonate-User", "jane"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-Acme.com%2Fproject", "x"),
        ("Impersonate-Uid", "u-1"),
    ])
    .unwrap()
    .unwrap();
    let checks: Vec<_> = full
        .checks
        .iter()
        .map(|c| (c.api_group.as_str(), c.resource.as_str(), c.subresource.as_str(), c.name.as_str()))
        .collect();
    assert_eq!(
        checks,
        [
            ("", "users", "", "jane"),
            ("", "groups", "", "a"),
            ("", "groups", "", "b"),
            ("authentication.k8s.io", "userextras", "acme.com/project", "x"),
            ("authentication.k8s.io", "uids", "", "u-1"),
        ]
    );
    assert!(full.checks.iter().all(|c| c.verb == "impersonate" && c.is_resource && c.user == admin));
    assert_eq!(full.user.groups, ["a", "b", "system:authenticated"]);
    assert_eq!(full.user.extra["acme.com/project"], ["x"]);

    let account = act(&[("Impersonate-User", "system:serviceaccount:ns:app")]).unwrap().unwrap();
    let c = &account.checks[0];
    assert_eq!(
        (c.resource.as_str(), c.namespace.as_str(), c.name.as_str()),
        ("serviceaccounts", "ns", "app")
    );
    assert_eq!(
        account.user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]
    );
    // A name that is no service account's is a user's, and needs that permission.
    let odd = act(&[("Impersonate-User", "system:serviceaccount:ns:a:b")]).unwrap().unwrap();
    assert_eq!(odd.checks[0].resource, "users");
    let nobody = act(&[("Impersonate-User", "system:anonymous")]).unwrap().unwrap();
    assert_eq!(nobody.user.groups, ["system:unauthenticated"]);
    let masters =
        act(&[("Impersonate-User", "x"), ("Impersonate-Group", "system:masters")]).unwrap().unwrap();
    assert!(masters.checks.iter().any(|c| c.resource == "groups" && c.name == "system:masters"));
}

struct Machine {
    pki: ClusterPki,
    auth: Authenticator,
    objects: Arc<Objects>,
    _dir: tempfile::TempDir,
}

fn machine() -> Machine {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sa.key"), &KEYS.0).unwrap();
    let pki = ClusterPki::ensure(
        dir.path(),
        &PkiParams {
            node_name: "n1".into(),
            cluster_domain: "cluster.local".into(),
            service_address: [10, 96, 0, 1].into(),
            node_addresses: vec![[192, 0, 2, 1].into()],
            extra_names: vec![],
            life: keelson_pki::LEAF_LIFE,
            now: at(0),
        },
    )
    .unwrap();
    let verifier = ClientVerifier::new(&[pki.ca.certificate().clone()]).unwrap();
    let World { tokens, objects, .. } = world();
    let auth = Authenticator {
        certificates: CertificateAuthenticator::new(verifier),
        tokens,
        anonymous: Anonymous::HealthAndVersion,
    };
    Machine { pki, auth, objects, _dir: dir }
}

fn with_peer<'a>(peer: &'a PeerChain, authorization: Option<&'a str>) -> Credentials<'a> {
    Credentials { peer: Some(peer), authorization, path: "/api", ..Credentials::default() }
}

#[test]
fn a_certificate_is_looked_at_for_every_request() {
    let machine = machine();
    let peer = PeerChain::new(&machine.pki.node.chain()).unwrap();
    let ask = |now| machine.auth.authenticate(with_peer(&peer, None), at(now));
    let user = ask(0).unwrap();
    assert_eq!(user.name, "system:node:n1");
    assert_eq!(user.groups, ["system:nodes", "system:authenticated"]);
    assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
    ask(364 * 86_400).unwrap();
    assert!(matches!(ask(366 * 86_400), Err(AuthnError::Certificate(_))), "expired on an open connection");
    ask(0).unwrap();
    // The authorities are replaced: the open connection loses its power at once.
    let other_dir = tempfile::tempdir().unwrap();
    let params = PkiParams {
        node_name: "n1".into(),
        cluster_domain: "c".into(),
        service_address: [10, 96, 0, 1].into(),
        node_addresses: vec![],
        extra_names: vec![],
        life: keelson_pki::LEAF_LIFE,
        now: at(0),
    };
    std::fs::write(other_dir.path().join("sa.key"), &KEYS.0).unwrap();
    let other = ClusterPki::ensure(other_dir.path(), &params).unwrap();
    machine.auth.certificates.replace(ClientVerifier::new(&[other.ca.certificate().clone()]).unwrap());
    assert!(matches!(ask(0), Err(AuthnError::Certificate(_))));
    let new = PeerChain::new(&other.node.chain()).unwrap();
    machine.auth.authenticate(with_peer(&new, None), at(0)).unwrap();
}

#[test]
fn wrong_credentials_are_never_anonymous() {
    let machine = machine();
    let foreign = PeerChain::new(&machine.pki.front_proxy_client.chain()).unwrap();
    let serving = PeerChain::new(&machine.pki.apiserver.chain()).unwrap();
    for peer in [&foreign, &serving] {
        for path in ["/healthz", "/api"] {
            let given = Credentials { path, ..with_peer(peer, None) };
            assert!(matches!(machine.auth.authenticate(given, at(0)), Err(AuthnError::Certificate(_))));
        }
    }
    let plain = |path, authorization| {
        machine.auth.authenticate(Credentials { path, authorization, ..Credentials::default() }, at(0))
    };
    assert!(matches!(plain("/healthz", Some("Bearer junk")), Err(AuthnError::Token(_))));
    assert!(matches!(plain("/healthz", Some("Basic dTpw")), Err(AuthnError::Scheme)));
    let discovery = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    for path in ["/healthz", "/healthz/ping", "/livez", "/readyz/etcd", "/version"] {
        assert_eq!(plain(path, None).unwrap().name, "system:anonymous");
    }
    // The discovery document is for whoever has a token; without a living one it is nobody's.
    let document = |data: Value| {
        let info = json!({"metadata": {"name": "cluster-info"}, "data": data});
        machine.objects.set("configmaps", "kube-public", "cluster-info", info);
    };
    assert!(matches!(plain(discovery, None), Err(AuthnError::Missing)));
    document(json!({"kubeconfig": "text"}));
    assert!(matches!(plain(discovery, None), Err(AuthnError::Missing)));
    document(json!({"kubeconfig": "text", "jws-kubeconfig-abcdef": "signature"}));
    assert_eq!(plain(discovery, None).unwrap().name, "system:anonymous");
    let others =
        ["/api/v1/namespaces/kube-public/configmaps", &format!("{discovery}/x"), &format!("{discovery}2")];
    for path in
        ["/", "/api", "/healthzz", "/versions", "/metrics", "/openid/v1/jwks"].into_iter().chain(others)
    {
        assert!(matches!(plain(path, None), Err(AuthnError::Missing)), "{path}");
    }
    // A good token carries a request whose certificate says nothing.
    let world = world();
    let header = format!("Bearer {}", world.bound_token());
    let user = machine.auth.authenticate(with_peer(&foreign, Some(&header)), at(0)).unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:app");
}

#[test]
fn a_certificate_without_a_name_or_with_two_groups() {
    let machine = machine();
    let issue = |profile: &keelson_pki::Profile| -> PeerChain {
        let ca: &Authority = &machine.pki.ca;
        let (cert, _) = ca.issue(profile, at(0), std::time::Duration::from_secs(3600)).unwrap();
        PeerChain::new(&[CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()]).unwrap()
    };
    let nameless = issue(&keelson_pki::Profile::client("", &["system:masters"]));
    assert!(matches!(machine.auth.authenticate(with_peer(&nameless, None), at(0)), Err(AuthnError::Missing)));
    let two = issue(&keelson_pki::Profile::client("jane", &["a", "b"]));
    let user = machine.auth.authenticate(with_peer(&two, None), at(0)).unwrap();
    assert_eq!(user.groups, ["a", "b", "system:authenticated"]);
}

#[test]
fn tokens_in_websocket_protocols() {
    let encoded = URL_SAFE_NO_PAD.encode("my-token");
    let name = format!("base64url.bearer.authorization.k8s.io.{encoded}");
    let found = websocket_token(&format!("{name}, v5.channel.k8s.io"));
    assert_eq!(found, Some(("my-token".to_owned(), "v5.channel.k8s.io".to_owned())));
    assert_eq!(websocket_token(&name), None);
    assert_eq!(websocket_token("v5.channel.k8s.io"), None);
    assert_eq!(websocket_token(&format!("{name},{name},v5.channel.k8s.io")), None);
}

#[test]
fn discovery_documents_let_others_verify() {
    let world = world();
    let documents = OpenIdDocuments::new(ISSUER, "192.0.2.1:6443", &world.keys.verification).unwrap();
    let config: Value = serde_json::from_slice(&documents.config).unwrap();
    assert_eq!(config["issuer"], ISSUER);
    assert_eq!(config["jwks_uri"], "https://192.0.2.1:6443/openid/v1/jwks");
    assert_eq!(config["id_token_signing_alg_values_supported"], json!(["RS256"]));
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_slice(&documents.keys).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(keys.find(&world.keys.kid).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::RS256);
    validation.set_audience(&[ISSUER]);
    validation.validate_exp = false;
    let token = world.token(TokenRequestSpec::default());
    jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
    for bad in ["http://a", "https://a?b", "https://a#b", ""] {
        assert_eq!(OpenIdDocuments::new(bad, "x", &world.keys.verification), None);
    }
}
