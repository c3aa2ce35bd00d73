//! What runs in the pods of the conformance tests. The commands are those of upstream's test image `agnhost` that the
//! tests use: `pause` (the default), `logs-generator`, `guestbook`, and `serve`, which answers one path with one text.
#![forbid(unsafe_code)]

mod guestbook;
mod http;

use nix::sys::signal::{SigSet, Signal};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Process 1 is not ended by a signal that it does not handle. Blocked before the first thread, so that all inherit it.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    if signals.thread_block().is_err() {
        return ExitCode::FAILURE;
    }
    std::thread::spawn(move || {
        let ended = signals.wait().is_ok();
        std::process::exit(i32::from(!ended));
    });
    let outcome = match words.first().map_or("pause", String::as_str) {
        "pause" => {
            println!("Paused");
            loop {
                std::thread::park();
            }
        }
        "logs-generator" => logs(&words[1..]),
        "guestbook" => guestbook::run(&words[1..]),
        "serve" => serve(&words[1..]),
        other => Err(format!("unknown command {other:?}; known: pause, logs-generator, guestbook, serve")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The value after `--name`.
fn option<'w>(words: &'w [String], name: &str) -> Option<&'w str> {
    words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)).map(String::as_str)
}

/// `--log-lines-total N --run-duration Ns`: lines like a server's, spread over the time.
fn logs(words: &[String]) -> Result<(), String> {
    let total: u32 = option(words, "--log-lines-total")
        .and_then(|text| text.parse().ok())
        .filter(|total| *total > 0)
        .ok_or("--log-lines-total must be a number above 0")?;
    let seconds: u32 = option(words, "--run-duration")
        .and_then(|text| text.strip_suffix('s'))
        .and_then(|text| text.parse().ok())
        .filter(|seconds| *seconds > 0)
        .ok_or("--run-duration must be whole seconds, such as 20s")?;
    let (begun, mut out) = (Instant::now(), std::io::stdout());
    for id in 0..total {
        let namespace = ["default", "kube-system", "ns"][id as usize % 3];
        let method = ["GET", "PUT", "POST"][id as usize / 3 % 3];
        let line =
            format!("{id} {method} /api/v1/namespaces/{namespace}/pods/p{id} {}\n", 200 + id * 7 % 400);
        out.write_all(line.as_bytes()).map_err(|error| format!("cannot write: {error}"))?;
        let due = Duration::from_secs(u64::from(seconds)) * (id + 1) / total;
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok(())
}

/// `serve PORT PATH TEXT`.
fn serve(words: &[String]) -> Result<(), String> {
    let [port, path, text] = words else { return Err("use: serve PORT PATH TEXT".into()) };
    let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    let (path, text) = (path.clone(), text.clone());
    http::serve(
        port,
        move |request| {
            if request.path == path { Ok(text.clone()) } else { Err((404, "not found".into())) }
        },
    )
}
