//! Signing in: the loop around the client half.
//!
//! Rules:
//! 1. One login at a time for a server and a client: the second says so and ends.
//! 2. What is needed to go on after a crash is on disk before anything is waited for, and gone when the login is over.
//! 3. Ctrl-C is heard while waiting and while asking. A token that still arrives in time is revoked.

use core::time::Duration;
use std::io::{BufRead as _, stdin};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Instant, SystemTime};

use device_flow::client::{
    DeviceFlow, Endpoints, Expiry, Failure, Next, Outcome, Received, Request, Snapshot, StartError,
    Step, Tokens, Verdict, Waiting, verdict,
};
use serde::{Deserialize, Serialize};

use crate::Context;
use crate::args;
use crate::discovery::{Server, Wanted, discover};
use crate::ending::{Ending, Exit};
use crate::http::Http;
use crate::id_token::{self, Identity};
use crate::screen::{Report, Shown, Spinner};
use crate::session::{self, Session};

/// A login under way, on disk.
const FILE: &str = "login.json";

/// Held by whoever signs in.
const LOCK: &str = "login.lock";

/// How long the answer to a poll in flight may hold up Ctrl-C. What comes later is lost, and good until it expires.
const GRACE: Duration = Duration::from_secs(2);

/// Seconds between one request for the server's keys and the next: long enough for a restart behind a balancer.
const PAUSES: [u64; 3] = [1, 2, 4];

pub(crate) fn login(context: &Context, options: &args::Login) -> Result<Report, Ending> {
    let Some(_lock) = context.store.try_lock(LOCK)? else {
        return Err(Ending::new(
            Exit::Busy,
            "Another login for this server and client is under way: finish it, or cancel it there with Ctrl-C.",
        ));
    };
    let server = discover(context, Wanted::Login)?;
    let endpoints = Endpoints::from_metadata(&server.0).map_err(|_| Wanted::Login.lacking())?;
    let flow = DeviceFlow::new(endpoints, &*context.client_id).scope(&options.scope);
    let login = Login {
        context,
        flow: &flow,
        browses: !options.no_browser && context.screen.is_attended() && has_browser(),
        events: Events::new(context),
        clock: Instant::now(),
    };
    let outcome = login.run(&options.scope)?;
    let store = context.store.clone();
    context.must_finish(move || {
        // The code is spent: Ctrl-C again is not to leave it there.
        let _ = store.remove(FILE);
    });
    let accepted = match &outcome {
        Outcome::Granted(tokens) => accept(context, &server, &options.scope, tokens),
        Outcome::Cancelled(late) => {
            if let Some(late) = late {
                session::revoke(context, &server, late.refresh_token(), late.access_token());
            }
            Err(Ending::cancelled())
        }
        Outcome::Denied(_)
        | Outcome::Expired(_)
        | Outcome::Rejected(_)
        | Outcome::Failed(_)
        | Outcome::Redirected(_)
        | Outcome::Malformed(_) => Err(ending_of(&outcome)),
    };
    // The tokens are on disk before this goes.
    let removed = context.store.remove(FILE);
    let session = accepted?;
    removed?;
    Ok(session.report("signed_in"))
}

/// Forgets a login that was killed, unless somebody is at it.
pub(crate) fn forget(context: &Context) -> Result<(), Ending> {
    if !context.store.holds(FILE)? {
        return Ok(());
    }
    match context.store.try_lock(LOCK)? {
        Some(_lock) => context.store.remove(FILE),
        None => Ok(()),
    }
}

/// Makes a session of what was granted, and keeps it.
fn accept(
    context: &Context,
    server: &Server,
    scope: &str,
    tokens: &Tokens,
) -> Result<Session, Ending> {
    let accept = || -> Result<Session, Ending> {
        let identity = match tokens.id_token() {
            Some(token) => Some(identify(context, server, token)?),
            None => None,
        };
        let session = Session::new(context, tokens, scope, identity)?;
        // So far it can be undone.
        context.interrupt.check()?;
        session.keep(context, server)?;
        Ok(session)
    };
    accept().inspect_err(|_| {
        // Nobody will use them.
        session::revoke(
            context,
            server,
            tokens.refresh_token(),
            tokens.access_token(),
        );
    })
}

