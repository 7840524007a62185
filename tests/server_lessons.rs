//! What went wrong elsewhere in authorization servers, and must not here. Each test carries the public report.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]
#![allow(
    clippy::redundant_closure_for_method_calls,
    reason = "the method itself is not general over the lifetime of a redemption"
)]

#[path = "support/login.rs"]
mod login;
mod support;

use core::time::Duration;

use device_flow::code::{Entropy, UserCodeShape};
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, DecisionError, Entered, Entry, HostValue, Polled, Reply, Session, Spent, Status, Stored,
    Subject, Written, WrongCode,
};
use login::{
    LIFETIME, Login, RETENTION, Wrote, assert_denied, assert_expired, assert_granted,
    assert_invalid_grant, assert_pending, at, bob, bytes, pace, with_poll_of,
};
use support::{
    NOW, SECRET, alice, assert_invalid_client, assert_unavailable, backend, builder, cli, keys,
    policy, poll_body, post, refusal, scope, with_poll,
};

/// Whether a user gets anywhere with a code, and with what if not.
fn enter(login: &Login, user: &Subject, now: i64) -> Result<Entered, WrongCode> {
    let keys = keys();
    let mut entry = Entry::new(&login.codes.user_code, user, &keys, &login.policy);
    let guess = entry.pay(None, at(now)).unwrap();
    let paid = guess.settle(Written::Won).unwrap();
    paid.enter(Some(login.session()), at(now))
}

/// spring-authorization-server #1556, #1885: an expired code stayed `authorization_pending` for ever.
#[test]
fn an_expired_code_is_expired_before_it_is_pending() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    for now in [LIFETIME, LIFETIME + 1, LIFETIME + RETENTION - 1] {
        assert_expired(&login.poll(now).reply, Cause::Expired);
    }
}

/// authlib #324: an approved code never expired.
#[test]
fn an_approved_code_expires() {
    let mut login = Login::approved_at(0);
    assert_expired(&login.poll(LIFETIME).reply, Cause::ApprovalExpired);
    assert_eq!(login.status(), Status::Approved, "and was not redeemed");
}

/// spring-authorization-server #1977: an expired user code could be approved.
#[test]
fn an_expired_user_code_is_neither_entered_nor_approved() {
    let mut login = Login::new();
    login.claim(LIFETIME - 1);
    let error = login.approval_by(&alice(), LIFETIME).unwrap_err();
    assert_eq!(error, DecisionError::Expired);
    let wrong = enter(&login, &alice(), LIFETIME).unwrap_err();
    assert_eq!(wrong, WrongCode::Expired);
}

/// ory/hydra #4110: a denial was never written, and the device hung.
#[test]
fn a_denial_is_written_and_the_device_is_told() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    login.deny(1);
    assert_eq!(login.status(), Status::Denied);
    assert_denied(&login.poll(5000).reply);
}

/// keycloak #36811: deny, go back in the browser, accept gave a token.
#[test]
fn denied_is_terminal_also_for_a_page_that_was_left_open() {
    let mut login = Login::new();
    login.claim(0);
    // The page from before the denial, with its reading of the session.
    let open = login.session().clone();
    let change = login.session().deny(&alice(), at(1)).unwrap().unwrap();
    login.write(&change);
    let value = HostValue::default();
    let accept = open.approve(&alice(), open.scope(), value, &login.policy, at(2));
    let accept = accept.unwrap().unwrap();
    assert_eq!(login.store.change(&accept), Written::Lost);
    let error = login.approval_by(&alice(), 2).unwrap_err();
    assert_eq!(error, DecisionError::Decided);
    assert_eq!(enter(&login, &alice(), 2).unwrap_err(), WrongCode::Decided);
    assert_denied(&login.poll(3).reply);
}

/// CVE-2023-2585, keycloak: the device code was not bound to its client.
#[test]
fn a_device_code_is_of_use_to_its_client_alone() {
    let mut login = Login::approved_at(0);
    let answer = login.poll_as(&backend(), 1);
    assert_invalid_grant(&answer.reply, Cause::ForeignClient);
    assert_eq!(answer.wrote, Wrote::Nothing);
    assert_granted(&login.poll(2).reply, "openid profile");
}

/// CVE-2026-88770, keycloak: tokens for an account that was locked after the approval.
#[test]
fn the_subject_is_in_the_hosts_hands_once_more_before_anything_is_written() {
    let mut login = Login::approved_at(0);
    let is_locked = |subject: &Subject| subject == &alice();
    let (reply, change) = login.redeem(1, |redemption| {
        assert!(is_locked(redemption.approval().subject()));
        let revocation = redemption.revoke();
        let change = revocation.change().clone();
        (revocation.settle(Written::Won).unwrap(), change)
    });
    login.write(&change);
    assert_invalid_grant(&reply, Cause::ConsentGone);
    assert_eq!(login.status(), Status::Revoked);
    assert_invalid_grant(&login.poll(2).reply, Cause::Revoked);
}

