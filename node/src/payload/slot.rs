//! The store of bodies opens beside the node: a drive that is away, or an index that takes hours to make again, holds up no
//! vote and no receipt.

use std::sync::{Arc, Mutex, PoisonError};

use stele_hsm::Signer;
use stele_hsm::custody::SoftwareCustodian;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::cold::Absent;
use super::{Cold, Custody, CustodyError, Ledger, Payload, PayloadError, Upkeep};
use crate::chain::Chain;
use crate::config::{Config, CustodySection};
use crate::metrics::Metrics;

/// Where the payload store is, once it is open.
#[derive(Default)]
pub struct PayloadSlot(Mutex<Option<Opened>>);

/// An open store, and what goes with it.
struct Opened {
    payload: Arc<Payload>,
    upkeep: Arc<Upkeep>,
    custody: Option<Arc<Custody>>,
    cold: Option<Arc<Cold>>,
}

impl PayloadSlot {
    /// The store.
    pub fn payload(&self) -> Option<Arc<Payload>> {
        self.open().as_ref().map(|opened| Arc::clone(&opened.payload))
    }

    /// What keeps it in order.
    pub fn upkeep(&self) -> Option<Arc<Upkeep>> {
        self.open().as_ref().map(|opened| Arc::clone(&opened.upkeep))
    }

    /// Copies on other nodes, and for them.
    pub fn custody(&self) -> Option<Arc<Custody>> {
        self.open().as_ref()?.custody.clone()
    }

    /// The cold tier.
    pub fn cold(&self) -> Option<Arc<Cold>> {
        self.open().as_ref()?.cold.clone()
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Option<Opened>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store that the configuration describes, keeps it in order until `stop`, and closes it.
    pub async fn run(
        self: Arc<Self>,
        config: Config,
        chain: Arc<Chain>,
        signer: Arc<dyn Signer>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        metrics.storage.available(false);
        let opened = tokio::select! {
            opened = open(&config, &chain, signer, &metrics) => opened,
            () = stop.cancelled() => return,
        };
        let opened = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => {
                error!(code = error.code(), %error, "bodies of records cannot be kept or given; the node goes on without");
                return;
            }
        };
        let Opened { upkeep, custody, cold, .. } = &opened;
        let (upkeep, custody, cold) = (Arc::clone(upkeep), custody.clone(), cold.clone());
        *self.open() = Some(opened);
        metrics.storage.available(true);
        info!("bodies of records are kept");
        let copies = async {
            if let Some(custody) = custody {
                custody.run(stop.clone()).await;
            }
        };
        let segments = async {
            if let Some(cold) = cold {
                cold.run(stop.clone()).await;
            }
        };
        tokio::join!(upkeep.run(stop.clone()), copies, segments);
        let Some(Opened { payload, .. }) = self.open().take() else { return };
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
    signer: Arc<dyn Signer>,
    metrics: &Arc<Metrics>,
) -> Result<Option<Opened>, CustodyError> {
    let Some(section) = &config.payload else { return Ok(None) };
    let custodian = Arc::new(SoftwareCustodian::open(&section.custody_key)?);
    let ledger = Ledger::of(chain).map_err(|error| PayloadError::journal(&error.to_string()))?;
    let payload = Arc::new(Payload::open(section, &config.node.data_dir, ledger, custodian).await?);
    let custody = section
        .custody
        .as_ref()
        .map(|section| Custody::new(Arc::clone(&payload), Arc::clone(chain), signer, section, Arc::clone(metrics)));
    let custody = custody.transpose()?;
    let at_once = section.custody.as_ref().map(CustodySection::classes_at_once).unwrap_or_default();
    let cold = section.cold.as_ref();
    let cold =
        cold.map(|section| Cold::new(Arc::clone(&payload), section, at_once, Arc::clone(metrics))).transpose()?;
    if cold.is_none() {
        payload.store().attach_cold(Arc::new(Absent { reason: "none is configured", retry_after: None }));
    }
    let upkeep = Upkeep::new(Arc::clone(&payload), Arc::clone(chain), Arc::clone(metrics), section);
    let upkeep = upkeep.with(custody.clone(), cold.clone());
    Ok(Some(Opened { payload, upkeep, custody, cold }))
}
