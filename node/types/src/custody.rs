//! Custody: anchors of records. The ledger sees ids, a class and a salted commitment, never a body.

use crate::hash::{Hash, ObjectId, PartyId};
use crate::record::{ContentHash, PlaceCode, RecordClass, Sensitivity};

crate::record! {
    /// `record.put`: anchors one record by its salted commitment `HMAC-SHA-256(salt, body)`.
    pub struct RecordPut {
        /// Id of the record.
        1 => record: ObjectId,
        /// Its class.
        2 => class: RecordClass,
        /// Published schema of the body.
        3 => schema: u32,
        /// Class pseudonym of the person it is about: 128 random bits, absent for things.
        4 => subject: Option<[u8; 16]>,
        /// Division in which the thing lies, for records of land and sites.
        5 => place: Option<PlaceCode>,
        /// Day of the event, days since 1970-01-01; no finer time leaves the body.
        6 => event_day: u32,
        /// Sensitivity of the body.
        7 => sensitivity: Sensitivity,
        /// Retention rule.
        8 => retention: u16,
        /// Hash of the access policy in force.
        9 => policy: Hash,
        /// Salted commitment to the body.
        10 => commitment: Hash,
        /// Content root of the sealed body, once the payload tier holds it.
        11 => body_root: Option<Hash>,
        /// Hash of the content root.
        12 => body_hash: Option<ContentHash>,
        /// The party for which the issuer acts, under a mandate.
        13 => on_behalf_of: Option<PartyId>,
    }
}

crate::record! {
    /// `record.correct`: a new version of a record; the old commitment stays in the log.
    pub struct RecordCorrect {
        /// The record.
        1 => record: ObjectId,
        /// The version that this one follows, counted from 1.
        2 => follows: u32,
        /// Salted commitment to the new body.
        3 => commitment: Hash,
        /// Content root of the new sealed body.
        4 => body_root: Option<Hash>,
        /// Hash of the content root.
        5 => body_hash: Option<ContentHash>,
    }
}
