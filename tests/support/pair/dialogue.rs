//! What happens in a dialogue of a [pair](super).

use core::fmt::{self, Debug};

/// A whole dialogue.
#[derive(Clone)]
pub(crate) struct Dialogue {
    pub(crate) setup: Setup,
    pub(crate) turns: Vec<Vec<Op>>,
}

/// Each turn is on one line, even in pretty-printed output (`{:#?}`), so that a failure shows what happened step by step.
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

/// Something that happens before the client's next step. All spans are in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    // To the next exchange.
    LoseRequest,
    LoseAnswer,
    /// A gateway answers in place of the server, which has not seen the request.
    GatewayBefore,
    /// A gateway answers in place of the server, which has seen the request.
    GatewayAfter,
    /// The request reaches the server twice. The client gets this one of the two answers.
    Twice(Heard),
    /// A copy of the request reaches the server this many turns later. If the request was lost, only the copy arrives.
    LateCopy(u8),
    DelayRequest(i64),
    DelayAnswer(i64),
    /// The process of the client dies while it waits for the answer. Another process goes on with the login.
    Dies,
    Commits(Commit),
    /// Another process of the server answers. Its clock differs by this much.
    OtherServer(i64),
    // The users.
    Enter(User),
    /// The user approves all that was asked for, or only `openid`.
    Approve(User, Granted),
    Deny,
    Withdraw,
    Release,
    // The clocks.
    /// How fast the client's clock runs, in thousandths: 1000 is right.
    Rate(i64),
    /// The client wakes after this many tenths of its wait.
    WakesEarly(i64),
    Suspended(i64),
    /// The client is suspended, and its clock stands still meanwhile.
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

/// What happens to the guarded write of the next exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Heard,
    UnheardButDone,
    UnheardAndNotDone,
    /// The session cannot even be loaded.
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
    /// Polls with a code that was never issued.
    UnknownCode,
    ShortCode,
    /// Another client polls with the device's code.
    OtherClient,
    /// Polls as the client, but with a wrong credential.
    WrongCredential,
    Malformed,
    OtherMethod,
    /// A user enters a code that was not issued.
    WrongUserCode,
    /// Has the device's code or its refresh token, and poses as its client.
    Thief,
}
