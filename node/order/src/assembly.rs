//! Puts the parts of proposed blocks together again.
//!
//! Pure: parts in, blocks out. Parts of one block share a stream id that its publisher chose; they may arrive in any
//! order. Everything is bounded per peer, so a peer can only spoil its own streams: bytes held, streams open, bytes of
//! one block. When a peer opens one stream too many, its oldest one is forgotten.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use stele_types::ValidatorId;

use crate::config::PART_BYTES;
use crate::context::{BlockStart, Part};

/// Streams one peer may have open: the running round, the next height, and a re-proposal of each.
const STREAMS_PER_PEER_MAX: usize = 4;

/// Why a part was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PartRefused {
    #[error("the block has {bytes} bytes, at most {max} are allowed")]
    BlockSize { bytes: usize, max: usize },
    #[error("the part has {bytes} bytes where {expected} were announced")]
    PartSize { bytes: usize, expected: usize },
    #[error("part {sequence} lies beyond the block")]
    Sequence { sequence: u64 },
    #[error("the first part is missing or comes twice")]
    Start,
}

struct Stream {
    id: Bytes,
    start: Option<BlockStart>,
    /// Data parts by sequence, from one.
    parts: BTreeMap<u64, Bytes>,
    bytes: usize,
    /// Its block is of no use; what still comes of it is dropped.
    refused: bool,
}

/// Blocks under assembly.
pub(crate) struct Assembly {
    block_bytes_max: usize,
    peers: HashMap<ValidatorId, VecDeque<Stream>>,
}

impl Assembly {
    pub(crate) fn new(block_bytes_max: usize) -> Self {
        Self { block_bytes_max, peers: HashMap::new() }
    }

    /// Adds a part that `peer` sent; the block, once it is whole.
    pub(crate) fn add(
        &mut self,
        peer: ValidatorId,
        stream_id: &Bytes,
        sequence: u64,
        part: Part,
    ) -> Result<Option<(BlockStart, Bytes)>, PartRefused> {
        let block_bytes_max = self.block_bytes_max;
        let (streams, position) = self.stream(peer, stream_id);
        let stream = &mut streams[position];
        if stream.refused {
            return Ok(None);
        }
        match stream.add(sequence, part, block_bytes_max) {
            Ok(()) if stream.is_whole() => {
                let stream = streams.remove(position).ok_or(PartRefused::Start)?;
                stream.into_block().map(Some)
            }
            Ok(()) => Ok(None),
            Err(refused) => {
                streams.remove(position);
                Err(refused)
            }
        }
    }

    /// Drops what came and what comes of a stream whose block is of no use.
    pub(crate) fn refuse(&mut self, peer: ValidatorId, stream_id: &Bytes) {
        let (streams, position) = self.stream(peer, stream_id);
        let stream = &mut streams[position];
        stream.parts.clear();
        (stream.bytes, stream.refused) = (0, true);
    }

    /// The streams of `peer` and where in them the one of that id is; a new one if need be.
    fn stream(&mut self, peer: ValidatorId, stream_id: &Bytes) -> (&mut VecDeque<Stream>, usize) {
        let streams = self.peers.entry(peer).or_default();
        let position = streams.iter().position(|stream| stream.id == *stream_id).unwrap_or_else(|| {
            if streams.len() == STREAMS_PER_PEER_MAX {
                streams.pop_front();
            }
            // The id is copied: a slice would keep the whole received buffer alive.
            let id = Bytes::copy_from_slice(stream_id);
            streams.push_back(Stream { id, start: None, parts: BTreeMap::new(), bytes: 0, refused: false });
            streams.len() - 1
        });
        (streams, position)
    }

    /// Forgets the streams of peers that are gone, or no validators any more.
    pub(crate) fn retain(&mut self, keep: impl Fn(&ValidatorId) -> bool) {
        self.peers.retain(|peer, _| keep(peer));
    }

