//! What every store must do: the contract of the crate, and what the server adds to it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod support;

use std::any::Any;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use device_flow::contract::{self, Case, Operation, Outcome};
use device_flow::digest::SessionKey;
use device_flow::server::{Change, Pace, Session, Status, Subject, Written};
use example_server::store::{Family, OpenError, RefreshToken, Rotation, Store, TokenDigest};
use support::services::{Service, Shared};
use time::OffsetDateTime;
use tokio::task::JoinSet;

/// Where a store is.
struct Home {
    url: String,
    /// Whether processes share it.
    is_shared: bool,
    /// Whether it removes what has expired by itself.
    expires: bool,
    /// What must live as long: a folder, a service.
    _kept: Box<dyn Any + Send>,
}

static POSTGRES: Shared = Shared::new();
static REDIS: Shared = Shared::new();

impl Home {
    fn new(url: impl Into<String>, kept: impl Any + Send) -> Self {
        Self {
            url: url.into(),
            is_shared: true,
            expires: false,
            _kept: Box::new(kept),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "as those that may be missing")]
    fn memory() -> Option<Self> {
        let is_shared = false;
        let home = Self::new("memory:", ());
        Some(Self { is_shared, ..home })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as those that may be missing")]
    fn sqlite() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("db").display());
        Some(Self::new(url, folder))
    }

    fn postgres() -> Option<Self> {
        let service = POSTGRES.start(Service::postgres)?;
        Some(Self::new(service.url(), service.clone()))
    }

    fn redis() -> Option<Self> {
        let service = REDIS.start(Service::redis)?;
        let home = Self::new(service.url(), service.clone());
        let expires = true;
        Some(Self { expires, ..home })
    }

    /// As several servers open it.
    async fn open(&self) -> Servers {
        let mut stores = Vec::new();
        for _ in 0..if self.is_shared { 3 } else { 1 } {
            stores.push(Arc::new(Store::open(&self.url, None).await.unwrap()));
        }
        Servers(stores)
    }
}

#[derive(Clone)]
struct Servers(Vec<Arc<Store>>);

impl Servers {
    fn one(&self) -> &Store {
        &self.0[0]
    }

    /// Does this many things at once, each by the next server; the answers in their order.
    async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        count: usize,
        task: impl Fn(Arc<Store>, usize) -> F,
    ) -> Vec<T> {
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let store = self.0[number % self.0.len()].clone();
            let task = task(store, number);
            tasks.spawn(async move { (number, task.await) });
        }
        let mut answers = tasks.join_all().await;
        answers.sort_by_key(|(number, _)| *number);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// Declares the tests for every store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        on_every_store!(@ memory [$($test)*]);
        on_every_store!(@ sqlite [$($test)*]);
        on_every_store!(@ postgres [$($test)*]);
        on_every_store!(@ redis [$($test)*]);
    };
    (@ $store:ident [$($test:ident)*]) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    if let Some(home) = super::Home::$store() {
                        super::$test(home).await;
                    }
                }
            )*
        }
    };
}

