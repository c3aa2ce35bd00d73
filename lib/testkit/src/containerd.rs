//! A containerd of the test's own: everything below one temporary folder, own socket, own CNI plugin, ended and
//! cleaned up on drop. Images are OCI archives written here around busybox; no registry is needed.
use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Reference of the test image: busybox with its applets.
pub const BUSYBOX: &str = "test.invalid/busybox:1";
/// Reference of the same image whose user is 1234.
pub const BUSYBOX_USER: &str = "test.invalid/busybox-user:1";
/// The image of every pod's first process.
pub const PAUSE: &str = "test.invalid/pause:1";

/// A running containerd.
pub struct Containerd {
    folder: tempfile::TempDir,
    child: Option<Child>,
    /// The cgroup root pods are put below; removed with the rest.
    pub cgroup_root: String,
    /// Third octet of pod addresses (10.213.x.y), so that two fixtures do not meet.
    net: u8,
}

/// Why there is no containerd to test with, for a `SKIPPED` line.
pub fn missing() -> Option<String> {
    for program in ["containerd", "runc", "ctr", "ip", "nsenter"] {
        if which(program).is_none() {
            return Some(format!("{program} is not installed"));
        }
    }
    if busybox().is_none() {
        return Some("no static busybox (package busybox-static) is installed".into());
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"));
    (!root).then(|| "not root".into())
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin:/usr/bin:/bin";
    path.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

/// Whether the tests are to put pods into slices of systemd (`KEELSON_TEST_CGROUP_DRIVER=systemd`).
pub fn systemd_driver() -> bool {
    std::env::var("KEELSON_TEST_CGROUP_DRIVER").is_ok_and(|driver| driver == "systemd")
}

/// The static busybox of this machine.
pub fn busybox() -> Option<PathBuf> {
    let path = which("busybox")?;
    // A dynamic one has an interpreter and cannot run alone in an image.
    (!has_interpreter(&std::fs::read(&path).ok()?)?).then_some(path)
}

/// Whether a 64-bit little-endian ELF file asks for a dynamic loader (a PT_INTERP header); `None`: it is no such file.
fn has_interpreter(elf: &[u8]) -> Option<bool> {
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?) as usize);
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let table = usize::try_from(u64::from_le_bytes(elf.get(0x20..0x28)?.try_into().ok()?)).ok()?;
    let (size, count) = (half(0x36)?, half(0x38)?);
    (elf.get(..5)? == b"\x7fELF\x02").then_some(())?;
    (0..count).map(|i| word(table + i * size)).try_fold(false, |found, kind| Some(found || kind? == 3))
}

impl Containerd {
    /// Starts containerd and imports the images.
    pub fn start() -> anyhow::Result<Containerd> {
        let folder = tempfile::Builder::new().prefix("keelson-cri-").tempdir()?;
        let id = std::process::id();
        let salt =
            folder.path().as_os_str().as_encoded_bytes().iter().fold(0u8, |a, b| a.wrapping_mul(31) ^ b);
        let mut this =
            Containerd { folder, child: None, cgroup_root: format!("keelson-test-{id}-{salt}"), net: salt };
        this.write_config()?;
        this.write_cni()?;
        this.launch()?;
        let busybox = std::fs::read(busybox().context("no static busybox")?)?;
        this.import(&Image::busybox(PAUSE, &busybox).entrypoint(&["/bin/busybox", "sleep", "2000000000"]))?;
        this.import(&Image::busybox(BUSYBOX, &busybox))?;
        this.import(&Image::busybox(BUSYBOX_USER, &busybox).user("1234"))?;
        Ok(this)
    }

