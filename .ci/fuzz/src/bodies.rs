//! The bodies.

#![expect(clippy::unwrap_used, reason = "what a body unwraps is a promise of the code under test")]

use std::sync::OnceLock;

use stele_merkle::state::{KeyRange, MultiProof, Proof, RangeContent, RangeProof, StateHash};
use stele_merkle::tile::{self, Tile};
use stele_types::asset::CertificateNumber;
use stele_types::{Checkpoint, cbor};
use stele_verify::statement::{attach_receipts, strip_receipts};
use stele_verify::{Expectation, PublicKey, TrustAnchor, bundle, receipt, state};

use crate::Target;
use crate::fixture::Network;
use crate::samples::{self, Structure};

/// Every target. The order is part of the corpus: new ones go to the end.
pub const TARGETS: &[Target] = &[
    Target { name: "statement", body: |bytes| recode(samples::statement, bytes), corpus: || of("statement") },
    Target { name: "command", body: |bytes| recode(samples::command, bytes), corpus: commands },
    Target { name: "block", body: |bytes| recode(samples::block, bytes), corpus: || of("block") },
    Target { name: "genesis", body: |bytes| recode(samples::genesis, bytes), corpus: || of("genesis") },
    Target { name: "receipt", body: |bytes| recode(samples::receipt, bytes), corpus: || of("receipt") },
    Target { name: "structure", body: structure, corpus: numbered },
    Target { name: "checkpoint_header", body: checkpoint_header, corpus: checkpoint_headers },
    Target { name: "bundle_verify", body: bundle_verify, corpus: bundles },
    Target { name: "receipt_verify", body: receipt_verify, corpus: receipts },
    Target { name: "transparent_statement", body: transparent_statement, corpus: transparent_statements },
    Target { name: "public_key", body: public_key, corpus: public_keys },
    Target {
        name: "certificate_number",
        body: certificate_number,
        corpus: || vec![b"ST-110105-DR-2026-00000042-21".into()],
    },
    Target { name: "state_proof", body: state_proof, corpus: state_proofs },
    Target { name: "tile_path", body: tile_path, corpus: tile_paths },
    Target { name: "entry_bundle", body: entry_bundle, corpus: entry_bundles },
    Target { name: "state_range_proof", body: state_range_proof, corpus: state_range_proofs },
    Target { name: "state_multi_proof", body: state_multi_proof, corpus: state_multi_proofs },
    Target { name: "state_bundle_verify", body: state_bundle_verify, corpus: state_bundles },
];

/// Refuse, or give back what was read.
fn recode(recode: samples::Recode, bytes: &[u8]) {
    if let Ok(again) = recode(bytes) {
        assert_eq!(again, bytes, "a decoder reads bytes that its encoder does not write");
    }
}

fn structures() -> &'static [Structure] {
    static STRUCTURES: OnceLock<Vec<Structure>> = OnceLock::new();
    STRUCTURES.get_or_init(samples::structures::structures)
}

fn network() -> &'static Network {
    static NETWORK: OnceLock<Network> = OnceLock::new();
    NETWORK.get_or_init(|| Network::with_history("north"))
}

fn of(rule: &str) -> Vec<Vec<u8>> {
    structures().iter().filter(|structure| structure.rule == rule).flat_map(|found| found.samples.clone()).collect()
}

fn commands() -> Vec<Vec<u8>> {
    samples::structures::commands().iter().map(stele_types::Command::to_bytes).collect()
}

/// The first byte chooses one of the structures.
fn structure(bytes: &[u8]) {
    if let Some((first, rest)) = bytes.split_first() {
        recode(structures()[usize::from(*first) % structures().len()].recode, rest);
    }
}

fn numbered() -> Vec<Vec<u8>> {
    let with = |(number, structure): (u8, &Structure)| [&[number][..], &structure.samples[0]].concat();
    (0_u8..).zip(structures()).map(with).collect()
}

fn checkpoint_header(bytes: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::from_protected(bytes) {
        assert_eq!(checkpoint.protected(), bytes);
    }
}

fn checkpoint_headers() -> Vec<Vec<u8>> {
    vec![samples::structures::checkpoint().protected()]
}

/// Whatever is accepted says the truth about one of the network's statements.
fn bundle_verify(bytes: &[u8]) {
    static ANCHOR: OnceLock<TrustAnchor> = OnceLock::new();
    let anchor = ANCHOR.get_or_init(|| TrustAnchor::genesis(&network().genesis.to_bytes()).unwrap());
    if let Ok(verdict) = bundle::verify_bytes(bytes, anchor, &Expectation::default()) {
        let truths = bundles().into_iter().map(|bytes| bundle::verify_bytes(&bytes, anchor, &Expectation::default()));
        assert!(truths.into_iter().any(|truth| truth.as_ref() == Ok(&verdict)), "{verdict:?} is not true");
    }
}

fn bundles() -> Vec<Vec<u8>> {
    [1, 3, 4].map(|number| cbor::to_vec(&network().bundle(number))).into()
}

/// Whatever is accepted says of each key what the network's state holds.
fn state_bundle_verify(bytes: &[u8]) {
    static ANCHOR: OnceLock<TrustAnchor> = OnceLock::new();
    let anchor = ANCHOR.get_or_init(|| TrustAnchor::genesis(&network().genesis.to_bytes()).unwrap());
    for proven in state::verify_bundle_bytes(bytes, anchor).iter().flat_map(|verdict| &verdict.values) {
        assert_eq!(proven.value.as_ref(), network().state.pairs().get(&proven.key.0), "{proven:?} is not true");
    }
}

