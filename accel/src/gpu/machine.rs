//! An open device with its kernels.

use std::sync::OnceLock;

use wgpu::{
    ComputePipeline, ComputePipelineDescriptor, ErrorFilter, PipelineCompilationOptions, ShaderModuleDescriptor,
    ShaderSource,
};

use crate::{
    gpu::{
        GpuConfig,
        cache::KernelCache,
        device::{GpuError, Opened, block_on},
        kernel::Kernel,
        layout::Layouts,
        ring,
        tables::{self, Tables},
    },
    suite::Suite,
};

/// An open device and the kernels that are compiled so far.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) opened: Opened,
    pub(super) layouts: Layouts,
    /// By [`Suite::index`].
    pub(super) tables: [Tables; Suite::COUNT],
    /// Memory of the device that tables, scratch and slots take.
    pub(super) bytes: u64,
    pipelines: [OnceLock<ComputePipeline>; Kernel::ALL.len()],
}

impl Machine {
    pub(super) fn new(opened: Opened, config: &GpuConfig) -> Result<Self, GpuError> {
        let layouts = Layouts::new(&opened.device);
        let scratch = tables::scratch(&opened, config.batch_items_max)?;
        let tables =
            |suite: Suite| Tables::new(&opened, &layouts, &scratch, entry_bytes(suite), config.table_bytes_max);
        let [ed25519, p256, sm2] = Suite::ALL.map(tables);
        let tables = [ed25519?, p256?, sm2?];
        let slots = config.slots.saturating_mul(ring::SLOT_BUFFERS).saturating_mul(config.slot_bytes) as u64;
        let bytes = scratch.size() + tables.iter().map(Tables::bytes).sum::<u64>() + slots;
        Ok(Self { opened, layouts, tables, bytes, pipelines: [const { OnceLock::new() }; Kernel::ALL.len()] })
    }

    /// The kernel, once it is compiled.
    pub(super) fn pipeline(&self, kernel: Kernel) -> Option<&ComputePipeline> {
        self.pipelines.get(kernel.index()).and_then(OnceLock::get)
    }

    /// Compiles one kernel; takes up to seconds.
    pub(super) fn compile(&self, kernel: Kernel, cache: Option<&KernelCache>) -> Result<(), GpuError> {
        let device = &self.opened.device;
        let scope = device.push_error_scope(ErrorFilter::Validation);
        let module = device.create_shader_module(ShaderModuleDescriptor {
            label: Some(kernel.name()),
            source: ShaderSource::Wgsl(kernel.source().into()),
        });
        let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
            label: Some(kernel.name()),
            layout: Some(self.layouts.pipeline(kernel)),
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..PipelineCompilationOptions::default()
            },
            cache: cache.map(|cache| &cache.pipelines),
        });
        if let Some(error) = block_on(scope.pop()) {
            return Err(GpuError::Kernel { kernel: kernel.name(), reason: error.to_string() });
        }
        self.pipelines[kernel.index()].get_or_init(|| pipeline);
        Ok(())
    }
}

/// Bytes of a table's entry: two coordinates, or the three of the Edwards form.
const fn entry_bytes(suite: Suite) -> usize {
    match suite {
        Suite::P256 | Suite::Sm2 => 64,
        Suite::Ed25519 => 96,
    }
}
