//! Table A: what is refused before the client is looked up.

use device_flow::server::{
    Authenticated, Cause, Claim, Exchange, Finish, Next, PolicyOptions, Reply, Request, Server,
};
use proptest::prelude::*;

use crate::support::{
    BACKEND, CLI, FORM, GRANT, Host, NO_CODE, NOW, Question, SECRET, assert_invalid_client,
    assert_refused, assert_reply, backend, basic, cli, encoded, error_body, escaped, policy_of,
    poll_body, post, server, server_of,
};

/// Returns the result of an exchange that ends without a question, or `None` if it asks for the client or a quota.
fn at_once<'r, T: Finish<'r>>(mut exchange: Exchange<'r, T>) -> Option<T> {
    match exchange.next() {
        Next::Done(end) => Some(end),
        Next::Client(..) | Next::Take(..) => None,
        next => panic!("{next:?} before the client is known"),
    }
}

/// Sends a request to the token endpoint. Returns the refusal, if the request is refused before the client is looked up.
fn at_token(server: &Server, request: Request<'_>) -> Result<(), Reply> {
    at_once(server.token(request, "", NOW)).map_or(Ok(()), Err)
}

/// Sends a request to the device authorization endpoint. Returns the refusal, if the request is refused before the client is looked up.
fn at_device(server: &Server, request: Request<'_>) -> Result<(), Reply> {
    let refused = at_once(server.device_authorization(request, "", None, NOW));
    // The endpoint for revocation and the endpoints of the host read a request in the same way.
    let client = at_once(server.authenticate(request, "", NOW)).map(|end| end.unwrap_err());
    let of = |reply: &Option<Reply>| {
        reply
            .as_ref()
            .map(|reply| (reply.cause(), format!("{:?}", reply.response().body())))
    };
    assert_eq!(of(&refused), of(&client));
    let revocation = at_once(server.revocation(request, "", NOW));
    if refused.is_some() {
        assert_eq!(of(&refused), of(&revocation));
    }
    refused.map_or(Ok(()), Err)
}

/// Returns the refusal, if a request is refused for its form, up to A7. Asserts that the token endpoint refuses it for the same cause.
fn read_by(server: &Server, request: Request<'_>) -> Result<(), Reply> {
    at_device(server, request).or_else(|reply| {
        let is_later = matches!(
            reply.cause(),
            Cause::SeveralCredentials
                | Cause::Authorization
                | Cause::ClientIdsDiffer
                | Cause::ClientIdMissing
                | Cause::CredentialCharacters
        );
        if is_later {
            return Ok(());
        }
        let at_token = refusal(at_token(server, request));
        assert_eq!(at_token.cause(), reply.cause());
        Err(reply)
    })
}

/// Returns the refusal, if the default policy refuses a body for its form.
fn read(body: &[u8]) -> Result<(), Reply> {
    read_by(&server(), post(body))
}

/// Calls `then` with the parameters of a request, as an endpoint of the host itself reads them.
fn with_parameters<T>(
    server: &Server,
    request: Request<'_>,
    then: impl FnOnce(&Authenticated<'_>) -> T,
) -> T {
    let header = basic(CLI, "");
    let request = request.authorization(Some(&header));
    let end = Host::new([cli()]).run(server.authenticate(request, "", NOW));
    then(&end.unwrap())
}

/// Calls `then` with what a request says about its client.
fn with_claim<T>(server: &Server, request: Request<'_>, then: impl FnOnce(Claim<'_>) -> T) -> T {
    let mut exchange = server.device_authorization(request, "", None, NOW);
    if let Next::Take(_, ask) = exchange.next() {
        ask.answer(Ok(Ok(())));
    }
    match exchange.next() {
        Next::Client(claim, _) => then(claim),
        next => panic!("{next:?}"),
    }
}

/// Returns the reply of the device authorization endpoint at a host that knows this client.
fn authenticate(
    server: &Server,
    request: Request<'_>,
    known: device_flow::server::Client,
) -> Reply {
    Host::new([known]).run(server.device_authorization(request, "", None, NOW))
}

/// Returns the reply to a poll at an empty store, and whether a session was looked up.
fn poll(server: &Server, body: &str, known: Option<device_flow::server::Client>) -> (Reply, bool) {
    let mut host = Host::new(known);
    let reply = host.run(server.token(post(body), "", NOW));
    (reply, host.count(Question::Load) > 0)
}

/// Returns the reply of a refusal.
#[track_caller]
fn refusal<T>(outcome: Result<T, Reply>) -> Reply {
    match outcome {
        Ok(_) => panic!("not refused"),
        Err(reply) => reply,
    }
}

/// Returns the outcomes of a poll and of a request for codes with these parameters and headers. The poll has its own parameters, too.
fn both(parameters: &str, authorization: &[&[u8]]) -> [Result<(), Reply>; 2] {
    let server = server();
    let poll = format!("grant_type={GRANT}&device_code={NO_CODE}&{parameters}");
    let refresh = format!("grant_type=refresh_token&refresh_token=x&{parameters}");
    let headers = || authorization.iter().copied();
    let of_poll = at_token(&server, post(&poll).authorization(headers()));
    // A refresh is read in the same way.
    let of_refresh = at_token(&server, post(&refresh).authorization(headers()));
    let cause = |outcome: &Result<(), Reply>| outcome.as_ref().map_err(Reply::cause).err();
    assert_eq!(cause(&of_poll), cause(&of_refresh));
    [
        of_poll,
        at_device(&server, post(parameters).authorization(headers())),
    ]
}

/// Asserts that both endpoints refuse with status 400.
#[track_caller]
fn both_refuse(
    parameters: &str,
    authorization: &[&[u8]],
    cause: Cause,
    error: &str,
    description: &str,
) {
    for outcome in both(parameters, authorization) {
        assert_refused(&refusal(outcome), cause, error, description);
    }
}

/// Asserts that both endpoints go on to table B.
#[track_caller]
fn both_go_on(parameters: &str, authorization: &[&[u8]]) {
    for outcome in both(parameters, authorization) {
        outcome.unwrap();
    }
}

#[track_caller]
fn is_media_type_refusal(reply: &Reply) {
    let description = "the content type must be application/x-www-form-urlencoded, in one header";
    assert_refused(reply, Cause::MediaType, "invalid_request", description);
}

#[track_caller]
fn is_encoding_refusal(reply: &Reply) {
    let description = "the body has a broken percent escape or is not UTF-8";
    assert_refused(reply, Cause::Encoding, "invalid_request", description);
}

#[track_caller]
fn is_repetition_refusal(reply: &Reply) {
    let description = "a parameter is repeated";
    assert_refused(
        reply,
        Cause::RepeatedParameter,
        "invalid_request",
        description,
    );
}

// A1

/// "The client MUST use the HTTP "POST" method" (RFC 6749, section 3.2), and methods are case-sensitive (RFC 9110, section 9.1).
#[test]
fn a1_another_method_than_post_is_answered_405_with_allow() {
    let server = server();
    for method in [
        "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "post", "Post",
        "POST ", " POST", "POSTS", "",
    ] {
        let incoming = Request::new(method, b"").content_type(Some(FORM));
        let reply = refusal(read_by(&server, incoming));
        let body = error_body("invalid_request", "only POST is allowed here");
        let allow = [("allow", "POST")];
        assert_reply(&reply, Cause::MethodNotAllowed, 405, &allow, &body);
    }
}

#[test]
fn a1_the_method_comes_before_every_other_fault() {
    let server = server_of(policy_of(PolicyOptions {
        max_body: 1,
        ..PolicyOptions::default()
    }));
    let incoming = Request::new("GET", b"a=%zz&a=%zz").authorization([b"x", b"y"]);
    let reply = refusal(read_by(&server, incoming));
    assert_eq!(reply.cause(), Cause::MethodNotAllowed);
}

