//! Stable codes: the outcome of a statement, the error of a request, the label of a metric.

crate::codes! {
    /// What became of a statement. Numbers below 100 are outcomes that `apply` writes into the outcomes tree and are
    /// never reused; numbers from 100 are refusals at admission, which promise nothing and are proven by nobody.
    pub enum Code: u16 {
        /// Applied: the statement is a leaf of the log.
        Applied = 0 => "applied",
        /// `iat` is older than the replay window.
        Stale = 1 => "stale",
        /// `iat` lies too far ahead of block time.
        Early = 2 => "early",
        /// The same issuer used the same `cti` for other content.
        IdConflict = 3 => "id_conflict",
        /// The signing key is not enrolled.
        KeyUnknown = 4 => "key_unknown",
        /// The signing key was revoked or rotated away.
        KeyRevoked = 5 => "key_revoked",
        /// The issuer is not the party that holds the key.
        IssuerMismatch = 6 => "issuer_mismatch",
        /// The party lacks the role that the command needs.
        RoleMissing = 7 => "role_missing",
        /// No live mandate covers the act for another party.
        MandateMissing = 8 => "mandate_missing",
        /// The command takes effect only by proposal and approval.
        DualControlRequired = 9 => "dual_control_required",
        /// Proposer and approver are the same party.
        SelfApproval = 10 => "self_approval",
        /// No such proposal.
        ProposalUnknown = 11 => "proposal_unknown",
        /// The proposal was decided, withdrawn or has expired.
        ProposalClosed = 12 => "proposal_closed",
        /// No such party.
        PartyUnknown = 13 => "party_unknown",
        /// A party, key, record, asset or mandate of that id exists.
        AlreadyExists = 14 => "already_exists",
        /// No such record, asset or mandate.
        ObjectUnknown = 15 => "object_unknown",
        /// The act belongs to the holder of the object.
        NotHolder = 16 => "not_holder",
        /// The object's state forbids the act.
        StateConflict = 17 => "state_conflict",
        /// The command's fields contradict each other or a bound.
        FieldInvalid = 18 => "field_invalid",
        /// The command is assigned to a platform that this protocol version does not execute.
        CommandUnsupported = 19 => "command_unsupported",
        /// The activation height is too near, in the past or taken.
        ActivationInvalid = 20 => "activation_invalid",
        /// The change would leave too few validators or change too many at once.
        ValidatorsInvalid = 21 => "validators_invalid",
        /// The public key is not canonical, not on the curve or of small order.
        KeyInvalid = 22 => "key_invalid",
        /// A bound on live objects of one party is reached.
        LimitReached = 23 => "limit_reached",
        /// The suite is not enabled by the parameters.
        SuiteDisabled = 24 => "suite_disabled",
        /// The party is suspended.
        PartySuspended = 25 => "party_suspended",
        /// The epoch certificate does not verify or does not fit.
        EpochInvalid = 26 => "epoch_invalid",

        /// Not well-formed CBOR or COSE.
        Malformed = 100 => "malformed",
        /// Not the deterministic encoding.
        NotDeterministic = 101 => "not_deterministic",
        /// Larger than the limit.
        TooLarge = 102 => "too_large",
        /// The unprotected header is not empty.
        UnprotectedNotEmpty = 103 => "unprotected_not_empty",
        /// A header label appears twice.
        DuplicateLabel = 104 => "duplicate_label",
        /// A required header or claim is missing or has the wrong type.
        HeaderInvalid = 105 => "header_invalid",
        /// `crit` names a header that this node does not understand.
        CriticalUnsupported = 106 => "critical_unsupported",
        /// The algorithm is not a suite of this network.
        AlgorithmUnsupported = 107 => "algorithm_unsupported",
        /// The audience is another network.
        ForeignNetwork = 108 => "foreign_network",
        /// The signature does not verify.
        SignatureInvalid = 109 => "signature_invalid",
        /// The command type is not assigned.
        CommandUnknown = 110 => "command_unknown",
        /// An opaque payload is neither a hash envelope nor flagged public and small.
        PayloadNotOpaque = 111 => "payload_not_opaque",
        /// The request's content type is not one that this resource takes.
        ContentTypeUnsupported = 112 => "content_type_unsupported",
        /// The resource does not take the request's method.
        MethodUnsupported = 113 => "method_unsupported",
        /// The request did not arrive within its time.
        RequestTimeout = 114 => "request_timeout",
        /// The admission queue is full; try again after the named time.
        Saturated = 120 => "saturated",
        /// The party is over its share of admission; try again after the named time.
        ShareExceeded = 121 => "share_exceeded",
        /// The node is not ready: it is starting, catching up or stopping.
        NotReady = 122 => "not_ready",
        /// The client certificate is missing, unknown, expired or of another network.
        ClientUnauthenticated = 123 => "client_unauthenticated",
        /// The party may not read this.
        Forbidden = 124 => "forbidden",
        /// There is nothing of that name.
        NotFound = 125 => "not_found",
        /// The bytes were pruned; hashes and proofs are still served.
        Pruned = 126 => "pruned",
        /// A query parameter is malformed or out of range.
        ParameterInvalid = 127 => "parameter_invalid",
        /// The result is not certified by a header yet; ask again.
        NotCertified = 128 => "not_certified",
        /// The node has no room for more bodies.
        StorageFull = 129 => "storage_full",
        /// The node takes no bodies for now, since it could not keep them safe.
        StorageReadOnly = 130 => "storage_read_only",
        /// The stored body is damaged beyond what this node can repair.
        BodyDamaged = 131 => "body_damaged",
        /// The body is sealed under a key that this node does not have.
        BodySealed = 132 => "body_sealed",
        /// The range begins behind the end of the body.
        RangeInvalid = 133 => "range_invalid",
        /// The node failed; the log of the node says why.
        Internal = 199 => "internal",
    }
}

impl Code {
    /// Whether `apply` writes this code into the outcomes tree.
    pub const fn is_outcome(self) -> bool {
        self.number() < 100
    }
    /// Whether the same request may succeed later without being changed.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RequestTimeout
                | Self::Saturated
                | Self::ShareExceeded
                | Self::NotReady
                | Self::NotCertified
                | Self::Early
        )
    }
}

impl From<crate::cbor::CborError> for Code {
    fn from(error: crate::cbor::CborError) -> Self {
        use crate::cbor::CborError;
        match error {
            CborError::NotDeterministic => Self::NotDeterministic,
            CborError::TooLarge => Self::TooLarge,
            CborError::OutOfRange => Self::FieldInvalid,
            CborError::Malformed | CborError::MissingKey(_) | CborError::UnknownKey | CborError::TrailingBytes => {
                Self::Malformed
            }
        }
    }
}
