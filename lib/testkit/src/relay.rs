//! A TCP relay that can lose a server's answers: what a client sends arrives, what comes back does not, and the
//! connection breaks.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A relay on loopback; ends with its drop.
pub struct Relay {
    address: SocketAddr,
    lossy: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Begins to relay to `to`.
    pub async fn start(to: SocketAddr) -> std::io::Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let lossy = Arc::new(AtomicBool::new(false));
        let state = lossy.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if state.load(Ordering::SeqCst) {
                    // Once it loses answers it takes no more connections.
                    continue;
                }
                tokio::spawn(carry(client, to, state.clone()));
            }
        });
        Ok(Relay { address, lossy, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the next answer on each connection is lost and the connection breaks; new ones are closed.
    pub fn lose_answers(&self) {
        self.lossy.store(true, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, to: SocketAddr, lossy: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from_server.read(&mut buffer).await {
            Ok(read) if read > 0 && !lossy.load(Ordering::SeqCst) => {
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    up.abort();
}