// A2

#[test]
fn a2_an_absent_media_type_is_refused() {
    let body = poll_body(CLI, NO_CODE);
    let incoming = Request::new("POST", body.as_bytes());
    is_media_type_refusal(&refusal(read_by(&server(), incoming)));
}

#[test]
fn a2_a_media_type_given_twice_is_refused_even_where_both_are_right() {
    let server = server();
    for given in [
        [FORM, FORM].as_slice(),
        &[FORM, "application/json"],
        &["application/json", FORM],
        &[FORM, ""],
        &[FORM, FORM, FORM],
    ] {
        let incoming = Request::new("POST", b"").content_type(given.iter().copied());
        is_media_type_refusal(&refusal(read_by(&server, incoming)));
    }
}

#[test]
fn a2_another_media_type_is_refused() {
    let server = server();
    for other in [
        "",
        " ",
        ";",
        "application/json",
        "multipart/form-data; boundary=x",
        "text/plain",
        "application",
        "application/",
        "application/x-www-form-urlencode",
        "application/x-www-form-urlencodedx",
        "application /x-www-form-urlencoded",
        "application/x-www-form-urlencoded, application/x-www-form-urlencoded",
        "text/plain; application/x-www-form-urlencoded",
        "application/json; charset=application/x-www-form-urlencoded",
        "\"application/x-www-form-urlencoded\"",
    ] {
        let incoming = Request::new("POST", b"").content_type(Some(other));
        is_media_type_refusal(&refusal(read_by(&server, incoming)));
    }
    let not_text = Request::new("POST", b"").content_type(Some(b"\xFF\x00".as_slice()));
    is_media_type_refusal(&refusal(read_by(&server, not_text)));
}

#[test]
fn a2_case_and_parameters_of_the_media_type_are_ignored() {
    let server = server();
    let body = poll_body(CLI, NO_CODE);
    for same in [
        "application/x-www-form-urlencoded",
        "APPLICATION/X-WWW-FORM-URLENCODED",
        "Application/X-Www-Form-Urlencoded",
        "application/x-www-form-urlencoded;charset=UTF-8",
        "application/x-www-form-urlencoded; charset=utf-8",
        "application/x-www-form-urlencoded ; charset=\"utf-8\"; boundary=x",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "application/x-www-form-urlencoded;",
        "application/x-www-form-urlencoded; application/json",
        " application/x-www-form-urlencoded\t",
    ] {
        let incoming = Request::new("POST", body.as_bytes()).content_type(Some(same));
        at_token(&server, incoming).unwrap();
    }
}

/// The body is UTF-8 (RFC 6749, appendix B), whatever the charset parameter says.
#[test]
fn a2_the_charset_parameter_does_not_change_how_the_body_is_read() {
    let server = server();
    let latin = "application/x-www-form-urlencoded; charset=iso-8859-1";
    let in_utf_8 = Request::new("POST", "name=\u{E9}".as_bytes()).content_type(Some(latin));
    let name = with_parameters(&server, in_utf_8, |form| {
        form.parameter("name").unwrap().into_owned()
    });
    assert_eq!(name, "\u{E9}");
    let in_latin = Request::new("POST", b"name=\xE9").content_type(Some(latin));
    is_encoding_refusal(&refusal(read_by(&server, in_latin)));
}

#[test]
fn a2_broken_percent_escapes_are_refused_in_values_and_names() {
    for broken in [
        "%",
        "%%",
        "%2",
        "%zz",
        "%2g",
        "%g2",
        "a%",
        "a%4",
        "%%41",
        "%+1",
        "% 1",
        "%-1",
        "%0x41",
        "%u0041",
        "%4%31",
        "%\u{FF11}1",
        "+%",
    ] {
        let last = [
            format!("x={broken}"),
            format!("{broken}=x"),
            broken.to_owned(),
            format!("client_id={broken}"),
            format!("device_code={broken}"),
            format!("grant_type={broken}"),
            format!("resource={broken}"),
            format!("a=b&{broken}=x"),
            format!("{broken}=x&a=b"),
            format!("x={broken}&a=b"),
            format!("x=%41{broken}"),
        ];
        for body in last {
            is_encoding_refusal(&refusal(read(body.as_bytes())));
        }
    }
}

/// An escape ends where its name or value ends. The separator after it is not a digit of the escape.
#[test]
fn a2_an_escape_does_not_reach_over_a_separator() {
    for body in ["a=%&41=x", "a=%4&1=x", "%4=1", "a=%4=1"] {
        is_encoding_refusal(&refusal(read(body.as_bytes())));
    }
}

#[test]
fn a2_what_is_not_utf_8_is_refused_raw_and_escaped_in_values_and_names() {
    for octets in [
        b"\xFF".as_slice(),         // never in UTF-8
        b"\x80",                    // a continuation without a lead
        b"\xC3",                    // truncated
        b"\xC3\x28",                // a lead without its continuation
        b"\xE2\x82",                // truncated
        b"\xE2\x82a",               // truncated, then a letter
        b"\xF0\x9F\x98",            // truncated
        b"\xC0\x80",                // overlong
        b"\xC1\xBF",                // overlong
        b"\xE0\x80\x80",            // overlong
        b"\xE0\x9F\xBF",            // overlong
        b"\xF0\x80\x80\x80",        // overlong
        b"\xED\xA0\x80",            // a surrogate
        b"\xED\xBF\xBF",            // a surrogate
        b"\xF4\x90\x80\x80",        // over U+10FFFF
        b"\xF5\x80\x80\x80",        // over U+10FFFF
        b"\xC3\xA9\xA9",            // one continuation too many
        b"\xF8\x88\x80\x80\x80",    // five octets
        b"\xFE\xFF\x00\x41",        // a byte order mark of UTF-16
        b"ok then \xE2\x28\xA1 no", // in the middle
    ] {
        let raw = octets.to_vec();
        let escaped = escaped(octets).to_lowercase().into_bytes();
        // The first octet is raw and the rest is escaped. Together they are one text.
        let mixed = [&raw[..1], &escaped[3..]].concat();
        for text in [raw, escaped, mixed] {
            for body in [
                [b"x=".as_slice(), &text].concat(),
                [b"client_id=".as_slice(), &text].concat(),
                [b"x=".as_slice(), &text, b"&a=b"].concat(),
                [b"".as_slice(), &text, b"=x"].concat(),
                text.clone(),
            ] {
                is_encoding_refusal(&refusal(read(&body)));
            }
        }
    }
}

#[test]
fn a2_every_form_of_a_sound_character_is_read_alike() {
    let server = server();
    let sound: [(&[u8], &str); 12] = [
        (b"x=a", "a"),
        (b"x=%61", "a"),
        (b"x=a+b", "a b"),
        (b"x=a%20b", "a b"),
        (b"x=a%2Bb", "a+b"),
        (b"x=a%2bb", "a+b"),
        (b"x=%C3%A9", "\u{E9}"),
        (b"x=\xC3\xA9", "\u{E9}"),
        (b"x=\xC3%A9", "\u{E9}"),
        (b"x=%f0%9F%98%80", "\u{1F600}"),
        (b"x=a=b==", "a=b=="),
        (b"%78=%25%26%3D", "%&="),
    ];
    for (body, value) in sound {
        with_parameters(&server, post(body), |form| {
            assert_eq!(form.parameter("x").as_deref(), Some(value));
        });
    }
}

