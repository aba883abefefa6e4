//! The command line as people and scripts meet it.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping it")]

use std::process::{Command, Output};

use clap::CommandFactory as _;
use stele_ctl::commands::Cli;

fn stele(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stele"));
    command.args(arguments);
    for variable in ["STELE_NETWORK_DIR", "STELE_AS", "STELE_NODE", "STELE_PIN"] {
        command.env_remove(variable);
    }
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn tree(command: &clap::Command, path: &str, lines: &mut Vec<String>) {
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        let path = format!("{path} {}", child.get_name());
        lines.push(format!("{path:<32} {}", child.get_about().map(ToString::to_string).unwrap_or_default()));
        tree(child, &path, lines);
    }
}

#[test]
fn every_command_says_what_it_does() {
    let mut lines = Vec::new();
    tree(&Cli::command(), "stele", &mut lines);
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn the_first_help_reads_well() {
    insta::assert_snapshot!(Cli::command().term_width(100).render_help().to_string());
}

#[test]
fn the_help_of_the_ceremony_reads_well() {
    let mut help = Vec::new();
    for words in
        [vec!["ceremony"], vec!["ceremony", "conduct"], vec!["ceremony", "verify"], vec!["approve"], vec!["share"]]
    {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut command = command.find_subcommand("key").unwrap().clone();
        for word in words {
            command = command.find_subcommand(word).unwrap().clone();
        }
        help.push(command.render_help().to_string());
    }
    insta::assert_snapshot!(help.join("\n"));
}

#[test]
fn every_argument_is_explained_and_nothing_contradicts_itself() {
    fn check(command: &clap::Command, path: &str) {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {}", argument.get_id());
        }
        for child in command.get_subcommands() {
            check(child, &format!("{path} {}", child.get_name()));
        }
    }
    let mut command = Cli::command();
    command.build();
    command.clone().debug_assert();
    check(&command, "stele");
}

/// `stele party suspend NAME` once acted as NAME: its argument had the id of the global `--as` and took its place.
#[test]
fn no_argument_takes_the_place_of_a_global_one() {
    fn check(command: &clap::Command, globals: &[clap::Id], path: &str) {
        for child in command.get_subcommands() {
            let path = format!("{path} {}", child.get_name());
            for argument in child.get_arguments() {
                assert!(!globals.contains(argument.get_id()), "{path}: {}", argument.get_id());
            }
            check(child, globals, &path);
        }
    }
    let command = Cli::command();
    let globals: Vec<_> = command.get_arguments().filter(|a| a.is_global_set()).map(|a| a.get_id().clone()).collect();
    assert_eq!(globals.len(), 5);
    check(&command, &globals, "stele");
}

