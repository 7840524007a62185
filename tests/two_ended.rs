//! Dialogues between the two halves, with a network that loses and repeats, clocks that drift and jump, processes that die, stores that
//! fail, and strangers who interfere.
//!
//! `support/pair.rs` asserts what must hold in a dialogue. The fuzz target `client_server` uses it, too. A failing dialogue is shrunk, and
//! printed as what happened and what was said. This test is a program of its own, because it takes as long as all others together, except
//! the model and the properties.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::std_instead_of_alloc, reason = "a test has std")]

mod support;

use core::cell::{Cell, RefCell};
use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::panic::catch_unwind;
use std::sync::LazyLock;

use device_flow::client::{
    DeviceFlow, Endpoints, LoginError, MAX_BODY, Next, Response, Verdict, verdict,
};
use device_flow::server::Cause;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use support::pair::{Client, Commit, Dialogue, Granted, Heard, Meddler, Op, Setup, Summary, User};

/// How many dialogues each property explores.
const CASES: u32 = 4000;

// Dialogues.

fn setup() -> impl Strategy<Value = Setup> {
    let client = prop_oneof![
        2 => Just(Client::Public),
        1 => Just(Client::SecretInHeader),
        1 => Just(Client::SecretInBody)
    ];
    let interval = prop::sample::select(vec![5, 1, 2, 10]);
    let lifetime = prop::sample::select(vec![300, 60, 30, 600]);
    let last = prop_oneof![4 => Just(true), 1 => Just(false)];
    (client, interval, lifetime, any::<bool>(), last).prop_map(
        |(client, interval, lifetime, polls_at_once, polls_at_the_end)| Setup {
            client,
            interval,
            lifetime,
            polls_at_once,
            polls_at_the_end,
        },
    )
}

/// Generates what users do. Mostly Alice enters the code and decides. Sometimes Bob interferes, or Alice withdraws or releases.
fn of_the_users() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Enter(User::Alice)),
        3 => Just(Op::Approve(User::Alice, Granted::All)),
        1 => Just(Op::Approve(User::Alice, Granted::Less)),
        1 => Just(Op::Deny),
        1 => prop::sample::select(vec![
            Op::Enter(User::Bob), Op::Approve(User::Bob, Granted::All), Op::Withdraw, Op::Release,
        ]),
    ]
}

/// Generates what can happen to a device while nothing is lost: drift, delays, suspension, restarts.
fn of_the_device() -> impl Strategy<Value = Op> {
    prop_oneof![
        (700..=1300_i64).prop_map(Op::Rate),
        prop::sample::select(vec![Op::Rate(700), Op::Rate(1300)]),
        (0..9_i64).prop_map(Op::WakesEarly),
        (0..3000_i64).prop_map(Op::DelayRequest),
        (0..3000_i64).prop_map(Op::DelayAnswer),
        (0..400_000_i64).prop_map(Op::Suspended),
        (0..400_000_i64).prop_map(Op::SuspendedClock),
        (0..60_000_i64).prop_map(Op::ClientClockBack),
        (0..20_000_i64).prop_map(Op::Jitter),
        Just(Op::TakenOver),
        Just(Op::Purge),
    ]
}

fn of_the_network() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::LoseRequest),
        3 => Just(Op::LoseAnswer),
        1 => Just(Op::GatewayBefore),
        1 => Just(Op::GatewayAfter),
        1 => Just(Op::Twice(Heard::First)),
        1 => Just(Op::Twice(Heard::Second)),
        2 => (1..5_u8).prop_map(Op::LateCopy),
        1 => Just(Op::Dies),
        2 => prop::sample::select(vec![
            Op::Commits(Commit::Down), Op::Commits(Commit::UnheardButDone), Op::Commits(Commit::UnheardAndNotDone),
        ]),
    ]
}

fn of_the_servers_clocks() -> impl Strategy<Value = Op> {
    let near = prop::sample::select(vec![1, 1000, 3750, 5000, 300_000, 600_000]);
    prop_oneof![
        (0..400_000_i64).prop_map(Op::ServerClock),
        (-400_000..0_i64).prop_map(Op::ServerClock),
        near.clone().prop_map(Op::ServerClock),
        near.prop_map(|step: i64| Op::ServerClock(-step)),
        (-2000..2000_i64).prop_map(Op::OtherServer),
    ]
}

