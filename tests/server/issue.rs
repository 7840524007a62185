//! Table D: the device authorization endpoint.

use core::fmt::Write as _;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{QuotaKey, SecretDigest};
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Exchange, Finish, Found, Inserted, Next, Policy,
    PolicyOptions, RateLimit, RateState, Reply, Server, ServerKeys, Session, Status,
};
use proptest::prelude::*;
use time::OffsetDateTime;

use crate::support::{
    self, BACKEND, CLI, Codes, Host, NOW, Question, SECRET, SOURCE, alice, assert_invalid_client,
    assert_refused, assert_reply, assert_unavailable, backend, basic, cli, encoded, entropy,
    entropy_of, error_body, key, policy, policy_of, post, scope, server, server_of,
};

/// Sends a request for codes with this `scope` parameter (the name and the encoded value), for which this entropy is drawn. Returns the
/// session and the reply, or the refusal.
fn asked(
    policy: Policy,
    client: &Client,
    scope: &str,
    entropy: Entropy,
) -> Result<(Session, Reply), Reply> {
    let (server, mut host) = (server_of(policy), Host::new([client.clone()]));
    let reply = asks(&mut host, &server, client, scope, [entropy]);
    if reply.cause() != Cause::Issued {
        return Err(reply);
    }
    let session = host.session(&Codes::of(&reply).key).unwrap().clone();
    Ok((session, reply))
}

/// Sends such a request at a host that is used again afterwards. Returns the reply.
fn asks(
    host: &mut Host,
    server: &Server,
    client: &Client,
    scope: &str,
    entropy: impl IntoIterator<Item = Entropy>,
) -> Reply {
    let body = format!("client_id={}&{scope}", client.id());
    host.entropy = entropy.into_iter().collect();
    support::sent_by(client, &body, |request| {
        host.run(server.device_authorization(request, SOURCE, None, NOW))
    })
}

/// Returns the reply of a refusal.
#[track_caller]
fn refusal<T>(outcome: Result<T, Reply>) -> Reply {
    match outcome {
        Ok(_) => panic!("not refused"),
        Err(reply) => reply,
    }
}

/// Returns the scope that the user is asked for.
#[track_caller]
fn asked_for(client: &Client, scope: &str) -> Scope {
    let (session, reply) = asked(policy(), client, scope, entropy(1)).unwrap();
    assert_eq!(reply.cause(), Cause::Issued);
    session.scope().clone()
}

/// Asserts that a request with this `scope` parameter is refused with `invalid_scope`.
#[track_caller]
fn is_invalid_scope(client: &Client, scope: &str, cause: Cause, description: &str) {
    let reply = refusal(asked(policy(), client, scope, entropy(1)));
    assert_refused(&reply, cause, "invalid_scope", description);
}

/// Returns the text of the user code with this number. The least significant place comes first.
fn spelled(alphabet: &str, length: usize, number: u128) -> String {
    let base = u128::try_from(alphabet.len()).unwrap();
    let mut rest = number;
    let places = (0..length).map(|_| {
        let place = usize::try_from(rest % base).unwrap();
        rest /= base;
        char::from(alphabet.as_bytes()[place])
    });
    places.collect()
}

/// Returns entropy with this device code and this number for the user code.
fn octets(device: [u8; 32], number: u128) -> Entropy {
    let mut octets = [0; Entropy::OCTETS];
    octets[..32].copy_from_slice(&device);
    octets[32..].copy_from_slice(&number.to_be_bytes());
    Entropy::from(octets)
}

/// The octets 0 to 31. [`COUNTING_CODE`] is their base64url form.
const COUNTING: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31,
];
const COUNTING_CODE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_str(reply.response().body()).unwrap()
}

// D1

/// Returns the reply to a request for codes with these parts, at a host that finds this client.
fn answered(
    method: &str,
    media_type: &str,
    authorization: Option<&str>,
    body: &str,
    found: Option<&Client>,
) -> Reply {
    let request = device_flow::server::Request::new(method, body.as_bytes())
        .content_type(Some(media_type))
        .authorization(authorization);
    let mut host = Host::new(found.cloned());
    host.run(server().device_authorization(request, "", None, NOW))
}

