//! Table U of the server half, row by row: the verification page, where signed-in users enter codes and decide.
//!
//! Defaults: five guesses at once, then one a minute; lifetime 300 s.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "support/login.rs"]
mod login;
mod support;

use core::time::Duration;

use device_flow::digest::{QuotaKey, UserCodeKeys, UserKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Change, DecisionError, Entered, Entry, HostValue, Origin, Quota, Session, Spent, Status,
    Subject, Written, WrongCode,
};
use login::{
    GRACE, LIFETIME, Login, RETENTION, assert_denied, assert_granted, assert_invalid_grant,
    assert_pending, at, bob, pace,
};
use serde_json::json;
use support::{NOW, alice, cli, key, keys, policy, scope, subject};

/// What entering a code ended in.
#[derive(Debug)]
enum Outcome {
    /// U1.
    Refused(Spent),
    /// U2, U3.
    Wrong(WrongCode),
    /// U4: the claim was written.
    Claimed,
    /// U4: it was theirs already; nothing was written.
    TheirsAlready,
}

/// Enters a code as a host does: pay, look up, enter, write the claim.
fn enter(login: &mut Login, user: &Subject, typed: &str, now: i64) -> Outcome {
    enter_with(&mut login.store, &keys(), user, typed, now)
}

fn enter_with(
    store: &mut Memory,
    keys: &UserCodeKeys,
    user: &Subject,
    typed: &str,
    now: i64,
) -> Outcome {
    let policy = policy();
    let mut entry = Entry::new(typed, user, keys, &policy);
    let quota = store.load_quota(entry.quota_key());
    let guess = match entry.pay(quota, at(now)) {
        Ok(guess) => guess,
        Err(spent) => return Outcome::Refused(spent),
    };
    let written = store.change_quota(guess.change());
    let paid = guess.settle(written).unwrap();
    let mut user_keys = paid.user_keys();
    let stored = user_keys.find_map(|key| store.load_by_user_key(&key));
    match paid.enter(stored.map(|stored| &stored.session), at(now)) {
        Err(wrong) => Outcome::Wrong(wrong),
        Ok(Entered::Review(_)) => Outcome::TheirsAlready,
        Ok(Entered::Claim(claim)) => {
            assert_eq!(store.change(claim.change()), Written::Won);
            assert!(claim.settle(Written::Won).is_ok());
            Outcome::Claimed
        }
    }
}

#[track_caller]
fn assert_wrong(outcome: &Outcome, reason: WrongCode) {
    match outcome {
        Outcome::Wrong(wrong) => assert_eq!(*wrong, reason),
        Outcome::Refused(_) | Outcome::Claimed | Outcome::TheirsAlready => {
            panic!("not a wrong code: {outcome:?}")
        }
    }
    // "as U2 for the user": one text for every reason.
    assert_eq!(reason.to_string(), WrongCode::Unknown.to_string());
}

#[track_caller]
fn assert_spent(outcome: &Outcome, millis: u64) {
    match outcome {
        Outcome::Refused(spent) => assert_eq!(spent.retry_after, Duration::from_millis(millis)),
        Outcome::Wrong(_) | Outcome::Claimed | Outcome::TheirsAlready => {
            panic!("not refused: {outcome:?}")
        }
    }
}

/// What is stored for the guesses of a user: until when they have none left over.
fn guesses_of(login: &Login, user: &Subject) -> Option<Quota> {
    let policy = policy();
    let keys = keys();
    let entry = Entry::new("", user, &keys, &policy);
    login.store.load_quota(entry.quota_key())
}

/// The session as it stands, which must not change while `what` runs.
#[track_caller]
fn unchanged<T>(login: &mut Login, what: impl FnOnce(&mut Login) -> T) -> T {
    let had = login.form();
    let result = what(login);
    assert_eq!(login.form(), had);
    result
}

/// A login that Alice decided, in each of the decided states.
fn decided() -> [(Status, Login); 4] {
    let states = [
        Status::Approved,
        Status::Denied,
        Status::Redeemed,
        Status::Revoked,
    ];
    states.map(|status| {
        let mut login = Login::new();
        match status {
            Status::Approved => login.approve(0),
            Status::Denied => login.deny(0),
            Status::Redeemed => {
                login.approve(0);
                assert_granted(&login.poll(0).reply, "openid profile");
            }
            Status::Revoked => {
                login.approve(0);
                login.withdraw();
            }
            Status::Pending | Status::Claimed => panic!("not decided"),
        }
        (status, login)
    })
}

