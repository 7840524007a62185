//! Rows R19 and R20: refreshing, as the client half does it.

use core::ops::ControlFlow;
use core::time::Duration;

use device_flow::client::{
    DeviceFlow, FlowError, Malformed, Refresh, Request, RequestError, Response, TransportError,
};
use serde_json::json;

use super::revocation::revocable;
use crate::support::{
    self, Answer, INVALID_GRANT, SUCCESS, TIMEOUT, TOKEN, endpoints, flow, granted, ok, posted, s,
    whole,
};

/// A success that was cut short.
const CUT_SHORT: &str = r#"{"access_token":"a","refr"#;

fn refresh() -> Refresh {
    flow().refresh("r1").unwrap()
}

#[test]
fn r19_a_refresh_has_the_grant_type_the_token_and_the_clients_authentication() {
    let body = "grant_type=refresh_token&refresh_token=r1&client_id=cli";
    assert_eq!(whole(refresh().request()), posted(TOKEN, body));
    // The scope of the login is not sent, because the granted scope stays as it is.
    let asks = flow()
        .scope("openid offline_access")
        .extra("audience", "api");
    let asks = asks.refresh("r 1").unwrap();
    let body = "grant_type=refresh_token&refresh_token=r+1&client_id=cli&audience=api";
    assert_eq!(whole(asks.request()), posted(TOKEN, body));

    let basic = flow().secret_basic("s").refresh("r1").unwrap();
    let headers: Vec<_> = basic.request().headers().collect();
    assert!(headers.contains(&("authorization", "Basic Y2xpOnM=")));
    assert_eq!(
        basic.request().body(),
        "grant_type=refresh_token&refresh_token=r1"
    );
    let post = flow().secret_post("s").refresh("r1").unwrap();
    let body = "grant_type=refresh_token&refresh_token=r1&client_id=cli&client_secret=s";
    assert_eq!(whole(post.request()), posted(TOKEN, body));
}

