//! Table V: what an answer to a poll means.

use device_flow::client::{
    DisplayText, MAX_BODY, MAX_CHARACTERS, Malformed, Refusal, Response, Tokens, Verdict, verdict,
};
use serde_json::{Value, json};

use crate::support::{bearer_a, granted, refused, s, told};

/// A sample of the statuses that a final answer may have.
const STATUSES: [u16; 14] = [
    200, 201, 204, 299, 400, 401, 403, 404, 408, 428, 429, 499, 500, 503,
];

fn read(status: u16, body: impl AsRef<[u8]>) -> Verdict {
    verdict(&Response::new(status, body))
}

fn coded(status: u16, code: &str) -> Verdict {
    read(status, json!({"error": code}).to_string())
}

fn rejected(verdict: Verdict) -> Refusal {
    let Verdict::Rejected(refusal) = verdict else {
        panic!("{verdict:?}")
    };
    refusal
}

fn tokens(verdict: Verdict) -> Tokens {
    let Verdict::Tokens(tokens) = verdict else {
        panic!("{verdict:?}")
    };
    tokens
}

#[test]
fn v1_a_body_over_the_limit_is_malformed() {
    let fits = format!("{{\"access_token\":\"a\"{}}}", " ".repeat(MAX_BODY - 20));
    assert_eq!(fits.len(), MAX_BODY);
    assert_eq!(granted(&tokens(read(200, &fits))), bearer_a());
    for status in [200, 302, 400, 503] {
        let verdict = read(status, format!("{fits} "));
        assert_eq!(verdict, Verdict::Malformed(Malformed::TooLarge));
    }
}

#[test]
fn v2_a_redirect_is_refused_whatever_its_body() {
    for status in 300..=399 {
        for body in [
            r#"{"access_token":"a"}"#,
            r#"{"error":"authorization_pending"}"#,
            "",
        ] {
            assert_eq!(read(status, body), Verdict::Redirected(status));
        }
    }
}

#[test]
fn v3_a_member_of_ours_that_comes_twice_is_malformed() {
    // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
    for name in [
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "id_token",
        "scope",
        "error",
        "error_description",
        "interval",
        "code",
        "message",
    ] {
        for (first, second) in [
            ("\"a\"", "\"a\""),
            ("null", "\"a\""),
            ("\"\"", "[]"),
            ("{}", "1"),
            ("true", "\"a\""),
            ("-1", "1"),
        ] {
            for status in [200, 400, 500] {
                let body = format!("{{\"{name}\":{first},\"x\":1,\"{name}\":{second}}}");
                let repeated = Verdict::Malformed(Malformed::Repeated);
                assert_eq!(read(status, &body), repeated, "{status} {body}");
            }
        }
    }
    let form = "error=authorization_pending&interval=5&error=slow_down";
    assert_eq!(read(200, form), Verdict::Malformed(Malformed::Repeated));
    let escaped = "{\"error\":\"slow_down\",\"err\\u006fr\":\"slow_down\"}";
    assert_eq!(read(400, escaped), Verdict::Malformed(Malformed::Repeated));
}

#[test]
fn v3_another_member_may_come_twice() {
    let body = r#"{"access_token":"a","x":1,"x":2}"#;
    let mut expected = bearer_a();
    expected["members"] = json!({"x": 2});
    assert_eq!(granted(&tokens(read(200, body))), expected);
}

#[test]
fn v3_a_token_and_an_error_in_one_is_malformed() {
    for status in STATUSES {
        for error in ["authorization_pending", "slow_down", "access_denied", "x"] {
            let body = json!({"access_token": "a", "error": error}).to_string();
            assert_eq!(
                read(status, body),
                Verdict::Malformed(Malformed::Contradiction)
            );
        }
    }
    for error in ["\"\"", "null", "{}", "7", "[\"x\"]"] {
        let body = format!("{{\"access_token\":\"a\",\"error\":{error}}}");
        assert_eq!(granted(&tokens(read(200, body))), bearer_a());
    }
}

#[test]
fn v4_authorization_pending_is_pending_with_any_status() {
    for status in STATUSES {
        assert_eq!(
            coded(status, "authorization_pending"),
            Verdict::Pending(None),
            "{status}"
        );
    }
}

#[test]
fn v4_a_pending_answer_may_name_an_interval() {
    for (value, told) in [
        ("7", Some(s(7))),
        ("7.2", Some(s(8))),
        ("\"7\"", Some(s(7))),
        ("1e30", Some(s(u64::MAX))),
        ("-7", None),
        ("null", None),
        ("\"x\"", None),
        ("{\"a\":1}", None),
    ] {
        let body = format!("{{\"error\":\"authorization_pending\",\"interval\":{value}}}");
        assert_eq!(read(400, &body), Verdict::Pending(told), "{value}");
    }
}

