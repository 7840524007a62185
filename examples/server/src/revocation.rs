//! `POST /oauth2/revoke` (RFC 7009): a client gives its tokens back.
//!
//! Rules:
//! 1. A refresh token takes its family along, whichever of the family it is.
//! 2. An access token is good until it expires, for nobody asks here about it: that is said, not hidden.
//! 3. A token that is none is as good as revoked.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use device_flow::server::{Form, Incoming, Reply};
use serde_json::json;
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::store::TokenDigest;
use crate::{App, endpoint, now, unavailable};

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    request: Request<Body>,
) -> Response {
    let answer = async |incoming: Incoming<'_>| {
        let revoked = app.revoke(incoming, source, now()).await;
        revoked.unwrap_or_else(|refused| Answer::of(Endpoint::Revocation, refused))
    };
    endpoint::serve(&app, Endpoint::Revocation, source, request, answer).await
}

impl App {
    async fn revoke(
        &self,
        incoming: Incoming<'_>,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<Answer, Reply> {
        let form = Form::read(incoming, &self.policy)?;
        let client = self
            .authenticate(form.client()?, source, now, |request, client| {
                request.authenticate(client)
            })
            .await?;
        let Some(token) = form.parameter("token") else {
            return Ok(refuse(
                "token_missing",
                "invalid_request",
                "token is missing",
            ));
        };
        let digest = TokenDigest::of(&token);
        let family = self.store.load_family(&digest, now).await;
        match family.map_err(unavailable)? {
            Some(family) if family.client_id != client.client_id() => Ok(refuse(
                "foreign_client",
                "invalid_grant",
                "the token was issued to another client",
            )),
            Some(family) => {
                let revoked = self.store.revoke_family(&family.key).await;
                revoked.map_err(unavailable)?;
                Ok(done("revoked"))
            }
            None if self.minter.verify(&token).is_some() => Ok(refuse(
                "access_token",
                "unsupported_token_type",
                "an access token stays good until it expires",
            )),
            // "invalid tokens do not cause an error response since the client cannot handle such an error in a reasonable way"
            // (RFC 7009, section 2.2)
            None => Ok(done("unknown_token")),
        }
    }
}

fn done(cause: &'static str) -> Answer {
    Answer::json(Endpoint::Revocation, cause, StatusCode::OK, &json!({}))
}

fn refuse(cause: &'static str, error: &str, description: &str) -> Answer {
    let status = StatusCode::BAD_REQUEST;
    Answer::refused(Endpoint::Revocation, cause, status, (error, description))
}
