//! The exchange: one request, or one action of a user, that says what it needs and goes on until it is done.
//!
//! Rules:
//! 1. A question borrows the exchange and takes its own kind of answer. What was not answered is asked again.
//! 2. The first [`Exchange::next`] reads the request, in place. Until then an exchange has looked at nothing.
//! 3. The order of the questions is here and nowhere else: quotas before look-ups, minting before the guarded write, the
//!    response after it.

use core::fmt;
use core::marker::PhantomData;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::borrow::Borrow as _;

use time::OffsetDateTime;

use super::authenticate::{Claim, Credentials, Found};
use super::client::Client;
use super::grant::{Grant, GrantRefusal};
use super::host::{Host, Inserted, Store, Unavailable, Write};
use super::keys::ServerKeys;
use super::machine::{Fixed, Prepared, Progress, Quota, Step, Task};
use super::pace::Pace;
use super::page::{self, Consent, Deed, PageError, Review};
use super::policy::Policy;
use super::rate_limit::{RateLimited, Take};
use super::reply::{Cause, INVALID_GRANT, INVALID_REFRESH, Reply};
use super::request::{Form, GrantType, Request};
use super::session::{Change, Session, Stored};
use super::subject::Subject;
use super::{issue, poll, refresh};
use crate::code::Entropy;
use crate::digest::{Digest, QuotaKey, SessionKey, UserKey};
use crate::wire::tokens::Tokens;

/// The server half: a policy and the secret keys. Make it once and share it between all requests.
///
/// Each method makes an [`Exchange`] for one request or for one action of a user. `source` is where a request comes from, an
/// address for example: quotas are counted by it. `now` is a reading of the wall clock.
#[derive(Debug)]
pub struct Server {
    policy: Policy,
    keys: ServerKeys,
}

impl Server {
    /// Makes a server of this policy with these keys.
    pub const fn new(policy: Policy, keys: ServerKeys) -> Self {
        Self { policy, keys }
    }

    /// Returns the policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Serves the token endpoint: polls with a device code ([RFC 8628, section 3.4]) and refreshes ([RFC 6749, section 6]).
    ///
    /// Any other grant is refused with [`Cause::GrantTypeUnsupported`]. A host that serves one looks for that cause, and then
    /// answers the request itself with [`Server::client`].
    ///
    /// [RFC 8628, section 3.4]: https://www.rfc-editor.org/rfc/rfc8628#section-3.4
    /// [RFC 6749, section 6]: https://www.rfc-editor.org/rfc/rfc6749#section-6
    #[inline(always)]
    pub fn token<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Reply> {
        self.exchange(Task::Token, request, source, None, now)
    }