#[test]
fn v5_slow_down_is_slow_down_with_any_status() {
    for status in STATUSES {
        assert_eq!(
            coded(status, "slow_down"),
            Verdict::SlowDown(None),
            "{status}"
        );
    }
    let github = r#"{"error":"slow_down","error_description":"Too many requests","interval":10}"#;
    assert_eq!(read(200, github), Verdict::SlowDown(Some(s(10))));
}

#[test]
fn v6_a_denial_has_two_names() {
    for status in STATUSES {
        for code in ["access_denied", "authorization_declined"] {
            let Verdict::Denied(refusal) = coded(status, code) else {
                panic!("{status} {code}")
            };
            assert_eq!(told(&refusal), refused(status, code));
        }
    }
}

#[test]
fn v7_an_expired_code_has_three_names() {
    for status in STATUSES {
        for code in ["expired_token", "token_expired", "code_expired"] {
            let Verdict::Expired(refusal) = coded(status, code) else {
                panic!("{status} {code}")
            };
            assert_eq!(told(&refusal), refused(status, code));
        }
    }
}

#[test]
fn v8_an_invalid_grant_has_three_names_and_no_meaning_of_its_own() {
    for status in STATUSES {
        for code in [
            "invalid_grant",
            "bad_verification_code",
            "incorrect_device_code",
        ] {
            let Verdict::InvalidGrant(refusal) = coded(status, code) else {
                panic!("{status} {code}")
            };
            assert_eq!(told(&refusal), refused(status, code));
        }
    }
}

#[test]
fn v9_some_codes_and_some_statuses_say_later() {
    for status in STATUSES {
        for code in [
            "temporarily_unavailable",
            "server_error",
            "too_many_requests",
        ] {
            assert_eq!(coded(status, code), Verdict::Transient, "{status} {code}");
        }
    }
    for status in [408, 429, 500, 502, 503, 504, 599] {
        for code in ["daily_quota_exceeded", "invalid_request", "x"] {
            assert_eq!(coded(status, code), Verdict::Transient, "{status} {code}");
        }
    }
}

#[test]
fn v10_any_other_error_code_is_a_rejection() {
    // "If the client receives an error response with any other error code, it MUST stop polling" (RFC 8628, section 3.5)
    for status in [200, 400, 401, 403, 404, 422, 428] {
        for code in [
            "invalid_client",
            "invalid_request",
            "AUTHORIZATION_PENDING",
            "x y",
            "ünknown",
        ] {
            assert_eq!(told(&rejected(coded(status, code))), refused(status, code));
        }
    }
}

#[test]
fn v10_the_code_is_error_or_else_code_or_else_a_known_message_and_the_latter_two_not_on_2xx() {
    let code = |status, body: Value| {
        let verdict = read(status, body.to_string());
        if matches!(verdict, Verdict::Denied(_)) {
            return Some("denied".into());
        }
        rejected(verdict).code().map(String::from)
    };
    let mfa = json!({"code": "mfa_enrollment", "message": "access_denied"});
    assert_eq!(code(403, mfa).as_deref(), Some("mfa_enrollment"));
    let both = json!({"code": "b", "error": "a"});
    assert_eq!(code(400, both).as_deref(), Some("a"));
    for error in [json!(""), json!(null), json!(7), json!({"message": "x"})] {
        let body = json!({"error": error, "code": "b"});
        assert_eq!(code(400, body).as_deref(), Some("b"));
    }
    let known = json!({"message": "access_denied", "code": 400});
    assert_eq!(code(400, known).as_deref(), Some("denied"));
    assert_eq!(code(400, json!({"message": "invalid device code"})), None);

    let success = json!({"access_token": "a", "code": "x", "message": "access_denied"});
    assert_eq!(granted(&tokens(read(200, success.to_string()))), bearer_a());
    let neither = json!({"code": "x", "message": "access_denied"});
    assert_eq!(
        read(200, neither.to_string()),
        Verdict::Malformed(Malformed::Empty)
    );
}

#[test]
fn v10_a_refusal_keeps_what_the_server_said_in_a_printable_form() {
    let body = json!({
        "error": "sso_required",
        "error_description": "a\u{1b}[31mb\u{202e}c\u{200b}d\u{2028}e",
        "email": "a@b.example",
        "connection_ids": ["1"],
    });
    let expected = json!({
        "status": 400, "code": "sso_required",
        "description": "a\u{fffd}[31mb\u{fffd}c\u{fffd}d\u{fffd}e",
        "possibly_redeemed": false,
        "members": {"email": "a@b.example", "connection_ids": ["1"]},
    });
    assert_eq!(told(&rejected(read(400, body.to_string()))), expected);
}