    /// The temporary folder; a test may put what belongs to it below.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder().join("containerd.sock")
    }

    fn write_config(&self) -> anyhow::Result<()> {
        let dir = self.folder().display();
        let systemd = systemd_driver();
        let config = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
[grpc]
  address = "{dir}/containerd.sock"
[debug]
  level = "warn"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = {systemd}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni/bin"
    conf_dir = "{dir}/cni/conf"
# Later versions listen at a path that all of them on a machine share.
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#
        );
        std::fs::write(self.folder().join("config.toml"), config)?;
        Ok(())
    }

    /// Two CNI plugins in shell: enough network for a pod that the host can reach.
    fn write_cni(&self) -> anyhow::Result<()> {
        let bin = self.folder().join("cni/bin");
        let conf = self.folder().join("cni/conf");
        std::fs::create_dir_all(&bin)?;
        std::fs::create_dir_all(&conf)?;
        std::fs::write(
            conf.join("10-test.conflist"),
            r#"{"cniVersion":"0.4.0","name":"test","plugins":[{"type":"testnet"}]}"#,
        )?;
        let loopback = "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] && nsenter --net=$CNI_NETNS ip link set lo up\n\
                        echo '{\"cniVersion\":\"0.3.1\"}'\n";
        let counter = self.folder().join("cni/counter").display().to_string();
        let net = self.net;
        let testnet = format!(
            r#"#!/bin/sh
export PATH=$PATH:/usr/sbin:/sbin
host=kt$(printf %s "$CNI_CONTAINERID" | cut -c1-11)
case "$CNI_COMMAND" in
VERSION) echo '{{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}}';;
ADD)
  exec 9>>"{counter}.lock"; flock 9
  n=$(cat "{counter}" 2>/dev/null || echo 1); n=$((n+1)); [ $n -gt 250 ] && n=2; echo $n > "{counter}"
  ip=10.213.{net}.$n
  exec 3>&1 1>&2
  ip link add "$host" type veth peer name "p$host" || exit 1
  ip link set "p$host" netns "$CNI_NETNS" 2>/dev/null || {{
    mkdir -p /run/netns; name=$(basename "$CNI_NETNS"); ip link set "p$host" netns "$name"; }} || exit 1
  nsenter --net="$CNI_NETNS" sh -c "ip link set p$host name eth0 && ip addr add $ip/32 dev eth0 && ip link set eth0 up && ip route add 169.254.213.1 dev eth0 && ip route add default via 169.254.213.1 dev eth0"
  ip addr add 169.254.213.1/32 dev "$host"; ip link set "$host" up; ip route add $ip/32 dev "$host"
  exec 1>&3
  echo "{{\"cniVersion\":\"0.4.0\",\"interfaces\":[{{\"name\":\"eth0\",\"sandbox\":\"$CNI_NETNS\"}}],\"ips\":[{{\"version\":\"4\",\"address\":\"$ip/32\",\"interface\":0}}]}}";;
DEL) ip link del "$host" >/dev/null 2>&1 || true;;
CHECK) ;;
esac
"#
        );
        for (name, text) in [("loopback", loopback.to_owned()), ("testnet", testnet)] {
            let path = bin.join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder().join("containerd.log"))?;
        let child = Command::new(which("containerd").context("no containerd")?)
            .arg("--config")
            .arg(self.folder().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let limit = Instant::now() + Duration::from_secs(30);
        while !self.ctr(&["version"]).is_ok_and(|output| output.status.success()) {
            if Instant::now() > limit {
                bail!("containerd does not answer:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What containerd said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("containerd.log")).unwrap_or_default()
    }

    fn ctr(&self, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["-n", "k8s.io"])
            .args(arguments)
            .output()
    }

    fn import(&self, image: &Image) -> anyhow::Result<()> {
        let path = self.folder().join("image.tar");
        image.write(&path)?;
        let output = self.ctr(&["images", "import", &path.display().to_string()])?;
        if !output.status.success() {
            bail!("import of {}: {}", image.name, String::from_utf8_lossy(&output.stderr));
        }
        std::fs::remove_file(path)?;
        Ok(())
    }

    /// Ends containerd the hard way and starts it again; containers go on running.
    pub fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.launch()
    }

    /// Ends containerd without notice; shims and containers stay.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.launch()
    }

    /// Processes whose command line names this fixture's folder: the shims we caused.
    fn own_processes(&self) -> Vec<u32> {
        let needle = self.folder().as_os_str().as_encoded_bytes().to_vec();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let shim = command.windows(15).any(|w| w == b"containerd-shim");
            if shim && command.windows(needle.len()).any(|w| w == needle) {
                found.push(pid);
            }
        }
        found
    }

    fn cleanup(&mut self) {
        let list = self.ctr(&["tasks", "ls", "-q"]).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for task in list.unwrap_or_default().split_whitespace() {
            let _ = self.ctr(&["tasks", "kill", "-a", "-s", "9", task]);
        }
        self.end_cgroup_processes();
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let limit = Instant::now() + Duration::from_secs(5);
            while child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.own_processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        self.unmount();
        self.remove_links();
        self.remove_cgroups();
    }

    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let below = mounts.map(|entry| entry.path().join(&self.cgroup_root));
        below
            .chain([Path::new("/sys/fs/cgroup").join(&self.cgroup_root)])
            .filter(|path| path.is_dir())
            .collect()
    }

    fn end_cgroup_processes(&self) {
        for folder in self.cgroup_folders() {
            for pid in processes_below(&folder) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
    }

    fn remove_cgroups(&self) {
        for folder in self.cgroup_folders() {
            let limit = Instant::now() + Duration::from_secs(2);
            while folder.exists() && Instant::now() < limit {
                remove_below(&folder);
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn unmount(&self) {
        let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let folder = self.folder().display().to_string();
        let mut points: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|p| p.starts_with(&folder))
            .collect();
        points.sort_by_key(|point| std::cmp::Reverse(point.len()));
        for point in points {
            let _ = Command::new("umount").args(["-l", point]).stderr(Stdio::null()).status();
        }
    }

    /// Host ends of pod links: the routes to our own addresses name them.
    fn remove_links(&self) {
        let output = Command::new("ip").args(["-o", "route", "show"]).output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let prefix = format!("10.213.{}.", self.net);
        for line in text.lines().filter(|line| line.starts_with(&prefix)) {
            if let Some(link) = line.split("dev ").nth(1).and_then(|rest| rest.split_whitespace().next()) {
                let _ = Command::new("ip").args(["link", "del", link]).stderr(Stdio::null()).status();
            }
        }
    }
}

fn processes_below(folder: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_to_string(folder.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            found.extend(processes_below(&entry.path()));
        }
    }
    found
}

fn remove_below(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_below(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder);
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.cleanup();
    }
}

