//! First boot: a machine whose disk image holds the packages becomes a cluster, or joins one, from a file that was put
//! beside it: on a stick with the label KEELSON, or into /boot or /etc.
//!
//! The image holds no identity: keys are made, and names taken, when the file is first acted on. Each step is one that may be
//! interrupted and run again (`keelson init`, `keelson join`), so a power cut leaves a machine that goes on at its next boot; a
//! stick stays in until it is done.
//! The unit is left disabled by the package; whoever makes an image enables it, or runs `keelson first-boot prepare` where the
//! image's root is to be read-only ([`sealed`]). A machine that was reset with all its state is
//! new again: its next boot acts on the file once more.

use crate::install::progress::Output;
use crate::install::{machine_id, run, sealed};
use anyhow::{Context as _, Result, bail};
use keelson_daemon::config::Config;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The label of a stick with the file.
const LABEL: &str = "KEELSON";
/// The file's name there and in /boot.
const NAME: &str = "keelson-first-boot.yaml";
/// Where a stick is mounted while its file is read.
const MOUNT: &str = "/run/keelson-stick";
/// The drop-in with the file's configuration: after the one that init and join write.
const DROP_IN: &str = "20-first-boot.yaml";

/// What to do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Act on the file, if there is one and it has not been acted on (root). The unit keelson-first-boot.service runs this.
    Run {
        /// The file; looked for on the stick, in /boot and in /etc/keelson otherwise.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Tell how far it is. Ends with an error until it is done.
    Status,
    /// Make a disk image ready for machines whose root is read-only (root, in the image): what they cannot write is put in
    /// place, without any identity, and leads below /var.
    Prepare,
    /// Keep this machine's id, which systemd makes up at each boot of a machine whose /etc is read-only, or take the one that
    /// was kept. The unit keelson-machine-id.service runs this.
    #[command(hide = true)]
    MachineId,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    api_version: String,
    kind: String,
    /// The machine's name.
    host_name: Option<String>,
    /// Become a cluster.
    init: Option<Init>,
    /// Join one.
    join: Option<Join>,
    /// More of the configuration, as `keelson config` prints it.
    configuration: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Init {
    mode: Option<String>,
    advertise_address: Option<String>,
    extra_sans: Vec<String>,
    token: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Join {
    endpoint: String,
    token: String,
    ca_cert_hashes: Vec<String>,
    #[serde(default)]
    node_labels: BTreeMap<String, String>,
    /// As a control plane, with the key that opens the cluster's.
    certificate_key: Option<String>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Wanted> {
        let wanted: Wanted = serde_saphyr::from_str(text).map_err(|error| anyhow::anyhow!("{error}"))?;
        if wanted.api_version != keelson_base::consts::CONFIG_API_VERSION || wanted.kind != "FirstBoot" {
            bail!("it must be apiVersion: {}, kind: FirstBoot", keelson_base::consts::CONFIG_API_VERSION);
        }
        anyhow::ensure!(
            wanted.init.is_some() != wanted.join.is_some(),
            "it must have either `init` or `join`"
        );
        Ok(wanted)
    }

    /// The command line that it stands for.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        if let Some(init) = &self.init {
            let named = [
                ("--mode", &init.mode),
                ("--apiserver-advertise-address", &init.advertise_address),
                ("--token", &init.token),
            ];
            for (name, value) in named {
                value.iter().for_each(|value| add(name, value));
            }
            init.extra_sans.iter().for_each(|name| add("--extra-sans", name));
            arguments.insert(0, "init".to_owned());
        } else if let Some(join) = &self.join {
            add("--token", &join.token);
            join.ca_cert_hashes.iter().for_each(|hash| add("--discovery-token-ca-cert-hash", hash));
            join.node_labels.iter().for_each(|(key, value)| add("--node-labels", &format!("{key}={value}")));
            join.certificate_key.iter().for_each(|key| add("--certificate-key", key));
            if join.certificate_key.is_some() {
                arguments.push("--control-plane".to_owned());
            }
            arguments.insert(0, "join".to_owned());
            arguments.insert(1, join.endpoint.clone());
        }
        arguments
    }
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    done: bool,
    file: PathBuf,
    /// What is being done, was done, or what went wrong last.
    text: String,
}

