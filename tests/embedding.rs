//! That every step can be held across an await in a handler whose future is `Send`, generic over the store.

use core::future::{Future, ready};

use device_flow::digest::SessionKey;
use device_flow::server::{
    Change, Form, Grant, Incoming, Pace, Policy, Polled, Registration, Reply, Stored, Written,
};
use device_flow::wire::tokens::Tokens;
use time::OffsetDateTime;

/// A store as a host would put it behind a trait.
trait Store {
    fn client(&self, id: &str) -> impl Future<Output = Option<Registration>> + Send;
    fn load(&self, key: &SessionKey) -> impl Future<Output = Option<Stored>> + Send;
    fn save_pace(&self, key: &SessionKey, pace: Pace) -> impl Future<Output = ()> + Send;
    fn change(&self, change: &Change) -> impl Future<Output = Written> + Send;
}

async fn token<S: Store>(
    store: &S,
    policy: &Policy,
    body: Vec<u8>,
    now: OffsetDateTime,
) -> Result<Reply, Reply> {
    let incoming = Incoming::new("POST", &body);
    let form = Form::read(
        incoming.content_type(Some("application/x-www-form-urlencoded")),
        policy,
    )?;
    let request = match form.grant()? {
        Grant::DeviceCode(request) => request,
        Grant::Other(form) => return Ok(form.unsupported_grant()),
    };
    let registration = match request.client_id() {
        Some(id) => store.client(id).await, // the request is held
        None => None,
    };
    let mut poll = request.authenticate(registration.as_ref())?;
    loop {
        let stored = match poll.session_key() {
            Some(key) => store.load(key).await, // the poll is held
            None => None,
        };
        match poll.decide(stored.as_ref(), now) {
            Polled::Reply(reply) => return Ok(reply),
            Polled::Paced(key, pace, reply) => {
                store.save_pace(key, pace).await; // the reply is held
                return Ok(reply);
            }
            Polled::Redeem(redemption) => {
                let access_token = ready(redemption.approval().subject().as_str().to_owned()).await;
                let Ok(tokens) = Tokens::bearer(&access_token) else {
                    return Ok(redemption.minting_failed());
                };
                let written = store.change(redemption.change()).await; // the redemption and its tokens are held
                if let Ok(reply) = redemption.settle(written, &tokens) {
                    return Ok(reply);
                }
            }
        }
    }
}

/// A store without anything in it.
struct Empty;

impl Store for Empty {
    async fn client(&self, id: &str) -> Option<Registration> {
        use device_flow::server::Authentication;
        let client = Registration::new(id, Authentication::Public).ok()?;
        Some(client.allow_device_grant())
    }

    async fn load(&self, _: &SessionKey) -> Option<Stored> {
        None
    }

    async fn save_pace(&self, _: &SessionKey, _: Pace) {}

    async fn change(&self, _: &Change) -> Written {
        Written::Lost
    }
}

#[test]
fn a_handler_holds_every_step_across_an_await_and_its_future_is_send() {
    fn is_send<F: Future + Send>(future: F) -> F {
        future
    }
    let policy = Policy::builder("https://login.example.com/device").build();
    let policy = policy.expect("the defaults are a policy");
    let code = "A".repeat(43);
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    let body = format!("grant_type={grant}&device_code={code}&client_id=client_cli");
    let now = OffsetDateTime::UNIX_EPOCH;
    let future = is_send(token(&Empty, &policy, body.into_bytes(), now));
    // Nothing in it ever waits, so one turn is enough.
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    match Box::pin(future).as_mut().poll(&mut context) {
        core::task::Poll::Ready(Ok(reply) | Err(reply)) => {
            assert_eq!(reply.cause().as_str(), "unknown_code");
        }
        core::task::Poll::Pending => panic!("an empty store does not wait"),
    }
}

#[test]
fn all_values_are_send_and_sync() {
    use device_flow::{client, server};
    fn holds<T: Send + Sync>() {}
    holds::<Form<'_>>();
    holds::<server::Unauthenticated<'_, server::Poll<'_>>>();
    holds::<server::Poll<'_>>();
    holds::<Polled<'_>>();
    holds::<server::Issuing<'_>>();
    holds::<server::Issuance<'_>>();
    holds::<server::Guess<'_, '_>>();
    holds::<server::Entered>();
    holds::<server::Session>();
    holds::<Policy>();
    holds::<Reply>();
    holds::<device_flow::memory::Memory>();
    holds::<client::Starting>();
    holds::<client::Waiting>();
    holds::<client::Sent>();
    holds::<client::Outcome>();
    holds::<client::Snapshot>();
}
