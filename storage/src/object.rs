//! Objects: of any length, found by the root of their content, read in ranges that verify alone.
//!
//! | bytes | records | found by |
//! |---|---|---|
//! | up to 1 MiB | the object | its root |
//! | more | parts of 1 MiB | upload and number |
//! | | sections: the roots of up to 2^14 pieces, for 1 GiB each | upload and number |
//! | | manifest: upload, length, the sections' roots | its root |
//! | | the upload's end: the object's root | upload |
//!
//! The upload's end is put before the manifest: parts of an upload that never ended, or ended without a manifest, are nobody's,
//! and a scrub removes them when they are a day old.
//!
//! A piece is 64 KiB. A section is a whole subtree of the object's tree, and its root is that of the roots in it; so a range
//! costs its parts and one section, and is verified from the object's root down.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::PoisonError;

use bytes::{Bytes, BytesMut};
use stele_accel_hash::{DIGEST_LENGTH, Digest, HashAlgorithm, digest};

use crate::content::{PIECE_BYTES, piece_roots, root_of_pieces};
use crate::format::{Kind, RECORD_BYTES_MAX};
use crate::store::{Answer, random_id};
use crate::{Group, StorageError, Store};

/// Bytes of a part.
const PART_BYTES: usize = RECORD_BYTES_MAX;

/// Pieces of a section: their roots are half a record.
const SECTION_PIECES: usize = 1 << 14;

/// Most bytes of an object: as many sections as a manifest lists.
pub const OBJECT_BYTES_MAX: u64 = 1 << 44;

/// Parts of an upload that are on their way together, at least.
const PARTS_MIN: usize = 8;

const MANIFEST_MAGIC: [u8; 8] = *b"SteleMF1";
const MANIFEST_HEADER_BYTES: usize = 8 + 16 + 8;

/// An object that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Root of its content.
    pub root: Digest,
    /// Its length.
    pub bytes: u64,
}

/// An object that is being put. Dropped before it is finished, it leaves parts that nothing refers to.
pub struct Upload<'s> {
    store: &'s Store,
    group: Group,
    time_ms: u64,
    id: [u8; 16],
    /// Less than a part, until the next bytes.
    pending: BytesMut,
    bytes: u64,
    parts: u64,
    /// Roots of the pieces of the section that is being filled.
    pieces: Vec<Digest>,
    /// Roots of the sections before it.
    sections: Vec<Digest>,
    on_their_way: VecDeque<Answer>,
    /// A part did not get on its way, or did not arrive.
    broken: bool,
}