/// authentik #20828: a confidential client needed no secret at the poll.
#[test]
fn a_confidential_client_needs_its_secret_at_the_poll() {
    let (policy, client) = (policy(), backend());
    let mut login = Login::of(policy, client);
    login.approve(0);
    let plain = poll_body("client_backend", &login.codes.device_code);
    let wrong = format!("{plain}&client_secret=wrong");
    for (body, cause) in [
        (plain.clone(), Cause::CredentialMissing),
        (wrong, Cause::WrongSecret),
    ] {
        let polled = with_poll(&login.policy, post(&body), Some(&login.client), |_| ());
        assert_invalid_client(&refusal(polled), cause);
    }
    let right = format!("{plain}&client_secret={SECRET}");
    let polled = with_poll(&login.policy, post(&right), Some(&login.client), |poll| {
        assert_eq!(poll.session_key(), Some(&login.codes.key));
    });
    assert!(polled.is_ok());
    assert_granted(&login.poll(1).reply, "openid profile");
}

/// better-auth GHSA-cq3f-vc6p-68fh: any signed-in user could approve any code.
#[test]
fn only_the_user_who_entered_the_code_decides() {
    let mut login = Login::new();
    for user in [alice(), bob()] {
        let error = login.approval_by(&user, 0).unwrap_err();
        assert_eq!(error, DecisionError::NotYours, "nobody entered it");
    }
    login.claim(0);
    let error = login.approval_by(&bob(), 1).unwrap_err();
    assert_eq!(error, DecisionError::NotYours);
    let error = login.session().deny(&bob(), at(1)).unwrap_err();
    assert_eq!(error, DecisionError::NotYours);
    let wrong = enter(&login, &bob(), 1).unwrap_err();
    assert_eq!(wrong, WrongCode::ClaimedByAnother);
}

/// better-auth PR #10135: an error about the scope before the check of who it is leaked the scopes of the victim.
#[test]
fn who_it_is_comes_before_what_is_asked() {
    let mut login = Login::new();
    login.claim(0);
    for wanted in ["openid", "openid profile", "admin", ""] {
        let error = login.approval_of(&bob(), &scope(wanted), 1).unwrap_err();
        assert_eq!(error, DecisionError::NotYours);
    }
}

/// better-auth PR #10746: the code was consumed first, minting failed, and the user had to start over.
#[test]
fn a_failure_to_mint_costs_nobody_a_login() {
    let mut login = Login::approved_at(0);
    let reply = login.redeem(1, |redemption| redemption.minting_failed());
    assert_unavailable(&reply, Cause::MintingFailed);
    assert_granted(&login.poll(2).reply, "openid profile");
}

/// ferriskey PR #1236: an approved code gave fresh tokens on every poll.
#[test]
fn a_code_gives_tokens_once() {
    let mut login = Login::approved_at(0);
    assert_granted(&login.poll(1).reply, "openid profile");
    for now in [1, 5001, 60_000, LIFETIME] {
        let reply = login.poll(now).reply;
        assert_eq!(reply.response().status(), 400);
        assert!(matches!(reply.cause(), Cause::Duplicate | Cause::Replay));
    }
}

/// MAS PR #3656, `OpenArtifacts` PR #62: two concurrent polls both redeemed.
#[test]
fn of_two_concurrent_polls_one_redeems() {
    let mut login = Login::approved_at(0);
    let read = login.store.load(&login.codes.key).unwrap().clone();
    let code = login.codes.device_code.clone();
    let store = &mut login.store;
    let (policy, client) = (&login.policy, &login.client);
    // Both read, both mint, then both write.
    let replies: [Result<Reply, _>; 2] = with_poll_of(policy, client, &code, |one| {
        with_poll_of(policy, client, &code, |other| {
            let one = login::redemption(one.decide(Some(&read), at(1)));
            let other = login::redemption(other.decide(Some(&read), at(1)));
            let writes = [store.change(one.change()), store.change(other.change())];
            assert_eq!(writes, [Written::Won, Written::Lost]);
            [
                one.settle(writes[0], &support::tokens()),
                other.settle(writes[1], &support::tokens()),
            ]
        })
    });
    let [one, other] = replies;
    assert_granted(&one.unwrap(), "openid profile");
    assert!(other.is_err(), "nothing to send");
}