on_every_store! {
    keeps_the_contract,
    a_redemption_comes_with_its_own_refresh_token,
    of_two_rotations_one_wins_and_the_other_is_reuse,
    a_token_rotated_away_revokes_its_family,
    a_revocation_is_never_undone_by_a_rotation,
    an_expired_token_is_unknown,
    a_secret_is_made_once,
    a_pace_is_found_again,
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A seed that no other run has used.
fn seed(name: &str) -> String {
    format!("{name} {}", now().unix_timestamp_nanos())
}

async fn run(store: Arc<Store>, operation: Operation) -> Outcome {
    match operation {
        Operation::Insert(session) => Outcome::Inserted(store.insert(&session).await.unwrap()),
        Operation::Load(key) => Outcome::Found(store.load(&key).await.unwrap()),
        Operation::LoadByUserKey(key) => {
            Outcome::Found(store.load_by_user_key(&key).await.unwrap())
        }
        Operation::Change(read, change) => Outcome::Written(store.change(&read, &change).await),
        Operation::SavePace(key, pace) => {
            store.save_pace(&key, pace).await;
            Outcome::Done
        }
        Operation::LoadQuota(key) => Outcome::Quota(store.load_quota(&key).await.unwrap()),
        Operation::ChangeQuota(change) => Outcome::Written(store.change_quota(&change).await),
        Operation::Purge(now) => {
            store.purge(now).await.unwrap();
            Outcome::Done
        }
    }
}

/// A race may go well by luck.
const ROUNDS: usize = 12;

async fn keeps_the_contract(home: Home) {
    let servers = home.open().await;
    for round in 0..ROUNDS {
        let seed = seed(&round.to_string());
        let cases = contract::cases(&seed, now()).filter(|case| !case.purges());
        let mut at_once = JoinSet::new();
        for case in cases {
            at_once.spawn(play(servers.clone(), case));
        }
        at_once.join_all().await;
        // A purge is for all sessions: one case after the other, and of years past, of which no other test has any.
        let long_ago = now() - time::Duration::days(365 * 10);
        let purging = contract::cases(&seed, long_ago).filter(Case::purges);
        for case in purging.filter(|_| !home.expires) {
            play(servers.clone(), case).await;
        }
    }
}

async fn play(servers: Servers, case: Case) {
    for step in case.steps() {
        let operations = step.operations();
        let outcomes = servers.at_once(operations.len(), |store, number| {
            run(store, operations[number].clone())
        });
        step.check(&outcomes.await).unwrap();
    }
}

/// An approved session in the store, and the change that redeems it: those of a case of the contract.
async fn approved(store: &Arc<Store>, seed: &str) -> (Session, Change) {
    let cases = contract::cases(seed, now());
    let mut cases = cases.filter(|case| case.name().starts_with("of redemptions at once"));
    for step in cases.next().unwrap().steps() {
        match step.operations() {
            [Operation::Change(read, change), ..] if read.status() == Status::Approved => {
                return (read.clone(), change.clone());
            }
            [operation] => {
                let outcomes = [run(store.clone(), operation.clone()).await];
                step.check(&outcomes).unwrap();
            }
            _ => break,
        }
    }
    panic!("the case has no redemption");
}

fn family(key: &SessionKey) -> Family {
    let second = OffsetDateTime::from_unix_timestamp(now().unix_timestamp()).unwrap();
    Family {
        key: *key,
        subject: Subject::new("alice").unwrap(),
        client_id: "client".to_owned(),
        scope: "openid offline_access".parse().unwrap(),
        auth_time: second - time::Duration::hours(1),
        issued_at: second,
    }
}

fn token(text: &str) -> RefreshToken {
    RefreshToken {
        digest: TokenDigest::of(text),
        expires_at: now() + time::Duration::hours(1),
    }
}

/// A redeemed session with this first token.
async fn redeemed(store: &Arc<Store>, seed: &str, token: &RefreshToken) -> Family {
    let (read, change) = approved(store, seed).await;
    let family = family(change.key());
    let written = store.redeem(&read, &change, Some((&family, token))).await;
    assert_eq!(written, Written::Won);
    family
}

async fn a_redemption_comes_with_its_own_refresh_token(home: Home) {
    let servers = home.open().await;
    for round in 0..ROUNDS {
        let seed = seed(&round.to_string());
        let (read, change) = approved(&servers.0[0], &seed).await;
        let family = family(change.key());
        let token = move |number| token(&format!("{seed} {number}"));
        let redeem = |store: Arc<Store>, number| {
            let (token, family) = (token(number), family.clone());
            let (read, change) = (read.clone(), change.clone());
            async move { store.redeem(&read, &change, Some((&family, &token))).await }
        };
        let written = servers.at_once(6, redeem).await;
        let won = written.iter().filter(|one| **one == Written::Won).count();
        let lost = written.iter().filter(|one| **one == Written::Lost).count();
        assert_eq!((won, lost), (1, 5), "{written:?}");
        for (number, written) in written.into_iter().enumerate() {
            let found = servers
                .one()
                .load_family(&token(number).digest, now())
                .await;
            let expected = (written == Written::Won).then(|| family.clone());
            assert_eq!(found.unwrap(), expected);
        }
        let stored = servers.one().load(change.key()).await.unwrap().unwrap();
        assert_eq!(stored.session.status(), Status::Redeemed);
    }
}

async fn of_two_rotations_one_wins_and_the_other_is_reuse(home: Home) {
    let servers = home.open().await;
    for round in 0..ROUNDS {
        let seed = seed(&round.to_string());
        let first = token(&seed);
        redeemed(&servers.0[0], &seed, &first).await;
        let new = move |number| token(&format!("{seed} {number}"));
        let rotations = servers.at_once(2, |store, number| {
            let new = new(number);
            async move { store.rotate(&first.digest, &new, now()).await.unwrap() }
        });
        let mut rotations = rotations.await;
        rotations.sort_by_key(|one| *one != Rotation::Rotated);
        assert_eq!(rotations, [Rotation::Rotated, Rotation::Reused]);
        for left in [first, new(0), new(1)] {
            let found = servers.one().load_family(&left.digest, now()).await;
            assert_eq!(found.unwrap(), None);
            let rotated = servers.one().rotate(&left.digest, &new(2), now()).await;
            assert_eq!(rotated.unwrap(), Rotation::Unknown);
        }
    }
}

async fn a_token_rotated_away_revokes_its_family(home: Home) {
    let servers = home.open().await;
    let store = servers.one();
    let seed = seed("chain");
    let tokens: Vec<_> = (0..4)
        .map(|number| token(&format!("{seed} {number}")))
        .collect();
    let family = redeemed(&servers.0[0], &seed, &tokens[0]).await;
    for pair in tokens.windows(2) {
        let rotated = store
            .rotate(&pair[0].digest, &pair[1], now())
            .await
            .unwrap();
        assert_eq!(rotated, Rotation::Rotated);
    }
    for known in &tokens {
        let found = store.load_family(&known.digest, now()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&family));
    }
    let stolen = token(&format!("{seed} stolen"));
    let rotated = store
        .rotate(&tokens[1].digest, &stolen, now())
        .await
        .unwrap();
    assert_eq!(rotated, Rotation::Reused);
    for gone in tokens.iter().chain([&stolen]) {
        let rotated = store.rotate(&gone.digest, &stolen, now()).await.unwrap();
        assert_eq!(rotated, Rotation::Unknown);
    }
}

