//! The cold tier of a node: whole segments of its store go to S3, and come back record by record.
//!
//! ```text
//!  body of a class `cold` ──► its segment is full, or `seal_ms` old ──► copied, read back, held ──► whoever waits is told
//!  every other segment    ──► `age_hours` old, or room is scarce    ──┘        └── room is scarce: its slots are given up
//! ```
//!
//! The store opens without the tier: what the drives hold is given and taken while it cannot be reached, and what it alone
//! holds is refused with the time to ask again. A store that was made in the place of a lost one
//! (`steled storage format --from-cold`) takes back what the tier has of that, and is marked until it has all.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use stele_cold::{ColdDriver, ColdError, ColdOptions, ColdPolicy, ColdTier};
use stele_storage::{ColdReader, Group, ScrubReport, StorageError};
use stele_types::Hash;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Payload, PayloadError};
use crate::config::ColdSection;
use crate::metrics::Metrics;
use crate::store::durable;

/// How often is looked for segments that are to go.
const INTERVAL: Duration = Duration::from_secs(5);

/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How often what attempts left is looked for: it takes a listing of all objects.
const SWEEP_INTERVAL: Duration = Duration::from_secs(24 * 3_600);

/// Beside the store while it has not taken back all that the tier has of the one before it.
pub(super) const TAKE_BACK: &str = "from-cold";

/// Segments that one step copies, or drops, at most.
const SEGMENTS_MAX: usize = 8;

/// The cold tier of a payload store.
pub struct Cold {
    payload: Arc<Payload>,
    options: ColdOptions,
    policy: ColdPolicy,
    seal_after: Duration,
    metrics: Arc<Metrics>,
    /// As soon as the endpoint has answered, and was found to be safe.
    driver: OnceLock<ColdDriver>,
    /// Groups that a body waits in for its segment to go, and since when.
    waiting: Mutex<BTreeMap<Group, Instant>>,
    moved: Notify,
}

