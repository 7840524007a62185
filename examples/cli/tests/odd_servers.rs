//! Servers whose answers are not what RFC 8628 says. This crate and the crate `oauth2` try to sign in to each of them. The README has the
//! table of the results.
//!
//! Both get the same responses in the same order, from memory. At the end, each server sends tokens.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in tests")]

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use device_flow::client::{DeviceFlow, Endpoints, Request, Response, TransportError};
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, HttpRequest, HttpResponse,
    StandardDeviceAuthorizationResponse, TokenResponse as _, TokenUrl,
};

const DEVICE: &str = "https://as.example/device_authorization";
const TOKEN: &str = "https://as.example/token";

/// A response: the status, the type of the body, the body.
type Said = (u16, &'static str, &'static str);

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

const CODES: Said = (
    200,
    JSON,
    r#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device","expires_in":900,"interval":5}"#,
);
const PENDING: Said = (400, JSON, r#"{"error":"authorization_pending"}"#);
const SLOW_DOWN: Said = (400, JSON, r#"{"error":"slow_down"}"#);
const TOKENS: Said = (
    200,
    JSON,
    r#"{"access_token":"a","token_type":"Bearer","expires_in":3600}"#,
);

/// What a server answers, and who answers like that.
struct Odd {
    says: &'static str,
    responses: &'static [Said],
}

const SERVERS: [Odd; 10] = [
    Odd {
        says: "what RFC 8628 says",
        responses: &[CODES, PENDING, SLOW_DOWN, TOKENS],
    },
    Odd {
        says: "503 with a page of HTML in mid-poll (a gateway)",
        responses: &[CODES, PENDING, (503, "text/html", "<html>"), TOKENS],
    },
    Odd {
        says: "200 with an error (GitHub)",
        responses: &[
            CODES,
            (200, JSON, r#"{"error":"authorization_pending"}"#),
            TOKENS,
        ],
    },
    Odd {
        says: "429 with an empty body",
        responses: &[CODES, (429, "text/plain", ""), TOKENS],
    },
    Odd {
        says: "`expires_in` and `interval` as strings (Entra ID v1, AD FS)",
        responses: &[
            (
                200,
                JSON,
                r#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device","expires_in":"900","interval":"5"}"#,
            ),
            PENDING,
            TOKENS,
        ],
    },
    Odd {
        says: "a form for a body (GitHub, unless asked for JSON)",
        responses: &[
            (
                200,
                FORM,
                "device_code=d&user_code=WDJB-MJHT&verification_uri=https%3A%2F%2Fas.example%2Fdevice&expires_in=900&interval=5",
            ),
            (200, FORM, "error=authorization_pending"),
            (200, FORM, "access_token=a&token_type=bearer&scope=repo"),
        ],
    },
    Odd {
        says: "`message` in the place of `error` (Twitch)",
        responses: &[
            CODES,
            (
                400,
                JSON,
                r#"{"status":400,"message":"authorization_pending"}"#,
            ),
            TOKENS,
        ],
    },
    Odd {
        says: "the scope as an array (Twitch)",
        responses: &[
            CODES,
            (
                200,
                JSON,
                r#"{"access_token":"a","token_type":"bearer","scope":["chat:read"]}"#,
            ),
        ],
    },
    Odd {
        says: "no `token_type` (WorkOS AuthKit)",
        responses: &[CODES, PENDING, (200, JSON, r#"{"access_token":"a"}"#)],
    },
    Odd {
        says: "a page of HTML with status 200 in mid-poll (a hotel's network)",
        responses: &[CODES, (200, "text/html", "<html>"), TOKENS],
    },
];

/// Returns the access token that this crate gets, or the error.
fn with_this_crate(responses: &[Said]) -> Result<String, String> {
    let endpoints = Endpoints::new(DEVICE, TOKEN).unwrap();
    let mut responses = responses.iter();
    let clock = Cell::new(Duration::ZERO);
    let send = |_: Request| {
        let (status, _, body) = responses.next().ok_or(TransportError::Permanent)?;
        Ok(Response::new(*status, *body))
    };
    let flow = DeviceFlow::new(endpoints, "cli");
    let outcome = flow.login().unwrap().run_blocking(
        || clock.get(),
        send,
        |_| (),
        |span, _| {
            clock.set(clock.get() + span);
            ControlFlow::Continue(())
        },
    );
    match outcome {
        Ok(tokens) => Ok(tokens.access_token().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the access token that the crate `oauth2` gets, or the error.
fn with_oauth2(responses: &[Said]) -> Result<String, String> {
    let responses = RefCell::new(responses.iter());
    let send = |_: HttpRequest| -> Result<HttpResponse, std::io::Error> {
        let (status, content_type, body) = responses.borrow_mut().next().unwrap();
        let response = http::Response::builder().status(*status);
        let response = response.header("content-type", *content_type);
        Ok(response.body(body.as_bytes().to_vec()).unwrap())
    };
    let client = BasicClient::new(ClientId::new("cli".to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_device_authorization_url(DeviceAuthorizationUrl::new(DEVICE.to_owned()).unwrap())
        .set_token_uri(TokenUrl::new(TOKEN.to_owned()).unwrap());
    let codes = client.exchange_device_code().request(&send);
    let codes: StandardDeviceAuthorizationResponse = codes.map_err(|error| error.to_string())?;
    let tokens = client.exchange_device_access_token(&codes);
    let tokens = tokens.request(&send, |_| (), None);
    let tokens = tokens.map_err(|error| error.to_string())?;
    Ok(tokens.access_token().secret().clone())
}

#[test]
fn this_crate_signs_in_to_every_odd_server_and_the_readme_says_who_does_not() {
    let mut table =
        String::from("| the server answers with | this crate | `oauth2` 5.0 |\n|---|---|---|\n");
    for Odd { says, responses } in SERVERS {
        let ours = with_this_crate(responses);
        assert_eq!(ours.as_deref(), Ok("a"), "{says}");
        let theirs = match with_oauth2(responses) {
            Ok(token) => {
                assert_eq!(token, "a", "{says}");
                "signs in".to_owned()
            }
            Err(error) => error.to_lowercase(),
        };
        writeln!(table, "| {says} | signs in | {theirs} |").unwrap();
    }
    let readme = include_str!("../../../README.md");
    assert!(
        readme.contains(&table),
        "the README needs this table:\n{table}"
    );
}
