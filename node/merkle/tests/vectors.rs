//! Golden vectors: formats that may never change. Another implementation can be tested with this file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stele_merkle::log::{EMPTY_ROOT, Frontier, MemoryTree, leaf_hash, verify_consistency, verify_inclusion};
use stele_merkle::state::StateHash;
use stele_merkle::state::reference::ReferenceMap;

/// The eight leaf inputs of the Certificate Transparency reference implementation, and the root after each.
const ENTRIES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const ROOTS: [&str; 8] = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Inclusion proofs of the same reference: (leaf index, tree size, path).
const INCLUSION: [(u64, u64, &[&str]); 4] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
];

/// Consistency proofs of the same reference: (old size, new size, path).
const CONSISTENCY: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn tree() -> MemoryTree {
    ENTRIES.iter().map(|entry| leaf_hash(&hex::decode(entry).unwrap())).collect()
}

fn hash(text: &str) -> [u8; 32] {
    hex::decode(text).unwrap().try_into().unwrap()
}

#[test]
fn log_roots_are_those_of_certificate_transparency() {
    assert_eq!(hex::encode(EMPTY_ROOT), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_eq!(Frontier::new().root(), EMPTY_ROOT);
    for (size, root) in (1..).zip(ROOTS) {
        assert_eq!(hex::encode(tree().root_at(size).unwrap()), root);
    }
}

#[test]
fn log_proofs_are_those_of_certificate_transparency() {
    let tree = tree();
    for (index, size, path) in INCLUSION {
        let made = stele_merkle::log::inclusion_proof(&tree, index, size).unwrap();
        assert_eq!(made.iter().map(hex::encode).collect::<Vec<_>>(), path);
        let leaf = leaf_hash(&hex::decode(ENTRIES[usize::try_from(index).unwrap()]).unwrap());
        let root = hash(ROOTS[usize::try_from(size - 1).unwrap()]);
        assert_eq!(verify_inclusion(&leaf, index, size, &made, &root), Ok(()));
    }
    for (old, new, path) in CONSISTENCY {
        let made = stele_merkle::log::consistency_proof(&tree, old, new).unwrap();
        assert_eq!(made.iter().map(hex::encode).collect::<Vec<_>>(), path);
        let root = |size: u64| hash(ROOTS[usize::try_from(size - 1).unwrap()]);
        assert_eq!(verify_consistency(old, &root(old), new, &root(new), &made), Ok(()));
    }
}

#[test]
fn the_frontier_encoding_is_fixed() {
    let mut frontier = Frontier::new();
    ENTRIES[..5].iter().for_each(|entry| frontier.append(leaf_hash(&hex::decode(entry).unwrap())));
    let bytes = format!("0000000000000005{}{}", ROOTS[3], hex::encode(leaf_hash(&[0x30, 0x31])));
    assert_eq!(hex::encode(frontier.encode()), bytes);
}

/// The map of the vectors: key i is H(0x02 ‖ "key" ‖ i), value i is i bytes of i, for i from 0.
fn map(hash: StateHash, count: u8) -> ReferenceMap {
    let mut map = ReferenceMap::new(hash);
    for index in 0..count {
        map.set(hash.value(&[b'k', b'e', b'y', index]), Some(vec![index; usize::from(index)]));
    }
    map
}

#[test]
fn state_hashes_are_the_published_functions() {
    // "abc" under the plain functions, so that a reader sees which H is meant (FIPS 180-4, GB/T 32905 annex A.1).
    use sha2::Digest as _;
    assert_eq!(
        hex::encode(sha2::Sha256::digest(b"abc")),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
    assert_eq!(
        hex::encode(sm3::Sm3::digest(b"abc")),
        "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    );
    let plain = |bytes: &[u8]| -> [u8; 32] { sha2::Sha256::digest(bytes).into() };
    let hash = StateHash::Sha256;
    assert_eq!(hash.value(b"v"), plain(b"\x02v"));
    assert_eq!(hash.leaf(&[1; 32], &[2; 32]), plain(&[&[0][..], &[1; 32], &[2; 32]].concat()));
    assert_eq!(hash.node(&[1; 32], &[2; 32]), plain(&[&[1][..], &[1; 32], &[2; 32]].concat()));
}

#[test]
fn state_roots_are_fixed() {
    let expected = [
        (StateHash::Sha256, 0, "0000000000000000000000000000000000000000000000000000000000000000"),
        (StateHash::Sha256, 1, "88f418a979218533edd029435271c9f30f8b51d848bee9f8ded8388a4fb8f72b"),
        (StateHash::Sha256, 2, "f4d9cb2d7ce11158cb142c27425d838fabc01618f5ad162993131754f9f47169"),
        (StateHash::Sha256, 3, "bdb1727ce3f766854843ca9c5acf1439b100c911c825355d920553f4e8789a67"),
        (StateHash::Sha256, 200, "db9afaa13eb78c64e27d4f1c7205e4bf1c35c7e73db149665da824746f700e30"),
        (StateHash::Sm3, 0, "0000000000000000000000000000000000000000000000000000000000000000"),
        (StateHash::Sm3, 1, "5719a0260ce0bdc78e70d4a2a79190e86f8376d53a0a494622aebcd311ffc654"),
        (StateHash::Sm3, 2, "22cefbc47afe3477974907cb32ee18cda95194349078937b9eac8bcf3ceb7136"),
        (StateHash::Sm3, 3, "04f110ab8b8dd628a4adae1fd13ac69b9c40d57a29b33df3e8acba70ca95597c"),
        (StateHash::Sm3, 200, "b4a6f867256344132a9c6bf011590d21799669f0ac987628a95d35c6bb50783a"),
    ];
    let found = expected.map(|(hash, count, _)| (hash, count, hex::encode(map(hash, count).root())));
    assert_eq!(found, expected.map(|(hash, count, root)| (hash, count, root.to_owned())));
}

#[test]
fn state_proofs_are_fixed() {
    // Pinned by SHA-256 over the encodings of the proofs of 200 present and 56 absent keys.
    let expected = [
        (StateHash::Sha256, "8c9046b87e7e4a8c837f2b17d5d6df602af30657ab51b7443618c0b16ec6ff2e"),
        (StateHash::Sm3, "af20c6c758eb2fcb220cf1edf5592acc26b6ac02e2df7493ca6e89d5c388ca62"),
    ];
    let found = expected.map(|(hash, _)| {
        let map = map(hash, 200);
        let mut bytes = Vec::new();
        for index in 0..=255 {
            let key = hash.value(&[b'k', b'e', b'y', index]);
            let proof = map.prove(&key);
            assert_eq!(proof.verify(hash, &map.root(), &key, map.get(&key)), Ok(()));
            bytes.extend(proof.encode());
        }
        (hash, hex::encode(leaf_hash(&bytes)))
    });
    assert_eq!(found, expected.map(|(hash, pin)| (hash, pin.to_owned())));
    // One in full: key 1 in the map of two.
    let key = StateHash::Sha256.value(b"key\x01");
    assert_eq!(
        hex::encode(map(StateHash::Sha256, 2).prove(&key).encode()),
        "0100024088f418a979218533edd029435271c9f30f8b51d848bee9f8ded8388a4fb8f72b"
    );
}
