//! Mistakes of other authorization servers that must not happen here. Each test names the report.

use core::time::Duration;

use device_flow::code::{Entropy, UserCodeShape};
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Consent, GrantRefusal, PageError, Policy, PolicyError,
    PolicyOptions, Review, Server, ServerKeys, Session, Status, Stored, Subject,
};

use crate::support::login::{
    self, LIFETIME, Login, RETENTION, Wrote, assert_denied, assert_expired, assert_granted,
    assert_invalid_grant, assert_pending, at, bob, bytes, pace,
};
use crate::support::{
    self, Codes, Host, NOW, PAGE, Question, SECRET, alice, assert_invalid_client,
    assert_unavailable, backend, basic, cli, key, policy_of, poll_body, post, scope, server,
    server_of,
};

/// Enters the code of the login as this user. Returns the review, or why the code was refused.
fn enter(login: &mut Login, user: &Subject, now: i64) -> Result<Review, PageError> {
    let code = login.codes.user_code.clone();
    login.host.claim(&login.server, user, &code, at(now))
}

/// spring-authorization-server #1556, #1885: an expired code stayed `authorization_pending` for ever.
#[test]
fn an_expired_code_is_expired_before_it_is_pending() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    for now in [LIFETIME, LIFETIME + 1, LIFETIME + RETENTION - 1] {
        assert_expired(&login.poll(now).reply, Cause::Expired);
    }
}

/// authlib #324: an approved code never expired.
#[test]
fn an_approved_code_expires() {
    let mut login = Login::approved_at(0);
    assert_expired(&login.poll(LIFETIME).reply, Cause::ApprovalExpired);
    assert_eq!(login.status(), Status::Approved, "and was not redeemed");
}

/// spring-authorization-server #1977: an expired user code could be approved.
#[test]
fn an_expired_user_code_is_neither_entered_nor_approved() {
    let mut login = Login::new();
    login.claim(LIFETIME - 1);
    assert_eq!(
        login.approve_by(&alice(), LIFETIME).unwrap_err(),
        PageError::Expired
    );
    assert_eq!(
        enter(&mut login, &alice(), LIFETIME).unwrap_err(),
        PageError::ExpiredCode
    );
}

/// ory/hydra #4110: a denial was never written, and the device waited for ever.
#[test]
fn a_denial_is_written_and_the_device_is_told() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
    login.deny(1);
    assert_eq!(login.status(), Status::Denied);
    assert_denied(&login.poll(5000).reply);
}

/// keycloak #36811: a user who denied, went back in the browser and accepted got a token.
#[test]
fn denied_is_terminal_also_for_a_page_that_was_left_open() {
    let mut login = Login::new();
    login.claim(0);
    // The page was opened before the denial. The denial is written just before the approval is.
    let (key, denying) = (login.codes.key, server());
    login.host.meanwhile.push_back(Box::new(move |store| {
        let mut rival = Host::new([cli()]);
        core::mem::swap(&mut rival.store, store);
        rival.run(denying.deny(&key, &alice(), at(1))).unwrap();
        core::mem::swap(&mut rival.store, store);
    }));
    assert_eq!(
        login.approve_by(&alice(), 2).unwrap_err(),
        PageError::Decided
    );
    assert_eq!(
        login.approve_by(&alice(), 2).unwrap_err(),
        PageError::Decided
    );
    assert_eq!(
        enter(&mut login, &alice(), 2).unwrap_err(),
        PageError::UsedCode
    );
    assert_denied(&login.poll(3).reply);
}

/// CVE-2023-2585, keycloak: the device code was not bound to its client.
#[test]
fn a_device_code_is_of_use_to_its_client_alone() {
    let mut login = Login::approved_at(0);
    let answer = login.poll_as(&backend(), 1);
    assert_invalid_grant(&answer.reply, Cause::ForeignClient);
    assert_eq!(answer.wrote, Wrote::Nothing);
    assert_granted(&login.poll(2).reply, "openid profile");
}

