//! Table U of the server half, row by row: the verification page, where signed-in users enter codes and decide.
//!
//! Defaults: five guesses at once, then one a minute; a lifetime of 300 s.

use core::time::Duration;

use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, Consent, HostValue, PageError, Review, Server, ServerKeys, Session, Status,
    Subject,
};
use serde_json::json;

use crate::support::login::{
    self, LIFETIME, Login, REDEEM_TIME, RETENTION, assert_denied, assert_granted,
    assert_invalid_grant, assert_pending, at, bob, pace,
};
use crate::support::{
    self, Host, NOW, Question, Says, alice, cli, key, policy, scope, server, subject,
};

/// Enters a code as this user.
fn enter(login: &mut Login, user: &Subject, typed: &str, now: i64) -> Result<Review, PageError> {
    login.host.run(login.server.enter(typed, user, "", at(now)))
}

/// Returns whether the last action wrote a change of the session.
fn claimed(login: &Login) -> bool {
    login.host.count(Question::Change) > 0
}

#[track_caller]
fn assert_wrong(outcome: Result<Review, PageError>, reason: PageError) {
    assert_eq!(outcome.unwrap_err(), reason);
    // The user sees the same text for every reason.
    assert!(reason.is_wrong_code());
    assert_eq!(reason.to_string(), PageError::UnknownCode.to_string());
}

#[track_caller]
fn assert_spent(outcome: Result<Review, PageError>, millis: u64) {
    match outcome.unwrap_err() {
        PageError::RateLimited(limited) => {
            assert_eq!(limited.retry_after, Duration::from_millis(millis));
        }
        error => panic!("not limited: {error:?}"),
    }
}

/// Takes all guesses that a user has left at this moment. Returns how many these were.
fn guesses_left(login: &mut Login, user: &Subject, now: i64) -> usize {
    let mut left = 0;
    while !matches!(enter(login, user, "", now), Err(PageError::RateLimited(_))) {
        left += 1;
    }
    left
}

/// Runs `what` and asserts that it does not change the session. Returns its result.
#[track_caller]
fn unchanged<T>(login: &mut Login, what: impl FnOnce(&mut Login) -> T) -> T {
    let had = login.form();
    let result = what(login);
    assert_eq!(login.form(), had);
    result
}

/// Returns four logins that Alice has decided, one in each decided state.
fn decided() -> [(Status, Login); 4] {
    let states = [
        Status::Approved,
        Status::Denied,
        Status::Active,
        Status::Ended,
    ];
    states.map(|status| {
        let mut login = Login::new();
        match status {
            Status::Approved => login.approve(0),
            Status::Denied => login.deny(0),
            Status::Active => login = active_login(),
            Status::Ended => {
                login.approve(0);
                login.withdraw();
            }
            Status::Pending | Status::Claimed => panic!("not decided"),
        }
        (status, login)
    })
}

/// Returns a code of the right shape that was issued to nobody.
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
        assert_wrong(
            enter(&mut login, &alice(), wrong, 0),
            PageError::UnknownCode,
        );
    }
    unchanged(&mut login, |login| {
        // A refusal takes nothing from the quota, and nothing is looked up.
        for code in [&right, wrong, "", "not a code"] {
            assert_spent(enter(login, &alice(), code, 0), 60_000);
            assert_eq!(login.host.asked, [Question::Take]);
            assert_spent(enter(login, &alice(), code, 59_999), 1);
        }
    });
    assert!(enter(&mut login, &alice(), &right, 60_000).is_ok());
    assert_spent(enter(&mut login, &alice(), &right, 60_000), 60_000);
}

#[test]
fn u1_each_user_has_guesses_of_their_own() {
    let mut login = Login::new();
    let (right, wrong) = (login.codes.user_code.clone(), wrong_code(&login));
    for _ in 0..6 {
        let _ = enter(&mut login, &bob(), wrong, 0);
    }
    assert_spent(enter(&mut login, &bob(), &right, 0), 60_000);
    assert!(enter(&mut login, &alice(), &right, 0).is_ok());
}

#[test]
fn u1_guesses_are_counted_by_source_too_where_there_is_one() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    for user in ["u1", "u2", "u3", "u4", "u5"] {
        let user = subject(user);
        let wrong = login.server.enter("", &user, "192.0.2.7", at(0));
        assert_eq!(login.host.run(wrong).unwrap_err(), PageError::MalformedCode);
        assert_eq!(login.host.asked, [Question::Take; 2]);
    }
    let user = subject("u6");
    let refused = login.server.enter(&code, &user, "192.0.2.7", at(0));
    assert_spent(login.host.run(refused), 60_000);
    // A user and a source with the same text have different quotas. Another source has guesses of its own.
    let user = subject("192.0.2.7");
    let entered = login.server.enter(&code, &user, "192.0.2.8", at(0));
    assert!(login.host.run(entered).is_ok());
}

#[test]
fn u1_the_quota_of_the_user_is_taken_from_before_that_of_the_source() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    let from = |login: &mut Login, user: &Subject, typed: &str| {
        let entry = login.server.enter(typed, user, "192.0.2.7", at(0));
        login.host.run(entry)
    };
    assert_eq!(guesses_left(&mut login, &bob(), 0), 5);
    for _ in 0..6 {
        assert_spent(from(&mut login, &bob(), &code), 60_000);
        assert_eq!(login.host.asked, [Question::Take], "only the user's quota");
    }
    for user in ["u1", "u2", "u3", "u4", "u5"] {
        let error = from(&mut login, &subject(user), "").unwrap_err();
        assert_eq!(error, PageError::MalformedCode);
    }
    // The source's quota is spent. The user's guess is taken nevertheless.
    assert_spent(from(&mut login, &alice(), &code), 60_000);
    assert_eq!(login.host.asked, [Question::Take; 2]);
    assert_eq!(guesses_left(&mut login, &alice(), 0), 4);
}

