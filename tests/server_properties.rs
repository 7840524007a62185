//! The invariants of the server half, over random lists of operations.
//!
//! Each list is played twice over: by the crate on its embedded store, with a host that behaves as one should, and by the
//! [oracle](oracle), a model written from the tables. They are compared answer by answer and record by record. The
//! invariants are then read off what the crate did, without the oracle. A failure shrinks to a short list of operations.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

#[path = "support/login.rs"]
mod login;
#[path = "support/oracle.rs"]
mod oracle;
mod support;
#[path = "support/world.rs"]
mod world;

use core::fmt::Write as _;
use core::time::Duration;

use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Entry, Form, Grant, HostValue, Incoming, Limit, Policy, Subject, Written,
};
use login::invalid_grant_bytes;
use oracle::{Client, Commit, LIFETIME, Page, Polling, Stale, Typed, User, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use support::{ACCESS_TOKEN, SECRET, alice, backend, builder, cli, keys, policy};
use world::{Clock, Event, Op, Outcome, World, play, subject, transcript};

// The operations, drawn at random.

fn stale() -> impl Strategy<Value = Stale> {
    prop_oneof![
        3 => Just(Stale { reads: 0, age: 0 }),
        1 => (1_u8..=4, 1_u8..=6).prop_map(|(reads, age)| Stale { reads, age }),
    ]
}

fn clock() -> impl Strategy<Value = Clock> {
    let edge = || -1_i64..=1;
    prop_oneof![
        3 => prop_oneof![0_i64..20_000, -20_000_i64..0, Just(0), Just(1), Just(-1)].prop_map(Clock::By),
        4 => edge().prop_map(Clock::PollDue),
        2 => edge().prop_map(Clock::WholeInterval),
        1 => edge().prop_map(Clock::LastAcceptedPoll),
        2 => edge().prop_map(Clock::Expiry),
        1 => (-4001_i64..=1).prop_map(Clock::Expiry),
        3 => edge().prop_map(Clock::EndOfGrace),
        2 => edge().prop_map(Clock::EndOfRetryWindow),
        1 => edge().prop_map(Clock::PurgeTime),
    ]
}

fn polling() -> impl Strategy<Value = Polling> {
    let by = prop_oneof![7 => Just(Client::Own), 1 => Just(Client::Foreign)];
    let verdict = prop_oneof![
        5 => Just(Verdict::Mints),
        1 => Just(Verdict::CheckFails),
        1 => Just(Verdict::ConsentGone),
        1 => Just(Verdict::MintingFails),
    ];
    let commit = prop_oneof![
        6 => Just(Commit::Heard),
        1 => Just(Commit::UnheardButDone),
        1 => Just(Commit::UnheardAndNotDone),
    ];
    let saves_pace = prop_oneof![7 => Just(true), 1 => Just(false)];
    (by, verdict, commit, stale(), saves_pace).prop_map(
        |(by, verdict, commit, stale, saves_pace)| Polling {
            by,
            verdict,
            commit,
            stale,
            saves_pace,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let user = || prop_oneof![3 => Just(User::Alice), 1 => Just(User::Bob)];
    let typed =
        prop_oneof![6 => Just(Typed::Right), 1 => Just(Typed::Wrong), 1 => Just(Typed::Malformed)];
    let rivals = prop_oneof![5 => Just(0_u8), 1 => 1_u8..=3];
    let scope = prop_oneof![
        4 => Just("openid profile"),
        1 => select(vec!["openid", "profile", "profile openid", "openid admin", ""]),
    ];
    prop_oneof![
        8 => clock().prop_map(Op::Clock),
        8 => polling().prop_map(Op::Poll),
        4 => (user(), typed, rivals, stale())
            .prop_map(|(by, typed, rivals, stale)| Op::Enter { by, typed, rivals, stale }),
        3 => (user(), scope, stale()).prop_map(|(user, scope, stale)| Op::Approve(user, scope, stale)),
        1 => (user(), stale()).prop_map(|(user, stale)| Op::Deny(user, stale)),
        1 => (user(), stale()).prop_map(|(user, stale)| Op::Withdraw(user, stale)),
        1 => (user(), stale()).prop_map(|(user, stale)| Op::Release(user, stale)),
        1 => Just(Op::Purge),
        1 => Just(Op::LosePace),
    ]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..40)
}

// The invariants.

const TERMINAL: [&str; 3] = ["denied", "redeemed", "revoked"];

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // What a failure shrinks to becomes a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1024))]

    /// Answer by answer and record by record.
    #[test]
    fn the_core_does_what_the_tables_say(ops in ops()) {
        for (place, (event, wanted, record)) in play(&mut World::new(), &ops).into_iter().enumerate() {
            prop_assert_eq!(&event.outcome, &wanted, "operation {}: {:?} at {}", place, ops[place], event.now);
            prop_assert_eq!(&event.after, &record, "stored by operation {}: {:?} at {}", place, ops[place], event.now);
        }
    }
}

/// The lists of operations are worth playing: between them they reach every row that the core answers.
#[test]
fn the_operations_reach_every_row() {
    let mut runner = TestRunner::deterministic();
    let mut missing: Vec<&str> = vec![
        "C2",
        "C3",
        "C4 Duplicate",
        "C4 Replay",
        "C5",
        "C6",
        "C7",
        "C8",
        "C9 C10 C11",
        "C12 C13",
        "C14",
        "C15",
        "C16",
        "C17",
        "C18",
        "C19",
        "U1",
        "U2",
        "U2 malformed",
        "U3 decided",
        "U3 expired",
        "U3 claimed",
        "U4",
        "U5",
        "U6",
        "U7 U9 U11 U12",
        "U8",
        "U10",
        "U10 again",
        "U11 redeemed",
        "U11 undecided",
        "C18 503",
    ];
    for _ in 0..2000 {
        let ops = ops().new_tree(&mut runner).unwrap().current();
        for event in transcript(&ops) {
            let row = match event.outcome {
                Outcome::Quiet => continue,
                Outcome::Poll { told, .. } if told.row == "C18" && told.status == 503 => "C18 503",
                Outcome::Poll { told, .. } => told.row,
                Outcome::Page(Page::Refused(_)) => "U1",
                Outcome::Page(Page::Review) => "U4",
                Outcome::Page(Page::Done) => "U7 U9 U11 U12",
                Outcome::Page(Page::StandsAlready) => "U10 again",
                Outcome::Page(Page::WrongCode(row) | Page::Error(row)) => row,
            };
            missing.retain(|missing| *missing != row);
        }
    }
    assert!(missing.is_empty(), "no operation led to {missing:?}");
}

proptest! {
    #![proptest_config(config(128))]

    /// At most one success per session, over every interleaving of polls, decisions, withdrawals and purges.
    #[test]
    fn invariant_1_at_most_one_success(ops in ops()) {
        let events = transcript(&ops);
        let successes = events.iter().filter_map(Event::poll).filter(|(told, ..)| told.status == 200);
        prop_assert!(successes.count() <= 1);
    }

    #[test]
    fn invariant_2_no_pending_and_no_slow_down_from_expiry_on(ops in ops()) {
        for event in transcript(&ops) {
            if let Some((told, ..)) = event.poll() && event.now >= LIFETIME {
                let error = told.error.as_deref();
                prop_assert!(!matches!(error, Some("authorization_pending" | "slow_down")));
            }
        }
    }

    /// A stored terminal state and its answer never change until purge.
    #[test]
    fn invariant_3_a_terminal_state_and_its_answer_stand_until_purge(ops in ops()) {
        for event in transcript(&ops) {
            let state = event.before.state();
            if !TERMINAL.contains(&state) {
                continue;
            }
            if !event.after.session.is_null() {
                prop_assert_eq!(&event.before.session, &event.after.session);
            }
            if let Some((told, Client::Own, true)) = event.poll() {
                let wanted = if state == "denied" { "access_denied" } else { "invalid_grant" };
                prop_assert_eq!(told.error.as_deref(), Some(wanted));
                prop_assert_eq!(told.status, 400);
            }
        }
    }

    /// As long as no pace is lost, the interval never falls, never passes the cap, and starts at the advertised value.
    #[test]
    fn invariant_4_the_interval_starts_as_advertised_and_never_falls(ops in ops()) {
        let lossless: Vec<_> = ops.into_iter().filter_map(|op| match op {
            Op::LosePace => None,
            Op::Poll(polling) => Some(Op::Poll(Polling {
                stale: Stale { reads: 0, age: 0 },
                saves_pace: true,
                ..polling
            })),
            Op::Clock(_) | Op::Enter { .. } | Op::Approve(..) | Op::Deny(..) | Op::Withdraw(..)
            | Op::Release(..) | Op::Purge => Some(op),
        }).collect();
        let mut told_so_far = 2;
        for event in transcript(&lossless) {
            if event.before.pace.is_null() && !event.after.pace.is_null() {
                prop_assert_eq!(&event.after.pace["interval"], &json!(2));
            }
            for interval in [
                event.after.pace["interval"].as_i64(),
                event.poll().and_then(|(told, ..)| told.interval),
            ].into_iter().flatten() {
                prop_assert!((told_so_far..=11).contains(&interval));
                told_so_far = interval;
            }
        }
    }

    /// A poll never changes subject, scope, claimant or decision.
    #[test]
    fn invariant_6_a_poll_decides_nothing(ops in ops()) {
        for event in transcript(&ops) {
            if event.poll().is_none() {
                continue;
            }
            let (before, after) = (&event.before, &event.after);
            prop_assert_eq!(before.fixed(), after.fixed());
            prop_assert_eq!(before.claimant(), after.claimant());
            if before.session != after.session {
                prop_assert_eq!(before.state(), "approved");
                prop_assert!(matches!(after.state(), "redeemed" | "revoked"));
                prop_assert_eq!(before.grant(), after.grant());
            }
        }
    }

    /// A foreign client changes nothing and learns nothing: C2 and C3 are byte-identical.
    #[test]
    fn invariant_7_a_foreign_client_changes_and_learns_nothing(ops in ops()) {
        for event in transcript(&ops) {
            if let Outcome::Poll { bytes, by: Client::Foreign, .. } = &event.outcome {
                prop_assert_eq!(bytes, &invalid_grant_bytes());
                prop_assert_eq!(&event.before, &event.after);
            }
        }
    }

    /// While pending, no poll needs a guarded write, and a rejected poll after the first writes nothing.
    #[test]
    fn invariant_8_a_pending_poll_writes_its_pace_at_most(ops in ops()) {
        let mut rejected_before = false;
        for event in transcript(&ops) {
            let Some((told, _, fresh)) = event.poll() else {
                rejected_before &= event.before.pace == event.after.pace;
                continue;
            };
            if matches!(event.before.state(), "pending" | "claimed") {
                prop_assert_eq!(&event.before.session, &event.after.session);
            }
            let rejected = told.error.as_deref() == Some("slow_down");
            if rejected && rejected_before && fresh {
                prop_assert_eq!(&event.before.pace, &event.after.pace);
            }
            // Rejected, and the rejection was saved: the pace says so.
            rejected_before = if event.before.pace == event.after.pace {
                rejected_before
            } else {
                rejected
            };
        }
    }

    /// Nobody but the claimant decides, and the subject is the claimant.
    #[test]
    fn invariant_9_the_claimant_alone_decides_and_becomes_the_subject(ops in ops()) {
        let mut claimant: Option<String> = None;
        let events = transcript(&ops);
        for (op, event) in ops.iter().zip(&events) {
            let by = match op {
                Op::Enter { by, .. } | Op::Approve(by, ..) | Op::Deny(by, _)
                | Op::Withdraw(by, _) | Op::Release(by, _) => Some(subject(*by)),
                Op::Clock(_) | Op::Poll(_) | Op::Purge | Op::LosePace => None,
            };
            if event.before.session == event.after.session || event.after.session.is_null() {
                continue;
            }
            let by = by.as_ref().map(Subject::as_str);
            match event.after.state() {
                // Claimed by whoever entered; released by the claimant alone.
                "claimed" => claimant = by.map(str::to_owned),
                "pending" => {
                    prop_assert_eq!(by, claimant.as_deref());
                    claimant = None;
                }
                "approved" | "denied" => prop_assert_eq!(by, claimant.as_deref()),
                // By the claimant, or by the host at a poll.
                "redeemed" | "revoked" => prop_assert!(by.is_none() || by == claimant.as_deref()),
                other => panic!("{other} is no state"),
            }
            prop_assert_eq!(event.after.claimant(), claimant.as_deref());
        }
    }

    #[test]
    fn invariant_10_the_same_inputs_give_the_same_bytes(ops in ops()) {
        prop_assert_eq!(transcript(&ops), transcript(&ops));
    }

    /// No `Debug` shows a code, a secret or a token.
    #[test]
    fn invariant_11_nothing_that_is_formatted_shows_a_code_or_a_token(ops in ops()) {
        let mut world = World::new();
        world.shown = Some(String::new());
        let _ = play(&mut world, &ops);
        let shown = world.shown.take().unwrap();
        let codes = &world.codes;
        for secret in [&codes.device_code, &codes.user_code, &codes.user_code.replace('-', ""), ACCESS_TOKEN] {
            prop_assert!(!shown.contains(secret));
            prop_assert!(!shown.to_lowercase().contains(&secret.to_lowercase()));
        }
    }

    /// No input of any kind panics: any bytes as body, header and media type, through every step that they reach.
    #[test]
    fn invariant_11_no_request_panics(
        method in prop_oneof![9 => Just("POST".to_owned()), 1 => any::<String>()],
        media in prop_oneof![8 => Just(vec![support::FORM.as_bytes().to_vec()]), 1 => vec(vec(any::<u8>(), 0..40), 0..3)],
        headers in prop_oneof![8 => vec(header(), 0..2), 1 => vec(header(), 2..3)],
        body in body(),
        now in any::<i64>(),
    ) {
        let policy = policy();
        let clients = [cli(), backend()];
        let incoming = Incoming::new(&method, &body)
            .content_type(&media)
            .authorization(headers.iter().map(String::as_bytes));
        let now = moment(now);
        let mut shown = format!("{incoming:?}");
        if let Ok(form) = Form::read(incoming, &policy) {
            write!(shown, "{form:?}").unwrap();
            if let Ok(Grant::DeviceCode(request)) = form.grant() {
                write!(shown, "{request:?} {:?}", request.presented()).unwrap();
                let known = clients.iter().find(|own| Some(own.client_id()) == request.client_id());
                if let Ok(mut poll) = request.authenticate(known) {
                    write!(shown, "{poll:?}").unwrap();
                    let polled = poll.decide(None, now);
                    write!(shown, "{polled:?}").unwrap();
                }
            }
            if let Ok(request) = form.device_authorization() {
                let known = clients.iter().find(|own| Some(own.client_id()) == request.client_id());
                if let Ok(mut issuing) = request.authenticate(known) {
                    write!(shown, "{issuing:?}").unwrap();
                    if let Ok(issuance) = issuing.draw(support::entropy(5), &keys(), now) {
                        write!(shown, "{issuance:?}").unwrap();
                    }
                }
            }
        }
        prop_assert!(!shown.contains(SECRET));
    }

    /// No code that a user types panics.
    #[test]
    fn invariant_11_no_entry_panics(typed in any::<String>(), now in any::<i64>()) {
        let (policy, keys, user) = (policy(), keys(), alice());
        let mut entry = Entry::new(&typed, &user, &keys, &policy);
        let guess = entry.pay(None, moment(now)).unwrap();
        let paid = guess.settle(Written::Won).unwrap();
        prop_assert!(paid.user_keys().count() <= 1);
        prop_assert!(paid.enter(None, moment(now)).is_err());
    }

    /// No reading of the clock panics, and none makes an expired code pending.
    #[test]
    fn invariant_11_no_clock_reading_panics(issued in any::<i64>(), now in any::<i64>(), decided in any::<i64>()) {
        let (policy, client) = (policy(), cli());
        let mut store = Memory::new();
        let codes = support::issue(&mut store, &policy, &client, 1, moment(issued));
        let reply = support::poll(&mut store, &policy, &client, &codes.device_code, moment(now));
        let late = i128::from(now) - i128::from(issued) >= i128::from(LIFETIME);
        if late && reply.cause() == Cause::Pending {
            // At the end of the calendar the lifetime is cut, never prolonged.
            prop_assert!(moment(now) < store.load(&codes.key).unwrap().session.expires_at());
        }
        let session = &store.load(&codes.key).unwrap().session;
        let user = alice();
        let _ = session.approve(&user, session.scope(), HostValue::default(), &policy, moment(decided));
        let _ = session.deny(&user, moment(decided));
        let _ = store.purge(moment(decided));
    }
}

/// Any moment that the type at the border can tell: the number is folded into its range.
fn moment(millis: i64) -> time::OffsetDateTime {
    let least = time::Date::MIN.midnight().assume_utc();
    let most = time::Date::MAX.midnight().assume_utc();
    let span = (most - least).whole_milliseconds();
    let folded = i128::from(millis).rem_euclid(span);
    least + time::Duration::milliseconds(i64::try_from(folded).unwrap())
}

/// An `Authorization` header: any, or one that is nearly right.
fn header() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[Bb]asic [A-Za-z0-9+/]{0,20}={0,2}",
        "(client_backend|client_cli|%6|é)(:|)(7Fjfp0ZBr1KtDRbnfVdmIw|)".prop_map(|pair| {
            let (id, secret) = pair.split_once(':').unwrap_or((&pair, ""));
            support::basic(id, secret)
        }),
    ]
}

