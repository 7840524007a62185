//! The stage: one clock, a network that takes no time, and the checks. It carries messages between the two halves.

use core::fmt;
use core::time::Duration;

use device_flow::client::{
    self, DeviceFlow, Login, LoginError, Next, Prompt, Refresh, RequestError, Response, Revocation,
    Tokens, TransportError, Verdict,
};
use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Consent, HostValue, PageError, Reply, Request, Review, Session, Status,
};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

use super::host::{ISSUER, User};
use super::service::{Answer, Service};
use super::transcript::{Event, Party, Transcript};

/// The result of a step. An error is a mismatch, or a mistake in a scene.
pub(crate) type Result<T> = core::result::Result<T, Box<dyn core::error::Error>>;

/// The time at which every scene begins, by the server's clock.
pub(crate) const BEGINNING: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

/// The address that the device sends from. It is reserved for documentation (RFC 5737).
const SOURCE: &str = "203.0.113.7";

/// A message on its way to the server.
struct Message<'m> {
    path: &'m str,
    headers: Vec<(&'static str, &'m str)>,
    body: &'m str,
}

/// How a login ended.
type Outcome = core::result::Result<Tokens, LoginError>;

/// Whether the network loses a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    Delivers,
    LosesTheResponse,
}

/// One scene being played.
pub(crate) struct Stage<'t> {
    pub(crate) service: Service,
    /// The time since the beginning of the scene. The device reads it as its monotonic clock, the server as the time of day.
    clock: Duration,
    transcript: &'t mut Transcript,
    last_poll: Option<client::Request>,
}

impl<'t> Stage<'t> {
    pub(crate) fn new(service: Service, transcript: &'t mut Transcript) -> Self {
        Self {
            service,
            clock: Duration::ZERO,
            transcript,
            last_poll: None,
        }
    }

    /// Lets time pass until `moment`, counted from the beginning of the scene. The clock never goes back.
    pub(crate) fn until(&mut self, moment: Duration) {
        self.clock = self.clock.max(moment);
        let since = time::Duration::try_from(self.clock).unwrap_or(time::Duration::MAX);
        self.service.host.now = BEGINNING.saturating_add(since);
    }

    pub(crate) fn after(&mut self, pause: Duration) {
        self.until(self.clock.saturating_add(pause));
    }

