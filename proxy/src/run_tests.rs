//! The whole proxy in a network namespace of its own, with pods in others: packets and names.
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;

use k8s_openapi::serde_json::{from_value, json};
use keelson_daemon::drain::Drained;
use keelson_sys::netns::{Netns, unshare_net};
use keelson_sys::rtnl::{Batch, RouteSpec, Rtnl, VethSpec};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::*;
use crate::apply::isolated;

const NODE: &str = "192.0.2.1";
const DNS: &str = "10.96.0.10";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

/// A pod: a namespace joined as the CNI plugin joins it.
struct Pod {
    netns: Netns,
    address: IpAddr,
    _stop: mpsc::SyncSender<()>,
}

fn pod(n: u8) -> Pod {
    let (told, opened) = mpsc::sync_channel(1);
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        unshare_net().expect("namespace");
        told.send(Netns::current().expect("own")).expect("told");
        let _ = stopped.recv();
    });
    let netns = opened.recv().expect("namespace");
    let (address, gateway) = (IpAddr::from([10, 244, 7, n]), ip("10.244.7.1"));
    let mut host = Rtnl::open().expect("rtnl");
    let mut inside = netns.run(Rtnl::open).expect("ns").expect("rtnl");
    let name = format!("kltest{n}");
    let peer_netns = std::os::fd::AsFd::as_fd(&netns);
    let spec = VethSpec { name: &name, alias: "keelson test eth0", peer: "eth0", peer_netns, mtu: None };
    Batch::new().add_veth(&spec).send(&mut host).expect("veth");
    let (outer, inner) = (
        host.link(&name).expect("read").expect("there").index,
        inside.link("eth0").expect("read").expect("there").index,
    );
    let route = |dst: Option<IpAddr>, gateway, index| RouteSpec {
        dst: dst.map(|d| (d, 32)),
        gateway,
        index,
        ..RouteSpec::default()
    };
    Batch::new()
        .set_up(outer)
        .add_address(outer, gateway, 32)
        .replace_route(&route(Some(address), None, outer))
        .send(&mut host)
        .expect("host's end");
    Batch::new()
        .set_up_by_name("lo")
        .set_up(inner)
        .add_address(inner, address, 32)
        .replace_route(&route(Some(gateway), None, inner))
        .replace_route(&route(None, Some(gateway), inner))
        .send(&mut inside)
        .expect("pod's end");
    Pod { netns, address, _stop: stop }
}

/// Serves TCP connections with the pod's name, and UDP datagrams likewise, for ever.
fn start_server(pod: &Pod, name: &'static str) {
    let address = pod.address;
    let (tcp, udp) = pod
        .netns
        .run(|| {
            (TcpListener::bind((address, 8080)).expect("tcp"), UdpSocket::bind((address, 5353)).expect("udp"))
        })
        .expect("ns");
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().expect("peer").ip();
            let _ = stream.write_all(format!("{name} {peer}").as_bytes());
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(name.as_bytes(), peer);
        }
    });
}

/// Who answers, and as whom it sees the client.
fn dial(from: Option<&Pod>, to: &str) -> Result<String, std::io::ErrorKind> {
    let to: SocketAddr = to.parse().expect("address");
    let go = || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<String, std::io::Error>(text)
    };
    let result = match from {
        Some(pod) => pod.netns.run(go).expect("ns"),
        None => go(),
    };
    result.map_err(|e| e.kind())
}

