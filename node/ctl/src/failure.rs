//! Errors as people and scripts see them: what failed, what to do, and a stable code.

use std::fmt;

/// A failure with a stable snake_case code and a hint of what to do.
#[derive(Debug)]
pub struct Failure {
    code: String,
    what: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure under `code`.
    pub fn new(code: impl Into<String>, what: impl Into<String>) -> Self {
        Self { code: code.into(), what: what.into(), hint: None }
    }
    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// The stable code.
    pub fn code(&self) -> &str {
        &self.code
    }
    /// What to do, when that is known.
    pub fn what_to_do(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// Writes an error to standard error: what failed, its code, and what to do.
pub fn report(error: &anyhow::Error) {
    use std::io::Write as _;
    let (code, hint) = code_and_hint(error);
    let mut stderr = std::io::stderr().lock();
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(stderr, "error[{code}]: {error:#}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "  what to do: {hint}");
    }
}

/// The stable code and the hint of an error, wherever in its chain they stand.
pub fn code_and_hint(error: &anyhow::Error) -> (String, Option<String>) {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return (failure.code.clone(), failure.hint.clone());
        }
        if let Some(client) = cause.downcast_ref::<stele_client::ClientError>() {
            return (client.code().to_owned(), client_hint(client).map(str::to_owned));
        }
        if let Some(verify) = cause.downcast_ref::<stele_verify::VerifyError>() {
            return (verify.code().to_owned(), Some(verify.advice().to_owned()));
        }
        if let Some(signer) = cause.downcast_ref::<stele_hsm::SignerError>() {
            return (signer.code().to_owned(), None);
        }
    }
    ("failed".into(), None)
}

fn client_hint(error: &stele_client::ClientError) -> Option<&'static str> {
    use stele_client::ClientError;
    match error {
        ClientError::Connect { .. } | ClientError::Timeout { .. } => {
            Some("is the node running? `stele status` shows which nodes answer; --node chooses another")
        }
        ClientError::Broken { .. } => Some("the node stopped while it answered; asking again is safe"),
        ClientError::Tls { .. } => Some("check the network CA and the party's certificate in the network directory"),
        ClientError::TooLarge { .. } => Some("ask for less at once"),
        ClientError::Unexpected { .. } => Some("node and command line may be of different versions"),
        // The node's own detail says what to do.
        ClientError::Refused { .. } | ClientError::Endpoint { .. } | ClientError::NoEndpoint => None,
    }
}
