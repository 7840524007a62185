//! Table R of the server half, row by row: the refresh and the revocation of a login.
//!
//! Defaults: 30 days idle, no absolute end, a grace of 30 s, 20 refreshes at once and then one a minute.

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::server::{
    Cause, Client, Consent, GrantRefusal, Next, Policy, PolicyError, PolicyOptions, RateLimit,
    RefreshOptions, Reply, Server, ServerKeys, Status,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::login::{
    LIFETIME, Login, RETENTION, assert_granted, assert_invalid_grant, at, bytes, stored_at,
};
use crate::support::{
    self, Host, PAGE, Question, Says, alice, assert_refused, assert_reply, assert_unavailable,
    backend, cli, error_body, key, policy, policy_of, refresh_token, scope, server, with_refresh,
};

const SECOND: i64 = 1000;
const GRACE: i64 = 30 * SECOND;
const DAY: i64 = 24 * 3600 * SECOND;
const IDLE: i64 = 30 * DAY;

/// Returns a client that may ask for offline access.
fn client() -> Client {
    cli().allow_scope(scope("openid profile email offline_access"))
}

/// A login whose device has its tokens, and the first refresh token.
struct Active {
    login: Login,
    first: String,
}

impl Active {
    /// Returns a login under the default policy, which was redeemed at 0.
    fn new() -> Self {
        Self::of(policy())
    }

    fn of(policy: Policy) -> Self {
        Self::asking(policy, "openid+profile+offline_access")
    }

    fn asking(policy: Policy, scope: &str) -> Self {
        let mut login = Login::asking(policy, client(), scope);
        login.approve(0);
        let granted = login.poll(0).reply;
        let scope = scope.replace('+', " ");
        Self {
            first: assert_tokens(&granted, Cause::Granted, &scope),
            login,
        }
    }

    fn refresh(&mut self, token: &str, now: i64) -> Reply {
        let client = self.login.client.clone();
        self.refresh_as(&client, token, now)
    }

    fn refresh_as(&mut self, client: &Client, token: &str, now: i64) -> Reply {
        let login = &mut self.login;
        login.host.clients.retain(|own| own.id() != client.id());
        login.host.clients.push(client.clone());
        login.host.refresh(&login.server, client, token, at(now))
    }

    fn refresh_for(&mut self, token: &str, scope: &str, now: i64) -> Reply {
        let login = &mut self.login;
        let body = format!(
            "{}&scope={scope}",
            support::refresh_body(login.client.id(), token)
        );
        login
            .host
            .token(&login.server, &login.client, &body, at(now))
    }

    /// Refreshes with this token. Asserts that this succeeds with the whole granted scope, and that the digest of the next token is stored.
    /// Returns the next token.
    #[track_caller]
    fn next(&mut self, token: &str, now: i64) -> String {
        let reply = self.refresh(token, now);
        let granted = self.login.session().granted().unwrap().to_string();
        let next = assert_tokens(&reply, Cause::Refreshed, &granted);
        assert_eq!(self.stored()["current"], digest_of(&next));
        next
    }

    /// Returns what is stored about the refresh tokens.
    fn stored(&self) -> Value {
        self.login.form()["state"]["active"]["refresh"].clone()
    }

    fn revoke(&mut self, token: &str, now: i64) -> Reply {
        let login = &mut self.login;
        login
            .host
            .revoke(&login.server, &login.client, token, at(now))
    }

    fn status(&self) -> Status {
        self.login.status()
    }

    fn wrote(&self) -> bool {
        self.login.host.count(Question::Change) > 0
    }

    fn looked_up(&self) -> bool {
        self.login.host.count(Question::Load) > 0
    }

    /// Runs `what` and asserts that it changes nothing that is stored. Returns its result.
    #[track_caller]
    fn unchanged<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let had = self.login.form();
        let result = what(self);
        assert_eq!(self.login.form(), had);
        result
    }

    /// Runs `what` and asserts that it ends the login at this moment: the record keeps the approval and nothing about the tokens. Returns
    /// its result.
    #[track_caller]
    fn ends<T>(&mut self, now: i64, what: impl FnOnce(&mut Self) -> T) -> T {
        let mut wanted = self.login.form();
        let approval = wanted["state"]["active"]["approval"].take();
        wanted["state"] = json!({ "ended": approval });
        wanted["version"] = json!(self.login.session().version() + 1);
        wanted["purge_at"] = json!(stored_at(now.max(LIFETIME) + RETENTION));
        let result = what(self);
        assert_eq!(self.login.form(), wanted);
        result
    }

    fn octets(&self) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(&self.first).unwrap()
    }
}

/// Asserts the whole of a success with a refresh token. Returns the token.
#[track_caller]
fn assert_tokens(reply: &Reply, cause: Cause, scope: &str) -> String {
    let token = refresh_token(reply);
    let access = support::ACCESS_TOKEN;
    let body = format!(
        r#"{{"access_token":"{access}","token_type":"Bearer","refresh_token":"{token}","scope":"{scope}"}}"#
    );
    assert_reply(reply, cause, 200, &[], &body);
    token
}

/// Returns what is stored of a token: the SHA-256 of its secret.
fn digest_of(token: &str) -> Value {
    let octets = URL_SAFE_NO_PAD.decode(token).unwrap();
    json!(URL_SAFE_NO_PAD.encode(Sha256::digest(&octets[32..64])))
}

/// Asserts the response `invalid_grant` of a refresh, which is the same for every cause.
#[track_caller]
fn assert_invalid(reply: &Reply, cause: Cause) {
    assert_refused(
        reply,
        cause,
        "invalid_grant",
        "the refresh token is not valid",
    );
}

#[track_caller]
fn assert_done(reply: &Reply, cause: Cause) {
    assert_reply(reply, cause, 200, &[], "");
}

// The token.

