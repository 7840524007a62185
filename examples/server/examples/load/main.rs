//! How many polls a second one server answers with each store, and what part of its work is that of the crate.
//!
//! ```sh
//! cargo run --release -p example-server --example load
//! ```
//!
//! It starts the databases on this machine, and the server anew for each store. It polls with `wrk` (Debian's package of that name). Every
//! poll is of a pending session and comes in time, so it has a pace to save. A poll without a decision can cause no more work than that.
//! The interval of the devices is one second. With such an interval no poll is early, so a few thousand devices are enough.
//!
//! For comparison it polls a foreign server in the same way: `oidc-provider` on Node, which keeps everything in memory. Install it with
//! `npm ci --prefix examples/cli/tests/foreign_server`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a panic is how a measurement fails"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Exchange, Next, Policy, PolicyOptions, Reply, Request, Server,
    ServerKeys,
};
use support::processes::Process;
use support::services::Service;
use time::OffsetDateTime;

/// How many devices poll.
const DEVICES: usize = 5000;

/// How many devices poll the foreign server. They are few, because its store keeps only a thousand entries.
const FOREIGN_DEVICES: usize = 300;

/// How many connections are open at once.
const CONNECTIONS: &str = "32";

/// How many seconds a run takes, and how many runs there are. The median counts.
const SECONDS: u32 = 5;
const RUNS: usize = 5;

#[tokio::main]
async fn main() {
    let server = build();
    let core = core();
    println!("the core alone: {} ns a poll", core.as_nanos());
    println!(
        "| store | pace | polls a second | against `memory:` | CPU a poll | the core's part | memory |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|");
    let mut first = None;
    // The databases are set up as they are installed: Postgres waits for the disk, Redis writes its log once a second.
    let (postgres, redis) = (Service::postgres_with(&[]), Service::redis());
    let disk = server.parent().unwrap(); // the temporary folder may be in memory
    let sqlite = tempfile::tempdir_in(disk).unwrap();
    let sqlite = format!("sqlite:{}", sqlite.path().join("db").display());
    let mut stores = vec![
        ("memory:", "memory:".to_owned(), None),
        ("sqlite:", sqlite, None),
    ];
    if let Some(postgres) = &postgres {
        stores.push(("postgres:", postgres.url(), None));
        stores.push(("postgres:", postgres.url(), Some("memory:".to_owned())));
        if let Some(redis) = &redis {
            stores.push(("postgres:", postgres.url(), Some(redis.url())));
        }
    }
    if let Some(redis) = &redis {
        stores.push(("redis:", redis.url(), None));
    }
    for (name, store, pace) in stores {
        let figures = measure(&server, &store, pace.as_deref()).await;
        let of_first = figures.rate / *first.get_or_insert(figures.rate);
        let part = core.as_secs_f64() / figures.cpu * 100.0;
        let scheme = |pace: String| {
            pace.split_once(['+', ':'])
                .map(|(scheme, _)| format!("`{scheme}:`"))
        };
        let pace = pace.and_then(scheme);
        let pace = pace.unwrap_or_else(|| "in the store".to_owned());
        println!(
            "| `{name}` | {pace} | {} |",
            figures.row(of_first, &format!("{part:.1} %"))
        );
    }
    if let Some(figures) = foreign().await {
        let of_first = figures.rate / first.unwrap_or(figures.rate);
        println!(
            "| `oidc-provider` | in the store | {} |",
            figures.row(of_first, "")
        );
    }
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Builds the server as this program was built, and returns its path.
fn build() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let build = [
        "build",
        "--quiet",
        "--release",
        "-p",
        "example-server",
        "--bins",
    ];
    assert!(Command::new(cargo).args(build).status().unwrap().success());
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(2).unwrap();
    target.join("example-server")
}

/// The medians of all runs.
struct Figures {
    /// Polls a second.
    rate: f64,
    /// Seconds of the server's CPU time for a poll.
    cpu: f64,
    /// The server's resident memory after the last run, in MB.
    memory: u64,
}

impl Figures {
    fn row(&self, of_first: f64, part: &str) -> String {
        let Self { rate, cpu, memory } = self;
        let micros = cpu * 1e6;
        format!("{rate:.0} | {of_first:.2} | {micros:.0} µs | {part} | {memory} MB")
    }
}

async fn measure(server: &Path, store: &str, pace: Option<&str>) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let pace = pace
        .map(|pace| format!("pace = \"{pace}\""))
        .unwrap_or_default();
    let text = format!(
        r#"
        store = "{store}"
        {pace}
        trusted_proxies = ["127.0.0.1"]
        [policy]
        interval = 1
        [[clients]]
        id = "client_cli"
        name = "Device"
        device_grant = true
        scope = "openid"
        default_scope = "openid"
        "#
    );
    std::fs::write(&config, text).unwrap();
    let mut process = Process::new(server, &config, Path::new("/dev/null"));
    process.start().await;
    let base = format!("http://{}/oauth2", process.address());
    let codes = issue(&format!("{base}/device_authorization"), DEVICES).await;
    let figures = poll(process.id().unwrap(), &format!("{base}/token"), &codes);
    let metrics = reqwest::get(format!("http://{}/metrics", process.operators()))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    let others = metrics
        .lines()
        .filter(|line| line.contains(r#"endpoint="token""#));
    let others: Vec<_> = others
        .filter(|line| !line.contains(r#"cause="pending""#))
        .collect();
    assert!(others.is_empty(), "not every poll was pending: {others:?}");
    figures
}

/// Measures the foreign server in the same way. Returns `None` if it is not installed.
async fn foreign() -> Option<Figures> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/tests/foreign_server");
    let mut node = Command::new("node")
        .arg("server.js")
        .current_dir(folder)
        .stdin(Stdio::piped()) // the server ends when this is closed
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut issuer = String::new();
    let mut lines = BufReader::new(node.stdout.take()?);
    lines.read_line(&mut issuer).ok()?;
    let issuer = issuer.strip_suffix('\n')?;
    let codes = issue(&format!("{issuer}/device/auth"), FOREIGN_DEVICES).await;
    let figures = poll(node.id(), &format!("{issuer}/token"), &codes);
    drop(node.stdin.take());
    node.wait().ok()?;
    Some(figures)
}

/// Polls for some seconds, several times.
fn poll(server: u32, url: &str, codes: &str) -> Figures {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, codes).unwrap();
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let before = cpu(server);
        let rate = wrk(url, file.path());
        let spent = cpu(server).saturating_sub(before);
        rates.push(rate);
        costs.push(spent.as_secs_f64() / (rate * f64::from(SECONDS)));
    }
    Figures {
        rate: median(rates.into_iter()),
        cpu: median(costs.into_iter()),
        memory: memory(server),
    }
}

