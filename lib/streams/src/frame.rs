//! SPDY/3.1 frames and header blocks (SPDY Protocol - Draft 3.1, section 2.2 and 2.6).

use crate::dictionary::dictionary;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Longest payload we accept in one frame. Upstream's peers send at most 32 KiB.
pub const MAX_PAYLOAD: usize = 1 << 20;
/// Longest header block after decompression.
const MAX_HEADER_BLOCK: usize = 64 << 10;
/// Most headers in a block.
const MAX_HEADERS: u32 = 128;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 0x01;
/// FIN on a SYN_STREAM or SYN_REPLY, or UNIDIRECTIONAL (0x02), which upstream never sends.
const TYPE_SYN_STREAM: u16 = 1;
const TYPE_SYN_REPLY: u16 = 2;
const TYPE_RST_STREAM: u16 = 3;
const TYPE_SETTINGS: u16 = 4;
const TYPE_PING: u16 = 6;
const TYPE_GOAWAY: u16 = 7;
const TYPE_HEADERS: u16 = 8;
const TYPE_WINDOW_UPDATE: u16 = 9;

/// Header names in lower case with their values, in order.
pub type Headers = Vec<(String, String)>;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    SynReply {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    RstStream {
        id: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: u32,
    },
    Headers {
        id: u32,
        headers: Headers,
        fin: bool,
    },
    Data {
        id: u32,
        payload: Bytes,
        fin: bool,
    },
    /// SETTINGS, WINDOW_UPDATE and unknown control frames: read and let go, as upstream's peers do.
    Other,
}

/// Why bytes are no SPDY.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("SPDY version {0}, not 3")]
    Version(u16),
    #[error("frame of {0} bytes is longer than {MAX_PAYLOAD}")]
    TooLong(usize),
    #[error("control frame of type {0} is cut short")]
    Short(u16),
    #[error("header block is damaged or too large")]
    HeaderBlock,
}

/// Writes frames; header blocks of one connection share one compression context.
pub struct Encoder {
    compress: Compress,
}

/// Reads frames.
pub struct Decoder {
    decompress: Decompress,
    dictionary_set: bool,
}

impl Default for Encoder {
    fn default() -> Self {
        let mut compress = Compress::new(Compression::default(), true);
        // A fresh context takes any dictionary.
        let set = compress.set_dictionary(&dictionary());
        debug_assert!(set.is_ok());
        Encoder { compress }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { decompress: Decompress::new(true), dictionary_set: false }
    }
}

impl Encoder {
    /// Appends the frame's bytes.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, headers, fin } => {
                let block = self.header_block(headers);
                control(out, TYPE_SYN_STREAM, flags(*fin), block.len() + 10);
                out.put_u32(*id);
                out.put_u32(0); // associated to no stream
                out.put_u16(0); // highest priority, no slot
                out.put_slice(&block);
            }
            Frame::SynReply { id, headers, fin } => self.reply(TYPE_SYN_REPLY, *id, headers, *fin, out),
            Frame::Headers { id, headers, fin } => self.reply(TYPE_HEADERS, *id, headers, *fin, out),
            Frame::RstStream { id, status } => {
                control(out, TYPE_RST_STREAM, 0, 8);
                out.put_u32(*id);
                out.put_u32(*status);
            }
            Frame::Ping { id } => {
                control(out, TYPE_PING, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last } => {
                control(out, TYPE_GOAWAY, 0, 8);
                out.put_u32(*last);
                out.put_u32(0);
            }
            Frame::Data { id, payload, fin } => {
                out.put_u32(*id);
                out.put_u32(u32::from(flags(*fin)) << 24 | payload.len() as u32);
                out.put_slice(payload);
            }
            Frame::Other => {}
        }
    }

    fn reply(&mut self, kind: u16, id: u32, headers: &Headers, fin: bool, out: &mut BytesMut) {
        let block = self.header_block(headers);
        control(out, kind, flags(fin), block.len() + 4);
        out.put_u32(id);
        out.put_slice(&block);
    }

    fn header_block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::with_capacity(256);
        plain.put_u32(headers.len() as u32);
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            plain.put_u32(name.len() as u32);
            plain.put_slice(name.as_bytes());
            plain.put_u32(value.len() as u32);
            plain.put_slice(value.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        let begun = self.compress.total_in();
        loop {
            let done = (self.compress.total_in() - begun) as usize;
            let spare = block.capacity();
            let result = self.compress.compress_vec(&plain[done..], &mut block, FlushCompress::Sync);
            let all_in = (self.compress.total_in() - begun) as usize == plain.len();
            // Output that fills the buffer to its end may have left some behind.
            if result.is_err() || (all_in && block.len() < spare) {
                return block;
            }
            block.reserve(256);
        }
    }
}