    /// Serves the device authorization endpoint ([RFC 8628, section 3.1]). `shown` says where the request came from,
    /// as far as the host knows: an address, a place, a user agent. It is kept for the user who decides, and shown in the
    /// [`Review`]. It is cut at 256 bytes; control and format characters are replaced, because some of them change the order of
    /// what is read.
    ///
    /// [RFC 8628, section 3.1]: https://www.rfc-editor.org/rfc/rfc8628#section-3.1
    #[inline(always)]
    pub fn device_authorization<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        shown: Option<&'r str>,
        now: OffsetDateTime,
    ) -> Exchange<'r, Reply> {
        self.exchange(Task::DeviceAuthorization(shown), request, source, None, now)
    }

    /// Serves the revocation endpoint ([RFC 7009, section 2]). Revoking a refresh token ends the login. It is answered 200
    /// whatever the token was.
    ///
    /// [RFC 7009, section 2]: https://www.rfc-editor.org/rfc/rfc7009#section-2
    pub fn revocation<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Reply> {
        self.exchange(Task::Revocation, request, source, None, now)
    }

    /// Authenticates the client of a grant or an endpoint of the host's own, by the same rules and quotas. What the client may do
    /// there is the host's to say. The exchange ends in the client and its parameters, or in the reply to send.
    pub fn client<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Authenticated<'r>, Reply>> {
        self.exchange(Task::Client, request, source, None, now)
    }

    /// Enters the code that a signed-in user typed and submitted with a POST. It ends in what the user is to be shown before
    /// deciding. The session is then claimed: only this user can decide.
    ///
    /// Each entry takes a guess from the quota of this user. If `source` is not empty, it takes one from the quota of the source,
    /// too. **Leave it empty where many users have the same source**, or they lock each other out.
    pub fn enter<'r>(
        &'r self,
        typed: &'r str,
        user: &'r Subject,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Review, PageError>> {
        let task = Task::Enter { typed, user };
        self.exchange(task, Request::NONE, source, None, now)
    }

    /// Approves the session of a [`Review`]. The exchange ends in the approved session. Approving the same again succeeds.
    pub fn approve<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        consent: &'r Consent,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Approve(consent), now)
    }

    /// Denies the session of a [`Review`], for good. Denying again succeeds.
    pub fn deny<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Deny, now)
    }

    /// Takes an approval back: before the device has its tokens, or later, which ends the login. Withdrawing again succeeds.
    pub fn withdraw<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Withdraw, now)
    }

    /// Gives the session of a [`Review`] back unclaimed, so that the same person can enter the code with another account.
    pub fn release<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Release, now)
    }

    fn decide<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        deed: Deed<'r>,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        let task = Task::Decide { user, deed };
        self.exchange(task, Request::NONE, "", Some(*session), now)
    }

    #[inline(always)]
    const fn exchange<'r, T>(
        &'r self,
        task: Task<'r>,
        request: Request<'r>,
        source: &'r str,
        key: Option<SessionKey>,
        now: OffsetDateTime,
    ) -> Exchange<'r, T> {
        Exchange {
            fixed: Fixed {
                policy: &self.policy,
                keys: &self.keys,
                now,
                task,
                source,
                form: Form::new(request),
                credentials: Credentials::NONE,
                key,
                presented: None,
                typed: None,
                grant_type: GrantType::DeviceCode,
            },
            prepared: None,
            progress: Progress::START,
            ends_in: PhantomData,
        }
    }
}

/// One request, or one action of a user, on its way to a `T`: a [`Reply`], a [`Review`], a decided [`Session`].
///
/// Run it with [`Exchange::run`], or ask it yourself what it needs, until it is done:
///
/// ```
/// use device_flow::code::Entropy;
/// use device_flow::memory::Memory;
/// use device_flow::server::{Client, Exchange, Finish, Grant, Next};
/// use device_flow::wire::tokens::Tokens;
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
    fixed: Fixed<'r>,
    prepared: Option<Box<Prepared>>,
    progress: Progress,
    ends_in: PhantomData<fn() -> T>,
}

/// What an exchange needs next. Answer it with the `ask` beside the question, then call [`Exchange::next`] again.
///
/// A host whose part has failed answers `Err(Unavailable)`. A question that was dropped without an answer is asked again.
#[must_use = "the exchange goes on when the question was answered"]
#[expect(clippy::exhaustive_enums, reason = "a host must answer each")]
pub enum Next<'x, T> {
    /// Find the registration of the client that claims to be this, as it is now.
    Client(Claim<'x>, Ask<'x, Client>),
    /// Take one from a quota, or look whether one is left: [`Store::take`].
    Take(Take, Ask<'x, Take>),
    /// Load a session: [`Store::load`].
    Load(&'x SessionKey, Ask<'x, Stored>),
    /// Load a session: [`Store::load_by_user_key`].
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
    /// Save the pace of a session: [`Store::save_pace`]. There is nothing to answer, because it may fail.
    SavePace(&'x SessionKey, Pace),
    /// The exchange has ended in this. Do not ask it again.
    Done(T),
}

/// The answer that a question of [`Next`] takes, of its own kind. To drop it is to leave the question unanswered.
#[must_use = "the question is asked again if it is not answered"]
pub struct Ask<'x, A> {
    fixed: &'x Fixed<'x>,
    prepared: Option<&'x Prepared>,
    progress: &'x mut Progress,
    answer: PhantomData<fn(A)>,
}

