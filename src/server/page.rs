//! The verification page: a user enters a code, decides, and withdraws or releases (table U).
//!
//! Rules:
//! 1. Every entry of a code takes a guess from a quota before anything is looked up. A right code does not give it back.
//! 2. If a code has expired, was used or is claimed by another user, the user is told the same as for a wrong code.
//! 3. Entering claims the session. Only the claimant can decide, and becomes the subject.
//! 4. A decision first checks that the user is the claimant, so that an error tells a stranger only whether the session exists.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::time::Duration;

use super::authenticate::Found;
use super::client::Client;
use super::consent::{Consent, Deed};
use super::machine::{Input, Prepared, Progress, Quota, Shown, Step, Task, Typed};
use super::page_error::PageError;
use super::session::{Approval, Session, State, Status, Stored};
use super::subject::Subject;
use super::timestamp::Timestamp;
use crate::code::UserCode;
use crate::digest::SessionKey;
use crate::scope::Scope;
use crate::wire::debug_shows;

/// What the user is shown before deciding ([RFC 8628, section 3.3](https://www.rfc-editor.org/rfc/rfc8628#section-3.3)).
///
/// # Security
///
/// All of it is untrusted text: escape it. Show the code and ask whether the device shows the same. Warn that somebody else may have sent
/// the user here ([RFC 8628, section 5.4](https://www.rfc-editor.org/rfc/rfc8628#section-5.4)). Enter and decide only on a POST **with a
/// CSRF token**: an attacker who asked for the codes knows the user code and the session key, and could otherwise make the user's browser
/// send both forms.
pub struct Review {
    session: Session,
    code: UserCode,
    client_name: Option<Arc<str>>,
    is_public: bool,
    now: Timestamp,
}

impl Review {
    /// Returns the key of the session, which [`Server::approve`](super::Server::approve) and [`Server::deny`](super::Server::deny)
    /// take when the user decides. Keep it in the user's web session or in the page. Only the claimant can decide with it. It does not
    /// replace a CSRF token, because it is no secret: the device can compute it.
    pub const fn session_key(&self) -> &SessionKey {
        self.session.key()
    }

    /// Returns the id of the client that asks.
    pub fn client_id(&self) -> &str {
        self.session.client_id()
    }

    /// Returns the name of the client that asks, if its registration has one.
    pub fn client_name(&self) -> Option<&str> {
        self.client_name.as_deref()
    }

    /// Returns whether anybody can claim to be this client. **Tell the user so.**
    pub const fn is_public_client(&self) -> bool {
        self.is_public
    }

    /// Returns the scope that the client asks for. The user may grant less.
    pub const fn scope(&self) -> &Scope {
        self.session.scope()
    }

    /// Returns how long ago the client asked for the codes.
    pub fn age(&self) -> Duration {
        self.now.since(self.session.issued())
    }

    /// Returns how much time is left to decide.
    pub fn time_left(&self) -> Duration {
        self.session.expires_at.since(self.now)
    }

    /// Returns where the request for codes came from, if the host said so.
    pub fn shown_source(&self) -> Option<&str> {
        self.session.shown_source()
    }

    /// Returns the code, for the user to compare with the one on the device. Show it by [`UserCode::display`].
    pub const fn user_code(&self) -> &UserCode {
        &self.code
    }
}

debug_shows!(Review: session);

/// Reads what a user typed, whatever its case, dashes, spaces and full-width forms. Returns `None` if it is no code of the policy.
pub(super) fn read(input: &Input<'_>, typed: &str) -> Option<Box<Typed>> {
    let code = input.policy.options.user_code.read(typed)?;
    let (current, previous) = input.keys.user_keys(&code);
    Some(Box::new(Typed {
        code,
        current,
        previous,
    }))
}

/// Returns the step after a guess was taken: the quota of the source, or the look-up.
pub(super) fn guessed(input: &Input<'_>, progress: &mut Progress) -> Step {
    if progress.step == Step::Take(Quota::GuessByUser) && !input.source.is_empty() {
        return Step::Take(Quota::GuessBySource);
    }
    if input.typed.is_none() {
        return progress.refuse(PageError::MalformedCode); // U2
    }
    Step::LoadCurrent
}

