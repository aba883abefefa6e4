//! The store of bodies opens beside the node: a drive that is away, or an index that takes hours to make again, holds up no
//! vote and no receipt.

use std::sync::{Arc, Mutex, PoisonError};

use stele_hsm::custody::SoftwareCustodian;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Ledger, Payload, PayloadError, Upkeep};
use crate::chain::Chain;
use crate::config::Config;
use crate::metrics::Metrics;

/// Where the payload store is, once it is open.
#[derive(Default)]
pub struct PayloadSlot(Mutex<Option<(Arc<Payload>, Arc<Upkeep>)>>);

impl PayloadSlot {
    /// The store.
    pub fn payload(&self) -> Option<Arc<Payload>> {
        self.open().as_ref().map(|(payload, _)| Arc::clone(payload))
    }

    /// What keeps it in order.
    pub fn upkeep(&self) -> Option<Arc<Upkeep>> {
        self.open().as_ref().map(|(_, upkeep)| Arc::clone(upkeep))
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Payload>, Arc<Upkeep>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store that the configuration describes, keeps it in order until `stop`, and closes it.
    pub async fn run(
        self: Arc<Self>,
        config: Config,
        chain: Arc<Chain>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        metrics.storage.available(false);
        let opened = tokio::select! {
            opened = open(&config, &chain, &metrics) => opened,
            () = stop.cancelled() => return,
        };
        let (payload, upkeep) = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => {
                error!(code = error.code(), %error, "bodies of records cannot be kept or given; the node goes on without");
                return;
            }
        };
        *self.open() = Some((payload, Arc::clone(&upkeep)));
        metrics.storage.available(true);
        info!("bodies of records are kept");
        upkeep.run(stop).await;
        let Some((payload, _)) = self.open().take() else { return };
        match Arc::into_inner(payload) {
            Some(payload) => {
                if let Err(error) = payload.close().await {
                    warn!(code = error.code(), %error, "the store was not closed; the next start replays its last segments");
                }
            }
            None => {
                warn!("a body is on its way still: the store was not closed; the next start replays its last segments");
            }
        }
    }
}

async fn open(
    config: &Config,
    chain: &Arc<Chain>,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Arc<Payload>, Arc<Upkeep>)>, PayloadError> {
    let Some(section) = &config.payload else { return Ok(None) };
    let custodian = Arc::new(SoftwareCustodian::open(&section.custody_key)?);
    let ledger = Ledger::of(chain).map_err(|error| PayloadError::journal(&error.to_string()))?;
    let payload = Arc::new(Payload::open(section, &config.node.data_dir, ledger, custodian).await?);
    let upkeep = Upkeep::new(Arc::clone(&payload), Arc::clone(chain), Arc::clone(metrics), section);
    Ok(Some((payload, upkeep)))
}
