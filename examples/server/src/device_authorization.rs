//! `POST /oauth2/device_authorization`: a device asks for codes (RFC 8628, section 3.1).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::{IntoResponse as _, Response};
use device_flow::code::Entropy;
use device_flow::server::{Form, Incoming, Reply};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::quota::{self, Secrets};
use crate::source::Source;
use crate::{App, body, now, random, unavailable};

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    request: Request<Body>,
) -> Response {
    let request = body::read(request, app.policy.max_body(), app.request_timeout).await;
    let request = match request {
        Ok(request) => request,
        Err(status) => return status.into_response(),
    };
    let issued = app.issue(Incoming::from(&request), source, now());
    let issued = tokio::time::timeout(app.request_timeout, issued).await;
    let reply = match issued {
        Ok(Ok(reply) | Err(reply)) => reply,
        Err(_) => Reply::store_failed(),
    };
    Answer::of(Endpoint::DeviceAuthorization, reply).send(&app, source)
}

impl App {
    async fn issue(
        &self,
        incoming: Incoming<'_>,
        source: Source,
        now: OffsetDateTime,
    ) -> Result<Reply, Reply> {
        let form = Form::read(incoming, &self.policy)?;
        let request = form.device_authorization()?;
        let client = self.registration(request.client_id());
        let key = source.key();
        let secrets = Secrets::check(&request, &key, &self.store, &self.policy, now).await?;
        let issuing = match request.authenticate(client) {
            Ok(issuing) => issuing,
            Err(refusal) => return Err(secrets.charge(refusal).await),
        };

        let limit = self.policy.issuing_limit();
        let taken = quota::take(&self.store, limit, issuing.quota_key(&key), now).await;
        taken.map_err(|refused| match refused {
            quota::Refused::Spent(spent) => Reply::issuing_quota_spent(spent),
            quota::Refused::Store => Reply::store_failed(),
        })?;

        let mut issuing = issuing.with_origin(source.origin());
        loop {
            // Fresh entropy for every draw. After too many codes that were taken, `draw` refuses.
            let entropy = Entropy::from(random::<{ Entropy::OCTETS }>());
            let issuance = issuing.draw(entropy, &self.user_code_keys, now)?;
            let inserted = self.store.insert(issuance.session()).await;
            let inserted = inserted.map_err(unavailable)?;
            if let Ok(reply) = issuance.settle(inserted) {
                return Ok(reply);
            }
        }
    }
}
