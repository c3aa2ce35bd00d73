//! Where a [`kube::Client`] comes from.

use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::{Path, PathBuf};
use tower::{BoxError, Service};

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot read kubeconfig {path}")]
    Read { path: PathBuf, source: Box<kube::config::KubeconfigError> },
    #[error("kubeconfig {path} is no use for a client")]
    Client { path: PathBuf, source: Box<kube::Error> },
}

/// A client over TLS, as the kubeconfig says.
pub async fn from_kubeconfig(path: &Path) -> Result<kube::Client, ConnectError> {
    let read = |source| ConnectError::Read { path: path.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(path).map_err(read)?;
    let config =
        kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(read)?;
    kube::Client::try_from(config)
        .map_err(|source| ConnectError::Client { path: path.to_owned(), source: Box::new(source) })
}

/// A client whose requests go straight into `service`, the API server behind its TLS. Who the client is stands in the
/// service; flow control, authorization and admission still run there.
pub fn in_process<S, B>(service: S, default_namespace: &str) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    kube::Client::new(service, default_namespace)
}
