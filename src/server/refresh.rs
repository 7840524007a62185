//! The refresh and the revocation of a login (table R).
//!
//! Rules:
//! 1. A rotation is a guarded change of the session, which keeps the digests of the secret in force and of the previous one.
//! 2. The previous secret can be used within the grace, because a response can be lost. The secret in force then becomes void.
//! 3. Any other secret that this server made was replaced earlier. If it is used, the login ends.

use alloc::sync::Arc;
use core::time::Duration;

use super::grant::{Grant, allowed_now};
use super::keys::{RefreshSecret, RefreshToken};
use super::machine::{Input, Prepared, Progress, Quota, Step};
use super::reply::Cause;
use super::response::Response;
use super::session::{Login, Rotation, Session, State, Status, Stored};
use super::timestamp::Timestamp;
use super::tokens::Tokens;
use crate::scope::Scope;

/// Decides by what the store has for the refresh token (R2 to R11).
pub(super) fn decide(input: &Input<'_>, progress: &mut Progress, stored: Option<&Stored>) -> Step {
    let Some(Stored { session, .. }) = stored else {
        return progress.end(Cause::UnknownRefreshToken); // R2
    };
    if !input.owns(session, progress) {
        return progress.end(Cause::ForeignClient); // R3
    }
    let Some((login, refresh)) = active(session) else {
        return progress.end(Cause::Ended); // R4
    };
    let now = Timestamp::from(input.now);
    // The later of now and the last rotation, because the clock may have gone back. The absolute end is computed again, because the policy
    // may have a shorter limit by now.
    if now.max(refresh.rotated_at) >= refresh.until.min(absolute_end(input, login)) {
        return end_login(input, progress, session, login, Cause::LoginExpired); // R5
    }
    let Some(rotated) = rotate(input, refresh, now) else {
        if progress.losses > 0 && progress.cause != Cause::Reuse {
            return progress.end(Cause::Contended); // R13: a conflict is no reuse
        }
        return end_login(input, progress, session, login, Cause::Reuse); // R6, R8
    };
    let Some(allowed) = &progress.allowed else {
        return progress.unavailable();
    };
    let scope = match scope(input, &login.approval.scope, allowed) {
        Ok(scope) => scope,
        // R11
        Err(Cause::ConsentGone) => {
            return end_login(input, progress, session, login, Cause::ConsentGone);
        }
        Err(cause) => return progress.end(cause), // R9
    };
    let login = Login {
        approval: login.approval.clone(),
        redeemed_at: login.redeemed_at,
        refresh: Some(rotated),
    };
    progress.cause = Cause::Refreshed;
    let next = session.next(State::Active(Arc::new(login)), session.purge_at);
    let mut prepared = Prepared::new(Status::Active, next);
    prepared.scope = scope;
    progress.prepared = Some(prepared);
    if progress.secret.is_some() {
        complete(input, progress) // a repetition after a conflict, which has already taken one from the quota
    } else {
        Step::Take(Quota::Refresh)
    }
}

fn active(session: &Session) -> Option<(&Login, &Rotation)> {
    let login = session.login()?;
    Some((login, login.refresh.as_ref()?))
}

/// Returns the next rotation, still without its new secret. Returns `None` if the presented secret must not be used.
fn rotate(input: &Input<'_>, refresh: &Rotation, now: Timestamp) -> Option<Rotation> {
    let presented = input.presented?.digest();
    if presented.ct_eq(&refresh.current) {
        // R10
        return Some(Rotation {
            previous: Some(presented),
            // The maximum, because the clock may have gone back.
            rotated_at: refresh.rotated_at.max(now),
            ..*refresh
        });
    }
    let grace = input.policy.options.refresh.as_ref()?.grace;
    let is_previous = refresh
        .previous
        .is_some_and(|previous| presented.ct_eq(&previous));
    // R7. `rotated_at` stays, because the grace counts from the moment when this token was first replaced. Otherwise the same token could
    // be used for ever.
    (is_previous && now.since(refresh.rotated_at) < grace).then_some(*refresh)
}

/// Returns the scope of the new access token, or `None` if it is all that was granted (R9 to R11).
fn scope(input: &Input<'_>, granted: &Scope, allowed: &Scope) -> Result<Option<Scope>, Cause> {
    let requested: Option<Scope> = match input.form.scope() {
        None => None,
        Some(requested) => {
            let requested = requested.text().ok_or(Cause::ScopeMalformed)?;
            Some(requested.parse().map_err(|_| Cause::ScopeMalformed)?)
        }
    };
    // "The requested scope MUST NOT include any scope not originally granted by the resource owner" (RFC 6749, section 6)
    if requested
        .as_ref()
        .is_some_and(|requested| !requested.is_within(granted))
    {
        return Err(Cause::ScopeNotAllowed);
    }
    let still = allowed_now(granted, allowed)?;
    let Some(requested) = requested else {
        return Ok(still);
    };
    let part = allowed_now(&requested, still.as_ref().unwrap_or(granted));
    let part = part.map_err(|_| Cause::ScopeNotAllowed)?;
    Ok(Some(part.unwrap_or(requested)))
}

