//! Signing in, by e-mail address and password.
//!
//! Rules:
//! 1. An attempt is counted before the password is looked at, right or wrong, by the source, and by the account together with its
//!    source. By the account alone, anybody could lock its owner out.
//! 2. An unknown account, a locked one and a wrong password are one sentence, at one cost.

use axum::http::StatusCode;
use device_flow::digest::QuotaKey;
use device_flow::server::{RateLimit, RateLimited, Store as _, Unavailable};
use time::OffsetDateTime;

use super::Answered;
use super::view::{Frame, Page, SignIn, later};
use crate::App;
use crate::config::{ConfigError, Quotas, User};
use crate::password::Busy;
use crate::source::Source;

/// How often somebody may try.
pub(crate) struct SignInLimits {
    /// From one source.
    source: RateLimit,
    /// For one account from one source.
    account: RateLimit,
}

impl SignInLimits {
    pub(crate) fn new(quotas: &Quotas) -> Result<Self, ConfigError> {
        Ok(Self {
            source: quotas.sign_ins_by_source.limit("sign_ins_by_source")?,
            account: quotas.sign_ins.limit("sign_ins")?,
        })
    }
}

/// Why somebody is not signed in.
pub(crate) enum Refused {
    /// No such account, or not its password.
    Wrong,
    TooOften(RateLimited),
    /// Too many passwords are being checked.
    Busy,
    Store,
}

impl From<RateLimited> for Refused {
    fn from(limited: RateLimited) -> Self {
        Self::TooOften(limited)
    }
}

impl From<Unavailable> for Refused {
    fn from(_: Unavailable) -> Self {
        Self::Store
    }
}

impl App {
    pub(crate) async fn sign_in(
        &self,
        email: &str,
        password: String,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<&User, Refused> {
        let email = email.trim();
        let source = source.key();
        let limits = &self.sign_in_limits;
        let by_source = QuotaKey::of_host("sign-in by source", &[&source]);
        self.store
            .take(limits.source.take(by_source, now))
            .await??;
        let account = email.to_ascii_lowercase();
        let by_account = QuotaKey::of_host("sign-in by account and source", &[&account, &source]);
        self.store
            .take(limits.account.take(by_account, now))
            .await??;
        let user = self.user_by_email(email);
        // For an address that nobody has, somebody's password is looked at: that takes as long.
        let hash = user.or_else(|| self.stand_in(&account));
        let hash = hash.map(|user| user.entry.password.0.clone());
        let is_right = self.passwords.check(password, hash).await;
        match (is_right.map_err(|Busy| Refused::Busy)?, user) {
            (true, Some(user)) => Ok(user),
            (true | false, _) => Err(Refused::Wrong),
        }
    }
}

impl App {
    /// Always the same for one address, as if it were an account.
    fn stand_in(&self, email: &str) -> Option<&User> {
        let sum = email.bytes().map(usize::from).sum::<usize>();
        self.users.get(sum.checked_rem(self.users.len())?)
    }
}

impl Refused {
    /// The form again, with the reason; and the reason's name.
    pub(crate) fn page(self, frame: Frame<'_>, email: String) -> Answered {
        let form = SignIn::new(frame);
        let page = |problem: String| Page::SignIn(form.refused(email, problem));
        match self {
            Self::Wrong => {
                let page = page("The e-mail address or the password is wrong.".to_owned());
                ("wrong_password", page.send(StatusCode::FORBIDDEN))
            }
            Self::TooOften(limited) => {
                let when = later(limited);
                let page = page(format!("Too many attempts. Try again in {when}."));
                ("sign_in_quota_spent", page.send_too_many(limited))
            }
            Self::Busy | Self::Store => {
                let page = page("The server is busy. Try again in a moment.".to_owned());
                ("busy", page.send(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }
}