/// Two requests are served at the same moment, and only one guess is left.
#[test]
fn u1_two_parallel_guesses_do_not_share_one_unit() {
    use device_flow::server::Next;

    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    for _ in 0..4 {
        let _ = enter(&mut login, &alice(), "", 0);
    }
    let user = alice();
    let mut entries = [0; 2].map(|_| login.server.enter(&code, &user, "", at(0)));
    for entry in &mut entries {
        match entry.next() {
            Next::Take(take, ask) => ask.answer(Ok(login.host.store.take(&take))),
            next => panic!("{next:?}"),
        }
    }
    let [first, second] = entries.map(|entry| login.host.run(entry));
    assert!(first.is_ok());
    assert_spent(second, 60_000);
}

#[test]
fn u1_a_success_gives_no_guess_back() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    assert!(enter(&mut login, &alice(), &code, 0).is_ok());
    assert_eq!(guesses_left(&mut login, &alice(), 0), 4);
}

/// If the host fails to answer a question, the action ends as `Unavailable`, and the session is not changed.
#[test]
fn u1_u4_u7_a_host_that_failed_is_unavailable_and_changes_nothing() {
    let questions = [
        Question::Take,
        Question::LoadByUserKey,
        Question::Client,
        Question::Change,
    ];
    for question in questions {
        let mut login = Login::new();
        let code = login.codes.user_code.clone();
        login.host.fails = Some(question);
        unchanged(&mut login, |login| {
            let error = enter(login, &alice(), &code, 0).unwrap_err();
            assert_eq!(error, PageError::Unavailable, "{question:?}");
        });
        login.host.fails = None;
        assert!(enter(&mut login, &alice(), &code, 1).is_ok());
    }
    // Each decision, the login that it needs, and what it asks the host for besides `Load` and `Change`.
    let deeds: [(&[Question], Make, Decide); 5] = [
        (&[Question::Client], claimed_login, |login| {
            login.approve_by(&alice(), 1)
        }),
        (&[], claimed_login, |login| login.deny_by(&alice(), 1)),
        (&[], claimed_login, |login| login.release_by(&alice(), 1)),
        (
            &[],
            || Login::approved_at(0),
            |login| login.withdraw_by(&alice(), 1),
        ),
        (&[], active_login, |login| login.withdraw_by(&alice(), 1)),
    ];
    for (more, login, decide) in deeds {
        for question in [Question::Load, Question::Change].iter().chain(more) {
            let mut login = login();
            login.host.fails = Some(*question);
            unchanged(&mut login, |login| {
                let error = decide(login).unwrap_err();
                assert_eq!(error, PageError::Unavailable, "{question:?}");
                assert_eq!(login.host.asked.last(), Some(question));
            });
            login.host.fails = None;
            assert!(decide(&mut login).is_ok());
        }
    }
}

type Make = fn() -> Login;
type Decide = fn(&mut Login) -> Result<Session, PageError>;

/// Returns a login that Alice has claimed.
fn claimed_login() -> Login {
    let mut login = Login::new();
    login.claim(0);
    login
}

/// Returns a login that Alice has approved, and whose device has its tokens.
fn active_login() -> Login {
    let mut login = Login::approved_at(0);
    assert_granted(&login.poll(0).reply, "openid profile");
    login
}

/// The store answers with another session than the one that it was asked for.
#[test]
fn u5_another_session_than_the_one_asked_for_is_a_fault_of_the_store() {
    use device_flow::server::Next;

    let mut login = claimed_login();
    let other = device_flow::digest::SessionKey::from_bytes([9; 32]);
    let user = alice();
    let mut exchange = login.server.deny(&other, &user, at(1));
    let error = loop {
        match exchange.next() {
            Next::Load(_, ask) => ask.answer(Ok(login.host.store.load(&login.codes.key))),
            Next::Done(end) => break end.unwrap_err(),
            next => panic!("{next:?}"),
        }
    };
    assert_eq!(error, PageError::Unavailable);
    assert!(login.deny_by(&alice(), 2).is_ok());
}

// U2: the code is malformed, unknown or purged.

#[test]
fn u2_a_code_that_nobody_has_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = wrong_code(&login);
    unchanged(&mut login, |login| {
        assert_wrong(enter(login, &alice(), code, 0), PageError::UnknownCode);
    });
    assert_eq!(guesses_left(&mut login, &alice(), 0), 4);
}

#[test]
fn u2_a_purged_code_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    let now = LIFETIME + RETENTION;
    assert_eq!(login.host.store.purge(at(now)), 1);
    assert_wrong(
        enter(&mut login, &alice(), &code, now),
        PageError::UnknownCode,
    );
    assert_eq!(guesses_left(&mut login, &alice(), now), 4);
}

#[test]
fn u2_a_malformed_code_is_wrong_costs_a_guess_and_is_not_looked_up() {
    let right = Login::new().codes.user_code;
    let too_long = format!("{}{right}", "-".repeat(64 + 1 - right.len()));
    assert_eq!(too_long.len(), 65);
    let huge = "B".repeat(1 << 20);
    let kelvin = "\u{212A}BBBBBBB"; // its lower case is k, but it is not ASCII
    for typed in ["", "-", &right[1..], "BBBBBBBBB", &too_long, &huge, kelvin] {
        let mut login = Login::new();
        assert_wrong(
            enter(&mut login, &alice(), typed, 0),
            PageError::MalformedCode,
        );
        assert_eq!(login.host.asked, [Question::Take]);
        assert_eq!(guesses_left(&mut login, &alice(), 0), 4);
    }
}

