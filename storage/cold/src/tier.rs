//! The tier: objects that are put once, sealed, and read in ranges.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, Stream, StreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::multipart::{MultipartStore as _, PartId};
use object_store::path::Path;
use object_store::{
    BackoffConfig, Error as StoreError, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use stele_accel_hash::{Digest, HashAlgorithm};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::digest::ContentRoot;
use crate::lock::Locks;
use crate::seal::{SEAL_BYTES_MAX, Sealed, is_name};
use crate::transport::Transport;
use crate::{ColdError, ColdOptions, RetentionMode};

/// Parts of one object that are on their way together.
const PARTS_AT_ONCE: usize = 4;

/// S3 takes no more parts of an object.
const PARTS_MAX: u64 = 10_000;

/// Bytes that a permit of the memory stands for.
const PERMIT_BYTES: usize = 64 << 10;

/// An object is sealed within this time of its first byte, or not at all; and one without a seal is nobody's when it is
/// as old as the second. Between them lies more than clocks differ.
const SEALED_WITHIN: Duration = Duration::from_secs(4 * 3_600);
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3_600);

/// A retention that ends so much earlier is as good.
const LOCK_SLACK: Duration = Duration::from_secs(3_600);

/// Names of a listing that are asked for at a time.
pub(crate) const LISTED_MAX: usize = 1_000;

/// Objects in S3. Cheap to clone.
#[derive(Clone)]
pub struct ColdTier {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: ColdOptions,
    pub(crate) objects: AmazonS3,
    pub(crate) seals: AmazonS3,
    pub(crate) locks: Locks,
    memory: Semaphore,
}

impl fmt::Debug for ColdTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdTier").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl ColdTier {
    /// Reaches an endpoint, and finds out whether it does what is asked of it.
    ///
    /// # Errors
    /// `Option`; `Unsafe` if it does not; `Unavailable`, `Refused`.
    pub async fn open(options: ColdOptions) -> Result<Self, ColdError> {
        options.check()?;
        let transport = Transport::new(&options)?;
        let tier = Self {
            inner: Arc::new(Inner {
                objects: bucket(&options, &options.objects, &transport)?,
                seals: bucket(&options, &options.seals, &transport)?,
                locks: Locks::new(&options, transport),
                memory: Semaphore::new(options.memory_bytes_max / PERMIT_BYTES),
                options,
            }),
        };
        tier.inner.probe().await?;
        Ok(tier)
    }

    /// Makes the buckets that the options name, that of objects with Object Lock if they name a retention. Buckets that are
    /// there stay as they are.
    ///
    /// # Errors
    /// `Option`, `Unavailable`, `Refused`.
    pub async fn make_buckets(options: &ColdOptions) -> Result<(), ColdError> {
        options.check()?;
        let locks = Locks::new(options, Transport::new(options)?);
        locks.make_bucket(&options.objects, options.retention.is_some()).await?;
        if options.seals == options.objects { Ok(()) } else { locks.make_bucket(&options.seals, false).await }
    }

    /// How it was opened.
    #[must_use]
    pub fn options(&self) -> &ColdOptions {
        &self.inner.options
    }

    /// Puts an object of `bytes` bytes under a name that has none. When this returns it was read back, counts, and is locked
    /// if a retention is configured. Whatever fails before, the name stays free, or has an object that [`ColdTier::confirm`]
    /// finds.
    ///
    /// # Errors
    /// `Exists`; `Source` if the source fails or is of another length; `Damaged` if what is read back is not what was put;
    /// `TooLong`, `Unavailable`, `Refused`.
    pub async fn put<S>(&self, name: &str, bytes: u64, source: S) -> Result<Sealed, ColdError>
    where
        S: Stream<Item = Result<Bytes, ColdError>> + Send,
    {
        self.inner.put(name, bytes, source).await
    }

    /// The object of a name; none if no attempt to put it came to its end. It is as its seal says, which nobody has read
    /// back: [`ColdTier::verify`] does.
    ///
    /// # Errors
    /// `Damaged` if the seal is; `Unavailable`, `Refused`.
    pub async fn find(&self, name: &str) -> Result<Option<Sealed>, ColdError> {
        self.inner.find(name).await
    }

    /// Finishes what an earlier [`ColdTier::put`] may have been kept from: reads the object of a name back and locks it. The
    /// retention counts from now then, since nobody knows whether it was locked before.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, `Unavailable`, `Refused`.
    pub async fn confirm(&self, name: &str) -> Result<Sealed, ColdError> {
        let sealed = self.find(name).await?.ok_or_else(|| ColdError::NotFound { name: name.to_owned() })?;
        self.verify(&sealed).await?;
        self.inner.keep(&sealed).await?;
        Ok(sealed)
    }

    /// Reads an object back, whole, and compares its root.
    ///
    /// # Errors
    /// `Damaged`, `Unavailable`, `Refused`.
    pub async fn verify(&self, sealed: &Sealed) -> Result<(), ColdError> {
        self.inner.read_back(sealed).await
    }

    /// Reads a range of an object: at most a part. Whoever reads has to verify it, by what it knows of the content.
    ///
    /// # Errors
    /// `Range`, `TooLong`; `Damaged` if it is not there, or shorter; `Unavailable`, `Refused`.
    pub async fn read(&self, sealed: &Sealed, range: Range<u64>) -> Result<Bytes, ColdError> {
        self.inner.read(sealed, range).await
    }

    /// Names of sealed objects under `under`, in their order, those behind `after`: a thousand at most. None are the last.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`.
    pub async fn list(&self, under: &str, after: Option<&str>) -> Result<Vec<String>, ColdError> {
        self.inner.list(under, after).await
    }

    /// Deletes an object and its seal.
    ///
    /// # Errors
    /// `NotFound`; `Locked` as long as its retention lasts; `Unavailable`, `Refused`.
    pub async fn delete(&self, name: &str) -> Result<(), ColdError> {
        self.inner.delete(name).await
    }

    /// Deletes what attempts left that were never sealed and are a day old at `now`, of the objects under `under`: so many.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`.
    pub async fn sweep(&self, under: &str, now: SystemTime) -> Result<u64, ColdError> {
        self.inner.sweep(under, now).await
    }
}

