//! The host of the server's vectors: it does what a step says of it, and else what a host should.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::time::Duration;
use device_flow::digest::QuotaKey;
use device_flow::memory::Memory;
use device_flow::server::{
    Change, Form, Grant, HostError, HostVerdict, Incoming, Inserted, Issuing, Limit, Poll, Polled,
    Registration, Reply, Session, Unauthenticated, Written,
};
use device_flow::wire::tokens::Tokens;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Done, World, codes, policy};
use crate::form::{Endpoint, Finding, Insert, Load, Meanwhile, Says, Sent, Step, Write, Wrote};
use crate::support;

impl World<'_> {
    pub(super) fn serve(&mut self, step: &Step, request: &Sent) -> Done {
        let mut done = Done {
            answer: Err(String::new()),
            wrote: Wrote::Nothing,
            draws: 0,
            looked_up_client: false,
            looked_up_session: false,
            rivals: false,
            before: self.record(),
        };
        let body = match &request.body_base64 {
            Some(octets) => STANDARD.decode(octets).unwrap(),
            None => self.filled_in(&request.body).into_bytes(),
        };
        let usual = [self.file.content_type.clone()];
        let types = request.content_type.as_deref().unwrap_or(&usual);
        // Policy and clients are read while the stores are written.
        let policy = policy(&self.numbers);
        let clients = self.clients.clone();
        done.answer = with_incoming(request, types, &body, |incoming| {
            let form = match Form::read(incoming, &policy) {
                Ok(form) => form,
                Err(reply) => return Ok(reply),
            };
            let reply = match request.endpoint {
                Endpoint::Token => match form.grant() {
                    Ok(Grant::Other(form)) => {
                        let asked = form.parameter("grant_type").unwrap_or_default();
                        if step.host.grants.iter().any(|own| *own == asked) {
                            return Err(asked.into_owned());
                        }
                        Ok(form.unsupported_grant())
                    }
                    Ok(Grant::DeviceCode(request)) => self
                        .knows(step, &clients, request, &mut done)
                        .map(|poll| self.polled(step, poll, &mut done)),
                    Err(reply) => Err(reply),
                },
                Endpoint::DeviceAuthorization => form
                    .device_authorization()
                    .and_then(|request| self.knows(step, &clients, request, &mut done))
                    .map(|issuing| self.issues(step, issuing, &mut done)),
            };
            Ok(reply.unwrap_or_else(|refused| refused))
        });
        done
    }

    /// Table B, for both endpoints.
    fn knows<'f, T: Next<'f>>(
        &mut self,
        step: &Step,
        clients: &'f BTreeMap<String, Registration>,
        request: Unauthenticated<'f, T>,
        done: &mut Done,
    ) -> Result<T, Reply> {
        done.looked_up_client = true;
        if step.host.registry.is_some() {
            return Err(Reply::store_failed());
        }
        let now = self.at(step.at);
        let key = request.secret_quota_key(step.source.as_deref().unwrap_or_default());
        if let Some(key) = &key {
            request.check_secret_quota(self.quotas.load_quota(key), now)?;
        }
        let found = request.client_id().and_then(|id| clients.get(id));
        let next = match &step.host.verdict {
            Some(Finding::Authenticated(id)) => {
                T::by_host(request, HostVerdict::Authenticated(&clients[id]))
            }
            Some(Finding::Refused) => T::by_host(request, HostVerdict::Refused),
            None => T::by_core(request, found),
        };
        next.inspect_err(|refused| {
            if let Some(key) = key.filter(|_| refused.cause().is_wrong_secret()) {
                let limit = self.policy.secret_limit();
                assert!(spend(&mut self.quotas, key, limit, now).is_ok());
            }
        })
    }

    fn issues(&mut self, step: &Step, mut issuing: Issuing<'_>, done: &mut Done) -> Reply {
        let now = self.at(step.at);
        let key = issuing.quota_key(step.source.as_deref().unwrap_or_default());
        if let Err(spent) = spend(&mut self.quotas, key, self.policy.issuing_limit(), now) {
            return spent;
        }
        let mut says = step.store.insert.iter();
        loop {
            let issuance = match issuing.draw(self.entropy(), &support::keys(), now) {
                Ok(issuance) => issuance,
                Err(reply) => return reply,
            };
            done.draws += 1;
            let inserted = match says.next() {
                None | Some(Insert::New) => self.sessions.insert(issuance.session()),
                Some(Insert::UserCodeTaken) => Inserted::UserCodeTaken,
                Some(Insert::DeviceCodeTaken) => Inserted::DeviceCodeTaken,
                Some(Insert::Unknown) => Inserted::Unknown,
            };
            let key = *issuance.session().key();
            if let Ok(reply) = issuance.settle(inserted) {
                assert!(says.next().is_none(), "the store was asked less often");
                if inserted == Inserted::New {
                    self.codes = Some(codes(key, &reply));
                    done.wrote = Wrote::Session;
                }
                return reply;
            }
        }
    }

    fn polled(&mut self, step: &Step, mut poll: Poll<'_>, done: &mut Done) -> Reply {
        let now = self.at(step.at);
        let key = poll.session_key().copied();
        done.looked_up_session = key.is_some();
        let mut says = step.store.change.iter();
        let minted = step.host.tokens.as_ref().unwrap_or(&self.file.tokens);
        let reply = loop {
            let stored = key.and_then(|key| self.sessions.load(&key).cloned());
            if let Some(load) = step.store.load {
                unreadable(load, &stored.unwrap().session);
                return Reply::store_failed();
            }
            let settled = match poll.decide(stored.as_ref(), now) {
                Polled::Reply(reply) => break reply,
                Polled::Paced(key, pace, reply) => {
                    if step.store.save_pace.is_none() {
                        self.sessions.save_pace(key, pace);
                        done.wrote = Wrote::Pace;
                    }
                    break reply;
                }
                Polled::Redeem(redemption) => {
                    if let Some(refusal) = &step.host.refuses {
                        assert_eq!(refusal.status, 400);
                        let error = refusal.error.clone().leak();
                        break redemption.refuse(HostError::new(error, "no").unwrap());
                    }
                    if step.host.consent.is_some() {
                        let revocation = redemption.revoke();
                        let written = self.writes(says.next(), revocation.change(), now, done);
                        revocation.settle(written)
                    } else if step.host.minting.is_some() {
                        break redemption.minting_failed();
                    } else {
                        let written = self.writes(says.next(), redemption.change(), now, done);
                        redemption.settle(written, &tokens(minted))
                    }
                }
            };
            if let Ok(reply) = settled {
                break reply;
            }
        };
        assert!(says.next().is_none(), "the store was asked less often");
        reply
    }

    fn writes(
        &mut self,
        says: Option<&Write>,
        change: &Change,
        now: OffsetDateTime,
        done: &mut Done,
    ) -> Written {
        let Some(write) = says else {
            done.wrote = Wrote::Session;
            return self.sessions.change(change);
        };
        done.rivals |= write.meanwhile.is_some();
        match write.meanwhile {
            None => {}
            Some(Meanwhile::Removed) => self.sessions = Memory::new(),
            Some(Meanwhile::Redeemed) => self.is_redeemed(now),
            Some(Meanwhile::Withdrawn) => {
                let session = self.session().unwrap();
                let user = session.claimant().unwrap().clone();
                let change = session.withdraw(&user).unwrap().unwrap();
                assert_eq!(self.sessions.change(&change), Written::Won);
            }
        }
        match write.says {
            Says::Won => {
                done.wrote = Wrote::Session;
                self.sessions.change(change)
            }
            // Where somebody was faster the guard must see it; else the store lost it for reasons of its own.
            Says::Lost if write.meanwhile.is_some() => self.sessions.change(change),
            Says::Lost => Written::Lost,
            Says::Unknown => {
                if write.written == Some(true) {
                    done.wrote = Wrote::Session;
                    assert_eq!(self.sessions.change(change), Written::Won);
                }
                Written::Unknown
            }
        }
    }
}

