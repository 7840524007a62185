//! Nothing that is formatted shows a code, a secret, a token or what a peer sent.
//!
//! The tests make every public type of the server half, and of what it shares, from values that no text contains by chance. They format
//! each with `{:?}` and `{:#?}`, and errors and causes also with `{}`. The last test asserts that no type was left out.

use core::cell::RefCell;
use core::fmt::{Debug, Display, Write as _};
use core::time::Duration;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{QuotaKey, SecretDigest, SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Consent, Exchange, Finish, Found, GrantRefusal, HostValue,
    Next, PageError, Policy, PolicyOptions, RateLimit, RefreshOptions, Reply, Request, Server,
    ServerKeys, Session, Subject, Tokens, Unavailable,
};
use device_flow::wire::metadata::{Metadata, MetadataError};
use serde_json::json;

use crate::support::login::{Login, bob};
use crate::support::{
    self, Codes, GRANT, NOW, PAGE, alice, basic, policy, poll_body, post, scope, with_refresh,
};

/// The secrets of a client, its users and the host. No text contains one of them by chance.
const CLIENT_SECRET: &str = "Qx7vQx7vCLIENTSECRETzW9k";
const ASSERTION: &str = "eyJhbGciQx8.ASSERTIONQx8.zW9ksignature";
const ACCESS: &str = "Qx9vACCESSTOKENzW9k";
const REFRESH: &str = "Qx0vREFRESHTOKENzW9k";
const ID_TOKEN: &str = "Qx1v.IDTOKEN.zW9k";
const VALUE: &[u8] = b"Qx2vHOSTVALUEzW9k";
const KEY: &[u8; 32] = b"Qx3vUSERCODEKEYzW9k-Qx3v-0123456";
const OLD_KEY: &[u8; 32] = b"Qx4vUSERCODEKEYzW9k-Qx4v-0123456";
const ENTROPY: [u8; 48] = *b"Qx5vENTROPYzW9k-Qx5vENTROPYzW9k-Qx5vENTROPYzW9k-";

