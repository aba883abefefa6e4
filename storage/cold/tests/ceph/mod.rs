//! A Ceph cluster on loopback: a monitor, a manager, an OSD with BlueStore on a file, and a gateway, all real and all in one
//! temporary directory, with cephx. It takes some twenty seconds, and dies with the test, however that ends.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stele_cold::{ColdOptions, Credentials};

/// Programs of the packages ceph-mon, ceph-mgr, ceph-osd, radosgw and those that come with them.
const PROGRAMS: [&str; 7] =
    ["ceph-authtool", "monmaptool", "ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin"];

/// How long a command or a daemon may take to come up, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(150);

/// The user whose buckets the tests use.
const KEY_ID: &str = "stele";
const SECRET: &str = "a-secret-of-the-tests";

/// A cluster that runs.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    port: u16,
    tls_port: u16,
    daemons: Vec<Daemon>,
}

struct Daemon {
    name: &'static str,
    command: Vec<String>,
    child: Option<Child>,
}

impl Cluster {
    /// Starts one; none, and it says why, if Ceph is not installed. Continuous integration has it.
    pub(crate) fn start() -> Option<Self> {
        let missing = PROGRAMS.into_iter().chain(["ceph", "setpriv"]).find(|program| !installed(program));
        if let Some(program) = missing {
            println!("skipped: {program} is not there (packages ceph-mon, ceph-mgr, ceph-osd, radosgw)");
            assert!(std::env::var_os("CI").is_none(), "CI runs every test: {program} is missing");
            return None;
        }
        let begun = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        let [monitor_port, port, tls_port] = free_ports();
        let mut cluster = Self { directory, port, tls_port, daemons: Vec::new() };
        cluster.configure(monitor_port);
        cluster.make_monitor(monitor_port);
        cluster.run("mon", &["ceph-mon", "-i", "a"]);
        cluster.run("mgr", &["ceph-mgr", "-i", "x"]);
        cluster.make_osd();
        cluster.run("osd", &["ceph-osd", "-i", "0"]);
        cluster.wait_for_osd();
        cluster.run("radosgw", &["radosgw", "-n", "client.rgw"]);
        cluster.wait_for_gateway();
        cluster.command(
            "radosgw-admin",
            &["user", "create", "--uid=stele", "--display-name=stele", "--access-key", KEY_ID, "--secret", SECRET],
        );
        println!("a Ceph cluster of four daemons was up after {:.1} s", begun.elapsed().as_secs_f64());
        Some(cluster)
    }

    /// Options that reach its gateway, for two buckets that are to be made.
    pub(crate) fn options(&self, objects: &str, seals: &str) -> ColdOptions {
        ColdOptions::new(&format!("http://127.0.0.1:{}", self.port), objects, seals, credentials())
    }

    /// The same through TLS.
    pub(crate) fn tls_options(&self, objects: &str, seals: &str) -> ColdOptions {
        let mut options =
            ColdOptions::new(&format!("https://127.0.0.1:{}", self.tls_port), objects, seals, credentials());
        options.authorities = Some(self.path().join("certificate.pem"));
        options
    }

