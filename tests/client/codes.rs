//! Table S: asking for the codes.

use device_flow::client::{MAX_BODY, Malformed, Response, StartError, TransportError, Warning};
use serde_json::json;

use crate::support::{
    Answer, ISSUED, TIMEOUT, flow, issued_with, ok, refused, s, shown, start, told, waits,
};

/// Returns why there are no codes after this answer.
fn refusal(answer: Answer<'_>) -> StartError {
    start(&flow(), answer).unwrap_err()
}

/// Changes [`ISSUED`] in one place. Returns the name of the member for which it is then refused, or `None` if it is accepted.
fn field(from: &str, to: &str) -> Option<&'static str> {
    assert!(ISSUED.contains(from), "{from}");
    match start(&flow(), ok(200, &ISSUED.replace(from, to))) {
        Err(StartError::Field { name, .. }) => Some(name),
        Err(other) => panic!("{other:?}"),
        Ok(_) => None,
    }
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
fn s4_a_temporary_failure_may_be_tried_again_by_the_caller() {
    for status in [408, 429, 500, 502, 503, 599] {
        let error = refusal(ok(status, "busy"));
        assert!(error.may_be_retried());
        let StartError::Unavailable { status: told, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(told, status);
    }
    assert_eq!(
        refusal(TIMEOUT),
        StartError::Failed(TransportError::ConnectionTimeout)
    );
    assert!(refusal(TIMEOUT).may_be_retried());
    assert!(refusal(Err(TransportError::Other)).may_be_retried());
    assert!(!refusal(Err(TransportError::Permanent)).may_be_retried());
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
        (device, "device_code"),
        (user, "user_code"),
        (uri, "verification_uri"),
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
    let error = refusal(ok(200, "[]"));
    assert!(matches!(
        error,
        StartError::Field {
            name: "device_code",
            ..
        }
    ));
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
            Some("user_code"),
            "{code}"
        );
    }
}

#[test]
fn s5_a_user_code_has_at_most_64_characters() {
    let code = |length| "W".repeat(length) + "\",";
    assert_eq!(field("WDJB-MJHT\",", &code(64)), None);
    assert_eq!(field("WDJB-MJHT\",", &code(65)), Some("user_code"));
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
        let expected = (!fits).then_some("verification_uri");
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
            Some("expires_in"),
            "{value}"
        );
    }
    assert_eq!(field("\"expires_in\":300,", ""), Some("expires_in"));
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
    for unusable in ["\"soon\"", "0"] {
        let error = lifetime(&format!("\"expires_in\":{unusable}")).unwrap_err();
        assert!(matches!(
            error,
            StartError::Field {
                name: "expires_in",
                ..
            }
        ));
    }
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
        let (login, prompt) = start(&flow(), ok(200, &body)).unwrap();
        assert_eq!(prompt.warnings, [Warning::Interval], "{value}");
        assert_eq!(waits(login, s(0)).1, s(5), "{value}");
    }
    let (login, prompt) = start(&flow(), ok(200, &ISSUED.replace(",\"interval\":5", ""))).unwrap();
    assert_eq!(prompt.warnings, [Warning::Interval]);
    assert_eq!(waits(login, s(0)).1, s(5));
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
fn s7_an_interval_longer_than_the_lifetime_or_an_hour_is_kept_to_with_a_warning() {
    for (interval, lifetime, is_long) in [
        (300, 300, false),
        (301, 300, true),
        (3600, 100_000, false),
        (3601, 100_000, true),
    ] {
        let body = ISSUED
            .replace("\"expires_in\":300", &format!("\"expires_in\":{lifetime}"))
            .replace("\"interval\":5", &format!("\"interval\":{interval}"));
        let (login, prompt) = start(&flow(), ok(200, &body)).unwrap();
        let warnings: &[_] = if is_long {
            &[Warning::LongInterval]
        } else {
            &[]
        };
        assert_eq!(prompt.warnings, warnings, "{interval} {lifetime}");
        assert_eq!(login.interval(), Some(s(interval)));
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
    let (login, prompt) = start(&flow(), ok(201, &body)).unwrap();
    let expected = json!({
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://as.example/device",
        "verification_uri_complete": "https://as.example/device?user_code=WDJB-MJHT",
        "lifetime": 300,
        "members": {"x": [1]},
    });
    assert_eq!(shown(&prompt), expected);
    assert_eq!(prompt.warnings, []);
    assert_eq!(waits(login, s(0)).1, s(5));
}

#[test]
fn s9_a_byte_order_mark_before_the_codes_is_skipped() {
    let (login, prompt) = start(&flow(), ok(200, &format!("\u{feff}{ISSUED}"))).unwrap();
    assert_eq!(prompt, start(&flow(), ok(200, ISSUED)).unwrap().1);
    assert_eq!(waits(login, s(0)).1, s(5));
}

#[test]
fn an_error_says_what_the_server_said_and_what_to_do() {
    let scope = r#"{"error":"invalid_scope","error_description":"No \u001b[1madmin."}"#;
    let busy = Ok(Response::new(429, r#"{"error":"daily_quota_exceeded"}"#).retry_after("30"));
    let down = Ok(Response::new(503, "").retry_after("7"));
    let http = ISSUED.replace("https://as.example/device\"", "http://as.example/device\"");
    for (answer, said) in [
        (
            ok(400, scope),
            "the server issued no codes: invalid_scope: No \u{fffd}[1madmin. (status 400); ask for a scope that the server \
             knows and that this client is allowed to request",
        ),
        (
            ok(401, r#"{"error":"invalid_client"}"#),
            "the server issued no codes: invalid_client (status 401); check the client id, the secret, and whether the server \
             wants the secret in the header or in the body",
        ),
        (
            ok(403, r#"{"error":"access_denied"}"#),
            "the server issued no codes: access_denied (status 403); allow this request for this client in the server's \
             settings",
        ),
        (
            busy,
            "the server issued no codes: daily_quota_exceeded (status 429); try again after 30 seconds",
        ),
        (
            down,
            "the server could not answer (status 503); try again after 7 seconds",
        ),
        (
            ok(502, "<html>"),
            "the server could not answer (status 502); try again later",
        ),
        (
            ok(404, ""),
            "the server has no device authorization endpoint at this URL (status 404); check the URL; if it is right, the server does not support the device grant",
        ),
        (
            ok(200, &http),
            "the server's response cannot be used, because its verification_uri cannot be used: the URL must be https, or http \
             on loopback; report this to whoever runs the server",
        ),
        (
            ok(200, "<html>"),
            "the server issued no codes: the response is neither JSON nor a form; check the endpoint's URL, and whether this network wants its own sign-in first",
        ),
        (
            TIMEOUT,
            "the server did not answer in time; check the network connection, then try again later",
        ),
    ] {
        assert_eq!(refusal(answer).to_string(), said);
    }
}

#[test]
fn s4_what_may_be_tried_again_says_when() {
    let answer = |status, body| refusal(Ok(Response::new(status, body).retry_after("30")));
    for error in [answer(503, ""), answer(429, r#"{"error":"x"}"#)] {
        assert!(error.may_be_retried());
        assert_eq!(error.retry_after(), Some(s(30)));
    }
    assert_eq!(refusal(ok(503, "")).retry_after(), None);
}
