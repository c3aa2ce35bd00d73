//! Bootstrap tokens: `keelson token create|list|delete`.

use super::progress::Output;
use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Secret};
use keelson_pki::{BootstrapToken, CertificateKey};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a connection to an API server may take.
const LISTENS: Duration = Duration::from_secs(2);

/// The group that tokens bring when nothing else is asked for (kubeadm's).
pub const GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

/// What a new token may do, and how long.
pub struct NewToken {
    /// `None`: a random one.
    pub token: Option<BootstrapToken>,
    /// `None`: for ever.
    pub ttl: Option<Duration>,
    pub description: String,
    pub groups: Vec<String>,
    pub usages: Vec<String>,
}

impl Default for NewToken {
    fn default() -> Self {
        NewToken {
            token: None,
            ttl: Some(Duration::from_secs(86_400)),
            description: String::new(),
            groups: vec![GROUP.to_owned()],
            usages: vec!["signing".to_owned(), "authentication".to_owned()],
        }
    }
}

fn secrets(client: &kube::Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "kube-system")
}

/// Makes the token's Secret.
pub async fn create(client: &kube::Client, wanted: &NewToken) -> Result<BootstrapToken> {
    let token = wanted.token.clone().unwrap_or_else(BootstrapToken::generate);
    let mut data = BTreeMap::from([
        ("token-id".to_owned(), token.id().to_owned()),
        ("token-secret".to_owned(), token.secret().to_owned()),
        ("auth-extra-groups".to_owned(), wanted.groups.join(",")),
    ]);
    if !wanted.description.is_empty() {
        data.insert("description".to_owned(), wanted.description.clone());
    }
    for usage in &wanted.usages {
        if !["signing", "authentication"].contains(&usage.as_str()) {
            bail!("a token's usages are signing and authentication, not {usage:?}");
        }
        data.insert(format!("usage-bootstrap-{usage}"), "true".to_owned());
    }
    if let Some(ttl) = wanted.ttl {
        let end = Timestamp::now() + SignedDuration::try_from(ttl).context("the time to live is too long")?;
        data.insert("expiration".to_owned(), end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    let mut secret = Secret {
        type_: Some("bootstrap.kubernetes.io/token".to_owned()),
        data: Some(data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect()),
        ..Secret::default()
    };
    secret.metadata.name = Some(token.secret_name());
    match secrets(client).create(&PostParams::default(), &secret).await {
        Ok(_) => Ok(token),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            bail!("a token {} exists already; `keelson token delete {}` removes it", token.id(), token.id())
        }
        Err(error) => Err(error).context("the token cannot be made"),
    }
}

/// A token as it is listed; its secret half is not shown.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    pub usages: Vec<String>,
    pub groups: Vec<String>,
    pub description: String,
}

/// All tokens.
pub async fn list(client: &kube::Client) -> Result<Vec<Listed>> {
    let params = ListParams::default().fields("type=bootstrap.kubernetes.io/token");
    let found = secrets(client).list(&params).await.context("the tokens cannot be listed")?;
    let listed = |secret: Secret| {
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| {
            data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
        };
        let usages = ["authentication", "signing"].into_iter();
        Listed {
            id: text("token-id"),
            expires: Some(text("expiration")).filter(|end| !end.is_empty()),
            usages: usages
                .filter(|usage| text(&format!("usage-bootstrap-{usage}")) == "true")
                .map(str::to_owned)
                .collect(),
            groups: text("auth-extra-groups")
                .split(',')
                .filter(|g| !g.is_empty())
                .map(str::to_owned)
                .collect(),
            description: text("description"),
        }
    };
    Ok(found.items.into_iter().map(listed).collect())
}

/// Prints the list.
pub fn show(tokens: &[Listed], output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(tokens)?);
        return Ok(());
    }
    println!("{:<8} {:<22} {:<24} {}", "ID", "EXPIRES", "USAGES", "DESCRIPTION");
    for token in tokens {
        let expires = token.expires.as_deref().unwrap_or("never");
        println!("{:<8} {:<22} {:<24} {}", token.id, expires, token.usages.join(","), token.description);
    }
    Ok(())
}

/// Removes a token by its id or whole.
pub async fn delete(client: &kube::Client, token: &str) -> Result<String> {
    let id = token.split('.').next().unwrap_or_default();
    let whole = format!("{id}.0000000000000000");
    let parsed: BootstrapToken =
        whole.parse().map_err(|_| anyhow::anyhow!("{token:?} is neither a token nor a token's id"))?;
    match secrets(client).delete(&parsed.secret_name(), &DeleteParams::default()).await {
        Ok(_) => Ok(id.to_owned()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            bail!("there is no token {id}; `keelson token list` shows those that are there")
        }
        Err(error) => Err(error).context("the token cannot be deleted"),
    }
}

/// The command that a machine joins with, in kubeadm's form; with the key of what [`super::handover`] put there, as a control
/// plane.
pub async fn join_command(
    client: &kube::Client,
    token: &BootstrapToken,
    control_plane: Option<&CertificateKey>,
) -> Result<String> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-public");
    let map = maps.get("cluster-info").await.context("the cluster's address cannot be read")?;
    let text = map.data.unwrap_or_default().remove("kubeconfig").unwrap_or_default();
    let file: serde_json::Value = serde_saphyr::from_str(&text).context("cluster-info cannot be read")?;
    let cluster = &file["clusters"][0]["cluster"];
    let published = cluster["server"].as_str().unwrap_or_default().trim_start_matches("https://");
    let server = living(client, published).await?;
    let hash = super::certs::hash_of(cluster["certificate-authority-data"].as_str().unwrap_or_default())?;
    let more =
        control_plane.map(|key| format!(" --control-plane --certificate-key {key}")).unwrap_or_default();
    Ok(format!("keelson join {server} --token {token} --discovery-token-ca-cert-hash {hash}{more}"))
}

/// The published address, or where nobody listens there, that of an API server that lives: the last one that was started has
/// published its own, and may be gone since.
async fn living(client: &kube::Client, published: &str) -> Result<String> {
    let listens = async |address: &str| {
        let connected = tokio::time::timeout(LISTENS, tokio::net::TcpStream::connect(address)).await;
        matches!(connected, Ok(Ok(_)))
    };
    if listens(published).await {
        return Ok(published.to_owned());
    }
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let found = endpoints.get_opt("kubernetes").await.context("the API servers cannot be listed")?;
    for subset in found.and_then(|found| found.subsets).unwrap_or_default() {
        let port = subset.ports.iter().flatten().next().map_or(443, |port| port.port);
        for address in subset.addresses.unwrap_or_default() {
            // An IPv6 address stands in brackets.
            let host = if address.ip.contains(':') { format!("[{}]", address.ip) } else { address.ip };
            let address = format!("{host}:{port}");
            if listens(&address).await {
                return Ok(address);
            }
        }
    }
    // From here nothing can be told; whoever joins is told what is wrong.
    Ok(published.to_owned())
}
