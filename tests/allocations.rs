//! What is allocated between `Form::read` and the last byte of the response: nothing while a device waits and nothing for
//! refusing a client without `Basic`, little for the rest.
//!
//! Counted by the thread, with the allocator of `allocation-counter`. The store's own work is its own, where it says so.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "support/login.rs"]
mod login;
mod support;

use core::hint::black_box;
use core::time::Duration;

use allocation_counter::measure;
use device_flow::digest::SecretDigest;
use device_flow::server::{
    Authentication, Cause, Entered, Entry, Form, Grant, Incoming, Limit, Policy, Polled, Quota,
    Registration, Reply, SecretPlacement, Subject, Written, WrongCode,
};
use device_flow::wire::tokens::Tokens;
use login::{LIFETIME, Login, at, bob, pace_of, stored_at, with_poll_of};
use support::{
    BACKEND, CLI, FORM, GRANT, NO_CODE, NOW, SECRET, alice, backend, builder, cli, encoded, keys,
    policy, poll_body, post, scope,
};

/// Reads the response as a host does that writes it to a socket.
fn send(reply: &Reply) -> Cause {
    let response = reply.response();
    black_box(response.status());
    for (name, value) in response.headers() {
        black_box((name.len(), value.len()));
    }
    black_box(response.body().as_bytes());
    reply.cause()
}

/// The allocations of `what`, and what it gave.
fn count<T>(what: impl FnOnce() -> T) -> (u64, T) {
    let mut given = None;
    let info = measure(|| given = Some(what()));
    (info.count_total, given.unwrap())
}

/// The cause and the allocations of a poll on what the store has, up to the bytes of the response.
fn poll(
    login: &Login,
    incoming: Incoming<'_>,
    found: Option<&Registration>,
    now: i64,
) -> (u64, Cause) {
    let now = at(now);
    let steps = || -> Result<Cause, Reply> {
        let form = Form::read(incoming, &login.policy)?;
        let request = match form.grant()? {
            Grant::DeviceCode(request) => request,
            Grant::Other(form) => return Err(form.unsupported_grant()),
        };
        black_box(request.client_id());
        let mut poll = request.authenticate(found)?;
        let stored = poll.session_key().and_then(|key| login.store.load(key));
        match poll.decide(stored, now) {
            Polled::Reply(reply) => Err(reply),
            Polled::Paced(_, pace, reply) => {
                black_box(pace);
                Err(reply)
            }
            Polled::Redeem(redemption) => Err(redemption.minting_failed()),
        }
    };
    count(|| match steps() {
        Ok(cause) => cause,
        Err(reply) => send(&reply),
    })
}

/// Asserts that a poll of the public client with the code of the login has this cause, and allocates nothing.
#[track_caller]
fn assert_nothing(login: &Login, now: i64, cause: Cause) {
    let body = poll_body(CLI, &login.codes.device_code);
    let counted = poll(login, post(&body), Some(&login.client), now);
    assert_eq!(counted, (0, cause));
}

// The poll.

#[test]
fn a_pending_poll_allocates_nothing() {
    let mut login = Login::new();
    assert_nothing(&login, 0, Cause::Pending); // C10
    login.set_pace(pace_of(10_000, 5, false));
    assert_nothing(&login, 20_000, Cause::Pending); // C11
    assert_nothing(&login, 9000, Cause::Pending); // C9
    login.claim(0);
    assert_nothing(&login, 20_000, Cause::Pending);
    // The store's own saving of a pace, too.
    let key = login.codes.key;
    let saved = pace_of(20_000, 5, false);
    let (allocations, ()) = count(|| login.store.save_pace(&key, saved));
    assert_eq!(allocations, 0);
}

#[test]
fn a_pending_poll_allocates_nothing_however_its_grant_type_and_order_are_written() {
    let login = Login::new();
    let code = &login.codes.device_code;
    let plain = "urn:ietf:params:oauth:grant-type:device_code";
    for body in [
        format!("client_id={CLI}&device_code={code}&grant_type={plain}"),
        format!("device_code={code}&grant_type={GRANT}&client_id={CLI}&scope=openid+profile"),
        format!("{}&resource=a&resource=b&unknown=%20", poll_body(CLI, code)),
        format!(
            "grant_type={}&device_code={code}&client_id={CLI}",
            encoded(plain)
        ),
    ] {
        let counted = poll(&login, post(&body), Some(&login.client), 0);
        assert_eq!(counted, (0, Cause::Pending), "{body}");
    }
}

