//! libFuzzer on the target that `KEELSON_FUZZ_TARGET` names, for `KEELSON_FUZZ_CPU_SECONDS` of this process's CPU time.
#![no_main]

use keelson_fuzz::Target;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, raise};
use std::cell::Cell;
use std::sync::OnceLock;

static TARGET: OnceLock<(&'static Target, i64)> = OnceLock::new();

/// How many inputs are tried between two looks at the clock.
const BETWEEN: u32 = 256;

thread_local! {
    static RUNS: Cell<u32> = const { Cell::new(0) };
}

fn choose() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let name = variable("KEELSON_FUZZ_TARGET");
    let target = keelson_fuzz::target(&name).unwrap_or_else(|| {
        let known: Vec<_> = keelson_fuzz::TARGETS.iter().map(|target| target.name).collect();
        panic!("there is no target {name:?}; the targets are {}", known.join(", "))
    });
    let seconds = variable("KEELSON_FUZZ_CPU_SECONDS").parse().expect("seconds are a number");
    keelson_fuzz::warm_up();
    assert!(TARGET.set((target, seconds)).is_ok(), "chosen once");
}

/// More CPU time than any input may take, in seconds. libFuzzer's own limit is of the clock on the wall, which goes on while a busy
/// machine does other things.
const LONGEST: i64 = 10;

/// Seconds of CPU time of this thread so far.
fn spent() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |used| used.user_time().tv_sec())
}

/// Asks libFuzzer to end (its flag `-handle_usr1`) when the CPU time is spent.
fn look_at_the_clock(seconds: i64) {
    let runs = RUNS.get().wrapping_add(1);
    RUNS.set(runs);
    if runs.is_multiple_of(BETWEEN)
        && getrusage(UsageWho::RUSAGE_SELF).is_ok_and(|used| used.user_time().tv_sec() >= seconds)
    {
        let _ = raise(Signal::SIGUSR1);
    }
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    let (target, seconds) = TARGET.get().expect("chosen at the start");
    look_at_the_clock(*seconds);
    let before = spent();
    keelson_fuzz::run(target, data);
    assert!(spent() - before <= LONGEST, "one input took more than {LONGEST} seconds of CPU time");
});
