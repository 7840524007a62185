//! Who the client is (table B).
//!
//! Rules:
//! 1. Every endpoint decides by the registration as it is now, not as it was when the codes were issued.
//! 2. Every failed authentication gets the same response, byte for byte.
//! 3. The core compares generated secrets, in constant time. A host that verifies by itself must name the client that it
//!    verified. No client is accepted by default.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::borrow::Borrow;

use super::client::{Client, ClientAuthMethod};
use super::reply::Cause;
use super::request::Form;
use crate::digest::SecretDigest;
use crate::wire::credentials::Basic;
use crate::wire::debug_shows;
use crate::wire::form::Raw;

/// What a client presented: who it claims to be, and the kind of its proof. A text is copied from the form only if it has escapes.
pub(super) struct Credentials {
    id: Id,
    proof: Proof,
}

/// Where the id of the client is.
enum Id {
    /// In the form without escapes, or absent.
    InForm,
    /// It was in the form with escapes, or the host found it by an assertion.
    Decoded(Box<str>),
    /// In the header, with the secret.
    InHeader(Box<Basic>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    None,
    BasicSecret,
    BodySecret,
    Assertion,
}

/// What the host found for a [`Claim`].
///
/// An `Option` of a registration converts into it: `None` becomes [`Found::Unknown`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a host says one of these")]
pub enum Found<C> {
    /// No client has this id.
    Unknown,
    /// This is its registration. The core compares the secret.
    Registered(C),
    /// This is its registration, and the host itself has verified the client, by argon2, an assertion or a certificate. The
    /// [`ClientAuthMethod`] must be one that the host verifies.
    Verified(C),
    /// The host has verified by itself that the client is not who it claims to be.
    Refused,
}

impl<C: Borrow<Client>> Found<C> {
    /// Borrows the registration, for example from an `Arc<Client>`.
    pub fn as_ref(&self) -> Found<&Client> {
        match self {
            Self::Unknown => Found::Unknown,
            Self::Registered(client) => Found::Registered(client.borrow()),
            Self::Verified(client) => Found::Verified(client.borrow()),
            Self::Refused => Found::Refused,
        }
    }
}

impl<'c> Found<&'c Client> {
    /// Returns the registration, for a step that needs no proof.
    pub(super) const fn registration(self) -> Option<&'c Client> {
        match self {
            Self::Registered(client) | Self::Verified(client) => Some(client),
            Self::Unknown | Self::Refused => None,
        }
    }
}

impl<C> From<Option<C>> for Found<C> {
    fn from(client: Option<C>) -> Self {
        client.map_or(Self::Unknown, Self::Registered)
    }
}

/// What a client claims: its id, and what it presented as proof.
///
/// An exchange shows a proof to the host only once, so a host can refuse an assertion that it has seen before. Two kinds of claim are not
/// from the credentials of a request: the page looks up the client of a session, and a redemption looks up again what the client may ask
/// for. Such a claim has an id but no proof.
///
/// A host that verifies a client itself answers [`Found::Verified`] or [`Found::Refused`] if it has a proof to look at: a secret, an
/// assertion, or the certificate of the connection. Otherwise it answers [`Found::Registered`].
///
/// # Security
///
/// The secret and the assertion are in clear. `Debug` does not show them.
#[derive(Clone, Copy)]
pub struct Claim<'x>(Source<'x>);

#[derive(Clone, Copy)]
enum Source<'x> {
    Request(&'x Credentials, &'x Form<'x>),
    /// The client of a session. It has no proof, or has shown it before.
    Session(&'x str),
}

impl<'x> Claim<'x> {
    pub(super) const fn of_request(credentials: &'x Credentials, form: &'x Form<'x>) -> Self {
        Self(Source::Request(credentials, form))
    }

    pub(super) const fn of_session(client_id: &'x str) -> Self {
        Self(Source::Session(client_id))
    }

    /// Returns the id that the client claims to have. `None` if an assertion alone names the client
    /// ([RFC 7521, section 4.2](https://www.rfc-editor.org/rfc/rfc7521#section-4.2)).
    pub fn client_id(&self) -> Option<&'x str> {
        match self.0 {
            Source::Request(credentials, form) => credentials.client_id(form),
            Source::Session(client_id) => Some(client_id),
        }
    }

    /// Returns the secret that the client presented. A host that compares secrets itself needs it.
    pub fn secret(&self) -> Option<Cow<'x, str>> {
        match self.0 {
            Source::Request(credentials, form) => credentials.secret(form),
            Source::Session(_) => None,
        }
    }

    /// Returns the `client_assertion` that the client presented.
    pub fn assertion(&self) -> Option<Cow<'x, str>> {
        self.parameter("client_assertion")
    }

    /// Returns the `client_assertion_type` that came with it.
    pub fn assertion_type(&self) -> Option<Cow<'x, str>> {
        self.parameter("client_assertion_type")
    }

    fn parameter(&self, name: &str) -> Option<Cow<'x, str>> {
        match self.0 {
            Source::Request(_, form) => form.parameter(name),
            Source::Session(_) => None,
        }
    }
}

