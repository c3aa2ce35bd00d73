//! An etcd cluster of the test's own: members with mutual TLS on loopback below one temporary folder, ended by their
//! process ids on drop.
use anyhow::{Context as _, bail};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a member logs when it answers clients.
const SERVES: &str = "serving client traffic securely";
const PATIENCE: Duration = Duration::from_secs(30);

struct Member {
    name: String,
    client: u16,
    peer: u16,
    child: Option<Child>,
    /// How often it has logged [`SERVES`] before its last start.
    served: usize,
}

/// A running cluster.
pub struct Etcd {
    folder: tempfile::TempDir,
    program: PathBuf,
    members: Vec<Member>,
    extra: Vec<String>,
    /// PEM of the authority, and of a client's certificate and key.
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

/// Why there is no etcd to test with, for a `SKIPPED` line.
pub fn missing() -> Option<String> {
    program().is_none().then(|| "etcd is not there: run `cargo xtask packages`".to_owned())
}

/// `KEELSON_ETCD`, or what `cargo xtask packages` has unpacked, or what is on the PATH.
fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("KEELSON_ETCD") {
        return Some(named.into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let unpacked = target.join("packages/etcd-server/usr/bin/etcd");
    let path = std::env::var("PATH").unwrap_or_default();
    let on_path = path.split(':').map(|folder| Path::new(folder).join("etcd"));
    std::iter::once(unpacked).chain(on_path).find(|path| path.is_file())
}

impl Etcd {
    /// Starts so many members and waits until they serve.
    pub fn start(members: usize) -> anyhow::Result<Etcd> {
        Etcd::start_with(members, &[])
    }

    /// As [`Etcd::start`] with more flags for every member.
    pub fn start_with(members: usize, extra: &[&str]) -> anyhow::Result<Etcd> {
        let program = program().context("etcd is not there: run `cargo xtask packages`")?;
        let folder = tempfile::Builder::new().prefix("keelson-etcd-").tempdir()?;
        // All ports are held until all are known, so that none is given twice.
        let held = (0..2 * members)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<Vec<_>, _>>()?;
        let ports =
            held.iter().map(|one| Ok(one.local_addr()?.port())).collect::<anyhow::Result<Vec<_>>>()?;
        drop(held);
        let members = ports
            .chunks(2)
            .enumerate()
            .map(|(index, pair)| Member {
                name: format!("m{index}"),
                client: pair[0],
                peer: pair[1],
                child: None,
                served: 0,
            })
            .collect();
        let (ca, certificate, key) = certificates()?;
        let mut this = Etcd {
            program,
            members,
            extra: extra.iter().map(|&flag| flag.to_owned()).collect(),
            ca,
            certificate,
            key,
            folder,
        };
        for (name, content) in
            [("ca.crt", &this.ca), ("member.crt", &this.certificate), ("member.key", &this.key)]
        {
            std::fs::write(this.folder.path().join(name), content)?;
        }
        (0..this.members.len()).try_for_each(|index| this.launch(index))?;
        (0..this.members.len()).try_for_each(|index| this.wait(index))?;
        Ok(this)
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The members' addresses for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("https://127.0.0.1:{}", member.client)).collect()
    }

    /// One member's port for clients.
    pub fn port(&self, index: usize) -> u16 {
        self.members[index].client
    }

    /// The folder with `ca.crt`, `member.crt` and `member.key`, which serve a client too.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends a member at once, as a crash does.
    pub fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.members[index].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts a member that was ended; [`Etcd::wait`] says when it serves.
    pub fn launch(&mut self, index: usize) -> anyhow::Result<()> {
        let served = self.served(index);
        let cluster: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=https://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let folder = self.folder.path();
        let member = &self.members[index];
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log(index))?;
        let file = |name: &str| folder.join(name).display().to_string();
        let child = Command::new(&self.program)
            .args(["--logger=zap", "--log-level=info", "--initial-cluster-state=new"])
            .args(["--client-cert-auth", "--peer-client-cert-auth", "--initial-cluster-token=keelson-test"])
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", folder.join(&member.name).display()))
            .arg(format!("--listen-client-urls=https://127.0.0.1:{}", member.client))
            .arg(format!("--advertise-client-urls=https://127.0.0.1:{}", member.client))
            .arg(format!("--listen-peer-urls=https://127.0.0.1:{}", member.peer))
            .arg(format!("--initial-advertise-peer-urls=https://127.0.0.1:{}", member.peer))
            .arg(format!("--initial-cluster={}", cluster.join(",")))
            .args(["--cert-file", "--peer-cert-file"].map(|flag| format!("{flag}={}", file("member.crt"))))
            .args(["--key-file", "--peer-key-file"].map(|flag| format!("{flag}={}", file("member.key"))))
            .args(
                ["--trusted-ca-file", "--peer-trusted-ca-file"]
                    .map(|flag| format!("{flag}={}", file("ca.crt"))),
            )
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let member = &mut self.members[index];
        member.child = Some(child);
        member.served = served;
        Ok(())
    }

    /// Waits until a member serves.
    pub fn wait(&mut self, index: usize) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            if self.served(index) > self.members[index].served {
                return Ok(());
            }
            let ended = match &mut self.members[index].child {
                Some(child) => child.try_wait()?,
                None => bail!("member {index} is not running"),
            };
            if ended.is_some() || Instant::now() >= until {
                let log = std::fs::read_to_string(self.log(index)).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(15).collect();
                bail!("etcd member {index} does not serve ({ended:?}):\n{}", tail.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("{}.log", self.members[index].name))
    }

    fn served(&self, index: usize) -> usize {
        std::fs::read_to_string(self.log(index)).map_or(0, |log| log.matches(SERVES).count())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for index in 0..self.members.len() {
            // What does not end now has ended before.
            let _ = self.kill(index);
        }
    }
}

/// An authority, and one certificate that serves and asks on loopback.
fn certificates() -> anyhow::Result<(String, String, String)> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "etcd-ca");
    let authority_key = rcgen::KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let mut member = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    member.distinguished_name.push(rcgen::DnType::CommonName, "keelson");
    member.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let key = rcgen::KeyPair::generate()?;
    let certificate = member.signed_by(&key, &issuer)?;
    Ok((authority_certificate.pem(), certificate.pem(), key.serialize_pem()))
}
