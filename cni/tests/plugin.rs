//! The plugin in real namespaces: what ADD makes carries packets, and no crash leaves anything behind.
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use keelson_cni::plugin::Step;
use keelson_cni::{Environment, run};
use keelson_sys::netns::{Netns, unshare_net};
use keelson_sys::rtnl::{Batch, Rtnl};
use keelson_sys::sysctl;
use serde_json::{Value, json};

/// A network namespace kept alive by a parked thread.
struct Namespace {
    path: String,
    _stop: mpsc::SyncSender<()>,
}

fn namespace() -> Namespace {
    let (told, path) = mpsc::sync_channel(1);
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        unshare_net().expect("kernel tests need root");
        let tid = nix::unistd::gettid();
        told.send(format!("/proc/{}/task/{tid}/ns/net", std::process::id())).expect("told");
        let _ = stopped.recv();
    });
    Namespace { path: path.recv().expect("path"), _stop: stop }
}

/// Runs a test as a host of its own: fresh network namespace, forwarding on, one lease folder.
fn host(test: impl FnOnce(&str) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_net().expect("kernel tests need root");
            let mut rtnl = Rtnl::open().expect("rtnetlink");
            Batch::new().set_up_by_name("lo").send(&mut rtnl).expect("lo");
            sysctl::ensure("net/ipv4/ip_forward", "1").expect("forwarding");
            sysctl::ensure("net/ipv6/conf/all/forwarding", "1").expect("forwarding");
            let folder = tempfile::tempdir().expect("folder");
            test(folder.path().to_str().expect("path"));
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn conf(folder: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "keelson", "type": "keelson-cni", "dataDir": folder,
           "podCIDRs": ["10.244.7.0/24", "fd00:7::/64"]})
}
fn env(command: &str, id: &str, netns: &str) -> Environment {
    Environment {
        command: command.into(),
        container_id: id.into(),
        netns: netns.into(),
        ifname: "eth0".into(),
    }
}
fn call(command: &str, id: &str, netns: &str, conf: &Value) -> Result<String, (u32, String)> {
    run(&env(command, id, netns), &conf.to_string(), &|_| {}).map_err(|f| (f.code, f.to_string()))
}
fn add(id: &str, netns: &str, conf: &Value) -> (IpAddr, IpAddr) {
    let text = call("ADD", id, netns, conf).expect("added");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    let ip = |n: usize| {
        let text = result["ips"][n]["address"].as_str().expect("address");
        text.split('/').next().expect("ip").parse().expect("ip")
    };
    (ip(0), ip(1))
}

/// Serves one connection in `netns` and returns what the server saw as its client, for a client in `from`.
fn greet(
    server: &Netns,
    listen: SocketAddr,
    from: Option<&Netns>,
    dial: SocketAddr,
) -> Result<IpAddr, String> {
    // A process that another test is just starting holds the socket of the time before until it has started.
    let begun = std::time::Instant::now();
    let listener = loop {
        match server.run(|| TcpListener::bind(listen)).expect("ns") {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && begun.elapsed().as_secs() < 5 => {
                std::thread::yield_now();
            }
            bound => break bound.map_err(|e| format!("bind: {e}"))?,
        }
    };
    let port = listener.local_addr().expect("bound").port();
    let dial = SocketAddr::new(dial.ip(), if dial.port() == 0 { port } else { dial.port() });
    std::thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let (mut stream, peer) = listener.accept().expect("accept");
            stream.write_all(b"hello").expect("write");
            peer.ip()
        });
        let connect = || TcpStream::connect_timeout(&dial, Duration::from_secs(2));
        let stream = match from {
            Some(netns) => netns.run(connect).expect("ns"),
            None => connect(),
        };
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(e) => {
                // Free the server's thread.
                server.run(|| TcpStream::connect((listen.ip(), port))).expect("ns").ok();
                serving.join().ok();
                return Err(e.to_string());
            }
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
        assert_eq!(text, "hello");
        Ok(serving.join().expect("served"))
    })
}

fn left_behind() -> Vec<String> {
    let links = Rtnl::open().and_then(|mut r| r.links()).expect("links");
    links.into_iter().map(|l| l.name).filter(|n| n.starts_with("kl")).collect()
}
fn leases(folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("{folder}/keelson")) else { return Vec::new() };
    entries
        .map(|e| e.expect("entry").file_name().into_string().expect("text"))
        .filter(|n| !n.starts_with('.'))
        .collect()
}
fn ports() -> usize {
    use keelson_sys::nft::{Field, SetData, SetSpec, batch, read_elements};
    let data = SetData::Value(vec![Field::Ipv4, Field::Port]);
    let spec = SetSpec::new("ports4", &[Field::Proto, Field::Port], data);
    let mut socket = batch::open().expect("socket");
    read_elements(&mut socket, "keelson-hostports", &spec).map(|e| e.len()).unwrap_or(0)
}