/// CVE-2026-88770, keycloak: an account that was locked after the approval still got tokens.
#[test]
fn the_subject_is_in_the_hosts_hands_once_more_before_anything_is_written() {
    let mut login = Login::approved_at(0);
    login.host.refusal = Some(GrantRefusal::consent_gone());
    let reply = login.poll(1).reply;
    let order = [Question::Mint, Question::Change];
    assert!(login.host.asked.ends_with(&order));
    assert_invalid_grant(&reply, Cause::ConsentGone);
    assert_eq!(login.status(), Status::Ended);
    assert_invalid_grant(&login.poll(2).reply, Cause::Ended);
}

/// authentik #20828: a confidential client needed no secret at the poll.
#[test]
fn a_confidential_client_needs_its_secret_at_the_poll_of_an_approved_code() {
    let mut login = Login::of(support::policy(), backend());
    login.approve(0);
    let had = login.form();
    let plain = poll_body("client_backend", &login.codes.device_code);
    let wrong = format!("{plain}&client_secret=wrong");
    for (body, header, cause) in [
        (&plain, None, Cause::CredentialMissing),
        (&wrong, None, Cause::WrongSecret),
        (
            &plain,
            Some(basic("client_backend", "")),
            Cause::CredentialMissing,
        ),
        (
            &plain,
            Some(basic("client_backend", "wrong")),
            Cause::WrongSecret,
        ),
    ] {
        let request = post(body).authorization(header.as_ref());
        let reply = login.host.run(login.server.token(request, "", at(1)));
        assert_invalid_client(&reply, cause);
        assert_eq!(login.form(), had, "nothing was consumed");
    }
    let right = format!("{plain}&client_secret={SECRET}");
    let reply = login.host.run(login.server.token(post(&right), "", at(1)));
    assert_granted(&reply, "openid profile");
}

/// better-auth GHSA-cq3f-vc6p-68fh: any signed-in user could approve any code.
#[test]
fn only_the_user_who_entered_the_code_decides() {
    let mut login = Login::new();
    for user in [alice(), bob()] {
        let error = login.approve_by(&user, 0).unwrap_err();
        assert_eq!(error, PageError::NotYours, "nobody entered it");
    }
    login.claim(0);
    assert_eq!(
        login.approve_by(&bob(), 1).unwrap_err(),
        PageError::NotYours
    );
    assert_eq!(login.deny_by(&bob(), 1).unwrap_err(), PageError::NotYours);
    assert_eq!(
        enter(&mut login, &bob(), 1).unwrap_err(),
        PageError::ClaimedByAnother
    );
}

/// better-auth PR #10135: the scope was checked before the user, so the error showed the victim's scopes to other users.
#[test]
fn who_it_is_comes_before_what_is_asked() {
    let mut login = Login::new();
    login.claim(0);
    for wanted in ["openid", "openid profile", "admin", ""] {
        let consent = Consent::to(scope(wanted));
        let error = login.consent_by(&bob(), &consent, 1).unwrap_err();
        assert_eq!(error, PageError::NotYours);
    }
}

/// better-auth PR #10746: the code was consumed before minting. When minting failed, the user had to start over.
#[test]
fn a_failure_to_mint_costs_nobody_a_login() {
    let mut login = Login::approved_at(0);
    login.host.refusal = Some(GrantRefusal::failed());
    assert_unavailable(&login.poll(1).reply, Cause::MintingFailed);
    login.host.refusal = None;
    assert_granted(&login.poll(2).reply, "openid profile");
}

/// ferriskey PR #1236: an approved code gave fresh tokens on every poll.
#[test]
fn a_code_gives_tokens_once() {
    let mut login = Login::approved_at(0);
    assert_granted(&login.poll(1).reply, "openid profile");
    for (now, cause) in [
        (1, Cause::Duplicate),
        (5001, Cause::Replay),
        (60_000, Cause::Ended),
        (LIFETIME, Cause::Ended),
    ] {
        let reply = login.poll(now).reply;
        assert_eq!(reply.response().status(), 400);
        assert_eq!(reply.cause(), cause);
    }
}

