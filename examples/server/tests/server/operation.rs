//! Running the server: what it logs, what operators see, and where requests come from.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::support::program::Program;
use crate::support::server::*;
use crate::support::services::Service;
use reqwest::StatusCode;
use serde_json::Value;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Connection as _, SqlSafeStr as _};

/// Starts the program on a free port. Returns it, and the lines of its log as they come.
fn logging(store: &str) -> (Program, Receiver<String>) {
    let command = &mut Command::new(env!("CARGO_BIN_EXE_example-server"));
    let command = command.args(["--listen", "127.0.0.1:0", "--store", store]);
    let command = command.args(["--metrics-listen", "127.0.0.1:0"]);
    let command = command.env("RUST_LOG", "trace").stderr(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let log = BufReader::new(program.0.stderr.take().unwrap());
    let (sender, lines) = mpsc::channel();
    // The log must be read all the time, because otherwise the pipe fills up.
    std::thread::spawn(move || {
        let mut read = log.lines().map_while(Result::ok);
        read.try_for_each(|line| sender.send(line))
    });
    (program, lines)
}

/// Waits until the program says where it listens. Returns the log up to there, and the address.
fn until_it_listens(lines: &Receiver<String>) -> (Vec<String>, String) {
    let begun = Instant::now();
    let mut log = Vec::new();
    loop {
        let left = Duration::from_secs(30).saturating_sub(begun.elapsed());
        let line = lines.recv_timeout(left).expect("it listens");
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        log.push(line);
        if event["message"] == "listening" {
            return (log, text(&event, "address").to_owned());
        }
    }
}

/// Makes a file as the first edition of this server left it, with a session and the family of a refresh token. Returns the URL of the
/// store.
async fn first_edition(path: &Path) -> String {
    std::fs::write(path, "").unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    let path = path.to_str().unwrap();
    let mut connection = sqlx::SqliteConnection::connect(path).await.unwrap();
    let tables = include_str!("../../src/store/migrations/1_sqlite.sql");
    let (kind, description) = (MigrationType::Simple, "example-server".into());
    let first = Migration::new(1, description, kind, tables.into_sql_str(), false);
    let migrator = Migrator::with_migrations(vec![first]);
    migrator.run(&mut connection).await.unwrap();
    for statement in [
        r#"INSERT INTO sessions VALUES (x'01', x'02', 1, 4102444800000, '{"v":1,"state":"pending"}')"#,
        "INSERT INTO families VALUES (x'01', x'03', 4102444800000, '{}')",
        "INSERT INTO refresh_tokens VALUES (x'03', x'01', 4102444800000)",
        "INSERT INTO quotas VALUES (x'04', 4102444800000)",
        "INSERT INTO secrets VALUES ('user-code-key', x'05'), ('kept', x'06')",
    ] {
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection.close().await.unwrap();
    format!("sqlite:{path}")
}

#[tokio::test]
async fn a_database_of_the_first_edition_is_upgraded_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = first_edition(&folder.path().join("server.db")).await;
    let says_so = |log: &[String]| log.iter().any(|line| line.contains("the first edition"));
    let (program, lines) = logging(&store);
    let (log, address) = until_it_listens(&lines);
    assert!(says_so(&log), "{log:?}");
    let form = [("client_id", "client_cli")];
    let ask = client().post(format!("http://{address}/oauth2/device_authorization"));
    assert_eq!(ask.form(&form).send().await.unwrap().status(), 200);
    // What must be kept is there, and what could be misread is gone.
    let path = store.strip_prefix("sqlite:").unwrap();
    let mut connection = sqlx::SqliteConnection::connect(path).await.unwrap();
    let read = "SELECT (SELECT count(*) FROM sessions WHERE key = x'01')
        + (SELECT count(*) FROM quotas WHERE key = x'04')
        + (SELECT count(*) FROM secrets WHERE name = 'user-code-key')";
    let old: i64 = sqlx::query_scalar(read)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(old, 0);
    let read = "SELECT value FROM secrets WHERE name = 'kept'";
    let kept: Vec<u8> = sqlx::query_scalar(read)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, [6]);
    drop(program);
    // It says so only once.
    let (_program, lines) = logging(&store);
    let (log, _) = until_it_listens(&lines);
    assert!(!says_so(&log), "{log:?}");
}

const DATABASE_PASSWORD: &str = "a-database-password";

#[tokio::test]
async fn with_sqlite_the_log_tells_what_happened_and_no_secret_at_the_finest_level() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("server.db").display());
    the_log_tells_what_happened_and_no_secret(&store).await;
}

#[tokio::test]
async fn with_postgres_the_log_tells_what_happened_and_no_secret_at_the_finest_level() {
    if let Some(service) = Service::postgres() {
        // This database asks nobody for a password, but the server does not know that.
        let store = format!("{}&password={DATABASE_PASSWORD}", service.url());
        the_log_tells_what_happened_and_no_secret(&store).await;
    }
}