#[test]
fn a2_comes_before_a5_wherever_the_broken_escape_stands() {
    for body in ["a=1&a=2&b=%", "b=%&a=1&a=2", "a=1&a=%", "scope=&scope=&%"] {
        is_encoding_refusal(&refusal(read(body.as_bytes())));
    }
}

// A3

#[test]
fn a3_a_body_over_16_kib_is_refused_and_one_of_16_kib_is_not() {
    let fitting = format!("x={}", "a".repeat(16 * 1024 - 2));
    read(fitting.as_bytes()).unwrap();
    let over = format!("{fitting}a");
    let reply = refusal(read(over.as_bytes()));
    let description = "the body is too large";
    assert_refused(&reply, Cause::BodyTooLarge, "invalid_request", description);
}

#[test]
fn a3_the_size_limit_is_the_policys() {
    let server = server_of(policy_of(PolicyOptions {
        max_body: 5,
        ..PolicyOptions::default()
    }));
    assert!(read_by(&server, post("x=123")).is_ok());
    let reply = refusal(read_by(&server, post("x=1234")));
    let description = "the body is too large";
    assert_refused(&reply, Cause::BodyTooLarge, "invalid_request", description);
}

/// The last parameters of the longest body that a policy can allow are read like the first.
#[test]
fn a3_the_longest_body_is_read_to_its_end() {
    let server = server_of(policy_of(PolicyOptions {
        max_body: 65_535,
        ..PolicyOptions::default()
    }));
    let end = "&".to_owned() + &poll_body(CLI, NO_CODE);
    for end in [
        end.clone(),
        format!("{end}&scope=a"),
        format!("{end}&scope="),
    ] {
        let body = format!("x={}{end}", "a".repeat(65_535 - 2 - end.len()));
        with_claim(&server, post(&body), |claim| {
            assert_eq!(claim.client_id(), Some(CLI));
        });
        let (reply, looked_up) = poll(&server, &body, Some(cli()));
        assert_eq!((reply.cause(), looked_up), (Cause::UnknownCode, true));
        let over = format!("x{body}");
        let reply = refusal(read_by(&server, post(&over)));
        assert_eq!(reply.cause(), Cause::BodyTooLarge);
        // A repeated parameter is found wherever it stands.
        let twice = format!("scope=a&scope=&{}", &body[15..]);
        assert_eq!(twice.len(), body.len());
        is_repetition_refusal(&refusal(read_by(&server, post(&twice))));
        let apart = format!("scope=b&{}", &body[8 + 7..]) + "&scope=";
        assert_eq!(apart.len(), body.len());
        is_repetition_refusal(&refusal(read_by(&server, post(&apart))));
    }
}

/// A body that is too large is not read, whatever it contains.
#[test]
fn a3_a_body_that_is_too_large_is_not_read() {
    let mut over = vec![b'&'; 16 * 1024];
    over.extend_from_slice(b"%zz=\xFF&a=1&a=1");
    let reply = refusal(read(&over));
    assert_eq!(reply.cause(), Cause::BodyTooLarge);
}

#[test]
fn a3_more_than_64_parameters_are_refused_and_64_are_not() {
    let parameters = |count: usize| {
        let each: Vec<_> = (0..count)
            .map(|place| format!("p{place}={place}"))
            .collect();
        each.join("&")
    };
    read(parameters(64).as_bytes()).unwrap();
    let description = "the body has too many parameters";
    for count in [65, 66, 1000] {
        let reply = refusal(read(parameters(count).as_bytes()));
        assert_refused(
            &reply,
            Cause::TooManyParameters,
            "invalid_request",
            description,
        );
    }
}

#[test]
fn a3_parameters_that_may_repeat_or_have_no_value_count_too() {
    for one in ["resource=https%3A%2F%2Fa.example", "resource=", "resource"] {
        read(vec![one; 64].join("&").as_bytes()).unwrap();
        let reply = refusal(read(vec![one; 65].join("&").as_bytes()));
        assert_eq!(reply.cause(), Cause::TooManyParameters);
    }
}

#[test]
fn a3_comes_before_a5() {
    let reply = refusal(read(vec!["a=1"; 65].join("&").as_bytes()));
    assert_eq!(reply.cause(), Cause::TooManyParameters);
    is_repetition_refusal(&refusal(read(vec!["a=1"; 64].join("&").as_bytes())));
}

#[test]
fn a3_separators_alone_are_no_parameters() {
    let body = format!("&&a{}b&", "&".repeat(500));
    read(body.as_bytes()).unwrap();
}

// A4

/// "The parameters can only be transmitted in the request-body and MUST NOT be included in the request URI." (RFC 6749, section 2.3.1).
/// [`Request`] has no place for a URL, so what is in the URL cannot be read.
#[test]
fn a4_what_stands_in_the_url_is_absent() {
    let server = server();
    // POST /oauth2/token?grant_type=…&device_code=…&client_id=… with an empty body.
    let reply = refusal(at_token(&server, post("")));
    assert_eq!(reply.cause(), Cause::GrantTypeMissing);
    let reply = refusal(at_device(&server, post("")));
    assert_eq!(reply.cause(), Cause::ClientIdMissing);
}

#[cfg(feature = "http")]
#[test]
fn a4_the_query_of_an_http_request_is_never_read() {
    let server = server();
    let query = poll_body(CLI, NO_CODE);
    let request = |body: &'static str| {
        http::Request::post(format!("https://login.example.com/oauth2/token?{query}"))
            .header("content-type", FORM)
            .body(body)
            .unwrap()
    };
    let empty = request("");
    let reply = refusal(at_token(&server, Request::from(&empty)));
    assert_eq!(reply.cause(), Cause::GrantTypeMissing);
    let reply = refusal(at_device(&server, Request::from(&empty)));
    assert_eq!(reply.cause(), Cause::ClientIdMissing);
    // A parameter of the query does not make the same parameter of the body a repeated one.
    let same = request("client_id=client_cli");
    at_device(&server, Request::from(&same)).unwrap();
}

// A5

/// "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
#[test]
fn a5_a_repeated_parameter_is_refused_even_if_unknown_or_empty() {
    for body in [
        "grant_type=a&grant_type=a",
        "device_code=a&device_code=b",
        "client_id=client_cli&client_id=client_cli",
        "client_secret=a&client_secret=a",
        "client_assertion=a&client_assertion=a",
        "client_assertion_type=a&client_assertion_type=a",
        "scope=openid&scope=openid",
        "scope=&scope=",
        "scope=&scope=openid",
        "scope=openid&scope=",
        "scope&scope",
        "scope&scope=openid",
        "foo=1&foo=2",
        "foo=&foo=",
        "foo&foo",
        "foo&foo=",
        "=1&=2",
        "foo=1&bar=2&baz=3&foo=4",
        "client_id=client_cli&foo=1&client_id=client_cli",
        "foo=1&&foo=1",
        "device_code=a&device_code=a&device_code=a",
    ] {
        is_repetition_refusal(&refusal(read(body.as_bytes())));
    }
}

#[test]
fn a5_names_are_counted_as_they_read_not_as_they_are_written() {
    for name in [
        "grant_type",
        "device_code",
        "client_id",
        "client_secret",
        "client_assertion",
        "client_assertion_type",
        "scope",
        "foo",
        "f\u{E9}",
        "a b",
    ] {
        let escaped = encoded(name);
        let plain = name.replace(' ', "+");
        for body in [
            format!("{escaped}=1&{plain}=2"),
            format!("{plain}=1&{escaped}=2"),
            format!("{escaped}=1&{escaped}=2"),
            format!("{escaped}=1&{}=2", escaped.to_lowercase()),
            format!("x=1&{escaped}&y=2&{plain}"),
        ] {
            is_repetition_refusal(&refusal(read(body.as_bytes())));
        }
    }
}