#[test]
fn d1_the_faults_of_table_a_are_answered_as_there() {
    let header = basic(BACKEND, SECRET);
    let header = Some(header.as_str());
    let refused = |media_type, header, body, cause, description| {
        let reply = answered("POST", media_type, header, body, Some(&cli()));
        assert_refused(&reply, cause, "invalid_request", description);
    };
    let form = support::FORM;
    refused(
        "application/json",
        None,
        r#"{"client_id":"client_cli"}"#,
        Cause::MediaType,
        "the content type must be application/x-www-form-urlencoded, in one header",
    );
    refused(
        form,
        None,
        "client_id=client_cli&scope=%",
        Cause::Encoding,
        "the body has a broken percent escape or is not UTF-8",
    );
    refused(
        form,
        None,
        "client_id=client_cli&scope=openid&scope=email",
        Cause::RepeatedParameter,
        "a parameter is repeated",
    );
    refused(
        form,
        header,
        "client_secret=x",
        Cause::SeveralCredentials,
        "the client authenticates in more than one way",
    );
    refused(
        form,
        header,
        "client_id=client_cli",
        Cause::ClientIdsDiffer,
        "client_id differs from the one in the authorization header",
    );
    refused(
        form,
        None,
        "scope=openid",
        Cause::ClientIdMissing,
        "client_id is missing",
    );
    refused(
        form,
        None,
        "client_id=%C3%A9",
        Cause::CredentialCharacters,
        "client_id or client_secret is not printable ASCII",
    );
    let reply = answered("GET", form, None, "client_id=client_cli", Some(&cli()));
    let body = error_body("invalid_request", "only POST is allowed here");
    assert_reply(
        &reply,
        Cause::MethodNotAllowed,
        405,
        &[("allow", "POST")],
        &body,
    );
    let bearer = Some("Bearer x");
    let reply = answered("POST", form, bearer, "client_id=client_cli", Some(&cli()));
    assert_invalid_client(&reply, Cause::Authorization);
}

#[test]
fn d1_the_faults_of_table_b_are_answered_as_there() {
    let form = support::FORM;
    let reply = answered("POST", form, None, "client_id=client_gone", None);
    assert_invalid_client(&reply, Cause::UnknownClient);
    let body = "client_id=client_backend";
    let reply = answered("POST", form, None, body, Some(&backend()));
    assert_invalid_client(&reply, Cause::CredentialMissing);
    let header = basic(BACKEND, "wrong");
    let reply = answered("POST", form, Some(&header), "", Some(&backend()));
    assert_invalid_client(&reply, Cause::WrongSecret);
    let body = "client_id=client_cli";
    let reply = answered("POST", form, None, body, Some(&cli().disabled()));
    assert_invalid_client(&reply, Cause::ClientDisabled);
    let without = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let reply = answered("POST", form, None, body, Some(&without));
    assert_refused(
        &reply,
        Cause::GrantNotAllowed,
        "unauthorized_client",
        "the client may not use this grant",
    );
}

/// If a request has several faults, the first one in the tables decides. So a wrong scope does not matter while the client is unknown.
#[test]
fn d1_comes_before_d3_and_d4() {
    let form = support::FORM;
    for scope in ["", "scope=", "scope=admin", "scope=%22"] {
        let body = format!("client_id=client_gone&{scope}");
        let reply = answered("POST", form, None, &body, None);
        assert_invalid_client(&reply, Cause::UnknownClient);
    }
}

// D2

/// Returns how many requests for codes a client can make from a source until its quota is spent, and the reply to the next one.
fn left(host: &mut Host, client: &Client, source: &str, now: OffsetDateTime) -> (usize, Reply) {
    let server = server();
    let body = format!("client_id={}&scope=openid", client.id());
    let mut count = 0;
    loop {
        let reply = support::sent_by(client, &body, |request| {
            host.run(server.device_authorization(request, source, None, now))
        });
        if reply.cause() != Cause::Issued {
            return (count, reply);
        }
        count += 1;
    }
}

#[track_caller]
fn assert_spent(reply: &Reply, seconds: &str) {
    let body = error_body("temporarily_unavailable", "too many requests");
    let retry = [("retry-after", seconds)];
    assert_reply(reply, Cause::IssuingQuotaSpent, 429, &retry, &body);
}

/// Anybody can use a public client id and spend its quota, so each source has a quota of its own. Nobody else can spend the quota of an
/// authenticated client.
#[test]
fn d2_the_quota_is_keyed_by_client_and_source_for_a_public_client() {
    let method = ClientAuthMethod::None;
    let other = Client::new("client_tv", method)
        .unwrap()
        .allow_device_grant();
    let other = other.allow_scope(scope("openid"));
    let mut host = Host::new([cli(), other.clone()]);
    // The default quota: twenty at once.
    assert_eq!(left(&mut host, &cli(), SOURCE, NOW).0, 20);
    assert_eq!(left(&mut host, &cli(), SOURCE, NOW).0, 0);
    assert_eq!(left(&mut host, &cli(), "203.0.113.8", NOW).0, 20);
    assert_eq!(left(&mut host, &cli(), "", NOW).0, 20);
    assert_eq!(left(&mut host, &other, SOURCE, NOW).0, 20);
}

#[test]
fn d2_the_quota_is_client_wide_for_an_authenticated_client() {
    let mut host = Host::new([backend()]);
    assert_eq!(left(&mut host, &backend(), SOURCE, NOW).0, 20);
    assert_eq!(left(&mut host, &backend(), "203.0.113.8", NOW).0, 0);
    assert_eq!(left(&mut host, &backend(), "", NOW).0, 0);
    // The same if the host verified the client.
    let client = Client::new(BACKEND, ClientAuthMethod::HostSecret).unwrap();
    let client = client.allow_device_grant().allow_scope(scope("openid"));
    let mut host = Host::new([]);
    host.found = Some(Found::Verified(client));
    assert_eq!(left(&mut host, &backend(), SOURCE, NOW).0, 20);
    assert_eq!(left(&mut host, &backend(), "203.0.113.8", NOW).0, 0);
}

