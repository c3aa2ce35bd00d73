//! `keelson bundle`: all that a machine without a network needs, in one signed file.
//!
//! What has to be in it follows from the program (the image of every pod's first process), from the manifests (the images
//! that they name) and from the packages (what they depend on); a bundle that lacks any of it is not made. Installing puts
//! the packages in place and the rest into the watched folders, whose images are pinned ([`crate::watched`]).

mod contents;
mod file;

use crate::install::containerd::PAUSE;
use crate::install::progress::{Output, Progress};
use crate::install::run;
use crate::watched::{archive, manifests};
use anyhow::{Context as _, Result, bail};
use contents::Package;
use file::{Kind, List, Part, Source};
use keelson_daemon::config::{self, Config};
use keelson_pki::signing::SigningKey;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The public key that bundles are checked with, where none is named.
const PUBLIC_KEY: &str = "/etc/keelson/bundle.pub";
/// What the package of our own images holds.
const OWN_IMAGES: &str = "keelson-images";

/// What to do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Make a key that bundles are signed with: FILE, and its public half FILE.pub.
    Key { file: PathBuf },
    /// Make a bundle, and check that nothing is missing in it.
    Create {
        /// The bundle.
        file: PathBuf,
        /// Packages (.deb): keelson, keelson-images, containerd and what they need. Files, or folders of them.
        #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
        packages: Vec<PathBuf>,
        /// Archives of the images that the manifests name (.tar, .tar.gz). Files, or folders of them.
        #[arg(long, num_args = 1.., value_name = "PATH")]
        images: Vec<PathBuf>,
        /// Folder of manifests that the cluster begins with.
        #[arg(long, value_name = "DIR")]
        manifests: Option<PathBuf>,
        /// The private key (PEM, Ed25519).
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Read a bundle to its end and check it.
    Verify {
        file: PathBuf,
        /// The public key (PEM) of whoever made it.
        #[arg(long, value_name = "FILE", default_value = PUBLIC_KEY)]
        public_key: PathBuf,
    },
    /// Put onto this machine what a bundle holds (root). `keelson init` or `keelson join` come after it.
    Install {
        file: PathBuf,
        /// The public key (PEM) of whoever made it.
        #[arg(long, value_name = "FILE", default_value = PUBLIC_KEY)]
        public_key: PathBuf,
    },
}

/// Runs one of them.
pub fn work(command: Command, config_file: Option<&Path>, output: Output) -> Result<()> {
    let progress = Progress::new(output);
    match command {
        Command::Key { file } => key(&file),
        Command::Create { file, packages, images, manifests, key } => {
            let key = fs::read(&key).with_context(|| format!("cannot read {}", key.display()))?;
            let key = SigningKey::from_pem(&key).context("the key that bundles are signed with")?;
            let (list, sources) = progress
                .step("reading what is to be in it", || gather(&packages, &images, manifests.as_deref()))?;
            progress.step("writing the bundle", || file::write(&file, &list, &sources, &key))?;
            show(&list, &file, output)
        }
        Command::Verify { file, public_key } => {
            let list = progress.step("reading the bundle to its end", || read(&file, &public_key, None))?;
            show(&list, &file, output)
        }
        Command::Install { file, public_key } => {
            anyhow::ensure!(nix::unistd::Uid::effective().is_root(), "this needs root: run it with sudo");
            let config = config::load(config_file)?;
            let list = install(&config, &file, &public_key, progress)?;
            match output {
                Output::Json => println!("{}", serde_json::to_string_pretty(&list)?),
                Output::Text => println!(
                    "keelson {} is installed. `keelson init` makes a cluster; `keelson join` joins one",
                    list.version
                ),
            }
            Ok(())
        }
    }
}

fn key(file: &Path) -> Result<()> {
    if file.exists() {
        bail!("{} is there already; give another name", file.display());
    }
    let (key, private) = SigningKey::generate()?;
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    keelson_pki::write_atomic(file, private.as_bytes(), 0o600)?;
    keelson_pki::write_atomic(Path::new(&public), key.public_pem().as_bytes(), 0o644)?;
    println!(
        "{}: keep it where bundles are made. {}: as {PUBLIC_KEY} on machines that take them",
        file.display(),
        Path::new(&public).display()
    );
    Ok(())
}

fn read(file: &Path, public_key: &Path, into: Option<&Path>) -> Result<List> {
    let key = fs::read(public_key).with_context(|| {
        format!("the public key {} cannot be read; name it with --public-key", public_key.display())
    })?;
    file::read(file, &key, into)
}

