//! Table B: the authentication of the client, at every endpoint. The registration as it is now decides.

use core::time::Duration;

use device_flow::digest::SecretDigest;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Found, Next, PolicyOptions, Reply, Server, Write,
};
use proptest::prelude::*;
use time::OffsetDateTime;

use crate::support::login::{Login, at};
use crate::support::{
    self, BACKEND, CLI, GRANT, NO_CODE, NOW, Question, SECRET, SOURCE, assert_invalid_client,
    assert_refused, assert_reply, assert_unavailable, backend, basic, cli, encoded, error_body,
    escaped, policy, policy_of, post, server, server_of, tokens,
};

/// How a client presents itself in these tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    Basic,
    Body,
    Assertion,
}

/// Returns the parameters and the `Authorization` header of a request in which `id` presents `secret` in this way.
fn presenting(way: Way, id: &str, secret: &str) -> (String, Option<String>) {
    let (id, secret) = (encoded(id), encoded(secret));
    match way {
        Way::Nothing => (format!("client_id={id}"), None),
        Way::Basic => (String::new(), Some(basic(&id, &secret))),
        Way::Body => (format!("client_id={id}&client_secret={secret}"), None),
        Way::Assertion => (
            format!("client_id={id}&client_assertion=eyJ.e30.c2ln"),
            None,
        ),
    }
}

/// What the host answers when it is asked for the client.
#[derive(Clone, Copy)]
enum Host<'r> {
    /// The host looked the client up. The crate compares the secret.
    Found(Option<&'r Client>),
    /// The host itself verified that the request comes from this client.
    Verified(&'r Client),
    /// The host itself verified the request and refused it.
    Refused,
}

impl Host<'_> {
    fn host(self) -> support::Host {
        let mut host = support::Host::new([]);
        host.found = Some(match self {
            Self::Found(None) => Found::Unknown,
            Self::Found(Some(client)) => Found::Registered(client.clone()),
            Self::Verified(client) => Found::Verified(client.clone()),
            Self::Refused => Found::Refused,
        });
        host
    }
}

/// Returns `Ok` if the client was accepted, that is, if the reply was decided after table B. Otherwise returns the reply.
fn went_on(reply: Reply) -> Result<(), Reply> {
    let causes = [
        Cause::UnknownCode,
        Cause::Issued,
        Cause::ScopeMissing,
        Cause::MalformedRefreshToken,
        Cause::NothingToRevoke,
    ];
    if causes.contains(&reply.cause()) {
        return Ok(());
    }
    Err(reply)
}

/// Returns the outcome at the token endpoint, then the outcome at the device authorization endpoint. Asserts that a refresh is answered as
/// the poll, and a revocation as the request for codes.
fn both(
    server: &Server,
    (parameters, header): &(String, Option<String>),
    host: Host<'_>,
) -> [Result<(), Reply>; 2] {
    let poll = format!("grant_type={GRANT}&device_code={NO_CODE}&{parameters}");
    let request = |body| post(body).authorization(header.as_ref());
    let at_token = host.host().run(server.token(request(&poll), SOURCE, NOW));
    let issuing = server.device_authorization(request(parameters), SOURCE, None, NOW);
    let at_device = host.host().run(issuing);
    // A refresh and a revocation authenticate the client in the same way.
    let refresh = format!("grant_type=refresh_token&refresh_token=x&{parameters}");
    let refresh = host
        .host()
        .run(server.token(request(&refresh), SOURCE, NOW));
    let token = format!("{parameters}&token=x");
    let revocation = host
        .host()
        .run(server.revocation(request(&token), SOURCE, NOW));
    let outcomes = [at_token, at_device, refresh, revocation].map(went_on);
    let [at_token, at_device, refresh, revocation] = outcomes;
    let cause = |outcome: &Result<(), Reply>| outcome.as_ref().map_err(Reply::cause).err();
    assert_eq!(cause(&at_token), cause(&refresh));
    assert_eq!(cause(&at_device), cause(&revocation));
    [at_token, at_device]
}

/// Returns the outcome of `Server::authenticate`, with which a host authenticates a client for a grant that the host serves itself.
fn at_own_grant(
    (parameters, header): &(String, Option<String>),
    host: Host<'_>,
) -> Result<(), Reply> {
    let (body, server) = (
        format!("grant_type=authorization_code&{parameters}"),
        server(),
    );
    let request = post(&body).authorization(header.as_ref());
    let client = host.host().run(server.authenticate(request, SOURCE, NOW))?;
    let (Host::Found(Some(named)) | Host::Verified(named)) = host else {
        panic!("nobody");
    };
    assert_eq!(client.client_id(), named.id());
    assert_eq!(client.is_public(), named.is_public());
    Ok(())
}

/// Returns the reply of a refusal.
#[track_caller]
fn refusal<T>(outcome: Result<T, Reply>) -> Reply {
    match outcome {
        Ok(_) => panic!("not refused"),
        Err(reply) => reply,
    }
}

/// Asserts that both endpoints, and a grant that the host serves itself, answer 401 `invalid_client` for this cause.
#[track_caller]
fn both_answer_401(request: &(String, Option<String>), host: Host<'_>, cause: Cause) {
    for outcome in both(&server(), request, host) {
        assert_invalid_client(&refusal(outcome), cause);
    }
    assert_invalid_client(&refusal(at_own_grant(request, host)), cause);
}

