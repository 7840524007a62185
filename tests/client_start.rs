//! Tables T and S: what is sent, and asking for the codes.

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

use device_flow::client::{
    DeviceFlow, EndpointError, Endpoints, Failure, Field, FlowError, MAX_BODY, Malformed, Next,
    Received, StartError, Warning,
};
use device_flow::scope::ScopeError;
use device_flow::wire::metadata::UrlError;
use serde_json::{Value, json};
use support::{
    Answer, DEVICE, ISSUED, POLL, TIMEOUT, TOKEN, endpoints, flow, issued_with, ok, posted,
    refused, s, shown, start, told, waits, whole,
};

/// The request that starts a flow.
fn started(flow: &DeviceFlow) -> Value {
    whole(&flow.start(s(0)).unwrap().1)
}

/// The first poll of a flow.
fn polled(flow: &DeviceFlow) -> Value {
    match start(flow, ok(200, ISSUED)).unwrap().0.next(s(5)) {
        Next::Send(_, request) => whole(&request),
        other @ (Next::Wait(..) | Next::Done(_)) => panic!("{other:?}"),
    }
}

/// Why there are no codes.
fn refusal(answer: Answer<'_>) -> StartError {
    start(&flow(), answer).unwrap_err()
}

/// Why [`ISSUED`], changed in one place, is no good.
fn field(from: &str, to: &str) -> Option<Field> {
    assert!(ISSUED.contains(from), "{from}");
    match start(&flow(), ok(200, &ISSUED.replace(from, to))) {
        Err(StartError::Field(field)) => Some(field),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
}

#[test]
fn t1_every_request_is_a_post_of_a_form_that_asks_for_json() {
    assert_eq!(started(&flow()), posted(DEVICE, "client_id=cli"));
    assert_eq!(polled(&flow()), posted(TOKEN, POLL));
}

#[test]
fn t1_no_parameter_is_sent_twice() {
    // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
    let twice = flow().extra("audience", "a").extra("audience", "b");
    assert_eq!(twice.start(s(0)).unwrap_err(), FlowError::Repeated);
}

#[test]
fn t2_the_start_has_the_client_id_the_scope_and_the_parameters_of_the_caller() {
    let flow = DeviceFlow::new(endpoints(), "client 1&2")
        .scope("openid app:read")
        .extra("audience", "https://api.example/ü");
    let body = "client_id=client+1%262&scope=openid+app%3Aread&audience=https%3A%2F%2Fapi.example%2F%C3%BC";
    assert_eq!(started(&flow), posted(DEVICE, body));
}

#[test]
fn t2_an_empty_scope_is_not_sent() {
    assert_eq!(started(&flow().scope("")), posted(DEVICE, "client_id=cli"));
}

#[test]
fn t2_a_parameter_with_a_name_of_ours_is_refused() {
    for name in [
        "client_id",
        "client_secret",
        "scope",
        "grant_type",
        "device_code",
        "",
    ] {
        let fault = flow().extra(name, "x").start(s(0)).unwrap_err();
        assert_eq!(fault, FlowError::Reserved, "{name}");
    }
}

#[test]
fn t2_a_mistake_in_the_set_up_is_told_before_anything_is_sent() {
    let flow = |id: &str| DeviceFlow::new(endpoints(), id);
    let faults = [
        (flow(""), FlowError::ClientId),
        (flow("ü"), FlowError::ClientId),
        (
            flow("cli").scope("a  b"),
            FlowError::Scope(ScopeError::Spacing),
        ),
        (
            flow("cli").scope("\""),
            FlowError::Scope(ScopeError::Character),
        ),
        (flow("cli").secret_basic(""), FlowError::Secret),
        (flow("cli").secret_post("a\nb"), FlowError::Secret),
        (
            flow("cli").secret_post("a").secret_basic("a"),
            FlowError::Repeated,
        ),
        // The first one counts.
        (flow("\n").scope("\""), FlowError::ClientId),
    ];
    for (flow, fault) in faults {
        assert_eq!(flow.start(s(0)).unwrap_err(), fault);
    }
}

#[test]
fn t3_a_poll_has_the_grant_type_the_device_code_the_client_id_and_no_scope() {
    let flow = flow().scope("openid").extra("audience", "api");
    assert_eq!(
        polled(&flow),
        posted(TOKEN, &format!("{POLL}&audience=api"))
    );
}

#[test]
fn t3_a_device_code_travels_as_it_was_issued() {
    let issued = ISSUED.replace(
        "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
        r"a+b/c=& ü\u0022",
    );
    let (waiting, _) = start(&flow(), ok(200, &issued)).unwrap();
    let Next::Send(_, request) = waiting.next(s(5)) else {
        panic!("it is time")
    };
    let body = POLL.replace(
        "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS",
        "a%2Bb%2Fc%3D%26+%C3%BC%22",
    );
    assert_eq!(whole(&request), posted(TOKEN, &body));
}

#[test]
fn t4_with_basic_id_and_secret_are_encoded_twice_and_not_in_the_body() {
    // "The client identifier is encoded using the "application/x-www-form-urlencoded" encoding algorithm per Appendix B,
    // and the encoded value is used as the username" (RFC 6749, section 2.3.1)
    let flow = DeviceFlow::new(endpoints(), "a:b")
        .scope("openid")
        .secret_basic("p w%");
    let headers = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("accept", "application/json"),
        // a%3Ab:p+w%25
        ("authorization", "Basic YSUzQWI6cCt3JTI1"),
    ];
    assert_eq!(
        started(&flow),
        json!(["POST", DEVICE, headers, "scope=openid"])
    );
    let body = POLL.replace("&client_id=cli", "");
    assert_eq!(polled(&flow), json!(["POST", TOKEN, headers, body]));
}

