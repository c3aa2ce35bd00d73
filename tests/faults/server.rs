//! The server under test and who writes to it.

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
/// Reads go on this soon after writes do.
const READS_BACK: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "default";
/// Of each object: so the disk's last blocks are soon needed.
const BYTES: usize = 16 * 1024;
const TRACE: &str = "faults";

/// `keelson control-plane` with all it keeps on the disk.
pub struct Server {
    child: Option<Child>,
    state: PathBuf,
    /// Beside the disk, as an administrator's are: configuration, and what the server says.
    config: tempfile::NamedTempFile,
    log: tempfile::NamedTempFile,
}

impl Server {
    pub async fn start(disk: PathBuf) -> Server {
        let state = disk.join("state");
        std::fs::create_dir(&state).expect("a folder");
        let config = tempfile::NamedTempFile::new().expect("a file");
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let text = format!(
            "apiVersion: keelson/v1\nkind: Configuration\nnode: {{name: n1, address: 192.0.2.1}}\npaths: {{state: {}}}\n\
             apiServer: {{bind: '127.0.0.1:{port}', extraSans: ['127.0.0.1']}}\n",
            state.display()
        );
        std::fs::write(config.path(), text).expect("written");
        let log = tempfile::NamedTempFile::new().expect("a log");
        Server { child: None, state, config, log }.launched().await
    }

    /// The same again, on whatever the disk holds now.
    pub async fn restart(self) -> Server {
        assert!(self.child.is_none(), "it was killed");
        self.launched().await
    }