impl Store {
    /// Begins to put an object.
    ///
    /// # Errors
    /// `Shape` if the system gives no random numbers.
    pub fn upload(&self, group: Group, time_ms: u64) -> Result<Upload<'_>, StorageError> {
        let id = random_id()?;
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Ok(Upload {
            store: self,
            group,
            time_ms,
            id,
            pending: BytesMut::new(),
            bytes: 0,
            parts: 0,
            pieces: Vec::new(),
            sections: Vec::new(),
            on_their_way: VecDeque::new(),
            broken: false,
        })
    }

    /// Puts an object of which all bytes are at hand. Durable when it returns; that it is put twice does no harm.
    ///
    /// # Errors
    /// `Full`, `ReadOnly`, `TooLong`, `Stopped`.
    pub async fn put(&self, group: Group, time_ms: u64, bytes: Bytes) -> Result<Stored, StorageError> {
        if bytes.len() <= PART_BYTES {
            let root = crate::content_root(self.hash(), &bytes);
            let length = bytes.len() as u64;
            self.put_record(group, root, Kind::Whole, bytes, time_ms).await?;
            return Ok(Stored { root, bytes: length });
        }
        let mut upload = self.upload(group, time_ms)?;
        upload.write(&bytes).await?;
        upload.finish().await
    }

    /// An object, to be read.
    ///
    /// # Errors
    /// `NotFound`; `Damaged`; `WrongContent` if what is found does not have the root.
    pub async fn object(&self, root: &Digest) -> Result<Object<'_>, StorageError> {
        let (kind, record) = self.record(root).await?;
        let content = match kind {
            Kind::Whole => {
                if crate::content_root(self.hash(), &record) != *root {
                    return Err(StorageError::WrongContent);
                }
                Content::Whole(record)
            }
            Kind::Manifest => Content::Parts { manifest: Manifest::decode(&record, self.hash(), root)?, section: None },
            // Half of the key is that of a part: no object has that root.
            Kind::Part | Kind::Upload | Kind::Cold | Kind::Tombstone => return Err(StorageError::NotFound),
        };
        Ok(Object { store: self, content })
    }

    /// A whole object.
    ///
    /// # Errors
    /// As [`Store::object`]; `TooLong` if it has more than `bytes_max` bytes.
    pub async fn get(&self, root: &Digest, bytes_max: usize) -> Result<Bytes, StorageError> {
        let mut object = self.object(root).await?;
        let bytes = object.bytes();
        if bytes > bytes_max as u64 {
            return Err(StorageError::TooLong { bytes, bytes_max: bytes_max as u64 });
        }
        let mut content = BytesMut::with_capacity(usize::try_from(bytes).unwrap_or(bytes_max));
        while (content.len() as u64) < bytes {
            content.extend_from_slice(&object.read(content.len() as u64, bytes_max).await?);
        }
        Ok(content.freeze())
    }

    /// Removes an object; whether there was one. Its room is free when its segments were collected.
    ///
    /// # Errors
    /// `ReadOnly`, `Busy`, `Stopped`; `Damaged`, `Cold` if its manifest cannot be read.
    pub async fn remove(&self, root: &Digest, time_ms: u64) -> Result<bool, StorageError> {
        let kind = match self.locate(root) {
            Ok(location) => location.kind,
            Err(StorageError::NotFound) => return Ok(false),
            Err(error) => return Err(error),
        };
        // What has no parts need not be read, also where it cannot be: in a cold tier that is away.
        let manifest = match kind {
            Kind::Manifest => Some(Manifest::decode(&self.record(root).await?.1, self.hash(), root)?),
            _ => None,
        };
        // First what it is found by: a crash leaves parts of nothing, and never an object without parts.
        let removed = self.remove_record(*root, time_ms).await?;
        if let Some(manifest) = manifest {
            self.remove_parts(&manifest, time_ms).await?;
        }
        Ok(removed)
    }

    async fn remove_parts(&self, manifest: &Manifest, time_ms: u64) -> Result<(), StorageError> {
        for key in manifest.keys() {
            self.remove_record(key, time_ms).await?;
        }
        Ok(())
    }

    /// Keys of all that an object consists of beside its own record; none if that is all of it.
    pub(crate) async fn part_keys(
        &self,
        root: &Digest,
    ) -> Result<Option<impl Iterator<Item = [u8; 32]> + use<>>, StorageError> {
        if self.locate(root)?.kind != Kind::Manifest {
            return Ok(None);
        }
        let (_, record) = self.record(root).await?;
        Ok(Some(Manifest::decode(&record, self.hash(), root)?.keys()))
    }

    /// The manifest of an object, if it has one that can be read.
    async fn manifest(&self, root: &Digest) -> Option<Manifest> {
        let location = self.locate(root).ok()?;
        if location.kind != Kind::Manifest {
            return None;
        }
        let (_, record) = self.record(root).await.ok()?;
        Manifest::decode(&record, self.hash(), root).ok()
    }
}

