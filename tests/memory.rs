//! The store's contract, on the embedded store. Any other store must pass the same sentences.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use core::time::Duration;
use std::collections::HashMap;

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Change, Entered, Entry, HostValue, Inserted, Limit, Pace, Polled, QuotaChange, Session, Status,
    Written,
};
use proptest::prelude::*;
use support::{
    CLI, NO_CODE, NOW, alice, approve, claim, cli, entropy_of, issue, keys, policy, poll,
    poll_body, post, subject, with_issuing, with_poll,
};
use time::OffsetDateTime;

/// A session that is not in any store, with one key per first and one per second argument.
fn session_of(device: u8, user: u8) -> Session {
    let body = "client_id=client_cli";
    let drawn = with_issuing(&policy(), post(body), Some(&cli()), |issuing| {
        let issuance = issuing.draw(entropy_of(device, user), &keys(), NOW);
        issuance.unwrap().session().clone()
    });
    drawn.unwrap()
}

fn session(seed: u8) -> Session {
    session_of(seed, seed)
}

/// A store with one pending session.
fn store_with(session: &Session) -> Memory {
    let mut store = Memory::new();
    assert_eq!(store.insert(session), Inserted::New);
    store
}

/// The change by which `user` claims a session as it is stored.
fn claim_of(session: &Session, seed: u8, user: &str) -> Change {
    let (keys, policy, user) = (keys(), policy(), subject(user));
    let typed = user_code(seed);
    let mut entry = Entry::new(&typed, &user, &keys, &policy);
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    match paid.enter(Some(session), NOW).unwrap() {
        Entered::Claim(claim) => claim.change().clone(),
        Entered::Review(_) => panic!("claimed before"),
    }
}

/// The user code of a seed.
fn user_code(seed: u8) -> String {
    let mut elsewhere = Memory::new();
    issue(&mut elsewhere, &policy(), &cli(), seed, NOW).user_code
}

/// The pace after a first poll at `now`.
fn pace_at(session: &Session, now: OffsetDateTime) -> Pace {
    let mut elsewhere = Memory::new();
    let seed = (0..=255).find(|&seed| self::session(seed).key() == session.key());
    let codes = issue(&mut elsewhere, &policy(), &cli(), seed.unwrap(), NOW);
    let body = poll_body(CLI, &codes.device_code);
    let pace = with_poll(&policy(), post(&body), Some(&cli()), |poll| {
        match poll.decide(elsewhere.load(&codes.key), now) {
            Polled::Paced(_, pace, _) => pace,
            Polled::Reply(_) | Polled::Redeem(_) => panic!("not paced"),
        }
    });
    pace.unwrap()
}

/// All that a store has of a session.
fn stored(store: &Memory, key: &SessionKey) -> Option<(String, Option<Pace>)> {
    store.load(key).map(|stored| {
        let session = serde_json::to_string(&stored.session).unwrap();
        (session, stored.pace)
    })
}

fn text(session: &Session) -> String {
    serde_json::to_string(session).unwrap()
}

// insert

#[test]
fn insert_stores_a_session_under_both_of_its_keys() {
    let session = session(1);
    let store = store_with(&session);
    assert_eq!(stored(&store, session.key()), Some((text(&session), None)));
    let by_user = store.load_by_user_key(session.user_key()).unwrap();
    assert_eq!(by_user.session.key(), session.key());
    assert_eq!(store.len(), 1);
    assert!(!store.is_empty());
}

#[test]
fn insert_is_unique_on_the_device_code_and_says_so() {
    let first = session_of(1, 1);
    let mut store = store_with(&first);
    let second = session_of(1, 2);
    assert_eq!(store.insert(&second), Inserted::DeviceCodeTaken);
    assert_eq!(stored(&store, first.key()), Some((text(&first), None)));
    assert!(store.load_by_user_key(second.user_key()).is_none());
    assert_eq!(store.len(), 1);
}

#[test]
fn insert_is_unique_on_the_user_code_and_says_so() {
    let first = session_of(1, 1);
    let mut store = store_with(&first);
    let second = session_of(2, 1);
    assert_eq!(store.insert(&second), Inserted::UserCodeTaken);
    assert!(store.load(second.key()).is_none());
    let by_user = store.load_by_user_key(second.user_key()).unwrap();
    assert_eq!(by_user.session.key(), first.key());
    assert_eq!(store.len(), 1);
}

