//! Issuance: a pair of codes, a session, a response (table D).
//!
//! Rules:
//! 1. The codes are drawn from entropy that the host gives by value, afresh for each draw.
//! 2. The response is made only after the store has inserted the session.
//! 3. A user code that is taken is drawn again; a device code that is taken means that the entropy is broken.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use time::OffsetDateTime;

use super::authenticate::Unauthenticated;
use super::policy::Policy;
use super::registration::Registration;
use super::reply::{Cause, Reply};
use super::session::{Issued, Session};
use super::subject::Origin;
use crate::code::{DeviceCode, Entropy, UserCode};
use crate::digest::{Digest, QuotaKey, SessionKey, UserCodeKeys};
use crate::scope::{MAX_BYTES, Scope};
use crate::time::Timestamp;
use crate::wire::form::Raw;
use crate::wire::response::Response;

/// Room for a user code in a response, twice, with dashes.
const USER_CODES: usize = 48;

/// How often a code is drawn again for a user code that is taken (D7).
const REDRAWS: u8 = 3;

/// A request for codes by an authenticated client.
///
/// Only `authenticate` makes one. Where the host keeps an issuing quota, it takes from it first:
/// [`Policy::issuing_limit`] under [`Issuing::quota_key`], and [`Reply::issuing_quota_spent`] where that is spent (D2).
#[must_use]
pub struct Issuing<'f> {
    policy: &'f Policy,
    client: &'f Registration,
    scope: Option<Raw<'f>>,
    origin: Option<Arc<Origin>>,
    redraws: u8,
}

impl<'f> Issuing<'f> {
    pub(super) fn of(request: &Unauthenticated<'f, Self>, client: &'f Registration) -> Self {
        let form = request.form();
        Self {
            policy: form.policy,
            client,
            scope: form.scope(),
            origin: None,
            redraws: 0,
        }
    }

    /// The client, authenticated.
    pub const fn client(&self) -> &'f Registration {
        self.client
    }

    /// The key of the issuing quota: by client and source for a public client, by client alone for an authenticated one.
    pub fn quota_key(&self, source: &str) -> QuotaKey {
        QuotaKey::issuing(self.client, source)
    }

    /// Keeps with the session where the request came from, for the review.
    pub fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = Some(Arc::new(origin));
        self
    }

    /// Draws the codes and makes the session. Take from the issuing quota before; insert the session after, and settle with
    /// the outcome.
    ///
    /// # Errors
    ///
    /// The reply to send: `invalid_scope` (D3, D4), 503 after too many user codes that were taken (D7), 500 for entropy that
    /// nobody filled (D8).
    pub fn draw(
        &mut self,
        entropy: Entropy,
        keys: &UserCodeKeys,
        now: OffsetDateTime,
    ) -> Result<Issuance<'_>, Reply> {
        let scope = self.scope().map_err(Reply::fixed)?;
        if self.redraws > REDRAWS {
            return Err(Reply::fixed(Cause::UserCodesTaken));
        }
        if entropy.is_blank() {
            return Err(Reply::fixed(Cause::EntropyBroken));
        }
        let (device_code, user_code) = entropy.codes(&self.policy.user_code);
        let session = Session::new(Issued {
            key: SessionKey(Digest::of_code(device_code.octets())),
            user_key: keys.current(&user_code),
            client_id: self.client.shared_id().clone(),
            scope,
            origin: self.origin.clone(),
            at: Timestamp::from(now),
            lifetime: self.policy.lifetime,
            retention: self.policy.retention,
        });
        Ok(Issuance {
            policy: self.policy,
            redraws: &mut self.redraws,
            session,
            device_code,
            user_code,
        })
    }

    /// What the user will be asked for (D3 to D5).
    ///
    /// > If the client omits the scope parameter when requesting authorization, the authorization server MUST either process
    /// > the request using a pre-defined default value or fail the request indicating an invalid scope.
    /// > ([RFC 6749, section 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3))
    fn scope(&self) -> Result<Scope, Cause> {
        let Some(requested) = self.scope else {
            return self.client.default.clone().ok_or(Cause::ScopeMissing);
        };
        // Most clients ask for all they may.
        if requested.is(self.client.allowed.as_str()) {
            return Ok(self.client.allowed.clone());
        }
        let mut room = [0; MAX_BYTES];
        let requested = requested.text_in(&mut room).ok_or(Cause::ScopeMalformed)?;
        let allowed = self.client.allowed.allow(requested);
        allowed
            .map_err(|_| Cause::ScopeMalformed)?
            .ok_or(Cause::ScopeNotAllowed)
    }
}

impl fmt::Debug for Issuing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuing")
            .field("client_id", &self.client.client_id())
            .finish_non_exhaustive()
    }
}

/// Codes that were drawn and a session that is to be inserted.
#[must_use = "the device is waiting for its codes"]
pub struct Issuance<'i> {
    policy: &'i Policy,
    redraws: &'i mut u8,
    session: Session,
    device_code: DeviceCode,
    user_code: UserCode,
}

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a session that was not inserted must not be answered"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Inserted {
    /// It is stored.
    New,
    /// Another session has this user code. Nothing was written.
    UserCodeTaken,
    /// Another session has this device code. Nothing was written.
    DeviceCodeTaken,
    /// It may or may not be stored.
    Unknown,
}

/// The user code was taken: draw again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the user code is taken; draw again with fresh entropy")]
#[expect(
    clippy::exhaustive_structs,
    reason = "it is matched by its name, and nothing more is to be said"
)]
pub struct Taken;

impl Issuance<'_> {
    /// The session to insert.
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Makes the response from the outcome of the insert (D6 to D8): the codes if it is stored, 503 if nobody knows, 500 if the
    /// device code is taken.
    ///
    /// # Errors
    ///
    /// [`Taken`]: draw again with fresh entropy. After three more draws the next is 503.
    pub fn settle(self, inserted: Inserted) -> Result<Reply, Taken> {
        match inserted {
            Inserted::New => Ok(Reply::made(Response::made(self.body()), Cause::Issued)),
            Inserted::UserCodeTaken => {
                *self.redraws = self.redraws.saturating_add(1);
                Err(Taken)
            }
            Inserted::DeviceCodeTaken => Ok(Reply::fixed(Cause::EntropyBroken)),
            Inserted::Unknown => Ok(Reply::store_failed()),
        }
    }

    fn body(&self) -> String {
        let policy = self.policy;
        let end = policy.after_complete.as_deref().unwrap_or_default();
        let parts = [
            r#"{"device_code":""#,
            self.device_code.as_str(),
            r#"","user_code":""#,
        ];
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let length = length
            .saturating_add(policy.after_code.len())
            .saturating_add(end.len())
            .saturating_add(USER_CODES);
        let mut body = String::with_capacity(length);
        body.extend(parts);
        self.user_code.push_to(&mut body);
        body.push_str(&policy.after_code);
        if policy.after_complete.is_some() {
            self.user_code.push_to(&mut body);
            body.push_str(end);
        }
        body
    }
}

impl fmt::Debug for Issuance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