/// An image to be: one layer, one configuration.
pub struct Image {
    name: String,
    files: Vec<(String, Vec<u8>, u32)>,
    links: Vec<(String, String)>,
    entrypoint: Vec<String>,
    user: String,
}

impl Image {
    /// busybox and links for the applets that tests use.
    pub fn busybox(name: &str, busybox: &[u8]) -> Image {
        let applets = [
            "sh", "cat", "echo", "sleep", "ls", "id", "env", "stat", "touch", "mkdir", "nc", "httpd", "grep",
            "sed", "head", "tail", "wc", "dd", "true", "false", "kill", "ps", "mount", "hostname",
            "readlink", "printf", "test", "trap", "date", "rm", "cp", "mv", "ln", "chmod", "chown", "seq",
            "yes", "tee", "ip", "md5sum", "awk", "cut", "tr", "sort", "uname", "sysctl", "dmesg", "ping",
            "nslookup",
        ];
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1234:1234::/:/bin/sh\n";
        Image {
            name: name.to_owned(),
            files: vec![
                ("bin/busybox".into(), busybox.to_vec(), 0o755),
                ("etc/passwd".into(), passwd.into(), 0o644),
                ("etc/group".into(), b"root:x:0:\nuser:x:1234:\nmore:x:5000:user\n".to_vec(), 0o644),
            ],
            links: applets.iter().map(|a| (format!("bin/{a}"), "busybox".to_owned())).collect(),
            entrypoint: vec![],
            user: String::new(),
        }
    }

    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Image {
        self.entrypoint = words.iter().map(|w| (*w).to_owned()).collect();
        self
    }

    #[must_use]
    pub fn user(mut self, user: &str) -> Image {
        user.clone_into(&mut self.user);
        self
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "var", "run"] {
            let mode = if folder == "tmp" { 0o1777 } else { 0o755 };
            let mut header = header(0, mode, tar::EntryType::Directory);
            tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
        }
        for (path, data, mode) in &self.files {
            let mut header = header(data.len() as u64, *mode, tar::EntryType::Regular);
            tar.append_data(&mut header, path, data.as_slice())?;
        }
        for (path, target) in &self.links {
            let mut header = header(0, 0o777, tar::EntryType::Symlink);
            tar.append_link(&mut header, path, target)?;
        }
        Ok(tar.into_inner()?)
    }

    /// Layer, configuration and manifest, as a registry serves them.
    pub fn blobs(&self) -> anyhow::Result<[Vec<u8>; 3]> {
        let layer = self.layer()?;
        let config = serde_json::json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "config": {
                "Env": ["PATH=/bin"],
                "Entrypoint": self.entrypoint,
                "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        })
        .to_string()
        .into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": describe("application/vnd.oci.image.config.v1+json", &config),
            "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        Ok([layer, config, manifest])
    }

    /// Writes the image as an OCI archive.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let blobs = self.blobs()?;
        let mut entry = describe(MANIFEST, &blobs[2]);
        entry["annotations"] = serde_json::json!({"io.containerd.image.name": self.name});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes();
        let mut out = tar::Builder::new(std::io::BufWriter::new(std::fs::File::create(path)?));
        let mut add = |name: String, data: &[u8]| -> anyhow::Result<()> {
            let mut header = header(data.len() as u64, 0o644, tar::EntryType::Regular);
            out.append_data(&mut header, name, data)?;
            Ok(())
        };
        add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add("index.json".into(), &index)?;
        for data in &blobs {
            add(format!("blobs/sha256/{}", &digest(data)["sha256:".len()..]), data)?;
        }
        out.into_inner()?.flush()?;
        Ok(())
    }
}

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn describe(media: &str, data: &[u8]) -> serde_json::Value {
    serde_json::json!({"mediaType": media, "digest": digest(data), "size": data.len()})
}

fn header(size: u64, mode: u32, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(kind);
    header
}

/// `sha256:` and the hash, as registries name content.
pub fn digest(data: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(data).iter().fold(String::from("sha256:"), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
