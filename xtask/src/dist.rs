//! `make packages`: .deb and .rpm packages of one staged tree each, and a signed apt repository with the former.
//!
//! Times are those of the commit (`SOURCE_DATE_EPOCH`), files come in order and owned by root: the same binaries give the
//! same packages, byte for byte.

use crate::run::{output, root, step, target, write_file};
use crate::{images, packages};
use anyhow::{Context, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAINTAINER: &str = "Keelson <keelson@keelson.dev>";
const UNITS: &[&str] = &[
    "keelson.service",
    "keelson-control-plane.service",
    "keelson-kubelet.service",
    "keelson-proxy.service",
    "keelson-etcd.service",
    "keelson-shutdown.service",
    "keelson-first-boot.service",
    "keelson-first-boot.target",
    "keelson-machine-id.service",
    "keelson.slice",
];

/// A package: what it is called, needs and says.
struct Package {
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    /// Debian's names; `${shlibs}` is replaced by the libraries the binaries need.
    depends: &'static str,
    recommends: &'static str,
    rpm_requires: &'static [&'static str],
    scripts: &'static [&'static str],
}

const KEELSON: Package = Package {
    name: "keelson",
    summary: "Kubernetes for your own machines",
    description: "One program that runs every part of a Kubernetes cluster: API server,\n scheduler, controllers, kubelet, \
                  service proxy, cluster DNS and pod network.\n Nothing starts before `keelson init` or `keelson join`.",
    depends: "${shlibs}, containerd (>= 1.6) | containerd.io (>= 1.6), systemd, kmod",
    recommends: "keelson-images",
    rpm_requires: &["(containerd >= 1.6 or containerd.io >= 1.6)", "systemd", "kmod"],
    scripts: &["postinst", "prerm", "postrm"],
};

const IMAGES: Package = Package {
    name: "keelson-images",
    summary: "Container images that a Keelson cluster itself needs",
    description: "The image of every pod's first process, as an OCI archive built from\n Keelson's own sources. `keelson \
                  init` and `keelson join` import it, so that no\n registry has to be reached.",
    depends: "",
    recommends: "",
    rpm_requires: &[],
    scripts: &[],
};

/// What the program says of itself.
struct Release {
    version: String,
    /// What the package provides, so that `keelson upgrade` knows it before it is installed.
    provides: String,
}

impl Release {
    /// From the file that `keelson docs` writes: a name and a value on each line.
    fn read(file: &Path) -> Result<Release> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let value = |name: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            found.map(str::to_owned).with_context(|| format!("{} has no {name}", file.display()))
        };
        let (format, kubernetes) = (value("database-format")?, value("kubernetes")?);
        let provides = format!("keelson-database-format (= {format}), keelson-kubernetes (= {kubernetes})");
        Ok(Release { version: value("version")?, provides })
    }
}

