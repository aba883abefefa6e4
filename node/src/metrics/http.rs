//! HTTP and TLS.

use std::time::Duration;

use super::family::{Counter, CounterFamily, Gauge, GaugeFamily, HistogramFamily};
use super::label::{Handshake, Label, Labels as _, Listener, TlsSuite};
use super::registry::Registry;
use crate::api::{Route, Rule};

const SECONDS: [f64; 10] = [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Status of an answer; what the API never answers with is `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status(&'static str);

impl Status {
    const KNOWN: [(u16, &'static str); 18] = [
        (200, "200"),
        (201, "201"),
        (202, "202"),
        (304, "304"),
        (400, "400"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (406, "406"),
        (408, "408"),
        (409, "409"),
        (410, "410"),
        (413, "413"),
        (415, "415"),
        (422, "422"),
        (429, "429"),
        (500, "500"),
        (503, "503"),
    ];

    /// The label of a status.
    pub(super) fn of(status: u16) -> Self {
        Self(Self::KNOWN.iter().find(|(known, _)| *known == status).map_or("other", |(_, text)| text))
    }
}

impl Label for Status {
    const NAME: &'static str = "code";
    fn every() -> Vec<Self> {
        Self::KNOWN.iter().map(|(_, text)| Self(text)).collect()
    }
    fn text(self) -> &'static str {
        self.0
    }
}

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(&'static str);

impl Method {
    /// The label of a route's method.
    pub(super) fn of(route: Route) -> Self {
        Self(route.method_text())
    }
}

impl Label for Method {
    const NAME: &'static str = "method";
    fn every() -> Vec<Self> {
        ["GET", "POST", "other"].map(Self).to_vec()
    }
    fn text(self) -> &'static str {
        self.0
    }
}

/// HTTP.
pub struct HttpMetrics {
    requests: CounterFamily<(Route, Method, Status)>,
    duration: HistogramFamily<Route>,
    inflight: Gauge,
    response_bytes: Counter,
    rate_limited: Counter,
    connections: GaugeFamily<Listener>,
    body_bytes: Gauge,
}

impl HttpMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        // The usual answers of every route; the rest appears when it happens. Few ask for what is between nodes, or for a
        // node's operator.
        let usual = |route: Route| match route.rule() {
            Rule::Operator | Rule::Control => &[200, 403][..],
            _ => &[200, 400, 403, 404, 429, 500],
        };
        let answers = |route| usual(route).iter().map(move |status| (route, Method::of(route), Status::of(*status)));
        let initial = Route::every().into_iter().flat_map(answers).collect();
        Self {
            requests: registry.counters("stele_http_requests_total", "Requests by route, method and status.", initial),
            duration: registry.histograms(
                "stele_http_request_duration_seconds",
                "Time from a request's head to its answer's, long polls included.",
                &SECONDS,
            ),
            inflight: registry.gauges("stele_http_inflight_requests", "Requests in progress."),
            response_bytes: registry.counters("stele_http_response_bytes_total", "Bytes of answers' bodies.", vec![()]),
            rate_limited: registry.counters(
                "stele_http_rate_limited_total",
                "Requests answered with 429, by the listener or by admission.",
                vec![()],
            ),
            connections: registry.gauges("stele_http_connections", "Open connections by listener."),
            body_bytes: registry.gauges("stele_http_request_body_bytes", "Memory that bodies of requests hold."),
        }
    }

    /// A request began.
    pub fn begin(&self) {
        self.inflight.change((), 1);
    }
    /// A request ended. `bytes` is the length of the answer's body, when it is known.
    pub fn end(&self, route: Route, status: u16, bytes: Option<u64>, duration: Duration) {
        self.inflight.change((), -1);
        self.requests.increment((route, Method::of(route), Status::of(status)));
        self.duration.time(route, duration);
        self.response_bytes.add((), bytes.unwrap_or(0));
        if status == 429 {
            self.rate_limited.increment(());
        }
    }
    /// A request was given up by its client before it was answered.
    pub fn abandon(&self) {
        self.inflight.change((), -1);
    }
    /// A connection opened, or closed.
    pub fn connection(&self, listener: Listener, by: i64) {
        self.connections.change(listener, by);
    }
    /// Open connections of a listener.
    pub fn connections(&self, listener: Listener) -> i64 {
        self.connections.value(listener)
    }
    /// Memory was taken for a body, or given back.
    pub fn body_bytes(&self, by: i64) {
        self.body_bytes.change((), by);
    }
    /// Memory that bodies of requests hold.
    pub fn body_bytes_held(&self) -> i64 {
        self.body_bytes.value(())
    }
    /// Requests in progress.
    pub fn inflight(&self) -> i64 {
        self.inflight.value(())
    }
}

/// TLS.
pub struct TlsMetrics {
    handshakes: CounterFamily<(Handshake, TlsSuite)>,
    certificate_expiry: Gauge,
}

impl TlsMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            handshakes: registry.counters(
                "stele_tls_handshakes_total",
                "TLS handshakes by result and suite.",
                <(Handshake, TlsSuite)>::all(),
            ),
            certificate_expiry: registry.gauges(
                "stele_tls_certificate_expiry_timestamp_seconds",
                "When the node's own certificate expires, seconds since 1970.",
            ),
        }
    }

    /// A handshake ended.
    pub fn handshake(&self, result: Handshake, suite: TlsSuite) {
        self.handshakes.increment((result, suite));
    }
    /// How many handshakes ended so.
    pub fn handshakes(&self, result: Handshake) -> u64 {
        TlsSuite::every().into_iter().map(|suite| self.handshakes.value((result, suite))).sum()
    }
    /// When the node's certificate expires.
    pub fn certificate_expiry(&self, unix_seconds: i64) {
        self.certificate_expiry.set_signed((), unix_seconds);
    }
}
