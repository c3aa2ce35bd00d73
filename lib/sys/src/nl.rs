//! Netlink: message building ([`Buf`]), attribute reading ([`Attrs`]), and a blocking socket ([`Socket`]).
//!
//! Attributes are at most 65,535 bytes long; [`Buf::end`] asserts it, and builders of lists split before that.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};

/// `nlmsghdr` is 16 bytes: length, type, flags, sequence, port.
pub const HEADER: usize = 16;
pub const F_REQUEST: u16 = 0x01;
pub const F_ACK: u16 = 0x04;
pub const F_DUMP: u16 = 0x300;
pub const F_REPLACE: u16 = 0x100;
pub const F_EXCL: u16 = 0x200;
pub const F_CREATE: u16 = 0x400;
pub const F_APPEND: u16 = 0x800;
const F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
/// Acknowledgements that fit the receive buffer with room to spare.
const ACKS_AT_ONCE: usize = 64;
/// Dumps that the kernel marks as interrupted are read again at most this often.
const DUMP_TRIES: usize = 16;

/// What a netlink exchange can fail with.
#[derive(Debug, thiserror::Error)]
pub enum NlError {
    /// A socket call failed.
    #[error("netlink socket: {step}")]
    Socket { step: &'static str, source: Errno },
    /// The kernel refused a message.
    #[error("kernel refused message {seq}{}", .message.as_deref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused { seq: u32, source: Errno, message: Option<String> },
    /// An answer that does not parse.
    #[error("malformed netlink answer: {0}")]
    Malformed(&'static str),
    /// A dump was interrupted by changes each time it was tried.
    #[error("dump interrupted by changes {DUMP_TRIES} times")]
    Unstable,
}

impl NlError {
    /// The kernel's error number, where there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            NlError::Socket { source, .. } | NlError::Refused { source, .. } => Some(*source),
            NlError::Malformed(_) | NlError::Unstable => None,
        }
    }
}

impl NlError {
    /// [`NlError::errno`] as a number, for crates that do not use nix.
    pub fn raw_errno(&self) -> Option<i32> {
        self.errno().map(|e| e as i32)
    }
}

/// A growing buffer of netlink messages.
#[derive(Default)]
pub struct Buf {
    bytes: Vec<u8>,
}

/// Position of an open message or nest; hand it back to [`Buf::end_message`] or [`Buf::end`].
#[must_use]
#[derive(Clone, Copy)]
pub struct Mark(usize);

impl Buf {
    pub fn new() -> Buf {
        Buf::default()
    }
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
    /// Opens a message. Its length is set by [`Buf::end_message`].
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32) -> Mark {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        Mark(at)
    }
    pub fn end_message(&mut self, mark: Mark) {
        let len = (self.bytes.len() - mark.0) as u32;
        self.bytes[mark.0..mark.0 + 4].copy_from_slice(&len.to_ne_bytes());
        self.pad();
    }
    /// Sets flags on a message that was already written.
    pub fn add_flags(&mut self, mark: Mark, flags: u16) {
        let at = mark.0 + 6;
        let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }
    /// Overwrites bytes that were already written.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
    /// Gives the attribute whose header is at `at` another type; type 0 makes the kernel skip it.
    pub(crate) fn retype_attr(&mut self, at: usize, kind: u16) {
        self.patch(at + 2, &kind.to_ne_bytes());
    }
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("attribute fits 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }
    /// A string with its terminating zero.
    pub fn str(&mut self, kind: u16, value: &str) {
        let len = u16::try_from(value.len() + 5).expect("attribute fits 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.pad();
    }
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }
    /// In the machine's byte order (rtnetlink).
    pub fn u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }
    /// In network byte order (netfilter).
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }
    pub fn nest(&mut self, kind: u16) -> Mark {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        Mark(at)
    }
    pub fn end(&mut self, mark: Mark) {
        let len = u16::try_from(self.bytes.len() - mark.0).expect("nested attribute fits 64 KiB");
        self.bytes[mark.0..mark.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }
}

/// Iterates over the attributes of a message or nest; stops at the first malformed one.
#[derive(Clone, Copy)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let head = self.0.get(..4)?;
        let len = u16::from_ne_bytes([head[0], head[1]]) as usize;
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        if len < 4 {
            return None;
        }
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

