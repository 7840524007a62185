//! `GET` and `POST /oauth2/userinfo` (`OpenID` Connect Core, section 5.3): the claims about the user of an access token.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use device_flow::scope::Scope;
use device_flow::server::Subject;
use serde::Serialize;
use serde_json::json;

use crate::App;
use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::mint::About;
use crate::source::Source;

#[derive(Serialize)]
struct Userinfo<'a> {
    sub: &'a str,
    #[serde(flatten)]
    about: About<'a>,
}

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
) -> Response {
    app.userinfo(&headers).send(&app, source)
}

impl App {
    fn userinfo(&self, headers: &HeaderMap) -> Answer {
        let Some(token) = bearer(headers) else {
            // "the resource server SHOULD NOT include an error code" if there is no token (RFC 6750, section 3.1)
            return refuse("token_missing", StatusCode::UNAUTHORIZED, "Bearer");
        };
        let challenge = r#"Bearer error="invalid_token""#;
        let invalid = refuse("token_invalid", StatusCode::UNAUTHORIZED, challenge);
        let Some(claims) = self.minter.verify(token) else {
            return invalid;
        };
        let (Ok(subject), Ok(scope)) = (Subject::new(claims.sub), claims.scope.parse::<Scope>())
        else {
            return invalid;
        };
        let Some(user) = self.user(&subject) else {
            return invalid;
        };
        if !scope.contains("openid") {
            let challenge = r#"Bearer error="insufficient_scope", scope="openid""#;
            return refuse("scope_missing", StatusCode::FORBIDDEN, challenge);
        }
        let body = Userinfo {
            sub: subject.as_str(),
            about: About::of(&user.entry, &scope),
        };
        Answer::json(Endpoint::Userinfo, "told", StatusCode::OK, &body)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

fn refuse(cause: &'static str, status: StatusCode, challenge: &'static str) -> Answer {
    let answer = Answer::json(Endpoint::Userinfo, cause, status, &json!({}));
    answer.header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static(challenge),
    )
}
