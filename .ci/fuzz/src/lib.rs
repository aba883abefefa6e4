//! Fuzz targets: one body for every decoder that reads bytes from outside.
//!
//! A body takes any bytes and must not panic, hang or allocate beyond what the bytes bring; what it accepts it must
//! give back byte for byte. The same bodies run in two ways:
//!
//! * `cargo nextest run -p stele-fuzz` mutates valid samples with a seeded generator for a fixed number of rounds, so
//!   every run of the tests is a smoke run. `STELE_FUZZ_ROUNDS=1000000` makes it longer, `STELE_FUZZ_SEED` another one.
//! * libFuzzer, which needs a nightly compiler and `cargo install cargo-fuzz`, from the repository's root:
//!
//!   ```text
//!   cargo run -p stele-fuzz --bin decoders -- corpus .ci/fuzz/corpus/decoders
//!   cargo +nightly fuzz run decoders --fuzz-dir .ci/fuzz -- -max_len=20000
//!   cargo run -p stele-fuzz --bin decoders -- replay .ci/fuzz/artifacts/decoders/crash-…
//!   ```
//!
//!   The first byte of an input chooses the decoder ([`TARGETS`]), so one corpus serves all.

#![forbid(unsafe_code)]

mod bodies;
mod evidence;
pub mod mutation;

/// Valid encodings of every structure, shared with the tests of `stele-types`.
#[path = "../../../node/types/tests/samples/mod.rs"]
mod samples;

/// A small network with bundles and receipts, shared with the tests of `stele-verify`.
#[path = "../../../node/verify/tests/fixture/mod.rs"]
mod fixture;

pub use bodies::TARGETS;

/// One decoder: its name, its body, and valid inputs to start from.
pub struct Target {
    /// Name for messages and corpus files.
    pub name: &'static str,
    /// Takes any bytes; panics when the decoder breaks its promise.
    pub body: fn(&[u8]),
    /// Valid inputs.
    pub corpus: fn() -> Vec<Vec<u8>>,
}

/// The body of libFuzzer: the first byte chooses the target, the rest is its input.
pub fn any(bytes: &[u8]) {
    if let Some((first, rest)) = bytes.split_first() {
        (TARGETS[usize::from(*first) % TARGETS.len()].body)(rest);
    }
}
