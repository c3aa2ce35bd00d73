//! What must be agreed with containerd: its CRI plugin is on, the sandbox image is one this machine has, the folders of
//! CNI, the cgroup driver. What has to change goes into a drop-in; containerd is restarted only then.

use super::ledger::{Entry, Ledger};
use super::{registries, run, sealed};
use anyhow::{Context as _, Result, bail};
use keelson_daemon::config::RegistriesSection;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The drop-in, and the line that makes containerd read it.
const DROP_IN: &str = "/etc/containerd/conf.d/keelson.toml";
const MAIN: &str = "/etc/containerd/config.toml";
const IMPORTS: &str = "imports = [\"/etc/containerd/conf.d/*.toml\"]\n";
/// Sections of the CRI plugin, in containerd 1.6/1.7 and in 2.x.
const CRI: [&str; 2] = ["plugins.\"io.containerd.grpc.v1.cri\"", "plugins.'io.containerd.cri.v1.images'"];
/// In the state folder while what was written is not in force.
const RESTART_DUE: &str = "containerd-restart-due";
/// Our pause image, and where the package puts its archive.
pub const PAUSE: &str = "keelson.dev/pause:1";
const PAUSE_ARCHIVES: [&str; 1] = ["/usr/share/keelson/images/pause.tar"];

/// What `containerd config dump` says.
pub struct Effective {
    dump: String,
}

impl Effective {
    pub fn read() -> Result<Effective> {
        Ok(Effective { dump: run("containerd", &["config", "dump"])? })
    }

    fn value(&self, section_end: &str, key: &str) -> Option<String> {
        let mut inside = false;
        self.dump.lines().map(str::trim).find_map(|line| {
            if line.starts_with('[') {
                inside = line.trim_matches(['[', ']']).replace('\'', "\"").ends_with(section_end);
            }
            let (name, value) = line.split_once(" = ")?;
            (inside && name == key).then(|| value.trim_matches(['"', '\'']).to_owned())
        })
    }

    /// Whether the CRI plugin is switched off. (containerd 2 quotes with apostrophes.)
    pub fn cri_disabled(&self) -> bool {
        self.dump.lines().any(|line| {
            line.trim_start().starts_with("disabled_plugins") && line.replace('\'', "\"").contains("cri\"")
        })
    }

    /// The image of the pods' first process.
    pub fn sandbox_image(&self) -> String {
        let old = self.value("io.containerd.grpc.v1.cri\"", "sandbox_image");
        let new = || self.value("io.containerd.cri.v1.images\".pinned_images", "sandbox");
        old.or_else(new).unwrap_or_default()
    }

    /// Where plugins and network configurations are looked for. Of the several folders that containerd 2.1 knows, the first.
    pub fn cni(&self) -> (PathBuf, PathBuf) {
        let of = |key: &str| {
            let value = self.value("cri\".cni", key).or_else(|| self.value("cri.v1.runtime\".cni", key));
            let first = value?.split(',').next()?.trim_matches(['[', ']', ' ', '"', '\'']).to_owned();
            (!first.is_empty()).then(|| PathBuf::from(first))
        };
        let plugins = of("bin_dir").or_else(|| of("bin_dirs"));
        (
            plugins.unwrap_or_else(|| keelson_base::consts::CNI_BIN_DIR.into()),
            of("conf_dir").unwrap_or_else(|| keelson_base::consts::CNI_CONF_DIR.into()),
        )
    }

    /// The form of the file: one of another names no plugin of this containerd.
    fn form(&self) -> &str {
        form(&self.dump).unwrap_or("2")
    }

    /// Where images and containers lie.
    fn root(&self) -> PathBuf {
        let value = self.dump.lines().find_map(|line| line.strip_prefix("root = "));
        PathBuf::from(value.map_or("/var/lib/containerd", |value| value.trim_matches(['"', '\''])))
    }

    /// Whether runc is told to use systemd for cgroups.
    pub fn systemd_cgroup(&self) -> bool {
        self.value("runtimes.runc.options", "SystemdCgroup").as_deref() == Some("true")
    }

