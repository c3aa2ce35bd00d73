//! Fuzz targets: one per reader of bytes that clients send (`make fuzz`).
//!
//! What always holds of every target: it does not panic, takes no more memory than [`MEMORY_FACTOR`] times its input (and
//! what that asks to be made) beside its base, and its time grows with its input, not faster (`tests/growth.rs`). [`run`]
//! checks the first two on any input; libFuzzer (`src/main.rs`, behind the feature `libfuzzer`) looks for inputs, guided
//! by coverage. `seeds/<target>/` is where it begins; what it found lies in `found/<target>/` and is replayed by
//! `tests/replay.rs` on every change.

mod growth;
mod targets;

pub use growth::{Grown, grown};
pub use targets::{TARGETS, Target, parts};

use std::path::PathBuf;

/// Counts what is allocated.
#[global_allocator]
static ALLOCATED: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// How many bytes a target may hold at once for each byte of input.
pub const MEMORY_FACTOR: usize = 64;
/// What most targets may hold whatever the input: an object's defaults, a table of columns, an error's text.
const MEMORY_BASE: usize = 64 * 1024;

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs a target on an input; panics if it took too much memory. One at a time in a process: the count is the process's.
pub fn run(target: &Target, input: &[u8]) -> usize {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    (target.run)(input);
    let held = ALLOCATED.peak_usage().saturating_sub(before);
    let limit = |length: usize| target.base + MEMORY_FACTOR * length;
    if held > limit(input.len()) {
        let (length, asked) = (input.len(), (target.asks)(input));
        let limit = limit(length + asked);
        let name = target.name;
        assert!(
            held <= limit,
            "{name}: {held} bytes held for {length} of input and {asked} it asks for (limit {limit})"
        );
    }
    held
}

/// Makes what is made once, so that it is not counted as an input's: tables, patterns, descriptions.
pub fn warm_up() {
    for target in TARGETS {
        for (name, input) in inputs(target) {
            // A case that was found may still fail, and is for its own target to tell.
            if name.starts_with("seeds/") {
                (target.run)(&input);
            }
        }
    }
}

/// The seeds and the cases found for a target, each with its path below the crate's folder.
pub fn inputs(target: &Target) -> Vec<(String, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["seeds", "found"] {
        let folder = format!("{folder}/{}", target.name);
        let Ok(entries) = std::fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            all.push((name, std::fs::read(entry.path()).expect("a readable input")));
        }
    }
    all.sort();
    all
}
