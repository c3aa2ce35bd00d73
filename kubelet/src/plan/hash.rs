//! The hash that tells whether a running container still is what the pod asks for.
use k8s_openapi::api::core::v1::Container;
use sha2::{Digest, Sha256};

/// Hash over what may not change under a running container: its name and its image (as upstream since 1.30; other
/// fields are immutable in the API, and hashing them would restart everything when a new minor adds one).
pub fn container_hash(container: &Container) -> String {
    let mut hasher = Sha256::new();
    for part in [container.name.as_str(), container.image.as_deref().unwrap_or("")] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize()[..8])
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_and_image_count() {
        let container = |name: &str, image: &str| Container {
            name: name.into(),
            image: Some(image.into()),
            ..Default::default()
        };
        let base = container("a", "x:1");
        assert_ne!(container_hash(&base), container_hash(&container("a", "x:2")));
        assert_ne!(container_hash(&container("ab", "c")), container_hash(&container("a", "bc")));
        let changed = Container { args: Some(vec!["-v".into()]), ..base.clone() };
        assert_eq!(container_hash(&base), container_hash(&changed));
    }
}