    /// Where files about registries are looked for.
    fn registries(&self) -> Option<PathBuf> {
        let old = self.value("cri\".registry", "config_path");
        let paths = old.or_else(|| self.value("cri.v1.images\".registry", "config_path")).unwrap_or_default();
        paths.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// The drop-in that names our sandbox image (where `pause`), and the folder about registries (where `mirrors`); `None` when
    /// neither needs a change. containerd takes a plugin's section of a drop-in for the whole section, so it holds all that
    /// is in force now. Beside a main file of another form it holds every plugin's: containerd 2 reads a form 2 that is alone, and
    /// passes over its plugins where a drop-in has form 3.
    fn drop_in(&self, pause: bool, mirrors: bool, main: &str) -> Option<String> {
        let pause = pause && self.sandbox_image() != PAUSE;
        let mirrors = mirrors && self.registries().is_none();
        if !pause && !mirrors {
            return None;
        }
        let mut text =
            format!("# Written by keelson; `keelson reset` removes it.\nversion = {}\n", self.form());
        let mixed = !main.is_empty() && form(main) != Some(self.form());
        let (mut inside, mut cri) = (false, false);
        for line in self.dump.lines() {
            let trimmed = line.trim();
            if trimmed.starts_with('[') {
                let section = trimmed.trim_start_matches('[');
                cri = CRI.iter().any(|ours| section.starts_with(ours));
                inside = cri || mixed && section.starts_with("plugins.");
            }
            if !inside {
                continue;
            }
            let is = |key: &str| cri && trimmed.split_once(" = ").is_some_and(|(name, _)| name == key);
            if pause && (is("sandbox_image") || is("sandbox")) {
                let (key, _) = trimmed.split_once(" = ")?;
                text.push_str(&format!("{key} = \"{PAUSE}\"\n"));
            } else if mirrors && is("config_path") {
                text.push_str(&format!("config_path = \"{}\"\n", registries::FOLDER));
            } else {
                text.push_str(trimmed);
                text.push('\n');
            }
        }
        Some(text)
    }
}

/// The form that a file of containerd's says it has.
fn form(text: &str) -> Option<&str> {
    text.lines().find_map(|line| Some(line.trim().strip_prefix("version")?.trim().strip_prefix('=')?.trim()))
}

/// Whether the package of images is installed.
pub fn has_images() -> bool {
    PAUSE_ARCHIVES.iter().any(|path| Path::new(path).exists())
}

/// Makes containerd use our sandbox image, imports it, and tells it of the registries' mirrors. Whether containerd was
/// restarted.
pub fn configure(ledger: &Ledger, state: &Path, socket: &Path, mirrors: &RegistriesSection) -> Result<bool> {
    // Without the package of images the sandbox image must come from where the administrator has it.
    let archive = PAUSE_ARCHIVES.iter().map(Path::new).find(|path| path.exists());
    if let Some(archive) = archive {
        import(ledger, state, socket, archive)?;
    }
    // A run that ended between the file and the restart left this.
    let due = state.join(RESTART_DUE);
    let changed = write_drop_in(ledger, archive.is_some(), mirrors, Some(&due))? || due.exists();
    if changed {
        restart()?;
        let now = Effective::read()?;
        if archive.is_some() && now.sandbox_image() != PAUSE {
            let image = now.sandbox_image();
            bail!("containerd still uses the sandbox image {image:?} after {DROP_IN} was written");
        }
        if !mirrors.mirrors.is_empty() && now.registries().is_none() {
            bail!("containerd still reads no {} after {DROP_IN} was written", registries::FOLDER);
        }
        std::fs::remove_file(&due).with_context(|| format!("cannot remove {}", due.display()))?;
    }
    Ok(changed)
}

/// Writes the mirrors' files, the drop-in and the line that makes containerd read it, where its sandbox image is not ours (with
/// `pause`) or it looks for no mirrors. Before that, `due` is made: the note that containerd must be restarted. Whether anything
/// was written.
pub fn write_drop_in(
    ledger: &Ledger,
    pause: bool,
    mirrors: &RegistriesSection,
    due: Option<&Path>,
) -> Result<bool> {
    let effective = Effective::read()?;
    let mirrored = !mirrors.mirrors.is_empty();
    if mirrored {
        let folder = effective.registries().unwrap_or_else(|| registries::FOLDER.into());
        registries::write(ledger, &folder, mirrors)?;
    }
    let main = std::fs::read_to_string(MAIN).unwrap_or_default();
    let Some(text) = effective.drop_in(pause, mirrored, &main) else { return Ok(false) };
    sealed::check(Path::new(DROP_IN))?;
    if let Some(due) = due {
        keelson_pki::write_atomic(due, b"", 0o644)
            .with_context(|| format!("cannot write {}", due.display()))?;
    }
    let mut changed = ledger.write(Path::new(DROP_IN), text.as_bytes(), 0o644)?;
    let reads =
        main.lines().any(|line| line.starts_with("imports") && line.contains("/etc/containerd/conf.d/"));
    if !reads {
        if main.lines().any(|line| line.starts_with("imports")) {
            bail!(
                "{MAIN} imports other files already; add \"/etc/containerd/conf.d/*.toml\" to its `imports` and run this \
                 again"
            );
        }
        changed |= ledger.write(Path::new(MAIN), format!("{IMPORTS}{main}").as_bytes(), 0o644)?;
    }
    Ok(changed)
}

/// Restarts containerd where systemd runs it.
pub fn restart() -> Result<()> {
    run("systemctl", &["restart", "containerd.service"])
        .map(drop)
        .context("containerd cannot be restarted; restart it yourself and run this again")
}

/// An import that a power cut may fall into. containerd flushes nothing of what it unpacks: after a cut, layers may be there by
/// their names with files that are empty, and importing them again would find them done. So it is noted until all is flushed,
/// and what the note names is removed before it is imported anew.
pub struct Import {
    note: PathBuf,
}

impl Import {
    /// Notes the images that are about to be imported, by whom.
    pub fn begin(state: &Path, by: &str, images: &[String]) -> Result<Import> {
        let note = Import::note(state, by);
        keelson_pki::write_atomic(&note, &serde_json::to_vec(images)?, 0o644)?;
        Ok(Import { note })
    }