/// Asserts that the client is accepted at both endpoints, and for a grant that the host serves itself.
#[track_caller]
fn both_go_on(request: &(String, Option<String>), host: Host<'_>) {
    for outcome in both(&server(), request, host) {
        outcome.unwrap();
    }
    at_own_grant(request, host).unwrap();
}

/// Returns a client with the id [`BACKEND`] that authenticates with this method.
fn of(method: ClientAuthMethod) -> Client {
    Client::new(BACKEND, method).unwrap().allow_device_grant()
}

fn basic_only() -> Client {
    of(ClientAuthMethod::SecretBasic([
        Some(SecretDigest::of(SECRET)),
        None,
    ]))
}

/// Returns one client of each method except the public one.
fn confidential() -> [Client; 6] {
    [
        backend(),
        basic_only(),
        of(ClientAuthMethod::HostSecret),
        of(ClientAuthMethod::HostSecretBasic),
        of(ClientAuthMethod::Assertion),
        of(ClientAuthMethod::MutualTls),
    ]
}

// B1

/// Sends one request for codes as the confidential client, with this secret and from this source. Returns the reply.
fn presents(
    host: &mut support::Host,
    way: Way,
    secret: &str,
    source: &str,
    now: OffsetDateTime,
) -> Reply {
    let (server, (parameters, header)) = (server(), presenting(way, BACKEND, secret));
    let request = post(&parameters).authorization(header.as_ref());
    host.run(server.device_authorization(request, source, None, now))
}

/// Returns a host whose quota of wrong secrets for [`SOURCE`] is spent.
fn spent() -> support::Host {
    let mut host = support::Host::new([backend()]);
    // The default quota: ten at once, then one a minute.
    for _ in 0..10 {
        let reply = presents(&mut host, Way::Basic, "wrong", SOURCE, NOW);
        assert_invalid_client(&reply, Cause::WrongSecret);
        let asked = [Question::Take, Question::Client, Question::Take];
        assert_eq!(host.asked, asked, "a look before, a take after");
    }
    host
}

#[track_caller]
fn assert_spent(reply: &Reply, seconds: &str) {
    let body = error_body("temporarily_unavailable", "too many requests");
    let retry = [("retry-after", seconds)];
    assert_reply(reply, Cause::SecretQuotaSpent, 429, &retry, &body);
}

/// "The authorization server MUST protect any endpoint utilizing it against brute force attacks." (RFC 6749, section 2.3.1)
#[test]
fn b1_a_spent_quota_of_wrong_secrets_is_429_right_secret_or_wrong_before_comparing() {
    let mut host = spent();
    for secret in ["wrong", SECRET] {
        for way in [Way::Basic, Way::Body] {
            assert_spent(&presents(&mut host, way, secret, SOURCE, NOW), "60");
            assert_eq!(
                host.asked,
                [Question::Take],
                "the client is not even looked up"
            );
        }
    }
}

#[test]
fn b1_retry_after_is_in_whole_seconds_rounded_up_and_then_one_try_is_back() {
    let mut host = spent();
    for (after, told) in [
        (0, "60"),
        (1, "60"),
        (999, "60"),
        (1_000, "59"),
        (58_999, "2"),
        (59_000, "1"),
        (59_999, "1"),
    ] {
        let now = NOW + Duration::from_millis(after);
        assert_spent(&presents(&mut host, Way::Basic, SECRET, SOURCE, now), told);
    }
    let later = NOW + Duration::from_mins(1);
    // A right secret takes nothing from the quota, and gives nothing back.
    for _ in 0..3 {
        let reply = presents(&mut host, Way::Basic, SECRET, SOURCE, later);
        assert_eq!(reply.cause(), Cause::Issued);
    }
    let reply = presents(&mut host, Way::Basic, "wrong", SOURCE, later);
    assert_eq!(reply.cause(), Cause::WrongSecret);
    assert_spent(
        &presents(&mut host, Way::Basic, SECRET, SOURCE, later),
        "60",
    );
}

/// If the key were the client alone, anybody could lock the client out. If it were the source alone, one client could lock out its
/// neighbours.
#[test]
fn b1_the_quota_is_keyed_by_client_and_source_together() {
    let mut host = spent();
    for source in ["203.0.113.8", "", "03.0.113.7"] {
        let reply = presents(&mut host, Way::Basic, SECRET, source, NOW);
        assert_eq!(reply.cause(), Cause::Issued, "{source:?}");
    }
    // Another client from the same source has a quota of its own. So has an id whose text runs on into the source, because the key tells
    // where the id ends and the source begins.
    for (id, source) in [
        ("client_other", SOURCE),
        ("client_backend2", SOURCE),
        ("client_backend2", "03.0.113.7"),
        ("client_backen", "d203.0.113.7"),
    ] {
        let method = ClientAuthMethod::secret(SecretDigest::of(SECRET));
        let client = Client::new(id, method).unwrap().allow_device_grant();
        host.clients.push(client);
        let (server, (parameters, header)) = (server(), presenting(Way::Basic, id, SECRET));
        let request = post(&parameters).authorization(header.as_ref());
        let reply = host.run(server.device_authorization(request, source, None, NOW));
        assert_eq!(reply.cause(), Cause::ScopeMissing);
    }
}