async fn a_revocation_is_never_undone_by_a_rotation(home: Home) {
    let servers = home.open().await;
    for round in 0..ROUNDS {
        let seed = seed(&round.to_string());
        let (first, next) = (token(&seed), token(&format!("{seed} next")));
        let key = redeemed(&servers.0[0], &seed, &first).await.key;
        let at_once = servers.at_once(2, |store, number| async move {
            if number == 0 {
                store.revoke_family(&key).await.unwrap();
            } else {
                let rotated = store.rotate(&first.digest, &next, now()).await.unwrap();
                assert_ne!(rotated, Rotation::Reused);
            }
        });
        at_once.await;
        for gone in [first, next] {
            let found = servers.one().load_family(&gone.digest, now()).await;
            assert_eq!(found.unwrap(), None);
        }
    }
}

async fn an_expired_token_is_unknown(home: Home) {
    let servers = home.open().await;
    let store = servers.one();
    let seed = seed("expired");
    let expires_at = now() + time::Duration::milliseconds(200);
    let first = RefreshToken {
        expires_at,
        ..token(&seed)
    };
    redeemed(&servers.0[0], &seed, &first).await;
    let expired = async || {
        let found = store.load_family(&first.digest, now()).await;
        found.unwrap().is_none()
    };
    let started = Instant::now();
    while !expired().await {
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rotated = store.rotate(&first.digest, &token("late"), now()).await;
    assert_eq!(rotated.unwrap(), Rotation::Unknown);
}

async fn a_secret_is_made_once(home: Home) {
    let servers = home.open().await;
    let name = seed("secret");
    let secrets = servers.at_once(12, |store, number| {
        let name = name.clone();
        let candidate = [u8::try_from(number).unwrap(); 32];
        async move { store.secret(&name, &candidate).await.unwrap() }
    });
    let mut secrets = secrets.await;
    secrets.push(servers.one().secret(&name, b"late").await.unwrap());
    let first = secrets[0].clone();
    assert!(first.len() == 32 && secrets.iter().all(|one| *one == first));
    let another = servers.one().secret(&seed("another"), b"\0\xff").await;
    assert_eq!(another.unwrap(), b"\0\xff");
}

/// A session without a pace, and a pace for it: those of a case of the contract.
async fn paced(store: &Arc<Store>, seed: &str) -> (SessionKey, Pace) {
    let cases = contract::cases(seed, now());
    let mut cases = cases.filter(|case| case.name().starts_with("a pace is saved beside"));
    for step in cases.next().unwrap().steps() {
        match step.operations() {
            [Operation::SavePace(key, pace)] => return (*key, *pace),
            [operation] => drop(run(store.clone(), operation.clone()).await),
            _ => break,
        }
    }
    panic!("the case saves no pace");
}

/// The contract lets a store lose it; a store that always does slows nobody down.
async fn a_pace_is_found_again(home: Home) {
    let beside = Arc::new(Store::open(&home.url, None).await.unwrap());
    let apart = Arc::new(Store::open(&home.url, Some("memory:")).await.unwrap());
    for store in [beside, apart] {
        let (key, pace) = paced(&store, &seed("pace")).await;
        store.save_pace(&key, pace).await;
        let stored = store.load(&key).await.unwrap().unwrap();
        assert_eq!(stored.pace, Some(pace));
    }
}

#[tokio::test]
async fn with_postgres_the_pace_can_be_in_redis() {
    let (Some(postgres), Some(redis)) = (Home::postgres(), Home::redis()) else {
        return;
    };
    let open = async || Arc::new(Store::open(&postgres.url, Some(&redis.url)).await.unwrap());
    let (one, other) = (open().await, open().await);
    let (key, pace) = paced(&one, &seed("apart")).await;
    one.save_pace(&key, pace).await;
    let stored = other.load(&key).await.unwrap().unwrap();
    assert_eq!(stored.pace, Some(pace));
    let beside = Store::open(&postgres.url, None).await.unwrap();
    assert_eq!(beside.load(&key).await.unwrap().unwrap().pace, None);
}

/// A Redis of its own, whose store is looked into: every write there has an expiry to set, and nothing else removes anything.
struct Expiring {
    store: Arc<Store>,
    service: Service,
    connection: MultiplexedConnection,
}

impl Expiring {
    async fn new() -> Option<Self> {
        let service = Service::redis()?;
        let client = ::redis::Client::open(service.url()).unwrap();
        Some(Self {
            store: Arc::new(Store::open(&service.url(), None).await.unwrap()),
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            service,
        })
    }

    /// When each key of a kind expires, in milliseconds; -1 for never.
    async fn of(&self, kind: &str) -> Vec<i128> {
        let mut connection = self.connection.clone();
        let mut keys = ::redis::cmd("KEYS");
        let keys = keys.arg(format!("device-flow:{kind}:*"));
        let keys: Vec<Vec<u8>> = keys.query_async(&mut connection).await.unwrap();
        let mut expiries = Vec::new();
        for key in keys {
            let mut expiry = ::redis::cmd("PEXPIRETIME");
            let expiry = expiry.arg(key).query_async::<i64>(&mut connection);
            expiries.push(expiry.await.unwrap().into());
        }
        expiries.sort_unstable();
        expiries
    }

    async fn the_one_of(&self, kind: &str) -> i128 {
        let expiries = self.of(kind).await;
        assert_eq!(expiries.len(), 1, "{kind}");
        expiries[0]
    }
}

fn millis(moment: OffsetDateTime) -> i128 {
    moment.unix_timestamp_nanos() / 1_000_000
}

#[tokio::test]
async fn in_redis_a_session_expires_with_its_user_code_whenever_it_changes() {
    let Some(redis) = Expiring::new().await else {
        return;
    };
    let seed = seed("expiry");
    let cases = contract::cases(&seed, now());
    let mut cases = cases.filter(|case| case.name() == "a change moves the purge time");
    let mut moments = BTreeSet::new();
    for step in cases.next().unwrap().steps() {
        let [operation] = step.operations() else {
            panic!("{step:?}");
        };
        let purge_at = match operation {
            Operation::Insert(session) => session.purge_at(),
            Operation::Change(_, change) => change.purge_at(),
            Operation::Load(_)
            | Operation::LoadByUserKey(_)
            | Operation::SavePace(..)
            | Operation::LoadQuota(_)
            | Operation::ChangeQuota(_) => continue,
            Operation::Purge(_) => break,
        };
        let outcomes = [run(redis.store.clone(), operation.clone()).await];
        step.check(&outcomes).unwrap();
        moments.insert(purge_at);
        assert_eq!(redis.of("session").await, [millis(purge_at)]);
        assert_eq!(redis.of("user").await, [millis(purge_at)]);
    }
    assert_eq!(moments.len(), 2, "it moves");
}

#[tokio::test]
async fn in_redis_a_family_expires_with_its_newest_token() {
    let Some(redis) = Expiring::new().await else {
        return;
    };
    let first = token(&seed("first"));
    let second = RefreshToken {
        expires_at: first.expires_at + time::Duration::HOUR,
        ..token(&seed("second"))
    };
    let [sooner, later] = [first, second].map(|token| millis(token.expires_at));
    redeemed(&redis.store, &seed("family"), &first).await;
    assert_eq!(redis.of("family").await, [sooner]);
    assert_eq!(redis.of("token").await, [sooner]);
    let rotated = redis.store.rotate(&first.digest, &second, now()).await;
    assert_eq!(rotated.unwrap(), Rotation::Rotated);
    assert_eq!(redis.of("family").await, [later]);
    assert_eq!(redis.of("token").await, [sooner, later]);
}

#[tokio::test]
async fn in_redis_quotas_and_paces_expire_and_the_servers_keys_stay() {
    let Some(redis) = Expiring::new().await else {
        return;
    };
    let seed_of_quota = seed("quota");
    let cases = contract::cases(&seed_of_quota, now());
    let mut steps = cases.flat_map(|case| case.steps().to_vec());
    let quota = steps.find_map(|step| match step.operations() {
        [Operation::ChangeQuota(change)] if change.from().is_none() => Some(*change),
        _ => None,
    });
    let quota = quota.unwrap();
    assert_eq!(redis.store.change_quota(&quota).await, Written::Won);
    // Not too early, for then it would limit nobody; a little late is no matter.
    let purge_at = quota.to().purge_at();
    let latest = purge_at + time::Duration::minutes(2);
    let expiry = redis.the_one_of("quota").await;
    assert!((millis(purge_at)..=millis(latest)).contains(&expiry));

    // A pace alone is kept for an hour.
    let apart = Store::open("memory:", Some(&redis.service.url())).await;
    let apart = Arc::new(apart.unwrap());
    let (key, pace) = paced(&apart, &seed("pace")).await;
    let (hour, slack) = (time::Duration::HOUR, time::Duration::SECOND);
    let begun = now();
    apart.save_pace(&key, pace).await;
    let expiry = redis.the_one_of("pace").await;
    let expected = millis(begun + hour - slack)..=millis(now() + hour + slack);
    assert!(expected.contains(&expiry));

    redis.store.secret("key", &[7; 32]).await.unwrap();
    assert_eq!(redis.of("secret").await, [-1]);
}

/// A process of [`open_at_once`]: it opens the store of a URL, at a moment that all of them have.
#[tokio::test]
async fn opens_the_store_of_the_environment() {
    let (Ok(url), Ok(moment)) = (std::env::var(OPEN), std::env::var(OPEN_AT)) else {
        return;
    };
    let moment = OffsetDateTime::from_unix_timestamp_nanos(moment.parse().unwrap()).unwrap();
    let left = Duration::try_from(moment - now()).unwrap_or_default();
    tokio::time::sleep(left).await;
    let store = Store::open(&url, None).await.unwrap();
    store.ping().await.unwrap();
}

const OPEN: &str = "TEST_OPEN_STORE";
const OPEN_AT: &str = "TEST_OPEN_STORE_AT";

/// Processes that bring a new store's schema up to date at once.
fn open_at_once(url: &str) {
    let moment = (now() + time::Duration::SECOND).unix_timestamp_nanos();
    let open = |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "opens_the_store_of_the_environment"]);
        command.env(OPEN, url).env(OPEN_AT, moment.to_string());
        command.stdout(Stdio::piped()).spawn().unwrap()
    };
    let opening: Vec<_> = (0..6).map(open).collect();
    for process in opening {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }
}

