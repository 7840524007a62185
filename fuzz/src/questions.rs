//! Whatever a host answers to the questions of an exchange, the exchange ends after few of them.
//! It sends no token that was not stored, treats no failure of the host as an answer, and shows no secret.
//!
//! The first byte of an input says what is asked of the server. The others say what the host answers, one byte for each question. The host
//! may read another session than it was asked for, lose writes, forget clients, and drop questions. After the last byte, it answers well.

use core::fmt::Debug;
use std::sync::OnceLock;

use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::{
    Client, ClientAuthMethod, Consent, Exchange, Finish, Found, GrantRefusal, Inserted, Next,
    PageError, RateLimited, RateState, Reply, Server, Stored, Take, Unavailable, Write,
};

use crate::support::login::{self, Login};
use crate::support::{
    ACCESS_TOKEN, BACKEND, CLI, SECRET, alice, authorization, backend, basic, cli, entropy, policy,
    poll_body, post, refresh_body, refresh_token, revocation_body, scope, tokens,
};

/// More questions than any exchange has. An entry looks its code up under two keys, three times.
const MOST_QUESTIONS: usize = 24;

/// When everything happens: between the approval and the end of the grace.
const MOMENT: i64 = 12_000;

pub(crate) fn run(data: &[u8]) {
    let Some((&task, answers)) = data.split_first() else {
        return;
    };
    let known = KNOWN.get_or_init(Known::new);
    let now = login::at(MOMENT);
    let consent = Consent::to_all();
    let user = alice();
    let header = match task % 3 {
        0 => None,
        1 => authorization(&backend()),
        _ => Some(basic(BACKEND, "a wrong secret of sixteen")),
    };
    // An empty parameter counts as absent.
    let id = if header.is_some() { "" } else { CLI };
    let asked = task / 3 % 10;
    let body = match asked {
        0 => poll_body(id, &known.device_code),
        1 => refresh_body(id, &known.token),
        2 => revocation_body(id, &known.token),
        _ => format!("scope=openid&client_id={id}"),
    };
    let request = post(&body).authorization(header.as_ref());
    let server = &known.server;
    let mut host = Host::new(known, answers);
    match asked {
        0 | 1 => {
            let reply = host.run(server.token(request, "", now));
            host.replied(&reply, &[Last::Tokens]);
        }
        2 => {
            let reply = host.run(server.revocation(request, "", now));
            host.replied(&reply, &[Last::Change, Last::Other]);
            assert!(!reply.response().body().contains("token\":"));
        }
        3 => {
            let reply = host.run(server.device_authorization(request, "", None, now));
            host.replied(&reply, &[Last::Insert]);
        }
        4 => match host.run(server.authenticate(request, "", now)) {
            Ok(client) => assert!(!host.has_failed && shows_nothing(&client)),
            Err(reply) => host.replied(&reply, &[]),
        },
        5 => {
            let review = host.run(server.enter(&known.user_code, &user, "a source", now));
            host.decided(review.map(|review| *review.session_key()));
        }
        _ => {
            let decision = match asked {
                6 => server.approve(&known.key, &user, &consent, now),
                7 => server.deny(&known.key, &user, now),
                8 => server.withdraw(&known.key, &user, now),
                _ => server.release(&known.key, &user, now),
            };
            let decided = host.run(decision);
            host.decided(decided.map(|session| *session.key()));
        }
    }
}

/// What a host may have: one session in each of its states, a session of somebody else, and registrations.
struct Known {
    server: Server,
    stored: Vec<Stored>,
    clients: Vec<Client>,
    device_code: String,
    user_code: String,
    token: String,
    key: SessionKey,
}

static KNOWN: OnceLock<Known> = OnceLock::new();