    /// Forgets streams that announced a height below `height`.
    pub(crate) fn forget_below(&mut self, height: u64) {
        for streams in self.peers.values_mut() {
            streams.retain(|stream| stream.start.is_none_or(|start| start.height.0 >= height));
        }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.peers.values().flatten().map(|stream| stream.bytes).sum()
    }
}

impl Stream {
    fn add(&mut self, sequence: u64, part: Part, block_bytes_max: usize) -> Result<(), PartRefused> {
        match part {
            Part::Start(start) => {
                let bytes = usize::try_from(start.bytes).unwrap_or(usize::MAX);
                if bytes > block_bytes_max || bytes == 0 {
                    return Err(PartRefused::BlockSize { bytes, max: block_bytes_max });
                }
                if sequence != 0 || self.start.is_some() {
                    return Err(PartRefused::Start);
                }
                self.start = Some(start);
            }
            Part::Data(data) => {
                if sequence == 0 || sequence > parts_of(block_bytes_max) {
                    return Err(PartRefused::Sequence { sequence });
                }
                // All parts but the last are full; which one is the last is known from the start.
                if data.is_empty() || data.len() > PART_BYTES {
                    return Err(PartRefused::PartSize { bytes: data.len(), expected: PART_BYTES });
                }
                if self.parts.contains_key(&sequence) {
                    return Ok(());
                }
                self.bytes += data.len();
                self.parts.insert(sequence, data);
            }
            Part::Message(_) | Part::Wake(_) => return Err(PartRefused::Start),
        }
        let Some(start) = self.start else { return Ok(()) };
        let size = usize::try_from(start.bytes).unwrap_or(usize::MAX);
        let last = parts_of(size);
        for (sequence, data) in &self.parts {
            let expected = if *sequence == last { size - PART_BYTES * (count_before(last)) } else { PART_BYTES };
            if *sequence > last {
                return Err(PartRefused::Sequence { sequence: *sequence });
            }
            if data.len() != expected {
                return Err(PartRefused::PartSize { bytes: data.len(), expected });
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.start.is_some_and(|start| u64::from(start.bytes) == self.bytes as u64)
    }

    fn into_block(self) -> Result<(BlockStart, Bytes), PartRefused> {
        let start = self.start.ok_or(PartRefused::Start)?;
        let mut block = BytesMut::with_capacity(self.bytes);
        for part in self.parts.into_values() {
            block.extend_from_slice(&part);
        }
        Ok((start, block.freeze()))
    }
}

/// Data parts of a block of that size.
fn parts_of(bytes: usize) -> u64 {
    bytes.div_ceil(PART_BYTES) as u64
}

fn count_before(last: u64) -> usize {
    usize::try_from(last.saturating_sub(1)).unwrap_or(usize::MAX)
}

/// The parts of a block in sequence, for publication.
pub(crate) fn split(start: BlockStart, block: &Bytes) -> impl Iterator<Item = (u64, Part)> + '_ {
    let data = (0..block.len()).step_by(PART_BYTES).map(|from| {
        let until = block.len().min(from + PART_BYTES);
        Part::Data(block.slice(from..until))
    });
    (0..).zip(std::iter::once(Part::Start(start)).chain(data))
}

#[cfg(test)]
mod tests {
    use malachite_core_types::Round;
    use proptest::prelude::*;

    use super::*;
    use crate::context::EngineHeight;

    const PEER: ValidatorId = ValidatorId([1; 32]);

    fn start(bytes: usize) -> BlockStart {
        BlockStart {
            height: EngineHeight(3),
            round: Round::new(0),
            valid_round: Round::Nil,
            proposer: PEER,
            bytes: u32::try_from(bytes).unwrap(),
        }
    }

    fn id(number: u8) -> Bytes {
        Bytes::from(vec![number; 16])
    }

