//! Connection tracking entries: found by a predicate and deleted.
//!
//! UDP has no end of connection: an entry that translates to an endpoint that is gone would swallow a client's
//! packets for minutes.
use std::net::IpAddr;

use nix::errno::Errno;

use crate::nl::{self, Attrs, Buf, Family, NlError, Socket};

const SUBSYS: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;

/// One direction of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub proto: u8,
    pub sport: u16,
    pub dport: u16,
}

/// A tracked flow: as it came, and as its answers come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub original: Tuple,
    pub reply: Tuple,
}

/// Opens a socket in the calling thread's network namespace.
pub fn open() -> Result<Socket, NlError> {
    Socket::open(Family::Netfilter)
}

fn dump<T>(
    socket: &mut Socket,
    ipv6: bool,
    keep: impl Fn(&Flow, Attrs<'_>) -> Option<T>,
) -> Result<Vec<T>, NlError> {
    let mut found = Vec::new();
    socket.dump(
        &mut found,
        |buf, seq| {
            let mark = buf.message(SUBSYS | GET, nl::F_REQUEST | nl::F_DUMP, seq);
            buf.raw(&[family(ipv6), 0, 0, 0]);
            buf.end_message(mark);
        },
        |found| found.clear(),
        |found, _, body| {
            let attrs = Attrs(body.get(4..).unwrap_or(&[]));
            if let Some(flow) = read(attrs) {
                found.extend(keep(&flow, attrs));
            }
        },
    )?;
    Ok(found)
}

/// All flows of a family.
pub fn list(socket: &mut Socket, ipv6: bool) -> Result<Vec<Flow>, NlError> {
    dump(socket, ipv6, |flow, _| Some(*flow))
}

/// Deletes the flows for which `stale` is true. Returns how many.
pub fn delete(socket: &mut Socket, ipv6: bool, stale: impl Fn(&Flow) -> bool) -> Result<usize, NlError> {
    let doomed = dump(socket, ipv6, |flow, attrs| {
        stale(flow).then(|| {
            [1u16, 12, 18]
                .into_iter()
                .filter_map(|kind| attrs.find(kind).map(|value| (kind, value.to_vec())))
                .collect::<Vec<_>>()
        })
    })?;
    let mut deleted = 0;
    for attrs in doomed {
        let seq = socket.next_seq();
        let mut buf = Buf::new();
        let mark = buf.message(SUBSYS | DELETE, nl::F_REQUEST | nl::F_ACK, seq);
        buf.raw(&[family(ipv6), 0, 0, 0]);
        for (kind, value) in attrs {
            buf.attr(if kind == 1 { kind | 0x8000 } else { kind }, &value);
        }
        buf.end_message(mark);
        match socket.exchange(&buf) {
            Ok(()) => deleted += 1,
            // It ended by itself between the two calls.
            Err(e) if e.errno() == Some(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(deleted)
}

fn family(ipv6: bool) -> u8 {
    if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

fn read(attrs: Attrs<'_>) -> Option<Flow> {
    Some(Flow { original: read_tuple(attrs.find(1)?)?, reply: read_tuple(attrs.find(2)?)? })
}

fn read_tuple(bytes: &[u8]) -> Option<Tuple> {
    let attrs = Attrs(bytes);
    let (ip, proto) = (Attrs(attrs.find(1)?), Attrs(attrs.find(2)?));
    let address = |v4, v6| {
        let v4 = ip.find(v4).and_then(|b| b.first_chunk::<4>()).map(|b| IpAddr::from(*b));
        v4.or_else(|| ip.find(v6).and_then(|b| b.first_chunk::<16>()).map(|b| IpAddr::from(*b)))
    };
    let port =
        |kind| proto.find(kind).and_then(|b| b.first_chunk::<2>()).map_or(0, |b| u16::from_be_bytes(*b));
    Some(Tuple {
        src: address(1, 3)?,
        dst: address(2, 4)?,
        proto: *proto.find(1)?.first()?,
        sport: port(2),
        dport: port(3),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Batch, Chain, ChainKind, Hook, Rule};
    use crate::testns::isolated;

    #[test]
    fn flows_are_listed_and_deleted() {
        isolated(|| {
            // Tracking begins with the first rule that asks for it.
            let mut batch = Batch::new();
            batch.add_table("t", &[]);
            batch.add_chain("t", &Chain::base("c", ChainKind::Filter, Hook::Output, 0));
            batch.add_rule("t", "c", &Rule::new().ct_new().accept());
            batch.send(&mut crate::nft::batch::open().expect("socket"), None).expect("sent");
            let server = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
            let port = server.local_addr().expect("address").port();
            let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
            client.send_to(b"x", ("127.0.0.1", port)).expect("sent");
            let mut socket = open().expect("socket");
            let ours = |f: &Flow| f.original.proto == 17 && f.original.dport == port;
            let flows = list(&mut socket, false).expect("listed");
            let flow = flows.iter().find(|f| ours(f)).expect("tracked");
            assert_eq!(flow.original.src, flow.reply.dst);
            assert_eq!(flow.original.sport, client.local_addr().expect("address").port());
            assert_eq!(delete(&mut socket, false, |_| false).expect("none"), 0);
            assert_eq!(delete(&mut socket, false, ours).expect("deleted"), 1);
            assert!(!list(&mut socket, false).expect("listed").iter().any(ours));
            assert_eq!(delete(&mut socket, true, |_| true).expect("none"), 0);
        });
    }
}
