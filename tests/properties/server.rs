//! The invariants of the server half, over random lists of operations.
//!
//! Each list is played twice: by the crate, with its embedded store and a host that behaves as the operations say, and by the
//! [oracle](oracle), a model that is written from the tables. The test compares every answer and every record. Other tests check the
//! invariants on what the crate did, without the oracle. A failing list is shrunk to a short one.

use core::time::Duration;

use device_flow::server::{Cause, Consent, Policy, PolicyOptions, RateLimit, Request, Subject};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::support::login::{self, invalid_grant_bytes};
use crate::support::oracle::{
    self, ASKED, Client, Commit, How, LIFETIME, Page, Part, Registered, Stale, Token, Typed, User,
    Verdict,
};
use crate::support::world::{Asked, Clock, Event, Op, Outcome, World, play, subject, transcript};
use crate::support::{
    self, ACCESS_TOKEN, Host, SECRET, SOURCE, alice, backend, cli, error_body, policy_of, server,
};

// The operations, drawn at random.

fn clock() -> impl Strategy<Value = Clock> {
    let edge = || -1_i64..=1;
    prop_oneof![
        3 => prop_oneof![0_i64..20_000, -20_000_i64..0, Just(0), Just(1), Just(-1)].prop_map(Clock::By),
        4 => edge().prop_map(Clock::PollDue),
        2 => edge().prop_map(Clock::WholeInterval),
        1 => edge().prop_map(Clock::LastAcceptedPoll),
        2 => edge().prop_map(Clock::EndOfRepetition),
        2 => edge().prop_map(Clock::Expiry),
        1 => (-4001_i64..=1).prop_map(Clock::Expiry),
        2 => edge().prop_map(Clock::EndOfRedeemTime),
        2 => edge().prop_map(Clock::EndOfRetryWindow),
        1 => edge().prop_map(Clock::PurgeTime),
        4 => edge().prop_map(Clock::EndOfGrace),
        2 => edge().prop_map(Clock::IdleEnd),
        1 => edge().prop_map(Clock::AbsoluteEnd),
    ]
}

fn how() -> impl Strategy<Value = How> {
    let verdict = prop_oneof![
        12 => Just(Verdict::Mints),
        1 => Just(Verdict::CheckFails),
        1 => Just(Verdict::ConsentGone),
        1 => Just(Verdict::MintingFails),
    ];
    let commit = prop_oneof![
        8 => Just(Commit::Heard),
        1 => Just(Commit::UnheardButDone),
        1 => Just(Commit::UnheardAndNotDone),
    ];
    let stale = prop_oneof![
        3 => Just(Stale::FRESH),
        1 => (1_u8..=4, 1_u8..=6).prop_map(|(reads, age)| Stale { reads, age }),
    ];
    let rivals = prop_oneof![9 => Just(0_u8), 1 => 1_u8..=5];
    let down = prop_oneof![
        16 => Just(None),
        1 => select(vec![Part::Registry, Part::Quotas, Part::Sessions, Part::Generator]).prop_map(Some),
    ];
    let saves_pace = prop_oneof![7 => Just(true), 1 => Just(false)];
    let how = (verdict, commit, stale, rivals, down, saves_pace);
    how.prop_map(|(verdict, commit, stale, rivals, down, saves_pace)| How {
        verdict,
        commit,
        stale,
        rivals,
        down,
        saves_pace,
    })
}

fn token() -> impl Strategy<Value = Token> {
    prop_oneof![
        8 => Just(Token::Sent(0)),
        4 => Just(Token::Sent(1)),
        2 => (2_u8..5).prop_map(Token::Sent),
        1 => Just(Token::OfAnotherLogin),
        1 => Just(Token::Forged),
        1 => Just(Token::Malformed),
    ]
}

