//! Dialogues with real providers, as they go over the wire, and their known outcomes. `WorkOS` has two flows.

use device_flow::client::{
    DeviceFlow, LoginError, Next, Prompt, Refusal, Response, StartError, Tokens, Verdict, Warning,
    verdict,
};
use serde_json::{Value, json};

use crate::support::{self, flow, granted, ok, s, shown, start, told, whole};

/// How a login ended.
type Outcome = Result<Tokens, LoginError>;

/// Plays a dialogue. Returns what is shown, the wait before each poll in seconds, and how the login ended.
fn play(flow: &DeviceFlow, issued: &str, answers: &[(u16, &str)]) -> (Prompt, Vec<u64>, Outcome) {
    let (mut login, prompt) = start(flow, ok(200, issued)).unwrap();
    let (mut now, mut gaps, mut answers) = (s(0), Vec::new(), answers.iter());
    loop {
        match login.next(now) {
            Next::Wait { until } => {
                gaps.push((until - now).as_secs());
                now = until;
            }
            Next::Send(ask) => {
                let (status, body) = answers.next().unwrap();
                ask.answer(ok(*status, body), now);
            }
            Next::Show(_) => panic!("it was shown"),
            Next::Done(outcome) => return (prompt, gaps, outcome),
        }
    }
}

/// Plays a dialogue that ends with tokens. Returns the same.
fn success(flow: &DeviceFlow, issued: &str, answers: &[(u16, &str)]) -> (Value, Vec<u64>, Value) {
    match play(flow, issued, answers) {
        (prompt, gaps, Ok(tokens)) => (shown(&prompt), gaps, granted(&tokens)),
        (_, _, other) => panic!("{other:?}"),
    }
}

/// Returns how a login ends if its first poll gets this answer.
fn ends(status: u16, body: &str) -> (&'static str, Value) {
    let told = |kind, refusal: &Refusal| (kind, told(refusal));
    match play(&flow(), support::ISSUED, &[(status, body)]).2 {
        Err(LoginError::Denied(refusal)) => told("denied", &refusal),
        Err(LoginError::Expired(refusal)) => told("expired", &refusal),
        Err(LoginError::Rejected(refusal)) => told("rejected", &refusal),
        other => panic!("{other:?}"),
    }
}

fn refusal(status: u16, code: Option<&str>, description: Option<&str>, members: &Value) -> Value {
    json!({
        "status": status, "code": code, "description": description, "possibly_redeemed": false, "members": members,
    })
}

fn pending(status: u16, body: &str) {
    assert_eq!(
        verdict(&Response::new(status, body)),
        Verdict::Pending(None),
        "{body}"
    );
}

#[test]
fn github_in_forms_and_in_json() {
    let flow = flow().scope("repo gist");
    let issued = "device_code=3584d83530557fdd1f46af8289938c8ef79f9dc5&expires_in=900&interval=5\
        &user_code=WDJB-MJHT&verification_uri=https%3A%2F%2Fgithub.com%2Flogin%2Fdevice";
    let pending = r#"{"error":"authorization_pending","error_description":"The authorization request is still pending.",
        "error_uri":"https://docs.github.com/developers/apps/authorizing-oauth-apps#error-codes-for-the-device-flow"}"#;
    let slow_down = |interval: u64| {
        format!(
            "error=slow_down&error_description=Too+many+requests&error_uri=https%3A%2F%2Fdocs.github.com&interval={interval}"
        )
    };
    // Two `slow_down` in a row lead to an interval of 15, although the second one says 10.
    let (first, second) = (slow_down(10), slow_down(10));
    let tokens =
        "access_token=gho_16C7e42F292c6912E7710c838347Ae178B4a&scope=gist%2Crepo&token_type=bearer";
    let answers = [
        (200, pending),
        (200, &*first),
        (200, &*second),
        (200, tokens),
    ];
    let (prompt, gaps, granted) = success(&flow, issued, &answers);
    let expected = json!({
        "user_code": "WDJB-MJHT", "verification_uri": "https://github.com/login/device",
        "verification_uri_complete": null, "lifetime": 900, "members": {},
    });
    assert_eq!(prompt, expected);
    assert_eq!(gaps, [5, 5, 10, 15]);
    let expected = json!({
        "bearer": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "access_token": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
        "token_type": "bearer", "refresh_token": null, "id_token": null, "expires_in": null,
        "scope": "gist repo", "withheld": [], "members": {},
    });
    assert_eq!(granted, expected);

    for (code, kind) in [
        ("access_denied", "denied"),
        ("expired_token", "expired"),
        ("token_expired", "expired"),
        ("incorrect_device_code", "rejected"),
        ("device_flow_disabled", "rejected"),
        ("incorrect_client_credentials", "rejected"),
    ] {
        let body = json!({"error": code, "error_description": "Sorry.", "error_uri": "https://docs.github.com"});
        let members = json!({"error_uri": "https://docs.github.com"});
        let expected = refusal(200, Some(code), Some("Sorry."), &members);
        assert_eq!(ends(200, &body.to_string()), (kind, expected));
    }
}