/// Who signed in. The tokens are here already: where the server cannot show its keys at the moment, it is asked again.
fn identify(context: &Context, server: &Server, token: &str) -> Result<Identity, Ending> {
    for pause in PAUSES {
        match id_token::verify(context, server, token) {
            Err(ending) if ending.exit == Exit::Unreachable => {
                context.interrupt.check()?;
                let sentence = "The server's keys could not be fetched: trying again.";
                context.screen.note(sentence);
                context.interrupt.pause(Duration::from_secs(pause))?;
            }
            verified => return verified,
        }
    }
    id_token::verify(context, server, token)
}

/// One login, from the prompt to the outcome.
struct Login<'a> {
    context: &'a Context,
    flow: &'a DeviceFlow,
    browses: bool,
    events: Events,
    clock: Instant,
}

impl Login<'_> {
    fn run(&self, scope: &str) -> Result<Outcome, Ending> {
        let (mut waiting, mut unfinished) = match self.resume(scope) {
            Some(resumed) => resumed,
            None => match self.start(scope)? {
                Some(started) => started,
                None => return Ok(Outcome::Cancelled(None)),
            },
        };
        let left = waiting.deadline().saturating_sub(self.now());
        let spinner = self.context.screen.spinner(left);
        if self.browses {
            self.events.listen_for_enter();
        }
        loop {
            match waiting.next(self.now()) {
                Next::Wait(same, until) => {
                    self.keep(&mut unfinished, same.snapshot(self.now()))?;
                    match self.events.wait(until.saturating_sub(self.now())) {
                        Some(Event::Interrupted) => return Ok(same.cancel()),
                        Some(Event::Enter) => open_browser(&unfinished, &spinner),
                        Some(Event::Answer(_)) | None => {}
                    }
                    waiting = same;
                }
                Next::Send(sent, request) => {
                    self.keep(&mut unfinished, sent.snapshot(self.now()))?;
                    self.events.send(request);
                    let Some(answer) = self.answer(&unfinished, &spinner) else {
                        drop(spinner);
                        // Before Ctrl-C again leaves it there. At the end it is tried again, and told of.
                        let _ = self.context.store.remove(FILE);
                        self.context.screen.note("Cancelling.");
                        let late = self.events.late_answer();
                        return Ok(sent.cancel().answer(late));
                    };
                    tell_trouble(&answer, &spinner);
                    match sent.answer(answer, self.now()) {
                        Step::Again(later) => waiting = later,
                        Step::Done(outcome) => return Ok(outcome),
                    }
                }
                Next::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// Asks for codes and shows them; none where Ctrl-C came first.
    fn start(&self, scope: &str) -> Result<Option<(Waiting, Unfinished)>, Ending> {
        // Even if this one does not begin, nobody is to go on with an earlier one.
        self.context.store.remove(FILE)?;
        let started = self.flow.start(self.now());
        let (starting, request) = started.map_err(|error| {
            let sentence = format!("The client id or the scope cannot be sent: {error}.");
            Ending::new(Exit::Usage, sentence)
        })?;
        let asked = since_epoch();
        self.events.send(request);
        let answer = loop {
            match self.events.wait(Duration::MAX) {
                Some(Event::Answer(answer)) => break answer,
                Some(Event::Interrupted) => return Ok(None),
                Some(Event::Enter) | None => {}
            }
        };
        let (waiting, prompt) = starting
            .answer(answer, self.now())
            .map_err(|error| ending_of_start(&error))?;
        let mut unfinished = Unfinished {
            v: VERSION,
            scope: scope.to_owned(),
            expires_at: asked.saturating_add(prompt.lifetime).as_secs(),
            user_code: prompt.user_code,
            verification_uri: prompt.verification_uri,
            verification_uri_complete: prompt.verification_uri_complete,
            snapshot: waiting.snapshot(self.now()),
        };
        self.keep(&mut unfinished, waiting.snapshot(self.now()))?;
        self.show(&unfinished, false);
        Ok(Some((waiting, unfinished)))
    }

    /// Goes on with a login that was killed, if there is one that can still succeed.
    fn resume(&self, scope: &str) -> Option<(Waiting, Unfinished)> {
        let screen = self.context.screen;
        // A file that cannot be read is of another version, or damaged: there is nothing to go on with.
        let unfinished = self.context.store.read::<Unfinished>(FILE).unwrap_or(None);
        let unfinished = unfinished.filter(|found| found.v == VERSION)?;
        let now = since_epoch();
        if now.as_secs() >= unfinished.expires_at {
            screen.note("An earlier login was not finished and has expired: this is a new one.");
            return None;
        }
        if unfinished.scope != scope {
            screen.note("An earlier login asked for something else: this is a new one.");
            return None;
        }
        let elapsed = unfinished.snapshot.elapsed(now);
        let snapshot = unfinished.snapshot.clone();
        // What does not fit is of other endpoints: the server has moved.
        let Ok(waiting) = self.flow.resume(snapshot, elapsed, self.now()) else {
            return None;
        };
        screen.note("Going on with the login that was interrupted: its code is still good.");
        self.show(&unfinished, true);
        Some((waiting, unfinished))
    }

    fn show(&self, unfinished: &Unfinished, resumed: bool) {
        self.context.screen.prompt(Shown {
            user_code: &unfinished.user_code,
            verification_uri: &unfinished.verification_uri,
            verification_uri_complete: unfinished.verification_uri_complete.as_deref(),
            left: Duration::from_secs(unfinished.expires_at).saturating_sub(since_epoch()),
            resumed,
            offers_browser: self.browses,
        });
    }

    fn keep(&self, unfinished: &mut Unfinished, snapshot: Snapshot) -> Result<(), Ending> {
        unfinished.snapshot = snapshot.taken_at(since_epoch());
        self.context.store.write(FILE, unfinished)
    }

    /// The answer to the request in flight; none where Ctrl-C came first.
    fn answer(&self, unfinished: &Unfinished, spinner: &Spinner) -> Option<Answer> {
        loop {
            match self.events.wait(Duration::MAX) {
                Some(Event::Answer(answer)) => return Some(answer),
                Some(Event::Enter) => open_browser(unfinished, spinner),
                Some(Event::Interrupted) => return None,
                None => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// What is kept of a login, to go on after a crash. It has the device code, and is as secret as a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unfinished {
    v: u8,
    scope: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    /// In seconds since the epoch.
    expires_at: u64,
    snapshot: Snapshot,
}

const VERSION: u8 = 1;

type Answer = Result<Received<Vec<u8>>, Failure>;

/// What may happen while one waits.
enum Event {
    Answer(Answer),
    Enter,
    Interrupted,
}

/// One place where all that may happen arrives.
struct Events {
    http: Http,
    sender: Sender<Event>,
    receiver: Receiver<Event>,
}

impl Events {
    fn new(context: &Context) -> Self {
        let (sender, receiver) = mpsc::channel();
        let interrupted = sender.clone();
        context.interrupt.hold_off(move || {
            let _ = interrupted.send(Event::Interrupted);
        });
        Self {
            http: context.http.clone(),
            sender,
            receiver,
        }
    }

    /// Sends a request; its answer arrives as an event.
    fn send(&self, request: Request) {
        let (http, sender) = (self.http.clone(), self.sender.clone());
        std::thread::spawn(move || sender.send(Event::Answer(http.send(request))));
    }

    fn listen_for_enter(&self) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in stdin().lock().lines() {
                if line.is_err() || sender.send(Event::Enter).is_err() {
                    break;
                }
            }
        });
    }

    /// What happens next, if anything does within `span`.
    fn wait(&self, span: Duration) -> Option<Event> {
        self.receiver.recv_timeout(span).ok()
    }

    /// The answer to the request in flight, if it comes before patience ends.
    fn late_answer(&self) -> Answer {
        let until = Instant::now() + GRACE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.wait(left) {
                Some(Event::Answer(answer)) => return answer,
                Some(Event::Enter | Event::Interrupted) => {}
                None => return Err(Failure::ConnectionTimeout),
            }
        }
    }
}

fn tell_trouble(answer: &Answer, spinner: &Spinner) {
    let trouble = match answer {
        Err(Failure::Permanent) => None, // the outcome says it
        Err(_) => Some("The server cannot be reached at the moment: trying again."),
        Ok(received) if verdict(received) == Verdict::Transient => {
            Some("The server cannot answer at the moment: trying again.")
        }
        Ok(_) => None,
    };
    if let Some(trouble) = trouble {
        spinner.note(trouble);
    }
}

fn open_browser(unfinished: &Unfinished, spinner: &Spinner) {
    let complete = unfinished.verification_uri_complete.as_ref();
    let uri = complete.unwrap_or(&unfinished.verification_uri).clone();
    spinner.note_after_enter("Opening a browser.");
    // It may take its time, and its failure changes nothing: the address is on the screen.
    std::thread::spawn(move || webbrowser::open(&uri));
}

/// Whether a browser would open before the eyes of this user.
fn has_browser() -> bool {
    let is_set = |name| std::env::var_os(name).is_some();
    let remote = is_set("SSH_CONNECTION");
    let screenless = cfg!(all(unix, not(target_os = "macos")))
        && !["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"]
            .into_iter()
            .any(is_set);
    !remote && !screenless && webbrowser::Browser::is_available()
}

/// The wall clock: what a monotonic one does not tell the next process.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn ending_of_start(error: &StartError) -> Ending {
    match error {
        StartError::Failed(failure) => Ending::no_answer(*failure),
        StartError::Rejected(refusal) => Ending::refused(
            Exit::Refused,
            "The server does not give this client a code.",
            refusal,
        ),
        StartError::Unsupported(_) => Wanted::Login.lacking(),
        StartError::Unavailable(_) => Ending::unavailable(),
        StartError::Malformed(why) => untrusted(why),
        StartError::Redirected(_) | StartError::Field(_) | _ => untrusted(error),
    }
}

