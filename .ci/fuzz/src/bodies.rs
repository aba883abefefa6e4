//! The bodies.

#![expect(clippy::unwrap_used, reason = "what a body unwraps is a promise of the code under test")]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use stele_merkle::state::reference::ReferenceMap;
use stele_merkle::state::{KeyRange, MultiProof, Proof, RangeContent, RangeProof, StateHash};
use stele_merkle::tile::{self, Tile};
use stele_state::{Chunk, Layout, Options, SnapshotBuilder, SnapshotReader, StateMap as _, TreeMap};
use stele_types::asset::CertificateNumber;
use stele_types::{Checkpoint, cbor};
use stele_verify::statement::{attach_receipts, strip_receipts};
use stele_verify::{Expectation, PublicKey, TrustAnchor, bundle, receipt, state};
use tempfile::TempDir;

use crate::Target;
use crate::evidence;
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
    Target { name: "state_chunk", body: state_chunk, corpus: state_chunks },
    Target { name: "state_snapshot_file", body: state_snapshot, corpus: state_snapshots },
    Target { name: "state_table_file", body: state_table, corpus: state_tables },
    Target { name: "state_log_file", body: state_log, corpus: state_logs },
    Target { name: "tpm_structure", body: evidence::tpm_structure, corpus: evidence::tpm_structures },
    Target { name: "event_log", body: evidence::event_log, corpus: evidence::event_logs },
    Target { name: "ima_log", body: evidence::ima_log, corpus: evidence::ima_logs },
    Target { name: "certificate_verify", body: evidence::certificate_verify, corpus: evidence::certificates },
    Target { name: "attestation_verify", body: evidence::attestation_verify, corpus: evidence::attestations },
    Target { name: "evidence_package", body: evidence::evidence_package, corpus: evidence::evidence_packages },
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

fn state_chunk(bytes: &[u8]) {
    if let Ok(chunk) = Chunk::decode(bytes) {
        assert_eq!(chunk.encode(), bytes);
        if let Ok(pairs) = chunk.check(StateHash::Sha256, &small_state().root()) {
            let truth = small_state().pairs().iter().filter(|(key, _)| chunk.range().contains(key));
            assert!(pairs.iter().map(|(key, value)| (key, value)).eq(truth), "pairs that the state does not hold");
        }
        let _ = chunk.check(StateHash::Sm3, &[7; 32]);
    }
}

fn state_chunks() -> Vec<Vec<u8>> {
    let ranges =
        [(0, 0), (2, 0), (2, 1), (2, 2), (2, 3), (9, 3)].map(|(depth, index)| KeyRange::new(depth, index).unwrap());
    ranges.map(encode_chunk).into()
}

/// A state of a few pairs.
fn small_state() -> &'static ReferenceMap {
    static STATE: OnceLock<ReferenceMap> = OnceLock::new();
    STATE.get_or_init(|| {
        let mut state = ReferenceMap::new(StateHash::Sha256);
        (0..12_u8).for_each(|seed| state.set(StateHash::Sha256.value(&[seed]), Some(vec![seed; seed.into()])));
        state
    })
}

/// A chunk of the small state as it travels.
fn encode_chunk(range: KeyRange) -> Vec<u8> {
    let (mut body, mut pairs) = (Vec::new(), 0_u32);
    for (key, value) in small_state().pairs().iter().filter(|(key, _)| range.contains(key)) {
        let length = u16::try_from(value.len()).unwrap();
        body.extend([&key[..], &length.to_be_bytes(), value].concat());
        pairs += 1;
    }
    let proof = small_state().prove_range(range).encode();
    let lengths = [
        u32::try_from(body.len()).unwrap().to_be_bytes().to_vec(),
        u16::try_from(proof.len()).unwrap().to_be_bytes().to_vec(),
    ];
    [&[range.depth()][..], &range.index().to_be_bytes(), &pairs.to_be_bytes(), &lengths.concat(), &body, &proof]
        .concat()
}

/// Whatever opens leads to its root, and so do its chunks where all of it is sound.
fn state_snapshot(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), seal_snapshot(bytes)] {
        in_directory(SNAPSHOT_FILE, &bytes, |directory| {
            let Ok(reader) = SnapshotReader::open(&directory.join(SNAPSHOT_FILE)) else { return };
            let sound = reader.check().is_ok();
            for range in (0..1 << reader.depth()).filter_map(|index| KeyRange::new(reader.depth(), index)) {
                let chunk = reader.chunk(range);
                if sound {
                    chunk.unwrap().unwrap().check(reader.hash(), &reader.root()).unwrap();
                }
            }
        });
    }
}