#[test]
fn v10_what_is_shown_is_cut_and_has_no_control_and_no_format_characters() {
    let long = DisplayText::new(&"ü".repeat(MAX_CHARACTERS + 1));
    assert_eq!(long.as_str(), "ü".repeat(MAX_CHARACTERS));
    // Control characters, line separators, and the first and the last character of each range of Cf in Unicode 16.0.
    let hidden = [
        '\0',
        '\t',
        '\n',
        '\r',
        '\x1b',
        '\x7f',
        '\u{80}',
        '\u{9f}',
        '\u{ad}',
        '\u{600}',
        '\u{605}',
        '\u{61c}',
        '\u{6dd}',
        '\u{70f}',
        '\u{890}',
        '\u{891}',
        '\u{8e2}',
        '\u{180e}',
        '\u{200b}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2064}',
        '\u{2066}',
        '\u{206f}',
        '\u{feff}',
        '\u{fff9}',
        '\u{fffb}',
        '\u{110bd}',
        '\u{110cd}',
        '\u{13430}',
        '\u{1343f}',
        '\u{1bca0}',
        '\u{1bca3}',
        '\u{1d173}',
        '\u{1d17a}',
        '\u{e0001}',
        '\u{e0020}',
        '\u{e007f}',
    ];
    for c in hidden {
        assert_eq!(
            DisplayText::new(&c.to_string()).as_str(),
            "\u{fffd}",
            "{:x}",
            u32::from(c)
        );
    }
    let kept = " ~\u{a0}\u{ac}\u{ae}é漢🙂\u{2027}\u{202f}\u{fffd}";
    assert_eq!(DisplayText::new(kept).as_str(), kept);
    assert_eq!(DisplayText::new("secret").to_string(), "secret");
    assert_eq!(
        format!("{:?}", DisplayText::new("secret")),
        "DisplayText(6 bytes)"
    );
}

#[test]
fn v11_a_2xx_with_an_access_token_is_a_success() {
    let body = json!({
        "access_token": "eyJ.a.b", "token_type": "bearer", "expires_in": 300, "refresh_token": "r r",
        "id_token": "eyJ.c.d", "scope": "openid offline_access", "user": {"id": "user_01"}, "n": null,
    });
    let expected = json!({
        "bearer": "eyJ.a.b", "access_token": "eyJ.a.b", "token_type": "bearer", "refresh_token": "r r",
        "id_token": "eyJ.c.d", "expires_in": 300, "scope": "openid offline_access", "withheld": [],
        "members": {"user": {"id": "user_01"}, "n": null},
    });
    for status in [200, 201, 299] {
        assert_eq!(granted(&tokens(read(status, body.to_string()))), expected);
    }
}

#[test]
fn v11_a_token_type_is_compared_without_case_and_absent_means_bearer() {
    for (value, bearer, shown) in [
        (json!("Bearer"), Some("a"), "Bearer"),
        (json!("bEARER"), Some("a"), "bEARER"),
        (json!(null), Some("a"), "Bearer"),
        // "The client MUST NOT use an access token if it does not understand the token type." (RFC 6749, section 7.1)
        (json!("DPoP"), None, "DPoP"),
        (json!("Bearer "), None, "Bearer "),
        (json!(""), None, ""),
    ] {
        let body = json!({"access_token": "a", "token_type": value}).to_string();
        let tokens = tokens(read(200, body));
        assert_eq!(
            (tokens.bearer(), tokens.access_token(), tokens.token_type()),
            (bearer, "a", shown)
        );
    }
}

#[test]
fn v11_a_scope_may_be_an_array_or_comma_separated() {
    for (value, scope) in [
        (json!("a b"), Some("a b")),
        (json!("repo,gist"), Some("repo gist")),
        (json!("a,b c"), Some("a,b c")),
        (json!(["a:b", "c"]), Some("a:b c")),
        (json!([]), Some("")),
        (json!([1, "a"]), None),
        (json!([["a"]]), None),
        (json!({"a": 1}), None),
        (json!(null), None),
    ] {
        let body = json!({"access_token": "a", "scope": value}).to_string();
        assert_eq!(tokens(read(200, body)).scope(), scope, "{value}");
    }
}

