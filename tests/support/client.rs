//! What the tests of the client half share: a client, its answers, and the whole of what it sends and says.

use core::time::Duration;

use device_flow::client::{
    Ask, DeviceFlow, DisplayText, Endpoints, Login, LoginError, Next, Prompt, Refusal, Request,
    Response, StartError, Tokens, TransportError,
};
use serde_json::{Value, json};

pub(crate) const DEVICE: &str = "https://as.example/oauth2/device_authorization";
pub(crate) const TOKEN: &str = "https://as.example/oauth2/token";

/// What a server issues: 300 s to live, 5 s between polls.
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

/// Seconds.
pub(crate) const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An answer with this status and body.
#[allow(clippy::unnecessary_wraps, reason = "it stands beside the failures")]
pub(crate) fn ok(status: u16, body: &str) -> Answer<'_> {
    Ok(Response::new(status, body))
}

pub(crate) fn endpoints() -> Endpoints {
    Endpoints::new(DEVICE, TOKEN).unwrap()
}

/// A public client without a scope.
pub(crate) fn flow() -> DeviceFlow {
    DeviceFlow::new(endpoints(), "cli")
}

/// Asks for codes at 0 and answers at once. The prompt is shown.
pub(crate) fn start(flow: &DeviceFlow, answer: Answer<'_>) -> Result<(Login, Prompt), StartError> {
    start_at(flow, s(0), answer, s(0))
}

/// The same, asked and answered at these moments.
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

/// A login of [`ISSUED`], issued at 0: the first poll is due at 5, the deadline is at 300.
pub(crate) fn issued() -> Login {
    start(&flow(), ok(200, ISSUED)).unwrap().0
}

/// A login with another interval and lifetime.
pub(crate) fn issued_with(flow: &DeviceFlow, interval: u64, lifetime: u64) -> Login {
    let body = ISSUED
        .replace("\"expires_in\":300", &format!("\"expires_in\":{lifetime}"))
        .replace("\"interval\":5", &format!("\"interval\":{interval}"));
    start(flow, ok(200, &body)).unwrap().0
}

/// The login has to wait at `now`; says until when.
pub(crate) fn waits(mut login: Login, now: Duration) -> (Login, Duration) {
    let until = match login.next(now) {
        Next::Wait { until } => until,
        other @ (Next::Send(_) | Next::Show(_) | Next::Done(_)) => panic!("{other:?}"),
    };
    (login, until)
}

/// The login has to send at `now`.
pub(crate) fn sends(login: &mut Login, now: Duration) -> Ask<'_> {
    match login.next(now) {
        Next::Send(ask) => ask,
        other @ (Next::Wait { .. } | Next::Show(_) | Next::Done(_)) => panic!("{other:?}"),
    }
}

/// The login has to send at `sent`, and is answered at `now`.
pub(crate) fn answered(
    mut login: Login,
    sent: Duration,
    answer: Answer<'_>,
    now: Duration,
) -> Login {
    sends(&mut login, sent).answer(answer, now);
    login
}

/// The login is at its end at `now`.
pub(crate) fn ends(mut login: Login, now: Duration) -> Result<Tokens, LoginError> {
    match login.next(now) {
        Next::Done(outcome) => outcome,
        other @ (Next::Wait { .. } | Next::Show(_) | Next::Send(_)) => panic!("{other:?}"),
    }
}

/// The login is at its end, whatever the clock shows.
pub(crate) fn over(login: Login) -> Result<Tokens, LoginError> {
    assert_eq!(login.deadline(), None, "it goes on");
    ends(login, s(0))
}

/// Polls [`issued`] once at 5 and ends.
pub(crate) fn outcome(answer: Answer<'_>) -> Result<Tokens, LoginError> {
    over(answered(issued(), s(5), answer, s(5)))
}

/// The whole of a request.
pub(crate) fn whole(request: &Request) -> Value {
    let headers: Vec<_> = request.headers().collect();
    json!([request.method(), request.url(), headers, request.body()])
}

/// The request to expect, of a client without a header for its secret.
pub(crate) fn posted(url: &str, body: &str) -> Value {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
    ];
    json!(["POST", url, headers, body])
}

/// The whole of a refusal.
pub(crate) fn told(refusal: &Refusal) -> Value {
    json!({
        "status": refusal.status,
        "code": refusal.code(),
        "description": refusal.description.as_ref().map(DisplayText::as_str),
        "possibly_redeemed": refusal.possibly_redeemed,
        "members": refusal.members,
    })
}

/// A refusal by a code alone.
pub(crate) fn refused(status: u16, code: &str) -> Value {
    json!({"status": status, "code": code, "description": null, "possibly_redeemed": false, "members": {}})
}

/// The whole of the tokens.
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

/// A bearer token `a` and nothing else.
pub(crate) fn bearer_a() -> Value {
    json!({
        "bearer": "a", "access_token": "a", "token_type": "Bearer", "refresh_token": null, "id_token": null,
        "expires_in": null, "scope": null, "withheld": [], "members": {},
    })
}

/// The whole of a prompt, the warnings apart.
pub(crate) fn shown(prompt: &Prompt) -> Value {
    json!({
        "user_code": prompt.user_code,
        "verification_uri": prompt.verification_uri,
        "verification_uri_complete": prompt.verification_uri_complete,
        "lifetime": prompt.lifetime.as_secs(),
        "members": prompt.members,
    })
}