/// Generates what strangers do, who have no right to the session.
fn of_strangers() -> impl Strategy<Value = Op> {
    let strangers = prop::sample::select(vec![
        Meddler::UnknownCode,
        Meddler::ShortCode,
        Meddler::OtherClient,
        Meddler::WrongCredential,
        Meddler::Malformed,
        Meddler::OtherMethod,
        Meddler::WrongUserCode,
    ]);
    strangers.prop_map(Op::Meddles)
}

fn dialogue(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Dialogue> {
    let turns = prop::collection::vec(prop::collection::vec(op, 0..3), 0..24);
    (setup(), turns).prop_map(|(setup, turns)| Dialogue { setup, turns })
}

// Playing.

/// What was counted over all dialogues: how they ended, how many requests reached the server, how many dialogues met a `slow_down`, and
/// what became of the refreshes.
#[derive(Default)]
struct Count {
    endings: BTreeMap<&'static str, u64>,
    messages: u64,
    slowed_down: u64,
    /// How many refreshes brought new tokens, and how many were sent again.
    refreshed: u64,
    resent: u64,
    /// How many logins ended while they were refreshed, by the cause of the reply to the device.
    ended: BTreeMap<&'static str, u64>,
}

/// Plays dialogues, and plays each failing one once more to write it down. Returns what was counted.
fn explore(
    name: &str,
    dialogues: impl Strategy<Value = Dialogue>,
    check: impl Fn(&Dialogue, Summary),
) -> Count {
    let count = RefCell::new(Count::default());
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&dialogues, |dialogue| {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let summary = support::pair::play(&dialogue);
            check(&dialogue, summary);
            summary
        }));
        let Ok(summary) = played else {
            let mut lines = String::new();
            let again = AssertUnwindSafe(|| support::pair::transcribe(&dialogue, &mut lines));
            let why = match catch_unwind(again) {
                Ok(()) => "it was well played, but came to the wrong end".into(),
                Err(why) => match why.downcast::<String>() {
                    Ok(why) => *why,
                    Err(why) => why
                        .downcast::<&str>()
                        .map_or_else(|_| String::new(), |why| (*why).into()),
                },
            };
            return Err(TestCaseError::fail(format!("{why}\n\n{lines}")));
        };
        let mut count = count.borrow_mut();
        *count.endings.entry(summary.ending).or_default() += 1;
        count.messages += summary.messages;
        count.slowed_down += u64::from(summary.slowed_down);
        count.refreshed += summary.refreshes.heard;
        count.resent += summary.refreshes.resent;
        if let Some(ended) = summary.refreshes.ended {
            *count.ended.entry(ended.as_str()).or_default() += 1;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let count = count.into_inner();
    // This is written directly, because the test harness captures the output of `eprintln!`.
    let line = format!(
        "{name}: {CASES} dialogues, {} messages, {} slowed down, {:?}; {} refreshes, {} sent again, {:?}\n",
        count.messages,
        count.slowed_down,
        count.endings,
        count.refreshed,
        count.resent,
        count.ended
    );
    io::stderr().write_all(line.as_bytes()).unwrap();
    count
}

/// Over a network with delay, loss and duplication, and with a drift of up to 30 % in each wait, every dialogue ends in the outcome that
/// the user chose, or in expiry. It may also end in rejection as possibly redeemed, but only if an answer was lost, or a request was
/// duplicated after the approval. There is at most one success, whatever clocks, stores and others do.
#[test]
fn every_dialogue_ends_in_what_the_user_chose_or_in_expiry_or_after_a_loss_in_rejection() {
    let op = prop_oneof![
        4 => of_the_users(),
        2 => of_the_device(),
        3 => of_the_network(),
        1 => of_the_servers_clocks(),
        1 => of_strangers(),
        1 => Just(Op::Meddles(Meddler::Thief)),
    ];
    let count = explore("any weather", dialogue(op), |_, _| ());
    assert!(count.refreshed > 0 && count.resent > 0);
    assert!(count.ended.contains_key("reuse"));
    let endings: Vec<_> = count.endings.into_keys().collect();
    let all = [
        "denied",
        "expired by the clock",
        "expired by the server",
        "granted",
        "rejected",
    ];
    assert_eq!(endings, all);
    assert!(count.slowed_down > 0);
}

