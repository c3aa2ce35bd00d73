//! The runs: each back end, every crash point of a short run, the full disk, and the mutants that must be caught.

use keelson_faultfs::{Disk, Fault};
use rand::Rng;
use rand::rngs::StdRng;

use super::driver::{Backend, Driver, Plan, Stats};
use crate::sqlite::inline::{FaultSite, Mutant};
use crate::{MemoryStore, SqliteOptions, SqliteStore, Store};

pub(super) fn from_environment(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

pub(super) fn seed() -> u64 {
    from_environment("KEELSON_MODEL_SEED", 1)
}

struct Memory(MemoryStore);

impl Backend for Memory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn step(&self, _: usize) -> bool {
        false
    }
}

/// SQLite with its threads in a real folder.
struct Threads {
    store: Option<SqliteStore>,
    folder: tempfile::TempDir,
}

impl Threads {
    fn new() -> Threads {
        let mut threads = Threads { store: None, folder: tempfile::tempdir().expect("a folder") };
        threads.reopen();
        threads
    }
}

impl Backend for Threads {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().expect("open")
    }

    fn step(&self, _: usize) -> bool {
        false
    }

    fn is_instant(&self) -> bool {
        false
    }

    fn reopen(&mut self) -> bool {
        if let Some(store) = self.store.take() {
            futures::executor::block_on(store.close()).expect("closes");
        }
        self.store = Some(SqliteStore::open(SqliteOptions::new(self.folder.path())).expect("opens"));
        true
    }
}

/// SQLite without threads on a disk that fails.
struct Faulty {
    store: Option<SqliteStore>,
    site: FaultSite,
    /// Which faults may be armed.
    faults: Faults,
    /// Keeps checkpoints from copying all.
    reader: Option<rusqlite::Connection>,
    tended: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Faults {
    Crashes,
    All,
}

impl Faulty {
    fn new(seed: u64, mutant: Mutant, faults: Faults) -> Faulty {
        let site = FaultSite { disk: Disk::new(seed), reserve: 64 << 10, mutant };
        let store = SqliteStore::open_inline(site.clone()).expect("opens on a new disk");
        Faulty { store: Some(store), site, faults, reader: None, tended: 0 }
    }

    fn open(&self) -> &SqliteStore {
        self.store.as_ref().expect("open")
    }

    fn disk(&self) -> &Disk {
        &self.site.disk
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.reader = None;
        if let Some(store) = self.store.take() {
            let _ = store.end_inline(false);
        }
    }
}

impl Backend for Faulty {
    fn store(&self) -> &dyn Store {
        self.open()
    }

    fn step(&self, most: usize) -> bool {
        self.open().step(most)
    }

    fn compacts_unasked(&self) -> bool {
        self.faults == Faults::All
    }

    /// Checkpoints of all that is there, and of a part: a reader holds on to the rest.
    fn tend(&mut self) {
        self.tended += 1;
        match self.tended % 4 {
            0 => self.reader = self.open().hold_snapshot(),
            3 => self.reader = None,
            _ => {}
        }
        self.open().checkpoint();
    }

    fn reopen(&mut self) -> bool {
        self.reader = None;
        if self.down() || self.open().end_inline(true).is_err() {
            return false;
        }
        let files: Vec<String> = self.disk().files().into_iter().map(|(name, _)| name).collect();
        assert_eq!(files, ["store.db"], "a clean end leaves one file");
        match SqliteStore::open_inline(self.site.clone()) {
            Ok(store) => {
                self.store = Some(store);
                true
            }
            Err(_) => false,
        }
    }

    fn arm(&mut self, random: &mut StdRng) {
        let soon = random.random_range(0..60);
        match random.random_range(0..10) {
            0..6 => self.disk().crash_after(soon),
            _ if self.faults == Faults::Crashes => {}
            6 => self.disk().fail_after(Fault::Write, soon),
            7 => self.disk().fail_after(Fault::Sync, soon / 3),
            8 => self.disk().fail_after(Fault::ShortWrite, soon),
            _ if random.random_bool(0.5) => {
                let used = self.disk().used();
                self.disk().set_capacity(Some(used + random.random_range(0..200_000)));
            }
            _ => self.disk().set_capacity(None),
        }
    }