#[test]
fn a5_names_have_a_case_and_no_blanks_to_strip() {
    for body in [
        "scope=a&Scope=b&SCOPE=c",
        "foo=1&foo+=2&+foo=3",
        "foo=1&foo%00=2",
        "foo=1&foo[]=2",
        "a=b&b=a",
    ] {
        read(body.as_bytes()).unwrap();
    }
}

/// RFC 8707, section 2, and RFC 8693, section 2.1.
#[test]
fn a5_resource_and_audience_may_repeat() {
    let server = server();
    let body = "resource=https%3A%2F%2Fa.example&audience=x&resource=https%3A%2F%2Fb.example\
                &%72esource=c&resource=&audience=y&a%75dience=y";
    with_parameters(&server, post(body), |form| {
        let resources: Vec<_> = form.parameters("resource").collect();
        assert_eq!(resources, ["https://a.example", "https://b.example", "c"]);
        let audiences: Vec<_> = form.parameters("audience").collect();
        assert_eq!(audiences, ["x", "y", "y"]);
        let first = form.parameter("resource");
        assert_eq!(first.as_deref(), Some("https://a.example"));
    });
}

#[test]
fn a5_no_name_like_theirs_may_repeat() {
    for name in [
        "resources",
        "Resource",
        "audienc",
        "audience%00",
        "resource+",
    ] {
        let body = format!("{name}=a&{name}=b");
        is_repetition_refusal(&refusal(read(body.as_bytes())));
    }
}

#[test]
fn a5_comes_before_a8_a9_and_the_credentials() {
    let server = server();
    for body in [
        "foo=1&foo=2",
        "grant_type=password&foo=1&foo=2",
        "grant_type=password&grant_type=password",
        "client_id=a&client_id=b&client_secret=s&client_assertion=t",
    ] {
        let incoming = post(body).authorization(Some("Bearer x"));
        is_repetition_refusal(&refusal(at_token(&server, incoming)));
        is_repetition_refusal(&refusal(at_device(&server, incoming)));
    }
}

// A6

/// "Parameters sent without a value MUST be treated as if they were omitted from the request." (RFC 6749, section 3.2)
#[test]
fn a6_a_parameter_without_a_value_is_absent() {
    let server = server();
    for empty in ["=", ""] {
        let no_grant = format!("grant_type{empty}&device_code={NO_CODE}&client_id={CLI}");
        let reply = refusal(at_token(&server, post(&no_grant)));
        assert_eq!(reply.cause(), Cause::GrantTypeMissing);
        let no_code = format!("grant_type={GRANT}&device_code{empty}&client_id={CLI}");
        let reply = refusal(at_token(&server, post(&no_code)));
        assert_eq!(reply.cause(), Cause::DeviceCodeMissing);
        let no_client = format!("client_id{empty}");
        for outcome in both(&no_client, &[]) {
            assert_eq!(refusal(outcome).cause(), Cause::ClientIdMissing);
        }
        let form = format!("foo{empty}&bar=1");
        with_parameters(&server, post(&form), |form| {
            assert_eq!(form.parameter("foo"), None);
            assert_eq!(form.parameters("foo").count(), 0);
            assert_eq!(form.parameter("bar").as_deref(), Some("1"));
        });
    }
}

#[test]
fn a6_an_empty_secret_or_assertion_is_none() {
    let server = server();
    for empty in ["=", ""] {
        let body = format!("client_id={CLI}&client_secret{empty}&client_assertion{empty}");
        with_claim(&server, post(&body), |claim| {
            assert_eq!((claim.secret(), claim.assertion()), (None, None));
        });
        assert_eq!(
            authenticate(&server, post(&body), cli()).cause(),
            Cause::Issued
        );
        // Neither of them counts as a second method beside Basic.
        both_go_on(
            &format!("client_secret{empty}&client_assertion{empty}"),
            &[basic(BACKEND, SECRET).as_bytes()],
        );
    }
}

// A7

/// "The authorization server MUST ignore unrecognized request parameters." (RFC 6749, section 3.2)
#[test]
fn a7_an_unknown_parameter_is_ignored() {
    for unknown in [
        "foo=bar",
        "foo",
        "=",
        "=x",
        "f%C3%A9=%00",
        "error=access_denied",
        "user_code=WDJB-MJHT",
        "redirect_uri=https%3A%2F%2Fa.example&code=x&code_verifier=y",
        "Client_Id=other&CLIENT_SECRET=x&client-secret=y",
        "client_assertion_type=x",
    ] {
        both_go_on(&format!("client_id={CLI}&{unknown}"), &[]);
        both_go_on(&format!("{unknown}&client_id={CLI}"), &[]);
    }
}

/// golang.org/x/oauth2 sends `scope` in a poll. A poll does not even check whether the scope is valid.
#[test]
fn a7_scope_in_a_poll_is_ignored() {
    for scope in ["openid", "admin", "", "%22", "++", "%C3%A9", "a%0Ab"] {
        let body = poll_body(CLI, NO_CODE) + "&scope=" + scope;
        let (reply, _) = poll(&server(), &body, Some(cli()));
        let description = "the device code is not valid";
        assert_refused(&reply, Cause::UnknownCode, "invalid_grant", description);
    }
}

// A8

#[test]
fn a8_an_absent_grant_type_is_an_invalid_request() {
    let server = server();
    for body in [
        "",
        "&",
        "grant_type=",
        "client_id=client_cli",
        "device_code=x&client_id=client_cli",
        "GRANT_TYPE=urn:ietf:params:oauth:grant-type:device_code",
        "x=grant_type",
    ] {
        let reply = refusal(at_token(&server, post(body)));
        assert_refused(
            &reply,
            Cause::GrantTypeMissing,
            "invalid_request",
            "grant_type is missing",
        );
    }
}

#[test]
fn a8_comes_before_the_credentials() {
    let server = server();
    let body = "client_secret=a&client_assertion=b";
    let incoming = post(body).authorization([b"x", b"y"]);
    let reply = refusal(at_token(&server, incoming));
    assert_eq!(reply.cause(), Cause::GrantTypeMissing);
}

/// The device authorization endpoint has no grant type (RFC 8628, section 3.1).
#[test]
fn a8_the_device_authorization_endpoint_asks_for_no_grant_type() {
    let server = server();
    for grant in ["", "&grant_type=", "&grant_type=password"] {
        let body = format!("client_id={CLI}{grant}");
        at_device(&server, post(&body)).unwrap();
    }
}

// A9

#[test]
fn a9_another_grant_type_is_for_the_host_to_serve_with_its_parameters() {
    let server = server();
    let body = "grant_type=authorization_code&code=tGzv3JOkF0XG5Qx2TlKWIA&scope=a+b&x=";
    let reply = refusal(at_token(&server, post(body)));
    assert_eq!(reply.cause(), Cause::GrantTypeUnsupported);
    with_parameters(&server, post(body), |form| {
        assert_eq!(form.client_id(), CLI);
        let parameter = |name| form.parameter(name);
        assert_eq!(
            parameter("grant_type").as_deref(),
            Some("authorization_code")
        );
        assert_eq!(parameter("code").as_deref(), Some("tGzv3JOkF0XG5Qx2TlKWIA"));
        assert_eq!(parameter("scope").as_deref(), Some("a b"));
        assert_eq!(parameter("x"), None);
        assert_eq!(parameter("y"), None);
    });
}