impl Ask<'_, Client> {
    /// Answers with the registration: `Ok(registry.get(id))`, where `None` means that nobody has this id. A host that verified
    /// the client by itself answers with a [`Found`].
    #[inline(always)]
    pub fn answer<'c>(self, found: Result<impl Into<Found<&'c Client>>, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        progress.step = match (found, self.prepared) {
            (Err(Unavailable), _) => progress.unavailable(), // B8
            (Ok(found), Some(prepared)) => page::client(fixed, progress, prepared, found.into()),
            (Ok(found), None) => match fixed.credentials.check(&fixed.form, found.into()) {
                Ok(client) if progress.step == Step::ClientOfGrant => {
                    poll::grant(fixed, progress, client)
                }
                Ok(client) => fixed.authenticated(progress, client),
                Err(cause) => fixed.refuse_client(progress, cause),
            },
        };
    }
}

impl Ask<'_, Take> {
    /// Answers with what [`Take::apply`] said where the store applied it.
    pub fn answer(self, taken: Result<Result<(), RateLimited>, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        let Step::Take(quota) = progress.step else {
            return;
        };
        progress.step = match taken {
            // The secret was wrong, whatever becomes of its quota.
            _ if quota == Quota::Secret => Step::Done,
            Err(Unavailable) => progress.unavailable(),
            Ok(Err(limited)) => progress.limited(quota, limited),
            Ok(Ok(())) => fixed.taken(progress, quota),
        };
    }
}

impl Ask<'_, Stored> {
    /// Answers with the session that the store has, or with `Ok(None)` if it has none. **A store that failed is not `Ok(None)`.**
    #[inline(always)]
    pub fn answer(self, stored: Result<Option<&Stored>, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        let is_another = |stored: &Stored| fixed.key.as_ref() != Some(stored.session.key());
        progress.step = match (stored, fixed.task) {
            // C1
            (Err(Unavailable), _) | (Ok(_), Task::DeviceAuthorization(_) | Task::Client) => {
                progress.unavailable()
            }
            // C1, R14: not what was asked for. A load by user key has its own check.
            (Ok(Some(stored)), Task::Token | Task::Revocation | Task::Decide { .. })
                if is_another(stored) =>
            {
                progress.unavailable()
            }
            (Ok(stored), Task::Token) => match fixed.grant_type {
                GrantType::DeviceCode => poll::decide(fixed, progress, stored),
                GrantType::RefreshToken => refresh::decide(fixed, progress, stored),
            },
            (Ok(stored), Task::Revocation) => refresh::revoke(fixed, progress, stored),
            (Ok(stored), Task::Enter { .. }) => page::found(fixed, progress, stored),
            (Ok(stored), Task::Decide { user, deed }) => {
                page::decide(fixed, progress, stored, user, deed)
            }
        };
    }
}

impl Ask<'_, Entropy> {
    /// Answers with fresh octets. Octets that were never filled are refused (D8).
    pub fn answer(self, entropy: Result<Entropy, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        progress.step = match entropy {
            Err(Unavailable) => progress.unavailable(),
            Ok(entropy) if entropy.is_blank() => progress.end(Cause::EntropyBroken),
            Ok(entropy) => match fixed.task {
                Task::Token => refresh::drawn(fixed, progress, &entropy),
                Task::DeviceAuthorization(_)
                | Task::Revocation
                | Task::Client
                | Task::Enter { .. }
                | Task::Decide { .. } => issue::draw(fixed, progress, entropy),
            },
        };
    }
}

impl Ask<'_, Inserted> {
    /// Answers with what the store said.
    pub fn answer(self, inserted: Result<Inserted, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        progress.step = match inserted {
            Err(Unavailable) => progress.unavailable(),
            Ok(inserted) => issue::inserted(fixed, progress, self.prepared, inserted),
        };
    }
}

impl Ask<'_, Write> {
    /// Answers with what the store said.
    pub fn answer(self, written: Result<Write, Unavailable>) {
        let (fixed, progress) = (self.fixed, self.progress);
        progress.step = progress.written(&fixed.task, written);
    }
}

