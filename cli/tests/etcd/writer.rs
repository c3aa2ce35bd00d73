//! A writer: the only one of its objects, at one server, checking by consistent lists at the other.

use crate::log::{Change, Op, Ops};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub const NAMESPACE: &str = "soak";
/// Objects of one writer.
const OBJECTS: u64 = 4;
/// Between the begins of two writes of a writer.
const PACE: Duration = Duration::from_millis(150);
/// A gap that is told as it ends, and four times the wait for a failure that is.
const LONG: Duration = Duration::from_secs(4);
/// How long an answer may be sought after a failed write.
const RESOLVE: Duration = Duration::from_secs(60);

/// What the writers did, added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub writes: u64,
    pub uncertain: u64,
    pub refused: u64,
    pub lists: u64,
    pub slowest: Duration,
    /// The longest time between two acknowledged writes of one writer.
    pub gap: Duration,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.writes += other.writes;
        self.uncertain += other.uncertain;
        self.refused += other.refused;
        self.lists += other.lists;
        self.slowest = self.slowest.max(other.slowest);
        self.gap = self.gap.max(other.gap);
    }
}

pub struct Writer {
    id: u64,
    at: Api<ConfigMap>,
    other: Api<ConfigMap>,
    serial: u64,
    /// The newest state by object: its serial and revision.
    known: BTreeMap<String, (u64, String)>,
    /// When the last write was acknowledged.
    last: Option<Instant>,
    pub ops: Ops,
    pub counts: Counts,
}

impl Writer {
    pub fn new(id: u64, at: kube::Client, other: kube::Client) -> Writer {
        Writer {
            id,
            at: Api::namespaced(at, NAMESPACE),
            other: Api::namespaced(other, NAMESPACE),
            serial: 0,
            known: BTreeMap::new(),
            last: None,
            ops: Ops::new(),
            counts: Counts::default(),
        }
    }

    /// Writes as long as it is told.
    pub async fn run_while(mut self, more: impl Fn() -> bool) -> Result<Writer, String> {
        let mut ticks = tokio::time::interval(PACE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while more() {
            ticks.tick().await;
            self.step().await.map_err(|what| format!("writer {}: {what}", self.id))?;
            if self.serial.is_multiple_of(7) {
                self.check_list().await.map_err(|what| format!("writer {}: {what}", self.id))?;
            }
        }
        Ok(self)
    }

    fn object(&self, name: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([("writer".to_owned(), self.id.to_string())].into()),
                resource_version: self.known.get(name).map(|(_, version)| version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(
                [("serial".to_owned(), self.serial.to_string()), ("pad".to_owned(), "x".repeat(1000))].into(),
            ),
            ..ConfigMap::default()
        }
    }

    async fn step(&mut self) -> Result<(), String> {
        self.serial += 1;
        let name = format!("w{}-{}", self.id, self.serial % OBJECTS);
        let exists = self.known.contains_key(&name);
        let deletes = exists && self.serial % 5 == 0;
        let change = if deletes { Change::Delete } else { Change::Put(self.serial) };
        let object = self.object(&name);
        let begun = Instant::now();
        let outcome = match (deletes, exists) {
            (true, _) => self.at.delete(&name, &DeleteParams::default()).await.map(|_| None),
            (false, true) => self.at.replace(&name, &PostParams::default(), &object).await.map(Some),
            (false, false) => self.at.create(&PostParams::default(), &object).await.map(Some),
        };
        self.counts.writes += 1;
        self.counts.slowest = self.counts.slowest.max(begun.elapsed());
        match outcome {
            Ok(written) => {
                let now = Instant::now();
                let gap = self.last.map_or(Duration::ZERO, |last| now - last);
                if gap >= LONG {
                    println!(
                        "{}: writer {}: a gap of {:.1} s",
                        jiff::Timestamp::now(),
                        self.id,
                        gap.as_secs_f64()
                    );
                }
                self.counts.gap = self.counts.gap.max(gap);
                self.last = Some(now);
                let version = written.and_then(|written| written.metadata.resource_version);
                let revision = version.as_ref().and_then(|version| version.parse().ok());
                match version {
                    Some(version) => self.known.insert(name.clone(), (self.serial, version)),
                    None => self.known.remove(&name),
                };
                self.ops.entry(name).or_default().push(Op { change, revision, uncertain: false });
                Ok(())
            }
            Err(error) => {
                if begun.elapsed() >= LONG / 4 {
                    let took = begun.elapsed().as_secs_f64();
                    println!("{}: writer {}: after {took:.1} s: {error}", jiff::Timestamp::now(), self.id);
                }
                self.resolve(name, change, error).await
            }
        }
    }

    /// After a failed write: what stands there now is asked at the other server.
    async fn resolve(&mut self, name: String, change: Change, error: kube::Error) -> Result<(), String> {
        let code = match &error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        // A client's mistake, or a lie about an object that nobody else writes, unless an earlier write is in doubt.
        let doubtful = self.ops.get(&name).and_then(|ops| ops.last()).is_some_and(|last| last.uncertain);
        if (400..500).contains(&code) && code != 429 && !doubtful {
            return Err(format!("{change:?} of {name} was refused: {error}"));
        }
        let uncertain = !matches!(code, 429 | 503);
        if uncertain {
            self.counts.uncertain += 1;
            self.ops.entry(name.clone()).or_default().push(Op { change, revision: None, uncertain: true });
        } else {
            self.counts.refused += 1;
        }
        let until = Instant::now() + RESOLVE;
        loop {
            match self.other.get_opt(&name).await {
                Ok(Some(found)) => {
                    let version = found.metadata.resource_version.clone().unwrap_or_default();
                    self.known.insert(name, (serial_of(&found), version));
                    return Ok(());
                }
                Ok(None) => {
                    self.known.remove(&name);
                    return Ok(());
                }
                Err(error) if Instant::now() >= until => {
                    return Err(format!("{name} cannot be read: {error}"));
                }
                Err(error) => {
                    println!("{}: writer {}: cannot read: {error}", jiff::Timestamp::now(), self.id);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A consistent list at the other server shows just what was acknowledged here.
    async fn check_list(&mut self) -> Result<(), String> {
        // After a write in doubt the truth may still change.
        let doubtful = |name: &String| self.ops[name].last().is_some_and(|last| last.uncertain);
        if self.known.keys().any(doubtful) || self.ops.keys().any(doubtful) {
            return Ok(());
        }
        let params = ListParams::default().labels(&format!("writer={}", self.id));
        let until = Instant::now() + RESOLVE;
        let listed = loop {
            match self.other.list(&params).await {
                Ok(listed) => break listed,
                Err(error) if Instant::now() >= until => return Err(format!("no list: {error}")),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let found: BTreeMap<String, (u64, String)> = listed
            .items
            .iter()
            .map(|one| {
                let meta = one.metadata.clone();
                (meta.name.unwrap_or_default(), (serial_of(one), meta.resource_version.unwrap_or_default()))
            })
            .collect();
        self.counts.lists += 1;
        if found != self.known {
            return Err(format!("the other server lists {found:?}, acknowledged were {:?}", self.known));
        }
        Ok(())
    }
}

pub fn serial_of(object: &ConfigMap) -> u64 {
    let serial = object.data.as_ref().and_then(|data| data.get("serial"));
    serial.and_then(|serial| serial.parse().ok()).unwrap_or(0)
}