/// A code of the right shape that nobody was given.
fn wrong_code(login: &Login) -> &'static str {
    let first = "BBBB-BBBB";
    if login.codes.user_code == first {
        "CCCC-CCCC"
    } else {
        first
    }
}

// U1: the guess quota of this user or source is spent.

#[test]
fn u1_a_spent_quota_refuses_a_right_code_as_a_wrong_one_with_the_time_to_try_again() {
    let mut login = Login::new();
    let (right, wrong) = (login.codes.user_code.clone(), wrong_code(&login));
    for _ in 0..5 {
        assert_wrong(&enter(&mut login, &alice(), wrong, 0), WrongCode::Unknown);
    }
    let had = guesses_of(&login, &alice());
    unchanged(&mut login, |login| {
        for code in [&right, wrong, "", "not a code"] {
            assert_spent(&enter(login, &alice(), code, 0), 60_000);
            assert_spent(&enter(login, &alice(), code, 59_999), 1);
        }
    });
    assert_eq!(guesses_of(&login, &alice()), had, "a refusal costs nothing");
    let outcome = enter(&mut login, &alice(), &right, 60_000);
    assert!(matches!(outcome, Outcome::Claimed));
    assert_spent(&enter(&mut login, &alice(), &right, 60_000), 60_000);
}

#[test]
fn u1_each_user_has_guesses_of_their_own() {
    let mut login = Login::new();
    let (right, wrong) = (login.codes.user_code.clone(), wrong_code(&login));
    for _ in 0..6 {
        let _ = enter(&mut login, &bob(), wrong, 0);
    }
    assert_spent(&enter(&mut login, &bob(), &right, 0), 60_000);
    let outcome = enter(&mut login, &alice(), &right, 0);
    assert!(matches!(outcome, Outcome::Claimed));
}

#[test]
fn u1_guesses_can_be_counted_by_source() {
    let (policy, keys) = (policy(), keys());
    let mut stored = None;
    for user in ["u1", "u2", "u3", "u4", "u5"] {
        let user = subject(user);
        let mut entry =
            Entry::new("", &user, &keys, &policy).counted_by(QuotaKey::guesses_from("192.0.2.7"));
        assert_eq!(entry.quota_key(), &QuotaKey::guesses_from("192.0.2.7"));
        let guess = entry.pay(stored, NOW).unwrap();
        assert_eq!(guess.change().key(), &QuotaKey::guesses_from("192.0.2.7"));
        assert_eq!(guess.change().from(), stored);
        stored = Some(guess.change().to());
        assert!(guess.settle(Written::Won).is_ok());
    }
    let user = subject("u6");
    let mut entry = Entry::new("", &user, &keys, &policy);
    assert!(entry.pay(stored, NOW).is_err());
    assert_ne!(
        QuotaKey::guesses_from("192.0.2.7"),
        QuotaKey::guesses_from("192.0.2.8")
    );
    // A user is no source, be they named alike.
    let user = subject("192.0.2.7");
    let entry = Entry::new("", &user, &keys, &policy);
    assert_ne!(entry.quota_key(), &QuotaKey::guesses_from("192.0.2.7"));
}

#[test]
fn u1_two_parallel_guesses_do_not_share_one_token() {
    let mut login = Login::new();
    let (policy, keys, user) = (policy(), keys(), alice());
    let mut one = Entry::new("BBBBBBBB", &user, &keys, &policy);
    let mut other = Entry::new("CCCCCCCC", &user, &keys, &policy);
    let read = login.store.load_quota(one.quota_key());
    let first = one.pay(read, NOW).unwrap();
    let second = other.pay(read, NOW).unwrap();
    assert_eq!(login.store.change_quota(first.change()), Written::Won);
    let written = login.store.change_quota(second.change());
    assert_eq!(written, Written::Lost);
    assert!(first.settle(Written::Won).is_ok());
    assert!(second.settle(written).is_err());
    // Paid again from a fresh value, it costs a token of its own.
    let read = login.store.load_quota(other.quota_key());
    let again = other.pay(read, NOW).unwrap();
    assert_eq!(login.store.change_quota(again.change()), Written::Won);
    assert!(again.settle(Written::Won).is_ok());
    for _ in 0..3 {
        let outcome = enter(&mut login, &user, "", 0);
        assert_wrong(&outcome, WrongCode::Malformed);
    }
    assert_spent(&enter(&mut login, &user, "", 0), 60_000);
}

