//! Whatever operations come, each answer and each record of the server half is what the oracle says, which is written from the tables.
//! There is at most one success, nothing is pending after the expiry, and no tokens are sent after the end of a login or to another client.
//!
//! An input is a list of operations. Each operation is one letter, with one byte for each parameter. A byte counts from the digit `0`,
//! modulo the number of choices, so that every input is a list and a seed can be typed. `fuzz/README.md` lists the letters.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::support::oracle::{
    ASKED, Client, Commit, How, LIFETIME, Part, Registered, Stale, Token, Typed, User, Verdict,
};
use crate::support::world::{Asked, Clock, Op, World, play};

/// The longest list. It is limited because the oracle keeps every state for stale reads.
const MAX_OPERATIONS: usize = 64;

pub(crate) fn run(data: &[u8]) {
    let Ok(Ops(ops)) = Ops::arbitrary(&mut Unstructured::new(data)) else {
        return;
    };
    let mut successes = 0;
    let mut is_over = false;
    for (place, (event, wanted, record)) in play(&mut World::new(), &ops).into_iter().enumerate() {
        let at = format_args!("operation {place}: {:?} at {}", ops[place], event.now);
        assert_eq!(event.outcome, wanted, "{at}");
        assert_eq!(event.after, record, "stored by {at}");
        if let Some((told, _, fresh)) = event.poll() {
            successes += u8::from(told.status == 200);
            let pends = matches!(told.row, "C9 C10 C11" | "C12 C13" | "C20");
            assert!(!(pends && fresh && event.now >= LIFETIME), "{at}");
        }
        is_over |= matches!(event.before.state(), "denied" | "ended");
        if let Some((asked, told, by, _)) = event.reply() {
            let grants = told.status == 200 && asked != Asked::Revoke;
            assert!(!grants || !is_over && by == Client::Own, "{at}");
        }
        assert!(successes <= 1, "{at}");
    }
}

struct Ops(Vec<Op>);

impl<'a> Arbitrary<'a> for Ops {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut ops = Vec::new();
        // How the host behaves during the next operation, as the letters before that operation say.
        let mut how = How::WELL;
        while !u.is_empty() && ops.len() < MAX_OPERATIONS {
            match u.arbitrary::<u8>()? {
                b'u' => how.commit = Commit::UnheardButDone,
                b'n' => how.commit = Commit::UnheardAndNotDone,
                b'q' => {
                    const PARTS: [Part; 4] = [
                        Part::Registry,
                        Part::Quotas,
                        Part::Sessions,
                        Part::Generator,
                    ];
                    how.down = Some(PARTS[usize::from(pick(u, 4)?)]);
                }
                b'V' => how.verdict = verdict(u)?,
                letter => {
                    if let Some(op) = op(letter, how, u)? {
                        ops.push(op);
                        how = How::WELL;
                    }
                }
            }
        }
        Ok(Self(ops))
    }
}

/// Returns a number under `choices`, from one byte.
fn pick(u: &mut Unstructured<'_>, choices: u8) -> Result<u8> {
    Ok(u.arbitrary::<u8>()?.wrapping_sub(b'0') % choices)
}

