//! The parts of an exchange: the request, the progress, and the prepared next state of the session.
//!
//! Rules:
//! 1. The three parts are borrowed separately. A question borrows the request (`Input`) and the prepared state. Its answer borrows the
//!    progress.
//! 2. Only `Exchange::next` changes `Input`. It writes what it read of the request before the first question, and later the id of a client
//!    that only an assertion named.

use alloc::boxed::Box;
use alloc::sync::Arc;

use time::OffsetDateTime;

use super::authenticate::Credentials;
use super::consent::Deed;
use super::keys::{RefreshSecret, ServerKeys};
use super::pace::Pace;
use super::page_error::PageError;
use super::policy::Policy;
use super::reply::Cause;
use super::request::{Form, GrantType};
use super::response::Response;
use super::session::{Change, Session, Status};
use super::subject::Subject;
use crate::code::{DeviceCode, UserCode};
use crate::digest::{QuotaKey, SessionKey, UserKey};
use crate::scope::Scope;
use crate::wire::debug_shows;

/// Which request or action the exchange serves.
#[derive(Clone, Copy)]
pub(super) enum Task<'r> {
    Token,
    DeviceAuthorization(Option<&'r str>),
    Revocation,
    Client,
    Enter { typed: &'r str, user: &'r Subject },
    Decide { user: &'r Subject, deed: Deed<'r> },
}

/// The request, and what was read from it. Answers do not change it.
pub(super) struct Input<'r> {
    pub(super) policy: &'r Policy,
    pub(super) keys: &'r ServerKeys,
    pub(super) now: OffsetDateTime,
    pub(super) task: Task<'r>,
    pub(super) source: &'r str,
    pub(super) form: Form<'r>,
    pub(super) credentials: Credentials,
    /// The key of the session to load.
    pub(super) key: Option<SessionKey>,
    /// The secret of the refresh token that was presented.
    pub(super) presented: Option<RefreshSecret>,
    pub(super) typed: Option<Box<Typed>>,
    pub(super) grant_type: GrantType,
}

/// A user code that was typed, and the keys under which its session may be stored.
pub(super) struct Typed {
    pub(super) code: UserCode,
    pub(super) current: UserKey,
    pub(super) previous: Option<UserKey>,
}

/// A session in its next state, and the state from which that was decided.
pub(super) struct Prepared {
    pub(super) session: Session,
    pub(super) from: Status,
    /// The scope of the tokens, if it is less than what was granted.
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
    /// The cause of the reply, unless a later step replaces it.
    pub(super) cause: Cause,
    /// The number that belongs to the cause: see [`Reply::new`](super::reply::Reply::new).
    pub(super) number: u32,
    /// How many guarded writes were in conflict.
    pub(super) losses: u8,
    /// How often codes were drawn again.
    pub(super) redraws: u8,
    pub(super) pace: Option<Pace>,
    /// The response, if its body was made for this request.
    pub(super) made: Option<Response>,
    /// The scope that the client asks for when it requests new codes.
    pub(super) requested: Option<Scope>,
    /// The scope that the client may ask for when it refreshes. A poll does not set this field, because setting it would make every pending
    /// poll a tenth slower.
    pub(super) allowed: Option<Scope>,
    /// The id of the authenticated client, if a later step needs it.
    pub(super) client_id: Option<Arc<str>>,
    /// Whether the client is public. Its requests for codes are then counted together with their source.
    pub(super) is_public: bool,
    /// The prepared session, until [`super::exchange::Exchange::next`] moves it to where a question can borrow it.
    pub(super) prepared: Option<Prepared>,
    /// The session under the current user key, while the code is looked up under the previous one.
    pub(super) found: Option<Box<Session>>,
    /// The secret of the next refresh token.
    pub(super) secret: Option<RefreshSecret>,
    pub(super) trouble: Option<PageError>,
    pub(super) shown: Option<Box<Shown>>,
}

debug_shows!(Progress: step, cause);

/// What the review shows about the client.
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
    /// Find the client of the prepared session.
    ClientOfSession,
    /// Find the client again, because tokens are to be minted for it.
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
    /// Check whether too many wrong secrets were presented before.
    LookAtSecrets,
    /// Count a wrong secret.
    Secret,
    Issuing,
    Refresh,
    GuessByUser,
    GuessBySource,
}

/// How often a guarded write is tried.
const ATTEMPTS: u8 = 3;

impl Progress {
    /// Returns the progress at the start. It is a function, because a constant would be copied whole, with the room for the prepared
    /// session.
    #[inline(always)]
    pub(super) const fn start() -> Self {
        Self {
            step: Step::Begin,
            cause: Cause::StoreFailed,
            number: 0,
            losses: 0,
            redraws: 0,
            pace: None,
            made: None,
            requested: None,
            allowed: None,
            client_id: None,
            is_public: false,
            prepared: None,
            found: None,
            secret: None,
            trouble: None,
            shown: None,
        }
    }

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

    /// Decides again by what is stored now, because a guarded write was in conflict. After the third conflict it gives up (C18).
    #[cold]
    pub(super) fn lost(&mut self, task: &Task<'_>) -> Step {
        self.losses = self.losses.saturating_add(1);
        if self.losses >= ATTEMPTS {
            self.trouble = Some(PageError::Unavailable);
            return self.end(Cause::Contended);
        }
        if matches!(task, Task::Enter { .. }) {
            return Step::LoadCurrent;
        }
        Step::Load
    }

    /// Writes the next state of the session, and then ends with this cause.
    pub(super) fn change(&mut self, from: &Session, to: Session, cause: Cause) -> Step {
        self.cause = cause;
        self.prepared = Some(Prepared::new(from.status(), to));
        Step::Change
    }
}

impl Input<'_> {
    /// Whether the session belongs to the client that asks.
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
