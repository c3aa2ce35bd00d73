//! HTTP/2 and HTTP/1.1 by hand, over TLS.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Frames of RFC 9113 and heads of RFC 7541, uncompressed.
pub mod frames {
    pub fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    }

    /// A header field that is not indexed.
    pub fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut out = vec![0];
        string(name, &mut out);
        string(value, &mut out);
        out
    }

    fn string(text: &str, out: &mut Vec<u8>) {
        let mut length = text.len();
        if length < 127 {
            out.push(length as u8);
        } else {
            out.push(127);
            length -= 127;
            while length >= 128 {
                out.push((length % 128 + 128) as u8);
                length /= 128;
            }
            out.push(length as u8);
        }
        out.extend_from_slice(text.as_bytes());
    }

    /// The head of a GET.
    pub fn block(path: &str) -> Vec<u8> {
        // :method GET and :scheme https are the static table's 2 and 7, :path is the name of its 4, :authority of its 1.
        let mut out = vec![0x82, 0x87, 0x04];
        string(path, &mut out);
        out.push(0x01);
        string("127.0.0.1", &mut out);
        out
    }

    /// A whole request.
    pub fn get(stream: u32, path: &str) -> Vec<u8> {
        frame(1, 5, stream, &block(path))
    }
}

/// A TLS connection whose bytes are the test's own.
pub struct Raw {
    pub stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Raw {
    pub fn new(stream: TlsStream<TcpStream>) -> Raw {
        Raw { stream, buffer: Vec::new() }
    }

    /// HTTP/2's preface, with this window for every stream.
    pub async fn begin(&mut self, window: u32) {
        let mut setting = vec![0, 4];
        setting.extend_from_slice(&window.to_be_bytes());
        let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frames::frame(4, 0, 0, &setting)].concat();
        self.send(&hello).await;
    }

    /// False when the connection is gone. What comes meanwhile is read and thrown away, so that the server is never kept from
    /// reading by its own answers.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut thrown = [0; 16 * 1024];
        let write = async {
            writer.write_all(bytes).await?;
            writer.flush().await
        };
        tokio::pin!(write);
        loop {
            tokio::select! {
                biased;
                read = reader.read(&mut thrown) => match read {
                    Ok(0) | Err(_) => return false,
                    Ok(length) => self.buffer.extend_from_slice(&thrown[..length.min((1 << 20) - self.buffer.len().min(1 << 20))]),
                },
                written = &mut write => return written.is_ok(),
            }
        }
    }

    /// Reads until a frame of this kind and stream has come.
    pub async fn until_frame(&mut self, kind: u8, stream: u32, limit: Duration) {
        let search = async {
            let mut bytes = [0; 16 * 1024];
            loop {
                while self.buffer.len() >= 9 {
                    let head = &self.buffer[..9];
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                    let found =
                        head[3] == kind && u32::from_be_bytes([head[5], head[6], head[7], head[8]]) == stream;
                    if self.buffer.len() < 9 + length {
                        break;
                    }
                    self.buffer.drain(..9 + length);
                    if found {
                        return;
                    }
                }
                let length = self.stream.read(&mut bytes).await.expect("it goes on");
                assert!(length > 0, "the connection ended before frame {kind} of stream {stream}");
                self.buffer.extend_from_slice(&bytes[..length]);
            }
        };
        tokio::time::timeout(limit, search)
            .await
            .unwrap_or_else(|_| panic!("no frame {kind} of stream {stream} in {limit:?}"));
    }

    /// Whether the server ends the connection in time.
    pub async fn ends(&mut self, limit: Duration) -> bool {
        ends(&mut self.stream, limit).await
    }

    /// How many bytes are still there until the end.
    pub async fn rest(&mut self, limit: Duration) -> usize {
        let read = async {
            let (mut bytes, mut all) = ([0; 64 * 1024], self.buffer.len());
            while let Ok(length) = self.stream.read(&mut bytes).await {
                if length == 0 {
                    break;
                }
                all += length;
            }
            all
        };
        tokio::time::timeout(limit, read).await.expect("an end in time")
    }
}

/// Whether the other side ends a connection in time.
pub async fn ends(stream: &mut (impl AsyncRead + Unpin), limit: Duration) -> bool {
    let mut bytes = [0; 4096];
    let read = async { while stream.read(&mut bytes).await.is_ok_and(|length| length > 0) {} };
    tokio::time::timeout(limit, read).await.is_ok()
}
