//! The configuration file of `steled` as `network init` writes it.

use std::fmt::Write as _;
use std::path::Path;

use stele_hsm::SignerKind;

use crate::network::init::{PayloadDrives, VoteMode};

/// What goes into one node's `steled.toml`; paths are relative to the file.
pub(crate) struct NodeConfig<'a> {
    pub(crate) name: &'a str,
    pub(crate) mode: VoteMode,
    /// The process that holds the keys; none: they lie in files.
    pub(crate) holder: Option<Holder<'a>>,
    pub(crate) peer_listen: &'a str,
    /// Address and hexadecimal peer id of every other validator.
    pub(crate) persistent: &'a [(String, String)],
    pub(crate) party_listen: &'a str,
    pub(crate) public_listen: &'a str,
    pub(crate) plain_listen: Option<&'a str>,
    pub(crate) metrics_listen: &'a str,
    pub(crate) payload: Option<&'a PayloadDrives>,
    /// The nodes that keep copies of this one's bodies; none: nobody does.
    pub(crate) keepers: &'a [Keeper],
}

/// A `stele-signer`, and what it holds the keys in.
pub(crate) struct Holder<'a> {
    pub(crate) socket: &'a Path,
    pub(crate) validator: SignerKind,
    pub(crate) seal: SignerKind,
    /// Of the custody key; none: that lies in a file beside the configuration.
    pub(crate) custody: Option<SignerKind>,
}

/// A node that keeps copies for others.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    /// Its party listener.
    pub(crate) address: String,
    /// Hexadecimal, as all keys here.
    pub(crate) custody_key: String,
    pub(crate) receipt_key: String,
}

impl NodeConfig<'_> {
    /// The file's text.
    pub(crate) fn to_toml(&self) -> String {
        let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = text.write_fmt(args);
            text.push('\n');
        };
        line(format_args!("# Configuration of one Stele node. Paths are relative to this file."));
        line(format_args!("# Check it with: steled check-config --config steled.toml\n"));
        line(format_args!("[node]"));
        line(format_args!("name = {}", quote(self.name)));
        line(format_args!("data_dir = \"data\""));
        line(format_args!("genesis = \"genesis.cbor\"\n"));
        line(format_args!("[peers]"));
        line(format_args!("listen = {}", quote(self.peer_listen)));
        line(format_args!("key = \"peer.key\""));
        line(format_args!("persistent = ["));
        for (address, peer_id) in self.persistent {
            line(format_args!("    {{ address = {}, peer_id = {} }},", quote(address), quote(peer_id)));
        }
        line(format_args!("]\n"));
        if let Some(holder) = &self.holder {
            line(format_args!("[signer]"));
            line(format_args!("socket = {}\n", quote(&holder.socket.to_string_lossy())));
        }
        line(format_args!("[validator]"));
        line(format_args!("mode = {}", quote(self.mode.as_str())));
        match &self.holder {
            Some(holder) => {
                line(format_args!("signer = \"{}\"", holder.validator));
                line(format_args!("\n[seal]"));
                line(format_args!("signer = \"{}\"\n", holder.seal));
            }
            None => {
                line(format_args!("# Keys in files are for development; production names a TPM or an HSM."));
                line(format_args!("signer = \"software\""));
                line(format_args!("long_term_key = \"validator.key\""));
                if self.mode == VoteMode::Delegated {
                    line(format_args!("epoch_keys = [\"epoch.key\"]"));
                }
                line(format_args!("\n[seal]"));
                line(format_args!("signer = \"software\""));
                line(format_args!("key = \"seal.key\"\n"));
            }
        }
        line(format_args!("[api]"));
        line(format_args!("party_listen = {}", quote(self.party_listen)));
        line(format_args!("public_listen = {}", quote(self.public_listen)));
        if let Some(plain) = self.plain_listen {
            line(format_args!("plain_listen = {}", quote(plain)));
        }
        line(format_args!("certificate = \"tls.pem\""));
        line(format_args!("key = \"tls.key\""));
        line(format_args!("client_ca = \"ca.pem\"\n"));
        if let Some(payload) = self.payload {
            line(format_args!("[payload]"));
            match self.holder.as_ref().and_then(|holder| holder.custody) {
                Some(custody) => line(format_args!("signer = \"{custody}\"")),
                None => {
                    line(format_args!("signer = \"software\""));
                    line(format_args!("custody_key = \"custody.key\""));
                }
            }
            line(format_args!("data_columns = {}", payload.data_columns));
            line(format_args!("parity_columns = {}", payload.parity_columns));
            line(format_args!("slot_bytes = {}", payload.slot_bytes));
            if let Some(after) = payload.archive_blocks_after_ms {
                line(format_args!("archive_blocks_after_ms = {after}"));
            }
            line(format_args!("drives = ["));
            for drive in 0..payload.drives {
                let path = quote(&format!("drives/{drive}"));
                line(format_args!("    {{ path = {path}, bytes = {} }},", payload.drive_bytes));
            }
            line(format_args!("]\n"));
            if !self.keepers.is_empty() {
                line(format_args!("[payload.custody]"));
                line(format_args!("level = \"two-custodians\""));
                line(format_args!("authorities = \"ca.pem\""));
                line(format_args!("certificate = \"operator.pem\""));
                line(format_args!("key = \"operator.key\""));
                line(format_args!("keepers = ["));
                for Keeper { address, custody_key, receipt_key } in self.keepers {
                    let address = quote(address);
                    line(format_args!(
                        "    {{ address = {address}, custody_key = \"{custody_key}\", receipt_key = \"{receipt_key}\" }},"
                    ));
                }
                line(format_args!("]\n"));
            }
        }
        line(format_args!("[metrics]"));
        line(format_args!("listen = {}", quote(self.metrics_listen)));
        text
    }
}
