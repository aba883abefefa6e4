//! What a bundle says of the key that signed its checkpoint: where it is, and what a TPM says of that.
//!
//! Raw TCG bytes, as the node's TPM gave them. They are claims: nothing here judges them, and a bundle holds without them.

use crate::cbor::Blob;

/// Longest `TPM2B_PUBLIC`: that of an RSA-4096 key with a policy has about 600 bytes.
pub const TPM_PUBLIC_BYTES_MAX: usize = 1026;
/// Longest certificate of an endorsement key; an NV index may be larger than what is in it.
pub const ENDORSEMENT_CERTIFICATE_BYTES_MAX: usize = 8192;
/// Longest `TPMS_ATTEST` or `TPMT_PUBLIC`.
pub const ATTESTATION_BYTES_MAX: usize = 1024;
/// Longest `TPMT_SIGNATURE`.
pub const ATTESTATION_SIGNATURE_BYTES_MAX: usize = 1040;
/// Longest file of PCR values: sixteen banks of 24 PCRs, each in a place of 66 bytes.
pub const PCR_VALUES_BYTES_MAX: usize = 26 * 1024;

crate::codes! {
    /// Where a key is, as its node says.
    pub enum KeyProvider: u8 {
        /// In the node's TPM.
        Tpm = 1 => "tpm",
        /// In a token that is reached by PKCS#11.
        Pkcs11 = 2 => "pkcs11",
        /// In the memory of a process.
        Software = 3 => "software",
    }
}

crate::record! {
    /// By what a TPM is known.
    pub struct TpmIdentity {
        /// `TPM2B_PUBLIC` of the endorsement key.
        1 => endorsement_key: Blob<TPM_PUBLIC_BYTES_MAX>,
        /// The maker's certificate of it, DER, perhaps padded.
        2 => endorsement_certificate: Option<Blob<ENDORSEMENT_CERTIFICATE_BYTES_MAX>>,
        /// `TPM2B_PUBLIC` of the attestation key.
        3 => attestation_key: Blob<TPM_PUBLIC_BYTES_MAX>,
    }
}

crate::record! {
    /// The attestation key's word about a key, qualified by SHA-256("stele/key/v1" ‖ SPKI): `TPM2_Certify` of a key in the
    /// same TPM, with its public area, or a quote for a key elsewhere, with the PCR values. Never both.
    pub struct KeyAttestation {
        /// `TPMS_ATTEST`.
        1 => message: Blob<ATTESTATION_BYTES_MAX>,
        /// `TPMT_SIGNATURE`.
        2 => signature: Blob<ATTESTATION_SIGNATURE_BYTES_MAX>,
        /// `TPMT_PUBLIC` of the certified key.
        3 => public_area: Option<Blob<ATTESTATION_BYTES_MAX>>,
        /// Values of the quoted PCRs, `serialized` of tpm2-tools.
        4 => pcr_values: Option<Blob<PCR_VALUES_BYTES_MAX>>,
    }
}

crate::record! {
    /// The signer of a checkpoint.
    pub struct CheckpointSigner {
        /// Where the node says that its checkpoint key is.
        1 => provider: KeyProvider,
        /// The node's TPM, if it has one.
        2 => tpm: Option<TpmIdentity>,
        /// What the TPM says of the checkpoint key; nothing of one in software.
        3 => attestation: Option<KeyAttestation>,
    }
}
