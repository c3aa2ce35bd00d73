//! Raw requests: curl with the administrator's certificate, each over a connection of its own.

use keelson_tests::Cluster;
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// How a request is sent.
pub struct Curl {
    folder: tempfile::TempDir,
    server: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The Status, or null where the body is none.
    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The beginning of the body.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(600).collect()
    }
}

impl Curl {
    /// Takes certificates and address from the kubeconfig.
    pub fn of(cluster: &Cluster) -> Curl {
        let folder = tempfile::tempdir().expect("a folder");
        let value = |path: &str| {
            let path = format!("jsonpath={{{path}}}");
            cluster.kubectl(&["config", "view", "--raw", "-o", &path]).ok()
        };
        for (file, path) in [
            ("ca", ".clusters[0].cluster.certificate-authority-data"),
            ("cert", ".users[0].user.client-certificate-data"),
            ("key", ".users[0].user.client-key-data"),
        ] {
            let text = value(path);
            let mut child = Command::new("base64")
                .arg("-d")
                .stdin(Stdio::piped())
                .stdout(std::fs::File::create(folder.path().join(file)).expect("a file"))
                .spawn()
                .expect("base64 starts");
            child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("base64 reads");
            assert!(child.wait().expect("base64 ends").success());
        }
        Curl { server: value(".clusters[0].cluster.server"), folder }
    }

    /// Sends a request; `Content-Type` is JSON unless the headers say otherwise. With an Authorization header no certificate
    /// is shown.
    pub fn send(&self, method: &str, path: &str, headers: &[String], body: &[u8]) -> Answer {
        let file = |name: &str| self.folder.path().join(name);
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "60", "--noproxy", "*", "--globoff", "-w", "\n%{http_code}"]);
        command.arg("-X").arg(method).arg("--cacert").arg(file("ca"));
        let named = |name: &str| headers.iter().any(|header| header.starts_with(name));
        if !named("Authorization") {
            command.arg("--cert").arg(file("cert")).arg("--key").arg(file("key"));
        }
        if !named("Content-Type") {
            command.args(["-H", "Content-Type: application/json"]);
        }
        for header in headers {
            command.arg("-H").arg(header);
        }
        // Even an empty body is sent as one.
        if method != "GET" {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!("{}{path}", self.server));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("curl");
        let mut stdin = child.stdin.take().expect("piped");
        let sent = body.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&sent));
        let output = child.wait_with_output().expect("curl ends");
        drop(writer.join());
        let end = output.stdout.iter().rposition(|byte| *byte == b'\n').expect("curl writes the code");
        let code = String::from_utf8_lossy(&output.stdout[end + 1..]).parse().expect("a code");
        let body = if code == 0 { output.stderr } else { output.stdout[..end].to_vec() };
        Answer { code, body }
    }
}
