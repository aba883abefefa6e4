//! The shapes of bindings.

use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor, BindGroupLayoutEntry,
    BindingType, Buffer, BufferBindingType, Device, PipelineLayout, PipelineLayoutDescriptor, ShaderStages,
};

use crate::gpu::kernel::{Kernel, Parameters};

/// Layouts of the bind groups and of pipelines over them.
#[derive(Debug)]
pub(super) struct Layouts {
    slot: BindGroupLayout,
    suite: BindGroupLayout,
    hashing: PipelineLayout,
    verifying: PipelineLayout,
}

impl Layouts {
    pub(super) fn new(device: &Device) -> Self {
        let group = |first_read_only, second_read_only| {
            device.create_bind_group_layout(&BindGroupLayoutDescriptor {
                label: None,
                entries: &[storage(0, first_read_only), storage(1, second_read_only)],
            })
        };
        let (slot, suite) = (group(true, false), group(false, true));
        let pipeline = |groups: &[Option<&BindGroupLayout>]| {
            device.create_pipeline_layout(&PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: groups,
                immediate_size: u32::try_from(Parameters::BYTES).unwrap_or(0),
            })
        };
        let (hashing, verifying) = (pipeline(&[Some(&slot)]), pipeline(&[Some(&slot), Some(&suite)]));
        Self { slot, suite, hashing, verifying }
    }

    pub(super) const fn pipeline(&self, kernel: Kernel) -> &PipelineLayout {
        if kernel.verifies() { &self.verifying } else { &self.hashing }
    }

    /// The bindings of one slot.
    pub(super) fn slot(&self, device: &Device, input: &Buffer, output: &Buffer) -> BindGroup {
        group(device, &self.slot, &[input, output])
    }

    /// The bindings of one suite.
    pub(super) fn suite(&self, device: &Device, scratch: &Buffer, tables: &Buffer) -> BindGroup {
        group(device, &self.suite, &[scratch, tables])
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
