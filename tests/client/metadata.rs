//! Table M: metadata, read and made.

use device_flow::client::{EndpointError, Endpoints};
use device_flow::wire::metadata::{MAX_DOCUMENT, Metadata, MetadataError, UrlError};
use serde_json::{Value, json};

const ISSUER: &str = "https://as.example";
const DEVICE: &str = "https://as.example/oauth2/device_authorization";
const TOKEN: &str = "https://as.example/oauth2/token";

fn document() -> Value {
    json!({
        "issuer": ISSUER,
        "device_authorization_endpoint": DEVICE,
        "token_endpoint": TOKEN,
        "jwks_uri": "https://as.example/oauth2/jwks",
    })
}

fn read(document: &Value) -> Result<Metadata, MetadataError> {
    Metadata::read(document.to_string().as_bytes(), ISSUER)
}

/// Returns what is read from the document if a member has another value.
fn with(name: &str, value: Value) -> Result<Metadata, MetadataError> {
    let mut document = document();
    document[name] = value;
    read(&document)
}

#[test]
fn m1_an_issuer_that_is_not_identical_code_point_for_code_point_is_an_error() {
    // "If these values are not identical, the data contained in the response MUST NOT be used." (RFC 8414, section 3.3)
    assert_eq!(read(&document()).unwrap().issuer(), ISSUER);
    for issuer in [
        "https://as.example/",
        "HTTPS://as.example",
        "https://AS.example",
        "https://as.example:443",
        "",
    ] {
        assert_eq!(
            with("issuer", json!(issuer)),
            Err(MetadataError::Issuer),
            "{issuer}"
        );
    }
    for issuer in [json!(null), json!([ISSUER]), json!({})] {
        assert_eq!(with("issuer", issuer), Err(MetadataError::Issuer));
    }
    assert_eq!(
        read(&json!({"token_endpoint": TOKEN})),
        Err(MetadataError::Issuer)
    );
    // The issuer is checked before anything else in the document.
    let foreign =
        json!({"issuer": "https://evil.example", "token_endpoint": "http://evil.example/"});
    assert_eq!(read(&foreign), Err(MetadataError::Issuer));
}

#[test]
fn m1_a_document_that_cannot_be_read_is_not_used() {
    for body in [
        "",
        "[]",
        "null",
        "{",
        "{}x",
        "\u{feff}{}",
        r#"{"issuer":"https://as.example","issuer":"https://as.example"}"#,
        r#"{"issuer":"https://as.example","x":1,"x":1}"#,
    ] {
        let read = Metadata::read(body.as_bytes(), ISSUER);
        assert_eq!(read, Err(MetadataError::Unreadable), "{body}");
    }
    assert_eq!(
        Metadata::read(b"{\"issuer\":\"\xff\"}", ISSUER),
        Err(MetadataError::Unreadable)
    );
    let deep = format!("{{\"x\":{}", "[".repeat(500_000));
    assert_eq!(
        Metadata::read(deep.as_bytes(), ISSUER),
        Err(MetadataError::Unreadable)
    );
    let mut body = document().to_string();
    body.push_str(&" ".repeat(MAX_DOCUMENT - body.len()));
    assert!(Metadata::read(body.as_bytes(), ISSUER).is_ok());
    body.push(' ');
    assert_eq!(
        Metadata::read(body.as_bytes(), ISSUER),
        Err(MetadataError::TooLarge)
    );
}

#[test]
fn m2_without_a_device_authorization_endpoint_the_grant_is_unsupported_unless_one_stands_in() {
    let endpoints = Endpoints::from_metadata(&read(&document()).unwrap());
    assert_eq!(endpoints, Endpoints::new(DEVICE, TOKEN));
    let lacking = with("device_authorization_endpoint", json!(null)).unwrap();
    assert_eq!(lacking.device_authorization_endpoint(), None);
    assert_eq!(
        Endpoints::from_metadata(&lacking),
        Err(EndpointError::Missing("device_authorization_endpoint"))
    );
    let other = "https://as.example/device";
    let filled = lacking.or_device_authorization_endpoint(other).unwrap();
    assert_eq!(
        Endpoints::from_metadata(&filled),
        Endpoints::new(other, TOKEN)
    );
    // An endpoint that the document names is not replaced.
    let named = read(&document())
        .unwrap()
        .or_device_authorization_endpoint(other)
        .unwrap();
    assert_eq!(named, read(&document()).unwrap());
    let no_token = with("token_endpoint", json!(null)).unwrap();
    assert_eq!(
        Endpoints::from_metadata(&no_token),
        Err(EndpointError::Missing("token_endpoint"))
    );
}

