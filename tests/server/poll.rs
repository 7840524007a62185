//! Table C of the server half, row by row: one stored session, one request, one decision.
//!
//! Defaults: an interval of 5 s, so the tolerance is 1.25 s, and a poll is accepted from 3.75 s on; a lifetime of 300 s; a cap of 60 s.

use core::time::Duration;

use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Consent, GrantRefusal, HostValue, Policy, PolicyOptions, Reply, Status,
};
use device_flow::server::{TokenError, Tokens};
use serde_json::{Value, json};

use crate::support::login::{
    self, Answer, LIFETIME, Login, REDEEM_TIME, RETENTION, Wrote, assert_denied, assert_expired,
    assert_granted, assert_invalid_grant, assert_pending, assert_slow_down, assert_used, at, bytes,
    invalid_grant_bytes, pace, pace_of,
};
use crate::support::{
    self, ACCESS_TOKEN, NO_CODE, Question, Says, alice, assert_refused, assert_reply,
    assert_unavailable, backend, cli, encoded, policy, policy_of, scope, tokens,
};

/// The first moment, in milliseconds, at which a poll after a poll at 0 is not early: the interval of 5 s minus a quarter of it.
const LEAST_GAP: i64 = 3750;

/// Returns a login with this interval and this cap, in seconds.
fn paced(interval: u64, cap: u64) -> Login {
    let policy = policy_of(PolicyOptions {
        interval: Duration::from_secs(interval),
        cap: Duration::from_secs(cap),
        ..PolicyOptions::default()
    });
    Login::of(policy, cli())
}

/// Returns one login in each state, with the state.
fn in_every_state() -> [(Status, Login); 6] {
    let states = [
        Status::Pending,
        Status::Claimed,
        Status::Approved,
        Status::Denied,
        Status::Active,
        Status::Ended,
    ];
    states.map(|status| {
        let mut login = Login::new();
        match status {
            Status::Pending => {}
            Status::Claimed => login.claim(0),
            Status::Approved => login.approve(0),
            Status::Denied => login.deny(0),
            Status::Active => {
                login.approve(0);
                assert_granted(&login.poll(0).reply, "openid profile");
            }
            Status::Ended => {
                login.approve(0);
                login.withdraw();
            }
        }
        assert_eq!(login.status(), status);
        (status, login)
    })
}

/// Asserts that a poll wrote nothing. Returns its reply.
#[track_caller]
fn refused(answer: Answer) -> Reply {
    assert_eq!(answer.wrote, Wrote::Nothing);
    answer.reply
}

