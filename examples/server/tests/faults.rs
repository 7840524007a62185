//! Logins while servers are killed and connections to the database are cut: no code is redeemed twice, no decision is lost.
//!
//! Hundreds of devices, each a client half over HTTP, and their users on the real verification page, talk to any of the
//! servers; half of the polls are sent twice at once. Meanwhile servers are killed and started again, and every connection to
//! the database is cut now and then. Afterwards what devices and users were told is compared with what is stored.
//!
//! What happens is drawn from a seed, printed and taken from `FAULT_SEED`; how long things take is not.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use device_flow::client::{
    DeviceFlow, Endpoints, LoginError, Next, Request, Response, Tokens, TransportError,
};
use device_flow::digest::SessionKey;
use device_flow::server::{Status, Store as _};
use example_server::store::Store;
use fastrand::Rng;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;
use support::processes::Process;
use support::server::{boxes, client, field, location};
use support::services::{Cable, Service};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How large, and for how long.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    servers: usize,
    devices: usize,
    /// In which the devices begin.
    rush: Duration,
    /// In which servers are killed and connections cut.
    trouble: Duration,
    /// Of a code.
    lifetime: Duration,
}

impl Plan {
    /// The short one of a plain run of the tests, and the one of CI.
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

/// All of it must end within this.
const BOUND: Duration = Duration::from_secs(110);

/// For how long a code that comes back is taken for the same request, where the interval is a second.
const RETRY_WINDOW: Duration = Duration::from_millis(500);

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

/// How connections are cut: by the database, on the way to it.
enum Cut {
    Nothing,
    Postgres(Cable, String),
    Redis(Cable, String),
}

impl Cut {
    async fn all(&self, on_the_way: bool) {
        match self {
            Self::Nothing => {}
            Self::Postgres(cable, _) | Self::Redis(cable, _) if on_the_way => cable.cut(),
            Self::Postgres(_, url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sqlx::query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
                )
                .execute(&mut connection)
                .await
                .unwrap();
            }
            Self::Redis(_, url) => {
                let client = redis::Client::open(url.as_str()).unwrap();
                // On a busy machine it may not answer in time: then nothing is cut this once.
                let Ok(mut connection) = client.get_multiplexed_async_connection().await else {
                    return;
                };
                let mut kill = redis::cmd("CLIENT");
                let kill = kill.arg("KILL").arg("TYPE").arg("normal");
                let kill = kill.arg("SKIPME").arg("yes");
                let _ = kill.exec_async(&mut connection).await;
            }
        }
    }
}

/// What all devices and users see.
struct World {
    plan: Plan,
    servers: Vec<SocketAddr>,
    http: reqwest::Client,
    started: Instant,
    /// How many successes were sent for a session, to whomever.
    successes: Mutex<BTreeMap<SessionKey, usize>>,
    /// Sessions of which a poll came twice, and the second time so late that it may have been a replay.
    replayed: Mutex<BTreeSet<SessionKey>>,
}

/// What a user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Approve,
    Deny,
    Ignore,
}

/// What became of a login.
struct Login {
    session: SessionKey,
    outcome: Result<Tokens, LoginError>,
    wish: Wish,
    /// Whether the page said that it is so.
    is_acknowledged: bool,
}

/// The servers reach the store at `store`, the judge directly.
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

