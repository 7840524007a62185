//! The configuration: what the server refuses to start with, and what it says then.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::program;
use crate::support::server::*;
use example_server::Server;
use example_server::config::{Config, DEFAULT};

/// Returns a command that runs the program.
fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_example-server"))
}

/// Runs the program with these arguments until it ends by itself. Returns whether it succeeded, and what it said.
fn run(arguments: &[&str]) -> (bool, String) {
    program::run(command().args(arguments))
}

#[test]
fn development_credentials_are_for_this_machine_alone() {
    for arguments in [
        ["--listen", "0.0.0.0:0"],
        ["--listen", "[::]:0"],
        ["--issuer", "https://login.example.com"],
    ] {
        let (succeeded, said) = run(&[&["--store", "memory:"], &arguments[..]].concat());
        assert!(!succeeded, "{arguments:?}");
        assert!(said.contains("is the one for development"), "{said}");
    }
}

#[tokio::test]
async fn either_development_credential_alone_keeps_it_on_this_machine() {
    let refusal = async |change: fn(&mut Config)| {
        let mut config = config();
        config.listen = "0.0.0.0:0".parse().unwrap();
        change(&mut config);
        let refused = Server::bind(config).await.err();
        refused.map(|error| format!("{error:?}"))
    };
    let by_user = refusal(|config| config.clients.clear()).await.unwrap();
    assert!(by_user.contains("password"), "{by_user}");
    let by_client = refusal(|config| config.users.clear()).await.unwrap();
    assert!(by_client.contains("secret"), "{by_client}");
    // In capital letters it is the same secret.
    let in_capitals = refusal(|config| {
        config.users.clear();
        let secrets = config
            .clients
            .iter_mut()
            .flat_map(|client| &mut client.secret_sha256);
        secrets.for_each(|secret| secret.make_ascii_uppercase());
    });
    assert!(in_capitals.await.is_some());
}

/// Configurations that are wrong, and what is said about each.
const WRONG: &[(&str, &str)] = &[
    ("lisen = \"127.0.0.1:0\"", "line 1: unknown field `lisen`"),
    ("\n[policy]\ninterval = \"5\"", "line 3: invalid type"),
    (
        "[[clients]]\nid = \"x\"\nname = \"x\"\nscope = \"a  b\"",
        "exactly one space",
    ),
    (
        "issuer = \"http://login.example.com\"",
        "the issuer must be an https URL",
    ),
    (
        "issuer = \"https://login.example.com/tenant\"",
        "without a path",
    ),
    ("issuer = \"https://login.example.com/\"", "without a path"),
    (
        "issuer = \"https://login.example.com\"",
        "set trusted_proxies",
    ),
    ("[policy]\nlifetime = 1", "at least twice the interval"),
    (
        "[policy]\nexpected_sessions = 1_000_000",
        "codes can be guessed",
    ),
    (
        "[quotas]\nguesses = { burst = 0, period = 60 }",
        "a burst of at least one",
    ),
    (
        "[quotas]\nsign_ins = { burst = 0, period = 60 }",
        "the quota of sign_ins is refused",
    ),
    (
        "[limits]\nconnections = 0",
        "limits.connections must be from 1 to",
    ),
    ("server_key = \"c2hvcnQ=\"", "must be 32 octets or more"),
    (
        "previous_server_key = \"c2hvcnQ=\"",
        "set without server_key",
    ),
    (
        "[[clients]]\nid = \"x\"\nname = \"x\"\nscope = \"a\"\nsecret_sha256 = [\"beef\"]",
        "64 hexadecimal digits",
    ),
    (
        "[[clients]]\nid = \"x\"\nname = \"x\"\nscope = \"a\"\ndefault_scope = \"b\"",
        "its default_scope must be within its scope",
    ),
    (
        "[[clients]]\nid = \"x\"\nname = \"x\"\nscope = \"a\"\nrequired_scope = \"b\"",
        "its required_scope must be within its scope",
    ),
    (
        "[[users]]\nsub = \"x\"\nemail = \"x\"\nname = \"x\"\npassword = \"in clear, oh dear\"",
        "must be an argon2 hash",
    ),
    (
        "store = \"mysql://user:sesame@localhost/x\"",
        "the store must be",
    ),
];

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    let file = path.to_str().unwrap();
    let database = folder.path().join("db");
    let url = format!("sqlite:{}", database.display());
    for (text, expected) in WRONG {
        std::fs::write(&path, text).unwrap();
        let store: &[&str] = if text.starts_with("store") {
            &[]
        } else {
            &["--store", &url]
        };
        let listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let arguments = [&listen[..], &["--config", file], store].concat();
        let (succeeded, said) = run(&arguments);
        assert!(!succeeded, "{text}");
        assert!(said.contains(expected), "{text}: {said}");
        assert!(!database.exists(), "{text}: the database was made");
        assert!(
            !said.contains("oh dear") && !said.contains("sesame"),
            "{said}"
        );
    }
    let (_, said) = run(&["--config", "nowhere.toml"]);
    assert!(said.contains("nowhere.toml cannot be read"), "{said}");
    let twice = DEFAULT.replace("id = \"client_web\"", "id = \"client_cli\"");
    std::fs::write(&path, twice).unwrap();
    let (_, said) = run(&[
        "--store",
        "memory:",
        "--listen",
        "127.0.0.1:0",
        "--config",
        file,
    ]);
    assert!(
        said.contains("client \"client_cli\": it is there twice"),
        "{said}"
    );
}

