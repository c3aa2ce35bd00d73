//! The first process of every pod: it holds the pod's namespaces open, reaps orphans where the pod shares its process
//! namespace, and ends when told to.
#![forbid(unsafe_code)]

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    // Blocked signals are kept for `wait` below: none is lost between two waits.
    if sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).is_err() {
        std::process::exit(1);
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => return,
            Err(_) => std::process::exit(1),
        }
    }
}

fn reap() {
    while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(_) | Ok(WaitStatus::StillAlive)) {}
}