fn registered() -> impl Strategy<Value = Registered> {
    prop_oneof![
        4 => Just(Registered::For(ASKED)),
        4 => select(vec!["openid", "profile offline_access", "email", "offline_access openid"])
            .prop_map(Registered::For),
        1 => Just(Registered::WithoutDeviceGrant),
        1 => Just(Registered::Disabled),
        1 => Just(Registered::Removed),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let user = || prop_oneof![3 => Just(User::Alice), 1 => Just(User::Bob)];
    let by = || prop_oneof![9 => Just(Client::Own), 1 => Just(Client::Foreign)];
    let typed =
        prop_oneof![6 => Just(Typed::Right), 1 => Just(Typed::Wrong), 1 => Just(Typed::Malformed)];
    let scope = prop_oneof![
        6 => Just(ASKED),
        1 => Just("openid offline_access"),
        1 => select(vec!["openid", "offline_access profile openid", "openid admin", ""]),
    ];
    let narrowed = prop_oneof![
        6 => Just(None),
        2 => select(vec!["openid", "offline_access openid", "profile", ASKED]).prop_map(Some),
        1 => select(vec!["openid admin", "profile  openid", "open\"id"]).prop_map(Some),
    ];
    prop_oneof![
        12 => clock().prop_map(Op::Clock),
        8 => (by(), how()).prop_map(|(by, how)| Op::Poll(by, how)),
        12 => (by(), token(), narrowed, how())
            .prop_map(|(by, token, scope, how)| Op::Refresh(by, token, scope, how)),
        1 => (by(), token(), how()).prop_map(|(by, token, how)| Op::Revoke(by, token, how)),
        4 => (user(), typed, how()).prop_map(|(by, typed, how)| Op::Enter(by, typed, how)),
        3 => (user(), scope, how()).prop_map(|(user, scope, how)| Op::Approve(user, scope, how)),
        1 => (user(), how()).prop_map(|(user, how)| Op::Deny(user, how)),
        1 => (user(), how()).prop_map(|(user, how)| Op::Withdraw(user, how)),
        1 => (user(), how()).prop_map(|(user, how)| Op::Release(user, how)),
        1 => registered().prop_map(Op::Register),
        1 => Just(Op::Purge),
        1 => Just(Op::LosePace),
    ]
}

/// One operation, or a sequence that single operations hardly ever form: a refresh that reads an old record at the end of the grace, or a
/// refresh at the end of the login.
fn fragment() -> impl Strategy<Value = Vec<Op>> {
    let refresh = |ago, how| Op::Refresh(Client::Own, Token::Sent(ago), None, how);
    let edge = || -1_i64..=1;
    let late = (edge(), 1_u8..=3, 1_u8..=3).prop_map(move |(edge, reads, age)| {
        let stale = Stale { reads, age };
        vec![
            refresh(0, How::WELL),
            Op::Clock(Clock::EndOfGrace(edge)),
            refresh(1, How { stale, ..How::WELL }),
        ]
    });
    let ends = prop_oneof![
        edge().prop_map(Clock::IdleEnd),
        edge().prop_map(Clock::AbsoluteEnd),
    ];
    let at_an_end = ends.prop_map(move |end| vec![Op::Clock(end), refresh(0, How::WELL)]);
    prop_oneof![
        20 => op().prop_map(|op| vec![op]),
        1 => late,
        1 => at_an_end,
    ]
}

/// The shortest way to the tokens.
const TO_TOKENS: [Op; 4] = [
    Op::Poll(Client::Own, How::WELL),
    Op::Enter(User::Alice, Typed::Right, How::WELL),
    Op::Approve(User::Alice, ASKED, How::WELL),
    Op::Poll(Client::Own, How::WELL),
];

/// Any operations; half of the lists begin with the way to the tokens.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    (any::<bool>(), vec(fragment(), 1..40)).prop_map(|(has_tokens, ops)| {
        let first = if has_tokens { &TO_TOKENS[..] } else { &[] };
        [first, &ops.concat()].concat()
    })
}

// The invariants.

const TERMINAL: [&str; 2] = ["denied", "ended"];

