//! The configuration file: TOML, every key known, every bound checked before anything starts.
//!
//! Relative paths are relative to the file's own directory, so that a directory with a whole node in it can be moved.
//! [`Config::load`] reads the file and checks what the file alone can tell; [`Config::check`] looks at the machine too:
//! files, their modes, the certificate.

mod check;
mod error;
mod file;
mod reload;
mod sections;

pub use error::{ConfigError, Fault};
pub use sections::{
    AccelBackend, AccelSection, AdmissionSection, ApiLimits, ApiSection, ColdLock, ColdSection, Config, CustodyLevel,
    CustodySection, DriveEntry, GpuSection, GpuShare, KeeperEntry, LogFormat, LogLevel, LogSection, MetricsSection,
    NodeSection, OrderSection, PayloadSection, PeerAddress, PeersSection, SealSection, SignerName, StateSection,
    ValidatorSection, VoteMode,
};
