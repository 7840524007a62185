//! The endpoints and the actions of the verification page. Each is a method that makes an exchange.

use time::OffsetDateTime;

use super::authenticate::{Authenticated, Credentials};
use super::consent::{Consent, Deed};
use super::exchange::Exchange;
use super::keys::ServerKeys;
use super::machine::{Input, Task};
use super::page::Review;
use super::page_error::PageError;
use super::policy::Policy;
use super::reply::Reply;
use super::request::{Form, GrantType, Request};
use super::session::Session;
use super::subject::Subject;
use crate::digest::SessionKey;

/// The server half: a policy and the secret keys. Make it once and share it between all requests.
///
/// Each method makes an [`Exchange`] for one request or for one action of a user. `source` is where a request comes from, for example an IP
/// address. Some quotas are counted per source. All requests with an empty source share these quotas, except those of [`Server::enter`].
/// `now` is the time on the wall clock.
#[derive(Debug)]
pub struct Server {
    policy: Policy,
    keys: ServerKeys,
}

impl Server {
    /// Makes a server from a policy and its secret keys.
    pub const fn new(policy: Policy, keys: ServerKeys) -> Self {
        Self { policy, keys }
    }

    /// Returns the policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Serves the token endpoint: polls with a device code ([RFC 8628, section 3.4](https://www.rfc-editor.org/rfc/rfc8628#section-3.4))
    /// and refreshes ([RFC 6749, section 6](https://www.rfc-editor.org/rfc/rfc6749#section-6)).
    ///
    /// Any other grant is refused with [`Cause::GrantTypeUnsupported`]. If you serve that grant, look for this cause, and answer the
    /// request yourself with [`Server::authenticate`].
    ///
    /// [`Cause::GrantTypeUnsupported`]: super::Cause::GrantTypeUnsupported
    #[inline(always)]
    pub fn token<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Reply> {
        self.exchange(Task::Token, request, source, None, now)
    }

    /// Serves the device authorization endpoint ([RFC 8628, section 3.1](https://www.rfc-editor.org/rfc/rfc8628#section-3.1)).
    ///
    /// `source` is used only for quotas. `shown` is stored for the user who decides. It says where the request came from, for example by an
    /// address, a place or a user agent. It comes back as [`Review::shown_source`]. It is cut at 256 bytes, and its control and format
    /// characters are replaced, because some of them change the order in which a text is shown.
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

    /// Serves the revocation endpoint ([RFC 7009, section 2](https://www.rfc-editor.org/rfc/rfc7009#section-2)). Revoking a refresh token
    /// ends its login. The answer is also 200 if the token is not known. The crate does not know access tokens. If yours can be revoked,
    /// read the parameter `token` of the form yourself when the cause is [`Cause::NothingToRevoke`](super::Cause::NothingToRevoke), which
    /// means that the client was authenticated. Do not run [`Server::authenticate`] on the same request, because it would show a proof
    /// twice. A client without the device grant gets [`Cause::GrantNotAllowed`](super::Cause::GrantNotAllowed).
    pub fn revocation<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Reply> {
        self.exchange(Task::Revocation, request, source, None, now)
    }

    /// Authenticates a client for a grant or an endpoint of the host's own, by the same rules and quotas. The exchange ends in the client
    /// and its parameters, or in the reply to send. You decide what the client may do. A public client has proved nothing: see
    /// [`Authenticated::is_public`]. Send your own response as JSON with `cache-control: no-store`.
    pub fn authenticate<'r>(
        &'r self,
        request: Request<'r>,
        source: &'r str,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Authenticated<'r>, Reply>> {
        self.exchange(Task::Client, request, source, None, now)
    }

    /// Enters the code that a signed-in user typed and submitted with a POST. The exchange ends in the [`Review`] to show to the user. The
    /// session is then claimed, so that only this user can decide.
    ///
    /// Each entry takes a guess from the quota of this user. If `source` is not empty, it takes one from the quota of the source,
    /// too. **Leave it empty if many users have the same source**, or they lock each other out.
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

    /// Approves the session of a [`Review`]. The exchange ends in the approved session. Approving the same scope again succeeds.
    ///
    /// To end the login later, store [`Session::key`] with the user and give it to [`Server::withdraw`].
    pub fn approve<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        consent: &'r Consent,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Approve(consent), now)
    }

    /// Denies the session of a [`Review`], for good. Denying it again succeeds.
    pub fn deny<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Deny, now)
    }

    /// Withdraws an approval, before or after the device got its tokens, and so ends the login. `session` is the [`Session::key`] of the
    /// approved session. If the login has ended already, this is a success. After the purge it is [`PageError::Expired`]. This crate cannot
    /// list the logins of a user.
    pub fn withdraw<'r>(
        &'r self,
        session: &SessionKey,
        user: &'r Subject,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, PageError>> {
        self.decide(session, user, Deed::Withdraw, now)
    }

    /// Releases the session of a [`Review`], so that the same person can enter the code with another account.
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
        let input = Input {
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
        };
        Exchange::new(input)
    }
}