#[test]
fn u1_a_guess_that_lost_its_write_three_times_is_refused() {
    let login = Login::new();
    let (policy, keys, user) = (policy(), keys(), alice());
    for outcome in [Written::Lost, Written::Unknown] {
        let mut entry = Entry::new(&login.codes.user_code, &user, &keys, &policy);
        for _ in 0..3 {
            let guess = entry.pay(None, NOW).unwrap();
            assert!(guess.settle(outcome).is_err());
        }
        let spent = entry.pay(None, NOW).unwrap_err();
        assert!(spent.retry_after > Duration::ZERO);
    }
    let mut entry = Entry::new(&login.codes.user_code, &user, &keys, &policy);
    for _ in 0..2 {
        let guess = entry.pay(None, NOW).unwrap();
        assert!(guess.settle(Written::Lost).is_err());
    }
    let guess = entry.pay(None, NOW).unwrap();
    assert!(guess.settle(Written::Won).is_ok());
}

// U2: none, purged, malformed, over 64 bytes.

#[test]
fn u2_a_code_that_nobody_has_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = wrong_code(&login);
    unchanged(&mut login, |login| {
        assert_wrong(&enter(login, &alice(), code, 0), WrongCode::Unknown);
    });
    let quota = guesses_of(&login, &alice()).unwrap();
    assert_eq!(
        quota.purge_at(),
        at(60_000),
        "one guess, given back in a minute"
    );
}

#[test]
fn u2_a_purged_code_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    let now = LIFETIME + RETENTION;
    assert_eq!(login.store.purge(at(now)), 1);
    assert_wrong(&enter(&mut login, &alice(), &code, now), WrongCode::Unknown);
    let quota = guesses_of(&login, &alice()).unwrap();
    assert_eq!(quota.purge_at(), at(now + 60_000));
}

#[test]
fn u2_a_malformed_code_is_wrong_and_costs_a_guess() {
    let right = Login::new().codes.user_code;
    let too_long = format!("{}{right}", "-".repeat(64 + 1 - right.len()));
    assert_eq!(too_long.len(), 65);
    let huge = "B".repeat(1 << 20);
    let kelvin = "\u{212A}BBBBBBB"; // folds to k in Unicode, not in ASCII
    for typed in ["", "-", &right[1..], "BBBBBBBBB", &too_long, &huge, kelvin] {
        let mut login = Login::new();
        let outcome = enter(&mut login, &alice(), typed, 0);
        assert_wrong(&outcome, WrongCode::Malformed);
        let quota = guesses_of(&login, &alice()).unwrap();
        assert_eq!(quota.purge_at(), at(60_000));
    }
}

/// > the server should ignore any characters like punctuation that are not in the user code character set
/// > (RFC 8628, section 6.1)
#[test]
fn u2_a_code_is_read_forgivingly() {
    let right = Login::new().codes.user_code;
    let plain = right.replace('-', "");
    let full_width: String = plain
        .chars()
        .map(|own| char::from_u32(u32::from(own) - 0x21 + 0xFF01).unwrap())
        .collect();
    let padded = format!("{}{right}", "-".repeat(64 - right.len()));
    assert_eq!(padded.len(), 64);
    let spaced = format!(" {}\t{} \r\n", &plain[..3], &plain[3..]);
    let vowels = format!("a{}1{}\u{212A}é", &plain[..2], &plain[2..]);
    for typed in [
        right.clone(),
        right.to_lowercase(),
        plain.clone(),
        plain.to_lowercase(),
        full_width.to_lowercase(),
        full_width,
        padded,
        spaced,
        vowels,
    ] {
        let mut login = Login::new();
        let outcome = enter(&mut login, &alice(), &typed, 0);
        assert!(matches!(outcome, Outcome::Claimed), "{typed:?}");
    }
}

#[test]
fn u2_a_session_under_another_code_is_not_entered() {
    // The store returned another session than the one asked for.
    let mut login = Login::new();
    let (policy, keys, user) = (policy(), keys(), alice());
    let code = wrong_code(&login);
    let mut entry = Entry::new(code, &user, &keys, &policy);
    let guess = entry.pay(None, NOW).unwrap();
    let paid = guess.settle(Written::Won).unwrap();
    let wrong = unchanged(&mut login, |login| {
        paid.enter(Some(login.session()), NOW).unwrap_err()
    });
    assert_eq!(wrong, WrongCode::Unknown);
}

#[test]
fn u2_what_cannot_be_a_code_is_not_looked_up() {
    let (policy, keys, user) = (policy(), keys(), alice());
    let mut entry = Entry::new("short", &user, &keys, &policy);
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    assert_eq!(paid.user_keys().count(), 0);
}