/// A device code that is drawn twice is the graver of the two (D8).
#[test]
fn insert_names_the_device_code_where_both_are_taken() {
    let mut store = store_with(&session_of(1, 1));
    assert_eq!(store.insert(&session_of(2, 2)), Inserted::New);
    assert_eq!(store.insert(&session_of(1, 1)), Inserted::DeviceCodeTaken);
    assert_eq!(store.insert(&session_of(1, 2)), Inserted::DeviceCodeTaken);
    assert_eq!(store.len(), 2);
}

#[test]
fn insert_never_overwrites_a_session_that_has_moved_on() {
    let first = session(1);
    let mut store = store_with(&first);
    assert_eq!(store.change(&claim_of(&first, 1, "alice")), Written::Won);
    store.save_pace(first.key(), pace_at(&first, NOW));
    let before = stored(&store, first.key());
    assert_eq!(store.insert(&first), Inserted::DeviceCodeTaken);
    assert_eq!(store.insert(&session_of(2, 1)), Inserted::UserCodeTaken);
    assert_eq!(stored(&store, first.key()), before);
}

/// Past its purge time but not purged, a session still has its keys.
#[test]
fn insert_takes_no_key_from_a_session_that_awaits_its_purge() {
    let first = session(1);
    let mut store = store_with(&first);
    let purge_at = first.purge_at();
    assert_eq!(store.insert(&session_of(2, 1)), Inserted::UserCodeTaken);
    assert_eq!(store.purge(purge_at + Duration::from_millis(1)), 1);
    assert_eq!(store.insert(&session_of(2, 1)), Inserted::New);
    assert_eq!(store.insert(&session_of(1, 2)), Inserted::New);
}

// load

#[test]
fn load_finds_nothing_under_a_key_that_was_never_inserted() {
    let store = store_with(&session(1));
    let other = session(2);
    assert!(store.load(other.key()).is_none());
    assert!(store.load_by_user_key(other.user_key()).is_none());
    // Nor under the key of the other kind.
    let first = session(1);
    let crossed = SessionKey::from_bytes(*first.user_key().as_bytes());
    assert!(store.load(&crossed).is_none());
    let crossed = UserKey::from_bytes(*first.key().as_bytes());
    assert!(store.load_by_user_key(&crossed).is_none());
}

/// The same session with other keys.
fn with_keys(session: &Session, key: [u8; 32], user_key: [u8; 32]) -> Session {
    let mut form: serde_json::Value = serde_json::from_str(&text(session)).unwrap();
    form["key"] = SessionKey::from_bytes(key).to_string().into();
    form["user_key"] = UserKey::from_bytes(user_key).to_string().into();
    serde_json::from_value(form).unwrap()
}

/// Keys that differ in their last octet alone are different keys.
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
        assert_eq!(
            store.load(session.key()).unwrap().session.key(),
            session.key()
        );
        let by_user = store.load_by_user_key(session.user_key()).unwrap();
        assert_eq!(by_user.session.key(), session.key());
    }
    assert!(store.load(&SessionKey::from_bytes(ending(99))).is_none());
    assert!(
        store
            .load_by_user_key(&UserKey::from_bytes(ending(99)))
            .is_none()
    );
}

// change

#[test]
fn change_wins_where_key_and_version_match_and_raises_the_version_by_one() {
    let session = session(1);
    let mut store = store_with(&session);
    let change = claim_of(&session, 1, "alice");
    assert_eq!(change.expected_version(), session.version());
    assert_eq!(store.change(&change), Written::Won);
    let after = &store.load(session.key()).unwrap().session;
    assert_eq!(after.version(), session.version() + 1);
    assert_eq!(after.status(), Status::Claimed);
    assert_eq!(after.claimant(), Some(&alice()));
    // And so under the other key.
    let by_user = store.load_by_user_key(session.user_key()).unwrap();
    assert_eq!(by_user.session.version(), session.version() + 1);
    // It is what `apply` says.
    let applied = session.apply(&change).unwrap();
    assert_eq!(text(after), text(&applied));
}