#[test]
fn v11_a_lifetime_that_cannot_be_read_is_absent() {
    for (value, seconds) in [
        ("3599", Some(3599)),
        ("\"3599\"", Some(3599)),
        ("3598.5", Some(3599)),
        ("\"soon\"", None),
        ("-1", None),
        ("null", None),
        ("[]", None),
    ] {
        let body = format!("{{\"access_token\":\"a\",\"expires_in\":{value}}}");
        let expires_in = tokens(read(200, body)).expires_in();
        assert_eq!(expires_in, seconds.map(s), "{value}");
    }
}

#[test]
fn v11_a_token_outside_visible_ascii_is_malformed() {
    // With such a token, a server could inject a header into a request of the caller.
    for name in ["access_token", "refresh_token", "id_token", "token_type"] {
        for bad in ["a\r\nX-Admin: 1", "ü", "\u{7f}", "\0"] {
            let mut body = json!({"access_token": "a"});
            body[name] = json!(bad);
            let verdict = read(200, body.to_string());
            assert_eq!(
                verdict,
                Verdict::Malformed(Malformed::Token),
                "{name} {bad:?}"
            );
        }
    }
    let typed = r#"{"access_token":"a","token_type":7}"#;
    assert_eq!(read(200, typed), Verdict::Malformed(Malformed::Token));
}

#[test]
fn v12_a_2xx_object_with_neither_a_token_nor_an_error_is_never_a_success() {
    for body in [
        "{}",
        "[]",
        "null",
        "7",
        "\"access_token\"",
        r#"{"access_token":""}"#,
        r#"{"access_token":null}"#,
        r#"{"access_token":["a"]}"#,
        r#"{"access_token":7}"#,
        r#"{"Access_Token":"a"}"#,
        r#"{"error":""}"#,
        r#"{"data":{"access_token":"a"}}"#,
        r#"{"refresh_token":"r","token_type":"Bearer"}"#,
        "access_token=",
        "device_code=x",
        "error=",
    ] {
        assert_eq!(
            read(200, body),
            Verdict::Malformed(Malformed::Empty),
            "{body}"
        );
    }
}

#[test]
fn v13_some_statuses_say_later_by_themselves() {
    for status in [408, 429, 500, 502, 503, 504, 599] {
        for body in [
            "",
            "<html>",
            "{}",
            "[]",
            r#"{"message":"slow"}"#,
            r#"{"access_token":"a"}"#,
        ] {
            assert_eq!(read(status, body), Verdict::Transient, "{status} {body}");
        }
    }
}

