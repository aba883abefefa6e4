//! Keys that another process holds: `stele-signer`, asked over a Unix socket.
//!
//! ```text
//!  RemoteSigner ─┐                                  ┌─ one task a request, guards, hardware
//!  RemoteSigner ─┼─► SignerSocket ── Unix socket ──►│
//!  RemoteAttestor┤   one connection,  frames         └─ stele-signer
//!  RemoteCustodian   answers by number
//! ```
//!
//! - **Typed.** The socket carries the requests of [`crate::request`], field by field ([`wire`]); the signer judges them
//!   again, so that a caller that was taken over can ask for nothing else.
//! - **Bounded.** So many requests may be under way, each for so long; beyond, the caller is told to come back.
//! - **Loss is ordinary.** A signer that went away fails what was under way with [`SignerError::SignerAway`], which is
//!   retryable, and the next request looks for it again. A request whose answer was lost may be given again: the guard of
//!   the signer gives the stored signature.
//! - **Believed no further than it proves.** A signature is checked under the key that was asked for before it is given on:
//!   a signer that was started with other keys is noticed at once.

mod attestor;
mod custodian;
mod signer;
mod socket;
pub mod wire;

pub use self::{
    attestor::RemoteAttestor,
    custodian::RemoteCustodian,
    signer::RemoteSigner,
    socket::{SignerSocket, SocketFigures},
};
