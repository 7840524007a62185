//! What a client is set up with: the endpoints, its own name and secret, and its wishes.
//!
//! Rules:
//! 1. A mistake in the set-up is told at the start, before anything is sent.
//! 2. One way of authentication, and no parameter twice.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::request::Request;
use super::start::Starting;
use crate::digest::Digest;
use crate::scope::{Scope, ScopeError};
use crate::wire::credentials;
use crate::wire::form;
use crate::wire::metadata::{self, DEVICE_CODE_GRANT, Metadata, Plain, UrlError};
use crate::wire::octets::are_vschars;

/// The two endpoints of an authorization server that a device talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    device_authorization: String,
    token: String,
}

impl Endpoints {
    /// The endpoints of these URLs: https, or http on this very machine.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Url`] for a URL that must not be used.
    pub fn new(
        device_authorization: impl Into<String>,
        token: impl Into<String>,
    ) -> Result<Self, EndpointError> {
        let (device_authorization, token) = (device_authorization.into(), token.into());
        metadata::endpoint(&device_authorization)?;
        metadata::endpoint(&token)?;
        Ok(Self {
            device_authorization,
            token,
        })
    }

    /// The endpoints of a server that publishes them. Where the document lacks the device authorization endpoint,
    /// [`Metadata::or_device_authorization_endpoint`] fills in one that the caller knows.
    ///
    /// # Errors
    ///
    /// [`EndpointError::Unsupported`] where the document lacks one of them.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, EndpointError> {
        match (
            metadata.device_authorization_endpoint(),
            metadata.token_endpoint(),
        ) {
            (Some(device_authorization), Some(token)) => Self::new(device_authorization, token),
            (None, _) | (_, None) => Err(EndpointError::Unsupported),
        }
    }
}

/// Why there are no endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// A URL that must not be used.
    #[error("an endpoint must not be used")]
    Url(#[from] UrlError),
    /// The server does not say that it supports the device grant.
    #[error("the server does not name the endpoints of the device grant")]
    Unsupported,
}

/// A client of the device grant, ready to start: once, or again whenever the user wants to.
///
/// Mistakes are collected and told by [`start`](Self::start).
#[derive(Clone)]
pub struct DeviceFlow {
    endpoints: Endpoints,
    client_id: String,
    scope: Scope,
    extra: Vec<(String, String)>,
    secret: Option<Secret>,
    pub(crate) wishes: Wishes,
    fault: Option<FlowError>,
}

#[derive(Clone)]
enum Secret {
    Basic(String),
    Post(String),
}

/// What may be done in more than one way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) default_lifetime: Option<Duration>,
    pub(crate) polls_at_once: bool,
    pub(crate) polls_at_the_end: bool,
    pub(crate) plain: Plain,
}

impl DeviceFlow {
    /// A public client of this id, without a scope.
    #[must_use]
    pub fn new(endpoints: Endpoints, client_id: impl Into<String>) -> Self {
        let client_id = client_id.into();
        let fault = (!is_printable(&client_id)).then_some(FlowError::ClientId);
        Self {
            endpoints,
            client_id,
            scope: Scope::empty(),
            extra: Vec::new(),
            secret: None,
            wishes: Wishes {
                default_lifetime: None,
                polls_at_once: false,
                polls_at_the_end: true,
                plain: Plain::Refused,
            },
            fault,
        }
    }

