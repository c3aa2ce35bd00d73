//! Finding a cluster and knowing that it is the right one, before anything secret is said to it.
//!
//! With a token: the document `kube-public/cluster-info` is read from a server that is not believed yet; the token's
//! signature on it and the pinned hash of the authority in it decide; then it is read again from a server that shows a
//! certificate of that authority. With a file, the file is believed, and the server must show a certificate of its authority.

use anyhow::{Result, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http_body_util::BodyExt as _;
use keelson_pki::BootstrapToken;
use kube::client::Body;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const PATH: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// How long each exchange may take: a wrong address or a machine that is off is told within five seconds by the first. A slow
/// machine needs more than half of it to shake hands.
const LIMIT: Duration = Duration::from_secs(4);
/// How far the clocks may be apart: certificates begin an hour before they are made.
const CLOCKS: i64 = 1800;

/// A cluster that is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// `https://host:port`.
    pub server: String,
    pub ca_pem: String,
}

/// By what a cluster is recognised.
pub struct Pins<'a> {
    pub token: &'a BootstrapToken,
    /// `sha256:<hex>` of authorities' public keys; empty only with `unpinned`.
    pub hashes: &'a [String],
}

/// Discovery by token at `host:port`.
pub async fn by_token(endpoint: &str, pins: &Pins<'_>) -> Result<Cluster> {
    let server = format!("https://{endpoint}");
    let data = read(&server, None).await?;
    let found = check(&data, pins).map_err(|error| anyhow!("{endpoint}: {error}"))?;
    // Once more, and now only from a server with a certificate of that authority.
    let again = read(&server, Some(&found.ca_pem)).await?;
    let confirmed = check(&again, pins).map_err(|error| anyhow!("{endpoint}: {error}"))?;
    if confirmed != found {
        bail!("{endpoint} gave two different documents; somebody may be in between");
    }
    Ok(Cluster { server, ca_pem: found.ca_pem })
}

/// Discovery by a kubeconfig file that names server and authority: its current context's, or its first cluster.
pub async fn by_file(path: &Path) -> Result<Cluster> {
    let (found, shown) = (in_file(path)?, path.display().to_string());
    // From whoever answers, for its clock alone: certificates cannot be judged by a clock that is off.
    ask(&found.server, None, &shown).await?;
    ask(&found.server, Some(&found.ca_pem), &shown).await?;
    Ok(found)
}

fn in_file(path: &Path) -> Result<Cluster> {
    let shown = path.display();
    if path.starts_with("https:") {
        bail!(
            "--discovery-file takes no address; `curl --output cluster.conf {shown}` brings the file, then name that"
        );
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| anyhow!("the discovery file {shown} cannot be read: {error}"))?;
    document(&text, path.parent()).map_err(|error| anyhow!("the discovery file {shown}: {error}"))
}

/// The cluster in a discovery document, when token and pins agree with it.
pub fn check(data: &Value, pins: &Pins<'_>) -> Result<Cluster, String> {
    let text = data["kubeconfig"].as_str().ok_or("its document cluster-info says nothing of a cluster")?;
    let (id, secret) = (pins.token.id(), pins.token.secret());
    let Some(signature) = data[format!("jws-kubeconfig-{id}")].as_str() else {
        return Err(format!(
            "the token {id} is not known there or has expired. Make a new one on a control plane with `keelson token \
             create --print-join-command`"
        ));
    };
    let expected = keelson_pki::detached_signature(text, id, secret).map_err(|error| error.to_string())?;
    if signature != expected {
        return Err(format!(
            "its document is not signed with the token {id}: the token's second part is wrong, or this is not the \
             cluster it was made for. See `keelson token list` on a control plane"
        ));
    }
    let cluster = document(text, None)?;
    if pins.hashes.is_empty() {
        return Ok(cluster);
    }
    let authorities = CertificateDer::pem_slice_iter(cluster.ca_pem.as_bytes());
    let mut seen = Vec::new();
    for authority in authorities {
        let authority = authority.map_err(|_| "its authority is no certificate")?;
        seen.push(keelson_pki::public_key_hash(&authority).map_err(|error| error.to_string())?);
    }
    let pinned = |hash: &String| pins.hashes.iter().any(|pin| pin.eq_ignore_ascii_case(hash));
    if !seen.is_empty() && seen.iter().all(pinned) {
        return Ok(cluster);
    }
    Err(format!(
        "its authority has the hash {}, not the one of --discovery-token-ca-cert-hash. If this is your cluster, print the \
         command anew on a control plane with `keelson token create --print-join-command`",
        seen.join(", ")
    ))
}

/// The cluster that a kubeconfig names. An authority that is a file of its own is looked for beside it, in `folder`.
fn document(text: &str, folder: Option<&Path>) -> Result<Cluster, String> {
    let file: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("it is no kubeconfig: {error}"))?;
    let cluster = &named(&file)?["cluster"];
    let server = cluster["server"].as_str().ok_or("it names no server")?;
    let ca_pem =
        match (cluster["certificate-authority-data"].as_str(), &cluster["certificate-authority"], folder) {
            (Some(encoded), ..) => {
                let pem = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                pem.ok_or("its authority is no text")?
            }
            (None, Value::String(beside), Some(folder)) => std::fs::read_to_string(folder.join(beside))
                .map_err(|error| format!("its authority {beside} cannot be read: {error}"))?,
            _ => return Err("it holds no authority".into()),
        };
    if !server.starts_with("https://") {
        return Err(format!("its server {server} is not https"));
    }
    Ok(Cluster { server: server.to_owned(), ca_pem })
}

