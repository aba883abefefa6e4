//! The log tree against the recursive definitions of RFC 9162, and against forged proofs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use stele_merkle::Hash;
use stele_merkle::log::{
    EMPTY_ROOT, Frontier, HashSource, LogError, MemoryTree, PATH_LENGTH_MAX, ProofError, SIZE_MAX, consistency_proof,
    inclusion_proof, inclusion_root, leaf_hash, node_hash, root_of, source_root, verify_consistency, verify_inclusion,
};

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

fn split(count: usize) -> usize {
    let mut power = 1;
    while power * 2 < count {
        power *= 2;
    }
    power
}

/// MTH of RFC 9162 section 2.1.1, word for word.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => EMPTY_ROOT,
        [leaf] => *leaf,
        leaves => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&naive_root(left), &naive_root(right))
        }
    }
}

/// PATH of RFC 9162 section 2.1.3.1, word for word.
fn naive_path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if index < middle {
        (naive_path(index, left), naive_root(right))
    } else {
        (naive_path(index - middle, right), naive_root(left))
    };
    path.push(sibling);
    path
}

/// SUBPROOF of RFC 9162 section 2.1.4.1, word for word.
fn naive_subproof(old: usize, leaves: &[Hash], known: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if known { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let middle = split(leaves.len());
    let (left, right) = leaves.split_at(middle);
    let (mut path, sibling) = if old <= middle {
        (naive_subproof(old, left, known), naive_root(right))
    } else {
        (naive_subproof(old - middle, right, false), naive_root(left))
    };
    path.push(sibling);
    path
}

fn tree(count: u64) -> (Vec<Hash>, MemoryTree) {
    let leaves = leaves(count);
    let tree = MemoryTree::from_leaf_hashes(&leaves);
    (leaves, tree)
}

#[test]
fn roots_equal_the_definition_for_every_small_size() {
    let (leaves, tree) = tree(130);
    let mut frontier = Frontier::new();
    for size in 0..=leaves.len() {
        let root = naive_root(&leaves[..size]);
        assert_eq!(root_of(&leaves[..size]), root);
        assert_eq!(frontier.root(), root);
        assert_eq!(tree.root_at(size as u64), Ok(root));
        if let Some(leaf) = leaves.get(size) {
            frontier.append(*leaf);
        }
    }
    assert_eq!(tree.root_at(131), Err(LogError::Missing { level: 0, index: 130 }));
}

#[test]
fn inclusion_proofs_equal_the_definition_and_verify_for_every_small_tree() {
    let (leaves, tree) = tree(70);
    for size in 1..=leaves.len() {
        let root = naive_root(&leaves[..size]);
        for index in 0..size {
            let path = inclusion_proof(&tree, index as u64, size as u64).unwrap();
            assert_eq!(path, naive_path(index, &leaves[..size]));
            assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &path, &root), Ok(()));
        }
    }
}

#[test]
fn consistency_proofs_equal_the_definition_and_verify_for_every_small_tree() {
    let (leaves, tree) = tree(70);
    for new in 0..=leaves.len() {
        let new_root = naive_root(&leaves[..new]);
        for old in 0..=new {
            let path = consistency_proof(&tree, old as u64, new as u64).unwrap();
            if old > 0 {
                assert_eq!(path, naive_subproof(old, &leaves[..new], true));
            }
            let old_root = naive_root(&leaves[..old]);
            assert_eq!(verify_consistency(old as u64, &old_root, new as u64, &new_root, &path), Ok(()));
        }
    }
}

/// Everything that can be done to a path without knowing a collision, each with its name.
fn mutations(path: &[Hash]) -> Vec<(&'static str, Vec<Hash>)> {
    let mut all =
        vec![("extended above", [path, &[[7; 32]]].concat()), ("extended below", [&[[7; 32]], path].concat())];
    for at in 0..path.len() {
        all.push(("truncated above", path[..at].to_vec()));
        all.push(("truncated below", path[at + 1..].to_vec()));
        all.push(("a sibling twice", [&path[..=at], &path[at..]].concat()));
        for byte in [0, 13, 31] {
            let mut flipped = path.to_vec();
            flipped[at][byte] ^= 1 << (at % 8);
            all.push(("flipped bit", flipped));
        }
        if at > 0 {
            let mut swapped = path.to_vec();
            swapped.swap(at, at - 1);
            all.push(("swapped siblings", swapped));
        }
    }
    all
}

#[test]
fn forged_inclusion_proofs_are_refused() {
    let (leaves, tree) = tree(40);
    for size in 1..=40_u64 {
        let root = tree.root_at(size).unwrap();
        for index in 0..size {
            let leaf = &leaves[usize::try_from(index).unwrap()];
            let path = inclusion_proof(&tree, index, size).unwrap();
            for (what, forged) in mutations(&path) {
                let verdict = verify_inclusion(leaf, index, size, &forged, &root);
                assert!(verdict.is_err(), "{what}: leaf {index} of {size}");
            }
            for other in (0..size).filter(|other| *other != index) {
                assert!(verify_inclusion(leaf, other, size, &path, &root).is_err());
                let other = &leaves[usize::try_from(other).unwrap()];
                assert_eq!(verify_inclusion(other, index, size, &path, &root), Err(ProofError::Root));
            }
            if let Some(sibling) = path.first() {
                for parent in [node_hash(leaf, sibling), node_hash(sibling, leaf)] {
                    assert!(verify_inclusion(&parent, index, size, &path, &root).is_err(), "node as leaf");
                    assert!(verify_inclusion(&parent, index, size, &path[1..], &root).is_err(), "node as leaf");
                }
                let entry = [*leaf, *sibling].concat();
                assert_ne!(leaf_hash(&entry), node_hash(leaf, sibling), "an entry must not imitate a node");
            }
            assert_eq!(verify_inclusion(leaf, size, size, &path, &root), Err(ProofError::Index { index: size, size }));
            assert_eq!(verify_inclusion(leaf, index, size, &path, &[0; 32]), Err(ProofError::Root));
        }
    }
}

