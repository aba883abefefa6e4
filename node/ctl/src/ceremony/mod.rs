//! The ceremony in which a node's keys are made, and its protocol.
//!
//! ```text
//!  script, or answers on the terminal ──► conduct ──► stele-signer init, identity ──► protocol, signed by all who were present
//!                                                                                        │
//!                                              anybody, at any time, without the node ◄──┘ examine
//! ```
//!
//! The protocol says who was present, what was done when, which keys there are, what the TPM says of them, and who keeps a
//! share. It holds nothing secret. Its file is JSON in the one form of RFC 8785, so that what was signed is what everybody
//! reads.

mod canonical;
mod conduct;
mod examination;
mod protocol;
mod script;

pub use self::{
    conduct::{Pace, conduct},
    examination::{Examined, examine},
    protocol::{Evidence, MadeKey, Present, Protocol, Signed, Step},
    script::{Participant, Script},
};