#[test]
fn r_a_redemption_yields_an_opaque_token_of_107_characters_and_the_record_holds_no_part_of_it() {
    let active = Active::new();
    assert_eq!(active.first.len(), 107);
    let octets = active.octets();
    assert_eq!(&octets[..32], active.login.codes.key.as_bytes());
    let form = active.login.form().to_string();
    assert!(!form.contains(&active.first));
    assert!(!form.contains(&URL_SAFE_NO_PAD.encode(&octets[32..64])));
    let wanted = json!({
        "current": digest_of(&active.first),
        "previous": null,
        "rotated_at": stored_at(0),
        "until": stored_at(IDLE),
    });
    assert_eq!(active.stored(), wanted);
}

#[test]
fn r_only_offline_access_yields_a_refresh_token() {
    let mut login = Login::asking(policy(), client(), "openid+profile");
    login.approve(0);
    assert_granted(&login.poll(0).reply, "openid profile");
    assert_eq!(login.host.count(Question::Draw), 0);
    assert_eq!(login.form()["state"]["active"]["refresh"], json!(null));
}

#[test]
fn r_offline_access_that_the_user_or_the_registration_refuses_yields_none() {
    // The user allows everything except offline access.
    let mut login = Login::asking(policy(), client(), "openid+offline_access");
    login.claim(0);
    let consent = Consent::to(scope("openid"));
    login.consent_by(&alice(), &consent, 0).unwrap();
    assert_granted(&login.poll(0).reply, "openid");
    assert_eq!(login.form()["state"]["active"]["refresh"], json!(null));
    // The client lost offline access between the approval and the redemption.
    let mut login = Login::asking(policy(), client(), "openid+offline_access");
    login.approve(0);
    assert_granted(&login.poll_as(&cli(), 0).reply, "openid");
    assert_eq!(login.form()["state"]["active"]["refresh"], json!(null));
}

#[test]
fn r_the_policy_names_the_scope_that_yields_one() {
    let policy = policy_of(with_refresh(RefreshOptions {
        scope: "email".into(),
        ..RefreshOptions::default()
    }));
    let mut active = Active::asking(policy, "openid+email");
    let first = active.first.clone();
    let _ = active.next(&first, 1);
    for wrong in ["", "two tokens", "a\"b"] {
        let refused = Policy::new(
            PAGE,
            with_refresh(RefreshOptions {
                scope: wrong.into(),
                ..RefreshOptions::default()
            }),
        );
        assert_eq!(refused.unwrap_err(), PolicyError::RefreshScope);
    }
}

#[test]
fn r_a_host_with_refresh_tokens_of_its_own_switches_those_of_the_core_off() {
    let policy = policy_of(PolicyOptions {
        refresh: None,
        ..PolicyOptions::default()
    });
    let mut login = Login::asking(policy, client(), "openid+offline_access");
    login.approve(0);
    login.host.tokens = support::tokens().refresh_token("of the host").unwrap();
    let reply = login.poll(0).reply;
    assert_eq!(refresh_token(&reply), "of the host");
    let refused = login
        .host
        .refresh(&login.server, &client(), "of the host", at(1));
    assert_refused(
        &refused,
        Cause::GrantTypeUnsupported,
        "unsupported_grant_type",
        "this grant type is not supported",
    );
    // Such a server does not revoke a refresh token of the crate either.
    let token = Active::new().first;
    let revoked = login.host.revoke(&login.server, &client(), &token, at(1));
    assert_done(&revoked, Cause::NothingToRevoke);
}

