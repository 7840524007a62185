//! How much is allocated between the first question of an exchange and the last byte of the response: nothing while a device waits, nothing
//! when a client without `Basic` is refused, and little otherwise.
//!
//! `allocation-counter` counts the allocations of the thread. This test is a program of its own, because the counter replaces the allocator
//! of the whole program. Allocations of the store are counted only where a test says so.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use core::hint::black_box;
use core::time::Duration;

use allocation_counter::measure;
use device_flow::digest::SecretDigest;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Exchange, Finish, GrantRefusal, Inserted, Next, PageError,
    PolicyOptions, RateLimit, RateLimited, RateState, Reply, Request, Server, Stored, Take, Tokens,
    Unavailable, Write,
};
use support::login::{LIFETIME, Login, at, bob, pace_of, stored_at};
use support::{
    BACKEND, CLI, FORM, GRANT, NO_CODE, NOW, SECRET, alice, backend, cli, encoded, policy,
    policy_of, poll_body, post, refresh_token, scope, server, server_of,
};

/// Reads the whole response, as a host does that writes it to a socket. Returns the cause.
fn send(reply: &Reply) -> Cause {
    let response = reply.response();
    black_box(response.status());
    for (name, value) in response.headers() {
        black_box((name.len(), value.len()));
    }
    black_box(response.body().as_bytes());
    reply.cause()
}

/// Returns the number of allocations of `what`, and its result.
fn count<T>(what: impl FnOnce() -> T) -> (u64, T) {
    let mut given = None;
    let info = measure(|| given = Some(what()));
    (info.count_total, given.unwrap())
}

/// A host that allocates nothing: it has one client and one session, and writes nothing.
struct Bare<'h> {
    client: Option<&'h Client>,
    stored: Option<&'h Stored>,
    /// The answer to every take.
    taken: Result<(), RateLimited>,
    /// The answer to every guarded write.
    written: Result<Write, Unavailable>,
    entropy: [u8; 48],
    tokens: &'h Tokens<'h>,
    refusal: Option<GrantRefusal>,
}

impl<'h> Bare<'h> {
    fn new(client: Option<&'h Client>, stored: Option<&'h Stored>, tokens: &'h Tokens<'h>) -> Self {
        let mut entropy = [7; 48];
        entropy[0] = 1;
        entropy[47] = 1;
        Self {
            client,
            stored,
            taken: Ok(()),
            written: Ok(Write::Committed),
            entropy,
            tokens,
            refusal: None,
        }
    }

    fn run<'r, T: Finish<'r>>(&self, mut exchange: Exchange<'r, T>) -> T {
        loop {
            match exchange.next() {
                Next::Client(claim, ask) => {
                    black_box(claim.client_id());
                    ask.answer(Ok(self.client));
                }
                Next::Take(take, ask) => {
                    black_box(take.key());
                    ask.answer(Ok(self.taken));
                }
                Next::Load(_, ask) => ask.answer(Ok(self.stored)),
                Next::LoadByUserKey(key, ask) => {
                    let is_it = |stored: &&Stored| stored.session.user_key() == Some(key);
                    ask.answer(Ok(self.stored.filter(is_it)));
                }
                Next::Draw(ask) => ask.answer(Ok(self.entropy.into())),
                Next::Insert(session, ask) => {
                    black_box(session);
                    ask.answer(Ok(Inserted::New));
                }
                Next::Mint(grant, change, ask) => {
                    black_box((grant.scope().as_str().len(), change.expected_version()));
                    match self.refusal {
                        Some(refusal) => ask.refuse(refusal),
                        None => ask.answer(self.written, self.tokens),
                    }
                }
                Next::Change(change, ask) => {
                    black_box(change.expected_version());
                    ask.answer(self.written);
                }
                Next::SavePace(_, pace) => {
                    black_box(pace);
                }
                Next::Done(end) => return end,
            }
        }
    }
}

/// Returns the allocations and the cause of a poll by what the store has, up to the last byte of the response.
fn poll(login: &Login, request: Request<'_>, found: Option<&Client>, now: i64) -> (u64, Cause) {
    let tokens = support::tokens();
    let bare = Bare::new(found, login.host.store.load(&login.codes.key), &tokens);
    poll_over(&bare, &login.server, request, now)
}