// U3: expired, Approved, Denied, Redeemed, Revoked, or claimed by another user.

#[test]
fn u3_a_decided_code_is_wrong_for_everybody_and_costs_a_guess() {
    for (status, mut login) in decided() {
        let code = login.codes.user_code.clone();
        for user in [bob(), alice()] {
            let before = guesses_of(&login, &user);
            unchanged(&mut login, |login| {
                let outcome = enter(login, &user, &code, 1);
                assert_wrong(&outcome, WrongCode::Decided);
            });
            let quota = guesses_of(&login, &user);
            assert!(quota.unwrap().purge_at() >= at(60_001), "{status:?}");
            assert_ne!(quota, before);
        }
        // Before and after expiry.
        let outcome = enter(&mut login, &bob(), &code, LIFETIME + 1);
        assert_wrong(&outcome, WrongCode::Decided);
    }
}

#[test]
fn u3_an_expired_code_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    for now in [LIFETIME, LIFETIME + 1] {
        unchanged(&mut login, |login| {
            let outcome = enter(login, &alice(), &code, now);
            assert_wrong(&outcome, WrongCode::Expired);
        });
    }
    assert!(guesses_of(&login, &alice()).is_some());
    let outcome = enter(&mut login, &alice(), &code, LIFETIME - 1);
    assert!(matches!(outcome, Outcome::Claimed));
    // For the claimant, too.
    let outcome = enter(&mut login, &alice(), &code, LIFETIME);
    assert_wrong(&outcome, WrongCode::Expired);
}

#[test]
fn u3_a_code_claimed_by_another_user_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    login.claim(0);
    let code = login.codes.user_code.clone();
    unchanged(&mut login, |login| {
        let outcome = enter(login, &bob(), &code, 1);
        assert_wrong(&outcome, WrongCode::ClaimedByAnother);
    });
    let quota = guesses_of(&login, &bob()).unwrap();
    assert_eq!(quota.purge_at(), at(60_001));
    assert_eq!(login.session().claimant(), Some(&alice()));
}

// U4: Pending, unclaimed or claimed by this user.

#[test]
fn u4_entering_claims_the_session_by_a_guarded_write() {
    let mut login = Login::new();
    let mut wanted = login.form();
    let code = login.codes.user_code.clone();
    let outcome = enter(&mut login, &alice(), &code, 1);
    assert!(matches!(outcome, Outcome::Claimed));
    wanted["state"] = json!({ "claimed": "alice" });
    wanted["version"] = json!(2);
    assert_eq!(login.form(), wanted, "state and version, nothing else");
    assert_eq!(login.status(), Status::Claimed);
    assert_eq!(login.session().claimant(), Some(&alice()));
    let quota = guesses_of(&login, &alice()).unwrap();
    assert_eq!(quota.purge_at(), at(60_001), "a right code pays as well");
    // To the device nothing has happened.
    assert_pending(&login.poll(1), &pace(1, 5, false));
}

#[test]
fn u4_entering_again_writes_nothing_but_the_guess() {
    let mut login = Login::new();
    login.claim(0);
    let code = login.codes.user_code.clone();
    unchanged(&mut login, |login| {
        let outcome = enter(login, &alice(), &code, 0);
        assert!(matches!(outcome, Outcome::TheirsAlready));
    });
    let quota = guesses_of(&login, &alice()).unwrap();
    assert_eq!(quota.purge_at(), at(120_000), "two guesses");
}

#[test]
fn u4_the_review_shows_client_scopes_age_origin_and_the_code_to_compare() {
    let policy = policy();
    let mut store = Memory::new();
    let client = cli();
    let request = support::post("client_id=client_cli&scope=profile+admin+openid");
    let issued = support::with_issuing(&policy, request, Some(&client), |issuing| {
        let issuance = issuing.draw(support::entropy(3), &keys(), NOW).unwrap();
        let key = *issuance.session().key();
        let inserted = store.insert(issuance.session());
        (issuance.settle(inserted).unwrap(), key)
    });
    let (reply, session_key) = issued.unwrap();
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    let shown = body
        .get("user_code")
        .and_then(|code| code.as_str())
        .unwrap();
    let review = support::claim(
        &mut store,
        &policy,
        &alice(),
        &shown.to_lowercase(),
        at(61_500),
    );
    assert_eq!(review.session_key(), &session_key);
    assert_eq!(review.client_id(), "client_cli");
    assert_eq!(review.scope(), &scope("profile openid"));
    assert_eq!(review.age(), Duration::from_millis(61_500));
    assert_eq!(review.time_left(), Duration::from_millis(238_500));
    assert_eq!(review.origin(), None);
    assert_eq!(review.user_code().display().to_string(), shown);
}