impl Known {
    fn new() -> Self {
        let asked: Scope = scope("openid offline_access");
        let client = cli().allow_scope(asked);
        let begin = || Login::asking(policy(), client.clone(), "openid+offline_access");
        let stored = |login: &Login| login.host.store.load(&login.codes.key).unwrap().clone();
        let mut all = Vec::new();
        let mut login = begin();
        all.push(stored(&login));
        login.claim(1);
        all.push(stored(&login));
        login.approve(2);
        all.push(stored(&login));
        let redeemed = login.poll(6_000).reply;
        all.push(stored(&login));
        let first = refresh_token(&redeemed);
        let host = &mut login.host;
        let refreshed = host.refresh(&login.server, &client, &first, login::at(9_000));
        assert_eq!(refreshed.response().status(), 200);
        all.push(stored(&login)); // the previous token is within its grace
        login.withdraw();
        all.push(stored(&login));
        let mut denied = begin();
        denied.deny(1);
        all.push(stored(&denied));
        let strangers = login.host.issue(&login.server, &client, 2, login::at(0));
        all.push(login.host.store.load(&strangers.key).unwrap().clone());
        let without_grant = Client::new(CLI, ClientAuthMethod::None);
        let with_less = cli().allow_scope(scope("openid"));
        Self {
            server: crate::support::server(),
            stored: all,
            clients: vec![client, backend(), without_grant.unwrap(), with_less],
            device_code: login.codes.device_code,
            user_code: login.codes.user_code,
            token: first,
            key: login.codes.key,
        }
    }
}

/// What the host answered last, as far as a success can come from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Tokens,
    Insert,
    Change,
    Other,
}

/// A host that answers as the bytes say.
struct Host<'d> {
    known: &'d Known,
    answers: core::slice::Iter<'d, u8>,
    last: Last,
    /// Whether something failed, or was not what was asked for.
    has_failed: bool,
}

impl<'d> Host<'d> {
    fn new(known: &'d Known, answers: &'d [u8]) -> Self {
        Self {
            known,
            answers: answers.iter(),
            last: Last::Other,
            has_failed: false,
        }
    }

    /// Returns a number under `choices`. After the last byte it returns zero, which is the good answer.
    fn pick(&mut self, choices: usize) -> usize {
        self.answers
            .next()
            .map_or(0, |&byte| usize::from(byte) % choices)
    }

    fn unavailable(&mut self) -> Unavailable {
        self.has_failed = true;
        Unavailable
    }

    fn written(&mut self, committed: Last) -> Result<Write, Unavailable> {
        self.last = Last::Other;
        match self.pick(4) {
            0 => {
                self.last = committed;
                Ok(Write::Committed)
            }
            1 | 2 => Ok(Write::Conflict),
            _ => Err(self.unavailable()),
        }
    }

    fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>) -> T {
        let known = self.known;
        let mut dropped = None;
        for _ in 0..MOST_QUESTIONS {
            // A question that is dropped is asked again, the same.
            while self.answers.len() > 0 && self.pick(8) == 7 {
                let question = exchange.next();
                if let Next::Done(end) = question {
                    return end;
                }
                // A pace needs no answer, so it is not asked again.
                if !matches!(question, Next::SavePace(..)) {
                    let shown = format!("{question:?}");
                    let before = dropped.replace(shown);
                    assert!(before.is_none_or(|before| Some(before) == dropped));
                }
            }
            let question = exchange.next();
            assert!(shows_nothing(&question));
            if let Some(dropped) = dropped.take() {
                assert_eq!(dropped, format!("{question:?}"));
            }
            match question {
                // A client with another id counts as unknown. A store that ignores case could return one.
                Next::Client(claim, ask) => match self.pick(8) {
                    0 | 1 => {
                        let its = |own: &&Client| Some(own.id()) == claim.client_id();
                        ask.answer(Ok(known.clients.iter().find(its)));
                    }
                    2 => ask.answer(Ok(None::<&Client>)),
                    3 => ask.answer(Err::<Option<&Client>, _>(self.unavailable())),
                    4 => ask.answer(Ok(Found::<&Client>::Refused)),
                    5 => {
                        let client = &known.clients[self.pick(known.clients.len())];
                        ask.answer(Ok(Found::Verified(client)));
                    }
                    _ => {
                        let client = &known.clients[self.pick(known.clients.len())];
                        ask.answer(Ok(Some(client)));
                    }
                },
                Next::Take(take, ask) => {
                    let taken = self.taken(&take);
                    ask.answer(taken);
                }
                Next::Load(key, ask) => match self.pick(12) {
                    8 => ask.answer(Ok(None)),
                    9 => ask.answer(Err(self.unavailable())),
                    choice => {
                        let stored = &known.stored[choice % known.stored.len()];
                        self.has_failed |= stored.session.key() != key;
                        ask.answer(Ok(Some(stored)));
                    }
                },
                Next::LoadByUserKey(key, ask) => match self.pick(12) {
                    8 => ask.answer(Ok(None)),
                    9 => ask.answer(Err(self.unavailable())),
                    choice => {
                        let stored = &known.stored[choice % known.stored.len()];
                        // The host's index may still have the code of a redeemed session.
                        self.has_failed |= stored.session.user_key().is_some_and(|own| own != key);
                        ask.answer(Ok(Some(stored)));
                    }
                },
                Next::Draw(ask) => match self.pick(4) {
                    3 => ask.answer(Err(self.unavailable())),
                    seed => ask.answer(Ok(entropy(u8::try_from(40 + seed).unwrap()))),
                },
                Next::Insert(_, ask) => {
                    self.last = Last::Other;
                    match self.pick(4) {
                        0 => {
                            self.last = Last::Insert;
                            ask.answer(Ok(Inserted::New));
                        }
                        1 => ask.answer(Ok(Inserted::DeviceCodeTaken)),
                        2 => ask.answer(Ok(Inserted::UserCodeTaken)),
                        _ => ask.answer(Err(self.unavailable())),
                    }
                }
                Next::Mint(_, _, ask) => match self.pick(8) {
                    6 => ask.refuse(GrantRefusal::consent_gone()),
                    7 => ask.refuse(GrantRefusal::failed()),
                    _ => ask.answer(self.written(Last::Tokens), &tokens()),
                },
                Next::Change(_, ask) => ask.answer(self.written(Last::Change)),
                Next::SavePace(..) => {}
                Next::Done(end) => return end,
            }
        }
        panic!("it does not end");
    }

    /// Returns whether the quota has one left. If it fails after a wrong secret, that changes nothing, because the secret was wrong.
    fn taken(&mut self, take: &Take) -> Result<Result<(), RateLimited>, Unavailable> {
        match self.pick(4) {
            0 | 1 => Ok(Ok(())),
            2 => {
                let latest = RateState::from_millis(take.latest_millis());
                Ok(Err(take.refused(latest)))
            }
            _ => Err(Unavailable),
        }
    }

    /// Asserts that a success comes from one of these answers, and that nothing else has a token.
    fn replied(&self, reply: &Reply, from: &[Last]) {
        let response = reply.response();
        let is_success = response.status() == 200;
        assert!(
            !is_success || from.contains(&self.last),
            "{:?}",
            reply.cause()
        );
        // If something has failed, the answer must be a 503.
        let is_unavailable = response.status() == 503;
        assert!(is_unavailable || !self.has_failed, "{:?}", reply.cause());
        let has_tokens = response.body().contains(ACCESS_TOKEN);
        assert_eq!(has_tokens, is_success && self.last == Last::Tokens);
        if !is_success {
            let body: serde_json::Value = serde_json::from_str(response.body()).unwrap();
            assert!(body["error"].is_string());
        }
        assert!(shows_nothing(reply));
    }

    fn decided(&self, decided: Result<SessionKey, PageError>) {
        match decided {
            Ok(key) => assert!(key == self.known.key && !self.has_failed),
            Err(error) => assert!(error == PageError::Unavailable || !self.has_failed),
        }
    }
}

/// Returns whether a `Debug` output has nothing that must not be logged.
fn shows_nothing(shown: &impl Debug) -> bool {
    let text = format!("{shown:?}");
    let known = KNOWN.get().unwrap();
    let secrets = [
        &*known.device_code,
        &*known.user_code,
        &*known.token,
        ACCESS_TOKEN,
        SECRET,
    ];
    !secrets.iter().any(|secret| text.contains(secret))
}