impl Cold {
    /// Of `payload`, as the section says; segments of `at_once` go as soon as nothing is added to them.
    ///
    /// # Errors
    /// `Cold`: the section, or the file of the credentials.
    pub fn new(
        payload: Arc<Payload>,
        section: &ColdSection,
        at_once: Vec<u8>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, PayloadError> {
        let options = section.options(payload.store().hash())?;
        let policy = ColdPolicy {
            age: Duration::from_secs(u64::from(section.age_hours) * 3_600),
            at_once,
            free_percent_min: section.free_percent_min,
            segments_max: SEGMENTS_MAX,
        };
        payload.store().attach_cold(Arc::new(Absent { reason: "it was not reached yet", retry_after: Some(INTERVAL) }));
        let seal_after = Duration::from_millis(section.seal_ms);
        let (driver, waiting, moved) = (OnceLock::new(), Mutex::default(), Notify::new());
        Ok(Arc::new(Self { payload, options, policy, seal_after, metrics, driver, waiting, moved }))
    }

    /// Has the segment of a body that was just put go soon, and waits until it is there, for `wait` at most; whether it is.
    pub async fn reached_within(&self, root: Hash, wait: Duration) -> bool {
        // Asking for what is there must not end the segment that others are written to.
        if self.holds(&root).await {
            return true;
        }
        if let Ok(group) = self.payload.store().group(&root.0).await {
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(group).or_insert_with(Instant::now);
        }
        let deadline = Instant::now() + wait;
        loop {
            // Before it is looked: what moves meanwhile is not missed.
            let moved = self.moved.notified();
            if self.holds(&root).await {
                return true;
            }
            if tokio::time::timeout_at(deadline, moved).await.is_err() {
                return false;
            }
        }
    }

    /// Whether the tier holds a body.
    pub async fn holds(&self, root: &Hash) -> bool {
        self.payload.store().is_cold(&root.0).await.unwrap_or(false)
    }

    /// Reads one segment from `from` on, and mends what is damaged; from the tier, if parity is not enough for it.
    ///
    /// # Errors
    /// `Stopped`.
    pub async fn scrub(&self, from: u32, now_ms: u64) -> Result<ScrubReport, StorageError> {
        if let Some(driver) = self.driver.get() {
            match driver.scrub(from, now_ms).await {
                Ok(report) => return Ok(report),
                Err(error) => warn!(code = error.code(), %error, from, "the cold tier brings nothing back"),
            }
        }
        self.payload.store().scrub_some(from, 1, now_ms).await
    }

    /// Roots of the bodies in a segment that the tier alone has. All of it is read.
    ///
    /// # Errors
    /// `Cold`.
    pub(super) async fn objects(&self, segment: u32) -> Result<Vec<Hash>, PayloadError> {
        let driver = self.driver.get().ok_or_else(|| self.unreachable())?;
        Ok(driver.objects(segment).await?.into_iter().map(Hash).collect())
    }

    /// Takes back objects that the tier has of this store, and the store does not know; how many.
    ///
    /// # Errors
    /// `Cold`.
    pub async fn reconcile(&self) -> Result<u64, PayloadError> {
        let driver = self.driver.get().ok_or_else(|| self.unreachable())?;
        let adopted = driver.reconcile().await?;
        driver.recall().await?;
        Ok(adopted)
    }

    fn unreachable(&self) -> PayloadError {
        let reason = format!("{} was not reached since the node started", self.options.endpoint);
        PayloadError::Cold(Box::new(ColdError::Unavailable { reason, retry_after: INTERVAL }))
    }

    /// Carries segments until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = self.carry() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn carry(&self) {
        let driver = self.open().await;
        while let Err(error) = self.take_back(driver).await {
            self.metrics.storage.cold_failed();
            error!(code = error.code(), %error, "what the cold tier has is not all taken back yet");
            tokio::time::sleep(INTERVAL).await;
        }
        let mut swept: Option<Instant> = None;
        let mut pause = INTERVAL;
        loop {
            if swept.is_none_or(|swept| swept.elapsed() > SWEEP_INTERVAL) {
                match driver.sweep().await {
                    Ok(leftovers) => info!(leftovers, "the cold tier was swept"),
                    Err(error) => warn!(code = error.code(), %error, "the cold tier cannot be swept"),
                }
                swept = Some(Instant::now());
            }
            pause = match self.step(driver).await {
                Ok(busy) => {
                    self.metrics.storage.cold_caught_up(now());
                    if busy { Duration::ZERO } else { INTERVAL.min(self.seal_after.max(Duration::from_millis(100))) }
                }
                Err(error) => {
                    self.metrics.storage.cold_failed();
                    warn!(code = error.code(), %error, "segments cannot go to the cold tier");
                    (2 * pause.max(Duration::from_secs(1))).min(PAUSE_MAX).max(error.retry_after().unwrap_or_default())
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks the endpoint until it answers and is safe.
    async fn open(&self) -> &ColdDriver {
        let mut pause = Duration::from_secs(1);
        loop {
            match ColdTier::open(self.options.clone()).await {
                Ok(tier) => {
                    let driver = ColdDriver::new(Arc::clone(self.payload.store()), tier, self.policy.clone());
                    info!(endpoint = self.options.endpoint, "the cold tier is open");
                    return self.driver.get_or_init(|| driver);
                }
                Err(error) => {
                    self.metrics.storage.cold_failed();
                    error!(code = error.code(), %error, "the cold tier cannot be used; the drives alone are");
                    pause = (2 * pause).min(PAUSE_MAX);
                    tokio::time::sleep(error.retry_after().unwrap_or(pause).max(pause)).await;
                }
            }
        }
    }

    /// For a store that was made in the place of one that is lost, until all was taken back.
    async fn take_back(&self, driver: &ColdDriver) -> Result<(), PayloadError> {
        let mark = self.payload.directory.join(TAKE_BACK);
        if !mark.exists() {
            return Ok(());
        }
        let objects = driver.reconcile().await?;
        let read = driver.recall().await?;
        durable::remove_if_present(&mark).map_err(|error| PayloadError::drive(&mark, error))?;
        info!(objects, read, "the store has taken back what the cold tier has of the one before it");
        Ok(())
    }

    /// Does what is to be done now; whether there may be more.
    async fn step(&self, driver: &ColdDriver) -> Result<bool, ColdError> {
        let due: Vec<Group> = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |_, since| since.elapsed() >= self.seal_after).map(|(group, _)| group).collect()
        };
        for group in due {
            driver.seal(group).await?;
        }
        let report = driver.step(self.payload.now_ms()).await?;
        self.metrics.storage.cold_moved(&report);
        if report.copied > 0 {
            info!(segments = report.copied, bytes = report.copied_bytes, "segments went to the cold tier");
            self.moved.notify_waiters();
        }
        if report.dropped > 0 {
            info!(segments = report.dropped, "room was freed: these segments are in the cold tier alone");
        }
        Ok(report.copied.max(report.dropped) >= SEGMENTS_MAX as u64)
    }
}

/// Stands for a tier that is not there.
pub(super) struct Absent {
    pub(super) reason: &'static str,
    pub(super) retry_after: Option<Duration>,
}

impl ColdReader for Absent {
    fn read<'r>(
        &'r self,
        _name: &'r str,
        _root: [u8; 32],
        _range: Range<u64>,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, StorageError>> + Send + 'r>> {
        let error = StorageError::Cold { reason: self.reason.to_owned(), retry_after: self.retry_after };
        Box::pin(std::future::ready(Err(error)))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