#[test]
fn m3_any_other_endpoint_is_checked_when_it_is_asked_for() {
    let named = |value| with("jwks_uri", value).unwrap();
    let keys = "https://as.example/jwks";
    assert_eq!(named(json!(keys)).endpoint("jwks_uri"), Ok(Some(keys)));
    assert_eq!(named(json!(null)).endpoint("jwks_uri"), Ok(None));
    assert_eq!(named(json!(keys)).endpoint("revocation_endpoint"), Ok(None));
    assert_eq!(
        named(json!([keys])).endpoint("jwks_uri"),
        Err(MetadataError::Unreadable)
    );
    assert_eq!(
        named(json!("http://as.example/jwks")).endpoint("jwks_uri"),
        Err(MetadataError::Url(UrlError::Plain))
    );
}

#[test]
fn m3_an_endpoint_that_must_not_be_used_is_an_error() {
    let bad = |error| Err(MetadataError::Url(error));
    for (url, error) in [
        ("http://as.example/token", UrlError::Plain),
        ("http://127.0.0.1.as.example/", UrlError::Plain),
        ("https://as.example/token#", UrlError::Fragment),
        ("https://as.example/token#x", UrlError::Fragment),
        ("https://user@as.example/", UrlError::Malformed),
        ("https://user:password@as.example/", UrlError::Malformed),
        ("https://as.example/a b", UrlError::Malformed),
        ("https://as.example/a\nb", UrlError::Malformed),
        ("https://as.example\\@evil.example/", UrlError::Malformed),
        ("https://as.example/ü", UrlError::Malformed),
        (" https://as.example/", UrlError::Malformed),
        ("", UrlError::Malformed),
        ("/token", UrlError::Malformed),
        ("as.example/token", UrlError::Malformed),
        ("https://", UrlError::Malformed),
        ("https:///token", UrlError::Malformed),
        ("https://:443/token", UrlError::Malformed),
        ("https://as.example:0x1/", UrlError::Malformed),
        ("https://as.example:+1/", UrlError::Malformed),
        ("https://as.example:/", UrlError::Malformed),
        ("https://[::1/", UrlError::Malformed),
        ("https://[as.example]/", UrlError::Malformed),
        ("ftp://as.example/", UrlError::Malformed),
        (
            &format!("https://as.example/{}", "a".repeat(2048)),
            UrlError::TooLong,
        ),
    ] {
        for name in ["device_authorization_endpoint", "token_endpoint"] {
            assert_eq!(with(name, json!(url)), bad(error), "{name} {url}");
        }
        for endpoints in [Endpoints::new(url, TOKEN), Endpoints::new(DEVICE, url)] {
            let fault = endpoints.unwrap_err();
            assert!(
                matches!(fault, EndpointError::Url { why, .. } if why == error),
                "{fault}"
            );
            // The text of the error shows the reason.
            assert!(fault.to_string().ends_with(&error.to_string()));
        }
        assert_eq!(Metadata::for_server(ISSUER, DEVICE, url), bad(error));
        assert_eq!(Metadata::for_server(ISSUER, url, TOKEN), bad(error));
    }
    for junk in [json!(7), json!([]), json!({}), json!(true)] {
        assert_eq!(with("token_endpoint", junk), Err(MetadataError::Unreadable));
    }
    for url in [
        "https://as.example",
        "HTTPS://as.example:8443/token?tenant=a",
        "https://[2001:db8::1]/",
        "https://localhost/",
    ] {
        assert!(with("token_endpoint", json!(url)).is_ok(), "{url}");
    }
}

/// Otherwise somebody else's document could send codes to a program that listens on this machine.
#[test]
fn m3_an_endpoint_on_loopback_by_plain_http_is_for_an_issuer_on_loopback() {
    for url in [
        "http://localhost:8080/t",
        "http://LOCALHOST/",
        "http://127.3.2.1/",
        "http://[::1]:80/",
    ] {
        let refused = Err(MetadataError::Url(UrlError::Loopback));
        for name in ["device_authorization_endpoint", "token_endpoint"] {
            assert_eq!(with(name, json!(url)), refused, "{name} {url}");
        }
        let named = with("revocation_endpoint", json!(url)).unwrap();
        assert!(named.endpoint("revocation_endpoint").is_err(), "{url}");
        let lacking = with("device_authorization_endpoint", json!(null)).unwrap();
        assert_eq!(lacking.or_device_authorization_endpoint(url), refused);
        assert_eq!(Metadata::for_server(ISSUER, DEVICE, url), refused);
        for issuer in ["http://localhost:9000", "https://127.0.0.1", "http://[::1]"] {
            let mut own = document();
            own["issuer"] = json!(issuer);
            own["token_endpoint"] = json!(url);
            let read = Metadata::read(own.to_string().as_bytes(), issuer).unwrap();
            assert!(Endpoints::from_metadata(&read).is_ok());
            assert!(Metadata::for_server(issuer, url, url).is_ok());
        }
        assert!(Endpoints::new(url, url).is_ok());
    }
}