/// Abblix #459, vouch #266: a poll wrote the whole record back and erased the approval.
#[test]
fn a_poll_that_read_before_the_approval_and_writes_after_it_erases_nothing() {
    let mut login = Login::new();
    let read = login.store.load(&login.codes.key).unwrap().clone();
    login.approve(1);
    let had = login.form();
    let code = &login.codes.device_code;
    let saved = with_poll_of(&login.policy, &login.client, code, |poll| {
        match poll.decide(Some(&read), at(2)) {
            Polled::Paced(_, pace, _) => pace,
            Polled::Reply(_) | Polled::Redeem(_) => panic!("it was pending"),
        }
    });
    login.set_pace(saved);
    assert_eq!(login.form(), had, "state, version, subject and scope");
    assert_granted(&login.poll(3).reply, "openid profile");
}

/// H2CK/oidc #716: +5 on each early poll and a timestamp that moved on rejection locked out clients that kept the interval.
#[test]
fn a_client_that_polls_at_the_first_interval_for_ever_gets_through() {
    let mut login = Login::new();
    let (mut accepted, mut last, mut now) = (0, 0, 0);
    // A client that ignores slow_down and whose gaps jitter around the interval that it was told first.
    let jitter = [0, -1400, 900, -1300, 400, -2000, 0, 150];
    let mut steps = jitter.into_iter().cycle();
    while now < LIFETIME {
        if login.poll(now).reply.cause() == Cause::Pending {
            assert!(now - last <= 60_000 + 5900, "locked out at {now}");
            (accepted, last) = (accepted + 1, now);
        }
        now += 5000 + steps.next().unwrap();
    }
    assert!(accepted >= 6, "{accepted}");
    // And one that keeps it exactly is never slowed down at all.
    let mut login = Login::new();
    for now in (0..LIFETIME).step_by(5000) {
        assert_pending(&login.poll(now), &pace(now, 5, false));
    }
}

/// Abblix #281: the first poll was throttled.
#[test]
fn the_first_poll_is_free() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
}

/// cli/cli #9370, cli/oauth #111: a fast clock led to loops of `slow_down`, and the client gives up at the second.
#[test]
fn a_client_whose_clock_is_fast_by_30_percent_is_never_slowed_down() {
    let mut login = Login::new();
    let mut now = 0;
    while now < LIFETIME {
        assert_pending(&login.poll(now), &pace(now, 5, false));
        now += 5000 * 10 / 13;
    }
}

