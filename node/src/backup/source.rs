//! Where the bodies of a node come from: from the node itself while it runs, since its drives are its own then, and from the
//! drives while it does not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stele_client::{Bounds, Client, ClientError, ClientIdentity, Endpoint, RetryPolicy, TlsSettings};
use stele_storage::{Group, StorageError, Store};
use stele_types::limits::BLOCK_BYTES_MAX;
use stele_types::{Hash, NetworkId};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::BackupError;
use super::file;
use crate::config::Config;
use crate::keys::NodeKeys;
use crate::payload::listing::{self, Page};
use crate::payload::{PayloadError, parts};
use crate::store::blocks::{ArchiveError, SegmentArchive};

/// Bytes of a body that are asked for at a time.
const READ_BYTES: u64 = 4 << 20;

/// Passes over the list of bodies: one that is moved while it is listed may be passed over, and comes in the next.
pub(super) const PASSES_MAX: usize = 4;

/// Tries of a request: a node that restarts is back in a minute.
const RETRY: RetryPolicy =
    RetryPolicy { tries_max: 8, pause_min: Duration::from_millis(200), pause_max: Duration::from_secs(10) };

/// The token at most.
const TOKEN_BYTES_MAX: u64 = 4096;

/// See the [module](self).
pub(super) enum Source {
    /// The node keeps no bodies.
    None,
    /// Through the operator's listener.
    Running { runtime: Arc<Runtime>, client: Arc<Client>, token: Arc<Zeroizing<String>> },
    /// From the drives.
    Stopped { runtime: Arc<Runtime>, store: Arc<Store> },
}

/// Blocks that a running node has archived.
struct RunningArchive {
    runtime: Arc<Runtime>,
    client: Arc<Client>,
    token: Arc<Zeroizing<String>>,
}

/// A body that is being read.
pub(super) struct Reading<'s> {
    source: &'s Source,
    root: Hash,
    pub(super) bytes: u64,
    /// What was read already.
    first: Option<Bytes>,
    at: u64,
}

/// Why a body is not read: it is gone, or cannot be read, or nothing can.
pub(super) enum Unread {
    Gone,
    Unreadable(String),
    Failed(BackupError),
}

impl Source {
    /// The bodies of the node of `config`, which runs or, if that is said, does not.
    ///
    /// # Errors
    /// `NodeAway`; failure of the store.
    pub(super) fn open(config: &Config, runtime: &Arc<Runtime>, stopped: bool) -> Result<Self, BackupError> {
        let Some(section) = &config.payload else { return Ok(Self::None) };
        let directory = config.node.data_dir.join(parts::DIRECTORY);
        if stopped {
            // A node that has never opened its store has none.
            if !directory.join(parts::INDEX).exists() {
                return Ok(Self::None);
            }
            let store = parts::open_store(section, &directory)?;
            return Ok(Self::Stopped { runtime: Arc::clone(runtime), store: Arc::new(store) });
        }
        let away = |reason: String| BackupError::NodeAway { reason };
        let listen = config.metrics.listen.ok_or_else(|| {
            away(
                "bodies are read through the operator's listener, and the configuration has no metrics.listen"
                    .to_owned(),
            )
        })?;
        let token = read_token(&config.node.data_dir)?;
        let bounds = Bounds {
            answer: Duration::from_secs(60),
            // Parts of bodies, and whole blocks with their certificates.
            answer_bytes_max: usize::try_from(2 * READ_BYTES).map_or(usize::MAX, |most| most.max(2 * BLOCK_BYTES_MAX)),
            ..Bounds::default()
        };
        let builder = Client::builder().bounds(bounds).retry(RETRY);
        // The listener is plain on loopback alone.
        let client = if listen.ip().is_loopback() {
            builder.endpoint(Endpoint::http(&listen.to_string())?).build()?
        } else {
            let custody = section.custody.as_ref().ok_or_else(|| {
                away("the operator's listener asks for a certificate, and the configuration has none of an operator, as \
                      payload.custody names one"
                    .to_owned())
            })?;
            let read = |path: &Path| std::fs::read_to_string(path).map_err(BackupError::io("read", path));
            let identity = ClientIdentity::from_pem(&read(&custody.certificate)?, &read(&custody.key)?)?;
            let tls = TlsSettings::new(&read(&custody.authorities)?)?.with_identity(identity);
            builder.tls(tls).endpoint(Endpoint::https(&listen.to_string())?).build()?
        };
        Ok(Self::Running { runtime: Arc::clone(runtime), client: Arc::new(client), token: Arc::new(token) })
    }

    /// The old blocks that the node has archived.
    ///
    /// # Errors
    /// A key or a table that cannot be read.
    pub(super) fn archive(
        &self,
        config: &Config,
        network: NetworkId,
    ) -> Result<Option<Arc<dyn SegmentArchive>>, BackupError> {
        match (self, &config.payload) {
            (Self::Running { runtime, client, token }, _) => Ok(Some(Arc::new(RunningArchive {
                runtime: Arc::clone(runtime),
                client: Arc::clone(client),
                token: Arc::clone(token),
            }))),
            (Self::Stopped { runtime, store }, Some(section)) => {
                let directory = config.node.data_dir.join(parts::DIRECTORY);
                let custodian = runtime.block_on(async { NodeKeys::new(config).custodian(section).await });
                let custodian = custodian.map_err(PayloadError::from)?;
                Ok(Some(parts::archived_blocks(runtime.handle(), store, custodian, &directory, network)?))
            }
            _ => Ok(None),
        }
    }

