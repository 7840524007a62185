//! The poll: one stored session, one request, one decision (table C).
//!
//! Rules:
//! 1. The decision is one `match` over the stored state. Ownership is checked first, and expiry before pending.
//! 2. A pending poll writes only its pace.
//! 3. A success is sent only after the guarded write was committed.

use alloc::sync::Arc;

use super::authenticate::Found;
use super::client::Client;
use super::grant::allowed_now;
use super::machine::{Input, Prepared, Progress, Step};
use super::pace::Pace;
use super::refresh;
use super::reply::Cause;
use super::session::{Approval, Login, Session, State, Status, Stored};
use super::timestamp::Timestamp;

/// Decides by what the store has for the device code.
///
/// > If the user has approved the grant, the token endpoint responds with a success response defined in Section 5.1 of
/// > \[RFC6749\]; otherwise, it responds with an error, as defined in Section 5.2 of \[RFC6749\].
/// > ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5))
#[inline(always)]
pub(super) fn decide(input: &Input<'_>, progress: &mut Progress, stored: Option<&Stored>) -> Step {
    let Some(Stored { pace, session }) = stored else {
        return progress.end(Cause::UnknownCode); // C2
    };
    if !input.owns(session, progress) {
        return progress.end(Cause::ForeignClient); // C3
    }
    let now = Timestamp::from(input.now);
    match &session.state {
        State::Active(login) => used(input, progress, session, login, now), // C4
        State::Ended(_) => progress.end(Cause::Ended),                      // C5
        State::Denied(_) => progress.end(Cause::Denied),                    // C6
        State::Pending | State::Claimed(_) if now >= session.expires_at => {
            progress.end(Cause::Expired) // C7
        }
        State::Approved(approval) if now >= approval.redeemable_until => {
            progress.end(Cause::ApprovalExpired) // C8
        }
        State::Pending | State::Claimed(_) => wait(input, progress, pace.as_ref(), now), // C9 to C13, C20
        State::Approved(approval) => redeem(progress, session, approval, now), // C14 to C17
    }
}

/// Decides about a code that was redeemed before (C4).
#[cold]
fn used(
    input: &Input<'_>,
    progress: &mut Progress,
    session: &Session,
    login: &Login,
    now: Timestamp,
) -> Step {
    if progress.losses > 0 && progress.cause != Cause::Replay {
        return progress.end(Cause::LostRace); // C18: another request redeemed it first, which is no replay
    }
    let since = now.since(login.redeemed_at);
    progress.number = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
    if since < input.policy.retry_window {
        return progress.end(Cause::Duplicate);
    }
    refresh::end_login(input, progress, session, login, Cause::Replay)
}

/// Decides about a poll while the user has not decided (C9 to C13, C20).
#[inline(always)]
fn wait(input: &Input<'_>, progress: &mut Progress, pace: Option<&Pace>, now: Timestamp) -> Step {
    let policy = input.policy;
    let (cause, next) = match pace {
        None => (Cause::Pending, Pace::accepted(now, policy.interval)), // C10
        Some(pace) if !pace.is_early(now) => (Cause::Pending, Pace::accepted(now, pace.interval)), // C9, C11
        Some(pace) if pace.is_repeated(now) => return progress.end(Cause::Repeated), // C20
        Some(pace) => {
            let Some(wider) = pace.widened(policy.cap) else {
                progress.number = pace.interval;
                return progress.end(Cause::TooFast); // C13
            };
            (Cause::TooFast, wider) // C12
        }
    };
    progress.cause = cause;
    progress.number = next.interval;
    progress.pace = Some(next);
    Step::SavePace
}

/// Prepares the redemption of an approved session. The client is looked up first, because it may have lost scopes (C15).
fn redeem(
    progress: &mut Progress,
    session: &Session,
    approval: &Arc<Approval>,
    now: Timestamp,
) -> Step {
    let login = Login {
        approval: approval.clone(),
        redeemed_at: now,
        refresh: None,
    };
    progress.cause = Cause::Granted;
    let next = session.next(State::Active(Arc::new(login)), session.purge_at);
    progress.prepared = Some(Prepared::new(Status::Approved, next));
    Step::ClientOfGrant
}

/// Grants the part of the approved scope that the client may still ask for.
pub(super) fn grant(input: &Input<'_>, progress: &mut Progress, found: Found<&Client>) -> Step {
    let is_named = |client: &&Client| input.credentials.names(&input.form, &client.id);
    let Some(client) = found.registration().filter(is_named) else {
        return progress.end(Cause::UnknownClient);
    };
    if client.disabled {
        return progress.end(Cause::ClientDisabled);
    }
    let Some(prepared) = &mut progress.prepared else {
        return progress.unavailable();
    };
    let Some(approved) = prepared.session.granted() else {
        return progress.unavailable();
    };
    let Ok(scope) = allowed_now(approved, &client.allowed) else {
        return consent_gone(input, progress);
    };
    let granted = scope.as_ref().unwrap_or(approved);
    let policy = input.policy.options.refresh.as_ref();
    let is_refreshable = policy.is_some_and(|policy| granted.contains(&policy.scope));
    prepared.scope = scope;
    if is_refreshable {
        refresh::complete(input, progress)
    } else {
        Step::Mint
    }
}

/// Ends the login, because the client may no longer have anything that was granted ([C15](crate::tables#c15)).
#[cold]
fn consent_gone(input: &Input<'_>, progress: &mut Progress) -> Step {
    match progress.prepared.take() {
        Some(prepared) => refresh::end_instead(input, progress, &prepared, Cause::ConsentGone),
        None => progress.unavailable(),
    }
}
