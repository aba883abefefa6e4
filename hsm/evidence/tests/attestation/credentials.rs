//! Credentials made without a TPM and activated by one.

use stele_evidence::{Credential, ENTROPY_LENGTH, Public};

use crate::{platform::Platform, swtpm::Swtpm};

fn activate(platform: &Platform, credential: &[u8]) -> Result<Vec<u8>, String> {
    platform.tpm.write("credential", credential);
    let words = ["tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "credential", "-o", "secret"];
    platform.endorse(&words).map(|_| platform.tpm.read("secret"))
}

#[test]
fn the_tpm_that_holds_both_keys_gives_the_secret_back_and_no_other_does() {
    for (kind, scheme) in [("ecc", "ecdsa"), ("rsa", "rsassa")] {
        let platform = Platform::new(kind, scheme);
        let endorsement_key = Public::parse_sized(&platform.tpm.read("ek.pub")).unwrap();
        let name = platform.attestation_key().name();
        for (round, length) in [(1, 1), (2, 16), (3, 32)] {
            let (secret, entropy) = (vec![0x5a; length], [round; ENTROPY_LENGTH]);
            let credential = Credential::make(&endorsement_key, &name, &secret, &entropy).unwrap();
            assert_eq!(activate(&platform, &credential.to_tools()), Ok(secret));
        }
        let good = Credential::make(&endorsement_key, &name, &[1; 32], &[9; ENTROPY_LENGTH]).unwrap();
        // Another object's name: that key is not in this TPM.
        let other =
            Credential::make(&endorsement_key, &endorsement_key.name(), &[1; 32], &[9; ENTROPY_LENGTH]).unwrap();
        activate(&platform, &other.to_tools()).unwrap_err();
        // Another TPM.
        let stranger = Platform::new(kind, scheme);
        activate(&stranger, &good.to_tools()).unwrap_err();
        // Integrity value, secret and seed.
        let whole = good.to_tools();
        for at in [12, 8 + good.id_object.len() - 1, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            activate(&platform, &changed).unwrap_err();
        }
        assert_eq!(activate(&platform, &whole), Ok(vec![1; 32]));
    }
}

/// The emulator's setup makes it and leaves it at the handle of the TCG's Provisioning Guidance.
#[test]
fn the_p384_key_that_a_maker_left_opens_its_credentials() {
    const LEFT_AT: &str = "0x81010016";
    const ATTESTS: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
    let (tpm, _) = Swtpm::start_certified();
    tpm.tool(&["tpm2_readpublic", "-c", LEFT_AT, "-o", "ek.pub", "-f", "tss"]).unwrap();
    tpm.tool(&["tpm2_readpublic", "-c", LEFT_AT, "-o", "ek.der", "-f", "der"]).unwrap();
    let words = ["tpm2_createprimary", "-C", "e", "-G", "ecc256:ecdsa-sha256:null", "-a", ATTESTS, "-c", "ak.ctx"];
    tpm.tool(&words).unwrap();
    tpm.tool(&["tpm2_readpublic", "-c", "ak.ctx", "-o", "ak.pub", "-f", "tss"]).unwrap();
    tpm.flush();
    let endorsement_key = Public::parse_sized(&tpm.read("ek.pub")).unwrap();
    assert_eq!(endorsement_key.key.spki_der(), tpm.read("ek.der"));
    assert!(endorsement_key.symmetric.is_some_and(|cipher| cipher.key_bits == 256));
    let name = Public::parse_sized(&tpm.read("ak.pub")).unwrap().name();
    let activate = |credential: &Credential| {
        tpm.write("credential", &credential.to_tools());
        let words = ["tpm2_activatecredential", "-c", "ak.ctx", "-C", LEFT_AT, "-i", "credential", "-o", "secret"];
        let opened = tpm.tool(&words).map(|_| tpm.read("secret"));
        tpm.flush();
        opened
    };
    for (round, length) in [(1, 1), (2, 32), (3, 48)] {
        let (secret, entropy) = (vec![0x5a; length], [round; ENTROPY_LENGTH]);
        let credential = Credential::make(&endorsement_key, &name, &secret, &entropy).unwrap();
        assert_eq!(activate(&credential), Ok(secret));
    }
    let good = Credential::make(&endorsement_key, &name, &[1; 48], &[9; ENTROPY_LENGTH]).unwrap();
    for at in [4, 60] {
        let mut changed = good.clone();
        changed.id_object[at] ^= 1;
        activate(&changed).unwrap_err();
    }
    let made = Credential::make(&endorsement_key, &name, &[1; 49], &[9; ENTROPY_LENGTH]);
    assert_eq!(made.unwrap_err().code(), "secret_length");
    let made = Credential::make(&endorsement_key, &name, &[1], &[0xff; ENTROPY_LENGTH]);
    assert_eq!(made.unwrap_err().code(), "entropy_unusable");
}

#[test]
fn secrets_that_do_not_fit_and_keys_that_endorse_nothing_are_refused() {
    let platform = Platform::new("ecc", "ecdsa");
    let endorsement_key = Public::parse_sized(&platform.tpm.read("ek.pub")).unwrap();
    let attestation_key = platform.attestation_key();
    let make = |key: &Public, secret: &[u8], entropy: u8| {
        let made = Credential::make(key, &attestation_key.name(), secret, &[entropy; ENTROPY_LENGTH]);
        made.map_err(|error| error.code())
    };
    assert_eq!(make(&endorsement_key, &[], 1), Err("secret_length"));
    assert_eq!(make(&endorsement_key, &[0; 33], 1), Err("secret_length"));
    assert_eq!(make(&attestation_key, &[1], 1), Err("evidence_algorithm_unsupported"));
    assert_eq!(make(&endorsement_key, &[1], 0), Err("entropy_unusable"));
    assert_eq!(make(&endorsement_key, &[1], 0xff), Err("entropy_unusable"));
}
