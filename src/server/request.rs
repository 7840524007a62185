//! A request, from its bytes to a form (table A).
//!
//! Rules:
//! 1. Nothing is copied: a form stores where the values are in the body ([`places`](super::places)).
//! 2. The rows are checked in the order of the table, with one exception: the size of the body (A3) is checked before its encoding (A2).

use alloc::borrow::Cow;

use super::places::{Place, Places};
use super::policy::Policy;
use super::reply::Cause;
use crate::wire::debug_shows;
use crate::wire::form::{Raw, Segments};
use crate::wire::metadata::DEVICE_CODE_GRANT;

/// A request as it came in: the method, two headers, the body.
///
/// With the feature `http`, `Request::from(&request)` makes it from an `http::Request`. Collect the body first, up to one byte more than
/// [`PolicyOptions::max_body`](super::PolicyOptions::max_body). Route every method here, not only POST: the core answers others with 405.
///
/// The query of the URL is not part of it, because parameters are never read from there
/// ([RFC 6749, section 2.3.1](https://www.rfc-editor.org/rfc/rfc6749#section-2.3.1)).
#[derive(Clone, Copy)]
#[must_use]
pub struct Request<'a> {
    method: &'a str,
    content_type: Option<&'a [u8]>,
    authorization: Option<&'a [u8]>,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// An empty request, for the actions of the page.
    pub(super) const NONE: Self = Self::new("", &[]);

    /// Makes a request without headers. `method` is in upper case, as HTTP sends it.
    pub const fn new(method: &'a str, body: &'a [u8]) -> Self {
        Self {
            method,
            content_type: None,
            authorization: None,
            body,
        }
    }

    /// Sets the header `Content-Type`. Pass every value that it came with: an `Option`, an array, or what a header map returns.
    pub fn content_type<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.content_type = single(values);
        self
    }

    /// Sets the header `Authorization`. Pass every value that it came with.
    pub fn authorization<V>(mut self, values: impl IntoIterator<Item = &'a V>) -> Self
    where
        V: AsRef<[u8]> + ?Sized + 'a,
    {
        self.authorization = single(values);
        self
    }
}

/// The value of a header that may be sent once. A repeated header is treated as an empty one, which is invalid.
fn single<'a, V>(values: impl IntoIterator<Item = &'a V>) -> Option<&'a [u8]>
where
    V: AsRef<[u8]> + ?Sized + 'a,
{
    let mut values = values.into_iter();
    let first = values.next()?;
    Some(values.next().map_or(first.as_ref(), |_| &[]))
}

#[cfg(feature = "http")]
impl<'a, B: AsRef<[u8]>> From<&'a http::Request<B>> for Request<'a> {
    fn from(request: &'a http::Request<B>) -> Self {
        let headers = request.headers();
        Self::new(request.method().as_str(), request.body().as_ref())
            .content_type(headers.get_all(http::header::CONTENT_TYPE))
            .authorization(headers.get_all(http::header::AUTHORIZATION))
    }
}

debug_shows!(Request<'_>);

/// A request and the places of its parameters. It is filled in place, because a processor stalls when it reads a form that was just moved.
#[derive(Clone, Copy)]
pub(super) struct Form<'a> {
    request: Request<'a>,
    places: Places,
}

impl<'a> Form<'a> {
    /// The form of a request that was not read yet.
    pub(super) const fn new(request: Request<'a>) -> Self {
        Self {
            request,
            places: Places::NOWHERE,
        }
    }

    /// Reads the request (A1 to A7).
    #[inline(always)]
    pub(super) fn read(&mut self, policy: &Policy) -> Result<(), Cause> {
        let request = &self.request;
        // "The client MUST use the HTTP "POST" method when making access token requests." (RFC 6749, section 3.2)
        if request.method != "POST" {
            return Err(Cause::MethodNotAllowed);
        }
        if !request.content_type.is_some_and(is_form) {
            return Err(Cause::MediaType);
        }
        if request.body.len() > policy.options.max_body {
            return Err(Cause::BodyTooLarge);
        }
        self.places = Places::read(request.body)?;
        Ok(())
    }

    pub(super) const fn authorization(&self) -> Option<&'a [u8]> {
        self.request.authorization
    }

    /// The value at this place, if it is not empty. "Parameters sent without a value MUST be treated as if they were omitted from the
    /// request." (RFC 6749, section 3.2)
    #[inline(always)]
    fn value(&self, place: Place) -> Option<Raw<'a>> {
        let value = self.request.body.get(place.range())?;
        (!value.is_empty()).then_some(Raw(value))
    }

    /// Whether every value that the core reads is plain. The grant type may be encoded as most clients do.
    pub(super) const fn is_plain(&self) -> bool {
        self.places.escaped == 0
    }

    pub(super) fn client_id(&self) -> Option<Raw<'a>> {
        self.value(self.places.client_id)
    }

    pub(super) fn client_secret(&self) -> Option<Raw<'a>> {
        self.value(self.places.client_secret)
    }

    pub(super) fn client_assertion(&self) -> Option<Raw<'a>> {
        self.value(self.places.client_assertion)
    }

    pub(super) fn device_code(&self) -> Option<Raw<'a>> {
        self.value(self.places.device_code)
    }

    pub(super) fn refresh_token(&self) -> Option<Cow<'a, str>> {
        self.value(self.places.refresh_token)?.text()
    }

    pub(super) fn scope(&self) -> Option<Raw<'a>> {
        self.value(self.places.scope)
    }

    /// Which grant a request at the token endpoint asks for (A8, A9).
    #[inline(always)]
    pub(super) fn grant_type(&self) -> Result<GrantType, Cause> {
        let grant_type = self.value(self.places.grant_type);
        let grant_type = grant_type.ok_or(Cause::GrantTypeMissing)?;
        if self.places.has_usual_grant > 0 || grant_type.is(DEVICE_CODE_GRANT) {
            Ok(GrantType::DeviceCode)
        } else if grant_type.is(REFRESH_GRANT) {
            Ok(GrantType::RefreshToken)
        } else {
            Err(Cause::GrantTypeUnsupported)
        }
    }

    /// The value of a parameter, or the first value if it is repeated. `None` if it is absent or empty.
    pub(super) fn parameter(&self, name: &str) -> Option<Cow<'a, str>> {
        self.parameters(name).next()
    }

    /// The values of a parameter that may repeat, without empty ones.
    pub(super) fn parameters(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        Segments::of(self.request.body)
            .filter(move |(own, value)| own.is(name) && !value.0.is_empty())
            .filter_map(|(_, value)| value.text())
    }
}

/// A grant that the core serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GrantType {
    DeviceCode,
    RefreshToken,
}

/// The grant type of a refresh ([RFC 6749, section 6](https://www.rfc-editor.org/rfc/rfc6749#section-6)).
const REFRESH_GRANT: &str = "refresh_token";

/// Whether the media type is that of a form, whatever its case and its parameters (A2).
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