pub(super) fn spend(
    quotas: &mut Memory,
    key: QuotaKey,
    limit: Limit,
    now: OffsetDateTime,
) -> Result<(), Reply> {
    let change = limit.take(key, quotas.load_quota(&key), now);
    let change = change.map_err(Reply::issuing_quota_spent)?;
    assert_eq!(quotas.change_quota(&change), Written::Won);
    Ok(())
}

/// A stored form that cannot be read must say so when it is read.
fn unreadable(load: Load, session: &Session) {
    let mut form = serde_json::to_value(session).unwrap();
    match load {
        Load::Fails => return,
        Load::Corrupt => form["expires_at"] = json!(0),
        Load::UnknownVersion => form["v"] = json!(255),
    }
    assert!(serde_json::from_value::<Session>(form).is_err());
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
            other => tokens.member(other, value).unwrap(),
        };
    }
    tokens
}

/// What an authenticated request becomes, at either endpoint.
trait Next<'f>: Sized {
    fn by_core(
        request: Unauthenticated<'f, Self>,
        found: Option<&'f Registration>,
    ) -> Result<Self, Reply>;
    fn by_host(request: Unauthenticated<'f, Self>, verdict: HostVerdict<'f>)
    -> Result<Self, Reply>;
}

macro_rules! next {
    ($next:ident) => {
        impl<'f> Next<'f> for $next<'f> {
            fn by_core(
                request: Unauthenticated<'f, Self>,
                found: Option<&'f Registration>,
            ) -> Result<Self, Reply> {
                request.authenticate(found)
            }

            fn by_host(
                request: Unauthenticated<'f, Self>,
                verdict: HostVerdict<'f>,
            ) -> Result<Self, Reply> {
                request.authenticate_by(verdict)
            }
        }
    };
}

next!(Poll);
next!(Issuing);

/// The request as the core takes it. It has no query: that of the vector stays where it is.
#[cfg(not(feature = "http"))]
fn with_incoming<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Incoming<'_>) -> T,
) -> T {
    let incoming = Incoming::new(&request.method, body)
        .content_type(types)
        .authorization(&request.authorization);
    then(incoming)
}

/// The same out of the types of `http`, where the query is.
#[cfg(feature = "http")]
fn with_incoming<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Incoming<'_>) -> T,
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
    then(Incoming::from(&builder.body(body.to_vec()).unwrap()))
}
