//! `keelson-cni`: reads the network configuration from standard input, the command from the environment.
use std::io::{Read, Write};
use std::process::ExitCode;

use keelson_cni::{Environment, run, spec};

/// A network configuration is a few hundred bytes; garbage collection lists every pod of the node.
const INPUT_LIMIT: u64 = 16 << 20;

fn main() -> ExitCode {
    let mut input = String::new();
    let read = std::io::stdin().take(INPUT_LIMIT).read_to_string(&mut input);
    let outcome = match read {
        Ok(_) => run(&Environment::from_process(), &input, &|_| {}),
        Err(e) => Err(spec::Failure::new(spec::code::IO, "cannot read the network configuration", &e)),
    };
    let (text, code) = match outcome {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(failure) => (failure.to_json(&input), ExitCode::FAILURE),
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
