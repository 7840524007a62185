//! No answer panics, and its verdict is that of a plain reading of table V.
//! A 2xx without a token is never a success, text to show has no control characters, and `Debug` shows nothing of a body.
//!
//! An input is a status, headers and a body. The same body is also read as a device authorization response and as metadata.

use core::fmt;
use core::time::Duration;

use device_flow::client::{
    DeviceFlow, DisplayText, Endpoints, Login, LoginError, MAX_BODY, MAX_CHARACTERS, Malformed,
    Next, Prompt, Refusal, Response, StartError, Tokens, Verdict, Warning, verdict,
};
use device_flow::wire::metadata::{Metadata, MetadataError};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::message::{Message, is_printable, segments};

pub(crate) fn run(data: &[u8]) {
    let message = Message::read(data);
    let status = String::from_utf8_lossy(message.first)
        .parse()
        .unwrap_or(200);
    let mut received = Response::new(status, message.body);
    let pause = message.headers("retry-after");
    let pause = pause.first().map(|value| String::from_utf8_lossy(value));
    if let Some(value) = &pause {
        received = received.retry_after(value);
    }
    let body = Body::read(message.body);

    let read = verdict(&received);
    let wanted = Wanted::of(status, message.body, &body);
    agrees(&read, wanted, &body);
    shows_nothing(&format!("{read:?} {read:#?} {received:?}"), &[]);
    follows(&received, &read, pause.as_deref());

    issues(status, &received, &body);
    metadata(message.body, &body);
}

// A plain reading of bodies.

enum Body {
    /// The members in order. A value is kept only for the first member of each name in [`OURS`].
    Members(Vec<(String, Option<Value>)>),
    /// JSON, but no object.
    Other,
    Unreadable,
}

const OURS: [&str; 16] = [
    "error",
    "error_description",
    "interval",
    "access_token",
    "token_type",
    "expires_in",
    "refresh_token",
    "id_token",
    "scope",
    "device_code",
    "user_code",
    "verification_uri",
    "verification_url",
    "verification_uri_complete",
    "code",
    "message",
];

impl Body {
    fn read(octets: &[u8]) -> Self {
        let Ok(text) = core::str::from_utf8(octets) else {
            return Self::Unreadable;
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut json = serde_json::Deserializer::from_str(text);
        let object = json.deserialize_map(Object);
        if let Ok(members) = object
            && json.end().is_ok()
        {
            return Self::Members(members);
        }
        // A form has none of these characters.
        let foreign = |c: char| matches!(c, '<' | '"') || c.is_ascii_whitespace();
        let trimmed = text.trim_ascii();
        let form: Option<Vec<_>> = segments(trimmed.as_bytes()).into_iter().collect();
        let keys = ["access_token", "device_code", "error"];
        if let Some(form) = form
            && !trimmed.contains(foreign)
            && form.iter().any(|(name, _)| keys.contains(&name.as_str()))
        {
            let text = |(name, value): (String, String)| (name, Some(Value::String(value)));
            return Self::Members(form.into_iter().map(text).collect());
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Self::Other,
            Err(_) => Self::Unreadable,
        }
    }

    fn member(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Members(members) => {
                let mut named = members.iter().filter(|(own, _)| own == name);
                named.next()?.1.as_ref()
            }
            Self::Other | Self::Unreadable => None,
        }
    }

    /// Returns the text of a member, if it is a string that is not empty.
    fn text(&self, name: &str) -> Option<&str> {
        self.member(name)?.as_str().filter(|text| !text.is_empty())
    }

    fn is_repeated(&self) -> bool {
        match self {
            Self::Members(members) => OURS.iter().any(|ours| {
                let named = members.iter().filter(|(own, _)| own == ours);
                named.count() > 1
            }),
            Self::Other | Self::Unreadable => false,
        }
    }

    fn code(&self, status: u16) -> Option<&str> {
        let error = self.text("error");
        if error.is_some() || (200..300).contains(&status) {
            return error;
        }
        let known = |text: &&str| meaning(text).is_some();
        self.text("code").or(self.text("message").filter(known))
    }
}

