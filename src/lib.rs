//! The OAuth 2.0 Device Authorization Grant ([RFC 8628](https://www.rfc-editor.org/rfc/rfc8628)): the server half and the client half,
//! without I/O.
//!
//! A device shows a short code. Its user enters the code on a phone. The device polls until the user has decided, and then gets its tokens.
//! This crate decides how a server responds to each request, and when a client polls. You pass in the bytes that arrived, the time and
//! random octets, and you provide the store. The crate returns what to send.
//!
//! ```
//! use device_flow::server::{Next, Policy, Request, Server, ServerKeys};
//! use time::macros::datetime;
//!
//! let policy = Policy::new("https://login.example.com/device", Default::default())?;
//! let server = Server::new(policy, ServerKeys::new(b"32 octets or more of a generator")?);
//!
//! let request = Request::new("POST", b"grant_type=authorization_code&client_id=client_cli")
//!     .content_type(Some("application/x-www-form-urlencoded"));
//! let mut exchange = server.token(request, "203.0.113.7", datetime!(2026-03-21 12:00 UTC));
//! // An exchange usually asks for the client, then for the session. It refuses this grant type before it asks.
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
//! - To run an authorization server, read [`server`]. [`memory::Memory`] is a store to begin with.
//! - To write a client, read [`client`].
//! - `cargo run --example walkthrough` runs both halves in one process and prints every message.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | the exchanges, the host and its store, the policy, clients, sessions, quotas |
//! | [`client`] | the login, what a response means, when to poll, snapshots, refreshing and revoking |
//! | [`wire`] | the metadata of a server, which one half makes and the other reads |
//! | [`code`], [`digest`], [`scope`] | codes, the digests under which they are stored, scopes |
//! | [`memory`] | the embedded store |
//! | [`tables`] | every rule of both halves, in rows, and a glossary |
//!
//! `server` and `client` do not import each other.
//!
//! # What it promises
//!
//! - A device code is redeemed at most once, however requests interleave, if the store keeps its contract ([`server::Store`]).
//! - No input makes the crate panic, wait, or allocate without a bound. `unsafe` is forbidden.
//! - No `Debug` and no error shows a code, a secret or a token.
//! - The same inputs give the same bytes.
//!
//! # Features
//!
//! - `std`, on by default: `Mutex<Memory>` implements [`server::Store`]. Without this feature the crate needs only `alloc`.
//! - `http`: conversions from and to the types of the `http` crate.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

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
pub mod wire;

/// The code of the README, run as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
