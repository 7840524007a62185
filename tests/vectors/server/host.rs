//! The host of the server's vectors. It answers each question as the step says, and otherwise as a good host does.

use core::slice::Iter;
use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Change, Client, Exchange, Finish, Found, GrantRefusal, Inserted, Next, Reply, Request,
    Session, Tokens, Unavailable, Write,
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::start::anybody;
use super::{Answer, Done, World};
use crate::form::{
    self, Drawn, Endpoint, Finding, Insert, Load, Meanwhile, Says, Sent, Step, Store, Wrote,
};
use crate::support::{self, Codes};

/// What a step says about the host and its store, and the moment at which somebody else acts meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Script<'s> {
    host: &'s form::Host,
    store: &'s Store,
    at: i64,
    /// The client that is found, whatever the registry says.
    found: Option<&'s Client>,
}

impl<'s> From<&'s Step> for Script<'s> {
    fn from(step: &'s Step) -> Self {
        Self {
            host: &step.host,
            store: &step.store,
            at: step.at,
            found: None,
        }
    }
}

impl World<'_> {
    pub(super) fn serve(
        &mut self,
        step: &Step,
        request: &Sent,
        done: &mut Done,
    ) -> Result<Answer, String> {
        let body = match &request.body_base64 {
            Some(octets) => STANDARD.decode(octets).unwrap(),
            None => self.filled_in(step, &request.body).into_bytes(),
        };
        let usual = [self.file.content_type.clone()];
        let types = request.content_type.as_deref().unwrap_or(&usual);
        with_request(request, types, &body, |sent| {
            self.answers(step, request.endpoint, sent, done)
        })
    }

    fn answers(
        &mut self,
        step: &Step,
        endpoint: Endpoint,
        request: Request<'_>,
        done: &mut Done,
    ) -> Result<Answer, String> {
        let (server, now) = (self.server.clone(), self.at(step.at));
        let source = step.source.as_deref().unwrap_or_default();
        let codes = self.codes(step).cloned();
        let exchange = match endpoint {
            Endpoint::Token => server.token(request, source, now),
            Endpoint::DeviceAuthorization => {
                server.device_authorization(request, source, None, now)
            }
            Endpoint::Revocation => server.revocation(request, source, now),
        };
        let reply = self.ask(exchange, codes.as_ref(), step.into(), done);
        let cause = reply.cause();
        if cause == Cause::GrantTypeUnsupported {
            return Ok(self.dispatched(step, request, reply));
        }
        if cause == Cause::Issued {
            self.issued.push(Codes::of(&reply));
        }
        self.note_refresh_token(&reply)?;
        Ok(Answer::Reply(reply))
    }

    /// Serves a grant of the host itself. The crate only authenticates the client for it.
    fn dispatched(&mut self, step: &Step, request: Request<'_>, reply: Reply) -> Answer {
        let (server, now) = (self.server.clone(), self.at(step.at));
        let exchange = server.authenticate(request, "", now);
        let known = self.ask(exchange, None, step.into(), &mut Done::default());
        let grant = known.ok().and_then(|known| known.parameter("grant_type"));
        match grant.filter(|grant| step.host.grants.iter().any(|own| own == grant)) {
            Some(grant) => Answer::Dispatched(grant.into_owned()),
            None => Answer::Reply(reply),
        }
    }

    /// Runs an exchange for this client, with a host and a store that work.
    pub(super) fn honestly<'r, T: Finish<'r>>(
        &mut self,
        exchange: Exchange<'r, T>,
        client: &Client,
    ) -> T {
        let script = Script {
            host: &form::Host::default(),
            store: &Store::default(),
            at: 0,
            found: Some(client),
        };
        self.ask(exchange, None, script, &mut Done::default())
    }

    /// Runs an exchange to its end. `codes` are those of the session that it is about.
    pub(super) fn ask<'r, 'c, T: Finish<'r>>(
        &mut self,
        mut exchange: Exchange<'r, T>,
        codes: impl Into<Option<&'c Codes>>,
        script: Script<'_>,
        done: &mut Done,
    ) -> T {
        let codes = codes.into();
        let (mut writes, mut inserts) = (script.store.change.iter(), script.store.insert.iter());
        let end = loop {
            match exchange.next() {
                Next::Client(claim, ask) => {
                    done.looked_up_client = true;
                    if script.host.registry.is_some() {
                        ask.answer(Err::<Found<_>, _>(Unavailable));
                        continue;
                    }
                    let known = claim.client_id().and_then(|id| self.clients.get(id));
                    ask.answer(Ok(match (&script.host.verdict, script.found) {
                        (Some(Finding::Authenticated(id)), _) => Found::Verified(&self.clients[id]),
                        (Some(Finding::Refused), _) => Found::Refused,
                        (None, Some(found)) => Found::Registered(found),
                        (None, None) => Found::from(known),
                    }));
                }
                Next::Take(take, ask) => {
                    let fails = script.store.take.is_some();
                    ask.answer(if fails {
                        Err(Unavailable)
                    } else {
                        Ok(self.quotas.take(&take))
                    });
                }
                Next::Load(key, ask) => {
                    done.looked_up_session = true;
                    let stored = self.sessions.load(key);
                    ask.answer(match script.store.load {
                        Some(load) => Err(unreadable(load, &stored.unwrap().session)),
                        None => Ok(stored),
                    });
                }
                Next::LoadByUserKey(key, ask) => {
                    done.looked_up_session = true;
                    ask.answer(match script.store.load {
                        Some(_) => Err(Unavailable),
                        None => Ok(self.sessions.load_by_user_key(key)),
                    });
                }
                Next::Draw(ask) => {
                    done.draws += 1;
                    ask.answer(self.draws(script.host.entropy));
                }
                Next::Insert(session, ask) => ask.answer(match inserts.next() {
                    None | Some(Insert::New) => {
                        done.wrote = Wrote::Session;
                        Ok(self.sessions.insert(session))
                    }
                    Some(Insert::UserCodeTaken) => Ok(Inserted::UserCodeTaken),
                    Some(Insert::DeviceCodeTaken) => Ok(Inserted::DeviceCodeTaken),
                    Some(Insert::Unknown) => Err(Unavailable),
                }),
                Next::Mint(_, change, ask) => {
                    if let Some(refusal) = refusal(script.host) {
                        ask.refuse(refusal);
                        continue;
                    }
                    let written = self.writes(change, codes, script.at, &mut writes, done);
                    let minted = script.host.tokens.as_ref().unwrap_or(&self.file.tokens);
                    ask.answer(written, &tokens(minted));
                }
                Next::Change(change, ask) => {
                    ask.answer(self.writes(change, codes, script.at, &mut writes, done));
                }
                Next::SavePace(key, pace) => {
                    if script.store.save_pace.is_none() {
                        self.sessions.save_pace(key, pace);
                        done.wrote = Wrote::Pace;
                    }
                }
                Next::Done(end) => break end,
            }
        };
        done.unasked = writes.len() + inserts.len();
        end
    }

    /// Draws octets. Each draw gives other codes, unless the step says otherwise.
    fn draws(&mut self, drawn: Option<Drawn>) -> Result<Entropy, Unavailable> {
        self.drawn += 1;
        match drawn {
            None => {
                self.last_user_code = self.drawn;
                Ok(support::entropy(self.drawn))
            }
            Some(Drawn::SameUserCode) => Ok(support::entropy_of(self.drawn, self.last_user_code)),
            Some(Drawn::Blank) => Ok(Entropy::from([0; Entropy::OCTETS])),
            Some(Drawn::Fails) => Err(Unavailable),
        }
    }

    fn writes(
        &mut self,
        change: Change<'_>,
        codes: Option<&Codes>,
        at: i64,
        says: &mut Iter<'_, form::Write>,
        done: &mut Done,
    ) -> Result<Write, Unavailable> {
        let honest = form::Write::default();
        let write = says.next().unwrap_or(&honest);
        if let Some(meanwhile) = &write.meanwhile {
            done.rivals = true;
            self.is_faster(meanwhile, codes.unwrap(), self.at(at));
        }
        let is_done = match write.says {
            Says::Won => true,
            // If somebody else was faster, the guard must notice that. Otherwise the store reports a conflict without a reason.
            Says::Lost => write.meanwhile.is_some(),
            Says::Unknown => write.written == Some(true),
        };
        let written = if is_done {
            self.sessions.change(change)
        } else {
            Write::Conflict
        };
        if written == Write::Committed {
            done.wrote = Wrote::Session;
        }
        match write.says {
            Says::Won | Says::Lost => Ok(written),
            Says::Unknown => Err(Unavailable),
        }
    }

    /// Does what somebody else does between a load and a write.
    fn is_faster(&mut self, meanwhile: &Meanwhile, codes: &Codes, now: OffsetDateTime) {
        let server = self.server.clone();
        let session = self.session(codes).unwrap();
        let client = anybody(session.client_id(), session.scope().as_str());
        let claimant = session.claimant().cloned();
        match meanwhile {
            Meanwhile::Removed => self.sessions = Memory::new(),
            Meanwhile::Redeemed => self.is_redeemed(codes, now),
            Meanwhile::Refreshed(number) => self.is_refreshed(codes, *number, now),
            Meanwhile::Withdrawn => {
                let exchange = server.withdraw(&codes.key, claimant.as_ref().unwrap(), now);
                let _ = self.honestly(exchange, &client).unwrap();
            }
            Meanwhile::Released => {
                let exchange = server.release(&codes.key, claimant.as_ref().unwrap(), now);
                let _ = self.honestly(exchange, &client).unwrap();
            }
            Meanwhile::Entered(user) => {
                let user = support::subject(user);
                let exchange = server.enter(&codes.user_code, &user, "", now);
                let _ = self.honestly(exchange, &client).unwrap();
            }
        }
    }
}