#[test]
fn change_loses_where_the_version_is_another_and_writes_nothing() {
    let session = session(1);
    let mut store = store_with(&session);
    let (first, second) = (claim_of(&session, 1, "alice"), claim_of(&session, 1, "bob"));
    assert_eq!(store.change(&first), Written::Won);
    let before = stored(&store, session.key());
    // The loser of the race, and the winner said twice.
    assert_eq!(store.change(&second), Written::Lost);
    assert_eq!(store.change(&first), Written::Lost);
    assert_eq!(stored(&store, session.key()), before);
    // A version ahead of the stored one is no better than one behind.
    let ahead = store.load(session.key()).unwrap().session.clone();
    let release = ahead.release(&alice()).unwrap();
    let mut fresh = store_with(&session);
    assert_eq!(fresh.change(&release), Written::Lost);
    assert_eq!(stored(&fresh, session.key()), Some((text(&session), None)));
}

#[test]
fn change_never_inserts() {
    let session = session(1);
    let mut store = Memory::new();
    assert_eq!(store.change(&claim_of(&session, 1, "alice")), Written::Lost);
    assert!(store.is_empty());
    assert!(store.load_by_user_key(session.user_key()).is_none());
}

#[test]
fn change_revives_no_session_that_was_purged() {
    let session = session(1);
    let mut store = store_with(&session);
    let change = claim_of(&session, 1, "alice");
    store.purge(session.purge_at() + Duration::from_millis(1));
    assert_eq!(store.change(&change), Written::Lost);
    assert!(store.load(session.key()).is_none());
    assert!(store.is_empty());
}

#[test]
fn change_touches_no_other_session_and_no_pace() {
    let (one, other) = (session(1), session(2));
    let mut store = store_with(&one);
    assert_eq!(store.insert(&other), Inserted::New);
    let pace = pace_at(&one, NOW);
    store.save_pace(one.key(), pace);
    assert_eq!(store.change(&claim_of(&one, 1, "alice")), Written::Won);
    assert_eq!(store.load(one.key()).unwrap().pace, Some(pace));
    assert_eq!(stored(&store, other.key()), Some((text(&other), None)));
}

/// "Rewritten by approve; a store with its own expiry takes it from each guarded write."
#[test]
fn change_writes_the_purge_time_along() {
    let session = session(1);
    let mut store = store_with(&session);
    let policy = policy();
    let late = session.expires_at() - Duration::from_secs(1);
    claim(&mut store, &policy, &alice(), &user_code(1), late);
    let claimed = &store.load(session.key()).unwrap().session;
    let scope = claimed.scope().clone();
    let approval = claimed.approve(&alice(), &scope, HostValue::default(), &policy, late);
    let change = approval.unwrap().unwrap();
    // In the last second: two intervals to redeem, and five minutes.
    let purge_at = late + Duration::from_secs(10) + Duration::from_mins(5);
    assert_eq!(change.purge_at(), purge_at);
    assert_eq!(store.change(&change), Written::Won);
    let after = &store.load(session.key()).unwrap().session;
    assert_eq!(after.purge_at(), purge_at);
    assert_eq!(
        store.purge(session.purge_at() + Duration::from_millis(1)),
        0
    );
    assert_eq!(store.purge(purge_at + Duration::from_millis(1)), 1);
}

// save pace

#[test]
fn save_pace_keeps_the_last_pace_beside_the_session() {
    let session = session(1);
    let mut store = store_with(&session);
    for second in [0, 5, 10] {
        let pace = pace_at(&session, NOW + Duration::from_secs(second));
        store.save_pace(session.key(), pace);
        let by_user = store.load_by_user_key(session.user_key()).unwrap();
        assert_eq!(by_user.pace, Some(pace));
        assert_eq!(store.load(session.key()).unwrap().pace, Some(pace));
    }
}

/// Abblix #459, vouch #266: a poll wrote the whole record back and erased the approval.
#[test]
fn save_pace_never_touches_the_version_or_anything_else_of_the_session() {
    let session = session(1);
    let mut store = store_with(&session);
    let pace = pace_at(&session, NOW);
    store.save_pace(session.key(), pace);
    assert_eq!(
        stored(&store, session.key()),
        Some((text(&session), Some(pace)))
    );
    // So a change made for the reading before still wins, and a pace saved after it takes nothing back.
    assert_eq!(store.change(&claim_of(&session, 1, "alice")), Written::Won);
    let claimed = text(&store.load(session.key()).unwrap().session);
    store.save_pace(session.key(), pace);
    assert_eq!(stored(&store, session.key()), Some((claimed, Some(pace))));
}