#[test]
fn a_pending_poll_with_a_secret_in_the_body_allocates_nothing() {
    let login = Login::of(policy(), backend());
    let body = poll_body(BACKEND, &login.codes.device_code);
    let body = format!("{body}&client_secret={SECRET}");
    let counted = poll(&login, post(&body), Some(&login.client), 0);
    assert_eq!(counted, (0, Cause::Pending));
}

#[test]
fn slow_down_allocates_nothing() {
    let mut login = Login::new();
    login.set_pace(pace_of(0, 5, false));
    assert_nothing(&login, 1, Cause::TooFast); // C12
    login.set_pace(pace_of(0, 10, true));
    assert_nothing(&login, 1, Cause::TooFast); // C13
    // At every interval that the policy comes to.
    for interval in (5..=60).step_by(5) {
        login.set_pace(pace_of(0, interval, false));
        assert_nothing(&login, 1, Cause::TooFast);
    }
}

#[test]
fn a_refused_poll_allocates_nothing() {
    let login = Login::new();
    assert_nothing(&login, LIFETIME, Cause::Expired); // C7
    let foreign = Registration::new("client_other", Authentication::Public);
    let foreign = foreign.unwrap().allow_device_grant();
    for (client, code, cause) in [
        (&login.client, NO_CODE, Cause::UnknownCode),
        (&login.client, "short", Cause::MalformedCode),
        (
            &foreign,
            login.codes.device_code.as_str(),
            Cause::ForeignClient,
        ),
    ] {
        let body = poll_body(client.client_id(), code);
        let counted = poll(&login, post(&body), Some(client), 0);
        assert_eq!(counted, (0, cause));
    }
    let mut denied = Login::new();
    denied.deny(0);
    assert_nothing(&denied, 1, Cause::Denied); // C6
    let mut revoked = Login::approved_at(0);
    revoked.withdraw();
    assert_nothing(&revoked, 1, Cause::Revoked); // C5
    let mut redeemed = Login::approved_at(0);
    let _ = redeemed.poll(0);
    assert_nothing(&redeemed, 1, Cause::Duplicate); // C4
    assert_nothing(&redeemed, 60_000, Cause::Replay);
    let approved = Login::approved_at(0);
    assert_nothing(&approved, LIFETIME, Cause::ApprovalExpired); // C8
}

#[test]
fn a_redemption_that_comes_to_nothing_answers_without_an_allocation() {
    let login = Login::approved_at(0);
    let stored = login.store.load(&login.codes.key).unwrap();
    let (code, client) = (&login.codes.device_code, &login.client);
    let tokens = support::tokens();
    let unknown = login.redeem(1, |redemption| {
        count(|| send(&redemption.settle(Written::Unknown, &tokens).unwrap()))
    });
    assert_eq!(unknown, (0, Cause::OutcomeUnknown)); // C19
    let failed = login.redeem(1, |redemption| count(|| send(&redemption.minting_failed())));
    assert_eq!(failed, (0, Cause::MintingFailed)); // C16
    let three_losses = with_poll_of(&login.policy, client, code, |poll| {
        for _ in 0..3 {
            let redemption = login::redemption(poll.decide(Some(stored), at(1)));
            assert!(redemption.settle(Written::Lost, &tokens).is_err());
        }
        count(|| match poll.decide(Some(stored), at(1)) {
            Polled::Reply(reply) => send(&reply),
            Polled::Paced(..) | Polled::Redeem(_) => panic!("a fourth attempt"),
        })
    });
    assert_eq!(three_losses, (0, Cause::LostRace)); // C18
    let revoked = login.redeem(1, |redemption| {
        count(|| {
            let revocation = redemption.revoke();
            let _ = black_box(revocation.change());
            send(&revocation.settle(Written::Won).unwrap())
        })
    });
    assert_eq!(revoked, (0, Cause::ConsentGone)); // C15
    let failed = count(|| send(&Reply::store_failed()));
    assert_eq!(failed, (0, Cause::StoreFailed)); // C1
}

// The form (A) and the client (B).

