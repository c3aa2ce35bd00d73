//! A SPDY/3.1 session over an upgraded connection: streams that are opened by either side.
//!
//! Upstream's peers (moby/spdystream) keep no flow-control windows; back-pressure is TCP's. So a stream whose reader is
//! slow holds up the session once its buffer is full, as it does upstream.

use crate::frame::{Decoder, Encoder, Frame, FrameError, Headers};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Payload of one DATA frame we send.
const CHUNK: usize = 32 << 10;
/// Chunks kept for a slow reader of one stream.
const STREAM_BUFFER: usize = 16;
/// Frames kept for a slow connection.
const OUT_BUFFER: usize = 32;
/// Streams open at once in one session; port-forward opens two per connection.
const MAX_STREAMS: usize = 2048;

/// Which side of the session this is: clients open odd streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Why a stream or a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the session has ended")]
    Ended,
    #[error("the peer refused the stream (SPDY status {0})")]
    Reset(u32),
    #[error("the peer does not speak SPDY/3.1")]
    Frame(#[from] FrameError),
    #[error("connection lost")]
    Io(#[from] std::io::Error),
}

/// One end of a session; clones share it. When the last clone and all streams are gone, the connection is closed.
#[derive(Clone)]
pub struct Session {
    out: mpsc::Sender<Frame>,
    streams: Streams,
    next: Arc<AtomicU32>,
}

/// A stream in both directions.
pub struct Stream {
    pub headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
}

/// What the peer sends.
pub struct StreamReader {
    chunks: mpsc::Receiver<Result<Bytes, StreamError>>,
}

/// What is sent to the peer; dropping it without [`StreamWriter::finish`] resets nothing, it merely stops.
pub struct StreamWriter {
    id: u32,
    out: mpsc::Sender<Frame>,
}

type Streams = Arc<Mutex<Open>>;

/// The session's streams; `ended` once the connection is gone, after which none is added.
#[derive(Default)]
struct Open {
    slots: HashMap<u32, Slot>,
    ended: bool,
}

struct Slot {
    chunks: Option<mpsc::Sender<Result<Bytes, StreamError>>>,
    replied: Option<oneshot::Sender<Result<(), StreamError>>>,
}

impl Session {
    /// Starts a session. The receiver yields the streams that the peer opens; drop it where none are expected, and they
    /// are refused.
    pub fn start<IO>(io: IO, role: Role) -> (Session, mpsc::Receiver<Stream>)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (reader, writer) = tokio::io::split(io);
        let (out, frames) = mpsc::channel(OUT_BUFFER);
        let (accepted, accept) = mpsc::channel(8);
        let streams = Streams::default();
        tokio::spawn(write_frames(writer, frames));
        tokio::spawn(read_frames(reader, out.downgrade(), streams.clone(), accepted));
        let first = if role == Role::Client { 1 } else { 2 };
        (Session { out, streams, next: Arc::new(AtomicU32::new(first)) }, accept)
    }

    /// Opens a stream and waits for the peer's reply.
    pub async fn open(&self, headers: Headers) -> Result<Stream, StreamError> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let (chunks, receiver) = mpsc::channel(STREAM_BUFFER);
        let (replied, reply) = oneshot::channel();
        {
            let mut streams = lock(&self.streams);
            if streams.ended {
                return Err(StreamError::Ended);
            }
            streams.slots.insert(id, Slot { chunks: Some(chunks), replied: Some(replied) });
        }
        let syn = Frame::SynStream { id, headers: headers.clone(), fin: false };
        self.out.send(syn).await.map_err(|_| StreamError::Ended)?;
        reply.await.map_err(|_| StreamError::Ended)??;
        let writer = StreamWriter { id, out: self.out.clone() };
        Ok(Stream { headers, reader: StreamReader { chunks: receiver }, writer })
    }
}