/// Returns why the host refuses to mint, if the step says so.
fn refusal(host: &form::Host) -> Option<GrantRefusal> {
    if let Some(refusal) = &host.refuses {
        let error = GrantRefusal::error(refusal.error.clone().leak(), "no").unwrap();
        return Some(match refusal.status {
            400 => error,
            401 => error.unauthorized(),
            other => panic!("a refusal has no status {other}"),
        });
    }
    let is_gone = host.consent.map(|_| GrantRefusal::consent_gone());
    is_gone.or_else(|| host.minting.map(|_| GrantRefusal::failed()))
}

/// Returns the error that comes of reading a stored form that cannot be read.
fn unreadable(load: Load, session: &Session) -> Unavailable {
    let mut form = serde_json::to_value(session).unwrap();
    match load {
        Load::Fails => return Unavailable,
        Load::Corrupt => form["expires_at"] = json!(0),
        Load::UnknownVersion => form["v"] = json!(255),
    }
    let read: Result<Session, Unavailable> = serde_json::from_value(form).map_err(Into::into);
    read.unwrap_err()
}

fn tokens(minted: &Map<String, Value>) -> Tokens<'_> {
    let text = |name: &str| minted.get(name).and_then(Value::as_str);
    let token_type = text("token_type").unwrap();
    let mut tokens = Tokens::of_type(token_type, text("access_token").unwrap()).unwrap();
    for (name, value) in minted {
        tokens = match name.as_str() {
            "access_token" | "token_type" => tokens,
            "expires_in" => tokens.expires_in(Duration::from_secs(value.as_u64().unwrap())),
            "refresh_token" => tokens.refresh_token(value.as_str().unwrap()).unwrap(),
            "id_token" => tokens.id_token(value.as_str().unwrap()).unwrap(),
            other => tokens.member(other, value.clone()).unwrap(),
        };
    }
    tokens
}

/// Calls `then` with the request as the crate takes it. The crate takes no query, so the query of the vector is left out.
#[cfg(not(feature = "http"))]
fn with_request<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Request<'_>) -> T,
) -> T {
    let sent = Request::new(&request.method, body)
        .content_type(types)
        .authorization(&request.authorization);
    then(sent)
}

/// Calls `then` with the request converted from the types of `http`, where the URL has the query.
#[cfg(feature = "http")]
fn with_request<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Request<'_>) -> T,
) -> T {
    let query = request.query.as_deref().unwrap_or_default();
    let mut builder = http::Request::builder()
        .method(&*request.method)
        .uri(format!("https://as.example/endpoint?{query}"));
    for value in types {
        builder = builder.header("content-type", value);
    }
    for value in &request.authorization {
        builder = builder.header("authorization", value);
    }
    then(Request::from(&builder.body(body.to_vec()).unwrap()))
}
