//! A request, from its bytes to a form (table A).
//!
//! Rules:
//! 1. Each step needs the value that only the step before can make: [`Form::read`], [`Form::grant`] or
//!    [`Form::device_authorization`], then [`Request::authenticate`], which alone yields a [`Poll`] or an [`Issuing`].
//! 2. Each step borrows the form: nothing is copied, and an async handler may hold every step across an await.
//! 3. Within a step the rows are checked in their order.

use alloc::borrow::Cow;

use super::authenticate::{Credentials, Request};
use super::issue::Issuing;
use super::policy::Policy;
use super::poll::Poll;
use super::reply::{Cause, Reply};
use crate::code::DeviceCode;
use crate::digest::{Digest, SessionKey};
use crate::wire::form::{Raw, Segments, divide};

/// The grant type of the device grant ([RFC 8628, section 3.4]).
///
/// [RFC 8628, section 3.4]: https://www.rfc-editor.org/rfc/rfc8628#section-3.4
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The same as most clients encode it.
const DEVICE_GRANT_ENCODED: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// The most parameters that a form may have (A3).
const MAX_PARAMETERS: usize = 64;

/// A request as it came in: the method, two headers, the body.
///
/// The query of the URL is not part of it: nothing is ever read from there ([RFC 6749, section 2.3.1]).
///
/// [RFC 6749, section 2.3.1]: https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1
#[derive(Clone, Copy)]
#[must_use]
pub struct Incoming<'a> {
    method: &'a str,
    content_type: Header<'a>,
    authorization: Header<'a>,
    body: &'a [u8],
}

/// A header that may stand once.
#[derive(Clone, Copy)]
pub(super) enum Header<'a> {
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Incoming<'a> {
    /// A request without headers.
    pub const fn new(method: &'a str, body: &'a [u8]) -> Self {
        Self {
            method,
            content_type: Header::Absent,
            authorization: Header::Absent,
            body,
        }
    }

    /// Every value of the header `Content-Type`: an `Option`, an array, what a header map returns.
    pub fn content_type<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.content_type = Header::of(values);
        self
    }

    /// Every value of the header `Authorization`.
    pub fn authorization<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.authorization = Header::of(values);
        self
    }
}

#[cfg(feature = "http")]
impl<'a, B: AsRef<[u8]>> From<&'a http::Request<B>> for Incoming<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        let headers = request.headers();
        Self::new(request.method().as_str(), request.body().as_ref())
            .content_type(headers.get_all(http::header::CONTENT_TYPE))
            .authorization(headers.get_all(http::header::AUTHORIZATION))
    }
}

impl core::fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Incoming({} bytes, redacted)", self.body.len())
    }
}

impl<'a> Header<'a> {
    fn of<V: AsRef<[u8]> + ?Sized + 'a>(values: impl IntoIterator<Item = &'a V>) -> Self {
        let mut values = values.into_iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => Self::Once(value.as_ref()),
            (Some(_), Some(_)) => Self::Repeated,
        }
    }
}

/// A form that was read: well-formed, within the limits, no parameter twice.
///
/// A parameter without a value counts as absent ([RFC 6749, section 3.2]).
///
/// [RFC 6749, section 3.2]: https://www.rfc-editor.org/rfc/rfc6749#section-3.2
#[must_use]
pub struct Form<'a> {
    pub(super) policy: &'a Policy,
    body: &'a [u8],
    pub(super) authorization: Header<'a>,
    grant_type: Option<Raw<'a>>,
    device_code: Option<Raw<'a>>,
    pub(super) client_id: Option<Raw<'a>>,
    pub(super) client_secret: Option<Raw<'a>>,
    pub(super) client_assertion: Option<Raw<'a>>,
    scope: Option<Raw<'a>>,
}

impl<'a> Form<'a> {
    /// Reads a request at either endpoint (A1 to A7).
    ///
    /// # Errors
    ///
    /// The reply to send: 405 for another method, `invalid_request` for all else.
    pub fn read(incoming: Incoming<'a>, policy: &'a Policy) -> Result<Self, Reply> {
        // "The client MUST use the HTTP "POST" method when making access token requests." (RFC 6749, section 3.2)
        if incoming.method != "POST" {
            return Err(Reply::fixed(Cause::MethodNotAllowed));
        }
        if !is_form(incoming.content_type) {
            return Err(Reply::fixed(Cause::MediaType));
        }
        if incoming.body.len() > policy.max_body {
            return Err(Reply::fixed(Cause::BodyTooLarge));
        }
        let mut form = Self {
            policy,
            body: incoming.body,
            authorization: incoming.authorization,
            grant_type: None,
            device_code: None,
            client_id: None,
            client_secret: None,
            client_assertion: None,
            scope: None,
        };
        form.divide().map_err(Reply::fixed)?;
        Ok(form)
    }

    fn divide(&mut self) -> Result<(), Cause> {
        let mut segments = Segments::of(self.body);
        let mut count = 0_usize;
        let mut repeated = false;
        while let Some(segment) = segments.next_segment() {
            if count == MAX_PARAMETERS {
                return Err(Cause::TooManyParameters);
            }
            let (name, value) = divide(segment);
            let is_known = value.0 == DEVICE_GRANT_ENCODED.as_bytes();
            if !is_known && !value.is_sound() {
                return Err(Cause::Encoding);
            }
            // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
            repeated |= match self.slot(name.0) {
                Some(slot) => slot.replace(value).is_some(),
                None => self.is_repeated(name, value, count)?,
            };
            count = count.saturating_add(1);
        }
        if repeated {
            return Err(Cause::RepeatedParameter);
        }
        Ok(())
    }

