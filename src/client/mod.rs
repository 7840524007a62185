//! The client half: when to send what, and what an answer means.
//!
//! ```
//! use core::time::Duration;
//! use device_flow::client::{DeviceFlow, Endpoints, Failure, Next, Outcome, Received, Request, Step};
//!
//! # let mut script = [
//! #     r#"{"device_code":"d","user_code":"RRGQ-BJVS","verification_uri":"https://as.example/device","expires_in":300}"#,
//! #     r#"{"error":"authorization_pending"}"#,
//! #     r#"{"access_token":"a"}"#,
//! # ].into_iter();
//! # let mut http = |_: Request| script.next().map(|body| Received::new(200, body)).ok_or(Failure::Other);
//! # let clock = core::cell::Cell::new(Duration::ZERO);
//! # let now = || clock.get();
//! # let sleep_until = |until: Duration| clock.set(until);
//! # let show = |_: &str, _: &str| {};
//! # fn run<T>(f: impl FnOnce() -> Result<T, Box<dyn std::error::Error>>) -> Result<T, Box<dyn std::error::Error>> { f() }
//! let endpoints = Endpoints::new(
//!     "https://as.example/oauth2/device_authorization",
//!     "https://as.example/oauth2/token",
//! )?;
//! let flow = DeviceFlow::new(endpoints, "client_01").scope("openid offline_access");
//!
//! let (starting, request) = flow.start(now())?;
//! let (mut waiting, prompt) = starting.answer(http(request), now())?;
//! show(&prompt.user_code, &prompt.verification_uri);
//!
//! let outcome = loop {
//!     match waiting.next(now()) {
//!         Next::Wait(same, until) => {
//!             sleep_until(until);
//!             waiting = same;
//!         }
//!         Next::Send(sent, request) => match sent.answer(http(request), now()) {
//!             Step::Again(later) => waiting = later,
//!             Step::Done(outcome) => break outcome,
//!         },
//!         Next::Done(outcome) => break outcome,
//!     }
//! };
//! assert!(matches!(outcome, Outcome::Granted(tokens) if tokens.bearer() == Some("a")));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `now()` is a monotonic reading, `Instant::elapsed()` for example; `http` sends and does not follow redirects. The same
//! loop serves threads, async code and firmware, for it neither sends nor sleeps itself.
//!
//! To give up: [`Waiting::cancel`], or with a request in flight [`Sent::cancel`], which still takes its answer. A token in that is
//! handed back as late, so that it can be revoked:
//!
//! ```
//! # use device_flow::client::{Failure, Outcome, Received, Sent};
//! fn give_up(sent: Sent, answer: Result<Received<Vec<u8>>, Failure>, revoke: impl Fn(&str)) {
//!     if let Outcome::Cancelled(Some(late)) = sent.cancel().answer(answer) {
//!         revoke(late.access_token());
//!     }
//! }
//! ```
//!
//! | what | where |
//! |---|---|
//! | setting up, and the requests | [`DeviceFlow`], [`Endpoints`], [`Request`] |
//! | asking for the codes | [`Starting`], [`Prompt`] |
//! | what an answer means | [`Received`], [`verdict`], [`Tokens`], [`Refusal`] |
//! | when to ask | [`Waiting`], [`Sent`], [`Outcome`] |
//! | outliving the process | [`Snapshot`] |
//!
//! One request is in flight at a time, and nothing is sent after an outcome: the types leave nothing to send it with.
//!
//! ```compile_fail,E0382
//! # use core::time::Duration;
//! # use device_flow::client::{Failure, Received, Sent};
//! fn answered_twice(sent: Sent) {
//!     let _ = sent.answer::<&[u8]>(Err(Failure::Other), Duration::ZERO);
//!     let _ = sent.answer::<&[u8]>(Err(Failure::Other), Duration::ZERO);
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use core::time::Duration;
//! # use device_flow::client::Waiting;
//! fn two_in_flight(waiting: Waiting) {
//!     let _ = (waiting.next(Duration::ZERO), waiting.next(Duration::ZERO));
//! }
//! ```
//!
//! Not spoken here, for they are not RFC 8628 on the wire: AWS SSO OIDC (JSON in camel case), Trakt (statuses without
//! bodies), Facebook (errors of its Graph API), Baidu (GET), and Amazon's polls, which carry the user code too.

mod answer;
mod body;
mod flow;
mod pace;
mod poll;
mod prose;
mod request;
mod snapshot;
mod start;
mod tokens;

pub use answer::{Failure, MAX_BODY, Malformed, Received, Refusal, Verdict, verdict};
pub use flow::{DeviceFlow, EndpointError, Endpoints, FlowError};
pub use pace::Cause;
pub use poll::{Cancelled, Expiry, Next, Outcome, Sent, Step, Waiting};
pub use prose::{MAX_CHARACTERS, Prose};
pub use request::Request;
pub use snapshot::{ResumeError, Snapshot};
pub use start::{Authorization, Field, Prompt, StartError, Starting, Warning};
pub use tokens::Tokens;
