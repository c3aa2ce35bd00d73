//! What carries pods' packets, and what containerd must know for it.

use super::{Found, Subject, good, notice, wrong};
use crate::install::firewall::{self, Firewall, Needs};
use crate::install::{containerd, units};
use keelson_base::consts::{CNI_PLUGIN, nft};
use keelson_daemon::config;
use keelson_kubelet::cri::Cri;
use keelson_proxy::cniconf;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(2);

/// containerd makes pods with our sandbox image, where the package of images is installed.
pub fn sandbox_image(_: &Subject<'_>) -> Vec<Found> {
    if !containerd::has_images() {
        return vec![good("left to the administrator: the package keelson-images is not installed")];
    }
    vec![match containerd::Effective::read().map(|effective| effective.sandbox_image()) {
        Ok(image) if image == containerd::PAUSE => good(image),
        Ok(image) => wrong(
            format!("containerd makes pods with the image {image:?}, which nobody brings"),
            "`keelson runtime` tells it to use ours",
        ),
        Err(error) => wrong(format!("{error:#}"), "`containerd config dump` says more"),
    }]
}

/// The sandbox image is there.
pub async fn pause_image(subject: &Subject<'_>) -> Vec<Found> {
    let asked = async {
        let cri = Cri::new(&subject.config.kubelet.cri_socket)?;
        let image = cri.sandbox_image().await.unwrap_or_else(|| containerd::PAUSE.to_owned());
        Ok::<_, keelson_kubelet::cri::CriError>((cri.image_status(&image).await?, image))
    };
    match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok((Some(_), image))) => vec![good(image)],
        Ok(Ok((None, image))) => vec![wrong(
            format!("the image {image}, which every pod begins with, is not there"),
            "`keelson runtime` imports ours",
        )],
        // The check of the runtime tells of it.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The plugin lies where containerd looks for it, and can be run.
pub fn plugin(subject: &Subject<'_>) -> Vec<Found> {
    let path = subject.config.proxy.cni_bin_dir.join(CNI_PLUGIN);
    vec![match std::fs::metadata(&path) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {
            good(path.display().to_string())
        }
        _ => wrong(format!("{} is no program", path.display()), "`keelson runtime` puts it there"),
    }]
}

/// The proxy has written the network's configuration.
pub fn configuration(subject: &Subject<'_>) -> Vec<Found> {
    let path = subject.config.proxy.cni_conf_dir.join(cniconf::FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    vec![match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(list) if list["plugins"][0]["type"] == CNI_PLUGIN => good(path.display().to_string()),
        _ => wrong(
            format!("{} is missing or not ours: no pod gets a network", path.display()),
            format!("`systemctl restart {}` writes it", subject.unit_of(units::PROXY)),
        ),
    }]
}

/// containerd takes the first configuration by name.
pub fn others(subject: &Subject<'_>) -> Vec<Found> {
    let folder = &subject.config.proxy.cni_conf_dir;
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end)))
        .collect();
    names.sort();
    vec![match names.first() {
        Some(first) if first.as_str() < cniconf::FILE => {
            let path = folder.join(first);
            wrong(
                format!("{} comes before ours: pods get that network", path.display()),
                format!("`mv {} {}.disabled`", path.display(), path.display()),
            )
        }
        _ => good("none come before ours"),
    }]
}

