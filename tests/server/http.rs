//! The conversions of the feature `http`.

use device_flow::client::{DeviceFlow, Endpoints, Next as ClientNext, Response, Verdict, verdict};
use device_flow::server::{
    Authenticated, Client, ClientAuthMethod, Exchange, Next, Policy, Reply, Request, Server,
    ServerKeys,
};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

fn server() -> Server {
    let policy = Policy::builder("https://login.example.com/device").build();
    let keys = ServerKeys::new(b"0123456789abcdef0123456789abcdef").expect("long enough");
    Server::new(policy.expect("the defaults are a policy"), keys)
}

fn request(content_types: &[&str], body: &str) -> http::Request<String> {
    let mut request = http::Request::post("/oauth2/token?client_id=in_the_query");
    for value in content_types {
        request = request.header("content-type", *value);
    }
    request.body(body.to_owned()).expect("a request")
}

/// Runs an exchange that asks for the client alone.
fn authenticate<'r>(
    mut exchange: Exchange<'r, Result<Authenticated<'r>, Reply>>,
) -> Result<Authenticated<'r>, Reply> {
    let client = Client::new("cli", ClientAuthMethod::None).expect("a client");
    loop {
        match exchange.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&client))),
            Next::Done(end) => return end,
            next => panic!("{next:?} is not for a public client"),
        }
    }
}

#[test]
fn a_request_is_read_with_every_value_of_its_headers_and_without_its_query() {
    let form = "application/x-www-form-urlencoded";
    let server = server();
    let once = request(&[form], "grant_type=password&client_id=cli");
    let client = authenticate(server.client(Request::from(&once), "", NOW)).expect("a client");
    assert_eq!(client.parameter("grant_type").as_deref(), Some("password"));
    assert_eq!(client.client_id(), "cli");
    for (wrong, cause) in [
        (request(&[form], "grant_type=password"), "client_id_missing"),
        // A2: given twice, or absent.
        (request(&[form, form], "client_id=cli"), "media_type"),
        (request(&[], "client_id=cli"), "media_type"),
    ] {
        let refused = authenticate(server.client(Request::from(&wrong), "", NOW));
        assert_eq!(refused.expect_err(cause).cause().as_str(), cause);
    }
}

#[test]
fn each_value_of_the_authorization_header_is_read() {
    let server = server();
    let form = "application/x-www-form-urlencoded";
    let basic = "Basic Y2xpOg=="; // cli, and an empty secret: the same as none
    let mut once = request(&[form], "");
    let headers = once.headers_mut();
    headers.append("authorization", basic.parse().expect("a value"));
    let client = authenticate(server.client(Request::from(&once), "", NOW));
    assert_eq!(client.expect("a client").client_id(), "cli");
    let mut twice = once;
    let headers = twice.headers_mut();
    headers.append("authorization", basic.parse().expect("a value"));
    let refused = authenticate(server.client(Request::from(&twice), "", NOW));
    let reply = refused.expect_err("A11: given twice");
    assert_eq!(reply.cause().as_str(), "authorization");
}

#[test]
fn a_reply_becomes_a_response_with_all_its_headers() {
    let server = server();
    let mut exchange = server.token(Request::new("GET", b""), "", NOW);
    let Next::Done(reply) = exchange.next() else {
        panic!("A1 needs nothing");
    };
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

#[test]
fn the_clients_request_and_answer_are_those_of_http() {
    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    let flow = DeviceFlow::new(endpoints.expect("endpoints"), "cli").secret_basic("a secret");
    let mut login = flow.login().expect("a login");
    let ClientNext::Send(ask) = login.next(core::time::Duration::ZERO) else {
        panic!("it asks for codes first")
    };
    let request: http::Request<String> = ask.request().clone().into();
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "https://as.example/device");
    assert_eq!(request.headers()["authorization"], "Basic Y2xpOmErc2VjcmV0");
    assert_eq!(request.headers()["accept"], "application/json");

    let response = http::Response::builder()
        .status(503)
        .header("retry-after", "7");
    let received = Response::from(response.body(Vec::<u8>::new()).expect("a response"));
    assert_eq!(verdict(&received), Verdict::Transient);
}
