//! A counter in the TPM that ties a disk down: it goes up with every start, and a file beside the guards remembers it.
//!
//! What it cannot notice is a copy that was taken while the signer ran, after a run that ended without order (a power cut):
//! file and counter of that copy agree. A clean end raises both once more, so that only then does such a copy become old.
//!
//! A guard file cannot notice that an old copy of itself was restored, or that a copy of the disk runs elsewhere. The TPM's
//! counter can, because it never goes back and cannot be copied. The file is written first and says where the counter will
//! be, so that a crash in between is not taken for a copy: the counter stands where the file says, or one below.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use tss_esapi::{
    Context, Error,
    attributes::NvIndexAttributesBuilder,
    constants::{CapabilityType, NvIndexType},
    handles::{NvIndexHandle, NvIndexTpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::{NvAuth, Provision},
    },
    structures::{CapabilityData, NvPublicBuilder},
};

use crate::{
    error::SignerError,
    tpm::{connection::Connection, device::TpmDevice, fault::Fault},
};

/// First bytes of the file.
const MAGIC: &[u8; 16] = b"stele tpm epoch1";

/// The epoch of a node: how often it was started with this TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmEpoch(u64);

impl TpmEpoch {
    /// The NV index that is used unless the configuration names another; the owner's range begins at 0x0180_0000.
    pub const INDEX_DEFAULT: u32 = 0x0180_5e1e;

    /// Makes the counter, if the TPM has none at this index, and the file that remembers it. Blocks. Never done
    /// implicitly: a file that went missing must stop the node, not start from nothing.
    ///
    /// # Errors
    /// [`SignerError::TpmEpochFile`], also when the file exists, and errors of the TPM.
    pub fn create(device: &TpmDevice, index: u32, path: &Path) -> Result<(), SignerError> {
        if path.exists() {
            let source = io::ErrorKind::AlreadyExists.into();
            return Err(SignerError::TpmEpochFile { path: path.to_owned(), source });
        }
        let value = device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| {
                if !connection.has_index(index)? {
                    connection.define_counter(index)?;
                    // A counter has no value before it is raised the first time.
                    connection.raise_counter(index)?;
                }
                connection.read_counter(index)
            })
        })?;
        write(path, value)
    }

    /// Begins a new epoch: checks that counter and file belong together, and raises both. Blocks.
    ///
    /// # Errors
    /// [`SignerError::TpmEpochMismatch`] for an old or second copy of the disk and for another TPM,
    /// [`SignerError::TpmEpochFile`], and errors of the TPM.
    pub fn begin(device: &TpmDevice, index: u32, path: &Path) -> Result<Self, SignerError> {
        let recorded = read(path)?;
        let found = device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| {
                // A TPM that was cleared, or another one, has no such counter.
                if connection.has_index(index)? { connection.read_counter(index) } else { Ok(0) }
            })
        })?;
        if found != recorded && found.checked_add(1) != Some(recorded) {
            return Err(SignerError::TpmEpochMismatch { found, recorded });
        }
        let next = found.saturating_add(1);
        write(path, next)?;
        device.queue().call_blocking(move |worker| {
            worker.attempt(|connection| {
                // Raised already if the answer to an earlier attempt was lost.
                if connection.read_counter(index)? < next {
                    connection.raise_counter(index)?;
                }
                Ok(())
            })
        })?;
        Ok(Self(next))
    }

    /// Ends the epoch in order: raises file and counter once more, so that copies of the disk which were taken while it ran
    /// are old from now on. Blocks.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(self, device: &TpmDevice, index: u32, path: &Path) -> Result<(), SignerError> {
        Self::begin(device, index, path).map(drop)
    }

    /// Its number: what a certificate of an epoch key may name.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Magic number, value, checksum.
fn encode(value: u64) -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..16].copy_from_slice(MAGIC);
    bytes[16..24].copy_from_slice(&value.to_be_bytes());
    let checksum = crc32c::crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn read(path: &Path) -> Result<u64, SignerError> {
    let failed = |source| SignerError::TpmEpochFile { path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let value = bytes.get(16..24).and_then(|value| value.try_into().ok()).map(u64::from_be_bytes);
    value.filter(|value| encode(*value)[..] == bytes).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))
}

/// Replaces the file whole, durably.
fn write(path: &Path, value: u64) -> Result<(), SignerError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&encode(value))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    });
    written.map_err(|source| SignerError::TpmEpochFile { path: path.to_owned(), source })
}

impl Connection {
    /// Whether an NV index is defined. Asked by capability: an error for an unknown handle looks like a reset.
    pub(super) fn has_index(&mut self, index: u32) -> Result<bool, Fault> {
        let (data, _) = self.plain(|context| context.get_capability(CapabilityType::Handles, index, 1))?;
        let first = match data {
            CapabilityData::Handles(handles) => handles.into_inner().first().copied().map(u32::from),
            _ => None,
        };
        Ok(first == Some(index))
    }

    /// Runs commands on an index that is defined.
    pub(super) fn with_index<T>(
        &mut self,
        index: u32,
        commands: impl FnOnce(&mut Context, NvIndexHandle) -> Result<T, Error>,
    ) -> Result<T, Fault> {
        let handle = NvIndexTpmHandle::new(index)?;
        let mut object = self.plain(|context| context.tr_from_tpm_public(handle.into()))?;
        let done = self.authorized(|context| commands(context, NvIndexHandle::from(object)));
        self.plain(|context| context.tr_close(&mut object))?;
        done
    }

    fn define_counter(&mut self, index: u32) -> Result<(), Fault> {
        let attributes = NvIndexAttributesBuilder::new()
            .with_owner_write(true)
            .with_owner_read(true)
            .with_no_da(true)
            .with_nv_index_type(NvIndexType::Counter)
            .build()?;
        let public = NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(index)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(8)
            .build()?;
        self.authorized(|context| context.nv_define_space(Provision::Owner, None, public).map(drop))
    }

    fn raise_counter(&mut self, index: u32) -> Result<(), Fault> {
        self.with_index(index, |context, index| context.nv_increment(NvAuth::Owner, index))
    }

    fn read_counter(&mut self, index: u32) -> Result<u64, Fault> {
        self.with_index(index, |context, index| {
            let value = context.nv_read(NvAuth::Owner, index, 8, 0)?;
            Ok(u64::from_be_bytes(value.value().try_into().unwrap_or_default()))
        })
    }
}
