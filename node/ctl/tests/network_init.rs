//! What `stele network init` leaves on disk.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use stele_ctl::failure::Failure;
use stele_ctl::network::init::{HeldKeys, PayloadDrives, unsigned_certificate};
use stele_ctl::network::{InitOptions, NetworkDir, PartyProfile, Profile, VoteMode, init};
use stele_hsm::{
    EpochCertificateRequest, NodeKeys, PublishedEpoch, PublishedKey, Signer as _, SignerKind, SoftwareSigner,
};
use stele_types::party::Role;
use stele_types::{EpochCertificate, Genesis, Hash, Height, NetworkId, ValidatorId};

fn files(root: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn a_new_network_has_a_sound_genesis_and_secret_keys() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("net");
    let network = init(&root, &InitOptions { agencies: 2, ..InitOptions::default() }).unwrap();
    let dir = NetworkDir::new(&root);

    let bytes = fs::read(dir.genesis()).unwrap();
    let genesis = Genesis::from_bytes(&bytes).unwrap();
    assert_eq!(genesis, network.genesis);
    assert_eq!(NetworkId(Hash::of(&bytes).0), genesis.network());
    assert_eq!(genesis.validators.len(), 4);
    let with_role = |role| genesis.founders.iter().filter(|founder| founder.roles.contains(role)).count();
    assert_eq!(
        [Role::Governor, Role::Registrar, Role::Agency, Role::Regulator, Role::Operator].map(with_role),
        [2, 1, 2, 1, 4]
    );

    // Every epoch certificate is signed by the long-term key of its validator, over a network of zeros.
    assert_eq!(genesis.epoch_certificates.len(), 4);
    for certificate in genesis.epoch_certificates.iter() {
        use p256::ecdsa::signature::Verifier as _;
        let index = genesis.validators.index_of(&certificate.validator).unwrap();
        let validator = genesis.validators.get(index).unwrap();
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&validator.public_key).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&certificate.signature).unwrap();
        key.verify(&certificate.signing_bytes(), &signature).unwrap();
        assert_eq!(certificate.network, NetworkId::default());
        assert!(certificate.covers(Height(1)));
    }

    let mut found = Vec::new();
    files(&root, &mut found);
    let keys: Vec<_> = found.iter().filter(|path| path.extension().is_some_and(|e| e == "key")).collect();
    // The CA; validator, seal, custody, peer, epoch and TLS key of 4 nodes; signing and TLS key of 10 parties.
    assert_eq!(keys.len(), 1 + 4 * 6 + 10 * 2);
    for path in found {
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let text = fs::read(&path).unwrap();
        let secret = text.windows(11).any(|window| window == b"PRIVATE KEY") || path.ends_with("peer.key");
        // Guards hold signatures, no secrets, but whoever may write one can make its owner sign twice.
        let secret = secret || path.ends_with("validator.votes") || path.ends_with("seal.checkpoints");
        assert_eq!(secret, mode == 0o600, "{}: mode {mode:o}", path.display());
    }
}

#[test]
fn configurations_name_the_other_validators_and_files_that_exist() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("net");
    let network = init(&root, &InitOptions { validators: 3, ..InitOptions::default() }).unwrap();
    let profile = Profile::load(&network.dir).unwrap();
    assert_eq!(profile.network_id().unwrap(), network.genesis.network());
    for (index, node) in profile.nodes.iter().enumerate() {
        let dir = network.dir.node(&node.name);
        let config: toml::Table = toml::from_str(&fs::read_to_string(dir.config()).unwrap()).unwrap();
        assert_eq!(config["validator"]["mode"].as_str(), Some("delegated"));
        for (section, key) in [
            ("node", "genesis"),
            ("peers", "key"),
            ("validator", "long_term_key"),
            ("seal", "key"),
            ("api", "certificate"),
            ("api", "key"),
            ("api", "client_ca"),
        ] {
            let name = config[section][key].as_str().unwrap_or_else(|| panic!("{section}.{key}"));
            assert!(dir.file(name).is_file(), "{section}.{key} = {name}");
        }
        let persistent = config["peers"]["persistent"].as_array().unwrap();
        let addresses: Vec<_> = persistent.iter().map(|peer| peer["address"].as_str().unwrap().to_owned()).collect();
        let others: Vec<_> = profile
            .nodes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, n)| n.peer.clone())
            .collect();
        assert_eq!(addresses, others);
        let epoch_keys = config["validator"]["epoch_keys"].as_array().unwrap();
        assert!(epoch_keys.iter().all(|key| dir.file(key.as_str().unwrap()).is_file()) && epoch_keys.len() == 1);
    }
}

#[test]
fn direct_votes_need_no_epoch_key() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("net");
    let options = InitOptions { validators: 1, mode: VoteMode::Direct, ..InitOptions::default() };
    let network = init(&root, &options).unwrap();
    assert!(network.genesis.epoch_certificates.is_empty());
    assert!(!network.dir.node("node-1").file("epoch.key").exists());
    assert!(!fs::read_to_string(network.dir.node("node-1").config()).unwrap().contains("epoch"));
}

#[test]
fn a_used_directory_and_bad_options_are_refused_with_their_code() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("net");
    let one = InitOptions { validators: 1, ..InitOptions::default() };
    init(&root, &one).unwrap();
    let code = |error: anyhow::Error| error.downcast_ref::<Failure>().map(|failure| failure.code().to_owned());
    assert_eq!(code(init(&root, &one).unwrap_err()).as_deref(), Some("network_dir_in_use"));
    let fresh = directory.path().join("other");
    for options in [
        InitOptions { validators: 0, ..one.clone() },
        InitOptions { validators: 129, ..one.clone() },
        InitOptions { agencies: 0, ..one.clone() },
        InitOptions { base_port: 65_530, ..one.clone() },
        InitOptions { validators: 3, hosts: vec!["a.example".into(), "b.example".into()], ..one.clone() },
    ] {
        assert_eq!(code(init(&fresh, &options).unwrap_err()).as_deref(), Some("parameter_invalid"));
    }
}

