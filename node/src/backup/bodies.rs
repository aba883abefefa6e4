//! Sealed bodies: in packs, which are shared by all backups, and a list for each backup that says which are its own.
//!
//! ```text
//!  pack ::= "STELPCK1" body*          body ::= "BODY" class (1) 0 (1) year (2) root (32) bytes (8)   the sealed form
//!  list ::= "STELLST1" place*         place ::= root (32) pack (8) offset (8) bytes (8) class (1) 0 (1) year (2)
//! ```
//!
//! Integers are little-endian; the list is in order of roots. A root is that of the sealed form, so a body proves itself.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use stele_accel_hash::{Digest, HashAlgorithm};
use stele_storage::{Group, OBJECT_BYTES_MAX, PIECE_BYTES, piece_roots, root_of_pieces};
use stele_types::Hash;

use super::BackupError;
use super::file::{CheckedFile, FileEntry, Mark, NewFile, check_room};
use super::manifest::pack_name;

const PACK_MAGIC: [u8; 8] = *b"STELPCK1";
const LIST_MAGIC: [u8; 8] = *b"STELLST1";
const BODY_MAGIC: [u8; 4] = *b"BODY";
const HEADER_BYTES: usize = 4 + 4 + 32 + 8;
const PLACE_BYTES: usize = 32 + 8 + 8 + 8 + 4;

/// A pack is finished when it is this long: what an interrupted backup has to copy again. A longer body has one of its own.
const PACK_BYTES: u64 = 128 << 20;

/// Bodies of one backup at most: 60 bytes each are in memory while it is made or restored.
const BODIES_MAX: u64 = 100_000_000;

/// The list at most.
pub(super) const LIST_BYTES_MAX: u64 = BODIES_MAX * PLACE_BYTES as u64 + 8;

/// Hash of roots of bodies: stores are made with no other.
const ROOT_HASH: HashAlgorithm = HashAlgorithm::Sha256;

/// Pieces whose roots are folded into one: a whole subtree of the object's tree.
const SECTION_PIECES: usize = 1 << 14;

/// Where a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) root: Hash,
    pub(super) pack: u64,
    /// Where its header begins.
    pub(super) offset: u64,
    /// Bytes of the sealed form.
    pub(super) bytes: u64,
    pub(super) group: Group,
}

/// Writes bodies into packs.
pub(super) struct Packs {
    root: PathBuf,
    next: u64,
    open: Option<(u64, NewFile)>,
    finished: Vec<FileEntry>,
    /// Bodies of finished packs, and of the open one.
    pub(super) places: Vec<Place>,
}

/// A body that is being added.
pub(super) struct Adding<'p> {
    packs: &'p mut Packs,
    mark: Mark,
    place: Place,
    left: u64,
    hasher: RootHasher,
}

impl Packs {
    /// The first pack has the number `next`.
    pub(super) fn new(root: &Path, next: u64) -> Self {
        Self { root: root.to_owned(), next, open: None, finished: Vec::new(), places: Vec::new() }
    }

    /// Begins to add a body of so many bytes.
    pub(super) fn add(&mut self, root: Hash, group: Group, bytes: u64) -> Result<Adding<'_>, BackupError> {
        if self.open.as_ref().is_some_and(|(_, pack)| pack.bytes().saturating_add(bytes) > PACK_BYTES) {
            self.close()?;
        }
        let (number, file) = match &mut self.open {
            Some((number, file)) => (*number, file),
            None => {
                check_room(&self.root, bytes.max(PACK_BYTES))?;
                let mut file = NewFile::create(&self.root, &pack_name(self.next))?;
                file.write(&PACK_MAGIC)?;
                let (number, file) = self.open.insert((self.next, file));
                self.next += 1;
                (*number, file)
            }
        };
        let mark = file.mark();
        let place = Place { root, pack: number, offset: file.bytes(), bytes, group };
        file.write(&place.header())?;
        Ok(Adding { packs: self, mark, place, left: bytes, hasher: RootHasher::default() })
    }

    fn close(&mut self) -> Result<(), BackupError> {
        if let Some((_, file)) = self.open.take() {
            self.finished.push(file.finish()?);
        }
        Ok(())
    }

    /// The packs, and the places of the bodies in them.
    pub(super) fn finish(mut self) -> Result<(Vec<FileEntry>, Vec<Place>), BackupError> {
        self.close()?;
        Ok((self.finished, self.places))
    }
}

