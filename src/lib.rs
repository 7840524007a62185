//! The OAuth 2.0 Device Authorization Grant ([RFC 8628]) as a sans-I/O core, both halves.
//!
//! A device shows a short code, its owner enters it on a phone, and the device, which has been polling, gets its tokens. This
//! crate decides what every request gets and when a device asks again. It does no I/O: bytes come in, responses come out;
//! time and randomness are arguments; the store is yours.
//!
//! ```
//! use device_flow::server::{Next, Policy, PolicyOptions, Request, Server, ServerKeys};
//! use time::macros::datetime;
//!
//! let policy = Policy::new("https://login.example.com/device", PolicyOptions::default())?;
//! let server = Server::new(policy, ServerKeys::new(b"32 octets or more of a generator")?);
//!
//! let request = Request::new("POST", b"grant_type=authorization_code&client_id=client_cli")
//!     .content_type(Some("application/x-www-form-urlencoded"));
//! let mut exchange = server.token(request, "203.0.113.7", datetime!(2026-03-21 12:00 UTC));
//! // It would ask for the client, then for the session, and so on. This grant is refused before that.
//! let Next::Done(reply) = exchange.next() else {
//!     return Err("it asked for something".into());
//! };
//! assert_eq!(reply.response().status(), 400);
//! assert!(reply.response().body().contains("unsupported_grant_type"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to start
//!
//! - You run an authorization server: [`server`]. [`memory::Memory`] is a store to begin with.
//! - You write a client: [`client`].
//! - `cargo run --example walkthrough` plays both halves against each other and prints every message.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | the exchanges, the host and its store, the policy, clients, sessions, quotas |
//! | [`client`] | starting, what an answer means, when to poll, snapshots |
//! | [`wire`] | what travels: responses, tokens, metadata |
//! | [`code`], [`digest`], [`scope`] | what both halves know: codes, the digests they are kept under, scopes |
//! | [`memory`] | the embedded store |
//! | [`tables`] | every rule of both halves, in rows, and a glossary |
//!
//! `server` and `client` do not know each other. They meet in the modules between them.
//!
//! # What it promises
//!
//! - A device code yields at most one success, over every interleaving, if the store keeps its contract ([`server::Store`]).
//! - No input panics, allocates without a bound, or makes the core wait. `unsafe` is forbidden.
//! - No `Debug` and no error shows a code, a secret or a token.
//! - The same inputs give the same bytes.
//!
//! # Features
//!
//! - `std`, on by default: a `Mutex<Memory>` is a [`server::Store`]. Without it the crate needs `alloc` alone.
//! - `http`: conversions from and to the types of the `http` crate.
//!
//! [RFC 8628]: https://www.rfc-editor.org/rfc/rfc8628

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod client;
pub mod code;
pub mod digest;
pub mod memory;
pub mod scope;
pub mod server;
mod sha256;
#[doc = include_str!("../docs/tables.md")]
pub mod tables {}
mod time;
pub mod wire;

/// The code of the README, run as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
