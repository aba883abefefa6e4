//! Bodies go when the year of their retention is over, where the configuration asks for it.
//!
//! What is over is judged by the time of the newest block, never by the machine's clock, and only once the whole year has
//! passed in UTC: a network that stands deletes nothing, and neither does a clock that jumps. A body whose year is 0 stays.
//! Copies on other nodes go by the same rule, by those nodes' own look at the blocks. Holds are not known here: where one
//! may be placed on a body, deleting stays off.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use stele_storage::{StorageError, Store};
use stele_types::Hash;
use stele_types::time::civil_year;
use tracing::{debug, info, warn};

use super::{Cold, Payload, PayloadError};
use crate::chain::Chain;
use crate::metrics::Metrics;

/// How often is looked for bodies whose time is over. Years turn once a year; what failed is tried again sooner.
const INTERVAL: Duration = Duration::from_secs(24 * 3_600);
const AGAIN: Duration = Duration::from_secs(3_600);

/// Bodies that are removed before others have their turn, and for how long.
const STEP_MAX: usize = 1_024;
const STEP_PAUSE: Duration = Duration::from_secs(1);

/// By so much later than in Beijing, whose years [`civil_year`] counts, a year ends in UTC.
const UTC_BEHIND_MS: u64 = 8 * 3_600_000;

/// Years that are over at a time of the ledger.
pub(super) fn years_over(time_ms: u64) -> RangeInclusive<u16> {
    let year = civil_year(time_ms.saturating_sub(UTC_BEHIND_MS));
    1..=u16::try_from(year.saturating_sub(1)).unwrap_or(u16::MAX)
}

/// Removes bodies whose time is over.
pub(super) struct Retention {
    pub(super) payload: Arc<Payload>,
    pub(super) cold: Option<Arc<Cold>>,
    pub(super) metrics: Arc<Metrics>,
}

impl Retention {
    /// Looks for them again and again, by the time of `chain`.
    pub(super) async fn run(&self, chain: &Chain) {
        loop {
            let mut bodies = 0;
            let passed = self.pass(chain.tip().time_ms, &mut bodies).await;
            if bodies > 0 {
                info!(bodies, "bodies were removed: the year of their retention is over");
            }
            let pause = match passed {
                Ok(()) => INTERVAL,
                Err(error) => {
                    warn!(code = error.code(), %error, "bodies whose retention is over cannot all be removed");
                    AGAIN
                }
            };
            // Where bodies without a statement go soon, as in a test, so do these.
            tokio::time::sleep(pause.min(self.payload.unreferenced_max)).await;
        }
    }

    /// Removes all whose time is over at `time_ms` of the ledger, and counts them.
    async fn pass(&self, time_ms: u64, removed: &mut u64) -> Result<(), PayloadError> {
        let (years, store) = (years_over(time_ms), self.payload.store());
        let mut next = Some(0);
        while let Some(from) = next {
            let listing = store.list_years(from, years.clone()).await?;
            self.remove(listing.roots.into_iter().map(|(root, _)| Hash(root)), &years, removed).await?;
            next = listing.next;
        }
        let Some(cold) = &self.cold else { return Ok(()) };
        for status in store.cold_list().await? {
            if status.held && !status.local && years.contains(&status.group.year) {
                let roots = cold.objects(status.segment).await?;
                self.remove(roots.into_iter(), &years, removed).await?;
            }
        }
        Ok(())
    }

