//! `stele key share`: whoever keeps a share of a custody key gives it on to the signer that recovers the key.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use stele_hsm::SignerError;
use stele_hsm::custody::{CustodyKey, SealedShare, ShareError, ShareHolder};

use crate::failure::Failure;
use crate::output::Record;
use crate::session::Session;

/// Longest file of a share in bytes.
const SHARE_BYTES_MAX: u64 = 64 << 10;

/// Arguments of `key share`.
#[derive(Debug, Args)]
pub struct ShareArguments {
    /// File of the share
    pub file: PathBuf,
    /// Key file of its holder
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Seal it for this recovery key, as `stele-signer custody recovery-key` printed it; without it, only check the share
    #[arg(long = "for", value_name = "HEX", requires = "out")]
    pub recipient: Option<String>,
    /// File to make
    #[arg(long, value_name = "FILE", requires = "recipient")]
    pub out: Option<PathBuf>,
}

impl ShareArguments {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub fn run(self, session: &Session) -> Result<u8> {
        let share = read_share(&self.file)?;
        let open = share.open(&CustodyKey::read(&self.key)?).map_err(SignerError::from)?;
        let record = Record::new()
            .with("holder", share.holder())
            .with("share", share.index())
            .with("fingerprint", share.fingerprint())
            .with_option("network", share.network().map(hex::encode));
        let record = match (self.recipient, self.out) {
            (Some(recipient), Some(out)) => {
                let recipient = ShareHolder { name: share.holder().to_owned(), public_key: recipient };
                let sealed = open.seal(&recipient.key().map_err(SignerError::from)?).map_err(SignerError::from)?;
                if out.exists() {
                    let what = format!("{} exists already and is not overwritten", out.display());
                    bail!(Failure::new("already_exists", what));
                }
                let text = serde_json::to_string_pretty(&sealed).context("share")? + "\n";
                fs::write(&out, text).with_context(|| format!("cannot write {}", out.display()))?;
                record.with("sealed", out.display().to_string())
            }
            _ => record,
        };
        session.output.record(&record)?;
        Ok(0)
    }
}

/// Reads the file of a share.
///
/// # Errors
/// When it cannot be read, or `share_malformed`.
pub fn read_share(path: &Path) -> Result<SealedShare> {
    let malformed = || SignerError::from(ShareError::Malformed { reason: "it is no JSON of a share" });
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(SHARE_BYTES_MAX).read_to_string(&mut text).map_err(|_| malformed())?;
    Ok(serde_json::from_str(&text).map_err(|_| malformed())?)
}