    /// A page of the list.
    ///
    /// # Errors
    /// `NodeAway`; failure of the store.
    pub(super) fn page(&self, from: u32, skip: u32) -> Result<Page, BackupError> {
        match self {
            Self::None => Ok(Page { objects: Vec::new(), unreadable: 0, next: None }),
            Self::Stopped { runtime, store } => {
                Ok(runtime.block_on(listing::page(store, from, skip, listing::OBJECTS_MAX))?)
            }
            Self::Running { runtime, client, token } => {
                let page = runtime.block_on(client.stored_bodies(token, from, skip)).map_err(away)?;
                let body = |view: &stele_client::StoredView| {
                    Some((Hash::from_hex(&view.root)?, Group { class: view.class, year: view.retention_year }))
                };
                let next = page.next.map(|next| (next, page.skip)).filter(|next| *next > (from, skip));
                Ok(Page { objects: page.bodies.iter().filter_map(body).collect(), unreadable: page.unreadable, next })
            }
        }
    }

    /// Ends it; a store that was opened here has nothing to replay when its node starts.
    ///
    /// # Errors
    /// Failure of the store.
    pub(super) fn close(self) -> Result<(), BackupError> {
        match self {
            Self::Stopped { runtime, store } => match Arc::into_inner(store) {
                Some(store) => Ok(runtime.block_on(store.close())?),
                None => Ok(()),
            },
            Self::None | Self::Running { .. } => Ok(()),
        }
    }

    /// Begins to read a body.
    pub(super) fn body(&self, root: Hash) -> Result<Reading<'_>, Unread> {
        let mut reading = Reading { source: self, root, bytes: 0, first: None, at: 0 };
        let (first, bytes) = reading.read_at(0)?;
        (reading.first, reading.bytes) = (Some(first), bytes);
        Ok(reading)
    }
}

impl SegmentArchive for RunningArchive {
    fn read(&self, root: &[u8; 32], from: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let read = async { self.client.stored_blocks(&self.token, &Hash(*root), from, length).await };
        let bytes = self.runtime.block_on(read).map_err(|error| match error.code() {
            "not_found" | "body_damaged" => ArchiveError::Lost { reason: error.to_string() },
            _ => ArchiveError::Away { reason: error.to_string(), retry_after: Duration::from_secs(1) },
        })?;
        if bytes.len() != length {
            return Err(ArchiveError::Lost { reason: "the node gave fewer bytes than a block has".to_owned() });
        }
        Ok(bytes.to_vec())
    }
}

impl Unread {
    /// What keeps one body from being copied stays within; what keeps all of them does not.
    pub(super) fn or_failed<T>(self) -> Result<Result<T, Self>, BackupError> {
        match self {
            Self::Failed(error) => Err(error),
            unread => Ok(Err(unread)),
        }
    }
}

impl Reading<'_> {
    /// The next bytes; none behind the end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Unread> {
        if self.at >= self.bytes {
            return Ok(None);
        }
        let bytes = match self.first.take() {
            Some(first) => first,
            None => self.read_at(self.at)?.0,
        };
        if bytes.is_empty() {
            return Err(Unread::Unreadable("it ends early".to_owned()));
        }
        self.at += bytes.len() as u64;
        Ok(Some(bytes))
    }

    fn read_at(&self, from: u64) -> Result<(Bytes, u64), Unread> {
        match self.source {
            Source::None => Err(Unread::Gone),
            Source::Stopped { runtime, store } => {
                runtime.block_on(read_stored(store, &self.root, from)).map_err(unread)
            }
            Source::Running { runtime, client, token } => {
                let read = runtime.block_on(client.stored_body(token, &self.root, from, READ_BYTES));
                read.map_err(|error| match error.code() {
                    "not_found" => Unread::Gone,
                    "body_damaged" => Unread::Unreadable(error.to_string()),
                    _ => Unread::Failed(away(error)),
                })
            }
        }
    }
}

async fn read_stored(store: &Store, root: &Hash, from: u64) -> Result<(Bytes, u64), StorageError> {
    let mut object = store.object(&root.0).await?;
    let bytes = object.bytes();
    Ok((object.read(from, usize::try_from(READ_BYTES).unwrap_or(usize::MAX)).await?, bytes))
}

fn unread(error: StorageError) -> Unread {
    match error {
        StorageError::NotFound => Unread::Gone,
        StorageError::Damaged { .. } | StorageError::WrongContent => Unread::Unreadable(error.to_string()),
        error => Unread::Failed(error.into()),
    }
}

fn away(error: ClientError) -> BackupError {
    match error.code() {
        "forbidden" | "not_found" => BackupError::Client(error),
        code => BackupError::NodeAway {
            reason: format!(
                "bodies are read through the running node, which does not give them ({code}: {error}); start it, or, \
                 while it stays stopped, say --stopped"
            ),
        },
    }
}

fn read_token(data_dir: &Path) -> Result<Zeroizing<String>, BackupError> {
    let path = data_dir.join(crate::control::FILE);
    let bytes = Zeroizing::new(file::read_bounded(&path, TOKEN_BYTES_MAX).map_err(BackupError::io("read", &path))?);
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).trim().to_owned()))
}
