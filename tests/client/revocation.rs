//! Row R21: revoking, as the client half does it.

use core::ops::ControlFlow;

use device_flow::client::{DeviceFlow, FlowError, Request, RequestError, Response};

use crate::support::{self, TIMEOUT, endpoints, ok, posted, s, whole};

const REVOKE: &str = "https://as.example/oauth2/revoke";

pub(super) fn revocable() -> DeviceFlow {
    DeviceFlow::new(endpoints().revocation(REVOKE).unwrap(), "cli")
}

#[test]
fn r21_a_revocation_has_the_token_its_kind_and_the_clients_authentication() {
    let flow = revocable();
    let body = "token=r+1&token_type_hint=refresh_token&client_id=cli";
    let revocation = flow.revoke_refresh_token("r 1").unwrap();
    assert_eq!(whole(revocation.request()), posted(REVOKE, body));
    let body = "token=a&token_type_hint=access_token&client_id=cli";
    let revocation = flow.revoke_access_token("a").unwrap();
    assert_eq!(whole(revocation.request()), posted(REVOKE, body));
    let fault = |flow: DeviceFlow, token| flow.revoke_access_token(token).unwrap_err();
    assert_eq!(fault(flow, ""), FlowError::Token);
    assert_eq!(fault(support::flow(), "a"), FlowError::RevocationEndpoint);
}

#[test]
fn r21_200_is_done_whatever_the_body() {
    let revocation = revocable().revoke_refresh_token("r").unwrap();
    for body in ["", "{}", "<html>", r#"{"error":"invalid_request"}"#] {
        assert_eq!(revocation.answer(ok(200, body)), Ok(()), "{body}");
    }
}

#[test]
fn r21_503_may_be_tried_again_and_an_unsupported_token_type_is_reported() {
    let revocation = revocable().revoke_access_token("a").unwrap();
    let failed = |answer| revocation.answer(answer).unwrap_err();
    for error in [
        failed(Ok(Response::new(503, "").retry_after("3"))),
        failed(Ok(Response::new(429, "").retry_after("3"))),
    ] {
        assert!(error.may_be_retried());
        assert_eq!(error.retry_after(), Some(s(3)));
    }
    assert!(failed(TIMEOUT).may_be_retried());
    let unsupported = failed(ok(400, r#"{"error":"unsupported_token_type"}"#));
    assert!(!unsupported.may_be_retried());
    assert_eq!(
        unsupported.to_string(),
        "the server refused the request: unsupported_token_type (status 400); revoke the refresh token instead"
    );
    assert!(matches!(
        failed(ok(401, r#"{"error":"invalid_client"}"#)),
        RequestError::Rejected(_)
    ));
    assert_eq!(failed(ok(302, "")), RequestError::Redirected(302));
}

#[test]
fn r21_the_loop_sends_a_revocation_again() {
    let mut revocation = revocable().revoke_refresh_token("r").unwrap();
    let mut answers = [ok(503, ""), TIMEOUT, ok(200, "")].into_iter();
    let mut pauses = Vec::new();
    let send = |_: Request| answers.next().unwrap();
    let revoked = revocation.run_blocking(send, |span| {
        pauses.push(span);
        ControlFlow::Continue(())
    });
    assert_eq!((revoked, pauses), (Ok(()), vec![s(1), s(2)]));
}