fn bucket(options: &ColdOptions, name: &str, transport: &Transport) -> Result<AmazonS3, ColdError> {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    let retry = RetryConfig { backoff, max_retries: options.retries_max, retry_timeout: options.retry_timeout };
    AmazonS3Builder::new()
        .with_endpoint(options.endpoint.trim_end_matches('/'))
        .with_region(&options.region)
        .with_bucket_name(name)
        .with_access_key_id(&options.credentials.key_id)
        .with_secret_access_key(&options.credentials.secret)
        .with_virtual_hosted_style_request(false)
        .with_allow_http(true)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry)
        .with_http_connector(transport.clone())
        .build()
        .map_err(|error| ColdError::option("endpoint", error.to_string()))
}

impl Inner {
    async fn put<S>(&self, name: &str, bytes: u64, source: S) -> Result<Sealed, ColdError>
    where
        S: Stream<Item = Result<Bytes, ColdError>> + Send,
    {
        let begun = tokio::time::Instant::now();
        let bytes_max = PARTS_MAX * self.options.part_bytes as u64;
        if bytes > bytes_max {
            return Err(ColdError::TooLong { bytes, bytes_max });
        }
        if self.find(name).await?.is_some() {
            return Err(ColdError::Exists { name: name.to_owned() });
        }
        let mut attempt = [0; 16];
        getrandom::fill(&mut attempt)
            .map_err(|error| ColdError::Source { reason: format!("no random numbers: {error}") })?;
        let hash = self.options.hash;
        let mut sealed = Sealed { name: name.to_owned(), bytes, hash, root: [0; 32], attempt };
        sealed.root = self.send(&self.object(&sealed), bytes, source).await?;
        self.read_back(&sealed).await?;
        if begun.elapsed() > SEALED_WITHIN {
            return Err(ColdError::unavailable(format!("{name} took {} s to put", begun.elapsed().as_secs())));
        }
        self.seal(&sealed).await?;
        self.keep(&sealed).await?;
        Ok(sealed)
    }

