//! A small key-value store with replicas, as agnhost's `guestbook`: `/register`, `/get`, `/set`, and `/guestbook`, which
//! asks the services agnhost-primary (cmd=set) or agnhost-replica (cmd=get). Keys and values are letters and digits.

use crate::http::{self, Answer, Request};
use crate::option;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const REGISTER_WITHIN: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    store: BTreeMap<String, String>,
    replicas: Vec<String>,
}

type Shared = Arc<Mutex<State>>;

/// `--http-port 80 --backend-port 6379 --replicaof HOST`.
pub fn run(words: &[String]) -> Result<(), String> {
    let port = |name, default: u16| match option(words, name) {
        Some(text) => text.parse().map_err(|_| format!("{name}: {text:?} is no port")),
        None => Ok(default),
    };
    let (own, backend) = (port("--http-port", 80)?, port("--backend-port", 6379)?);
    let shared = Shared::default();
    if let Some(primary) = option(words, "--replicaof") {
        let (primary, shared) = (primary.to_owned(), shared.clone());
        std::thread::spawn(move || {
            if let Err(error) = register(&primary, backend, &shared) {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        });
    }
    http::serve(own, move |request| match request.path.as_str() {
        "/register" => Ok(enlist(&shared, request)),
        "/get" => Ok(get(&shared, request.parameter("key"))),
        "/set" => set(&shared, request, backend),
        "/guestbook" => forward(request, backend),
        _ => Err((404, "not found".into())),
    })
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the primary this pod's address and takes over what it holds.
fn register(primary: &str, port: u16, shared: &Shared) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let attempt = own_address(primary, port)
            .and_then(|own| http::get(primary, port, &format!("register?host={own}")));
        match attempt {
            Ok(text) => {
                lock(shared).store = parse(&text)?;
                println!("registered with {primary}");
                return Ok(());
            }
            Err(error) if begun.elapsed() > REGISTER_WITHIN => return Err(error),
            Err(error) => println!("{error}; retrying"),
        }
        std::thread::sleep(RETRY);
    }
}

/// The address from which packets to the host leave.
fn own_address(host: &str, port: u16) -> Result<String, String> {
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    socket.connect((host, port)).map_err(|error| format!("cannot resolve {host}: {error}"))?;
    Ok(socket.local_addr().map_err(|error| error.to_string())?.ip().to_string())
}

/// `{"data":{"key":"value",…}}` of plain words.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let inner = text
        .strip_prefix("{\"data\":{")
        .and_then(|rest| rest.strip_suffix("}}"))
        .ok_or_else(|| format!("unexpected answer {text:?}"))?;
    Ok(inner
        .split(',')
        .filter_map(|pair| pair.split_once(':'))
        .map(|(key, value)| (key.trim_matches('"').to_owned(), value.trim_matches('"').to_owned()))
        .collect())
}

fn enlist(shared: &Shared, request: &Request) -> String {
    let mut state = lock(shared);
    state.replicas.push(request.parameter("host").to_owned());
    render(&state.store)
}

fn render(store: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = store.iter().map(|(key, value)| format!("\"{key}\":\"{value}\"")).collect();
    format!("{{\"data\":{{{}}}}}", pairs.join(","))
}

fn get(shared: &Shared, key: &str) -> String {
    let state = lock(shared);
    if key.is_empty() {
        return render(&state.store);
    }
    format!("{{\"data\":\"{}\"}}", state.store.get(key).map_or("", String::as_str))
}

fn plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn set(shared: &Shared, request: &Request, backend: u16) -> Answer {
    let (key, value) = (request.parameter("key"), request.parameter("value"));
    if key.is_empty() || !plain(key) || !plain(value) {
        return Err((400, "key and value must be letters and digits, and the key not empty".into()));
    }
    let replicas = {
        let mut state = lock(shared);
        state.store.insert(key.to_owned(), value.to_owned());
        state.replicas.clone()
    };
    for replica in &replicas {
        http::get(replica, backend, &format!("set?key={key}&value={value}")).map_err(|error| (417, error))?;
    }
    Ok("{\"message\":\"Updated\"}".into())
}

fn forward(request: &Request, backend: u16) -> Answer {
    let (command, key, value) =
        (request.parameter("cmd"), request.parameter("key"), request.parameter("value"));
    let host = match command {
        "get" => "agnhost-replica",
        "set" if !key.is_empty() => "agnhost-primary",
        _ => return Err((400, format!("unsupported cmd {command:?}, or no key"))),
    };
    if !plain(key) || !plain(value) {
        return Err((400, "key and value must be letters and digits".into()));
    }
    http::get(host, backend, &format!("{command}?key={key}&value={value}")).map_err(|error| (417, error))
}