/// Returns the key of each quota that an exchange asks for, in order, at a host that knows this client.
fn keys_of<'r, T: Finish<'r>>(exchange: Exchange<'r, T>, client: &Client) -> Vec<QuotaKey> {
    let mut host = Host::new([client.clone()]);
    host.run(exchange);
    host.takes.iter().map(|take| *take.key()).collect()
}

/// The quotas of issuing, of wrong secrets, of guesses and of the host have different keys, even if their ids and sources have the same
/// text.
#[test]
fn d2_the_key_is_that_of_no_other_quota() {
    let server = server();
    let mut keys = Vec::new();
    let names = ["client_cli", "client_cli2", "203.0.113.7", "03.0.113.7", ""];
    for source in names {
        for id in names.into_iter().filter(|id| !id.is_empty()) {
            let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
            let of = |method| {
                let client = Client::new(id, method).unwrap().allow_device_grant();
                client.default_scope(Scope::empty())
            };
            let header = basic(id, SECRET);
            let request = post("").authorization(Some(&header));
            let exchange = server.device_authorization(request, source, None, NOW);
            let of_secret = keys_of(exchange, &of(secret));
            let [looked, issued] = of_secret[..] else {
                panic!("{} quotas", of_secret.len());
            };
            keys.push(looked);
            if source.is_empty() {
                keys.push(issued); // the same for every source
            }
            let header = basic(id, "");
            let request = post("").authorization(Some(&header));
            let exchange = server.device_authorization(request, source, None, NOW);
            let of_public = keys_of(exchange, &of(ClientAuthMethod::None));
            assert_eq!(of_public.len(), 1);
            if !source.is_empty() {
                keys.extend(of_public);
            }
            let user = support::subject(id);
            let guesses = keys_of(server.enter("BBBB-BBBB", &user, source, NOW), &cli());
            assert_eq!(guesses.len(), if source.is_empty() { 1 } else { 2 });
            let is_first_user = id == names[0];
            let is_first_source = source == names[0];
            keys.extend(guesses.first().filter(|_| is_first_source));
            keys.extend(guesses.get(1).filter(|_| is_first_user));
            for what in ["issuing", "i", "s"] {
                keys.push(QuotaKey::of_host(what, &[id, source]));
            }
        }
    }
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
}

#[test]
fn d2_a_spent_issuing_quota_is_429_with_retry_after_and_nothing_is_drawn() {
    let mut host = Host::new([cli()]);
    let (_, reply) = left(&mut host, &cli(), SOURCE, NOW);
    assert_eq!(host.asked, [Question::Client, Question::Take]);
    assert_spent(&reply, "3");
    for (after, told) in [(0, "3"), (1, "3"), (1_000, "2"), (1_999, "2"), (2_999, "1")] {
        let now = NOW + Duration::from_millis(after);
        assert_spent(&left(&mut host, &cli(), SOURCE, now).1, told);
    }
    let later = NOW + Duration::from_secs(3);
    assert_eq!(left(&mut host, &cli(), SOURCE, later).0, 1);
}

#[test]
fn d2_a_request_refused_for_its_scope_takes_nothing_from_the_quota() {
    let mut host = Host::new([cli()]);
    let without = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let without = without.allow_device_grant();
    for (client, scope, cause) in [
        (cli(), "scope=admin", Cause::ScopeNotAllowed),
        (cli(), "scope=%22", Cause::ScopeMalformed),
        (without, "", Cause::ScopeMissing),
    ] {
        host.clients = vec![client];
        for _ in 0..30 {
            let reply = asks(&mut host, &server(), &cli(), scope, []);
            assert_eq!(reply.cause(), cause);
            assert_eq!(host.asked, [Question::Client]);
        }
    }
    host.clients = vec![cli()];
    assert_eq!(left(&mut host, &cli(), SOURCE, NOW).0, 20);
}

/// The wait is given in whole seconds, at least one. A very long wait does not overflow.
#[test]
fn d2_retry_after_is_whole_seconds_rounded_up() {
    let limit = RateLimit::new(1, Duration::from_hours(24)).unwrap();
    let take = limit.take(QuotaKey::of_host("test", &[]), NOW);
    for (wait, told) in [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_millis(1_001), "2"),
        (Duration::from_hours(24), "86400"),
        (Duration::MAX, "4294967295"),
    ] {
        let mut limited = take.refused(RateState::from_millis(i64::MAX));
        limited.retry_after = wait;
        let server = server();
        let request = post("client_id=client_cli");
        let mut exchange = server.device_authorization(request, SOURCE, None, NOW);
        let reply = loop {
            match exchange.next() {
                Next::Client(_, ask) => ask.answer(Ok(Some(&cli()))),
                Next::Take(_, ask) => ask.answer(Ok(Err(limited))),
                Next::Done(reply) => break reply,
                next => panic!("{next:?}"),
            }
        };
        assert_spent(&reply, told);
    }
}

