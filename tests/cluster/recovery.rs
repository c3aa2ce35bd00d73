//! What survives: the process killed, and restarted in order.

use keelson_tests::{Cluster, eventually, run};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const NS: &str = "two-tier";
/// As many kills as belong on every change; KEELSON_KILLS asks for more.
const KILLS: usize = 5;

/// Kills keelson and starts it again with the same configuration, as a supervisor would.
struct Keelson {
    binary: std::path::PathBuf,
    config: std::path::PathBuf,
    log: std::path::PathBuf,
    pid_file: std::path::PathBuf,
}

impl Keelson {
    fn of(cluster: &Cluster) -> Keelson {
        let places = &cluster.places;
        let pid = std::fs::read_to_string(places.keelson_pid()).unwrap();
        let pid = pid.split_whitespace().next().unwrap().to_owned();
        let binary = std::fs::read_link(Path::new("/proc").join(&pid).join("exe")).unwrap();
        Keelson { binary, config: places.config(), log: places.log(), pid_file: places.keelson_pid() }
    }

    fn kill(&self) {
        let text = std::fs::read_to_string(&self.pid_file).unwrap();
        let pid = text.split_whitespace().next().unwrap();
        assert_eq!(run("kill", &["-KILL", pid]).code, 0);
        eventually(Duration::from_secs(5), "the process ends", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        });
    }

    fn start(&self) {
        let log = std::fs::File::options().append(true).create(true).open(&self.log).unwrap();
        let child = Command::new(&self.binary)
            .args(["all-in-one", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
        std::fs::write(&self.pid_file, format!("{} {started}\n", child.id())).unwrap();
        // Whoever reaps it: a killed one stays a zombie of this test until the test ends.
        drop(child);
    }
}

/// Pod uid, container restarts and start times: they must be the same afterwards.
fn containers(cluster: &Cluster) -> BTreeSet<String> {
    let path = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[*].restartCount} \
                {.status.containerStatuses[*].state.running.startedAt}{\"\\n\"}{end}";
    let out = cluster.kubectl(&["-n", NS, "get", "pods", "-o", path]).ok();
    out.lines().map(str::to_owned).collect()
}

/// Four writers; the kill comes in the midst of them, after a few answers. Returns what was acknowledged.
fn write_until_killed(cluster: &Cluster, keelson: &Keelson, round: usize) -> Vec<String> {
    const WRITERS: usize = 4;
    let answered = AtomicUsize::new(0);
    let write = |writer: usize| {
        let mut names = Vec::new();
        loop {
            let name = format!("written-{round}-{writer}-{}", names.len());
            if cluster.kubectl(&["-n", NS, "create", "configmap", &name, "--from-literal=a=b"]).code != 0 {
                return names;
            }
            answered.fetch_add(1, Ordering::Relaxed);
            names.push(name);
        }
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let write = &write;
                scope.spawn(move || write(writer))
            })
            .collect();
        let wanted = 5 + 3 * (round % 5);
        eventually(Duration::from_secs(30), "writes are answered", || {
            let count = answered.load(Ordering::Relaxed);
            if count >= wanted { Ok(()) } else { Err(count.to_string()) }
        });
        keelson.kill();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer panicked")).collect()
    })
}

