//! The exchange: one request or one action of a user. It asks for what it needs until it is done.
//!
//! Rules:
//! 1. A question borrows the exchange and takes its own kind of answer. A question without an answer is asked again.
//! 2. The first [`Exchange::next`] reads the request, in place. Until then an exchange has looked at nothing.

use core::marker::PhantomData;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::authenticate::{Authenticated, Claim, Found};
use super::client::Client;
use super::grant::{Grant, GrantRefusal};
use super::host::{Host, Inserted, Store, Unavailable, Write};
use super::keys::RefreshSecret;
use super::machine::{Input, Prepared, Progress, Quota, Step, Task};
use super::pace::Pace;
use super::page::{self, Review};
use super::page_error::PageError;
use super::rate_limit::{RateLimited, Take};
use super::reply::{Cause, INVALID_GRANT, INVALID_REFRESH, Reply};
use super::request::GrantType;
use super::session::{Change, Session, Stored};
use super::tokens::Tokens;
use super::{issue, poll, refresh};
use crate::code::Entropy;
use crate::digest::{SessionKey, UserKey};
use crate::wire::debug_shows;

/// One request or one action of a user. It ends in a `T`: a [`Reply`], or a `Result` with an [`Authenticated`] client, a [`Review`] or a
/// [`Session`].
///
/// Run it with [`Exchange::run`], or call [`Exchange::next`] until it is done:
///
/// ```
/// use device_flow::code::Entropy;
/// use device_flow::memory::Memory;
/// use device_flow::server::{Client, Exchange, Finish, Grant, Next, Tokens};
///
/// fn run<'r, T: Finish<'r>>(
///     mut exchange: Exchange<'r, T>,
///     clients: &[Client],
///     store: &mut Memory,
///     random: impl Fn() -> [u8; Entropy::OCTETS],
///     mint: impl Fn(Grant<'_>) -> Tokens<'static>,
/// ) -> T {
///     loop {
///         match exchange.next() {
///             Next::Client(claim, ask) => {
///                 let known = clients.iter().find(|known| Some(known.id()) == claim.client_id());
///                 ask.answer(Ok(known));
///             }
///             Next::Take(take, ask) => ask.answer(Ok(store.take(&take))),
///             Next::Load(key, ask) => ask.answer(Ok(store.load(key))),
///             Next::LoadByUserKey(key, ask) => ask.answer(Ok(store.load_by_user_key(key))),
///             Next::Draw(ask) => ask.answer(Ok(random().into())),
///             Next::Insert(session, ask) => ask.answer(Ok(store.insert(session))),
///             Next::Mint(grant, change, ask) => {
///                 let tokens = mint(grant); // in memory; then the guarded write
///                 ask.answer(Ok(store.change(change)), &tokens);
///             }
///             Next::Change(change, ask) => ask.answer(Ok(store.change(change))),
///             Next::SavePace(key, pace) => store.save_pace(key, pace), // it may fail
///             Next::Done(end) => return end,
///         }
///     }
/// }
/// ```
#[must_use = "the peer or the user is waiting for the answer"]
pub struct Exchange<'r, T> {
    input: Input<'r>,
    prepared: Option<Prepared>,
    progress: Progress,
    ends_in: PhantomData<fn() -> T>,
}

