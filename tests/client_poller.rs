//! Table P: polling. Moments are seconds of the caller's clock; the codes are issued at 0, for 300 s, every 5 s.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    reason = "a panic is how a test fails"
)]

#[path = "support/client.rs"]
mod support;

use core::time::Duration;

use device_flow::client::{
    Cause, DeviceFlow, Endpoints, Expiry, Failure, Malformed, Next, Outcome, Received, ResumeError,
    Sent, Snapshot, Waiting,
};
use serde_json::{Value, json};
use support::{
    Answer, DEVICE, INVALID_GRANT, ISSUED, PENDING, POLL, SLOW_DOWN, SUCCESS, TIMEOUT, TOKEN,
    again, bearer_a, endpoints, ends, flow, granted, issued, issued_with, ok, outcome, over,
    posted, refused, s, sends, start, told, waits, whole,
};

/// Polls at `at`, which must be allowed, and answers at the same moment; the poller goes on.
fn poll(waiting: Waiting, at: u64, answer: Answer<'_>) -> Waiting {
    again(sends(waiting, s(at)).answer(answer, s(at)))
}

/// The next wake of a poller asked at `at`.
fn wake(waiting: Waiting, at: u64) -> Duration {
    waits(waiting, s(at)).1
}

/// A pending answer that names an interval.
fn told_interval(code: &str, interval: &Value) -> String {
    json!({"error": code, "interval": interval}).to_string()
}

/// The stored form.
fn stored(snapshot: &Snapshot) -> Value {
    serde_json::to_value(snapshot).unwrap()
}

/// Through the stored form and back.
fn revived(snapshot: &Snapshot) -> Snapshot {
    serde_json::from_str(&serde_json::to_string(snapshot).unwrap()).unwrap()
}

fn resume(snapshot: &Snapshot, elapsed: Option<u64>, now: u64) -> Waiting {
    flow()
        .resume(revived(snapshot), elapsed.map(s), s(now))
        .unwrap()
}

const BY_CLOCK: fn(Cause) -> Outcome = |cause| Outcome::Expired(Expiry::ByClock(Some(cause)));

#[test]
fn p1_asked_too_early_it_waits_and_nothing_changes() {
    let mut waiting = issued();
    for at in [0, 1, 4, 2, 0, 4] {
        let (same, until) = waits(waiting, s(at));
        assert_eq!(until, s(5));
        waiting = same;
    }
    let (waiting, until) = waits(waiting, s(5) - Duration::from_nanos(1));
    assert_eq!(until, s(5));
    assert!(matches!(waiting.next(s(5)), Next::Send(..)));
}

#[test]
fn p2_asked_in_time_it_sends() {
    let Next::Send(_, request) = issued().next(s(5)) else {
        panic!("it is time")
    };
    assert_eq!(whole(&request), posted(TOKEN, POLL));
}

#[test]
fn p2_the_first_poll_waits_one_interval_from_the_answer_unless_it_is_to_go_at_once() {
    // "Before each new request, the client MUST wait at least the number of seconds specified by the "interval" parameter"
    // (RFC 8628, section 3.5)
    let (starting, _) = flow().start(s(10)).unwrap();
    let (waiting, _) = starting.answer(ok(200, ISSUED), s(13)).unwrap();
    assert_eq!(wake(waiting, 13), s(18));

    let (waiting, _) = start(&flow().first_poll_at_once(), ok(200, ISSUED)).unwrap();
    assert_eq!(wake(poll(waiting, 0, ok(400, PENDING)), 0), s(5));
}

#[test]
fn p2_a_margin_is_added_once_and_up_to_the_interval() {
    let margin = |millis| Duration::from_millis(millis);
    assert_eq!(wake(issued().with_margin(margin(700)), 0), margin(5_700));
    let again = issued().with_margin(margin(900)).with_margin(margin(700));
    assert_eq!(wake(again, 0), margin(5_700));
    assert_eq!(wake(issued().with_margin(Duration::MAX), 0), s(10));
    let next = poll(issued().with_margin(margin(700)), 6, ok(400, PENDING));
    assert_eq!(wake(next, 6), s(11));
}