/// If the store, the registry or the generator fails, the answer is 503, and nothing is stored.
#[test]
fn d6_a_host_that_failed_is_503() {
    let questions = [
        Question::Client,
        Question::Take,
        Question::Draw,
        Question::Insert,
    ];
    for question in questions {
        let mut host = Host::new([cli()]);
        host.fails = Some(question);
        let reply = asks(&mut host, &server(), &cli(), "", []);
        assert_unavailable(&reply, Cause::StoreFailed);
        assert!(host.store.is_empty());
    }
}

// D3

/// "If the client omits the scope parameter when requesting authorization, the authorization server MUST either process the
/// request using a pre-defined default value or fail the request indicating an invalid scope." (RFC 6749, section 3.3)
#[test]
fn d3_an_absent_or_empty_scope_is_the_default_of_the_registration() {
    for absent in ["", "scope", "scope=", "Scope=email"] {
        assert_eq!(asked_for(&cli(), absent), scope("openid"));
        assert_eq!(asked_for(&backend(), absent), scope("openid"));
        let wide = cli().default_scope(scope("profile openid"));
        assert_eq!(asked_for(&wide, absent), scope("profile openid"));
    }
}

#[test]
fn d3_without_a_default_it_is_invalid_scope() {
    let client = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let client = client.allow_device_grant().allow_scope(scope("openid"));
    for absent in ["", "scope", "scope="] {
        is_invalid_scope(&client, absent, Cause::ScopeMissing, "scope is missing");
    }
}

/// Only the allowed part of the default is asked for. If nothing of the default is allowed, the answer is `invalid_scope`.
#[test]
fn d3_of_the_default_the_allowed_part_is_asked_for() {
    let narrowed = cli().default_scope(scope("admin profile openid"));
    assert_eq!(asked_for(&narrowed, ""), scope("profile openid"));
    let nothing = cli().default_scope(scope("admin"));
    is_invalid_scope(&nothing, "", Cause::ScopeMissing, "scope is missing");
}

/// The default may be the empty scope. Then the client may ask for nothing.
#[test]
fn d3_the_default_may_be_no_scope_at_all() {
    let client = cli().default_scope(Scope::empty());
    for absent in ["", "scope", "scope="] {
        assert_eq!(asked_for(&client, absent), Scope::empty());
    }
}

// D4

#[test]
fn d4_a_scope_that_is_syntactically_wrong_is_invalid_scope() {
    let too_many = format!("scope={}", vec!["openid"; 65].join("+"));
    let too_long = format!("scope={}", "a".repeat(4097));
    for wrong in [
        "scope=+",
        "scope=++",
        "scope=+openid",
        "scope=openid+",
        "scope=openid++profile",
        "scope=openid%20%20profile",
        "scope=%22openid%22",
        "scope=open%5Cid",
        "scope=openid%09profile",
        "scope=openid%0Aprofile",
        "scope=openid%00",
        "scope=%7F",
        "scope=openid+%C3%A9",
        "scope=\u{E9}",
        "scope=openid%C2%A0profile",
        "scope=openid+%22",
        &too_many,
        &too_long,
    ] {
        is_invalid_scope(&cli(), wrong, Cause::ScopeMalformed, "scope is malformed");
    }
}

#[test]
fn d4_a_scope_of_which_nothing_is_allowed_is_invalid_scope() {
    let description = "the scope is not allowed";
    for foreign in [
        "scope=admin",
        "scope=admin+root",
        "scope=OpenID", // "case-sensitive strings" (RFC 6749, section 3.3)
        "scope=open",
        "scope=openid2",
        "scope=openid,profile",
        "scope=*",
    ] {
        is_invalid_scope(&cli(), foreign, Cause::ScopeNotAllowed, description);
    }
    // A client without allowed scopes cannot ask for a scope by its name, even if that scope is its default.
    let nothing = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let nothing = nothing.allow_device_grant().default_scope(scope("openid"));
    is_invalid_scope(
        &nothing,
        "scope=openid",
        Cause::ScopeNotAllowed,
        description,
    );
}

#[test]
fn d4_the_syntax_is_wrong_even_where_nothing_is_allowed() {
    let wrong = "scope=admin+%22";
    is_invalid_scope(&cli(), wrong, Cause::ScopeMalformed, "scope is malformed");
}

// D5

#[test]
fn d5_the_allowed_part_is_what_the_user_is_asked() {
    for (requested, allowed) in [
        ("scope=openid", "openid"),
        ("scope=openid+profile+email", "openid profile email"),
        ("scope=email+openid", "email openid"),
        ("scope=admin+openid", "openid"),
        ("scope=openid+admin+email+root", "openid email"),
        ("scope=openid+openid", "openid"),
        ("scope=email+admin+email+admin", "email"),
        ("scope=%6Fpenid%20email", "openid email"),
        ("scope=OPENID+openid", "openid"),
    ] {
        assert_eq!(asked_for(&cli(), requested), scope(allowed));
    }
}