/// What an exchange needs next. Answer each question with the `ask` beside it, then call [`Exchange::next`] again.
///
/// If something failed, answer `Err(Unavailable)`. A question that was dropped without an answer is asked again.
#[derive(Debug)]
#[must_use = "the exchange goes on only after the question was answered"]
#[expect(clippy::exhaustive_enums, reason = "a host must answer each")]
pub enum Next<'x, T> {
    /// Find the registration, as it is now, of the client that makes this claim: [`Host::client`].
    Client(Claim<'x>, Ask<'x, Client>),
    /// Take one from a quota, or look whether one is left: [`Store::take`].
    Take(Take, Ask<'x, Take>),
    /// Load a session: [`Store::load`].
    Load(&'x SessionKey, Ask<'x, Stored>),
    /// Load a session by its user key: [`Store::load_by_user_key`].
    LoadByUserKey(&'x UserKey, Ask<'x, Stored>),
    /// Draw fresh octets from a cryptographically secure generator: [`Host::entropy`].
    Draw(Ask<'x, Entropy>),
    /// Insert a new session: [`Store::insert`].
    Insert(&'x Session, Ask<'x, Inserted>),
    /// Mint the tokens of a grant in memory, **then** write the change: [`Host::mint`] and [`Store::change`]. They are one
    /// question, so that nothing is sent that was not stored.
    Mint(Grant<'x>, Change<'x>, Ask<'x, Tokens<'x>>),
    /// Write a change: [`Store::change`].
    Change(Change<'x>, Ask<'x, Write>),
    /// Save the pace of a session: [`Store::save_pace`]. It needs no answer, because the exchange goes on in the same way if the pace could
    /// not be saved.
    SavePace(&'x SessionKey, Pace),
    /// The exchange has ended, with this result. Do not call [`Exchange::next`] again.
    Done(T),
}

/// Takes the answer to one question of [`Next`].
#[must_use = "the question is asked again if it is not answered"]
pub struct Ask<'x, A> {
    input: &'x Input<'x>,
    prepared: Option<&'x Prepared>,
    progress: &'x mut Progress,
    answer: PhantomData<fn(A)>,
}

impl Ask<'_, Client> {
    /// Answers with the registration: `Ok(registry.get(id))`, where `None` means that nobody has this id. A host that verified
    /// the client by itself answers with a [`Found`].
    #[inline(always)]
    pub fn answer<'c>(self, found: Result<impl Into<Found<&'c Client>>, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        progress.step = match (found, self.prepared) {
            (Err(Unavailable), _) => progress.unavailable(), // B8
            (Ok(found), Some(prepared)) => page::client(input, progress, prepared, found.into()),
            (Ok(found), None) if progress.step == Step::ClientOfGrant => {
                poll::grant(input, progress, found.into())
            }
            (Ok(found), None) => match input.credentials.check(&input.form, found.into()) {
                Ok(client) => input.authenticated(progress, client),
                Err(cause) => input.refuse_client(progress, cause),
            },
        };
    }
}

impl Ask<'_, Take> {
    /// Answers with the result of the store: `Ok(Ok(()))`, or `Ok(Err(limited))` if [`Take::apply`] refused.
    pub fn answer(self, taken: Result<Result<(), RateLimited>, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        let Step::Take(quota) = progress.step else {
            return;
        };
        progress.step = match taken {
            // The client is refused in any case, because its secret is wrong.
            _ if quota == Quota::Secret => Step::Done,
            Err(Unavailable) => progress.unavailable(),
            Ok(Err(limited)) => progress.limited(quota, limited),
            Ok(Ok(())) => input.taken(progress, quota),
        };
    }
}

impl Ask<'_, Stored> {
    /// Answers with the session that the store has, or with `Ok(None)` if it has none. **A store that failed is not `Ok(None)`.**
    #[inline(always)]
    pub fn answer(self, stored: Result<Option<&Stored>, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        let is_another = |stored: &Stored| input.key.as_ref() != Some(stored.session.key());
        progress.step = match (stored, input.task) {
            // C1
            (Err(Unavailable), _) | (Ok(_), Task::DeviceAuthorization(_) | Task::Client) => {
                progress.unavailable()
            }
            // C1, R14: another session than the one asked for. A load by user key has its own check.
            (Ok(Some(stored)), Task::Token | Task::Revocation | Task::Decide { .. })
                if is_another(stored) =>
            {
                progress.unavailable()
            }
            (Ok(stored), Task::Token) => match input.grant_type {
                GrantType::DeviceCode => poll::decide(input, progress, stored),
                GrantType::RefreshToken => refresh::decide(input, progress, stored),
            },
            (Ok(stored), Task::Revocation) => refresh::revoke(input, progress, stored),
            (Ok(stored), Task::Enter { .. }) => page::found(input, progress, stored),
            (Ok(stored), Task::Decide { user, deed }) => {
                page::decide(input, progress, stored, user, deed)
            }
        };
    }
}

impl Ask<'_, Entropy> {
    /// Answers with fresh octets. Octets that were never filled are refused ([D8](crate::tables#d8)).
    pub fn answer(self, entropy: Result<Entropy, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        progress.step = match entropy {
            Err(Unavailable) => progress.unavailable(),
            Ok(entropy) if entropy.is_blank() => progress.end(Cause::EntropyBroken),
            Ok(entropy) if matches!(input.task, Task::DeviceAuthorization(_)) => {
                issue::draw(input, progress, entropy)
            }
            Ok(entropy) => {
                progress.secret = Some(RefreshSecret(entropy.secret()));
                refresh::complete(input, progress)
            }
        };
    }
}

