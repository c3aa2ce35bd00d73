//! The sample of `make cluster`, used as a person would: through kubectl, curl and signals. The tests share one cluster and
//! run one after the other (`--test-threads=1`); each leaves the sample as it found it.
#![forbid(unsafe_code)]

mod images;
mod isolation;
mod recovery;
mod sample;
mod sockets;
mod streams;
mod volumes;
