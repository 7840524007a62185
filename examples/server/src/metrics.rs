//! Metrics: the number of requests by endpoint and by the typed cause of the answer.
//!
//! Rule: a label is one of a few names in this code, never text that a peer sent.

use prometheus::{Encoder as _, IntCounterVec, Opts, Registry, TextEncoder};

/// The counters.
pub(crate) struct Metrics {
    registry: Registry,
    replies: IntCounterVec,
}

/// The endpoint of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Endpoint {
    DeviceAuthorization,
    Token,
    Revocation,
    Authorization,
    Userinfo,
    Page,
}

impl Endpoint {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceAuthorization => "device_authorization",
            Self::Token => "token",
            Self::Revocation => "revocation",
            Self::Authorization => "authorization",
            Self::Userinfo => "userinfo",
            Self::Page => "page",
        }
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let replies = IntCounterVec::new(
            Opts::new(
                "device_login_replies_total",
                "Answers by endpoint and cause.",
            ),
            &["endpoint", "cause"],
        )?;
        let registry = Registry::new();
        registry.register(Box::new(replies.clone()))?;
        Ok(Self { registry, replies })
    }

    /// Counts an answer.
    pub(crate) fn count(&self, endpoint: Endpoint, cause: &'static str) {
        let labels = [endpoint.as_str(), cause];
        self.replies.with_label_values(&labels).inc();
    }

    /// Returns the metrics in the text format of Prometheus, with its media type.
    pub(crate) fn text(&self) -> (String, Vec<u8>) {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        if let Err(error) = encoder.encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        (encoder.format_type().to_owned(), text)
    }
}