fn state_snapshots() -> Vec<Vec<u8>> {
    let divided = |depth| {
        let directory = TempDir::new().unwrap();
        let root = small_state().root();
        let mut builder = SnapshotBuilder::create(directory.path(), StateHash::Sha256, 7, root, depth).unwrap();
        for range in builder.missing().collect::<Vec<_>>() {
            builder.add(&Chunk::decode(&encode_chunk(range)).unwrap()).unwrap().unwrap();
        }
        builder.finish().unwrap();
        fs::read(directory.path().join(SNAPSHOT_FILE)).unwrap()
    };
    [0, 2, 4].map(divided).into()
}

fn state_table(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), seal_table(bytes)] {
        check_file("pages-00000000000000000007.table", &bytes);
    }
}

fn state_tables() -> Vec<Vec<u8>> {
    state_files(Layout::Paged, ".table")
}

fn state_log(bytes: &[u8]) {
    for bytes in [bytes.to_vec(), seal_log(bytes)] {
        check_file("writes-00000000000000000000.log", &bytes);
    }
}

fn state_logs() -> Vec<Vec<u8>> {
    state_files(Layout::Memory, ".log")
}

const SNAPSHOT_FILE: &str = "snapshot-00000000000000000007.map";

/// Checks a file as that of a stopped map; what is wrong with it is a finding.
fn check_file(name: &str, bytes: &[u8]) {
    in_directory(name, bytes, |directory| match stele_state::fsck(directory, StateHash::Sha256) {
        Ok(report) => assert_eq!(report.tables + report.logs, 1),
        Err(error) => assert_eq!(error.code(), "state_other_hash"),
    });
}

fn in_directory(name: &str, bytes: &[u8], body: impl FnOnce(&Path)) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join(name), bytes).unwrap();
    body(directory.path());
}

/// Files of one kind of a small map, with some commits before a checkpoint and some behind it.
fn state_files(layout: Layout, suffix: &str) -> Vec<Vec<u8>> {
    let directory = TempDir::new().unwrap();
    let options = Options { layout, ..Options::new(StateHash::Sha256) };
    let mut map = TreeMap::open(directory.path(), options).unwrap().map;
    let mut first_log = Vec::new();
    for height in 0..6_u8 {
        let key = |seed: u8| StateHash::Sha256.value(&[seed]);
        let mut writes: Vec<_> = (0..4).map(|seed| (key(height * 3 + seed), Some(vec![seed; 1000]))).collect();
        writes.push((key(height), None));
        writes.sort_unstable();
        writes.dedup_by_key(|(key, _)| *key);
        let staged = map.stage(&map.root(), writes).unwrap();
        map.commit(staged, height.into()).unwrap();
        if height == 3 {
            // The checkpoint begins a new log.
            first_log = files_of(directory.path(), suffix);
            map.checkpoint().unwrap();
        }
    }
    drop(map);
    [first_log, files_of(directory.path(), suffix)].concat()
}

fn files_of(directory: &Path, suffix: &str) -> Vec<Vec<u8>> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Right checksums: behind a wrong one nothing is looked at.
fn seal_snapshot(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    seal(&mut bytes, 0..60, 60, 0);
    let Some(depth) = bytes.get(59).filter(|depth| **depth <= 20) else { return bytes };
    let Some(table) = bytes.len().checked_sub((85 << depth) + 4) else { return bytes };
    for entry in (table..bytes.len() - 4).step_by(85) {
        let (offset, length) = (number(&bytes, entry, 8), number(&bytes, entry + 8, 4));
        seal(&mut bytes, offset..offset.saturating_add(length), entry + 16, 0);
    }
    let end = bytes.len() - 4;
    seal(&mut bytes, table..end, end, 0);
    bytes
}

/// See [`seal_snapshot`].
fn seal_table(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    seal(&mut bytes, 0..75, 75, 0);
    let mut part = 79;
    while part + 12 <= bytes.len() {
        let end = part + 12 + number(&bytes, part + 4, 4);
        let head = crc32c::crc32c(&bytes[part..part + 8]);
        seal(&mut bytes, part + 12..end, part + 8, head);
        part = end;
    }
    bytes
}

/// See [`seal_snapshot`].
fn seal_log(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    seal(&mut bytes, 0..69, 69, 0);
    let salt = crc32c::crc32c(bytes.get(12..28).unwrap_or_default());
    let mut record = 73;
    while record + 92 <= bytes.len() {
        let end = record + 92 + number(&bytes, record + 80, 4);
        seal(&mut bytes, record + 92..end, record + 84, 0);
        seal(&mut bytes, record..record + 88, record + 88, salt);
        record = end;
    }
    bytes
}

/// Writes the CRC-32C of a range, going on from another, if both places are there.
fn seal(bytes: &mut [u8], range: Range<usize>, at: usize, before: u32) {
    if let Some(crc) = bytes.get(range).map(|covered| crc32c::crc32c_append(before, covered))
        && let Some(place) = bytes.get_mut(at..at.saturating_add(4))
    {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

/// A big-endian number of up to 8 bytes that are there.
fn number(bytes: &[u8], at: usize, length: usize) -> usize {
    let wide = bytes[at..at + length].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    usize::try_from(wide).unwrap()
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