impl<'a> Attrs<'a> {
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut this = self;
        this.find_map(|(k, v)| (k == kind).then_some(v))
    }
}

/// A string attribute without its terminating zero.
pub fn string(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}
/// A number in network byte order; zero where the attribute is shorter.
pub fn be32(value: &[u8]) -> u32 {
    value.first_chunk::<4>().map_or(0, |b| u32::from_be_bytes(*b))
}
/// See [`be32`].
pub fn be64(value: &[u8]) -> u64 {
    value.first_chunk::<8>().map_or(0, |b| u64::from_be_bytes(*b))
}
/// A number in the machine's byte order; zero where the attribute is shorter.
pub fn ne32(value: &[u8]) -> u32 {
    value.first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b))
}

/// One message of an answer.
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub body: &'a [u8],
}

/// Splits a received or built buffer into messages.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let head = bytes.get(..HEADER)?;
        let len = ne32(head) as usize;
        if len < HEADER {
            return None;
        }
        let body = bytes.get(HEADER..len)?;
        let message = Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            seq: ne32(&head[8..12]),
            body,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

/// Which netlink family a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Route,
    Netfilter,
}

/// A blocking netlink socket in the network namespace of the thread that opened it.
pub struct Socket {
    fd: OwnedFd,
    buf: Vec<u8>,
    seq: u32,
    send_buffer: usize,
}