fn service(name: &str, cluster_ip: &str, node_port: Option<i32>) -> Service {
    let mut port = json!({"name": "http", "port": 80, "protocol": "TCP"});
    if let Some(node_port) = node_port {
        port["nodePort"] = json!(node_port);
    }
    from_value(json!({
        "metadata": {"namespace": "shop", "name": name},
        "spec": {"type": "NodePort", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
                 "ports": [port, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    }))
    .expect("service")
}

fn slice(service: &str, pods: &[&Pod]) -> EndpointSlice {
    let endpoints: Vec<_> = pods
        .iter()
        .map(|p| json!({"addresses": [p.address], "conditions": {"ready": true}, "nodeName": "here"}))
        .collect();
    from_value(json!({
        "metadata": {"namespace": "shop", "name": format!("{service}-1"),
                     "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 5353, "protocol": "UDP"}],
        "endpoints": endpoints,
    }))
    .expect("slice")
}

fn host() {
    let mut rtnl = Rtnl::open().expect("rtnl");
    Batch::new().add_link("up0", "bridge").set_up_by_name("lo").send(&mut rtnl).expect("link");
    let up = rtnl.link("up0").expect("read").expect("there").index;
    Batch::new().set_up(up).add_address(up, ip(NODE), 24).send(&mut rtnl).expect("address");
}

fn config(folder: &std::path::Path) -> ProxyConfig {
    ProxyConfig {
        node_name: "here".into(),
        pod_cidrs: vec!["10.244.0.0/16".parse().expect("cidr")],
        service_cidrs: vec!["10.96.0.0/12".parse().expect("cidr")],
        dns: Some(DnsSettings {
            addresses: vec![ip(DNS)],
            cluster_domain: "cluster.local".into(),
            upstreams: vec!["192.0.2.99:53".parse().expect("address")],
        }),
        tunnel: Tunnel::Auto,
        cni_conf_dir: folder.join("net.d"),
        cni_state_dir: folder.join("cni"),
    }
}

fn sources() -> Sources {
    let sources =
        Sources { services: Informer::detached(), slices: Informer::detached(), nodes: Informer::detached() };
    sources.nodes.apply(
        from_value(json!({
            "metadata": {"name": "here"},
            "spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE}]},
        }))
        .expect("node"),
    );
    sources.services.set_synced();
    sources.slices.set_synced();
    sources.nodes.set_synced();
    sources
}

/// Waits, at most ten seconds, until `check` is true.
async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test beside a running proxy.
fn beside_proxy<F: Future<Output = ()>>(test: impl FnOnce(Sources, tempfile::TempDir) -> F + Send) {
    isolated(|| {
        host();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let folder = tempfile::tempdir().expect("folder");
            let (trigger, context) = Context::for_tests();
            let (sources, readiness) = (sources(), context.readiness.clone());
            let proxy = tokio::spawn(serve(sources.clone(), config(folder.path()), context));
            tokio::task::yield_now().await;
            tokio::time::timeout(Duration::from_secs(10), readiness.ready()).await.expect("ready");
            test(sources, folder).await;
            assert_eq!(trigger.drain(Duration::from_secs(5)).await, Drained::Cleanly);
            proxy.await.expect("no panic").expect("ended well");
        });
    });
}

fn rule_count() -> usize {
    let mut socket = keelson_sys::nft::batch::open().expect("socket");
    let table = keelson_sys::nft::read_table(&mut socket, "keelson-services").expect("read").expect("there");
    table.chains.values().map(|c| c.rules.len()).sum()
}

#[test]
fn services_carry_packets() {
    beside_proxy(|sources, folder| async move {
        let (a, b) = (pod(2), pod(3));
        start_server(&a, "a");
        start_server(&b, "b");
        let conf =
            std::fs::read_to_string(folder.path().join("net.d").join(cniconf::FILE)).expect("conflist");
        assert!(conf.contains("10.244.7.0/24"), "{conf}");
        let before = rule_count();
        sources.services.apply(service("web", "10.96.5.5", Some(30_080)));
        sources.slices.apply(slice("web", &[&a]));
        sources.services.apply(service("lonely", "10.96.5.6", None));
        eventually("rules", || dial(None, "10.96.5.5:80").is_ok()).await;
        assert!(rule_count() > before);
        // From the node (there is no default route), from pods, from the endpoint itself.
        assert_eq!(dial(None, "10.96.5.5:80"), Ok("a 10.244.7.1".into()));
        assert_eq!(dial(Some(&b), "10.96.5.5:80"), Ok("a 10.244.7.3".into()));
        assert_eq!(dial(Some(&a), "10.96.5.5:80"), Ok("a 10.244.7.1".into()));
        for from in [None, Some(&a), Some(&b)] {
            assert_eq!(dial(from, "192.0.2.1:30080"), Ok("a 10.244.7.1".into()), "masqueraded");
        }
        assert!(dial(None, "127.0.0.1:30080").is_err(), "no node port on loopback");
        for from in [None, Some(&b)] {
            assert_eq!(dial(from, "10.96.5.6:80"), Err(std::io::ErrorKind::ConnectionRefused));
            assert_eq!(dial(from, "10.96.5.5:81"), Err(std::io::ErrorKind::ConnectionRefused));
        }
        // Both endpoints get their share.
        sources.slices.apply(slice("web", &[&a, &b]));
        eventually("second endpoint", || dial(None, "10.96.5.5:80").is_ok_and(|t| t.starts_with('b'))).await;
        eventually("first endpoint", || dial(None, "10.96.5.5:80").is_ok_and(|t| t.starts_with('a'))).await;
        // Gone: refused again.
        sources.services.delete(&keelson_client::ObjectKey::new("shop", "web"));
        eventually("deleted", || dial(Some(&b), "10.96.5.5:80").is_err()).await;
    });
}

/// The API server's own service: its endpoint is the node.
#[test]
fn an_endpoint_on_the_node_itself() {
    beside_proxy(|sources, _folder| async move {
        let client = pod(2);
        let listener = TcpListener::bind((NODE, 8080)).expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(b"node");
            }
        });
        let node =
            Pod { netns: Netns::current().expect("own"), address: ip(NODE), _stop: mpsc::sync_channel(1).0 };
        sources.services.apply(service("kubernetes", "10.96.0.1", Some(30_443)));
        sources.slices.apply(slice("kubernetes", &[&node]));
        eventually("rules", || dial(Some(&client), "10.96.0.1:80").is_ok()).await;
        for to in ["10.96.0.1:80", "192.0.2.1:30443"] {
            assert_eq!(dial(None, to), Ok("node".into()), "{to}");
            assert_eq!(dial(Some(&client), to), Ok("node".into()), "{to}");
        }
    });
}