#[test]
fn errors_carry_a_code_and_say_what_to_do() {
    let output = stele(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = text(&output.stderr);
    assert!(error.starts_with("error[network_dir_missing]: ") && error.contains("STELE_NETWORK_DIR"), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let net = directory.path().join("net");
    let net = net.to_str().unwrap();
    assert!(stele(&["network", "init", "--dir", net, "--validators", "1"]).status.success());
    let error = text(&stele(&["--network-dir", net, "submit", "x"]).stderr);
    assert!(error.starts_with("error[party_missing]: ") && error.contains("agency-1"), "{error}");
    let error = text(&stele(&["--network-dir", net, "--as", "../agency-1", "key", "show"]).stderr);
    assert!(error.starts_with("error[party_name_invalid]: "), "{error}");
    let error = text(&stele(&["--network-dir", net, "--node", "node-9", "query", "network"]).stderr);
    assert!(error.starts_with("error[node_unknown]: ") && error.contains("node-1"), "{error}");
}

#[test]
fn programs_read_errors_as_json() {
    let output = stele(&["--output", "json", "key", "show", "nowhere.key"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &error["error"]), (Some(1), &"file_missing".into()));
    assert!(error["what_to_do"].as_str().is_some_and(|text| text.contains("path")), "{error}");
}

#[test]
fn json_is_json_and_nothing_else_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let net = directory.path().join("net");
    let net = net.to_str().unwrap();
    let made = stele(&["--output", "json", "network", "init", "--dir", net, "--validators", "1"]);
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(made["validators"], 1);
    let founders = stele(&["--network-dir", net, "-o", "json", "party", "list-founders"]);
    let founders: serde_json::Value = serde_json::from_slice(&founders.stdout).unwrap();
    let names: Vec<_> = founders.as_array().unwrap().iter().filter_map(|founder| founder["name"].as_str()).collect();
    assert!(names.contains(&"governor-2") && names.len() == 6, "{names:?}");
    // A node that does not run is told as such, for programs too.
    let status = stele(&["--network-dir", net, "-o", "json", "status"]);
    assert_eq!(status.status.code(), Some(1));
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!((&status[0]["state"], &status[0]["height"]), (&"node_unreachable".into(), &serde_json::Value::Null));
}

#[test]
fn keys_are_made_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("new.key");
    let file = file.to_str().unwrap();
    for (suite, bytes) in [("es256", 33), ("eddsa", 32), ("sm2_sm3", 33)] {
        let path = format!("{file}.{suite}");
        let made = stele(&["-o", "json", "key", "generate", "--suite", suite, "--out", &path]);
        let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
        let shown = stele(&["-o", "json", "key", "show", &path]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert_eq!(
            (&made["key"], &made["public_key"], &shown["suite"]),
            (&shown["key"], &shown["public_key"], &suite.into())
        );
        assert_eq!(shown["public_key"].as_str().unwrap().len(), bytes * 2);
        assert!(!stele(&["key", "generate", "--suite", suite, "--out", &path]).status.success(), "never overwritten");
    }
}

#[test]
fn man_pages_and_completions_come_from_the_command_line_itself() {
    let directory = tempfile::tempdir().unwrap();
    let man = directory.path().join("man");
    assert!(stele(&["man", man.to_str().unwrap()]).status.success());
    let page = std::fs::read_to_string(man.join("stele-receipt-verify.1")).unwrap();
    assert!(page.contains("Exit codes") && page.contains("genesis"), "{page}");
    assert!(text(&stele(&["completions", "bash"]).stdout).contains("_stele()"));
    // A reader that has seen enough, as `head` does, ends the program quietly.
    let mut child = Command::new(env!("CARGO_BIN_EXE_stele"))
        .args(["completions", "bash"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", text(&ended.stderr));
}

#[test]
fn the_verifier_tells_usage_from_an_invalid_proof() {
    let verify = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_stele-verify")).args(arguments).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let directory = tempfile::tempdir().unwrap();
    let net = directory.path().join("net");
    assert!(stele(&["network", "init", "--dir", net.to_str().unwrap(), "--validators", "1"]).status.success());
    let genesis = net.join("genesis.cbor");
    let genesis = genesis.to_str().unwrap();
    assert_eq!(verify(&["--help"]).0, Some(0));
    for arguments in [&[][..], &["a", "b"], &["none"], &["--genesis"], &["--pin", "x", "none"], &["--what", "none"]] {
        assert_eq!(verify(arguments).0, Some(2), "{arguments:?}");
    }
    // A state bundle is told by its first byte; what it lacks then makes it invalid.
    let cut = directory.path().join("cut.state");
    std::fs::write(&cut, [0xa3, 1, 1]).unwrap();
    let cut = cut.to_str().unwrap();
    let key = "00".repeat(32);
    let (code, error) = verify(&[cut, "--genesis", genesis, "--state-key", &key]);
    assert!(code == Some(1) && error.contains("the state bundle does not decode"), "{error}");
    let error = text(&stele(&["state", "verify", cut, "--genesis", genesis]).stderr);
    assert!(error.starts_with("error[malformed]: "), "{error}");
    assert_eq!(verify(&[genesis, "--genesis", genesis, "--state-key", &key]).0, Some(2));
    assert_eq!(stele(&["state", "verify", "none", "--genesis", genesis]).status.code(), Some(2));
    // A genesis file is no bundle.
    let (code, error) = verify(&[genesis, "--genesis", genesis]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.starts_with("error[malformed]: "), "{error}");
    let error = text(&stele(&["receipt", "verify", genesis, "--genesis", genesis]).stderr);
    assert!(error.starts_with("error[malformed]: "), "{error}");
    // Scripts read a refusal where they look for the verdict.
    for (program, arguments) in [
        (env!("CARGO_BIN_EXE_stele-verify"), &[genesis, "--genesis", genesis, "--json"][..]),
        (env!("CARGO_BIN_EXE_stele"), &["-o", "json", "receipt", "verify", genesis, "--genesis", genesis]),
    ] {
        let output = Command::new(program).args(arguments).output().unwrap();
        let refusal: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.is_empty()), (Some(1), true));
        assert_eq!((&refusal["verdict"], &refusal["error"]), (&"invalid".into(), &"malformed".into()));
    }
}