    fn block(bytes: usize) -> Bytes {
        (0..bytes).map(|index| u8::try_from(index % 251).unwrap()).collect::<Vec<_>>().into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn parts_in_any_order_make_the_block(bytes in 1usize..5 * PART_BYTES, seed in any::<u64>()) {
            let block = block(bytes);
            let mut parts: Vec<_> = split(start(bytes), &block).collect();
            let mut state = seed | 1;
            for index in (1..parts.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let other = usize::try_from(state >> 33).unwrap() % (index + 1);
                parts.swap(index, other);
            }
            let mut assembly = Assembly::new(5 * PART_BYTES);
            let count = parts.len();
            for (index, (sequence, part)) in parts.into_iter().enumerate() {
                let added = assembly.add(PEER, &id(1), sequence, part).unwrap();
                if index + 1 < count {
                    prop_assert!(added.is_none());
                } else {
                    prop_assert_eq!(added, Some((start(bytes), block.clone())));
                }
            }
            prop_assert_eq!(assembly.bytes(), 0);
        }
    }

    #[test]
    fn one_peer_cannot_hold_more_than_its_streams() {
        let mut assembly = Assembly::new(2 * PART_BYTES);
        for stream in 0..50 {
            for sequence in 1..=2 {
                assembly.add(PEER, &id(stream), sequence, Part::Data(block(PART_BYTES))).unwrap();
            }
        }
        assert_eq!(assembly.bytes(), STREAMS_PER_PEER_MAX * 2 * PART_BYTES);
        let beyond = assembly.add(PEER, &id(200), 3, Part::Data(block(1)));
        assert_eq!(beyond, Err(PartRefused::Sequence { sequence: 3 }));
    }

    #[test]
    fn what_comes_of_a_refused_block_is_dropped() {
        let mut assembly = Assembly::new(2 * PART_BYTES);
        let whole = block(PART_BYTES + 5);
        let parts: Vec<_> = split(start(whole.len()), &whole).collect();
        assembly.add(PEER, &id(1), parts[2].0, parts[2].1.clone()).unwrap();
        assert_eq!(assembly.bytes(), 5);
        assembly.refuse(PEER, &id(1));
        for (sequence, part) in parts {
            assert_eq!(assembly.add(PEER, &id(1), sequence, part), Ok(None));
        }
        assert_eq!(assembly.bytes(), 0);
    }

    #[test]
    fn lies_about_sizes_are_refused() {
        let mut assembly = Assembly::new(2 * PART_BYTES);
        let too_large = assembly.add(PEER, &id(1), 0, Part::Start(start(2 * PART_BYTES + 1)));
        assert!(matches!(too_large, Err(PartRefused::BlockSize { .. })));
        assert!(assembly.add(PEER, &id(2), 0, Part::Start(start(0))).is_err());

        assembly.add(PEER, &id(3), 0, Part::Start(start(10))).unwrap();
        let short = assembly.add(PEER, &id(3), 1, Part::Data(block(9)));
        assert_eq!(short, Err(PartRefused::PartSize { bytes: 9, expected: 10 }));

        assembly.add(PEER, &id(4), 2, Part::Data(block(4))).unwrap();
        assert!(assembly.add(PEER, &id(4), 0, Part::Start(start(10))).is_err(), "a second part of a one-part block");
        assert_eq!(assembly.bytes(), 0, "a refused stream is forgotten");
    }

    #[test]
    fn doubled_parts_are_ignored_and_old_heights_forgotten() {
        let mut assembly = Assembly::new(2 * PART_BYTES);
        let whole = block(PART_BYTES + 5);
        let parts: Vec<_> = split(start(whole.len()), &whole).collect();
        for (sequence, part) in parts.iter().take(2).cycle().take(2) {
            assembly.add(PEER, &id(1), *sequence, part.clone()).unwrap();
        }
        assembly.add(PEER, &id(1), parts[1].0, parts[1].1.clone()).unwrap();
        assert_eq!(assembly.bytes(), PART_BYTES);
        assembly.forget_below(4);
        assert_eq!(assembly.bytes(), 0);
    }
}