fn show(list: &List, file: &Path, output: Output) -> Result<()> {
    if output == Output::Json {
        println!("{}", serde_json::to_string_pretty(list)?);
        return Ok(());
    }
    for part in &list.parts {
        println!("{:>9} KiB  {:<40} {}", part.bytes.div_ceil(1024), part.path(), part.holds.join(" "));
    }
    println!("{}: whole, with keelson {}", file.display(), list.version);
    Ok(())
}

/// Files of one ending, from files and folders, in order of their names.
fn expand(paths: &[PathBuf], ends: &[&str]) -> Result<Vec<PathBuf>> {
    let fits = |path: &Path| ends.iter().any(|end| path.to_string_lossy().ends_with(end));
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
            found.extend(entries.flatten().map(|entry| entry.path()).filter(|path| fits(path)));
        } else if fits(path) {
            found.push(path.clone());
        } else {
            bail!("{} does not end in {}", path.display(), ends.join(" or "));
        }
    }
    found.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let twice = found.windows(2).find(|two| two[0].file_name() == two[1].file_name());
    if let Some([one, other]) = twice {
        bail!("{} and {} have one name", one.display(), other.display());
    }
    Ok(found)
}

/// All that is to be in a bundle; an error names everything that is missing.
fn gather(packages: &[PathBuf], images: &[PathBuf], folder: Option<&Path>) -> Result<(List, Vec<Source>)> {
    let mut sources = Vec::new();
    let mut described = Vec::new();
    for path in expand(packages, &[".deb"])? {
        let package = describe(&path)?;
        sources.push(Source::read(
            Kind::Package,
            &path,
            vec![format!("{} {}", package.name, package.version)],
        )?);
        described.push(package);
    }
    let mut missing: Vec<String> = ["keelson", OWN_IMAGES]
        .iter()
        .filter(|name| !described.iter().any(|package| package.name == **name))
        .map(|name| format!("the package {name}"))
        .collect();
    let version = described.iter().find(|package| package.name == "keelson");
    let version = version.map(|package| package.version.clone()).unwrap_or_default();
    missing.extend(
        contents::unmet(&described, on_every_machine, holds)
            .into_iter()
            .map(|unmet| format!("a package: {unmet} (`apt-get download` brings it)")),
    );
    let mut wanted = BTreeSet::from([PAUSE.to_owned()]);
    let mut brought = BTreeSet::from([PAUSE.to_owned()]);
    if let Some(folder) = folder {
        for path in expand(&[folder.to_owned()], &manifests::ENDS)? {
            let objects = manifests::objects(&path).with_context(|| path.display().to_string())?;
            objects.iter().for_each(|object| contents::images(object, &mut wanted));
            sources.push(Source::read(Kind::Manifest, &path, Vec::new())?);
        }
    }
    for path in expand(images, &[".tar", ".tar.gz", ".tgz"])? {
        let names = archive::names(&path)?;
        brought.extend(names.iter().cloned());
        sources.push(Source::read(Kind::Image, &path, names)?);
    }
    missing.extend(
        wanted.difference(&brought).map(|image| format!("the image {image}, which a manifest names")),
    );
    if !missing.is_empty() {
        bail!("the bundle would not be complete. It lacks:\n  {}", missing.join("\n  "));
    }
    let parts: Vec<Part> = sources.iter().map(|source| source.part.clone()).collect();
    let list = List { keelson_bundle: file::FORMAT, version, images: wanted.into_iter().collect(), parts };
    Ok((list, sources))
}

fn describe(path: &Path) -> Result<Package> {
    let shown = run("dpkg-deb", &["--field", &path.to_string_lossy()])?;
    let field = |name: &str| {
        let mut lines = shown.lines().skip_while(|line| !line.starts_with(&format!("{name}: ")));
        let first = lines.next().map(|line| line[name.len() + 2..].to_owned())?;
        Some(lines.take_while(|line| line.starts_with(' ')).fold(first, |text, line| text + line))
    };
    let both = [field("Pre-Depends"), field("Depends")].into_iter().flatten().collect::<Vec<_>>().join(", ");
    Ok(Package {
        name: field("Package").with_context(|| format!("{} is no package", path.display()))?,
        version: field("Version").unwrap_or_default(),
        depends: both,
        provides: field("Provides").unwrap_or_default(),
    })
}