#[test]
fn google() {
    let issued = r#"{"device_code":"4/4-GMMhmHCXhWEzkobqIHGG_EnNYYsAkukHspeYUk9E8","user_code":"GQVQ-JKEC",
        "verification_url":"https://www.google.com/device","expires_in":1800,"interval":5}"#;
    let answers = [
        (
            428,
            r#"{"error":"authorization_pending","error_description":"Precondition Required"}"#,
        ),
        (
            403,
            r#"{"error":"slow_down","error_description":"Forbidden"}"#,
        ),
        (
            200,
            r#"{"access_token":"1/fFAGRNJru1FTz70BzhT3Zg","expires_in":3920,"scope":"openid https://www.googleapis.com/auth/userinfo.profile","token_type":"Bearer","refresh_token":"1/xEoDL4iW3cxlI7yDbSRFYNG01kVKM2C-259HOF2aQbI"}"#,
        ),
    ];
    let (prompt, gaps, granted) = success(&flow(), issued, &answers);
    assert_eq!(prompt["verification_uri"], "https://www.google.com/device");
    assert_eq!(gaps, [5, 5, 10]);
    assert_eq!(granted["bearer"], "1/fFAGRNJru1FTz70BzhT3Zg");
    assert_eq!(granted["expires_in"], 3920);
    let denied = r#"{"error":"access_denied","error_description":"Forbidden"}"#;
    let expected = refusal(403, Some("access_denied"), Some("Forbidden"), &json!({}));
    assert_eq!(ends(403, denied), ("denied", expected));
    let scope = start(&flow(), ok(400, r#"{"error":"invalid_scope"}"#)).unwrap_err();
    assert!(
        matches!(scope, StartError::Rejected(refusal) if refusal.code() == Some("invalid_scope"))
    );
}

#[test]
fn entra_id() {
    let issued = r#"{"user_code":"FJC3EPNH5","device_code":"FAQABAAEAAAD","verification_uri":"https://microsoft.com/devicelogin",
        "expires_in":900,"interval":5,"message":"To sign in, use a web browser to open the page."}"#;
    let login = r#"{"error":"authorization_pending","error_description":"AADSTS70016: Authorization is pending. Continue polling.\r\nTrace ID: 01",
        "error_codes":[70016],"timestamp":"2026-03-21 12:00:00Z","trace_id":"01","correlation_id":"02",
        "error_uri":"https://login.microsoftonline.com/error?code=70016"}"#;
    let tokens = r#"{"token_type":"Bearer","scope":"User.Read profile openid email","expires_in":3599,"ext_expires_in":3599,
        "access_token":"eyJ0.e.s","refresh_token":"AwAB","id_token":"eyJ0.i.s"}"#;
    let (prompt, gaps, granted) = success(&flow(), issued, &[(400, login), (200, tokens)]);
    assert_eq!(prompt["verification_uri_complete"], json!(null));
    assert_eq!(gaps, [5, 5]);
    let expected = json!({
        "bearer": "eyJ0.e.s", "access_token": "eyJ0.e.s", "token_type": "Bearer", "refresh_token": "AwAB",
        "id_token": "eyJ0.i.s", "expires_in": 3599, "scope": "User.Read profile openid email", "withheld": [],
        "members": {"ext_expires_in": 3599},
    });
    assert_eq!(granted, expected);
    for (code, kind) in [
        ("authorization_declined", "denied"),
        ("bad_verification_code", "rejected"),
        ("expired_token", "expired"),
    ] {
        let body = json!({"error": code, "error_codes": [1]}).to_string();
        let expected = refusal(400, Some(code), None, &json!({"error_codes": [1]}));
        assert_eq!(ends(400, &body), (kind, expected));
    }
}