#[test]
fn b1_who_presents_no_secret_has_no_quota_of_wrong_secrets() {
    let mut host = spent();
    for way in [Way::Nothing, Way::Assertion] {
        let reply = presents(&mut host, way, "", SOURCE, NOW);
        assert_eq!(reply.response().status(), 401);
        assert_eq!(host.asked, [Question::Client]);
    }
}

/// Otherwise, anybody who makes up ids could fill the store with quotas. Besides, such a client has no secret that could be guessed.
#[test]
fn b1_a_secret_for_a_client_that_nobody_knows_is_not_counted() {
    let mut host = support::Host::new([]);
    for _ in 0..20 {
        let reply = presents(&mut host, Way::Basic, "wrong", SOURCE, NOW);
        assert_invalid_client(&reply, Cause::UnknownClient);
        assert_eq!(host.asked, [Question::Take, Question::Client]);
    }
}

/// The quota holds also if the host itself verifies secrets.
#[test]
fn b1_a_secret_that_the_host_refused_is_counted() {
    let mut host = support::Host::new([]);
    host.found = Some(Found::Refused);
    for _ in 0..10 {
        let reply = presents(&mut host, Way::Basic, "wrong", SOURCE, NOW);
        assert_invalid_client(&reply, Cause::HostRefused);
    }
    assert_spent(&presents(&mut host, Way::Basic, SECRET, SOURCE, NOW), "60");
}

/// Two kinds of requests are not counted: one whose secret cannot be a guess, and one that is refused although its secret is right.
#[test]
fn b1_what_was_no_guess_is_not_counted() {
    let method = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    let without_grant = Client::new(BACKEND, method).unwrap();
    for (way, secret, client, cause) in [
        (Way::Nothing, "", backend(), Cause::CredentialMissing),
        (Way::Basic, "", backend(), Cause::CredentialMissing),
        (
            Way::Basic,
            "wrong",
            of(ClientAuthMethod::None),
            Cause::UnexpectedSecret,
        ),
        (Way::Body, "wrong", basic_only(), Cause::MethodExcluded),
        (
            Way::Basic,
            "wrong",
            of(ClientAuthMethod::MutualTls),
            Cause::MethodExcluded,
        ),
        (
            Way::Basic,
            SECRET,
            backend().disabled(),
            Cause::ClientDisabled,
        ),
        (Way::Basic, SECRET, without_grant, Cause::GrantNotAllowed),
    ] {
        let mut host = support::Host::new([client]);
        for _ in 0..20 {
            let reply = presents(&mut host, way, secret, SOURCE, NOW);
            assert_eq!(reply.cause(), cause);
            assert_eq!(host.asked.last(), Some(&Question::Client));
        }
    }
    // An assertion is verified, so it is not a guess.
    let mut host = Host::Refused.host();
    for _ in 0..20 {
        let reply = presents(&mut host, Way::Assertion, "", SOURCE, NOW);
        assert_eq!(reply.cause(), Cause::HostRefused);
        assert_eq!(host.asked, [Question::Client]);
    }
}

/// Returns what each endpoint answers to the confidential client with this secret.
fn everywhere(host: &mut support::Host, secret: &str) -> [Reply; 5] {
    let (server, (parameters, header)) = (server(), presenting(Way::Basic, BACKEND, secret));
    let poll = format!("grant_type={GRANT}&device_code={NO_CODE}&{parameters}");
    let refresh = format!("grant_type=refresh_token&refresh_token=x&{parameters}");
    let token = format!("token=x&{parameters}");
    let request = |body| post(body).authorization(header.as_ref());
    [
        host.run(server.device_authorization(request(&parameters), SOURCE, None, NOW)),
        host.run(server.token(request(&poll), SOURCE, NOW)),
        host.run(server.token(request(&refresh), SOURCE, NOW)),
        host.run(server.revocation(request(&token), SOURCE, NOW)),
        host.run(server.authenticate(request(&token), SOURCE, NOW))
            .unwrap_err(),
    ]
}

#[test]
fn b1_holds_at_every_endpoint_and_they_share_one_quota() {
    let mut host = support::Host::new([backend()]);
    for _ in 0..2 {
        for reply in everywhere(&mut host, "wrong") {
            assert_invalid_client(&reply, Cause::WrongSecret);
        }
    }
    for reply in everywhere(&mut host, SECRET) {
        assert_spent(&reply, "60");
    }
}

/// If the quota cannot be read before the comparison, the answer is 503, because the quota would protect nobody. If a wrong secret cannot
/// be counted afterwards, the answer stays the same.
#[test]
fn b1_a_store_that_failed_is_503_before_the_comparison_and_nothing_after_it() {
    let mut host = support::Host::new([backend()]);
    host.fails = Some(Question::Take);
    let reply = presents(&mut host, Way::Basic, "wrong", SOURCE, NOW);
    assert_unavailable(&reply, Cause::StoreFailed);
    assert_eq!(host.asked, [Question::Take]);
    let server = server();
    let (parameters, header) = presenting(Way::Basic, BACKEND, "wrong");
    let request = post(&parameters).authorization(header.as_ref());
    let mut exchange = server.device_authorization(request, SOURCE, None, NOW);
    let mut looks = 0;
    let reply = loop {
        match exchange.next() {
            Next::Take(_, ask) if looks == 0 => {
                looks += 1;
                ask.answer(Ok(Ok(())));
            }
            Next::Take(_, ask) => ask.answer(Err(device_flow::server::Unavailable)),
            Next::Client(_, ask) => ask.answer(Ok(Some(&backend()))),
            Next::Done(reply) => break reply,
            next => panic!("{next:?}"),
        }
    };
    assert_invalid_client(&reply, Cause::WrongSecret);
}

