//! `stele party`: who belongs to the network and what they may do.

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{Args, Subcommand};
use stele_types::cbor::List;
use stele_types::hash::Hash;
use stele_types::party::{Founder, OrganisationCode, PartyEnrol, PartyStanding, Role, RoleChange, RoleSet, TlsPin};
use stele_types::{Command, PartyId, Suite};

use crate::commands::governed::{DualControl, issue, party_id};
use crate::commands::key::public_half;
use crate::commands::words;
use crate::describe::Object;
use crate::failure::Failure;
use crate::network::init::{NewParty, found_again, found_party, write_leaf};
use crate::network::profile::PartyProfile;
use crate::output::{Record, note};
use crate::pki::{Authority, Usage};
use crate::session::Session;
use crate::state_query;

/// Who belongs to the network and what they may do.
#[derive(Debug, Subcommand)]
pub enum PartyCommand {
    /// Propose a new party: with keys made here under NAME, or with the public half of keys made elsewhere
    Enrol(EnrolArguments),
    /// Propose that a party may no longer act
    Suspend(StandingArguments),
    /// Propose that a suspended party may act again
    Resume(StandingArguments),
    /// Propose more or fewer roles of a party
    Role(RoleArguments),
    /// Set the client certificates that speak for the acting party
    Pin(PinArguments),
    /// Show a party, proven
    Show {
        /// Name or id [default: the acting party]
        party: Option<String>,
    },
    /// List the parties that genesis founded
    ListFounders,
}

/// Arguments of `party enrol`.
#[derive(Debug, Args)]
pub struct EnrolArguments {
    /// Name on this machine; the ledger knows the id only
    pub name: String,
    /// Roles
    #[arg(long = "role", value_parser = words::role, value_delimiter = ',', required = true)]
    pub roles: Vec<Role>,
    /// Suite of the signing key
    #[arg(long, value_parser = words::suite, default_value = "es256")]
    pub suite: Suite,
    /// Unified social credit code
    #[arg(long, value_parser = words::organisation)]
    pub organisation: Option<OrganisationCode>,
    /// Public key made elsewhere, in the suite's canonical form, hexadecimal
    #[arg(long, requires = "tls_pin", value_name = "HEX")]
    pub public_key: Option<String>,
    /// Pin of the client certificate made elsewhere: SHA-256 of its SubjectPublicKeyInfo
    #[arg(long, requires = "public_key", value_parser = words::hash, value_name = "HEX")]
    pub tls_pin: Option<Hash>,
    /// How it is decided
    #[command(flatten)]
    pub dual: DualControl,
}

/// Arguments of `party suspend` and `party resume`.
#[derive(Debug, Args)]
pub struct StandingArguments {
    /// Name or id
    pub party: String,
    /// How it is decided
    #[command(flatten)]
    pub dual: DualControl,
}

/// Arguments of `party role`.
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = false, args = ["grant", "revoke"])]
pub struct RoleArguments {
    /// Name or id
    pub party: String,
    /// Roles to add
    #[arg(long, value_parser = words::role, value_delimiter = ',')]
    pub grant: Vec<Role>,
    /// Roles to take away
    #[arg(long, value_parser = words::role, value_delimiter = ',')]
    pub revoke: Vec<Role>,
    /// How it is decided
    #[command(flatten)]
    pub dual: DualControl,
}

/// Arguments of `party pin`.
#[derive(Debug, Args)]
pub struct PinArguments {
    /// Pins, whole: SHA-256 of the SubjectPublicKeyInfo of each certificate
    #[arg(value_parser = words::hash, value_name = "HEX", required_unless_present = "renew")]
    pub pins: Vec<Hash>,
    /// Make a new client certificate with the network CA here, pin it beside the present one, and use it from then on
    #[arg(long)]
    pub renew: bool,
}

impl PartyCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// What failed.
    pub async fn run(self, session: &Session) -> Result<u8> {
        match self {
            Self::Enrol(arguments) => arguments.run(session).await,
            Self::Suspend(arguments) => {
                let party = party_id(session, &arguments.party)?;
                arguments.dual.propose(session, &Command::PartySuspend(PartyStanding { party })).await
            }
            Self::Resume(arguments) => {
                let party = party_id(session, &arguments.party)?;
                arguments.dual.propose(session, &Command::PartyResume(PartyStanding { party })).await
            }
            Self::Role(arguments) => {
                let party = party_id(session, &arguments.party)?;
                let command = if arguments.grant.is_empty() {
                    Command::RoleRevoke(RoleChange { party, roles: RoleSet::of(&arguments.revoke) })
                } else {
                    Command::RoleGrant(RoleChange { party, roles: RoleSet::of(&arguments.grant) })
                };
                arguments.dual.propose(session, &command).await
            }
            Self::Pin(arguments) => arguments.run(session).await,
            Self::Show { party } => show(session, party.as_deref()).await,
            Self::ListFounders => list_founders(session),
        }
    }
}

