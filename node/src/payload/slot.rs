//! The store of bodies opens beside the node: a drive that is away, or an index that takes hours to make again, holds up no
//! vote and no receipt.
//!
//! It opens in two steps. The first needs no more than the blocks, so that a chain which has to be executed again can read
//! those of its blocks that are archived. The second needs the chain.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stele_hsm::Signer;
use stele_hsm::custody::Custodian;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::blocks::Archiver;
use super::cold::Absent;
use super::{BlockArchive, Cold, Custody, CustodyError, Ledger, Payload, PayloadError, Upkeep};
use crate::chain::Chain;
use crate::config::{Config, CustodySection, PayloadSection};
use crate::keys::NodeKeys;
use crate::metrics::Metrics;

/// Pause before a custody key that does not open is tried again; its signer gives the same answer for a second.
const CUSTODY_WAIT: Duration = Duration::from_secs(2);

/// Where the payload store is, once it is open.
pub struct PayloadSlot {
    opened: Mutex<Option<Opened>>,
    archive: Arc<BlockArchive>,
    /// The first step.
    opening: Mutex<Option<JoinHandle<Result<Stored, PayloadError>>>>,
}

/// A store after the first step.
struct Stored {
    payload: Arc<Payload>,
    cold: Option<Arc<Cold>>,
    /// What carries segments to the cold tier and opens it.
    carrying: Option<JoinHandle<()>>,
}

/// An open store, and what goes with it.
struct Opened {
    payload: Arc<Payload>,
    upkeep: Arc<Upkeep>,
    custody: Option<Arc<Custody>>,
    cold: Option<Arc<Cold>>,
}

impl PayloadSlot {
    /// Begins to open the store that the configuration describes; it serves the blocks that are archived in it until
    /// `stop`.
    pub fn begin(config: &Config, ledger: Ledger, metrics: &Arc<Metrics>, stop: &CancellationToken) -> Arc<Self> {
        metrics.storage.available(false);
        let archive = BlockArchive::new(Handle::current());
        let (config, metrics, stop) = (config.clone(), Arc::clone(metrics), stop.clone());
        let opening = {
            let archive = Arc::clone(&archive);
            tokio::spawn(async move {
                let stored = store(&config, ledger, &metrics, &stop).await;
                match &stored {
                    Ok(stored) => {
                        archive.opened(&stored.payload.store, &stored.payload.keys, &stored.payload.directory);
                    }
                    Err(error) => archive.failed(error.to_string()),
                }
                stored
            })
        };
        let opening = Mutex::new(Some(opening));
        Arc::new(Self { opened: Mutex::default(), archive, opening })
    }

