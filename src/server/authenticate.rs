//! Who the client is (table B).
//!
//! Rules:
//! 1. It is decided on the registration as it is now, at both endpoints: what changed since issuance counts.
//! 2. Every way of failing to be a client is one response, byte for byte.
//! 3. The core compares generated secrets, in constant time. A host that verifies by itself gives an explicit verdict that
//!    names the client; there is no default.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::fmt;
use core::marker::PhantomData;

use time::OffsetDateTime;

use super::issue::Issuing;
use super::poll::Poll;
use super::quota::Quota;
use super::registration::{Authentication, Registration, SecretPlacement};
use super::reply::{Cause, Reply};
use super::request::Form;
use crate::digest::{QuotaKey, SecretDigest, SessionKey};
use crate::wire::credentials::Basic;
use crate::wire::form::Raw;

/// A request whose client is not known yet. Authenticated, it becomes a `T`: a [`Poll`](super::Poll), an
/// [`Issuing`](super::Issuing), or for a grant or an endpoint of the host's own the client alone, a [`Registration`].
#[must_use]
pub struct Unauthenticated<'f, T> {
    credentials: Credentials<'f>,
    /// Of a poll, where its code has the length of one.
    pub(super) session_key: Option<SessionKey>,
    becomes: PhantomData<T>,
}

impl<'f, T> Unauthenticated<'f, T> {
    #[inline(always)]
    pub(super) const fn new(credentials: Credentials<'f>, session_key: Option<SessionKey>) -> Self {
        Self {
            credentials,
            session_key,
            becomes: PhantomData,
        }
    }

    pub(super) const fn form(&self) -> &'f Form<'f> {
        self.credentials.form
    }

    /// The client that this claims to be, to look up its registration. None where an assertion alone names it.
    pub fn client_id(&self) -> Option<&str> {
        self.credentials.client_id()
    }

    /// What the client presented, for a host that verifies it by itself.
    pub fn presented(&self) -> Presented<'_> {
        self.credentials.presented()
    }

    /// The key of the quota of wrong secrets, by this client and this source; none where no secret was presented.
    pub fn secret_quota_key(&self, source: &str) -> Option<QuotaKey> {
        self.credentials.secret_quota_key(source)
    }

    /// Refuses the request where the quota of wrong secrets is spent (B1). Call it before `authenticate`; take from the quota,
    /// by [`Policy::secret_limit`](super::Policy::secret_limit), after a reply whose [`Cause::is_wrong_secret`].
    ///
    /// # Errors
    ///
    /// The reply to send: 429.
    pub fn check_secret_quota(
        &self,
        stored: Option<Quota>,
        now: OffsetDateTime,
    ) -> Result<(), Reply> {
        let limit = self.form().policy.secret_limit();
        limit.check(stored, now).map_err(Reply::secret_quota_spent)
    }
}

/// Declares the two ways of authentication for what a request becomes: what it is, who may be it, and how it is made. Impls, not
/// a trait: a host sees plain methods, and the compiler sees through them.
macro_rules! authenticate {
    ($next:ty, $admit:path, $of:expr) => {
        impl<'f> Unauthenticated<'f, $next> {
            /// Authenticates the client by its registration as it is now; none for a client that nobody knows (B2 to B7). A
            /// poll and an issuing also need the device grant to be allowed for it (B9).
            ///
            /// # Errors
            ///
            /// The reply to send: `invalid_client`, or `unauthorized_client` where the device grant is not allowed.
            #[inline(always)]
            pub fn authenticate(
                self,
                registration: Option<&'f Registration>,
            ) -> Result<$next, Reply> {
                match self.credentials.check(registration).and_then($admit) {
                    Ok(client) => Ok($of(&self, client)),
                    Err(cause) => Err(self.credentials.refuse(cause)),
                }
            }

            /// Takes the verdict of a host that verified the client by itself, with argon2, an assertion or a certificate.
            ///
            /// # Errors
            ///
            /// As for `authenticate`; also where the client is registered for another method than it used.
            pub fn authenticate_by(self, verdict: HostVerdict<'f>) -> Result<$next, Reply> {
                match self.credentials.check_verdict(verdict).and_then($admit) {
                    Ok(client) => Ok($of(&self, client)),
                    Err(cause) => Err(self.credentials.refuse(cause)),
                }
            }
        }
    };
}

