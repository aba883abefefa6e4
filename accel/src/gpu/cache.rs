//! Compiled kernels on disk, so that a start does not compile what the last one compiled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wgpu::{AdapterInfo, Device, Features, PipelineCache, PipelineCacheDescriptor};

use crate::gpu::kernel::Kernel;

/// Length of the digest in front of the blob.
const DIGEST_LENGTH: usize = 32;

/// Largest blob that is read: all kernels take far less.
const BLOB_BYTES_MAX: u64 = 256 << 20;

/// The cache of one device, driver and set of kernels.
#[derive(Debug)]
pub(super) struct KernelCache {
    pub(super) pipelines: PipelineCache,
    path: PathBuf,
    loaded: Vec<u8>,
}

impl KernelCache {
    /// The cache in a directory, or `None` where the driver has none.
    pub(super) fn open(directory: &Path, device: &Device, info: &AdapterInfo) -> Option<Self> {
        if !device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        let path = directory.join(file_name(info));
        let loaded = read(&path).unwrap_or_default();
        let descriptor =
            PipelineCacheDescriptor { label: None, data: (!loaded.is_empty()).then_some(&*loaded), fallback: true };
        // SAFETY: the blob came from `get_data`: its digest was written beside it by `save` below, and the file's name
        // binds it to device, driver and kernels. `fallback` lets wgpu start an empty cache when its header does not fit.
        let pipelines = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { pipelines, path, loaded })
    }

    /// Writes what was compiled, if that is new. A failure costs a compilation next time, so it is not reported.
    pub(super) fn save(&self) {
        let Some(blob) = self.pipelines.get_data().filter(|blob| *blob != self.loaded) else { return };
        let temporary = self.path.with_extension("new");
        let content = [&Sha256::digest(&blob)[..], &blob].concat();
        let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &self.path));
        if written.is_err() {
            let _absent = fs::remove_file(&temporary);
        }
    }
}

/// The blob of a file that is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    if fs::metadata(path).ok()?.len() > BLOB_BYTES_MAX {
        return None;
    }
    let content = fs::read(path).ok()?;
    let (digest, blob) = content.split_at_checked(DIGEST_LENGTH)?;
    (Sha256::digest(blob)[..] == *digest).then(|| blob.to_vec())
}

/// A name that changes with whatever makes a blob useless.
fn file_name(info: &AdapterInfo) -> String {
    let mut hash = Sha256::new();
    let identity = format!("{}\n{}\n{}\n{}\n{}", info.name, info.vendor, info.device, info.driver, info.driver_info);
    hash.update(identity);
    for kernel in Kernel::ALL {
        hash.update(kernel.source());
    }
    let name: String = hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("kernels-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_that_is_not_whole_is_not_read() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("blob");
        assert_eq!(read(&path), None);
        let content = [&Sha256::digest(b"compiled")[..], b"compiled"].concat();
        fs::write(&path, &content).expect("write");
        assert_eq!(read(&path).as_deref(), Some(&b"compiled"[..]));
        for broken in [&content[..20], &content[..content.len() - 1], &[&content[..], b"!"].concat()] {
            fs::write(&path, broken).expect("write");
            assert_eq!(read(&path), None);
        }
    }
}
