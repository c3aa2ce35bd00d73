use std::net::Ipv4Addr;
use std::str::FromStr;

use hickory_proto::rr::rdata::A;
use keelson_daemon::{Context, DrainTrigger};

use super::*;
use crate::apply::isolated;
use crate::dns::interface;
use crate::plan::ServiceName;
use crate::views::{Endpoint, Protocol, ServicePort, ServiceView, SliceView};

const DNS: &str = "10.96.0.10";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("ip")
}

fn config(resolvers: Vec<SocketAddr>) -> DnsConfig {
    DnsConfig {
        zone: Zone {
            domain: Name::from_str("cluster.local.").expect("name"),
            dns_ips: vec![ip(DNS)],
            pod_cidrs: vec!["10.244.0.0/16".parse().expect("cidr")],
            service_cidrs: vec!["10.96.0.0/12".parse().expect("cidr")],
        },
        port: 53,
        resolvers: Resolvers::Fixed(resolvers),
    }
}

fn index() -> Arc<Index> {
    let index = Index::default();
    let view =
        |name: &str| ServiceView { namespace: "ns".into(), name: name.into(), ..ServiceView::default() };
    let port = ServicePort { name: "p".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
    let web = ServiceView { cluster_ips: vec![ip("10.96.1.1")], ports: vec![port], ..view("web") };
    let many = ServiceView { headless: true, ..view("many") };
    let out = ServiceView { external_name: Some("out.example.".into()), ..view("out") };
    let inner = ServiceView { external_name: Some("web.ns.svc.cluster.local".into()), ..view("inner") };
    let turn = ServiceView { external_name: Some("turn.ns.svc.cluster.local".into()), ..view("turn") };
    for service in [web, many, out, inner, turn] {
        index.service(ServiceName::new("ns", &service.name), Some(Arc::new(service)));
    }
    let endpoints = (1..=120u8).map(|n| Endpoint {
        ip: [10, 244, 0, n].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        hostname: None,
        zones: vec![],
        nodes: vec![],
    });
    let slice = SliceView {
        namespace: "ns".into(),
        service: "many".into(),
        ports: vec![],
        endpoints: endpoints.collect(),
    };
    index.slice("many-1", None, Some(&Arc::new(slice)));
    Arc::new(index)
}

/// Runs a test beside a server in a network namespace of its own.
fn served<F: Future<Output = ()>>(resolvers: &[&str], test: impl FnOnce() -> F + Send) {
    let resolvers = resolvers.iter().map(|r| r.parse().expect("address")).collect();
    isolated(|| {
        let mut rtnl = Rtnl::open().expect("rtnl");
        keelson_sys::rtnl::Batch::new().set_up_by_name("lo").send(&mut rtnl).expect("lo");
        interface::ensure(&[ip(DNS)]).expect("interface");
        interface::ensure(&[ip(DNS)]).expect("again");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (_trigger, context): (DrainTrigger, Context) = Context::for_tests();
            serve(config(resolvers), index(), context.drain.clone()).await.expect("listening");
            test().await;
        });
        assert!(interface::remove().expect("removed"));
        assert!(!interface::remove().expect("gone"));
    });
}

fn query(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).expect("name"), kind));
    if let Some(size) = edns {
        let mut e = Edns::new();
        e.set_max_payload(size);
        message.set_edns(e);
    }
    message.to_vec().expect("encoded")
}

async fn udp(query: &[u8]) -> (Message, usize) {
    let socket = UdpSocket::bind("0.0.0.0:0").await.expect("bound");
    socket.send_to(query, (DNS, 53)).await.expect("sent");
    let mut buffer = vec![0; 65_536];
    let n =
        timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await.expect("in time").expect("received");
    (Message::from_vec(&buffer[..n]).expect("message"), n)
}

async fn tcp(queries: &[Vec<u8>]) -> Vec<Message> {
    let mut stream = TcpStream::connect((DNS, 53)).await.expect("connected");
    let mut answers = Vec::new();
    for query in queries {
        stream.write_u16(query.len() as u16).await.expect("sent");
        stream.write_all(query).await.expect("sent");
        let len = stream.read_u16().await.expect("length");
        let mut buffer = vec![0; usize::from(len)];
        stream.read_exact(&mut buffer).await.expect("answer");
        answers.push(Message::from_vec(&buffer).expect("message"));
    }
    answers
}

fn code(message: &Message) -> ResponseCode {
    message.metadata.response_code
}

#[test]
fn answers_over_udp_and_tcp() {
    served(&[], || async {
        let (answer, _) = udp(&query("web.ns.svc.cluster.local.", RecordType::A, None)).await;
        assert_eq!(
            (answer.metadata.id, code(&answer), answer.metadata.authoritative),
            (77, ResponseCode::NoError, true)
        );
        assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::new(10, 96, 1, 1))));
        let (answer, _) = udp(&query("none.ns.svc.cluster.local.", RecordType::A, None)).await;
        assert_eq!((code(&answer), answer.authorities.len()), (ResponseCode::NXDomain, 1));
        let (answer, _) = udp(&query("web.ns.svc.cluster.local.", RecordType::AAAA, None)).await;
        assert_eq!(
            (code(&answer), answer.answers.len(), answer.authorities.len()),
            (ResponseCode::NoError, 0, 1)
        );
        let many = query("many.ns.svc.cluster.local.", RecordType::A, None);
        let both = tcp(&[many.clone(), query("web.ns.svc.cluster.local.", RecordType::A, None)]).await;
        assert_eq!((both[0].answers.len(), both[1].answers.len()), (120, 1));
    });
}

