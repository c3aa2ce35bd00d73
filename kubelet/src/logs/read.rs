//! Reading of CRI log files: one line's parts, and where the last lines of a file begin.
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// Longest line that is taken whole; the runtime splits at 16 KiB, so a longer one is not a log line.
pub const MAX_LINE: usize = 1 << 20;

/// One line of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 with nanoseconds, as the runtime wrote it.
    pub time: &'a str,
    pub stream: Stream,
    /// The text goes on in the next line.
    pub partial: bool,
    pub text: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Takes a line apart (without its newline); `None` when it is not one.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let tag = parts.next()?;
    let partial = tag.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time, stream, partial, text: parts.next().unwrap_or_default() })
}

/// Offset where the last `count` lines (as programs wrote them: a partial line counts with its end) begin.
pub fn tail_offset(file: &mut File, count: usize) -> io::Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let end = file.seek(SeekFrom::End(0))?;
    if count == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut data: Vec<u8> = Vec::new();
    loop {
        let step = BLOCK.min(position);
        position -= step;
        file.seek(SeekFrom::Start(position))?;
        let mut block = vec![0; step as usize];
        file.read_exact(&mut block)?;
        block.extend_from_slice(&data);
        data = block;
        if let Some(offset) = find_tail(&data, count, position == 0) {
            return Ok(position + offset as u64);
        }
        if position == 0 {
            return Ok(0);
        }
    }
}

/// Start of the last `count` whole lines within `data`; `None` when more must be read.
fn find_tail(data: &[u8], count: usize, whole: bool) -> Option<usize> {
    let mut starts: Vec<usize> = if whole { vec![0] } else { vec![] };
    starts.extend(data.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1));
    if starts.last() == Some(&data.len()) {
        starts.pop();
    }
    // A line begins where the one before it is not partial.
    let mut seen = 0;
    for (index, start) in starts.iter().enumerate().rev() {
        let before = match index {
            0 if whole => None,
            0 => return None,
            _ => Some(&data[starts[index - 1]..start.saturating_sub(1)]),
        };
        let continues = before.and_then(parse).is_some_and(|line| line.partial);
        if !continues {
            seen += 1;
            if seen == count {
                return Some(*start);
            }
        }
    }
    None
}

/// The last lines of a log as plain text, at most `limit` bytes from the end.
pub fn tail_text(path: &Path, lines: usize, limit: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let offset = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(16 << 20).read_to_end(&mut data)?;
        Ok(data)
    };
    let data = read().unwrap_or_default();
    let mut text = Vec::new();
    for line in data.split(|b| *b == b'\n').filter_map(parse) {
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(limit);
    String::from_utf8_lossy(&text[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_apart() {
        let line = parse(b"2024-01-01T00:00:00.1Z stdout F hello  world ").unwrap();
        assert_eq!(
            (line.stream, line.partial, line.text),
            (Stream::Stdout, false, b"hello  world ".as_slice())
        );
        assert!(parse(b"2024 stderr P:x part").unwrap().partial);
        assert_eq!(parse(b"t stdout F").unwrap().text, b"");
        assert_eq!(parse(b"garbage"), None);
    }

    #[test]
    fn the_tail_counts_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut text = String::new();
        for i in 0..5000 {
            text.push_str(&format!("t stdout F line {i}\n"));
        }
        text.push_str("t stdout P half \nt stdout F whole\n");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(tail_text(&path, 1, 1000), "half whole\n");
        assert_eq!(tail_text(&path, 3, 1000), "line 4998\nline 4999\nhalf whole\n");
        assert_eq!(tail_text(&path, 100_000, 20), "line 4999\nhalf whole\n"[1..].to_owned());
        assert_eq!(tail_text(&path, 0, 100), "");
        let mut file = File::open(&path).unwrap();
        assert_eq!(tail_offset(&mut file, 1_000_000).unwrap(), 0);
    }
}