#[test]
fn what_a_file_leaves_out_is_as_the_default_file_has_it() {
    let default = Config::parse(DEFAULT).unwrap();
    let (store, default) = (default.store.0.clone(), format!("{default:#?}"));
    for part in [
        "listen",
        "metrics_listen",
        "store",
        "policy",
        "quotas",
        "tokens",
        "page",
        "limits",
    ] {
        let mut file: toml::Table = DEFAULT.parse().unwrap();
        assert!(file.remove(part).is_some(), "{part}");
        let without = Config::parse(&file.to_string()).unwrap();
        assert_eq!(format!("{without:#?}"), default, "{part}");
        assert_eq!(without.store.0, store, "{part}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (succeeded, said) = run(&["--store", "memory:", "--listen", &address]);
    assert!(!succeeded);
    assert!(
        said.contains(&format!("{address} cannot be listened on")),
        "{said}"
    );
}

#[test]
fn help_names_every_flag() {
    let output = command().arg("--help").output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    for flag in [
        "--config",
        "--listen",
        "--metrics-listen",
        "--store",
        "--issuer",
        "client_cli",
    ] {
        assert!(said.contains(flag), "{said}");
    }
}

#[test]
fn what_is_shown_of_a_configuration_hides_its_secrets() {
    let mut config = config();
    config.store = "postgres://user:sesame@localhost/x".into();
    config.pace = Some("redis://:sesame@localhost/1".into());
    config.server_key = Some("sesame".into());
    config.previous_server_key = Some("sesame".into());
    config.users[0].password = "sesame".into();
    let shown = format!("{config:?}");
    assert!(
        shown.contains("client_cli") && !shown.contains("sesame"),
        "{shown}"
    );
}

#[test]
fn a_file_with_secrets_that_others_can_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    let key = "c2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1l";
    let with_key = format!("server_key = \"{key}\"\nstore = \"none\"");
    let with_password = "store = \"mysql://user:sesame@localhost/x\"";
    for (text, mode, is_warned) in [
        (with_key.as_str(), 0o644, true),
        (&with_key, 0o640, true),
        (&with_key, 0o600, false),
        (with_password, 0o644, true),
        (with_password, 0o600, false),
        ("store = \"none\"", 0o644, false),
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let file = path.to_str().unwrap();
        let any = "127.0.0.1:0";
        let (_, said) = run(&["--config", file, "--listen", any, "--metrics-listen", any]);
        assert!(said.contains("the store must be"), "{said}");
        let warning = "the configuration holds secrets, and others can read it";
        assert_eq!(said.contains(warning), is_warned, "{mode:o}: {said}");
        assert!(!said.contains("sesame") && !said.contains(key), "{said}");
    }
}

#[test]
fn the_url_of_the_store_can_come_from_the_environment() {
    let url = ("EXAMPLE_SERVER_STORE", "mysql://user:sesame@localhost/x");
    let with = |arguments: &[&str]| program::run(command().args(arguments).env(url.0, url.1));
    let any = "127.0.0.1:0";
    let listen = ["--listen", any, "--metrics-listen", any];
    let (_, said) = with(&listen);
    assert!(said.contains("the store must be"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    // A URL in the arguments would be seen in the list of processes. One in the environment must not be seen in the help.
    let help = command().arg("--help").env(url.0, url.1).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(url.0) && !help.contains("sesame"), "{help}");
}
