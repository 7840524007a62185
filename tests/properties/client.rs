//! The invariants of the client half, tested against oracles that are written from the decision tables.

use core::time::Duration;

use device_flow::client::{
    DisplayText, Login, LoginError, Next, Response, Snapshot, Tokens, TransportError, Verdict,
    WaitingFor, verdict,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::client::{ISSUED, POLL, SLOW_DOWN, flow, ok, over, s, sends, start_at};

/// Signed milliseconds, in a type so large that the oracle never overflows.
type Millis = i128;

const SECOND: Millis = 1000;

fn span(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis.max(0)).unwrap())
}

fn millis(span: Duration) -> Millis {
    i128::try_from(span.as_millis()).unwrap()
}

/// A model of the schedule of the polls, as table P has it, and nothing else.
#[derive(Clone, Debug)]
struct Oracle {
    t: Millis,
    deadline: Millis,
    lifetime: Millis,
    floor: Millis,
    k: u32,
    /// When the next poll is due, without the margin.
    next: Millis,
    margin: Millis,
    final_poll: bool,
    final_sent: bool,
    lost: bool,
    cause: Option<WaitingFor>,
    /// After a restart for which the elapsed time is unknown: whether the last poll was permitted before the restart.
    settled: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
enum Said {
    Wait(Millis),
    Send,
    Expired(Option<WaitingFor>),
}

impl Oracle {
    fn clock(&mut self, now: Millis) {
        // A reading that is earlier than the last one counts as the last one.
        self.t = self.t.max(now);
    }

    /// Returns whether the last poll is still permitted. It goes out at the deadline or later, but not later than the deadline plus max(2 *
    /// floor, 60 s), and not if the floor is longer than the lifetime. The margin, which the caller adds, does not count.
    fn final_permitted(&self) -> bool {
        if let Some(permitted) = self.settled {
            return permitted && !self.final_sent;
        }
        let moment = self.next.max(self.deadline);
        self.final_poll
            && !self.final_sent
            && moment <= self.deadline + (2 * self.floor).max(60 * SECOND)
            && self.floor <= self.lifetime
    }

    fn ask(&mut self) -> Said {
        let due = self.next + self.margin;
        if self.t >= self.deadline {
            if !self.final_permitted() {
                return Said::Expired(self.cause);
            }
            if self.t >= due {
                self.final_sent = true;
                return Said::Send;
            }
            return Said::Wait(due);
        }
        if self.t >= due {
            return Said::Send;
        }
        if due < self.deadline || self.final_permitted() {
            Said::Wait(due)
        } else {
            Said::Wait(self.deadline)
        }
    }

    /// Plans the next poll: the gap or `Retry-After` after the last answer or failure, whichever is longer.
    fn plan(&mut self, retry_after: Option<Millis>) {
        let gap = (self.floor * 2_i128.pow(self.k.min(60))).min((2 * self.floor).max(60 * SECOND));
        let pause = retry_after
            .unwrap_or(0)
            .min((self.deadline - self.t).max(0));
        self.next = self.t + gap.max(pause);
        self.margin = 0;
        self.settled = None;
    }

    fn raise(&mut self, floor: Millis, told: Option<Millis>) {
        self.floor = floor.max(told.unwrap_or(0).min(3600 * SECOND));
    }