/// Asks for device codes, and returns them, a line each.
async fn issue(url: &str, devices: usize) -> String {
    let http = reqwest::Client::new();
    let mut codes = String::new();
    for number in 0..devices {
        let asked = http
            .post(url)
            // Each request has an address of its own, because one address gets only a few codes.
            .header(
                "x-forwarded-for",
                format!("198.18.{}.{}", number / 256, number % 256),
            )
            .form(&[("client_id", "client_cli"), ("scope", "openid")]);
        let answer = asked.send().await.unwrap().error_for_status().unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        codes += answer["device_code"].as_str().unwrap();
        codes.push('\n');
    }
    codes
}

/// Polls for some seconds, and returns how many polls a second were answered.
fn wrk(url: &str, codes: &Path) -> f64 {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/load/poll.lua");
    let output = Command::new("wrk")
        .args([
            "-t",
            "1",
            "-c",
            CONNECTIONS,
            "-d",
            &SECONDS.to_string(),
            "-s",
            script,
        ])
        .arg(url)
        .arg(codes)
        .output()
        .expect("wrk is not installed: apt-get install wrk");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let rate = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).expect(&text)
}

/// Returns the CPU time of a process so far.
fn cpu(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks: u64 = [fields[11], fields[12]]
        .iter()
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10) // a hundred a second, on every Linux of today
}

/// Returns the resident memory of a process, in MB.
fn memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.trim().strip_suffix(" kB"));
    resident.unwrap().parse::<u64>().unwrap() / 1024
}

/// Returns how long the crate takes for such a poll, from the body of the request to the reply.
fn core() -> Duration {
    let now = OffsetDateTime::now_utc();
    let policy = Policy::new("https://login.example.com/device", PolicyOptions::default());
    let keys = ServerKeys::new(&(0..32).collect::<Vec<_>>()).unwrap();
    let server = Server::new(policy.unwrap(), keys);
    let client = Client::new("client_cli", ClientAuthMethod::None).unwrap();
    let client = client
        .allow_device_grant()
        .default_scope("openid".parse().unwrap());
    let mut host = Core {
        client: client.allow_scope("openid".parse().unwrap()),
        store: Memory::new(),
    };
    let bodies: Vec<_> = (0..DEVICES)
        .map(|number| {
            let source = number.to_string(); // each has a quota of its own
            let asked = request(b"client_id=client_cli");
            let reply = host.run(server.device_authorization(asked, &source, None, now));
            let codes: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
            let code = codes["device_code"].as_str().unwrap();
            format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code\
                &client_id=client_cli&device_code={code}"
            )
        })
        .collect();
    let rounds = 20;
    let mut times: Vec<_> = (1..=rounds)
        .map(|round| {
            let now = now + Duration::from_secs(10 * round);
            let started = Instant::now();
            for body in &bodies {
                let polled = request(black_box(body.as_bytes()));
                let reply = host.run(server.token(polled, "", now));
                assert_eq!(black_box(reply).cause(), Cause::Pending);
            }
            started.elapsed() / u32::try_from(DEVICES).unwrap()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn request(body: &[u8]) -> Request<'_> {
    let form = "application/x-www-form-urlencoded";
    Request::new("POST", body).content_type(Some(form))
}

/// A host of one client, in memory, without a lock.
struct Core {
    client: Client,
    store: Memory,
}

impl Core {
    fn run(&mut self, mut exchange: Exchange<'_, Reply>) -> Reply {
        loop {
            match exchange.next() {
                Next::Client(_, ask) => ask.answer(Ok(Some(&self.client))),
                Next::Take(take, ask) => ask.answer(Ok(self.store.take(&take))),
                Next::Load(key, ask) => ask.answer(Ok(self.store.load(key))),
                Next::SavePace(key, pace) => self.store.save_pace(key, pace),
                Next::Draw(ask) => ask.answer(Ok(octets().into())),
                Next::Insert(session, ask) => ask.answer(Ok(self.store.insert(session))),
                Next::Done(reply) => return reply,
                Next::LoadByUserKey(..) | Next::Mint(..) | Next::Change(..) => {
                    panic!("nobody decides")
                }
            }
        }
    }
}

fn octets() -> [u8; Entropy::OCTETS] {
    std::array::from_fn(|_| fastrand::u8(..))
}
