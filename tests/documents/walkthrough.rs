//! The example `walkthrough`, run as a test: it succeeds, and its output is readable.

use std::ffi::OsString;
use std::process::ExitCode;

use anstream::adapter::strip_str;
use serde_json::Value;

// Cargo does not give an example to a test, so its source is compiled again.
#[path = "../../examples/walkthrough/main.rs"]
#[expect(dead_code, reason = "its `main` runs the same function")]
mod example;

/// Returns what the example prints with these arguments.
#[track_caller]
fn printed(arguments: &[&str]) -> String {
    let mut out = Vec::new();
    if let Err(failed) = example::run(arguments.iter().map(OsString::from), &mut out) {
        panic!("{failed}");
    }
    String::from_utf8(out).unwrap()
}

/// Returns the events of one kind that the example prints.
fn events(kind: &str) -> Vec<Value> {
    let lines = printed(&["--json"]);
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    events
        .filter(|event: &Value| event["event"] == kind)
        .collect()
}

#[test]
fn every_answer_is_as_expected() {
    // `printed` panics if an answer is not the expected one.
    let text = printed(&[]);
    let end = text.lines().last().unwrap();
    assert!(
        strip_str(end).to_string().ends_with("were as expected."),
        "{end}"
    );
}

#[test]
fn two_runs_print_the_same() {
    assert_eq!(printed(&[]), printed(&[]));
}

#[test]
fn no_line_is_wider_than_a_hundred_columns() {
    let text = strip_str(&printed(&[])).to_string();
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn each_json_line_is_an_event_of_a_scene() {
    for line in printed(&["--json"]).lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(matches!(event["scene"].as_u64(), Some(1..=8)), "{line}");
        assert!(event["at_ms"].is_u64(), "{line}");
        assert!(event["event"].is_string(), "{line}");
    }
}

#[test]
fn every_request_is_answered_with_its_cause_in_the_log_alone() {
    let responses = events("response");
    let causes: Vec<_> = responses
        .iter()
        .map(|response| {
            (
                response["scene"].as_u64().unwrap(),
                response["cause"].as_str().unwrap(),
            )
        })
        .collect();
    let wanted = [
        (1, "issued"),
        (1, "pending"),
        (1, "too_fast"),
        (1, "too_fast"),
        (1, "granted"),
        (1, "replay"),
        (2, "issued"),
        (2, "denied"),
        (3, "issued"),
        (3, "pending"),
        (3, "pending"),
        (3, "expired"),
        (4, "issued"),
        (5, "refreshed"),
        (5, "refreshed"),
        (6, "refreshed"),
        (6, "refreshed"),
        (6, "refreshed"),
        (7, "refreshed"),
        (7, "reuse"),
        (7, "ended"),
        (8, "revoked"),
        (8, "ended"),
        (8, "nothing_to_revoke"),
    ];
    assert_eq!(causes, wanted);
    assert_eq!(events("request").len(), wanted.len());
    for response in responses {
        let body = response["body"].as_str().unwrap();
        // The response to a revocation has no body.
        assert_eq!(
            body.is_empty(),
            response["scene"] == 8 && response["status"] == 200
        );
        if !body.is_empty() {
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body.get("cause").is_none(), "{body}");
        }
    }
}

#[test]
fn a_lost_answer_is_marked_and_each_refresh_token_is_another_one() {
    let responses = events("response");
    let lost = responses.iter().filter(|response| response["lost"] == true);
    assert_eq!(lost.count(), 1);
    let mut tokens: Vec<_> = responses
        .iter()
        .filter_map(|response| {
            let body: Value = serde_json::from_str(response["body"].as_str()?).ok()?;
            Some(body.get("refresh_token")?.as_str()?.to_owned())
        })
        .collect();
    let count = tokens.len();
    assert_eq!(count, 7);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), count);
    assert!(printed(&[]).contains("lost on the way"));
}

#[test]
fn an_unknown_argument_is_refused_before_anything_is_printed() {
    let mut out = Vec::new();
    let failed = example::run([OsString::from("--jsno")], &mut out).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "there is no argument --jsno; try --help"
    );
    assert_eq!(failed.status(), ExitCode::from(2));
    assert!(out.is_empty());
}

#[test]
fn help_says_how_to_use_it() {
    assert!(printed(&["--help"]).contains("Usage: walkthrough [--json]"));
}
