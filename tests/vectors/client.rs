//! Runs the vectors of the client half: what each answer means, and what the client does next.

use std::collections::BTreeMap;

use core::time::Duration;
use device_flow::client::{
    DeviceFlow, DisplayText, Endpoints, Login, LoginError, Next, Prompt, Refusal, Request,
    Response, StartError, Tokens, TransportError, Verdict, Warning, verdict,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

// The form of a file: `tests/vectors/README.md` says what each member means.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[allow(dead_code, reason = "for the reader")]
    about: String,
    client: Map<String, Value>,
    issued: Answer,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) provider: String,
    pub(crate) bodies: Vec<String>,
    says: String,
    #[serde(default)]
    client: Map<String, Value>,
    pub(crate) exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_field_names,
    reason = "the name is that of the protocol"
)]
struct Client {
    client_id: String,
    device_authorization_endpoint: String,
    token_endpoint: String,
    scope: Option<String>,
    #[serde(default)]
    extra: BTreeMap<String, String>,
    secret_post: Option<String>,
    secret_basic: Option<String>,
    default_lifetime: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exchange {
    endpoint: Endpoint,
    at: u64,
    request: Option<Sent>,
    answer: Answer,
    pub(crate) then: Map<String, Value>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Endpoint {
    DeviceAuthorization,
    Token,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    body: String,
    authorization: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Answer {
    Response {
        status: u16,
        retry_after: Option<String>,
        body: String,
    },
    Failed {
        failure: TransportError,
    },
}

impl Answer {
    fn given(&self) -> Result<Response<&str>, TransportError> {
        match self {
            Self::Failed { failure } => Err(*failure),
            Self::Response {
                status,
                retry_after,
                body,
            } => {
                let received = Response::new(*status, &**body);
                Ok(match retry_after {
                    Some(value) => received.retry_after(value),
                    None => received,
                })
            }
        }
    }
}

/// Runs a vector.
pub(crate) fn run(file: &File, vector: &Vector) -> Result<(), String> {
    let mut client = file.client.clone();
    client.extend(vector.client.clone());
    let client: Client = serde_json::from_value(Value::Object(client)).unwrap();
    let flow = flow(&client);
    let mut login = None;
    for (number, exchange) in (1..).zip(&vector.exchanges) {
        let says = |fault: String| {
            let (id, says, at) = (&vector.id, &vector.says, exchange.at);
            format!("{id}: {says}: exchange {number}, at {at}: {fault}")
        };
        let at = Duration::from_millis(exchange.at);
        let then = match exchange.endpoint {
            Endpoint::DeviceAuthorization => {
                let own = login.insert(flow.login().unwrap());
                let Next::Send(ask) = own.next(at) else {
                    return Err(says("nothing is sent".into()));
                };
                let url = &client.device_authorization_endpoint;
                sends(ask.request(), url, exchange.request.as_ref()).map_err(says)?;
                ask.answer(exchange.answer.given(), at);
                then(own, at).map_err(says)?
            }
            Endpoint::Token => {
                let own = login.get_or_insert_with(|| issued(&flow, &file.issued));
                let Next::Send(ask) = own.next(at) else {
                    return Err(says("nothing is sent".into()));
                };
                let url = &client.token_endpoint;
                sends(ask.request(), url, exchange.request.as_ref()).map_err(says)?;
                let meaning = exchange.answer.given().ok();
                let meaning = meaning.map(|response| word(&verdict(&response)));
                ask.answer(exchange.answer.given(), at);
                let mut then = then(own, at).map_err(says)?;
                if let Some(meaning) = meaning {
                    then["verdict"] = meaning.into();
                }
                then
            }
        };
        let expected = Value::Object(exchange.then.clone());
        if then != expected {
            return Err(says(format!("then {then}, expected {expected}")));
        }
    }
    Ok(())
}

fn flow(client: &Client) -> DeviceFlow {
    let endpoints = Endpoints::new(
        client.device_authorization_endpoint.as_str(),
        client.token_endpoint.as_str(),
    );
    let mut flow = DeviceFlow::new(endpoints.unwrap(), client.client_id.as_str());
    if let Some(scope) = &client.scope {
        flow = flow.scope(scope);
    }
    for (name, value) in &client.extra {
        flow = flow.extra(name, value);
    }
    if let Some(secret) = &client.secret_post {
        flow = flow.secret_post(secret);
    }
    if let Some(secret) = &client.secret_basic {
        flow = flow.secret_basic(secret);
    }
    if let Some(lifetime) = client.default_lifetime {
        flow = flow.default_lifetime(Duration::from_millis(lifetime));
    }
    flow
}

/// Returns a login that got these codes at once.
fn issued(flow: &DeviceFlow, answer: &Answer) -> Login {
    let mut login = flow.login().unwrap();
    let Next::Send(ask) = login.next(Duration::ZERO) else {
        panic!("it asks for codes first")
    };
    ask.answer(answer.given(), Duration::ZERO);
    assert!(matches!(login.next(Duration::ZERO), Next::Show(_)));
    login
}

/// Returns what the login does after an answer. If it waits, it must still wait a millisecond before the end.
fn then(login: &mut Login, now: Duration) -> Result<Value, String> {
    match login.next(now) {
        Next::Show(prompt) => {
            let mut then = then(login, now)?;
            then["prompt"] = shown(&prompt);
            Ok(then)
        }
        Next::Wait { until } => {
            let Next::Wait { until: same } = login.next(until - Duration::from_millis(1)) else {
                return Err("it does not wait to the end".into());
            };
            assert_eq!(same, until);
            Ok(json!({"wait": u64::try_from((until - now).as_millis()).unwrap()}))
        }
        Next::Done(Err(LoginError::Start(error))) => Ok(json!({"failed": failed(&error)})),
        Next::Done(outcome) => Ok(ended(&outcome)),
        Next::Send(_) => Err("it does not wait".into()),
    }
}

/// Checks a request. The order of its parameters does not matter.
fn sends(request: &Request, url: &str, expected: Option<&Sent>) -> Result<(), String> {
    let mut headers: BTreeMap<_, _> = request.headers().collect();
    let authorization = headers.remove("authorization");
    let always = [
        ("accept", "application/json"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let is_right = request.method() == "POST" && request.url() == url && headers == always.into();
    if !is_right {
        return Err(format!("{request:?} is not what is always sent"));
    }
    let Some(expected) = expected else {
        return Ok(());
    };
    let sorted = |body: &str| {
        let mut parameters: Vec<_> = body.split('&').map(String::from).collect();
        parameters.sort();
        parameters
    };
    let got = (sorted(request.body()), authorization);
    let expected = (sorted(&expected.body), expected.authorization.as_deref());
    if got == expected {
        return Ok(());
    }
    Err(format!("sent {got:?}, expected {expected:?}"))
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pending(_) => "pending",
        Verdict::SlowDown(_) => "slow_down",
        Verdict::Denied(_) => "denied",
        Verdict::Expired(_) => "expired",
        Verdict::InvalidGrant(_) => "invalid_grant",
        Verdict::Transient => "transient",
        Verdict::Rejected(_) => "rejected",
        Verdict::Tokens(_) => "tokens",
        Verdict::Redirected(_) => "redirected",
        Verdict::Malformed(_) => "malformed",
    }
}

fn ended(outcome: &Result<Tokens, LoginError>) -> Value {
    let refused =
        |word: &str, refusal: &Refusal| json!({"outcome": word, "refusal": told(refusal)});
    match outcome {
        Ok(tokens) => json!({"outcome": "granted", "tokens": granted(tokens)}),
        Err(LoginError::Denied(refusal)) => refused("denied", refusal),
        Err(LoginError::Expired(refusal)) => refused("expired_by_server", refusal),
        Err(LoginError::TimedOut(_)) => json!({"outcome": "expired_by_clock"}),
        Err(LoginError::Rejected(refusal)) => refused("rejected", refusal),
        Err(LoginError::Failed(_)) => json!({"outcome": "failed"}),
        Err(LoginError::Redirected(_)) => json!({"outcome": "redirected"}),
        Err(LoginError::Malformed(_)) => json!({"outcome": "malformed"}),
        Err(LoginError::Cancelled(_)) => json!({"outcome": "cancelled"}),
        Err(other @ (LoginError::Start(_) | LoginError::Over)) => panic!("{other}"),
    }
}

/// Returns a value without the members that are null, empty or false.
fn given(value: Value) -> Value {
    let Value::Object(mut members) = value else {
        return value;
    };
    let nothing = [json!(null), json!({}), json!([]), json!(false)];
    members.retain(|_, value| !nothing.contains(value));
    Value::Object(members)
}

fn told(refusal: &Refusal) -> Value {
    given(json!({
        "status": refusal.status,
        "code": refusal.code(),
        "description": refusal.description.as_ref().map(DisplayText::as_str),
        "possibly_redeemed": refusal.possibly_redeemed,
        "members": refusal.members,
    }))
}

fn granted(tokens: &Tokens) -> Value {
    given(json!({
        "access_token": tokens.access_token(),
        "token_type": tokens.token_type(),
        "bearer": tokens.bearer() == Some(tokens.access_token()),
        "refresh_token": tokens.refresh_token(),
        "id_token": tokens.id_token(),
        "expires_in": tokens.expires_in().map(|span| span.as_secs()),
        "scope": tokens.scope(),
        "withheld": tokens.withheld(),
        "members": tokens.members(),
    }))
}

fn shown(prompt: &Prompt) -> Value {
    let warning = |warning: &Warning| match warning {
        Warning::Interval => "interval",
        Warning::LongInterval => "long_interval",
        Warning::VerificationUriComplete => "verification_uri_complete",
        other => panic!("{other:?} has no name in the vectors"),
    };
    let warnings: Vec<_> = prompt.warnings.iter().map(warning).collect();
    given(json!({
        "user_code": prompt.user_code,
        "verification_uri": prompt.verification_uri,
        "verification_uri_complete": prompt.verification_uri_complete,
        "lifetime": u64::try_from(prompt.lifetime.as_millis()).unwrap(),
        "warnings": warnings,
        "members": prompt.members,
    }))
}

fn failed(fault: &StartError) -> Value {
    let mut said = match fault {
        StartError::Rejected(refusal) => {
            let mut said = told(refusal);
            said["kind"] = "rejected".into();
            said
        }
        StartError::Field { name, .. } => json!({"kind": "field", "field": name}),
        StartError::Redirected(_) => json!({"kind": "redirected"}),
        StartError::Malformed(_) => json!({"kind": "malformed"}),
        StartError::Unsupported(_) => json!({"kind": "unsupported"}),
        StartError::Unavailable { .. } => json!({"kind": "unavailable"}),
        StartError::Failed(_) => json!({"kind": "failed"}),
        other => panic!("{other:?} has no name in the vectors"),
    };
    said["may_be_retried"] = fault.may_be_retried().into();
    said
}