    /// Takes an answer that does not end the login by itself. Returns whether the login goes on.
    fn go_on(&mut self, answer: &Answer, retry_after: Option<Millis>) -> bool {
        match answer {
            Answer::Pending(told) => {
                self.k = 0;
                self.raise(self.floor, told.map(|told| i128::from(told) * SECOND));
                self.cause = Some(WaitingFor::User);
            }
            Answer::SlowDown(told) => {
                self.k = 0;
                self.raise(
                    self.floor + 5 * SECOND,
                    told.map(|told| i128::from(told) * SECOND),
                );
                self.cause = Some(WaitingFor::SlowDown);
            }
            Answer::Transient(status) => {
                self.k += 1;
                // Tokens may be lost with a 5xx, of the server or of a gateway, and with a 2xx that is cut short.
                self.lost |= *status != 429;
                self.cause = Some(WaitingFor::Server(*status));
            }
            Answer::Lost(failure) => {
                self.k += 1;
                self.lost = true;
                self.cause = Some(WaitingFor::Connection(*failure));
            }
            Answer::Ends(_) => panic!("not asked for these"),
        }
        if self.final_sent {
            return false;
        }
        self.plan(retry_after);
        true
    }
}

#[derive(Clone, Debug)]
enum Answer {
    Pending(Option<u32>),
    SlowDown(Option<u32>),
    Transient(u16),
    Lost(TransportError),
    Ends(Ending),
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Tokens,
    Denied,
    Expired,
    InvalidGrant,
    Rejected,
    Redirect,
    Malformed,
    Permanent,
}

impl Answer {
    fn told(&self, retry_after: Option<u32>) -> Result<Response<String>, TransportError> {
        let (status, body) = match self {
            Self::Pending(told) => (
                400,
                json!({"error": "authorization_pending", "interval": told}),
            ),
            Self::SlowDown(told) => (400, json!({"error": "slow_down", "interval": told})),
            Self::Transient(200) => {
                return Ok(paused(
                    Response::new(200, "{\"access_token".into()),
                    retry_after,
                ));
            }
            Self::Transient(status) => (*status, json!({})),
            Self::Lost(failure) => return Err(*failure),
            Self::Ends(ending) => match ending {
                Ending::Tokens => (200, json!({"access_token": "a"})),
                Ending::Denied => (400, json!({"error": "access_denied"})),
                Ending::Expired => (400, json!({"error": "expired_token"})),
                Ending::InvalidGrant => (400, json!({"error": "invalid_grant"})),
                Ending::Rejected => (400, json!({"error": "invalid_client"})),
                Ending::Redirect => (302, json!({})),
                Ending::Malformed => (200, json!({})),
                Ending::Permanent => return Err(TransportError::Permanent),
            },
        };
        Ok(paused(Response::new(status, body.to_string()), retry_after))
    }
}

fn paused(response: Response<String>, retry_after: Option<u32>) -> Response<String> {
    match retry_after {
        Some(seconds) => response.retry_after(&seconds.to_string()),
        None => response,
    }
}

/// What happens from one wake of the login to the next.
#[derive(Clone, Debug)]
struct Turn {
    /// By how much the clock differs from the planned wake. If `jump` is set, that is the reading instead.
    late: Millis,
    jump: Option<Millis>,
    margin: Millis,
    /// The time from the request to the answer.
    latency: Millis,
    answer: Answer,
    retry_after: Option<u32>,
    /// The login is stored and resumed on another clock, between two polls or in flight.
    restart: Option<Restart>,
}

#[derive(Clone, Copy, Debug)]
struct Restart {
    in_flight: bool,
    elapsed: Millis,
    known: bool,
    new_clock: Millis,
}

fn interval() -> impl Strategy<Value = u32> {
    prop_oneof![Just(1), Just(5), 1..8_u32, 28..32_u32, 290..310_u32]
}

fn answer() -> impl Strategy<Value = Answer> {
    let told = || {
        prop::option::weighted(
            0.3,
            prop_oneof![0..12_u32, 25..35_u32, 3590..3610_u32, Just(u32::MAX)],
        )
    };
    let ending = prop_oneof![
        3 => Just(Ending::InvalidGrant),
        1 => prop::sample::select(vec![
            Ending::Tokens, Ending::Denied, Ending::Expired, Ending::Rejected, Ending::Redirect,
            Ending::Malformed, Ending::Permanent,
        ]),
    ];
    let failure = prop::sample::select(vec![
        TransportError::ConnectionTimeout,
        TransportError::Other,
    ]);
    prop_oneof![
        8 => told().prop_map(Answer::Pending),
        4 => told().prop_map(Answer::SlowDown),
        3 => prop::sample::select(vec![503, 502, 429, 200]).prop_map(Answer::Transient),
        3 => failure.prop_map(Answer::Lost),
        1 => ending.prop_map(Answer::Ends),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let near =
        || prop_oneof![4 => Just(0), 2 => -1..=1_i128, 2 => -SECOND..=SECOND, 1 => 0..40 * SECOND];
    let jump = prop::option::weighted(
        0.05,
        prop_oneof![Just(0), 0..400 * SECOND, Just(1_000_000 * SECOND)],
    );
    let margin = prop_oneof![3 => Just(0), 1 => 0..10 * SECOND];
    let latency =
        prop_oneof![3 => Just(0), 2 => 0..3 * SECOND, 1 => 0..90 * SECOND, 1 => -5 * SECOND..0];
    let retry_after =
        prop::option::weighted(0.2, prop_oneof![0..20_u32, 50..70_u32, Just(u32::MAX)]);
    let restart = (
        any::<bool>(),
        near(),
        prop::bool::weighted(0.8),
        0..1000 * SECOND,
    );
    let restart = restart.prop_map(|(in_flight, elapsed, known, new_clock)| Restart {
        in_flight,
        elapsed: elapsed.max(0),
        known,
        new_clock,
    });
    (
        near(),
        jump,
        margin,
        latency,
        answer(),
        retry_after,
        prop::option::weighted(0.15, restart),
    )
        .prop_map(
            |(late, jump, margin, latency, answer, retry_after, restart)| Turn {
                late,
                jump,
                margin,
                latency,
                answer,
                retry_after,
                restart,
            },
        )
}

/// Asserts that the outcome of a login fits its ending.
fn check_ending(ending: Ending, oracle: &Oracle, outcome: &Result<Tokens, LoginError>) {
    let fits = match (ending, outcome) {
        (Ending::Tokens, Ok(tokens)) => tokens.bearer() == Some("a"),
        // P8, P9, P10, in this order.
        (Ending::InvalidGrant, Err(LoginError::Rejected(refusal))) => {
            refusal.possibly_redeemed == oracle.lost && (oracle.lost || oracle.t < oracle.deadline)
        }
        (Ending::InvalidGrant, Err(LoginError::Expired(_))) => {
            !oracle.lost && oracle.t >= oracle.deadline
        }
        (Ending::Rejected, Err(LoginError::Rejected(refusal))) => !refusal.possibly_redeemed,
        (Ending::Denied, Err(LoginError::Denied(_)))
        | (Ending::Expired, Err(LoginError::Expired(_)))
        | (Ending::Redirect, Err(LoginError::Redirected(302)))
        | (Ending::Malformed, Err(LoginError::Malformed(_)))
        | (Ending::Permanent, Err(LoginError::Failed(TransportError::Permanent))) => true,
        (_, _) => false,
    };
    assert!(fits, "{ending:?} {outcome:?} {oracle:?}");
}

/// Stores a snapshot and resumes it on another clock. Moves the oracle's moments to that clock.
fn restart(snapshot: &Snapshot, how: Restart, oracle: &mut Oracle) -> Login {
    let kept = serde_json::to_string(snapshot).unwrap();
    let snapshot = serde_json::from_str(&kept).unwrap();
    let elapsed = if how.known { how.elapsed } else { 0 };
    oracle.t += elapsed;
    let shift = how.new_clock - oracle.t;
    for moment in [&mut oracle.t, &mut oracle.deadline, &mut oracle.next] {
        *moment += shift;
    }
    if !how.known {
        // If the elapsed time is unknown, the login waits for a whole interval.
        oracle.settled = Some(oracle.final_permitted());
        oracle.next = oracle.t + oracle.floor;
        oracle.margin = 0;
    }
    flow()
        .resume(
            snapshot,
            how.known.then(|| span(elapsed)),
            span(how.new_clock),
        )
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariants 1 to 8: the login does what the oracle says on every trace, also after restarts.
    #[test]
    fn the_poller_does_what_the_tables_say(
        (interval, lifetime) in (interval(), prop_oneof![1..40_u32, 290..310_u32, Just(100_000)]),
        (at_once, final_poll) in (any::<bool>(), prop::bool::weighted(0.8)),
        (asked, answered) in (0..100 * SECOND, -3 * SECOND..20 * SECOND),
        turns in prop::collection::vec(turn(), 1..40),
    ) {
        let mut flow = flow();
        if at_once { flow = flow.first_poll_at_once(); }
        if !final_poll { flow = flow.no_final_poll(); }
        let body = ISSUED
            .replace("\"expires_in\":300", &format!("\"expires_in\":{lifetime}"))
            .replace("\"interval\":5", &format!("\"interval\":{interval}"));
        let (mut login, _) =
            start_at(&flow, span(asked), ok(200, &body), span(asked + answered)).unwrap();

        let lifetime = i128::from(lifetime) * SECOND;
        let first_floor = i128::from(interval) * SECOND;
        let mut oracle = Oracle {
            t: asked, deadline: asked + lifetime, lifetime, floor: first_floor, k: 0, next: 0,
            margin: 0, final_poll, final_sent: false, lost: false, cause: None, settled: None,
        };
        oracle.clock(asked + answered);
        oracle.next = oracle.t + if at_once { 0 } else { first_floor };

        let (mut polls, mut guessed, mut resumed) = (0, false, false);
        let mut last_answer: Option<Millis> = None;
        'turns: for turn in turns {
            // If a poll was overdue when its login was resumed, it is due at once. A margin would be added to a different moment in the
            // oracle.
            if !resumed {
                login.jitter(span(turn.margin));
                oracle.margin = turn.margin.min(oracle.floor);
            }
            resumed = false;
            if let Some(how) = turn.restart.filter(|how| !how.in_flight) {
                guessed |= !how.known;
                // The time since the last answer is carried over to the other clock.
                let passed = last_answer.map(|last| oracle.t + if how.known { how.elapsed } else { 0 } - last);
                login = restart(&login.snapshot(span(oracle.t)).unwrap(), how, &mut oracle);
                last_answer = passed.map(|passed| oracle.t - passed);
            }

            // Asks near the wakes that the login names, until the login sends or ends. It may be asked any number of times.
            let mut now = turn.jump.unwrap_or(oracle.next + oracle.margin + turn.late);
            let ask = loop {
                oracle.clock(now.max(0));
                let said = oracle.ask();
                if said != Said::Send {
                    match login.next(span(now)) {
                        Next::Wait { until } => {
                            prop_assert_eq!(said, Said::Wait(millis(until)));
                            // 6. The next wake is finite, and in the future.
                            prop_assert!(millis(until) > oracle.t);
                            now = millis(until);
                            continue;
                        }
                        Next::Done(Err(LoginError::TimedOut(reason))) => {
                            prop_assert_eq!(said, Said::Expired(reason));
                            break 'turns;
                        }
                        other => panic!("{said:?} {other:?}"),
                    }
                }
                match login.next(span(now)) {
                    Next::Send(ask) => {
                        prop_assert_eq!(ask.request().body(), POLL);
                        break ask;
                    }
                    other => panic!("{said:?} {other:?}"),
                }
            };
            // 1. From an answer to the next request, at least the floor in force passes.
            if let Some(last) = last_answer {
                prop_assert!(oracle.t - last >= oracle.floor);
            }
            polls += 1;

            if let Some(how) = turn.restart.filter(|how| how.in_flight) {
                guessed |= !how.known;
                oracle.clock((oracle.t + turn.latency).max(0));
                let snapshot = ask.snapshot(span(oracle.t)).unwrap();
                oracle.go_on(&Answer::Lost(TransportError::Other), None);
                login = restart(&snapshot, how, &mut oracle);
                last_answer = None;
                resumed = true;
                continue;
            }
            let answered = (oracle.t + turn.latency).max(0);
            oracle.clock(answered);
            ask.answer(turn.answer.told(turn.retry_after), span(answered));
            let goes_on = login.deadline().is_some();
            if let Answer::Ends(ending) = turn.answer {
                prop_assert!(!goes_on, "{:?}", ending);
                check_ending(ending, &oracle, &over(login));
                break;
            }
            let before = oracle.floor;
            let retry_after = turn.retry_after.filter(|_| !matches!(turn.answer, Answer::Lost(_)));
            let expected = oracle.go_on(&turn.answer, retry_after.map(|seconds| i128::from(seconds) * SECOND));
            // 2. The floor never falls.
            prop_assert!(oracle.floor >= before);
            prop_assert_eq!(goes_on, expected);
            if !goes_on {
                prop_assert_eq!(over(login), Err(LoginError::TimedOut(oracle.cause)));
                break;
            }
            prop_assert_eq!(login.interval().map(millis), Some(oracle.floor));
            last_answer = Some(oracle.t);
        }
        // 7. There are at most as many polls as the lifetime divided by the first floor, plus two.
        if !guessed {
            prop_assert!(polls <= lifetime / first_floor + 2, "{} polls", polls);
        }
    }

    /// Nothing overflows if the clock is near its end, or the lifetime or the interval is very long: the login waits, polls or expires.
    #[test]
    fn at_the_end_of_time_it_waits_or_expires(
        now in prop_oneof![Just(Duration::MAX), Just(Duration::from_secs(u64::MAX)), any::<u64>().prop_map(Duration::from_secs)],
        interval in prop_oneof![Just("1e300"), Just("18446744073709551615"), Just("5")],
        lifetime in prop_oneof![Just("1e300"), Just("18446744073709551615"), Just("300")],
        retry_after in "[0-9]{1,30}",
    ) {
        let body = ISSUED
            .replace("\"expires_in\":300", &format!("\"expires_in\":{lifetime}"))
            .replace("\"interval\":5", &format!("\"interval\":{interval}"));
        let (mut login, _) = start_at(&flow(), now, ok(200, &body), now).unwrap();
        for answer in [Err(TransportError::Other), Ok(Response::new(503, "").retry_after(&retry_after)), ok(400, SLOW_DOWN)] {
            match login.next(now) {
                Next::Wait { until } => prop_assert!(until > now),
                // At the last moment of the clock, everything is in the past: one poll goes out, and then the login ends.
                Next::Send(ask) => ask.answer(answer, now),
                Next::Done(outcome) => {
                    prop_assert!(matches!(outcome, Err(LoginError::TimedOut(_))));
                    break;
                }
                Next::Show(_) => panic!("it was shown"),
            }
        }
    }
}

/// Returns a verdict in one word, with the interval, the code or the token that it carries.
fn word(verdict: &Verdict) -> String {
    let told = |interval: &Option<Duration>| {
        interval.map_or(String::new(), |span| span.as_secs().to_string())
    };
    match verdict {
        Verdict::Pending(interval) => format!("pending {}", told(interval)),
        Verdict::SlowDown(interval) => format!("slow {}", told(interval)),
        Verdict::Denied(refusal) => format!("denied {}", refusal.code().unwrap()),
        Verdict::Expired(refusal) => format!("expired {}", refusal.code().unwrap()),
        Verdict::InvalidGrant(refusal) => format!("invalid {}", refusal.code().unwrap()),
        Verdict::Transient => "transient".into(),
        Verdict::Rejected(refusal) => format!("rejected {}", refusal.code().unwrap_or_default()),
        Verdict::Tokens(tokens) => format!("tokens {}", tokens.access_token()),
        Verdict::Redirected(_) => "redirected".into(),
        Verdict::Malformed(_) => "malformed".into(),
    }
}

/// Checks the rows of table V one by one, and returns the verdict for a body. `members` has the members of the body in their order.
fn table(status: u16, members: &[(String, Value)]) -> String {
    const OURS: [&str; 16] = [
        "error",
        "error_description",
        "interval",
        "access_token",
        "token_type",
        "expires_in",
        "refresh_token",
        "id_token",
        "scope",
        "code",
        "message",
        "device_code",
        "user_code",
        "verification_uri",
        "verification_url",
        "verification_uri_complete",
    ];
    let is_2xx = (200..300).contains(&status);
    let later = status == 408 || status == 429 || (500..600).contains(&status);
    let get = |name: &str| {
        members
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value)
    };
    let text = |name: &str| {
        get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let known = |code: &str| {
        Some(match code {
            "authorization_pending" => "pending",
            "slow_down" => "slow",
            "access_denied" | "authorization_declined" => "denied",
            "expired_token" | "token_expired" | "code_expired" => "expired",
            "invalid_grant" | "bad_verification_code" | "incorrect_device_code" => "invalid",
            "temporarily_unavailable" | "server_error" | "too_many_requests" => "transient",
            _ => return None,
        })
    };
    if (300..400).contains(&status) {
        return "redirected".into(); // V2
    }
    let repeated = |name: &&str| members.iter().filter(|(own, _)| own == name).count() > 1;
    if OURS.iter().any(repeated) || (text("access_token").is_some() && text("error").is_some()) {
        return "malformed".into(); // V3
    }
    let mut code = text("error");
    if code.is_none() && !is_2xx {
        code = text("code").or(text("message").filter(|text| known(text).is_some()));
    }
    if let Some(code) = code {
        let interval = match get("interval") {
            Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => whole.to_string(),
                (None, Some(float)) if float >= 0.0 => format!("{}", float.ceil()),
                (None, _) => String::new(),
            },
            Some(Value::String(text)) => text
                .parse::<u64>()
                .map_or(String::new(), |whole| whole.to_string()),
            _ => String::new(),
        };
        return match known(code) {
            Some(kind @ ("pending" | "slow")) => format!("{kind} {interval}"), // V4, V5
            Some("transient") => "transient".into(),                           // V9
            Some(kind) => format!("{kind} {code}"),                            // V6, V7, V8
            None if later => "transient".into(),                               // V9
            None => format!("rejected {}", code.replace('\n', "\u{fffd}")),    // V10, printable
        };
    }
    if is_2xx {
        let good = |name: &str| {
            text(name).is_none_or(|text| text.bytes().all(|b| (0x20..0x7f).contains(&b)))
        };
        let typed = matches!(
            get("token_type"),
            None | Some(Value::Null | Value::String(_))
        );
        let all_good = ["access_token", "refresh_token", "id_token", "token_type"]
            .iter()
            .all(|name| good(name));
        return match text("access_token") {
            Some(token) if all_good && typed => format!("tokens {token}"), // V11
            Some(_) | None => "malformed".into(),                          // V11, V12
        };
    }
    match status {
        _ if later => "transient".into(), // V13
        400..=499 => "rejected ".into(),  // V15
        _ => "malformed".into(),
    }
}