#[test]
fn outsiders_keep_their_address_where_the_policy_says_so() {
    beside_proxy(|sources, _folder| async move {
        let (a, stranger) = (pod(2), outsider());
        start_server(&a, "a");
        let mut web = service("web", "10.96.5.5", Some(30_080));
        sources.services.apply(web.clone());
        sources.slices.apply(slice("web", &[&a]));
        eventually("rules", || dial(Some(&stranger), "192.0.2.1:30080").is_ok()).await;
        assert_eq!(dial(Some(&stranger), "192.0.2.1:30080"), Ok("a 10.244.7.1".into()));
        web.spec.as_mut().expect("spec").external_traffic_policy = Some("Local".into());
        sources.services.apply(web);
        let kept = || dial(Some(&stranger), "192.0.2.1:30080") == Ok("a 198.51.100.9".into());
        eventually("source kept", kept).await;
        // No endpoint here: outsiders get silence, not a refusal.
        let mut away = slice("web", &[&a]);
        away.endpoints[0].node_name = Some("there".into());
        sources.slices.apply(away);
        eventually("dropped", || {
            matches!(dial(Some(&stranger), "192.0.2.1:30080"), Err(std::io::ErrorKind::TimedOut))
        })
        .await;
        assert_eq!(
            dial(None, "192.0.2.1:30080"),
            Ok("a 10.244.7.1".into()),
            "the node reaches all endpoints"
        );
    });
}

