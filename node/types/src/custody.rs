//! Custody: anchors of records, and receipts for copies of their bodies. The ledger sees ids, a class and a salted
//! commitment, never a body.

use alloc::vec::Vec;

use crate::cbor::{Encoder, Field as _, put};
use crate::hash::{Hash, NetworkId, ObjectId, PartyId};
use crate::header::Height;
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

crate::record! {
    /// A node's word that it holds a copy of a sealed body, of which it has read and verified every byte.
    pub struct CustodyReceipt {
        /// The network.
        1 => network: NetworkId,
        /// Hash of the content root.
        2 => body_hash: ContentHash,
        /// Content root of the sealed body.
        3 => body_root: Hash,
        /// Bytes of the sealed body.
        4 => length: u64,
        /// Height of the ledger when the copy was verified.
        5 => height: Height,
        /// Time of the block at that height, milliseconds.
        6 => time_ms: u64,
        /// Signature of the node's checkpoint key over [`CustodyReceipt::signing_bytes`], r ‖ s.
        7 => signature: [u8; 64],
    }
}

impl CustodyReceipt {
    /// The array `["stele/custody-receipt/v1", network, hash, body root, length, height, time]`.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let mut e = Encoder::new(&mut bytes);
        put(e.array(7));
        put(e.str("stele/custody-receipt/v1"));
        self.network.encode(&mut e);
        self.body_hash.encode(&mut e);
        self.body_root.encode(&mut e);
        self.length.encode(&mut e);
        self.height.encode(&mut e);
        self.time_ms.encode(&mut e);
        bytes
    }
}