/// Only `grant_type` names the grant. In any other parameter, the name of the grant is an ordinary value.
#[test]
fn a9_no_other_parameter_names_the_grant() {
    let server = server();
    let encoded = encoded(GRANT);
    for name in ["scope", "client_id", "device_code"] {
        let body = format!("grant_type=authorization_code&{name}={encoded}");
        let reply = refusal(at_token(&server, post(&body)));
        assert_eq!(reply.cause(), Cause::GrantTypeUnsupported, "{name}");
    }
}

#[test]
fn a9_a_grant_type_that_nobody_serves_is_unsupported() {
    let server = server();
    for other in [
        "password",
        "authorization_code",
        "device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "urn:ietf:params:oauth:grant-type:device_code+",
        "+urn:ietf:params:oauth:grant-type:device_code",
        "URN:IETF:PARAMS:OAUTH:GRANT-TYPE:DEVICE_CODE",
        "urn:ietf:params:oauth:grant-type:device-code",
        "urn:ietf:params:oauth:grant-type:device_code%00",
        "urn%253Aietf%253Aparams%253Aoauth%253Agrant-type%253Adevice_code",
        "+",
    ] {
        let body = format!("grant_type={other}&device_code={NO_CODE}&client_id={CLI}");
        let reply = refusal(at_token(&server, post(&body)));
        let description = "this grant type is not supported";
        let error = "unsupported_grant_type";
        assert_refused(&reply, Cause::GrantTypeUnsupported, error, description);
    }
}

#[test]
fn a9_the_device_grant_is_known_however_it_is_encoded() {
    let server = server();
    let plain = "urn:ietf:params:oauth:grant-type:device_code";
    let lower = "urn%3aietf%3aparams%3aoauth%3agrant-type%3adevice_code";
    for name in ["grant_type", "grant%5Ftype", &encoded("grant_type")] {
        for grant in [GRANT, plain, lower, &encoded(plain)] {
            let body = format!("{name}={grant}&device_code={NO_CODE}&client_id={CLI}");
            at_token(&server, post(&body)).unwrap();
        }
    }
}

/// The host has its own rules for the credentials of other grants.
#[test]
fn a9_comes_before_the_credentials() {
    let server = server();
    let body = "grant_type=password&client_secret=a&client_assertion=b";
    let incoming = post(body).authorization([b"x", b"y"]);
    let reply = refusal(at_token(&server, incoming));
    assert_eq!(reply.cause(), Cause::GrantTypeUnsupported);
}

// A10

const SEVERAL: (Cause, &str, &str) = (
    Cause::SeveralCredentials,
    "invalid_request",
    "the client authenticates in more than one way",
);

/// "The client MUST NOT use more than one authentication method in each request." (RFC 6749, section 2.3)
#[test]
fn a10_more_than_one_way_of_authentication_is_refused_in_every_combination() {
    let (cause, error, description) = SEVERAL;
    let header = basic(BACKEND, SECRET);
    for id in ["", "client_id=client_backend&"] {
        for (with_basic, with_secret, with_assertion) in [
            (true, true, false),
            (true, false, true),
            (false, true, true),
            (true, true, true),
        ] {
            let mut body = id.to_owned();
            if with_secret {
                body += "client_secret=7Fjfp0ZBr1KtDRbnfVdmIw&";
            }
            if with_assertion {
                body += "client_assertion=eyJ.e30.c2ln&";
            }
            let headers = [header.as_bytes()];
            let headers = &headers[..usize::from(with_basic)];
            both_refuse(&body, headers, cause, error, description);
        }
    }
}

#[test]
fn a10_one_way_alone_goes_on() {
    both_go_on("", &[basic(BACKEND, SECRET).as_bytes()]);
    both_go_on("client_id=client_backend&client_secret=s", &[]);
    both_go_on("client_assertion=eyJ.e30.c2ln", &[]);
    both_go_on(
        "client_id=client_backend&client_assertion=eyJ.e30.c2ln",
        &[],
    );
    // Without an assertion, the type of an assertion is not a second way to authenticate.
    let typed = "client_assertion_type=urn%3Ax&client_id=client_backend&client_secret=s";
    both_go_on(typed, &[]);
}

#[test]
fn a10_basic_with_an_empty_secret_is_no_way_of_authentication() {
    let header = basic(BACKEND, "");
    both_go_on("client_secret=s", &[header.as_bytes()]);
    both_go_on("client_assertion=eyJ.e30.c2ln", &[header.as_bytes()]);
}

#[test]
fn a10_comes_before_a11_a12_a14_and_a15() {
    let (cause, error, description) = SEVERAL;
    let two = "client_secret=%00&client_assertion=b";
    both_refuse(two, &[], cause, error, description); // A14, A15
    both_refuse(two, &[b"Bearer x"], cause, error, description); // A11
    both_refuse(two, &[b"x", b"y"], cause, error, description); // A11
    let other = format!("client_id=other&{two}");
    let header = basic(BACKEND, SECRET);
    both_refuse(&other, &[header.as_bytes()], cause, error, description); // A12
}

// A11

/// Asserts that both endpoints answer 401 `invalid_client`, because the header cannot be used.
#[track_caller]
fn both_answer_401(parameters: &str, authorization: &[&[u8]]) {
    for outcome in both(parameters, authorization) {
        assert_invalid_client(&refusal(outcome), Cause::Authorization);
    }
}

#[test]
fn a11_a_repeated_authorization_header_is_invalid_client() {
    let header = basic(BACKEND, SECRET);
    let header = header.as_bytes();
    both_answer_401("", &[header, header]);
    both_answer_401("", &[header, b"Bearer x"]);
    both_answer_401("", &[b"", header]);
    both_answer_401("client_id=client_cli", &[header, header, header]);
}

#[test]
fn a11_another_scheme_is_invalid_client() {
    let pair = basic(BACKEND, SECRET);
    let pair = pair.strip_prefix("Basic ").unwrap();
    for header in [
        String::new(),
        " ".to_owned(),
        "Bearer eyJ.e30.c2ln".to_owned(),
        "DPoP eyJ.e30.c2ln".to_owned(),
        "Digest username=\"x\"".to_owned(),
        "Basic".to_owned(),
        format!("Basi {pair}"),
        format!("Basicx {pair}"),
        format!("Basic{pair}"),
        format!("Basic:{pair}"),
        pair.to_owned(),
    ] {
        both_answer_401("client_id=client_cli", &[header.as_bytes()]);
    }
}

#[test]
fn a11_a_header_of_8_kib_is_read_and_a_longer_one_is_not() {
    let header = basic(BACKEND, SECRET);
    let longest = format!("{header:8192}");
    both_go_on("", &[longest.as_bytes()]);
    both_answer_401("", &[format!("{header:8193}").as_bytes()]);
}

/// Base64 with the standard alphabet and with padding (RFC 7617, section 2, by RFC 4648, section 4).
#[test]
fn a11_bad_base64_is_invalid_client() {
    for pair in [
        "",           // nothing
        " ",          // nothing
        "=",          // padding alone
        "!!!!",       // not of the alphabet
        "YTpi*A==",   // one character not of the alphabet
        "YTpiYw",     // "a:bc" without its padding
        "YTpiYw=",    // with half of its padding
        "YTpiYw===",  // with too much padding
        "YTpiYw==YQ", // something after the padding
        "YTpi Yw==",  // a space within
        "YTp",        // an impossible length
        "Pz8/Oj8_",   // the URL alphabet: "???:??" has a slash
        "YTpiYw==,",  // a comma after it
    ] {
        let header = format!("Basic {pair}");
        both_answer_401("", &[header.as_bytes()]);
    }
    both_answer_401("", &[b"Basic \xFF\xFE"]);
}

