//! A server on a free port, and a browser without a screen.

use std::net::SocketAddr;

use example_server::Server;
use example_server::config::{Config, DEFAULT, Quota};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const EMAIL: &str = "alice@example.com";
pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const SECRET: &str = "backend-secret-for-development-only";
pub(crate) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
pub(crate) const SCOPE: &str = "openid profile email offline_access reports:read";

/// Returns the default configuration, with a store in memory, on a free port.
pub(crate) fn config() -> Config {
    let mut config = Config::parse(DEFAULT).unwrap();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.metrics_listen = config.listen;
    config.store = "memory:".into();
    config
}

/// Returns a quota of this many at once, and nothing after that.
pub(crate) const fn quota(burst: u32) -> Quota {
    let period = 24 * 60 * 60;
    Quota { burst, period }
}

/// A server that answers until it is dropped or stopped.
pub(crate) struct Running {
    pub(crate) url: String,
    /// The URL for health and metrics.
    pub(crate) operators: String,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    pub(crate) http: Client,
}

impl Running {
    pub(crate) async fn new() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let server = Server::bind(config).await.unwrap();
        let address = server.address().unwrap();
        let operators = format!("http://{}", server.metrics_address().unwrap());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            url: format!("http://{address}"),
            operators,
            address,
            stop: Some(stop),
            task: Some(task),
            http: client(),
        }
    }

    /// Starts two servers on one store, which lives as long as the folder. One is as configured. The codes of the other live for a few
    /// seconds. So a test can wait for one of them to expire, and no other code expires early.
    pub(crate) async fn beside_a_brief_one(
        mut config: Config,
        lifetime: u64,
    ) -> (Self, Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        config.store = format!("sqlite:{}", folder.path().join("server.db").display()).into();
        let mut brief = config.clone();
        brief.policy.interval = 1;
        brief.policy.lifetime = lifetime;
        (Self::with(config).await, Self::with(brief).await, folder)
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Stops the server, and waits until it has stopped.
    pub(crate) async fn stopped(mut self) {
        self.stop();
        self.task.take().unwrap().await.unwrap();
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub(crate) fn get_as_operator(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.operators))
    }

    pub(crate) fn post(&self, path: &str, form: &[(&str, &str)]) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).form(form)
    }

    /// Asks for codes, and returns the answer.
    pub(crate) async fn codes(&self, scope: &str) -> Value {
        let form = [("client_id", "client_cli"), ("scope", scope)];
        let response = self
            .post("/oauth2/device_authorization", &form)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        json(response).await
    }

    /// Polls, and returns the status and the answer.
    pub(crate) async fn poll(&self, codes: &Value) -> (StatusCode, Value) {
        let form = [
            ("grant_type", DEVICE_GRANT),
            ("client_id", "client_cli"),
            ("device_code", text(codes, "device_code")),
        ];
        let response = self.post("/oauth2/token", &form).send().await.unwrap();
        (response.status(), json(response).await)
    }

    pub(crate) async fn refresh(&self, form: &[(&str, &str)]) -> (StatusCode, Value) {
        let mut all = vec![("grant_type", "refresh_token"), ("client_id", "client_cli")];
        all.extend(form);
        let response = self.post("/oauth2/token", &all).send().await.unwrap();
        (response.status(), json(response).await)
    }

    /// Plays a whole login, and returns the tokens.
    pub(crate) async fn log_in(&self, scope: &str) -> Value {
        let codes = self.codes(scope).await;
        let mut browser = self.signed_in().await;
        browser.approve(&codes).await;
        let (status, tokens) = self.poll(&codes).await;
        assert_eq!(status, StatusCode::OK, "{}", tokens["error"]);
        tokens
    }

    pub(crate) async fn browser(&self) -> Browser {
        let mut browser = Browser {
            url: format!("{}/device", self.url),
            http: client(),
            csrf: String::new(),
        };
        browser.show("").await;
        browser
    }

    pub(crate) async fn signed_in(&self) -> Browser {
        let mut browser = self.browser().await;
        let (status, _) = browser.sign_in(EMAIL, PASSWORD).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        browser.show("").await;
        browser
    }

    /// Returns the value of a counter.
    pub(crate) async fn count(&self, endpoint: &str, cause: &str) -> u64 {
        let text = self
            .get_as_operator("/metrics")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line =
            format!("device_login_replies_total{{cause=\"{cause}\",endpoint=\"{endpoint}\"}} ");
        let found = text.lines().find_map(|own| own.strip_prefix(&line));
        found.map_or(0, |number| number.parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Returns an HTTP client that keeps cookies and follows no redirect.
pub(crate) fn client() -> Client {
    let builder = Client::builder().redirect(redirect::Policy::none());
    builder.cookie_store(true).no_proxy().build().unwrap()
}

/// Somebody on the page.
pub(crate) struct Browser {
    pub(crate) url: String,
    pub(crate) http: Client,
    pub(crate) csrf: String,
}

impl Browser {
    /// Opens the page with a query, and remembers the token of its forms.
    pub(crate) async fn show(&mut self, query: &str) -> String {
        let response = self
            .http
            .get(format!("{}{query}", self.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let html = response.text().await.unwrap();
        self.csrf = field(&html, "csrf").unwrap();
        html
    }

    pub(crate) fn post(&self, form: &[(&str, &str)]) -> RequestBuilder {
        self.http.post(&self.url).form(form)
    }

    /// Submits a form with the token. If the response leads to the page of a request, opens that page.
    pub(crate) async fn submit(&self, form: &[(&str, &str)]) -> (StatusCode, String) {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend(form);
        let mut response = self.post(&all).send().await.unwrap();
        if let Some(path) = location(&response)
            && path.starts_with("/device/request/")
        {
            response = self.open(&path).await;
        }
        (response.status(), response.text().await.unwrap())
    }

    /// Opens another page.
    pub(crate) async fn open(&self, path: &str) -> Response {
        let base = self.url.strip_suffix("/device").unwrap();
        self.http.get(format!("{base}{path}")).send().await.unwrap()
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> (StatusCode, String) {
        let form = [
            ("step", "sign_in"),
            ("email", email),
            ("password", password),
        ];
        self.submit(&form).await
    }

    pub(crate) async fn enter(&self, user_code: &str) -> (StatusCode, String) {
        self.submit(&[("step", "enter"), ("user_code", user_code)])
            .await
    }

    /// Decides. For an approval, the boxes are as they are on the review.
    pub(crate) async fn decide(&self, step: &str, session: &str) -> (StatusCode, String) {
        let boxes = match step {
            "approve" => self.boxes(session).await,
            _ => Vec::new(),
        };
        let mut form = vec![("step", step), ("session", session)];
        form.extend(boxes.iter().map(|name| (name.as_str(), "on")));
        self.submit(&form).await
    }

    /// Returns the names of the boxes that can be unticked.
    pub(crate) async fn boxes(&self, session: &str) -> Vec<String> {
        let review = self.open(&format!("/device/request/{session}")).await;
        boxes(&review.text().await.unwrap())
    }

    /// Enters the code, and returns the session of the review.
    pub(crate) async fn review(&self, codes: &Value) -> String {
        let (status, html) = self.enter(text(codes, "user_code")).await;
        assert_eq!(status, StatusCode::OK, "{html}");
        field(&html, "session").unwrap()
    }

    /// Enters the code and approves. Returns the session.
    pub(crate) async fn approve(&mut self, codes: &Value) -> String {
        let session = self.review(codes).await;
        let (status, html) = self.decide("approve", &session).await;
        assert_eq!(status, StatusCode::OK, "{html}");
        session
    }
}

/// Returns where a response leads.
pub(crate) fn location(response: &Response) -> Option<String> {
    let location = response.headers().get("location")?;
    Some(location.to_str().unwrap().to_owned())
}

/// Returns the names of the boxes of a page that can be unticked.
pub(crate) fn boxes(html: &str) -> Vec<String> {
    let inputs = html.split("<input ").filter_map(|input| {
        let (input, _) = input.split_once('>')?;
        let (_, name) = input.split_once("name=\"")?;
        let (name, rest) = name.split_once('"')?;
        let is_free = rest.contains("checked") && !rest.contains("disabled");
        is_free.then(|| name.to_owned())
    });
    inputs.collect()
}

/// Returns the value of the first input of a name.
pub(crate) fn field(html: &str, name: &str) -> Option<String> {
    let (_, rest) = html.split_once(&format!("name=\"{name}\""))?;
    let (_, rest) = rest.split_once("value=\"")?;
    Some(rest.split_once('"')?.0.to_owned())
}

pub(crate) async fn json(response: Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// Asks until the answer is yes, for ten seconds at most.
pub(crate) async fn eventually(mut asked: impl AsyncFnMut() -> bool) -> bool {
    for _ in 0..100 {
        if asked().await {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    false
}
