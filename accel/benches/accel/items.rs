//! Signed items and jobs over them.

use std::error::Error;

use p256::ecdsa::{self, signature::Signer as _};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use stele_accel::{Engine, Span, Suite, VerifyItem, VerifyJob};

/// Length of a signed message: a command's `Sig_structure`.
const MESSAGE_LENGTH: usize = 300;

/// The identity of SM2's signers.
pub(crate) const IDENTITY: &str = "1234567812345678";

/// A signed item, as bytes.
pub(crate) struct Item {
    pub(crate) suite: Suite,
    pub(crate) public_key: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) message: Vec<u8>,
}

/// Valid items by `keys` keys in turn.
pub(crate) fn signed(suite: Suite, count: usize, keys: usize) -> Result<Vec<Item>, Box<dyn Error>> {
    (0..count).map(|index| sign(suite, index, index % keys)).collect()
}

fn sign(suite: Suite, index: usize, key: usize) -> Result<Item, Box<dyn Error>> {
    let mut message = vec![0x42; MESSAGE_LENGTH];
    message[..8].copy_from_slice(&(index as u64).to_be_bytes());
    let mut seed = [0x11; 32];
    seed[24..].copy_from_slice(&(key as u64).to_be_bytes());
    let (public_key, signature) = match suite {
        Suite::Ed25519 => {
            let key = ed25519_consensus::SigningKey::from(seed);
            (key.verification_key().to_bytes().to_vec(), key.sign(&message).to_bytes().to_vec())
        }
        Suite::P256 => {
            let key = ecdsa::SigningKey::from_slice(&seed).map_err(|error| error.to_string())?;
            let signature: ecdsa::Signature = key.sign(&message);
            let point = key.verifying_key().as_affine().to_encoded_point(true);
            (point.as_bytes().to_vec(), signature.to_bytes().to_vec())
        }
        Suite::Sm2 => {
            let key = sm2::SecretKey::from_slice(&seed).map_err(|error| error.to_string())?;
            let signer = sm2::dsa::SigningKey::new(IDENTITY, &key).map_err(|error| error.to_string())?;
            let signature: sm2::dsa::Signature = signer.sign(&message);
            (key.public_key().to_encoded_point(true).as_bytes().to_vec(), signature.to_vec())
        }
    };
    Ok(Item { suite, public_key, signature, message })
}

/// All items in one job.
pub(crate) fn verify_job(items: &[Item]) -> VerifyJob {
    let mut arena = Vec::new();
    let mut put = |bytes: &[u8]| Span::append(&mut arena, bytes).unwrap_or_default();
    let items = items
        .iter()
        .map(|item| VerifyItem {
            suite: item.suite,
            public_key: put(&item.public_key),
            signature: put(&item.signature),
            message: put(&item.message),
        })
        .collect();
    VerifyJob { bytes: arena.into(), items }
}

/// Runs a job of valid items.
pub(crate) fn run(engine: &Engine, job: &VerifyJob) {
    let verdicts = engine.submit(job.clone()).map(stele_accel::Ticket::wait);
    assert!(matches!(verdicts, Ok(Ok(verdicts)) if verdicts.len() == job.items.len()));
}