impl Ask<'_, Tokens<'_>> {
    /// Answers with what the store said of the change, and with the tokens, which are sent if it was committed.
    #[inline(always)]
    pub fn answer(self, written: Result<Write, Unavailable>, tokens: &Tokens<'_>) {
        let (fixed, progress) = (self.fixed, self.progress);
        progress.step = progress.written(&fixed.task, written);
        if written == Ok(Write::Committed) {
            progress.own = refresh::tokens(fixed, self.prepared, progress.secret.as_ref(), tokens);
        }
    }

    /// Answers that there are no tokens, and that nothing was written.
    pub fn refuse(self, refusal: GrantRefusal) {
        let (fixed, progress) = (self.fixed, self.progress);
        let (cause, own) = refusal.told();
        progress.own = own;
        progress.step = match self.prepared {
            Some(prepared) if cause == Cause::ConsentGone => {
                refresh::end_instead(fixed, progress, prepared, cause)
            }
            Some(_) | None => progress.end(cause),
        };
    }
}

impl<'r, T: Finish<'r>> Exchange<'r, T> {
    /// Returns what the exchange needs next.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it returns borrows the exchange"
    )]
    #[inline(always)]
    pub fn next(&mut self) -> Next<'_, T> {
        if self.progress.step == Step::Begin {
            self.progress.step = self.fixed.begin(&mut self.progress);
        }
        if self.progress.prepared.is_some() {
            self.hold();
        }
        let Self {
            fixed,
            prepared,
            progress,
            ..
        } = self;
        match (progress.step, &fixed.key, prepared.as_deref()) {
            (Step::Client | Step::ClientOfGrant, _, _) => {
                let claim = Claim::of_request(&fixed.credentials, &fixed.form);
                Next::Client(claim, Ask::new(fixed, None, progress))
            }
            (Step::Load, Some(key), _) => Next::Load(key, Ask::new(fixed, None, progress)),
            (Step::SavePace, Some(key), _) => {
                progress.step = Step::Done;
                match progress.pace {
                    Some(pace) => Next::SavePace(key, pace),
                    None => Next::Done(T::finish(fixed, None, progress)),
                }
            }
            (Step::Mint, _, Some(own)) => match Grant::new(own) {
                Some(grant) => {
                    Next::Mint(grant, own.change(), Ask::new(fixed, Some(own), progress))
                }
                None => Next::Done(T::finish(fixed, None, progress)),
            },
            (Step::Change, _, Some(own)) => {
                Next::Change(own.change(), Ask::new(fixed, Some(own), progress))
            }
            (Step::Insert, _, Some(own)) => {
                Next::Insert(&own.session, Ask::new(fixed, Some(own), progress))
            }
            (Step::ClientOfSession, _, Some(own)) => {
                let claim = Claim::of_session(own.session.client_id());
                Next::Client(claim, Ask::new(fixed, Some(own), progress))
            }
            (Step::Draw, _, _) => Next::Draw(Ask::new(fixed, None, progress)),
            (Step::LoadCurrent | Step::LoadPrevious, _, _) => match fixed.user_key(progress.step) {
                Some(key) => Next::LoadByUserKey(key, Ask::new(fixed, None, progress)),
                None => Next::Done(T::finish(fixed, None, progress)),
            },
            (Step::Take(quota), _, _) => match fixed.quota(progress, quota) {
                Some(take) => Next::Take(take, Ask::new(fixed, None, progress)),
                None => Next::Done(T::finish(fixed, None, progress)),
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
            ) => Next::Done(T::finish(fixed, own, progress)),
        }
    }

    /// Puts what was prepared where a question can borrow it.
    #[inline(never)]
    fn hold(&mut self) {
        let is_ready = matches!(
            self.progress.step,
            Step::Mint | Step::Change | Step::Insert | Step::ClientOfSession | Step::Done
        );
        if is_ready {
            self.prepared = self.progress.prepared.take();
        }
    }

    /// Runs the exchange to its end.
    pub async fn run<H: Host>(mut self, host: &H) -> T {
        let store = host.store();
        loop {
            match self.next() {
                Next::Client(claim, ask) => match host.client(claim).await {
                    Ok(found) => {
                        let client = found.as_ref().map(H::Client::borrow);
                        ask.answer(Ok::<_, Unavailable>(client));
                    }
                    Err(unavailable) => ask.answer(Err::<Found<_>, _>(unavailable)),
                },
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

    /// Runs the exchange to its end over a host that blocks: no method of it may wait for something else than itself. `None` if one
    /// did, which is a mistake in the host.
    pub fn run_blocking<H: Host>(self, host: &H) -> Option<T> {
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
        fixed: &'x Fixed<'x>,
        prepared: Option<&'x Prepared>,
        progress: &'x mut Progress,
    ) -> Self {
        Self {
            fixed,
            prepared,
            progress,
            answer: PhantomData,
        }
    }
}

impl Fixed<'_> {
    /// Reads the request, and says what is needed first.
    #[inline(always)]
    fn begin(&mut self, progress: &mut Progress) -> Step {
        match self.read() {
            Ok(step) => step,
            Err(cause) => progress.end(cause),
        }
    }

    #[inline(always)]
    fn read(&mut self) -> Result<Step, Cause> {
        match self.task {
            Task::Token => {
                self.form.read(self.policy)?;
                self.grant_type = self.form.grant_type()?;
                match self.grant_type {
                    GrantType::DeviceCode => {
                        self.credentials.read(&self.form)?;
                        let code = self.form.device_code();
                        let code = code.ok_or(Cause::DeviceCodeMissing)?;
                        // Digested before the client is looked up: a processor does both at once.
                        self.key = session_key(code, self.form.is_plain());
                    }
                    GrantType::RefreshToken => self.read_refresh()?,
                }
            }
            Task::DeviceAuthorization(_) | Task::Client => {
                self.form.read(self.policy)?;
                self.credentials.read(&self.form)?;
            }
            Task::Revocation => {
                self.form.read(self.policy)?;
                self.credentials.read(&self.form)?;
                self.read_token("token", Cause::TokenMissing)?;
            }
            Task::Enter { typed, .. } => {
                self.typed = page::read(self, typed);
                return Ok(Step::Take(Quota::GuessByUser));
            }
            Task::Decide { .. } => return Ok(Step::Load),
        }
        if self.credentials.has_secret() {
            Ok(Step::Take(Quota::LookAtSecrets))
        } else {
            Ok(Step::Client)
        }
    }

    #[cold]
    #[inline(never)]
    fn read_refresh(&mut self) -> Result<(), Cause> {
        if self.policy.refresh.is_none() {
            return Err(Cause::GrantTypeUnsupported);
        }
        self.credentials.read(&self.form)?;
        self.read_token("refresh_token", Cause::RefreshTokenMissing)
    }

    /// What follows once the client is known.
    #[inline(always)]
    fn authenticated(&self, progress: &mut Progress, client: &Client) -> Step {
        if matches!(self.task, Task::Client) {
            progress.client_id = Some(client.id.clone());
            return progress.end(Cause::StoreFailed);
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
            progress.scope = Some(client.allowed.clone());
        }
        match (&self.key, self.task, self.grant_type) {
            (Some(_), _, _) => Step::Load,
            (None, Task::Revocation, _) => progress.end(Cause::NothingToRevoke), // R16
            (None, _, GrantType::RefreshToken) => progress.end(Cause::MalformedRefreshToken), // R2
            (None, _, GrantType::DeviceCode) => progress.end(Cause::MalformedCode), // A17
        }
    }

    /// A client that was refused. A wrong secret of a client that exists is counted.
    #[cold]
    fn refuse_client(&self, progress: &mut Progress, cause: Cause) -> Step {
        let is_guess = matches!(cause, Cause::WrongSecret | Cause::HostRefused);
        progress.cause = cause;
        if is_guess && self.credentials.has_secret() {
            Step::Take(Quota::Secret)
        } else {
            Step::Done
        }
    }

    /// The operation on a quota that is asked for.
    #[cold]
    fn quota(&self, progress: &Progress, quota: Quota) -> Option<Take> {
        let (policy, now) = (self.policy, self.now);
        Some(match quota {
            Quota::LookAtSecrets => policy.secret_limit().look(self.secrets(), now),
            Quota::Secret => policy.secret_limit().take(self.secrets(), now),
            Quota::Issuing => {
                let client_id = progress.client_id.as_deref()?;
                let source = if progress.is_by_source {
                    self.source
                } else {
                    ""
                };
                let key = QuotaKey::issuing(client_id, source);
                policy.issuing_limit().take(key, now)
            }
            Quota::Refresh => {
                let limit = policy.refresh.as_ref()?.limit;
                limit.take(QuotaKey::refreshes(self.key.as_ref()?), now)
            }
            Quota::GuessByUser => {
                let Task::Enter { user, .. } = self.task else {
                    return None;
                };
                policy.guess_limit().take(QuotaKey::guesses(user), now)
            }
            Quota::GuessBySource => {
                let key = QuotaKey::guesses_from(self.source);
                policy.guess_limit().take(key, now)
            }
        })
    }

    /// What follows a quota that had something left.
    fn taken(&self, progress: &mut Progress, quota: Quota) -> Step {
        match quota {
            Quota::LookAtSecrets => Step::Client,
            Quota::Secret => Step::Done,
            Quota::Issuing => Step::Draw,
            Quota::Refresh => refresh::draw(self, progress),
            Quota::GuessByUser | Quota::GuessBySource => page::guessed(self, progress),
        }
    }

    /// The key under which a step looks for the code that was typed.
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
    /// What follows a quota that is spent.
    fn limited(&mut self, quota: Quota, limited: RateLimited) -> Step {
        self.number = limited.seconds();
        self.trouble = Some(PageError::RateLimited(limited)); // U1
        self.end(match quota {
            Quota::LookAtSecrets | Quota::Secret => Cause::SecretQuotaSpent, // B1
            Quota::Refresh => Cause::RefreshQuotaSpent,
            Quota::Issuing | Quota::GuessByUser | Quota::GuessBySource => Cause::IssuingQuotaSpent, // D2
        })
    }

    /// What follows a guarded write.
    #[inline]
    fn written(&mut self, task: &Task<'_>, written: Result<Write, Unavailable>) -> Step {
        match written {
            Ok(Write::Committed) => Step::Done,
            Ok(Write::Conflict) => self.lost(task),
            // C19: it may be done or not. What is stored decides the next request.
            Err(Unavailable) => {
                self.trouble = Some(PageError::Unavailable);
                self.end(Cause::OutcomeUnknown)
            }
        }
    }
}

/// The key of a device code. `None` for one of a length that no code has (A17).
#[inline(always)]
fn session_key(code: crate::wire::form::Raw<'_>, is_plain: bool) -> Option<SessionKey> {
    if is_plain {
        return Some(SessionKey(Digest::of_code(code.0.try_into().ok()?)));
    }
    let code = code.text()?;
    let code = code.as_bytes().try_into().ok()?;
    Some(SessionKey(Digest::of_code(code)))
}

/// What an exchange ends in. Only this crate can implement it.
pub trait Finish<'r>: Sized {
    #[doc(hidden)]
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(fixed: &Fixed<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self;
}

impl<'r> Finish<'r> for Reply {
    #[inline(always)]
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(fixed: &Fixed<'r>, _: Option<&Prepared>, progress: &mut Progress) -> Self {
        let invalid_grant = match fixed.grant_type {
            GrantType::DeviceCode => INVALID_GRANT,
            GrantType::RefreshToken => INVALID_REFRESH,
        };
        let own = core::mem::take(&mut progress.own);
        // Asked again after its end, it has failed: a success is told once.
        let cause = core::mem::replace(&mut progress.cause, Cause::StoreFailed);
        Self::new(cause, progress.number, own, invalid_grant, fixed.policy)
    }
}

impl<'r> Finish<'r> for Result<Authenticated<'r>, Reply> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(fixed: &Fixed<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        match &progress.client_id {
            Some(client_id) => Ok(Authenticated {
                form: fixed.form,
                client_id: (**client_id).into(),
            }),
            None => Err(Reply::finish(fixed, prepared, progress)),
        }
    }
}