/// openid-client PR #824: the client honours `Retry-After`, so `slow_down` says it, with the interval of the body.
#[test]
fn slow_down_says_retry_after() {
    let mut login = Login::new();
    let _ = login.poll(0);
    let reply = login.poll(1).reply;
    let response = reply.response();
    assert_eq!(response.header("retry-after"), Some("10"));
    assert!(response.body().ends_with(r#""interval":10}"#));
    // As does every 503.
    let reply = Reply::store_failed();
    assert_eq!(reply.response().header("retry-after"), Some("5"));
}

/// MAS #5972, #5974; better-auth #6143: codes that cannot be typed, case and dash that matter.
#[test]
fn a_code_is_typed_in_any_case_with_or_without_dashes() {
    let login = Login::new();
    let code = login.codes.user_code.clone();
    assert!(
        code.bytes()
            .all(|own| own == b'-' || b"BCDFGHJKLMNPQRSTVWXZ".contains(&own))
    );
    let plain = code.replace('-', "");
    let (keys, user) = (keys(), alice());
    for typed in [
        code.to_lowercase(),
        plain.clone(),
        plain.to_lowercase(),
        code.replace('-', " "),
        code.replace('-', "\u{2013}"),
        format!("  {code}\n"),
    ] {
        let mut entry = Entry::new(&typed, &user, &keys, &login.policy);
        let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
        assert!(paid.enter(Some(login.session()), NOW).is_ok(), "{typed:?}");
    }
}

/// better-auth #6143: a draw of a byte modulo the alphabet preferred its first letters.
#[test]
fn every_letter_of_the_alphabet_is_as_likely_as_any_other() {
    let policy = policy();
    let (client, keys) = (cli(), keys());
    let mut counts = [0_u32; 26];
    let mut state = 1_u64;
    for _ in 0..4000 {
        let mut octets = [0; Entropy::OCTETS];
        for chunk in octets.chunks_mut(8) {
            // splitmix64, from a fixed seed
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        }
        let request = post("client_id=client_cli");
        let body = support::with_issuing(&policy, request, Some(&client), |issuing| {
            let issuance = issuing.draw(Entropy::from(octets), &keys, NOW).unwrap();
            let reply = issuance.settle(device_flow::server::Inserted::New).unwrap();
            serde_json::from_str::<serde_json::Value>(reply.response().body()).unwrap()
        });
        let body = body.unwrap();
        let code = body["user_code"].as_str().unwrap();
        for letter in code.bytes().filter(u8::is_ascii_uppercase) {
            counts[usize::from(letter - b'A')] += 1;
        }
    }
    let letters = UserCodeShape::CONSONANTS.bytes();
    for letter in letters {
        // 32,000 letters of 20: 1,600 each, with a standard deviation of 39.
        let count = counts[usize::from(letter - b'A')];
        assert!((1400..=1800).contains(&count), "{count}");
    }
    assert_eq!(counts.iter().sum::<u32>(), 32_000);
}

/// Abblix PR #165: a success refilled the guess budget of its source.
#[test]
fn a_right_code_costs_a_guess_and_refills_nothing() {
    let mut login = Login::new();
    let (keys, user) = (keys(), alice());
    let pay = |store: &mut Memory, typed: &str| -> Result<(), Spent> {
        let policy = policy();
        let mut entry = Entry::new(typed, &user, &keys, &policy);
        let stored = store.load_quota(entry.quota_key());
        let guess = entry.pay(stored, NOW)?;
        assert_eq!(store.change_quota(guess.change()), Written::Won);
        assert!(guess.settle(Written::Won).is_ok());
        Ok(())
    };
    for _ in 0..4 {
        pay(&mut login.store, "BBBB-BBBB").unwrap();
    }
    // The fifth is right: claimed, approved, redeemed.
    login.approve(0);
    assert_granted(&login.poll(0).reply, "openid profile");
    assert!(pay(&mut login.store, "BBBB-BBBB").is_err());
}

/// wso2 #21835, Duende `IdentityServer4` #3198: tables grew without clean-up.
#[test]
fn every_record_has_a_purge_time() {
    let end = at(LIFETIME + RETENTION);
    let mut logins = [Login::new(), Login::new(), Login::approved_at(0)];
    logins[1].deny(0);
    let _ = logins[2].poll(0);
    for mut login in logins {
        assert_eq!(login.session().purge_at(), end);
        assert_eq!(login.store.purge(end), 1);
        assert!(login.store.is_empty());
    }
    // Quotas too: nothing is left of one that says no more than none.
    let mut login = Login::new();
    login.claim(0);
    let (policy, keys, user) = (policy(), keys(), alice());
    let entry = Entry::new("", &user, &keys, &policy);
    let quota = login.store.load_quota(entry.quota_key()).unwrap();
    let _ = login
        .store
        .purge(quota.purge_at() - time::Duration::MILLISECOND);
    assert!(login.store.load_quota(entry.quota_key()).is_some());
    let _ = login.store.purge(quota.purge_at());
    assert!(login.store.load_quota(entry.quota_key()).is_none());
}

/// `IdentityServer4` #2870: a store in the memory of each server of a farm gave `invalid_grant` at random.
#[test]
fn servers_that_share_a_store_share_every_login() {
    // Each server has a policy, a registration and keys of its own; what is stored travels in its stored form.
    let mut login = Login::new();
    login.approve(0);
    let stored = serde_json::to_string(login.session()).unwrap();
    let read: Session = serde_json::from_str(&stored).unwrap();
    let stored = Stored {
        pace: None,
        session: read,
    };
    let (policy, client) = (policy(), cli());
    let code = &login.codes.device_code;
    let (reply, change) = with_poll_of(&policy, &client, code, |poll| {
        let redemption = login::redemption(poll.decide(Some(&stored), at(1)));
        let change = redemption.change().clone();
        (
            redemption.settle(Written::Won, &support::tokens()).unwrap(),
            change,
        )
    });
    assert_granted(&reply, "openid profile");
    // The change of the one server wins on the record of the other.
    login.write(&change);
    assert_eq!(login.status(), Status::Redeemed);
}

/// The same report, from the other side: a store that cannot answer is no proof that a code is unknown.
#[test]
fn a_store_that_fails_does_not_end_a_login() {
    let reply = Reply::store_failed();
    assert_eq!(reply.response().status(), 503);
    assert!(!reply.response().body().contains("invalid_grant"));
}

/// fosite's own suite expected `authorization_pending` for a code that had expired an hour ago.
#[test]
fn an_hour_after_expiry_a_code_is_not_pending() {
    let policy = builder().retention(Duration::from_hours(2)).build();
    let mut login = Login::of(policy.unwrap(), cli());
    let reply = login.poll(LIFETIME + 3_600_000).reply;
    assert_expired(&reply, Cause::Expired);
    assert!(
        reply
            .response()
            .body()
            .contains(r#""error":"expired_token""#)
    );
}

/// oauth2-rs #218, openid-client #575: servers sent errors with status 200.
#[test]
fn no_error_has_status_200() {
    let mut login = Login::new();
    let mut replies = vec![login.poll(0).reply, login.poll(1).reply];
    replies.push(login.poll_as(&backend(), 2).reply);
    replies.push(login.poll(LIFETIME).reply);
    let mut denied = Login::new();
    denied.deny(0);
    replies.push(denied.poll(1).reply);
    replies.push(Reply::store_failed());
    replies.push(Login::approved_at(0).redeem(1, |redemption| redemption.minting_failed()));
    for reply in replies {
        assert!(reply.response().status() >= 400);
        assert!(reply.response().body().starts_with(r#"{"error":""#));
    }
}

/// oauth2-rs #191, openid-client #478: servers sent numbers as strings.
#[test]
fn numbers_are_numbers() {
    let (policy, client, keys) = (policy(), cli(), keys());
    let request = post("client_id=client_cli");
    let reply = support::with_issuing(&policy, request, Some(&client), |issuing| {
        let issuance = issuing.draw(support::entropy(1), &keys, NOW).unwrap();
        issuance.settle(device_flow::server::Inserted::New).unwrap()
    });
    let (_, _, body) = bytes(&reply.unwrap());
    assert!(
        body.ends_with(r#""expires_in":300,"interval":5}"#),
        "{body}"
    );
    let mut login = Login::approved_at(0);
    let tokens = support::tokens().expires_in(Duration::from_mins(5));
    let reply = login.redeem(1, |redemption| redemption.settle(Written::Won, &tokens));
    assert!(
        reply
            .unwrap()
            .response()
            .body()
            .contains(r#""expires_in":300"#)
    );
    login = Login::new();
    let _ = login.poll(0);
    assert!(
        login
            .poll(1)
            .reply
            .response()
            .body()
            .contains(r#""interval":10"#)
    );
}

/// socket-cli #1507: an interval that the server did not send became a tight loop. This server always sends it.
#[test]
fn the_interval_is_always_sent() {
    for interval in [1, 5, 60] {
        let policy = builder()
            .interval(Duration::from_secs(interval))
            .cap(Duration::from_mins(1));
        let (policy, client, keys) = (policy.build().unwrap(), cli(), keys());
        let request = post("client_id=client_cli");
        let reply = support::with_issuing(&policy, request, Some(&client), |issuing| {
            let issuance = issuing.draw(support::entropy(1), &keys, NOW).unwrap();
            issuance.settle(device_flow::server::Inserted::New).unwrap()
        });
        let (_, _, body) = bytes(&reply.unwrap());
        assert!(
            body.ends_with(&format!(r#","interval":{interval}}}"#)),
            "{body}"
        );
    }
}

/// openclaw PR #103434: the interval of `slow_down` lowered the floor. Here it never is below the one told before.
#[test]
fn the_interval_of_slow_down_is_above_the_one_told_before() {
    for interval in [1, 7, 30, 60] {
        let policy = builder()
            .interval(Duration::from_secs(interval))
            .cap(Duration::from_mins(1));
        let mut login = Login::of(policy.build().unwrap(), cli());
        let mut told = interval;
        let _ = login.poll(0);
        for now in 0..3 {
            if let Some(seconds) = login.poll(now).reply.response().header("retry-after") {
                let seconds: u64 = seconds.parse().unwrap();
                assert!(seconds >= told && seconds <= 60);
                told = seconds;
            }
        }
    }
}

/// loopover #6792, hyperframes #2836: a 429 ended the login. This server never answers a poll with one for polling fast.
#[test]
fn polling_fast_is_slow_down_never_429() {
    let mut login = Login::new();
    for now in 0..100 {
        let reply = login.poll(now).reply;
        assert_eq!(reply.response().status(), 400);
        assert!(matches!(reply.cause(), Cause::Pending | Cause::TooFast));
    }
}

/// ADAL #825: one last poll at the deadline. An approval of the last second can still be fetched by it.
#[test]
fn an_approval_of_the_last_second_is_not_lost() {
    let mut login = Login::new();
    assert_pending(&login.poll(LIFETIME - 2), &pace(LIFETIME - 2, 5, false));
    login.approve(LIFETIME - 1);
    assert_granted(&login.poll(LIFETIME - 2 + 5000).reply, "openid profile");
}
