//! A command-line tool that signs its user in by device login ([RFC 8628]).
//!
//! | file | what it holds |
//! |---|---|
//! | `args` | what the user may write |
//! | `login` | the one loop: starting or resuming, waiting, polling, the outcome |
//! | `session` | what a login leaves behind: `whoami`, `token`, `refresh`, `logout` |
//! | `discovery`, `http`, `id_token` | the server: what it offers, how it is asked, whom it vouches for |
//! | `screen` | what the user sees, or a program reads |
//! | `state` | the files |
//! | `ending` | how a command ends when it does not do what it was told |
//! | `interrupt` | Ctrl-C |
//!
//! [RFC 8628]: https://www.rfc-editor.org/rfc/rfc8628

mod args;
mod discovery;
mod ending;
mod http;
mod id_token;
mod interrupt;
mod login;
mod screen;
mod session;
mod state;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use ending::Ending;
use http::Http;
use interrupt::Interrupt;
use screen::{Report, Screen};
use state::Store;

/// What every command works with.
struct Context {
    issuer: String,
    client_id: String,
    http: Http,
    store: Store,
    screen: Screen,
    interrupt: Interrupt,
}

impl Context {
    /// What the user may write to sign in.
    fn login_command(&self) -> String {
        args::login_command(&self.issuer, &self.client_id)
    }

    /// Something is at stake: from now on Ctrl-C waits until it is brought to an end. What it does first does not wait.
    fn must_finish(&self, first: impl Fn() + Send + 'static) {
        let screen = self.screen;
        self.interrupt.hold_off(move || {
            first();
            screen.note("Bringing to an end what has begun. Ctrl-C again does not wait for it.");
        });
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let screen = Screen::new(args.common.json);
    let interrupt = Interrupt::install(screen);
    let outcome = run(args, screen, interrupt.clone());
    // It is over, one way or the other, and that is said once.
    interrupt.hold_off(|| ());
    match outcome.and_then(|report| screen.report(&report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ending) => {
            screen.ending(&ending);
            ExitCode::from(ending.exit.code())
        }
    }
}

fn run(args: Args, screen: Screen, interrupt: Interrupt) -> Result<Report, Ending> {
    let common = args.common;
    let context = Context {
        http: Http::new(common.timeout),
        store: Store::of(&common.issuer, &common.client_id)?,
        issuer: common.issuer,
        client_id: common.client_id,
        screen,
        interrupt,
    };
    match args.command {
        Command::Login(options) => login::login(&context, &options),
        Command::Whoami => session::whoami(&context),
        Command::Token => session::token(&context),
        Command::Refresh => session::refresh(&context),
        Command::Logout => session::logout(&context),
    }
}
