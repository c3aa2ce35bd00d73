//! The desired table: a fixed base and the services' fragments, merged.
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use keelson_sys::nft::{Base, Data, Element, Field, Rule, SetSpec};

use super::ServiceName;
use super::service::{HealthCheck, UdpFront};

/// A chain with its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainSpec {
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// A set with its elements by key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetEntry {
    pub spec: SetSpec,
    pub elements: BTreeMap<Vec<u8>, Element>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSpec {
    pub name: String,
    /// Marks the layout; a table in the kernel with another one is replaced whole.
    pub userdata: Vec<u8>,
    pub chains: BTreeMap<String, ChainSpec>,
    pub sets: BTreeMap<String, SetEntry>,
}

impl TableSpec {
    pub fn chain(&mut self, name: &str, base: Option<Base>, rules: Vec<Rule>) {
        self.chains.insert(name.to_owned(), ChainSpec { base, rules });
    }
    pub fn set(&mut self, spec: SetSpec, elements: Vec<Element>) {
        let elements = elements.into_iter().map(|e| (e.key.clone(), e)).collect();
        self.sets.insert(spec.name.clone(), SetEntry { spec, elements });
    }
}

/// One service's part of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Chains by name. Services that need the same chain share it: a name always stands for the same rules.
    pub shared: BTreeMap<String, Vec<Rule>>,
    /// Sets of its own, filled by rules.
    pub sets: Vec<SetSpec>,
    /// Elements of shared sets, by set name.
    pub elements: Vec<(&'static str, Element)>,
    pub health: Option<HealthCheck>,
    /// For the clean-up of tracked flows.
    pub udp: Vec<UdpFront>,
}

/// Names whose content may differ from what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dirty {
    pub chains: BTreeSet<String>,
    pub sets: BTreeSet<String>,
    pub elements: BTreeSet<(String, Vec<u8>)>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.elements.is_empty()
    }
}

/// The desired table, changeable one service at a time.
#[derive(Debug, Clone, Default)]
pub struct Ruleset {
    table: TableSpec,
    fragments: BTreeMap<ServiceName, Fragment>,
    claims: BTreeMap<(&'static str, Vec<u8>), BTreeMap<ServiceName, Element>>,
    /// How many services use a chain.
    users: BTreeMap<String, usize>,
    dirty: Dirty,
}

impl Ruleset {
    pub fn new(table: TableSpec) -> Ruleset {
        let mut dirty = Dirty::default();
        dirty.chains.extend(table.chains.keys().cloned());
        dirty.sets.extend(table.sets.keys().cloned());
        for (name, set) in &table.sets {
            dirty.elements.extend(set.elements.keys().map(|k| (name.clone(), k.clone())));
        }
        Ruleset { table, dirty, ..Ruleset::default() }
    }
    pub fn table(&self) -> &TableSpec {
        &self.table
    }
    /// What changed since the last call.
    pub fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.fragments.keys()
    }
    /// Health checks that the node must answer.
    pub fn health_checks(&self) -> impl Iterator<Item = (&ServiceName, &HealthCheck)> {
        self.fragments.iter().filter_map(|(name, f)| f.health.as_ref().map(|h| (name, h)))
    }

    pub fn fragment(&self, service: &ServiceName) -> Option<&Fragment> {
        self.fragments.get(service)
    }
    /// Every UDP address of every service.
    pub fn udp_fronts(&self) -> impl Iterator<Item = &UdpFront> {
        self.fragments.values().flat_map(|f| &f.udp)
    }

