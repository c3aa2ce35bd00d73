//! What is installed from Debian's packages: only what is missing, from the machine's own sources.

use crate::run::{self, output, step};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Program or file that shows that a package is there, and the package.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/sqlite3", "sqlite3"),
    // The tests' kill(1).
    ("/usr/bin/kill", "procps"),
    ("/usr/bin/gcc", "gcc"),
    ("/usr/share/doc/libc6-dev", "libc6-dev"),
    // etcd-client's build generates its messages with these.
    ("/usr/bin/protoc", "protobuf-compiler"),
    ("/usr/include/google/protobuf/struct.proto", "libprotobuf-dev"),
];

/// What building packages needs.
const PACKAGING: &[(&str, &str)] = &[
    ("/usr/bin/dpkg-deb", "dpkg"),
    ("/usr/bin/dpkg-shlibdeps", "dpkg-dev"),
    ("/usr/bin/apt-ftparchive", "apt-utils"),
    ("/usr/bin/gpg", "gpg"),
    ("/usr/bin/gpg-agent", "gpg-agent"),
    ("/usr/bin/rpmbuild", "rpm"),
    ("/usr/bin/rpmlint", "rpmlint"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/xz", "xz-utils"),
    ("/usr/bin/lintian", "lintian"),
];

/// What the tests on machines need beside both.
const MACHINES: &[(&str, &str)] =
    &[("/usr/bin/systemd-nspawn", "systemd-container"), ("/usr/bin/nsenter", "util-linux")];

/// What the tests with other languages' clients need beside [`NEEDED`].
const CLIENTS: &[(&str, &str)] = &[
    ("/usr/bin/python3", "python3"),
    // Its pip for virtual environments.
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("/usr/bin/openssl", "openssl"),
];

/// Installs what the tests with other languages' clients need.
pub fn install_client_tools() -> Result<()> {
    install(CLIENTS)
}

/// Installs what is missing.
pub fn install_all() -> Result<()> {
    install(NEEDED)
}

/// Installs what building packages needs.
pub fn install_packaging_tools() -> Result<()> {
    install(PACKAGING)
}

/// Installs what the tests on machines need.
pub fn install_machine_tools() -> Result<()> {
    install(NEEDED)?;
    install(PACKAGING)?;
    install(MACHINES)
}

fn install(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        needed.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        println!("✓ packages: nothing is missing");
        return Ok(());
    }
    let hint = "Run `apt-get update && apt-get install <package>` by hand to see why.";
    step(&format!("installing {}", missing.join(" ")), hint, |_| {
        if !nix::unistd::Uid::effective().is_root() {
            bail!("not root: run it as root, or install these packages first");
        }
        output(apt().arg("update"))?;
        output(apt().args(["install", "--yes", "--no-install-recommends"]).args(&missing))?;
        Ok(())
    })
}

/// Unpacks Debian's etcd for the tests into `folder`, where the test kit looks for it. Not installed: its service would
/// start.
pub fn etcd(folder: &Path) -> Result<()> {
    let unpacked = folder.join("etcd-server");
    if unpacked.join("usr/bin/etcd").exists() {
        return Ok(());
    }
    let hint = "An etcd of 3.4 or later on the PATH is used instead.";
    step("unpacking etcd from Debian's packages", hint, |_| {
        let download = folder.join("download-etcd");
        std::fs::create_dir_all(&download)?;
        let mut fetch = apt();
        fetch.args(["-o", "APT::Sandbox::User=root", "download", "etcd-server"]).current_dir(&download);
        output(&mut fetch)?;
        let deb = downloaded(&download, "etcd-server").context("apt-get download left no file")?;
        output(Command::new("dpkg").arg("-x").arg(&deb).arg(&unpacked)).map(drop)
    })
}

fn downloaded(folder: &Path, package: &str) -> Option<PathBuf> {
    let start = format!("{package}_");
    let mut files = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
    command
}

/// Where a new enough kubectl is: in `folder`, on the PATH, or fetched into `folder`.
pub fn kubectl(folder: &Path) -> Result<PathBuf> {
    let ours = folder.join("kubectl");
    for candidate in [ours.clone(), PathBuf::from("kubectl")] {
        if minor(&candidate).is_some_and(|minor| minor >= 32) {
            return Ok(candidate);
        }
    }
    let fetched = fetched_kubectl()?;
    std::fs::create_dir_all(folder)?;
    std::fs::copy(&fetched, &ours).with_context(|| format!("cannot copy {}", fetched.display()))?;
    Ok(ours)
}

/// Fetches kubectl where none is on the PATH, so that a cluster can be started where nothing can be fetched.
pub fn prepare_kubectl() -> Result<()> {
    match minor(Path::new("kubectl")) {
        Some(32..) => Ok(()),
        _ => fetched_kubectl().map(drop),
    }
}