#[test]
fn a_new_file_is_opened_by_many_at_once() {
    open_at_once(&Home::sqlite().unwrap().url);
}

#[test]
fn a_new_postgres_is_opened_by_many_at_once() {
    if let Some(service) = Service::postgres() {
        open_at_once(&service.url());
    }
}

#[tokio::test]
async fn a_file_opened_again_has_kept_everything() {
    let home = Home::sqlite().unwrap();
    let seed = seed("again");
    let first = token(&seed);
    let store = Arc::new(Store::open(&home.url, None).await.unwrap());
    let family = redeemed(&store, &seed, &first).await;
    let secret = store.secret("key", &[7; 32]).await.unwrap();
    let session = store.load(&family.key).await.unwrap().unwrap().session;
    drop(store);

    let store = Store::open(&home.url, None).await.unwrap();
    let found = store.load(&family.key).await.unwrap().unwrap();
    let whole = |session| serde_json::to_string(session).unwrap();
    assert_eq!(whole(&found.session), whole(&session));
    let found = store.load_by_user_key(session.user_key()).await.unwrap();
    assert_eq!(found.unwrap().session.key(), &family.key);
    let found = store.load_family(&first.digest, now()).await.unwrap();
    assert_eq!(found, Some(family));
    assert_eq!(store.secret("key", b"late").await.unwrap(), secret);
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn the_file_and_its_companions_are_their_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let url = format!("sqlite:{}", path.display());
    let store = Store::open(&url, None).await.unwrap();
    store.secret("key", &[7; 32]).await.unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap();
    let modes: Vec<_> = files.map(|file| mode(&file.unwrap().path())).collect();
    assert_eq!(modes, [0o600; 3]); // the file, its log and the log's index
}

