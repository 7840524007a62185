//! What the tests of the client half share: a client, the answers that it gets, and JSON values of all that it sends and reports.

use core::time::Duration;

use device_flow::client::{
    Ask, DeviceFlow, DisplayText, Endpoints, Login, LoginError, Next, Prompt, Refusal, Request,
    Response, StartError, Tokens, TransportError,
};
use serde_json::{Value, json};

pub(crate) const DEVICE: &str = "https://as.example/oauth2/device_authorization";
pub(crate) const TOKEN: &str = "https://as.example/oauth2/token";

/// The response with codes. They live for 300 s, with 5 s between polls.
pub(crate) const ISSUED: &str = r#"{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
    "user_code":"WDJB-MJHT","verification_uri":"https://as.example/device",
    "verification_uri_complete":"https://as.example/device?user_code=WDJB-MJHT","expires_in":300,"interval":5}"#;

/// The body of a poll for [`ISSUED`].
pub(crate) const POLL: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code\
    &device_code=GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS&client_id=cli";

pub(crate) const PENDING: &str = r#"{"error":"authorization_pending"}"#;
pub(crate) const SLOW_DOWN: &str = r#"{"error":"slow_down"}"#;
pub(crate) const INVALID_GRANT: &str = r#"{"error":"invalid_grant"}"#;
pub(crate) const SUCCESS: &str = r#"{"access_token":"a","token_type":"Bearer"}"#;

pub(crate) type Answer<'a> = Result<Response<&'a str>, TransportError>;

pub(crate) const TIMEOUT: Answer<'static> = Err(TransportError::ConnectionTimeout);

/// Returns a span of this many seconds.
pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns a response with this status and body.
#[allow(clippy::unnecessary_wraps, reason = "it stands beside the failures")]
pub(crate) fn ok(status: u16, body: &str) -> Answer<'_> {
    Ok(Response::new(status, body))
}

pub(crate) fn endpoints() -> Endpoints {
    Endpoints::new(DEVICE, TOKEN).unwrap()
}

/// Returns the flow of a public client without a scope.
pub(crate) fn flow() -> DeviceFlow {
    DeviceFlow::new(endpoints(), "cli")
}

/// Starts a login at 0, and answers its request for codes at once. Returns the login and the prompt that it has shown, or the error.
pub(crate) fn start(flow: &DeviceFlow, answer: Answer<'_>) -> Result<(Login, Prompt), StartError> {
    start_at(flow, s(0), answer, s(0))
}

/// Starts a login as [`start`] does, but the request goes out at `asked` and is answered at `now`.
pub(crate) fn start_at(
    flow: &DeviceFlow,
    asked: Duration,
    answer: Answer<'_>,
    now: Duration,
) -> Result<(Login, Prompt), StartError> {
    let mut login = flow.login().unwrap();
    let Next::Send(ask) = login.next(asked) else {
        panic!("it asks for codes first")
    };
    ask.answer(answer, now);
    match login.next(now) {
        Next::Show(prompt) => Ok((login, prompt)),
        Next::Done(Err(LoginError::Start(error))) => Err(error),
        other @ (Next::Send(_) | Next::Wait { .. } | Next::Done(_)) => panic!("{other:?}"),
    }
}

/// Returns a login with the codes of [`ISSUED`], issued at 0. Its first poll is due at 5 s, and its deadline is at 300 s.
pub(crate) fn issued() -> Login {
    start(&flow(), ok(200, ISSUED)).unwrap().0
}

/// Returns a login with the codes of [`ISSUED`], but with another interval and lifetime, in seconds.
pub(crate) fn issued_with(flow: &DeviceFlow, interval: u64, lifetime: u64) -> Login {
    let body = ISSUED
        .replace("\"expires_in\":300", &format!("\"expires_in\":{lifetime}"))
        .replace("\"interval\":5", &format!("\"interval\":{interval}"));
    start(flow, ok(200, &body)).unwrap().0
}

