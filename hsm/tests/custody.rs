//! Keys of custody: what they derive, for whom they open, what they refuse, and how they are split and joined.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod custodians;

use std::os::unix::fs::PermissionsExt as _;

use stele_hsm::SignerError;
use stele_hsm::custody::{
    Custodian, CustodyKey, OpenShare, SHARES_MAX, SealedShare, ShareError, ShareHolder, SoftwareCustodian,
};

const NETWORK: [u8; 32] = [3; 32];

fn custodian(directory: &tempfile::TempDir, name: &str) -> SoftwareCustodian {
    SoftwareCustodian::generate(&directory.path().join(name)).unwrap()
}

#[test]
fn a_blob_key_follows_from_class_key_and_salt_and_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let first = custodian(&directory, "custody.key");
    let again = SoftwareCustodian::open(&directory.path().join("custody.key")).unwrap();
    custodians::a_blob_key_follows_from_class_key_and_salt(&NETWORK, &first, &again);
}

#[test]
fn another_custodian_opens_what_was_sealed_for_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (custodian(&directory, "1.key"), custodian(&directory, "2.key"));
    custodians::another_opens_what_was_sealed_for_it_and_nothing_else(&NETWORK, &first, &second);
}

#[test]
fn a_class_key_opens_under_its_own_name_alone() {
    let directory = tempfile::tempdir().unwrap();
    custodian(&directory, "custody.key");
    let fresh = || SoftwareCustodian::open(&directory.path().join("custody.key")).unwrap();
    custodians::a_class_key_opens_under_its_own_name_alone(&NETWORK, || Box::new(fresh()) as Box<dyn Custodian>);
}

#[test]
fn the_key_file_is_for_its_owner_and_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("custody.key");
    SoftwareCustodian::generate(&path).unwrap();
    assert!(matches!(SoftwareCustodian::generate(&path), Err(SignerError::KeyFileExists { .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(SoftwareCustodian::open(&path), Err(SignerError::KeyFilePermissions { .. })));
}

/// Keys of holders, and what a configuration says of them.
fn holders(count: u8) -> (Vec<CustodyKey>, Vec<ShareHolder>) {
    let keys: Vec<CustodyKey> = (0..count).map(|_| CustodyKey::generate().unwrap()).collect();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let named = |(at, key): (usize, &CustodyKey)| ShareHolder {
        name: format!("holder-{at}"),
        public_key: hex(key.public_key()),
    };
    let named = keys.iter().enumerate().map(named).collect();
    (keys, named)
}

fn open(shares: &[SealedShare], keys: &[CustodyKey]) -> Vec<OpenShare> {
    shares.iter().zip(keys).map(|(share, key)| share.open(key).unwrap()).collect()
}

/// The share as a file, with some of its text replaced.
fn changed(share: &SealedShare, member: &str, value: serde_json::Value) -> SealedShare {
    let mut json = serde_json::to_value(share).unwrap();
    assert!(json.get(member).is_some(), "{member}");
    json[member] = value;
    serde_json::from_value(json).unwrap()
}

fn code<T>(result: Result<T, ShareError>) -> &'static str {
    result.err().unwrap().code()
}

#[test]
fn any_required_shares_give_the_key_back_after_their_holders_sealed_them_for_another() {
    let key = CustodyKey::generate().unwrap();
    let (keys, holders) = holders(5);
    let shares = key.split(3, &holders, Some(NETWORK)).unwrap();
    assert_eq!(shares.len(), 5);
    let recovering = CustodyKey::generate().unwrap();
    for chosen in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let given: Vec<OpenShare> = chosen
            .map(|at| shares[at].open(&keys[at]).unwrap().seal(recovering.public_key()).unwrap())
            .iter()
            .map(|share| {
                let text = serde_json::to_string(share).unwrap();
                serde_json::from_str::<SealedShare>(&text).unwrap().open(&recovering).unwrap()
            })
            .collect();
        assert_eq!(*CustodyKey::join(&given).unwrap().secret(), *key.secret());
    }
    assert_eq!((shares[1].holder(), shares[1].index()), ("holder-1", 2));
    assert_eq!(shares[1].network(), Some(NETWORK));
    // More than enough is enough.
    assert_eq!(*CustodyKey::join(&open(&shares, &keys)).unwrap().secret(), *key.secret());
}

