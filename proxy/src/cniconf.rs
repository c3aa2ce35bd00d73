//! The CNI network configuration: written when the node's pod range is known, so that the runtime reports its
//! network as ready exactly then.
use std::path::{Path, PathBuf};

use keelson_base::cidr::Cidr;
use keelson_base::consts::CNI_PLUGIN;
use keelson_sys::file;
use serde_json::json;

/// The file's name; runtimes take the first by name.
pub const FILE: &str = "10-keelson.conflist";
/// The network's name; the plugin's leases lie in a folder of this name.
pub const NETWORK: &str = "keelson";
/// What every supported runtime understands (containerd 1.6 knows no later one).
const CNI_VERSION: &str = "1.0.0";

/// Why the configuration could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("{step} CNI configuration {path}")]
pub struct CniConfError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The configuration's text.
pub fn render(pod_cidrs: &[Cidr], state: &Path, mtu: Option<u32>) -> String {
    let mut plugin = json!({
        "type": CNI_PLUGIN,
        "podCIDRs": pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "dataDir": state,
        "capabilities": {"portMappings": true},
    });
    if let Some(mtu) = mtu {
        plugin["mtu"] = json!(mtu);
    }
    let list = json!({"cniVersion": CNI_VERSION, "name": NETWORK, "plugins": [plugin]});
    format!("{list:#}\n")
}

/// Writes the configuration where it differs. Returns whether it did.
pub fn ensure(folder: &Path, text: &str) -> Result<bool, CniConfError> {
    let path = folder.join(FILE);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    let failed = |step| {
        let path = path.clone();
        move |source| CniConfError { step, path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    file::write_atomic(&path, text.as_bytes(), 0o644).map_err(failed("write"))?;
    Ok(true)
}

/// Removes the file. Returns whether it was there.
pub fn remove(folder: &Path) -> Result<bool, CniConfError> {
    let path = folder.join(FILE);
    match std::fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CniConfError { step: "remove", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_once_and_removed() {
        let folder = tempfile::tempdir().expect("folder");
        let conf = folder.path().join("net.d");
        let text =
            render(&["10.244.3.0/24".parse().expect("cidr")], Path::new("/run/keelson/cni"), Some(1450));
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["plugins"][0]["podCIDRs"][0], "10.244.3.0/24");
        assert_eq!(value["plugins"][0]["type"], "keelson-cni");
        assert_eq!(value["plugins"][0]["mtu"], 1450);
        assert!(ensure(&conf, &text).expect("written"));
        assert!(!ensure(&conf, &text).expect("same"));
        assert_eq!(std::fs::read_dir(&conf).expect("folder").count(), 1);
        assert!(remove(&conf).expect("removed") && !remove(&conf).expect("gone"));
    }
}
