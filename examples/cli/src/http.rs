//! HTTP, with the bounds that the client half asks for.
//!
//! Rules:
//! 1. No redirect is followed: it would carry codes and tokens elsewhere.
//! 2. No body is read beyond the limit, no request takes longer than its time.
//! 3. What is not encrypted stays on this machine: no proxy gets it.
//! 4. What went wrong is told by kind: text of the peer or of the transport stays here.

use core::time::Duration;
use std::io::{ErrorKind, Read as _};
use std::sync::Arc;

use device_flow::client::{Request, Response, TransportError};
use rustls::crypto::aws_lc_rs;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Error, Proxy};

/// What is read of a body: the limit of the core for answers and documents, and one byte to see that it is passed.
const MAX_READ: u64 = 1024 * 1024 + 1;

/// Head of a response, in bytes. Real ones have a few kilobytes.
const MAX_HEAD: usize = 64 * 1024;

/// An answer: the head and all of the body.
pub(crate) type Answer = ::http::Response<Vec<u8>>;

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Http {
    /// For https, through the proxy that the environment names: it sees a host name, and octets that it cannot read.
    proxied: Agent,
    /// For http, which is of this machine.
    direct: Agent,
}

impl Http {
    pub(crate) fn new(timeout: Duration) -> Self {
        // The certificates that the machine trusts, checked with the library that checks the ID token too.
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

    /// Sends a request of the flow.
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

/// Whether the server says that it could not answer this time.
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
    reason = "whatever else there is or will be, it may pass"
)]
fn failure(error: &Error) -> TransportError {
    match error {
        Error::Timeout(_) => TransportError::ConnectionTimeout,
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
            TransportError::ConnectionTimeout
        }
        // A certificate does not get better by asking again.
        Error::Io(error) if is_of_tls(error) => TransportError::Permanent,
        Error::Rustls(_) | Error::Tls(_) => TransportError::Permanent,
        _ => TransportError::Other,
    }
}

fn is_of_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}
