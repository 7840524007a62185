//! A request, from its bytes to an authenticated client.
//!
//! Rules (tables A and B):
//! 1. Each step needs the value that only the step before can make: [`Form::read`], [`Form::grant`] or
//!    [`Form::device_authorization`], then `authenticate`, which alone yields a [`Poll`] or an [`Issuing`].
//! 2. Each step borrows the form: nothing is copied, and an async handler may hold every step across an await.
//! 3. Within a step the rows are checked in their order.
//! 4. Every way of failing to be a client is one response, byte for byte.

use alloc::borrow::Cow;

use time::OffsetDateTime;

use super::issue::Issuing;
use super::policy::Policy;
use super::poll::Poll;
use super::quota::Quota;
use super::registration::{Authentication, Registration, SecretPlacement};
use super::reply::{Cause, Reply};
use crate::code::DeviceCode;
use crate::digest::{QuotaKey, SecretDigest, SessionKey};
use crate::wire::credentials::{Basic, is_vschar};
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
enum Header<'a> {
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
    policy: &'a Policy,
    body: &'a [u8],
    authorization: Header<'a>,
    grant_type: Option<Raw<'a>>,
    device_code: Option<Raw<'a>>,
    client_id: Option<Raw<'a>>,
    client_secret: Option<Raw<'a>>,
    client_assertion: Option<Raw<'a>>,
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
        let credentials = self.credentials()?;
        let device_code =
            present(self.device_code).ok_or(Reply::fixed(Cause::DeviceCodeMissing))?;
        Ok(Grant::DeviceCode(DeviceCodeRequest {
            form: self,
            credentials,
            device_code,
        }))
    }

    /// A request at the device authorization endpoint (A10 to A15).
    ///
    /// # Errors
    ///
    /// The reply to send: `invalid_request`, or `invalid_client` for an unusable `Authorization` header.
    pub fn device_authorization(&self) -> Result<DeviceAuthorizationRequest<'_>, Reply> {
        Ok(DeviceAuthorizationRequest {
            form: self,
            credentials: self.credentials()?,
        })
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

    fn credentials(&self) -> Result<Credentials<'_>, Reply> {
        let secret = present(self.client_secret);
        let assertion = present(self.client_assertion);
        let basic = match self.authorization {
            Header::Absent => Ok(None),
            Header::Once(value) => Basic::read(value).map(Some).ok_or(()),
            Header::Repeated => Err(()),
        };
        let with_secret = matches!(&basic, Ok(Some(basic)) if !basic.secret.is_empty());
        // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
        let methods = [with_secret, secret.is_some(), assertion.is_some()];
        if methods.into_iter().filter(|used| *used).count() > 1 {
            return Err(Reply::fixed(Cause::SeveralCredentials));
        }
        let Ok(basic) = basic else {
            return Err(Reply::unauthorized(Cause::Authorization, self.policy));
        };
        let body_id = present(self.client_id);
        match (&basic, body_id) {
            (Some(basic), Some(id)) if !id.is(&basic.id) => {
                return Err(Reply::fixed(Cause::ClientIdsDiffer));
            }
            (None, None) if assertion.is_none() => {
                return Err(Reply::fixed(Cause::ClientIdMissing));
            }
            (_, _) => {}
        }
        let body_id = body_id.map(printable).transpose().map_err(Reply::fixed)?;
        let body_secret = secret.map(printable).transpose().map_err(Reply::fixed)?;
        let (basic_id, basic_secret) = match basic {
            Some(Basic { id, secret }) => (Some(id), Some(secret).filter(|text| !text.is_empty())),
            None => (None, None),
        };
        let proof = match (basic_secret, body_secret, assertion) {
            (Some(secret), _, _) => Proof::Secret(Cow::Owned(secret), Place::Basic),
            (None, Some(secret), _) => Proof::Secret(secret, Place::Body),
            (None, None, Some(_)) => Proof::Assertion,
            (None, None, None) => Proof::None,
        };
        let client_id = basic_id.map(Cow::Owned).or(body_id);
        // "client_id" may be empty in a Basic header alone.
        if client_id.as_deref().is_some_and(str::is_empty) {
            return Err(Reply::fixed(Cause::ClientIdMissing));
        }
        Ok(Credentials { client_id, proof })
    }
}

impl core::fmt::Debug for Form<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Form({} bytes, redacted)", self.body.len())
    }
}

