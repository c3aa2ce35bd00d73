//! exec, attach, cp, logs and port-forward through an unmodified kubectl, in each protocol that it speaks.

use keelson_tests::{Cluster, Said, run};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

const NS: &str = "two-tier";

/// What kubectl speaks: SPDY/3.1 as before 1.31, or WebSocket (v5 channels for exec and attach, SPDY/3.1 tunnelled in
/// it for port-forward).
const PROTOCOLS: [(&str, &str); 2] = [("SPDY", "false"), ("WebSocket", "true")];

fn speaking(command: &mut Command, websocket: &str) {
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket);
}

/// Runs kubectl to its end, speaking one protocol.
fn said(cluster: &Cluster, websocket: &str, line: &[&str], input: &[u8]) -> Said {
    let mut command = cluster.command(line);
    speaking(&mut command, websocket);
    keelson_tests::run_with_input(&mut command, input)
}

/// Starts a pod of the redis image that runs `script`, and waits until it is ready. It goes when the guard does.
fn pod<'a>(cluster: &'a Cluster, name: &'a str, more: &str, script: &str) -> Pod<'a> {
    let script = script.replace('\'', "''");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {NS}}}\nspec:\n  restartPolicy: Never\n\
         \x20 terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: keelson.dev/sample-redis:1\n\
         \x20   command: [sh, -c, '{script}']\n{more}"
    ));
    cluster
        .kubectl(&["-n", NS, "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"])
        .ok();
    Pod { cluster, name }
}

struct Pod<'a> {
    cluster: &'a Cluster,
    name: &'a str,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        self.cluster.kubectl(&["-n", NS, "delete", "pod", self.name, "--now", "--wait=false"]);
    }
}

/// Ends kubectl with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn kubectl_speaks_what_it_is_told_to() {
    let Some(cluster) = Cluster::find("protocols of exec") else { return };
    let line = ["-v=8", "-n", NS, "exec", "deployment/web", "--", "true"];
    for (name, websocket, sign) in [("SPDY", "false", "spdy/3.1"), ("WebSocket", "true", "sec-websocket")] {
        let said = said(&cluster, websocket, &line, b"");
        assert_eq!(said.code, 0, "{name}: {said:?}");
        assert!(said.err.to_lowercase().contains(sign), "{name}: {}", said.err);
    }
}

#[test]
fn exec_brings_exit_codes_and_ends_piped_input() {
    let Some(cluster) = Cluster::find("exec") else { return };
    let web = ["-n", NS, "exec", "deployment/web", "--"];
    for (name, websocket) in PROTOCOLS {
        let line = [&web[..], &["sh", "-c", "echo out; echo err >&2; exit 3"]].concat();
        let code = said(&cluster, websocket, &line, b"");
        assert_eq!((code.code, code.out.as_str()), (3, "out\n"), "{name}: {code:?}");
        assert!(code.err.starts_with("err\n"), "{name}: {code:?}");
        // `wc` ends only when its input does: the half-close must arrive.
        let input = vec![b'x'; 1_000_000];
        let line = ["-n", NS, "exec", "-i", "deployment/web", "--", "wc", "-c"];
        let counted = said(&cluster, websocket, &line, &input);
        assert_eq!((counted.code, counted.out.trim()), (0, "1000000"), "{name}: {counted:?}");
        let missing = said(&cluster, websocket, &[&web[..], &["/no/such"]].concat(), b"");
        assert!(missing.code != 0 && missing.err.contains("/no/such"), "{name}: {missing:?}");
    }
}

#[test]
fn a_terminal_has_the_size_of_the_clients_and_follows_it() {
    let Some(cluster) = Cluster::find("exec -it") else { return };
    for (name, websocket) in PROTOCOLS {
        let line = [
            "-n",
            NS,
            "exec",
            "-it",
            "deployment/web",
            "--",
            "sh",
            "-c",
            "until [ \"$(stty size)\" = \"33 77\" ]; do sleep 0.1; done; test -t 0 && echo terminal; \
                 while [ \"$(stty size)\" = \"33 77\" ]; do sleep 0.1; done; stty size; exit 5",
        ];
        let mut kubectl = format!("{:?}", cluster.command(&[]).get_program());
        for argument in cluster.command(&line).get_args() {
            kubectl.push_str(&format!(" '{}'", argument.to_string_lossy()));
        }
        // `script` makes the terminal; its size changes while the command runs.
        let wrapped =
            format!("T=$(tty); stty rows 33 cols 77; (sleep 3; stty rows 44 cols 88 <$T) & {kubectl}");
        let mut command = Command::new("timeout");
        command.args(["60", "script", "--quiet", "--return", "--command", &wrapped, "/dev/null"]);
        speaking(&mut command, websocket);
        let seen = keelson_tests::run_with_input(&mut command, b"");
        let out = seen.out.replace('\r', "");
        assert_eq!(seen.code, 5, "{name}: {seen:?}");
        assert!(out.contains("terminal\n44 88\n"), "{name}: {out:?}");
    }
}

