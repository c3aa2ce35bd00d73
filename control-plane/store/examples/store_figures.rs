//! Prints the store's figures beside those of plain SQLite: `cargo run --release --example store_figures -- FOLDER`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_store::{Expect, SqliteOptions, SqliteStore, Store, Transaction, Write, floor};
use nix::sys::resource::{UsageWho, getrusage};

fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

fn line(name: &str, mut times: Vec<Duration>) {
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("{name}\tp50 {p50:.3} ms\tp99 {p99:.3} ms");
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("rusage");
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec() as u64) + Duration::from_micros(value.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn create(key: String, value: &Bytes) -> Transaction {
    let guards = vec![(key.clone(), Expect::Absent)];
    Transaction { guards, writes: vec![Write::Put { key, value: value.clone() }] }
}

/// `clients` at once, each with one request under way, `each` creates apiece.
async fn creates(store: &Arc<SqliteStore>, name: &str, clients: usize, each: usize, value: &Bytes) {
    let (began, cpu_began) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (store, value, name) = (store.clone(), value.clone(), name.to_owned());
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(each);
                for n in 0..each {
                    let began = Instant::now();
                    let key = format!("/registry/configmaps/default/{name}-{client}-{n}");
                    store.commit(create(key, &value)).await.expect("commits");
                    times.push(began.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a task"));
    }
    let (count, wall, used) = (times.len() as f64, began.elapsed().as_secs_f64(), cpu() - cpu_began);
    line(&format!("store_{name}_{clients}_clients"), times);
    println!(
        "store_{name}_per_s\t{:.0}\tcpu {:.1} us a commit",
        count / wall,
        used.as_secs_f64() * 1e6 / count
    );
}

#[tokio::main]
async fn main() {
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder to measure in"));
    let scratch = folder.join("store-figures");
    std::fs::create_dir_all(&scratch).expect("the folder can be written");
    let raw = |name: &str, transactions, rows| {
        let began = Instant::now();
        let times = floor::raw_commits(&scratch, transactions, rows, 1024).expect("raw commits");
        println!("{name}_per_s\t{:.0}", (transactions * rows) as f64 / began.elapsed().as_secs_f64());
        line(name, times);
    };
    raw("raw_one_row", 2000, 1);
    raw("raw_32_rows", 1000, 32);
    let store = Arc::new(SqliteStore::open(SqliteOptions::new(scratch.join("store"))).expect("opens"));
    let value = Bytes::from(format!(r#"{{"p":"{}"}}"#, "x".repeat(1016)));
    creates(&store, "alone", 1, 2000, &value).await;
    creates(&store, "group", 32, 1000, &value).await;
    let began = Instant::now();
    let page = store.list("/registry/", None, 0, None).await.expect("lists");
    println!("list_of_{}\t{:.1} ms", page.entries.len(), began.elapsed().as_secs_f64() * 1e3);
    store.close().await.expect("ends");
    std::fs::remove_dir_all(&scratch).expect("can be removed");
}
