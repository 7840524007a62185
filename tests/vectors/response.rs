//! A response of the server half, and whether it is the expected one.

use std::collections::BTreeMap;

use device_flow::server::Reply;
use serde_json::{Map, Value};

use crate::form::{Expected, File};

/// A response as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// Returns the response as it is sent.
#[cfg(not(feature = "http"))]
pub(crate) fn sent(reply: Reply) -> Response {
    let response = reply.into_response();
    let headers = response.headers();
    Response {
        status: response.status(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect(),
        body: response.body().to_owned(),
    }
}

/// Returns the response as it is sent, converted to the types of `http`.
#[cfg(feature = "http")]
pub(crate) fn sent(reply: Reply) -> Response {
    let response: http::Response<std::borrow::Cow<'static, [u8]>> = reply.into();
    let headers = response.headers().iter();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    Response {
        status: response.status().as_u16(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8(response.body().to_vec()).unwrap(),
    }
}

impl Expected {
    /// Compares a response with the expected one: everything exactly, except the free texts.
    pub(crate) fn check(&self, file: &File, response: &Response) -> Result<(), String> {
        is("the status", &response.status, &self.status)?;
        let mut headers = file.headers.clone();
        headers.extend(self.headers.clone());
        is("the headers", &response.headers, &headers)?;
        let Some(expected) = &self.body else {
            return is("the body", &&*response.body, &"");
        };
        let body: Map<String, Value> =
            serde_json::from_str(&response.body).map_err(|_| "the body is no object")?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut rest = body.clone();
        for (name, value) in expected {
            let value = match value.as_str() {
                Some(template) => template
                    .replace("{user_code}", text("user_code"))
                    .replace("{refresh_token}", text("refresh_token"))
                    .into(),
                None => value.clone(),
            };
            is(name, &rest.remove(name), &Some(value))?;
        }
        for (name, free) in &self.free {
            let legal = text(name).chars().all(|c| free.characters.contains(c));
            is(name, &(legal && text(name).len() >= free.least), &true)?;
            rest.remove(name);
        }
        if expected.contains_key("error") {
            // "MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E." (RFC 6749, section 5.2)
            let legal = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
            let description = text("error_description");
            let legal = !description.is_empty() && description.bytes().all(legal);
            is("that the description is legal", &legal, &true)?;
            rest.remove("error_description");
        }
        is("what else is in the body", &rest, &Map::new())
    }
}

pub(crate) fn is<T: PartialEq + core::fmt::Debug>(
    what: &str,
    got: &T,
    expected: &T,
) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what} is {got:?}, expected {expected:?}"))
}