/// > Further stripping of all characters outside the chosen character set is recommended
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
        assert!(enter(&mut login, &alice(), &typed, 0).is_ok(), "{typed:?}");
    }
}

/// The store answers with another session than the one that it was asked for.
#[test]
fn u2_a_session_under_another_code_is_a_fault_of_the_store() {
    use device_flow::server::Next;

    let mut login = Login::new();
    let code = wrong_code(&login);
    let user = alice();
    let mut exchange = login.server.enter(code, &user, "", NOW);
    let error = loop {
        match exchange.next() {
            Next::Take(take, ask) => ask.answer(Ok(login.host.store.take(&take))),
            Next::LoadByUserKey(_, ask) => ask.answer(Ok(login.host.store.load(&login.codes.key))),
            Next::Done(end) => break end.unwrap_err(),
            next => panic!("{next:?}"),
        }
    };
    assert_eq!(error, PageError::Unavailable);
}

// U3: the code has expired, was decided before, or is claimed by another user.

#[test]
fn u3_a_decided_code_is_wrong_for_everybody_and_costs_a_guess() {
    for (status, mut login) in decided() {
        let code = login.codes.user_code.clone();
        // The index has no entry for a session whose code was redeemed, or whose approval was withdrawn.
        let reason = match status {
            Status::Approved | Status::Denied => PageError::UsedCode,
            _ => PageError::UnknownCode,
        };
        for user in [bob(), alice()] {
            unchanged(&mut login, |login| {
                assert_wrong(enter(login, &user, &code, 1), reason);
            });
        }
        // Before and after expiry.
        assert_wrong(enter(&mut login, &bob(), &code, LIFETIME + 1), reason);
        assert_eq!(
            guesses_left(&mut login, &bob(), LIFETIME + 1),
            4,
            "{status:?}"
        );
    }
}

/// A store may keep the index entry of a redeemed session. The code is unknown nevertheless.
#[test]
fn u3_a_redeemed_session_that_is_still_indexed_is_unknown() {
    use device_flow::server::Next;

    let mut login = Login::approved_at(0);
    let code = login.codes.user_code.clone();
    let _ = login.poll(0);
    let user = bob();
    let mut exchange = login.server.enter(&code, &user, "", at(1));
    let error = loop {
        match exchange.next() {
            Next::Take(take, ask) => ask.answer(Ok(login.host.store.take(&take))),
            Next::LoadByUserKey(_, ask) => ask.answer(Ok(login.host.store.load(&login.codes.key))),
            Next::Done(end) => break end.unwrap_err(),
            next => panic!("{next:?}"),
        }
    };
    assert_eq!(error, PageError::UnknownCode);
}

#[test]
fn u3_an_expired_code_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    for now in [LIFETIME, LIFETIME + 1] {
        unchanged(&mut login, |login| {
            assert_wrong(enter(login, &alice(), &code, now), PageError::ExpiredCode);
        });
    }
    assert!(enter(&mut login, &alice(), &code, LIFETIME - 1).is_ok());
    // The code has expired for its claimant, too.
    assert_wrong(
        enter(&mut login, &alice(), &code, LIFETIME),
        PageError::ExpiredCode,
    );
    assert_eq!(guesses_left(&mut login, &alice(), LIFETIME), 1);
}

#[test]
fn u3_a_code_claimed_by_another_user_is_wrong_and_costs_a_guess() {
    let mut login = Login::new();
    login.claim(0);
    let code = login.codes.user_code.clone();
    unchanged(&mut login, |login| {
        assert_wrong(enter(login, &bob(), &code, 1), PageError::ClaimedByAnother);
    });
    assert_eq!(guesses_left(&mut login, &bob(), 1), 4);
    assert_eq!(login.session().claimant(), Some(&alice()));
}

// U13: two sessions have the code, one under each server key.

/// Lesson: after a change of the server's key, two sessions had the same code, and the other device got the tokens.
#[test]
fn u13_a_code_that_two_sessions_have_under_two_keys_opens_neither() {
    let (mut host, rotated, codes, other) = one_code_twice();
    let forms = |host: &Host| {
        [&codes.key, &other.key].map(|key| serde_json::to_string(&host.session(key)).unwrap())
    };
    let had = forms(&host);
    let outcome = host.claim(&rotated, &alice(), &codes.user_code, NOW);
    assert_wrong(outcome, PageError::AmbiguousCode);
    let order = [
        Question::Take,
        Question::LoadByUserKey,
        Question::LoadByUserKey,
    ];
    assert_eq!(host.asked, order, "a guess, and nothing is written");
    assert_eq!(forms(&host), had);
}

/// Two sessions with the same code block each other until one of them is purged or redeemed.
#[test]
fn u13_one_of_two_sessions_that_is_gone_is_not_in_the_way() {
    for is_older in [true, false] {
        let (mut host, rotated, codes, other) = one_code_twice();
        let (gone, left) = if is_older {
            (&codes, &other)
        } else {
            (&other, &codes)
        };
        // Only one of the two server keys is active here, so the other session cannot be found.
        let keys = ServerKeys::new(&key(if is_older { 7 } else { 8 })).unwrap();
        let alone = Server::new(policy(), keys);
        host.approve(&alone, &bob(), gone, NOW);
        let outcome = host.claim(&rotated, &alice(), &left.user_code, NOW);
        assert_wrong(outcome, PageError::AmbiguousCode);
        let granted = host.poll(&rotated, &cli(), &gone.device_code, NOW);
        assert_eq!(granted.cause(), Cause::Granted);
        let review = host.claim(&rotated, &alice(), &left.user_code, NOW);
        assert_eq!(review.unwrap().session_key(), &left.key);
    }
}

