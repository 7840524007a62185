//! The embedded store. The test kit checks what every store must do. These tests check what is special about this store.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Mutex;
use std::thread;

use device_flow::code::Entropy;
use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Claim, Client, Found, Grant, GrantRefusal, Inserted, PageError, RateLimit, Session,
    Status, Store as _, Tokens, Unavailable,
};
use proptest::prelude::*;
use time::OffsetDateTime;

use crate::support::{
    self, Host, NOW, Says, alice, cli, entropy_of, poll_body, post, server, subject,
};

/// Returns a session that is in no store. Its key depends on the first argument alone, its user key on the second.
fn session_of(device: u8, user: u8) -> Session {
    let mut elsewhere = Host::new([cli()]);
    elsewhere.entropy.push_back(entropy_of(device, user));
    let server = server();
    let request = post("client_id=client_cli");
    let reply = elsewhere.run(server.device_authorization(request, "", None, NOW));
    let key = support::Codes::of(&reply).key;
    elsewhere.session(&key).unwrap().clone()
}

fn session(seed: u8) -> Session {
    session_of(seed, seed)
}

/// Returns a store that has one pending session.
fn store_with(session: &Session) -> Memory {
    let mut store = Memory::new();
    assert_eq!(store.insert(session), Inserted::New);
    store
}

fn text(session: &Session) -> String {
    serde_json::to_string(session).unwrap()
}

/// Returns all that a store has of a session: the session, and whether there is a pace.
fn stored(store: &Memory, key: &SessionKey) -> Option<(String, bool)> {
    let stored = store.load(key)?;
    Some((text(&stored.session), stored.pace.is_some()))
}

#[test]
fn insert_stores_a_session_under_both_of_its_keys() {
    let session = session(1);
    let store = store_with(&session);
    assert_eq!(stored(&store, session.key()), Some((text(&session), false)));
    let by_user = store.load_by_user_key(session.user_key().unwrap()).unwrap();
    assert_eq!(by_user.session.key(), session.key());
    assert_eq!(store.len(), 1);
    assert!(!store.is_empty());
}

/// If both codes are taken, the device code is reported, because a device code that is drawn twice is the worse fault (D8).
#[test]
fn insert_names_the_device_code_where_both_are_taken() {
    let mut store = store_with(&session_of(1, 1));
    assert_eq!(store.insert(&session_of(2, 2)), Inserted::New);
    assert_eq!(store.insert(&session_of(1, 1)), Inserted::DeviceCodeTaken);
    assert_eq!(store.insert(&session_of(1, 2)), Inserted::DeviceCodeTaken);
    assert_eq!(store.insert(&session_of(3, 2)), Inserted::UserCodeTaken);
    assert_eq!(store.len(), 2);
}

/// A session whose purge time has passed keeps its keys until it is purged.
#[test]
fn insert_takes_no_key_from_a_session_that_awaits_its_purge() {
    let first = session(1);
    let mut store = store_with(&first);
    assert_eq!(store.insert(&session_of(2, 1)), Inserted::UserCodeTaken);
    assert_eq!(store.purge(first.purge_at()), 1);
    assert_eq!(store.insert(&session_of(2, 1)), Inserted::New);
    assert_eq!(store.insert(&session_of(1, 2)), Inserted::New);
}

#[test]
fn load_finds_nothing_under_the_key_of_the_other_kind() {
    let first = session(1);
    let store = store_with(&first);
    let crossed = SessionKey::from_bytes(*first.user_key().unwrap().as_bytes());
    assert!(store.load(&crossed).is_none());
    let crossed = UserKey::from_bytes(*first.key().as_bytes());
    assert!(store.load_by_user_key(&crossed).is_none());
}

/// Returns the same session with other keys.
fn with_keys(session: &Session, key: [u8; 32], user_key: [u8; 32]) -> Session {
    let mut form: serde_json::Value = serde_json::from_str(&text(session)).unwrap();
    form["key"] = SessionKey::from_bytes(key).to_string().into();
    form["user_key"] = UserKey::from_bytes(user_key).to_string().into();
    serde_json::from_value(form).unwrap()
}

