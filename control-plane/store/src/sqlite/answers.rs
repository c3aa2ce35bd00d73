//! How the writer's answers reach the tasks that wait for them.
//!
//! A task that is woken by a thread outside of the runtime costs the wakes of two of the runtime's threads: of one that
//! takes it up, and of the next, which looks whether there is more to do. What comes through the runtime's driver costs
//! the wake of one. So the writer queues its answers, writes a byte into a pipe, and a task hands them out; those who get
//! them are its neighbours. Where there is no such runtime, or its task is held up or gone, the writer does it itself.

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::unix::pipe;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::oneshot;

use crate::{CommitError, Committed};

/// A settled answer and who gets it.
pub(super) type Settled = (oneshot::Sender<Result<Committed, CommitError>>, Result<Committed, CommitError>);

#[derive(Default)]
struct Queue {
    settled: Vec<Settled>,
    /// The task is there.
    served: bool,
}

impl Queue {
    fn hand_out(queue: &Mutex<Queue>) {
        let settled = std::mem::take(&mut queue.lock().settled);
        for (answer, result) in settled {
            // An answer that nobody waits for any more is dropped.
            let _ = answer.send(result);
        }
    }
}

/// The writer's end.
pub(super) struct Answers {
    queue: Arc<Mutex<Queue>>,
    bell: Option<File>,
}

impl Answers {
    /// Starts the task, if this is called within a runtime of several threads.
    pub fn new() -> Answers {
        let queue = Arc::new(Mutex::new(Queue::default()));
        let bell = Handle::try_current()
            .ok()
            .filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
            .and_then(|runtime| start(&runtime, queue.clone()).ok());
        Answers { queue, bell }
    }

    /// Hands answers out, or has them handed out.
    pub fn send(&mut self, settled: Vec<Settled>) {
        let mut queue = self.queue.lock();
        let first = queue.settled.is_empty();
        queue.settled.extend(settled);
        let waits = queue.served && !queue.settled.is_empty();
        drop(queue);
        let told = waits && (!first || self.bell.as_mut().is_some_and(ring));
        if !told {
            self.flush();
        }
    }

    /// Whether all are handed out.
    pub fn is_empty(&self) -> bool {
        self.queue.lock().settled.is_empty()
    }

    /// Hands out at once what the task has not come to.
    pub fn flush(&self) {
        Queue::hand_out(&self.queue);
    }
}

fn ring(bell: &mut File) -> bool {
    match bell.write(&[0]) {
        Ok(_) => true,
        // It rings already.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn start(runtime: &Handle, queue: Arc<Mutex<Queue>>) -> io::Result<File> {
    let _entered = runtime.enter();
    let (bell, heard) = pipe::pipe()?;
    let bell = File::from(bell.into_nonblocking_fd()?);
    queue.lock().served = true;
    runtime.spawn(serve(heard, Served(queue)));
    Ok(bell)
}

/// Whatever ends the task, what is queued is handed out, and what comes later is not queued.
struct Served(Arc<Mutex<Queue>>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.lock().served = false;
        Queue::hand_out(&self.0);
    }
}

async fn serve(heard: pipe::Receiver, served: Served) {
    let mut rings = [0; 64];
    while heard.readable().await.is_ok() {
        match heard.try_read(&mut rings) {
            // The writer is gone.
            Ok(0) => return,
            Ok(_) => Queue::hand_out(&served.0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
