//! What went wrong elsewhere with clients, codes and stores (lessons.md): each report in the comment of its test.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use core::time::Duration;

use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::QuotaKey;
use device_flow::memory::Memory;
use device_flow::server::{
    Authentication, Cause, Inserted, Registration, Session, Status, Written,
};
use support::{
    BACKEND, CLI, NOW, alice, approve, assert_invalid_client, assert_refused, backend, basic,
    claim, cli, deny, entropy, issue, keys, policy, poll, poll_body, post, refusal, with_issuing,
    with_poll,
};

/// authentik #20828: a confidential client needed no secret at the poll.
#[test]
fn a_confidential_client_needs_its_secret_at_the_poll_of_an_approved_code() {
    let policy = policy();
    let mut store = Memory::new();
    let codes = issue(&mut store, &policy, &backend(), 1, NOW);
    approve(&mut store, &policy, &alice(), &codes, NOW);
    let version = store.load(&codes.key).unwrap().session.version();
    let body = poll_body(BACKEND, &codes.device_code);
    for (header, cause) in [
        (None, Cause::CredentialMissing),
        (Some(basic(BACKEND, "")), Cause::CredentialMissing),
        (Some(basic(BACKEND, "wrong")), Cause::WrongSecret),
    ] {
        let incoming = post(&body).authorization(header.as_ref());
        let reply = refusal(with_poll(&policy, incoming, Some(&backend()), |_| ()));
        assert_invalid_client(&reply, cause);
    }
    // Nothing was consumed by any of these.
    let session = &store.load(&codes.key).unwrap().session;
    assert_eq!(
        (session.status(), session.version()),
        (Status::Approved, version)
    );
    let reply = poll(&mut store, &policy, &backend(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Granted);
}

/// CVE-2023-2585 (keycloak): a device code was not bound to its client. A stranger who authenticates well learns and changes
/// nothing, and the owner still gets its tokens.
#[test]
fn a_code_is_bound_to_the_client_it_was_issued_to() {
    let policy = policy();
    let mut store = Memory::new();
    let codes = issue(&mut store, &policy, &cli(), 1, NOW);
    approve(&mut store, &policy, &alice(), &codes, NOW);
    let before = serde_json::to_string(&store.load(&codes.key).unwrap().session).unwrap();
    let reply = poll(&mut store, &policy, &backend(), &codes.device_code, NOW);
    let description = "the device code is not valid";
    assert_refused(&reply, Cause::ForeignClient, "invalid_grant", description);
    let after = serde_json::to_string(&store.load(&codes.key).unwrap().session).unwrap();
    assert_eq!(after, before);
    let reply = poll(&mut store, &policy, &cli(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Granted);
}

/// matrix-authentication-service #5972 and #5974: codes that cannot be typed, and that match in one case or with one dash only.
/// Whatever is shown can be typed on any keyboard and is found in every form that people type.
#[test]
fn every_code_that_is_shown_is_found_however_it_is_typed() {
    let policy = policy();
    for seed in 0..=255 {
        let mut issued = Memory::new();
        let codes = issue(&mut issued, &policy, &cli(), seed, NOW);
        let session = &issued.load(&codes.key).unwrap().session;
        let shown = &codes.user_code;
        assert!(shown.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
        for typed in [
            shown.clone(),
            shown.to_lowercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            shown.replace('-', "\u{2013}").to_lowercase(),
            format!("  {shown}\n"),
        ] {
            // A store for each: a guess is paid for each, and this is about reading.
            let mut store = Memory::new();
            assert_eq!(store.insert(session), Inserted::New);
            let review = claim(&mut store, &policy, &alice(), &typed, NOW);
            assert_eq!(*review.session_key(), codes.key);
        }
    }
}

/// better-auth #6143: an alphabet of 32 was drawn from with a bias. Each character of each place is as likely as any other:
/// the numbers 0 to 20^2 - 1 give each pair of the places that move exactly once.
#[test]
fn no_character_of_a_code_is_likelier_than_another() {
    let policy = policy();
    let mut counts = std::collections::HashMap::new();
    for number in 0..400_u128 {
        let mut octets = [3; Entropy::OCTETS];
        octets[32..].copy_from_slice(&number.to_be_bytes());
        let entropy = Entropy::from(octets);
        let code = with_issuing(
            &policy,
            post("client_id=client_cli"),
            Some(&cli()),
            |issuing| {
                let issuance = issuing.draw(entropy, &keys(), NOW).unwrap();
                let reply = issuance.settle(Inserted::New).unwrap();
                let body: serde_json::Value =
                    serde_json::from_str(reply.response().body()).unwrap();
                body["user_code"].as_str().unwrap().replace('-', "")
            },
        );
        for (place, character) in code.unwrap().chars().enumerate() {
            *counts.entry((place, character)).or_insert(0) += 1;
        }
    }
    for character in UserCodeShape::CONSONANTS.chars() {
        let moving = (0..8).filter(|place| counts.get(&(*place, character)) == Some(&20));
        assert_eq!(moving.count(), 2, "{character}");
    }
}

/// wso2 #21835, Duende IS4 #3198: tables grew without clean-up. Every record has a purge time in every state, and a
/// store that honours it comes back to nothing.
#[test]
fn every_record_has_a_purge_time_in_every_state() {
    let policy = policy();
    let mut store = Memory::new();
    let user = alice();
    let codes: Vec<_> = (1..=6)
        .map(|seed| issue(&mut store, &policy, &cli(), seed, NOW))
        .collect();
    let [_, claimed, approved, denied, redeemed, revoked] = codes.as_slice() else {
        panic!("six");
    };
    // Five guesses: as many as there are at once by default.
    claim(&mut store, &policy, &user, &claimed.user_code, NOW);
    for codes in [approved, redeemed, revoked] {
        approve(&mut store, &policy, &user, codes, NOW);
    }
    deny(&mut store, &policy, &user, denied, NOW);
    let reply = poll(&mut store, &policy, &cli(), &redeemed.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Granted);
    let session = &store.load(&revoked.key).unwrap().session;
    let change = session.withdraw(&user).unwrap().unwrap();
    assert_eq!(store.change(&change), Written::Won);
    let states: Vec<_> = codes
        .iter()
        .map(|codes| store.load(&codes.key).unwrap().session.status())
        .collect();
    assert_eq!(
        states,
        [
            Status::Pending,
            Status::Claimed,
            Status::Approved,
            Status::Denied,
            Status::Redeemed,
            Status::Revoked,
        ]
    );
    let end = NOW + Duration::from_mins(10);
    for codes in &codes {
        let session: &Session = &store.load(&codes.key).unwrap().session;
        assert_eq!(session.purge_at(), end);
    }
    let key = QuotaKey::guesses_from("203.0.113.7");
    let change = policy.guess_limit().take(key, None, NOW).unwrap();
    assert_eq!(store.change_quota(&change), Written::Won);
    assert!(change.to().purge_at() <= end);
    assert_eq!(store.purge(end + Duration::from_millis(1)), 6);
    assert!(store.is_empty());
    assert_eq!(store.load_quota(&key), None);
}

/// Duende IS4 #2870: an in-memory store in a web farm gave `invalid_grant` at random. A server that has not got
/// the session says so and cannot know better: the store must be shared, and a store that failed is no missing session (C1).
#[test]
fn a_store_that_is_not_shared_knows_no_code_of_another() {
    let policy = policy();
    let (mut here, mut there) = (Memory::new(), Memory::new());
    let codes = issue(&mut here, &policy, &cli(), 1, NOW);
    let reply = poll(&mut here, &policy, &cli(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::Pending);
    let reply = poll(&mut there, &policy, &cli(), &codes.device_code, NOW);
    assert_eq!(reply.cause(), Cause::UnknownCode);
    assert!(there.is_empty());
}

/// oauth2-rs #218, openid-client #575: errors with status 200. No refusal here has a status of success, and every success has
/// no member `error`.
#[test]
fn an_error_never_has_a_status_of_success() {
    let policy = policy();
    let without = Registration::new(CLI, Authentication::Public).unwrap();
    let requests = [
        ("", None),
        ("client_id=client_cli&client_id=client_cli", Some(cli())),
        ("client_id=client_gone", None),
        ("client_id=client_backend", Some(backend())),
        ("client_id=client_cli", Some(cli().disabled())),
        ("client_id=client_cli", Some(without)),
        ("client_id=client_cli&scope=admin", Some(cli())),
        ("client_id=client_cli&scope=%22", Some(cli())),
        ("client_id=client_cli&scope=openid", Some(cli())),
    ];
    for (body, found) in requests {
        let outcome = with_issuing(&policy, post(body), found.as_ref(), |issuing| {
            let issuance = issuing.draw(entropy(1), &keys(), NOW)?;
            Ok(issuance.settle(Inserted::New).unwrap())
        });
        let reply = match outcome {
            Ok(Ok(reply) | Err(reply)) | Err(reply) => reply,
        };
        let response = reply.response();
        let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        let is_error = body.get("error").is_some();
        assert_eq!(response.status() == 200, !is_error);
        assert_eq!(response.status() >= 400, is_error);
    }
}
