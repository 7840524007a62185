//! Mistakes of other clients that must not happen here. Each test names the report.

use core::time::Duration;

use device_flow::client::{
    LoginError, Malformed, Response, TransportError, Verdict, WaitingFor, Warning, verdict,
};

use crate::support::{
    INVALID_GRANT, ISSUED, PENDING, SLOW_DOWN, SUCCESS, TIMEOUT, answered, bearer_a, ends, flow,
    granted, issued, issued_with, ok, outcome, over, s, start, waits,
};

/// cli/cli #9370, cli/oauth #111: the client gave up at the second `slow_down`.
#[test]
fn a_second_slow_down_is_no_end() {
    let login = answered(issued(), s(5), ok(400, SLOW_DOWN), s(5));
    let login = answered(login, s(15), ok(400, SLOW_DOWN), s(15));
    assert_eq!(waits(login, s(15)).1, s(30));
}

/// cli/cli #9370: a client with a fast clock got `slow_down` again and again. The interval has to grow until it makes up for the drift.
#[test]
fn a_fast_clock_ends_up_under_the_servers_limit() {
    // The server's clock runs at 0.7 of the client's speed. It slows down a client that polls before five of its own seconds have passed.
    let (mut login, mut now, mut slowed) = (issued(), s(5), 0);
    let mut last: Option<Duration> = None;
    for _ in 0..10 {
        let early = last.is_some_and(|last| (now - last).mul_f64(0.7) < s(5));
        slowed += u32::from(early);
        last = Some(now);
        let answer = ok(400, if early { SLOW_DOWN } else { PENDING });
        (login, now) = waits(answered(login, now, answer, now), now);
    }
    assert_eq!(slowed, 1);
}

/// openid-client PR #824: a client must obey `Retry-After`.
#[test]
fn retry_after_is_honoured() {
    let answer = Ok(Response::new(429, "").retry_after("42"));
    let login = answered(issued(), s(5), answer, s(5));
    assert_eq!(waits(login, s(5)).1, s(47));
}

/// oauth2-rs PR #216: a back-off of at most 10 s lowered an interval of 30 s.
#[test]
fn a_back_off_never_lowers_the_interval() {
    let mut login = issued_with(&flow(), 30, 1800);
    let mut now = s(30);
    for _ in 0..5 {
        let (later, until) = waits(answered(login, now, TIMEOUT, now), now);
        assert_eq!(until - now, s(60));
        (login, now) = (later, until);
    }
}

/// oauth2-rs #218, openid-client #575: servers sent errors with status 200.
#[test]
fn an_error_with_status_200_is_an_error() {
    let read = |body| verdict(&Response::new(200, body));
    assert_eq!(read(PENDING), Verdict::Pending(None));
    assert_eq!(read(SLOW_DOWN), Verdict::SlowDown(None));
    assert!(matches!(read(INVALID_GRANT), Verdict::InvalidGrant(_)));
}

/// oauth2-rs #191, openid-client #478: servers sent numbers as strings.
#[test]
fn numbers_may_be_strings() {
    let body = ISSUED.replace(":300", ":\"301\"").replace(":5}", ":\"6\"}");
    let (login, prompt) = start(&flow(), ok(200, &body)).unwrap();
    assert_eq!((prompt.lifetime, prompt.warnings), (s(301), vec![]));
    assert_eq!(waits(login, s(0)).1, s(6));
}