#[test]
fn t4_with_the_body_method_id_and_secret_are_in_the_body() {
    let flow = flow().secret_post("p w%").extra("audience", "api");
    let tail = "audience=api&client_secret=p+w%25";
    assert_eq!(
        started(&flow),
        posted(DEVICE, &format!("client_id=cli&{tail}"))
    );
    assert_eq!(polled(&flow), posted(TOKEN, &format!("{POLL}&{tail}")));
}

#[test]
fn t4_endpoints_that_must_not_be_used_make_no_client() {
    let plain = Endpoints::new("http://as.example/device", TOKEN);
    assert_eq!(plain, Err(EndpointError::Url(UrlError::Plain)));
    let fragment = Endpoints::new(DEVICE, "https://as.example/token#x");
    assert_eq!(fragment, Err(EndpointError::Url(UrlError::Fragment)));
    assert!(Endpoints::new("http://localhost:8080/device", "http://127.0.0.1/token").is_ok());
}

#[test]
fn s1_a_redirect_is_not_followed() {
    for status in [300, 302, 307, 399] {
        assert_eq!(refusal(ok(status, ISSUED)), StartError::Redirected(status));
    }
}

#[test]
fn s1_a_body_over_the_limit_is_malformed() {
    let fits = format!("{ISSUED}{}", " ".repeat(MAX_BODY - ISSUED.len()));
    assert!(start(&flow(), ok(200, &fits)).is_ok());
    let too_large = StartError::Malformed(Malformed::TooLarge);
    assert_eq!(refusal(ok(200, &format!("{fits} "))), too_large);
}

#[test]
fn s1_a_member_twice_is_malformed() {
    for (from, to) in [
        ("\"interval\":5", "\"interval\":5,\"interval\":6"),
        ("\"interval\":5", "\"interval\":null,\"interval\":6"),
        ("\"user_code\"", "\"user_code\":\"A\",\"user\\u005fcode\""),
    ] {
        let error = refusal(ok(200, &ISSUED.replace(from, to)));
        assert_eq!(error, StartError::Malformed(Malformed::Repeated));
    }
}

