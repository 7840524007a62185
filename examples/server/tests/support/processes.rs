//! The server as a process, to be killed and started again on the same address.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use tokio::time::sleep;

/// A server, running or killed.
#[derive(Debug)]
pub(crate) struct Process {
    program: PathBuf,
    address: SocketAddr,
    /// The address for health and metrics.
    operators: SocketAddr,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// How long a server may take to be well after its start.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// How long a server that listens may take to say that it is well. After that it is asked again.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

impl Process {
    /// Returns a server with this configuration, on addresses that are free. It is not started yet.
    pub(crate) fn new(program: &Path, config: &Path, log: &Path) -> Self {
        Self {
            program: program.to_owned(),
            address: free_address(),
            operators: free_address(),
            config: config.to_owned(),
            log: log.to_owned(),
            child: None,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn operators(&self) -> SocketAddr {
        self.operators
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the server, and waits until it is well. It listens before it opens its store. If the connection to the store breaks just
    /// then, or if somebody else's connection has its port for a moment, it ends. Then it is started again.
    pub(crate) async fn start(&mut self) {
        let http = Client::builder().no_proxy().timeout(ANSWERS_WITHIN);
        let http = http.build().unwrap();
        let health = format!("http://{}/healthz", self.operators);
        let started = Instant::now();
        loop {
            let child = self.child.get_or_insert_with(|| {
                let log = File::options().create(true).append(true).open(&self.log);
                Command::new(&self.program)
                    .arg("--config")
                    .arg(&self.config)
                    .args(["--listen", &self.address.to_string()])
                    .args(["--metrics-listen", &self.operators.to_string()])
                    .stdin(Stdio::null())
                    .stderr(log.unwrap())
                    .spawn()
                    .unwrap()
            });
            if child.try_wait().unwrap().is_some() {
                self.child = None;
            } else if let Ok(answer) = http.get(&health).send().await
                && answer.status() == StatusCode::OK
            {
                return;
            }
            let is_late = started.elapsed() > STARTS_WITHIN;
            assert!(!is_late, "no start: {}", self.last_lines());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Panics if it has ended without being killed.
    pub(crate) fn assert_running(&mut self) {
        let ended = self.child.as_mut().and_then(|it| it.try_wait().unwrap());
        assert_eq!(ended, None, "it ended by itself: {}", self.last_lines());
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.join("\n")
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns an address whose port is below those that the system gives to outgoing connections. Otherwise such a connection could take the
/// port while the server is down, even a connection that tries to reach the server.
fn free_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let offset = (std::process::id().wrapping_mul(101) + tried) % 10_000;
        let port = u16::try_from(20_000 + offset).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