#[test]
fn d5_the_default_takes_no_part_where_a_scope_is_named() {
    assert_eq!(asked_for(&cli(), "scope=email"), scope("email"));
}

// D6

/// RFC 8628, section 3.2.
#[test]
fn d6_the_response_has_the_codes_the_page_the_lifetime_and_always_the_interval() {
    // A multiple of 20^8, plus the number of `WDJB-MJHT`, the user code in the RFC.
    let number = 0x7000_0000_0000_u128 * 20_u128.pow(8) + wdjb();
    let entropy = octets(COUNTING, number);
    let (session, reply) = asked(policy(), &cli(), "scope=openid", entropy).unwrap();
    let body = format!(
        r#"{{"device_code":"{COUNTING_CODE}","user_code":"WDJB-MJHT","verification_uri":"https://login.example.com/device","expires_in":300,"interval":5}}"#
    );
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
    assert_eq!(session.status(), Status::Pending);
    assert_eq!(session.client_id(), CLI);
    assert_eq!(*session.scope(), scope("openid"));
    assert_eq!(session.issued_at(), NOW);
    assert_eq!(session.expires_at(), NOW + Duration::from_mins(5));
    assert_eq!(session.purge_at(), NOW + Duration::from_mins(10));
    assert_eq!(session.claimant(), None);
}

/// Returns the number of `WDJBMJHT`.
fn wdjb() -> u128 {
    let place = |character: char| {
        let place = UserCodeShape::CONSONANTS.find(character).unwrap();
        u128::try_from(place).unwrap()
    };
    let backwards = "WDJBMJHT".chars().rev();
    backwards.fold(0, |number, character| number * 20 + place(character))
}

#[test]
fn d6_the_response_is_the_policys() {
    let options = PolicyOptions {
        interval: Duration::from_mins(1),
        lifetime: Duration::from_mins(2),
        user_code: UserCodeShape::new("0123456789", 9).unwrap(),
        outstanding: 100,
        ..PolicyOptions::default()
    };
    let policy = Policy::new("http://localhost:8080/a/b", options).unwrap();
    let entropy = octets(COUNTING, 987_654_321);
    let (_, reply) = asked(policy, &backend(), "", entropy).unwrap();
    let body = format!(
        r#"{{"device_code":"{COUNTING_CODE}","user_code":"123-456-789","verification_uri":"http://localhost:8080/a/b","expires_in":120,"interval":60}}"#
    );
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
}

/// `verification_uri_complete` is optional (RFC 8628, section 3.2). It is off by default because of phishing (section 5.4).
#[test]
fn d6_verification_uri_complete_is_there_when_the_policy_has_it_on() {
    let on = policy_of(PolicyOptions {
        verification_uri_complete: true,
        ..PolicyOptions::default()
    });
    let entropy = || octets(COUNTING, wdjb());
    let (_, reply) = asked(on, &cli(), "", entropy()).unwrap();
    let body = format!(
        r#"{{"device_code":"{COUNTING_CODE}","user_code":"WDJB-MJHT","verification_uri":"https://login.example.com/device","verification_uri_complete":"https://login.example.com/device?user_code=WDJB-MJHT","expires_in":300,"interval":5}}"#
    );
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
    let (_, reply) = asked(policy(), &cli(), "", entropy()).unwrap();
    assert_eq!(json(&reply).get("verification_uri_complete"), None);
}

/// The session is stored under digests of the codes in the response, and the store has no code itself.
#[test]
fn d6_the_session_is_found_by_the_codes_of_the_response() {
    use sha2::{Digest as _, Sha256};
    let (server, mut host) = (server(), Host::new([cli()]));
    let codes = host.issue(&server, &cli(), 3, NOW);
    let digest: [u8; 32] = Sha256::digest(&codes.device_code).into();
    assert_eq!(codes.key.as_bytes(), &digest);
    let review = host
        .claim(&server, &alice(), &codes.user_code, NOW)
        .unwrap();
    assert_eq!(*review.session_key(), codes.key);
    let stored = host.session(&codes.key).unwrap();
    let text = serde_json::to_string(stored).unwrap() + &format!("{stored:?}");
    let canonical = codes.user_code.replace('-', "");
    for code in [&codes.device_code, &codes.user_code, &canonical] {
        assert!(!text.contains(code.as_str()));
    }
}

/// The user key is a digest under the server's key. So another server key gives another user key.
#[test]
fn d6_the_user_key_depends_on_the_servers_key() {
    let under = |seed| {
        let server = Server::new(policy(), ServerKeys::new(&key(seed)).unwrap());
        let mut host = Host::new([cli()]);
        let codes = host.issue(&server, &cli(), 1, NOW);
        host.session(&codes.key)
            .unwrap()
            .user_key()
            .copied()
            .unwrap()
    };
    assert_eq!(under(7), under(7));
    assert_ne!(under(7), under(8));
}

