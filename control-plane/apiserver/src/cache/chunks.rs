//! The objects of a resource in key order, with snapshots that cost one reference count.
//!
//! A sorted run of chunks, each behind its own `Arc`: a write copies the pointers of one chunk (and the run of chunk
//! pointers) only while a snapshot shares them, a reader holds a snapshot and no lock. A persistent tree would do the
//! same with a node per object or two; this costs eight bytes an object.

use std::cmp::Ordering;
use std::sync::Arc;

use super::object::Object;

/// A chunk is split in halves when it outgrows this, and merged with its neighbour when both are small.
const CHUNK: usize = 256;

/// How many objects [`Chunks::next_ahead`] touches at once: more places in memory than a processor fetches side by side.
const AHEAD: usize = 32;

type Chunk = Vec<Arc<Object>>;

/// A chunk in the run. How long it is stands here too: what is counted over many chunks reads the run alone, and not a place
/// in memory for each.
#[derive(Clone)]
struct Link {
    chunk: Arc<Chunk>,
    len: usize,
}

impl Link {
    fn new(chunk: Chunk) -> Link {
        Link { len: chunk.len(), chunk: Arc::new(chunk) }
    }

    /// Changes the chunk, of its own if a snapshot shares it.
    fn change<T>(&mut self, change: impl FnOnce(&mut Chunk) -> T) -> T {
        let chunk = Arc::make_mut(&mut self.chunk);
        let changed = change(chunk);
        self.len = chunk.len();
        changed
    }
}

/// The objects at one moment; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Chunks {
    run: Arc<Vec<Link>>,
    len: usize,
}

/// A place between objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor {
    chunk: usize,
    at: usize,
}

