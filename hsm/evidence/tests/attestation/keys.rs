//! Public areas, names, and keys that an attestation key certifies.

use stele_evidence::{Public, PublicKey, verify_certification};

use crate::platform::Platform;

/// A platform with a signing key of these attributes under a storage key, certified by its attestation key with data `03…`.
fn certified(attributes: &str) -> (Platform, Public, Vec<u8>, Vec<u8>) {
    let platform = Platform::new("ecc", "ecdsa");
    let tpm = &platform.tpm;
    tpm.tool(&["tpm2_createprimary", "-C", "o", "-G", "ecc", "-c", "storage.ctx"]).unwrap();
    let words = ["tpm2_create", "-C", "storage.ctx", "-G", "ecc256:ecdsa-sha256", "-u", "key.pub", "-r", "key.priv"];
    tpm.tool(&[&words[..], &["-a", attributes]].concat()).unwrap();
    tpm.flush();
    tpm.tool(&["tpm2_load", "-C", "storage.ctx", "-u", "key.pub", "-r", "key.priv", "-c", "key.ctx"]).unwrap();
    tpm.flush();
    let words = ["tpm2_certify", "-c", "key.ctx", "-C", "ak.ctx", "-g", "sha256", "-o", "attest", "-s", "signature"];
    tpm.tool(&words).unwrap();
    tpm.flush();
    let key = Public::parse_sized(&tpm.read("key.pub")).unwrap();
    let (attestation, signature) = (tpm.read("attest"), tpm.read("signature"));
    (platform, key, attestation, signature)
}

/// What a key of the signer has.
const HELD: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign";

/// tpm2-tools qualify certifications by a constant.
const TOOLS_DATA: &[u8] = &[0x00, 0xff, 0x55, 0xaa];

#[test]
fn a_certified_key_is_believed_and_no_other() {
    let (platform, key, attestation, signature) = certified(HELD);
    let attestation_key = platform.attestation_key();
    let certified_key = verify_certification(&attestation_key, &key, &attestation, &signature, TOOLS_DATA).unwrap();
    assert_eq!(certified_key.name, key.name());
    assert!(certified_key.clock.clock_ms > 0);
    let code = |attestation_key: &Public, key: &Public, attestation: &[u8], data: &[u8]| {
        verify_certification(attestation_key, key, attestation, &signature, data).unwrap_err().code()
    };
    assert_eq!(code(&attestation_key, &key, &attestation, &[1]), "qualifying_data_differs");
    assert_eq!(code(&attestation_key, &attestation_key, &attestation, TOOLS_DATA), "certified_key_other");
    assert_eq!(code(&key, &key, &attestation, TOOLS_DATA), "attestation_key_attributes");
    let mut changed = attestation.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(code(&attestation_key, &key, &changed, TOOLS_DATA), "signature_invalid");
    let other = Platform::new("ecc", "ecdsa").attestation_key();
    assert_eq!(code(&other, &key, &attestation, TOOLS_DATA), "signature_invalid");
    let quote = platform.quote("sha256:0", TOOLS_DATA);
    let refused = verify_certification(&attestation_key, &key, &quote.quote, &quote.signature, TOOLS_DATA).unwrap_err();
    assert_eq!(refused.code(), "attestation_not_a_certification");
}

#[test]
fn a_key_that_may_leave_its_tpm_is_not_believed() {
    let (platform, key, attestation, signature) = certified("sensitivedataorigin|userwithauth|sign");
    let attestation_key = platform.attestation_key();
    let refused = verify_certification(&attestation_key, &key, &attestation, &signature, TOOLS_DATA).unwrap_err();
    assert_eq!(refused.code(), "certified_key_attributes");
    assert!(refused.to_string().contains("may leave its TPM"), "{refused}");
}

#[test]
fn names_and_keys_are_those_of_the_tools() {
    for (kind, scheme) in [("ecc", "ecdsa"), ("rsa", "rsassa")] {
        let platform = Platform::new(kind, scheme);
        let tpm = &platform.tpm;
        assert_eq!(platform.attestation_key().name().as_bytes(), tpm.read("ak.name"));
        let endorsement_key = Public::parse_sized(&tpm.read("ek.pub")).unwrap();
        assert!(endorsement_key.attributes.restricted() && endorsement_key.attributes.decrypt());
        assert!(endorsement_key.symmetric.is_some_and(|cipher| cipher.key_bits == 128));
        assert_eq!(endorsement_key.policy.len(), 32);
        tpm.tool(&["tpm2_readpublic", "-c", "ek.ctx", "-f", "der", "-o", "ek.der"]).unwrap();
        assert_eq!(endorsement_key.key.spki_der(), tpm.read("ek.der"));
        assert_eq!(matches!(endorsement_key.key, PublicKey::Rsa(_)), kind == "rsa");
    }
}
