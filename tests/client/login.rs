//! Table P: polling, except the rows about snapshots. Moments are seconds of the caller's clock. The codes are issued at 0 for 300 s, with
//! an interval of 5 s.

use core::time::Duration;

use device_flow::client::{
    DeviceFlow, Login, LoginError, Malformed, Next, Response, Snapshot, Tokens, TransportError,
    WaitingFor,
};
use serde_json::{Value, json};

use super::snapshot::resume;
use crate::support::{
    Answer, INVALID_GRANT, ISSUED, PENDING, POLL, SLOW_DOWN, SUCCESS, TIMEOUT, TOKEN, answered,
    bearer_a, endpoints, ends, flow, granted, issued, issued_with, ok, outcome, over, posted,
    refused, s, sends, start, start_at, told, waits, whole,
};

/// Polls at `at`, when the login must allow it, and answers at the same moment. Returns the login.
pub(super) fn poll(login: Login, at: u64, answer: Answer<'_>) -> Login {
    answered(login, s(at), answer, s(at))
}

/// Asks a login at `at`. Returns until when it has to wait.
pub(super) fn wake(login: Login, at: u64) -> Duration {
    waits(login, s(at)).1
}

/// Returns the body of an error with this code and this interval.
pub(super) fn told_interval(code: &str, interval: &Value) -> String {
    json!({"error": code, "interval": interval}).to_string()
}

pub(super) const BY_CLOCK: fn(WaitingFor) -> Result<Tokens, LoginError> =
    |cause| Err(LoginError::TimedOut(Some(cause)));

#[test]
fn p1_asked_too_early_it_waits_and_nothing_changes() {
    let mut login = issued();
    for at in [0, 1, 4, 2, 0, 4] {
        let (same, until) = waits(login, s(at));
        assert_eq!(until, s(5));
        login = same;
    }
    let (mut login, until) = waits(login, s(5) - Duration::from_nanos(1));
    assert_eq!(until, s(5));
    assert!(matches!(login.next(s(5)), Next::Send(_)));
}

#[test]
fn p2_asked_in_time_it_sends() {
    let mut login = issued();
    assert_eq!(
        whole(sends(&mut login, s(5)).request()),
        posted(TOKEN, POLL)
    );
}

#[test]
fn p2_the_first_poll_waits_one_interval_from_the_answer_unless_it_is_to_go_at_once() {
    // "Before each new request, the client MUST wait at least the number of seconds specified by the "interval" parameter"
    // (RFC 8628, section 3.5)
    let (login, _) = start_at(&flow(), s(10), ok(200, ISSUED), s(13)).unwrap();
    assert_eq!(wake(login, 13), s(18));

    let (login, _) = start(&flow().first_poll_at_once(), ok(200, ISSUED)).unwrap();
    assert_eq!(wake(poll(login, 0, ok(400, PENDING)), 0), s(5));
}

#[test]
fn p2_a_jitter_is_added_once_and_up_to_the_interval() {
    let jittered = |spans: &[Duration]| {
        let mut login = issued();
        for span in spans {
            login.jitter(*span);
        }
        login
    };
    let millis = Duration::from_millis;
    assert_eq!(wake(jittered(&[millis(700)]), 0), millis(5_700));
    assert_eq!(
        wake(jittered(&[millis(900), millis(700)]), 0),
        millis(5_700)
    );
    assert_eq!(wake(jittered(&[Duration::MAX]), 0), s(10));
    let next = poll(jittered(&[millis(700)]), 6, ok(400, PENDING));
    assert_eq!(wake(next, 6), s(11));
}

#[test]
fn p2_the_next_poll_counts_from_the_answer_and_not_from_the_request() {
    assert_eq!(
        wake(answered(issued(), s(5), ok(400, PENDING), s(35)), 35),
        s(40)
    );
}

#[test]
fn p2_a_clock_that_goes_back_never_makes_it_poll_sooner() {
    let login = answered(issued(), s(100), ok(400, PENDING), s(3));
    assert_eq!(wake(login, 4), s(105));
    let (login, _) = start_at(&flow(), s(50), ok(200, ISSUED), s(3)).unwrap();
    assert_eq!(wake(login, 0), s(55));
}