impl EnrolArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        let roles = RoleSet::of(&self.roles);
        let enrol = match (&self.public_key, self.tls_pin) {
            (Some(public_key), Some(pin)) => {
                let key = public_half(self.suite, public_key)?;
                let party = PartyId(crate::author::random()?);
                PartyEnrol { party, organisation: self.organisation, roles, key, tls_pins: pins(vec![pin])? }
            }
            _ => {
                // Whoever cannot propose leaves no keys behind.
                session.author()?;
                self.keys_here(session).await?.into()
            }
        };
        let about = Record::new().with("name", self.name.as_str()).with("party", enrol.party.to_hex());
        self.dual.propose_about(session, about, &Command::PartyEnrol(enrol)).await
    }

    /// The party with keys under its name here: made now, or by an enrolment that did not come through.
    async fn keys_here(&self, session: &Session) -> Result<Founder> {
        let dir = session.dir()?;
        let new = NewParty { name: &self.name, roles: &self.roles, suite: self.suite, organisation: self.organisation };
        let here = PartyProfile::names(&dir)?.contains(&self.name);
        if !here {
            let authority = Authority::open(&dir.ca_certificate(), &dir.ca_key())?;
            return Ok(found_party(&dir, &authority, &new)?.1);
        }
        let party = PartyProfile::load(&dir, &self.name)?.party_id()?;
        let proven = state_query::query(&session.party_client()?, &session.anchor()?, &Object::Party(party)).await?;
        if proven.iter().any(|proven| proven.value.is_some()) {
            bail!(
                Failure::new("already_exists", format!("{} is enrolled as party {party}", self.name))
                    .hint("choose another name for a new party; `stele party role` changes the roles of this one")
            );
        }
        note(&format!("Using the keys that lie here under {}.", self.name));
        found_again(&dir, &new)
    }
}

impl PinArguments {
    async fn run(self, session: &Session) -> Result<u8> {
        if !self.renew {
            return issue(session, &Command::TlsPin(TlsPin { pins: pins(self.pins)? })).await;
        }
        let (dir, name) = (session.dir()?, session.party_name()?);
        let mut profile = PartyProfile::load(&dir, name)?;
        let present = Hash::from_hex(&profile.tls_pin).ok_or_else(|| anyhow!("malformed tls_pin in party.toml"))?;
        let leaf = Authority::open(&dir.ca_certificate(), &dir.ca_key())?.issue(name, &[], Usage::Client)?;
        let mut all = self.pins;
        all.extend([present, leaf.pin]);
        let code = issue(session, &Command::TlsPin(TlsPin { pins: pins(all)? })).await?;
        if code == 0 {
            let party = dir.party(name);
            for path in [party.tls_certificate(), party.tls_key()] {
                let old =
                    path.with_extension(format!("{}.old", path.extension().unwrap_or_default().to_string_lossy()));
                std::fs::rename(&path, &old).with_context(|| format!("cannot move {}", path.display()))?;
            }
            write_leaf(&leaf, &party.tls_certificate(), &party.tls_key())?;
            profile.tls_pin = leaf.pin.to_hex();
            profile.save(&party)?;
        }
        Ok(code)
    }
}

fn pins<const N: usize>(pins: Vec<Hash>) -> Result<List<Hash, N>> {
    List::new(pins).map_err(|_| anyhow!("at most {N} pins"))
}

async fn show(session: &Session, party: Option<&str>) -> Result<u8> {
    let id = party_id(session, party.map_or_else(|| session.party_name(), Ok)?)?;
    let object = Object::Party(id);
    let proven = state_query::query(&session.party_client()?, &session.anchor()?, &object).await?;
    match proven.into_iter().next().and_then(|proven| Some((proven.value?, proven.height))) {
        Some((value, height)) => {
            session.output.record(&object.describe(&value)?.with("proven_at_height", height.0))?;
            Ok(0)
        }
        None => bail!(Failure::new("party_unknown", format!("there is no party {id}, and that is proven"))),
    }
}

fn list_founders(session: &Session) -> Result<u8> {
    let genesis = session.genesis()?;
    let dir = session.dir()?;
    let here: Vec<PartyProfile> =
        PartyProfile::names(&dir)?.iter().filter_map(|name| PartyProfile::load(&dir, name).ok()).collect();
    let founders: Vec<Record> = genesis
        .founders
        .iter()
        .map(|founder| {
            let name = here.iter().find(|party| party.party == founder.party.to_hex()).map(|party| party.name.as_str());
            Record::new()
                .with_option("name", name)
                .with("party", founder.party.to_hex())
                .with("roles", founder.roles.iter().map(Role::as_str).collect::<Vec<_>>())
                .with("suite", founder.key.suite.as_str())
                .with("key", founder.key.id().to_hex())
        })
        .collect();
    session.output.records(&founders)?;
    Ok(0)
}
