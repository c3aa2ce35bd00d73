//! What must be sent so that the kernel's table becomes the desired one. Pure.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use keelson_sys::nft::{Base, Batch, Chain, Data, Element, Rule, SetSpec};

use crate::plan::{Dirty, TableSpec};

/// A set as it is in force.
#[derive(Debug, Clone, Default)]
pub struct MirrorSet {
    /// Data by key; not kept for sets that rules fill.
    pub elements: HashMap<Vec<u8>, Held>,
    pub dynamic: bool,
}

/// What an element carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub key_end: Option<Vec<u8>>,
    pub data: Data,
}

impl Held {
    pub fn of(element: &Element) -> Held {
        Held { key_end: element.key_end.clone(), data: element.data.clone() }
    }
    fn element(&self, key: &[u8]) -> Element {
        Element { key: key.to_vec(), key_end: self.key_end.clone(), data: self.data.clone() }
    }
}

/// A table as it is in force.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// The kernel's number for this table; 0 where there is none.
    pub handle: u64,
    /// Hashes of the rules, in order.
    pub chains: HashMap<String, Vec<u64>>,
    pub sets: HashMap<String, MirrorSet>,
    /// Emptied chains that nothing points to any more, to be deleted later.
    pub unused: BTreeSet<String>,
    /// The table is of another make: it is replaced whole.
    pub replace: bool,
}

/// A batch's content.
#[derive(Debug, Default)]
pub struct Diff<'a> {
    make_table: bool,
    replace: bool,
    add_sets: Vec<&'a SetSpec>,
    add_chains: Vec<(&'a str, Option<Base>)>,
    /// Chains whose rules are written anew; true: old rules must go first.
    write: Vec<(&'a str, bool, &'a [Rule])>,
    /// By set: elements to delete, elements to add.
    elements: BTreeMap<&'a str, (Vec<Element>, Vec<Element>)>,
    empty_chains: Vec<String>,
    delete_sets: Vec<String>,
    delete_chains: Vec<String>,
}

