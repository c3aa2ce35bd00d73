//! Keeps a component running: an error or a panic restarts it alone, with back-off, and is counted.

use crate::health::State;
use crate::{DrainWatcher, Health};
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A run that lasted this long counts as healthy: the back-off begins anew.
const HEALTHY_RUN: Duration = Duration::from_secs(120);

static RESTARTS: AtomicU64 = AtomicU64::new(0);

/// How often components of this process were restarted after an error or a panic.
pub fn restarts() -> u64 {
    RESTARTS.load(Ordering::Relaxed)
}

/// Runs `start()` again and again until the drain begins. Each run is a task of its own, so that a panic ends that run
/// alone. A run that returns `Ok` before the drain is restarted too: components end only when told. `health` says how the
/// component is.
pub async fn supervise<F, Fut, E>(component: &'static str, drain: DrainWatcher, health: Health, mut start: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut delay = FIRST_DELAY;
    loop {
        let begun = Instant::now();
        health.set(component, State::Running);
        let outcome = tokio::spawn(start()).await;
        if drain.is_draining() {
            return;
        }
        let end = match outcome {
            Ok(Ok(())) => "it ended without being told to".to_owned(),
            Ok(Err(error)) => format!("it failed: {error}"),
            Err(panic) => format!("it panicked: {panic}"),
        };
        tracing::error!(component, end, "a component is restarted");
        health.set(component, State::Ended(end));
        RESTARTS.fetch_add(1, Ordering::Relaxed);
        if begun.elapsed() >= HEALTHY_RUN {
            delay = FIRST_DELAY;
        }
        if drain.until(tokio::time::sleep(delay)).await.is_none() {
            return;
        }
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_panic_and_an_error_restart_the_component() {
        let (trigger, drain) = crate::drain::channel();
        let runs = Arc::new(AtomicU64::new(0));
        let health = Health::default();
        let task = tokio::spawn({
            let runs = runs.clone();
            let inner = drain.clone();
            supervise("test", drain, health.clone(), move || {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                let inner = inner.clone();
                async move {
                    match run {
                        0 => panic!("first run"),
                        1 => Err("second run"),
                        _ => {
                            inner.drained().await;
                            Ok(())
                        }
                    }
                }
            })
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(matches!(health.of("test"), Some(State::Ended(why)) if why.starts_with("it panicked")));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(health.of("test"), Some(State::Ended("it failed: second run".to_owned())));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((health.of("test"), health.of("other")), (Some(State::Running), None));
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        assert_eq!(trigger.drain(Duration::from_secs(1)).await, crate::drain::Drained::Cleanly);
        task.await.unwrap();
    }
}