/// Returns the bytes of the response to a poll with a code that was never issued.
fn unknown_code() -> (u16, Vec<(&'static str, String)>, String) {
    bytes(&Login::new().poll_with(&cli(), NO_CODE, 0).reply)
}

/// Returns whether the session was looked up in the last exchange.
fn looked_up(login: &Login) -> bool {
    login.host.count(Question::Load) > 0
}

// C1: a store operation failed, or the stored form has an unknown version or is corrupt. The answer is 503, never `invalid_grant`.

#[test]
fn c1_a_store_that_failed_is_answered_503_and_when_to_come_back() {
    for mut login in [Login::new(), Login::approved_at(0)] {
        login.host.fails = Some(Question::Load);
        assert_unavailable(&refused(login.poll(0)), Cause::StoreFailed);
        login.host.fails = None;
        let causes = [Cause::Pending, Cause::Granted];
        assert!(
            causes.contains(&login.poll(1).reply.cause()),
            "nothing was lost"
        );
    }
}

#[test]
fn c1_a_stored_form_of_an_unknown_version_or_corrupt_is_no_session_to_decide_on() {
    let form = Login::new().form();
    for (member, value) in [
        ("v", json!(1)),
        ("v", json!(3)),
        ("version", json!(0)),
        ("state", json!(1)),
    ] {
        let mut stored = form.clone();
        stored[member] = value;
        // The host gets an error and answers `Unavailable`, because it has no session to decide on.
        let read = serde_json::from_value::<device_flow::server::Session>(stored);
        assert!(read.is_err(), "{member} was accepted");
    }
}

#[test]
fn c1_a_session_under_another_key_is_a_fault_of_the_store() {
    let mut login = Login::new();
    let other = login.host.issue(&login.server, &cli(), 2, at(0));
    let body = support::poll_body(cli().id(), &login.codes.device_code);
    let mut exchange = login.server.token(support::post(&body), "", at(0));
    let reply = loop {
        match exchange.next() {
            device_flow::server::Next::Client(_, ask) => ask.answer(Ok(Some(&login.client))),
            device_flow::server::Next::Load(_, ask) => {
                ask.answer(Ok(login.host.store.load(&other.key)));
            }
            device_flow::server::Next::Done(reply) => break reply,
            next => panic!("{next:?}"),
        }
    };
    assert_unavailable(&reply, Cause::StoreFailed);
}

// C2: the code is unknown, purged or malformed.

#[test]
fn c2_an_unknown_code_is_invalid_grant() {
    let mut login = Login::new();
    let reply = refused(login.poll_with(&cli(), NO_CODE, 0));
    assert!(looked_up(&login));
    assert_invalid_grant(&reply, Cause::UnknownCode);
}

#[test]
fn c2_a_purged_code_is_invalid_grant() {
    let mut login = Login::new();
    let purge_at = LIFETIME + RETENTION;
    assert_eq!(login.host.store.purge(at(purge_at - 1)), 0);
    assert_expired(&login.poll(purge_at - 1).reply, Cause::Expired);
    assert_eq!(login.host.store.purge(at(purge_at)), 1);
    assert_invalid_grant(&refused(login.poll(purge_at)), Cause::UnknownCode);
    assert!(login.host.store.is_empty(), "a poll never inserts");
}

#[test]
fn c2_a_malformed_code_is_invalid_grant_without_a_look_up() {
    let mut login = Login::new();
    let long = "A".repeat(5000);
    let one_more = format!("{NO_CODE}A");
    let spaces = encoded(" ").repeat(42);
    for code in ["x", &NO_CODE[1..], &one_more, &long, &spaces, "%C3%A9"] {
        let reply = refused(login.poll_with(&cli(), code, 0));
        assert!(!looked_up(&login), "there is nothing to look up");
        assert_invalid_grant(&reply, Cause::MalformedCode);
    }
}

#[test]
fn c2_a_code_is_the_same_with_escapes() {
    let mut login = Login::new();
    let code = encoded(&login.codes.device_code);
    assert_pending(&login.poll_with(&cli(), &code, 0), &pace(0, 5, false));
}

// C3: the code was issued to another client. That client changes nothing and learns nothing.

#[test]
fn c3_a_foreign_client_gets_the_bytes_of_an_unknown_code_in_every_state() {
    for (status, mut login) in in_every_state() {
        for now in [0, 1, LIFETIME - 1, LIFETIME, LIFETIME + RETENTION] {
            let had = (login.form(), login.pace());
            let reply = refused(login.poll_as(&backend(), now));
            assert_invalid_grant(&reply, Cause::ForeignClient);
            assert_eq!(bytes(&reply), unknown_code(), "{status:?} at {now}");
            assert_eq!((login.form(), login.pace()), had);
        }
    }
}

#[test]
fn c3_a_foreign_client_burns_nothing() {
    let mut login = Login::new();
    let _ = login.poll_as(&backend(), 0);
    let _ = login.poll_as(&backend(), 1);
    // The next poll of the right client is still its first poll, and an approval is still there.
    assert_pending(&login.poll(2), &pace(2, 5, false));
    login.approve(3);
    let _ = login.poll_as(&backend(), 4);
    assert_granted(&login.poll(5).reply, "openid profile");
}

#[test]
fn c3_the_client_is_known_by_its_id_whatever_its_registration_is_now() {
    // The registration as it is now counts. This one is another value with the same id.
    let mut login = Login::new();
    let rebuilt = cli().default_scope(Scope::empty());
    assert_pending(&login.poll_as(&rebuilt, 0), &pace(0, 5, false));
}

// C4: the code was redeemed.

fn redeemed_at(now: i64) -> Login {
    let mut login = Login::approved_at(now);
    let answer = login.poll(now);
    assert_granted(&answer.reply, "openid profile");
    login
}

#[test]
fn c4_within_the_retry_window_a_used_code_is_a_duplicate() {
    let mut login = redeemed_at(1000);
    for millis in [0, 1, 1999] {
        let reply = refused(login.poll(1000 + millis));
        assert_used(&reply, Cause::Duplicate, u64::try_from(millis).unwrap());
        assert_eq!(login.status(), Status::Active);
    }
}

#[test]
fn c4_after_the_retry_window_a_used_code_is_a_replay_with_its_age_and_ends_the_login() {
    for millis in [2000, 2001, LIFETIME - 1, LIFETIME, LIFETIME + 290_000] {
        let mut login = redeemed_at(1000);
        let version = login.session().version();
        let answer = login.poll(1000 + millis);
        assert_eq!(answer.wrote, Wrote::Session);
        assert_used(&answer.reply, Cause::Replay, u64::try_from(millis).unwrap());
        assert_eq!(bytes(&answer.reply), invalid_grant_bytes());
        assert_eq!(login.status(), Status::Ended);
        assert_eq!(login.session().version(), version + 1);
        // After that, C5 decides. So the alarm is raised only once.
        assert_invalid_grant(&refused(login.poll(1001 + millis)), Cause::Ended);
    }
}

/// Lesson: a retry window that was longer than the interval hid a stolen code, because the victim's next poll counted as a duplicate.
#[test]
fn c4_a_device_whose_code_was_redeemed_by_a_thief_reveals_it_at_its_next_poll() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    login.approve(1);
    assert_granted(&login.poll(2).reply, "openid profile"); // the thief's poll
    assert_eq!(login.poll(LEAST_GAP).reply.cause(), Cause::Replay);
    assert_eq!(login.status(), Status::Ended);
}

#[test]
fn c4_a_clock_that_went_back_makes_no_replay() {
    // A replay ends the login, so a reading from before the redemption must not count as one.
    let mut login = redeemed_at(20_000);
    let reply = refused(login.poll(5000));
    assert_used(&reply, Cause::Duplicate, 0);
}

#[test]
fn c4_the_retry_window_is_the_policys() {
    let policy = policy_of(PolicyOptions {
        retry_window: Some(Duration::from_millis(3500)),
        ..PolicyOptions::default()
    });
    let mut login = Login::of(policy, cli());
    login.approve(0);
    let _ = login.poll(0);
    let reply = refused(login.poll(3499));
    assert_used(&reply, Cause::Duplicate, 3499);
    let reply = login.poll(3500).reply;
    assert_used(&reply, Cause::Replay, 3500);
}

