//! What a client's HTTP/2 frames may cost the others (RFC 9113, section 10.5): pure, fed with the bytes as they are read.
//!
//! Frames that no honest client sends in numbers (resets, pings, settings, continuations, empty data) end the connection
//! when there are too many; those that all send (headers, window updates, data) are read no faster than the server can
//! serve them beside others. Only the nine bytes before each frame are looked at.

use std::time::Duration;

use tokio::time::Instant;

/// The client's preface, before its first frame.
const PREFACE: usize = 24;
const HEAD: usize = 9;

/// Frame types (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// The same bit: ACK of pings and settings, END_STREAM of data.
const ACK: u8 = 1;

/// What to do after some bytes were read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Fine,
    /// Read on after this time.
    Wait(Duration),
    /// End the connection; what there was too much of.
    Cut(&'static str),
}

/// So many at once, and so many a second after that.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: f64,
    per_second: f64,
}

const fn rate(burst: u32, per_second: u32) -> Rate {
    Rate { burst: burst as f64, per_second: per_second as f64 }
}

/// A client may give up many requests at once; not again and again.
const RESETS: Rate = rate(600, 60);
/// Some clients measure the path with pings while much is read.
const PINGS: Rate = rate(300, 30);
const SETTINGS_CHANGES: Rate = rate(50, 2);
/// Heads above 16 KiB, frames without content, priorities, unknown frames.
const ODD: Rate = rate(600, 60);
/// Window updates and data.
const FLOW: Rate = rate(40_000, 40_000);
/// Bytes of heads, compressed.
const HEAD_BYTES: Rate = rate(8 << 20, 4 << 20);

/// A bucket of tokens.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Bucket {
        Bucket { rate, left: rate.burst, filled: now }
    }

    /// Takes tokens; what is owed then is negative.
    fn take(&mut self, tokens: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = now;
        self.left = (self.left + passed * self.rate.per_second).min(self.rate.burst) - tokens;
        self.left
    }

    fn has(&mut self, now: Instant) -> bool {
        self.take(1.0, now) >= 0.0
    }

    /// How long until nothing is owed.
    fn wait(&self) -> Duration {
        Duration::from_secs_f64((-self.left).max(0.0) / self.rate.per_second)
    }
}

#[derive(Debug)]
enum Place {
    Preface(usize),
    /// Bytes of a frame's head.
    Head([u8; HEAD], usize),
    /// Bytes left of a frame's content.
    Content(usize),
}

/// The frames of one connection.
#[derive(Debug)]
pub struct FrameGuard {
    place: Place,
    resets: Bucket,
    pings: Bucket,
    settings: Bucket,
    odd: Bucket,
    flow: Bucket,
    heads: Bucket,
}

impl FrameGuard {
    pub fn new(now: Instant) -> FrameGuard {
        let bucket = |rate| Bucket::new(rate, now);
        FrameGuard {
            place: Place::Preface(0),
            resets: bucket(RESETS),
            pings: bucket(PINGS),
            settings: bucket(SETTINGS_CHANGES),
            odd: bucket(ODD),
            flow: bucket(FLOW),
            heads: bucket(HEAD_BYTES),
        }
    }

