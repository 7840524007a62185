//! Nothing that is formatted shows a code, a secret, a token or what a peer sent.
//!
//! Every public type of the server half and of what it shares is made of values that no text has by chance, and formatted
//! with `{:?}` and `{:#?}`; every error and cause with `{}` as well.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "support/login.rs"]
mod login;
mod support;

use core::fmt::{Debug, Display, Write as _};
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{QuotaKey, SecretDigest, SessionKey, UserCodeKey, UserCodeKeys, UserKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Entered, Entry, Form, Grant, HostError, HostValue, HostVerdict,
    Incoming, Inserted, Limit, Origin, Policy, Polled, Presented, Registration, Reply,
    SecretPlacement, Session, StoredError, Subject, Written, WrongCode,
};
use device_flow::wire::tokens::Tokens;
use login::Login;
use serde_json::json;
use support::{FORM, GRANT, NOW, PAGE, alice, basic, builder, policy, poll_body, post, scope};

/// What the client and its users keep to themselves. Each is made to be found.
const CLIENT_SECRET: &str = "Qx7vQx7vCLIENTSECRETzW9k";
const ASSERTION: &str = "eyJhbGciQx8.ASSERTIONQx8.zW9ksignature";
const ACCESS: &str = "Qx9vACCESSTOKENzW9k";
const REFRESH: &str = "Qx0vREFRESHTOKENzW9k";
const ID_TOKEN: &str = "Qx1v.IDTOKEN.zW9k";
const VALUE: &[u8] = b"Qx2vHOSTVALUEzW9k";
const KEY: &[u8; 32] = b"Qx3vUSERCODEKEYzW9k-Qx3v-0123456";
const OLD_KEY: &[u8; 32] = b"Qx4vUSERCODEKEYzW9k-Qx4v-0123456";
const ENTROPY: [u8; 48] = *b"Qx5vENTROPYzW9k-Qx5vENTROPYzW9k-Qx5vENTROPYzW9k-";

/// A listener: everything that is formatted, and what must not be in it.
struct Log {
    text: String,
    secrets: Vec<(&'static str, Vec<u8>)>,
}

impl Log {
    fn new() -> Self {
        let secrets = [
            ("client secret", CLIENT_SECRET.as_bytes()),
            ("assertion", ASSERTION.as_bytes()),
            ("access token", ACCESS.as_bytes()),
            ("refresh token", REFRESH.as_bytes()),
            ("id token", ID_TOKEN.as_bytes()),
            ("host value", VALUE),
            ("key", KEY),
            ("previous key", OLD_KEY),
            ("entropy", &ENTROPY),
            ("entropy of the user code", &ENTROPY[32..]),
        ];
        Self {
            text: String::new(),
            secrets: secrets.map(|(name, secret)| (name, secret.to_vec())).into(),
        }
    }

    /// Also keeps quiet about the codes of a login.
    fn of(login: &Login) -> Self {
        let mut log = Self::new();
        let user_code = &login.codes.user_code;
        for (name, code) in [
            ("device code", login.codes.device_code.clone()),
            ("user code", user_code.clone()),
            ("user code without dashes", user_code.replace('-', "")),
        ] {
            log.secrets.push((name, code.into_bytes()));
        }
        log
    }

    /// What shows nothing at all helps nobody either.
    #[track_caller]
    fn debug(&mut self, value: &impl Debug) {
        let text = format!("{value:?}");
        assert_ne!(text, "");
        write!(self.text, "{text}\n{value:#?}\n").unwrap();
    }

    #[track_caller]
    fn display(&mut self, value: &(impl Display + Debug)) {
        let text = format!("{value}");
        assert_ne!(text, "");
        write!(self.text, "{text}\n{value:#}\n").unwrap();
        self.debug(value);
    }

    /// A secret that is in what was formatted: as it is, in hexadecimal, in base64 or as a list of octets, or its first half.
    fn heard(&self) -> Option<String> {
        let text = self.text.to_lowercase();
        let flat: String = text.split_whitespace().collect();
        for (name, secret) in &self.secrets {
            for part in [&secret[..], &secret[..secret.len().div_ceil(2)]] {
                let hex = hex(part);
                let list: Vec<_> = part.iter().map(ToString::to_string).collect();
                // The last characters of base64 depend on what follows.
                let whole = &part[..part.len() / 3 * 3];
                let shapes = [
                    String::from_utf8(part.to_vec()).unwrap(),
                    hex,
                    list.join(","),
                    STANDARD.encode(part),
                    STANDARD_NO_PAD.encode(whole),
                    URL_SAFE_NO_PAD.encode(whole),
                ];
                for shape in shapes {
                    let shape = shape.to_lowercase();
                    if text.contains(&shape) || flat.contains(&shape) {
                        return Some(format!("{name} as {shape}"));
                    }
                }
            }
        }
        None
    }