fn status_file(config: &Config) -> PathBuf {
    config.paths.state.join("first-boot.json")
}

fn status(config: &Config) -> Option<Status> {
    serde_json::from_slice(&fs::read(status_file(config)).ok()?).ok()
}

fn note(config: &Config, status: &Status) -> Result<()> {
    keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
    keelson_pki::write_atomic(&status_file(config), &serde_json::to_vec_pretty(status)?, 0o644)?;
    Ok(())
}

/// Runs one of them.
pub fn work(command: Command, config: &Config, config_file: &Path, output: Output) -> Result<()> {
    match command {
        Command::Status => {
            let status = status(config).unwrap_or(Status {
                done: false,
                file: PathBuf::new(),
                text: "no file was found yet".to_owned(),
            });
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
                Output::Text => println!("{}", status.text),
            }
            anyhow::ensure!(status.done, "first boot is not done");
            Ok(())
        }
        Command::Prepare => {
            anyhow::ensure!(nix::unistd::Uid::effective().is_root(), "this needs root: run it with sudo");
            sealed::prepare(config, config_file)
        }
        Command::MachineId => {
            anyhow::ensure!(nix::unistd::Uid::effective().is_root(), "this needs root: run it with sudo");
            machine_id::keep(&config.paths.state)
        }
        Command::Run { file } => {
            anyhow::ensure!(nix::unistd::Uid::effective().is_root(), "this needs root: run it with sudo");
            keep_name(config)?;
            if status(config).is_some_and(|status| status.done) {
                sealed::resume(config)?;
                println!("first boot was done before; nothing is changed");
                return Ok(());
            }
            let (path, text) = match find(file) {
                Ok(found) => found,
                // By hand, on a machine that no file was ever meant for.
                Err(_) if status(config).is_none() && !sealed::resume(config)?.is_empty() => {
                    println!("this machine was set up without a file");
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let outcome = act(config, config_file, &path, &text);
            let text = match &outcome {
                Ok(words) => words.clone(),
                Err(error) => format!("{error:#}"),
            };
            note(config, &Status { done: outcome.is_ok(), file: path, text })?;
            outcome.map(|words| println!("{words}"))
        }
    }
}

/// The host name where /etc cannot be written.
fn name_file(config: &Config) -> PathBuf {
    config.paths.state.join("hostname")
}

/// Sets the host name that could not be written where the boot reads it.
fn keep_name(config: &Config) -> Result<()> {
    match fs::read_to_string(name_file(config)) {
        Ok(name) => nix::unistd::sethostname(name.trim()).context("the host name cannot be set"),
        Err(_) => Ok(()),
    }
}

/// Where first boot gave the machine a name that is kept with the state: back to the one that it boots with. A node that is
/// made after a reset would have another name at the next boot.
pub fn name_back(config: &Config) -> Result<()> {
    if !name_file(config).exists() {
        return Ok(());
    }
    let name = fs::read_to_string("/etc/hostname").context("cannot read /etc/hostname")?;
    nix::unistd::sethostname(name.trim()).context("the host name cannot be set")
}

/// The file that is there, and its text.
fn find(named: Option<PathBuf>) -> Result<(PathBuf, String)> {
    let read =
        |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
    if let Some(path) = named {
        return Ok((path.clone(), read(&path)?));
    }
    let stick = Path::new("/dev/disk/by-label").join(LABEL);
    if stick.exists() {
        let found = on_stick(&stick)?;
        return Ok((stick.join(NAME), found));
    }
    for path in [Path::new("/boot").join(NAME), Path::new("/etc/keelson/first-boot.yaml").to_owned()] {
        if path.exists() {
            return Ok((path.clone(), read(&path)?));
        }
    }
    bail!(
        "there is no {NAME} on a stick with the label {LABEL} or in /boot, and no /etc/keelson/first-boot.yaml"
    )
}

/// Mounts the stick read-only, reads the file, and lets go of it.
fn on_stick(stick: &Path) -> Result<String> {
    fs::create_dir_all(MOUNT).with_context(|| format!("cannot make {MOUNT}"))?;
    run("mount", &["-o", "ro,nosuid,nodev,noexec", &stick.to_string_lossy(), MOUNT])?;
    let path = Path::new(MOUNT).join(NAME);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("the stick {LABEL} has no {NAME} that can be read"));
    run("umount", &[MOUNT])?;
    text
}

