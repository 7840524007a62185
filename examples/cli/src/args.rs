//! The arguments of the command line.

use core::fmt::Write as _;
use core::time::Duration;

use clap::{Parser, Subcommand};
use device_flow::wire::metadata::Metadata;

/// Sign in with a code on another device.
#[derive(Parser)]
#[command(name = "example-cli", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Args)]
pub(crate) struct Common {
    /// The authorization server: https, or http on this machine
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = ISSUER
    )]
    #[arg(env = ISSUER_VARIABLE, hide_env_values = true, value_parser = issuer)]
    pub(crate) issuer: String,

    /// The client id under which this tool is registered at the server
    #[arg(long, global = true, value_name = "ID", default_value = CLIENT_ID)]
    #[arg(env = CLIENT_ID_VARIABLE, hide_env_values = true)]
    pub(crate) client_id: String,

    /// Write one JSON object per line to standard output, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// How long one request may take, from 1 to 120 seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = timeout)]
    pub(crate) timeout: Duration,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Sign in, or go on with a login that was interrupted
    Login(Login),
    /// Say who is signed in
    Whoami,
    /// Print the access token, renewed if it has expired
    Token,
    /// Renew the tokens
    Refresh,
    /// Revoke the tokens at the server and forget them
    Logout,
}

#[derive(clap::Args)]
pub(crate) struct Login {
    /// What to ask for, separated by spaces
    #[arg(long, default_value = "openid profile email offline_access")]
    pub(crate) scope: String,

    /// Where the server issues codes, if its metadata do not say so
    #[arg(long, value_name = "URL")]
    pub(crate) device_authorization_endpoint: Option<String>,

    /// Do not offer to open a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
}

const ISSUER: &str = "http://127.0.0.1:8628";
const ISSUER_VARIABLE: &str = "EXAMPLE_CLI_ISSUER";

const CLIENT_ID: &str = "client_cli";
const CLIENT_ID_VARIABLE: &str = "EXAMPLE_CLI_CLIENT_ID";

/// Returns the command that signs in to this server as this client.
pub(crate) fn login_command(issuer: &str, client_id: &str) -> String {
    let mut command = "example-cli login".to_owned();
    for (flag, value, default, variable) in [
        ("--issuer", issuer, ISSUER, ISSUER_VARIABLE),
        ("--client-id", client_id, CLIENT_ID, CLIENT_ID_VARIABLE),
    ] {
        let is_overridden = std::env::var_os(variable).is_some_and(|set| set != default);
        if value != default || is_overridden {
            let _ = write!(command, " {flag} {}", quoted(value));
        }
    }
    command
}

/// Returns the word, quoted so that a shell takes it as one word.
fn quoted(word: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._:/@%+=,".contains(&octet);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn issuer(text: &str) -> Result<String, String> {
    match Metadata::well_known(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it must be https, or http on this machine, without a query".to_owned()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=120) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err("it must be a number from 1 to 120".to_owned()),
    }
}

/// The text of `--help` about the exit codes, which [`Exit`](crate::ending::Exit) defines.
const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  this machine failed: it could not read or write a file, or could not
       write the result
    2  the command line is wrong
    3  the user said no
    4  the code expired before the user decided
    5  the server refused
    6  the server could not be reached, or could not answer
    7  nobody is signed in, or the server wants a new login
    8  another login for the same server and client is under way
    9  the server's answer cannot be trusted
  130  cancelled with Ctrl-C";
