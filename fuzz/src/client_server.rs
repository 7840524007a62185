//! Whatever the network and the clocks do, a login of both halves ends as the user chose, or it expires, or it is rejected for a reason.
//! The reasons are a lost answer, a request that came twice, a write of unknown outcome, a withdrawal and a purge. There is at most one
//! success. The server says `slow_down` only after a loss or a copy, or if its clocks are wrong. Every refresh is answered as table R says.
//! No `Debug` shows a secret.
//!
//! An input is a set-up of four bytes and a list of operations. Each operation is one letter. Some have a parameter, which is a byte that
//! counts from the digit `0`. `fuzz/README.md` lists the letters. The assertions are in `tests/support/pair.rs`.

use arbitrary::{Result, Unstructured};

use crate::support::pair::{
    Client, Commit, Dialogue, Granted, Heard, Meddler, Op, Setup, User, play,
};

pub(crate) fn run(data: &[u8]) {
    if let Ok(dialogue) = dialogue(data) {
        let _ = play(&dialogue);
    }
}

fn dialogue(data: &[u8]) -> Result<Dialogue> {
    let mut script = Unstructured::new(data);
    let setup = setup(&mut script)?;
    let turns = turns(&mut script);
    Ok(Dialogue { setup, turns })
}

/// Returns a number under `choices`, from one byte.
fn pick(script: &mut Unstructured<'_>, choices: u8) -> Result<u8> {
    Ok(script.arbitrary::<u8>()?.wrapping_sub(b'0') % choices)
}

fn setup(script: &mut Unstructured<'_>) -> Result<Setup> {
    let client = match pick(script, 3)? {
        0 => Client::Public,
        1 => Client::SecretInHeader,
        _ => Client::SecretInBody,
    };
    let interval = [5, 1, 2, 10][usize::from(pick(script, 4)?)];
    let lifetime = [300, 600, 60, 30][usize::from(pick(script, 4)?)];
    let options = pick(script, 4)?;
    Ok(Setup {
        client,
        interval,
        lifetime,
        polls_at_once: options & 1 == 1,
        polls_at_the_end: options & 2 == 0,
    })
}

fn turns(script: &mut Unstructured<'_>) -> Vec<Vec<Op>> {
    let mut turns = vec![Vec::new()];
    while !script.is_empty() {
        let letter = script.arbitrary::<u8>().unwrap_or_default();
        let mut number = || i64::from(script.arbitrary::<u8>().unwrap_or(b'0').wrapping_sub(b'0'));
        let op = match letter {
            b'\n' => {
                turns.push(Vec::new());
                continue;
            }
            // The network and the server, at the next exchange.
            b'q' => Op::LoseRequest,
            b'z' => Op::LoseAnswer,
            b'b' => Op::GatewayBefore,
            b'B' => Op::GatewayAfter,
            b'u' => Op::Twice(Heard::First),
            b'v' => Op::Twice(Heard::Second),
            b'k' => Op::LateCopy(1),
            b'K' => Op::LateCopy(u8::try_from(number()).unwrap_or_default()),
            b'X' => Op::Dies,
            b'm' => Op::DelayRequest(number() * 100),
            b'n' => Op::DelayAnswer(number() * 100),
            b's' => Op::Commits(Commit::Down),
            b'j' => Op::Commits(Commit::UnheardButDone),
            b'i' => Op::Commits(Commit::UnheardAndNotDone),
            b'p' => Op::OtherServer(number() * 100 - 1000),
            // The users.
            b'e' => Op::Enter(User::Alice),
            b'E' => Op::Enter(User::Bob),
            b'a' => Op::Approve(User::Alice, Granted::All),
            b'o' => Op::Approve(User::Alice, Granted::Less),
            b'A' => Op::Approve(User::Bob, Granted::All),
            b'd' => Op::Deny,
            b'w' => Op::Withdraw,
            b'r' => Op::Release,
            // The clocks.
            b'g' => Op::Rate(700 + number() * 600 / 255),
            b'f' => Op::Rate(1300),
            b't' => Op::WakesEarly(number() % 10),
            b'y' => Op::Suspended(number() * 10_000),
            b'Z' => Op::SuspendedClock(number() * 10_000),
            b'Y' => Op::ClientClockBack(number() * 1000),
            b'c' => Op::ServerClock(number() * 1000),
            b'C' => Op::ServerClock(-number() * 1000),
            // The rest.
            b'h' => Op::Jitter(number() * 100),
            b'S' => Op::TakenOver,
            b'x' => Op::Purge,
            b'H' => Op::Meddles(meddler(number())),
            _ => continue,
        };
        turns.last_mut().unwrap().push(op);
    }
    turns
}

fn meddler(number: i64) -> Meddler {
    match number % 8 {
        0 => Meddler::UnknownCode,
        1 => Meddler::ShortCode,
        2 => Meddler::OtherClient,
        3 => Meddler::WrongCredential,
        4 => Meddler::Malformed,
        5 => Meddler::OtherMethod,
        6 => Meddler::WrongUserCode,
        _ => Meddler::Thief,
    }
}