/// Keys that differ only in their last octet are different keys.
#[test]
fn load_compares_the_whole_of_a_key() {
    let ending = |octet| {
        let mut key = [7; 32];
        key[31] = octet;
        key
    };
    let sessions: Vec<_> = (0..4)
        .map(|place| with_keys(&session(1), ending(place), ending(100 + place)))
        .collect();
    let mut store = Memory::new();
    for session in &sessions {
        assert_eq!(store.insert(session), Inserted::New);
    }
    for session in &sessions {
        let found = store.load(session.key()).unwrap();
        assert_eq!(found.session.key(), session.key());
        let by_user = store.load_by_user_key(session.user_key().unwrap()).unwrap();
        assert_eq!(by_user.session.key(), session.key());
    }
    assert!(store.load(&SessionKey::from_bytes(ending(99))).is_none());
    let nobodys = UserKey::from_bytes(ending(99));
    assert!(store.load_by_user_key(&nobodys).is_none());
}

/// After a backup was restored, a version may be used again. Then a change that was decided on another state is still refused.
#[test]
fn change_is_refused_where_the_version_was_reused_on_another_state() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let codes = host.issue(&server, &cli(), 1, NOW);
    host.claim(&server, &alice(), &codes.user_code, NOW)
        .unwrap();
    let version = host.session(&codes.key).unwrap().version();
    let key = codes.key;
    // Between the reading and the writing of a decision, the session is replaced by a denied session with the same version.
    host.meanwhile.push_back(Box::new(move |store| {
        let mut form = serde_json::to_value(&store.load(&key).unwrap().session).unwrap();
        form["state"] = serde_json::json!({ "denied": "alice" });
        let restored: Session = serde_json::from_value(form).unwrap();
        *store = Memory::new();
        assert_eq!(store.insert(&restored), Inserted::New);
    }));
    let consent = device_flow::server::Consent::to_all();
    let approved = host.run(server.approve(&codes.key, &alice(), &consent, NOW));
    assert_eq!(approved.unwrap_err(), PageError::Decided);
    let session = host.session(&codes.key).unwrap();
    assert_eq!(
        (session.status(), session.version()),
        (Status::Denied, version)
    );
}

/// After the redemption, the user code is free again, and the index has no entry for the session.
#[test]
fn change_forgets_the_user_key_of_a_session_that_was_redeemed() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let codes = host.issue(&server, &cli(), 1, NOW);
    let user_key = *host.session(&codes.key).unwrap().user_key().unwrap();
    host.approve(&server, &alice(), &codes, NOW);
    assert!(host.store.load_by_user_key(&user_key).is_some());
    let reply = host.poll(&server, &cli(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Granted);
    assert!(host.store.load_by_user_key(&user_key).is_none());
    assert!(host.session(&codes.key).is_some());
    let next = session_of(2, 1);
    assert_eq!(next.user_key(), Some(&user_key));
    assert_eq!(host.store.insert(&next), Inserted::New);
    let found = host.store.load_by_user_key(&user_key).unwrap();
    assert_eq!(found.session.key(), next.key());
}

#[test]
fn change_keeps_the_pace_and_the_other_sessions() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let [one, other] = [1, 2].map(|seed| host.issue(&server, &cli(), seed, NOW));
    let _ = host.poll(&server, &cli(), &one.device_code, NOW);
    let before = stored(&host.store, &other.key);
    host.claim(&server, &alice(), &one.user_code, NOW).unwrap();
    assert!(stored(&host.store, &one.key).unwrap().1);
    assert_eq!(stored(&host.store, &other.key), before);
}

#[test]
fn take_touches_no_other_key() {
    let limit = RateLimit::new(2, Duration::from_mins(1)).unwrap();
    let [one, other] =
        ["one", "other"].map(|who| limit.take(QuotaKey::of_host("test", &[who]), NOW));
    let mut store = Memory::new();
    for _ in 0..2 {
        store.take(&one).unwrap();
    }
    assert_eq!(store.take(&one).unwrap_err().seconds(), 60);
    store.take(&other).unwrap();
}

#[test]
fn a_quota_of_the_hosts_own_has_a_key_of_its_own() {
    let key = QuotaKey::of_host;
    let (sign_in, both) = (key("sign-in", &["ann", "net"]), ["ann", "net"]);
    assert_eq!(sign_in, key("sign-in", &both));
    let others = [
        key("sign-up", &both),
        key("sign-in", &["net", "ann"]),
        key("sign-in", &["annn", "et"]),
        key("sign-in", &["ann"]),
        key("sign-in", &["ann", "net", ""]),
        key("sign-inann", &["net"]),
    ];
    assert!(!others.contains(&sign_in));
}