#[test]
fn r_lifetimes_and_grace_are_bounded() {
    let minute = Duration::from_mins(1);
    let year = Duration::from_hours(366 * 24);
    for (options, error) in [
        (
            with_refresh(RefreshOptions {
                idle: minute,
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshLifetime,
        ),
        (
            with_refresh(RefreshOptions {
                idle: year * 11,
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshLifetime,
        ),
        (
            with_refresh(RefreshOptions {
                absolute: Some(minute),
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshLifetime,
        ),
        (
            with_refresh(RefreshOptions {
                grace: minute * 6,
                ..RefreshOptions::default()
            }),
            PolicyError::RefreshGrace,
        ),
    ] {
        assert_eq!(Policy::new(PAGE, options).unwrap_err(), error);
    }
}

// R1: `refresh_token` is absent.

#[test]
fn r1_a_refresh_without_its_token_is_invalid_request() {
    let mut active = Active::new();
    for body in ["", "&refresh_token="] {
        let body = format!("grant_type=refresh_token&client_id=client_cli{body}");
        let login = &mut active.login;
        let reply = login.host.token(&login.server, &client(), &body, at(1));
        assert_refused(
            &reply,
            Cause::RefreshTokenMissing,
            "invalid_request",
            "refresh_token is missing",
        );
        assert!(login.host.asked.is_empty());
    }
}

// R2: this server did not make the token, or the login is gone.

#[test]
fn r2_a_token_that_this_server_did_not_make_is_refused_without_a_look_up() {
    let mut active = Active::new();
    let first = active.first.clone();
    let octets = active.octets();
    let mut made_up = vec![
        "x".to_owned(),
        first[1..].to_owned(),
        format!("{first}A"),
        "A".repeat(107),
        "A".repeat(16_000),
        first.replace(['-', '_'], "+").to_lowercase(),
        format!("{first}%3D"),
        format!("%20{}", &first[1..]),
    ];
    assert_eq!(octets.len(), 80);
    for bit in 0..octets.len() * 8 {
        let mut altered = octets.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        made_up.push(URL_SAFE_NO_PAD.encode(altered));
    }
    for token in made_up {
        active.unchanged(|active| {
            let reply = active.refresh(&token, 1);
            assert_invalid(&reply, Cause::MalformedRefreshToken);
            assert_eq!(active.login.host.asked, [Question::Client]);
        });
    }
    let _ = active.next(&first, 2);
}

/// Two bits of the last of the 107 characters have no meaning. Nevertheless, only one spelling of a token is valid.
#[test]
fn r2_another_spelling_of_the_same_octets_is_not_the_token() {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut active = Active::new();
    let first = active.first.clone();
    let (head, last) = first.split_at(106);
    let place = ALPHABET.find(last).unwrap();
    assert_eq!(place % 4, 0);
    for other in 1..4 {
        let token = format!("{head}{}", &ALPHABET[place + other..=place + other]);
        assert_invalid(&active.refresh(&token, 1), Cause::MalformedRefreshToken);
    }
    // Percent escapes belong to the form, and are decoded first.
    let escaped = support::encoded(&first);
    let reply = active.refresh(&escaped, 1);
    assert_eq!(reply.cause(), Cause::Refreshed);
}

#[test]
fn r2_a_token_under_another_key_of_the_server_is_not_ours() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.server = Server::new(policy(), ServerKeys::new(&key(8)).unwrap());
    assert_invalid(&active.refresh(&first, 1), Cause::MalformedRefreshToken);
    // With the previous key, the server knows the token as its own. It makes the next token with the current key.
    let both = ServerKeys::new(&key(8)).unwrap().with_previous(&key(7));
    active.login.server = Server::new(policy(), both.unwrap());
    let second = active.next(&first, 1);
    active.login.server = Server::new(policy(), ServerKeys::new(&key(8)).unwrap());
    let _ = active.next(&second, 2);
}

#[test]
fn r2_a_purged_login_is_unknown() {
    let mut active = Active::new();
    let first = active.first.clone();
    let purge_at = active.login.session().purge_at();
    assert_eq!(purge_at, at(IDLE + RETENTION));
    assert_eq!(active.login.host.store.purge(purge_at), 1);
    assert_invalid(&active.refresh(&first, 1), Cause::UnknownRefreshToken);
}

// R3: the token was issued to another client.

#[test]
fn r3_another_client_learns_nothing_and_burns_nothing() {
    let mut active = Active::new();
    let first = active.first.clone();
    let other = backend().allow_scope(scope("openid profile offline_access"));
    // This is called while the token is in force, after its expiry, after it was replaced once (within the grace and after it) and twice,
    // and after the login has ended.
    let assert_foreign = |active: &mut Active, now: i64| {
        active.unchanged(|active| {
            let reply = active.refresh_as(&other, &first, now);
            assert_invalid(&reply, Cause::ForeignClient);
            assert!(!active.wrote());
            let unknown = active.refresh_as(&other, "x", now);
            assert_invalid(&unknown, Cause::MalformedRefreshToken);
            assert_eq!(bytes(&reply), bytes(&unknown));
        });
    };
    assert_foreign(&mut active, 1);
    assert_foreign(&mut active, IDLE);
    let second = active.next(&first, 2);
    assert_foreign(&mut active, 3);
    assert_foreign(&mut active, 2 + GRACE);
    let third = active.next(&second, 4);
    assert_foreign(&mut active, 5);
    let _ = active.next(&third, 6);
    active.login.withdraw_by(&alice(), 7).unwrap();
    assert_foreign(&mut active, 8);
}

// R4: the login is not active.

#[test]
fn r4_a_login_that_was_ended_is_not_refreshed() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.withdraw_by(&alice(), 1).unwrap();
    active.unchanged(|active| {
        assert_invalid(&active.refresh(&first, 2), Cause::Ended);
        assert!(!active.wrote());
    });
}

// R5: the login was not refreshed for too long, or is too old.

#[test]
fn r5_the_idle_end_counts_from_the_last_rotation() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, IDLE - 1);
    let third = active.next(&second, 2 * IDLE - 2);
    let end = 3 * IDLE - 2;
    active.ends(end, |active| {
        assert_invalid(&active.refresh(&third, end), Cause::LoginExpired);
    });
}

#[test]
fn r5_the_absolute_end_counts_from_the_redemption() {
    let day = Duration::from_hours(24);
    let policy = policy_of(with_refresh(RefreshOptions {
        absolute: Some(day),
        ..RefreshOptions::default()
    }));
    let mut active = Active::of(policy);
    let first = active.first.clone();
    let second = active.next(&first, DAY / 2);
    let third = active.next(&second, DAY - 1);
    assert_eq!(active.stored()["until"], json!(stored_at(DAY)));
    active.ends(DAY, |active| {
        assert_invalid(&active.refresh(&third, DAY), Cause::LoginExpired);
    });
}

#[test]
fn r5_an_expired_login_is_no_reuse_whichever_token_is_sent() {
    let mut active = Active::new();
    let first = active.first.clone();
    let _ = active.next(&first, 0);
    active.ends(IDLE, |active| {
        assert_invalid(&active.refresh(&first, IDLE), Cause::LoginExpired);
    });
}

#[test]
fn r5_an_absolute_end_that_was_shortened_holds_for_older_logins() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 2 * DAY);
    let day = Duration::from_hours(24);
    active.login.server = support::server_of(policy_of(with_refresh(RefreshOptions {
        absolute: Some(day),
        ..RefreshOptions::default()
    })));
    assert_invalid(&active.refresh(&second, 2 * DAY + 1), Cause::LoginExpired);
}

// R6: the token is older than the previous one.

#[test]
fn r6_a_token_from_two_rotations_ago_ends_the_login_even_within_the_grace() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 1);
    let third = active.next(&second, 2);
    active.ends(3, |active| {
        assert_invalid(&active.refresh(&first, 3), Cause::Reuse);
        assert_eq!(
            active.login.host.asked,
            [Question::Client, Question::Load, Question::Change]
        );
    });
    for token in [first, second, third] {
        assert_invalid(&active.refresh(&token, 4), Cause::Ended);
    }
}

// R7: the previous token, within the grace.