/// Builds everything into target/dist; the build that tries an upgrade (`next`) into target/dist-next.
/// `anywhere`: the same bytes whatever the folders of the checkout and of cargo are called; the compiler's flags differ, so
/// everything is built for it.
pub fn build(debug: bool, next: bool, anywhere: bool) -> Result<()> {
    let dist = target().join(if next { "dist-next" } else { "dist" });
    let epoch = output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()))?;
    let epoch = epoch.trim();
    let profile = if debug { "debug" } else { "release" };
    packages::install_packaging_tools()?;
    step(&format!("building the {profile} binaries"), "Run cargo build to see all of it.", |_| {
        let mut command = Command::new("cargo");
        command.args(["build", "--quiet", "--package", "keelson", "--package", "keelson-cni"]);
        if !debug {
            command.arg("--release");
        }
        if next {
            command.args(["--features", "keelson/next-format"]);
        }
        if anywhere {
            command.env("RUSTFLAGS", remapped("--remap-path-prefix")?);
            // For what is written in C, which names its files in its assertions.
            command.env("CFLAGS", remapped("-ffile-prefix-map")?);
        }
        output(command.current_dir(root())).map(drop)
    })?;
    let pause = images::pause(&target().join("images"), images::PAUSE)?;
    let built = target().join(profile);
    let (main, image_tree) = (dist.join("keelson"), dist.join("keelson-images"));
    let release = step("laying out the files", "", |_| {
        let release = stage(&built, &main, epoch)?;
        fresh(&image_tree)?;
        put(&image_tree.join("usr/share/keelson/images/pause.tar"), &std::fs::read(&pause.path)?, 0o644)?;
        documents(&image_tree, &IMAGES, &release, epoch)?;
        Ok(release)
    })?;
    // An older version's packages do not stay beside.
    for entry in std::fs::read_dir(&dist)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb" || extension == "rpm") {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    let debs = step("building the .deb packages", "", |_| {
        [(&KEELSON, &main), (&IMAGES, &image_tree)]
            .into_iter()
            .map(|(package, tree)| deb(package, tree, &release, &dist, epoch, debug))
            .collect::<Result<Vec<_>>>()
    })?;
    step("building the .rpm packages", "Needs Debian's package rpm.", |_| {
        rpm(&KEELSON, &main, &release, &dist, epoch, debug)?;
        rpm(&IMAGES, &image_tree, &release, &dist, epoch, debug)
    })?;
    let signer = Signer::find(&dist)?;
    step("signing the .rpm packages", "Needs Debian's packages rpm and gpg.", |_| {
        signer.sign_rpms(&dist, &release)
    })?;
    step("making the apt repository", "Needs Debian's packages apt-utils and gpg.", |_| {
        repository(&debs, &dist, &signer)
    })?;
    for deb in &debs {
        println!("  {} ({:.1} MiB)", deb.display(), std::fs::metadata(deb)?.len() as f64 / 1_048_576.0);
    }
    println!(
        "  {}: add it with\n    deb [signed-by={}] file:{} stable main",
        dist.join("apt").display(),
        dist.join("apt/keelson.gpg").display(),
        dist.join("apt").display()
    );
    Ok(())
}

/// Compiler flags that give the folders that get into a program (where code stands that may panic) names of their own.
fn remapped(flag: &str) -> Result<String> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let cargo = cargo.or_else(home).context("neither CARGO_HOME nor HOME is set")?;
    // Of several that fit, the last one counts.
    let places = [(cargo, "/cargo"), (root(), "/keelson"), (target(), "/keelson/target")];
    let flags = places.map(|(from, to)| format!("{flag}={}={to}", from.display()));
    Ok(flags.join(" "))
}