fn state_bundles() -> Vec<Vec<u8>> {
    let (present, absent) = (network().statement(4).0, [7; 32]);
    [&[present][..], &[absent], &[present, absent]].map(|keys| cbor::to_vec(&network().state_bundle(keys))).into()
}

fn receipt_verify(bytes: &[u8]) {
    let key = network().public_checkpoint_key();
    if receipt::verify_bytes(bytes, &network().entry(2), &key).is_ok() {
        assert!(receipts().iter().any(|receipt| receipt == bytes), "a receipt that was never given");
    }
}

fn receipts() -> Vec<Vec<u8>> {
    [3, 7].map(|height| cbor::to_vec(&network().receipt(1, height))).into()
}

/// Stripping and attaching are inverse.
fn transparent_statement(bytes: &[u8]) {
    let Ok(stripped) = strip_receipts(bytes) else { return };
    let again = strip_receipts(&stripped.entry).unwrap();
    assert_eq!((&again.entry, again.receipts.len()), (&stripped.entry, 0));
    if !stripped.receipts.is_empty() {
        let attached = attach_receipts(&stripped.entry, &stripped.receipts).unwrap();
        assert_eq!(strip_receipts(&attached).unwrap(), stripped);
    }
}

fn transparent_statements() -> Vec<Vec<u8>> {
    let (entry, receipts) = (network().entry(2), receipts());
    let receipts: Vec<&[u8]> = receipts.iter().map(Vec::as_slice).collect();
    vec![attach_receipts(&entry, &receipts).unwrap(), entry]
}

fn public_key(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_spki(bytes)
        && let Ok(pem) = key.to_spki_pem()
    {
        assert_eq!(PublicKey::from_spki(pem.as_bytes()), Ok(key));
    }
}

fn public_keys() -> Vec<Vec<u8>> {
    let pem = network().public_checkpoint_key().to_spki_pem().unwrap();
    let der = p256::pkcs8::Document::from_pem(&pem).unwrap().1;
    vec![pem.into_bytes(), der.into_vec()]
}

fn certificate_number(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Some(number) = CertificateNumber::parse(text)
    {
        assert_eq!(number.to_text(), text);
    }
}

fn state_proof(bytes: &[u8]) {
    if let Ok(proof) = Proof::decode(bytes) {
        assert_eq!(proof.encode(), bytes);
        let _ = proof.root(StateHash::Sm3, &[7; 32], None);
        let _ = proof.root(StateHash::Sha256, &[7; 32], Some(b"value"));
    }
}

fn state_proofs() -> Vec<Vec<u8>> {
    let state = &network().state;
    state.pairs().keys().map(|key| state.prove(key).encode()).chain([state.prove(&[7; 32]).encode()]).collect()
}

fn state_range_proof(bytes: &[u8]) {
    if let Ok(proof) = RangeProof::decode(bytes) {
        assert_eq!(proof.encode(), bytes);
        let range = KeyRange::new(2, 1).unwrap();
        let _ = proof.root(StateHash::Sha256, range, &RangeContent::Empty);
        let _ = proof.root(StateHash::Sm3, range, &RangeContent::Many { root: [7; 32] });
    }
}

fn state_range_proofs() -> Vec<Vec<u8>> {
    let ranges = [(0, 0), (1, 1), (2, 1), (5, 7), (12, 99)].map(|(depth, index)| KeyRange::new(depth, index).unwrap());
    ranges.map(|range| network().state.prove_range(range).encode()).into()
}

fn state_multi_proof(bytes: &[u8]) {
    if let Ok(proof) = MultiProof::decode(bytes) {
        assert_eq!(proof.encode(), bytes);
        let _ = proof.root(StateHash::Sha256, &[([0; 32], None), ([7; 32], Some(b"value")), ([0x80; 32], None)]);
    }
}

fn state_multi_proofs() -> Vec<Vec<u8>> {
    let state = &network().state;
    let keys: Vec<_> = state.pairs().keys().copied().collect();
    vec![state.prove_many(&keys).encode(), state.prove_many(&keys[..2]).encode(), state.prove_many(&[[7; 32]]).encode()]
}

fn tile_path(bytes: &[u8]) {
    if let Ok(text) = core::str::from_utf8(bytes)
        && let Ok(tile) = Tile::parse(text)
    {
        assert_eq!(tile.to_string(), text);
    }
}

fn tile_paths() -> Vec<Vec<u8>> {
    ["tile/0/000", "tile/3/x001/x234/067.p/17", "tile/entries/x001/000"].map(Vec::from).into()
}

/// The first two bytes are the width.
fn entry_bundle(bytes: &[u8]) {
    let Some((width, rest)) = bytes.split_first_chunk::<2>() else { return };
    if let Ok(entries) = tile::parse_entry_bundle(rest, u16::from_be_bytes(*width)) {
        assert_eq!(tile::entry_bundle(entries).unwrap(), rest);
    }
}

fn entry_bundles() -> Vec<Vec<u8>> {
    let entries = &network().entries;
    let bytes = tile::entry_bundle(entries.iter().map(Vec::as_slice)).unwrap();
    let width = u16::try_from(entries.len()).unwrap();
    vec![[&width.to_be_bytes()[..], &bytes].concat()]
}
