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
    content_type: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// A request without headers.
    pub const fn new(method: &'a str, body: &'a [u8]) -> Self {
        Self {
            method,
            content_type: None,
            authorization: None,
            body,
        }
    }

    /// Every value of the header `Content-Type`: an `Option`, an array, what a header map returns.
    pub fn content_type<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.content_type = single(values);
        self
    }

    /// Every value of the header `Authorization`.
    pub fn authorization<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.authorization = single(values);
        self
    }
}

/// The value of a header that may stand once. One that stands twice is as unusable as an empty one, and becomes that.
fn single<'a, V>(values: impl IntoIterator<Item = &'a V>) -> Option<&'a [u8]>
where
    V: AsRef<[u8]> + ?Sized + 'a,
{
    let mut values = values.into_iter();
    let first = values.next()?;
    Some(values.next().map_or(first.as_ref(), |_| &[]))
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

/// A form that was read: well-formed, within the limits, no parameter twice.
///
/// A parameter without a value counts as absent ([RFC 6749, section 3.2]).
///
/// [RFC 6749, section 3.2]: https://www.rfc-editor.org/rfc/rfc6749#section-3.2
#[must_use]
pub struct Form<'a> {
    body: &'a [u8],
    pub(super) policy: &'a Policy,
    pub(super) authorization: Option<&'a [u8]>,
    grant_type: Place,
    device_code: Place,
    client_id: Place,
    client_secret: Place,
    client_assertion: Place,
    scope: Place,
    /// Whether each of these values, a usual grant type aside, stands for itself.
    is_plain: bool,
}

/// Where in the body a value stands: from and to. A parameter that never came stands nowhere.
///
/// Two numbers instead of a slice: a form that fits a cache line can be returned and passed on without stalls.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(u16, u16);

impl Place {
    const NOWHERE: Self = Self(u16::MAX, u16::MAX);
}

impl<'a> Form<'a> {
    /// Reads a request at either endpoint (A1 to A7).
    ///
    /// # Errors
    ///
    /// The reply to send: 405 for another method, `invalid_request` for all else.
    #[inline(always)]
    pub fn read(incoming: Incoming<'a>, policy: &'a Policy) -> Result<Self, Reply> {
        // "The client MUST use the HTTP "POST" method when making access token requests." (RFC 6749, section 3.2)
        if incoming.method != "POST" {
            return Err(Reply::fixed(Cause::MethodNotAllowed));
        }
        if !incoming.content_type.is_some_and(is_form) {
            return Err(Reply::fixed(Cause::MediaType));
        }
        if incoming.body.len() > policy.max_body {
            return Err(Reply::fixed(Cause::BodyTooLarge));
        }
        let mut form = Self {
            policy,
            body: incoming.body,
            authorization: incoming.authorization,
            grant_type: Place::NOWHERE,
            device_code: Place::NOWHERE,
            client_id: Place::NOWHERE,
            client_secret: Place::NOWHERE,
            client_assertion: Place::NOWHERE,
            scope: Place::NOWHERE,
            is_plain: true,
        };
        match form.divide() {
            Ok(()) => Ok(form),
            Err(cause) => Err(Reply::fixed(cause)),
        }
    }

    #[inline(always)]
    fn divide(&mut self) -> Result<(), Cause> {
        let mut segments = Segments::of(self.body);
        let mut count = 0_usize;
        let mut repeated = false;
        while let Some(segment) = segments.next_segment() {
            if count == MAX_PARAMETERS {
                return Err(Cause::TooManyParameters);
            }
            let to = segments.position();
            // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
            repeated |= match self.slot(segment) {
                Some((slot, value)) => {
                    let is_repeated = slot.fill(to, value);
                    let value = Raw(value);
                    if value.0 != DEVICE_GRANT_ENCODED.as_bytes() && !value.is_plain() {
                        self.is_plain = false;
                        if !value.is_sound() {
                            return Err(Cause::Encoding);
                        }
                    }
                    is_repeated
                }
                None => self.is_repeated(segment, to, count)?,
            };
            count = count.saturating_add(1);
        }
        if repeated {
            return Err(Cause::RepeatedParameter);
        }
        Ok(())
    }

