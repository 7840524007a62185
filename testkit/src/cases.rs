//! The cases of the contract: each is a sentence, and the steps that show whether it holds.

use device_flow::server::{Inserted, Pace, RateLimited, Session, Stored, Write};
use time::OffsetDateTime;

use crate::operation::{Answer, Operation, Rule, Step};
use crate::sessions::{BURST, Decision, Set, before, past};

/// One thing that must hold.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) steps: fn(&Set) -> Vec<Step>,
    /// Whether the case is repeated, because a faulty store may pass it by luck.
    pub(crate) races: bool,
    /// Whether the case purges.
    pub(crate) purges: bool,
}

const fn case(name: &'static str, steps: fn(&Set) -> Vec<Step>) -> Case {
    Case {
        name,
        steps,
        races: false,
        purges: false,
    }
}

const fn race(name: &'static str, steps: fn(&Set) -> Vec<Step>) -> Case {
    Case {
        races: true,
        ..case(name, steps)
    }
}

const fn purge(name: &'static str, steps: fn(&Set) -> Vec<Step>) -> Case {
    Case {
        purges: true,
        ..case(name, steps)
    }
}

pub(crate) const fn all() -> &'static [Case] {
    CASES
}

const CASES: &[Case] = &[
    case(
        "an insert is found by both keys, and nothing else is",
        |set| {
            let mut steps = misses(&set.session);
            steps.push(inserts(&set.session));
            steps.extend(finds(&set.session));
            steps.extend(misses(&set.another));
            steps
        },
    ),
    case(
        "an insert never overwrites a device code that is taken",
        |set| {
            let mut steps = vec![
                inserts(&set.session),
                commits(&set.claim),
                one(
                    insert(&set.same_device),
                    Answer::Inserted(Inserted::DeviceCodeTaken),
                ),
            ];
            steps.extend(finds(&set.claim.after));
            steps.extend(by_user(&set.same_device).map(|load| one(load, Answer::Found(None))));
            steps
        },
    ),
    case(
        "an insert never takes the user code of another session",
        |set| {
            let mut steps = vec![
                inserts(&set.session),
                one(
                    insert(&set.same_user),
                    Answer::Inserted(Inserted::UserCodeTaken),
                ),
            ];
            steps.extend(finds(&set.session));
            steps.push(one(by_device(&set.same_user), Answer::Found(None)));
            steps
        },
    ),
    case(
        "a change is written if the stored version is the one that was read, and later reads find the whole change",
        |set| {
            let mut steps = vec![inserts(&set.session)];
            let chain = [&set.claim, &set.approval, &set.redemption, &set.refresh];
            for decision in chain {
                steps.push(commits(decision));
                steps.extend(finds(&decision.after));
            }
            steps
        },
    ),
    case(
        "a change made for an older version is refused and changes nothing",
        |set| {
            let mut steps = vec![
                inserts(&set.session),
                commits(&set.claim),
                conflicts(&set.claim),
                conflicts(&set.claim_by_another),
            ];
            steps.extend(finds(&set.claim.after));
            steps.push(commits(&set.denial));
            steps.push(conflicts(&set.approval));
            steps.push(conflicts(&set.claim_by_another));
            steps.extend(finds(&set.denial.after));
            steps
        },
    ),
    case("a change never inserts", |set| {
        let mut steps = vec![conflicts(&set.claim)];
        steps.extend(misses(&set.session));
        steps
    }),
    case(
        "a pace is saved beside the session and does not touch it",
        |set| {
            vec![
                inserts(&set.session),
                saves(set),
                one(by_device(&set.session), found(&set.session, Some(set.pace))),
                commits(&set.claim),
                saves(set),
                one(
                    by_device(&set.session),
                    found(&set.claim.after, Some(set.pace)),
                ),
            ]
        },
    ),
    case("a pace never inserts a session", |set| {
        let mut steps = vec![saves(set)];
        steps.extend(misses(&set.session));
        steps
    }),
    case("a quota is spent after its burst, and not before", |set| {
        let spent = set.spent;
        let mut steps: Vec<_> = (0..BURST).map(|_| takes(set, Ok(()))).collect();
        steps.push(takes(set, Err(spent)));
        steps
    }),
    race(
        "if two inserts of one user code race, exactly one wins",
        |set| {
            let both = [&set.session, &set.same_user];
            let mut steps = vec![Step {
                operations: both.map(insert).into(),
                rule: Rule::Win(1),
                expected: [Inserted::New, Inserted::UserCodeTaken]
                    .map(Answer::Inserted)
                    .into(),
            }];
            steps.extend(by_user(&set.session).map(|load| Step {
                operations: vec![load],
                rule: Rule::AnyOf,
                expected: both.map(|one| found(one, None)).into(),
            }));
            steps
        },
    ),
    race("if claims by two users race, exactly one wins", |set| {
        let mut steps = vec![inserts(&set.session)];
        steps.extend(contest(&[&set.claim, &set.claim_by_another]));
        steps
    }),
    race(
        "if an approval and a denial race, exactly one wins",
        |set| {
            let mut steps = vec![inserts(&set.session), commits(&set.claim)];
            steps.extend(contest(&[&set.approval, &set.denial]));
            steps
        },
    ),
    race("if redemptions race, exactly one wins", |set| {
        let mut steps = approved(set);
        steps.extend(contest(&[&set.redemption; 4]));
        steps
    }),
    race(
        "if a redemption and a withdrawal race, exactly one wins",
        |set| {
            let mut steps = approved(set);
            steps.extend(contest(&[&set.redemption, &set.withdrawal]));
            steps
        },
    ),
    race(
        "if refreshes and a withdrawal race, exactly one wins",
        |set| {
            let mut steps = approved(set);
            steps.push(commits(&set.redemption));
            steps.extend(contest(&[&set.refresh, &set.sign_out, &set.refresh]));
            steps
        },
    ),
    race(
        "paces that are saved while a decision is written do not undo it",
        |set| {
            vec![
                inserts(&set.session),
                commits(&set.claim),
                Step {
                    operations: vec![save(set), change(&set.denial), save(set)],
                    rule: Rule::Each,
                    expected: vec![
                        Answer::Done,
                        Answer::Written(Write::Committed),
                        Answer::Done,
                    ],
                },
                one(
                    by_device(&set.session),
                    found(&set.denial.after, Some(set.pace)),
                ),
            ]
        },
    ),
    race(
        "if several requests take from one quota at once, it gives no more than its burst",
        |set| {
            let many = usize::try_from(BURST).unwrap_or_default();
            vec![Step {
                operations: vec![Operation::Take(set.take); many + 3],
                rule: Rule::Win(many),
                expected: vec![Answer::Taken(Ok(())), Answer::Taken(Err(set.spent))],
            }]
        },
    ),
    purge("a purge keeps a quota that still limits", |set| {
        let spent = set.spent;
        let mut steps: Vec<_> = (0..BURST).map(|_| takes(set, Ok(()))).collect();
        steps.push(purges(set.now));
        steps.push(takes(set, Err(spent)));
        steps
    }),
    purge(
        "a purge removes what is past its purge time, and nothing before",
        |set| {
            let mut steps = vec![
                inserts(&set.session),
                purges(before(set.session.purge_at())),
            ];
            steps.extend(finds(&set.session));
            steps.push(purges(past(set.session.purge_at())));
            steps.extend(misses(&set.session));
            steps.push(inserts(&set.same_user));
            steps.extend(finds(&set.same_user));
            steps
        },
    ),
    purge("a change moves the purge time", |set| {
        let last = &set.late_approval.after;
        let mut steps = vec![
            inserts(&set.session),
            commits(&set.claim),
            commits(&set.late_approval),
            purges(before(last.purge_at())),
        ];
        steps.extend(finds(last));
        steps.push(purges(past(last.purge_at())));
        steps.extend(misses(last));
        steps
    }),
    purge("a late write does not bring back a purged session", |set| {
        let mut steps = vec![
            inserts(&set.session),
            saves(set),
            purges(past(set.session.purge_at())),
            saves(set),
        ];
        steps.extend(misses(&set.session));
        steps.push(conflicts(&set.claim));
        steps.extend(misses(&set.session));
        // A pace that outlives its session would slow down a new one.
        steps.push(inserts(&set.session));
        steps.push(Step {
            operations: vec![by_device(&set.session)],
            rule: Rule::Each,
            expected: vec![found(&set.session, None)],
        });
        steps
    }),
];

