//! Bootstrap tokens: the discovery document `kube-public/cluster-info` is signed with each of them ([`signer`]), and
//! expired ones are deleted ([`cleaner`]). Tokens live in Secrets `kube-system/bootstrap-token-<id>`.

mod cleaner;
mod signer;
mod token;

pub use cleaner::start as start_cleaner;
pub use signer::start as start_signer;
