//! An open device with its kernels.

use std::sync::OnceLock;

use wgpu::{
    ComputePipeline, ComputePipelineDescriptor, ErrorFilter, PipelineCompilationOptions, ShaderModuleDescriptor,
    ShaderSource,
};

use crate::gpu::{
    cache::KernelCache,
    device::{GpuError, Opened, block_on},
    kernel::Kernel,
    layout::Layouts,
};

/// An open device and the kernels that are compiled so far.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) opened: Opened,
    pub(super) layouts: Layouts,
    pipelines: [OnceLock<ComputePipeline>; Kernel::ALL.len()],
}

impl Machine {
    pub(super) fn new(opened: Opened) -> Self {
        let layouts = Layouts::new(&opened.device);
        Self { opened, layouts, pipelines: [const { OnceLock::new() }; Kernel::ALL.len()] }
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
            layout: Some(&self.layouts.pipeline),
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