/// The kernel passes packets on between pods and the network.
pub fn forwarding(subject: &Subject<'_>) -> Vec<Found> {
    let (name, shown) = match subject.config.network.pod_cidr.nth(0) {
        Some(IpAddr::V6(_)) => ("net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
        _ => ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
    };
    vec![match keelson_sys::sysctl::read(name).as_deref() {
        Ok("1") => good("on"),
        Ok(value) => wrong(
            format!("{shown} is {value}: pods reach nobody beyond this machine"),
            format!("`sysctl -w {shown}=1`; see what sets it at boot with `grep -r {shown} /etc/sysctl.d`"),
        ),
        Err(error) => wrong(error.to_string(), "Check that /proc/sys is mounted"),
    }]
}

/// A firewall of the machine's lets through what the cluster needs.
pub fn firewall(subject: &Subject<'_>) -> Vec<Found> {
    let active = firewall::active();
    if active.is_empty() {
        return vec![good("neither firewalld nor ufw is on")];
    }
    let needs = Needs::of(subject.config, subject.address, subject.control_plane());
    active.into_iter().map(|one| judged(subject, one, &needs)).collect()
}

fn judged(subject: &Subject<'_>, one: Firewall, needs: &Needs) -> Found {
    let name = one.name();
    if subject.config.node.firewall == config::Firewall::Leave {
        let left = format!("{name} is on and is left as it is (node.firewall)");
        return notice(left, format!("it must let through {}: `{}`", needs.text(), needs.commands(one)));
    }
    if !subject.installed() {
        return notice(
            format!("{name} is on"),
            format!(
                "it will be told to let through {}, until `keelson reset`; --leave-firewall leaves it as it is",
                needs.text()
            ),
        );
    }
    match firewall::lacks(one, needs) {
        Ok(lacks) if lacks.is_empty() => good(format!("{name} lets through what the cluster needs")),
        Ok(lacks) => wrong(
            format!("{name} does not let through what the cluster needs: {} is missing", lacks.join(", ")),
            "`keelson firewall` adds it",
        ),
        Err(error) => wrong(format!("{name} cannot be asked: {error:#}"), "`keelson firewall` says more"),
    }
}

/// The tables that carry Services are in force.
pub fn rules(subject: &Subject<'_>) -> Vec<Found> {
    let mut missing = Vec::new();
    for table in [nft::SERVICES_TABLE, nft::MASQUERADE_TABLE] {
        let read = keelson_sys::nft::batch::open()
            .and_then(|mut socket| keelson_sys::nft::dump::read_header(&mut socket, table));
        match read {
            Ok(Some(_)) => {}
            Ok(None) => missing.push(table),
            Err(error) => {
                return vec![wrong(
                    format!("nftables does not answer ({error})"),
                    "Run it as root: `sudo keelson doctor`",
                )];
            }
        }
    }
    vec![match missing.as_slice() {
        [] => good("in force"),
        some => wrong(
            format!("the nft table {} is gone: Services do not answer", some.join(" and ")),
            format!("`systemctl restart {}` makes it", subject.unit_of(units::PROXY)),
        ),
    }]
}

/// Cluster DNS knows the API server's Service.
pub async fn dns(subject: &Subject<'_>) -> Vec<Found> {
    let network = &subject.config.network;
    let name = format!("kubernetes.default.svc.{}", network.cluster_domain);
    let server = SocketAddr::new(network.dns_address, keelson_base::consts::DNS_PORT);
    let asked = tokio::time::timeout(ANSWER, ask(server, &name)).await;
    let what = match asked {
        Ok(Ok(true)) => return vec![good(format!("{name} is known"))],
        Ok(Ok(false)) => format!("{server} does not know {name}"),
        Ok(Err(error)) => format!("{server} cannot be asked: {error}"),
        Err(_) => format!("{server} does not answer"),
    };
    vec![wrong(what, format!("`systemctl restart {}`", subject.unit_of(units::PROXY)))]
}

/// Whether a server answers a question for a name's addresses with one (RFC 1035, section 4).
async fn ask(server: SocketAddr, name: &str) -> std::io::Result<bool> {
    const HEAD: [u8; 12] = [0x4b, 0x4c, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let mut question = HEAD.to_vec();
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap_or_default());
        question.extend_from_slice(label.as_bytes());
    }
    let kind = if server.is_ipv4() { 1 } else { 28 };
    question.extend_from_slice(&[0, 0, kind, 0, 1]);
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut answer = [0u8; 512];
    let length = socket.recv(&mut answer).await?;
    let (id, code, answers) = (&answer[..2], answer[3] & 0xf, u16::from_be_bytes([answer[6], answer[7]]));
    Ok(length >= 12 && id == &HEAD[..2] && code == 0 && answers > 0)
}
