//! Figures of the kubelet over the runtime's own: `cargo test -p keelson-kubelet --test figures -- --ignored --nocapture`.
//! They print, they do not judge: the machine's load decides too much.
mod common;

use common::*;
use keelson_kubelet::cri::api;
use serde_json::json;
use std::time::{Duration, Instant};

fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// The three calls a pod cannot do without.
async fn raw(lab: &Lab, name: &str) -> (Duration, String) {
    let cri = &lab.kubelet().kubelet.cri;
    let sandbox = api::PodSandboxConfig {
        metadata: Some(api::PodSandboxMetadata { name: name.into(), uid: name.into(), namespace: "raw".into(), attempt: 0 }),
        log_directory: lab.containerd.folder().join("raw-logs").display().to_string(),
        linux: Some(api::LinuxPodSandboxConfig {
            cgroup_parent: format!("/{}/raw", lab.config.cgroup_root),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = api::ContainerConfig {
        metadata: Some(api::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(api::ImageSpec { image: keelson_testkit::containerd::BUSYBOX.into(), ..Default::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), STAY.into()],
        log_path: format!("{name}.log"),
        linux: Some(api::LinuxContainerConfig::default()),
        ..Default::default()
    };
    let begun = Instant::now();
    let id = cri.run_sandbox(sandbox.clone(), "").await.unwrap();
    let c = cri.create_container(&id, container, sandbox).await.unwrap();
    cri.start_container(&c).await.unwrap();
    (begun.elapsed(), id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    if !possible() {
        return;
    }
    let lab = Lab::start().await;
    std::fs::create_dir_all(lab.containerd.folder().join("raw-logs")).unwrap();
    let (mut ours, mut floor, mut ratios) = (vec![], vec![], vec![]);
    for i in 0..15 {
        let (raw_time, id) = raw(&lab, &format!("raw{i}")).await;
        let begun = Instant::now();
        let pod = lab.run(&format!("p{i}"), json!({"volumes": [{"name": "e", "emptyDir": {}}], "containers": [with(shell("c", STAY), json!({
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}, "volumeMounts": [{"name": "e", "mountPath": "/e"}]}))]}));
        while !pod.view().is_some_and(|v| status(&v, "c").ready) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let own = begun.elapsed();
        ratios.push(own.as_secs_f64() / raw_time.as_secs_f64());
        ours.push(own);
        floor.push(raw_time);
        pod.delete(1).await;
        lab.kubelet().kubelet.cri.stop_sandbox(&id).await.unwrap();
        lab.kubelet().kubelet.cri.remove_sandbox(&id).await.unwrap();
    }
    ratios.sort_by(f64::total_cmp);
    println!("pod start p50 {:?}, raw CRI p50 {:?}, median ratio {:.2}", median(ours), median(floor), ratios[ratios.len() / 2]);

    let begun = Instant::now();
    let raws = futures::stream::StreamExt::collect::<Vec<_>>(futures::stream::StreamExt::buffer_unordered(
        futures::stream::iter((0..24).map(|i| raw(&lab, Box::leak(format!("b{i}").into_boxed_str())))),
        6,
    ))
    .await;
    let raw_rate = 24.0 / begun.elapsed().as_secs_f64();
    for (_, id) in raws {
        lab.kubelet().kubelet.cri.remove_sandbox(&id).await.unwrap();
    }
    let begun = Instant::now();
    let burst: Vec<_> = (0..24).map(|i| lab.run(&format!("burst{i}"), json!({"containers": [shell("c", STAY)]}))).collect();
    for pod in &burst {
        pod.running().await;
    }
    println!("burst {:.1} pods/s, raw {raw_rate:.1} pods/s", 24.0 / begun.elapsed().as_secs_f64());
    let begun = (Instant::now(), cpu_time());
    tokio::time::sleep(Duration::from_secs(30)).await;
    let used = (cpu_time() - begun.1).as_secs_f64() / begun.0.elapsed().as_secs_f64() * 100.0;
    println!("idle with 24 pods: {used:.2} % of a core");
    lab.finish().await;
}
