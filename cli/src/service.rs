//! One process as a service: signals, the drain, and what the service manager is told (`sd_notify(3)`; nothing happens
//! where none listens).

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use keelson_daemon::drain::{self, DrainTrigger, DrainWatcher};
use keelson_daemon::supervise::supervise;
use keelson_daemon::{Clock, Context, Health, Readiness};
use sd_notify::NotifyState;
use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// The longest wait of a unit's process that ends again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a process has been ready when it counts as well.
const WELL: Duration = Duration::from_secs(10);
/// How long each part of the drain may take.
pub const DRAIN: Duration = Duration::from_secs(20);

/// SIGTERM and SIGINT.
pub struct Signals(Signal, Signal);

impl Signals {
    /// Takes the signals over; from here on they no longer end the process by themselves.
    pub fn take() -> Result<Signals> {
        Ok(Signals(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    /// Waits for either.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Components as supervised tasks with one drain and one readiness.
pub struct Components {
    pub context: Context,
    health: Health,
    tasks: JoinSet<()>,
    trigger: DrainTrigger,
}

impl Components {
    pub fn new(clock: Clock, readiness: Readiness) -> Components {
        Components::told(clock, readiness, Health::default())
    }

    /// Components whose states are told to `health`.
    pub fn told(clock: Clock, readiness: Readiness, health: Health) -> Components {
        let (trigger, drain) = drain::channel();
        Components { context: Context { clock, drain, readiness }, health, tasks: JoinSet::new(), trigger }
    }

    /// Starts a component and keeps it running. The process is not ready before a run of the component has begun, has let
    /// go of all that it registered, and has not ended meanwhile.
    pub fn start<F, Fut, E>(&mut self, name: &'static str, mut run: F)
    where
        F: FnMut(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let context = self.context.clone();
        let pending = Arc::new(Mutex::new(Some(context.readiness.register(name))));
        self.tasks.spawn(supervise(name, context.drain.clone(), self.health.clone(), move || {
            let own = Readiness::default();
            let mut work = Box::pin(run(Context { readiness: own.clone(), ..context.clone() }));
            let pending = pending.clone();
            async move {
                // A component registers what it waits for when it is first polled.
                if let Some(ended) = first_poll(work.as_mut()).await {
                    return ended;
                }
                tokio::select! {
                    biased;
                    ended = work.as_mut() => return ended,
                    () = own.ready() => {}
                }
                pending.lock().unwrap_or_else(PoisonError::into_inner).take();
                work.await
            }
        }));
    }

    /// Runs a task that needs no supervision; it ends with the drain.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Tells all to end and waits.
    pub async fn stop(mut self) {
        drop(self.context);
        let ended = self.trigger.drain(DRAIN).await;
        tracing::info!(?ended, "components stopped");
        self.tasks.shutdown().await;
    }
}

async fn first_poll<F: Future + ?Sized>(mut work: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| std::task::Poll::Ready(work.as_mut().poll(context)))
        .map(|polled| match polled {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
        .await
}

/// Tells the service manager READY when nothing is waited for any more, and feeds its watchdog as long as `alive`
/// answers. Ends with the drain.
pub async fn report<F, Fut>(readiness: Readiness, drain: DrainWatcher, mut alive: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    if drain.until(readiness.ready()).await.is_none() {
        return;
    }
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    tracing::info!("ready");
    let well = async {
        if drain.until(tokio::time::sleep(WELL)).await.is_some() {
            forget_row();
        }
    };
    let watchdog = async {
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        let every = limit / 3;
        while drain.until(tokio::time::sleep(every)).await.is_some() {
            if tokio::time::timeout(every, alive()).await == Ok(true) {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::warn!("the process does not answer itself; the watchdog is not fed");
            }
        }
    };
    tokio::join!(well, watchdog);
}

/// Where a unit's processes count how many of them in a row ended before they were well: systemd makes the folder, keeps it
/// from one start to the next, and removes it when the unit is stopped. `None` where this is no unit of ours.
fn row_note() -> Option<PathBuf> {
    std::env::var_os("RUNTIME_DIRECTORY").map(|folder| PathBuf::from(folder).join("ended-in-a-row"))
}

/// How long the next one waits after so many in a row: 0, 1, 2, 4, 8, then ten seconds (those that kubeadm's unit of the
/// kubelet waits). systemd 252 knows no growing pauses.
fn pause(in_a_row: u32) -> Duration {
    match in_a_row {
        0 => Duration::ZERO,
        some => Duration::from_secs(1 << (some - 1).min(4)).min(LONGEST_PAUSE),
    }
}

/// A unit's process begins: waits where those before it ended before they were well, however that came, longer each time in a
/// row.
pub fn hold_back() {
    let Some(note) = row_note() else { return };
    let before = std::fs::read_to_string(&note).ok().and_then(|text| text.parse().ok()).unwrap_or(0u32);
    let pause = pause(before);
    if !pause.is_zero() {
        let text = format!("ended soon after its start ({before} in a row); begins in {} s", pause.as_secs());
        eprintln!("{text}");
        tell(&[NotifyState::Status(&text)]);
        // Whoever ends the wait (no signal is taken over yet) wants the next one at once, as the first of a new row.
        forget_row();
        std::thread::sleep(pause);
    }
    if let Err(error) = std::fs::write(&note, before.saturating_add(1).to_string()) {
        eprintln!("cannot write {}: {error}", note.display());
    }
}

/// The process has come up, or was told to end: the next end is the first of its row.
fn forget_row() {
    if let Some(note) = row_note() {
        let _ = std::fs::remove_file(note); // none: nothing to forget
    }
}

/// Runs a unit's process, with pauses between one start and the next where it ends again and again. It ends without an error
/// when it was told to.
pub fn unit(run: impl FnOnce() -> Result<()>) -> Result<()> {
    hold_back();
    run().inspect(|()| forget_row())
}

/// Tells the service manager that the end begins.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// The runtime that a service's tasks run on.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        // The YAML reader calls itself for each level of what it reads (200 at most); memory that is never reached costs nothing.
        .thread_stack_size(8 << 20)
        .enable_all()
        .thread_name("keelson")
        .build()
        .context("cannot start the asynchronous runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_again_and_again_waits_longer_each_time() {
        let pauses: Vec<u64> = (0..8).chain([u32::MAX]).map(|before| pause(before).as_secs()).collect();
        assert_eq!(pauses, [0, 1, 2, 4, 8, 10, 10, 10, 10]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_is_ready_when_its_components_are() {
        let readiness = Readiness::default();
        let mut components = Components::new(Clock::system(), readiness.clone());
        let (allow, allowed) = tokio::sync::watch::channel(false);
        let mut runs = 0;
        components.start("test", move |context| {
            runs += 1;
            let (mut allowed, fails) = (allowed.clone(), runs == 1);
            async move {
                let guard = context.readiness.register("test");
                tokio::time::sleep(Duration::from_millis(1)).await;
                if fails {
                    return Err("the first run fails after it has registered");
                }
                let _ = allowed.wait_for(|yes| *yes).await;
                drop(guard);
                context.drain.drained().await;
                Ok(())
            }
        });
        assert_eq!(readiness.pending(), ["test"]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            readiness.pending(),
            ["test"],
            "a run that failed made nothing ready, and the second one waits"
        );
        allow.send_replace(true);
        readiness.ready().await;
        components.stop().await;
    }
}
