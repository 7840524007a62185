//! The server: one line for each endpoint, and one for each action on the verification page.
//!
//! HTTP and HTML are left out. A real server reads the requests from its framework, and shows the answers of the page in HTML.

use device_flow::digest::SessionKey;
use device_flow::memory::Memory;
use device_flow::server::{
    Consent, Exchange, Finish, PageError, Policy, Reply, Request, Review, Server, ServerKeys,
    Session, Status, Subject,
};

use super::host::DemoHost;
use super::stage::Result;

/// The answer of the page.
pub(crate) type Answer<T> = core::result::Result<T, PageError>;

/// The server half, and the host that runs it.
pub(crate) struct Service {
    server: Server,
    pub(crate) host: DemoHost,
}

impl Service {
    pub(crate) fn new(policy: Policy, host: DemoHost) -> Result<Self> {
        // A real server reads its key from its configuration, so that a reader of the store does not find it.
        let keys = ServerKeys::new(&host.dice.octets::<32>())?;
        let server = Server::new(policy, keys);
        Ok(Self { server, host })
    }

    // The endpoints. `source` is the address that the request came from.

    /// `POST /oauth2/device_authorization`
    pub(crate) fn device_authorization(&self, request: Request<'_>, source: &str) -> Result<Reply> {
        let (shown, now) = (Some(source), self.host.now);
        self.run(
            self.server
                .device_authorization(request, source, shown, now),
        )
    }

    /// `POST /oauth2/token`
    pub(crate) fn token(&self, request: Request<'_>, source: &str) -> Result<Reply> {
        self.run(self.server.token(request, source, self.host.now))
    }

    /// `POST /oauth2/revoke`
    pub(crate) fn revocation(&self, request: Request<'_>, source: &str) -> Result<Reply> {
        self.run(self.server.revocation(request, source, self.host.now))
    }

    // The page. `user` is signed in; the code or the decision came in a POST.

    /// `user` submitted a code.
    pub(crate) fn enter(&self, user: &Subject, typed: &str) -> Result<Answer<Review>> {
        self.run(self.server.enter(typed, user, "", self.host.now))
    }

    /// `user` gave this consent.
    pub(crate) fn approve(
        &self,
        user: &Subject,
        session: &SessionKey,
        consent: &Consent,
    ) -> Result<Answer<Session>> {
        self.run(self.server.approve(session, user, consent, self.host.now))
    }

    /// `user` denied.
    pub(crate) fn deny(&self, user: &Subject, session: &SessionKey) -> Result<Answer<Session>> {
        self.run(self.server.deny(session, user, self.host.now))
    }

    /// Runs an exchange. This host never waits: its store is in memory, and it has no network.
    fn run<'r, T: Finish<'r>>(&self, mut exchange: Exchange<'r, T>) -> Result<T> {
        let end = exchange.run_blocking(&self.host);
        end.ok_or_else(|| "the host waited for something".into())
    }

    /// Returns the state of a login, as a list of signed-in devices would show it.
    pub(crate) fn status(&self, session: &SessionKey) -> Result<Option<Status>> {
        let store = self.host.store.lock();
        let stored =
            store.map(|store| Memory::load(&store, session).map(|found| found.session.status()));
        stored.map_err(|_| "the store is poisoned".into())
    }
}
