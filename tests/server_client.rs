//! Table B: who the client is, decided on the registration as it is now, at both endpoints.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use core::time::Duration;

use device_flow::digest::{QuotaKey, SecretDigest};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Form, Grant, HostVerdict, Incoming, Policy, Presented, Registration,
    Reply, SecretPlacement, Written,
};
use proptest::prelude::*;
use support::{
    BACKEND, CLI, GRANT, NO_CODE, NOW, SECRET, assert_invalid_client, assert_refused, assert_reply,
    assert_unavailable, backend, basic, builder, cli, encoded, error_body, escaped, policy, post,
    refusal,
};
use time::OffsetDateTime;

/// How a client presents itself in these tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Nothing,
    Basic,
    Body,
    Assertion,
}

/// A request of `id` that presents `secret` in this way: the parameters and the header.
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

/// What the host does about the client.
#[derive(Clone, Copy)]
enum Host<'r> {
    /// It looked it up; the core compares.
    Found(Option<&'r Registration>),
    /// It verified it by itself.
    Says(HostVerdict<'r>),
}

/// What both endpoints answer: first the token endpoint, then the device authorization endpoint.
fn both(
    policy: &Policy,
    (parameters, header): &(String, Option<String>),
    host: Host<'_>,
) -> [Result<(), Reply>; 2] {
    let poll = format!("grant_type={GRANT}&device_code={NO_CODE}&{parameters}");
    let read = |body| {
        let incoming = post(body).authorization(header.as_ref());
        Form::read(incoming, policy).unwrap()
    };
    let at_token = read(&poll);
    let Grant::DeviceCode(request) = at_token.grant().unwrap() else {
        panic!("another grant");
    };
    let at_token = match host {
        Host::Found(found) => request.authenticate(found).map(|_| ()),
        Host::Says(verdict) => request.authenticate_by(verdict).map(|_| ()),
    };
    let at_device = read(parameters);
    let request = at_device.device_authorization().unwrap();
    let at_device = match host {
        Host::Found(found) => request.authenticate(found).map(|_| ()),
        Host::Says(verdict) => request.authenticate_by(verdict).map(|_| ()),
    };
    [at_token, at_device]
}

/// What a grant of the host's own answers, which authenticates its client the same way.
fn at_own_grant(
    (parameters, header): &(String, Option<String>),
    host: Host<'_>,
) -> Result<(), Reply> {
    let (body, policy) = (format!("grant_type=refresh_token&{parameters}"), policy());
    let form = Form::read(post(&body).authorization(header.as_ref()), &policy).unwrap();
    let Grant::Other(form) = form.grant().unwrap() else {
        panic!("the device grant");
    };
    let request = form.client().unwrap();
    let (client, named) = match host {
        Host::Found(found) => (request.authenticate(found)?, found.unwrap()),
        Host::Says(verdict) => match (request.authenticate_by(verdict)?, verdict) {
            (client, HostVerdict::Authenticated(named)) => (client, named),
            (_, HostVerdict::Refused) => panic!("nobody"),
        },
    };
    assert_eq!(client.client_id(), named.client_id());
    Ok(())
}

/// Asserts the one 401 at both endpoints, and for a grant of the host's own.
#[track_caller]
fn both_answer_401(request: &(String, Option<String>), host: Host<'_>, cause: Cause) {
    for outcome in both(&policy(), request, host) {
        assert_invalid_client(&refusal(outcome), cause);
    }
    assert_invalid_client(&refusal(at_own_grant(request, host)), cause);
}

/// Asserts that both endpoints go on to tables C and D, and that the host has its client.
#[track_caller]
fn both_go_on(request: &(String, Option<String>), host: Host<'_>) {
    for outcome in both(&policy(), request, host) {
        outcome.unwrap();
    }
    at_own_grant(request, host).unwrap();
}

/// A client of this method, with the id of [`BACKEND`].
fn of(authentication: Authentication) -> Registration {
    Registration::new(BACKEND, authentication)
        .unwrap()
        .allow_device_grant()
}

fn basic_only() -> Registration {
    of(Authentication::Secret {
        digests: [Some(SecretDigest::of(SECRET)), None],
        placement: SecretPlacement::BasicOnly,
    })
}

/// One client of every method that is not public.
fn confidential() -> [Registration; 6] {
    [
        backend(),
        basic_only(),
        of(Authentication::HostSecret(SecretPlacement::Anywhere)),
        of(Authentication::HostSecret(SecretPlacement::BasicOnly)),
        of(Authentication::Assertion),
        of(Authentication::MutualTls),
    ]
}

// B1

const SOURCE: &str = "203.0.113.7";

/// The quota key of a client that presents a secret, from a source.
fn secret_key(way: Way, id: &str, source: &str) -> Option<QuotaKey> {
    let policy = policy();
    let (parameters, header) = presenting(way, id, "wrong");
    let incoming = post(&parameters).authorization(header.as_ref());
    let form = Form::read(incoming, &policy).unwrap();
    let request = form.device_authorization().unwrap();
    request.secret_quota_key(source)
}

/// Takes from the quota of wrong secrets, and tells whether that was possible.
fn charge(store: &mut Memory, policy: &Policy, key: QuotaKey, now: OffsetDateTime) -> bool {
    let stored = store.load_quota(&key);
    let taken = policy.secret_limit().take(key, stored, now);
    taken.is_ok_and(|change| store.change_quota(&change) == Written::Won)
}

/// What B1 says to a request of the confidential client with this secret.
fn checked(
    store: &Memory,
    policy: &Policy,
    secret: &str,
    now: OffsetDateTime,
) -> Result<(), Reply> {
    let (parameters, header) = presenting(Way::Basic, BACKEND, secret);
    let incoming = post(&parameters).authorization(header.as_ref());
    let form = Form::read(incoming, policy)?;
    let request = form.device_authorization()?;
    let key = request.secret_quota_key(SOURCE).unwrap();
    request.check_secret_quota(store.load_quota(&key), now)?;
    request.authenticate(Some(&backend())).map(|_| ())
}

/// "The authorization server MUST protect any endpoint utilizing it against brute force attacks." (RFC 6749, section 2.3.1)
#[test]
fn b1_a_spent_quota_of_wrong_secrets_is_429_right_secret_or_wrong() {
    let policy = policy();
    let mut store = Memory::new();
    let key = secret_key(Way::Basic, BACKEND, SOURCE).unwrap();
    // The default: ten at once, then one a minute.
    for _ in 0..10 {
        let reply = refusal(checked(&store, &policy, "wrong", NOW));
        assert_invalid_client(&reply, Cause::WrongSecret);
        assert!(charge(&mut store, &policy, key, NOW));
    }
    assert!(!charge(&mut store, &policy, key, NOW));
    for secret in ["wrong", SECRET] {
        let reply = refusal(checked(&store, &policy, secret, NOW));
        let body = error_body("temporarily_unavailable", "too many requests");
        let retry = [("retry-after", "60")];
        assert_reply(&reply, Cause::SecretQuotaSpent, 429, &retry, &body);
    }
}

#[test]
fn b1_retry_after_is_in_whole_seconds_rounded_up_and_then_one_try_is_back() {
    let policy = policy();
    let mut store = Memory::new();
    let key = secret_key(Way::Basic, BACKEND, SOURCE).unwrap();
    while charge(&mut store, &policy, key, NOW) {}
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
        let reply = refusal(checked(&store, &policy, SECRET, now));
        let header = reply.response().header("retry-after");
        assert_eq!(header, Some(told));
    }
    let later = NOW + Duration::from_mins(1);
    checked(&store, &policy, SECRET, later).unwrap();
    // A right secret pays nothing, and gives nothing back.
    checked(&store, &policy, SECRET, later).unwrap();
    assert!(charge(&mut store, &policy, key, later));
    assert!(!charge(&mut store, &policy, key, later));
}

