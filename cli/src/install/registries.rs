//! Where containerd fetches images from in place of the registries they name: a `hosts.toml` for each registry, in the form
//! of <https://github.com/containerd/containerd/blob/main/docs/hosts.md>. containerd reads them with every pull.

use super::ledger::Ledger;
use anyhow::{Context as _, Result};
use keelson_daemon::config::RegistriesSection;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where containerd looks for them when it has no folder of its own choice.
pub const FOLDER: &str = "/etc/containerd/certs.d";

/// What `keelson init` and `keelson join` take.
#[derive(clap::Args, Debug, Default)]
pub struct Mirrors {
    /// Fetch a registry's images from elsewhere, such as docker.io=https://mirror:5000; `*` for all registries. May be given
    /// several times.
    #[arg(long, value_name = "REGISTRY=URL", value_parser = mirror)]
    pub registry_mirror: Vec<(String, String)>,
    /// The authority (PEM) of the mirrors' certificates.
    #[arg(long, value_name = "FILE", requires = "registry_mirror")]
    pub registry_ca_file: Option<PathBuf>,
}

fn mirror(text: &str) -> Result<(String, String), String> {
    let (registry, url) = text.split_once('=').ok_or("it must be REGISTRY=URL")?;
    Ok((registry.to_owned(), url.to_owned()))
}

impl Mirrors {
    /// As configuration keys.
    pub fn choose(&self, chosen: &mut super::dropin::Chosen) {
        if self.registry_mirror.is_empty() {
            return;
        }
        let mut mirrors: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (registry, url) in &self.registry_mirror {
            mirrors.entry(registry).or_default().push(url);
        }
        chosen.set("registries.mirrors", serde_json::json!(mirrors));
        let ca = self.registry_ca_file.as_ref().map(|path| std::path::absolute(path).unwrap_or(path.clone()));
        chosen.set_some("registries.caFile", ca.map(|path| path.to_string_lossy().into_owned()));
    }
}

/// Refuses an authority that is none, before anything is changed.
pub fn check(section: &RegistriesSection) -> Result<()> {
    authority(section).map(drop)
}

fn authority(section: &RegistriesSection) -> Result<Option<Vec<u8>>> {
    use rustls_pki_types::pem::PemObject as _;
    let Some(path) = &section.ca_file else { return Ok(None) };
    let pem = std::fs::read(path)
        .with_context(|| format!("the mirrors' authority {} cannot be read", path.display()))?;
    rustls_pki_types::CertificateDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("registries.caFile {} holds no PEM certificate", path.display()))?;
    Ok(Some(pem))
}

/// Writes the files of all registries that have mirrors. Those of a registry that has none any more stay as they are.
pub fn write(ledger: &Ledger, folder: &Path, section: &RegistriesSection) -> Result<()> {
    let ca = authority(section)?;
    for (registry, urls) in &section.mirrors {
        let name = if registry == "*" { "_default" } else { registry };
        let at = folder.join(name);
        let ca_file = ca.as_ref().map(|_| at.join("keelson-ca.crt"));
        if let (Some(pem), Some(path)) = (&ca, &ca_file) {
            ledger.write(path, pem, 0o644)?;
        }
        ledger.write(&at.join("hosts.toml"), text(registry, urls, ca_file.as_deref()).as_bytes(), 0o644)?;
    }
    Ok(())
}

/// Mirrors are asked in their order, then the registry itself.
fn text(registry: &str, urls: &[String], ca_file: Option<&Path>) -> String {
    let mut text = String::from("# Written by keelson; `keelson reset` removes it.\n");
    match registry {
        "*" => {}
        // The registry behind this name answers at another.
        "docker.io" => text.push_str("server = \"https://registry-1.docker.io\"\n"),
        name => text.push_str(&format!("server = \"https://{name}\"\n")),
    }
    for url in urls {
        text.push_str(&format!("\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
        if let Some(path) = ca_file {
            text.push_str(&format!("  ca = \"{}\"\n", path.display()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registry_has_its_mirrors_in_order_and_reset_removes_them() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, at) = (Ledger::of(&folder.path().join("state")), folder.path().join("certs.d"));
        let ca = folder.path().join("ca.crt");
        let section = |text: &[(&str, &[&str])], ca_file: Option<&Path>| RegistriesSection {
            mirrors: text
                .iter()
                .map(|(name, urls)| ((*name).to_owned(), urls.iter().map(|url| (*url).to_owned()).collect()))
                .collect(),
            ca_file: ca_file.map(Path::to_owned),
        };
        let two =
            section(&[("docker.io", &["https://a:5000", "http://b"]), ("*", &["https://a:5000"])], None);
        write(&ledger, &at, &two).unwrap();
        let read = |name: &str| std::fs::read_to_string(at.join(name).join("hosts.toml")).unwrap();
        let docker = read("docker.io");
        assert!(docker.contains("server = \"https://registry-1.docker.io\"\n"), "{docker}");
        let places: Vec<_> =
            ["[host.\"https://a:5000\"]", "[host.\"http://b\"]"].map(|one| docker.find(one).unwrap()).into();
        assert!(places.is_sorted() && !docker.contains("ca ="));
        assert!(!read("_default").contains("server ="));

        let with_ca = section(&[("*", &["https://a:5000"])], Some(&ca));
        assert!(write(&ledger, &at, &with_ca).unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&ca, "no certificate").unwrap();
        assert!(check(&with_ca).unwrap_err().to_string().contains("holds no PEM certificate"));
        let profile = keelson_pki::Profile::client("mirrors", &[]);
        let life = std::time::Duration::from_secs(60);
        let (pem, _) = keelson_pki::self_signed(&profile, jiff::Timestamp::now(), life).unwrap();
        std::fs::write(&ca, &pem).unwrap();
        write(&ledger, &at, &with_ca).unwrap();
        assert!(
            read("_default").contains(&format!("ca = \"{}\"", at.join("_default/keelson-ca.crt").display()))
        );
        for entry in ledger.entries().unwrap() {
            Ledger::undo(&entry).unwrap();
        }
        assert!(!at.exists());
    }
}
