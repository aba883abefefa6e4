//! The units of the service manager: it reads them, and its own score of what they leave open holds.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cargo;

/// Units and the exposure that `systemd-analyze security` may find, in tenths: 0 is closed, 100 open.
const UNITS: [(&str, u32); 2] = [("stele-signer.service", 12), ("steled.service", 15)];

/// Programs that the units name.
const PROGRAMS: [&str; 3] = ["usr/bin/steled", "usr/bin/stele-signer", "bin/kill"];

/// The service manager's own units, on which ours build.
const SYSTEM_UNITS: &str = "/usr/lib/systemd/system";

pub(crate) fn check() -> Result<()> {
    let directory = cargo::root().join("systemd");
    for (unit, threshold) in UNITS {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={threshold}")]);
        quietly(command.arg(directory.join(unit))).with_context(|| format!("{unit} leaves more open than it did"))?;
    }
    let users = directory.join("stele.sysusers");
    quietly(Command::new("systemd-sysusers").arg("--dry-run").arg(users)).context("stele.sysusers")?;
    let root = cargo::target()?.join("units");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    verify(&directory, &root)
}

/// Lets the service manager read the units in a system of their own, where the programs are.
fn verify(directory: &Path, root: &Path) -> Result<()> {
    let units = root.join("usr/lib/systemd/system");
    fs::create_dir_all(&units)?;
    quietly(Command::new("cp").arg("-a").arg(format!("{SYSTEM_UNITS}/.")).arg(&units))?;
    for program in PROGRAMS {
        let path = root.join(program);
        fs::create_dir_all(path.parent().context("a program has a directory")?)?;
        fs::write(&path, "#!/bin/sh\n")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    for (unit, _) in UNITS {
        fs::copy(directory.join(unit), units.join(unit)).with_context(|| unit.to_owned())?;
    }
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(format!("--root={}", root.display())).arg("--man=no");
    let output = command.args(UNITS.map(|(unit, _)| unit)).output().context("systemd-analyze cannot be run")?;
    // It says what it does not understand, and ends well all the same.
    if !output.status.success() || !output.stderr.is_empty() {
        bail!("systemd-analyze verify: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn quietly(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} cannot be run"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(())
}