    async fn launched(mut self) -> Server {
        let log = self.log.reopen().expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
        command.arg("control-plane").arg("--config").arg(self.config.path()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts");
        self.child = Some(child);
        self.expect_ready_within(SOON).await;
        self
    }

    /// The end of its log.
    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The administrator's client. It does not try again by itself: every answer counts.
    async fn try_client(&self) -> Option<kube::Client> {
        let file = Kubeconfig::read_from(self.state.join("admin.conf")).ok()?;
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.ok()?;
        config.default_retry = false;
        kube::Client::try_from(config).ok()
    }

    async fn client(&self) -> kube::Client {
        self.try_client().await.expect("a client")
    }

    async fn is_ready(&self) -> bool {
        let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
        match self.try_client().await {
            Some(client) => client.request_text(request).await.is_ok_and(|text| text == "ok"),
            None => false,
        }
    }

    pub async fn expect_ready(&self) {
        assert!(self.is_ready().await, "it is not ready:\n{}", self.log());
    }

    pub async fn expect_ready_within(&self, limit: Duration) {
        let begun = Instant::now();
        while !self.is_ready().await {
            assert!(begun.elapsed() < limit, "it is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("waited for");
    }

    /// Runs `with` while the whole process stands still, with no call of it under way in the kernel.
    pub fn frozen<T>(&self, with: impl FnOnce() -> T) -> T {
        let id = self.child.as_ref().expect("it runs").id();
        let signal = |signal| {
            let id = nix::unistd::Pid::from_raw(i32::try_from(id).expect("an id"));
            nix::sys::signal::kill(id, signal).expect("told");
        };
        signal(nix::sys::signal::Signal::SIGSTOP);
        let begun = Instant::now();
        while !stands_still(id) {
            assert!(begun.elapsed() < SOON, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
        let done = with();
        signal(nix::sys::signal::Signal::SIGCONT);
        done
    }

    /// Somebody who writes objects one after the other, under names of his own.
    pub async fn writer(&self) -> Writer {
        let name = format!("w{}", uuid::Uuid::new_v4().simple());
        let api = Api::namespaced(self.client().await, NAMESPACE);
        Writer { api, name, outcomes: Vec::new() }
    }

    /// Single objects and lists are read.
    pub async fn reads(&self, writer: &Writer) {
        let name = writer.name_of(0);
        let object = writer.api.get(&name).await.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        assert_eq!(object.data.unwrap_or_default()["value"].len(), BYTES);
        self.check(writer).await;
    }

    /// All that was acknowledged is there as it was written, and nothing that was refused.
    pub async fn check(&self, writer: &Writer) {
        self.check_first(writer, usize::MAX).await;
    }

    /// As [`Server::check`], of the first writes so many.
    pub async fn check_first(&self, writer: &Writer, first: usize) {
        let api: Api<ConfigMap> = Api::namespaced(self.client().await, NAMESPACE);
        let begun = Instant::now();
        let list = loop {
            match api.list(&ListParams::default()).await {
                Ok(list) => break list,
                // The caches follow the store a moment after it is open again, and say so.
                Err(kube::Error::Api(status)) if status.code == 503 && begun.elapsed() < READS_BACK => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}\n{}", self.log()),
            }
        };
        let found: BTreeMap<String, usize> = list
            .items
            .into_iter()
            .map(|item| {
                let length = item.data.unwrap_or_default().get("value").map_or(0, String::len);
                (item.metadata.name.unwrap_or_default(), length)
            })
            .collect();
        for (index, outcome) in writer.outcomes.iter().enumerate().take(first) {
            let there = found.get(&writer.name_of(index));
            match outcome {
                Outcome::Made => {
                    assert_eq!(there, Some(&BYTES), "write {index} was acknowledged and is lost")
                }
                Outcome::Refused { message, .. } => {
                    assert_eq!(there, None, "write {index} was refused ({message}) and is there")
                }
                Outcome::Unknown { .. } => {}
            }
        }
    }

    /// A watch of everything written from now on.
    pub async fn watch(&self) -> Watch {
        let client = self.client().await;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps?watch=1&labelSelector=by={TRACE}");
        let request = http::Request::get(path).body(Vec::new()).expect("a request");
        let lines = Box::pin(client.request_stream(request).await.expect("a watch").lines());
        Watch { lines, seen: 0 }
    }
}

fn stands_still(process: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("its threads");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // After the name in brackets, which may hold anything.
        stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('T'))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How a write ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Made,
    /// It was not made.
    Refused {
        code: u16,
        reason: String,
        message: String,
        retry_after: i32,
    },
    /// It may have been made.
    Unknown {
        message: String,
    },
}

impl Outcome {
    pub fn is_made(&self) -> bool {
        matches!(self, Outcome::Made)
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Outcome::Refused { .. })
    }
}

pub struct Writer {
    api: Api<ConfigMap>,
    name: String,
    outcomes: Vec<Outcome>,
}

impl Writer {
    fn name_of(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    pub fn acknowledged(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.is_made()).count()
    }

    async fn one(&mut self) -> Outcome {
        let index = self.outcomes.len();
        let mut object = ConfigMap::default();
        object.metadata.name = Some(self.name_of(index));
        object.metadata.labels = Some(BTreeMap::from([("by".to_owned(), TRACE.to_owned())]));
        object.data = Some(BTreeMap::from([("value".to_owned(), "x".repeat(BYTES))]));
        let outcome = match self.api.create(&PostParams::default(), &object).await {
            Ok(_) => Outcome::Made,
            Err(kube::Error::Api(status)) if status.code == 504 => {
                Outcome::Unknown { message: status.message }
            }
            Err(kube::Error::Api(status)) => Outcome::Refused {
                code: status.code,
                retry_after: status.details.as_ref().map_or(0, |details| details.retry_after_seconds as i32),
                reason: status.reason,
                message: status.message,
            },
            // The connection broke.
            Err(error) => Outcome::Unknown { message: error.to_string() },
        };
        self.outcomes.push(outcome.clone());
        outcome
    }

    /// So many writes; gives how many were not made.
    pub async fn write(&mut self, count: usize) -> usize {
        let mut refused = 0;
        for _ in 0..count {
            refused += usize::from(!self.one().await.is_made());
        }
        refused
    }

    /// Writes until one ends as wanted.
    pub async fn until(&mut self, what: &str, limit: Duration, wanted: impl Fn(&Outcome) -> bool) -> Outcome {
        let begun = Instant::now();
        loop {
            let outcome = self.one().await;
            if wanted(&outcome) {
                return outcome;
            }
            assert!(begun.elapsed() < limit, "{what}: not within {limit:?}; last: {outcome:?}");
        }
    }

    /// Runs `with` in the middle of many writes; gives what it made, and how many writes had ended before.
    pub async fn while_writing<T>(&mut self, with: impl FnOnce() -> T) -> (T, usize) {
        let enough = 30;
        self.write(enough).await;
        let before = self.outcomes.len();
        let under_way = self.one();
        let mut under_way = Box::pin(under_way);
        // Sent, and not waited for.
        let _ = tokio::time::timeout(Duration::from_millis(3), under_way.as_mut()).await;
        let made = tokio::task::block_in_place(with);
        drop(under_way);
        // What was under way may be there or not.
        self.outcomes.truncate(before);
        (made, before)
    }
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |wanted: fn(&Outcome) -> bool| self.outcomes.iter().filter(|outcome| wanted(outcome)).count();
        write!(
            f,
            "{} writes acknowledged, {} refused, {} of unknown outcome",
            self.acknowledged(),
            count(Outcome::is_refused),
            count(|outcome| matches!(outcome, Outcome::Unknown { .. }))
        )
    }
}

type Lines = std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>>>>;

/// A watch that must go on through it all.
pub struct Watch {
    lines: Lines,
    seen: usize,
}

impl Watch {
    /// So many objects have been told of, not one more.
    pub async fn has_seen(&mut self, count: usize, limit: Duration) {
        while self.seen < count {
            let line = tokio::time::timeout(limit, self.lines.try_next()).await;
            let line = line.unwrap_or_else(|_| panic!("{} of {count} events in {limit:?}", self.seen));
            let line = line.expect("the watch goes on").expect("the watch goes on");
            assert!(line.starts_with(r#"{"type":"ADDED""#), "{}", &line[..line.len().min(300)]);
            self.seen += 1;
        }
        assert_eq!(self.seen, count);
    }
}