#[test]
fn pods_and_host_reach_each_other() {
    host(|folder| {
        let conf = conf(folder);
        let (a, b) = (namespace(), namespace());
        let (a4, a6) = add("pod-a", &a.path, &conf);
        let (b4, b6) = add("pod-b", &b.path, &conf);
        assert_eq!((a4.to_string(), b4.to_string()), ("10.244.7.2".into(), "10.244.7.3".into()));
        let (a, b) = (Netns::open(&a.path).expect("ns"), Netns::open(&b.path).expect("ns"));
        let here = Netns::current().expect("ns");
        for (pod_a, pod_b, gateway) in [(a4, b4, "10.244.7.1"), (a6, b6, "fd00:7::1")] {
            let gateway: IpAddr = gateway.parse().expect("ip");
            let at = |ip| SocketAddr::new(ip, 0);
            assert_eq!(greet(&a, at(pod_a), Some(&b), at(pod_a)), Ok(pod_b), "pod to pod");
            assert_eq!(greet(&a, at(pod_a), None, at(pod_a)), Ok(gateway), "host to pod");
            assert_eq!(greet(&here, at(gateway), Some(&a), at(gateway)), Ok(pod_a), "pod to host");
            assert_eq!(greet(&a, at(pod_a), Some(&a), at(pod_a)), Ok(pod_a), "pod to itself");
        }
        let lo: SocketAddr = "127.0.0.1:0".parse().expect("addr");
        assert!(greet(&a, lo, Some(&a), lo).is_ok(), "loopback is up");
    });
}

#[test]
fn commands_can_be_repeated_and_check_sees_damage() {
    host(|folder| {
        let mut conf = conf(folder);
        let pod = namespace();
        call("STATUS", "", "", &conf).expect("ready");
        let text = call("ADD", "pod", &pod.path, &conf).expect("added");
        conf["prevResult"] = serde_json::from_str(&text).expect("JSON");
        call("CHECK", "pod", &pod.path, &conf).expect("as it was left");
        // An ADD whose answer got lost is sent again by some runtimes: same address.
        let again: Value =
            serde_json::from_str(&call("ADD", "pod", &pod.path, &conf).expect("again")).expect("JSON");
        assert_eq!(again["ips"], conf["prevResult"]["ips"]);
        call("CHECK", "pod", &pod.path, &conf).expect("as it was left");
        let name = left_behind().pop().expect("interface");
        Batch::new().delete_link(&name).send(&mut Rtnl::open().expect("rtnl")).expect("deleted");
        let (code, text) = call("CHECK", "pod", &pod.path, &conf).expect_err("damaged");
        assert_eq!(code, 102, "{text}");
        for _ in 0..2 {
            call("DEL", "pod", &pod.path, &conf).expect("deleted");
            call("DEL", "pod", "", &conf).expect("without namespace");
        }
        assert_eq!((left_behind(), leases(folder)), (vec![], vec![]));
        assert_eq!(call("CHECK", "pod", &pod.path, &conf).expect_err("gone").0, 102);
        conf["podCIDRs"] = json!([]);
        assert_eq!(call("STATUS", "", "", &conf).expect_err("no range").0, 50);
        assert_eq!(call("ADD", "pod", &pod.path, &conf).expect_err("no range").0, 7);
        let own = format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid());
        conf["podCIDRs"] = json!(["10.244.7.0/24"]);
        assert_eq!(call("ADD", "pod", &own, &conf).expect_err("the host's own").0, 4);
        assert_eq!(call("ADD", "pod", "/nonexistent", &conf).expect_err("no namespace").0, 3);
        assert_eq!(leases(folder), Vec::<String>::new());
    });
}

#[test]
fn loopback_by_its_own_type() {
    host(|_| {
        let pod = namespace();
        let conf = json!({"cniVersion": "0.3.1", "name": "cni-loopback", "type": "loopback"});
        let lo = |command: &str| {
            let env = Environment { ifname: "lo".into(), ..env(command, "pod", &pod.path) };
            run(&env, &conf.to_string(), &|_| {})
        };
        assert_eq!(lo("CHECK").map_err(|f| f.code), Err(102));
        let result: Value = serde_json::from_str(&lo("ADD").expect("up")).expect("JSON");
        assert_eq!(
            (&result["ips"][0]["address"], &result["ips"][0]["version"]),
            (&json!("127.0.0.1/8"), &json!("4"))
        );
        lo("CHECK").expect("up");
        lo("DEL").expect("nothing to do");
    });
}