// B2

/// "If the client attempted to authenticate via the "Authorization" request header field, the authorization server MUST respond
/// with an HTTP 401 (Unauthorized) status code and include the "WWW-Authenticate" response header field matching the
/// authentication scheme used by the client." (RFC 6749, section 5.2)
#[test]
fn b2_an_unknown_client_by_basic_is_invalid_client_with_a_challenge() {
    let request = presenting(Way::Basic, "client_gone", SECRET);
    both_answer_401(&request, Host::Found(None), Cause::UnknownClient);
}

#[test]
fn b2_a_wrong_secret_by_basic_is_invalid_client_with_a_challenge() {
    let long = "x".repeat(2000);
    for wrong in [
        "x",
        " ",
        "7fJFP0zbR1kTdrBNFvDMiW",
        "7Fjfp0ZBr1KtDRbnfVdmI",
        "7Fjfp0ZBr1KtDRbnfVdmIw ",
        " 7Fjfp0ZBr1KtDRbnfVdmIw",
        "7Fjfp0ZBr1KtDRbnfVdmIw:",
        &long,
    ] {
        for known in [backend(), basic_only()] {
            let request = presenting(Way::Basic, BACKEND, wrong);
            both_answer_401(&request, Host::Found(Some(&known)), Cause::WrongSecret);
        }
    }
}

/// The digest of a secret is not the secret: whoever reads a leaked store cannot authenticate with the digest.
#[test]
fn b2_the_stored_digest_is_no_secret() {
    let digest = SecretDigest::of(SECRET);
    let in_hex = escaped(digest.as_bytes()).replace('%', "").to_lowercase();
    let stored = serde_json::to_string(&digest).unwrap();
    for wrong in [in_hex.as_str(), stored.trim_matches('"')] {
        let request = presenting(Way::Basic, BACKEND, wrong);
        both_answer_401(&request, Host::Found(Some(&backend())), Cause::WrongSecret);
    }
}

