//! The server half: it decides how each request is answered.
//!
//! Every request, and every action of a user, is an [`Exchange`]. [`Server`] makes it:
//!
//! | what comes in | method | ends in |
//! |---|---|---|
//! | a device asks for codes | [`Server::device_authorization`] | [`Reply`] |
//! | a device polls, or refreshes its tokens | [`Server::token`] | [`Reply`] |
//! | a device revokes its tokens | [`Server::revocation`] | [`Reply`] |
//! | a client at an endpoint of your own, or with another grant | [`Server::authenticate`] | [`Authenticated`] |
//! | a user enters a code | [`Server::enter`] | [`Review`] |
//! | the user decides | [`Server::approve`], [`Server::deny`], [`Server::release`] | [`Session`] |
//! | the user signs a device out | [`Server::withdraw`] | [`Session`] |
//!
//! An exchange asks for what it needs. [`Exchange::run`] answers from a [`Host`] and its [`Store`], which you implement once.
//! [`Exchange::next`] lets you answer by yourself.
//!
//! # A server
//!
//! Make the [`Server`] once, from a [`Policy`] and the [`ServerKeys`]. All threads can share it. Register a [`Client`] for
//! each application that may sign in:
//!
//! ```
//! use device_flow::server::{Client, ClientAuthMethod, Policy, Server, ServerKeys};
//!
//! let policy = Policy::new("https://login.example.com/device", Default::default())?;
//! let keys = ServerKeys::new(b"32 octets or more of a generator")?; // from your configuration
//! let server = Server::new(policy, keys);
//!
//! let cli = Client::new("client_cli", ClientAuthMethod::None)?
//!     .named("Example CLI")
//!     .allow_device_grant()
//!     .allow_scope("openid offline_access".parse()?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The [README](https://docs.rs/crate/device-flow/latest) has a whole host with all its endpoints. A blocking host uses
//! [`Exchange::run_blocking`] instead of [`Exchange::run`].
//!
//! # The page
//!
//! A user signs in, types the code, and submits it with a POST. Give it to [`Server::enter`], and show the [`Review`] that comes back: who
//! asks, for what, when, from where, and the code, so that the user can compare it with the one on the device. The user decides with
//! another POST. Give the decision to [`Server::approve`] or [`Server::deny`], with [`Review::session_key`]. If an action fails, show the
//! text of its [`PageError`]. The page has two forms, the entry and the decision. You decode them yourself, and each needs a CSRF token.
//!
//! **If [`PolicyOptions::verification_uri_complete`] is false, ignore a code in the page's URL.** Attackers phish device logins with
//! links that carry the code.
//!
//! # Another grant, another endpoint
//!
//! A reply with [`Cause::GrantTypeUnsupported`] says that this crate does not serve the grant. If you serve it, answer the request
//! yourself:
//!
//! ```
//! use device_flow::server::{Authenticated, Cause, Host, Reply, Request, Server};
//! use time::OffsetDateTime;
//!
//! /// Returns the reply to send, or the client if it sent an authorization code, which the host then redeems.
//! async fn token<'r>(
//!     server: &'r Server,
//!     host: &impl Host,
//!     request: Request<'r>,
//!     address: &'r str,
//!     now: OffsetDateTime,
//! ) -> Result<Authenticated<'r>, Reply> {
//!     let reply = server.token(request, address, now).run(host).await;
//!     if reply.cause() != Cause::GrantTypeUnsupported {
//!         return Err(reply);
//!     }
//!     let client = server.authenticate(request, address, now).run(host).await?;
//!     match client.parameter("grant_type").as_deref() {
//!         Some("authorization_code") => Ok(client),
//!         _ => Err(reply),
//!     }
//! }
//! ```
//!
//! # What is stored
//!
//! A store keeps one [`Session`] per request for codes, until it is purged. It finds the session by two keys. It also keeps the [`Pace`] of
//! a session, which may be lost, and one [`RateState`] per quota. [`Store`] says what each operation must do.
//!
//! ```text
//! Pending ⇄ Claimed → Approved → Active ⟳ refreshed
//!              ↓          ↓         ↓
//!            Denied     Ended     Ended (withdrawn, revoked, replayed, reused, expired)
//! ```
//!
//! A success is sent only after the store has committed the change to `Active`. If a device code or a replaced refresh token is used again,
//! the login ends, because two parties have it. There are two exceptions. A network can repeat a poll: [`PolicyOptions::retry_window`]. The
//! response to a refresh can be lost: [`RefreshOptions::grace`]. If the response to a redemption is lost, the user must sign in again.
//!
//! Ids such as [C12](crate::tables#c12) name rows of the decision [tables](crate::tables). The tests of a row are named after it.

mod authenticate;
mod client;
mod consent;
mod endpoints;
mod exchange;
mod grant;
mod host;
mod issue;
mod keys;
mod machine;
mod order;
mod pace;
mod page;
mod page_error;
mod places;
mod policy;
mod poll;
mod rate_limit;
mod refresh;
mod reply;
mod request;
mod response;
mod session;
mod subject;
mod timestamp;
mod tokens;

pub use authenticate::{Authenticated, Claim, Found};
pub use client::{Client, ClientAuthMethod};
pub use consent::Consent;
pub use endpoints::Server;
pub use exchange::{Ask, Exchange, Finish, Next};
pub use grant::{Grant, GrantRefusal};
pub use host::{Host, Inserted, Store, Unavailable, Write};
pub use keys::ServerKeys;
pub use pace::Pace;
pub use page::Review;
pub use page_error::PageError;
pub use policy::{Policy, PolicyError, PolicyOptions, RefreshOptions};
pub use rate_limit::{RateLimit, RateLimited, RateState, Take};
pub use reply::{Cause, Reply};
pub use request::Request;
pub use response::Response;
pub use session::{Change, Session, Status, Stored};
pub use subject::{HostValue, InvalidText, Subject};
pub use tokens::{TokenError, Tokens};

/// What must not compile, run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../../tests/server/misuse.md")]
struct Misuse;