/// Asserts that the login waits at `now`. Returns the login, and until when it waits.
pub(crate) fn waits(mut login: Login, now: Duration) -> (Login, Duration) {
    let until = match login.next(now) {
        Next::Wait { until } => until,
        other @ (Next::Send(_) | Next::Show(_) | Next::Done(_)) => panic!("{other:?}"),
    };
    (login, until)
}

/// Asserts that the login sends at `now`, and returns the [`Ask`] to answer.
pub(crate) fn sends(login: &mut Login, now: Duration) -> Ask<'_> {
    match login.next(now) {
        Next::Send(ask) => ask,
        other @ (Next::Wait { .. } | Next::Show(_) | Next::Done(_)) => panic!("{other:?}"),
    }
}

/// Asserts that the login sends at `sent`, and answers it at `now`.
pub(crate) fn answered(
    mut login: Login,
    sent: Duration,
    answer: Answer<'_>,
    now: Duration,
) -> Login {
    sends(&mut login, sent).answer(answer, now);
    login
}

/// Asserts that the login has ended at `now`, and returns its outcome.
pub(crate) fn ends(mut login: Login, now: Duration) -> Result<Tokens, LoginError> {
    match login.next(now) {
        Next::Done(outcome) => outcome,
        other @ (Next::Wait { .. } | Next::Show(_) | Next::Send(_)) => panic!("{other:?}"),
    }
}

/// Asserts that the login has ended, whatever the clock shows, and returns its outcome.
pub(crate) fn over(login: Login) -> Result<Tokens, LoginError> {
    assert_eq!(login.deadline(), None, "the login has not ended");
    ends(login, s(0))
}

/// Answers the first poll of [`issued`] at 5 s. Asserts that this ends the login, and returns its outcome.
pub(crate) fn outcome(answer: Answer<'_>) -> Result<Tokens, LoginError> {
    over(answered(issued(), s(5), answer, s(5)))
}

/// Returns everything that a request has.
pub(crate) fn whole(request: &Request) -> Value {
    let headers: Vec<_> = request.headers().collect();
    json!([request.method(), request.url(), headers, request.body()])
}

/// Returns the expected request, in the form of [`whole`], of a client that sends no `Authorization` header.
pub(crate) fn posted(url: &str, body: &str) -> Value {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
    ];
    json!(["POST", url, headers, body])
}

/// Returns everything that a refusal holds.
pub(crate) fn told(refusal: &Refusal) -> Value {
    json!({
        "status": refusal.status,
        "code": refusal.code(),
        "description": refusal.description.as_ref().map(DisplayText::as_str),
        "possibly_redeemed": refusal.possibly_redeemed,
        "members": refusal.members,
    })
}

/// Returns a refusal with this status and code and nothing else, in the form of [`told`].
pub(crate) fn refused(status: u16, code: &str) -> Value {
    json!({"status": status, "code": code, "description": null, "possibly_redeemed": false, "members": {}})
}

/// Returns everything that tokens hold.
pub(crate) fn granted(tokens: &Tokens) -> Value {
    json!({
        "bearer": tokens.bearer(),
        "access_token": tokens.access_token(),
        "token_type": tokens.token_type(),
        "refresh_token": tokens.refresh_token(),
        "id_token": tokens.id_token(),
        "expires_in": tokens.expires_in().map(|span| span.as_secs()),
        "scope": tokens.scope(),
        "withheld": tokens.withheld(),
        "members": tokens.members(),
    })
}

/// Returns the bearer token `a` and nothing else, in the form of [`granted`].
pub(crate) fn bearer_a() -> Value {
    json!({
        "bearer": "a", "access_token": "a", "token_type": "Bearer", "refresh_token": null, "id_token": null,
        "expires_in": null, "scope": null, "withheld": [], "members": {},
    })
}

/// Returns everything that a prompt holds, except the warnings.
pub(crate) fn shown(prompt: &Prompt) -> Value {
    json!({
        "user_code": prompt.user_code,
        "verification_uri": prompt.verification_uri,
        "verification_uri_complete": prompt.verification_uri_complete,
        "lifetime": prompt.lifetime.as_secs(),
        "members": prompt.members,
    })
}