#[test]
fn r7_the_token_before_is_good_within_the_grace() {
    for moment in [0, 1, GRACE - 1] {
        let mut active = Active::new();
        let first = active.first.clone();
        let lost = active.next(&first, 1000);
        let mut wanted = active.login.form();
        let version = active.login.session().version();
        let kept = active.next(&first, 1000 + moment);
        assert_ne!(lost, kept, "another successor");
        wanted["version"] = json!(version + 1);
        let until = 1000 + moment + IDLE;
        wanted["purge_at"] = json!(stored_at(until + RETENTION));
        wanted["state"]["active"]["refresh"] = json!({
            "current": digest_of(&kept),
            "previous": digest_of(&first),
            "rotated_at": stored_at(1000),
            "until": stored_at(until),
        });
        assert_eq!(active.login.form(), wanted);
        let _ = active.next(&kept, 1001 + moment);
    }
}

#[test]
fn r7_the_one_that_was_in_force_becomes_void() {
    let mut active = Active::new();
    let first = active.first.clone();
    let void = active.next(&first, 0);
    let _ = active.next(&first, 1);
    active.ends(2, |active| {
        assert_invalid(&active.refresh(&void, 2), Cause::Reuse);
    });
}

#[test]
fn r7_the_grace_runs_from_the_first_use_however_often_it_is_sent_again() {
    let mut active = Active::new();
    let first = active.first.clone();
    for turn in 0..3 {
        let _ = active.next(&first, turn * 10 * SECOND);
    }
    assert_invalid(&active.refresh(&first, GRACE), Cause::Reuse);
}

#[test]
fn r7_a_clock_that_went_back_keeps_the_grace_and_the_record() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 100 * SECOND);
    let _ = active.next(&first, 0);
    // The record can be read again, although the clock went back.
    let session: device_flow::server::Session =
        serde_json::from_value(active.login.form()).unwrap();
    assert_eq!(session.refreshed_at(), Some(at(100 * SECOND)));
    assert_invalid(&active.refresh(&second, 0), Cause::Reuse);
}

#[test]
fn r10_a_clock_that_went_back_takes_no_time_from_the_login() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 100 * SECOND);
    let third = active.next(&second, 0);
    let wanted = json!({
        "current": digest_of(&third),
        "previous": digest_of(&second),
        "rotated_at": stored_at(100 * SECOND),
        "until": stored_at(100 * SECOND + IDLE),
    });
    assert_eq!(active.stored(), wanted);
    serde_json::from_value::<device_flow::server::Session>(active.login.form()).unwrap();
    // The previous token is valid until the clock has caught up and the grace is over.
    let kept = active.next(&second, 100 * SECOND + GRACE - 1);
    let _ = active.next(&kept, 100 * SECOND + GRACE);
}

#[test]
fn r7_a_thief_and_the_owner_who_both_refresh_end_the_login() {
    // It does not matter who refreshes first. The next refresh with the token that became void ends the login for both.
    let mut active = Active::new();
    let stolen = active.first.clone();
    let thief = active.next(&stolen, 0);
    let owner = active.next(&stolen, 1);
    assert_invalid(&active.refresh(&thief, 2), Cause::Reuse);
    assert_invalid(&active.refresh(&owner, 3), Cause::Ended);
}

// R8: the previous token, after the grace.

#[test]
fn r8_the_token_before_ends_the_login_after_the_grace() {
    for moment in [GRACE, GRACE + 1, DAY] {
        let mut active = Active::new();
        let first = active.first.clone();
        let second = active.next(&first, 1000);
        active.ends(1000 + moment, |active| {
            let reply = active.refresh(&first, 1000 + moment);
            assert_invalid(&reply, Cause::Reuse);
            assert_eq!(active.login.host.count(Question::Mint), 0);
        });
        assert_invalid(&active.refresh(&second, 1001 + moment), Cause::Ended);
    }
}

#[test]
fn r8_without_a_grace_the_token_before_is_never_good() {
    let policy = policy_of(with_refresh(RefreshOptions {
        grace: Duration::ZERO,
        ..RefreshOptions::default()
    }));
    let mut active = Active::of(policy);
    let first = active.first.clone();
    let _ = active.next(&first, 1);
    active.ends(1, |active| {
        assert_invalid(&active.refresh(&first, 1), Cause::Reuse);
    });
}

#[test]
fn r8_a_reuse_that_lost_its_write_to_the_owner_ends_the_login_all_the_same() {
    let mut active = Active::of(strict());
    let first = active.first.clone();
    let second = active.next(&first, 1);
    rival(&mut active, second, strict, 1);
    assert_invalid(&active.refresh(&first, 1), Cause::Reuse);
    assert_eq!(active.login.host.count(Question::Change), 2);
    assert_eq!(active.status(), Status::Ended);
}

/// Returns a policy without a grace.
fn strict() -> Policy {
    policy_of(with_refresh(RefreshOptions {
        grace: Duration::ZERO,
        ..RefreshOptions::default()
    }))
}

// R9: `scope` asks for more than was granted, or is malformed.

/// > The requested scope MUST NOT include any scope not originally granted by the resource owner (RFC 6749, section 6)
#[test]
fn r9_a_wider_or_a_malformed_scope_burns_nothing() {
    let mut active = Active::new();
    let first = active.first.clone();
    for (wrong, cause, description) in [
        (
            "openid+email",
            Cause::ScopeNotAllowed,
            "the scope is not allowed",
        ),
        ("admin", Cause::ScopeNotAllowed, "the scope is not allowed"),
        (
            "openid++profile",
            Cause::ScopeMalformed,
            "scope is malformed",
        ),
        ("%22", Cause::ScopeMalformed, "scope is malformed"),
    ] {
        active.unchanged(|active| {
            let reply = active.refresh_for(&first, wrong, 1);
            assert_refused(&reply, cause, "invalid_scope", description);
            assert_eq!(
                active.login.host.asked,
                [Question::Client, Question::Load],
                "no quota is taken from"
            );
        });
    }
    // > if omitted is treated as equal to the scope originally granted by the resource owner (RFC 6749, section 6)
    let reply = active.refresh_for(&first, "", 2);
    assert_tokens(&reply, Cause::Refreshed, "openid profile offline_access");
}