/// Returns a host with two sessions that have the same user code, the server after its key was changed, and the codes. The first session
/// was issued before the change, the second after it.
fn one_code_twice() -> (Host, Server, support::Codes, support::Codes) {
    let mut host = Host::new([cli()]);
    let codes = host.issue(&server(), &cli(), 1, NOW);
    let rotated = rotated();
    // The same user code, but another device code.
    host.entropy.push_front(support::entropy_of(2, 1));
    let request = support::post("client_id=client_cli&scope=openid+profile");
    let reply = host.run(rotated.device_authorization(request, "", None, NOW));
    let other = support::Codes::of(&reply);
    assert_eq!(codes.user_code, other.user_code);
    assert_ne!(codes.key, other.key);
    (host, rotated, codes, other)
}

/// Returns a server whose key was changed.
fn rotated() -> Server {
    let keys = ServerKeys::new(&key(8)).unwrap().with_previous(&key(7));
    Server::new(policy(), keys.unwrap())
}

// U14: the client is gone when the code is entered or approved.

fn clients_that_are_gone() -> Vec<Vec<Client>> {
    let other = Client::new("client_cli", device_flow::server::ClientAuthMethod::None);
    vec![vec![], vec![cli().disabled()], vec![other.unwrap()]]
}

#[test]
fn u14_a_code_of_a_client_that_is_gone_is_not_entered_and_costs_a_guess() {
    for clients in clients_that_are_gone() {
        let mut login = Login::new();
        let code = login.codes.user_code.clone();
        login.host.clients = clients;
        unchanged(&mut login, |login| {
            let error = enter(login, &alice(), &code, 1).unwrap_err();
            assert_eq!(error, PageError::ClientGone);
            assert!(!error.is_wrong_code());
            assert_eq!(error.to_string(), "this application can no longer sign in");
            assert!(!claimed(login));
        });
        assert_eq!(guesses_left(&mut login, &alice(), 1), 4);
    }
}

#[test]
fn u14_a_client_that_is_gone_is_not_approved_but_can_be_denied() {
    for clients in clients_that_are_gone() {
        let mut login = Login::new();
        login.claim(0);
        login.host.clients = clients;
        unchanged(&mut login, |login| {
            assert_eq!(
                login.approve_by(&alice(), 1).unwrap_err(),
                PageError::ClientGone
            );
            assert_eq!(login.host.asked, [Question::Load, Question::Client]);
        });
        assert_eq!(login.deny_by(&alice(), 2).unwrap().status(), Status::Denied);
    }
}

/// If the claimant enters the code again, the review is made anew. So the client is looked up again, too.
#[test]
fn u14_a_claimant_is_shown_nothing_more_once_the_client_is_gone() {
    for clients in clients_that_are_gone() {
        let mut login = claimed_login();
        let code = login.codes.user_code.clone();
        login.host.clients = clients;
        unchanged(&mut login, |login| {
            let error = enter(login, &alice(), &code, 1).unwrap_err();
            assert_eq!(error, PageError::ClientGone);
        });
    }
}

/// If a code is wrong for another reason, the client is not looked up.
#[test]
fn u14_a_wrong_code_says_nothing_about_its_client() {
    let mut login = claimed_login();
    let code = login.codes.user_code.clone();
    login.host.clients.clear();
    assert_wrong(
        enter(&mut login, &bob(), &code, 1),
        PageError::ClaimedByAnother,
    );
    assert_eq!(login.host.asked, [Question::Take, Question::LoadByUserKey]);
}

/// The registry answers with another client than the one that it was asked for.
#[test]
fn u14_another_client_is_not_the_one_of_the_session() {
    use device_flow::server::Found;

    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    login.host.found = Some(Found::Registered(support::backend()));
    let error = enter(&mut login, &alice(), &code, 1).unwrap_err();
    assert_eq!(error, PageError::ClientGone);
    login.host.found = Some(Found::Refused);
    let error = enter(&mut login, &alice(), &code, 1).unwrap_err();
    assert_eq!(error, PageError::ClientGone);
    assert_eq!(login.status(), Status::Pending);
    login.host.found = None;
    login.claim(1);
    login.host.found = Some(Found::Registered(support::backend()));
    let error = login.approve_by(&alice(), 2).unwrap_err();
    assert_eq!(error, PageError::ClientGone);
    assert_eq!(login.status(), Status::Claimed);
}

// U4: the session is unclaimed, or claimed by this user.

#[test]
fn u4_entering_claims_the_session_by_a_guarded_write() {
    let mut login = Login::new();
    let mut wanted = login.form();
    let code = login.codes.user_code.clone();
    assert!(enter(&mut login, &alice(), &code, 1).is_ok());
    let order = [
        Question::Take,
        Question::LoadByUserKey,
        Question::Client,
        Question::Change,
    ];
    assert_eq!(login.host.asked, order, "the guess comes first");
    wanted["state"] = json!({ "claimed": "alice" });
    wanted["version"] = json!(2);
    assert_eq!(login.form(), wanted, "state and version, nothing else");
    assert_eq!(login.status(), Status::Claimed);
    assert_eq!(login.session().claimant(), Some(&alice()));
    // For the device, nothing has happened.
    assert_pending(&login.poll(1), &pace(1, 5, false));
}

#[test]
fn u4_entering_again_writes_nothing_but_the_guess() {
    let mut login = Login::new();
    login.claim(0);
    let code = login.codes.user_code.clone();
    unchanged(&mut login, |login| {
        assert!(enter(login, &alice(), &code, 0).is_ok());
        assert!(!claimed(login));
    });
    assert_eq!(guesses_left(&mut login, &alice(), 0), 3);
}

