//! A token of SoftHSM's for each test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use stele_hsm::pkcs11::{Pkcs11Options, Pkcs11Token};
use zeroize::Zeroizing;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "123456";

/// Tells the inner process where its token is.
const DIRECTORY: &str = "STELE_SOFTHSM_DIRECTORY";

/// Runs the body of the test `name` in a process of its own, with a directory that holds its token.
pub(crate) fn with_token(name: &str, body: impl FnOnce(&Path)) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return body(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let configuration = directory.path().join("softhsm2.conf");
    let tokens = directory.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    fs::write(&configuration, format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display())).unwrap();
    let mut make = Command::new("softhsm2-util");
    make.args(["--init-token", "--free", "--label", "node", "--so-pin", "87654321", "--pin", PIN]);
    run(make.env("SOFTHSM2_CONF", &configuration), "softhsm2-util", "softhsm2");
    let mut inner = Command::new(env::current_exe().unwrap());
    inner.args(["--exact", name, "--nocapture"]).env("SOFTHSM2_CONF", &configuration).env(DIRECTORY, directory.path());
    let output = run(&mut inner, "the test", "itself");
    assert!(output.contains("1 passed"), "{name} is no test: {output}");
}

/// Runs a program that must be there and must succeed.
pub(crate) fn run(command: &mut Command, program: &str, package: &str) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} of package {package} cannot be run ({error}): cargo xtask setup installs it")
    });
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs OpenSC's tool on the token.
pub(crate) fn pkcs11_tool(words: &[&str]) -> String {
    let mut command = Command::new("pkcs11-tool");
    run(
        command.args(["--module", MODULE, "--token-label", "node", "--login", "--pin", PIN]).args(words),
        "pkcs11-tool",
        "opensc",
    )
}

pub(crate) fn options() -> Pkcs11Options {
    Pkcs11Options { module: PathBuf::from(MODULE), token: "node".into(), sessions: 4 }
}

pub(crate) fn open() -> Pkcs11Token {
    Pkcs11Token::open(&options(), &Zeroizing::new(PIN.into())).unwrap()
}