impl World {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// One of the servers, as a balancer would choose it: another one where it cannot be reached.
    async fn send(
        &self,
        request: &Request,
        source: &str,
        rng: &mut Rng,
    ) -> Result<(u16, Vec<u8>), TransportError> {
        let path = request.url().strip_prefix(ISSUER).unwrap();
        for _ in 0..4 {
            let server = self.servers[rng.usize(..self.servers.len())];
            let mut post = self.http.post(format!("http://{server}{path}"));
            for (name, value) in request.headers() {
                post = post.header(name, value);
            }
            let post = post.header("x-forwarded-for", source).timeout(PATIENCE);
            match post.body(request.body().to_owned()).send().await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    let body = response.bytes().await.map_err(|_| TransportError::Other)?;
                    return Ok((status, body.to_vec()));
                }
                Err(error) if error.is_connect() => sleep(Duration::from_millis(50)).await,
                Err(error) if error.is_timeout() => return Err(TransportError::ConnectionTimeout),
                Err(_) => break,
            }
        }
        Err(TransportError::Other)
    }

    /// A poll, which somebody on the way may send twice; counts what successes come of it.
    async fn poll(
        &self,
        request: &Request,
        session: &SessionKey,
        source: &str,
        rng: &mut Rng,
    ) -> Result<Response<Vec<u8>>, TransportError> {
        let answers = if rng.bool() {
            let mut other = rng.fork();
            let begun = Instant::now();
            let one = self.send(request, source, rng);
            let (one, other) = tokio::join!(one, self.send(request, source, &mut other));
            if begun.elapsed() >= RETRY_WINDOW {
                self.replayed.lock().unwrap().insert(*session);
            }
            vec![one, other]
        } else {
            vec![self.send(request, source, rng).await]
        };
        let is_success = |answer: &&Result<(u16, Vec<u8>), _>| {
            matches!(answer, Ok((200, _))) // the token endpoint has no other 200
        };
        let successes = answers.iter().filter(is_success).count();
        *self.successes.lock().unwrap().entry(*session).or_default() += successes;
        // The device sees one of the answers.
        let seen = rng.usize(..answers.len());
        let answer = answers.into_iter().nth(seen).unwrap();
        answer.map(|(status, body)| Response::new(status, body))
    }
}