/// MAS PR #3656, `OpenArtifacts` PR #62: two concurrent polls both redeemed the code.
#[test]
fn of_two_concurrent_polls_one_redeems() {
    use device_flow::server::{Next, Write};

    let login = Login::approved_at(0);
    let mut store = login.host.store;
    let body = poll_body("client_cli", &login.codes.device_code);
    let mut polls = [(); 2].map(|()| login.server.token(post(&body), "", at(1)));
    // Both read, then both mint and write.
    for poll in &mut polls {
        for _ in 0..3 {
            match poll.next() {
                Next::Client(_, ask) => ask.answer(Ok(Some(&login.client))),
                Next::Load(key, ask) => ask.answer(Ok(store.load(key))),
                next => panic!("{next:?}"),
            }
        }
    }
    let writes = polls.each_mut().map(|poll| match poll.next() {
        Next::Mint(_, change, ask) => {
            let written = store.change(change);
            ask.answer(Ok(written), &support::tokens());
            written
        }
        next => panic!("{next:?}"),
    });
    assert_eq!(writes, [Write::Committed, Write::Conflict]);
    let [one, mut other] = polls;
    let mut host = Host::new([cli()]);
    assert_granted(&host.run(one), "openid profile");
    // The other poll must not send its tokens. It reads the session again.
    if let Next::Load(key, ask) = other.next() {
        ask.answer(Ok(store.load(key)));
    }
    assert_invalid_grant(&host.run(other), Cause::LostRace);
}

/// Abblix #459, vouch #266: a poll wrote the whole record back and erased the approval.
#[test]
fn a_poll_that_read_before_the_approval_and_writes_after_it_erases_nothing() {
    use device_flow::server::Next;

    let mut login = Login::new();
    let body = poll_body("client_cli", &login.codes.device_code);
    let server = server();
    let mut poll = server.token(post(&body), "", at(2));
    loop {
        match poll.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&cli()))),
            Next::Load(key, ask) => ask.answer(Ok(login.host.store.load(key))),
            Next::SavePace(key, pace) => {
                let key = *key;
                login.approve(1);
                let had = login.form();
                login.host.store.save_pace(&key, pace);
                assert_eq!(login.form(), had, "state, version, subject and scope");
                break;
            }
            next => panic!("{next:?}"),
        }
    }
    assert_granted(&login.poll(3).reply, "openid profile");
}

/// H2CK/oidc #716: each early poll added 5 seconds, and refused polls counted as the last poll. So clients that kept to the interval were
/// locked out.
#[test]
fn a_client_that_polls_at_the_first_interval_for_ever_gets_through() {
    let mut login = Login::new();
    let (mut accepted, mut last, mut now) = (0, 0, 0);
    // This client ignores `slow_down`. The times between its polls jitter around the first interval.
    let jitter = [0, -1400, 900, -1300, 400, -2000, 0, 150];
    let mut steps = jitter.into_iter().cycle();
    while now < LIFETIME {
        if login.poll(now).reply.cause() == Cause::Pending {
            assert!(now - last <= 60_000 + 5900, "locked out at {now}");
            (accepted, last) = (accepted + 1, now);
        }
        now += 5000 + steps.next().unwrap();
    }
    assert!(accepted >= 6, "{accepted}");
    // A client that keeps exactly to the interval is never slowed down at all.
    let mut login = Login::new();
    for now in (0..LIFETIME).step_by(5000) {
        assert_pending(&login.poll(now), &pace(now, 5, false));
    }
}

/// Abblix #281: the first poll was throttled.
#[test]
fn the_first_poll_is_free() {
    let mut login = Login::new();
    assert_pending(&login.poll(0), &pace(0, 5, false));
}

/// cli/cli #9370, cli/oauth #111: a client with a fast clock got `slow_down` again and again, and gives up at the second one.
#[test]
fn a_client_whose_clock_is_fast_by_30_percent_is_never_slowed_down() {
    let mut login = Login::new();
    let mut now = 0;
    while now < LIFETIME {
        assert_pending(&login.poll(now), &pace(now, 5, false));
        now += 5000 * 10 / 13;
    }
}