#[test]
fn u4_the_review_shows_client_scopes_age_source_and_the_code_to_compare() {
    let server = server();
    let client = cli().named("Example CLI");
    assert_eq!(client.name(), Some("Example CLI"));
    let mut host = Host::new([client]);
    let request = support::post("client_id=client_cli&scope=profile+admin+openid");
    let reply = host.run(server.device_authorization(request, "", None, NOW));
    let codes = support::Codes::of(&reply);
    let typed = codes.user_code.to_lowercase();
    let review = host.claim(&server, &alice(), &typed, at(61_500)).unwrap();
    assert_eq!(review.session_key(), &codes.key);
    assert_eq!(review.client_id(), "client_cli");
    assert_eq!(review.client_name(), Some("Example CLI"));
    assert!(review.is_public_client());
    assert_eq!(review.scope(), &scope("profile openid"));
    assert_eq!(review.age(), Duration::from_millis(61_500));
    assert_eq!(review.time_left(), Duration::from_millis(238_500));
    assert_eq!(review.shown_source(), None);
    assert_eq!(review.user_code().display().to_string(), codes.user_code);
}

#[test]
fn u4_the_review_says_whether_anybody_can_claim_to_be_the_client() {
    let mut login = Login::of(policy(), support::backend());
    let code = login.codes.user_code.clone();
    let review = enter(&mut login, &alice(), &code, 0).unwrap();
    assert!(!review.is_public_client());
    assert_eq!(review.client_id(), "client_backend");
    assert_eq!(review.client_name(), None);
}

#[test]
fn u4_the_review_shows_the_source_cut_and_without_control_and_format_characters() {
    let server = server();
    let mut host = Host::new([cli()]);
    let long = format!("Zürich\r\n\u{202E}\u{200B}{}", "x".repeat(400));
    let request = support::post("client_id=client_cli");
    let exchange = server.device_authorization(request, "", Some(&long), NOW);
    let codes = support::Codes::of(&host.run(exchange));
    let review = host
        .claim(&server, &alice(), &codes.user_code, NOW)
        .unwrap();
    let source = review.shown_source().unwrap();
    assert!(
        source.len() <= 256 && source.len() > 250,
        "at most 256 bytes"
    );
    let replaced = "\u{FFFD}".repeat(4);
    assert!(source.starts_with(&format!("Zürich{replaced}xxx")));
}

#[test]
fn u4_a_claim_that_lost_its_write_to_another_user_shows_nothing() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    let typed = code.clone();
    login.host.meanwhile.push_back(Box::new(move |store| {
        let mut rival = Host::new([cli()]);
        core::mem::swap(&mut rival.store, store);
        rival.claim(&server(), &bob(), &typed, at(0)).unwrap();
        core::mem::swap(&mut rival.store, store);
    }));
    assert_wrong(
        enter(&mut login, &alice(), &code, 0),
        PageError::ClaimedByAnother,
    );
    assert_eq!(login.session().claimant(), Some(&bob()));
    assert_eq!(guesses_left(&mut login, &alice(), 0), 4, "one guess");
}

#[test]
fn u4_a_claim_is_tried_three_times() {
    for losses in 0..3 {
        let mut login = Login::new();
        let code = login.codes.user_code.clone();
        login.host.says.extend([Says::Conflict].repeat(losses));
        assert!(enter(&mut login, &alice(), &code, 0).is_ok());
        // The session and its client are looked up again, but no other guess is taken.
        let mut wanted = vec![Question::Take];
        for _ in 0..=losses {
            wanted.extend([Question::LoadByUserKey, Question::Client, Question::Change]);
        }
        assert_eq!(login.host.asked, wanted);
    }
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    login.host.says.extend([Says::Conflict; 3]);
    let error = enter(&mut login, &alice(), &code, 0).unwrap_err();
    assert_eq!(error, PageError::Unavailable);
    assert_eq!(login.host.count(Question::Change), 3);
}

#[test]
fn u4_a_claim_of_unknown_outcome_shows_nothing_and_entering_again_does() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    login.host.says.push_back(Says::UnknownDone);
    let error = enter(&mut login, &alice(), &code, 0).unwrap_err();
    assert_eq!(error, PageError::Unavailable);
    assert!(enter(&mut login, &alice(), &code, 0).is_ok());
}

#[test]
fn u4_a_code_under_the_previous_key_is_found_with_one_guess() {
    let mut login = Login::new();
    let code = login.codes.user_code.clone();
    let server = rotated();
    assert!(login.host.claim(&server, &alice(), &code, NOW).is_ok());
    assert_eq!(login.host.count(Question::Take), 1, "one guess");
    assert_eq!(
        login.host.count(Question::LoadByUserKey),
        2,
        "the current, then the previous"
    );
    // Without the previous key, the code is unknown.
    let mut login = Login::new();
    let alone = Server::new(policy(), ServerKeys::new(&key(8)).unwrap());
    let outcome = login.host.claim(&alone, &alice(), &code, NOW);
    assert_wrong(outcome, PageError::UnknownCode);
}

// U5: this user has not claimed the session.

#[test]
fn u5_nobody_decides_on_a_session_that_they_have_not_claimed() {
    let mut logins: Vec<_> = decided().into_iter().map(|(_, login)| login).collect();
    let mut claimed = Login::new();
    claimed.claim(0);
    logins.extend([Login::new(), claimed]);
    for mut login in logins {
        let user = bob();
        unchanged(&mut login, |login| {
            // Before and after expiry, with a right and a wrong scope: the user is checked before the scope.
            for now in [1, LIFETIME, LIFETIME + 1] {
                for wanted in ["openid profile", "openid", "openid admin", ""] {
                    let consent = Consent::to(scope(wanted));
                    let error = login.consent_by(&user, &consent, now).unwrap_err();
                    assert_eq!(error, PageError::NotYours);
                }
                assert_eq!(login.deny_by(&user, now).unwrap_err(), PageError::NotYours);
                assert_eq!(
                    login.release_by(&user, now).unwrap_err(),
                    PageError::NotYours
                );
                assert_eq!(
                    login.withdraw_by(&user, now).unwrap_err(),
                    PageError::NotYours
                );
            }
        });
    }
}

