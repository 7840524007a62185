//! A handler that is generic over the host can run an exchange, and its future is `Send`. All values can be shared between threads.

use device_flow::server::{
    Cause, Host, PageError, PolicyOptions, Reply, Request, Review, Server, Subject,
};
use time::OffsetDateTime;

use crate::support;

/// Handlers as a framework needs them: they are generic over the host, and their futures may move between threads.
async fn token(server: &Server, host: &impl Host, body: Vec<u8>, now: OffsetDateTime) -> Reply {
    let types = Some("application/x-www-form-urlencoded");
    let request = Request::new("POST", &body).content_type(types);
    server.token(request, "203.0.113.7", now).run(host).await
}

async fn enter(
    server: &Server,
    host: &impl Host,
    typed: String,
    user: Subject,
    now: OffsetDateTime,
) -> Result<Review, PageError> {
    server.enter(&typed, &user, "", now).run(host).await
}

/// A host with an empty store. It takes every client id for that of a public client.
mod elsewhere {
    use core::future::ready;

    use device_flow::code::Entropy;
    use device_flow::digest::{SessionKey, UserKey};
    use device_flow::server::Tokens;
    use device_flow::server::{
        Change, Claim, Client, ClientAuthMethod, Found, Grant, GrantRefusal, Host, Inserted, Pace,
        RateLimited, Session, Store, Stored, Take, Unavailable, Write,
    };
    use time::OffsetDateTime;

    pub(crate) struct Empty;

    impl Host for Empty {
        type Client = Client;
        type Store = Self;

        fn store(&self) -> &Self {
            self
        }

        async fn client(&self, claim: Claim<'_>) -> Result<Found<Client>, Unavailable> {
            let id = ready(claim.client_id()).await.unwrap_or("nobody");
            let client = Client::new(id, ClientAuthMethod::None)?;
            Ok(Found::Registered(client.allow_device_grant()))
        }

        fn entropy(&self) -> Result<Entropy, Unavailable> {
            Err(Unavailable)
        }

        async fn mint(&self, grant: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
            let access_token = ready(grant.subject().as_str().to_owned()).await;
            Ok(Tokens::bearer(access_token)?)
        }
    }

    impl Store for Empty {
        async fn insert(&self, _: &Session) -> Result<Inserted, Unavailable> {
            ready(Ok(Inserted::New)).await
        }

        async fn load(&self, _: &SessionKey) -> Result<Option<Stored>, Unavailable> {
            ready(Ok(None)).await
        }

        async fn load_by_user_key(&self, _: &UserKey) -> Result<Option<Stored>, Unavailable> {
            ready(Ok(None)).await
        }

        async fn change(&self, change: Change<'_>) -> Result<Write, Unavailable> {
            let _ = ready(change.expected_version()).await;
            Ok(Write::Conflict)
        }

        async fn save_pace(&self, _: &SessionKey, _: Pace) {
            ready(()).await;
        }

        async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
            let taken = ready(take.apply(None)).await;
            Ok(taken.map(|_| ()))
        }

        async fn purge(&self, _: OffsetDateTime) -> Result<usize, Unavailable> {
            Ok(0)
        }
    }
}

#[test]
fn a_handler_runs_an_exchange_and_its_future_is_send() {
    use device_flow::server::{Policy, ServerKeys};

    fn is_send<F: Future + Send>(future: F) -> F {
        future
    }
    let policy = Policy::new("https://login.example.com/device", PolicyOptions::default());
    let keys = ServerKeys::new(b"32 octets or more of a generator");
    let server = Server::new(policy.expect("a policy"), keys.expect("a key"));
    let code = "A".repeat(43);
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    let body = format!("grant_type={grant}&device_code={code}&client_id=client_cli");
    let now = OffsetDateTime::UNIX_EPOCH;
    let polled = token(&server, &elsewhere::Empty, body.into_bytes(), now);
    let reply = support::poll_once(is_send(polled)).expect("an empty store does not wait");
    assert_eq!(reply.cause(), Cause::UnknownCode);
    let user = Subject::new("alice").expect("a name");
    let typed = "WDJB-MJHT".to_owned();
    let entered = enter(&server, &elsewhere::Empty, typed, user, now);
    let entered = support::poll_once(is_send(entered)).expect("an empty store does not wait");
    assert_eq!(
        entered.expect_err("nothing is stored"),
        PageError::UnknownCode
    );
}

#[test]
fn all_values_are_send_and_sync() {
    use device_flow::{client, server};
    fn holds<T: Send + Sync>() {}
    holds::<Server>();
    holds::<server::Exchange<'_, Reply>>();
    holds::<server::Exchange<'_, Result<Review, PageError>>>();
    holds::<server::Next<'_, Reply>>();
    holds::<server::Authenticated<'_>>();
    holds::<server::Session>();
    holds::<server::Policy>();
    holds::<Reply>();
    holds::<device_flow::memory::Memory>();
    holds::<client::Login>();
    holds::<client::LoginError>();
    holds::<client::Refresh>();
    holds::<client::Revocation>();
    holds::<client::Snapshot>();
}
