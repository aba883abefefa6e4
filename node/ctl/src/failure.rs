//! Errors as people and scripts see them: what failed, what to do, and a stable code.

use std::fmt;

use crate::output::Output;

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

/// Writes an error to standard error: what failed, its code, and what to do; as one JSON object where programs read.
pub fn report(error: &anyhow::Error, output: Output) {
    use std::io::Write as _;
    let (code, hint) = code_and_hint(error);
    let mut stderr = std::io::stderr().lock();
    if output.is_json() {
        let view = serde_json::json!({ "error": code, "message": format!("{error:#}"), "what_to_do": hint });
        let _ = writeln!(stderr, "{view}");
        return;
    }
    // A closed standard error leaves nobody to tell.
    let what = format!("{error:#}");
    let _ = writeln!(stderr, "error[{code}]: {what}");
    // What a node says of a refusal is part of the error already.
    if let Some(hint) = hint.filter(|hint| !what.ends_with(hint.as_str())) {
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
        if let Some(code) = evidence_code(cause) {
            return (code.to_owned(), None);
        }
    }
    io_code_and_hint(error)
}

/// The code of what is no evidence, or no policy for it.
fn evidence_code(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let package = cause.downcast_ref::<stele_evidence::PackageError>().map(stele_evidence::PackageError::code);
    let structure = || cause.downcast_ref::<stele_evidence::EvidenceError>().map(stele_evidence::EvidenceError::code);
    let policy = || cause.downcast_ref::<stele_evidence::PolicyError>().map(|error| error.code());
    package.or_else(structure).or_else(policy)
}

/// The code and the hint of a file that could not be used.
fn io_code_and_hint(error: &anyhow::Error) -> (String, Option<String>) {
    use std::io::ErrorKind;
    let kind = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    let (code, hint) = match kind {
        Some(ErrorKind::NotFound) => ("file_missing", Some("check the path; relative ones begin where you are now")),
        Some(ErrorKind::AlreadyExists) => ("file_exists", Some("choose another name; nothing is overwritten")),
        Some(ErrorKind::PermissionDenied) => ("file_denied", Some("check owner and mode of the file")),
        _ => ("failed", None),
    };
    (code.to_owned(), hint.map(str::to_owned))
}

fn client_hint(error: &stele_client::ClientError) -> Option<&str> {
    use stele_client::ClientError;
    match error {
        ClientError::Connect { .. } | ClientError::Timeout { .. } => {
            Some("is the node running? `stele status` shows which nodes answer; --node chooses another")
        }
        ClientError::Broken { .. } => Some("the node stopped while it answered; asking again is safe"),
        ClientError::Tls { .. } => Some("check the network CA and the party's certificate in the network directory"),
        ClientError::TooLarge { .. } => Some("ask for less at once"),
        ClientError::Unexpected { .. } => Some("node and command line may be of different versions"),
        ClientError::Refused { .. } if error.protocol_code() == Some(stele_types::Code::NotFound) => {
            Some("check the id; what is not public is read with --as PARTY, by its issuer or a regulator")
        }
        // The node's own detail says what to do.
        ClientError::Refused { detail, .. } => detail.as_deref(),
        ClientError::Endpoint { .. } | ClientError::NoEndpoint => None,
    }
}
