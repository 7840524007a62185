//! The order of the questions: what an exchange needs first, and what follows each answer.
//!
//! Rules:
//! 1. The quotas against guessing come before the look-ups. Minting comes before the guarded write, and the response after it.
//! 2. A request is read once. If it breaks one of the rows A1 to A16, it is refused before anything is asked.

use super::client::Client;
use super::host::{Unavailable, Write};
use super::machine::{Input, Progress, Quota, Step, Task};
use super::page;
use super::page_error::PageError;
use super::rate_limit::{RateLimited, Take};
use super::reply::Cause;
use super::request::GrantType;
use super::{issue, refresh};
use crate::code::DeviceCode;
use crate::digest::{Digest, QuotaKey, SessionKey, UserKey};
use crate::wire::form::Raw;

impl Input<'_> {
    /// Reads the request and returns the first step.
    #[inline(always)]
    pub(super) fn begin(&mut self, progress: &mut Progress) -> Step {
        match self.read() {
            Ok(step) => step,
            Err(cause) => progress.end(cause),
        }
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Step, Cause> {
        match self.task {
            Task::Enter { typed, .. } => {
                self.typed = page::read(self, typed);
                return Ok(Step::Take(Quota::GuessByUser));
            }
            Task::Decide { .. } => return Ok(Step::Load),
            Task::Token | Task::DeviceAuthorization(_) | Task::Revocation | Task::Client => {}
        }
        self.form.read(self.policy)?;
        if matches!(self.task, Task::Token) {
            self.grant_type = self.form.grant_type()?;
            if self.grant_type == GrantType::RefreshToken && self.policy.options.refresh.is_none() {
                return Err(Cause::GrantTypeUnsupported);
            }
        }
        self.credentials.read(&self.form)?;
        match (self.task, self.grant_type) {
            (Task::Token, GrantType::DeviceCode) => {
                let code = self.form.device_code();
                let code = code.ok_or(Cause::DeviceCodeMissing)?;
                // The digest comes before the look-up of the client, because a processor can then do both at once.
                self.key = session_key(code, self.form.is_plain());
            }
            (Task::Token, GrantType::RefreshToken) => {
                let token = self.form.refresh_token();
                self.read_token(&token.ok_or(Cause::RefreshTokenMissing)?);
            }
            (Task::Revocation, _) => {
                let token = self.form.parameter("token");
                self.read_token(&token.ok_or(Cause::TokenMissing)?);
            }
            (
                Task::DeviceAuthorization(_)
                | Task::Client
                | Task::Enter { .. }
                | Task::Decide { .. },
                _,
            ) => {}
        }
        if self.credentials.has_secret() {
            Ok(Step::Take(Quota::LookAtSecrets))
        } else {
            Ok(Step::Client)
        }
    }

    /// Returns the step after the client is authenticated.
    #[inline(always)]
    pub(super) fn authenticated(&self, progress: &mut Progress, client: &Client) -> Step {
        if matches!(self.task, Task::Client) {
            progress.client_id = Some(client.id.clone());
            progress.is_public = client.is_public();
            return Step::Done; // this exchange ends in the client, so it has no cause
        }
        if !client.device_grant {
            return progress.end(Cause::GrantNotAllowed); // B9
        }
        if matches!(self.task, Task::DeviceAuthorization(_)) {
            return issue::ask(self, progress, client);
        }
        if self.credentials.client_id_is_absent(&self.form) {
            progress.client_id = Some(client.id.clone());
        }
        if self.grant_type == GrantType::RefreshToken {
            progress.allowed = Some(client.allowed.clone());
        }
        match (&self.key, self.task, self.grant_type) {
            (Some(_), _, _) => Step::Load,
            (None, Task::Revocation, _) => progress.end(Cause::NothingToRevoke), // R16
            (None, _, GrantType::RefreshToken) => progress.end(Cause::MalformedRefreshToken), // R2
            (None, _, GrantType::DeviceCode) => progress.end(Cause::MalformedCode), // A17
        }
    }

    /// Returns the step after a client is refused. A wrong secret is counted if the client exists.
    #[cold]
    pub(super) fn refuse_client(&self, progress: &mut Progress, cause: Cause) -> Step {
        let is_guess = matches!(cause, Cause::WrongSecret | Cause::HostRefused);
        progress.cause = cause;
        if is_guess && self.credentials.has_secret() {
            Step::Take(Quota::Secret)
        } else {
            Step::Done
        }
    }

    #[cold]
    pub(super) fn quota(&self, progress: &Progress, quota: Quota) -> Option<Take> {
        let (policy, now) = (self.policy, self.now);
        Some(match quota {
            Quota::LookAtSecrets => policy.options.secret_limit.look(self.secrets(), now),
            Quota::Secret => policy.options.secret_limit.take(self.secrets(), now),
            Quota::Issuing => {
                let client_id = progress.client_id.as_deref()?;
                let source = if progress.is_public { self.source } else { "" };
                let key = QuotaKey::issuing(client_id, source);
                policy.options.issuing_limit.take(key, now)
            }
            Quota::Refresh => {
                let limit = policy.options.refresh.as_ref()?.limit;
                limit.take(QuotaKey::refreshes(self.key.as_ref()?), now)
            }
            Quota::GuessByUser => {
                let Task::Enter { user, .. } = self.task else {
                    return None;
                };
                policy
                    .options
                    .guess_limit
                    .take(QuotaKey::guesses(user), now)
            }
            Quota::GuessBySource => {
                let key = QuotaKey::guesses_from(self.source);
                policy.options.guess_limit.take(key, now)
            }
        })
    }

    /// Returns the next step if the quota is not spent.
    pub(super) fn taken(&self, progress: &mut Progress, quota: Quota) -> Step {
        match quota {
            Quota::LookAtSecrets => Step::Client,
            Quota::Secret => Step::Done,
            Quota::Issuing => Step::Draw,
            Quota::Refresh => refresh::complete(self, progress),
            Quota::GuessByUser | Quota::GuessBySource => page::guessed(self, progress),
        }
    }

    /// Returns the key under which this step looks up the typed code.
    pub(super) fn user_key(&self, step: Step) -> Option<&UserKey> {
        let typed = self.typed.as_ref()?;
        if step == Step::LoadPrevious {
            typed.previous.as_ref()
        } else {
            Some(&typed.current)
        }
    }
}

