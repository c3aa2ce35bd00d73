//! Checksums of what is written, for files that are checked when they are read.

use sha2::{Digest as _, Sha256};
use std::io::{self, Write};

/// Hashes what passes.
pub struct Hashed<W> {
    pub inner: W,
    pub hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
