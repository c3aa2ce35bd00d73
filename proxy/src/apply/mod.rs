//! Brings desired tables into force: adopts what the kernel has, then sends differences, each as one batch.
//!
//! What always holds: the mirror is what the last successful batch or dump left; a refused batch leaves both the
//! kernel and the mirror as they were; a table is never flushed, and replaced (in one batch) only where another
//! version of this program laid it out differently.
mod diff;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
pub(crate) use kernel_tests::isolated;

use std::collections::BTreeMap;

pub use diff::{Diff, Mirror};
use diff::{Held, MirrorSet};
use keelson_sys::nft::dump::read_header;
use keelson_sys::nft::{Batch, NftError, TableState, batch, generation, read_elements, read_table};
use keelson_sys::nl::{NlError, Socket};

use crate::plan::{Dirty, TableSpec};

/// Batches are built anew this often when others keep changing the rules.
const TRIES: usize = 8;

/// Why rules could not be brought into force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("open a netlink socket for nftables")]
    Open(#[source] NlError),
    #[error("read table {table}")]
    Read { table: String, source: NlError },
    #[error("change table {table}")]
    Change { table: String, source: NftError },
    #[error("change table {table}: others changed the rules {TRIES} times in between")]
    Contended { table: String },
}

/// What an application did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    pub messages: usize,
    pub bytes: usize,
}

/// Holds what is in force.
pub struct Applier {
    socket: Socket,
    mirrors: BTreeMap<String, Mirror>,
    generation: u32,
}

impl Applier {
    /// In the calling thread's network namespace. Nothing is read yet: [`Applier::apply`] adopts each table first.
    pub fn open() -> Result<Applier, ApplyError> {
        let socket = batch::open().map_err(ApplyError::Open)?;
        Ok(Applier { socket, mirrors: BTreeMap::new(), generation: 0 })
    }

    /// Brings what `dirty` names into force; the first call for a table compares everything.
    pub fn apply(&mut self, table: &TableSpec, dirty: &Dirty, sweep: bool) -> Result<Applied, ApplyError> {
        let mut adopted = false;
        let mut scope = None;
        for _ in 0..TRIES {
            if !self.mirrors.contains_key(&table.name) {
                self.adopt(table)?;
                scope = None;
                adopted = true;
            }
            let Some(mirror) = self.mirrors.get_mut(&table.name) else { continue };
            let everything = adopted.then(|| scope.get_or_insert_with(|| diff::all(mirror, table)));
            let diff = Diff::new(mirror, table, everything.map_or(dirty, |d| d), sweep);
            if diff.is_empty() {
                return Ok(Applied::default());
            }
            let batch = diff.batch(table);
            let applied = Applied { messages: batch.len(), bytes: batch.bytes() };
            let remakes = mirror.handle == 0 || mirror.replace;
            match batch.send(&mut self.socket, Some(self.generation)) {
                Ok(()) => {
                    diff.commit(mirror);
                    self.generation = self.generation.wrapping_add(1).max(1);
                    if remakes {
                        self.note_handle(table)?;
                    }
                    return Ok(applied);
                }
                // Somebody else's commit; our table is as we left it unless it was removed or remade.
                Err(NftError::GenerationMoved(_)) => self.moved(table)?,
                Err(source) if !adopted => {
                    // What is in force is not what was noted: read it and try once more.
                    tracing::warn!(table = %table.name, error = %source, "rules refused, reading them anew");
                    self.mirrors.remove(&table.name);
                }
                Err(source) => return Err(ApplyError::Change { table: table.name.clone(), source }),
            }
        }
        Err(ApplyError::Contended { table: table.name.clone() })
    }

    /// Whether anything must be compared anew because others changed rules: one small exchange.
    pub fn disturbed(&mut self) -> Result<bool, ApplyError> {
        let now = generation(&mut self.socket).map_err(ApplyError::Open)?;
        Ok(now != self.generation)
    }

    /// Forgets what is noted, so that the next application compares everything.
    pub fn forget(&mut self) {
        self.mirrors.clear();
    }

