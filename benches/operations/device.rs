//! The device of the client half: what a program does around the core.

use core::hint::black_box;
use core::time::Duration;

use device_flow::client::{DeviceFlow, Endpoints, Login, Next, Response};

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

    /// Polls and takes the answer. Returns whether there are tokens. A poll must be due at `now`.
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
    type Poller = Login;

    fn new() -> Self {
        let endpoints = Endpoints::new(DEVICE_AUTHORIZATION, TOKEN).unwrap();
        Self(DeviceFlow::new(endpoints, PUBLIC).scope(SCOPE))
    }

    #[inline(never)]
    fn start(&self, body: &[u8], now: Duration) -> Login {
        let mut login = self.0.login().unwrap();
        let Next::Send(ask) = login.next(now) else {
            panic!("it asks for codes first");
        };
        black_box((ask.request().url(), ask.request().body()));
        ask.answer(Ok(Response::new(200, body)), now);
        let Next::Show(prompt) = login.next(now) else {
            panic!("nothing is shown");
        };
        black_box((&prompt.user_code, &prompt.verification_uri));
        login
    }

    #[inline(never)]
    fn turn(&self, poller: &mut Option<Login>, answer: Answer<'_>, now: Duration) -> bool {
        let Some(login) = poller else {
            return false;
        };
        let Next::Send(ask) = login.next(now) else {
            panic!("a poll is due");
        };
        black_box((ask.request().url(), ask.request().body()));
        ask.answer(Ok(Response::new(answer.status, answer.body)), now);
        // When the next poll is due is asked only at the next turn, as on the other side.
        if login.waiting_for().is_some() {
            return false;
        }
        let Next::Done(Ok(tokens)) = login.next(now) else {
            panic!("there are no tokens");
        };
        black_box(&tokens);
        true
    }
}