    /// The place of a parameter that the core reads.
    #[inline]
    fn slot(&mut self, name: &[u8]) -> Option<&mut Option<Raw<'a>>> {
        match name {
            b"grant_type" => Some(&mut self.grant_type),
            b"device_code" => Some(&mut self.device_code),
            b"client_id" => Some(&mut self.client_id),
            b"client_secret" => Some(&mut self.client_secret),
            b"client_assertion" => Some(&mut self.client_assertion),
            b"scope" => Some(&mut self.scope),
            _ => None,
        }
    }

    /// Files a parameter whose raw name is none of ours, and tells whether it stood before.
    #[cold]
    fn is_repeated(&mut self, name: Raw<'a>, value: Raw<'a>, count: usize) -> Result<bool, Cause> {
        // These may repeat: RFC 8707, section 2, and RFC 8693, section 2.1.
        const REPEATABLE: [&str; 2] = ["resource", "audience"];
        const OURS: [&str; 6] = [
            "grant_type",
            "device_code",
            "client_id",
            "client_secret",
            "client_assertion",
            "scope",
        ];
        if !name.is_sound() {
            return Err(Cause::Encoding);
        }
        // A name of ours may come with escapes.
        let ours = OURS.into_iter().find(|own| name.is(own));
        if let Some(slot) = ours.and_then(|own| self.slot(own.as_bytes())) {
            return Ok(slot.replace(value).is_some());
        }
        if REPEATABLE.into_iter().any(|own| name.is(own)) {
            return Ok(false);
        }
        let mut before = Segments::of(self.body).take(count);
        Ok(before.any(|(earlier, _)| earlier.same(name)))
    }

    /// Which grant a request at the token endpoint asks for (A8, A9).
    ///
    /// # Errors
    ///
    /// The reply to send, `invalid_request`, where it names none.
    pub fn grant(&self) -> Result<Grant<'_>, Reply> {
        let grant_type = present(self.grant_type).ok_or(Reply::fixed(Cause::GrantTypeMissing))?;
        let is_device_grant = grant_type.0 == DEVICE_GRANT_ENCODED.as_bytes()
            || grant_type.0 == DEVICE_GRANT.as_bytes()
            || grant_type.is(DEVICE_GRANT);
        if !is_device_grant {
            return Ok(Grant::Other(self));
        }
        let credentials = Credentials::read(self)?;
        present(self.device_code).ok_or(Reply::fixed(Cause::DeviceCodeMissing))?;
        Ok(Grant::DeviceCode(Request::new(
            self,
            credentials,
            |form, client| {
                let key = present(form.device_code).and_then(session_key);
                Poll::new(form.policy, client, key)
            },
        )))
    }

    /// A request at the device authorization endpoint (A10 to A15).
    ///
    /// # Errors
    ///
    /// The reply to send: `invalid_request`, or `invalid_client` for an unusable `Authorization` header.
    pub fn device_authorization(&self) -> Result<Request<'_, Issuing<'_>>, Reply> {
        Ok(Request::new(
            self,
            Credentials::read(self)?,
            |form, client| Issuing::new(form.policy, client, present(form.scope)),
        ))
    }

    /// The reply to a grant that the host does not serve either: `unsupported_grant_type` (A9).
    pub const fn unsupported_grant(&self) -> Reply {
        Reply::fixed(Cause::GrantTypeUnsupported)
    }

    /// The value of a parameter; none where it is absent or empty. The first of those that may repeat.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.parameters(name).next()
    }

    /// The values of a parameter that may repeat, `resource` for example, without empty ones.
    pub fn parameters(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        Segments::of(self.body)
            .filter(move |(own, _)| own.is(name))
            .filter_map(|(_, value)| present(Some(value))?.text())
    }
}

impl core::fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Form({} bytes, redacted)", self.body.len())
    }
}

/// "Parameters sent without a value MUST be treated as if they were omitted from the request." (RFC 6749, section 3.2)
pub(super) fn present(value: Option<Raw<'_>>) -> Option<Raw<'_>> {
    value.filter(|value| !value.0.is_empty())
}

fn is_form(content_type: Header<'_>) -> bool {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    match content_type {
        Header::Absent | Header::Repeated => false,
        Header::Once(value) => {
            let end = memchr::memchr(b';', value).unwrap_or(value.len());
            let essence = value.get(..end).unwrap_or_default().trim_ascii();
            essence.eq_ignore_ascii_case(FORM)
        }
    }
}

/// Which grant a request at the token endpoint asks for.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host must dispatch both")]
pub enum Grant<'f> {
    /// The device grant.
    DeviceCode(Request<'f, Poll<'f>>),
    /// Another one, for the host to dispatch; [`Form::unsupported_grant`] where it has none.
    Other(&'f Form<'f>),
}

/// The key of a device code; none for one of a length that no code has (A17).
fn session_key(device_code: Raw<'_>) -> Option<SessionKey> {
    let of = |code: &[u8]| {
        let possible = code.len() == DeviceCode::LENGTH;
        possible.then(|| SessionKey(Digest::of(code)))
    };
    if device_code.is_plain() {
        return of(device_code.0);
    }
    of(device_code.text()?.as_bytes())
}
