//! `POST /oauth2/device_authorization`: a device asks for codes (RFC 8628, section 3.1).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use device_flow::code::Entropy;
use device_flow::server::{Form, Incoming, Reply};
use time::OffsetDateTime;

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::{App, endpoint, now, quota, random, unavailable};

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    request: Request<Body>,
) -> Response {
    let endpoint = Endpoint::DeviceAuthorization;
    let answer = async |incoming: Incoming<'_>| {
        let issued = app.issue(incoming, source, now()).await;
        Answer::of(endpoint, issued.unwrap_or_else(|refused| refused))
    };
    endpoint::serve(&app, endpoint, source, request, answer).await
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
        let issuing = self
            .authenticate(request, source, now, |request, client| {
                request.authenticate(client)
            })
            .await?;

        let limit = self.policy.issuing_limit();
        let taken = self
            .take(limit, issuing.quota_key(&source.key()), now)
            .await;
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
