//! Tests of `kubectl proxy`.

use crate::env::Env;
use crate::tests::discovery::items;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;

const SOON: Duration = Duration::from_secs(30);

/// Starts the proxy; returns it and the first line that it prints. Dropped, it ends.
async fn start(env: &Env, arguments: &[&str]) -> Result<(Child, String)> {
    let mut command = env.kubectl().command(env.ns(), arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl proxy")?;
    let stdout = child.stdout.take().context("no output")?;
    let mut line = String::new();
    env.within("kubectl proxy to say that it serves", SOON, async {
        BufReader::new(stdout).read_line(&mut line).await?;
        Ok(())
    })
    .await?;
    Ok((child, line))
}

/// GET of /api/ over a connection; the answer must name a version.
async fn ask(env: &Env, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<()> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/api/").header("host", "localhost").body(Empty::<Bytes>::new())?;
    let body = env
        .within("an answer through the proxy", SOON, async {
            Ok(sender.send_request(request).await?.into_body().collect().await?.to_bytes())
        })
        .await?;
    let versions: Value = serde_json::from_slice(&body)?;
    ensure!(
        !items(&versions["versions"]).is_empty(),
        "Expected at least one supported apiversion: {versions}"
    );
    Ok(())
}

// kubectl.go: "should support proxy with --port 0"
pub async fn port(env: Env) -> Result<()> {
    env.step("starting the proxy server");
    let (_child, line) = start(&env, &["proxy", "-p", "0", "--disable-filter"]).await?;
    let port = line
        .trim()
        .strip_prefix("Starting to serve on 127.0.0.1:")
        .and_then(|port| port.parse::<u16>().ok())
        .with_context(|| format!("Failed to parse port from proxy stdout: {line:?}"))?;
    env.step("curling proxy /api/ output");
    ask(&env, TcpStream::connect(("127.0.0.1", port)).await?).await
}

// kubectl.go: "should support --unix-socket=/path"
pub async fn socket(env: Env) -> Result<()> {
    env.step("Starting the proxy");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("test");
    let (_child, line) = start(&env, &["proxy", &format!("--unix-socket={}", path.display())]).await?;
    ensure!(!line.is_empty(), "Expected output from kubectl proxy");
    env.step("retrieving proxy /api/ output");
    ask(&env, UnixStream::connect(&path).await?).await
}
