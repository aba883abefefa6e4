//! A network of processes on loopback: start, wait until ready, stop or kill each by its process id.
//!
//! Used by `stele network local`, the demo and the tests. Every process that is started here is ended here.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::network::init::{InitOptions, Network, PORTS_PER_NODE, init};
use crate::network::layout::NetworkDir;
use crate::network::profile::{NodeProfile, Profile};

/// How long a node may take to start: recovery of a large directory included.
pub const READY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed; it flushes its stores meanwhile.
pub const STOP_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often processes and readiness are looked at.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a node's log that a failed start shows.
const LOG_LINES_SHOWN: usize = 12;
/// Bytes of a node's log that are read for them.
const LOG_BYTES_SHOWN: u64 = 8 * 1024;

/// A network whose nodes run as child processes of this one.
#[derive(Debug)]
pub struct LocalNetwork {
    dir: NetworkDir,
    profile: Profile,
    steled: PathBuf,
    nodes: Vec<LocalNode>,
}

#[derive(Debug)]
struct LocalNode {
    profile: NodeProfile,
    child: Option<Child>,
}

impl LocalNetwork {
    /// The network in `dir`, made first with free ports when the directory is empty. Nothing is started.
    ///
    /// # Errors
    /// When the directory holds something else or cannot be written.
    pub fn open_or_init(dir: &Path, options: &InitOptions, steled: &Path) -> Result<Self> {
        if !NetworkDir::new(dir).profile().is_file() {
            let base_port = free_ports(options.base_port, options.validators)?;
            init(dir, &InitOptions { base_port, ..options.clone() })?;
        }
        Self::open(dir, steled)
    }

    /// The network in `dir`, which exists.
    ///
    /// # Errors
    /// When `dir` holds no network or `steled` is no file.
    pub fn open(dir: &Path, steled: &Path) -> Result<Self> {
        let dir = NetworkDir::new(std::path::absolute(dir).context("network directory")?);
        let profile = Profile::load(&dir)?;
        // Nodes run in their own directories, where a relative path would name something else.
        let steled = std::path::absolute(steled).context("path of steled")?;
        if !steled.is_file() {
            bail!(
                Failure::new("steled_missing", format!("{} is not a file", steled.display()))
                    .hint("build it with `cargo build` or name it with --steled")
            );
        }
        let nodes = profile.nodes.iter().map(|node| LocalNode { profile: node.clone(), child: None }).collect();
        Ok(Self { dir, profile, steled, nodes })
    }

    /// Takes over a network that was just made.
    ///
    /// # Errors
    /// As [`LocalNetwork::open`].
    pub fn of(network: &Network, steled: &Path) -> Result<Self> {
        Self::open(network.dir.root(), steled)
    }

    /// Where its files lie.
    pub const fn dir(&self) -> &NetworkDir {
        &self.dir
    }
    /// Its addresses.
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// Whether it has no node, which a profile never says.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
    /// Process id of a node that was started and not yet ended.
    pub fn process_id(&self, node: usize) -> Option<u32> {
        self.nodes.get(node).and_then(|node| node.child.as_ref()).map(Child::id)
    }

    /// Takes in a node that was made after this network was opened. Nothing is started.
    pub fn add(&mut self, node: NodeProfile) {
        self.profile.nodes.push(node.clone());
        self.nodes.push(LocalNode { profile: node, child: None });
    }