#[test]
fn a11_no_colon_is_invalid_client() {
    use base64::Engine as _;
    for pair in ["", "client_cli", "client_cli%3Asecret", "client_cli;secret"] {
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        both_answer_401("", &[format!("Basic {pair}").as_bytes()]);
    }
}

#[test]
fn a11_a_bad_percent_escape_is_invalid_client() {
    for broken in ["%", "%4", "%zz", "a%", "%%41"] {
        both_answer_401("", &[basic(broken, SECRET).as_bytes()]);
        both_answer_401("", &[basic(BACKEND, broken).as_bytes()]);
        // The id is checked even if the secret is empty.
        both_answer_401("client_id=client_cli", &[basic(broken, "").as_bytes()]);
    }
}

#[test]
fn a11_what_is_not_utf_8_is_invalid_client() {
    use base64::Engine as _;
    for octets in [b"\xFF".as_slice(), b"\xC3", b"\xC0\x80", b"\xED\xA0\x80"] {
        let escaped = escaped(octets);
        both_answer_401("", &[basic(&escaped, SECRET).as_bytes()]);
        both_answer_401("", &[basic(BACKEND, &escaped).as_bytes()]);
        for pair in [
            [octets, b":secret"].concat(),
            [b"client_backend:", octets].concat(),
        ] {
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            both_answer_401("", &[format!("Basic {pair}").as_bytes()]);
        }
    }
}

#[test]
fn a11_a_control_character_is_invalid_client() {
    for control in ["%00", "%0A", "%0D%0A", "%1F", "%7F", "\n", "\0", "\u{7F}"] {
        both_answer_401("", &[basic(&format!("client{control}"), SECRET).as_bytes()]);
        both_answer_401("", &[basic(BACKEND, &format!("s{control}")).as_bytes()]);
        both_answer_401("", &[basic(BACKEND, control).as_bytes()]);
    }
}

#[test]
fn a11_comes_before_a12_a14_a15_and_a16() {
    both_answer_401("", &[b"Bearer x"]);
    both_answer_401("client_id=%00", &[b"Bearer x"]);
    both_answer_401("client_id=other&client_secret=%00", &[b"Bearer x"]);
    let body = format!("grant_type={GRANT}");
    let incoming = post(&body).authorization(Some("Bearer x"));
    let reply = refusal(at_token(&server(), incoming));
    assert_invalid_client(&reply, Cause::Authorization);
}

/// A header that cannot be used is refused even if the body has a client id.
#[test]
fn a11_an_unusable_header_is_not_ignored_for_a_public_client() {
    both_answer_401("client_id=client_cli", &[b"Bearer x"]);
}

/// The header that RFC 6749, section 2.3.1, shows, with the id s6BhdRkqt3 and the secret 7Fjfp0ZBr1KtDRbnfVdmIw.
#[test]
fn a11_the_header_of_the_rfc_is_usable_in_every_case_of_its_scheme() {
    let server = server();
    for scheme in ["Basic", "basic", "BASIC", "bAsIc"] {
        for blanks in [" ", "  "] {
            let header = format!("{scheme}{blanks}czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3");
            let incoming = post("").authorization(Some(&header));
            with_claim(&server, incoming, |claim| {
                assert_eq!(claim.client_id(), Some("s6BhdRkqt3"));
                assert_eq!(claim.secret().as_deref(), Some(SECRET));
            });
        }
    }
}

/// The first colon separates the two halves. Then each half is form-decoded, so `+` becomes a space.
#[test]
fn a11_basic_is_split_at_the_first_colon_and_each_half_is_decoded() {
    let server = server();
    for (id, secret, read_id, read_secret) in [
        ("id", "a:b:c", "id", "a:b:c"),
        ("id", ":", "id", ":"),
        ("i%3Ad", "s", "i:d", "s"),
        ("i+d", "a+b", "i d", "a b"),
        ("i%20d", "a%2Bb", "i d", "a+b"),
        ("%69%64", "%25%26%3d", "id", "%&="),
        ("id", "a b", "id", "a b"),
        ("id", "a&b=c", "id", "a&b=c"),
    ] {
        let header = basic(id, secret);
        with_claim(&server, post("").authorization(Some(&header)), |claim| {
            assert_eq!(claim.client_id(), Some(read_id));
            assert_eq!(claim.secret().as_deref(), Some(read_secret));
        });
    }
}

// A12

const DIFFER: (Cause, &str, &str) = (
    Cause::ClientIdsDiffer,
    "invalid_request",
    "client_id differs from the one in the authorization header",
);

#[test]
fn a12_two_different_client_ids_are_refused() {
    let (cause, error, description) = DIFFER;
    for secret in [SECRET, ""] {
        let header = basic(BACKEND, secret);
        for other in [
            "client_cli",
            "client_backen",
            "client_backend2",
            "Client_Backend",
            "client_backend+",
            "%20client_backend",
            "client_backend%00",
            "%00",
            "client%5Fbacken%64%64",
        ] {
            let body = format!("client_id={other}");
            both_refuse(&body, &[header.as_bytes()], cause, error, description);
        }
    }
}

#[test]
fn a12_the_same_client_id_twice_goes_on_however_it_is_encoded() {
    let escaped = encoded(BACKEND);
    for in_header in [BACKEND, &escaped] {
        for in_body in [BACKEND, &escaped, "client%5Fbackend", ""] {
            let header = basic(in_header, SECRET);
            both_go_on(&format!("client_id={in_body}"), &[header.as_bytes()]);
        }
    }
    both_go_on("", &[basic(BACKEND, SECRET).as_bytes()]);
}

/// Each id is decoded exactly once before the two are compared, so `%2541` is not `A`.
#[test]
fn a12_an_id_is_compared_as_it_reads() {
    let (cause, error, description) = DIFFER;
    let header = basic("%2541", SECRET);
    both_refuse(
        "client_id=%41",
        &[header.as_bytes()],
        cause,
        error,
        description,
    );
    both_go_on("client_id=%2541", &[header.as_bytes()]);
}

#[test]
fn a12_comes_before_a15_and_a16() {
    let (cause, error, description) = DIFFER;
    let header = basic(BACKEND, "");
    let body = "client_id=%C3%A9&client_secret=%00";
    both_refuse(body, &[header.as_bytes()], cause, error, description);
    let poll = format!("grant_type={GRANT}&client_id=other");
    let incoming = post(&poll).authorization(Some(&header));
    let reply = refusal(at_token(&server(), incoming));
    assert_refused(&reply, cause, error, description);
}

// A13

/// "The client MAY omit the parameter if the client secret is an empty string." (RFC 6749, section 2.3.1)
#[test]
fn a13_basic_with_an_empty_secret_only_identifies() {
    let server = server();
    let header = basic(CLI, "");
    for body in ["", "client_id=client_cli", "client_secret="] {
        let request = post(body).authorization(Some(&header));
        with_claim(&server, request, |claim| {
            assert_eq!(claim.client_id(), Some(CLI));
            assert_eq!(claim.secret(), None);
        });
        assert_eq!(authenticate(&server, request, cli()).cause(), Cause::Issued);
    }
}

#[test]
fn a13_the_body_may_carry_the_secret_of_the_client_that_basic_identifies() {
    let server = server();
    let header = basic(BACKEND, "");
    let body = format!("client_secret={SECRET}");
    let request = post(&body).authorization(Some(&header));
    with_claim(&server, request, |claim| {
        assert_eq!(claim.client_id(), Some(BACKEND));
        assert_eq!(claim.secret().as_deref(), Some(SECRET));
    });
    assert_eq!(
        authenticate(&server, request, backend()).cause(),
        Cause::Issued
    );
}

