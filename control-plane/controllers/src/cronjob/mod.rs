//! CronJob: makes Jobs by the clock.

mod plan;
mod schedule;
mod shell;

pub use shell::start;