/// What `stele-signer init` writes, of keys that are gone with this function.
fn held_keys() -> NodeKeys {
    let key = || SoftwareSigner::ephemeral().unwrap();
    let point = |signer: &SoftwareSigner| <[u8; 33]>::try_from(signer.public_key().sec1_compressed.as_slice()).unwrap();
    let (validator, seal, epoch) = (key(), key(), key());
    let id = ValidatorId::of(&point(&validator));
    let heights = (1, EpochCertificate::HEIGHTS_MAX);
    let certificate =
        unsigned_certificate(NetworkId::default(), id, point(&epoch), (Height(heights.0), Height(heights.1)));
    let bytes = certificate.signing_bytes();
    let request = EpochCertificateRequest {
        validator: id.0,
        epoch_key: &certificate.public_key,
        height_first: heights.0,
        height_last: heights.1,
        bytes: &bytes,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let signature = runtime.block_on(validator.sign_epoch_certificate(&request)).unwrap();
    NodeKeys {
        validator: Some(PublishedKey::new(SignerKind::Tpm, &point(&validator))),
        seal: PublishedKey::new(SignerKind::Pkcs11, &point(&seal)),
        epoch: Some(PublishedEpoch::new(&point(&epoch), heights, &signature)),
        custody: None,
    }
}

#[test]
fn keys_that_a_signer_holds_are_taken_as_they_are_and_wrong_ones_found_no_network() {
    let directory = tempfile::tempdir().unwrap();
    let made = |name: &str, keys: NodeKeys| {
        let held = vec![HeldKeys { keys, socket: "/run/stele-signer/signer.sock".into() }];
        init(&directory.path().join(name), &InitOptions { validators: 1, held, ..InitOptions::default() })
    };
    let keys = held_keys();
    let network = made("net", keys.clone()).unwrap();
    let validator = keys.validator.as_ref().unwrap().point().unwrap();
    assert_eq!(network.genesis.validators.get(0).unwrap().public_key, validator);
    assert_eq!(network.genesis.epoch_certificates.len(), 1);
    let dir = network.dir.node("node-1");
    for absent in ["validator.key", "validator.votes", "seal.key", "seal.checkpoints", "epoch.key"] {
        assert!(!dir.file(absent).exists(), "{absent} is the signer's");
    }
    let config: toml::Table = toml::from_str(&fs::read_to_string(dir.config()).unwrap()).unwrap();
    assert_eq!(config["signer"]["socket"].as_str(), Some("/run/stele-signer/signer.sock"));
    assert_eq!(
        (config["validator"]["signer"].as_str(), config["seal"]["signer"].as_str()),
        (Some("tpm"), Some("pkcs11"))
    );

    // A custody key of the signer's is in no file of the node's, and others name it as any other.
    assert!(dir.file("custody.key").exists());
    let custody = keys.seal.clone();
    let options = |custody: Option<PublishedKey>| {
        let keys = NodeKeys { custody, ..held_keys() };
        let held = vec![HeldKeys { keys, socket: "/run/stele-signer/signer.sock".into() }];
        InitOptions { validators: 1, held, payload: Some(PayloadDrives::SMALL), ..InitOptions::default() }
    };
    let network = init(&directory.path().join("kept"), &options(Some(custody.clone()))).unwrap();
    let dir = network.dir.node("node-1");
    assert!(!dir.file("custody.key").exists());
    let config: toml::Table = toml::from_str(&fs::read_to_string(dir.config()).unwrap()).unwrap();
    assert_eq!(config["payload"]["signer"].as_str(), Some(custody.signer.as_str()));
    assert!(config["payload"].get("custody_key").is_none());

    let code = |error: anyhow::Error| error.downcast_ref::<Failure>().map(|failure| failure.code().to_owned());
    let mut swapped = held_keys();
    swapped.epoch = keys.epoch.clone();
    assert_eq!(code(made("swapped", swapped).unwrap_err()).as_deref(), Some("genesis_invalid"));
    let follower = NodeKeys { validator: None, ..keys.clone() };
    assert_eq!(code(made("follower", follower).unwrap_err()).as_deref(), Some("node_keys_follower"));
    let direct = NodeKeys { epoch: None, ..keys };
    assert_eq!(code(made("direct", direct).unwrap_err()).as_deref(), Some("node_keys_no_epoch"));
}

#[test]
fn the_client_certificate_pin_is_the_hash_of_its_public_key() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("net");
    let network = init(&root, &InitOptions { validators: 1, ..InitOptions::default() }).unwrap();
    let party = PartyProfile::load(&network.dir, "agency-1").unwrap();
    let founder = network.genesis.founders.iter().find(|f| f.party == party.party_id().unwrap()).unwrap();
    let key = rcgen::KeyPair::from_pem(&fs::read_to_string(network.dir.party("agency-1").tls_key()).unwrap()).unwrap();
    use rcgen::PublicKeyData as _;
    assert_eq!(founder.tls_pins[0], Hash::of(&key.subject_public_key_info()));
    assert_eq!(founder.key, party.signing_key(&network.dir).unwrap().enrolled());
}