/// The rows that are decided before anything is loaded.
const BEFORE_LOADING: [&str; 4] = ["B2", "B7", "B9", "B8 C1 R14"];

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        // The list to which a failure shrinks becomes a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1536))]

    /// Compares every answer and every record.
    #[test]
    fn the_core_does_what_the_tables_say(ops in ops()) {
        for (place, (event, wanted, record)) in play(&mut World::new(), &ops).into_iter().enumerate() {
            prop_assert_eq!(&event.outcome, &wanted, "operation {}: {:?} at {}", place, ops[place], event.now);
            prop_assert_eq!(&event.after, &record, "stored by operation {}: {:?} at {}", place, ops[place], event.now);
        }
    }
}

/// The random lists are worth playing, because together they reach every row that the crate answers.
#[test]
fn the_operations_reach_every_row() {
    let mut runner = TestRunner::deterministic();
    let mut missing: Vec<&str> = vec![
        "B2",
        "B7",
        "B8 C1 R14",
        "B9",
        "C2",
        "C3 R3",
        "C4 Duplicate",
        "C4 Replay",
        "C5 R4",
        "C6",
        "C7",
        "C8",
        "C9 C10 C11",
        "C12 C13",
        "C14",
        "C15 R11",
        "C16 R12",
        "C17",
        "C18",
        "C18 R13 R18 503",
        "C19 R14",
        "C20",
        "R2",
        "R5",
        "R6 R8",
        "R7 R10",
        "R9",
        "R quota",
        "R16",
        "R17",
        "U1",
        "U2",
        "U2 malformed",
        "U3 decided",
        "U3 expired",
        "U3 claimed",
        "U4",
        "U5",
        "U6",
        "U7 U9 U10 U11 U12",
        "U8",
        "U10",
        "U11 undecided",
        "U14",
        "unavailable",
    ];
    for _ in 0..2000 {
        let ops = ops().new_tree(&mut runner).unwrap().current();
        for event in transcript(&ops) {
            let row = match event.outcome {
                Outcome::Quiet => continue,
                Outcome::Reply { told, .. } => told.row,
                Outcome::Page(Page::RateLimited(_)) => "U1",
                Outcome::Page(Page::Review) => "U4",
                Outcome::Page(Page::Done) => "U7 U9 U10 U11 U12",
                Outcome::Page(Page::WrongCode(row) | Page::Error(row)) => row,
            };
            missing.retain(|missing| *missing != row);
        }
    }
    assert!(missing.is_empty(), "no operation led to {missing:?}");
}

