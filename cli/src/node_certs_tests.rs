use super::*;

#[test]
fn a_third_of_life_counts_from_when_the_certificate_was_had() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.conf");
    std::fs::write(&file, "x").unwrap();
    let now = Timestamp::now();
    let profile = Profile::client("jane", &[]);
    let (cert, key) = keelson_pki::self_signed(&profile, now, Duration::from_secs(900)).unwrap();
    // It begins an hour before now, and still it is not due for five minutes.
    let due = renewal(&file, &cert).unwrap().as_second() - now.as_second();
    assert!((299..=301).contains(&due), "{due}");

    let cluster =
        Identity { server: "https://192.0.2.1:6443".into(), ca_pem: cert.clone(), cert_pem: String::new() };
    write_kubeconfig(&file, &cluster, "jane", &Issued { cert_pem: cert.clone(), key_pem: key.clone() })
        .unwrap();
    let read = read_identity(&file).unwrap().unwrap();
    assert_eq!((read.server, read.cert_pem), (cluster.server, cert));
    assert!(read_identity(&folder.path().join("none")).unwrap().is_none());
}

const NODE: &str = "system:node:n2";

fn configuration(folder: &Path, name: &str, port: u16) -> (Config, NodeIdentity) {
    let text = format!(
        "apiVersion: keelson/v1\nnode: {{name: {name}, address: 192.0.2.1}}\npaths: {{state: {}}}\n\
         apiServer: {{bind: '127.0.0.1:{port}'}}\n",
        folder.join(name).display()
    );
    let file = folder.join(format!("{name}.yaml"));
    std::fs::write(&file, text).unwrap();
    let config = keelson_daemon::config::load(Some(&file)).unwrap();
    let node = crate::node::identify(&config.node).unwrap();
    std::fs::create_dir(&config.paths.state).unwrap();
    (config, node)
}

/// The credential that the API server sees in this client's requests.
async fn credential(client: &kube::Client) -> String {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let api: kube::Api<SelfSubjectReview> = kube::Api::all(client.clone());
    let review = api.create(&Default::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = review.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some(NODE));
    user.extra.unwrap()["authentication.kubernetes.io/credential-id"].join("")
}

/// From a bootstrap token to all certificates, and through their renewal, over TLS against a real control plane.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_gets_its_certificates_and_renews_them_while_it_runs() {
    use crate::control_plane::ControlPlane;
    use crate::install::{progress::until, token};
    use crate::service::Components;
    use k8s_openapi::api::core::v1::Node;
    use kube::api::{Patch, PatchParams, PostParams};
    use serde_json::json;

    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (own, own_node) = configuration(folder.path(), "n1", port);
    let clock = Clock::system();
    let readiness = keelson_daemon::Readiness::default();
    let control_plane =
        ControlPlane::start(&own, &own_node, &clock, &readiness, &Default::default()).await.unwrap();
    let mut components = Components::new(clock.clone(), readiness);
    control_plane.start_components(&mut components, &own);
    let admin = control_plane.client("admin", &[identity::MASTERS]);
    let token = token::create(&admin, &token::NewToken::default()).await.unwrap();

    // The first identity, with the token, which is gone from the machine then.
    let (config, node) = configuration(folder.path(), "n2", port);
    let files = NodeFiles::of(&config);
    let missing = ensure_client(&config, &node, &clock).await.unwrap_err().to_string();
    assert!(missing.contains("keelson join"), "{missing}");
    let server = format!("https://127.0.0.1:{port}");
    let ca_pem = control_plane.pki.ca.certificate_pem();
    let auth = KubeconfigAuth::Token(&token.to_string());
    Kubeconfig { cluster: "c", server: &server, ca_pem, user: "bootstrap", auth }
        .write(&files.bootstrap)
        .unwrap();
    first_identity(&config, &node, &clock).await.unwrap();
    assert!(!files.bootstrap.exists());
    ensure_serving(&config, &node, &clock).unwrap();
    let certificates = || {
        let pem = |path: &Path| read_identity(path).unwrap().map(|identity| identity.cert_pem);
        let serving = std::fs::read_to_string(files.serving_cert()).unwrap();
        (pem(&files.kubelet).unwrap(), pem(&files.proxy), serving)
    };
    let believed = |pem: &str| {
        let key = std::fs::read_to_string(files.serving_key()).unwrap();
        keelson_pki::issued_by(pem, &key, control_plane.pki.ca.certificate())
    };
    assert!(!believed(&certificates().2), "nobody vouches for the first one");

    // Registered as a kubelet registers, it gets the others.
    let client = keelson_client::following(&files.kubelet, components.context.drain.clone()).await.unwrap();
    let nodes: kube::Api<Node> = kube::Api::all(client.clone());
    let object: Node = serde_json::from_value(json!({"metadata": {"name": "n2"}})).unwrap();
    nodes.create(&PostParams::default(), &object).await.unwrap();
    let addresses = json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
    nodes.patch_status("n2", &PatchParams::default(), &Patch::Merge(addresses)).await.unwrap();
    let at =
        |clock: Clock| Keeper { files: files.clone(), client: client.clone(), node: node.clone(), clock };
    let first = certificates();
    at(clock.clone()).once().await.unwrap();
    let (kubelet, proxy, serving) = certificates();
    assert_eq!(kubelet, first.0, "not due");
    assert!(proxy.is_some() && believed(&serving));

    // A third of a year later all are renewed, and the running client takes the new identity.
    let before = credential(&client).await;
    let later = Clock::manual(Timestamp::now() + jiff::SignedDuration::from_hours(24 * 125));
    at(later).once().await.unwrap();
    let renewed = certificates();
    assert!(renewed.0 != kubelet && renewed.1 != proxy && renewed.2 != serving && believed(&renewed.2));
    until(Duration::from_secs(20), || async {
        if credential(&client).await == before {
            anyhow::bail!("the old identity is still in use")
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    drop((client, nodes));
    components.stop().await;
    control_plane.stop().await.unwrap();
}