/// oauth2-rs #193: expiry by the clock and by the server looked the same.
#[test]
fn who_says_that_the_code_expired_can_be_told() {
    let (login, _) = start(&flow().no_final_poll(), ok(200, ISSUED)).unwrap();
    assert!(matches!(
        ends(login, s(300)),
        Err(LoginError::TimedOut(None))
    ));
    let server = outcome(ok(400, r#"{"error":"expired_token"}"#));
    assert!(matches!(server, Err(LoginError::Expired(_))));
}

/// crush #3399: a client that counted its wait from the request polled too early.
#[test]
fn a_slow_answer_does_not_shorten_the_wait() {
    let login = answered(issued(), s(5), ok(400, PENDING), s(12));
    assert_eq!(waits(login, s(12)).1, s(17));
}

/// socket-cli #1507: a missing interval became NaN, and the client polled in a tight loop.
#[test]
fn a_missing_interval_is_five_seconds() {
    for interval in [
        "",
        ",\"interval\":null",
        ",\"interval\":\"NaN\"",
        ",\"interval\":0",
    ] {
        let (login, prompt) = start(
            &flow(),
            ok(200, &ISSUED.replace(",\"interval\":5", interval)),
        )
        .unwrap();
        assert_eq!(prompt.warnings, [Warning::Interval]);
        let login = answered(login, s(5), ok(400, PENDING), s(5));
        assert_eq!(waits(login, s(5)).1, s(10));
    }
}

/// openclaw PR #103434: the interval in `slow_down` lowered the interval of the client.
#[test]
fn an_interval_in_slow_down_never_lowers_the_floor() {
    let slow = r#"{"error":"slow_down","interval":1}"#;
    let login = answered(issued(), s(5), ok(200, slow), s(5));
    assert_eq!(waits(login, s(5)).1, s(15));
}

/// loopover #6792, hyperframes #2836: a 429 ended the login.
#[test]
fn too_many_requests_is_no_end() {
    for body in [
        "",
        "rate limited",
        r#"{"error":"rate_limit_exceeded"}"#,
        r#"{"message":"x"}"#,
    ] {
        let login = answered(issued(), s(5), ok(429, body), s(5));
        assert_eq!(waits(login, s(5)).1, s(15));
    }
}

/// ADAL #825: a client must poll one last time at the deadline.
#[test]
fn an_approval_in_the_last_seconds_is_found() {
    let login = answered(issued(), s(297), ok(400, PENDING), s(297));
    assert!(over(answered(login, s(302), ok(200, SUCCESS), s(302))).is_ok());
}

/// stripe-cli #2038: the login did not survive a restart.
#[test]
fn a_restart_goes_on_with_the_same_code() {
    let kept =
        serde_json::to_string(&issued().snapshot(s(2)).unwrap().stamped(s(1_790_000_000))).unwrap();
    let snapshot = serde_json::from_str::<device_flow::client::Snapshot>(&kept).unwrap();
    let elapsed = snapshot.elapsed(s(1_790_000_002));
    let login = flow().resume(snapshot, elapsed, s(0)).unwrap();
    assert_eq!(waits(login, s(0)).1, s(1));
}

/// pizauth #48: after a suspension, the client decided by itself that the code had expired.
#[test]
fn a_machine_that_was_suspended_asks_the_server() {
    assert!(over(answered(issued(), s(86_400), ok(200, SUCCESS), s(86_400))).is_ok());
}

/// MSAL.NET #3283: a login that was cancelled and one that timed out looked the same.
#[test]
fn cancelled_and_timed_out_differ() {
    let mut cancelled = issued();
    cancelled.cancel();
    assert_eq!(over(cancelled), Err(LoginError::Cancelled(None)));
    let timed_out = over(answered(issued(), s(300), TIMEOUT, s(300)));
    let cause = WaitingFor::Connection(TransportError::ConnectionTimeout);
    assert_eq!(timed_out, Err(LoginError::TimedOut(Some(cause))));
}

/// `twitch_oauth2`: a token that had arrived was thrown away at the deadline.
#[test]
fn a_token_that_arrives_after_the_deadline_is_granted() {
    let Ok(tokens) = over(answered(issued(), s(299), ok(200, SUCCESS), s(301))) else {
        panic!("it came")
    };
    assert_eq!(granted(&tokens), bearer_a());
}

/// msal-js #4507: a 200 with neither a token nor an error was taken for a success.
#[test]
fn a_success_without_a_token_is_none() {
    let read = verdict(&Response::new(
        200,
        r#"{"token_type":"Bearer","expires_in":3600}"#,
    ));
    assert_eq!(read, Verdict::Malformed(Malformed::Empty));
}
