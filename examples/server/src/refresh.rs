//! The grant `refresh_token` (RFC 6749, section 6), served beside the core.
//!
//! Rules:
//! 1. A refresh token is good once, and its use yields the next. Who uses one a second time has stolen it, or was stolen from:
//!    the whole family is revoked (RFC 9700, section 4.14.2).
//! 2. Narrower scopes may be asked for, never wider ones; the family keeps its own.
//! 3. As for a code: mint in memory, rotate in one step, and only then answer.

use axum::http::StatusCode;
use device_flow::scope::Scope;
use device_flow::server::{Form, Reply};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::store::{Family, Rotation, StoreError, TokenDigest};
use crate::{App, store_failed};

/// Why there are no new tokens.
enum Refused {
    /// The client, by the core.
    Client(Reply),
    /// No `refresh_token`.
    Missing,
    /// Never issued, expired or revoked.
    Unknown,
    /// Of another client.
    Foreign,
    /// Rotated away before.
    Reused,
    /// The account is gone.
    UserGone,
    /// Wider than what was granted, or not a scope.
    Scope,
    /// The tokens could not be made.
    Minting,
    /// The store failed.
    Store,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        store_failed(&error);
        Self::Store
    }
}

impl Refused {
    /// "The provided … refresh token is invalid, expired, revoked, … or was issued to another client." (RFC 6749, section 5.2)
    /// Which of these it is, nobody learns.
    fn answer(self) -> Answer {
        let invalid_grant = ("invalid_grant", "the refresh token is not valid");
        let unavailable = Answer::of(Endpoint::Refresh, Reply::store_failed());
        let (cause, error) = match self {
            Self::Client(reply) => return Answer::of(Endpoint::Refresh, reply),
            Self::Store => return unavailable,
            Self::Minting => return unavailable.because("minting_failed"),
            Self::Missing => (
                "refresh_token_missing",
                ("invalid_request", "refresh_token is missing"),
            ),
            Self::Unknown => ("unknown_token", invalid_grant),
            Self::Foreign => ("foreign_client", invalid_grant),
            Self::Reused => ("reused_token", invalid_grant),
            Self::UserGone => ("user_gone", invalid_grant),
            Self::Scope => (
                "scope_not_granted",
                ("invalid_scope", "the scope is malformed or was not granted"),
            ),
        };
        Answer::refused(Endpoint::Refresh, cause, StatusCode::BAD_REQUEST, error)
    }
}

impl App {
    pub(crate) async fn refresh(
        &self,
        form: &Form<'_>,
        source: Source,
        now: OffsetDateTime,
    ) -> Answer {
        let refreshed = self.try_refresh(form, source, now).await;
        refreshed.unwrap_or_else(Refused::answer)
    }

    async fn try_refresh(
        &self,
        form: &Form<'_>,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<Answer, Refused> {
        let request = form.client().map_err(Refused::Client)?;
        let client = self
            .authenticate(request, source, now, |request, client| {
                request.authenticate(client)
            })
            .await
            .map_err(Refused::Client)?;
        let token = form.parameter("refresh_token").ok_or(Refused::Missing)?;
        let old = TokenDigest::of(&token);
        let family = self
            .store
            .load_family(&old, now)
            .await?
            .ok_or(Refused::Unknown)?;
        if family.client_id != client.client_id() {
            return Err(Refused::Foreign);
        }
        let Some(user) = self.user(&family.subject) else {
            self.store.revoke_family(&family.key).await?;
            return Err(Refused::UserGone);
        };
        let scope = requested(form, &family)?;
        let minted = self
            .minter
            .mint(&family, &scope, user, now)
            .map_err(|error| {
                tracing::error!(%error, "no token was minted");
                Refused::Minting
            })?;
        let refresh = minted.refresh.as_ref().ok_or(Refused::Minting)?;
        match self.store.rotate(&old, &refresh.stored, now).await? {
            Rotation::Rotated => {
                let body = minted.body(&scope);
                Ok(Answer::json(
                    Endpoint::Refresh,
                    "refreshed",
                    StatusCode::OK,
                    &body,
                ))
            }
            Rotation::Reused => {
                tracing::warn!(session = %family.key, %source, "a refresh token came back: its family is revoked");
                Err(Refused::Reused)
            }
            Rotation::Unknown => Err(Refused::Unknown),
        }
    }
}

/// "The requested scope MUST NOT include any scope not originally granted by the resource owner, and if omitted is treated as
/// equal to the scope originally granted by the resource owner." (RFC 6749, section 6)
fn requested(form: &Form<'_>, family: &Family) -> Result<Scope, Refused> {
    let Some(text) = form.parameter("scope") else {
        return Ok(family.scope.clone());
    };
    let scope: Scope = text.parse().map_err(|_| Refused::Scope)?;
    if scope.is_within(&family.scope) {
        Ok(scope)
    } else {
        Err(Refused::Scope)
    }
}