#[test]
fn r9_a_wrong_scope_with_the_token_before_burns_nothing_either() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 0);
    active.unchanged(|active| {
        let reply = active.refresh_for(&first, "admin", GRACE - 1);
        assert_eq!(reply.cause(), Cause::ScopeNotAllowed);
    });
    let _ = active.next(&second, GRACE);
}

#[test]
fn r9_a_reuse_with_a_wrong_scope_is_a_reuse_all_the_same() {
    let mut active = Active::new();
    let first = active.first.clone();
    let _ = active.next(&first, 0);
    active.ends(GRACE, |active| {
        assert_invalid(&active.refresh_for(&first, "admin", GRACE), Cause::Reuse);
    });
}

// R10: the token in force.

#[test]
fn r10_the_token_in_force_is_rotated_by_one_guarded_write() {
    let mut active = Active::new();
    let first = active.first.clone();
    let mut wanted = active.login.form();
    wanted["version"] = json!(active.login.session().version() + 1);
    let second = active.next(&first, 5000);
    assert_ne!(first, second);
    let order = [
        Question::Client,
        Question::Load,
        Question::Take,
        Question::Draw,
        Question::Mint,
        Question::Change,
    ];
    assert_eq!(active.login.host.asked, order);
    let granted = "openid profile offline_access".to_owned();
    assert_eq!(active.login.host.minted.last(), Some(&(granted, true)));
    wanted["purge_at"] = json!(stored_at(5000 + IDLE + RETENTION));
    wanted["state"]["active"]["refresh"] = json!({
        "current": digest_of(&second),
        "previous": digest_of(&first),
        "rotated_at": stored_at(5000),
        "until": stored_at(5000 + IDLE),
    });
    assert_eq!(active.login.form(), wanted);
    assert_eq!(active.login.session().refreshed_at(), Some(at(5000)));
    assert_eq!(active.login.session().redeemed_at(), Some(at(0)));
    let _ = active.next(&second, 6000);
}

#[test]
fn r10_a_narrower_scope_narrows_the_access_token_alone() {
    let mut active = Active::new();
    let first = active.first.clone();
    let reply = active.refresh_for(&first, "openid", 1);
    let second = assert_tokens(&reply, Cause::Refreshed, "openid");
    let narrowed = ("openid".to_owned(), true);
    assert_eq!(active.login.host.minted.last(), Some(&narrowed));
    let _ = active.next(&second, 2);
}

#[test]
fn r10_what_a_client_lost_is_not_refreshed() {
    let mut active = Active::new();
    let first = active.first.clone();
    let narrowed = cli().allow_scope(scope("openid offline_access"));
    let reply = active.refresh_as(&narrowed, &first, 1);
    let second = assert_tokens(&reply, Cause::Refreshed, "openid offline_access");
    // The scope that is asked for is narrowed in the same way. If the client asks only for what it lost, the scope is not allowed.
    active.login.client = narrowed;
    active.unchanged(|active| {
        let reply = active.refresh_for(&second, "profile", 2);
        let description = "the scope is not allowed";
        assert_refused(&reply, Cause::ScopeNotAllowed, "invalid_scope", description);
    });
    let reply = active.refresh_for(&second, "profile+openid", 2);
    let third = assert_tokens(&reply, Cause::Refreshed, "openid");
    // The granted scope is kept. When the client may ask for all of it again, it gets all of it.
    active.login.client = client();
    let _ = active.next(&third, 3);
}

#[test]
fn r10_a_confidential_client_authenticates_first() {
    let client = backend().allow_scope(scope("openid offline_access"));
    let mut login = Login::asking(policy(), client.clone(), "openid+offline_access");
    login.approve(0);
    let first = refresh_token(&login.poll_as(&client, 0).reply);
    let body = support::refresh_body(client.id(), &first);
    let reply = login
        .host
        .run(login.server.token(support::post(&body), "", at(1)));
    support::assert_invalid_client(&reply, Cause::CredentialMissing);
    let reply = login.host.refresh(&login.server, &client, &first, at(2));
    assert_tokens(&reply, Cause::Refreshed, "openid offline_access");
}

#[test]
fn r10_a_client_without_the_device_grant_is_not_refreshed() {
    let mut active = Active::new();
    let first = active.first.clone();
    let method = device_flow::server::ClientAuthMethod::None;
    let lost = Client::new("client_cli", method)
        .unwrap()
        .allow_scope(scope("openid"));
    active.unchanged(|active| {
        let reply = active.refresh_as(&lost, &first, 1);
        let description = "the client may not use this grant";
        assert_refused(
            &reply,
            Cause::GrantNotAllowed,
            "unauthorized_client",
            description,
        );
        assert!(!active.looked_up());
    });
}

// R11: the subject or the consent is no longer valid, or the client may no longer ask for anything that was granted.

#[test]
fn r11_a_subject_that_is_gone_ends_the_login() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.host.refusal = Some(GrantRefusal::consent_gone());
    active.ends(1, |active| {
        assert_invalid(&active.refresh(&first, 1), Cause::ConsentGone);
    });
}

#[test]
fn r11_a_client_that_lost_all_that_was_granted_ends_the_login() {
    let mut active = Active::new();
    let first = active.first.clone();
    let lost = cli().allow_scope(scope("email"));
    active.ends(1, |active| {
        let reply = active.refresh_as(&lost, &first, 1);
        assert_invalid(&reply, Cause::ConsentGone);
        assert_eq!(active.login.host.count(Question::Mint), 0);
    });
}

// R12: minting failed.

