//! Repository tasks: `cargo xtask <task>`.

mod schema;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Repository tasks")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Generates the field schema and resource table of lib/api from the published sources and the facts files
    Schema(schema::Options),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Schema(options) => schema::run(&options),
    }
}
