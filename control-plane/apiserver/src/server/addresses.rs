//! How many connections an address may have, and how long one that was cut for what it sent waits for its next.
//!
//! An address may be that of a node with honest clients behind it: those have connections that stay, and their new ones wait
//! for seconds at most.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A strike is forgotten after this time without another.
const FORGIVEN: Duration = Duration::from_secs(60);
const FIRST_PENALTY: Duration = Duration::from_millis(500);
const LONGEST_PENALTY: Duration = Duration::from_secs(5);
/// Connections of one address that may wait at once; more are closed.
const WAITING: usize = 16;
/// Addresses that are remembered without a connection.
const REMEMBERED: usize = 4096;

#[derive(Debug, Default)]
struct Record {
    open: usize,
    waiting: usize,
    strikes: u32,
    struck: Option<Instant>,
}

impl Record {
    /// When the next connection may begin.
    fn free_at(&self) -> Option<Instant> {
        let times = self.strikes.checked_sub(1)?.min(10);
        Some(self.struck? + (FIRST_PENALTY * 2u32.pow(times)).min(LONGEST_PENALTY))
    }

    fn forgotten(&self, now: Instant) -> bool {
        self.open == 0 && self.struck.is_none_or(|at| now.saturating_duration_since(at) > FORGIVEN)
    }
}

/// All addresses with connections or strikes.
#[derive(Debug)]
pub struct Addresses {
    records: Mutex<HashMap<IpAddr, Record>>,
    most: usize,
}

/// A connection's place among those of its address; given back on drop.
#[derive(Debug)]
pub struct Place {
    all: Arc<Addresses>,
    address: IpAddr,
    waits: Option<Instant>,
}

/// Who owns an IPv6 address owns the /64 it lies in.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        four => four,
    }
}

impl Addresses {
    /// So many connections of one address at once.
    pub fn new(most: usize) -> Arc<Addresses> {
        Arc::new(Addresses { records: Mutex::new(HashMap::new()), most })
    }

    /// A place for a connection; `None` where the address has too many.
    pub fn enter(self: &Arc<Addresses>, address: IpAddr, now: Instant) -> Option<Place> {
        let address = network(address);
        let mut records = self.records.lock();
        let record = records.entry(address).or_default();
        if record.struck.is_some_and(|at| now.saturating_duration_since(at) > FORGIVEN) {
            (record.strikes, record.struck) = (0, None);
        }
        let waits = record.free_at().filter(|at| *at > now);
        if record.open >= self.most || (waits.is_some() && record.waiting >= WAITING) {
            return None;
        }
        record.open += 1;
        record.waiting += usize::from(waits.is_some());
        Some(Place { all: self.clone(), address, waits })
    }
}

impl Place {
    /// Waits for as long as the address must.
    pub async fn wait(&mut self) {
        if let Some(until) = self.waits {
            tokio::time::sleep_until(until).await;
            self.waits = None;
            if let Some(record) = self.all.records.lock().get_mut(&self.address) {
                record.waiting -= 1;
            }
        }
    }

    /// The connection was cut for what it sent.
    pub fn strike(&self, now: Instant) {
        if let Some(record) = self.all.records.lock().get_mut(&self.address) {
            record.strikes += 1;
            record.struck = Some(now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut records = self.all.records.lock();
        if let Some(record) = records.get_mut(&self.address) {
            record.open -= 1;
            record.waiting -= usize::from(self.waits.is_some());
            if record.open == 0 && record.struck.is_none() {
                records.remove(&self.address);
            }
        }
        if records.len() > REMEMBERED {
            let now = Instant::now();
            records.retain(|_, record| !record.forgotten(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_has_so_many_connections_and_no_more() {
        let all = Addresses::new(2);
        let (one, two) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = all.enter(one, Instant::now()).unwrap();
        let _second = all.enter(one, Instant::now()).unwrap();
        assert!(all.enter(one, Instant::now()).is_none());
        assert!(all.enter("::ffff:192.0.2.1".parse().unwrap(), Instant::now()).is_none(), "the same address");
        assert!(all.enter(two, Instant::now()).is_some());
        drop(first);
        assert!(all.enter(one, Instant::now()).is_some());
        let six = |text: &str| all.enter(text.parse().unwrap(), Instant::now());
        let _held = (six("2001:db8::1").unwrap(), six("2001:db8::2").unwrap());
        assert!(six("2001:db8::3").is_none() && six("2001:db8:0:1::3").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_cut_waits_longer_each_time_and_is_forgiven() {
        let all = Addresses::new(100);
        let address = "192.0.2.1".parse().unwrap();
        let mut waited = Vec::new();
        for _ in 0..8 {
            let mut place = all.enter(address, Instant::now()).unwrap();
            let begun = Instant::now();
            place.wait().await;
            waited.push(begun.elapsed().as_millis());
            place.strike(Instant::now());
        }
        assert_eq!(waited, [0, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        let held: Vec<_> = (0..WAITING).map(|_| all.enter(address, Instant::now()).unwrap()).collect();
        assert!(all.enter(address, Instant::now()).is_none(), "not all of the server's places wait");
        drop(held);
        tokio::time::advance(FORGIVEN + Duration::from_secs(1)).await;
        let mut place = all.enter(address, Instant::now()).unwrap();
        let begun = Instant::now();
        place.wait().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(place);
        assert!(all.records.lock().is_empty(), "nothing is kept of who left in peace");
    }
}