#[test]
fn b2_the_challenge_names_the_policys_realm() {
    let policy = policy_of(PolicyOptions {
        realm: "Example (sign-in), v2".into(),
        ..PolicyOptions::default()
    });
    let server = server_of(policy);
    let request = presenting(Way::Basic, "client_gone", SECRET);
    for outcome in both(&server, &request, Host::Found(None)) {
        let reply = refusal(outcome);
        let challenge = [("www-authenticate", r#"Basic realm="Example (sign-in), v2""#)];
        let body = error_body("invalid_client", "client authentication failed");
        assert_reply(&reply, Cause::UnknownClient, 401, &challenge, &body);
    }
}

/// If a host's look-up returns another client by mistake, the request is not authenticated as that client.
#[test]
fn b2_the_registration_of_another_client_is_that_of_nobody() {
    for (way, id) in [
        (Way::Nothing, "client_other"),
        (Way::Nothing, "Client_cli"),
        (Way::Basic, "client_other"),
        (Way::Body, "client_other"),
        (Way::Body, "client_backend "),
    ] {
        let request = presenting(way, id, SECRET);
        for found in [cli(), backend()] {
            both_answer_401(&request, Host::Found(Some(&found)), Cause::UnknownClient);
        }
    }
}

#[test]
fn b2_a_right_secret_by_basic_goes_on() {
    let request = presenting(Way::Basic, BACKEND, SECRET);
    both_go_on(&request, Host::Found(Some(&backend())));
    both_go_on(&request, Host::Found(Some(&basic_only())));
}

/// A host replaces a secret by keeping the old one active beside the new one for a while.
#[test]
fn b2_two_secrets_may_be_active_and_a_third_is_wrong() {
    let (old, new) = (
        SecretDigest::of("old secret"),
        SecretDigest::of("new secret"),
    );
    for digests in [[Some(old), Some(new)], [Some(new), Some(old)]] {
        let client = of(ClientAuthMethod::Secret(digests));
        for way in [Way::Basic, Way::Body] {
            for right in ["old secret", "new secret"] {
                both_go_on(&presenting(way, BACKEND, right), Host::Found(Some(&client)));
            }
            let third = presenting(way, BACKEND, "third secret");
            both_answer_401(&third, Host::Found(Some(&client)), Cause::WrongSecret);
        }
    }
    // After the replacement, one secret is left, in either place.
    for digests in [[None, Some(new)], [Some(new), None]] {
        let client = of(ClientAuthMethod::Secret(digests));
        let right = presenting(Way::Basic, BACKEND, "new secret");
        both_go_on(&right, Host::Found(Some(&client)));
        let gone = presenting(Way::Basic, BACKEND, "old secret");
        both_answer_401(&gone, Host::Found(Some(&client)), Cause::WrongSecret);
    }
}

#[test]
fn b2_a_client_without_an_active_secret_has_no_right_one() {
    let client = of(ClientAuthMethod::Secret([None, None]));
    for secret in [SECRET, "\u{20}", "0"] {
        let request = presenting(Way::Basic, BACKEND, secret);
        both_answer_401(&request, Host::Found(Some(&client)), Cause::WrongSecret);
    }
}

// B3

#[test]
fn b3_an_unknown_client_by_the_body_is_answered_as_by_basic() {
    for way in [Way::Nothing, Way::Body, Way::Assertion] {
        let request = presenting(way, "client_gone", SECRET);
        both_answer_401(&request, Host::Found(None), Cause::UnknownClient);
    }
}

/// "A server generating a 401 (Unauthorized) response MUST send a WWW-Authenticate header field" (RFC 9110, section 11.6.1).
#[test]
fn b3_a_wrong_secret_by_the_body_is_answered_as_by_basic() {
    for wrong in ["x", "7fJFP0zbR1kTdrBNFvDMiW", "7Fjfp0ZBr1KtDRbnfVdmIw "] {
        let request = presenting(Way::Body, BACKEND, wrong);
        both_answer_401(&request, Host::Found(Some(&backend())), Cause::WrongSecret);
    }
}

#[test]
fn b3_a_right_secret_by_the_body_goes_on() {
    let request = presenting(Way::Body, BACKEND, SECRET);
    both_go_on(&request, Host::Found(Some(&backend())));
}

// B4

/// authentik #20828: a confidential client needed no secret at the poll. Here every kind of confidential client needs its credential, at
/// both endpoints.
#[test]
fn b4_a_confidential_client_without_a_secret_is_invalid_client() {
    for client in confidential() {
        let request = presenting(Way::Nothing, BACKEND, "");
        let host = Host::Found(Some(&client));
        both_answer_401(&request, host, Cause::CredentialMissing);
    }
}

#[test]
fn b4_an_empty_secret_is_none() {
    for client in confidential() {
        for way in [Way::Basic, Way::Body] {
            let request = presenting(way, BACKEND, "");
            let host = Host::Found(Some(&client));
            both_answer_401(&request, host, Cause::CredentialMissing);
        }
    }
}

/// A host that verifies secrets or assertions itself cannot have verified a credential that was not sent.
#[test]
fn b4_no_verdict_stands_for_a_credential_that_was_not_presented() {
    for authentication in [
        ClientAuthMethod::HostSecret,
        ClientAuthMethod::HostSecretBasic,
        ClientAuthMethod::Assertion,
    ] {
        let client = of(authentication);
        let request = presenting(Way::Nothing, BACKEND, "");
        let host = Host::Verified(&client);
        both_answer_401(&request, host, Cause::CredentialMissing);
    }
}

// B5

#[test]
fn b5_a_public_client_presenting_a_secret_is_invalid_client() {
    let client = cli();
    for way in [Way::Basic, Way::Body] {
        for secret in ["x", CLI, SECRET] {
            let request = presenting(way, CLI, secret);
            let host = Host::Found(Some(&client));
            both_answer_401(&request, host, Cause::UnexpectedSecret);
        }
    }
}

#[test]
fn b5_a_public_client_without_a_secret_goes_on() {
    let client = cli();
    both_go_on(
        &presenting(Way::Nothing, CLI, ""),
        Host::Found(Some(&client)),
    );
    // A13: an empty secret counts as absent.
    for way in [Way::Basic, Way::Body] {
        both_go_on(&presenting(way, CLI, ""), Host::Found(Some(&client)));
    }
}

// B6

#[test]
fn b6_a_client_of_an_assertion_or_mutual_tls_presenting_a_secret_is_invalid_client() {
    for authentication in [ClientAuthMethod::Assertion, ClientAuthMethod::MutualTls] {
        let client = of(authentication);
        for way in [Way::Basic, Way::Body] {
            let request = presenting(way, BACKEND, SECRET);
            for host in [Host::Found(Some(&client)), Host::Verified(&client)] {
                both_answer_401(&request, host, Cause::MethodExcluded);
            }
        }
    }
}

/// A client with a secret may always send it in the Basic header. It may send it in the body unless its registration allows only Basic.
#[test]
fn b6_a_client_registered_for_basic_alone_may_not_use_the_body() {
    for secret in [SECRET, "wrong"] {
        let request = presenting(Way::Body, BACKEND, secret);
        let client = basic_only();
        both_answer_401(&request, Host::Found(Some(&client)), Cause::MethodExcluded);
        let client = of(ClientAuthMethod::HostSecretBasic);
        let host = Host::Verified(&client);
        both_answer_401(&request, host, Cause::MethodExcluded);
    }
}

#[test]
fn b6_an_assertion_of_a_client_registered_for_something_else_is_invalid_client() {
    let request = presenting(Way::Assertion, BACKEND, "");
    for client in [
        backend(),
        basic_only(),
        of(ClientAuthMethod::None),
        of(ClientAuthMethod::HostSecret),
        of(ClientAuthMethod::MutualTls),
    ] {
        for host in [Host::Found(Some(&client)), Host::Verified(&client)] {
            both_answer_401(&request, host, Cause::MethodExcluded);
        }
    }
}

/// If only the host can verify a credential, it is not enough that the host looked up the registration.
#[test]
fn b6_a_registration_alone_authenticates_no_client_that_the_host_verifies() {
    for (authentication, way) in [
        (ClientAuthMethod::HostSecret, Way::Basic),
        (ClientAuthMethod::HostSecret, Way::Body),
        (ClientAuthMethod::Assertion, Way::Assertion),
    ] {
        let client = of(authentication);
        let request = presenting(way, BACKEND, SECRET);
        both_answer_401(&request, Host::Found(Some(&client)), Cause::MethodExcluded);
    }
}

#[test]
fn b6_the_registered_method_goes_on_with_the_hosts_verdict() {
    let anywhere = of(ClientAuthMethod::HostSecret);
    let in_basic = of(ClientAuthMethod::HostSecretBasic);
    let assertion = of(ClientAuthMethod::Assertion);
    let mutual_tls = of(ClientAuthMethod::MutualTls);
    for (client, way) in [
        (&anywhere, Way::Basic),
        (&anywhere, Way::Body),
        (&in_basic, Way::Basic),
        (&assertion, Way::Assertion),
        (&mutual_tls, Way::Nothing),
    ] {
        let request = presenting(way, BACKEND, SECRET);
        both_go_on(&request, Host::Verified(client));
        both_answer_401(&request, Host::Refused, Cause::HostRefused);
    }
}

/// The client that the host verified must be the one that the request names.
#[test]
fn b6_a_verdict_about_another_client_is_refused() {
    let other = Client::new("client_other", ClientAuthMethod::HostSecret);
    let other = other.unwrap().allow_device_grant();
    for way in [Way::Nothing, Way::Basic, Way::Body, Way::Assertion] {
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Verified(&other);
        both_answer_401(&request, host, Cause::HostRefused);
    }
}

/// A host refuses an assertion that it has seen before (RFC 7523, section 3). So an exchange shows it the assertion only once, although a
/// redemption asks for the registration again, and once more after a conflict.
#[test]
fn b7_a_proof_is_claimed_once_in_an_exchange() {
    for named in ["", "&client_id=client_backend"] {
        let mut login = Login::of(policy(), backend());
        login.approve(0);
        let client = of(ClientAuthMethod::Assertion).allow_scope(support::scope("openid profile"));
        let body = format!(
            "grant_type={GRANT}&device_code={}&client_assertion=eyJ.e30.c2ln{named}",
            login.codes.device_code
        );
        let store = &mut login.host.store;
        let mut exchange = login.server.token(post(&body), "", at(6_000));
        let (mut proofs, mut looks, mut writes) = (0, 0, 0);
        let reply = loop {
            match exchange.next() {
                Next::Client(claim, ask) if claim.assertion().is_some() => {
                    proofs += 1;
                    ask.answer(Ok(Found::Verified(&client)));
                }
                Next::Client(claim, ask) => {
                    looks += 1;
                    assert_eq!(claim.client_id(), Some(BACKEND));
                    ask.answer(Ok(Some(&client)));
                }
                Next::Load(key, ask) => ask.answer(Ok(store.load(key))),
                Next::Mint(_, change, ask) => {
                    writes += 1;
                    let written = if writes == 1 {
                        Write::Conflict
                    } else {
                        store.change(change)
                    };
                    ask.answer(Ok(written), &tokens());
                }
                Next::Done(reply) => break reply,
                question => panic!("{question:?}"),
            }
        };
        assert_eq!(reply.cause(), Cause::Granted, "{named}");
        assert_eq!((proofs, looks, writes), (1, 2, 2));
    }
}

/// RFC 7521, section 4.2: the request needs no `client_id`, because the assertion names the client.
#[test]
fn b6_an_assertion_without_a_client_id_is_the_client_of_the_verdict() {
    let client = of(ClientAuthMethod::Assertion);
    let request = ("client_assertion=eyJ.e30.c2ln".to_owned(), None);
    both_go_on(&request, Host::Verified(&client));
    both_answer_401(&request, Host::Refused, Cause::HostRefused);
    // If the host did not verify the assertion, the client is unknown.
    both_answer_401(&request, Host::Found(Some(&client)), Cause::UnknownClient);
    both_answer_401(&request, Host::Found(None), Cause::UnknownClient);
}

#[test]
fn b6_a_verdict_is_none_on_a_client_that_the_core_compares_or_that_is_public() {
    let public = of(ClientAuthMethod::None);
    for (client, way) in [
        (&backend(), Way::Basic),
        (&backend(), Way::Body),
        (&backend(), Way::Nothing),
        (&basic_only(), Way::Basic),
        (&public, Way::Nothing),
        (&public, Way::Basic),
    ] {
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Verified(client);
        both_answer_401(&request, host, Cause::MethodExcluded);
    }
}

/// A host that verifies secrets itself gets the secret decoded, whether it came in the Basic header or in the body.
#[test]
fn b6_the_host_gets_what_the_client_presented() {
    let server = server();
    let secret = "a b+c%&=:";
    for way in [Way::Basic, Way::Body] {
        let (parameters, header) = presenting(way, BACKEND, secret);
        let request = post(&parameters).authorization(header.as_ref());
        let mut exchange = server.device_authorization(request, SOURCE, None, NOW);
        if let Next::Take(_, ask) = exchange.next() {
            ask.answer(Ok(Ok(())));
        }
        match exchange.next() {
            Next::Client(claim, _) => {
                assert_eq!(claim.client_id(), Some(BACKEND));
                assert_eq!(claim.secret().as_deref(), Some(secret));
            }
            next => panic!("{next:?}"),
        }
    }
}

// B7

#[test]
fn b7_a_disabled_client_is_invalid_client_whatever_it_presents() {
    let public = cli().disabled();
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_401(&request, Host::Found(Some(&public)), Cause::ClientDisabled);
    let confidential = backend().disabled();
    for way in [Way::Basic, Way::Body] {
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Found(Some(&confidential));
        both_answer_401(&request, host, Cause::ClientDisabled);
    }
    let assertion = of(ClientAuthMethod::Assertion).disabled();
    let request = presenting(Way::Assertion, BACKEND, "");
    let host = Host::Verified(&assertion);
    both_answer_401(&request, host, Cause::ClientDisabled);
}

#[test]
fn b7_a_deleted_client_is_invalid_client() {
    for (way, id) in [
        (Way::Nothing, CLI),
        (Way::Basic, BACKEND),
        (Way::Body, BACKEND),
    ] {
        let request = presenting(way, id, SECRET);
        both_answer_401(&request, Host::Found(None), Cause::UnknownClient);
    }
}

/// The client's secret, its grant or the client itself may have changed since the codes were issued.
#[test]
fn b7_the_registration_as_it_is_now_decides_at_the_poll() {
    let server = server();
    let mut host = support::Host::new([cli()]);
    let codes = host.issue(&server, &cli(), 1, NOW);
    host.approve(&server, &support::alice(), &codes, NOW);
    let version = host.session(&codes.key).unwrap().version();
    let body = support::poll_body(CLI, &codes.device_code);
    let mut poll = |now: Client| {
        host.clients = vec![now];
        let reply = host.run(server.token(post(&body), SOURCE, NOW));
        (reply, host.session(&codes.key).unwrap().version())
    };
    let (reply, after) = poll(cli().disabled());
    assert_invalid_client(&reply, Cause::ClientDisabled);
    assert_eq!(after, version);
    let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    let confidential = Client::new(CLI, secret).unwrap().allow_device_grant();
    let (reply, _) = poll(confidential);
    assert_invalid_client(&reply, Cause::CredentialMissing);
    let (reply, after) = poll(Client::new(CLI, ClientAuthMethod::None).unwrap());
    assert_eq!((reply.cause(), after), (Cause::GrantNotAllowed, version));
    // The refused polls changed nothing: when the client is allowed again, the device gets its tokens.
    assert_eq!(poll(cli()).0.cause(), Cause::Granted);
}

// B8

#[test]
fn b8_a_host_that_could_not_decide_is_answered_503() {
    let mut host = support::Host::new([backend()]);
    host.fails = Some(Question::Client);
    for secret in [SECRET, "wrong", ""] {
        for reply in everywhere(&mut host, secret) {
            assert_unavailable(&reply, Cause::StoreFailed);
            // The secret is not counted as wrong, because nobody knows whether it was.
            assert_eq!(host.asked.last(), Some(&Question::Client));
        }
    }
}

/// Anybody can claim to be a public client. So the page where the user decides has to know which client is public.
#[test]
fn a_client_is_public_where_it_has_no_credential() {
    assert!(cli().is_public());
    for client in confidential() {
        assert!(!client.is_public(), "{client:?}");
    }
}

// B9

/// Asserts `unauthorized_client` at both endpoints.
#[track_caller]
fn both_answer_unauthorized_client(request: &(String, Option<String>), host: Host<'_>) {
    for outcome in both(&server(), request, host) {
        assert_refused(
            &refusal(outcome),
            Cause::GrantNotAllowed,
            "unauthorized_client",
            "the client may not use this grant",
        );
    }
    // Whether the client may use another grant is for the host to decide.
    at_own_grant(request, host).unwrap();
}

#[test]
fn b9_an_authenticated_client_without_the_grant_is_unauthorized_client() {
    let without = |id: &str, method| Client::new(id, method).unwrap();
    let public = without(CLI, ClientAuthMethod::None);
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_unauthorized_client(&request, Host::Found(Some(&public)));
    let secret = without(BACKEND, ClientAuthMethod::secret(SecretDigest::of(SECRET)));
    for way in [Way::Basic, Way::Body] {
        let request = presenting(way, BACKEND, SECRET);
        both_answer_unauthorized_client(&request, Host::Found(Some(&secret)));
    }
    for (authentication, way) in [
        (ClientAuthMethod::HostSecret, Way::Body),
        (ClientAuthMethod::Assertion, Way::Assertion),
        (ClientAuthMethod::MutualTls, Way::Nothing),
    ] {
        let client = without(BACKEND, authentication);
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Verified(&client);
        both_answer_unauthorized_client(&request, host);
    }
}

/// A client that has scopes may not use the grant unless its registration says so.
#[test]
fn b9_the_grant_is_not_allowed_unless_it_is_said() {
    let client = Client::new(CLI, ClientAuthMethod::None)
        .unwrap()
        .allow_scope(support::scope("openid"))
        .default_scope(Scope::empty());
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_unauthorized_client(&request, Host::Found(Some(&client)));
}

#[test]
fn b9_comes_after_b2_to_b7() {
    let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    let confidential = Client::new(BACKEND, secret).unwrap();
    for (way, presented, cause) in [
        (Way::Basic, "wrong", Cause::WrongSecret),
        (Way::Body, "wrong", Cause::WrongSecret),
        (Way::Nothing, "", Cause::CredentialMissing),
        (Way::Assertion, "", Cause::MethodExcluded),
    ] {
        let request = presenting(way, BACKEND, presented);
        both_answer_401(&request, Host::Found(Some(&confidential)), cause);
    }
    let public = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let request = presenting(Way::Basic, CLI, "x");
    both_answer_401(
        &request,
        Host::Found(Some(&public)),
        Cause::UnexpectedSecret,
    );
    let disabled = public.disabled();
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_401(
        &request,
        Host::Found(Some(&disabled)),
        Cause::ClientDisabled,
    );
}

// One response.

/// Returns everything of a response that is sent: the status, the headers and the body.
fn bytes(reply: &Reply) -> (u16, Vec<(String, String)>, String) {
    let response = reply.response();
    let headers = response
        .headers()
        .map(|(name, value)| (name.to_owned(), (*value).to_owned()));
    (
        response.status(),
        headers.collect(),
        response.body().to_owned(),
    )
}

#[test]
fn b2_to_b7_and_a11_are_one_response_byte_for_byte() {
    let server = server();
    let (public, secret, in_basic) = (cli(), backend(), basic_only());
    let assertion = of(ClientAuthMethod::Assertion);
    let disabled = cli().disabled();
    let refused = [
        (Way::Basic, BACKEND, "x", Host::Found(None)), // B2
        (Way::Basic, BACKEND, "x", Host::Found(Some(&secret))), // B2
        (Way::Body, BACKEND, "x", Host::Found(None)),  // B3
        (Way::Body, BACKEND, "x", Host::Found(Some(&secret))), // B3
        (Way::Nothing, CLI, "", Host::Found(None)),    // B3
        (Way::Nothing, BACKEND, "", Host::Found(Some(&secret))), // B4
        (Way::Basic, CLI, "x", Host::Found(Some(&public))), // B5
        (Way::Body, CLI, "x", Host::Found(Some(&public))), // B5
        (Way::Basic, BACKEND, SECRET, Host::Found(Some(&assertion))), // B6
        (Way::Body, BACKEND, SECRET, Host::Found(Some(&in_basic))), // B6
        (Way::Assertion, BACKEND, "", Host::Found(Some(&secret))), // B6
        (Way::Nothing, CLI, "", Host::Found(Some(&disabled))), // B7
        (Way::Assertion, BACKEND, "", Host::Refused),
    ];
    let mut replies = Vec::new();
    let mut causes = Vec::new();
    for (way, id, secret, host) in refused {
        for outcome in both(&server, &presenting(way, id, secret), host) {
            let reply = refusal(outcome);
            causes.push(reply.cause());
            replies.push(bytes(&reply));
        }
    }
    let unusable = post("").authorization(Some("Bearer x"));
    let unusable = server.device_authorization(unusable, SOURCE, None, NOW);
    let reply = support::Host::new([]).run(unusable);
    causes.push(reply.cause());
    replies.push(bytes(&reply)); // A11
    for other in &replies {
        assert_eq!(*other, replies[0]);
    }
    // Only the host can tell them apart.
    for cause in [
        Cause::UnknownClient,
        Cause::WrongSecret,
        Cause::CredentialMissing,
        Cause::UnexpectedSecret,
        Cause::MethodExcluded,
        Cause::ClientDisabled,
        Cause::HostRefused,
        Cause::Authorization,
    ] {
        assert!(causes.contains(&cause), "{cause}");
    }
}

#[test]
fn debug_shows_no_secret_of_a_client() {
    let client = backend();
    let (parameters, header) = presenting(Way::Basic, BACKEND, SECRET);
    let request = post(&parameters).authorization(header.as_ref());
    let server = server();
    let reply = support::Host::new([]).run(server.device_authorization(request, "", None, NOW));
    let shown = format!("{client:?} {request:?} {server:?} {reply:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!shown.contains(&header.unwrap()), "{shown}");
}

proptest! {
    /// An oracle of the table: a client is accepted if it presents one of its active secrets in a place where it may send it.
    #[test]
    fn a_secret_is_right_where_it_is_one_of_the_active_ones_and_where_it_may_be(
        first in prop::option::of("[ab]{1,2}"),
        second in prop::option::of("[ab]{1,2}"),
        in_basic_alone in any::<bool>(),
        presented in "[ab]{1,2}",
        by_basic in any::<bool>(),
    ) {
        let digests = [&first, &second].map(|one| one.as_deref().map(SecretDigest::of));
        let client = of(if in_basic_alone {
            ClientAuthMethod::SecretBasic(digests)
        } else {
            ClientAuthMethod::Secret(digests)
        });
        let way = if by_basic { Way::Basic } else { Way::Body };
        let request = presenting(way, BACKEND, &presented);
        let is_active = [&first, &second].into_iter().flatten().any(|one| *one == presented);
        let may_be_there = by_basic || !in_basic_alone;
        for outcome in both(&server(), &request, Host::Found(Some(&client))) {
            prop_assert_eq!(outcome.is_ok(), is_active && may_be_there);
            if let Err(reply) = outcome {
                assert_invalid_client(&reply, reply.cause());
            }
        }
    }

    /// A client is authenticated only by the registration of exactly the id that the request names.
    #[test]
    fn a_stranger_is_never_authenticated(
        id in "[ -~]{1,20}", other in "[ -~]{1,20}", way in 0..3_usize
    ) {
        prop_assume!(id != other);
        let way = [Way::Nothing, Way::Basic, Way::Body][way];
        let request = presenting(way, &id, SECRET);
        let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
        for authentication in [ClientAuthMethod::None, secret] {
            let found = Client::new(other.as_str(), authentication).unwrap();
            let found = found.allow_device_grant();
            for host in [Host::Found(None), Host::Found(Some(&found))] {
                for outcome in both(&server(), &request, host) {
                    assert_invalid_client(&refusal(outcome), Cause::UnknownClient);
                }
            }
        }
    }
}