    /// Kills a daemon.
    pub(crate) fn stop(&mut self, name: &str) {
        let daemon = self.daemons.iter_mut().find(|daemon| daemon.name == name).unwrap();
        let mut child = daemon.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a daemon again, and waits until it serves.
    pub(crate) fn restart(&mut self, name: &str) {
        let directory = self.path().to_owned();
        let daemon = self.daemons.iter_mut().find(|daemon| daemon.name == name).unwrap();
        assert!(daemon.child.is_none(), "{name} runs already");
        daemon.child = Some(spawn(&directory, name, &daemon.command));
        match name {
            "osd" => self.wait_for_osd(),
            _ => self.wait_for_gateway(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn configure(&self, monitor_port: u16) {
        let (root, port, tls_port) = (self.path().display(), self.port, self.tls_port);
        for directory in ["mon", "mgr", "osd", "rgw"] {
            std::fs::create_dir(self.path().join(directory)).unwrap();
        }
        let subject = vec!["127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(subject).unwrap();
        std::fs::write(self.path().join("certificate.pem"), cert.pem()).unwrap();
        std::fs::write(self.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        let configuration = format!(
            "[global]\n\
             fsid = {}\n\
             mon host = [v2:127.0.0.1:{monitor_port}/0]\n\
             mon initial members = a\n\
             public network = 127.0.0.0/8\n\
             ms bind ipv6 = false\n\
             auth cluster required = cephx\n\
             auth service required = cephx\n\
             auth client required = cephx\n\
             keyring = {root}/keyring\n\
             run dir = {root}\n\
             admin socket = {root}/$name.asok\n\
             pid file = {root}/$name.pid\n\
             log file = {root}/$name.log\n\
             log to stderr = false\n\
             osd pool default size = 1\n\
             osd pool default min size = 1\n\
             osd pool default pg num = 1\n\
             osd pool default pgp num = 1\n\
             osd pool default pg autoscale mode = off\n\
             osd crush chooseleaf type = 0\n\
             mon allow pool size one = true\n\
             mon data avail crit = 1\n\
             mon data avail warn = 1\n\
             [mon.a]\n\
             mon data = {root}/mon\n\
             [mgr.x]\n\
             mgr data = {root}/mgr\n\
             mgr initial modules =\n\
             [osd.0]\n\
             osd data = {root}/osd\n\
             osd objectstore = bluestore\n\
             bluestore block size = 3221225472\n\
             bluestore cache autotune = false\n\
             bluestore cache size = 67108864\n\
             [client.rgw]\n\
             rgw data = {root}/rgw\n\
             rgw thread pool size = 32\n\
             rgw frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls_port} \
             ssl_certificate={root}/certificate.pem ssl_private_key={root}/key.pem\n",
            uuid(),
        );
        std::fs::write(self.path().join("ceph.conf"), configuration).unwrap();
    }

    fn make_monitor(&self, port: u16) {
        let keyring = self.path().join("keyring").display().to_string();
        let map = self.path().join("monmap").display().to_string();
        let fsid = std::fs::read_to_string(self.path().join("ceph.conf")).unwrap();
        let fsid = fsid.lines().find_map(|line| line.strip_prefix("fsid = ")).unwrap().to_owned();
        let identities: [(&str, &[&str]); 5] = [
            ("mon.", &["--cap", "mon", "allow *"]),
            ("client.admin", &["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]),
            ("mgr.x", &["--cap", "mon", "allow profile mgr", "--cap", "osd", "allow *"]),
            (
                "osd.0",
                &["--cap", "mon", "allow profile osd", "--cap", "mgr", "allow profile osd", "--cap", "osd", "allow *"],
            ),
            ("client.rgw", &["--cap", "mon", "allow rw", "--cap", "osd", "allow rwx", "--cap", "mgr", "allow rw"]),
        ];
        run(Command::new("ceph-authtool").args(["--create-keyring", &keyring]));
        for (name, capabilities) in identities {
            run(Command::new("ceph-authtool").args([&keyring, "--gen-key", "-n", name]).args(capabilities));
        }
        let address = format!("[v2:127.0.0.1:{port}]");
        run(Command::new("monmaptool").args(["--create", "--addv", "a", &address, "--fsid", &fsid, &map]));
        self.command("ceph-mon", &["--mkfs", "-i", "a", "--monmap", &map, "--keyring", &keyring]);
    }

    fn make_osd(&self) {
        let id = uuid();
        self.command("ceph", &["--connect-timeout", "120", "osd", "new", &id]);
        self.command("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &id]);
    }

    fn wait_for_osd(&self) {
        wait("the OSD is up", || {
            let stat = self.command("ceph", &["--connect-timeout", "120", "osd", "stat"]);
            stat.contains("1 up") && stat.contains("1 in")
        });
    }

    fn wait_for_gateway(&self) {
        for port in [self.port, self.tls_port] {
            wait("the gateway listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        }
    }

    /// Runs a program against the cluster; what it said.
    fn command(&self, program: &str, arguments: &[&str]) -> String {
        run(Command::new(program).arg("-c").arg(self.path().join("ceph.conf")).args(arguments))
    }

    fn run(&mut self, name: &'static str, command: &[&str]) {
        let configuration = self.path().join("ceph.conf").display().to_string();
        let mut command: Vec<String> = command.iter().map(|&argument| argument.to_owned()).collect();
        command.extend(["-f".to_owned(), "-c".to_owned(), configuration]);
        let child = spawn(self.path(), name, &command);
        self.daemons.push(Daemon { name, command, child: Some(child) });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        for daemon in self.daemons.iter_mut().rev() {
            if let Some(mut child) = daemon.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            if failed
                && let Ok(said) = std::fs::read_to_string(self.directory.path().join(format!("{}.out", daemon.name)))
            {
                let lines: Vec<&str> = said.lines().collect();
                println!("{}:\n{}", daemon.name, lines[lines.len().saturating_sub(20)..].join("\n"));
            }
        }
    }
}

pub(crate) fn credentials() -> Credentials {
    Credentials { key_id: KEY_ID.to_owned(), secret: SECRET.to_owned() }
}

/// Starts a daemon that the kernel kills when the thread that started it is gone: also when the test is killed, which runs no
/// destructors. It must be called by the thread of the test, not by one of a pool.
fn spawn(directory: &Path, name: &str, command: &[String]) -> Child {
    let out =
        || Stdio::from(File::options().create(true).append(true).open(directory.join(format!("{name}.out"))).unwrap());
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(out())
        .stderr(out())
        .spawn()
        .unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|place| place.join(program).is_file())
}

fn free_ports<const N: usize>() -> [u16; N] {
    // Held together, so that they differ.
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn uuid() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().trim().to_owned()
}