impl Ask<'_, Inserted> {
    /// Answers with the result of the store.
    pub fn answer(self, inserted: Result<Inserted, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        progress.step = match inserted {
            Err(Unavailable) => progress.unavailable(),
            Ok(inserted) => issue::inserted(input, progress, self.prepared, inserted),
        };
    }
}

impl Ask<'_, Write> {
    /// Answers with the result of the store.
    pub fn answer(self, written: Result<Write, Unavailable>) {
        let (input, progress) = (self.input, self.progress);
        progress.step = progress.written(&input.task, written);
    }
}

impl Ask<'_, Tokens<'_>> {
    /// Answers with the result of the store, and with the tokens, which are sent only if the change was committed.
    #[inline(always)]
    pub fn answer(self, written: Result<Write, Unavailable>, tokens: &Tokens<'_>) {
        let (input, progress) = (self.input, self.progress);
        progress.step = progress.written(&input.task, written);
        if written == Ok(Write::Committed) {
            progress.made = refresh::tokens(input, self.prepared, progress.secret.as_ref(), tokens);
        }
    }

    /// Answers that no tokens were minted, and that nothing was written.
    pub fn refuse(self, refusal: GrantRefusal) {
        let (input, progress) = (self.input, self.progress);
        let (cause, made) = refusal.outcome();
        progress.made = made;
        progress.step = match self.prepared {
            Some(prepared) if cause == Cause::ConsentGone => {
                refresh::end_instead(input, progress, prepared, cause)
            }
            Some(_) | None => progress.end(cause),
        };
    }
}

impl<'r, T> Exchange<'r, T> {
    #[inline(always)]
    pub(super) const fn new(input: Input<'r>) -> Self {
        Self {
            input,
            prepared: None,
            progress: Progress::start(),
            ends_in: PhantomData,
        }
    }
}

impl<'r, T: Finish<'r>> Exchange<'r, T> {
    /// Returns what the exchange needs next.
    #[expect(clippy::should_implement_trait, reason = "it lends a part of itself")]
    #[inline(always)]
    pub fn next(&mut self) -> Next<'_, T> {
        if self.progress.step == Step::Begin {
            self.progress.step = self.input.begin(&mut self.progress);
        }
        if self.progress.prepared.is_some() {
            self.hold();
        }
        let Self {
            input,
            prepared,
            progress,
            ..
        } = self;
        match (progress.step, &input.key, prepared.as_ref()) {
            (Step::Client, _, _) => {
                let claim = Claim::of_request(&input.credentials, &input.form);
                Next::Client(claim, Ask::new(input, None, progress))
            }
            (Step::ClientOfGrant, _, _) => {
                let client_id = input.credentials.client_id(&input.form);
                let claim = Claim::of_session(client_id.unwrap_or_default());
                Next::Client(claim, Ask::new(input, None, progress))
            }
            (Step::Load, Some(key), _) => Next::Load(key, Ask::new(input, None, progress)),
            (Step::SavePace, Some(key), _) => {
                progress.step = Step::Done;
                match progress.pace {
                    Some(pace) => Next::SavePace(key, pace),
                    None => Next::Done(T::finish(input, None, progress)),
                }
            }
            (Step::Mint, _, Some(own)) => match Grant::new(own, &input.now) {
                Some(grant) => {
                    Next::Mint(grant, own.change(), Ask::new(input, Some(own), progress))
                }
                None => Next::Done(T::finish(input, None, progress)),
            },
            (Step::Change, _, Some(own)) => {
                Next::Change(own.change(), Ask::new(input, Some(own), progress))
            }
            (Step::Insert, _, Some(own)) => {
                Next::Insert(&own.session, Ask::new(input, Some(own), progress))
            }
            (Step::ClientOfSession, _, Some(own)) => {
                let claim = Claim::of_session(own.session.client_id());
                Next::Client(claim, Ask::new(input, Some(own), progress))
            }
            (Step::Draw, _, _) => Next::Draw(Ask::new(input, None, progress)),
            (Step::LoadCurrent | Step::LoadPrevious, _, _) => match input.user_key(progress.step) {
                Some(key) => Next::LoadByUserKey(key, Ask::new(input, None, progress)),
                None => Next::Done(T::finish(input, None, progress)),
            },
            (Step::Take(quota), _, _) => match input.quota(progress, quota) {
                Some(take) => Next::Take(take, Ask::new(input, None, progress)),
                None => Next::Done(T::finish(input, None, progress)),
            },
            (
                Step::Done
                | Step::Begin
                | Step::Load
                | Step::SavePace
                | Step::Mint
                | Step::Change
                | Step::Insert
                | Step::ClientOfSession,
                _,
                own,
            ) => Next::Done(T::finish(input, own, progress)),
        }
    }

    /// Moves the prepared session to where a question can borrow it. If only an assertion named the client, also stores the id that the
    /// host found by it.
    #[inline(never)]
    fn hold(&mut self) {
        let is_ready = matches!(
            self.progress.step,
            Step::Mint | Step::Change | Step::Insert | Step::ClientOfSession | Step::Done
        );
        if is_ready {
            self.prepared = self.progress.prepared.take();
        }
        if self.progress.step == Step::ClientOfGrant
            && let Some(client_id) = self.progress.client_id.take()
        {
            self.input.credentials.set_client_id(&client_id);
        }
    }

    /// Returns the key of the session that the request or the action is about, once the exchange has read it: for a log, or to revoke what
    /// the host has minted.
    pub fn session_key(&self) -> Option<&SessionKey> {
        let prepared = self.prepared.as_ref().map(|own| own.session.key());
        self.input.key.as_ref().or(prepared)
    }

    /// Runs the exchange to its end, and answers its questions from `host`.
    pub async fn run<H: Host>(&mut self, host: &H) -> T {
        let store = host.store();
        loop {
            match self.next() {
                Next::Client(claim, ask) => {
                    let found = host.client(claim).await;
                    ask.answer(found.as_ref().map(Found::as_ref).map_err(|&e| e));
                }
                Next::Take(take, ask) => ask.answer(store.take(take).await),
                Next::Load(key, ask) => {
                    let stored = store.load(key).await;
                    ask.answer(stored.as_ref().map(Option::as_ref).map_err(|&e| e));
                }
                Next::LoadByUserKey(key, ask) => {
                    let stored = store.load_by_user_key(key).await;
                    ask.answer(stored.as_ref().map(Option::as_ref).map_err(|&e| e));
                }
                Next::Draw(ask) => ask.answer(host.entropy()),
                Next::Insert(session, ask) => ask.answer(store.insert(session).await),
                Next::Mint(grant, change, ask) => match host.mint(grant).await {
                    Ok(tokens) => ask.answer(store.change(change).await, &tokens),
                    Err(refusal) => ask.refuse(refusal),
                },
                Next::Change(change, ask) => ask.answer(store.change(change).await),
                Next::SavePace(key, pace) => store.save_pace(key, pace).await,
                Next::Done(end) => return end,
            }
        }
    }

    /// Runs the exchange to its end with a blocking host, whose futures are ready at the first poll. Returns `None` if one was not,
    /// which is a mistake in the host.
    pub fn run_blocking<H: Host>(&mut self, host: &H) -> Option<T> {
        let run = pin!(self.run(host));
        match run.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        }
    }
}

