//! What the TPM says of itself and of the keys before there is a network: for those who are present when they are made.

use anyhow::Context as _;
use stele_evidence::{Public, exchange::Identity};
use stele_hsm::{SignerError, remote::wire::Role, tpm::TpmAttestor};

use crate::{
    config::Config,
    hardware::{Hardware, StateFiles},
    keys::evidence,
};

/// Asks the TPM. Nothing is signed but its own statements, and no epoch begins. Blocks.
///
/// # Errors
/// [`SignerError::AttestationMissing`] without a TPM, errors of keys and hardware.
pub(crate) fn read(config: &Config) -> anyhow::Result<Identity> {
    let files = StateFiles::of(config);
    let hardware = Hardware::open(config)?;
    let (Some(section), Some(device)) = (&config.tpm, &hardware.tpm) else {
        return Err(SignerError::AttestationMissing.into());
    };
    let attestor = TpmAttestor::new(device);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let known = runtime.block_on(attestor.identity())?;
    let mut keys = Vec::new();
    for (name, key) in config.keys() {
        let role = if name == "seal" { Role::Seal } else { Role::Validator };
        let held = hardware.open_key(&files, name, key)?;
        keys.push(runtime.block_on(evidence(&attestor, &section.pcrs, role, &held))?.try_into()?);
    }
    let public = Public::parse_sized(&known.attestation_key).context("the attestation key")?;
    Ok(Identity {
        endorsement_key: known.endorsement_key,
        endorsement_certificate: known.endorsement_certificate,
        attestation_key: known.attestation_key,
        attestation_key_name: public.name(),
        keys,
    })
}
