//! The conformance vectors, run through the public API: `tests/vectors/README.md` says what they are.
//!
//! They are a program of their own so that `cargo test --test vectors` runs all of them, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::std_instead_of_alloc, reason = "a test has std")]

mod client;
mod form;
mod response;
mod server;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Says how many vectors ran, also if all of them passed. It writes to stderr itself, because a test captures the output of `eprintln!`.
fn tell(name: &str, count: usize) {
    let line = format!("{name}: {count} vectors\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Runs all vectors, and fails with a list of those that failed.
fn all_hold<'v, V: 'v>(name: &str, vectors: &'v [V], run: impl Fn(&'v V) -> Result<(), String>) {
    let faults: Vec<_> = vectors
        .iter()
        .filter_map(|vector| run(vector).err())
        .collect();
    tell(name, vectors.len());
    assert!(
        faults.is_empty(),
        "{} of {} failed:\n{}",
        faults.len(),
        vectors.len(),
        faults.join("\n")
    );
}

const SERVER: [&str; 6] = [
    "form.json",
    "authentication.json",
    "poll.json",
    "device_authorization.json",
    "refresh.json",
    "page.json",
];

const CLIENT: [&str; 2] = ["providers.json", "workos.json"];

/// Each provider with the bodies that are known of it.
const BODIES: &[(&str, &str)] = &[
    (
        "GitHub",
        "codes as a form, codes as JSON, authorization_pending, slow_down, slow_down with a lower interval, access_denied, \
         expired_token, token_expired, incorrect_device_code, device_flow_disabled, incorrect_client_credentials, tokens, \
         tokens as a form",
    ),
    (
        "Google",
        "codes, authorization_pending, slow_down, access_denied, invalid_scope, tokens",
    ),
    ("Entra ID v2", ENTRA),
    ("Entra v1, ADFS, B2C", ENTRA),
    ("Auth0", STANDARD),
    ("Okta", STANDARD),
    ("Keycloak", STANDARD),
    ("GitLab", STANDARD),
    ("Buildkite", STANDARD),
    ("Kinde", STANDARD),
    (
        "Twitch",
        "request, codes, authorization_pending, invalid device code, tokens",
    ),
    (
        "Salesforce",
        "codes, authorization_pending, access_denied, invalid_grant, tokens",
    ),
    ("Dex before 2025", STANDARD),
    (
        "OpenAM / ForgeRock",
        "codes, authorization_pending, slow_down, authorization_declined, tokens",
    ),
    ("Amazon LWA", STANDARD),
    ("Oracle IDCS", STANDARD),
    (
        "Privy",
        "codes, authorization_pending, access_denied, expired_token, invalid_grant, tokens",
    ),
    (
        "WorkOS Connect",
        "request, request with a secret, codes, authorization_pending, slow_down, access_denied, expired_token, invalid_grant, \
         tokens",
    ),
    (
        "WorkOS AuthKit",
        "codes, error and error_description: authorization_pending, error and error_description: slow_down, \
         error and error_description: access_denied, error and error_description: expired_token, \
         error and error_description: invalid_client, error and error_description: invalid_grant, \
         error and error_description: invalid_request, error and error_description: unauthorized_client, \
         error and error_description: sso_required, code and message: 400, code and message: 403, code and message: 422, \
         message alone: 400, message alone: 404, 429 with error, 429 with code, 403 access_denied at authorize, tokens",
    ),
];

const STANDARD: &str =
    "codes, authorization_pending, slow_down, access_denied, expired_token, invalid_grant, tokens";

const ENTRA: &str = "codes, authorization_pending, authorization_declined, bad_verification_code, expired_token, tokens";

fn serves(name: &str) {
    let file: form::File = read(name);
    all_hold(name, &file.vectors, |vector| {
        server::run(&file, vector).map(drop)
    });
}

#[test]
fn the_vectors_of_the_form_hold() {
    serves("form.json");
}

#[test]
fn the_vectors_of_the_authentication_hold() {
    serves("authentication.json");
}

#[test]
fn the_vectors_of_the_poll_hold() {
    serves("poll.json");
}

#[test]
fn the_vectors_of_the_device_authorization_endpoint_hold() {
    serves("device_authorization.json");
}

#[test]
fn the_vectors_of_the_refresh_hold() {
    serves("refresh.json");
}

#[test]
fn the_vectors_of_the_page_hold() {
    serves("page.json");
}

fn reads(name: &str) {
    let file: client::File = read(name);
    all_hold(name, &file.vectors, |vector| client::run(&file, vector));
}

#[test]
fn the_vectors_of_the_providers_hold() {
    reads("providers.json");
}

#[test]
fn the_vectors_of_workos_hold() {
    reads("workos.json");
}

/// Rows B2 to B7 and A11 have one and the same response. So have all `invalid_grant` answers to polls, all of them to refreshes, and all
/// successful revocations.
#[test]
fn what_must_not_be_told_apart_is_the_same_byte_for_byte() {
    let mut known = BTreeMap::new();
    for name in SERVER {
        let file: form::File = read(name);
        for vector in &file.vectors {
            for (name, response) in server::run(&file, vector).unwrap() {
                let first = known.entry(name).or_insert_with(|| response.clone());
                assert_eq!(*first, response, "{}", vector.id);
            }
        }
    }
    assert_eq!(
        known.into_keys().collect::<Vec<_>>(),
        [
            "invalid_client",
            "invalid_grant",
            "invalid_grant of a refresh",
            "revocation"
        ]
    );
}

#[test]
fn every_row_of_the_tables_has_a_vector_and_every_vector_a_name_of_its_own() {
    let (mut rows, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for name in SERVER {
        let file: form::File = read(name);
        for vector in file.vectors {
            rows.extend(vector.rows);
            assert!(ids.insert(vector.id.clone()), "{} comes twice", vector.id);
        }
    }
    let tables = [
        ("A", 17),
        ("B", 9),
        ("C", 20),
        ("D", 8),
        ("R", 18),
        ("U", 14),
    ];
    let table = |(table, last)| (1..=last).map(move |row: u8| format!("{table}{row}"));
    assert_eq!(rows, tables.into_iter().flat_map(table).collect());
}

/// A core that does nothing answers with nothing, or with an error of its own.
#[test]
fn no_vector_of_the_server_holds_for_a_core_that_does_nothing() {
    for name in SERVER {
        let file: form::File = read(name);
        for vector in &file.vectors {
            let mut answers = 0;
            for step in &vector.steps {
                let is_said = [
                    step.response.is_some(),
                    step.dispatched.is_some(),
                    step.after.is_some(),
                    step.refused.is_some(),
                    step.review.is_some(),
                ];
                answers += usize::from(is_said.contains(&true));
                let Some(expected) = &step.response else {
                    continue;
                };
                for status in [200, 400, 404, 500, 501] {
                    let response = response::Response {
                        status,
                        headers: BTreeMap::new(),
                        body: "{}".into(),
                    };
                    assert!(expected.check(&file, &response).is_err(), "{}", vector.id);
                }
            }
            assert!(answers > 0, "{}", vector.id);
        }
    }
}

#[test]
fn every_body_of_every_provider_has_a_vector_and_every_vector_a_name_of_its_own() {
    let (mut bodies, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for name in CLIENT {
        let file: client::File = read(name);
        for vector in file.vectors {
            let named = vector.bodies.into_iter();
            bodies.extend(named.map(|body| (vector.provider.clone(), body)));
            assert!(ids.insert(vector.id.clone()), "{} comes twice", vector.id);
        }
    }
    let known = BODIES.iter().flat_map(|(provider, bodies)| {
        let bodies = bodies.split(", ");
        bodies.map(|body| ((*provider).to_owned(), body.to_owned()))
    });
    assert_eq!(bodies, known.collect());
}

/// Each exchange states one result, so a client that does nothing fails it.
#[test]
fn no_vector_of_the_client_holds_for_a_core_that_does_nothing() {
    for name in CLIENT {
        let file: client::File = read(name);
        for vector in &file.vectors {
            assert!(!vector.exchanges.is_empty(), "{}", vector.id);
            for exchange in &vector.exchanges {
                let ends = ["wait", "outcome", "failed"];
                let said = ends.iter().filter(|end| exchange.then.contains_key(**end));
                assert_eq!(said.count(), 1, "{}", vector.id);
            }
        }
    }
}