/// Completes the prepared session with the digest and the end of the next refresh token. Asks for random octets first, unless they were drawn before a conflict.
pub(super) fn complete(input: &Input<'_>, progress: &mut Progress) -> Step {
    let Some(secret) = &progress.secret else {
        return Step::Draw;
    };
    let current = secret.digest();
    let Some(Prepared { session, .. }) = &mut progress.prepared else {
        return progress.unavailable();
    };
    let options = &input.policy.options;
    let (State::Active(login), Some(refresh)) = (&mut session.state, &options.refresh) else {
        return progress.unavailable();
    };
    let now = Timestamp::from(input.now);
    let login = Arc::make_mut(login);
    let rotated = login.refresh.unwrap_or(Rotation {
        current,
        previous: None,
        rotated_at: now,
        until: now,
    });
    let idle_end = rotated.rotated_at.max(now).after(refresh.idle);
    let until = idle_end.min(absolute_end(input, login));
    login.refresh = Some(Rotation {
        current,
        until,
        ..rotated
    });
    session.purge_at = session.purge_at.max(until.after(options.retention));
    Step::Mint
}

/// Returns the response to a redemption or a refresh whose change was committed. "scope OPTIONAL, if identical to the scope requested by
/// the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
#[inline]
pub(super) fn tokens(
    input: &Input<'_>,
    prepared: Option<&Prepared>,
    secret: Option<&RefreshSecret>,
    tokens: &Tokens<'_>,
) -> Option<Response> {
    let prepared = prepared?;
    let grant = Grant::new(prepared, &input.now)?;
    let refresh = secret.map(|secret| secret.token(prepared.session.key(), input.keys));
    let refresh = refresh.as_ref().map(RefreshToken::as_str);
    let body = tokens.body(grant.scope().as_str(), refresh);
    Some(Response::made(body))
}

/// Ends a login, for this cause.
pub(super) fn end_login(
    input: &Input<'_>,
    progress: &mut Progress,
    session: &Session,
    login: &Login,
    cause: Cause,
) -> Step {
    let now = Timestamp::from(input.now);
    let ended = session.ended(&login.approval, now, input.policy.options.retention);
    progress.change(session, ended, cause)
}

/// Ends the login instead of granting it, because its subject or its consent is no longer valid (C15, R11).
pub(super) fn end_instead(
    input: &Input<'_>,
    progress: &mut Progress,
    prepared: &Prepared,
    cause: Cause,
) -> Step {
    let Some(approval) = prepared.session.approval() else {
        return progress.unavailable();
    };
    let now = Timestamp::from(input.now);
    let mut ended = prepared
        .session
        .ended(approval, now, input.policy.options.retention);
    // The prepared session was not stored, so the ended one takes its version.
    ended.version = prepared.session.version;
    progress.cause = cause;
    progress.prepared = Some(Prepared::new(prepared.from, ended));
    Step::Change
}

/// Returns when the login ends even if it is refreshed. Without a limit in the policy it never does.
fn absolute_end(input: &Input<'_>, login: &Login) -> Timestamp {
    let refresh = input.policy.options.refresh.as_ref();
    let absolute = refresh.and_then(|refresh| refresh.absolute);
    login.redeemed_at.after(absolute.unwrap_or(Duration::MAX))
}

/// Decides by what the store has for a token that is to be revoked (R16, R17).
pub(super) fn revoke(input: &Input<'_>, progress: &mut Progress, stored: Option<&Stored>) -> Step {
    let Some(Stored { session, .. }) = stored else {
        return progress.end(Cause::NothingToRevoke);
    };
    if !input.owns(session, progress) {
        return progress.end(Cause::NothingToRevoke);
    }
    match active(session) {
        Some((login, _)) => end_login(input, progress, session, login, Cause::Revoked),
        None => progress.end(Cause::NothingToRevoke),
    }
}

impl Input<'_> {
    /// Parses a refresh token (R1, R2, R15). If this server did not make it, there is no key to load.
    #[cold]
    #[inline(never)]
    pub(super) fn read_token(&mut self, token: &str) {
        if self.policy.options.refresh.is_some()
            && let Some((login, secret)) = RefreshToken::parse(token, self.keys)
        {
            self.key = Some(login);
            self.presented = Some(secret);
        }
    }
}