fn member() -> impl Strategy<Value = (String, Value)> {
    let name = prop::sample::select(vec![
        "error",
        "error",
        "error",
        "access_token",
        "access_token",
        "interval",
        "code",
        "message",
        "token_type",
        "refresh_token",
        "id_token",
        "scope",
        "expires_in",
        "error_description",
        "device_code",
        "x",
        "y",
        "Error",
    ]);
    let code = prop::sample::select(vec![
        "authorization_pending",
        "slow_down",
        "access_denied",
        "authorization_declined",
        "expired_token",
        "token_expired",
        "code_expired",
        "invalid_grant",
        "bad_verification_code",
        "incorrect_device_code",
        "temporarily_unavailable",
        "server_error",
        "too_many_requests",
        "invalid_request",
        "other",
        "",
        "a\nb",
        "ü",
        "7",
        "Bearer",
        "\"",
    ]);
    let value = prop_oneof![
        6 => code.prop_map(Value::from),
        1 => prop::sample::select(vec![
            json!(null), json!(true), json!(0), json!(7), json!(-7), json!(6.5), json!(-6.5), json!([]), json!(["a"]),
            json!([1, ["a"]]), json!({}), json!({"error": "slow_down"}),
        ]),
    ];
    (name.prop_map(String::from), value)
}