// D7

#[test]
fn d7_a_user_code_that_is_taken_is_drawn_again_three_times_and_then_503() {
    let (server, mut host) = (server(), Host::new([cli()]));
    host.issue(&server, &cli(), 1, NOW);
    // The first draw and three more. The fifth is not drawn.
    let draws = (2..=6).map(|device| entropy_of(device, 1));
    let reply = asks(&mut host, &server, &cli(), "", draws);
    assert_unavailable(&reply, Cause::UserCodesTaken);
    assert_eq!(host.count(Question::Draw), 4);
    assert_eq!(host.count(Question::Take), 1);
    assert_eq!(host.store.len(), 1);
}

#[test]
fn d7_the_third_redraw_may_still_succeed() {
    let (server, mut host) = (server(), Host::new([cli()]));
    host.issue(&server, &cli(), 1, NOW);
    let draws = (2..=4)
        .map(|device| entropy_of(device, 1))
        .chain([entropy(5)]);
    let reply = asks(&mut host, &server, &cli(), "scope=email", draws);
    let (session, wanted) = asked(policy(), &cli(), "scope=email", entropy(5)).unwrap();
    let body = wanted.response().body().to_owned();
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
    assert_eq!(host.store.len(), 2);
    let stored = host.session(session.key()).unwrap();
    let form = |session| serde_json::to_value(session).unwrap();
    assert_eq!(
        form(stored),
        form(&session),
        "as if it had been drawn at once"
    );
}

/// Each request counts its own draws.
#[test]
fn d7_the_next_request_draws_anew() {
    let (server, mut host) = (server(), Host::new([cli()]));
    for _ in 0..3 {
        host.inserts = [Inserted::UserCodeTaken; 4].into();
        let reply = asks(&mut host, &server, &cli(), "", []);
        assert_unavailable(&reply, Cause::UserCodesTaken);
        assert_eq!(host.count(Question::Draw), 4);
    }
}

// D8

/// Asserts the 500 for a broken generator.
#[track_caller]
fn is_broken_entropy(reply: &Reply) {
    let body = error_body("server_error", "the server failed");
    assert_reply(reply, Cause::EntropyBroken, 500, &[], &body);
}

#[test]
fn d8_a_device_code_that_is_taken_is_500_at_once() {
    let (server, mut host) = (server(), Host::new([cli()]));
    host.issue(&server, &cli(), 1, NOW);
    for user in [1, 2] {
        let reply = asks(&mut host, &server, &cli(), "", [entropy_of(1, user)]);
        is_broken_entropy(&reply);
        assert_eq!(host.count(Question::Draw), 1);
    }
    assert_eq!(host.store.len(), 1);
}

#[test]
fn d8_a_redraw_is_500_at_once_too() {
    let mut host = Host::new([cli()]);
    host.inserts = [Inserted::UserCodeTaken, Inserted::DeviceCodeTaken].into();
    is_broken_entropy(&asks(&mut host, &server(), &cli(), "", []));
}

/// If octets were never filled, the second request would get the same code as the first. So they are refused at the first request, even if
/// only one part was never filled.
#[test]
fn d8_entropy_of_which_a_part_was_never_filled_is_500() {
    for octet in [0x00, 0xFF, 0xAA] {
        let blank = Entropy::from([octet; Entropy::OCTETS]);
        is_broken_entropy(&refusal(asked(policy(), &cli(), "", blank)));
        let device = octets([octet; 32], wdjb());
        is_broken_entropy(&refusal(asked(policy(), &cli(), "", device)));
        let user = octets(COUNTING, u128::from_be_bytes([octet; 16]));
        is_broken_entropy(&refusal(asked(policy(), &cli(), "", user)));
    }
}

// The codes.

#[test]
fn the_device_code_is_32_octets_as_base64url_without_padding() {
    let mut all = Vec::new();
    let almost = |octet| {
        let mut device = [octet; 32];
        device[0] = 0xFE;
        device
    };
    for device in [almost(0xFF), almost(0xFB), almost(0), COUNTING] {
        let (_, reply) = asked(policy(), &cli(), "", octets(device, 1)).unwrap();
        let body = json(&reply);
        let code = body["device_code"].as_str().unwrap();
        assert_eq!(code, URL_SAFE_NO_PAD.encode(device));
        assert_eq!(code.len(), 43);
        all.push(code.to_owned());
    }
    assert_eq!(all[0], "_v________________________________________8");
    assert_eq!(all[3], COUNTING_CODE);
}