/// Claims and approves a session.
fn approved(set: &Set) -> Vec<Step> {
    vec![
        inserts(&set.session),
        commits(&set.claim),
        commits(&set.approval),
    ]
}

/// Exactly one of the decisions is written, and its session is found.
fn contest(decisions: &[&Decision]) -> Vec<Step> {
    let operations = decisions.iter().map(|one| change(one)).collect();
    let left = decisions
        .iter()
        .map(|one| found(&one.after, None))
        .collect();
    let load = decisions.iter().take(1).map(|one| by_device(&one.after));
    vec![
        Step {
            operations,
            rule: Rule::Win(1),
            expected: [Write::Committed, Write::Conflict]
                .map(Answer::Written)
                .into(),
        },
        Step {
            operations: load.collect(),
            rule: Rule::AnyOf,
            expected: left,
        },
    ]
}

fn one(operation: Operation, expected: Answer) -> Step {
    Step {
        operations: vec![operation],
        rule: Rule::Each,
        expected: vec![expected],
    }
}

fn insert(session: &Session) -> Operation {
    Operation::Insert(session.clone())
}

fn change(decision: &Decision) -> Operation {
    Operation::Change(decision.clone())
}

fn save(set: &Set) -> Operation {
    Operation::SavePace(*set.session.key(), set.pace)
}

fn by_device(session: &Session) -> Operation {
    Operation::Load(*session.key())
}

fn by_user(session: &Session) -> Option<Operation> {
    session.user_key().copied().map(Operation::LoadByUserKey)
}

fn found(session: &Session, pace: Option<Pace>) -> Answer {
    let session = session.clone();
    Answer::Found(Some(Stored { pace, session }))
}

fn inserts(session: &Session) -> Step {
    one(insert(session), Answer::Inserted(Inserted::New))
}

fn finds(session: &Session) -> Vec<Step> {
    let loads = [Some(by_device(session)), by_user(session)];
    let loads = loads.into_iter().flatten();
    loads.map(|load| one(load, found(session, None))).collect()
}

fn misses(session: &Session) -> Vec<Step> {
    let loads = [Some(by_device(session)), by_user(session)];
    let loads = loads.into_iter().flatten();
    loads.map(|load| one(load, Answer::Found(None))).collect()
}

fn commits(decision: &Decision) -> Step {
    one(change(decision), Answer::Written(Write::Committed))
}

fn conflicts(decision: &Decision) -> Step {
    one(change(decision), Answer::Written(Write::Conflict))
}

fn saves(set: &Set) -> Step {
    one(save(set), Answer::Done)
}

fn takes(set: &Set, expected: Result<(), RateLimited>) -> Step {
    one(Operation::Take(set.take), Answer::Taken(expected))
}

fn purges(now: OffsetDateTime) -> Step {
    one(Operation::Purge(now), Answer::Done)
}
