//! Valid signatures to measure with, under keys that are no secrets.

use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use stele_accel::{SM2_DEFAULT_IDENTITY, Span, Suite, VerifyItem, VerifyJob};

/// Bytes of a message: what a command's signature covers.
const MESSAGE_BYTES: usize = 300;

/// Valid signatures by so many keys in turn, made on all cores.
pub(super) fn signed(suite: Suite, count: usize, keys: usize) -> anyhow::Result<VerifyJob> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let signed = |index: usize| {
        let mut message = vec![0x42; MESSAGE_BYTES];
        message[..8].copy_from_slice(&(index as u64).to_be_bytes());
        let (public_key, signature) = sign(suite, (index % keys) as u64, &message)?;
        anyhow::Ok((public_key, signature, message))
    };
    let parts: Vec<anyhow::Result<Vec<_>>> = std::thread::scope(|scope| {
        let part = |core: usize| (core..count).step_by(cores).map(signed).collect();
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || part(core))).collect();
        let joined = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(joined).collect()
    });
    let mut arena = Vec::new();
    let mut items = Vec::with_capacity(count);
    for (public_key, signature, message) in parts.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten()
    {
        let mut put = |bytes: &[u8]| Span::append(&mut arena, bytes).unwrap_or_default();
        items.push(VerifyItem {
            suite,
            public_key: put(&public_key),
            signature: put(&signature),
            message: put(&message),
        });
    }
    Ok(VerifyJob { bytes: arena.into(), items })
}

fn sign(suite: Suite, key: u64, message: &[u8]) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let mut seed = [0x11; 32];
    seed[24..].copy_from_slice(&key.to_be_bytes());
    Ok(match suite {
        Suite::Ed25519 => {
            let key = ed25519_zebra::SigningKey::from(seed);
            let public_key: [u8; 32] = ed25519_zebra::VerificationKeyBytes::from(&key).into();
            (public_key.to_vec(), key.sign(message).to_bytes().to_vec())
        }
        Suite::P256 => {
            let key = p256::ecdsa::SigningKey::from_slice(&seed)?;
            let signature: p256::ecdsa::Signature = key.sign(message);
            let point = key.verifying_key().as_affine().to_encoded_point(true);
            (point.as_bytes().to_vec(), signature.to_bytes().to_vec())
        }
        Suite::Sm2 => {
            let key = sm2::SecretKey::from_slice(&seed).map_err(|error| anyhow::anyhow!("key: {error}"))?;
            let identity = std::str::from_utf8(SM2_DEFAULT_IDENTITY)?;
            let signer = sm2::dsa::SigningKey::new(identity, &key).map_err(|error| anyhow::anyhow!("key: {error}"))?;
            let signature: sm2::dsa::Signature = signer.sign(message);
            (key.public_key().to_encoded_point(true).as_bytes().to_vec(), signature.to_vec())
        }
    })
}
