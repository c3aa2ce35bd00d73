//! Certificate requests from a bootstrap token and from nodes; the signed discovery document; expired tokens.

use crate::fixture::{Cluster, until};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use keelson_pki::Profile;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

const TOKENS: &str = "system:bootstrappers:kubeadm:default-node-token";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn requests(client: &kube::Client) -> Api<CertificateSigningRequest> {
    Api::all(client.clone())
}

async fn ask(client: &kube::Client, name: &str, signer: &str, purpose: &str, profile: &Profile) {
    let (pem, _) = keelson_pki::make_request(profile).unwrap();
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"request": "", "signerName": signer, "usages": ["digital signature", purpose]}}))
    .unwrap();
    request.spec.request.0 = pem.into_bytes();
    requests(client).create(&PostParams::default(), &request).await.unwrap();
}

/// The request once a certificate stands in it.
async fn issued(cluster: &Cluster, name: &str) -> CertificateSigningRequest {
    until(&format!("certificate of {name}"), || async {
        let request = requests(&cluster.client).get(name).await.unwrap();
        let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
        certificate.is_some().then(|| request.clone())
    })
    .await
}

fn conditions(request: &CertificateSigningRequest) -> Vec<String> {
    let all = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    all.map(|c| format!("{} {}", c.type_, c.reason.as_deref().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_get_their_certificates_and_nobody_elses() {
    let cluster = Cluster::start().await;
    let token = cluster.as_user("system:bootstrap:abcdef", &["system:bootstrappers", TOKENS]);
    let stranger = cluster.as_user("system:bootstrap:zzzzzz", &["system:bootstrappers"]);
    let node = cluster.as_user("system:node:n1", &["system:nodes"]);
    let client = Profile::client("system:node:n1", &["system:nodes"]);

    // A new node by its token, then its renewal by itself.
    ask(&token, "by-token", KUBELET_CLIENT, "client auth", &client).await;
    let request = issued(&cluster, "by-token").await;
    assert_eq!(conditions(&request), ["Approved AutoApproved"]);
    ask(&node, "renewal", KUBELET_CLIENT, "client auth", &client).await;
    issued(&cluster, "renewal").await;

    // The serving certificate has the node's own addresses; they are the Node object's.
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let addresses = json!({"status": {"addresses": [
        {"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "192.0.2.7"}]}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();
    let serving = |address: [u8; 4]| {
        let mut profile = Profile::server("system:node:n1", vec!["n1".into()], vec![address.into()]);
        profile.organizations = vec!["system:nodes".into()];
        profile
    };
    ask(&node, "forged", KUBELET_SERVING, "server auth", &serving([192, 0, 2, 8])).await;
    ask(&node, "serving", KUBELET_SERVING, "server auth", &serving([192, 0, 2, 7])).await;
    issued(&cluster, "serving").await;

    // The proxy of a node; nobody else gets a client certificate unasked.
    ask(&node, "proxy", CLIENT, "client auth", &Profile::client("system:kube-proxy", &[])).await;
    issued(&cluster, "proxy").await;
    ask(
        &node,
        "admin",
        CLIENT,
        "client auth",
        &Profile::client("keelson-admin", &["keelson:cluster-admins"]),
    )
    .await;

    // What an administrator approves is signed or refused with a reason.
    let approve =
        json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]}});
    let three = Profile::client("jane", &["a"]);
    ask(&cluster.client, "jane", CLIENT, "client auth", &three).await;
    ask(&cluster.client, "wrong", CLIENT, "server auth", &three).await;
    for name in ["jane", "wrong"] {
        requests(&cluster.client)
            .patch_approval(name, &PatchParams::default(), &Patch::Merge(&approve))
            .await
            .unwrap();
    }
    issued(&cluster, "jane").await;
    let failed = until("the refusal", || async {
        let request = requests(&cluster.client).get("wrong").await.unwrap();
        (conditions(&request).len() == 2).then_some(request)
    })
    .await;
    assert_eq!(conditions(&failed), ["Approved Test", "Failed SignerValidationFailure"]);

    // Those that were asked for before all this still wait.
    for name in ["forged", "admin"] {
        assert_eq!(conditions(&requests(&cluster.client).get(name).await.unwrap()), Vec::<String>::new());
    }
    // A token without the group may not even ask.
    let (pem, _) = keelson_pki::make_request(&client).unwrap();
    let mut request = requests(&cluster.client).get("by-token").await.unwrap();
    request.metadata = serde_json::from_value(json!({"name": "stranger"})).unwrap();
    request.spec.request.0 = pem.into_bytes();
    let refused = requests(&stranger).create(&PostParams::default(), &request).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 403));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_discovery_document_is_signed_by_every_living_token() {
    let cluster = Cluster::start().await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "kube-system");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "kube-public");
    let info = json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "text"}});
    maps.create(&PostParams::default(), &serde_json::from_value(info).unwrap()).await.unwrap();
    let token = |id: &str, end: &str| -> Secret {
        let secret = json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true", "expiration": end}});
        serde_json::from_value(secret).unwrap()
    };
    secrets.create(&PostParams::default(), &token("abcdef", "2100-01-01T00:00:00Z")).await.unwrap();
    secrets.create(&PostParams::default(), &token("expire", "2020-01-01T00:00:00Z")).await.unwrap();
    let expected = keelson_pki::detached_signature("text", "abcdef", "0123456789abcdef").unwrap();
    until("the signature of the living token alone", || async {
        let data = maps.get("cluster-info").await.unwrap().data.unwrap();
        (data.get("jws-kubeconfig-abcdef") == Some(&expected) && data.len() == 2).then_some(())
    })
    .await;
    until("the expired token to go", || async {
        secrets.get_opt("bootstrap-token-expire").await.unwrap().is_none().then_some(())
    })
    .await;
    // What anybody may read, and nothing beside it.
    let nobody = cluster.as_user("system:anonymous", &["system:unauthenticated"]);
    let public: Api<ConfigMap> = Api::namespaced(nobody, "kube-public");
    assert!(public.get("cluster-info").await.is_ok());
    assert!(public.get("kube-root-ca.crt").await.is_err());
    secrets.delete("bootstrap-token-abcdef", &Default::default()).await.unwrap();
    until("the signature to go with its token", || async {
        (maps.get("cluster-info").await.unwrap().data.unwrap().len() == 1).then_some(())
    })
    .await;
    cluster.stop().await;
}