/// With one server clock and without a loss, the server never answers `slow_down`. Strangers do not change that. Only a withdrawal or a
/// purge can then make a dialogue end in rejection.
#[test]
fn without_a_loss_and_with_one_clock_nobody_is_slowed_down_and_nobody_is_rejected() {
    let op = prop_oneof![4 => of_the_users(), 4 => of_the_device(), 1 => of_strangers()];
    let count = explore("fair weather", dialogue(op), |dialogue, summary| {
        assert!(!summary.slowed_down, "slowed down");
        let mut ops = dialogue.turns.iter().flatten();
        let excused = ops.any(|op| matches!(op, Op::Withdraw | Op::Purge));
        assert!(excused || summary.ending != "rejected", "rejected");
        assert_ne!(summary.refreshes.ended, Some(Cause::Reuse));
    });
    assert!(count.refreshed > 0);
    assert!(count.endings["granted"] > 0 && count.endings["denied"] > 0);
}

/// If the clocks of two servers agree within half the tolerance, and the client's clock is not fast, the two behave like one server.
#[test]
fn two_servers_whose_clocks_agree_within_half_the_tolerance_slow_nobody_down() {
    let dialogues = (
        setup(),
        prop::collection::vec((-500..=500_i64, of_the_users()), 0..40),
    );
    let dialogues = dialogues.prop_map(|(setup, turns)| {
        let half = (i64::from(setup.interval) * 250).max(1000) / 2;
        let turns = turns.into_iter().map(|(part, op)| {
            let skew = half * part / 500;
            vec![Op::OtherServer(skew), op]
        });
        Dialogue {
            setup,
            turns: turns.collect(),
        }
    });
    let count = explore("two clocks", dialogues, |_, summary| {
        assert!(!summary.slowed_down, "slowed down");
    });
    assert!(count.endings["granted"] > 0);
}

/// If nothing is lost, and the device sleeps no longer than it has to, it learns what the user decided before the expiry, however fast or
/// slow its clock is.
#[test]
fn without_a_loss_what_the_user_chose_before_the_device_gave_up_always_arrives() {
    let rate = prop_oneof![700..=1300_i64, Just(700), Just(1300)];
    let choice = prop_oneof![
        2 => Just(Op::Approve(User::Alice, Granted::All)),
        1 => Just(Op::Approve(User::Alice, Granted::Less)),
        1 => Just(Op::Deny)
    ];
    // A turn comes before every wait and every poll, so there are two turns in an interval.
    // An approval in the last moment can be redeemed for a minute and an interval after it, which is enough for a slow clock and a slow
    // network.
    let delays = (0..9000_i64, 0..9000_i64);
    let dialogues = (setup(), rate, 0..130_usize, choice, delays);
    let dialogues = dialogues.prop_map(|(mut setup, rate, before, choice, delays)| {
        setup.polls_at_the_end = true;
        let mut turns = vec![vec![Op::Rate(rate)]; before + 1];
        for turn in &mut turns {
            turn.extend([Op::DelayRequest(delays.0), Op::DelayAnswer(delays.1)]);
        }
        turns.push(vec![Op::Enter(User::Alice), choice]);
        Dialogue { setup, turns }
    });
    let count = explore("a choice", dialogues, |_, summary| {
        if let Some(chosen) = summary.chosen {
            assert_eq!(summary.ending, chosen);
        }
    });
    assert!(count.endings["granted"] > 0 && count.endings["denied"] > 0);
}

// Refreshes.

