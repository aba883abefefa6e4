use super::*;

/// The committed example, as operators copy it.
const EXAMPLE: &str = include_str!("../../../../docs/steled.example.toml");

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/stele/steled.toml"))
}

fn keys(error: &ConfigError) -> Vec<&'static str> {
    match error {
        ConfigError::Invalid { faults, .. } => faults.iter().map(|fault| fault.key).collect(),
        other => panic!("expected faults, found {other}"),
    }
}

#[test]
fn the_example_loads_and_its_relative_paths_lie_beside_it() {
    let config = parse(EXAMPLE).unwrap();
    assert_eq!(config.api.key, Path::new("/etc/stele/keys/api.key"));
    assert_eq!(config.node.data_dir, Path::new("/var/lib/stele"));
    assert_eq!(config.peers.persistent.len(), 3);
    assert_eq!(config.validator.as_ref().map(|section| section.mode), Some(VoteMode::Delegated));
}

/// The example shows every key with its default, so that operators need no other list.
#[test]
fn the_example_states_the_defaults() {
    let config = parse(EXAMPLE).unwrap();
    let defaults = super::super::ApiLimits::default();
    assert_eq!(format!("{:?}", config.api.limits), format!("{defaults:?}"));
    assert_eq!(format!("{:?}", config.admission), format!("{:?}", super::super::AdmissionSection::default()));
    assert_eq!(format!("{:?}", config.order), format!("{:?}", super::super::OrderSection::default()));
    assert_eq!(format!("{:?}", config.accel), format!("{:?}", super::super::AccelSection::default()));
    assert_eq!(config.state, super::super::StateSection::default());
    for key in ["connections_max", "shutdown_grace_ms", "watchdog_pause_max_ms", "party_share_percent", "threads"] {
        assert!(EXAMPLE.contains(key), "{key}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_column() {
    let text = EXAMPLE.replace("party_listen", "partly_listen");
    let line = text.lines().position(|line| line.starts_with("partly_listen")).unwrap() + 1;
    let error = parse(&text).unwrap_err();
    let ConfigError::Syntax { line: found, column, message, .. } = &error else { panic!("{error}") };
    assert_eq!((*found, *column), (line, 1), "{message}");
    assert!(message.contains("partly_listen") && message.contains("party_listen"), "{message}");
    assert!(error.to_string().starts_with(&format!("/etc/stele/steled.toml:{line}:1: ")), "{error}");
}

#[test]
fn a_plain_listener_outside_loopback_is_refused() {
    let text = EXAMPLE.replace("plain_listen = \"127.0.0.1:", "plain_listen = \"0.0.0.0:");
    assert_ne!(text, EXAMPLE);
    assert_eq!(keys(&parse(&text).unwrap_err()), ["api.plain_listen"]);
}

#[test]
fn threads_of_the_state_are_bounded() {
    let with = |threads: &str| {
        let text = EXAMPLE.replace("threads = 1 ", &format!("threads = {threads} "));
        parse(&text).map(|config| config.state.threads)
    };
    assert_eq!(with("16").unwrap(), 16);
    for threads in ["0", "257"] {
        let error = with(threads).unwrap_err();
        assert_eq!((keys(&error), error.code()), (vec!["state.threads"], "config_invalid"));
    }
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    let config = parse(EXAMPLE).unwrap();
    let public = config.api.public_listen.unwrap().port().to_string();
    let party = config.api.party_listen.port().to_string();
    assert_eq!(keys(&parse(&EXAMPLE.replace(&public, &party)).unwrap_err()), ["api.public_listen"]);
}

#[test]
fn delegated_votes_without_an_epoch_key_are_refused() {
    let text = EXAMPLE.replace("epoch_keys = [\"keys/epoch.key\"]", "");
    assert_ne!(text, EXAMPLE);
    assert_eq!(keys(&parse(&text).unwrap_err()), ["validator.mode"]);
}

#[test]
fn a_signer_that_is_not_built_is_never_replaced_silently() {
    let text = EXAMPLE.replace("signer = \"software\"", "signer = \"tpm\"");
    assert_eq!(keys(&parse(&text).unwrap_err()), ["seal.key", "validator.long_term_key", "payload.custody_key"]);
}

#[test]
fn a_key_lies_in_a_file_or_a_signer_holds_it() {
    const KEYS: [&str; 4] = ["long_term_key =", "epoch_keys =", "key = \"keys/checkpoint.key\"", "custody_key ="];
    let lines = EXAMPLE.lines().filter(|line| !KEYS.iter().any(|key| line.starts_with(key)));
    let held: String = lines.map(|line| format!("{line}\n")).collect();
    let config = parse(&held).unwrap();
    assert_eq!(config.signer.unwrap().socket, Path::new("/run/stele-signer/signer.sock"));
    let section = &held[held.find("[signer]").unwrap()..held.find("[validator]").unwrap()];
    assert_eq!(
        keys(&parse(&held.replace(section, "")).unwrap_err()),
        ["seal.signer", "validator.signer", "payload.signer"]
    );
    let both = held.replace("mode = \"delegated\"", "mode = \"delegated\"\nepoch_keys = [\"epoch.key\"]");
    assert_eq!(keys(&parse(&both).unwrap_err()), ["validator.epoch_keys"]);
}

#[test]
fn peers_need_a_port_and_an_ed25519_peer_id() {
    let text = EXAMPLE.replace("10.0.0.2:7400", "10.0.0.2").replace("002408011220", "122008011220");
    assert_eq!(keys(&parse(&text).unwrap_err()), ["peers.persistent"; 4]);
}

#[test]
fn missing_files_and_open_keys_are_named_with_a_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("steled.toml");
    fs::write(&path, EXAMPLE.replace("/var/lib/stele", "data")).unwrap();
    fs::create_dir(directory.path().join("keys")).unwrap();
    let config = Config::load(&path).unwrap();
    let missing = keys(&config.check(&path).unwrap_err());
    assert_eq!(missing.len(), 12, "{missing:?}");
    let cold = config.payload.as_ref().unwrap().cold.as_ref().unwrap();
    let authorities = cold.authorities.as_ref().unwrap();
    for file in [&config.node.genesis, &config.api.certificate, &config.api.client_ca, authorities] {
        fs::write(file, "").unwrap();
    }
    let validator = config.validator.as_ref().unwrap();
    let secrets = [
        &config.api.key,
        &config.peers.key,
        config.seal.key.as_ref().unwrap(),
        validator.long_term_key.as_ref().unwrap(),
        &validator.epoch_keys[0],
        config.payload.as_ref().unwrap().custody_key.as_ref().unwrap(),
        &config.payload.as_ref().unwrap().custody.as_ref().unwrap().key,
    ];
    for secret in secrets {
        fs::write(secret, "").unwrap();
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for text in ["", "name", "name\n", "name\nkey\nmore"] {
        fs::write(&cold.credentials, text).unwrap();
        assert_eq!(keys(&config.check(&path).unwrap_err()), ["payload.cold.credentials"], "{text:?}");
    }
    fs::write(&cold.credentials, "name\nkey\n").unwrap();
    fs::set_permissions(&cold.credentials, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(config.check(&path).unwrap_err().to_string().contains("chmod 600"));
    fs::set_permissions(&cold.credentials, fs::Permissions::from_mode(0o600)).unwrap();
    config.check(&path).unwrap();
    fs::set_permissions(&config.api.key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = config.check(&path).unwrap_err();
    assert_eq!(keys(&error), ["api.key"]);
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_file_that_is_no_configuration_is_refused_by_its_size() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("steled.toml");
    fs::write(&path, " ".repeat(2 << 20)).unwrap();
    assert_eq!(Config::load(&path).unwrap_err().code(), "config_too_large");
}
