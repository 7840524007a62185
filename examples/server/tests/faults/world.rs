//! What all devices and users share: the servers, and what was answered so far.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use device_flow::client::{Request, Response, TransportError};
use device_flow::digest::SessionKey;
use fastrand::Rng;
use serde_json::Value;
use tokio::time::sleep;

use super::{ISSUER, PATIENCE, Plan};

/// For how long after the redemption a code that is sent again counts as the same request, if the interval is a second.
const RETRY_WINDOW: Duration = Duration::from_millis(500);

/// What a server answered: the status and the body. Or why there is no answer.
pub(crate) type Answer = Result<(u16, Vec<u8>), TransportError>;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) http: reqwest::Client,
    pub(crate) started: Instant,
    /// How many successes were sent for each session, whoever received them.
    pub(crate) successes: Mutex<BTreeMap<SessionKey, usize>>,
    /// The sessions with a poll that was sent twice, and the second time so late that it may have been a replay.
    pub(crate) replayed: Mutex<BTreeSet<SessionKey>>,
}

impl World {
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sends a request to one of the servers, as a load balancer would: if a server cannot be reached, it takes another one.
    pub(crate) async fn send(&self, request: &Request, source: &str, rng: &mut Rng) -> Answer {
        let path = request.url().strip_prefix(ISSUER).unwrap();
        for _ in 0..4 {
            let server = self.servers[rng.usize(..self.servers.len())];
            let mut post = self.http.post(format!("http://{server}{path}"));
            for (name, value) in request.headers() {
                post = post.header(name, value);
            }
            let post = post.header("x-forwarded-for", source).timeout(PATIENCE);
            match post.body(request.body().to_owned()).send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = response.bytes().await.map_err(|_| TransportError::Other)?;
                    return Ok((status, body.to_vec()));
                }
                Err(error) if error.is_connect() => sleep(Duration::from_millis(50)).await,
                Err(error) if error.is_timeout() => return Err(TransportError::ConnectionTimeout),
                Err(_) => break,
            }
        }
        Err(TransportError::Other)
    }

    /// Sends a request, twice at once if `is_doubled`. Returns the answer that the device gets, and the one that it does not get.
    pub(crate) async fn deliver(
        &self,
        request: &Request,
        source: &str,
        is_doubled: bool,
        rng: &mut Rng,
    ) -> (Answer, Option<Answer>) {
        if !is_doubled {
            return (self.send(request, source, rng).await, None);
        }
        let mut other = rng.fork();
        let one = self.send(request, source, rng);
        let (one, other) = tokio::join!(one, self.send(request, source, &mut other));
        if rng.bool() {
            (one, Some(other))
        } else {
            (other, Some(one))
        }
    }

    /// Polls, in half of the cases twice at once, and counts the successes.
    pub(crate) async fn poll(
        &self,
        request: &Request,
        session: &SessionKey,
        source: &str,
        rng: &mut Rng,
    ) -> Result<Response<Vec<u8>>, TransportError> {
        let begun = Instant::now();
        let is_doubled = rng.bool();
        let (seen, unseen) = self.deliver(request, source, is_doubled, rng).await;
        if is_doubled && begun.elapsed() >= RETRY_WINDOW {
            self.replayed.lock().unwrap().insert(*session);
        }
        let is_success = |answer: &&Answer| {
            matches!(answer, Ok((200, _))) // the token endpoint has no other 200
        };
        let successes = unseen.iter().chain([&seen]).filter(is_success).count();
        *self.successes.lock().unwrap().entry(*session).or_default() += successes;
        seen.map(|(status, body)| Response::new(status, body))
    }

    /// Refreshes with a token, once the servers are well. Returns the next refresh token, or the status of the refusal.
    pub(crate) async fn refreshed(&self, token: &str) -> Result<String, u16> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "client_cli"),
            ("refresh_token", token),
        ];
        for server in self.servers.iter().cycle().take(20) {
            let post = self.http.post(format!("http://{server}/oauth2/token"));
            match post.form(&form).timeout(PATIENCE).send().await {
                Ok(answer) if answer.status() == 200 => {
                    let tokens: Value = answer.json().await.unwrap();
                    return Ok(refresh_token(&tokens).unwrap());
                }
                Ok(answer) if answer.status() != 503 => return Err(answer.status().as_u16()),
                Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        Err(503)
    }
}

/// Returns the refresh token of an answer.
pub(crate) fn refresh_token(answer: &Value) -> Option<String> {
    Some(answer.get("refresh_token")?.as_str()?.to_owned())
}
