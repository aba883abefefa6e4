//! Certificates and keys of the listeners, read at start and again when the operator asks.

use std::sync::Arc;

use rustls::ServerConfig;

use crate::config::ApiSection;
use crate::metrics::Metrics;
use crate::tls::{self, TlsError, TlsIdentity, TlsSlot};

/// The TLS settings of all listeners.
#[derive(Clone)]
pub struct Certificates {
    mutual: TlsSlot,
    public: TlsSlot,
    metrics: Arc<Metrics>,
}

/// Settings read from files together.
struct Fresh {
    mutual: Arc<ServerConfig>,
    public: Arc<ServerConfig>,
    not_after: i64,
}

impl Certificates {
    pub(super) fn read(section: &ApiSection, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let Fresh { mutual, public, not_after } = Fresh::read(section)?;
        metrics.tls.certificate_expiry(not_after);
        Ok(Self { mutual: TlsSlot::new(mutual), public: TlsSlot::new(public), metrics })
    }
    pub(super) fn mutual(&self) -> TlsSlot {
        self.mutual.clone()
    }
    pub(super) fn public(&self) -> TlsSlot {
        self.public.clone()
    }

    /// Reads certificate, key and authorities again, for handshakes from now on. Either all of them are replaced, or on
    /// an error none.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn reload(&self, section: &ApiSection) -> Result<(), TlsError> {
        let Fresh { mutual, public, not_after } = Fresh::read(section)?;
        self.mutual.replace(mutual);
        self.public.replace(public);
        self.metrics.tls.certificate_expiry(not_after);
        Ok(())
    }
}

impl Fresh {
    fn read(section: &ApiSection) -> Result<Self, TlsError> {
        let identity = TlsIdentity::load(&section.certificate, &section.key)?;
        Ok(Self {
            mutual: tls::mutual_config(&identity, tls::read_authorities(&section.client_ca)?)?,
            public: tls::public_config(&identity)?,
            not_after: identity.validity().not_after,
        })
    }
}