authenticate!(Poll<'f>, for_device_grant, Poll::of);
authenticate!(Issuing<'f>, for_device_grant, Issuing::of);
authenticate!(&'f Registration, enabled, |_: &Self, client| client);

impl<T> fmt::Debug for Unauthenticated<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unauthenticated({:?})", self.credentials.form)
    }
}

/// What a client presented: who it claims to be, and the kind of its proof. The texts stay in the form where they can.
pub(super) struct Credentials<'f> {
    form: &'f Form<'f>,
    basic: Option<Box<Basic>>,
    /// The id of the body, where that had escapes.
    decoded_id: Option<Box<str>>,
    proof: Proof,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)] // no padding beside it, which would be moved with every request
enum Proof {
    None,
    BasicSecret,
    BodySecret,
    Assertion,
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
    Secret(Cow<'f, str>),
    /// An assertion, with its type (RFC 7521, section 4.2).
    Assertion {
        /// `client_assertion`.
        assertion: Cow<'f, str>,
        /// `client_assertion_type`.
        assertion_type: Option<Cow<'f, str>>,
    },
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl<'f> Credentials<'f> {
    /// Reads what the form and the header carry (A10 to A15).
    #[inline(always)]
    pub(super) fn read(form: &'f Form<'f>) -> Result<Self, Reply> {
        let mut credentials = Self {
            form,
            basic: None,
            decoded_id: None,
            proof: match (form.client_secret(), form.client_assertion()) {
                (None, None) => Proof::None,
                (Some(_), None) => Proof::BodySecret,
                (None, Some(_)) => Proof::Assertion,
                (Some(_), Some(_)) => return Err(Reply::fixed(Cause::SeveralCredentials)),
            },
        };
        if let Some(header) = form.authorization {
            credentials.read_header(header)?;
        }
        match form.client_id() {
            Some(id) => credentials.read_id(id).map_err(Reply::fixed)?,
            None if credentials.names_nobody() => {
                return Err(Reply::fixed(Cause::ClientIdMissing));
            }
            None => {}
        }
        if credentials.proof == Proof::BodySecret {
            let secret = form.client_secret();
            if secret.is_some_and(|secret| !secret.is_printable()) {
                return Err(Reply::fixed(Cause::CredentialCharacters));
            }
        }
        Ok(credentials)
    }

    /// A10 and A11.
    #[cold]
    #[inline(never)]
    fn read_header(&mut self, header: &[u8]) -> Result<(), Reply> {
        let basic = Basic::read(header);
        if basic.as_ref().is_some_and(|basic| !basic.secret.is_empty()) {
            // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
            if self.proof != Proof::None {
                return Err(Reply::fixed(Cause::SeveralCredentials));
            }
            self.proof = Proof::BasicSecret;
        }
        let basic =
            basic.ok_or_else(|| Reply::unauthorized(Cause::Authorization, self.form.policy))?;
        self.basic = Some(Box::new(basic));
        Ok(())
    }

    /// A12 and A15.
    #[inline(always)]
    fn read_id(&mut self, id: Raw<'_>) -> Result<(), Cause> {
        if self.basic.as_ref().is_some_and(|basic| !id.is(&basic.id)) {
            return Err(Cause::ClientIdsDiffer);
        }
        if self.form.is_plain() || id.is_plain() {
            return Ok(());
        }
        if !id.is_printable() {
            return Err(Cause::CredentialCharacters);
        }
        self.decoded_id = id.text().map(Into::into);
        Ok(())
    }

    /// A14. An empty id in a Basic header names nobody.
    fn names_nobody(&self) -> bool {
        match &self.basic {
            Some(basic) => basic.id.is_empty(),
            None => self.proof != Proof::Assertion,
        }
    }

    fn client_id(&self) -> Option<&str> {
        match (&self.basic, &self.decoded_id) {
            (Some(basic), _) => Some(&basic.id),
            (None, Some(id)) => Some(id),
            (None, None) => core::str::from_utf8(self.form.client_id()?.0).ok(),
        }
    }

    fn secret(&self) -> Option<Cow<'_, str>> {
        match self.proof {
            Proof::BasicSecret => self.basic.as_ref().map(|basic| (&*basic.secret).into()),
            Proof::BodySecret => self.form.client_secret()?.text(),
            Proof::None | Proof::Assertion => None,
        }
    }

    fn presented(&self) -> Presented<'_> {
        match self.proof {
            Proof::None => Presented::Nothing,
            Proof::BasicSecret | Proof::BodySecret => {
                Presented::Secret(self.secret().unwrap_or_default())
            }
            Proof::Assertion => Presented::Assertion {
                assertion: self.form.parameter("client_assertion").unwrap_or_default(),
                assertion_type: self.form.parameter("client_assertion_type"),
            },
        }
    }

