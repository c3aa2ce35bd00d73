//! What the runtime's CNI library keeps of each sandbox's network, on the disk and without a sync. After a power cut such a
//! file may be empty or end in the middle; the sandbox can then neither be stopped nor removed, so its pod would never start
//! anew nor end. Without the file it can: plugins are then asked to take the network down without being told what it was.
use std::path::Path;

/// Where libcni keeps it.
pub const FOLDER: &str = "/var/lib/cni/results";

/// Removes a sandbox's files in `folder` that are not whole; how many there were.
pub fn forget_broken(folder: &Path, sandbox: &str) -> usize {
    // Names are network-sandbox-interface.
    let of_sandbox = format!("-{sandbox}-");
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let broken = |entry: &std::fs::DirEntry| {
        entry.file_name().to_string_lossy().contains(&of_sandbox)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && std::fs::read(entry.path())
                .is_ok_and(|text| serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err())
    };
    entries
        .flatten()
        .filter(broken)
        .filter(|entry| match std::fs::remove_file(entry.path()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), error = %error, "a broken note of a network was not removed");
                false
            }
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_whole_and_the_sandboxs_own_goes() {
        let place = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("net-aa-eth0", ""),
            ("cni-loopback-aa-lo", "{\"kind\":\"cniCacheV1\",\"conta"),
            ("net-aa-eth1", "{\"kind\":\"cniCacheV1\"}"),
            ("net-ab-eth0", ""),
            ("net-aab-eth0", ""),
        ] {
            std::fs::write(place.path().join(name), text).unwrap();
        }
        assert_eq!(forget_broken(place.path(), "aa"), 2);
        let mut left: Vec<_> =
            std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["net-aa-eth1", "net-aab-eth0", "net-ab-eth0"]);
        assert_eq!(forget_broken(place.path(), "aa"), 0);
        assert_eq!(forget_broken(&place.path().join("none"), "aa"), 0);
    }
}