/// Returns a dialogue with a login that is approved at once, and with these turns for its refreshes.
fn login(setup: Setup, refreshes: impl IntoIterator<Item = Vec<Op>>) -> Dialogue {
    let approves = vec![
        Op::Enter(User::Alice),
        Op::Approve(User::Alice, Granted::All),
    ];
    let mut turns = vec![approves, Vec::new()];
    turns.extend(refreshes);
    Dialogue { setup, turns }
}

/// Generates an exchange from which the device learns nothing, or that is repeated on the way.
fn loss() -> impl Strategy<Value = Vec<Op>> {
    let losses = prop::sample::select(vec![
        Op::LoseRequest,
        Op::LoseAnswer,
        Op::GatewayBefore,
        Op::GatewayAfter,
        Op::Dies,
        Op::Twice(Heard::Second),
        Op::Commits(Commit::Down),
        Op::Commits(Commit::UnheardButDone),
        Op::Commits(Commit::UnheardAndNotDone),
    ]);
    (losses, 0..2000_i64).prop_map(|(loss, delay)| vec![loss, Op::DelayRequest(delay)])
}

/// Two losses in a row are over within the grace of 30 s. Whatever was lost, the device is still signed in afterwards.
#[test]
fn a_refresh_that_is_sent_again_within_the_grace_never_ends_the_login() {
    let rounds = prop::collection::vec(prop::collection::vec(loss(), 0..=2), 1..7);
    let dialogues = (setup(), rounds).prop_map(|(setup, rounds)| {
        // After the losses, one refresh succeeds without any fault.
        let turns = rounds.into_iter().flat_map(|mut turns| {
            turns.push(Vec::new());
            turns
        });
        login(setup, turns)
    });
    let count = explore("lost refreshes", dialogues, |_, summary| {
        assert_eq!(summary.ending, "granted");
        assert_eq!(summary.refreshes.ended, None);
        assert!(summary.is_active && summary.refreshes.heard > 0);
    });
    assert!(count.resent > 0);
}

/// If a thief and the owner both refresh, the token of one of them becomes void. The next refresh with that token ends the login.
#[test]
fn a_thief_and_the_owner_who_both_refresh_end_the_login() {
    let dialogues = (setup(), 0..6_usize, loss(), any::<bool>());
    let dialogues = dialogues.prop_map(|(setup, before, loss, is_lossy)| {
        let mut turns = vec![Vec::new(); before];
        // The first refresh after the theft may be lost, or may reach the server twice.
        let mut theft = vec![Op::Meddles(Meddler::Thief)];
        theft.extend(if is_lossy { loss } else { Vec::new() });
        turns.push(theft);
        login(setup, turns)
    });
    let count = explore("a thief", dialogues, |_, summary| {
        assert_eq!(summary.ending, "granted");
        let ended = [Some(Cause::Reuse), Some(Cause::Ended)];
        assert!(ended.contains(&summary.refreshes.ended));
        assert!(!summary.is_active);
    });
    assert!(count.ended.contains_key("reuse") && count.ended.contains_key("ended"));
}

// A server that does not keep to the RFC.

/// An answer (its status and its body), and how it ends the login, or `None` if the login goes on.
type Answer = (u16, &'static str, Option<&'static str>);

const ISSUED: &str = r#"{"device_code":"d3vice-code","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device","expires_in":LIFETIME,"interval":INTERVAL}"#;

