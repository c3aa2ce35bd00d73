//! As much HTTP/1.1 as the tests need: GET requests without a body, one per connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);
const MAX_BODY: u64 = 1 << 20;

/// A request line.
pub struct Request {
    pub path: String,
    query: Vec<(String, String)>,
}

impl Request {
    /// A parameter of the query, empty when it is missing.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }
}

/// Text, or a status and a text.
pub type Answer = Result<String, (u16, String)>;

/// Answers on the port until the process ends.
pub fn serve(port: u16, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<(), String> {
    let listener = TcpListener::bind(("::", port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
        .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
    let answer = Arc::new(answer);
    println!("listening on port {port}");
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let answer = answer.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve_one(&stream, &*answer) {
                eprintln!("a connection failed: {error}");
            }
        });
    }
    Ok(())
}

fn serve_one(mut stream: &TcpStream, answer: &dyn Fn(&Request) -> Answer) -> std::io::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut lines = BufReader::new(stream.take(64 * 1024)).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    println!("{first}");
    let target = first.split(' ').nth(1).unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (unquote(k), unquote(v)));
    let request = Request { path: path.to_owned(), query: query.collect() };
    let (status, text) = match answer(&request) {
        Ok(text) => (200, text),
        Err(refused) => refused,
    };
    write!(
        stream,
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        if status == 200 { "OK" } else { "Refused" },
        text.len()
    )
}

fn unquote(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let value = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(value.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The body that `http://host:port/target` answers with status 200.
pub fn get(host: &str, port: u16, target: &str) -> Result<String, String> {
    let fail = |what: &str, error: &dyn std::fmt::Display| format!("{what} {host}:{port}: {error}");
    let address = (host, port)
        .to_socket_addrs()
        .map_err(|error| fail("cannot resolve", &error))?
        .next()
        .ok_or_else(|| fail("cannot resolve", &"no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| fail("cannot connect to", &error))?;
    let exchange = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.take(MAX_BODY).read_to_string(&mut text)?;
        std::io::Result::Ok(text)
    };
    let text = exchange(&mut stream).map_err(|error| fail("no answer from", &error))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| fail("no answer from", &"it was cut"))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(fail(head.lines().next().unwrap_or_default(), &body));
    }
    Ok(body.to_owned())
}