#[test]
fn r12_a_failure_to_mint_is_503_and_the_token_stays_good() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.host.refusal = Some(GrantRefusal::failed());
    active.unchanged(|active| {
        assert_unavailable(&active.refresh(&first, 1), Cause::MintingFailed);
        assert!(!active.wrote());
    });
    let error = GrantRefusal::error("use_dpop_nonce", "a nonce is required").unwrap();
    active.login.host.refusal = Some(error);
    active.unchanged(|active| {
        let body = error_body("use_dpop_nonce", "a nonce is required");
        assert_reply(
            &active.refresh(&first, 1),
            Cause::HostCheck,
            400,
            &[],
            &body,
        );
        assert!(!active.wrote());
    });
    active.login.host.refusal = None;
    let _ = active.next(&first, 2);
}

// R13: the guarded write was in conflict.

#[test]
fn r13_a_lost_write_is_decided_again_three_times() {
    for losses in 0..3 {
        let mut active = Active::new();
        let first = active.first.clone();
        active
            .login
            .host
            .says
            .extend([Says::Conflict].repeat(losses));
        let _ = active.next(&first, 1);
        assert_eq!(active.login.host.count(Question::Take), 1, "taken once");
        assert_eq!(active.login.host.count(Question::Draw), 1);
    }
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.host.says.extend([Says::Conflict; 3]);
    active.unchanged(|active| {
        assert_unavailable(&active.refresh(&first, 1), Cause::Contended);
        assert_eq!(active.login.host.count(Question::Change), 3);
    });
    let _ = active.next(&first, 2);
}

/// Returns logins that the next refresh ends, one for each cause of an end: the cause, the login, the token, and the moment of that
/// refresh.
fn endings() -> [(Cause, Active, String, i64); 5] {
    let rotated = |times: i64| {
        let mut active = Active::new();
        let mut token = active.first.clone();
        for turn in 0..times {
            token = active.next(&token, turn);
        }
        let first = active.first.clone();
        (active, first)
    };
    let (expired, expired_token) = rotated(0);
    let (reused, reused_token) = rotated(1);
    let (older, older_token) = rotated(2);
    let (mut gone, gone_token) = rotated(0);
    gone.login.host.refusal = Some(GrantRefusal::consent_gone());
    let (mut lost, lost_token) = rotated(0);
    lost.login.client = cli().allow_scope(scope("email"));
    [
        (Cause::LoginExpired, expired, expired_token, IDLE),
        (Cause::Reuse, reused, reused_token, GRACE),
        (Cause::Reuse, older, older_token, 3),
        (Cause::ConsentGone, gone, gone_token, 1),
        (Cause::ConsentGone, lost, lost_token, 1),
    ]
}

#[test]
fn r13_an_ending_that_lost_its_write_is_decided_again_three_times() {
    for losses in 0..3 {
        for (cause, mut active, token, now) in endings() {
            let conflicts = [Says::Conflict].repeat(losses);
            active.login.host.says.extend(conflicts);
            active.ends(now, |active| {
                assert_invalid(&active.refresh(&token, now), cause);
            });
            let tried = active.login.host.count(Question::Change);
            assert_eq!(tried, losses + 1, "{cause}");
        }
    }
    for (cause, mut active, token, now) in endings() {
        active.login.host.says.extend([Says::Conflict; 3]);
        active.unchanged(|active| {
            assert_unavailable(&active.refresh(&token, now), Cause::Contended);
        });
        active.ends(now, |active| {
            assert_invalid(&active.refresh(&token, now), cause);
        });
    }
}

#[test]
fn r14_an_ending_of_unknown_outcome_is_503_and_is_done_at_the_next_request() {
    for (cause, mut active, token, now) in endings() {
        active.login.host.says.push_back(Says::UnknownNotDone);
        active.unchanged(|active| {
            assert_unavailable(&active.refresh(&token, now), Cause::OutcomeUnknown);
        });
        active.login.host.says.push_back(Says::UnknownDone);
        active.ends(now, |active| {
            assert_unavailable(&active.refresh(&token, now), Cause::OutcomeUnknown);
        });
        assert_invalid(&active.refresh(&token, now), Cause::Ended);
        assert!(!active.wrote(), "{cause}");
    }
}

#[test]
fn r13_a_refresh_that_lost_its_write_to_the_end_of_the_login_is_refused() {
    let mut active = Active::new();
    let first = active.first.clone();
    let key = active.login.codes.key;
    let withdrawal: support::host::Meanwhile = Box::new(move |store| {
        let mut rival = Host::new([client()]);
        core::mem::swap(&mut rival.store, store);
        let ended = rival.run(server().withdraw(&key, &alice(), at(1)));
        assert_eq!(ended.unwrap().status(), Status::Ended);
        core::mem::swap(&mut rival.store, store);
    });
    active.login.host.meanwhile.push_back(withdrawal);
    assert_invalid(&active.refresh(&first, 1), Cause::Ended);
    assert_eq!(active.login.host.count(Question::Change), 1);
    assert_eq!(active.status(), Status::Ended);
}

/// Lets somebody else refresh `times` times, first with this token, before the next guarded write.
fn rival(active: &mut Active, token: String, policy: fn() -> Policy, times: usize) {
    active
        .login
        .host
        .meanwhile
        .push_back(Box::new(move |store| {
            let mut rival = Host::new([client()]);
            rival.drawn = 50;
            core::mem::swap(&mut rival.store, store);
            let mut token = token;
            for _ in 0..times {
                let server = support::server_of(policy());
                let reply = rival.refresh(&server, &client(), &token, at(1));
                assert_eq!(reply.cause(), Cause::Refreshed);
                token = refresh_token(&reply);
            }
            core::mem::swap(&mut rival.store, store);
        }));
}

#[test]
fn r13_of_two_refreshes_with_one_token_at_once_both_are_answered_and_one_branch_survives() {
    let mut active = Active::new();
    let first = active.first.clone();
    rival(&mut active, first.clone(), policy, 1);
    let kept = active.next(&first, 1);
    let _ = active.next(&kept, 2);
}

