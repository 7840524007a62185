//! The OAuth 2.0 Device Authorization Grant ([RFC 8628]) as a sans-I/O core, both halves.
//!
//! A device shows a short code, its owner enters it on a phone, and the device, which has been polling, gets its tokens. This
//! crate decides what every request gets and when a device asks again. It does no I/O: bytes come in, responses come out;
//! time and randomness are arguments; the store is yours.
//!
//! # Where to start
//!
//! - You run an authorization server: [`server`], its three paths and the store's contract. [`memory::Memory`] is a store to
//!   begin with.
//! - You write a client: [`client`], one loop.
//! - `cargo run --example walkthrough` plays both halves against each other and prints every message.
//!
//! # The map
//!
//! | module | what it holds |
//! |---|---|
//! | [`server`] | decides: policy, registrations, issuing, the verification page, the poll, quotas |
//! | [`client`] | paces: starting, what an answer means, when to poll, snapshots |
//! | [`wire`] | travels: responses, tokens, metadata; forms and credentials within |
//! | [`code`], [`digest`], [`scope`] | what both halves know: codes, the digests they are kept under, scopes |
//! | [`memory`], [`contract`] | the embedded store, and what every store must survive |
//!
//! `server` and `client` do not know each other; they meet in the modules between them.
//!
//! # What it promises
//!
//! - A success is sent at most once per session, over every interleaving, if the store keeps its
//!   [contract](server#the-stores-contract). **The one rule for a host: the guarded write first, then send.**
//! - No input panics, allocates without a bound, or makes the core wait. `unsafe` is forbidden, `std` is not linked.
//! - No `Debug` and no error shows a code, a secret or a token.
//! - The same inputs give the same bytes.
//!
//! # Features
//!
//! `http`: conversions from and to the types of the `http` crate. It brings `std` with it.
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
mod time;
pub mod wire;

/// The code of the README, run as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
