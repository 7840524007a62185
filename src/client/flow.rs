//! The set-up of a client: the endpoints, the client's id and secret, and its options.
//!
//! Rules:
//! 1. A mistake in the set-up is reported before anything is sent.
//! 2. A request authenticates in one way only, and repeats no parameter.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::endpoints::Endpoints;
use super::request::Request;
use crate::digest::Digest;
use crate::scope::{Scope, ScopeError};
use crate::wire::credentials;
use crate::wire::debug_shows;
use crate::wire::form;
use crate::wire::octets::are_vschars;
use crate::wire::uri::PlainHttp;

/// A client of the device grant. Each call of [`login`](Self::login) returns a new login.
///
/// A mistake in the set-up is reported by [`login`](Self::login) and by the other calls that make a request.
#[derive(Clone, Debug)]
#[must_use = "it sends nothing by itself"]
pub struct DeviceFlow(pub(crate) Arc<Setup>);

/// The set-up, shared by the flow and its logins.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) endpoints: Endpoints,
    client_id: String,
    pub(crate) scope: Scope,
    extra: Vec<(String, String)>,
    secret: Option<Secret>,
    pub(crate) default_lifetime: Option<Duration>,
    pub(crate) polls_at_once: bool,
    pub(crate) polls_at_the_end: bool,
    pub(crate) plain: PlainHttp,
    fault: Option<FlowError>,
}

#[derive(Clone)]
enum Secret {
    Basic(String),
    Post(String),
}

impl DeviceFlow {
    /// Returns a public client with this id, without a scope.
    pub fn new(endpoints: Endpoints, client_id: impl Into<String>) -> Self {
        let client_id = client_id.into();
        let fault = (!is_printable(&client_id)).then_some(FlowError::ClientId);
        Self(Arc::new(Setup {
            endpoints,
            client_id,
            scope: Scope::empty(),
            extra: Vec::new(),
            secret: None,
            default_lifetime: None,
            polls_at_once: false,
            polls_at_the_end: true,
            plain: PlainHttp::Refused,
            fault,
        }))
    }

    /// Requests this scope: tokens separated by single spaces.
    pub fn scope(mut self, scope: &str) -> Self {
        match scope.parse() {
            Ok(scope) => self.setup().scope = scope,
            Err(fault) => self.note(FlowError::Scope(fault)),
        }
        self
    }

    /// Sends this extra parameter with every request, for example `audience`, `resource` or Twitch's `scopes`.
    pub fn extra(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        const OURS: [&str; 8] = [
            "client_id",
            "client_secret",
            "scope",
            "grant_type",
            "device_code",
            "refresh_token",
            "token",
            "token_type_hint",
        ];
        let name = name.into();
        if name.is_empty() || OURS.contains(&&*name) {
            self.note(FlowError::Reserved);
        } else if self.0.extra.iter().any(|(given, _)| *given == name) {
            self.note(FlowError::Repeated);
        } else {
            self.setup().extra.push((name, value.into()));
        }
        self
    }

    /// Sends this client secret in the `Basic` header, which every server that issues secrets must support
    /// ([RFC 6749, section 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
    pub fn secret_basic(self, secret: impl Into<String>) -> Self {
        self.secret(Secret::Basic(secret.into()))
    }

    /// Sends this client secret in the body, for servers that do not accept the header.
    pub fn secret_post(self, secret: impl Into<String>) -> Self {
        self.secret(Secret::Post(secret.into()))
    }

    /// Sets the lifetime of the codes for a server that does not announce it, such as Salesforce.
    /// [RFC 8628, section 3.2](https://www.rfc-editor.org/rfc/rfc8628#section-3.2) requires servers to announce it.
    pub fn default_lifetime(mut self, lifetime: Duration) -> Self {
        self.setup().default_lifetime = Some(lifetime);
        self
    }

    /// Sends the first poll at once, not after one interval. This seldom helps, because nobody types a code that fast.
    pub fn first_poll_at_once(mut self) -> Self {
        self.setup().polls_at_once = true;
        self
    }

    /// Ends the login at the deadline by your clock, without a last poll. Without this option, a last poll follows the deadline, so that
    /// the server decides. Because of the interval and the back-off, that poll may be due up to a minute after the deadline, or up to twice
    /// the interval if that is longer. The [`jitter`](super::Login::jitter) is added to this.
    pub fn no_final_poll(mut self) -> Self {
        self.setup().polls_at_the_end = false;
        self
    }