#[test]
fn r13_losing_a_race_is_never_a_reuse() {
    // Once without a grace, and once with a rival that refreshes twice.
    let cases: [(fn() -> Policy, usize); 2] = [(strict, 1), (policy, 2)];
    for (policy, times) in cases {
        let mut active = Active::of(policy());
        let first = active.first.clone();
        rival(&mut active, first.clone(), policy, times);
        assert_unavailable(&active.refresh(&first, 1), Cause::Contended);
        assert_eq!(active.status(), Status::Active, "nothing was ended by it");
    }
}

// R14: the outcome is unknown, or the store failed.

#[test]
fn r14_an_unknown_outcome_is_503_and_the_same_token_may_be_sent_again() {
    for says in [Says::UnknownDone, Says::UnknownNotDone] {
        let mut active = Active::new();
        let first = active.first.clone();
        active.login.host.says.push_back(says);
        let reply = active.refresh(&first, 1);
        assert_unavailable(&reply, Cause::OutcomeUnknown);
        let second = active.next(&first, 5000);
        let _ = active.next(&second, 6000);
    }
}

#[test]
fn r14_a_host_that_failed_is_503_and_loses_nothing() {
    for (question, cause) in [
        (Question::Client, Cause::StoreFailed),
        (Question::Load, Cause::StoreFailed),
        (Question::Take, Cause::StoreFailed),
        (Question::Draw, Cause::StoreFailed),
        (Question::Change, Cause::OutcomeUnknown),
    ] {
        let mut active = Active::new();
        let first = active.first.clone();
        active.login.host.fails = Some(question);
        active.unchanged(|active| {
            assert_unavailable(&active.refresh(&first, 1), cause);
            assert_eq!(active.login.host.asked.last(), Some(&question));
        });
        active.login.host.fails = None;
        let _ = active.next(&first, 2);
    }
}

#[test]
fn r14_a_store_that_answers_with_another_login_is_503() {
    let mut active = Active::new();
    let other = active
        .login
        .host
        .issue(&active.login.server, &client(), 9, at(0));
    let body = support::refresh_body("client_cli", &active.first);
    let mut exchange = active.login.server.token(support::post(&body), "", at(1));
    let client = client();
    let reply = loop {
        match exchange.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(&client))),
            Next::Load(_, ask) => ask.answer(Ok(active.login.host.store.load(&other.key))),
            Next::Done(reply) => break reply,
            next => panic!("{next:?}"),
        }
    };
    assert_unavailable(&reply, Cause::StoreFailed);
}

/// Before minting, each refresh takes one from the quota of its login.
#[test]
fn r10_too_many_refreshes_of_one_login_are_429_and_burn_nothing() {
    let limit = RateLimit::new(2, Duration::from_mins(1)).unwrap();
    let mut active = Active::of(policy_of(with_refresh(RefreshOptions {
        limit,
        ..RefreshOptions::default()
    })));
    let first = active.first.clone();
    let second = active.next(&first, 0);
    let third = active.next(&second, 0);
    active.unchanged(|active| {
        let reply = active.refresh(&third, 1);
        let body = error_body("temporarily_unavailable", "too many requests");
        assert_reply(
            &reply,
            Cause::RefreshQuotaSpent,
            429,
            &[("retry-after", "60")],
            &body,
        );
        assert_eq!(
            active.login.host.asked,
            [Question::Client, Question::Load, Question::Take]
        );
    });
    let _ = active.next(&third, 60 * SECOND);
}

#[test]
fn r10_each_login_has_twenty_refreshes_at_once_and_then_one_a_minute() {
    let mut active = Active::new();
    let mut token = active.first.clone();
    for _ in 0..20 {
        token = active.next(&token, 0);
    }
    assert_eq!(active.refresh(&token, 0).cause(), Cause::RefreshQuotaSpent);
    // Another login of the same client has a quota of its own.
    let login = &mut active.login;
    let scope = "openid+offline_access";
    let codes = login
        .host
        .issue_for(&login.server, &client(), 9, scope, at(0));
    login.host.approve(&login.server, &alice(), &codes, at(0));
    let granted = login
        .host
        .poll(&login.server, &client(), &codes.device_code, at(0));
    let other = refresh_token(&granted);
    let reply = login.host.refresh(&login.server, &client(), &other, at(0));
    assert_tokens(&reply, Cause::Refreshed, "openid offline_access");
    // Reuse is detected even if the quota is spent.
    let first = active.first.clone();
    active.ends(0, |active| {
        assert_invalid(&active.refresh(&first, 0), Cause::Reuse);
    });
}

// Other ends of a login: C4 and U11.

#[test]
fn c4_a_replay_of_the_device_code_ends_the_login_that_was_refreshed() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 1000);
    active.ends(5000, |active| {
        let reply = active.login.poll(5000).reply;
        assert_invalid_grant(&reply, Cause::Replay);
    });
    assert_invalid(&active.refresh(&second, 6000), Cause::Ended);
}

#[test]
fn u11_a_user_who_signs_a_device_out_ends_its_refreshes() {
    let mut active = Active::new();
    let first = active.first.clone();
    let second = active.next(&first, 1);
    active.ends(DAY, |active| {
        let ended = active.login.withdraw_by(&alice(), DAY);
        assert_eq!(ended.unwrap().status(), Status::Ended);
    });
    for token in [first, second] {
        assert_invalid(&active.refresh(&token, DAY + 1), Cause::Ended);
    }
}

// R15 to R18: revocation.

