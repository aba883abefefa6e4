//! What a payload store needs while it serves: bodies without a statement are removed, room is freed, everything is read
//! again in time; and what an operator asks for.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stele_storage::{ScrubReport, StorageError};
use stele_types::{Code, Command, Hash, Height, Statement};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::retention::Retention;
use super::{Cold, Custody, CustodyError, Payload, PayloadError};
use crate::chain::{Chain, ChainError};
use crate::config::PayloadSection;
use crate::metrics::Metrics;

/// How often room is freed.
const COLLECT_INTERVAL: Duration = Duration::from_secs(60);

/// How often overdue bodies are removed, and whether room is scarce is looked at.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(5);

/// Where room is scarce, segments of which no more is alive are worth moving. More would be moved for little.
const SCARCE_LIVE_PERCENT: u8 = 75;

/// Bodies removed, and segments freed, at a time: others have their turn between.
const REMOVED_MAX: usize = 1024;
const SEGMENTS_MAX: usize = 4;

/// How old a statement may be when it is decided, and somewhat more: what refers to a body may be under way.
const STATEMENT_AGE_MAX: Duration = Duration::from_secs(20 * 60);

/// Where the scrub is, in the payload's folder: a node that restarts often must not begin it anew each time.
const CURSOR_FILE: &str = "scrub";

/// What an operator asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Read everything and mend what is damaged.
    Scrub,
    /// Bring back from other nodes what this one should have.
    Rebuild,
    /// Take a device in the place of a drive.
    Replace {
        /// The drive's number.
        drive: usize,
        /// The new device or file.
        path: PathBuf,
    },
}

/// How a job is.
#[derive(Clone, Debug, Default)]
pub struct JobState {
    /// What is being done, or was done last.
    pub job: Option<Job>,
    /// Whether it is being done.
    pub running: bool,
    /// How far a scrub is, in percent.
    pub percent: u8,
    /// What it found so far.
    pub found: Found,
    /// Bodies that were brought back from other nodes.
    pub bodies: u64,
    /// Archived blocks that were.
    pub blocks: u64,
    /// Why it failed.
    pub failure: Option<String>,
}

/// What reading everything found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Segments that were read.
    pub segments: u64,
    /// Cells that were damaged and are whole again.
    pub repaired: u64,
    /// Records of which too little is left.
    pub lost: u64,
}

impl Found {
    fn add(&mut self, report: &ScrubReport) {
        self.segments += report.segments;
        self.repaired += report.repaired;
        self.lost += report.lost;
    }
}

/// Keeps a payload store in order.
pub struct Upkeep {
    payload: Arc<Payload>,
    chain: Arc<Chain>,
    metrics: Arc<Metrics>,
    /// In how long everything is read once.
    scrub_period: Duration,
    live_percent: u8,
    job: Mutex<JobState>,
    custody: Option<Arc<Custody>>,
    cold: Option<Arc<Cold>>,
}

impl Upkeep {
    /// Of `payload`, with the statements of `chain`.
    pub fn new(payload: Arc<Payload>, chain: Arc<Chain>, metrics: Arc<Metrics>, section: &PayloadSection) -> Self {
        let scrub_period = Duration::from_secs(u64::from(section.scrub_days) * 24 * 3600);
        let live_percent = section.collect_live_percent;
        let (job, custody, cold) = (Mutex::default(), None, None);
        Self { payload, chain, metrics, scrub_period, live_percent, job, custody, cold }
    }

    /// The same, with what brings back what parity cannot: copies on other nodes, and the cold tier.
    pub fn with(self, custody: Option<Arc<Custody>>, cold: Option<Arc<Cold>>) -> Arc<Self> {
        Arc::new(Self { custody, cold, ..self })
    }