#[test]
fn c4_a_used_code_is_unknown_once_purged() {
    let mut login = redeemed_at(0);
    let purge_at = LIFETIME + RETENTION;
    assert_eq!(login.host.store.purge(at(purge_at - 1)), 0);
    assert_eq!(login.host.store.purge(at(purge_at)), 1);
    assert_invalid_grant(&refused(login.poll(purge_at)), Cause::UnknownCode);
}

#[test]
fn c4_the_end_of_a_replayed_login_that_lost_its_write_is_tried_three_times() {
    for losses in 0..3 {
        let mut login = redeemed_at(0);
        login.host.says.extend([Says::Conflict].repeat(losses));
        assert_used(&login.poll(5000).reply, Cause::Replay, 5000);
        assert_eq!(login.status(), Status::Ended);
    }
    let mut login = redeemed_at(0);
    login.host.says.extend([Says::Conflict; 3]);
    assert_unavailable(&login.poll(5000).reply, Cause::Contended);
    assert_eq!(login.status(), Status::Active);
    login.host.says.push_back(Says::UnknownNotDone);
    assert_unavailable(&login.poll(5001).reply, Cause::OutcomeUnknown);
    assert_eq!(login.poll(5002).reply.cause(), Cause::Replay);
}

// C5: the login has ended.

#[test]
fn c5_a_withdrawn_approval_is_invalid_grant_at_any_time() {
    let mut login = Login::approved_at(0);
    login.withdraw();
    for now in [0, 0, 1, LIFETIME - 1, LIFETIME, LIFETIME + RETENTION - 1] {
        let reply = refused(login.poll(now));
        assert_invalid_grant(&reply, Cause::Ended);
        assert_eq!(bytes(&reply), invalid_grant_bytes());
        assert_eq!(login.status(), Status::Ended);
    }
}

// C6: the user denied. The poll may be early, and the code may have expired.

#[test]
fn c6_a_denial_is_told_fast_or_slow_before_and_after_expiry_until_purged() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    login.deny(1);
    let purge_at = LIFETIME + RETENTION;
    for now in [1, 1, 2, 5000, LIFETIME - 1, LIFETIME, purge_at - 1] {
        assert_eq!(login.host.store.purge(at(now)), 0);
        assert_denied(&refused(login.poll(now)));
        assert_eq!(login.status(), Status::Denied);
    }
    assert_eq!(login.host.store.purge(at(purge_at)), 1);
    assert_invalid_grant(&refused(login.poll(purge_at)), Cause::UnknownCode);
}

// C7: the session is pending, and the code has expired.

#[test]
fn c7_a_pending_code_is_expired_from_the_moment_of_its_expiry() {
    let mut login = Login::new();
    assert_pending(&login.poll(LIFETIME - 1), &pace(LIFETIME - 1, 5, false));
    // At the exact moment of its expiry a code is expired. These polls are early, too, but `slow_down` is sent only while the code is
    // pending.
    for now in [LIFETIME, LIFETIME, LIFETIME + 1, LIFETIME + RETENTION] {
        assert_expired(&refused(login.poll(now)), Cause::Expired);
    }
}

#[test]
fn c7_the_first_poll_may_be_too_late() {
    let mut login = Login::new();
    assert_expired(&refused(login.poll(LIFETIME)), Cause::Expired);
    assert_eq!(login.pace(), None);
}

#[test]
fn c7_a_claim_does_not_outlive_the_code() {
    let mut login = Login::new();
    login.claim(LIFETIME - 1);
    assert_pending(&login.poll(LIFETIME - 1), &pace(LIFETIME - 1, 5, false));
    assert_expired(&refused(login.poll(LIFETIME)), Cause::Expired);
}

#[test]
fn c7_expiry_is_derived_from_the_reading_and_not_stored() {
    let mut login = Login::new();
    let had = login.form();
    assert_expired(&refused(login.poll(LIFETIME)), Cause::Expired);
    assert_eq!(login.form(), had);
    // The clock goes back. The code is pending again, because its expiry was not stored.
    assert_pending(&login.poll(LIFETIME - 1), &pace(LIFETIME - 1, 5, false));
}

// C8: the session is approved, but the approval can no longer be redeemed.

#[test]
fn c8_an_approval_in_good_time_is_redeemable_until_the_code_expires() {
    for approved in [0, 1000, LIFETIME - REDEEM_TIME] {
        let mut late = Login::approved_at(approved);
        let had = late.form();
        for now in [LIFETIME, LIFETIME + 1, LIFETIME + RETENTION] {
            assert_expired(&refused(late.poll(now)), Cause::ApprovalExpired);
            assert_eq!(late.form(), had);
        }
        let mut in_time = Login::approved_at(approved);
        assert_granted(&in_time.poll(LIFETIME - 1).reply, "openid profile");
    }
}

#[test]
fn c8_an_approval_in_the_last_second_is_redeemable_for_the_cap_and_one_interval() {
    for approved in [LIFETIME - 1, LIFETIME - 1000, LIFETIME - REDEEM_TIME + 1] {
        let mut login = Login::approved_at(approved);
        assert_eq!(
            login.session().purge_at(),
            at(approved + REDEEM_TIME + RETENTION),
            "moved by the approval"
        );
        let reply = refused(login.poll(approved + REDEEM_TIME));
        assert_expired(&reply, Cause::ApprovalExpired);
        // The expiry is not stored, so the approval can be redeemed if the clock goes back by a millisecond.
        assert_granted(
            &login.poll(approved + REDEEM_TIME - 1).reply,
            "openid profile",
        );
    }
}