#[test]
fn r15_a_revocation_without_a_token_is_invalid_request() {
    let mut active = Active::new();
    for body in ["client_id=client_cli", "client_id=client_cli&token="] {
        let login = &mut active.login;
        let exchange = login.server.revocation(support::post(body), "", at(1));
        let reply = login.host.run(exchange);
        assert_refused(
            &reply,
            Cause::TokenMissing,
            "invalid_request",
            "token is missing",
        );
        assert!(login.host.asked.is_empty());
    }
    let login = &mut active.login;
    let get = device_flow::server::Request::new("GET", b"");
    let reply = login.host.run(login.server.revocation(get, "", at(1)));
    assert_eq!(reply.response().status(), 405);
    let exchange = login
        .server
        .revocation(support::post("token=x&client_id=nobody"), "", at(1));
    support::assert_invalid_client(&login.host.run(exchange), Cause::UnknownClient);
    let twice = format!("token={0}&token={0}&client_id=client_cli", active.first);
    let login = &mut active.login;
    let exchange = login.server.revocation(support::post(&twice), "", at(1));
    let reply = login.host.run(exchange);
    assert_refused(
        &reply,
        Cause::RepeatedParameter,
        "invalid_request",
        "a parameter is repeated",
    );
    assert_eq!(active.status(), Status::Active);
}

/// > The authorization server responds with HTTP status code 200 if the token has been revoked successfully or if the client
/// > submitted an invalid token. (RFC 7009, section 2.2)
#[test]
fn r16_a_token_that_is_not_ours_or_of_another_client_is_200_and_nothing_is_done() {
    let mut active = Active::new();
    let first = active.first.clone();
    for token in [
        "x",
        "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        &first[1..],
        &"A".repeat(107),
    ] {
        active.unchanged(|active| {
            assert_done(&active.revoke(token, 1), Cause::NothingToRevoke);
            assert_eq!(active.login.host.asked, [Question::Client]);
        });
    }
    let other = backend();
    active.login.host.clients.push(other.clone());
    active.unchanged(|active| {
        let login = &mut active.login;
        let reply = login.host.revoke(&login.server, &other, &first, at(1));
        assert_done(&reply, Cause::NothingToRevoke);
    });
    let purge_at = active.login.session().purge_at();
    assert_eq!(active.login.host.store.purge(purge_at), 1);
    assert_done(&active.revoke(&first, 1), Cause::NothingToRevoke);
}

#[test]
fn r17_a_token_of_whatever_rotation_ends_the_login() {
    for rotation in 0..4 {
        let mut active = Active::new();
        let mut tokens = vec![active.first.clone()];
        for turn in 0..3 {
            let last = tokens.last().unwrap().clone();
            tokens.push(active.next(&last, turn));
        }
        active.ends(4, |active| {
            assert_done(&active.revoke(&tokens[rotation], 4), Cause::Revoked);
            assert_eq!(
                active.login.host.asked,
                [Question::Client, Question::Load, Question::Change]
            );
        });
        assert_invalid(&active.refresh(&tokens[3], 5), Cause::Ended);
        // A second revocation finds nothing left to do.
        assert_done(&active.revoke(&tokens[3], 6), Cause::NothingToRevoke);
    }
}

#[test]
fn r17_a_hint_changes_nothing() {
    for hint in ["refresh_token", "access_token", "nonsense"] {
        let mut active = Active::new();
        let login = &mut active.login;
        let body = format!(
            "token={}&token_type_hint={hint}&client_id=client_cli",
            active.first
        );
        let exchange = login.server.revocation(support::post(&body), "", at(1));
        assert_done(&login.host.run(exchange), Cause::Revoked);
    }
}

#[test]
fn r18_a_revocation_that_was_not_done_is_503() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.unchanged(|active| {
        active.login.host.says.extend([Says::Conflict; 3]);
        assert_unavailable(&active.revoke(&first, 1), Cause::Contended);
        active.login.host.says.push_back(Says::UnknownNotDone);
        assert_unavailable(&active.revoke(&first, 1), Cause::OutcomeUnknown);
        for question in [Question::Client, Question::Load] {
            active.login.host.fails = Some(question);
            assert_unavailable(&active.revoke(&first, 1), Cause::StoreFailed);
        }
        active.login.host.fails = None;
    });
    active.login.host.says.extend([Says::Conflict; 2]);
    active.ends(2, |active| {
        assert_done(&active.revoke(&first, 2), Cause::Revoked);
    });
}

#[test]
fn r18_a_revocation_that_was_done_though_nobody_knew_is_200_when_it_is_sent_again() {
    let mut active = Active::new();
    let first = active.first.clone();
    active.login.host.says.push_back(Says::UnknownDone);
    active.ends(1, |active| {
        assert_unavailable(&active.revoke(&first, 1), Cause::OutcomeUnknown);
    });
    assert_done(&active.revoke(&first, 2), Cause::NothingToRevoke);
    assert!(!active.wrote());
}

#[test]
fn r18_a_revocation_that_lost_its_write_to_a_refresh_ends_the_login() {
    let mut active = Active::new();
    let first = active.first.clone();
    rival(&mut active, first.clone(), policy, 1);
    assert_done(&active.revoke(&first, 1), Cause::Revoked);
    assert_eq!(active.login.host.count(Question::Change), 2);
    assert_eq!(active.status(), Status::Ended);
}

/// A stored login can be read again after each refresh. A stored form with wrong values is refused.
#[test]
fn r_every_state_of_an_active_login_survives_its_store() {
    let mut active = Active::new();
    let mut token = active.first.clone();
    for turn in 0..3 {
        let form = active.login.form();
        let session: device_flow::server::Session = serde_json::from_value(form.clone()).unwrap();
        assert_eq!(serde_json::to_value(&session).unwrap(), form);
        token = active.next(&token, turn);
    }
    for (member, wrong) in [
        ("until", json!(0)),
        ("rotated_at", json!(0)),
        ("current", json!("x")),
        ("previous", Value::Null),
        ("extra", json!(1)),
    ] {
        let mut form = active.login.form();
        form["state"]["active"]["refresh"][member] = wrong.clone();
        let read = serde_json::from_value::<device_flow::server::Session>(form);
        assert_eq!(read.is_ok(), wrong.is_null(), "{member}");
    }
}