/// Returns a value. If it cannot be read, returns an object, which is of no type that a member of the protocol has.
fn value(written: &str) -> Value {
    serde_json::from_str(written).unwrap_or_else(|_| Value::Object(serde_json::Map::new()))
}

/// Reads the members of an object. Skips the value of a member that is not of the protocol, or that comes again.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Vec<(String, Option<Value>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members: Self::Value = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            let is_first = members.iter().all(|(own, _)| *own != name);
            let value = if is_first && OURS.contains(&name.as_str()) {
                Some(value(object.next_value::<Box<RawValue>>()?.get()))
            } else {
                object.next_value::<IgnoredAny>()?;
                None
            };
            members.push((name, value));
        }
        Ok(members)
    }
}

// Table V.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Pending,
    SlowDown,
    Denied,
    Expired,
    InvalidGrant,
    Transient,
    Rejected,
    Tokens,
    Redirected,
    Malformed(Malformed),
}

fn meaning(code: &str) -> Option<Wanted> {
    Some(match code {
        "authorization_pending" => Wanted::Pending, // V4
        "slow_down" => Wanted::SlowDown,            // V5
        "access_denied" | "authorization_declined" => Wanted::Denied, // V6
        "expired_token" | "token_expired" | "code_expired" => Wanted::Expired, // V7
        "invalid_grant" | "bad_verification_code" | "incorrect_device_code" => Wanted::InvalidGrant, // V8
        "temporarily_unavailable" | "server_error" | "too_many_requests" => Wanted::Transient, // V9
        _ => return None,
    })
}

fn is_transient(status: u16) -> bool {
    status == 408 || status == 429 || (500..600).contains(&status)
}

impl Wanted {
    fn of(status: u16, octets: &[u8], body: &Body) -> Self {
        if octets.len() > MAX_BODY {
            return Self::Malformed(Malformed::TooLarge); // V1
        }
        if (300..400).contains(&status) {
            return Self::Redirected; // V2
        }
        if body.is_repeated() {
            return Self::Malformed(Malformed::Repeated); // V3
        }
        if body.text("access_token").is_some() && body.text("error").is_some() {
            return Self::Malformed(Malformed::Contradiction); // V3
        }
        match body.code(status) {
            Some(code) => match meaning(code) {
                Some(meaning) => meaning,
                None if is_transient(status) => Self::Transient, // V9
                None => Self::Rejected,                          // V10
            },
            None if (200..300).contains(&status) => match body {
                Body::Unreadable => Self::Transient, // V14
                Body::Members(_) | Body::Other => match tokens(body) {
                    Ok(()) => Self::Tokens,           // V11
                    Err(why) => Self::Malformed(why), // V12
                },
            },
            None if is_transient(status) => Self::Transient, // V13
            None if (400..500).contains(&status) => Self::Rejected, // V15
            None => Self::Malformed(Malformed::Status),
        }
    }
}

fn tokens(body: &Body) -> Result<(), Malformed> {
    match body.member("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(name)) if is_printable(name) => {}
        Some(_) => return Err(Malformed::Token),
    }
    let token = body.text("access_token").ok_or(Malformed::Empty)?;
    let others = ["refresh_token", "id_token"].map(|name| body.text(name));
    let each = [Some(token)].into_iter().chain(others).flatten();
    for token in each {
        if !is_printable(token) {
            return Err(Malformed::Token);
        }
    }
    Ok(())
}

fn agrees(read: &Verdict, wanted: Wanted, body: &Body) {
    let said = match read {
        Verdict::Pending(told) => {
            interval(*told, body);
            Wanted::Pending
        }
        Verdict::SlowDown(told) => {
            interval(*told, body);
            Wanted::SlowDown
        }
        Verdict::Denied(refusal) => {
            refused(refusal, body);
            Wanted::Denied
        }
        Verdict::Expired(refusal) => {
            refused(refusal, body);
            Wanted::Expired
        }
        Verdict::InvalidGrant(refusal) => {
            refused(refusal, body);
            Wanted::InvalidGrant
        }
        Verdict::Transient => Wanted::Transient,
        Verdict::Rejected(refusal) => {
            refused(refusal, body);
            Wanted::Rejected
        }
        Verdict::Tokens(tokens) => {
            granted(tokens, body);
            Wanted::Tokens
        }
        Verdict::Redirected(_) => Wanted::Redirected,
        Verdict::Malformed(why) => Wanted::Malformed(*why),
    };
    assert_eq!(said, wanted);
}