#[test]
fn c8_a_device_whose_interval_is_at_the_cap_still_gets_its_tokens() {
    let mut login = paced(30, 60);
    login.set_pace(pace_of(LIFETIME - 1000, 60, true));
    login.approve(LIFETIME - 1);
    let until = LIFETIME - 1 + 90_000;
    assert_expired(&refused(login.poll(until)), Cause::ApprovalExpired);
    assert_granted(&login.poll(until - 1).reply, "openid profile");
}

// C9: the clock reads earlier than at the last accepted poll.

#[test]
fn c9_a_clock_that_went_back_makes_nobody_early() {
    for back in [1, 3000, 100_000] {
        let mut login = Login::new();
        login.set_pace(pace_of(100_000, 5, false));
        let now = 100_000 - back;
        assert_pending(&login.poll(now), &pace(now, 5, false));
    }
}

#[test]
fn c9_a_clock_that_went_back_keeps_the_interval_and_allows_one_more_widening() {
    let mut login = Login::new();
    login.set_pace(pace_of(100_000, 10, true));
    assert_pending(&login.poll(99_999), &pace(99_999, 10, false));
    // From then on, the time since the last accepted poll counts from the new reading.
    assert_slow_down(&login.poll(99_999 + 7499), 15, &pace(99_999, 15, true));
}

// C10: this is the first poll, or the pace is unknown.

#[test]
fn c10_the_first_poll_is_free_even_at_the_moment_of_issuance() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    let mut login = paced(60, 60);
    assert_pending(&login.poll(1), &pace(1, 60, false));
}

#[test]
fn c10_without_a_pace_nobody_is_early() {
    let mut login = Login::new();
    let _ = login.poll(0);
    let _ = login.poll(1);
    let session = login.session().clone();
    login.host.store = device_flow::memory::Memory::new();
    let _ = login.host.store.insert(&session);
    assert_pending(&login.poll(2), &pace(2, 5, false));
}

// C11: the poll is not early.

#[test]
fn c11_a_gap_of_the_interval_less_the_tolerance_is_accepted_and_a_millisecond_less_is_early() {
    // The tolerance is a second, or a quarter of the interval in force if that is more. Each pair is an interval in seconds and the least
    // gap in milliseconds.
    let gaps = [
        (2, 1000),
        (3, 2000),
        (4, 3000),
        (5, 3750),
        (6, 4500),
        (10, 7500),
        (15, 11_250),
        (60, 45_000),
    ];
    for (interval, gap) in gaps {
        let mut login = Login::new();
        login.set_pace(pace_of(1000, interval, false));
        let on_time = 1000 + gap;
        let early = login.poll(on_time - 1).reply.cause();
        // C20 decides if the gap is a second.
        let expected = if gap > 1000 {
            Cause::TooFast
        } else {
            Cause::Repeated
        };
        assert_eq!(early, expected, "{interval}");
        login.set_pace(pace_of(1000, interval, false));
        assert_pending(&login.poll(on_time), &pace(on_time, interval, false));
    }
}

#[test]
fn c11_an_interval_within_the_tolerance_makes_nobody_early() {
    let mut login = paced(1, 60);
    assert_pending(&login.poll(0), &pace(0, 1, false));
    assert_pending(&login.poll(0), &pace(0, 1, false));
    assert_pending(&login.poll(1), &pace(1, 1, false));
}

#[test]
fn c11_an_accepted_poll_keeps_the_interval_and_allows_one_more_widening() {
    let mut login = Login::new();
    login.set_pace(pace_of(0, 10, true));
    assert_pending(&login.poll(7500), &pace(7500, 10, false));
    assert_pending(&login.poll(20_000), &pace(20_000, 10, false));
    assert_slow_down(&login.poll(21_000), 15, &pace(20_000, 15, true));
}

#[test]
fn c11_a_claimed_session_is_pending_like_any_other() {
    let mut login = Login::new();
    login.claim(0);
    assert_pending(&login.poll(0), &pace(0, 5, false));
    assert_slow_down(&login.poll(1000), 10, &pace(0, 10, true));
    assert_slow_down(&login.poll(1001), 10, &Wrote::Nothing);
    assert_pending(&login.poll(7500), &pace(7500, 10, false));
}

// C12: the poll is early, and the interval is under the cap and was not widened since the last accepted poll.

/// > the interval MUST be increased by 5 seconds for this and all subsequent requests (RFC 8628, section 3.5)
#[test]
fn c12_an_early_poll_widens_the_interval_once() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    let early = LEAST_GAP - 1;
    // The last accepted poll stays the same.
    assert_slow_down(&login.poll(early), 10, &pace(0, 10, true));
    assert_slow_down(&login.poll(early + 1), 10, &Wrote::Nothing);
    // The wider interval counts from the accepted poll: the next one is accepted 7.5 s after it, not 7.5 s after the early poll.
    assert_slow_down(&login.poll(7499), 10, &Wrote::Nothing);
    assert_pending(&login.poll(7500), &pace(7500, 10, false));
}

#[test]
fn c12_the_interval_grows_with_each_widening_up_to_the_cap() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    let mut last = 0;
    for interval in (10..=60).step_by(5) {
        assert_slow_down(
            &login.poll(last + 1000),
            interval,
            &pace(last, interval, true),
        );
        let gap = i64::from(interval) * 750; // minus a quarter
        assert_pending(&login.poll(last + gap), &pace(last + gap, interval, false));
        last += gap;
    }
    assert!(last < LIFETIME, "or the last poll would have expired");
    assert_slow_down(&login.poll(last + 1000), 60, &Wrote::Nothing);
}

