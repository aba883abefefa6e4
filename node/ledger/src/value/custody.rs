//! Anchors of records.

use stele_types::hash::{Hash, ObjectId, PartyId};
use stele_types::header::LogIndex;
use stele_types::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};

use crate::state::stored;

stele_types::record! {
    /// The newest version of a record, under its id. Older commitments stay in the log.
    pub struct RecordAnchor {
        /// Who put it and may correct it.
        1 => issuer: PartyId,
        /// Its class.
        2 => class: RecordClass,
        /// Published schema of the body.
        3 => schema: u32,
        /// Class pseudonym of the person it is about.
        4 => subject: Option<[u8; 16]>,
        /// Division in which the thing lies.
        5 => place: Option<PlaceCode>,
        /// Day of the event, days since 1970-01-01.
        6 => event_day: u32,
        /// Sensitivity of the body.
        7 => sensitivity: Sensitivity,
        /// Retention rule.
        8 => retention: u16,
        /// Hash of the access policy.
        9 => policy: Hash,
        /// Salted commitment to the body.
        10 => commitment: Hash,
        /// Content root of the sealed body.
        11 => body_root: Option<Hash>,
        /// Hash of the content root.
        12 => body_hash: Option<ContentHash>,
        /// The party for which the issuer acts.
        13 => on_behalf_of: Option<PartyId>,
        /// Version, counted from 1.
        14 => version: u32,
        /// Leaf of this version.
        15 => index: LogIndex,
        /// Leaf of the version before, so that the history can be walked back.
        16 => previous: Option<LogIndex>,
    }
}
stored!(RecordAnchor, Record, ObjectId, |id| [&id.0]);
