//! Secrets that hold a service account's token.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fixture::{Cluster, until};

const TYPE: &str = "kubernetes.io/service-account-token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";

fn secret(name: &str, account: &str) -> Value {
    json!({"type": TYPE, "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}}})
}

/// The Secret when it is filled.
async fn filled(cluster: &Cluster, name: &str) -> Secret {
    until("the secret to be filled", || async {
        let secret = cluster.api::<Secret>("default").get(name).await.unwrap();
        secret.data.as_ref().is_some_and(|data| data.contains_key("token")).then_some(secret)
    })
    .await
}

fn text(secret: &Secret, key: &str) -> String {
    String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap()
}

async fn user(cluster: &Cluster, token: &str) -> Option<String> {
    let reviews: Api<TokenReview> = Api::all(cluster.client.clone());
    let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    reviews.create(&PostParams::default(), &review).await.unwrap().status?.user?.username
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_a_token_is_filled_and_goes_with_its_account() {
    let cluster = Cluster::start().await;
    let accounts = cluster.api::<ServiceAccount>("default");
    let secrets = cluster.api::<Secret>("default");
    let list = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "key"}, {"name": "other"}]});
    let account = cluster.create::<ServiceAccount>("default", list).await;
    cluster.create::<Secret>("default", secret("key", "robot")).await;
    let key = filled(&cluster, "key").await;
    assert!(text(&key, "ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(text(&key, "namespace"), "default");
    let annotations = key.metadata.annotations.clone().unwrap();
    assert_eq!(Some(&annotations["kubernetes.io/service-account.uid"]), account.metadata.uid.as_ref());
    let token = text(&key, "token");
    assert_eq!(user(&cluster, &token).await.as_deref(), Some("system:serviceaccount:default:robot"));
    until("the secret to say that its token is used", || async {
        secrets.get("key").await.unwrap().metadata.labels?.contains_key(LAST_USED).then_some(())
    })
    .await;

    // What is taken out is put in again; a new token takes the old one's place.
    let empty = json!({"data": {"token": null, "ca.crt": "eA=="}});
    secrets.patch("key", &PatchParams::default(), &Patch::Merge(empty)).await.unwrap();
    let again = until("the secret to be whole again", || async {
        let secret = secrets.get("key").await.unwrap();
        let data = secret.data.as_ref()?;
        (data.contains_key("token") && data["ca.crt"].0 != b"x").then_some(secret)
    })
    .await;
    assert_eq!(text(&again, "ca.crt"), text(&key, "ca.crt"));
    cluster.quiet().await;

    // An account forgets a secret that goes.
    secrets.delete("key", &DeleteParams::default()).await.unwrap();
    until("the account to forget its secret", || async {
        let secrets = accounts.get("robot").await.unwrap().secrets?;
        (secrets.len() == 1 && secrets[0].name.as_deref() == Some("other")).then_some(())
    })
    .await;

    // Tokens go with their account, also those that name another of the same name; what is no token stays.
    cluster.create::<Secret>("default", secret("late", "robot")).await;
    let mut plain = secret("plain", "robot");
    plain["type"] = json!("Opaque");
    cluster.create::<Secret>("default", plain).await;
    let late = text(&filled(&cluster, "late").await, "token");
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    until("the token to go with its account", || async {
        secrets.get_opt("late").await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(user(&cluster, &late).await, None);
    cluster.create::<Secret>("default", secret("nobody", "nobody")).await;
    until("a token without an account to go", || async {
        secrets.get_opt("nobody").await.unwrap().is_none().then_some(())
    })
    .await;
    assert!(secrets.get_opt("plain").await.unwrap().is_some());
    cluster.stop().await;
}