#[test]
fn u4_the_review_shows_the_origin_cut_and_without_control_characters() {
    let policy = policy();
    let mut store = Memory::new();
    let client = cli();
    let long = format!("Zürich\r\n{}", "x".repeat(400));
    let form = device_flow::server::Form::read(support::post("client_id=client_cli"), &policy);
    let form = form.unwrap();
    let request = form.device_authorization().unwrap();
    let issuing = request.authenticate(Some(&client)).unwrap();
    let mut issuing = issuing.with_origin(Origin::new(&long));
    let issuance = issuing.draw(support::entropy(3), &keys(), NOW).unwrap();
    let inserted = store.insert(issuance.session());
    let reply = issuance.settle(inserted).unwrap();
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    let code = body
        .get("user_code")
        .and_then(|code| code.as_str())
        .unwrap();
    let review = support::claim(&mut store, &policy, &alice(), code, NOW);
    let origin = review.origin().unwrap().as_str();
    assert_eq!(origin.len(), 256, "at most 256 bytes");
    assert!(origin.starts_with("Zürich\u{FFFD}\u{FFFD}xxx"));
}

#[test]
fn u4_a_claim_that_lost_its_write_shows_nothing() {
    let mut login = Login::new();
    let (policy, keys) = (policy(), keys());
    let (one, other) = (alice(), bob());
    let read = login.session().clone();
    let mut claims = [&one, &other].map(|user| {
        let mut entry = Entry::new(&login.codes.user_code, user, &keys, &policy);
        let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
        let Entered::Claim(claim) = paid.enter(Some(&read), NOW).unwrap() else {
            panic!("nobody had claimed it");
        };
        assert_eq!(claim.session().version(), 1);
        assert_eq!(claim.change().expected_version(), 1);
        Some((paid, claim))
    });
    let (_, first) = claims[0].take().unwrap();
    let (paid, second) = claims[1].take().unwrap();
    assert_eq!(login.store.change(first.change()), Written::Won);
    let written = login.store.change(second.change());
    assert_eq!(written, Written::Lost);
    assert!(first.settle(Written::Won).is_ok());
    assert!(second.settle(written).is_err());
    // Entered again, with the guess that was paid.
    let wrong = paid.enter(Some(login.session()), NOW).unwrap_err();
    assert_eq!(wrong, WrongCode::ClaimedByAnother);
    assert_eq!(login.session().claimant(), Some(&one));
}

#[test]
fn u4_a_claim_of_unknown_outcome_shows_nothing_and_entering_again_does() {
    let mut login = Login::new();
    let (policy, keys, user) = (policy(), keys(), alice());
    let mut entry = Entry::new(&login.codes.user_code, &user, &keys, &policy);
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    let Entered::Claim(claim) = paid.enter(Some(login.session()), NOW).unwrap() else {
        panic!("nobody had claimed it");
    };
    assert_eq!(login.store.change(claim.change()), Written::Won);
    assert!(claim.settle(Written::Unknown).is_err());
    let entered = paid.enter(Some(login.session()), NOW).unwrap();
    assert!(matches!(entered, Entered::Review(_)));
}

#[test]
fn u4_a_code_under_the_previous_key_is_found_with_one_guess() {
    let mut login = Login::new();
    let rotated = UserCodeKeys::new(key(8)).with_previous(key(7));
    let (policy, user) = (policy(), alice());
    let code = login.codes.user_code.clone();
    let mut entry = Entry::new(&code, &user, &rotated, &policy);
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    let tried: Vec<UserKey> = paid.user_keys().collect();
    assert_eq!(tried.len(), 2, "the current, then the previous");
    assert_eq!(tried.last(), Some(login.session().user_key()));
    let outcome = enter_with(&mut login.store, &rotated, &user, &code, 0);
    assert!(matches!(outcome, Outcome::Claimed));
    let quota = guesses_of(&login, &user).unwrap();
    assert_eq!(quota.purge_at(), at(60_000), "one guess");
    // Without the previous key it is a code that nobody has.
    let mut login = Login::new();
    let alone = UserCodeKeys::new(key(8));
    let outcome = enter_with(&mut login.store, &alone, &user, &code, 0);
    assert_wrong(&outcome, WrongCode::Unknown);
}

// U5: not claimed, or claimed by another.

