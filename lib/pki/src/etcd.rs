//! The certificates of an etcd member that runs beside a control plane: an authority of etcd's own, the member's
//! certificates towards clients and peers, and the control plane's towards etcd. In the PKI folder, beside the others.

use crate::authority::{Profile, Usage};
use crate::cluster::{EnsureError, Leaf, Made, authority, ensure_leaf};
use crate::files::{DirLock, ensure_dir, sync_dir};
use jiff::Timestamp;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A member's certificates, and its control plane's.
const LEAVES: [&str; 3] = ["etcd-server", "etcd-peer", "etcd-client"];

/// The files of the certificates that are signed by the authority.
pub fn etcd_certificate_files(dir: &Path) -> Vec<PathBuf> {
    LEAVES.iter().map(|name| dir.join(format!("{name}.crt"))).filter(|path| path.exists()).collect()
}

/// Makes what is missing and renews what must be renewed; a member reads its files anew for each connection. Where the
/// authority came from another control plane, it is used. Whether anything was written.
pub fn ensure_etcd(
    dir: &Path,
    node: &str,
    address: IpAddr,
    now: Timestamp,
    life: Duration,
) -> Result<bool, EnsureError> {
    ensure_dir(dir, 0o700)?;
    let _lock = DirLock::take(dir)?;
    let ca = authority(dir, "etcd-ca", "etcd-ca", now)?;
    let mut written = false;
    let member = |name| {
        let names = vec![node.to_owned(), "localhost".to_owned()];
        let mut profile = Profile::server(node, names, vec![address, Ipv4Addr::LOCALHOST.into()]);
        // A member is its peers' client, and its own gateway's.
        profile.usages.push(Usage::ClientAuth);
        Leaf { name, profile }
    };
    let [server, peer, client] = LEAVES;
    let client = Leaf { name: client, profile: Profile::client("keelson-control-plane", &[]) };
    for leaf in [member(server), member(peer), client] {
        ensure_leaf(dir, &ca, leaf, Made { now, life }, &mut written)?;
    }
    if written {
        sync_dir(dir)?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public_key_hash;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;

    fn ensure(dir: &tempfile::TempDir, node: &str, last: u8, now: Timestamp) -> bool {
        ensure_etcd(dir.path(), node, [192, 0, 2, last].into(), now, crate::LEAF_LIFE).unwrap()
    }

    #[test]
    fn a_second_machine_makes_its_own_from_the_same_authority() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(ensure(&first, "a", 1, now));
        assert!(!ensure(&first, "a", 1, now));
        for name in ["etcd-ca.crt", "etcd-ca.key"] {
            std::fs::copy(first.path().join(name), second.path().join(name)).unwrap();
        }
        assert!(ensure(&second, "b", 2, now));
        let read = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let ca = CertificateDer::from_pem_slice(read(first.path(), "etcd-ca.crt").as_bytes()).unwrap();
        public_key_hash(&ca).unwrap();
        for dir in [first.path(), second.path()] {
            for name in ["etcd-server", "etcd-peer", "etcd-client"] {
                let (cert, key) = (read(dir, &format!("{name}.crt")), read(dir, &format!("{name}.key")));
                assert!(crate::issued_by(&cert, &key, &ca), "{name}");
            }
        }
        assert_ne!(read(first.path(), "etcd-server.key"), read(second.path(), "etcd-server.key"));
        // Two thirds of a life later it is renewed.
        let later = now + jiff::SignedDuration::from_hours(24 * 300);
        assert!(ensure(&first, "a", 1, later));
    }
}
