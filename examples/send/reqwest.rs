use std::error::Error;
use std::time::Duration;

use device_flow::client::{MAX_BODY, Request, TransportError};
use reqwest::{Client, redirect};

/// One client for all requests.
pub fn client() -> reqwest::Result<Client> {
    let client = Client::builder()
        .redirect(redirect::Policy::none()) // a redirect would carry the codes elsewhere
        .timeout(Duration::from_secs(30));
    client.build()
}

/// Sends a request: `|request| send(client.clone(), request)`. `Retry-After` is in the head of the response.
pub async fn send(
    client: Client,
    request: Request,
) -> Result<http::Response<Vec<u8>>, TransportError> {
    let request = http::Request::<String>::from(request);
    let request = reqwest::Request::try_from(request).map_err(|error| failure(&error))?;
    let sent = client.execute(request).await;
    let mut response = sent.map_err(|error| failure(&error))?;
    let mut received = http::Response::new(Vec::new());
    *received.status_mut() = response.status();
    *received.headers_mut() = response.headers().clone();
    while let Some(chunk) = response.chunk().await.map_err(|error| failure(&error))? {
        received.body_mut().extend_from_slice(&chunk);
        if received.body().len() > MAX_BODY {
            break; // the login sees that it is too large
        }
    }
    Ok(received)
}

/// Only what does not pass by itself is permanent: a certificate that does not verify, a URL that cannot be used.
fn failure(error: &reqwest::Error) -> TransportError {
    if error.is_timeout() {
        TransportError::ConnectionTimeout
    } else if error.is_builder() || is_of_tls(error) {
        TransportError::Permanent
    } else {
        TransportError::Other
    }
}

fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let inside = io.and_then(|error| error.get_ref());
    error.is::<rustls::Error>()
        || inside.is_some_and(|error| is_of_tls(error))
        || error.source().is_some_and(is_of_tls)
}
