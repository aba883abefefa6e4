//! The cold tier: objects in S3 that nobody can replace, and that are there when they are said to be.
//!
//! ```text
//!  put ──► parts ──► object under a name of its own ──► read back, root compared ──► seal ──► lock
//!                    bucket `objects`: Object Lock            bucket `seals`: create-if-absent
//!
//!  read ◄── a range of the object that the seal names
//! ```
//!
//! * An object is written under a name that nobody else can guess or has used, read back, and compared with what was to be
//!   written. Only then its *seal* is put, by creating it if it is absent: of all attempts under one name, one counts, and
//!   what counts is never changed. The seal names the object, its length and the root of its content.
//! * Where a [`Retention`] is configured, the object is locked as soon as it is sealed, and [`ColdTier::put`] returns when
//!   the server says so. A version under a lock of mode compliance is deleted by nobody, administrators included.
//! * [`ColdTier::open`] *probes* what it was given before it trusts it: that the server refuses to create what is there, that
//!   what was written can be read at once, ranges, locks. An endpoint that takes `If-None-Match` for a hint is refused.
//!
//! There are two buckets because Ceph 16.2 honours `If-None-Match` only in a bucket without versions, and only for objects
//! that come in one request, while Object Lock wants versions, and segments come in parts. Where a server does all of it in
//! one, both names may be that of one bucket.
//!
//! It knows no node and no key: what it is given is ciphertext.

#![forbid(unsafe_code)]

mod digest;
mod driver;
mod error;
mod lock;
mod options;
mod probe;
mod seal;
mod tier;
mod transport;

pub use driver::{ColdDriver, ColdPolicy, ColdReport, lost_stores};
pub use error::ColdError;
pub use options::{ColdOptions, Credentials, Retention, RetentionMode};
pub use seal::Sealed;
pub use tier::ColdTier;
