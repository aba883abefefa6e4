//! A machine that QEMU emulates, both from outside and from inside.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

/// What the guest says in the end.
pub(crate) const PASSED: &str = "guest: every check passed";

/// How long the machine may run, in seconds; it takes a fraction of it on an idle processor.
const SECONDS_MAX: &str = "240";

/// The modules of the NVMe driver, each after those it needs. Debian's kernel has none of them built in.
const MODULES: [&str; 9] = [
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

/// A namespace of the machine's one controller.
pub(crate) struct Drive {
    pub(crate) number: u32,
    pub(crate) image: PathBuf,
    /// Further properties of QEMU's `nvme-ns`.
    pub(crate) options: &'static str,
    /// A place in bytes that can be neither read nor written; a drive that has one cannot be flushed either.
    pub(crate) broken: Option<u64>,
}

/// What it takes to run one: QEMU, and a kernel where `cargo xtask setup` put it.
pub(crate) struct Machine {
    kernel: PathBuf,
}

impl Machine {
    /// `None`, and says so, if something is missing; on CI that is a failure.
    pub(crate) fn available() -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
        let kernel = cache.unwrap_or_default().join("stele/guest");
        let emulator = Command::new("qemu-system-x86_64").arg("--version").output();
        let missing = if emulator.is_ok_and(|output| output.status.success()) {
            let files = MODULES.iter().map(|module| kernel.join(module).with_extension("ko"));
            let absent = files.chain([kernel.join("vmlinuz")]).find(|file| !file.exists());
            absent.map(|file| format!("there is no {}", file.display()))
        } else {
            Some("qemu-system-x86_64 is not installed".into())
        };
        let Some(missing) = missing else { return Some(Self { kernel }) };
        println!("not run: {missing}; `cargo xtask setup` gets it");
        assert!(std::env::var_os("CI").is_none(), "CI runs every test: {missing}");
        None
    }

    /// Runs this program in a machine with the drives until it powers off; what it said.
    pub(crate) fn run(&self, directory: &Path, drives: &[Drive]) -> String {
        let archive = directory.join("initramfs");
        std::fs::write(&archive, self.initramfs()).unwrap();
        let mut command = Command::new("timeout");
        // No network, no screen, and when it is done or panics it ends.
        command.args(["--kill-after=5", SECONDS_MAX, "qemu-system-x86_64", "-accel", "tcg", "-machine", "q35"]);
        command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-m", "512", "-smp", "2"]);
        command.arg("-kernel").arg(self.kernel.join("vmlinuz")).arg("-initrd").arg(&archive);
        let words = "rdinit=/init console=ttyS0 quiet panic=-1 -- --exact guest --ignored --nocapture";
        command.args(["-append", words]);
        // The drive's transfers are at most 2^4 pages.
        command.args(["-device", "nvme,id=controller,serial=stele,mdts=4"]);
        for drive in drives {
            command.args(drive.arguments());
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        format!("{said}\nQEMU ended: {}", output.status)
    }

    /// This program as the guest's init, what it is linked to, and the modules.
    fn initramfs(&self) -> Vec<u8> {
        let program = std::env::current_exe().unwrap();
        let linked = Command::new("ldd").arg(&program).output().unwrap();
        let linked = String::from_utf8(linked.stdout).unwrap();
        let libraries = linked.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
        let mut archive = Archive::default();
        for directory in ["dev", "proc"] {
            archive.directory(directory);
        }
        archive.file("init", &program);
        for library in libraries {
            archive.file(library.strip_prefix("/").unwrap().to_str().unwrap(), &library);
        }
        for module in MODULES {
            archive.file(&format!("modules/{module}.ko"), &self.kernel.join(module).with_extension("ko"));
        }
        archive.finish()
    }
}

impl Drive {
    fn arguments(&self) -> [OsString; 4] {
        let Self { number, image, options, .. } = self;
        let image = image.to_str().unwrap();
        let node = match self.broken {
            None => format!("driver=file,filename={image}"),
            Some(bytes) => {
                let mut node = format!("driver=blkdebug,image.driver=file,image.filename={image}");
                for (rule, kind) in ["read", "write", "flush"].into_iter().enumerate() {
                    let name = format!("inject-error.{rule}");
                    write!(node, ",{name}.event=none,{name}.errno=5,{name}.once=off,{name}.iotype={kind}").unwrap();
                    if kind != "flush" {
                        write!(node, ",{name}.sector={}", bytes / 512).unwrap();
                    }
                }
                node
            }
        };
        let device =
            format!("nvme-ns,drive=drive{number},bus=controller,nsid={number},physical_block_size=4096,{options}");
        ["-blockdev".into(), format!("{node},node-name=drive{number}").into(), "-device".into(), device.into()]
    }
}

/// An archive as Linux unpacks it at boot: "newc" of cpio(5).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<String>,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        if name.is_empty() || self.directories.iter().any(|known| known == name) {
            return;
        }
        self.parent(name);
        self.directories.push(name.into());
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &str, source: &Path) {
        self.parent(name);
        self.entry(name, 0o100_755, &std::fs::read(source).unwrap());
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parent(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name_bytes, content_bytes) =
            (u32::try_from(name.len() + 1).unwrap(), u32::try_from(content.len()).unwrap());
        // Inode, mode, user, group, links, time, size, two devices, length of the name, no checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, content_bytes, 0, 0, 0, 0, name_bytes, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// From inside: makes the machine what programs expect, and its drives appear.
pub(crate) fn settle() {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc")] {
        rustix::mount::mount(kind, place, kind, MountFlags::empty(), None).unwrap();
    }
    for module in MODULES {
        let image = std::fs::read(format!("/modules/{module}.ko")).unwrap();
        rustix::system::init_module(&image, c"").unwrap_or_else(|error| panic!("{module}: {error}"));
    }
}

/// From inside: the end.
pub(crate) fn power_off() {
    rustix::system::reboot(RebootCommand::PowerOff).unwrap();
}
