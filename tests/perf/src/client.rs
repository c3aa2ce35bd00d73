//! A plain HTTP/1.1 client over TLS with the kubeconfig's certificate: one connection, one request at a time.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Where the API server is and who we are.
#[derive(Clone)]
pub struct Kubeconfig {
    address: String,
    host: String,
    tls: Arc<rustls::ClientConfig>,
}

impl Kubeconfig {
    /// Reads a kubeconfig with embedded certificates.
    pub fn read(path: &Path) -> Result<Kubeconfig> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: Value = serde_saphyr::from_str(&text)?;
        let cluster = &file["clusters"][0]["cluster"];
        let user = &file["users"][0]["user"];
        let data = |value: &Value| -> Result<Vec<u8>> {
            Ok(BASE64_STANDARD
                .decode(value.as_str().context("the kubeconfig has no embedded certificates")?)?)
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&data(&cluster["certificate-authority-data"])?)?)?;
        let chain = CertificateDer::pem_slice_iter(&data(&user["client-certificate-data"])?)
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&data(&user["client-key-data"])?)?;
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)?;
        let server = cluster["server"].as_str().context("the kubeconfig names no server")?;
        let address = server.trim_start_matches("https://").to_owned();
        let host = address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.to_owned());
        Ok(Kubeconfig { address, host, tls: Arc::new(tls) })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection> {
        let tcp = TcpStream::connect(&self.address).await.context("cannot reach the API server")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.host.clone() })
    }
}

/// One connection.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends a request and returns the answer with its body unread.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<http::Response<Incoming>> {
        self.send_as(method, path, body, "application/json").await
    }

    async fn send_as(
        &mut self,
        method: &str,
        path: &str,
        body: Bytes,
        kind: &str,
    ) -> Result<http::Response<Incoming>> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", "application/json")
            .header("content-type", kind)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the answer, which must be a success.
    pub async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        self.call_as(method, path, body, "application/json").await
    }

    /// As [`Connection::call`] with a body of another media type.
    pub async fn call_as(&mut self, method: &str, path: &str, body: Bytes, kind: &str) -> Result<Bytes> {
        let response = self.send_as(method, path, body, kind).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
        }
        Ok(bytes)
    }

    /// Sends a request and counts the answer's bytes without keeping them.
    pub async fn drain(&mut self, path: &str) -> Result<usize> {
        let response = self.send("GET", path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        let mut body = response.into_body();
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            count += frame?.data_ref().map_or(0, |data| data.len());
        }
        Ok(count)
    }
}