    async fn remove(
        &self,
        roots: impl Iterator<Item = Hash>,
        years: &RangeInclusive<u16>,
        removed: &mut u64,
    ) -> Result<(), PayloadError> {
        for (at, root) in (1_usize..).zip(roots) {
            if at.is_multiple_of(STEP_MAX) {
                tokio::time::sleep(STEP_PAUSE).await;
            }
            match self.remove_one(root, years).await {
                Ok(true) => {
                    debug!(%root, "the year of its retention is over");
                    self.metrics.storage.retention_removed();
                    *removed += 1;
                }
                Ok(false) => {}
                // One that cannot be read must not keep the others.
                Err(
                    error @ (StorageError::Damaged { .. } | StorageError::WrongContent | StorageError::Cold { .. }),
                ) => {
                    warn!(code = error.code(), %error, %root, "a body whose retention is over cannot be removed");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn remove_one(&self, root: Hash, years: &RangeInclusive<u16>) -> Result<bool, StorageError> {
        // What waits for a statement goes by that rule.
        if self.payload.unreferenced.contains(&root) || !is_of(self.payload.store(), &root, years).await? {
            return Ok(false);
        }
        let removed = self.payload.store().remove(&root.0, self.payload.now_ms()).await?;
        // Nobody needs a copy of it any more.
        self.payload.unreferenced.copied(&root);
        Ok(removed)
    }
}

/// Whether a body is still there, and of one of the years: it may have been put again since it was listed.
async fn is_of(store: &Store, root: &Hash, years: &RangeInclusive<u16>) -> Result<bool, StorageError> {
    match store.group(&root.0).await {
        Ok(group) => Ok(years.contains(&group.year)),
        Err(StorageError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use stele_hsm::custody::SoftwareCustodian;
    use stele_types::record::RecordClass;
    use stele_types::{Height, NetworkId, ObjectId, PartyId};

    use super::*;
    use crate::config::{Config, DriveEntry, PayloadSection};
    use crate::metrics::Version;
    use crate::payload::{Belonging, Blob, Ledger};

    const EXAMPLE: &str = include_str!("../../../docs/steled.example.toml");

    /// Midnight of 1 January 2026, UTC.
    const NEW_YEAR_MS: u64 = 1_767_225_600_000;

    fn section(directory: &std::path::Path) -> PayloadSection {
        let mut section = Config::parse(EXAMPLE, directory).unwrap().payload.unwrap();
        let drive = |number: usize| DriveEntry { path: directory.join(number.to_string()), bytes: Some(40 << 20) };
        section.drives = (0..3).map(drive).collect();
        (section.slot_bytes, section.custody, section.cold) = (2 << 20, None, None);
        section.delete_after_retention = true;
        section
    }

    async fn open(directory: &std::path::Path, time_ms: u64) -> Payload {
        let custodian = SoftwareCustodian::generate(&directory.join("custody.key")).unwrap();
        let ledger = Ledger { network: NetworkId([1; 32]), height: Height(1), time_ms, history_min: Height(1) };
        Payload::open(&section(directory), directory, ledger, Arc::new(custodian)).await.unwrap()
    }

    async fn put(payload: &Payload, retention_year: u16, bytes: usize) -> Result<Blob, PayloadError> {
        let (party, record) = (PartyId([2; 16]), ObjectId([3; 16]));
        let to = Belonging { class: RecordClass::Medical, retention_year, party, record };
        let mut incoming = payload.put(&to, false).await?;
        incoming.write(&vec![7; bytes]).await?;
        incoming.finish().await
    }

    #[test]
    fn a_year_is_over_when_it_has_passed_in_utc() {
        assert_eq!(years_over(NEW_YEAR_MS - 1), 1..=2_024);
        assert_eq!(years_over(NEW_YEAR_MS), 1..=2_025);
        assert!(!years_over(0).contains(&0) && !years_over(u64::MAX).contains(&0));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bodies_go_when_their_year_is_over_and_no_sooner() {
        let directory = tempfile::tempdir().unwrap();
        let payload = Arc::new(open(directory.path(), NEW_YEAR_MS - 1).await);
        let mut roots = Vec::new();
        for (year, bytes) in [(2_025, 100), (2_025, 3 << 20), (2_026, 100), (0, 100), (2_025, 200)] {
            let root = put(&payload, year, bytes).await.unwrap().root;
            payload.unreferenced.settle(root);
            roots.push(root);
        }
        // One that waits for its statement is none of this rule's.
        let waiting = put(&payload, 2_025, 300).await.unwrap().root;
        let metrics = Metrics::new(&Version::default());
        let retention = Retention { payload: Arc::clone(&payload), cold: None, metrics: Arc::clone(&metrics) };
        let mut removed = 0;
        retention.pass(NEW_YEAR_MS - 1, &mut removed).await.unwrap();
        assert_eq!(removed, 0);
        for _ in 0..2 {
            retention.pass(NEW_YEAR_MS, &mut removed).await.unwrap();
            assert_eq!(removed, 3, "once");
        }
        let kept: Vec<bool> = roots.iter().map(|root| payload.store().has(&root.0).unwrap()).collect();
        assert_eq!(kept, [false, false, true, true, false]);
        assert!(payload.store().has(&waiting.0).unwrap());
        assert!(metrics.render().contains("\nstele_storage_retention_removed_total 3\n"));
        // What would go at once is not taken.
        let refused = put(&payload, 2_024, 100).await.unwrap_err();
        assert_eq!(refused.code(), "payload_retention_over");
        assert!(put(&payload, 2_025, 100).await.is_ok(), "by the newest block that is known here it is not over");
    }
}