fn status() -> impl Strategy<Value = u16> {
    prop_oneof![
        8 => prop::sample::select(vec![200, 400, 400, 401, 403, 408, 428, 429, 500, 503]),
        1 => prop::sample::select(vec![0, 100, 199, 201, 299, 300, 302, 399, 404, 499, 599, 600]),
        1 => any::<u16>(),
    ]
}

fn object(members: &[(String, Value)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(name, value)| format!("{}: {value}", json!(name)))
        .collect();
    format!(" {{ {} }}\n", members.join(" , "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_is_what_the_table_says(status in status(), members in prop::collection::vec(member(), 0..6)) {
        let verdict = verdict(&Response::new(status, object(&members)));
        prop_assert_eq!(word(&verdict), table(status, &members));
    }

    /// 9. No `Debug` shows anything of a body. No body causes a panic, even if it was cut short or changed.
    #[test]
    fn no_body_panics_and_none_is_shown(
        status in status(),
        members in prop::collection::vec(member(), 0..6),
        cut in any::<prop::sample::Index>(),
        bent in prop::option::of(any::<u8>()),
    ) {
        let mut body = object(&members).into_bytes();
        let at = cut.index(body.len());
        match bent {
            Some(byte) => body[at] = byte,
            None => body.truncate(at),
        }
        let marked = [(String::from("access_token"), json!("s3cret")), (String::from("x"), json!("s3cret"))];
        let marked = object(&[&members[..], &marked[..]].concat());
        for body in [&body[..], marked.as_bytes()] {
            let received = Response::new(status, body);
            let shown = format!("{received:?} {:?}", verdict(&received));
            prop_assert!(!shown.contains("s3cret"));
            let mut login = flow().login().unwrap();
            sends(&mut login, s(0)).answer(Ok(received), s(0));
            let shown = format!("{:?}", login.next(s(0)));
            prop_assert!(!shown.contains("s3cret"));
        }
    }

    #[test]
    fn no_octets_panic(status in status(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let received = Response::new(status, body);
        let _ = verdict(&received);
        let mut login = flow().login().unwrap();
        sends(&mut login, s(0)).answer(Ok(received), s(0));
        let _ = login.next(s(0));
    }

    /// 10. Text to be shown contains no control and no format characters.
    #[test]
    fn what_is_shown_is_printable(text in any::<String>(), hidden in prop::collection::vec(0x2000..0x2070_u32, 0..9)) {
        let text: String = text.chars().chain(hidden.into_iter().filter_map(char::from_u32)).collect();
        let shown = DisplayText::new(&text);
        let shown: Vec<char> = shown.as_str().chars().collect();
        prop_assert_eq!(shown.len(), text.chars().count().min(1024));
        for (shown, c) in shown.iter().zip(text.chars()) {
            prop_assert!(!shown.is_control());
            let format = matches!(shown, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}');
            let replaced = *shown == char::REPLACEMENT_CHARACTER;
            prop_assert!(!format && (replaced || *shown == c));
        }
    }
}