    #[track_caller]
    fn assert_silent(&self) {
        assert!(!self.text.is_empty());
        assert_eq!(self.heard(), None);
    }
}

fn hex(octets: &[u8]) -> String {
    let mut text = String::new();
    for octet in octets {
        write!(text, "{octet:02x}").unwrap();
    }
    text
}

fn secret_keys() -> UserCodeKeys {
    let key = UserCodeKey::new(KEY).unwrap();
    UserCodeKeys::new(key).with_previous(UserCodeKey::new(OLD_KEY).unwrap())
}

fn confidential() -> Registration {
    let digests = [Some(SecretDigest::of(CLIENT_SECRET)), None];
    let authentication = Authentication::Secret {
        digests,
        placement: SecretPlacement::Anywhere,
    };
    Registration::new("client_backend", authentication)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile"))
        .default_scope(scope("openid"))
}

fn secret_tokens() -> Tokens<'static> {
    Tokens::bearer(ACCESS)
        .and_then(|tokens| tokens.refresh_token(REFRESH))
        .and_then(|tokens| tokens.id_token(ID_TOKEN))
        .unwrap()
        .expires_in(Duration::from_mins(1))
}

/// A login, approved with a value of the host.
fn approved() -> Login {
    let mut login = Login::new();
    login.claim(0);
    let session = login.session();
    let value = HostValue::new(VALUE).unwrap();
    let change = session.approve(&alice(), session.scope(), value, &login.policy, NOW);
    let change = change.unwrap().unwrap();
    login.write(&change);
    login
}

#[test]
fn the_log_hears_a_secret_in_every_shape() {
    let shapes = [
        format!("{:?}", CLIENT_SECRET.as_bytes()),
        format!("{:#?}", CLIENT_SECRET.as_bytes()),
        format!("{CLIENT_SECRET:?}"),
        CLIENT_SECRET.to_lowercase(),
        CLIENT_SECRET[..12].to_owned(),
        STANDARD.encode(CLIENT_SECRET),
        URL_SAFE_NO_PAD.encode(CLIENT_SECRET),
    ];
    let heard = |text: String| Log { text, ..Log::new() }.heard().is_some();
    for shape in shapes {
        assert!(heard(shape.clone()), "{shape}");
    }
    assert!(!heard("harmless".to_owned()));
}

#[test]
fn a_request_shows_nothing_on_its_way_to_a_poll() {
    let login = Login::new();
    let mut log = Log::of(&login);
    let code = &login.codes.device_code;
    let (policy, client) = (policy(), confidential());
    let plain = poll_body("client_backend", code);
    let header = basic("client_backend", CLIENT_SECRET);
    log.secrets.push(("header", header.clone().into_bytes()));
    let in_body = format!("{plain}&client_secret={CLIENT_SECRET}");
    let asserted = format!(
        "grant_type={GRANT}&device_code={code}&client_assertion={ASSERTION}&client_assertion_type=urn%3Ax"
    );
    for (body, header) in [
        (&plain, Some(&header)),
        (&in_body, None),
        (&asserted, None),
        (&plain, None),
    ] {
        let incoming = post(body).authorization(header);
        log.debug(&incoming);
        let form = Form::read(incoming, &policy).unwrap();
        log.debug(&form);
        let grant = form.grant().unwrap();
        log.debug(&grant);
        let Grant::DeviceCode(request) = grant else {
            panic!("another grant")
        };
        log.debug(&request);
        log.debug(&request.presented());
        log.debug(&request.secret_quota_key("192.0.2.7"));
        match request.authenticate(Some(&client)) {
            Ok(mut poll) => {
                log.debug(&poll);
                log.debug(&poll.session_key().copied());
                log.debug(&poll.client());
                log.debug(&poll.decide(None, NOW));
            }
            Err(reply) => {
                log.debug(&reply);
                log.debug(reply.response());
                log.display(&reply.cause());
            }
        }
    }
    log.assert_silent();
}

