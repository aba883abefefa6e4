//! Under which key a statement has to verify.

use alloc::collections::BTreeMap;

use stele_types::code::Code;
use stele_types::hash::KeyId;
use stele_types::parameters::Parameters;
use stele_types::party::EnrolledKey;
use stele_types::statement::Statement;

use crate::state::{StateView, read};
use crate::value::{KeyRecord, ParametersRecord};

/// Keys of a state, each decoded once. One value serves the statements of one block.
pub struct SigningKeys<'v> {
    view: &'v dyn StateView,
    parameters: Parameters,
    keys: BTreeMap<KeyId, Option<KeyRecord>>,
}

impl<'v> SigningKeys<'v> {
    /// Keys of the state after the parent.
    ///
    /// # Panics
    /// When genesis was not written, or a value of the state is damaged.
    pub fn new(view: &'v dyn StateView) -> Self {
        let parameters = read::<ParametersRecord>(view, &()).expect("genesis writes the parameters").current;
        Self { view, parameters, keys: BTreeMap::new() }
    }

    /// The key under which the statement's signature has to verify.
    ///
    /// # Errors
    /// `key_unknown` (also when the header's algorithm is not the key's), `issuer_mismatch`, `key_revoked`,
    /// `suite_disabled`.
    pub fn of(&mut self, statement: &Statement) -> Result<&EnrolledKey, Code> {
        let view = self.view;
        let key = self.keys.entry(statement.key()).or_insert_with(|| read(view, &statement.key()));
        check(key.as_ref(), statement, &self.parameters)?;
        key.as_ref().map(|record| &record.key).ok_or(Code::KeyUnknown)
    }
}

/// The key under which one statement's signature has to verify, under the state after the parent.
///
/// # Errors
/// As [`SigningKeys::of`].
///
/// # Panics
/// As [`SigningKeys::new`].
pub fn signing_key(view: &dyn StateView, statement: &Statement) -> Result<EnrolledKey, Code> {
    SigningKeys::new(view).of(statement).cloned()
}

/// Whether `key` speaks for the issuer of `statement`.
pub(crate) fn check(key: Option<&KeyRecord>, statement: &Statement, parameters: &Parameters) -> Result<(), Code> {
    let key = key.filter(|key| key.key.suite == statement.suite()).ok_or(Code::KeyUnknown)?;
    if key.party != statement.issuer() {
        return Err(Code::IssuerMismatch);
    }
    if key.ended.is_some() {
        return Err(Code::KeyRevoked);
    }
    if !parameters.allows(key.key.suite) {
        return Err(Code::SuiteDisabled);
    }
    Ok(())
}
