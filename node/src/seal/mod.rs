//! Seal: the checkpoint key signs tree heads.
//!
//! What is signed is the newest head whose results a committed header certifies, at most ten times a second, so a TPM that
//! signs five times a second keeps up: one signature serves every receipt of its head. A head that is executed but not
//! certified yet is left alone: no bundle could be built on it, and after the last block of a burst it would stay the
//! only one signed until the next heartbeat.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stele_hsm::{CheckpointRequest, Signer};
use stele_types::{Checkpoint, KeyId, Suite};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::admission::unix_ms;
use crate::chain::{Chain, SignedCheckpoint, Tip};
use crate::metrics::Metrics;
use crate::metrics::label::{Provider, SealKey};
use crate::receipt_clock::ReceiptClock;

/// Least time between two signatures: ten a second.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Pause after a failed signature.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Signs until `stop`.
pub async fn run(
    chain: Arc<Chain>,
    signer: Arc<dyn Signer>,
    metrics: Arc<Metrics>,
    clock: Arc<ReceiptClock>,
    stop: CancellationToken,
) {
    let Ok(public_key) = <[u8; 33]>::try_from(&signer.public_key().sec1_compressed[..]) else {
        error!("the checkpoint key is not a P-256 key: nothing is sealed");
        return;
    };
    let provider = Provider::from(signer.kind());
    let mut heads = chain.watch();
    let mut sealed = chain.checkpoint().map(|seal| seal.checkpoint.height);
    loop {
        let certified = heads.borrow_and_update().certified.clone();
        let Some(tip) = certified.filter(|tip| sealed.is_none_or(|height| height < tip.height)) else {
            tokio::select! {
                changed = heads.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
            continue;
        };
        let started = Instant::now();
        match sign(&chain, &*signer, public_key, &tip).await {
            Ok(seal) => {
                metrics.seal.signature(provider, SealKey::Checkpoint, true, started.elapsed());
                sealed = Some(tip.height);
                if let Err(error) = chain.add_checkpoint(seal) {
                    warn!(code = error.code(), %error, "the newest checkpoint is not kept across a restart");
                }
                metrics.log.checkpoint(tip.height.0, tip.log_size, unix_ms() / 1000);
                clock.sealed(tip.height);
            }
            Err(error) => {
                metrics.seal.signature(provider, SealKey::Checkpoint, false, started.elapsed());
                error!(code = error.code(), %error, "a checkpoint was not signed");
                tokio::select! {
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL_MIN.saturating_sub(started.elapsed())) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn sign(
    chain: &Chain,
    signer: &dyn Signer,
    public_key: [u8; 33],
    tip: &Tip,
) -> Result<SignedCheckpoint, stele_hsm::SignerError> {
    let checkpoint = Checkpoint {
        suite: Suite::Es256,
        key: KeyId::of(Suite::Es256, &public_key),
        network: chain.network(),
        height: tip.height,
        log_size: tip.log_size,
        state_root: tip.state_root,
        time_ms: tip.time_ms,
    };
    let bytes = checkpoint.signing_bytes(&tip.log_root);
    let request = CheckpointRequest { tree_size: tip.log_size, root: tip.log_root.0, sig_structure: &bytes };
    let signature = signer.sign_checkpoint(&request).await?;
    Ok(SignedCheckpoint { checkpoint, log_root: tip.log_root, signature, public_key })
}
