//! A command-line tool that signs its user in with the device grant ([RFC 8628]).
//!
//! | file | what it holds |
//! |---|---|
//! | `args` | the arguments of the command line |
//! | `login` | the loop: starting or resuming, waiting, polling, the outcome |
//! | `session` | the tokens after a login: `whoami`, `token`, `refresh`, `logout` |
//! | `discovery`, `http`, `id_token` | the server's metadata, requests to it, and its ID token |
//! | `screen` | what the user sees, or a program reads |
//! | `state` | the files |
//! | `ending` | how a command ends if it does not succeed |
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

/// What every command needs.
struct Context {
    issuer: String,
    client_id: String,
    http: Http,
    store: Store,
    screen: Screen,
    interrupt: Interrupt,
}

impl Context {
    /// Returns the command that signs in.
    fn login_command(&self) -> String {
        args::login_command(&self.issuer, &self.client_id)
    }

    /// From now on Ctrl-C waits until the command has finished. It calls `first` at once. A second Ctrl-C does not wait.
    fn must_finish(&self, first: impl Fn() + Send + 'static) {
        let screen = self.screen;
        self.interrupt.hold_off(move || {
            first();
            screen.note("Finishing first. Press Ctrl-C again to stop at once.");
        });
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let screen = Screen::new(args.common.json);
    let interrupt = Interrupt::install(screen);
    let outcome = run(args, screen, interrupt.clone());
    // The command has ended, and its ending is shown once, so Ctrl-C must not show another one.
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