#[test]
fn too_few_mixed_repeated_and_foreign_shares_have_their_codes() {
    let key = CustodyKey::generate().unwrap();
    let (keys, holders) = holders(4);
    let shares = key.split(3, &holders, None).unwrap();
    let again = key.split(3, &holders, None).unwrap();
    assert_eq!(code(CustodyKey::join(&open(&shares[..2], &keys))), "shares_too_few");
    assert_eq!(code(CustodyKey::join(&[])), "shares_too_few");
    let mixed = [open(&shares[..2], &keys), open(&again[2..3], &keys[2..])].concat_open();
    assert_eq!(code(CustodyKey::join(&mixed)), "shares_mixed", "of the same key, and of another splitting");
    let twice = [open(&shares[..2], &keys), open(&shares[..1], &keys)].concat_open();
    assert_eq!(code(CustodyKey::join(&twice)), "share_repeated");
    assert_eq!(code(shares[0].open(&keys[1])), "share_foreign");
    for (required, count) in [(1, 3), (4, 3), (2, SHARES_MAX + 1)] {
        assert_eq!(code(key.split(required, &self::holders(count).1, None)), "shares_count");
    }
    let refused = |change: fn(&mut Vec<ShareHolder>)| {
        let mut holders = holders.clone();
        change(&mut holders);
        code(key.split(2, &holders, None))
    };
    assert_eq!(refused(|holders| holders[1].name = "holder-0".into()), "share_holder");
    assert_eq!(refused(|holders| holders[1].name = "a/b".into()), "share_holder");
    assert_eq!(refused(|holders| holders[1].public_key = "ff".repeat(33)), "share_holder");
}

/// `concat` of what cannot be cloned.
trait ConcatOpen {
    fn concat_open(self) -> Vec<OpenShare>;
}

impl<const N: usize> ConcatOpen for [Vec<OpenShare>; N] {
    fn concat_open(self) -> Vec<OpenShare> {
        self.into_iter().flatten().collect()
    }
}

#[test]
fn a_share_that_was_changed_is_told_by_its_checksum() {
    let key = CustodyKey::generate().unwrap();
    let (keys, holders) = holders(3);
    let shares = key.split(2, &holders, Some(NETWORK)).unwrap();
    let json = serde_json::to_value(&shares[0]).unwrap();
    let text = |member: &str| json[member].as_str().unwrap().to_owned();
    let flipped = |member: &str| {
        let text = text(member);
        let last = if text.ends_with('0') { "1" } else { "0" };
        format!("{}{last}", &text[..text.len() - 1])
    };
    for member in ["network", "fingerprint", "recipient", "sealed", "checksum"] {
        let share = changed(&shares[0], member, flipped(member).into());
        assert_eq!(code(share.open(&keys[0])), "share_damaged", "{member}");
    }
    assert_eq!(code(changed(&shares[0], "holder", "somebody".into()).open(&keys[0])), "share_damaged");
    assert_eq!(code(changed(&shares[0], "index", 2.into()).open(&keys[0])), "share_damaged");
    assert_eq!(code(changed(&shares[0], "count", 4.into()).open(&keys[0])), "share_damaged");
    for (member, value) in [
        ("scheme", "stele/custody-share/v2".into()),
        ("required", 3.into()),
        ("required", 1.into()),
        ("index", 0.into()),
        ("index", 4.into()),
        ("commitments", serde_json::json!([])),
        ("commitments", serde_json::json!(["00", "00"])),
        ("network", "00".into()),
    ] {
        assert_eq!(code(changed(&shares[0], member, value).open(&keys[0])), "share_malformed", "{member}");
    }
}
