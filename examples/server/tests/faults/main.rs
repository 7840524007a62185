//! Logins while servers are killed and connections to the database are cut. No code is redeemed twice, no decision is lost, no login has
//! two valid refresh tokens, and no login ends because the answer to a refresh was lost.
//!
//! Hundreds of devices use the client half over HTTP, and their users use the real verification page. Each request goes to any of the
//! servers, and half of the polls are sent twice at once. A device that has its tokens refreshes them again and again, and repeats a
//! refresh if it got no answer. A quarter of the devices send some refreshes twice at once. Meanwhile servers are killed and started again,
//! and every connection to the database is cut now and then. Afterwards the test compares what devices and users were told with what is
//! stored, and tries the refresh tokens.
//!
//! What happens is drawn from a seed, which is printed, and which `FAULT_SEED` can set. How long things take is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod cut;
mod device;
mod judge;
#[path = "../support/mod.rs"]
mod support;
mod user;
mod world;

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cut::Cut;
use device::device;
use example_server::store::Store;
use fastrand::Rng;
use judge::judge;
use support::processes::Process;
use support::server::client;
use support::services::Service;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use world::World;

/// How large a run is, and for how long it lasts.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    servers: usize,
    devices: usize,
    /// The time within which the devices begin.
    rush: Duration,
    /// The time in which servers are killed, connections are cut, and devices refresh their tokens.
    trouble: Duration,
    /// The lifetime of a code.
    lifetime: Duration,
}

impl Plan {
    /// Returns the short plan of a plain run of the tests, or the full one of CI.
    fn new(servers: usize, devices: usize) -> Self {
        let is_full = std::env::var_os("REQUIRE_ALL").is_some();
        let seed = std::env::var("FAULT_SEED").ok();
        let seed = seed.map(|seed| seed.parse().expect("FAULT_SEED is a number"));
        let seconds = |full, short| Duration::from_secs(if is_full { full } else { short });
        Self {
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
            servers,
            devices: if is_full { devices } else { devices / 4 },
            rush: seconds(5, 1),
            trouble: seconds(16, 4),
            lifetime: seconds(30, 9),
        }
    }
}

/// A whole run must end within this time.
const BOUND: Duration = Duration::from_secs(110);

/// How long devices and users wait for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("db").display());
    play(Plan::new(1, 120), &url, &url, Cut::Nothing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_nothing_is_lost_or_doubled() {
    if let Some(service) = Service::postgres() {
        let folder = tempfile::tempdir().unwrap();
        let (url, cable) = service.through(folder.path());
        let direct = service.url();
        let cut = Cut::Postgres(cable, direct.clone());
        play(Plan::new(3, 300), &url, &direct, cut).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_nothing_is_lost_or_doubled() {
    if let Some(service) = Service::redis() {
        let folder = tempfile::tempdir().unwrap();
        let (url, cable) = service.through(folder.path());
        let direct = service.url();
        let cut = Cut::Redis(cable, direct.clone());
        play(Plan::new(3, 300), &url, &direct, cut).await;
    }
}

/// Plays a plan. The servers reach the store at `store`, and the judge reaches it at `direct`.
async fn play(plan: Plan, store: &str, direct: &str, cut: Cut) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, configuration(&plan, store)).unwrap();
    let log = folder.path().join("log");
    let playing = scene(plan, direct, cut, &config, &log);
    let ended = timeout(BOUND, playing).await;
    assert!(ended.is_ok(), "it does not end; {plan:?}");
}

async fn scene(plan: Plan, direct: &str, cut: Cut, config: &Path, log: &Path) {
    let mut processes: Vec<_> = (0..plan.servers)
        .map(|_| Process::new(Path::new(SERVER), config, log))
        .collect();
    for process in &mut processes {
        process.start().await;
    }
    let world = Arc::new(World {
        plan,
        servers: processes.iter().map(Process::address).collect(),
        http: client(),
        started: Instant::now(),
        successes: Mutex::default(),
        replayed: Mutex::default(),
    });
    let mut rng = Rng::with_seed(plan.seed);
    let mut devices = JoinSet::new();
    for number in 0..plan.devices {
        devices.spawn(device(world.clone(), number, rng.fork()));
    }
    let (kills, cuts) = tokio::join!(
        kill_now_and_then(&mut processes, plan.trouble, rng.fork()),
        cut_now_and_then(&cut, plan.trouble, rng.fork()),
    );
    let logins: Vec<_> = devices.join_all().await.into_iter().flatten().collect();
    processes.iter_mut().for_each(Process::assert_running);
    let store = Store::open(direct, None).await.unwrap();
    let summary = judge(&world, &store, &logins).await;
    drop(processes);
    let line = format!("{plan:?}: {kills} kills, {cuts} cuts; {summary}");
    let _ = writeln!(std::io::stderr(), "{line}");
    assert!(kills > 0, "nobody was killed: {line}");
}

async fn kill_now_and_then(processes: &mut [Process], trouble: Duration, mut rng: Rng) -> usize {
    let started = Instant::now();
    let mut kills = 0;
    while started.elapsed() < trouble {
        sleep(millis(&mut rng, 300, 1200)).await;
        let process = &mut processes[rng.usize(..processes.len())];
        process.assert_running();
        process.kill();
        kills += 1;
        sleep(millis(&mut rng, 0, 300)).await;
        process.start().await;
    }
    kills
}

async fn cut_now_and_then(cut: &Cut, trouble: Duration, mut rng: Rng) -> usize {
    let started = Instant::now();
    let mut cuts = 0;
    while started.elapsed() < trouble && !matches!(cut, Cut::Nothing) {
        sleep(millis(&mut rng, 200, 1000)).await;
        cut.all(rng.bool()).await;
        cuts += 1;
    }
    cuts
}

fn millis(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..=most))
}

const SERVER: &str = env!("CARGO_BIN_EXE_example-server");

/// The issuer of the servers. Nobody listens at this address.
const ISSUER: &str = "http://127.0.0.1:1";

const PASSWORD: &str = "password";

/// Returns the configuration. It has a user for each device, because a user may enter only a few codes. The hash of their password costs
/// next to nothing.
fn configuration(plan: &Plan, store: &str) -> String {
    let lifetime = plan.lifetime.as_secs();
    let users = (0..plan.devices).map(|number| {
        format!(
            r#"
            [[users]]
            sub = "user_{number}"
            email = "user{number}@example.com"
            name = "User {number}"
            password = "{HASH}"
            "#
        )
    });
    let users: String = users.collect();
    format!(
        r#"
        issuer = "{ISSUER}"
        store = "{store}"
        trusted_proxies = ["127.0.0.1"]
        [policy]
        interval = 1
        lifetime = {lifetime}
        [limits]
        password_checks = 16
        [quotas]
        refreshes = {{ burst = 1000, period = 60 }}
        [[clients]]
        id = "client_cli"
        name = "Device"
        device_grant = true
        scope = "openid offline_access"
        {users}
        "#
    )
}

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$sHqTX6DbwVc$hyxw+q/vUew4WcPse/og3w";
