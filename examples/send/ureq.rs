use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use device_flow::client::{MAX_BODY, Request, TransportError};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Error, http};

/// One agent for all requests.
pub fn agent() -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier); // what this machine trusts
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .max_redirects(0) // a redirect would carry the codes elsewhere:
        .max_redirects_will_error(false) // the login sees it, and ends
        .http_status_as_error(false) // an error of OAuth is a response, too
        .timeout_global(Some(Duration::from_secs(30)));
    config.build().into()
}

/// Sends a request: `|request| send(&agent, request)`. `Retry-After` is in the head of the response.
pub fn send(agent: &Agent, request: Request) -> Result<http::Response<Vec<u8>>, TransportError> {
    let request = http::Request::<String>::from(request);
    let response = agent.run(request).map_err(|error| failure(&error))?;
    let (head, body) = response.into_parts();
    let mut octets = Vec::new();
    let mut body = body.into_reader().take(MAX_BODY as u64 + 1); // one more shows that it is too large
    let read = body.read_to_end(&mut octets);
    read.map_err(|error| failure(&Error::from(error)))?;
    Ok(http::Response::from_parts(head, octets))
}

/// Only what does not pass by itself is permanent: a certificate that does not verify, a URL that cannot be used.
fn failure(error: &Error) -> TransportError {
    match error {
        Error::Timeout(_) => TransportError::ConnectionTimeout,
        Error::Io(error) if error.kind() == ErrorKind::TimedOut => {
            TransportError::ConnectionTimeout
        }
        Error::Io(error) if is_of_tls(error) => TransportError::Permanent,
        Error::Rustls(_) | Error::Tls(_) | Error::BadUri(_) => TransportError::Permanent,
        _ => TransportError::Other,
    }
}

fn is_of_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref();
    inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}