/// A kubectl unpacked from Debian's next suites; one from before is used again.
fn fetched_kubectl() -> Result<PathBuf> {
    const SUITES: &[&str] = &["trixie", "sid"];
    let folder = run::target().join("packages");
    let unpacked = |suite: &&str| folder.join(format!("apt-{suite}")).join("kubectl/usr/bin/kubectl");
    if let Some(there) = SUITES.iter().map(unpacked).find(|path| minor(path).is_some_and(|minor| minor >= 32))
    {
        return Ok(there);
    }
    let hint = "A kubectl of 1.32 or later on the PATH is used instead.";
    step("fetching kubectl from Debian's packages", hint, |_| {
        let program = fetch_from_later_suite("kubectl", SUITES, &folder)?.join("usr/bin/kubectl");
        match minor(&program) {
            Some(minor) if minor >= 32 => Ok(program),
            other => bail!("the package's kubectl is of minor {other:?}, not 32 or later"),
        }
    })
}

/// The programs of a containerd 2, unpacked from Debian's next suites: a folder for the front of the PATH.
pub fn containerd2() -> Result<PathBuf> {
    let hint = "The machine's own apt source must carry the suite forky or sid.";
    step("fetching containerd 2 from Debian's packages", hint, |_| {
        let folder = run::target().join("packages");
        let programs = fetch_from_later_suite("containerd", &["forky", "sid"], &folder)?.join("usr/bin");
        let version = output(Command::new(programs.join("containerd")).arg("--version"))?;
        if !version.split_whitespace().any(|word| word.trim_start_matches('v').starts_with("2.")) {
            bail!("the package's containerd is not of version 2: {}", version.trim());
        }
        println!("{}", version.trim());
        Ok(programs)
    })
}

/// Its programs in `folder`, for the test's machines; those from before are used again.
pub fn containerd2_into(folder: &Path) -> Result<()> {
    const PROGRAMS: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
    if PROGRAMS.iter().all(|program| folder.join(program).exists()) {
        return Ok(());
    }
    let from = containerd2()?;
    std::fs::create_dir_all(folder)?;
    for program in PROGRAMS {
        std::fs::copy(from.join(program), folder.join(program))
            .with_context(|| format!("cannot copy {program}"))?;
    }
    Ok(())
}

/// Runs the kubelet's container tests on a containerd 2.
pub fn test_containerd2() -> Result<()> {
    let own = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{own}", containerd2()?.display());
    let mut tests = Command::new("cargo");
    tests.args(["test", "--package", "keelson-kubelet", "--tests", "--no-fail-fast"]).env("PATH", path);
    let status = tests.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the tests failed");
    }
    Ok(())
}

/// Debian's kubectl of the minor version that trixie carries, unpacked into target/packages.
pub fn kubectl_of_trixie() -> Result<PathBuf> {
    let folder = run::target().join("packages");
    let program = folder.join("apt-trixie/kubectl/usr/bin/kubectl");
    if !program.exists() {
        fetch_from_later_suite("kubectl", &["trixie"], &folder)?;
    }
    match minor(&program) {
        Some(32) => Ok(program),
        other => {
            bail!("trixie's kubectl is of minor {other:?}, not 32: the tables in tests/clients are for that")
        }
    }
}

/// A Go of 1.25 or later: the machine's own, or Debian's from its next suites, unpacked into target/packages.
pub fn go() -> Result<PathBuf> {
    const RELEASES: &[&str] = &["1.26"];
    let folder = run::target().join("packages");
    let suites = ["forky", "sid"];
    let unpacked = suites.iter().flat_map(|suite| {
        let root = folder.join(format!("apt-{suite}"));
        RELEASES
            .iter()
            .map(move |release| root.join(format!("golang-{release}-go/usr/lib/go-{release}/bin/go")))
    });
    let own = [PathBuf::from("go"), PathBuf::from("/usr/local/go/bin/go")];
    if let Some(there) =
        own.into_iter().chain(unpacked).find(|go| go_minor(go).is_some_and(|minor| minor >= 25))
    {
        return Ok(there);
    }
    let mut reasons = Vec::new();
    for release in RELEASES {
        let name = format!("golang-{release}-go");
        let both = fetch_from_later_suite(&name, &suites, &folder).and_then(|tools| {
            let source = fetch_from_later_suite(&format!("golang-{release}-src"), &suites, &folder)?;
            // The tools look for the library beside them; the package has it as a package of its own.
            output(Command::new("cp").args(["--archive", "--link"]).arg(source.join("usr")).arg(&tools))?;
            Ok(tools.join(format!("usr/lib/go-{release}/bin/go")))
        });
        match both {
            Ok(go) => return Ok(go),
            Err(error) => reasons.push(format!("{error:#}")),
        }
    }
    bail!("no Go of 1.25 or later: {}", reasons.join("; "))
}