    /// Replaces a service's part; an empty one removes it. Returns whether anything changed.
    pub fn set(&mut self, service: ServiceName, fragment: Fragment) -> bool {
        if self.fragments.get(&service).is_some_and(|old| *old == fragment) {
            return false;
        }
        let old = self.fragments.remove(&service).unwrap_or_default();
        if old == fragment {
            return false;
        }
        for (chain, rules) in &fragment.shared {
            let users = self.users.entry(chain.clone()).or_insert(0);
            *users += 1;
            if *users == 1 || self.table.chains.get(chain).is_none_or(|c| c.rules != *rules) {
                self.table.chain(chain, None, rules.clone());
                self.dirty.chains.insert(chain.clone());
            }
        }
        for chain in old.shared.keys() {
            let users = self.users.get(chain).copied().unwrap_or(0).saturating_sub(1);
            if users > 0 {
                self.users.insert(chain.clone(), users);
                continue;
            }
            self.users.remove(chain);
            self.table.chains.remove(chain);
            self.dirty.chains.insert(chain.clone());
        }
        for spec in &old.sets {
            self.table.sets.remove(&spec.name);
            self.dirty.sets.insert(spec.name.clone());
        }
        for spec in &fragment.sets {
            self.table.set(spec.clone(), Vec::new());
            self.dirty.sets.insert(spec.name.clone());
        }
        let mut touched: BTreeSet<(&'static str, Vec<u8>)> = BTreeSet::new();
        for (set, element) in &old.elements {
            let key = (*set, element.key.clone());
            if let Entry::Occupied(mut claims) = self.claims.entry(key.clone()) {
                claims.get_mut().remove(&service);
                if claims.get().is_empty() {
                    claims.remove();
                }
            }
            touched.insert(key);
        }
        for (set, element) in &fragment.elements {
            let key = (*set, element.key.clone());
            self.claims.entry(key.clone()).or_default().insert(service.clone(), element.clone());
            touched.insert(key);
        }
        for key in touched {
            self.settle(key);
        }
        if fragment != Fragment::default() {
            self.fragments.insert(service, fragment);
        }
        true
    }

    /// The first claimant by name has the element.
    fn settle(&mut self, key: (&'static str, Vec<u8>)) {
        let winner = self.claims.get(&key).and_then(|c| c.values().next()).cloned();
        let Some(set) = self.table.sets.get_mut(key.0) else { return };
        let changed = match winner {
            Some(element) => set.elements.insert(key.1.clone(), element.clone()) != Some(element),
            None => set.elements.remove(&key.1).is_some(),
        };
        if changed {
            self.dirty.elements.insert((key.0.to_owned(), key.1));
        }
    }

    /// Replaces the base (the node's facts changed), keeping the services' parts.
    pub fn rebase(&mut self, table: TableSpec) {
        let fragments = std::mem::take(&mut self.fragments);
        let mut old = std::mem::take(&mut self.dirty);
        old.chains.extend(self.table.chains.keys().cloned());
        old.sets.extend(self.table.sets.keys().cloned());
        for (name, set) in &self.table.sets {
            old.elements.extend(set.elements.keys().map(|k| (name.clone(), k.clone())));
        }
        *self = Ruleset::new(table);
        for (name, fragment) in fragments {
            self.set(name, fragment);
        }
        self.dirty.chains.append(&mut old.chains);
        self.dirty.sets.append(&mut old.sets);
        self.dirty.elements.append(&mut old.elements);
    }
}

/// The table as text, for goldens and `doctor`.
impl std::fmt::Display for TableSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "table inet {} {{", self.name)?;
        for (name, set) in &self.sets {
            writeln!(f, "  set {name} {{{}", if set.elements.is_empty() { " }" } else { "" })?;
            for element in set.elements.values() {
                writeln!(f, "    {}", element_text(&set.spec, element))?;
            }
            if !set.elements.is_empty() {
                writeln!(f, "  }}")?;
            }
        }
        for (name, chain) in &self.chains {
            match chain.base {
                None => writeln!(f, "  chain {name} {{")?,
                Some(b) => {
                    writeln!(f, "  chain {name} {{ {} {:?} {};", b.kind.name(), b.hook, b.priority)?;
                }
            }
            for rule in &chain.rules {
                writeln!(f, "    {}", rule.text)?;
            }
            writeln!(f, "  }}")?;
        }
        writeln!(f, "}}")
    }
}

fn element_text(spec: &SetSpec, element: &Element) -> String {
    let mut text = key_text(&spec.key, &element.key);
    if let Some(end) = &element.key_end {
        let _ = write!(text, "-{}", key_text(&spec.key, end));
    }
    match &element.data {
        Data::None => {}
        Data::Verdict(verdict) => {
            let _ = write!(text, " : {verdict}");
        }
        Data::Value(value) => {
            let fields =
                if let keelson_sys::nft::SetData::Value(fields) = &spec.data { &fields[..] } else { &[] };
            let _ = write!(text, " : {}", key_text(fields, value));
        }
    }
    text
}

fn key_text(fields: &[Field], mut key: &[u8]) -> String {
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let value = key.get(..field.width()).unwrap_or(&[]);
        parts.push(match (field, value) {
            (Field::Ipv4, [a, b, c, d]) => format!("{a}.{b}.{c}.{d}"),
            (Field::Ipv6, bytes) => bytes
                .first_chunk::<16>()
                .map_or_else(String::new, |b| std::net::Ipv6Addr::from(*b).to_string()),
            (Field::Proto, [6]) => "tcp".into(),
            (Field::Proto, [17]) => "udp".into(),
            (Field::Proto, [132]) => "sctp".into(),
            (Field::Mark, bytes) => {
                bytes.first_chunk::<4>().map_or(0, |b| u32::from_ne_bytes(*b)).to_string()
            }
            (Field::Port, [a, b]) => u16::from_be_bytes([*a, *b]).to_string(),
            (_, bytes) => format!("{bytes:02x?}"),
        });
        key = key.get(field.padded()..).unwrap_or(&[]);
    }
    parts.join(" . ")
}