proptest! {
    #![proptest_config(config(128))]

    /// At most one success per code, over every interleaving of polls, decisions, withdrawals and purges.
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

    /// A stored terminal state and its answer never change until purge. An active login stays active or ends.
    #[test]
    fn invariant_3_a_terminal_state_and_its_answer_stand_until_purge(ops in ops()) {
        for event in transcript(&ops) {
            let state = event.before.state();
            if state == "active" {
                prop_assert!(matches!(event.after.state(), "active" | "ended" | ""));
            }
            if !TERMINAL.contains(&state) {
                continue;
            }
            if !event.after.session.is_null() {
                prop_assert_eq!(&event.before.session, &event.after.session);
            }
            if let Some((told, Client::Own, true)) = event.poll()
                && !BEFORE_LOADING.contains(&told.row)
            {
                let wanted = if state == "denied" { "access_denied" } else { "invalid_grant" };
                prop_assert_eq!(told.error.as_deref(), Some(wanted));
                prop_assert_eq!(told.status, 400);
            }
        }
    }

    /// As long as no pace is lost, the interval never falls, never passes the cap, and starts at the advertised value.
    #[test]
    fn invariant_4_the_interval_starts_as_advertised_and_never_falls(ops in ops()) {
        let lossless = ops.into_iter().filter_map(|op| match op {
            Op::LosePace => None,
            Op::Poll(by, how) => Some(Op::Poll(by, How {
                stale: Stale::FRESH,
                saves_pace: true,
                ..how
            })),
            Op::Clock(_) | Op::Refresh(..) | Op::Revoke(..) | Op::Enter(..) | Op::Approve(..) | Op::Deny(..)
            | Op::Withdraw(..) | Op::Release(..) | Op::Register(_) | Op::Purge => Some(op),
        });
        let mut told_so_far = 3;
        for event in transcript(&lossless.collect::<Vec<_>>()) {
            if event.before.pace.is_null() && !event.after.pace.is_null() {
                prop_assert_eq!(&event.after.pace["interval"], &json!(3));
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

    /// A poll never changes subject, scope, claimant or decision. A refresh and a revocation do not, either.
    #[test]
    fn invariant_6_a_poll_decides_nothing(ops in ops()) {
        for event in transcript(&ops) {
            let Some((asked, ..)) = event.reply() else {
                continue;
            };
            let (before, after) = (&event.before, &event.after);
            prop_assert_eq!(before.fixed(), after.fixed());
            prop_assert_eq!(before.claimant(), after.claimant());
            if before.session != after.session {
                let is_approved = asked == Asked::Poll && before.state() == "approved";
                prop_assert!(is_approved || before.state() == "active");
                prop_assert!(matches!(after.state(), "active" | "ended"));
                prop_assert_eq!(before.approval(), after.approval());
            }
        }
    }

    /// A foreign client changes nothing and learns nothing: C2 and C3 are byte-identical, and so are R2 and R3.
    #[test]
    fn invariant_7_a_foreign_client_changes_and_learns_nothing(ops in ops()) {
        for event in transcript(&ops) {
            if let Outcome::Reply { asked, told, bytes, by: Client::Foreign, .. } = &event.outcome {
                prop_assert_eq!(&event.before, &event.after);
                let mut wanted = invalid_grant_bytes();
                if *asked == Asked::Refresh {
                    wanted.2 = error_body("invalid_grant", "the refresh token is not valid");
                }
                if told.status == 503 {
                    prop_assert_eq!(told.row, "B8 C1 R14");
                } else if *asked == Asked::Revoke {
                    prop_assert_eq!((bytes.0, &*bytes.2), (200, ""));
                } else {
                    prop_assert_eq!(bytes, &wanted);
                }
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
            if rejected && rejected_before && fresh || told.row == "C20" {
                prop_assert_eq!(&event.before.pace, &event.after.pace);
            }
            // Whether the pace says that the last poll was rejected.
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
                Op::Enter(by, ..) | Op::Approve(by, ..) | Op::Deny(by, _)
                | Op::Withdraw(by, _) | Op::Release(by, _) => Some(subject(*by)),
                Op::Clock(_) | Op::Poll(..) | Op::Refresh(..) | Op::Revoke(..) | Op::Register(_)
                | Op::Purge | Op::LosePace => None,
            };
            if event.before.session == event.after.session || event.after.session.is_null() {
                continue;
            }
            let by = by.as_ref().map(Subject::as_str);
            match event.after.state() {
                // Anybody who enters the code claims it. Only the claimant releases it.
                "claimed" => claimant = by.map(str::to_owned),
                "pending" => {
                    prop_assert_eq!(by, claimant.as_deref());
                    claimant = None;
                }
                "approved" | "denied" => prop_assert_eq!(by, claimant.as_deref()),
                "active" => prop_assert_eq!(by, None),
                // Ended by the claimant, or by a request of a client.
                "ended" => prop_assert!(by.is_none() || by == claimant.as_deref()),
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
        let shown = world.shown.take().unwrap().to_lowercase();
        let codes = &world.codes;
        let codes = [&codes.device_code, &codes.user_code, &codes.user_code.replace('-', "")];
        let codes = codes.into_iter().map(String::as_str);
        // The first 32 of the 80 octets of a refresh token are the key of the session, which may be logged. The rest must not be shown.
        let tokens = world.sent.iter().map(|token| &token[43..]);
        for secret in codes.chain(tokens).chain([ACCESS_TOKEN]) {
            prop_assert!(!shown.contains(&secret.to_lowercase()));
        }
    }

    /// No input of any kind causes a panic: any bytes as body, header and media type, at every endpoint.
    #[test]
    fn invariant_11_no_request_panics(
        method in prop_oneof![9 => Just("POST".to_owned()), 1 => any::<String>()],
        media in prop_oneof![8 => Just(vec![support::FORM.as_bytes().to_vec()]), 1 => vec(vec(any::<u8>(), 0..40), 0..3)],
        headers in prop_oneof![8 => vec(header(), 0..2), 1 => vec(header(), 2..3)],
        body in body(),
        now in any::<i64>(),
    ) {
        let server = server();
        let mut host = Host::new([cli(), backend()]);
        let request = Request::new(&method, &body)
            .content_type(&media)
            .authorization(headers.iter().map(String::as_bytes));
        let now = moment(now);
        let replies = [
            host.run(server.token(request, SOURCE, now)),
            host.run(server.device_authorization(request, SOURCE, None, now)),
            host.run(server.revocation(request, SOURCE, now)),
        ];
        let client = host.run(server.authenticate(request, SOURCE, now));
        let shown = format!("{request:?} {replies:?} {client:?}");
        prop_assert!(!shown.contains(SECRET));
    }

    /// No text that a user types causes a panic.
    #[test]
    fn invariant_11_no_entry_panics(typed in any::<String>(), now in any::<i64>()) {
        let mut host = Host::new([cli()]);
        let entered = host.run(server().enter(&typed, &alice(), &typed, moment(now)));
        prop_assert!(entered.is_err_and(|error| error.is_wrong_code()));
    }

    /// No clock reading causes a panic, or makes an expired code pending.
    #[test]
    fn invariant_11_no_clock_reading_panics(readings in any::<[i64; 6]>()) {
        let [issued, polled, entered, decided, redeemed, refreshed] = readings;
        let (server, user) = (server(), alice());
        let client = cli().allow_scope(ASKED.parse().unwrap());
        let mut host = Host::new([client.clone()]);
        let codes = host.issue_for(&server, &client, 1, "openid+offline_access", moment(issued));
        let reply = host.poll(&server, &client, &codes.device_code, moment(polled));
        let late = i128::from(polled) - i128::from(issued) >= i128::from(LIFETIME);
        if late && reply.cause() == Cause::Pending {
            // `moment` folds the numbers, so only the moments themselves say whether the code has expired.
            prop_assert!(moment(polled) < host.session(&codes.key).unwrap().expires_at());
        }
        let entered = moment(entered);
        let _ = host.claim(&server, &user, &codes.user_code, entered);
        let consent = Consent::to_all();
        let _ = host.run(server.approve(&codes.key, &user, &consent, moment(decided)));
        let reply = host.poll(&server, &client, &codes.device_code, moment(redeemed));
        if reply.cause() == Cause::Granted {
            let token = support::refresh_token(&reply);
            let _ = host.refresh(&server, &client, &token, moment(refreshed));
            let _ = host.refresh(&server, &client, &token, moment(issued));
            let _ = host.revoke(&server, &client, &token, moment(polled));
        }
        let _ = host.run(server.deny(&codes.key, &user, moment(decided)));
        let _ = host.run(server.withdraw(&codes.key, &user, moment(decided)));
        let _ = host.store.purge(moment(decided));
    }

    // The invariants of the refresh.

    /// After the end of a login, purged or not, no refresh and no other request gets tokens.
    #[test]
    fn refresh_1_no_tokens_after_the_end(ops in ops()) {
        let mut is_over = false;
        for event in transcript(&ops) {
            is_over |= TERMINAL.contains(&event.before.state());
            let Some((asked, told, by, _)) = event.reply() else {
                continue;
            };
            let grants = told.status == 200 && asked != Asked::Revoke;
            prop_assert!(!grants || !is_over && by == Client::Own);
            if grants && asked == Asked::Refresh {
                prop_assert_eq!((event.before.state(), event.after.state()), ("active", "active"));
                let (before, after) = (event.before.rotation(), event.after.rotation());
                prop_assert_ne!(&before["current"], &after["current"]);
            }
        }
    }

    /// Of all refresh tokens that were ever sent, at most one is valid after a pause that is longer than the grace.
    #[test]
    fn refresh_2_after_the_grace_one_token_is_good_at_most(ops in ops()) {
        let ops = [&ops[..], &[Op::Register(Registered::For(ASKED))]].concat();
        let events = transcript(&ops);
        let last = events.iter().map(|event| event.now).max().unwrap_or(0);
        // By then all quotas are full again, too.
        let quiet = last + oracle::GRACE + oracle::REFRESHES.0 * oracle::REFRESHES.1;
        let mut good = 0;
        for ago in 0..5 {
            let mut world = World::new();
            let _ = play(&mut world, &ops);
            let refresh = Op::Refresh(Client::Own, Token::Sent(ago), None, How::WELL);
            let Outcome::Reply { told, .. } = world.play(refresh, quiet) else {
                panic!("a refresh has an answer")
            };
            good += usize::from(told.status == 200);
        }
        prop_assert!(good <= 1);
    }

    /// If a thief has the token of the owner and both of them use it, the login ends. The one who refreshed first then holds a void token,
    /// and the next use of that token ends the login.
    #[test]
    fn refresh_3_a_thief_and_the_owner_who_both_refresh_end_the_login(
        turns in vec((any::<bool>(), prop_oneof![0..2 * oracle::GRACE, select(vec![0, 1, oracle::GRACE - 1, oracle::GRACE])]), 1..12),
    ) {
        let mut world = World::new();
        let _ = play(&mut world, &TO_TOKENS);
        // For each of the two: the place of its token among those that were sent, and how often it was answered.
        let (mut held, mut answered) = ([0, 0], [0, 0]);
        let mut loser = None;
        let mut now = 0;
        for (who, gap) in turns {
            now += gap;
            let who = usize::from(who);
            let ago = u8::try_from(world.sent.len() - 1 - held[who]).unwrap();
            let refresh = Op::Refresh(Client::Own, Token::Sent(ago), None, How::WELL);
            let Outcome::Reply { told, .. } = world.play(refresh, now) else {
                panic!("a refresh has an answer")
            };
            if told.status == 429 {
                continue;
            }
            if told.status == 200 {
                prop_assert_ne!(loser, Some(who));
                held[who] = world.sent.len() - 1;
                if answered[who] == 0 && answered[1 - who] > 0 {
                    loser = Some(1 - who);
                }
            } else {
                prop_assert!(is_over(&mut world, now));
            }
            answered[who] += 1;
        }
        prop_assert!(answered.iter().any(|times| *times < 2) || is_over(&mut world, now));
    }

    /// A refresh whose answer was lost may be sent again within the grace, whatever became of it at the server. That never ends the login.
    #[test]
    fn refresh_4_a_lost_answer_that_is_sent_again_within_the_grace_ends_nothing(
        rounds in vec((vec(how(), 0..3), 0_u8..3, 1_u8..4, 0..oracle::GRACE), 1..6),
    ) {
        let mut world = World::new();
        let _ = play(&mut world, &TO_TOKENS);
        // These operations fill the history, so that a stale read is not older than the redemption.
        let _ = [0; 4].map(|past| world.play(Op::Clock(Clock::By(past)), 0));
        let mut now = 0;
        for (lost, reads, age, gap) in rounds {
            let held = world.sent.len();
            let first = now;
            let last = How { stale: Stale { reads, age }, ..How::WELL };
            let hows = lost.into_iter().filter(|how| how.verdict != Verdict::ConsentGone && how.rivals == 0);
            let hows: Vec<_> = hows.chain([last]).collect();
            let steps = i64::try_from(hows.len()).unwrap();
            for (step, how) in (1..).zip(hows) {
                let ago = u8::try_from(world.sent.len() - held).unwrap();
                let how = How { stale: Stale { reads: how.stale.reads.min(2), age: how.stale.age.min(3) }, ..how };
                let refresh = Op::Refresh(Client::Own, Token::Sent(ago), None, how);
                let Outcome::Reply { told, .. } = world.play(refresh, now) else {
                    panic!("a refresh has an answer")
                };
                prop_assert_ne!(told.error.as_deref(), Some("invalid_grant"));
                if step == steps {
                    prop_assert_eq!(told.status, 200);
                } else {
                    now = first + gap * step / steps;
                }
            }
            now += oracle::REFRESHES.0 * oracle::REFRESHES.1;
        }
    }

    /// A revocation that was answered with 200 has ended the login.
    #[test]
    fn refresh_5_a_revoked_login_is_over(ops in ops()) {
        let events = transcript(&ops);
        let mut any_sent = false;
        for (op, event) in ops.iter().zip(&events) {
            if let Op::Revoke(Client::Own, Token::Sent(0), _) = op
                && let Some((_, told, _, true)) = event.reply()
                && told.status == 200
            {
                prop_assert!(!any_sent || matches!(event.after.state(), "ended" | ""));
            }
            any_sent |= event.reply().is_some_and(|(_, told, ..)| told.has_refresh_token);
        }
    }
}

/// Returns whether a poll with the code finds the login ended.
fn is_over(world: &mut World, now: i64) -> bool {
    let Outcome::Reply { told, .. } = world.play(Op::Poll(Client::Own, How::WELL), now) else {
        panic!("a poll has an answer")
    };
    told.row == "C5 R4"
}

/// Returns a moment for any number, which is folded into the range of `OffsetDateTime`.
fn moment(millis: i64) -> time::OffsetDateTime {
    let least = time::Date::MIN.midnight().assume_utc();
    let most = time::Date::MAX.midnight().assume_utc();
    let span = (most - least).whole_milliseconds();
    let folded = i128::from(millis).rem_euclid(span);
    least + time::Duration::milliseconds(i64::try_from(folded).unwrap())
}

/// An `Authorization` header: any text, or one that is nearly right.
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
            "client_assertion_type", "resource", "%67rant_type", "refresh_token", "token",
        ]).prop_map(str::to_owned),
        1 => "[a-z%&=+]{0,8}",
    ];
    let value = prop_oneof![
        4 => select(vec![
            support::GRANT, "urn:ietf:params:oauth:grant-type:device_code", support::CLI,
            support::BACKEND, SECRET, support::NO_CODE, "openid+profile", "", "refresh_token",
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

/// Polls 300 times. `gap` gets the interval in force in seconds, and returns the time until the next poll in milliseconds. `told` gets each
/// answer.
fn device(policy: Policy, mut gap: impl FnMut(u64) -> u64, mut told: impl FnMut(u64, Cause)) {
    let mut login = login::Login::of(policy, cli());
    let mut interval = login.server.policy().options().interval.as_secs();
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

/// Policies with any interval and any cap, and the longest lifetime. Each comes with its cap in milliseconds.
fn pacing() -> impl Strategy<Value = (Policy, u64)> {
    (1_u64..=60, 0_u64..=240).prop_map(|(interval, room)| {
        let cap = interval + room;
        let options = PolicyOptions {
            interval: Duration::from_secs(interval),
            cap: Duration::from_secs(cap),
            lifetime: Duration::from_hours(24),
            guess_limit: RateLimit::new(5, Duration::from_hours(1)).unwrap(),
            ..PolicyOptions::default()
        };
        (policy_of(options), cap * 1000)
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

    /// A device that polls after three quarters of its interval, because its clock is fast, is within the tolerance, whatever the interval.
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
            } else if matches!(cause, Cause::TooFast | Cause::Repeated) {
                assert!(now - last <= cap + gap, "{now} after {last}");
            } else {
                assert_eq!(cause, Cause::Expired);
            }
        });
    }
}