    /// Asks for this scope: tokens separated by single spaces.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        match scope.parse() {
            Ok(scope) => self.scope = scope,
            Err(fault) => self.blame(FlowError::Scope(fault)),
        }
        self
    }

    /// Sends a parameter of the server's own with every request: `audience`, `resource`, Twitch's `scopes`.
    #[must_use]
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        const OURS: [&str; 5] = [
            "client_id",
            "client_secret",
            "scope",
            "grant_type",
            "device_code",
        ];
        let name = name.into();
        if name.is_empty() || OURS.contains(&&*name) {
            self.blame(FlowError::Reserved);
        } else if self.extra.iter().any(|(given, _)| *given == name) {
            self.blame(FlowError::Repeated);
        } else {
            self.extra.push((name, value.into()));
        }
        self
    }

    /// Authenticates in the header, as every server with secrets has to support ([RFC 6749, section 2.3.1]).
    ///
    /// [RFC 6749, section 2.3.1]: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
    #[must_use]
    pub fn secret_basic(self, secret: impl Into<String>) -> Self {
        self.secret(Secret::Basic(secret.into()))
    }

    /// Authenticates in the body, for servers that know nothing else.
    #[must_use]
    pub fn secret_post(self, secret: impl Into<String>) -> Self {
        self.secret(Secret::Post(secret.into()))
    }

    /// Assumes this lifetime where the server tells none, against [RFC 8628, section 3.2]; Salesforce is such a server.
    ///
    /// [RFC 8628, section 3.2]: https://www.rfc-editor.org/rfc/rfc8628#section-3.2
    #[must_use]
    pub const fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.wishes.default_lifetime = Some(lifetime);
        self
    }

    /// Sends the first poll without waiting for one interval. Nobody types a code that fast.
    #[must_use]
    pub const fn first_poll_at_once(mut self) -> Self {
        self.wishes.polls_at_once = true;
        self
    }

    /// Lets the code expire by the caller's clock, without asking the server a last time. That last poll keeps to the interval
    /// and the back-off, so it may go out up to a minute, or twice the interval, after the code has expired.
    #[must_use]
    pub const fn no_final_poll(mut self) -> Self {
        self.wishes.polls_at_the_end = false;
        self
    }

    /// Shows verification URIs with plain http, for a network of one's own. Endpoints stay with https.
    #[must_use]
    pub const fn allow_plain_http(mut self) -> Self {
        self.wishes.plain = Plain::Allowed;
        self
    }

    /// Begins: the device authorization request ([RFC 8628, section 3.1]) and what waits for its answer.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: the first mistake in the set-up.
    ///
    /// [RFC 8628, section 3.1]: https://www.rfc-editor.org/rfc/rfc8628#section-3.1
    pub fn start(&self, now: Duration) -> Result<(Starting, Request), FlowError> {
        self.check()?;
        let mut body = String::new();
        self.push_client(&mut body);
        if !self.scope.is_empty() {
            form::push(&mut body, "scope", self.scope.as_str());
        }
        let request = self.finish(&self.endpoints.device_authorization, body);
        Ok((Starting::new(self.clone(), now), request))
    }

    pub(crate) fn check(&self) -> Result<(), FlowError> {
        self.fault.map_or(Ok(()), Err)
    }

    /// The device access token request ([RFC 8628, section 3.4]).
    ///
    /// [RFC 8628, section 3.4]: https://www.rfc-editor.org/rfc/rfc8628#section-3.4
    pub(crate) fn poll(&self, device_code: &str) -> Request {
        let mut body = String::new();
        form::push(&mut body, "grant_type", DEVICE_CODE_GRANT);
        form::push(&mut body, "device_code", device_code);
        self.push_client(&mut body);
        self.finish(&self.endpoints.token, body)
    }

    pub(crate) fn requested(&self) -> Scope {
        self.scope.clone()
    }

    /// What a snapshot is bound to.
    pub(crate) fn digest(&self) -> Digest {
        let Endpoints {
            device_authorization,
            token,
        } = &self.endpoints;
        Digest::of_parts([
            device_authorization.as_bytes(),
            token.as_bytes(),
            self.client_id.as_bytes(),
        ])
    }

    fn push_client(&self, body: &mut String) {
        match self.secret {
            Some(Secret::Basic(_)) => {}
            Some(Secret::Post(_)) | None => form::push(body, "client_id", &self.client_id),
        }
    }

    fn finish(&self, url: &str, mut body: String) -> Request {
        for (name, value) in &self.extra {
            form::push(&mut body, name, value);
        }
        let authorization = match &self.secret {
            Some(Secret::Basic(secret)) => Some(credentials::basic(&self.client_id, secret)),
            Some(Secret::Post(secret)) => {
                form::push(&mut body, "client_secret", secret);
                None
            }
            None => None,
        };
        Request::new(url.into(), authorization, body)
    }

    fn secret(mut self, secret: Secret) -> Self {
        let (Secret::Basic(text) | Secret::Post(text)) = &secret;
        if !is_printable(text) {
            self.blame(FlowError::Secret);
        }
        // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
        if self.secret.replace(secret).is_some() {
            self.blame(FlowError::Repeated);
        }
        self
    }

    fn blame(&mut self, fault: FlowError) {
        self.fault.get_or_insert(fault);
    }
}

impl fmt::Debug for DeviceFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceFlow")
            .field("endpoints", &self.endpoints)
            .field("client_id", &self.client_id)
            .field("scope", &self.scope)
            .field("wishes", &self.wishes)
            .finish_non_exhaustive()
    }
}

/// `1*VSCHAR`
fn is_printable(text: &str) -> bool {
    !text.is_empty() && are_vschars(text.as_bytes())
}

/// A mistake in how a client was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The id is empty or has a character outside `%x20-7E`.
    #[error("a client id consists of at least one character, all of visible ascii or space")]
    ClientId,
    /// The secret is empty or has a character outside `%x20-7E`.
    #[error("a client secret consists of at least one character, all of visible ascii or space")]
    Secret,
    /// The scope is none.
    #[error("the scope cannot be requested")]
    Scope(#[source] ScopeError),
    /// An extra parameter of the protocol's own name, or without a name.
    #[error("an extra parameter may not have a name of the protocol's, or none")]
    Reserved,
    /// An extra parameter, or a secret, that was given twice.
    #[error("an extra parameter or a secret was given twice")]
    Repeated,
}
