//! The threads that own a token's sessions.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use zeroize::Zeroizing;

use crate::{backend::Queue, error::SignerError, pkcs11::fault::Fault};

/// Requests that may wait. A module signs some hundreds a second, so the last of them waits for a second or two.
const QUEUE_LENGTH_MAX: usize = 256;

/// Sessions of one token at most: beyond some thirty, modules do not get faster.
const SESSIONS_MAX: usize = 32;

/// Sessions that one request may use up.
const SESSIONS_TRIED_MAX: u32 = 3;

/// After a failed attempt the next is not made for this long, so that requests fail at once and not one by one.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Which token, and how it is used.
#[derive(Clone, Debug)]
pub struct Pkcs11Options {
    /// The vendor's library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// Sessions that sign in parallel, 1 to 32.
    pub sessions: usize,
}

/// A token and the threads that own its sessions. Clones share both; the threads end with the last of them.
#[derive(Clone)]
pub struct Pkcs11Token {
    queue: Queue<Worker>,
    token: Arc<Token>,
}

/// What became of the token since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pkcs11Figures {
    /// Sessions opened.
    pub sessions: u64,
    /// Times at which a session was found lost.
    pub losses: u64,
    /// Requests that were refused because too many waited.
    pub overflows: u64,
}

/// What all threads share.
struct Token {
    module: Pkcs11,
    label: String,
    /// Wiped from memory when it is dropped.
    pin: AuthPin,
    /// The token refused the PIN: every further attempt could lock it.
    pin_refused: AtomicBool,
    sessions: AtomicU64,
    losses: AtomicU64,
}

impl Pkcs11Token {
    /// Loads the vendor's library and logs in to a token.
    ///
    /// # Errors
    /// [`SignerError::TokenModule`], [`SignerError::TokenLost`] if no token, or more than one, has that label,
    /// [`SignerError::TokenPin`], [`SignerError::TokenRefused`].
    pub fn open(options: &Pkcs11Options, pin: &Zeroizing<String>) -> Result<Self, SignerError> {
        let token = Arc::new(Token {
            module: load(&options.module)?,
            label: options.token.clone(),
            pin: AuthPin::from(pin.as_str()),
            pin_refused: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        });
        let worker = |_| Worker { token: Arc::clone(&token), session: None, failed_at: None };
        let workers = (0..options.sessions.clamp(1, SESSIONS_MAX)).map(worker).collect();
        let queue = Queue::start("pkcs11", workers, QUEUE_LENGTH_MAX)?;
        queue.call_blocking(|worker: &mut Worker| worker.attempt(|_| Ok(())))?;
        Ok(Self { queue, token })
    }

    /// Counters since it was opened.
    #[must_use]
    pub fn figures(&self) -> Pkcs11Figures {
        Pkcs11Figures {
            sessions: self.token.sessions.load(Ordering::Relaxed),
            losses: self.token.losses.load(Ordering::Relaxed),
            overflows: self.queue.overflows(),
        }
    }

    pub(super) const fn queue(&self) -> &Queue<Worker> {
        &self.queue
    }
}

impl fmt::Debug for Pkcs11Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Pkcs11Token").field("label", &self.token.label).finish_non_exhaustive()
    }
}

/// Loads a module.
fn load(path: &Path) -> Result<Pkcs11, SignerError> {
    let failed = |error: Error| SignerError::TokenModule { path: path.to_owned(), reason: error.to_string() };
    let module = Pkcs11::new(path).map_err(failed)?;
    initialize(&module).map_err(failed)?;
    Ok(module)
}

/// A module is initialized once in a process, whoever does it first.
fn initialize(module: &Pkcs11) -> Result<(), Error> {
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        outcome => outcome,
    }
}

/// One thread and its session.
pub struct Worker {
    token: Arc<Token>,
    session: Option<OpenSession>,
    failed_at: Option<Instant>,
}

/// A session that is logged in, and the keys that were found with it.
pub(super) struct OpenSession {
    pub(super) session: Session,
    handles: BTreeMap<String, ObjectHandle>,
}