impl Upload<'_> {
    /// Adds bytes to the object. Waits while too much is on its way.
    ///
    /// # Errors
    /// `Full`, `ReadOnly`, `TooLong` beyond [`OBJECT_BYTES_MAX`]; `Stopped`, also after any failure: the upload has to begin
    /// again.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        // Also when this is dropped before its end: then nobody knows what is on its way.
        if std::mem::replace(&mut self.broken, true) {
            return Err(StorageError::Stopped);
        }
        let written = self.write_on(bytes).await;
        self.broken = written.is_err();
        written
    }

    async fn write_on(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > OBJECT_BYTES_MAX {
            return Err(StorageError::TooLong { bytes: self.bytes, bytes_max: OBJECT_BYTES_MAX });
        }
        while !bytes.is_empty() {
            // A part goes on its way when more is to come: an object of one part needs no manifest.
            if self.pending.len() == PART_BYTES {
                self.send_part().await?;
            }
            let room = PART_BYTES - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.reserve(if self.parts == 0 { now.len() } else { PART_BYTES - self.pending.len() });
            self.pending.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    /// Puts what refers to the parts. The object is durable when this returns, and can be found by its root.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn finish(self) -> Result<Stored, StorageError> {
        self.finish_if(|_| true).await
    }

    /// As [`Upload::finish`], if the object has the root that is expected; else there is none.
    ///
    /// # Errors
    /// `WrongContent` if it has another; as [`Upload::write`].
    pub async fn finish_as(self, expected: &Digest) -> Result<Stored, StorageError> {
        self.finish_if(|root| root == expected).await
    }

    async fn finish_if(mut self, is_expected: impl Fn(&Digest) -> bool + Send) -> Result<Stored, StorageError> {
        if self.broken {
            return Err(StorageError::Stopped);
        }
        let hash = self.store.hash();
        if self.parts == 0 {
            let bytes = std::mem::take(&mut self.pending).freeze();
            let root = crate::content_root(hash, &bytes);
            if !is_expected(&root) {
                return Err(StorageError::WrongContent);
            }
            self.store.put_record(self.group, root, Kind::Whole, bytes, self.time_ms).await?;
            return Ok(Stored { root, bytes: self.bytes });
        }
        self.send_part().await?;
        if !self.pieces.is_empty() {
            self.send_section().await?;
        }
        self.wait_until(0).await?;
        let root = root_of_pieces(hash, &self.sections);
        if !is_expected(&root) {
            return Err(StorageError::WrongContent);
        }
        let manifest = Manifest { upload: self.id, bytes: self.bytes, sections: std::mem::take(&mut self.sections) };
        let (group, time_ms) = (self.group, self.time_ms);
        let end = Bytes::copy_from_slice(&root);
        let before = self.store.manifest(&root).await;
        self.store.put_record(group, upload_key(&self.id), Kind::Upload, end, time_ms).await?;
        self.store.put_record(group, root, Kind::Manifest, manifest.encode(), time_ms).await?;
        if let Some(before) = before {
            // What was put again, because it could not be read, is found by the new manifest alone.
            self.store.remove_parts(&before, time_ms).await?;
        }
        Ok(Stored { root, bytes: self.bytes })
    }

    async fn send_part(&mut self) -> Result<(), StorageError> {
        let bytes = std::mem::take(&mut self.pending).freeze();
        self.pieces.extend(piece_roots(self.store.hash(), &bytes));
        let key = part_key(&self.id, self.parts);
        self.parts += 1;
        self.send(key, bytes, false).await?;
        if self.pieces.len() == SECTION_PIECES {
            self.send_section().await?;
        }
        Ok(())
    }

    async fn send_section(&mut self) -> Result<(), StorageError> {
        let key = section_key(&self.id, self.sections.len() as u64);
        self.sections.push(root_of_pieces(self.store.hash(), &self.pieces));
        let roots = Bytes::from(self.pieces.concat());
        self.pieces.clear();
        // With the last of them begins the end of an upload, which waits for all parts.
        self.send(key, roots, true).await
    }

    async fn send(&mut self, key: [u8; 32], bytes: Bytes, urgent: bool) -> Result<(), StorageError> {
        let put = self.store.begin_put(self.group, key, Kind::Part, bytes, self.time_ms, urgent);
        self.on_their_way.push_back(put.await?);
        self.wait_until(self.parts_max()).await
    }

    /// Parts that are on their way together: more than two batches hold, so that the one that is waited for is in a batch that
    /// is full, and another is filled meanwhile.
    fn parts_max(&self) -> usize {
        PARTS_MIN.max(2 * self.store.shape.data + 1)
    }

    async fn wait_until(&mut self, left: usize) -> Result<(), StorageError> {
        while self.on_their_way.len() > left {
            if let Some(oldest) = self.on_their_way.pop_front() {
                oldest.await.unwrap_or(Err(StorageError::Stopped))?;
            }
        }
        Ok(())
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.store.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// What an object's parts are.
struct Manifest {
    upload: [u8; 16],
    bytes: u64,
    sections: Vec<Digest>,
}

impl Manifest {
    fn encode(&self) -> Bytes {
        let mut encoded = BytesMut::with_capacity(MANIFEST_HEADER_BYTES + self.sections.len() * DIGEST_LENGTH);
        encoded.extend_from_slice(&MANIFEST_MAGIC);
        encoded.extend_from_slice(&self.upload);
        encoded.extend_from_slice(&self.bytes.to_le_bytes());
        self.sections.iter().for_each(|root| encoded.extend_from_slice(root));
        encoded.freeze()
    }

    /// The manifest in a record, if it is that of the object with this root.
    fn decode(record: &[u8], hash: HashAlgorithm, root: &Digest) -> Result<Self, StorageError> {
        let decoded = || {
            let (header, roots) = record.split_first_chunk::<MANIFEST_HEADER_BYTES>()?;
            let rest = header.strip_prefix(&MANIFEST_MAGIC)?;
            let (upload, bytes) = rest.split_first_chunk::<16>()?;
            let bytes = u64::from_le_bytes(*bytes.first_chunk()?);
            let (sections, rest) = roots.as_chunks::<DIGEST_LENGTH>();
            let section_bytes = (SECTION_PIECES * PIECE_BYTES) as u64;
            let complete = rest.is_empty() && sections.len() as u64 == bytes.div_ceil(section_bytes);
            complete.then(|| Self { upload: *upload, bytes, sections: sections.to_vec() })
        };
        let manifest = decoded().ok_or(StorageError::WrongContent)?;
        let genuine = root_of_pieces(hash, &manifest.sections) == *root;
        if genuine { Ok(manifest) } else { Err(StorageError::WrongContent) }
    }

    fn parts(&self) -> u64 {
        self.bytes.div_ceil(PART_BYTES as u64)
    }

    /// Keys of its parts, of what describes them, and of the end of its upload.
    fn keys(&self) -> impl Iterator<Item = [u8; 32]> + use<> {
        let (upload, sections) = (self.upload, self.sections.len() as u64);
        let parts = (0..self.parts()).map(move |part| part_key(&upload, part));
        parts.chain((0..sections).map(move |section| section_key(&upload, section))).chain([upload_key(&upload)])
    }
}

/// An object that can be read.
pub struct Object<'s> {
    store: &'s Store,
    content: Content,
}

enum Content {
    Whole(Bytes),
    Parts {
        manifest: Manifest,
        /// The section that was used last: its number, and the roots of its pieces.
        section: Option<(u64, Bytes)>,
    },
}

impl Object<'_> {
    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Whole(piece) => piece.len() as u64,
            Content::Parts { manifest, .. } => manifest.bytes,
        }
    }

    /// Bytes from `from` on: at least one if there are any, at most `bytes_max`, verified against the object's root.
    ///
    /// # Errors
    /// `Range` behind the end; `Damaged`; `WrongContent`.
    pub async fn read(&mut self, from: u64, bytes_max: usize) -> Result<Bytes, StorageError> {
        let bytes = self.bytes();
        if from > bytes {
            return Err(StorageError::Range { from, bytes });
        }
        let (manifest, section) = match &mut self.content {
            Content::Whole(piece) => {
                let from = usize::try_from(from).expect("inside a record");
                let end = piece.len().min(from.saturating_add(bytes_max));
                return Ok(piece.slice(from..end));
            }
            Content::Parts { manifest, section } => (manifest, section),
        };
        if from == bytes || bytes_max == 0 {
            return Ok(Bytes::new());
        }
        let (hash, store) = (self.store.hash(), self.store);
        let part = from / PART_BYTES as u64;
        let number = from / (SECTION_PIECES * PIECE_BYTES) as u64;
        if section.as_ref().is_none_or(|(known, _)| *known != number) {
            *section = Some((number, read_section(store, manifest, number).await?));
        }
        let Some((_, roots)) = section else { return Err(StorageError::WrongContent) };
        let (_, record) = store.record(&part_key(&manifest.upload, part)).await.map_err(missing)?;
        let within = Range {
            start: usize::try_from(from % PART_BYTES as u64).expect("inside a part"),
            end: record
                .len()
                .min(usize::try_from(from % PART_BYTES as u64).expect("inside a part").saturating_add(bytes_max)),
        };
        if within.is_empty() {
            return Err(StorageError::WrongContent);
        }
        let pieces = within.start / PIECE_BYTES..within.end.div_ceil(PIECE_BYTES);
        let covered = &record[pieces.start * PIECE_BYTES..record.len().min(pieces.end * PIECE_BYTES)];
        let first = usize::try_from(part).unwrap_or(usize::MAX) % (SECTION_PIECES * PIECE_BYTES / PART_BYTES)
            * (PART_BYTES / PIECE_BYTES)
            + pieces.start;
        let expected = roots.get(first * DIGEST_LENGTH..(first + pieces.len()) * DIGEST_LENGTH);
        if expected != Some(&piece_roots(hash, covered).concat()[..]) {
            return Err(StorageError::WrongContent);
        }
        Ok(record.slice(within))
    }
}