#[test]
fn a13_a_confidential_client_is_not_authenticated_by_an_empty_secret() {
    let server = server();
    let header = basic(BACKEND, "");
    let request = post("").authorization(Some(&header));
    let reply = authenticate(&server, request, backend());
    assert_invalid_client(&reply, Cause::CredentialMissing);
}

// A14

#[test]
fn a14_no_client_id_anywhere_is_an_invalid_request() {
    for body in [
        "",
        "client_id=",
        "client_id",
        "client_secret=s",
        "client_secret=%00",
        "client_assertion=",
        "client_assertion_type=x",
        "scope=openid",
        "Client_id=client_cli",
    ] {
        both_refuse(
            body,
            &[],
            Cause::ClientIdMissing,
            "invalid_request",
            "client_id is missing",
        );
    }
}

#[test]
fn a14_an_empty_id_in_basic_is_no_client_id() {
    for secret in ["", SECRET] {
        for body in ["", "client_id="] {
            both_refuse(
                body,
                &[basic("", secret).as_bytes()],
                Cause::ClientIdMissing,
                "invalid_request",
                "client_id is missing",
            );
        }
    }
}

/// "The `client_id` is unnecessary for client assertion authentication because the client is identified by the subject within
/// the assertion." (RFC 7521, section 4.2)
#[test]
fn a14_an_assertion_needs_no_client_id() {
    let server = server();
    let body = "client_assertion=eyJ.e30.c2ln&client_assertion_type=urn%3Ax%3Ay";
    both_go_on(body, &[]);
    with_claim(&server, post(body), |claim| {
        assert_eq!(claim.client_id(), None);
        assert_eq!(claim.assertion().as_deref(), Some("eyJ.e30.c2ln"));
        assert_eq!(claim.assertion_type().as_deref(), Some("urn:x:y"));
        assert_eq!(claim.secret(), None);
    });
}

#[test]
fn a14_comes_before_a16() {
    let server = server();
    let body = format!("grant_type={GRANT}");
    let reply = refusal(at_token(&server, post(&body)));
    assert_eq!(reply.cause(), Cause::ClientIdMissing);
}

// A15

/// `VSCHAR = %x20-7E` (RFC 6749, appendix A.1 and A.2).
#[test]
fn a15_an_id_or_a_secret_with_other_characters_is_an_invalid_request_in_the_body() {
    for other in [
        "%00",
        "%09",
        "%0A",
        "%1F",
        "%7F",
        "\u{7F}",
        "\n",
        "\0",
        "%C2%80",
        "%C3%A9",
        "\u{E9}",
        "%E2%84%AA",
        "\u{1F600}",
    ] {
        for body in [
            format!("client_id={other}"),
            format!("client_id=client{other}cli"),
            format!("client_id=client_cli{other}"),
            format!("client_id=client_backend&client_secret={other}"),
            format!("client_id=client_backend&client_secret=s{other}s"),
            format!("client_id={other}&client_secret={other}"),
            format!("client_id={other}&client_assertion=eyJ.e30.c2ln"),
        ] {
            both_refuse(
                &body,
                &[],
                Cause::CredentialCharacters,
                "invalid_request",
                "client_id or client_secret is not printable ASCII",
            );
        }
        let identified = basic(BACKEND, "");
        both_refuse(
            &format!("client_secret={other}"),
            &[identified.as_bytes()],
            Cause::CredentialCharacters,
            "invalid_request",
            "client_id or client_secret is not printable ASCII",
        );
    }
}

#[test]
fn a15_the_same_in_basic_is_invalid_client() {
    for other in ["%00", "%7F", "%C2%80", "%C3%A9", "\u{E9}", "%E2%84%AA"] {
        both_answer_401("", &[basic(&format!("id{other}"), SECRET).as_bytes()]);
        both_answer_401("", &[basic(BACKEND, &format!("s{other}")).as_bytes()]);
        both_answer_401("", &[basic(other, "").as_bytes()]);
    }
}

#[test]
fn a15_every_visible_character_and_space_is_legal() {
    let server = server();
    let all: String = (0x20_u8..=0x7E).map(char::from).collect();
    let in_body = format!("client_id={0}&client_secret={0}", encoded(&all));
    let header = basic(&encoded(&all), &encoded(&all));
    for incoming in [post(&in_body), post("").authorization(Some(&header))] {
        with_claim(&server, incoming, |claim| {
            assert_eq!(claim.client_id(), Some(all.as_str()));
            assert_eq!(claim.secret().as_deref(), Some(&*all));
        });
    }
}

#[test]
fn a15_comes_before_a16() {
    let server = server();
    let body = format!("grant_type={GRANT}&client_id=%00");
    let reply = refusal(at_token(&server, post(&body)));
    assert_eq!(reply.cause(), Cause::CredentialCharacters);
}

// A16

#[test]
fn a16_an_absent_device_code_is_an_invalid_request() {
    let server = server();
    let header = basic(BACKEND, SECRET);
    for code in [
        "",
        "&device_code=",
        "&device_code",
        "&Device_Code=x",
        "&code=x",
    ] {
        let in_body = format!("grant_type={GRANT}&client_id={CLI}{code}");
        let in_header = format!("grant_type={GRANT}{code}");
        for incoming in [
            post(&in_body),
            post(&in_header).authorization(Some(&header)),
        ] {
            let reply = refusal(at_token(&server, incoming));
            assert_refused(
                &reply,
                Cause::DeviceCodeMissing,
                "invalid_request",
                "device_code is missing",
            );
        }
    }
}

#[test]
fn a16_the_device_authorization_endpoint_asks_for_no_device_code() {
    at_device(&server(), post("client_id=client_cli")).unwrap();
}

// A17

/// Returns the reply to a poll with this code at an empty store, and whether a session was looked up.
fn polled(device_code: &str) -> (Reply, bool) {
    poll(&server(), &poll_body(CLI, device_code), Some(cli()))
}

#[test]
fn a17_a_device_code_of_an_impossible_length_is_answered_as_c2_without_a_look_up() {
    let description = "the device code is not valid";
    for code in [
        "x".to_owned(),
        "a".repeat(42),
        "a".repeat(44),
        "a".repeat(10_000),
        encoded(&"a".repeat(42)),
        encoded(&"a".repeat(44)),
        "a".repeat(40) + "%41%42", // 46 octets that stand for 42
        "\u{E9}".repeat(43),       // 43 characters of two octets
        format!("{NO_CODE}+"),
        format!("%20{NO_CODE}"),
        format!("{NO_CODE}="),
        "%00".to_owned(),
    ] {
        let (reply, looked_up) = polled(&code);
        assert!(!looked_up);
        assert_refused(&reply, Cause::MalformedCode, "invalid_grant", description);
    }
    // A code of the right length gets the same bytes, by C2.
    let (reply, looked_up) = polled(NO_CODE);
    assert!(looked_up);
    assert_refused(&reply, Cause::UnknownCode, "invalid_grant", description);
}

#[test]
fn a17_the_length_is_that_of_what_the_code_stands_for() {
    let key = |device_code: &str| {
        let (server, body) = (server(), poll_body(CLI, device_code));
        let mut exchange = server.token(post(&body), "", NOW);
        if let Next::Client(_, ask) = exchange.next() {
            ask.answer(Ok(Some(&cli())));
        }
        match exchange.next() {
            Next::Load(key, _) => *key,
            next => panic!("{next:?}"),
        }
    };
    let plain = key(NO_CODE);
    assert_eq!(key(&encoded(NO_CODE)), plain);
    assert_eq!(key(&NO_CODE.replacen('G', "%47", 1)), plain);
}

