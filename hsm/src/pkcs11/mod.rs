//! Keys in a hardware security module, through PKCS#11.
//!
//! ```text
//!  Pkcs11Signer ─┐                      ┌ a thread and a session each ─┐
//!  Pkcs11Signer ─┴─ bounded queue ─► n ─┤ handles of keys, found once  ├─► module ─► token
//!                                       └ dropped when lost, made anew ┘
//! ```
//!
//! Modules sign in parallel, one operation a session, so a few threads share the queue. A session that the token closed, a
//! login that ended and a token that was pulled are made anew within the request or with the next; nothing is restarted. A
//! wrong PIN is given once and never again: tokens lock themselves after a few.
//!
//! Keys are made in the token and found by their label. One that could be taken out is refused, whoever made it.

mod fault;
mod signer;
mod token;

pub use self::{
    signer::Pkcs11Signer,
    token::{Pkcs11Figures, Pkcs11Options, Pkcs11Token},
};