#[test]
fn r19_a_refresh_may_ask_for_less() {
    let mut less = flow().refresh_narrowed("r1", "openid email").unwrap();
    let body = "grant_type=refresh_token&refresh_token=r1&scope=openid+email&client_id=cli";
    assert_eq!(whole(less.request()), posted(TOKEN, body));
    let answer = ok(200, r#"{"access_token":"a","scope":"openid"}"#);
    assert_eq!(less.answer(answer).unwrap().withheld(), ["email"]);
    let fault = flow().refresh_narrowed("r1", "").unwrap_err();
    assert_eq!(fault, FlowError::EmptyScope);
    let fault = flow().refresh_narrowed("r1", "a  b").unwrap_err();
    assert!(matches!(fault, FlowError::Scope(_)));
}

#[test]
fn r19_a_mistake_is_reported_before_anything_is_sent() {
    assert_eq!(flow().refresh("").unwrap_err(), FlowError::Token);
    let flow = DeviceFlow::new(endpoints(), "");
    assert_eq!(flow.refresh("r1").unwrap_err(), FlowError::ClientId);
}

#[test]
fn r19_a_success_without_a_refresh_token_keeps_the_old_one() {
    let tokens = refresh().answer(ok(200, SUCCESS)).unwrap();
    assert_eq!(tokens.refresh_token(), Some("r1"));
    let rotated = r#"{"access_token":"a","refresh_token":"r2"}"#;
    let tokens = refresh().answer(ok(200, rotated)).unwrap();
    assert_eq!(tokens.refresh_token(), Some("r2"));
    let mut expected = support::bearer_a();
    expected["refresh_token"] = json!("r2");
    assert_eq!(granted(&tokens), expected);
}

#[test]
fn r19_an_answer_is_read_by_table_v() {
    fn ended(answer: Answer<'_>) -> RequestError {
        refresh().answer(answer).unwrap_err()
    }
    let coded = |status, code| ended(ok(status, &json!({"error": code}).to_string()));
    for code in ["invalid_grant", "expired_token", "access_denied"] {
        let RequestError::Ended(refusal) = coded(400, code) else {
            panic!("{code}")
        };
        assert_eq!(refusal.code(), Some(code));
        assert!(!refusal.possibly_redeemed);
    }
    for code in [
        "invalid_client",
        "invalid_scope",
        "unauthorized_client",
        "x",
    ] {
        assert!(
            matches!(coded(400, code), RequestError::Rejected(_)),
            "{code}"
        );
    }
    assert_eq!(ended(ok(302, SUCCESS)), RequestError::Redirected(302));
    assert_eq!(
        ended(ok(200, "{}")),
        RequestError::Malformed(Malformed::Empty)
    );
    for error in [
        coded(400, "temporarily_unavailable"),
        coded(200, "slow_down"),
        ended(ok(429, "")),
        ended(ok(200, "<html>")),
    ] {
        assert!(matches!(error, RequestError::Unavailable { .. }), "{error}");
        assert!(error.may_be_retried());
    }
    let interval = ok(400, r#"{"error":"slow_down","interval":7}"#);
    assert_eq!(ended(interval).retry_after(), Some(s(7)));
    let busy = Ok(Response::new(429, "").retry_after("30"));
    assert_eq!(ended(busy).retry_after(), Some(s(30)));
}

#[test]
fn r20_after_a_lost_answer_the_same_token_may_be_sent_again() {
    for lost in [
        TIMEOUT,
        Err(TransportError::Other),
        ok(502, "<html>"),
        ok(503, r#"{"error":"temporarily_unavailable"}"#),
        ok(200, CUT_SHORT),
    ] {
        let mut refresh = refresh();
        let before = whole(refresh.request());
        let error = refresh.answer(lost).unwrap_err();
        assert!(error.may_be_retried(), "{error}");
        assert_eq!(whole(refresh.request()), before);
        assert!(refresh.answer(ok(200, SUCCESS)).is_ok());
    }
    let error = refresh().answer::<&str>(Err(TransportError::Permanent));
    assert!(!error.unwrap_err().may_be_retried());
}

#[test]
fn r20_invalid_grant_after_a_lost_answer_is_possibly_reused() {
    let possibly = |first: Answer<'_>| {
        let mut refresh = refresh();
        assert!(refresh.answer(first).is_err());
        match refresh.answer(ok(400, INVALID_GRANT)) {
            Err(RequestError::Ended(refusal)) => refusal.possibly_redeemed,
            other => panic!("{other:?}"),
        }
    };
    for lost in [TIMEOUT, ok(503, ""), ok(200, CUT_SHORT)] {
        assert!(possibly(lost));
    }
    for read in [ok(429, ""), ok(400, r#"{"error":"server_error"}"#)] {
        assert!(!possibly(read));
    }
    // Another process may have sent the token before.
    let mut again = refresh().sent_before();
    let ended = again.answer(ok(400, INVALID_GRANT)).unwrap_err();
    assert!(matches!(ended, RequestError::Ended(refusal) if refusal.possibly_redeemed));
}

#[test]
fn a_refresh_error_says_what_happened_and_what_to_do() {
    let said = |answer| refresh().answer(answer).unwrap_err().to_string();
    let refused = r#"{"error":"invalid_grant","error_description":"Revoked."}"#;
    assert_eq!(
        said(ok(400, refused)),
        "the server no longer accepts the refresh token (invalid_grant: Revoked. (status 400)); sign in again"
    );
    let mut again = refresh().sent_before();
    let ended = again.answer(ok(400, refused)).unwrap_err().to_string();
    assert!(ended.contains("an earlier answer was lost"), "{ended}");
    assert_eq!(
        said(Ok(Response::new(503, "").retry_after("9"))),
        "the server could not answer (status 503); try again after 9 seconds"
    );
    assert_eq!(
        said(ok(401, r#"{"error":"invalid_client"}"#)),
        "the server refused the request: invalid_client (status 401); check the client id, the secret, and whether the server \
         wants the secret in the header or in the body"
    );
    assert_eq!(
        said(TIMEOUT),
        "the server did not answer in time; check the network connection, then try again later"
    );
}

/// Runs a refresh against these answers. Returns its result, and the pauses in seconds.
fn run(answers: &[Answer<'static>]) -> (Result<Option<String>, RequestError>, Vec<u64>) {
    let (mut pauses, mut answers) = (Vec::new(), answers.iter().cloned());
    let send = |request: Request| {
        assert_eq!(request.url(), TOKEN);
        answers.next().unwrap()
    };
    let wait = |span: Duration| {
        pauses.push(span.as_secs());
        ControlFlow::Continue(())
    };
    let refreshed = refresh().run_blocking(send, wait);
    assert_eq!(answers.next().map(|_| ()), None, "answers are left");
    let refreshed = refreshed.map(|tokens| tokens.refresh_token().map(str::to_owned));
    (refreshed, pauses)
}

#[test]
fn r20_the_loop_sends_a_refresh_again_within_the_grace_of_a_server() {
    let token = Ok(Some("r1".to_owned()));
    assert_eq!(run(&[ok(200, SUCCESS)]), (token.clone(), vec![]));
    let lossy = [TIMEOUT, ok(503, ""), ok(200, CUT_SHORT), ok(200, SUCCESS)];
    assert_eq!(run(&lossy), (token.clone(), vec![1, 2, 4]));
    let busy = || Ok(Response::new(503, "").retry_after("9"));
    assert_eq!(run(&[busy(), ok(200, SUCCESS)]), (token, vec![9]));
    // The loop sends at most four times. It does not send again if that would take too long or would be of no use.
    let (failed, pauses) = run(&[TIMEOUT, TIMEOUT, TIMEOUT, TIMEOUT]);
    let timeout = RequestError::Failed(TransportError::ConnectionTimeout);
    assert_eq!((failed, pauses), (Err(timeout), vec![1, 2, 4]));
    let long = Ok(Response::new(429, "").retry_after("11"));
    let (failed, pauses) = run(&[long]);
    assert_eq!(failed.unwrap_err().retry_after(), Some(s(11)));
    assert!(pauses.is_empty());
    let (failed, pauses) = run(&[ok(400, INVALID_GRANT)]);
    assert!(matches!(failed, Err(RequestError::Ended(_))) && pauses.is_empty());
}

#[test]
fn r20_a_refresh_that_is_given_up_returns_the_last_error() {
    let send = |_: Request| TIMEOUT;
    let refreshed = refresh().run_blocking(send, |_| ControlFlow::Break(()));
    let timeout = RequestError::Failed(TransportError::ConnectionTimeout);
    assert_eq!(refreshed.map(|_| ()), Err(timeout));
}

#[test]
fn nothing_of_a_refresh_or_a_revocation_is_shown_by_debug() {
    let flow = revocable().secret_post("s3cret");
    let mut refresh = flow.refresh("s3cret").unwrap();
    let body = r#"{"error":"s3cret","error_description":"s3cret"}"#;
    let shown = [
        format!("{refresh:?}"),
        format!("{:?}", refresh.answer(ok(400, body))),
        format!(
            "{:?}",
            refresh.answer(ok(200, r#"{"access_token":"s3cret"}"#))
        ),
        format!("{:?}", flow.revoke_refresh_token("s3cret")),
    ];
    assert!(
        shown.iter().all(|shown| !shown.contains("s3cret")),
        "{shown:?}"
    );
}
