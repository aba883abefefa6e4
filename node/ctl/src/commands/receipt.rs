//! `stele receipt`: fetch proofs, and verify them offline.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use stele_client::BundleParts;
use stele_types::NetworkId;
use stele_types::hash::StatementId;

use crate::commands::{genesis, refuse, words};
use crate::output::{Record, note};
use crate::session::Session;
use crate::signer::SignerArguments;
use crate::verification::Request;

/// How long the node may wait for the certificate.
const WAIT: Duration = Duration::from_secs(20);

/// Fetch proofs, and verify them offline.
#[derive(Debug, Subcommand)]
pub enum ReceiptCommand {
    /// Fetch the quorum bundle of a statement: everything that proves its outcome offline
    Get(GetArguments),
    /// Verify a bundle or a bare receipt offline
    ///
    /// Exit codes: 0 registered, 1 invalid, 2 usage, 3 vouched by one node only, 4 rejected, 6 registered but the signer's key
    /// was asked for and is not shown.
    Verify(Box<VerifyArguments>),
}

/// Arguments of `receipt get`.
#[derive(Debug, Args)]
pub struct GetArguments {
    /// Statement id
    #[arg(value_parser = words::statement_id)]
    pub statement: StatementId,
    /// Fetch the receipt only: the word of one node
    #[arg(long)]
    pub bare: bool,
    /// Leave the statement itself out of the bundle
    #[arg(long)]
    pub without_entry: bool,
    /// With what the node's TPM says of the key that signed, for verifiers that enrolled the node
    #[arg(long, conflicts_with = "bare")]
    pub with_signer: bool,
    /// File to write [default: STATEMENT.bundle or STATEMENT.receipt]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Arguments of `receipt verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Quorum bundle or bare receipt
    pub proof: PathBuf,
    /// Genesis file [default: that of the network directory]
    #[arg(long, value_name = "FILE")]
    pub genesis: Option<PathBuf>,
    /// Network id, when there is a pin and no genesis file
    #[arg(long, value_name = "HEX", value_parser = network_id)]
    pub network: Option<NetworkId>,
    /// The statement, when the bundle does not carry it
    #[arg(long, value_name = "FILE")]
    pub statement: Option<PathBuf>,
    /// Statement id that the proof must be about
    #[arg(long, value_parser = words::statement_id)]
    pub id: Option<StatementId>,
    /// Public checkpoint key for a bare receipt: PEM or DER file, or a SEC1 point in hexadecimal
    #[arg(long)]
    pub key: Option<String>,
    /// What is known of the node that signed.
    #[command(flatten)]
    pub signer: SignerArguments,
}

pub(crate) fn network_id(text: &str) -> Result<NetworkId, String> {
    NetworkId::from_hex(text).ok_or_else(|| "64 lower-case hexadecimal digits".to_owned())
}

impl GetArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        let client = session.reader()?;
        let (bytes, kind) = if self.bare {
            (client.receipt(&self.statement.to_hex(), WAIT).await?, "receipt")
        } else {
            let parts = BundleParts { entry: !self.without_entry, signer: self.with_signer };
            (client.bundle(&self.statement, parts, WAIT).await?, "bundle")
        };
        let out = self.out.unwrap_or_else(|| PathBuf::from(format!("{}.{kind}", self.statement)));
        std::fs::write(&out, &bytes).with_context(|| format!("cannot write {}", out.display()))?;
        let record =
            Record::new().with("file", out.display().to_string()).with("kind", kind).with("bytes", bytes.len());
        session.output.record(&record)?;
        if self.bare {
            note("A bare receipt is the word of one node; without --bare you get what a quorum certifies.");
        }
        Ok(0)
    }
}

impl VerifyArguments {
    /// Runs the command: no connection is opened.
    ///
    /// # Errors
    /// Only when the output is closed; verdicts and invalid proofs are exit codes.
    pub fn run(self, session: &Session) -> Result<u8> {
        let genesis = if self.network.is_some() { self.genesis } else { self.genesis.or_else(|| genesis(session)) };
        let request = Request {
            proof: self.proof,
            genesis,
            network: self.network,
            pin: session.pin,
            statement: self.statement,
            id: self.id,
            key: self.key,
            signer: self.signer,
        };
        match request.run() {
            Ok(verified) => {
                session.output.record(&verified.values().into())?;
                Ok(verified.exit_code())
            }
            Err(error) => refuse(session, &error),
        }
    }
}