    /// Plays a part of a scene without printing it.
    pub(crate) fn hidden<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.transcript.hide(true);
        let played = part(self);
        self.transcript.hide(false);
        played
    }

    // What the device does.

    /// Asks for codes, and shows them.
    pub(crate) fn start(
        &mut self,
        flow: &DeviceFlow,
        expected: &Expected,
    ) -> Result<(Login, Prompt)> {
        let mut login = flow.login()?;
        let Next::Send(ask) = login.next(self.clock) else {
            return Err("a login begins with a request for codes".into());
        };
        let request = ask.request().clone();
        let answer = self.carry(Party::Device, &request, expected, Network::Delivers)?;
        ask.answer(Ok(answer), self.clock);
        let prompt = match login.next(self.clock) {
            Next::Show(prompt) => prompt,
            Next::Done(outcome) => return Err(self.mismatch("a prompt", name(&outcome))),
            Next::Send(_) | Next::Wait { .. } => return Err("nothing is shown".into()),
        };
        self.says(
            Party::Device,
            format!(
                "shows: open {} and enter {}",
                prompt.verification_uri, prompt.user_code
            ),
        );
        Ok((login, prompt))
    }

    /// Waits for as long as the login says, polls, and passes the answer to the login. A device does this until the login is done.
    pub(crate) fn poll(&mut self, login: &mut Login, expected: &Expected) -> Result<()> {
        loop {
            match login.next(self.clock) {
                Next::Wait { until } => self.until(until),
                Next::Send(ask) => {
                    let request = ask.request().clone();
                    let answer =
                        self.carry(Party::Device, &request, expected, Network::Delivers)?;
                    ask.answer(Ok(answer), self.clock);
                    self.last_poll = Some(request);
                    return Ok(());
                }
                Next::Show(_) => return Err("the prompt is shown twice".into()),
                Next::Done(outcome) => {
                    return Err(self.mismatch("the device to poll", name(&outcome)));
                }
            }
        }
    }

    /// Sends the last poll once more, unknown to the login: as another process does, or a thief with the same code.
    pub(crate) fn poll_again(&mut self, who: Party, expected: &Expected) -> Result<Verdict> {
        let request = self.last_poll.clone().ok_or("nobody has polled yet")?;
        let answer = self.carry(who, &request, expected, Network::Delivers)?;
        Ok(client::verdict(&answer))
    }

    /// Sends a refresh token to get new tokens (RFC 6749, section 6).
    pub(crate) fn refresh(
        &mut self,
        who: Party,
        refresh: &mut Refresh,
        expected: &Expected,
    ) -> Result<core::result::Result<Tokens, RequestError>> {
        let request = refresh.request().clone();
        let answer = self.carry(who, &request, expected, Network::Delivers)?;
        Ok(refresh.answer(Ok(answer)))
    }

    /// The same, but the network loses the response.
    pub(crate) fn refresh_in_vain(
        &mut self,
        who: Party,
        refresh: &mut Refresh,
        expected: &Expected,
    ) -> Result<()> {
        let request = refresh.request().clone();
        self.carry(who, &request, expected, Network::LosesTheResponse)?;
        let lost = refresh.answer::<&str>(Err(TransportError::ConnectionTimeout));
        let again = lost.is_err_and(|error| error.may_be_retried());
        self.expect("that the same refresh may be sent again", &true, &again)
    }

    /// Revokes a refresh token (RFC 7009).
    pub(crate) fn revoke(
        &mut self,
        who: Party,
        revocation: &Revocation,
        expected: &Expected,
    ) -> Result<()> {
        let answer = self.carry(who, revocation.request(), expected, Network::Delivers)?;
        Ok(revocation.answer(Ok(answer))?)
    }

    // What the network does.

    /// Carries a request from the client half to the server half, and the response back.
    fn carry(
        &mut self,
        who: Party,
        request: &client::Request,
        expected: &Expected,
        network: Network,
    ) -> Result<Response<String>> {
        let message = Message {
            path: request.url().strip_prefix(ISSUER).unwrap_or_default(),
            headers: request.headers().collect(),
            body: request.body(),
        };
        self.send(who, &message, expected, network)
    }

    fn send(
        &mut self,
        who: Party,
        message: &Message<'_>,
        expected: &Expected,
        network: Network,
    ) -> Result<Response<String>> {
        let path = message.path;
        let headers = message.headers.iter();
        self.transcript.push(
            self.clock,
            Event::Request {
                from: who,
                to: Party::Server,
                method: "POST",
                path: path.to_owned(),
                headers: headers
                    .map(|(name, value)| (*name, String::from(*value)))
                    .collect(),
                body: message.body.to_owned(),
            },
        );

        let header = |wanted| {
            let headers = message.headers.iter();
            headers.filter_map(move |(name, value)| (*name == wanted).then_some(*value))
        };
        let request = Request::new("POST", message.body.as_bytes())
            .content_type(header("content-type"))
            .authorization(header("authorization"));
        let reply = match path {
            "/oauth2/device_authorization" => self.service.device_authorization(request, SOURCE),
            "/oauth2/token" => self.service.token(request, SOURCE),
            "/oauth2/revoke" => self.service.revocation(request, SOURCE),
            _ => Err(format!("the server has nothing at {path}").into()),
        }?;

        let response = reply.response();
        let headers = response.headers();
        self.transcript.push(
            self.clock,
            Event::Response {
                from: Party::Server,
                to: who,
                status: response.status(),
                headers: headers
                    .map(|(name, value)| (name, String::from(value)))
                    .collect(),
                body: response.body().to_owned(),
                cause: reply.cause().as_str(),
                lost: network == Network::LosesTheResponse,
            },
        );
        self.check(expected, &reply)?;

        let received = Response::new(response.status(), response.body().to_owned());
        Ok(match response.header("retry-after") {
            Some(seconds) => received.retry_after(seconds),
            None => received,
        })
    }

    // What the user does.

    /// Types a code into the page, which then shows what the device requests, or why it shows nothing.
    pub(crate) fn enter(&mut self, user: &User, typed: &str) -> Result<Answer<Review>> {
        let text = format!("{} submits the code {typed:?}", user.name);
        self.says(Party::User, text);
        let entered = self.service.enter(&user.subject, typed)?;
        Ok(self.shows(entered, describe))
    }

    /// Approves a part of the scope, or all of it.
    pub(crate) fn approve(
        &mut self,
        user: &User,
        session: &SessionKey,
        scope: &Scope,
        value: &HostValue,
    ) -> Result<Answer<Session>> {
        self.says(Party::User, format!("{} approves {scope}", user.name));
        let consent = Consent::to(scope.clone()).with_value(value.clone());
        let approved = self.service.approve(&user.subject, session, &consent)?;
        Ok(self.shows(approved, |_| "approved; go back to your device".to_owned()))
    }

    /// Denies the request.
    pub(crate) fn deny(&mut self, user: &User, session: &SessionKey) -> Result<Answer<Session>> {
        self.says(Party::User, format!("{} denies", user.name));
        let denied = self.service.deny(&user.subject, session)?;
        Ok(self.shows(denied, |_| "denied".to_owned()))
    }

    fn shows<T>(&mut self, answer: Answer<T>, page: impl FnOnce(&T) -> String) -> Answer<T> {
        let (text, log) = match &answer {
            Ok(accepted) => (page(accepted), None),
            Err(refused) => (refused.to_string(), Some(reason(*refused))),
        };
        let text = format!("shows: {text}");
        let who = Party::Page;
        self.transcript
            .push(self.clock, Event::Says { who, text, log });
        answer
    }

    // What is printed about it.

    pub(crate) fn says(&mut self, who: Party, text: impl Into<String>) {
        let (text, log) = (text.into(), None);
        self.transcript
            .push(self.clock, Event::Says { who, text, log });
    }

    pub(crate) fn note(&mut self, text: &'static str) {
        self.transcript.push(self.clock, Event::Note { text });
    }

    // What is checked.

    fn check(&mut self, expected: &Expected, reply: &Reply) -> Result<()> {
        let got = Expected::of(reply, expected);
        if *expected != got {
            return Err(self.mismatch(expected, got));
        }
        self.transcript.checked();
        Ok(())
    }

    /// Compares a value that is neither an answer nor an outcome.
    pub(crate) fn expect<T: PartialEq + fmt::Debug + ?Sized>(
        &mut self,
        what: &str,
        expected: &T,
        got: &T,
    ) -> Result<()> {
        if expected != got {
            let expected = format_args!("{what} to be {expected:?}");
            return Err(self.mismatch(expected, format_args!("{got:?}")));
        }
        self.transcript.checked();
        Ok(())
    }

    /// Compares the state of a login.
    pub(crate) fn expect_login(&mut self, session: &SessionKey, expected: Status) -> Result<()> {
        let status = self.service.status(session)?;
        self.expect("the state of the login", &Some(expected), &status)
    }

    /// Checks that the login goes on polling.
    pub(crate) fn goes_on(&self, login: &mut Login) -> Result<()> {
        match login.next(self.clock) {
            Next::Done(outcome) => {
                Err(self.mismatch("the device to go on polling", name(&outcome)))
            }
            Next::Wait { .. } | Next::Send(_) | Next::Show(_) => Ok(()),
        }
    }

    /// Returns the outcome of the login, which must have ended.
    pub(crate) fn ends(&self, login: &mut Login) -> Result<Outcome> {
        match login.next(self.clock) {
            Next::Done(outcome) => Ok(outcome),
            Next::Wait { .. } | Next::Send(_) | Next::Show(_) => {
                Err(self.mismatch("the device to be done", "it goes on polling"))
            }
        }
    }

    /// Returns what the page accepted. It is an error if the page refused.
    pub(crate) fn accepted<T>(&mut self, answer: Answer<T>) -> Result<T> {
        self.transcript.checked();
        answer.map_err(|refused| self.mismatch("the page to accept it", reason(refused)))
    }

    /// Checks why the page refused.
    pub(crate) fn refused<T>(&mut self, answer: &Answer<T>, why: &str) -> Result<()> {
        match answer {
            Ok(_) => Err(self.mismatch(why, "the page accepted it")),
            Err(refused) => self.expect("the refusal", why, &*reason(*refused)),
        }
    }

    /// Returns an error that says where it was, what was expected, and what came instead.
    pub(crate) fn mismatch(
        &self,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Box<dyn core::error::Error> {
        let place = self.transcript.place(self.clock);
        format!("{place}: expected {expected}; got {got}").into()
    }
}

