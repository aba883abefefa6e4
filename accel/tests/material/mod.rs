//! Keys, signatures and arenas for the tests.

#![allow(dead_code, reason = "each test binary uses a part")]

pub(crate) mod zip215;

use p256::{
    ecdsa::{self, signature::Signer as _},
    elliptic_curve::sec1::ToEncodedPoint,
};
use stele_accel::{Bytes, Engine, EngineConfig, Span, Suite, Verdict, VerifyItem, VerifyJob};

/// One signed message with its key, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Material {
    pub(crate) suite: Suite,
    pub(crate) public_key: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) message: Vec<u8>,
}

impl Material {
    /// A valid signature by a key that depends on `key` alone.
    pub(crate) fn valid(suite: Suite, key: u8, message: &[u8]) -> Self {
        let mut seed = [0x11; 32];
        seed[31] = key.max(1);
        let (public_key, signature) = match suite {
            Suite::Ed25519 => {
                let key = ed25519_consensus::SigningKey::from(seed);
                (key.verification_key().to_bytes().to_vec(), key.sign(message).to_bytes().to_vec())
            }
            Suite::P256 => {
                let key = ecdsa::SigningKey::from_slice(&seed).expect("key");
                let signature: ecdsa::Signature = key.sign(message);
                let compress = seed[31] % 2 == 0;
                let point = key.verifying_key().as_affine().to_encoded_point(compress);
                (point.as_bytes().to_vec(), signature.to_bytes().to_vec())
            }
            Suite::Sm2 => {
                let key = sm2::SecretKey::from_slice(&seed).expect("key");
                let signer = sm2::dsa::SigningKey::new("1234567812345678", &key).expect("key");
                let signature: sm2::dsa::Signature = sm2::dsa::signature::Signer::sign(&signer, message);
                let compress = seed[31] % 2 == 0;
                let point = key.public_key().to_encoded_point(compress);
                (point.as_bytes().to_vec(), signature.to_vec())
            }
        };
        Self { suite, public_key, signature, message: message.to_vec() }
    }

    /// The same, spoilt in one of several ways.
    pub(crate) fn spoilt(mut self, way: usize) -> Self {
        match way % 8 {
            0 => self.signature[3] ^= 1,
            1 => self.signature[40] ^= 1,
            2 => self.message.push(0),
            3 => self.public_key[5] ^= 1,
            4 => self.signature.truncate(63),
            5 => self.signature[32..].fill(0xff),
            6 => self.public_key.clear(),
            _ => self.signature.push(0),
        }
        self
    }

    pub(crate) fn verify_one(&self) -> Verdict {
        stele_accel::verify_one(self.suite, &self.public_key, &self.signature, &self.message)
    }
}

/// Lays items into one arena.
pub(crate) fn verify_job(items: &[Material]) -> VerifyJob {
    let mut arena = Vec::new();
    let items = items
        .iter()
        .map(|item| {
            let mut put = |bytes: &[u8]| Span::append(&mut arena, bytes).expect("small");
            VerifyItem {
                suite: item.suite,
                public_key: put(&item.public_key),
                signature: put(&item.signature),
                message: put(&item.message),
            }
        })
        .collect();
    VerifyJob { bytes: Bytes::from(arena), items }
}

pub(crate) fn engine(threads: usize) -> Engine {
    Engine::new(&EngineConfig { threads, ..EngineConfig::default() }).expect("engine")
}

pub(crate) fn verify(engine: &Engine, items: &[Material]) -> Vec<Verdict> {
    engine.submit(verify_job(items)).expect("queued").wait().expect("verdicts")
}

/// One change, or none in three of eight.
pub(crate) fn mutate(item: &mut Material, random: u64, others: &[Material]) {
    let [kind, bit, place, pick, ..] = random.to_le_bytes().map(usize::from);
    let other = &others[pick % others.len()];
    match kind % 8 {
        0 => {
            let place = place % item.signature.len();
            item.signature[place] ^= 1 << (bit % 8);
        }
        1 => {
            // Not the leading byte: other forms of a point are refused here and known to the crates.
            let place = 1 + place % (item.public_key.len() - 1);
            item.public_key[place] ^= 1 << (bit % 8);
        }
        2 => item.message.push(0),
        3 => item.public_key.clone_from(&other.public_key),
        4 => item.signature[32..].copy_from_slice(&other.signature[32..]),
        _ => {}
    }
}