impl<'r> Finish<'r> for Result<Review, PageError> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(fixed: &Fixed<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        page::review(fixed, prepared, progress)
    }
}

impl<'r> Finish<'r> for Result<Session, PageError> {
    #[expect(private_interfaces, reason = "only this crate calls it")]
    fn finish(_: &Fixed<'r>, prepared: Option<&Prepared>, progress: &mut Progress) -> Self {
        page::decided(prepared, progress)
    }
}

/// A client that was authenticated at an endpoint of the host's own, and the parameters of its request.
pub struct Authenticated<'r> {
    form: Form<'r>,
    client_id: Box<str>,
}

impl<'r> Authenticated<'r> {
    /// Returns the id of the client.
    pub const fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Returns the value of a parameter. `None` if it is absent or empty. The first of those that may repeat.
    pub fn parameter(&self, name: &str) -> Option<Cow<'r, str>> {
        self.form.parameter(name)
    }

    /// Returns the values of a parameter that may repeat, `resource` for example, without empty ones.
    pub fn parameters(&self, name: &str) -> impl Iterator<Item = Cow<'r, str>> {
        self.form.parameters(name)
    }
}

impl fmt::Debug for Authenticated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticated")
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Exchange<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("step", &self.progress.step)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Next<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(..) => "Client",
            Self::Take(..) => "Take",
            Self::Load(..) => "Load",
            Self::LoadByUserKey(..) => "LoadByUserKey",
            Self::Draw(_) => "Draw",
            Self::Insert(..) => "Insert",
            Self::Mint(..) => "Mint",
            Self::Change(..) => "Change",
            Self::SavePace(..) => "SavePace",
            Self::Done(_) => "Done",
        })
    }
}

