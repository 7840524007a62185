//! An authorization server with device login.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use example_server::config::{Config, ConfigError};
use example_server::{Server, StartError};
use tracing_subscriber::EnvFilter;

/// The text of `--help` below the first line.
const ABOUT: &str = "\
Without arguments it listens on 127.0.0.1:8628, keeps everything in example-server.db in the working directory, and knows the \
clients client_cli, client_backend and client_web and the user alice@example.com, with credentials for development.";

/// Serves device login (RFC 8628): an authorization server that embeds device-flow
#[derive(Parser)]
#[command(version, after_help = ABOUT)]
struct Arguments {
    /// A TOML file in the place of the default configuration; examples/server/config.toml is the one to copy
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The address and port to listen on [default: 127.0.0.1:8628]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The address and port for /healthz and /metrics [default: 127.0.0.1:8629]
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Where everything is kept: memory:, sqlite:PATH, postgres://… or redis://… [default: sqlite:example-server.db]
    #[arg(
        long,
        value_name = "URL",
        env = "EXAMPLE_SERVER_STORE",
        hide_env_values = true
    )]
    store: Option<String>,
    /// Where the server is reached from outside [default: `http://` and the address]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("example-server: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), StartError> {
    let mut config = read(&arguments)?;
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    if let Some(listen) = arguments.metrics_listen {
        config.metrics_listen = listen;
    }
    if let Some(store) = arguments.store {
        config.store = store.into();
    }
    if arguments.issuer.is_some() {
        config.issuer = arguments.issuer;
    }
    let (listen, metrics_listen) = (config.listen, config.metrics_listen);
    let server = Server::bind(config).await?;
    let address = server.address().unwrap_or(listen);
    let metrics = server.metrics_address().unwrap_or(metrics_listen);
    tracing::info!(%address, issuer = server.issuer(), %metrics, "listening");
    let told_again = async {
        told_to_stop().await;
        told_to_stop().await;
    };
    tokio::select! {
        () = server.run(told_to_stop()) => tracing::info!("stopped"),
        () = told_again => tracing::warn!("stopped at once"),
    }
    Ok(())
}

fn read(arguments: &Arguments) -> Result<Config, ConfigError> {
    Config::read(arguments.config.as_deref())
}

/// Logs lines for people on a terminal, and otherwise JSON. `RUST_LOG` sets the level. No level logs a secret.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.init();
    } else {
        log.json().flatten_event(true).init();
    }
}

/// Returns an error with its sources as text.
fn told(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let texts = sources.map(ToString::to_string).collect::<Vec<_>>();
    texts.join(": ")
}

/// Waits until Ctrl-C, or until SIGTERM from a service manager.
async fn told_to_stop() {
    let interrupted = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<()>();
    tokio::select! {
        () = interrupted => {}
        () = terminated => {}
    }
}
