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
    DeviceFlow, Login, LoginError, Next, Prompt, Request, Response, Snapshot, StartError, Tokens,
    TransportError, WaitingFor,
};
use serde::{Deserialize, Serialize};

use crate::Context;
use crate::args;
use crate::discovery::{Server, Wanted, discover};
use crate::ending::{Ending, Exit, sentence};
use crate::http::Http;
use crate::id_token::{self, Identity};
use crate::screen::{self, Report, Spinner};
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
    let endpoint = options.device_authorization_endpoint.as_deref();
    let server = discover(context, Wanted::Login(endpoint))?;
    let flow = server.flow(context)?.scope(&options.scope);
    let attempt = Attempt {
        context,
        flow: &flow,
        browses: !options.no_browser && context.screen.is_attended() && has_browser(),
        events: Events::new(context),
        clock: Instant::now(),
    };
    let outcome = attempt.run(&options.scope)?;
    let store = context.store.clone();
    context.must_finish(move || {
        // The code is spent: Ctrl-C again is not to leave it there.
        let _ = store.remove(FILE);
    });
    let accepted = match outcome {
        Ok(tokens) => accept(context, &server, &options.scope, &tokens),
        Err(error) => {
            if let LoginError::Cancelled(Some(late)) = &error {
                session::revoke(&flow, context, late.refresh_token(), late.access_token());
            }
            Err(ending_of(&error))
        }
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
        let identity = tokens.id_token();
        let identity = identity.map(|token| identify(context, server, token));
        let identity = identity.transpose()?;
        let granted = tokens.scope().unwrap_or(scope);
        if identity.is_none() && granted.split(' ').any(|token| token == "openid") {
            let sentence = "The server granted `openid` but sent no ID token, so it does not say who signed in.";
            context.screen.note(sentence);
        }
        let session = Session::new(context, tokens, scope, identity)?;
        // So far it can be undone.
        context.interrupt.check()?;
        session.keep(context, server)?;
        Ok(session)
    };
    accept().inspect_err(|_| {
        // Nobody will use them.
        if let Ok(flow) = server.flow(context) {
            let refresh_token = tokens.refresh_token();
            session::revoke(&flow, context, refresh_token, tokens.access_token());
        }
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

/// One login, from the request for codes to the outcome.
struct Attempt<'a> {
    context: &'a Context,
    flow: &'a DeviceFlow,
    browses: bool,
    events: Events,
    clock: Instant,
}

/// What is on the screen and on disk while the user decides.
struct Shown {
    unfinished: Unfinished,
    spinner: Spinner,
    /// What the user knows it waits for.
    waiting_for: WaitingFor,
}

impl Attempt<'_> {
    fn run(&self, scope: &str) -> Result<Result<Tokens, LoginError>, Ending> {
        let (mut login, mut shown) = match self.resume(scope) {
            Some((login, unfinished)) => {
                let shown = self.show(unfinished, true);
                (login, Some(shown))
            }
            None => (self.start()?, None),
        };
        let mut asked = since_epoch();
        loop {
            match login.next(self.now()) {
                Next::Send(mut ask) => {
                    match &mut shown {
                        Some(shown) => self.keep(shown, ask.snapshot(self.now()))?,
                        None => asked = since_epoch(),
                    }
                    self.events.send(ask.request().clone());
                    if let Some(answer) = self.answer(shown.as_ref()) {
                        ask.answer(answer, self.now());
                        continue;
                    }
                    ask.cancel();
                    if shown.take().is_some() {
                        // Before Ctrl-C again leaves it there. At the end it is tried again, and told of.
                        let _ = self.context.store.remove(FILE);
                        self.context.screen.note("Cancelling.");
                        ask.answer(self.events.late_answer(), self.now());
                    }
                }
                Next::Show(prompt) => {
                    let Some(snapshot) = login.snapshot(self.now()) else {
                        continue; // there is one from the prompt on
                    };
                    let unfinished = Unfinished {
                        v: VERSION,
                        scope: scope.to_owned(),
                        expires_at: asked.saturating_add(prompt.lifetime).as_secs(),
                        prompt,
                        snapshot: snapshot.taken_at(since_epoch()),
                    };
                    self.context.store.write(FILE, &unfinished)?;
                    shown = Some(self.show(unfinished, false));
                }
                Next::Wait(until) => {
                    if let Some(shown) = &mut shown {
                        self.keep(shown, login.snapshot(self.now()))?;
                        tell(shown, &login);
                    }
                    match self.events.wait(until.saturating_sub(self.now())) {
                        Some(Event::Interrupted) => login.cancel(),
                        Some(Event::Enter) => open_browser(shown.as_ref()),
                        Some(Event::Answer(_)) | None => {}
                    }
                }
                Next::Done(outcome) => return Ok(outcome),
            }
        }
    }

    /// A new login.
    fn start(&self) -> Result<Login, Ending> {
        // Even if this one does not begin, nobody is to go on with an earlier one.
        self.context.store.remove(FILE)?;
        let login = self.flow.login();
        login.map_err(|error| Ending::new(Exit::Usage, sentence(&error)))
    }

    /// Goes on with a login that was killed, if there is one that can still succeed.
    fn resume(&self, scope: &str) -> Option<(Login, Unfinished)> {
        let screen = self.context.screen;
        // A file that cannot be read is of another version, damaged, or not to be shown: there is nothing to go on with.
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
        let login = self.flow.resume(snapshot, elapsed, self.now()).ok()?;
        screen.note("Going on with the login that was interrupted: its code is still good.");
        Some((login, unfinished))
    }

    fn show(&self, unfinished: Unfinished, resumed: bool) -> Shown {
        let prompt = &unfinished.prompt;
        let left = Duration::from_secs(unfinished.expires_at).saturating_sub(since_epoch());
        self.context.screen.prompt(screen::Shown {
            user_code: &prompt.user_code,
            verification_uri: &prompt.verification_uri,
            verification_uri_complete: prompt.verification_uri_complete.as_deref(),
            left,
            resumed,
            offers_browser: self.browses,
        });
        if self.browses {
            self.events.listen_for_enter();
        }
        Shown {
            unfinished,
            spinner: self.context.screen.spinner(left),
            waiting_for: WaitingFor::User,
        }
    }

    fn keep(&self, shown: &mut Shown, snapshot: Option<Snapshot>) -> Result<(), Ending> {
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        shown.unfinished.snapshot = snapshot.taken_at(since_epoch());
        self.context.store.write(FILE, &shown.unfinished)
    }

    /// The answer to the request in flight; none where Ctrl-C came first.
    fn answer(&self, shown: Option<&Shown>) -> Option<Answer> {
        loop {
            match self.events.wait(Duration::MAX) {
                Some(Event::Answer(answer)) => return Some(answer),
                Some(Event::Enter) => open_browser(shown),
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
    /// Checked when it is read: nothing that steers a terminal gets to the screen.
    prompt: Prompt,
    /// In seconds since the epoch.
    expires_at: u64,
    snapshot: Snapshot,
}

const VERSION: u8 = 2;

type Answer = Result<Response<Vec<u8>>, TransportError>;

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
                None => return Err(TransportError::ConnectionTimeout),
            }
        }
    }
}