impl Socket {
    pub fn open(family: Family) -> Result<Socket, NlError> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)
            .map_err(|source| NlError::Socket { step: "open", source })?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))
            .map_err(|source| NlError::Socket { step: "bind", source })?;
        // Short errors with the kernel's text; both are niceties that very old kernels lack.
        set_int(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1).ok();
        set_int(fd.as_fd(), libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1).ok();
        Ok(Socket { fd, buf: vec![0; 64 << 10], seq: 1, send_buffer: 0 })
    }

    /// The next unused sequence number.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Reserves `count` consecutive sequence numbers and returns the first.
    pub fn reserve_seqs(&mut self, count: u32) -> u32 {
        let first = self.next_seq();
        self.seq = self.seq.wrapping_add(count);
        first
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), NlError> {
        // The kernel copies the whole buffer into one socket buffer that counts against SO_SNDBUF.
        let need = bytes.len() + (64 << 10);
        if need > 200 << 10 && need > self.send_buffer {
            setsockopt(&self.fd, sockopt::SndBufForce, &need)
                .map_err(|source| NlError::Socket { step: "raise the send buffer", source })?;
            self.send_buffer = need;
        }
        let sent = retry(|| send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()))
            .map_err(|source| NlError::Socket { step: "send", source })?;
        if sent == bytes.len() { Ok(()) } else { Err(NlError::Malformed("short send")) }
    }

    /// Room for the answers to a batch of `messages` messages.
    pub(crate) fn want_receive_buffer(&mut self, bytes: usize) {
        setsockopt(&self.fd, sockopt::RcvBufForce, &bytes).ok();
    }

    /// Receives one datagram into the socket's buffer. `wait` false returns None when nothing is queued.
    pub(crate) fn receive(&mut self, wait: bool) -> Result<Option<usize>, NlError> {
        let flags = if wait { MsgFlags::MSG_TRUNC } else { MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT };
        let fd = self.fd.as_raw_fd();
        match retry(|| recv(fd, &mut self.buf, flags)) {
            Ok(n) if n > self.buf.len() => Err(NlError::Malformed("answer longer than 64 KiB")),
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN) if !wait => Ok(None),
            Err(source) => Err(NlError::Socket { step: "receive", source }),
        }
    }

    pub(crate) fn received(&self, n: usize) -> &[u8] {
        &self.buf[..n]
    }

    /// Sends messages that each carry F_ACK and waits for every acknowledgement; later messages are sent even where
    /// earlier ones are refused. Returns the first refusal.
    pub fn exchange(&mut self, buf: &Buf) -> Result<(), NlError> {
        let mut first: Option<NlError> = None;
        let mut rest = buf.bytes();
        while !rest.is_empty() {
            let chunk: Vec<Message<'_>> = messages(rest).take(ACKS_AT_ONCE).collect();
            let len: usize = chunk.iter().map(|m| (m.body.len() + HEADER).next_multiple_of(4)).sum();
            let waiting = chunk.iter().filter(|m| m.flags & F_ACK != 0).count();
            let (now, later) = rest.split_at(len.min(rest.len()));
            if now.is_empty() {
                return Err(NlError::Malformed("unfinished request"));
            }
            self.send(now)?;
            if let Some(e) = self.acknowledged(waiting)? {
                first.get_or_insert(e);
            }
            rest = later;
        }
        first.map_or(Ok(()), Err)
    }

    /// Waits for so many acknowledgements; the first refusal among them.
    fn acknowledged(&mut self, mut waiting: usize) -> Result<Option<NlError>, NlError> {
        let mut first = None;
        while waiting > 0 {
            let n = self.receive(true)?.unwrap_or(0);
            for message in messages(&self.buf[..n]).filter(|m| m.kind == NLMSG_ERROR) {
                waiting = waiting.saturating_sub(1);
                if let Err(e) = ack(&message) {
                    first.get_or_insert(e);
                }
            }
        }
        Ok(first)
    }

    /// Sends one request whose answer is a single message and hands its (kind, body) to `read`.
    pub fn get<T>(&mut self, buf: &Buf, read: impl FnOnce(u16, &[u8]) -> T) -> Result<T, NlError> {
        self.send(buf.bytes())?;
        let seq = messages(buf.bytes()).next().map_or(0, |m| m.seq);
        loop {
            let n = self.receive(true)?.unwrap_or(0);
            for message in messages(&self.buf[..n]) {
                if message.seq != seq {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    ack(&message)?;
                    return Err(NlError::Malformed("acknowledgement without an answer"));
                }
                return Ok(read(message.kind, message.body));
            }
        }
    }

    /// Runs a dump request built by `build(buf, seq)`; `read` is called per message and must be repeatable: when
    /// the kernel says that the dump raced with a change, `reset` is called and all is read again.
    pub fn dump<S>(
        &mut self,
        state: &mut S,
        build: impl Fn(&mut Buf, u32),
        reset: impl Fn(&mut S),
        mut read: impl FnMut(&mut S, u16, &[u8]),
    ) -> Result<(), NlError> {
        for _ in 0..DUMP_TRIES {
            let seq = self.next_seq();
            let mut buf = Buf::new();
            build(&mut buf, seq);
            self.send(buf.bytes())?;
            reset(state);
            let mut interrupted = false;
            'dump: loop {
                let n = self.receive(true)?.unwrap_or(0);
                for message in messages(&self.buf[..n]) {
                    if message.seq != seq {
                        continue;
                    }
                    interrupted |= message.flags & F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE => break 'dump,
                        NLMSG_ERROR => match ack(&message) {
                            Err(e) if e.errno() == Some(Errno::EINTR) => {
                                interrupted = true;
                                break 'dump;
                            }
                            other => return other,
                        },
                        kind => read(state, kind, message.body),
                    }
                }
            }
            if !interrupted {
                return Ok(());
            }
        }
        Err(NlError::Unstable)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads an NLMSG_ERROR: Ok for an acknowledgement, else the kernel's refusal with its text.
pub(crate) fn ack(message: &Message<'_>) -> Result<(), NlError> {
    let code = ne32(message.body) as i32;
    if code == 0 {
        return Ok(());
    }
    // With NETLINK_CAP_ACK the offending message's header follows; attributes come after it.
    const F_ACK_TLVS: u16 = 0x200;
    let text = (message.flags & F_ACK_TLVS != 0)
        .then(|| message.body.get(4 + HEADER..))
        .flatten()
        .and_then(|tlvs| Attrs(tlvs).find(1))
        .map(string);
    Err(NlError::Refused { seq: message.seq, source: Errno::from_raw(-code), message: text })
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

#[allow(unsafe_code)]
fn set_int(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> nix::Result<()> {
    // SAFETY: the pointer and length describe a live i32, and the descriptor is borrowed for the call.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    Errno::result(r).map(drop)
}