    /// Runs until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let parts = async { tokio::join!(self.follow(), self.collect(), self.scrub(), self.retire()) };
        tokio::select! {
            _ = parts => {}
            () = stop.cancelled() => {}
        }
    }

    /// Removes bodies whose retention is over, where that is wanted.
    async fn retire(&self) {
        if self.payload.deletes {
            let (payload, metrics) = (Arc::clone(&self.payload), Arc::clone(&self.metrics));
            Retention { payload, cold: self.cold.clone(), metrics }.run(&self.chain).await;
        }
    }

    /// Looks at every block for statements that refer to bodies.
    async fn follow(&self) {
        let mut heads = self.chain.watch();
        loop {
            let tip = heads.borrow_and_update().tip.height;
            let before = self.payload.unreferenced.height();
            let next = before.next();
            if next > tip {
                if heads.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let chain = Arc::clone(&self.chain);
            let found = tokio::task::spawn_blocking(move || referred(&chain, next)).await;
            match found {
                Ok(Ok((roots, time_ms))) => {
                    self.payload.unreferenced.looked_at(before, next, roots);
                    self.payload.ledger_ms.fetch_max(time_ms, Ordering::Relaxed);
                }
                Ok(Err(error)) => {
                    // Nothing is removed meanwhile: the height stands still.
                    warn!(code = error.code(), %error, height = next.0, "a block cannot be looked at for bodies");
                    tokio::time::sleep(COLLECT_INTERVAL).await;
                }
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
    }

    async fn collect(&self) {
        let interval = PRESSURE_INTERVAL.min(self.payload.unreferenced_max / 4);
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut collected = tokio::time::Instant::now();
        loop {
            ticks.tick().await;
            // Others have their turn between.
            while self.remove_overdue().await == REMOVED_MAX {}
            if self.is_scarce().await {
                // What was put one by one takes room in columns that hold nothing.
                while self.free_room(self.live_percent.max(SCARCE_LIVE_PERCENT)).await && self.is_scarce().await {}
            } else if collected.elapsed() >= COLLECT_INTERVAL {
                self.free_room(self.live_percent).await;
                collected = tokio::time::Instant::now();
            }
        }
    }

    /// Whether less than a quarter of the store is free.
    async fn is_scarce(&self) -> bool {
        let status = self.payload.store.status().await;
        status.is_ok_and(|status| status.segments_free * 3 < status.segments)
    }

    /// Segments that the free slots are good for.
    async fn segments_free(&self) -> u64 {
        self.payload.store.status().await.map_or(0, |status| status.segments_free)
    }

    /// Moves what lives out of segments of which no more is alive; whether there is more room than before.
    async fn free_room(&self, live_percent: u8) -> bool {
        let before = self.segments_free().await;
        match self.payload.store.collect(live_percent, SEGMENTS_MAX).await {
            Ok(report) => {
                if report.segments > 0 {
                    info!(segments = report.segments, moved_bytes = report.moved_bytes, "room was freed");
                }
                // As many may have been filled as were emptied.
                report.segments > 0 && self.segments_free().await > before
            }
            Err(error) => {
                warn!(code = error.code(), %error, "no room can be freed");
                false
            }
        }
    }

    /// The ledger's time before which bodies without a statement are overdue, if this node has looked at all its blocks.
    /// The ledger's and not the machine's: while no blocks come, no statement can have come either; and a statement that was
    /// made in time is decided within the window of replays.
    fn overdue_before(&self) -> Option<u64> {
        let tip = self.chain.tip();
        let looked_at = self.payload.unreferenced.height() == tip.height;
        let max = self.payload.unreferenced_max;
        let grace = millis(STATEMENT_AGE_MAX.min(max / 4));
        looked_at.then(|| tip.time_ms.saturating_sub(millis(max) + grace))
    }

    /// Removes bodies that have waited too long, at most `REMOVED_MAX`; how many.
    async fn remove_overdue(&self) -> usize {
        let Some(before) = self.overdue_before() else { return 0 };
        let mut removed = 0;
        for root in self.payload.unreferenced.overdue(before, REMOVED_MAX) {
            // Blocks may have come since, and with them a statement that refers to it.
            let claimed = self.overdue_before().and_then(|before| self.payload.unreferenced.claim(&root, before));
            let Some(waiting) = claimed else { continue };
            match self.payload.store.remove(&root.0, self.payload.now_ms()).await {
                Ok(_) => {
                    self.payload.unreferenced.removed(root);
                    removed += 1;
                }
                Err(error) => {
                    warn!(code = error.code(), %error, %root, "a body without a statement cannot be removed");
                    self.payload.unreferenced.put_back(root, waiting);
                }
            }
        }
        self.metrics.storage.unreferenced_removed(removed);
        removed
    }

    /// Reads one segment after the other, so that everything is read once in the period.
    async fn scrub(&self) {
        let (mut next, mut read) = self.cursor();
        loop {
            let segments = match self.payload.store.status().await {
                Ok(status) => status.segments.max(1),
                Err(_) => return,
            };
            let pause = self.scrub_period / u32::try_from(segments).unwrap_or(u32::MAX);
            tokio::time::sleep(pause.clamp(Duration::from_millis(10), Duration::from_secs(3600))).await;
            // What an operator asked for does the same, sooner.
            if self.job_state().running {
                continue;
            }
            match self.scrub_one(next).await {
                Ok(report) => {
                    let mut found = Found::default();
                    found.add(&report);
                    self.note(&found);
                    self.bring_back(next, &report).await;
                    next = report.next.unwrap_or(0);
                    read = if next == 0 { 0 } else { read + report.segments };
                    self.metrics.storage.scrub_segments(read);
                    if next == 0 {
                        self.metrics.storage.scrubbed(now().as_secs());
                    }
                    self.keep_cursor(next, read);
                }
                Err(error) => {
                    warn!(code = error.code(), %error, "the store cannot be scrubbed");
                    tokio::time::sleep(COLLECT_INTERVAL).await;
                }
            }
        }
    }

    /// Where the scrub was, how much it had read, and when it was last at the end.
    fn cursor(&self) -> (u32, u64) {
        let text = std::fs::read_to_string(self.payload.directory.join(CURSOR_FILE)).unwrap_or_default();
        let mut numbers = text.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        let (next, read) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        self.metrics.storage.scrubbed(numbers.next().unwrap_or(0));
        self.metrics.storage.scrub_segments(read);
        (u32::try_from(next).unwrap_or(0), read)
    }

    /// Not flushed: what is lost of it is read twice.
    fn keep_cursor(&self, next: u32, read: u64) {
        let completed = self.metrics.storage.scrub_completed();
        let path = self.payload.directory.join(CURSOR_FILE);
        if let Err(error) = std::fs::write(&path, format!("{next} {read} {completed}\n")) {
            warn!(%error, "where the scrub is cannot be kept");
        }
    }

    fn note(&self, found: &Found) {
        self.metrics.storage.scrub_found(found.repaired, found.lost);
        if found.repaired > 0 || found.lost > 0 {
            error!(repaired = found.repaired, lost = found.lost, "reading the store found damage");
        }
    }

    /// How the operator's job is.
    pub fn job_state(&self) -> JobState {
        self.job.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a job, unless one is being done.
    ///
    /// # Errors
    /// `state_conflict` while one is.
    pub fn begin(self: &Arc<Self>, job: Job) -> Result<(), Code> {
        {
            let mut state = self.job.lock().unwrap_or_else(PoisonError::into_inner);
            if state.running {
                return Err(Code::StateConflict);
            }
            *state = JobState { job: Some(job.clone()), running: true, ..JobState::default() };
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let doing = Arc::clone(&this);
            let asked = job.clone();
            let done = tokio::spawn(async move { doing.carry_out(&asked).await }).await;
            let failure = match done {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{}: {error}", error.code())),
                Err(_) => Some("it panicked; the node's own log says where".to_owned()),
            };
            match &failure {
                None => info!(?job, "done"),
                Some(reason) => error!(?job, reason, "not done"),
            }
            this.change(|state| {
                state.running = false;
                state.percent = if failure.is_none() { 100 } else { state.percent };
                state.failure = failure;
            });
        });
        Ok(())
    }

    async fn carry_out(&self, job: &Job) -> Result<(), CustodyError> {
        match job {
            Job::Scrub => self.scrub_now().await,
            Job::Rebuild => {
                if self.custody.is_none() && self.cold.is_none() {
                    let reason = "it names no nodes that keep copies, and there is no cold tier".to_owned();
                    return Err(CustodyError::Configuration { reason });
                }
                let taken_back = match &self.cold {
                    Some(cold) => cold.reconcile().await,
                    None => Ok(0),
                };
                let Some(custody) = &self.custody else { return Ok(taken_back.map(drop)?) };
                if let Err(error) = taken_back {
                    // The copies may have all of it.
                    warn!(code = error.code(), %error, "nothing comes back from the cold tier");
                }
                // First what the node itself may be asked for.
                let blocks = custody.rebuild_blocks(|so_far| self.change(|state| state.blocks = so_far)).await;
                let rebuilt = custody.rebuild(|so_far| self.change(|state| state.bodies = so_far.bodies)).await?;
                blocks?;
                if rebuilt.failed > 0 {
                    Err(PayloadError::NotBroughtBack { bodies: rebuilt.failed }.into())
                } else {
                    Ok(())
                }
            }
            Job::Replace { drive, path } => {
                let report = self.payload.store.replace(*drive, path).await?;
                self.change(|state| state.found.add(&report));
                Ok(())
            }
        }
    }

    /// Reads one segment from `from` on, and mends what is damaged: from parity, or from the cold tier.
    async fn scrub_one(&self, from: u32) -> Result<ScrubReport, StorageError> {
        let now_ms = self.payload.now_ms();
        match &self.cold {
            Some(cold) => cold.scrub(from, now_ms).await,
            None => self.payload.store.scrub_some(from, 1, now_ms).await,
        }
    }

    /// What a scrub of a segment could not mend comes from the copies on other nodes, if there are any.
    async fn bring_back(&self, mut from: u32, report: &ScrubReport) {
        let Some(custody) = self.custody.as_ref().filter(|_| report.lost > 0) else { return };
        for _ in 0..report.segments {
            match custody.mend_segment(from).await {
                Ok(Some(next)) => from = next,
                Ok(None) => return,
                Err(error) => {
                    warn!(code = error.code(), %error, from, "what is lost cannot be brought back");
                    return;
                }
            }
        }
    }

    async fn scrub_now(&self) -> Result<(), CustodyError> {
        let mut next = Some(0);
        while let Some(from) = next {
            let segments = self.payload.store.status().await?.segments.max(1);
            let report = self.scrub_one(from).await?;
            let mut found = Found::default();
            found.add(&report);
            self.note(&found);
            self.bring_back(from, &report).await;
            self.change(|state| {
                state.found.add(&report);
                let percent = (state.found.segments * 100 / segments).min(99);
                state.percent = u8::try_from(percent).unwrap_or(99);
            });
            next = report.next;
        }
        self.metrics.storage.scrubbed(now().as_secs());
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut JobState)) {
        change(&mut self.job.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Content roots that the applied statements of a block refer to, and its time.
fn referred(chain: &Chain, height: Height) -> Result<(Vec<Hash>, u64), ChainError> {
    let (Some(certified), Some(outcomes)) = (chain.block(height)?, chain.outcomes(height)?) else {
        return Err(ChainError::HistoryMissing { oldest: chain.history_min()?.0 });
    };
    let mut roots = Vec::new();
    for (entry, outcome) in certified.block.entries.iter().zip(outcomes) {
        if outcome.code != Code::Applied {
            continue;
        }
        let statement = Statement::parse(Arc::clone(entry)).map_err(|code| ChainError::Statement { code })?;
        roots.extend(statement.command().and_then(Command::body_root));
    }
    Ok((roots, certified.block.header.time_ms))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