thread_local! {
    /// The types that were formatted on this thread.
    static SEEN: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

/// Returns the last part of the name of a type, without its parameters.
fn name_of(path: &str) -> String {
    let path = path.trim_start_matches('&');
    let path = path.split('<').next().unwrap_or_default();
    path.rsplit("::").next().unwrap_or_default().to_owned()
}

/// All text that was formatted, and the secrets that must not be in it.
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
            ("entropy of the device code", &ENTROPY[..32]),
            ("entropy of the user code", &ENTROPY[32..]),
        ];
        Self {
            text: String::new(),
            secrets: secrets.map(|(name, secret)| (name, secret.to_vec())).into(),
        }
    }

    /// Adds these codes to the secrets.
    fn hide(&mut self, codes: &Codes) {
        let user_code = &codes.user_code;
        for (name, code) in [
            ("device code", codes.device_code.clone()),
            ("user code", user_code.clone()),
            ("user code without dashes", user_code.replace('-', "")),
        ] {
            self.secrets.push((name, code.into_bytes()));
        }
    }

    /// Adds a refresh token, and the tag at its end, to the secrets.
    fn hide_refresh(&mut self, token: &str) {
        let octets = URL_SAFE_NO_PAD.decode(token).unwrap();
        self.secrets
            .push(("tag", octets[octets.len() - 16..].to_vec()));
        self.secrets.push(("refresh token", token.into()));
    }

    /// Formats a value. Asserts that this gives some text, because an empty `Debug` would help nobody.
    #[track_caller]
    fn debug<T: Debug>(&mut self, value: &T) {
        let text = format!("{value:?}");
        assert_ne!(text, "");
        write!(self.text, "{text}\n{value:#?}\n").unwrap();
        SEEN.with_borrow_mut(|seen| seen.insert(name_of(core::any::type_name::<T>())));
    }

    #[track_caller]
    fn display(&mut self, value: &(impl Display + Debug)) {
        let text = format!("{value}");
        assert_ne!(text, "");
        write!(self.text, "{text}\n{value:#}\n").unwrap();
        self.debug(value);
    }

    /// Returns the name and the form of a secret that the text contains, or `None`. A secret may be there as it is, in hexadecimal, in
    /// base64 or as a list of octets, and its first half is enough.
    fn heard(&self) -> Option<String> {
        let text = self.text.to_lowercase();
        let flat: String = text.split_whitespace().collect();
        for (name, secret) in &self.secrets {
            for part in [&secret[..], &secret[..secret.len().div_ceil(2)]] {
                let hex = hex(part);
                let list: Vec<_> = part.iter().map(ToString::to_string).collect();
                // The last characters of base64 depend on the octets that follow.
                let whole = &part[..part.len() / 3 * 3];
                let shapes = [
                    String::from_utf8_lossy(part).into_owned(),
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

fn secret_keys() -> ServerKeys {
    let keys = ServerKeys::new(KEY).unwrap();
    keys.with_previous(OLD_KEY).unwrap()
}

fn confidential() -> Client {
    let method = ClientAuthMethod::secret(SecretDigest::of(CLIENT_SECRET));
    Client::new("client_backend", method)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile offline_access"))
}

fn secret_tokens() -> Tokens<'static> {
    Tokens::bearer(ACCESS)
        .and_then(|tokens| tokens.id_token(ID_TOKEN))
        .unwrap()
        .expires_in(Duration::from_mins(1))
}

/// A host of the confidential client that formats everything that it sees.
struct Stage {
    log: Log,
    store: Memory,
    drawn: u8,
}

impl Stage {
    fn new() -> Self {
        Self {
            log: Log::new(),
            store: Memory::new(),
            drawn: 0,
        }
    }

    fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>) -> T {
        let Self { log, store, drawn } = self;
        let client = confidential();
        loop {
            log.debug(&exchange);
            let next = exchange.next();
            log.debug(&next);
            match next {
                Next::Client(claim, ask) => {
                    let known = (claim.client_id() == Some(client.id())).then_some(&client);
                    let found = Found::from(known);
                    log.debug(&claim);
                    log.debug(&found);
                    log.debug(&ask);
                    ask.answer(Ok::<_, Unavailable>(found));
                }
                Next::Take(take, ask) => {
                    let taken = store.take(&take);
                    log.debug(&take);
                    log.display(take.key());
                    if let Some(state) = take.apply(None).unwrap() {
                        log.debug(&state);
                    }
                    ask.answer(Ok(taken));
                }
                Next::Load(key, ask) => {
                    log.display(key);
                    ask.answer(Ok(store.load(key)));
                }
                Next::LoadByUserKey(key, ask) => {
                    log.display(key);
                    ask.answer(Ok(store.load_by_user_key(key)));
                }
                Next::Draw(ask) => {
                    let mut octets = ENTROPY;
                    octets[31] = *drawn; // the first half of each secret stays the same
                    *drawn += 1;
                    let entropy = Entropy::from(octets);
                    log.debug(&entropy);
                    ask.answer(Ok(entropy));
                }
                Next::Insert(session, ask) => {
                    let inserted = store.insert(session);
                    log.debug(session);
                    log.debug(&inserted);
                    ask.answer(Ok(inserted));
                }
                Next::Mint(grant, change, ask) => {
                    let (tokens, written) = (secret_tokens(), store.change(change));
                    log.debug(&grant);
                    log.debug(grant.host_value());
                    log.debug(&change);
                    log.debug(&tokens);
                    ask.answer(Ok(written), &tokens);
                }
                Next::Change(change, ask) => {
                    let written = store.change(change);
                    log.debug(&change);
                    log.debug(&written);
                    ask.answer(Ok(written));
                }
                Next::SavePace(key, pace) => {
                    store.save_pace(key, pace);
                    log.debug(&pace);
                }
                Next::Done(end) => return end,
            }
        }
    }

    /// Runs an exchange to a reply of this cause. Formats the reply and what is stored then.
    fn reply(&mut self, exchange: Exchange<'_, Reply>, cause: Cause) -> Reply {
        let reply = self.run(exchange);
        assert_eq!(reply.cause(), cause);
        self.log.debug(&reply);
        self.log.debug(reply.response());
        self.log.debug(&reply.clone().into_response());
        self.log.display(&reply.cause());
        self.log.debug(&self.store);
        reply
    }
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

/// One login from its codes to its end, with everything that is asked and answered on the way.
#[test]
fn a_login_shows_nothing_from_its_codes_to_its_end() {
    let mut stage = Stage::new();
    let header = basic("client_backend", CLIENT_SECRET);
    stage.log.secrets.push(("header", header.clone().into()));
    let before = Server::new(policy(), ServerKeys::new(OLD_KEY).unwrap());
    let server = Server::new(policy(), secret_keys());
    stage.log.debug(&server);
    stage.log.debug(&secret_keys());

    let body = format!(
        "client_secret={CLIENT_SECRET}&client_id=client_backend&scope=openid+offline_access"
    );
    let request = post(&body);
    stage.log.debug(&request);
    let exchange = before.device_authorization(request, "192.0.2.7", Some("a place"), NOW);
    let reply = stage.reply(exchange, Cause::Issued);
    let codes = Codes::of(&reply);
    stage.log.hide(&codes);

    let poll = poll_body("client_backend", &codes.device_code);
    let polling = || post(&poll).authorization([&header]);
    stage.log.debug(&polling());
    let _ = stage.reply(server.token(polling(), "", NOW), Cause::Pending);

    // The code was issued under the previous key.
    let (user, typed) = (alice(), codes.user_code.clone());
    let review = stage.run(server.enter(&typed, &user, "192.0.2.7", NOW));
    let review = review.unwrap();
    stage.log.debug(&review);
    stage.log.debug(review.user_code());
    // `display` is there to show the code.
    assert_eq!(review.user_code().display().to_string(), typed);
    let consent = Consent::to_all().with_value(HostValue::new(VALUE).unwrap());
    stage.log.debug(&consent);
    let key = *review.session_key();
    let approved = stage.run(server.approve(&key, &user, &consent, NOW));
    let approved = approved.unwrap();
    stage.log.debug(&approved);
    stage.log.debug(&approved.status());
    stage.log.debug(stage.store.load(&key).unwrap());

    let now = NOW + Duration::from_secs(5);
    let mut reply = stage.reply(server.token(polling(), "", now), Cause::Granted);
    for seconds in [60, 120] {
        let token = support::refresh_token(&reply);
        stage.log.hide_refresh(&token);
        let body = support::refresh_body("client_backend", &token);
        let request = post(&body).authorization([&header]);
        stage.log.debug(&request);
        let exchange = server.token(request, "", now + Duration::from_secs(seconds));
        reply = stage.reply(exchange, Cause::Refreshed);
    }
    let token = support::refresh_token(&reply);
    stage.log.hide_refresh(&token);
    // The store has only digests of these secrets. Only the host's value is stored as it is.
    let stored = serde_json::to_string(&stage.store.load(&key).unwrap().session).unwrap();
    let mut thief = Log {
        text: stored,
        secrets: stage.log.secrets.clone(),
    };
    thief.secrets.retain(|(name, _)| *name != "host value");
    thief.assert_silent();

    let body = format!("token={token}");
    let request = post(&body).authorization([&header]);
    let now = now + Duration::from_mins(3);
    let _ = stage.reply(server.revocation(request, "", now), Cause::Revoked);
    stage.log.assert_silent();
}

#[test]
fn a_client_of_another_endpoint_shows_none_of_its_parameters() {
    let mut stage = Stage::new();
    let server = Server::new(policy(), secret_keys());
    let body = format!("client_id=client_backend&client_secret={CLIENT_SECRET}&code={ACCESS}");
    let client = stage
        .run(server.authenticate(post(&body), "", NOW))
        .unwrap();
    assert_eq!(client.parameter("code").as_deref(), Some(ACCESS));
    stage.log.debug(&client);
    let body = format!(
        "client_id=client_backend&client_assertion={ASSERTION}&client_assertion_type=urn%3Ax"
    );
    let refused = stage
        .run(server.authenticate(post(&body), "", NOW))
        .unwrap_err();
    stage.log.debug(&refused);
    stage.log.assert_silent();
}

/// Values that are not in any exchange of these tests.
#[test]
fn what_a_host_makes_shows_nothing() {
    let mut log = Log::new();
    let client = confidential();
    log.debug(&client);
    log.debug(client.auth_method());
    log.debug(&HostValue::new(VALUE).unwrap());
    log.debug(&alice());
    log.debug(&scope("openid"));
    log.debug(&UserCodeShape::default());
    let refresh = RefreshOptions::default();
    log.debug(&refresh);
    log.debug(&with_refresh(refresh));
    log.debug(&policy());
    log.debug(&RateLimit::new(1, Duration::from_secs(1)).unwrap());
    log.debug(&Unavailable);
    log.debug(&GrantRefusal::failed());
    log.debug(
        &Tokens::bearer(ACCESS)
            .unwrap()
            .refresh_token(REFRESH)
            .unwrap(),
    );
    // A digest is not shown either, because a weak secret could be found from it.
    let digest = SecretDigest::of(CLIENT_SECRET);
    log.debug(&digest);
    log.secrets.push(("digest", digest.as_bytes().to_vec()));
    log.assert_silent();
}

// Errors and causes: none of them shows its input.

/// A text that a peer or a caller gives. An error that shows its input would contain it.
const GIVEN: &str = "Qx6vGIVENzW9k";

#[test]
fn no_error_echoes_its_input() {
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    let with = |end: &str| format!("{GIVEN}{end}");
    log.display(&Client::new(with("\n"), ClientAuthMethod::None).unwrap_err());
    log.display(&Subject::new(with("\n")).unwrap_err());
    log.display(&HostValue::new(with(&"x".repeat(2000)).into_bytes()).unwrap_err());
    log.display(&ServerKeys::new(GIVEN.as_bytes()).unwrap_err());
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
    let reserved = Tokens::bearer("a").unwrap().member("scope", member);
    log.display(&reserved.unwrap_err());
    for uri in [with(""), format!("{PAGE}?{GIVEN}")] {
        log.display(&Policy::new(&uri, PolicyOptions::default()).unwrap_err());
    }
    for options in [
        PolicyOptions {
            realm: with("\""),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            interval: Duration::from_secs(61),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            cap: Duration::from_secs(1),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            lifetime: Duration::from_secs(1),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            retry_window: Some(Duration::from_secs(31)),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            retention: Duration::from_secs(1),
            ..PolicyOptions::default()
        },
        PolicyOptions {
            outstanding: 1 << 40,
            ..PolicyOptions::default()
        },
        PolicyOptions {
            max_body: 0,
            ..PolicyOptions::default()
        },
        with_refresh(RefreshOptions {
            scope: with(" x"),
            ..RefreshOptions::default()
        }),
    ] {
        log.display(&Policy::new(PAGE, options).unwrap_err());
    }
    log.display(&GrantRefusal::error("Qx6vGIVENzW9k\"", "").unwrap_err());
    log.display(&Metadata::read(GIVEN.as_bytes(), GIVEN).unwrap_err());
    for url in [
        with(""),
        format!("http://{GIVEN}.example.com"),
        format!("{PAGE}?{GIVEN}"),
        format!("{PAGE}#{GIVEN}"),
    ] {
        let unused = Metadata::well_known(&url).unwrap_err();
        log.display(&unused);
        let MetadataError::Url(reason) = unused else {
            panic!("{unused}")
        };
        log.display(&reason);
    }
    log.display(&RateLimit::new(0, Duration::from_secs(1)).unwrap_err());
    log.assert_silent();
}

#[test]
fn the_errors_of_the_page_say_nothing_of_the_session() {
    let mut login = Login::new();
    let mut log = Log::new();
    log.hide(&login.codes);
    login.claim(0);
    log.display(&login.withdraw_by(&alice(), 0).unwrap_err());
    let wide = Consent::to(scope(GIVEN));
    log.display(&login.consent_by(&alice(), &wide, 0).unwrap_err());
    log.display(&login.approve_by(&bob(), 0).unwrap_err());
    log.display(
        &login
            .approve_by(&alice(), support::login::LIFETIME)
            .unwrap_err(),
    );
    login.approve(0);
    log.display(&login.deny_by(&alice(), 0).unwrap_err());
    log.display(&login.release_by(&bob(), 0).unwrap_err());
    for _ in 0..9 {
        let user = bob();
        let typed = &login.codes.user_code;
        let entered = login.host.claim(&login.server, &user, typed, NOW);
        let wrong = entered.unwrap_err();
        log.display(&wrong);
        if let PageError::RateLimited(limited) = wrong {
            log.display(&limited);
        }
    }
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    log.secrets.push(("subject", b"alice".to_vec()));
    log.secrets.push(("scope", b"profile".to_vec()));
    log.assert_silent();
}

#[test]
fn a_stored_form_that_is_refused_is_not_echoed_by_the_reason() {
    // The texts of serde_json about the JSON itself are not ours. The reasons that this crate gives are constant.
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.as_bytes().to_vec()));
    let form = Login::new().form();
    for (member, value) in [
        ("key", json!(GIVEN)),
        ("user_key", json!(GIVEN)),
        ("client_id", json!(format!("{GIVEN}\n"))),
        ("scope", json!(format!("{GIVEN}  x"))),
        ("state", json!({ "claimed": format!("{GIVEN}\n") })),
        ("v", json!(3)),
    ] {
        let mut form = form.clone();
        form[member] = value;
        log.display(&serde_json::from_value::<Session>(form).unwrap_err());
    }
    log.assert_silent();
}

#[test]
fn no_refusal_echoes_what_was_sent() {
    let server = Server::new(policy(), secret_keys());
    // `Stage` would format the client id of the claim, which is not secret.
    let mut host = support::Host::new([confidential()]);
    let mut log = Log::new();
    log.secrets.push(("input", GIVEN.into()));
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
        let request: Request<'_> = post(&body).authorization(&header);
        let reply = host.run(server.token(request, GIVEN, NOW));
        assert!(reply.response().status() >= 400);
        log.display(&reply.cause());
        log.debug(&reply);
        // The whole response, as it is sent.
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

/// Every public type is in one of the tests above.
#[test]
fn no_public_type_is_left_out() {
    a_login_shows_nothing_from_its_codes_to_its_end();
    a_client_of_another_endpoint_shows_none_of_its_parameters();
    what_a_host_makes_shows_nothing();
    no_error_echoes_its_input();
    the_errors_of_the_page_say_nothing_of_the_session();

    // The keys are declared by a macro.
    let mut public = BTreeSet::from(["SessionKey", "UserKey", "QuotaKey"]);
    let (_, exports) = include_str!("../../src/server/mod.rs")
        .split_once("\npub use ")
        .unwrap();
    let (exports, _) = exports.split_once("\n\n").unwrap();
    let names = exports.split(|c: char| !c.is_alphanumeric());
    public.extend(names.filter(|name| name.starts_with(char::is_uppercase)));
    for module in [
        include_str!("../../src/code.rs"),
        include_str!("../../src/digest.rs"),
        include_str!("../../src/memory.rs"),
        include_str!("../../src/scope.rs"),
        include_str!("../../src/wire/metadata.rs"),
        include_str!("../../src/wire/uri.rs"),
    ] {
        for line in module.lines() {
            let declared = line.strip_prefix("pub struct ");
            let Some(rest) = declared.or_else(|| line.strip_prefix("pub enum ")) else {
                continue;
            };
            public.extend(rest.split(|c: char| !c.is_alphanumeric()).next());
        }
    }
    // Traits, and a document that everybody may read.
    for exempt in ["Finish", "Host", "Store", "Metadata"] {
        assert!(public.remove(exempt), "{exempt}");
    }
    let left_out = SEEN.with_borrow(|seen| {
        let is_left_out = |name: &&str| !seen.contains(*name);
        public.into_iter().filter(is_left_out).collect::<Vec<_>>()
    });
    assert_eq!(left_out, [""; 0]);
}
