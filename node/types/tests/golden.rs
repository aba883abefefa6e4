//! Encodings never change: each structure's samples are pinned by SHA-256, and published as test vectors.
//!
//! `docs/vectors/encodings.json` holds the bytes, `docs/vectors/derived.json` what is computed from them. Both are
//! written by this test when `STELE_UPDATE_VECTORS` is set and compared otherwise. The digests below are changed by
//! hand, with a new protocol version.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod samples;

use std::fmt::Write as _;
use std::path::Path;

use samples::structures::{
    bundle, checkpoint, command_structures, commit_certificate, custody_receipt, epoch_certificate, genesis, header,
    key, place, statements, structures, validator, validators,
};
use serde_json::{Value, json};
use stele_types::asset::{AssetKind, CertificateNumber};
use stele_types::time::civil_year;
use stele_types::vote::Ballot;
use stele_types::{
    Fen, Hash, KeyId, NetworkId, Parameters, ProposerSchedule, Statement, Suite, ValidatorId, VoteKey, VoteKind, cbor,
};

/// SHA-256 over the samples of each structure, one after the other.
const PINNED: &[(&str, &str)] = &[
    ("statement", "6f761a6b8811ba582bd29ffc8ab635fb0e11f4f7ff1c5bdffa0359cb63ec537f"),
    ("receipt", "47bcc8d3a05cea629203b469035d0f65f249e46b128ac3795429a9aeebb3be6b"),
    ("block", "a46dcdd3767855da5b2e323a3b8e973389f7ad1f6d75f592d8643a0a98d38ec7"),
    ("validator-set", "586ff82331479a017f42939cb50ace7a018fa1e49b13016eaadd65703b122ce7"),
    ("inclusion-proof", "cce5ded5db5aa7275d501a1218f1488df935ad48872cac3a28ebef5dc8f2edb2"),
    ("commit-signature", "9c2c94068a4991571be1e6de4b4ad9b3b0ff39bc507f4b69cb0ca907877d54b9"),
    ("vote-signature", "8b08a43cdc7b79900fe35229ddff81496d6d62fb7262365b5ab89fb4f45b8876"),
    ("genesis", "c75e78db7503ca99a474dcee66770417fff9f4ba6478bd6833e344b2e500a9fb"),
    ("enrolled-key", "565ceddc4e3cb0e21d99a0adc98f5a57896080aea60671f2c06232893a3a799c"),
    ("founder", "9384826b109a42ecd5f14655acc60482af683a784cd827bcb72f6eb4b97f3851"),
    ("suite-rule", "9fe2added86ddd67ec7fbf27b5b6e9256b8c2074fcf4aded32eb739a431f9170"),
    ("timeouts", "1f0480be377f8c0ed5083154947ec0e80cc134560877fc4d4961345e52877e52"),
    ("parameters", "228b879d6eb5fa534cb22e58ef854a22fdee4e5e19136334948f1a9e6e700c13"),
    ("attestation-rule", "fe41d5329e35d33cedaeec93b031f4d08e0de73d636b027c1e4e2a29860545a2"),
    ("validator", "3d253f5239c3854b912297dfb1a42dd8ce622f33cea2adad68705bb52f083708"),
    ("epoch-certificate", "7772f0ad35c7cf42626cdf2c07c56e2cd7957a4ce077174b1a706683876894dd"),
    ("custody-receipt", "be0c6cd5231ac3bb7470f4e681d56f46c173d4cc531af8d48b28caf2fcb5202c"),
    ("commit-certificate", "7a6b6c0a05daaf3f556dc6806bc299f3d003062ff7138bae3a4b2f24bddd9de1"),
    ("silence", "816f3069f2340506bf175bb0d1cd063124f8d8499cd4a4276fe0eb9979313521"),
    ("proposer-schedule", "5632510ad43b1f5ea6ee6f4692a1e4ec216ccd0cb17f6e5e72f819288431a1c4"),
    ("header", "689237e9cef43f18d3a4b7f5c10b63fb75abedfd429304ec7f63e4ac0205e70c"),
    ("outcome", "1d86666491acedba970f84e713d665638e1d19ea018615e1425f8f8b4141f6bb"),
    ("chain-link", "1df8c245c2f2bb48edeae395b6632a4f739e85d9f225f3e9b26bcd687fe914b1"),
    ("outcome-proof", "51dc4e6010edc3726b660eb0d30ecb1adc777ebdd388b98fcda4d7e7f6e85a70"),
    ("tpm-identity", "7fd551de573da49e03fb3ef3dbd0427544ec1f16b22dda7e3cef3e1b20c1e39f"),
    ("key-attestation", "a4bfad14305263642a872ce8303747a04dc3d3993eda206d80d3ff656ba10d33"),
    ("checkpoint-signer", "456025e677d6cd3494eff69fa67d85a2887a0d19df84c20e56ef6a5aceee866d"),
    ("bundle", "93b44053a00d6356a0a55566b51614fefc0cf0f0e5e45956befa62b7657f7dd1"),
    ("certificate-number", "764711fc34e7e7f02ce9431eebd28f1435439df4ad74fbac151bc70c3fcbaa1c"),
    ("submitted", "efd13227ddb201ca1624b962dbf79d66fab5891dbd44339b667fecd1131f6c76"),
    ("statement-status", "d7f84e415cef7be4ab8ec091d9ee2efac5ad646dadcd04bf07b81e4016daee90"),
    ("certified-header", "68a9c0c2148e81f1094da5a771dd20d7d03d168f394d78b5972a48ef7c25b4fd"),
    ("certified-block", "3c97cf3807349f3f4f550c37c1879180338cc539df2a5b43053afcc29e21f1cf"),
    ("state-proof", "bda7a88e55f01594c4a95fcd6f3417a1533400a76f28ea136e2002ff62fe05ee"),
    ("proven-value", "997adbd3aef0f1ab0988fd15ef5bea20b3ccdd44b8d1215dbc9b2ec8570cf3b5"),
    ("state-bundle", "2e045467a7b8055bc253859b3205066cb0f706ad02c827d878ab1e7abef96968"),
    ("bundle-reply", "f763c10b45d6938292043986106f1f195c20b36696cf78825d6950a9637378c1"),
    ("asset-register", "5decd1f7c8246337137d10dfb1fa30708588280a66d772961cc45cb09f3e4115"),
    ("asset-cancel", "c1c6fb699c093baa19a7f99d6f78f37f3940aae3b036667e14669b4ab566bbdb"),
    ("record-put", "31fc516d6cd43dd94db55b69f17a519455855af3301f31aac94c7e5b617a930f"),
    ("record-correct", "4d4d00418ef22e4303a9287a32b4813d4205d7db28649b004b5bc44539a2fdd9"),
    ("party-enrol", "fb62835d24ef19308e04fe22c22701ea1d0108823ba31db4c8946490f145340e"),
    ("party-suspend", "e197f7c4f8ff2b3fb40b1392391077b38a06a23cdfd2b3efae156f2e94888c2d"),
    ("party-resume", "131cf851107ebf27099912f501b876ff58a9bfea805ee648d90bf4b1a555e1a8"),
    ("role-grant", "02c006d6191918c3debbb646b11e0c2ea9499626d88421d85d2564024839ddfd"),
    ("role-revoke", "eab6e96142a8e3300bbeb238f7d4fa09ede93fec143ea0a2d6cbc0df22dbcf7c"),
    ("key-enrol", "8f6b34b435d91879fe3be73cb4418c6e2acf8daa101efd2cc8dcbac9b1d64ee5"),
    ("key-rotate", "0004906f21ac9a3055bc615333b83b429fbd214e6eb9b52e15df0fd5ac3e8ec1"),
    ("key-revoke", "befa01b876498517d822842af6a0c7a2c4ca431d276fb3c0ee81f5be5a3b54e3"),
    ("key-reset", "2fc8333fca7a7dcdc9e36f81791138011a4ba3d735737f050e5463f854843342"),
    ("tls-pin", "151c4a79c782456a9e0567789a2705bc36b8a60eb44c995ded7907025c920407"),
    ("mandate-give", "952da80bcd72e96e7ad37aa56e607fe14c8a6bed3c75a2b39bf906ced8b92bfb"),
    ("mandate-withdraw", "ff533e700ac55f343ed37a62a45857d7af670502b20ba361d2d66f3d7c0eb09a"),
    ("propose", "017e92e24a54445f56a2e2cc402e9a97204bf2ae2345d67f1212a6109e57bb72"),
    ("approve", "be7a9382622f526cc388d5b4e402fa14a8ba30bbdc75b1857d36791b35b0a5d9"),
    ("withdraw", "1e00ebe38f4cda9048b35276b609e2285082f5290b099611ace6333c4ed44343"),
    ("parameters-change", "2ec82793c97f9c7f2673b5d4faddf923b7b8b38d352b7adfa88713df36176c85"),
    ("validators-change", "06b667d1e4f3cd5b1f30e40a7c9b0fac32c6eb902e8fafa565bbb1678779dcb9"),
    ("protocol-upgrade", "8f7e0b4ae345e0a00697cc83d5d482067a1b81cd7e83b93f3cd89105b7e05bea"),
    ("epoch-certify", "f880acc719ab986ea9ba9f7d9a4541f6eba99958b5720c5ce4f705a307afe9d8"),
    ("attestation-report", "a33cdc3cc96421506e5c346e19894a392d97ede609d44ecc81b11c76a2afd883"),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares `value` with a file of `docs/vectors`, or writes it.
fn published(name: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vectors").join(name);
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if std::env::var_os("STELE_UPDATE_VECTORS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "docs/vectors/{name} differs from the code; set STELE_UPDATE_VECTORS=1 to write it");
}

#[test]
fn encodings_are_pinned() {
    let mut found = String::new();
    for structure in structures().into_iter().chain(command_structures()) {
        let digest = Hash::of(&structure.samples.concat());
        let _ = writeln!(found, "    (\"{}\", \"{digest}\"),", structure.rule);
    }
    let pinned = PINNED.iter().fold(String::new(), |mut text, (rule, digest)| {
        let _ = writeln!(text, "    (\"{rule}\", \"{digest}\"),");
        text
    });
    assert!(found == pinned, "encodings changed; they are now\n{found}");
}

#[test]
fn encodings_are_published() {
    let encodings: Vec<Value> = structures()
        .into_iter()
        .chain(command_structures())
        .flat_map(|structure| {
            structure.samples.into_iter().map(move |bytes| {
                json!({ "rule": structure.rule, "bytes": hex(&bytes), "sha256": Hash::of(&bytes).to_hex() })
            })
        })
        .collect();
    published(
        "encodings.json",
        &json!({ "about": "One valid encoding or more of each rule of protocol.cddl, in hexadecimal. Signatures are filler.", "encodings": encodings }),
    );
}

#[test]
fn derived_values_are_published() {
    let ballot = commit_certificate().ballot(NetworkId([1; 32]));
    let proposal = Ballot { kind: VoteKind::Proposal, valid_round: Some(1), ..ballot };
    let delegated = VoteKey::Delegated(epoch_certificate().hash());
    let statement = |index: usize| Statement::parse(statements().swap_remove(index)).unwrap();
    let number = |kind, year, serial| CertificateNumber { region: place(), kind, year, serial }.to_text();
    let one = |name: &str, of: &[u8], value: String| json!({ "name": name, "of": hex(of), "value": value });
    let header_bytes = cbor::to_vec(&header());
    let mut derived = vec![
        one("network id", &genesis().to_bytes(), genesis().network().to_hex()),
        one("block id", &header_bytes, header().id().to_hex()),
        one("validators hash", &cbor::to_vec(&validators()), validators().hash().to_hex()),
        one("parameters hash", &cbor::to_vec(&Parameters::default()), Parameters::default().hash().to_hex()),
        one("certificate hash", &cbor::to_vec(&commit_certificate()), commit_certificate().hash().to_hex()),
        one("epoch certificate hash", &cbor::to_vec(&epoch_certificate()), epoch_certificate().hash().to_hex()),
        one("validator id", &[1; 33], ValidatorId::of(&[1; 33]).to_hex()),
        one("peer id", &[1; 32], hex(&validator(1).peer_id())),
        one("key id, es256", &[1; 33], KeyId::of(Suite::Es256, &[1; 33]).to_hex()),
        one("key id, eddsa", &[1; 32], KeyId::of(Suite::EdDsa, &[1; 32]).to_hex()),
        one("key id, sm2_sm3", &[1; 33], KeyId::of(Suite::Sm2Sm3, &[1; 33]).to_hex()),
        one(
            "signed bytes, epoch certificate",
            &cbor::to_vec(&epoch_certificate()),
            hex(&epoch_certificate().signing_bytes()),
        ),
        one(
            "signed bytes, custody receipt",
            &cbor::to_vec(&custody_receipt()),
            hex(&custody_receipt().signing_bytes()),
        ),
        one(
            "signed bytes, precommit direct",
            &cbor::to_vec(&commit_certificate()),
            hex(&ballot.signing_bytes(&VoteKey::Direct)),
        ),
        one(
            "signed bytes, precommit delegated",
            &cbor::to_vec(&commit_certificate()),
            hex(&ballot.signing_bytes(&delegated)),
        ),
        one(
            "signed bytes, proposal",
            &cbor::to_vec(&commit_certificate()),
            hex(&proposal.signing_bytes(&VoteKey::Direct)),
        ),
        one("protected header, receipt", &cbor::to_vec(&bundle().receipt.unwrap()), hex(&checkpoint().protected())),
        one(
            "signed bytes, checkpoint over root 07…07",
            &checkpoint().protected(),
            hex(&checkpoint().signing_bytes(&Hash([7; 32]))),
        ),
        one("key id of an enrolled key", &cbor::to_vec(&key(1)), key(1).id().to_hex()),
    ];
    for index in 0..3 {
        let statement = statement(index);
        derived.push(one("statement id", statement.entry(), statement.id().to_hex()));
        derived.push(one("signed bytes, statement", statement.entry(), hex(&statement.signing_bytes())));
    }
    let numbers = json!([
        { "region": 110_105, "kind": "resource", "year": 2026, "serial": 42, "text": number(AssetKind::Resource, 2026, 42) },
        { "region": 110_105, "kind": "product", "year": 2031, "serial": 123_456_789, "text": number(AssetKind::Product, 2031, 123_456_789) },
    ]);
    let years: Vec<Value> = [0, 951_782_400_000, 1_767_196_799_999, 1_767_196_800_000]
        .map(|time_ms| json!({ "time_ms": time_ms, "year": civil_year(time_ms) }))
        .into();
    let scaled: Vec<Value> = [(5, 1, 2), (7, 1, 2), (10, 1, 4), (11, 1, 4)]
        .map(|(fen, numerator, denominator)| {
            let rounded = Fen(fen).scaled(numerator, denominator).unwrap().0;
            json!({ "fen": fen, "numerator": numerator, "denominator": denominator, "rounded": rounded })
        })
        .into();
    let document = json!({
        "about": "Values that follow from encodings, in hexadecimal; docs/protocol.md names the formulas.",
        "derived": derived,
        "certificate_numbers": numbers,
        "civil_years": years,
        "rounding": scaled,
        "schedule": schedule(),
    });
    published("derived.json", &document);
}

/// Four validators of which number 2 is silent: the creation round and proposer of each height, and the schedule after
/// it while it changes.
fn schedule() -> Value {
    let mut schedule = ProposerSchedule::new(4);
    let heights: Vec<Value> = (1..=100_u64)
        .map(|height| {
            let round = (0..4).find(|round| schedule.proposer(height, *round) != 2).unwrap();
            let proposer = schedule.proposer(height, round);
            schedule = schedule.after(height, round, proposer);
            json!([height, round, proposer, hex(&cbor::to_vec(&schedule))])
        })
        .collect();
    json!({ "validators": 4, "silent": 2, "columns": ["height", "creation_round", "proposer", "schedule_after"], "heights": heights })
}
