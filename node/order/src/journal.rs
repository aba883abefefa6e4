//! The engine's journal, made ready before the engine opens it.
//!
//! The journal holds what a validator needs to know of the running height: its votes and the block it is locked on. The
//! engine takes a sound one, cuts off an entry that the end of the file cuts short, and stops for good at anything else.
//! The signer's guard remembers votes, too, and is written a moment earlier: when a vote is signed, not yet when it is
//! sent. Three things follow.
//!
//! * **A tail that was never flushed** is what a power failure leaves. Nothing was sent because of it, so it is cut off.
//! * **A journal that is damaged or lost** has taken the locks along. A validator that votes on without them may help to
//!   decide a second block, and its guard does not prevent that: a vote in a later round contradicts no earlier one. So
//!   whoever voted at a height that the journal does not hold abstains until that height is decided.
//! * **A vote that was signed and never sent** is in the guard and not in the journal, because the engine flushes the
//!   journal before it sends. The others may wait for just that vote: two of four that have decided how to vote, while the
//!   fourth is away. So the validator takes part in the round again; asked for the same vote the guard gives the same
//!   signature. The engine may want another vote this time, which the guard withholds; and who does not vote in a round
//!   cannot leave it by itself. After a power failure everywhere all validators may be in that state at the same step, and
//!   the height would never end. So when that happens, or the engine had to be started again since nothing went on, such a
//!   round is left: the journal gets the timeout that ends it. Rounds may end at any time; what is locked stays locked.
//!
//! ```text
//!   version u32 │ height u64 │ entry: compressed u8, length u64, CRC-32 u32, bytes │ …      integers big endian
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use malachite::app::consensus::Input;
use malachite::app::engine::wal::{decode_entry, encode_entry};
use malachite_core_types::{Round, Timeout, TimeoutKind};
use stele_types::vote::VoteKind;
use stele_types::{Height, ValidatorId};
use tracing::{error, warn};

use crate::codec::EngineCodec;
use crate::context::Stele;
use crate::engine::{JOURNAL_FILE, directory_file};
use crate::signer::{LastBallot, VoteSigner, vote_kind};

const HEADER_BYTES: usize = 12;
const ENTRY_HEADER_BYTES: usize = 13;
const VERSION: u32 = 1;
/// The journal of one height: each round adds some kilobytes. Beyond this it is not read, and counts as damaged.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// A damaged journal is kept beside the new one, for whoever looks for the cause.
const DAMAGED_FILE: &str = "consensus.wal.damaged";

/// Rounds that are left in one go. Each takes seconds, so a height that has run through as many has stood for hours.
const ROUNDS_MAX: u32 = 10_000;