fn flags(fin: bool) -> u8 {
    if fin { FLAG_FIN } else { 0 }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

impl Decoder {
    /// Takes one whole frame off the front of `input`; `None` when more bytes are needed.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if input.len() < 8 {
            return Ok(None);
        }
        let first = u32::from_be_bytes([input[0], input[1], input[2], input[3]]);
        let second = u32::from_be_bytes([input[4], input[5], input[6], input[7]]);
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        if input.len() < 8 + length {
            input.reserve(8 + length - input.len());
            return Ok(None);
        }
        input.advance(8);
        let payload = input.split_to(length).freeze();
        let fin = flags & FLAG_FIN != 0;
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { id: first, payload, fin }));
        }
        let (version, kind) = ((first >> 16) as u16 & 0x7fff, first as u16);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        self.control(kind, payload, fin).map(Some)
    }

    fn control(&mut self, kind: u16, mut payload: Bytes, fin: bool) -> Result<Frame, FrameError> {
        let least = match kind {
            TYPE_SYN_STREAM => 10,
            TYPE_RST_STREAM | TYPE_GOAWAY | TYPE_WINDOW_UPDATE => 8,
            TYPE_SYN_REPLY | TYPE_HEADERS | TYPE_PING | TYPE_SETTINGS => 4,
            _ => return Ok(Frame::Other),
        };
        if payload.len() < least {
            return Err(FrameError::Short(kind));
        }
        Ok(match kind {
            TYPE_SYN_STREAM => {
                let id = payload.get_u32();
                payload.advance(6);
                Frame::SynStream { id, headers: self.header_block(&payload)?, fin }
            }
            TYPE_SYN_REPLY => {
                let id = payload.get_u32();
                Frame::SynReply { id, headers: self.header_block(&payload)?, fin }
            }
            TYPE_HEADERS => {
                let id = payload.get_u32();
                Frame::Headers { id, headers: self.header_block(&payload)?, fin }
            }
            TYPE_RST_STREAM => Frame::RstStream { id: payload.get_u32(), status: payload.get_u32() },
            TYPE_PING => Frame::Ping { id: payload.get_u32() },
            TYPE_GOAWAY => Frame::GoAway { last: payload.get_u32() },
            _ => Frame::Other,
        })
    }

    fn header_block(&mut self, block: &[u8]) -> Result<Headers, FrameError> {
        let mut plain = Vec::with_capacity(512);
        let mut rest = block;
        loop {
            if plain.len() == plain.capacity() {
                plain.reserve(4096);
            }
            let (taken, given) = (self.decompress.total_in(), plain.len());
            let result = self.decompress.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            rest = &rest[(self.decompress.total_in() - taken) as usize..];
            if plain.len() > MAX_HEADER_BLOCK {
                return Err(FrameError::HeaderBlock);
            }
            match result {
                Err(error) if error.needs_dictionary().is_some() && !self.dictionary_set => {
                    self.dictionary_set = true;
                    self.decompress.set_dictionary(&dictionary()).map_err(|_| FrameError::HeaderBlock)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::HeaderBlock),
                Ok(_) if rest.is_empty() && plain.len() < plain.capacity() => break,
                Ok(_) if plain.len() == given && plain.len() < plain.capacity() => break,
                Ok(_) => {}
            }
        }
        parse_headers(&plain).ok_or(FrameError::HeaderBlock)
    }
}

fn parse_headers(mut plain: &[u8]) -> Option<Headers> {
    let text = |plain: &mut &[u8]| -> Option<String> {
        let length = plain.try_get_u32().ok()? as usize;
        let (text, rest) = plain.split_at_checked(length)?;
        *plain = rest;
        String::from_utf8(text.to_vec()).ok()
    };
    let count = plain.try_get_u32().ok()?;
    if count > MAX_HEADERS {
        return None;
    }
    (0..count).map(|_| Some((text(&mut plain)?, text(&mut plain)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn frames_survive_a_round_trip_in_any_cut() {
        let frames = [
            Frame::SynStream { id: 1, headers: vec![header("streamtype", "error")], fin: false },
            Frame::SynStream {
                id: 3,
                headers: vec![header("streamtype", "stdin"), header("a", "")],
                fin: true,
            },
            Frame::SynReply { id: 1, headers: vec![], fin: false },
            Frame::Data { id: 3, payload: Bytes::from(vec![7; 40_000]), fin: true },
            Frame::Headers { id: 1, headers: vec![header("x", &"y".repeat(5000))], fin: true },
            Frame::RstStream { id: 3, status: 5 },
            Frame::Ping { id: 9 },
            Frame::GoAway { last: 3 },
        ];
        let mut bytes = BytesMut::new();
        let mut encoder = Encoder::default();
        frames.iter().for_each(|frame| encoder.encode(frame, &mut bytes));
        for cut in [1, 7, 4096, bytes.len()] {
            let (mut decoder, mut input, mut read) = (Decoder::default(), BytesMut::new(), Vec::new());
            for chunk in bytes.chunks(cut) {
                input.extend_from_slice(chunk);
                while let Some(frame) = decoder.decode(&mut input).unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames, "cut {cut}");
        }
    }

    #[test]
    fn damaged_input_is_an_error_and_never_a_panic() {
        let decode = |bytes: &[u8]| Decoder::default().decode(&mut BytesMut::from(bytes));
        assert_eq!(decode(&[0x80, 2, 0, 1, 0, 0, 0, 0]), Err(FrameError::Version(2)));
        assert_eq!(decode(&[0x80, 3, 0, 1, 0, 0, 0, 0]), Err(FrameError::Short(1)));
        assert_eq!(decode(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]), Err(FrameError::TooLong(0x00ff_ffff)));
        let block = [0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4];
        assert_eq!(decode(&block), Err(FrameError::HeaderBlock));
        assert_eq!(parse_headers(&[0xff; 8]), None);
    }
}
