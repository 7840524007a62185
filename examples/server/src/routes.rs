//! The routes of both listeners, and the limits for all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{any, get};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use crate::{App, RETRY_AFTER, authorize, endpoint, metadata, page, store_failed, userinfo};

/// The longest body of a form of the page, in bytes.
const MAX_PAGE_BODY: usize = 8 * 1024;

/// For how long a browser may keep the answer to a preflight request. Some browsers keep it no longer than this.
const PREFLIGHT_KEPT: Duration = Duration::from_hours(2);

/// Returns the routes for devices, clients and users.
pub(crate) fn router(app: Arc<App>) -> Router {
    // Every method goes to the crate, which itself answers 405.
    let protocol = Router::new()
        .route("/oauth2/token", any(endpoint::token))
        .route("/oauth2/revoke", any(endpoint::revocation))
        .route(
            "/oauth2/userinfo",
            get(userinfo::handle).post(userinfo::handle),
        )
        .route("/oauth2/jwks", get(metadata::jwks))
        .route("/.well-known/openid-configuration", get(metadata::handle))
        .route(
            "/.well-known/oauth-authorization-server",
            get(metadata::handle),
        )
        // No cookie is used here, so any page may send requests.
        .layer(
            CorsLayer::new()
                .allow_origin(Any)
                .allow_methods([Method::GET, Method::POST])
                .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
                .expose_headers([header::RETRY_AFTER, header::WWW_AUTHENTICATE])
                .max_age(PREFLIGHT_KEPT),
        )
        // No other page may read the codes. A page in a victim's browser could otherwise request codes from the victim's address, and send
        // the victim to the verification page.
        .route(
            "/oauth2/device_authorization",
            any(endpoint::device_authorization),
        );
    let protocol = protocol.layer(timeout(&app));
    let people = Router::new()
        .route("/", get(|| async { Redirect::to("/device") }))
        .route("/device", get(page::show).post(page::submit))
        .route("/device/request/{session}", get(page::request::show))
        .route("/device/logins", get(page::logins::show))
        .route("/device/style.css", get(page::style))
        .route("/device/icon.svg", get(page::icon))
        .layer(DefaultBodyLimit::max(MAX_PAGE_BODY))
        .route(
            "/oauth2/authorize",
            get(authorize::handle).post(authorize::handle),
        )
        .fallback(page::unknown)
        .layer(axum::middleware::from_fn_with_state(
            app.clone(),
            page::guard,
        ));
    with_all(Router::new().merge(protocol).merge(people), app)
}

/// Returns the routes for operators only, because they show differences that the answers hide.
pub(crate) fn operators(app: Arc<App>) -> Router {
    let timeout = timeout(&app);
    let operators = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .layer(timeout);
    with_all(operators, app)
}

/// Returns the time limit for endpoints that have no limit of their own.
fn timeout(app: &App) -> TimeoutLayer {
    let patience = app.request_timeout.saturating_add(Duration::from_secs(1));
    TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, patience)
}

fn with_all(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(CatchPanicLayer::new())
        .with_state(app)
}

/// Answers whether the store answers, because the server cannot work without it.
async fn healthz(State(app): State<Arc<App>>) -> Response {
    match app.store.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => {
            store_failed(&error);
            let headers = [(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER))];
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, headers, "the store does not answer\n").into_response()
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (media_type, text) = app.metrics.text();
    ([(header::CONTENT_TYPE, media_type)], text).into_response()
}