    /// The old blocks that are archived in it.
    pub fn archive(&self) -> &Arc<BlockArchive> {
        &self.archive
    }

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
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the opening, keeps the store in order until `stop`, and closes it.
    pub async fn run(
        self: Arc<Self>,
        config: Config,
        chain: Arc<Chain>,
        signer: Arc<dyn Signer>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(opening) = opening else { return };
        let stored = tokio::select! {
            stored = opening => stored,
            () = stop.cancelled() => return,
        };
        let stored = match stored {
            Ok(stored) => stored,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let Stored { payload, cold, carrying } = match stored {
            Ok(stored) => stored,
            Err(error) => {
                error!(code = error.code(), %error, "bodies of records cannot be kept or given; the node goes on without");
                return;
            }
        };
        let carried = async {
            if let Some(Err(panicked)) = futures::future::OptionFuture::from(carrying).await {
                error!(failure = %panicked, "what carries segments to the cold tier panicked");
            }
        };
        match complete(&payload, cold, &config, &chain, signer, &metrics) {
            Ok(opened) => {
                drop(payload);
                self.serve(opened, carried, &config, chain, metrics, stop).await;
            }
            Err(error) => {
                error!(code = error.code(), %error, "bodies of records cannot be kept or given; old blocks are");
                stop.cancelled().await;
                carried.await;
                close(payload).await;
            }
        }
    }

    /// Keeps an open store in order until `stop`, and closes it.
    async fn serve(
        &self,
        opened: Opened,
        carried: impl Future<Output = ()>,
        config: &Config,
        chain: Arc<Chain>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) {
        let (upkeep, custody) = (Arc::clone(&opened.upkeep), opened.custody.clone());
        let section = config.payload.as_ref();
        let archiver = section.and_then(|section| Some((section, section.archive_blocks_after_ms?)));
        let archiver = archiver.map(|(section, after)| Archiver {
            payload: Arc::clone(&opened.payload),
            chain: Arc::clone(&chain),
            metrics: Arc::clone(&metrics),
            after: Duration::from_millis(after),
            segment_bytes: section.slot_bytes * section.data_columns as u64,
        });
        *self.open() = Some(opened);
        metrics.storage.available(true);
        info!("bodies of records are kept");
        let copies = async {
            if let Some(custody) = custody {
                custody.run(stop.clone()).await;
            }
        };
        let old_blocks = async {
            if let Some(archiver) = archiver {
                archiver.run(stop.clone()).await;
            }
        };
        tokio::join!(upkeep.run(stop.clone()), copies, old_blocks, carried);
        let Some(Opened { payload, .. }) = self.open().take() else { return };
        close(payload).await;
    }
}

async fn close(payload: Arc<Payload>) {
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

/// The first step.
async fn store(
    config: &Config,
    ledger: Ledger,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<Stored, PayloadError> {
    let section = config.payload.as_ref().ok_or_else(|| PayloadError::blocks("the configuration has no [payload]"))?;
    // On a connection of its own: votes do not wait behind bodies.
    let custodian = NodeKeys::new(config).custodian(section).await?;
    let payload = Arc::new(open(section, &config.node.data_dir, ledger, custodian, stop).await?);
    let at_once = section.custody.as_ref().map(CustodySection::classes_at_once).unwrap_or_default();
    let cold = section.cold.as_ref();
    let cold =
        cold.map(|section| Cold::new(Arc::clone(&payload), section, at_once, Arc::clone(metrics))).transpose()?;
    if cold.is_none() {
        payload.store().attach_cold(Arc::new(Absent { reason: "none is configured", retry_after: None }));
    }
    let carrying = cold.as_ref().map(|cold| tokio::spawn(Arc::clone(cold).run(stop.clone())));
    Ok(Stored { payload, cold, carrying })
}

/// Opens the store. A custody key that is away, or that opens in no state of this machine that was approved, is waited for:
/// whoever puts the approval there has nothing to restart.
async fn open(
    section: &PayloadSection,
    data_dir: &Path,
    ledger: Ledger,
    custodian: Arc<dyn Custodian>,
    stop: &CancellationToken,
) -> Result<Payload, PayloadError> {
    let mut told = false;
    loop {
        match Payload::open(section, data_dir, ledger, Arc::clone(&custodian)).await {
            Err(PayloadError::Custody(error)) if error.is_retryable() || error.is_unapproved() => {
                if !told {
                    warn!(code = error.code(), %error, "bodies wait for the custody key");
                    told = true;
                }
                tokio::select! {
                    () = tokio::time::sleep(CUSTODY_WAIT) => {}
                    () = stop.cancelled() => return Err(error.into()),
                }
            }
            opened => return opened,
        }
    }
}

/// The second step.
fn complete(
    payload: &Arc<Payload>,
    cold: Option<Arc<Cold>>,
    config: &Config,
    chain: &Arc<Chain>,
    signer: Arc<dyn Signer>,
    metrics: &Arc<Metrics>,
) -> Result<Opened, CustodyError> {
    let section = config.payload.as_ref().ok_or_else(|| PayloadError::blocks("the configuration has no [payload]"))?;
    let custody = section
        .custody
        .as_ref()
        .map(|section| Custody::new(Arc::clone(payload), Arc::clone(chain), signer, section, Arc::clone(metrics)));
    let custody = custody.transpose()?;
    let upkeep = Upkeep::new(Arc::clone(payload), Arc::clone(chain), Arc::clone(metrics), section);
    let upkeep = upkeep.with(custody.clone(), cold.clone());
    Ok(Opened { payload: Arc::clone(payload), upkeep, custody, cold })
}
