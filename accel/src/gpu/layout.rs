//! The shapes of bindings, the same for all kernels.

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry,
    BindingType, Buffer, BufferBindingType, Device, PipelineLayout, PipelineLayoutDescriptor, ShaderStages,
};

use crate::gpu::kernel::Parameters;

/// Layouts of the bind groups and of pipelines over them.
#[derive(Debug)]
pub(super) struct Layouts {
    slot: BindGroupLayout,
    pub(super) pipeline: PipelineLayout,
}

impl Layouts {
    pub(super) fn new(device: &Device) -> Self {
        let slot = device.create_bind_group_layout(&BindGroupLayoutDescriptor {
            label: None,
            entries: &[storage(0, true), storage(1, false)],
        });
        let pipeline = device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&slot)],
            immediate_size: u32::try_from(Parameters::BYTES).unwrap_or(0),
        });
        Self { slot, pipeline }
    }

    /// The bindings of one slot.
    pub(super) fn slot(&self, device: &Device, input: &Buffer, output: &Buffer) -> BindGroup {
        group(device, &self.slot, &[input, output])
    }
}

fn storage(binding: u32, read_only: bool) -> BindGroupLayoutEntry {
    BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer {
            ty: BufferBindingType::Storage { read_only },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}

fn group(device: &Device, layout: &BindGroupLayout, buffers: &[&Buffer]) -> BindGroup {
    let resources = (0..).zip(buffers.iter().map(|buffer| buffer.as_entire_binding()));
    let entries: Vec<_> = resources.map(|(binding, resource)| BindGroupEntry { binding, resource }).collect();
    device.create_bind_group(&BindGroupDescriptor { label: None, layout, entries: &entries })
}
