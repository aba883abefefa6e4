//! A real TPM 2.0 in software, and the tools that others use with it. Shared by the tests of `stele-hsm` and
//! `stele-evidence`.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long the emulator may take to open its socket on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// An emulated TPM on loopback with its files in a directory of its own, killed when it is dropped.
pub(crate) struct Swtpm {
    directory: TempDir,
    /// Port of commands; that of control is the next.
    port: u16,
    process: Option<Child>,
}

impl Swtpm {
    /// Starts a TPM fresh from the factory.
    pub(crate) fn start() -> Self {
        let mut swtpm = Self { directory: tempfile::tempdir().unwrap(), port: free_ports(), process: None };
        fs::create_dir(swtpm.state()).unwrap();
        swtpm.power_on();
        swtpm
    }

    /// Starts a TPM whose maker gave it certificates of its endorsement keys, and its authority's certificates: PEM, root
    /// first.
    pub(crate) fn start_certified() -> (Self, Vec<String>) {
        let mut swtpm = Self { directory: tempfile::tempdir().unwrap(), port: free_ports(), process: None };
        fs::create_dir(swtpm.state()).unwrap();
        let authority = swtpm.path("authority");
        fs::create_dir(&authority).unwrap();
        let shown = authority.display();
        let local = swtpm.path("localca.conf");
        let lines = [
            format!("statedir = {shown}"),
            format!("signingkey = {shown}/signkey.pem"),
            format!("issuercert = {shown}/issuercert.pem"),
            format!("certserial = {shown}/certserial"),
        ];
        fs::write(&local, lines.join("\n")).unwrap();
        let options = swtpm.path("localca.options");
        fs::write(&options, "--platform-manufacturer Stele\n--platform-version 1\n--platform-model Test\n").unwrap();
        let setup = swtpm.path("setup.conf");
        let lines = [
            "create_certs_tool = /usr/bin/swtpm_localca".to_owned(),
            format!("create_certs_tool_config = {}", local.display()),
            format!("create_certs_tool_options = {}", options.display()),
        ];
        fs::write(&setup, lines.join("\n")).unwrap();
        // Without --overwrite a second key's certificate is made for a TPM that has one already.
        let mut command = Command::new("swtpm_setup");
        command.args(["--tpm2", "--create-ek-cert", "--not-overwrite", "--pcr-banks", "sha1,sha256,sha384"]);
        command.arg("--tpm-state").arg(swtpm.state()).arg("--config").arg(&setup);
        run(command.arg("--logfile").arg(swtpm.path("setup.log")), "swtpm_setup", "swtpm-tools").unwrap();
        let read = |name: &str| fs::read_to_string(authority.join(name)).unwrap();
        let authorities = vec![read("swtpm-localca-rootca-cert.pem"), read("issuercert.pem")];
        swtpm.power_on();
        (swtpm, authorities)
    }

    /// Switches it on: the TPM is reset, keys in files and counters stay.
    pub(crate) fn power_on(&mut self) {
        let started = Instant::now();
        while !self.try_power_on() {
            assert!(started.elapsed() < START_TIMEOUT, "swtpm does not listen on port {}", self.port);
            // Connections of the process before may hold the port for a moment.
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_power_on(&mut self) -> bool {
        // The TCG's software stack lets children inherit its connections, and this one lives on: a TPM takes one connection at
        // a time, so one that a stranger keeps open would hold the next for ever.
        const ALONE: &str = r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -le 2 ] || eval "exec $fd>&-"; done
            exec swtpm "$@""#;
        let mut command = Command::new("bash");
        command.args(["-c", ALONE, "swtpm", "socket", "--tpm2", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", self.state().display()));
        command.arg("--server").arg(format!("type=tcp,port={}", self.port));
        command.arg("--ctrl").arg(format!("type=tcp,port={}", self.port + 1));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap_or_else(|error| missing("bash", "bash", &error));
        // Another process that took the port first makes ours end soon.
        let listens = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        while !(listens(self.port + 1) && listens(self.port)) {
            if let Some(status) = process.try_wait().unwrap() {
                // A shell's word for a program that is not there.
                if status.code() == Some(127) {
                    missing("swtpm", "swtpm", &std::io::ErrorKind::NotFound.into());
                }
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        self.process = Some(process);
        true
    }

    /// Resets it without cutting its connections, as a machine that is reset would.
    pub(crate) fn reset(&self) {
        let control = format!("127.0.0.1:{}", self.port + 1);
        run(Command::new("swtpm_ioctl").args(["--tcp", &control, "-i"]), "swtpm_ioctl", "swtpm-tools").unwrap();
    }

    /// Stops it from answering, or lets it go on, with its connections open.
    pub(crate) fn freeze(&self, frozen: bool) {
        let process = self.process.as_ref().unwrap().id().to_string();
        run(Command::new("kill").args([if frozen { "-STOP" } else { "-CONT" }, &process]), "kill", "procps").unwrap();
    }

    /// Cuts its power.
    pub(crate) fn power_off(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    /// The TCTI configuration that reaches it.
    pub(crate) fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Runs one of tpm2-tools in the TPM's directory and gives what it wrote to standard output.
    pub(crate) fn tool(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.directory.path()).env("TPM2TOOLS_TCTI", self.tcti());
        run(&mut command, words[0], "tpm2-tools")
    }

    /// Frees the TPM's few places for objects: there is no resource manager in between.
    pub(crate) fn flush(&self) {
        self.tool(&["tpm2_flushcontext", "--transient-object"]).unwrap();
        self.tool(&["tpm2_flushcontext", "--loaded-session"]).unwrap();
    }

    /// A file in the TPM's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Reads a file in the TPM's directory.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Writes a file into the TPM's directory.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// What it keeps when it is switched off.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A port that is free with the one after it, below those that the kernel gives to connections. Tests that start at the same
/// time look at different places.
fn free_ports() -> u16 {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    loop {
        let place = std::process::id().wrapping_mul(7919).wrapping_add(STARTED.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + 2 * u16::try_from(place % 10_000).unwrap();
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

/// Runs a program that must be there; its standard error is the error.
pub(crate) fn run(command: &mut Command, program: &str, package: &str) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| missing(program, package, &error));
    if status.success() {
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    } else {
        Err(format!("{program}: {}", String::from_utf8_lossy(&stderr)))
    }
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("{program} of package {package} cannot be run ({error}): cargo xtask setup installs it")
}
