//! The accelerator as the configuration asks for it.

use std::path::Path;

use stele_accel::{Assign, EngineConfig, GpuConfig};

use crate::config::{AccelBackend, AccelSection, GpuSection, GpuShare};
use crate::store::durable;

/// Compiled kernels of the GPU, inside the data directory: without them a start takes longer, and that is all.
const KERNELS_DIRECTORY: &str = "kernels";

/// What the engine is told.
pub fn engine_config(section: &AccelSection, data_dir: &Path) -> EngineConfig {
    EngineConfig {
        threads: section.threads,
        key_table_bytes_max: section.key_table_bytes_max,
        gpu: (section.backend == AccelBackend::Gpu).then(|| gpu_config(&section.gpu, data_dir)),
        ..EngineConfig::default()
    }
}

fn gpu_config(section: &GpuSection, data_dir: &Path) -> GpuConfig {
    let cache = data_dir.join(KERNELS_DIRECTORY);
    // Without the directory the engine compiles at each start; it says nothing of the node's health.
    let cache_directory = durable::create_directory(&cache).is_ok().then_some(cache);
    GpuConfig {
        adapter: section.adapter.clone(),
        software_device: section.software_device,
        live: section.live,
        assign: match section.share {
            GpuShare::Measured => Assign::Measured,
            GpuShare::All => Assign::All,
        },
        cache_directory,
        slots: section.slots,
        slot_bytes: section.slot_bytes,
        batch_items_max: section.batch_items_max,
        table_bytes_max: section.table_bytes_max,
        recheck_one_in: section.recheck_one_in,
        retained_items_max: section.retained_items_max,
        retained_bytes_max: section.retained_bytes_max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gpu_is_off_unless_asked_for_and_then_has_the_accelerators_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let mut section = AccelSection::default();
        assert_eq!(engine_config(&section, directory.path()), EngineConfig::default());
        assert!(!directory.path().join(KERNELS_DIRECTORY).exists());
        section.backend = AccelBackend::Gpu;
        let cache_directory = Some(directory.path().join(KERNELS_DIRECTORY));
        let gpu = GpuConfig { cache_directory, ..GpuConfig::default() };
        assert_eq!(engine_config(&section, directory.path()).gpu, Some(gpu));
        assert!(directory.path().join(KERNELS_DIRECTORY).is_dir());
    }
}