/// "Parameters sent without a value MUST be treated as if they were omitted from the request." (RFC 6749, section 3.2)
fn present(value: Option<Raw<'_>>) -> Option<Raw<'_>> {
    value.filter(|value| !value.0.is_empty())
}

fn printable(raw: Raw<'_>) -> Result<Cow<'_, str>, Cause> {
    let text = raw.text().ok_or(Cause::Encoding)?;
    let legal = text.bytes().all(is_vschar);
    legal.then_some(text).ok_or(Cause::CredentialCharacters)
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
    DeviceCode(DeviceCodeRequest<'f>),
    /// Another one, for the host to dispatch; [`Form::unsupported_grant`] where it has none.
    Other(&'f Form<'f>),
}

/// What a client presented: who it claims to be, and its proof.
struct Credentials<'f> {
    client_id: Option<Cow<'f, str>>,
    proof: Proof<'f>,
}

enum Proof<'f> {
    None,
    Secret(Cow<'f, str>, Place),
    Assertion,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Basic,
    Body,
}

/// What a client presented to prove who it is, for a host that verifies it by itself.
///
/// # Security
///
/// The secret is in clear. `Debug` does not show it.
#[expect(
    clippy::exhaustive_enums,
    reason = "a host that verifies must look at each"
)]
pub enum Presented<'f> {
    /// Nothing in the request; a certificate may have been presented to the host.
    Nothing,
    /// A secret.
    Secret(&'f str),
    /// An assertion, with its type (RFC 7521, section 4.2).
    Assertion {
        /// `client_assertion`.
        assertion: Cow<'f, str>,
        /// `client_assertion_type`.
        assertion_type: Option<Cow<'f, str>>,
    },
}

impl core::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Secret(_) => "Secret(redacted)",
            Self::Assertion { .. } => "Assertion(redacted)",
        })
    }
}

/// What the host found when it verified a client by itself. There is no default.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a verdict is one or the other")]
pub enum HostVerdict<'r> {
    /// It is this client.
    Authenticated(&'r Registration),
    /// It is not who it claims to be, or nobody knows it.
    Refused,
}

impl Credentials<'_> {
    fn presented<'s>(&'s self, form: &'s Form<'_>) -> Presented<'s> {
        match &self.proof {
            Proof::None => Presented::Nothing,
            Proof::Secret(secret, _) => Presented::Secret(secret),
            Proof::Assertion => Presented::Assertion {
                assertion: form.parameter("client_assertion").unwrap_or_default(),
                assertion_type: form.parameter("client_assertion_type"),
            },
        }
    }

    fn secret_quota_key(&self, source: &str) -> Option<QuotaKey> {
        match &self.proof {
            Proof::Secret(..) => {
                let client_id = self.client_id.as_deref().unwrap_or_default();
                Some(QuotaKey::secrets(client_id, source))
            }
            Proof::None | Proof::Assertion => None,
        }
    }

    /// B2 to B7 and B9, with the comparison of a secret by the core.
    fn check(&self, registration: Option<&Registration>) -> Result<(), Cause> {
        let known = registration.filter(|known| self.names(known));
        let is_right = match &self.proof {
            Proof::Secret(secret, _) => matches(secret, known),
            Proof::None | Proof::Assertion => false,
        };
        let known = known.ok_or(Cause::UnknownClient)?;
        match (known.authentication(), &self.proof) {
            (Authentication::Public, Proof::None) => admit(known),
            (Authentication::Public, Proof::Secret(..)) => Err(Cause::UnexpectedSecret),
            (Authentication::Secret { placement, .. }, Proof::Secret(_, place)) => {
                if !placement.allows(*place) {
                    Err(Cause::MethodExcluded)
                } else if is_right {
                    admit(known)
                } else {
                    Err(Cause::WrongSecret)
                }
            }
            (
                Authentication::Secret { .. }
                | Authentication::HostSecret(_)
                | Authentication::Assertion
                | Authentication::MutualTls,
                Proof::None,
            ) => Err(Cause::CredentialMissing),
            // An assertion for a client without one, or a proof that only the host can verify.
            (_, Proof::Secret(..) | Proof::Assertion) => Err(Cause::MethodExcluded),
        }
    }

    /// B2 to B7 and B9, with the host's verdict.
    fn check_verdict(&self, verdict: HostVerdict<'_>) -> Result<(), Cause> {
        let HostVerdict::Authenticated(known) = verdict else {
            return Err(Cause::HostRefused);
        };
        if self.client_id.is_some() && !self.names(known) {
            return Err(Cause::HostRefused);
        }
        match (known.authentication(), &self.proof) {
            (Authentication::HostSecret(placement), Proof::Secret(_, place))
                if placement.allows(*place) =>
            {
                admit(known)
            }
            (Authentication::Assertion, Proof::Assertion)
            | (Authentication::MutualTls, Proof::None) => admit(known),
            (Authentication::HostSecret(_) | Authentication::Assertion, Proof::None) => {
                Err(Cause::CredentialMissing)
            }
            // A client that the core verifies, or another proof than the registered one.
            (_, Proof::None | Proof::Secret(..) | Proof::Assertion) => Err(Cause::MethodExcluded),
        }
    }

    fn names(&self, registration: &Registration) -> bool {
        self.client_id.as_deref() == Some(registration.client_id())
    }
}

impl SecretPlacement {
    /// B6: Basic always, the body unless registered otherwise.
    fn allows(self, place: Place) -> bool {
        match self {
            Self::Anywhere => true,
            Self::BasicOnly => place == Place::Basic,
        }
    }
}

/// B7 and B9.
fn admit(known: &Registration) -> Result<(), Cause> {
    if known.is_disabled() {
        return Err(Cause::ClientDisabled);
    }
    if !known.may_use_device_grant() {
        return Err(Cause::GrantNotAllowed);
    }
    Ok(())
}

