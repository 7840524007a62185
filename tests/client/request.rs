//! Table T: what is sent.

use device_flow::client::{DeviceFlow, FlowError};
use device_flow::scope::ScopeError;
use serde_json::{Value, json};

use crate::support::{
    DEVICE, ISSUED, POLL, TOKEN, endpoints, flow, ok, posted, s, sends, start, whole,
};

/// Returns the request for codes of a flow.
fn started(flow: &DeviceFlow) -> Value {
    let mut login = flow.login().unwrap();
    whole(sends(&mut login, s(0)).request())
}

/// Returns the first poll of a flow.
fn polled(flow: &DeviceFlow) -> Value {
    let (mut login, _) = start(flow, ok(200, ISSUED)).unwrap();
    whole(sends(&mut login, s(5)).request())
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
    assert_eq!(twice.login().unwrap_err(), FlowError::Repeated);
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
        "refresh_token",
        "token",
        "token_type_hint",
        "",
    ] {
        let fault = flow().extra(name, "x").login().unwrap_err();
        assert_eq!(fault, FlowError::Reserved, "{name}");
    }
}

#[test]
fn t2_a_secret_and_a_client_assertion_are_refused_in_either_order() {
    // "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
    let asserts = |flow: DeviceFlow| flow.extra("client_assertion", "x");
    for flow in [
        asserts(flow().secret_basic("s")),
        asserts(flow()).secret_post("s"),
    ] {
        assert_eq!(flow.login().unwrap_err(), FlowError::Methods);
    }
    assert!(asserts(flow()).login().is_ok());
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
        // The first mistake is reported.
        (flow("\n").scope("\""), FlowError::ClientId),
    ];
    for (flow, fault) in faults {
        assert_eq!(flow.login().unwrap_err(), fault);
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
    let (mut login, _) = start(&flow(), ok(200, &issued)).unwrap();
    let request = sends(&mut login, s(5)).request().clone();
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

#[cfg(feature = "http")]
#[test]
fn a_request_becomes_one_of_http() {
    let flow = flow().secret_basic("s");
    let mut login = flow.login().unwrap();
    let request: http::Request<String> = sends(&mut login, s(0)).request().clone().into();
    assert_eq!(request.method(), http::Method::POST);
    assert_eq!(request.uri(), DEVICE);
    assert_eq!(request.headers().len(), 3);
    assert_eq!(request.headers()["authorization"], "Basic Y2xpOnM=");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.body(), "");
}

#[cfg(feature = "http")]
#[test]
fn the_clients_request_and_answer_are_those_of_http() {
    use device_flow::client::{Endpoints, Next, Response, Verdict, verdict};

    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    let flow = DeviceFlow::new(endpoints.expect("endpoints"), "cli").secret_basic("a secret");
    let mut login = flow.login().expect("a login");
    let Next::Send(ask) = login.next(s(0)) else {
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