    fn secret_quota_key(&self, source: &str) -> Option<QuotaKey> {
        match self.proof {
            Proof::BasicSecret | Proof::BodySecret => {
                let client_id = self.client_id().unwrap_or_default();
                Some(QuotaKey::secrets(client_id, source))
            }
            Proof::None | Proof::Assertion => None,
        }
    }

    /// B2 to B6, with the comparison of a secret by the core.
    #[inline(always)]
    fn check<'r>(&self, registration: Option<&'r Registration>) -> Result<&'r Registration, Cause> {
        let known = registration.filter(|known| self.names(known));
        let is_right = self.secret().is_some_and(|secret| matches(&secret, known));
        let known = known.ok_or(Cause::UnknownClient)?;
        match (known.authentication(), self.proof) {
            (Authentication::Public, Proof::None) => Ok(known),
            (Authentication::Public, Proof::BasicSecret | Proof::BodySecret) => {
                Err(Cause::UnexpectedSecret)
            }
            (Authentication::Secret { placement, .. }, Proof::BasicSecret | Proof::BodySecret) => {
                if !placement.allows(self.proof) {
                    Err(Cause::MethodExcluded)
                } else if is_right {
                    Ok(known)
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
            (_, Proof::BasicSecret | Proof::BodySecret | Proof::Assertion) => {
                Err(Cause::MethodExcluded)
            }
        }
    }

    /// B2 to B6, with the host's verdict.
    fn check_verdict<'r>(&self, verdict: HostVerdict<'r>) -> Result<&'r Registration, Cause> {
        let HostVerdict::Authenticated(known) = verdict else {
            return Err(Cause::HostRefused);
        };
        if self.client_id().is_some() && !self.names(known) {
            return Err(Cause::HostRefused);
        }
        match (known.authentication(), self.proof) {
            (Authentication::HostSecret(placement), Proof::BasicSecret | Proof::BodySecret)
                if placement.allows(self.proof) =>
            {
                Ok(known)
            }
            (Authentication::Assertion, Proof::Assertion)
            | (Authentication::MutualTls, Proof::None) => Ok(known),
            (Authentication::HostSecret(_) | Authentication::Assertion, Proof::None) => {
                Err(Cause::CredentialMissing)
            }
            // A client that the core verifies, or another proof than the registered one.
            (_, Proof::None | Proof::BasicSecret | Proof::BodySecret | Proof::Assertion) => {
                Err(Cause::MethodExcluded)
            }
        }
    }

    /// The reply to a client that was refused.
    #[cold]
    fn refuse(&self, cause: Cause) -> Reply {
        if cause == Cause::GrantNotAllowed {
            return Reply::fixed(cause);
        }
        Reply::unauthorized(cause, self.form.policy)
    }

    #[inline(always)]
    fn names(&self, registration: &Registration) -> bool {
        let id = registration.client_id();
        match (&self.basic, &self.decoded_id) {
            (Some(basic), _) => basic.id == id,
            (None, Some(own)) => **own == *id,
            (None, None) => self
                .form
                .client_id()
                .is_some_and(|own| own.0 == id.as_bytes()),
        }
    }
}

impl SecretPlacement {
    /// B6: Basic always, the body unless registered otherwise.
    fn allows(self, proof: Proof) -> bool {
        match self {
            Self::Anywhere => true,
            Self::BasicOnly => proof == Proof::BasicSecret,
        }
    }
}

/// B7.
fn enabled(known: &Registration) -> Result<&Registration, Cause> {
    if known.is_disabled() {
        return Err(Cause::ClientDisabled);
    }
    Ok(known)
}

/// B7 and B9.
fn for_device_grant(known: &Registration) -> Result<&Registration, Cause> {
    if !enabled(known)?.may_use_device_grant() {
        return Err(Cause::GrantNotAllowed);
    }
    Ok(known)
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