#[test]
fn save_pace_never_inserts_or_revives_a_session() {
    let session = session(1);
    let pace = pace_at(&session, NOW);
    let mut store = Memory::new();
    store.save_pace(session.key(), pace);
    assert!(store.is_empty());
    assert!(store.load(session.key()).is_none());
    let mut store = store_with(&session);
    store.purge(session.purge_at() + Duration::from_millis(1));
    store.save_pace(session.key(), pace);
    assert!(store.is_empty());
    // What is inserted later has no pace of an earlier life.
    assert_eq!(store.insert(&session), Inserted::New);
    assert_eq!(store.load(session.key()).unwrap().pace, None);
}

#[test]
fn save_pace_never_extends_a_lifetime() {
    let session = session(1);
    let mut store = store_with(&session);
    let last = session.expires_at() - Duration::from_secs(1);
    store.save_pace(session.key(), pace_at(&session, last));
    assert_eq!(
        store.load(session.key()).unwrap().session.purge_at(),
        session.purge_at()
    );
    assert_eq!(
        store.purge(session.purge_at() + Duration::from_millis(1)),
        1
    );
}

// change quota

fn limit() -> Limit {
    Limit::new(2, Duration::from_mins(1)).unwrap()
}

fn take(store: &Memory, key: QuotaKey, now: OffsetDateTime) -> Option<QuotaChange> {
    limit().take(key, store.load_quota(&key), now).ok()
}

#[test]
fn change_quota_wins_where_the_stored_value_is_the_one_read() {
    let mut store = Memory::new();
    let key = QuotaKey::guesses_from("203.0.113.7");
    assert_eq!(store.load_quota(&key), None);
    let first = take(&store, key, NOW).unwrap();
    assert_eq!(first.from(), None);
    assert_eq!(store.change_quota(&first), Written::Won);
    assert_eq!(store.load_quota(&key), Some(first.to()));
    let second = take(&store, key, NOW).unwrap();
    assert_eq!(second.from(), Some(first.to()));
    assert_eq!(store.change_quota(&second), Written::Won);
    assert!(take(&store, key, NOW).is_none());
}

/// Two requests that read the same value share no token: one of them takes again.
#[test]
fn change_quota_loses_where_another_was_written_meanwhile_and_writes_nothing() {
    let mut store = Memory::new();
    let key = QuotaKey::guesses_from("203.0.113.7");
    let (first, parallel) = (take(&store, key, NOW), take(&store, key, NOW));
    assert_eq!(store.change_quota(&first.unwrap()), Written::Won);
    let before = store.load_quota(&key);
    assert_eq!(store.change_quota(&parallel.unwrap()), Written::Lost);
    assert_eq!(store.load_quota(&key), before);
    let (second, parallel) = (take(&store, key, NOW), take(&store, key, NOW));
    assert_eq!(store.change_quota(&second.unwrap()), Written::Won);
    let before = store.load_quota(&key);
    assert_eq!(store.change_quota(&parallel.unwrap()), Written::Lost);
    assert_eq!(store.load_quota(&key), before);
}

#[test]
fn change_quota_touches_no_other_key() {
    let mut store = Memory::new();
    let one = QuotaKey::guesses_from("203.0.113.7");
    let other = QuotaKey::guesses_from("203.0.113.8");
    let change = take(&store, one, NOW).unwrap();
    assert_eq!(store.change_quota(&change), Written::Won);
    assert_eq!(store.load_quota(&other), None);
    // A change of a value that is gone loses.
    let next = take(&store, one, NOW).unwrap();
    store.purge(change.to().purge_at() + Duration::from_millis(1));
    assert_eq!(store.load_quota(&one), None);
    assert_eq!(store.change_quota(&next), Written::Lost);
    assert_eq!(store.load_quota(&one), None);
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
        QuotaKey::guesses_from("ann"),
    ];
    assert!(!others.contains(&sign_in));
}

// purge