/// Compares a secret with both digests of a client, or with two of nobody's where there are fewer: an unknown client takes
/// as long as a wrong secret.
fn matches(secret: &str, known: Option<&Registration>) -> bool {
    let nobodys = SecretDigest::from_bytes([0; 32]);
    let digests = match known.map(Registration::authentication) {
        Some(Authentication::Secret { digests, .. }) => *digests,
        Some(
            Authentication::Public
            | Authentication::HostSecret(_)
            | Authentication::Assertion
            | Authentication::MutualTls,
        )
        | None => [None, None],
    };
    let presented = SecretDigest::of(secret);
    let [first, second] = digests.map(|own| own.unwrap_or(nobodys));
    (presented.ct_eq(&first) | presented.ct_eq(&second)).into()
}

/// The reply to a client that was refused.
fn refused(cause: Cause, policy: &Policy) -> Reply {
    if cause == Cause::GrantNotAllowed {
        return Reply::fixed(cause);
    }
    Reply::unauthorized(cause, policy)
}

/// A request that waits for its client: what both endpoints have in common.
macro_rules! request {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* } => $next:ident, $make:expr) => {
        $(#[$doc])*
        #[must_use]
        pub struct $name<'f> {
            form: &'f Form<'f>,
            credentials: Credentials<'f>,
            $($field: $type,)*
        }

        impl<'f> $name<'f> {
            /// The client that this claims to be, to look up its registration. None where an assertion alone names it.
            #[must_use]
            pub fn client_id(&self) -> Option<&str> {
                self.credentials.client_id.as_deref()
            }

            /// What the client presented, for a host that verifies it by itself.
            #[must_use]
            pub fn presented(&self) -> Presented<'_> {
                self.credentials.presented(self.form)
            }

            /// The key of the quota of wrong secrets, by this client and this source; none where no secret was presented.
            #[must_use]
            pub fn secret_quota_key(&self, source: &str) -> Option<QuotaKey> {
                self.credentials.secret_quota_key(source)
            }

            /// Refuses the request where the quota of wrong secrets is spent (B1). Call it before `authenticate`; take from
            /// the quota, by [`Policy::secret_limit`], after a reply whose cause is [`Cause::WrongSecret`] or
            /// [`Cause::UnknownClient`].
            ///
            /// # Errors
            ///
            /// The reply to send: 429.
            pub fn check_secret_quota(
                &self,
                stored: Option<Quota>,
                now: OffsetDateTime,
            ) -> Result<(), Reply> {
                let limit = self.form.policy.secret_limit();
                limit.check(stored, now).map_err(Reply::secret_quota_spent)
            }

            /// Authenticates the client by its registration as it is now; none for a client that nobody knows (B2 to B7, B9).
            ///
            /// # Errors
            ///
            /// The reply to send: `invalid_client`, or `unauthorized_client` where the device grant is not allowed.
            pub fn authenticate(
                self,
                registration: Option<&'f Registration>,
            ) -> Result<$next<'f>, Reply> {
                let checked = self.credentials.check(registration);
                self.admitted(checked, registration)
            }

            /// Takes the verdict of a host that verified the client by itself, with argon2, an assertion or a certificate.
            ///
            /// # Errors
            ///
            /// As for `authenticate`; also where the client is registered for another method than it used.
            pub fn authenticate_by(self, verdict: HostVerdict<'f>) -> Result<$next<'f>, Reply> {
                let checked = self.credentials.check_verdict(verdict);
                let registration = match verdict {
                    HostVerdict::Authenticated(registration) => Some(registration),
                    HostVerdict::Refused => None,
                };
                self.admitted(checked, registration)
            }

            fn admitted(
                self,
                checked: Result<(), Cause>,
                registration: Option<&'f Registration>,
            ) -> Result<$next<'f>, Reply> {
                let policy = self.form.policy;
                match (checked, registration) {
                    (Ok(()), Some(client)) => Ok($make(self, client)),
                    (Ok(()), None) => Err(refused(Cause::UnknownClient, policy)),
                    (Err(cause), _) => Err(refused(cause, policy)),
                }
            }
        }

        impl core::fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.form)
            }
        }
    };
}

request! {
    /// A poll whose client is not known yet.
    DeviceCodeRequest { device_code: Raw<'f> } => Poll,
    |request: Self, client| {
        Poll::new(request.form.policy, client, session_key(request.device_code))
    }
}

request! {
    /// A request for codes whose client is not known yet.
    DeviceAuthorizationRequest {} => Issuing,
    |request: Self, client| {
        Issuing::new(request.form.policy, client, present(request.form.scope))
    }
}

/// The key of a device code; none for one of a length that no code has (A17).
fn session_key(device_code: Raw<'_>) -> Option<SessionKey> {
    let of = |code: &[u8]| {
        let possible = code.len() == DeviceCode::LENGTH;
        possible.then(|| SessionKey(crate::digest::Digest::of(code)))
    };
    if device_code.is_plain() {
        return of(device_code.0);
    }
    of(device_code.text()?.as_bytes())
}