impl World {
    /// The status of a refresh, once the servers are well.
    async fn refresh(&self, token: &str) -> u16 {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", "client_cli"),
            ("refresh_token", token),
        ];
        for server in self.servers.iter().cycle().take(20) {
            let post = self.http.post(format!("http://{server}/oauth2/token"));
            match post.form(&form).timeout(PATIENCE).send().await {
                Ok(answer) if answer.status() != 503 => return answer.status().as_u16(),
                Ok(_) | Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        503
    }
}

/// A login on a device; none where no codes were to be had.
async fn device(world: Arc<World>, number: usize, mut rng: Rng) -> Option<Login> {
    let wishes = [
        Wish::Approve,
        Wish::Approve,
        Wish::Approve,
        Wish::Deny,
        Wish::Ignore,
    ];
    let wish = wishes[rng.usize(..wishes.len())];
    let users_rng = rng.fork();
    let rush = world.plan.rush.as_secs_f64();
    sleep(Duration::from_secs_f64(rng.f64() * rush)).await;
    let source = format!("198.18.{}.{}", number / 256, number % 256);
    let endpoint = |path| format!("{ISSUER}/oauth2/{path}");
    let endpoints = Endpoints::new(endpoint("device_authorization"), endpoint("token")).unwrap();
    let flow = DeviceFlow::new(endpoints, "client_cli").scope("openid offline_access");
    let mut tries = 0;
    let (mut waiting, prompt, session) = loop {
        let mut starting = flow.login().unwrap();
        let Next::Send(ask) = starting.next(world.now()) else {
            panic!("a login begins with a request for codes");
        };
        let answer = world.send(ask.request(), &source, &mut rng).await;
        let body = answer.as_ref().map_or(&[][..], |(_, body)| body);
        let codes = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let response = answer
            .as_ref()
            .map(|(status, body)| Response::new(*status, body));
        ask.answer(response.map_err(|failure| *failure), world.now());
        let answered = match starting.next(world.now()) {
            Next::Show(prompt) => Ok(prompt),
            Next::Done(Err(LoginError::Start(error))) => Err(error),
            other @ (Next::Send(_) | Next::Wait(_) | Next::Done(_)) => panic!("{other:?}"),
        };
        match answered {
            Ok(prompt) => {
                let code = codes["device_code"].as_str().unwrap();
                let session = SessionKey::from_bytes(Sha256::digest(code).into());
                break (starting, prompt, session);
            }
            Err(error) => assert!(error.may_be_retried(), "{error}"),
        }
        tries += 1;
        if tries == 30 {
            return None;
        }
        sleep(millis(&mut rng, 100, 500)).await;
    };
    let user = user(world.clone(), number, prompt.user_code, wish, users_rng);
    let user = tokio::spawn(user);
    let outcome = loop {
        match waiting.next(world.now()) {
            Next::Wait(until) => sleep(until.saturating_sub(world.now())).await,
            Next::Send(ask) => {
                let request = ask.request().clone();
                let answer = world.poll(&request, &session, &source, &mut rng).await;
                ask.answer(answer, world.now());
            }
            Next::Done(outcome) => break outcome,
            Next::Show(_) => panic!("the prompt is shown twice"),
        }
    };
    Some(Login {
        session,
        outcome,
        wish,
        is_acknowledged: user.await.unwrap(),
    })
}

/// A user at the page, until it says that it is as they wish, or the code has expired.
async fn user(
    world: Arc<World>,
    number: usize,
    user_code: String,
    wish: Wish,
    mut rng: Rng,
) -> bool {
    if wish == Wish::Ignore {
        return false;
    }
    let browser = client();
    let most = world.plan.lifetime.as_secs_f64() / 2.0;
    sleep(Duration::from_secs_f64(rng.f64() * most)).await;
    let mut page = Page::at("/device".to_owned());
    let started = Instant::now();
    while started.elapsed() < world.plan.lifetime {
        let server = world.servers[rng.usize(..world.servers.len())];
        let url = |path: &str| format!("http://{server}{path}");
        let step = match wish {
            _ if page.csrf.is_empty() => None,
            _ if page.is_signed_out => Some("sign_in"),
            Wish::Approve if page.session.is_some() => Some("approve"),
            Wish::Deny if page.session.is_some() => Some("deny"),
            Wish::Approve | Wish::Deny | Wish::Ignore => Some("enter"),
        };
        let request = match step {
            None => browser.get(url(&page.path)),
            Some(step) => {
                let email = format!("user{number}@example.com");
                let mut form = vec![
                    ("step", step),
                    ("csrf", &page.csrf),
                    ("email", &email),
                    ("password", PASSWORD),
                    ("user_code", &user_code),
                    ("session", page.session.as_deref().unwrap_or_default()),
                ];
                form.extend(page.boxes.iter().map(|name| (name.as_str(), "on")));
                browser.post(url("/device")).form(&form)
            }
        };
        let source = format!("198.19.{}.{}", number / 256, number % 256);
        let request = request.header("x-forwarded-for", source);
        let response = request.timeout(PATIENCE).send().await;
        let read = async |response: reqwest::Response| match location(&response) {
            Some(path) => (response.status().as_u16(), path),
            None => (
                response.status().as_u16(),
                response.text().await.unwrap_or_default(),
            ),
        };
        let answer = match response {
            Ok(response) => Some(read(response).await),
            Err(_) => None,
        };
        match (step, answer) {
            (Some("approve" | "deny"), Some((303, _))) => return true,
            (_, Some((303, path))) => page = Page::at(path), // on to the form for a code, or to the review
            // It was decided, by an answer that was lost or by the clock; or claimed, and nobody knows.
            (Some("approve" | "deny") | None, Some((403..=410, _)))
            | (Some("enter"), Some((400, _))) => {
                return false;
            }
            (_, Some((200, text))) => page = Page::read(&text),
            (_, Some(_) | None) => sleep(millis(&mut rng, 50, 300)).await,
        }
    }
    false
}

/// What a form of the page needs.
struct Page {
    path: String,
    csrf: String,
    session: Option<String>,
    boxes: Vec<String>,
    is_signed_out: bool,
}

impl Page {
    fn read(html: &str) -> Self {
        let is_review = html.contains(r#"value="approve""#);
        Self {
            csrf: field(html, "csrf").unwrap_or_default(),
            session: field(html, "session").filter(|_| is_review),
            boxes: boxes(html),
            is_signed_out: html.contains(r#"value="sign_in""#),
            ..Self::at("/device".to_owned())
        }
    }

    /// One that was not opened yet.
    fn at(path: String) -> Self {
        Self {
            path,
            csrf: String::new(),
            session: None,
            boxes: Vec::new(),
            is_signed_out: false,
        }
    }
}

/// Compares what was told with what is stored. A summary, where nothing is wrong.
async fn judge(world: &World, store: &Store, logins: &[Login]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    let mut wrong = Vec::new();
    for login in logins {
        let session = &login.session;
        let successes = world.successes.lock().unwrap().get(session).copied();
        let successes = successes.unwrap_or_default();
        let stored = store.load(session).await.unwrap();
        // Nothing is purged yet.
        let status = stored.map(|stored| stored.session.status());
        let ending = ending(&login.outcome);
        let is_replayed = world.replayed.lock().unwrap().contains(session);
        let is_right = status.is_some_and(|status| {
            let is_redeemed = matches!(status, Status::Active | Status::Ended);
            decision_stands(login, status)
                && (successes == 0 || (successes == 1 && is_redeemed))
                && ending_is_right(ending, successes, status, is_replayed)
        });
        // What a device was given can be used, unless its login has ended.
        let refreshed = if let Ok(tokens) = &login.outcome {
            let refreshed = world.refresh(tokens.refresh_token().unwrap()).await;
            Some((
                refreshed,
                if status == Some(Status::Active) {
                    200
                } else {
                    400
                },
            ))
        } else {
            None
        };
        if !is_right || refreshed.is_some_and(|(status, expected)| status != expected) {
            wrong.push(format!(
                "{:?}, acknowledged {}, stored {status:?}, {successes} successes, the device {ending}, \
                refreshed {refreshed:?}, replayed {is_replayed}",
                login.wish, login.is_acknowledged
            ));
        }
        if status == Some(Status::Ended) {
            *counts.entry("ended".to_owned()).or_default() += 1;
        }
        let wish = login.wish;
        *counts.entry(format!("{wish:?} {ending}")).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{:?}: {wrong:#?}", world.plan);
    // How many there are is the machine's; but where there are none, nothing was tested.
    let successes: usize = world.successes.lock().unwrap().values().sum();
    assert!(successes > 0, "none succeeds: {counts:?}");
    format!("{} logins, {successes} successes: {counts:?}", logins.len())
}

/// Whether the session is as its user wished it, or as it was before where the page did not say so.
fn decision_stands(login: &Login, status: Status) -> bool {
    match status {
        Status::Pending => !login.is_acknowledged,
        Status::Claimed => !login.is_acknowledged && login.wish != Wish::Ignore,
        // A code that came back after it was redeemed has ended its login.
        Status::Approved | Status::Active | Status::Ended => login.wish == Wish::Approve,
        Status::Denied => login.wish == Wish::Deny,
    }
}

/// Whether a device may have ended so.
fn ending_is_right(ending: &str, successes: usize, status: Status, is_replayed: bool) -> bool {
    match ending {
        "granted" => successes == 1 && (status == Status::Active || is_replayed),
        "denied" => status == Status::Denied,
        "expired" => true, // each can be late
        // The success was lost on its way to the device, or was not sent: a write of unknown outcome is a 503, which the device
        // takes for a lost answer. Sent or not, the session is redeemed, and by then the code may have come back too late.
        "possibly redeemed" | "rejected" => matches!(status, Status::Active | Status::Ended),
        _ => false,
    }
}

fn ending(outcome: &Result<Tokens, LoginError>) -> &'static str {
    match outcome {
        Ok(_) => "granted",
        Err(LoginError::Denied(_)) => "denied",
        Err(LoginError::Expired(_) | LoginError::TimedOut(_)) => "expired",
        Err(LoginError::Rejected(refusal)) if refusal.possibly_redeemed => "possibly redeemed",
        Err(LoginError::Rejected(_)) => "rejected",
        Err(LoginError::Failed(_)) => "failed",
        Err(LoginError::Redirected(_)) => "redirected",
        Err(LoginError::Malformed(_)) => "malformed",
        Err(LoginError::Cancelled(_)) => "cancelled",
        Err(LoginError::Start(_) | LoginError::Over) => "none",
    }
}

const SERVER: &str = env!("CARGO_BIN_EXE_example-server");

/// What the servers call themselves; nobody listens there.
const ISSUER: &str = "http://127.0.0.1:1";

const PASSWORD: &str = "password";

/// A user for each device, for each may enter a few codes only. Their password is hashed at next to no cost.
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