/// Asserts the interval of a body, if it is a number that every reader reads in the same way.
fn interval(told: Option<Duration>, body: &Body) {
    match body.member("interval") {
        None | Some(Value::Null | Value::Bool(_) | Value::Object(_) | Value::Array(_)) => {
            assert_eq!(told, None);
        }
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => assert_eq!(told, Some(Duration::from_secs(whole))),
            (None, Some(number)) if number < 0.0 => assert_eq!(told, None),
            (None, number) => {
                // The number is rounded up, so that no poll comes sooner than the server said.
                let told = told.unwrap().as_secs_f64();
                let number = number.unwrap();
                assert!(told >= number.min(1e19) && (told < number + 1.0 || number > 1e15));
            }
        },
        Some(Value::String(text)) => {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if digits && text.len() < 19 {
                assert_eq!(told, text.parse().ok().map(Duration::from_secs));
            }
        }
    }
}

fn text(read: Option<&DisplayText>, text: Option<&str>) {
    let (Some(read), Some(text)) = (read, text) else {
        assert_eq!(read.map(DisplayText::as_str), text);
        return;
    };
    is_printed(read.as_str(), text);
    assert_eq!(read.to_string(), read.as_str());
    assert_eq!(
        format!("{read:?}"),
        format!("DisplayText({} bytes)", read.as_str().len())
    );
}

/// Asserts that every character is as it was or U+FFFD, and that none can move what is on a screen.
fn is_printed(read: &str, text: &str) {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}')
            || ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{2028}'..='\u{202e}').contains(&c)
            || ('\u{2060}'..='\u{206f}').contains(&c)
            || ('\u{e0020}'..='\u{e007f}').contains(&c)
    };
    assert!(!read.chars().any(moves));
    assert_eq!(
        read.chars().count(),
        text.chars().count().min(MAX_CHARACTERS)
    );
    for (shown, given) in read.chars().zip(text.chars()) {
        assert!(shown == given || shown == char::REPLACEMENT_CHARACTER);
        assert!(shown == given || !given.is_ascii_graphic());
    }
}

fn refused(refusal: &Refusal, body: &Body) {
    let code = body.code(refusal.status);
    match (refusal.code(), code) {
        (Some(read), Some(text)) => is_printed(read, text),
        (read, text) => assert_eq!(read, text),
    }
    let description = body.text("error_description").or(body.text("message"));
    text(refusal.description.as_ref(), description);
    assert!(!refusal.possibly_redeemed);
    assert!(
        refusal
            .members
            .keys()
            .all(|name| !OURS.contains(&name.as_str()))
    );
}

fn granted(tokens: &Tokens, body: &Body) {
    assert_eq!(Some(tokens.access_token()), body.text("access_token"));
    assert_eq!(tokens.refresh_token(), body.text("refresh_token"));
    assert_eq!(tokens.id_token(), body.text("id_token"));
    let is_bearer = tokens.token_type().eq_ignore_ascii_case("bearer");
    assert_eq!(tokens.bearer(), is_bearer.then(|| tokens.access_token()));
    let token_type = body.member("token_type").and_then(Value::as_str);
    assert_eq!(tokens.token_type(), token_type.unwrap_or("Bearer"));
    assert!(tokens.withheld().is_empty());
    assert!(
        tokens
            .members()
            .keys()
            .all(|name| !OURS.contains(&name.as_str()))
    );
}

