//! The thread that owns the TPM, and the handle through which others ask it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tss_esapi::tcti_ldr::TctiNameConf;

use crate::{
    backend::Queue,
    error::SignerError,
    tpm::{connection::Connection, fault::Fault},
};

/// Requests that may wait. A TPM signs about five times a second, so the last of them waits for some ten seconds; whoever
/// would wait longer is told that the TPM is busy.
const QUEUE_LENGTH_MAX: usize = 64;

/// Connections that one request may use up: it found the old one broken, and the TPM was reset once more.
const CONNECTIONS_MAX: u32 = 3;

/// How often a command is given again while the TPM says that it is busy, and the pause before; the pause doubles.
const BUSY_RETRIES_MAX: u32 = 6;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// After a failed connection the next is not tried for this long, so that requests fail at once and not one by one.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A TPM and the thread that owns it. Clones share both; the thread ends with the last of them.
#[derive(Clone)]
pub struct TpmDevice {
    queue: Queue<Worker>,
    counters: Arc<Counters>,
}

/// What became of the TPM since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TpmFigures {
    /// Connections made, the first included.
    pub connections: u64,
    /// Times at which the TPM was found lost or reset.
    pub losses: u64,
    /// Requests that were refused because too many waited.
    pub overflows: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    losses: AtomicU64,
}

impl TpmDevice {
    /// Reaches a TPM by the name of its transmission interface: `device:/dev/tpmrm0` (the kernel's resource manager) or
    /// `swtpm:host=127.0.0.1,port=2321` (an emulator).
    ///
    /// # Errors
    /// [`SignerError::TpmAddress`] if the name is none, [`SignerError::TpmLost`] if nothing answers, and whatever the TPM
    /// says to a first command.
    pub fn open(address: &str) -> Result<Self, SignerError> {
        let malformed = || SignerError::TpmAddress { name: address.chars().take(64).collect() };
        // The kernel's plain device has no resource manager and lets one process in; other kinds are for other software.
        let known = ["device:/", "swtpm:"].iter().any(|kind| address.starts_with(kind));
        let tcti: TctiNameConf = address.parse().ok().filter(|_| known).ok_or_else(malformed)?;
        let counters = Arc::new(Counters::default());
        let alone = address.starts_with("swtpm:");
        let worker = Worker { tcti, alone, connection: None, failed_at: None, counters: Arc::clone(&counters) };
        let device = Self { queue: Queue::start("tpm", vec![worker], QUEUE_LENGTH_MAX)?, counters };
        device.queue.call_blocking(|worker| worker.attempt(|_| Ok(())))?;
        Ok(device)
    }

    /// Leaves the TPM to other software until the next request: a TPM without a resource manager serves one connection.
    /// Blocks until what waits is done.
    ///
    /// # Errors
    /// [`SignerError::TpmBusy`] if the queue is full.
    pub fn release(&self) -> Result<(), SignerError> {
        self.queue.call_blocking(|worker| {
            worker.disconnect();
            Ok(())
        })
    }

    /// Counters since it was opened.
    #[must_use]
    pub fn figures(&self) -> TpmFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TpmFigures {
            connections: read(&self.counters.connections),
            losses: read(&self.counters.losses),
            overflows: self.queue.overflows(),
        }
    }

    pub(super) const fn queue(&self) -> &Queue<Worker> {
        &self.queue
    }
}

impl fmt::Debug for TpmDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TpmDevice").field("figures", &self.figures()).finish_non_exhaustive()
    }
}

/// What runs on the thread.
pub struct Worker {
    tcti: TctiNameConf,
    /// Whether there is no resource manager in between.
    alone: bool,
    connection: Option<Connection>,
    failed_at: Option<Instant>,
    counters: Arc<Counters>,
}

impl Worker {
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Gives commands to the TPM, on a new connection if the old one broke. They may be given more than once: a signature
    /// whose answer was lost is made again.
    pub(super) fn attempt<T>(
        &mut self,
        mut commands: impl FnMut(&mut Connection) -> Result<T, Fault>,
    ) -> Result<T, SignerError> {
        let mut connections = 0;
        let mut busy = 0;
        let mut cramped = false;
        loop {
            let fault = match self.connected() {
                Ok(connection) => match commands(connection) {
                    Ok(done) => return Ok(done),
                    Err(fault) => fault,
                },
                // Nobody is there; the next request looks again.
                Err(fault) => return Err(fault.into_error()),
            };
            let fault = match fault {
                Fault::NoPlace if !cramped => {
                    cramped = true;
                    match self.connected().and_then(Connection::make_room) {
                        Ok(()) => continue,
                        Err(fault) => fault,
                    }
                }
                other => other,
            };
            match fault {
                Fault::Lost | Fault::Reset => {
                    self.connection = None;
                    self.counters.losses.fetch_add(1, Ordering::Relaxed);
                    connections += 1;
                    if connections == CONNECTIONS_MAX {
                        return Err(fault.into_error());
                    }
                }
                Fault::Busy if busy < BUSY_RETRIES_MAX => {
                    thread::sleep(BUSY_PAUSE * (1 << busy));
                    busy += 1;
                }
                other => return Err(other.into_error()),
            }
        }
    }

    fn connected(&mut self) -> Result<&mut Connection, Fault> {
        if self.connection.is_none() {
            if self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RECONNECT_PAUSE) {
                return Err(Fault::Lost);
            }
            match Connection::open(self.tcti.clone(), self.alone) {
                Ok(connection) => {
                    self.counters.connections.fetch_add(1, Ordering::Relaxed);
                    self.failed_at = None;
                    self.connection = Some(connection);
                }
                Err(fault) => {
                    self.failed_at = Some(Instant::now());
                    return Err(fault);
                }
            }
        }
        self.connection.as_mut().ok_or(Fault::Lost)
    }
}
