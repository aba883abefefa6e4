//! What an endpoint has to do before anything is trusted to it.

use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use object_store::multipart::MultipartStore as _;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};

use crate::tier::{Inner, LISTED_MAX};
use crate::{ColdError, Retention, RetentionMode};

/// How long the object of a probe is locked: longer than clocks differ that an endpoint takes signatures by.
const LOCKED: Duration = Duration::from_secs(20 * 60);

/// What is written: no two bytes are equal, so that a range tells where it is from.
const WRITTEN: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

impl Inner {
    /// Finds out whether the endpoint does what the tier is safe with.
    pub(crate) async fn probe(&self) -> Result<(), ColdError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| ColdError::unavailable(format!("no random numbers: {error}")))?;
        let key = Path::from(format!("{}/probe/{:032x}", self.options.prefix, u128::from_be_bytes(id)));
        self.clear_probes().await;
        self.probe_seals(&key).await?;
        self.probe_objects(&key).await
    }

    /// What is there cannot be created, and is read as it was written first.
    async fn probe_seals(&self, key: &Path) -> Result<(), ColdError> {
        let failed = |error: &StoreError| ColdError::of_store(key.as_ref(), error);
        let create =
            |bytes: Vec<u8>| self.seals.put_opts(key, PutPayload::from(bytes), PutOptions::from(PutMode::Create));
        create(WRITTEN.to_vec()).await.map_err(|error| failed(&error))?;
        let second = create(b"another".to_vec()).await;
        let read = self.seals.get_range(key, 0..WRITTEN.len() as u64).await;
        let _ = self.locks.delete(&self.options.seals, key.as_ref(), None).await;
        match second {
            Err(StoreError::AlreadyExists { .. }) => {}
            Ok(_) => {
                let what = "it creates an object where one is (it ignores If-None-Match in the bucket of seals)";
                return Err(ColdError::lacks(what));
            }
            Err(error) => return Err(failed(&error)),
        }
        match read {
            Ok(read) if read == WRITTEN[..] => Ok(()),
            Ok(_) => Err(ColdError::lacks("it refuses to create what is there, and changes it nevertheless")),
            Err(StoreError::NotFound { .. }) => Err(ColdError::lacks("what was just written cannot be read")),
            Err(error) => Err(failed(&error)),
        }
    }

    /// What comes in parts can be read at once, in ranges, and is locked where it should be.
    async fn probe_objects(&self, key: &Path) -> Result<(), ColdError> {
        let failed = |error: StoreError| ColdError::of_store(key.as_ref(), &error);
        let bucket = &self.options.objects;
        if self.options.retention.is_some() && !self.locks.can_lock(bucket).await? {
            return Err(ColdError::lacks(format!("a retention is asked for, and bucket {bucket} has no Object Lock")));
        }
        let upload = self.objects.create_multipart(key).await.map_err(failed)?;
        let part = self.objects.put_part(key, &upload, 0, PutPayload::from_static(&WRITTEN)).await.map_err(failed)?;
        self.objects.complete_multipart(key, &upload, vec![part]).await.map_err(failed)?;
        let result = self.probe_object(key).await;
        if self.options.retention.is_none() {
            self.discard(key).await;
        }
        result
    }

    async fn probe_object(&self, key: &Path) -> Result<(), ColdError> {
        let bytes = WRITTEN.len() as u64;
        match self.objects.get_range(key, 7..19).await {
            Ok(read) if read == WRITTEN[7..19] => {}
            Ok(_) => return Err(ColdError::lacks("a range of an object is not what was written there")),
            Err(StoreError::NotFound { .. }) => {
                return Err(ColdError::lacks("an object that came in parts cannot be read at once"));
            }
            Err(error) => return Err(ColdError::of_store(key.as_ref(), &error)),
        }
        if self.objects.get_range(key, bytes..bytes + 1).await.is_ok() {
            return Err(ColdError::lacks("a range behind the end of an object is answered"));
        }
        match self.options.retention {
            Some(retention) => self.probe_lock(key, retention).await,
            None => Ok(()),
        }
    }

    /// A lock holds against whoever has these credentials.
    async fn probe_lock(&self, key: &Path, Retention { mode, .. }: Retention) -> Result<(), ColdError> {
        let (bucket, key) = (&self.options.objects, key.as_ref());
        let until = SystemTime::now() + LOCKED;
        let version = || async {
            let version = self.locks.version(bucket, key).await?;
            version.ok_or_else(|| ColdError::lacks("an object that was just read is not there"))
        };
        // A rule of the bucket's may lock it longer already, and nobody shortens that.
        if version().await?.until.is_none_or(|own| own < until) {
            self.locks.lock(bucket, key, mode, until).await?;
        }
        let version = version().await?;
        let holds = version.until.is_some_and(|own| own + Duration::from_secs(1) >= until);
        if !holds || (mode == RetentionMode::Compliance && !version.compliance) {
            return Err(ColdError::lacks("an object that was to be locked is not"));
        }
        let Some(id) = version.id else { return Err(ColdError::lacks("an object that is locked has no version")) };
        match self.locks.delete(bucket, key, Some(&id)).await {
            Err(ColdError::Refused { .. }) => Ok(()),
            Ok(()) => Err(ColdError::lacks("a version was deleted that is locked")),
            Err(error) => Err(error),
        }
    }

    /// Deletes what earlier probes left, which were locked then.
    async fn clear_probes(&self) {
        let prefix = Path::from(format!("{}/probe", self.options.prefix));
        let mut listed = self.objects.list(Some(&prefix)).take(LISTED_MAX);
        // What cannot be listed or deleted is left to the next; that the endpoint works is found out by what follows.
        while let Some(Ok(listed)) = listed.next().await {
            self.discard(&listed.location).await;
        }
    }

    async fn discard(&self, key: &Path) {
        let bucket = &self.options.objects;
        let Ok(Some(version)) = self.locks.version(bucket, key.as_ref()).await else { return };
        if version.until.is_none_or(|until| until <= SystemTime::now()) {
            let _ = self.locks.delete(bucket, key.as_ref(), version.id.as_deref()).await;
        }
    }
}
