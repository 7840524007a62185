//! What every store must do: the contract of the crate, and what the server adds to it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::home::{Home, on_every_store};
use crate::support::services::Service;
use crate::support::site::{Codes, Site, seed};
use device_flow::digest::QuotaKey;
use device_flow::server::{Cause, Pace, RateLimit, Status, Store as _};
use device_flow_testkit::{Check, check_store};
use example_server::store::{OpenError, Store};
use sqlx::Connection as _;
use time::OffsetDateTime;

on_every_store! {
    keeps_the_contract,
    of_redemptions_at_once_one_wins_and_its_refresh_token_is_the_stored_one,
    of_two_refreshes_at_once_one_token_stays_in_force,
    a_token_of_two_rotations_ago_ends_the_login,
    a_revocation_is_never_undone_by_a_refresh,
    a_login_that_was_not_refreshed_for_too_long_ends,
    a_quota_is_told_when_it_has_something_left_again,
    a_secret_is_made_once,
    a_sign_out_is_known_to_every_server_until_it_is_purged,
    a_pace_is_found_again,
    a_users_logins_are_listed_from_the_approval_to_the_end,
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// How often a race is run, because a race may go well by luck.
const ROUNDS: u32 = 12;

async fn keeps_the_contract(home: Home) {
    let servers = home.open().await;
    let check = Check::default().rounds(ROUNDS).without_purges();
    check_store(&servers, &check).await.unwrap();
    if !home.expires {
        // A purge is for all sessions. So this check runs in years past, in which no other test has sessions.
        let long_ago = now() - time::Duration::days(365 * 10);
        let check = Check::default().rounds(ROUNDS).now(long_ago);
        check_store(&servers, &check).await.unwrap();
    }
}

async fn of_redemptions_at_once_one_wins_and_its_refresh_token_is_the_stored_one(home: Home) {
    let servers = home.open().await;
    for _ in 0..ROUNDS {
        let codes = servers.one().approved().await;
        let (polling, at) = (codes.clone(), now());
        let polled = servers.at_once(6, move |site, _| {
            let codes = polling.clone();
            async move { site.poll(&codes, at).await }
        });
        let polled = polled.await;
        let (granted, others): (Vec<_>, Vec<_>) = polled
            .into_iter()
            .partition(|(cause, _)| *cause == Cause::Granted);
        assert_eq!(granted.len(), 1, "{others:?}");
        // Losing a race is no replay, which would end the login.
        let lost = |cause| matches!(cause, Cause::LostRace | Cause::Duplicate);
        assert!(others.iter().all(|(cause, _)| lost(*cause)), "{others:?}");
        let stored = servers.load(&codes.session).await.unwrap().unwrap();
        assert_eq!(stored.session.status(), Status::Active);
        let token = granted[0].1.clone().unwrap();
        let (cause, _) = servers.sites.last().unwrap().refresh(&token, now()).await;
        assert_eq!(cause, Cause::Refreshed);
    }
}

/// Returns the codes and the refresh token of a redeemed login.
async fn redeemed(site: &Site) -> (Codes, String) {
    let codes = site.approved().await;
    let (cause, token) = site.poll(&codes, now()).await;
    assert_eq!(cause, Cause::Granted);
    (codes, token.unwrap())
}

async fn of_two_refreshes_at_once_one_token_stays_in_force(home: Home) {
    let servers = home.open().await;
    let mut in_force = 0;
    for round in 0..ROUNDS {
        let (_, first) = redeemed(servers.one()).await;
        let refreshed = servers.at_once(2, |site, _| {
            let first = first.clone();
            async move { site.refresh(&first, now()).await }
        });
        // The answer to the first refresh could have been lost. So within the grace the second one is answered, too.
        let refreshed = refreshed.await;
        assert!(
            refreshed
                .iter()
                .all(|(cause, _)| *cause == Cause::Refreshed),
            "{refreshed:?}"
        );
        let mut tokens = refreshed.into_iter().map(|(_, next)| next.unwrap());
        let (one, other) = (tokens.next().unwrap(), tokens.next().unwrap());
        let (tried, left) = if round % 2 == 0 {
            (one, other)
        } else {
            (other, one)
        };
        let (cause, next) = servers.one().refresh(&tried, now()).await;
        let gone = if cause == Cause::Refreshed {
            in_force += 1;
            assert_eq!(servers.one().refresh(&left, now()).await.0, Cause::Reuse);
            next.unwrap()
        } else {
            // The other one was in force, and the login has ended.
            assert_eq!(cause, Cause::Reuse);
            left
        };
        assert_eq!(servers.one().refresh(&gone, now()).await.0, Cause::Ended);
    }
    assert!(in_force > 0, "none was in force");
}

async fn a_token_of_two_rotations_ago_ends_the_login(home: Home) {
    let servers = home.open().await;
    let (_, first) = redeemed(servers.one()).await;
    let mut tokens = vec![first];
    for number in 0..3 {
        let site = &servers.sites[number % servers.sites.len()];
        let (cause, next) = site.refresh(&tokens[number], now()).await;
        assert_eq!(cause, Cause::Refreshed);
        tokens.push(next.unwrap());
    }
    let (cause, _) = servers.one().refresh(&tokens[1], now()).await;
    assert_eq!(cause, Cause::Reuse);
    for gone in &tokens {
        let (cause, _) = servers.one().refresh(gone, now()).await;
        assert_eq!(cause, Cause::Ended);
    }
}

async fn a_revocation_is_never_undone_by_a_refresh(home: Home) {
    let servers = home.open().await;
    for _ in 0..ROUNDS {
        let (codes, first) = redeemed(servers.one()).await;
        let tokens = servers.at_once(2, |site, number| {
            let first = first.clone();
            async move {
                if number == 0 {
                    assert_eq!(site.revoke(&first, now()).await, Cause::Revoked);
                    None
                } else {
                    let (cause, next) = site.refresh(&first, now()).await;
                    assert!(matches!(cause, Cause::Refreshed | Cause::Ended), "{cause}");
                    next
                }
            }
        });
        for gone in tokens.await.into_iter().flatten().chain([first]) {
            assert_eq!(servers.one().refresh(&gone, now()).await.0, Cause::Ended);
        }
        let stored = servers.load(&codes.session).await.unwrap().unwrap();
        assert_eq!(stored.session.status(), Status::Ended);
    }
}

async fn a_login_that_was_not_refreshed_for_too_long_ends(home: Home) {
    let servers = home.open().await;
    let (codes, token) = redeemed(servers.one()).await;
    let late = now() + Site::REFRESH_IDLE + time::Duration::SECOND;
    let (cause, _) = servers.one().refresh(&token, late).await;
    assert_eq!(cause, Cause::LoginExpired);
    let stored = servers.load(&codes.session).await.unwrap().unwrap();
    assert_eq!(stored.session.status(), Status::Ended);
}

/// The contract says how many are given. This test also checks when the next one is given.
async fn a_quota_is_told_when_it_has_something_left_again(home: Home) {
    let servers = home.open().await;
    let limit = RateLimit::new(3, Duration::from_mins(1)).unwrap();
    let key = QuotaKey::of_host("test", &[&seed("quota")]);
    let begun = now();
    let after = |seconds: i64| begun + time::Duration::seconds(seconds);
    let taken = servers.at_once(8, |site, _| async move {
        site.store.take(limit.take(key, begun)).await.unwrap()
    });
    let taken = taken.await;
    let spent: Vec<_> = taken.into_iter().filter_map(Result::err).collect();
    assert_eq!(spent.len(), 5, "three at once");
    assert!(
        spent
            .iter()
            .all(|spent| spent.retry_after == Duration::from_mins(1))
    );
    let spent = servers.take(limit.take(key, after(45))).await.unwrap();
    assert_eq!(spent.unwrap_err().seconds(), 15);
    servers
        .take(limit.take(key, after(60)))
        .await
        .unwrap()
        .unwrap();
    servers
        .take(limit.take(key, after(60)))
        .await
        .unwrap()
        .unwrap_err();
    // If a clock was ahead by a year, one is given all the same.
    let key = QuotaKey::of_host("test", &[&seed("ahead")]);
    servers
        .take(limit.take(key, after(365 * 24 * 3600)))
        .await
        .unwrap()
        .unwrap();
    servers.take(limit.take(key, begun)).await.unwrap().unwrap();
    servers
        .take(limit.take(key, begun))
        .await
        .unwrap()
        .unwrap_err();
}

async fn a_secret_is_made_once(home: Home) {
    let servers = home.open().await;
    let name = seed("secret");
    let secrets = servers.at_once(12, |site, number| {
        let name = name.clone();
        let candidate = [u8::try_from(number).unwrap(); 32];
        async move { site.store.secret(&name, &candidate).await.unwrap() }
    });
    let mut secrets = secrets.await;
    let found = servers.store().find_secret(&name).await.unwrap();
    assert_eq!(found.as_ref(), secrets.first());
    let unknown = servers.store().find_secret(&seed("unknown")).await;
    assert_eq!(unknown.unwrap(), None);
    secrets.push(servers.store().secret(&name, b"late").await.unwrap());
    let first = secrets[0].clone();
    assert!(first.len() == 32 && secrets.iter().all(|one| *one == first));
    let another = servers.store().secret(&seed("another"), b"\0\xff").await;
    assert_eq!(another.unwrap(), b"\0\xff");
}

async fn a_sign_out_is_known_to_every_server_until_it_is_purged(home: Home) {
    let servers = home.open().await;
    let (one, other) = (seed("sign-in"), seed("sign-in"));
    let until = now() + time::Duration::HOUR;
    servers.store().sign_out(&one, until).await.unwrap();
    servers.store().sign_out(&one, until).await.unwrap(); // twice is no mistake
    for _ in &servers.sites {
        assert!(servers.store().is_signed_out(&one).await.unwrap());
        assert!(!servers.store().is_signed_out(&other).await.unwrap());
    }
    if !home.expires {
        let past = now() - time::Duration::days(365 * 10);
        servers.store().sign_out(&other, past).await.unwrap();
        servers.purge(past).await.unwrap();
        assert!(!servers.store().is_signed_out(&other).await.unwrap());
        assert!(servers.store().is_signed_out(&one).await.unwrap());
    }
}

async fn a_users_logins_are_listed_from_the_approval_to_the_end(home: Home) {
    let servers = home.open().await;
    let site = servers.one();
    let codes = site.issue().await;
    let listed = async || {
        let logins = servers.store().logins(&codes.user, now()).await.unwrap();
        let logins = logins
            .iter()
            .map(|session| (*session.key(), session.status()));
        logins.collect::<Vec<_>>()
    };
    assert_eq!(listed().await, []);
    site.enter(&codes, now()).await;
    assert_eq!(listed().await, []);
    site.approve(&codes, now()).await;
    assert_eq!(listed().await, [(codes.session, Status::Approved)]);
    let (_, token) = site.poll(&codes, now()).await;
    assert_eq!(listed().await, [(codes.session, Status::Active)]);
    let (_, token) = site.refresh(&token.unwrap(), now()).await;
    assert_eq!(listed().await, [(codes.session, Status::Active)]);
    // A second login of the same user, and one of another user.
    let second = site.issue().await;
    let second = Codes {
        user: codes.user.clone(),
        ..second
    };
    site.enter(&second, now()).await;
    site.approve(&second, now()).await;
    site.approved().await;
    let mut both = listed().await;
    both.sort_by_key(|(_, status)| *status == Status::Approved);
    let expected = [
        (codes.session, Status::Active),
        (second.session, Status::Approved),
    ];
    assert_eq!(both, expected);
    site.revoke(&token.unwrap(), now()).await;
    assert_eq!(listed().await, [(second.session, Status::Approved)]);
    // A login that is past its time is not listed, purged or not.
    let late = now() + time::Duration::DAY;
    let logins = servers.store().logins(&codes.user, late).await.unwrap();
    assert_eq!(logins.len(), 0);
}

/// The contract lets a store lose a pace. But a store that always loses it slows nobody down, so this server's stores must keep it.
async fn a_pace_is_found_again(home: Home) {
    for pace in [None, Some("memory:")] {
        let site = Site::new(Store::open(&home.url, pace).await.unwrap());
        let codes = site.issue().await;
        assert!(pace_of(&site.store, &codes).await.is_none());
        let begun = now();
        assert_eq!(site.poll(&codes, begun).await.0, Cause::Pending);
        assert!(pace_of(&site.store, &codes).await.is_some());
        let soon = begun + time::Duration::seconds(2);
        assert_eq!(site.poll(&codes, soon).await.0, Cause::TooFast);
    }
}

async fn pace_of(store: &Store, codes: &Codes) -> Option<Pace> {
    store.load(&codes.session).await.unwrap().unwrap().pace
}

#[tokio::test]
async fn with_postgres_the_pace_can_be_in_redis() {
    let (Some(postgres), Some(redis)) = (Home::postgres(), Home::redis()) else {
        return;
    };
    let open = async || Site::new(Store::open(&postgres.url, Some(&redis.url)).await.unwrap());
    let (one, other) = (open().await, open().await);
    let codes = one.issue().await;
    assert_eq!(one.poll(&codes, now()).await.0, Cause::Pending);
    assert!(pace_of(&other.store, &codes).await.is_some());
    let beside = Store::open(&postgres.url, None).await.unwrap();
    assert_eq!(pace_of(&beside, &codes).await, None);
}

/// In a process of [`open_at_once`], this opens the store of a URL, at the same moment as the other processes. Otherwise it does nothing.
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

/// Starts processes that bring the schema of a new store up to date at once.
fn open_at_once(url: &str) {
    let moment = (now() + time::Duration::SECOND).unix_timestamp_nanos();
    let open = |_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "stores::opens_the_store_of_the_environment"]);
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
    let site = Site::new(Store::open(&home.url, None).await.unwrap());
    let waiting = site.issue().await;
    let (redeemed, token) = redeemed(&site).await;
    let secret = site.store.secret("key", &[7; 32]).await.unwrap();
    let whole = async |site: &Site, codes: &Codes| {
        let stored = site.store.load(&codes.session).await.unwrap().unwrap();
        serde_json::to_string(&stored.session).unwrap()
    };
    let before = [whole(&site, &waiting).await, whole(&site, &redeemed).await];
    drop(site);

    let site = Site::new(Store::open(&home.url, None).await.unwrap());
    let after = [whole(&site, &waiting).await, whole(&site, &redeemed).await];
    assert_eq!(before, after);
    site.enter(&waiting, now()).await;
    assert_eq!(site.refresh(&token, now()).await.0, Cause::Refreshed);
    assert_eq!(site.store.secret("key", b"late").await.unwrap(), secret);
}

#[tokio::test]
async fn a_form_that_cannot_be_read_is_no_unknown_code() {
    let home = Home::sqlite().unwrap();
    let site = Site::new(Store::open(&home.url, None).await.unwrap());
    let codes = site.issue().await;
    let path = home.url.strip_prefix("sqlite:").unwrap();
    let mut connection = sqlx::SqliteConnection::connect(path).await.unwrap();
    let spoil = r#"UPDATE sessions SET body = replace(body, '"v":2', '"v":1')"#;
    sqlx::query(spoil).execute(&mut connection).await.unwrap();
    assert!(site.store.load(&codes.session).await.is_err());
    assert_eq!(site.poll(&codes, now()).await.0, Cause::StoreFailed);
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