#[test]
fn b1_a_quota_that_was_never_touched_refuses_nobody() {
    checked(&Memory::new(), &policy(), SECRET, NOW).unwrap();
}

/// By the client alone, anybody could lock it out; by the source alone, one client could lock out its neighbours.
#[test]
fn b1_the_quota_is_keyed_by_client_and_source_together() {
    let key = secret_key(Way::Basic, BACKEND, SOURCE);
    assert!(key.is_some());
    assert_ne!(key, secret_key(Way::Basic, BACKEND, "203.0.113.8"));
    assert_ne!(key, secret_key(Way::Basic, "client_other", SOURCE));
    assert_ne!(key, secret_key(Way::Basic, BACKEND, ""));
    // The place of the secret makes no second quota.
    assert_eq!(key, secret_key(Way::Body, BACKEND, SOURCE));
    // Where one ends and the other begins is part of the key.
    let shifted = secret_key(Way::Basic, "client_backend2", "03.0.113.7");
    assert_ne!(key, shifted);
    // Nor is it any other quota of the same source.
    assert_ne!(key, Some(QuotaKey::guesses_from(SOURCE)));
    assert_ne!(key, Some(QuotaKey::of_host("secrets", &[BACKEND, SOURCE])));
}

#[test]
fn b1_who_presents_no_secret_has_no_quota_of_wrong_secrets() {
    assert_eq!(secret_key(Way::Nothing, CLI, SOURCE), None);
    assert_eq!(secret_key(Way::Assertion, BACKEND, SOURCE), None);
}

