//! The device of the client half: what a program does around the core.

use core::hint::black_box;
use core::time::Duration;

use device_flow::client::{DeviceFlow, Endpoints, Next, Outcome, Received, Step, Waiting};

use super::host::{PUBLIC, SCOPE};

pub(crate) const DEVICE_AUTHORIZATION: &str =
    "https://login.example.com/oauth2/device_authorization";
pub(crate) const TOKEN: &str = "https://login.example.com/oauth2/token";

/// A client: it starts, and takes the answers to its polls.
pub(crate) trait Device {
    /// What it keeps between two answers.
    type Poller;

    fn new() -> Self;

    /// Asks for codes and takes the answer.
    fn start(&self, body: &[u8], now: Duration) -> Self::Poller;

    /// Polls and takes the answer: whether there are tokens. The moment is one at which a poll is due.
    fn turn(&self, poller: &mut Option<Self::Poller>, answer: Answer<'_>, now: Duration) -> bool;
}

/// An answer as it came over HTTP.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// The device that uses this crate.
pub(crate) struct Ours(DeviceFlow);

impl Device for Ours {
    type Poller = Waiting;

    fn new() -> Self {
        let endpoints = Endpoints::new(DEVICE_AUTHORIZATION, TOKEN).unwrap();
        Self(DeviceFlow::new(endpoints, PUBLIC).scope(SCOPE))
    }

    #[inline(never)]
    fn start(&self, body: &[u8], now: Duration) -> Waiting {
        let (starting, request) = self.0.start(now).unwrap();
        black_box((request.url(), request.body()));
        let (waiting, prompt) = starting.answer(Ok(Received::new(200, body)), now).unwrap();
        black_box((&prompt.user_code, &prompt.verification_uri));
        waiting
    }

    #[inline(never)]
    fn turn(&self, poller: &mut Option<Waiting>, answer: Answer<'_>, now: Duration) -> bool {
        let Some(waiting) = poller.take() else {
            return false;
        };
        let Next::Send(sent, request) = waiting.next(now) else {
            panic!("a poll is due");
        };
        black_box((request.url(), request.body()));
        match sent.answer(Ok(Received::new(answer.status, answer.body)), now) {
            Step::Again(waiting) => {
                *poller = Some(waiting);
                false
            }
            Step::Done(Outcome::Granted(tokens)) => {
                black_box(&tokens);
                true
            }
            Step::Done(other) => panic!("{other:?}"),
        }
    }
}