/// Says what it waits for, where that has changed. That nobody has decided yet goes without saying.
fn tell(shown: &mut Shown, login: &Login) {
    let waiting_for = login.waiting_for().unwrap_or(WaitingFor::User);
    if waiting_for != shown.waiting_for && waiting_for != WaitingFor::User {
        shown.spinner.note(&sentence(&waiting_for));
    }
    shown.waiting_for = waiting_for;
}

fn open_browser(shown: Option<&Shown>) {
    let Some(shown) = shown else {
        return;
    };
    let prompt = &shown.unfinished.prompt;
    let complete = prompt.verification_uri_complete.as_ref();
    let uri = complete.unwrap_or(&prompt.verification_uri).clone();
    shown.spinner.note_after_enter("Opening a browser.");
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

/// An ending in the words of the error.
fn ending_of(error: &LoginError) -> Ending {
    let (exit, refusal) = match error {
        LoginError::Start(StartError::Failed(_) | StartError::Unavailable { .. })
        | LoginError::Failed(_) => (Exit::Unreachable, None),
        LoginError::Start(StartError::Rejected(refusal)) | LoginError::Rejected(refusal) => {
            (Exit::Refused, Some(refusal))
        }
        LoginError::Start(StartError::Unsupported(_)) => (Exit::Refused, None),
        LoginError::Denied(refusal) => (Exit::Denied, Some(refusal)),
        LoginError::Expired(refusal) => (Exit::Expired, Some(refusal)),
        LoginError::TimedOut(_) => (Exit::Expired, None),
        LoginError::Start(_) | LoginError::Redirected(_) | LoginError::Malformed(_) => {
            (Exit::Untrusted, None)
        }
        LoginError::Cancelled(_) | LoginError::Over => return Ending::cancelled(),
    };
    Ending {
        description: refusal.and_then(|refusal| refusal.description.clone()),
        ..Ending::new(exit, sentence(error))
    }
}