#[test]
fn p3_after_the_deadline_one_last_poll_goes_out_and_then_it_is_expired() {
    let login = poll(issued(), 298, ok(400, PENDING));
    // The last poll is not made earlier to meet the deadline.
    assert_eq!(wake(login, 300), s(303));
    let login = poll(issued(), 298, ok(400, PENDING));
    assert_eq!(
        over(answered(login, s(303), ok(400, PENDING), s(303))),
        BY_CLOCK(WaitingFor::User)
    );
}

#[test]
fn p3_a_machine_that_slept_through_the_deadline_asks_once_more() {
    for at in [300, 301, 10_000, 1_000_000_000] {
        let Ok(tokens) = over(answered(issued(), s(at), ok(200, SUCCESS), s(at))) else {
            panic!("{at}")
        };
        assert_eq!(granted(&tokens), bearer_a());
    }
}

#[test]
fn p3_the_deadline_counts_from_the_request() {
    let (login, _) = start_at(&flow().no_final_poll(), s(10), ok(200, ISSUED), s(40)).unwrap();
    let login = poll(login, 309, ok(400, PENDING));
    let (login, until) = waits(login, s(309));
    assert_eq!(until, s(310));
    assert_eq!(login.deadline(), Some(s(310)));
    assert_eq!(ends(login, s(310)), BY_CLOCK(WaitingFor::User));
}

#[test]
fn p3_no_last_poll_goes_out_where_the_caller_wants_none() {
    let (login, _) = start(&flow().no_final_poll(), ok(200, ISSUED)).unwrap();
    assert_eq!(ends(login, s(300)), Err(LoginError::TimedOut(None)));
    let (login, _) = start(&flow().no_final_poll(), ok(200, ISSUED)).unwrap();
    let _ = answered(
        login,
        s(300) - Duration::from_nanos(1),
        ok(400, PENDING),
        s(0),
    );
}

#[test]
fn p3_no_last_poll_goes_out_where_it_would_come_more_than_a_minute_late() {
    // The answers come at 355 and 356. The next polls would be permitted at 360, which is a minute after the deadline, and at 361.
    assert_eq!(
        wake(answered(issued(), s(299), ok(400, PENDING), s(355)), 355),
        s(360)
    );
    let login = answered(issued(), s(299), ok(400, PENDING), s(356));
    assert_eq!(ends(login, s(356)), BY_CLOCK(WaitingFor::User));
}

#[test]
fn p3_no_last_poll_goes_out_where_it_would_come_more_than_two_intervals_late() {
    let late = |at| {
        answered(
            issued_with(&flow(), 100, 300),
            s(299),
            ok(400, PENDING),
            s(at),
        )
    };
    assert_eq!(wake(late(400), 400), s(500));
    assert_eq!(ends(late(401), s(401)), BY_CLOCK(WaitingFor::User));
}

#[test]
fn p3_no_last_poll_goes_out_where_the_interval_exceeds_the_lifetime() {
    let (login, until) = waits(issued_with(&flow(), 300, 300), s(0));
    assert_eq!(until, s(300));
    let mut login = login;
    let _ = sends(&mut login, s(300));

    let (login, until) = waits(issued_with(&flow(), 301, 300), s(0));
    assert_eq!(until, s(300));
    assert_eq!(ends(login, s(300)), Err(LoginError::TimedOut(None)));
}

#[test]
fn p4_tokens_are_granted_however_late_they_come() {
    for at in [5, 299, 300, 100_000] {
        let Ok(tokens) = over(answered(issued(), s(5), ok(200, SUCCESS), s(at))) else {
            panic!("{at}")
        };
        assert_eq!(granted(&tokens), bearer_a());
    }
}

#[test]
fn p4_a_narrower_scope_is_reported() {
    // "OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
    let flow = flow().scope("openid profile offline_access");
    for (scope, withheld) in [
        (json!("openid"), vec!["profile", "offline_access"]),
        (json!("profile offline_access openid email"), vec![]),
        (json!(["openid", "offline_access"]), vec!["profile"]),
        (json!("profile,openid"), vec!["offline_access"]),
        (json!(""), vec!["openid", "profile", "offline_access"]),
        (json!(null), vec![]),
    ] {
        let body = json!({"access_token": "a", "scope": scope}).to_string();
        let (login, _) = start(&flow, ok(200, ISSUED)).unwrap();
        let Ok(tokens) = over(answered(login, s(5), ok(200, &body), s(5))) else {
            panic!("{scope}")
        };
        assert_eq!(tokens.withheld(), withheld, "{scope}");
    }
}