/// openid-client PR #824: the client obeys `Retry-After`. So `slow_down` has this header, with the interval of the body.
#[test]
fn slow_down_says_retry_after() {
    let mut login = Login::new();
    let _ = login.poll(0);
    let reply = login.poll(1000).reply;
    let response = reply.response();
    assert_eq!(response.header("retry-after"), Some("10"));
    assert!(response.body().ends_with(r#""interval":10}"#));
    // Every 503 has it, too.
    login.host.fails = Some(Question::Load);
    let reply = login.poll(2000).reply;
    assert_eq!(reply.response().header("retry-after"), Some("5"));
}

/// MAS #5972, #5974: some codes could not be typed, and case and dash mattered. Here a code that is shown is found in every form that
/// people type.
#[test]
fn every_code_that_is_shown_is_found_however_it_is_typed() {
    for seed in 0..=255 {
        let (server, mut issued) = (server(), Host::new([cli()]));
        let codes = issued.issue(&server, &cli(), seed, NOW);
        let shown = &codes.user_code;
        let is_typed = |own| own == b'-' || b"BCDFGHJKLMNPQRSTVWXZ".contains(&own);
        assert!(shown.bytes().all(is_typed));
        for typed in [
            shown.clone(),
            shown.to_lowercase(),
            shown.replace('-', ""),
            shown.replace('-', " "),
            shown.replace('-', "\u{2013}").to_lowercase(),
            format!("  {shown}\n"),
        ] {
            // A new host for each form, because each entry takes a guess from the quota, and this test is only about reading.
            let mut host = Host::new([cli()]);
            let _ = host.store.insert(issued.session(&codes.key).unwrap());
            let review = host.claim(&server, &alice(), &typed, NOW).unwrap();
            assert_eq!(*review.session_key(), codes.key);
        }
    }
}

/// better-auth #6143: each character was a random byte modulo the length of the alphabet, so its first letters came more often.
#[test]
fn every_letter_of_the_alphabet_is_as_likely_as_any_other() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let mut counts = [0_u32; 26];
    let mut state = 1_u64;
    for _ in 0..4000 {
        let mut octets = [0; Entropy::OCTETS];
        for chunk in octets.chunks_mut(8) {
            // splitmix64, from a fixed seed
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        }
        host.entropy.push_back(Entropy::from(octets));
        let request = post("client_id=client_cli");
        // Each request has a source of its own, so that each has a quota of its own.
        let source = state.to_string();
        let reply = host.run(server.device_authorization(request, &source, None, NOW));
        let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
        let code = body["user_code"].as_str().unwrap();
        for letter in code.bytes().filter(u8::is_ascii_uppercase) {
            counts[usize::from(letter - b'A')] += 1;
        }
    }
    let letters = UserCodeShape::CONSONANTS.bytes();
    for letter in letters {
        // 32,000 letters of 20 kinds: 1,600 of each, with a standard deviation of 39.
        let count = counts[usize::from(letter - b'A')];
        assert!((1400..=1800).contains(&count), "{count}");
    }
    assert_eq!(counts.iter().sum::<u32>(), 32_000);
}

/// The same report, checked exactly: 400 numbers in a row give each character equally often, in the two places that change.
#[test]
fn no_character_of_a_code_is_likelier_than_another() {
    let (server, mut host) = (server(), Host::new([cli()]));
    let mut counts = std::collections::HashMap::new();
    for number in 1..=400_u128 {
        let mut octets = [3; Entropy::OCTETS];
        octets[..16].copy_from_slice(&number.to_be_bytes()); // another device code each time
        octets[32..].copy_from_slice(&number.to_be_bytes());
        host.entropy.push_back(Entropy::from(octets));
        let source = number.to_string(); // and another quota each time
        let request = post("client_id=client_cli");
        let reply = host.run(server.device_authorization(request, &source, None, NOW));
        let code = Codes::of(&reply).user_code.replace('-', "");
        for (place, character) in code.chars().enumerate() {
            *counts.entry((place, character)).or_insert(0) += 1;
        }
    }
    for character in UserCodeShape::CONSONANTS.chars() {
        let moving = (0..8).filter(|place| counts.get(&(*place, character)) == Some(&20));
        assert_eq!(moving.count(), 2, "{character}");
    }
}

/// Abblix PR #165: a success refilled the quota of guesses of its source.
#[test]
fn a_right_code_costs_a_guess_and_refills_nothing() {
    let mut login = Login::new();
    for _ in 0..4 {
        let wrong = login.host.claim(&login.server, &alice(), "BBBB-BBBB", NOW);
        assert_eq!(wrong.unwrap_err(), PageError::UnknownCode);
    }
    // The fifth guess is right. The session is claimed, approved and redeemed.
    login.approve(0);
    assert_granted(&login.poll(0).reply, "openid profile");
    let spent = login.host.claim(&login.server, &alice(), "BBBB-BBBB", NOW);
    assert!(matches!(spent.unwrap_err(), PageError::RateLimited(_)));
}

/// wso2 #21835, Duende `IdentityServer4` #3198: tables grew, because nothing removed old records.
#[test]
fn every_record_has_a_purge_time_in_every_state() {
    let end = at(LIFETIME + RETENTION);
    let mut logins = [(); 6].map(|()| Login::new());
    logins[1].claim(0);
    logins[2].approve(0);
    logins[3].deny(0);
    logins[4].approve(0);
    let _ = logins[4].poll(0);
    logins[5].approve(0);
    logins[5].withdraw();
    for mut login in logins {
        assert_eq!(login.session().purge_at(), end);
        assert_eq!(login.host.store.purge(end), 1);
        assert!(login.host.store.is_empty());
    }
    // A login with a refresh token is kept until the token can no longer be used, and then for the retention.
    let client = cli().allow_scope(scope("openid offline_access"));
    let mut login = Login::asking(support::policy(), client, "openid+offline_access");
    login.approve(0);
    let _ = login.poll(0);
    let month = 30 * 24 * 3_600_000;
    assert_eq!(login.session().purge_at(), at(month + RETENTION));
}

/// A quota is purged, too: a minute after everything that was taken was given back.
#[test]
fn every_quota_has_a_purge_time() {
    use device_flow::server::RateState;

    let state = RateState::from_millis(login::stored_at(60_000));
    assert_eq!(state.purge_at(), at(120_000));
}

/// `IdentityServer4` #2870: each server of a farm kept its sessions in its own memory, so polls got `invalid_grant` at random.
#[test]
fn servers_that_share_a_store_share_every_login() {
    use device_flow::server::Next;

    // Each server has its own policy, registration and keys. The session reaches the other server in its stored form.
    let mut login = Login::new();
    login.approve(0);
    let stored = serde_json::to_string(login.session()).unwrap();
    let session: Session = serde_json::from_str(&stored).unwrap();
    let stored = Stored {
        pace: None,
        session,
    };
    let (other, body) = (server(), poll_body("client_cli", &login.codes.device_code));
    let mut poll = other.token(post(&body), "", at(1));
    let reply = loop {
        match poll.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&cli()))),
            Next::Load(_, ask) => ask.answer(Ok(Some(&stored))),
            // The change that the second server asks for is written to the record of the first.
            Next::Mint(_, change, ask) => {
                ask.answer(Ok(login.host.store.change(change)), &support::tokens());
            }
            Next::Done(reply) => break reply,
            next => panic!("{next:?}"),
        }
    };
    assert_granted(&reply, "openid profile");
    assert_eq!(login.status(), Status::Active);
    // A server with another store cannot know the code.
    let mut apart = Host::new([cli()]);
    let reply = apart.poll(&server(), &cli(), &login.codes.device_code, at(1));
    assert_invalid_grant(&reply, Cause::UnknownCode);
}

