//! Plain clients over TLS with the kubeconfig's certificate: HTTP/1.1 with one request at a time, and HTTP/2 for many
//! watches on a connection.

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const JSON: &str = "application/json";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

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

    /// The same on another port of the machine.
    pub fn at(mut self, port: u16) -> Kubeconfig {
        self.address = format!("{}:{port}", self.host);
        self
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection> {
        let tls = self.tls(self.tls.clone()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.host.clone() })
    }

    /// Opens an HTTP/2 connection.
    pub async fn streams(&self) -> Result<Streams> {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tls = self.tls(Arc::new(config)).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake(TokioIo::new(tls))
            .await?;
        tokio::spawn(connection);
        Ok(Streams { sender, host: self.host.clone() })
    }

    async fn tls(&self, config: Arc<rustls::ClientConfig>) -> Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address).await.context("cannot reach the API server")?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        Ok(TlsConnector::from(config).connect(name, tcp).await?)
    }
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Streams {
    sender: http2::SendRequest<Full<Bytes>>,
    host: String,
}

impl Streams {
    /// Asks for something that goes on (a watch); the answer's body is unread.
    pub async fn open(&mut self, path: &str) -> Result<Incoming> {
        let request = http::Request::builder()
            .uri(format!("https://{}{path}", self.host))
            .header("accept", JSON)
            .body(Full::new(Bytes::new()))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        Ok(response.into_body())
    }
}

/// One connection.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends a request and returns the answer with its body unread.
    pub async fn send(&mut self, method: &str, path: &str, body: Bytes) -> Result<http::Response<Incoming>> {
        self.request(method, path, body, (JSON, JSON)).await
    }

    /// `types`: of the body, and of the answer.
    async fn request(
        &mut self,
        method: &str,
        path: &str,
        body: Bytes,
        types: (&str, &str),
    ) -> Result<http::Response<Incoming>> {
        let (kind, accept) = types;
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("accept", accept)
            .header("content-type", kind)
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the answer, which must be a success.
    pub async fn call(&mut self, method: &str, path: &str, body: Bytes) -> Result<Bytes> {
        self.call_as(method, path, body, JSON).await
    }

    /// As [`Connection::call`] with a body of another media type.
    pub async fn call_as(&mut self, method: &str, path: &str, body: Bytes, kind: &str) -> Result<Bytes> {
        whole(self.request(method, path, body, (kind, JSON)).await?, method, path).await
    }

    /// Gets an answer of the media type asked for.
    pub async fn get_as(&mut self, path: &str, accept: &str) -> Result<Bytes> {
        let response = self.request("GET", path, Bytes::new(), (JSON, accept)).await?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with(accept)) {
            bail!("GET {path}: {kind:?} instead of {accept}");
        }
        whole(response, "GET", path).await
    }

    /// Sends a request and counts the answer's bytes without keeping them.
    pub async fn drain(&mut self, path: &str) -> Result<usize> {
        Ok(self.drain_timed(path).await?.1)
    }

    /// As [`Connection::drain`], with the time until the body's first bytes.
    pub async fn drain_timed(&mut self, path: &str) -> Result<(Duration, usize)> {
        let begun = Instant::now();
        let response = self.send("GET", path, Bytes::new()).await?;
        if !response.status().is_success() {
            bail!("GET {path}: {}", response.status());
        }
        let mut body = response.into_body();
        let (mut first, mut count) = (None, 0);
        while let Some(frame) = body.frame().await {
            count += frame?.data_ref().map_or(0, |data| data.len());
            first.get_or_insert_with(|| begun.elapsed());
        }
        Ok((first.context("an empty answer")?, count))
    }
}

async fn whole(response: http::Response<Incoming>, method: &str, path: &str) -> Result<Bytes> {
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    if !status.is_success() {
        bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&bytes));
    }
    Ok(bytes)
}