#[test]
fn client_affinity_holds() {
    beside_proxy(|sources, _folder| async move {
        let (a, b, client) = (pod(2), pod(3), pod(4));
        start_server(&a, "a");
        start_server(&b, "b");
        let mut sticky = service("web", "10.96.5.5", None);
        let spec = sticky.spec.as_mut().expect("spec");
        spec.session_affinity = Some("ClientIP".into());
        sources.services.apply(sticky);
        sources.slices.apply(slice("web", &[&a, &b]));
        eventually("rules", || dial(Some(&client), "10.96.5.5:80").is_ok()).await;
        let first = dial(Some(&client), "10.96.5.5:80").expect("answer");
        for _ in 0..20 {
            assert_eq!(dial(Some(&client), "10.96.5.5:80").as_ref(), Ok(&first));
        }
        // The chosen endpoint goes: the client is sent to the other one.
        let left = if first.starts_with('a') { &b } else { &a };
        sources.slices.apply(slice("web", &[left]));
        eventually("moved", || dial(Some(&client), "10.96.5.5:80").is_ok_and(|t| t != first)).await;
    });
}

#[test]
fn udp_flows_leave_an_endpoint_that_is_gone() {
    beside_proxy(|sources, _folder| async move {
        let (a, b, client) = (pod(2), pod(3), pod(4));
        start_server(&a, "a");
        start_server(&b, "b");
        let socket = client.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).expect("udp")).expect("ns");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
        // One socket, one flow: without clean-up it would stay with its first translation.
        let ask = || {
            socket.send_to(b"?", "10.96.5.5:53").ok()?;
            let mut buffer = [0; 8];
            let n = socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
        };
        assert_eq!(ask(), None);
        sources.services.apply(service("web", "10.96.5.5", None));
        sources.slices.apply(slice("web", &[&a]));
        eventually("first endpoint", || ask().as_deref() == Some("a")).await;
        sources.slices.apply(slice("web", &[&b]));
        eventually("second endpoint", || ask().as_deref() == Some("b")).await;
    });
}

fn resolve(from: Option<&Pod>, name: &str, tries: u32) -> Option<IpAddr> {
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{RData, RecordType};
    let mut message = Message::new(5, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), RecordType::A));
    let query = message.to_vec().expect("encoded");
    let go = || {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
        // As a resolver does: asked again when no answer comes.
        (0..tries).find_map(|_| {
            socket.send_to(&query, (DNS, 53)).ok()?;
            let mut buffer = [0; 512];
            let n = socket.recv(&mut buffer).ok()?;
            Message::from_vec(&buffer[..n]).ok()
        })
    };
    let answer = match from {
        Some(pod) => pod.netns.run(go).expect("ns"),
        None => go(),
    }?;
    answer.answers.iter().find_map(|r| if let RData::A(a) = &r.data { Some(IpAddr::V4(a.0)) } else { None })
}

/// A machine on the node's link that is no pod.
fn outsider() -> Pod {
    let stranger = pod(9);
    let mut inside = stranger.netns.run(Rtnl::open).expect("ns").expect("rtnl");
    let mut host = Rtnl::open().expect("rtnl");
    let inner = inside.link("eth0").expect("read").expect("there").index;
    let outer = host.link("kltest9").expect("read").expect("there").index;
    let address = ip("198.51.100.9");
    Batch::new()
        .delete_address(inner, stranger.address, 32)
        .add_address(inner, address, 32)
        .replace_route(&RouteSpec { dst: Some((ip("10.244.7.1"), 32)), index: inner, ..RouteSpec::default() })
        .replace_route(&RouteSpec { gateway: Some(ip("10.244.7.1")), index: inner, ..RouteSpec::default() })
        .send(&mut inside)
        .expect("renumbered");
    Batch::new()
        .replace_route(&RouteSpec { dst: Some((address, 32)), index: outer, ..RouteSpec::default() })
        .send(&mut host)
        .expect("route");
    Pod { address, ..stranger }
}