/// The same report: a store that cannot answer does not prove that a code is unknown.
#[test]
fn a_store_that_fails_does_not_end_a_login() {
    let mut login = Login::approved_at(0);
    login.host.fails = Some(Question::Load);
    let reply = login.poll(1).reply;
    assert_eq!(reply.response().status(), 503);
    assert!(!reply.response().body().contains("invalid_grant"));
    login.host.fails = None;
    assert_granted(&login.poll(2).reply, "openid profile");
}

/// fosite's own tests expected `authorization_pending` for a code that had expired an hour ago.
#[test]
fn an_hour_after_expiry_a_code_is_not_pending() {
    let policy = policy_of(PolicyOptions {
        retention: Duration::from_hours(2),
        ..PolicyOptions::default()
    });
    let mut login = Login::of(policy, cli());
    let reply = login.poll(LIFETIME + 3_600_000).reply;
    assert_expired(&reply, Cause::Expired);
    assert!(
        reply
            .response()
            .body()
            .contains(r#""error":"expired_token""#)
    );
}

/// oauth2-rs #218, openid-client #575: servers sent errors with status 200.
#[test]
fn no_error_has_status_200() {
    let mut login = Login::new();
    let mut replies = vec![login.poll(0).reply, login.poll(1000).reply];
    replies.push(login.poll_as(&backend(), 2).reply);
    replies.push(login.poll(LIFETIME).reply);
    let mut denied = Login::new();
    denied.deny(0);
    replies.push(denied.poll(1).reply);
    let mut failing = Login::approved_at(0);
    failing.host.refusal = Some(GrantRefusal::failed());
    replies.push(failing.poll(1).reply);
    let without = Client::new("client_cli", ClientAuthMethod::None).unwrap();
    for (body, found) in [
        ("", None),
        ("client_id=client_cli&client_id=client_cli", Some(cli())),
        ("client_id=client_gone", None),
        ("client_id=client_backend", Some(backend())),
        ("client_id=client_cli", Some(cli().disabled())),
        ("client_id=client_cli", Some(without)),
        ("client_id=client_cli&scope=admin", Some(cli())),
        ("client_id=client_cli&scope=%22", Some(cli())),
    ] {
        let server = server();
        let exchange = server.device_authorization(post(body), "", None, NOW);
        replies.push(Host::new(found).run(exchange));
    }
    for reply in replies {
        assert!(reply.response().status() >= 400);
        assert!(reply.response().body().starts_with(r#"{"error":""#));
    }
}

#[test]
fn a_success_has_no_member_error() {
    let granted = Login::approved_at(0).poll(1).reply;
    for body in [issued(support::policy()), bytes(&granted).2] {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert!(body.get("error").is_none());
    }
}

/// Returns the body of a response to a request for codes.
fn issued(policy: device_flow::server::Policy) -> String {
    let (server, mut host) = (server_of(policy), Host::new([cli()]));
    let request = post("client_id=client_cli");
    let reply = host.run(server.device_authorization(request, "", None, NOW));
    let _ = Codes::of(&reply);
    bytes(&reply).2
}

/// oauth2-rs #191, openid-client #478: servers sent numbers as strings.
#[test]
fn numbers_are_numbers() {
    let body = issued(support::policy());
    assert!(
        body.ends_with(r#""expires_in":300,"interval":5}"#),
        "{body}"
    );
    let mut login = Login::approved_at(0);
    login.host.tokens = support::tokens().expires_in(Duration::from_mins(5));
    let granted = login.poll(1).reply;
    assert!(granted.response().body().contains(r#""expires_in":300"#));
    login = Login::new();
    let _ = login.poll(0);
    let slower = login.poll(1000).reply;
    assert!(slower.response().body().contains(r#""interval":10"#));
}

/// socket-cli #1507: when the server did not send an interval, the client polled in a tight loop. This server always sends it.
#[test]
fn the_interval_is_always_sent() {
    for interval in [1, 5, 60] {
        let options = PolicyOptions {
            interval: Duration::from_secs(interval),
            cap: Duration::from_mins(1),
            ..PolicyOptions::default()
        };
        let body = issued(policy_of(options));
        assert!(
            body.ends_with(&format!(r#","interval":{interval}}}"#)),
            "{body}"
        );
    }
}

/// openclaw PR #103434: the interval in `slow_down` lowered the interval of the client. Here it is never below the one that was sent
/// before.
#[test]
fn the_interval_of_slow_down_is_above_the_one_told_before() {
    for interval in [1, 7, 30, 60] {
        let options = PolicyOptions {
            interval: Duration::from_secs(interval),
            cap: Duration::from_mins(1),
            ..PolicyOptions::default()
        };
        let mut login = Login::of(policy_of(options), cli());
        let mut told = interval;
        let _ = login.poll(0);
        for now in 0..3 {
            if let Some(seconds) = login
                .poll(1000 + now)
                .reply
                .response()
                .header("retry-after")
            {
                let seconds: u64 = seconds.parse().unwrap();
                assert!(seconds >= told && seconds <= 60);
                told = seconds;
            }
        }
    }
}

/// loopover #6792, hyperframes #2836: a 429 ended the login. This server never answers 429 because a poll came too soon.
#[test]
fn polling_fast_is_slow_down_never_429() {
    let mut login = Login::new();
    for now in (0..100).map(|turn| turn * 50) {
        let reply = login.poll(now).reply;
        assert_eq!(reply.response().status(), 400);
        assert!(matches!(
            reply.cause(),
            Cause::Pending | Cause::Repeated | Cause::TooFast
        ));
    }
}

/// ADAL #825: a client polls one last time at the deadline. That poll still gets the tokens of an approval in the last second.
#[test]
fn an_approval_of_the_last_second_is_not_lost() {
    let mut login = Login::new();
    assert_pending(&login.poll(LIFETIME - 2), &pace(LIFETIME - 2, 5, false));
    login.approve(LIFETIME - 1);
    assert_granted(&login.poll(LIFETIME - 2 + 5000).reply, "openid profile");
}

/// Own review: a retry window that was longer than the interval hid a stolen code, because the victim's next poll counted as a duplicate.
/// Here the next poll of the device reveals the theft, whatever the interval is.
#[test]
fn the_next_poll_of_a_device_whose_code_was_stolen_reveals_the_theft() {
    for interval in 2..=60 {
        let options = PolicyOptions {
            interval: Duration::from_secs(interval),
            cap: Duration::from_mins(1),
            ..PolicyOptions::default()
        };
        let mut login = Login::of(policy_of(options), cli());
        let first = i64::try_from(interval).unwrap();
        assert_eq!(login.poll(0).reply.cause(), Cause::Pending);
        // A thief redeems the approved code right after the device has polled. Then the device keeps to its interval.
        login.approve(1);
        assert_granted(&login.poll(2).reply, "openid profile");
        let victim = login.poll(first * 1000);
        assert_eq!(victim.reply.cause(), Cause::Replay, "{interval}");
        assert_eq!(
            login.status(),
            Status::Ended,
            "the thief's login is over, too"
        );
    }
    // No policy allows a retry window that would hide the theft.
    for window in [3750, 5000, 10_000] {
        let options = PolicyOptions {
            retry_window: Some(Duration::from_millis(window)),
            ..PolicyOptions::default()
        };
        assert_eq!(
            Policy::new(PAGE, options).unwrap_err(),
            PolicyError::RetryWindow
        );
    }
}

/// Own review: after a change of the server's key, two sessions had the same code, and the other device got the tokens.
#[test]
fn a_code_that_two_devices_show_after_a_change_of_keys_gives_tokens_to_neither() {
    let old = Server::new(support::policy(), ServerKeys::new(&key(1)).unwrap());
    let keys = ServerKeys::new(&key(2)).unwrap();
    let new = keys.with_previous(&key(1)).unwrap();
    let new = Server::new(support::policy(), new);
    let mut host = Host::new([cli()]);
    let mut devices = Vec::new();
    for (server, device) in [(&old, 1), (&new, 2)] {
        host.entropy.push_back(support::entropy_of(device, 9));
        let request = post("client_id=client_cli");
        let reply = host.run(server.device_authorization(request, "", None, NOW));
        devices.push(Codes::of(&reply));
    }
    assert_eq!(devices[0].user_code, devices[1].user_code);
    let typed = &devices[0].user_code;
    let review = host.claim(&new, &alice(), typed, at(1));
    assert_eq!(review.unwrap_err(), PageError::AmbiguousCode);
    let everything = Consent::to_all();
    for device in &devices {
        let decided = host.run(new.approve(&device.key, &alice(), &everything, at(2)));
        assert_eq!(decided.unwrap_err(), PageError::NotYours);
        let reply = host.poll(&new, &cli(), &device.device_code, at(3));
        assert_eq!(reply.cause(), Cause::Pending);
    }
    // A code that only one device shows is found under either key.
    for (server, seed) in [(&old, 3), (&new, 4)] {
        let codes = host.issue(server, &cli(), seed, NOW);
        host.approve(&new, &alice(), &codes, at(4));
        let reply = host.poll(&new, &cli(), &codes.device_code, at(5));
        assert_granted(&reply, "openid profile");
    }
}