#[test]
fn p2_the_next_poll_counts_from_the_answer_and_not_from_the_request() {
    let sent = sends(issued(), s(5));
    assert_eq!(wake(again(sent.answer(ok(400, PENDING), s(35))), 35), s(40));
}

#[test]
fn p2_a_clock_that_goes_back_never_makes_it_poll_sooner() {
    let sent = sends(issued(), s(100));
    let waiting = again(sent.answer(ok(400, PENDING), s(3)));
    assert_eq!(wake(waiting, 4), s(105));
    let (starting, _) = flow().start(s(50)).unwrap();
    let (waiting, _) = starting.answer(ok(200, ISSUED), s(3)).unwrap();
    assert_eq!(wake(waiting, 0), s(55));
}

#[test]
fn p3_after_the_deadline_one_last_poll_goes_out_and_then_it_is_expired() {
    let waiting = poll(issued(), 298, ok(400, PENDING));
    // It is not brought forward to meet the deadline.
    assert_eq!(wake(waiting, 300), s(303));
    let waiting = poll(issued(), 298, ok(400, PENDING));
    let last = sends(waiting, s(303));
    assert_eq!(
        over(last.answer(ok(400, PENDING), s(303))),
        BY_CLOCK(Cause::Pending)
    );
}

#[test]
fn p3_a_machine_that_slept_through_the_deadline_asks_once_more() {
    for at in [300, 301, 10_000, 1_000_000_000] {
        let sent = sends(issued(), s(at));
        let Outcome::Granted(tokens) = over(sent.answer(ok(200, SUCCESS), s(at))) else {
            panic!("{at}")
        };
        assert_eq!(granted(&tokens), bearer_a());
    }
}

#[test]
fn p3_the_deadline_counts_from_the_request() {
    let (starting, _) = flow().no_final_poll().start(s(10)).unwrap();
    let (waiting, _) = starting.answer(ok(200, ISSUED), s(40)).unwrap();
    let waiting = poll(waiting, 309, ok(400, PENDING));
    let (waiting, until) = waits(waiting, s(309));
    assert_eq!(until, s(310));
    assert_eq!(waiting.deadline(), s(310));
    assert_eq!(ends(waiting, s(310)), BY_CLOCK(Cause::Pending));
}

#[test]
fn p3_no_last_poll_goes_out_where_the_caller_wants_none() {
    let (waiting, _) = start(&flow().no_final_poll(), ok(200, ISSUED)).unwrap();
    assert_eq!(
        ends(waiting, s(300)),
        Outcome::Expired(Expiry::ByClock(None))
    );
    let (waiting, _) = start(&flow().no_final_poll(), ok(200, ISSUED)).unwrap();
    let _ = sends(waiting, s(300) - Duration::from_nanos(1)).answer(ok(400, PENDING), s(0));
}

#[test]
fn p3_no_last_poll_goes_out_where_it_would_come_more_than_a_minute_late() {
    // The answer comes at 355 and 356: the first permitted moments are 360, a minute after the deadline, and 361.
    let sent = sends(issued(), s(299));
    assert_eq!(
        wake(again(sent.answer(ok(400, PENDING), s(355))), 355),
        s(360)
    );
    let sent = sends(issued(), s(299));
    let waiting = again(sent.answer(ok(400, PENDING), s(356)));
    assert_eq!(ends(waiting, s(356)), BY_CLOCK(Cause::Pending));
}

#[test]
fn p3_no_last_poll_goes_out_where_it_would_come_more_than_two_intervals_late() {
    let late =
        |at| again(sends(issued_with(&flow(), 100, 300), s(299)).answer(ok(400, PENDING), s(at)));
    assert_eq!(wake(late(400), 400), s(500));
    assert_eq!(ends(late(401), s(401)), BY_CLOCK(Cause::Pending));
}

