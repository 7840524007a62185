//! What clients read about this server: its metadata (RFC 8414, `OpenID` Connect Discovery 1.0) and its keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use device_flow::wire::metadata::{Metadata, MetadataError};
use serde_json::json;

use crate::App;

/// How long a client may cache these documents: `max-age` is in seconds.
const CACHE: &str = "public, max-age=300";

/// Returns the metadata of an issuer. The issuer is only a scheme and a host, because all endpoints are at that host.
pub(crate) fn of<'a>(
    issuer: &str,
    scopes: impl Iterator<Item = &'a str>,
) -> Result<Metadata, MetadataError> {
    if issuer.split('/').count() != 3 {
        return Err(MetadataError::Issuer);
    }
    let at = |path: &str| format!("{issuer}{path}");
    let scopes = scopes.collect::<BTreeSet<_>>();
    let scopes = scopes.into_iter().collect::<Vec<_>>();
    Metadata::for_server(
        issuer,
        &at("/oauth2/device_authorization"),
        &at("/oauth2/token"),
    )?
    .grant_type("refresh_token")
    // Discovery requires this endpoint. It refuses every request, so `response_types_supported` is empty.
    .member("authorization_endpoint", at("/oauth2/authorize"))?
    .member("jwks_uri", at("/oauth2/jwks"))?
    .member("revocation_endpoint", at("/oauth2/revoke"))?
    .member(
        "revocation_endpoint_auth_methods_supported",
        json!(["none", "client_secret_basic", "client_secret_post"]),
    )?
    .member("userinfo_endpoint", at("/oauth2/userinfo"))?
    .member("scopes_supported", scopes)?
    .member("subject_types_supported", json!(["public"]))?
    .member("id_token_signing_alg_values_supported", json!(["RS256"]))?
    .member(
        "claims_supported",
        json!([
            "iss",
            "aud",
            "sub",
            "sid",
            "jti",
            "iat",
            "exp",
            "auth_time",
            "name",
            "given_name",
            "family_name",
            "email",
            "email_verified"
        ]),
    )
}

/// `GET /.well-known/oauth-authorization-server` and `/.well-known/openid-configuration`.
pub(crate) async fn handle(State(app): State<Arc<App>>) -> Response {
    json(app.metadata.clone())
}

/// `GET /oauth2/jwks`.
pub(crate) async fn jwks(State(app): State<Arc<App>>) -> Response {
    json(app.minter.jwks().to_owned())
}

fn json(body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, CACHE),
    ];
    (headers, body).into_response()
}
