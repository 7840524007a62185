//! Table D: the device authorization endpoint.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use core::fmt::Write as _;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{QuotaKey, SecretDigest};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Form, HostVerdict, Inserted, Issuing, Origin, Policy, Registration,
    Reply, SecretPlacement, Session, Spent, Status, Written,
};
use proptest::prelude::*;
use support::{
    BACKEND, CLI, NOW, SECRET, alice, assert_invalid_client, assert_refused, assert_reply,
    assert_unavailable, backend, basic, builder, claim, cli, encoded, entropy, entropy_of,
    error_body, issue, keys, policy, post, refusal, scope, with_issuing,
};
use time::OffsetDateTime;

/// Draws once for a client that asks for `scope` (with its name, as it travels), inserts nothing, and gives the session and the
/// reply.
fn asked(
    policy: &Policy,
    client: &Registration,
    scope: &str,
    entropy: Entropy,
) -> Result<(Session, Reply), Reply> {
    let body = format!("client_id={}&{scope}", client.client_id());
    let header = support::authorization(client);
    let incoming = post(&body).authorization(header.as_ref());
    with_issuing(policy, incoming, Some(client), |issuing| {
        let issuance = issuing.draw(entropy, &keys(), NOW)?;
        let session = issuance.session().clone();
        let reply = issuance.settle(Inserted::New).unwrap();
        Ok((session, reply))
    })?
}

/// The scope that the user is asked for.
#[track_caller]
fn asked_for(client: &Registration, scope: &str) -> Scope {
    let (session, reply) = asked(&policy(), client, scope, entropy(1)).unwrap();
    assert_eq!(reply.cause(), Cause::Issued);
    session.scope().clone()
}

/// Asserts `invalid_scope`.
#[track_caller]
fn is_invalid_scope(client: &Registration, scope: &str, cause: Cause, description: &str) {
    let reply = refusal(asked(&policy(), client, scope, entropy(1)));
    assert_refused(&reply, cause, "invalid_scope", description);
}

/// A step with the request of a public client, before the first draw.
fn issuing<T>(policy: &Policy, then: impl FnOnce(&mut Issuing<'_>) -> T) -> T {
    with_issuing(policy, post("client_id=client_cli"), Some(&cli()), then).unwrap()
}

/// The text of a user code from its number, and the number from 16 octets: "16 random bytes as one integer modulo
/// alphabet^length". The least significant place comes first.
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

/// Entropy with this device code and this number for the user code.
fn octets(device: [u8; 32], number: u128) -> Entropy {
    let mut octets = [0; Entropy::OCTETS];
    octets[..32].copy_from_slice(&device);
    octets[32..].copy_from_slice(&number.to_be_bytes());
    Entropy::from(octets)
}

/// 0, 1, 2, …, 31, and the same as base64url.
const COUNTING: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31,
];
const COUNTING_CODE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_str(reply.response().body()).unwrap()
}

// D1

/// The answer of this endpoint up to the codes.
fn answered(
    method: &str,
    media_type: &str,
    authorization: Option<&str>,
    body: &str,
    found: Option<&Registration>,
) -> Reply {
    let policy = policy();
    let incoming = device_flow::server::Incoming::new(method, body.as_bytes())
        .content_type(Some(media_type))
        .authorization(authorization);
    refusal(with_issuing(&policy, incoming, found, |_| ()))
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
        "the body must be application/x-www-form-urlencoded, said once",
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
        "client_id or client_secret is not visible ASCII",
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
    let without = Registration::new(CLI, Authentication::Public).unwrap();
    let reply = answered("POST", form, None, body, Some(&without));
    assert_refused(
        &reply,
        Cause::GrantNotAllowed,
        "unauthorized_client",
        "the client may not use this grant",
    );
}

/// Of several faults the first in the tables answers: a wrong scope is of no interest while the client is unknown.
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

/// The key of the issuing quota.
fn issuing_key(client: &Registration, source: &str) -> QuotaKey {
    let policy = policy();
    let body = format!("client_id={}", client.client_id());
    let header = support::authorization(client);
    let incoming = post(&body).authorization(header.as_ref());
    let form = Form::read(incoming, &policy).unwrap();
    let request = form.device_authorization().unwrap();
    let issuing = match client.authentication() {
        Authentication::Public | Authentication::Secret { .. } => {
            request.authenticate(Some(client))
        }
        Authentication::HostSecret(_) | Authentication::Assertion | Authentication::MutualTls => {
            request.authenticate_by(HostVerdict::Authenticated(client))
        }
    };
    issuing.unwrap().quota_key(source)
}