/// A body: any bytes, or parameters that are nearly right.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        6 => select(vec![
            "grant_type", "device_code", "client_id", "client_secret", "scope", "client_assertion",
            "client_assertion_type", "resource", "%67rant_type",
        ]).prop_map(str::to_owned),
        1 => "[a-z%&=+]{0,8}",
    ];
    let value = prop_oneof![
        4 => select(vec![
            support::GRANT, "urn:ietf:params:oauth:grant-type:device_code", support::CLI,
            support::BACKEND, SECRET, support::NO_CODE, "openid+profile", "",
        ]).prop_map(str::to_owned),
        1 => "[ -~é]{0,50}",
    ];
    let parameter = (name, value).prop_map(|(name, value)| format!("{name}={value}"));
    prop_oneof![
        1 => vec(any::<u8>(), 0..200),
        6 => vec(parameter, 0..8).prop_map(|parameters| parameters.join("&").into_bytes()),
    ]
}

// Pacing, as one device sees it.

/// Polls at the moments that `gap` gives after the interval told, and hands each answer on.
fn device(policy: Policy, mut gap: impl FnMut(u64) -> u64, mut told: impl FnMut(u64, Cause)) {
    let mut login = login::Login::of(policy, cli());
    let mut interval = login.policy.interval().as_secs();
    let mut now = gap(0);
    for _ in 0..300 {
        let reply = login.poll(i64::try_from(now).unwrap()).reply;
        told(now, reply.cause());
        if let Some(wider) = reply.response().header("retry-after") {
            interval = wider.parse().unwrap();
        }
        now += gap(interval);
    }
}

