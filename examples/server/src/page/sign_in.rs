//! Signing in with e-mail address and password.
//!
//! Rules:
//! 1. Each attempt is counted before its password is checked: once for the source, and once for the account together with the source. If it
//!    counted for the account alone, anybody could lock the user out.
//! 2. An unknown account, a locked account and a wrong password get the same sentence, and take the same time.

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

/// The quotas of attempts.
pub(crate) struct SignInLimits {
    /// The quota of a source.
    source: RateLimit,
    /// The quota of an account together with a source.
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

/// Why a user is not signed in.
pub(crate) enum Refused {
    /// There is no such account, it is locked, or the password is wrong.
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
        // For an unknown address another user's hash is checked, so that it takes as long.
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
    /// Returns a user whose hash is checked if the address is unknown. One address always gets the same user, so it takes the same time as
    /// the address of an account.
    fn stand_in(&self, email: &str) -> Option<&User> {
        let sum = email.bytes().map(usize::from).sum::<usize>();
        self.users.get(sum.checked_rem(self.users.len())?)
    }
}

impl Refused {
    /// Returns the form with the reason, and the name of the reason.
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
