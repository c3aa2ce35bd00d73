//! nftables over netlink: a model of tables ([`model`]), rules and their expressions ([`expr`], [`rule`]), atomic
//! batches ([`batch`]) and reading back what is programmed ([`dump`]).
//!
//! Only family `inet` is spoken: one table serves IPv4 and IPv6. Every rule carries a hash of its content in its user
//! data, so that a restarted process recognises what it wrote.
pub mod batch;
pub mod dump;
pub mod expr;
pub mod model;
pub mod rule;

pub use batch::{Batch, NftError, generation};
pub use dump::{ChainState, SetState, TableState, read_elements, read_table};
pub use expr::Expr;
pub use model::{Base, Chain, ChainKind, Data, Element, Field, Hook, Key, SetData, SetSpec, Verdict};
pub use rule::{Ip, Rule};

#[cfg(test)]
mod kernel_tests;

/// Numbers of `linux/netfilter/nf_tables.h` that several modules use.
pub(crate) mod abi {
    pub const SUBSYS: u16 = 10 << 8;
    pub const NFPROTO_INET: u8 = 1;
    pub const NEWTABLE: u16 = 0;
    pub const GETTABLE: u16 = 1;
    pub const DELTABLE: u16 = 2;
    pub const NEWCHAIN: u16 = 3;
    pub const GETCHAIN: u16 = 4;
    pub const DELCHAIN: u16 = 5;
    pub const NEWRULE: u16 = 6;
    pub const GETRULE: u16 = 7;
    pub const DELRULE: u16 = 8;
    pub const NEWSET: u16 = 9;
    pub const GETSET: u16 = 10;
    pub const DELSET: u16 = 11;
    pub const NEWSETELEM: u16 = 12;
    pub const GETSETELEM: u16 = 13;
    pub const DELSETELEM: u16 = 14;
    pub const GETGEN: u16 = 16;
    /// User data of a rule: our content hash. nft(8) skips types that it does not know.
    pub const UDATA_HASH: u8 = 64;
    /// User data of a set: byte order of key and data, so that nft(8) prints them rightly.
    pub const UDATA_KEYBYTEORDER: u8 = 0;
    pub const UDATA_DATABYTEORDER: u8 = 1;
    pub const SET_ANONYMOUS: u32 = 1;
    pub const SET_CONSTANT: u32 = 2;
    pub const SET_INTERVAL: u32 = 4;
    pub const SET_MAP: u32 = 8;
    pub const SET_TIMEOUT: u32 = 0x10;
    pub const SET_EVAL: u32 = 0x20;
    pub const SET_CONCAT: u32 = 0x80;
    pub const ELEM_INTERVAL_END: u32 = 1;
    pub const DATA_VERDICT: u32 = 0xffff_ff00;
}