#[test]
fn c12_a_step_that_passes_the_cap_ends_at_the_cap() {
    let mut login = paced(5, 8);
    let _ = login.poll(0);
    assert_slow_down(&login.poll(1000), 8, &pace(0, 8, true));
}

#[test]
fn c12_the_step_is_five_seconds_whatever_the_interval() {
    let mut login = paced(7, 60);
    assert_pending(&login.poll(0), &pace(0, 7, false));
    assert_slow_down(&login.poll(5249), 12, &pace(0, 12, true));
}

// C20: less than a second after the last accepted poll.

#[test]
fn c20_a_poll_within_a_second_of_the_last_accepted_one_is_pending_and_changes_nothing() {
    for (interval, widened) in [(5, false), (10, true), (60, false)] {
        let mut login = Login::new();
        login.set_pace(pace_of(1000, interval, widened));
        for now in [1000, 1001, 1999] {
            let answer = login.poll(now);
            assert_eq!(answer.reply.cause(), Cause::Repeated);
            assert_eq!(answer.wrote, Wrote::Nothing);
            let body = support::error_body("authorization_pending", "the user has not decided yet");
            assert_reply(&answer.reply, Cause::Repeated, 400, &[], &body);
            assert_eq!(login.pace(), Some(pace_of(1000, interval, widened)));
        }
        assert_eq!(login.poll(2000).reply.cause(), Cause::TooFast);
    }
}

/// golang.org/x/oauth2 sends each poll twice by default: first with Basic and an empty secret.
#[test]
fn c20_a_client_that_sends_each_poll_twice_is_never_slowed_down() {
    let mut login = Login::new();
    for turn in 0..50 {
        assert_eq!(login.poll(turn * 5000).reply.cause(), Cause::Pending);
        assert_eq!(login.poll(turn * 5000 + 200).reply.cause(), Cause::Repeated);
    }
}

// C13: the poll is early, but the interval was widened already or is at the cap.

#[test]
fn c13_an_early_poll_after_a_widening_writes_nothing() {
    let mut login = Login::new();
    login.set_pace(pace_of(1000, 10, true));
    for now in [2000, 2001, 5000, 8499] {
        assert_slow_down(&login.poll(now), 10, &Wrote::Nothing);
        assert_eq!(login.pace(), Some(pace_of(1000, 10, true)));
    }
    assert_pending(&login.poll(8500), &pace(8500, 10, false));
}

#[test]
fn c13_at_the_cap_nothing_widens_and_nothing_is_written() {
    let mut login = Login::new();
    login.set_pace(pace_of(0, 60, false));
    assert_slow_down(&login.poll(44_999), 60, &Wrote::Nothing);
    let mut login = paced(5, 5);
    let _ = login.poll(0);
    assert_slow_down(&login.poll(3749), 5, &Wrote::Nothing);
    assert_pending(&login.poll(3750), &pace(3750, 5, false));
}

#[test]
fn c13_an_interval_over_a_cap_that_was_lowered_is_kept() {
    // The policy changed between two polls. The device was told 60 s, and an interval is never lowered.
    let mut login = paced(5, 10);
    login.set_pace(pace_of(0, 60, false));
    assert_slow_down(&login.poll(1000), 60, &Wrote::Nothing);
}

// C14: a check by the host failed.

/// Polls while the host refuses to mint for this reason. Returns the answer.
fn refusing(login: &mut Login, now: i64, refusal: GrantRefusal) -> Answer {
    login.host.refusal = Some(refusal);
    let answer = login.poll(now);
    login.host.refusal = None;
    answer
}

#[test]
fn c14_a_failed_check_of_the_host_is_its_own_error_and_consumes_nothing() {
    let mut login = Login::approved_at(0);
    let had = (login.form(), login.pace());
    let error = GrantRefusal::error("invalid_target", "the resource is not known here").unwrap();
    assert_refused(
        &refused(refusing(&mut login, 1, error)),
        Cause::HostCheck,
        "invalid_target",
        "the resource is not known here",
    );
    assert_eq!((login.form(), login.pace()), had);
    assert_granted(&login.poll(2).reply, "openid profile");
}

#[test]
fn c14_the_hosts_error_may_ask_for_401() {
    let mut login = Login::approved_at(0);
    let error = GrantRefusal::error("use_dpop_nonce", "a nonce is required").unwrap();
    let reply = refused(refusing(&mut login, 1, error.unauthorized()));
    let body = r#"{"error":"use_dpop_nonce","error_description":"a nonce is required"}"#;
    assert_reply(&reply, Cause::HostCheck, 401, &[], body);
}

/// > Values for the "error" parameter MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E.
/// > (RFC 6749, section 5.2)
#[test]
fn c14_the_hosts_error_has_the_characters_of_one() {
    for (error, description) in [
        ("", "text"),
        ("a\"b", ""),
        ("a\\b", ""),
        ("a\nb", ""),
        ("é", ""),
        ("a\u{7f}", ""),
        ("a", "\""),
        ("a", "\\"),
        ("a", "\0"),
        ("a", "é"),
    ] {
        assert!(
            GrantRefusal::error(error, description).is_err(),
            "{error:?}"
        );
    }
    assert!(GrantRefusal::error(" !#[]~", " !#[]~").is_ok());
}

// C15: the subject or the consent is no longer valid, or the client may no longer ask for anything that was granted.