fn poll_over(bare: &Bare<'_>, server: &Server, request: Request<'_>, now: i64) -> (u64, Cause) {
    count(|| send(&bare.run(server.token(request, "192.0.2.7", at(now)))))
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
    // The store allocates nothing for saving a pace either.
    let key = login.codes.key;
    let saved = pace_of(20_000, 5, false);
    let (allocations, ()) = count(|| login.host.store.save_pace(&key, saved));
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
    assert_nothing(&login, 1, Cause::Repeated); // C20
    assert_nothing(&login, 1000, Cause::TooFast); // C12
    login.set_pace(pace_of(0, 10, true));
    assert_nothing(&login, 1000, Cause::TooFast); // C13
    // At every interval that the policy can reach.
    for interval in (5..=60).step_by(5) {
        login.set_pace(pace_of(0, interval, false));
        assert_nothing(&login, 1000, Cause::TooFast);
    }
}

#[test]
fn a_refused_poll_allocates_nothing() {
    let login = Login::new();
    assert_nothing(&login, LIFETIME, Cause::Expired); // C7
    let foreign = Client::new("client_other", ClientAuthMethod::None);
    let foreign = foreign.unwrap().allow_device_grant();
    for (client, code, cause) in [
        (&login.client, "short", Cause::MalformedCode),
        (
            &foreign,
            login.codes.device_code.as_str(),
            Cause::ForeignClient,
        ),
    ] {
        let body = poll_body(client.id(), code);
        let counted = poll(&login, post(&body), Some(client), 0);
        assert_eq!(counted, (0, cause));
    }
    let tokens = support::tokens();
    let nothing = Bare::new(Some(&login.client), None, &tokens);
    let body = poll_body(CLI, NO_CODE);
    let counted = poll_over(&nothing, &login.server, post(&body), 0);
    assert_eq!(counted, (0, Cause::UnknownCode)); // C2
    let mut denied = Login::new();
    denied.deny(0);
    assert_nothing(&denied, 1, Cause::Denied); // C6
    let mut revoked = Login::approved_at(0);
    revoked.withdraw();
    assert_nothing(&revoked, 1, Cause::Ended); // C5
    let mut redeemed = Login::approved_at(0);
    let _ = redeemed.poll(0);
    assert_nothing(&redeemed, 1, Cause::Duplicate); // C4
    let approved = Login::approved_at(0);
    assert_nothing(&approved, LIFETIME, Cause::ApprovalExpired); // C8
}

/// The next state of the session is prepared before the outcome is known. The part of it that is shared takes the allocation.
#[test]
fn a_redemption_that_comes_to_nothing_takes_one_allocation_a_try() {
    let login = Login::approved_at(0);
    let stored = login.host.store.load(&login.codes.key);
    let (body, tokens) = (poll_body(CLI, &login.codes.device_code), support::tokens());
    let with = |change: fn(&mut Bare<'_>)| {
        let mut bare = Bare::new(Some(&login.client), stored, &tokens);
        change(&mut bare);
        poll_over(&bare, &login.server, post(&body), 1)
    };
    let unknown = with(|bare| bare.written = Err(Unavailable));
    assert_eq!(unknown, (1, Cause::OutcomeUnknown)); // C19
    let failed = with(|bare| bare.refusal = Some(GrantRefusal::failed()));
    assert_eq!(failed, (1, Cause::MintingFailed)); // C16
    let three_losses = with(|bare| bare.written = Ok(Write::Conflict));
    assert_eq!(three_losses, (3, Cause::Contended)); // C18, each of them
    let gone = with(|bare| bare.refusal = Some(GrantRefusal::consent_gone()));
    assert_eq!(gone, (1, Cause::ConsentGone)); // C15
    let mut redeemed = Login::approved_at(0);
    let _ = redeemed.poll(0);
    let body = poll_body(CLI, &redeemed.codes.device_code);
    let counted = poll(&redeemed, post(&body), Some(&redeemed.client), 60_000);
    assert_eq!(counted, (0, Cause::Replay)); // C4
}

// The form (table A) and the client (table B).

