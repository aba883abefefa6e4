//! NVMe passthrough: a drive's own commands through the character device of a namespace, with neither file system nor block
//! layer between (Joshi et al., "I/O Passthru", USENIX FAST 2024).

mod command;
mod identify;
mod namespace;
mod passthrough;
mod status;
mod zones;

pub(crate) use namespace::{Namespace, is_character_device};
pub(crate) use passthrough::Passthrough;
#[cfg(feature = "spdk")]
pub(crate) use status::Status;
pub use zones::{Zone, ZoneState};
pub(crate) use zones::{Zoning, report as report_zones};