    /// Sends an object; the root of what was sent.
    async fn send<S>(&self, key: &Path, bytes: u64, source: S) -> Result<Digest, ColdError>
    where
        S: Stream<Item = Result<Bytes, ColdError>> + Send,
    {
        let mut source = Parts { source: Box::pin(source), rest: Bytes::new(), left: bytes };
        if bytes <= self.options.part_bytes as u64 {
            let _permit = self.memory(self.options.part_bytes).await?;
            let part = source.next(self.options.part_bytes).await?;
            source.end().await?;
            let mut root = ContentRoot::new(self.options.hash);
            root.add(&part);
            let put = self.objects.put(key, part.into()).await;
            put.map_err(|error| ColdError::of_store(key.as_ref(), &error))?;
            return Ok(root.finish());
        }
        let failed = |error: StoreError| ColdError::of_store(key.as_ref(), &error);
        let upload = self.objects.create_multipart(key).await.map_err(failed)?;
        let sent = self.send_parts(key, &upload, &mut source).await;
        let completed = match sent {
            Ok((parts, root)) => {
                self.objects.complete_multipart(key, &upload, parts).await.map(|_| root).map_err(failed)
            }
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // Parts of what never becomes an object. If they cannot be given up, the bucket's lifecycle does it.
            let _ = self.objects.abort_multipart(key, &upload).await;
        }
        completed
    }

    async fn send_parts<S>(
        &self,
        key: &Path,
        upload: &String,
        source: &mut Parts<S>,
    ) -> Result<(Vec<PartId>, Digest), ColdError>
    where
        S: Stream<Item = Result<Bytes, ColdError>> + Send,
    {
        let mut root = ContentRoot::new(self.options.hash);
        let mut under_way = FuturesUnordered::new();
        let mut parts: Vec<Option<PartId>> = Vec::new();
        let enter = |parts: &mut Vec<Option<PartId>>, sent: Result<(usize, PartId), StoreError>| match sent {
            Ok((number, part)) => {
                parts[number] = Some(part);
                Ok(())
            }
            Err(error) => Err(ColdError::of_store(key.as_ref(), &error)),
        };
        while source.left > 0 {
            while under_way.len() >= PARTS_AT_ONCE {
                let sent = under_way.next().await.expect("some are under way");
                enter(&mut parts, sent)?;
            }
            // What is under way holds memory and goes on only while it is asked for: waiting for memory alone might never end.
            let permit = loop {
                tokio::select! {
                    biased;
                    permit = self.memory(self.options.part_bytes) => break permit?,
                    Some(sent) = under_way.next(), if !under_way.is_empty() => enter(&mut parts, sent)?,
                }
            };
            let part = source.next(self.options.part_bytes).await?;
            root.add(&part);
            let number = parts.len();
            parts.push(None);
            under_way.push(async move {
                let _permit = permit;
                let sent = self.objects.put_part(key, upload, number, PutPayload::from(part)).await;
                sent.map(|part| (number, part))
            });
        }
        source.end().await?;
        while let Some(sent) = under_way.next().await {
            enter(&mut parts, sent)?;
        }
        drop(under_way);
        Ok((parts.into_iter().flatten().collect(), root.finish()))
    }

    /// Makes an object the one of its name, unless another is.
    async fn seal(&self, sealed: &Sealed) -> Result<(), ColdError> {
        let key = self.seal_of(&sealed.name);
        let create = PutOptions::from(PutMode::Create);
        let Err(error) = self.seals.put_opts(&key, PutPayload::from(sealed.encode()), create).await else {
            return Ok(());
        };
        // It may be there nevertheless: the answer was lost, or is that to the same request, made again.
        match self.find(&sealed.name).await? {
            Some(found) if found == *sealed => Ok(()),
            Some(_) => {
                // Nobody will ever ask for this one.
                let _ = self.remove(sealed).await;
                Err(ColdError::Exists { name: sealed.name.clone() })
            }
            None => Err(ColdError::of_store(&sealed.name, &error)),
        }
    }