fn act(config: &Config, config_file: &Path, path: &Path, text: &str) -> Result<String> {
    let wanted = Wanted::parse(text).with_context(|| format!("{} cannot be used", path.display()))?;
    let begun = Status { done: false, file: path.to_owned(), text: "at work".to_owned() };
    note(config, &begun)?;
    if let Some(name) = &wanted.host_name {
        let place = Path::new("/etc/hostname");
        let place = if sealed::is(place) { name_file(config) } else { place.to_owned() };
        keelson_pki::write_atomic(&place, format!("{name}\n").as_bytes(), 0o644)?;
        nix::unistd::sethostname(name).context("the host name cannot be set")?;
    }
    if let Some(more) = &wanted.configuration {
        let mut all = more.clone();
        all.insert("apiVersion".to_owned(), keelson_base::consts::CONFIG_API_VERSION.into());
        let text = serde_json::to_string_pretty(&all)?;
        let there = Some(config_file).filter(|file| file.exists());
        keelson_daemon::config::load_with(there, &[(DROP_IN, &text)])
            .with_context(|| format!("the configuration in {} is refused", path.display()))?;
        let ledger = crate::install::ledger::Ledger::of(&config.paths.state);
        crate::install::init::write_config(&ledger, config_file, DROP_IN, &text)?;
    }
    let own = std::env::current_exe().context("cannot tell which program this is")?;
    let arguments = wanted.arguments();
    let mut child = std::process::Command::new(own)
        .args(&arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run keelson itself")?;
    // Its progress goes to the journal as it comes; the end of it says why it failed.
    let mut said = String::new();
    for line in child.stderr.take().into_iter().flat_map(|pipe| BufReader::new(pipe).lines()) {
        let line = line.context("cannot read what keelson says")?;
        eprintln!("{line}");
        said.push_str(&line);
        said.push('\n');
    }
    let ended = child.wait().context("cannot wait for keelson itself")?;
    if !ended.success() {
        let last = said.rsplit_once("error: ").map_or(said.trim(), |(_, last)| last.trim());
        bail!("`keelson {}` failed: {last}", arguments.first().map_or("", String::as_str));
    }
    Ok(match wanted.init {
        Some(_) => "this machine is a cluster".to_owned(),
        None => "this machine has joined its cluster".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_a_command() {
        let head = "apiVersion: keelson/v1\nkind: FirstBoot\n";
        let check = |text: &str, expected: Result<&str, &str>| {
            let parsed = Wanted::parse(&format!("{head}{text}")).map(|wanted| wanted.arguments().join(" "));
            match (parsed, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{error}"),
                (found, expected) => panic!("{found:?}, not {expected:?}"),
            }
        };
        check("init: {}", Ok("init"));
        check(
            "init: {mode: units, advertiseAddress: 192.0.2.1, extraSans: [a, b]}",
            Ok("init --mode units --apiserver-advertise-address 192.0.2.1 --extra-sans a --extra-sans b"),
        );
        check(
            "join: {endpoint: 'a:6443', token: t, caCertHashes: ['sha256:00'], nodeLabels: {x: y}}",
            Ok("join a:6443 --token t --discovery-token-ca-cert-hash sha256:00 --node-labels x=y"),
        );
        check("hostName: a", Err("either `init` or `join`"));
        check("init: {}\njoin: {endpoint: a, token: t, caCertHashes: []}", Err("either `init` or `join`"));
        check("init: {modes: units}", Err("modes"));
        assert!(Wanted::parse("apiVersion: keelson/v1\nkind: Configuration\ninit: {}").is_err());
    }
}
