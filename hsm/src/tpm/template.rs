//! Templates of the keys that are made.

use sha2::{Digest as _, Sha256};
use tss_esapi::{
    Error,
    attributes::{ObjectAttributes, ObjectAttributesBuilder},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
    },
    structures::{
        EccParameter, EccPoint, EccScheme, HashScheme, Public, PublicBuilder, PublicEccParameters,
        PublicEccParametersBuilder, SymmetricDefinitionObject,
    },
};

/// The storage key: template H-2 of the TCG Provisioning Guidance on P-256, with an empty unique field as other users of
/// `TSS2 PRIVATE KEY` files have it, so that they find the same parent.
pub(super) fn storage_key() -> Result<Public, Error> {
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    let attributes = held().with_decrypt(true).with_restricted(true).build()?;
    build(attributes, parameters.build()?, EccPoint::default())
}

/// A key that signs what it is asked to: P-256, ECDSA with SHA-256.
pub(super) fn signing_key() -> Result<Public, Error> {
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters = PublicEccParametersBuilder::new_unrestricted_signing_key(scheme, EccCurve::NistP256);
    build(held().with_sign_encrypt(true).build()?, parameters.build()?, EccPoint::default())
}

/// The attestation key: signs only what the TPM made. Its unique field keeps it apart from other software's keys under the
/// same seed.
pub(super) fn attestation_key() -> Result<Public, Error> {
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(scheme)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(tss_esapi::structures::KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(true);
    let unique: [u8; 32] = Sha256::digest(b"stele/ak/v1").into();
    let unique = EccPoint::new(EccParameter::try_from(unique.to_vec())?, EccParameter::default());
    build(held().with_sign_encrypt(true).with_restricted(true).build()?, parameters.build()?, unique)
}

/// Made by the TPM, never to leave it. Such keys have no password to guess, so guessing elsewhere must not lock them.
fn held() -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
}

fn build(attributes: ObjectAttributes, parameters: PublicEccParameters, unique: EccPoint) -> Result<Public, Error> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(unique)
        .build()
}
