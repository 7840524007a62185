//! A request that the client sends.
//!
//! Rules:
//! 1. Always POST, always a form, nothing in the URL.
//! 2. A request is built once and shared, so a poll repeats it without a copy.

use alloc::string::String;
use alloc::sync::Arc;

use crate::wire::debug_shows;

/// A request, to send unchanged. **Do not follow redirects**, because they would take the codes elsewhere.
///
/// With the feature `http` it converts into an `http::Request` with any body that can be made from a `String`.
///
/// # Security
///
/// The body and the headers contain the device code and the client's secret. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Request(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    url: String,
    authorization: Option<String>,
    body: String,
}

impl Request {
    pub(crate) fn new(url: String, authorization: Option<String>, body: String) -> Self {
        Self(Arc::new(Parts {
            url,
            authorization,
            body,
        }))
    }

    /// Returns `POST`.
    pub const fn method(&self) -> &'static str {
        "POST"
    }

    /// Returns the URL to send the request to.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Returns the headers, each as a name in lower case and a value.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let authorization = self.0.authorization.as_deref();
        [
            ("content-type", "application/x-www-form-urlencoded"),
            // GitHub answers with a form unless it is asked for JSON.
            ("accept", "application/json"),
        ]
        .into_iter()
        .chain(authorization.map(|value| ("authorization", value)))
    }

    /// Returns the body, a form.
    pub fn body(&self) -> &str {
        &self.0.body
    }
}

debug_shows!(Request: url());

#[cfg(feature = "http")]
impl<B: From<String>> From<Request> for http::Request<B> {
    fn from(request: Request) -> Self {
        let mut headers = http::HeaderMap::new();
        for (name, value) in request.headers() {
            if let Ok(mut value) = http::HeaderValue::from_str(value) {
                value.set_sensitive(name == "authorization");
                headers.insert(http::HeaderName::from_static(name), value);
            }
        }
        let mut converted = Self::new(String::from(request.body()).into());
        *converted.method_mut() = http::Method::POST;
        // The endpoint was checked: it has only characters that a URI may contain.
        *converted.uri_mut() = request.url().parse().unwrap_or_default();
        *converted.headers_mut() = headers;
        converted
    }
}
