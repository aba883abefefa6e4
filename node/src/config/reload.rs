//! What of a new configuration a running node takes over.

use super::sections::Config;

impl Config {
    /// Sections in which `fresh` differs beyond what [`Config::adopt`] takes over.
    pub(crate) fn waits_for_restart(&self, fresh: &Self) -> Vec<&'static str> {
        let mut adopted = self.clone();
        adopted.adopt(fresh.clone());
        let differences = [
            ("node", adopted.node != fresh.node),
            ("peers", adopted.peers != fresh.peers),
            ("signer", adopted.signer != fresh.signer),
            ("validator", adopted.validator != fresh.validator),
            ("seal", adopted.seal != fresh.seal),
            ("api", adopted.api != fresh.api),
            ("admission", adopted.admission != fresh.admission),
            ("accel", adopted.accel != fresh.accel),
            ("state", adopted.state != fresh.state),
            ("payload", adopted.payload != fresh.payload),
            ("order", adopted.order != fresh.order),
            ("metrics", adopted.metrics != fresh.metrics),
            ("log", adopted.log != fresh.log),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section).collect()
    }

    /// Takes over peers and the files of the listeners' certificates; everything else keeps its value.
    pub(crate) fn adopt(&mut self, fresh: Self) {
        self.peers.persistent = fresh.peers.persistent;
        self.api.certificate = fresh.api.certificate;
        self.api.key = fresh.api.key;
        self.api.client_ca = fresh.api.client_ca;
        self.hash = fresh.hash;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../docs/steled.example.toml");

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/stele/steled.toml")).unwrap()
    }

    #[test]
    fn peers_and_certificates_change_and_the_rest_is_named() {
        let mut config = parse(EXAMPLE);
        let text = EXAMPLE
            .replace("10.0.0.4:7400", "10.0.0.5:7400")
            .replace("certificate = \"api.crt\"", "certificate = \"new.crt\"")
            .replace("level = \"info\"", "level = \"debug\"")
            .replace("0.0.0.0:7401", "0.0.0.0:7501");
        let fresh = parse(&text);
        assert_ne!(config.hash, fresh.hash);
        assert_eq!(config.waits_for_restart(&fresh), ["api", "log"]);
        config.adopt(fresh);
        assert_eq!(config.peers.persistent[2].address, "10.0.0.5:7400");
        assert!(config.api.certificate.ends_with("new.crt"));
        assert_eq!(config.api.party_listen.port(), 7401);
    }
}