    /// Starts every node that does not run.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start_all(&mut self) -> Result<()> {
        (0..self.nodes.len()).try_for_each(|node| self.start(node))
    }

    /// Starts one node; nothing happens when it runs.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self, node: usize) -> Result<()> {
        if self.is_running(node)? {
            return Ok(());
        }
        let entry = self.nodes.get_mut(node).ok_or_else(|| anyhow!("there is no node {node}"))?;
        if let Some(address) = [&entry.profile.party, &entry.profile.metrics].into_iter().find(|it| probe::is_taken(it))
        {
            let what = format!("another program listens on {address}, the address of {}", entry.profile.name);
            bail!(
                Failure::new("node_running", what)
                    .hint("does the network of this directory run already? Stop it first, or name another directory")
            );
        }
        let dir = self.dir.node(&entry.profile.name);
        let log = OpenOptions::new().create(true).append(true).open(dir.log());
        let log = log.with_context(|| format!("cannot open {}", dir.log().display()))?;
        let mut command = Command::new(&self.steled);
        command.arg("run").arg("--config").arg(dir.config()).current_dir(dir.root());
        command.env(MESA_QUIET, "1");
        command.stdin(Stdio::null()).stdout(log.try_clone().context("log file")?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.steled.display()))?;
        entry.child = Some(child);
        Ok(())
    }

    /// Whether the process of a node lives.
    ///
    /// # Errors
    /// When there is no such node or the system does not tell.
    pub fn is_running(&mut self, node: usize) -> Result<bool> {
        let entry = self.nodes.get_mut(node).ok_or_else(|| anyhow!("there is no node {node}"))?;
        let Some(child) = &mut entry.child else { return Ok(false) };
        if child.try_wait().context("process state")?.is_some() {
            entry.child = None;
            return Ok(false);
        }
        Ok(true)
    }

    /// Exit status of a node that has ended by itself since it was started; none while it runs. It is told once.
    ///
    /// # Errors
    /// When there is no such node or the system does not tell.
    pub fn ended(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        let entry = self.nodes.get_mut(node).ok_or_else(|| anyhow!("there is no node {node}"))?;
        let Some(child) = &mut entry.child else { return Ok(None) };
        let status = child.try_wait().context("process state")?;
        if status.is_some() {
            entry.child = None;
        }
        Ok(status)
    }

    /// Waits until every node that runs says it is ready.
    ///
    /// # Errors
    /// When one ends or is not ready in `wait_max`; the end of its log is in the error.
    pub fn wait_ready(&mut self, wait_max: Duration) -> Result<()> {
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].child.is_some())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|node| self.wait_node_ready(node, wait_max))
    }

    /// Waits until one node says it is ready.
    ///
    /// # Errors
    /// As [`LocalNetwork::wait_ready`].
    pub fn wait_node_ready(&mut self, node: usize, wait_max: Duration) -> Result<()> {
        let deadline = Instant::now() + wait_max;
        loop {
            let name = self.nodes[node].profile.name.clone();
            let child = self.nodes[node].child.as_mut().ok_or_else(|| anyhow!("{name} was not started"))?;
            if let Some(status) = child.try_wait().context("process state")? {
                self.nodes[node].child = None;
                bail!(self.start_failure(&name, &format!("ended with {status}")));
            }
            if probe::is_ready(&self.nodes[node].profile.metrics) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(self.start_failure(&name, &format!("was not ready after {} s", wait_max.as_secs())));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks one node to stop and waits; it is killed when it takes too long.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn stop(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        self.terminate(node)?;
        self.wait_end(node)
    }

    /// Kills one node at once (SIGKILL), as a power failure would end it.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        let entry = self.nodes.get_mut(node).ok_or_else(|| anyhow!("there is no node {node}"))?;
        if let Some(mut child) = entry.child.take() {
            child.kill().context("SIGKILL")?;
            child.wait().context("end of a killed process")?;
        }
        Ok(())
    }

    /// Kills every node at once: all signals are sent before any end is awaited.
    ///
    /// # Errors
    /// When a signal cannot be sent.
    pub fn kill_all(&mut self) -> Result<()> {
        for entry in &mut self.nodes {
            if let Some(child) = &mut entry.child {
                child.kill().context("SIGKILL")?;
            }
        }
        (0..self.nodes.len()).try_for_each(|node| self.kill(node))
    }

    /// Stops every node: all are asked first, so that they stop side by side.
    ///
    /// # Errors
    /// When a signal cannot be sent.
    pub fn stop_all(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() {
            self.terminate(node)?;
        }
        for node in 0..self.nodes.len() {
            self.wait_end(node)?;
        }
        Ok(())
    }

    /// Removes what a node committed, as if its disk had been replaced. The node must not run.
    ///
    /// # Errors
    /// When the node runs or the files cannot be removed.
    pub fn wipe(&mut self, node: usize) -> Result<()> {
        if self.is_running(node)? {
            bail!("node {node} runs; stop it before its data is wiped");
        }
        let data = self.dir.node(&self.nodes[node].profile.name).data();
        match std::fs::remove_dir_all(&data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", data.display()))
            }
            _ => Ok(()),
        }
    }

    /// Asks one node to read its configuration and certificates again (SIGHUP); its log says what became of it.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn reload(&mut self, node: usize) -> Result<()> {
        self.signal(node, Signal::HUP)
    }

    fn terminate(&mut self, node: usize) -> Result<()> {
        self.signal(node, Signal::TERM)
    }

    fn signal(&mut self, node: usize, signal: Signal) -> Result<()> {
        if !self.is_running(node)? {
            return Ok(());
        }
        let Some(child) = &self.nodes[node].child else { return Ok(()) };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("process id"))?;
        // The child was not waited for, so the id still belongs to it.
        kill_process(pid, signal).with_context(|| format!("{signal:?}"))
    }

    fn wait_end(&mut self, node: usize) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.nodes[node].child.take() else { return Ok(None) };
        let deadline = Instant::now() + STOP_WAIT_MAX;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().context("process state")? {
                return Ok(Some(status));
            }
            std::thread::sleep(POLL);
        }
        child.kill().context("SIGKILL")?;
        Ok(Some(child.wait().context("end of a killed process")?))
    }

    fn start_failure(&self, name: &str, what: &str) -> Failure {
        let log = self.dir.node(name).log();
        let tail = log_tail(&log).unwrap_or_default();
        Failure::new("node_not_started", format!("{name} {what}\n{tail}"))
            .hint(format!("the whole log is {}", log.display()))
    }
}

