//! `stele-verify`: the lean offline verifier.

#![forbid(unsafe_code)]

fn main() {}
