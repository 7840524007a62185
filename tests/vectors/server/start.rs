//! Takes the steps that lead to what a vector stores at first.

use device_flow::digest::SecretDigest;
use device_flow::server::{Cause, Client, ClientAuthMethod, Consent, PageError, Reply};
use time::OffsetDateTime;

use super::{World, pace_of};
use crate::form::{Kind, Pace, Start, State, Taken};
use crate::support::{self, Codes};

impl World<'_> {
    pub(super) fn set_up(&mut self, start: &Start) {
        let client = anybody(&start.client_id, &start.scope);
        let body = format!("client_id={}", support::encoded(&start.client_id));
        let (server, now) = (self.server.clone(), self.at(start.issued_at));
        let exchange = server.device_authorization(support::post(&body), "", None, now);
        let reply = self.honestly(exchange, &client);
        let codes = Codes::of(&reply);
        self.issued.push(codes.clone());
        let expires_at = self.session(&codes).unwrap().expires_at();
        assert_eq!(expires_at, self.at(start.expires_at));
        if let Some(pace) = start.pace {
            self.reach(pace, &codes, &client);
        }
        let user = start.user.as_deref().map(support::subject);
        let claimed_at = start.claimed_at.or(start.approved_at).or(start.denied_at);
        if let Some((user, at)) = user.as_ref().zip(claimed_at) {
            let now = self.at(at);
            let entry = server.enter(&codes.user_code, user, "", now);
            self.honestly(entry, &client).unwrap();
            let consent = match &start.granted {
                Some(granted) => Consent::to(support::scope(granted)),
                None => Consent::to_all(),
            };
            let decision = match start.state {
                State::Pending | State::Claimed => None,
                State::Denied => Some(server.deny(&codes.key, user, now)),
                State::Approved | State::Active | State::Ended => {
                    Some(server.approve(&codes.key, user, &consent, now))
                }
            };
            if let Some(decision) = decision {
                let _ = self.honestly(decision, &client).unwrap();
            }
            if start.state == State::Ended {
                let withdrawal = server.withdraw(&codes.key, user, now);
                let _ = self.honestly(withdrawal, &client).unwrap();
            }
        }
        if let Some(redeemed_at) = start.redeemed_at {
            self.is_redeemed(&codes, self.at(redeemed_at));
        }
        assert_eq!(self.state(&codes), Some(start.state));
    }

    /// Polls until the pace is this one. Each widening takes an accepted poll and an early one.
    fn reach(&mut self, pace: Pace, codes: &Codes, client: &Client) {
        const HOUR: i64 = 3_600_000;
        const STEP: u64 = 5000;
        let [first, cap] = [self.numbers.interval, self.numbers.cap];
        let widths = core::iter::successors(Some(first), |width| Some(cap.min(width + STEP)));
        let target = u64::try_from(pace.interval).unwrap();
        let widenings = widths.take_while(|width| *width < target).count();
        let widenings = i64::try_from(widenings).unwrap();
        for ago in (0..widenings).rev() {
            let ago = if pace.widened { ago } else { ago + 1 };
            self.polls(codes, client, pace.last - ago * HOUR);
            self.polls(codes, client, pace.last - ago * HOUR + 1000);
        }
        if !pace.widened {
            self.polls(codes, client, pace.last);
        }
        assert_eq!(pace_of(&self.record_of(codes), self.file.base), Some(pace));
    }

    /// Polls the session once.
    fn polls(&mut self, codes: &Codes, client: &Client, at: i64) {
        let _ = self.redeems(codes, client, self.at(at));
    }

    fn redeems(&mut self, codes: &Codes, client: &Client, now: OffsetDateTime) -> Reply {
        let (server, id) = (self.server.clone(), support::encoded(client.id()));
        let body = support::poll_body(&id, &codes.device_code);
        let reply = self.honestly(server.token(support::post(&body), "", now), client);
        self.note_refresh_token(&reply).unwrap();
        reply
    }

    /// Redeems the session by another poll.
    pub(super) fn is_redeemed(&mut self, codes: &Codes, now: OffsetDateTime) {
        let session = self.session(codes).unwrap();
        let client = anybody(session.client_id(), session.scope().as_str());
        let reply = self.redeems(codes, &client, now);
        assert_eq!(reply.cause(), Cause::Granted);
    }

    /// Uses a refresh token in another request.
    pub(super) fn is_refreshed(&mut self, codes: &Codes, number: usize, now: OffsetDateTime) {
        let session = self.session(codes).unwrap();
        let client = anybody(session.client_id(), session.scope().as_str());
        let token = &self.refresh_tokens[number - 1];
        let body = support::refresh_body(&support::encoded(client.id()), token);
        let server = self.server.clone();
        let reply = self.honestly(server.token(support::post(&body), "", now), &client);
        assert_eq!(reply.cause(), Cause::Refreshed);
        self.note_refresh_token(&reply).unwrap();
    }

    /// Takes from a quota what a request or an entry takes.
    pub(super) fn take(&mut self, taken: &Taken) {
        let (server, now) = (self.server.clone(), self.at(taken.at));
        let id = support::encoded(&taken.client_id);
        for time in 0..taken.times {
            match taken.limit {
                Kind::WrongSecrets => {
                    let body = format!("client_id={id}&client_secret=x");
                    let client = ClientAuthMethod::secret(SecretDigest::of("another"));
                    let client = Client::new(&*taken.client_id, client).unwrap();
                    let exchange = server.authenticate(support::post(&body), &taken.source, now);
                    let reply = self.honestly(exchange, &client).unwrap_err();
                    assert_eq!(reply.cause(), Cause::WrongSecret);
                }
                Kind::Issuing => {
                    let body = format!("client_id={id}");
                    let request = support::post(&body);
                    let exchange = server.device_authorization(request, &taken.source, None, now);
                    let client = anybody(&taken.client_id, "openid");
                    let reply = self.honestly(exchange, &client);
                    assert_eq!(reply.cause(), Cause::Issued);
                }
                Kind::GuessesOfUser => self.guesses(&taken.user, "", now),
                // Other users at the same address. Their own quotas are not the ones of the vector.
                Kind::GuessesFromSource => {
                    self.guesses(&format!("somebody {time}"), &taken.source, now);
                }
            }
        }
    }

    /// Enters a malformed code for a user.
    fn guesses(&mut self, user: &str, source: &str, now: OffsetDateTime) {
        let (server, user) = (self.server.clone(), support::subject(user));
        let entry = server.enter("", &user, source, now);
        let refused = self.honestly(entry, &anybody("nobody", "")).unwrap_err();
        assert_eq!(refused, PageError::MalformedCode);
    }
}

/// Returns a public client with this id that may ask for this scope, whatever the registry says.
pub(super) fn anybody(id: &str, scope: &str) -> Client {
    Client::new(id, ClientAuthMethod::None)
        .unwrap()
        .allow_device_grant()
        .allow_scope(support::scope(scope))
        .default_scope(support::scope(scope))
}
