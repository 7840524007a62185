//! The stored form of what is shown to the user.

use device_flow::client::{Prompt, Warning};
use serde_json::json;

use crate::support::{ISSUED, flow, ok, start};

#[test]
fn a_prompt_is_kept_and_read_back_and_checked_like_a_response() {
    let body = ISSUED.replace("\"interval\":5", "\"interval\":0,\"x\":[1]");
    let (_, prompt) = start(&flow(), ok(200, &body)).unwrap();
    let kept = serde_json::to_value(&prompt).unwrap();
    assert_eq!(
        serde_json::from_value::<Prompt>(kept.clone()).unwrap(),
        prompt
    );
    assert!(!format!("{prompt:?}").contains("WDJB"));
    for (name, bad) in [
        ("v", json!(2)),
        ("user_code", json!("WDJB\u{1b}[2J")),
        ("user_code", json!("")),
        ("user_code", json!("W".repeat(65))),
        ("verification_uri", json!("javascript:alert(1)")),
        ("verification_uri", json!("https://as.example/\u{1b}[2J")),
        (
            "verification_uri_complete",
            json!("https://as.example/\u{7}"),
        ),
        ("lifetime", json!({"secs": 0, "nanos": 0})),
        ("warnings", json!(["other"])),
        ("unknown", json!(1)),
    ] {
        let mut changed = kept.clone();
        changed[name] = bad;
        let read = serde_json::from_value::<Prompt>(changed.clone());
        assert!(read.is_err(), "{changed}");
    }
}

#[test]
fn a_warning_says_what_was_wrong_and_what_is_done_instead() {
    for (warning, [wrong, instead]) in [
        (
            Warning::Interval,
            ["no usable interval", "polls every 5 seconds"],
        ),
        (
            Warning::LongInterval,
            ["longer than the lifetime", "uses it"],
        ),
        (
            Warning::VerificationUriComplete,
            ["cannot be used", "show the code"],
        ),
    ] {
        let text = warning.to_string();
        assert!(text.contains(wrong) && text.contains(instead), "{text}");
    }
}
