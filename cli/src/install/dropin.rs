//! The configuration that init and join write: a drop-in beside the administrator's file, holding only what was chosen.

use keelson_base::consts;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Sections with their keys.
#[derive(Default)]
pub struct Chosen(Map<String, Value>);

impl Chosen {
    /// Sets `section.key`.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (section, key) = path.split_once('.').unwrap_or((path, ""));
        let section = self.0.entry(section).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(section) = section {
            section.insert(key.to_owned(), value.into());
        }
    }

    /// Sets it when there is a value.
    pub fn set_some(&mut self, path: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(path, value);
        }
    }

    /// The file's text. Values are JSON, which is YAML too.
    pub fn text(&self, written_by: &str) -> String {
        let mut text = format!(
            "# Written by `{written_by}`, which writes it again when it runs again. Put changes of yours into a file of a\n\
             # later name in this folder; `keelson config` prints all keys.\napiVersion: {}\nkind: Configuration\n",
            consts::CONFIG_API_VERSION
        );
        for (section, keys) in &self.0 {
            text.push_str(&format!("{section}:\n"));
            for (key, value) in keys.as_object().into_iter().flatten() {
                text.push_str(&format!("  {key}: {value}\n"));
            }
        }
        text
    }
}

/// The drop-in beside a configuration file.
pub fn place(config_file: &Path, name: &str) -> PathBuf {
    let mut folder = config_file.as_os_str().to_owned();
    folder.push(".d");
    PathBuf::from(folder).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, "apiVersion: keelson/v1\nnode: {name: a}\n").unwrap();
        let mut chosen = Chosen::default();
        chosen.set("node.address", "192.0.2.1");
        chosen.set("node.labels", serde_json::json!({"a.b/c": "1"}));
        chosen.set("apiServer.extraSans", vec!["x: y", "#"]);
        chosen.set_some("kubelet.maxPods", None::<u32>);
        let at = place(&file, "10-init.yaml");
        std::fs::create_dir(at.parent().unwrap()).unwrap();
        std::fs::write(&at, chosen.text("keelson init")).unwrap();
        let config = keelson_daemon::config::load(Some(&file)).unwrap();
        assert_eq!(config.node.address, Some([192, 0, 2, 1].into()));
        assert_eq!(config.node.labels["a.b/c"], "1");
        assert_eq!(config.api_server.extra_sans, ["x: y", "#"]);
    }
}
