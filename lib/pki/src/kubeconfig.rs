//! Kubeconfig files with everything inside, as `kubectl` and `kube::Client` read them.

use crate::files::{FileError, write_atomic};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

/// How the kubeconfig's user proves who it is.
pub enum KubeconfigAuth<'a> {
    /// PEM texts of the certificate chain and its key.
    ClientCertificate { cert_pem: &'a str, key_pem: &'a str },
    /// A bearer token.
    Token(&'a str),
}

/// What a kubeconfig says: one cluster, one user, one context.
pub struct Kubeconfig<'a> {
    pub cluster: &'a str,
    /// `https://host:port`.
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub user: &'a str,
    pub auth: KubeconfigAuth<'a>,
}

impl Kubeconfig<'_> {
    /// The file's text. Names are JSON strings, which are YAML too, so no name can break out of its place.
    pub fn render(&self) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let context = format!("{}@{}", self.user, self.cluster);
        let auth = match &self.auth {
            KubeconfigAuth::ClientCertificate { cert_pem, key_pem } => format!(
                "    client-certificate-data: {}\n    client-key-data: {}\n",
                STANDARD.encode(cert_pem),
                STANDARD.encode(key_pem)
            ),
            KubeconfigAuth::Token(token) => format!("    token: {}\n", quote(token)),
        };
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {cluster}\n  cluster:\n    \
             certificate-authority-data: {ca}\n    server: {server}\nusers:\n- name: {user}\n  user:\n{auth}\
             contexts:\n- name: {context}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
             current-context: {context}\npreferences: {{}}\n",
            cluster = quote(self.cluster),
            ca = STANDARD.encode(self.ca_pem),
            server = quote(self.server),
            user = quote(self.user),
            context = quote(&context),
        )
    }

    /// Writes the file (mode 0600); a file that already says the same is left alone.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let text = self.render();
        if crate::files::read_optional(path)?.as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        write_atomic(path, text.as_bytes(), 0o600)
    }
}