#[test]
fn several_clients_attach_to_one_process() {
    let Some(cluster) = Cluster::find("attach") else { return };
    for (name, websocket) in PROTOCOLS {
        let pod_name = format!("attached-{}", name.to_lowercase());
        let _pod = pod(&cluster, &pod_name, "    stdin: true\n", "while read line; do echo got $line; done");
        let attach = |input: bool| {
            let line: &[&str] =
                if input { &["-n", NS, "attach", "-i", &pod_name] } else { &["-n", NS, "attach", &pod_name] };
            let mut command = cluster.command(line);
            speaking(&mut command, websocket);
            let stdin = if input { Stdio::piped() } else { Stdio::null() };
            Running(command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
        };
        let (mut watcher, mut typist) = (attach(false), attach(true));
        let mut lines = BufReader::new(watcher.0.stdout.take().unwrap()).lines();
        let mut own = BufReader::new(typist.0.stdout.take().unwrap()).lines();
        let mut stdin = typist.0.stdin.take().unwrap();
        // Both are attached once a line comes back to both.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let typing = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(Duration::from_millis(200)) {
                if stdin.write_all(b"hello\n").is_err() {
                    break;
                }
            }
        });
        for reader in [&mut lines, &mut own] {
            let line = reader.find(|line| line.as_ref().is_ok_and(|line| line == "got hello"));
            assert!(line.is_some(), "{name}: an attached client saw nothing");
        }
        drop(stop);
        typing.join().unwrap();
    }
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
    for (name, websocket) in PROTOCOLS {
        let begun = Instant::now();
        said(&cluster, websocket, &["cp", &sent.to_string_lossy(), &remote], b"").ok();
        let there = begun.elapsed();
        said(&cluster, websocket, &["cp", &remote, &back.to_string_lossy()], b"").ok();
        println!("{name}: 100 MB there {there:.1?}, back {:.1?}", begun.elapsed() - there);
        assert!(std::fs::read(&back).unwrap() == bytes, "{name}: the file came back changed");
        cluster.kubectl(&["-n", NS, "exec", &pod, "--", "rm", "/data/big"]).ok();
        std::fs::remove_file(&back).unwrap();
    }
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

/// Forwards a free local port to the pod's; answers the local one.
fn forward(cluster: &Cluster, websocket: &str, target: &str, port: u16) -> (Running, u16) {
    let mut command = cluster.command(&["-n", NS, "port-forward", target, &format!(":{port}")]);
    speaking(&mut command, websocket);
    let mut child = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let line = lines.next().expect("kubectl says where it listens").unwrap();
    let local =
        line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    // kubectl must not find its output closed.
    std::thread::spawn(move || lines.for_each(drop));
    (child, local)
}

#[test]
fn port_forward_carries_requests() {
    let Some(cluster) = Cluster::find("port-forward") else { return };
    for (name, websocket) in PROTOCOLS {
        let (_kubectl, port) = forward(&cluster, websocket, "deployment/web", 8080);
        for _ in 0..5 {
            let url = format!("http://127.0.0.1:{port}/healthz");
            let said = run("curl", &["-sS", "--fail", "--max-time", "10", "--noproxy", "*", &url]);
            assert_eq!((said.code, said.out.as_str()), (0, "ok\n"), "{name}: {said:?}");
        }
    }
}

/// A server that counts what comes until its end and only then answers: the client's half-close must arrive, and the
/// answer after it. Its size comes back behind 1 MB, so that neither direction fits into a buffer.
#[test]
fn a_forwarded_connection_is_closed_one_way_at_a_time() {
    let Some(cluster) = Cluster::find("half-closed port-forward") else { return };
    let server = "exec perl -MIO::Socket -e \"\\$s = IO::Socket::INET->new(LocalPort => 7000, Listen => 5, ReuseAddr => 1) or die; \
                  while (\\$c = \\$s->accept) {{ \\$n = 0; while (\\$r = sysread(\\$c, \\$b, 65536)) {{ \\$n += \\$r }} \
                  print \\$c chr(120) x 1000000, \\$n; close \\$c }}\"";
    let server = server.replace("{{", "{").replace("}}", "}");
    let probe = "    readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}\n";
    let _pod = pod(&cluster, "counts", probe, &server);
    for (name, websocket) in PROTOCOLS {
        let (_kubectl, port) = forward(&cluster, websocket, "pod/counts", 7000);
        for size in [0usize, 1, 3_000_000] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                writer.write_all(&vec![b'y'; size]).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{name}, {size} bytes: {error}"));
            writing.join().unwrap();
            assert!(answer.len() > 1_000_000, "{name}, {size} bytes: only {} came back", answer.len());
            assert_eq!(String::from_utf8_lossy(&answer[1_000_000..]), size.to_string(), "{name}");
        }
    }
}

/// Pages of a pod and of a Service through the API server, as `kubectl get --raw` asks for them.
#[test]
fn pages_through_the_proxy() {
    let Some(cluster) = Cluster::find("proxy subresources") else { return };
    let pod = cluster
        .kubectl(&["-n", NS, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}"])
        .ok();
    let node = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]).ok();
    let base = format!("/api/v1/namespaces/{NS}");
    for place in ["pods/http:{pod}:8080", "pods/{pod}:8080", "services/web:80", "services/http:web:80"] {
        let place = place.replace("{pod}", &pod);
        let page = cluster.kubectl(&["get", "--raw", &format!("{base}/{place}/proxy/healthz")]).ok();
        assert_eq!(page, "ok\n", "{place}");
    }
    let missing = cluster.kubectl(&["get", "--raw", &format!("{base}/services/web:1/proxy/")]);
    assert!(missing.code != 0 && missing.err.contains("no service port 1 found"), "{missing:?}");
    let health = cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/healthz")]).ok();
    assert_eq!(health, "ok");
    let logs = cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}:10250/proxy/pods")]).ok();
    assert!(logs.contains(&pod));
}
