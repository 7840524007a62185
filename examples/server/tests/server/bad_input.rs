//! Bad input over loopback, requests from other pages, and wrong secrets: every row gets its answer.

use crate::support::server::*;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

const FORM: &str = "application/x-www-form-urlencoded";
const ISSUE: &str = "/oauth2/device_authorization";
const TOKEN: &str = "/oauth2/token";

/// A request, and the answer it must get: the row, the path, the headers, the body, the status, the error.
type Case<'a> = (
    &'a str,
    &'a str,
    &'a [(HeaderName, &'a str)],
    &'a str,
    u16,
    &'a str,
);

/// The `Authorization` headers of `client_backend` with the right secret and with a wrong one.
const RIGHT: &str = "Basic Y2xpZW50X2JhY2tlbmQ6YmFja2VuZC1zZWNyZXQtZm9yLWRldmVsb3BtZW50LW9ubHk=";
const WRONG: &str = "Basic Y2xpZW50X2JhY2tlbmQ6d3Jvbmc=";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
async fn every_kind_of_bad_input_gets_the_answer_of_its_row() {
    let server = Running::new().await;
    let form = &[(CONTENT_TYPE, FORM)][..];
    let large = format!("client_id=client_cli&padding={}", "x".repeat(16 * 1024));
    let many = format!(
        "client_id=client_cli{}",
        "&a=".repeat(64).replace("a=", "a")
    );
    let poll = |rest: &str| format!("grant_type={DEVICE_GRANT}&{rest}");
    let foreign_code =
        "client_id=client_cli&device_code=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let (unknown_code, no_code, short_code) = (
        poll(foreign_code),
        poll("client_id=client_cli"),
        poll("client_id=client_cli&device_code=short"),
    );
    let (web, no_client) = (
        poll("client_id=client_web&device_code=short"),
        poll("device_code=short"),
    );
    let cases: &[Case<'_>] = &[
        (
            "A2 absent",
            ISSUE,
            &[],
            "client_id=client_cli",
            400,
            "invalid_request",
        ),
        (
            "A2 twice",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (CONTENT_TYPE, FORM)],
            "client_id=client_cli",
            400,
            "invalid_request",
        ),
        (
            "A2 JSON",
            TOKEN,
            &[(CONTENT_TYPE, "application/json")],
            "{}",
            400,
            "invalid_request",
        ),
        (
            "A2 escape",
            ISSUE,
            form,
            "client_id=%zz",
            400,
            "invalid_request",
        ),
        (
            "A2 not UTF-8",
            ISSUE,
            form,
            "client_id=%ff",
            400,
            "invalid_request",
        ),
        (
            "A2 parameters and case",
            ISSUE,
            &[(
                CONTENT_TYPE,
                "Application/X-WWW-Form-urlencoded; charset=utf-8",
            )],
            "client_id=nobody",
            401,
            "invalid_client",
        ),
        ("A3 too large", ISSUE, form, &large, 400, "invalid_request"),
        ("A3 too many", ISSUE, form, &many, 400, "invalid_request"),
        (
            "A4 query",
            "/oauth2/device_authorization?client_id=client_cli",
            form,
            "",
            400,
            "invalid_request",
        ),
        (
            "A5 repeated",
            ISSUE,
            form,
            "client_id=client_cli&client_id=client_cli",
            400,
            "invalid_request",
        ),
        (
            "A5 repeated, unknown, empty",
            ISSUE,
            form,
            "client_id=client_cli&x&x",
            400,
            "invalid_request",
        ),
        (
            "A8",
            TOKEN,
            form,
            "client_id=client_cli",
            400,
            "invalid_request",
        ),
        ("A8 empty", TOKEN, form, "", 400, "invalid_request"),
        (
            "A9",
            TOKEN,
            form,
            "grant_type=authorization_code&client_id=client_cli",
            400,
            "unsupported_grant_type",
        ),
        (
            "A10 Basic and body",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (AUTHORIZATION, RIGHT)],
            "client_secret=x",
            400,
            "invalid_request",
        ),
        (
            "A11 scheme",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (AUTHORIZATION, "Bearer x")],
            "client_id=client_cli",
            401,
            "invalid_client",
        ),
        (
            "A11 base64",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (AUTHORIZATION, "Basic !")],
            "client_id=client_cli",
            401,
            "invalid_client",
        ),
        (
            "A11 twice",
            ISSUE,
            &[
                (CONTENT_TYPE, FORM),
                (AUTHORIZATION, RIGHT),
                (AUTHORIZATION, RIGHT),
            ],
            "",
            401,
            "invalid_client",
        ),
        (
            "A12",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (AUTHORIZATION, RIGHT)],
            "client_id=client_cli",
            400,
            "invalid_request",
        ),
        ("A14", ISSUE, form, "scope=openid", 400, "invalid_request"),
        ("A14 poll", TOKEN, form, &no_client, 400, "invalid_request"),
        ("A15", ISSUE, form, "client_id=%00", 400, "invalid_request"),
        ("A16", TOKEN, form, &no_code, 400, "invalid_request"),
        ("A17", TOKEN, form, &short_code, 400, "invalid_grant"),
        (
            "B2 unknown",
            ISSUE,
            form,
            "client_id=nobody",
            401,
            "invalid_client",
        ),
        (
            "B2 wrong",
            ISSUE,
            &[(CONTENT_TYPE, FORM), (AUTHORIZATION, WRONG)],
            "",
            401,
            "invalid_client",
        ),
        (
            "B3",
            ISSUE,
            form,
            "client_id=client_backend&client_secret=wrong",
            401,
            "invalid_client",
        ),
        (
            "B4",
            ISSUE,
            form,
            "client_id=client_backend",
            401,
            "invalid_client",
        ),
        (
            "B5",
            ISSUE,
            form,
            "client_id=client_cli&client_secret=x",
            401,
            "invalid_client",
        ),
        (
            "B9",
            ISSUE,
            form,
            "client_id=client_web",
            400,
            "unauthorized_client",
        ),
        ("B9 poll", TOKEN, form, &web, 400, "unauthorized_client"),
        ("C2", TOKEN, form, &unknown_code, 400, "invalid_grant"),
        (
            "D4 syntax",
            ISSUE,
            form,
            "client_id=client_cli&scope=a%20%20b",
            400,
            "invalid_scope",
        ),
        (
            "D4 not allowed",
            ISSUE,
            form,
            "client_id=client_cli&scope=admin",
            400,
            "invalid_scope",
        ),
        (
            "refresh: missing",
            TOKEN,
            form,
            "grant_type=refresh_token&client_id=client_cli",
            400,
            "invalid_request",
        ),
        (
            "refresh: unknown",
            TOKEN,
            form,
            "grant_type=refresh_token&client_id=client_cli&refresh_token=x",
            400,
            "invalid_grant",
        ),
        (
            "refresh: client",
            TOKEN,
            form,
            "grant_type=refresh_token&client_id=nobody&refresh_token=x",
            401,
            "invalid_client",
        ),
        (
            "refresh: no client",
            TOKEN,
            form,
            "grant_type=refresh_token&refresh_token=x",
            400,
            "invalid_request",
        ),
        (
            "refresh: secret",
            TOKEN,
            form,
            "grant_type=refresh_token&client_id=client_backend&refresh_token=x",
            401,
            "invalid_client",
        ),
    ];
    for (row, path, headers, body, status, error) in cases {
        let request = server.http.post(format!("{}{path}", server.url));
        let request = request.headers(appended(headers)).body((*body).to_owned());
        let response = request.send().await.unwrap();
        assert_answer(row, response, *status, error).await;
    }
}