impl Worker {
    pub(super) fn disconnect(&mut self) {
        self.session = None;
    }

    /// Gives calls to the token, with a new session if the old one is lost.
    pub(super) fn attempt<T>(
        &mut self,
        mut calls: impl FnMut(&mut OpenSession) -> Result<T, Fault>,
    ) -> Result<T, SignerError> {
        let mut tried = 0;
        loop {
            let fault = match self.connected() {
                Ok(session) => match calls(session) {
                    Ok(done) => return Ok(done),
                    Err(fault) => fault,
                },
                Err(fault) => return Err(fault.into_error()),
            };
            if !matches!(fault, Fault::Lost) {
                return Err(fault.into_error());
            }
            self.disconnect();
            self.token.losses.fetch_add(1, Ordering::Relaxed);
            tried += 1;
            if tried == SESSIONS_TRIED_MAX {
                return Err(fault.into_error());
            }
        }
    }

    fn connected(&mut self) -> Result<&mut OpenSession, Fault> {
        if self.session.is_none() {
            if self.failed_at.is_some_and(|failed_at| failed_at.elapsed() < RECONNECT_PAUSE) {
                return Err(Fault::Lost);
            }
            match self.token.open_session() {
                Ok(session) => {
                    self.failed_at = None;
                    self.session = Some(OpenSession { session, handles: BTreeMap::new() });
                }
                Err(fault) => {
                    self.failed_at = Some(Instant::now());
                    return Err(fault);
                }
            }
        }
        self.session.as_mut().ok_or(Fault::Lost)
    }
}

impl Token {
    fn open_session(&self) -> Result<Session, Fault> {
        if self.pin_refused.load(Ordering::Relaxed) {
            return Err(Fault::Pin);
        }
        // Whoever else uses the module in this process may have finalized it.
        initialize(&self.module)?;
        let session = self.module.open_rw_session(self.slot()?)?;
        match session.login(UserType::User, Some(&self.pin)).map_err(|error| (is_logged_in(&error), Fault::from(error)))
        {
            // A login is the whole process's: another session made it.
            Ok(()) | Err((true, _)) => {}
            Err((false, fault)) => {
                self.pin_refused.fetch_or(matches!(fault, Fault::Pin), Ordering::Relaxed);
                return Err(fault);
            }
        }
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(session)
    }

    /// The slot that has the token now. Labels need not be unique; an ambiguous one could sign with another's key.
    fn slot(&self) -> Result<Slot, Fault> {
        let mut found = None;
        for slot in self.module.get_slots_with_token()? {
            let labelled = self.module.get_token_info(slot).is_ok_and(|info| info.label() == self.label);
            if labelled && found.replace(slot).is_some() {
                return Err(Fault::Refused(format!("two tokens have the label {}", self.label)));
            }
        }
        found.ok_or(Fault::Lost)
    }
}

const fn is_logged_in(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::UserAlreadyLoggedIn, _))
}

impl OpenSession {
    /// The private key of a label, found once a session.
    pub(super) fn private_key(&mut self, label: &str) -> Result<Option<ObjectHandle>, Fault> {
        if let Some(handle) = self.handles.get(label) {
            return Ok(Some(*handle));
        }
        let handle = self.find(ObjectClass::PRIVATE_KEY, label)?;
        if let Some(handle) = handle {
            self.handles.insert(label.to_owned(), handle);
        }
        Ok(handle)
    }

    /// The only elliptic-curve object of a class and label.
    pub(super) fn find(&self, class: ObjectClass, label: &str) -> Result<Option<ObjectHandle>, Fault> {
        let template =
            [Attribute::Class(class), Attribute::KeyType(KeyType::EC), Attribute::Label(label.as_bytes().to_vec())];
        match self.session.find_objects(&template)?[..] {
            [] => Ok(None),
            [handle] => Ok(Some(handle)),
            _ => Err(Fault::Refused(format!("two keys have the label {label}"))),
        }
    }
}
