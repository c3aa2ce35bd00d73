//! exec, cp, logs and port-forward through an unmodified kubectl.

use keelson_tests::{Cluster, eventually, run};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

const NS: &str = "two-tier";

#[test]
fn exec_brings_exit_codes_and_ends_piped_input() {
    let Some(cluster) = Cluster::find("exec") else { return };
    let web = ["-n", NS, "exec", "deployment/web", "--"];
    let said = cluster.kubectl(&[&web[..], &["sh", "-c", "echo out; echo err >&2; exit 3"]].concat());
    assert_eq!((said.code, said.out.as_str()), (3, "out\n"), "{said:?}");
    assert!(said.err.starts_with("err\n"), "{said:?}");
    // `wc` ends only when its input does: the half-close must arrive.
    let input = vec![b'x'; 1_000_000];
    let line = ["-n", NS, "exec", "-i", "deployment/web", "--", "wc", "-c"];
    let said = cluster.kubectl_with_input(&line, &input);
    assert_eq!(said.ok().trim(), "1000000");
}

#[test]
fn cp_is_byte_equal_both_ways() {
    let Some(cluster) = Cluster::find("cp") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (sent, back) = (folder.path().join("sent"), folder.path().join("back"));
    let pod = cluster
        .kubectl(&["-n", NS, "get", "pods", "-l", "app=redis", "-o", "jsonpath={.items[0].metadata.name}"])
        .ok();
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let bytes: Vec<u8> = (0..100_000_000 / 8)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    std::fs::write(&sent, &bytes).unwrap();
    let remote = format!("{NS}/{pod}:/data/big");
    cluster.kubectl(&["cp", &sent.to_string_lossy(), &remote]).ok();
    cluster.kubectl(&["cp", &remote, &back.to_string_lossy()]).ok();
    assert!(std::fs::read(&back).unwrap() == bytes, "the file came back changed");
    cluster.kubectl(&["-n", NS, "exec", &pod, "--", "rm", "/data/big"]).ok();
}

#[test]
fn logs_follow_as_lines_come() {
    let Some(cluster) = Cluster::find("logs -f") else { return };
    cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: ticker, namespace: two-tier}\nspec:\n  restartPolicy: Never\n\
         \x20 terminationGracePeriodSeconds: 0\n  containers:\n  - {name: c, image: 'keelson.dev/sample-redis:1', command: [sh, -c, 'for n in 1 2 3 4 5; do echo tick $n; sleep 1; done']}\n",
    );
    cluster.kubectl(&["-n", NS, "wait", "--for=condition=Ready", "pod/ticker", "--timeout=60s"]).ok();
    let mut child =
        cluster.command(&["-n", NS, "logs", "-f", "ticker"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> =
        BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(lines, (1..=5).map(|n| format!("tick {n}")).collect::<Vec<_>>());
    let tail = cluster.kubectl(&["-n", NS, "logs", "ticker", "--tail=1", "--timestamps"]).ok();
    assert!(tail.trim().ends_with("Z tick 5"), "{tail}");
    cluster.kubectl(&["-n", NS, "delete", "pod", "ticker"]).ok();
}

#[test]
fn port_forward_carries_requests() {
    let Some(cluster) = Cluster::find("port-forward") else { return };
    let mut child = cluster
        .command(&["-n", NS, "port-forward", "deployment/web", "18080:8080"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let page = eventually(Duration::from_secs(20), "forwarded page", || {
        let said = run(
            "curl",
            &["-sS", "--fail", "--max-time", "3", "--noproxy", "*", "http://127.0.0.1:18080/healthz"],
        );
        if said.code == 0 { Ok(said.out) } else { Err(said.err) }
    });
    assert_eq!(page, "ok\n");
    child.kill().unwrap();
    child.wait().unwrap();
}