/// wso2 #21835, Duende IS4 #3198: tables grew. The index of the user codes is such a table. Only `Debug` shows it.
#[test]
fn purge_leaves_nothing_behind() {
    let session = session(1);
    let mut store = store_with(&session);
    let limit = RateLimit::new(2, Duration::from_mins(1)).unwrap();
    store
        .take(&limit.take(QuotaKey::of_host("test", &[]), NOW))
        .unwrap();
    let empty = format!("{:?}", Memory::new());
    assert_ne!(format!("{store:?}"), empty);
    assert_eq!(
        store.purge(session.purge_at() - Duration::from_millis(1)),
        0
    );
    assert_eq!(store.purge(session.purge_at()), 1);
    assert_eq!(format!("{store:?}"), empty);
}

/// A quota is purged a minute after everything was given back, and not sooner, because a delayed request must still find it.
#[test]
fn purge_keeps_a_quota_for_a_minute_after_it_was_given_back() {
    let limit = RateLimit::new(1, Duration::from_mins(1)).unwrap();
    let take = limit.take(QuotaKey::of_host("test", &[]), NOW);
    let mut store = Memory::new();
    store.take(&take).unwrap();
    store.purge(NOW + Duration::from_mins(2) - Duration::from_millis(1));
    assert!(store.take(&take).is_err());
    store.purge(NOW + Duration::from_mins(2));
    assert!(store.take(&take).is_ok());
}

#[test]
fn an_empty_store_has_nothing_and_purges_nothing() {
    let mut store = Memory::new();
    assert!(store.is_empty());
    assert_eq!(store.len(), 0);
    assert_eq!(store.purge(NOW), 0);
}

// Threads that share a store.

/// A host with one client and a store that threads share.
struct Shared {
    client: Client,
    store: Mutex<Memory>,
    drawn: Mutex<u8>,
}

impl device_flow::server::Host for Shared {
    type Client = Client;
    type Store = Mutex<Memory>;

    fn store(&self) -> &Self::Store {
        &self.store
    }

    async fn client(&self, claim: Claim<'_>) -> Result<Found<Client>, Unavailable> {
        let is_known = claim.client_id() == Some(self.client.id());
        Ok(is_known.then(|| self.client.clone()).into())
    }

    fn entropy(&self) -> Result<Entropy, Unavailable> {
        let mut drawn = self.drawn.lock().unwrap();
        *drawn += 1;
        Ok(support::entropy(*drawn))
    }

    async fn mint(&self, grant: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
        thread::yield_now();
        Ok(Tokens::bearer(grant.subject().as_str().to_owned())?)
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            client: cli().allow_scope(support::scope("openid offline_access")),
            store: Mutex::default(),
            drawn: Mutex::new(0),
        }
    }

    /// Runs the same request in sixteen threads at once. Returns their results.
    fn at_once<T: Send>(&self, request: impl Fn(&Self) -> T + Sync) -> Vec<T> {
        let barrier = std::sync::Barrier::new(16);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        request(self)
                    })
                })
                .collect();
            let workers = workers.into_iter();
            workers.map(|worker| worker.join().unwrap()).collect()
        })
    }
}

#[test]
fn of_sixteen_threads_that_poll_an_approved_code_one_gets_tokens() {
    for _ in 0..50 {
        let (server, shared) = (server(), Shared::new());
        let request = post("client_id=client_cli&scope=openid+offline_access");
        let mut issuing = server.device_authorization(request, "", None, NOW);
        let codes = support::Codes::of(&issuing.run_blocking(&shared).unwrap());
        let user = alice();
        let mut entered = server.enter(&codes.user_code, &user, "", NOW);
        entered.run_blocking(&shared).unwrap().unwrap();
        let consent = device_flow::server::Consent::to_all();
        let mut approving = server.approve(&codes.key, &user, &consent, NOW);
        approving.run_blocking(&shared).unwrap().unwrap();
        let body = poll_body("client_cli", &codes.device_code);
        let causes = shared.at_once(|shared| {
            let mut exchange = server.token(post(&body), "", NOW);
            exchange.run_blocking(shared).unwrap().cause()
        });
        let granted = causes.iter().filter(|cause| **cause == Cause::Granted);
        assert_eq!(granted.count(), 1, "{causes:?}");
        let others = [Cause::Granted, Cause::LostRace, Cause::Duplicate];
        assert!(
            causes.iter().all(|cause| others.contains(cause)),
            "{causes:?}"
        );
    }
}