/// Of every outcome but success and cancellation.
fn ending_of(outcome: &Outcome) -> Ending {
    match outcome {
        Outcome::Denied(_) => Ending::new(Exit::Denied, "The request was denied."),
        Outcome::Expired(Expiry::ByServer(_) | Expiry::ByClock(None)) => Ending::new(
            Exit::Expired,
            "The code has expired: start again when you are ready.",
        ),
        Outcome::Expired(Expiry::ByClock(Some(_))) => Ending::new(
            Exit::Expired,
            "The code has expired, and the server could not be asked at the end: start again.",
        ),
        Outcome::Rejected(refusal) if refusal.possibly_redeemed => Ending::refused(
            Exit::Refused,
            "The server does not take the code any more. Its answer may have been lost on the way: start again.",
            refusal,
        ),
        Outcome::Rejected(refusal) => {
            Ending::refused(Exit::Refused, "The server refused the login.", refusal)
        }
        Outcome::Failed(failure) => Ending::no_answer(*failure),
        Outcome::Redirected(_) => {
            untrusted(&"the server answered with a redirect, which is not followed")
        }
        Outcome::Malformed(why) => untrusted(why),
        Outcome::Granted(_) | Outcome::Cancelled(_) => Ending::cancelled(),
    }
}

fn untrusted(why: &dyn core::fmt::Display) -> Ending {
    Ending::new(
        Exit::Untrusted,
        format!("The server's answer is not accepted: {why}."),
    )
}