/// Anybody can spend a public id; nobody else can spend an authenticated one.
#[test]
fn d2_the_quota_is_keyed_by_client_and_source_for_a_public_client() {
    let key = issuing_key(&cli(), "203.0.113.7");
    assert_eq!(key, issuing_key(&cli(), "203.0.113.7"));
    assert_ne!(key, issuing_key(&cli(), "203.0.113.8"));
    assert_ne!(key, issuing_key(&cli(), ""));
    let other = Registration::new("client_tv", Authentication::Public).unwrap();
    let other = other.allow_device_grant();
    assert_ne!(key, issuing_key(&other, "203.0.113.7"));
}

#[test]
fn d2_the_quota_is_client_wide_for_an_authenticated_client() {
    let secret = Authentication::secret(SecretDigest::of(SECRET));
    let mut keys = Vec::new();
    for (id, authentication) in [
        ("client_a", secret),
        (
            "client_b",
            Authentication::HostSecret(SecretPlacement::Anywhere),
        ),
    ] {
        let client = Registration::new(id, authentication).unwrap();
        let client = client.allow_device_grant();
        let key = issuing_key(&client, "203.0.113.7");
        assert_eq!(key, issuing_key(&client, "203.0.113.8"));
        assert_eq!(key, issuing_key(&client, ""));
        keys.push(key);
    }
    assert_ne!(keys[0], keys[1]);
}

/// The quotas of issuing, of wrong secrets and of guesses do not spend each other.
#[test]
fn d2_the_key_is_that_of_no_other_quota() {
    let policy = policy();
    let source = "203.0.113.7";
    let header = basic(BACKEND, SECRET);
    let form = Form::read(post("").authorization(Some(&header)), &policy).unwrap();
    let request = form.device_authorization().unwrap();
    let secrets = request.secret_quota_key(source).unwrap();
    let empty = request.secret_quota_key("").unwrap();
    for source in [source, ""] {
        let issuing = issuing_key(&backend(), source);
        assert_ne!(issuing, secrets);
        assert_ne!(issuing, empty);
        assert_ne!(issuing, QuotaKey::guesses_from(source));
        assert_ne!(issuing, QuotaKey::of_host("issuing", &[BACKEND, source]));
    }
}

/// Takes one from the issuing quota, as a host does before it draws.
fn charge(
    store: &mut Memory,
    policy: &Policy,
    key: QuotaKey,
    now: OffsetDateTime,
) -> Result<(), Spent> {
    let stored = store.load_quota(&key);
    let change = policy.issuing_limit().take(key, stored, now)?;
    assert_eq!(store.change_quota(&change), Written::Won);
    Ok(())
}

#[test]
fn d2_a_spent_issuing_quota_is_429_with_retry_after() {
    let policy = policy();
    let mut store = Memory::new();
    let key = issuing_key(&cli(), "203.0.113.7");
    // The default: twenty at once, then one in three seconds.
    for _ in 0..20 {
        charge(&mut store, &policy, key, NOW).unwrap();
    }
    for (after, told) in [(0, "3"), (1, "3"), (1_000, "2"), (1_999, "2"), (2_999, "1")] {
        let now = NOW + Duration::from_millis(after);
        let spent = charge(&mut store, &policy, key, now).unwrap_err();
        let reply = Reply::issuing_quota_spent(spent);
        let body = error_body("temporarily_unavailable", "too many requests");
        let retry = [("retry-after", told)];
        assert_reply(&reply, Cause::IssuingQuotaSpent, 429, &retry, &body);
    }
    let later = NOW + Duration::from_secs(3);
    charge(&mut store, &policy, key, later).unwrap();
    assert!(charge(&mut store, &policy, key, later).is_err());
    // Another source of the same public client has its own.
    let other = issuing_key(&cli(), "203.0.113.8");
    charge(&mut store, &policy, other, NOW).unwrap();
}