/// The number is the last 16 octets of the entropy, as one integer.
#[test]
fn the_user_code_is_the_number_modulo_the_combinations() {
    let combinations = 20_u128.pow(8);
    let code = |number| {
        let (_, reply) = asked(policy(), &cli(), "", octets(COUNTING, number)).unwrap();
        json(&reply)["user_code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(1), "CBBB-BBBB");
    assert_eq!(code(19), "ZBBB-BBBB");
    assert_eq!(code(20), "BCBB-BBBB");
    assert_eq!(code(combinations - 1), "ZZZZ-ZZZZ");
    assert_eq!(code(combinations), "BBBB-BBBB");
    assert_eq!(code(u128::MAX - 1), {
        let text = spelled(UserCodeShape::CONSONANTS, 8, (u128::MAX - 1) % combinations);
        format!("{}-{}", &text[..4], &text[4..])
    });
}

#[test]
fn other_entropy_is_other_codes() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..=255 {
        let (_, reply) = asked(policy(), &cli(), "", entropy(seed)).unwrap();
        let body = json(&reply);
        assert!(seen.insert(body["device_code"].to_string()));
        assert!(seen.insert(body["user_code"].to_string()));
    }
}

// The source, as it is shown to the user.

/// Returns the source as the review shows it.
fn reviewed(text: &str) -> String {
    let (server, mut host) = (server(), Host::new([cli()]));
    let request = post("client_id=client_cli");
    let reply = host.run(server.device_authorization(request, SOURCE, Some(text), NOW));
    let codes = Codes::of(&reply);
    let review = host
        .claim(&server, &alice(), &codes.user_code, NOW)
        .unwrap();
    review.shown_source().unwrap().to_owned()
}

#[test]
fn the_source_is_kept_for_the_review() {
    let source = "203.0.113.7, Wien; curl/8.5 <&\"'>";
    assert_eq!(reviewed(source), source);
}

#[test]
fn the_source_is_cut_at_256_bytes_and_never_within_a_character() {
    assert_eq!(reviewed(&"a".repeat(256)), "a".repeat(256));
    assert_eq!(reviewed(&"a".repeat(257)), "a".repeat(256));
    assert_eq!(reviewed(&"\u{E9}".repeat(200)), "\u{E9}".repeat(128));
    let odd = "a".to_owned() + &"\u{E9}".repeat(200);
    assert_eq!(reviewed(&odd), "a".to_owned() + &"\u{E9}".repeat(127));
    assert_eq!(reviewed(&"\u{1F600}".repeat(65)), "\u{1F600}".repeat(64));
}

#[test]
fn the_control_and_format_characters_of_a_source_are_replaced() {
    for control in [
        "\0",
        "\n",
        "\r",
        "\t",
        "\u{1B}",
        "\u{7F}",
        "\u{85}",
        "\u{9B}",
        "\u{202E}",
        "\u{2066}",
        "\u{200B}",
        "\u{E0041}",
    ] {
        let source = reviewed(&format!("a{control}b"));
        assert_eq!(source.chars().count(), 3);
        assert!(source.starts_with('a') && source.ends_with('b'));
        assert!(!source.chars().any(char::is_control));
    }
    // The limit holds also if the replacements are longer than the replaced characters.
    let many = reviewed(&"\n".repeat(256));
    assert!(many.len() <= 256 && !many.is_empty());
    assert!(!many.chars().any(char::is_control));
}

#[test]
fn without_a_source_the_review_has_none() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let codes = host.issue(&server, &cli(), 1, NOW);
    let review = host.claim(&server, &alice(), &codes.user_code, NOW);
    assert_eq!(review.unwrap().shown_source(), None);
}

#[test]
fn debug_shows_no_code() {
    let (server, mut store) = (server(), device_flow::memory::Memory::new());
    let mut shown = format!("{:?} {server:?}", entropy(1));
    let mut exchange = server.device_authorization(post("client_id=client_cli"), "", None, NOW);
    let reply = loop {
        write!(shown, "{exchange:?}").unwrap();
        let next = exchange.next();
        write!(shown, "{next:?}").unwrap();
        match next {
            Next::Client(_, ask) => ask.answer(Ok(Some(&cli()))),
            Next::Take(take, ask) => ask.answer(Ok(store.take(&take))),
            Next::Draw(ask) => ask.answer(Ok(entropy(1))),
            Next::Insert(session, ask) => {
                write!(shown, "{session:?} {ask:?}").unwrap();
                ask.answer(Ok(store.insert(session)));
            }
            Next::Done(reply) => break reply,
            next => panic!("{next:?}"),
        }
    };
    let response = reply.response();
    write!(shown, "{reply:?} {response:?} {store:?}").unwrap();
    let body = json(&reply);
    let user_code = body["user_code"].as_str().unwrap();
    let canonical = user_code.replace('-', "");
    for code in [body["device_code"].as_str().unwrap(), user_code, &canonical] {
        assert!(!shown.contains(code), "{shown}");
    }
}

#[test]
fn same_inputs_same_bytes_out() {
    let once = || {
        let (session, reply) = asked(policy(), &cli(), "scope=openid", entropy(9)).unwrap();
        let session = serde_json::to_string(&session).unwrap();
        (session, reply.response().body().to_owned())
    };
    assert_eq!(once(), once());
}

