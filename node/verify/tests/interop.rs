//! Receipts under independent software: `scitt-cose` from PyPI, which shares no line with us.
//!
//! The test makes a Python virtual environment below the target directory once and installs the pinned release into it
//! from the configured package index. Without Python or an index it fails and says what to install: interoperability
//! that was not tested is not claimed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fixture;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use fixture::Network;
use stele_types::{Receipt, cbor};
use stele_verify::statement::{attach_receipts, strip_receipts};

/// The release that receipts are tested with, and the two packages that it needs.
const PACKAGE: &str = "scitt-cose==0.5.0";

/// The directory of the virtual environment's programs, made on first use: once in a process, whose tests share its id.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(install)
}

fn install() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scitt-cose-0.5.0");
    let programs = environment.join("bin");
    if programs.join("scitt-cose").exists() {
        return programs;
    }
    // Made beside its place and renamed, so that a test that was killed leaves no half of it behind.
    let fresh = environment.with_extension(std::process::id().to_string());
    let hint = "this test needs python3 with venv (Debian: apt-get install python3-venv) and a package index for pip";
    let run = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {hint}"));
        assert!(output.status.success(), "{command:?}: {}; {hint}", String::from_utf8_lossy(&output.stderr));
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&fresh));
    let python = fresh.join("bin/python");
    run(Command::new(python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]));
    if std::fs::rename(&fresh, &environment).is_err() {
        // Another test was quicker.
        std::fs::remove_dir_all(&fresh).unwrap();
    }
    assert!(programs.join("scitt-cose").exists(), "{PACKAGE} brings its command; {hint}");
    programs
}

/// Runs Python in the environment; console scripts name the path where they were installed, which is another one now.
fn python(arguments: &[&str]) -> Output {
    Command::new(programs().join("python")).args(arguments).output().unwrap()
}

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { directory: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
    /// The verdict of `scitt-cose` on a receipt: exit code 0 or 1, anything else is a fault of the test.
    fn accepts(&self, receipt: &[u8], entry: &[u8], key_pem: &str) -> bool {
        let receipt = self.write("receipt.cose", receipt);
        let key = self.write("log.pem", key_pem.as_bytes());
        let leaf: String = entry.iter().map(|byte| format!("{byte:02x}")).collect();
        let arguments = ["--receipt", &receipt, "--receipt-log-pubkey", &key, "--leaf-entry-hex", &leaf, "--json"];
        let output = python(&[&["-m", "scitt_cose.cli"][..], &arguments].concat());
        match output.status.code() {
            Some(0) => true,
            Some(1) => false,
            code => panic!("exit {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

#[test]
fn receipts_verify_with_independent_software_and_forgeries_do_not() {
    let network = Network::with_history("north");
    let files = Files::new();
    let key = network.public_checkpoint_key().to_spki_pem().unwrap();
    let other = stele_verify::PublicKey::new(stele_types::Suite::Es256, &fixture::sec1(&network.issuer_key)).unwrap();
    let entry = network.entry(2);
    let receipt = cbor::to_vec(&network.receipt(1, 7));
    assert!(files.accepts(&receipt, &entry, &key));
    assert!(files.accepts(&cbor::to_vec(&network.receipt(2, 7)), &network.entry(4), &key));
    assert!(!files.accepts(&receipt, &entry, &other.to_spki_pem().unwrap()), "wrong key");
    assert!(!files.accepts(&receipt, &network.entry(1), &key), "wrong leaf");
    assert!(!files.accepts(&receipt, &network.entry(3), &key), "a rejected statement");
    let mut longer = entry.clone();
    longer.push(0);
    assert!(!files.accepts(&receipt, &longer, &key), "a leaf with a byte more");
}

/// Every byte of a receipt in one Python process, because starting one takes longer than verifying.
#[test]
fn no_flipped_byte_of_a_receipt_is_accepted_by_independent_software() {
    const PROGRAM: &str = "
import sys
from scitt_cose.receipt import verify_receipt
receipt, leaf, key = open(sys.argv[1], 'rb').read(), open(sys.argv[2], 'rb').read(), open(sys.argv[3], 'rb').read()
ok = lambda bytes: verify_receipt(bytes, leaf_entry_hex=leaf.hex(), log_public_key_pem=key).ok
result = verify_receipt(receipt, leaf_entry_hex=leaf.hex(), log_public_key_pem=key)
assert result.ok, result.errors
assert result.issuer == sys.argv[4] and result.subject == 'log' and result.iat == int(sys.argv[5]), result
for at in range(len(receipt)):
    flipped = bytearray(receipt)
    flipped[at] ^= 1 << (at % 8)
    assert not ok(bytes(flipped)), f'byte {at}'
print(len(receipt))
";
    let network = Network::with_history("north");
    let files = Files::new();
    let receipt: Receipt = network.receipt(1, 7);
    let bytes = cbor::to_vec(&receipt);
    let key = network.public_checkpoint_key().to_spki_pem().unwrap();
    let paths =
        [files.write("receipt", &bytes), files.write("leaf", &network.entry(2)), files.write("key", key.as_bytes())];
    let seconds = (receipt.checkpoint.time_ms / 1000).to_string();
    let output = python(&["-c", PROGRAM, &paths[0], &paths[1], &paths[2], &receipt.checkpoint.issuer(), &seconds]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), bytes.len().to_string());
}

/// Statements themselves are COSE_Sign1, and receipts attach in the one form that RFC 9942 gives.
#[test]
fn statements_and_attached_receipts_have_the_form_others_read() {
    const PROGRAM: &str = "
import sys
from scitt_cose.statement import parse_signed_statement, extract_receipts, attach_receipts
entry, transparent, receipt, key = (open(path, 'rb').read() for path in sys.argv[1:5])
for statement in (entry, transparent):
    parsed = parse_signed_statement(statement, public_key_pem=key)
    assert parsed['signature_verified'] is True, parsed
    assert parsed['issuer'] == sys.argv[5], parsed
assert extract_receipts(transparent) == [receipt]
sys.stdout.buffer.write(attach_receipts(entry, [receipt, receipt]))
";
    let network = Network::with_history("north");
    let files = Files::new();
    let (entry, receipt) = (network.entry(2), cbor::to_vec(&network.receipt(1, 7)));
    let transparent = attach_receipts(&entry, &[&receipt]).unwrap();
    let key = stele_verify::PublicKey::new(stele_types::Suite::Es256, &fixture::sec1(&network.issuer_key)).unwrap();
    let paths = [
        files.write("entry", &entry),
        files.write("transparent", &transparent),
        files.write("receipt", &receipt),
        files.write("key", key.to_spki_pem().unwrap().as_bytes()),
    ];
    let issuer = network.issuer.to_hex();
    let output = python(&["-c", PROGRAM, &paths[0], &paths[1], &paths[2], &paths[3], &issuer]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let theirs = strip_receipts(&output.stdout).unwrap();
    assert_eq!((theirs.entry, theirs.receipts), (entry, vec![&receipt[..], &receipt[..]]));
}