/// Whatever still runs is killed: a test that fails leaves no process behind.
impl Drop for LocalNetwork {
    fn drop(&mut self) {
        for entry in &mut self.nodes {
            if let Some(child) = &mut entry.child {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Set for a daemon, it keeps Mesa's layer that chooses among displays from complaining that there is none.
pub const MESA_QUIET: &str = "NODEVICE_SELECT";

/// The program `steled` beside this one, as Cargo and packages install it.
///
/// # Errors
/// When there is none.
pub fn steled_beside_this_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("path of this program")?;
    // Test programs lie one directory deeper, in `deps`.
    let candidates = [this.parent(), this.parent().and_then(Path::parent)];
    candidates.into_iter().flatten().map(|dir| dir.join("steled")).find(|path| path.is_file()).ok_or_else(|| {
        Failure::new("steled_missing", "there is no steled beside this program")
            .hint("build it with `cargo build --bin steled` or name it with --steled")
            .into()
    })
}

/// A first port from which on all ports of `nodes` nodes are free on loopback, `preferred` if it is one.
///
/// # Errors
/// When no range is free.
pub fn free_ports(preferred: u16, nodes: usize) -> Result<u16> {
    /// Ranges that are tried; each is 10 ports a node further.
    const RANGES_MAX: u16 = 200;
    let width = u16::try_from(nodes).ok().and_then(|nodes| nodes.checked_mul(10)).context("number of nodes")?;
    let is_free = |base: u16| {
        (0..width).step_by(10).all(|node| {
            (0..PORTS_PER_NODE).all(|offset| TcpListener::bind((Ipv4Addr::LOCALHOST, base + node + offset)).is_ok())
        })
    };
    (0..RANGES_MAX)
        .filter_map(|range| preferred.checked_add(range.checked_mul(width)?))
        .take_while(|base| base.checked_add(width).is_some())
        .find(|base| is_free(*base))
        .ok_or_else(|| {
            Failure::new("ports_taken", format!("no {width} free ports from {preferred} on"))
                .hint("choose another --base-port")
                .into()
        })
}

fn log_tail(path: &Path) -> Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_SHOWN)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_SHOWN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n"))
}

/// Readiness over plain HTTP on loopback, without a runtime.
mod probe {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    const TIMEOUT: Duration = Duration::from_millis(500);
    /// Bytes of the status line that are read.
    const STATUS_LINE_BYTES: usize = 12;

    /// Whether somebody listens at `address`.
    pub(super) fn is_taken(address: &str) -> bool {
        address.parse::<SocketAddr>().is_ok_and(|address| TcpStream::connect_timeout(&address, TIMEOUT).is_ok())
    }

    /// Whether `GET /readyz` at `address` answers 200.
    pub(super) fn is_ready(address: &str) -> bool {
        let Ok(address) = address.parse::<SocketAddr>() else { return false };
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
            let mut status = [0; STATUS_LINE_BYTES];
            stream.read_exact(&mut status)?;
            Ok(&status == b"HTTP/1.1 200")
        };
        ask().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_moves_the_whole_range() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        let Some(preferred) = taken.checked_sub(11) else { return };
        let base = free_ports(preferred, 4).unwrap();
        assert!(!(base..base + 40).contains(&taken) || (taken - base) % 10 >= PORTS_PER_NODE, "{base} {taken}");
    }
}