#[test]
fn u5_a_user_is_another_by_one_character() {
    let mut login = Login::new();
    login.claim(0);
    for sub in ["Alice", "alice ", "alic", "alicee"] {
        assert_eq!(
            login.approve_by(&subject(sub), 1).unwrap_err(),
            PageError::NotYours
        );
    }
}

// U6: the code has expired.

#[test]
fn u6_an_expired_code_is_neither_approved_nor_denied() {
    let mut login = Login::new();
    login.claim(0);
    for now in [LIFETIME, LIFETIME + 1, LIFETIME + REDEEM_TIME] {
        unchanged(&mut login, |login| {
            // The code has expired also for a scope that U8 would refuse.
            for wanted in ["openid profile", "admin", ""] {
                let consent = Consent::to(scope(wanted));
                let error = login.consent_by(&alice(), &consent, now).unwrap_err();
                assert_eq!(error, PageError::Expired);
            }
            assert_eq!(
                login.deny_by(&alice(), now).unwrap_err(),
                PageError::Expired
            );
        });
    }
    assert!(login.approve_by(&alice(), LIFETIME - 1).is_ok());
    let mut login = Login::new();
    login.claim(0);
    assert!(login.deny_by(&alice(), LIFETIME - 1).is_ok());
}

#[test]
fn u6_a_session_that_was_purged_has_expired() {
    let mut login = Login::new();
    login.claim(0);
    login.host.store = device_flow::memory::Memory::new();
    assert_eq!(
        login.approve_by(&alice(), 1).unwrap_err(),
        PageError::Expired
    );
    assert_eq!(login.deny_by(&alice(), 1).unwrap_err(), PageError::Expired);
    assert_eq!(
        login.withdraw_by(&alice(), 1).unwrap_err(),
        PageError::Expired
    );
}

// U7: the user approves, and the scope is within what was asked for.

#[test]
fn u7_approving_is_a_guarded_write_and_the_claimant_is_the_subject() {
    let mut login = Login::new();
    login.claim(0);
    let mut wanted = login.form();
    let value = HostValue::new(vec![7; HostValue::MAX_BYTES]).unwrap();
    let bytes = value.as_bytes().to_vec();
    let consent = Consent::to_all().with_value(value);
    let approved = login.consent_by(&alice(), &consent, 1000).unwrap();
    assert_eq!(
        login.host.asked,
        [Question::Load, Question::Client, Question::Change]
    );
    wanted["version"] = json!(3);
    wanted["state"] = json!({ "approved": {
        "subject": "alice",
        "scope": "openid profile",
        "value": bytes,
        "approved_at": login::stored_at(1000),
        "redeemable_until": login::stored_at(LIFETIME),
    } });
    assert_eq!(login.form(), wanted);
    assert_eq!(
        serde_json::to_value(&approved).unwrap(),
        wanted,
        "what was decided"
    );
    assert_eq!(approved.status(), Status::Approved);
    assert_eq!(approved.claimant(), Some(&alice()));
    assert_eq!(approved.granted(), Some(&scope("openid profile")));
}

#[test]
fn u7_approving_at_the_last_moment_moves_the_purge_time() {
    let cases = [
        (0, LIFETIME),
        (LIFETIME - REDEEM_TIME, LIFETIME),
        (LIFETIME - REDEEM_TIME + 1, LIFETIME + 1),
        (LIFETIME - 1, LIFETIME - 1 + REDEEM_TIME),
    ];
    for (approved, redeemable_until) in cases {
        let mut login = Login::new();
        login.claim(0);
        let after = login.approve_by(&alice(), approved).unwrap();
        assert_eq!(after.purge_at(), at(redeemable_until + RETENTION));
        let form = serde_json::to_value(&after).unwrap();
        let until = &form["state"]["approved"]["redeemable_until"];
        assert_eq!(until, &json!(login::stored_at(redeemable_until)));
    }
}

#[test]
fn u7_the_scope_may_be_all_or_a_part_in_any_order() {
    for granted in ["openid profile", "profile openid", "openid", "profile"] {
        let mut login = Login::new();
        login.claim(0);
        login
            .consent_by(&alice(), &Consent::to(scope(granted)), 1)
            .unwrap();
        assert_eq!(login.session().scope(), &scope("openid profile"));
        assert_granted(&login.poll(2).reply, granted);
    }
}

#[test]
fn u7_an_approval_may_be_empty_where_nothing_was_asked() {
    for (granted, is_right) in [(Scope::empty(), true), (scope("openid"), false)] {
        let client = cli().default_scope(Scope::empty());
        let mut login = Login::asking(policy(), client, "");
        login.claim(0);
        let decided = login.consent_by(&alice(), &Consent::to(granted), 1);
        assert_eq!(decided.is_ok(), is_right);
        assert!(is_right || decided.unwrap_err() == PageError::Scope);
    }
}

#[test]
fn u7_the_hosts_value_is_at_most_a_kibibyte() {
    assert!(HostValue::new(vec![0; 1024]).is_ok());
    assert!(HostValue::new(vec![0; 1025]).is_err());
}

