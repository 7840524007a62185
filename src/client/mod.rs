//! The client half: what to send, when, and what the response means.
//!
//! A [`DeviceFlow`] is the set-up of a client. A [`Login`] is one sign-in: it asks for codes, shows one to the user, and polls until the
//! user has decided. It does not send or sleep itself, so it works in threads, in async code and in firmware. [`Login::run`] and
//! [`Login::run_blocking`] run it to its end:
//!
//! ```
//! use core::ops::ControlFlow;
//! use core::time::Duration;
//! use device_flow::client::{DeviceFlow, Endpoints, Request, Response, TransportError};
//!
//! # let mut script = [
//! #     r#"{"device_code":"d","user_code":"RRGQ-BJVS","verification_uri":"https://as.example/device","expires_in":300}"#,
//! #     r#"{"error":"authorization_pending"}"#,
//! #     r#"{"access_token":"a"}"#,
//! # ].into_iter();
//! # let send = |_: Request| script.next().map(|body| Response::new(200, body)).ok_or(TransportError::Other);
//! # let clock = core::cell::Cell::new(Duration::ZERO);
//! # let now = || clock.get();
//! # let sleep = |span: Duration| clock.set(clock.get() + span);
//! let endpoints = Endpoints::new(
//!     "https://as.example/oauth2/device_authorization",
//!     "https://as.example/oauth2/token",
//! )?;
//! let flow = DeviceFlow::new(endpoints, "client_01").scope("openid offline_access");
//! let tokens = flow.login()?.run_blocking(
//!     now,
//!     send,
//!     |prompt| println!("Open {} and enter {}", prompt.verification_uri, prompt.user_code),
//!     |span, waiting_for| {
//!         println!("Waiting: {waiting_for}");
//!         sleep(span);
//!         ControlFlow::Continue(()) // or Break, if the user has given up
//!     },
//! )?;
//! assert_eq!(tokens.bearer(), Some("a"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Write the loop yourself to save a [`Snapshot`] for a restart, to show the time left, or to get tokens that arrive after the user gave
//! up:
//!
//! ```
//! use core::time::Duration;
//! use device_flow::client::{Login, LoginError, Next, Request, Response, Tokens, TransportError};
//!
//! fn drive(
//!     mut login: Login,
//!     mut send: impl FnMut(Request) -> Result<Response<Vec<u8>>, TransportError>,
//!     now: impl Fn() -> Duration,
//!     sleep: impl Fn(Duration),
//!     has_given_up: impl Fn() -> bool,
//! ) -> Result<Tokens, LoginError> {
//!     loop {
//!         match login.next(now()) {
//!             Next::Send(mut ask) => {
//!                 let answer = send(ask.request().clone());
//!                 if has_given_up() {
//!                     ask.cancel(); // tokens that still arrive come in `LoginError::Cancelled`
//!                 }
//!                 ask.answer(answer, now());
//!             }
//!             Next::Show(prompt) => println!("Enter {}", prompt.user_code),
//!             Next::Wait { until } => sleep(until.saturating_sub(now())),
//!             Next::Done(outcome) => return outcome,
//!         }
//!     }
//! }
//! ```
//!
//! # Sending
//!
//! Your HTTP client must not follow redirects. It must have a timeout and a limit for the size of the body, and it must report whether a
//! failure is temporary ([`TransportError`]). The following functions do all this. They need the feature `http`.
//! In a loop of your own, convert what they take and return: `send(ask.request().clone().into()).map(Response::from)`.
//!
//! With `ureq` 3 (features `rustls` and `platform-verifier`), blocking, for [`Login::run_blocking`]:
//!
//! ```ignore
#![doc = include_str!("../../examples/send/ureq.rs")]
//! ```
//!
//! With `reqwest` 0.13, asynchronous, for [`Login::run`]:
//!
//! ```ignore
#![doc = include_str!("../../examples/send/reqwest.rs")]
//! ```
//!
//! # The types
//!
//! | what | where |
//! |---|---|
//! | the set-up and the requests | [`DeviceFlow`], [`Endpoints`], [`Request`] |
//! | a login | [`Login`], [`Next`], [`Ask`], [`Prompt`], [`WaitingFor`], [`LoginError`] |
//! | what a response means | [`Response`], [`verdict`], [`Tokens`], [`Refusal`] |
//! | after the login | [`Refresh`], [`Revocation`], [`RequestError`] |
//! | resuming after a restart | [`Snapshot`] |
//!
//! Only one request is in flight at a time, because an [`Ask`] borrows the login. It is answered only once, because [`Ask::answer`]
//! consumes it.
//!
//! These servers are not supported, because their protocols differ from RFC 8628: AWS SSO OIDC (JSON in camel case), Trakt (statuses
//! without bodies), Facebook (errors of its Graph API), Baidu (GET), and Amazon (polls carry the user code, too).

mod body;
mod codes;
mod display_text;
mod endpoints;
mod flow;
mod login;
mod prompt;
mod refresh;
mod refusal;
mod repeat;
mod request;
mod response;
mod revocation;
mod run;
mod schedule;
mod snapshot;
mod tokens;
mod verdict;

pub use body::Malformed;
pub use codes::StartError;
pub use display_text::{DisplayText, MAX_CHARACTERS};
pub use endpoints::{EndpointError, Endpoints};
pub use flow::{DeviceFlow, FlowError};
pub use login::{Ask, Login, LoginError, Next};
pub use prompt::{Prompt, Warning};
pub use refresh::Refresh;
pub use refusal::Refusal;
pub use repeat::RequestError;
pub use request::Request;
pub use response::{MAX_BODY, Response, TransportError};
pub use revocation::Revocation;
pub use schedule::WaitingFor;
pub use snapshot::{ResumeError, Snapshot};
pub use tokens::Tokens;
pub use verdict::{Verdict, verdict};

/// What must not compile, run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../tests/client/misuse.md")]
struct Misuse;