#[test]
fn u5_nobody_decides_on_a_session_that_they_have_not_claimed() {
    let mut logins: Vec<_> = decided().into_iter().map(|(_, login)| login).collect();
    let mut claimed = Login::new();
    claimed.claim(0);
    logins.extend([Login::new(), claimed]);
    for mut login in logins {
        let user = bob();
        unchanged(&mut login, |login| {
            // Before and after expiry, with a right scope and a wrong one: who it is comes before what is asked.
            for now in [1, LIFETIME, LIFETIME + 1] {
                for wanted in ["openid profile", "openid", "openid admin", ""] {
                    let error = login.approval_of(&user, &scope(wanted), now).unwrap_err();
                    assert_eq!(error, DecisionError::NotYours);
                }
                let error = login.session().deny(&user, at(now)).unwrap_err();
                assert_eq!(error, DecisionError::NotYours);
            }
            let error = login.session().release(&user).unwrap_err();
            assert_eq!(error, DecisionError::NotYours);
            let error = login.session().withdraw(&user).unwrap_err();
            assert_eq!(error, DecisionError::NotYours);
        });
    }
}

#[test]
fn u5_a_user_is_another_by_one_character() {
    let mut login = Login::new();
    login.claim(0);
    for sub in ["Alice", "alice ", "alic", "alicee"] {
        let error = login.approval_by(&subject(sub), 1).unwrap_err();
        assert_eq!(error, DecisionError::NotYours);
    }
}

// U6: Pending, expired.

#[test]
fn u6_an_expired_code_is_neither_approved_nor_denied() {
    let mut login = Login::new();
    login.claim(0);
    for now in [LIFETIME, LIFETIME + 1, LIFETIME + GRACE] {
        unchanged(&mut login, |login| {
            // A scope that U8 refuses is too late as well.
            for wanted in ["openid profile", "admin", ""] {
                let error = login.approval_of(&alice(), &scope(wanted), now);
                assert_eq!(error.unwrap_err(), DecisionError::Expired);
            }
            let error = login.session().deny(&alice(), at(now)).unwrap_err();
            assert_eq!(error, DecisionError::Expired);
        });
    }
    let last = LIFETIME - 1;
    assert!(login.session().deny(&alice(), at(last)).unwrap().is_some());
    assert!(login.approval_by(&alice(), last).unwrap().is_some());
}

// U7: approve, Pending, scope within the requested.

#[test]
fn u7_approving_is_a_guarded_write_and_the_claimant_is_the_subject() {
    let mut login = Login::new();
    login.claim(0);
    let mut wanted = login.form();
    let value = HostValue::new(vec![7; HostValue::MAX_BYTES]).unwrap();
    let bytes = value.as_bytes().to_vec();
    let session = login.session().clone();
    let scope = session.scope();
    let change = session.approve(&alice(), scope, value, &login.policy, at(1000));
    let change = change.unwrap().unwrap();
    assert_eq!(change.key(), &login.codes.key);
    assert_eq!(change.expected_version(), 2);
    assert_eq!(change.purge_at(), at(LIFETIME + RETENTION));
    assert_eq!(login.form(), wanted, "nothing has changed before the write");
    login.write(&change);
    wanted["version"] = json!(3);
    wanted["state"] = json!({ "approved": {
        "subject": "alice",
        "scope": "openid profile",
        "value": bytes,
        "approved_at": login::stored_at(1000),
        "redeemable_until": login::stored_at(LIFETIME),
    } });
    assert_eq!(login.form(), wanted);
    assert_eq!(login.status(), Status::Approved);
    assert_eq!(login.session().claimant(), Some(&alice()));
}

#[test]
fn u7_approving_at_the_last_moment_moves_the_purge_time() {
    let mut login = Login::new();
    login.claim(0);
    let cases = [
        (0, LIFETIME),
        (LIFETIME - GRACE, LIFETIME),
        (LIFETIME - GRACE + 1, LIFETIME + 1),
        (LIFETIME - 1, LIFETIME - 1 + GRACE),
    ];
    for (approved, redeemable_until) in cases {
        let change = login.approval_by(&alice(), approved).unwrap().unwrap();
        assert_eq!(change.purge_at(), at(redeemable_until + RETENTION));
        let after = login.session().apply(&change).unwrap();
        let form = serde_json::to_value(&after).unwrap();
        let until = &form["state"]["approved"]["redeemable_until"];
        assert_eq!(until, &json!(login::stored_at(redeemable_until)));
        assert_eq!(after.purge_at(), change.purge_at());
    }
}