impl<'a> Diff<'a> {
    /// Compares what is named in `dirty`. Chains that are no longer wanted are emptied now and deleted by a later
    /// diff with `sweep`: before Linux 6.2 a chain counts as used for a moment after the last element that names it.
    pub fn new(mirror: &Mirror, table: &'a TableSpec, dirty: &Dirty, sweep: bool) -> Diff<'a> {
        let mut diff = Diff { make_table: mirror.handle == 0, replace: mirror.replace, ..Diff::default() };
        for name in &dirty.sets {
            match (table.sets.get(name), mirror.sets.contains_key(name)) {
                (Some(set), false) => diff.add_sets.push(&set.spec),
                (None, true) => diff.delete_sets.push(name.clone()),
                _ => {}
            }
        }
        for name in &dirty.chains {
            diff.chain(mirror, table, name);
        }
        for (set, key) in &dirty.elements {
            diff.element(mirror, table, set, key);
        }
        if sweep {
            diff.delete_chains =
                mirror.unused.iter().filter(|c| !table.chains.contains_key(*c)).cloned().collect();
        }
        diff
    }

    fn chain(&mut self, mirror: &Mirror, table: &'a TableSpec, name: &str) {
        let held = mirror.chains.get(name);
        match (table.chains.get_key_value(name), held) {
            (Some((name, chain)), held) => {
                if held.is_none() {
                    self.add_chains.push((name, chain.base));
                }
                let same = held.is_some_and(|hashes| {
                    hashes.len() == chain.rules.len()
                        && hashes.iter().zip(&chain.rules).all(|(h, rule)| *h == rule.content_hash())
                });
                if !same && (held.is_some_and(|h| !h.is_empty()) || !chain.rules.is_empty()) {
                    self.write.push((name, held.is_some_and(|h| !h.is_empty()), &chain.rules));
                }
            }
            (None, Some(hashes)) if !hashes.is_empty() || !mirror.unused.contains(name) => {
                self.empty_chains.push(name.to_owned());
            }
            (None, _) => {}
        }
    }

    fn element(&mut self, mirror: &Mirror, table: &'a TableSpec, set: &str, key: &[u8]) {
        let Some((name, entry)) = table.sets.get_key_value(set) else { return };
        let wanted = entry.elements.get(key);
        let held = mirror.sets.get(set).and_then(|s| s.elements.get(key));
        if held == wanted.map(Held::of).as_ref() {
            return;
        }
        let (delete, add) = self.elements.entry(name).or_default();
        delete.extend(held.map(|h| h.element(key)));
        add.extend(wanted.cloned());
    }

    pub fn is_empty(&self) -> bool {
        !self.replace
            && !self.make_table
            && self.add_sets.is_empty()
            && self.add_chains.is_empty()
            && self.write.is_empty()
            && self.elements.is_empty()
            && self.empty_chains.is_empty()
            && self.delete_sets.is_empty()
            && self.delete_chains.is_empty()
    }

    /// The batch. The order: what is pointed to before what points to it, and the reverse for removal.
    pub fn batch(&self, table: &TableSpec) -> Batch {
        let mut batch = Batch::new();
        let name = table.name.as_str();
        if self.replace {
            batch.delete_table(name);
        }
        if self.make_table || self.replace {
            batch.add_table(name, &table.userdata);
        }
        self.add_sets.iter().for_each(|spec| batch.add_set(name, spec));
        for (chain, base) in &self.add_chains {
            batch.add_chain(name, &Chain { name: (*chain).to_owned(), base: *base });
        }
        for (chain, flush, rules) in &self.write {
            if *flush {
                batch.flush_chain(name, chain);
            }
            rules.iter().for_each(|rule| batch.add_rule(name, chain, rule));
        }
        for (set, (delete, add)) in &self.elements {
            if let Some(entry) = table.sets.get(*set) {
                batch.delete_elements(name, &entry.spec, delete);
                batch.add_elements(name, &entry.spec, add);
            }
        }
        self.empty_chains.iter().for_each(|chain| batch.flush_chain(name, chain));
        self.delete_sets.iter().for_each(|set| batch.delete_set(name, set));
        self.delete_chains.iter().for_each(|chain| batch.delete_chain(name, chain));
        batch
    }

    /// Notes in the mirror what the batch did.
    pub fn commit(self, mirror: &mut Mirror) {
        if self.replace {
            *mirror = Mirror { handle: mirror.handle, ..Mirror::default() };
        }
        for spec in self.add_sets {
            mirror
                .sets
                .insert(spec.name.clone(), MirrorSet { dynamic: spec.dynamic, ..MirrorSet::default() });
        }
        for (chain, _) in self.add_chains {
            mirror.chains.insert(chain.to_owned(), Vec::new());
        }
        for (chain, _, rules) in self.write {
            mirror.chains.insert(chain.to_owned(), rules.iter().map(Rule::content_hash).collect());
            mirror.unused.remove(chain);
        }
        for (set, (delete, add)) in self.elements {
            let Some(held) = mirror.sets.get_mut(set) else { continue };
            delete.iter().for_each(|e| drop(held.elements.remove(&e.key)));
            held.elements.extend(add.iter().map(|e| (e.key.clone(), Held::of(e))));
        }
        for chain in self.empty_chains {
            mirror.chains.insert(chain.clone(), Vec::new());
            mirror.unused.insert(chain);
        }
        self.delete_sets.iter().for_each(|set| drop(mirror.sets.remove(set)));
        for chain in self.delete_chains {
            mirror.chains.remove(&chain);
            mirror.unused.remove(&chain);
        }
    }
}

/// Everything that is desired or in force.
pub fn all(mirror: &Mirror, table: &TableSpec) -> Dirty {
    let mut dirty = Dirty::default();
    dirty.chains.extend(table.chains.keys().chain(mirror.chains.keys()).cloned());
    dirty.sets.extend(table.sets.keys().chain(mirror.sets.keys()).cloned());
    for (name, set) in &table.sets {
        dirty.elements.extend(set.elements.keys().map(|k| (name.clone(), k.clone())));
    }
    for (name, set) in &mirror.sets {
        dirty.elements.extend(set.elements.keys().map(|k| (name.clone(), k.clone())));
    }
    dirty
}