#[test]
fn a_refused_form_allocates_nothing() {
    let login = Login::new();
    let code = NO_CODE;
    let large = format!("a={}", "b".repeat(16 * 1024));
    let many = "a&".repeat(65);
    let form = |body| Incoming::new("POST", body).content_type(Some(FORM));
    let get = Incoming::new("GET", b"").content_type(Some(FORM));
    let no_type = Incoming::new("POST", b"");
    let json = Incoming::new("POST", b"{}").content_type(Some("application/json"));
    let twice = Incoming::new("POST", b"").content_type([FORM, FORM]);
    let several = format!(
        "{}&client_secret=a&client_assertion=b",
        poll_body(CLI, code)
    );
    let no_client = format!("grant_type={GRANT}&device_code={code}");
    let no_code = format!("grant_type={GRANT}&client_id={CLI}");
    for (incoming, cause) in [
        (get, Cause::MethodNotAllowed),
        (no_type, Cause::MediaType),
        (json, Cause::MediaType),
        (twice, Cause::MediaType),
        (form(b"a=%"), Cause::Encoding),
        (form(b"%zz=a"), Cause::Encoding),
        (form(b"a=\xFF"), Cause::Encoding),
        (post(&large), Cause::BodyTooLarge),
        (post(&many), Cause::TooManyParameters),
        (form(b"scope=a&scope=b"), Cause::RepeatedParameter),
        (form(b"other=a&oth%65r=b"), Cause::RepeatedParameter),
        (form(b""), Cause::GrantTypeMissing),
        (form(b"grant_type=password"), Cause::GrantTypeUnsupported),
        (post(&several), Cause::SeveralCredentials),
        (post(&no_client), Cause::ClientIdMissing),
        (post(&no_code), Cause::DeviceCodeMissing),
    ] {
        let counted = poll(&login, incoming, Some(&login.client), 0);
        assert_eq!(counted, (0, cause));
    }
}

#[test]
fn an_id_or_a_secret_refused_for_its_characters_allocates_nothing() {
    let login = Login::new();
    for octet in ["\u{1}", "%01", "%7F", "%C3%A9", "é"] {
        let id = poll_body(octet, NO_CODE);
        let secret = format!("{}&client_secret={octet}", poll_body(CLI, NO_CODE));
        for body in [id, secret] {
            let counted = poll(&login, post(&body), Some(&login.client), 0);
            assert_eq!(counted, (0, Cause::CredentialCharacters), "{body}");
        }
    }
}

#[test]
fn a_refused_client_without_basic_allocates_nothing() {
    let login = Login::new();
    let digest = SecretDigest::of(SECRET);
    let basic_only = Authentication::Secret {
        digests: [Some(digest), None],
        placement: SecretPlacement::BasicOnly,
    };
    let basic_only = Registration::new(BACKEND, basic_only).unwrap();
    let asserts = Registration::new(BACKEND, Authentication::Assertion).unwrap();
    let no_grant = Registration::new(CLI, Authentication::Public).unwrap();
    let public = poll_body(CLI, NO_CODE);
    let with_secret = format!("{public}&client_secret={SECRET}");
    let confidential = poll_body(BACKEND, NO_CODE);
    let right = format!("{confidential}&client_secret={SECRET}");
    let wrong = format!("{confidential}&client_secret=wrong");
    let assertion = format!("{confidential}&client_assertion=a.b.c");
    for (body, found, cause) in [
        (&public, Some(no_grant), Cause::GrantNotAllowed), // B9
        (&public, None, Cause::UnknownClient),             // B2
        (&right, None, Cause::UnknownClient),
        (&wrong, Some(backend()), Cause::WrongSecret), // B3
        (&confidential, Some(backend()), Cause::CredentialMissing), // B4
        (&with_secret, Some(cli()), Cause::UnexpectedSecret), // B5
        (&right, Some(asserts), Cause::MethodExcluded), // B6
        (&right, Some(basic_only), Cause::MethodExcluded),
        (&assertion, Some(backend()), Cause::MethodExcluded),
        (&public, Some(cli().disabled()), Cause::ClientDisabled), // B7
    ] {
        let counted = poll(&login, post(body), found.as_ref(), 0);
        assert_eq!(counted, (0, cause), "{cause:?}");
    }
}

/// A quota of which nothing is left.
fn spent() -> Quota {
    serde_json::from_value(serde_json::json!(stored_at(3_600_000))).unwrap()
}

#[test]
fn a_spent_quota_allocates_nothing() {
    let (policy, quota) = (policy(), spent());
    // B1
    let body = format!("{}&client_secret=wrong", poll_body(BACKEND, NO_CODE));
    let counted = count(|| {
        let form = Form::read(post(&body), &policy).unwrap();
        let Grant::DeviceCode(request) = form.grant().unwrap() else {
            panic!("another grant")
        };
        black_box(request.secret_quota_key("192.0.2.7"));
        send(&request.check_secret_quota(Some(quota), NOW).unwrap_err())
    });
    assert_eq!(counted, (0, Cause::SecretQuotaSpent));
    // D2
    let client = cli();
    let counted = count(|| {
        let form = Form::read(post("client_id=client_cli"), &policy).unwrap();
        let request = form.device_authorization().unwrap();
        let issuing = request.authenticate(Some(&client)).unwrap();
        let key = issuing.quota_key("192.0.2.7");
        let spent = policy.issuing_limit().take(key, Some(quota), NOW);
        send(&Reply::issuing_quota_spent(spent.unwrap_err()))
    });
    assert_eq!(counted, (0, Cause::IssuingQuotaSpent));
}