fn go_minor(go: &Path) -> Option<u32> {
    let text = output(Command::new(go).arg("version")).ok()?;
    text.split_whitespace().nth(2)?.strip_prefix("go1.")?.split('.').next()?.parse().ok()
}

fn minor(kubectl: &Path) -> Option<u32> {
    let text = output(Command::new(kubectl).args(["version", "--client", "--output=json"])).ok()?;
    let version: serde_json::Value = serde_json::from_str(&text).ok()?;
    let minor = version["clientVersion"]["minor"].as_str()?;
    minor.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok()
}

/// Downloads a package of a later Debian suite and unpacks it (nothing is installed); the machine's own source gives the
/// address and the keyring.
fn fetch_from_later_suite(package: &str, suites: &[&str], folder: &Path) -> Result<PathBuf> {
    let source = debian_source()?;
    let mut reasons = Vec::new();
    for suite in suites {
        let apt_folder = folder.join(format!("apt-{suite}"));
        match download(package, suite, &source, &apt_folder) {
            Ok(deb) => {
                let unpacked = apt_folder.join(package);
                output(Command::new("dpkg").arg("-x").arg(&deb).arg(&unpacked))?;
                return Ok(unpacked);
            }
            Err(error) => reasons.push(format!("{suite}: {error:#}")),
        }
    }
    bail!("no suite gave {package}: {}", reasons.join("; "))
}

fn download(package: &str, suite: &str, source: &Source, folder: &Path) -> Result<PathBuf> {
    for sub in ["lists/partial", "cache/archives/partial", "download"] {
        std::fs::create_dir_all(folder.join(sub))?;
    }
    let list = format!("deb [signed-by={}] {} {suite} main\n", source.keyring.display(), source.address);
    run::write_file(&folder.join("sources.list"), list.as_bytes())?;
    let options = [
        format!("Dir::Etc::sourcelist={}", folder.join("sources.list").display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        format!("Dir::State::lists={}", folder.join("lists").display()),
        format!("Dir::Cache={}", folder.join("cache").display()),
        "APT::Sandbox::User=root".to_owned(),
        // A newer one that is installed from elsewhere would be the candidate, and is in no suite.
        "Dir::State::status=/dev/null".to_owned(),
    ];
    let with_options = |command: &mut Command| {
        options.iter().for_each(|option| {
            command.arg("-o").arg(option);
        });
    };
    let mut update = apt();
    with_options(&mut update);
    output(update.arg("update"))?;
    let mut fetch = apt();
    with_options(&mut fetch);
    output(fetch.arg("download").arg(package).current_dir(folder.join("download")))?;
    downloaded(&folder.join("download"), package).context("apt-get download left no file")
}

/// Where this machine gets Debian from.
pub struct Source {
    pub address: String,
    pub keyring: PathBuf,
}

/// Reads the machine's own apt sources.
pub fn debian_source() -> Result<Source> {
    let keyring = PathBuf::from("/usr/share/keyrings/debian-archive-keyring.gpg");
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    let address = files.iter().filter_map(|file| source_address(&std::fs::read_to_string(file).ok()?)).next();
    let address = address.context(
        "no Debian archive is named in /etc/apt/sources.list or /etc/apt/sources.list.d; add the line of your mirror",
    )?;
    Ok(Source { address, keyring })
}

/// The archive's address in a sources file of either format: the entry whose suite is a release's name and which holds
/// `main`, security archives aside.
fn source_address(text: &str) -> Option<String> {
    let usable = |address: &str, suites: &str| {
        let main_suite = suites.split_whitespace().any(|suite| !suite.contains(['-', '/']));
        (main_suite && !address.contains("security") && address.contains("debian"))
            .then(|| address.trim_end_matches('/').to_owned())
    };
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        if let (Some("deb"), Some(address), Some(suites)) = (field("Types"), field("URIs"), field("Suites"))
            && let Some(found) = usable(address.split_whitespace().next()?, suites)
        {
            return Some(found);
        }
    }
    text.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().filter(|word| !word.starts_with('[')).collect();
        match words.as_slice() {
            ["deb", address, suite, components @ ..] if components.contains(&"main") => {
                usable(address, suite)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_formats() {
        let deb822 = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                      Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n";
        assert_eq!(source_address(deb822).as_deref(), Some("http://mirror.example/debian"));
        let lines = "# x\ndeb http://mirror.example/debian-security bookworm-security main\n\
                     deb http://mirror.example/debian/ bookworm main contrib\n";
        assert_eq!(source_address(lines).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(source_address("deb http://mirror.example/other nodistro main\n"), None);
    }
}
