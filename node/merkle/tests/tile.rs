//! Tile addresses and contents, C2SP tlog-tiles.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use stele_merkle::Hash;
use stele_merkle::log::{HashSource, MemoryTree, SIZE_MAX, inclusion_proof, leaf_hash};
use stele_merkle::tile::{
    ENTRY_BYTES_MAX, TILE_PATH_BYTES_MAX, Tile, TileError, TileKind, entry_bundle, parse_entry_bundle, parse_hash_bytes,
};

const LEAVES: TileKind = TileKind::Hashes { level: 0 };

#[test]
fn paths_are_those_of_the_specification() {
    let path = |kind, index, width| Tile::new(kind, index, width).unwrap().path();
    assert_eq!(path(LEAVES, 0, 256), "tile/0/000");
    assert_eq!(path(LEAVES, 999, 256), "tile/0/999");
    assert_eq!(path(LEAVES, 1000, 256), "tile/0/x001/000");
    assert_eq!(path(LEAVES, 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(TileKind::Hashes { level: 3 }, 5, 112), "tile/3/005.p/112");
    assert_eq!(path(TileKind::Entries, 1_000_000, 1), "tile/entries/x001/x000/000.p/1");
}

#[test]
fn paths_of_another_form_are_refused() {
    for path in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/000/",
        "tile//000",
        "tile/00/000",
        "tile/01/000",
        "tile/+1/000",
        "tile/-1/000",
        "tile/64/000",
        "tile/256/000",
        "tile/8/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/x000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/x01/000",
        "tile/0/X001/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000.p/1.p/1",
        "tile/0/000.p/65537",
        "tile/0/0٠0",
        "tile/entries/",
        "tile/Entries/000",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/x018/x446/x744/x073/x709/x551/616",
        "tile/7/000",
        "tile/entries/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert!(Tile::parse(path).is_err(), "{path:?}");
    }
    assert_eq!(Tile::new(LEAVES, 0, 0), Err(TileError::Width { width: 0 }));
    assert_eq!(Tile::new(LEAVES, 0, 257), Err(TileError::Width { width: 257 }));
    assert_eq!(Tile::new(TileKind::Hashes { level: 8 }, 0, 1), Err(TileError::Level { level: 8 }));
    assert_eq!(Tile::new(LEAVES, u64::MAX, 1), Err(TileError::Index { index: u64::MAX }));
    assert_eq!(Tile::new(LEAVES, SIZE_MAX / 256, 1), Err(TileError::Index { index: SIZE_MAX / 256 }));
    assert!(Tile::new(TileKind::Hashes { level: 7 }, 0, 64).is_ok());
}

#[test]
fn tiles_cover_every_hash_that_a_proof_reads() {
    let tree: MemoryTree = (0..70_000_u64).map(|index| leaf_hash(&index.to_be_bytes())).collect();
    for size in [1, 255, 256, 257, 65_536, 65_793, 70_000] {
        for level in 0..3_u8 {
            let kind = TileKind::Hashes { level };
            let count = size >> (8 * level);
            assert_eq!(Tile::covering(kind, count, size), None);
            for index in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|index| *index < count) {
                let tile = Tile::covering(kind, index, size).unwrap();
                assert!(tile.is_in(size));
                assert_eq!(Tile::parse(&tile.path()), Ok(tile));
                let bytes = tile.hash_bytes(&tree).unwrap();
                let hashes = parse_hash_bytes(&bytes, tile.width()).unwrap();
                assert_eq!(Some(hashes[usize::try_from(index - tile.first()).unwrap()]), tree.hash(8 * level, index));
                if u64::from(tile.width()) < 256 {
                    let wider = Tile::new(kind, tile.index(), tile.width() + 1).unwrap();
                    assert!(!wider.is_in(size));
                }
            }
        }
    }
}

/// What a client does: it has nothing but tiles, and proves inclusion from them.
#[test]
fn a_client_proves_inclusion_from_tiles_alone() {
    struct Tiles<'a> {
        tree: &'a MemoryTree,
        size: u64,
    }
    impl HashSource for Tiles<'_> {
        fn hash(&self, level: u8, index: u64) -> Option<Hash> {
            let below = level % 8;
            let kind = TileKind::Hashes { level: level / 8 };
            let first = index << below;
            let leaves = (0..1_u64 << below).map(|offset| {
                let tile = Tile::covering(kind, first + offset, self.size)?;
                let bytes = tile.hash_bytes(self.tree).ok()?;
                let at = usize::try_from(first + offset - tile.first()).ok()?;
                parse_hash_bytes(&bytes, tile.width()).ok()?.get(at).copied()
            });
            Some(stele_merkle::log::root_of(&leaves.collect::<Option<Vec<_>>>()?))
        }
    }
    let tree: MemoryTree = (0..1_000_u64).map(|index| leaf_hash(&index.to_be_bytes())).collect();
    let tiles = Tiles { tree: &tree, size: 900 };
    for index in [0, 255, 256, 700, 899] {
        assert_eq!(inclusion_proof(&tiles, index, 900), inclusion_proof(&tree, index, 900));
    }
}

#[test]
fn entry_bundles_round_trip_and_refuse_other_lengths() {
    let longest = vec![5; ENTRY_BYTES_MAX];
    let entries: [&[u8]; 4] = [b"", b"one", &[0; 300], &longest];
    let bytes = entry_bundle(entries).unwrap();
    assert_eq!(bytes[..7], [0, 0, 0, 3, b'o', b'n', b'e']);
    assert_eq!(parse_entry_bundle(&bytes, 4).unwrap(), entries);
    assert!(parse_entry_bundle(&bytes, 3).is_err());
    assert!(parse_entry_bundle(&bytes, 5).is_err());
    assert!(parse_entry_bundle(&bytes[..bytes.len() - 1], 4).is_err());
    assert!(parse_entry_bundle(&bytes, 0).is_err());
    assert!(parse_entry_bundle(&bytes, 257).is_err());
    let too_long = vec![0; ENTRY_BYTES_MAX + 1];
    assert_eq!(entry_bundle([&too_long[..]]), Err(TileError::Entry { length: ENTRY_BYTES_MAX + 1 }));
    assert_eq!(entry_bundle(std::iter::repeat_n(&b"x"[..], 257)), Err(TileError::Width { width: 257 }));
    assert_eq!(entry_bundle([]), Err(TileError::Width { width: 0 }));
}

proptest! {
    #[test]
    fn every_tile_parses_back(level in 0_u8..8, entries: bool, index: u64, shift in 0_u32..64, width in 1_u16..=256) {
        let kind = if entries { TileKind::Entries } else { TileKind::Hashes { level } };
        if let Ok(tile) = Tile::new(kind, index >> shift, width) {
            let path = tile.path();
            prop_assert!(path.len() <= TILE_PATH_BYTES_MAX);
            prop_assert_eq!(Tile::parse(&path), Ok(tile));
        }
    }

    #[test]
    fn a_parsed_path_is_the_only_one(path in "tile/([0-9]|entries)/(x?[0-9]{3}/){0,4}[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.path(), path);
        }
    }
}
