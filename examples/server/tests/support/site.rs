//! A server without HTTP: the core over a store, with one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device_flow::code::Entropy;
use device_flow::digest::SessionKey;
use device_flow::server::{
    Cause, Claim, Client, ClientAuthMethod, Consent, Found, Grant, GrantRefusal, Host, Policy,
    PolicyOptions, RefreshOptions, Reply, Request, Server, ServerKeys, Subject, Tokens,
    Unavailable,
};
use example_server::store::Store;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::server::DEVICE_GRANT;

pub(crate) struct Site {
    pub(crate) server: Server,
    pub(crate) store: Store,
    client: Arc<Client>,
}

/// Codes that were issued, and the user who enters them.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) session: SessionKey,
    pub(crate) user: Subject,
}

/// Returns a text that no other run has used.
pub(crate) fn seed(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = OffsetDateTime::now_utc().unix_timestamp_nanos();
    format!("{name} {now} {number}")
}

impl Site {
    /// How long a code can be approved.
    pub(crate) const LIFETIME: time::Duration = time::Duration::minutes(5);

    /// How long a refresh token is good if it is not used.
    pub(crate) const REFRESH_IDLE: time::Duration = time::Duration::minutes(30);

    /// Returns a server over this store. All of them have the same keys.
    pub(crate) fn new(store: Store) -> Self {
        let options = PolicyOptions {
            lifetime: Self::LIFETIME.unsigned_abs(),
            refresh: Some(RefreshOptions {
                idle: Self::REFRESH_IDLE.unsigned_abs(),
                ..RefreshOptions::default()
            }),
            ..PolicyOptions::default()
        };
        let policy = Policy::new("https://login.example.com/device", options);
        let keys = ServerKeys::new(&Sha256::digest("key"));
        let client = Client::new("client", ClientAuthMethod::None).unwrap();
        let client = client
            .allow_device_grant()
            .allow_scope("openid offline_access".parse().unwrap());
        Self {
            server: Server::new(policy.unwrap(), keys.unwrap()),
            store,
            client: Arc::new(client),
        }
    }

    /// Asks for codes, as a device.
    pub(crate) async fn issue(&self) -> Codes {
        let source = seed("device"); // so that nobody is limited
        let body = b"client_id=client&scope=openid%20offline_access";
        let (request, now) = (request(body), OffsetDateTime::now_utc());
        let mut issuing = self
            .server
            .device_authorization(request, &source, None, now);
        let reply = issuing.run(self).await;
        assert_eq!(reply.cause(), Cause::Issued);
        let device_code = member(&reply, "device_code").unwrap();
        Codes {
            session: SessionKey::from_bytes(Sha256::digest(&device_code).into()),
            user_code: member(&reply, "user_code").unwrap(),
            user: Subject::new(seed("user")).unwrap(),
            device_code,
        }
    }

    /// Enters the code, as the user.
    pub(crate) async fn enter(&self, codes: &Codes, now: OffsetDateTime) {
        let mut enter = self.server.enter(&codes.user_code, &codes.user, "", now);
        let review = enter.run(self).await.unwrap();
        assert_eq!(review.session_key(), &codes.session);
    }

    /// Approves, as the user.
    pub(crate) async fn approve(&self, codes: &Codes, now: OffsetDateTime) {
        let consent = Consent::to_all();
        let mut approve = self
            .server
            .approve(&codes.session, &codes.user, &consent, now);
        approve.run(self).await.unwrap();
    }

    /// Returns codes that were approved.
    pub(crate) async fn approved(&self) -> Codes {
        let codes = self.issue().await;
        self.enter(&codes, OffsetDateTime::now_utc()).await;
        self.approve(&codes, OffsetDateTime::now_utc()).await;
        codes
    }

    /// Polls, as a device. Returns the cause, and the refresh token if there is one.
    pub(crate) async fn poll(&self, codes: &Codes, now: OffsetDateTime) -> (Cause, Option<String>) {
        let code = &codes.device_code;
        let body = format!("grant_type={DEVICE_GRANT}&client_id=client&device_code={code}");
        self.token(&body, now).await
    }

    /// Refreshes, as a device. Returns the cause, and the next refresh token if there is one.
    pub(crate) async fn refresh(
        &self,
        token: &str,
        now: OffsetDateTime,
    ) -> (Cause, Option<String>) {
        let body = format!("grant_type=refresh_token&client_id=client&refresh_token={token}");
        self.token(&body, now).await
    }

    async fn token(&self, body: &str, now: OffsetDateTime) -> (Cause, Option<String>) {
        let mut token = self.server.token(request(body.as_bytes()), "", now);
        let reply = token.run(self).await;
        (reply.cause(), member(&reply, "refresh_token"))
    }

    /// Signs a device out.
    pub(crate) async fn revoke(&self, token: &str, now: OffsetDateTime) -> Cause {
        let body = format!("client_id=client&token={token}");
        let mut revoke = self.server.revocation(request(body.as_bytes()), "", now);
        revoke.run(self).await.cause()
    }
}

impl Host for Site {
    type Client = Arc<Client>;
    type Store = Store;

    fn store(&self) -> &Store {
        &self.store
    }

    async fn client(&self, _: Claim<'_>) -> Result<Found<Arc<Client>>, Unavailable> {
        Ok(Found::Registered(self.client.clone()))
    }

    fn entropy(&self) -> Result<Entropy, Unavailable> {
        let octets: [u8; Entropy::OCTETS] = std::array::from_fn(|_| fastrand::u8(..));
        Ok(octets.into())
    }

    async fn mint(&self, _: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
        Ok(Tokens::bearer("access")?)
    }
}

fn request(body: &[u8]) -> Request<'_> {
    let form = "application/x-www-form-urlencoded";
    Request::new("POST", body).content_type(Some(form))
}

fn member(reply: &Reply, name: &str) -> Option<String> {
    let body: Value = serde_json::from_str(reply.response().body()).ok()?;
    Some(body.get(name)?.as_str()?.to_owned())
}