fn fresh(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    write_file(path, content)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// The tree of package `keelson`, as it lies on a machine.
fn stage(built: &Path, tree: &Path, epoch: &str) -> Result<Release> {
    fresh(tree)?;
    for (name, place) in [("keelson", "usr/bin/keelson"), ("keelson-cni", "usr/lib/keelson/keelson-cni")] {
        let from = built.join(name);
        put(&tree.join(place), &std::fs::read(&from).with_context(|| from.display().to_string())?, 0o755)?;
        output(
            Command::new("strip")
                .args(["--strip-unneeded", "--remove-section=.comment"])
                .arg(tree.join(place)),
        )?;
    }
    let systemd =
        |name: &str| std::fs::read(root().join("systemd").join(name)).with_context(|| name.to_owned());
    for unit in UNITS {
        put(&tree.join("lib/systemd/system").join(unit), &systemd(unit)?, 0o644)?;
    }
    put(&tree.join("usr/lib/sysusers.d/keelson.conf"), &systemd("keelson.sysusers")?, 0o644)?;
    put(&tree.join("usr/lib/tmpfiles.d/keelson.conf"), &systemd("keelson.tmpfiles")?, 0o644)?;
    put(&tree.join("lib/systemd/system-preset/80-keelson.preset"), &systemd("80-keelson.preset")?, 0o644)?;
    let config = output(Command::new(built.join("keelson")).arg("config"))?;
    put(&tree.join("etc/keelson/config.yaml"), config.as_bytes(), 0o644)?;
    let docs = tree.with_file_name("docs");
    fresh(&docs)?;
    output(Command::new(built.join("keelson")).arg("docs").arg(&docs))?;
    for entry in std::fs::read_dir(docs.join("man"))? {
        let path = entry?.path();
        let name = path.file_name().context("a manual page without a name")?.to_string_lossy().into_owned();
        let place = tree.join("usr/share/man/man8").join(format!("{name}.gz"));
        put(&place, &gzip(&std::fs::read(&path)?)?, 0o644)?;
    }
    for (shell, place) in [
        ("bash", "usr/share/bash-completion/completions/keelson"),
        ("zsh", "usr/share/zsh/vendor-completions/_keelson"),
        ("fish", "usr/share/fish/vendor_completions.d/keelson.fish"),
    ] {
        put(&tree.join(place), &std::fs::read(docs.join("completion").join(shell))?, 0o644)?;
    }
    let release = Release::read(&docs.join("release"))?;
    documents(tree, &KEELSON, &release, epoch)?;
    Ok(release)
}

/// Copyright and changelog.
fn documents(tree: &Path, package: &Package, release: &Release, epoch: &str) -> Result<()> {
    let folder = tree.join("usr/share/doc").join(package.name);
    let copyright = std::fs::read(root().join("packaging/debian/copyright"))?;
    put(&folder.join("copyright"), &copyright, 0o644)?;
    let date =
        output(Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{epoch}")))?;
    let entry = format!(
        "keelson ({}) unstable; urgency=medium\n\n  * See the commits of this version.\n\n -- {MAINTAINER}  {}\n",
        release.version,
        date.trim()
    );
    put(&folder.join("changelog.gz"), &gzip(entry.as_bytes())?, 0o644)
}

/// As `gzip -9n`: without name and time.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

fn deb(
    package: &Package,
    tree: &Path,
    release: &Release,
    dist: &Path,
    epoch: &str,
    debug: bool,
) -> Result<PathBuf> {
    let version = &release.version;
    let control = tree.join("DEBIAN");
    fresh(&control)?;
    let installed = output(Command::new("du").args(["-sk", "--apparent-size"]).arg(tree))?;
    let kilobytes = installed.split_whitespace().next().unwrap_or("0").to_owned();
    let depends = package.depends.replace("${shlibs}", &libraries(package, tree, dist)?);
    let mut text = format!(
        "Package: {}\nVersion: {version}\nArchitecture: amd64\nMaintainer: {MAINTAINER}\nInstalled-Size: {kilobytes}\n",
        package.name
    );
    let provides = if package.name == KEELSON.name { release.provides.as_str() } else { "" };
    for (field, value) in
        [("Depends", depends.as_str()), ("Recommends", package.recommends), ("Provides", provides)]
    {
        if !value.is_empty() {
            text.push_str(&format!("{field}: {value}\n"));
        }
    }
    text.push_str(&format!(
        "Section: admin\nPriority: optional\nHomepage: https://keelson.dev\nDescription: {}\n {}\n",
        package.summary, package.description
    ));
    put(&control.join("control"), text.as_bytes(), 0o644)?;
    if tree.join("etc").exists() {
        put(&control.join("conffiles"), b"/etc/keelson/config.yaml\n", 0o644)?;
    }
    for script in package.scripts {
        let from = root().join("packaging/debian").join(format!("{}.{script}", package.name));
        put(&control.join(script), &std::fs::read(&from)?, 0o755)?;
    }
    let sums = "find . -type f -not -path './DEBIAN/*' -not -path './etc/*' -printf '%P\\n' | LC_ALL=C sort | xargs md5sum";
    let sums = output(Command::new("sh").args(["-c", sums]).current_dir(tree))?;
    put(&control.join("md5sums"), sums.as_bytes(), 0o644)?;
    output(Command::new("chmod").args(["-R", "go-w,u+rwX,go+rX"]).arg(tree))?;
    let file = dist.join(format!("{}_{version}_amd64.deb", package.name));
    output(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--threads-max=1", "--build"])
            .args(if debug { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z9"] })
            .arg(tree)
            .arg(&file)
            .env("SOURCE_DATE_EPOCH", epoch),
    )?;
    fresh(&control)?;
    Ok(file)
}

/// The packages of the libraries that the binaries load, as dpkg knows them.
fn libraries(package: &Package, tree: &Path, dist: &Path) -> Result<String> {
    if package.depends.is_empty() {
        return Ok(String::new());
    }
    let work = dist.join("shlibs");
    write_file(&work.join("debian/control"), b"Source: keelson\n\nPackage: keelson\nArchitecture: any\n")?;
    let found = output(
        Command::new("dpkg-shlibdeps")
            .arg("-O")
            .arg("-e")
            .arg(tree.join("usr/bin/keelson"))
            .arg("-e")
            .arg(tree.join("usr/lib/keelson/keelson-cni"))
            .current_dir(&work),
    )?;
    let found = found.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    found.map(str::to_owned).context("dpkg-shlibdeps named no libraries")
}

fn rpm(
    package: &Package,
    tree: &Path,
    release: &Release,
    dist: &Path,
    epoch: &str,
    debug: bool,
) -> Result<()> {
    let version = &release.version;
    let top = dist.join("rpm");
    let files = output(
        Command::new("sh").args(["-c", "find . -type f -printf '/%P\\n' | LC_ALL=C sort"]).current_dir(tree),
    )?;
    // Where systemd looks on these systems.
    let place = |path: &str| {
        path.replacen("/lib/systemd/", "/usr/lib/systemd/", usize::from(path.starts_with("/lib/")))
    };
    let listed: Vec<String> = files
        .lines()
        .map(|path| match path.starts_with("/etc/") {
            true => format!("%config(noreplace) {path}"),
            false => place(path),
        })
        .collect();
    let requires: String =
        package.rpm_requires.iter().map(|requirement| format!("Requires: {requirement}\n")).collect();
    let scripts =
        if package.name == KEELSON.name { include_str!("../../packaging/rpm/scripts.spec") } else { "" };
    let mut date = Command::new("date");
    date.args(["--utc", "+%a %b %d %Y", "--date"]).arg(format!("@{epoch}")).env("LC_ALL", "C");
    let date = output(&mut date)?;
    let spec = format!(
        "Name: {}\nVersion: {version}\nRelease: 1\nSummary: {}\nLicense: Apache-2.0\nURL: https://keelson.dev\n\
         Group: System/Base\nPackager: {MAINTAINER}\nBuildArch: x86_64\nAutoReqProv: no\n{requires}%description\n{}\n%install\ncp -a {tree}/. %{{buildroot}}/\n\
         if [ -d %{{buildroot}}/lib ]; then mkdir -p %{{buildroot}}/usr/lib; cp -a %{{buildroot}}/lib/. %{{buildroot}}/usr/lib/; \
         rm -rf %{{buildroot}}/lib; fi\n{scripts}%files\n{}\n%changelog\n* {date} {MAINTAINER} - {version}-1\n- See the commits of this version.\n",
        package.name,
        package.summary,
        package.description.replace("\n ", "\n"),
        listed.join("\n"),
        date = date.trim(),
        tree = tree.display(),
    );
    let file = top.join(format!("{}.spec", package.name));
    write_file(&file, spec.as_bytes())?;
    let define = |name: &str, value: &str| format!("{name} {value}");
    let defines = [
        define("_topdir", &top.to_string_lossy()),
        define("_rpmdir", &dist.to_string_lossy()),
        define("_rpmfilename", "%{NAME}-%{VERSION}-%{RELEASE}.x86_64.rpm"),
        define("_build_id_links", "none"),
        define("__os_install_post", "%{nil}"),
        define("use_source_date_epoch_as_buildtime", "1"),
        define("clamp_mtime_to_source_date_epoch", "1"),
        define("_buildhost", "keelson"),
        define("_binary_payload", if debug { "w1.gzdio" } else { "w9.xzdio" }),
    ];
    let mut command = Command::new("rpmbuild");
    command.arg("-bb").arg("--quiet");
    for definition in &defines {
        command.arg("--define").arg(definition);
    }
    output(command.arg(&file).env("SOURCE_DATE_EPOCH", epoch)).map(drop)
}

/// A repository folder that apt takes.
fn repository(debs: &[PathBuf], dist: &Path, signer: &Signer) -> Result<()> {
    let apt = dist.join("apt");
    fresh(&apt)?;
    let pool = apt.join("pool/main");
    std::fs::create_dir_all(&pool)?;
    for deb in debs {
        let name = deb.file_name().context("a package without a name")?;
        std::fs::copy(deb, pool.join(name)).with_context(|| format!("cannot copy {}", deb.display()))?;
    }
    let index = output(Command::new("apt-ftparchive").args(["packages", "pool"]).current_dir(&apt))?;
    let folder = apt.join("dists/stable/main/binary-amd64");
    put(&folder.join("Packages"), index.as_bytes(), 0o644)?;
    put(&folder.join("Packages.gz"), &gzip(index.as_bytes())?, 0o644)?;
    let mut release = Command::new("apt-ftparchive");
    for (field, value) in [
        ("Origin", "Keelson"),
        ("Label", "Keelson"),
        ("Suite", "stable"),
        ("Codename", "stable"),
        ("Architectures", "amd64"),
        ("Components", "main"),
    ] {
        release.arg("-o").arg(format!("APT::FTPArchive::Release::{field}={value}"));
    }
    let release = output(release.args(["release", "dists/stable"]).current_dir(&apt))?;
    put(&apt.join("dists/stable/Release"), release.as_bytes(), 0o644)?;
    signer.sign_repository(&apt)
}

/// Who signs: the key named by KEELSON_SIGNING_KEY, or one of this build folder.
struct Signer {
    key: String,
    /// gpg's folder; its usual one where the key was named.
    home: Option<PathBuf>,
}

/// gpg starts an agent for its folder, which would stay.
impl Drop for Signer {
    fn drop(&mut self) {
        if self.home.is_some() {
            let mut command = self.at_home(Command::new("gpgconf"));
            let _ = output(command.args(["--kill", "gpg-agent"]));
        }
    }
}

impl Signer {
    fn find(dist: &Path) -> Result<Signer> {
        if let Ok(key) = std::env::var("KEELSON_SIGNING_KEY") {
            return Ok(Signer { key, home: None });
        }
        let home = dist.join("gnupg");
        std::fs::create_dir_all(&home)?;
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700))?;
        let made = home.join("made");
        let signer = Signer { key: MAINTAINER.to_owned(), home: Some(home) };
        if !made.exists() {
            let new = ["--passphrase", "", "--quick-generate-key", MAINTAINER, "ed25519", "sign", "never"];
            output(signer.gpg().args(new))?;
            write_file(&made, b"")?;
        }
        Ok(signer)
    }

    fn at_home(&self, mut command: Command) -> Command {
        if let Some(home) = &self.home {
            command.env("GNUPGHOME", home);
        }
        command
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.args(["--batch", "--yes", "--quiet"]);
        self.at_home(command)
    }

    fn sign_repository(&self, apt: &Path) -> Result<()> {
        let release = apt.join("dists/stable/Release");
        for (how, file) in [("--clearsign", "InRelease"), ("--detach-sign", "Release.gpg")] {
            let mut command = self.gpg();
            command.args(["--local-user", &self.key, "--armor", how, "--output"]);
            output(command.arg(release.with_file_name(file)).arg(&release))?;
        }
        output(self.gpg().args(["--export", "--output"]).arg(apt.join("keelson.gpg")).arg(&self.key))
            .map(drop)
    }

    /// Signs the .rpm packages, and puts the key beside them in the form that `rpm --import` takes.
    fn sign_rpms(&self, dist: &Path, release: &Release) -> Result<()> {
        for package in [&KEELSON, &IMAGES] {
            let mut command = self.at_home(Command::new("rpmsign"));
            command.arg("--define").arg(format!("_gpg_name {}", self.key));
            command.args(["--define", "__gpg /usr/bin/gpg", "--addsign"]);
            output(command.arg(dist.join(format!("{}-{}-1.x86_64.rpm", package.name, release.version))))?;
        }
        let key = dist.join("RPM-GPG-KEY-keelson");
        output(self.gpg().args(["--armor", "--export", "--output"]).arg(key).arg(&self.key)).map(drop)
    }
}