/// Where a file stops being a journal.
enum Scan {
    /// Nowhere before `end`; what lies behind it was never flushed.
    Sound {
        height: u64,
        end: usize,
        entries: Vec<Input<Stele>>,
    },
    /// The file ends before its height: it was being made.
    Unborn,
    Damaged(&'static str),
}

/// A sound journal.
struct Journal {
    height: u64,
    entries: Vec<Input<Stele>>,
}

impl Journal {
    /// Whether a ballot of `own` is in it; then it may have been sent.
    fn holds(&self, own: ValidatorId, ballot: LastBallot) -> bool {
        self.entries.iter().any(|entry| match entry {
            Input::Vote(vote) => {
                let vote = &vote.message;
                (vote.address.0, vote.height.0, vote.round.as_u32(), vote_kind(vote.kind))
                    == (own, ballot.height.0, Some(ballot.round), ballot.kind)
            }
            _ => false,
        })
    }
}

/// Makes the journal in `directory` one that the engine opens and a validator can go on with at the height `running`. The
/// vote that was signed and never sent, if there is one and its round was not left: it is if `leaves`.
///
/// # Errors
/// When the file cannot be read or written, or the guard does not take that this node abstains.
pub(crate) async fn prepare(
    directory: &Path,
    running: Height,
    own: ValidatorId,
    signer: &dyn VoteSigner,
    leaves: bool,
) -> io::Result<Option<LastBallot>> {
    let journal = recover(directory)?;
    let last = signer.last().await.map_err(io::Error::other)?;
    let Some(last) = last.filter(|last| last.height >= running) else { return Ok(None) };
    let (height, round, kind) = (last.height.0, last.round, last.kind);
    match journal {
        Some(journal) if journal.height == height && round < ROUNDS_MAX => {
            // Whoever signed a proposal and did not send it votes with the others in that round.
            if kind == VoteKind::Proposal || journal.holds(own, last) {
                return Ok(None);
            }
            if !leaves {
                warn!(
                    height,
                    round,
                    ?kind,
                    "a vote was signed and never sent: it is sent when the engine wants it again"
                );
                return Ok(Some(last));
            }
            warn!(height, round, ?kind, "a vote was signed and never sent: the validator goes on with the next round");
            leave_rounds(directory, round)?;
            Ok(None)
        }
        _ => {
            warn!(height, "the journal of a height that this validator voted at is gone: it abstains there");
            signer.abstain(last.height).await.map_err(io::Error::other)?;
            Ok(None)
        }
    }
}

/// Adds the timeouts that end every round up to `round`; in a round that is over already they do nothing.
fn leave_rounds(directory: &Path, round: u32) -> io::Result<()> {
    let mut bytes = Vec::new();
    for round in 0..=round {
        let timeout = Timeout::new(Round::new(round), TimeoutKind::Precommit);
        let mut body = Vec::new();
        encode_entry::<Stele, _, _>(Input::TimeoutElapsed(timeout), &EngineCodec, &mut body)?;
        bytes.push(0);
        bytes.extend((body.len() as u64).to_be_bytes());
        bytes.extend(crc32fast::hash(&body).to_be_bytes());
        bytes.extend(body);
    }
    let mut file = OpenOptions::new().append(true).open(directory_file(directory, JOURNAL_FILE))?;
    file.write_all(&bytes)?;
    file.sync_all()
}

/// The journal, cut to what was flushed. None when there is none or it is damaged, which is then moved aside.
fn recover(directory: &Path) -> io::Result<Option<Journal>> {
    let path = directory_file(directory, JOURNAL_FILE);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    (&file).take(JOURNAL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match scan(&bytes) {
        Scan::Sound { height, end, entries } => {
            let tail = bytes.len() - end;
            if tail > 0 {
                warn!(height, tail, "the journal ends in bytes that were never flushed; they are cut off");
                file.set_len(end as u64)?;
                file.sync_all()?;
            }
            Ok(Some(Journal { height, entries }))
        }
        Scan::Unborn => {
            fs::remove_file(&path)?;
            Ok(None)
        }
        Scan::Damaged(what) => {
            let aside = directory_file(directory, DAMAGED_FILE);
            error!(what, kept = %aside.display(), "the journal is damaged; the engine starts with an empty one");
            fs::rename(&path, &aside)?;
            File::open(directory)?.sync_all()?;
            Ok(None)
        }
    }
}

fn scan(bytes: &[u8]) -> Scan {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Scan::Unborn };
    let [v0, v1, v2, v3, height @ ..] = *header;
    if u32::from_be_bytes([v0, v1, v2, v3]) != VERSION {
        return Scan::Damaged("it is not a journal of this version");
    }
    if bytes.len() as u64 > JOURNAL_BYTES_MAX {
        return Scan::Damaged("it is longer than any height makes it");
    }
    let mut end = HEADER_BYTES;
    let mut entries = Vec::new();
    while let Some(body) = entry(&bytes[end..]) {
        end += ENTRY_HEADER_BYTES + body.len();
        match decode_entry(&EngineCodec, body) {
            Ok(entry) => entries.push(entry),
            Err(_) => return Scan::Damaged("an entry is none of this program"),
        }
    }
    // Appending is all that happens to a journal, so nothing sound lies behind what was cut short.
    if (end + 1..bytes.len()).any(|at| entry(&bytes[at..]).is_some()) {
        return Scan::Damaged("an entry does not match its checksum");
    }
    Scan::Sound { height: u64::from_be_bytes(height), end, entries }
}

/// The sound entry at the start of `bytes`, if there is one.
fn entry(bytes: &[u8]) -> Option<&[u8]> {
    let ([compressed, header @ ..], rest) = bytes.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
    let (length, checksum) = header.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
    // No entry is empty, but to the engine zeros look like entries that are: their checksum is right.
    let body = rest.get(..length).filter(|body| *compressed == 0 && !body.is_empty())?;
    (*checksum == crc32fast::hash(body).to_be_bytes()).then_some(body)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use malachite::app::wal::Log;
    use malachite_core_types::{SignedMessage, VoteType};
    use stele_types::vote::Ballot;
    use stele_types::{VoteKey, VoteSignature};

    use super::*;
    use crate::context::{Address, EngineHeight, Seal, Vote};
    use crate::signer::SignerError;

    const OWN: ValidatorId = ValidatorId([7; 32]);
    const HEIGHT: u64 = 9;

    fn encoded(input: Input<Stele>) -> Vec<u8> {
        let mut body = Vec::new();
        encode_entry(input, &EngineCodec, &mut body).unwrap();
        body
    }

    fn timeout(kind: TimeoutKind, round: u32) -> Vec<u8> {
        encoded(Input::TimeoutElapsed(Timeout::new(Round::new(round), kind)))
    }

    fn vote(from: ValidatorId, kind: VoteType, round: u32) -> Vec<u8> {
        let vote = Vote {
            kind,
            height: EngineHeight(HEIGHT),
            round: Round::new(round),
            value: malachite_core_types::NilOrVal::Nil,
            address: Address(from),
        };
        let seal = Seal::Signed(VoteSignature { key: VoteKey::Direct, signature: [1; 64] });
        encoded(Input::Vote(SignedMessage::new(vote, seal)))
    }

    fn journal(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = VERSION.to_be_bytes().to_vec();
        bytes.extend(HEIGHT.to_be_bytes());
        for entry in entries {
            bytes.push(0);
            bytes.extend((entry.len() as u64).to_be_bytes());
            bytes.extend(crc32fast::hash(entry).to_be_bytes());
            bytes.extend(entry);
        }
        bytes
    }

    /// What becomes of a file: the height it holds, and its bytes afterwards.
    fn recovered(bytes: &[u8]) -> (Option<u64>, Option<Vec<u8>>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(JOURNAL_FILE);
        fs::write(&path, bytes).unwrap();
        let journal = recover(directory.path()).unwrap();
        let aside = fs::read(directory.path().join(DAMAGED_FILE)).ok();
        assert!(aside.is_none_or(|aside| aside == bytes), "kept as it was");
        (journal.map(|journal| journal.height), fs::read(&path).ok())
    }

    fn two() -> (Vec<u8>, Vec<u8>) {
        let entries = [timeout(TimeoutKind::Propose, 0), vote(OWN, VoteType::Prevote, 0)];
        (journal(&entries[..1]), journal(&entries))
    }

    #[test]
    fn a_tail_that_was_never_flushed_is_cut_off_wherever_it_begins() {
        let (one, two) = two();
        for cut in one.len()..two.len() {
            assert_eq!(recovered(&two[..cut]), (Some(HEIGHT), Some(one.clone())), "cut at {cut}");
            let zeroed = [&two[..cut], &vec![0; two.len() - cut]].concat();
            // Where the last bytes are zeros anyway, nothing was lost.
            let rest = if zeroed == two { &two } else { &one };
            assert_eq!(recovered(&zeroed), (Some(HEIGHT), Some(rest.clone())), "zeros from {cut} on");
        }
        assert_eq!(recovered(&two), (Some(HEIGHT), Some(two.clone())));
        for zeros in [1, 12, 13, 14, 5_000] {
            let longer = [two.clone(), vec![0; zeros]].concat();
            assert_eq!(recovered(&longer), (Some(HEIGHT), Some(two.clone())), "{zeros}");
        }
        for cut in 0..HEADER_BYTES {
            assert_eq!(recovered(&two[..cut]), (None, None), "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_last_entry_is_never_taken_for_a_tail() {
        let (one, two) = two();
        // The height's own bytes make it another height's journal, which is as good as none.
        for at in (0..one.len()).filter(|at| !(4..12).contains(at)) {
            let mut bytes = two.clone();
            bytes[at] ^= 1;
            assert_eq!(recovered(&bytes).0, None, "byte {at}");
        }
    }

    #[test]
    fn the_engine_reads_what_is_written_here() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(JOURNAL_FILE);
        let entries = [timeout(TimeoutKind::Propose, 0), vote(OWN, VoteType::Prevote, 0)];
        {
            let mut log = Log::open(&path).unwrap();
            log.reset(HEIGHT).unwrap();
            entries.iter().for_each(|entry| log.append(entry).unwrap());
            log.flush().unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), journal(&entries), "the layout above is the engine's");
        leave_rounds(directory.path(), 1).unwrap();
        let mut log = Log::open(&path).unwrap();
        let read: Vec<Vec<u8>> = log.iter().unwrap().map(Result::unwrap).collect();
        let left = [timeout(TimeoutKind::Precommit, 0), timeout(TimeoutKind::Precommit, 1)];
        assert_eq!(read, [entries, left].concat());
    }

    /// A guard that knows one ballot.
    struct Guard {
        last: LastBallot,
        abstained: Mutex<Option<Height>>,
    }

    #[async_trait]
    impl VoteSigner for Guard {
        async fn sign(&self, _ballot: Ballot) -> Result<VoteSignature, SignerError> {
            Err(SignerError::DoubleSign)
        }
        async fn last(&self) -> Result<Option<LastBallot>, SignerError> {
            Ok(Some(self.last))
        }
        async fn abstain(&self, height: Height) -> Result<(), SignerError> {
            *self.abstained.lock().unwrap() = Some(height);
            Ok(())
        }
    }

    /// What [`prepare`] adds to a journal whose rounds may be left, in entries, and where it abstains.
    async fn prepared(bytes: Option<&[u8]>, running: u64, kind: VoteKind, round: u32) -> (usize, Option<Height>) {
        let (added, abstained, unsent) = prepared_with(true, bytes, running, kind, round).await;
        assert_eq!(unsent, None, "the round was left");
        let (none, also_abstained, unsent) = prepared_with(false, bytes, running, kind, round).await;
        assert_eq!((none, also_abstained), (0, abstained));
        // The round is stayed in exactly where it is left otherwise.
        let last = LastBallot { height: Height(HEIGHT), round, kind };
        assert_eq!(unsent, (added > 0).then_some(last));
        (added, abstained)
    }

    async fn prepared_with(
        leaves: bool,
        bytes: Option<&[u8]>,
        running: u64,
        kind: VoteKind,
        round: u32,
    ) -> (usize, Option<Height>, Option<LastBallot>) {
        let directory = tempfile::tempdir().unwrap();
        if let Some(bytes) = bytes {
            fs::write(directory.path().join(JOURNAL_FILE), bytes).unwrap();
        }
        let last = LastBallot { height: Height(HEIGHT), round, kind };
        let guard = Guard { last, abstained: Mutex::default() };
        let unsent = prepare(directory.path(), Height(running), OWN, &guard, leaves).await.unwrap();
        let before = bytes.map_or(0, |bytes| match scan(bytes) {
            Scan::Sound { entries, .. } => entries.len(),
            _ => 0,
        });
        let after = recover(directory.path()).unwrap().map_or(0, |journal| journal.entries.len());
        (after.saturating_sub(before), guard.abstained.into_inner().unwrap(), unsent)
    }

    #[tokio::test]
    async fn a_round_whose_vote_was_signed_and_never_sent_is_stayed_in_or_left() {
        let sent = journal(&[vote(OWN, VoteType::Prevote, 2)]);
        assert_eq!(prepared(Some(&sent), HEIGHT, VoteKind::Prevote, 2).await, (0, None), "it was sent");
        assert_eq!(prepared(Some(&sent), HEIGHT, VoteKind::Precommit, 2).await, (3, None), "rounds 0, 1 and 2");
        assert_eq!(prepared(Some(&sent), HEIGHT, VoteKind::Prevote, 3).await, (4, None));
        let others = journal(&[vote(ValidatorId([8; 32]), VoteType::Prevote, 2)]);
        assert_eq!(prepared(Some(&others), HEIGHT, VoteKind::Prevote, 2).await, (3, None), "another's vote");
        assert_eq!(prepared(Some(&others), HEIGHT, VoteKind::Proposal, 2).await, (0, None), "it still votes there");
        assert_eq!(prepared(Some(&others), HEIGHT + 1, VoteKind::Prevote, 2).await, (0, None), "the height is over");
    }

    #[tokio::test]
    async fn without_the_journal_of_its_height_a_validator_abstains() {
        let abstains = (0, Some(Height(HEIGHT)));
        assert_eq!(prepared(None, HEIGHT, VoteKind::Prevote, 0).await, abstains, "lost");
        let mut damaged = two().1;
        damaged[0] ^= 1;
        assert_eq!(prepared(Some(&damaged), HEIGHT, VoteKind::Prevote, 0).await, abstains, "damaged");
        let mut other = two().1;
        other[11] ^= 1;
        assert_eq!(prepared(Some(&other), HEIGHT, VoteKind::Prevote, 0).await, abstains, "of another height");
        assert_eq!(prepared(None, HEIGHT + 1, VoteKind::Prevote, 0).await, (0, None), "the height is over");
    }
}
