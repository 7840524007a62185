//! What an exchange is made of: what it was asked, how far it is, and the next state of the session.
//!
//! Rules:
//! 1. The three parts are borrowed apart: a question borrows what is fixed and what is prepared, its answer the progress.
//! 2. Only `Exchange::next` puts something into the fixed part, before the first question.

use alloc::boxed::Box;
use alloc::sync::Arc;

use time::OffsetDateTime;

use super::authenticate::Credentials;
use super::consent::Deed;
use super::keys::{RefreshSecret, ServerKeys};
use super::pace::Pace;
use super::page_error::PageError;
use super::policy::Policy;
use super::reply::{Cause, Own};
use super::request::{Form, GrantType};
use super::session::{Change, Session, Status};
use super::subject::Subject;
use crate::code::{DeviceCode, UserCode};
use crate::digest::{QuotaKey, SessionKey, UserKey};
use crate::scope::Scope;
use crate::wire::debug_shows;

/// What is asked of the server.
#[derive(Clone, Copy)]
pub(super) enum Task<'r> {
    Token,
    DeviceAuthorization(Option<&'r str>),
    Revocation,
    Client,
    Enter { typed: &'r str, user: &'r Subject },
    Decide { user: &'r Subject, deed: Deed<'r> },
}

/// What does not change once the request was read.
pub(super) struct Fixed<'r> {
    pub(super) policy: &'r Policy,
    pub(super) keys: &'r ServerKeys,
    pub(super) now: OffsetDateTime,
    pub(super) task: Task<'r>,
    pub(super) source: &'r str,
    pub(super) form: Form<'r>,
    pub(super) credentials: Credentials,
    /// Of the session that is to be loaded.
    pub(super) key: Option<SessionKey>,
    /// The secret of the refresh token that was presented.
    pub(super) presented: Option<RefreshSecret>,
    /// Of the code that was typed.
    pub(super) typed: Option<Box<Typed>>,
    pub(super) grant_type: GrantType,
}

/// A user code that was typed, and the keys under which its session may be.
pub(super) struct Typed {
    pub(super) code: UserCode,
    pub(super) current: UserKey,
    pub(super) previous: Option<UserKey>,
}

/// A session in the state that it is to have, and what that was decided on.
pub(super) struct Prepared {
    pub(super) session: Session,
    pub(super) from: Status,
    /// What tokens are for, where that is less than what was granted.
    pub(super) scope: Option<Scope>,
    /// The codes of a new session.
    pub(super) codes: Option<(DeviceCode, UserCode)>,
}

impl Prepared {
    pub(super) const fn new(from: Status, session: Session) -> Self {
        Self {
            session,
            from,
            scope: None,
            codes: None,
        }
    }

    pub(super) const fn change(&self) -> Change<'_> {
        Change {
            session: &self.session,
            from: self.from,
        }
    }
}

/// How far the exchange is.
pub(super) struct Progress {
    pub(super) step: Step,
    /// Why the reply will be what it is, if nothing more comes between.
    pub(super) cause: Cause,
    /// What the cause comes with.
    pub(super) number: u32,
    /// How many guarded writes were lost.
    pub(super) losses: u8,
    /// How often codes were drawn again.
    pub(super) redraws: u8,
    pub(super) pace: Option<Pace>,
    pub(super) own: Own,
    /// What the client asks for, or may ask for at a refresh. A poll looks at that only once the session is approved:
    /// to keep it would cost every pending poll a tenth of its time.
    pub(super) scope: Option<Scope>,
    /// The id of the client, where the request names none.
    pub(super) client_id: Option<Arc<str>>,
    /// Whether an issuing is counted by its source, too.
    pub(super) is_by_source: bool,
    /// On its way to [`super::exchange::Exchange`], which keeps it where a question can borrow it. Or what was found under the
    /// current key of a user code, while the previous key is looked up.
    pub(super) prepared: Option<Prepared>,
    /// Of the refresh token that is being made.
    pub(super) secret: Option<RefreshSecret>,
    pub(super) trouble: Option<PageError>,
    /// What the review shows of the client.
    pub(super) shown: Option<Box<Shown>>,
}

debug_shows!(Progress: step, cause);

/// What the review shows of the client.
pub(super) struct Shown {
    pub(super) name: Option<Arc<str>>,
    pub(super) is_public: bool,
}

/// What an exchange asks next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begin,
    Take(Quota),
    Client,
    Load,
    LoadCurrent,
    LoadPrevious,
    /// The client of the session that was prepared.
    ClientOfSession,
    /// What the client may ask for, now that tokens are to be minted for it.
    ClientOfGrant,
    Draw,
    Insert,
    Mint,
    Change,
    SavePace,
    Done,
}

/// A quota that is looked at or taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quota {
    /// Whether too many wrong secrets were presented before.
    LookAtSecrets,
    /// A wrong secret.
    Secret,
    Issuing,
    Refresh,
    GuessByUser,
    GuessBySource,
}

/// How often a guarded write is tried.
const ATTEMPTS: u8 = 3;

impl Progress {
    /// A function, not a constant: a constant would be copied whole, with the room for what is prepared.
    #[inline(always)]
    pub(super) const fn start() -> Self {
        Self {
            step: Step::Begin,
            cause: Cause::StoreFailed,
            number: 0,
            losses: 0,
            redraws: 0,
            pace: None,
            own: Own::Nothing,
            scope: None,
            client_id: None,
            is_by_source: false,
            prepared: None,
            secret: None,
            trouble: None,
            shown: None,
        }
    }

    /// Ends with this cause.
    #[inline(always)]
    pub(super) const fn end(&mut self, cause: Cause) -> Step {
        self.cause = cause;
        Step::Done
    }

    /// Ends an action of the page.
    pub(super) const fn refuse(&mut self, trouble: PageError) -> Step {
        self.trouble = Some(trouble);
        Step::Done
    }

    /// Ends because the host could not answer, or answered something else than it was asked for (B8, C1).
    #[cold]
    pub(super) fn unavailable(&mut self) -> Step {
        self.trouble = Some(PageError::Unavailable);
        self.end(Cause::StoreFailed)
    }

    /// A guarded write was lost: decide again on what is stored now, three times at most (C18).
    #[cold]
    pub(super) fn lost(&mut self, task: &Task<'_>) -> Step {
        self.losses = self.losses.saturating_add(1);
        if self.losses >= ATTEMPTS {
            self.trouble = Some(PageError::Unavailable);
            return self.end(Cause::Contended);
        }
        match task {
            Task::Enter { .. } => Step::LoadCurrent,
            Task::Token
            | Task::DeviceAuthorization(_)
            | Task::Revocation
            | Task::Client
            | Task::Decide { .. } => Step::Load,
        }
    }

    /// Writes the next state of the session; then ends with this cause.
    pub(super) fn change(&mut self, from: &Session, to: Session, cause: Cause) -> Step {
        self.cause = cause;
        self.prepared = Some(Prepared::new(from.status(), to));
        Step::Change
    }
}

impl Fixed<'_> {
    /// Whether the session is of the client that asks.
    #[inline(always)]
    pub(super) fn owns(&self, session: &Session, progress: &Progress) -> bool {
        match &progress.client_id {
            Some(id) => *id == session.client_id,
            None => self.credentials.names(&self.form, &session.client_id),
        }
    }

    /// The key of the quota of wrong secrets.
    pub(super) fn secrets(&self) -> QuotaKey {
        let client_id = self.credentials.client_id(&self.form);
        QuotaKey::secrets(client_id.unwrap_or_default(), self.source)
    }
}