impl Adding<'_> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        self.hasher.update(bytes);
        match &mut self.packs.open {
            Some((_, file)) => file.write(bytes),
            None => Ok(()),
        }
    }

    /// Ends it; whether what was written is the body of its root. Otherwise nothing of it stays.
    pub(super) fn finish(self) -> Result<bool, BackupError> {
        let Self { packs, mark, place, left, hasher } = self;
        let is_whole = left == 0 && hasher.finish() == place.root;
        if is_whole {
            packs.places.push(place);
        } else if let Some((_, file)) = &mut packs.open {
            file.go_back(mark)?;
        }
        Ok(is_whole)
    }

    /// Gives it up; nothing of it stays.
    pub(super) fn abandon(self) -> Result<(), BackupError> {
        match &mut self.packs.open {
            Some((_, file)) => file.go_back(self.mark),
            None => Ok(()),
        }
    }
}

impl Place {
    fn header(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&BODY_MAGIC);
        header[4] = self.group.class;
        header[6..8].copy_from_slice(&self.group.year.to_le_bytes());
        header[8..40].copy_from_slice(&self.root.0);
        header[40..].copy_from_slice(&self.bytes.to_le_bytes());
        header
    }

    fn from_header(header: &[u8; HEADER_BYTES], pack: u64, offset: u64) -> Option<Self> {
        let rest = header.strip_prefix(&BODY_MAGIC)?;
        let ([class, 0, year @ ..], rest) = rest.split_first_chunk::<4>()? else { return None };
        let (root, bytes) = rest.split_first_chunk()?;
        let bytes =
            bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)).filter(|bytes| *bytes <= OBJECT_BYTES_MAX)?;
        let group = Group { class: *class, year: u16::from_le_bytes([year[0], year[1]]) };
        Some(Self { root: Hash(*root), pack, offset, bytes, group })
    }

    fn push(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.root.0);
        [self.pack, self.offset, self.bytes].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        bytes.extend_from_slice(&[self.group.class, 0]);
        bytes.extend_from_slice(&self.group.year.to_le_bytes());
    }

    fn take(bytes: &[u8; PLACE_BYTES]) -> Option<Self> {
        let (root, rest) = bytes.split_first_chunk()?;
        let (numbers, rest) = rest.split_first_chunk::<24>()?;
        let ([pack, offset, length], []) = numbers.as_chunks::<8>() else { return None };
        let [class, 0, year @ ..] = rest else { return None };
        let number = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
        let group = Group { class: *class, year: u16::from_le_bytes(*year.first_chunk()?) };
        Some(Self { root: Hash(*root), pack: number(pack), offset: number(offset), bytes: number(length), group })
    }
}

/// The list of a backup; `places` are in order of their roots.
pub(super) fn encode_list(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LIST_MAGIC.len() + places.len() * PLACE_BYTES);
    bytes.extend_from_slice(&LIST_MAGIC);
    places.iter().for_each(|place| place.push(&mut bytes));
    bytes
}

/// None if the bytes are no list in order.
pub(super) fn decode_list(bytes: &[u8]) -> Option<Vec<Place>> {
    let (places, rest) = bytes.strip_prefix(&LIST_MAGIC)?.as_chunks::<PLACE_BYTES>();
    let places: Option<Vec<Place>> = places.iter().map(Place::take).collect();
    places.filter(|places| rest.is_empty() && places.windows(2).all(|pair| pair[0].root < pair[1].root))
}

/// Bodies of a pack that is in no manifest: an interrupted backup finished it. Their content is not read.
pub(super) fn listed_in(root: &Path, number: u64) -> Result<Vec<Place>, BackupError> {
    let path = root.join(pack_name(number));
    let failed = || BackupError::io("read", &path);
    let mut file = BufReader::new(File::open(&path).map_err(failed())?);
    let end = file.get_ref().metadata().map_err(failed())?.len();
    let mut offset = PACK_MAGIC.len() as u64;
    let mut places = Vec::new();
    while offset < end {
        let mut header = [0; HEADER_BYTES];
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut header));
        let place = read.ok().and_then(|()| Place::from_header(&header, number, offset));
        let Some(place) = place else { return Err(BackupError::FileDamaged(path)) };
        offset += HEADER_BYTES as u64 + place.bytes;
        places.push(place);
    }
    if offset == end { Ok(places) } else { Err(BackupError::FileDamaged(path)) }
}