#[test]
fn c15_a_subject_that_is_gone_is_invalid_grant_and_ends_the_login_for_good() {
    let mut login = Login::approved_at(0);
    let version = login.session().version();
    let answer = refusing(&mut login, 1, GrantRefusal::consent_gone());
    assert_eq!(answer.wrote, Wrote::Session);
    assert_invalid_grant(&answer.reply, Cause::ConsentGone);
    assert_eq!(bytes(&answer.reply), unknown_code());
    assert_eq!(login.status(), Status::Ended);
    assert_eq!(login.session().version(), version + 1);
    assert_eq!(login.session().claimant(), Some(&alice()));
    assert_invalid_grant(&refused(login.poll(2)), Cause::Ended);
}

#[test]
fn c15_what_a_client_lost_is_not_granted() {
    let mut login = Login::approved_at(0);
    let narrowed = cli().allow_scope(scope("openid email"));
    let answer = login.poll_as(&narrowed, 1);
    assert_granted(&answer.reply, "openid");
    assert_eq!(login.host.minted, [("openid".to_owned(), false)]);
    assert_eq!(login.status(), Status::Active);
}

#[test]
fn c15_a_client_that_lost_all_that_was_granted_ends_the_login() {
    let mut login = Login::approved_at(0);
    let answer = login.poll_as(&cli().allow_scope(scope("email")), 1);
    assert_eq!(answer.wrote, Wrote::Session);
    assert_invalid_grant(&answer.reply, Cause::ConsentGone);
    assert!(login.host.minted.is_empty());
    assert_eq!(login.status(), Status::Ended);
}

#[test]
fn c15_says_nothing_before_the_write_is_committed() {
    let mut login = Login::approved_at(0);
    login.host.says.push_back(Says::UnknownNotDone);
    let unknown = refusing(&mut login, 1, GrantRefusal::consent_gone());
    assert_unavailable(&unknown.reply, Cause::OutcomeUnknown);
    assert_eq!(login.status(), Status::Approved);
}

// C16: minting failed.

#[test]
fn c16_a_failure_to_mint_is_503_and_consumes_nothing() {
    let mut login = Login::approved_at(0);
    let had = (login.form(), login.pace());
    let reply = refused(refusing(&mut login, 1, GrantRefusal::failed()));
    assert_unavailable(&reply, Cause::MintingFailed);
    assert_eq!((login.form(), login.pace()), had);
    assert_granted(&login.poll(2).reply, "openid profile");
}

// C17: a success, which is sent only after the write was committed.

#[test]
fn c17_an_approval_is_redeemed_by_a_guarded_write() {
    let mut login = Login::approved_at(1000);
    let mut wanted = login.form();
    let version = login.session().version();
    let answer = login.poll(2000);
    assert_granted(&answer.reply, "openid profile");
    assert_eq!(answer.wrote, Wrote::Session);
    // The state, the version and the user key changed, and nothing else.
    let approval = wanted["state"]["approved"].take();
    let redeemed_at = login::stored_at(2000);
    wanted["state"] = json!({
        "active": { "approval": approval, "redeemed_at": redeemed_at, "refresh": null }
    });
    wanted["version"] = json!(version + 1);
    wanted["user_key"] = json!(null);
    assert_eq!(login.form(), wanted);
    assert_eq!(login.status(), Status::Active);
}

#[test]
fn c17_an_early_poll_of_an_approved_session_succeeds_and_leaves_the_pace() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    assert_slow_down(&login.poll(1000), 10, &pace(0, 10, true));
    login.approve(1001);
    assert_granted(&login.poll(1001).reply, "openid profile");
    assert_eq!(login.pace(), Some(pace_of(0, 10, true)));
}

#[test]
fn c17_the_grant_says_all_that_the_host_needs_for_its_tokens() {
    use device_flow::server::Next;

    let mut login = Login::new();
    login.claim(0);
    let value = HostValue::new(*b"org_01").unwrap();
    let consent = Consent::to(scope("profile")).with_value(value.clone());
    login.consent_by(&alice(), &consent, 1234).unwrap();
    let body = support::poll_body(cli().id(), &login.codes.device_code);
    let mut exchange = login.server.token(support::post(&body), "", at(2000));
    loop {
        match exchange.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&login.client))),
            Next::Load(key, ask) => ask.answer(Ok(login.host.store.load(key))),
            Next::Mint(grant, change, _) => {
                assert_eq!(grant.session_key(), &login.codes.key);
                assert_eq!(grant.client_id(), "client_cli");
                assert_eq!(grant.subject(), &alice());
                assert_eq!(grant.scope(), &scope("profile"));
                assert_eq!(grant.host_value(), &value);
                assert_eq!(grant.approved_at(), at(1234));
                assert_eq!((grant.redeemed_at(), grant.now()), (at(2000), at(2000)));
                assert!(!grant.is_refresh());
                assert_eq!(change.key(), &login.codes.key);
                break;
            }
            next => panic!("{next:?}"),
        }
    }
    // "OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
    assert_granted(&login.poll(2000).reply, "profile");
}