/// Returns shapes of user codes that the default guess limit allows for 100 outstanding sessions.
fn shapes() -> impl Strategy<Value = (String, u8)> {
    let consonants = UserCodeShape::CONSONANTS.to_owned();
    prop_oneof![
        (Just(consonants), 8..=14_u8),
        (Just("0123456789".to_owned()), 9..=16_u8),
        (
            Just("abcdefghijklmnopqrstuvwxyz23456789".to_owned()),
            7..=12_u8
        ),
    ]
}

proptest! {
    /// The response is JSON with the members of RFC 8628, section 3.2, whatever the policy.
    #[test]
    fn the_response_is_json_with_the_members_of_the_rfc(
        host in "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}(:[1-9][0-9]{0,3})?",
        path in "(/[a-zA-Z0-9._~!$&'()*+,;=:@%-]{0,8}){0,3}",
        interval in 1..=60_u64,
        extra in 0..1000_u64,
        (alphabet, length) in shapes(),
        complete in any::<bool>(),
        device in any::<[u8; 32]>(),
        number in any::<u128>(),
    ) {
        let uri = format!("https://{host}{path}");
        let lifetime = interval * 2 + extra;
        let shape = UserCodeShape::new(&alphabet, length).unwrap();
        let combinations = u128::from(shape.combinations());
        let options = PolicyOptions {
            verification_uri_complete: complete,
            interval: Duration::from_secs(interval),
            lifetime: Duration::from_secs(lifetime),
            user_code: shape,
            outstanding: 100,
            ..PolicyOptions::default()
        };
        let policy = Policy::new(&uri, options).unwrap();
        let entropy = octets(device, number);
        prop_assume!(device != [device[0]; 32] && number % 257 != 0);
        let (session, reply) = asked(policy, &cli(), "", entropy).unwrap();
        prop_assert_eq!(reply.response().status(), 200);
        let body = json(&reply);
        let members = body.as_object().unwrap();
        prop_assert_eq!(members.len(), if complete { 6 } else { 5 });
        prop_assert_eq!(&body["device_code"], &URL_SAFE_NO_PAD.encode(device));
        prop_assert_eq!(&body["verification_uri"], &uri);
        prop_assert_eq!(&body["expires_in"], lifetime);
        prop_assert_eq!(&body["interval"], interval);
        let user_code = body["user_code"].as_str().unwrap();
        let wanted = spelled(&alphabet, length.into(), number % combinations);
        prop_assert_eq!(user_code.replace('-', ""), wanted);
        if complete {
            let link = format!("{uri}?user_code={user_code}");
            prop_assert_eq!(&body["verification_uri_complete"], &link);
        }
        prop_assert_eq!(session.expires_at(), NOW + Duration::from_secs(lifetime));
    }

    /// An oracle of D3 to D5: the scope has the tokens that are requested and allowed, each once, in the order of the request.
    #[test]
    fn narrowing_never_widens(
        allowed in prop::collection::vec("[a-c]{1,2}", 0..5),
        requested in prop::collection::vec("[a-c]{1,2}", 1..6),
    ) {
        let client = Client::new(CLI, ClientAuthMethod::None)
            .unwrap()
            .allow_device_grant()
            .allow_scope(scope(&allowed.join(" ")));
        let body = format!("scope={}", encoded(&requested.join(" ")));
        let mut wanted: Vec<&String> = Vec::new();
        for token in &requested {
            if allowed.contains(token) && !wanted.contains(&token) {
                wanted.push(token);
            }
        }
        match asked(policy(), &client, &body, entropy(1)) {
            Ok((session, _)) => {
                let granted: Vec<_> = session.scope().tokens().collect();
                prop_assert_eq!(granted, wanted);
                prop_assert!(session.scope().is_within(&scope(&allowed.join(" "))));
            }
            Err(reply) => {
                prop_assert!(wanted.is_empty());
                prop_assert_eq!(reply.cause(), Cause::ScopeNotAllowed);
            }
        }
    }

    /// Any text of a scope is either asked for in part or refused as in D4. What is asked for is always allowed.
    #[test]
    fn any_text_for_a_scope_is_narrowed_or_refused(text in prop_oneof![".{1,20}", "[a-d \"\\\\]{1,8}", "(openid|email|x)( (openid|email|x)){0,3}"]) {
        let body = format!("scope={}", encoded(&text));
        match asked(policy(), &cli(), &body, entropy(1)) {
            Ok((session, _)) => {
                prop_assert!(!session.scope().is_empty());
                prop_assert!(session.scope().is_within(&scope("openid profile email")));
            }
            Err(reply) => {
                let legal = text.split(' ').all(|token| {
                    let legal = |b: u8| matches!(b, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
                    !token.is_empty() && token.bytes().all(legal)
                });
                let cause = if legal { Cause::ScopeNotAllowed } else { Cause::ScopeMalformed };
                prop_assert_eq!(reply.cause(), cause);
            }
        }
    }
}