#[test]
fn forged_consistency_proofs_are_refused() {
    let (_, tree) = tree(40);
    for new in 1..=40_u64 {
        let new_root = tree.root_at(new).unwrap();
        for old in 1..=new {
            let old_root = tree.root_at(old).unwrap();
            let path = consistency_proof(&tree, old, new).unwrap();
            for (what, forged) in mutations(&path) {
                let verdict = verify_consistency(old, &old_root, new, &new_root, &forged);
                assert!(verdict.is_err(), "{what}: {old} to {new}");
            }
            let wrong = [9; 32];
            assert_eq!(verify_consistency(old, &wrong, new, &new_root, &path), Err(ProofError::Root));
            assert_eq!(verify_consistency(old, &old_root, new, &wrong, &path), Err(ProofError::Root));
            for other in (0..=new).filter(|other| *other != old) {
                assert!(verify_consistency(other, &old_root, new, &new_root, &path).is_err());
            }
            assert!(verify_consistency(new + 1, &new_root, new, &new_root, &path).is_err());
        }
    }
    assert_eq!(verify_consistency(0, &[1; 32], 3, &[2; 32], &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, &EMPTY_ROOT, 0, &[2; 32], &[]), Err(ProofError::Root));
    assert_eq!(verify_consistency(0, &EMPTY_ROOT, 3, &[2; 32], &[[0; 32]]), Err(ProofError::Length { found: 1 }));
}

#[test]
fn proofs_read_only_a_few_hashes_and_only_complete_subtrees() {
    struct Counting<'a>(&'a MemoryTree, core::cell::Cell<u32>);
    impl HashSource for Counting<'_> {
        fn hash(&self, level: u8, index: u64) -> Option<Hash> {
            self.1.set(self.1.get() + 1);
            self.0.hash(level, index)
        }
    }
    let (_, tree) = tree(100_000);
    for (index, size) in [(0, 100_000), (99_999, 100_000), (50_000, 99_999), (12_345, 65_537)] {
        let source = Counting(&tree, 0.into());
        inclusion_proof(&source, index, size).unwrap();
        consistency_proof(&source, index + 1, size).unwrap();
        assert!(source.1.get() <= 4 * 17, "{} reads", source.1.get());
    }
}

#[test]
fn a_source_with_a_hole_gives_an_error_that_names_it() {
    struct Hole<'a>(&'a MemoryTree);
    impl HashSource for Hole<'_> {
        fn hash(&self, level: u8, index: u64) -> Option<Hash> {
            if (level, index) == (2, 1) { None } else { self.0.hash(level, index) }
        }
    }
    let (_, tree) = tree(9);
    assert_eq!(inclusion_proof(&Hole(&tree), 0, 9), Err(LogError::Missing { level: 2, index: 1 }));
    assert_eq!(source_root(&Hole(&tree), 4), Ok(tree.root_at(4).unwrap()));
}

#[test]
fn sizes_at_the_limits_do_not_overflow() {
    let path = vec![[1; 32]; PATH_LENGTH_MAX + 1];
    for size in [1, 2, SIZE_MAX - 1, SIZE_MAX, SIZE_MAX + 1, u64::MAX] {
        for index in [0, 1, size / 2, size - 1, size, u64::MAX] {
            for length in 0..=path.len() {
                let inclusion = inclusion_root(&[2; 32], index, size, &path[..length]);
                assert!(inclusion.is_err() || (index < size && size <= SIZE_MAX));
                assert!(
                    verify_consistency(index, &[2; 32], size, &[3; 32], &path[..length]).is_err(),
                    "made-up roots never verify"
                );
            }
            let none = MemoryTree::new();
            assert!(inclusion_proof(&none, index, size).is_err() || size == 1);
        }
    }
}

proptest! {
    #[test]
    fn random_trees_agree_with_the_definition(size in 1_usize..3000, at in 0.0..1.0, old in 0.0..=1.0) {
        let leaves = leaves(size as u64);
        let tree = MemoryTree::from_leaf_hashes(&leaves);
        let root = naive_root(&leaves);
        prop_assert_eq!(tree.root(), root);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a small size")]
        let (index, old) = ((at * size as f64) as usize, (old * size as f64) as usize);
        let path = tree.inclusion_proof(index as u64).unwrap();
        prop_assert_eq!(&path, &naive_path(index, &leaves));
        prop_assert_eq!(verify_inclusion(&leaves[index], index as u64, size as u64, &path, &root), Ok(()));
        let path = tree.consistency_proof(old as u64).unwrap();
        let old_root = naive_root(&leaves[..old]);
        prop_assert_eq!(verify_consistency(old as u64, &old_root, size as u64, &root, &path), Ok(()));
    }

    #[test]
    fn arbitrary_input_never_panics(
        leaf: Hash, index: u64, size: u64, old: u64, root: Hash,
        path in proptest::collection::vec(any::<Hash>(), 0..70),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        prop_assert!(verify_inclusion(&leaf, index, size, &path, &root).is_err());
        prop_assert!(verify_consistency(old, &leaf, size, &root, &path).is_err());
        if let Ok(frontier) = Frontier::decode(&bytes) {
            prop_assert_eq!(frontier.encode(), bytes);
        }
    }
}
