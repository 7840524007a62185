//! The stage: one clock, a network that takes no time, and the checks. It hands what one half says to the other.

use core::fmt;
use core::time::Duration;

use device_flow::client::{DeviceFlow, Next, Outcome, Prompt, Received, Step, Waiting};
use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::{Cause, HostValue, Incoming, Reply, Review};
use device_flow::{client, server};
use serde_json::Value;
use time::OffsetDateTime;
use time::macros::datetime;

use super::host::{Host, ISSUER, User};
use super::page::Refused;
use super::transcript::{Event, Party, Transcript};

/// What fails on the stage: a mismatch, or a mistake in the play.
pub(crate) type Result<T> = core::result::Result<T, Box<dyn core::error::Error>>;

/// What the page answers.
pub(crate) type Answer<T> = core::result::Result<T, Refused>;

/// When every scene begins, by the server's clock.
const CURTAIN: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

/// Where the device is, as far as the server can see: an address for documentation (RFC 5737).
const SOURCE: &str = "203.0.113.7";

/// One scene being played.
pub(crate) struct Stage<'t> {
    pub(crate) host: Host,
    /// Since the curtain. The device reads it as its monotonic clock, the server as the time of day.
    clock: Duration,
    transcript: &'t mut Transcript,
    last_poll: Option<client::Request>,
}

impl<'t> Stage<'t> {
    pub(crate) fn new(host: Host, transcript: &'t mut Transcript) -> Self {
        Self {
            host,
            clock: Duration::ZERO,
            transcript,
            last_poll: None,
        }
    }

    fn now(&self) -> OffsetDateTime {
        let since = time::Duration::try_from(self.clock).unwrap_or(time::Duration::MAX);
        CURTAIN.saturating_add(since)
    }

    /// Lets time pass until `moment` since the curtain; never back.
    pub(crate) fn until(&mut self, moment: Duration) {
        self.clock = self.clock.max(moment);
    }

    pub(crate) fn after(&mut self, pause: Duration) {
        self.clock = self.clock.saturating_add(pause);
    }

    // What the device does.

    /// Asks for codes, and shows them.
    pub(crate) fn start(
        &mut self,
        flow: &DeviceFlow,
        expected: &Expected,
    ) -> Result<(Waiting, Prompt)> {
        let (starting, request) = flow.start(self.clock)?;
        let answer = self.send(Party::Device, &request, expected)?;
        let (waiting, prompt) = starting.answer(Ok(answer), self.clock)?;
        self.says(
            Party::Device,
            format!(
                "shows: open {} and enter {}",
                prompt.verification_uri, prompt.user_code
            ),
        );
        Ok((waiting, prompt))
    }

    /// Waits for as long as the poller wants to, polls, feeds the answer in. A device does this until the step is done.
    pub(crate) fn poll(&mut self, mut waiting: Waiting, expected: &Expected) -> Result<Step> {
        loop {
            match waiting.next(self.clock) {
                Next::Wait(same, until) => {
                    self.until(until);
                    waiting = same;
                }
                Next::Send(sent, request) => {
                    self.last_poll = Some(request.clone());
                    let answer = self.send(Party::Device, &request, expected)?;
                    return Ok(sent.answer(Ok(answer), self.clock));
                }
                Next::Done(outcome) => return Ok(Step::Done(outcome)),
            }
        }
    }

    /// Sends the last poll once more, behind the poller's back: another process, or a thief with the same code.
    pub(crate) fn poll_again(
        &mut self,
        who: Party,
        expected: &Expected,
    ) -> Result<client::Verdict> {
        let request = self.last_poll.clone().ok_or("nobody has polled yet")?;
        let answer = self.send(who, &request, expected)?;
        Ok(client::verdict(&answer))
    }

    // What goes between them.