#[test]
fn purge_removes_only_what_is_past_its_purge_time() {
    let policy = policy();
    let mut store = Memory::new();
    let minutes = |count| Duration::from_mins(count);
    for (seed, later) in [(1, 0), (2, 1), (3, 2)] {
        issue(&mut store, &policy, &cli(), seed, NOW + minutes(later));
    }
    // Five minutes to live and five to keep.
    let end = |later: u64| NOW + minutes(10 + later);
    let moment = Duration::from_millis(1);
    assert_eq!(store.purge(NOW), 0);
    assert_eq!(store.purge(end(0) - moment), 0);
    assert_eq!(store.len(), 3);
    assert_eq!(store.purge(end(0) + moment), 1);
    assert!(store.load(session(1).key()).is_none());
    assert!(store.load(session(2).key()).is_some());
    assert_eq!(store.purge(end(1) - moment), 0);
    assert_eq!(store.purge(end(2) + moment), 2);
    assert!(store.is_empty());
}

/// An expired session is still answered: `expired_token` until its purge time.
#[test]
fn purge_keeps_a_session_that_has_expired_until_its_purge_time() {
    let policy = policy();
    let mut store = Memory::new();
    let codes = issue(&mut store, &policy, &cli(), 1, NOW);
    let late = NOW + Duration::from_mins(9);
    assert_eq!(store.purge(late), 0);
    let reply = poll(&mut store, &policy, &cli(), &codes.device_code, late);
    assert_eq!(reply.cause(), device_flow::server::Cause::Expired);
}

#[test]
fn purge_takes_the_user_keys_along() {
    let one = session_of(1, 1);
    let mut store = store_with(&one);
    let later = with_issuing(
        &policy(),
        post("client_id=client_cli"),
        Some(&cli()),
        |issuing| {
            let now = NOW + Duration::from_mins(1);
            let issuance = issuing.draw(entropy_of(2, 2), &keys(), now).unwrap();
            issuance.session().clone()
        },
    );
    let later = later.unwrap();
    assert_eq!(store.insert(&later), Inserted::New);
    assert_eq!(store.purge(one.purge_at() + Duration::from_millis(1)), 1);
    assert!(store.load_by_user_key(one.user_key()).is_none());
    assert!(store.load_by_user_key(later.user_key()).is_some());
    // The code is free again, for another session.
    let next = session_of(3, 1);
    assert_eq!(store.insert(&next), Inserted::New);
    let by_user = store.load_by_user_key(one.user_key()).unwrap();
    assert_eq!(by_user.session.key(), next.key());
}

/// wso2 #21835, Duende IS4 #3198: tables grew. The index of the user codes is one of them; only `Debug` shows it.
#[test]
fn purge_leaves_nothing_behind() {
    let session = session(1);
    let mut store = store_with(&session);
    let change = take(&store, QuotaKey::guesses_from("203.0.113.7"), NOW);
    assert_eq!(store.change_quota(&change.unwrap()), Written::Won);
    let empty = format!("{:?}", Memory::new());
    assert_ne!(format!("{store:?}"), empty);
    store.purge(session.purge_at() + Duration::from_millis(1));
    assert_eq!(format!("{store:?}"), empty);
}

#[test]
fn purge_leaves_what_it_keeps_as_it_was() {
    let policy = policy();
    let mut store = Memory::new();
    let gone = issue(&mut store, &policy, &cli(), 1, NOW);
    let now = NOW + Duration::from_mins(8);
    let kept = issue(&mut store, &policy, &cli(), 2, now);
    let reply = poll(&mut store, &policy, &cli(), &kept.device_code, now);
    assert_eq!(reply.cause(), device_flow::server::Cause::Pending);
    approve(&mut store, &policy, &alice(), &kept, now);
    let before = stored(&store, &kept.key);
    assert!(before.as_ref().unwrap().1.is_some());
    assert_eq!(store.purge(NOW + Duration::from_mins(11)), 1);
    assert!(store.load(&gone.key).is_none());
    assert_eq!(stored(&store, &kept.key), before);
}