#[test]
fn m2_a_revocation_endpoint_is_taken_over_and_must_be_usable() {
    let named = |url: &str| with("revocation_endpoint", json!(url)).unwrap();
    let revoke = "https://as.example/revoke";
    let expected = Endpoints::new(DEVICE, TOKEN).unwrap().revocation(revoke);
    assert_eq!(Endpoints::from_metadata(&named(revoke)), expected);
    for url in ["http://as.example/revoke", "http://localhost/revoke"] {
        let fault = Endpoints::from_metadata(&named(url)).unwrap_err();
        assert!(
            fault
                .to_string()
                .starts_with("the revocation_endpoint cannot be used: ")
        );
    }
}

#[test]
fn m4_the_well_known_path_stands_between_host_and_path_or_is_appended() {
    for (issuer, oauth, openid) in [
        (
            "https://example.com",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
        ),
        (
            "https://example.com/",
            "https://example.com/.well-known/oauth-authorization-server",
            "https://example.com/.well-known/openid-configuration",
        ),
        (
            // The example of RFC 8414, section 3.1.
            "https://example.com/issuer1",
            "https://example.com/.well-known/oauth-authorization-server/issuer1",
            "https://example.com/issuer1/.well-known/openid-configuration",
        ),
        (
            "http://localhost:8080/a/b/",
            "http://localhost:8080/.well-known/oauth-authorization-server/a/b",
            "http://localhost:8080/a/b/.well-known/openid-configuration",
        ),
    ] {
        assert_eq!(Metadata::well_known(issuer).as_deref(), Ok(oauth));
        assert_eq!(Metadata::openid(issuer).as_deref(), Ok(openid));
    }
    for (issuer, error) in [
        ("https://example.com?a=b", UrlError::Query),
        ("https://example.com/#a", UrlError::Fragment),
        ("http://example.com", UrlError::Plain),
        ("example.com", UrlError::Malformed),
    ] {
        assert_eq!(Metadata::well_known(issuer), Err(MetadataError::Url(error)));
        assert_eq!(Metadata::openid(issuer), Err(MetadataError::Url(error)));
    }
}

#[test]
fn m5_a_server_makes_its_document_from_where_its_endpoints_are_mounted() {
    let made = Metadata::for_server(ISSUER, DEVICE, TOKEN).unwrap();
    let expected = json!({
        "issuer": ISSUER,
        "device_authorization_endpoint": DEVICE,
        "token_endpoint": TOKEN,
        "grant_types_supported": ["urn:ietf:params:oauth:grant-type:device_code"],
        "response_types_supported": [],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
    });
    assert_eq!(
        serde_json::from_str::<Value>(&made.to_json()).unwrap(),
        expected
    );
    // The client half reads what the server half makes.
    assert_eq!(Metadata::read(made.to_json().as_bytes(), ISSUER), Ok(made));
}

#[test]
fn m5_a_server_adds_what_else_it_has() {
    let made = Metadata::for_server(ISSUER, DEVICE, TOKEN).unwrap();
    let made = made.grant_type("refresh_token").grant_type("refresh_token");
    let made = made.member("jwks_uri", "https://as.example/jwks").unwrap();
    let made = made
        .member("response_types_supported", json!(["code"]))
        .unwrap();
    let expected = json!([
        "urn:ietf:params:oauth:grant-type:device_code",
        "refresh_token"
    ]);
    assert_eq!(made.members()["grant_types_supported"], expected);
    assert_eq!(made.members()["jwks_uri"], json!("https://as.example/jwks"));
    assert_eq!(made.members()["response_types_supported"], json!(["code"]));
    for name in [
        "issuer",
        "token_endpoint",
        "device_authorization_endpoint",
        "grant_types_supported",
    ] {
        assert_eq!(
            made.clone().member(name, "x"),
            Err(MetadataError::Reserved),
            "{name}"
        );
    }
}