#[test]
fn v14_a_2xx_that_is_neither_json_nor_a_form_is_transient() {
    for body in [
        &b"<html><a href=\"/login?a=b&error=1&access_token=x\">hotel wifi</a></html>"[..],
        b"",
        b"  ",
        b"welcome",
        b"a=b&c=d",
        b"\xff\xfe",
        b"{\"access_token\":\"\xff\"}",
        b"{\"x\":\"\xff\",\"access_token\":\"a\"}",
        b"{\"access_token\":\"a\"",
        b"{\"access_token\":\"a\"} x",
        b"error=%zz",
        b"error=x y",
        b"'a'",
    ] {
        assert_eq!(
            read(200, body),
            Verdict::Transient,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
}

#[test]
fn v15_another_4xx_without_an_oauth_body_is_a_rejection_by_the_status() {
    for status in [400, 401, 403, 404, 410, 428, 499] {
        for body in ["", "<html>", "[]", "{}"] {
            let bare = json!({
                "status": status, "code": null, "description": null, "possibly_redeemed": false, "members": {},
            });
            assert_eq!(told(&rejected(read(status, body))), bare, "{status} {body}");
        }
    }
    let message = rejected(read(404, r#"{"message":"Not Found","x":1}"#));
    let expected = json!({
        "status": 404, "code": null, "description": "Not Found", "possibly_redeemed": false, "members": {"x": 1},
    });
    assert_eq!(told(&message), expected);
}

#[test]
fn v15_a_status_that_no_final_answer_has_is_malformed() {
    for status in [0, 100, 101, 199, 600, 999, u16::MAX] {
        for body in ["", "{}", r#"{"access_token":"a"}"#] {
            assert_eq!(
                read(status, body),
                Verdict::Malformed(Malformed::Status),
                "{status}"
            );
        }
        // V4 holds for any status, even for these.
        assert_eq!(
            coded(status, "authorization_pending"),
            Verdict::Pending(None)
        );
    }
}

#[test]
fn a_form_is_read_where_it_has_a_key_of_ours() {
    let github = "access_token=gho_16C7e42F292c6912E7710c838347Ae178B4a&expires_in=%225%22&scope=repo%2Cgist&token_type=bearer&x=a+b";
    let expected = json!({
        "bearer": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "access_token": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "token_type": "bearer", "refresh_token": null, "id_token": null, "expires_in": null,
        "scope": "repo gist", "withheld": [], "members": {"x": "a b"},
    });
    assert_eq!(granted(&tokens(read(200, github))), expected);
    let pending = "error=authorization_pending&error_description=Not+yet&interval=6\n";
    assert_eq!(read(200, pending), Verdict::Pending(Some(s(6))));
}

#[test]
fn deep_nesting_neither_overflows_the_stack_nor_loses_a_token() {
    let deep = |name: &str| {
        format!(
            "{{\"access_token\":\"a\",\"{name}\":{}{}}}",
            "[".repeat(400_000),
            "]".repeat(400_000)
        )
    };
    for name in ["x", "scope", "expires_in", "refresh_token", "interval"] {
        assert_eq!(
            granted(&tokens(read(200, deep(name)))),
            bearer_a(),
            "{name}"
        );
    }
    // A value that cannot be read does not lose the token either.
    for unreadable in [r#""scope":"\ud800""#, r#""expires_in":1e400"#] {
        let body = format!("{{\"access_token\":\"a\",{unreadable}}}");
        assert_eq!(granted(&tokens(read(200, &body))), bearer_a(), "{body}");
    }
    let beside = deep("x").replace("{\"", "{\"y\":1,\"");
    let mut expected = bearer_a();
    expected["members"] = json!({"y": 1});
    assert_eq!(granted(&tokens(read(200, beside))), expected);
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let marked = |body: &str| read(200, format!("\u{feff}{body}"));
    assert_eq!(
        granted(&tokens(marked(r#"{"access_token":"a"}"#))),
        bearer_a()
    );
    assert_eq!(marked("error=slow_down"), Verdict::SlowDown(None));
}

#[test]
fn tokens_are_kept_and_read_back_and_checked_like_a_response() {
    let body = r#"{"access_token":"a","token_type":"bearer","refresh_token":"r","id_token":"i","scope":"b c",
        "expires_in":300,"user":{"id":[1]}}"#;
    for body in [body, r#"{"access_token":"a"}"#, "access_token=a&x=1"] {
        let tokens = tokens(read(200, body));
        let kept = serde_json::to_value(&tokens).unwrap();
        let back: Tokens = serde_json::from_value(kept.clone()).unwrap();
        assert_eq!(granted(&back), granted(&tokens));
        assert_eq!(back, tokens);
        for (name, bad) in [
            ("v", json!(2)),
            ("access_token", json!("")),
            ("access_token", json!("a\r\nX: y")),
            ("refresh_token", json!("ü")),
            ("id_token", json!("")),
            ("token_type", json!("\u{1b}")),
            ("expires_in", json!(-1)),
            ("unknown", json!(1)),
        ] {
            let mut changed = kept.clone();
            changed[name] = bad;
            assert!(
                serde_json::from_value::<Tokens>(changed.clone()).is_err(),
                "{changed}"
            );
        }
    }
}

#[test]
fn escapes_are_understood_in_names_and_values() {
    let body = r#"{"\u0065rror":"authorization\u005fpending","interv\u0061l":"\u0037","error_description":"\ud83d\ude42"}"#;
    assert_eq!(read(400, body), Verdict::Pending(Some(s(7))));
}

#[test]
fn nothing_of_an_answer_is_shown_by_debug() {
    let secrets = json!({
        "access_token": "s3cret", "refresh_token": "s3cret", "id_token": "s3cret", "token_type": "s3cret",
        "scope": "s3cret", "s3cret": "s3cret",
    });
    let error = json!({"error": "s3cret", "error_description": "s3cret", "s3cret": "s3cret"});
    let issued = Response::new(200, secrets.to_string());
    let refused = [400, 200].map(|status| Response::new(status, error.to_string()));
    let shown = [
        format!("{issued:?}"),
        format!("{:?}", verdict(&issued)),
        format!("{:?}", tokens(verdict(&issued))),
        format!("{refused:?}"),
        format!("{:?}", refused.map(|refused| verdict(&refused))),
        format!(
            "{:?}",
            rejected(verdict(&Response::new(400, error.to_string())))
        ),
    ];
    for shown in shown {
        assert!(!shown.is_empty() && !shown.contains("s3cret"), "{shown}");
    }
}

#[cfg(feature = "http")]
#[test]
fn an_answer_may_be_made_from_a_response_of_http() {
    let response = http::Response::builder()
        .status(429)
        .header("retry-after", "7")
        .body(r#"{"error":"slow_down"}"#)
        .unwrap();
    let received = Response::from(response);
    assert_eq!(verdict(&received), Verdict::SlowDown(None));
}