#[test]
fn p5_pending_waits_for_the_interval() {
    let mut login = issued();
    for at in [5, 10, 15, 20] {
        login = poll(login, at, ok(400, PENDING));
        let (same, until) = waits(login, s(at));
        assert_eq!(until, s(at + 5));
        login = same;
    }
}

#[test]
fn p5_an_interval_in_a_pending_answer_raises_the_one_in_force_and_never_lowers_it() {
    for (interval, gap) in [
        (json!(9), 9),
        (json!(8.5), 9),
        (json!("9"), 9),
        (json!(1), 5),
        (json!(0), 5),
        (json!(-9), 5),
        (json!(null), 5),
    ] {
        let body = told_interval("authorization_pending", &interval);
        let login = poll(issued(), 5, ok(400, &body));
        let login = poll(login, 5 + gap, ok(400, PENDING));
        assert_eq!(wake(login, 5 + gap), s(5 + 2 * gap), "{interval}");
    }
}

#[test]
fn p6_slow_down_adds_five_seconds_for_this_and_all_subsequent_requests() {
    // "the interval MUST be increased by 5 seconds for this and all subsequent requests" (RFC 8628, section 3.5)
    let login = poll(issued(), 5, ok(400, SLOW_DOWN));
    let login = poll(login, 15, ok(400, PENDING));
    let login = poll(login, 25, ok(400, SLOW_DOWN));
    let login = poll(login, 40, ok(400, PENDING));
    assert_eq!(wake(login, 40), s(55));
}

#[test]
fn p6_slow_down_is_never_fatal_however_often() {
    let mut login = issued_with(&flow(), 5, 1_000_000);
    let (mut at, mut floor) = (5, 5);
    for _ in 0..300 {
        login = poll(login, at, ok(429, SLOW_DOWN));
        floor += 5;
        at += floor;
        let (same, until) = waits(login, s(at - 1));
        assert_eq!(until, s(at));
        login = same;
    }
}

#[test]
fn p6_an_interval_in_slow_down_counts_where_it_is_longer_and_up_to_an_hour() {
    for (interval, gap) in [
        (json!(3), 10),
        (json!(10), 10),
        (json!(11), 11),
        (json!("60"), 60),
        (json!(3600), 3600),
        (json!(3601), 3600),
        (json!(1e30), 3600),
        (json!("x"), 10),
    ] {
        let login = issued_with(&flow(), 5, 1_000_000);
        let login = poll(login, 5, ok(200, &told_interval("slow_down", &interval)));
        assert_eq!(wake(login, 5), s(5 + gap), "{interval}");
    }
    // An interval in the response with the codes is used as it is, even over an hour, and `slow_down` still adds to it.
    let login = poll(
        issued_with(&flow(), 7200, 1_000_000),
        7200,
        ok(400, SLOW_DOWN),
    );
    assert_eq!(wake(login, 7200), s(7200 + 7205));
}

