//! A disk whose power can be cut: a file system in a file, mounted through a loop device. Needs root, `mount`, and
//! `mkfs.ext4` or `mkfs.xfs` with `xfs_io`.
//!
//! Killing a process proves little about power: what it wrote lies in the kernel's memory and reaches the disk all the
//! same. Here the file system itself is shut down without flushing its journal (the ioctl that the file systems' own crash
//! tests use), so from that moment on everything that was not made durable is gone, in memory and for good. Mounted again,
//! the file system recovers as after a power failure.
//!
//! What it does not show: a drive that confirms a flush and still loses what it holds.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Size of the file system; its file is sparse.
const BYTES: u64 = 4 << 30;
/// How long a file system may be busy after its users were killed.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(20);
const NEEDS: &str = "a power failure needs a file system of its own: run the test as root with util-linux, e2fsprogs and xfsprogs installed";

/// File systems that appliances use. XFS allocates late, so it leaves other traces of what was not flushed than ext4.
#[derive(Clone, Copy, Debug)]
pub enum FileSystem {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// Why this machine has no such disk, whatever is installed: the process may not mount, or the kernel lacks loop devices
/// or the file system. Tests say it and go on.
pub fn missing(kind: FileSystem) -> Option<String> {
    /// Number of `CAP_SYS_ADMIN` (capabilities(7)).
    const SYS_ADMIN: u32 = 21;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if effective >> SYS_ADMIN & 1 == 0 {
        return Some("this process may not mount file systems".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("the kernel has no loop devices".into());
    }
    // It may be a module that nobody has needed yet.
    let known = || read("/proc/filesystems").split_whitespace().any(|word| word == kind.name());
    if !known() {
        let _ = Command::new("modprobe").arg(kind.name()).output();
    }
    (!known()).then(|| format!("the kernel has no {}", kind.name()))
}

/// A mounted disk; it is taken off when it is dropped.
pub struct Disk {
    // Removed after the file system in it was taken off.
    directory: tempfile::TempDir,
    mounted_on: PathBuf,
}

impl Disk {
    /// Puts a new file system under a directory, with all that lies there, durably.
    ///
    /// # Errors
    /// When the tools are missing or not permitted: such a test cannot run, and says so.
    pub fn under(path: &Path, kind: FileSystem) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("stele-disk-").tempdir().context("temporary directory")?;
        let disk = Self { directory, mounted_on: path.to_owned() };
        let image = disk.image();
        File::create(&image).and_then(|file| file.set_len(BYTES)).context("image of a disk")?;
        run(&format!("mkfs.{}", kind.name()), [OsStr::new("-q"), image.as_os_str()]).context(NEEDS)?;
        let aside = disk.directory.path().join("aside");
        std::fs::create_dir(&aside).context("mount point")?;
        run("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), aside.as_os_str()]).context(NEEDS)?;
        let copied = run("cp", [OsStr::new("-a"), path.join(".").as_os_str(), aside.as_os_str()]);
        run("umount", [&aside])?;
        copied?;
        disk.mount()?;
        Ok(disk)
    }

    /// Loses everything that is not durable. Whoever uses the file system gets errors from now on.
    ///
    /// # Errors
    /// When the file system cannot be shut down.
    pub fn cut_power(&self) -> Result<()> {
        let shutdown = ["-x", "-c", "shutdown"].map(OsStr::new);
        run("xfs_io", shutdown.into_iter().chain([self.mounted_on.as_os_str()]))
    }

    /// Mounts it again, which recovers what its journal holds. Its users must have ended.
    ///
    /// # Errors
    /// When it stays busy or cannot be mounted.
    pub fn restore_power(&self) -> Result<()> {
        let deadline = Instant::now() + RELEASE_WAIT_MAX;
        while let Err(busy) = run("umount", [&self.mounted_on]) {
            ensure!(Instant::now() < deadline, "{busy}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.mount()
    }

    fn mount(&self) -> Result<()> {
        let image = self.image();
        run("mount", [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), self.mounted_on.as_os_str()])
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, because processes of a test that failed may still run; the last of them frees the loop device.
        let _ = run("umount", [OsStr::new("-l"), self.mounted_on.as_os_str()]);
    }
}

fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_not_flushed_is_gone_and_what_was_is_there() {
        for kind in [FileSystem::Ext4, FileSystem::Xfs] {
            if let Some(why) = missing(kind) {
                eprintln!("not tested: {why}");
                continue;
            }
            let directory = tempfile::tempdir().unwrap();
            let path = |name: &str| directory.path().join(name);
            std::fs::write(path("old"), "before the disk was there").unwrap();
            let disk = Disk::under(directory.path(), kind).unwrap();
            assert_eq!(std::fs::read_to_string(path("old")).unwrap(), "before the disk was there");
            let write = |name: &str| {
                let mut file = File::create(path(name)).unwrap();
                file.write_all(b"new").unwrap();
                file
            };
            write("flushed").sync_all().unwrap();
            File::open(directory.path()).unwrap().sync_all().unwrap();
            let unflushed = write("unflushed");
            disk.cut_power().unwrap();
            assert!(unflushed.sync_all().is_err(), "{kind:?}: the disk is off");
            drop(unflushed);
            disk.restore_power().unwrap();
            assert_eq!(std::fs::read_to_string(path("flushed")).unwrap(), "new", "{kind:?}");
            assert!(!path("unflushed").exists(), "{kind:?}");
        }
    }
}
