//! Who the client is (table B).
//!
//! Rules:
//! 1. It is decided on the registration as it is now, at both endpoints: what changed since issuance counts.
//! 2. Every way of failing to be a client is one response, byte for byte.
//! 3. The core compares generated secrets, in constant time. A host that verifies by itself gives an explicit verdict that
//!    names the client; there is no default.

use alloc::borrow::Cow;
use core::fmt;

use time::OffsetDateTime;

use super::quota::Quota;
use super::registration::{Authentication, Registration, SecretPlacement};
use super::reply::{Cause, Reply};
use super::request::{Form, Header, present};
use crate::digest::{QuotaKey, SecretDigest};
use crate::wire::credentials::{Basic, is_vschar};
use crate::wire::form::Raw;

/// A request whose client is not known yet. Authenticated, it becomes a `T`: a [`Poll`](super::Poll) or an
/// [`Issuing`](super::Issuing).
#[must_use]
pub struct Request<'f, T> {
    form: &'f Form<'f>,
    credentials: Credentials<'f>,
    admit: fn(&'f Form<'f>, &'f Registration) -> T,
}

impl<'f, T> Request<'f, T> {
    pub(super) const fn new(
        form: &'f Form<'f>,
        credentials: Credentials<'f>,
        admit: fn(&'f Form<'f>, &'f Registration) -> T,
    ) -> Self {
        Self {
            form,
            credentials,
            admit,
        }
    }

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

    /// Refuses the request where the quota of wrong secrets is spent (B1). Call it before `authenticate`; take from the quota,
    /// by [`Policy::secret_limit`](super::Policy::secret_limit), after a reply whose cause is [`Cause::WrongSecret`] or [`Cause::UnknownClient`].
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
    pub fn authenticate(self, registration: Option<&'f Registration>) -> Result<T, Reply> {
        let client = self.credentials.check(registration);
        self.admitted(client)
    }

    /// Takes the verdict of a host that verified the client by itself, with argon2, an assertion or a certificate.
    ///
    /// # Errors
    ///
    /// As for `authenticate`; also where the client is registered for another method than it used.
    pub fn authenticate_by(self, verdict: HostVerdict<'f>) -> Result<T, Reply> {
        let client = self.credentials.check_verdict(verdict);
        self.admitted(client)
    }

    fn admitted(self, client: Result<&'f Registration, Cause>) -> Result<T, Reply> {
        match client {
            Ok(client) => Ok((self.admit)(self.form, client)),
            Err(Cause::GrantNotAllowed) => Err(Reply::fixed(Cause::GrantNotAllowed)),
            Err(cause) => Err(Reply::unauthorized(cause, self.form.policy)),
        }
    }
}

impl<T> fmt::Debug for Request<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?})", self.form)
    }
}

/// What a client presented: who it claims to be, and its proof.
pub(super) struct Credentials<'f> {
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
    pub(super) fn read(form: &'f Form<'f>) -> Result<Self, Reply> {
        let secret = present(form.client_secret);
        let assertion = present(form.client_assertion);
        let basic = match form.authorization {
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
            return Err(Reply::unauthorized(Cause::Authorization, form.policy));
        };
        let body_id = present(form.client_id);
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
        Ok(Self { client_id, proof })
    }

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
    fn check<'r>(&self, registration: Option<&'r Registration>) -> Result<&'r Registration, Cause> {
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
    fn check_verdict<'r>(&self, verdict: HostVerdict<'r>) -> Result<&'r Registration, Cause> {
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
fn admit(known: &Registration) -> Result<&Registration, Cause> {
    if known.is_disabled() {
        return Err(Cause::ClientDisabled);
    }
    if !known.may_use_device_grant() {
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

fn printable(raw: Raw<'_>) -> Result<Cow<'_, str>, Cause> {
    let text = raw.text().ok_or(Cause::Encoding)?;
    let legal = text.bytes().all(is_vschar);
    legal.then_some(text).ok_or(Cause::CredentialCharacters)
}