/// A body over the size limit.
static GIANT: LazyLock<String> = LazyLock::new(|| {
    let padding = "x".repeat(MAX_BODY);
    format!(r#"{{"access_token":"s3cret","padding":"{padding}"}}"#)
});

fn hostile() -> impl Strategy<Value = Answer> {
    let goes_on: Vec<Answer> = vec![
        (400, r#"{"error":"authorization_pending"}"#, None),
        (
            200,
            r#"{"error":"authorization_pending","interval":0}"#,
            None,
        ),
        (
            400,
            r#"{"error":"authorization_pending","interval":-5}"#,
            None,
        ),
        (
            400,
            r#"{"error":"authorization_pending","interval":"x"}"#,
            None,
        ),
        (
            400,
            r#"{"error":"authorization_pending","interval":1e300}"#,
            None,
        ),
        (400, r#"{"error":"slow_down"}"#, None),
        (400, r#"{"error":"slow_down","interval":0}"#, None),
        (
            400,
            r#"{"error":"slow_down","interval":18446744073709551615}"#,
            None,
        ),
        (429, r#"{"error":"slow_down","interval":1}"#, None),
        (503, "", None),
        (429, "<html>", None),
        (500, r#"{"error":"made_up"}"#, None),
        (200, "<html>log in to the wifi</html>", None),
    ];
    let ends: Vec<Answer> = vec![
        (200, "{}", Some("malformed")),
        (200, "[]", Some("malformed")),
        (200, "error", Some("malformed")),
        (200, r#"{"access_token":""}"#, Some("malformed")),
        (200, r#"{"access_token":7}"#, Some("malformed")),
        (200, r#"{"access_token":"a\r\nX: y"}"#, Some("malformed")),
        (
            200,
            r#"{"access_token":"s3cret","access_token":"b"}"#,
            Some("malformed"),
        ),
        (
            200,
            r#"{"access_token":"s3cret","error":"slow_down"}"#,
            Some("malformed"),
        ),
        (200, "GIANT", Some("malformed")),
        (400, "GIANT", Some("malformed")),
        (700, "", Some("malformed")),
        (0, "", Some("malformed")),
        (302, r#"{"access_token":"s3cret"}"#, Some("redirected")),
        (
            307,
            r#"{"error":"authorization_pending"}"#,
            Some("redirected"),
        ),
        (400, r#"{"access_token":"s3cret"}"#, Some("rejected")),
        (400, r#"{"error":"made_up"}"#, Some("rejected")),
        (401, "", Some("rejected")),
        (
            404,
            r#"{"message":"authorization_pending "}"#,
            Some("rejected"),
        ),
        (400, r#"{"error":"access_denied"}"#, Some("denied")),
        (
            400,
            r#"{"error":"expired_token"}"#,
            Some("expired by the server"),
        ),
        (200, r#"{"access_token":"s3cret"}"#, Some("granted")),
    ];
    prop_oneof![19 => prop::sample::select(goes_on), 1 => prop::sample::select(ends)]
}

/// Generates numbers. Half of them make no sense.
fn number() -> impl Strategy<Value = &'static str> {
    let usual = prop::sample::select(vec!["300", "5", "1", "2", "30", "1.5", "3600", r#""300""#]);
    let absurd = prop::sample::select(vec![
        "0",
        "-1",
        "1e-9",
        "1e300",
        "-1e300",
        "18446744073709551615",
        "18446744073709551616",
        r#""-3""#,
        r#""NaN""#,
        "null",
        "true",
        "[]",
        "{}",
    ]);
    prop_oneof![1 => usual, 1 => absurd]
}

fn retry_after() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "0",
        "1",
        "60",
        "-1",
        "1e9",
        "x",
        "Wed, 21 Oct 2026 07:28:00 GMT",
        "18446744073709551615",
        "99999999999999999999999999999999",
        "\u{0663}",
    ])
}

#[test]
fn a_hostile_server_gets_no_poll_early_none_too_many_and_nothing_out_of_the_client() {
    let (played, polled) = (Cell::new(0_u64), Cell::new(0_u64));
    let config = ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let script = prop::collection::vec((hostile(), retry_after(), 0..20_000_u64), 0..60);
    let lifetime = prop_oneof![
        3 => prop::sample::select(vec!["300", "3600", r#""600""#, "86400"]),
        1 => number()
    ];
    let outcome = TestRunner::new(config).run(
        &(lifetime, number(), script),
        |(lifetime, interval, script)| {
            let polls = resist(lifetime, interval, &script)?;
            played.set(played.get() + 1);
            polled.set(polled.get() + polls);
            Ok(())
        },
    );
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let line = format!(
        "a hostile server: {} dialogues, {} messages\n",
        played.get(),
        polled.get()
    );
    io::stderr().write_all(line.as_bytes()).unwrap();
}

const STEP: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Plays a client against a script of answers. At the end of the script, the user denies. Returns how often the client polled.
fn resist(
    lifetime: &str,
    interval: &str,
    script: &[(Answer, &'static str, u64)],
) -> Result<u64, TestCaseError> {
    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    let flow = DeviceFlow::new(endpoints.unwrap(), "cli");
    let issued = ISSUED
        .replace("LIFETIME", lifetime)
        .replace("INTERVAL", interval);
    let mut login = flow.login().unwrap();
    let Next::Send(ask) = login.next(Duration::ZERO) else {
        panic!("it asks for codes first")
    };
    ask.answer(Ok(Response::new(200, &issued)), Duration::ZERO);
    let Next::Show(prompt) = login.next(Duration::ZERO) else {
        return Ok(0);
    };
    let mut floor = login.interval().unwrap();
    prop_assert!(floor >= Duration::from_secs(1) && !prompt.lifetime.is_zero());
    let most = (prompt.lifetime.as_secs() / floor.as_secs()).saturating_add(2);
    let (mut now, mut answered, mut polls) = (Duration::ZERO, Duration::ZERO, 0);
    let mut asked_last = false;
    let mut script = script.iter();
    let mut expected = None;
    let ended = loop {
        match login.next(now) {
            Next::Wait { until } => {
                prop_assert!(until > now, "it waits for the past");
                let latest = prompt
                    .lifetime
                    .max(answered)
                    .saturating_add(MINUTE.max(floor.saturating_mul(2)));
                prop_assert!(until <= latest, "it waits for ever");
                now = until;
            }
            Next::Send(ask) => {
                prop_assert!(now.saturating_sub(answered) >= floor, "too early");
                prop_assert_eq!(ask.request().url(), "https://as.example/token");
                polls += 1;
                asked_last |= now >= prompt.lifetime;
                prop_assert!(polls <= most, "too often");
                let denied = ((400, r#"{"error":"access_denied"}"#, Some("denied")), "", 0);
                let ((status, body, end), retry_after, delay) = *script.next().unwrap_or(&denied);
                let body = if body == "GIANT" { &GIANT } else { body };
                let response = Response::new(status, body).retry_after(retry_after);
                let shown = format!(
                    "{response:?} {:?} {ask:?} {:?}",
                    verdict(&response),
                    ask.request()
                );
                let hidden = !shown.contains("s3cret") && !shown.contains("d3vice");
                prop_assert!(hidden, "a secret is shown");
                now = now.saturating_add(Duration::from_millis(delay));
                answered = now;
                let announced = |span: Option<Duration>| span.unwrap_or_default().min(HOUR);
                floor = match verdict(&response) {
                    Verdict::Pending(interval) => floor.max(announced(interval)),
                    Verdict::SlowDown(interval) => {
                        floor.saturating_add(STEP).max(announced(interval))
                    }
                    _ => floor,
                };
                ask.answer(Ok(response), now);
                expected = end;
                if login.deadline().is_some() {
                    prop_assert_eq!(end, None, "it goes on");
                }
            }
            Next::Show(_) => panic!("the prompt is shown twice"),
            Next::Done(outcome) => {
                // The client polls once more before it gives up, however long it was told to wait, unless that poll would come too late.
                let too_late = answered > prompt.lifetime || floor > prompt.lifetime;
                let is_timed_out = matches!(outcome, Err(LoginError::TimedOut(_)));
                prop_assert!(
                    !is_timed_out || asked_last || too_late,
                    "it ended without a last poll"
                );
                break outcome;
            }
        }
    };
    prop_assert!(
        !format!("{ended:?}").contains("s3cret"),
        "a secret is shown"
    );
    let ending = match ended {
        Ok(_) => "granted",
        Err(LoginError::Denied(_)) => "denied",
        Err(LoginError::Expired(_)) => "expired by the server",
        Err(LoginError::TimedOut(_)) => "expired by the clock",
        Err(LoginError::Rejected(_)) => "rejected",
        Err(LoginError::Redirected(_)) => "redirected",
        Err(LoginError::Malformed(_)) => "malformed",
        Err(_) => "something else",
    };
    prop_assert_eq!(ending, expected.unwrap_or("expired by the clock"));
    Ok(polls)
}