#[test]
fn garbage_collection_keeps_what_is_valid() {
    host(|folder| {
        let mut conf = conf(folder);
        let pods: Vec<Namespace> = (0..3).map(|_| namespace()).collect();
        for (n, pod) in pods.iter().enumerate() {
            add(&format!("pod-{n}"), &pod.path, &conf);
        }
        conf["cni.dev/valid-attachments"] = json!([{"containerID": "pod-1", "ifname": "eth0"}]);
        call("GC", "", "", &conf).expect("collected");
        assert_eq!(left_behind().len(), 1);
        let kept: Vec<String> = leases(folder);
        assert!(kept.len() == 2 && kept.iter().all(|l| l.contains("=pod-1=")), "{kept:?}");
    });
}

#[test]
fn host_ports_reach_the_pod_and_go_with_it() {
    host(|folder| {
        let mut conf = conf(folder);
        let mut rtnl = Rtnl::open().expect("rtnl");
        Batch::new().add_link("node0", "bridge").send(&mut rtnl).expect("dummy");
        let dummy = rtnl.link("node0").expect("read").expect("there").index;
        let node: IpAddr = "192.0.2.10".parse().expect("ip");
        Batch::new().set_up(dummy).add_address(dummy, node, 24).send(&mut rtnl).expect("address");
        let (a, b) = (namespace(), namespace());
        conf["runtimeConfig"] = json!({"portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8081, "containerPort": 80, "protocol": "TCP", "hostIP": "127.0.0.1"},
            {"hostPort": 8082, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.10"}]});
        let (a4, _) = add("pod-a", &a.path, &conf);
        let taken = call("ADD", "pod-b", &b.path, &conf).expect_err("taken");
        assert_eq!(taken.0, 101, "{}", taken.1);
        conf["runtimeConfig"] = json!({});
        let (b4, _) = add("pod-b", &b.path, &conf);
        let (a, b) = (Netns::open(&a.path).expect("ns"), Netns::open(&b.path).expect("ns"));
        let inside = SocketAddr::new(a4, 80);
        let node_port = |port| SocketAddr::new(node, port);
        assert_eq!(greet(&a, inside, None, node_port(8080)).map(|_| ()), Ok(()), "from the host");
        assert_eq!(greet(&a, inside, Some(&b), node_port(8080)), Ok(b4), "from a pod, its own address kept");
        assert!(greet(&a, inside, Some(&a), node_port(8080)).is_ok(), "from the pod itself");
        assert!(greet(&a, inside, None, node_port(8082)).is_ok());
        assert!(greet(&a, inside, None, node_port(8081)).is_err(), "only on loopback");
        let lo = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
        assert!(greet(&a, inside, None, lo(8081)).is_ok(), "loopback host port");
        assert!(greet(&a, inside, None, lo(8080)).is_err(), "not on loopback unless asked for");
        // The pod whose interface lets loopback sources out cannot use the host's loopback services.
        let here = Netns::current().expect("ns");
        let route = Command::new("nsenter").arg(format!("--net={}", a.path().display()))
            .args(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.99/32 via 10.244.7.1 dev eth0 table local; ip rule"])
            .output().expect("nsenter");
        assert!(route.status.success(), "{}", String::from_utf8_lossy(&route.stderr));
        let hidden = SocketAddr::new([127, 0, 0, 99].into(), 0);
        assert!(greet(&here, hidden, Some(&a), hidden).is_err(), "the host's loopback stays closed");
        assert_eq!(ports(), 1);
        call("DEL", "pod-a", "", &conf).expect("deleted");
        assert_eq!(ports(), 0);
    });
}

const STEP: &str = "KEELSON_CNI_TEST_STEP";

/// Not a test: the process that `killed_at_every_step` starts and that ends itself at a step.
#[test]
#[ignore = "helper process"]
fn child_that_dies() {
    let Ok(step) = std::env::var(STEP) else { return };
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).expect("stdin");
    let die = |at: Step| {
        if format!("{at:?}") == step {
            nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL).expect("kill");
        }
    };
    run(&Environment::from_process(), &input, &die).expect("step is reached first");
}

fn die_at(step: Step, command: &str, id: &str, netns: &str, conf: &Value) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "child_that_dies", "--ignored"])
        .envs([(STEP, format!("{step:?}").as_str()), ("CNI_COMMAND", command), ("CNI_CONTAINERID", id)])
        .envs([("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("child");
    child.stdin.take().expect("stdin").write_all(conf.to_string().as_bytes()).expect("input");
    let status = child.wait().expect("ended");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step:?}");
}

#[test]
fn killed_at_every_step() {
    host(|folder| {
        let mut conf = conf(folder);
        conf["runtimeConfig"] =
            json!({"portMappings": [{"hostPort": 9000, "containerPort": 80, "protocol": "tcp"}]});
        for step in [Step::Reserved, Step::Linked, Step::HostPorts] {
            // Killed ADD, then DEL: nothing is left.
            let pod = namespace();
            die_at(step, "ADD", "pod", &pod.path, &conf);
            assert!(!leases(folder).is_empty());
            call("DEL", "pod", &pod.path, &conf).expect("cleans");
            assert_eq!((left_behind(), leases(folder), ports()), (vec![], vec![], 0), "{step:?}");
            // Killed ADD, then ADD again: works, one interface, one address per family.
            die_at(step, "ADD", "pod", &pod.path, &conf);
            let (ip, _) = add("pod", &pod.path, &conf);
            let netns = Netns::open(&pod.path).expect("ns");
            assert!(greet(&netns, SocketAddr::new(ip, 0), None, SocketAddr::new(ip, 0)).is_ok());
            assert_eq!((left_behind().len(), leases(folder).len(), ports()), (1, 2, 1), "{step:?}");
            call("DEL", "pod", &pod.path, &conf).expect("cleans");
            // Killed ADD and a runtime that forgot it: garbage collection.
            die_at(step, "ADD", "pod", &pod.path, &conf);
            let mut all = conf.clone();
            all["cni.dev/valid-attachments"] = json!([]);
            call("GC", "", "", &all).expect("collected");
            assert_eq!((left_behind(), leases(folder), ports()), (vec![], vec![], 0), "{step:?}");
        }
        for step in [Step::Unlinked, Step::Unmapped, Step::Released] {
            let pod = namespace();
            add("pod", &pod.path, &conf);
            die_at(step, "DEL", "pod", &pod.path, &conf);
            call("DEL", "pod", "", &conf).expect("again");
            assert_eq!((left_behind(), leases(folder), ports()), (vec![], vec![], 0), "{step:?}");
        }
    });
}

fn binary(command: &str, id: &str, netns: &str, conf: &Value) -> Value {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keelson-cni"))
        .envs([
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("plugin");
    child.stdin.take().expect("stdin").write_all(conf.to_string().as_bytes()).expect("input");
    let out = child.wait_with_output().expect("ended");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if text.is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
}

#[test]
fn a_hundred_at_once_get_a_hundred_addresses() {
    host(|folder| {
        let conf = conf(folder);
        let pods: Vec<Namespace> = (0..100).map(|_| namespace()).collect();
        let here = Netns::current().expect("ns");
        let got: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(n, pod)| {
                    let (conf, here) = (&conf, &here);
                    scope.spawn(move || {
                        here.run(|| binary("ADD", &format!("p{n}"), &pod.path, conf)).expect("ns")
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().expect("thread")).collect()
        });
        let addresses: BTreeSet<String> = got
            .iter()
            .flat_map(|r| r["ips"].as_array().unwrap_or_else(|| panic!("{r}")).clone())
            .map(|ip| ip["address"].to_string())
            .collect();
        assert_eq!(addresses.len(), 200, "no address twice, both families");
        assert_eq!((left_behind().len(), leases(folder).len()), (100, 200));
        let start = Instant::now();
        for n in 0..100 {
            assert_eq!(binary("DEL", &format!("p{n}"), "", &conf), Value::Null);
        }
        println!("DEL: {:?} each", start.elapsed() / 100);
        assert_eq!((left_behind(), leases(folder)), (vec![], vec![]));
    });
}

#[test]
fn errors_and_versions_are_the_specifications() {
    let version = binary("VERSION", "", "", &json!({"cniVersion": "1.0.0"}));
    assert!(version["supportedVersions"].as_array().expect("list").contains(&json!("1.1.0")));
    let error = binary("ADD", "x", "/nonexistent", &json!({"cniVersion": "0.9.9", "name": "n"}));
    assert_eq!(error["code"], 1);
    let error = binary("FLY", "x", "", &json!({"cniVersion": "1.0.0", "name": "n"}));
    assert_eq!((&error["code"], &error["cniVersion"]), (&json!(4), &json!("1.0.0")));
}

/// Prints figures; run with `--ignored --nocapture`, release for a figure that counts.
#[test]
#[ignore = "prints figures"]
fn bench_add() {
    host(|folder| {
        let conf = conf(folder);
        let pods: Vec<Namespace> = (0..50).map(|_| namespace()).collect();
        let mut times: Vec<Duration> = Vec::new();
        for (n, pod) in pods.iter().enumerate() {
            let start = Instant::now();
            binary("ADD", &format!("p{n}"), &pod.path, &conf);
            times.push(start.elapsed());
        }
        times.sort();
        println!("ADD: p50 {:?}, worst {:?}", times[25], times[49]);
    });
}