#[test]
fn entra_v1_adfs_and_b2c_write_numbers_as_strings() {
    let issued = r#"{"user_code":"FJC3EPNH5","device_code":"FAQ","verification_url":"https://aka.ms/devicelogin",
        "expires_in":"900","interval":"7","message":"Open the page."}"#;
    let tokens = r#"{"token_type":"Bearer","scope":"user_impersonation","expires_in":"3599","expires_on":"1774098000",
        "resource":"https://graph.windows.net","access_token":"eyJ0.e.s","refresh_token":"AwAB"}"#;
    let (prompt, gaps, granted) =
        success(&flow(), issued, &[(400, support::PENDING), (200, tokens)]);
    assert_eq!(prompt["lifetime"], 900);
    assert_eq!(prompt["verification_uri"], "https://aka.ms/devicelogin");
    assert_eq!(gaps, [7, 7]);
    assert_eq!(granted["expires_in"], 3599);
    let members = json!({"expires_on": "1774098000", "resource": "https://graph.windows.net"});
    assert_eq!(granted["members"], members);
}

#[test]
fn auth0() {
    pending(
        403,
        r#"{"error":"authorization_pending","error_description":"User has yet to authorize device code."}"#,
    );
    let slow = r#"{"error":"slow_down","error_description":"You are polling faster than the specified interval of 5 seconds."}"#;
    assert_eq!(verdict(&Response::new(429, slow)), Verdict::SlowDown(None));
    let expired = r#"{"error":"expired_token","error_description":"The device code is expired."}"#;
    let expected = refusal(
        403,
        Some("expired_token"),
        Some("The device code is expired."),
        &json!({}),
    );
    assert_eq!(ends(403, expired), ("expired", expected));
    let denied = r#"{"error":"access_denied","error_description":"User cancelled the confirmation prompt."}"#;
    let expected = refusal(
        403,
        Some("access_denied"),
        Some("User cancelled the confirmation prompt."),
        &json!({}),
    );
    assert_eq!(ends(403, denied), ("denied", expected));
    // After the first `expired_token`, the server answers `invalid_grant`. A machine that slept through the first one still learns that the
    // code has expired.
    let (login, _) = start(&flow(), ok(200, support::ISSUED)).unwrap();
    let body = r#"{"error":"invalid_grant","error_description":"Invalid or expired device code."}"#;
    let outcome = support::over(support::answered(login, s(900), ok(403, body), s(900)));
    let Err(LoginError::Expired(told_by)) = outcome else {
        panic!("{outcome:?}")
    };
    let expected = refusal(
        403,
        Some("invalid_grant"),
        Some("Invalid or expired device code."),
        &json!({}),
    );
    assert_eq!(told(&told_by), expected);
}

