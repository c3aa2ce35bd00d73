//! The `keelson` binary: the composition root.
fn main() {}
