use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SOON: Duration = Duration::from_secs(20);

/// Servers that do not answer, though they take connections: as a process that is stopped.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<BTreeSet<SocketAddr>>>);

impl Probe for Silent {
    async fn lives(&self, server: SocketAddr) -> bool {
        if self.0.lock().unwrap().contains(&server) {
            std::future::pending().await
        }
        TcpStream::connect(server).await.is_ok()
    }
}

/// A server that says its name and then echoes.
async fn server(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut clients = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            clients.spawn(async move {
                client.write_all(name.as_bytes()).await?;
                let (mut read, mut write) = client.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    (address, task)
}

struct Lab {
    address: SocketAddr,
    servers: watch::Sender<Vec<SocketAddr>>,
    silent: Silent,
    _task: tokio::task::JoinHandle<()>,
}

async fn lab(servers: &[SocketAddr]) -> Lab {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(servers.to_vec());
    let silent = Silent::default();
    let task = tokio::spawn(run(listener, receiver, First::Any(0), silent.clone()));
    Lab { address, servers: sender, silent, _task: task }
}

impl Lab {
    /// Connects; the name of who answers.
    async fn who(&self) -> (String, TcpStream) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut name = [0u8; 1];
        timeout(SOON, stream.read_exact(&mut name)).await.expect("nobody answers").unwrap();
        (String::from_utf8(name.to_vec()).unwrap(), stream)
    }

    async fn becomes(&self, wanted: &str) {
        let search = async {
            loop {
                let mut stream = TcpStream::connect(self.address).await.unwrap();
                let mut name = [0u8; 1];
                if stream.read_exact(&mut name).await.is_ok() && name == wanted.as_bytes() {
                    return;
                }
            }
        };
        timeout(SOON, search).await.unwrap_or_else(|_| panic!("{wanted} is never used"));
    }
}

async fn ends(mut stream: TcpStream) {
    let mut rest = Vec::new();
    // An end or a reset.
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection goes on");
}

#[tokio::test]
async fn bytes_pass_and_one_server_serves_all() {
    let ((a, _a), (b, _b)) = (server("a").await, server("b").await);
    let lab = lab(&[a, b]).await;
    for _ in 0..5 {
        let (name, mut stream) = lab.who().await;
        assert_eq!(name, "a");
        let text = vec![7u8; 200_000];
        let (mut read, mut write) = stream.split();
        let sent = async {
            write.write_all(&text).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(sent, read.read_to_end(&mut back));
        assert_eq!(read.unwrap(), text.len());
    }
}

#[tokio::test]
async fn a_server_that_dies_falls_silent_or_leaves_is_replaced() {
    let ((a, task_a), (b, _b), (c, _c)) = (server("a").await, server("b").await, server("c").await);
    let lab = lab(&[a, b, c]).await;
    let (name, first) = lab.who().await;
    assert_eq!(name, "a");
    // Killed.
    task_a.abort();
    ends(first).await;
    lab.becomes("b").await;
    // Stopped: it takes connections and never answers; what runs through it must not hang.
    let (_, held) = lab.who().await;
    lab.silent.0.lock().unwrap().insert(b);
    ends(held).await;
    lab.becomes("c").await;
    // Taken out.
    let (_, held) = lab.who().await;
    lab.silent.0.lock().unwrap().clear();
    lab.servers.send_replace(vec![a, b]);
    ends(held).await;
    lab.becomes("b").await;
}

#[tokio::test]
async fn a_client_waits_until_a_server_comes() {
    let lab = lab(&[]).await;
    let waiting = lab.who();
    let come = async {
        let (a, task) = server("a").await;
        lab.servers.send_replace(vec![a]);
        (task,)
    };
    let ((name, _), _task) = tokio::join!(waiting, come);
    assert_eq!(name, "a");
}

#[test]
fn the_next_after_the_failed_one_comes_first() {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let all = [at(1), at(2), at(3)];
    let any = First::Any(0);
    assert_eq!(order(&all, None, any), all);
    assert_eq!(order(&all, Some(at(1)), any), [at(2), at(3), at(1)]);
    assert_eq!(order(&all, Some(at(3)), any), all);
    assert_eq!(order(&all, Some(at(9)), any), all);
    assert_eq!(order(&[], Some(at(1)), any), []);
    assert_eq!(order(&[], None, First::Any(7)), []);
    assert_eq!(order(&all, None, First::Any(7)), [at(2), at(3), at(1)]);
    // A control plane begins with its own, and goes on like any other.
    let own = First::Own(at(3));
    assert_eq!(order(&all, None, own), [at(3), at(1), at(2)]);
    assert_eq!(order(&all, Some(at(3)), own), all);
    assert_eq!(order(&all, None, First::Own(at(9))), all);
}
