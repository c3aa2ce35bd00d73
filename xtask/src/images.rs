//! The images that a cluster and the sample need, built from our own sources and Debian packages; there is no registry.

use crate::oci::{ImageConfig, write_archive, write_layer};
use crate::run::{output, root, step, target};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pause image's name.
pub const PAUSE: &str = "keelson.dev/pause:1";

/// One image built from Debian packages. A change of its recipe builds it anew.
struct DebianImage {
    name: &'static str,
    file: &'static str,
    packages: &'static [&'static str],
    entrypoint: &'static [&'static str],
    ports: &'static [&'static str],
}

const DEBIAN_IMAGES: &[DebianImage] = &[
    DebianImage {
        name: "keelson.dev/sample-nginx:1",
        file: "sample-nginx-1",
        packages: &["nginx-light", "libnginx-mod-http-lua", "lua-nginx-redis"],
        entrypoint: &["/usr/sbin/nginx", "-g", "daemon off;"],
        ports: &["80/tcp"],
    },
    DebianImage {
        name: "keelson.dev/sample-redis:1",
        file: "sample-redis-1",
        packages: &["redis-server", "redis-tools"],
        entrypoint: &["/usr/bin/redis-server"],
        ports: &["6379/tcp"],
    },
];

/// An archive to import, and the image's name.
pub struct Archive {
    pub name: String,
    pub path: PathBuf,
}

/// Builds what is missing in target/images and returns all archives.
pub fn build_all() -> Result<Vec<Archive>> {
    build(|_| true)
}

/// The pause image, those of the sample whose names hold one of `words`, and those that lie there already.
pub fn build_some(words: &[String]) -> Result<Vec<Archive>> {
    build(|name| words.iter().any(|word| name.contains(word.as_str())))
}

fn build(wanted: impl Fn(&str) -> bool) -> Result<Vec<Archive>> {
    let folder = target().join("images");
    std::fs::create_dir_all(&folder)?;
    let mut archives = vec![pause(&folder, PAUSE)?];
    for image in DEBIAN_IMAGES {
        if wanted(image.name) || image.path(&folder).exists() {
            archives.push(debian(&folder, image)?);
        }
    }
    Ok(archives)
}

impl DebianImage {
    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.tar", self.file))
    }
}

/// The pause image under `name` (a runtime that is configured for another sandbox image gets ours by that name).
pub fn pause(folder: &Path, name: &str) -> Result<Archive> {
    let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(format!("{file}.tar"));
    if !path.exists() {
        std::fs::create_dir_all(folder)?;
        step("building the pause image", "See packaging/pause.", |_| {
            let binary = build_static("keelson-pause")?;
            let layer = folder.join("pause.layer");
            write_layer(&layer, &[("pause", &binary, 0o755)])?;
            let config = ImageConfig {
                entrypoint: vec!["/pause".into()],
                user: "65535:65535".into(),
                ..Default::default()
            };
            write_archive(&path, &[name], &layer, &config)?;
            std::fs::remove_file(layer).context("cannot remove the layer's file")
        })?;
    }
    Ok(Archive { name: name.to_owned(), path })
}

/// The names of the conformance tests' image: the same one under each name that the tests tell apart.
const TEST_AGENT: &[&str] = &[
    "keelson.dev/test-agent:2",
    "keelson.dev/test-agent:1",
    "keelson.dev/test-busybox:1",
    "keelson.dev/test-nginx:1",
    "keelson.dev/test-nautilus:1",
];

/// What runs in the pods of the conformance tests (tests/conformance/agent).
pub fn test_agent(folder: &Path) -> Result<Archive> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("test-agent-2.tar");
    if !path.exists() {
        step("building the conformance tests' image", "See tests/conformance/agent.", |_| {
            let binary = build_static("keelson-test-agent")?;
            let layer = folder.join("test-agent.layer");
            write_layer(&layer, &[("agent", &binary, 0o755)])?;
            let config = ImageConfig {
                entrypoint: vec!["/agent".into()],
                cmd: vec!["pause".into()],
                ..Default::default()
            };
            write_archive(&path, TEST_AGENT, &layer, &config)?;
            std::fs::remove_file(layer).context("cannot remove the layer's file")
        })?;
    }
    Ok(Archive { name: TEST_AGENT[0].to_owned(), path })
}

/// An image around the machine's static busybox with the applets that tests call, as `test.invalid/busybox:1`.
pub fn test_image(archive: &Path) -> Result<()> {
    let busybox = Path::new("/usr/bin/busybox");
    let layer = archive.with_extension("layer");
    let names = ["busybox", "sh", "nc", "nslookup", "grep", "cat", "sleep"].map(|name| format!("bin/{name}"));
    let files: Vec<(&str, &Path, u32)> = names.iter().map(|name| (name.as_str(), busybox, 0o755)).collect();
    write_layer(&layer, &files)?;
    let config = ImageConfig { cmd: vec!["/bin/sh".into()], ..Default::default() };
    write_archive(archive, &["test.invalid/busybox:1"], &layer, &config)?;
    std::fs::remove_file(layer).context("cannot remove the layer's file")
}

/// Builds a crate of this workspace as a static executable, in a target folder of its own (other flags, other cache).
fn build_static(package: &str) -> Result<PathBuf> {
    let folder = target().join("static");
    let triple = "x86_64-unknown-linux-gnu";
    output(
        Command::new("cargo")
            .args(["build", "--quiet", "--release", "--target", triple, "--package", package])
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C opt-level=s -C panic=abort")
            .env("CARGO_TARGET_DIR", &folder)
            .current_dir(root()),
    )?;
    Ok(folder.join(triple).join("release").join(package))
}

fn debian(folder: &Path, image: &DebianImage) -> Result<Archive> {
    let path = image.path(folder);
    if !path.exists() {
        let title = format!("building image {} from Debian's packages", image.name);
        step(&title, "Check that apt-get can reach its mirror.", |_| {
            let layer = folder.join(format!("{}.layer.tar", image.file));
            mmdebstrap(&layer, image.packages)?;
            let config = ImageConfig {
                entrypoint: image.entrypoint.iter().map(|&word| word.into()).collect(),
                exposed_ports: image.ports.iter().map(|&port| port.into()).collect(),
                ..Default::default()
            };
            write_archive(&path, &[image.name], &layer, &config)?;
            std::fs::remove_file(layer).context("cannot remove the layer's file")
        })?;
    }
    Ok(Archive { name: image.name.to_owned(), path })
}

/// A Debian tree with the packages, without what a container never reads, from the machine's own mirror.
fn mmdebstrap(tar: &Path, packages: &[&str]) -> Result<()> {
    let source = crate::packages::debian_source()?;
    let excluded = ["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=essential", "--quiet"]);
    for path in excluded {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    command.arg(format!("--include={}", packages.join(",")));
    command.arg("--customize-hook=rm -rf \"$1\"/var/cache/apt/* \"$1\"/var/lib/apt/lists/* \"$1\"/var/log/*");
    // nginx and redis write their logs there; they must find the folders.
    command.arg("--customize-hook=mkdir -p \"$1\"/var/log/nginx \"$1\"/var/log/redis");
    output(command.arg("bookworm").arg(tar).arg(&source.address))?;
    Ok(())
}