#[test]
fn names_for_pods_and_the_node_only() {
    beside_proxy(|sources, _folder| async move {
        let (client, stranger) = (pod(2), outsider());
        sources.services.apply(service("web", "10.96.5.5", None));
        sources.services.apply(service("kube-dns", DNS, None));
        let web = Some(ip("10.96.5.5"));
        // The server runs on this thread's runtime: asking must not block it.
        let ask = |from: Option<Pod>, tries| async move {
            let task = tokio::task::spawn_blocking(move || {
                (resolve(from.as_ref(), "web.shop.svc.cluster.local.", tries), from)
            });
            task.await.expect("asked")
        };
        let (answer, client) = ask(Some(client), 20).await;
        assert_eq!(answer, web);
        let (answer, _) = ask(None, 20).await;
        assert_eq!(answer, web);
        let (answer, stranger) = ask(Some(stranger), 2).await;
        assert_eq!(answer, None, "no open resolver");
        let reach = stranger.as_ref().map(|s| {
            s.netns.run(|| {
                TcpStream::connect_timeout(&"192.0.2.1:1".parse().expect("address"), Duration::from_secs(2))
                    .map_err(|e| e.kind())
            })
        });
        let refused = reach.expect("asked").expect("ns");
        assert_eq!(
            refused.err(),
            Some(std::io::ErrorKind::ConnectionRefused),
            "the stranger does reach the node"
        );
        drop(client);
    });
}

#[test]
fn a_restart_changes_nothing_and_reset_leaves_nothing() {
    isolated(|| {
        host();
        let folder = tempfile::tempdir().expect("folder");
        let generation = || {
            let mut socket = keelson_sys::nft::batch::open().expect("socket");
            keelson_sys::nft::generation(&mut socket).expect("generation")
        };
        let (a, b) = (pod(2), pod(3));
        start_server(&a, "a");
        let mut generations = Vec::new();
        for _ in 0..3 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (trigger, context) = Context::for_tests();
                let readiness = context.readiness.clone();
                let sources = sources();
                sources.services.apply(service("web", "10.96.5.5", None));
                sources.slices.apply(slice("web", &[&a]));
                let proxy = tokio::spawn(serve(sources, config(folder.path()), context));
                tokio::task::yield_now().await;
                readiness.ready().await;
                assert_eq!(dial(Some(&b), "10.96.5.5:80"), Ok("a 10.244.7.3".into()));
                assert_eq!(trigger.drain(Duration::from_secs(5)).await, Drained::Cleanly);
                proxy.await.expect("no panic").expect("ended well");
            });
            // Without a proxy the rules stay.
            assert_eq!(dial(Some(&b), "10.96.5.5:80"), Ok("a 10.244.7.3".into()));
            generations.push(generation());
        }
        assert!(generations.iter().all(|g| *g == generations[0]), "{generations:?}");
        std::fs::create_dir_all(folder.path().join("cni/keelson")).expect("leases");
        let errors = crate::reset(&folder.path().join("net.d"), &folder.path().join("cni"));
        assert!(errors.is_empty(), "{errors:?}");
        let again = crate::reset(&folder.path().join("net.d"), &folder.path().join("cni"));
        assert!(again.is_empty(), "{again:?}");
        let mut rtnl = Rtnl::open().expect("rtnl");
        let mut names: Vec<String> = rtnl.links().expect("links").into_iter().map(|l| l.name).collect();
        names.retain(|n| {
            n != "lo"
                && n != "up0"
                && ![
                    "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0",
                    "ip6_vti0",
                ]
                .contains(&n.as_str())
        });
        assert_eq!(names, Vec::<String>::new());
        assert!(
            rtnl.routes().expect("routes").iter().all(|r| r.protocol != keelson_sys::rtnl::ROUTE_PROTOCOL)
        );
        let tables = std::process::Command::new("nft").args(["list", "tables"]).output().expect("nft");
        assert_eq!(String::from_utf8_lossy(&tables.stdout), "");
        assert_eq!(std::fs::read_dir(folder.path().join("net.d")).expect("folder").count(), 0);
        assert_eq!(std::fs::read_dir(folder.path().join("cni")).expect("folder").count(), 0);
    });
}