/// Returns the reason for the server's log, which may say more than the page.
fn reason(refused: PageError) -> String {
    if let PageError::RateLimited(limited) = refused {
        return format!("RateLimited, for {} s", limited.seconds());
    }
    format!("{refused:?}")
}

/// Returns what the page shows before the user decides. In HTML, all of it is escaped.
fn describe(review: &Review) -> String {
    let source = review.shown_source();
    // Any program that knows the id of a public client can send requests in its name.
    let warning = if review.is_public_client() {
        " Another program may pretend to be this one."
    } else {
        ""
    };
    format!(
        "{} asked for {} from {}, {} s ago.{warning} Does your device show {}?",
        review.client_name().unwrap_or(review.client_id()),
        review.scope(),
        source.unwrap_or("an unknown address"),
        review.age().as_secs(),
        review.user_code().display(),
    )
}

/// Returns an outcome as text for an error. `Debug` shows no secrets.
pub(crate) fn name(outcome: &Outcome) -> String {
    format!("{outcome:?}")
}

/// What an answer must be: the status, the cause for the server's log, and the members and headers that matter.
#[derive(PartialEq)]
pub(crate) struct Expected {
    status: u16,
    cause: Cause,
    members: Vec<(&'static str, Value)>,
    headers: Vec<(&'static str, String)>,
}

impl Expected {
    pub(crate) fn new(status: u16, cause: Cause) -> Self {
        Self {
            status,
            cause,
            members: Vec::new(),
            // Caches must not store any answer (RFC 6749, section 5.1).
            headers: vec![("cache-control", "no-store".to_owned())],
        }
    }

    pub(crate) fn error(cause: Cause, code: &'static str) -> Self {
        Self::new(400, cause).member("error", code)
    }

    pub(crate) fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Returns the parts of the reply that `expected` has.
    fn of(reply: &Reply, expected: &Self) -> Self {
        let response = reply.response();
        let body: Value = serde_json::from_str(response.body()).unwrap_or_default();
        let member = |(name, _): &(&'static str, Value)| {
            (*name, body.get(name).cloned().unwrap_or_default())
        };
        let header = |(name, _): &(&'static str, String)| {
            let value = response.header(name);
            (*name, value.map(String::from).unwrap_or_default())
        };
        Self {
            status: response.status(),
            cause: reply.cause(),
            members: expected.members.iter().map(member).collect(),
            headers: expected.headers.iter().map(header).collect(),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {} (cause {})", self.status, self.cause)?;
        for (name, value) in &self.members {
            write!(f, ", {name} {value}")?;
        }
        for (name, value) in &self.headers {
            write!(f, ", {name}: {value}")?;
        }
        Ok(())
    }
}
