//! The cluster's keys and certificates: making them, keeping them, and using them in TLS.
//!
//! What always holds here:
//! - a private key is written with mode 0600, by temporary file, fsync, rename and fsync of the folder;
//! - [`ClusterPki::ensure`] may be interrupted at any point and run again: it completes what is missing, renews
//!   what is old or no longer fits, and never replaces an authority's key;
//! - an authority whose certificate is there but whose key is not is an error, never a reason to make a new one;
//! - time is an argument, so that tests and machines without a clock behave the same.
//!
//! The crate knows nothing of the API server, of configuration files or of who connects where.
#![forbid(unsafe_code)]

mod authority;
mod cluster;
mod etcd;
mod files;
mod handover;
mod jws;
mod keys;
mod kubeconfig;
mod secret_token;
pub mod signing;
mod tls;
mod token;

pub use authority::{
    Authority, CertError, CsrInfo, LEAF_LIFE, Profile, Usage, issued_by, make_request, parse_csr,
    public_key_hash, self_signed, validity,
};
pub use cluster::{ClusterPki, EnsureError, Identity, PkiParams, look_every};
pub use etcd::{ensure_etcd, etcd_certificate_files};
pub use files::{FileError, ensure_dir, write_atomic};
pub use handover::{CertificateKey, SealError};
pub use jws::detached_signature;
pub use keys::{KeyError, ServiceAccountKeys, VerificationKey};
pub use kubeconfig::{Kubeconfig, KubeconfigAuth};
pub use secret_token::{SECRET_TOKEN_ISSUER, SecretTokenClaims};
pub use tls::{ClientVerifier, TlsError, client_config, server_config};
pub use token::{BootstrapToken, TokenError};