#[test]
fn a_verdict_and_what_was_presented_show_nothing() {
    let mut log = Log::new();
    log.debug(&Presented::Secret(CLIENT_SECRET.into()));
    log.debug(&Presented::Assertion {
        assertion: ASSERTION.into(),
        assertion_type: Some(ASSERTION.into()),
    });
    log.debug(&Presented::Nothing);
    let client = confidential();
    log.debug(&HostVerdict::Authenticated(&client));
    log.debug(&client);
    log.debug(client.authentication());
    log.debug(&SecretDigest::of(CLIENT_SECRET));
    // Nor does a digest show itself: a weak secret could be found from it.
    let digest = SecretDigest::of(CLIENT_SECRET);
    let hex = hex(digest.as_bytes());
    let base64 = URL_SAFE_NO_PAD.encode(digest.as_bytes());
    assert!(!log.text.contains(&hex) && !log.text.contains(&base64));
    log.assert_silent();
}

#[test]
fn a_request_for_codes_shows_nothing_on_its_way_to_the_device() {
    let (policy, client, keys) = (policy(), confidential(), secret_keys());
    let mut log = Log::new();
    log.debug(&Entropy::from(ENTROPY));
    log.debug(&keys);
    let body = format!("client_id=client_backend&client_secret={CLIENT_SECRET}&scope=openid");
    let form = Form::read(post(&body), &policy).unwrap();
    let request = form.device_authorization().unwrap();
    log.debug(&request);
    let issuing = request.authenticate(Some(&client)).unwrap();
    let mut issuing = issuing.with_origin(Origin::new("192.0.2.7"));
    log.debug(&issuing);
    let issuance = issuing.draw(Entropy::from(ENTROPY), &keys, NOW).unwrap();
    log.debug(&issuance);
    log.debug(issuance.session());
    let reply = issuance.settle(Inserted::New).unwrap();
    log.debug(&reply);
    log.debug(reply.response());
    for (name, value) in reply.response().headers() {
        log.debug(&name);
        log.debug(&value);
    }
    log.display(&reply.cause());
    log.debug(&reply.clone().into_response());
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    let user_code = body["user_code"].as_str().unwrap();
    for code in [
        body["device_code"].as_str().unwrap(),
        user_code,
        &user_code.replace('-', ""),
    ] {
        log.secrets.push(("code", code.as_bytes().to_vec()));
    }
    log.assert_silent();
}

#[test]
fn an_entry_shows_nothing_on_its_way_to_the_review() {
    let login = Login::new();
    let mut log = Log::of(&login);
    let (policy, keys, user) = (policy(), secret_keys(), alice());
    // Under the keys of the login, and under others.
    for keys in [support::keys(), keys] {
        let mut entry = Entry::new(&login.codes.user_code, &user, &keys, &policy);
        log.debug(&entry);
        let guess = entry.pay(None, NOW).unwrap();
        log.debug(&guess);
        log.debug(guess.change());
        let paid = guess.settle(Written::Won).unwrap();
        log.debug(&paid);
        for key in paid.user_keys() {
            log.display(&key);
        }
        match paid.enter(Some(login.session()), NOW) {
            Err(wrong) => log.display(&wrong),
            Ok(entered) => {
                log.debug(&entered);
                let Entered::Claim(claim) = entered else {
                    panic!("nobody had claimed it")
                };
                log.debug(&claim);
                log.debug(claim.change());
                let review = claim.settle(Written::Won).unwrap();
                log.debug(&review);
                log.debug(review.user_code());
                assert!(login.codes.user_code.contains('-'));
                assert_eq!(
                    review.user_code().display().to_string(),
                    login.codes.user_code
                );
            }
        }
    }
    log.assert_silent();
}