#[test]
fn u7_a_decision_that_lost_its_write_is_tried_three_times() {
    for losses in 0..3 {
        let mut login = Login::new();
        login.claim(0);
        login.host.says.extend([Says::Conflict].repeat(losses));
        assert!(login.approve_by(&alice(), 1).is_ok());
    }
    let mut login = Login::new();
    login.claim(0);
    login.host.says.extend([Says::Conflict; 3]);
    assert_eq!(
        login.approve_by(&alice(), 1).unwrap_err(),
        PageError::Unavailable
    );
    assert_eq!(login.host.count(Question::Change), 3);
    for says in [Says::UnknownNotDone, Says::UnknownDone] {
        assert_eq!(login.status(), Status::Claimed);
        login.host.says.push_back(says);
        assert_eq!(
            login.approve_by(&alice(), 1).unwrap_err(),
            PageError::Unavailable
        );
    }
    // The last write was done, so the same approval again is a success.
    assert!(login.approve_by(&alice(), 2).is_ok());
    assert_eq!(login.host.count(Question::Change), 0);
}

// U8: the scope is wider than what was asked for, or is empty although some was asked for.

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
            let consent = Consent::to(scope(wider));
            let error = login.consent_by(&alice(), &consent, 1).unwrap_err();
            assert_eq!(error, PageError::Scope, "{wider}");
        }
    });
    // After that, the user can approve a right scope.
    assert!(login.approve_by(&alice(), 2).is_ok());
}

// U9: the user denies.

#[test]
fn u9_denying_is_a_guarded_write_and_the_device_is_told() {
    let mut login = Login::new();
    login.claim(0);
    let mut wanted = login.form();
    let denied = login.deny_by(&alice(), LIFETIME - 1).unwrap();
    assert_eq!(login.host.asked, [Question::Load, Question::Change]);
    assert_eq!(denied.purge_at(), at(LIFETIME + RETENTION));
    wanted["version"] = json!(3);
    wanted["state"] = json!({ "denied": "alice" });
    assert_eq!(login.form(), wanted);
    assert_eq!(denied.status(), Status::Denied);
    assert_denied(&login.poll(LIFETIME - 1).reply);
}

/// Returns an action on the session that happens just before a guarded write, as if the same user acted in another window.
fn rival(
    login: &Login,
    act: impl FnOnce(&mut Host, &Server, &device_flow::digest::SessionKey) + 'static,
) -> support::host::Meanwhile {
    let key = login.codes.key;
    let client = login.client.clone();
    Box::new(move |store| {
        let mut rival = Host::new([client]);
        core::mem::swap(&mut rival.store, store);
        act(&mut rival, &server(), &key);
        core::mem::swap(&mut rival.store, store);
    })
}

#[test]
fn u9_of_two_decisions_on_the_same_reading_one_wins() {
    let mut login = Login::new();
    login.claim(0);
    let denial = rival(&login, |host, server, key| {
        host.run(server.deny(key, &alice(), at(1))).unwrap();
    });
    login.host.meanwhile.push_back(denial);
    assert_eq!(
        login.approve_by(&alice(), 1).unwrap_err(),
        PageError::Decided
    );
    assert_eq!(login.status(), Status::Denied);

    let mut login = Login::new();
    login.claim(0);
    let approval = rival(&login, |host, server, key| {
        host.run(server.approve(key, &alice(), &Consent::to_all(), at(1)))
            .unwrap();
    });
    login.host.meanwhile.push_back(approval);
    assert_eq!(login.deny_by(&alice(), 1).unwrap_err(), PageError::Decided);
    assert_eq!(login.status(), Status::Approved);
}

// U10: the user decided before.

/// Asserts that the same decision again was a success, and that nothing was written.
#[track_caller]
fn assert_stands(login: &Login, again: &Result<Session, PageError>) {
    assert!(again.is_ok());
    assert!(!claimed(login), "nothing to write");
}

#[test]
fn u10_a_decision_stands_and_the_same_again_is_a_success_without_a_change() {
    for (status, mut login) in decided() {
        unchanged(&mut login, |login| {
            // Before and after expiry.
            for now in [1, LIFETIME - 1, LIFETIME, LIFETIME + RETENTION] {
                let approved = login.approve_by(&alice(), now);
                if matches!(status, Status::Approved | Status::Active) {
                    assert_stands(login, &approved);
                } else {
                    assert_eq!(approved.unwrap_err(), PageError::Decided);
                }
                let denied = login.deny_by(&alice(), now);
                if status == Status::Denied {
                    assert_stands(login, &denied);
                } else {
                    assert_eq!(denied.unwrap_err(), PageError::Decided);
                }
            }
        });
    }
}

#[test]
fn u10_another_scope_is_another_decision_and_another_order_is_not() {
    let mut login = Login::approved_at(0);
    unchanged(&mut login, |login| {
        for other in ["openid", "profile", "admin", ""] {
            let consent = Consent::to(scope(other));
            let error = login.consent_by(&alice(), &consent, 1).unwrap_err();
            assert_eq!(error, PageError::Decided);
        }
    });
    for mut login in [login, active_login()] {
        unchanged(&mut login, |login| {
            let reordered = Consent::to(scope("profile openid"));
            let again = login.consent_by(&alice(), &reordered, 1);
            assert_stands(login, &again);
            assert_eq!(login.host.asked, [Question::Load]);
            let other = Consent::to(scope("openid"));
            let error = login.consent_by(&alice(), &other, 1).unwrap_err();
            assert_eq!(error, PageError::Decided);
        });
    }
}

// U11: the user withdraws.

#[test]
fn u11_withdrawing_is_a_guarded_write_and_the_device_gets_nothing() {
    let mut login = Login::approved_at(LIFETIME - 1);
    let mut wanted = login.form();
    let purge_at = login.session().purge_at();
    let ended = login.withdraw_by(&alice(), LIFETIME - 1).unwrap();
    assert_eq!(ended.purge_at(), purge_at);
    wanted["version"] = json!(4);
    let approval = wanted["state"]["approved"].take();
    wanted["state"] = json!({ "ended": approval });
    wanted["user_key"] = json!(null);
    assert_eq!(login.form(), wanted);
    assert_eq!(ended.status(), Status::Ended);
    assert_invalid_grant(&login.poll(LIFETIME - 1).reply, Cause::Ended);
}