/// The client is checked first, so an unknown client gets the same answer for any code.
#[test]
fn a17_goes_on_to_the_client() {
    for code in ["x", NO_CODE] {
        let body = poll_body("client_gone", code);
        let (reply, _) = poll(&server(), &body, None);
        assert_invalid_client(&reply, Cause::UnknownClient);
    }
}

// The whole table.

#[test]
fn an_empty_body_goes_on_to_a8_or_a14() {
    let server = server();
    for body in ["", "&", "&&&"] {
        let reply = refusal(at_token(&server, post(body)));
        assert_eq!(reply.cause(), Cause::GrantTypeMissing);
        let reply = refusal(at_device(&server, post(body)));
        assert_eq!(reply.cause(), Cause::ClientIdMissing);
    }
}

#[test]
fn debug_shows_nothing_of_a_request() {
    let server = server();
    let secret = "qL8nZ3vT-secret";
    let header = basic(BACKEND, secret);
    let body = poll_body(BACKEND, NO_CODE) + "&foo=bar";
    let incoming = post(&body).authorization(Some(&header));
    let mut exchange = server.token(incoming, "", NOW);
    let mut shown = format!("{incoming:?} {exchange:?}");
    shown += &format!("{:?}", exchange.next());
    if let Next::Take(_, ask) = exchange.next() {
        ask.answer(Ok(Ok(())));
    }
    if let Next::Client(claim, ask) = exchange.next() {
        shown += &format!("{claim:?} {ask:?}");
    }
    for hidden in [secret, NO_CODE, "bar", &header] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

/// A method, media types, `Authorization` headers and a body.
type Sent = (String, Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<u8>);

/// Returns requests with any method, headers and body. Many of them are nearly right.
fn requests() -> impl Strategy<Value = Sent> {
    let method = prop_oneof![4 => Just("POST".to_owned()), 1 => ".{0,6}"];
    let media_type = prop_oneof![
        4 => Just(FORM.as_bytes().to_vec()),
        1 => "(?i)application/x-www-form-urlencoded( ?; ?.{0,8})?".prop_map(String::into_bytes),
        1 => any::<Vec<u8>>(),
    ];
    let header = prop_oneof![
        ("[a-z%+:]{0,8}", "[a-z%+0-9]{0,8}")
            .prop_map(|(id, secret)| basic(&id, &secret).into_bytes()),
        "Basic [A-Za-z0-9+/=]{0,16}".prop_map(String::into_bytes),
        any::<Vec<u8>>(),
    ];
    let name = prop_oneof![
        Just("grant_type".to_owned()),
        Just("device_code".to_owned()),
        Just("client_id".to_owned()),
        Just("client_secret".to_owned()),
        Just("client_assertion".to_owned()),
        Just("scope".to_owned()),
        Just("resource".to_owned()),
        "[a-z%0-9]{0,4}",
    ];
    let value = prop_oneof![
        Just(GRANT.to_owned()),
        Just(NO_CODE.to_owned()),
        "[ -~]{0,6}".prop_map(|text| encoded(&text)),
        "[a-z+%0-9A-F]{0,8}",
        ".{0,4}",
    ];
    let parameters = prop::collection::vec((name, value), 0..8).prop_map(|parameters| {
        let each = parameters
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"));
        each.collect::<Vec<_>>().join("&").into_bytes()
    });
    let body = prop_oneof![4 => parameters, 1 => any::<Vec<u8>>()];
    (
        method,
        prop::collection::vec(media_type, 0..3),
        prop::collection::vec(header, 0..3),
        body,
    )
}

/// Asserts what every refusal has: a JSON body with two members, three headers, and an error status.
fn is_well_formed(reply: &Reply) -> Result<(), TestCaseError> {
    let response = reply.response();
    prop_assert!(matches!(response.status(), 400 | 401 | 405));
    let content_type = response.header("content-type");
    prop_assert_eq!(content_type, Some("application/json"));
    let cache_control = response.header("cache-control");
    prop_assert_eq!(cache_control, Some("no-store"));
    let pragma = response.header("pragma");
    prop_assert_eq!(pragma, Some("no-cache"));
    let challenged = response.header("www-authenticate").is_some();
    prop_assert_eq!(challenged, response.status() == 401);
    prop_assert_eq!(response.header("allow").is_some(), response.status() == 405);
    let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
    let members = body.as_object().unwrap();
    let names: Vec<_> = members.keys().map(String::as_str).collect();
    prop_assert_eq!(names, ["error", "error_description"]);
    prop_assert!(members.values().all(serde_json::Value::is_string));
    Ok(())
}

proptest! {
    #[test]
    fn any_request_gets_a_form_or_a_refusal_and_a_form_gets_a_step_or_a_refusal(
        (method, media_types, headers, body) in requests()
    ) {
        let server = server();
        let incoming = Request::new(&method, &body)
            .content_type(&media_types)
            .authorization(&headers);
        let mut host = Host::new([]);
        let own = host.run(server.authenticate(incoming, "", NOW));
        let ends = [
            host.run(server.token(incoming, "", NOW)),
            host.run(server.device_authorization(incoming, "", None, NOW)),
            host.run(server.revocation(incoming, "", NOW)),
            own.unwrap_err(),
        ];
        for reply in ends {
            is_well_formed(&reply)?;
            let cause = reply.cause();
            prop_assert_eq!(cause == Cause::MethodNotAllowed, method != "POST");
            let is_refused = matches!(cause, Cause::MethodNotAllowed | Cause::MediaType);
            prop_assert!(is_refused || media_types.len() == 1);
            // Only a request in the right form gets as far as the client, who is unknown here.
            prop_assert!(cause != Cause::UnknownClient || headers.len() < 2);
        }
    }

    #[test]
    fn any_bytes_for_a_body_are_a_form_or_refused(body in any::<Vec<u8>>()) {
        if let Err(reply) = read(&body) {
            is_well_formed(&reply)?;
        }
    }

    /// A value is read in the same way, however it is encoded. An empty value counts as absent.
    #[test]
    fn a_value_is_read_back_as_it_was_encoded(
        name in "[^\0]{1,12}", value in ".{0,40}", choices in any::<u64>()
    ) {
        let mut choices = choices;
        let mut encode = |text: &str| {
            let mut out = Vec::new();
            for octet in text.bytes() {
                choices = choices.rotate_left(7).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let must = matches!(octet, b'%' | b'+' | b'&' | b'=');
                match (octet, choices >> 62) {
                    (b' ', 0) => out.push(b'+'),
                    (octet, 1) => out.extend(format!("%{octet:02x}").bytes()),
                    (octet, _) if must => out.extend(format!("%{octet:02X}").bytes()),
                    (octet, _) => out.push(octet),
                }
            }
            out
        };
        let body = [encode(&name), b"=".to_vec(), encode(&value), b"&zzz-after=1".to_vec()].concat();
        let server = server();
        let ours = ["client_id", "client_secret", "client_assertion"];
        prop_assume!(!ours.contains(&name.as_str()));
        let read = with_parameters(&server, post(&body), |form| {
            form.parameter(&name).map(std::borrow::Cow::into_owned)
        });
        prop_assert_eq!(read.as_deref(), Some(value.as_str()).filter(|value| !value.is_empty()));
    }

    /// This holds for every name except `resource` and `audience`.
    #[test]
    fn a_name_twice_is_refused(name in ".{1,12}", between in "[a-z]{0,3}") {
        prop_assume!(name != "resource" && name != "audience");
        let escaped = encoded(&name);
        let body = format!("{escaped}=1&{between}=2&{}", escaped.to_lowercase());
        let reply = refusal(read(body.as_bytes()));
        prop_assert_eq!(reply.cause(), Cause::RepeatedParameter);
    }
}
