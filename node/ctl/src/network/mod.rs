//! A network on disk: its directory, the profile that commands read, and `stele network init`.

pub mod config;
pub mod genesis_view;
pub mod init;
pub mod layout;
pub mod profile;

pub use init::{InitOptions, NewNode, VoteMode, add_node, init};
pub use layout::NetworkDir;
pub use profile::{NodeProfile, PartyProfile, Profile};