    /// Chains that wait to be deleted.
    pub fn unused(&self) -> usize {
        self.mirrors.values().map(|m| m.unused.len()).sum()
    }

    fn moved(&mut self, table: &TableSpec) -> Result<(), ApplyError> {
        let read = |source| ApplyError::Read { table: table.name.clone(), source };
        self.generation = generation(&mut self.socket).map_err(read)?;
        let header = read_header(&mut self.socket, &table.name).map_err(read)?;
        let known = self.mirrors.get(&table.name).map_or(0, |m| m.handle);
        if header.map_or(0, |(handle, _)| handle) != known {
            self.mirrors.remove(&table.name);
        }
        Ok(())
    }

    fn note_handle(&mut self, table: &TableSpec) -> Result<(), ApplyError> {
        let header = read_header(&mut self.socket, &table.name)
            .map_err(|source| ApplyError::Read { table: table.name.clone(), source })?;
        if let (Some(mirror), Some((handle, _))) = (self.mirrors.get_mut(&table.name), header) {
            mirror.handle = handle;
        }
        Ok(())
    }

    /// Reads what the kernel has, between two equal generations.
    fn adopt(&mut self, table: &TableSpec) -> Result<(), ApplyError> {
        let read = |source| ApplyError::Read { table: table.name.clone(), source };
        for _ in 0..TRIES {
            let before = generation(&mut self.socket).map_err(read)?;
            let state = read_table(&mut self.socket, &table.name).map_err(read)?;
            let mirror = match state {
                None => Mirror::default(),
                Some(state) if foreign(&state, table) => {
                    Mirror { handle: state.handle, replace: true, ..Mirror::default() }
                }
                Some(state) => self.mirror(&state, table).map_err(read)?,
            };
            if generation(&mut self.socket).map_err(read)? == before {
                self.generation = before;
                self.mirrors.insert(table.name.clone(), mirror);
                return Ok(());
            }
        }
        Err(ApplyError::Contended { table: table.name.clone() })
    }

    fn mirror(&mut self, state: &TableState, table: &TableSpec) -> Result<Mirror, NlError> {
        let mut mirror = Mirror { handle: state.handle, ..Mirror::default() };
        for (name, chain) in &state.chains {
            // A rule without our hash never equals a wanted one, so its chain is written anew.
            let hashes = chain.rules.iter().map(|(_, hash)| hash.unwrap_or(0)).collect();
            mirror.chains.insert(name.clone(), hashes);
        }
        for name in state.sets.keys() {
            let mut held = MirrorSet::default();
            if let Some(set) = table.sets.get(name) {
                held.dynamic = set.spec.dynamic;
                if !held.dynamic {
                    let elements = read_elements(&mut self.socket, &table.name, &set.spec)?;
                    held.elements = elements.iter().map(|e| (e.key.clone(), Held::of(e))).collect();
                }
            }
            mirror.sets.insert(name.clone(), held);
        }
        Ok(mirror)
    }
}

/// A table that cannot be changed step by step: another layout, or hooks or types that differ.
fn foreign(state: &TableState, table: &TableSpec) -> bool {
    state.userdata != table.userdata
        || table.chains.iter().any(|(name, chain)| {
            state.chains.get(name).is_some_and(|held| held.foreign || held.base != chain.base)
        })
        || table.sets.iter().any(|(name, set)| state.sets.get(name).is_some_and(|s| !s.matches(&set.spec)))
}

/// Removes a table with all in it. Returns whether there was one.
pub fn remove_table(name: &str) -> Result<bool, ApplyError> {
    let mut socket = batch::open().map_err(ApplyError::Open)?;
    let read = |source| ApplyError::Read { table: name.to_owned(), source };
    if read_header(&mut socket, name).map_err(read)?.is_none() {
        return Ok(false);
    }
    let mut batch = Batch::new();
    batch.delete_table(name);
    batch.send(&mut socket, None).map_err(|source| ApplyError::Change { table: name.to_owned(), source })?;
    Ok(true)
}