    /// Has an object locked, and makes sure that it is there.
    async fn keep(&self, sealed: &Sealed) -> Result<(), ColdError> {
        let (bucket, key) = (&self.options.objects, self.object(sealed));
        let here = || async {
            let version = self.locks.version(bucket, key.as_ref()).await?;
            version.filter(|version| version.bytes == sealed.bytes).ok_or_else(|| gone(sealed))
        };
        let mut version = here().await?;
        let Some(retention) = self.options.retention else { return Ok(()) };
        let wanted = SystemTime::now() + Duration::from_secs(u64::from(retention.days) * 24 * 3_600);
        let compliance = retention.mode == RetentionMode::Compliance;
        // By a rule of the bucket's it may be locked already, from some seconds before. Nobody shortens what is longer.
        let enough = wanted - LOCK_SLACK;
        let holds = |version: &crate::lock::Version, until| {
            version.until.is_some_and(|own| own >= until) && (version.compliance || !compliance)
        };
        if holds(&version, enough) {
            return Ok(());
        }
        self.locks.lock(bucket, key.as_ref(), retention.mode, wanted).await?;
        version = here().await?;
        // Its retention is told in seconds.
        if holds(&version, wanted - Duration::from_secs(1)) {
            return Ok(());
        }
        Err(ColdError::lacks(format!("{} was to be locked, and is not", sealed.name)))
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Option<Sealed>, ColdError> {
        if !is_name(name) {
            return Err(ColdError::NotFound { name: name.to_owned() });
        }
        let read = self.seals.get_range(&self.seal_of(name), 0..SEAL_BYTES_MAX as u64).await;
        match read {
            Ok(seal) => match Sealed::decode(&seal, name) {
                Some(sealed) => Ok(Some(sealed)),
                None => Err(ColdError::damaged(name, "its seal is not one")),
            },
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(ColdError::of_store(name, &error)),
        }
    }

    async fn read(&self, sealed: &Sealed, range: Range<u64>) -> Result<Bytes, ColdError> {
        let Range { start, end } = range;
        if start > end || end > sealed.bytes {
            return Err(ColdError::Range { name: sealed.name.clone(), start, end, bytes: sealed.bytes });
        }
        let (bytes, bytes_max) = (end - start, self.options.part_bytes as u64);
        if bytes > bytes_max {
            return Err(ColdError::TooLong { bytes, bytes_max });
        }
        if bytes == 0 {
            return Ok(Bytes::new());
        }
        let wanted = usize::try_from(bytes).expect("a part fits into memory");
        let _permit = self.memory(wanted).await?;
        let read = self.objects.get_range(&self.object(sealed), start..end).await;
        let read = read.map_err(|error| match ColdError::of_store(&sealed.name, &error) {
            ColdError::NotFound { .. } => gone(sealed),
            error => error,
        })?;
        if read.len() != wanted {
            return Err(ColdError::damaged(&sealed.name, format!("{} bytes where {wanted} should be", read.len())));
        }
        Ok(read)
    }

    async fn read_back(&self, sealed: &Sealed) -> Result<(), ColdError> {
        let part = self.options.part_bytes;
        let ranges = (0..sealed.bytes).step_by(part).map(|start| start..sealed.bytes.min(start + part as u64));
        let mut read = futures::stream::iter(ranges).map(|range| self.read(sealed, range)).buffered(PARTS_AT_ONCE);
        let mut root = ContentRoot::new(sealed.hash);
        while let Some(part) = read.next().await {
            root.add(&part?);
        }
        if root.finish() == sealed.root { Ok(()) } else { Err(ColdError::damaged(&sealed.name, "it has another root")) }
    }

    async fn list(&self, under: &str, after: Option<&str>) -> Result<Vec<String>, ColdError> {
        let prefix = self.seal_of(under);
        let listed = match after {
            Some(after) => self.seals.list_with_offset(Some(&prefix), &self.seal_of(after)),
            None => self.seals.list(Some(&prefix)),
        };
        let mut listed = listed.take(LISTED_MAX);
        let root = format!("{}/seals/", self.options.prefix);
        let mut names = Vec::new();
        while let Some(listed) = listed.next().await {
            let listed = listed.map_err(|error| ColdError::of_store(under, &error))?;
            // Whatever else somebody put there is no name.
            let name = listed.location.as_ref().strip_prefix(&root).filter(|name| is_name(name));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }

    async fn delete(&self, name: &str) -> Result<(), ColdError> {
        let sealed = self.find(name).await?.ok_or_else(|| ColdError::NotFound { name: name.to_owned() })?;
        // The object first: a seal without one is found again by whoever deletes again.
        self.remove(&sealed).await?;
        let key = self.seal_of(name);
        let version = self.locks.version(&self.options.seals, key.as_ref()).await?;
        let id = version.and_then(|version| version.id);
        self.locks.delete(&self.options.seals, key.as_ref(), id.as_deref()).await
    }

    /// Deletes the object of an attempt.
    async fn remove(&self, sealed: &Sealed) -> Result<(), ColdError> {
        let (bucket, key) = (&self.options.objects, self.object(sealed));
        let Some(version) = self.locks.version(bucket, key.as_ref()).await? else { return Ok(()) };
        let locked = version.until.filter(|until| *until > SystemTime::now());
        let until = locked.map(|until| humantime::format_rfc3339_seconds(until).to_string());
        if let Some(until) = until {
            return Err(ColdError::Locked { name: sealed.name.clone(), until });
        }
        self.locks.delete(bucket, key.as_ref(), version.id.as_deref()).await
    }

    async fn sweep(&self, under: &str, now: SystemTime) -> Result<u64, ColdError> {
        let root = Path::from(format!("{}/objects/{under}", self.options.prefix));
        let mut listed = self.objects.list(Some(&root));
        let mut swept = 0;
        while let Some(listed) = listed.next().await {
            let listed = listed.map_err(|error| ColdError::of_store(under, &error))?;
            let age = now.duration_since(listed.last_modified.into()).unwrap_or_default();
            let Some((name, attempt)) = self.attempt_at(&listed.location) else { continue };
            if age < LEFTOVER_AGE || self.find(&name).await?.is_some_and(|sealed| sealed.attempt == attempt) {
                continue;
            }
            let leftover = Sealed { name, bytes: listed.size, hash: HashAlgorithm::Sha256, root: [0; 32], attempt };
            match self.remove(&leftover).await {
                Ok(()) => swept += 1,
                // By a rule of the bucket's: it goes when that lets it.
                Err(ColdError::Locked { .. } | ColdError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    /// The name and the attempt that an object is of.
    fn attempt_at(&self, key: &Path) -> Option<(String, [u8; 16])> {
        let path = key.as_ref().strip_prefix(&format!("{}/objects/", self.options.prefix))?;
        let (name, attempt) = path.rsplit_once('/')?;
        let attempt = u128::from_str_radix(attempt, 16).ok().filter(|_| attempt.len() == 32)?;
        is_name(name).then(|| (name.to_owned(), attempt.to_be_bytes()))
    }

    pub(crate) fn object(&self, sealed: &Sealed) -> Path {
        let attempt = u128::from_be_bytes(sealed.attempt);
        Path::from(format!("{}/objects/{}/{attempt:032x}", self.options.prefix, sealed.name))
    }

    fn seal_of(&self, name: &str) -> Path {
        Path::from(format!("{}/seals/{name}", self.options.prefix))
    }

    /// Waits until so much memory is free.
    async fn memory(&self, bytes: usize) -> Result<SemaphorePermit<'_>, ColdError> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        self.memory.acquire_many(permits).await.map_err(|closed| ColdError::unavailable(closed.to_string()))
    }
}

fn gone(sealed: &Sealed) -> ColdError {
    ColdError::damaged(&sealed.name, "its object is not there, or of another length")
}

/// A source in parts of one length.
struct Parts<S> {
    source: std::pin::Pin<Box<S>>,
    rest: Bytes,
    left: u64,
}

impl<S: Stream<Item = Result<Bytes, ColdError>>> Parts<S> {
    /// The next part: `part_bytes`, or all that is left.
    async fn next(&mut self, part_bytes: usize) -> Result<Bytes, ColdError> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(part_bytes);
        let mut part = BytesMut::with_capacity(wanted);
        while part.len() < wanted {
            if self.rest.is_empty() {
                let Some(next) = self.source.next().await else {
                    let missing = self.left - part.len() as u64;
                    return Err(ColdError::Source { reason: format!("it ends {missing} bytes before its end") });
                };
                self.rest = next?;
                continue;
            }
            let taken = self.rest.len().min(wanted - part.len());
            part.extend_from_slice(&self.rest.split_to(taken));
        }
        self.left -= wanted as u64;
        Ok(part.freeze())
    }

    /// Makes sure that nothing follows.
    async fn end(&mut self) -> Result<(), ColdError> {
        loop {
            if !self.rest.is_empty() {
                return Err(ColdError::Source { reason: "it goes on behind its end".to_owned() });
            }
            match self.source.next().await {
                Some(next) => self.rest = next?,
                None => return Ok(()),
            }
        }
    }
}