#[tokio::test]
async fn with_redis_the_log_tells_what_happened_and_no_secret_at_the_finest_level() {
    if let Some(service) = Service::redis() {
        let mut connection = redis::Client::open(service.url())
            .and_then(|client| client.get_connection())
            .unwrap();
        let mut require = redis::cmd("CONFIG");
        let require = require.arg(&["SET", "requirepass", DATABASE_PASSWORD]);
        require.exec(&mut connection).unwrap();
        let store = format!("{}?pass={DATABASE_PASSWORD}", service.url());
        the_log_tells_what_happened_and_no_secret(&store).await;
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "it is one login and what must be said of it"
)]
async fn the_log_tells_what_happened_and_no_secret(store: &str) {
    let (mut program, lines) = logging(store);
    let (mut log, address) = until_it_listens(&lines);
    let url = format!("http://{address}");
    let http = client();

    let post = async |path: &str, form: &[(&str, &str)]| {
        let request = http.post(format!("{url}{path}")).form(form);
        json(request.send().await.unwrap()).await
    };
    let codes = post(
        "/oauth2/device_authorization",
        &[("client_id", "client_cli"), ("scope", SCOPE)],
    )
    .await;
    let wrong = [
        ("client_id", "client_backend"),
        ("client_secret", "a-wrong-secret"),
    ];
    post("/oauth2/device_authorization", &wrong).await;
    let right = [("client_id", "client_backend"), ("client_secret", SECRET)];
    let backend = post("/oauth2/device_authorization", &right).await;
    let mut browser = Browser {
        url: format!("{url}/device"),
        http: client(),
        csrf: String::new(),
    };
    browser
        .show(&format!("?user_code={}", text(&codes, "user_code")))
        .await;
    let first = browser.csrf.clone();
    browser.sign_in(EMAIL, "a-wrong-password").await;
    browser.sign_in(EMAIL, PASSWORD).await;
    browser.show("").await;
    browser.approve(&codes).await;
    let poll = [
        ("grant_type", DEVICE_GRANT),
        ("client_id", "client_cli"),
        ("device_code", text(&codes, "device_code")),
    ];
    let tokens = post("/oauth2/token", &poll).await;
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", "client_cli"),
        ("refresh_token", text(&tokens, "refresh_token")),
    ];
    let fresh = post("/oauth2/token", &refresh).await;
    let again = post("/oauth2/token", &refresh).await;
    let reuse = [
        refresh[0],
        refresh[1],
        ("refresh_token", text(&fresh, "refresh_token")),
    ];
    post("/oauth2/token", &reuse).await;
    let request = http
        .get(format!("{url}/oauth2/userinfo"))
        .bearer_auth(text(&tokens, "access_token"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);

    // The program stops when it is told to.
    let id = program.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let stopped = eventually(async || program.0.try_wait().unwrap().is_some());
    assert!(stopped.await);
    assert!(program.0.wait().unwrap().success());
    log.extend(lines); // until its end

    for line in [
        "\"cause\":\"issued\"",
        "\"cause\":\"granted\"",
        "\"cause\":\"wrong_secret\"",
        "\"cause\":\"approved\"",
        "\"cause\":\"refreshed\"",
        "\"cause\":\"reuse\"",
        "\"message\":\"stopped\"",
    ] {
        assert!(log.iter().any(|own| own.contains(line)), "{line}");
    }
    let user_codes = [text(&codes, "user_code"), text(&backend, "user_code")];
    let secrets = [
        text(&codes, "device_code"),
        text(&backend, "device_code"),
        text(&tokens, "access_token"),
        text(&tokens, "id_token"),
        text(&tokens, "refresh_token"),
        text(&fresh, "access_token"),
        text(&fresh, "refresh_token"),
        text(&again, "refresh_token"),
        "a-wrong-secret",
        SECRET,
        "a-wrong-password",
        PASSWORD,
        &first,
        &browser.csrf,
        "PRIVATE KEY",
        "device-login=",
        DATABASE_PASSWORD,
    ];
    for secret in user_codes.into_iter().chain(secrets) {
        let found = log.iter().find(|line| line.contains(secret));
        assert_eq!(found, None);
        let without_dash = secret.replace('-', "");
        let found = log.iter().find(|line| line.contains(&without_dash));
        assert_eq!(found, None);
    }
}

#[tokio::test]
async fn operators_alone_see_health_and_counts() {
    let server = Running::new().await;
    let health = server.get_as_operator("/healthz").send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    server.codes("openid").await;
    let metrics = server.get_as_operator("/metrics").send().await.unwrap();
    assert_eq!(
        metrics.headers()["content-type"],
        "text/plain; version=0.0.4"
    );
    let text = metrics.text().await.unwrap();
    let line = r#"device_login_replies_total{cause="issued",endpoint="device_authorization"} 1"#;
    assert!(text.contains(line), "{text}");
    // Nobody else sees them.
    for path in ["/healthz", "/metrics"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let public = server.get_as_operator("/oauth2/jwks").send().await.unwrap();
    assert_eq!(public.status(), StatusCode::NOT_FOUND);
    // A browser that opens the address is led on to the page.
    let root = server.get("/").send().await.unwrap();
    assert_eq!(root.headers()["location"], "/device");
}

#[tokio::test]
async fn a_request_comes_from_where_a_trusted_proxy_says() {
    let mut config = config();
    config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = Running::with(config).await;
    let form = [("client_id", "client_cli"), ("scope", "openid")];
    let request = server.post("/oauth2/device_authorization", &form);
    let request = request.header("x-forwarded-for", "192.0.2.1, 203.0.113.9");
    let codes = json(request.send().await.unwrap()).await;
    let browser = server.signed_in().await;
    let session = browser.review(&codes).await;
    let review = format!("{}/request/{session}", browser.url);
    for (source, differs) in [
        ("198.51.100.7", true),
        ("203.0.113.9", false),
        ("192.168.1.1", false), // a private address says nothing
    ] {
        let request = browser.http.get(&review).header("x-forwarded-for", source);
        let html = request.send().await.unwrap().text().await.unwrap();
        assert!(html.contains("203.0.113.9") && !html.contains("192.0.2.1"));
        let is_said = html.contains("Your browser is in a different network.");
        assert_eq!(is_said, differs, "{source}");
    }
}