/// What Debian's installer puts onto every machine: packages of priority required or important, as the machine on which
/// bundles are made knows them, and the libraries that those need.
fn on_every_machine(name: &str) -> bool {
    const LIBRARIES: [&str; 6] = ["libc6", "libgcc-s1", "libseccomp2", "libsystemd0", "libssl3", "zlib1g"];
    let installed = || run("dpkg-query", &["--show", "--showformat", "Priority: ${Priority}\n", name]).ok();
    let known = || run("apt-cache", &["show", "--no-all-versions", name]).ok();
    let base = |text: &str| {
        let priority = text.lines().find_map(|line| line.strip_prefix("Priority: "));
        matches!(priority, Some("required" | "important"))
    };
    LIBRARIES.contains(&name) || installed().or_else(known).is_some_and(|text| base(&text))
}

fn holds(has: &str, how: &str, wanted: &str) -> bool {
    let how = match how {
        ">=" => "ge",
        "<=" => "le",
        ">>" => "gt",
        "<<" => "lt",
        _ => "eq",
    };
    run("dpkg", &["--compare-versions", has, how, wanted]).is_ok()
}

/// Checks all of a bundle, then puts its files in place. What is installed in as new a version stays.
fn install(config: &Config, file: &Path, public_key: &Path, progress: Progress) -> Result<List> {
    let unpacked = config.paths.state.join("bundle");
    keelson_pki::ensure_dir(&config.paths.state, 0o755)?;
    remove(&unpacked)?;
    room(&config.paths.state, file)?;
    let list = progress.step("reading the bundle to its end", || read(file, public_key, Some(&unpacked)))?;
    let placed = (|| {
        let packages: Vec<&Part> = list.parts.iter().filter(|part| part.kind == Kind::Package).collect();
        progress.step("installing the packages", || install_packages(&unpacked, &packages))?;
        progress.step("putting images and manifests into their folders", || {
            place(&unpacked, &list, Kind::Image, &config.kubelet.image_archives)?;
            place(&unpacked, &list, Kind::Manifest, &config.api_server.manifests)
        })
    })();
    remove(&unpacked)?;
    placed.map(|()| list)
}

/// A bundle is taken out beside what is there already.
fn room(state: &Path, file: &Path) -> Result<()> {
    let needed = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    match crate::install::machine::free_space(state) {
        Some(free) if free < needed => bail!(
            "nothing was changed: {} has {} MiB free, the bundle needs {}. `du -xh / | sort -h | tail` shows the largest folders",
            state.display(),
            free >> 20,
            needed.div_ceil(1 << 20)
        ),
        _ => Ok(()),
    }
}

fn install_packages(unpacked: &Path, packages: &[&Part]) -> Result<()> {
    let needed: Vec<String> = packages
        .iter()
        .filter(|part| {
            let (name, version) =
                part.holds.first().and_then(|holds| holds.split_once(' ')).unwrap_or_default();
            let shown =
                run("dpkg-query", &["--show", "--showformat", "${db:Status-Status} ${Version}", name]);
            let has = shown.ok().and_then(|text| text.strip_prefix("installed ").map(str::to_owned));
            has.is_none_or(|has| !holds(&has, ">=", version))
        })
        .map(|part| unpacked.join(part.path()).to_string_lossy().into_owned())
        .collect();
    if needed.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["--force-confold", "--install"];
    arguments.extend(needed.iter().map(String::as_str));
    run("dpkg", &arguments).map(drop).context(
        "the packages cannot be installed; `dpkg --configure -a` and the same command again go on from here",
    )
}

/// Moves files of one kind into their folder, one by one and whole; the ledger knows the folder.
fn place(unpacked: &Path, list: &List, kind: Kind, folder: &Path) -> Result<()> {
    keelson_pki::ensure_dir(folder, 0o755)?;
    for part in list.parts.iter().filter(|part| part.kind == kind) {
        let (from, to) = (unpacked.join(part.path()), folder.join(&part.name));
        // Whole on the disk before it has its name: the power may go at any time.
        let sync = |path: &Path| fs::File::open(path)?.sync_all();
        let moved = sync(&from).and_then(|()| fs::rename(&from, &to)).or_else(|_| {
            let hidden = folder.join(format!(".{}", part.name));
            fs::copy(&from, &hidden)?;
            sync(&hidden)?;
            fs::rename(&hidden, &to)
        });
        moved.with_context(|| format!("cannot put {} in place", to.display()))?;
    }
    fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
