//! The demo's input: packages of npm and PyPI, fetched once into the cache, never committed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, setup};

/// Packages with their versions and what they give.
const PACKAGES: [(&str, &str, &str); 2] = [
    ("hl7.fhir.r4.examples", "4.0.1", "5,306 FHIR R4 example resources (CC0)"),
    ("china-division", "2.7.0", "place codes of Chinese divisions (MIT)"),
];

/// A wheel of PyPI, which is an archive as well.
const WHEEL: (&str, &str, &str) = ("pydicom", "3.0.2", "104 DICOM images (MIT)");

/// Where the packages are unpacked, each under its name.
pub(crate) fn directory() -> Result<PathBuf> {
    Ok(cargo::cache()?.join("data"))
}

/// Fetches what is missing.
pub(crate) fn fetch() -> Result<()> {
    for (name, version, what) in PACKAGES {
        let directory = directory()?;
        let target = directory.join(format!("{name}-{version}"));
        if target.join("package.json").exists() {
            continue;
        }
        println!("setup: fetching {name} {version} ({what})");
        let work = directory.join(format!("{name}-{version}.new"));
        if work.exists() {
            std::fs::remove_dir_all(&work).context("cannot remove an unfinished download")?;
        }
        std::fs::create_dir_all(&work).context("cannot create the data directory")?;
        let package = format!("{name}@{version}");
        let mut pack = Command::new("npm");
        pack.args(["pack", "--silent", &package]).current_dir(&work).stdout(Stdio::null());
        cargo::run(&mut pack).with_context(|| format!("cannot fetch {package}; check the npm registry's address"))?;
        let archive = std::fs::read_dir(&work)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
        let Some(archive) = archive else { bail!("npm packed no archive of {package}") };
        cargo::run(Command::new("tar").arg("-xzf").arg(&archive).args(["--strip-components", "1"]).current_dir(&work))?;
        std::fs::remove_file(&archive)?;
        std::fs::rename(&work, &target).context("cannot move the download into place")?;
    }
    fetch_wheel()
}

fn fetch_wheel() -> Result<()> {
    let (name, version, what) = WHEEL;
    let target = directory()?.join(format!("{name}-{version}"));
    if target.exists() {
        return Ok(());
    }
    println!("setup: fetching {name} {version} ({what})");
    let work = target.with_extension("new");
    if work.exists() {
        std::fs::remove_dir_all(&work).context("cannot remove an unfinished download")?;
    }
    std::fs::create_dir_all(&work).context("cannot create the data directory")?;
    let package = format!("{name}=={version}");
    let mut pip = setup::pip()?;
    pip.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--only-binary", ":all:", &package]).current_dir(&work).stdout(Stdio::null());
    cargo::run(&mut pip).with_context(|| format!("cannot fetch {package}; check the Python registry's address"))?;
    let wheel = std::fs::read_dir(&work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let Some(wheel) = wheel else { bail!("pip fetched no wheel of {package}") };
    cargo::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(".").current_dir(&work))?;
    std::fs::remove_file(&wheel)?;
    std::fs::rename(&work, &target).context("cannot move the download into place")
}