/// The cluster of the context that is in use; the first where none is.
fn named(file: &Value) -> Result<&Value, String> {
    let of = |list: &str, name: &str| {
        let entries = file[list].as_array().into_iter().flatten();
        entries.into_iter().find(|one| one["name"].as_str() == Some(name))
    };
    match file["current-context"].as_str().filter(|name| !name.is_empty()) {
        None => Ok(&file["clusters"][0]),
        Some(context) => of("contexts", context)
            .and_then(|found| of("clusters", found["context"]["cluster"].as_str()?))
            .ok_or_else(|| format!("its current context {context} leads to no cluster")),
    }
}

/// Reads the document's data; without an authority from whoever answers.
async fn read(server: &str, ca_pem: Option<&str>) -> Result<Value> {
    let (status, body) = ask(server, ca_pem, "its own document").await?;
    if status == http::StatusCode::UNAUTHORIZED || status == http::StatusCode::FORBIDDEN {
        // The document is open only while a token lives that it is signed with.
        bail!(
            "{server} tells nobody of its cluster now: the token is not known there or has expired. Make a new one on a \
             control plane with `keelson token create --print-join-command`"
        );
    }
    if status != http::StatusCode::OK {
        bail!(
            "{server} answers {status} for the document cluster-info; is it the API server of a Keelson or kubeadm cluster?"
        );
    }
    let map: Value = serde_json::from_slice(&body).map_err(|_| anyhow!("{server} is no API server"))?;
    Ok(map["data"].clone())
}

/// Asks for the document, and compares the clocks. `source`: what the authority comes from.
async fn ask(server: &str, ca_pem: Option<&str>, source: &str) -> Result<(http::StatusCode, Vec<u8>)> {
    let url = server.parse().map_err(|error| anyhow!("{server} is no address of an API server: {error}"))?;
    let mut config = kube::Config::new(url);
    config.connect_timeout = Some(LIMIT);
    config.read_timeout = Some(LIMIT);
    match ca_pem {
        None => config.accept_invalid_certs = true,
        Some(pem) => {
            let certs = CertificateDer::pem_slice_iter(pem.as_bytes());
            config.root_cert = Some(certs.filter_map(Result::ok).map(|cert| cert.to_vec()).collect());
        }
    }
    let client = kube::Client::try_from(config)?;
    let request = Request::get(PATH).header("accept", "application/json").body(Body::empty())?;
    let asked = tokio::time::timeout(LIMIT, async {
        let answer = client.send(request).await?;
        let (head, body) = answer.into_parts();
        Ok::<_, kube::Error>((head, body.collect().await?.to_bytes()))
    });
    let (head, body) = match asked.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => bail!("{}", unreachable(server, &error, source)),
        Err(_) => bail!(
            "{server} does not answer. Check the address, that the control plane runs there (`keelson status`), and that \
             no firewall is in between"
        ),
    };
    compare_clocks(server, head.headers.get(http::header::DATE))?;
    Ok((head.status, body.to_vec()))
}

/// Certificates need clocks that agree; what a clock that is off leads to elsewhere is hard to read.
fn compare_clocks(server: &str, date: Option<&http::HeaderValue>) -> Result<()> {
    let there = date
        .and_then(|value| value.to_str().ok())
        .and_then(|text| jiff::fmt::rfc2822::parse(text).ok())
        .map(|time| time.timestamp());
    let (Some(there), here) = (there, jiff::Timestamp::now()) else { return Ok(()) };
    let apart = there.as_second() - here.as_second();
    if apart.abs() <= CLOCKS {
        return Ok(());
    }
    bail!(
        "this machine's clock says {}, that of {server} says {}. Set it with `timedatectl set-time '{}'` or start a time \
         service, then run this again",
        here.strftime("%Y-%m-%d %H:%M:%S UTC"),
        there.strftime("%Y-%m-%d %H:%M:%S UTC"),
        there.strftime("%Y-%m-%d %H:%M:%S"),
    )
}

fn unreachable(server: &str, error: &kube::Error, source_of_trust: &str) -> String {
    let mut reasons = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        reasons.push(cause.to_string());
        source = cause.source();
    }
    let all = reasons.join(": ");
    let last = reasons.last().cloned().unwrap_or_default();
    if all.contains("certificate") {
        return format!(
            "{server} shows a certificate that {source_of_trust} does not vouch for ({last}); it may be another cluster, \
             somebody may be in between, or the address is missing in the certificate (`apiServer.extraSans` on the control \
             plane)"
        );
    }
    format!(
        "{server} cannot be reached ({last}). Check the address, that the control plane runs there (`keelson status`), and \
         that no firewall is in between"
    )
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