    /// Carries a request of the client half to the server half, and the response back.
    fn send(
        &mut self,
        who: Party,
        request: &client::Request,
        expected: &Expected,
    ) -> Result<Received<String>> {
        let path = request.url().strip_prefix(ISSUER).unwrap_or_default();
        let headers = request.headers();
        self.transcript.push(
            self.clock,
            Event::Request {
                from: who,
                to: Party::Server,
                method: request.method(),
                path: path.to_owned(),
                headers: headers
                    .map(|(name, value)| (name, value.to_owned()))
                    .collect(),
                body: request.body().to_owned(),
            },
        );

        let header = |wanted| {
            let headers = request.headers();
            headers.filter_map(move |(name, value)| (name == wanted).then_some(value))
        };
        let incoming = Incoming::new(request.method(), request.body().as_bytes())
            .content_type(header("content-type"))
            .authorization(header("authorization"));
        let now = self.now();
        let answered = match path {
            "/oauth2/device_authorization" => self.host.device_authorization(incoming, SOURCE, now),
            "/oauth2/token" => self.host.token(incoming, SOURCE, now),
            _ => return Err(format!("the server has nothing at {path}").into()),
        };
        let reply = answered.unwrap_or_else(|refusal| refusal);

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
            },
        );
        self.check(expected, &reply)?;

        let received = Received::new(response.status(), response.body().to_owned());
        Ok(match response.header("retry-after") {
            Some(seconds) => received.retry_after(seconds),
            None => received,
        })
    }

    // What the user does.

    /// Types a code into the page, which shows what the device asks for, or why not.
    pub(crate) fn enter(&mut self, user: &User, typed: &str) -> Answer<Review> {
        let text = format!("{} submits the code {typed:?}", user.name);
        self.says(Party::User, text);
        let now = self.now();
        let entered = self.host.enter(&user.subject, typed, now);
        self.shows(entered, describe)
    }

    /// Approves some of the scope, or all of it.
    pub(crate) fn approve(
        &mut self,
        user: &User,
        session: &SessionKey,
        scope: &Scope,
        value: &HostValue,
    ) -> Answer<()> {
        self.says(Party::User, format!("{} approves {scope}", user.name));
        let now = self.now();
        let host = &mut self.host;
        let approved = host.approve(&user.subject, session, scope, value, now);
        self.shows(approved, |()| "approved; go back to your device".to_owned())
    }

    /// Denies.
    pub(crate) fn deny(&mut self, user: &User, session: &SessionKey) -> Answer<()> {
        self.says(Party::User, format!("{} denies", user.name));
        let now = self.now();
        let denied = self.host.deny(&user.subject, session, now);
        self.shows(denied, |()| "denied".to_owned())
    }

    fn shows<T>(&mut self, answer: Answer<T>, page: impl FnOnce(&T) -> String) -> Answer<T> {
        let (text, log) = match &answer {
            Ok(accepted) => (page(accepted), None),
            Err(refused) => (refused.to_string(), Some(refused.reason())),
        };
        let text = format!("shows: {text}");
        let who = Party::Page;
        self.transcript
            .push(self.clock, Event::Says { who, text, log });
        answer
    }

    // What is said about it.

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

    /// Compares what is neither an answer nor an ending.
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

    /// The step that leads to another poll.
    pub(crate) fn goes_on(&self, step: Step) -> Result<Waiting> {
        match step {
            Step::Again(waiting) => Ok(waiting),
            Step::Done(outcome) => {
                Err(self.mismatch("the device to go on polling", name(&outcome)))
            }
        }
    }

    /// The step that ends it.
    pub(crate) fn ends(&self, step: Step) -> Result<Outcome> {
        match step {
            Step::Done(outcome) => Ok(outcome),
            Step::Again(_) => Err(self.mismatch("the device to be done", "it goes on polling")),
        }
    }

    /// What the page accepted.
    pub(crate) fn accepted<T>(&mut self, answer: Answer<T>) -> Result<T> {
        self.transcript.checked();
        answer.map_err(|refused| self.mismatch("the page to accept it", refused.reason()))
    }

    /// Checks why the page did not accept it.
    pub(crate) fn refused<T>(&mut self, answer: Answer<T>, reason: &str) -> Result<()> {
        match answer {
            Ok(_) => Err(self.mismatch(reason, "the page accepted it")),
            Err(refused) => self.expect("the refusal", reason, &refused.reason()),
        }
    }

    /// An error that says where, what was expected, and what came instead.
    pub(crate) fn mismatch(
        &self,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Box<dyn core::error::Error> {
        let place = self.transcript.place(self.clock);
        format!("{place}: expected {expected}; got {got}").into()
    }
}

/// What the page shows before the user decides. In HTML, all of it is escaped.
fn describe(review: &Review) -> String {
    let origin = review.origin().map_or("nowhere", server::Origin::as_str);
    format!(
        "{} asks for {}, {} s ago, from {origin}. Does your device show {}?",
        review.client_id(),
        review.scope(),
        review.age().as_secs(),
        review.user_code().display(),
    )
}

/// An ending, for an error: `Debug` shows no secrets.
pub(crate) fn name(outcome: &Outcome) -> String {
    format!("{outcome:?}")
}

/// What an answer has to be: the status, the cause for the server's log, and the members and headers that matter.
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
            // No cache may keep any of them (RFC 6749, section 5.1).
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

    /// What came, as far as `expected` looks at it.
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
