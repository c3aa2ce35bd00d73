//! Streaming a container's log to a client: from where it asks, through rotation, as lines come.
use super::read::{MAX_LINE, Stream, parse, tail_offset};
use bytes::Bytes;
use jiff::Timestamp;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::mpsc;

/// How often a followed file is looked at for more; only while somebody follows.
const POLL: Duration = Duration::from_millis(100);
const BLOCK: usize = 32 << 10;

/// What a client wants of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail: Option<usize>,
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit: Option<u64>,
    /// One of the two streams only.
    pub stream: Option<Stream>,
}

/// Sends a log. `ended` tells whether the container writes no more. Returns when all is sent, the limit is reached, or
/// the client is gone.
pub async fn send(
    path: PathBuf,
    options: LogOptions,
    out: mpsc::Sender<Bytes>,
    mut ended: impl AsyncFnMut() -> bool,
) -> io::Result<()> {
    let mut file = tokio::fs::File::open(&path).await?;
    if let Some(count) = options.tail {
        let mut plain = file.try_clone().await?.into_std().await;
        let offset = tokio::task::spawn_blocking(move || tail_offset(&mut plain, count))
            .await
            .map_err(io::Error::other)??;
        file.seek(io::SeekFrom::Start(offset)).await?;
    }
    let mut writer = Writer { limit: options.limit, options, out, line_begun: false };
    let mut pending: Vec<u8> = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut last_look = false;
    loop {
        let read = file.read(&mut block).await?;
        if read > 0 {
            last_look = false;
            pending.extend_from_slice(&block[..read]);
            let Some(end) = pending.iter().rposition(|b| *b == b'\n') else {
                // No newline in a megabyte: not a log line, and nothing to keep.
                if pending.len() > MAX_LINE {
                    pending.clear();
                }
                continue;
            };
            let rest = pending.split_off(end + 1);
            let lines = std::mem::replace(&mut pending, rest);
            if !writer.lines(&lines).await {
                return Ok(());
            }
            continue;
        }
        if !writer.options.follow || writer.out.is_closed() {
            return Ok(());
        }
        if let Some(next) = rotated(&path, &file).await {
            // The old file was read to its end after the new one appeared: nothing is missed.
            if last_look {
                file = next;
                pending.clear();
                last_look = false;
            } else {
                last_look = true;
            }
            continue;
        }
        if last_look {
            return Ok(());
        }
        if ended().await {
            // What was written between the last read and the end is read once more.
            last_look = true;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = writer.out.closed() => return Ok(()),
        }
    }
}

/// The file that lies at `path` now, if it is another one.
async fn rotated(path: &Path, file: &tokio::fs::File) -> Option<tokio::fs::File> {
    let own = file.metadata().await.ok()?;
    let there = tokio::fs::metadata(path).await.ok()?;
    if (own.dev(), own.ino()) == (there.dev(), there.ino()) {
        return None;
    }
    tokio::fs::File::open(path).await.ok()
}

struct Writer {
    options: LogOptions,
    limit: Option<u64>,
    out: mpsc::Sender<Bytes>,
    /// The last part sent was a partial line: what follows continues it.
    line_begun: bool,
}

impl Writer {
    /// Sends whole lines; false when no more is wanted.
    async fn lines(&mut self, data: &[u8]) -> bool {
        let mut text = Vec::with_capacity(data.len());
        for line in data.split(|b| *b == b'\n').filter_map(parse) {
            if self.options.stream.is_some_and(|wanted| wanted != line.stream) {
                continue;
            }
            if let Some(since) = self.options.since {
                let before = line.time.parse::<Timestamp>().is_ok_and(|time| time < since);
                if before {
                    continue;
                }
                self.options.since = None;
            }
            if self.options.timestamps && !self.line_begun {
                text.extend_from_slice(line.time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(line.text);
            if !line.partial {
                text.push(b'\n');
            }
            self.line_begun = line.partial;
        }
        let mut done = false;
        if let Some(limit) = &mut self.limit {
            let allowed = usize::try_from(*limit).unwrap_or(usize::MAX);
            done = text.len() >= allowed;
            text.truncate(allowed);
            *limit -= text.len() as u64;
        }
        let sent = text.is_empty() || self.out.send(Bytes::from(text)).await.is_ok();
        sent && !done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    async fn all(path: &Path, options: LogOptions) -> String {
        let (sender, mut receiver) = mpsc::channel(4);
        let task = tokio::spawn(send(path.to_path_buf(), options, sender, async || true));
        let mut text = Vec::new();
        while let Some(data) = receiver.recv().await {
            text.extend_from_slice(&data);
        }
        task.await.unwrap().unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let log = "2024-01-01T00:00:00Z stdout F a\n2024-01-01T00:00:01Z stderr F b\n\
                   2024-01-01T00:00:02Z stdout P c\n2024-01-01T00:00:03Z stdout F d\n";
        std::fs::write(&path, log).unwrap();
        let plain = LogOptions::default;
        assert_eq!(all(&path, plain()).await, "a\nb\ncd\n");
        assert_eq!(all(&path, LogOptions { tail: Some(1), ..plain() }).await, "cd\n");
        assert_eq!(all(&path, LogOptions { limit: Some(3), ..plain() }).await, "a\nb");
        assert_eq!(all(&path, LogOptions { stream: Some(Stream::Stderr), ..plain() }).await, "b\n");
        let since = Some("2024-01-01T00:00:01Z".parse().unwrap());
        assert_eq!(all(&path, LogOptions { since, ..plain() }).await, "b\ncd\n");
        let stamped = all(&path, LogOptions { timestamps: true, tail: Some(2), ..plain() }).await;
        assert_eq!(stamped, "2024-01-01T00:00:01Z b\n2024-01-01T00:00:02Z cd\n");
    }

    #[tokio::test]
    async fn following_goes_through_rotation_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let append = |path: &Path, text: &str| {
            use std::io::Write as _;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "t stdout F {text}").unwrap();
        };
        append(&path, "one");
        let over = Arc::new(AtomicBool::new(false));
        let (sender, mut receiver) = mpsc::channel(4);
        let flag = over.clone();
        let options = LogOptions { follow: true, ..LogOptions::default() };
        let task =
            tokio::spawn(send(path.clone(), options, sender, async move || flag.load(Ordering::Relaxed)));
        assert_eq!(receiver.recv().await.unwrap(), "one\n");
        append(&path, "two");
        assert_eq!(receiver.recv().await.unwrap(), "two\n");
        let old = dir.path().join("0.log.old");
        std::fs::rename(&path, &old).unwrap();
        append(&old, "three");
        append(&path, "four");
        assert_eq!(receiver.recv().await.unwrap(), "three\n");
        assert_eq!(receiver.recv().await.unwrap(), "four\n");
        append(&path, "five");
        over.store(true, Ordering::Relaxed);
        assert_eq!(receiver.recv().await.unwrap(), "five\n");
        assert_eq!(receiver.recv().await, None);
        task.await.unwrap().unwrap();
    }
}