#[test]
fn p3_no_last_poll_goes_out_where_the_interval_exceeds_the_lifetime() {
    let (waiting, until) = waits(issued_with(&flow(), 300, 300), s(0));
    assert_eq!(until, s(300));
    let _ = sends(waiting, s(300));

    let (waiting, until) = waits(issued_with(&flow(), 301, 300), s(0));
    assert_eq!(until, s(300));
    assert_eq!(
        ends(waiting, s(300)),
        Outcome::Expired(Expiry::ByClock(None))
    );
}

#[test]
fn p4_tokens_are_granted_however_late_they_come() {
    for at in [5, 299, 300, 100_000] {
        let sent = sends(issued(), s(5));
        let Outcome::Granted(tokens) = over(sent.answer(ok(200, SUCCESS), s(at))) else {
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
        let (waiting, _) = start(&flow, ok(200, ISSUED)).unwrap();
        let Outcome::Granted(tokens) = over(sends(waiting, s(5)).answer(ok(200, &body), s(5)))
        else {
            panic!("{scope}")
        };
        assert_eq!(tokens.withheld(), withheld, "{scope}");
    }
}

#[test]
fn p5_pending_waits_for_the_interval() {
    let mut waiting = issued();
    for at in [5, 10, 15, 20] {
        waiting = poll(waiting, at, ok(400, PENDING));
        let (same, until) = waits(waiting, s(at));
        assert_eq!(until, s(at + 5));
        waiting = same;
    }
}

#[test]
fn p5_an_interval_in_a_pending_answer_raises_the_floor_and_never_lowers_it() {
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
        let waiting = poll(issued(), 5, ok(400, &body));
        let waiting = poll(waiting, 5 + gap, ok(400, PENDING));
        assert_eq!(wake(waiting, 5 + gap), s(5 + 2 * gap), "{interval}");
    }
}

#[test]
fn p6_slow_down_adds_five_seconds_for_this_and_all_subsequent_requests() {
    // "the interval MUST be increased by 5 seconds for this and all subsequent requests" (RFC 8628, section 3.5)
    let waiting = poll(issued(), 5, ok(400, SLOW_DOWN));
    let waiting = poll(waiting, 15, ok(400, PENDING));
    let waiting = poll(waiting, 25, ok(400, SLOW_DOWN));
    let waiting = poll(waiting, 40, ok(400, PENDING));
    assert_eq!(wake(waiting, 40), s(55));
}

#[test]
fn p6_slow_down_is_never_fatal_however_often() {
    let mut waiting = issued_with(&flow(), 5, 1_000_000);
    let (mut at, mut floor) = (5, 5);
    for _ in 0..300 {
        waiting = poll(waiting, at, ok(429, SLOW_DOWN));
        floor += 5;
        at += floor;
        let (same, until) = waits(waiting, s(at - 1));
        assert_eq!(until, s(at));
        waiting = same;
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
        let waiting = issued_with(&flow(), 5, 1_000_000);
        let waiting = poll(waiting, 5, ok(200, &told_interval("slow_down", &interval)));
        assert_eq!(wake(waiting, 5), s(5 + gap), "{interval}");
    }
    // An interval of the device authorization response is taken as it is: slow_down still adds to it.
    let waiting = poll(
        issued_with(&flow(), 7200, 1_000_000),
        7200,
        ok(400, SLOW_DOWN),
    );
    assert_eq!(wake(waiting, 7200), s(7200 + 7205));
}

