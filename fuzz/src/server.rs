//! Whatever operations come, the server half does what the oracle of the tables says: answer by answer, record by record, one success at most, nothing pending after expiry.
//!
//! An input is a list of operations, one letter each with its parameters, a byte each. A byte counts from the digit `0` on,
//! modulo the number of choices, so that every input is a list and a seed can be typed; `fuzz/README.md` has the letters.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::oracle::{Client, Commit, LIFETIME, Polling, Stale, Typed, User, Verdict};
use crate::world::{Clock, Op, World, play};

/// The longest list: the oracle keeps every state for stale reads.
const MAX_OPERATIONS: usize = 64;

pub(crate) fn run(data: &[u8]) {
    let Ok(Ops(ops)) = Ops::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let mut successes = 0;
    for (place, (event, wanted, record)) in play(&mut World::new(), &ops).into_iter().enumerate() {
        let at = format_args!("operation {place}: {:?} at {}", ops[place], event.now);
        assert_eq!(event.outcome, wanted, "{at}");
        assert_eq!(event.after, record, "stored by {at}");
        if let Some((told, _, fresh)) = event.poll() {
            successes += u8::from(told.status == 200);
            let pends = matches!(told.row, "C9 C10 C11" | "C12 C13");
            assert!(!(pends && fresh && event.now >= LIFETIME), "{at}");
        }
        assert!(successes <= 1, "{at}");
    }
}

struct Ops(Vec<Op>);

impl<'a> Arbitrary<'a> for Ops {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < MAX_OPERATIONS {
            if let Some(op) = op(u)? {
                ops.push(op);
            }
        }
        Ok(Self(ops))
    }
}

/// A number under `choices`, from one byte.
fn pick(u: &mut Unstructured<'_>, choices: u8) -> Result<u8> {
    Ok(u.arbitrary::<u8>()?.wrapping_sub(b'0') % choices)
}

fn op(u: &mut Unstructured<'_>) -> Result<Option<Op>> {
    Ok(Some(match u.arbitrary::<u8>()? {
        b'p' => Op::Poll(Polling {
            by: Client::Own,
            verdict: Verdict::Mints,
            commit: Commit::Heard,
            stale: FRESH,
            saves_pace: true,
        }),
        b'P' => Op::Poll(Polling {
            by: [Client::Own, Client::Foreign][usize::from(pick(u, 2)?)],
            verdict: [
                Verdict::Mints,
                Verdict::CheckFails,
                Verdict::ConsentGone,
                Verdict::MintingFails,
            ][usize::from(pick(u, 4)?)],
            commit: [
                Commit::Heard,
                Commit::UnheardButDone,
                Commit::UnheardAndNotDone,
            ][usize::from(pick(u, 3)?)],
            stale: stale(u)?,
            saves_pace: pick(u, 2)? == 0,
        }),
        b'e' => Op::Enter {
            by: user(u)?,
            typed: [Typed::Right, Typed::Wrong, Typed::Malformed][usize::from(pick(u, 3)?)],
            rivals: pick(u, 4)?,
            stale: stale(u)?,
        },
        b'a' => {
            const SCOPES: [&str; 6] = [
                "openid profile",
                "openid",
                "profile",
                "profile openid",
                "openid admin",
                "",
            ];
            Op::Approve(user(u)?, SCOPES[usize::from(pick(u, 6)?)], stale(u)?)
        }
        b'd' => Op::Deny(user(u)?, stale(u)?),
        b'w' => Op::Withdraw(user(u)?, stale(u)?),
        b'r' => Op::Release(user(u)?, stale(u)?),
        b'x' => Op::Purge,
        b'l' => Op::LosePace,
        b'c' => Op::Clock(clock(u)?),
        b't' => {
            // So many milliseconds, signed: as little or as much as matters between two polls.
            Op::Clock(Clock::By(i64::from(u.arbitrary::<i16>()?)))
        }
        // A line break between operations, or nothing that we know.
        _ => return Ok(None),
    }))
}

const FRESH: Stale = Stale { reads: 0, age: 0 };

fn stale(u: &mut Unstructured<'_>) -> Result<Stale> {
    let reads = pick(u, 5)?;
    if reads == 0 {
        return Ok(FRESH);
    }
    let age = 1 + pick(u, 6)?;
    Ok(Stale { reads, age })
}

fn user(u: &mut Unstructured<'_>) -> Result<User> {
    Ok([User::Alice, User::Bob][usize::from(pick(u, 2)?)])
}

fn clock(u: &mut Unstructured<'_>) -> Result<Clock> {
    let to = pick(u, 8)?;
    if to == 0 {
        const STEPS: [i64; 10] = [0, 1, -1, 1000, 2000, 5000, 20_000, -20_000, 60_000, 300_000];
        return Ok(Clock::By(STEPS[usize::from(pick(u, 10)?)]));
    }
    let past = [0, 1, -1, -4000][usize::from(pick(u, 4)?)];
    Ok([
        Clock::PollDue(past),
        Clock::WholeInterval(past),
        Clock::LastAcceptedPoll(past),
        Clock::Expiry(past),
        Clock::EndOfGrace(past),
        Clock::EndOfRetryWindow(past),
        Clock::PurgeTime(past),
    ][usize::from(to) - 1])
}