#[test]
fn c17_a_success_carries_every_token_and_the_scope() {
    let mut login = Login::approved_at(0);
    login.host.tokens = Tokens::of_type("DPoP", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")
        .and_then(|tokens| tokens.refresh_token("8xLOxBtZp8"))
        .and_then(|tokens| tokens.id_token("eyJ.e30.c2ln"))
        .and_then(|tokens| tokens.member("organization_id", json!("org_01")))
        .unwrap()
        .expires_in(Duration::from_mins(5));
    let body = concat!(
        r#"{"access_token":"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU","token_type":"DPoP","#,
        r#""refresh_token":"8xLOxBtZp8","id_token":"eyJ.e30.c2ln","scope":"openid profile","#,
        r#""expires_in":300,"organization_id":"org_01"}"#
    );
    assert_reply(&login.poll(1).reply, Cause::Granted, 200, &[], body);
}

/// "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
#[test]
fn c17_no_member_of_a_success_is_written_twice() {
    let tokens = Tokens::bearer("a").unwrap();
    let one = tokens.member("organization_id", json!("org_01")).unwrap();
    let two = one.clone().member("sub", json!("alice"));
    assert!(two.is_ok());
    let protocols = [
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "id_token",
        "scope",
        "error",
    ];
    for name in protocols.into_iter().chain(["organization_id"]) {
        let refused = one.clone().member(name, json!("x"));
        assert_eq!(refused.err(), Some(TokenError::Reserved), "{name}");
    }
}

/// RFC 6749, appendix A.12: `access-token = 1*VSCHAR`.
#[test]
fn c17_a_token_is_not_empty_and_has_only_visible_ascii_and_spaces() {
    for character in '\0'..='\u{200}' {
        let made = Tokens::bearer(format!("a{character}b"));
        let expected = (!(' '..='~').contains(&character)).then_some(TokenError::Character);
        assert_eq!(made.err(), expected, "{character:?}");
    }
    assert_eq!(Tokens::bearer("").err(), Some(TokenError::Character));
}

/// RFC 6749, appendix A.12: `access-token = 1*VSCHAR`, which has the double quote and the backslash.
#[test]
fn c17_a_token_with_a_quote_or_a_backslash_is_escaped() {
    for odd in ["a\"b", "a\\b"] {
        for place in ["access_token", "token_type", "refresh_token", "id_token"] {
            let text = |name| if name == place { odd } else { "plain" };
            let mut login = Login::approved_at(0);
            login.host.tokens = Tokens::of_type(text("token_type"), text("access_token"))
                .and_then(|tokens| tokens.refresh_token(text("refresh_token")))
                .and_then(|tokens| tokens.id_token(text("id_token")))
                .unwrap();
            let reply = login.poll(1).reply;
            let body: Value = serde_json::from_str(reply.response().body()).unwrap();
            for name in ["access_token", "token_type", "refresh_token", "id_token"] {
                assert_eq!(body[name], text(name), "{place}");
            }
        }
    }
}

#[test]
fn c17_a_success_says_no_scope_where_the_grant_has_none() {
    let client = cli().default_scope(Scope::empty());
    let mut login = Login::asking(policy(), client, "");
    assert!(login.session().scope().is_empty());
    login.approve(0);
    let body = format!(r#"{{"access_token":"{ACCESS_TOKEN}","token_type":"Bearer"}}"#);
    assert_reply(&login.poll(1).reply, Cause::Granted, 200, &[], &body);
}

#[test]
fn c17_a_success_is_told_once() {
    use device_flow::server::Next;

    let login = Login::approved_at(0);
    let mut store = login.host.store;
    let body = support::poll_body(cli().id(), &login.codes.device_code);
    let mut exchange = login.server.token(support::post(&body), "", at(1));
    let mut ends = Vec::new();
    while ends.len() < 2 {
        match exchange.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&login.client))),
            Next::Load(key, ask) => ask.answer(Ok(store.load(key))),
            Next::Mint(_, change, ask) => ask.answer(Ok(store.change(change)), &tokens()),
            Next::Done(reply) => ends.push(reply.cause()),
            next => panic!("{next:?}"),
        }
    }
    assert_eq!(ends, [Cause::Granted, Cause::StoreFailed]);
}

// C18: the guarded write of C15 or C17 was in conflict.

/// Polls, and runs `meanwhile` just before the first write, so that this write is in conflict. Returns the reply, which is decided by what
/// is stored then.
fn loses_to(
    login: &mut Login,
    now: i64,
    meanwhile: impl FnOnce(&mut device_flow::memory::Memory) + 'static,
) -> Reply {
    login.host.meanwhile.push_back(Box::new(meanwhile));
    login.poll(now).reply
}

/// Returns an action in which somebody else redeems the code at this moment.
fn redeems(login: &Login, now: i64) -> impl FnOnce(&mut device_flow::memory::Memory) + 'static {
    let (codes, client) = (login.codes.clone(), login.client.clone());
    move |store| {
        let mut rival = support::Host::new([client.clone()]);
        core::mem::swap(&mut rival.store, store);
        let reply = rival.poll(&support::server(), &client, &codes.device_code, at(now));
        assert_eq!(reply.cause(), Cause::Granted);
        core::mem::swap(&mut rival.store, store);
    }
}

#[test]
fn c18_the_loser_of_two_polls_is_a_lost_race_never_a_replay() {
    // The second decision is made within the retry window, and long after it. It is never a duplicate or a replay.
    for (won, lost) in [(1, 1), (1, 60_000)] {
        let mut login = Login::approved_at(0);
        let rival = redeems(&login, won);
        let reply = loses_to(&mut login, lost, rival);
        assert_invalid_grant(&reply, Cause::LostRace);
        assert_eq!(bytes(&reply), unknown_code());
        assert_eq!(login.status(), Status::Active);
    }
}