/// Shows the bodies of a pack that `places` list, which are in order of their offsets. Each has to be read to its end.
pub(super) fn each_body(
    root: &Path,
    entry: &FileEntry,
    places: &[Place],
    mut show: impl FnMut(&Place, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut file = CheckedFile::open(root, entry)?;
    let read = read_pack(&mut file, places, &mut show);
    file.judge(read)
}

fn read_pack(
    file: &mut CheckedFile,
    places: &[Place],
    show: &mut dyn FnMut(&Place, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let path = file.path().to_owned();
    let mut magic = [0; PACK_MAGIC.len()];
    file.fill(&mut magic)?;
    for place in places {
        let misfit = || body_error(&path, &place.root, "it is not where the list says");
        let skipped = place.offset.checked_sub(file.position()).ok_or_else(misfit)?;
        io::copy(&mut file.by_ref().take(skipped), &mut io::sink()).map_err(BackupError::io("read", &path))?;
        let mut header = [0; HEADER_BYTES];
        file.fill(&mut header)?;
        if Place::from_header(&header, place.pack, place.offset) != Some(*place) {
            return Err(misfit());
        }
        let end = file.position() + place.bytes;
        show(place, &mut file.by_ref().take(place.bytes))?;
        if file.position() != end {
            return Err(body_error(&path, &place.root, "it ends early"));
        }
    }
    Ok(())
}

pub(super) fn body_error(path: &Path, root: &Hash, reason: &str) -> BackupError {
    BackupError::Body { path: path.to_owned(), root: root.to_hex(), reason: reason.to_owned() }
}

/// The root of a body whose bytes come one after the other.
#[derive(Default)]
pub(super) struct RootHasher {
    pending: Vec<u8>,
    pieces: Vec<Digest>,
    sections: Vec<Digest>,
}

impl RootHasher {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(16 * PIECE_BYTES - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == 16 * PIECE_BYTES {
                self.take_pending();
            }
        }
    }

    fn take_pending(&mut self) {
        self.pieces.extend(piece_roots(ROOT_HASH, &self.pending));
        self.pending.clear();
        if self.pieces.len() == SECTION_PIECES {
            self.sections.push(root_of_pieces(ROOT_HASH, &self.pieces));
            self.pieces.clear();
        }
    }

    pub(super) fn finish(mut self) -> Hash {
        if !self.pending.is_empty() {
            self.take_pending();
        }
        if !self.pieces.is_empty() {
            self.sections.push(root_of_pieces(ROOT_HASH, &self.pieces));
        }
        Hash(root_of_pieces(ROOT_HASH, &self.sections))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    fn root(bytes: &[u8]) -> Hash {
        Hash(stele_storage::content_root(ROOT_HASH, bytes))
    }

    #[test]
    fn roots_of_parts_are_those_of_the_whole() {
        for length in [0, 1, 4_096, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 3_000_000] {
            let bytes = content(length);
            let mut hasher = RootHasher::default();
            bytes.chunks(70_001).for_each(|part| hasher.update(part));
            assert_eq!(hasher.finish(), root(&bytes), "{length}");
        }
    }

    #[test]
    fn bodies_come_back_from_packs_and_what_is_not_whole_does_not_stay() {
        let directory = tempfile::tempdir().unwrap();
        let mut packs = Packs::new(directory.path(), 3);
        let bodies: Vec<Vec<u8>> = [100, 0, 200_000].into_iter().map(content).collect();
        let group = Group { class: 2, year: 2056 };
        for body in &bodies {
            let mut cut = packs.add(root(body), group, body.len() as u64 + 1).unwrap();
            cut.write(body).unwrap();
            assert!(!cut.finish().unwrap(), "it is shorter than was said");
            packs.add(root(body), group, 5).unwrap().abandon().unwrap();
            let mut adding = packs.add(root(body), group, body.len() as u64).unwrap();
            body.chunks(7_000).for_each(|part| adding.write(part).unwrap());
            assert!(adding.finish().unwrap());
        }
        let (files, places) = packs.finish().unwrap();
        assert_eq!((files.len(), places.len()), (1, 3));
        assert_eq!(listed_in(directory.path(), 3).unwrap(), places);
        let mut read = Vec::new();
        let take = |place: &Place, bytes: &mut dyn Read| {
            let mut body = Vec::new();
            bytes.read_to_end(&mut body).unwrap();
            read.push((place.root, body));
            Ok(())
        };
        each_body(directory.path(), &files[0], &places[1..], take).unwrap();
        assert_eq!(read.iter().map(|(_, body)| body.len()).collect::<Vec<_>>(), [0, 200_000]);
        assert!(read.iter().all(|(place, body)| *place == root(body)));
        let wrong = Place { bytes: 99, ..places[0] };
        let refused = each_body(directory.path(), &files[0], &[wrong], |_, _| Ok(())).unwrap_err();
        assert_eq!(refused.code(), "backup_body");
    }

    #[test]
    fn lists_come_back_and_no_other_bytes_pass() {
        let place =
            |root| Place { root: Hash([root; 32]), pack: 1, offset: 8, bytes: 9, group: Group { class: 1, year: 0 } };
        let bytes = encode_list(&[place(1), place(2)]);
        assert_eq!(decode_list(&bytes).unwrap(), [place(1), place(2)]);
        assert!(decode_list(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode_list(&encode_list(&[place(2), place(1)])).is_none());
        assert!(decode_list(&encode_list(&[place(1), place(1)])).is_none());
    }
}