async fn read_section(store: &Store, manifest: &Manifest, number: u64) -> Result<Bytes, StorageError> {
    let (_, record) = store.record(&section_key(&manifest.upload, number)).await.map_err(missing)?;
    let (roots, rest) = record.as_chunks::<DIGEST_LENGTH>();
    let expected = usize::try_from(number).ok().and_then(|number| manifest.sections.get(number));
    let genuine = rest.is_empty() && expected == Some(&root_of_pieces(store.hash(), roots));
    if genuine { Ok(record) } else { Err(StorageError::WrongContent) }
}

/// A part that is not there is damage: its object is.
fn missing(error: StorageError) -> StorageError {
    match error {
        StorageError::NotFound => StorageError::WrongContent,
        other => other,
    }
}

fn part_key(upload: &[u8; 16], number: u64) -> [u8; 32] {
    derived_key(b"stele/part/v1", upload, number)
}

fn section_key(upload: &[u8; 16], number: u64) -> [u8; 32] {
    derived_key(b"stele/section/v1", upload, number)
}

/// The upload that a manifest is of, if the record is one.
pub(crate) fn upload_of_manifest(record: &[u8]) -> Option<&[u8; 16]> {
    record.strip_prefix(&MANIFEST_MAGIC)?.first_chunk()
}

/// The key under which the end of an upload is put.
pub(crate) fn upload_key(upload: &[u8; 16]) -> [u8; 32] {
    derived_key(b"stele/upload/v1", upload, 0)
}

/// The upload that a part's key belongs to.
pub(crate) fn upload_of(key: &[u8; 32]) -> &[u8; 16] {
    key.last_chunk().expect("a key has 32 bytes")
}

/// The key of what is found only through an object: half a hash, as uniform as a root, and then the upload, so that whoever
/// finds a part can tell whose it is.
fn derived_key(domain: &[u8], upload: &[u8; 16], number: u64) -> [u8; 32] {
    let named = [upload.as_slice(), &number.to_le_bytes()].concat();
    let mut key = digest(HashAlgorithm::Sha256, domain, &named);
    key[16..].copy_from_slice(upload);
    key
}