#[test]
fn c18_a_redemption_that_loses_to_a_withdrawal_is_invalid_grant() {
    let mut login = Login::approved_at(0);
    let (key, server) = (login.codes.key, support::server());
    let reply = loses_to(&mut login, 1, move |store| {
        let mut rival = support::Host::new([cli()]);
        core::mem::swap(&mut rival.store, store);
        rival.run(server.withdraw(&key, &alice(), at(1))).unwrap();
        core::mem::swap(&mut rival.store, store);
    });
    assert_invalid_grant(&reply, Cause::Ended);
    assert_eq!(login.status(), Status::Ended);
}

#[test]
fn c18_a_row_that_is_gone_loses_and_is_not_inserted_again() {
    let mut login = Login::approved_at(0);
    let reply = loses_to(&mut login, 1, |store| {
        let _ = store.purge(at(LIFETIME + RETENTION));
    });
    assert_invalid_grant(&reply, Cause::UnknownCode);
    assert!(login.host.store.is_empty());
}

#[test]
fn c18_two_losses_still_end_in_a_success() {
    // The store reports a conflict although nothing else was written. Some stores do so under load.
    let mut login = Login::approved_at(0);
    login.host.says.extend([Says::Conflict; 2]);
    assert_granted(&login.poll(1).reply, "openid profile");
}

#[test]
fn c18_after_three_losses_the_answer_is_503() {
    for refusal in [None, Some(GrantRefusal::consent_gone())] {
        let mut login = Login::approved_at(0);
        login.host.refusal = refusal;
        login.host.says.extend([Says::Conflict; 3]);
        assert_unavailable(&login.poll(1).reply, Cause::Contended);
        assert_eq!(login.host.count(Question::Change), 3, "no fourth attempt");
        assert_eq!(login.status(), Status::Approved);
    }
}

#[test]
fn c18_losses_of_c15_and_of_c17_count_together() {
    use device_flow::server::{Next, Write};

    for refusals in 0..=3 {
        let login = Login::approved_at(0);
        let body = support::poll_body(cli().id(), &login.codes.device_code);
        let mut exchange = login.server.token(support::post(&body), "", at(1));
        let (mut minted, mut losses) = (0, 0);
        let reply = loop {
            match exchange.next() {
                Next::Client(_, ask) => ask.answer(Ok(Some(&login.client))),
                Next::Load(key, ask) => ask.answer(Ok(login.host.store.load(key))),
                Next::Mint(_, _, ask) => {
                    minted += 1;
                    if minted <= refusals {
                        ask.refuse(GrantRefusal::consent_gone());
                    } else {
                        losses += 1;
                        ask.answer(Ok(Write::Conflict), &tokens());
                    }
                }
                Next::Change(_, ask) => {
                    losses += 1;
                    ask.answer(Ok(Write::Conflict));
                }
                Next::Done(reply) => break reply,
                next => panic!("{next:?}"),
            }
        };
        assert_eq!((minted, losses), (3, 3), "{refusals}");
        assert_unavailable(&reply, Cause::Contended);
    }
}

#[test]
fn c18_the_losses_are_those_of_one_request() {
    let mut login = Login::approved_at(0);
    for _ in 0..5 {
        login
            .host
            .says
            .extend([Says::Conflict, Says::UnknownNotDone]);
        assert_unavailable(&login.poll(1).reply, Cause::OutcomeUnknown);
    }
    assert_granted(&login.poll(2).reply, "openid profile");
}

// C19: the outcome of the guarded write is unknown.

#[test]
fn c19_an_unknown_outcome_is_503_without_the_tokens() {
    for says in [Says::UnknownDone, Says::UnknownNotDone] {
        let mut login = Login::approved_at(0);
        login.host.says.push_back(says);
        let reply = login.poll(1).reply;
        assert_unavailable(&reply, Cause::OutcomeUnknown);
        assert!(!reply.response().body().contains(ACCESS_TOKEN));
    }
}

#[test]
fn c19_the_next_poll_decides_on_what_is_stored() {
    let mut login = Login::approved_at(0);
    login.host.says.push_back(Says::UnknownNotDone);
    let _ = login.poll(1);
    assert_granted(&login.poll(2).reply, "openid profile");

    let mut login = Login::approved_at(0);
    login.host.says.push_back(Says::UnknownDone);
    let _ = login.poll(1);
    assert_used(&refused(login.poll(2000)), Cause::Duplicate, 1999);
    assert_used(&login.poll(5001).reply, Cause::Replay, 5000);
}

/// Every `invalid_grant` of the poll has the same bytes.
#[test]
fn c2_c3_c4_c5_c15_c18_have_the_same_bytes() {
    let mut replies = vec![unknown_code()];
    for (status, mut login) in in_every_state() {
        replies.push(bytes(&login.poll_as(&backend(), 1).reply));
        if matches!(status, Status::Active | Status::Ended) {
            replies.push(bytes(&login.poll(1).reply));
            replies.push(bytes(&login.poll(60_000).reply));
        }
    }
    let mut login = Login::approved_at(0);
    let rival = redeems(&login, 1);
    replies.push(bytes(&loses_to(&mut login, 1, rival)));
    let mut login = Login::approved_at(0);
    let gone = refusing(&mut login, 1, GrantRefusal::consent_gone());
    replies.push(bytes(&gone.reply));
    assert_eq!(replies.len(), 13);
    for reply in replies {
        assert_eq!(reply, invalid_grant_bytes());
    }
}

/// The tests of this file depend on this default.
#[test]
fn c11_the_default_interval_is_five_seconds() {
    let policy: Policy = policy();
    assert_eq!(policy.options().interval, Duration::from_secs(5));
}