/// Asserts that every word of a `Debug` output is one of the crate's own, a number, or part of what may be shown.
fn shows_nothing(shown: &str, may: &[&str]) {
    const WORDS: &[&str] = &[
        "Contradiction",
        "Denied",
        "Empty",
        "Err",
        "Expired",
        "Field",
        "Interval",
        "LongInterval",
        "InvalidGrant",
        "Malformed",
        "None",
        "Ok",
        "Pending",
        "Prompt",
        "Response",
        "Redirected",
        "Refusal",
        "Rejected",
        "Repeated",
        "SlowDown",
        "Some",
        "Status",
        "Token",
        "Tokens",
        "TooLarge",
        "Transient",
        "Unavailable",
        "Unreadable",
        "Unsupported",
        "VerificationUriComplete",
        "device_code",
        "expires_in",
        "false",
        "interval",
        "lifetime",
        "possibly_redeemed",
        "retry_after",
        "prompt",
        "redacted",
        "status",
        "true",
        "verification_uri",
        "warnings",
        "s",
        "ms",
        "µs",
        "ns",
    ];
    let mut shown = shown.to_owned();
    for text in may {
        shown = shown.replace(&format!("{text:?}"), "");
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for word in shown.split(|c| !is_word(c)).filter(|word| !word.is_empty()) {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        assert!(
            word.is_empty() || WORDS.contains(&word),
            "{word:?} is shown"
        );
    }
    assert!(!shown.contains('"'), "a text is shown");
}

// What a login makes of it.

fn flow() -> DeviceFlow {
    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    DeviceFlow::new(endpoints.unwrap(), "cli").scope("openid profile")
}

/// Returns a login whose request for codes got this answer.
fn started<B: AsRef<[u8]>>(answer: Response<B>) -> Login {
    let mut login = flow().login().unwrap();
    if let Next::Send(ask) = login.next(Duration::ZERO) {
        ask.answer(Ok(answer), Duration::ZERO);
    }
    login
}

const SECOND: Duration = Duration::from_secs(1);

fn follows(response: &Response<&[u8]>, read: &Verdict, pause: Option<&str>) {
    const ISSUED: &str = r#"{"device_code":"d","user_code":"u","verification_uri":"https://as.example/","expires_in":300}"#;
    let mut login = started(Response::new(200, ISSUED));
    assert!(matches!(login.next(Duration::ZERO), Next::Show(_)));
    let Next::Send(ask) = login.next(SECOND * 5) else {
        panic!("it is time");
    };
    ask.answer(Ok(response.clone()), SECOND * 6);
    if login.deadline().is_some() {
        let interval = match read {
            Verdict::Pending(announced) => announced.unwrap_or_default().max(SECOND * 5),
            Verdict::SlowDown(announced) => announced.unwrap_or_default().max(SECOND * 10),
            Verdict::Transient => SECOND * 10,
            Verdict::Denied(_)
            | Verdict::Expired(_)
            | Verdict::InvalidGrant(_)
            | Verdict::Rejected(_)
            | Verdict::Tokens(_)
            | Verdict::Redirected(_)
            | Verdict::Malformed(_) => panic!("it goes on after {read:?}"),
        };
        return waits(&mut login, interval, pause);
    }
    let Next::Done(outcome) = login.next(SECOND * 6) else {
        panic!("it is over");
    };
    // An error has a text, without characters that a screen must not show.
    if let Err(error) = &outcome {
        let said = error.to_string();
        assert!(said.len() > 20 && !said.chars().any(char::is_control));
    }
    match (outcome, read) {
        (Err(LoginError::Denied(own)), Verdict::Denied(refusal))
        | (Err(LoginError::Expired(own)), Verdict::Expired(refusal))
        | (
            Err(LoginError::Rejected(own)),
            Verdict::Rejected(refusal) | Verdict::InvalidGrant(refusal),
        ) => assert_eq!(own, *refusal),
        (Ok(own), Verdict::Tokens(tokens)) => {
            assert_eq!(own.access_token(), tokens.access_token());
            let granted = tokens.scope();
            let missing = |token: &&str| {
                granted.is_some_and(|granted| granted.split(' ').all(|own| own != *token))
            };
            let withheld: Vec<_> = ["openid", "profile"].into_iter().filter(missing).collect();
            assert_eq!(own.withheld(), withheld);
        }
        (Err(LoginError::Redirected(own)), Verdict::Redirected(status)) => {
            assert_eq!(own, *status);
        }
        (Err(LoginError::Malformed(own)), Verdict::Malformed(why)) => assert_eq!(own, *why),
        (outcome, read) => panic!("{outcome:?} after {read:?}"),
    }
}

/// Asserts that the login waits. The answer came at 6 s, and the deadline is at 300 s.
fn waits(login: &mut Login, gap: Duration, pause: Option<&str>) {
    let gap = gap.min(Duration::from_hours(1));
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let pause = pause.map(str::trim_ascii).filter(digits);
    let pause = pause.map_or(0, |pause| pause.parse().unwrap_or(u64::MAX));
    let pause = Duration::from_secs(pause).min(SECOND * 294);
    let due = SECOND * 6 + gap.max(pause);
    match login.next(SECOND * 6) {
        Next::Wait { until } => assert!(until == due || (until == SECOND * 300 && due > until)),
        other @ (Next::Send(_) | Next::Show(_) | Next::Done(_)) => panic!("{other:?}"),
    }
}

// Table S.

fn issues(status: u16, response: &Response<&[u8]>, body: &Body) {
    let mut login = started(response.clone());
    let url = body
        .text("verification_uri")
        .or(body.text("verification_url"));
    let read = match login.next(Duration::ZERO) {
        Next::Show(prompt) => Ok(prompt),
        Next::Done(Err(LoginError::Start(error))) => Err(error),
        other @ (Next::Send(_) | Next::Wait { .. } | Next::Done(_)) => panic!("{other:?}"),
    };
    match &read {
        Ok(prompt) => shows_nothing(&format!("{prompt:?} {prompt:#?}"), url.as_slice()),
        // The text of this error says why, in words of this crate only.
        Err(StartError::Field { .. }) => {}
        Err(error) => shows_nothing(&format!("{error:?} {error:#?}"), &[]),
    }
    if let Err(error) = &read {
        assert!(!error.to_string().chars().any(char::is_control));
    }
    let is_2xx = (200..300).contains(&status);
    match read {
        Ok(prompt) => {
            assert!(is_2xx && body.text("error").is_none() && !body.is_repeated());
            is_issued(login, &prompt, body);
        }
        Err(StartError::Redirected(_)) => assert!((300..400).contains(&status)),
        Err(StartError::Rejected(refusal)) => {
            assert!(body.code(status).is_some() || (400..500).contains(&status));
            refused(&refusal, body);
        }
        Err(StartError::Unsupported(status)) => assert!([404, 405, 501].contains(&status)),
        Err(StartError::Unavailable { status, .. }) => assert!(is_transient(status)),
        #[allow(
            clippy::wildcard_enum_match_arm,
            reason = "the others are not met here"
        )]
        Err(StartError::Malformed(why)) => match why {
            Malformed::Repeated => assert!(body.is_repeated()),
            Malformed::Unreadable => assert!(is_2xx && matches!(body, Body::Unreadable)),
            Malformed::Status => assert!(!(200..600).contains(&status)),
            other => panic!("{other:?}"),
        },
        Err(StartError::Field { name, .. }) => {
            assert!(is_2xx);
            // A value to which nobody could object is accepted.
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
            let seconds = |value: &Value| value.as_u64().is_some_and(|number| number > 0);
            let blameless = match name {
                "device_code" => body.text("device_code").is_some(),
                "user_code" => {
                    let code = body.text("user_code");
                    code.is_some_and(|code| code.len() <= 64 && plain(code))
                }
                "verification_uri" => url.is_some_and(|url| {
                    let host = url.strip_prefix("https://");
                    host.is_some_and(|host| !host.is_empty() && host.len() < 1000 && plain(host))
                }),
                "expires_in" => body.member("expires_in").is_some_and(seconds),
                other => panic!("{other:?}"),
            };
            assert!(!blameless, "{name}");
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn is_issued(mut login: Login, prompt: &Prompt, body: &Body) {
    let issued = login.interval().unwrap();
    assert_eq!(Some(&*prompt.user_code), body.text("user_code"));
    assert!(prompt.user_code.len() <= 64);
    let kept: Prompt = serde_json::from_value(serde_json::to_value(prompt).unwrap()).unwrap();
    assert_eq!(kept, *prompt);
    // However long the interval is, the device polls in the end.
    if let Next::Send(ask) = login.next(Duration::MAX) {
        let sent = segments(ask.request().body().as_bytes())
            .into_iter()
            .flatten();
        let sent: Vec<_> = sent.filter(|(name, _)| name == "device_code").collect();
        assert_eq!(sent.len(), 1);
        assert_eq!(Some(&*sent[0].1), body.text("device_code"));
    }
    assert!(prompt.user_code.bytes().all(|b| b.is_ascii_graphic()));
    is_uri(&prompt.verification_uri);
    let complete = body.text("verification_uri_complete");
    let is_dropped = prompt.warnings.contains(&Warning::VerificationUriComplete);
    if let Some(uri) = &prompt.verification_uri_complete {
        is_uri(uri);
        assert_eq!(complete, Some(uri.as_str()));
        assert!(!is_dropped);
    } else {
        let given = body.member("verification_uri_complete");
        assert_eq!(is_dropped, given.is_some_and(|value| !value.is_null()));
    }
    assert!(!prompt.lifetime.is_zero() && !issued.is_zero());
    let is_long = issued > prompt.lifetime || issued > Duration::from_hours(1);
    assert_eq!(prompt.warnings.contains(&Warning::LongInterval), is_long);
    if prompt.warnings.contains(&Warning::Interval) {
        assert_eq!(issued, SECOND * 5);
    } else {
        interval(Some(issued), body);
    }
}

/// Asserts that a browser may open the URL. Users are never asked to open another kind.
fn is_uri(uri: &str) {
    assert!(uri.len() <= 2048);
    is_safe(uri);
}

fn is_safe(uri: &str) {
    assert!(uri.bytes().all(|b| b.is_ascii_graphic()));
    let (scheme, rest) = uri.split_once("://").unwrap();
    let authority = rest.split(['/', '?', '#']).next().unwrap();
    assert!(!authority.is_empty() && !authority.contains('@'));
    let loopback = ["localhost", "127.", "[::1]"];
    let lower = authority.to_ascii_lowercase();
    let is_loopback = loopback.iter().any(|own| lower.starts_with(own));
    let scheme = scheme.to_ascii_lowercase();
    assert!(scheme == "https" || (scheme == "http" && is_loopback));
}

// Table M.

fn metadata(octets: &[u8], body: &Body) {
    const ISSUER: &str = "https://as.example";
    // Also expect the issuer that the document itself names, because otherwise the rest of most documents is not reached.
    let named: Option<Value> = serde_json::from_slice(octets).ok();
    let named = named
        .as_ref()
        .and_then(|document| document.get("issuer")?.as_str());
    for issuer in [Some(ISSUER), named].into_iter().flatten() {
        match Metadata::read(octets, issuer) {
            Ok(metadata) => {
                assert!(matches!(body, Body::Members(_)));
                assert_eq!(metadata.issuer(), issuer);
                let endpoints = [
                    metadata.device_authorization_endpoint(),
                    metadata.token_endpoint(),
                ];
                endpoints.into_iter().flatten().for_each(is_uri);
                let both = endpoints.iter().all(Option::is_some);
                assert_eq!(Endpoints::from_metadata(&metadata).is_ok(), both);
                // Only the names of the other members are compared, because `serde_json` does not keep the last bit of a number of many
                // digits.
                let again = Metadata::read(metadata.to_json().as_bytes(), issuer).unwrap();
                assert_eq!(again.issuer(), issuer);
                assert_eq!(
                    [
                        again.device_authorization_endpoint(),
                        again.token_endpoint()
                    ],
                    endpoints
                );
                assert!(again.members().keys().eq(metadata.members().keys()));
                let completed = metadata.or_device_authorization_endpoint("https://as.example/d");
                assert!(completed.unwrap().device_authorization_endpoint().is_some());
            }
            Err(MetadataError::Issuer) => assert!(named != Some(issuer)),
            Err(_) => {}
        }
        let urls = [Metadata::well_known(issuer), Metadata::openid(issuer)];
        for url in urls.into_iter().flatten() {
            // If an issuer has the longest length, its well-known URL is longer.
            assert!(url.len() <= 2048 + "/.well-known/oauth-authorization-server".len());
            is_safe(&url);
            assert!(url.contains("/.well-known/"));
        }
    }
}
