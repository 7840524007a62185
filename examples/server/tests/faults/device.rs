//! A device: it signs in, and refreshes its tokens for as long as there is trouble.

use std::sync::Arc;
use std::time::Duration;

use device_flow::client::{
    DeviceFlow, Endpoints, LoginError, Next, RequestError, Response, Tokens, TransportError,
};
use device_flow::digest::SessionKey;
use fastrand::Rng;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::user::{Wish, user};
use super::world::{Answer, World, refresh_token};
use super::{ISSUER, millis};

/// The result of a login.
pub(crate) struct Login {
    pub(crate) session: SessionKey,
    pub(crate) outcome: Result<Tokens, LoginError>,
    pub(crate) wish: Wish,
    /// Whether the page confirmed the user's decision.
    pub(crate) is_acknowledged: bool,
    /// What the device did with its tokens, if it got any.
    pub(crate) refreshes: Option<Refreshes>,
}

/// Plays a login on a device. Returns `None` if the device could not get codes.
pub(crate) async fn device(world: Arc<World>, number: usize, mut rng: Rng) -> Option<Login> {
    let wishes = [
        Wish::Approve,
        Wish::Approve,
        Wish::Approve,
        Wish::Deny,
        Wish::Ignore,
    ];
    let wish = wishes[rng.usize(..wishes.len())];
    let users_rng = rng.fork();
    let rush = world.plan.rush.as_secs_f64();
    sleep(Duration::from_secs_f64(rng.f64() * rush)).await;
    let source = format!("198.18.{}.{}", number / 256, number % 256);
    let endpoint = |path| format!("{ISSUER}/oauth2/{path}");
    let endpoints = Endpoints::new(endpoint("device_authorization"), endpoint("token")).unwrap();
    let flow = DeviceFlow::new(endpoints, "client_cli").scope("openid offline_access");
    let mut tries = 0;
    let (mut waiting, prompt, session) = loop {
        let mut starting = flow.login().unwrap();
        let Next::Send(ask) = starting.next(world.now()) else {
            panic!("a login begins with a request for codes");
        };
        let answer = world.send(ask.request(), &source, &mut rng).await;
        let body = answer.as_ref().map_or(&[][..], |(_, body)| body);
        let codes = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let response = answer
            .as_ref()
            .map(|(status, body)| Response::new(*status, body));
        ask.answer(response.map_err(|failure| *failure), world.now());
        let answered = match starting.next(world.now()) {
            Next::Show(prompt) => Ok(prompt),
            Next::Done(Err(LoginError::Start(error))) => Err(error),
            other @ (Next::Send(_) | Next::Wait { .. } | Next::Done(_)) => panic!("{other:?}"),
        };
        match answered {
            Ok(prompt) => {
                let code = codes["device_code"].as_str().unwrap();
                let session = SessionKey::from_bytes(Sha256::digest(code).into());
                break (starting, prompt, session);
            }
            Err(error) => assert!(error.may_be_retried(), "{error}"),
        }
        tries += 1;
        if tries == 30 {
            return None;
        }
        sleep(millis(&mut rng, 100, 500)).await;
    };
    let user = user(world.clone(), number, prompt.user_code, wish, users_rng);
    let user = tokio::spawn(user);
    let outcome = loop {
        match waiting.next(world.now()) {
            Next::Wait { until } => sleep(until.saturating_sub(world.now())).await,
            Next::Send(ask) => {
                let request = ask.request().clone();
                let answer = world.poll(&request, &session, &source, &mut rng).await;
                ask.answer(answer, world.now());
            }
            Next::Done(outcome) => break outcome,
            Next::Show(_) => panic!("the prompt is shown twice"),
        }
    };
    let mut refreshes = outcome.as_ref().ok().map(|tokens| {
        let token = tokens.refresh_token().unwrap();
        Refreshes::new(token.to_owned(), rng.u8(..4) == 0)
    });
    if let Some(refreshes) = &mut refreshes {
        let trouble = world.plan.trouble;
        // At least once, because on a slow machine the tokens come after the trouble.
        loop {
            sleep(millis(&mut rng, 200, 2000)).await;
            refreshes.refresh(&world, &flow, &source, &mut rng).await;
            if world.now() >= trouble || refreshes.has_ended {
                break;
            }
        }
    }
    Some(Login {
        session,
        outcome,
        wish,
        is_acknowledged: user.await.unwrap(),
        refreshes,
    })
}

/// What a device did with its tokens.
#[derive(Debug)]
pub(crate) struct Refreshes {
    /// The refresh token that the device has.
    pub(crate) token: String,
    /// The last tokens that it no longer has, or that came in an answer that it did not get.
    pub(crate) others: Vec<String>,
    /// Whether somebody on the way sends a request twice at once. Then the device may be given a token that the other request has
    /// made void, and its login ends with the next refresh.
    pub(crate) is_doubled: bool,
    /// Whether a refresh was refused for good.
    pub(crate) has_ended: bool,
    /// How many succeeded.
    pub(crate) successes: usize,
    /// How many were sent again, because no answer came or nobody knew the outcome.
    pub(crate) repeats: usize,
}

/// How many of the tokens that a device no longer has are tried at the end.
const MOST_OTHERS: usize = 2;

impl Refreshes {
    fn new(token: String, is_doubled: bool) -> Self {
        Self {
            token,
            others: Vec::new(),
            is_doubled,
            has_ended: false,
            successes: 0,
            repeats: 0,
        }
    }

    /// Refreshes once: sends the same token until it is answered.
    async fn refresh(&mut self, world: &World, flow: &DeviceFlow, source: &str, rng: &mut Rng) {
        let mut refresh = flow.refresh(&self.token).unwrap();
        loop {
            let is_twice = self.is_doubled && rng.bool();
            let sent = world.deliver(refresh.request(), source, is_twice, rng);
            let (seen, unseen) = sent.await;
            let is_lost = rng.u8(..8) == 0; // on its way to the device
            let lost = is_lost.then_some(&seen);
            let tokens = unseen.iter().chain(lost).filter_map(token_of);
            self.others.extend(tokens);
            let seen = if is_lost {
                Err(TransportError::Other)
            } else {
                seen
            };
            if let Err(TransportError::ConnectionTimeout) = seen {
                self.is_doubled = true; // a server may still be at work on it
            }
            let answer = seen.map(|(status, body)| Response::new(status, body));
            match refresh.answer(answer) {
                Ok(tokens) => {
                    let next = tokens.refresh_token().unwrap().to_owned();
                    self.others.push(std::mem::replace(&mut self.token, next));
                    let older = self.others.len().saturating_sub(MOST_OTHERS);
                    self.others.drain(..older);
                    self.successes += 1;
                    return;
                }
                Err(RequestError::Ended(_)) => {
                    self.has_ended = true;
                    return;
                }
                Err(error) => assert!(error.may_be_retried(), "{error}"),
            }
            self.repeats += 1;
            sleep(millis(rng, 20, 200)).await;
        }
    }
}

/// Returns the refresh token of a success.
fn token_of(answer: &Answer) -> Option<String> {
    let (_, body) = answer.as_ref().ok()?;
    refresh_token(&serde_json::from_slice::<Value>(body).ok()?)
}