/// Decides by what the store has for the user code under the current or the previous server key.
pub(super) fn found(input: &Input<'_>, progress: &mut Progress, stored: Option<&Stored>) -> Step {
    let Some(typed) = &input.typed else {
        return progress.unavailable();
    };
    // An index may still name a session whose code was redeemed.
    let session = stored.map(|stored| &stored.session);
    let session = session.filter(|session| session.user_key().is_some());
    let asked = input.user_key(progress.step);
    if session.is_some_and(|session| session.user_key() != asked) {
        return progress.unavailable(); // another session than the one asked for
    }
    if progress.step == Step::LoadCurrent && typed.previous.is_some() {
        progress.found = session.cloned().map(Box::new);
        return Step::LoadPrevious;
    }
    match (progress.found.take(), session) {
        (Some(_), Some(_)) => progress.refuse(PageError::AmbiguousCode), // U13
        (Some(found), None) => enter(input, progress, &found),
        (None, Some(session)) => enter(input, progress, session),
        (None, None) => progress.refuse(PageError::UnknownCode), // U2
    }
}

/// Enters the code of a session ([U3](crate::tables#u3), [U4](crate::tables#u4)). The client is looked up before anything is shown or
/// written.
fn enter(input: &Input<'_>, progress: &mut Progress, session: &Session) -> Step {
    let Task::Enter { user, .. } = input.task else {
        return progress.unavailable();
    };
    let now = Timestamp::from(input.now);
    let next = match &session.state {
        State::Approved(_) | State::Denied(_) | State::Active(_) | State::Ended(_) => {
            return progress.refuse(PageError::UsedCode);
        }
        State::Pending | State::Claimed(_) if now >= session.expires_at => {
            return progress.refuse(PageError::ExpiredCode);
        }
        State::Claimed(claimant) if **claimant != *user => {
            return progress.refuse(PageError::ClaimedByAnother);
        }
        State::Claimed(_) => session.clone(),
        State::Pending => session.next(State::Claimed(Arc::new(user.clone())), session.purge_at),
    };
    progress.prepared = Some(Prepared::new(session.status(), next));
    Step::ClientOfSession
}

/// Goes on only if the client of the session may still use the device grant ([U14](crate::tables#u14)).
pub(super) fn client(
    input: &Input<'_>,
    progress: &mut Progress,
    prepared: &Prepared,
    found: Found<&Client>,
) -> Step {
    let is_of = |client: &&Client| *client.id == *prepared.session.client_id;
    let Some(client) = found
        .registration()
        .filter(is_of)
        .filter(|client| client.may_use_device_grant())
    else {
        return progress.refuse(PageError::ClientGone);
    };
    if matches!(input.task, Task::Enter { .. }) {
        progress.shown = Some(Box::new(Shown {
            name: client.name.clone(),
            is_public: client.is_public(),
        }));
        // A session that this user claimed before is shown again, without a change.
        if prepared.from == Status::Claimed {
            return Step::Done;
        }
    }
    Step::Change
}

/// Carries out what a user does with a session ([U5](crate::tables#u5) to [U12](crate::tables#u12)).
pub(super) fn decide(
    input: &Input<'_>,
    progress: &mut Progress,
    stored: Option<&Stored>,
    user: &Subject,
    deed: Deed<'_>,
) -> Step {
    let Some(Stored { session, .. }) = stored else {
        return progress.refuse(PageError::Expired);
    };
    // U5: only the claimant can decide.
    if session.claimant() != Some(user) {
        return progress.refuse(PageError::NotYours);
    }
    let now = Timestamp::from(input.now);
    let decided = match deed {
        Deed::Approve(consent) => approve(input, session, consent, now),
        Deed::Deny => deny(session, now),
        Deed::Withdraw => withdraw(input, session, now),
        Deed::Release => release(session),
    };
    let (next, step) = match decided {
        Ok(Some(next)) if matches!(deed, Deed::Approve(_)) => (next, Step::ClientOfSession),
        Ok(Some(next)) => (next, Step::Change),
        // The same decision was made before.
        Ok(None) => (session.clone(), Step::Done),
        Err(trouble) => return progress.refuse(trouble),
    };
    progress.prepared = Some(Prepared::new(session.status(), next));
    step
}