#[test]
fn sixteen_guesses_at_once_take_exactly_the_burst() {
    for _ in 0..50 {
        let (server, shared) = (server(), Shared::new());
        let user = subject("alice");
        let ends = shared.at_once(|shared| {
            let mut exchange = server.enter("BBBB-BBBB", &user, "", NOW);
            exchange.run_blocking(shared).unwrap().unwrap_err()
        });
        let looked_up = ends.iter().filter(|end| **end == PageError::UnknownCode);
        assert_eq!(looked_up.count(), 5);
    }
}

#[test]
fn a_lock_that_was_poisoned_still_serves() {
    let shared = Shared::new();
    let poisoned = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let _held = shared.store.lock().unwrap();
            panic!("with the lock held");
        });
        worker.join()
    });
    assert!(poisoned.is_err());
    let server = server();
    let request = post("client_id=client_cli&scope=openid");
    let mut issuing = server.device_authorization(request, "", None, NOW);
    assert_eq!(
        issuing.run_blocking(&shared).unwrap().cause(),
        Cause::Issued
    );
    let purged = core::pin::pin!(shared.store.purge(NOW));
    assert!(matches!(support::poll_once(purged), Some(Ok(0))));
}

/// A host logs which session it was, and revokes what it minted for it.
#[test]
fn an_exchange_names_the_session_that_it_was_about() {
    let shared = Shared::new();
    let server = server();
    let request = post("client_id=client_cli&scope=openid");
    let mut issuing = server.device_authorization(request, "", None, NOW);
    assert_eq!(issuing.session_key(), None, "nothing was read yet");
    let reply = issuing.run_blocking(&shared).unwrap();
    let key = *issuing.session_key().unwrap();
    let issued: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    let body = poll_body("client_cli", issued["device_code"].as_str().unwrap());
    let mut poll = server.token(post(&body), "", NOW);
    assert_eq!(poll.run_blocking(&shared).unwrap().cause(), Cause::Pending);
    assert_eq!(poll.session_key(), Some(&key));
}

/// If a method of the host would have to wait, the run returns `None` and does not wait for ever.
#[test]
fn a_blocking_run_does_not_wait() {
    struct Waiting(Shared);
    impl device_flow::server::Host for Waiting {
        type Client = Client;
        type Store = Mutex<Memory>;

        fn store(&self) -> &Self::Store {
            &self.0.store
        }

        async fn client(&self, _: Claim<'_>) -> Result<Found<Client>, Unavailable> {
            core::future::pending().await
        }

        fn entropy(&self) -> Result<Entropy, Unavailable> {
            Err(Unavailable)
        }

        async fn mint(&self, _: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
            Err(GrantRefusal::failed())
        }
    }
    let server = server();
    let request = post("client_id=client_cli&scope=openid");
    let mut issuing = server.device_authorization(request, "", None, NOW);
    assert!(issuing.run_blocking(&Waiting(Shared::new())).is_none());
}

#[test]
fn a_mutex_of_a_memory_does_as_a_store_what_the_memory_does() {
    fn done<T>(future: impl Future<Output = T>) -> T {
        support::poll_once(future).expect("it does not wait")
    }
    let session = session(1);
    let store = Mutex::new(store_with(&session));
    let pace = support::login::pace_of(3, 5, false);
    done(store.save_pace(session.key(), pace));
    let stored = done(store.load(session.key())).unwrap().unwrap();
    assert_eq!(stored.pace, Some(pace));
    assert_eq!(done(store.purge(session.purge_at())), Ok(1));
    assert!(done(store.load(session.key())).unwrap().is_none());
}

