//! Signing in: the loop that runs a login of the client half.
//!
//! Rules:
//! 1. Only one login at a time runs for a server and a client. A second one says so and ends.
//! 2. Everything that is needed to resume after a crash is on disk before the program waits for anything, and is removed when the login is
//!    over.
//! 3. Ctrl-C works while the program waits and while a request is in flight. If a token still arrives in time, it is revoked.

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

/// The file of a login that is not over.
const FILE: &str = "login.json";

/// The lock that a login holds.
const LOCK: &str = "login.lock";

/// How long Ctrl-C waits for the answer to a poll in flight. Tokens that arrive later are lost, and stay valid until they expire.
const GRACE: Duration = Duration::from_secs(2);

/// The seconds to wait before the server's keys are requested again. Together they are long enough for a server to restart behind a load
/// balancer.
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
        // The code is used, so a second Ctrl-C must not leave the file there.
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
    // The tokens are on disk before this file is removed.
    let removed = context.store.remove(FILE);
    let session = accepted?;
    removed?;
    Ok(session.report("signed_in"))
}

/// Removes the file of a login that was killed, unless another process goes on with it.
pub(crate) fn forget(context: &Context) -> Result<(), Ending> {
    if !context.store.holds(FILE)? {
        return Ok(());
    }
    match context.store.try_lock(LOCK)? {
        Some(_lock) => context.store.remove(FILE),
        None => Ok(()),
    }
}

/// Makes a session of the granted tokens, and stores it.
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
        // Up to here, everything can be undone.
        context.interrupt.check()?;
        session.keep(context, server)?;
        Ok(session)
    };
    accept().inspect_err(|_| {
        // Nobody will use these tokens, so they are revoked.
        if let Ok(flow) = server.flow(context) {
            let refresh_token = tokens.refresh_token();
            session::revoke(&flow, context, refresh_token, tokens.access_token());
        }
    })
}

/// Returns who signed in. If the server cannot send its keys now, it is asked again, because the tokens are already here.
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
    /// The reason for waiting that the user was told last.
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
                        // Removes the file now, because a second Ctrl-C would leave it there. An error is ignored here, because the end of
                        // the login removes the file again and reports an error.
                        let _ = self.context.store.remove(FILE);
                        self.context.screen.note("Cancelling.");
                        ask.answer(self.events.late_answer(), self.now());
                    }
                }
                Next::Show(prompt) => {
                    let Some(snapshot) = login.snapshot(self.now()) else {
                        continue; // never: a login with a prompt has a snapshot
                    };
                    let unfinished = Unfinished {
                        v: VERSION,
                        scope: scope.to_owned(),
                        expires_at: asked.saturating_add(prompt.lifetime).as_secs(),
                        prompt,
                        snapshot: snapshot.stamped(since_epoch()),
                    };
                    self.context.store.write(FILE, &unfinished)?;
                    shown = Some(self.show(unfinished, false));
                }
                Next::Wait { until } => {
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

    /// Starts a new login.
    fn start(&self) -> Result<Login, Ending> {
        // An earlier login must not be resumed, even if this one does not begin.
        self.context.store.remove(FILE)?;
        let login = self.flow.login();
        login.map_err(|error| Ending::new(Exit::Usage, sentence(&error)))
    }

    /// Resumes a login that was killed, if there is one that can still succeed.
    fn resume(&self, scope: &str) -> Option<(Login, Unfinished)> {
        let screen = self.context.screen;
        // A file that cannot be read is from another version, damaged, or unsafe to show, so nothing is resumed.
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
        // If the snapshot does not match, the server's endpoints have changed.
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
        shown.unfinished.snapshot = snapshot.stamped(since_epoch());
        self.context.store.write(FILE, &shown.unfinished)
    }

    /// Returns the answer to the request in flight, or `None` if Ctrl-C came first.
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

/// What is stored of a login, so that it can be resumed after a crash. It contains the device code, so it is as secret as a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unfinished {
    v: u8,
    scope: String,
    /// It is checked when it is read, so nothing in it can control the terminal.
    prompt: Prompt,
    /// The time in seconds since the Unix epoch.
    expires_at: u64,
    snapshot: Snapshot,
}

const VERSION: u8 = 2;

type Answer = Result<Response<Vec<u8>>, TransportError>;

/// What can happen while the program waits.
enum Event {
    Answer(Answer),
    Enter,
    Interrupted,
}

/// The channel in which all events arrive.
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

    /// Sends a request. Its answer arrives as an event.
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

    /// Returns the next event, if there is one within `span`.
    fn wait(&self, span: Duration) -> Option<Event> {
        self.receiver.recv_timeout(span).ok()
    }

    /// Returns the answer to the request in flight, if it arrives within [`GRACE`].
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

/// Tells the user what the login waits for, if that has changed. It says nothing while the login waits only for the user.
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
    // The browser may start slowly, and it does not matter if it fails, because the address is on the screen.
    std::thread::spawn(move || webbrowser::open(&uri));
}

/// Returns whether a browser would open where this user can see it.
fn has_browser() -> bool {
    let is_set = |name| std::env::var_os(name).is_some();
    let remote = is_set("SSH_CONNECTION");
    let screenless = cfg!(all(unix, not(target_os = "macos")))
        && !["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"]
            .into_iter()
            .any(is_set);
    !remote && !screenless && webbrowser::Browser::is_available()
}

/// Returns the wall clock, because a monotonic clock means nothing to the next process.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Returns the ending for an error of a login.
fn ending_of(error: &LoginError) -> Ending {
    let (exit, refusal) = match error {
        LoginError::Start(start @ StartError::Rejected(refusal)) if start.may_be_retried() => {
            (Exit::Unreachable, Some(refusal))
        }
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