    fn down(&self) -> bool {
        self.disk().crashed() || futures::executor::block_on(self.open().revision()).is_err()
    }

    fn recover(&mut self, random: &mut StdRng) -> bool {
        self.reader = None;
        loop {
            let _ = self.open().end_inline(false);
            let crashed = self.disk().crashed();
            // A process that closed its store after a failed fsync is started anew on a machine that still runs.
            if crashed {
                self.disk().reboot();
            }
            // The next failure may come while the store recovers.
            if random.random_bool(0.2) {
                self.disk().crash_after(random.random_range(1..30));
            }
            match SqliteStore::open_inline(self.site.clone()) {
                Ok(store) => {
                    self.store = Some(store);
                    if !self.down() {
                        return true;
                    }
                }
                Err(_) if self.disk().crashed() => {}
                // Not enough space to begin, or one more failed call: what is armed is spent.
                Err(_) => self.disk().set_capacity(None),
            }
        }
    }

    fn examine(&self, rows_at_most: Option<usize>) -> Result<(), String> {
        let store = self.open();
        if store.query_number("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'") > 0
        {
            return Err("the database is damaged".to_owned());
        }
        let rows = store.query_number("SELECT count(*) FROM log");
        match rows_at_most {
            Some(most) if rows > most as i64 => {
                Err(format!("{rows} rows after a compaction, {most} can be needed"))
            }
            _ => Ok(()),
        }
    }
}

fn report(name: &str, stats: &Stats, disk: Option<&Disk>) {
    let counts = disk.map(Disk::counts);
    println!("{name}: {stats:?} {counts:?}");
}

#[test]
fn memory_keeps_the_contract() {
    let operations = from_environment("KEELSON_MODEL_OPERATIONS", 200_000);
    let plan = Plan { seed: seed(), operations, faults_every: 0 };
    let stats = Driver::run(&mut Memory(MemoryStore::new()), plan).unwrap();
    report("memory", &stats, None);
    assert!(stats.events > operations / 20 && stats.expired > 0);
}

#[test]
fn sqlite_with_threads_keeps_the_contract() {
    let operations = from_environment("KEELSON_MODEL_OPERATIONS", 400_000) / 40;
    let plan = Plan { seed: seed(), operations, faults_every: 0 };
    let stats = Driver::run(&mut Threads::new(), plan).unwrap();
    report("sqlite with threads", &stats, None);
    assert!(stats.reopens > 5 && stats.events > operations / 20);
}

/// The bar: a million operations and a thousand crashes.
#[test]
fn sqlite_keeps_the_contract_through_crashes_and_faults() {
    let operations = from_environment("KEELSON_MODEL_OPERATIONS", 1_000_000);
    let share = operations / 4;
    let mut sum = (0, 0);
    for part in 0..4 {
        let seed = seed() * 1000 + part;
        let faults = if part < 2 { Faults::Crashes } else { Faults::All };
        let mut backend = Faulty::new(seed, Mutant::None, faults);
        let plan = Plan { seed, operations: share, faults_every: 1200 };
        let stats = Driver::run(&mut backend, plan).unwrap();
        report("sqlite", &stats, Some(backend.disk()));
        sum = (sum.0 + stats.operations, sum.1 + backend.disk().counts().crashes);
    }
    println!("sqlite: {} operations, {} crashes", sum.0, sum.1);
    assert!(sum.0 >= operations && sum.1 >= operations / 1000, "{sum:?}");
}

/// A short run with everything in it, cut at every single write, sync, truncation and deletion it makes.
#[test]
fn sqlite_keeps_the_contract_wherever_it_is_cut() {
    let plan = Plan { seed: seed(), operations: 500, faults_every: 0 };
    let mut whole = Faulty::new(seed(), Mutant::None, Faults::Crashes);
    let stats = Driver::run(&mut whole, plan).unwrap();
    let changes = whole.disk().counts().changes();
    report("sqlite, uncut", &stats, Some(whole.disk()));
    assert!(changes > 300 && stats.compactions > 0, "{changes}");
    // The seed of the disk differs from cut to cut: other sectors survive. The first changes are those of the first open.
    for cut in 1..changes {
        let mut backend = Faulty::new(cut, Mutant::None, Faults::Crashes);
        backend.disk().crash_after(cut);
        let plan = Plan { faults_every: u64::MAX, ..plan };
        Driver::run(&mut backend, plan).unwrap_or_else(|violation| panic!("cut at {cut}: {violation}"));
    }
    println!("sqlite: cut at {changes} places");
}

/// The first start is cut at every place too: the next one begins with an empty store.
#[test]
fn sqlite_begins_wherever_its_first_start_is_cut() {
    let mut cut = 1;
    loop {
        let disk = Disk::new(cut);
        let site = FaultSite { disk: disk.clone(), reserve: 1 << 10, mutant: Mutant::None };
        disk.crash_after(cut);
        if let Ok(store) = SqliteStore::open_inline(site.clone()) {
            store.end_inline(false).expect("ends");
            if !disk.crashed() {
                break;
            }
        }
        disk.reboot();
        let store = SqliteStore::open_inline(site).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let mut backend = Faulty {
            store: Some(store),
            site: FaultSite { disk, reserve: 1 << 10, mutant: Mutant::None },
            faults: Faults::Crashes,
            reader: None,
            tended: 0,
        };
        backend.examine(None).unwrap();
        let plan = Plan { seed: cut, operations: 50, faults_every: 0 };
        Driver::run(&mut backend, plan).unwrap_or_else(|violation| panic!("cut at {cut}: {violation}"));
        cut += 1;
    }
    assert!(cut > 5, "{cut}");
}

/// Mutants must be caught, each by the check that is meant for it.
fn caught(mutant: Mutant, faults: Faults) -> String {
    for seed in 1..50 {
        let mut backend = Faulty::new(seed, mutant, faults);
        let plan = Plan { seed, operations: 20_000, faults_every: 400 };
        if let Err(violation) = Driver::run(&mut backend, plan) {
            println!("{mutant:?}: {violation}");
            return violation;
        }
    }
    panic!("{mutant:?} was not caught");
}

#[test]
fn the_suite_catches_synchronous_normal() {
    assert!(caught(Mutant::SynchronousNormal, Faults::Crashes).contains("acknowledged write lost"));
}

#[test]
fn the_suite_catches_answers_before_the_fsync() {
    let violation = caught(Mutant::AnswersEarly, Faults::Crashes);
    assert!(violation.contains("acknowledged write lost") || violation.contains("took back"), "{violation}");
}

#[test]
fn the_suite_catches_a_compaction_of_live_rows() {
    let violation = caught(Mutant::CompactsLive, Faults::Crashes);
    println!("{violation}");
}

/// After a failed fsync the page cache may show what the disk will never get: recovery must not build on it.
#[test]
fn the_suite_catches_a_recovery_that_trusts_a_failed_fsync() {
    let violation = caught(Mutant::LeavesWalInDoubt, Faults::All);
    assert!(
        violation.contains("lost") || violation.contains("damaged") || violation.contains("took"),
        "{violation}"
    );
}

/// Nor may the end of a store that has failed copy what is left of the WAL and delete it.
#[test]
fn the_suite_catches_a_copy_at_the_end_of_a_failed_store() {
    let violation = caught(Mutant::CopiesAtClose, Faults::All);
    // The newest commit, or a page of anything.
    assert!(
        ["lost", "damaged", "expected Committed"].iter().any(|sign| violation.contains(sign)),
        "{violation}"
    );
}