/// Where the characters of an id are escaped, they are read into a string of their own.
#[test]
fn an_id_with_escapes_costs_two_allocations_at_most() {
    let client = Registration::new("https://app.example.com/", Authentication::Public);
    let login = Login::of(policy(), cli());
    let client = client.unwrap().allow_device_grant();
    let body = poll_body(&encoded(client.client_id()), NO_CODE);
    let (allocations, cause) = poll(&login, post(&body), Some(&client), 0);
    assert_eq!(cause, Cause::UnknownCode);
    assert!(allocations <= 2, "{allocations}");
}

// The page.

#[test]
fn entering_a_code_allocates_nothing_but_a_claim() {
    let (policy, keys, user) = (policy(), keys().with_previous(support::key(9)), alice());
    let mut claimed = Login::new();
    claimed.claim(0);
    let mut others = Login::new();
    others.claim_by(&bob(), 0);
    let expired = Login::new();
    let decided = Login::approved_at(0);
    let right = claimed.codes.user_code.clone();
    let spaced = right.to_lowercase().replace('-', " \u{2013} ");
    let cases = [
        (&claimed, right.as_str(), 1, None),
        (&claimed, &spaced, 1, None),
        (&claimed, "BBBB-BBBB", 1, Some(WrongCode::Unknown)),
        (&claimed, "not a code", 1, Some(WrongCode::Malformed)),
        (&others, &right, 1, Some(WrongCode::ClaimedByAnother)),
        (&expired, &right, LIFETIME, Some(WrongCode::Expired)),
        (&decided, &right, 1, Some(WrongCode::Decided)),
    ];
    for (login, typed, now, wanted) in cases {
        let counted = count(|| {
            let mut entry = Entry::new(typed, &user, &keys, &policy);
            let quota = login.store.load_quota(entry.quota_key());
            let guess = entry.pay(quota, at(now)).unwrap();
            let _ = black_box(guess.change());
            let paid = guess.settle(Written::Won).unwrap();
            let mut user_keys = paid.user_keys();
            let stored = user_keys.find_map(|key| login.store.load_by_user_key(&key));
            match paid.enter(stored.map(|stored| &stored.session), at(now)) {
                Ok(Entered::Review(review)) => {
                    black_box((review.client_id().len(), review.scope().as_str().len()));
                    black_box((review.age(), review.user_code().canonical().len()));
                    None
                }
                Ok(Entered::Claim(_)) => panic!("nobody had claimed it"),
                Err(wrong) => Some(wrong),
            }
        });
        assert_eq!(counted, (0, wanted));
    }
}

#[test]
fn a_spent_guess_allocates_nothing() {
    let (policy, keys, user) = (policy(), keys(), alice());
    let quota = spent();
    let (allocations, refused) = count(|| {
        let mut entry = Entry::new("BBBB-BBBB", &user, &keys, &policy);
        entry.pay(Some(quota), NOW).is_err()
    });
    assert_eq!((allocations, refused), (0, true));
}

#[test]
fn a_first_claim_allocates_its_claimant() {
    let login = Login::new();
    let (policy, keys) = (policy(), keys());
    let user = Subject::new("alice").unwrap();
    let mut entry = Entry::new(&login.codes.user_code, &user, &keys, &policy);
    let paid = entry.pay(None, NOW).unwrap().settle(Written::Won).unwrap();
    let (allocations, claimed) = count(|| {
        let entered = paid.enter(Some(login.session()), NOW).unwrap();
        matches!(entered, Entered::Claim(_))
    });
    assert!(claimed);
    assert!(allocations <= 2, "{allocations}: the name and its sharing");
}

// Issuing.

/// The allocations of a request for codes, with an insert that costs nothing.
fn issue(policy: &Policy, client: &Registration, body: &str) -> (u64, Cause) {
    let keys = keys();
    count(|| {
        let form = Form::read(post(body), policy).unwrap();
        let request = form.device_authorization().unwrap();
        let mut issuing = request.authenticate(Some(client)).unwrap();
        let issuance = match issuing.draw(support::entropy(1), &keys, NOW) {
            Ok(issuance) => issuance,
            Err(reply) => return send(&reply),
        };
        black_box(issuance.session());
        send(&issuance.settle(device_flow::server::Inserted::New).unwrap())
    })
}

