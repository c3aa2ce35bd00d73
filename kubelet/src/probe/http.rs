//! The small HTTP client of probes and hooks: one request per connection, no certificate is verified (a probe asks
//! the pod itself, by address), redirects are followed on the same host only.
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;

const MAX_BODY: usize = 10 << 10;
const MAX_REDIRECTS: usize = 10;

/// A request that could not be made or answered.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("Get {0:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout(String),
    #[error("Get {url:?}: dial tcp {address}: {source}")]
    Connect { url: String, address: String, source: std::io::Error },
    #[error("Get {url:?}: {source}")]
    Tls { url: String, source: std::io::Error },
    #[error("Get {url:?}: {source}")]
    Http { url: String, source: hyper::Error },
    #[error("Get {0:?}: the request cannot be built")]
    Invalid(String),
    #[error("stopped after {MAX_REDIRECTS} redirects")]
    Redirects,
}

/// What to ask, of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path with query, beginning with a slash.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A port by number or by its name in the container.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|p| p.name.as_deref() == Some(name))
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok()),
    };
    number
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("container {} has no port {port:?}", container.name))
}

impl Request {
    /// The request of a probe or hook; the host is the pod unless one is named.
    pub fn of(get: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<Request, String> {
        let host = get.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip);
        let path = get.path.as_deref().unwrap_or("/");
        Ok(Request {
            https: get.scheme.as_deref() == Some("HTTPS"),
            host: host.to_owned(),
            port: port(&get.port, container)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// Asks, and follows redirects to the same host. A redirect elsewhere is an answer by itself (as upstream counts it).
pub async fn get(request: &Request, limit: Duration) -> Result<Answer, HttpError> {
    let work = async {
        let mut request = request.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (answer, location) = once(&request).await?;
            let next = location.and_then(|location| redirect(&request, &location));
            match next {
                Some(next) if (300..400).contains(&answer.status) => request = next,
                _ => return Ok(answer),
            }
        }
        Err(HttpError::Redirects)
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(HttpError::Timeout(request.url())))
}

fn redirect(from: &Request, location: &str) -> Option<Request> {
    let uri: http::Uri = location.parse().ok()?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let Some(host) = uri.host() else {
        return location.starts_with('/').then(|| Request { path, ..from.clone() });
    };
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    (host.trim_matches(['[', ']']) == from.host).then(|| Request { https, port, path, ..from.clone() })
}

async fn once(request: &Request) -> Result<(Answer, Option<String>), HttpError> {
    let url = request.url();
    let stream = TcpStream::connect((request.host.as_str(), request.port))
        .await
        .map_err(|source| HttpError::Connect { url: url.clone(), address: request.authority(), source })?;
    if !request.https {
        return exchange(request, TokioIo::new(stream), url).await;
    }
    let name = rustls::pki_types::ServerName::try_from(request.host.clone())
        .map_err(|_| HttpError::Invalid(url.clone()))?;
    let connector = tokio_rustls::TlsConnector::from(unverified());
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|source| HttpError::Tls { url: url.clone(), source })?;
    exchange(request, TokioIo::new(stream), url).await
}

async fn exchange<S>(request: &Request, io: S, url: String) -> Result<(Answer, Option<String>), HttpError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let failed = |source| HttpError::Http { url: url.clone(), source };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let given = |name: &str| request.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    let mut builder = hyper::Request::get(&request.path);
    if !given("host") {
        builder = builder.header("Host", request.authority());
    }
    if !given("user-agent") {
        builder = builder.header("User-Agent", "kube-probe/1.35");
    }
    if !given("accept") {
        builder = builder.header("Accept", "*/*");
    }
    // An empty value takes a default header away.
    for (name, value) in request.headers.iter().filter(|(_, value)| !value.is_empty()) {
        builder = builder.header(name, value);
    }
    let built = builder
        .header("Connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| HttpError::Invalid(url.clone()))?;
    let answer = sender.send_request(built).await.map_err(failed)?;
    let status = answer.status().as_u16();
    let location = answer.headers().get("location").and_then(|v| v.to_str().ok()).map(str::to_owned);
    let mut incoming = answer.into_body();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { break };
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(data);
        }
        if body.len() >= MAX_BODY {
            body.truncate(MAX_BODY);
            break;
        }
    }
    connection.abort();
    Ok((Answer { status, body }, location))
}

/// TLS that takes any certificate.
fn unverified() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let verifier = Arc::new(AnyCertificate(provider.clone()));
            let builder = rustls::ClientConfig::builder_with_provider(provider);
            let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
            // The provider supports both versions.
            let builder = builder.with_protocol_versions(&versions).expect("TLS 1.2 and 1.3 are supported");
            Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
        })
        .clone()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn serve(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut data = vec![0; 4096];
            let n = stream.read(&mut data).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&data[..n]).into_owned()
        });
        (port, task)
    }

    fn request(port: u16, headers: &[(&str, &str)]) -> Request {
        Request {
            https: false,
            host: "127.0.0.1".into(),
            port,
            path: "/healthz?x=1".into(),
            headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        }
    }

    #[tokio::test]
    async fn headers_are_upstreams_and_the_hosts_may_be_set() {
        let (port, task) = serve("HTTP/1.1 204 No Content\r\n\r\n").await;
        let answer =
            get(&request(port, &[("Host", "web.example"), ("X-A", "b")]), Duration::from_secs(5)).await;
        assert_eq!(answer.unwrap().status, 204);
        let seen = task.await.unwrap().to_lowercase();
        assert!(seen.starts_with("get /healthz?x=1 http/1.1\r\n"), "{seen}");
        for line in ["host: web.example", "x-a: b", "user-agent: kube-probe/1.35", "accept: */*"] {
            assert!(seen.contains(line), "{line} in {seen}");
        }
        assert_eq!(seen.matches("host:").count(), 1);
    }

    #[tokio::test]
    async fn a_redirect_elsewhere_is_an_answer_and_silence_a_timeout() {
        let (port, _task) = serve("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n").await;
        let answer = get(&request(port, &[]), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.status, 302);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = request(listener.local_addr().unwrap().port(), &[]);
        let error = get(&silent, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, HttpError::Timeout(_)), "{error}");
    }

    #[test]
    fn ports_by_name() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::Int(1), &container), Ok(1));
        assert!(port(&IntOrString::String("none".into()), &container).is_err());
        assert!(port(&IntOrString::Int(70000), &container).is_err());
    }
}