#[test]
fn u11_withdrawing_ends_a_login_whose_device_has_its_tokens() {
    // The record is kept for the retention after the code has expired, or after the withdrawal if that is later.
    for (now, end) in [(2, LIFETIME), (10 * LIFETIME, 10 * LIFETIME)] {
        let mut login = active_login();
        let mut wanted = login.form();
        let ended = login.withdraw_by(&alice(), now).unwrap();
        assert_eq!(login.host.asked, [Question::Load, Question::Change]);
        let approval = wanted["state"]["active"]["approval"].take();
        wanted["state"] = json!({ "ended": approval });
        wanted["version"] = json!(5);
        wanted["purge_at"] = json!(login::stored_at(end + RETENTION));
        assert_eq!(login.form(), wanted);
        assert_eq!(serde_json::to_value(&ended).unwrap(), wanted);
        assert_eq!(ended.granted(), Some(&scope("openid profile")));
        // The device is told that its code is not valid.
        assert_invalid_grant(&login.poll(now + 1).reply, Cause::Ended);
        let again = login.withdraw_by(&alice(), now + 2);
        assert_stands(&login, &again);
    }
}

#[test]
fn u11_a_withdrawal_that_lost_its_write_is_tried_three_times() {
    for losses in 0..3 {
        let mut login = active_login();
        login.host.says.extend([Says::Conflict].repeat(losses));
        assert!(login.withdraw_by(&alice(), 1).is_ok());
        assert_eq!(login.host.count(Question::Change), losses + 1);
    }
    let mut login = active_login();
    login.host.says.extend([Says::Conflict; 3]);
    unchanged(&mut login, |login| {
        let error = login.withdraw_by(&alice(), 1).unwrap_err();
        assert_eq!(error, PageError::Unavailable);
    });
    login.host.says.push_back(Says::UnknownDone);
    let error = login.withdraw_by(&alice(), 1).unwrap_err();
    assert_eq!(error, PageError::Unavailable);
    let again = login.withdraw_by(&alice(), 2);
    assert_stands(&login, &again);
}

#[test]
fn u11_of_a_withdrawal_and_a_redemption_exactly_one_wins() {
    let mut login = Login::approved_at(0);
    let withdrawal = rival(&login, |host, server, key| {
        host.run(server.withdraw(key, &alice(), at(1))).unwrap();
    });
    login.host.meanwhile.push_back(withdrawal);
    assert_invalid_grant(&login.poll(1).reply, Cause::Ended);

    // The redemption came first. The withdrawal is decided again, and ends the login.
    let mut login = Login::approved_at(0);
    let (code, client) = (login.codes.device_code.clone(), login.client.clone());
    let redemption = rival(&login, move |host, server, _| {
        assert_eq!(
            host.poll(server, &client, &code, at(1)).cause(),
            Cause::Granted
        );
    });
    login.host.meanwhile.push_back(redemption);
    assert_eq!(
        login.withdraw_by(&alice(), 1).unwrap().status(),
        Status::Ended
    );
}

#[test]
fn u11_there_is_nothing_to_withdraw_before_an_approval_or_after_a_denial() {
    let mut login = Login::new();
    login.claim(0);
    assert_eq!(
        login.withdraw_by(&alice(), 1).unwrap_err(),
        PageError::Undecided
    );
    for (status, mut login) in decided() {
        let withdrawn = login.withdraw_by(&alice(), 1);
        match status {
            Status::Denied => assert_eq!(withdrawn.unwrap_err(), PageError::Decided),
            Status::Ended => assert_stands(&login, &withdrawn),
            _ => assert_eq!(withdrawn.unwrap().status(), Status::Ended),
        }
    }
}

// U12: the claimant releases the session.

#[test]
fn u12_releasing_is_a_guarded_write_and_gives_the_session_back_unclaimed() {
    let mut login = Login::new();
    let mut wanted = login.form();
    login.claim(0);
    let released = login.release_by(&alice(), 0).unwrap();
    wanted["version"] = json!(3);
    assert_eq!(login.form(), wanted, "as it was, but for the version");
    assert_eq!(released.status(), Status::Pending);
    assert_eq!(released.claimant(), None);
    // The user who released the session can no longer decide, and another user may enter the code.
    assert_eq!(
        login.approve_by(&alice(), 1).unwrap_err(),
        PageError::NotYours
    );
    let code = login.codes.user_code.clone();
    assert!(enter(&mut login, &bob(), &code, 1).is_ok());
    assert_eq!(login.session().claimant(), Some(&bob()));
    login.approve_by(&bob(), 2).unwrap();
    assert_granted(&login.poll(3).reply, "openid profile");
    assert_eq!(
        login.session().claimant(),
        Some(&bob()),
        "the subject is the claimant"
    );
}

#[test]
fn u12_a_decision_made_before_a_release_loses_to_it() {
    let mut login = Login::new();
    login.claim(0);
    let release = rival(&login, |host, server, key| {
        host.run(server.release(key, &alice(), at(1))).unwrap();
    });
    login.host.meanwhile.push_back(release);
    assert_eq!(
        login.approve_by(&alice(), 1).unwrap_err(),
        PageError::NotYours
    );
    assert_eq!(login.status(), Status::Pending);
}

#[test]
fn u12_a_decided_session_is_not_released() {
    for (_, mut login) in decided() {
        unchanged(&mut login, |login| {
            assert_eq!(
                login.release_by(&alice(), 1).unwrap_err(),
                PageError::Decided
            );
        });
    }
}
