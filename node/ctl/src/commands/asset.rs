//! `stele asset`: registration certificates of data assets.

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use stele_ledger::value::AssetRecord;
use stele_types::Command;
use stele_types::asset::{AssetCancel, AssetKind, AssetRegister, CancelReason, Origin, RightClass};
use stele_types::cbor::List;
use stele_types::hash::{Hash, ObjectId};
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};

use crate::author::object_id;
use crate::commands::governed::{issue, party_id};
use crate::commands::words;
use crate::describe::{self, Object};
use crate::failure::Failure;
use crate::registration::{exit_code, register, status_record};
use crate::rejection::explain;
use crate::session::Session;
use crate::state_query;

/// Registration certificates of data assets.
#[derive(Debug, Subcommand)]
pub enum AssetCommand {
    /// Register a data asset; the answer carries the number of its certificate
    Register(Box<RegisterArguments>),
    /// End a certificate
    Cancel {
        /// Id of the asset
        #[arg(value_parser = words::object_id)]
        asset: ObjectId,
        /// Why
        #[arg(long, value_parser = words::cancel_reason, default_value = "holder_request")]
        reason: CancelReason,
    },
    /// Show an asset by its id or by the number of its certificate, proven
    Show {
        /// Id or number
        asset: String,
    },
}

/// Arguments of `asset register`.
#[derive(Debug, Args)]
pub struct RegisterArguments {
    /// Holder of the rights: name or id [default: the acting party]
    #[arg(long)]
    pub holder: Option<String>,
    /// Id of the asset [default: a fresh one]
    #[arg(long, value_parser = words::object_id)]
    pub asset: Option<ObjectId>,
    /// Resource or product
    #[arg(long, value_parser = words::asset_kind, default_value = "resource")]
    pub kind: AssetKind,
    /// Region of the register, six digits [default: that of the network]
    #[arg(long, value_parser = words::place)]
    pub region: Option<PlaceCode>,
    /// Rights to register
    #[arg(long = "right", value_parser = words::right, value_delimiter = ',', default_value = "hold")]
    pub rights: Vec<RightClass>,
    /// Where the data comes from
    #[arg(long, value_parser = words::origin, default_value = "own")]
    pub origin: Origin,
    /// Class of the records in it
    #[arg(long, value_parser = words::record_class)]
    pub class: RecordClass,
    /// Highest sensitivity in it
    #[arg(long, value_parser = words::sensitivity)]
    pub sensitivity: Sensitivity,
    /// Number of the published schema
    #[arg(long, default_value_t = 1)]
    pub schema: u32,
    /// Number of records
    #[arg(long)]
    pub records: u64,
    /// Bytes of the bodies
    #[arg(long)]
    pub bytes: u64,
    /// First day covered, YYYY-MM-DD
    #[arg(long, value_parser = words::day)]
    pub first_day: u32,
    /// Last day covered, YYYY-MM-DD
    #[arg(long, value_parser = words::day)]
    pub last_day: u32,
    /// Merkle root over the content
    #[arg(long, value_parser = words::hash)]
    pub content_root: Hash,
    /// Hash of the content root
    #[arg(long, value_parser = words::content_hash, default_value = "sha256")]
    pub content_hash: ContentHash,
    /// Hash of the quality report
    #[arg(long, value_parser = words::hash)]
    pub quality_report: Option<Hash>,
    /// Hash of the compliance opinion
    #[arg(long, value_parser = words::hash)]
    pub compliance_opinion: Option<Hash>,
    /// Last day of validity, YYYY-MM-DD [default: until it is cancelled]
    #[arg(long, value_parser = words::day)]
    pub valid_until: Option<u32>,
}

impl AssetCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Register(arguments) => arguments.run(session).await,
            Self::Cancel { asset, reason } => {
                issue(session, &Command::AssetCancel(AssetCancel { asset, reason })).await
            }
            Self::Show { asset } => show(session, &asset).await,
        }
    }
}

impl RegisterArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let author = session.author()?;
        let mut rights = self.rights.clone();
        rights.sort_unstable();
        rights.dedup();
        let asset = self.asset.map_or_else(object_id, Ok)?;
        let register_asset = AssetRegister {
            asset,
            kind: self.kind,
            region: self.region.map_or_else(|| session.genesis().map(|genesis| genesis.region), Ok)?,
            holder: self.holder.as_deref().map_or(Ok(author.party()), |holder| party_id(session, holder))?,
            rights: List::new(rights).map_err(|_| anyhow!("at most three rights"))?,
            origin: self.origin,
            class: self.class,
            sensitivity: self.sensitivity,
            schema: self.schema,
            records: self.records,
            bytes: self.bytes,
            first_day: self.first_day,
            last_day: self.last_day,
            content_root: self.content_root,
            content_hash: self.content_hash,
            quality_report: self.quality_report,
            compliance_opinion: self.compliance_opinion,
            valid_until_day: self.valid_until,
        };
        let client = session.party_client()?;
        let signed = author.command(&Command::AssetRegister(register_asset))?;
        let status = register(&client, &signed).await?;
        let mut record = status_record(&status).with("asset", asset.to_hex());
        let code = exit_code(&status);
        if code == 0 {
            // The number is read from the proven state, not from what a node says.
            let proven = state_query::query(&client, &session.anchor()?, &Object::Asset(asset)).await?;
            let value = proven.into_iter().next().and_then(|proven| proven.value);
            let value = value
                .ok_or_else(|| anyhow!("the asset is not in the proven state yet; ask `stele asset show {asset}`"))?;
            record = record.with("certificate", describe::read::<AssetRecord>(&value)?.number.to_text());
        }
        session.output.record(&record)?;
        explain(session.output, status.code);
        Ok(code)
    }
}

async fn show(session: &Session, text: &str) -> Result<u8> {
    let object = match text.starts_with("ST-") {
        true => Object::parse("certificate", text)?,
        false => Object::parse("asset", text)?,
    };
    let proven = state_query::query(&session.reader()?, &session.anchor()?, &object).await?;
    // A certificate number leads to the asset, whose proof follows.
    let found = match (&object, proven.as_slice()) {
        (Object::Certificate(_), [number, asset, ..]) => {
            let id =
                number.value.as_deref().map(describe::read::<stele_ledger::value::CertificateRecord>).transpose()?;
            let id = id.map(|record| record.asset);
            id.filter(|id| asset.key.0 == Object::Asset(*id).state_key()).map(|id| (Object::Asset(id), asset))
        }
        (Object::Asset(_), [asset, ..]) => Some((object.clone(), asset)),
        _ => None,
    };
    let Some((object, value, height)) =
        found.and_then(|(object, asset)| Some((object, asset.value.clone()?, asset.height)))
    else {
        bail!(Failure::new("object_unknown", format!("there is no asset {text}, and that is proven")));
    };
    session.output.record(&object.describe(&value)?.with("proven_at_height", height.0))?;
    Ok(0)
}
