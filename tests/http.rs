//! The conversions of the feature `http`.
#![cfg(feature = "http")]

use device_flow::client::{DeviceFlow, Endpoints, Received, Verdict, verdict};
use device_flow::server::{Form, Incoming, Policy};

fn policy() -> Policy {
    let policy = Policy::builder("https://login.example.com/device").build();
    policy.expect("the defaults are a policy")
}

fn request(content_types: &[&str], body: &str) -> http::Request<String> {
    let mut request = http::Request::post("/oauth2/token?client_id=in_the_query");
    for value in content_types {
        request = request.header("content-type", *value);
    }
    request.body(body.to_owned()).expect("a request")
}

#[test]
fn a_request_is_read_with_every_value_of_its_headers_and_without_its_query() {
    let form = "application/x-www-form-urlencoded";
    let policy = policy();
    let once = request(&[form], "grant_type=password");
    let read = Form::read(Incoming::from(&once), &policy).expect("a form");
    assert_eq!(read.parameter("grant_type").as_deref(), Some("password"));
    assert_eq!(read.parameter("client_id"), None);
    for wrong in [request(&[form, form], ""), request(&[], "")] {
        let refused = Form::read(Incoming::from(&wrong), &policy);
        let reply = refused.expect_err("A2: absent or given twice");
        assert_eq!(reply.cause().as_str(), "media_type");
    }
}

#[test]
fn a_reply_becomes_a_response_with_all_its_headers() {
    let policy = policy();
    let reply = Form::read(Incoming::new("GET", b""), &policy).expect_err("A1");
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
    let (_, request) = flow.start(core::time::Duration::ZERO).expect("a start");
    let request: http::Request<String> = request.into();
    assert_eq!(request.method(), "POST");
    assert_eq!(request.uri(), "https://as.example/device");
    assert_eq!(request.headers()["authorization"], "Basic Y2xpOmErc2VjcmV0");
    assert_eq!(request.headers()["accept"], "application/json");

    let response = http::Response::builder()
        .status(503)
        .header("retry-after", "7");
    let received = Received::from(response.body(Vec::<u8>::new()).expect("a response"));
    assert_eq!(verdict(&received), Verdict::Transient);
}
