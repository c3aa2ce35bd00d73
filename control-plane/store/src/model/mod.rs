//! The model-based test that every back end passes, and the proofs that it can fail.
//!
//! A seed makes a run: random transactions with guards in groups, reads of the newest and of old states, pages, watches
//! that are slow, resumed and dropped, compactions, clean reopens, and for SQLite crashes that lose and tear what was
//! not synced, failed writes and fsyncs, and full disks. Every answer is compared with [`truth::Truth`]. A violation
//! names the seed and the operation; the same seed replays it.
//!
//! `KEELSON_MODEL_OPERATIONS` and `KEELSON_MODEL_SEED` make longer or other runs.

mod driver;
mod etcd;
mod expiry;
mod runs;
mod truth;