#[test]
fn kill_9_loses_no_acknowledged_write_no_container_and_no_request() {
    let Some(cluster) = Cluster::find("kill -9") else { return };
    let keelson = Keelson::of(&cluster);
    let kills = std::env::var("KEELSON_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let address =
        cluster.kubectl(&["-n", NS, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let url = format!("http://{address}/healthz");
    let before = containers(&cluster);
    let mut acknowledged = Vec::new();
    for round in 0..kills {
        acknowledged.extend(write_until_killed(&cluster, &keelson, round));
        let served = run("curl", &["-sS", "--fail", "--max-time", "3", "--noproxy", "*", &url]);
        assert_eq!(served.code, 0, "no answer through the Service while keelson is down: {served:?}");
        keelson.start();
        eventually(Duration::from_secs(20), "the API server answers again", || {
            let said = cluster.kubectl(&["get", "--raw", "/readyz"]);
            if said.code == 0 { Ok(()) } else { Err(said.err) }
        });
        let served = run("curl", &["-sS", "--fail", "--max-time", "3", "--noproxy", "*", &url]);
        assert_eq!(served.code, 0, "no answer through the Service after a restart: {served:?}");
    }
    let listed = cluster.kubectl(&["-n", NS, "get", "configmaps", "-o", "name"]).ok();
    let there: BTreeSet<&str> = listed.lines().filter_map(|line| line.strip_prefix("configmap/")).collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|name| !there.contains(name.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(acknowledged.len() > kills, "too few writes to tell anything: {}", acknowledged.len());
    assert_eq!(containers(&cluster), before, "containers changed");
    for name in acknowledged {
        cluster.kubectl(&["-n", NS, "delete", "configmap", &name, "--wait=false"]).ok();
    }
}

/// Requests through the Service, one after the other, until told to stop; what failed.
fn ask_until(stop: &AtomicBool, url: &str) -> (usize, Vec<String>) {
    let (mut asked, mut failed) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        let said = run("curl", &["-sS", "--fail", "--max-time", "3", "--noproxy", "*", url]);
        asked += 1;
        if said.code != 0 {
            failed.push(said.err);
        }
    }
    (asked, failed)
}

/// Starts the containerd that was killed with its own command line, as a supervisor would.
fn start_again(cluster: &Cluster, command: &[String]) {
    let log = cluster.places.data.join("logs/containerd.log");
    let log = std::fs::File::options().append(true).create(true).open(log).unwrap();
    let child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
    std::fs::write(cluster.places.containerd_pid(), format!("{} {started}\n", child.id())).unwrap();
}

#[test]
fn kill_9_of_containerd_stops_no_pod_and_the_kubelet_recovers() {
    const RECOVERY: Duration = Duration::from_secs(10);
    let Some(cluster) = Cluster::find("kill -9 of containerd") else { return };
    let Ok(pid) = std::fs::read_to_string(cluster.places.containerd_pid()) else {
        println!(
            "SKIPPED: kill -9 of containerd: the machine's own containerd is used, which is not ours to kill"
        );
        return;
    };
    let pid = pid.split_whitespace().next().unwrap().to_owned();
    let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let command: Vec<String> =
        command.split('\0').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let address =
        cluster.kubectl(&["-n", NS, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"]).ok();
    let url = format!("http://{address}/healthz");
    let before = containers(&cluster);
    let stop = AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_until(&stop, &url));
        assert_eq!(run("kill", &["-KILL", &pid]).code, 0);
        eventually(Duration::from_secs(5), "containerd ends", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
        });
        // A while without a runtime, seen by the kubelet: what it asks for fails.
        let exec = ["-n", NS, "exec", "deployment/web", "--", "true"];
        assert_ne!(cluster.kubectl(&exec).code, 0, "exec without a runtime");
        start_again(&cluster, &command);
        let begun = std::time::Instant::now();
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: after, namespace: two-tier}\nspec:\n  terminationGracePeriodSeconds: 0\n\
                   \x20 containers: [{name: c, image: 'keelson.dev/pause:1'}]\n";
        cluster.apply(pod);
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        eventually(RECOVERY, "a new pod runs and exec works", || {
            let said = cluster.kubectl(&["-n", NS, "get", "pod", "after", "-o", ready]).out;
            let code = cluster.kubectl(&exec).code;
            if said == "True" && code == 0 { Ok(()) } else { Err(format!("Ready {said:?}, exec {code}")) }
        });
        println!("recovered after {:.1} s", begun.elapsed().as_secs_f64());
        let path = "jsonpath={.items[0].status.conditions[?(@.type==\"Ready\")].status}";
        assert_eq!(cluster.kubectl(&["get", "nodes", "-o", path]).ok(), "True");
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("no panic")
    });
    cluster.kubectl(&["-n", NS, "delete", "pod", "after"]).ok();
    assert!(asked > 20, "only {asked} requests");
    assert!(failed.is_empty(), "{} of {asked} requests failed: {:?}", failed.len(), failed.first());
    assert_eq!(containers(&cluster), before, "containers changed");
}
