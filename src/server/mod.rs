//! The server half: it decides.

mod authenticate;
mod client;
mod exchange;
mod grant;
mod host;
mod issue;
mod keys;
mod machine;
mod pace;
mod page;
mod policy;
mod poll;
mod rate_limit;
mod record;
mod refresh;
mod reply;
mod request;
mod session;
mod subject;

pub use authenticate::{Claim, Found};
pub use client::{Client, ClientAuthMethod};
pub use exchange::{Ask, Authenticated, Exchange, Finish, Next, Server};
pub use grant::{Grant, GrantRefusal};
pub use host::{Host, Inserted, Store, Unavailable, Write};
pub use keys::{KeyError, ServerKeys};
pub use pace::Pace;
pub use page::{Consent, PageError, Review};
pub use policy::{Policy, PolicyBuilder, PolicyError};
pub use rate_limit::{RateLimit, RateLimited, RateState, Take};
pub use reply::{Cause, Reply};
pub use request::Request;
pub use session::{Change, Session, Status, Stored};
pub use subject::{HostValue, InvalidText, RequestSource, Subject};
