//! A server around the server half: two endpoints, a store, the minting of tokens. Everything the core leaves to its host.
//!
//! A real one has HTTP, a database and keys in these places; the order of the steps stays.

use core::time::Duration;
use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::Entropy;
use device_flow::digest::{QuotaKey, SessionKey, UserCodeKey, UserCodeKeys};
use device_flow::memory::Memory;
use device_flow::server::{
    Approval, Cause, Form, Grant, Incoming, Limit, Lost, Origin, Policy, Polled, Registration,
    Reply, Spent, Subject, Unauthenticated, Written,
};
use device_flow::wire::tokens::{TokenError, Tokens};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// The issuer: the domain of a `WorkOS` `AuthKit`.
pub(crate) const ISSUER: &str = "https://acme.authkit.app";

/// How long an access token is good for.
const ACCESS_LIFETIME: Duration = Duration::from_mins(5);

/// How often a guarded write is tried.
pub(crate) const ATTEMPTS: usize = 3;

/// The server.
pub(crate) struct Host {
    pub(crate) policy: Policy,
    pub(crate) keys: UserCodeKeys,
    pub(crate) store: Memory,
    clients: Vec<Registration>,
    users: Vec<User>,
    /// From the digest of a refresh token to the session that it came from.
    refresh_tokens: HashMap<[u8; 32], SessionKey>,
    dice: Dice,
}

/// Somebody with an account.
pub(crate) struct User {
    pub(crate) subject: Subject,
    pub(crate) name: &'static str,
    pub(crate) email: &'static str,
}

/// What this host keeps with an approval: one opaque value to the core.
#[derive(Serialize, Deserialize)]
pub(crate) struct Consent {
    pub(crate) org_id: String,
    pub(crate) sid: String,
}

impl Host {
    pub(crate) fn new(
        policy: Policy,
        clients: Vec<Registration>,
        users: Vec<User>,
        mut dice: Dice,
    ) -> Result<Self, Box<dyn core::error::Error>> {
        Ok(Self {
            policy,
            // From the host's configuration, where the store cannot read it.
            keys: UserCodeKeys::new(UserCodeKey::new(&dice.octets::<32>())?),
            store: Memory::new(),
            clients,
            users,
            refresh_tokens: HashMap::new(),
            dice,
        })
    }

    /// `POST /oauth2/device_authorization`, from `source`: codes for a device.
    pub(crate) fn device_authorization(
        &mut self,
        incoming: Incoming<'_>,
        source: &str,
        now: OffsetDateTime,
    ) -> Result<Reply, Reply> {
        let store = &mut self.store;
        let form = Form::read(incoming, &self.policy)?;
        let request = form.device_authorization()?;
        let client = registration(&self.clients, &request);
        let secrets = check_secrets(store, &request, source, now)?;
        let issuing = request.authenticate(client);
        let issuing = issuing.map_err(|reply| charge(store, &self.policy, secrets, reply, now))?;

        let limit = self.policy.issuing_limit();
        let taken = take(store, limit, issuing.quota_key(source), now);
        if taken.map_err(Reply::issuing_quota_spent)? != Written::Won {
            return Err(Reply::store_failed());
        }

        let mut issuing = issuing.with_origin(Origin::new(source));
        loop {
            // Fresh entropy for every draw. After too many codes that were taken, `draw` refuses.
            let entropy = Entropy::from(self.dice.octets());
            let issuance = issuing.draw(entropy, &self.keys, now)?;
            let inserted = store.insert(issuance.session());
            if let Ok(reply) = issuance.settle(inserted) {
                return Ok(reply);
            }
        }
    }

    /// `POST /oauth2/token`, from `source`: a device polls.
    pub(crate) fn token(
        &mut self,
        incoming: Incoming<'_>,
        source: &str,
        now: OffsetDateTime,
    ) -> Result<Reply, Reply> {
        let store = &mut self.store;
        let form = Form::read(incoming, &self.policy)?;
        let request = match form.grant()? {
            Grant::DeviceCode(request) => request,
            // A host that serves refresh tokens looks at `form.parameter("grant_type")` here.
            Grant::Other(form) => return Err(form.unsupported_grant()),
        };
        let client = registration(&self.clients, &request);
        let secrets = check_secrets(store, &request, source, now)?;
        let poll = request.authenticate(client);
        let mut poll = poll.map_err(|reply| charge(store, &self.policy, secrets, reply, now))?;

        loop {
            let stored = poll.session_key().and_then(|key| store.load(key));
            match poll.decide(stored, now) {
                Polled::Reply(reply) => {
                    if reply.cause() == Cause::Replay {
                        // Somebody else has the code. Whoever redeemed it first, trust none of its tokens.
                        let replayed = poll.session_key();
                        self.refresh_tokens.retain(|_, of| Some(&*of) != replayed);
                    }
                    return Ok(reply);
                }
                Polled::Paced(key, pace, reply) => {
                    // A courtesy: the reply goes out whether or not this works.
                    store.save_pace(key, pace);
                    return Ok(reply);
                }
                Polled::Redeem(redemption) => {
                    let approval = redemption.approval();
                    let subject = approval.subject();
                    let Some(user) = self.users.iter().find(|user| user.subject == *subject) else {
                        // The account is gone since the approval.
                        let revocation = redemption.revoke();
                        let written = store.change(revocation.change());
                        match revocation.settle(written) {
                            Ok(reply) => return Ok(reply),
                            Err(Lost) => continue,
                        }
                    };
                    // Mint in memory: nothing is stored and nothing has left the building.
                    let Some(minted) = mint(approval, user, &mut self.dice, now) else {
                        return Ok(redemption.minting_failed());
                    };
                    let Ok(tokens) = minted.tokens() else {
                        return Ok(redemption.minting_failed());
                    };
                    // One transaction: the guarded write and, if it won, the digest of the refresh token.
                    let written = store.change(redemption.change());
                    if let (Written::Won, Some(refresh)) = (written, &minted.refresh) {
                        let session = *approval.session_key();
                        self.refresh_tokens.insert(digest(refresh), session);
                    }
                    // The only way to a success. A write that lost is decided again, three times at most.
                    if let Ok(reply) = redemption.settle(written, &tokens) {
                        return Ok(reply);
                    }
                }
            }
        }
    }