/// Any policy that paces, with the longest lifetime, and its cap in milliseconds.
fn pacing() -> impl Strategy<Value = (Policy, u64)> {
    (1_u64..=60, 5_u64..=20, 0_u64..=60).prop_map(|(interval, step, room)| {
        let cap = interval + room;
        let policy = builder()
            .interval(Duration::from_secs(interval))
            .step(Duration::from_secs(step))
            .cap(Duration::from_secs(cap))
            .lifetime(Duration::from_hours(24))
            .guess_limit(Limit::new(5, Duration::from_hours(1)).unwrap())
            .build();
        (policy.unwrap(), cap * 1000)
    })
}

proptest! {
    #![proptest_config(config(48))]

    /// A lone poller whose gaps are at least the interval it was told is never slowed down.
    #[test]
    fn invariant_5_a_poller_that_keeps_its_interval_is_never_slowed_down(
        (policy, _) in pacing(),
        late in vec(prop_oneof![Just(0_u64), Just(1), 0_u64..5000], 1..20),
    ) {
        let mut late = late.into_iter().cycle();
        device(policy, |interval| interval * 1000 + late.next().unwrap(), |now, cause| {
            assert!(matches!(cause, Cause::Pending | Cause::Expired), "{cause:?} at {now}");
        });
    }

    /// The tolerance holds for a clock that is a quarter fast, whatever the interval.
    #[test]
    fn invariant_5_a_poller_whose_clock_is_fast_is_never_slowed_down((policy, _) in pacing()) {
        device(policy, |interval| interval * 750, |now, cause| {
            assert!(matches!(cause, Cause::Pending | Cause::Expired), "{cause:?} at {now}");
        });
    }

    /// A lone fixed-rate poller is accepted within the cap plus one of its own gaps.
    #[test]
    fn invariant_5_a_fixed_rate_poller_gets_through(
        (policy, cap) in pacing(),
        gap in prop_oneof![500_u64..70_000, select(vec![999_u64, 1000, 3749, 3750, 5000, 60_000])],
    ) {
        let mut last = 0;
        device(policy, |_| gap, |now, cause| {
            if cause == Cause::Pending {
                last = now;
            } else if cause == Cause::TooFast {
                assert!(now - last <= cap + gap, "{now} after {last}");
            } else {
                assert_eq!(cause, Cause::Expired);
            }
        });
    }
}
