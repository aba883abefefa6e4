//! How the GPU is set up.

use std::path::PathBuf;

/// How the GPU is set up; see [`EngineConfig::gpu`](crate::EngineConfig::gpu).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuConfig {
    /// Part of the name of the device to use; empty: the best there is, discrete ones first.
    pub adapter: String,
    /// Whether a software device may serve. It is slower than the CPU backend on the same cores, so it is for tests.
    pub software_device: bool,
    /// Whether live work may go to the GPU, votes included; otherwise bulk work alone does.
    pub live: bool,
    /// Which part of the work the GPU gets.
    pub assign: Assign,
    /// Where compiled kernels are kept between runs; none: the driver's own cache alone.
    pub cache_directory: Option<PathBuf>,
    /// Batches in flight: one that is filled, one that is computed, one that is read back.
    pub slots: usize,
    /// Bytes of input, and of output, of one batch at most. A slot takes four times as much.
    pub slot_bytes: usize,
    /// Signatures of one batch at most; each takes 1.5 KiB of the device's memory, once for all slots.
    pub batch_items_max: usize,
    /// Bytes of tables on the device of each suite at most, of which a key takes 86 KiB, and one of Ed25519 129 KiB.
    pub table_bytes_max: usize,
    /// One in so many results is computed again on the CPU.
    pub recheck_one_in: u32,
    /// Signatures last accepted by the GPU, to be verified again on the CPU when the GPU is found wrong.
    pub retained_items_max: usize,
    /// Most bytes of messages, keys and signatures that these keep in memory.
    pub retained_bytes_max: usize,
}

/// Which part of the work the GPU gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Assign {
    /// What it is predicted to finish before the CPU would, by measured costs.
    #[default]
    Measured,
    /// All that it can do: for tests and benchmarks.
    All,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            adapter: String::new(),
            software_device: false,
            live: false,
            assign: Assign::Measured,
            cache_directory: None,
            slots: 3,
            slot_bytes: 16 << 20,
            batch_items_max: 1 << 16,
            table_bytes_max: 64 << 20,
            recheck_one_in: 256,
            retained_items_max: 1 << 16,
            retained_bytes_max: 64 << 20,
        }
    }
}