/// The same quota whether or not somebody is registered under this id: a stranger learns nothing.
#[test]
fn b1_an_unknown_client_is_limited_like_a_known_one() {
    let policy = policy();
    let mut store = Memory::new();
    let (parameters, header) = presenting(Way::Body, "client_gone", "wrong");
    let key = secret_key(Way::Body, "client_gone", SOURCE).unwrap();
    while charge(&mut store, &policy, key, NOW) {}
    let incoming = post(&parameters).authorization(header.as_ref());
    let form = Form::read(incoming, &policy).unwrap();
    let request = form.device_authorization().unwrap();
    let reply = refusal(request.check_secret_quota(store.load_quota(&key), NOW));
    let body = error_body("temporarily_unavailable", "too many requests");
    let retry = [("retry-after", "60")];
    assert_reply(&reply, Cause::SecretQuotaSpent, 429, &retry, &body);
}

#[test]
fn b1_holds_at_the_token_endpoint_too() {
    let policy = policy();
    let mut store = Memory::new();
    let (parameters, header) = presenting(Way::Basic, BACKEND, SECRET);
    let body = format!("grant_type={GRANT}&device_code={NO_CODE}&{parameters}");
    let incoming = post(&body).authorization(header.as_ref());
    let form = Form::read(incoming, &policy).unwrap();
    let Grant::DeviceCode(request) = form.grant().unwrap() else {
        panic!("another grant");
    };
    let key = request.secret_quota_key(SOURCE).unwrap();
    assert_eq!(Some(key), secret_key(Way::Basic, BACKEND, SOURCE));
    while charge(&mut store, &policy, key, NOW) {}
    let reply = refusal(request.check_secret_quota(store.load_quota(&key), NOW));
    let body = error_body("temporarily_unavailable", "too many requests");
    let retry = [("retry-after", "60")];
    assert_reply(&reply, Cause::SecretQuotaSpent, 429, &retry, &body);
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

#[test]
fn b1_what_may_have_been_a_guess_counts_and_nothing_else() {
    for guessed in [Cause::WrongSecret, Cause::UnknownClient, Cause::HostRefused] {
        assert!(guessed.is_wrong_secret(), "{guessed}");
    }
    for other in [
        Cause::CredentialMissing,
        Cause::UnexpectedSecret,
        Cause::MethodExcluded,
        Cause::ClientDisabled,
        Cause::GrantNotAllowed,
        Cause::SecretQuotaSpent,
        Cause::StoreFailed,
        Cause::Pending,
        Cause::Granted,
    ] {
        assert!(!other.is_wrong_secret(), "{other}");
    }
}

/// The digest of a secret is not the secret: a leaked store presents nothing.
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
    let policy = builder().realm("Example (sign-in), v2").build().unwrap();
    let request = presenting(Way::Basic, "client_gone", SECRET);
    for outcome in both(&policy, &request, Host::Found(None)) {
        let reply = refusal(outcome);
        let challenge = [("www-authenticate", r#"Basic realm="Example (sign-in), v2""#)];
        let body = error_body("invalid_client", "client authentication failed");
        assert_reply(&reply, Cause::UnknownClient, 401, &challenge, &body);
    }
}

/// A host whose look-up went wrong authenticates nobody as somebody else.
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

/// "Two may be active, for rotation."
#[test]
fn b2_two_secrets_may_be_active_and_a_third_is_wrong() {
    let (old, new) = (
        SecretDigest::of("old secret"),
        SecretDigest::of("new secret"),
    );
    for digests in [[Some(old), Some(new)], [Some(new), Some(old)]] {
        let client = of(Authentication::Secret {
            digests,
            placement: SecretPlacement::Anywhere,
        });
        for way in [Way::Basic, Way::Body] {
            for right in ["old secret", "new secret"] {
                both_go_on(&presenting(way, BACKEND, right), Host::Found(Some(&client)));
            }
            let third = presenting(way, BACKEND, "third secret");
            both_answer_401(&third, Host::Found(Some(&client)), Cause::WrongSecret);
        }
    }
    // After the rotation, wherever the one that is left stands.
    for digests in [[None, Some(new)], [Some(new), None]] {
        let client = of(Authentication::Secret {
            digests,
            placement: SecretPlacement::Anywhere,
        });
        let right = presenting(Way::Basic, BACKEND, "new secret");
        both_go_on(&right, Host::Found(Some(&client)));
        let gone = presenting(Way::Basic, BACKEND, "old secret");
        both_answer_401(&gone, Host::Found(Some(&client)), Cause::WrongSecret);
    }
}

#[test]
fn b2_a_client_without_an_active_secret_has_no_right_one() {
    let client = of(Authentication::Secret {
        digests: [None, None],
        placement: SecretPlacement::Anywhere,
    });
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

/// "A server generating a 401 (Unauthorized) response MUST send a WWW-Authenticate header field" (RFC 9110, section 15.5.2).
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

/// authentik #20828: a confidential client needed no secret at the poll. Here at neither endpoint, of whatever kind it is.
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

/// A host that verifies secrets or assertions by itself cannot have verified one that was not sent.
#[test]
fn b4_no_verdict_stands_for_a_credential_that_was_not_presented() {
    for authentication in [
        Authentication::HostSecret(SecretPlacement::Anywhere),
        Authentication::HostSecret(SecretPlacement::BasicOnly),
        Authentication::Assertion,
    ] {
        let client = of(authentication);
        let request = presenting(Way::Nothing, BACKEND, "");
        let host = Host::Says(HostVerdict::Authenticated(&client));
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
    // A13: an empty secret is none.
    for way in [Way::Basic, Way::Body] {
        both_go_on(&presenting(way, CLI, ""), Host::Found(Some(&client)));
    }
}

// B6

#[test]
fn b6_a_client_of_an_assertion_or_mutual_tls_presenting_a_secret_is_invalid_client() {
    for authentication in [Authentication::Assertion, Authentication::MutualTls] {
        let client = of(authentication);
        for way in [Way::Basic, Way::Body] {
            let request = presenting(way, BACKEND, SECRET);
            for host in [
                Host::Found(Some(&client)),
                Host::Says(HostVerdict::Authenticated(&client)),
            ] {
                both_answer_401(&request, host, Cause::MethodExcluded);
            }
        }
    }
}

/// "A client with a secret may use Basic, always, or the body, unless registered otherwise."
#[test]
fn b6_a_client_registered_for_basic_alone_may_not_use_the_body() {
    for secret in [SECRET, "wrong"] {
        let request = presenting(Way::Body, BACKEND, secret);
        let client = basic_only();
        both_answer_401(&request, Host::Found(Some(&client)), Cause::MethodExcluded);
        let client = of(Authentication::HostSecret(SecretPlacement::BasicOnly));
        let host = Host::Says(HostVerdict::Authenticated(&client));
        both_answer_401(&request, host, Cause::MethodExcluded);
    }
}

#[test]
fn b6_an_assertion_of_a_client_registered_for_something_else_is_invalid_client() {
    let request = presenting(Way::Assertion, BACKEND, "");
    for client in [
        backend(),
        basic_only(),
        of(Authentication::Public),
        of(Authentication::HostSecret(SecretPlacement::Anywhere)),
        of(Authentication::MutualTls),
    ] {
        for host in [
            Host::Found(Some(&client)),
            Host::Says(HostVerdict::Authenticated(&client)),
        ] {
            both_answer_401(&request, host, Cause::MethodExcluded);
        }
    }
}

/// What only the host can verify is not verified by looking it up.
#[test]
fn b6_a_registration_alone_authenticates_no_client_that_the_host_verifies() {
    for (authentication, way) in [
        (
            Authentication::HostSecret(SecretPlacement::Anywhere),
            Way::Basic,
        ),
        (
            Authentication::HostSecret(SecretPlacement::Anywhere),
            Way::Body,
        ),
        (Authentication::Assertion, Way::Assertion),
    ] {
        let client = of(authentication);
        let request = presenting(way, BACKEND, SECRET);
        both_answer_401(&request, Host::Found(Some(&client)), Cause::MethodExcluded);
    }
}

#[test]
fn b6_the_registered_method_goes_on_with_the_hosts_verdict() {
    let anywhere = of(Authentication::HostSecret(SecretPlacement::Anywhere));
    let in_basic = of(Authentication::HostSecret(SecretPlacement::BasicOnly));
    let assertion = of(Authentication::Assertion);
    let mutual_tls = of(Authentication::MutualTls);
    for (client, way) in [
        (&anywhere, Way::Basic),
        (&anywhere, Way::Body),
        (&in_basic, Way::Basic),
        (&assertion, Way::Assertion),
        (&mutual_tls, Way::Nothing),
    ] {
        let request = presenting(way, BACKEND, SECRET);
        both_go_on(&request, Host::Says(HostVerdict::Authenticated(client)));
        both_answer_401(
            &request,
            Host::Says(HostVerdict::Refused),
            Cause::HostRefused,
        );
    }
}

/// The verdict names the client, and the client is the one that the request names.
#[test]
fn b6_a_verdict_about_another_client_is_refused() {
    let other = Registration::new(
        "client_other",
        Authentication::HostSecret(SecretPlacement::Anywhere),
    );
    let other = other.unwrap().allow_device_grant();
    for way in [Way::Nothing, Way::Basic, Way::Body, Way::Assertion] {
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Says(HostVerdict::Authenticated(&other));
        both_answer_401(&request, host, Cause::HostRefused);
    }
}

/// RFC 7521, section 4.2: the assertion names the client.
#[test]
fn b6_an_assertion_without_a_client_id_is_the_client_of_the_verdict() {
    let client = of(Authentication::Assertion);
    let request = ("client_assertion=eyJ.e30.c2ln".to_owned(), None);
    both_go_on(&request, Host::Says(HostVerdict::Authenticated(&client)));
    both_answer_401(
        &request,
        Host::Says(HostVerdict::Refused),
        Cause::HostRefused,
    );
    // Without a verdict nobody knows whose it is.
    both_answer_401(&request, Host::Found(Some(&client)), Cause::UnknownClient);
    both_answer_401(&request, Host::Found(None), Cause::UnknownClient);
}

#[test]
fn b6_a_verdict_is_none_on_a_client_that_the_core_compares_or_that_is_public() {
    let public = of(Authentication::Public);
    for (client, way) in [
        (&backend(), Way::Basic),
        (&backend(), Way::Body),
        (&backend(), Way::Nothing),
        (&basic_only(), Way::Basic),
        (&public, Way::Nothing),
        (&public, Way::Basic),
    ] {
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Says(HostVerdict::Authenticated(client));
        both_answer_401(&request, host, Cause::MethodExcluded);
    }
}

/// The host that verifies a secret gets it as the client presented it, decoded, from either place.
#[test]
fn b6_the_host_gets_what_the_client_presented() {
    let policy = policy();
    let secret = "a b+c%&=:";
    for way in [Way::Basic, Way::Body] {
        let (parameters, header) = presenting(way, BACKEND, secret);
        let incoming = post(&parameters).authorization(header.as_ref());
        let form = Form::read(incoming, &policy).unwrap();
        let request = form.device_authorization().unwrap();
        assert_eq!(request.client_id(), Some(BACKEND));
        match request.presented() {
            Presented::Secret(presented) => assert_eq!(presented, secret),
            Presented::Nothing | Presented::Assertion { .. } => panic!("no secret"),
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
    let assertion = of(Authentication::Assertion).disabled();
    let request = presenting(Way::Assertion, BACKEND, "");
    let host = Host::Says(HostVerdict::Authenticated(&assertion));
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

/// What was issued before does not count: "type, secret, grant and existence may have changed since issuance".
#[test]
fn b7_the_registration_as_it_is_now_decides_at_the_poll() {
    let policy = policy();
    let mut store = Memory::new();
    let codes = support::issue(&mut store, &policy, &cli(), 1, NOW);
    support::approve(&mut store, &policy, &support::alice(), &codes, NOW);
    let poll = |store: &mut Memory, now: &Registration| {
        let key = support::poll_body(CLI, &codes.device_code);
        let outcome = support::with_poll(&policy, post(&key), Some(now), |_| ());
        (outcome, store.load(&codes.key).unwrap().session.version())
    };
    let version = store.load(&codes.key).unwrap().session.version();
    let (outcome, after) = poll(&mut store, &cli().disabled());
    assert_invalid_client(&refusal(outcome), Cause::ClientDisabled);
    assert_eq!(after, version);
    let secret = Authentication::secret(SecretDigest::of(SECRET));
    let confidential = Registration::new(CLI, secret).unwrap().allow_device_grant();
    let (outcome, _) = poll(&mut store, &confidential);
    assert_invalid_client(&refusal(outcome), Cause::CredentialMissing);
    let no_grant = Registration::new(CLI, Authentication::Public).unwrap();
    let (outcome, _) = poll(&mut store, &no_grant);
    assert_eq!(refusal(outcome).cause(), Cause::GrantNotAllowed);
    // Nothing was consumed: allowed again, the device gets its tokens.
    let reply = support::poll(&mut store, &policy, &cli(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Granted);
}

// B8

/// The host's to say; what the core gives it for that.
#[test]
fn b8_a_host_that_could_not_decide_answers_503() {
    assert_unavailable(&Reply::store_failed(), Cause::StoreFailed);
}

/// All that anybody may claim to be, for the page where the user decides.
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
    for outcome in both(&policy(), request, host) {
        assert_refused(
            &refusal(outcome),
            Cause::GrantNotAllowed,
            "unauthorized_client",
            "the client may not use this grant",
        );
    }
    // Of another grant the host decides.
    at_own_grant(request, host).unwrap();
}

#[test]
fn b9_an_authenticated_client_without_the_grant_is_unauthorized_client() {
    let without = |id: &str, authentication| Registration::new(id, authentication).unwrap();
    let public = without(CLI, Authentication::Public);
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_unauthorized_client(&request, Host::Found(Some(&public)));
    let secret = without(BACKEND, Authentication::secret(SecretDigest::of(SECRET)));
    for way in [Way::Basic, Way::Body] {
        let request = presenting(way, BACKEND, SECRET);
        both_answer_unauthorized_client(&request, Host::Found(Some(&secret)));
    }
    for (authentication, way) in [
        (
            Authentication::HostSecret(SecretPlacement::Anywhere),
            Way::Body,
        ),
        (Authentication::Assertion, Way::Assertion),
        (Authentication::MutualTls, Way::Nothing),
    ] {
        let client = without(BACKEND, authentication);
        let request = presenting(way, BACKEND, SECRET);
        let host = Host::Says(HostVerdict::Authenticated(&client));
        both_answer_unauthorized_client(&request, host);
    }
}

/// Scopes are no permission: "nothing is allowed to it that is not said".
#[test]
fn b9_the_grant_is_not_allowed_unless_it_is_said() {
    let client = Registration::new(CLI, Authentication::Public)
        .unwrap()
        .allow_scope(support::scope("openid"))
        .default_scope(Scope::empty());
    let request = presenting(Way::Nothing, CLI, "");
    both_answer_unauthorized_client(&request, Host::Found(Some(&client)));
}

#[test]
fn b9_comes_after_b2_to_b7() {
    let secret = Authentication::secret(SecretDigest::of(SECRET));
    let confidential = Registration::new(BACKEND, secret).unwrap();
    for (way, presented, cause) in [
        (Way::Basic, "wrong", Cause::WrongSecret),
        (Way::Body, "wrong", Cause::WrongSecret),
        (Way::Nothing, "", Cause::CredentialMissing),
        (Way::Assertion, "", Cause::MethodExcluded),
    ] {
        let request = presenting(way, BACKEND, presented);
        both_answer_401(&request, Host::Found(Some(&confidential)), cause);
    }
    let public = Registration::new(CLI, Authentication::Public).unwrap();
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

/// Everything of a response that travels.
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
    let policy = policy();
    let (public, secret, in_basic) = (cli(), backend(), basic_only());
    let assertion = of(Authentication::Assertion);
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
        (
            Way::Assertion,
            BACKEND,
            "",
            Host::Says(HostVerdict::Refused),
        ),
    ];
    let mut replies = Vec::new();
    let mut causes = Vec::new();
    for (way, id, secret, host) in refused {
        for outcome in both(&policy, &presenting(way, id, secret), host) {
            let reply = refusal(outcome);
            causes.push(reply.cause());
            replies.push(bytes(&reply));
        }
    }
    let unusable = post("").authorization(Some("Bearer x"));
    let form = Form::read(unusable, &policy).unwrap();
    let reply = refusal(form.device_authorization());
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

/// Invariant 11.
#[test]
fn debug_shows_no_secret_of_a_client() {
    let client = backend();
    let (parameters, header) = presenting(Way::Basic, BACKEND, SECRET);
    let incoming: Incoming<'_> = post(&parameters).authorization(header.as_ref());
    let policy = policy();
    let form = Form::read(incoming, &policy).unwrap();
    let request = form.device_authorization().unwrap();
    let reply = refusal(request.authenticate(None));
    let shown = format!("{client:?} {incoming:?} {form:?} {reply:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!shown.contains(&header.unwrap()), "{shown}");
}

proptest! {
    /// An oracle of the table: who goes on is who presents exactly one of the active secrets, where it may be.
    #[test]
    fn a_secret_is_right_where_it_is_one_of_the_active_ones_and_where_it_may_be(
        first in prop::option::of("[ab]{1,2}"),
        second in prop::option::of("[ab]{1,2}"),
        in_basic_alone in any::<bool>(),
        presented in "[ab]{1,2}",
        by_basic in any::<bool>(),
    ) {
        let placement = if in_basic_alone {
            SecretPlacement::BasicOnly
        } else {
            SecretPlacement::Anywhere
        };
        let digests = [&first, &second].map(|one| one.as_deref().map(SecretDigest::of));
        let client = of(Authentication::Secret { digests, placement });
        let way = if by_basic { Way::Basic } else { Way::Body };
        let request = presenting(way, BACKEND, &presented);
        let is_active = [&first, &second].into_iter().flatten().any(|one| *one == presented);
        let may_be_there = by_basic || !in_basic_alone;
        for outcome in both(&policy(), &request, Host::Found(Some(&client))) {
            prop_assert_eq!(outcome.is_ok(), is_active && may_be_there);
            if let Err(reply) = outcome {
                assert_invalid_client(&reply, reply.cause());
            }
        }
    }

    /// Nobody is authenticated by anything but a registration of the very id that the request names.
    #[test]
    fn a_stranger_is_never_authenticated(
        id in "[ -~]{1,20}", other in "[ -~]{1,20}", way in 0..3_usize
    ) {
        prop_assume!(id != other);
        let way = [Way::Nothing, Way::Basic, Way::Body][way];
        let request = presenting(way, &id, SECRET);
        let secret = Authentication::secret(SecretDigest::of(SECRET));
        for authentication in [Authentication::Public, secret] {
            let found = Registration::new(other.as_str(), authentication).unwrap();
            let found = found.allow_device_grant();
            for host in [Host::Found(None), Host::Found(Some(&found))] {
                for outcome in both(&policy(), &request, host) {
                    assert_invalid_client(&refusal(outcome), Cause::UnknownClient);
                }
            }
        }
    }
}
