//! Time and memory grow with the input, not faster: every seed is grown wherever it can grow, and the time per byte of a large
//! one is compared with that of a small one.
//!
//! One test in this program: the memory of a process is counted, not that of a thread.

use keelson_fuzz::{Grown, TARGETS, Target};
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

const SMALL: usize = 16 * 1024;
const LARGE: usize = 16 * SMALL;
/// How many times the time per byte may rise over a 16-fold input: caches and logarithms, and the noise of a busy machine.
/// What is quadratic rises 16-fold.
const FACTOR: u32 = 5;
/// What takes less on the large input is not looked at.
const FLOOR: Duration = Duration::from_millis(20);
const ATTEMPTS: usize = 4;

/// This thread's CPU time for one run: others on the machine do not count.
fn time(target: &Target, input: &[u8]) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock"));
    let begun = now();
    keelson_fuzz::run(target, input);
    now() - begun
}

fn check(target: &Target, grown: &Grown) -> Result<(), String> {
    let (small, large) = ((grown.make)(SMALL), (grown.make)(LARGE));
    if large.len() < 4 * small.len() {
        return Ok(());
    }
    let mut said = String::new();
    let (mut least, mut most) = (Duration::MAX, Duration::MAX);
    for _ in 0..ATTEMPTS {
        (least, most) = (least.min(time(target, &small)), most.min(time(target, &large)));
        let per_byte = |time: Duration, input: &[u8]| time.as_nanos() as f64 / input.len() as f64;
        let (slow, fast) = (per_byte(most, &large), per_byte(least, &small));
        if most < FLOOR || slow <= fast * f64::from(FACTOR) {
            return Ok(());
        }
        said = format!(
            "{}: {} bytes take {least:?}, {} bytes take {most:?}",
            grown.name,
            small.len(),
            large.len()
        );
    }
    Err(said)
}

#[test]
fn time_and_memory_grow_with_the_input() {
    keelson_fuzz::warm_up();
    let only = std::env::var("KEELSON_FUZZ_TARGET").ok();
    let (mut count, mut slow) = (0, Vec::new());
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)) {
        for (name, input) in keelson_fuzz::inputs(target) {
            for grown in keelson_fuzz::grown(&name, &input) {
                println!("{} {}", target.name, grown.name);
                count += 1;
                slow.extend(check(target, &grown).err());
            }
        }
    }
    println!("{count} ways to grow");
    assert!(slow.is_empty(), "time grows faster than the input:\n  {}", slow.join("\n  "));
}