debug_shows!(Claim<'_>: client_id());

/// A client that was authenticated at an endpoint of the host's own, and the parameters of its request.
pub struct Authenticated<'r> {
    pub(super) form: Form<'r>,
    pub(super) client_id: Box<str>,
    pub(super) is_public: bool,
}

impl<'r> Authenticated<'r> {
    /// Returns the id of the client.
    pub const fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Returns whether the client is public. **It then has proved nothing**, because anybody can send its id.
    pub const fn is_public(&self) -> bool {
        self.is_public
    }

    /// Returns the value of a parameter, or the first value if it is repeated. Returns `None` if it is absent or empty.
    pub fn parameter(&self, name: &str) -> Option<Cow<'r, str>> {
        self.form.parameter(name)
    }

    /// Returns the values, without empty ones, of a parameter that may repeat: `resource` or `audience`.
    pub fn parameters(&self, name: &str) -> impl Iterator<Item = Cow<'r, str>> {
        self.form.parameters(name)
    }
}

debug_shows!(Authenticated<'_>: client_id);

impl Credentials {
    /// The credentials of a request before it was read.
    pub(super) const NONE: Self = Self {
        id: Id::InForm,
        proof: Proof::None,
    };

    /// Reads what the form and the header carry (A10 to A15).
    #[inline(always)]
    pub(super) fn read(&mut self, form: &Form<'_>) -> Result<(), Cause> {
        self.proof = match (form.client_secret(), form.client_assertion()) {
            (None, None) => Proof::None,
            (Some(_), None) => Proof::BodySecret,
            (None, Some(_)) => Proof::Assertion,
            (Some(_), Some(_)) => return Err(Cause::SeveralCredentials),
        };
        if let Some(header) = form.authorization() {
            self.read_header(header)?;
        }
        match form.client_id() {
            Some(id) => self.read_id(id, form)?,
            None if self.names_nobody() => return Err(Cause::ClientIdMissing),
            None => {}
        }
        if self.proof == Proof::BodySecret {
            let secret = form.client_secret();
            if secret.is_some_and(|secret| !secret.is_printable()) {
                return Err(Cause::CredentialCharacters);
            }
        }
        Ok(())
    }

    /// Reads the `Authorization` header (A10, A11).
    #[cold]
    #[inline(never)]
    fn read_header(&mut self, header: &[u8]) -> Result<(), Cause> {
        let basic = Basic::read(header);
        if basic.as_ref().is_some_and(|basic| !basic.secret.is_empty()) {
            // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
            if self.proof != Proof::None {
                return Err(Cause::SeveralCredentials);
            }
            self.proof = Proof::BasicSecret;
        }
        self.id = Id::InHeader(Box::new(basic.ok_or(Cause::Authorization)?));
        Ok(())
    }

    /// Reads the `client_id` of the form (A12, A15).
    #[inline(always)]
    fn read_id(&mut self, id: Raw<'_>, form: &Form<'_>) -> Result<(), Cause> {
        if let Id::InHeader(basic) = &self.id
            && !id.is(&basic.id)
        {
            return Err(Cause::ClientIdsDiffer);
        }
        if form.is_plain() || id.is_plain() {
            return Ok(());
        }
        if !id.is_printable() {
            return Err(Cause::CredentialCharacters);
        }
        if let (Id::InForm, Some(id)) = (&self.id, id.text()) {
            self.id = Id::Decoded(id.into());
        }
        Ok(())
    }

    /// Whether the request names no client (A14). An empty id in a Basic header names nobody.
    fn names_nobody(&self) -> bool {
        match &self.id {
            Id::InHeader(basic) => basic.id.is_empty(),
            Id::InForm | Id::Decoded(_) => self.proof != Proof::Assertion,
        }
    }

    pub(super) fn client_id<'x>(&'x self, form: &'x Form<'_>) -> Option<&'x str> {
        match &self.id {
            Id::InForm => core::str::from_utf8(form.client_id()?.0).ok(),
            Id::Decoded(id) => Some(id),
            Id::InHeader(basic) => Some(&basic.id),
        }
    }

    /// Whether the client claims to have this id.
    #[inline(always)]
    pub(super) fn names(&self, form: &Form<'_>, id: &str) -> bool {
        match &self.id {
            Id::InForm => form.client_id().is_some_and(|own| own.0 == id.as_bytes()),
            Id::Decoded(own) => **own == *id,
            Id::InHeader(basic) => basic.id == id,
        }
    }

    /// Stores the id of the client that the host found by an assertion.
    pub(super) fn set_client_id(&mut self, id: &str) {
        self.id = Id::Decoded(id.into());
    }

    /// Whether an assertion alone names the client.
    pub(super) fn client_id_is_absent(&self, form: &Form<'_>) -> bool {
        !matches!(self.id, Id::InHeader(_)) && form.client_id().is_none()
    }

    pub(super) const fn has_secret(&self) -> bool {
        matches!(self.proof, Proof::BasicSecret | Proof::BodySecret)
    }

    fn secret<'x>(&'x self, form: &Form<'x>) -> Option<Cow<'x, str>> {
        match (self.proof, &self.id) {
            (Proof::BasicSecret, Id::InHeader(basic)) => Some((&*basic.secret).into()),
            (Proof::BodySecret, _) => form.client_secret()?.text(),
            (Proof::None | Proof::Assertion | Proof::BasicSecret, _) => None,
        }
    }

    /// Decides by what the host found (B2 to B7).
    #[inline(always)]
    pub(super) fn check<'c>(
        &self,
        form: &Form<'_>,
        found: Found<&'c Client>,
    ) -> Result<&'c Client, Cause> {
        let client = match found {
            Found::Unknown => self.compare(form, None)?,
            Found::Registered(client) => self.compare(form, Some(client))?,
            Found::Verified(client) => self.check_verified(form, client)?,
            Found::Refused => return Err(Cause::HostRefused),
        };
        if client.disabled {
            return Err(Cause::ClientDisabled);
        }
        Ok(client)
    }

    /// Decides B2 to B6 if the core compares the secret.
    #[inline(always)]
    fn compare<'c>(&self, form: &Form<'_>, found: Option<&'c Client>) -> Result<&'c Client, Cause> {
        let known = found.filter(|known| self.names(form, &known.id));
        let secret = self.secret(form);
        let is_right = secret.is_some_and(|secret| is_secret_of(&secret, known));
        let known = known.ok_or(Cause::UnknownClient)?;
        match (&known.method, self.proof) {
            (ClientAuthMethod::None, Proof::None) => Ok(known),
            (ClientAuthMethod::None, Proof::BasicSecret | Proof::BodySecret) => {
                Err(Cause::UnexpectedSecret)
            }
            (ClientAuthMethod::SecretBasic(_), Proof::BodySecret) => Err(Cause::MethodExcluded),
            (
                ClientAuthMethod::Secret(_) | ClientAuthMethod::SecretBasic(_),
                Proof::BasicSecret | Proof::BodySecret,
            ) => is_right.then_some(known).ok_or(Cause::WrongSecret),
            (_, Proof::None) => Err(Cause::CredentialMissing),
            // The client is not registered for an assertion, or only the host can verify its proof.
            (_, Proof::BasicSecret | Proof::BodySecret | Proof::Assertion) => {
                Err(Cause::MethodExcluded)
            }
        }
    }

    /// Decides B2 to B6 if the host has verified the client.
    fn check_verified<'c>(&self, form: &Form<'_>, known: &'c Client) -> Result<&'c Client, Cause> {
        if self.client_id(form).is_some() && !self.names(form, &known.id) {
            return Err(Cause::HostRefused);
        }
        match (&known.method, self.proof) {
            (ClientAuthMethod::HostSecret, Proof::BasicSecret | Proof::BodySecret)
            | (ClientAuthMethod::HostSecretBasic, Proof::BasicSecret)
            | (ClientAuthMethod::Assertion, Proof::Assertion)
            | (ClientAuthMethod::MutualTls, Proof::None) => Ok(known),
            (
                ClientAuthMethod::HostSecret
                | ClientAuthMethod::HostSecretBasic
                | ClientAuthMethod::Assertion,
                Proof::None,
            ) => Err(Cause::CredentialMissing),
            // The core verifies this client, or its registration asks for another proof.
            (_, Proof::None | Proof::BasicSecret | Proof::BodySecret | Proof::Assertion) => {
                Err(Cause::MethodExcluded)
            }
        }
    }
}

/// Whether a secret has one of the two digests of a client. Zeros stand for a missing digest, so that an unknown client takes as
/// long as a wrong secret.
fn is_secret_of(secret: &str, known: Option<&Client>) -> bool {
    let nobodys = SecretDigest::from_bytes([0; 32]);
    let digests = match known.map(|known| &known.method) {
        Some(ClientAuthMethod::Secret(digests) | ClientAuthMethod::SecretBasic(digests)) => {
            *digests
        }
        Some(
            ClientAuthMethod::None
            | ClientAuthMethod::HostSecret
            | ClientAuthMethod::HostSecretBasic
            | ClientAuthMethod::Assertion
            | ClientAuthMethod::MutualTls,
        )
        | None => [None, None],
    };
    let presented = SecretDigest::of(secret);
    let [first, second] = digests.map(|own| own.unwrap_or(nobodys));
    (presented.ct_eq(&first) | presented.ct_eq(&second)).into()
}
