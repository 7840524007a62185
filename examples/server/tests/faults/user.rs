//! A user at the verification page.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::time::sleep;

use super::support::server::{boxes, client, field, location};
use super::world::World;
use super::{PASSWORD, PATIENCE, millis};

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Approve,
    Deny,
    Ignore,
}

/// Plays a user at the page, until the page confirms the decision, or the code has expired. Returns whether the page confirmed it.
pub(crate) async fn user(
    world: Arc<World>,
    number: usize,
    user_code: String,
    wish: Wish,
    mut rng: Rng,
) -> bool {
    if wish == Wish::Ignore {
        return false;
    }
    let browser = client();
    let most = world.plan.lifetime.as_secs_f64() / 2.0;
    sleep(Duration::from_secs_f64(rng.f64() * most)).await;
    let mut page = Page::at("/device".to_owned());
    let started = Instant::now();
    while started.elapsed() < world.plan.lifetime {
        let server = world.servers[rng.usize(..world.servers.len())];
        let url = |path: &str| format!("http://{server}{path}");
        let step = match wish {
            _ if page.csrf.is_empty() => None,
            _ if page.is_signed_out => Some("sign_in"),
            Wish::Approve if page.session.is_some() => Some("approve"),
            Wish::Deny if page.session.is_some() => Some("deny"),
            Wish::Approve | Wish::Deny | Wish::Ignore => Some("enter"),
        };
        let request = match step {
            None => browser.get(url(&page.path)),
            Some(step) => {
                let email = format!("user{number}@example.com");
                let mut form = vec![
                    ("step", step),
                    ("csrf", &page.csrf),
                    ("email", &email),
                    ("password", PASSWORD),
                    ("user_code", &user_code),
                    ("session", page.session.as_deref().unwrap_or_default()),
                ];
                form.extend(page.boxes.iter().map(|name| (name.as_str(), "on")));
                browser.post(url("/device")).form(&form)
            }
        };
        let source = format!("198.19.{}.{}", number / 256, number % 256);
        let request = request.header("x-forwarded-for", source);
        let response = request.timeout(PATIENCE).send().await;
        let read = async |response: reqwest::Response| match location(&response) {
            Some(path) => (response.status().as_u16(), path),
            None => (
                response.status().as_u16(),
                response.text().await.unwrap_or_default(),
            ),
        };
        let answer = match response {
            Ok(response) => Some(read(response).await),
            Err(_) => None,
        };
        match (step, answer) {
            (Some("approve" | "deny"), Some((303, _))) => return true,
            (_, Some((303, path))) => page = Page::at(path), // on to the form for a code, or to the review
            // The session was decided or claimed before, but the answer was lost; or the code has expired.
            (Some("approve" | "deny") | None, Some((403..=410, _)))
            | (Some("enter"), Some((400, _))) => {
                return false;
            }
            (_, Some((200, text))) => page = Page::read(&text),
            (_, Some(_) | None) => sleep(millis(&mut rng, 50, 300)).await,
        }
    }
    false
}

/// What a form of the page needs.
struct Page {
    path: String,
    csrf: String,
    session: Option<String>,
    boxes: Vec<String>,
    is_signed_out: bool,
}

impl Page {
    fn read(html: &str) -> Self {
        let is_review = html.contains(r#"value="approve""#);
        Self {
            csrf: field(html, "csrf").unwrap_or_default(),
            session: field(html, "session").filter(|_| is_review),
            boxes: boxes(html),
            is_signed_out: html.contains(r#"value="sign_in""#),
            ..Self::at("/device".to_owned())
        }
    }

    /// Returns a page that was not opened yet.
    fn at(path: String) -> Self {
        Self {
            path,
            csrf: String::new(),
            session: None,
            boxes: Vec::new(),
            is_signed_out: false,
        }
    }
}