#[test]
fn u7_the_scope_may_be_all_or_a_part_in_any_order() {
    for granted in ["openid profile", "profile openid", "openid", "profile"] {
        let mut login = Login::new();
        login.claim(0);
        let change = login.approval_of(&alice(), &scope(granted), 1).unwrap();
        login.write(&change.unwrap());
        assert_eq!(login.session().scope(), &scope("openid profile"));
        assert_granted(&login.poll(2).reply, granted);
    }
}

#[test]
fn u7_an_approval_may_be_empty_where_nothing_was_asked() {
    let mut login = Login::new();
    login.claim(0);
    let mut form = login.form();
    form["scope"] = json!("");
    let session: Session = serde_json::from_value(form).unwrap();
    let approve = |scope: &Scope| {
        session.approve(&alice(), scope, HostValue::default(), &login.policy, at(1))
    };
    assert!(approve(&Scope::empty()).unwrap().is_some());
    assert_eq!(approve(&scope("openid")).unwrap_err(), DecisionError::Scope);
}

#[test]
fn u7_the_hosts_value_is_at_most_a_kibibyte() {
    assert!(HostValue::new(vec![0; 1024]).is_ok());
    assert!(HostValue::new(vec![0; 1025]).is_err());
}

// U8: approve, Pending, wider scope, or empty where some was asked.

#[test]
fn u8_a_wider_or_an_empty_scope_is_an_error_and_changes_nothing() {
    let mut login = Login::new();
    login.claim(0);
    unchanged(&mut login, |login| {
        for wider in [
            "admin",
            "openid profile email",
            "openid Profile",
            "openi",
            "",
        ] {
            let error = login.approval_of(&alice(), &scope(wider), 1).unwrap_err();
            assert_eq!(error, DecisionError::Scope, "{wider}");
        }
    });
    // And the right one can follow.
    let change = login.approval_by(&alice(), 2).unwrap().unwrap();
    login.write(&change);
}

// U9: deny, Pending.

#[test]
fn u9_denying_is_a_guarded_write_and_the_device_is_told() {
    let mut login = Login::new();
    login.claim(0);
    let mut wanted = login.form();
    let change = login.session().deny(&alice(), at(LIFETIME - 1));
    let change = change.unwrap().unwrap();
    assert_eq!(change.expected_version(), 2);
    assert_eq!(change.purge_at(), at(LIFETIME + RETENTION));
    login.write(&change);
    wanted["version"] = json!(3);
    wanted["state"] = json!({ "denied": "alice" });
    assert_eq!(login.form(), wanted);
    assert_eq!(login.status(), Status::Denied);
    assert_denied(&login.poll(LIFETIME - 1).reply);
}

#[test]
fn u9_of_two_decisions_on_the_same_reading_one_wins() {
    for denied_first in [true, false] {
        let mut login = Login::new();
        login.claim(0);
        let deny = login.session().deny(&alice(), at(1)).unwrap().unwrap();
        let approve = login.approval_by(&alice(), 1).unwrap().unwrap();
        let (first, second) = if denied_first {
            (deny, approve)
        } else {
            (approve, deny)
        };
        login.write(&first);
        unchanged(&mut login, |login| {
            assert_eq!(login.store.change(&second), Written::Lost);
        });
    }
}

// U10: approve, deny, decided.

/// What approving and denying again give: nothing to write, or an error.
type Again = Result<Option<Change>, DecisionError>;

#[track_caller]
fn assert_stands(again: Again) {
    assert!(again.unwrap().is_none(), "nothing to write");
}

#[track_caller]
fn assert_decided(again: Again) {
    assert_eq!(again.unwrap_err(), DecisionError::Decided);
}

#[test]
fn u10_a_decision_stands_and_the_same_again_is_a_success_without_a_change() {
    for (status, mut login) in decided() {
        unchanged(&mut login, |login| {
            // Before and after expiry.
            for now in [1, LIFETIME - 1, LIFETIME, LIFETIME + RETENTION] {
                let approved = login.approval_by(&alice(), now);
                let denied = login.session().deny(&alice(), at(now));
                match status {
                    Status::Approved | Status::Redeemed => {
                        assert_stands(approved);
                        assert_decided(denied);
                    }
                    Status::Denied => {
                        assert_decided(approved);
                        assert_stands(denied);
                    }
                    Status::Revoked => {
                        assert_decided(approved);
                        assert_decided(denied);
                    }
                    Status::Pending | Status::Claimed => panic!("not decided"),
                }
            }
        });
    }
}

