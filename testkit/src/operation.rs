//! One operation of a store, and the answers that are accepted.

use device_flow::digest::{SessionKey, UserKey};
use device_flow::server::{Inserted, Pace, RateLimited, Session, Store, Stored, Take, Write};
use time::OffsetDateTime;

use crate::Violation;
use crate::sessions::Decision;

/// What the store is asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Insert(Session),
    Load(SessionKey),
    LoadByUserKey(UserKey),
    /// Writes the change of this decision, which was made from the session that was read before.
    Change(Decision),
    SavePace(SessionKey, Pace),
    Take(Take),
    Purge(OffsetDateTime),
}

/// What a store answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Inserted(Inserted),
    Found(Option<Stored>),
    Written(Write),
    /// `Ok` if the quota still had one to take.
    Taken(Result<(), RateLimited>),
    Done,
    Unavailable,
}

impl Operation {
    pub(crate) async fn run<S: Store>(&self, store: &S) -> Answer {
        let answer = match self {
            Self::Insert(session) => store.insert(session).await.map(Answer::Inserted),
            Self::Load(key) => store.load(key).await.map(Answer::Found),
            Self::LoadByUserKey(key) => store.load_by_user_key(key).await.map(Answer::Found),
            Self::Change(decision) => decision.write(store).await.map(Answer::Written),
            Self::SavePace(key, pace) => {
                store.save_pace(key, *pace).await;
                Ok(Answer::Done)
            }
            Self::Take(take) => store.take(*take).await.map(Answer::Taken),
            Self::Purge(now) => store.purge(*now).await.map(|_| Answer::Done),
        };
        answer.unwrap_or(Answer::Unavailable)
    }
}

impl Answer {
    fn meets(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Inserted(one), Self::Inserted(other)) => one == other,
            (Self::Found(Some(one)), Self::Found(Some(other))) => {
                let whole = |stored: &Stored| serde_json::to_string(&stored.session).ok();
                // A pace may always be missing, because a store need not keep it.
                let is_pace = one.pace.is_none() || one.pace == other.pace;
                is_pace && whole(one) == whole(other)
            }
            (Self::Found(None), Self::Found(None)) | (Self::Done, Self::Done) => true,
            (Self::Written(one), Self::Written(other)) => one == other,
            (Self::Taken(one), Self::Taken(other)) => one.is_ok() == other.is_ok(),
            _ => false,
        }
    }
}

/// How the answers of a step are judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Rule {
    /// Each answer is the expected one at its place.
    Each,
    /// All answers are the same, and that answer is one of those expected.
    AnyOf,
    /// This many answers are the first expected one. All others are the second.
    Win(usize),
}

/// Operations that are run at the same time, and the answers that are accepted.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) operations: Vec<Operation>,
    pub(crate) rule: Rule,
    pub(crate) expected: Vec<Answer>,
}

impl Step {
    pub(crate) fn check(&self, case: &'static str, answers: &[Answer]) -> Result<(), Violation> {
        let met = |answer: &Answer, place| {
            let expected = self.expected.get(place);
            expected.is_some_and(|expected| answer.meets(expected))
        };
        let count = |place| answers.iter().filter(|one| met(one, place)).count();
        let is_right = match self.rule {
            Rule::Each => (0..).zip(answers).all(|(place, one)| met(one, place)),
            Rule::AnyOf => (0..self.expected.len()).any(|place| count(place) == answers.len()),
            Rule::Win(winners) => count(0) == winners && count(1) + winners == answers.len(),
        };
        if is_right && answers.len() == self.operations.len() {
            return Ok(());
        }
        Err(Violation {
            case,
            asked: format!("{:?}", self.operations),
            expected: format!("{:?} of {:?}", self.rule, self.expected),
            answered: format!("{answers:?}"),
        })
    }
}
