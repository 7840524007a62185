//! `POST /oauth2/token`: a device polls (RFC 8628, section 3.4), or a client refreshes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use device_flow::server::{
    Cause, Form, Grant, Incoming, Lost, Poll, Polled, Redemption, Reply, Stored, Unauthenticated,
};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::page::Consent;
use crate::source::Source;
use crate::store::Family;
use crate::{App, endpoint, now, unavailable};

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    request: Request<Body>,
) -> Response {
    let answer = async |incoming: Incoming<'_>| app.token(incoming, source, now()).await;
    endpoint::serve(&app, Endpoint::Token, source, request, answer).await
}

impl App {
    async fn token(&self, incoming: Incoming<'_>, source: Source, now: OffsetDateTime) -> Answer {
        let form = match Form::read(incoming, &self.policy) {
            Ok(form) => form,
            Err(refused) => return Answer::of(Endpoint::Token, refused),
        };
        let polled = match form.grant() {
            Ok(Grant::DeviceCode(request)) => self.poll(request, source, now).await,
            Ok(Grant::Other(form)) => match form.parameter("grant_type").as_deref() {
                Some("refresh_token") => return self.refresh(form, source, now).await,
                Some(_) | None => Err(form.unsupported_grant()),
            },
            Err(refused) => Err(refused),
        };
        Answer::of(Endpoint::Token, polled.unwrap_or_else(|refused| refused))
    }

    async fn poll(
        &self,
        request: Unauthenticated<'_, Poll<'_>>,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<Reply, Reply> {
        let mut poll = self
            .authenticate(request, source, now, |request, client| {
                request.authenticate(client)
            })
            .await?;
        let session = poll.session_key().copied();
        loop {
            let stored = match &session {
                Some(key) => self.store.load(key).await.map_err(unavailable)?,
                None => None,
            };
            match poll.decide(stored.as_ref(), now) {
                Polled::Reply(reply) => {
                    if let (Cause::Replay, Some(session)) = (reply.cause(), &session) {
                        // Somebody else has the code. Whoever redeemed it first, trust none of its tokens.
                        tracing::warn!(%session, %source, "a redeemed code came back: its tokens are revoked");
                        self.store
                            .revoke_family(session)
                            .await
                            .map_err(unavailable)?;
                    }
                    return Ok(reply);
                }
                Polled::Paced(key, pace, reply) => {
                    // A courtesy: the reply goes out whether or not this works.
                    self.store.save_pace(key, pace).await;
                    return Ok(reply);
                }
                Polled::Redeem(redemption) => {
                    // A redemption is made from what was stored.
                    let Some(stored) = &stored else {
                        return Ok(Reply::store_failed());
                    };
                    // Where the write lost, load and decide again; the core gives up after the third.
                    if let Ok(reply) = self.redeem(redemption, stored, now).await {
                        return Ok(reply);
                    }
                }
            }
        }
    }

    /// Mints in memory, writes, and only then answers.
    async fn redeem(
        &self,
        redemption: Redemption<'_>,
        stored: &Stored,
        now: OffsetDateTime,
    ) -> Result<Reply, Lost> {
        let approval = redemption.approval();
        let Some(user) = self.user(approval.subject()) else {
            // The account is gone or locked since the approval.
            let revocation = redemption.revoke();
            let written = self
                .store
                .change(&stored.session, revocation.change())
                .await;
            return revocation.settle(written);
        };
        let Some(consent) = Consent::read(approval.host_value()) else {
            return Ok(redemption.minting_failed());
        };
        let family = Family {
            key: *approval.session_key(),
            subject: approval.subject().clone(),
            client_id: approval.client_id().to_owned(),
            scope: approval.scope().clone(),
            auth_time: consent.auth_time(),
            issued_at: now,
        };
        let minted = match self.minter.mint(&family, &family.scope, user, now) {
            Ok(minted) => minted,
            Err(error) => {
                tracing::error!(%error, "no token was minted");
                return Ok(redemption.minting_failed());
            }
        };
        let Ok(tokens) = minted.tokens() else {
            return Ok(redemption.minting_failed());
        };
        // One step of the store: the guarded write and, if it won, the digest of the refresh token.
        let refresh = minted
            .refresh
            .as_ref()
            .map(|refresh| (&family, &refresh.stored));
        let written = self
            .store
            .redeem(&stored.session, redemption.change(), refresh)
            .await;
        redemption.settle(written, &tokens)
    }
}