fn op(letter: u8, how: How, u: &mut Unstructured<'_>) -> Result<Option<Op>> {
    Ok(Some(match letter {
        b'p' => Op::Poll(Client::Own, how),
        b'P' => poll(how, u)?,
        b'f' => Op::Refresh(Client::Own, token(u)?, None, how),
        b'F' => refresh(how, u)?,
        b'v' => {
            let by = by(u)?;
            let token = token(u)?;
            let stale = stale(u)?;
            Op::Revoke(by, token, How { stale, ..how })
        }
        b'e' => {
            let user = user(u)?;
            let typed = [Typed::Right, Typed::Wrong, Typed::Malformed][usize::from(pick(u, 3)?)];
            let rivals = pick(u, 6)?;
            let stale = stale(u)?;
            Op::Enter(
                user,
                typed,
                How {
                    stale,
                    rivals,
                    ..how
                },
            )
        }
        b'a' => {
            const SCOPES: [&str; 7] = [
                ASKED,
                "openid",
                "profile",
                "offline_access profile openid",
                "openid admin",
                "",
                "openid offline_access",
            ];
            let user = user(u)?;
            let scope = SCOPES[usize::from(pick(u, 7)?)];
            let stale = stale(u)?;
            Op::Approve(user, scope, How { stale, ..how })
        }
        b'd' => {
            let user = user(u)?;
            let stale = stale(u)?;
            Op::Deny(user, How { stale, ..how })
        }
        b'w' => {
            let user = user(u)?;
            let stale = stale(u)?;
            Op::Withdraw(user, How { stale, ..how })
        }
        b'r' => {
            let user = user(u)?;
            let stale = stale(u)?;
            Op::Release(user, How { stale, ..how })
        }
        b'g' => {
            const REGISTERED: [Registered; 8] = [
                Registered::For(ASKED),
                Registered::For("openid"),
                Registered::For("profile offline_access"),
                Registered::For("email"),
                Registered::For("offline_access openid"),
                Registered::WithoutDeviceGrant,
                Registered::Disabled,
                Registered::Removed,
            ];
            Op::Register(REGISTERED[usize::from(pick(u, 8)?)])
        }
        b'x' => Op::Purge,
        b'l' => Op::LosePace,
        b'c' => Op::Clock(clock(u)?),
        b't' => {
            // A signed number of milliseconds. It covers every gap between two polls that matters.
            Op::Clock(Clock::By(i64::from(u.arbitrary::<i16>()?)))
        }
        // A line break between operations, or an unknown letter.
        _ => return Ok(None),
    }))
}

fn poll(how: How, u: &mut Unstructured<'_>) -> Result<Op> {
    let by = by(u)?;
    let verdict = verdict(u)?;
    let commit = [
        Commit::Heard,
        Commit::UnheardButDone,
        Commit::UnheardAndNotDone,
    ][usize::from(pick(u, 3)?)];
    let stale = stale(u)?;
    let how = How {
        verdict,
        commit,
        stale,
        saves_pace: pick(u, 2)? == 0,
        ..how
    };
    Ok(Op::Poll(by, how))
}

fn refresh(how: How, u: &mut Unstructured<'_>) -> Result<Op> {
    const SCOPES: [Option<&str>; 6] = [
        None,
        Some("openid"),
        Some("offline_access openid"),
        Some(ASKED),
        Some("openid admin"),
        Some("open\"id"),
    ];
    let by = by(u)?;
    let token = token(u)?;
    let scope = SCOPES[usize::from(pick(u, 6)?)];
    let stale = stale(u)?;
    Ok(Op::Refresh(by, token, scope, How { stale, ..how }))
}

fn by(u: &mut Unstructured<'_>) -> Result<Client> {
    Ok([Client::Own, Client::Foreign][usize::from(pick(u, 2)?)])
}

fn verdict(u: &mut Unstructured<'_>) -> Result<Verdict> {
    Ok([
        Verdict::Mints,
        Verdict::CheckFails,
        Verdict::ConsentGone,
        Verdict::MintingFails,
    ][usize::from(pick(u, 4)?)])
}

/// Returns the last token that was sent, the one before it, and so on, or a token that was not sent.
fn token(u: &mut Unstructured<'_>) -> Result<Token> {
    Ok(match pick(u, 9)? {
        6 => Token::OfAnotherLogin,
        7 => Token::Forged,
        8 => Token::Malformed,
        ago => Token::Sent(ago),
    })
}

fn stale(u: &mut Unstructured<'_>) -> Result<Stale> {
    let reads = pick(u, 5)?;
    if reads == 0 {
        return Ok(Stale::FRESH);
    }
    let age = 1 + pick(u, 6)?;
    Ok(Stale { reads, age })
}

fn user(u: &mut Unstructured<'_>) -> Result<User> {
    Ok([User::Alice, User::Bob][usize::from(pick(u, 2)?)])
}

fn clock(u: &mut Unstructured<'_>) -> Result<Clock> {
    let to = pick(u, 12)?;
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
        Clock::EndOfRedeemTime(past),
        Clock::EndOfRetryWindow(past),
        Clock::PurgeTime(past),
        Clock::EndOfRepetition(past),
        Clock::EndOfGrace(past),
        Clock::IdleEnd(past),
        Clock::AbsoluteEnd(past),
    ][usize::from(to) - 1])
}