    /// Accepts verification URIs with plain http. Call it only if the server is in a private network. Endpoints must still be https, or
    /// http on loopback.
    pub fn allow_plain_http(mut self) -> Self {
        self.setup().plain = PlainHttp::Allowed;
        self
    }

    pub(crate) fn check(&self) -> Result<(), FlowError> {
        let asserts = self
            .0
            .extra
            .iter()
            .any(|(name, _)| name == "client_assertion");
        match self.0.fault {
            Some(fault) => Err(fault),
            // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
            None if asserts && self.0.secret.is_some() => Err(FlowError::Methods),
            None => Ok(()),
        }
    }

    /// Returns a request with these parameters, except empty ones, and with the extra parameters and the credentials.
    pub(crate) fn request(&self, url: &str, parameters: &[(&str, &str)]) -> Request {
        let mut body = String::new();
        for (name, value) in parameters {
            if !value.is_empty() {
                form::push(&mut body, name, value);
            }
        }
        for (name, value) in &self.0.extra {
            form::push(&mut body, name, value);
        }
        let authorization = match &self.0.secret {
            Some(Secret::Basic(secret)) => Some(credentials::basic(&self.0.client_id, secret)),
            Some(Secret::Post(secret)) => {
                form::push(&mut body, "client_secret", secret);
                None
            }
            None => None,
        };
        Request::new(url.into(), authorization, body)
    }

    /// Returns the client id, or an empty text if the id is sent in the header.
    pub(crate) fn id_in_body(&self) -> &str {
        match self.0.secret {
            Some(Secret::Basic(_)) => "",
            Some(Secret::Post(_)) | None => &self.0.client_id,
        }
    }

    /// Returns a digest of the endpoints and the client id. It ties a snapshot to them.
    pub(crate) fn digest(&self) -> Digest {
        let endpoints = &self.0.endpoints;
        Digest::of_parts([
            endpoints.device_authorization.as_bytes(),
            endpoints.token.as_bytes(),
            self.0.client_id.as_bytes(),
        ])
    }

    fn secret(mut self, secret: Secret) -> Self {
        let (Secret::Basic(text) | Secret::Post(text)) = &secret;
        if !is_printable(text) {
            self.note(FlowError::Secret);
        }
        if self.setup().secret.replace(secret).is_some() {
            self.note(FlowError::Repeated);
        }
        self
    }

    fn setup(&mut self) -> &mut Setup {
        Arc::make_mut(&mut self.0)
    }

    fn note(&mut self, fault: FlowError) {
        self.setup().fault.get_or_insert(fault);
    }
}

debug_shows!(Setup: endpoints, client_id, scope);

/// `1*VSCHAR`
fn is_printable(text: &str) -> bool {
    !text.is_empty() && are_vschars(text.as_bytes())
}

/// A mistake in the set-up of a client, or in an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The id is empty or has a character outside `%x20-7E`.
    #[error(
        "the client id is empty or has a character that is not printable ASCII; check it for line breaks and the like"
    )]
    ClientId,
    /// The secret is empty or has a character outside `%x20-7E`.
    #[error(
        "the client secret is empty or has a character that is not printable ASCII; check it for line breaks and the like"
    )]
    Secret,
    /// The scope is not a list of scope tokens.
    #[error("the scope cannot be requested: {0}")]
    Scope(ScopeError),
    /// A refresh of a part of the scope names no scope token.
    #[error(
        "the scope to refresh is empty; name a scope token, or refresh without a scope to keep all of it"
    )]
    EmptyScope,
    /// An extra parameter has an empty name, or a name that the protocol uses.
    #[error(
        "an extra parameter has an empty name, or the name of a parameter that this crate sends itself; give it another name, or use the method for that parameter"
    )]
    Reserved,
    /// An extra parameter, or a secret, was given twice.
    #[error("an extra parameter or a client secret was given twice; give it once")]
    Repeated,
    /// There are a secret and the extra parameter `client_assertion`.
    #[error("a client secret and a client assertion were both given; give one of them")]
    Methods,
    /// The token to refresh with, or to revoke, is empty.
    #[error("the token is empty; sign in again to get one")]
    Token,
    /// There is no revocation endpoint.
    #[error(
        "the server has no revocation endpoint; if its documentation names one, configure it with `Endpoints::revocation`"
    )]
    RevocationEndpoint,
}