impl Chunks {
    /// From objects in strictly ascending key order.
    pub fn from_sorted(objects: Vec<Arc<Object>>) -> Chunks {
        let len = objects.len();
        let mut run = Vec::with_capacity(len / (CHUNK / 2) + 1);
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            run.push(Link::new(objects.by_ref().take(CHUNK / 2).collect()));
        }
        Chunks { run: Arc::new(run), len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds `key` or is where it belongs.
    fn chunk_of(&self, key: &str) -> usize {
        self.run.partition_point(|link| link.chunk[0].key() <= key).saturating_sub(1)
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Object>> {
        let chunk = &self.run.get(self.chunk_of(key))?.chunk;
        let at = chunk.binary_search_by(|object| object.key().cmp(key)).ok()?;
        Some(&chunk[at])
    }

    /// Puts an object in and gives back the one it replaces.
    pub fn insert(&mut self, object: Arc<Object>) -> Option<Arc<Object>> {
        let index = self.chunk_of(object.key());
        let run = Arc::make_mut(&mut self.run);
        let Some(link) = run.get_mut(index) else {
            run.push(Link::new(vec![object]));
            self.len = 1;
            return None;
        };
        match link.chunk.binary_search_by(|other| other.key().cmp(object.key())) {
            Ok(at) => Some(link.change(|chunk| std::mem::replace(&mut chunk[at], object))),
            Err(at) => {
                let right = link.change(|chunk| {
                    chunk.insert(at, object);
                    (chunk.len() > CHUNK).then(|| {
                        // Keys that only grow fill the left half for good, so the split leaves it fuller.
                        let keep = if at == CHUNK { CHUNK * 7 / 8 } else { CHUNK / 2 };
                        let right = chunk.split_off(keep);
                        chunk.shrink_to_fit();
                        right
                    })
                });
                self.len += 1;
                if let Some(right) = right {
                    run.insert(index + 1, Link::new(right));
                }
                None
            }
        }
    }

    pub fn remove(&mut self, key: &str) -> Option<Arc<Object>> {
        let index = self.chunk_of(key);
        let at = self.run.get(index)?.chunk.binary_search_by(|object| object.key().cmp(key)).ok()?;
        let run = Arc::make_mut(&mut self.run);
        let removed = run[index].change(|chunk| chunk.remove(at));
        self.len -= 1;
        if run[index].len == 0 {
            run.remove(index);
        } else if let Some(right) = run.get(index + 1)
            && run[index].len + right.len < CHUNK / 4
        {
            let right = run.remove(index + 1);
            run[index].change(|chunk| chunk.extend(right.chunk.iter().cloned()));
        }
        Some(removed)
    }

    /// The place before the first object whose key is not less than `key` (or, with `after`, greater than it).
    pub fn seek(&self, key: &str, after: bool) -> Cursor {
        let chunk = self.chunk_of(key);
        let at = self.run.get(chunk).map_or(0, |link| {
            link.chunk.partition_point(|object| match object.key().cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => after,
                Ordering::Greater => false,
            })
        });
        Cursor { chunk, at }
    }

    /// The object after the place, which moves on. Every so many objects those that follow are touched, and with `labels` the
    /// text that selectors look at too, each step for all of them before the next: the processor then waits for many
    /// places in memory at once, where a walk waits for one after another, three or four of them an object.
    pub fn next_ahead(&self, cursor: &mut Cursor, labels: bool) -> Option<&Arc<Object>> {
        loop {
            let link = self.run.get(cursor.chunk)?;
            if cursor.at.is_multiple_of(AHEAD) {
                let ahead = link.chunk.iter().skip(cursor.at).take(AHEAD);
                let mut touched = ahead.clone().fold(0, |sum, object| sum ^ object.revision() as u8);
                if labels {
                    touched ^= ahead.fold(0, |sum, object| sum ^ object.glance());
                }
                std::hint::black_box(touched);
            }
            if let Some(object) = link.chunk.get(cursor.at) {
                cursor.at += 1;
                return Some(object);
            }
            cursor.chunk += 1;
            cursor.at = 0;
        }
    }

    /// How many objects lie between two places.
    pub fn between(&self, from: Cursor, to: Cursor) -> usize {
        let Some(links) = self.run.get(from.chunk..to.chunk) else { return 0 };
        (links.iter().map(|link| link.len).sum::<usize>() + to.at).saturating_sub(from.at)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.run.iter().flat_map(|link| link.chunk.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::JsonPaths;
    use super::*;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    fn object(key: &str, revision: u64) -> Arc<Object> {
        let json = format!(r#"{{"metadata":{{"name":"{key}"}}}}"#);
        Arc::new(Object::new(key, json.as_bytes(), revision, false, &JsonPaths::none()).unwrap())
    }

    fn content(chunks: &Chunks) -> Vec<(String, u64)> {
        chunks.iter().map(|object| (object.key().to_owned(), object.revision())).collect()
    }

    #[test]
    fn agrees_with_a_map_and_leaves_snapshots_alone() {
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut map = BTreeMap::new();
        let mut chunks = Chunks::default();
        let mut snapshots = Vec::new();
        for revision in 0..20_000u64 {
            let growing = revision < 10_000;
            let key = format!("{:05}", random.random_range(0..3000));
            if random.random_bool(if growing { 0.8 } else { 0.3 }) {
                let before = chunks.insert(object(&key, revision)).map(|object| object.revision());
                assert_eq!(before, map.insert(key, revision));
            } else {
                assert_eq!(chunks.remove(&key).map(|object| object.revision()), map.remove(&key));
            }
            assert_eq!(chunks.len(), map.len());
            assert!(chunks.run.iter().all(|link| link.len == link.chunk.len() && link.len > 0));
            if revision % 1000 == 0 {
                snapshots.push((chunks.clone(), content(&chunks)));
            }
            if revision % 97 == 0 {
                let probe = format!("{:05}", random.random_range(0..3100));
                for after in [false, true] {
                    let mut cursor = chunks.seek(&probe, after);
                    let start = cursor;
                    let expected: Vec<u64> = map
                        .range(probe.clone()..)
                        .filter(|(k, _)| !after || **k != probe)
                        .map(|(_, v)| *v)
                        .collect();
                    let mut found = Vec::new();
                    while let Some(object) = chunks.next_ahead(&mut cursor, after) {
                        found.push(object.revision());
                    }
                    assert_eq!(found, expected);
                    assert_eq!(chunks.between(start, cursor), expected.len());
                }
                assert_eq!(chunks.get(&probe).map(|object| object.revision()), map.get(&probe).copied());
            }
        }
        assert_eq!(content(&chunks), map.into_iter().collect::<Vec<_>>());
        for (snapshot, expected) in snapshots {
            assert_eq!(content(&snapshot), expected);
        }
    }

    #[test]
    fn builds_from_sorted_objects() {
        let objects: Vec<_> = (0..1000).map(|i| object(&format!("{i:04}"), i)).collect();
        let chunks = Chunks::from_sorted(objects);
        assert_eq!(chunks.len(), 1000);
        assert_eq!(chunks.get("0777").map(|object| object.revision()), Some(777));
        assert!(chunks.get("1000").is_none());
        assert!(Chunks::from_sorted(Vec::new()).get("x").is_none());
    }
}