#[test]
fn s2_an_error_with_any_status_is_a_refusal_and_access_denied_is_no_decision_of_the_user() {
    for status in [200, 400, 401, 403, 404, 500] {
        for code in [
            "invalid_client",
            "access_denied",
            "authorization_pending",
            "x",
        ] {
            let body = json!({"error": code}).to_string();
            let StartError::Rejected(refusal) = refusal(ok(status, &body)) else {
                panic!("{status} {code}")
            };
            assert_eq!(told(&refusal), refused(status, code));
        }
    }
}

#[test]
fn s2_a_refusal_says_whether_the_same_request_may_succeed_later() {
    let later = |status, body| refusal(ok(status, body)).may_be_retried();
    assert!(later(429, r#"{"error":"daily_quota_exceeded"}"#));
    assert!(later(400, r#"{"error":"temporarily_unavailable"}"#));
    assert!(!later(400, r#"{"error":"invalid_scope"}"#));
}

#[test]
fn s3_an_endpoint_that_is_not_there_is_unsupported() {
    for status in [404, 405, 501] {
        for body in ["", "<html>", r#"{"message":"Not Found"}"#] {
            let error = refusal(ok(status, body));
            assert_eq!(error, StartError::Unsupported(status));
            assert!(!error.may_be_retried());
        }
    }
}

#[test]
fn s4_a_failure_that_may_pass_may_be_tried_again_by_the_caller() {
    for status in [408, 429, 500, 502, 503, 599] {
        let error = refusal(ok(status, "busy"));
        assert_eq!(error, StartError::Unavailable(status));
        assert!(error.may_be_retried());
    }
    assert_eq!(
        refusal(TIMEOUT),
        StartError::Failed(Failure::ConnectionTimeout)
    );
    assert!(refusal(TIMEOUT).may_be_retried());
    assert!(refusal(Err(Failure::Other)).may_be_retried());
    assert!(!refusal(Err(Failure::Permanent)).may_be_retried());
}

#[test]
fn s4_another_status_without_an_oauth_body_is_a_refusal_by_the_status() {
    for body in ["", "<html>", "{}", "[]"] {
        let StartError::Rejected(refusal) = refusal(ok(400, body)) else {
            panic!("{body}")
        };
        let bare = json!({
            "status": 400, "code": null, "description": null, "possibly_redeemed": false, "members": {},
        });
        assert_eq!(told(&refusal), bare);
    }
    assert_eq!(
        refusal(ok(101, "")),
        StartError::Malformed(Malformed::Status)
    );
    assert_eq!(
        refusal(ok(600, "")),
        StartError::Malformed(Malformed::Status)
    );
}

#[test]
fn s5_a_member_that_is_missing_or_empty_is_named() {
    let device = "\"device_code\":\"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS\"";
    let user = "\"user_code\":\"WDJB-MJHT\"";
    let uri = "\"verification_uri\":\"https://as.example/device\"";
    for (member, expected) in [
        (device, Field::DeviceCode),
        (user, Field::UserCode),
        (uri, Field::VerificationUri),
    ] {
        let name = member.split(':').next().unwrap();
        for value in ["\"\"", "null", "7", "{}", "[\"a\"]", "true"] {
            let changed = format!("{name}:{value}");
            assert_eq!(field(member, &changed), Some(expected), "{changed}");
        }
        assert_eq!(field(member, "\"x\":1"), Some(expected));
    }
    let unreadable = StartError::Malformed(Malformed::Unreadable);
    assert_eq!(refusal(ok(200, "<html>please log in</html>")), unreadable);
    assert_eq!(refusal(ok(200, "[]")), StartError::Field(Field::DeviceCode));
}

#[test]
fn s5_a_user_code_is_visible_ascii() {
    for code in [
        "WDJB MJHT",
        "WDJB\\u001b[2J",
        "ＷＤＪＢ",
        "a\\u202eb",
        "\\u00adab",
    ] {
        assert_eq!(
            field("WDJB-MJHT\",", &format!("{code}\",")),
            Some(Field::UserCode),
            "{code}"
        );
    }
}

#[test]
fn s5_a_verification_uri_is_absolute_without_user_information_and_secure() {
    let long = format!("https://as.example/{}", "a".repeat(2048 - 19));
    for (uri, fits) in [
        ("http://localhost/device", true),
        ("http://127.0.0.1:3000/device", true),
        ("http://[::1]:3000/device", true),
        ("HTTPS://AS.example", true),
        ("https://as.example/a?b=c#d", true),
        (&*long, true),
        (&*format!("{long}a"), false),
        ("http://as.example/device", false),
        ("http://localhost.evil.example/", false),
        ("http://127.0.0.1.evil.example/", false),
        ("https://as.example@evil.example/device", false),
        ("https://as.example\\\\@evil.example/device", false),
        ("https:///device", false),
        ("https://", false),
        ("https:as.example", false),
        ("https://as.example:99999/", false),
        ("//as.example/device", false),
        ("/device", false),
        ("javascript://as.example/%0aalert(1)", false),
        ("ftp://as.example/device", false),
        ("https://as.example/a b", false),
        ("https://as.example/\\u0007", false),
        ("https://as.example/ü", false),
        ("https://[::1", false),
    ] {
        let expected = (!fits).then_some(Field::VerificationUri);
        assert_eq!(
            field("https://as.example/device\"", &format!("{uri}\"")),
            expected,
            "{uri}"
        );
    }
}

#[test]
fn s5_plain_http_may_be_allowed_for_what_is_shown() {
    let body = ISSUED.replace("https://", "http://");
    assert!(start(&flow(), ok(200, &body)).is_err());
    let (_, prompt) = start(&flow().allow_plain_http(), ok(200, &body)).unwrap();
    assert_eq!(prompt.verification_uri, "http://as.example/device");
    assert_eq!(prompt.warnings, []);
}

#[test]
fn s6_a_lifetime_that_is_absent_or_not_positive_is_named() {
    for value in [
        "0", "-1", "-0.5", "\"\"", "\"soon\"", "null", "{}", "true", "\"-3\"", "0.0",
    ] {
        let changed = format!("\"expires_in\":{value}");
        assert_eq!(
            field("\"expires_in\":300", &changed),
            Some(Field::ExpiresIn),
            "{value}"
        );
    }
    assert_eq!(field("\"expires_in\":300,", ""), Some(Field::ExpiresIn));
}

#[test]
fn s6_a_default_lifetime_stands_in_where_there_is_none_and_only_there() {
    let flow = flow().default_lifetime(s(600));
    let lifetime = |to: &str| {
        let body = ISSUED.replace("\"expires_in\":300", to);
        start(&flow, ok(200, &body)).map(|(_, prompt)| prompt.lifetime)
    };
    assert_eq!(lifetime("\"x\":1"), Ok(s(600)));
    assert_eq!(lifetime("\"expires_in\":null"), Ok(s(600)));
    assert_eq!(lifetime("\"expires_in\":7"), Ok(s(7)));
    assert_eq!(
        lifetime("\"expires_in\":\"soon\""),
        Err(StartError::Field(Field::ExpiresIn))
    );
    assert_eq!(
        lifetime("\"expires_in\":0"),
        Err(StartError::Field(Field::ExpiresIn))
    );
}

#[test]
fn s6_numbers_may_be_floats_or_strings_and_are_rounded_up() {
    for (value, seconds) in [
        ("300.0", 300),
        ("300.2", 301),
        ("0.001", 1),
        ("1e-12", 1),
        ("3e2", 300),
        ("\"300\"", 300),
        ("\"300.5\"", 301),
        ("18446744073709551615", u64::MAX),
        ("18446744073709551616", u64::MAX),
        ("1e300", u64::MAX),
        ("\"1e999\"", u64::MAX),
    ] {
        let body = ISSUED.replace("\"expires_in\":300", &format!("\"expires_in\":{value}"));
        let (_, prompt) = start(&flow(), ok(200, &body)).unwrap();
        assert_eq!(prompt.lifetime, s(seconds), "{value}");
    }
}

#[test]
fn s7_without_an_interval_that_makes_sense_it_is_five_seconds_and_a_warning() {
    // "If no value is provided, clients MUST use 5 as the default." (RFC 8628, section 3.2)
    for value in [
        "null", "0", "-5", "\"x\"", "\"NaN\"", "true", "{}", "[5]", "-0.0", "\"-1\"",
    ] {
        let body = ISSUED.replace("\"interval\":5", &format!("\"interval\":{value}"));
        let (waiting, prompt) = start(&flow(), ok(200, &body)).unwrap();
        assert_eq!(prompt.warnings, [Warning::Interval], "{value}");
        assert_eq!(waits(waiting, s(0)).1, s(5), "{value}");
    }
    let (waiting, prompt) =
        start(&flow(), ok(200, &ISSUED.replace(",\"interval\":5", ""))).unwrap();
    assert_eq!(prompt.warnings, [Warning::Interval]);
    assert_eq!(waits(waiting, s(0)).1, s(5));
}

#[test]
fn s7_an_interval_that_makes_sense_is_taken_as_it_is() {
    for interval in [1, 2, 30, 299] {
        assert_eq!(
            waits(issued_with(&flow(), interval, 300), s(0)).1,
            s(interval)
        );
    }
}

#[test]
fn s8_a_bad_complete_uri_is_dropped_with_a_warning() {
    for value in [
        "\"\"",
        "\"javascript:alert(1)\"",
        "\"http://as.example/\"",
        "7",
    ] {
        let good = "\"https://as.example/device?user_code=WDJB-MJHT\"";
        let (_, prompt) = start(&flow(), ok(200, &ISSUED.replace(good, value))).unwrap();
        assert_eq!(prompt.verification_uri_complete, None, "{value}");
        assert_eq!(
            prompt.warnings,
            [Warning::VerificationUriComplete],
            "{value}"
        );
    }
}

#[test]
fn s8_the_complete_uri_is_never_compared_with_the_user_code() {
    let body = ISSUED.replace("user_code=WDJB-MJHT", "user_code=BDWD-HQPK");
    let (_, prompt) = start(&flow(), ok(200, &body)).unwrap();
    assert_eq!(prompt.warnings, []);
    let complete = "https://as.example/device?user_code=BDWD-HQPK";
    assert_eq!(prompt.verification_uri_complete.as_deref(), Some(complete));
}

#[test]
fn s9_a_complete_answer_is_a_prompt_and_a_poller() {
    let body = ISSUED.replace(
        "\"interval\":5",
        "\"interval\":5,\"message\":\"go there\",\"x\":[1]",
    );
    let (waiting, prompt) = start(&flow(), ok(201, &body)).unwrap();
    let expected = json!({
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://as.example/device",
        "verification_uri_complete": "https://as.example/device?user_code=WDJB-MJHT",
        "lifetime": 300,
        "members": {"x": [1]},
    });
    assert_eq!(shown(&prompt), expected);
    assert_eq!(prompt.warnings, []);
    assert_eq!(waits(waiting, s(0)).1, s(5));
}

#[test]
fn s9_the_same_may_be_read_without_a_machine() {
    let authorization = flow().read(&Received::new(200, ISSUED)).unwrap();
    assert_eq!(
        authorization.device_code(),
        "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS"
    );
    assert_eq!(authorization.interval, s(5));
    assert_eq!(
        authorization.prompt,
        start(&flow(), ok(200, ISSUED)).unwrap().1
    );
}
