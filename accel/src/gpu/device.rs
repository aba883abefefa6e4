//! Finds and opens the device.

use std::{future::Future, pin::pin, sync::Arc, task, thread};

use thiserror::Error;
use wgpu::{Adapter, AdapterInfo, Backends, Device, DeviceType, Features, Instance, InstanceDescriptor, Queue};

use crate::gpu::{GpuConfig, kernel::Parameters};

/// What every kernel needs: 64-bit integers in registers, and parameters without a buffer.
const FEATURES: Features = Features::SHADER_INT64.union(Features::IMMEDIATES);

/// What is used where it is there: times of kernels, and compiled kernels that are kept.
const FEATURES_OPTIONAL: Features = Features::TIMESTAMP_QUERY.union(Features::PIPELINE_CACHE);

/// Why no GPU serves. None of these is a fault of the engine: the CPU serves.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum GpuError {
    /// No Vulkan, or no device behind it.
    #[error("no Vulkan device")]
    NoDevice,
    /// There are devices, but none that may serve.
    #[error("no Vulkan device may serve: {reasons}")]
    NoneSuitable {
        /// Each device with its reason.
        reasons: String,
    },
    /// The device could not be opened.
    #[error("the device could not be opened: {reason}")]
    Open {
        /// What the driver said.
        reason: String,
    },
    /// Buffers could not be had.
    #[error("the device has no memory for the buffers: {reason}")]
    Memory {
        /// What the driver said.
        reason: String,
    },
    /// A kernel could not be compiled.
    #[error("kernel {kernel} could not be compiled: {reason}")]
    Kernel {
        /// The kernel's name.
        kernel: &'static str,
        /// What the driver said.
        reason: String,
    },
    /// The thread could not be started.
    #[error("the thread of the device could not be started: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
}

/// An open device.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) device: Device,
    pub(crate) queue: Queue,
    pub(crate) info: AdapterInfo,
    pub(crate) limits: wgpu::Limits,
}

/// Opens the best device that the configuration allows.
pub(crate) fn open(config: &GpuConfig) -> Result<Opened, GpuError> {
    let mut descriptor = InstanceDescriptor::new_without_display_handle();
    descriptor.backends = Backends::VULKAN;
    // Neither debug layers nor labels: this is a service, and validation is wgpu's own.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let adapters = block_on(Instance::new(descriptor).enumerate_adapters(Backends::VULKAN));
    if adapters.is_empty() {
        return Err(GpuError::NoDevice);
    }
    let mut reasons = Vec::new();
    let mut suitable: Vec<Adapter> = Vec::new();
    for adapter in adapters {
        match refusal(&adapter, config) {
            None => suitable.push(adapter),
            Some(reason) => reasons.push(format!("{} ({reason})", adapter.get_info().name)),
        }
    }
    let best = suitable.into_iter().min_by_key(|adapter| rank(adapter.get_info().device_type));
    let adapter = best.ok_or_else(|| GpuError::NoneSuitable { reasons: reasons.join(", ") })?;
    let features = FEATURES | (adapter.features() & FEATURES_OPTIONAL);
    let limits = adapter.limits();
    let (device, queue) = block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        label: Some("stele-accel"),
        required_features: features,
        required_limits: limits.clone(),
        ..wgpu::DeviceDescriptor::default()
    }))
    .map_err(|error| GpuError::Open { reason: error.to_string() })?;
    Ok(Opened { device, queue, info: adapter.get_info(), limits })
}

/// Why a device may not serve.
fn refusal(adapter: &Adapter, config: &GpuConfig) -> Option<String> {
    let info = adapter.get_info();
    let missing = FEATURES - adapter.features();
    if !missing.is_empty() {
        Some(format!("lacks {missing:?}"))
    } else if info.device_type == DeviceType::Cpu && !config.software_device {
        Some("a software device".to_owned())
    } else if !config.adapter.is_empty() && !info.name.contains(&config.adapter) {
        Some("another one is configured".to_owned())
    } else if adapter.limits().max_immediate_size < u32::try_from(Parameters::BYTES).unwrap_or(u32::MAX) {
        Some("too little room for parameters".to_owned())
    } else {
        None
    }
}

/// Smaller is better.
const fn rank(device_type: DeviceType) -> u8 {
    match device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::VirtualGpu => 1,
        DeviceType::IntegratedGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

/// Waits for a future that needs no runtime; those of wgpu on Vulkan are ready at once.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = task::Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = task::Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            task::Poll::Ready(output) => return output,
            task::Poll::Pending => thread::park(),
        }
    }
}
