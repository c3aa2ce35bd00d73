//! A hash that is the same in every process and version (names of interfaces, recognised rules). Not for secrets.
use std::hash::{Hash, Hasher};

/// FNV-1a, 64 bit.
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}
impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Hash of any hashable value; equal within one build of the program.
pub fn stable(value: &impl Hash) -> u64 {
    let mut fnv = Fnv::default();
    value.hash(&mut fnv);
    fnv.finish()
}

/// Hash of bytes; equal for ever.
pub fn bytes(parts: &[&[u8]]) -> u64 {
    let mut fnv = Fnv::default();
    for part in parts {
        fnv.write(part);
        fnv.write(&[0]);
    }
    fnv.finish()
}
