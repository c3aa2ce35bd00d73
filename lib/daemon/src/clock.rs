//! Wall and monotonic time as a value that is handed down.

use jiff::Timestamp;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Wall time for what people and certificates read, monotonic time for everything that expires.
///
/// The monotonic side is tokio's, so that tests can pause it.
#[derive(Clone)]
pub struct Clock {
    wall: Wall,
}

#[derive(Clone)]
enum Wall {
    System,
    Manual(Arc<Mutex<Timestamp>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { wall: Wall::System }
    }

    /// A wall clock that moves only by [`Clock::advance`]; for tests.
    pub fn manual(start: Timestamp) -> Clock {
        Clock { wall: Wall::Manual(Arc::new(Mutex::new(start))) }
    }

    /// The wall time.
    pub fn now(&self) -> Timestamp {
        match &self.wall {
            Wall::System => Timestamp::now(),
            Wall::Manual(now) => *now.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        }
    }

    /// The monotonic time.
    pub fn monotonic(&self) -> Instant {
        Instant::now()
    }

    /// Moves a manual clock forward; the system's clock does not obey.
    pub fn advance(&self, by: Duration) {
        if let Wall::Manual(now) = &self.wall {
            let mut now = now.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *now = now.checked_add(by).unwrap_or(Timestamp::MAX);
        }
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.wall {
            Wall::System => "Clock(system)",
            Wall::Manual(_) => "Clock(manual)",
        })
    }
}
