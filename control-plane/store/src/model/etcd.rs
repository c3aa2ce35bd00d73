//! The contract on a real etcd: compaction by others, and members that are killed and come back.

use keelson_testkit::etcd::{self, Etcd};
use rand::Rng;
use rand::rngs::StdRng;

use super::driver::{Backend, Driver, Plan};
use super::expiry::keys_expire;
use super::runs::{from_environment, seed};
use crate::etcd::tests::options;
use crate::{EtcdStore, Store};

struct Cluster {
    runtime: tokio::runtime::Runtime,
    etcd: Etcd,
    store: Option<EtcdStore>,
    /// Another process that compacts.
    other: EtcdStore,
    /// A member that was killed and started, and may not serve yet.
    away: Option<usize>,
    restarts: u64,
}

impl Cluster {
    fn new(members: usize) -> Cluster {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let etcd = Etcd::start(members).expect("etcd starts");
        let store = runtime.block_on(EtcdStore::open(options(&etcd))).expect("opens");
        let other = runtime.block_on(EtcdStore::open(options(&etcd))).expect("opens");
        Cluster { runtime, etcd, store: Some(store), other, away: None, restarts: 0 }
    }
}

impl Backend for Cluster {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().expect("open")
    }

    fn step(&self, _: usize) -> bool {
        false
    }

    fn is_instant(&self) -> bool {
        false
    }

    fn keeps_order(&self) -> bool {
        false
    }

    fn compacts_unasked(&self) -> bool {
        true
    }

    fn tend(&mut self) {
        let other = &self.other;
        // While members are away it may fail; it is tried again soon.
        let _ = self.runtime.block_on(async {
            let newest = other.revision().await?;
            other.compact(newest.saturating_sub(newest % 40)).await
        });
    }

    fn reopen(&mut self) -> bool {
        self.store = None;
        self.store = Some(self.runtime.block_on(EtcdStore::open(options(&self.etcd))).expect("opens"));
        true
    }

    fn arm(&mut self, random: &mut StdRng) {
        if let Some(away) = self.away.take() {
            self.etcd.wait(away).expect("a member comes back");
        }
        let index = random.random_range(0..self.etcd.size());
        self.etcd.kill(index).expect("ends");
        self.etcd.launch(index).expect("starts");
        self.away = Some(index);
        self.restarts += 1;
    }
}

fn run(members: usize, operations: u64, faults_every: u64) {
    if let Some(reason) = etcd::missing() {
        println!("SKIPPED: the store's contract on etcd: {reason}");
        return;
    }
    let mut cluster = Cluster::new(members);
    let handle = cluster.runtime.handle().clone();
    let _entered = handle.enter();
    let plan = Plan { seed: seed(), operations, faults_every };
    let stats = Driver::run(&mut cluster, plan).unwrap();
    println!("etcd, {members} members: {stats:?}, {} restarts", cluster.restarts);
    assert!(stats.events > operations / 20 && stats.reopens > 0 && stats.expired > 0, "{stats:?}");
    assert!(faults_every == 0 || cluster.restarts > 2);
}

#[test]
fn etcd_keeps_the_contract() {
    run(1, from_environment("KEELSON_MODEL_OPERATIONS", 400_000) / 80, 0);
}

#[test]
fn etcd_keeps_the_contract_while_members_crash() {
    run(3, from_environment("KEELSON_MODEL_OPERATIONS", 400_000) / 160, 1500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_expire_in_etcd() {
    if let Some(reason) = etcd::missing() {
        println!("SKIPPED: keys that expire in etcd: {reason}");
        return;
    }
    let etcd = Etcd::start(1).expect("etcd starts");
    let store = EtcdStore::open(options(&etcd)).await.expect("opens");
    keys_expire(&store).await;
}