#[tokio::test]
async fn a_file_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Store::open(&format!("sqlite:{}", path.display()), None).await;
    assert!(matches!(refused, Err(OpenError::Mode(_))), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_url_is_refused_without_its_password() {
    for url in [
        "",
        "memory",
        "sqlite:",
        "mysql://user:secret@host/",
        "https://host",
        "postgres://user:secret@",
        "postgres://user:secret@host:port/",
        "postgres://user:secret%ff@host/",
        "redis://:secret@",
        "redis://:secret@host:port/",
        "redis://:secret%ff@host/",
    ] {
        let refused = Store::open(url, None).await.unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("secret"));
    }
    for url in [
        "",
        "sqlite:x",
        "postgres://user:secret@host/",
        "redis://:secret@",
    ] {
        let refused = Store::open("memory:", Some(url)).await.unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("secret"));
    }
}

async fn says_that_it_does_not_know(url: &str, end: impl FnOnce()) {
    let store = Arc::new(Store::open(url, None).await.unwrap());
    let (read, change) = approved(&store, &seed("cut")).await;
    let (key, pace) = paced(&store, &seed("cut pace")).await;
    end();
    let started = Instant::now();
    assert_eq!(store.change(&read, &change).await, Written::Unknown);
    assert!(store.load(&key).await.is_err());
    assert!(
        store
            .rotate(&token("old").digest, &token("new"), now())
            .await
            .is_err()
    );
    store.save_pace(&key, pace).await;
    assert!(store.ping().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(25), "it waits");
}

#[tokio::test]
async fn a_write_to_a_lost_postgres_is_unknown() {
    if let Some(service) = Service::postgres() {
        let url = service.url();
        says_that_it_does_not_know(&url, || drop(service)).await;
    }
}

#[tokio::test]
async fn a_write_to_a_lost_redis_is_unknown() {
    if let Some(service) = Service::redis() {
        let url = service.url();
        says_that_it_does_not_know(&url, || drop(service)).await;
    }
}