#[test]
fn a_redemption_shows_nothing_on_its_way_to_the_tokens() {
    let login = approved();
    let mut log = Log::of(&login);
    log.debug(&secret_tokens());
    log.debug(&HostValue::new(VALUE).unwrap());
    login.redeem(1, |redemption| {
        log.debug(&redemption);
        log.debug(&redemption.approval());
        log.debug(redemption.approval().host_value());
        log.debug(redemption.change());
        let reply = redemption.settle(Written::Won, &secret_tokens()).unwrap();
        log.debug(&reply);
        log.debug(reply.response());
    });
    login.redeem(1, |redemption| {
        let lost = redemption
            .settle(Written::Lost, &secret_tokens())
            .unwrap_err();
        log.display(&lost);
    });
    login.redeem(1, |redemption| {
        let revocation = redemption.revoke();
        log.debug(&revocation);
        log.debug(revocation.change());
        let _ = revocation.settle(Written::Unknown);
    });
    login.decide(1, |polled| {
        log.debug(&polled);
        if let Polled::Redeem(redemption) = polled {
            let _ = redemption.minting_failed();
        }
    });
    log.assert_silent();
}

#[test]
fn what_is_stored_shows_no_code_no_key_and_no_value() {
    let mut login = approved();
    let mut log = Log::of(&login);
    log.debug(&login.store);
    log.debug(login.session());
    log.debug(login.store.load(&login.codes.key).unwrap());
    let _ = login.poll(1);
    log.debug(&login.store);
    login = Login::new();
    let _ = login.poll(0);
    log.debug(&login.pace());
    log.debug(&login.store);
    log.debug(&login.policy);
    log.debug(&UserCodeKey::new(KEY).unwrap());
    log.debug(login.session().scope());
    log.debug(&builder());
    log.debug(&Memory::new());
    log.assert_silent();
}

/// The stored form of a session is what a thief of the store has: digests, and the host's own value.
#[test]
fn the_stored_form_holds_no_code() {
    let login = Login::approved_at(0);
    let mut log = Log::of(&login);
    log.text = serde_json::to_string(login.session()).unwrap();
    log.assert_silent();
}

// Errors and causes: none echoes what it was about.

/// What a peer or a caller gave, to be found in an error that echoes it.
const GIVEN: &str = "Qx6vGIVENzW9k";

#[test]
fn no_error_echoes_its_input() {
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    let with = |end: &str| format!("{GIVEN}{end}");
    log.display(&Registration::new(with("\n"), Authentication::Public).unwrap_err());
    log.display(&Subject::new(with("\n")).unwrap_err());
    log.display(&HostValue::new(with(&"x".repeat(2000)).into_bytes()).unwrap_err());
    log.display(&UserCodeKey::new(GIVEN.as_bytes()).unwrap_err());
    log.display(&GIVEN.parse::<SessionKey>().unwrap_err());
    log.display(&GIVEN.parse::<UserKey>().unwrap_err());
    log.display(&GIVEN.parse::<QuotaKey>().unwrap_err());
    for scope in [
        with("\""),
        with("  x"),
        with(&" x".repeat(100)),
        with(&"x".repeat(5000)),
    ] {
        log.display(&scope.parse::<Scope>().unwrap_err());
    }
    for (alphabet, length) in [
        (with("-"), 8),
        (GIVEN[..5].to_owned(), 8),
        (with(""), 0),
        (with("é"), 8),
    ] {
        log.display(&UserCodeShape::new(&alphabet, length).unwrap_err());
    }
    log.display(&Tokens::bearer("Qx6vGIVENzW9k\n").unwrap_err());
    let member = json!(GIVEN);
    let reserved = Tokens::bearer("a").unwrap().member("scope", &member);
    log.display(&reserved.unwrap_err());
    for builder in [
        Policy::builder(with("")),
        Policy::builder(format!("{PAGE}?{GIVEN}")),
        builder().realm(with("\"")),
        builder().interval(Duration::from_secs(61)),
        builder().step(Duration::from_secs(1)),
        builder().cap(Duration::from_secs(1)),
        builder().lifetime(Duration::from_secs(1)),
        builder().retry_window(Duration::from_secs(31)),
        builder().retention(Duration::from_secs(1)),
        builder().outstanding(1 << 40),
        builder().max_body(0),
    ] {
        log.display(&builder.build().unwrap_err());
    }
    log.display(&HostError::new("Qx6vGIVENzW9k\"", "").unwrap_err());
    log.display(&Limit::new(0, Duration::from_secs(1)).unwrap_err());
    log.assert_silent();
}