#[test]
fn u10_another_scope_is_another_decision() {
    let mut login = Login::approved_at(0);
    unchanged(&mut login, |login| {
        for other in ["openid", "profile", "admin", ""] {
            assert_decided(login.approval_of(&alice(), &scope(other), 1));
        }
    });
}

// U11: withdraw by the subject, Approved, not redeemed.

#[test]
fn u11_withdrawing_is_a_guarded_write_and_the_device_gets_nothing() {
    let mut login = Login::approved_at(LIFETIME - 1);
    let mut wanted = login.form();
    let purge_at = login.session().purge_at();
    let change = login.session().withdraw(&alice()).unwrap().unwrap();
    assert_eq!(change.expected_version(), 3);
    assert_eq!(change.purge_at(), purge_at);
    login.write(&change);
    wanted["version"] = json!(4);
    let grant = wanted["state"]["approved"].take();
    wanted["state"] = json!({ "revoked": grant });
    assert_eq!(login.form(), wanted);
    assert_eq!(login.status(), Status::Revoked);
    assert_invalid_grant(&login.poll(LIFETIME - 1).reply, Cause::Revoked);
}

#[test]
fn u11_of_a_withdrawal_and_a_redemption_exactly_one_wins() {
    for withdrawn_first in [true, false] {
        let mut login = Login::approved_at(0);
        let withdrawal = login.session().withdraw(&alice()).unwrap().unwrap();
        let redemption = login.redeem(1, |redemption| {
            let change = redemption.change().clone();
            let _ = redemption.minting_failed();
            change
        });
        let (first, second, status) = if withdrawn_first {
            (withdrawal, redemption, Status::Revoked)
        } else {
            (redemption, withdrawal, Status::Redeemed)
        };
        login.write(&first);
        unchanged(&mut login, |login| {
            assert_eq!(login.store.change(&second), Written::Lost);
        });
        assert_eq!(login.status(), status);
    }
}

#[test]
fn u11_there_is_nothing_to_withdraw_before_an_approval_or_after_its_redemption() {
    let mut login = Login::new();
    login.claim(0);
    let error = login.session().withdraw(&alice()).unwrap_err();
    assert_eq!(error, DecisionError::Undecided);
    for (status, mut login) in decided() {
        unchanged(&mut login, |login| {
            let withdrawn = login.session().withdraw(&alice());
            match status {
                Status::Approved => assert!(withdrawn.unwrap().is_some()),
                Status::Revoked => assert_stands(withdrawn),
                Status::Denied => assert_decided(withdrawn),
                Status::Redeemed => {
                    assert_eq!(withdrawn.unwrap_err(), DecisionError::Redeemed);
                }
                Status::Pending | Status::Claimed => panic!("not decided"),
            }
        });
    }
}

// U12: release, Pending, claimed by this user.

#[test]
fn u12_releasing_is_a_guarded_write_and_gives_the_session_back_unclaimed() {
    let mut login = Login::new();
    let mut wanted = login.form();
    login.claim(0);
    let change = login.session().release(&alice()).unwrap();
    assert_eq!(change.expected_version(), 2);
    login.write(&change);
    wanted["version"] = json!(3);
    assert_eq!(login.form(), wanted, "as it was, but for the version");
    assert_eq!(login.status(), Status::Pending);
    assert_eq!(login.session().claimant(), None);
    // Whoever released it decides no more, and another account may enter it.
    let error = login.approval_by(&alice(), 1).unwrap_err();
    assert_eq!(error, DecisionError::NotYours);
    let code = login.codes.user_code.clone();
    let outcome = enter(&mut login, &bob(), &code, 1);
    assert!(matches!(outcome, Outcome::Claimed));
    assert_eq!(login.session().claimant(), Some(&bob()));
    let change = login.approval_by(&bob(), 2).unwrap().unwrap();
    login.write(&change);
    login.redeem(3, |redemption| {
        assert_eq!(redemption.approval().subject(), &bob());
        let _ = redemption.minting_failed();
    });
}

#[test]
fn u12_a_decision_made_before_a_release_loses_to_it() {
    let mut login = Login::new();
    login.claim(0);
    let approve = login.approval_by(&alice(), 1).unwrap().unwrap();
    let release = login.session().release(&alice()).unwrap();
    login.write(&release);
    unchanged(&mut login, |login| {
        assert_eq!(login.store.change(&approve), Written::Lost);
    });
}

#[test]
fn u12_a_decided_session_is_not_released() {
    for (_, mut login) in decided() {
        unchanged(&mut login, |login| {
            let error = login.session().release(&alice()).unwrap_err();
            assert_eq!(error, DecisionError::Decided);
        });
    }
}