#[test]
fn a_refused_form_allocates_nothing() {
    let login = Login::new();
    let code = NO_CODE;
    let large = format!("a={}", "b".repeat(16 * 1024));
    let many = "a&".repeat(65);
    let form = |body| Request::new("POST", body).content_type(Some(FORM));
    let get = Request::new("GET", b"").content_type(Some(FORM));
    let no_type = Request::new("POST", b"");
    let json = Request::new("POST", b"{}").content_type(Some("application/json"));
    let twice = Request::new("POST", b"").content_type([FORM, FORM]);
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
    let basic_only = ClientAuthMethod::SecretBasic([Some(digest), None]);
    let basic_only = Client::new(BACKEND, basic_only).unwrap();
    let asserts = Client::new(BACKEND, ClientAuthMethod::Assertion).unwrap();
    let no_grant = Client::new(CLI, ClientAuthMethod::None).unwrap();
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

/// Returns the answer of a quota that is spent.
fn spent() -> RateLimited {
    let limit = RateLimit::new(1, Duration::from_mins(1)).unwrap();
    let take: Take = limit.take(device_flow::digest::QuotaKey::of_host("test", &[]), NOW);
    take.apply(Some(RateState::from_millis(stored_at(60_000))))
        .unwrap_err()
}

#[test]
fn a_spent_quota_allocates_nothing() {
    let (server, tokens, client) = (server(), support::tokens(), cli());
    let mut bare = Bare::new(Some(&client), None, &tokens);
    bare.taken = Err(spent());
    // B1
    let body = format!("{}&client_secret=wrong", poll_body(BACKEND, NO_CODE));
    let counted = poll_over(&bare, &server, post(&body), 0);
    assert_eq!(counted, (0, Cause::SecretQuotaSpent));
    // D2
    let request = post("client_id=client_cli");
    let counted = count(|| send(&bare.run(server.device_authorization(request, "", None, NOW))));
    assert_eq!(counted, (0, Cause::IssuingQuotaSpent));
}

/// If an id has escapes, it is decoded into a string of its own.
#[test]
fn an_id_with_escapes_costs_two_allocations_at_most() {
    let client = Client::new("https://app.example.com/", ClientAuthMethod::None);
    let client = client.unwrap().allow_device_grant();
    let body = poll_body(&encoded(client.id()), NO_CODE);
    let tokens = support::tokens();
    let bare = Bare::new(Some(&client), None, &tokens);
    let (allocations, cause) = poll_over(&bare, &server(), post(&body), 0);
    assert_eq!(cause, Cause::UnknownCode);
    assert!(allocations <= 2, "{allocations}");
}

// The page.

/// A typed code is boxed together with its keys. A review also holds its client and its session.
#[test]
fn entering_a_code_takes_few_allocations() {
    let (server, user, client, tokens) = (server(), alice(), cli(), support::tokens());
    let mut claimed = Login::new();
    claimed.claim(0);
    let mut others = Login::new();
    others.claim_by(&bob(), 0);
    let fresh = Login::new();
    let decided = Login::approved_at(0);
    let right = claimed.codes.user_code.clone();
    let spaced = right.to_lowercase().replace('-', " \u{2013} ");
    let cases = [
        (&claimed, right.as_str(), 1, None, 2),
        (&claimed, &spaced, 1, None, 2),
        (&fresh, &right, 1, None, 4), // the user's name, and the `Arc` around it
        (&claimed, "BBBB-BBBB", 1, Some(PageError::UnknownCode), 1),
        (&claimed, "not a code", 1, Some(PageError::MalformedCode), 0),
        (&others, &right, 1, Some(PageError::ClaimedByAnother), 1),
        (&fresh, &right, LIFETIME, Some(PageError::ExpiredCode), 1),
        (&decided, &right, 1, Some(PageError::UsedCode), 1),
    ];
    for (login, typed, now, wanted, wanted_allocations) in cases {
        let stored = login.host.store.load(&login.codes.key);
        let bare = Bare::new(Some(&client), stored, &tokens);
        let (allocations, error) = count(|| {
            let entered = bare.run(server.enter(typed, &user, "", at(now)));
            entered.as_ref().err().copied()
        });
        assert_eq!(
            (allocations, error),
            (wanted_allocations, wanted),
            "{typed:?}"
        );
    }
}

#[test]
fn a_spent_guess_allocates_no_more_than_the_code_that_was_typed() {
    let (server, user, tokens) = (server(), alice(), support::tokens());
    let mut bare = Bare::new(None, None, &tokens);
    bare.taken = Err(spent());
    let (allocations, is_refused) =
        count(|| bare.run(server.enter("BBBB-BBBB", &user, "", NOW)).is_err());
    assert!(is_refused && allocations <= 1, "{allocations}");
}

// Issuing.

/// Returns the allocations and the cause of a request for codes. The insert allocates nothing.
fn issue(server: &Server, client: &Client, body: &str) -> (u64, Cause) {
    let tokens = support::tokens();
    let bare = Bare::new(Some(client), None, &tokens);
    count(|| send(&bare.run(server.device_authorization(post(body), "", None, NOW))))
}

#[test]
fn issuing_takes_two_allocations_at_most() {
    let client = cli();
    let complete = policy_of(PolicyOptions {
        verification_uri_complete: true,
        ..PolicyOptions::default()
    });
    for policy in [policy(), complete] {
        let server = server_of(policy);
        // The body takes one allocation. If the session has a scope of its own, that takes another.
        for (asked, allocations) in [
            ("", 1),                                // the default
            ("&scope=openid+profile+email", 1),     // all
            ("&scope=openid%20profile%20email", 1), // all, escaped
            ("&scope=openid", 2),                   // one of three
            ("&scope=openid+profile", 2),           // a part
            ("&scope=email+admin+openid", 2),       // a part, in another order
        ] {
            let body = format!("client_id=client_cli{asked}");
            let counted = issue(&server, &client, &body);
            assert_eq!(counted, (allocations, Cause::Issued), "{body}");
        }
    }
}

#[test]
fn a_request_for_codes_of_which_nothing_is_allowed_allocates_nothing() {
    let (server, client) = (server(), cli());
    for asked in ["admin", "admin+root", "admin%20root"] {
        let body = format!("client_id=client_cli&scope={asked}");
        let counted = issue(&server, &client, &body);
        assert_eq!(counted, (0, Cause::ScopeNotAllowed), "{asked}"); // D4
    }
}

#[test]
fn a_refused_request_for_codes_allocates_nothing() {
    let server = server();
    let no_default = Client::new(CLI, ClientAuthMethod::None).unwrap();
    let no_default = no_default.allow_device_grant().allow_scope(scope("openid"));
    for (body, cause) in [
        ("client_id=client_cli", Cause::ScopeMissing), // D3
        ("client_id=client_cli&scope=a\"b", Cause::ScopeMalformed), // D4
    ] {
        assert_eq!(issue(&server, &no_default, body), (0, cause));
    }
    let (client, tokens) = (cli(), support::tokens());
    let mut bare = Bare::new(Some(&client), None, &tokens);
    bare.entropy = [0; 48];
    let request = post("client_id=client_cli");
    let counted = count(|| send(&bare.run(server.device_authorization(request, "", None, NOW))));
    assert_eq!(counted, (0, Cause::EntropyBroken)); // D8
}

// Success.

/// The two are the next state of the session and the body of the response.
#[test]
fn a_success_and_a_refresh_take_two_allocations_beyond_their_tokens() {
    let client = cli().allow_scope(scope("openid profile offline_access"));
    let access = "eyJhbGciOiJSUzI1NiJ9.".repeat(50);
    let with_members = Tokens::bearer(&*access)
        .and_then(|tokens| tokens.id_token(&*access))
        .unwrap()
        .expires_in(Duration::from_mins(5));
    let members = with_members
        .clone()
        .member("organization_id", serde_json::json!("org_01"));
    // The name of a member is escaped into a string of its own.
    for (tokens, more) in [
        (support::tokens(), 0),
        (with_members, 0),
        (members.unwrap(), 1),
    ] {
        for asked in ["openid+profile", "openid+offline_access"] {
            let mut login = Login::asking(policy(), client.clone(), asked);
            login.approve(0);
            let bare = Bare::new(
                Some(&client),
                login.host.store.load(&login.codes.key),
                &tokens,
            );
            let body = poll_body(CLI, &login.codes.device_code);
            let counted = poll_over(&bare, &login.server, post(&body), 1);
            assert_eq!(counted, (2 + more, Cause::Granted), "{asked}");
        }
        let mut login = Login::asking(policy(), client.clone(), "openid+offline_access");
        login.approve(0);
        let token = refresh_token(&login.poll(0).reply);
        let bare = Bare::new(
            Some(&client),
            login.host.store.load(&login.codes.key),
            &tokens,
        );
        let body = support::refresh_body(CLI, &token);
        let counted = poll_over(&bare, &login.server, post(&body), 1);
        assert_eq!(counted, (2 + more, Cause::Refreshed));
    }
}

#[test]
fn a_refused_refresh_allocates_nothing_unless_it_ends_the_login() {
    let client = cli().allow_scope(scope("openid offline_access"));
    let mut login = Login::asking(policy(), client.clone(), "openid+offline_access");
    login.approve(0);
    let token = refresh_token(&login.poll(0).reply);
    let tokens = support::tokens();
    for (token, cause) in [
        ("x", Cause::MalformedRefreshToken),
        (&*"A".repeat(107), Cause::MalformedRefreshToken),
        (&*token, Cause::UnknownRefreshToken),
    ] {
        let bare = Bare::new(Some(&client), None, &tokens);
        let body = support::refresh_body(CLI, token);
        let counted = poll_over(&bare, &login.server, post(&body), 1);
        assert_eq!(counted, (0, cause));
    }
    login.withdraw();
    let bare = Bare::new(
        Some(&client),
        login.host.store.load(&login.codes.key),
        &tokens,
    );
    let body = support::refresh_body(CLI, &token);
    let counted = poll_over(&bare, &login.server, post(&body), 1);
    assert_eq!(counted, (0, Cause::Ended));
}

/// If the counter did not count, every other test here would pass.
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
}
