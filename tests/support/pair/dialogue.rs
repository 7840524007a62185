//! What happens in a dialogue of a [pair](super).

use core::fmt::{self, Debug};

/// A whole dialogue.
#[derive(Clone)]
pub(crate) struct Dialogue {
    pub(crate) setup: Setup,
    pub(crate) turns: Vec<Vec<Op>>,
}

/// Each turn on one line, also where it is printed at length: a failure is read as what happened.
impl Debug for Dialogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.setup)?;
        self.turns
            .iter()
            .try_for_each(|turn| write!(f, "\n    {turn:?}"))
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) client: Client,
    /// Seconds.
    pub(crate) interval: u8,
    /// Seconds.
    pub(crate) lifetime: u16,
    pub(crate) polls_at_once: bool,
    pub(crate) polls_at_the_end: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Public,
    SecretInHeader,
    SecretInBody,
}

/// What happens before the client is asked what is next. All spans are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    // The next exchange.
    LoseRequest,
    LoseAnswer,
    /// A gateway answers in place of the server, which has not seen the request.
    GatewayBefore,
    /// The same, after it has.
    GatewayAfter,
    /// The request comes twice, and this answer is heard: the first, or the second.
    Twice(Heard),
    /// A copy of the request comes so many turns later, or, of a request that was lost, the request itself.
    LateCopy(u8),
    DelayRequest(i64),
    DelayAnswer(i64),
    /// The process of the client dies while it waits for the answer; another one goes on.
    Dies,
    Commits(Commit),
    /// The other process of the server answers, whose clock differs by so much.
    OtherServer(i64),
    // The users.
    Enter(User),
    /// With `openid`, or with all that was asked for.
    Approve(User, Granted),
    Deny,
    Withdraw,
    Release,
    // The clocks.
    /// The client's clock runs so fast, in thousandths.
    Rate(i64),
    /// The client wakes after so many tenths of its wait.
    WakesEarly(i64),
    Suspended(i64),
    /// The same, with a clock that stands still meanwhile.
    SuspendedClock(i64),
    ClientClockBack(i64),
    ServerClock(i64),
    // The rest.
    Jitter(i64),
    /// Another process of the client takes over.
    TakenOver,
    Purge,
    Meddles(Meddler),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    First,
    Second,
}

/// What becomes of the next guarded write of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Heard,
    UnheardButDone,
    UnheardAndNotDone,
    /// The store does not even answer.
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Alice,
    Bob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    All,
    Less,
}

/// Somebody else, who sends a request of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meddler {
    /// With a code that was never issued.
    UnknownCode,
    ShortCode,
    /// Another client, with the device's own code.
    OtherClient,
    /// As the client, but with a credential that is not its own.
    WrongCredential,
    Malformed,
    OtherMethod,
    /// Who enters codes at random.
    WrongUserCode,
    /// Who has the device's code, and passes for its client.
    Thief,
}