#[test]
fn p7_each_ending_is_its_own_outcome() {
    let Err(LoginError::Denied(refusal)) = outcome(ok(403, r#"{"error":"access_denied"}"#)) else {
        panic!("denied")
    };
    assert_eq!(told(&refusal), refused(403, "access_denied"));
    let Err(LoginError::Expired(refusal)) = outcome(ok(400, r#"{"error":"expired_token"}"#)) else {
        panic!("expired")
    };
    assert_eq!(told(&refusal), refused(400, "expired_token"));
    let Err(LoginError::Rejected(refusal)) = outcome(ok(401, r#"{"error":"invalid_client"}"#))
    else {
        panic!("rejected")
    };
    assert_eq!(told(&refusal), refused(401, "invalid_client"));
    assert_eq!(outcome(ok(307, "")), Err(LoginError::Redirected(307)));
    assert_eq!(
        outcome(ok(200, "{}")),
        Err(LoginError::Malformed(Malformed::Empty))
    );
}

#[test]
fn p8_invalid_grant_after_a_lost_answer_is_possibly_redeemed() {
    let expected = |status| {
        let mut expected = refused(status, "invalid_grant");
        expected["possibly_redeemed"] = json!(true);
        expected
    };
    // The last three are a server that failed after its write, a gateway, and a success that was cut short.
    for lost in [
        TIMEOUT,
        Err(TransportError::Other),
        ok(503, r#"{"error":"temporarily_unavailable"}"#),
        ok(502, "<html>Bad Gateway</html>"),
        ok(200, r#"{"access_token":"a","token_"#),
    ] {
        // Before the deadline and after it; right after the loss, and with another answer between.
        for (between, at) in [(false, 16), (true, 30), (false, 400)] {
            let mut login = poll(issued(), 5, lost.clone());
            if between {
                login = poll(login, 15, ok(400, PENDING));
            }
            let Err(LoginError::Rejected(refusal)) =
                over(answered(login, s(at), ok(400, INVALID_GRANT), s(at)))
            else {
                panic!("{lost:?} {at}")
            };
            assert_eq!(told(&refusal), expected(400));
        }
    }
    let snapshot = sends(&mut issued(), s(5)).snapshot(s(6)).unwrap();
    let login = resume(&snapshot, Some(10), 0);
    let Err(LoginError::Rejected(refusal)) =
        over(answered(login, s(0), ok(400, INVALID_GRANT), s(0)))
    else {
        panic!("resumed")
    };
    assert_eq!(told(&refusal), expected(400));
}

#[test]
fn p9_invalid_grant_at_or_after_the_deadline_is_expired_by_the_server() {
    for (sent_at, at) in [(299, 300), (300, 300), (5, 301)] {
        let Err(LoginError::Expired(refusal)) = over(answered(
            issued(),
            s(sent_at),
            ok(400, INVALID_GRANT),
            s(at),
        )) else {
            panic!("{at}")
        };
        assert_eq!(told(&refusal), refused(400, "invalid_grant"));
    }
}

#[test]
fn p10_invalid_grant_otherwise_is_a_rejection() {
    let nearly = s(300) - Duration::from_nanos(1);
    for at in [s(5), nearly] {
        let Err(LoginError::Rejected(refusal)) =
            over(answered(issued(), s(5), ok(400, INVALID_GRANT), at))
        else {
            panic!("{at:?}")
        };
        assert_eq!(told(&refusal), refused(400, "invalid_grant"));
    }
    // These answers could be read and had no tokens, so nothing was lost.
    for read in [
        ok(429, ""),
        ok(408, "<html>"),
        ok(400, r#"{"error":"temporarily_unavailable"}"#),
        ok(200, r#"{"error":"server_error"}"#),
    ] {
        let login = poll(issued(), 5, read);
        let Err(LoginError::Rejected(refusal)) =
            over(answered(login, s(20), ok(400, INVALID_GRANT), s(20)))
        else {
            panic!("rejected")
        };
        assert_eq!(told(&refusal), refused(400, "invalid_grant"));
    }
}

#[test]
fn p11_a_transient_answer_backs_off_at_least_as_long_as_retry_after() {
    let unavailable = |retry_after| Ok(Response::new(503, "").retry_after(retry_after));
    for (retry_after, gap) in [
        ("0", 10),
        ("9", 10),
        ("11", 11),
        (" 120 ", 120),
        ("", 10),
        ("-20", 10),
        ("+20", 10),
        ("20.5", 10),
        ("soon", 10),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 10),
        // Limited to the rest of the lifetime.
        ("100000", 295),
        ("99999999999999999999999999", 295),
    ] {
        let login = poll(issued(), 5, unavailable(retry_after));
        assert_eq!(wake(login, 5), s(5 + gap), "{retry_after:?}");
    }
}

#[test]
fn p11_retry_after_counts_with_every_answer() {
    for body in [PENDING, SLOW_DOWN] {
        let answer = Ok(Response::new(400, body).retry_after("30"));
        assert_eq!(wake(poll(issued(), 5, answer), 5), s(35));
    }
}

#[test]
fn p12_a_connection_timeout_doubles_the_gap_up_to_a_ceiling() {
    // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency before retrying."
    // (RFC 8628, section 3.5)
    let mut login = issued_with(&flow(), 5, 100_000);
    let mut at = 5;
    for gap in [10, 20, 40, 60, 60, 60] {
        login = poll(login, at, TIMEOUT);
        at += gap;
        let (same, until) = waits(login, s(at - gap));
        assert_eq!(until, s(at));
        login = same;
    }
    // The limit is two intervals if that is more than a minute. An answer ends the back-off.
    let login = poll(
        login,
        at,
        ok(400, &told_interval("authorization_pending", &json!(40))),
    );
    let login = poll(login, at + 40, TIMEOUT);
    let login = poll(login, at + 120, TIMEOUT);
    assert_eq!(wake(login, at + 120), s(at + 200));
}

#[test]
fn p12_the_back_off_never_overflows() {
    let mut login = issued_with(&flow(), 5, u64::MAX);
    let mut at = 5;
    for _ in 0..70 {
        login = poll(login, at, TIMEOUT);
        at += 60;
    }
    assert_eq!(wake(login, at - 60), s(at));
}

#[test]
fn p13_another_temporary_failure_backs_off_in_the_same_way() {
    let login = poll(issued(), 5, Err(TransportError::Other));
    let login = poll(login, 15, ok(503, ""));
    let login = poll(login, 35, TIMEOUT);
    assert_eq!(wake(login, 35), s(75));
}

#[test]
fn p14_a_failure_that_will_not_pass_is_the_end() {
    let failed = Err(LoginError::Failed(TransportError::Permanent));
    assert_eq!(outcome(Err(TransportError::Permanent)), failed);
    assert_eq!(
        over(answered(
            issued(),
            s(300),
            Err(TransportError::Permanent),
            s(300)
        )),
        failed
    );
}

#[test]
fn p15_after_the_last_poll_it_is_expired_and_the_reason_is_kept() {
    for (answer, cause) in [
        (ok(400, PENDING), WaitingFor::User),
        (ok(400, SLOW_DOWN), WaitingFor::SlowDown),
        (ok(503, ""), WaitingFor::Server(503)),
        (ok(200, "<html>"), WaitingFor::Server(200)),
        (
            TIMEOUT,
            WaitingFor::Connection(TransportError::ConnectionTimeout),
        ),
        (
            Err(TransportError::Other),
            WaitingFor::Connection(TransportError::Other),
        ),
    ] {
        assert_eq!(
            over(answered(issued(), s(300), answer, s(300))),
            BY_CLOCK(cause)
        );
    }
}

#[test]
fn p15_a_poll_from_before_the_deadline_is_not_the_last_though_its_answer_comes_after() {
    let login = answered(issued(), s(299), ok(400, PENDING), s(320));
    assert_eq!(
        over(answered(login, s(325), ok(400, PENDING), s(325))),
        BY_CLOCK(WaitingFor::User)
    );
}

#[test]
fn p16_cancelled_between_two_polls_nothing_can_come() {
    let mut login = issued();
    login.cancel();
    assert_eq!(over(login), Err(LoginError::Cancelled(None)));
    let mut login = flow().login().unwrap();
    login.cancel();
    assert_eq!(over(login), Err(LoginError::Cancelled(None)));
}

#[test]
fn p16_cancelled_with_a_poll_in_flight_a_token_that_still_arrives_is_handed_back_as_late() {
    let cancelled = |answer| {
        let mut login = issued();
        let mut ask = sends(&mut login, s(5));
        ask.cancel();
        ask.answer(answer, s(6));
        over(login)
    };
    let Err(LoginError::Cancelled(Some(late))) = cancelled(ok(200, SUCCESS)) else {
        panic!("it came")
    };
    assert_eq!(granted(&late), bearer_a());
    for answer in [
        ok(400, PENDING),
        ok(400, INVALID_GRANT),
        ok(302, SUCCESS),
        TIMEOUT,
    ] {
        assert_eq!(cancelled(answer), Err(LoginError::Cancelled(None)));
    }
}

#[test]
fn p16_cancelled_while_the_codes_are_asked_for_nothing_is_shown() {
    let mut login = flow().login().unwrap();
    let mut ask = sends(&mut login, s(0));
    ask.cancel();
    ask.answer(ok(200, ISSUED), s(1));
    assert_eq!(over(login), Err(LoginError::Cancelled(None)));
}

#[test]
fn p16_cancelled_and_never_answered_it_is_over_all_the_same() {
    let mut login = issued();
    sends(&mut login, s(5)).cancel();
    assert_eq!(ends(login, s(5)), Err(LoginError::Cancelled(None)));
}

#[test]
fn p16_cancelled_after_the_tokens_came_they_are_handed_back_as_late() {
    let mut login = answered(issued(), s(5), ok(200, SUCCESS), s(5));
    login.cancel();
    let Err(LoginError::Cancelled(Some(late))) = over(login) else {
        panic!("they came")
    };
    assert_eq!(granted(&late), bearer_a());
}

#[test]
fn p16_cancelled_twice_the_tokens_are_still_handed_back() {
    let mut login = issued();
    let mut ask = sends(&mut login, s(5));
    ask.cancel();
    ask.answer(ok(200, SUCCESS), s(6));
    login.cancel();
    let Err(LoginError::Cancelled(Some(late))) = over(login) else {
        panic!("they came")
    };
    assert_eq!(granted(&late), bearer_a());
}

/// A request that is dropped without an answer may have been sent.
#[test]
fn a_poll_that_is_dropped_without_an_answer_counts_as_lost() {
    let mut login = issued();
    drop(sends(&mut login, s(5)));
    // The wait is twice the interval, and counts from the moment at which the loss is noticed.
    let (login, until) = waits(login, s(7));
    assert_eq!(until, s(17));
    assert_eq!(
        login.waiting_for(),
        Some(WaitingFor::Connection(TransportError::Other))
    );
    let Err(LoginError::Rejected(refusal)) =
        over(answered(login, s(17), ok(400, INVALID_GRANT), s(17)))
    else {
        panic!("rejected")
    };
    assert!(refusal.possibly_redeemed);
    // The last poll is not repeated.
    let mut login = issued();
    drop(sends(&mut login, s(300)));
    assert_eq!(
        ends(login, s(300)),
        BY_CLOCK(WaitingFor::Connection(TransportError::Other))
    );
}

#[test]
fn a_request_for_codes_that_is_dropped_without_an_answer_is_asked_again_and_the_lifetime_counts_from_there()
 {
    let flow = flow();
    let mut login = flow.login().unwrap();
    drop(sends(&mut login, s(10)));
    sends(&mut login, s(20)).answer(ok(200, ISSUED), s(21));
    assert_eq!(login.deadline(), Some(s(320)));
}

#[test]
fn the_prompt_is_shown_once_and_can_be_looked_at_until_the_end() {
    let mut login = flow().first_poll_at_once().login().unwrap();
    assert_eq!(login.prompt(), None);
    sends(&mut login, s(0)).answer(ok(200, ISSUED), s(0));
    let Next::Show(prompt) = login.next(s(0)) else {
        panic!("nothing is shown")
    };
    assert_eq!(prompt.user_code, "WDJB-MJHT");
    assert_eq!(login.prompt(), Some(&prompt));
    sends(&mut login, s(0)).answer(ok(400, PENDING), s(0));
    assert!(matches!(login.next(s(0)), Next::Wait { .. }));
    let login = answered(login, s(5), ok(200, SUCCESS), s(5));
    assert_eq!(login.prompt(), None);
}

#[test]
fn at_any_moment_it_says_what_it_waits_for_and_the_interval_and_the_deadline() {
    let login = flow().login().unwrap();
    assert_eq!(
        (login.waiting_for(), login.interval(), login.deadline()),
        (None, None, None)
    );
    let mut login = issued();
    let mut at = 5;
    for (answer, reason, interval, says) in [
        (
            None,
            WaitingFor::User,
            5,
            "nobody has approved the code yet",
        ),
        (
            Some(ok(400, PENDING)),
            WaitingFor::User,
            5,
            "nobody has approved the code yet",
        ),
        (
            Some(ok(400, SLOW_DOWN)),
            WaitingFor::SlowDown,
            10,
            "nobody has approved the code yet, and the server asks for fewer requests",
        ),
        (
            Some(ok(503, "")),
            WaitingFor::Server(503),
            10,
            "the server cannot answer now (status 503), trying again",
        ),
        (
            Some(TIMEOUT),
            WaitingFor::Connection(TransportError::ConnectionTimeout),
            10,
            "no connection to the server, trying again",
        ),
        (
            Some(ok(400, PENDING)),
            WaitingFor::User,
            10,
            "nobody has approved the code yet",
        ),
    ] {
        if let Some(answer) = answer {
            login = poll(login, at, answer);
            at += 40;
        }
        assert_eq!(login.waiting_for(), Some(reason));
        assert_eq!(login.waiting_for().unwrap().to_string(), says);
        assert_eq!(login.interval(), Some(s(interval)));
        assert_eq!(login.deadline(), Some(s(300)));
    }
    let login = poll(login, at, ok(200, SUCCESS));
    assert_eq!(
        (login.waiting_for(), login.interval(), login.deadline()),
        (None, None, None)
    );
}

#[test]
fn an_ending_says_to_the_user_what_happened_and_what_to_do() {
    let coded = |code| outcome(ok(400, &json!({"error": code}).to_string()));
    let described = r#"{"error":"invalid_request","error_description":"No device_code."}"#;
    let timed_out = |answer| over(answered(issued(), s(300), answer, s(300)));
    let lost = poll(issued(), 5, TIMEOUT);
    let lost = over(answered(lost, s(15), ok(400, INVALID_GRANT), s(15)));
    let mut cancelled = issued();
    cancelled.cancel();
    for (outcome, said) in [
        (
            coded("access_denied"),
            "the sign-in was denied (access_denied (status 400)); start again if that was not intended",
        ),
        (
            coded("expired_token"),
            "the code has expired (expired_token (status 400)); start again, and approve the new code in time",
        ),
        (
            timed_out(ok(400, PENDING)),
            "the code expired before it was approved; start again, and approve the new code in time",
        ),
        (
            timed_out(ok(503, "")),
            "the code expired while the server could not answer; start again when it can",
        ),
        (
            timed_out(TIMEOUT),
            "the code expired while there was no connection to the server; check the network connection, then start again",
        ),
        (
            outcome(ok(400, described)),
            "the server refused the sign-in: invalid_request: No device_code. (status 400); check which parameters this server \
             requires",
        ),
        (
            lost,
            "the server no longer accepts the device code (invalid_grant (status 400)), and an earlier answer was lost which may \
             have had the tokens; start again",
        ),
        (
            outcome(ok(302, "")),
            "the server answered with a redirect (status 302), which is not followed; check the URL of the token endpoint",
        ),
        (
            outcome(Err(TransportError::Permanent)),
            "no trusted connection to the server can be made, and trying again will not help; check its URL and its certificate",
        ),
        (
            over(cancelled),
            "the sign-in was cancelled; start again to sign in",
        ),
    ] {
        assert_eq!(outcome.unwrap_err().to_string(), said);
    }
}

/// `misuse.md` proves that a request takes only one answer, and that there is only one request at a time.
#[test]
fn p19_after_its_outcome_nothing_is_sent_and_the_outcome_is_handed_out_once() {
    for answer in [ok(200, SUCCESS), ok(400, INVALID_GRANT), ok(302, "")] {
        let mut login = answered(issued(), s(5), answer, s(5));
        assert!(
            matches!(login.next(s(5)), Next::Done(outcome) if outcome != Err(LoginError::Over))
        );
        login.cancel();
        login.jitter(s(1));
        for at in [0, 10, 400] {
            assert!(matches!(
                login.next(s(at)),
                Next::Done(Err(LoginError::Over))
            ));
        }
        assert!(login.snapshot(s(5)).is_none());
    }
}

#[test]
fn nothing_of_a_login_is_shown_by_debug() {
    let flow = DeviceFlow::new(endpoints(), "cli")
        .secret_post("s3cret")
        .extra("x", "s3cret");
    let issued = ISSUED
        .replace("GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS", "s3cret")
        .replace("WDJB-MJHT", "s3cret");
    let mut login = flow.login().unwrap();
    let mut shown = vec![format!("{flow:?}"), format!("{login:?}")];
    let ask = sends(&mut login, s(0));
    shown.extend([format!("{ask:?}"), format!("{:?}", ask.request())]);
    ask.answer(ok(200, &issued), s(0));
    shown.push(format!("{:?}", login.next(s(0))));
    shown.extend([
        format!("{login:?}"),
        format!("{:?}", login.snapshot(s(0))),
        format!("{:?}", login.next(s(1))),
    ]);
    let ask = sends(&mut login, s(5));
    shown.extend([format!("{ask:?}"), format!("{:?}", ask.request())]);
    let late = r#"{"access_token":"s3cret","refresh_token":"s3cret"}"#;
    ask.answer(ok(200, late), s(5));
    login.cancel();
    shown.extend([format!("{login:?}"), format!("{:?}", login.next(s(5)))]);
    assert!(!shown.iter().any(String::is_empty), "{shown:?}");
    let shown = shown.concat();
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn the_machine_can_be_held_across_an_await_on_any_thread() {
    fn is_send<T: Send + Sync + 'static>() {}
    is_send::<Login>();
    is_send::<Next<'static>>();
    is_send::<Snapshot>();
    is_send::<LoginError>();
}