/// One operation on a few sessions, at a few moments.
#[derive(Clone, Debug)]
enum Operation {
    Insert(u8, u8),
    /// Claims the session of this device code. If it is claimed already, releases it.
    Turn(u8),
    /// The same, but the store reports three conflicts.
    Lose(u8),
    Poll(u8),
    Purge(u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = prop_oneof![
        4 => (0..4_u8, 0..4_u8).prop_map(|(device, user)| Operation::Insert(device, user)),
        4 => (0..4_u8).prop_map(Operation::Turn),
        1 => (0..4_u8).prop_map(Operation::Lose),
        2 => (0..4_u8).prop_map(Operation::Poll),
        1 => (0..12_u64).prop_map(Operation::Purge),
    ];
    prop::collection::vec(one, 0..40)
}

/// Returns the user code that is made from the entropy of this seed.
fn user_code(user: u8) -> String {
    let (server, mut elsewhere) = (server(), Host::new([cli()]));
    elsewhere.issue(&server, &cli(), user, NOW).user_code
}

fn device_code(device: u8) -> String {
    let (server, mut elsewhere) = (server(), Host::new([cli()]));
    elsewhere.issue(&server, &cli(), device, NOW).device_code
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reference model: a list of rows, each with a device code, a user code, a version, and whether there is a pace.
    #[test]
    fn the_store_does_what_a_list_of_rows_does(operations in operations()) {
        let server = server();
        let mut host = Host::new([cli()]);
        let mut rows: HashMap<u8, (u8, u64, bool)> = HashMap::new();
        for (moment, operation) in operations.into_iter().enumerate() {
            // Each claim is made by another user, so that no quota is spent.
            let now: OffsetDateTime = NOW + Duration::from_millis(u64::try_from(moment).unwrap());
            match operation {
                Operation::Insert(device, user) => {
                    let wanted = if rows.contains_key(&device) {
                        Inserted::DeviceCodeTaken
                    } else if rows.values().any(|row| row.0 == user) {
                        Inserted::UserCodeTaken
                    } else {
                        rows.insert(device, (user, 1, false));
                        Inserted::New
                    };
                    prop_assert_eq!(host.store.insert(&session_of(device, user)), wanted);
                }
                Operation::Turn(device) | Operation::Lose(device) => {
                    let loses = matches!(operation, Operation::Lose(_));
                    let Some(row) = rows.get_mut(&device) else { continue };
                    if loses {
                        host.says.extend([Says::Conflict; 3]);
                    }
                    let key = *session(device).key();
                    let claimed = host.session(&key).unwrap().claimant().cloned();
                    let user = claimed.clone().unwrap_or_else(|| subject(&moment.to_string()));
                    let is_done = if claimed.is_some() {
                        host.run(server.release(&key, &user, now)).is_ok()
                    } else {
                        host.claim(&server, &user, &user_code(row.0), now).is_ok()
                    };
                    prop_assert_eq!(is_done, !loses);
                    row.1 += u64::from(is_done);
                    host.says.clear();
                }
                Operation::Poll(device) => {
                    let reply = host.poll(&server, &cli(), &device_code(device), now);
                    if let Some(row) = rows.get_mut(&device) {
                        row.2 = true;
                    } else {
                        prop_assert_eq!(reply.cause(), Cause::UnknownCode);
                    }
                }
                Operation::Purge(minutes) => {
                    // After ten minutes, every session of this test has reached its purge time.
                    let now = NOW + Duration::from_mins(minutes) + Duration::from_secs(1);
                    let wanted = if minutes >= 10 { rows.len() } else { 0 };
                    if minutes >= 10 {
                        rows.clear();
                    }
                    prop_assert_eq!(host.store.purge(now), wanted);
                }
            }
            prop_assert_eq!(host.store.len(), rows.len());
            for device in 0..4 {
                let stored = host.store.load(session(device).key());
                let row = rows.get(&device);
                let found = stored.map(|one| (one.session.version(), one.pace.is_some()));
                prop_assert_eq!(found, row.map(|row| (row.1, row.2)));
            }
            for user in 0..4 {
                let key = session(user);
                let found = host.store.load_by_user_key(key.user_key().unwrap());
                let owner = rows.iter().find(|(_, row)| row.0 == user);
                let owner = owner.map(|(device, _)| *session(*device).key());
                prop_assert_eq!(found.map(|stored| *stored.session.key()), owner);
            }
        }
    }
}