#[test]
fn long_answers_are_cut_to_what_the_client_takes() {
    served(&[], || async {
        let name = "many.ns.svc.cluster.local.";
        let (answer, len) = udp(&query(name, RecordType::A, None)).await;
        assert!(answer.metadata.truncation && len <= 512 && answer.answers.len() > 5, "{len}");
        let (answer, len) = udp(&query(name, RecordType::A, Some(4096))).await;
        assert!(answer.metadata.truncation && len > 512 && len <= 1232 && answer.edns.is_some(), "{len}");
    });
}

#[test]
fn without_resolvers_other_names_are_refused() {
    served(&[], || async {
        let (answer, _) = udp(&query("example.com.", RecordType::A, None)).await;
        assert_eq!(code(&answer), ResponseCode::Refused);
        let (answer, _) = udp(&query("out.ns.svc.cluster.local.", RecordType::A, None)).await;
        assert_eq!((code(&answer), answer.answers.len()), (ResponseCode::Refused, 1));
    });
    // Ourselves as the only resolver: no loop.
    served(&["10.96.0.10:53"], || async {
        let (answer, _) = udp(&query("example.com.", RecordType::A, None)).await;
        assert_eq!(code(&answer), ResponseCode::Refused);
    });
}

#[test]
fn other_names_are_relayed_and_external_names_followed() {
    served(&["127.0.0.1:5353"], || async {
        let upstream = UdpSocket::bind("127.0.0.1:5353").await.expect("bound");
        tokio::spawn(async move {
            let mut buffer = vec![0; 4096];
            loop {
                let (n, peer) = upstream.recv_from(&mut buffer).await.expect("received");
                let request = Message::from_vec(&buffer[..n]).expect("message");
                let mut answer = Message::response(request.metadata.id, OpCode::Query);
                answer.add_queries(request.queries.clone());
                let name = request.queries[0].name().clone();
                answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(192, 0, 2, 9)))));
                // A forged answer first: it must not count.
                let mut forged = answer.to_vec().expect("encoded");
                forged[0] ^= 0xff;
                upstream.send_to(&forged, peer).await.expect("sent");
                upstream.send_to(&answer.to_vec().expect("encoded"), peer).await.expect("sent");
            }
        });
        let (answer, _) = udp(&query("example.com.", RecordType::A, None)).await;
        assert_eq!((answer.metadata.id, answer.metadata.authoritative), (77, false));
        assert_eq!(answer.answers[0].data, RData::A(A(Ipv4Addr::new(192, 0, 2, 9))));
        let (answer, _) = udp(&query("out.ns.svc.cluster.local.", RecordType::A, None)).await;
        let kinds: Vec<RecordType> = answer.answers.iter().map(Record::record_type).collect();
        assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
        let (answer, _) = udp(&query("inner.ns.svc.cluster.local.", RecordType::A, None)).await;
        let last = answer.answers.last().expect("answer");
        assert_eq!(last.data, RData::A(A(Ipv4Addr::new(10, 96, 1, 1))));
        let (answer, _) = udp(&query("turn.ns.svc.cluster.local.", RecordType::A, None)).await;
        assert_eq!(code(&answer), ResponseCode::ServFail);
    });
}

#[test]
fn malformed_and_foreign_requests() {
    served(&[], || async {
        let mut broken = query("web.ns.svc.cluster.local.", RecordType::A, None);
        broken[12] = 0xff;
        assert_eq!(code(&udp(&broken).await.0), ResponseCode::FormErr);
        let mut update = query("web.ns.svc.cluster.local.", RecordType::A, None);
        update[2] = 4 << 3;
        assert_eq!(code(&udp(&update).await.0), ResponseCode::NotImp);
        let transfer = query("cluster.local.", RecordType::AXFR, None);
        assert_eq!(code(&udp(&transfer).await.0), ResponseCode::Refused);
        // Rubbish and answers get no answer; the server goes on.
        let socket = UdpSocket::bind("0.0.0.0:0").await.expect("bound");
        socket.send_to(b"x", (DNS, 53)).await.expect("sent");
        let mut response = query("web.ns.svc.cluster.local.", RecordType::A, None);
        response[2] |= 0x80;
        socket.send_to(&response, (DNS, 53)).await.expect("sent");
        socket
            .send_to(&query("web.ns.svc.cluster.local.", RecordType::A, None), (DNS, 53))
            .await
            .expect("sent");
        let mut buffer = [0; 512];
        let n = timeout(Duration::from_secs(5), socket.recv(&mut buffer))
            .await
            .expect("in time")
            .expect("received");
        assert_eq!(Message::from_vec(&buffer[..n]).expect("message").answers.len(), 1);
    });
}

#[test]
fn strangers_get_no_answer() {
    isolated(|| {
        let (config, index) = (config(vec![]), index());
        let server = Server {
            forwarder: Forwarder::new(config.resolvers, vec![]),
            zone: config.zone,
            index,
            relays: Semaphore::new(1),
            local: Mutex::new((None, Vec::new())),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let _guard = runtime.enter();
        assert!(server.knows(ip("10.244.3.3")) && server.knows(ip("127.0.0.1")));
        assert!(!server.knows(ip("192.0.2.77")));
    });
}
