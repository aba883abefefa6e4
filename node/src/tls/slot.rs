//! TLS settings that are replaced while listeners use them.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

/// Each handshake takes the settings of its moment; connections that are open keep theirs.
#[derive(Clone)]
pub struct TlsSlot(Arc<RwLock<Arc<ServerConfig>>>);

impl TlsSlot {
    /// A place that holds `config` first.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(RwLock::new(config)))
    }
    /// The settings now.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
    /// Puts others in their place.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }
}