/// However long or short the wait: whole seconds, one at least, and nothing overflows.
#[test]
fn d2_retry_after_is_whole_seconds_rounded_up() {
    for (wait, told) in [
        (Duration::ZERO, "1"),
        (Duration::from_nanos(1), "1"),
        (Duration::from_millis(1_001), "2"),
        (Duration::from_hours(24), "86400"),
        (Duration::MAX, "4294967295"),
    ] {
        let key = issuing_key(&cli(), "");
        let limit = device_flow::server::Limit::new(1, Duration::from_hours(24)).unwrap();
        let change = limit.take(key, None, NOW).unwrap();
        let mut spent = limit.check(Some(change.to()), NOW).unwrap_err();
        spent.retry_after = wait;
        let reply = Reply::issuing_quota_spent(spent);
        let header = reply.response().header("retry-after");
        assert_eq!(header, Some(told));
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
    let client = Registration::new(CLI, Authentication::Public).unwrap();
    let client = client.allow_device_grant().allow_scope(scope("openid"));
    for absent in ["", "scope", "scope="] {
        is_invalid_scope(&client, absent, Cause::ScopeMissing, "scope is missing");
    }
}

/// A default of nothing is a default: it allows asking for nothing.
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
    let description = "nothing of the scope is allowed";
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
    // Who may ask for nothing can ask for nothing by name, whatever the default.
    let nothing = Registration::new(CLI, Authentication::Public).unwrap();
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

/// The refusal comes before anything is drawn: the same request asked again is refused again.
#[test]
fn d4_no_entropy_makes_a_scope_right() {
    let policy = policy();
    let body = "client_id=client_cli&scope=admin";
    let refused = with_issuing(&policy, post(body), Some(&cli()), |issuing| {
        for seed in 0..10 {
            let reply = refusal(issuing.draw(entropy(seed), &keys(), NOW));
            assert_eq!(reply.cause(), Cause::ScopeNotAllowed);
        }
    });
    refused.unwrap();
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
    // 20^8 and a number below: the whole is WDJB-MJHT of the RFC.
    let number = 0x7000_0000_0000_u128 * 20_u128.pow(8) + wdjb();
    let entropy = octets(COUNTING, number);
    let (session, reply) = asked(&policy(), &cli(), "scope=openid", entropy).unwrap();
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

/// The number of `WDJBMJHT`.
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
    let policy = Policy::builder("http://localhost:8080/a/b")
        .interval(Duration::from_mins(1))
        .lifetime(Duration::from_mins(2))
        .user_code(UserCodeShape::new("0123456789", 9).unwrap())
        .outstanding(100)
        .build()
        .unwrap();
    let entropy = octets(COUNTING, 987_654_321);
    let (_, reply) = asked(&policy, &backend(), "", entropy).unwrap();
    let body = format!(
        r#"{{"device_code":"{COUNTING_CODE}","user_code":"123-456-789","verification_uri":"http://localhost:8080/a/b","expires_in":120,"interval":60}}"#
    );
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
}

/// "`verification_uri_complete` OPTIONAL": off unless asked for (RFC 8628, section 5.4).
#[test]
fn d6_verification_uri_complete_is_there_when_the_policy_has_it_on() {
    let on = builder().with_verification_uri_complete().build().unwrap();
    let entropy = || octets(COUNTING, wdjb());
    let (_, reply) = asked(&on, &cli(), "", entropy()).unwrap();
    let body = format!(
        r#"{{"device_code":"{COUNTING_CODE}","user_code":"WDJB-MJHT","verification_uri":"https://login.example.com/device","verification_uri_complete":"https://login.example.com/device?user_code=WDJB-MJHT","expires_in":300,"interval":5}}"#
    );
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
    let (_, reply) = asked(&policy(), &cli(), "", entropy()).unwrap();
    assert_eq!(json(&reply).get("verification_uri_complete"), None);
}

/// What is in the response is what the store knows, and by digests alone.
#[test]
fn d6_the_session_is_found_by_the_codes_of_the_response() {
    use sha2::{Digest as _, Sha256};
    let policy = policy();
    let mut store = Memory::new();
    let codes = issue(&mut store, &policy, &cli(), 3, NOW);
    let digest: [u8; 32] = Sha256::digest(&codes.device_code).into();
    assert_eq!(codes.key.as_bytes(), &digest);
    let review = claim(&mut store, &policy, &alice(), &codes.user_code, NOW);
    assert_eq!(*review.session_key(), codes.key);
    let stored = &store.load(&codes.key).unwrap().session;
    let text = serde_json::to_string(stored).unwrap() + &format!("{stored:?}");
    let canonical = codes.user_code.replace('-', "");
    for code in [&codes.device_code, &codes.user_code, &canonical] {
        assert!(!text.contains(code.as_str()));
    }
}

/// The digest of the user code is under the host's key: under another one it is another.
#[test]
fn d6_the_user_key_depends_on_the_hosts_key() {
    let under = |seed| {
        issuing(&policy(), |issuing| {
            let keys = device_flow::digest::UserCodeKeys::new(support::key(seed));
            let issuance = issuing.draw(entropy(1), &keys, NOW).unwrap();
            *issuance.session().user_key()
        })
    };
    assert_eq!(under(7), under(7));
    assert_ne!(under(7), under(8));
}

/// A store that does not know whether it inserted: no codes leave, the device asks again.
#[test]
fn d6_an_insert_whose_outcome_is_unknown_is_503() {
    let reply = issuing(&policy(), |issuing| {
        let issuance = issuing.draw(entropy(1), &keys(), NOW).unwrap();
        issuance.settle(Inserted::Unknown).unwrap()
    });
    assert_unavailable(&reply, Cause::StoreFailed);
}

// D7

#[test]
fn d7_a_user_code_that_is_taken_is_drawn_again_three_times_and_then_503() {
    let policy = policy();
    let mut store = Memory::new();
    issue(&mut store, &policy, &cli(), 1, NOW);
    let reply = issuing(&policy, |issuing| {
        // The first draw and three more.
        for device in 2..=5 {
            let drawn = issuing.draw(entropy_of(device, 1), &keys(), NOW);
            let issuance = drawn.unwrap();
            let inserted = store.insert(issuance.session());
            assert_eq!(inserted, Inserted::UserCodeTaken);
            assert!(issuance.settle(inserted).is_err());
        }
        // A fifth is not drawn, whatever the entropy.
        refusal(issuing.draw(entropy(6), &keys(), NOW))
    });
    assert_unavailable(&reply, Cause::UserCodesTaken);
    assert_eq!(store.len(), 1);
}

#[test]
fn d7_the_third_redraw_may_still_succeed() {
    let policy = policy();
    let mut store = Memory::new();
    issue(&mut store, &policy, &cli(), 1, NOW);
    let reply = issuing(&policy, |issuing| {
        for device in 2..=4 {
            let drawn = issuing.draw(entropy_of(device, 1), &keys(), NOW);
            let issuance = drawn.unwrap();
            let inserted = store.insert(issuance.session());
            assert!(issuance.settle(inserted).is_err());
        }
        let issuance = issuing.draw(entropy(5), &keys(), NOW).unwrap();
        let inserted = store.insert(issuance.session());
        issuance.settle(inserted).unwrap()
    });
    let (_, wanted) = asked(&policy, &cli(), "", entropy(5)).unwrap();
    let body = wanted.response().body().to_owned();
    assert_reply(&reply, Cause::Issued, 200, &[], &body);
    assert_eq!(store.len(), 2);
}

/// The count is that of one request: the next one begins anew.
#[test]
fn d7_the_next_request_draws_anew() {
    let policy = policy();
    for _ in 0..3 {
        issuing(&policy, |issuing| {
            for device in 2..=5 {
                let drawn = issuing.draw(entropy(device), &keys(), NOW);
                assert!(drawn.unwrap().settle(Inserted::UserCodeTaken).is_err());
            }
            assert!(issuing.draw(entropy(6), &keys(), NOW).is_err());
        });
    }
}

// D8

/// Asserts the 500.
#[track_caller]
fn is_broken_entropy(reply: &Reply) {
    let body = error_body("server_error", "the server failed");
    assert_reply(reply, Cause::EntropyBroken, 500, &[], &body);
}

#[test]
fn d8_a_device_code_that_is_taken_is_500_at_once() {
    let policy = policy();
    let mut store = Memory::new();
    issue(&mut store, &policy, &cli(), 1, NOW);
    for user in [1, 2] {
        let reply = issuing(&policy, |issuing| {
            let issuance = issuing.draw(entropy_of(1, user), &keys(), NOW).unwrap();
            let inserted = store.insert(issuance.session());
            assert_eq!(inserted, Inserted::DeviceCodeTaken);
            issuance.settle(inserted).unwrap()
        });
        is_broken_entropy(&reply);
    }
    assert_eq!(store.len(), 1);
}

#[test]
fn d8_a_redraw_is_500_at_once_too() {
    let reply = issuing(&policy(), |issuing| {
        let issuance = issuing.draw(entropy(1), &keys(), NOW).unwrap();
        assert!(issuance.settle(Inserted::UserCodeTaken).is_err());
        let issuance = issuing.draw(entropy(1), &keys(), NOW).unwrap();
        issuance.settle(Inserted::DeviceCodeTaken).unwrap()
    });
    is_broken_entropy(&reply);
}

/// Octets that nobody filled would be taken at the second request; they are refused at the first.
#[test]
fn d8_entropy_that_nobody_filled_is_500() {
    for octet in [0x00, 0xFF, 0xAA] {
        let blank = Entropy::from([octet; Entropy::OCTETS]);
        let reply = refusal(asked(&policy(), &cli(), "", blank));
        is_broken_entropy(&reply);
    }
}

// The codes.

/// "Device code: 32 random bytes, base64url."
#[test]
fn the_device_code_is_32_octets_as_base64url_without_padding() {
    let mut all = Vec::new();
    for device in [[0xFF; 32], [0xFB; 32], [0; 32], COUNTING] {
        let (_, reply) = asked(&policy(), &cli(), "", octets(device, 1)).unwrap();
        let body = json(&reply);
        let code = body["device_code"].as_str().unwrap();
        assert_eq!(code, URL_SAFE_NO_PAD.encode(device));
        assert_eq!(code.len(), 43);
        all.push(code.to_owned());
    }
    assert_eq!(all[0], "__________________________________________8");
    assert_eq!(all[3], COUNTING_CODE);
}

/// "User code: 16 random bytes as one integer modulo alphabet^length."
#[test]
fn the_user_code_is_the_number_modulo_the_combinations() {
    let combinations = 20_u128.pow(8);
    let code = |number| {
        let (_, reply) = asked(&policy(), &cli(), "", octets(COUNTING, number)).unwrap();
        json(&reply)["user_code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code(0), "BBBB-BBBB");
    assert_eq!(code(1), "CBBB-BBBB");
    assert_eq!(code(19), "ZBBB-BBBB");
    assert_eq!(code(20), "BCBB-BBBB");
    assert_eq!(code(combinations - 1), "ZZZZ-ZZZZ");
    assert_eq!(code(combinations), "BBBB-BBBB");
    assert_eq!(code(u128::MAX), {
        let text = spelled(UserCodeShape::CONSONANTS, 8, u128::MAX % combinations);
        format!("{}-{}", &text[..4], &text[4..])
    });
}

/// Each draw is new: "afresh for each draw".
#[test]
fn other_entropy_is_other_codes() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..=255 {
        let (_, reply) = asked(&policy(), &cli(), "", entropy(seed)).unwrap();
        let body = json(&reply);
        assert!(seen.insert(body["device_code"].to_string()));
        assert!(seen.insert(body["user_code"].to_string()));
    }
}

// The origin.

/// The origin as the review shows it.
fn reviewed(text: &str) -> String {
    let policy = policy();
    let mut store = Memory::new();
    let body = "client_id=client_cli";
    let form = Form::read(post(body), &policy).unwrap();
    let client = cli();
    let issuing = form
        .device_authorization()
        .unwrap()
        .authenticate(Some(&client));
    let mut issuing = issuing.unwrap().with_origin(Origin::new(text));
    let issuance = issuing.draw(entropy(1), &keys(), NOW).unwrap();
    let inserted = store.insert(issuance.session());
    let reply = issuance.settle(inserted).unwrap();
    let body = json(&reply);
    let code = body["user_code"].as_str().unwrap();
    let review = claim(&mut store, &policy, &alice(), code, NOW);
    let origin = review.origin().unwrap();
    origin.as_str().to_owned()
}

#[test]
fn the_origin_is_kept_for_the_review() {
    let origin = "203.0.113.7, Wien; curl/8.5 <&\"'>";
    assert_eq!(reviewed(origin), origin);
}

#[test]
fn the_origin_is_cut_at_256_bytes_and_never_within_a_character() {
    assert_eq!(reviewed(&"a".repeat(256)), "a".repeat(256));
    assert_eq!(reviewed(&"a".repeat(257)), "a".repeat(256));
    assert_eq!(reviewed(&"\u{E9}".repeat(200)), "\u{E9}".repeat(128));
    let odd = "a".to_owned() + &"\u{E9}".repeat(200);
    assert_eq!(reviewed(&odd), "a".to_owned() + &"\u{E9}".repeat(127));
    assert_eq!(reviewed(&"\u{1F600}".repeat(65)), "\u{1F600}".repeat(64));
}

#[test]
fn the_control_characters_of_an_origin_are_replaced() {
    for control in [
        "\0", "\n", "\r", "\t", "\u{1B}", "\u{7F}", "\u{85}", "\u{9B}",
    ] {
        let origin = reviewed(&format!("a{control}b"));
        assert_eq!(origin.chars().count(), 3);
        assert!(origin.starts_with('a') && origin.ends_with('b'));
        assert!(!origin.chars().any(char::is_control));
    }
    // Also where the replacements are longer than what they replace.
    let many = reviewed(&"\n".repeat(256));
    assert!(many.len() <= 256 && !many.is_empty());
    assert!(!many.chars().any(char::is_control));
}

#[test]
fn without_an_origin_the_review_has_none() {
    let policy = policy();
    let mut store = Memory::new();
    let codes = issue(&mut store, &policy, &cli(), 1, NOW);
    let review = claim(&mut store, &policy, &alice(), &codes.user_code, NOW);
    assert!(review.origin().is_none());
}

/// Invariant 11.
#[test]
fn debug_shows_no_code() {
    let mut shown = String::new();
    let reply = issuing(&policy(), |issuing| {
        write!(shown, "{issuing:?} {:?}", entropy(1)).unwrap();
        let issuance = issuing.draw(entropy(1), &keys(), NOW).unwrap();
        write!(shown, "{issuance:?} {:?}", issuance.session()).unwrap();
        issuance.settle(Inserted::New).unwrap()
    });
    let response = reply.response();
    write!(shown, "{reply:?} {response:?}").unwrap();
    let body = json(&reply);
    let user_code = body["user_code"].as_str().unwrap();
    let canonical = user_code.replace('-', "");
    for code in [body["device_code"].as_str().unwrap(), user_code, &canonical] {
        assert!(!shown.contains(code), "{shown}");
    }
}

/// Invariant 10.
#[test]
fn same_inputs_same_bytes_out() {
    let once = || {
        let (session, reply) = asked(&policy(), &cli(), "scope=openid", entropy(9)).unwrap();
        let session = serde_json::to_string(&session).unwrap();
        (session, reply.response().body().to_owned())
    };
    assert_eq!(once(), once());
}

/// A shape that the guess limit of [`any_policy`] allows.
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
        let mut builder = Policy::builder(uri.as_str())
            .interval(Duration::from_secs(interval))
            .lifetime(Duration::from_secs(lifetime))
            .user_code(shape)
            .outstanding(100);
        if complete {
            builder = builder.with_verification_uri_complete();
        }
        let policy = builder.build().unwrap();
        let entropy = octets(device, number);
        prop_assume!(device != [0; 32] || number != 0);
        let (session, reply) = asked(&policy, &cli(), "", entropy).unwrap();
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

    /// An oracle of D3 to D5: what was requested and is allowed, in the order of the request, each once; never more.
    #[test]
    fn narrowing_never_widens(
        allowed in prop::collection::vec("[a-c]{1,2}", 0..5),
        requested in prop::collection::vec("[a-c]{1,2}", 1..6),
    ) {
        let client = Registration::new(CLI, Authentication::Public)
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
        match asked(&policy(), &client, &body, entropy(1)) {
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

    /// Whatever text comes as a scope, it is asked for in part or refused as one of D4, and what is asked is allowed.
    #[test]
    fn any_text_for_a_scope_is_narrowed_or_refused(text in prop_oneof![".{1,20}", "[a-d \"\\\\]{1,8}", "(openid|email|x)( (openid|email|x)){0,3}"]) {
        let body = format!("scope={}", encoded(&text));
        match asked(&policy(), &cli(), &body, entropy(1)) {
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
