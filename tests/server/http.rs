//! The conversions of the feature `http`.

use device_flow::server::{Authenticated, Client, ClientAuthMethod, Exchange, Reply, Request};

use crate::support::{FORM, Host, NOW, server};

fn request(content_types: &[&str], body: &str) -> http::Request<String> {
    let mut request = http::Request::post("/oauth2/token?client_id=in_the_query");
    for value in content_types {
        request = request.header("content-type", *value);
    }
    request.body(body.to_owned()).expect("a request")
}

/// Runs an exchange at a host that knows the public client `cli`.
fn authenticate<'r>(
    exchange: Exchange<'r, Result<Authenticated<'r>, Reply>>,
) -> Result<Authenticated<'r>, Reply> {
    let client = Client::new("cli", ClientAuthMethod::None).expect("a client");
    Host::new([client]).run(exchange)
}

#[test]
fn a_request_is_read_with_every_value_of_its_headers_and_without_its_query() {
    let server = server();
    let once = request(&[FORM], "grant_type=password&client_id=cli");
    let client =
        authenticate(server.authenticate(Request::from(&once), "", NOW)).expect("a client");
    assert_eq!(client.parameter("grant_type").as_deref(), Some("password"));
    assert_eq!(client.client_id(), "cli");
    for (wrong, cause) in [
        (request(&[FORM], "grant_type=password"), "client_id_missing"),
        // A2: the content type is repeated, or absent.
        (request(&[FORM, FORM], "client_id=cli"), "media_type"),
        (request(&[], "client_id=cli"), "media_type"),
    ] {
        let refused = authenticate(server.authenticate(Request::from(&wrong), "", NOW));
        assert_eq!(refused.expect_err(cause).cause().as_str(), cause);
    }
}

#[test]
fn each_value_of_the_authorization_header_is_read() {
    let server = server();
    let basic = "Basic Y2xpOg=="; // the id `cli` and an empty secret, which counts as no secret
    let mut once = request(&[FORM], "");
    let headers = once.headers_mut();
    headers.append("authorization", basic.parse().expect("a value"));
    let client = authenticate(server.authenticate(Request::from(&once), "", NOW));
    assert_eq!(client.expect("a client").client_id(), "cli");
    let mut twice = once;
    let headers = twice.headers_mut();
    headers.append("authorization", basic.parse().expect("a value"));
    let refused = authenticate(server.authenticate(Request::from(&twice), "", NOW));
    let reply = refused.expect_err("A11: the header is repeated");
    assert_eq!(reply.cause().as_str(), "authorization");
}

#[test]
fn a_reply_becomes_a_response_with_all_its_headers() {
    let server = server();
    let reply = Host::new([]).run(server.token(Request::new("GET", b""), "", NOW));
    let response: http::Response<Vec<u8>> = reply.into();
    assert_eq!(response.status(), 405);
    let headers: Vec<_> = response.headers().iter().collect();
    let expected = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
        ("allow", "POST"),
    ];
    assert_eq!(headers.len(), expected.len());
    for (name, value) in expected {
        assert_eq!(response.headers()[name], value);
    }
    let body = br#"{"error":"invalid_request","error_description":"only POST is allowed here"}"#;
    assert_eq!(response.body(), body);
}