    /// Looks at bytes in the order they were read.
    pub fn read(&mut self, mut bytes: &[u8], now: Instant) -> Verdict {
        while !bytes.is_empty() {
            let taken = match &mut self.place {
                Place::Preface(seen) => {
                    let taken = bytes.len().min(PREFACE - *seen);
                    *seen += taken;
                    if *seen == PREFACE {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                    taken
                }
                Place::Head(head, seen) => {
                    let taken = bytes.len().min(HEAD - *seen);
                    head[*seen..*seen + taken].copy_from_slice(&bytes[..taken]);
                    *seen += taken;
                    if *seen == HEAD {
                        let head = *head;
                        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                        self.place = match length {
                            0 => Place::Head([0; HEAD], 0),
                            length => Place::Content(length),
                        };
                        if let Some(cause) = self.frame(head[3], head[4], length, now) {
                            return Verdict::Cut(cause);
                        }
                    }
                    taken
                }
                Place::Content(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.place = Place::Head([0; HEAD], 0);
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
        match self.flow.wait().max(self.heads.wait()) {
            Duration::ZERO => Verdict::Fine,
            wait => Verdict::Wait(wait),
        }
    }

    /// Takes a frame into account; says what there is too much of.
    fn frame(&mut self, kind: u8, flags: u8, length: usize, now: Instant) -> Option<&'static str> {
        let acknowledges = flags & ACK != 0;
        let (bucket, cause) = match kind {
            HEADERS => {
                self.heads.take((HEAD + length) as f64, now);
                return None;
            }
            CONTINUATION => {
                self.heads.take((HEAD + length) as f64, now);
                (&mut self.odd, "continuations")
            }
            DATA if length == 0 && flags & ACK == 0 => (&mut self.odd, "empty frames"),
            DATA | WINDOW_UPDATE => {
                self.flow.take(1.0, now);
                return None;
            }
            RST_STREAM => (&mut self.resets, "resets"),
            PING | SETTINGS if acknowledges => {
                self.flow.take(1.0, now);
                return None;
            }
            PING => (&mut self.pings, "pings"),
            SETTINGS => (&mut self.settings, "settings"),
            _ => (&mut self.odd, "frames of other kinds"),
        };
        (!bucket.has(now)).then_some(cause)
    }

    /// A request that was refused for want of an identity costs as much as a large head.
    pub fn refused(&mut self, now: Instant) {
        self.heads.take(REFUSED_COSTS, now);
    }
}

/// About 500 refusals a second.
const REFUSED_COSTS: f64 = 8192.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], content].concat()
    }

    fn begun() -> (FrameGuard, Instant) {
        let now = Instant::now();
        let mut guard = FrameGuard::new(now);
        assert_eq!(guard.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now), Verdict::Fine);
        (guard, now)
    }

    #[test]
    fn what_no_honest_client_sends_in_numbers_ends_the_connection() {
        for (kind, content, burst, cause) in [
            (RST_STREAM, &[0; 4][..], 600, "resets"),
            (PING, &[0; 8], 300, "pings"),
            (SETTINGS, &[], 50, "settings"),
            (CONTINUATION, &[1; 20], 600, "continuations"),
            (DATA, &[], 600, "empty frames"),
            (2, &[0; 5], 600, "frames of other kinds"),
            (200, &[0; 5], 600, "frames of other kinds"),
        ] {
            let (mut guard, now) = begun();
            for sent in 0..burst {
                assert_eq!(guard.read(&frame(kind, 0, content), now), Verdict::Fine, "{cause} {sent}");
            }
            assert_eq!(guard.read(&frame(kind, 0, content), now), Verdict::Cut(cause));
        }
    }

    #[test]
    fn what_is_forgiven_comes_back_with_time() {
        let (mut guard, mut now) = begun();
        for _ in 0..20 {
            for _ in 0..60 {
                assert_eq!(guard.read(&frame(RST_STREAM, 0, &[0; 4]), now), Verdict::Fine);
            }
            now += Duration::from_secs(1);
        }
    }

    #[test]
    fn what_all_clients_send_is_slowed_down() {
        let (mut guard, now) = begun();
        let head = frame(HEADERS, 4, &[7; 16_000]);
        let mut sent = 0;
        while guard.read(&head, now) == Verdict::Fine {
            sent += head.len();
        }
        assert!((8 << 20) - sent < 2 * head.len(), "{sent}");
        assert!(matches!(guard.read(&head, now), Verdict::Wait(wait) if wait < Duration::from_millis(20)));
        assert_eq!(guard.read(&[], now + Duration::from_secs(1)), Verdict::Wait(guard.heads.wait()));
        let (mut guard, now) = begun();
        let update = frame(WINDOW_UPDATE, 0, &[0, 0, 1, 0]);
        for _ in 0..40_000 {
            assert_eq!(guard.read(&update, now), Verdict::Fine);
        }
        assert!(matches!(guard.read(&update, now), Verdict::Wait(_)));
        // Answers to the server's own pings are no attack.
        let (mut guard, now) = begun();
        for _ in 0..10_000 {
            assert_eq!(guard.read(&frame(PING, ACK, &[0; 8]), now), Verdict::Fine);
        }
    }

    #[test]
    fn frames_are_found_wherever_reads_cut_them() {
        let stream: Vec<u8> = (0..700).flat_map(|n| frame(RST_STREAM, 0, &vec![9; n % 5])).collect();
        for step in [1, 2, 7, 13, 4096] {
            let (mut guard, now) = begun();
            let cut = stream.chunks(step).position(|part| guard.read(part, now) == Verdict::Cut("resets"));
            let at = cut.expect("cut") * step;
            let exact: usize = (0..601).map(|n| HEAD + n % 5).sum::<usize>() - 600 % 5;
            assert!((exact.saturating_sub(step)..=exact).contains(&at), "{step}: {at} of {exact}");
        }
    }
}
