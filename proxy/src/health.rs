//! Health check ports for load balancers (`healthCheckNodePort`): is there an endpoint on this node?
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::plan::{HealthCheck, ServiceName};

/// Connections at one time per port; probes are short.
const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST_LIMIT: usize = 8 << 10;

struct Port {
    count: Arc<RwLock<usize>>,
    task: JoinHandle<()>,
}

/// The listeners, one for each service that asks for one.
#[derive(Default)]
pub struct HealthPorts {
    ports: BTreeMap<(ServiceName, u16), Port>,
}

impl HealthPorts {
    /// Makes the listeners the wanted ones.
    pub async fn sync(&mut self, wanted: Vec<(ServiceName, HealthCheck)>) {
        let wanted: BTreeMap<(ServiceName, u16), usize> =
            wanted.into_iter().map(|(name, h)| ((name, h.port), h.local_endpoints)).collect();
        self.ports.retain(|key, port| {
            let keep = wanted.contains_key(key) && !port.task.is_finished();
            if !keep {
                port.task.abort();
            }
            keep
        });
        for (key, count) in wanted {
            if let Some(port) = self.ports.get(&key) {
                *port.count.write() = count;
                continue;
            }
            let mut listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, key.1)).await;
            if listener.is_err() {
                listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, key.1)).await;
            }
            match listener {
                Ok(listener) => {
                    let shared = Arc::new(RwLock::new(count));
                    let task = tokio::spawn(listen(listener, key.0.clone(), shared.clone()));
                    self.ports.insert(key, Port { count: shared, task });
                }
                Err(error) => {
                    tracing::warn!(service = %key.0, port = key.1, %error, "health check port cannot be opened");
                }
            }
        }
    }
}

impl Drop for HealthPorts {
    fn drop(&mut self) {
        self.ports.values().for_each(|p| p.task.abort());
    }
}

async fn listen(listener: TcpListener, name: ServiceName, count: Arc<RwLock<usize>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let body = respond(&name, *count.read());
                tokio::spawn(async move {
                    let _slot = slot;
                    timeout(PATIENCE, answer(stream, body)).await.ok();
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The response, as upstream's: 200 with local endpoints, else 503.
fn respond(name: &ServiceName, count: usize) -> String {
    let body = serde_json::json!({
        "service": {"namespace": name.namespace, "name": name.name},
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    })
    .to_string();
    let status = if count > 0 { "200 OK" } else { "503 Service Unavailable" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {count}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

async fn answer(mut stream: TcpStream, response: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0u8; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < REQUEST_LIMIT {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            break;
        }
        request.extend_from_slice(&buffer[..n]);
    }
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::isolated;

    #[test]
    fn ports_open_count_and_close() {
        isolated(|| {
            let mut rtnl = keelson_sys::rtnl::Rtnl::open().expect("rtnl");
            keelson_sys::rtnl::Batch::new().set_up_by_name("lo").send(&mut rtnl).expect("lo");
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let mut ports = HealthPorts::default();
                let name = ServiceName::new("ns", "lb");
                let want = |count| vec![(name.clone(), HealthCheck { port: 31_000, local_endpoints: count })];
                for (count, status) in [(2, "HTTP/1.1 200"), (0, "HTTP/1.1 503")] {
                    ports.sync(want(count)).await;
                    let mut stream = TcpStream::connect("127.0.0.1:31000").await.expect("open");
                    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("asked");
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.expect("answer");
                    assert!(
                        text.starts_with(status) && text.contains(&format!("\"localEndpoints\":{count}")),
                        "{text}"
                    );
                }
                ports.sync(vec![]).await;
                tokio::task::yield_now().await;
                assert!(TcpStream::connect("127.0.0.1:31000").await.is_err());
            });
        });
    }
}
