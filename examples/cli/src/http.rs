//! An HTTP client that keeps the rules of the client half.
//!
//! Rules:
//! 1. No redirect is followed, because it would carry codes and tokens elsewhere.
//! 2. A body is read up to its limit, and a request ends when its time is over.
//! 3. Requests without encryption stay on this machine, so they use no proxy.
//! 4. An error says only of what kind it is. Texts of the server and of the transport are not passed on.

use core::time::Duration;
use std::io::{ErrorKind, Read as _};
use std::sync::Arc;

use device_flow::client::{Request, Response, TransportError};
use rustls::crypto::aws_lc_rs;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error, Proxy};

/// How many bytes of a body are read: the limit of the crate, and one more that shows that the limit is passed.
const MAX_READ: u64 = 1024 * 1024 + 1;

/// The largest head of a response, in bytes. Real heads have a few kilobytes.
const MAX_HEAD: usize = 64 * 1024;

/// A response with all of its body.
pub(crate) type Answer = ::http::Response<Vec<u8>>;

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Http {
    /// For https, through the proxy that the environment names. The proxy sees only a host name and encrypted octets.
    proxied: Agent,
    /// For http, which is used only on this machine.
    direct: Agent,
}

impl Http {
    pub(crate) fn new(timeout: Duration) -> Self {
        // The client trusts the certificates that the machine trusts. It uses `aws-lc-rs`, which also checks the ID token.
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build();
        let agent = |proxy: Option<Proxy>| -> Agent {
            Agent::config_builder()
                .tls_config(tls.clone())
                .proxy(proxy)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .http_status_as_error(false)
                .max_response_header_size(MAX_HEAD)
                .timeout_global(Some(timeout))
                .user_agent(concat!(
                    "device-flow-example-cli/",
                    env!("CARGO_PKG_VERSION")
                ))
                .build()
                .into()
        };
        Self {
            proxied: agent(Proxy::try_from_env()),
            direct: agent(None),
        }
    }

    fn agent(&self, scheme: Option<&str>) -> &Agent {
        if scheme == Some("https") {
            &self.proxied
        } else {
            &self.direct
        }
    }

    fn agent_of(&self, url: &str) -> &Agent {
        self.agent(url.split_once(':').map(|(scheme, _)| scheme))
    }

    /// Sends a request of the client half.
    pub(crate) fn send(&self, request: Request) -> Result<Response<Vec<u8>>, TransportError> {
        let request = ::http::Request::<String>::from(request);
        let agent = self.agent(request.uri().scheme_str());
        finish(agent.run(request)).map(Response::from)
    }

    /// Fetches a document.
    pub(crate) fn get(&self, url: &str) -> Result<Answer, TransportError> {
        let request = self.agent_of(url).get(url);
        finish(request.header("accept", "application/json").call())
    }
}

/// Returns whether the server says that it cannot answer now.
pub(crate) fn is_unavailable(answer: &Answer) -> bool {
    matches!(answer.status().as_u16(), 408 | 429 | 500..=599)
}

fn finish(response: Result<::http::Response<Body>, Error>) -> Result<Answer, TransportError> {
    let (head, body) = response.map_err(|error| failure(&error))?.into_parts();
    let mut octets = Vec::new();
    let read = body.into_reader().take(MAX_READ).read_to_end(&mut octets);
    read.map_err(|error| failure(&Error::from(error)))?;
    Ok(::http::Response::from_parts(head, octets))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else there is or will be, it is temporary"
)]
fn failure(error: &Error) -> TransportError {
    match error {
        Error::Timeout(_) => TransportError::ConnectionTimeout,
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
            TransportError::ConnectionTimeout
        }
        // Trying again does not make a certificate valid.
        Error::Io(error) if is_of_tls(error) => TransportError::Permanent,
        Error::Rustls(_) | Error::Tls(_) => TransportError::Permanent,
        _ => TransportError::Other,
    }
}

fn is_of_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}