    /// Flushes what was unpacked and forgets the note. A runtime whose folder is not where containerd's own configuration has it
    /// (one started with another file) may have it anywhere: then every file system is flushed.
    pub fn end(self) -> Result<()> {
        let folder = Effective::read().and_then(|effective| Ok(std::fs::File::open(effective.root())?));
        match folder {
            Ok(folder) => {
                nix::unistd::syncfs(folder).context("what containerd unpacked cannot be flushed")?
            }
            Err(_) => nix::unistd::sync(),
        }
        std::fs::remove_file(&self.note).with_context(|| format!("cannot remove {}", self.note.display()))
    }

    /// The images whose import was not flushed.
    pub fn unfinished(state: &Path, by: &str) -> Vec<String> {
        let text = std::fs::read(Import::note(state, by)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn note(state: &Path, by: &str) -> PathBuf {
        state.join(format!("importing-{by}.json"))
    }
}

/// What `ctr images list` prints: a heading, then name, media type and digest on each line.
pub fn names(listed: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    listed.lines().skip(1).filter_map(line).collect()
}

/// All names of the images that have one of `some`: what has another name stays when one goes, and CRI gives each a second one.
pub fn same(names: &BTreeMap<String, String>, some: &[String]) -> Vec<String> {
    let digests: BTreeSet<&String> = some.iter().filter_map(|name| names.get(name)).collect();
    names.iter().filter(|(_, digest)| digests.contains(digest)).map(|(name, _)| name.clone()).collect()
}

/// Removes the images by all their names, and what containerd holds for imports that have ended with their machine. What was
/// unpacked of them is gone then.
pub fn forget(ctr: &impl Fn(&[&str]) -> Result<String>, names: &[String]) -> Result<()> {
    let leases = ctr(&["leases", "list", "--quiet"])?;
    let all = |words: &[&'static str], some: Vec<&str>| match some.is_empty() {
        true => Ok(()),
        false => ctr(&[words, &some].concat()).map(drop),
    };
    all(&["leases", "delete", "--sync"], leases.split_whitespace().collect())?;
    all(&["images", "remove", "--sync"], names.iter().map(String::as_str).collect())
}

fn import(ledger: &Ledger, state: &Path, socket: &Path, archive: &Path) -> Result<()> {
    let socket = socket.to_string_lossy();
    let ctr = |arguments: &[&str]| {
        let mut all = vec!["--address", &socket, "--namespace", "k8s.io"];
        all.extend(arguments);
        run("ctr", &all)
    };
    const BY: &str = "init";
    let names = names(&ctr(&["images", "list"])?);
    if !Import::unfinished(state, BY).is_empty() {
        forget(&ctr, &same(&names, &[PAUSE.to_owned()]))?;
    } else if names.contains_key(PAUSE) {
        return Ok(());
    }
    ledger.note(Entry::Image { name: PAUSE.to_owned() })?;
    let under_way = Import::begin(state, BY, &[PAUSE.to_owned()])?;
    ctr(&["images", "import", &archive.to_string_lossy()])?;
    // Never collected: there is no registry it could come back from.
    ctr(&["images", "label", PAUSE, "io.cri-containerd.pinned=pinned"])?;
    under_way.end()
}

/// Puts the CNI plugin, and ours by the name `loopback` where there is none, into the runtime's folder.
pub fn link_plugins(ledger: &Ledger, folder: &Path) -> Result<()> {
    const OURS: [&str; 2] = ["/usr/lib/keelson/keelson-cni", "/opt/cni/bin/keelson-cni"];
    let plugin = folder.join(keelson_base::consts::CNI_PLUGIN);
    let Some(ours) = OURS.iter().map(Path::new).find(|path| path.exists()) else {
        bail!("the CNI plugin is not at {}; install the package keelson", OURS[0]);
    };
    ledger.folder(folder)?;
    if ours != plugin {
        ledger.link(&plugin, ours)?;
    }
    ledger.link(&folder.join("loopback"), Path::new(keelson_base::consts::CNI_PLUGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_of_an_image_are_found() {
        let listed = "REF  TYPE  DIGEST  SIZE  PLATFORMS  LABELS \na.b/c:1 application/x sha256:00 1.1 MiB linux/amd64 x=y \n\
                      sha256:99 application/x sha256:00 1.1 MiB linux/amd64 x=y\nd:1 application/x sha256:11 1 MiB - -\n";
        let names = names(listed);
        assert_eq!(names.get("a.b/c:1").map(String::as_str), Some("sha256:00"));
        assert_eq!(same(&names, &["a.b/c:1".to_owned(), "none".to_owned()]), ["a.b/c:1", "sha256:99"]);
        assert_eq!(same(&names, &[]), [""; 0]);
    }

    /// As Debian 12's containerd 1.6 prints it, shortened.
    const DUMP: &str = r#"disabled_plugins = []
imports = ["/etc/containerd/config.toml"]
root = "/data/containerd"
version = 2

[plugins]

  [plugins."io.containerd.gc.v1.scheduler"]
    deletion_threshold = 0

  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.k8s.io/pause:3.6"
    restrict_oom_score_adj = true

    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"

    [plugins."io.containerd.grpc.v1.cri".containerd]

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false

    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = ""

  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"#;

    #[test]
    fn a_drop_in_keeps_everything_but_the_sandbox_image() {
        let effective = Effective { dump: DUMP.to_owned() };
        assert_eq!(effective.sandbox_image(), "registry.k8s.io/pause:3.6");
        assert_eq!(effective.cni(), (PathBuf::from("/usr/lib/cni"), PathBuf::from("/etc/cni/net.d")));
        assert!(!effective.systemd_cgroup() && !effective.cri_disabled());
        let text = effective.drop_in(true, false, "").unwrap();
        assert!(text.contains("sandbox_image = \"keelson.dev/pause:1\"\nrestrict_oom_score_adj = true"));
        assert!(text.contains("bin_dir = \"/usr/lib/cni\"") && text.contains("SystemdCgroup = false"));
        assert!(!text.contains("io.containerd.internal") && !text.contains("gc.v1"));
        let again = Effective { dump: DUMP.replace("registry.k8s.io/pause:3.6", PAUSE) };
        assert_eq!(effective.root(), PathBuf::from("/data/containerd"));
        assert_eq!(again.drop_in(true, false, ""), None);
        let text = again.drop_in(true, true, "").unwrap();
        assert!(text.contains("registry]\nconfig_path = \"/etc/containerd/certs.d\""), "{text}");
        let text = effective.drop_in(false, true, "").unwrap();
        assert!(text.contains("registry.k8s.io/pause:3.6") && text.contains("certs.d"));
        let has =
            Effective { dump: again.dump.replace("config_path = \"\"", "config_path = \"/etc/a:/etc/b\"") };
        assert_eq!((has.registries(), has.drop_in(true, true, "")), (Some("/etc/a".into()), None));
        let off = Effective { dump: "disabled_plugins = [\"cri\"]\n".into() };
        assert!(off.cri_disabled());
    }

    /// As containerd 2.1 prints it, shortened.
    const DUMP_3: &str = r#"version = 3
root = '/data/containerd'
disabled_plugins = []
imports = []

[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs'

    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = 'registry.k8s.io/pause:3.10'

    [plugins.'io.containerd.cri.v1.images'.registry]
      config_path = ''

  [plugins.'io.containerd.cri.v1.runtime']
    restrict_oom_score_adj = true

    [plugins.'io.containerd.cri.v1.runtime'.containerd]
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes]
        [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
          [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
            SystemdCgroup = true

    [plugins.'io.containerd.cri.v1.runtime'.cni]
      bin_dir = ''
      bin_dirs = ['/srv/cni/bin', '/opt/cni/bin']
      conf_dir = '/srv/cni/net.d'
"#;

    #[test]
    fn containerd_2_has_other_names_quotes_and_folders() {
        let effective = Effective { dump: DUMP_3.to_owned() };
        assert_eq!(effective.sandbox_image(), "registry.k8s.io/pause:3.10");
        assert_eq!(effective.cni(), ("/srv/cni/bin".into(), "/srv/cni/net.d".into()));
        assert_eq!(effective.root(), PathBuf::from("/data/containerd"));
        assert!(effective.systemd_cgroup() && !effective.cri_disabled());
        let text = effective.drop_in(true, true, "").unwrap();
        assert_eq!(
            text,
            "# Written by keelson; `keelson reset` removes it.\nversion = 3\n\
             [plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = \"keelson.dev/pause:1\"\n\n\
             [plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\n"
        );
        assert_eq!(effective.drop_in(true, true, "version = 3\n"), Some(text));
        // Beside a form 2, which this containerd would then read nothing of, all that it said.
        let text = effective.drop_in(true, true, "version = 2\n").unwrap();
        assert!(
            text.contains("sandbox = \"keelson.dev/pause:1\"")
                && text.contains("restrict_oom_score_adj = true")
        );
        assert!(
            text.contains("SystemdCgroup = true") && text.contains("bin_dirs = ['/srv/cni/bin'"),
            "{text}"
        );
        assert!(!text.contains("root = ") && !text.contains("disabled_plugins"));
        let one = Effective { dump: DUMP_3.replace("bin_dir = ''", "bin_dir = '/a'") };
        assert_eq!(one.cni().0, PathBuf::from("/a"));
        let none = Effective { dump: String::new() };
        assert_eq!(none.cni().0, PathBuf::from(keelson_base::consts::CNI_BIN_DIR));
        let off = DUMP_3.replace("disabled_plugins = []", "disabled_plugins = ['io.containerd.grpc.v1.cri']");
        assert!(Effective { dump: off }.cri_disabled());
    }
}
