//! Manual pages and shell completions, made from the command line's own definition.

use crate::Args;
use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::path::Path;

/// Writes `man/keelson*.8`, `completion/{bash,zsh,fish}` and `release` below a folder.
pub fn write(folder: &Path) -> Result<()> {
    let (man, completion) = (folder.join("man"), folder.join("completion"));
    for folder in [&man, &completion] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    pages(&command, "keelson", &man)?;
    for (shell, name) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, "keelson", &mut text);
        put(&completion.join(name), &text)?;
    }
    // What packages say of this program: see [`crate::upgrade`].
    let release = format!(
        "version {}\ndatabase-format {}\nkubernetes {}\n",
        crate::version::OWN,
        keelson_store::sqlite::FORMAT,
        keelson_base::consts::KUBERNETES_VERSION.trim_start_matches('v')
    );
    put(&folder.join("release"), release.as_bytes())
}

/// A page for the command and one for each below it that is shown.
fn pages(command: &clap::Command, name: &str, folder: &Path) -> Result<()> {
    let page = clap_mangen::Man::new(command.clone()).section("8").date("");
    let mut text = Vec::new();
    page.render(&mut text).context("a manual page cannot be made")?;
    put(&folder.join(format!("{name}.8")), &text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        super::write(folder.path()).unwrap();
        for name in
            ["keelson", "keelson-init", "keelson-join", "keelson-token-create", "keelson-control-plane"]
        {
            let text = std::fs::read_to_string(folder.path().join(format!("man/{name}.8"))).unwrap();
            assert!(text.contains(".SH NAME"), "{name}");
        }
        assert!(!folder.path().join("man/keelson-docs.8").exists());
        let bash = std::fs::read_to_string(folder.path().join("completion/bash")).unwrap();
        assert!(bash.contains("--discovery-token-ca-cert-hash"));
    }
}