    /// How many refresh tokens are good.
    pub(crate) fn refresh_tokens(&self) -> usize {
        self.refresh_tokens.len()
    }
}

fn registration<'c, T>(
    clients: &'c [Registration],
    request: &Unauthenticated<'_, T>,
) -> Option<&'c Registration> {
    let id = request.client_id()?;
    clients.iter().find(|client| client.client_id() == id)
}

/// Refuses where this client has presented too many wrong secrets from this source; the key of that quota.
fn check_secrets<T>(
    store: &Memory,
    request: &Unauthenticated<'_, T>,
    source: &str,
    now: OffsetDateTime,
) -> Result<Option<QuotaKey>, Reply> {
    let key = request.secret_quota_key(source);
    if let Some(key) = &key {
        request.check_secret_quota(store.load_quota(key), now)?;
    }
    Ok(key)
}

/// Charges that quota for a secret that was wrong.
fn charge(
    store: &mut Memory,
    policy: &Policy,
    key: Option<QuotaKey>,
    refusal: Reply,
    now: OffsetDateTime,
) -> Reply {
    if let Some(key) = key.filter(|_| refusal.cause().is_wrong_secret()) {
        // Where nothing is left to take, the next request is refused anyway.
        let _ = take(store, policy.secret_limit(), key, now);
    }
    refusal
}

/// Takes one from a quota, by compare-and-swap.
fn take(
    store: &mut Memory,
    limit: Limit,
    key: QuotaKey,
    now: OffsetDateTime,
) -> Result<Written, Spent> {
    let mut written = Written::Lost;
    for _ in 0..ATTEMPTS {
        let change = limit.take(key, store.load_quota(&key), now)?;
        written = store.change_quota(&change);
        if written == Written::Won {
            break;
        }
    }
    Ok(written)
}

/// Tokens that were minted and not yet sent.
struct Minted {
    access: String,
    refresh: Option<String>,
    id: Option<String>,
}

impl Minted {
    fn tokens(&self) -> Result<Tokens<'_>, TokenError> {
        let mut tokens = Tokens::bearer(&self.access)?.expires_in(ACCESS_LIFETIME);
        if let Some(refresh) = &self.refresh {
            tokens = tokens.refresh_token(refresh)?;
        }
        if let Some(id) = &self.id {
            tokens = tokens.id_token(id)?;
        }
        Ok(tokens)
    }
}

/// Mints what the user approved: `openid` yields an ID token, `offline_access` a refresh token.
///
/// None where the approval's value cannot be read: it is this host's own, so something is badly wrong.
fn mint(
    approval: Approval<'_>,
    user: &User,
    dice: &mut Dice,
    now: OffsetDateTime,
) -> Option<Minted> {
    let consent: Consent = serde_json::from_slice(approval.host_value().as_bytes()).ok()?;
    let scope = approval.scope();
    let sub = approval.subject().as_str();
    let client_id = approval.client_id();
    let issued_at = now.unix_timestamp();
    let expires_at = issued_at.checked_add_unsigned(ACCESS_LIFETIME.as_secs())?;
    let access = jwt(&json!({
        "iss": ISSUER, "aud": ISSUER, "sub": sub, "client_id": client_id,
        "org_id": consent.org_id, "sid": consent.sid, "scope": scope.as_str(),
        "jti": dice.text::<9>(), "iat": issued_at, "exp": expires_at,
    }));
    let refresh = scope.contains("offline_access").then(|| dice.text::<24>());
    let id = scope.contains("openid").then(|| {
        let mut claims = json!({
            "iss": ISSUER, "aud": client_id, "sub": sub, "iat": issued_at, "exp": expires_at,
        });
        let more = [
            ("profile", "name", user.name),
            ("email", "email", user.email),
        ];
        for (token, claim, value) in more {
            if let (true, Some(claims)) = (scope.contains(token), claims.as_object_mut()) {
                claims.insert(claim.to_owned(), value.into());
            }
        }
        jwt(&claims)
    });
    Some(Minted {
        access,
        refresh,
        id,
    })
}

/// The shape of a JWT. **Nobody signed it**: a real host does, with its key.
fn jwt(claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = URL_SAFE_NO_PAD.encode("no signature: a demonstration");
    format!("{}.{}.{signature}", part(&header), part(claims))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Octets that look random and are the same in every run. **A real host asks its operating system.**
pub(crate) struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn octets<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        for chunk in octets.chunks_mut(32) {
            self.drawn = self.drawn.wrapping_add(1);
            let numbers = [self.seed.to_be_bytes(), self.drawn.to_be_bytes()];
            let block = Sha256::digest(numbers.concat());
            for (octet, random) in chunk.iter_mut().zip(block) {
                *octet = random;
            }
        }
        octets
    }

    fn text<const N: usize>(&mut self) -> String {
        URL_SAFE_NO_PAD.encode(self.octets::<N>())
    }
}