impl Progress {
    /// Ends because a quota is spent.
    pub(super) fn limited(&mut self, quota: Quota, limited: RateLimited) -> Step {
        self.number = limited.seconds();
        self.trouble = Some(PageError::RateLimited(limited)); // U1
        self.end(match quota {
            Quota::LookAtSecrets | Quota::Secret => Cause::SecretQuotaSpent, // B1
            Quota::Refresh => Cause::RefreshQuotaSpent,
            // D2. After a guess nobody sees this cause, because the page reads only `trouble`.
            Quota::Issuing | Quota::GuessByUser | Quota::GuessBySource => Cause::IssuingQuotaSpent,
        })
    }

    /// Returns the step after a guarded write.
    #[inline]
    pub(super) fn written(&mut self, task: &Task<'_>, written: Result<Write, Unavailable>) -> Step {
        match written {
            Ok(Write::Committed) => Step::Done,
            Ok(Write::Conflict) => self.lost(task),
            // C19: it may be written or not. The next request decides by what is stored.
            Err(Unavailable) => {
                self.trouble = Some(PageError::Unavailable);
                self.end(Cause::OutcomeUnknown)
            }
        }
    }
}

/// Returns the session key of a device code, or `None` if the code has the wrong length (A17).
#[inline(always)]
fn session_key(code: Raw<'_>, is_plain: bool) -> Option<SessionKey> {
    let key = |code: &[u8; DeviceCode::LENGTH]| SessionKey(Digest::of(code));
    if is_plain {
        return Some(key(code.0.try_into().ok()?));
    }
    Some(key(code.text()?.as_bytes().try_into().ok()?))
}