impl Stream {
    /// Both directions apart.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl StreamReader {
    /// The next chunk; `None` when the peer has finished sending.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, StreamError>> {
        self.chunks.recv().await
    }

    /// Everything until the peer has finished, at most `limit` bytes of it. A reset after the last byte is an end too:
    /// runtimes write a status and then reset what is open.
    pub async fn collect(&mut self, limit: usize) -> Result<Vec<u8>, StreamError> {
        let mut all = Vec::new();
        while let Some(chunk) = self.chunk().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(StreamError::Reset(_)) if !all.is_empty() => break,
                Err(error) => return Err(error),
            };
            let room = limit.saturating_sub(all.len()).min(chunk.len());
            all.extend_from_slice(&chunk[..room]);
        }
        Ok(all)
    }
}

impl StreamWriter {
    /// Sends bytes, waiting while the connection is busy.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let payload = bytes.split_to(bytes.len().min(CHUNK));
            let frame = Frame::Data { id: self.id, payload, fin: false };
            self.out.send(frame).await.map_err(|_| StreamError::Ended)?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent; the other direction stays open.
    pub async fn finish(&self) -> Result<(), StreamError> {
        let frame = Frame::Data { id: self.id, payload: Bytes::new(), fin: true };
        self.out.send(frame).await.map_err(|_| StreamError::Ended)
    }
}

fn lock(streams: &Streams) -> std::sync::MutexGuard<'_, Open> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write_frames<IO: AsyncWrite>(mut writer: WriteHalf<IO>, mut frames: mpsc::Receiver<Frame>) {
    let (mut encoder, mut buffer) = (Encoder::default(), BytesMut::new());
    while let Some(frame) = frames.recv().await {
        encoder.encode(&frame, &mut buffer);
        // What waits already goes out in the same write.
        while buffer.len() < CHUNK {
            let Ok(frame) = frames.try_recv() else { break };
            encoder.encode(&frame, &mut buffer);
        }
        if writer.write_all_buf(&mut buffer).await.is_err() {
            return;
        }
    }
    // The last sender is gone: all streams and the session were let go.
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "cannot close the connection");
    }
}

async fn read_frames<IO: AsyncRead>(
    mut reader: ReadHalf<IO>,
    out: mpsc::WeakSender<Frame>,
    streams: Streams,
    accepted: mpsc::Sender<Stream>,
) {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(CHUNK * 2));
    let error = 'session: loop {
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Err(error) = take_in(frame, &out, &streams, &accepted).await {
                        break 'session error;
                    }
                }
                Ok(None) => break,
                Err(error) => break 'session error.into(),
            }
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => break StreamError::Ended,
            Ok(_) => {}
            Err(error) => break error.into(),
        }
    };
    if !matches!(error, StreamError::Ended) {
        tracing::debug!(%error, "SPDY session broken");
    }
    // Waiting readers and openers learn of the end by the drop of their channel's other side.
    let slots: Vec<Slot> = {
        let mut streams = lock(&streams);
        streams.ended = true;
        streams.slots.drain().map(|(_, slot)| slot).collect()
    };
    for slot in slots {
        if let Some(replied) = slot.replied {
            // Nobody waits any more: nothing to tell.
            let _ = replied.send(Err(StreamError::Ended));
        }
    }
}

async fn take_in(
    frame: Frame,
    out: &mpsc::WeakSender<Frame>,
    streams: &Streams,
    accepted: &mpsc::Sender<Stream>,
) -> Result<(), StreamError> {
    match frame {
        Frame::SynStream { id, headers, fin } => accept(id, headers, fin, out, streams, accepted).await?,
        Frame::SynReply { id, fin, .. } => {
            let replied = lock(streams).slots.get_mut(&id).and_then(|slot| {
                if fin {
                    slot.chunks = None;
                }
                slot.replied.take()
            });
            if let Some(replied) = replied {
                // The opener has given up: nothing to tell.
                let _ = replied.send(Ok(()));
            }
        }
        Frame::RstStream { id, status } => {
            let slot = lock(streams).slots.remove(&id);
            if let Some(slot) = slot {
                if let Some(replied) = slot.replied {
                    let _ = replied.send(Err(StreamError::Reset(status)));
                } else if let Some(chunks) = slot.chunks {
                    let _ = chunks.try_send(Err(StreamError::Reset(status)));
                }
            }
        }
        Frame::Data { id, payload, fin } => {
            let chunks = lock(streams).slots.get(&id).and_then(|slot| slot.chunks.clone());
            if let Some(chunks) = chunks
                && !payload.is_empty()
            {
                // A reader that is gone has no use for the rest.
                let _ = chunks.send(Ok(payload)).await;
            }
            if fin {
                finish_reading(streams, id);
            }
        }
        Frame::Headers { id, fin: true, .. } => finish_reading(streams, id),
        Frame::Ping { id } => {
            // Our own pings are none: every ping is the peer's and wants an answer.
            if let Some(out) = out.upgrade() {
                out.send(Frame::Ping { id }).await.map_err(|_| StreamError::Ended)?;
            }
        }
        Frame::GoAway { .. } | Frame::Headers { .. } | Frame::Other => {}
    }
    Ok(())
}