impl<A> fmt::Debug for Ask<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

// What must not compile, beside what does, so that each fails for its own reason.

/// The right way: it compiles.
///
/// ```
/// # use device_flow::server::{Exchange, Next, Reply, Unavailable};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(None));
///     }
///     let _ = exchange.next();
/// }
/// ```
///
/// A wrong answer: a load is not answered with what a write says.
///
/// ```compile_fail,E0308
/// # use device_flow::server::{Exchange, Next, Reply, Write};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(Write::Committed));
///     }
/// }
/// ```
///
/// Two answers.
///
/// ```compile_fail,E0382
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     if let Next::Load(_, ask) = exchange.next() {
///         ask.answer(Ok(None));
///         ask.answer(Ok(None));
///     }
/// }
/// ```
///
/// Two questions at once.
///
/// ```compile_fail,E0499
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     let first = exchange.next();
///     let second = exchange.next();
///     drop((first, second));
/// }
/// ```
///
/// An ask kept for later, while the exchange goes on.
///
/// ```compile_fail,E0499
/// # use device_flow::server::{Exchange, Next, Reply};
/// fn host(mut exchange: Exchange<'_, Reply>) {
///     let mut kept = None;
///     if let Next::Load(_, ask) = exchange.next() {
///         kept = Some(ask);
///     }
///     let _ = exchange.next();
///     if let Some(ask) = kept {
///         ask.answer(Ok(None));
///     }
/// }
/// ```
///
/// An ask that outlives its exchange.
///
/// ```compile_fail,E0515
/// # use device_flow::server::{Ask, Exchange, Next, Reply, Stored};
/// fn keep<'x>(mut exchange: Exchange<'x, Reply>) -> Option<Ask<'x, Stored>> {
///     match exchange.next() {
///         Next::Load(_, ask) => Some(ask),
///         _ => None,
///     }
/// }
/// ```
#[cfg(doctest)]
struct WhatMustNotCompile;