impl<'x, A> Ask<'x, A> {
    #[inline(always)]
    const fn new(
        input: &'x Input<'x>,
        prepared: Option<&'x Prepared>,
        progress: &'x mut Progress,
    ) -> Self {
        Self {
            input,
            prepared,
            progress,
            answer: PhantomData,
        }
    }
}

/// The result of an exchange. Only this crate can implement it.
pub trait Finish<'r>: Sized + core::fmt::Debug {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(input: &Input<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self;
}

impl<'r> Finish<'r> for Reply {
    #[inline(always)]
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(input: &Input<'r>, _: Option<&Prepared>, progress: &mut Progress) -> Self {
        let invalid_grant = match input.grant_type {
            GrantType::DeviceCode => INVALID_GRANT,
            GrantType::RefreshToken => INVALID_REFRESH,
        };
        let made = progress.made.take();
        // If `next` is called again after the end, it reports a failure, because a success must be sent only once.
        let cause = core::mem::replace(&mut progress.cause, Cause::StoreFailed);
        Self::new(cause, progress.number, made, invalid_grant, input.policy)
    }
}

impl<'r> Finish<'r> for Result<Authenticated<'r>, Reply> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(input: &Input<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        match &progress.client_id {
            Some(client_id) => Ok(Authenticated {
                form: input.form,
                client_id: (**client_id).into(),
                is_public: progress.is_public,
            }),
            None => Err(Reply::finish(input, prepared, progress)),
        }
    }
}

impl<'r> Finish<'r> for Result<Review, PageError> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(input: &Input<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        page::review(input, prepared, progress)
    }
}

impl<'r> Finish<'r> for Result<Session, PageError> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(_: &Input<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        page::decided(prepared, progress)
    }
}

debug_shows!(Exchange<'_, T>: progress);
debug_shows!(Ask<'_, A>);