#[test]
fn okta_keycloak_gitlab_buildkite_and_kinde_keep_to_the_standard() {
    for (issued, complete) in [
        // Okta
        (
            r#"{"device_code":"1a521d9f-0922","user_code":"RGTCFDTL","verification_uri":"https://o.okta.example/activate","verification_uri_complete":"https://o.okta.example/activate?user_code=RGTCFDTL","expires_in":600,"interval":5}"#,
            true,
        ),
        // Keycloak
        (
            r#"{"device_code":"qC5N","user_code":"IQYZ-DNEC","verification_uri":"https://kc.example/realms/r/device","verification_uri_complete":"https://kc.example/realms/r/device?user_code=IQYZ-DNEC","expires_in":600,"interval":5}"#,
            true,
        ),
        // GitLab
        (
            r#"{"device_code":"GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS","user_code":"0A44L90H","verification_uri":"https://gitlab.example/oauth/device","verification_uri_complete":"https://gitlab.example/oauth/device?user_code=0A44L90H","expires_in":300,"interval":5}"#,
            true,
        ),
        // Buildkite, Kinde
        (
            r#"{"device_code":"kinde_dc","user_code":"CSLDFDUU","verification_uri":"https://k.example/device","expires_in":600,"interval":5}"#,
            false,
        ),
    ] {
        let pending = r#"{"error":"authorization_pending","error_description":"The device authorization is pending. Please try again later."}"#;
        let slow_down = r#"{"error":"slow_down"}"#;
        let tokens = r#"{"token_type":"Bearer","expires_in":3600,"access_token":"eyJ.a.s","scope":"openid","id_token":"eyJ.i.s"}"#;
        let answers = [(400, pending), (400, slow_down), (200, tokens)];
        let (prompt, gaps, granted) = success(&flow(), issued, &answers);
        assert_eq!(prompt["verification_uri_complete"].is_string(), complete);
        assert_eq!(gaps, [5, 5, 10]);
        assert_eq!(granted["id_token"], "eyJ.i.s");
    }
    assert_eq!(ends(400, r#"{"error":"access_denied"}"#).0, "denied");
    assert_eq!(ends(400, r#"{"error":"expired_token"}"#).0, "expired");
}

#[test]
fn twitch() {
    let flow =
        DeviceFlow::new(support::endpoints(), "cli").extra("scopes", "chat:read user:read:email");
    let mut login = flow.login().unwrap();
    let body = "client_id=cli&scopes=chat%3Aread+user%3Aread%3Aemail";
    let request = support::sends(&mut login, s(0)).request().clone();
    assert_eq!(whole(&request), support::posted(support::DEVICE, body));
    let issued = r#"{"device_code":"ike3GM8QIdYZs43KdrWPIO36LofILoCyFEzjlQ91","expires_in":1800,"interval":5,"user_code":"ABCDEFGH",
        "verification_uri":"https://www.twitch.tv/activate?public=true&device-code=ABCDEFGH"}"#;
    let pending = r#"{"status":400,"message":"authorization_pending"}"#;
    let tokens = r#"{"access_token":"rfx2uswqe8l4g1mkagrvg5tv0ks3","expires_in":14124,"refresh_token":"5b93chm6hdve3mycz05zfzatkfdenfspp1h1ar2xxdalen01",
        "scope":["chat:read","user:read:email"],"token_type":"bearer"}"#;
    let (_, gaps, granted) = success(&flow, issued, &[(400, pending), (200, tokens)]);
    assert_eq!(gaps, [5, 5]);
    assert_eq!(granted["scope"], "chat:read user:read:email");
    let invalid = r#"{"status":400,"message":"invalid device code"}"#;
    let expected = refusal(
        400,
        None,
        Some("invalid device code"),
        &json!({"status": 400}),
    );
    assert_eq!(ends(400, invalid), ("rejected", expected));
}

#[test]
fn salesforce_tells_no_lifetime() {
    let issued = r#"{"device_code":"M01WRy","user_code":"3G4CJ4M8","verification_uri":"https://login.salesforce.com/setup/connect","interval":5}"#;
    let refused = start(&flow(), ok(200, issued)).unwrap_err();
    assert!(matches!(
        refused,
        StartError::Field {
            name: "expires_in",
            ..
        }
    ));
    let tokens = r#"{"access_token":"00D!AQ","refresh_token":"5Aep","instance_url":"https://x.my.salesforce.com",
        "id":"https://login.salesforce.com/id/00D/005","issued_at":"1774094400000","token_type":"Bearer","signature":"c2ln"}"#;
    let flow = flow().default_lifetime(s(600));
    let (prompt, _, granted) = success(&flow, issued, &[(400, support::PENDING), (200, tokens)]);
    assert_eq!(prompt["lifetime"], 600);
    let members = json!({
        "instance_url": "https://x.my.salesforce.com", "id": "https://login.salesforce.com/id/00D/005",
        "issued_at": "1774094400000", "signature": "c2ln",
    });
    assert_eq!(granted["members"], members);
    let denied = r#"{"error":"access_denied","error_description":"end-user denied authorization"}"#;
    assert_eq!(ends(400, denied).0, "denied");
    assert_eq!(ends(400, r#"{"error":"invalid_grant"}"#).0, "rejected");
}

#[test]
fn dex_before_2025_answers_401_while_waiting() {
    pending(401, r#"{"error":"authorization_pending"}"#);
}

#[test]
fn openam_and_forgerock() {
    let issued = r#"{"interval":5,"verification_url":"http://localhost:8080/openam/device","user_code":"OhJTAgOV","device_code":"7ad6f08f","expires_in":3599}"#;
    let (prompt, ..) = success(&flow(), issued, &[(200, support::SUCCESS)]);
    assert_eq!(
        prompt["verification_uri"],
        "http://localhost:8080/openam/device"
    );
    let declined =
        r#"{"error":"authorization_declined","error_description":"The user denied access."}"#;
    assert_eq!(ends(403, declined).0, "denied");
}

#[test]
fn amazon_asks_for_thirty_seconds() {
    let issued = r#"{"user_code":"A1B2C3","device_code":"2b1d","verification_uri":"https://amazon.com/us/code","expires_in":600,"interval":30}"#;
    let answers = [
        (400, support::PENDING),
        (400, support::SLOW_DOWN),
        (200, support::SUCCESS),
    ];
    assert_eq!(success(&flow(), issued, &answers).1, [30, 30, 35]);
}

#[test]
fn oracle_idcs_tells_no_interval() {
    let issued = r#"{"device_code":"4d03f7bc","user_code":"SDFGHJKL","verification_uri":"https://idcs.example/ui/v1/device","expires_in":300}"#;
    let (prompt, gaps, _) = play(
        &flow(),
        issued,
        &[(400, support::PENDING), (200, support::SUCCESS)],
    );
    assert_eq!(prompt.warnings, [Warning::Interval]);
    assert_eq!(gaps, [5, 5]);
}

#[test]
fn privy_tells_an_interval_while_waiting_and_as_a_float() {
    let pending = r#"{"error":"authorization_pending","interval":6.5}"#;
    let answers = [
        (400, pending),
        (400, support::PENDING),
        (200, support::SUCCESS),
    ];
    assert_eq!(success(&flow(), support::ISSUED, &answers).1, [5, 7, 7]);
}

#[test]
fn workos_connect() {
    let flow = flow().scope("openid profile offline_access");
    // The example in the documentation has another code in the complete URI.
    let issued = r#"{"device_code":"CVE2wOfIFK4vhmiDBntpX9s8KT2f0qngpWYL0LGy9HxYgBRXUKIUkZB9BgIFho5h","user_code":"RRGQ-BJVS",
        "verification_uri":"https://youthful-ruler-58-staging.authkit.app/device",
        "verification_uri_complete":"https://youthful-ruler-58-staging.authkit.app/device?user_code=BDWD-HQPK",
        "expires_in":300,"interval":5}"#;
    let tokens = r#"{"access_token":"eyJhbGciOiJSUzI1NiJ9.e30.c2ln","refresh_token":"yLKPyKyVUx","id_token":"eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "token_type":"Bearer","expires_in":300}"#;
    let answers = [
        (400, support::PENDING),
        (400, support::SLOW_DOWN),
        (200, tokens),
    ];
    let (prompt, gaps, granted) = success(&flow, issued, &answers);
    let expected = json!({
        "user_code": "RRGQ-BJVS",
        "verification_uri": "https://youthful-ruler-58-staging.authkit.app/device",
        "verification_uri_complete": "https://youthful-ruler-58-staging.authkit.app/device?user_code=BDWD-HQPK",
        "lifetime": 300, "members": {},
    });
    assert_eq!(prompt, expected);
    assert_eq!(gaps, [5, 5, 10]);
    let expected = json!({
        "bearer": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "access_token": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "token_type": "Bearer", "refresh_token": "yLKPyKyVUx", "id_token": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "expires_in": 300, "scope": null, "withheld": [], "members": {},
    });
    assert_eq!(granted, expected);
    assert_eq!(ends(400, r#"{"error":"access_denied"}"#).0, "denied");
    assert_eq!(ends(400, r#"{"error":"expired_token"}"#).0, "expired");
    assert_eq!(ends(400, r#"{"error":"invalid_grant"}"#).0, "rejected");
}

#[test]
fn workos_authkit() {
    let issued = r#"{"device_code":"c2FtcGxl","user_code":"ABCD-EFGH","verification_uri":"https://x.authkit.app/device",
        "verification_uri_complete":"https://x.authkit.app/device?user_code=ABCD-EFGH","expires_in":300,"interval":5}"#;
    let pending = r#"{"error":"authorization_pending","error_description":"The authorization request is still pending."}"#;
    let tokens = r#"{"user":{"object":"user","id":"user_01","email":"a@b.example"},"organization_id":"org_01",
        "access_token":"eyJ.a.s","refresh_token":"yAjh","authentication_method":"GoogleOAuth"}"#;
    let (_, gaps, granted) = success(&flow(), issued, &[(400, pending), (200, tokens)]);
    assert_eq!(gaps, [5, 5]);
    let expected = json!({
        "bearer": "eyJ.a.s", "access_token": "eyJ.a.s", "token_type": "Bearer", "refresh_token": "yAjh", "id_token": null,
        "expires_in": null, "scope": null, "withheld": [],
        "members": {
            "user": {"object": "user", "id": "user_01", "email": "a@b.example"},
            "organization_id": "org_01", "authentication_method": "GoogleOAuth",
        },
    });
    assert_eq!(granted, expected);

    // {error, error_description}
    for (code, kind) in [
        ("access_denied", "denied"),
        ("expired_token", "expired"),
        ("invalid_grant", "rejected"),
        ("invalid_client", "rejected"),
        ("invalid_request", "rejected"),
        ("unauthorized_client", "rejected"),
        ("sso_required", "rejected"),
    ] {
        let body = json!({"error": code, "error_description": "Why."}).to_string();
        assert_eq!(
            ends(400, &body),
            (kind, refusal(400, Some(code), Some("Why."), &json!({})))
        );
    }
    // {code, message}
    for (status, code) in [
        (403, "mfa_enrollment"),
        (403, "organization_selection_required"),
        (422, "invalid_request_parameters"),
        (400, "x"),
    ] {
        let body = json!({"code": code, "message": "Why.", "pending_authentication_token": "p"})
            .to_string();
        let members = json!({"pending_authentication_token": "p"});
        let expected = refusal(status, Some(code), Some("Why."), &members);
        assert_eq!(ends(status, &body), ("rejected", expected));
    }
    // {message}
    for status in [400, 404] {
        let expected = refusal(status, None, Some("Not Found"), &json!({}));
        assert_eq!(
            ends(status, r#"{"message":"Not Found"}"#),
            ("rejected", expected)
        );
    }
    // 429 in both shapes
    for body in [
        r#"{"error":"too_many_requests","error_description":"Slow."}"#,
        r#"{"code":"daily_quota_exceeded","message":"Enough."}"#,
    ] {
        assert_eq!(verdict(&Response::new(429, body)), Verdict::Transient);
    }
    // From the device authorization endpoint, 403 `access_denied` means that the feature is off.
    let off = start(&flow(), ok(403, r#"{"error":"access_denied"}"#)).unwrap_err();
    assert!(
        matches!(off, StartError::Rejected(refusal) if refusal.code() == Some("access_denied"))
    );
}