#[test]
fn issuing_takes_three_allocations_at_most() {
    let client = cli();
    let complete = builder().with_verification_uri_complete().build().unwrap();
    for policy in [policy(), complete] {
        for body in [
            "client_id=client_cli",                                // the default
            "client_id=client_cli&scope=openid",                   // one of three
            "client_id=client_cli&scope=openid+profile+email",     // all
            "client_id=client_cli&scope=openid%20profile%20email", // all, escaped
            "client_id=client_cli&scope=openid+profile",           // a part
            "client_id=client_cli&scope=email+admin+openid",       // a part, in another order
        ] {
            let (allocations, cause) = issue(&policy, &client, body);
            assert_eq!(cause, Cause::Issued);
            assert!(allocations <= 3, "{allocations} for {body}");
        }
    }
}

#[test]
fn a_request_for_codes_of_which_nothing_is_allowed_allocates_nothing() {
    let (policy, client) = (policy(), cli());
    for asked in ["admin", "admin+root", "admin%20root"] {
        let body = format!("client_id=client_cli&scope={asked}");
        let counted = issue(&policy, &client, &body);
        assert_eq!(counted, (0, Cause::ScopeNotAllowed), "{asked}"); // D4
    }
}

#[test]
fn a_refused_request_for_codes_allocates_nothing() {
    let policy = policy();
    let no_default = Registration::new(CLI, Authentication::Public).unwrap();
    let no_default = no_default.allow_device_grant().allow_scope(scope("openid"));
    for (body, cause) in [
        ("client_id=client_cli", Cause::ScopeMissing), // D3
        ("client_id=client_cli&scope=a\"b", Cause::ScopeMalformed), // D4
    ] {
        assert_eq!(issue(&policy, &no_default, body), (0, cause));
    }
    let (client, keys) = (cli(), keys());
    let form = Form::read(post("client_id=client_cli"), &policy).unwrap();
    let request = form.device_authorization().unwrap();
    let mut issuing = request.authenticate(Some(&client)).unwrap();
    let counted = count(|| match issuing.draw([0; 48].into(), &keys, NOW) {
        Ok(_) => panic!("blank entropy"),
        Err(reply) => send(&reply),
    });
    assert_eq!(counted, (0, Cause::EntropyBroken)); // D8
}

// Success.

#[test]
fn a_success_takes_three_allocations_beyond_its_tokens() {
    let login = Login::approved_at(0);
    let refresh = "8xLOxBtZp8".repeat(8);
    let access = "eyJhbGciOiJSUzI1NiJ9.".repeat(50);
    let member = serde_json::json!("org_01");
    let with_members = Tokens::bearer(&access)
        .and_then(|tokens| tokens.refresh_token(&refresh))
        .and_then(|tokens| tokens.id_token(&access))
        .unwrap()
        .expires_in(Duration::from_mins(5));
    let members = with_members.clone().member("organization_id", &member);
    let client = &login.client;
    let body = poll_body(CLI, &login.codes.device_code);
    for tokens in [support::tokens(), with_members, members.unwrap()] {
        let counted = count(|| {
            let form = Form::read(post(&body), &login.policy).unwrap();
            let Grant::DeviceCode(request) = form.grant().unwrap() else {
                panic!("another grant")
            };
            let mut poll = request.authenticate(Some(client)).unwrap();
            let stored = poll.session_key().and_then(|key| login.store.load(key));
            let redemption = login::redemption(poll.decide(stored, at(1)));
            black_box(redemption.approval().scope().as_str().len());
            let _ = black_box(redemption.change());
            send(&redemption.settle(Written::Won, &tokens).unwrap())
        });
        let (allocations, cause) = counted;
        assert_eq!(cause, Cause::Granted);
        assert!(allocations <= 3, "{allocations}");
    }
}

/// The counter counts: else every other test here would hold of anything.
#[test]
fn the_counter_counts() {
    let (none, ()) = count(|| ());
    assert_eq!(none, 0);
    let (one, _) = count(|| black_box(Box::new(1)));
    assert_eq!(one, 1);
    let (grown, _) = count(|| {
        let mut grows = Vec::with_capacity(1);
        grows.extend_from_slice(black_box(&[0_u8; 100]));
        black_box(grows)
    });
    assert_eq!(grown, 2, "growing counts again");
    let limit = Limit::new(1, Duration::from_secs(1)).unwrap();
    let (none, ()) = count(|| limit.check(None, NOW).unwrap());
    assert_eq!(none, 0);
}
