//! `keelson config`: the configuration file with every key, made from the table that checks it.

use keelson_daemon::config::KEYS;

/// The file as YAML; everything but the header is commented out, since it states the defaults.
pub fn text() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let (above, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if above.is_empty() {
            text.push_str(&format!("{name}: {}\n", key.default));
            continue;
        }
        if above != section {
            text.push_str(&format!("\n#{above}:\n"));
            section = above;
        }
        text.push_str(&format!("#  # {}\n#  {name}: {}\n", key.doc, key.default));
    }
    text
}

#[cfg(test)]
mod tests {
    /// Taking the comment marks away gives a file that is read and means the defaults.
    #[test]
    fn the_printed_file_is_a_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        let text: String = super::text()
            .lines()
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .filter(|line| !line.ends_with(": "))
            .fold(String::new(), |text, line| text + line + "\n");
        std::fs::write(&file, text).unwrap();
        let config = keelson_daemon::config::load(Some(&file)).unwrap();
        assert_eq!(config.kubelet.max_pods, 110);
    }
}
