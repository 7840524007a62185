//! Explores the server protocol: every interleaving of the real transitions, within the bounds that each test states.
//!
//! Each machine is explored as the contract demands, and then every property must hold in every state. It is also explored with one fault
//! in the host or its store, and then the checker must find a counterexample. `cargo test --test model -- --nocapture` prints the states
//! and the depth of each. This is a program of its own because it takes half a minute, and because `cargo mutants` leaves it out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::std_instead_of_alloc, reason = "a test has std")]

mod guesses;
mod lone;
mod real;
mod steps;
#[path = "../support/mod.rs"]
mod support;
mod world;

use core::fmt::Debug;
use core::hash::Hash;
use std::time::Instant;

use guesses::{Clock, Guesses};
use lone::{Lone, Rate};
use real::{Client, Decision, EXPIRY, GRACE, IDLE, REDEEM_TIME, RETENTION, Setup, User};
use stateright::{Checker, HasDiscoveries, Model};
use world::{Covered, Fault, Job, Machine, Start, Who};

/// Explores a whole machine, and asserts that no property has a counterexample.
fn explore<M>(name: &str, machine: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let start = Instant::now();
    let checker = machine.checker().spawn_bfs().join();
    println!(
        "model {name}: {} states, {} steps, depth {}, {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f32()
    );
    assert!(checker.is_done());
    checker.assert_properties();
}

