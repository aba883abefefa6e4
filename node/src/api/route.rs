//! Every route, once: path, method, who may use it. The router, the access rules, the metric labels and the OpenAPI
//! document are all checked against this table.

use axum::http::Method;

use super::access::Rule;
use crate::metrics::label::Label;

macro_rules! routes {
    ($($(#[$meta:meta])* $name:ident $method:ident $path:literal $rule:ident;)*) => {
        /// A route.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Route {
            $($(#[$meta])* $name,)*
            /// Anything else.
            Unmatched,
        }

        impl Route {
            /// Every route of the API.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            /// Its path, with parameters in braces.
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path,)* Self::Unmatched => "unmatched" }
            }
            /// Its method; a `GET` route answers `HEAD`, too.
            pub fn method(self) -> Option<Method> {
                match self { $(Self::$name => Some(Method::$method),)* Self::Unmatched => None }
            }
            /// Who may use it.
            pub const fn rule(self) -> Rule {
                match self { $(Self::$name => Rule::$rule,)* Self::Unmatched => Rule::Anyone }
            }
        }
    };
}

routes! {
    /// Registers a signed statement.
    RegisterEntry POST "/entries" Party;
    /// Registers a sequence of signed statements.
    RegisterBatch POST "/v1/batch" Party;
    /// The signed statement of an id or a log index.
    Entry GET "/entries/{entry}" Anyone;
    /// The receipt of an id or a log index.
    Receipt GET "/receipts/{entry}" Anyone;
    /// The quorum bundle of a statement.
    Bundle GET "/bundles/{statement}" Anyone;
    /// Where a statement is.
    Status GET "/v1/statements/{statement}" Anyone;
    /// Where many statements are.
    Statuses POST "/v1/statuses" Party;
    /// The quorum bundles of many statements.
    Bundles POST "/v1/bundles" Party;
    /// A header with its certificate.
    Header GET "/v1/headers/{height}" Anyone;
    /// A block with its certificate.
    Block GET "/v1/blocks/{height}" RegulatorOrOperator;
    /// The snapshots of the state for nodes that join.
    Snapshots GET "/v1/snapshots" RegulatorOrOperator;
    /// What goes with the snapshot of a height.
    Snapshot GET "/v1/snapshots/{height}" RegulatorOrOperator;
    /// A chunk of the snapshot of a height.
    SnapshotChunk GET "/v1/snapshots/{height}/{index}" RegulatorOrOperator;
    /// The newest signed checkpoint.
    Checkpoint GET "/v1/checkpoint" Anyone;
    /// A tile of the log.
    Tile GET "/tile/{*tile}" Anyone;
    /// Consistency of two tree heads.
    Consistency GET "/v1/consistency" Anyone;
    /// A value of the state with its proof.
    State GET "/v1/state/{kind}/{id}" Anyone;
    /// Takes the body of a record.
    PutBody PUT "/v1/records/{record}/body" Party;
    /// A body, for who put it.
    Blob GET "/v1/blobs/{root}" Party;
    /// The sealed form of a body.
    SealedBlob GET "/v1/blobs/{root}/sealed" Party;
    /// Where a body has to be, and where it is.
    BodyCustody GET "/v1/blobs/{root}/custody" Party;
    /// Keeps a copy of a body for another node.
    CopyBody POST "/v1/custody/copies" Operator;
    /// Which of some bodies are not here.
    MissingBodies POST "/v1/custody/missing" Operator;
    /// The bodies that came to another node.
    KeptBodies GET "/v1/custody/bodies" Operator;
    /// All class keys, sealed for another node.
    ClassKeys GET "/v1/custody/class-keys" Operator;
    /// By what TPM and keys are known.
    AttestIdentity GET "/v1/attest/identity" Anyone;
    /// Opens a credential.
    AttestActivate POST "/v1/attest/activate" RegulatorOrOperator;
    /// Quotes the PCRs for a nonce.
    AttestQuote POST "/v1/attest/quote" Party;
    /// Quotes the PCRs without a nonce.
    AttestEvidence GET "/v1/attest/evidence" Party;
    /// A log of what was measured.
    AttestLog GET "/v1/attest/log/{log}" RegulatorOrOperator;
    /// How the payload store is.
    Storage GET "/v1/storage" Administrator;
    /// Begins to read and mend everything that is stored.
    ScrubStorage POST "/v1/storage/scrub" Control;
    /// Begins to bring back what other nodes keep.
    RebuildStorage POST "/v1/storage/rebuild" Control;
    /// Takes a device in the place of a drive.
    ReplaceDrive POST "/v1/storage/drives/{drive}" Control;
    /// Some of the bodies that are stored.
    StoredBodies GET "/v1/storage/bodies" Control;
    /// The sealed form of a body that is stored.
    StoredBody GET "/v1/storage/bodies/{root}" Control;
    /// Bytes of a segment of blocks that is stored.
    StoredBlocks GET "/v1/storage/blocks/{root}" Control;
    /// The cursor feed of registered statements.
    Feed GET "/v1/feed" Party;
    /// The network: id, parameters, validators, checkpoint key.
    Network GET "/v1/network" Anyone;
    /// The genesis file.
    Genesis GET "/v1/genesis" Anyone;
    /// This document.
    OpenApi GET "/openapi.json" Anyone;
    /// Whether the process runs.
    Live GET "/livez" Health;
    /// Whether the node serves.
    Ready GET "/readyz" Health;
    /// Metrics.
    Metrics GET "/metrics" Administrator;
}

impl Route {
    /// Its name in the OpenAPI document: that of the variant, with a small first letter.
    pub(super) fn operation(self) -> String {
        let name = format!("{self:?}");
        let first = name.chars().next().map(|first| first.to_ascii_lowercase());
        first.into_iter().chain(name.chars().skip(1)).collect()
    }
    /// Method for metrics.
    pub(crate) fn method_text(self) -> &'static str {
        match self.method() {
            Some(Method::GET) => "GET",
            Some(Method::POST) => "POST",
            Some(Method::PUT) => "PUT",
            _ => "other",
        }
    }
}

impl Label for Route {
    const NAME: &'static str = "route";
    fn every() -> Vec<Self> {
        Self::ALL.iter().copied().chain([Self::Unmatched]).collect()
    }
    fn text(self) -> &'static str {
        self.path()
    }
}