#[tokio::test]
async fn a1_other_methods_get_405() {
    let server = Running::new().await;
    for path in [ISSUE, TOKEN] {
        for method in [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::PATCH,
        ] {
            let is_head = method == Method::HEAD;
            let request = server
                .http
                .request(method.clone(), format!("{}{path}", server.url));
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["allow"], "POST", "{method}");
            if is_head {
                assert_eq!(response.status(), 405);
                assert_eq!(response.text().await.unwrap(), "");
            } else {
                assert_answer(method.as_str(), response, 405, "invalid_request").await;
            }
        }
    }
}

#[tokio::test]
async fn no_other_page_may_ask_for_codes_and_any_may_poll() {
    let server = Running::new().await;
    let from_a_page = async |method: Method, path: &str| {
        let request = server.http.request(method, format!("{}{path}", server.url));
        let request = request.form(&[("client_id", "client_cli")]);
        let request = request
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST");
        request.send().await.unwrap()
    };
    for method in [Method::OPTIONS, Method::POST, Method::GET] {
        let response = from_a_page(method.clone(), ISSUE).await;
        let mut names = response.headers().keys().map(HeaderName::as_str);
        let allowed = names.find(|name| name.starts_with("access-control-"));
        assert_eq!(allowed, None, "{method}");
        if method == Method::OPTIONS {
            assert_eq!(response.status(), 405);
        }
    }
    let preflight = from_a_page(Method::OPTIONS, TOKEN).await;
    assert_eq!(preflight.status(), 200);
    assert_eq!(preflight.headers()["access-control-max-age"], "7200");
    for response in [preflight, from_a_page(Method::POST, TOKEN).await] {
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn a2_a_body_of_another_media_type_is_told_what_came_and_what_is_wanted() {
    let server = Running::new().await;
    let said = async |path: &str, media_type: Option<&str>| {
        let mut request = server.http.post(format!("{}{path}", server.url));
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        let response = request.body("{}").send().await.unwrap();
        assert_eq!(response.status(), 400);
        let body = json(response).await;
        assert_eq!(body["error"], "invalid_request");
        let said = text(&body, "error_description").to_owned();
        assert!(said.contains(FORM), "{said}");
        said
    };
    let by_query = format!("{ISSUE}?client_id=client_cli");
    for (path, media_type, came) in [
        (ISSUE, Some("application/json"), "the body is JSON"),
        (
            TOKEN,
            Some("Application/JSON; charset=utf-8"),
            "the body is JSON",
        ),
        (ISSUE, Some("multipart/form-data; boundary=x"), "multipart"),
        (ISSUE, Some("text/plain;charset=UTF-8"), "plain text"),
        (&by_query, None, "the parameters are in the URL"),
        (TOKEN, None, "no Content-Type"),
        (TOKEN, Some("image/png"), "the content type must be"),
    ] {
        let said = said(path, media_type).await;
        assert!(said.contains(came), "{media_type:?}: {said}");
    }
    assert_eq!(server.count("token", "media_type").await, 3);
}

/// Asserts the status, the error, that there is a description, the headers of every answer, and the challenge of a 401.
async fn assert_answer(row: &str, response: reqwest::Response, status: u16, error: &str) {
    assert_eq!(response.status(), status, "{row}");
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap())
    };
    assert_eq!(header("content-type"), Some("application/json"), "{row}");
    assert_eq!(header("cache-control"), Some("no-store"), "{row}");
    assert_eq!(header("pragma"), Some("no-cache"), "{row}");
    let challenge = (status == 401).then_some(r#"Basic realm="device login""#);
    assert_eq!(header("www-authenticate"), challenge, "{row}");
    let body = json(response).await;
    assert_eq!(body["error"], error, "{row}");
    assert!(body["error_description"].is_string(), "{row}");
}

fn appended(headers: &[(HeaderName, &str)]) -> HeaderMap {
    let pairs = headers.iter();
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    map
}

#[tokio::test]
async fn b1_wrong_secrets_are_counted_by_client_and_source() {
    let mut config = config();
    config.quotas.secrets = quota(10);
    let server = Running::with(config).await;
    let wrong = [("client_id", "client_backend"), ("client_secret", "wrong")];
    for _ in 0..10 {
        let response = server.post(ISSUE, &wrong).send().await.unwrap();
        assert_eq!(response.status(), 401);
    }
    let right = [("client_id", "client_backend"), ("client_secret", SECRET)];
    let response = server.post(
        TOKEN,
        &[
            &right[..],
            &[("grant_type", "refresh_token"), ("refresh_token", "x")],
        ]
        .concat(),
    );
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(
        server.post(ISSUE, &right).send().await.unwrap().status(),
        429
    );
    // Another client still gets codes.
    server.codes("openid").await;
}
