//! Benchmarks of the node's stores against peers; see `src/bin`.

#[path = "../../../../node/src/store/mod.rs"]
pub mod store;