fn finish_reading(streams: &Streams, id: u32) {
    // The entry itself stays until the session ends: a few bytes, and late frames of the peer find it.
    if let Some(slot) = lock(streams).slots.get_mut(&id) {
        slot.chunks = None;
    }
}

async fn accept(
    id: u32,
    headers: Headers,
    fin: bool,
    out: &mpsc::WeakSender<Frame>,
    streams: &Streams,
    accepted: &mpsc::Sender<Stream>,
) -> Result<(), StreamError> {
    const REFUSED_STREAM: u32 = 3;
    let Some(out) = out.upgrade() else { return Err(StreamError::Ended) };
    let full = lock(streams).slots.len() >= MAX_STREAMS;
    if full || accepted.is_closed() {
        return out
            .send(Frame::RstStream { id, status: REFUSED_STREAM })
            .await
            .map_err(|_| StreamError::Ended);
    }
    let (chunks, receiver) = mpsc::channel(STREAM_BUFFER);
    lock(streams).slots.insert(id, Slot { chunks: (!fin).then_some(chunks), replied: None });
    let reply = Frame::SynReply { id, headers: Headers::new(), fin: false };
    out.send(reply).await.map_err(|_| StreamError::Ended)?;
    let stream =
        Stream { headers, reader: StreamReader { chunks: receiver }, writer: StreamWriter { id, out } };
    // The acceptor went away between the check and now: the stream is dropped with it.
    let _ = accepted.send(stream).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_type(kind: &str) -> Headers {
        vec![("streamtype".into(), kind.into())]
    }

    #[tokio::test]
    async fn streams_carry_bytes_both_ways_and_half_close() {
        let (near, far) = tokio::io::duplex(1000);
        let (client, _) = Session::start(near, Role::Client);
        let (_server, mut accept) = Session::start(far, Role::Server);
        let echo = tokio::spawn(async move {
            let stream = accept.recv().await.unwrap();
            assert_eq!(stream.header("streamtype"), Some("stdin"));
            let (mut reader, writer) = stream.split();
            let all = reader.collect(usize::MAX).await.unwrap();
            writer.send(all.into()).await.unwrap();
            writer.finish().await.unwrap();
        });
        let (mut reader, writer) = client.open(stream_type("stdin")).await.unwrap().split();
        let sent: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        writer.send(sent.clone().into()).await.unwrap();
        writer.finish().await.unwrap();
        assert!(reader.collect(usize::MAX).await.unwrap() == sent);
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_lost_connection_ends_readers_and_openers() {
        let (near, far) = tokio::io::duplex(1000);
        let (client, _) = Session::start(near, Role::Client);
        let (server, mut accept) = Session::start(far, Role::Server);
        let stream = client.open(stream_type("a")).await.unwrap();
        drop(accept.recv().await.unwrap());
        drop((server, accept));
        let (mut reader, _writer) = stream.split();
        assert!(reader.chunk().await.is_none());
        assert!(client.open(stream_type("b")).await.is_err());
    }

    #[tokio::test]
    async fn streams_nobody_accepts_are_refused() {
        let (near, far) = tokio::io::duplex(1000);
        let (client, _) = Session::start(near, Role::Client);
        let (_server, accept) = Session::start(far, Role::Server);
        drop(accept);
        assert!(matches!(client.open(stream_type("a")).await, Err(StreamError::Reset(3))));
    }
}