/// Explores a machine for each property until a counterexample is found, and fails if it finds no counterexample.
fn refute<M>(name: &str, machine: impl Fn() -> M, properties: &[&'static str])
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    for property in properties {
        let found = HasDiscoveries::AnyOf([*property].into());
        let checker = machine().checker().finish_when(found).spawn_bfs().join();
        let path = checker.assert_any_discovery(property).into_actions();
        let steps: Vec<_> = path
            .iter()
            .map(|step| checker.model().format_action(step))
            .collect();
        println!(
            "model {name}, {} states: not {property}",
            checker.unique_state_count()
        );
        println!("    {}", steps.join("\n    "));
    }
}

/// Returns a machine in which the device polls in two tasks at once, in one of them twice, while Alice withdraws and the store purges. The
/// approval came in time or at the last moment. The host may redeem, refuse, end the login, or fail to mint.
fn redemption() -> Machine {
    Machine {
        start: Start::Approved(&[1_000, EXPIRY - 1]),
        tasks: vec![
            (Job::Poll(Client::Own), 2),
            (Job::Poll(Client::Own), 1),
            (Job::Decide(User::Alice), 1),
            (Job::Purge, 1),
        ],
        moments: vec![2_000, EXPIRY, EXPIRY + REDEEM_TIME + RETENTION],
        decisions: vec![Decision::Withdraw],
        ..Machine::default()
    }
}

/// Returns a machine in which the device polls once and another client twice, while Alice withdraws and the store purges.
fn foreigner() -> Machine {
    Machine {
        tasks: vec![
            (Job::Poll(Client::Own), 1),
            (Job::Poll(Client::Foreign), 2),
            (Job::Decide(User::Alice), 1),
            (Job::Purge, 1),
        ],
        ..redemption()
    }
}

/// Returns a machine with three polls at once, within the retry window of each other or after it, and a withdrawal.
fn crowd() -> Machine {
    Machine {
        start: Start::Approved(&[1_000]),
        tasks: vec![
            (Job::Poll(Client::Own), 1),
            (Job::Poll(Client::Own), 1),
            (Job::Poll(Client::Own), 1),
            (Job::Decide(User::Alice), 1),
        ],
        moments: vec![2_000, 4_000],
        ..redemption()
    }
}

/// Returns a machine in which Alice and Bob enter the code once each. Alice makes two decisions, one after the other, and Bob makes one,
/// out of five kinds. The device and another client poll.
fn decisions() -> Machine {
    Machine {
        tasks: vec![
            (Job::Enter(User::Alice), 1),
            (Job::Enter(User::Bob), 1),
            (Job::Decide(User::Alice), 2),
            (Job::Decide(User::Bob), 1),
            (Job::Poll(Client::Own), 1),
            (Job::Poll(Client::Foreign), 1),
        ],
        moments: vec![1_000, EXPIRY],
        decisions: vec![
            Decision::Approve,
            Decision::ApproveLess,
            Decision::Deny,
            Decision::Withdraw,
            Decision::Release,
        ],
        ..Machine::default()
    }
}

/// Returns a machine in which the device polls in two tasks at once, in one of them twice, and the paces are kept or lost. Meanwhile Alice
/// enters and decides, and the store purges. Depending on the moment, a poll may be a repetition, early or expired, or come after the purge
/// time.
fn pacing() -> Machine {
    Machine {
        tasks: vec![
            (Job::Poll(Client::Own), 2),
            (Job::Poll(Client::Own), 1),
            (Job::Enter(User::Alice), 1),
            (Job::Decide(User::Alice), 1),
            (Job::Purge, 1),
        ],
        moments: vec![1_000, 2_000, EXPIRY, EXPIRY + REDEEM_TIME + RETENTION],
        decisions: vec![Decision::Approve, Decision::Deny],
        keeps_paces: true,
        ..Machine::default()
    }
}

/// Returns a machine in which the owner refreshes four times, one after the other. Answers are lost, or the outcome of a write is unknown.
/// If there was no answer, the owner sends the same refresh again, within the grace or after it.
fn lost_answers() -> Machine {
    Machine {
        setup: Setup::Refreshed,
        start: Start::Active(500),
        tasks: vec![(Job::Refresh(Who::Owner), 4)],
        moments: vec![1_000, 1_000 + GRACE - 1, 1_000 + GRACE],
        withdraws_consent: false,
        ..Machine::default()
    }
}

/// Returns a machine in which the owner and a thief, who both have the first token, refresh twice each, at once or one after the other.
fn theft() -> Machine {
    Machine {
        tasks: vec![(Job::Refresh(Who::Owner), 2), (Job::Refresh(Who::Thief), 2)],
        moments: vec![1_000, 1_000 + GRACE],
        ..lost_answers()
    }
}

/// Returns a machine in which the owner refreshes while the login is ended: by a revocation, by a replay of the device code, by Alice, or
/// by the host.
fn ends() -> Machine {
    Machine {
        tasks: vec![
            (Job::Refresh(Who::Owner), 2),
            (Job::Revoke(Who::Owner), 1),
            (Job::Poll(Client::Own), 1),
            (Job::Decide(User::Alice), 1),
        ],
        moments: vec![5_000],
        decisions: vec![Decision::Withdraw],
        withdraws_consent: true,
        ..lost_answers()
    }
}

/// Returns a machine in which the owner refreshes, revokes and polls, while the lifetime of the login ends and the store purges.
fn lifetime() -> Machine {
    Machine {
        tasks: vec![
            (Job::Refresh(Who::Owner), 2),
            (Job::Revoke(Who::Owner), 1),
            (Job::Poll(Client::Own), 1),
            (Job::Purge, 1),
        ],
        moments: vec![5_000, 5_000 + IDLE, 5_000 + 2 * IDLE + RETENTION],
        ..lost_answers()
    }
}

/// Returns a machine in which two copies of one refresh come at once, which an owner must not send.
fn twice_at_once() -> Machine {
    Machine {
        tasks: vec![(Job::Refresh(Who::Owner), 2), (Job::Refresh(Who::Owner), 1)],
        moments: vec![1_000],
        ..lost_answers()
    }
}

/// Returns five guesses at once within one period, by clocks that differ. The store may purge at any moment.
fn guesses() -> Guesses {
    Guesses {
        entries: 5,
        moments: vec![0, 30_000, 59_999],
        clock: Clock::Any,
        purges: true,
        fault: None,
    }
}

/// Returns four guesses by clocks that differ by up to two periods.
fn guesses_at_any_time() -> Guesses {
    Guesses {
        entries: 4,
        moments: vec![0, 60_000, 120_000],
        purges: false,
        ..guesses()
    }
}

/// Returns four guesses over two periods of one clock. The store may purge.
fn guesses_as_time_goes_on() -> Guesses {
    Guesses {
        entries: 4,
        moments: vec![0, 30_000, 60_000, 90_000, 120_000],
        clock: Clock::Forward,
        ..guesses()
    }
}

/// Returns a minute of polls at the edges of the interval, by a device that may obey or not.
fn any_gaps() -> Lone {
    Lone {
        rate: Rate::Any(&[1_250, 3_749, 3_750]),
        loses_paces: true,
        fault: None,
    }
}

/// Returns a minute of polls at each of these fixed rates.
fn fixed_rates() -> Lone {
    Lone {
        rate: Rate::Fixed(&[
            500, 1_000, 2_000, 3_000, 3_749, 3_750, 4_000, 5_000, 7_000, 11_000, 16_000,
        ]),
        ..any_gaps()
    }
}

const SENT_AGAIN: &str = "R: a lost answer that is sent again within the grace ends nothing";

/// Asserts what an exploration has covered: the causes of the answers, the errors of entries, and the errors of decisions. An exploration
/// that covers less would show little.
fn assert_covered(machine: &Machine, expected: [&str; 3]) {
    let mut covered = [const { Vec::new() }; 3];
    for one in &*machine.covered.lock().unwrap() {
        match one {
            Covered::Answer(cause) => covered[0].push(cause.to_string()),
            Covered::Enter(wrong) => covered[1].push(format!("{wrong:?}")),
            Covered::Decide(error) => covered[2].push(format!("{error:?}")),
        }
    }
    let covered = covered.map(|mut names| {
        names.sort();
        names.join(" ")
    });
    assert_eq!(covered, expected);
}

#[test]
fn redemptions_race_with_each_other_and_with_a_withdrawal() {
    let machine = redemption();
    explore("redemption", machine.clone());
    let expected = [
        "approval_expired consent_gone contended duplicate ended expired granted host_check lost_race minting_failed \
             outcome_unknown pending replay unknown_code",
        "",
        "Expired NotYours Unavailable Undecided",
    ];
    assert_covered(&machine, expected);
    explore("crowd", crowd());
}

#[test]
fn a_foreign_client_learns_nothing() {
    let machine = foreigner();
    explore("foreigner", machine.clone());
    let expected = [
        "approval_expired consent_gone contended ended expired foreign_client granted host_check minting_failed \
             outcome_unknown pending unknown_code",
        "",
        "Expired NotYours Unavailable Undecided",
    ];
    assert_covered(&machine, expected);
}

#[test]
fn two_users_claim_release_and_decide_at_once() {
    let machine = decisions();
    explore("decisions", machine.clone());
    let expected = [
        "approval_expired consent_gone contended denied ended expired foreign_client granted host_check minting_failed \
             outcome_unknown pending",
        "ClaimedByAnother ExpiredCode Unavailable UnknownCode UsedCode",
        "Decided Expired NotYours Unavailable Undecided",
    ];
    assert_covered(&machine, expected);
}

#[test]
fn paces_expiry_and_purge_race_with_a_decision() {
    let machine = pacing();
    explore("pacing", machine.clone());
    let expected = [
        "approval_expired consent_gone contended denied duplicate ended expired granted host_check lost_race \
             minting_failed outcome_unknown pending repeated replay too_fast unknown_code",
        "ExpiredCode Unavailable UnknownCode",
        "Expired NotYours Unavailable",
    ];
    assert_covered(&machine, expected);
}

#[test]
fn a_login_survives_lost_answers() {
    let machine = lost_answers();
    explore("lost answers", machine.clone());
    let expected = "contended ended host_check minting_failed outcome_unknown refreshed reuse";
    assert_covered(&machine, [expected, "", ""]);
}

#[test]
fn a_thief_and_the_owner_who_both_refresh_end_the_login() {
    let machine = theft();
    explore("theft", machine.clone());
    let expected = "contended ended host_check minting_failed outcome_unknown refreshed reuse";
    assert_covered(&machine, [expected, "", ""]);
}

#[test]
fn refreshes_race_with_a_revocation_a_replay_and_a_withdrawal() {
    let machine = ends();
    explore("ends", machine.clone());
    let expected = "consent_gone contended ended host_check minting_failed nothing_to_revoke outcome_unknown refreshed \
                    replay revoked";
    assert_covered(&machine, [expected, "", "Unavailable"]);
}

#[test]
fn refreshes_race_with_the_end_of_the_lifetime_and_a_purge() {
    let machine = lifetime();
    explore("lifetime", machine.clone());
    let expected = "contended ended host_check login_expired minting_failed nothing_to_revoke outcome_unknown refreshed \
                    replay revoked unknown_code unknown_refresh_token";
    assert_covered(&machine, [expected, "", ""]);
}

#[test]
fn parallel_guesses_share_no_token() {
    explore("guesses at once", guesses());
    explore("guesses at any time", guesses_at_any_time());
    explore("guesses as time goes on", guesses_as_time_goes_on());
}

#[test]
fn a_lone_device_is_paced_as_promised() {
    explore("any gaps", any_gaps());
    explore("fixed rates", fixed_rates());
}

// Faults: the checks find them.

#[test]
fn without_the_guard_a_code_is_redeemed_twice_and_decisions_are_overwritten() {
    let fault = Some(Fault::NoGuard);
    refute(
        "redemption without a guard",
        || Machine {
            fault,
            ..redemption()
        },
        &[
            "1: at most one success per session",
            "1: nothing is redeemed after a denial or a withdrawal, or denied after a redemption",
            "3: a final state and its answer never change until purge",
        ],
    );
    refute(
        "decisions without a guard",
        || Machine {
            fault,
            ..decisions()
        },
        &[
            "3: a final state and its answer never change until purge",
            "9: nobody but the claimant decides, and the subject is the claimant",
        ],
    );
}

#[test]
fn a_commit_of_unknown_outcome_taken_for_won_redeems_a_code_twice() {
    let fault = Some(Fault::UnknownIsDone);
    refute(
        "redemption with unknown outcomes",
        || Machine {
            fault,
            ..redemption()
        },
        &[
            "1: at most one success per session",
            "1: nothing is redeemed after a denial or a withdrawal, or denied after a redemption",
        ],
    );
}

#[test]
fn with_expiry_ignored_an_expired_code_waits_and_is_claimed_and_redeemed() {
    let fault = Some(Fault::ClockStands);
    let expired = "2: no pending and no slow_down at or after the expiry";
    let too_late = "2: nothing is claimed, decided or redeemed too late";
    refute(
        "pacing at an old time",
        || Machine { fault, ..pacing() },
        &[expired, too_late],
    );
    refute(
        "decisions at an old time",
        || Machine {
            fault,
            ..decisions()
        },
        &[too_late],
    );
    refute(
        "redemption at an old time",
        || Machine {
            fault,
            ..redemption()
        },
        &[too_late],
    );
}

#[test]
fn a_pace_that_carries_the_session_erases_a_decision() {
    let fault = Some(Fault::PaceCarriesTheSession);
    refute(
        "pacing with the session",
        || Machine { fault, ..pacing() },
        &["6: a poll never changes subject, scope, claimant or decision"],
    );
}

#[test]
fn a_pace_that_bumps_the_version_makes_a_decision_lose() {
    let fault = Some(Fault::PaceBumpsTheVersion);
    refute(
        "pacing with the version",
        || Machine { fault, ..pacing() },
        &["8: saving a pace makes no other write lose"],
    );
}

#[test]
fn a_pace_that_inserts_brings_a_purged_session_back() {
    let fault = Some(Fault::PaceRevives);
    refute(
        "pacing that inserts",
        || Machine { fault, ..pacing() },
        &["3: a purge removes only what is past its purge time, for good"],
    );
}

#[test]
fn a_purge_that_is_early_forgets_what_is_to_be_answered() {
    let fault = Some(Fault::PurgesEarly);
    refute(
        "redemption with early purges",
        || Machine {
            fault,
            ..redemption()
        },
        &["3: a purge removes only what is past its purge time, for good"],
    );
}

#[test]
fn a_host_that_names_the_claimant_lets_anybody_decide() {
    let fault = Some(Fault::NamesTheClaimant);
    refute(
        "decisions by anybody",
        || Machine {
            fault,
            ..decisions()
        },
        &["9: nobody but the claimant decides, and the subject is the claimant"],
    );
}

#[test]
fn a_host_that_skips_the_client_gives_tokens_to_a_foreign_one() {
    let fault = Some(Fault::HostSkipsTheClient);
    refute(
        "redemption by any client",
        || Machine {
            fault,
            ..foreigner()
        },
        &["7: a foreign client changes nothing and learns nothing"],
    );
}

#[test]
fn without_the_guard_a_login_that_was_ended_is_refreshed() {
    let fault = Some(Fault::NoGuard);
    refute(
        "ends without a guard",
        || Machine { fault, ..ends() },
        &[
            "3: a final state and its answer never change until purge",
            "R: no refresh after the end",
        ],
    );
    refute(
        "theft without a guard",
        || Machine { fault, ..theft() },
        &["R: of a thief and the owner who both refreshed, the first never refreshes again"],
    );
}

#[test]
fn without_a_grace_a_lost_answer_ends_the_login() {
    let fault = Some(Fault::NoGrace);
    refute(
        "lost answers without a grace",
        || Machine {
            fault,
            ..lost_answers()
        },
        &[SENT_AGAIN],
    );
}

#[test]
fn a_refresh_of_unknown_outcome_taken_for_done_ends_the_login() {
    let fault = Some(Fault::UnknownIsDone);
    refute(
        "lost answers with unknown outcomes",
        || Machine {
            fault,
            ..lost_answers()
        },
        &[SENT_AGAIN],
    );
    refute(
        "ends with unknown outcomes",
        || Machine { fault, ..ends() },
        &[
            "R: no refresh after the end",
            "R: a revocation that was answered has ended the login",
        ],
    );
}

#[test]
fn with_reuse_ignored_a_thief_and_the_owner_go_on() {
    let theft_with = |fault| Machine {
        fault: Some(fault),
        ..theft()
    };
    let forgiven = || theft_with(Fault::ReuseIsForgiven);
    refute(
        "theft, reuse forgiven",
        forgiven,
        &["R: a refresh token is refused only where the login is over"],
    );
    let refreshed = || theft_with(Fault::ReuseIsRefreshed);
    refute(
        "theft, reuse refreshed",
        refreshed,
        &["R: of a thief and the owner who both refreshed, the first never refreshes again"],
    );
}

#[test]
fn where_the_clock_stands_the_grace_never_ends() {
    let fault = Some(Fault::ClockStands);
    refute(
        "theft at an old time",
        || Machine { fault, ..theft() },
        &["R: one refresh token at most is good after the grace"],
    );
}

/// This is not a fault, but a limit of what the crate promises. If two copies of one refresh come at once, each gets a token, and one of
/// the tokens is void. If the owner keeps the void one, its next use ends the login.
#[test]
fn two_copies_of_a_refresh_at_once_may_end_the_login() {
    let reuse = "contended host_check minting_failed outcome_unknown refreshed reuse";
    let machine = twice_at_once();
    explore("twice at once", machine.clone());
    assert_covered(&machine, [reuse, "", ""]);
}

#[test]
fn guesses_are_shared_where_their_quota_is_not_guarded_or_forgotten() {
    for fault in [
        guesses::Fault::NoGuard,
        guesses::Fault::FailedIsTaken,
        guesses::Fault::PurgesEarly,
    ] {
        let fault = Some(fault);
        refute(
            "guesses",
            || Guesses { fault, ..guesses() },
            &[guesses::PAID],
        );
    }
}

/// This is not a fault of the store, but a limit of what the crate promises. If a request hangs between its clock reading and its guess
/// while the store purges, its user gets more guesses.
#[test]
fn guesses_are_gained_by_requests_that_hang_over_a_purge() {
    let fault = Some(guesses::Fault::RequestsHang);
    let hanging = || Guesses {
        entries: 5,
        fault,
        ..guesses_as_time_goes_on()
    };
    refute("guesses that hang", hanging, &[guesses::PAID]);
}

#[test]
fn a_device_is_slowed_down_wrongly_where_the_host_keeps_its_pace_wrongly() {
    let with = |fault| Lone {
        fault: Some(fault),
        loses_paces: false,
        ..any_gaps()
    };
    let forgotten = || with(lone::Fault::IntervalForgotten);
    refute("gaps, the interval forgotten", forgotten, &[lone::INTERVAL]);
    let apart = || with(lone::Fault::ClocksFarApart);
    refute("gaps, the clocks far apart", apart, &[lone::OBEDIENT]);
    let fault = Some(lone::Fault::RejectionsCount);
    let counted = || Lone {
        fault,
        ..fixed_rates()
    };
    refute("rates, rejections counted", counted, &[lone::FIXED]);
}