#[test]
fn p7_each_ending_is_its_own_outcome() {
    let Outcome::Denied(refusal) = outcome(ok(403, r#"{"error":"access_denied"}"#)) else {
        panic!("denied")
    };
    assert_eq!(told(&refusal), refused(403, "access_denied"));
    let Outcome::Expired(Expiry::ByServer(refusal)) =
        outcome(ok(400, r#"{"error":"expired_token"}"#))
    else {
        panic!("expired")
    };
    assert_eq!(told(&refusal), refused(400, "expired_token"));
    let Outcome::Rejected(refusal) = outcome(ok(401, r#"{"error":"invalid_client"}"#)) else {
        panic!("rejected")
    };
    assert_eq!(told(&refusal), refused(401, "invalid_client"));
    assert_eq!(outcome(ok(307, "")), Outcome::Redirected(307));
    assert_eq!(outcome(ok(200, "{}")), Outcome::Malformed(Malformed::Empty));
}

#[test]
fn p8_invalid_grant_after_a_lost_answer_is_possibly_redeemed() {
    let expected = |status| {
        let mut expected = refused(status, "invalid_grant");
        expected["possibly_redeemed"] = json!(true);
        expected
    };
    for failure in [Failure::ConnectionTimeout, Failure::Other] {
        // Before the deadline and after it, at once and with other answers between.
        for (between, at) in [(false, 16), (true, 30), (false, 400)] {
            let mut waiting = poll(issued(), 5, Err(failure));
            if between {
                waiting = poll(waiting, 15, ok(400, PENDING));
            }
            let Outcome::Rejected(refusal) =
                over(sends(waiting, s(at)).answer(ok(400, INVALID_GRANT), s(at)))
            else {
                panic!("{failure:?} {at}")
            };
            assert_eq!(told(&refusal), expected(400));
        }
    }
    let snapshot = sends(issued(), s(5)).snapshot(s(6));
    let waiting = resume(&snapshot, Some(10), 0);
    let Outcome::Rejected(refusal) =
        over(sends(waiting, s(0)).answer(ok(400, INVALID_GRANT), s(0)))
    else {
        panic!("resumed")
    };
    assert_eq!(told(&refusal), expected(400));
}

#[test]
fn p9_invalid_grant_at_or_after_the_deadline_is_expired_by_the_server() {
    for (sent_at, at) in [(299, 300), (300, 300), (5, 301)] {
        let sent = sends(issued(), s(sent_at));
        let Outcome::Expired(Expiry::ByServer(refusal)) =
            over(sent.answer(ok(400, INVALID_GRANT), s(at)))
        else {
            panic!("{at}")
        };
        assert_eq!(told(&refusal), refused(400, "invalid_grant"));
    }
}

#[test]
fn p10_invalid_grant_otherwise_is_a_rejection() {
    let nearly = s(300) - Duration::from_nanos(1);
    for at in [s(5), nearly] {
        let sent = sends(issued(), s(5));
        let Outcome::Rejected(refusal) = over(sent.answer(ok(400, INVALID_GRANT), at)) else {
            panic!("{at:?}")
        };
        assert_eq!(told(&refusal), refused(400, "invalid_grant"));
    }
    // An answer that was unclear was not lost.
    let waiting = poll(issued(), 5, ok(503, ""));
    let Outcome::Rejected(refusal) =
        over(sends(waiting, s(20)).answer(ok(400, INVALID_GRANT), s(20)))
    else {
        panic!("rejected")
    };
    assert_eq!(told(&refusal), refused(400, "invalid_grant"));
}

#[test]
fn p11_a_transient_answer_backs_off_at_least_as_long_as_retry_after() {
    let unavailable = |retry_after| Ok(Received::new(503, "").retry_after(retry_after));
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
        // Clamped to what is left of the lifetime.
        ("100000", 295),
        ("99999999999999999999999999", 295),
    ] {
        let waiting = poll(issued(), 5, unavailable(retry_after));
        assert_eq!(wake(waiting, 5), s(5 + gap), "{retry_after:?}");
    }
}

#[test]
fn p11_retry_after_counts_with_every_answer() {
    for body in [PENDING, SLOW_DOWN] {
        let answer = Ok(Received::new(400, body).retry_after("30"));
        assert_eq!(wake(poll(issued(), 5, answer), 5), s(35));
    }
}

#[test]
fn p12_a_connection_timeout_doubles_the_gap_up_to_a_ceiling() {
    // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency before retrying."
    // (RFC 8628, section 3.5)
    let mut waiting = issued_with(&flow(), 5, 100_000);
    let mut at = 5;
    for gap in [10, 20, 40, 60, 60, 60] {
        waiting = poll(waiting, at, TIMEOUT);
        at += gap;
        let (same, until) = waits(waiting, s(at - gap));
        assert_eq!(until, s(at));
        waiting = same;
    }
    // The ceiling is two intervals where that is more than a minute, and an answer ends the back-off.
    let waiting = poll(
        waiting,
        at,
        ok(400, &told_interval("authorization_pending", &json!(40))),
    );
    let waiting = poll(waiting, at + 40, TIMEOUT);
    let waiting = poll(waiting, at + 120, TIMEOUT);
    assert_eq!(wake(waiting, at + 120), s(at + 200));
}

#[test]
fn p12_the_back_off_never_overflows() {
    let mut waiting = issued_with(&flow(), 5, u64::MAX);
    let mut at = 5;
    for _ in 0..70 {
        waiting = poll(waiting, at, TIMEOUT);
        at += 60;
    }
    assert_eq!(wake(waiting, at - 60), s(at));
}

#[test]
fn p13_another_failure_that_may_pass_backs_off_in_the_same_way() {
    let waiting = poll(issued(), 5, Err(Failure::Other));
    let waiting = poll(waiting, 15, ok(503, ""));
    let waiting = poll(waiting, 35, TIMEOUT);
    assert_eq!(wake(waiting, 35), s(75));
}

#[test]
fn p14_a_failure_that_will_not_pass_is_the_end() {
    let failed = Outcome::Failed(Failure::Permanent);
    assert_eq!(outcome(Err(Failure::Permanent)), failed);
    let last = sends(issued(), s(300));
    assert_eq!(
        over(last.answer::<&str>(Err(Failure::Permanent), s(300))),
        failed
    );
}

#[test]
fn p15_after_the_last_poll_it_is_expired_and_the_cause_is_kept() {
    for (answer, cause) in [
        (ok(400, PENDING), Cause::Pending),
        (ok(400, SLOW_DOWN), Cause::SlowDown),
        (ok(503, ""), Cause::Unavailable(503)),
        (ok(200, "<html>"), Cause::Unavailable(200)),
        (TIMEOUT, Cause::Failure(Failure::ConnectionTimeout)),
        (Err(Failure::Other), Cause::Failure(Failure::Other)),
    ] {
        let last = sends(issued(), s(300));
        assert_eq!(over(last.answer(answer, s(300))), BY_CLOCK(cause));
    }
}

#[test]
fn p15_a_poll_from_before_the_deadline_is_not_the_last_though_its_answer_comes_after() {
    let sent = sends(issued(), s(299));
    let waiting = again(sent.answer(ok(400, PENDING), s(320)));
    let last = sends(waiting, s(325));
    assert_eq!(
        over(last.answer(ok(400, PENDING), s(325))),
        BY_CLOCK(Cause::Pending)
    );
}

#[test]
fn p16_cancelled_between_two_polls_nothing_can_come() {
    assert_eq!(issued().cancel(), Outcome::Cancelled(None));
}

#[test]
fn p16_cancelled_with_a_poll_in_flight_a_token_that_still_arrives_is_handed_back_as_late() {
    let sent = || sends(issued(), s(5)).cancel();
    let Outcome::Cancelled(Some(late)) = sent().answer(ok(200, SUCCESS)) else {
        panic!("it came")
    };
    assert_eq!(granted(&late), bearer_a());
    for answer in [
        ok(400, PENDING),
        ok(400, INVALID_GRANT),
        ok(302, SUCCESS),
        TIMEOUT,
    ] {
        assert_eq!(sent().answer(answer), Outcome::Cancelled(None));
    }
}

#[test]
fn p17_a_snapshot_has_spans_and_a_digest_and_no_endpoint_and_no_secret() {
    let flow = DeviceFlow::new(endpoints(), "cli")
        .secret_basic("s3cret")
        .scope("openid");
    let (starting, _) = flow.start(s(1000)).unwrap();
    let (waiting, _) = starting.answer(ok(200, ISSUED), s(1001)).unwrap();
    let waiting = poll(waiting, 1006, ok(503, ""));
    let snapshot = waiting.snapshot(s(1009)).taken_at(s(1_790_000_000));
    let mut form = stored(&snapshot);
    let digest = form["client"].take();
    let expected = json!({
        "v": 1,
        "device_code": "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
        "client": null,
        "lifetime": {"secs": 300, "nanos": 0},
        "left": {"secs": 291, "nanos": 0},
        "wait": {"secs": 7, "nanos": 0},
        "floor": {"secs": 5, "nanos": 0},
        "failures": 1,
        "last_poll": "ahead",
        "lost": false,
        "cause": {"unavailable": 503},
        "taken_at": {"secs": 1_790_000_000, "nanos": 0},
    });
    assert_eq!(form, expected);
    assert_eq!(digest.as_str().unwrap().len(), 43);
}

#[test]
fn p17_in_flight_counts_as_lost() {
    // As if the answer had failed at 7: twice the interval from there.
    let form = stored(&sends(issued(), s(5)).snapshot(s(7)));
    assert_eq!(form["wait"], json!({"secs": 10, "nanos": 0}));
    assert_eq!(form["lost"], json!(true));
    assert_eq!(form["failures"], json!(1));
    assert_eq!(form["cause"], json!({"failure": "other"}));
    // The last poll is not repeated.
    let waiting = resume(&sends(issued(), s(300)).snapshot(s(301)), Some(0), 0);
    assert_eq!(
        ends(waiting, s(0)),
        BY_CLOCK(Cause::Failure(Failure::Other))
    );
}

#[test]
fn p17_what_this_version_did_not_write_is_refused() {
    let good = stored(&issued().snapshot(s(1)));
    assert!(serde_json::from_value::<Snapshot>(good.clone()).is_ok());
    let span = |secs: u64| json!({"secs": secs, "nanos": 0});
    for (name, value) in [
        ("v", json!(0)),
        ("v", json!(2)),
        ("v", json!(null)),
        ("device_code", json!("")),
        ("client", json!("short")),
        ("lifetime", span(0)),
        ("left", span(301)),
        ("left", json!({"secs": -1, "nanos": 0})),
        ("wait", json!("5")),
        ("failures", json!(-1)),
        ("last_poll", json!("sent")),
        ("last_poll", json!("maybe")),
        ("unknown", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[name] = value.clone();
        assert!(
            serde_json::from_value::<Snapshot>(bad).is_err(),
            "{name} {value}"
        );
    }
    for name in good.as_object().unwrap().keys() {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(name);
        let optional = ["cause", "taken_at"].contains(&&**name);
        assert_eq!(
            serde_json::from_value::<Snapshot>(bad).is_ok(),
            optional,
            "{name}"
        );
    }
}

#[test]
fn p18_resumed_it_goes_on_where_it_was() {
    let snapshot = poll(issued(), 5, ok(400, SLOW_DOWN)).snapshot(s(6));
    // Until the next poll 9 s, until the deadline 294 s.
    let waiting = resume(&snapshot, Some(4), 1000);
    assert_eq!(waiting.deadline(), s(1290));
    assert_eq!(wake(waiting, 1000), s(1005));
    let Next::Send(_, request) = resume(&snapshot, Some(9), 1000).next(s(1000)) else {
        panic!("it is time")
    };
    assert_eq!(whole(&request), posted(TOKEN, POLL));
    let waiting = poll(resume(&snapshot, Some(9), 1000), 1000, ok(400, PENDING));
    assert_eq!(wake(waiting, 1000), s(1010));
    let last = sends(resume(&snapshot, Some(1_000_000), 0), s(0));
    assert_eq!(
        over(last.answer(ok(400, PENDING), s(0))),
        BY_CLOCK(Cause::Pending)
    );
}

#[test]
fn p18_where_the_time_is_not_known_it_waits_a_full_floor() {
    let snapshot = poll(issued(), 5, ok(400, SLOW_DOWN)).snapshot(s(14));
    assert_eq!(wake(resume(&snapshot, None, 50), 50), s(60));
}

#[test]
fn p18_the_wall_clock_tells_the_time_unless_it_went_back() {
    let snapshot = issued().snapshot(s(0));
    assert_eq!(snapshot.elapsed(s(1000)), None);
    let snapshot = revived(&snapshot.taken_at(s(1000)));
    assert_eq!(snapshot.elapsed(s(1007)), Some(s(7)));
    assert_eq!(snapshot.elapsed(s(999)), None);
}

#[test]
fn p18_another_client_or_other_endpoints_are_refused() {
    let snapshot = issued().snapshot(s(1));
    let other = "https://other.example/";
    for flow in [
        DeviceFlow::new(endpoints(), "other"),
        DeviceFlow::new(Endpoints::new(DEVICE, other).unwrap(), "cli"),
        DeviceFlow::new(Endpoints::new(other, TOKEN).unwrap(), "cli"),
    ] {
        let error = flow.resume(snapshot.clone(), None, s(0)).unwrap_err();
        assert_eq!(error, ResumeError::Mismatch);
    }
    assert!(flow().scope("openid").resume(snapshot, None, s(0)).is_ok());
}

#[test]
fn p18_a_floor_under_one_second_is_refused() {
    let mut form = stored(&issued().snapshot(s(1)));
    form["floor"] = json!({"secs": 1, "nanos": 0});
    assert!(serde_json::from_value::<Snapshot>(form.clone()).is_ok());
    form["floor"] = json!({"secs": 0, "nanos": 999_999_999});
    assert!(serde_json::from_value::<Snapshot>(form).is_err());
}

/// The two `compile_fail` examples in `src/client/mod.rs` prove that a poller that has answered, or has a request in flight,
/// is gone. Here: an outcome leads nowhere.
#[test]
fn p19_whoever_has_an_outcome_has_no_machine_left() {
    fn no_machine(outcome: &Outcome) -> Option<(Waiting, Sent)> {
        match outcome {
            Outcome::Granted(_)
            | Outcome::Denied(_)
            | Outcome::Expired(_)
            | Outcome::Rejected(_)
            | Outcome::Failed(_)
            | Outcome::Redirected(_)
            | Outcome::Malformed(_)
            | Outcome::Cancelled(_) => None,
        }
    }
    assert!(no_machine(&issued().cancel()).is_none());
}

#[test]
fn nothing_of_a_poller_is_shown_by_debug() {
    let flow = DeviceFlow::new(endpoints(), "cli")
        .secret_post("s3cret")
        .extra("x", "s3cret");
    let issued = ISSUED
        .replace("GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS", "s3cret")
        .replace("WDJB-MJHT", "s3cret");
    let (starting, request) = flow.start(s(0)).unwrap();
    let mut shown = vec![
        format!("{flow:?}"),
        format!("{starting:?}"),
        format!("{request:?}"),
    ];
    let read = flow.read(&Received::new(200, issued.as_bytes()));
    let (waiting, prompt) = starting.answer(ok(200, &issued), s(0)).unwrap();
    shown.extend([format!("{read:?}"), format!("{prompt:?}")]);
    shown.extend([
        format!("{waiting:?}"),
        format!("{:?}", waiting.snapshot(s(0))),
    ]);
    let Next::Send(sent, request) = waiting.next(s(5)) else {
        panic!("nothing to send");
    };
    shown.extend([format!("{sent:?}"), format!("{request:?}")]);
    let shown_nothing = shown.iter().any(String::is_empty);
    assert!(!shown_nothing, "{shown:?}");
    let shown = shown.concat();
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn the_machine_can_be_held_across_an_await_on_any_thread() {
    fn is_send<T: Send + Sync + 'static>() {}
    is_send::<Waiting>();
    is_send::<Sent>();
    is_send::<Next>();
    is_send::<Snapshot>();
    is_send::<Outcome>();
    assert_eq!(size_of::<Waiting>(), size_of::<usize>());
    assert_eq!(size_of::<Sent>(), size_of::<usize>());
}

#[cfg(feature = "http")]
#[test]
fn a_request_becomes_one_of_http() {
    let flow = flow().secret_basic("s");
    let request: http::Request<String> = flow.start(s(0)).unwrap().1.into();
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.uri(), DEVICE);
    assert_eq!(request.headers().len(), 3);
    assert_eq!(request.headers()["authorization"], "Basic Y2xpOnM=");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.body(), "");
}