    /// The slot and the value of a parameter that the core reads.
    #[inline(always)]
    fn slot<'s>(&mut self, segment: &'s [u8]) -> Option<(&mut Place, &'s [u8])> {
        if let Some(value) = segment.strip_prefix(b"grant_type=") {
            Some((&mut self.grant_type, value))
        } else if let Some(value) = segment.strip_prefix(b"device_code=") {
            Some((&mut self.device_code, value))
        } else if let Some(value) = segment.strip_prefix(b"client_id=") {
            Some((&mut self.client_id, value))
        } else if let Some(value) = segment.strip_prefix(b"client_secret=") {
            Some((&mut self.client_secret, value))
        } else if let Some(value) = segment.strip_prefix(b"client_assertion=") {
            Some((&mut self.client_assertion, value))
        } else {
            let value = segment.strip_prefix(b"scope=")?;
            Some((&mut self.scope, value))
        }
    }

    /// Files a parameter whose raw name is none of ours, and tells whether it stood before.
    #[cold]
    #[inline(never)]
    fn is_repeated(&mut self, segment: &[u8], to: usize, count: usize) -> Result<bool, Cause> {
        // These may repeat: RFC 8707, section 2, and RFC 8693, section 2.1.
        const REPEATABLE: [&str; 2] = ["resource", "audience"];
        // A name of ours may come with escapes, or without "=".
        const OURS: [&str; 6] = [
            "grant_type=",
            "device_code=",
            "client_id=",
            "client_secret=",
            "client_assertion=",
            "scope=",
        ];
        let (name, value) = divide(segment);
        if !name.is_sound() || !value.is_sound() {
            return Err(Cause::Encoding);
        }
        let ours = OURS
            .into_iter()
            .find(|own| name.is(own.trim_end_matches('=')));
        if let Some((slot, _)) = ours.and_then(|own| self.slot(own.as_bytes())) {
            let is_repeated = slot.fill(to, value.0);
            self.is_plain = false;
            return Ok(is_repeated);
        }
        if REPEATABLE.into_iter().any(|own| name.is(own)) {
            return Ok(false);
        }
        let mut before = Segments::of(self.body).take(count);
        Ok(before.any(|(earlier, _)| earlier.same(name)))
    }

    /// A value that the core reads. "Parameters sent without a value MUST be treated as if they were omitted from the
    /// request." (RFC 6749, section 3.2)
    #[inline(always)]
    fn value(&self, place: Place) -> Option<Raw<'a>> {
        let value = self.body.get(place.0.into()..place.1.into())?;
        (!value.is_empty()).then_some(Raw(value))
    }

    /// Whether id, secret and code stand for themselves, and are visible ASCII or space.
    pub(super) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub(super) fn client_id(&self) -> Option<Raw<'a>> {
        self.value(self.client_id)
    }

    pub(super) fn client_secret(&self) -> Option<Raw<'a>> {
        self.value(self.client_secret)
    }

    pub(super) fn client_assertion(&self) -> Option<Raw<'a>> {
        self.value(self.client_assertion)
    }

    /// Which grant a request at the token endpoint asks for (A8, A9).
    ///
    /// # Errors
    ///
    /// The reply to send, `invalid_request`, where it names none.
    #[inline(always)]
    pub fn grant(&self) -> Result<Grant<'_>, Reply> {
        let grant_type = self
            .value(self.grant_type)
            .ok_or_else(|| Reply::fixed(Cause::GrantTypeMissing))?;
        let is_device_grant = grant_type.0 == DEVICE_GRANT_ENCODED.as_bytes()
            || grant_type.0 == DEVICE_GRANT.as_bytes()
            || grant_type.is(DEVICE_GRANT);
        if !is_device_grant {
            return Ok(Grant::Other(self));
        }
        let credentials = Credentials::read(self)?;
        self.value(self.device_code)
            .ok_or_else(|| Reply::fixed(Cause::DeviceCodeMissing))?;
        Ok(Grant::DeviceCode(Request::new(
            credentials,
            |form, client| {
                let key = form.value(form.device_code).and_then(session_key);
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
        Ok(Request::new(Credentials::read(self)?, |form, client| {
            Issuing::new(form.policy, client, form.value(form.scope))
        }))
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
            .filter(move |(own, value)| own.is(name) && !value.0.is_empty())
            .filter_map(|(_, value)| value.text())
    }
}

impl core::fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Form({} bytes, redacted)", self.body.len())
    }
}

impl Place {
    /// Puts a value that ends at `to` here, and tells whether there was one.
    #[inline(always)]
    fn fill(&mut self, to: usize, value: &[u8]) -> bool {
        let was_filled = *self != Self::NOWHERE;
        let from = to.saturating_sub(value.len());
        // The policy bounds bodies to what these numbers can tell.
        *self = Self(
            u16::try_from(from).unwrap_or(u16::MAX),
            u16::try_from(to).unwrap_or(u16::MAX),
        );
        was_filled
    }
}

/// A2: the media type, its case and its parameters aside.
#[inline(always)]
fn is_form(content_type: &[u8]) -> bool {
    const FORM: &[u8] = b"application/x-www-form-urlencoded";
    if content_type == FORM {
        return true;
    }
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    let essence = content_type.get(..end).unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(FORM)
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
    let of = |code: &[u8]| Some(SessionKey(Digest::of_code(code.try_into().ok()?)));
    if device_code.0.len() == DeviceCode::LENGTH && device_code.is_plain() {
        return of(device_code.0);
    }
    of(device_code.text()?.as_bytes())
}
