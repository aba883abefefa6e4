//! Keylime, a verifier of other people's, in a Python environment of its own in the user's cache: the tests of evidence let
//! it judge what ours judges.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, setup};

/// Debian's Python, for which Debian's bindings of GPGME are built; the registry has only their source.
const PYTHON: &str = "/usr/bin/python3";

/// Keylime and what its verifying part imports: its wheel names none of them.
const WHEELS: [&str; 11] = [
    "keylime==7.14.3",
    "cryptography==50.0.2",
    "PyYAML==6.0.4",
    "requests==2.34.2",
    "packaging==26.4",
    "SQLAlchemy==2.1.9",
    "jsonschema==4.26.0",
    "lark==1.3.1",
    "tornado==6.6.1",
    "pyasn1==0.6.5",
    "pyasn1_modules==0.4.2",
];

/// Installs it unless it is there.
pub(crate) fn install() -> Result<()> {
    let directory = cargo::cache()?.join("keylime");
    if is_whole(&directory) {
        return Ok(());
    }
    println!("setup: installing keylime into {} (judges evidence beside our own verifier)", directory.display());
    let libraries = ["libefivar1", "python3-gpg", "python3-venv"];
    if !libraries.iter().all(|package| is_installed(package)) {
        setup::apt(&libraries)?;
    }
    if directory.exists() {
        std::fs::remove_dir_all(&directory).context("remains of an earlier attempt at keylime")?;
    }
    cargo::run(Command::new(PYTHON).args(["-m", "venv"]).arg(&directory))?;
    let mut pip = Command::new(directory.join("bin/pip"));
    cargo::run(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(WHEELS))
        .context("cannot install keylime; check the Python registry's address")?;
    // Only this one of Debian's, so that the rest is of the versions above.
    let packages = std::fs::read_dir(directory.join("lib")).context("the environment of keylime")?;
    for version in packages {
        let linked = version?.path().join("site-packages/gpg");
        if !linked.exists() {
            std::os::unix::fs::symlink("/usr/lib/python3/dist-packages/gpg", linked)
                .context("the bindings of GPGME")?;
        }
    }
    if is_whole(&directory) { Ok(()) } else { bail!("keylime was installed but cannot be imported") }
}

fn is_whole(directory: &Path) -> bool {
    let imported = "import gpg, keylime.cloud_verifier_common, ctypes; ctypes.CDLL('libefivar.so.1')";
    let mut python = Command::new(directory.join("bin/python"));
    // Elsewhere than here, where a file could have a module's name.
    python.args(["-I", "-c", imported]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg").args(["-s", package]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