type Decided = Result<Option<Session>, PageError>;

/// Approves: [U6](crate::tables#u6), [U7](crate::tables#u7), [U8](crate::tables#u8), [U10](crate::tables#u10).
fn approve(input: &Input<'_>, session: &Session, consent: &Consent, now: Timestamp) -> Decided {
    let scope = consent.scope.as_ref().unwrap_or(&session.scope);
    match &session.state {
        State::Pending => Err(PageError::NotYours),
        State::Claimed(_) if now >= session.expires_at => Err(PageError::Expired),
        State::Claimed(subject) => {
            if !scope.is_granted_of(&session.scope) {
                return Err(PageError::Scope);
            }
            let policy = input.policy;
            let redeemable_until = session.expires_at.max(now.after(policy.redeem_time()));
            let approval = Approval {
                subject: (**subject).clone(),
                scope: scope.clone(),
                value: consent.value.clone(),
                approved_at: now,
                redeemable_until,
            };
            let state = State::Approved(Arc::new(approval));
            Ok(Some(session.next(
                state,
                redeemable_until.after(policy.options.retention),
            )))
        }
        // The same decision again, whatever the order of the scope tokens.
        State::Approved(_) | State::Active(_)
            if session
                .granted()
                .is_some_and(|granted| scope.is_within(granted) && granted.is_within(scope)) =>
        {
            Ok(None)
        }
        State::Approved(_) | State::Active(_) | State::Denied(_) | State::Ended(_) => {
            Err(PageError::Decided)
        }
    }
}

/// Denies: [U6](crate::tables#u6), [U9](crate::tables#u9), [U10](crate::tables#u10).
fn deny(session: &Session, now: Timestamp) -> Decided {
    match &session.state {
        State::Pending => Err(PageError::NotYours),
        State::Claimed(_) if now >= session.expires_at => Err(PageError::Expired),
        State::Claimed(subject) => {
            let state = State::Denied(subject.clone());
            Ok(Some(session.next(state, session.purge_at)))
        }
        State::Denied(_) => Ok(None),
        State::Approved(_) | State::Active(_) | State::Ended(_) => Err(PageError::Decided),
    }
}

/// Withdraws an approval, or the login that came of it ([U11](crate::tables#u11)). If a redemption comes at the same time, one of
/// the two changes is in conflict.
fn withdraw(input: &Input<'_>, session: &Session, now: Timestamp) -> Decided {
    match &session.state {
        State::Approved(_) | State::Active(_) => {
            let approval = session.approval();
            let retention = input.policy.options.retention;
            Ok(approval.map(|approval| session.ended(approval, now, retention)))
        }
        State::Ended(_) => Ok(None),
        State::Denied(_) => Err(PageError::Decided),
        State::Pending | State::Claimed(_) => Err(PageError::Undecided),
    }
}

/// Releases the session: [U12](crate::tables#u12).
fn release(session: &Session) -> Decided {
    match &session.state {
        State::Claimed(_) => Ok(Some(session.next(State::Pending, session.purge_at))),
        State::Pending => Err(PageError::NotYours),
        State::Approved(_) | State::Active(_) | State::Denied(_) | State::Ended(_) => {
            Err(PageError::Decided)
        }
    }
}

pub(super) fn review(
    input: &Input<'_>,
    prepared: Option<&Prepared>,
    progress: &mut Progress,
) -> Result<Review, PageError> {
    if let Some(trouble) = progress.trouble {
        return Err(trouble);
    }
    let (Some(prepared), Some(typed)) = (prepared, &input.typed) else {
        return Err(PageError::Unavailable);
    };
    let shown = progress.shown.take().ok_or(PageError::Unavailable)?;
    Ok(Review {
        session: prepared.session.clone(),
        code: typed.code,
        client_name: shown.name,
        is_public: shown.is_public,
        now: Timestamp::from(input.now),
    })
}

pub(super) fn decided(
    prepared: Option<&Prepared>,
    progress: &Progress,
) -> Result<Session, PageError> {
    match (progress.trouble, prepared) {
        (Some(trouble), _) => Err(trouble),
        (None, Some(prepared)) => Ok(prepared.session.clone()),
        (None, None) => Err(PageError::Unavailable),
    }
}