/// From its purge time on a quota says no more than none.
#[test]
fn purge_removes_quotas_that_are_full_again_and_keeps_the_others() {
    let mut store = Memory::new();
    let key = QuotaKey::guesses_from("203.0.113.7");
    let change = take(&store, key, NOW).unwrap();
    assert_eq!(store.change_quota(&change), Written::Won);
    let end = NOW + Duration::from_mins(1);
    assert_eq!(change.to().purge_at(), end);
    assert_eq!(store.purge(end - Duration::from_millis(1)), 0);
    assert_eq!(store.load_quota(&key), Some(change.to()));
    assert_eq!(store.purge(end + Duration::from_millis(1)), 0);
    assert_eq!(store.load_quota(&key), None);
}

#[test]
fn an_empty_store_has_nothing_and_purges_nothing() {
    let mut store = Memory::new();
    assert!(store.is_empty());
    assert_eq!(store.len(), 0);
    assert_eq!(store.purge(NOW), 0);
    let body = poll_body(CLI, NO_CODE);
    let looked_up = with_poll(&policy(), post(&body), Some(&cli()), |poll| {
        store.load(poll.session_key().unwrap()).is_some()
    });
    assert!(!looked_up.unwrap());
}

/// One operation of a store, on a few sessions and at a few moments.
#[derive(Clone, Debug)]
enum Operation {
    Insert(u8, u8),
    /// A change for the session of this device code, made for this version.
    Change(u8, u64),
    SavePace(u8),
    Purge(u64),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = prop_oneof![
        4 => (0..4_u8, 0..4_u8).prop_map(|(device, user)| Operation::Insert(device, user)),
        4 => (0..4_u8, 1..4_u64).prop_map(|(device, version)| Operation::Change(device, version)),
        2 => (0..4_u8).prop_map(Operation::SavePace),
        1 => (0..12_u64).prop_map(Operation::Purge),
    ];
    prop::collection::vec(one, 0..40)
}

/// The same session at another version, as a reader may have it in hand.
fn at_version(session: &Session, version: u64) -> Session {
    let mut form: serde_json::Value = serde_json::from_str(&text(session)).unwrap();
    form["version"] = version.into();
    serde_json::from_value(form).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reference model: a list of rows, each a device code, a user code, a version, whether there is a pace.
    #[test]
    fn the_store_does_what_a_list_of_rows_does(operations in operations()) {
        let mut store = Memory::new();
        let mut rows: HashMap<u8, (u8, u64, bool)> = HashMap::new();
        for operation in operations {
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
                    prop_assert_eq!(store.insert(&session_of(device, user)), wanted);
                }
                Operation::Change(device, version) => {
                    // The user code plays no part in a change: it is made from a reading with any.
                    let reading = at_version(&session_of(device, device), version);
                    let change = claim_of(&reading, device, "alice");
                    let wanted = match rows.get_mut(&device) {
                        Some(row) if row.1 == version => {
                            row.1 += 1;
                            Written::Won
                        }
                        Some(_) | None => Written::Lost,
                    };
                    prop_assert_eq!(store.change(&change), wanted);
                }
                Operation::SavePace(device) => {
                    let session = session(device);
                    store.save_pace(session.key(), pace_at(&session, NOW));
                    if let Some(row) = rows.get_mut(&device) {
                        row.2 = true;
                    }
                }
                Operation::Purge(minutes) => {
                    // Every session of this test is past its purge time after ten minutes.
                    let now = NOW + Duration::from_mins(minutes) + Duration::from_secs(1);
                    let wanted = if minutes >= 10 { rows.len() } else { 0 };
                    if minutes >= 10 {
                        rows.clear();
                    }
                    prop_assert_eq!(store.purge(now), wanted);
                }
            }
            prop_assert_eq!(store.len(), rows.len());
            for device in 0..4 {
                let stored = store.load(session(device).key());
                let row = rows.get(&device);
                let found = stored.map(|one| (one.session.version(), one.pace.is_some()));
                prop_assert_eq!(found, row.map(|row| (row.1, row.2)));
                if let Some(row) = row {
                    let user_key = *session(row.0).user_key();
                    let by_user = store.load_by_user_key(&user_key).unwrap();
                    let key = *session(device).key();
                    prop_assert_eq!(*by_user.session.key(), key);
                }
            }
            for user in 0..4 {
                let is_stored = store.load_by_user_key(session(user).user_key()).is_some();
                prop_assert_eq!(is_stored, rows.values().any(|row| row.0 == user));
            }
        }
    }
}