#[test]
fn the_errors_of_a_decision_say_nothing_of_the_session() {
    let mut login = approved();
    let mut log = Log::of(&login);
    for user in ["bob", "alice"] {
        let user = support::subject(user);
        let value = HostValue::default();
        let wanted = scope(GIVEN);
        let session = login.session();
        let approved = session.approve(&user, &wanted, value, &login.policy, NOW);
        log.display(&approved.unwrap_err());
        log.display(&session.deny(&user, NOW).unwrap_err());
        log.display(&session.release(&user).unwrap_err());
    }
    login = Login::new();
    login.claim(0);
    log.display(&login.approval_of(&alice(), &scope(GIVEN), 1).unwrap_err());
    log.display(&login.approval_by(&alice(), login::LIFETIME).unwrap_err());
    log.display(&login.session().withdraw(&alice()).unwrap_err());
    login.approve(0);
    let _ = login.poll(0);
    log.display(&login.session().withdraw(&alice()).unwrap_err());
    for wrong in [
        WrongCode::Malformed,
        WrongCode::Unknown,
        WrongCode::Expired,
        WrongCode::Decided,
        WrongCode::ClaimedByAnother,
    ] {
        log.display(&wrong);
    }
    log.display(&StoredError::Version);
    log.display(&StoredError::Corrupt);
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    log.secrets.push(("subject", b"alice".to_vec()));
    log.secrets.push(("scope", b"profile".to_vec()));
    log.assert_silent();
}

#[test]
fn a_stored_form_that_is_refused_is_not_echoed_by_the_reason() {
    // What serde_json says of the JSON itself is its own; the reasons of this crate are constant.
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    let form = Login::new().form();
    for (member, value) in [
        ("key", json!(GIVEN)),
        ("user_key", json!(GIVEN)),
        ("client_id", json!(format!("{GIVEN}\n"))),
        ("scope", json!(format!("{GIVEN}  x"))),
        ("state", json!({ "claimed": format!("{GIVEN}\n") })),
        ("v", json!(2)),
    ] {
        let mut form = form.clone();
        form[member] = value;
        log.display(&serde_json::from_value::<Session>(form).unwrap_err());
    }
    log.assert_silent();
}

#[test]
fn no_refusal_echoes_what_was_sent() {
    let (policy, client) = (policy(), confidential());
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    let post = |body: String, header: Option<String>| {
        let incoming = Incoming::new("POST", body.as_bytes())
            .content_type(Some(FORM))
            .authorization(header.as_ref());
        let polled = support::with_poll(&policy, incoming, Some(&client), |poll| {
            match poll.decide(None, NOW) {
                Polled::Reply(reply) => reply,
                Polled::Paced(..) | Polled::Redeem(_) => panic!("decided on nothing"),
            }
        });
        polled.unwrap_or_else(|reply| reply)
    };
    let grant = format!("grant_type={GRANT}&device_code={GIVEN}");
    let bodies = [
        (format!("{GIVEN}=%"), None),
        (format!("{GIVEN}=1&{GIVEN}=2"), None),
        (format!("grant_type={GIVEN}"), None),
        (format!("{grant}&client_id={GIVEN}%00"), None),
        (format!("{grant}&client_id={GIVEN}"), None),
        (
            format!("{grant}&client_id={GIVEN}&client_secret={GIVEN}"),
            None,
        ),
        (
            format!("{grant}&client_id=client_backend&client_secret={GIVEN}"),
            None,
        ),
        (
            format!("{grant}&client_id={GIVEN}"),
            Some(basic("client_backend", GIVEN)),
        ),
        (grant.clone(), Some(format!("Bearer {GIVEN}"))),
        (grant.clone(), Some(basic("client_backend", CLIENT_SECRET))),
        (GIVEN.repeat(2000), None),
    ];
    for (body, header) in bodies {
        let reply: Reply = post(body, header);
        assert!(reply.response().status() >= 400);
        log.display(&reply.cause());
        log.debug(&reply);
        // The wire, whole.
        log.text.push_str(reply.response().body());
        for (_, value) in reply.response().headers() {
            log.text.push_str(value);
        }
    }
    log.assert_silent();
}

/// The causes hold no bytes of the peer: each prints as a constant name.
#[test]
fn a_cause_prints_a_constant_name() {
    for (cause, name) in [
        (Cause::WrongSecret, "wrong_secret"),
        (Cause::ForeignClient, "foreign_client"),
        (Cause::Replay, "replay"),
        (Cause::Duplicate, "duplicate"),
        (Cause::Granted, "granted"),
    ] {
        assert_eq!(cause.to_string(), name);
        assert_eq!(cause.as_str(), name);
    }
}
